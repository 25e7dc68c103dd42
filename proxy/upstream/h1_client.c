/* SPDX-License-Identifier: Apache-2.0 */
/* Upstream HTTP/1 codec: one request and its answer on a pooled connection (Envoy CodecClient over
 * Http1 ClientConnection). */
#include "proxy/upstream/h1_client.h"

#include "base/log.h"

/* Informational answers before one final answer; more is no conversation any more. */
#define INFORMATIONAL_BYTES_MAX (1024 * 1024)

struct kb_request_encoder {
    struct kb_h1_client client; /* only ever a struct kb_h1_client behind this name */
};

static struct kb_h1_client *client_of(struct kb_request_encoder *encoder)
{
    return KB_CAST(&encoder->client, kb_h1_client);
}

void kb_h1_client_attach(struct kb_h1_client *client, struct kb_arena *arena,
                         const struct kb_response_decoder_ops *decoder, void *owner)
{
    client->decoder = decoder;
    client->owner = owner;
    client->arena = arena;
    client->response = NULL;
    client->informational_bytes = 0;
    client->head_request = false;
    client->upgrade_asked = false;
    client->tunnel = false;
    client->request_complete = false;
    client->response_started = false;
    client->answer_ended = false;
    client->sent_before = client->conn->bytes_sent;
    client->received_before = client->conn->bytes_received;
    client->header_bytes_sent = 0;
    client->header_bytes_received = 0;
}

/* ---- request ---- */

static void request_ended(struct kb_h1_client *client)
{
    client->request_complete = true;
}

void kb_request_encoder_headers(struct kb_request_encoder *encoder,
                                const struct kb_header_map *headers, bool end_stream)
{
    struct kb_h1_client *client = client_of(encoder);
    size_t before = client->conn->out.len;

    client->head_request = kb_str_eq(headers->method, KB_STR("HEAD"));
    client->upgrade_asked = kb_header_map_get_id(headers, KB_HDR_UPGRADE) != NULL;
    client->framing =
        kb_h1_encode_request(&client->conn->out, headers, end_stream, client->parser.settings);
    client->header_bytes_sent = client->conn->out.len - before - headers->method.len -
                                headers->path.len - sizeof("  HTTP/1.1\r\n\r\n") + 1;
    kb_conn_written(client->conn);
    if (end_stream) {
        request_ended(client);
    }
}

void kb_request_encoder_data(struct kb_request_encoder *encoder, struct kb_buf *data,
                             bool end_stream)
{
    struct kb_h1_client *client = client_of(encoder);

    kb_h1_encode_data(&client->conn->out, client->framing, data);
    if (end_stream) {
        kb_h1_encode_end(&client->conn->out, client->framing, NULL, false);
    }
    kb_conn_written(client->conn);
    if (end_stream) {
        request_ended(client);
    }
}

void kb_request_encoder_trailers(struct kb_request_encoder *encoder,
                                 const struct kb_header_map *trailers)
{
    struct kb_h1_client *client = client_of(encoder);
    const struct kb_h1_settings *settings = client->parser.settings;

    kb_h1_encode_end(&client->conn->out, client->framing,
                     settings->enable_trailers ? trailers : NULL, settings->proper_case_words);
    kb_conn_written(client->conn);
    request_ended(client);
}

void kb_request_encoder_reset(struct kb_request_encoder *encoder)
{
    struct kb_h1_client *client = client_of(encoder);

    if (client->decoder == NULL) {
        return;
    }
    client->decoder = NULL;
    kb_h1_pool_request_uncount(client);
    /* An answer may still be under way: the connection cannot be used again. */
    kb_conn_close(client->conn, KB_CONN_NO_FLUSH);
}

void kb_request_encoder_read_disable(struct kb_request_encoder *encoder, bool disable)
{
    struct kb_h1_client *client = client_of(encoder);

    if (client->state != KB_H1_CLIENT_BUSY) {
        return;
    }
    client->read_disables += disable ? 1 : (unsigned)-1;
    kb_conn_read_disable(client->conn, disable);
}

struct kb_slice *kb_request_encoder_head_slice(struct kb_request_encoder *encoder)
{
    return client_of(encoder)->parser.head_slice;
}

void kb_request_encoder_info(struct kb_request_encoder *encoder, struct kb_upstream_info *info)
{
    struct kb_h1_client *client = client_of(encoder);

    if (info->connection_id != client->conn->info.id || info->remote.len == 0) {
        info->local = client->conn->info.local;
        info->remote = client->conn->info.remote;
        info->connection_id = client->conn->info.id;
    }
    info->connection_requests = client->requests;
    info->wire_bytes_sent = client->conn->bytes_sent - client->sent_before + client->conn->out.len;
    info->wire_bytes_received = client->conn->bytes_received - client->received_before;
    info->header_bytes_sent = client->header_bytes_sent;
    info->header_bytes_received = client->header_bytes_received;
    info->protocol = KB_PROTOCOL_HTTP11;
}

/* ---- response ---- */

/* No answer, or no more of it: tells the owner, ends the connection. */
static void request_fail(struct kb_h1_client *client, enum kb_reset_reason reason)
{
    const struct kb_response_decoder_ops *decoder = client->decoder;

    if (decoder != NULL) {
        client->decoder = NULL;
        kb_h1_pool_request_uncount(client);
        decoder->on_reset(client->owner, reason, client->conn->info.transport_failure_reason);
    }
    kb_conn_close(client->conn, KB_CONN_NO_FLUSH);
}

static void protocol_error(struct kb_h1_client *client)
{
    kb_stat_inc(kb_h1_pool_stats(client), KB_STAT_CLUSTER_UPSTREAM_CX_PROTOCOL_ERROR);
    client->close_after = true;
    request_fail(client, KB_RESET_PROTOCOL_ERROR);
}

static void response_begin(struct kb_h1_client *client)
{
    if (client->response == NULL) {
        client->response = KB_ARENA_NEW(client->arena, struct kb_header_map);
        kb_header_map_init(client->response, client->arena);
    } else {
        /* Of an informational answer before: however many come, one map is enough. */
        kb_header_map_clear(client->response);
    }
    client->parser.head_response_expected = client->head_request;
    kb_h1_parser_begin(&client->parser, client->response, client->arena);
}

/* The answer is complete: the connection goes back to its pool, or closes. */
static void response_end(struct kb_h1_client *client)
{
    client->answer_ended = client->request_complete;
    client->decoder = NULL;
    kb_h1_pool_request_uncount(client);
    if (!client->request_complete) {
        /* The rest of the request will never be sent on it. */
        client->close_after = true;
    }
}

static bool has_token(const struct kb_header *header, struct kb_str token)
{
    struct kb_str rest = header->value;
    struct kb_str item;

    while (kb_str_next_token(&rest, ',', &item)) {
        if (kb_str_ieq(kb_str_trim(item), token)) {
            return true;
        }
    }
    return false;
}

/* Whether the head says that the connection ends with this answer (RFC 9112 section 9.3; HTTP/1.0
 * keeps one only by saying so). A `proxy-connection` counts too, as in Envoy. */
static bool close_announced(unsigned http_minor, const struct kb_header_map *headers)
{
    const struct kb_header *connection = kb_header_map_get_id(headers, KB_HDR_CONNECTION);
    const struct kb_header *proxy = kb_header_map_get_id(headers, KB_HDR_PROXY_CONNECTION);

    if (KB_UNLIKELY(http_minor == 0) &&
        (connection == NULL || !has_token(connection, KB_STR("keep-alive")))) {
        return true;
    }
    if (http_minor == 1 && connection != NULL && has_token(connection, KB_STR("close"))) {
        return true;
    }
    return proxy != NULL && has_token(proxy, KB_STR("close"));
}

static void on_head(struct kb_h1_client *client)
{
    struct kb_h1_parser *parser = &client->parser;
    struct kb_header_map *headers = client->response;

    client->header_bytes_received += parser->header_bytes;
    if (KB_UNLIKELY(headers->status == 101 && client->upgrade_asked && client->decoder != NULL)) {
        client->tunnel = true;
        client->response_started = true;
        client->close_after = true;
        client->decoder->on_headers(client->owner, headers, false);
        return;
    }
    /* 101 that nobody asked for is a final answer without a body. */
    if (headers->status < 200 && headers->status != 101) {
        client->informational_bytes += parser->head_bytes;
        if (client->informational_bytes > INFORMATIONAL_BYTES_MAX) {
            protocol_error(client);
            return;
        }
        /* Informational: Envoy passes 100 on and drops the others. */
        if (client->decoder != NULL) {
            client->decoder->on_1xx(client->owner, headers);
        }
        return;
    }
    if (headers->status == 204 &&
        (parser->chunked || (parser->has_content_length && parser->content_length > 0))) {
        protocol_error(client);
        return;
    }
    client->response_started = true;
    if (KB_UNLIKELY(close_announced(parser->http_minor, headers))) {
        kb_stat_inc(kb_h1_pool_stats(client), KB_STAT_CLUSTER_UPSTREAM_CX_CLOSE_NOTIFY);
        client->close_after = true;
    }
    if (client->decoder == NULL) {
        return;
    }
    if (parser->message_complete) {
        const struct kb_response_decoder_ops *decoder = client->decoder;

        response_end(client);
        decoder->on_headers(client->owner, headers, true);
        return;
    }
    client->decoder->on_headers(client->owner, headers, false);
}

static void on_body(struct kb_h1_client *client)
{
    struct kb_h1_parser *parser = &client->parser;
    const struct kb_response_decoder_ops *decoder = client->decoder;
    bool end = parser->message_complete && parser->trailers == NULL;

    if (decoder != NULL) {
        if (end) {
            response_end(client);
        }
        decoder->on_data(client->owner, &parser->body, end);
    }
    kb_buf_dispose(&parser->body);
}

static void on_complete(struct kb_h1_client *client)
{
    struct kb_h1_parser *parser = &client->parser;
    const struct kb_response_decoder_ops *decoder = client->decoder;

    if (!client->response_started) {
        /* An informational answer; the real one follows. */
        kb_h1_parser_next(parser);
        return;
    }
    if (decoder != NULL) {
        struct kb_header_map *trailers = parser->trailers;

        response_end(client);
        if (trailers != NULL) {
            decoder->on_trailers(client->owner, trailers);
        } else {
            decoder->on_data(client->owner, &parser->body, true);
        }
    }
    kb_h1_parser_next(parser);
    kb_h1_pool_request_done(client);
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
        protocol_error(client);
        return false;
    }
    return client->state == KB_H1_CLIENT_BUSY;
}

/* Bytes behind a 101, to the owner as they are. */
static void tunnel_pass(struct kb_h1_client *client, struct kb_buf *in)
{
    if (client->decoder != NULL && client->read_disables == 0 && in->len > 0) {
        client->decoder->on_data(client->owner, in, false);
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
        kb_stat_inc(kb_h1_pool_stats(client), KB_STAT_CLUSTER_UPSTREAM_CX_PROTOCOL_ERROR);
    }
    kb_conn_close(client->conn, KB_CONN_NO_FLUSH);
}

static void client_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct kb_h1_client *client = KB_CAST(owner, kb_h1_client);

    (void)end_stream;
    if (client->state == KB_H1_CLIENT_READY) {
        unasked_bytes(client, in);
        return;
    }
    while (client->state == KB_H1_CLIENT_BUSY) {
        if (KB_UNLIKELY(client->tunnel)) {
            tunnel_pass(client, in);
            break;
        }
        /* The reader of the body is full; what is left waits in the connection. */
        if (client->read_disables > 0 && client->response_started &&
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
}

/* The peer closed: an answer without length ends here, any other is cut. */
static void disconnected(struct kb_h1_client *client)
{
    bool begun = kb_h1_parser_in_message(&client->parser) &&
                 (client->parser.parsed_bytes > 0 || client->conn->in.len > 0);

    if (client->decoder == NULL) {
        return;
    }
    if (!begun || client->tunnel) {
        request_fail(client, KB_RESET_CONNECTION_TERMINATION);
        return;
    }
    if (kb_h1_parse_eof(&client->parser) == KB_H1_COMPLETE) {
        const struct kb_response_decoder_ops *decoder = client->decoder;

        response_end(client);
        decoder->on_data(client->owner, &client->parser.body, true);
        return;
    }
    protocol_error(client);
}

static void client_on_event(void *owner, enum kb_conn_event event)
{
    struct kb_h1_client *client = KB_CAST(owner, kb_h1_client);

    if (event == KB_CONN_CONNECTED) {
        kb_h1_pool_connected(client);
        return;
    }
    if (event == KB_CONN_REMOTE_CLOSE && client->state == KB_H1_CLIENT_BUSY) {
        disconnected(client);
    }
    if (client->decoder != NULL) {
        request_fail(client, KB_RESET_CONNECTION_TERMINATION);
    }
    kb_h1_pool_closed(client, event);
}

static void client_on_above_high(void *owner)
{
    struct kb_h1_client *client = KB_CAST(owner, kb_h1_client);

    kb_stat_inc(kb_h1_pool_stats(client), KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_BACKED_UP_TOTAL);
    if (client->decoder != NULL) {
        client->decoder->on_above_high(client->owner);
    }
}

static void client_on_below_low(void *owner)
{
    struct kb_h1_client *client = KB_CAST(owner, kb_h1_client);

    kb_stat_inc(kb_h1_pool_stats(client), KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_DRAINED_TOTAL);
    if (client->decoder != NULL) {
        client->decoder->on_below_low(client->owner);
    }
}

const struct kb_conn_callbacks kb_h1_client_conn_callbacks = {
    .on_data = client_on_data,
    .on_event = client_on_event,
    .on_above_high = client_on_above_high,
    .on_below_low = client_on_below_low,
};
