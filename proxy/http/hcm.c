/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP connection manager of one downstream connection: its codec, its streams, its timeouts
 * and its end. */
#include "proxy/http/hcm.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/api/ssl_connection_info.h"
#include "proxy/http/hcm_internal.h"

#define IDLE_OBJECTS_MAX 128

static void idle_timer_fired(struct kb_timer *timer);
static void duration_timer_fired(struct kb_timer *timer);
static void drain_timer_fired(struct kb_timer *timer);
static void close_check(struct kb_deferred *deferred);

/* ---- per worker ---- */

static void http_worker_dispose(struct kb_worker *worker)
{
    struct kb_http_worker *http = worker->slots[KB_SLOT_HTTP];

    worker->slot_bytes[KB_SLOT_HTTP] = NULL;
    kb_pool_dispose(&http->streams);
    kb_pool_dispose(&http->managers);
    kb_h2_mem_dispose(&http->h2_mem);
    free(http);
    worker->slots[KB_SLOT_HTTP] = NULL;
}

static uint64_t pool_bytes(const struct kb_pool *pool)
{
    return __atomic_load_n(&pool->used_count, __ATOMIC_RELAXED) *
           (uint64_t)kb_pool_object_size(pool);
}

/* From any thread. */
static uint64_t http_worker_bytes(const struct kb_worker *worker)
{
    const struct kb_http_worker *http = worker->slots[KB_SLOT_HTTP];

    return pool_bytes(&http->streams) +
           __atomic_load_n(&http->h2_mem.bytes_in_use, __ATOMIC_RELAXED);
}

struct kb_http_worker *kb_http_worker_get(struct kb_worker *worker)
{
    struct kb_http_worker *http = worker->slots[KB_SLOT_HTTP];

    if (KB_UNLIKELY(http == NULL)) {
        http = kb_calloc(1, sizeof(*http));
        kb_pool_init(&http->streams, sizeof(struct kb_stream), IDLE_OBJECTS_MAX);
        kb_pool_init(&http->managers, sizeof(struct kb_hcm), IDLE_OBJECTS_MAX);
        kb_h2_mem_init(&http->h2_mem);
        kb_list_init(&http->hcms);
        worker->slots[KB_SLOT_HTTP] = http;
        worker->slot_dispose[KB_SLOT_HTTP] = http_worker_dispose;
        __atomic_store_n(&worker->slot_bytes[KB_SLOT_HTTP], http_worker_bytes, __ATOMIC_RELEASE);
    }
    return http;
}

struct kb_h2_mem *kb_h2_mem_of(struct kb_worker *worker)
{
    return &kb_http_worker_get(worker)->h2_mem;
}

/* ---- lifecycle ---- */

/* Connections that a filter in front closes count too. */
static void connection_count(struct kb_hcm *hcm)
{
    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_TOTAL);
    kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_ACTIVE, 1);
    if (hcm->conn->info.tls) {
        kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_SSL_TOTAL);
        kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_SSL_ACTIVE, 1);
    }
}

void *kb_hcm_create(void *config, struct kb_conn *conn)
{
    struct kb_hcm_config *c = KB_CAST(config, kb_hcm_config);
    struct kb_hcm *hcm = kb_pool_acquire(&kb_http_worker_get(conn->worker)->managers);

    memset(hcm, 0, sizeof(*hcm));
    KB_OBJ_SET(hcm, kb_hcm);
    hcm->config = c;
    hcm->conn = conn;
    hcm->worker = conn->worker;
    conn->info.scheme_match_upstream = c->scheme_match_upstream;
    conn->info.unnamed_upstream = c->unnamed_upstream;
    hcm->stats = kb_stat_group_block(c->http_stats, conn->worker->index);
    if (c->listener_stats != NULL) {
        hcm->listener_stats = kb_stat_group_block(c->listener_stats, conn->worker->index);
    }
    hcm->http1_stats = kb_stat_group_block(c->http1_stats, conn->worker->index);
    hcm->requests_limit =
        c->max_requests_per_connection > 0 ? c->max_requests_per_connection : UINT32_MAX;
    kb_list_init(&hcm->streams);
    kb_list_push_back(&kb_http_worker_get(conn->worker)->hcms, &hcm->link);
    kb_timer_init(&hcm->idle_timer, idle_timer_fired);
    kb_timer_init(&hcm->duration_timer, duration_timer_fired);
    kb_timer_init(&hcm->drain_timer, drain_timer_fired);
    kb_deferred_init(&hcm->close_check, close_check);
    kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_RX_BYTES_BUFFERED, 0);
    conn->early_close_detected = true;
    conn->close_told_late = true;
    if (conn->in.high > 0) {
        /* A head has its own limit and must be able to reach it. */
        conn->in.high = KB_MAX(conn->in.high, (size_t)c->h1.max_head_bytes + 1);
    }
    conn->stat_block = hcm->stats;
    conn->stat_rx_total = KB_STAT_HTTP_DOWNSTREAM_CX_RX_BYTES_TOTAL;
    conn->stat_rx_buffered = KB_STAT_HTTP_DOWNSTREAM_CX_RX_BYTES_BUFFERED;
    conn->stat_tx_total = KB_STAT_HTTP_DOWNSTREAM_CX_TX_BYTES_TOTAL;
    conn->stat_tx_buffered = KB_STAT_HTTP_DOWNSTREAM_CX_TX_BYTES_BUFFERED;
    conn->stat_delayed_close = KB_STAT_HTTP_DOWNSTREAM_CX_DELAYED_CLOSE_TIMEOUT;
    conn->delayed_close_ms = c->delayed_close_ms;
    connection_count(hcm);
    return hcm;
}

static void hcm_destroy(void *filter)
{
    struct kb_hcm *hcm = KB_CAST(filter, kb_hcm);

    KB_ASSERT(hcm->stream_count == 0);
    kb_loop_timer_cancel(&hcm->worker->loop, &hcm->idle_timer);
    kb_loop_timer_cancel(&hcm->worker->loop, &hcm->duration_timer);
    kb_loop_timer_cancel(&hcm->worker->loop, &hcm->drain_timer);
    kb_deferred_cancel(&hcm->close_check);
    kb_list_unlink(&hcm->link);
    if (hcm->h2 != NULL) {
        kb_h2_server_destroy(hcm->h2);
    } else if (hcm->codec_made) {
        kb_h1_server_dispose(&hcm->h1);
    }
    KB_OBJ_CLEAR(hcm);
    kb_pool_release(&kb_http_worker_get(hcm->worker)->managers, hcm);
}

/* While streams are there it runs on in vain: the end of the last one moves it. */
static void idle_timer_arm(struct kb_hcm *hcm)
{
    uint64_t timeout_ms = hcm->config->idle_timeout_ms;

    if (timeout_ms > 0) {
        hcm->idle_since_ms = kb_loop_now_ms(&hcm->worker->loop);
        kb_loop_timer_arm(&hcm->worker->loop, &hcm->idle_timer,
                          kb_overload_timeout(hcm->config->overload,
                                              KB_OVERLOAD_TIMER_CONNECTION_IDLE, timeout_ms));
    }
}

static enum kb_network_filter_status hcm_on_new_connection(void *filter)
{
    struct kb_hcm *hcm = KB_CAST(filter, kb_hcm);

    idle_timer_arm(hcm);
    if (hcm->config->max_connection_duration_ms > 0) {
        kb_loop_timer_arm(&hcm->worker->loop, &hcm->duration_timer,
                          kb_overload_timeout(hcm->config->overload,
                                              KB_OVERLOAD_TIMER_CONNECTION_MAX,
                                              hcm->config->max_connection_duration_ms));
    }
    return KB_NETWORK_FILTER_CONTINUE;
}

/* ---- events of the connection ---- */

/* By what ALPN chose, or how the first bytes begin (Envoy autoCreateCodec). */
static bool speaks_http2(struct kb_hcm *hcm, struct kb_buf *in)
{
    struct kb_str alpn;

    if (hcm->config->codec != KB_HCM_CODEC_AUTO) {
        return hcm->config->codec == KB_HCM_CODEC_HTTP2;
    }
    alpn = kb_ssl_text(hcm->conn->info.ssl, KB_SSL_ALPN);
    if (alpn.len > 0) {
        return kb_str_eq(alpn, KB_STR("h2"));
    }
    return in->len >= sizeof(KB_H2_PREFACE_START) - 1 &&
           kb_str_starts_with(kb_buf_pullup(in, sizeof(KB_H2_PREFACE_START) - 1),
                              KB_STR(KB_H2_PREFACE_START));
}

static void codec_make(struct kb_hcm *hcm, struct kb_buf *in)
{
    hcm->codec_made = true;
    hcm->conn->info.protocol = KB_PROTOCOL_HTTP11;
    if (speaks_http2(hcm, in)) {
        hcm->conn->info.protocol = KB_PROTOCOL_HTTP2;
        hcm->http2_stats = kb_stat_group_block(hcm->config->http2_stats, hcm->worker->index);
        hcm->h2 = kb_h2_server_create(hcm);
        kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_HTTP2_TOTAL);
        kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_HTTP2_ACTIVE, 1);
        return;
    }
    kb_h1_server_init(&hcm->h1, hcm);
    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_HTTP1_TOTAL);
    kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_HTTP1_ACTIVE, 1);
}

/* Whether a stream is not ended; those that are wait for the end of the event. */
static bool stream_active(struct kb_hcm *hcm)
{
    KB_LIST_FOREACH (link, &hcm->streams) {
        if (!KB_LIST_ENTRY(link, struct kb_stream, link)->ended) {
            return true;
        }
    }
    return false;
}

/* Takes nothing more, and ends what is under way. */
static void streams_end(struct kb_hcm *hcm, bool by_peer)
{
    struct kb_loop *loop = &hcm->worker->loop;

    if (hcm->closed) {
        return;
    }
    hcm->closed = true;
    kb_loop_timer_cancel(loop, &hcm->idle_timer);
    kb_loop_timer_cancel(loop, &hcm->duration_timer);
    kb_loop_timer_cancel(loop, &hcm->drain_timer);
    if (stream_active(hcm)) {
        kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_DESTROY_ACTIVE_RQ);
        kb_stat_inc(hcm->stats, by_peer ? KB_STAT_HTTP_DOWNSTREAM_CX_DESTROY_REMOTE_ACTIVE_RQ
                                        : KB_STAT_HTTP_DOWNSTREAM_CX_DESTROY_LOCAL_ACTIVE_RQ);
    }
    KB_LIST_FOREACH (link, &hcm->streams) {
        kb_stream_on_disconnect(KB_LIST_ENTRY(link, struct kb_stream, link), by_peer);
    }
    if (hcm->h2 != NULL) {
        kb_h2_server_stop(hcm->h2);
    }
}

static void connection_close(struct kb_hcm *hcm, enum kb_conn_close how)
{
    if (hcm->h2 != NULL && !hcm->closed &&
        (how == KB_CONN_FLUSH_WRITE || how == KB_CONN_FLUSH_WRITE_AND_DELAY)) {
        kb_h2_server_flush(hcm->h2);
    }
    streams_end(hcm, false);
    kb_conn_close(hcm->conn, how);
}

static enum kb_network_filter_status hcm_on_data(void *filter, struct kb_buf *in, bool end_stream)
{
    struct kb_hcm *hcm = KB_CAST(filter, kb_hcm);

    (void)end_stream;
    if (KB_UNLIKELY(!hcm->codec_made)) {
        if (kb_overload_any(hcm->config->overload) &&
            kb_overload_shed(hcm->config->overload, KB_OVERLOAD_SHED_HCM_CODEC, hcm->worker)) {
            kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_OVERLOAD_CLOSE);
            connection_close(hcm, KB_CONN_FLUSH_WRITE_AND_DELAY);
            return KB_NETWORK_FILTER_STOP;
        }
        codec_make(hcm, in);
    }
    if (KB_UNLIKELY(kb_overload_any(hcm->config->overload)) && kb_hcm_dispatch_shed(hcm, in)) {
        return KB_NETWORK_FILTER_STOP;
    }
    if (KB_UNLIKELY(hcm->h2 != NULL)) {
        kb_h2_server_dispatch(hcm->h2, in);
    } else {
        kb_h1_server_dispatch(&hcm->h1, in);
    }
    if (KB_UNLIKELY(hcm->drain == KB_HCM_CLOSING) && !hcm->closed && !stream_active(hcm)) {
        /* Answered while its request was read: the client may not be done writing. */
        kb_hcm_streams_reap(hcm);
        connection_close(hcm, KB_CONN_FLUSH_WRITE_AND_DELAY);
    }
    return KB_NETWORK_FILTER_STOP;
}

/* The end of the connection; where we closed it, after what was left to send and to wait for. */
static void hcm_on_event(void *filter, enum kb_conn_event event)
{
    struct kb_hcm *hcm = KB_CAST(filter, kb_hcm);
    struct kb_stat_block *stats = hcm->stats;
    bool by_peer = event == KB_CONN_REMOTE_CLOSE;

    if (event == KB_CONN_CONNECTED) {
        return;
    }
    streams_end(hcm, by_peer);
    kb_stat_inc(stats, KB_STAT_HTTP_DOWNSTREAM_CX_DESTROY);
    kb_stat_inc(stats, by_peer ? KB_STAT_HTTP_DOWNSTREAM_CX_DESTROY_REMOTE
                               : KB_STAT_HTTP_DOWNSTREAM_CX_DESTROY_LOCAL);
    kb_stat_gauge_add(stats, KB_STAT_HTTP_DOWNSTREAM_CX_ACTIVE, -1);
    if (hcm->conn->info.tls) {
        kb_stat_gauge_add(stats, KB_STAT_HTTP_DOWNSTREAM_CX_SSL_ACTIVE, -1);
    }
    if (hcm->codec_made) {
        kb_stat_gauge_add(stats,
                          hcm->h2 != NULL ? KB_STAT_HTTP_DOWNSTREAM_CX_HTTP2_ACTIVE
                                          : KB_STAT_HTTP_DOWNSTREAM_CX_HTTP1_ACTIVE,
                          -1);
    }
    if (hcm->soft_drain) {
        kb_stat_gauge_add(stats, KB_STAT_HTTP_DOWNSTREAM_CX_HTTP1_SOFT_DRAIN, -1);
    }
    kb_stat_record(stats, KB_STAT_HTTP_DOWNSTREAM_CX_LENGTH_MS,
                   (kb_loop_now_ns(&hcm->worker->loop) - hcm->conn->info.start_ns) / 1000000);
}

static void hcm_on_above_high(void *filter)
{
    struct kb_hcm *hcm = KB_CAST(filter, kb_hcm);

    if (hcm->h2 != NULL) {
        kb_h2_server_blocked(hcm->h2); /* its streams have watermarks of their own */
        return;
    }
    KB_LIST_FOREACH (link, &hcm->streams) {
        kb_stream_filters_watermark(KB_LIST_ENTRY(link, struct kb_stream, link), true);
    }
}

/* Requests that came while the connection could take none are looked at again, behind this event.
 */
static void input_resume(struct kb_hcm *hcm)
{
    if (KB_UNLIKELY(hcm->conn->in.len > 0) && !hcm->closed) {
        kb_conn_written(hcm->conn);
    }
}

static void hcm_on_below_low(void *filter)
{
    struct kb_hcm *hcm = KB_CAST(filter, kb_hcm);

    if (hcm->h2 != NULL) {
        return;
    }
    KB_LIST_FOREACH (link, &hcm->streams) {
        kb_stream_filters_watermark(KB_LIST_ENTRY(link, struct kb_stream, link), false);
    }
    input_resume(hcm);
}

static void hcm_on_sent(void *filter, size_t n)
{
    struct kb_hcm *hcm = KB_CAST(filter, kb_hcm);

    if (KB_UNLIKELY(hcm->h2 != NULL)) {
        kb_h2_server_sent(hcm->h2, n);
        return;
    }
    KB_LIST_FOREACH (link, &hcm->streams) {
        kb_stream_touch(KB_LIST_ENTRY(link, struct kb_stream, link));
    }
}

/* ---- ending ---- */

static void close_check(struct kb_deferred *deferred)
{
    struct kb_hcm *hcm = KB_CONTAINER_OF(deferred, struct kb_hcm, close_check);

    if (hcm->closed || hcm->drain != KB_HCM_CLOSING || hcm->stream_count > 0) {
        return;
    }
    connection_close(hcm, hcm->close_delayed ? KB_CONN_FLUSH_WRITE_AND_DELAY : KB_CONN_FLUSH_WRITE);
}

void kb_hcm_close_codec_error(struct kb_stream *stream, struct kb_str details)
{
    kb_stream_info_set_flag(&stream->info, KB_RF_DOWNSTREAM_PROTOCOL_ERROR);
    stream->hcm->conn->info.flags |= 1U << KB_RF_DOWNSTREAM_PROTOCOL_ERROR;
    stream->info.response_code_details = details;
    connection_close(stream->hcm, KB_CONN_FLUSH_WRITE_AND_DELAY);
}

void kb_hcm_close(struct kb_hcm *hcm, enum kb_conn_close how)
{
    connection_close(hcm, how);
}

void kb_hcm_codec_failed(struct kb_hcm *hcm, struct kb_str details)
{
    KB_LIST_FOREACH (link, &hcm->streams) {
        struct kb_stream *stream = KB_LIST_ENTRY(link, struct kb_stream, link);
        const void *encoder = stream->encoder != NULL ? stream->encoder : stream->flushing;
        struct kb_str own = encoder != NULL ? kb_h2_server_stream_details(encoder) : KB_STR_NULL;

        if (!stream->ended) {
            kb_stream_info_set_flag(&stream->info, KB_RF_DOWNSTREAM_PROTOCOL_ERROR);
            stream->info.response_code_details = own.p != NULL ? own : details;
        }
    }
    hcm->conn->info.flags |= 1U << KB_RF_DOWNSTREAM_PROTOCOL_ERROR;
    if (hcm->conn->info.requests == 0) {
        hcm->conn->info.protocol = KB_PROTOCOL_NONE; /* nothing was understood */
    }
    connection_close(hcm, KB_CONN_FLUSH_WRITE_AND_DELAY);
}

void kb_hcm_drain_start(struct kb_hcm *hcm)
{
    if (hcm->drain != KB_HCM_NOT_DRAINING || hcm->closed) {
        return;
    }
    hcm->drain = KB_HCM_DRAINING;
    if (hcm->h2 != NULL) {
        kb_h2_server_drain_notice(hcm->h2);
    }
    kb_loop_timer_arm(&hcm->worker->loop, &hcm->drain_timer, hcm->config->drain_timeout_ms);
}

void kb_hcm_close_when_idle(struct kb_hcm *hcm)
{
    if (hcm->h2 != NULL && hcm->drain != KB_HCM_CLOSING) {
        kb_h2_server_goaway(hcm->h2);
    }
    hcm->drain = KB_HCM_CLOSING;
    hcm->close_delayed = true;
    if (hcm->stream_count == 0) {
        kb_loop_defer(&hcm->worker->loop, &hcm->close_check);
    }
}

static void drain_timer_fired(struct kb_timer *timer)
{
    struct kb_hcm *hcm = KB_CONTAINER_OF(timer, struct kb_hcm, drain_timer);

    KB_ASSERT(hcm->kb_magic == (uint32_t)KB_MAGIC_kb_hcm);
    kb_hcm_close_when_idle(hcm);
}

void kb_hcm_stream_ended(struct kb_hcm *hcm)
{
    if (hcm->closed || hcm->stream_count > 0) {
        return;
    }
    if (hcm->drain == KB_HCM_CLOSING) {
        kb_loop_defer(&hcm->worker->loop, &hcm->close_check);
        return;
    }
    idle_timer_arm(hcm);
    input_resume(hcm);
}

static void idle_timer_fired(struct kb_timer *timer)
{
    struct kb_hcm *hcm = KB_CONTAINER_OF(timer, struct kb_hcm, idle_timer);

    KB_ASSERT(hcm->kb_magic == (uint32_t)KB_MAGIC_kb_hcm);
    if (hcm->stream_count > 0 || hcm->closed) {
        return;
    }
    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_IDLE_TIMEOUT);
    if (!hcm->codec_made) {
        connection_close(hcm, KB_CONN_FLUSH_WRITE);
        return;
    }
    kb_hcm_drain_start(hcm);
}

static void duration_timer_fired(struct kb_timer *timer)
{
    struct kb_hcm *hcm = KB_CONTAINER_OF(timer, struct kb_hcm, duration_timer);

    KB_ASSERT(hcm->kb_magic == (uint32_t)KB_MAGIC_kb_hcm);
    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_MAX_DURATION_REACHED);
    if (!hcm->codec_made) {
        connection_close(hcm, KB_CONN_FLUSH_WRITE);
        return;
    }
    if (hcm->config->http1_safe_max_connection_duration && hcm->h2 == NULL) {
        if (hcm->drain == KB_HCM_NOT_DRAINING) {
            kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_HTTP1_SOFT_DRAIN, 1);
            hcm->soft_drain = true;
            hcm->requests_limit = 0;
        }
        return;
    }
    kb_hcm_drain_start(hcm);
}

static void hcm_on_drain(void *filter)
{
    struct kb_hcm *hcm = KB_CAST(filter, kb_hcm);

    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_DRAIN_CLOSE);
    kb_hcm_drain_start(hcm);
}

/* ---- streams ---- */

static KB_COLD void requests_limit_reached(struct kb_stream *stream)
{
    struct kb_hcm *hcm = stream->hcm;
    uint32_t max = hcm->config->max_requests_per_connection;

    if (max > 0 && hcm->requests >= max) {
        kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_MAX_REQUESTS_REACHED);
        if (hcm->h2 != NULL) {
            kb_hcm_drain_start(hcm);
            return;
        }
    } else if (!hcm->soft_drain) {
        return;
    }
    stream->saw_connection_close = true;
    hcm->drain = KB_HCM_CLOSING;
}

void kb_hcm_stream_count(struct kb_stream *stream)
{
    struct kb_hcm *hcm = stream->hcm;

    hcm->requests++;
    hcm->conn->info.requests++;
    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_TOTAL);
    kb_stat_inc(hcm->stats, KB_UNLIKELY(hcm->h2 != NULL) ? KB_STAT_HTTP_DOWNSTREAM_RQ_HTTP2_TOTAL
                                                         : KB_STAT_HTTP_DOWNSTREAM_RQ_HTTP1_TOTAL);
    if (KB_UNLIKELY(hcm->requests >= hcm->requests_limit)) {
        requests_limit_reached(stream);
    }
}

struct kb_stream *kb_hcm_stream_begin(struct kb_hcm *hcm, const struct kb_response_encoder_ops *ops,
                                      void *encoder)
{
    struct kb_stream *stream = kb_pool_acquire(&kb_http_worker_get(hcm->worker)->streams);

    kb_stream_init(stream, hcm, ops, encoder);
    kb_list_push_back(&hcm->streams, &stream->link);
    hcm->stream_count++;
    kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_ACTIVE, 1);
    kb_hcm_stream_count(stream);
    return stream;
}

const struct kb_network_filter_ops kb_ext_network_http_connection_manager = {
    .name = "envoy.filters.network.http_connection_manager",
    .type_url = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    .terminal = true,
    .config_create = kb_hcm_filter_config_create,
    .config_destroy = kb_hcm_filter_config_destroy,
    .create = kb_hcm_create,
    .on_new_connection = hcm_on_new_connection,
    .on_data = hcm_on_data,
    .on_event = hcm_on_event,
    .on_above_high = hcm_on_above_high,
    .on_below_low = hcm_on_below_low,
    .on_sent = hcm_on_sent,
    .on_drain = hcm_on_drain,
    .destroy = hcm_destroy,
};
