/* SPDX-License-Identifier: Apache-2.0 */
/* Local replies: what the client gets when no upstream answered (Envoy
 * Http::Utility::sendLocalReply). */
#include "proxy/http/local_reply.h"

#include "proxy/api/local_reply.h"
#include "proxy/http/hcm_internal.h"

static struct kb_str number_text(struct kb_arena *arena, uint64_t v)
{
    char *text = kb_arena_alloc(arena, 20, 1);

    return kb_str_make(text, kb_u64_to_str(v, text));
}

static void grpc_reply(struct kb_stream *stream, struct kb_header_map *headers, unsigned status,
                       struct kb_str body, bool json)
{
    headers->status = 200;
    kb_header_map_set_id(headers, KB_HDR_CONTENT_TYPE, KB_STR("application/grpc"));
    kb_header_map_set_id(headers, KB_HDR_GRPC_STATUS,
                         number_text(&stream->arena, stream->grpc_status != 0
                                                         ? stream->grpc_status - 1U
                                                         : kb_grpc_status_from_http(status)));
    if (body.len > 0 && !stream->head_request) {
        if (json && body.p[body.len - 1] == '\n') {
            body.len--; /* the formatter's, no part of the message */
        }
        kb_header_map_set_id(headers, KB_HDR_GRPC_MESSAGE, kb_grpc_message(&stream->arena, body));
    }
    kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH);
    kb_stream_encode_headers(stream, headers, true);
}

/* `content_type` p NULL: keep the header that is there. */
static void text_reply(struct kb_stream *stream, struct kb_header_map *headers, struct kb_str body,
                       struct kb_str content_type)
{
    struct kb_buf data;

    if (body.len > 0) {
        kb_header_map_set_id(headers, KB_HDR_CONTENT_LENGTH, number_text(&stream->arena, body.len));
        if (content_type.p != NULL) {
            kb_header_map_set_id(headers, KB_HDR_CONTENT_TYPE, content_type);
        }
    } else {
        kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH);
        kb_header_map_remove_id(headers, KB_HDR_CONTENT_TYPE);
    }
    if (body.len == 0 && !stream->head_request) {
        kb_stream_encode_headers(stream, headers, true);
        return;
    }
    if (stream->head_request) {
        kb_stream_encode_headers(stream, headers, true);
        return;
    }
    kb_stream_encode_headers(stream, headers, false);
    kb_buf_init(&data, &stream->hcm->worker->slices, 0);
    kb_buf_append(&data, body.p, body.len);
    kb_stream_encode_data(stream, &data, true);
    kb_buf_dispose(&data);
}

void kb_stream_set_reply_grpc_status(struct kb_stream *stream, unsigned status)
{
    stream->grpc_status = (uint16_t)(KB_MIN(status, UINT16_MAX - 1U) + 1);
}

void kb_stream_send_local_reply(struct kb_stream *stream, unsigned status, struct kb_str body,
                                struct kb_str details,
                                void (*modify)(void *arg, struct kb_header_map *headers), void *arg)
{
    struct kb_header_map *headers;
    struct kb_str content_type = KB_STR("text/plain");
    struct kb_str given_type, type;
    struct kb_str given_body = body;

    if (stream->ended || stream->encoder == NULL) {
        return;
    }
    if (stream->response_started) {
        kb_stream_cut_off(stream);
        return;
    }
    if (stream->filters == NULL && KB_LIKELY(!stream->without_filters)) {
        kb_stream_filters_create_for_answer(stream);
    }
    stream->replied_here = true;
    headers = KB_ARENA_NEW(&stream->arena, struct kb_header_map);
    kb_header_map_init(headers, &stream->arena);
    headers->status = (uint16_t)status;
    if (details.p != NULL) {
        stream->info.response_code_details = details;
    }
    if (!stream->route_chosen && stream->head_slice != NULL && stream->request.method.len > 0) {
        stream->info.route_resolutions++; /* Envoy looks for a route now, and finds none so early */
    }
    if (stream->filter_count > 1 && stream->info.upstream_cluster_name.p == NULL) {
        kb_stream_cluster_refresh(stream); /* a filter answers before the router could say */
    }
    /* A bad request is a messaging error: what follows on the connection cannot be trusted. */
    if (status == 400 && stream->hcm->h2 == NULL &&
        !stream->hcm->config->stream_error_on_invalid_http_message) {
        stream->saw_connection_close = true;
    }
    if (modify != NULL) {
        modify(arg, headers);
        headers->status = (uint16_t)status;
    }
    /* Headers that modify() adds see no code yet, as in Envoy. */
    stream->info.response_code = (uint16_t)status;
    given_type = kb_header_map_value_id(headers, KB_HDR_CONTENT_TYPE);
    if (stream->hcm->config->local_reply != NULL) {
        struct kb_formatter_input input = {
            .request = &stream->request, .response = headers, .local_reply_body = body};

        kb_local_reply_rewrite(stream->hcm->config->local_reply, headers, &input, &stream->info,
                               &status, &body, &content_type);
        headers->status = (uint16_t)status;
        stream->info.response_code = (uint16_t)status;
    }
    if (stream->grpc_request) {
        grpc_reply(stream, headers, status, body,
                   kb_str_eq(content_type, KB_STR("application/json")));
        return;
    }
    /* A content type that is there stays, unless local_reply_config made another body and no other
     * type. */
    type = kb_header_map_value_id(headers, KB_HDR_CONTENT_TYPE);
    if (type.p != NULL && (kb_str_eq(body, given_body) || !kb_str_eq(given_type, type))) {
        content_type = KB_STR_NULL;
    }
    text_reply(stream, headers, body, content_type);
}

struct filter_reply {
    struct kb_stream *stream;
    void (*modify)(void *arg, struct kb_header_map *headers);
    void *arg;
};

static void filter_reply_modify(void *arg, struct kb_header_map *headers)
{
    const struct filter_reply *reply = arg;
    struct kb_stream *stream = reply->stream;
    const struct kb_route *route = kb_stream_route(stream);

    if (route != NULL && route->kind == KB_ROUTE_CLUSTER) {
        kb_route_finalize_response(route, NULL, &stream->request, headers, &stream->info);
    }
    if (reply->modify != NULL) {
        reply->modify(reply->arg, headers);
    }
}

void kb_stream_send_filter_reply(struct kb_stream *stream, unsigned status, struct kb_str body,
                                 struct kb_str details,
                                 void (*modify)(void *arg, struct kb_header_map *headers),
                                 void *arg)
{
    struct filter_reply reply = {.stream = stream, .modify = modify, .arg = arg};

    kb_stream_send_local_reply(stream, status, body, details, filter_reply_modify, &reply);
}
