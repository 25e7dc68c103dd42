/* SPDX-License-Identifier: Apache-2.0 */
/* One attempt of a stream at an upstream host: waits for a connection, sends the request, hears the
 * answer (Envoy Router::UpstreamRequest). */
#include "proxy/api/cluster_policies.h"
#include "proxy/http/metadata_blocks.h"
#include "proxy/http/upstream_http_filters.h"
#include "proxy/router/attempt_record.h"
#include "proxy/router/hedging.h"

static void per_try_timer_fired(struct kb_timer *timer);
static void per_try_idle_timer_fired(struct kb_timer *timer);

/* The end of an attempt that has one. */
struct kb_attempt_duration {
    struct kb_timer timer;
    struct kb_upstream_request *upstream;
};

static struct kb_loop *loop_of(struct kb_upstream_request *upstream)
{
    return &upstream->router->worker->loop;
}

/* To be called first when something happens to an attempt. */
static void present(struct kb_upstream_request *upstream)
{
    if (KB_UNLIKELY(upstream->router->upstream != upstream)) {
        kb_hedging_present(upstream);
    }
}

static void idle_touch(struct kb_upstream_request *upstream)
{
    if (upstream->router->per_try_idle_timeout_ms > 0 && !upstream->done) {
        kb_loop_timer_arm(loop_of(upstream), &upstream->per_try_idle_timer,
                          upstream->router->per_try_idle_timeout_ms);
    }
}

static void duration_timer_fired(struct kb_timer *timer)
{
    struct kb_attempt_duration *duration =
        KB_CONTAINER_OF(timer, struct kb_attempt_duration, timer);

    present(KB_CAST(duration->upstream, kb_upstream_request));
    kb_router_on_max_duration(duration->upstream->router);
}

static KB_COLD void duration_start(struct kb_upstream_request *upstream)
{
    struct kb_router *router = upstream->router;

    upstream->duration = KB_ARENA_NEW(router->arena, struct kb_attempt_duration);
    upstream->duration->upstream = upstream;
    kb_timer_init(&upstream->duration->timer, duration_timer_fired);
    kb_loop_timer_arm(loop_of(upstream), &upstream->duration->timer, router->max_duration_ms);
}

static void timers_cancel(struct kb_upstream_request *upstream)
{
    struct kb_loop *loop = loop_of(upstream);

    kb_loop_timer_cancel(loop, &upstream->per_try_timer);
    kb_loop_timer_cancel(loop, &upstream->per_try_idle_timer);
    if (KB_UNLIKELY(upstream->duration != NULL)) {
        kb_loop_timer_cancel(loop, &upstream->duration->timer);
    }
}

static void on_below_low(void *owner);

/* ---- filters ---- */

static void trailers_filter(struct kb_upstream_request *upstream)
{
    if (KB_UNLIKELY(upstream->filters != NULL)) {
        kb_upstream_http_filters_decode_trailers(upstream->filters,
                                                 upstream->router->request_trailers);
    }
}

static KB_COLD void filters_decode(struct kb_upstream_request *upstream)
{
    struct kb_router *router = upstream->router;

    if (!upstream->filtered) {
        upstream->filtered = true;
        kb_upstream_http_filters_decode_headers(upstream->filters, router->request,
                                                router->head_only);
    }
}

/* ---- answer ---- */

/* Others are skipped (RFC 9110 section 15.2). */
static bool passed_on(unsigned status)
{
    return status == 100 || (status >= 102 && status <= 104);
}

static void on_1xx(void *owner, struct kb_header_map *headers)
{
    struct kb_upstream_request *upstream = KB_CAST(owner, kb_upstream_request);

    present(upstream);
    if (upstream->interim_seen || !passed_on(headers->status)) {
        return;
    }
    upstream->interim_seen = true;
    if (KB_UNLIKELY(upstream->record != NULL)) {
        kb_attempt_record_1xx(upstream, headers);
    }
    kb_router_on_1xx(upstream->router, headers);
}

void kb_upstream_request_info(struct kb_upstream_request *upstream)
{
    struct kb_router *router = upstream->router;

    if (upstream->encoder != NULL) {
        struct kb_upstream_info *info = &router->info->upstream;
        const struct kb_upstream_info *earlier = router->earlier;

        kb_request_encoder_info(upstream->encoder, info);
        if (KB_UNLIKELY(earlier != NULL)) {
            info->wire_bytes_sent += earlier->wire_bytes_sent;
            info->wire_bytes_received += earlier->wire_bytes_received;
            info->header_bytes_sent += earlier->header_bytes_sent;
            info->header_bytes_received += earlier->header_bytes_received;
        }
    }
}

static void answer_ended(struct kb_upstream_request *upstream)
{
    upstream->done = true;
    kb_upstream_request_info(upstream);
    upstream->encoder = NULL;
    timers_cancel(upstream);
}

static void body_sent(struct kb_upstream_request *upstream, const struct kb_buf *data)
{
    if (KB_UNLIKELY(upstream->record != NULL)) {
        upstream->record->body_sent += data->len;
    }
}

/* What came before there was somebody to send it to; the headers were sent. */
static KB_COLD void metadata_send(struct kb_upstream_request *upstream)
{
    struct kb_buf block;

    kb_buf_init(&block, &upstream->router->worker->slices, 0);
    while (kb_metadata_blocks_pop(upstream->metadata, &block)) {
        kb_request_encoder_metadata(upstream->encoder, &block);
    }
}

/* The answer to a request to upgrade came: what waited for it is sent, or is for nobody. */
static void pause_end(struct kb_upstream_request *upstream, bool agreed)
{
    upstream->paused = false;
    upstream->refused = !agreed;
    on_below_low(upstream);
    if (KB_UNLIKELY(upstream->metadata != NULL) && agreed) {
        metadata_send(upstream);
    }
    if (agreed && upstream->pending.len > 0) {
        body_sent(upstream, &upstream->pending);
        kb_request_encoder_data(upstream->encoder, &upstream->pending, false);
    } else {
        kb_buf_dispose(&upstream->pending);
    }
}

static void on_headers(void *owner, struct kb_header_map *headers, bool end_stream)
{
    struct kb_upstream_request *upstream = KB_CAST(owner, kb_upstream_request);
    uint64_t now_ns = kb_loop_now_ns(loop_of(upstream));
    struct kb_slice *slice;

    present(upstream);
    upstream->response_started = true;
    if (KB_UNLIKELY(upstream->paused)) {
        pause_end(upstream,
                  upstream->router->connect ? headers->status / 100 == 2 : headers->status == 101);
    }
    if (KB_UNLIKELY(upstream->filters != NULL)) {
        kb_upstream_http_filters_encode_headers(upstream->filters, headers, end_stream);
    }
    slice = kb_request_encoder_head_slice(upstream->encoder);
    upstream->head_slice = KB_LIKELY(slice != NULL) ? kb_slice_ref(slice) : NULL;
    upstream->router->info->upstream.first_rx_ns = now_ns;
    if (KB_UNLIKELY(upstream->record != NULL)) {
        kb_attempt_record_headers(upstream, headers);
    }
    kb_loop_timer_cancel(loop_of(upstream), &upstream->per_try_timer);
    idle_touch(upstream);
    if (end_stream) {
        upstream->router->info->upstream.last_rx_ns = now_ns;
        answer_ended(upstream);
    }
    kb_router_on_headers(upstream->router, headers, end_stream);
}

static void on_data(void *owner, struct kb_buf *data, bool end_stream)
{
    struct kb_upstream_request *upstream = KB_CAST(owner, kb_upstream_request);

    idle_touch(upstream);
    if (KB_UNLIKELY(upstream->record != NULL)) {
        upstream->record->body_received += data->len;
    }
    if (upstream->router->info->upstream.first_body_rx_ns == 0) {
        upstream->router->info->upstream.first_body_rx_ns = kb_loop_now_ns(loop_of(upstream));
    }
    if (end_stream) {
        struct kb_request_encoder *encoder = upstream->encoder;

        upstream->router->info->upstream.last_rx_ns = kb_loop_now_ns(loop_of(upstream));
        answer_ended(upstream);
        if (KB_UNLIKELY(upstream->router->pool_kind == KB_POOL_TCP) && !upstream->request_ended) {
            /* The upstream half-closed; there is no way to tell a HTTP/1 client. */
            kb_request_encoder_reset(encoder);
        }
    }
    kb_router_on_data(upstream->router, data, end_stream);
}

static void on_trailers(void *owner, struct kb_header_map *trailers)
{
    struct kb_upstream_request *upstream = KB_CAST(owner, kb_upstream_request);

    upstream->router->info->upstream.last_rx_ns = kb_loop_now_ns(loop_of(upstream));
    if (KB_UNLIKELY(upstream->filters != NULL)) {
        kb_upstream_http_filters_encode_trailers(upstream->filters, trailers);
    }
    if (KB_UNLIKELY(upstream->record != NULL)) {
        kb_attempt_record_trailers(upstream, trailers);
    }
    answer_ended(upstream);
    kb_router_on_trailers(upstream->router, trailers);
}

static void on_metadata(void *owner, struct kb_buf *block)
{
    struct kb_upstream_request *upstream = KB_CAST(owner, kb_upstream_request);

    present(upstream);
    idle_touch(upstream);
    kb_stream_encode_metadata(upstream->router->stream, block);
}

static void on_reset(void *owner, enum kb_reset_reason reason, struct kb_str transport_failure)
{
    struct kb_upstream_request *upstream = KB_CAST(owner, kb_upstream_request);

    present(upstream);
    if (KB_UNLIKELY(upstream->record != NULL)) {
        kb_attempt_record_flag(upstream, kb_router_reset_flag(reason));
    }
    answer_ended(upstream);
    kb_router_on_reset(upstream->router, reason, transport_failure);
}

static void on_above_high(void *owner)
{
    struct kb_upstream_request *upstream = KB_CAST(owner, kb_upstream_request);

    if (!upstream->downstream_stopped) {
        upstream->downstream_stopped = true;
        kb_stream_read_disable(upstream->router->stream, true);
    }
}

static void on_below_low(void *owner)
{
    struct kb_upstream_request *upstream = KB_CAST(owner, kb_upstream_request);

    if (upstream->downstream_stopped) {
        upstream->downstream_stopped = false;
        kb_stream_read_disable(upstream->router->stream, false);
    }
}

static const struct kb_response_decoder_ops decoder_ops = {
    .on_1xx = on_1xx,
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_metadata = on_metadata,
    .on_reset = on_reset,
    .on_above_high = on_above_high,
    .on_below_low = on_below_low,
};

/* ---- request ---- */

static void request_ended(struct kb_upstream_request *upstream)
{
    struct kb_router *router = upstream->router;

    upstream->request_ended = true;
    router->info->upstream.last_tx_ns = kb_loop_now_ns(loop_of(upstream));
    if (router->per_try_timeout_ms > 0) {
        kb_loop_timer_arm(loop_of(upstream), &upstream->per_try_timer, router->per_try_timeout_ms);
    }
}

static void on_ready(void *owner, struct kb_request_encoder *encoder, struct kb_host *host)
{
    struct kb_upstream_request *upstream = KB_CAST(owner, kb_upstream_request);
    struct kb_router *router = upstream->router;
    struct kb_upstream_info *info = &router->info->upstream;
    bool head_only = router->head_only;

    present(upstream);
    kb_host_put_result(upstream->host_local, KB_OUTLIER_CONNECT_SUCCESS, 0);
    upstream->encoder = encoder;
    upstream->waiter = NULL;
    upstream->headers_sent = true;
    info->connection_pool_ready_ns = kb_loop_now_ns(loop_of(upstream));
    info->first_tx_ns = info->connection_pool_ready_ns;
    if (KB_UNLIKELY(router->max_duration_ms > 0)) {
        duration_start(upstream);
    }
    if (KB_UNLIKELY(upstream->record != NULL)) {
        kb_attempt_record_ready(upstream);
    }
    if (KB_UNLIKELY(router->upgrade)) {
        upstream->paused = true;
        kb_upstream_request_info(upstream);
        if (KB_UNLIKELY(upstream->filters != NULL)) {
            filters_decode(upstream);
        }
        kb_request_encoder_headers(encoder, router->request, false);
        return;
    }
    /* Before anything is sent: the connection may stop the client again at once. */
    on_below_low(upstream);
    if (KB_UNLIKELY(router->route->auto_host_rewrite && host->hostname_len > 0)) {
        kb_route_rewrite_host(router->route, router->request, kb_host_hostname(host),
                              router->config->suppress_envoy_headers);
    }
    if (KB_UNLIKELY(upstream->filters != NULL)) {
        filters_decode(upstream);
    }
    kb_request_encoder_headers(encoder, router->request, head_only);
    if (KB_UNLIKELY(upstream->done)) {
        return; /* a TCP connection answered at once, and that was the end */
    }
    kb_upstream_request_info(upstream);
    if (KB_UNLIKELY(upstream->metadata != NULL)) {
        metadata_send(upstream);
    }
    if (!head_only && (upstream->pending.len > 0 || upstream->end_pending)) {
        body_sent(upstream, &upstream->pending);
        kb_request_encoder_data(encoder, &upstream->pending,
                                upstream->end_pending && !upstream->trailers_pending);
    }
    if (upstream->trailers_pending) {
        trailers_filter(upstream);
        kb_request_encoder_trailers(encoder, router->request_trailers);
    }
    if (upstream->end_pending || upstream->trailers_pending) {
        request_ended(upstream);
    }
    idle_touch(upstream);
}

static void on_failure(void *owner, enum kb_reset_reason reason, struct kb_str text,
                       struct kb_host *host)
{
    struct kb_upstream_request *upstream = KB_CAST(owner, kb_upstream_request);

    present(upstream);
    if (host == NULL) {
        upstream->router->info->upstream.host = NULL;
    }
    upstream->router->info->upstream.connection_pool_ready_ns = kb_loop_now_ns(loop_of(upstream));
    upstream->waiter = NULL;
    upstream->done = true;
    timers_cancel(upstream);
    if (KB_UNLIKELY(upstream->record != NULL)) {
        upstream->router->info->upstream.transport_failure_reason =
            kb_str_dup(upstream->router->arena, text);
        kb_attempt_record_flag(upstream, kb_router_reset_flag(reason));
    }
    kb_router_on_reset(upstream->router, reason, text);
}

static const struct kb_pool_callbacks pool_callbacks = {
    .on_ready = on_ready,
    .on_failure = on_failure,
};

void kb_upstream_request_start(struct kb_router *router, struct kb_host *host)
{
    struct kb_upstream_request *upstream = KB_ARENA_NEW(router->arena, struct kb_upstream_request);
    struct kb_upstream_info *info = &router->info->upstream;
    const struct kb_cluster_policies *policies = router->cluster->cluster->policies;
    const struct kb_upstream_http_chain *chain;

    KB_OBJ_SET(upstream, kb_upstream_request);
    upstream->router = router;
    upstream->host = host;
    upstream->host_local = kb_host_local_get(host, router->worker->index);
    kb_host_local_ref(upstream->host_local);
    upstream->start_ns = kb_loop_now_ns(&router->worker->loop);
    kb_buf_init(&upstream->pending, &router->worker->slices,
                kb_stream_buffer_limit(router->stream));
    kb_timer_init(&upstream->per_try_timer, per_try_timer_fired);
    kb_timer_init(&upstream->per_try_idle_timer, per_try_idle_timer_fired);
    upstream->end_pending = router->request_complete && router->request_trailers == NULL;
    upstream->trailers_pending = router->request_trailers != NULL;
    for (struct kb_segment *s = router->retry_body.first; s != NULL; s = s->next) {
        kb_buf_append_slice(&upstream->pending, s->slice, s->from, s->to - s->from);
    }
    router->upstream = upstream;
    info->host = host;
    info->cluster = host->cluster;
    router->info->upstream.connection_pool_asked_ns = kb_loop_now_ns(loop_of(upstream));
    if (KB_UNLIKELY(kb_attempt_recorded(router))) {
        kb_attempt_record_start(upstream);
    }
    chain = router->config->http_filters;
    if (KB_UNLIKELY(policies != NULL && policies->filters != NULL)) {
        chain = policies->filters;
    }
    if (KB_UNLIKELY(chain != NULL)) {
        upstream->filters = kb_upstream_http_filters_create(chain, router->stream);
    }
    kb_pool_new_stream(router->cluster, host, router->pool_kind, router->route->priority,
                       router->info->transport_options, router->arena, &pool_callbacks,
                       &decoder_ops, upstream, &upstream->waiter);
    if (KB_UNLIKELY(chain != NULL) && router->upstream == upstream && upstream->waiter != NULL) {
        filters_decode(upstream); /* they need not wait for the connection */
    }
}

void kb_upstream_request_data(struct kb_upstream_request *upstream, struct kb_buf *data,
                              bool end_stream)
{
    if (upstream->done || KB_UNLIKELY(upstream->refused)) {
        kb_buf_consume(data, data->len);
        return;
    }
    if (upstream->encoder == NULL || upstream->paused) {
        kb_buf_move(&upstream->pending, data);
        upstream->end_pending = end_stream;
        if (kb_buf_above_high(&upstream->pending)) {
            on_above_high(upstream);
        }
        return;
    }
    idle_touch(upstream);
    body_sent(upstream, data);
    kb_request_encoder_data(upstream->encoder, data, end_stream);
    if (end_stream) {
        request_ended(upstream);
    }
}

void kb_upstream_request_trailers(struct kb_upstream_request *upstream)
{
    if (upstream->done) {
        return;
    }
    if (upstream->encoder == NULL) {
        upstream->trailers_pending = true;
        return;
    }
    trailers_filter(upstream);
    kb_request_encoder_trailers(upstream->encoder, upstream->router->request_trailers);
    request_ended(upstream);
}

size_t kb_upstream_request_held(const struct kb_upstream_request *upstream)
{
    return upstream->pending.len +
           (upstream->encoder != NULL ? kb_request_encoder_unsent(upstream->encoder) : 0);
}

void kb_upstream_request_metadata(struct kb_upstream_request *upstream, struct kb_buf *block)
{
    struct kb_router *router = upstream->router;

    if (upstream->done || upstream->refused || upstream->request_ended) {
        return;
    }
    if (upstream->encoder != NULL && !upstream->paused) {
        idle_touch(upstream);
        kb_request_encoder_metadata(upstream->encoder, block);
        return;
    }
    if (upstream->metadata == NULL) {
        upstream->metadata = KB_ARENA_NEW(router->arena, struct kb_buf);
        kb_buf_init(upstream->metadata, &router->worker->slices, 0);
    }
    if (!kb_metadata_blocks_push(upstream->metadata, block)) {
        kb_stream_reset(router->stream);
    }
}

void kb_upstream_request_cancel(struct kb_upstream_request *upstream)
{
    if (upstream->waiter != NULL) {
        kb_pool_cancel(upstream->waiter);
        upstream->waiter = NULL;
    }
    if (upstream->encoder != NULL) {
        struct kb_request_encoder *encoder = upstream->encoder;

        answer_ended(upstream);
        if (KB_UNLIKELY(upstream->router->info->abandoned)) {
            kb_request_encoder_take_back(encoder);
        } else {
            kb_request_encoder_reset(encoder);
        }
    }
    upstream->done = true;
}

void kb_upstream_request_dispose(struct kb_upstream_request *upstream)
{
    struct kb_router *router = upstream->router;
    struct kb_host_local *let_go = upstream->host_local;

    KB_ASSERT(upstream->encoder == NULL && upstream->waiter == NULL);
    on_below_low(upstream);
    timers_cancel(upstream);
    if (KB_UNLIKELY(upstream->record != NULL)) {
        kb_attempt_record_end(upstream);
    }
    if (KB_UNLIKELY(upstream->filters != NULL)) {
        kb_upstream_http_filters_destroy(upstream->filters);
    }
    kb_buf_dispose(&upstream->pending);
    if (KB_UNLIKELY(upstream->metadata != NULL)) {
        kb_buf_dispose(upstream->metadata);
    }
    if (KB_UNLIKELY(router->response_started || router->done) && upstream->head_slice != NULL) {
        kb_slice_unref(router->head_slice);
        router->head_slice = upstream->head_slice; /* the log may name what the client got */
    } else {
        kb_slice_unref(upstream->head_slice);
    }
    if (KB_LIKELY(router->info->upstream.host == upstream->host)) { /* the log may name it */
        let_go = router->last_host;
        router->last_host = upstream->host_local;
    }
    if (let_go != NULL) {
        kb_host_local_unref(let_go);
    }
    KB_OBJ_CLEAR(upstream);
}

/* ---- timeouts ---- */

static void per_try_timer_fired(struct kb_timer *timer)
{
    struct kb_upstream_request *upstream =
        KB_CONTAINER_OF(timer, struct kb_upstream_request, per_try_timer);

    KB_ASSERT(upstream->kb_magic == (uint32_t)KB_MAGIC_kb_upstream_request);
    present(upstream);
    if (KB_UNLIKELY(upstream->record != NULL)) {
        kb_attempt_record_flag(upstream, KB_RF_UPSTREAM_REQUEST_TIMEOUT);
    }
    kb_router_on_per_try_timeout(upstream->router, false);
}

static void per_try_idle_timer_fired(struct kb_timer *timer)
{
    struct kb_upstream_request *upstream =
        KB_CONTAINER_OF(timer, struct kb_upstream_request, per_try_idle_timer);

    KB_ASSERT(upstream->kb_magic == (uint32_t)KB_MAGIC_kb_upstream_request);
    present(upstream);
    if (KB_UNLIKELY(upstream->record != NULL)) {
        kb_attempt_record_flag(upstream, KB_RF_STREAM_IDLE_TIMEOUT);
    }
    kb_router_on_per_try_timeout(upstream->router, true);
}
