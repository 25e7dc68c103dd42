/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP proxy's way to a host: attempts and the waits between them, what the pool and the host
 * answer, and what of it the connection's log shows. */
#include <xxhash.h>

#include "proxy/api/filter_state.h"
#include "proxy/ext/network/tcp_proxy_internal.h"

/* ---- attempts ---- */

static void host_release(struct kb_host_local **host)
{
    if (*host != NULL) {
        kb_host_local_unref(*host);
        *host = NULL;
    }
}

void kb_tcp_proxy_upstream_info(struct kb_tcp_proxy *proxy)
{
    if (proxy->up != NULL) {
        kb_request_encoder_info(proxy->up, &proxy->info.upstream);
        proxy->up_http2 = proxy->info.upstream.protocol == KB_PROTOCOL_HTTP2;
        /* Nobody here speaks HTTP, even when a tunnel does. */
        proxy->info.upstream.protocol = KB_PROTOCOL_NONE;
    }
}

/* The next attempt, at once or after a random time that may be longer each time. */
static void retry(struct kb_tcp_proxy *proxy)
{
    const struct kb_tcp_proxy_config *config = proxy->config;
    uint64_t limit_ms = proxy->backoff_ms;

    if (limit_ms == 0 || proxy->attempts >= config->max_connect_attempts) {
        kb_tcp_proxy_connect(proxy);
        return;
    }
    proxy->backoff_ms =
        limit_ms < config->backoff_max_ms / 2 ? limit_ms * 2 : config->backoff_max_ms;
    kb_loop_timer_arm(kb_tcp_proxy_loop(proxy), &proxy->retry_timer,
                      kb_rand_u64(&proxy->worker->rand) % limit_ms);
}

/* No way to the host: the next attempt, if there is one. */
static void attempt_failed(struct kb_tcp_proxy *proxy, enum kb_reset_reason reason,
                           struct kb_str text)
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
void kb_tcp_proxy_upstream_ended(struct kb_tcp_proxy *proxy, bool reset)
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
static void host_attempted(struct kb_tcp_proxy *proxy, const struct kb_host *host)
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

static void connected(struct kb_tcp_proxy *proxy)
{
    kb_host_put_result(proxy->host_local, KB_OUTLIER_CONNECT_SUCCESS_FINAL, 0);
    proxy->connected = true;
    kb_tcp_proxy_upstream_info(proxy);
    proxy->info.upstream.connection_pool_ready_ns = kb_loop_now_ns(kb_tcp_proxy_loop(proxy));
    kb_tcp_proxy_touch(proxy);
    if (proxy->config->log_on_connected) {
        kb_tcp_proxy_log(proxy, "TcpUpstreamConnected");
    }
    proxy->down_stopped = false;
    kb_conn_read_disable(proxy->down, false);
}

/* ---- the pool ---- */

static void upstream_on_ready(void *owner, struct kb_request_encoder *encoder, struct kb_host *host)
{
    struct kb_tcp_proxy *proxy = KB_CAST(owner, kb_tcp_proxy);

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
    struct kb_tcp_proxy *proxy = KB_CAST(owner, kb_tcp_proxy);

    host_attempted(proxy, host);
    proxy->waiter = NULL;
    attempt_failed(proxy, reason, text);
}

static const struct kb_pool_callbacks pool_callbacks = {
    .on_ready = upstream_on_ready,
    .on_failure = upstream_on_failure,
};

/* ---- the host, or the far end of a tunnel ---- */

static void upstream_on_1xx(void *owner, struct kb_header_map *headers)
{
    (void)owner;
    (void)headers;
}

/* Of a tunnel: does its far end agree? */
static void upstream_on_headers(void *owner, struct kb_header_map *headers, bool end_stream)
{
    struct kb_tcp_proxy *proxy = KB_CAST(owner, kb_tcp_proxy);
    struct kb_request_encoder *encoder = proxy->up;

    if (proxy->config->tunnel != NULL) {
        kb_tcp_tunnel_headers_keep(proxy->config->tunnel, headers, &proxy->info, &proxy->arena);
    }
    if (headers->status / 100 == 2 && !end_stream) {
        connected(proxy);
        return;
    }
    kb_tcp_proxy_upstream_info(proxy);
    if (!end_stream) {
        kb_request_encoder_reset(encoder);
    }
    attempt_failed(proxy, KB_RESET_CONNECT_ERROR,
                   kb_str_printf(&proxy->arena, "tunnel_response:%u", headers->status));
}

static void upstream_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct kb_tcp_proxy *proxy = KB_CAST(owner, kb_tcp_proxy);
    /* The last of it: when both sides have ended, or of an answer that has an end. */
    bool over = end_stream && (proxy->up_ended || proxy->config->tunnel != NULL);

    if (proxy->down_closed || proxy->up == NULL) {
        kb_buf_consume(in, in->len);
        return;
    }
    kb_tcp_proxy_touch(proxy);
    /* With the first bytes everything that the peer's proxy said of itself has come. */
    if (over || KB_UNLIKELY(!proxy->up_heard)) {
        proxy->up_heard = true;
        kb_tcp_proxy_upstream_info(proxy);
    }
    kb_buf_move(&proxy->down->out, in);
    if (end_stream && !proxy->down->end_wanted) {
        kb_conn_end_stream(proxy->down);
    } else {
        kb_conn_written(proxy->down);
    }
    if (over) {
        kb_tcp_proxy_upstream_ended(proxy, false);
    }
}

static void upstream_on_trailers(void *owner, struct kb_header_map *trailers)
{
    struct kb_tcp_proxy *proxy = KB_CAST(owner, kb_tcp_proxy);

    if (proxy->config->tunnel != NULL) {
        kb_tcp_tunnel_trailers_keep(proxy->config->tunnel, trailers, &proxy->info, &proxy->arena);
    }
    kb_tcp_proxy_upstream_info(proxy);
    kb_tcp_proxy_upstream_ended(proxy, false);
}

static void upstream_on_reset(void *owner, enum kb_reset_reason reason, struct kb_str failure)
{
    struct kb_tcp_proxy *proxy = KB_CAST(owner, kb_tcp_proxy);

    kb_tcp_proxy_upstream_info(proxy);
    if (!proxy->connected) {
        attempt_failed(proxy, KB_RESET_REMOTE_CONNECTION_FAILURE, failure);
        return;
    }
    kb_tcp_proxy_upstream_ended(proxy, proxy->config->tunnel == NULL
                                           ? proxy->up->peer_reset
                                           : reason == KB_RESET_REMOTE_RESET);
}

static void upstream_on_above_high(void *owner)
{
    struct kb_tcp_proxy *proxy = KB_CAST(owner, kb_tcp_proxy);

    if (!proxy->down_closed) {
        kb_stat_inc(proxy->stats, KB_STAT_TCP_DOWNSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
        kb_conn_read_disable(proxy->down, true);
    }
}

static void upstream_on_below_low(void *owner)
{
    struct kb_tcp_proxy *proxy = KB_CAST(owner, kb_tcp_proxy);

    if (!proxy->down_closed) {
        kb_stat_inc(proxy->stats, KB_STAT_TCP_DOWNSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
        kb_conn_read_disable(proxy->down, false);
    }
}

static void upstream_on_sent(void *owner, size_t n)
{
    (void)n;
    kb_tcp_proxy_touch(KB_CAST(owner, kb_tcp_proxy));
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

/* ---- asking for a host ---- */

/* The PROXY protocol tells hosts of the client. */
static void client_name(struct kb_tcp_proxy *proxy)
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
    const struct kb_tcp_proxy *proxy = KB_CAST(arg, kb_tcp_proxy);
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

void kb_tcp_proxy_connect(struct kb_tcp_proxy *proxy)
{
    struct kb_lb_request request = {.info = &proxy->info, .metadata = proxy->metadata_match};
    struct kb_host *host;

    if (proxy->config->hash_source_ip || proxy->config->hash_key != NULL) {
        request.hash = connection_hash;
        request.hash_arg = proxy;
    }

    if (proxy->attempts >= proxy->config->max_connect_attempts) {
        kb_stat_inc(proxy->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_ATTEMPTS_EXCEEDED);
        kb_tcp_proxy_fail(proxy, KB_RF_UPSTREAM_RETRY_LIMIT_EXCEEDED);
        return;
    }
    if (!kb_resource_can(proxy->cluster, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS)) {
        kb_stat_inc(proxy->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_CX_OVERFLOW);
        kb_tcp_proxy_fail(proxy, KB_RF_UPSTREAM_OVERFLOW);
        return;
    }
    host = kb_cluster_local_choose_host(proxy->cluster, &request);
    if (host == NULL) {
        kb_stat_inc(proxy->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_CX_NONE_HEALTHY);
        kb_tcp_proxy_fail(proxy, KB_RF_NO_HEALTHY_UPSTREAM);
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

/* ---- begin and end ---- */

static void retry_timer_fired(struct kb_timer *timer)
{
    struct kb_tcp_proxy *proxy = KB_CONTAINER_OF(timer, struct kb_tcp_proxy, retry_timer);

    KB_ASSERT(proxy->kb_magic == (uint32_t)KB_MAGIC_kb_tcp_proxy);
    kb_tcp_proxy_connect(proxy);
}

void kb_tcp_proxy_upstream_init(struct kb_tcp_proxy *proxy)
{
    kb_timer_init(&proxy->retry_timer, retry_timer_fired);
    proxy->backoff_ms = proxy->config->backoff_ms;
}

void kb_tcp_proxy_upstream_close(struct kb_tcp_proxy *proxy, enum kb_conn_close how)
{
    struct kb_request_encoder *up = proxy->up;

    kb_loop_timer_cancel(kb_tcp_proxy_loop(proxy), &proxy->retry_timer);
    if (proxy->waiter != NULL) {
        kb_pool_cancel(proxy->waiter);
    }
    if (up != NULL) {
        proxy->up = NULL;
        proxy->connected = false;
        kb_request_encoder_close(up, how, proxy->config->idle_timeout_ms);
    }
}

void kb_tcp_proxy_upstream_dispose(struct kb_tcp_proxy *proxy)
{
    KB_ASSERT(proxy->up == NULL && proxy->waiter == NULL);
    kb_loop_timer_cancel(kb_tcp_proxy_loop(proxy), &proxy->retry_timer);
    host_release(&proxy->host_local);
    host_release(&proxy->shown_host);
}
