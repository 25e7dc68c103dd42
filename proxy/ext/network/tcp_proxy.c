/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.network.tcp_proxy: bytes of one connection to a host of a cluster and back, with
 * half-close, back-pressure and idle timeout (Envoy TcpProxy::Filter). */
#include "proxy/ext/network/tcp_proxy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

/* One downstream connection. */
struct tcp_proxy {
    KB_OBJ;
    const struct kb_tcp_proxy_config *config;
    struct kb_worker *worker;
    struct kb_conn *down;
    struct kb_conn *up; /* NULL: none */
    struct kb_stat_block *stats;
    struct kb_cluster_local *cluster; /* holds a reference */
    struct kb_host_local *host_local; /* of `up`; holds a reference */
    struct kb_stream_info info;
    struct kb_arena arena;
    struct kb_timer idle_timer;
    struct kb_timer duration_timer;
    uint64_t idle_deadline_ms;
    uint64_t connect_start_ns;
    uint32_t attempts;
    bool connected;
    bool down_closed;
    bool down_stopped; /* reading of the client is disabled until the upstream is there */
    bool ended;        /* logged and counted */
};
KB_OBJ_MAGIC(tcp_proxy, 0x54435050);

static void idle_timer_fired(struct kb_timer *timer);
static void duration_timer_fired(struct kb_timer *timer);
static void connect_attempt(struct tcp_proxy *proxy);
static const struct kb_conn_callbacks upstream_callbacks;

static struct kb_loop *loop_of(struct tcp_proxy *proxy)
{
    return &proxy->worker->loop;
}

static void idle_touch(struct tcp_proxy *proxy)
{
    proxy->idle_deadline_ms = kb_loop_now_ms(loop_of(proxy)) + proxy->config->idle_timeout_ms;
}

/* ---- lifecycle ---- */

static void *tcp_proxy_create(void *arg, struct kb_conn *conn)
{
    struct kb_tcp_proxy_config *config = KB_CAST(arg, kb_tcp_proxy_config);
    struct tcp_proxy *proxy = kb_calloc(1, sizeof(*proxy));

    KB_OBJ_SET(proxy, tcp_proxy);
    proxy->config = config;
    proxy->worker = conn->worker;
    proxy->down = conn;
    proxy->stats = kb_stat_group_block(config->stats, conn->worker->index);
    kb_arena_init(&proxy->arena, &conn->worker->arena_blocks);
    kb_timer_init(&proxy->idle_timer, idle_timer_fired);
    kb_timer_init(&proxy->duration_timer, duration_timer_fired);
    proxy->info.connection = &conn->info;
    proxy->info.worker = conn->worker;
    proxy->info.start_ns = kb_loop_now_ns(loop_of(proxy));
    proxy->info.wall_start_ns = kb_loop_wall_ns(loop_of(proxy));
    proxy->info.remote = conn->info.remote;
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

static void host_release(struct tcp_proxy *proxy)
{
    if (proxy->host_local != NULL) {
        kb_host_local_unref(proxy->host_local);
        proxy->host_local = NULL;
    }
}

static void log_write(struct tcp_proxy *proxy, const char *type)
{
    struct kb_formatter_input input = {.access_log_type = type};

    if (proxy->config->access_log != NULL && !kb_access_log_list_empty(proxy->config->access_log)) {
        kb_access_log_list_log(proxy->config->access_log, &input, &proxy->info, &proxy->arena);
    }
}

/* The connection is over: one log line. */
static void end(struct tcp_proxy *proxy)
{
    if (proxy->ended) {
        return;
    }
    proxy->ended = true;
    kb_loop_timer_cancel(loop_of(proxy), &proxy->idle_timer);
    kb_loop_timer_cancel(loop_of(proxy), &proxy->duration_timer);
    proxy->info.end_ns = kb_loop_now_ns(loop_of(proxy));
    proxy->info.bytes_received = proxy->down->bytes_received;
    proxy->info.bytes_sent = proxy->down->bytes_sent;
    proxy->info.wire_bytes_received = proxy->down->bytes_received;
    proxy->info.wire_bytes_sent = proxy->down->bytes_sent;
    log_write(proxy, "TcpConnectionEnd");
}

static void tcp_proxy_destroy(void *filter)
{
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);

    end(proxy);
    KB_ASSERT(proxy->up == NULL);
    host_release(proxy);
    if (proxy->cluster != NULL) {
        kb_cluster_local_unref(proxy->cluster);
    }
    kb_arena_dispose(&proxy->arena);
    KB_OBJ_CLEAR(proxy);
    free(proxy);
}

/* ---- connecting ---- */

static void init_fail(struct tcp_proxy *proxy, enum kb_response_flag flag)
{
    kb_stream_info_set_flag(&proxy->info, flag);
    kb_conn_close(proxy->down, KB_CONN_NO_FLUSH);
}

static const struct kb_tcp_proxy_cluster *cluster_pick(struct tcp_proxy *proxy)
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

static void upstream_counts_begin(struct tcp_proxy *proxy)
{
    struct kb_stat_block *stats = proxy->cluster->stats;

    kb_resource_force(proxy->cluster, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
    kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_CX_TOTAL);
    kb_stat_gauge_add(stats, KB_STAT_CLUSTER_UPSTREAM_CX_ACTIVE, 1);
    kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_TOTAL);
    kb_host_stat_add(proxy->host_local, KB_HOST_CX_TOTAL, 1);
    kb_host_stat_add(proxy->host_local, KB_HOST_CX_ACTIVE, 1);
}

static void upstream_counts_end(struct tcp_proxy *proxy, bool by_peer)
{
    struct kb_stat_block *stats = proxy->cluster->stats;
    uint64_t now_ns = kb_loop_now_ns(loop_of(proxy));

    kb_resource_give(proxy->cluster, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
    kb_stat_gauge_add(stats, KB_STAT_CLUSTER_UPSTREAM_CX_ACTIVE, -1);
    kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY);
    kb_stat_inc(stats, by_peer ? KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_REMOTE
                               : KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_LOCAL);
    kb_stat_record(stats, KB_STAT_CLUSTER_UPSTREAM_CX_LENGTH_MS,
                   (now_ns - proxy->connect_start_ns) / 1000000);
    kb_host_stat_add(proxy->host_local, KB_HOST_CX_ACTIVE, -1);
    if (proxy->connected) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
        kb_stat_inc(stats, by_peer ? KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_REMOTE_WITH_ACTIVE_RQ
                                   : KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ);
        kb_resource_give(proxy->cluster, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS);
        kb_stat_gauge_add(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_ACTIVE, -1);
        kb_host_stat_add(proxy->host_local, KB_HOST_RQ_ACTIVE, -1);
    }
}

static void upstream_connect(struct tcp_proxy *proxy, struct kb_host *host)
{
    const struct kb_cluster *cluster = proxy->cluster->cluster;
    const struct kb_addr *source = cluster->bind_source.len > 0 ? &cluster->bind_source : NULL;

    host_release(proxy);
    proxy->host_local = kb_host_local_get(host, proxy->worker->index);
    kb_host_local_ref(proxy->host_local);
    proxy->connect_start_ns = kb_loop_now_ns(loop_of(proxy));
    proxy->info.upstream.host = host;
    proxy->info.upstream.cluster = cluster;
    proxy->info.upstream.remote = host->addr;
    proxy->up =
        kb_conn_create_connecting(proxy->worker, &host->addr, source, cluster->connect_timeout_ms,
                                  cluster->per_connection_buffer_limit_bytes);
    kb_conn_set_owner(proxy->up, &upstream_callbacks, proxy);
    proxy->up->half_close_enabled = true;
    proxy->up->stat_block = proxy->cluster->stats;
    proxy->up->stat_rx_total = KB_STAT_CLUSTER_UPSTREAM_CX_RX_BYTES_TOTAL;
    proxy->up->stat_rx_buffered = KB_STAT_CLUSTER_UPSTREAM_CX_RX_BYTES_BUFFERED;
    proxy->up->stat_tx_total = KB_STAT_CLUSTER_UPSTREAM_CX_TX_BYTES_TOTAL;
    proxy->up->stat_tx_buffered = KB_STAT_CLUSTER_UPSTREAM_CX_TX_BYTES_BUFFERED;
    upstream_counts_begin(proxy);
}

static void connect_attempt(struct tcp_proxy *proxy)
{
    struct kb_lb_request request = {.info = &proxy->info};
    struct kb_host *host;

    if (proxy->attempts >= proxy->config->max_connect_attempts) {
        kb_stat_inc(proxy->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_ATTEMPTS_EXCEEDED);
        init_fail(proxy, KB_RF_UPSTREAM_RETRY_LIMIT_EXCEEDED);
        return;
    }
    if (!kb_resource_can(proxy->cluster, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS)) {
        kb_stat_inc(proxy->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_CX_OVERFLOW);
        init_fail(proxy, KB_RF_UPSTREAM_OVERFLOW);
        return;
    }
    host = kb_cluster_local_choose_host(proxy->cluster, &request);
    if (host == NULL) {
        kb_stat_inc(proxy->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_CX_NONE_HEALTHY);
        init_fail(proxy, KB_RF_NO_HEALTHY_UPSTREAM);
        return;
    }
    proxy->attempts++;
    proxy->info.attempt_count = proxy->attempts;
    upstream_connect(proxy, host);
}

static enum kb_network_filter_status tcp_proxy_on_new_connection(void *filter)
{
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);
    const struct kb_tcp_proxy_cluster *cluster = cluster_pick(proxy);

    kb_stat_inc(proxy->stats, KB_STAT_TCP_DOWNSTREAM_CX_TOTAL);
    proxy->cluster = kb_cluster_local_get(proxy->worker, cluster->slot);
    if (proxy->cluster == NULL) {
        kb_stat_inc(proxy->stats, KB_STAT_TCP_DOWNSTREAM_CX_NO_ROUTE);
        init_fail(proxy, KB_RF_NO_CLUSTER_FOUND);
        return KB_NETWORK_FILTER_STOP;
    }
    kb_cluster_local_ref(proxy->cluster);
    proxy->info.upstream.cluster = proxy->cluster->cluster;
    proxy->info.upstream_cluster_name = proxy->cluster->cluster->observability_name;
    if (proxy->config->max_duration_ms > 0) {
        kb_loop_timer_arm(loop_of(proxy), &proxy->duration_timer, proxy->config->max_duration_ms);
    }
    proxy->down_stopped = true;
    kb_conn_read_disable(proxy->down, true);
    connect_attempt(proxy);
    return KB_NETWORK_FILTER_CONTINUE;
}

static void connected(struct tcp_proxy *proxy)
{
    struct kb_stat_block *stats = proxy->cluster->stats;
    uint64_t now_ns = kb_loop_now_ns(loop_of(proxy));

    proxy->connected = true;
    proxy->info.upstream.local = proxy->up->info.local;
    proxy->info.upstream.connection_id = proxy->up->info.id;
    proxy->info.upstream.connection_pool_ready_ns = now_ns;
    kb_stat_record(stats, KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_MS,
                   (now_ns - proxy->connect_start_ns) / 1000000);
    kb_resource_force(proxy->cluster, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS);
    kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_TOTAL);
    kb_stat_gauge_add(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_ACTIVE, 1);
    kb_host_stat_add(proxy->host_local, KB_HOST_RQ_TOTAL, 1);
    kb_host_stat_add(proxy->host_local, KB_HOST_RQ_ACTIVE, 1);
    if (proxy->config->idle_timeout_ms > 0) {
        idle_touch(proxy);
        kb_loop_timer_arm(loop_of(proxy), &proxy->idle_timer, proxy->config->idle_timeout_ms);
    }
    if (proxy->config->log_on_connected) {
        log_write(proxy, "TcpUpstreamConnected");
    }
    kb_conn_start(proxy->up);
    proxy->down_stopped = false;
    kb_conn_read_disable(proxy->down, false);
}

static void connect_failed(struct tcp_proxy *proxy, struct kb_conn *up)
{
    struct kb_stat_block *stats = proxy->cluster->stats;

    kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_FAIL);
    kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_FAILURE_EJECT);
    kb_host_stat_add(proxy->host_local, KB_HOST_CX_CONNECT_FAIL, 1);
    if (up->connect_timed_out) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_TIMEOUT);
    }
    if (up->connect_errno != 0) {
        proxy->info.upstream.transport_failure_reason =
            kb_str_printf(&proxy->arena, "delayed connect error: %s", strerror(up->connect_errno));
    }
    kb_stream_info_set_flag(&proxy->info, KB_RF_UPSTREAM_CONNECTION_FAILURE);
    if (!proxy->down_closed) {
        connect_attempt(proxy);
    }
}

/* ---- relaying ---- */

static void relay(struct kb_conn *to, struct kb_buf *in, bool end_stream)
{
    kb_buf_move(&to->out, in);
    if (end_stream && !to->end_wanted) {
        kb_conn_end_stream(to);
    } else {
        kb_conn_written(to);
    }
}

static enum kb_network_filter_status tcp_proxy_on_data(void *filter, struct kb_buf *in,
                                                       bool end_stream)
{
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);

    if (proxy->up == NULL || !proxy->connected) {
        return KB_NETWORK_FILTER_STOP;
    }
    idle_touch(proxy);
    relay(proxy->up, in, end_stream);
    return KB_NETWORK_FILTER_STOP;
}

static void upstream_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);

    idle_touch(proxy);
    if (!proxy->down_closed) {
        relay(proxy->down, in, end_stream);
    } else {
        kb_buf_consume(in, in->len);
    }
}

static void upstream_on_event(void *owner, enum kb_conn_event event)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);
    struct kb_conn *up = proxy->up;
    bool was_connected = proxy->connected;

    if (event == KB_CONN_CONNECTED) {
        connected(proxy);
        return;
    }
    proxy->up = NULL;
    upstream_counts_end(proxy, event == KB_CONN_REMOTE_CLOSE && !up->connect_timed_out);
    proxy->connected = false;
    if (!was_connected) {
        if (event == KB_CONN_REMOTE_CLOSE) {
            connect_failed(proxy, up);
        }
        return;
    }
    if (event != KB_CONN_REMOTE_CLOSE || proxy->down_closed) {
        return;
    }
    if (up->reset_detected) {
        kb_stream_info_set_flag(&proxy->info, KB_RF_UPSTREAM_REMOTE_RESET);
        kb_conn_close(proxy->down, KB_CONN_ABORT_RESET);
    } else {
        kb_conn_close(proxy->down, KB_CONN_FLUSH_WRITE);
    }
}

static void upstream_on_above_high(void *owner)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);

    kb_stat_inc(proxy->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_BACKED_UP_TOTAL);
    if (!proxy->down_closed) {
        kb_stat_inc(proxy->stats, KB_STAT_TCP_DOWNSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
        kb_conn_read_disable(proxy->down, true);
    }
}

static void upstream_on_below_low(void *owner)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);

    kb_stat_inc(proxy->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_DRAINED_TOTAL);
    if (!proxy->down_closed) {
        kb_stat_inc(proxy->stats, KB_STAT_TCP_DOWNSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
        kb_conn_read_disable(proxy->down, false);
    }
}

static void upstream_on_sent(void *owner, size_t n)
{
    (void)n;
    idle_touch(KB_CAST(owner, tcp_proxy));
}

static const struct kb_conn_callbacks upstream_callbacks = {
    .on_data = upstream_on_data,
    .on_event = upstream_on_event,
    .on_above_high = upstream_on_above_high,
    .on_below_low = upstream_on_below_low,
    .on_sent = upstream_on_sent,
};

/* ---- downstream events ---- */

static void tcp_proxy_on_event(void *filter, enum kb_conn_event event)
{
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);

    if (event == KB_CONN_CONNECTED || proxy->down_closed) {
        return;
    }
    proxy->down_closed = true;
    end(proxy);
    if (proxy->up != NULL) {
        /* What the client sent before it went is still delivered, to a host that takes it. */
        enum kb_conn_close how = proxy->down->reset_detected     ? KB_CONN_ABORT_RESET
                                 : event == KB_CONN_REMOTE_CLOSE ? KB_CONN_FLUSH_WRITE
                                                                 : KB_CONN_NO_FLUSH;

        proxy->up->delayed_close_ms = proxy->config->idle_timeout_ms;
        kb_conn_close(proxy->up, how);
    }
}

static void tcp_proxy_on_above_high(void *filter)
{
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);

    if (proxy->up != NULL) {
        kb_stat_inc(proxy->cluster->stats,
                    KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
        kb_conn_read_disable(proxy->up, true);
    }
}

static void tcp_proxy_on_below_low(void *filter)
{
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);

    if (proxy->up != NULL) {
        kb_stat_inc(proxy->cluster->stats,
                    KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
        kb_conn_read_disable(proxy->up, false);
    }
}

static void tcp_proxy_on_sent(void *filter, size_t n)
{
    (void)n;
    idle_touch(KB_CAST(filter, tcp_proxy));
}

static void idle_timer_fired(struct kb_timer *timer)
{
    struct tcp_proxy *proxy = KB_CONTAINER_OF(timer, struct tcp_proxy, idle_timer);
    uint64_t now_ms = kb_loop_now_ms(loop_of(proxy));

    KB_ASSERT(proxy->kb_magic == (uint32_t)KB_MAGIC_tcp_proxy);
    if (proxy->idle_deadline_ms > now_ms) {
        kb_loop_timer_arm(loop_of(proxy), timer, proxy->idle_deadline_ms - now_ms);
        return;
    }
    kb_stat_inc(proxy->stats, KB_STAT_TCP_IDLE_TIMEOUT);
    kb_conn_close(proxy->down, KB_CONN_NO_FLUSH);
}

static void duration_timer_fired(struct kb_timer *timer)
{
    struct tcp_proxy *proxy = KB_CONTAINER_OF(timer, struct tcp_proxy, duration_timer);

    KB_ASSERT(proxy->kb_magic == (uint32_t)KB_MAGIC_tcp_proxy);
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
