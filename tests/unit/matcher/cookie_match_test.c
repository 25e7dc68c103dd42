/* SPDX-License-Identifier: Apache-2.0 */
/* Cookie matchers against Cookie headers, with the answers of Envoy 1.40: a row is a list of
 * matchers, a column a request. */
#include "tests/unit/matcher/matcher_fixture.h"

#include "proxy/matcher/cookie_match.h"

/* Cookie headers separated by '|'; NULL: none. */
static const char *const columns[] = {
    NULL,        "a=1",      "a=2", "a=1; a=2", "a=2; a=1", "a=1|a=2", "a=2|a=1", "a=\"1\"",
    "b=xy; a=1", "b=xy;a=1", "a",   "a=",       "a= 1",     "a=1;",    "A=1",
};

static const struct {
    const char *matchers[2];
    const char *answers;
} rows[] = {
    {{"{name: a, string_match: {exact: '1'}}"}, "-y-y-y-yyy---y-"},
    {{"{name: a, string_match: {exact: '1'}, invert_match: true}"}, "y-y-y-y---yyy-y"},
    {{"{name: a, string_match: {exact: ''}}"}, "-----------y---"},
    {{"{name: a, string_match: {exact: '1'}}", "{name: b, string_match: {prefix: x}}"},
     "--------yy-----"},
    {{"{name: a, string_match: {safe_regex: {regex: '1|2'}}}"}, "-yyyyyyyyy---y-"},
    {{"{name: A, string_match: {exact: '1'}}"}, "--------------y"},
};

static void test_table(void **state)
{
    struct matcher_fixture *fixture = *state;

    for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
        Envoy__Config__Route__V3__CookieMatcher *messages[2] = {NULL, NULL};
        struct kb_cookie_matcher *matchers;
        size_t n = 0;

        for (; n < 2 && rows[i].matchers[n] != NULL; n++) {
            messages[n] =
                matcher_message(fixture, &envoy__config__route__v3__cookie_matcher__descriptor,
                                rows[i].matchers[n]);
        }
        matchers = kb_cookie_matchers_create(messages, n, "cookies", &fixture->build);
        assert_non_null(matchers);
        for (size_t c = 0; c < KB_ARRAY_LEN(columns); c++) {
            struct kb_str rest = kb_str_from_cstr(columns[c]);
            struct kb_header_map map;
            struct kb_str value;

            kb_header_map_init(&map, &fixture->arena);
            while (columns[c] != NULL && kb_str_next_token(&rest, '|', &value)) {
                kb_header_map_add(&map, KB_STR("cookie"), value);
            }
            if (kb_cookie_matchers_all(matchers, n, &map) != (rows[i].answers[c] == 'y')) {
                fail_msg("%s with %s", rows[i].matchers[0],
                         columns[c] != NULL ? columns[c] : "none");
            }
        }
    }
}

static void test_errors(void **state)
{
    struct matcher_fixture *fixture = *state;
    Envoy__Config__Route__V3__CookieMatcher *message =
        matcher_message(fixture, &envoy__config__route__v3__cookie_matcher__descriptor,
                        "{name: a, string_match: {safe_regex: {regex: '('}}}");

    assert_null(kb_cookie_matchers_create(&message, 1, "cookies", &fixture->build));
    assert_int_equal(fixture->diag.error_count, 1);
    message->string_match = NULL;
    assert_null(kb_cookie_matchers_create(&message, 1, "cookies", &fixture->build));
    assert_null(kb_cookie_matchers_create(NULL, 0, "cookies", &fixture->build));
    assert_int_equal(fixture->diag.error_count, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MATCHER_TEST(test_table),
        MATCHER_TEST(test_errors),
    };

    return cmocka_run_group_tests_name("cookie_match", tests, NULL, NULL);
}
