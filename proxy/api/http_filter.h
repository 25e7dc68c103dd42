/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP filters of a stream (Envoy http filters). Decoding runs first to last, encoding last to
 * first; the terminal filter (the router) answers. Filter objects live in the stream's arena. */
#pragma once

#include "base/buf.h"
#include "proxy/api/factory_context.h"
#include "proxy/api/stream_info.h"

struct kb_stat_block;
struct kb_stream; /* one downstream stream: the callbacks below take it; implemented in proxy/http
                   */

enum kb_filter_headers_status {
    KB_FILTER_HEADERS_CONTINUE,
    KB_FILTER_HEADERS_STOP_ITERATION,      /* data still comes to this filter */
    KB_FILTER_HEADERS_STOP_ALL_AND_BUFFER, /* nothing comes until continue; data is buffered up to
                                              the limit */
    KB_FILTER_HEADERS_STOP_ALL_AND_WATERMARK, /* likewise, but reading stops instead of an error at
                                                 the limit */
};
enum kb_filter_data_status {
    KB_FILTER_DATA_CONTINUE,
    KB_FILTER_DATA_STOP_AND_BUFFER,
    KB_FILTER_DATA_STOP_AND_WATERMARK,
    KB_FILTER_DATA_STOP_NO_BUFFER,
};
enum kb_filter_trailers_status { KB_FILTER_TRAILERS_CONTINUE, KB_FILTER_TRAILERS_STOP };

struct kb_http_filter_ops {
    const char *name;
    const char *type_url;
    bool terminal;
    int (*config_create)(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **config);
    void (*config_destroy)(void *config);
    /* Per stream; memory from kb_stream_arena. */
    void *(*create)(void *config, struct kb_stream *stream);
    enum kb_filter_headers_status (*decode_headers)(void *filter, struct kb_header_map *headers,
                                                    bool end_stream);
    enum kb_filter_data_status (*decode_data)(void *filter, struct kb_buf *data, bool end_stream);
    enum kb_filter_trailers_status (*decode_trailers)(void *filter, struct kb_header_map *trailers);
    enum kb_filter_headers_status (*encode_headers)(void *filter, struct kb_header_map *headers,
                                                    bool end_stream);
    enum kb_filter_data_status (*encode_data)(void *filter, struct kb_buf *data, bool end_stream);
    enum kb_filter_trailers_status (*encode_trailers)(void *filter, struct kb_header_map *trailers);
    /* Before the access log is written. May be NULL. */
    void (*on_stream_complete)(void *filter);
    /* The last call: cancel timers and upstream work. The arena goes after it. */
    void (*on_destroy)(void *filter);
    /* Terminal filter only: the downstream write queue is full / drained; stop and resume the
     * response's source. */
    void (*on_above_high)(void *filter);
    void (*on_below_low)(void *filter);
};

/* ---- what a filter may do with its stream ---- */

struct kb_arena *kb_stream_arena(struct kb_stream *stream);
struct kb_worker *kb_stream_worker(struct kb_stream *stream);
struct kb_stream_info *kb_stream_stream_info(struct kb_stream *stream);
struct kb_header_map *kb_stream_request_headers(struct kb_stream *stream);
/* The route chosen when the headers came; NULL: none. */
const struct kb_route *kb_stream_route(struct kb_stream *stream);
/* Chooses again, after a filter changed what routing looks at. */
void kb_stream_clear_route_cache(struct kb_stream *stream);

/* Answers with Envoy's local reply: status, text body, details; `modify` (may be NULL) adds headers
 * before the filters see them. The stream may be gone when it returns. */
void kb_stream_send_local_reply(struct kb_stream *stream, unsigned status, struct kb_str body,
                                struct kb_str details,
                                void (*modify)(void *arg, struct kb_header_map *headers),
                                void *arg);

/* Resumes after a STOP status. The stream may be gone when it returns. */
void kb_stream_continue_decoding(struct kb_stream *stream, void *filter);

/* Terminal filter: the answer, passed back through the encoder filters. `headers` lives in the
 * stream's arena. */
void kb_stream_encode_1xx(struct kb_stream *stream, struct kb_header_map *headers);
void kb_stream_encode_headers(struct kb_stream *stream, struct kb_header_map *headers,
                              bool end_stream);
void kb_stream_encode_data(struct kb_stream *stream, struct kb_buf *data, bool end_stream);
void kb_stream_encode_trailers(struct kb_stream *stream, struct kb_header_map *trailers);
/* Terminal filter, before it encoded an answer: starts the stream over with its request headers as
 * they are now and this body (taken), as if it came from the client; `response` is what the log of
 * the first pass shows. All filters are gone when it returns true; false when the request has not
 * wholly come. */
bool kb_stream_recreate(struct kb_stream *stream, struct kb_header_map *response,
                        struct kb_buf *body);
/* The answer cannot be finished: the downstream stream is reset (HTTP/1: the connection closes). */
void kb_stream_reset(struct kb_stream *stream);

/* Stops and resumes reading of the request body (counted). */
void kb_stream_read_disable(struct kb_stream *stream, bool disable);
/* Bytes that this stream may buffer (per_connection_buffer_limit_bytes or the route's limit); 0:
 * none. */
size_t kb_stream_buffer_limit(struct kb_stream *stream);
/* True when the whole request was received. */
bool kb_stream_request_complete(struct kb_stream *stream);
/* True once response headers were encoded: a local reply is not possible any more. */
bool kb_stream_response_started(struct kb_stream *stream);
/* The access log names the cluster of the present route, or none, even when no router ran on it. */
void kb_stream_cluster_refresh(struct kb_stream *stream);
/* The request's method is CONNECT. */
bool kb_stream_is_connect(struct kb_stream *stream);
/* content-type application/grpc */
bool kb_stream_is_grpc(struct kb_stream *stream);
/* Cells of "http.<stat_prefix>." on this worker. */
struct kb_stat_block *kb_stream_http_stats(struct kb_stream *stream);
struct kb_server_context *kb_stream_server(struct kb_stream *stream);
/* An address of this machine that is not loopback, as Envoy writes it into x-forwarded-for of its
 * own requests. */
struct kb_str kb_stream_local_ip(struct kb_stream *stream);
/* Milliseconds of a grpc-timeout value ("200m"), rounded up; UINT64_MAX when it is malformed. */
uint64_t kb_grpc_timeout_parse(struct kb_str value);
