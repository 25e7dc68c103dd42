/* SPDX-License-Identifier: Apache-2.0 */
/* A pooled HTTP/2 connection: the glue between a session, its bytes and the requests on it (Envoy
 * Http2::ActiveClient and CodecClient). A request's state lives in the request's arena, that of its
 * stream in the session. Nothing is closed from within nghttp2: such work waits until it returns.
 */
#include "proxy/upstream/h2_client.h"

#include "base/log.h"

#define OUT_BYTES_DEFAULT        (1024u * 1024)
#define CONTROL_FRAMES_IN_PERIOD 1000
#define CONTINUATIONS            64
#define CONCURRENT_STREAMS       1024
#define H2_INTERNAL_ERROR        2 /* RFC 9113 section 7 */

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
    struct kb_str upgrade; /* what a HTTP/1 client wants to upgrade to; p NULL: nothing */
    bool above_high;
    bool sent; /* all of the request was given to the stream */
    bool over;
};
KB_OBJ_MAGIC(h2_request, 0x48325251);

static const struct kb_request_encoder_ops encoder_ops;
static const struct kb_h2_stream_callbacks stream_callbacks;
static const struct kb_h2_session_callbacks session_callbacks;
static void on_reset(void *owner, enum kb_reset_reason reason);

static struct kb_h2_client *client_of(void *owner)
{
    return KB_CONTAINER_OF(KB_CAST(owner, kb_pool_client), struct kb_h2_client, base);
}

static struct h2_request *request_of(struct kb_request_encoder *encoder)
{
    return KB_CAST(KB_CONTAINER_OF(encoder, struct h2_request, encoder), h2_request);
}

/* ---- sending ---- */

/* The peer broke the protocol, or floods us. */
static void session_failed(struct kb_h2_client *client, int error)
{
    KB_LOG(POOL, DEBUG, "[C%llu] HTTP/2 with cluster '%.*s' failed: %s",
           (unsigned long long)client->base.conn->info.id,
           KB_STR_ARG(kb_conn_pool_cluster(&client->base)->name), kb_err_text(error));
    kb_stat_inc(kb_conn_pool_stats(&client->base), KB_STAT_CLUSTER_UPSTREAM_CX_PROTOCOL_ERROR);
    kb_h2_session_fail(client->session, KB_RESET_PROTOCOL_ERROR);
    kb_conn_close(client->base.conn, KB_CONN_NO_FLUSH);
}

/* Requests for which the session had no stream: it is on its way out. */
static void refused_fail(struct kb_h2_client *client)
{
    kb_conn_pool_client_drain(&client->base);
    while (!kb_list_empty(&client->refused)) {
        on_reset(KB_LIST_ENTRY(kb_list_pop_front(&client->refused), struct h2_request, link),
                 KB_RESET_LOCAL_REFUSED_STREAM_RESET);
    }
}

/* Tells the pool what happened within the session. May close the connection. */
static void settle(struct kb_h2_client *client)
{
    if (KB_UNLIKELY(!kb_list_empty(&client->refused))) {
        refused_fail(client);
    }
    while (client->gone > 0) {
        client->gone--;
        kb_conn_pool_stream_gone(&client->base);
    }
}

/* Bytes of the session to the connection. */
static int pull(struct kb_h2_client *client)
{
    struct kb_conn *conn = client->base.conn;
    int rc;

    rc = kb_h2_session_send(client->session, &conn->out, client->out_limit);
    if (conn->out.len > 0) {
        kb_conn_written(conn);
    }
    return rc;
}

static void unconsumed_consume(struct h2_request *request)
{
    if (request->unconsumed > 0) {
        kb_h2_stream_consume(request->stream, request->unconsumed);
        request->unconsumed = 0;
    }
}

/* Windows open again for what came in this turn: whoever could not pass it on has said so by now,
 * and gets no more. */
static void received_consume(struct kb_h2_client *client)
{
    while (!kb_list_empty(&client->received)) {
        struct h2_request *request =
            KB_LIST_ENTRY(kb_list_pop_front(&client->received), struct h2_request, receive_link);

        if (request->read_disables == 0) {
            unconsumed_consume(request);
        }
    }
}

static void work_deferred(struct kb_deferred *deferred)
{
    struct kb_h2_client *client = KB_CONTAINER_OF(deferred, struct kb_h2_client, work);
    int rc;

    KB_ASSERT(client->base.kb_magic == (uint32_t)KB_MAGIC_kb_pool_client);
    if (client->base.state == KB_POOL_CLIENT_CONNECTING ||
        client->base.state == KB_POOL_CLIENT_CLOSED) {
        return;
    }
    received_consume(client);
    rc = pull(client);
    if (rc != 0) {
        session_failed(client, rc);
        return;
    }
    settle(client);
}

/* ---- life ---- */

void kb_h2_client_settings(const struct kb_cluster *cluster, struct kb_h2_settings *settings)
{
    *settings = (struct kb_h2_settings){
        .hpack_table_bytes = cluster->http2.hpack_table_bytes,
        .max_concurrent_streams = cluster->http2.max_concurrent_streams,
        .stream_window_bytes = cluster->http2.stream_window_bytes,
        .connection_window_bytes = cluster->http2.connection_window_bytes,
        .max_header_bytes = cluster->http2.max_response_headers_bytes,
        .max_header_count = cluster->max_response_headers_count,
        .stream_out_bytes = cluster->per_connection_buffer_limit_bytes,
        .override_stream_error = cluster->http2.override_stream_error,
        .requests = true,
        .allow_connect = cluster->http2.allow_connect,
        .max_outbound_acks = cluster->http2.max_outbound_control_frames,
        .guard = {.empty_frames = cluster->http2.max_empty_frames,
                  .priority_per_stream = cluster->http2.max_priority_frames,
                  .window_updates_per_data = cluster->http2.max_window_updates,
                  .control_frames_in_period = CONTROL_FRAMES_IN_PERIOD,
                  .continuations = CONTINUATIONS,
                  .metadata = cluster->http2.allow_metadata},
        .guard_filled = cluster->http2.enabled, /* a check may speak it to others, too */
        .custom = cluster->http2.custom_settings,
        .custom_count = cluster->http2.custom_settings_count,
        .allow_metadata = cluster->http2.allow_metadata,
        .max_metadata_bytes = cluster->http2.max_metadata_bytes,
    };
}

static void client_init(struct kb_pool_client *base, const struct kb_h1_settings *h1)
{
    struct kb_h2_client *client = KB_CONTAINER_OF(base, struct kb_h2_client, base);
    uint32_t limit = kb_conn_pool_cluster(base)->per_connection_buffer_limit_bytes;
    struct kb_h2_settings settings;

    (void)h1;
    kb_h2_client_settings(kb_conn_pool_cluster(base), &settings);
    client->out_limit = limit > 0 ? limit : OUT_BYTES_DEFAULT;
    client->stream_limit =
        settings.max_concurrent_streams > 0 ? settings.max_concurrent_streams : CONCURRENT_STREAMS;
    base->stream_limit = client->stream_limit;
    client->received_ms = kb_loop_now_ms(kb_h2_client_loop(client));
    kb_list_init(&client->refused);
    kb_list_init(&client->received);
    kb_deferred_init(&client->work, work_deferred);
    kb_timer_init(&client->ping_timer, kb_h2_client_ping_fired);
    client->session =
        kb_h2_session_create(&settings, &session_callbacks, base, kb_conn_pool_slices(base),
                             kb_h2_mem_of(kb_conn_pool_worker(base)), kb_h2_client_stats(client));
}

static void client_count(struct kb_pool_client *base)
{
    kb_stat_inc(kb_conn_pool_stats(base), KB_STAT_CLUSTER_UPSTREAM_CX_HTTP2_TOTAL);
}

static void client_dispose(struct kb_pool_client *base)
{
    struct kb_h2_client *client = KB_CONTAINER_OF(base, struct kb_h2_client, base);

    kb_deferred_cancel(&client->work);
    kb_h2_session_destroy(client->session, KB_RESET_CONNECTION_TERMINATION);
}

/* ---- request ---- */

static struct kb_request_encoder *stream_create(struct kb_pool_client *base, struct kb_arena *arena,
                                                const struct kb_response_decoder_ops *decoder,
                                                void *owner)
{
    struct h2_request *request = KB_ARENA_NEW(arena, struct h2_request);

    KB_OBJ_SET(request, h2_request);
    request->encoder.ops = &encoder_ops;
    request->client = KB_CONTAINER_OF(base, struct kb_h2_client, base);
    request->decoder = decoder;
    request->owner = owner;
    request->arena = arena;
    kb_buf_init(&request->body, kb_conn_pool_slices(base), 0);
    return &request->encoder;
}

/* Nothing more is told to its owner, or wanted by it. A stream that is not whole is reset. */
static void request_over(struct h2_request *request)
{
    struct kb_h2_client *client = request->client;

    request->over = true;
    kb_list_unlink(&request->link);
    kb_list_unlink(&request->receive_link);
    kb_buf_dispose(&request->body);
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

static const struct kb_request_encoder_ops encoder_ops = {
    .headers = encode_headers,
    .data = encode_data,
    .trailers = encode_trailers,
    .metadata = encode_metadata,
    .close = encoder_close,
    .read_disable = encoder_read_disable,
    .head_slice = head_slice,
    .info = encoder_info,
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

/* ---- the session ---- */

static void on_goaway(void *owner, uint32_t error_code)
{
    struct kb_h2_client *client = client_of(owner);

    (void)error_code;
    kb_stat_inc(kb_conn_pool_stats(&client->base), KB_STAT_CLUSTER_UPSTREAM_CX_CLOSE_NOTIFY);
    /* At once: requests that it refuses may be asked for again from within. */
    kb_conn_pool_client_drain(&client->base);
}

static void on_ping_ack(void *owner)
{
    struct kb_h2_client *client = client_of(owner);

    if (client->ping_waits) {
        kb_h2_client_ping_arm(client);
    }
}

static void on_settings(void *owner, uint32_t max_concurrent_streams)
{
    struct kb_h2_client *client = client_of(owner);

    kb_conn_pool_stream_limit(&client->base, KB_MIN(max_concurrent_streams, client->stream_limit));
}

static void on_stream_gone(void *owner)
{
    struct kb_h2_client *client = client_of(owner);

    client->gone++;
    kb_h2_client_wake(client);
}

static const struct kb_h2_session_callbacks session_callbacks = {
    .on_goaway = on_goaway,
    .on_ping_ack = on_ping_ack,
    .on_settings = on_settings,
    .on_stream_gone = on_stream_gone,
};

/* ---- the connection ---- */

static void client_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct kb_h2_client *client = client_of(owner);
    uint64_t now_ms = kb_loop_now_ms(kb_h2_client_loop(client));
    struct kb_buf bytes;
    int rc = 0;

    (void)end_stream;
    /* The connection may be closed from within; its queue goes then, but not what is being read. */
    kb_buf_init(&bytes, kb_conn_pool_slices(&client->base), 0);
    kb_buf_move(&bytes, in);
    client->received_ms = now_ms;
    for (struct kb_segment *s = bytes.first;
         s != NULL && rc == 0 && client->base.state != KB_POOL_CLIENT_CLOSED; s = s->next) {
        client->receiving = s->slice;
        rc = kb_h2_session_receive(client->session, s->slice->bytes + s->from, s->to - s->from,
                                   now_ms);
    }
    client->receiving = NULL;
    kb_buf_dispose(&bytes);
    if (client->base.state == KB_POOL_CLIENT_CLOSED) {
        return;
    }
    if (rc != 0) {
        session_failed(client, rc);
        return;
    }
    settle(client);
    kb_h2_client_wake(client);
}

static void client_on_event(void *owner, enum kb_conn_event event)
{
    struct kb_h2_client *client = client_of(owner);

    if (event == KB_CONN_CONNECTED) {
        kb_conn_pool_connected(&client->base);
        kb_h2_client_ping_arm(client);
        kb_h2_client_wake(client);
        return;
    }
    kb_loop_timer_cancel(kb_h2_client_loop(client), &client->ping_timer);
    kb_h2_session_fail(client->session, KB_RESET_CONNECTION_TERMINATION);
    refused_fail(client);
    kb_conn_pool_closed(&client->base, event);
}

static void client_on_sent(void *owner, size_t n)
{
    struct kb_h2_client *client = client_of(owner);

    (void)n;
    if (client->base.conn->out.len <= client->out_limit / 2 &&
        kb_h2_session_want_send(client->session)) {
        kb_h2_client_wake(client);
    }
}

static const struct kb_conn_callbacks conn_callbacks = {
    .on_data = client_on_data,
    .on_event = client_on_event,
    .on_sent = client_on_sent,
};

static const struct kb_str alpn = {"h2", 2};

const struct kb_pool_client_ops kb_h2_client_ops = {
    .size = sizeof(struct kb_h2_client),
    .conn_callbacks = &conn_callbacks,
    .init = client_init,
    .count = client_count,
    .stream_create = stream_create,
    .dispose = client_dispose,
    .alpn = &alpn,
    .alpn_count = 1,
};
