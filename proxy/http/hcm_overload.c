/* SPDX-License-Identifier: Apache-2.0 */
/* The connection manager under an overload manager: requests that are refused before anything is
 * made for them, timers that run shorter, and connections and streams that have to go. */
#include "proxy/http/hcm_overload.h"

#include "proxy/http/hcm_internal.h"

static void overload_told(void *arg, struct kb_header_map *headers)
{
    const struct kb_stream *stream = KB_CAST(arg, kb_stream);

    if (stream->hcm->config->append_local_overload) {
        kb_header_map_add(headers, KB_STR("x-envoy-local-overloaded"), KB_STR("true"));
    }
}

bool kb_stream_overloaded(struct kb_stream *stream)
{
    const struct kb_overload_state *overload = stream->hcm->config->overload;
    struct kb_worker *worker = stream->hcm->worker;

    if (stream->recreated ||
        (!kb_overload_shed(overload, KB_OVERLOAD_SHED_HCM_DECODE_HEADERS, worker) &&
         !kb_overload_draw(overload, KB_OVERLOAD_STOP_ACCEPTING_REQUESTS, worker))) {
        return false;
    }
    kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_OVERLOAD_CLOSE);
    stream->without_filters = true;
    kb_stream_send_local_reply(stream, 503, KB_STR("envoy overloaded"), KB_STR("overload"),
                               overload_told, stream);
    return true;
}

/* GOAWAY to those who understand it; what is under way has no answer. */
static void go_away_and_close(struct kb_hcm *hcm)
{
    if (hcm->h2 != NULL) {
        kb_h2_server_drain_notice(hcm->h2);
        kb_h2_server_goaway(hcm->h2);
    }
    KB_LIST_FOREACH (link, &hcm->streams) {
        struct kb_stream *stream = KB_LIST_ENTRY(link, struct kb_stream, link);

        if (!stream->ended) {
            stream->info.response_code_details = KB_STR("forced_goaway");
        }
    }
    kb_hcm_close(hcm, KB_CONN_FLUSH_WRITE_AND_DELAY);
}

bool kb_hcm_dispatch_shed(struct kb_hcm *hcm, struct kb_buf *in)
{
    const struct kb_overload_state *overload = hcm->config->overload;

    if (hcm->closed) {
        return false;
    }
    if (kb_overload_shed(overload, KB_OVERLOAD_SHED_HTTP2_GO_AWAY_AND_CLOSE, hcm->worker)) {
        kb_buf_consume(in, in->len);
        go_away_and_close(hcm);
        return true;
    }
    if (kb_overload_shed(overload, KB_OVERLOAD_SHED_HTTP2_GO_AWAY, hcm->worker)) {
        kb_hcm_drain_start(hcm);
    }
    if (hcm->h2 == NULL && kb_overload_shed(overload, KB_OVERLOAD_SHED_HTTP1_ABORT, hcm->worker)) {
        kb_h1_server_abort(&hcm->h1, in);
        return true;
    }
    return false;
}

/* ---- timers ---- */

uint64_t kb_stream_idle_deadline(const struct kb_stream *stream)
{
    const struct kb_overload_state *overload = stream->hcm->config->overload;

    if (!kb_overload_any(overload)) {
        return stream->idle_deadline_ms;
    }
    return stream->idle_deadline_ms - stream->idle_timeout_ms +
           kb_overload_timeout_slow(overload,
                                    stream->flushing != NULL ? KB_OVERLOAD_TIMER_STREAM_FLUSH
                                                             : KB_OVERLOAD_TIMER_STREAM_IDLE,
                                    stream->idle_timeout_ms);
}

void kb_stream_idle_arm(struct kb_stream *stream)
{
    struct kb_loop *loop = &stream->hcm->worker->loop;

    kb_stream_touch(stream);
    if (stream->idle_timeout_ms > 0 && !kb_timer_armed(&stream->headers_timer)) {
        kb_loop_timer_arm(loop, &stream->headers_timer,
                          kb_stream_idle_deadline(stream) - kb_loop_now_ms(loop));
    }
}

static void timer_move(struct kb_loop *loop, struct kb_timer *timer, uint64_t deadline_ms)
{
    uint64_t now_ms = kb_loop_now_ms(loop);

    if (kb_timer_armed(timer)) {
        kb_loop_timer_arm(loop, timer, deadline_ms > now_ms ? deadline_ms - now_ms : 0);
    }
}

static void connection_timers_scale(struct kb_hcm *hcm)
{
    const struct kb_hcm_config *config = hcm->config;
    struct kb_loop *loop = &hcm->worker->loop;

    timer_move(loop, &hcm->idle_timer,
               hcm->idle_since_ms + kb_overload_timeout(config->overload,
                                                        KB_OVERLOAD_TIMER_CONNECTION_IDLE,
                                                        config->idle_timeout_ms));
    timer_move(loop, &hcm->duration_timer,
               hcm->conn->info.start_ns / 1000000 +
                   kb_overload_timeout(config->overload, KB_OVERLOAD_TIMER_CONNECTION_MAX,
                                       config->max_connection_duration_ms));
    KB_LIST_FOREACH (link, &hcm->streams) {
        struct kb_stream *stream = KB_LIST_ENTRY(link, struct kb_stream, link);

        if (stream->headers_decoded && stream->idle_timeout_ms > 0) {
            timer_move(loop, &stream->headers_timer, kb_stream_idle_deadline(stream));
        }
    }
}

void kb_http_worker_timers_scale(struct kb_worker *worker)
{
    KB_LIST_FOREACH (link, &kb_http_worker_get(worker)->hcms) {
        connection_timers_scale(KB_LIST_ENTRY(link, struct kb_hcm, link));
    }
}

/* ---- letting go ---- */

void kb_http_worker_close_idle(struct kb_worker *worker)
{
    KB_LIST_FOREACH (link, &kb_http_worker_get(worker)->hcms) {
        struct kb_hcm *hcm = KB_LIST_ENTRY(link, struct kb_hcm, link);

        if (hcm->stream_count == 0 && !hcm->closed && hcm->config->overload != &kb_overload_never) {
            kb_hcm_close_when_idle(hcm);
        }
    }
}

static size_t bytes_held(const struct kb_stream *stream)
{
    size_t bytes = stream->decode_buffer.len;

    for (size_t i = 0; i < stream->filter_count; i++) {
        const struct kb_stream_filter *filter = &stream->filters[i];

        if (filter->ops->bytes_held != NULL) {
            bytes += filter->ops->bytes_held(filter->self);
        }
    }
    if (stream->hcm->h2 == NULL) {
        return bytes + stream->hcm->conn->out.len + stream->hcm->conn->in.len;
    }
    if (stream->encoder != NULL || stream->flushing != NULL) {
        bytes +=
            kb_h2_server_stream_held(stream->encoder != NULL ? stream->encoder : stream->flushing);
    }
    return bytes;
}

unsigned kb_http_worker_reset_large(struct kb_worker *worker, size_t bytes, unsigned max)
{
    unsigned count = 0;

    KB_LIST_FOREACH (link, &kb_http_worker_get(worker)->hcms) {
        struct kb_hcm *hcm = KB_LIST_ENTRY(link, struct kb_hcm, link);

        if (hcm->closed || hcm->config->overload == &kb_overload_never) {
            continue;
        }
        KB_LIST_FOREACH (at, &hcm->streams) {
            struct kb_stream *stream = KB_LIST_ENTRY(at, struct kb_stream, link);

            if (!stream->ended && bytes_held(stream) >= bytes) {
                if (count == max) {
                    return count;
                }
                count++;
                stream->info.response_code_details = KB_STR("overload_manager_reset");
                kb_stream_cut_off(stream);
                if (hcm->closed) {
                    break;
                }
            }
        }
    }
    return count;
}
