/* SPDX-License-Identifier: Apache-2.0 */
/* The constraints of the descriptors, in the words that Envoy 1.40 has for them (recorded with
 * --mode validate). */
#include "tests/unit/proto/proto_test.h"

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "proto/pb_validate.h"

static void assert_violates(struct fixture *f, const char *type, const char *yaml,
                            const char *expected)
{
    const ProtobufCMessage *message = from_yaml(f, kb_pb_type_find(kb_str_from_cstr(type)), yaml);
    int rc;

    if (message == NULL) {
        fail_msg("%s: %s", yaml, reported(f));
    }
    rc = kb_pb_validate(message, &f->diag);
    assert_string_equal(reported(f), expected);
    assert_int_equal(rc, strstr(expected, "error: ") != NULL ? KB_ECONFIG : 0);
}

#define CLUSTER "envoy.config.cluster.v3.Cluster"
#define CHECK   "timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1"

static void test_text(void **state)
{
    struct fixture *f = *state;

    assert_violates(f, CLUSTER, "{name: c}", "");
    assert_violates(f, CLUSTER, "{}", "error: name: value length must be at least 1 characters\n");
    assert_violates(f, "envoy.config.core.v3.HealthCheck",
                    "{" CHECK ", http_health_check: {path: \"a\\nb\"}}",
                    "error: http_health_check.path: value does not match regex pattern "
                    "\"^[^\\x00-\\b\\n-\\x1f\\x7f]*$\"\n");
    assert_violates(f, "envoy.config.core.v3.HeaderValue", "{key: \"a b\", value: \"x\\ny\"}",
                    "error: value: value does not match regex pattern \"^[^\\x00\\n\\r]*$\"\n");
    assert_violates(f, "envoy.config.core.v3.HeaderValue", "{key: \"a\\r\"}",
                    "error: key: value does not match regex pattern \"^[^\\x00\\n\\r]*$\"\n");
    assert_violates(
        f, "envoy.config.route.v3.RouteMatch", "{path_separated_prefix: /a/}",
        "error: path_separated_prefix: value does not match regex pattern \"^[^?#]+[^?#/]$\"\n");
    assert_violates(f, "envoy.config.route.v3.RouteMatch", "{path_separated_prefix: /a}", "");
    assert_violates(f, "envoy.extensions.filters.http.router.v3.Router",
                    "{strict_check_headers: [x-foo]}",
                    "error: strict_check_headers[0]: value must be in list "
                    "[x-envoy-upstream-rq-timeout-ms x-envoy-upstream-rq-per-try-timeout-ms "
                    "x-envoy-max-retries x-envoy-retry-grpc-on x-envoy-retry-on]\n");
}

static void test_lenient_header_names_may_be_empty(void **state)
{
    assert_violates(*state, "envoy.config.route.v3.WeightedCluster.ClusterWeight", "{name: c}", "");
}

static void test_numbers(void **state)
{
    struct fixture *f = *state;

    assert_violates(f, "envoy.config.rbac.v3.Permission", "{any: false}",
                    "error: any: value must equal true\n");
    assert_violates(f, CLUSTER, "{name: c, ring_hash_lb_config: {minimum_ring_size: 99999999}}",
                    "error: ring_hash_lb_config.minimum_ring_size: value must be less than or "
                    "equal to 8388608\n");
    assert_violates(f, "envoy.config.endpoint.v3.LocalityLbEndpoints",
                    "{load_balancing_weight: 0, priority: 129}",
                    "error: load_balancing_weight: value must be greater than or equal to 1\n"
                    "error: priority: value must be less than or equal to 128\n");
    assert_violates(f, "envoy.type.v3.Percent", "{value: 100.5}",
                    "error: value: value must be inside range [0, 100]\n");
    assert_violates(f, "envoy.type.v3.Percent", "{value: NaN}",
                    "error: value: value must be inside range [0, 100]\n");
    assert_violates(f, "envoy.config.metrics.v3.HistogramBucketSettings",
                    "{match: {prefix: a}, buckets: [0, 1]}",
                    "error: buckets[0]: value must be greater than 0\n");
    assert_violates(f, CLUSTER, "{name: c, type: 99}",
                    "error: type: value must be one of the defined enum values\n");
}

static void test_durations(void **state)
{
    struct fixture *f = *state;

    assert_violates(f, CLUSTER, "{name: c, connect_timeout: 0s}",
                    "error: connect_timeout: value must be greater than 0s\n");
    assert_violates(f, CLUSTER, "{name: c, dns_refresh_rate: 0.0001s}",
                    "warning: dns_refresh_rate: Using deprecated option "
                    "'envoy.config.cluster.v3.Cluster.dns_refresh_rate'\n"
                    "error: dns_refresh_rate: value must be greater than 1ms\n");
    assert_violates(f, "envoy.config.bootstrap.v3.Bootstrap", "{stats_flush_interval: 400s}",
                    "error: stats_flush_interval: value must be inside range [1ms, 5m0s)\n");
    assert_violates(f, "envoy.config.bootstrap.v3.Bootstrap", "{stats_flush_interval: 299.9s}", "");
    assert_violates(f, CLUSTER, "{name: c, cleanup_interval: -1s}",
                    "error: cleanup_interval: Invalid duration: Expected positive duration\n"
                    "error: cleanup_interval: value must be greater than 0s\n");
}

static void test_presence(void **state)
{
    struct fixture *f = *state;

    assert_violates(
        f, "envoy.config.core.v3.HealthCheck", "{}",
        "error: health_checker is required (set one of http_health_check, tcp_health_check, "
        "grpc_health_check, custom_health_check)\n"
        "error: timeout: value is required\n"
        "error: interval: value is required\n"
        "error: unhealthy_threshold: value is required\n"
        "error: healthy_threshold: value is required\n");
    assert_violates(f, "envoy.config.core.v3.SocketAddress", "{address: a}",
                    "error: port_specifier is required (set one of port_value, named_port)\n");
}

static void test_lists_and_maps(void **state)
{
    struct fixture *f = *state;

    assert_violates(f, "envoy.config.overload.v3.OverloadAction", "{name: a}",
                    "error: triggers: value must contain at least 1 item(s)\n");
    assert_violates(f, "envoy.config.core.v3.Metadata", "{filter_metadata: {\"\": {}}}",
                    "error: filter_metadata[\"\"]: value length must be at least 1 characters\n");
    assert_violates(f, "envoy.config.listener.v3.FilterChainMatch", "{source_ports: [1, 0, 70000]}",
                    "error: source_ports[1]: value must be inside range [1, 65535]\n"
                    "error: source_ports[2]: value must be inside range [1, 65535]\n");
    assert_violates(f, "envoy.config.route.v3.InternalRedirectPolicy",
                    "{response_headers_to_copy: [a, b, a]}",
                    "error: response_headers_to_copy: repeated value must contain unique items\n");
    assert_violates(f, "xds.type.matcher.v3.Matcher.MatcherTree.MatchMap", "{}",
                    "error: map: value must contain at least 1 pair(s)\n");
}

static void test_deprecated_fields(void **state)
{
    struct fixture *f = *state;

    assert_violates(f, CLUSTER, "{name: c, max_requests_per_connection: 5}",
                    "warning: max_requests_per_connection: Using deprecated option "
                    "'envoy.config.cluster.v3.Cluster.max_requests_per_connection'\n");
    assert_violates(
        f, "envoy.config.route.v3.RateLimit.Action",
        "{dynamic_metadata: {descriptor_key: a, metadata_key: "
        "{key: k, path: [{key: x}]}}}",
        "error: dynamic_metadata: Using the deprecated and by default disallowed option "
        "'envoy.config.route.v3.RateLimit.Action.dynamic_metadata'\n");
}

static void test_paths_reach_down(void **state)
{
    struct fixture *f = *state;

    assert_violates(
        f, "envoy.config.bootstrap.v3.Bootstrap",
        "{static_resources: {clusters: [{name: c}, {name: \"\", load_assignment: {cluster_name: x, "
        "endpoints: "
        "[{lb_endpoints: [{endpoint: {address: {}}}]}]}}]}}",
        "error: static_resources.clusters[1].name: value length must be at least 1 characters\n"
        "error: "
        "static_resources.clusters[1].load_assignment.endpoints[0].lb_endpoints[0].endpoint."
        "address: "
        "address is required (set one of socket_address, pipe, envoy_internal_address)\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_text),
        TEST(test_numbers),
        TEST(test_lenient_header_names_may_be_empty),
        TEST(test_durations),
        TEST(test_presence),
        TEST(test_lists_and_maps),
        TEST(test_deprecated_fields),
        TEST(test_paths_reach_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
