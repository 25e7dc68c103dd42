/* SPDX-License-Identifier: Apache-2.0 */
/* The ClientHello parser: whole, cut anywhere, in many records, and malformed in each field. */
#include "proxy/api/tls_client_hello.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* A message under construction. */
struct bytes {
    unsigned char at[20000];
    size_t len;
};

static char scratch[KB_CLIENT_HELLO_MAX];

static void put(struct bytes *out, const void *p, size_t n)
{
    memcpy(out->at + out->len, p, n);
    out->len += n;
}

static void put_number(struct bytes *out, unsigned bytes, size_t value)
{
    for (unsigned i = bytes; i > 0; i--) {
        out->at[out->len++] = (unsigned char)(value >> (8 * (i - 1)));
    }
}

static void put_vector(struct bytes *out, unsigned bytes, const void *p, size_t n)
{
    put_number(out, bytes, n);
    put(out, p, n);
}

static void put_extension(struct bytes *out, unsigned type, const struct bytes *body)
{
    put_number(out, 2, type);
    put_vector(out, 2, body->at, body->len);
}

static void server_name_put(struct bytes *out, const char *name, size_t len)
{
    struct bytes body = {.len = 0};

    put_number(&body, 2, len + 3);
    put_number(&body, 1, 0);
    put_vector(&body, 2, name, len);
    put_extension(out, 0, &body);
}

static void alpn_put(struct bytes *out)
{
    struct bytes body = {.len = 0};

    put_number(&body, 2, 12);
    put_vector(&body, 1, "h2", 2);
    put_vector(&body, 1, "http/1.1", 8);
    put_extension(out, 16, &body);
}

static void versions_put(struct bytes *out)
{
    struct bytes body = {.len = 0};

    put_vector(&body, 1, "\xfa\xfa\x03\x04\x03\x03", 6);
    put_extension(out, 43, &body);
}

/* The handshake message with these extensions (NULL: without any). */
static void message_make(struct bytes *out, const struct bytes *extensions)
{
    static const unsigned char random[32] = {1, 2, 3};
    struct bytes body = {.len = 0};

    put_number(&body, 2, 0x0303);
    put(&body, random, sizeof(random));
    put_vector(&body, 1, random, 32);
    put_vector(&body, 2, "\x13\x01\xc0\x2b", 4);
    put_vector(&body, 1, "\0", 1);
    if (extensions != NULL) {
        put_vector(&body, 2, extensions->at, extensions->len);
    }
    put_number(out, 1, 1);
    put_vector(out, 3, body.at, body.len);
}

/* Cuts a message into records of `piece` bytes. */
static void records_make(struct bytes *out, const struct bytes *message, size_t piece)
{
    for (size_t i = 0; i < message->len; i += piece) {
        put_number(out, 1, 22);
        put_number(out, 2, 0x0301);
        put_vector(out, 2, message->at + i, KB_MIN(piece, message->len - i));
    }
}

static void usual_make(struct bytes *out, size_t piece)
{
    static struct bytes extensions, message;

    extensions.len = 0;
    message.len = 0;
    server_name_put(&extensions, "a.Example", 9);
    alpn_put(&extensions);
    versions_put(&extensions);
    message_make(&message, &extensions);
    out->len = 0;
    records_make(out, &message, piece);
}

static enum kb_client_hello_result parse(const struct bytes *in, size_t len,
                                         struct kb_client_hello *hello)
{
    return kb_client_hello_parse(kb_str_make((const char *)in->at, len), KB_CLIENT_HELLO_MAX,
                                 scratch, hello);
}

static void usual_check(const struct kb_client_hello *hello)
{
    struct kb_str alpn = hello->alpn;
    struct kb_str name;

    assert_int_equal(hello->legacy_version, 0x0303);
    assert_int_equal(hello->max_version, 0x0304);
    assert_true(kb_str_eq(hello->server_name, KB_STR("a.Example")));
    assert_int_equal(hello->cipher_suites.len, 4);
    assert_true(kb_client_hello_next_alpn(&alpn, &name) && kb_str_eq(name, KB_STR("h2")));
    assert_true(kb_client_hello_next_alpn(&alpn, &name) && kb_str_eq(name, KB_STR("http/1.1")));
    assert_false(kb_client_hello_next_alpn(&alpn, &name));
}

static void whole_and_cut_anywhere(void **state)
{
    static struct bytes in;
    struct kb_client_hello hello;

    (void)state;
    usual_make(&in, 16384);
    for (size_t n = 0; n < in.len; n++) {
        assert_int_equal(parse(&in, n, &hello), KB_CLIENT_HELLO_MORE);
    }
    assert_int_equal(parse(&in, in.len, &hello), KB_CLIENT_HELLO_DONE);
    usual_check(&hello);
    assert_int_equal(hello.wire_bytes, in.len);
}

static void in_many_records(void **state)
{
    static const size_t pieces[] = {1, 2, 3, 5, 50};
    static struct bytes in;
    struct kb_client_hello hello;

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(pieces); i++) {
        usual_make(&in, pieces[i]);
        for (size_t n = 0; n < in.len; n++) {
            assert_int_equal(parse(&in, n, &hello), KB_CLIENT_HELLO_MORE);
        }
        assert_int_equal(parse(&in, in.len, &hello), KB_CLIENT_HELLO_DONE);
        usual_check(&hello);
        assert_int_equal(hello.wire_bytes, in.len);
    }
}

static void what_follows_is_not_looked_at(void **state)
{
    static struct bytes in;
    struct kb_client_hello hello;
    size_t len;

    (void)state;
    usual_make(&in, 16384);
    len = in.len;
    put(&in, "anything at all", 15);
    assert_int_equal(parse(&in, in.len, &hello), KB_CLIENT_HELLO_DONE);
    assert_int_equal(hello.wire_bytes, len);
}

static void without_extensions(void **state)
{
    static struct bytes message, in;
    struct kb_client_hello hello;

    (void)state;
    message_make(&message, NULL);
    records_make(&in, &message, 16384);
    assert_int_equal(parse(&in, in.len, &hello), KB_CLIENT_HELLO_DONE);
    assert_int_equal(hello.server_name.len, 0);
    assert_int_equal(hello.alpn.len, 0);
    assert_int_equal(hello.max_version, 0x0303);
}

static void other_protocols_are_known_at_once(void **state)
{
    struct kb_client_hello hello;

    (void)state;
    assert_int_equal(kb_client_hello_parse(KB_STR("G"), KB_CLIENT_HELLO_MAX, scratch, &hello),
                     KB_CLIENT_HELLO_NOT_TLS);
    assert_int_equal(
        kb_client_hello_parse(KB_STR("\x16\x02"), KB_CLIENT_HELLO_MAX, scratch, &hello),
        KB_CLIENT_HELLO_NOT_TLS);
    /* A ServerHello is no client's. */
    assert_int_equal(kb_client_hello_parse(KB_STR("\x16\x03\x01\0\x04\x02"), KB_CLIENT_HELLO_MAX,
                                           scratch, &hello),
                     KB_CLIENT_HELLO_NOT_TLS);
}

static void limits_hold(void **state)
{
    static struct bytes in;
    struct kb_client_hello hello;

    (void)state;
    usual_make(&in, 16384);
    assert_int_equal(
        kb_client_hello_parse(kb_str_make((const char *)in.at, in.len), 64, scratch, &hello),
        KB_CLIENT_HELLO_TOO_LARGE);
    assert_int_equal(kb_client_hello_parse(KB_STR("\x16\x03\x01\x40\0\x01\xff\xff\xff"),
                                           KB_CLIENT_HELLO_MAX, scratch, &hello),
                     KB_CLIENT_HELLO_TOO_LARGE);
    in.len = 0;
    for (unsigned i = 0; i < 33; i++) {
        put(&in, "\x16\x03\x01\0\0", 5);
    }
    assert_int_equal(parse(&in, in.len, &hello), KB_CLIENT_HELLO_NOT_TLS);
}

static void malformed_names_are_refused(void **state)
{
    static struct bytes extensions, message, in;
    struct kb_client_hello hello;
    static const struct {
        const char *name;
        size_t len;
    } names[] = {{"", 0}, {"a\0b", 3}};

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
        extensions.len = message.len = in.len = 0;
        server_name_put(&extensions, names[i].name, names[i].len);
        message_make(&message, &extensions);
        records_make(&in, &message, 16384);
        assert_int_equal(parse(&in, in.len, &hello), KB_CLIENT_HELLO_NOT_TLS);
    }
}

/* Every byte of the message changed to every value that a length likes: never outside its bytes
 * (the sanitizer looks on), and a verdict each time. */
static void any_byte_changed(void **state)
{
    static struct bytes good;
    struct kb_client_hello hello;
    static const unsigned char values[] = {0, 1, 0x7f, 0x80, 0xff};

    (void)state;
    usual_make(&good, 16384);
    for (size_t i = 0; i < good.len; i++) {
        for (size_t v = 0; v < KB_ARRAY_LEN(values); v++) {
            static struct bytes in;
            char *exact = test_malloc(good.len);

            in = good;
            in.at[i] = values[v];
            memcpy(exact, in.at, in.len);
            (void)kb_client_hello_parse(kb_str_make(exact, in.len), KB_CLIENT_HELLO_MAX, scratch,
                                        &hello);
            test_free(exact);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_and_cut_anywhere),
        cmocka_unit_test(in_many_records),
        cmocka_unit_test(what_follows_is_not_looked_at),
        cmocka_unit_test(without_extensions),
        cmocka_unit_test(other_protocols_are_known_at_once),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(malformed_names_are_refused),
        cmocka_unit_test(any_byte_changed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
