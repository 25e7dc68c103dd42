/* SPDX-License-Identifier: Apache-2.0 */
/* Names of certificates: wildcards, matchers of each kind, and what must not match. */
#include "tls/tls_san.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PATTERN(name) ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_##name

static void dns_wildcards(void **state)
{
    static const struct {
        const char *name;
        const char *pattern;
        bool match;
    } cases[] = {
        {"a.test", "a.test", true},
        {"A.Test", "a.tEST", true},
        {"b.test", "a.test", false},
        {"a.b.test", "*.b.test", true},
        {"a.c.b.test", "*.b.test", false},
        {"b.test", "*.b.test", false},
        {"a.b.test", "*.test", false},
        {"foo1.b.test", "foo*.b.test", true},
        {"foo.b.test", "foo*.b.test", true},
        {"fo.b.test", "foo*.b.test", false},
        {"1foo.b.test", "*foo.b.test", true},
        {"afoob.b.test", "a*b.b.test", true},
        {"ab.b.test", "a*b.b.test", true},
        {"a.b.test", "a*a.b.test", false},
        {"xx.b.test", "**.b.test", false},
        {"a.b.test", "*.*.test", false},
        {"xn--a.test", "xn--*.test", false},
        {"test", "*", false},
        {"a.test", "a.*", false},
        {"", "", true},
    };

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        assert_int_equal(kb_tls_dns_name_match(kb_str_from_cstr(cases[i].name),
                                               kb_str_from_cstr(cases[i].pattern)),
                         cases[i].match);
    }
}

static void matcher_make(struct kb_tls_san_matcher *matcher, int type, int pattern,
                         const char *text, bool ignore_case, struct kb_arena *arena)
{
    Envoy__Type__Matcher__V3__StringMatcher message =
        ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__INIT;
    struct kb_diag diag;

    kb_diag_init(&diag);
    message.match_pattern_case = pattern;
    message.exact = (char *)(uintptr_t)text;
    message.ignore_case = ignore_case;
    assert_int_equal(kb_tls_san_matcher_init(matcher, type, &message, arena, &diag), 0);
    kb_diag_dispose(&diag);
}

static void matchers_of_each_kind(void **state)
{
    static const struct {
        int pattern;
        const char *text;
        bool ignore_case;
        struct kb_str name;
        bool match;
    } cases[] = {
        {PATTERN(EXACT), "spiffe://td/a", false, {"spiffe://td/a", 13}, true},
        {PATTERN(EXACT), "spiffe://td/a", false, {"spiffe://td/ab", 14}, false},
        {PATTERN(EXACT), "spiffe://td/a", false, {"spiffe://TD/a", 13}, false},
        {PATTERN(EXACT), "spiffe://td/a", true, {"spiffe://TD/a", 13}, true},
        {PATTERN(PREFIX), "spiffe://td/", false, {"spiffe://td/a", 13}, true},
        {PATTERN(PREFIX), "spiffe://td/", false, {"spiffe://tdx/a", 14}, false},
        {PATTERN(SUFFIX), "/a", false, {"spiffe://td/a", 13}, true},
        {PATTERN(SUFFIX), "/a", false, {"spiffe://td/b", 13}, false},
        {PATTERN(CONTAINS), "TD", true, {"spiffe://td/a", 13}, true},
        {PATTERN(CONTAINS), "TD", false, {"spiffe://td/a", 13}, false},
        {PATTERN(PREFIX), "spiffe://td/", false, {"spiffe://td/\0x", 14}, false},
    };
    struct kb_arena arena;

    (void)state;
    kb_arena_init(&arena, NULL);
    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        struct kb_tls_san_matcher matcher;

        matcher_make(&matcher, GEN_URI, cases[i].pattern, cases[i].text, cases[i].ignore_case,
                     &arena);
        assert_int_equal(kb_tls_san_matcher_match(&matcher, GEN_URI, cases[i].name),
                         cases[i].match);
        assert_false(kb_tls_san_matcher_match(&matcher, GEN_DNS, cases[i].name));
        kb_tls_san_matcher_dispose(&matcher);
        matcher_make(&matcher, -1, cases[i].pattern, cases[i].text, cases[i].ignore_case, &arena);
        assert_int_equal(kb_tls_san_matcher_match(&matcher, GEN_EMAIL, cases[i].name),
                         cases[i].match);
        kb_tls_san_matcher_dispose(&matcher);
    }
    kb_arena_dispose(&arena);
}

static void what_is_not_understood_is_refused(void **state)
{
    Envoy__Type__Matcher__V3__StringMatcher message =
        ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__INIT;
    Envoy__Type__Matcher__V3__RegexMatcher regex = ENVOY__TYPE__MATCHER__V3__REGEX_MATCHER__INIT;
    struct kb_tls_san_matcher matcher;
    struct kb_arena arena;
    struct kb_diag diag;

    (void)state;
    kb_arena_init(&arena, NULL);
    kb_diag_init(&diag);
    assert_int_equal(kb_tls_san_matcher_init(&matcher, GEN_URI, &message, &arena, &diag),
                     KB_ECONFIG);
    message.match_pattern_case = PATTERN(SAFE_REGEX);
    message.safe_regex = &regex;
    regex.regex = (char *)(uintptr_t)"(";
    assert_int_equal(kb_tls_san_matcher_init(&matcher, GEN_URI, &message, &arena, &diag),
                     KB_ECONFIG);
    assert_int_equal(diag.error_count, 2);
    kb_diag_dispose(&diag);
    kb_arena_dispose(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dns_wildcards),
        cmocka_unit_test(matchers_of_each_kind),
        cmocka_unit_test(what_is_not_understood_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
