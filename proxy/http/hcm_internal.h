/* SPDX-License-Identifier: Apache-2.0 */
/* Connection and stream of the HTTP connection manager; for proxy/http/hcm*.c, the codecs and
 * local_reply.c only. */
#pragma once

#include "base/list.h"
#include "proxy/api/codec.h"
#include "proxy/http/h1_server.h"
#include "proxy/http/h2_server.h"
#include "proxy/http/hcm.h"
#include "proxy/http/hcm_overload.h"

/* Per worker: freelists and the date line. */
struct kb_http_worker {
    struct kb_pool streams;
    struct kb_pool managers;
    struct kb_h2_mem h2_mem;
    struct kb_list hcms; /* those of open connections */
    uint64_t date_second;
    char date[32]; /* "Sun, 22 Nov 2026 01:02:03 GMT" */
    size_t date_len;
};

/* This worker's, made at first use. */
struct kb_http_worker *kb_http_worker_get(struct kb_worker *worker);

enum kb_hcm_drain {
    KB_HCM_NOT_DRAINING,
    KB_HCM_DRAINING, /* close when the streams are done, after telling */
    KB_HCM_CLOSING,  /* close when the last stream is done */
};

/* One downstream connection. */
struct kb_hcm {
    KB_OBJ;
    const struct kb_hcm_config *config;
    struct kb_conn *conn;
    struct kb_worker *worker;
    struct kb_stat_block *stats;
    struct kb_stat_block *listener_stats;
    struct kb_stat_block *http1_stats;
    struct kb_stat_block *http2_stats;
    struct kb_h2_server *h2; /* NULL: HTTP/1, or the codec is not made yet */
    struct kb_h1_server h1;
    struct kb_list link; /* of the worker's */
    struct kb_list streams;
    uint32_t stream_count;
    uint32_t requests;         /* streams so far */
    uint32_t requests_limit;   /* from so many on, each is looked at */
    uint32_t ended_streams;    /* HTTP/2: of these, those that are over */
    uint32_t premature_resets; /* and that the client reset before they were answered */
    uint64_t idle_since_ms;    /* when idle_timer was armed */
    struct kb_timer idle_timer;
    struct kb_timer duration_timer;
    struct kb_timer drain_timer;
    struct kb_deferred close_check;
    enum kb_hcm_drain drain;
    bool codec_made;
    bool soft_drain;    /* HTTP/1: the next answer says that it is the last */
    bool closed;        /* the connection's last event came */
    bool close_delayed; /* the client may still write: closing at once could take the answer away */
};
KB_OBJ_MAGIC(kb_hcm, 0x48434d20);

struct kb_stream_log_timer;

/* What a stream keeps as long as its filters; in its arena. */
struct kb_filter_hold {
    struct kb_filter_hold *next;
    struct kb_shared *shared;
};

struct kb_stream_filter {
    const struct kb_http_filter_ops *ops;
    void *self;
    uint32_t name_id;     /* kb_filter_name_id of its name in the chain */
    bool headers_stopped; /* decode_headers said stop and has not been continued */
    bool stop_all;
    bool hold_waits; /* at the limit of what is held for it reading stops */
    bool trailers_stopped;
    bool encode_stopped; /* the same of the answer */
    bool encode_stop_all;
    bool encode_trailers_stopped;
    bool withholds; /* part of the request's body, see kb_stream_withhold_decoded */
    bool encode_withholds;
    bool stops; /* the request's source, see kb_stream_stop_decoded */
    bool encode_stops;
};

/* One of an attempt. */
struct kb_upstream_http_filter {
    const struct kb_http_filter_ops *ops;
    void *self;
    uint32_t name_id; /* as above */
};

struct kb_upstream_http_filters; /* upstream_http_filters.c */
struct kb_stream_encoding;       /* http_filter_encode.c */
struct kb_stream_metadata;       /* stream_metadata.c */

/* One downstream request and its answer. */
struct kb_stream {
    KB_OBJ;
    struct kb_hcm *hcm;
    struct kb_list link;
    struct kb_arena arena;
    const struct kb_response_encoder_ops *encoder_ops;
    void *encoder;  /* NULL once it has the whole response */
    void *flushing; /* the encoder that has it and still sends it; NULL: none */
    struct kb_header_map request;
    struct kb_header_map *request_trailers;
    struct kb_header_map *response; /* NULL: none yet */
    struct kb_header_map *response_trailers;
    struct kb_stream_info info;
    struct kb_slice *head_slice;            /* pins the request's strings */
    struct kb_cluster_local *shown_cluster; /* which the info names while no router does; holds a
                                               reference, or NULL */
    const struct kb_route *route;
    const struct kb_route_config *route_config; /* of the provider, from the first look on */
    struct kb_filter_hold *filter_holds;        /* configurations that filters came with over xDS */
    struct kb_shared *route_hold;               /* what keeps it; NULL: it came with the listener */
    const struct kb_route_tracing *decorator;   /* told to the other side; NULL: none */
    uint64_t route_random; /* what the route and its weighted cluster were chosen by */
    struct kb_stream_encoding *encoding; /* NULL: no filter looks at the answer */
    struct kb_stream_metadata *metadata; /* that waits; NULL: none ever did */
    struct kb_stream_filter *filters;
    size_t filter_count;                               /* 0 until the chain is made */
    struct kb_upstream_http_filters *upstream_filters; /* of its attempts; NULL: none have any */
    struct kb_buf decode_buffer;                       /* body held back by a stopped filter */
    uint32_t held_by;                                  /* its index */
    struct kb_timer headers_timer; /* request_headers_timeout, then stream idle */
    struct kb_timer request_timer; /* request_timeout */
    struct kb_timer duration_timer;
    struct kb_stream_log_timer *log_timer; /* NULL: it logs at its end only */
    uint64_t idle_timeout_ms;
    uint64_t idle_deadline_ms; /* the idle timer is re-armed lazily: activity only moves this */
    struct kb_deferred destroy;
    unsigned read_disables; /* taken by this stream and not given back */
    bool decode_paused;     /* reading stopped because of what is held */
    bool route_chosen;
    bool headers_decoded;      /* the request's head came and was accepted for decoding */
    bool remote_complete;      /* the whole request came */
    bool decode_ended;         /* end_stream was passed to the filters */
    bool response_started;     /* the final response's headers were encoded */
    bool local_complete;       /* the whole response was encoded */
    bool ended;                /* destroy is queued */
    bool filters_ended;        /* and it is logged */
    bool saw_connection_close; /* the connection ends with this stream: the client said so, or we */
    bool head_request;
    bool grpc_request;
    bool without_filters; /* refused for overload: none are made for the answer either */
    uint16_t
        grpc_status; /* of the next local reply in gRPC form, plus 1; 0: from its HTTP status */
    bool http_10_keep_alive;
    bool connect_request;
    bool upgrade_asked; /* an upgrade or CONNECT that is enabled: what follows has no end */
    bool upgraded;      /* it was agreed to: bytes pass both ways as they come */
    bool recreated; /* a later pass of an internal redirect: its headers were sanitised already */
    uint16_t connect_port; /* that was taken from its authority; 0: none */
    bool edge_request;
    bool trace_begun;    /* kb_hcm_trace_request was here */
    bool operation_told; /* by the caller, to tracing */
    char trace_reason;   /* as the request's id tells it; 0: not decided */
    bool h2_upgrade;     /* extended CONNECT, which reads as a HTTP/1 upgrade */
    bool replied_here;   /* by a local reply: filters see no more of the request */
    bool source_broke;   /* of the answer; else a stream is cut off by a timeout or limit of ours */
};
KB_OBJ_MAGIC(kb_stream, 0x5354524d);

/* ---- hcm.c ---- */

/* A message begins on the connection: a stream for it. Never NULL. */
struct kb_stream *kb_hcm_stream_begin(struct kb_hcm *hcm, const struct kb_response_encoder_ops *ops,
                                      void *encoder);
/* Counts one more request of the stream's connection, perhaps its last. */
void kb_hcm_stream_count(struct kb_stream *stream);
/* Ends it without an answer, or in the midst of one: as kb_stream_reset, for reasons of our own. */
void kb_stream_cut_off(struct kb_stream *stream);
/* The same of one that counts as whole: its answer only waits to be sent. */
void kb_stream_cut_off_uncounted(struct kb_stream *stream);
/* The codec could not understand the message: answers and closes. */
void kb_hcm_stream_codec_error(struct kb_stream *stream, unsigned status, struct kb_str details);
/* The same without counting a protocol error. */
void kb_hcm_stream_abort(struct kb_stream *stream, unsigned status, struct kb_str details);
/* Nothing can be answered any more: the connection closes under its stream, which is logged with
 * `details` (they live as long as the stream) and the flag DPE. */
void kb_hcm_close_codec_error(struct kb_stream *stream, struct kb_str details);
/* Closes at once, with what is under way. */
void kb_hcm_close(struct kb_hcm *hcm, enum kb_conn_close how);
/* The HTTP/2 codec cannot go on: streams end with its details for them, or else with `details`, and
 * the flag DPE. */
void kb_hcm_codec_failed(struct kb_hcm *hcm, struct kb_str details);
/* Envoy's drain sequence: answers say `connection: close` from now on; after drain_timeout the
 * connection closes when its streams are done. */
void kb_hcm_drain_start(struct kb_hcm *hcm);
/* Takes no further request; closes when the streams are done. */
void kb_hcm_close_when_idle(struct kb_hcm *hcm);
/* A stream is gone; closes a draining connection, arms the idle timer. */
void kb_hcm_stream_ended(struct kb_hcm *hcm);

/* ---- hcm_config.c ---- */

int kb_hcm_filter_config_create(const void *message, struct kb_factory_context *factory,
                                struct kb_diag *diag, void **config);
void kb_hcm_filter_config_destroy(void *config);

/* ---- hcm_stream.c ---- */

/* Prepares a stream of the pool. */
void kb_stream_init(struct kb_stream *stream, struct kb_hcm *hcm,
                    const struct kb_response_encoder_ops *ops, void *encoder);
/* The connection went away under the stream. */
void kb_stream_on_disconnect(struct kb_stream *stream, bool by_peer);
/* The codec's stream was reset, by the client or for its fault, and is gone (HTTP/2). `by_peer`:
 * the client's bytes are being read, so that nothing of the stream's own is under way. */
void kb_stream_on_codec_reset(struct kb_stream *stream, enum kb_reset_reason reason,
                              struct kb_str details, bool by_peer);
/* Ends the stream: log, statistics, filters, memory; later in this event. */
void kb_stream_end(struct kb_stream *stream);
/* Frees, and so logs, the streams that ended in this event: before the next one begins, so that
 * logs have the order of the requests. Not from within a filter. */
void kb_hcm_streams_reap(struct kb_hcm *hcm);
/* Counts the response's class; once, when its headers are sent. */
void kb_stream_code_count(struct kb_stream *stream, unsigned status);

/* ---- hcm_overload.c ---- */

/* The overload manager, or a shed point, wants no request now: this one was answered with 503. */
bool kb_stream_overloaded(struct kb_stream *stream);
/* When the idle timer has to fire, by the present scale of timeouts. */
uint64_t kb_stream_idle_deadline(const struct kb_stream *stream);
/* As kb_stream_touch, and arms the timer if there is such a timeout and it is not armed. */
void kb_stream_idle_arm(struct kb_stream *stream);

/* ---- hcm_decode.c ---- */

/* The codec has the request's head in stream->request; the stream may have ended when this returns.
 */
void kb_stream_decode_headers(struct kb_stream *stream, bool end_stream);
/* Part of the body; all of data is taken. The stream may have ended when this returns. */
void kb_stream_decode_data(struct kb_stream *stream, struct kb_buf *data, bool end_stream);
/* The end of a request with trailers, which live in the stream's arena. */
void kb_stream_decode_trailers(struct kb_stream *stream, struct kb_header_map *trailers);

/* ---- stream_route.c, with what filters ask (proxy/api/http_filter.h) ---- */

/* The table that the request is routed by; NULL: none. */
const struct kb_route_config *kb_stream_route_table(struct kb_stream *stream);
/* Adds what the route wants of every answer; `stream` is a struct kb_stream, perhaps without one.
 * For kb_stream_send_local_reply: such answers carry it too, whoever gives them. */
void kb_stream_route_headers_add(void *stream, struct kb_header_map *headers);

/* ---- stream_timeouts.c ---- */

/* The stream begins: arms what the connection manager's configuration wants. */
void kb_stream_timeouts_start(struct kb_stream *stream);
/* Its request was routed: from now on the route's. */
void kb_stream_timeouts_routed(struct kb_stream *stream);
/* It ends. */
void kb_stream_timeouts_stop(struct kb_stream *stream);
/* Something moved: puts off the idle timeout. */
void kb_stream_touch(struct kb_stream *stream);

/* ---- hcm_encode.c ---- */

/* Behind the filters: to the codec. */
void kb_stream_headers_send(struct kb_stream *stream, struct kb_header_map *headers,
                            bool end_stream);
void kb_stream_data_send(struct kb_stream *stream, struct kb_buf *data, bool end_stream);
void kb_stream_trailers_send(struct kb_stream *stream, struct kb_header_map *trailers);
/* The codec sent the whole response, and let go (HTTP/2). */
void kb_stream_flushed(struct kb_stream *stream);
/* The response's headers as the client gets them: Envoy's HCM additions. */
void kb_stream_finish_response_headers(struct kb_stream *stream, struct kb_header_map *headers,
                                       bool end_stream);

/* ---- early_mutation.c ---- */

/* early_header_mutation_extensions of the message: config->early_mutations. */
void kb_early_mutations_apply_config(
    struct kb_hcm_config *config,
    const struct
    Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager *message,
    struct kb_diag *diag);
/* Changes the request's headers before anything else looks at them. */
void kb_early_mutations_apply(const struct kb_early_mutations *mutations, struct kb_stream *stream);

/* ---- hcm_headers.c ---- */

/* Whether Connection has this option among its tokens (RFC 9110 section 7.6.1), in any case. */
bool kb_connection_names(const struct kb_header_map *map, struct kb_str option);
/* Sanitises and completes the request's headers as Envoy's
 * ConnectionManagerUtility::mutateRequestHeaders. 0, or the status with which the request is to be
 * rejected for want of the client's address. */
unsigned kb_hcm_mutate_request(struct kb_stream *stream);
/* x-forwarded-client-cert of the request: hcm_xfcc.c. */
void kb_hcm_client_cert_forward(struct kb_stream *stream);
/* Removes hop-by-hop headers and sets the request id: all that is done to an interim answer. */
void kb_hcm_mutate_1xx(struct kb_stream *stream, struct kb_header_map *headers);
/* That and via and proxy-status, as mutateResponseHeaders. keep-alive the router has removed. */
void kb_hcm_mutate_response(struct kb_stream *stream, struct kb_header_map *headers);
/* The Date line of now. */
struct kb_str kb_http_date(struct kb_worker *worker);

/* ---- stream_access_log.c ---- */

/* Writes the stream's line to the access logs, of this %ACCESS_LOG_TYPE%. */
void kb_stream_log_write(struct kb_stream *stream, const char *type);
/* Writes one every access_log_flush_interval from now on. */
void kb_stream_log_timer_start(struct kb_stream *stream);
/* Ends that; stream->log_timer is there. */
void kb_stream_log_timer_stop(struct kb_stream *stream);

/* ---- stream_duration.c ---- */

/* The stream's route was chosen, and route or request limit its duration: arms the timer anew, or
 * disarms it, and tells the upstream of a gRPC call by grpc-timeout. */
void kb_stream_duration_refresh(struct kb_stream *stream);

/* ---- stream_metadata.c, with kb_stream_encode_metadata ---- */

/* METADATA of the client; what is left of the block is dropped. */
void kb_stream_decode_metadata(struct kb_stream *stream, struct kb_buf *block);
/* The request's headers went on past a filter that held them. */
void kb_stream_metadata_release(struct kb_stream *stream);
/* The answer's headers went to the codec, with stream->metadata only. */
void kb_stream_metadata_answer_release(struct kb_stream *stream);
void kb_stream_metadata_dispose(struct kb_stream *stream);

/* ---- hcm_tracing.c ---- */

struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__RequestIDExtension;

/* From the message; `outbound`: of the listener. */
void kb_hcm_tracing_apply(
    struct kb_hcm_config *config,
    const struct
    Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager *message,
    bool outbound, struct kb_diag *diag);
/* request_id_extension, or NULL: the defaults. */
void kb_hcm_request_id_apply(
    struct kb_hcm_config *config,
    const struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__RequestIDExtension
        *message,
    struct kb_diag *diag);
/* Writes into the request's id why it is traced ('4': it is not), if it has the form of one. */
void kb_hcm_request_id_mark(struct kb_stream *stream, char reason);
/* Where config->tracing is set: the request was routed. */
void kb_hcm_trace_begin(struct kb_stream *stream);
/* Likewise, whenever it is routed again. */
void kb_hcm_trace_refresh(struct kb_stream *stream);
/* Likewise, when headers of an answer are sent: counts by what is decided then. */
void kb_hcm_trace_count(struct kb_stream *stream);
/* Likewise, before its filters run. */
void kb_hcm_trace_request(struct kb_stream *stream);
/* The answer is complete but for this; likewise. Counts. */
void kb_hcm_trace_response(struct kb_stream *stream, struct kb_header_map *headers);

/* ---- upstream_http_filters.c ---- */

/* kb_filter_name_id of this filter of an attempt; 0: it is none. */
uint32_t kb_upstream_http_filter_name_id(const struct kb_upstream_http_filters *filters,
                                         const void *self);

/* ---- http_filter_manager.c ---- */

/* The route, or the chain where the route does not say, has the filter switched off. */
bool kb_stream_filter_off(struct kb_stream *stream, const struct kb_hcm_filter *filter);

/* Makes the filters; false when the request has a route and asks for an upgrade, or is CONNECT,
 * that is not enabled. */
bool kb_stream_filters_create(struct kb_stream *stream);
/* The request is answered before it got to filters: they see the answer, and count it. */
void kb_stream_filters_create_for_answer(struct kb_stream *stream);
void kb_stream_filters_decode_headers(struct kb_stream *stream, bool end_stream);
void kb_stream_filters_decode_data(struct kb_stream *stream, struct kb_buf *data, bool end_stream);
void kb_stream_filters_decode_trailers(struct kb_stream *stream);
void kb_stream_filters_complete(struct kb_stream *stream);
void kb_stream_filters_destroy(struct kb_stream *stream);
void kb_stream_filters_watermark(struct kb_stream *stream, bool above);
/* Tells filters that hold something back that one of those who stopped its way goes on. */
void kb_stream_filters_resumed(struct kb_stream *stream);

/* ---- http_filter_encode.c ---- */

/* Whether it looks at answers. */
bool kb_http_filter_encodes(const struct kb_http_filter_ops *ops);
void kb_stream_encoding_create(struct kb_stream *stream);
void kb_stream_encoding_dispose(struct kb_stream *stream);
/* With encoding only. All of data is taken. */
void kb_stream_filters_encode_headers(struct kb_stream *stream, bool end_stream);
void kb_stream_filters_encode_data(struct kb_stream *stream, struct kb_buf *data, bool end_stream);
void kb_stream_filters_encode_trailers(struct kb_stream *stream, struct kb_header_map *trailers);
/* The connection's write queue is full, or drained. */
void kb_stream_encoding_watermark(struct kb_stream *stream, bool above);
