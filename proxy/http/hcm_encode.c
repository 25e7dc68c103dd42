/* SPDX-License-Identifier: Apache-2.0 */
/* The response side of a stream, and what filters may ask of their stream. */
#include "proxy/api/drain.h"
#include "proxy/http/h2_server_session.h"
#include "proxy/http/hcm_internal.h"
#include "proxy/http/local_reply.h"

/* ---- for filters ---- */

struct kb_arena *kb_stream_arena(struct kb_stream *stream)
{
    return &stream->arena;
}

struct kb_worker *kb_stream_worker(struct kb_stream *stream)
{
    return stream->hcm->worker;
}

struct kb_stream_info *kb_stream_stream_info(struct kb_stream *stream)
{
    return &stream->info;
}

struct kb_header_map *kb_stream_request_headers(struct kb_stream *stream)
{
    return &stream->request;
}

struct kb_header_map *kb_stream_response_headers(struct kb_stream *stream)
{
    return stream->response;
}

struct kb_header_map *kb_stream_response_trailers(struct kb_stream *stream)
{
    return stream->response_trailers;
}

struct kb_stat_block *kb_stream_http_stats(struct kb_stream *stream)
{
    return stream->hcm->stats;
}

struct kb_server_context *kb_stream_server(struct kb_stream *stream)
{
    return stream->hcm->config->server;
}

struct kb_str kb_stream_local_ip(struct kb_stream *stream)
{
    return stream->hcm->config->local_ip;
}

bool kb_stream_request_complete(struct kb_stream *stream)
{
    return stream->remote_complete;
}

bool kb_stream_response_started(struct kb_stream *stream)
{
    return stream->response_started;
}

bool kb_stream_is_connect(struct kb_stream *stream)
{
    return stream->connect_request;
}

void kb_stream_connect_port_restore(struct kb_stream *stream)
{
    struct kb_header_map *map = &stream->request;

    if (stream->connect_port != 0 && kb_str_rfind_char(map->authority, ':') < 0) {
        map->authority = kb_str_printf(&stream->arena, "%.*s:%u", KB_STR_ARG(map->authority),
                                       (unsigned)stream->connect_port);
    }
}

bool kb_stream_is_grpc(struct kb_stream *stream)
{
    return stream->grpc_request;
}

size_t kb_stream_buffer_limit(struct kb_stream *stream)
{
    return stream->hcm->conn->buffer_limit;
}

void kb_stream_set_decoder_limit(struct kb_stream *stream, size_t bytes)
{
    stream->decode_buffer.high = bytes;
}

void kb_stream_read_disable(struct kb_stream *stream, bool disable)
{
    if (disable) {
        stream->read_disables++;
    } else {
        KB_ASSERT(stream->read_disables > 0);
        stream->read_disables--;
        if (stream->read_disables > 0) {
            kb_stream_filters_resumed(stream);
        }
    }
    if (stream->hcm->closed) {
        return;
    }
    if (KB_UNLIKELY(stream->hcm->h2 != NULL)) {
        if (stream->encoder == NULL) {
            return;
        }
        kb_stat_inc(stream->hcm->stats,
                    disable ? KB_STAT_HTTP_DOWNSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL
                            : KB_STAT_HTTP_DOWNSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
        stream->encoder_ops->read_disable(stream->encoder, disable);
        return;
    }
    if (disable ? stream->hcm->h1.read_disables == 0 : stream->hcm->h1.read_disables == 1) {
        kb_stat_inc(stream->hcm->stats,
                    disable ? KB_STAT_HTTP_DOWNSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL
                            : KB_STAT_HTTP_DOWNSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
    }
    stream->hcm->h1.read_disables += disable ? 1 : (unsigned)-1;
    kb_conn_read_disable(stream->hcm->conn, disable);
}

/* ---- encoding ---- */

/* How a connection that ends with this stream is closed: at once where both sides agreed on the end
 * and the client has nothing left to send, else delayed (Envoy doEndStream). */
static void close_kind_set(struct kb_stream *stream)
{
    bool until_close = stream->info.protocol == KB_PROTOCOL_HTTP10 &&
                       (stream->response == NULL ||
                        kb_header_map_get_id(stream->response, KB_HDR_CONTENT_LENGTH) == NULL);

    stream->hcm->close_delayed =
        !(stream->saw_connection_close && (stream->remote_complete || until_close));
}

/* From now on it is the client's window that is waited for. */
static void flush_timeout_apply(struct kb_stream *stream)
{
    uint64_t timeout_ms = stream->hcm->config->stream_flush_timeout_ms;

    if (stream->route != NULL && stream->route->flush_timeout_ms != UINT64_MAX) {
        timeout_ms = stream->route->flush_timeout_ms;
    }
    if (KB_LIKELY(timeout_ms == UINT64_MAX)) {
        return;
    }
    stream->idle_timeout_ms = timeout_ms;
    kb_loop_timer_cancel(&stream->hcm->worker->loop, &stream->headers_timer);
    kb_stream_idle_arm(stream);
}

/* The rest of the request is refused: what the codec noted of it, as a name that was dropped, is
 * told as of any reset of ours. */
static void rest_refused(struct kb_stream *stream)
{
    struct kb_str details;

    kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_RX_RESET);
    if (stream->hcm->h2 == NULL || stream->encoder == NULL) {
        return;
    }
    details = kb_h2_server_stream_details(stream->encoder);
    if (details.p != NULL) {
        kb_stream_info_set_flag(&stream->info, KB_RF_DOWNSTREAM_PROTOCOL_ERROR);
        stream->info.response_code_details = details;
    }
}

/* The whole answer was given to the codec; that of HTTP/2 says when it is sent. */
static void local_completed(struct kb_stream *stream)
{
    struct kb_hcm *hcm = stream->hcm;

    stream->local_complete = true;
    if (!stream->remote_complete) {
        rest_refused(stream);
    }
    if (KB_UNLIKELY(hcm->h2 != NULL)) {
        stream->flushing = stream->encoder;
        stream->encoder = NULL;
        flush_timeout_apply(stream);
        return;
    }
    stream->encoder = NULL;
    stream->info.last_tx_ns = kb_loop_now_ns(&hcm->worker->loop);
    close_kind_set(stream);
    kb_stream_end(stream);
}

void kb_stream_flushed(struct kb_stream *stream)
{
    struct kb_hcm *hcm = stream->hcm;

    stream->flushing = NULL;
    stream->encoder = NULL;
    stream->info.last_tx_ns = kb_loop_now_ns(&hcm->worker->loop);
    hcm->ended_streams++;
    close_kind_set(stream);
    kb_stream_end(stream);
}

static bool server_drains(struct kb_hcm *hcm)
{
    const struct kb_hcm_config *config = hcm->config;
    uint64_t now_ms, random;

    if (KB_LIKELY(!kb_drain_any(config->server)) || config->never_drains) {
        return false;
    }
    now_ms = kb_loop_now_ms(&hcm->worker->loop);
    random = kb_rand_u64(&hcm->worker->rand);
    return kb_drain_close(config->server, config->inbound, config->drain_modify_only, now_ms,
                          random) ||
           kb_drain_chain_close(config->server, config->drain_state, now_ms, random);
}

/* The connection is not HTTP any more after this answer. */
static bool is_tunnel(const struct kb_stream *stream, const struct kb_header_map *headers)
{
    return stream->connect_request ? headers->status == 200 : stream->upgraded;
}

static void connection_header_set(struct kb_stream *stream, struct kb_header_map *headers)
{
    struct kb_hcm *hcm = stream->hcm;

    if (hcm->drain == KB_HCM_NOT_DRAINING && server_drains(hcm)) {
        kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_DRAIN_CLOSE);
        kb_hcm_drain_start(hcm);
    }
    if (kb_overload_any(hcm->config->overload) && hcm->drain == KB_HCM_NOT_DRAINING &&
        kb_overload_draw(hcm->config->overload, KB_OVERLOAD_DISABLE_HTTP_KEEPALIVE, hcm->worker)) {
        kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_OVERLOAD_DISABLE_KEEPALIVE);
        kb_hcm_drain_start(hcm);
    }
    if (KB_UNLIKELY(hcm->h2 != NULL)) {
        if (!stream->remote_complete) {
            kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_RESPONSE_BEFORE_RQ_COMPLETE);
        }
        return; /* the connection is told of by GOAWAY */
    }
    if (stream->info.protocol == KB_PROTOCOL_HTTP10 &&
        kb_header_map_get_id(headers, KB_HDR_CONTENT_LENGTH) == NULL) {
        stream->saw_connection_close = true; /* the end of the connection is that of the body */
    }
    if (hcm->drain == KB_HCM_NOT_DRAINING && stream->saw_connection_close) {
        hcm->drain = KB_HCM_CLOSING;
    }
    if (!stream->remote_complete) {
        hcm->drain = KB_HCM_CLOSING;
        kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_RESPONSE_BEFORE_RQ_COMPLETE);
    }
    if (hcm->drain != KB_HCM_NOT_DRAINING && !is_tunnel(stream, headers)) {
        kb_header_map_add_id(headers, KB_HDR_CONNECTION, KB_STR("close"));
    } else if (stream->http_10_keep_alive) {
        kb_header_map_add_id(headers, KB_HDR_CONNECTION, KB_STR("keep-alive"));
    }
}

static void server_header_set(const struct kb_hcm_config *config, struct kb_header_map *headers)
{
    switch (config->server_header) {
    case KB_SERVER_HEADER_OVERWRITE:
        kb_header_map_set_id(headers, KB_HDR_SERVER, config->server_name);
        break;
    case KB_SERVER_HEADER_APPEND_IF_ABSENT:
        if (kb_header_map_get_id(headers, KB_HDR_SERVER) == NULL) {
            kb_header_map_add_id(headers, KB_HDR_SERVER, config->server_name);
        }
        break;
    case KB_SERVER_HEADER_PASS_THROUGH:
        break;
    }
}

void kb_stream_finish_response_headers(struct kb_stream *stream, struct kb_header_map *headers,
                                       bool end_stream)
{
    (void)end_stream;
    if (headers->status < 200 || headers->status == 204) {
        /* RFC 9110 section 8.6: such responses have no length. */
        kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH);
    }
    if (kb_header_map_get_id(headers, KB_HDR_DATE) == NULL) {
        kb_header_map_add_id(headers, KB_HDR_DATE, kb_http_date(stream->hcm->worker));
    }
    server_header_set(stream->hcm->config, headers);
    kb_hcm_mutate_response(stream, headers);
    connection_header_set(stream, headers);
    if (KB_UNLIKELY(stream->hcm->config->tracing != NULL)) {
        kb_hcm_trace_response(stream, headers);
    }
}

void kb_stream_encode_1xx(struct kb_stream *stream, struct kb_header_map *headers)
{
    if (!stream->ended && stream->encoder != NULL && stream->hcm->config->proxy_100_continue) {
        stream->info.response_code = headers->status;
        kb_stream_code_count(stream, headers->status);
        if (stream->hcm->config->tracing != NULL) {
            kb_hcm_trace_count(stream);
        }
        kb_hcm_mutate_1xx(stream, headers);
        stream->encoder_ops->encode_1xx(stream->encoder, headers);
    }
}

void kb_stream_headers_send(struct kb_stream *stream, struct kb_header_map *headers,
                            bool end_stream)
{
    stream->info.response_code = headers->status;
    if (KB_UNLIKELY(stream->upgrade_asked)) {
        stream->upgraded =
            stream->connect_request ? headers->status / 100 == 2 : headers->status == 101;
    }
    kb_stream_finish_response_headers(stream, headers, end_stream);
    stream->info.first_tx_ns = kb_loop_now_ns(&stream->hcm->worker->loop);
    kb_stream_code_count(stream, headers->status);
    kb_stream_touch(stream);
    stream->encoder_ops->encode_headers(stream->encoder, headers, end_stream);
    if (KB_UNLIKELY(stream->upgraded) && stream->hcm->config->flush_log_on_tunnel_established) {
        kb_stream_log_write(stream, "DownstreamTunnelSuccessfullyEstablished");
    }
    if (end_stream) {
        local_completed(stream);
    }
}

void kb_stream_data_send(struct kb_stream *stream, struct kb_buf *data, bool end_stream)
{
    stream->info.bytes_sent += data->len;
    kb_stream_touch(stream);
    stream->encoder_ops->encode_data(stream->encoder, data, end_stream);
    if (end_stream) {
        local_completed(stream);
    }
}

void kb_stream_trailers_send(struct kb_stream *stream, struct kb_header_map *trailers)
{
    stream->response_trailers = trailers;
    if (KB_UNLIKELY(trailers->live == 0) && stream->hcm->h2 != NULL) {
        struct kb_buf nothing; /* a filter took them all */

        kb_buf_init(&nothing, &stream->hcm->worker->slices, 0);
        kb_stream_data_send(stream, &nothing, true);
        return;
    }
    stream->encoder_ops->encode_trailers(stream->encoder, trailers);
    local_completed(stream);
}

void kb_stream_encode_headers(struct kb_stream *stream, struct kb_header_map *headers,
                              bool end_stream)
{
    if (stream->ended || stream->encoder == NULL) {
        return;
    }
    stream->response_started = true;
    stream->response = headers;
    if (KB_UNLIKELY(stream->encoding != NULL)) {
        /* Filters see the code that a gRPC reply stands for: it is in `info` already. */
        kb_stream_filters_encode_headers(stream, end_stream);
        return;
    }
    kb_stream_headers_send(stream, headers, end_stream);
}

void kb_stream_encode_data(struct kb_stream *stream, struct kb_buf *data, bool end_stream)
{
    if (stream->ended || stream->encoder == NULL) {
        kb_buf_consume(data, data->len);
        return;
    }
    if (KB_UNLIKELY(stream->encoding != NULL)) {
        kb_stream_filters_encode_data(stream, data, end_stream);
        return;
    }
    kb_stream_data_send(stream, data, end_stream);
}

void kb_stream_encode_trailers(struct kb_stream *stream, struct kb_header_map *trailers)
{
    if (stream->ended || stream->encoder == NULL) {
        return;
    }
    if (KB_UNLIKELY(stream->encoding != NULL)) {
        kb_stream_filters_encode_trailers(stream, trailers);
        return;
    }
    kb_stream_trailers_send(stream, trailers);
}

void kb_stream_reset(struct kb_stream *stream)
{
    stream->source_broke = true;
    kb_stream_cut_off(stream);
}

void kb_stream_cut_off(struct kb_stream *stream)
{
    if (!stream->ended) {
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_TX_RESET);
        /* Envoy's codec tells its own */
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_RX_RESET);
        kb_stream_cut_off_uncounted(stream);
    }
}

void kb_stream_cut_off_uncounted(struct kb_stream *stream)
{
    struct kb_hcm *hcm = stream->hcm;

    if (KB_LIKELY(hcm->h2 == NULL)) {
        hcm->drain = KB_HCM_CLOSING;
    }
    close_kind_set(stream);
    kb_stream_end(stream);
}
