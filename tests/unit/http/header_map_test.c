/* SPDX-License-Identifier: Apache-2.0 */
/* The header map: order, well-known names, removal, joining. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/api/header_map.h"

static struct kb_arena arena;
static struct kb_header_map map;

static int setup(void **state)
{
    (void)state;
    kb_header_names_init();
    kb_arena_init(&arena, NULL);
    kb_header_map_init(&map, &arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kb_arena_dispose(&arena);
    return 0;
}

/* "a=1 b=2" */
static const char *text(void)
{
    struct kb_str all = KB_STR("");

    KB_HEADER_FOREACH(header, &map)
    {
        all = kb_str_printf(&arena, "%.*s%s%.*s=%.*s", KB_STR_ARG(all), all.len > 0 ? " " : "",
                            KB_STR_ARG(header->name), KB_STR_ARG(header->value));
    }
    return all.p;
}

static void add(const char *name, const char *value)
{
    kb_header_map_add(&map, kb_str_from_cstr(name), kb_str_from_cstr(value));
}

static void append(const char *name, const char *value)
{
    kb_header_map_append(&map, kb_str_from_cstr(name), kb_str_from_cstr(value));
}

static bool is(struct kb_str value, const char *expected)
{
    return expected == NULL ? value.p == NULL
                            : value.p != NULL && kb_str_eq(value, kb_str_from_cstr(expected));
}

static void test_names(void **state)
{
    (void)state;
    for (unsigned id = KB_HDR_NONE + 1; id < KB_HDR_COUNT; id++) {
        struct kb_str name = kb_header_id_name((enum kb_header_id)id);
        struct kb_str longer = kb_str_printf(&arena, "%.*sx", KB_STR_ARG(name));

        assert_int_equal(kb_header_id_find(name), id);
        assert_int_equal(kb_header_id_find(longer), KB_HDR_NONE);
        if (name.len > 2) {
            /* One byte less, and one byte changed, are other names ("te" is the start of nothing
             * here). */
            struct kb_str changed = kb_str_dup(&arena, name);

            ((char *)changed.p)[name.len / 2] ^= 1;
            assert_int_not_equal(kb_header_id_find(changed), id);
            assert_int_not_equal(kb_header_id_find(kb_str_first(name, name.len - 1)), id);
        }
    }
    assert_int_equal(kb_header_id_find(KB_STR("")), KB_HDR_NONE);
    assert_int_equal(kb_header_id_find(KB_STR("x")), KB_HDR_NONE);
    assert_int_equal(kb_header_id_find(KB_STR_NULL), KB_HDR_NONE);
    assert_int_equal(kb_header_id_find(KB_STR("User-Agent")), KB_HDR_NONE); /* lower case only */
}

static void test_order_and_lookup(void **state)
{
    (void)state;
    add("x-a", "1");
    add("user-agent", "u");
    add("x-a", "2");
    add("host", "h");
    assert_string_equal(text(), "x-a=1 user-agent=u x-a=2 host=h");
    assert_int_equal(map.live, 4);
    assert_true(is(kb_header_map_value(&map, KB_STR("x-a")), "1"));
    assert_true(is(kb_header_map_joined(&map, KB_STR("x-a")), "1,2"));
    assert_true(is(kb_header_map_joined(&map, KB_STR("user-agent")), "u"));
    assert_true(is(kb_header_map_value_id(&map, KB_HDR_USER_AGENT), "u"));
    assert_true(is(kb_header_map_value(&map, KB_STR("x-b")), NULL));
    assert_true(is(kb_header_map_joined(&map, KB_STR("x-b")), NULL));
    assert_null(kb_header_map_get(&map, KB_STR("x-")));
    assert_null(kb_header_map_get_id(&map, KB_HDR_TE));
}

static void test_removal(void **state)
{
    (void)state;
    add("x-a", "1");
    add("cookie", "c1");
    add("x-b", "2");
    add("cookie", "c2");
    add("x-a", "3");
    assert_int_equal(kb_header_map_remove(&map, KB_STR("x-a")), 2);
    assert_int_equal(kb_header_map_remove(&map, KB_STR("x-a")), 0);
    assert_string_equal(text(), "cookie=c1 x-b=2 cookie=c2");
    assert_int_equal(kb_header_map_remove_id(&map, KB_HDR_COOKIE), 2);
    assert_null(kb_header_map_get_id(&map, KB_HDR_COOKIE));
    assert_int_equal(kb_header_map_remove_id(&map, KB_HDR_COOKIE), 0);
    add("cookie", "c3");
    assert_true(is(kb_header_map_value_id(&map, KB_HDR_COOKIE), "c3"));
    assert_string_equal(text(), "x-b=2 cookie=c3");
    assert_int_equal(map.live, 2);
    assert_int_equal(kb_header_map_remove(&map, KB_STR("")), 0);
}

static void test_set(void **state)
{
    (void)state;
    add("x-a", "1");
    add("x-b", "2");
    add("x-a", "3");
    kb_header_map_set(&map, KB_STR("x-a"), KB_STR("n"));
    assert_string_equal(text(), "x-a=n x-b=2");
    kb_header_map_set(&map, KB_STR("x-c"), KB_STR("c"));
    kb_header_map_set_id(&map, KB_HDR_VIA, KB_STR("v"));
    kb_header_map_set(&map, KB_STR("via"), KB_STR("w"));
    assert_string_equal(text(), "x-a=n x-b=2 x-c=c via=w");
    assert_int_equal(map.live, 4);
}

static void test_growth(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++) {
        struct kb_str name = kb_str_printf(&arena, "x-%d", i);

        kb_header_map_add(&map, name, name);
        kb_header_map_add_id(&map, KB_HDR_COOKIE, KB_STR("c"));
    }
    assert_int_equal(map.live, 2000);
    assert_true(is(kb_header_map_value(&map, KB_STR("x-999")), "x-999"));
    assert_int_equal(kb_header_map_remove_id(&map, KB_HDR_COOKIE), 1000);
    assert_int_equal(map.live, 1000);
}

/* Which headers Envoy joins was taken from Envoy 1.40 itself. */
static void test_append(void **state)
{
    (void)state;
    append("user-agent", "a");
    append("x-other", "1");
    append("user-agent", "b");
    append("x-other", "2");
    append("cookie", "c=1");
    append("cookie", "d=2");
    append("date", "x");
    append("date", "y");
    append("x-forwarded-for", "");
    append("x-forwarded-for", "1.2.3.4");
    append("x-forwarded-for", "");
    assert_string_equal(text(),
                        "user-agent=a,b x-other=1 x-other=2 cookie=c=1 cookie=d=2 date=x date=y "
                        "x-forwarded-for=1.2.3.4");
    append("x-forwarded-for", "5.6.7.8");
    append("x-forwarded-for", "::1");
    append("accept", "a");
    append("x-forwarded-for", "::2");
    append("accept", "b");
    append("accept", "c");
    assert_true(
        is(kb_header_map_value_id(&map, KB_HDR_X_FORWARDED_FOR), "1.2.3.4,5.6.7.8,::1,::2"));
    assert_true(is(kb_header_map_value_id(&map, KB_HDR_ACCEPT), "a,b,c"));
    for (int i = 0; i < 3000; i++) { /* across arena blocks */
        append("accept", "x");
    }
    assert_int_equal(kb_header_map_value_id(&map, KB_HDR_ACCEPT).len, 5 + 6000);
    assert_true(kb_str_ends_with(kb_header_map_value_id(&map, KB_HDR_ACCEPT), KB_STR(",x,x")));
    assert_true(kb_str_starts_with(kb_header_map_value_id(&map, KB_HDR_ACCEPT), KB_STR("a,b,c,x")));
    kb_header_map_init(&map, &arena);
    map.status = 200;
    append("user-agent", "a");
    append("user-agent", "b");
    append("date", "x");
    append("date", "y");
    append("date", "z");
    append("set-cookie", "a");
    append("set-cookie", "b");
    assert_string_equal(text(), "user-agent=a user-agent=b date=x,y,z set-cookie=a set-cookie=b");
}

/* Two headers that are joined by turns: neither is copied at each growth. */
static void test_joining_takes_little_memory(void **state)
{
    struct kb_arena own;
    struct kb_header_map joined;
    size_t bytes = 0;

    (void)state;
    kb_arena_init(&own, NULL);
    kb_header_map_init(&joined, &own);
    for (int i = 0; i < 2000; i++) {
        kb_header_map_append(&joined, KB_STR("accept"), KB_STR("abcdefghi"));
        kb_header_map_append(&joined, KB_STR("x-forwarded-for"), KB_STR("123456789"));
    }
    assert_int_equal(joined.count, 2);
    for (uint32_t i = 0; i < joined.count; i++) {
        struct kb_str value = joined.items[i].value;

        assert_int_equal(value.len, 2000 * 10 - 1);
        bytes += value.len;
        for (size_t at = 0; at < value.len; at += 10) {
            assert_memory_equal(value.p + at, i == 0 ? "abcdefghi" : "123456789", 9);
            assert_true(at + 9 == value.len || value.p[at + 9] == ',');
        }
    }
    assert_true(own.bytes <= 8 * bytes);
    /* A value that somebody set has no room behind it. */
    joined.items[0].value = KB_STR("literal");
    kb_header_map_append(&joined, KB_STR("accept"), KB_STR("x"));
    assert_true(is(joined.items[0].value, "literal,x"));
    kb_arena_dispose(&own);
}

static void test_pseudo_headers(void **state)
{
    (void)state;
    map.method = KB_STR("GET");
    map.path = KB_STR("/p?q");
    map.authority = KB_STR("h:1");
    map.scheme = KB_STR("http");
    assert_true(is(kb_header_map_value(&map, KB_STR(":method")), "GET"));
    assert_true(is(kb_header_map_value(&map, KB_STR(":path")), "/p?q"));
    assert_true(is(kb_header_map_value(&map, KB_STR(":authority")), "h:1"));
    assert_true(is(kb_header_map_value(&map, KB_STR("host")), "h:1"));
    assert_true(is(kb_header_map_joined(&map, KB_STR("host")), "h:1"));
    assert_true(is(kb_header_map_value(&map, KB_STR(":scheme")), "http"));
    assert_true(is(kb_header_map_value(&map, KB_STR(":protocol")), NULL));
    assert_true(is(kb_header_map_value(&map, KB_STR(":status")), NULL));
    assert_true(is(kb_header_map_value(&map, KB_STR(":x")), NULL));
    add("x-a", "123");
    assert_int_equal(kb_header_map_bytes(&map), 7 + 3 + 5 + 4 + 10 + 3 + 7 + 4 + 3 + 3);
    map.status = 404;
    assert_true(is(kb_header_map_value(&map, KB_STR(":status")), "404"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_names),
        TEST(test_order_and_lookup),
        TEST(test_removal),
        TEST(test_set),
        TEST(test_growth),
        TEST(test_append),
        TEST(test_joining_takes_little_memory),
        TEST(test_pseudo_headers),
    };

    return cmocka_run_group_tests_name("header_map", tests, NULL, NULL);
}
