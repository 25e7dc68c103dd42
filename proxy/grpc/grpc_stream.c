/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC streams: headers and framing over an HTTP/2 stream of a cluster's connection, and how each
 * way to end becomes a status with Envoy's words. Statuses and texts are those that Envoy logs for
 * its xDS streams. */
#include "proxy/grpc/grpc_stream.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/sock.h"
#include "proxy/grpc/grpc_conn.h"
#include "proxy/http/grpc_frame.h"
#include "proxy/http/local_reply.h"

#define STATUS_INVALID       (-1) /* a grpc-status that is no known code */
#define STATUS_MAX           16
#define H2_INTERNAL_ERROR    2 /* RFC 9113 section 7; what Envoy resets with */
#define CLOSE_TEXT_MAX_BYTES 4096

struct kb_grpc_stream {
    KB_OBJ;
    struct kb_worker *worker;
    const struct kb_grpc_stream_callbacks *callbacks;
    void *arg;
    struct kb_arena arena; /* options, request headers */
    struct kb_str cluster_name;
    struct kb_header_map headers;
    struct kb_cluster_local *cluster; /* holds a reference; NULL: not looked for yet, or closed */
    struct kb_grpc_conn_user user;
    struct kb_h2_stream *h2;
    struct kb_buf pending; /* before the connection is ready */
    struct kb_grpc_frame_reader reader;
    struct kb_deferred start;
    struct kb_deferred destroy;
    bool response_started;
    bool end_wanted;
    bool blocked; /* send said KB_EAGAIN */
    bool closed;
    bool destroyed;
};
KB_OBJ_MAGIC(kb_grpc_stream, 0x47525043);

static struct kb_grpc_stream *stream_of(void *owner)
{
    return KB_CAST(owner, kb_grpc_stream);
}

static struct kb_loop *loop_of(struct kb_grpc_stream *stream)
{
    return &stream->worker->loop;
}

/* ---- the end ---- */

/* Gives back what ties the stream to its connection. */
static void detach(struct kb_grpc_stream *stream)
{
    struct kb_grpc_conn *conn = stream->user.conn;

    kb_deferred_cancel(&stream->start);
    kb_grpc_conn_cancel(&stream->user);
    if (stream->h2 != NULL) {
        kb_h2_stream_close(stream->h2, H2_INTERNAL_ERROR);
        stream->h2 = NULL;
        kb_grpc_conn_stream_done(conn);
    }
    stream->user.conn = NULL;
    if (stream->cluster != NULL) {
        kb_cluster_local_unref(stream->cluster);
        stream->cluster = NULL;
    }
    kb_buf_dispose(&stream->pending);
}

static void close_told(struct kb_grpc_stream *stream, int status, struct kb_str text)
{
    if (stream->closed || stream->destroyed) {
        return;
    }
    stream->closed = true;
    detach(stream);
    stream->callbacks->on_closed(stream->arg, status, text);
}

/* As Envoy: the message, then the response code details in braces; or the details alone. */
static void close_with(struct kb_grpc_stream *stream, int status, struct kb_str message,
                       struct kb_str details)
{
    struct kb_arena arena;
    struct kb_str text = details;

    kb_arena_init(&arena, NULL);
    if (message.len > 0) {
        message.len = KB_MIN(message.len, (size_t)CLOSE_TEXT_MAX_BYTES);
        text = kb_str_printf(&arena, "%.*s{%.*s}", KB_STR_ARG(message), KB_STR_ARG(details));
    }
    close_told(stream, status, text);
    kb_arena_dispose(&arena);
}

/* Ends a stream that the server considers open. */
static void close_by_us(struct kb_grpc_stream *stream, int status, struct kb_str message)
{
    if (stream->user.conn != NULL && stream->h2 != NULL) {
        kb_grpc_conn_count_reset(stream->user.conn, KB_RESET_LOCAL_RESET);
    }
    close_with(stream, status, message, KB_STR("via_upstream"));
}

static void code_count(struct kb_grpc_stream *stream, struct kb_host_local *host, unsigned code)
{
    struct kb_stat_block *stats = stream->cluster->stats;

    kb_stat_code_inc(stats, KB_STAT_CODE_PLAIN, code);
    kb_stat_code_inc(stats, KB_STAT_CODE_INTERNAL, code);
    if (host != NULL) {
        kb_host_stat_add(host, code < 500 ? KB_HOST_RQ_SUCCESS : KB_HOST_RQ_ERROR, 1);
        if (host->host->zone_variant != 0) {
            kb_stat_code_inc(stats, (enum kb_stat_code_variant)host->host->zone_variant, code);
        }
    }
}

/* "a b" as response code details show it: without spaces. */
static struct kb_str underscored(struct kb_arena *arena, struct kb_str text)
{
    char *out = kb_arena_alloc(arena, text.len + 1, 1);

    for (size_t i = 0; i < text.len; i++) {
        out[i] = text.p[i] == ' ' ? '_' : text.p[i];
    }
    out[text.len] = '\0';
    return kb_str_make(out, text.len);
}

/* No answer, or no more of it. */
static void reset_close(struct kb_grpc_stream *stream, enum kb_reset_reason reason,
                        struct kb_str detail)
{
    struct kb_str word = kb_reset_reason_text(reason);
    struct kb_str separator = detail.len > 0 ? KB_STR("|") : KB_STR("");
    struct kb_arena arena;
    struct kb_str details, name, why;

    kb_arena_init(&arena, NULL);
    name = underscored(&arena, word);
    why = underscored(&arena, detail);
    if (stream->response_started) {
        details =
            kb_str_printf(&arena, "upstream_reset_after_response_started{%.*s}", KB_STR_ARG(name));
        close_with(stream, KB_GRPC_INTERNAL, KB_STR_NULL, details);
    } else {
        details = kb_str_printf(&arena, "upstream_reset_before_response_started{%.*s%.*s%.*s}",
                                KB_STR_ARG(name), KB_STR_ARG(separator), KB_STR_ARG(why));
        close_with(stream, KB_GRPC_UNAVAILABLE,
                   kb_str_printf(&arena,
                                 "upstream connect error or disconnect/reset before headers. "
                                 "reset reason: %.*s",
                                 KB_STR_ARG(word)),
                   details);
    }
    kb_arena_dispose(&arena);
}

/* ---- from the server ---- */

static int status_parse(struct kb_str text)
{
    uint64_t code;

    return kb_str_to_u64(text, &code) == 0 && code <= STATUS_MAX ? (int)code : STATUS_INVALID;
}

/* Trailers, or headers that are all there is; NULL: neither. */
static void ended(struct kb_grpc_stream *stream, const struct kb_header_map *trailers)
{
    struct kb_str status = KB_STR_NULL;
    struct kb_str message = KB_STR_NULL;

    if (trailers != NULL) {
        status = kb_header_map_value(trailers, KB_STR("grpc-status"));
        message = kb_header_map_value(trailers, KB_STR("grpc-message"));
    }
    close_by_us(stream, status.len == 0 ? KB_GRPC_UNKNOWN : status_parse(status), message);
}

static void h2_on_headers(void *owner, struct kb_header_map *headers, bool end_stream)
{
    struct kb_grpc_stream *stream = stream_of(owner);

    stream->response_started = true;
    kb_host_put_code(kb_grpc_conn_host_local(stream->user.conn), headers->status);
    code_count(stream, kb_grpc_conn_host_local(stream->user.conn), headers->status);
    if (headers->status != 200 &&
        (!end_stream || kb_header_map_get(headers, KB_STR("grpc-status")) == NULL)) {
        close_by_us(stream, (int)kb_grpc_status_from_http(headers->status), KB_STR_NULL);
    } else if (end_stream) {
        ended(stream, headers);
    } else if (stream->callbacks->on_response_headers != NULL) {
        stream->callbacks->on_response_headers(stream->arg);
    }
}

static bool message_give(void *arg, struct kb_str message)
{
    struct kb_grpc_stream *stream = stream_of(arg);

    stream->callbacks->on_message(stream->arg, message);
    return !stream->destroyed && !stream->closed;
}

static void h2_on_data(void *owner, const char *bytes, size_t len)
{
    struct kb_grpc_stream *stream = stream_of(owner);
    int rc = kb_grpc_frame_read(&stream->reader, bytes, len, message_give, stream);

    if (rc == KB_ECANCELLED) {
        return;
    }
    if (rc != 0) {
        KB_LOG(GRPC, DEBUG, "a message of cluster '%.*s' was refused: %s",
               KB_STR_ARG(stream->cluster_name),
               rc == KB_ELIMIT ? "longer than allowed" : "compressed, or no gRPC message");
        close_by_us(stream, rc == KB_ELIMIT ? KB_GRPC_RESOURCE_EXHAUSTED : KB_GRPC_INTERNAL,
                    KB_STR_NULL);
        return;
    }
    kb_h2_stream_consume(stream->h2, len);
    kb_grpc_conn_wake(stream->user.conn);
}

static void h2_on_end(void *owner, struct kb_header_map *trailers)
{
    ended(stream_of(owner), trailers);
}

static void h2_on_reset(void *owner, enum kb_reset_reason reason)
{
    struct kb_grpc_stream *stream = stream_of(owner);
    struct kb_host_local *host = kb_grpc_conn_host_local(stream->user.conn);

    kb_grpc_conn_count_reset(stream->user.conn, reason);
    kb_host_put_result(host, KB_OUTLIER_CONNECT_FAILED, 0);
    if (!stream->response_started) {
        code_count(stream, host, reason == KB_RESET_PROTOCOL_ERROR ? 502 : 503);
    }
    reset_close(stream, reason, KB_STR_NULL);
}

static void h2_on_below_low(void *owner)
{
    struct kb_grpc_stream *stream = stream_of(owner);

    if (stream->blocked) {
        stream->blocked = false;
        if (stream->callbacks->on_writable != NULL) {
            stream->callbacks->on_writable(stream->arg);
        }
    }
}

static const struct kb_h2_stream_callbacks h2_callbacks = {
    .on_headers = h2_on_headers,
    .on_data = h2_on_data,
    .on_end = h2_on_end,
    .on_reset = h2_on_reset,
    .on_below_low = h2_on_below_low,
};

/* ---- connection ---- */

static void conn_on_ready(struct kb_grpc_conn_user *user)
{
    struct kb_grpc_stream *stream = stream_of(KB_CONTAINER_OF(user, struct kb_grpc_stream, user));

    stream->h2 = kb_grpc_conn_open_stream(user->conn, &stream->headers, &h2_callbacks, stream);
    if (stream->h2 == NULL) {
        user->conn = NULL;
        close_told(stream, KB_GRPC_INTERNAL, KB_STR("too many headers in initial_metadata"));
        return;
    }
    kb_h2_stream_send(stream->h2, &stream->pending, stream->end_wanted);
    if (stream->callbacks->on_opened != NULL) {
        stream->callbacks->on_opened(stream->arg);
    }
}

static void conn_on_failed(struct kb_grpc_conn_user *user, enum kb_reset_reason reason,
                           struct kb_str detail)
{
    struct kb_grpc_stream *stream = stream_of(KB_CONTAINER_OF(user, struct kb_grpc_stream, user));

    code_count(stream, NULL, 503);
    reset_close(stream, reason, detail);
}

static void start_deferred(struct kb_deferred *deferred)
{
    struct kb_grpc_stream *stream =
        stream_of(KB_CONTAINER_OF(deferred, struct kb_grpc_stream, start));
    const struct kb_lb_request request = {.max_attempts = 1};
    struct kb_host *host;

    stream->cluster = kb_cluster_local_find(stream->worker, stream->cluster_name);
    if (stream->cluster == NULL) {
        close_told(stream, KB_GRPC_UNAVAILABLE, KB_STR("Cluster not available"));
        return;
    }
    kb_cluster_local_ref(stream->cluster);
    if (!kb_cluster_speaks_http2(stream->cluster->cluster, KB_PROTOCOL_NONE)) {
        close_told(stream, KB_GRPC_UNAVAILABLE,
                   KB_STR("the cluster has no http2_protocol_options, which gRPC needs"));
        return;
    }
    host = kb_cluster_local_choose_host(stream->cluster, &request);
    if (host == NULL) {
        kb_stat_inc(stream->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_CX_NONE_HEALTHY);
        code_count(stream, NULL, 503);
        close_with(stream, KB_GRPC_UNAVAILABLE, KB_STR("no healthy upstream"),
                   KB_STR("no_healthy_upstream"));
        return;
    }
    if (kb_transport_socket_factory_secure(kb_host_transport_socket(host))) {
        stream->headers.scheme = KB_STR("https");
    }
    kb_grpc_conn_request(stream->cluster, host, &stream->user);
}

/* ---- interface ---- */

static struct kb_str keep(struct kb_grpc_stream *stream, struct kb_str text)
{
    return kb_str_dup(&stream->arena, text);
}

static void headers_fill(struct kb_grpc_stream *stream,
                         const struct kb_grpc_stream_options *options)
{
    struct kb_header_map *headers = &stream->headers;
    char text[KB_ADDR_TEXT_MAX + 1];
    struct kb_addr local;

    kb_header_map_init(headers, &stream->arena);
    headers->method = KB_STR("POST");
    headers->path = keep(stream, options->path);
    headers->authority =
        options->authority.len > 0 ? keep(stream, options->authority) : stream->cluster_name;
    headers->scheme = KB_STR("http");
    kb_header_map_add(headers, KB_STR("te"), KB_STR("trailers"));
    kb_header_map_add(headers, KB_STR("content-type"), KB_STR("application/grpc"));
    for (size_t i = 0; i < options->metadata_count; i++) {
        kb_header_map_add(headers, keep(stream, options->metadata[i].name),
                          keep(stream, options->metadata[i].value));
    }
    if (!options->skip_envoy_headers) {
        kb_sock_host_addr(&local);
        kb_header_map_add(headers, KB_STR("x-envoy-internal"), KB_STR("true"));
        kb_header_map_add(headers, KB_STR("x-forwarded-for"),
                          keep(stream, kb_addr_ip_text(&local, text)));
    }
}

static void destroy_deferred(struct kb_deferred *deferred)
{
    struct kb_grpc_stream *stream =
        stream_of(KB_CONTAINER_OF(deferred, struct kb_grpc_stream, destroy));

    kb_grpc_frame_reader_dispose(&stream->reader);
    kb_arena_dispose(&stream->arena);
    KB_OBJ_CLEAR(stream);
    free(stream);
}

struct kb_grpc_stream *kb_grpc_stream_open(struct kb_worker *worker,
                                           const struct kb_grpc_stream_options *options,
                                           const struct kb_grpc_stream_callbacks *callbacks,
                                           void *arg)
{
    struct kb_grpc_stream *stream = kb_calloc(1, sizeof(*stream));

    KB_OBJ_SET(stream, kb_grpc_stream);
    stream->worker = worker;
    stream->callbacks = callbacks;
    stream->arg = arg;
    kb_arena_init(&stream->arena, NULL);
    stream->cluster_name = keep(stream, options->cluster);
    stream->user.on_ready = conn_on_ready;
    stream->user.on_failed = conn_on_failed;
    kb_buf_init(&stream->pending, &worker->slices, 0);
    kb_grpc_frame_reader_init(&stream->reader, options->max_message_bytes > 0
                                                   ? options->max_message_bytes
                                                   : KB_GRPC_MESSAGE_MAX);
    kb_deferred_init(&stream->start, start_deferred);
    kb_deferred_init(&stream->destroy, destroy_deferred);
    headers_fill(stream, options);
    kb_loop_defer(&worker->loop, &stream->start);
    return stream;
}

size_t kb_grpc_stream_queued(const struct kb_grpc_stream *stream)
{
    return stream->h2 != NULL ? kb_h2_stream_queued(stream->h2) : stream->pending.len;
}

int kb_grpc_stream_send(struct kb_grpc_stream *stream, struct kb_str message)
{
    size_t queued = kb_grpc_stream_queued(stream);
    struct kb_buf framed;

    if (stream->closed || stream->destroyed || stream->end_wanted) {
        return KB_ECLOSED;
    }
    if (message.len > KB_GRPC_SEND_QUEUE_MAX) {
        return KB_ELIMIT;
    }
    if (queued > 0 && queued + message.len > KB_GRPC_SEND_QUEUE_MAX) {
        stream->blocked = true;
        return KB_EAGAIN;
    }
    if (stream->h2 == NULL) {
        kb_grpc_frame_write(&stream->pending, message);
        return 0;
    }
    kb_buf_init(&framed, &stream->worker->slices, 0);
    kb_grpc_frame_write(&framed, message);
    kb_h2_stream_send(stream->h2, &framed, false);
    kb_grpc_conn_wake(stream->user.conn);
    return 0;
}

void kb_grpc_stream_end(struct kb_grpc_stream *stream)
{
    if (stream->closed || stream->end_wanted) {
        return;
    }
    stream->end_wanted = true;
    if (stream->h2 != NULL) {
        kb_h2_stream_send(stream->h2, &stream->pending, true);
        kb_grpc_conn_wake(stream->user.conn);
    }
}

void kb_grpc_stream_destroy(struct kb_grpc_stream *stream)
{
    if (stream == NULL || stream->destroyed) {
        return;
    }
    stream->destroyed = true;
    if (stream->h2 != NULL) {
        kb_grpc_conn_count_reset(stream->user.conn, KB_RESET_LOCAL_RESET);
    }
    detach(stream);
    /* A callback of this stream may be running. */
    kb_loop_defer(loop_of(stream), &stream->destroy);
}

void kb_grpc_worker_close(struct kb_worker *worker)
{
    kb_grpc_conns_close(worker);
}
