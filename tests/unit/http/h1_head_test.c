/* SPDX-License-Identifier: Apache-2.0 */
/* Usual heads: what is read in one pass, what is left to llhttp, and that both understand the
 * same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "proxy/http/h1_head.h"
#include "tests/unit/http/h1_fixture.h"

static size_t usual_length(bool response, const char *text)
{
    struct fixture f;
    char bytes[512];
    size_t len = strlen(text);

    assert_true(len < sizeof(bytes));
    memcpy(bytes, text, len + 1);
    fixture_init(&f, response);
    kb_h1_parser_begin(&f.parser, &f.map, &f.arena);
    len = kb_h1_head_usual(&f.parser, kb_str_make(bytes, len));
    fixture_dispose(&f);
    return len;
}

static const char *const usual_requests[] = {
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /p?a=b?c HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /long/path/of/more/than/eight HTTP/1.1\r\nHOST: A.test:80\r\nContent-Length: 12\r\n\r\n",
    "DELETE /x HTTP/1.1\r\nx_y: 1\r\nEmpty:\r\nSpaces:   a b   \r\nConnection: Close\r\n\r\n",
    "PUT /x HTTP/1.1\r\nconnection: keep-alive\r\nX: caf\xc3\xa9 \"quoted\"; [A-Z]\r\n\r\n",
};

static const char *const usual_responses[] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 503 Service Unavailable\r\nDate: Sun, 22 Nov 2026 04:00:00 GMT\r\n"
    "content-length: 5\r\nHost: odd but harmless\r\n\r\n",
    "HTTP/1.1 299 \r\nCONTENT-LENGTH: 000000000000000007\r\n\r\n",
};

static const char *const rare_requests[] = {
    "GET /p?a=b?c HTTP/1.1\r\n\r\n",
    "CONNECT a:1 HTTP/1.1\r\n\r\n",
    "get / HTTP/1.1\r\n\r\n",
    "GET  / HTTP/1.1\r\n\r\n",
    "GET /a#b HTTP/1.1\r\n\r\n",
    "GET /\x7f HTTP/1.1\r\n\r\n",
    "GET /\x80 HTTP/1.1\r\n\r\n",
    "GET http://a/ HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.1\n\n",
    "GET / HTTP/1.1\r\nA: b\n\r\n",
    "GET / HTTP/1.1\r\nA : b\r\n\r\n",
    "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\nA: b\tc\r\n\r\n",
    "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
    "GET / HTTP/1.1\r\n: b\r\n\r\n",
    "GET / HTTP/1.1\r\nA\r\n\r\n",
    "GET / HTTP/1.1\r\nA(B): c\r\n\r\n",
    "GET / HTTP/1.1\r\nA\x80long-name-here: c\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
    "GET / HTTP/1.1\r\nContent-Length: 1,1\r\n\r\n",
    "GET / HTTP/1.1\r\nContent-Length: \r\n\r\n",
    "GET / HTTP/1.1\r\nContent-Length: 1234567890123456789\r\n\r\n",
    "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET / HTTP/1.1\r\nConnection: close, te\r\n\r\n",
    "GET / HTTP/1.1\r\nConnection: close\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nProxy-Connection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
    "GET / HTTP/1.1\r\nA:1\r\nB:1\r\nC:1\r\nD:1\r\nE:1\r\nF:1\r\nG:1\r\nH:1\r\nI:1\r\n\r\n",
};

static const char *const rare_responses[] = {
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 O\tK\r\nContent-Length: 0\r\n\r\n",
};

static void test_usual_heads_are_taken_and_rare_ones_left(void **state)
{
    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(usual_requests); i++) {
        assert_int_equal(usual_length(false, usual_requests[i]), strlen(usual_requests[i]));
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(usual_responses); i++) {
        assert_int_equal(usual_length(true, usual_responses[i]), strlen(usual_responses[i]));
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(rare_requests); i++) {
        assert_int_equal(usual_length(false, rare_requests[i]), 0);
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(rare_responses); i++) {
        assert_int_equal(usual_length(true, rare_responses[i]), 0);
    }
}

/* All that a head means, as text. In two pieces llhttp reads it. */
static void describe(bool response, const char *text, size_t first, char *out, size_t size)
{
    struct fixture f;
    size_t at;

    fixture_init(&f, response);
    kb_h1_parser_begin(&f.parser, &f.map, &f.arena);
    kb_buf_append(&f.in, text, first);
    if (first < strlen(text)) {
        assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_NEED_MORE);
        kb_buf_append(&f.in, text + first, strlen(text) - first);
    }
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_int_equal(f.parser.counted, first == strlen(text));
    at = (size_t)snprintf(
        out, size, "%.*s %.*s %.*s %u minor %u keep %d length %d %d complete %d bytes %u %u %u\n",
        KB_STR_ARG(f.map.method), KB_STR_ARG(f.parser.url), KB_STR_ARG(f.map.authority),
        f.map.status, f.parser.http_minor, f.parser.keep_alive, f.parser.has_content_length,
        (int)f.parser.content_length, f.parser.message_complete, f.parser.head_bytes,
        f.parser.header_bytes, f.parser.head_header_count);
    KB_HEADER_FOREACH(header, &f.map)
    {
        at += (size_t)snprintf(out + at, size - at, "%.*s=%.*s|%u\n", KB_STR_ARG(header->name),
                               KB_STR_ARG(header->value), header->id);
    }
    fixture_dispose(&f);
}

static void assert_llhttp_agrees(bool response, const char *text)
{
    char whole[1024];
    char pieces[1024];

    describe(response, text, strlen(text), whole, sizeof(whole));
    describe(response, text, 12, pieces, sizeof(pieces));
    assert_string_equal(whole, pieces);
}

static void test_llhttp_understands_usual_heads_alike(void **state)
{
    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(usual_requests); i++) {
        assert_llhttp_agrees(false, usual_requests[i]);
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(usual_responses); i++) {
        assert_llhttp_agrees(true, usual_responses[i]);
    }
}

static void test_a_head_that_is_not_complete_is_left(void **state)
{
    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(usual_requests); i++) {
        char part[512];

        for (size_t len = 1; len < strlen(usual_requests[i]); len++) {
            memcpy(part, usual_requests[i], len);
            part[len] = '\0';
            assert_int_equal(usual_length(false, part), 0);
        }
    }
}

/* What llhttp reads after all has to be as it was sent, apart from names. */
static void test_values_of_a_head_that_is_left_keep_their_case(void **state)
{
    static const char text[] = "GET /A HTTP/1.1\r\nX: One\r\n Two-THREE: Four\r\nY: Five\r\n\r\n";
    struct fixture f;

    (void)state;
    fixture_init(&f, false);
    kb_h1_parser_begin(&f.parser, &f.map, &f.arena);
    kb_buf_append(&f.in, text, sizeof(text) - 1);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_false(f.parser.counted);
    assert_true(kb_str_eq(kb_header_map_value(&f.map, KB_STR("x")), KB_STR("One Two-THREE: Four")));
    assert_true(kb_str_eq(kb_header_map_value(&f.map, KB_STR("y")), KB_STR("Five")));
    fixture_dispose(&f);
}

static void test_counted_body_ends_at_its_length(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, false);
    kb_h1_parser_begin(&f.parser, &f.map, &f.arena);
    kb_buf_append(&f.in, "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nab", 40);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_BODY);
    assert_int_equal(f.parser.body.len, 2);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_NEED_MORE);
    kb_buf_append(&f.in, "cdeGET", 6);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_BODY);
    assert_int_equal(f.parser.body.len, 5);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_COMPLETE);
    assert_int_equal(f.in.len, 3);
    fixture_dispose(&f);
}

static void test_a_counted_body_that_is_cut_is_an_error(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, true);
    kb_h1_parser_begin(&f.parser, &f.map, &f.arena);
    kb_buf_append(&f.in, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", 40);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_BODY);
    assert_int_equal(kb_h1_parse_eof(&f.parser), KB_H1_ERROR);
    fixture_dispose(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usual_heads_are_taken_and_rare_ones_left),
        cmocka_unit_test(test_llhttp_understands_usual_heads_alike),
        cmocka_unit_test(test_a_head_that_is_not_complete_is_left),
        cmocka_unit_test(test_values_of_a_head_that_is_left_keep_their_case),
        cmocka_unit_test(test_counted_body_ends_at_its_length),
        cmocka_unit_test(test_a_counted_body_that_is_cut_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
