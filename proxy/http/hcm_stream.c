/* SPDX-License-Identifier: Apache-2.0 */
/* The life of one downstream stream: how it begins, every way in which it ends, and what is given
 * back then (Envoy ConnectionManagerImpl::ActiveStream). What passes through it is hcm_decode.c and
 * hcm_encode.c. */
#include "base/slot.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/runtime.h"
#include "proxy/api/ssl_connection_info.h"
#include "proxy/http/hcm_internal.h"
#include "proxy/http/local_reply.h"

static void destroy_deferred(struct kb_deferred *deferred);

/* ---- begin ---- */

/* On zeroed storage. */
static void info_init(struct kb_stream_info *info, struct kb_hcm *hcm)
{
    struct kb_loop *loop = &hcm->worker->loop;

    info->connection = &hcm->conn->info;
    info->worker = hcm->worker;
    info->start_ns = kb_loop_now_ns(loop);
    info->wall_start_ns = kb_loop_wall_ns(loop);
    info->remote = hcm->conn->info.remote;
    info->transport_options = hcm->conn->upstream_options;
    info->protocol = KB_PROTOCOL_HTTP11;
}

void kb_stream_init(struct kb_stream *stream, struct kb_hcm *hcm,
                    const struct kb_response_encoder_ops *ops, void *encoder)
{
    memset(stream, 0, sizeof(*stream));
    KB_OBJ_SET(stream, kb_stream);
    stream->hcm = hcm;
    stream->encoder_ops = ops;
    stream->encoder = encoder;
    kb_arena_init(&stream->arena, &hcm->worker->arena_blocks);
    kb_header_map_init(&stream->request, &stream->arena);
    info_init(&stream->info, hcm);
    kb_buf_init(&stream->decode_buffer, &hcm->worker->slices, hcm->conn->buffer_limit);
    kb_deferred_init(&stream->destroy, destroy_deferred);
    kb_stream_timeouts_start(stream);
    if (KB_UNLIKELY(hcm->config->access_log_flush_interval_ms > 0)) {
        kb_stream_log_timer_start(stream);
    }
}

void kb_stream_code_count(struct kb_stream *stream, unsigned status)
{
    static const uint16_t http_ids[] = {
        KB_STAT_HTTP_DOWNSTREAM_RQ_1XX, KB_STAT_HTTP_DOWNSTREAM_RQ_2XX,
        KB_STAT_HTTP_DOWNSTREAM_RQ_3XX, KB_STAT_HTTP_DOWNSTREAM_RQ_4XX,
        KB_STAT_HTTP_DOWNSTREAM_RQ_5XX,
    };
    static const uint16_t listener_ids[] = {
        KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_1XX, KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_2XX,
        KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_3XX, KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_4XX,
        KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_5XX,
    };
    unsigned group = status / 100;
    struct kb_hcm *hcm = stream->hcm;

    if (KB_UNLIKELY(stream->info.health_check)) {
        return;
    }
    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_COMPLETED);
    if (hcm->listener_stats != NULL) {
        kb_stat_inc(hcm->listener_stats, KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_COMPLETED);
    }
    if (group < 1 || group > 5) {
        return;
    }
    kb_stat_inc(hcm->stats, http_ids[group - 1]);
    if (hcm->listener_stats != NULL) {
        kb_stat_inc(hcm->listener_stats, listener_ids[group - 1]);
    }
}

/* ---- end ---- */

/* The filters end, and with them what was asked of upstreams. */
static void filters_end(struct kb_stream *stream)
{
    stream->filters_ended = true;
    stream->info.end_ns = kb_loop_now_ns(&stream->hcm->worker->loop);
    kb_stream_filters_complete(stream);
    kb_stream_log_write(stream, "DownstreamEnd");
    kb_stream_filters_destroy(stream);
}

static void destroy_deferred(struct kb_deferred *deferred)
{
    struct kb_stream *stream = KB_CONTAINER_OF(deferred, struct kb_stream, destroy);
    struct kb_hcm *hcm = stream->hcm;
    struct kb_worker *worker = hcm->worker;

    KB_ASSERT(stream->kb_magic == (uint32_t)KB_MAGIC_kb_stream);
    if (KB_LIKELY(!stream->filters_ended)) {
        filters_end(stream);
    }
    while (stream->read_disables > 0) {
        kb_stream_read_disable(stream, false);
    }
    kb_buf_dispose(&stream->decode_buffer);
    if (KB_UNLIKELY(stream->encoding != NULL)) {
        kb_stream_encoding_dispose(stream);
    }
    kb_slice_unref(stream->head_slice);
    if (KB_UNLIKELY(stream->shown_cluster != NULL)) {
        kb_cluster_local_unref(stream->shown_cluster);
    }
    if (KB_UNLIKELY(stream->info.upstream.ssl != NULL)) {
        kb_ssl_connection_info_unref(stream->info.upstream.ssl);
    }
    if (KB_UNLIKELY(stream->info.filter_state != NULL)) {
        kb_filter_state_dispose(&stream->info.filter_state, &stream->arena);
    }
    while (KB_UNLIKELY(stream->filter_holds != NULL)) {
        kb_shared_unref(stream->filter_holds->shared, worker);
        stream->filter_holds = stream->filter_holds->next;
    }
    kb_arena_dispose(&stream->arena);
    if (stream->route_hold != NULL) {
        kb_shared_unref(stream->route_hold, worker);
    }
    kb_list_unlink(&stream->link);
    hcm->stream_count--;
    KB_OBJ_CLEAR(stream);
    kb_pool_release(&kb_http_worker_get(worker)->streams, stream);
    kb_hcm_stream_ended(hcm);
}

void kb_hcm_streams_reap(struct kb_hcm *hcm)
{
    KB_LIST_FOREACH (link, &hcm->streams) {
        struct kb_stream *stream = KB_LIST_ENTRY(link, struct kb_stream, link);

        if (stream->ended) {
            kb_deferred_cancel(&stream->destroy);
            destroy_deferred(&stream->destroy);
        }
    }
}

void kb_stream_end(struct kb_stream *stream)
{
    struct kb_hcm *hcm = stream->hcm;
    struct kb_loop *loop = &hcm->worker->loop;

    if (stream->ended) {
        return;
    }
    stream->ended = true;
    kb_stream_timeouts_stop(stream);
    if (KB_UNLIKELY(stream->log_timer != NULL)) {
        kb_stream_log_timer_stop(stream);
    }
    if (stream->encoder != NULL) {
        stream->encoder_ops->reset(stream->encoder);
        stream->encoder = NULL;
    } else if (KB_UNLIKELY(stream->flushing != NULL)) {
        stream->encoder_ops->reset(stream->flushing);
        stream->flushing = NULL;
    }
    kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_ACTIVE, -1);
    if (KB_UNLIKELY(stream->upgrade_asked)) {
        kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_UPGRADES_ACTIVE, -1);
    }
    kb_stat_record(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_TIME,
                   (kb_loop_now_ns(loop) - stream->info.start_ns) / 1000000);
    kb_loop_defer(loop, &stream->destroy);
}

/* ---- ends that others bring ---- */

/* Once: where the answer came first, the rest of the request was counted as reset by then. */
static void reset_count(const struct kb_stream *stream)
{
    if (!stream->local_complete || stream->remote_complete) {
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_RX_RESET);
    }
}

void kb_stream_on_disconnect(struct kb_stream *stream, bool by_peer)
{
    if (stream->ended) {
        return;
    }
    reset_count(stream);
    if (by_peer) {
        kb_stream_info_set_flag(&stream->info, KB_RF_DOWNSTREAM_CONNECTION_TERMINATION);
        stream->info.response_code_details = KB_STR("downstream_remote_disconnect");
    } else if (stream->info.response_code_details.p == NULL) {
        stream->info.response_code_details = KB_STR("downstream_local_disconnect");
    }
    kb_stream_end(stream);
}

/* Envoy's protection against clients that ask and reset: half of so many streams, or more. */
#define PREMATURE_RESET_STREAMS  500
#define PREMATURE_LIFETIME_NS    UINT64_C(2000000000) /* over one second, in whole ones */
/* Behind so many, what a request wants of upstreams is given up where its reset is read, not at the
 * end of the turn: else hundreds that were read together would each have a connection made. */
#define PREMATURE_RESETS_SUSPECT 16

static void premature_resets_check(struct kb_hcm *hcm)
{
    uint64_t bad = (uint64_t)hcm->premature_resets * 2;
    uint64_t limit = kb_runtime_get_u64(hcm->config->server->runtime,
                                        KB_STR("overload.premature_reset_total_stream_count"),
                                        PREMATURE_RESET_STREAMS);

    if (bad < KB_MAX(limit, hcm->ended_streams < limit ? 0 : hcm->ended_streams) ||
        hcm->drain != KB_HCM_NOT_DRAINING || hcm->closed) {
        return;
    }
    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_TOO_MANY_PREMATURE_RESETS);
    KB_LIST_FOREACH (link, &hcm->streams) {
        KB_LIST_ENTRY(link, struct kb_stream, link)->info.response_code_details =
            KB_STR("too_many_premature_resets");
    }
    kb_hcm_close(hcm, KB_CONN_NO_FLUSH);
}

void kb_stream_on_codec_reset(struct kb_stream *stream, enum kb_reset_reason reason,
                              struct kb_str details, bool by_peer)
{
    struct kb_hcm *hcm = stream->hcm;
    bool premature;

    stream->encoder = NULL;
    stream->flushing = NULL;
    if (stream->ended) {
        return;
    }
    reset_count(stream);
    if (details.p != NULL) {
        kb_stream_info_set_flag(&stream->info,
                                reason == KB_RESET_LOCAL_RESET || reason == KB_RESET_PROTOCOL_ERROR
                                    ? KB_RF_DOWNSTREAM_PROTOCOL_ERROR
                                    : KB_RF_DOWNSTREAM_REMOTE_RESET);
        stream->info.response_code_details = details;
    }
    hcm->ended_streams++;
    premature = stream->info.response_code == 0 &&
                kb_loop_now_ns(&hcm->worker->loop) - stream->info.start_ns < PREMATURE_LIFETIME_NS;
    hcm->premature_resets += premature;
    kb_stream_end(stream);
    premature_resets_check(hcm);
    if (KB_UNLIKELY(premature && hcm->premature_resets > PREMATURE_RESETS_SUSPECT) && by_peer &&
        !hcm->closed) {
        stream->info.abandoned = true;
        filters_end(stream);
    }
}

void kb_hcm_stream_codec_error(struct kb_stream *stream, unsigned status, struct kb_str details)
{
    struct kb_connection_info *info = &stream->hcm->conn->info;

    info->flags |= 1U << KB_RF_DOWNSTREAM_PROTOCOL_ERROR;
    if (info->requests <= 1) {
        info->protocol = KB_PROTOCOL_NONE; /* nothing was understood */
    }
    kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_PROTOCOL_ERROR);
    kb_hcm_stream_abort(stream, status, details);
}

void kb_hcm_stream_abort(struct kb_stream *stream, unsigned status, struct kb_str details)
{
    struct kb_hcm *hcm = stream->hcm;

    if (stream->ended) {
        kb_hcm_close_when_idle(hcm);
        return;
    }
    if (stream->response_started) {
        kb_hcm_close_codec_error(stream, details);
        return;
    }
    stream->saw_connection_close = true;
    kb_stream_send_local_reply(stream, status, kb_h1_status_reason(status), details, NULL, NULL);
    /* After the reply, as Envoy: formats of local_reply_config do not see it, access logs do. */
    kb_stream_info_set_flag(&stream->info, KB_RF_DOWNSTREAM_PROTOCOL_ERROR);
    hcm->drain = KB_HCM_CLOSING;
}
