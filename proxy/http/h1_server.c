/* SPDX-License-Identifier: Apache-2.0 */
/* Downstream HTTP/1 codec: parser events to streams, responses to the connection's queue. */
#include "proxy/http/h1_server.h"

#include <string.h>

#include "proxy/http/hcm_internal.h"
#include "proxy/http/url.h"
#include "proxy/matcher/string_match.h"

static const struct kb_response_encoder_ops h1_server_encoder;

void kb_h1_server_init(struct kb_h1_server *server, struct kb_hcm *hcm)
{
    memset(server, 0, sizeof(*server));
    KB_OBJ_SET(server, kb_h1_server);
    server->hcm = hcm;
    kb_h1_parser_init(&server->parser, false, &hcm->config->h1, &hcm->worker->slices);
}

void kb_h1_server_dispose(struct kb_h1_server *server)
{
    kb_h1_parser_dispose(&server->parser);
    KB_OBJ_CLEAR(server);
}

/* ---- request ---- */

/* Both sides are done with the present request. */
static void message_finished(struct kb_h1_server *server)
{
    server->stream = NULL;
    server->request_complete = false;
    server->response_complete = false;
    server->connect_request = false;
    server->head_request = false;
    kb_h1_parser_next(&server->parser);
}

void kb_h1_server_detach(struct kb_h1_server *server)
{
    server->stream = NULL;
    server->failed = true;
}

static void fail(struct kb_h1_server *server, enum kb_h1_error error)
{
    struct kb_stream *stream = server->stream;

    server->failed = true;
    if (!stream->headers_decoded) {
        /* Nothing of a head that was refused is shown or acted on. */
        kb_header_map_init(&stream->request, &stream->arena);
        stream->info.protocol = KB_PROTOCOL_HTTP11;
        stream->head_request = false;
        stream->http_10_keep_alive = false;
        server->head_request = false;
    }
    kb_hcm_stream_codec_error(stream, kb_h1_error_status(error), kb_h1_error_details(error));
}

/* RFC 3986 authority, as nghttp2_check_authority sees it. */
static bool authority_valid(struct kb_str authority)
{
    static const uint32_t allowed[8] = {
        [1] = 0x2fff7ff2, /* 0x20 to 0x3f without space " # / < > ? */
        [2] = 0xafffffff, /* 0x40 to 0x5f without \ and ^ */
        [3] = 0x47fffffe, /* 0x60 to 0x7f without ` { | } DEL */
    };

    for (size_t i = 0; i < authority.len; i++) {
        unsigned char c = (unsigned char)authority.p[i];

        if ((allowed[c / 32] >> (c % 32) & 1) == 0) {
            return false;
        }
    }
    return true;
}

/* Splits an absolute-form target (RFC 9112 section 3.2.2) into authority and path. */
static enum kb_h1_error absolute_target(struct kb_header_map *map, struct kb_str url,
                                        bool https_allowed)
{
    struct kb_url parts;

    switch (kb_url_parse(url, &parts)) {
    case KB_URL_INVALID:
        return KB_H1_INVALID_URL;
    case KB_URL_SCHEME:
        return KB_H1_INVALID_SCHEME;
    case KB_URL_OK:
        break;
    }
    map->scheme = kb_str_ieq(parts.scheme, KB_STR("https")) ? KB_STR("https") : KB_STR("http");
    if (map->scheme.len == 5 && !https_allowed) {
        return KB_H1_HTTPS_IN_PLAINTEXT;
    }
    map->authority = parts.authority;
    map->path = parts.path;
    return KB_H1_OK;
}

static enum kb_h1_error target_set(struct kb_h1_server *server, struct kb_header_map *map)
{
    struct kb_str url = server->parser.url;

    if (server->connect_request) {
        map->authority = url;
        return kb_url_connect_target_valid(url) ? KB_H1_OK : KB_H1_INVALID_URL;
    }
    if (KB_LIKELY(url.len > 0 && url.p[0] == '/')) {
        map->path = url;
        return KB_H1_OK;
    }
    if (kb_str_eq(url, KB_STR("*")) && kb_str_eq(map->method, KB_STR("OPTIONS"))) {
        map->path = url;
        return KB_H1_OK;
    }
    if (!server->parser.settings->allow_absolute_url) {
        map->path = url;
        return KB_H1_OK;
    }
    return absolute_target(
        map, url, !server->parser.settings->validate_scheme || server->hcm->conn->info.tls);
}

/* Each header that `connection` names costs a search. */
#define NOMINATED_MAX 10
#define TE_BYTES_MAX  256

/* An upgrade needs its connection header. */
static bool upgrade_named(const struct kb_header_map *map)
{
    struct kb_str upgrade = kb_header_map_value_id(map, KB_HDR_UPGRADE);

    return upgrade.p != NULL && !kb_str_ieq(upgrade, KB_STR("h2c")) &&
           kb_connection_names(map, KB_STR("upgrade"));
}

/* Envoy's Http::Utility::sanitizeConnectionHeader: a client may not have these removed. */
static bool connection_acceptable(struct kb_header_map *map)
{
    struct kb_str rest = kb_header_map_value_id(map, KB_HDR_CONNECTION);
    struct kb_str token;
    unsigned count = 0;

    while (kb_str_next_token(&rest, ',', &token)) {
        count += token.len > 0;
        token = kb_str_trim(token);
        if (kb_str_ieq(token, KB_STR("host"))) {
            map->authority = KB_STR_NULL;
        }
        if (count >= NOMINATED_MAX || (token.len > 0 && token.p[0] == ':') ||
            kb_str_ieq(token, KB_STR("x-forwarded-for")) ||
            kb_str_ieq(token, KB_STR("x-forwarded-host")) ||
            kb_str_ieq(token, KB_STR("x-forwarded-proto"))) {
            return false;
        }
        if (kb_str_ieq(token, KB_STR("te")) &&
            kb_header_map_value_id(map, KB_HDR_TE).len >= TE_BYTES_MAX) {
            return false;
        }
    }
    return true;
}

static bool upgrade_ignored(const struct kb_h1_settings *settings, struct kb_str name)
{
    for (uint32_t i = 0; i < settings->ignored_upgrade_count; i++) {
        if (kb_string_matcher_match(&settings->ignored_upgrades[i], name)) {
            return true;
        }
    }
    return false;
}

/* A list without what is in vain, and what `ignored` names; empty when nothing is left. */
static struct kb_str tokens_left(struct kb_arena *arena, struct kb_str list,
                                 const struct kb_h1_settings *settings, struct kb_str ignored)
{
    char *text = kb_arena_alloc(arena, list.len + 1, 1);
    struct kb_str token;
    size_t len = 0;

    while (kb_str_next_token(&list, ',', &token)) {
        token = kb_str_trim(token);
        if (token.len == 0 || kb_str_ieq(token, ignored) ||
            (settings != NULL && upgrade_ignored(settings, token))) {
            continue;
        }
        if (len > 0) {
            text[len++] = ',';
        }
        memcpy(text + len, token.p, token.len);
        len += token.len;
    }
    return kb_str_make(text, len);
}

static void list_set(struct kb_header_map *map, enum kb_header_id id, struct kb_str list)
{
    if (list.len > 0) {
        kb_header_map_set_id(map, id, list);
    } else {
        kb_header_map_remove_id(map, id);
    }
}

/* ignore_http_11_upgrade: the request reads as if it had not asked for these. */
static KB_COLD void upgrades_ignore(const struct kb_h1_settings *settings,
                                    struct kb_header_map *map)
{
    struct kb_str left;

    if (!kb_header_map_asks_upgrade(map)) {
        return;
    }
    left =
        tokens_left(map->arena, kb_header_map_value_id(map, KB_HDR_UPGRADE), settings, KB_STR_NULL);
    if (kb_str_ieq(left, KB_STR("h2c"))) {
        return; /* it is ignored alone only: with others it is an upgrade that nobody knows */
    }
    list_set(map, KB_HDR_UPGRADE, left);
    if (left.len == 0) {
        list_set(map, KB_HDR_CONNECTION,
                 tokens_left(map->arena, kb_header_map_value_id(map, KB_HDR_CONNECTION), NULL,
                             KB_STR("upgrade")));
    }
}

/* CONNECT has no body that could be framed (RFC 9110 section 9.3.6): what claims one is refused,
 * so that nobody behind takes its bytes for something else. */
static enum kb_h1_error connect_check(const struct kb_h1_parser *parser, struct kb_header_map *map)
{
    if (parser->has_content_length) {
        if (!kb_str_eq(kb_header_map_value_id(map, KB_HDR_CONTENT_LENGTH), KB_STR("0"))) {
            return KB_H1_BODY_DISALLOWED;
        }
        kb_header_map_remove_id(map, KB_HDR_CONTENT_LENGTH);
    }
    return parser->chunked ? KB_H1_INVALID_TRANSFER_ENCODING : KB_H1_OK;
}

static void on_head(struct kb_h1_server *server)
{
    struct kb_h1_parser *parser = &server->parser;
    struct kb_stream *stream = server->stream;
    struct kb_header_map *map = &stream->request;
    enum kb_h1_error error;
    bool low_version;

    if (KB_UNLIKELY(parser->dropped_underscores)) {
        parser->dropped_underscores = false;
        kb_stat_inc(server->hcm->http1_stats, KB_STAT_HTTP1_DROPPED_HEADERS_WITH_UNDERSCORES);
    }
    stream->head_slice = kb_slice_ref(parser->head_slice);
    stream->info.protocol = parser->http_minor == 0 ? KB_PROTOCOL_HTTP10 : KB_PROTOCOL_HTTP11;
    stream->info.header_bytes_received = parser->header_bytes;
    low_version = parser->http_minor == 0 && !parser->settings->accept_http_10;
    server->http_10 = parser->http_minor == 0 && !low_version;
    /* llhttp heeds Proxy-Connection too; for HTTP/1.0 Envoy does so only when it says close. */
    stream->http_10_keep_alive =
        server->http_10 && parser->keep_alive && kb_connection_names(map, KB_STR("keep-alive")) &&
        !kb_str_list_has(kb_header_map_value_id(map, KB_HDR_PROXY_CONNECTION), KB_STR("close"));
    stream->saw_connection_close |=
        server->http_10 ? !stream->http_10_keep_alive : !parser->keep_alive;
    server->head_request = kb_str_eq(map->method, KB_STR("HEAD"));
    server->connect_request = kb_str_eq(map->method, KB_STR("CONNECT"));
    stream->head_request = server->head_request;
    stream->connect_request = server->connect_request;
    if (KB_UNLIKELY(parser->settings->ignored_upgrade_count > 0)) {
        upgrades_ignore(parser->settings, map);
    }
    if (KB_UNLIKELY(kb_header_map_get_id(map, KB_HDR_CONNECTION) != NULL) && !upgrade_named(map) &&
        !connection_acceptable(map)) {
        fail(server, KB_H1_CONNECTION_HEADER_REJECTED);
        return;
    }
    if (KB_UNLIKELY(server->connect_request)) {
        error = connect_check(parser, map);
        if (error != KB_H1_OK) {
            fail(server, error);
            return;
        }
    }
    error = target_set(server, map);
    if (error == KB_H1_OK && low_version) {
        error = KB_H1_LOW_VERSION;
    }
    if (error == KB_H1_OK && map->authority.p != NULL && !authority_valid(map->authority)) {
        error = KB_H1_INVALID_AUTHORITY;
    }
    if (error != KB_H1_OK) {
        fail(server, error);
        return;
    }
    server->request_complete = parser->message_complete;
    kb_stream_decode_headers(stream, parser->message_complete);
    if (KB_UNLIKELY(stream->upgrade_asked || server->connect_request)) {
        /* Whatever becomes of it, what follows is no further request. */
        server->tunnel = true;
        server->request_complete = false;
    }
}

static void on_complete(struct kb_h1_server *server)
{
    struct kb_stream *stream = server->stream;
    bool told = server->request_complete;

    server->request_complete = true;
    if (server->response_complete) {
        message_finished(server);
        return;
    }
    if (stream == NULL || told) {
        return;
    }
    if (server->parser.trailers != NULL) {
        stream->info.header_bytes_received = server->parser.header_bytes;
        kb_stream_decode_trailers(stream, server->parser.trailers);
    } else {
        kb_stream_decode_data(stream, &server->parser.body, true);
    }
}

static void on_body(struct kb_h1_server *server)
{
    struct kb_h1_parser *parser = &server->parser;
    bool end_stream = parser->message_complete && parser->trailers == NULL;

    if (server->stream == NULL) {
        kb_buf_dispose(&parser->body);
        return;
    }
    server->request_complete = end_stream;
    kb_stream_decode_data(server->stream, &parser->body, end_stream);
    kb_buf_dispose(&parser->body);
}

/* A head of HTTP/1.0, which is accepted, was whole when it was refused. */
static bool refused_in_http_10(const struct kb_h1_parser *parser)
{
    return parser->http_minor == 0 && parser->settings->accept_http_10 &&
           (parser->error == KB_H1_INVALID_TRANSFER_ENCODING ||
            parser->error == KB_H1_CONTENT_LENGTH_AND_CHUNKED);
}

/* True when parsing may go on. */
static bool event_handle(struct kb_h1_server *server, enum kb_h1_event event)
{
    switch (event) {
    case KB_H1_NEED_MORE:
        return false;
    case KB_H1_HEAD:
        on_head(server);
        return true;
    case KB_H1_BODY:
        on_body(server);
        return true;
    case KB_H1_COMPLETE:
        on_complete(server);
        return true;
    case KB_H1_ERROR:
        if (server->stream == NULL) {
            server->failed = true;
            return false;
        }
        if (server->parser.error == KB_H1_UNEXPECTED_UNDERSCORE) {
            kb_stat_inc(server->hcm->http1_stats,
                        KB_STAT_HTTP1_REQUESTS_REJECTED_WITH_UNDERSCORES_IN_HEADERS);
        }
        server->stream->info.header_bytes_received = server->parser.header_bytes;
        server->http_10 = refused_in_http_10(&server->parser);
        fail(server, server->parser.error);
        return false;
    }
    return false;
}

/* A request comes while the client has not taken the answers to the two before it (Envoy's
 * protection against floods). */
static void flood(struct kb_h1_server *server)
{
    server->failed = true;
    kb_stat_inc(server->hcm->http1_stats, KB_STAT_HTTP1_RESPONSE_FLOOD);
    kb_hcm_close_codec_error(server->stream, KB_STR("codec_error:Too_many_responses_queued."));
}

/* Begins the next message; false when it has to wait, or never comes. */
static bool message_begin(struct kb_h1_server *server, struct kb_buf *in)
{
    struct kb_hcm *hcm = server->hcm;
    bool flooded = server->response_ends[0] > hcm->conn->bytes_sent;

    /* A request waits until the one before it is answered, and the client reads its answers. */
    if (server->stream != NULL || hcm->drain == KB_HCM_CLOSING ||
        (hcm->conn->above_high && !flooded)) {
        return false;
    }
    server->wire_bytes_before += in->len;
    if (!kb_h1_parser_has_input(&server->parser, in)) {
        return false;
    }
    kb_hcm_streams_reap(hcm);
    server->stream = kb_hcm_stream_begin(hcm, &h1_server_encoder, server);
    server->stream->info.wire_bytes_received = server->wire_bytes_before;
    server->wire_bytes_before = 0;
    if (KB_UNLIKELY(flooded)) {
        flood(server);
        return false;
    }
    kb_h1_parser_begin(&server->parser, &server->stream->request, &server->stream->arena);
    return true;
}

/* Bytes behind a request to upgrade or CONNECT, to the stream as they are. */
static void tunnel_pass(struct kb_h1_server *server, struct kb_buf *in)
{
    if (server->stream == NULL) {
        kb_buf_consume(in, in->len);
        return;
    }
    if (server->read_disables == 0 && in->len > 0) {
        kb_stream_decode_data(server->stream, in, false);
        kb_buf_consume(in, in->len);
    }
}

void kb_h1_server_dispatch(struct kb_h1_server *server, struct kb_buf *in)
{
    struct kb_hcm *hcm = server->hcm;

    if (KB_UNLIKELY(server->stream == NULL && kb_h1_parser_in_message(&server->parser) &&
                    !server->parser.message_complete)) {
        /* The stream was answered and is gone, and with it the memory for the rest of its request.
         */
        server->failed = true;
    }
    if (server->stream != NULL && (server->tunnel || kb_h1_parser_in_message(&server->parser))) {
        server->stream->info.wire_bytes_received += in->len - server->metered;
    }
    while (!server->failed && !hcm->closed) {
        bool in_message = kb_h1_parser_in_message(&server->parser);

        if (KB_UNLIKELY(server->tunnel)) {
            tunnel_pass(server, in);
            break;
        }
        if (server->read_disables > 0 && in_message && !server->parser.message_complete) {
            break;
        }
        if (!in_message && !message_begin(server, in)) {
            break;
        }
        if (!event_handle(server, kb_h1_parse(&server->parser, in))) {
            break;
        }
    }
    if (server->failed || (hcm->drain == KB_HCM_CLOSING && !server->tunnel &&
                           !kb_h1_parser_in_message(&server->parser))) {
        kb_buf_consume(in, in->len);
    }
    server->metered = server->tunnel || kb_h1_parser_in_message(&server->parser) ? in->len : 0;
}

void kb_h1_server_abort(struct kb_h1_server *server, struct kb_buf *in)
{
    struct kb_hcm *hcm = server->hcm;
    struct kb_stream *stream;

    if (server->stream == NULL && !server->failed && !message_begin(server, in)) {
        return;
    }
    stream = server->stream;
    if (stream != NULL && server->request_complete && !server->tunnel) {
        return;
    }
    kb_buf_consume(in, in->len);
    if (server->failed || stream == NULL) {
        return;
    }
    server->failed = true;
    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_OVERLOAD_CLOSE);
    if (!stream->headers_decoded) {
        stream->info.protocol = KB_PROTOCOL_HTTP11;
    }
    kb_hcm_stream_abort(stream, 500, KB_STR("overload"));
}

/* ---- response ---- */

static void response_end(struct kb_h1_server *server)
{
    server->response_complete = true;
    server->stream->encoder = NULL;
    server->response_ends[0] = server->response_ends[1];
    server->response_ends[1] = server->hcm->conn->bytes_sent + server->hcm->conn->out.len;
    if (server->request_complete && !kb_h1_parser_in_message(&server->parser)) {
        message_finished(server);
        return;
    }
    /* The rest of the request, or only the parser's COMPLETE event, comes to nobody. */
    server->stream = NULL;
}

/* HTTP/1 has no place for it. */
static void encode_metadata(void *encoder, struct kb_buf *block)
{
    struct kb_h1_server *server = KB_CAST(encoder, kb_h1_server);

    kb_stat_inc(server->hcm->http1_stats, KB_STAT_HTTP1_METADATA_NOT_SUPPORTED_ERROR);
    kb_buf_consume(block, block->len);
}

static void encode_1xx(void *encoder, const struct kb_header_map *headers)
{
    struct kb_h1_server *server = KB_CAST(encoder, kb_h1_server);
    struct kb_h1_response_options options = {
        .settings = server->parser.settings,
        .http_10 = server->http_10,
        .head_request = server->head_request,
    };

    size_t before = server->hcm->conn->out.len;

    kb_h1_encode_response(&server->hcm->conn->out, headers, true, &options);
    server->stream->info.wire_bytes_sent += server->hcm->conn->out.len - before;
    kb_conn_written(server->hcm->conn);
}

static void encode_headers(void *encoder, const struct kb_header_map *headers, bool end_stream)
{
    struct kb_h1_server *server = KB_CAST(encoder, kb_h1_server);
    struct kb_conn *conn = server->hcm->conn;
    size_t before = conn->out.len;
    struct kb_h1_response_options options = {
        .settings = server->parser.settings,
        .http_10 = server->http_10,
        .head_request = server->head_request,
        .upgraded = server->stream->upgraded,
    };

    server->framing = kb_h1_encode_response(&conn->out, headers, end_stream, &options);
    server->stream->info.header_bytes_sent += kb_h1_header_bytes(conn->out.len - before, headers);
    server->stream->info.wire_bytes_sent += conn->out.len - before;
    kb_conn_written(conn);
    if (end_stream) {
        response_end(server);
    }
}

static void encode_data(void *encoder, struct kb_buf *data, bool end_stream)
{
    struct kb_h1_server *server = KB_CAST(encoder, kb_h1_server);
    struct kb_conn *conn = server->hcm->conn;
    size_t before = conn->out.len;

    kb_h1_encode_data(&conn->out, server->framing, data);
    if (end_stream) {
        kb_h1_encode_end(&conn->out, server->framing, NULL);
    }
    server->stream->info.wire_bytes_sent += conn->out.len - before;
    kb_conn_written(conn);
    if (end_stream) {
        response_end(server);
    }
}

static void encode_trailers(void *encoder, const struct kb_header_map *trailers)
{
    struct kb_h1_server *server = KB_CAST(encoder, kb_h1_server);
    const struct kb_h1_settings *settings = server->parser.settings;
    struct kb_conn *conn = server->hcm->conn;
    size_t before = conn->out.len;

    kb_h1_encode_end(&conn->out, server->framing, settings->enable_trailers ? trailers : NULL);
    server->stream->info.wire_bytes_sent += conn->out.len - before;
    kb_conn_written(conn);
    response_end(server);
}

static void encoder_reset(void *encoder)
{
    struct kb_h1_server *server = KB_CAST(encoder, kb_h1_server);

    kb_h1_server_detach(server);
}

static void encoder_read_disable(void *encoder, bool disable)
{
    struct kb_h1_server *server = KB_CAST(encoder, kb_h1_server);

    server->read_disables += disable ? 1 : (unsigned)-1;
    kb_conn_read_disable(server->hcm->conn, disable);
}

static const struct kb_response_encoder_ops h1_server_encoder = {
    .encode_1xx = encode_1xx,
    .encode_headers = encode_headers,
    .encode_data = encode_data,
    .encode_trailers = encode_trailers,
    .encode_metadata = encode_metadata,
    .reset = encoder_reset,
    .read_disable = encoder_read_disable,
};
