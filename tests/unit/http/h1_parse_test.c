/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP/1 parser: what it gives for good messages, and which error for bad ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "proxy/http/header_spelling.h"
#include "tests/unit/http/h1_fixture.h"

static void feed(struct fixture *f, const char *text)
{
    kb_buf_append(&f->in, text, strlen(text));
}

static void begin(struct fixture *f, const char *text)
{
    feed(f, text);
    assert_true(kb_h1_parser_has_input(&f->parser, &f->in));
    kb_h1_parser_begin(&f->parser, &f->map, &f->arena);
}

static void assert_str(struct kb_str got, const char *want)
{
    assert_int_equal(got.len, strlen(want));
    assert_memory_equal(got.p, want, got.len);
}

static void test_get_gives_head_then_complete(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, false);
    begin(&f, "GET /p?q=1 HTTP/1.1\r\nHost: a.test\r\nX-One: 1\r\n\r\n");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_str(f.map.method, "GET");
    assert_str(f.parser.url, "/p?q=1");
    assert_str(f.map.authority, "a.test");
    assert_str(kb_header_map_get(&f.map, KB_STR("x-one"))->value, "1");
    assert_true(f.parser.keep_alive);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_COMPLETE);
    assert_int_equal(f.in.len, 0);
    fixture_dispose(&f);
}

static void test_second_request_stays_in_the_queue(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, false);
    begin(&f, "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\n");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_COMPLETE);
    assert_int_equal(f.in.len, strlen("GET /2 HTTP/1.1\r\n"));
    fixture_dispose(&f);
}

static void test_chunked_body_and_trailers(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, false);
    begin(&f, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_BODY);
    assert_str(kb_buf_first(&f.parser.body), "abc");
    kb_buf_dispose(&f.parser.body);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_NEED_MORE);
    feed(&f, "0\r\nX-Tra");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_NEED_MORE);
    feed(&f, "iler: v");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_NEED_MORE);
    feed(&f, "w\r\n\r\n");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_COMPLETE);
    assert_str(kb_header_map_get(f.parser.trailers, KB_STR("x-trailer"))->value, "vw");
    fixture_dispose(&f);
}

static void test_custom_methods_where_they_are_allowed(void **state)
{
    static const char *const methods[] = {"BREW", "connect", "GETX", "!#$%&'*+-.^_`|~", "1"};
    static const char *const no_methods[] = {"A:B", "(A)", "A\"B", "\x01A"};
    char head[128];

    (void)state;
    for (int i = 0; i < (int)(KB_ARRAY_LEN(methods) + KB_ARRAY_LEN(no_methods)); i++) {
        bool good = i < (int)KB_ARRAY_LEN(methods);
        const char *method = good ? methods[i] : no_methods[i - (int)KB_ARRAY_LEN(methods)];
        struct fixture f;

        fixture_init(&f, false);
        f.settings.allow_custom_methods = true;
        snprintf(head, sizeof(head), "%s / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
                 method);
        begin(&f, head);
        assert_int_equal(kb_h1_parse(&f.parser, &f.in), good ? KB_H1_HEAD : KB_H1_ERROR);
        if (good) {
            assert_str(f.map.method, method);
            assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_BODY);
            assert_str(kb_buf_first(&f.parser.body), "abc");
            kb_buf_dispose(&f.parser.body);
            assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_COMPLETE);
        }
        fixture_dispose(&f);
    }
}

static void test_spelling_of_names_is_kept_when_asked(void **state)
{
    struct fixture f;
    char name[16] = "x-one";

    (void)state;
    fixture_init(&f, true);
    f.settings.preserve_case = true;
    f.settings.forward_reason_phrase = true;
    f.settings.proper_case_otherwise = true;
    begin(&f, "HTTP/1.1 200 So It Is\r\nX-oNe: 1\r\nX-ONE: 2\r\ncontent-length: 0\r\n\r\n");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_str(kb_header_map_get(&f.map, KB_STR("x-one"))->value, "1");
    assert_str(f.map.spellings->reason, "So It Is");
    kb_header_spelling_apply(f.map.spellings, name, 5);
    assert_string_equal(name, "X-oNe");
    memcpy(name, "x-two", 6);
    kb_header_spelling_apply(f.map.spellings, name, 5);
    assert_string_equal(name, "X-Two");
    fixture_dispose(&f);
}

struct bad_case {
    const char *text;
    enum kb_h1_error error;
};

static void test_bad_requests_give_envoys_error(void **state)
{
    static const struct bad_case cases[] = {
        {"GET / HTTP/1.0\r\nhost: a\r\n\r\n",
         KB_H1_OK}, /* the codec decides on versions that parse */
        {"GET / http/1.1\r\nhost: a\r\n\r\n", KB_H1_CODEC_ERROR},
        {"GET /\r\n\r\n", KB_H1_OK},
        {"BREW / HTTP/1.1\r\nhost: a\r\n\r\n", KB_H1_CODEC_ERROR},
        {"get / HTTP/1.1\r\n", KB_H1_CODEC_ERROR},
        {"\x16\x03\x01", KB_H1_CODEC_ERROR},
        {"GET / HTTP/1.1\r\nhost: a\r\nfoo : b\r\n\r\n", KB_H1_CODEC_ERROR},
        {"GET / HTTP/1.1\r\nhost: a\r\nfoo\r\n\r\n", KB_H1_CODEC_ERROR},
        {"GET / HTTP/1.1\r\nhost: a\r\nx: a\x01"
         "b\r\n\r\n",
         KB_H1_INVALID_CHARACTERS},
        {"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
         KB_H1_CONTENT_LENGTH_AND_CHUNKED},
        {"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n",
         KB_H1_CODEC_ERROR},
        {"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\n", KB_H1_CODEC_ERROR},
        {"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
         KB_H1_INVALID_TRANSFER_ENCODING},
        {"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n",
         KB_H1_INVALID_TRANSFER_ENCODING},
        {"GET / HTTP/1.1\r\na:1\r\nb:1\r\nc:1\r\nd:1\r\ne:1\r\nf:1\r\n\r\n",
         KB_H1_TOO_MANY_HEADERS},
        {"GET / HTTP/1.1\nhost: a\n\n", KB_H1_OK}, /* bare LF */
        {"GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n", KB_H1_OK},
    };

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        struct fixture f;
        enum kb_h1_event event;

        fixture_init(&f, false);
        begin(&f, cases[i].text);
        event = kb_h1_parse(&f.parser, &f.in);
        if (event != (cases[i].error == KB_H1_OK ? KB_H1_HEAD : KB_H1_ERROR) ||
            f.parser.error != cases[i].error) {
            fail_msg("case %zu: event %d, error %d: %s", i, event, f.parser.error, cases[i].text);
        }
        fixture_dispose(&f);
    }
}

static void test_head_over_the_limit_is_refused_before_it_ends(void **state)
{
    struct fixture f;
    char long_header[1200];

    (void)state;
    fixture_init(&f, false);
    memset(long_header, 'a', sizeof(long_header));
    begin(&f, "GET / HTTP/1.1\r\nx: ");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_NEED_MORE);
    kb_buf_append(&f.in, long_header, sizeof(long_header));
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_ERROR);
    assert_int_equal(f.parser.error, KB_H1_HEADERS_TOO_LARGE);
    fixture_dispose(&f);
}

static void test_fold_and_bare_cr_are_joined_as_envoy_does(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, false);
    begin(&f, "GET / HTTP/1.1\r\nhost: a\r\nfoo: b\r\n  c\r\nx: a\rb\r\n\r\n");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_str(kb_header_map_get(&f.map, KB_STR("foo"))->value, "b  c");
    assert_str(kb_header_map_get(&f.map, KB_STR("x"))->value, "ab");
    fixture_dispose(&f);
}

static void test_response_without_length_ends_with_the_connection(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, true);
    begin(&f, "HTTP/1.1 200 OK\r\n\r\nabc");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_true(f.parser.until_close);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_BODY);
    assert_int_equal(kb_h1_parse_eof(&f.parser), KB_H1_COMPLETE);
    fixture_dispose(&f);
}

static void test_cut_response_is_an_error(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, true);
    begin(&f, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_BODY);
    assert_int_equal(kb_h1_parse_eof(&f.parser), KB_H1_ERROR);
    fixture_dispose(&f);
}

static void test_answer_to_head_has_no_body(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, true);
    f.parser.head_response_expected = true;
    begin(&f, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_HEAD);
    assert_int_equal(kb_h1_parse(&f.parser, &f.in), KB_H1_COMPLETE);
    fixture_dispose(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_gives_head_then_complete),
        cmocka_unit_test(test_second_request_stays_in_the_queue),
        cmocka_unit_test(test_chunked_body_and_trailers),
        cmocka_unit_test(test_bad_requests_give_envoys_error),
        cmocka_unit_test(test_head_over_the_limit_is_refused_before_it_ends),
        cmocka_unit_test(test_fold_and_bare_cr_are_joined_as_envoy_does),
        cmocka_unit_test(test_response_without_length_ends_with_the_connection),
        cmocka_unit_test(test_cut_response_is_an_error),
        cmocka_unit_test(test_answer_to_head_has_no_body),
        cmocka_unit_test(test_custom_methods_where_they_are_allowed),
        cmocka_unit_test(test_spelling_of_names_is_kept_when_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
