/* SPDX-License-Identifier: Apache-2.0 */
/* What a route table refuses, in Envoy 1.40's words, and what it takes over from its message. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proxy/router/retry_state.h"
#include "tests/unit/router/route_fixture.h"

#define VHOST(rest)  "name: RC\nvirtual_hosts:\n- name: v\n  domains: ['*']\n" rest
#define ROUTE(rest)  VHOST("  routes:\n  - " rest "\n")
#define ACTION(rest) ROUTE("{match: {prefix: /}, route: {cluster: c, " rest "}}")
#define MATCH(rest)  ROUTE("{match: {" rest "}, route: {cluster: c}}")
#define HEADER(rest) MATCH("prefix: /, headers: [{name: x, " rest "}]")
#define TEMPLATE(path, rest)                                                                       \
    ROUTE(                                                                                         \
        "{match: {path_match_policy: {name: x, typed_config: {'@type': "                           \
        "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, " \
        "path_template: '" path "'}}}, route: {cluster: c, " rest "}}")
#define REWRITE(pattern)                                                                           \
    "path_rewrite_policy: {name: r, typed_config: {'@type': "                                      \
    "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, " \
    "path_template_rewrite: '" pattern "'}}"
#define FILTER(rest)                                                                               \
    ROUTE(                                                                                         \
        "{match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {foo: {'@type': " rest \
        "}}}")
#define FILTER_CONFIG "type.googleapis.com/envoy.config.route.v3.FilterConfig"
#define WILD(path)    "virtual_hosts[0].routes[0]." path

struct error_case {
    const char *yaml;
    const char *path; /* where, or NULL: it is accepted */
    const char *text;
};

static const struct error_case domain_cases[] = {
    {VHOST("- {name: w, domains: ['*']}"), "virtual_hosts[1].domains[0]",
     "Only a single wildcard domain is permitted in route RC"},
    {"name: RC\nvirtual_hosts: [{name: v, domains: [a.b]}, {name: w, domains: [A.B]}]",
     "virtual_hosts[1].domains[0]",
     "Only unique values for domains are permitted. Duplicate entry of domain a.b in route RC"},
    {"name: RC\nvirtual_hosts: [{name: v, domains: ['*.b']}, {name: w, domains: ['*.b']}]",
     "virtual_hosts[1].domains[0]",
     "Only unique values for domains are permitted. Duplicate entry of domain *.b in route RC"},
    {"name: RC\nvirtual_hosts: [{name: v, domains: ['b.*', 'b.*']}]", "virtual_hosts[0].domains[1]",
     "Only unique values for domains are permitted. Duplicate entry of domain b.* in route RC"},
    {"virtual_hosts: [{name: v, domains: [a]}, {name: v, domains: ['b', 'a*b', '*a*', '']}]", NULL,
     ""},
    {VHOST("  matcher: {}\n  routes: [{match: {prefix: /}, route: {cluster: c}}]"),
     "virtual_hosts[0].matcher", "cannot set both matcher and routes on virtual host"},
    {VHOST("  virtual_clusters: [{name: x}]"), "virtual_hosts[0].virtual_clusters[0]",
     "virtual clusters must define 'headers'"},
};

static const struct error_case cluster_cases[] = {
    {ROUTE("{match: {prefix: /}, route: {cluster: nope}}"), WILD("route"),
     "route: unknown cluster 'nope'"},
    {"validate_clusters: false\n" ROUTE("{match: {prefix: /}, route: {cluster: nope}}"), NULL, ""},
    {ROUTE(
         "{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: nope, weight: 1}]}}}"),
     "virtual_hosts[0].routes[0].route.weighted_clusters.clusters[0]",
     "route: unknown weighted cluster 'nope'"},
    {ROUTE("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: c, weight: 0}]}}}"),
     WILD("route.weighted_clusters"),
     "Sum of weights in the weighted_cluster must be greater than 0."},
    {ROUTE("{match: {prefix: /}, name: q, route: {weighted_clusters: {clusters: [{name: c, weight: "
           "4294967295}, {name: "
           "c1, weight: 1}]}}}"),
     WILD("route.weighted_clusters"),
     "The sum of weights of all weighted clusters of route q exceeds 4294967295"},
    {ROUTE("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: c, cluster_header: "
           "x, weight: 1}]}}}"),
     WILD("route.weighted_clusters.clusters[0]"),
     "Only one of name or cluster_header can be specified"},
    {ROUTE("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{weight: 1}]}}}"),
     WILD("route.weighted_clusters.clusters[0]"),
     "At least one of name or cluster_header need to be specified"},
    {ROUTE("{match: {prefix: /}, route: {cluster_specifier_plugin: foo}}"), WILD("route"),
     "Unknown cluster specifier plugin name: foo is used in the route"},
    {ACTION("request_mirror_policies: [{}]"), WILD("route.request_mirror_policies[0]"),
     "Exactly one of cluster or cluster_header in request mirror policy need to be specified"},
    {ACTION("request_mirror_policies: [{cluster: c, cluster_header: x}]"),
     WILD("route.request_mirror_policies[0]"),
     "Only one of cluster 'c' or cluster_header 'x' in request mirror policy can be specified"},
    {ACTION("request_mirror_policies: [{cluster: nope}]"), WILD("route.request_mirror_policies[0]"),
     "route: unknown shadow cluster 'nope'"},
};

static const struct error_case match_cases[] = {
    {MATCH("safe_regex: {regex: '('}"), WILD("match.safe_regex"), "missing ): ("},
    {MATCH("safe_regex: {google_re2: {max_program_size: 10}, regex: '/abcdefghijklmnop.*'}"),
     WILD("match.safe_regex"),
     "regex '/abcdefghijklmnop.*' RE2 program size of 23 > max program size of 10. Increase "
     "configured max program "
     "size if necessary."},
    {MATCH("safe_regex: {regex: "
           "'((a1|b1)(a2|b2)(a3|b3)(a4|b4)(a5|b5)(a6|b6)(a7|b7)(a8|b8)(a9|b9)(c1|d1)){3}'}"),
     WILD("match.safe_regex"),
     " set for the error level threshold. Increase configured max program size if necessary."},
    {HEADER("safe_regex_match: {regex: '['}"), WILD("match.headers[0].safe_regex_match"),
     "missing ]: ["},
    {HEADER("string_match: {safe_regex: {regex: '['}}"),
     WILD("match.headers[0].string_match.safe_regex"), "missing ]: ["},
    {HEADER("string_match: {ignore_case: true, safe_regex: {regex: a}}"),
     WILD("match.headers[0].string_match"), "ignore_case has no effect for safe_regex."},
    {HEADER("string_match: {custom: {name: x, typed_config: {'@type': "
            "type.googleapis.com/google.protobuf.Struct}}}"),
     WILD("match.headers[0].string_match"),
     "Didn't find a registered implementation for 'x' with type URL: 'google.protobuf.Struct'"},
    {HEADER("exact_match: ''"), NULL, ""},
    {TEMPLATE("/a/{b", "timeout: 1s"), WILD("match.path_match_policy"),
     "path_match_policy.path_template /a/{b is invalid: Unmatched variable bracket in mixed "
     "pattern: \"{b\""},
    {TEMPLATE("/{a}-{b}", "timeout: 1s"), WILD("match.path_match_policy"),
     "path_match_policy.path_template /{a}-{b} is invalid: Invalid suffix literal: \"-{b}\""},
    {TEMPLATE("/**/*", "timeout: 1s"), WILD("match.path_match_policy"),
     "path_match_policy.path_template /**/* is invalid: Glob after text glob."},
    {TEMPLATE("/{b=**}/{c}", "timeout: 1s"), WILD("match.path_match_policy"),
     "path_match_policy.path_template /{b=**}/{c} is invalid: Implicit variable path glob after "
     "text glob."},
    {TEMPLATE("/a/{b=}", "timeout: 1s"), WILD("match.path_match_policy"),
     "path_match_policy.path_template /a/{b=} is invalid: Empty variable match"},
    {TEMPLATE("/a/{1b}", "timeout: 1s"), WILD("match.path_match_policy"),
     "path_match_policy.path_template /a/{1b} is invalid: Invalid variable name: \"1b\""},
    {TEMPLATE("/{a}/{a}", "timeout: 1s"), WILD("match.path_match_policy"),
     "path_match_policy.path_template /{a}/{a} is invalid: Repeated variable name: \"a\""},
    {TEMPLATE("/a//b", "timeout: 1s"), WILD("match.path_match_policy"),
     "path_match_policy.path_template /a//b is invalid: Invalid literal: \"\""},
    {TEMPLATE("/{a}/{b}/{c}/{d}/{e}/{f}", "timeout: 1s"), WILD("match.path_match_policy"),
     "path_match_policy.path_template /{a}/{b}/{c}/{d}/{e}/{f} is invalid: Exceeded variable count "
     "limit (5)"},
    {TEMPLATE("/a/**x/y", "timeout: 1s"), WILD("match.path_match_policy"),
     "path_match_policy.path_template /a/**x/y is invalid: Prefix match not supported."},
    {TEMPLATE("/a.{b}.c", "timeout: 1s"), NULL, ""},
    {TEMPLATE("/a/{b}*", "timeout: 1s"), NULL, ""},
};

static const struct error_case rewrite_cases[] = {
    {ACTION("prefix_rewrite: /a, path_rewrite: /b"), WILD("route"),
     "Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy"},
    {ACTION("regex_rewrite: {pattern: {regex: '('}, substitution: b}"),
     WILD("route.regex_rewrite.pattern"), "missing ): ("},
    {ACTION("regex_rewrite: {pattern: {regex: a}, substitution: '\\3'}"), NULL, ""},
    {ACTION("host_rewrite_path_regex: {pattern: {regex: '('}, substitution: b}"),
     WILD("route.host_rewrite_path_regex.pattern"), "missing ): ("},
    {ACTION("path_rewrite: '%NOPE%'"), WILD("route.path_rewrite"),
     "Not supported field in StreamInfo: NOPE"},
    {ACTION("host_rewrite: '%NOPE%'"), WILD("route.host_rewrite"),
     "Not supported field in StreamInfo: NOPE"},
    {TEMPLATE("/a/{b}", "prefix_rewrite: /x"), WILD("route"),
     "Cannot use prefix_rewrite with matcher extension"},
    {TEMPLATE("/a/{b}", REWRITE("/x/{c}")), WILD("route.path_rewrite_policy"),
     "mismatch between variables in path_match_policy /a/{b} and path_rewrite_policy /x/{c}"},
    {TEMPLATE("/a/{b}", REWRITE("/x//{b}")), WILD("route.path_rewrite_policy"),
     "path_rewrite_policy.path_template_rewrite /x//{b} is invalid"},
    {TEMPLATE("/a/{b}", REWRITE("/x/{b=*}")), WILD("route.path_rewrite_policy"),
     "path_rewrite_policy.path_template_rewrite /x/{b=*} is invalid"},
    {TEMPLATE("/a/{b}", REWRITE("/x{b}y")), NULL, ""},
    {ACTION(REWRITE("/x/{a}")), WILD("route.path_rewrite_policy"),
     "unable to use envoy.path.rewrite.uri_template.uri_template_rewriter extension without "
     "envoy.path.match.uri_template.uri_template_matcher extension"},
    {ROUTE("{match: {prefix: /}, redirect: {regex_rewrite: {pattern: {regex: '('}, substitution: "
           "b}}}"),
     WILD("redirect.regex_rewrite.pattern"), "missing ): ("},
};

static const struct error_case header_cases[] = {
    {ROUTE("{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: "
           "':path', value: x}}]}"),
     WILD("request_headers_to_add[0]"), ":-prefixed or host headers may not be modified"},
    {ROUTE("{match: {prefix: /}, route: {cluster: c}, response_headers_to_add: [{header: {key: "
           "Host, value: x}}]}"),
     WILD("response_headers_to_add[0]"), ":-prefixed or host headers may not be modified"},
    {ROUTE("{match: {prefix: /}, route: {cluster: c}, request_headers_to_remove: [a, HOST]}"),
     WILD("request_headers_to_remove[1]"), ":-prefixed or host headers may not be removed"},
    {ROUTE("{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, "
           "value: '%NOPE%'}}]}"),
     WILD("request_headers_to_add[0].header.value"), "Not supported field in StreamInfo: NOPE"},
    {ROUTE("{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, "
           "value: b}, append: "
           "true, append_action: ADD_IF_ABSENT}]}"),
     WILD("request_headers_to_add[0]"),
     "Both append and append_action are set and it's not allowed"},
    {ACTION("internal_redirect_policy: {response_headers_to_copy: [host]}"),
     WILD("route.internal_redirect_policy.response_headers_to_copy[0]"),
     ":-prefixed headers or Hosts may not be specified here."},
    {FILTER("type.googleapis.com/google.protobuf.Struct, value: {}"),
     WILD("typed_per_filter_config[\"foo\"]"),
     "Didn't find a registered implementation for 'foo' with type URL: 'google.protobuf.Struct'"},
    {FILTER(FILTER_CONFIG
            ", is_optional: true, config: {'@type': type.googleapis.com/google.protobuf.Struct}"),
     NULL, ""},
    {FILTER(FILTER_CONFIG ", disabled: true"), NULL, ""},
    {FILTER(FILTER_CONFIG), WILD("typed_per_filter_config[\"foo\"]"),
     "Empty route/virtual host per filter configuration for foo filter"},
    {FILTER("type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"),
     WILD("typed_per_filter_config[\"foo\"]"),
     "The filter foo doesn't support virtual host or route specific configurations"},
};

static const struct error_case policy_cases[] = {
    {ACTION("retry_policy: {retry_priority: {name: p, typed_config: {'@type': "
            "type.googleapis.com/"
            "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig, "
            "update_frequency: 2}}}"),
     NULL, ""},
    {ACTION("retry_policy: {retry_priority: {name: p}}"), WILD("route.retry_policy.retry_priority"),
     "Didn't find a registered implementation for 'p' with type URL: ''"},
    {ACTION("retry_policy: {retry_back_off: {base_interval: 1s, max_interval: 0.5s}}"),
     WILD("route.retry_policy.retry_back_off"),
     "retry_policy.max_interval must greater than or equal to the base_interval"},
    {ACTION("retry_policy: {retry_on: '5xx,foo'}"), NULL, ""},
    {ACTION("retry_policy: {retry_host_predicate: [{name: "
            "envoy.retry_host_predicates.previous_hosts}]}"),
     WILD("route.retry_policy.retry_host_predicate[0]"),
     "Didn't find a registered implementation for 'envoy.retry_host_predicates.previous_hosts' "
     "with type URL: ''"},
    {ACTION("upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: WebSocket}]"),
     WILD("route.upgrade_configs[1]"), "Duplicate upgrade WebSocket"},
    {ACTION("upgrade_configs: [{upgrade_type: websocket, connect_config: {}}]"),
     WILD("route.upgrade_configs[0]"), "Non-CONNECT upgrade type websocket has ConnectConfig"},
    {ACTION("upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]"), NULL, ""},
    {ACTION("hash_policy: [{header: {header_name: x, regex_rewrite: {pattern: {regex: '('}, "
            "substitution: ''}}}]"),
     WILD("route.hash_policy[0]"), "missing ): ("},
    {ACTION("timeout: -1s"), WILD("route.timeout"), "Invalid duration: Expected positive duration"},
};

static void cases_check(struct route_fixture *fixture, const struct error_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct kb_route_config *config = route_table(fixture, cases[i].yaml);
        const char *reported = route_reported(fixture);
        struct kb_str start;

        if (cases[i].path == NULL) {
            if (config == NULL || reported[0] != '\0') {
                fail_msg("%s\n  must be accepted, but %s", cases[i].yaml, reported);
            }
            continue;
        }
        start = kb_str_printf(&fixture->arena, "%s: ", cases[i].path);
        if (config != NULL || strstr(reported, start.p) != reported ||
            strstr(reported, cases[i].text) == NULL) {
            fail_msg("%s\n  expected %s: %s\n  got      %s", cases[i].yaml, cases[i].path,
                     cases[i].text, reported);
        }
    }
}

static void test_errors(void **state)
{
    cases_check(*state, domain_cases, KB_ARRAY_LEN(domain_cases));
    cases_check(*state, cluster_cases, KB_ARRAY_LEN(cluster_cases));
    cases_check(*state, match_cases, KB_ARRAY_LEN(match_cases));
    cases_check(*state, rewrite_cases, KB_ARRAY_LEN(rewrite_cases));
    cases_check(*state, header_cases, KB_ARRAY_LEN(header_cases));
    cases_check(*state, policy_cases, KB_ARRAY_LEN(policy_cases));
}

/* A file of that many bytes; the caller frees the name. */
static char *file_of(size_t size)
{
    char *name = strdup("/tmp/kobune_body_XXXXXX");
    int fd = mkstemp(name);

    assert_true(fd >= 0);
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(write(fd, "x", 1), 1);
    }
    close(fd);
    return name;
}

static const char *body_result(struct route_fixture *fixture, const char *table, const char *body)
{
    struct kb_str yaml = kb_str_printf(
        &fixture->arena, "%s\n%s{match: {prefix: /}, direct_response: {status: 200, body: {%s}}}\n",
        table, VHOST("  routes:\n  - "), body);
    struct kb_str text;
    struct kb_str location;
    struct kb_header_map *map = route_request(fixture, "GET / h");

    if (route_table(fixture, yaml.p) == NULL) {
        return route_reported(fixture);
    }
    (void)kb_route_direct_response(route_match(fixture, map), map, &text, &location);
    return kb_str_printf(&fixture->arena, "%zu", text.len).p;
}

static void test_bodies(void **state)
{
    struct route_fixture *fixture = *state;
    char *large = file_of(5000);
    char *small = file_of(12);
    const char *at = "virtual_hosts[0].routes[0].direct_response.body: ";
    struct kb_str x;

    x = kb_str_printf(&fixture->arena, "inline_string: %04096d", 0);
    assert_string_equal(body_result(fixture, "", x.p), "4096");
    x = kb_str_printf(&fixture->arena, "inline_string: %04097d", 0);
    assert_string_equal(body_result(fixture, "", x.p) + strlen(at),
                        "response body size is 4097 bytes; maximum is 4096\n");
    assert_string_equal(
        body_result(fixture, "max_direct_response_body_size_bytes: 2", "inline_string: xxx") +
            strlen(at),
        "response body size is 3 bytes; maximum is 2\n");
    assert_string_equal(body_result(fixture, "", "filename: /nonexistent/kobune") + strlen(at),
                        "file /nonexistent/kobune does not exist\n");
    x = kb_str_printf(&fixture->arena, "filename: %s", large);
    assert_string_equal(
        body_result(fixture, "", x.p) + strlen(at),
        kb_str_printf(&fixture->arena, "file %s size is 5000 bytes; maximum is 4096\n", large).p);
    x = kb_str_printf(&fixture->arena, "filename: %s", small);
    assert_string_equal(body_result(fixture, "", x.p), "12");
    assert_string_equal(body_result(fixture, "", "environment_variable: KOBUNE_NOT_SET") +
                            strlen(at),
                        "Environment variable doesn't exist: KOBUNE_NOT_SET\n");
    unlink(large);
    unlink(small);
    free(large);
    free(small);
}

static void test_all_errors_at_once(void **state)
{
    struct route_fixture *fixture = *state;

    assert_null(route_table(
        fixture,
        VHOST("  routes:\n  - {match: {safe_regex: {regex: '('}}, route: {cluster: nope}}\n"
              "  - {match: {prefix: /}, route: {cluster: nope2, timeout: -1s}}\n")));
    assert_int_equal(fixture->diag.error_count, 4);
}

static void test_defaults(void **state)
{
    struct route_fixture *fixture = *state;
    const struct kb_route *route;

    route_table_ok(fixture, MATCH("prefix: /"));
    route = route_match(fixture, route_request(fixture, "GET / h"));
    assert_int_equal(route->kind, KB_ROUTE_CLUSTER);
    assert_int_equal(route->timeout_ms, 15000);
    assert_false(route->timeout_set || route->idle_timeout_set || route->max_stream_duration_set);
    assert_int_equal(route->cluster_not_found_status, 503);
    assert_int_equal(route->priority, KB_PRIORITY_DEFAULT);
    assert_true(route->request_body_buffer_limit == UINT64_MAX);
    assert_true(route->flush_timeout_ms == UINT64_MAX);
    assert_null(route->retry);
    assert_null(route->policies);
    assert_null(route->upgrades);
}

static void test_settings(void **state)
{
    struct route_fixture *fixture = *state;
    const struct kb_route *route;
    const struct kb_route_policies *policies;

    route_table_ok(
        fixture,
        VHOST("  include_request_attempt_count: true\n  include_attempt_count_in_response: true\n"
              "  request_body_buffer_limit: 77\n"
              "  retry_policy: {retry_on: '5xx,cancelled', num_retries: 0}\n  routes:\n"
              "  - match: {prefix: /own}\n    per_request_buffer_limit_bytes: 5\n    route:\n      "
              "cluster: c\n"
              "      timeout: 0s\n      idle_timeout: 1.5s\n      priority: HIGH\n      "
              "cluster_not_found_response_code: NOT_FOUND\n"
              "      max_stream_duration: {max_stream_duration: 2s, grpc_timeout_header_max: 0s}\n"
              "      retry_policy: {retry_on: reset, num_retries: 3, per_try_timeout: 0.25s, "
              "host_selection_retry_max_attempts: 5,\n"
              "        retry_host_predicate: [{name: p, typed_config: {'@type': "
              "type.googleapis.com/"
              "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}],\n"
              "        retry_back_off: {base_interval: 0.0001s}}\n"
              "      internal_redirect_policy: {max_internal_redirects: 2, "
              "redirect_response_codes: [301, 308, 200]}\n"
              "      request_mirror_policies: [{cluster: c1, runtime_fraction: {default_value: "
              "{numerator: 5, denominator: MILLION}}}]\n"
              "      upgrade_configs: [{upgrade_type: WebSocket, enabled: false}]\n"
              "  - {match: {prefix: /}, route: {cluster: c}}\n"));
    route = route_match(fixture, route_request(fixture, "GET /own h"));
    assert_true(route->timeout_set && route->timeout_ms == 0);
    assert_int_equal(route->idle_timeout_ms, 1500);
    assert_int_equal(route->priority, KB_PRIORITY_HIGH);
    assert_int_equal(route->cluster_not_found_status, 404);
    assert_int_equal(route->max_stream_duration_ms, 2000);
    assert_true(route->grpc_timeout_header_max_set && route->grpc_timeout_header_max_ms == 0);
    assert_int_equal(route->request_body_buffer_limit,
                     77); /* the new field wins, wherever it stands */
    assert_int_equal(route->retry->retry_on, KB_RETRY_ON_RESET);
    assert_int_equal(route->retry->num_retries, 3);
    assert_int_equal(route->retry->per_try_timeout_ms, 250);
    assert_int_equal(route->retry->base_interval_ms, 1);
    assert_int_equal(route->retry->host_selection_attempts, 5);
    assert_true(route->retry->previous_hosts);
    policies = route->policies;
    assert_int_equal(policies->internal_redirect->max_redirects, 2);
    assert_int_equal(policies->internal_redirect->codes, 1 | 1 << 7);
    assert_int_equal(policies->mirror_count, 1);
    assert_int_equal(policies->mirrors[0].denominator, 1000000);
    assert_true(kb_str_eq(route->upgrades[0].name, KB_STR("websocket")) &&
                !route->upgrades[0].enabled);
    assert_int_equal(route->upgrades[1].name.len, 0);
    route = route_match(fixture, route_request(fixture, "GET /x h"));
    assert_int_equal(route->retry->retry_on, KB_RETRY_ON_5XX | KB_RETRY_ON_GRPC_CANCELLED);
    assert_int_equal(route->retry->num_retries, 0);
    assert_true(route->include_attempt_count_request && route->include_attempt_count_response);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(test_errors),   ROUTE_TEST(test_bodies),   ROUTE_TEST(test_all_errors_at_once),
        ROUTE_TEST(test_defaults), ROUTE_TEST(test_settings),
    };

    return cmocka_run_group_tests_name("route_config", tests, NULL, NULL);
}
