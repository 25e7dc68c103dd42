/* SPDX-License-Identifier: Apache-2.0 */
/* Which route a request gets. Expected results were taken from Envoy 1.40 with the same tables and
 * requests. */
#include "tests/unit/router/route_fixture.h"

#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/filter_state.h"

struct match_case {
    const char *request;
    const char *route; /* "": none */
};

static void cases_check(struct route_fixture *fixture, const struct match_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *got = route_name_for(fixture, cases[i].request);

        if (strcmp(got, cases[i].route) != 0) {
            fail_msg("%s: route '%s' expected, got '%s'", cases[i].request, cases[i].route, got);
        }
    }
}

#define R(name, match) "  - {name: " name ", match: {" match "}, route: {cluster: c}}\n"
#define ALL            "name: t\nvirtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n"

static void test_paths(void **state)
{
    static const struct match_case cases[] = {
        {"GET /exact h", "exact"},
        {"GET /exact?x=1 h", "exact"},
        {"GET /exact/ h", "any"},
        {"GET /exact#f h", "exact"},
        {"GET /psp h", "psp"},
        {"GET /psp/x h", "psp"},
        {"GET /psp?q h", "psp"},
        {"GET /pspx h", "any"},
        {"GET /re/12 h", "re"},
        {"GET /re/12?a=b h", "re"},
        {"GET /re/12x h", "any"},
        {"GET /case/x h", "ci"},
        {"GET /CASE h", "ci"},
        {"GET /pAtH h", "pathci"},
        {"GET /pAtH/ h", "any"},
        {"GET /SEP/x h", "sepci"},
        {"GET /sepx h", "any"},
        {"GET /t/a/b/c.js h", "template"},
        {"GET /t/a/c.js h", "template"},
        {"GET /t/a/c.css h", "any"},
        {"CONNECT - h:1", "connect"},
        {"GET /ws h|upgrade: CONNECT-UDP", "connect"},
        {"GET - h", ""},
        {"GET other h", ""},
    };

    route_table_ok(
        *state,
        ALL R("connect", "connect_matcher: {}") R("exact", "path: /exact")
            R("psp", "path_separated_prefix: /psp") R("re", "safe_regex: {regex: '/re/[0-9]+'}")
                R("ci", "prefix: /CASE, case_sensitive: false")
                    R("pathci", "path: /PaTh, case_sensitive: false")
                        R("sepci", "path_separated_prefix: /sep, case_sensitive: false")
                            R("template",
                              "path_match_policy: {name: x, typed_config: {'@type': "
                              "type.googleapis.com/envoy.extensions.path.match.uri_template.v3."
                              "UriTemplateMatchConfig, path_template: '/t/{a}/{b=**}.js'}}")
                                R("any", "prefix: /"));
    cases_check(*state, cases, KB_ARRAY_LEN(cases));
}

static void test_path_parameters(void **state)
{
    static const struct match_case cases[] = {
        {"GET /a;x=1 h", "a"}, {"GET /a;x?q h", "a"}, {"GET /a?x;y h", "a"}, {"GET /ab;x h", ""}};

    route_table_ok(*state,
                   "ignore_path_parameters_in_path_matching: true\n" ALL R("a", "path: /a"));
    cases_check(*state, cases, KB_ARRAY_LEN(cases));
}

static void test_first_match_wins(void **state)
{
    static const struct match_case cases[] = {{"GET /a/b h", "one"}, {"GET /c h", "three"}};

    route_table_ok(*state,
                   ALL R("one", "prefix: /a") R("two", "prefix: /a/b") R("three", "prefix: /"));
    cases_check(*state, cases, KB_ARRAY_LEN(cases));
}

static void test_headers(void **state)
{
    static const struct match_case cases[] = {
        {"POST /m1 h", "m1"},
        {"GET /m1 h", ""},
        {"GET /m2 hh", "m2"},
        {"GET /m3 hh", "m3"},
        {"GET /m4 h", "m4"},
        {"GET /m5 h|x-a: v|x-b: w", "m5"},
        {"GET /m5 h|x-a: v", ""},
        {"POST /g h|content-type: application/grpc", "g"},
        {"POST /g h|content-type: application/grpc+proto", "g"},
        {"POST /g h|content-type: application/grpc-web", ""},
        {"POST /g h|content-type: application/grpc;x", ""},
        {"POST /g h|content-type: APPLICATION/GRPC", ""},
        {"POST /g h", ""},
    };

    route_table_ok(
        *state,
        ALL R("m1", "prefix: /m1, headers: [{name: ':method', string_match: {exact: POST}}]")
            R("m2", "prefix: /m2, headers: [{name: host, string_match: {exact: hh}}]") R(
                "m3", "prefix: /m3, headers: [{name: ':authority', string_match: {exact: hh}}]")
                R("m4", "prefix: /m4, headers: [{name: ':scheme', string_match: {exact: http}}]")
                    R("m5", "prefix: /m5, headers: [{name: X-A}, {name: x-b, exact_match: w}]")
                        R("g", "prefix: /g, grpc: {}"));
    cases_check(*state, cases, KB_ARRAY_LEN(cases));
}

static void test_query(void **state)
{
    static const struct match_case cases[] = {
        {"GET /qp h", "absent"},
        {"GET /qp?a h", "present"},
        {"GET /qp?a= h", "present"},
        {"GET /qp?b=1 h", "absent"},
        {"GET /qp? h", "absent"},
        {"GET /qp?&a h", "present"},
        {"GET /qe h", ""},
        {"GET /qe?a h", "name"},
        {"GET /qe?b&a=2 h", "name"},
        {"GET /qs?a= h", "empty"},
        {"GET /qs?a h", "empty"},
        {"GET /qs?a=1 h", ""},
        {"GET /qf?a=1&a=2 h", "first"},
        {"GET /qf?a=2&a=1 h", ""},
        {"GET /qd?a%20b=1 h", ""},
    };

    route_table_ok(
        *state,
        ALL R("absent", "prefix: /qp, query_parameters: [{name: a, present_match: false}]") R(
            "present", "prefix: /qp, query_parameters: [{name: a, present_match: true}]")
            R("name", "prefix: /qe, query_parameters: [{name: a}]") R(
                "empty", "prefix: /qs, query_parameters: [{name: a, string_match: {exact: ''}}]")
                R("first", "prefix: /qf, query_parameters: [{name: a, string_match: {exact: '1'}}]")
                    R("decoded", "prefix: /qd, query_parameters: [{name: 'a b'}]"));
    cases_check(*state, cases, KB_ARRAY_LEN(cases));
}

static bool feature_enabled(const struct kb_runtime *runtime, struct kb_str key, uint32_t numerator,
                            uint32_t denominator, uint64_t random)
{
    (void)runtime;
    return kb_str_eq(key, KB_STR("on")) ? true : random % denominator < numerator;
}

static uint64_t get_u64(const struct kb_runtime *runtime, struct kb_str key, uint64_t absent)
{
    (void)runtime;
    return kb_str_eq(key, KB_STR("w.c1")) ? 0 : absent;
}

static void test_runtime_fraction(void **state)
{
    struct route_fixture *fixture = *state;
    const struct kb_runtime_ops ops = {.feature_enabled = feature_enabled, .get_u64 = get_u64};
    struct kb_runtime runtime = {.ops = &ops, .first_letters = UINT32_MAX};
    static const struct match_case cases[] = {{"GET /zero h", "rest"},
                                              {"GET /eight h", "eight"},
                                              {"GET /seven h", "rest"},
                                              {"GET /key h", "key"}};

    fixture->server.runtime = &runtime; /* the random number of these tests is 7 */
    route_table_ok(
        fixture,
        ALL R("zero", "prefix: /zero, runtime_fraction: {default_value: {numerator: 0}}")
            R("eight", "prefix: /eight, runtime_fraction: {default_value: {numerator: 8}}")
                R("seven", "prefix: /seven, runtime_fraction: {default_value: {numerator: 7}}")
                    R("key", "prefix: /key, runtime_fraction: {default_value: {numerator: 0}, "
                             "runtime_key: 'on'}") R("rest", "prefix: /"));
    cases_check(fixture, cases, KB_ARRAY_LEN(cases));
}

static void test_what_filters_left(void **state)
{
    static const struct match_case without[] = {
        {"GET /meta h", ""}, {"GET /inverted h", "inverted"}, {"GET /state h", ""}};
    static const struct match_case with[] = {
        {"GET /meta h", "meta"}, {"GET /inverted h", ""}, {"GET /state h", "state"}};
    static const struct kb_str text = {"abc", 3};
    struct route_fixture *fixture = *state;
    const struct kb_filter_state_item item = {
        .key = kb_filter_state_key(KB_STR("k")), .type = &kb_filter_state_string, .object = &text};

    route_table_ok(fixture,
                   ALL R("meta", "prefix: /meta, dynamic_metadata: [{filter: f, path: [{key: k}], "
                                 "value: {string_match: {exact: v}}}]")
                       R("inverted", "prefix: /inverted, dynamic_metadata: [{filter: f, path: "
                                     "[{key: k}], value: {present_match: true}, invert: true}]")
                           R("state", "prefix: /state, filter_state: [{key: k, string_match: "
                                      "{prefix: a}}]"));
    cases_check(fixture, without, KB_ARRAY_LEN(without));
    kb_dynamic_metadata_set_text(&fixture->info.dynamic_metadata, &fixture->arena, KB_STR("f"),
                                 KB_STR("k"), KB_STR("v"));
    assert_int_equal(kb_filter_state_put_stream(&fixture->info, &fixture->arena, &item), 0);
    cases_check(fixture, with, KB_ARRAY_LEN(with));
}

static void test_what_streams_do_not_have(void **state)
{
    static const struct match_case cases[] = {{"GET /meta h", ""},
                                              {"GET /inverted h", "inverted"},
                                              {"GET /state h", ""},
                                              {"GET /cert h", ""},
                                              {"GET /nocert h", "nocert"}};

    route_table_ok(
        *state,
        ALL R("meta", "prefix: /meta, dynamic_metadata: [{filter: f, path: [{key: k}], value: "
                      "{present_match: true}}]")
            R("inverted",
              "prefix: /inverted, dynamic_metadata: [{filter: f, path: [{key: k}], value: "
              "{present_match: true}, invert: true}]")
                R("state", "prefix: /state, filter_state: [{key: k, string_match: {exact: a}}]")
                    R("cert", "prefix: /cert, tls_context: {presented: true}")
                        R("nocert", "prefix: /nocert, tls_context: {presented: false}"));
    cases_check(*state, cases, KB_ARRAY_LEN(cases));
}

#define V(name, domains)                                               \
    "- {name: " name ", domains: [" domains "], routes: [{name: " name \
    ", match: {prefix: /}, route: {cluster: c}}]}\n"

static void test_domains(void **state)
{
    static const struct match_case cases[] = {
        {"GET / exact.test", "exact"},  {"GET / EXACT.test", "exact"},
        {"GET / a.test", "suffix"},     {"GET / a.long.test", "long"},
        {"GET / .test", "any"},         {"GET / pre.zzz", "prefix"},
        {"GET / pre.", "any"},          {"GET / PRE.longer.x", "plong"},
        {"GET / port.x:8080", "port"},  {"GET / port.x", "any"},
        {"GET / exact.test:81", "any"}, {"GET / nomatch", "any"},
        {"GET / a*b", "middle"},        {"GET / axb", "any"},
        {"GET / pre.test", "suffix"},
    };

    route_table_ok(*state, "name: t\nvirtual_hosts:\n" V("any", "'*'") V("exact", "exact.test")
                               V("suffix", "'*.test'") V("long", "'*.long.test'")
                                   V("prefix", "'pre.*'") V("plong", "'pre.longer.*'")
                                       V("port", "'port.x:8080'") V("middle", "'a*b'"));
    cases_check(*state, cases, KB_ARRAY_LEN(cases));
}

static void test_domains_without_port(void **state)
{
    static const struct match_case cases[] = {{"GET / a.test:81", "a"},
                                              {"GET / [::1]:80", "six"},
                                              {"GET / [::1]", "six"},
                                              {"GET / b.test", ""}};

    route_table_ok(*state, "ignore_port_in_host_matching: true\nvirtual_hosts:\n" V("a", "a.test")
                               V("six", "'[::1]'"));
    cases_check(*state, cases, KB_ARRAY_LEN(cases));
}

static void test_vhost_header(void **state)
{
    static const struct match_case cases[] = {{"GET / other|x-vhost: A.test", "a"},
                                              {"GET / a.test", ""},
                                              {"GET / a.test|x-vhost: z", ""}};

    route_table_ok(*state, "vhost_header: X-Vhost\nvirtual_hosts:\n" V("a", "a.test"));
    cases_check(*state, cases, KB_ARRAY_LEN(cases));
}

static void test_long_host(void **state)
{
    struct route_fixture *fixture = *state;
    char host[2048];
    struct kb_header_map *map = route_request(fixture, "GET / h");

    memset(host, 'a', sizeof(host));
    map->authority = kb_str_make(host, sizeof(host));
    route_table_ok(fixture, "virtual_hosts:\n" V("any", "'*'") V("suffix", "'*a'"));
    assert_string_equal(kb_str_dup(&fixture->arena, route_match(fixture, map)->name).p, "any");
    map->authority = KB_STR_NULL;
    assert_null(route_match(fixture, map));
}

static void test_no_forwarded_proto(void **state)
{
    struct route_fixture *fixture = *state;
    struct kb_header_map *map = route_request(fixture, "GET / h");

    route_table_ok(fixture, ALL R("any", "prefix: /"));
    assert_non_null(route_match(fixture, map));
    kb_header_map_remove_id(map, KB_HDR_X_FORWARDED_PROTO);
    assert_null(route_match(fixture, map));
}

static const char *cluster_for(struct route_fixture *fixture, const char *request, uint64_t random)
{
    struct kb_header_map *map = route_request(fixture, request);
    const struct kb_route *route = route_match(fixture, map);
    const void *choice;
    struct kb_str name;
    uint32_t slot;

    assert_non_null(route);
    random = kb_route_cluster_random(route, map, &fixture->info, random);
    if (kb_route_choose_cluster(route, map, random, &slot, &name, &choice) != 0) {
        return "none";
    }
    assert_true(slot == UINT32_MAX || slot == kb_cluster_slot(NULL, name));
    return kb_str_dup(&fixture->arena, name).p;
}

#define W(path, rest)                                                                           \
    "  - {match: {prefix: " path "}, route: {weighted_clusters: {clusters: [{name: c, weight: " \
    "30}, {name: c1, weight: 70}]" rest "}"

static void test_clusters(void **state)
{
    struct route_fixture *fixture = *state;
    const struct kb_runtime_ops ops = {.feature_enabled = feature_enabled, .get_u64 = get_u64};
    struct kb_runtime runtime = {.ops = &ops, .first_letters = UINT32_MAX};

    fixture->server.runtime = &runtime;
    route_table_ok(
        fixture, ALL
        "  - {match: {prefix: /h}, route: {cluster_header: X-Cl}}\n"
        "  - {match: {prefix: /wh}, route: {weighted_clusters: {clusters: [{cluster_header: x-cl, "
        "weight: 1}]}}}\n" W("/wr", ", header_name: x-rand") "}}\n" W(
            "/wk",
            ", runtime_key_prefix: w") "}}\n" W("/wp",
                                                ", use_hash_policy: true") ", hash_policy: "
                                                                           "[{header: "
                                                                           "{header_name: "
                                                                           "x-h}}]}}\n" W("/w",
                                                                                          "") "}}"
                                                                                              "\n");
    assert_string_equal(cluster_for(fixture, "GET /h h|x-cl: c1", 0), "c1");
    assert_string_equal(cluster_for(fixture, "GET /h h|x-cl: c1|x-cl: c2", 0), "c1");
    assert_string_equal(cluster_for(fixture, "GET /h h", 0), "none");
    assert_string_equal(cluster_for(fixture, "GET /wh h|x-cl: q", 0), "q");
    assert_string_equal(cluster_for(fixture, "GET /wh h", 0), "none");
    assert_string_equal(cluster_for(fixture, "GET /w h", 29), "c");
    assert_string_equal(cluster_for(fixture, "GET /w h", 30), "c1");
    assert_string_equal(cluster_for(fixture, "GET /w h", 99), "c1");
    assert_string_equal(cluster_for(fixture, "GET /w h", 100), "c");
    assert_string_equal(cluster_for(fixture, "GET /wr h|x-rand: 30", 0), "c1");
    assert_string_equal(cluster_for(fixture, "GET /wr h|x-rand: 100", 99), "c");
    assert_string_equal(cluster_for(fixture, "GET /wr h|x-rand: x", 30), "c1");
    assert_string_equal(cluster_for(fixture, "GET /wr h|x-rand: 1|x-rand: 2", 30), "c1");
    assert_string_equal(cluster_for(fixture, "GET /wk h", 99), "c"); /* runtime: c1 has weight 0 */
    assert_string_equal(cluster_for(fixture, "GET /wp h|x-h: a", 1),
                        cluster_for(fixture, "GET /wp h|x-h: a", 31));
    assert_string_not_equal(cluster_for(fixture, "GET /wp h", 1),
                            cluster_for(fixture, "GET /wp h", 31));
}

static void test_filter_switches(void **state)
{
    struct route_fixture *fixture = *state;
    const struct kb_route *route;

#define SWITCH(name, off)             \
    "typed_per_filter_config: {" name \
    ": {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, " off "}}"
    route_table_ok(
        fixture,
        SWITCH("table", "disabled: true") "\nvirtual_hosts:\n- name: v\n  domains: "
                                          "['*']\n  " SWITCH(
                                              "vhost", "disabled: true") "\n  routes:\n  - "
                                                                         "{match: {prefix: /}, "
                                                                         "route: {cluster: "
                                                                         "c}, " SWITCH("vhost",
                                                                                       "config: "
                                                                                       "{}") "}"
                                                                                             "\n");
    route = route_match(fixture, route_request(fixture, "GET / h"));
    assert_int_equal(kb_route_filter_disabled(route, NULL, kb_filter_name_id(KB_STR("table"))), 1);
    assert_int_equal(kb_route_filter_disabled(route, NULL, kb_filter_name_id(KB_STR("vhost"))), 0);
    assert_int_equal(kb_route_filter_disabled(route, NULL, kb_filter_name_id(KB_STR("other"))), -1);
}

#define TYPE(name) "'@type': type.googleapis.com/" name
#define BUFFER(bytes)                                                                             \
    "typed_per_filter_config: {b: {" TYPE("envoy.extensions.filters.http.buffer.v3."              \
                                          "BufferPerRoute") ", "                                  \
                                                            "buffer: {max_request_bytes: " #bytes \
                                                            "}}}"

/* The levels of the request's route for the filter b: "1 2 4". */
static const char *levels_of(struct route_fixture *fixture, const char *request, uint64_t random)
{
    static char text[64];
    struct kb_header_map *map = route_request(fixture, request);
    const struct kb_route *route = route_match(fixture, map);
    const void *configs[KB_ROUTE_CONFIG_LEVELS];
    const void *choice;
    struct kb_str name;
    uint32_t slot;
    uint32_t id = kb_filter_name_id(KB_STR("b"));
    size_t count;
    int n = 0;

    assert_int_equal(kb_route_choose_cluster(route, map, random, &slot, &name, &choice), 0);
    count = kb_route_filter_configs(route, choice, id, configs);
    for (size_t i = 0; i < count; i++) {
        n += snprintf(text + n, sizeof(text) - (size_t)n, "%s%u", i > 0 ? " " : "",
                      *(const uint32_t *)configs[i]);
    }
    assert_ptr_equal(kb_route_filter_config(route, choice, id), count > 0 ? configs[0] : NULL);
    assert_int_equal(kb_route_filter_disabled(route, choice, id), count > 0 ? 0 : -1);
    return n > 0 ? text : "none";
}

static void test_filter_configs(void **state)
{
    struct route_fixture *fixture = *state;

    route_table_ok(
        fixture,
        BUFFER(4) "\nvirtual_hosts:\n- name: v\n  domains: ['v']\n  " BUFFER(
            3) "\n  routes:\n"
               "  - match: {prefix: /w}\n"
               "    " BUFFER(
                   2) "\n"
                      "    route: {weighted_clusters: {clusters: [{name: a, weight: 1, " BUFFER(
                          1) "}, {name: b, weight: 1}]}}\n"
                             "  - {match: {prefix: /}, route: {cluster: c}}\n"
                             "- name: w\n  domains: ['w']\n"
                             "  routes: [{match: {prefix: /}, route: {cluster: c}}]\n");
    assert_string_equal(levels_of(fixture, "GET /w v", 0), "1 2 3 4");
    assert_string_equal(levels_of(fixture, "GET /w v", 1), "2 3 4");
    assert_string_equal(levels_of(fixture, "GET / v", 0), "3 4");
    assert_string_equal(levels_of(fixture, "GET / w", 0), "4");
    assert_int_not_equal(kb_filter_name_id(KB_STR("b")), kb_filter_name_id(KB_STR("bb")));
}

/* One route with this entry of typed_per_filter_config. */
static const char *entry_error(struct route_fixture *fixture, const char *entry)
{
    char table[1024];

    snprintf(table, sizeof(table),
             "virtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n"
             "  - {match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {f: {%s}}}\n",
             entry);
    return route_table_error(fixture, table);
}

static void test_filter_config_errors(void **state)
{
    struct route_fixture *fixture = *state;

    assert_non_null(strstr(
        entry_error(fixture, TYPE("google.protobuf.Empty")),
        "Didn't find a registered implementation for 'f' with type URL: 'google.protobuf.Empty'"));
    assert_non_null(
        strstr(entry_error(fixture, TYPE("envoy.extensions.filters.http.router.v3.Router")),
               "The filter f doesn't support virtual host or route specific configurations"));
    assert_non_null(strstr(entry_error(fixture, TYPE("envoy.config.route.v3.FilterConfig")),
                           "Empty route/virtual host per filter configuration for f filter"));
    /* The message of the chain is not that of routes. */
    assert_non_null(entry_error(
        fixture, TYPE("envoy.extensions.filters.http.buffer.v3.Buffer") ", max_request_bytes: 1"));
    assert_null(entry_error(
        fixture, TYPE("envoy.config.route.v3.FilterConfig") ", is_optional: true, config: {" TYPE(
                     "google.protobuf.Empty") "}"));
}

static void test_virtual_clusters(void **state)
{
    struct route_fixture *fixture = *state;
    const struct kb_route *route;

    route_table_ok(
        fixture,
        "virtual_hosts:\n- name: v\n  domains: ['*']\n"
        "  virtual_clusters: [{name: post, headers: [{name: ':method', exact_match: POST}]}]\n"
        "  routes: [{match: {prefix: /}, route: {cluster: c}}]\n");
    route = route_match(fixture, route_request(fixture, "GET / h"));
    assert_true(kb_str_eq(kb_route_virtual_cluster(route, route_request(fixture, "POST / h"))->name,
                          KB_STR("post")));
    assert_true(kb_str_eq(kb_route_virtual_cluster(route, route_request(fixture, "GET / h"))->name,
                          KB_STR("other")));
    assert_true(kb_str_eq(kb_route_virtual_host_name(route), KB_STR("v")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(test_paths),
        ROUTE_TEST(test_path_parameters),
        ROUTE_TEST(test_first_match_wins),
        ROUTE_TEST(test_headers),
        ROUTE_TEST(test_query),
        ROUTE_TEST(test_runtime_fraction),
        ROUTE_TEST(test_what_filters_left),
        ROUTE_TEST(test_what_streams_do_not_have),
        ROUTE_TEST(test_domains),
        ROUTE_TEST(test_domains_without_port),
        ROUTE_TEST(test_vhost_header),
        ROUTE_TEST(test_long_host),
        ROUTE_TEST(test_no_forwarded_proto),
        ROUTE_TEST(test_clusters),
        ROUTE_TEST(test_filter_switches),
        ROUTE_TEST(test_filter_configs),
        ROUTE_TEST(test_filter_config_errors),
        ROUTE_TEST(test_virtual_clusters),
    };

    return cmocka_run_group_tests_name("route_match", tests, NULL, NULL);
}
