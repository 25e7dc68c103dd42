/* SPDX-License-Identifier: Apache-2.0 */
/* From a Cluster message to the immutable cluster, and the life of that. What the message says
 * about hosts is read by the cluster's type (proxy/ext/cluster). */
#include "proxy/upstream/cluster.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "proto/any.h"
#include "proxy/api/connection.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/circuit_breaker.h"
#include "proxy/upstream/cluster_istio.h"
#include "proxy/upstream/cluster_manager.h"
#include "proxy/upstream/config_read.h"
#include "proxy/upstream/load_assignment.h"
#include "proxy/upstream/outlier_detector.h"
#include "proxy/upstream/socket_match.h"
#include "proxy/upstream/upstream_filters.h"

#define CONNECT_TIMEOUT_DEFAULT_MS 5000
#define BUFFER_LIMIT_DEFAULT       (1024 * 1024)

static void text_set(struct kb_str *out, char **at, struct kb_str text)
{
    memcpy(*at, text.p, text.len);
    *out = kb_str_make(*at, text.len);
    *at += text.len;
}

/* As Envoy cleans the names of scopes: no dot at either end, and "://", ":/", ":" become "_". */
static struct kb_str stat_prefix_make(struct kb_str name, struct kb_arena *arena)
{
    struct kb_str full = kb_str_printf(arena, "cluster.%.*s.", KB_STR_ARG(name));
    char *p = (char *)(uintptr_t)full.p;
    size_t out = 0;

    for (size_t i = 0; i < full.len; i++) {
        if (p[i] != ':') {
            p[out++] = p[i];
            continue;
        }
        p[out++] = '_';
        if (i + 2 < full.len && p[i + 1] == '/' && p[i + 2] == '/') {
            i += 2;
        } else if (i + 1 < full.len && p[i + 1] == '/') {
            i += 1;
        }
    }
    return kb_str_make(p, out);
}

struct kb_str kb_cluster_stat_prefix(const struct kb_cluster_impl *cluster, struct kb_arena *arena)
{
    return kb_str_dup(arena, stat_prefix_make(cluster->api.observability_name, arena));
}

static bool names_client(const struct kb_transport_socket_factory *factory)
{
    return factory->ops != NULL && factory->ops->names_client;
}

static void transport_socket_read(const Envoy__Config__Cluster__V3__Cluster *message,
                                  struct kb_cluster *cluster, struct kb_str stat_prefix,
                                  const struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_factory_context own = *factory;

    kb_socket_matches_read(message, cluster, stat_prefix, factory, diag);
    own.stat_prefix = kb_str_dup(factory->arena, stat_prefix).p;
    kb_transport_socket_factory_init(&cluster->transport_socket, message->transport_socket, true,
                                     &own, diag); /* reported */
    cluster->names_client = names_client(&cluster->transport_socket);
    for (uint32_t i = 0; i < cluster->socket_match_count; i++) {
        cluster->names_client =
            cluster->names_client || names_client(&cluster->socket_matches[i].socket);
    }
}

static void source_add(struct kb_addr *sources, uint32_t *count,
                       const Envoy__Config__Core__V3__SocketAddress *message, struct kb_diag *diag)
{
    if (message == NULL) {
        kb_diag_error(diag, "field: \"address\", reason: is required");
    } else if (kb_config_socket_address(message, "", &sources[*count], diag) == 0) {
        (*count)++;
    }
}

/* Where connections come from; on the heap, most clusters have none. */
static void bind_read(const Envoy__Config__Core__V3__BindConfig *message,
                      struct kb_cluster *cluster, const struct kb_addr *fallback,
                      struct kb_diag *diag)
{
    struct kb_addr *sources;

    if (message == NULL) {
        if (fallback->len > 0) {
            sources = kb_malloc(sizeof(*sources));
            *sources = *fallback;
            cluster->bind_sources = sources;
            cluster->bind_source_count = 1;
        }
        return;
    }
    kb_diag_push(diag, "upstream_bind_config");
    if (message->source_address != NULL) {
        sources = kb_calloc(1 + message->n_extra_source_addresses +
                                message->n_additional_source_addresses,
                            sizeof(*sources));
        cluster->bind_sources = sources;
        kb_diag_push(diag, "source_address");
        source_add(sources, &cluster->bind_source_count, message->source_address, diag);
        kb_diag_pop(diag);
        for (size_t i = 0; i < message->n_extra_source_addresses; i++) {
            kb_diag_push_index(diag, "extra_source_addresses", i);
            source_add(sources, &cluster->bind_source_count,
                       message->extra_source_addresses[i]->address, diag);
            kb_diag_pop(diag);
        }
        for (size_t i = 0; i < message->n_additional_source_addresses; i++) {
            kb_diag_push_index(diag, "additional_source_addresses", i);
            source_add(sources, &cluster->bind_source_count,
                       message->additional_source_addresses[i], diag);
            kb_diag_pop(diag);
        }
    } else if (message->n_extra_source_addresses > 0 ||
               message->n_additional_source_addresses > 0) {
        kb_diag_error(
            diag,
            "Cluster %.*s's upstream binding config has extra/additional source addresses but no "
            "source_address. Extra/additional addresses cannot be specified if source_address is "
            "not set.",
            KB_STR_ARG(cluster->name));
    }
    kb_diag_pop(diag);
}

static void keepalive_read(const Envoy__Config__Cluster__V3__UpstreamConnectionOptions *message,
                           struct kb_cluster *cluster)
{
    const Envoy__Config__Core__V3__TcpKeepalive *keepalive =
        message == NULL ? NULL : message->tcp_keepalive;

    if (keepalive == NULL) {
        return;
    }
    cluster->keepalive.set = true;
    cluster->keepalive.probes =
        keepalive->keepalive_probes == NULL ? 0 : keepalive->keepalive_probes->value;
    cluster->keepalive.time_s =
        keepalive->keepalive_time == NULL ? 0 : keepalive->keepalive_time->value;
    cluster->keepalive.interval_s =
        keepalive->keepalive_interval == NULL ? 0 : keepalive->keepalive_interval->value;
}

static void policy_read(const Envoy__Config__Cluster__V3__Cluster *message,
                        struct kb_priority_policy *policy, struct kb_diag *diag)
{
    const Envoy__Config__Cluster__V3__Cluster__CommonLbConfig *common = message->common_lb_config;
    const Envoy__Config__Endpoint__V3__ClusterLoadAssignment__Policy *assignment =
        message->load_assignment == NULL ? NULL : message->load_assignment->policy;

    policy->panic_threshold = KB_PANIC_THRESHOLD_DEFAULT;
    policy->overprovisioning_factor = KB_OVERPROVISIONING_DEFAULT;
    if (common != NULL && common->healthy_panic_threshold != NULL) {
        policy->panic_threshold = (uint32_t)(common->healthy_panic_threshold->value + 0.5);
    }
    if (assignment != NULL && assignment->overprovisioning_factor != NULL) {
        policy->overprovisioning_factor = assignment->overprovisioning_factor->value;
    }
    policy->weighted_priority_health =
        assignment != NULL && assignment->weighted_priority_health != 0;
    policy->drop_overload_ppm = kb_drop_overload_read(assignment, diag);
}

/* What becomes of hosts that are new, fail or are named no more. */
static void hosts_read(const Envoy__Config__Cluster__V3__Cluster *message,
                       struct kb_cluster *cluster)
{
    const Envoy__Config__Cluster__V3__Cluster__CommonLbConfig *common = message->common_lb_config;

    cluster->ignore_new_hosts_until_first_hc =
        common != NULL && common->ignore_new_hosts_until_first_hc != 0;
    cluster->ignore_health_on_host_removal = message->ignore_health_on_host_removal != 0;
    cluster->close_connections_on_host_health_failure =
        message->close_connections_on_host_health_failure != 0;
    cluster->pool_per_downstream_connection =
        message->connection_pool_per_downstream_connection != 0;
}

static struct kb_cluster_impl *impl_new(struct kb_str name, struct kb_str observability_name,
                                        struct kb_str metadata, struct kb_cluster_manager *manager,
                                        uint32_t worker_count)
{
    size_t locals = (worker_count + 1) * sizeof(struct kb_cluster_local *);
    struct kb_cluster_impl *cluster =
        kb_calloc(1, sizeof(*cluster) + locals + name.len + observability_name.len + metadata.len);
    char *at;

    KB_OBJ_SET(&cluster->api, kb_cluster);
    cluster->refs = 1;
    cluster->manager = manager;
    cluster->worker_count = worker_count;
    cluster->locals = (struct kb_cluster_local **)(void *)(cluster + 1);
    at = (char *)(cluster->locals + worker_count + 1);
    text_set(&cluster->api.name, &at, name);
    if (kb_str_eq(name, observability_name)) {
        cluster->api.observability_name = cluster->api.name;
    } else {
        text_set(&cluster->api.observability_name, &at, observability_name);
    }
    text_set(&cluster->api.metadata, &at, metadata);
    return cluster;
}

/* track_cluster_stats, and the older field of one of them. */
static void tracked_stats_create(const Envoy__Config__Cluster__V3__Cluster *message,
                                 struct kb_cluster *cluster, struct kb_stat_store *stats,
                                 struct kb_str prefix)
{
    const Envoy__Config__Cluster__V3__TrackClusterStats *tracked = message->track_cluster_stats;

    if (tracked != NULL && tracked->request_response_sizes) {
        cluster->size_stats = kb_stat_group_create(stats, prefix, &kb_stat_schema_cluster_sizes);
    }
    if (message->track_timeout_budgets || (tracked != NULL && tracked->timeout_budgets)) {
        cluster->budget_stats =
            kb_stat_group_create(stats, prefix, &kb_stat_schema_cluster_budgets);
    }
}

int kb_cluster_impl_create(const Envoy__Config__Cluster__V3__Cluster *message,
                           const struct kb_lb_ops *provided, struct kb_cluster_manager *manager,
                           struct kb_factory_context *factory, struct kb_diag *diag,
                           struct kb_cluster_impl **out)
{
    struct kb_str name = kb_str_from_cstr(message->name);
    struct kb_str shown =
        message->alt_stat_name[0] != '\0' ? kb_str_from_cstr(message->alt_stat_name) : name;
    struct kb_str metadata = message->metadata != NULL
                                 ? kb_pb_pack(&message->metadata->base, factory->arena)
                                 : KB_STR("");
    struct kb_cluster_impl *cluster =
        impl_new(name, shown, metadata, manager, factory->server->worker_count);
    struct kb_str prefix = stat_prefix_make(shown, factory->arena);
    struct kb_factory_context lb_factory = *factory;
    uint32_t errors = diag->error_count;

    cluster->api.connect_timeout_ms = kb_config_duration_ms(
        message->connect_timeout, "connect_timeout", CONNECT_TIMEOUT_DEFAULT_MS, diag);
    cluster->api.per_connection_buffer_limit_bytes =
        message->per_connection_buffer_limit_bytes == NULL
            ? BUFFER_LIMIT_DEFAULT
            : message->per_connection_buffer_limit_bytes->value;
    cluster->api.filters = kb_upstream_filter_chain_create(message, factory, diag);
    kb_cluster_istio_read(&cluster->api.istio, cluster->api.metadata, message->metadata);
    kb_cluster_http_read(message, &cluster->api, factory, diag);
    kb_circuit_breakers_read(message->circuit_breakers, cluster, diag);
    bind_read(message->upstream_bind_config, &cluster->api, kb_cluster_manager_bind_source(manager),
              diag);
    keepalive_read(message->upstream_connection_options, &cluster->api);
    transport_socket_read(message, &cluster->api, prefix, factory, diag);
    kb_cluster_http_check(&cluster->api, diag);
    tracked_stats_create(message, &cluster->api, factory->server->stats, prefix);
    policy_read(message, &cluster->policy, diag);
    hosts_read(message, &cluster->api);
    kb_outlier_config_read(message->outlier_detection, cluster, diag);
    lb_factory.stat_prefix = kb_str_dup(factory->arena, prefix).p;
    kb_cluster_lb_read(message, cluster, provided, &lb_factory, diag);
    if (diag->error_count != errors) {
        kb_cluster_impl_unref(cluster);
        return KB_ECONFIG;
    }
    cluster->policy.keep_localities = cluster->lb_config->locality_weighted ||
                                      kb_cluster_manager_local_slot(manager) != UINT32_MAX;
    cluster->api.stats =
        kb_stat_group_create(factory->server->stats, prefix, &kb_stat_schema_cluster);
    if (cluster->api.http2.enabled || message->n_health_checks > 0) { /* checks may speak it */
        cluster->api.http2_stats = kb_stat_group_create(
            factory->server->stats, kb_str_printf(factory->arena, "%.*shttp2.", KB_STR_ARG(prefix)),
            &kb_stat_schema_http2);
        kb_stat_group_set_from_first_block(cluster->api.http2_stats);
    }
    kb_circuit_breakers_start(cluster, factory->server->stats, prefix);
    kb_outlier_config_start(cluster, factory->server->stats, prefix, factory->arena);
    *out = cluster;
    return 0;
}

void kb_cluster_impl_ref(struct kb_cluster_impl *cluster)
{
    __atomic_fetch_add(&cluster->refs, 1, __ATOMIC_RELAXED);
}

/* On the main thread. */
static void http1_seen(void *arg)
{
    struct kb_cluster_impl *cluster = kb_cluster_impl_of(KB_CAST(arg, kb_cluster));
    struct kb_stat_store *stats = kb_cluster_manager_server(cluster->manager)->stats;
    struct kb_arena scratch;

    if (cluster->api.http1_stats == NULL) {
        kb_arena_init(&scratch, NULL);
        __atomic_store_n(
            &cluster->api.http1_stats,
            kb_stat_group_create(stats,
                                 kb_str_printf(&scratch, "%.*shttp1.",
                                               KB_STR_ARG(stat_prefix_make(
                                                   cluster->api.observability_name, &scratch))),
                                 &kb_stat_schema_http1),
            __ATOMIC_RELEASE);
        kb_arena_dispose(&scratch);
    }
    kb_cluster_impl_unref(cluster);
}

void kb_cluster_http1_seen(const struct kb_cluster *cluster)
{
    struct kb_cluster_impl *impl = kb_cluster_impl_of(cluster);

    if (__atomic_load_n(&impl->http1_seen, __ATOMIC_RELAXED) ||
        __atomic_exchange_n(&impl->http1_seen, true, __ATOMIC_RELAXED)) {
        return;
    }
    kb_cluster_impl_ref(impl);
    kb_loop_post(kb_cluster_manager_loop(impl->manager), http1_seen, &impl->api);
}

static void impl_free_posted(void *arg)
{
    kb_cluster_impl_free(kb_cluster_impl_of(KB_CAST(arg, kb_cluster)));
}

void kb_cluster_impl_unref(struct kb_cluster_impl *cluster)
{
    if (__atomic_fetch_sub(&cluster->refs, 1, __ATOMIC_ACQ_REL) != 1) {
        return;
    }
    if (kb_cluster_manager_on_main(cluster->manager)) {
        kb_cluster_impl_free(cluster);
    } else {
        kb_loop_post(kb_cluster_manager_loop(cluster->manager), impl_free_posted, &cluster->api);
    }
}

void kb_cluster_impl_free(struct kb_cluster_impl *cluster)
{
    for (uint32_t i = 0; i <= cluster->worker_count; i++) {
        free(cluster->locals[i]);
    }
    if (cluster->lb_config != NULL) {
        cluster->lb->config_destroy(cluster->lb_config);
    }
    free((void *)(uintptr_t)cluster->api.bind_sources);
    free((void *)(uintptr_t)cluster->api.auto_sni_header.p);
    kb_circuit_breakers_dispose(cluster);
    kb_outlier_config_dispose(cluster);
    kb_socket_matches_dispose(&cluster->api);
    kb_transport_socket_factory_dispose(&cluster->api.transport_socket);
    kb_stat_group_destroy(cluster->api.http1_stats);
    free(cluster->api.http2.custom_settings);
    kb_stat_group_destroy(cluster->api.http2_stats);
    kb_stat_group_destroy(cluster->api.size_stats);
    kb_stat_group_destroy(cluster->api.budget_stats);
    kb_stat_group_destroy(cluster->api.stats);
    kb_upstream_filter_chain_destroy(cluster->api.filters);
    kb_cluster_http_dispose(&cluster->api);
    KB_OBJ_CLEAR(&cluster->api);
    free(cluster);
}

void kb_cluster_connected(const struct kb_cluster *cluster, const struct kb_host *host,
                          struct kb_conn *conn, struct kb_stat_block *stats, uint64_t connect_ns,
                          struct kb_timer *duration_timer)
{
    struct kb_addr addr = kb_host_addr(host);

    kb_stat_record(stats, KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_MS, connect_ns / 1000000);
    if (cluster->keepalive.set && kb_addr_is_ip(&addr) &&
        kb_sock_set_keepalive(conn->io.fd, cluster->keepalive.probes, cluster->keepalive.time_s,
                              cluster->keepalive.interval_s) != 0) {
        KB_LOG(UPSTREAM, DEBUG, "[C%llu] TCP keep-alive could not be set",
               (unsigned long long)conn->info.id);
    }
    if (cluster->max_connection_duration_ms > 0) {
        kb_loop_timer_arm(&conn->worker->loop, duration_timer, cluster->max_connection_duration_ms);
    }
}

void kb_cluster_connecting(struct kb_cluster_local *local, enum kb_priority priority,
                           struct kb_host_local *host, struct kb_conn *conn,
                           struct kb_stat_block *stats)
{
    conn->stat_block = stats;
    conn->stat_rx_total = KB_STAT_CLUSTER_UPSTREAM_CX_RX_BYTES_TOTAL;
    conn->stat_rx_buffered = KB_STAT_CLUSTER_UPSTREAM_CX_RX_BYTES_BUFFERED;
    conn->stat_tx_total = KB_STAT_CLUSTER_UPSTREAM_CX_TX_BYTES_TOTAL;
    conn->stat_tx_buffered = KB_STAT_CLUSTER_UPSTREAM_CX_TX_BYTES_BUFFERED;
    kb_resource_force(local, priority, KB_RESOURCE_CONNECTIONS);
    kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_CX_TOTAL);
    kb_stat_gauge_add(stats, KB_STAT_CLUSTER_UPSTREAM_CX_ACTIVE, 1);
    kb_host_stat_add(host, KB_HOST_CX_TOTAL, 1);
    kb_host_stat_add(host, KB_HOST_CX_ACTIVE, 1);
}

void kb_cluster_disconnected(struct kb_stat_block *stats, bool by_peer, bool active,
                             uint64_t length_ns, uint64_t requests)
{
    kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY);
    kb_stat_inc(stats, by_peer ? KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_REMOTE
                               : KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_LOCAL);
    if (active) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
        kb_stat_inc(stats, by_peer ? KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_REMOTE_WITH_ACTIVE_RQ
                                   : KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ);
    }
    kb_stat_gauge_add(stats, KB_STAT_CLUSTER_UPSTREAM_CX_ACTIVE, -1);
    kb_stat_record(stats, KB_STAT_CLUSTER_UPSTREAM_CX_LENGTH_MS, length_ns / 1000000);
    kb_stat_record(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PER_CX, requests);
}
