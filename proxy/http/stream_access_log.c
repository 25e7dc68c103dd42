/* SPDX-License-Identifier: Apache-2.0 */
/* When a stream writes to the access logs: at its end, and, where access_log_options ask for it,
 * again and again while it lasts, and when its tunnel stands. */
#include "proxy/http/hcm_internal.h"

/* Of a stream that logs now and then; in its arena. */
struct kb_stream_log_timer {
    struct kb_timer timer;
    struct kb_stream *stream;
};

static void log_write(struct kb_stream *stream, const char *type, struct kb_arena *arena)
{
    struct kb_formatter_input input = {
        .request = &stream->request,
        .response = stream->response,
        .response_trailers = stream->response_trailers,
        .access_log_type = type,
    };
    const struct kb_access_log_list *log = stream->hcm->config->access_log;

    if (log != NULL && !kb_access_log_list_empty(log)) {
        kb_access_log_list_log(log, &input, &stream->info, arena);
    }
}

void kb_stream_log_write(struct kb_stream *stream, const char *type)
{
    log_write(stream, type, &stream->arena);
}

static void log_timer_fired(struct kb_timer *timer)
{
    struct kb_stream_log_timer *log = KB_CONTAINER_OF(timer, struct kb_stream_log_timer, timer);
    struct kb_stream *stream = KB_CAST(log->stream, kb_stream);
    struct kb_arena arena; /* of this line: a stream may last for days */

    kb_arena_init(&arena, &stream->hcm->worker->arena_blocks);
    if (stream->headers_decoded) {
        kb_stream_cluster_refresh(stream);
    }
    log_write(stream, "DownstreamPeriodic", &arena);
    kb_arena_dispose(&arena);
    kb_loop_timer_arm(&stream->hcm->worker->loop, timer,
                      stream->hcm->config->access_log_flush_interval_ms);
}

void kb_stream_log_timer_start(struct kb_stream *stream)
{
    stream->log_timer = KB_ARENA_NEW(&stream->arena, struct kb_stream_log_timer);
    stream->log_timer->stream = stream;
    kb_timer_init(&stream->log_timer->timer, log_timer_fired);
    kb_loop_timer_arm(&stream->hcm->worker->loop, &stream->log_timer->timer,
                      stream->hcm->config->access_log_flush_interval_ms);
}

void kb_stream_log_timer_stop(struct kb_stream *stream)
{
    kb_loop_timer_cancel(&stream->hcm->worker->loop, &stream->log_timer->timer);
}
