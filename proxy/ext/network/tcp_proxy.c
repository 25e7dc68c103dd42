/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.network.tcp_proxy: bytes of one connection to a host of a cluster and back, with
 * half-close, back-pressure and idle timeout (Envoy TcpProxy::Filter). The way to the host is a TCP
 * connection, or a tunnel in a HTTP/1 request of our own; both are a request encoder of a pool. */
#include "proxy/ext/network/tcp_proxy.h"

#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/overload.h"
#include "proxy/api/ssl_connection_info.h"

/* One downstream connection. */
struct tcp_proxy {
    KB_OBJ;
    const struct kb_tcp_proxy_config *config;
    struct kb_worker *worker;
    struct kb_conn *down;
    struct kb_request_encoder *up; /* NULL: none */
    struct kb_pool_waiter *waiter;
    struct kb_stat_block *stats;
    struct kb_cluster_local *cluster;                  /* holds a reference */
    struct kb_host_local *host_local;                  /* of `up`; holds a reference */
    struct kb_host_local *shown_host;                  /* which the info names; holds a reference */
    const struct kb_metadata_criteria *metadata_match; /* NULL: none */
    struct kb_stream_info info;
    struct kb_arena arena;
    struct kb_timer idle_timer;
    struct kb_timer duration_timer;
    struct kb_timer log_timer;
    struct kb_timer retry_timer;
    uint64_t backoff_ms; /* upper end of the next wait */
    uint64_t idle_deadline_ms;
    uint32_t attempts;
    bool connected;  /* bytes pass: TCP is up, or the tunnel was agreed to */
    bool up_heard;   /* bytes came from the host */
    bool up_ended;   /* the client's end was passed on */
    size_t flushing; /* bytes that are on their way to the client when it is closed */
    bool up_http2;   /* the tunnel is a stream of HTTP/2 */
    bool down_closed;
    bool down_stopped;  /* reading of the client is disabled until the upstream is there */
    bool ended;         /* logged and counted */
    char stream_id[36]; /* made for the first line of the log */
};
KB_OBJ_MAGIC(tcp_proxy, 0x54435050);

static void idle_timer_fired(struct kb_timer *timer);
static void duration_timer_fired(struct kb_timer *timer);
static void log_timer_fired(struct kb_timer *timer);
static void retry_timer_fired(struct kb_timer *timer);
static void connect_attempt(struct tcp_proxy *proxy);

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
    kb_timer_init(&proxy->log_timer, log_timer_fired);
    kb_stat_inc(proxy->stats, KB_STAT_TCP_DOWNSTREAM_CX_TOTAL);
    kb_timer_init(&proxy->retry_timer, retry_timer_fired);
    proxy->backoff_ms = config->backoff_ms;
    conn->stream_info = &proxy->info;
    proxy->info.connection = &conn->info;
    proxy->info.worker = conn->worker;
    proxy->info.start_ns = kb_loop_now_ns(loop_of(proxy));
    proxy->info.wall_start_ns = kb_loop_wall_ns(loop_of(proxy));
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

static void host_release(struct kb_host_local **host)
{
    if (*host != NULL) {
        kb_host_local_unref(*host);
        *host = NULL;
    }
}

static void log_write(struct tcp_proxy *proxy, const char *type)
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

static void upstream_info(struct tcp_proxy *proxy)
{
    if (proxy->up != NULL) {
        kb_request_encoder_info(proxy->up, &proxy->info.upstream);
        proxy->up_http2 = proxy->info.upstream.protocol == KB_PROTOCOL_HTTP2;
        /* Nobody here speaks HTTP, even when a tunnel does. */
        proxy->info.upstream.protocol = KB_PROTOCOL_NONE;
    }
}

static void byte_counts_set(struct tcp_proxy *proxy)
{
    proxy->info.bytes_received = kb_conn_app_received(proxy->down);
    proxy->info.bytes_sent = kb_conn_app_sent(proxy->down) + proxy->flushing;
    proxy->info.wire_bytes_received = kb_conn_app_received(proxy->down);
    proxy->info.wire_bytes_sent = proxy->info.bytes_sent;
}

/* The connection is over: one log line. */
static void end(struct tcp_proxy *proxy)
{
    if (proxy->ended) {
        return;
    }
    proxy->ended = true;
    upstream_info(proxy);
    kb_loop_timer_cancel(loop_of(proxy), &proxy->idle_timer);
    kb_loop_timer_cancel(loop_of(proxy), &proxy->duration_timer);
    kb_loop_timer_cancel(loop_of(proxy), &proxy->log_timer);
    kb_loop_timer_cancel(loop_of(proxy), &proxy->retry_timer);
    proxy->info.end_ns = kb_loop_now_ns(loop_of(proxy));
    if (proxy->info.upstream.connection_pool_ready_ns == 0) {
        proxy->info.upstream.connection_pool_ready_ns = proxy->info.end_ns;
    }
    proxy->down->info.peer_reset = proxy->down->reset_detected;
    byte_counts_set(proxy);
    log_write(proxy, "TcpConnectionEnd");
}

static void tcp_proxy_destroy(void *filter)
{
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);

    end(proxy);
    KB_ASSERT(proxy->up == NULL && proxy->waiter == NULL);
    host_release(&proxy->host_local);
    host_release(&proxy->shown_host);
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

/* ---- the upstream's side of it ---- */

static void connected(struct tcp_proxy *proxy)
{
    kb_host_put_result(proxy->host_local, KB_OUTLIER_CONNECT_SUCCESS_FINAL, 0);
    proxy->connected = true;
    upstream_info(proxy);
    proxy->info.upstream.connection_pool_ready_ns = kb_loop_now_ns(loop_of(proxy));
    idle_touch(proxy);
    if (proxy->config->log_on_connected) {
        log_write(proxy, "TcpUpstreamConnected");
    }
    proxy->down_stopped = false;
    kb_conn_read_disable(proxy->down, false);
}

/* The next attempt, at once or after a random time that may be longer each time. */
static void retry(struct tcp_proxy *proxy)
{
    const struct kb_tcp_proxy_config *config = proxy->config;
    uint64_t limit_ms = proxy->backoff_ms;

    if (limit_ms == 0 || proxy->attempts >= config->max_connect_attempts) {
        connect_attempt(proxy);
        return;
    }
    proxy->backoff_ms =
        limit_ms < config->backoff_max_ms / 2 ? limit_ms * 2 : config->backoff_max_ms;
    kb_loop_timer_arm(loop_of(proxy), &proxy->retry_timer,
                      kb_rand_u64(&proxy->worker->rand) % limit_ms);
}

static void retry_timer_fired(struct kb_timer *timer)
{
    struct tcp_proxy *proxy = KB_CONTAINER_OF(timer, struct tcp_proxy, retry_timer);

    KB_ASSERT(proxy->kb_magic == (uint32_t)KB_MAGIC_tcp_proxy);
    connect_attempt(proxy);
}

/* No way to the host: the next attempt, if there is one. */
static void attempt_failed(struct tcp_proxy *proxy, enum kb_reset_reason reason, struct kb_str text)
{
    if (reason == KB_RESET_CONNECTION_TIMEOUT) {
        kb_host_put_result(proxy->host_local, KB_OUTLIER_TIMEOUT, 0);
    } else if (reason == KB_RESET_REMOTE_CONNECTION_FAILURE) {
        kb_host_put_result(proxy->host_local, KB_OUTLIER_CONNECT_FAILED, 0);
    }
    proxy->up = NULL;
    proxy->info.upstream.transport_failure_reason = kb_str_dup(&proxy->arena, text);
    if (reason != KB_RESET_OVERFLOW) {
        kb_stream_info_set_flag(&proxy->info, KB_RF_UPSTREAM_CONNECTION_FAILURE);
    }
    if (!proxy->down_closed) {
        retry(proxy);
    }
}

/* The way to the host is gone: what came of it is still given to the client. */
static void upstream_ended(struct tcp_proxy *proxy, bool reset)
{
    proxy->up = NULL;
    proxy->connected = false;
    if (proxy->down_closed) {
        return;
    }
    if (reset) {
        kb_stream_info_set_flag(&proxy->info, KB_RF_UPSTREAM_REMOTE_RESET);
    }
    proxy->flushing = reset ? 0 : proxy->down->out.len;
    kb_conn_close(proxy->down, reset ? KB_CONN_ABORT_RESET : KB_CONN_FLUSH_WRITE);
}

/* The pool has answered for this host: only now the log shows it. */
static void host_attempted(struct tcp_proxy *proxy, const struct kb_host *host)
{
    struct kb_upstream_info *info = &proxy->info.upstream;

    info->host = host;
    host_release(&proxy->shown_host);
    if (host != NULL) {
        kb_host_local_ref(proxy->host_local);
        proxy->shown_host = proxy->host_local;
        info->hosts_attempted =
            info->hosts_attempted.len == 0
                ? kb_str_dup(&proxy->arena, kb_host_addr_text(host))
                : kb_str_printf(&proxy->arena, "%.*s,%.*s", KB_STR_ARG(info->hosts_attempted),
                                KB_STR_ARG(kb_host_addr_text(host)));
    }
}

static void upstream_on_ready(void *owner, struct kb_request_encoder *encoder, struct kb_host *host)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);

    host_attempted(proxy, host);
    proxy->waiter = NULL;
    proxy->up = encoder;
    if (proxy->config->tunnel == NULL) {
        connected(proxy);
    } else {
        kb_request_encoder_headers(
            encoder,
            kb_tcp_tunnel_head(proxy->config->tunnel, &proxy->info, proxy->down, &proxy->arena),
            false);
    }
}

static void upstream_on_failure(void *owner, enum kb_reset_reason reason, struct kb_str text,
                                struct kb_host *host)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);

    host_attempted(proxy, host);
    proxy->waiter = NULL;
    attempt_failed(proxy, reason, text);
}

static const struct kb_pool_callbacks pool_callbacks = {
    .on_ready = upstream_on_ready,
    .on_failure = upstream_on_failure,
};

static void upstream_on_1xx(void *owner, struct kb_header_map *headers)
{
    (void)owner;
    (void)headers;
}

/* Of a tunnel: does its far end agree? */
static void upstream_on_headers(void *owner, struct kb_header_map *headers, bool end_stream)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);
    struct kb_request_encoder *encoder = proxy->up;

    if (proxy->config->tunnel != NULL) {
        kb_tcp_tunnel_headers_keep(proxy->config->tunnel, headers, &proxy->info, &proxy->arena);
    }
    if (headers->status / 100 == 2 && !end_stream) {
        connected(proxy);
        return;
    }
    upstream_info(proxy);
    if (!end_stream) {
        kb_request_encoder_reset(encoder);
    }
    attempt_failed(proxy, KB_RESET_CONNECT_ERROR,
                   kb_str_printf(&proxy->arena, "tunnel_response:%u", headers->status));
}

static void upstream_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);
    /* The last of it: when both sides have ended, or of an answer that has an end. */
    bool over = end_stream && (proxy->up_ended || proxy->config->tunnel != NULL);

    if (proxy->down_closed || proxy->up == NULL) {
        kb_buf_consume(in, in->len);
        return;
    }
    idle_touch(proxy);
    /* With the first bytes everything that the peer's proxy said of itself has come. */
    if (over || KB_UNLIKELY(!proxy->up_heard)) {
        proxy->up_heard = true;
        upstream_info(proxy);
    }
    kb_buf_move(&proxy->down->out, in);
    if (end_stream && !proxy->down->end_wanted) {
        kb_conn_end_stream(proxy->down);
    } else {
        kb_conn_written(proxy->down);
    }
    if (over) {
        upstream_ended(proxy, false);
    }
}

static void upstream_on_trailers(void *owner, struct kb_header_map *trailers)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);

    if (proxy->config->tunnel != NULL) {
        kb_tcp_tunnel_trailers_keep(proxy->config->tunnel, trailers, &proxy->info, &proxy->arena);
    }
    upstream_info(proxy);
    upstream_ended(proxy, false);
}

static void upstream_on_reset(void *owner, enum kb_reset_reason reason, struct kb_str failure)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);

    upstream_info(proxy);
    if (!proxy->connected) {
        attempt_failed(proxy, KB_RESET_REMOTE_CONNECTION_FAILURE, failure);
        return;
    }
    upstream_ended(proxy, proxy->config->tunnel == NULL ? proxy->up->peer_reset
                                                        : reason == KB_RESET_REMOTE_RESET);
}

static void upstream_on_above_high(void *owner)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);

    if (!proxy->down_closed) {
        kb_stat_inc(proxy->stats, KB_STAT_TCP_DOWNSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
        kb_conn_read_disable(proxy->down, true);
    }
}

static void upstream_on_below_low(void *owner)
{
    struct tcp_proxy *proxy = KB_CAST(owner, tcp_proxy);

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

static const struct kb_response_decoder_ops decoder_ops = {
    .on_1xx = upstream_on_1xx,
    .on_headers = upstream_on_headers,
    .on_data = upstream_on_data,
    .on_trailers = upstream_on_trailers,
    .on_reset = upstream_on_reset,
    .on_above_high = upstream_on_above_high,
    .on_below_low = upstream_on_below_low,
    .on_sent = upstream_on_sent,
};

/* ---- connecting ---- */

/* The PROXY protocol tells hosts of the client. */
static void client_name(struct tcp_proxy *proxy)
{
    struct kb_transport_socket_options *options =
        KB_ARENA_NEW(&proxy->arena, struct kb_transport_socket_options);

    if (proxy->info.transport_options != NULL) {
        *options = *proxy->info.transport_options;
    }
    options->client = kb_proxied_client_of(&proxy->down->info, &proxy->arena);
    proxy->info.transport_options = options;
}

static bool connection_hash(void *arg, uint64_t *hash)
{
    const struct tcp_proxy *proxy = KB_CAST(arg, tcp_proxy);
    const struct kb_addr *remote = &proxy->down->info.remote;
    const struct kb_filter_state_item *item;
    char text[KB_ADDR_TEXT_MAX];
    struct kb_str ip;

    if (proxy->config->hash_key != NULL) {
        item = kb_filter_state_find(&proxy->info, proxy->config->hash_key);
        return item != NULL && item->type->hash != NULL && item->type->hash(item->object, hash);
    }
    if (!kb_addr_is_ip(remote)) {
        return false;
    }
    ip = kb_addr_ip_text(remote, text);
    *hash = XXH64(ip.p, ip.len, 0);
    return true;
}

static void connect_attempt(struct tcp_proxy *proxy)
{
    struct kb_lb_request request = {.info = &proxy->info, .metadata = proxy->metadata_match};
    struct kb_host *host;

    if (proxy->config->hash_source_ip || proxy->config->hash_key != NULL) {
        request.hash = connection_hash;
        request.hash_arg = proxy;
    }

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
    if (KB_UNLIKELY(proxy->cluster->cluster->names_client) && proxy->attempts == 0) {
        client_name(proxy);
    }
    proxy->attempts++;
    proxy->info.attempt_count = proxy->attempts;
    host_release(&proxy->host_local);
    proxy->host_local = kb_host_local_get(host, proxy->worker->index);
    kb_host_local_ref(proxy->host_local);
    proxy->info.upstream.cluster = proxy->cluster->cluster;
    kb_pool_new_stream(proxy->cluster, host,
                       proxy->config->tunnel != NULL ? KB_POOL_HTTP : KB_POOL_TCP,
                       KB_PRIORITY_DEFAULT, proxy->info.transport_options, &proxy->arena,
                       &pool_callbacks, &decoder_ops, proxy, &proxy->waiter);
}

/* True when the overload manager wants the connection closed at this point. */
static bool shed(struct tcp_proxy *proxy, enum kb_overload_action point)
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

static uint64_t max_duration_ms(struct tcp_proxy *proxy)
{
    const struct kb_tcp_proxy_config *config = proxy->config;

    return config->max_duration_jitter_ms == 0
               ? config->max_duration_ms
               : config->max_duration_ms +
                     kb_rand_u64(&proxy->worker->rand) % config->max_duration_jitter_ms;
}

static enum kb_network_filter_status tcp_proxy_on_new_connection(void *filter)
{
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);
    const struct kb_tcp_proxy_cluster *cluster = cluster_pick(proxy);

    if (KB_UNLIKELY(shed(proxy, KB_OVERLOAD_SHED_TCP_PROXY_CONNECT))) {
        return KB_NETWORK_FILTER_STOP;
    }
    if (proxy->config->log_interval_ms > 0) {
        kb_loop_timer_arm(loop_of(proxy), &proxy->log_timer, proxy->config->log_interval_ms);
    }
    proxy->metadata_match = cluster->metadata_match;
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
        kb_loop_timer_arm(loop_of(proxy), &proxy->duration_timer, max_duration_ms(proxy));
    }
    if (proxy->config->idle_timeout_ms > 0) {
        idle_touch(proxy);
        kb_loop_timer_arm(loop_of(proxy), &proxy->idle_timer, proxy->config->idle_timeout_ms);
    }
    proxy->down_stopped = true;
    kb_conn_read_disable(proxy->down, true);
    connect_attempt(proxy);
    return KB_NETWORK_FILTER_CONTINUE;
}

/* ---- downstream events ---- */

/* The client ended its direction. A tunnel in HTTP/1 knows no half-close: Envoy ends it in both; in
 * HTTP/2 its far end says when it is over. */
static void tunnel_end(struct tcp_proxy *proxy)
{
    struct kb_request_encoder *up = proxy->up;

    upstream_info(proxy);
    if (proxy->up_http2) {
        return;
    }
    proxy->up = NULL;
    kb_request_encoder_close(up, KB_CONN_FLUSH_WRITE, proxy->config->idle_timeout_ms);
    upstream_ended(proxy, false);
}

static enum kb_network_filter_status tcp_proxy_on_data(void *filter, struct kb_buf *in,
                                                       bool end_stream)
{
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);

    if (proxy->up == NULL || !proxy->connected) {
        return KB_NETWORK_FILTER_STOP;
    }
    if (KB_UNLIKELY(shed(proxy, KB_OVERLOAD_SHED_TCP_PROXY_DATA))) {
        return KB_NETWORK_FILTER_STOP;
    }
    idle_touch(proxy);
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
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);

    if (event == KB_CONN_CONNECTED || proxy->down_closed) {
        return;
    }
    proxy->down_closed = true;
    end(proxy);
    if (proxy->waiter != NULL) {
        kb_pool_cancel(proxy->waiter);
    }
    if (proxy->up != NULL) {
        /* What the client sent before it went is still delivered, to a host that takes it. */
        enum kb_conn_close how = proxy->config->tunnel != NULL || event != KB_CONN_REMOTE_CLOSE
                                     ? KB_CONN_NO_FLUSH
                                 : proxy->down->reset_detected ? KB_CONN_ABORT_RESET
                                                               : KB_CONN_FLUSH_WRITE;
        struct kb_request_encoder *up = proxy->up;

        proxy->up = NULL;
        proxy->connected = false;
        kb_request_encoder_close(up, how, proxy->config->idle_timeout_ms);
    }
}

static void tcp_proxy_on_above_high(void *filter)
{
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);

    if (proxy->up != NULL) {
        kb_stat_inc(proxy->cluster->stats,
                    KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
        kb_request_encoder_read_disable(proxy->up, true);
    }
}

static void tcp_proxy_on_below_low(void *filter)
{
    struct tcp_proxy *proxy = KB_CAST(filter, tcp_proxy);

    if (proxy->up != NULL) {
        kb_stat_inc(proxy->cluster->stats,
                    KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
        kb_request_encoder_read_disable(proxy->up, false);
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

static void log_timer_fired(struct kb_timer *timer)
{
    struct tcp_proxy *proxy = KB_CONTAINER_OF(timer, struct tcp_proxy, log_timer);

    KB_ASSERT(proxy->kb_magic == (uint32_t)KB_MAGIC_tcp_proxy);
    upstream_info(proxy);
    byte_counts_set(proxy);
    log_write(proxy, "TcpPeriodic");
    kb_loop_timer_arm(loop_of(proxy), timer, proxy->config->log_interval_ms);
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
