/* SPDX-License-Identifier: Apache-2.0 */
/* Header matchers against values, with the answers of Envoy 1.40: a row is a matcher, a column a
 * request. */
#include "tests/unit/matcher/matcher_fixture.h"

/* Values of x-a in each column; a column is a list separated by '|'. NULL: no header. */
static const char *const columns[] = {NULL,  "1", "2",     "1|2", "2|1", "2|3",
                                      "1|1", "|", "zABCz", "abc", ""};

struct match_row {
    const char *matcher;
    const char *answers; /* one of 'y' and '-' for each column */
};

static const struct match_row rows[] = {
    {"string_match: {exact: '1'}", "-y-yy-y----"},
    {"string_match: {exact: '1'}, invert_match: true", "--y--y-yyyy"},
    {"string_match: {exact: '1'}, invert_match: true, treat_missing_header_as_empty: true",
     "y-y--y-yyyy"},
    {"string_match: {exact: ''}", "-------y--y"},
    {"string_match: {exact: ''}, treat_missing_header_as_empty: true", "y------y--y"},
    {"exact_match: '1'", "-y-yy-y----"},
    {"exact_match: '1', invert_match: true", "--y--y-yyyy"},
    {"exact_match: ''", "-yyyyyyyyyy"},
    {"exact_match: '', invert_match: true", "-----------"},
    {"range_match: {start: 1, end: 2}", "-y-yy-y----"},
    {"range_match: {start: 1, end: 2}, invert_match: true", "--y--y-yyyy"},
    {"present_match: true", "-yyyyyyyyyy"},
    {"present_match: true, invert_match: true", "y----------"},
    {"present_match: false", "y----------"},
    {"present_match: false, invert_match: true", "-yyyyyyyyyy"},
    {"present_match: true, treat_missing_header_as_empty: true", "yyyyyyyyyyy"},
    {"invert_match: false", "-yyyyyyyyyy"},
    {"prefix_match: '1'", "-y-yy-y----"},
    {"prefix_match: '1', invert_match: true", "--y--y-yyyy"},
    {"suffix_match: c", "---------y-"},
    {"contains_match: BC", "--------y--"},
    {"contains_match: '1', invert_match: true", "--y--y-yyyy"},
    {"safe_regex_match: {regex: 'a.c'}", "---------y-"},
    {"safe_regex_match: {regex: '1'}, invert_match: true", "--y--y-yyyy"},
    {"string_match: {contains: aBc, ignore_case: true}", "--------yy-"},
    {"string_match: {suffix: Bc, ignore_case: true}", "---------y-"},
    {"string_match: {prefix: ZaB, ignore_case: true}", "--------y--"},
    {"string_match: {exact: ABC, ignore_case: true}", "---------y-"},
    {"string_match: {safe_regex: {regex: '.*b.*'}}", "---------y-"},
};

static bool row_column_match(struct matcher_fixture *fixture, const char *name, const char *text,
                             const char *column)
{
    struct kb_str yaml = kb_str_printf(&fixture->arena, "{name: %s, %s}", name, text);
    Envoy__Config__Route__V3__HeaderMatcher *message =
        matcher_message(fixture, &envoy__config__route__v3__header_matcher__descriptor, yaml.p);
    struct kb_header_matcher *matcher =
        kb_header_matchers_create(&message, 1, "headers", &fixture->build);
    struct kb_header_map map;
    struct kb_str rest = kb_str_from_cstr(column);
    struct kb_str value;
    struct kb_str lower = kb_str_dup(&fixture->arena, kb_str_from_cstr(name));

    assert_non_null(matcher);
    for (size_t i = 0; i < lower.len; i++) {
        ((char *)lower.p)[i] = kb_ascii_lower(lower.p[i]);
    }
    kb_header_map_init(&map, &fixture->arena);
    kb_header_map_add(&map, KB_STR("x-b"), KB_STR("1"));
    while (column != NULL && kb_str_next_token(&rest, '|', &value)) {
        kb_header_map_add(&map, lower, value);
        kb_header_map_add(&map, KB_STR("cookie-x"), KB_STR("1"));
    }
    return kb_header_matcher_match(matcher, &map);
}

static void rows_check(struct matcher_fixture *fixture, const char *name)
{
    for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
        for (size_t c = 0; c < KB_ARRAY_LEN(columns); c++) {
            bool got = row_column_match(fixture, name, rows[i].matcher, columns[c]);

            if (got != (rows[i].answers[c] == 'y')) {
                fail_msg("%s: %s with %s: got %d", name, rows[i].matcher,
                         columns[c] != NULL ? columns[c] : "none", got);
            }
        }
    }
}

static void test_table(void **state)
{
    rows_check(*state, "X-A");
    rows_check(*state, "Set-Cookie"); /* a well-known name */
}

static void test_range_numbers(void **state)
{
    static const struct {
        const char *value;
        bool match;
    } cases[] = {{"5", true},  {"-5", true},  {"10", false}, {"+3", true},
                 {" 7", true}, {"5x", false}, {"", false},   {"9223372036854775808", false}};

    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        assert_int_equal(
            row_column_match(*state, "x-a", "range_match: {start: -5, end: 10}", cases[i].value),
            cases[i].match);
    }
}

static void test_bytes_not_characters(void **state)
{
    assert_true(row_column_match(*state, "x-a", "safe_regex_match: {regex: 'a.c'}",
                                 "a\xe9"
                                 "c"));
    assert_false(row_column_match(*state, "x-a", "safe_regex_match: {regex: 'a.c'}",
                                  "a\xc3\xa9"
                                  "c"));
    assert_true(row_column_match(*state, "x-a", "safe_regex_match: {regex: 'a..c'}",
                                 "a\xc3\xa9"
                                 "c"));
}

static void test_name_present(void **state)
{
    struct matcher_fixture *fixture = *state;
    struct kb_header_map map;

    kb_header_map_init(&map, &fixture->arena);
    kb_header_map_add(&map, KB_STR("x-a"), KB_STR(""));
    assert_true(kb_header_name_present(&map, KB_STR("X-a")));
    assert_false(kb_header_name_present(&map, KB_STR("x-b")));
    assert_false(kb_header_name_present(&map, KB_STR("")));
    assert_false(kb_header_name_present(&map, KB_STR(":path")));
    map.path = KB_STR("/");
    assert_true(kb_header_name_present(&map, KB_STR(":path")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MATCHER_TEST(test_table),
        MATCHER_TEST(test_range_numbers),
        MATCHER_TEST(test_bytes_not_characters),
        MATCHER_TEST(test_name_present),
    };

    return cmocka_run_group_tests_name("header_match", tests, NULL, NULL);
}
