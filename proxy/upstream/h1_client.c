/* SPDX-License-Identifier: Apache-2.0 */
/* Upstream HTTP/1 codec: one request and its answer on a pooled connection (Envoy CodecClient over
 * Http1 ClientConnection). */
#include "proxy/upstream/h1_client.h"

#include "base/log.h"
#include "proxy/upstream/cluster.h"

/* Informational answers before one final answer; more is no conversation any more. */
#define INFORMATIONAL_BYTES_MAX (1024 * 1024)

static const struct kb_request_encoder_ops encoder_ops;

static struct kb_h1_client *client_of(struct kb_request_encoder *encoder)
{
    return KB_CONTAINER_OF(
        KB_CAST(KB_CONTAINER_OF(encoder, struct kb_pool_client, encoder), kb_pool_client),
        struct kb_h1_client, base);
}

static struct kb_h1_client *client_of_owner(void *owner)
{
    return KB_CONTAINER_OF(KB_CAST(owner, kb_pool_client), struct kb_h1_client, base);
}

/* ---- lifecycle ---- */

static void client_init(struct kb_pool_client *base, const struct kb_h1_settings *settings)
{
    struct kb_h1_client *client = KB_CONTAINER_OF(base, struct kb_h1_client, base);

    base->encoder.ops = &encoder_ops;
    kb_h1_parser_init(&client->parser, true, settings, kb_conn_pool_slices(base));
}

static void client_count(struct kb_pool_client *base)
{
    kb_cluster_http1_seen(kb_conn_pool_cluster(base));
    kb_stat_inc(kb_conn_pool_stats(base), KB_STAT_CLUSTER_UPSTREAM_CX_HTTP1_TOTAL);
}

static void client_dispose(struct kb_pool_client *base)
{
    kb_h1_parser_dispose(&KB_CONTAINER_OF(base, struct kb_h1_client, base)->parser);
}

static void client_attach(struct kb_pool_client *base)
{
    struct kb_h1_client *client = KB_CONTAINER_OF(base, struct kb_h1_client, base);

    client->response = NULL;
    client->informational_bytes = 0;
    client->head_request = false;
    client->upgrade_asked = false;
    client->connect_asked = false;
    client->tunnel = false;
    client->request_complete = false;
    client->response_started = false;
    client->alone_in_queue = false;
    client->header_bytes_sent = 0;
    client->header_bytes_received = 0;
}

/* ---- request ---- */

static void request_ended(struct kb_h1_client *client)
{
    client->request_complete = true;
}

static void encode_headers(struct kb_request_encoder *encoder, const struct kb_header_map *headers,
                           bool end_stream)
{
    struct kb_h1_client *client = client_of(encoder);
    size_t before = client->base.conn->out.len;

    client->alone_in_queue = before == 0;
    client->head_request = kb_str_eq(headers->method, KB_STR("HEAD"));
    client->upgrade_asked = kb_header_map_asks_upgrade(headers);
    client->connect_asked = kb_str_eq(headers->method, KB_STR("CONNECT"));
    if (KB_UNLIKELY(client->connect_asked)) {
        client->base.conn->half_close_enabled = true;
    }
    client->framing =
        kb_h1_encode_request(&client->base.conn->out, headers, end_stream, client->parser.settings);
    client->header_bytes_sent = client->base.conn->out.len - before - headers->method.len -
                                headers->path.len - sizeof("  HTTP/1.1\r\n\r\n") + 1;
    kb_conn_written(client->base.conn);
    if (end_stream) {
        request_ended(client);
    }
}

static void encode_data(struct kb_request_encoder *encoder, struct kb_buf *data, bool end_stream)
{
    struct kb_h1_client *client = client_of(encoder);

    kb_h1_encode_data(&client->base.conn->out, client->framing, data);
    if (end_stream) {
        kb_h1_encode_end(&client->base.conn->out, client->framing, NULL);
    }
    kb_conn_written(client->base.conn);
    if (end_stream) {
        request_ended(client);
    }
}

static void encode_trailers(struct kb_request_encoder *encoder,
                            const struct kb_header_map *trailers)
{
    struct kb_h1_client *client = client_of(encoder);
    const struct kb_h1_settings *settings = client->parser.settings;

    kb_h1_encode_end(&client->base.conn->out, client->framing,
                     settings->enable_trailers ? trailers : NULL);
    kb_conn_written(client->base.conn);
    request_ended(client);
}

/* What did not leave, and was not sealed by TLS, never was. */
static bool take_back(struct kb_request_encoder *encoder)
{
    struct kb_h1_client *client = client_of(encoder);
    struct kb_conn *conn = client->base.conn;

    if (client->base.decoder == NULL || !client->alone_in_queue || client->connect_asked ||
        conn->bytes_sent != client->base.sent_before || conn->transport_bytes > 0 ||
        conn->bytes_received != client->base.received_before || conn->in.len > 0) {
        return false;
    }
    kb_pool_client_detach(&client->base);
    kb_buf_consume(&conn->out, conn->out.len);
    kb_conn_pool_request_done(&client->base);
    return true;
}

/* HTTP/1 has no place for it. */
static void encode_metadata(struct kb_request_encoder *encoder, struct kb_buf *block)
{
    struct kb_pool_client *base = &client_of(encoder)->base;
    struct kb_stat_group *stats =
        __atomic_load_n(&kb_conn_pool_cluster(base)->http1_stats, __ATOMIC_ACQUIRE);

    (void)block;
    if (stats != NULL) { /* the main thread is still about to make it for the first connection */
        kb_stat_inc(kb_stat_group_block(stats, kb_conn_pool_worker(base)->index),
                    KB_STAT_HTTP1_METADATA_NOT_SUPPORTED_ERROR);
    }
}

static struct kb_slice *head_slice(struct kb_request_encoder *encoder)
{
    return client_of(encoder)->parser.head_slice;
}

static void encoder_info(struct kb_request_encoder *encoder, struct kb_upstream_info *info)
{
    struct kb_h1_client *client = client_of(encoder);

    kb_pool_client_info(encoder, info);
    info->header_bytes_sent = client->header_bytes_sent;
    info->header_bytes_received = client->header_bytes_received;
    info->protocol = KB_PROTOCOL_HTTP11;
}

static const struct kb_request_encoder_ops encoder_ops = {
    .headers = encode_headers,
    .data = encode_data,
    .trailers = encode_trailers,
    .metadata = encode_metadata,
    .close = kb_pool_client_close,
    .take_back = take_back,
    .read_disable = kb_pool_client_read_disable,
    .head_slice = head_slice,
    .info = encoder_info,
    .unsent = kb_pool_client_unsent,
};

/* ---- response ---- */

static void protocol_error(struct kb_h1_client *client)
{
    kb_stat_inc(kb_conn_pool_stats(&client->base), KB_STAT_CLUSTER_UPSTREAM_CX_PROTOCOL_ERROR);
    client->base.close_after = true;
    kb_pool_client_fail(&client->base, KB_RESET_PROTOCOL_ERROR);
}

static void response_begin(struct kb_h1_client *client)
{
    if (client->response == NULL) {
        client->response = KB_ARENA_NEW(client->base.arena, struct kb_header_map);
        kb_header_map_init(client->response, client->base.arena);
    } else {
        /* Of an informational answer before: however many come, one map is enough. */
        kb_header_map_clear(client->response);
    }
    client->parser.head_response_expected = client->head_request;
    kb_h1_parser_begin(&client->parser, client->response, client->base.arena);
}

/* The answer is complete: the connection goes back to its pool, or closes. */
static void response_end(struct kb_h1_client *client)
{
    client->base.answer_ended = client->request_complete;
    kb_pool_client_detach(&client->base);
    if (!client->request_complete) {
        /* The rest of the request will never be sent on it. */
        client->base.close_after = true;
    }
}

/* Whatever lengths such an answer claims, it has no body: the tunnel follows its head. */
static bool tunnel_agreed(const struct kb_h1_client *client)
{
    unsigned status = client->response->status;

    return client->connect_asked ? status / 100 == 2 : status == 101;
}

static void tunnel_begin(struct kb_h1_client *client)
{
    client->tunnel = true;
    client->base.close_after = true;
    if (client->base.decoder != NULL) {
        client->base.decoder->on_headers(client->base.owner, client->response, false);
    }
}

/* Whether the head says that the connection ends with this answer (RFC 9112 section 9.3; HTTP/1.0
 * keeps one only by saying so). A `proxy-connection` counts too, as in Envoy. */
static bool close_announced(unsigned http_minor, const struct kb_header_map *headers)
{
    const struct kb_header *connection = kb_header_map_get_id(headers, KB_HDR_CONNECTION);
    const struct kb_header *proxy = kb_header_map_get_id(headers, KB_HDR_PROXY_CONNECTION);

    if (KB_UNLIKELY(http_minor == 0) &&
        (connection == NULL || !kb_str_list_has(connection->value, KB_STR("keep-alive")))) {
        return true;
    }
    if (http_minor == 1 && connection != NULL &&
        kb_str_list_has(connection->value, KB_STR("close"))) {
        return true;
    }
    return proxy != NULL && kb_str_list_has(proxy->value, KB_STR("close"));
}

static void header_bytes_take(struct kb_h1_client *client)
{
    client->header_bytes_received += client->parser.header_bytes;
    client->parser.header_bytes = 0;
}

static void on_head(struct kb_h1_client *client)
{
    struct kb_h1_parser *parser = &client->parser;
    struct kb_header_map *headers = client->response;

    header_bytes_take(client);
    if (KB_UNLIKELY(headers->status < 200 || headers->status == 204) &&
        (parser->chunked || (parser->has_content_length && parser->content_length > 0))) {
        protocol_error(client);
        return;
    }
    /* 101 that nobody asked for is a final answer without a body. */
    if (headers->status < 200 && headers->status != 101) {
        client->informational_bytes += parser->head_bytes;
        if (client->informational_bytes > INFORMATIONAL_BYTES_MAX) {
            protocol_error(client);
            return;
        }
        /* Envoy knows 100, 102, 103 and 104, and ignores the others. */
        if (client->base.decoder != NULL && headers->status <= 104) {
            kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH); /* of 0 bytes */
            client->base.decoder->on_1xx(client->base.owner, headers);
        }
        return;
    }
    client->response_started = true;
    if (KB_UNLIKELY(close_announced(parser->http_minor, headers))) {
        kb_stat_inc(kb_conn_pool_stats(&client->base), KB_STAT_CLUSTER_UPSTREAM_CX_CLOSE_NOTIFY);
        client->base.close_after = true;
    }
    if (KB_UNLIKELY(client->upgrade_asked || client->connect_asked) && tunnel_agreed(client)) {
        tunnel_begin(client);
        return;
    }
    if (client->base.decoder == NULL) {
        return;
    }
    if (parser->message_complete) {
        const struct kb_response_decoder_ops *decoder = client->base.decoder;

        response_end(client);
        decoder->on_headers(client->base.owner, headers, true);
        return;
    }
    client->base.decoder->on_headers(client->base.owner, headers, false);
}

static void on_body(struct kb_h1_client *client)
{
    struct kb_h1_parser *parser = &client->parser;
    const struct kb_response_decoder_ops *decoder = client->base.decoder;
    bool end = parser->message_complete && parser->trailers == NULL;

    if (decoder != NULL) {
        if (end) {
            response_end(client);
        }
        decoder->on_data(client->base.owner, &parser->body, end);
    }
    kb_buf_dispose(&parser->body);
}

static void on_complete(struct kb_h1_client *client)
{
    struct kb_h1_parser *parser = &client->parser;
    const struct kb_response_decoder_ops *decoder = client->base.decoder;

    if (!client->response_started) {
        /* An informational answer; the real one follows. */
        kb_h1_parser_next(parser);
        return;
    }
    if (decoder != NULL) {
        struct kb_header_map *trailers = parser->trailers;

        header_bytes_take(client); /* those of the trailers */
        response_end(client);
        if (trailers != NULL) {
            decoder->on_trailers(client->base.owner, trailers);
        } else {
            decoder->on_data(client->base.owner, &parser->body, true);
        }
    }
    kb_h1_parser_next(parser);
    kb_conn_pool_request_done(&client->base);
}

/* True while parsing may go on. */
static bool event_handle(struct kb_h1_client *client, enum kb_h1_event event)
{
    switch (event) {
    case KB_H1_NEED_MORE:
        return false;
    case KB_H1_HEAD:
        on_head(client);
        break;
    case KB_H1_BODY:
        on_body(client);
        break;
    case KB_H1_COMPLETE:
        on_complete(client);
        break;
    case KB_H1_ERROR:
        header_bytes_take(client);
        protocol_error(client);
        return false;
    }
    return client->base.state == KB_POOL_CLIENT_BUSY;
}

/* Bytes behind an agreement, to the owner as they are. */
static void tunnel_pass(struct kb_h1_client *client, struct kb_buf *in)
{
    if (client->base.decoder != NULL && client->base.read_disables == 0 && in->len > 0) {
        client->base.decoder->on_data(client->base.owner, in, false);
        kb_buf_consume(in, in->len);
    }
}

/* Bytes that nobody asked for. A server that ends an idle connection with a 408 does no wrong. */
static void unasked_bytes(struct kb_h1_client *client, const struct kb_buf *in)
{
    char start[sizeof("HTTP/1.1 408") - 1];
    size_t n = kb_buf_peek(in, start, sizeof(start));
    struct kb_str text = kb_str_make(start, n);

    if (n < sizeof(start) || !kb_str_starts_with(text, KB_STR("HTTP/1.")) ||
        !kb_str_ends_with(text, KB_STR(" 408"))) {
        kb_stat_inc(kb_conn_pool_stats(&client->base), KB_STAT_CLUSTER_UPSTREAM_CX_PROTOCOL_ERROR);
    }
    kb_conn_close(client->base.conn, KB_CONN_NO_FLUSH);
}

/* The peer closed: an answer without length ends here, any other is cut. */
static void disconnected(struct kb_h1_client *client)
{
    bool begun = kb_h1_parser_in_message(&client->parser) &&
                 (client->parser.parsed_bytes > 0 || client->base.conn->in.len > 0);

    if (client->base.decoder == NULL) {
        return;
    }
    if (!begun || client->tunnel) {
        kb_pool_client_fail(&client->base, KB_RESET_CONNECTION_TERMINATION);
        return;
    }
    if (kb_h1_parse_eof(&client->parser) == KB_H1_COMPLETE) {
        const struct kb_response_decoder_ops *decoder = client->base.decoder;

        response_end(client);
        decoder->on_data(client->base.owner, &client->parser.body, true);
        return;
    }
    protocol_error(client);
}

static void client_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct kb_h1_client *client = client_of_owner(owner);

    if (client->base.state == KB_POOL_CLIENT_READY) {
        unasked_bytes(client, in);
        return;
    }
    while (client->base.state == KB_POOL_CLIENT_BUSY) {
        if (KB_UNLIKELY(client->tunnel)) {
            tunnel_pass(client, in);
            break;
        }
        /* The reader of the body is full; what is left waits in the connection. */
        if (client->base.read_disables > 0 && client->response_started &&
            !client->parser.message_complete) {
            break;
        }
        if (!kb_h1_parser_in_message(&client->parser)) {
            if (in->len == 0) {
                break;
            }
            response_begin(client);
        }
        if (!event_handle(client, kb_h1_parse(&client->parser, in))) {
            break;
        }
    }
    if (KB_UNLIKELY(end_stream) && client->base.read_disables == 0 &&
        client->base.state == KB_POOL_CLIENT_BUSY) {
        /* Of a CONNECT: its tunnel knows no half-close, in Envoy neither. */
        disconnected(client);
        kb_conn_close(client->base.conn, KB_CONN_NO_FLUSH);
    }
}

static void client_on_event(void *owner, enum kb_conn_event event)
{
    struct kb_h1_client *client = client_of_owner(owner);

    if (event == KB_CONN_CONNECTED) {
        kb_conn_pool_connected(&client->base);
        return;
    }
    if (event == KB_CONN_REMOTE_CLOSE && client->base.state == KB_POOL_CLIENT_BUSY) {
        disconnected(client);
    }
    if (client->base.decoder != NULL) {
        kb_pool_client_fail(&client->base, KB_RESET_CONNECTION_TERMINATION);
    }
    kb_conn_pool_closed(&client->base, event);
}

static const struct kb_conn_callbacks conn_callbacks = {
    .on_data = client_on_data,
    .on_event = client_on_event,
    .on_above_high = kb_pool_client_above_high,
    .on_below_low = kb_pool_client_below_low,
};

static const struct kb_str alpn = {"http/1.1", 8};

const struct kb_pool_client_ops kb_h1_client_ops = {
    .size = sizeof(struct kb_h1_client),
    .conn_callbacks = &conn_callbacks,
    .init = client_init,
    .count = client_count,
    .attach = client_attach,
    .dispose = client_dispose,
    .alpn = &alpn,
    .alpn_count = 1,
};
