/* SPDX-License-Identifier: Apache-2.0 */
/* One request on a pooled HTTP/2 connection (Envoy CodecClient's active request): what goes to its
 * stream, and what of the answer goes to whoever asked. Its state lives in the request's arena,
 * that of its stream in the session. */
#include "proxy/upstream/h2_client.h"

#include "proxy/upstream/h2_window.h"

#define H2_INTERNAL_ERROR 2 /* RFC 9113 section 7 */

/* One request; in its arena. */
struct h2_request {
    KB_OBJ;
    struct kb_request_encoder encoder;
    struct kb_list link;         /* in `refused` */
    struct kb_list receive_link; /* in `received` */
    struct kb_h2_client *client;
    struct kb_h2_stream *stream; /* NULL: not sent yet, or over */
    const struct kb_response_decoder_ops *decoder;
    void *owner;
    struct kb_arena *arena;
    struct kb_buf body;       /* what came of the frame being received */
    struct kb_h2_meter meter; /* as it was in the end */
    size_t unconsumed;        /* what came in this turn, or while reading was disabled */
    unsigned read_disables;
    struct kb_h2_window window;
    struct kb_str upgrade; /* what a HTTP/1 client wants to upgrade to; p NULL: nothing */
    bool above_high;
    bool sent; /* all of the request was given to the stream */
    bool over;
};
KB_OBJ_MAGIC(h2_request, 0x48325251);

static const struct kb_h2_stream_callbacks stream_callbacks;

static struct h2_request *request_of(struct kb_request_encoder *encoder)
{
    return KB_CAST(KB_CONTAINER_OF(encoder, struct h2_request, encoder), h2_request);
}

/* ---- request ---- */

static void unconsumed_consume(struct h2_request *request)
{
    if (request->unconsumed > 0) {
        kb_h2_stream_consume(request->stream, request->unconsumed);
        kb_h2_window_consumed(&request->window, request->client, request->stream,
                              request->unconsumed);
        request->unconsumed = 0;
    }
}

/* Nothing more is told to its owner, or wanted by it. A stream that is not whole is reset. */
static void request_over(struct h2_request *request)
{
    struct kb_h2_client *client = request->client;

    request->over = true;
    kb_list_unlink(&request->link);
    kb_list_unlink(&request->receive_link);
    kb_buf_dispose(&request->body);
    kb_h2_window_dispose(&request->window, client);
    kb_conn_pool_request_uncount(&client->base);
    if (request->stream != NULL) {
        request->meter = *kb_h2_stream_meter(request->stream);
        kb_h2_stream_close(request->stream, H2_INTERNAL_ERROR);
        request->stream = NULL;
    } else {
        client->gone++;
    }
    kb_h2_client_wake(client);
}

/* The answer is whole. One that came before the end of its request ends that as well. */
static void response_over(struct h2_request *request)
{
    if (!request->sent) {
        kb_stat_inc(kb_conn_pool_stats(&request->client->base),
                    KB_STAT_CLUSTER_UPSTREAM_RQ_TX_RESET);
    }
    request_over(request);
}

/* A request to upgrade is an extended CONNECT (RFC 8441); what only HTTP/1 knows is left out when
 * the headers are sent. */
static struct kb_header_map upgrade_to_connect(struct h2_request *request,
                                               const struct kb_header_map *headers)
{
    struct kb_header_map asked = *headers;

    request->upgrade = kb_header_map_value_id(headers, KB_HDR_UPGRADE);
    asked.method = KB_STR("CONNECT");
    asked.protocol = request->upgrade;
    return asked;
}

static void encode_headers(struct kb_request_encoder *encoder, const struct kb_header_map *headers,
                           bool end_stream)
{
    struct kb_header_map asked;
    struct h2_request *request = request_of(encoder);
    struct kb_h2_client *client = request->client;

    kb_h2_client_idle_ping(client);
    request->sent = end_stream;
    if (kb_header_map_asks_upgrade(headers)) {
        asked = upgrade_to_connect(request, headers);
        headers = &asked;
    } else if (KB_UNLIKELY(kb_str_eq(headers->method, KB_STR("CONNECT")))) {
        /* RFC 9113 section 8.5: it has a method and an authority. */
        asked = *headers;
        asked.scheme = KB_STR_NULL;
        asked.path = KB_STR_NULL;
        headers = &asked;
    }
    request->stream = kb_h2_stream_open(client->session, headers, end_stream, &stream_callbacks,
                                        request, request->arena);
    if (KB_UNLIKELY(request->stream == NULL)) {
        kb_list_push_back(&client->refused, &request->link);
    }
    kb_h2_client_wake(client);
}

static void above_high_check(struct h2_request *request)
{
    if (request->stream != NULL && !request->above_high &&
        kb_h2_stream_above_high(request->stream)) {
        request->above_high = true;
        kb_stat_inc(kb_conn_pool_stats(&request->client->base),
                    KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_BACKED_UP_TOTAL);
        request->decoder->on_above_high(request->owner);
    }
}

static void encode_data(struct kb_request_encoder *encoder, struct kb_buf *data, bool end_stream)
{
    struct h2_request *request = request_of(encoder);

    if (request->stream == NULL) {
        kb_buf_consume(data, data->len);
        return;
    }
    request->sent = end_stream;
    kb_h2_stream_send(request->stream, data, end_stream);
    kb_h2_client_wake(request->client);
    above_high_check(request);
}

static void encode_trailers(struct kb_request_encoder *encoder,
                            const struct kb_header_map *trailers)
{
    struct h2_request *request = request_of(encoder);

    if (request->stream != NULL) {
        request->sent = true;
        kb_h2_stream_send_trailers(request->stream, trailers);
        kb_h2_client_wake(request->client);
    }
}

static void encode_metadata(struct kb_request_encoder *encoder, struct kb_buf *block)
{
    struct h2_request *request = request_of(encoder);

    if (request->stream != NULL) {
        kb_h2_stream_send_metadata(request->stream, block);
        kb_h2_client_wake(request->client);
    }
}

static void encoder_close(struct kb_request_encoder *encoder, enum kb_conn_close how,
                          uint64_t flush_timeout_ms)
{
    struct h2_request *request = request_of(encoder);

    (void)how;
    (void)flush_timeout_ms;
    if (!request->over) {
        kb_stat_inc(kb_conn_pool_stats(&request->client->base),
                    KB_STAT_CLUSTER_UPSTREAM_RQ_TX_RESET);
        request_over(request);
    }
}

static void encoder_read_disable(struct kb_request_encoder *encoder, bool disable)
{
    struct h2_request *request = request_of(encoder);

    if (request->over) {
        return;
    }
    request->read_disables += disable ? 1 : (unsigned)-1;
    kb_h2_window_held(&request->window, request->read_disables > 0);
    if (request->read_disables == 0 && request->unconsumed > 0) {
        unconsumed_consume(request);
        kb_h2_client_wake(request->client);
    }
}

static struct kb_slice *head_slice(struct kb_request_encoder *encoder)
{
    (void)encoder;
    return NULL;
}

static void encoder_info(struct kb_request_encoder *encoder, struct kb_upstream_info *info)
{
    struct h2_request *request = request_of(encoder);
    const struct kb_h2_meter *meter =
        request->stream != NULL ? kb_h2_stream_meter(request->stream) : &request->meter;

    kb_pool_client_conn_info(&request->client->base, info);
    info->wire_bytes_sent = meter->wire_sent;
    info->wire_bytes_received = meter->wire_received;
    info->header_bytes_sent = meter->headers_sent;
    info->header_bytes_received = meter->headers_received;
    info->protocol = KB_PROTOCOL_HTTP2;
}

static size_t encoder_unsent(const struct kb_request_encoder *encoder)
{
    const struct h2_request *request = KB_CONTAINER_OF(encoder, const struct h2_request, encoder);

    return request->stream != NULL ? kb_h2_stream_queued(request->stream) : 0;
}

static const struct kb_request_encoder_ops encoder_ops = {
    .headers = encode_headers,
    .data = encode_data,
    .trailers = encode_trailers,
    .metadata = encode_metadata,
    .close = encoder_close,
    .read_disable = encoder_read_disable,
    .head_slice = head_slice,
    .info = encoder_info,
    .unsent = encoder_unsent,
};

/* ---- response, from within the session ---- */

static void on_1xx(void *owner, struct kb_header_map *headers)
{
    struct h2_request *request = KB_CAST(owner, h2_request);

    request->decoder->on_1xx(request->owner, headers);
}

static void on_headers(void *owner, struct kb_header_map *headers, bool end_stream)
{
    struct h2_request *request = KB_CAST(owner, h2_request);

    if (KB_UNLIKELY(request->upgrade.p != NULL) && headers->status == 200) {
        headers->status = 101;
        kb_header_map_set_id(headers, KB_HDR_UPGRADE, request->upgrade);
        kb_header_map_set_id(headers, KB_HDR_CONNECTION, KB_STR("upgrade"));
    }
    if (end_stream) {
        response_over(request);
    }
    request->decoder->on_headers(request->owner, headers, end_stream);
}

static void on_data(void *owner, const char *bytes, size_t len)
{
    struct h2_request *request = KB_CAST(owner, h2_request);
    struct kb_slice *slice = request->client->receiving;

    request->unconsumed += len;
    if (!kb_list_linked(&request->receive_link)) {
        kb_list_push_back(&request->client->received, &request->receive_link);
    }
    if (KB_LIKELY(slice != NULL && bytes >= slice->bytes &&
                  bytes + len <= slice->bytes + slice->cap)) {
        kb_buf_append_slice(&request->body, slice, (size_t)(bytes - slice->bytes), len);
    } else {
        kb_buf_append(&request->body, bytes, len);
    }
}

/* The owner may drop the request from within. */
static void body_pass(struct h2_request *request, bool end_stream)
{
    const struct kb_response_decoder_ops *decoder = request->decoder;
    struct kb_buf body;

    kb_buf_init(&body, kb_conn_pool_slices(&request->client->base), 0);
    kb_buf_move(&body, &request->body);
    if (end_stream) {
        response_over(request);
    }
    decoder->on_data(request->owner, &body, end_stream);
    kb_buf_dispose(&body);
}

static void on_data_done(void *owner)
{
    struct h2_request *request = KB_CAST(owner, h2_request);

    if (request->body.len > 0) {
        body_pass(request, false);
    }
}

static void on_end(void *owner, struct kb_header_map *trailers)
{
    struct h2_request *request = KB_CAST(owner, h2_request);

    if (trailers == NULL) {
        body_pass(request, true);
        return;
    }
    response_over(request);
    request->decoder->on_trailers(request->owner, trailers);
}

static void on_metadata(void *owner, struct kb_buf *block)
{
    struct h2_request *request = KB_CAST(owner, h2_request);

    if (request->decoder->on_metadata != NULL) {
        request->decoder->on_metadata(request->owner, block);
    }
}

/* As Envoy's MultiplexedActiveClientBase counts them. */
static void reset_count(struct kb_h2_client *client, enum kb_reset_reason reason)
{
    struct kb_stat_block *stats = kb_conn_pool_stats(&client->base);

    if (reason == KB_RESET_CONNECTION_TERMINATION) {
        client->base.cut = true;
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_FAILURE_EJECT);
    } else if (reason == KB_RESET_REMOTE_RESET) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_RX_RESET);
    } else if (reason == KB_RESET_LOCAL_RESET || reason == KB_RESET_PROTOCOL_ERROR) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_TX_RESET);
    }
}

static void on_reset(void *owner, enum kb_reset_reason reason)
{
    struct h2_request *request = KB_CAST(owner, h2_request);
    struct kb_h2_client *client = request->client;

    reset_count(client, reason);
    request_over(request);
    request->encoder.peer_reset = reason == KB_RESET_REMOTE_RESET;
    request->decoder->on_reset(request->owner, reason,
                               client->base.conn->info.transport_failure_reason);
}

static void on_below_low(void *owner)
{
    struct h2_request *request = KB_CAST(owner, h2_request);

    request->above_high = false;
    kb_stat_inc(kb_conn_pool_stats(&request->client->base),
                KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_DRAINED_TOTAL);
    request->decoder->on_below_low(request->owner);
}

static const struct kb_h2_stream_callbacks stream_callbacks = {
    .on_1xx = on_1xx,
    .on_headers = on_headers,
    .on_data = on_data,
    .on_data_done = on_data_done,
    .on_end = on_end,
    .on_metadata = on_metadata,
    .on_reset = on_reset,
    .on_below_low = on_below_low,
};

/* ---- for the connection ---- */

struct kb_request_encoder *
kb_h2_client_request_create(struct kb_pool_client *base, struct kb_arena *arena,
                            const struct kb_response_decoder_ops *decoder, void *owner)
{
    struct h2_request *request = KB_ARENA_NEW(arena, struct h2_request);

    KB_OBJ_SET(request, h2_request);
    request->encoder.ops = &encoder_ops;
    request->client = KB_CONTAINER_OF(base, struct kb_h2_client, base);
    request->decoder = decoder;
    request->owner = owner;
    request->arena = arena;
    kb_h2_window_init(&request->window, kb_conn_pool_cluster(base));
    kb_buf_init(&request->body, kb_conn_pool_slices(base), 0);
    return &request->encoder;
}

void kb_h2_client_refused_fail(struct kb_h2_client *client)
{
    kb_conn_pool_client_drain(&client->base);
    while (!kb_list_empty(&client->refused)) {
        on_reset(KB_LIST_ENTRY(kb_list_pop_front(&client->refused), struct h2_request, link),
                 KB_RESET_LOCAL_REFUSED_STREAM_RESET);
    }
}

void kb_h2_client_received_consume(struct kb_h2_client *client)
{
    while (!kb_list_empty(&client->received)) {
        struct h2_request *request =
            KB_LIST_ENTRY(kb_list_pop_front(&client->received), struct h2_request, receive_link);

        if (request->read_disables == 0) {
            unconsumed_consume(request);
        }
    }
}
