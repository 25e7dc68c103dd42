/* SPDX-License-Identifier: Apache-2.0 */
/* Which first lines http_inspector takes for HTTP: what Envoy 1.40 was seen to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/ext/listener/first_line.h"

static const struct {
    const char *bytes;
    enum kb_first_line verdict;
} rows[] = {
    {"GET / HTTP/1.1\r\n", KB_FIRST_LINE_HTTP11},
    {"GET / HTTP/1.1\n", KB_FIRST_LINE_HTTP11},
    {"foo / HTTP/1.1\r\n", KB_FIRST_LINE_HTTP11},
    {"GET  / HTTP/1.1 \r\n", KB_FIRST_LINE_HTTP11},
    {"GET\t/ HTTP/1.1\r\n", KB_FIRST_LINE_HTTP11},
    {"GET /\x01 HTTP/1.1\r\n", KB_FIRST_LINE_HTTP11},
    {"M-SEARCH * HTTP/1.1\r\n", KB_FIRST_LINE_HTTP11},
    {"CONNECT a:1 HTTP/1.1\r\n", KB_FIRST_LINE_HTTP11},
    {"GET http://x/ HTTP/1.1\r\n", KB_FIRST_LINE_HTTP11},
    {"GET / HTTP/1.0\r\n", KB_FIRST_LINE_HTTP10},
    {"GET / HTTP/2.0\r\n", KB_FIRST_LINE_HTTP10},
    {"GET /\r\n", KB_FIRST_LINE_HTTP10},
    {"PRI * HTTP/2.0\r\n\r\nXX", KB_FIRST_LINE_HTTP10},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", KB_FIRST_LINE_HTTP2},
    {"PRI * HTTP/2.0\r\n\r\nS", KB_FIRST_LINE_MORE},
    {"PRI", KB_FIRST_LINE_MORE},
    {"get", KB_FIRST_LINE_MORE},
    {"GET \x01", KB_FIRST_LINE_MORE},
    {"GET / HTTP/1.1\r", KB_FIRST_LINE_MORE},
    {"GE\x01", KB_FIRST_LINE_OTHER},
    {"GE(", KB_FIRST_LINE_OTHER},
    {"\x16\x03\x01", KB_FIRST_LINE_OTHER},
    {"\r\nGET / HTTP/1.1\r\n", KB_FIRST_LINE_OTHER},
    {" GET / HTTP/1.1\r\n", KB_FIRST_LINE_OTHER},
    {"GET / FOO\r\n", KB_FIRST_LINE_OTHER},
    {"GET / http/1.1\r\n", KB_FIRST_LINE_OTHER},
    {"GET / HTTP/11\r\n", KB_FIRST_LINE_OTHER},
    {"GET / HTTP/1.1x\r\n", KB_FIRST_LINE_OTHER},
    {"GET /a b HTTP/1.1\r\n", KB_FIRST_LINE_OTHER},
    {"GET a HTTP/1.1\r\n", KB_FIRST_LINE_OTHER},
    {"GET /\xc3\xa9 HTTP/1.1\r\n", KB_FIRST_LINE_OTHER},
    {"GET \r\n", KB_FIRST_LINE_OTHER},
    {"*1\r\n", KB_FIRST_LINE_OTHER},
    {"SSH-2.0-x\r\n", KB_FIRST_LINE_OTHER},
};

static size_t line_len(struct kb_str bytes)
{
    ptrdiff_t end = kb_str_find_char(bytes, '\n');

    return end < 0 ? 0 : (size_t)end + 1;
}

static void verdicts_are_envoys(void **state)
{
    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
        struct kb_str bytes = kb_str_from_cstr(rows[i].bytes);

        if (kb_first_line_parse(bytes, line_len(bytes)) != rows[i].verdict) {
            fail_msg("row %zu: %s", i, rows[i].bytes);
        }
    }
}

/* A verdict before the end is that of the whole. */
static void pieces_give_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
        struct kb_str bytes = kb_str_from_cstr(rows[i].bytes);

        for (size_t len = 0; len < bytes.len; len++) {
            struct kb_str part = kb_str_first(bytes, len);
            enum kb_first_line verdict = kb_first_line_parse(part, line_len(part));

            assert_true(verdict == KB_FIRST_LINE_MORE || verdict == rows[i].verdict);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdicts_are_envoys),
        cmocka_unit_test(pieces_give_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
