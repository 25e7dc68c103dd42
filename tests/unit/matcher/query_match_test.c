/* SPDX-License-Identifier: Apache-2.0 */
/* Query parameters: first value, as it stands or decoded. */
#include "tests/unit/matcher/matcher_fixture.h"

static void test_first_value(void **state)
{
    static const struct {
        const char *path, *name, *value; /* value NULL: not there */
    } cases[] = {
        {"/p", "a", NULL},
        {"/p?", "a", NULL},
        {"/p?a", "a", ""},
        {"/p?a=", "a", ""},
        {"/p?a=1", "a", "1"},
        {"/p?a=1&a=2", "a", "1"},
        {"/p?b=1&a=2", "a", "2"},
        {"/p?&a=2", "a", "2"},
        {"/p?a=1=2", "a", "1=2"},
        {"/p?a?b=1", "a?b", "1"},
        {"/p?%61=1", "a", NULL},
        {"/p?aa=1", "a", NULL},
        {"/p?a=x%20y", "a", "x%20y"},
        {"/p?b&a", "a", ""},
        {"?a=1", "a", "1"},
        {"", "a", NULL},
    };

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        struct kb_str got =
            kb_query_first_value(kb_str_from_cstr(cases[i].path), kb_str_from_cstr(cases[i].name));

        if ((got.p != NULL) != (cases[i].value != NULL) ||
            (got.p != NULL && !kb_str_eq(got, kb_str_from_cstr(cases[i].value)))) {
            fail_msg("%s of %s: got '%.*s'", cases[i].name, cases[i].path, KB_STR_ARG(got));
        }
    }
}

static void test_all_must_match(void **state)
{
    struct matcher_fixture *fixture = *state;
    Envoy__Config__Route__V3__QueryParameterMatcher *messages[] = {
        matcher_message(fixture, &envoy__config__route__v3__query_parameter_matcher__descriptor,
                        "{name: a, string_match: {prefix: X, ignore_case: true}}"),
        matcher_message(fixture, &envoy__config__route__v3__query_parameter_matcher__descriptor,
                        "{name: b, present_match: false}"),
    };
    struct kb_query_matcher *matchers =
        kb_query_matchers_create(messages, 2, "query_parameters", &fixture->build);

    assert_non_null(matchers);
    assert_true(kb_query_matchers_all(matchers, 2, KB_STR("/?a=xy")));
    assert_false(kb_query_matchers_all(matchers, 2, KB_STR("/?a=xy&b")));
    assert_false(kb_query_matchers_all(matchers, 2, KB_STR("/?a=yx")));
    assert_false(kb_query_matchers_all(matchers, 2, KB_STR("/")));
    assert_true(kb_query_matchers_all(NULL, 0, KB_STR("/")));
}

static void test_decoded(void **state)
{
    static const struct {
        const char *path, *name, *value; /* value NULL: not there */
    } cases[] = {
        {"/p?a=x%20y", "a", "x y"}, {"/p?%61=1", "a", "1"},       {"/p?a=%", "a", "%"},
        {"/p?a=%2", "a", "%2"},     {"/p?a=%zz", "a", "%zz"},     {"/p?a=%4A%4a", "a", "JJ"},
        {"/p?a=b+c", "a", "b+c"},   {"/p?b=%61&a=", "a", ""},     {"/p?a=%41&a=2", "a", "A"},
        {"/p?b", "a", NULL},        {"/p?%25=%2541", "%", "%41"},
    };
    struct matcher_fixture *fixture = *state;

    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        struct kb_str got = kb_query_decoded_value(
            kb_str_from_cstr(cases[i].path), kb_str_from_cstr(cases[i].name), &fixture->arena);

        if ((got.p != NULL) != (cases[i].value != NULL) ||
            (got.p != NULL && !kb_str_eq(got, kb_str_from_cstr(cases[i].value)))) {
            fail_msg("%s of %s: got '%.*s'", cases[i].name, cases[i].path, KB_STR_ARG(got));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MATCHER_TEST(test_first_value),
        MATCHER_TEST(test_all_must_match),
        MATCHER_TEST(test_decoded),
    };

    return cmocka_run_group_tests_name("query_match", tests, NULL, NULL);
}
