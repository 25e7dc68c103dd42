/* SPDX-License-Identifier: Apache-2.0 */
/* hash_policy: which text is hashed, how several policies combine, and the cookie that is made.
 * Checked against Envoy 1.40, whose consistent hashing picked the same hosts for these texts. */
#include <xxhash.h>

#include "tests/unit/router/route_fixture.h"

#define POLICIES(list)                                                                             \
    "virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c, " \
    "hash_policy: [" list "]}}]}]"

static uint64_t text_hash(const char *text)
{
    return XXH64(text, strlen(text), 0);
}

static bool hash_of(struct route_fixture *fixture, const char *request, uint64_t *hash)
{
    struct kb_header_map *map = route_request(fixture, request);

    return kb_route_hash(route_match(fixture, map), map, &fixture->info, NULL, NULL, hash);
}

/* `text` NULL: no hash. */
static void hash_check(struct route_fixture *fixture, const char *request, const char *text)
{
    uint64_t hash = 0;

    assert_int_equal(hash_of(fixture, request, &hash), text != NULL);
    if (text != NULL) {
        assert_true(hash == text_hash(text));
    }
}

static void test_headers(void **state)
{
    struct route_fixture *fixture = *state;
    uint64_t hash;

    route_table_ok(fixture, POLICIES("{header: {header_name: X-H}}"));
    hash_check(fixture, "GET / h|x-h: k1", "k1");
    hash_check(fixture, "GET / h", NULL);
    assert_true(
        hash_of(fixture, "GET / h|x-h: b|x-h: a", &hash)); /* sorted, then one seeds the next */
    assert_true(hash == XXH64("b", 1, XXH64("a", 1, 0)));
    route_table_ok(fixture, POLICIES("{header: {header_name: ':path'}}"));
    hash_check(fixture, "GET /p?q h", "/p?q");
    route_table_ok(fixture, POLICIES("{header: {header_name: host}}"));
    hash_check(fixture, "GET /p?q h", "h");
    route_table_ok(fixture, POLICIES("{header: {header_name: x-h, regex_rewrite: {pattern: {regex: "
                                     "'/.*'}, substitution: ''}}}"));
    hash_check(fixture, "GET / h|x-h: a/b", "a");
}

static void test_cookies(void **state)
{
    struct route_fixture *fixture = *state;

    route_table_ok(fixture, POLICIES("{cookie: {name: ck}}"));
    hash_check(fixture, "GET / h|cookie: a=1; ck=k2; b=3", "k2");
    hash_check(fixture, "GET / h|cookie: a=1|cookie: ck=\"k3\"", "k3");
    hash_check(fixture, "GET / h|cookie: xck=1; ck", NULL);
    hash_check(fixture, "GET / h|cookie: ck=", NULL);
    hash_check(fixture, "GET / h", NULL);
}

static struct kb_str cookie_add(void *arg, const struct kb_hash_cookie *cookie)
{
    struct kb_arena *arena = arg;
    struct kb_str text = kb_hash_cookie_text(cookie, KB_STR("d92bf9ffa49e6504"), arena);

    assert_string_equal(
        text.p, cookie->ttl_s > 0 ? "ck=\"d92bf9ffa49e6504\"; Max-Age=60; Path=/p; A=b; C; HttpOnly"
                                  : "ck2=\"d92bf9ffa49e6504\"; HttpOnly");
    return KB_STR("made");
}

static void test_made_cookies(void **state)
{
    struct route_fixture *fixture = *state;
    struct kb_header_map *map = route_request(fixture, "GET / h");
    uint64_t hash;

    route_table_ok(fixture, POLICIES("{cookie: {name: ck, ttl: 60s, path: /p, attributes: [{name: "
                                     "A, value: b}, {name: C}]}}"));
    assert_true(kb_route_hash(route_match(fixture, map), map, &fixture->info, cookie_add,
                              &fixture->arena, &hash));
    assert_true(hash == text_hash("made"));
    route_table_ok(fixture, POLICIES("{cookie: {name: ck2, ttl: 0s}}"));
    assert_true(kb_route_hash(route_match(fixture, map), map, &fixture->info, cookie_add,
                              &fixture->arena, &hash));
    route_table_ok(fixture,
                   POLICIES("{cookie: {name: ck}}")); /* without a time to live none is made */
    assert_false(kb_route_hash(route_match(fixture, map), map, &fixture->info, cookie_add,
                               &fixture->arena, &hash));
}

static void test_other_sources(void **state)
{
    struct route_fixture *fixture = *state;

    route_table_ok(fixture, POLICIES("{connection_properties: {source_ip: true}}"));
    hash_check(fixture, "GET / h", NULL); /* no address */
    assert_int_equal(kb_addr_from_ip(&fixture->info.remote, KB_STR("127.0.0.1"), 1234), 0);
    hash_check(fixture, "GET / h", "127.0.0.1");
    route_table_ok(fixture, POLICIES("{connection_properties: {source_ip: false}}"));
    hash_check(fixture, "GET / h", NULL);
    route_table_ok(fixture, POLICIES("{query_parameter: {name: k}}"));
    hash_check(fixture, "GET /?a=1&k=k4&k=z h", "k4");
    hash_check(fixture, "GET /?k h", "");
    hash_check(fixture, "GET / h", NULL);
    route_table_ok(fixture, POLICIES("{filter_state: {key: k}}"));
    hash_check(fixture, "GET / h", NULL);
}

static void test_combination(void **state)
{
    struct route_fixture *fixture = *state;
    uint64_t a = text_hash("a");
    uint64_t hash;

    route_table_ok(fixture, POLICIES("{header: {header_name: x-a}}, {header: {header_name: x-b}}"));
    assert_true(hash_of(fixture, "GET / h|x-a: a|x-b: b", &hash));
    assert_true(hash == (((a << 1) | (a >> 63)) ^ text_hash("b")));
    assert_true(hash_of(fixture, "GET / h|x-b: b", &hash));
    assert_true(hash == text_hash("b"));
    route_table_ok(
        fixture,
        POLICIES("{header: {header_name: x-a}, terminal: true}, {header: {header_name: x-b}}"));
    hash_check(fixture, "GET / h|x-a: a|x-b: b", "a");
    hash_check(fixture, "GET / h|x-b: b", "b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(test_headers),       ROUTE_TEST(test_cookies),     ROUTE_TEST(test_made_cookies),
        ROUTE_TEST(test_other_sources), ROUTE_TEST(test_combination),
    };

    return cmocka_run_group_tests_name("hash_policy", tests, NULL, NULL);
}
