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

#define KB_ROUTE_CONFIG_LEVELS 4 /* table, virtual host, route, weighted cluster */

struct kb_http_filter_ops {
    const char *name;
    const char *type_url;
    bool terminal;
    int (*config_create)(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **config);
    void (*config_destroy)(void *config);
    /* typed_per_filter_config: the type of its message (NULL: type_url) and how it is built; NULL:
     * the filter has none, and one is an error. Lives as long as the route table, in whose arena
     * factory->arena is. */
    const char *route_type_url;
    int (*route_config_create)(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **config);
    void (*route_config_destroy)(void *config); /* may be NULL */
    /* Per stream; memory from kb_stream_arena. */
    void *(*create)(void *config, struct kb_stream *stream);
    enum kb_filter_headers_status (*decode_headers)(void *filter, struct kb_header_map *headers,
                                                    bool end_stream);
    enum kb_filter_data_status (*decode_data)(void *filter, struct kb_buf *data, bool end_stream);
    enum kb_filter_trailers_status (*decode_trailers)(void *filter, struct kb_header_map *trailers);
    /* METADATA, behind the headers; what is left of the block is dropped. Terminal filters only. */
    void (*decode_metadata)(void *filter, struct kb_buf *block);
    /* The answer, local replies too. A filter that has none of these costs an answer nothing. */
    enum kb_filter_headers_status (*encode_headers)(void *filter, struct kb_header_map *headers,
                                                    bool end_stream);
    enum kb_filter_data_status (*encode_data)(void *filter, struct kb_buf *data, bool end_stream);
    enum kb_filter_trailers_status (*encode_trailers)(void *filter, struct kb_header_map *trailers);
    /* Before the access log is written. May be NULL. */
    void (*on_stream_complete)(void *filter);
    /* The last call: cancel timers and upstream work. The arena goes after it. */
    void (*on_destroy)(void *filter);
    /* The downstream write queue, or a filter's own, is full / drained; the terminal filter stops
     * and resumes the response's source. May be NULL. */
    void (*on_above_high)(void *filter);
    void (*on_below_low)(void *filter);
    /* One of those that stopped the request's or the answer's source goes on: a filter that makes
     * more of what it holds asks again whether it may. Not a place to pass data on. May be NULL. */
    void (*on_resumed)(void *filter);
    /* How many bytes it holds, besides what the stream holds for it; asked when memory is short.
     * May be NULL: few. */
    size_t (*bytes_held)(const void *filter);
};

/* ---- what a filter may do with its stream ---- */

struct kb_arena *kb_stream_arena(struct kb_stream *stream);
struct kb_worker *kb_stream_worker(struct kb_stream *stream);
struct kb_stream_info *kb_stream_stream_info(struct kb_stream *stream);
struct kb_header_map *kb_stream_request_headers(struct kb_stream *stream);
/* The answer, as it is by now; NULL: none yet, or none. */
struct kb_header_map *kb_stream_response_headers(struct kb_stream *stream);
struct kb_header_map *kb_stream_response_trailers(struct kb_stream *stream);
/* The route chosen when the headers came; NULL: none. */
const struct kb_route *kb_stream_route(struct kb_stream *stream);
/* The random number by which it was chosen, for kb_route_choose_cluster. */
uint64_t kb_stream_route_random(const struct kb_stream *stream);
/* The most specific typed_per_filter_config for this filter (weighted cluster, route, virtual host,
 * table), as its route_config_create made it; NULL: none. Not from within create. Costs a
 * comparison when no route of the table has any. */
const void *kb_stream_route_config(struct kb_stream *stream, const void *filter);
/* All of them, the most specific first, for filters that merge; returns how many. */
size_t kb_stream_route_configs(struct kb_stream *stream, const void *filter,
                               const void *configs[KB_ROUTE_CONFIG_LEVELS]);
/* Chooses again, after a filter changed what routing looks at. */
void kb_stream_clear_route_cache(struct kb_stream *stream);

/* Answers with Envoy's local reply: status, text body, details; `modify` (may be NULL) adds headers
 * before the filters see them. The stream may be gone when it returns. */
void kb_stream_send_local_reply(struct kb_stream *stream, unsigned status, struct kb_str body,
                                struct kb_str details,
                                void (*modify)(void *arg, struct kb_header_map *headers),
                                void *arg);
/* The same for filters before the router: with the headers that the route adds to answers, when it
 * leads to a cluster. */
void kb_stream_send_filter_reply(struct kb_stream *stream, unsigned status, struct kb_str body,
                                 struct kb_str details,
                                 void (*modify)(void *arg, struct kb_header_map *headers),
                                 void *arg);

/* The gRPC status of the next local reply to a gRPC request, instead of that of its HTTP status. */
void kb_stream_set_reply_grpc_status(struct kb_stream *stream, unsigned status);

/* Resumes after a STOP status. The stream may be gone when it returns. */
void kb_stream_continue_decoding(struct kb_stream *stream, void *filter);
/* The same of the answer. */
void kb_stream_continue_encoding(struct kb_stream *stream, void *filter);
/* A part of the body that the filter held back itself (KB_FILTER_DATA_STOP_NO_BUFFER does not keep
 * it): goes on behind it. All of data is taken. Give the last part before a trailer section without
 * end_stream, then continue. The stream may be gone when it returns. */
void kb_stream_inject_decoded_data(struct kb_stream *stream, void *filter, struct kb_buf *data,
                                   bool end_stream);
void kb_stream_inject_encoded_data(struct kb_stream *stream, void *filter, struct kb_buf *data,
                                   bool end_stream);
/* This filter keeps a part of the body back (or no more), whose end it may have been given: nobody
 * behind it is told the end, or trailers, meanwhile. */
void kb_stream_withhold_decoded(struct kb_stream *stream, const void *filter, bool withholds);
void kb_stream_withhold_encoded(struct kb_stream *stream, const void *filter, bool withholds);
/* Trailers for the end of a body that had none, in the stream's arena; those that are there if
 * there are. The filter gives the last part of the body without end_stream, then continues. */
struct kb_header_map *kb_stream_add_decoded_trailers(struct kb_stream *stream);
struct kb_header_map *kb_stream_add_encoded_trailers(struct kb_stream *stream);
/* False: nobody wants more of the request (answer), it was answered, reset or is over. */
bool kb_stream_decodes(const struct kb_stream *stream);
bool kb_stream_encodes(const struct kb_stream *stream);
/* A filter that makes more of what it holds stops (resumes) what feeds it, as
 * kb_stream_read_disable and kb_stream_encoder_above_high do. */
void kb_stream_stop_decoded(struct kb_stream *stream, const void *filter, bool stop);
void kb_stream_stop_encoded(struct kb_stream *stream, const void *filter, bool stop);
/* Nobody behind this filter has stopped its source; else on_resumed comes. */
bool kb_stream_takes_decoded(const struct kb_stream *stream, const void *filter);
bool kb_stream_takes_encoded(const struct kb_stream *stream, const void *filter);
/* A filter holds more (less) of the answer than it should: stops (resumes) the answer's source.
 * Counted; what was stopped has to be resumed or the stream to end. */
void kb_stream_encoder_above_high(struct kb_stream *stream, void *filter);
void kb_stream_encoder_below_low(struct kb_stream *stream, void *filter);

/* Terminal filter: the answer, passed back through the encoder filters. `headers` lives in the
 * stream's arena. */
void kb_stream_encode_1xx(struct kb_stream *stream, struct kb_header_map *headers);
void kb_stream_encode_headers(struct kb_stream *stream, struct kb_header_map *headers,
                              bool end_stream);
void kb_stream_encode_data(struct kb_stream *stream, struct kb_buf *data, bool end_stream);
void kb_stream_encode_trailers(struct kb_stream *stream, struct kb_header_map *trailers);
/* METADATA, before the headers or between what follows; what is left of the block is dropped. */
void kb_stream_encode_metadata(struct kb_stream *stream, struct kb_buf *block);
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
/* Another limit of what is held of the request's body while a filter stops it. */
void kb_stream_set_decoder_limit(struct kb_stream *stream, size_t bytes);
/* True when the whole request was received. */
bool kb_stream_request_complete(struct kb_stream *stream);
/* True once response headers were encoded: a local reply is not possible any more. */
bool kb_stream_response_started(struct kb_stream *stream);
/* The access log names the cluster of the present route, or none, even when no router ran on it. */
void kb_stream_cluster_refresh(struct kb_stream *stream);
/* The cluster of the present route, whether or not the request gets there; NULL: none. Borrowed
 * until the present event ends. */
const struct kb_cluster *kb_stream_route_cluster(struct kb_stream *stream);
/* The request's method is CONNECT. */
bool kb_stream_is_connect(struct kb_stream *stream);
/* Gives the authority of a request for a tunnel the port back that the connection manager took. */
void kb_stream_connect_port_restore(struct kb_stream *stream);
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
/* Tells the upstream of a gRPC request, and of no other, how many milliseconds it has. */
void kb_stream_grpc_timeout_set(struct kb_stream *stream, uint64_t ms);
