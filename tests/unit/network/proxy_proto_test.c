/* SPDX-License-Identifier: Apache-2.0 */
/* PROXY protocol headers, as Envoy takes and refuses them, in one piece and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/network/proxy_proto.h"

#define BOTH (KB_PROXY_PROTO_V1 | KB_PROXY_PROTO_V2)
#define V2   "\r\n\r\n\0\r\nQUIT\n"
#define IPS  "\1\2\3\4\5\6\7\10\0\x6f\0\xde"
#define S(t) {t, sizeof(t) - 1}

struct row {
    struct kb_str bytes;
    enum kb_proxy_proto_result result;
    const char *source; /* NULL: no addresses */
    const char *destination;
};

/* What Envoy 1.40 was seen to do. */
static const struct row rows[] = {
    {S("PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n"), KB_PROXY_PROTO_DONE, "1.2.3.4:111",
     "5.6.7.8:222"},
    {S("PROXY TCP6 1::2 3::4 111 222\r\n"), KB_PROXY_PROTO_DONE, "[1::2]:111", "[3::4]:222"},
    {S("PROXY TCP4 1.2.3.4 5.6.7.8 +1 01 \r\n"), KB_PROXY_PROTO_DONE, "1.2.3.4:1", "5.6.7.8:1"},
    {S("PROXY UNKNOWN\r\n"), KB_PROXY_PROTO_DONE, NULL, NULL},
    {S("PROXY UNKNOWN any thing\r\n"), KB_PROXY_PROTO_DONE, NULL, NULL},
    {S("PROXY UNKNOWNX\r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY \r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY TCP4 1.2.3.4 5.6.7.8 111\r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY TCP4 1.2.3.4 5.6.7.8 1 1 1\r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY TCP4  1.2.3.4 5.6.7.8 1 1\r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY TCP4 1.2.3.4 5.6.7.8 -1 1\r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY TCP4 01.2.3.4 5.6.7.8 1 1\r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY TCP4 ::1 ::2 1 1\r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY TCP4 0.0.0.0 5.6.7.8 1 1\r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY TCP4 1.2.3.4 255.255.255.255 1 1\r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY UDP4 1.2.3.4 5.6.7.8 1 1\r\n"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY TCP4 1.2.3.4 5.6.7.8 1 1\rX"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S("PROXY\r\n"), KB_PROXY_PROTO_NOT_FOUND, NULL, NULL},
    {S("proxy TCP4"), KB_PROXY_PROTO_NOT_FOUND, NULL, NULL},
    {S("\r\n\r\nGET"), KB_PROXY_PROTO_NOT_FOUND, NULL, NULL},
    {S(V2 "\x21\x11\0\x0c" IPS), KB_PROXY_PROTO_DONE, "1.2.3.4:111", "5.6.7.8:222"},
    {S(V2 "\x21\x12\0\x0c" IPS), KB_PROXY_PROTO_DONE, "1.2.3.4:111", "5.6.7.8:222"},
    {S(V2 "\x21\x11\0\x11" IPS "\2\0\2ab"), KB_PROXY_PROTO_DONE, "1.2.3.4:111", "5.6.7.8:222"},
    {S(V2 "\x21\x11\0\x0f" IPS "x\0\0"), KB_PROXY_PROTO_DONE, "1.2.3.4:111", "5.6.7.8:222"},
    {S(V2 "\x20\0\0\0"), KB_PROXY_PROTO_DONE, NULL, NULL},
    {S(V2 "\x20\xff\0\2ab"), KB_PROXY_PROTO_DONE, NULL, NULL},
    {S(V2 "\x21\x11\0\x11" IPS "\2\0\x09"
          "ab"),
     KB_PROXY_PROTO_BAD, NULL, NULL},
    {S(V2 "\x21\x11\0\x0e" IPS "xy"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S(V2 "\x21\0\0\0"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S(V2 "\x21\x31\0\0"), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S(V2 "\x21\x10\0\x0c" IPS), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S(V2 "\x31\x11\0\x0c" IPS), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S(V2 "\x22\x11\0\x0c" IPS), KB_PROXY_PROTO_BAD, NULL, NULL},
    {S(V2 "\x21\x11\0\4\1\2\3\4"), KB_PROXY_PROTO_BAD, NULL, NULL},
};

static void address_is(const struct kb_addr *addr, const char *wanted)
{
    char text[KB_ADDR_TEXT_MAX + 1];
    struct kb_str got = kb_addr_text(addr, text);

    text[got.len] = '\0';
    assert_string_equal(text, wanted);
}

static void headers_are_taken_as_by_envoy(void **state)
{
    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
        const struct row *row = &rows[i];
        struct kb_proxy_proto_header header;

        assert_int_equal(kb_proxy_proto_parse(row->bytes, BOTH, &header), row->result);
        if (row->result == KB_PROXY_PROTO_DONE) {
            assert_int_equal(header.len, row->bytes.len);
            assert_int_equal(header.has_addresses, row->source != NULL);
        }
        if (row->source != NULL) {
            address_is(&header.source, row->source);
            address_is(&header.destination, row->destination);
        }
    }
}

/* Whatever was there before the last byte: more is asked for, or the verdict is the same. */
static void pieces_give_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
        for (size_t len = 0; len < rows[i].bytes.len; len++) {
            struct kb_proxy_proto_header header;
            enum kb_proxy_proto_result result =
                kb_proxy_proto_parse(kb_str_first(rows[i].bytes, len), BOTH, &header);

            if (result == KB_PROXY_PROTO_MORE) {
                assert_true(header.needed > len);
            } else {
                assert_int_equal(result, rows[i].result);
                assert_int_not_equal(result, KB_PROXY_PROTO_DONE);
            }
        }
    }
}

static void versions_out_of_use_are_not_looked_for(void **state)
{
    struct kb_proxy_proto_header header;

    (void)state;
    assert_int_equal(kb_proxy_proto_parse(KB_STR("PROX"), KB_PROXY_PROTO_V2, &header),
                     KB_PROXY_PROTO_NOT_FOUND);
    assert_int_equal(kb_proxy_proto_parse(KB_STR("\r\n"), KB_PROXY_PROTO_V1, &header),
                     KB_PROXY_PROTO_NOT_FOUND);
}

static void long_lines_are_refused(void **state)
{
    char line[KB_PROXY_PROTO_V1_MAX + 1] = "PROXY UNKNOWN ";
    struct kb_proxy_proto_header header;

    (void)state;
    memset(line + 14, 'x', sizeof(line) - 14);
    assert_int_equal(kb_proxy_proto_parse(kb_str_make(line, sizeof(line)), BOTH, &header),
                     KB_PROXY_PROTO_BAD);
    memcpy(line + KB_PROXY_PROTO_V1_MAX - 2, "\r\n", 2);
    assert_int_equal(kb_proxy_proto_parse(kb_str_make(line, sizeof(line)), BOTH, &header),
                     KB_PROXY_PROTO_DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_taken_as_by_envoy),
        cmocka_unit_test(pieces_give_the_same),
        cmocka_unit_test(versions_out_of_use_are_not_looked_for),
        cmocka_unit_test(long_lines_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
