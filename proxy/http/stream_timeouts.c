/* SPDX-License-Identifier: Apache-2.0 */
/* How long a stream waits: for its head, for its whole request, for anything to move; what comes
 * when that is over. How long it may last at all is stream_duration.c. */
#include "proxy/http/hcm_internal.h"
#include "proxy/http/local_reply.h"

void kb_stream_touch(struct kb_stream *stream)
{
    stream->idle_deadline_ms = kb_loop_now_ms(&stream->hcm->worker->loop) + stream->idle_timeout_ms;
}

/* ---- when one is over ---- */

static void idle_timeout(struct kb_stream *stream)
{
    if (KB_UNLIKELY(stream->flushing != NULL)) {
        /* The whole answer waits for a client that does not open its window. */
        kb_stat_inc(stream->hcm->http2_stats, KB_STAT_HTTP2_TX_FLUSH_TIMEOUT);
        kb_stream_cut_off_uncounted(stream);
        return;
    }
    kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_IDLE_TIMEOUT);
    kb_stream_info_set_flag(&stream->info, KB_RF_STREAM_IDLE_TIMEOUT);
    if (stream->response_started) {
        stream->info.response_code_details = KB_STR("stream_idle_timeout");
        kb_stream_cut_off(stream);
        return;
    }
    kb_stream_send_local_reply(stream, stream->remote_complete ? 504 : 408,
                               KB_STR("stream timeout"), KB_STR("stream_idle_timeout"),
                               kb_stream_route_headers_add, stream);
}

static void idle_timer_fired(struct kb_timer *timer)
{
    struct kb_stream *stream = KB_CONTAINER_OF(timer, struct kb_stream, headers_timer);
    struct kb_loop *loop = &stream->hcm->worker->loop;
    uint64_t now_ms = kb_loop_now_ms(loop);

    KB_ASSERT(stream->kb_magic == (uint32_t)KB_MAGIC_kb_stream);
    if (!stream->headers_decoded && stream->hcm->config->request_headers_timeout_ms > 0) {
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_HEADER_TIMEOUT);
        stream->saw_connection_close = true;
        if (stream->hcm->h2 != NULL) {
            /* What came of its head is not shown. */
            kb_header_map_init(&stream->request, &stream->arena);
        }
        kb_stream_send_local_reply(stream, 408, KB_STR("request header timeout"),
                                   KB_STR("request_header_timeout"), NULL, NULL);
        return;
    }
    if (stream->idle_timeout_ms == 0) {
        return;
    }
    if (kb_stream_idle_deadline(stream) > now_ms) {
        kb_loop_timer_arm(loop, timer, kb_stream_idle_deadline(stream) - now_ms);
        return;
    }
    idle_timeout(stream);
}

static void request_timer_fired(struct kb_timer *timer)
{
    struct kb_stream *stream = KB_CONTAINER_OF(timer, struct kb_stream, request_timer);

    KB_ASSERT(stream->kb_magic == (uint32_t)KB_MAGIC_kb_stream);
    kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_TIMEOUT);
    kb_stream_send_local_reply(stream, 408, KB_STR("request timeout"),
                               KB_STR("request_overall_timeout"), kb_stream_route_headers_add,
                               stream);
}

static void duration_timer_fired(struct kb_timer *timer)
{
    struct kb_stream *stream = KB_CONTAINER_OF(timer, struct kb_stream, duration_timer);

    KB_ASSERT(stream->kb_magic == (uint32_t)KB_MAGIC_kb_stream);
    kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_MAX_DURATION_REACHED);
    if (stream->response_started) {
        stream->info.response_code_details = KB_STR("max_duration_timeout");
        kb_stream_cut_off(stream);
        return;
    }
    kb_stream_set_reply_grpc_status(stream, 4); /* DEADLINE_EXCEEDED */
    kb_stream_send_local_reply(stream, stream->remote_complete ? 504 : 408,
                               KB_STR("downstream duration timeout"),
                               KB_STR("max_duration_timeout"), kb_stream_route_headers_add, stream);
}

/* ---- start and stop ---- */

void kb_stream_timeouts_start(struct kb_stream *stream)
{
    const struct kb_hcm_config *config = stream->hcm->config;
    struct kb_loop *loop = &stream->hcm->worker->loop;

    kb_timer_init(&stream->headers_timer, idle_timer_fired);
    kb_timer_init(&stream->request_timer, request_timer_fired);
    kb_timer_init(&stream->duration_timer, duration_timer_fired);
    stream->idle_timeout_ms = config->stream_idle_timeout_ms;
    if (config->request_timeout_ms > 0) {
        kb_loop_timer_arm(loop, &stream->request_timer, config->request_timeout_ms);
    }
    if (config->max_stream_duration_ms > 0) {
        kb_loop_timer_arm(loop, &stream->duration_timer, config->max_stream_duration_ms);
    }
    if (config->request_headers_timeout_ms > 0) {
        kb_loop_timer_arm(loop, &stream->headers_timer, config->request_headers_timeout_ms);
    } else if (stream->idle_timeout_ms > 0) {
        kb_stream_idle_arm(stream);
    }
}

void kb_stream_timeouts_stop(struct kb_stream *stream)
{
    struct kb_loop *loop = &stream->hcm->worker->loop;

    kb_loop_timer_cancel(loop, &stream->headers_timer);
    kb_loop_timer_cancel(loop, &stream->request_timer);
    kb_loop_timer_cancel(loop, &stream->duration_timer);
}

void kb_stream_timeouts_routed(struct kb_stream *stream)
{
    const struct kb_route *route = stream->route;
    struct kb_loop *loop = &stream->hcm->worker->loop;

    if (stream->hcm->config->request_headers_timeout_ms > 0) {
        kb_loop_timer_cancel(loop, &stream->headers_timer);
    }
    if (route != NULL && route->idle_timeout_set) {
        stream->idle_timeout_ms = route->idle_timeout_ms;
        kb_loop_timer_cancel(loop, &stream->headers_timer);
    }
    kb_stream_idle_arm(stream);
    if (route == NULL) {
        return;
    }
    if (KB_UNLIKELY(route->new_timeouts ||
                    (stream->recreated && route->kind == KB_ROUTE_CLUSTER))) {
        kb_stream_duration_refresh(stream);
    }
}
