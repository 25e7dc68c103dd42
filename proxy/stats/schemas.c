/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of names behind the schemas, made from the .def lists, and which of them the admin
 * listener does not have. */
#include "proxy/stats/stat_internal.h"

#define KIND_COUNTER        KB_STAT_COUNTER, false
#define KIND_GAUGE          KB_STAT_GAUGE, false
#define KIND_HISTOGRAM      KB_STAT_HISTOGRAM, false
#define KIND_LAZY_COUNTER   KB_STAT_COUNTER, true
#define KIND_LAZY_GAUGE     KB_STAT_GAUGE, true
#define KIND_LAZY_HISTOGRAM KB_STAT_HISTOGRAM, true
#define X(ID, name, kind)   {name, KIND_##kind},

static const struct kb_stat_def cluster_defs[] = {
#include "proxy/stats/cluster.def"
};
static const struct kb_stat_def http_defs[] = {
#include "proxy/stats/http.def"
};
static const struct kb_stat_def http1_defs[] = {
#include "proxy/stats/http1.def"
};
static const struct kb_stat_def http2_defs[] = {
#include "proxy/stats/http2.def"
};
static const struct kb_stat_def remaining_defs[] = {
#include "proxy/stats/remaining.def"
};
static const struct kb_stat_def ecds_defs[] = {
#include "proxy/stats/ecds.def"
};
static const struct kb_stat_def rds_defs[] = {
#include "proxy/stats/rds.def"
};
static const struct kb_stat_def listener_defs[] = {
#include "proxy/stats/listener.def"
};
static const struct kb_stat_def listener_http_defs[] = {
#include "proxy/stats/listener_http.def"
};
static const struct kb_stat_def listener_worker_defs[] = {
#include "proxy/stats/listener_worker.def"
};
static const struct kb_stat_def listener_manager_defs[] = {
#include "proxy/stats/listener_manager.def"
};
static const struct kb_stat_def cluster_manager_defs[] = {
#include "proxy/stats/cluster_manager.def"
};
static const struct kb_stat_def tcp_defs[] = {
#include "proxy/stats/tcp.def"
};
static const struct kb_stat_def cluster_sizes_defs[] = {
#include "proxy/stats/cluster_sizes.def"
};
static const struct kb_stat_def cluster_budgets_defs[] = {
#include "proxy/stats/cluster_budgets.def"
};
static const struct kb_stat_def dns_defs[] = {
#include "proxy/stats/dns.def"
};
static const struct kb_stat_def filesystem_defs[] = {
#include "proxy/stats/filesystem.def"
};
static const struct kb_stat_def access_log_defs[] = {
#include "proxy/stats/access_log.def"
};
static const struct kb_stat_def runtime_defs[] = {
#include "proxy/stats/runtime.def"
};
static const struct kb_stat_def subscription_defs[] = {
#include "proxy/stats/subscription.def"
};
static const struct kb_stat_def control_plane_defs[] = {
#include "proxy/stats/control_plane.def"
};
static const struct kb_stat_def server_defs[] = {
#include "proxy/stats/server.def"
};
static const struct kb_stat_def watchdog_defs[] = {
#include "proxy/stats/watchdog.def"
};
static const struct kb_stat_def kobune_defs[] = {
#include "proxy/stats/kobune.def"
};
static const struct kb_stat_def virtual_cluster_defs[] = {
#include "proxy/stats/virtual_cluster.def"
};
static const struct kb_stat_def async_client_defs[] = {
#include "proxy/stats/async_client.def"
};
static const struct kb_stat_def thread_local_cluster_manager_defs[] = {
#include "proxy/stats/thread_local_cluster_manager.def"
};
static const struct kb_stat_def overload_defs[] = {
#include "proxy/stats/overload.def"
};
static const struct kb_stat_def rbac_defs[] = {
#include "proxy/stats/rbac.def"
};
static const struct kb_stat_def rbac_shadow_defs[] = {
#include "proxy/stats/rbac_shadow.def"
};
static const struct kb_stat_def fault_defs[] = {
#include "proxy/stats/fault.def"
};
static const struct kb_stat_def cors_defs[] = {
#include "proxy/stats/cors.def"
};
static const struct kb_stat_def csrf_defs[] = {
#include "proxy/stats/csrf.def"
};
static const struct kb_stat_def health_check_filter_defs[] = {
#include "proxy/stats/health_check_filter.def"
};
static const struct kb_stat_def health_check_defs[] = {
#include "proxy/stats/health_check.def"
};
static const struct kb_stat_def health_checks_defs[] = {
#include "proxy/stats/health_checks.def"
};
static const struct kb_stat_def outlier_detection_defs[] = {
#include "proxy/stats/outlier_detection.def"
};
static const struct kb_stat_def jwt_authn_defs[] = {
#include "proxy/stats/jwt_authn.def"
};
static const struct kb_stat_def ssl_defs[] = {
#include "proxy/stats/ssl.def"
};
static const struct kb_stat_def ssl_socket_factory_defs[] = {
#include "proxy/stats/ssl_socket_factory.def"
};

static const struct kb_stat_def tls_inspector_defs[] = {
#include "proxy/stats/tls_inspector.def"
};
static const struct kb_stat_def http_inspector_defs[] = {
#include "proxy/stats/http_inspector.def"
};
static const struct kb_stat_def proxy_proto_defs[] = {
#include "proxy/stats/proxy_proto.def"
};

#undef X

/* Histograms are counted at compile time: each list is a sum of zeros and ones. */
#define COUNT_COUNTER        0
#define COUNT_GAUGE          0
#define COUNT_HISTOGRAM      1
#define COUNT_LAZY_COUNTER   0
#define COUNT_LAZY_GAUGE     0
#define COUNT_LAZY_HISTOGRAM 1
#define X(ID, name, kind)    +COUNT_##kind

const struct kb_stat_schema kb_stat_schema_cluster = {cluster_defs, KB_ARRAY_LEN(cluster_defs), 0
#include "proxy/stats/cluster.def"
};
const struct kb_stat_schema kb_stat_schema_http = {http_defs, KB_ARRAY_LEN(http_defs), 0
#include "proxy/stats/http.def"
};
const struct kb_stat_schema kb_stat_schema_http1 = {http1_defs, KB_ARRAY_LEN(http1_defs), 0
#include "proxy/stats/http1.def"
};
const struct kb_stat_schema kb_stat_schema_http2 = {http2_defs, KB_ARRAY_LEN(http2_defs), 0
#include "proxy/stats/http2.def"
};
const struct kb_stat_schema kb_stat_schema_remaining = {remaining_defs,
                                                        KB_ARRAY_LEN(remaining_defs), 0
#include "proxy/stats/remaining.def"
};
const struct kb_stat_schema kb_stat_schema_ecds = {ecds_defs, KB_ARRAY_LEN(ecds_defs), 0
#include "proxy/stats/ecds.def"
};
const struct kb_stat_schema kb_stat_schema_rds = {rds_defs, KB_ARRAY_LEN(rds_defs), 0
#include "proxy/stats/rds.def"
};
const struct kb_stat_schema kb_stat_schema_listener = {listener_defs, KB_ARRAY_LEN(listener_defs), 0
#include "proxy/stats/listener.def"
};
const struct kb_stat_schema kb_stat_schema_listener_http = {listener_http_defs,
                                                            KB_ARRAY_LEN(listener_http_defs), 0
#include "proxy/stats/listener_http.def"
};
const struct kb_stat_schema kb_stat_schema_listener_worker = {listener_worker_defs,
                                                              KB_ARRAY_LEN(listener_worker_defs), 0
#include "proxy/stats/listener_worker.def"
};
const struct kb_stat_schema kb_stat_schema_listener_manager = {
    listener_manager_defs, KB_ARRAY_LEN(listener_manager_defs), 0
#include "proxy/stats/listener_manager.def"
};
const struct kb_stat_schema kb_stat_schema_cluster_manager = {cluster_manager_defs,
                                                              KB_ARRAY_LEN(cluster_manager_defs), 0
#include "proxy/stats/cluster_manager.def"
};
const struct kb_stat_schema kb_stat_schema_tcp = {tcp_defs, KB_ARRAY_LEN(tcp_defs), 0
#include "proxy/stats/tcp.def"
};
const struct kb_stat_schema kb_stat_schema_cluster_sizes = {cluster_sizes_defs,
                                                            KB_ARRAY_LEN(cluster_sizes_defs), 0
#include "proxy/stats/cluster_sizes.def"
};
const struct kb_stat_schema kb_stat_schema_cluster_budgets = {cluster_budgets_defs,
                                                              KB_ARRAY_LEN(cluster_budgets_defs), 0
#include "proxy/stats/cluster_budgets.def"
};
const struct kb_stat_schema kb_stat_schema_dns = {dns_defs, KB_ARRAY_LEN(dns_defs), 0
#include "proxy/stats/dns.def"
};
const struct kb_stat_schema kb_stat_schema_filesystem = {filesystem_defs,
                                                         KB_ARRAY_LEN(filesystem_defs), 0
#include "proxy/stats/filesystem.def"
};
const struct kb_stat_schema kb_stat_schema_access_log = {access_log_defs,
                                                         KB_ARRAY_LEN(access_log_defs), 0
#include "proxy/stats/access_log.def"
};
const struct kb_stat_schema kb_stat_schema_runtime = {runtime_defs, KB_ARRAY_LEN(runtime_defs), 0
#include "proxy/stats/runtime.def"
};
const struct kb_stat_schema kb_stat_schema_subscription = {subscription_defs,
                                                           KB_ARRAY_LEN(subscription_defs), 0
#include "proxy/stats/subscription.def"
};
const struct kb_stat_schema kb_stat_schema_control_plane = {control_plane_defs,
                                                            KB_ARRAY_LEN(control_plane_defs), 0
#include "proxy/stats/control_plane.def"
};
const struct kb_stat_schema kb_stat_schema_server = {server_defs, KB_ARRAY_LEN(server_defs), 0
#include "proxy/stats/server.def"
};
const struct kb_stat_schema kb_stat_schema_watchdog = {watchdog_defs, KB_ARRAY_LEN(watchdog_defs), 0
#include "proxy/stats/watchdog.def"
};
const struct kb_stat_schema kb_stat_schema_kobune = {kobune_defs, KB_ARRAY_LEN(kobune_defs), 0
#include "proxy/stats/kobune.def"
};
const struct kb_stat_schema kb_stat_schema_virtual_cluster = {virtual_cluster_defs,
                                                              KB_ARRAY_LEN(virtual_cluster_defs), 0
#include "proxy/stats/virtual_cluster.def"
};
const struct kb_stat_schema kb_stat_schema_async_client = {async_client_defs,
                                                           KB_ARRAY_LEN(async_client_defs), 0
#include "proxy/stats/async_client.def"
};
const struct kb_stat_schema kb_stat_schema_thread_local_cluster_manager = {
    thread_local_cluster_manager_defs, KB_ARRAY_LEN(thread_local_cluster_manager_defs), 0
#include "proxy/stats/thread_local_cluster_manager.def"
};
const struct kb_stat_schema kb_stat_schema_ssl = {ssl_defs, KB_ARRAY_LEN(ssl_defs), 0
#include "proxy/stats/ssl.def"
};
const struct kb_stat_schema kb_stat_schema_ssl_socket_factory = {
    ssl_socket_factory_defs, KB_ARRAY_LEN(ssl_socket_factory_defs), 0
#include "proxy/stats/ssl_socket_factory.def"
};
const struct kb_stat_schema kb_stat_schema_overload = {overload_defs, KB_ARRAY_LEN(overload_defs), 0
#include "proxy/stats/overload.def"
};
const struct kb_stat_schema kb_stat_schema_rbac = {rbac_defs, KB_ARRAY_LEN(rbac_defs), 0
#include "proxy/stats/rbac.def"
};
const struct kb_stat_schema kb_stat_schema_rbac_shadow = {rbac_shadow_defs,
                                                          KB_ARRAY_LEN(rbac_shadow_defs), 0
#include "proxy/stats/rbac_shadow.def"
};
const struct kb_stat_schema kb_stat_schema_fault = {fault_defs, KB_ARRAY_LEN(fault_defs), 0
#include "proxy/stats/fault.def"
};
const struct kb_stat_schema kb_stat_schema_cors = {cors_defs, KB_ARRAY_LEN(cors_defs), 0
#include "proxy/stats/cors.def"
};
const struct kb_stat_schema kb_stat_schema_csrf = {csrf_defs, KB_ARRAY_LEN(csrf_defs), 0
#include "proxy/stats/csrf.def"
};
const struct kb_stat_schema kb_stat_schema_jwt_authn = {jwt_authn_defs,
                                                        KB_ARRAY_LEN(jwt_authn_defs), 0
#include "proxy/stats/jwt_authn.def"
};

const struct kb_stat_schema kb_stat_schema_health_check_filter = {
    health_check_filter_defs, KB_ARRAY_LEN(health_check_filter_defs), 0
#include "proxy/stats/health_check_filter.def"
};
const struct kb_stat_schema kb_stat_schema_health_check = {health_check_defs,
                                                           KB_ARRAY_LEN(health_check_defs), 0
#include "proxy/stats/health_check.def"
};
const struct kb_stat_schema kb_stat_schema_health_checks = {health_checks_defs,
                                                            KB_ARRAY_LEN(health_checks_defs), 0
#include "proxy/stats/health_checks.def"
};

const struct kb_stat_schema kb_stat_schema_outlier_detection = {
    outlier_detection_defs, KB_ARRAY_LEN(outlier_detection_defs), 0
#include "proxy/stats/outlier_detection.def"
};

const struct kb_stat_schema kb_stat_schema_tls_inspector = {tls_inspector_defs,
                                                            KB_ARRAY_LEN(tls_inspector_defs), 0
#include "proxy/stats/tls_inspector.def"
};
const struct kb_stat_schema kb_stat_schema_http_inspector = {http_inspector_defs,
                                                             KB_ARRAY_LEN(http_inspector_defs), 0
#include "proxy/stats/http_inspector.def"
};
const struct kb_stat_schema kb_stat_schema_proxy_proto = {proxy_proto_defs,
                                                          KB_ARRAY_LEN(proxy_proto_defs), 0
#include "proxy/stats/proxy_proto.def"
};

#undef X

/* No routing happens there, and no extension is discovered. */
static const uint16_t http_admin_hidden[] = {
    KB_STAT_HTTP_NO_CLUSTER,
    KB_STAT_HTTP_NO_ROUTE,
    KB_STAT_HTTP_PASSTHROUGH_INTERNAL_REDIRECT_BAD_LOCATION,
    KB_STAT_HTTP_PASSTHROUGH_INTERNAL_REDIRECT_NO_ROUTE,
    KB_STAT_HTTP_PASSTHROUGH_INTERNAL_REDIRECT_PREDICATE,
    KB_STAT_HTTP_PASSTHROUGH_INTERNAL_REDIRECT_TOO_MANY_REDIRECTS,
    KB_STAT_HTTP_PASSTHROUGH_INTERNAL_REDIRECT_UNSAFE_SCHEME,
    KB_STAT_HTTP_RQ_DIRECT_RESPONSE,
    KB_STAT_HTTP_RQ_OVERLOAD_LOCAL_REPLY,
    KB_STAT_HTTP_RQ_REDIRECT,
    KB_STAT_HTTP_RQ_RESET_AFTER_DOWNSTREAM_RESPONSE_STARTED,
    KB_STAT_HTTP_RQ_TOTAL,
    KB_STAT_HTTP_TRACING_CLIENT_ENABLED,
    KB_STAT_HTTP_TRACING_HEALTH_CHECK,
    KB_STAT_HTTP_TRACING_NOT_TRACEABLE,
    KB_STAT_HTTP_TRACING_RANDOM_SAMPLING,
    KB_STAT_HTTP_TRACING_SERVICE_FORCED,
};

static const uint16_t listener_admin_hidden[] = {
    KB_STAT_LISTENER_EXTENSION_CONFIG_MISSING,
    KB_STAT_LISTENER_NETWORK_EXTENSION_CONFIG_MISSING,
};

void kb_stat_group_hide_for_admin(struct kb_stat_group *group)
{
    if (group->schema == &kb_stat_schema_http) {
        kb_stat_group_set_hidden(group, http_admin_hidden, KB_ARRAY_LEN(http_admin_hidden));
    } else if (group->schema == &kb_stat_schema_listener) {
        kb_stat_group_set_hidden(group, listener_admin_hidden, KB_ARRAY_LEN(listener_admin_hidden));
    }
}
