/* SPDX-License-Identifier: Apache-2.0 */
/* What routes do to requests and responses. Expected results were taken from Envoy 1.40 with the
 * same routes and requests. */
#include "tests/unit/router/route_fixture.h"

/* A request through its route, as it goes upstream. */
static const char *forwarded(struct route_fixture *fixture, const char *request, bool suppress)
{
    struct kb_header_map *map = route_request(fixture, request);
    const struct kb_route *route = route_match(fixture, map);
    const void *choice;
    struct kb_str name;
    uint32_t slot;

    if (route == NULL) {
        return "no route";
    }
    assert_int_equal(kb_route_choose_cluster(route, map, 0, &slot, &name, &choice), 0);
    fixture->info.route = route;
    fixture->info.route_name = route->name;
    kb_route_finalize_request(route, choice, map, &fixture->info, suppress);
    return route_text(fixture, map);
}

static const char *answered(struct route_fixture *fixture, const char *request,
                            const char *response)
{
    struct kb_header_map *map = route_request(fixture, request);
    struct kb_header_map *headers = route_request(fixture, response);
    const struct kb_route *route = route_match(fixture, map);
    const void *choice;
    struct kb_str name;
    uint32_t slot;

    assert_non_null(route);
    headers->status = 200;
    if (kb_route_choose_cluster(route, map, 0, &slot, &name, &choice) != 0) {
        choice = NULL;
    }
    kb_route_finalize_response(route, choice, map, headers, &fixture->info);
    return route_text(fixture, headers);
}

struct text_case {
    const char *request;
    const char *text;
};

static void forwarded_check(struct route_fixture *fixture, const struct text_case *cases,
                            size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *got = forwarded(fixture, cases[i].request, false);

        if (strcmp(got, cases[i].text) != 0) {
            fail_msg("%s\n  expected %s\n  got      %s", cases[i].request, cases[i].text, got);
        }
    }
}

#define ALL              "name: t\nvirtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n"
#define C(match, action) "  - {match: {" match "}, route: {cluster: c, " action "}}\n"

static void test_path_rewrites(void **state)
{
    static const struct text_case cases[] = {
        {"GET /prw/A?q z", "GET /x/A?q z|x-envoy-original-path: /prw/A?q"},
        {"GET /PrWzz z", "GET /xzz z|x-envoy-original-path: /PrWzz"},
        {"GET /rx/ab/cd?x=/y z",
         "GET /<rx>/<ab>/<cd>?x=/y z|x-envoy-original-path: /rx/ab/cd?x=/y"},
        {"GET /rn/a z", "GET /rn/a z|x-envoy-original-path: /rn/a"},
        {"GET /re/a?q z", "GET /re/a?q z"},
        {"GET /rb z", "GET /rb z|x-envoy-original-path: /rb"},
        {"GET /pp?x z", "GET /qq?x z|x-envoy-original-path: /pp?x"},
        {"GET /ps z", "GET / z|x-envoy-original-path: /ps"},
        {"GET /ps/a z", "GET //a z|x-envoy-original-path: /ps/a"},
        {"GET /pslash/a z", "GET /a z|x-envoy-original-path: /pslash/a"},
        {"GET /sr/a/b?c z", "GET /whole?c z|x-envoy-original-path: /sr/a/b?c"},
        {"GET /pf/a?q=1 z|x-a: v", "GET /fmt/v?q=1 z|x-a: v|x-envoy-original-path: /pf/a?q=1"},
        {"GET /pf/a z", "GET /fmt/ z|x-envoy-original-path: /pf/a"},
        {"GET /plain z|x-envoy-original-path: kept", "GET /plain z|x-envoy-original-path: kept"},
    };
    struct route_fixture *fixture = *state;

    route_table_ok(
        fixture,
        ALL C("prefix: /PRW, case_sensitive: false", "prefix_rewrite: /x")
            C("prefix: /rx", "regex_rewrite: {pattern: {regex: '/(\\w+)'}, substitution: '/<\\1>'}")
                C("prefix: /rn", "regex_rewrite: {pattern: {regex: nomatch}, substitution: z}")
                    C("prefix: /re", "regex_rewrite: {pattern: {regex: '.*'}, substitution: ''}") C(
                        "prefix: /rb", "regex_rewrite: {pattern: {regex: b}, substitution: '\\5'}")
                        C("path: /pp", "prefix_rewrite: /qq")
                            C("path_separated_prefix: /ps", "prefix_rewrite: /")
                                C("prefix: /pslash/", "prefix_rewrite: /")
                                    C("safe_regex: {regex: '/sr/.*'}", "prefix_rewrite: /whole")
                                        C("prefix: /pf", "path_rewrite: '/fmt/%REQ(x-a)%'")
                                            C("prefix: /", "timeout: 1s"));
    forwarded_check(fixture, cases, KB_ARRAY_LEN(cases));
    assert_string_equal(forwarded(fixture, "GET /pp z", true), "GET /qq z");
}

#define T(match, rewrite)                                                                          \
    "  - {match: {path_match_policy: {name: m, typed_config: {'@type': "                           \
    "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, "     \
    "path_template: '" match                                                                       \
    "'}}}, route: {cluster: c, path_rewrite_policy: {name: r, typed_config: {'@type': "            \
    "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, " \
    "path_template_rewrite: '" rewrite "'}}}}\n"

static void test_uri_templates(void **state)
{
    static const struct text_case cases[] = {
        {"GET /a/xxx z", "GET /n z|x-envoy-original-path: /a/xxx"},
        {"GET /a/x* z", "no route"},
        {"GET /b/q.json?z z", "GET /n-q?z z|x-envoy-original-path: /b/q.json?z"},
        {"GET /b/.json z", "no route"},
        {"GET /b/q.json/ z", "no route"},
        {"GET /c/prez z", "GET /z z|x-envoy-original-path: /c/prez"},
        {"GET /c/pre z", "no route"},
        {"GET /g/p/1/q/r/s?t z", "GET /r/s/x/p/1/q/?t z|x-envoy-original-path: /g/p/1/q/r/s?t"},
        {"GET /g/p/1/q/ z", "GET //x/p/1/q/ z|x-envoy-original-path: /g/p/1/q/"},
        {"GET /g/p/1/q z", "no route"},
        {"GET /i/a:@ z", "GET /a:@ z|x-envoy-original-path: /i/a:@"},
        {"GET /l/a/b/end z", "GET /za/b z|x-envoy-original-path: /l/a/b/end"},
        {"GET /l//end z", "GET /z z|x-envoy-original-path: /l//end"},
        {"GET /l/end z", "no route"},
        {"GET /d/x%20 z", "GET /one z|x-envoy-original-path: /d/x%20"},
        {"GET /d/x[ z", "no route"},
    };

    route_table_ok(*state, ALL T("/a/x*", "/n") T("/b/{v}.json", "/n-{v}") T("/c/pre{v}", "/{v}")
                               T("/g/{v=p/*/q}/{w=**}", "/{w}/x/{v}/") T("/i/{v}", "/{v}")
                                   T("/l/{v=**}/end", "/z{v}") T("/d/*", "/one"));
    forwarded_check(*state, cases, KB_ARRAY_LEN(cases));
}

static void test_host_rewrites(void **state)
{
    static const struct text_case cases[] = {
        {"GET /hf z|x-a: v", "GET /hf v.test|x-a: v|x-envoy-original-host: z"},
        {"GET /hf z", "GET /hf -.test|x-envoy-original-host: z"},
        {"GET /hl z", "GET /hl new.h|x-envoy-original-host: z|x-forwarded-host: z"},
        {"GET /hl z|x-forwarded-host: q",
         "GET /hl new.h|x-forwarded-host: q,z|x-envoy-original-host: z"},
        {"GET /hl z|x-forwarded-host: q,z",
         "GET /hl new.h|x-forwarded-host: q,z|x-envoy-original-host: z"},
        {"GET /hl z|x-forwarded-host: q, z",
         "GET /hl new.h|x-forwarded-host: q, z,z|x-envoy-original-host: z"},
        {"GET /hp/foo/x z", "GET /hp/foo/x foo|x-envoy-original-host: z"},
        {"GET /hp/ z", "GET /hp/ /hp/|x-envoy-original-host: z"},
        {"GET /hh z|x-new: nh", "GET /hh nh|x-new: nh|x-envoy-original-host: z"},
        {"GET /hh z", "GET /hh z"},
        {"GET /hw z", "GET /hw route.h|x-o: w|x-o: r|x-envoy-original-host: w.h"},
        {"GET /hv z", "GET /hv w.h"},
    };
    struct route_fixture *fixture = *state;
    struct kb_header_map *map;

    route_table_ok(
        fixture,
        ALL C("prefix: /hf", "host_rewrite: '%REQ(x-a)%.test'")
            C("prefix: /hl", "host_rewrite_literal: new.h, append_x_forwarded_host: true") C(
                "prefix: /hp", "host_rewrite_path_regex: {pattern: {regex: '^/hp/(.+)/.*$'}, "
                               "substitution: '\\1'}")
                C("prefix: /hh",
                  "host_rewrite_header: X-New") "  - {match: {prefix: /hw}, "
                                                "request_headers_to_add: "
                                                "[{header: {key: x-o, value: r}}], route: "
                                                "{host_rewrite_literal: route.h, "
                                                "weighted_clusters: "
                                                "{clusters: [{name: c, weight: 1, "
                                                "host_rewrite_literal: w.h, "
                                                "request_headers_to_add: "
                                                "[{header: {key: x-o, value: w}}]}]}}}\n"
                                                "  - {match: {prefix: /hv}, route: "
                                                "{weighted_clusters: {clusters: [{name: c, weight: "
                                                "1, "
                                                "host_rewrite_literal: w.h}]}}}\n" C(
                                                    "prefix: /auto",
                                                    "auto_host_rewrite: true, "
                                                    "append_x_forwarded_host: true"));
    forwarded_check(fixture, cases, KB_ARRAY_LEN(cases));

    map = route_request(fixture, "GET /auto z");
    assert_true(route_match(fixture, map)->auto_host_rewrite);
    kb_route_rewrite_host(route_match(fixture, map), map, KB_STR(""), false);
    assert_string_equal(route_text(fixture, map), "GET /auto z");
    kb_route_rewrite_host(route_match(fixture, map), map, KB_STR("localhost"), false);
    assert_string_equal(route_text(fixture, map),
                        "GET /auto localhost|x-envoy-original-host: z|x-forwarded-host: z");
}

static const char levels[] =
    "request_headers_to_add: [{header: {key: x-o, value: table}}]\n"
    "response_headers_to_add: [{header: {key: x-o, value: table}}]\n"
    "virtual_hosts:\n"
    "- name: v\n"
    "  domains: ['*']\n"
    "  request_headers_to_add: [{header: {key: x-o, value: vhost}}]\n"
    "  response_headers_to_add: [{header: {key: x-o, value: vhost}}]\n"
    "  routes:\n"
    "  - match: {prefix: /}\n"
    "    request_headers_to_add: [{header: {key: x-o, value: route}}]\n"
    "    response_headers_to_add: [{header: {key: x-o, value: route}}]\n"
    "    route:\n"
    "      prefix_rewrite: /n/\n"
    "      weighted_clusters:\n"
    "        clusters:\n"
    "        - name: c\n"
    "          weight: 1\n"
    "          request_headers_to_add: [{header: {key: x-o, value: choice}}]\n"
    "          response_headers_to_add: [{header: {key: x-o, value: choice}}]\n";

static void test_mutation_order(void **state)
{
    struct route_fixture *fixture = *state;
    struct kb_str reversed =
        kb_str_printf(&fixture->arena, "most_specific_header_mutations_wins: true\n%s", levels);

    route_table_ok(fixture, levels);
    assert_string_equal(forwarded(fixture, "GET /a z|x-o: client", false),
                        "GET /n/a z|x-o: client|x-o: choice|x-o: route|x-o: vhost|x-o: "
                        "table|x-envoy-original-path: /a");
    assert_string_equal(answered(fixture, "GET / z", "- - -|x-o: up"),
                        "200|x-o: up|x-o: choice|x-o: route|x-o: vhost|x-o: table");
    route_table_ok(fixture, reversed.p);
    assert_string_equal(forwarded(fixture, "GET /a z|x-o: client", true),
                        "GET /n/a z|x-o: client|x-o: choice|x-o: table|x-o: vhost|x-o: route");
    assert_string_equal(answered(fixture, "GET / z", "- - -|x-o: up"),
                        "200|x-o: up|x-o: choice|x-o: table|x-o: vhost|x-o: route");
}

static void test_mutation_actions(void **state)
{
    static const struct text_case cases[] = {
        {"GET /same z|x-1: q|x-2: q|x-4: q|x-6: q|x-7: z",
         "GET /same z|x-1: q|x-7: z|x-2: o2|x-4: v|x-1: a"},
        {"GET /same z", "GET /same z|x-2: o2|x-4: v|x-1: a|x-1: b"},
        {"GET /keep z", "GET /keep z|x-e: |x-f: |x-up: A|x-p: 50%"},
        {"GET /set z|x-foo: 1|user-agent: 2|a: b|x-foo: 3|x-request-id: 4",
         "GET /set z|a: b|x-foo: set|user-agent: set|x-request-id: set"},
        {"GET /join z|user-agent: a|accept: q", "GET /join z|user-agent: a,b|accept: q,r"},
        {"GET /join z", "GET /join z|user-agent: b|accept: r"},
    };

    route_table_ok(
        *state, ALL
        "  - match: {prefix: /same}\n    route: {cluster: c}\n    request_headers_to_remove: [X-6, "
        "x-2]\n"
        "    request_headers_to_add:\n"
        "    - {header: {key: x-1, value: a}}\n"
        "    - {header: {key: x-1, value: b}, append_action: ADD_IF_ABSENT}\n"
        "    - {header: {key: x-2, value: o1}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}\n"
        "    - {header: {key: x-2, value: o2}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}\n"
        "    - {header: {key: x-3, value: '%REQ(x-2)%'}}\n"
        "    - {header: {key: x-4, value: v}, append: false}\n"
        "    - {header: {key: x-5, value: v}, append_action: OVERWRITE_IF_EXISTS}\n"
        "  - match: {prefix: /keep}\n    route: {cluster: c}\n    request_headers_to_add:\n"
        "    - {header: {key: x-e, value: ''}, keep_empty_value: true}\n"
        "    - {header: {key: x-f, value: '%REQ(none)%'}, keep_empty_value: true}\n"
        "    - {header: {key: x-g, value: ''}}\n"
        "    - {header: {key: x-h, value: '%REQ(none)%'}}\n"
        "    - {header: {key: X-Up, value: A}}\n"
        "    - {header: {key: x-p, value: '50%%'}}\n"
        "  - match: {prefix: /set}\n    route: {cluster: c}\n    request_headers_to_add:\n"
        "    - {header: {key: x-foo, value: set}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}\n"
        "    - {header: {key: user-agent, value: set}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}\n"
        "    - {header: {key: x-request-id, value: set}, append_action: "
        "OVERWRITE_IF_EXISTS_OR_ADD}\n"
        "  - match: {prefix: /join}\n    route: {cluster: c}\n    request_headers_to_add:\n"
        "    - {header: {key: User-Agent, value: b}}\n"
        "    - {header: {key: accept, value: r}}\n");
    forwarded_check(*state, cases, KB_ARRAY_LEN(cases));
}

static void test_many_mutations(void **state)
{
    struct route_fixture *fixture = *state;
    struct kb_str yaml = KB_STR(
        ALL "  - match: {prefix: /}\n    route: {cluster: c}\n    request_headers_to_add:\n");
    struct kb_header_map *map = route_request(fixture, "GET / z");

    for (int i = 0; i < 100; i++) {
        yaml = kb_str_printf(&fixture->arena, "%.*s    - {header: {key: x-%d, value: '%d'}}\n",
                             KB_STR_ARG(yaml), i, i);
    }
    route_table_ok(fixture, yaml.p);
    kb_route_finalize_request(route_match(fixture, map), NULL, map, &fixture->info, false);
    assert_int_equal(map->live, 101);
    assert_true(kb_str_eq(kb_header_map_value(map, KB_STR("x-99")), KB_STR("99")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(test_path_rewrites),    ROUTE_TEST(test_uri_templates),
        ROUTE_TEST(test_host_rewrites),    ROUTE_TEST(test_mutation_order),
        ROUTE_TEST(test_mutation_actions), ROUTE_TEST(test_many_mutations),
    };

    return cmocka_run_group_tests_name("route_finalize", tests, NULL, NULL);
}
