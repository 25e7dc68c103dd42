/* SPDX-License-Identifier: Apache-2.0 */
/* From message to cluster: defaults, fields, and Envoy's reasons for what is wrong. */
#include "tests/unit/upstream/upstream_fixture.h"

#define ENDPOINTS \
    "'load_assignment':{'cluster_name':'c','endpoints':[{'lb_endpoints':[" ENDPOINT "]}]}"
#define ENDPOINT \
    "{'endpoint':{'address':{'socket_address':{'address':'127.0.0.1','port_value':80}}}}"
#define OPTIONS(text)                                                                              \
    "'typed_extension_protocol_options':{'envoy.extensions.upstreams.http.v3.HttpProtocolOptions'" \
    ":{"                                                                                           \
    "'@type':'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions'," text   \
    "}}"

static const struct kb_cluster *cluster_get(struct upstream *up, const char *name)
{
    const struct kb_cluster_entry *entry =
        kb_cluster_manager_find(up->manager, kb_str_from_cstr(name));

    assert_non_null(entry);
    return &entry->cluster->api;
}

static void defaults_are_envoys(void **state)
{
    struct upstream *up = *state;
    const struct kb_cluster *cluster;

    assert_int_equal(cluster_add(up, "{'name':'c'," ENDPOINTS "}"), 0);
    cluster = cluster_get(up, "c");
    assert_int_equal(cluster->connect_timeout_ms, 5000);
    assert_int_equal(cluster->idle_timeout_ms, 3600000);
    assert_int_equal(cluster->max_connection_duration_ms, 0);
    assert_int_equal(cluster->per_connection_buffer_limit_bytes, 1024 * 1024);
    assert_int_equal(cluster->max_requests_per_connection, 0);
    assert_int_equal(cluster->max_response_headers_bytes, 80 * 1024);
    assert_int_equal(cluster->max_response_headers_count, 100);
    assert_int_equal(cluster->bind_source_count, 0);
    assert_false(cluster->keepalive.set);
    assert_false(cluster->auto_host_rewrite_capable);
    for (unsigned p = 0; p < KB_PRIORITY_COUNT; p++) {
        assert_int_equal(cluster->limits[p].connections, 1024);
        assert_int_equal(cluster->limits[p].pending, 1024);
        assert_int_equal(cluster->limits[p].requests, 1024);
        assert_int_equal(cluster->limits[p].retries, 3);
        assert_false(cluster->limits[p].has_retry_budget);
    }
    assert_true(kb_str_eq(cluster->observability_name, KB_STR("c")));
}

static void fields_are_read(void **state)
{
    struct upstream *up = *state;
    const struct kb_cluster *cluster;

    assert_int_equal(
        cluster_add(up,
                    "{'name':'c','alt_stat_name':'x:y.z','connect_timeout':'0.25s','per_connection_"
                    "buffer_limit_bytes':77,"
                    "'circuit_breakers':{'thresholds':[{'max_connections':1,'max_pending_requests':"
                    "2,'max_requests':3,"
                    "'max_retries':4},{'max_connections':9},{'priority':'HIGH','max_retries':8,'"
                    "track_remaining':true,"
                    "'retry_budget':{'budget_percent':{'value':25},'min_retry_concurrency':7}}]},"
                    "'upstream_connection_options':{'tcp_keepalive':{'keepalive_probes':2,'"
                    "keepalive_time':30}},"
                    "'upstream_bind_config':{'source_address':{'address':'127.0.0.9','port_value':"
                    "0}}," ENDPOINTS "," OPTIONS(
                        "'common_http_protocol_options':{'idle_timeout':'0s','max_connection_"
                        "duration':'9s',"
                        "'max_headers_count':5,'max_response_headers_kb':2,'max_requests_per_"
                        "connection':6},"
                        "'explicit_http_config':{'http_protocol_options':{'enable_trailers':true,"
                        "'header_key_format':{'proper_case_words':{}}}}") "}"),
        0);
    cluster = cluster_get(up, "c");
    assert_int_equal(cluster->connect_timeout_ms, 250);
    assert_int_equal(cluster->per_connection_buffer_limit_bytes, 77);
    assert_int_equal(cluster->limits[0].connections, 1); /* the first entry of a priority holds */
    assert_int_equal(cluster->limits[0].pending, 2);
    assert_int_equal(cluster->limits[0].requests, 3);
    assert_int_equal(cluster->limits[0].retries, 4);
    assert_int_equal(cluster->limits[1].retries, 8);
    assert_int_equal(cluster->limits[1].connections, 1024);
    assert_true(cluster->limits[1].has_retry_budget);
    assert_int_equal(cluster->limits[1].retry_budget_min, 7);
    assert_true(cluster->keepalive.set);
    assert_int_equal(cluster->keepalive.probes, 2);
    assert_int_equal(cluster->keepalive.time_s, 30);
    assert_int_equal(cluster->keepalive.interval_s, 0);
    assert_int_equal(cluster->bind_sources[0].sa.sa_family, AF_INET);
    assert_int_equal(cluster->idle_timeout_ms, 0);
    assert_int_equal(cluster->max_connection_duration_ms, 9000);
    assert_int_equal(cluster->max_response_headers_count, 5);
    assert_int_equal(cluster->max_response_headers_bytes, 2048);
    assert_int_equal(cluster->max_requests_per_connection, 6);
    assert_true(cluster->http1.enable_trailers);
    assert_true(cluster->http1.proper_case_words);
    assert_true(kb_str_eq(cluster->observability_name, KB_STR("x:y.z")));
    assert_int_equal(stat_value(up, "cluster.x_y.z.membership_total"), 1);
    assert_int_equal(stat_value(up, "cluster.x_y.z.circuit_breakers.high.remaining_cx"), 1024);
    assert_int_equal(stat_value(up, "cluster.x_y.z.circuit_breakers.high.remaining_cx_pools"),
                     UINT64_MAX);
}

#define HINT \
    ". Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'\n"
static const struct {
    const char *json, *want;
} refused[] = {
    {"{'name':'c','load_assignment':{'cluster_name':'c','endpoints':[{'lb_endpoints':[{'"
     "endpoint':{'address':{"
     "'socket_address':{'address':'localhost','port_value':80}}}},{}]}]}}",
     "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address: malformed "
     "IP address: "
     "localhost" HINT
     "load_assignment.endpoints[0].lb_endpoints[1].endpoint.address: Address must be set" HINT},
    {"{'name':'c','load_assignment':{'cluster_name':'c','endpoints':[{'lb_endpoints':[{'"
     "endpoint':{'address':{"
     "'socket_address':{'address':'127.0.0.1','named_port':'http'}}}}]}]}}",
     "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address: IP "
     "resolver can't handle port "
     "specifier type 4" HINT},
    {"{'name':'c','lb_policy':'CLUSTER_PROVIDED'}",
     "lb_policy: cluster manager: cluster provided LB specified but cluster 'c' did not "
     "provide one. Check cluster "
     "documentation.\n"},
    {"{'name':'c','lb_policy':'LOAD_BALANCING_POLICY_CONFIG'}",
     "lb_policy: cluster: field load_balancing_policy need to be set\n"},
    {"{'name':'c','load_balancing_policy':{}}",
     "load_balancing_policy: cluster: didn't find a registered load balancer factory "
     "implementation for cluster: 'c' "
     "with names from []\n"},
    {"{'name':'c','type':'LOGICAL_DNS'}", ": LOGICAL_DNS clusters must have a single host\n"},
    {"{'name':'c','type':'LOGICAL_DNS','load_assignment':{'cluster_name':'c','endpoints':[]}}",
     "load_assignment: LOGICAL_DNS clusters must have a single locality_lb_endpoint and a "
     "single lb_endpoint\n"},
    {"{'name':'c','cluster_type':{'name':'nope'}}",
     "cluster_type: Didn't find a registered cluster factory implementation for name: "
     "'nope'\n"},
    {"{'name':'c','transport_socket':{'name':'nope'}}",
     "transport_socket: Didn't find a registered implementation for 'nope' with type URL: "
     "''\n"},
    {"{'name':'c','upstream_bind_config':{'source_address':{'address':'foo','port_value':0}}}",
     "upstream_bind_config.source_address: malformed IP address: foo\n"},
    {"{'name':'c','max_requests_per_connection':3," OPTIONS(
         "'common_http_protocol_options':{'max_requests_per_connection':4},'explicit_http_"
         "config':{"
         "'http_protocol_options':{}}") "}",
     ": Only one of max_requests_per_connection from Cluster or HttpProtocolOptions can be "
     "specified\n"},
    {"{'name':'c','typed_extension_protocol_options':{'nope':{'@type':"
     "'type.googleapis.com/envoy.config.cluster.v3.Cluster','name':'y'}}}",
     "typed_extension_protocol_options[\"nope\"]: Didn't find a registered network or http "
     "filter or protocol options "
     "implementation for name: 'nope'\n"},
    {"{'name':'c','http2_protocol_options':{},'http_protocol_options':{}}",
     ": cluster: Both HTTP1 and HTTP2 options may only be configured with non-default "
     "'protocol_selection' values\n"},
    {"{'name':'c','type':'STRICT_DNS','dns_failure_refresh_rate':{'base_interval':'5s','max_"
     "interval':'2s'}}",
     "dns_failure_refresh_rate: dns_failure_refresh_rate must have max_interval greater than "
     "or equal to the "
     "base_interval\n"},
    {"{'name':'c','type':'STRICT_DNS','dns_resolvers':[{'pipe':{'path':'/foo'}}]}",
     "dns_resolvers[0]: DNS resolver '/foo' is not an IP address\n"},
    /* All at once. */
    {"{'name':'c','type':'EDS','lb_policy':'MAGLEV','maglev_lb_config':{'table_size':100},'connect_"
     "timeout':'-1s','transport_socket_"
     "matches':[{'name':'x'}]}",
     "connect_timeout: Invalid duration: Expected positive duration: seconds: -1 nanos: 0\n"
     "transport_socket_matches[0]: field: \"transport_socket\", reason: is required\n"
     ": The table size of maglev must be prime number\n"
     "eds_cluster_config: cannot create an EDS cluster without an EDS config\n"},
};

static void wrong_ones_are_refused_with_envoys_reason(void **state)
{
    struct upstream *up = *state;

    for (size_t i = 0; i < KB_ARRAY_LEN(refused); i++) {
        assert_int_equal(cluster_add(up, refused[i].json), KB_ECONFIG);
        assert_string_equal(reported(up), refused[i].want);
        assert_false(kb_cluster_manager_has(up->manager, KB_STR("c")));
    }
    assert_int_equal(cluster_add(up, "{'name':'c'}"), 0);
    assert_int_equal(cluster_add(up, "{'name':'c'}"), KB_ECONFIG);
    assert_string_equal(reported(up), ": cluster manager: duplicate cluster 'c'\n");
}

static void http2_options_are_kept(void **state)
{
    struct upstream *up = *state;
    const struct kb_cluster *cluster;

    assert_int_equal(cluster_add(up, "{'name':'a'," OPTIONS(
                                         "'explicit_http_config':{'http2_protocol_options':{"
                                         "'initial_stream_window_size':65536,"
                                         "'connection_keepalive':{'interval':'30s','timeout':'5s'}"
                                         "}}") "}"),
                     0);
    cluster = cluster_get(up, "a");
    assert_true(cluster->http2.enabled);
    assert_non_null(cluster->http2_stats);
    assert_int_equal(cluster->http2.stream_window_bytes, 65536);
    assert_int_equal(cluster->http2.keepalive_interval_ms, 30000);
    assert_int_equal(cluster->http2.keepalive_timeout_ms, 5000);
    assert_int_equal(cluster->http2.keepalive_jitter_percent, 15);
    assert_int_equal(cluster_add(up, "{'name':'old','http2_protocol_options':{}}"), 0);
    assert_true(cluster_get(up, "old")->http2.enabled);
    assert_int_equal(
        cluster_add(
            up, "{'name':'q'," OPTIONS("'explicit_http_config':{'http3_protocol_options':{}}") "}"),
        KB_ECONFIG);
    assert_non_null(strstr(reported(up), "HTTP/3 to upstreams is not implemented"));
    assert_int_equal(cluster_add(up, "{'name':'b'," OPTIONS("'auto_config':{}") "}"), KB_ECONFIG);
    (void)reported(up);
    assert_int_equal(
        cluster_add(
            up, "{'name':'d'," OPTIONS("'use_downstream_protocol_config':{'http_protocol_options':{"
                                       "'enable_trailers':true}}") "}"),
        0);
    cluster = cluster_get(up, "d");
    assert_true(cluster->http1.enable_trailers);
    assert_true(cluster->http2.enabled);
    assert_false(kb_cluster_speaks_http2(cluster, KB_PROTOCOL_HTTP11));
    assert_true(kb_cluster_speaks_http2(cluster, KB_PROTOCOL_HTTP2));
}

static void hosts_are_read(void **state)
{
    struct upstream *up = *state;
    const struct kb_cluster_entry *entry;
    const struct kb_host_list *all;
    char text[KB_HOST_FLAGS_TEXT_MAX];

    assert_int_equal(
        cluster_add(up,
                    "{'name':'p','load_assignment':{'cluster_name':'p','endpoints':["
                    "{'priority':1,'lb_endpoints':[{'endpoint':{'address':{'pipe':{'path':'/tmp/"
                    "x'}},'hostname':'h'}}]},"
                    "{'locality':{'region':'r','zone':'z','sub_zone':'s'},'lb_endpoints':["
                    "{'health_status':'DEGRADED','load_balancing_weight':7,'endpoint':{'address':{'"
                    "socket_address':{"
                    "'address':'::1','port_value':81}}}},"
                    "{'health_status':'DRAINING','endpoint':{'address':{'socket_address':{'address'"
                    ":'127.0.0.2',"
                    "'port_value':82}}}},"
                    "{'health_status':'TIMEOUT','metadata':{'filter_metadata':{'envoy.lb':{'canary'"
                    ":true}}},'endpoint':{"
                    "'address':{'socket_address':{'address':'127.0.0.3','port_value':83}}}}]}]}}"),
        0);
    entry = kb_cluster_manager_find(up->manager, KB_STR("p"));
    all = &entry->set->sets[0].all;
    assert_int_equal(entry->set->count, 2);
    assert_int_equal(all->count, 3);
    assert_true(kb_str_eq(kb_host_addr_text(all->hosts[0]), KB_STR("[::1]:81")));
    assert_true(kb_str_eq(all->hosts[0]->locality->region, KB_STR("r")));
    assert_true(kb_str_eq(all->hosts[0]->locality->zone, KB_STR("z")));
    assert_true(kb_str_eq(all->hosts[0]->locality->sub_zone, KB_STR("s")));
    assert_int_equal(all->hosts[0]->weight, 7);
    assert_int_equal(all->hosts[1]->weight, 1);
    assert_true(
        kb_str_eq(kb_host_health_text(all->hosts[0], text), KB_STR("/degraded_eds_health")));
    assert_true(
        kb_str_eq(kb_host_health_text(all->hosts[1], text), KB_STR("/eds_status_draining")));
    assert_true(kb_str_eq(kb_host_health_text(all->hosts[2], text), KB_STR("/failed_eds_health")));
    assert_false(all->hosts[0]->canary);
    assert_true(all->hosts[2]->canary);
    assert_true(kb_host_metadata(all->hosts[2]).len > 0);
    all = &entry->set->sets[1].all;
    assert_true(kb_str_eq(kb_host_addr_text(all->hosts[0]), KB_STR("/tmp/x")));
    assert_true(kb_str_eq(kb_host_hostname(all->hosts[0]), KB_STR("h")));
    assert_true(kb_str_eq(kb_host_health_text(all->hosts[0], text), KB_STR("healthy")));
    upstream_start(up);
    assert_int_equal(stat_value(up, "cluster.p.membership_total"), 4);
    assert_int_equal(stat_value(up, "cluster.p.membership_healthy"), 1);
    assert_int_equal(stat_value(up, "cluster.p.membership_degraded"), 1);
    assert_int_equal(stat_value(up, "cluster.p.membership_excluded"), 1);
    assert_int_equal(stat_value(up, "cluster.p.membership_change"), 2); /* one for each priority */
    assert_int_equal(stat_value(up, "cluster.p.default.total_match_count"), 4);
    assert_int_equal(stat_value(up, "cluster.p.max_host_weight"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UPSTREAM_TEST(defaults_are_envoys),
        UPSTREAM_TEST(fields_are_read),
        UPSTREAM_TEST(wrong_ones_are_refused_with_envoys_reason),
        UPSTREAM_TEST(http2_options_are_kept),
        UPSTREAM_TEST(hosts_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
