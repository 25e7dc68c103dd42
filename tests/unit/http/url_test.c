/* SPDX-License-Identifier: Apache-2.0 */
/* Absolute URLs: what is one, and its parts. The list agrees with what Envoy takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/http/url.h"

static void test_parts(void **state)
{
    static const struct {
        const char *text, *scheme, *authority, *path;
    } good[] = {
        {"http://a/x?y#z", "http", "a", "/x?y#z"},
        {"HTTPS://a.B-c:65535", "HTTPS", "a.B-c:65535", "/"},
        {"http://u:p@a:80/", "http", "a:80", "/"},
        {"http://@a?q", "http", "a", "?q"},
        {"http://[::1]:0/x", "http", "[::1]:0", "/x"},
        {"http://a/\"<>\\^`{|}", "http", "a", "/\"<>\\^`{|}"},
    };

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(good); i++) {
        struct kb_url url;

        assert_int_equal(kb_url_parse(kb_str_from_cstr(good[i].text), &url), KB_URL_OK);
        assert_true(kb_str_eq(url.scheme, kb_str_from_cstr(good[i].scheme)));
        assert_true(kb_str_eq(url.authority, kb_str_from_cstr(good[i].authority)));
        assert_true(kb_str_eq(url.path, kb_str_from_cstr(good[i].path)));
    }
}

static void test_no_urls(void **state)
{
    static const char *const bad[] = {
        "",
        "/x",
        "a",
        "://a/x",
        "http:a",
        "http:/a/x",
        "http://",
        "http:///x",
        "http://a:/x",
        "http://:1/x",
        "http://a:65536",
        "http://a:1:2/",
        "http://a:x",
        "http://a_b/",
        "http://a b/",
        "http://a%20b/",
        "http://a\\b/",
        "http://a\xff/",
        "http://[]/",
        "http://[::1",
        "http://[::1]x",
        "http://[g]/",
        "http://[::1%25lo]/",
        "http://a]/",
        "http://a@/",
        "http://a@b@c/",
        "http://\"@a/",
        "http://a/x y",
        "http://a/\tx",
        "http://a/\x7f",
        "http://a/\xe9",
        "http://a?x y",
    };
    struct kb_url url;

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++) {
        assert_int_equal(kb_url_parse(kb_str_from_cstr(bad[i]), &url), KB_URL_INVALID);
    }
    assert_int_equal(kb_url_parse(kb_str_make("http://a\0b/", 11), &url), KB_URL_INVALID);
    assert_int_equal(kb_url_parse(KB_STR("ftp://a/"), &url), KB_URL_SCHEME);
}

static void test_targets_of_connect(void **state)
{
    static const char *const good[] = {"a.test:443", "a:0",   "a:65535", "a-b.c:00443",
                                       "[::1]:443",  "..:80", "-:1",     "A.TEST:443"};
    static const char *const bad[] = {
        "",        "a",      "a:",      ":443",  "a:x",           "a:65536", "a:1:2",      "[::1]",
        "[]:1",    "[gg]:1", "[::1]x:", "u@a:1", "a_b:1",         "a%41:1",  "a:443?x",    "a:443/",
        "a:443#x", "*:443",  "a,b:443", "a:44a", "[::1%25a]:443", "[::1",    "a.test:44 ", "/a",
    };

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(good); i++) {
        assert_true(kb_url_connect_target_valid(kb_str_from_cstr(good[i])));
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++) {
        assert_false(kb_url_connect_target_valid(kb_str_from_cstr(bad[i])));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_no_urls),
        cmocka_unit_test(test_targets_of_connect),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
