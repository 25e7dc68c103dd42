/* SPDX-License-Identifier: Apache-2.0 */
/* Starts a stream over for an internal redirect (Envoy ActiveStream::recreateStream): the first
 * pass is logged and its filters go; the same request, with the headers that the redirect changed,
 * passes new ones. */
#include "proxy/api/filter_state.h"
#include "proxy/http/hcm_internal.h"

/* What the second pass knows of the first: the connection's side, not the answer's. */
static void info_renew(struct kb_stream_info *info)
{
    struct kb_stream_info before = *info;

    memset(info, 0, sizeof(*info));
    info->connection = before.connection;
    info->worker = before.worker;
    info->start_ns = before.start_ns;
    info->wall_start_ns = before.wall_start_ns;
    info->last_rx_ns = before.last_rx_ns;
    info->remote = before.remote;
    info->protocol = before.protocol;
    info->bytes_received = before.bytes_received;
    info->header_bytes_received = before.header_bytes_received;
    info->wire_bytes_received = before.wire_bytes_received;
    info->request_id = before.request_id;
    info->health_check = before.health_check;
    info->internal = before.internal;
    info->internal_redirects = before.internal_redirects;
    info->redirects_seen = before.redirects_seen;
}

static void first_pass_end(struct kb_stream *stream, struct kb_header_map *response)
{
    struct kb_loop *loop = &stream->hcm->worker->loop;

    stream->response = response;
    stream->info.response_code = response->status;
    stream->info.response_code_details = KB_STR("internal_redirect");
    stream->info.end_ns = kb_loop_now_ns(loop);
    kb_stat_record(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_TIME,
                   (stream->info.end_ns - stream->info.start_ns) / 1000000);
    if (stream->hcm->config->tracing != NULL) {
        kb_hcm_trace_count(stream);
    }
    kb_stream_filters_complete(stream);
    kb_stream_log_write(stream, "DownstreamEnd");
    kb_stream_filters_destroy(stream);
    kb_filter_state_dispose(&stream->info.filter_state, &stream->arena);
    kb_buf_dispose(&stream->decode_buffer);
    if (stream->encoding != NULL) {
        kb_stream_encoding_dispose(stream);
    }
}

bool kb_stream_recreate(struct kb_stream *stream, struct kb_header_map *response,
                        struct kb_buf *body)
{
    bool head_only = body->len == 0;

    if (stream->ended || stream->response_started || !stream->remote_complete) {
        return false;
    }
    first_pass_end(stream, response);
    info_renew(&stream->info);
    stream->response = NULL;
    stream->request_trailers = NULL;
    stream->filters = NULL;
    stream->route_chosen = false;
    stream->route = NULL;
    stream->recreated = true;
    kb_hcm_stream_count(stream);
    kb_stream_decode_headers(stream, head_only);
    if (!head_only) {
        kb_stream_decode_data(stream, body, true);
    }
    kb_buf_dispose(body);
    return true;
}
