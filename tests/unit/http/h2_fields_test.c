/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of HTTP/2 messages: what is left out, what the peer is not to keep in its table, and which
 * names nghttp2 has to copy: those that are not ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/http/h2_fields.h"

struct form {
    const char *name;
    uint8_t flags;
};

static void add(struct kb_header_map *map, const char *name)
{
    kb_header_map_add(map, kb_str_from_cstr(name), KB_STR("x"));
}

static void fields_are(const struct kb_h2_fields *fields, const struct form *forms, size_t count)
{
    assert_int_equal(fields->count, count);
    for (size_t i = 0; i < count; i++) {
        struct kb_str name = {(const char *)fields->items[i].name, fields->items[i].namelen};

        assert_true(kb_str_eq(name, kb_str_from_cstr(forms[i].name)));
        assert_int_equal(fields->items[i].flags, forms[i].flags);
    }
}

static void test_request(void **state)
{
    static const struct form forms[] = {
        {":method", NGHTTP2_NV_FLAG_NO_COPY_NAME},
        {":path", NGHTTP2_NV_FLAG_NO_COPY_NAME},
        {"user-agent", NGHTTP2_NV_FLAG_NO_COPY_NAME},
        {"x-request-id", NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX},
        {"grpc-timeout", NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX},
        {"x-own", NGHTTP2_NV_FLAG_NONE}};
    char lent[] = "user-agent";
    struct kb_arena arena;
    struct kb_header_map map;
    struct kb_h2_fields fields;

    (void)state;
    kb_arena_init(&arena, NULL);
    kb_header_map_init(&map, &arena);
    map.method = KB_STR("GET");
    map.path = KB_STR("/");
    kb_header_map_add(&map, kb_str_from_cstr(lent), KB_STR("x"));
    add(&map, "connection");
    add(&map, "x-request-id");
    add(&map, "transfer-encoding");
    add(&map, "grpc-timeout");
    add(&map, "x-own");
    kb_h2_fields_request(&fields, &map, false);
    lent[0] = 'w'; /* the name does not come from there */
    fields_are(&fields, forms, KB_ARRAY_LEN(forms));
    kb_arena_dispose(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_request)};

    kb_header_names_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
