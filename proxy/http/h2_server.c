/* SPDX-License-Identifier: Apache-2.0 */
/* Between a HTTP/2 server session and the streams of a connection manager: requests in, responses
 * out, PINGs that find dead connections. */
#include "proxy/http/h2_server.h"

#include <nghttp2/nghttp2.h>

#include "proxy/http/hcm_internal.h"

/* So much is in the connection's queue before a further frame, and while the descriptor is full;
 * the rest waits in its streams. */
#define OUT_BYTES_MAX         (32u * 1024)
#define OUT_BYTES_BLOCKED_MAX (4u * 1024)

struct kb_h2_server {
    KB_OBJ;
    struct kb_hcm *hcm;
    struct kb_h2_server_session *session;
    struct kb_deferred flush;
    struct kb_buf greeting;     /* our SETTINGS, until the client's first bytes were understood */
    struct kb_timer ping_timer; /* the next PING, or the end of waiting for its answer */
    uint64_t heard_ms;
    bool ping_waits;
    bool failed;
};
KB_OBJ_MAGIC(kb_h2_server, 0x48325376);

static const struct kb_h2_server_callbacks session_callbacks;
static const struct kb_response_encoder_ops h2_server_encoder;
static void flush_deferred(struct kb_deferred *deferred);
static void ping_timer_fired(struct kb_timer *timer);

static struct kb_loop *loop_of(struct kb_h2_server *server)
{
    return &server->hcm->worker->loop;
}

/* ---- keepalive ---- */

static void ping_timer_arm(struct kb_h2_server *server)
{
    const struct kb_h2_options *options = &server->hcm->config->h2.options;
    uint64_t interval_ms = options->keepalive_interval_ms;
    uint64_t jitter_ms = interval_ms * options->keepalive_jitter_percent / 100;

    if (interval_ms == 0) {
        return;
    }
    if (jitter_ms > 0) {
        interval_ms += kb_rand_u64(&server->hcm->worker->rand) % jitter_ms;
    }
    kb_loop_timer_arm(loop_of(server), &server->ping_timer, interval_ms);
}

static void ping_timer_fired(struct kb_timer *timer)
{
    struct kb_h2_server *server = KB_CONTAINER_OF(timer, struct kb_h2_server, ping_timer);
    const struct kb_h2_options *options = &server->hcm->config->h2.options;

    KB_ASSERT(server->kb_magic == (uint32_t)KB_MAGIC_kb_h2_server);
    if (server->ping_waits) {
        kb_stat_inc(server->hcm->http2_stats, KB_STAT_HTTP2_KEEPALIVE_TIMEOUT);
        kb_hcm_close(server->hcm, KB_CONN_NO_FLUSH);
        return;
    }
    kb_h2_server_session_ping(server->session);
    server->ping_waits = true;
    kb_loop_timer_arm(loop_of(server), timer, options->keepalive_timeout_ms);
    kb_loop_defer(loop_of(server), &server->flush);
}

static void on_ping_ack(void *session_owner)
{
    struct kb_h2_server *server = KB_CAST(session_owner, kb_h2_server);

    if (server->ping_waits) {
        server->ping_waits = false;
        ping_timer_arm(server);
    }
}

/* ---- lifecycle ---- */

struct kb_h2_server *kb_h2_server_create(struct kb_hcm *hcm)
{
    struct kb_h2_mem *mem = &kb_http_worker_get(hcm->worker)->h2_mem;
    struct kb_h2_server *server = kb_h2_mem_calloc(1, sizeof(*server), mem);

    KB_OBJ_SET(server, kb_h2_server);
    server->hcm = hcm;
    server->session = kb_h2_server_session_create(&hcm->config->h2, &session_callbacks, server,
                                                  &hcm->worker->slices, mem, hcm->http2_stats);
    kb_buf_init(&server->greeting, &hcm->worker->slices, 0);
    KB_ASSERT(kb_h2_server_session_send(server->session, &server->greeting, OUT_BYTES_MAX));
    kb_deferred_init(&server->flush, flush_deferred);
    kb_timer_init(&server->ping_timer, ping_timer_fired);
    ping_timer_arm(server);
    return server;
}

void kb_h2_server_destroy(struct kb_h2_server *server)
{
    kb_h2_server_stop(server);
    kb_buf_dispose(&server->greeting);
    kb_h2_server_session_destroy(server->session);
    KB_OBJ_CLEAR(server);
    kb_h2_mem_free(server, &kb_http_worker_get(server->hcm->worker)->h2_mem);
}

void kb_h2_server_stop(struct kb_h2_server *server)
{
    kb_deferred_cancel(&server->flush);
    kb_loop_timer_cancel(loop_of(server), &server->ping_timer);
    kb_h2_server_session_stop(server->session);
}

/* ---- bytes ---- */

static void session_failed(struct kb_h2_server *server)
{
    const struct kb_h2_server_fault *fault = kb_h2_server_session_fault(server->session);

    server->failed = true;
    if (fault->error == KB_EPROTOCOL) {
        kb_stat_inc(server->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_PROTOCOL_ERROR);
    }
    kb_hcm_codec_failed(server->hcm, fault->text);
}

static size_t out_limit(const struct kb_conn *conn)
{
    size_t limit = conn->above_high ? OUT_BYTES_BLOCKED_MAX : OUT_BYTES_MAX;

    return conn->buffer_limit > 0 ? KB_MIN(limit, conn->buffer_limit) : limit;
}

void kb_h2_server_flush(struct kb_h2_server *server)
{
    struct kb_conn *conn = server->hcm->conn;
    size_t limit = out_limit(conn);

    if (server->failed) {
        return;
    }
    if (!kb_h2_server_session_send(server->session, &conn->out, limit)) {
        kb_conn_written(conn);
        session_failed(server);
        return;
    }
    if (conn->out.len > 0 && !server->hcm->closed) {
        kb_conn_written(conn);
    }
}

static void flush_deferred(struct kb_deferred *deferred)
{
    struct kb_h2_server *server = KB_CONTAINER_OF(deferred, struct kb_h2_server, flush);

    KB_ASSERT(server->kb_magic == (uint32_t)KB_MAGIC_kb_h2_server);
    if (!server->hcm->closed) {
        kb_h2_server_flush(server);
    }
}

static void flush_soon(struct kb_h2_server *server)
{
    kb_loop_defer(loop_of(server), &server->flush);
}

void kb_h2_server_dispatch(struct kb_h2_server *server, struct kb_buf *in)
{
    uint64_t now_ms = kb_loop_now_ms(loop_of(server));

    if (server->failed) {
        kb_buf_consume(in, in->len);
        return;
    }
    server->heard_ms = now_ms;
    if (!kb_h2_server_session_receive(server->session, in, now_ms)) {
        session_failed(server);
        return;
    }
    if (!server->hcm->closed) {
        kb_buf_move(&server->hcm->conn->out, &server->greeting);
        flush_soon(server);
    }
}

void kb_h2_server_sent(struct kb_h2_server *server, size_t n)
{
    kb_h2_server_session_written(server->session, n);
    if (!server->failed && !server->hcm->closed) {
        flush_soon(server);
    }
}

void kb_h2_server_blocked(struct kb_h2_server *server)
{
    kb_h2_server_session_blocked(server->session);
}

void kb_h2_server_drain_notice(struct kb_h2_server *server)
{
    kb_buf_move(&server->hcm->conn->out, &server->greeting); /* SETTINGS come first */
    kb_h2_server_session_notice(server->session);
    flush_soon(server);
}

void kb_h2_server_goaway(struct kb_h2_server *server)
{
    kb_h2_server_session_goaway(server->session);
    flush_soon(server);
}

/* ---- requests ---- */

static void on_stream(void *session_owner, struct kb_h2_server_stream *h2,
                      struct kb_h2_server_request *request)
{
    struct kb_h2_server *server = KB_CAST(session_owner, kb_h2_server);
    struct kb_stream *stream = kb_hcm_stream_begin(server->hcm, &h2_server_encoder, h2);

    stream->info.protocol = KB_PROTOCOL_HTTP2;
    request->owner = stream;
    request->headers = &stream->request;
    request->info = &stream->info;
}

/* Extended CONNECT (RFC 8441) is for filters and upstreams what it would be in HTTP/1. */
static void upgrade_from_connect(struct kb_stream *stream)
{
    struct kb_header_map *map = &stream->request;

    map->method = KB_STR("GET");
    kb_header_map_set_id(map, KB_HDR_UPGRADE, map->protocol);
    kb_header_map_set_id(map, KB_HDR_CONNECTION, KB_STR("upgrade"));
    map->protocol = KB_STR_NULL;
    stream->h2_upgrade = true;
}

static void on_headers(void *owner, bool end_stream)
{
    struct kb_stream *stream = KB_CAST(owner, kb_stream);
    struct kb_header_map *map = &stream->request;

    if (KB_UNLIKELY(map->protocol.p != NULL)) {
        upgrade_from_connect(stream);
    }
    stream->head_request = kb_str_eq(map->method, KB_STR("HEAD"));
    stream->connect_request = kb_str_eq(map->method, KB_STR("CONNECT"));
    kb_stream_decode_headers(stream, end_stream);
}

static void on_data(void *owner, struct kb_buf *data, bool end_stream)
{
    kb_stream_decode_data(KB_CAST(owner, kb_stream), data, end_stream);
}

static void on_trailers(void *owner, struct kb_header_map *trailers)
{
    kb_stream_decode_trailers(KB_CAST(owner, kb_stream), trailers);
}

static void on_metadata(void *owner, struct kb_buf *block)
{
    kb_stream_decode_metadata(KB_CAST(owner, kb_stream), block);
}

static void on_progress(void *owner)
{
    kb_stream_touch(KB_CAST(owner, kb_stream));
}

static void on_sent(void *owner)
{
    kb_stream_flushed(KB_CAST(owner, kb_stream));
}

static void on_above_high(void *owner)
{
    kb_stream_filters_watermark(KB_CAST(owner, kb_stream), true);
}

static void on_below_low(void *owner)
{
    kb_stream_filters_watermark(KB_CAST(owner, kb_stream), false);
}

static void on_reset(void *owner, enum kb_reset_reason reason, struct kb_str details)
{
    struct kb_stream *stream = KB_CAST(owner, kb_stream);

    kb_stream_on_codec_reset(stream, reason, details,
                             kb_h2_server_session_receiving(stream->hcm->h2->session));
}

static const struct kb_h2_server_callbacks session_callbacks = {
    .on_stream = on_stream,
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_metadata = on_metadata,
    .on_progress = on_progress,
    .on_sent = on_sent,
    .on_above_high = on_above_high,
    .on_below_low = on_below_low,
    .on_reset = on_reset,
    .on_ping_ack = on_ping_ack,
};

/* ---- responses ---- */

static struct kb_h2_server *server_of(struct kb_h2_server_stream *h2)
{
    struct kb_stream *stream = KB_CAST(kb_h2_server_stream_owner(h2), kb_stream);

    return stream->hcm->h2;
}

static void encode_1xx(void *encoder, const struct kb_header_map *headers)
{
    struct kb_h2_server_stream *h2 = encoder;

    kb_h2_server_stream_1xx(h2, headers);
    flush_soon(server_of(h2));
}

static void encode_headers(void *encoder, const struct kb_header_map *headers, bool end_stream)
{
    struct kb_h2_server_stream *h2 = encoder;
    struct kb_stream *stream = KB_CAST(kb_h2_server_stream_owner(h2), kb_stream);

    if (KB_UNLIKELY(stream->h2_upgrade) && headers->status == 101) {
        struct kb_header_map agreed = *headers;

        agreed.status = 200;
        kb_h2_server_stream_headers(h2, &agreed, end_stream);
    } else {
        kb_h2_server_stream_headers(h2, headers, end_stream);
    }
    flush_soon(server_of(h2));
}

static void encode_data(void *encoder, struct kb_buf *data, bool end_stream)
{
    struct kb_h2_server_stream *h2 = encoder;

    kb_h2_server_stream_data(h2, data, end_stream);
    flush_soon(server_of(h2));
}

static void encode_trailers(void *encoder, const struct kb_header_map *trailers)
{
    struct kb_h2_server_stream *h2 = encoder;

    kb_h2_server_stream_trailers(h2, trailers);
    flush_soon(server_of(h2));
}

static void encode_metadata(void *encoder, struct kb_buf *block)
{
    struct kb_h2_server_stream *h2 = encoder;

    kb_h2_server_stream_metadata(h2, block);
    flush_soon(server_of(h2));
}

static void encoder_reset(void *encoder)
{
    struct kb_h2_server_stream *h2 = encoder;
    struct kb_h2_server *server = server_of(h2);
    struct kb_stream *stream = KB_CAST(kb_h2_server_stream_owner(h2), kb_stream);

    /* RFC 9113 section 8.5 has a code for what became of the connection behind a tunnel. */
    kb_h2_server_stream_close(h2, stream->source_broke &&
                                          (stream->h2_upgrade || kb_stream_is_connect(stream))
                                      ? NGHTTP2_CONNECT_ERROR
                                      : NGHTTP2_INTERNAL_ERROR);
    if (!server->hcm->closed) {
        flush_soon(server);
    }
}

static void encoder_read_disable(void *encoder, bool disable)
{
    struct kb_h2_server_stream *h2 = encoder;

    kb_h2_server_stream_read_disable(h2, disable);
    flush_soon(server_of(h2));
}

static const struct kb_response_encoder_ops h2_server_encoder = {
    .encode_1xx = encode_1xx,
    .encode_headers = encode_headers,
    .encode_data = encode_data,
    .encode_trailers = encode_trailers,
    .encode_metadata = encode_metadata,
    .reset = encoder_reset,
    .read_disable = encoder_read_disable,
};
