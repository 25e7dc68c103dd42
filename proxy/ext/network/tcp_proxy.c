/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.network.tcp_proxy: bytes of one connection to a host of a cluster and back, with
 * half-close, back-pressure and idle timeout (Envoy TcpProxy::Filter). The way to the host is a TCP
 * connection, or a tunnel in a HTTP/1 request of our own; both are a request encoder of a pool. */
#include "proxy/ext/network/tcp_proxy.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/overload.h"
#include "proxy/api/ssl_connection_info.h"
#include "proxy/ext/network/tcp_proxy_internal.h"

static void idle_timer_fired(struct kb_timer *timer);
static void duration_timer_fired(struct kb_timer *timer);
static void log_timer_fired(struct kb_timer *timer);

/* ---- lifecycle ---- */

static void *tcp_proxy_create(void *arg, struct kb_conn *conn)
{
    struct kb_tcp_proxy_config *config = KB_CAST(arg, kb_tcp_proxy_config);
    struct kb_tcp_proxy *proxy = kb_calloc(1, sizeof(*proxy));

    KB_OBJ_SET(proxy, kb_tcp_proxy);
    proxy->config = config;
    proxy->worker = conn->worker;
    proxy->down = conn;
    proxy->stats = kb_stat_group_block(config->stats, conn->worker->index);
    kb_arena_init(&proxy->arena, &conn->worker->arena_blocks);
    kb_timer_init(&proxy->idle_timer, idle_timer_fired);
    kb_timer_init(&proxy->duration_timer, duration_timer_fired);
    kb_timer_init(&proxy->log_timer, log_timer_fired);
    kb_stat_inc(proxy->stats, KB_STAT_TCP_DOWNSTREAM_CX_TOTAL);
    kb_tcp_proxy_upstream_init(proxy);
    conn->stream_info = &proxy->info;
    proxy->info.connection = &conn->info;
    proxy->info.worker = conn->worker;
    proxy->info.start_ns = kb_loop_now_ns(kb_tcp_proxy_loop(proxy));
    proxy->info.wall_start_ns = kb_loop_wall_ns(kb_tcp_proxy_loop(proxy));
    proxy->info.remote = conn->info.remote;
    proxy->info.transport_options = conn->upstream_options;
    conn->half_close_enabled = true;
    /* How long a client may take nothing of what is left for it when the host has closed. */
    conn->delayed_close_ms = config->idle_timeout_ms;
    conn->stat_block = proxy->stats;
    conn->stat_rx_total = KB_STAT_TCP_DOWNSTREAM_CX_RX_BYTES_TOTAL;
    conn->stat_rx_buffered = KB_STAT_TCP_DOWNSTREAM_CX_RX_BYTES_BUFFERED;
    conn->stat_tx_total = KB_STAT_TCP_DOWNSTREAM_CX_TX_BYTES_TOTAL;
    conn->stat_tx_buffered = KB_STAT_TCP_DOWNSTREAM_CX_TX_BYTES_BUFFERED;
    return proxy;
}

void kb_tcp_proxy_log(struct kb_tcp_proxy *proxy, const char *type)
{
    struct kb_formatter_input input = {.access_log_type = type};

    if (proxy->config->access_log != NULL && !kb_access_log_list_empty(proxy->config->access_log)) {
        struct kb_arena arena; /* of this line: a connection may last for days */

        if (proxy->info.request_id.len == 0) {
            kb_rand_uuid4(&proxy->worker->rand, proxy->stream_id);
            proxy->info.request_id = kb_str_make(proxy->stream_id, sizeof(proxy->stream_id));
        }
        kb_arena_init(&arena, &proxy->worker->arena_blocks);
        kb_access_log_list_log(proxy->config->access_log, &input, &proxy->info, &arena);
        kb_arena_dispose(&arena);
    }
}

static void byte_counts_set(struct kb_tcp_proxy *proxy)
{
    proxy->info.bytes_received = kb_conn_app_received(proxy->down);
    proxy->info.bytes_sent = kb_conn_app_sent(proxy->down) + proxy->flushing;
    proxy->info.wire_bytes_received = kb_conn_app_received(proxy->down);
    proxy->info.wire_bytes_sent = proxy->info.bytes_sent;
}

/* The connection is over: one log line. */
static void end(struct kb_tcp_proxy *proxy)
{
    if (proxy->ended) {
        return;
    }
    proxy->ended = true;
    kb_tcp_proxy_upstream_info(proxy);
    kb_loop_timer_cancel(kb_tcp_proxy_loop(proxy), &proxy->idle_timer);
    kb_loop_timer_cancel(kb_tcp_proxy_loop(proxy), &proxy->duration_timer);
    kb_loop_timer_cancel(kb_tcp_proxy_loop(proxy), &proxy->log_timer);
    proxy->info.end_ns = kb_loop_now_ns(kb_tcp_proxy_loop(proxy));
    if (proxy->info.upstream.connection_pool_ready_ns == 0) {
        proxy->info.upstream.connection_pool_ready_ns = proxy->info.end_ns;
    }
    proxy->down->info.peer_reset = proxy->down->reset_detected;
    byte_counts_set(proxy);
    kb_tcp_proxy_log(proxy, "TcpConnectionEnd");
}

static void tcp_proxy_destroy(void *filter)
{
    struct kb_tcp_proxy *proxy = KB_CAST(filter, kb_tcp_proxy);

    end(proxy);
    kb_tcp_proxy_upstream_dispose(proxy);
    if (proxy->cluster != NULL) {
        kb_cluster_local_unref(proxy->cluster);
    }
    proxy->down->stream_info = NULL;
    kb_filter_state_dispose(&proxy->info.upstream.filter_state, &proxy->arena);
    kb_filter_state_dispose(&proxy->info.filter_state, &proxy->arena);
    kb_ssl_connection_info_unref(proxy->info.upstream.ssl);
    kb_arena_dispose(&proxy->arena);
    KB_OBJ_CLEAR(proxy);
    free(proxy);
}

/* ---- connecting ---- */

void kb_tcp_proxy_fail(struct kb_tcp_proxy *proxy, enum kb_response_flag flag)
{
    kb_stream_info_set_flag(&proxy->info, flag);
    kb_conn_close(proxy->down, KB_CONN_NO_FLUSH);
}

static const struct kb_tcp_proxy_cluster *cluster_pick(struct kb_tcp_proxy *proxy)
{
    const struct kb_tcp_proxy_config *config = proxy->config;
    uint64_t at;

    if (config->cluster_count == 1) {
        return config->clusters;
    }
    at = kb_rand_u64(&proxy->worker->rand) % config->total_weight;
    for (size_t i = 0; i < config->cluster_count; i++) {
        if (at < config->clusters[i].weight) {
            return &config->clusters[i];
        }
        at -= config->clusters[i].weight;
    }
    return config->clusters;
}

/* True when the overload manager wants the connection closed at this point. */
static bool shed(struct kb_tcp_proxy *proxy, enum kb_overload_action point)
{
    const struct kb_overload_state *overload = &proxy->config->server->overload;

    if (KB_LIKELY(!kb_overload_any(overload)) ||
        !kb_overload_shed(overload, point, proxy->worker)) {
        return false;
    }
    kb_stat_inc(proxy->stats, KB_STAT_TCP_DOWNSTREAM_CX_OVERLOAD_CLOSE);
    kb_stream_info_set_flag(&proxy->info, KB_RF_OVERLOAD_MANAGER_TERMINATED);
    kb_conn_close(proxy->down, KB_CONN_NO_FLUSH);
    return true;
}

static uint64_t max_duration_ms(struct kb_tcp_proxy *proxy)
{
    const struct kb_tcp_proxy_config *config = proxy->config;

    return config->max_duration_jitter_ms == 0
               ? config->max_duration_ms
               : config->max_duration_ms +
                     kb_rand_u64(&proxy->worker->rand) % config->max_duration_jitter_ms;
}

static enum kb_network_filter_status tcp_proxy_on_new_connection(void *filter)
{
    struct kb_tcp_proxy *proxy = KB_CAST(filter, kb_tcp_proxy);
    const struct kb_tcp_proxy_cluster *cluster = cluster_pick(proxy);

    if (KB_UNLIKELY(shed(proxy, KB_OVERLOAD_SHED_TCP_PROXY_CONNECT))) {
        return KB_NETWORK_FILTER_STOP;
    }
    if (proxy->config->log_interval_ms > 0) {
        kb_loop_timer_arm(kb_tcp_proxy_loop(proxy), &proxy->log_timer,
                          proxy->config->log_interval_ms);
    }
    proxy->metadata_match = cluster->metadata_match;
    proxy->cluster = kb_cluster_local_get(proxy->worker, cluster->slot);
    if (proxy->cluster == NULL) {
        kb_stat_inc(proxy->stats, KB_STAT_TCP_DOWNSTREAM_CX_NO_ROUTE);
        kb_tcp_proxy_fail(proxy, KB_RF_NO_CLUSTER_FOUND);
        return KB_NETWORK_FILTER_STOP;
    }
    kb_cluster_local_ref(proxy->cluster);
    proxy->info.upstream.cluster = proxy->cluster->cluster;
    proxy->info.upstream_cluster_name = proxy->cluster->cluster->observability_name;
    if (proxy->config->max_duration_ms > 0) {
        kb_loop_timer_arm(kb_tcp_proxy_loop(proxy), &proxy->duration_timer, max_duration_ms(proxy));
    }
    if (proxy->config->idle_timeout_ms > 0) {
        kb_tcp_proxy_touch(proxy);
        kb_loop_timer_arm(kb_tcp_proxy_loop(proxy), &proxy->idle_timer,
                          proxy->config->idle_timeout_ms);
    }
    proxy->down_stopped = true;
    kb_conn_read_disable(proxy->down, true);
    kb_tcp_proxy_connect(proxy);
    return KB_NETWORK_FILTER_CONTINUE;
}

/* ---- downstream events ---- */

/* The client ended its direction. A tunnel in HTTP/1 knows no half-close: Envoy ends it in both; in
 * HTTP/2 its far end says when it is over. */
static void tunnel_end(struct kb_tcp_proxy *proxy)
{
    struct kb_request_encoder *up = proxy->up;

    kb_tcp_proxy_upstream_info(proxy);
    if (proxy->up_http2) {
        return;
    }
    proxy->up = NULL;
    kb_request_encoder_close(up, KB_CONN_FLUSH_WRITE, proxy->config->idle_timeout_ms);
    kb_tcp_proxy_upstream_ended(proxy, false);
}

static enum kb_network_filter_status tcp_proxy_on_data(void *filter, struct kb_buf *in,
                                                       bool end_stream)
{
    struct kb_tcp_proxy *proxy = KB_CAST(filter, kb_tcp_proxy);

    if (proxy->up == NULL || !proxy->connected) {
        return KB_NETWORK_FILTER_STOP;
    }
    if (KB_UNLIKELY(shed(proxy, KB_OVERLOAD_SHED_TCP_PROXY_DATA))) {
        return KB_NETWORK_FILTER_STOP;
    }
    kb_tcp_proxy_touch(proxy);
    end_stream = end_stream && !proxy->up_ended;
    proxy->up_ended = proxy->up_ended || end_stream;
    kb_request_encoder_data(proxy->up, in, end_stream);
    if (KB_UNLIKELY(end_stream) && proxy->config->tunnel != NULL && proxy->up != NULL) {
        tunnel_end(proxy);
    }
    return KB_NETWORK_FILTER_STOP;
}

static void tcp_proxy_on_event(void *filter, enum kb_conn_event event)
{
    struct kb_tcp_proxy *proxy = KB_CAST(filter, kb_tcp_proxy);

    if (event == KB_CONN_CONNECTED || proxy->down_closed) {
        return;
    }
    proxy->down_closed = true;
    end(proxy);
    /* What the client sent before it went is still delivered, to a host that takes it. */
    kb_tcp_proxy_upstream_close(
        proxy, proxy->config->tunnel != NULL || event != KB_CONN_REMOTE_CLOSE ? KB_CONN_NO_FLUSH
               : proxy->down->reset_detected ? KB_CONN_ABORT_RESET
                                             : KB_CONN_FLUSH_WRITE);
}

static void tcp_proxy_on_above_high(void *filter)
{
    struct kb_tcp_proxy *proxy = KB_CAST(filter, kb_tcp_proxy);

    if (proxy->up != NULL) {
        kb_stat_inc(proxy->cluster->stats,
                    KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
        kb_request_encoder_read_disable(proxy->up, true);
    }
}

static void tcp_proxy_on_below_low(void *filter)
{
    struct kb_tcp_proxy *proxy = KB_CAST(filter, kb_tcp_proxy);

    if (proxy->up != NULL) {
        kb_stat_inc(proxy->cluster->stats,
                    KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
        kb_request_encoder_read_disable(proxy->up, false);
    }
}

static void tcp_proxy_on_sent(void *filter, size_t n)
{
    (void)n;
    kb_tcp_proxy_touch(KB_CAST(filter, kb_tcp_proxy));
}

/* ---- timers ---- */

static void idle_timer_fired(struct kb_timer *timer)
{
    struct kb_tcp_proxy *proxy = KB_CONTAINER_OF(timer, struct kb_tcp_proxy, idle_timer);
    uint64_t now_ms = kb_loop_now_ms(kb_tcp_proxy_loop(proxy));

    KB_ASSERT(proxy->kb_magic == (uint32_t)KB_MAGIC_kb_tcp_proxy);
    if (proxy->idle_deadline_ms > now_ms) {
        kb_loop_timer_arm(kb_tcp_proxy_loop(proxy), timer, proxy->idle_deadline_ms - now_ms);
        return;
    }
    kb_stat_inc(proxy->stats, KB_STAT_TCP_IDLE_TIMEOUT);
    kb_conn_close(proxy->down, KB_CONN_NO_FLUSH);
}

static void log_timer_fired(struct kb_timer *timer)
{
    struct kb_tcp_proxy *proxy = KB_CONTAINER_OF(timer, struct kb_tcp_proxy, log_timer);

    KB_ASSERT(proxy->kb_magic == (uint32_t)KB_MAGIC_kb_tcp_proxy);
    kb_tcp_proxy_upstream_info(proxy);
    byte_counts_set(proxy);
    kb_tcp_proxy_log(proxy, "TcpPeriodic");
    kb_loop_timer_arm(kb_tcp_proxy_loop(proxy), timer, proxy->config->log_interval_ms);
}

static void duration_timer_fired(struct kb_timer *timer)
{
    struct kb_tcp_proxy *proxy = KB_CONTAINER_OF(timer, struct kb_tcp_proxy, duration_timer);

    KB_ASSERT(proxy->kb_magic == (uint32_t)KB_MAGIC_kb_tcp_proxy);
    kb_stat_inc(proxy->stats, KB_STAT_TCP_MAX_DOWNSTREAM_CONNECTION_DURATION);
    kb_stream_info_set_flag(&proxy->info, KB_RF_DURATION_TIMEOUT);
    kb_conn_close(proxy->down, KB_CONN_NO_FLUSH);
}

const struct kb_network_filter_ops kb_ext_network_tcp_proxy = {
    .name = "envoy.filters.network.tcp_proxy",
    .type_url = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    .terminal = true,
    .config_create = kb_tcp_proxy_config_create,
    .config_destroy = kb_tcp_proxy_config_destroy,
    .create = tcp_proxy_create,
    .on_new_connection = tcp_proxy_on_new_connection,
    .on_data = tcp_proxy_on_data,
    .on_event = tcp_proxy_on_event,
    .on_above_high = tcp_proxy_on_above_high,
    .on_below_low = tcp_proxy_on_below_low,
    .on_sent = tcp_proxy_on_sent,
    .destroy = tcp_proxy_destroy,
};
