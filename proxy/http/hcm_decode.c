/* SPDX-License-Identifier: Apache-2.0 */
/* The request's way from the codec to the filters: what refuses its head, what is made of its path
 * and host (Envoy ActiveStream::decodeHeaders). The answer's way is hcm_encode.c. */
#include "proxy/http/hcm_internal.h"
#include "proxy/http/local_reply.h"
#include "proxy/http/path.h"

/* ---- what comes before routing ---- */

/* The request is refused before it is routed. Its log line names the cluster all the same when
 * x-forwarded-proto came with it: without, no route of Envoy's matches. */
static void early_reply_prepare(struct kb_stream *stream)
{
    if (kb_header_map_get_id(&stream->request, KB_HDR_X_FORWARDED_PROTO) != NULL) {
        kb_stream_route(stream);
        kb_stream_cluster_refresh(stream);
    }
}

static void reply_early(struct kb_stream *stream, unsigned status, struct kb_str details)
{
    early_reply_prepare(stream);
    kb_stream_send_local_reply(stream, status, KB_STR_NULL, details, kb_stream_route_headers_add,
                               stream);
}

static void location_add(void *arg, struct kb_header_map *headers)
{
    const struct kb_str *location = arg;

    kb_header_map_add_id(headers, KB_HDR_LOCATION, *location);
}

/* The checks that come before anything else; false when the stream was answered. */
static bool head_acceptable(struct kb_stream *stream)
{
    struct kb_header_map *map = &stream->request;
    const struct kb_hcm_config *config = stream->hcm->config;

    if (map->authority.p == NULL) {
        if (stream->info.protocol == KB_PROTOCOL_HTTP10 &&
            config->default_host_for_http_10.len > 0) {
            map->authority = config->default_host_for_http_10;
        } else {
            reply_early(stream, 400, KB_STR("missing_host_header"));
            return false;
        }
    }
    if (KB_LIKELY(!stream->connect_request) && (map->path.len == 0 || map->path.p[0] != '/')) {
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_NON_RELATIVE_PATH);
        reply_early(stream, 404, KB_STR("absolute_path_rejected"));
        return false;
    }
    if (KB_UNLIKELY(kb_str_eq(map->method, KB_STR("QUERY"))) &&
        kb_header_map_value_id(map, KB_HDR_CONTENT_TYPE).len == 0) {
        reply_early(stream, 400, KB_STR("query_missing_content_type"));
        return false;
    }
    return true;
}

/* What asks for a tunnel gets its port back before it goes upstream. */
static void host_normalise(struct kb_stream *stream)
{
    struct kb_header_map *map = &stream->request;
    struct kb_str before = map->authority;
    ptrdiff_t colon;
    uint64_t port;

    kb_host_normalise(stream->hcm->config, map, kb_addr_port(&stream->hcm->conn->info.local));
    if (KB_LIKELY(!stream->connect_request && !stream->h2_upgrade) ||
        before.len == map->authority.len) {
        return;
    }
    colon = kb_str_rfind_char(before, ':');
    if (colon >= 0 && kb_str_to_u64(kb_str_from(before, (size_t)colon + 1), &port) == 0 &&
        port <= UINT16_MAX && kb_str_rfind_char(map->authority, ':') < 0) {
        stream->connect_port = (uint16_t)port;
    }
}

/* Path and host normalisation; false when the stream was answered. */
static bool target_normalise(struct kb_stream *stream)
{
    struct kb_str location;

    switch (kb_path_normalise(stream->hcm->config, &stream->request, &location)) {
    case KB_PATH_OK:
        break;
    case KB_PATH_REJECT:
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_FAILED_PATH_NORMALIZATION);
        reply_early(stream, 400, KB_STR("path_normalization_failed"));
        return false;
    case KB_PATH_REDIRECT:
        early_reply_prepare(stream);
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_REDIRECTED_WITH_NORMALIZED_PATH);
        kb_stream_send_local_reply(stream, 307, KB_STR_NULL, KB_STR("path_normalization_failed"),
                                   location_add, &location);
        return false;
    }
    host_normalise(stream);
    return true;
}

static void continue_expected(struct kb_stream *stream)
{
    struct kb_header_map *headers;
    struct kb_str expect = kb_header_map_value_id(&stream->request, KB_HDR_EXPECT);

    if (KB_LIKELY(expect.p == NULL) || stream->hcm->config->proxy_100_continue ||
        !kb_str_ieq(expect, KB_STR("100-continue"))) {
        return;
    }
    headers = KB_ARENA_NEW(&stream->arena, struct kb_header_map);
    kb_header_map_init(headers, &stream->arena);
    headers->status = 100;
    stream->info.response_code = 100;
    kb_stream_code_count(stream, 100);
    if (stream->hcm->config->tracing != NULL) {
        kb_hcm_trace_count(stream);
    }
    stream->encoder_ops->encode_1xx(stream->encoder, headers);
    kb_header_map_remove_id(&stream->request, KB_HDR_EXPECT);
}

static void method_set(struct kb_stream *stream)
{
    struct kb_str type = kb_header_map_value_id(&stream->request, KB_HDR_CONTENT_TYPE);

    stream->grpc_request = type.p != NULL && kb_str_starts_with(type, KB_STR("application/grpc")) &&
                           (type.len == 16 || type.p[16] == '+');
}

/* ---- from the codec ---- */

static void remote_completed(struct kb_stream *stream)
{
    stream->remote_complete = true;
    stream->info.last_rx_ns = kb_loop_now_ns(&stream->hcm->worker->loop);
    if (kb_timer_armed(&stream->request_timer)) {
        kb_loop_timer_cancel(&stream->hcm->worker->loop, &stream->request_timer);
    }
}

void kb_stream_decode_headers(struct kb_stream *stream, bool end_stream)
{
    bool upgradable;

    /* What follows CONNECT has no end. */
    if (KB_UNLIKELY(stream->connect_request)) {
        end_stream = false;
    } else if (end_stream) {
        remote_completed(stream);
    }
    method_set(stream);
    if (kb_overload_any(stream->hcm->config->overload) && kb_stream_overloaded(stream)) {
        return;
    }
    continue_expected(stream);
    if (!head_acceptable(stream) || !target_normalise(stream)) {
        return;
    }
    if (KB_LIKELY(!stream->recreated)) {
        unsigned reject_status = kb_hcm_mutate_request(stream);

        if (KB_UNLIKELY(reject_status != 0)) {
            kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_REJECTED_VIA_IP_DETECTION);
            kb_stream_send_local_reply(stream, reject_status, KB_STR_NULL,
                                       KB_STR("rejecting_because_detection_failed"), NULL, NULL);
            return;
        }
    }
    kb_stream_route(stream);
    stream->headers_decoded = true;
    kb_stream_timeouts_routed(stream);
    if (KB_UNLIKELY(stream->hcm->config->tracing != NULL)) {
        kb_hcm_trace_begin(stream);
    }
    upgradable = kb_stream_filters_create(stream);
    if (stream->hcm->config->flush_access_log_on_new_request) {
        kb_stream_cluster_refresh(stream);
        kb_stream_log_write(stream, "DownstreamStart");
    }
    if (!upgradable) {
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_WS_ON_NON_WS_ROUTE);
        if (stream->hcm->h2 != NULL) {
            kb_hcm_drain_start(stream->hcm);
        }
        kb_stream_cluster_refresh(stream);
        kb_stream_send_local_reply(stream, 403, KB_STR_NULL, KB_STR("upgrade_failed"),
                                   kb_stream_route_headers_add, stream);
        return;
    }
    if (KB_UNLIKELY(stream->upgrade_asked)) {
        stream->remote_complete = false;
        end_stream = false;
    }
    stream->decode_ended = end_stream;
    if (KB_UNLIKELY(stream->hcm->config->tracing != NULL)) {
        kb_hcm_trace_request(stream);
    }
    kb_stream_filters_decode_headers(stream, end_stream);
}

void kb_stream_decode_data(struct kb_stream *stream, struct kb_buf *data, bool end_stream)
{
    if (end_stream) {
        remote_completed(stream);
    }
    kb_stream_touch(stream);
    if (stream->ended || stream->local_complete) { /* it is over, but for what is still sent */
        kb_buf_consume(data, data->len);
        return;
    }
    stream->info.bytes_received += data->len;
    if (stream->filter_count == 0) {
        kb_buf_consume(data, data->len);
        return;
    }
    stream->decode_ended = end_stream;
    kb_stream_filters_decode_data(stream, data, end_stream);
}

void kb_stream_decode_trailers(struct kb_stream *stream, struct kb_header_map *trailers)
{
    remote_completed(stream);
    kb_stream_touch(stream);
    if (stream->ended || stream->local_complete || stream->filter_count == 0) {
        return;
    }
    stream->request_trailers = trailers;
    stream->decode_ended = true;
    kb_stream_filters_decode_trailers(stream);
}
