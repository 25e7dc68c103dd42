/* SPDX-License-Identifier: Apache-2.0 */
/* The server side of one HTTP/2 connection, without any I/O of its own: bytes of the client go in,
 * bytes for it come out, streams carry requests and responses (RFC 9113). Flow control windows open
 * as data is taken, what waits to be sent is bounded by watermarks per stream and for all together,
 * and a client that wastes our work (RFC 9113 section 10.5) is an error. Over nghttp2. */
#pragma once

#include "base/buf.h"
#include "proxy/api/header_map.h"
#include "proxy/api/reset_reason.h"
#include "proxy/api/stats.h"
#include "proxy/api/stream_info.h"
#include "proxy/http/h2_mem.h"
#include "proxy/http/h2_options.h"

struct kb_h2_server_session;
struct kb_h2_server_stream;

/* Immutable; outlives its sessions. */
struct kb_h2_server_settings {
    struct kb_h2_options options;
    uint32_t max_header_bytes; /* of a request's headers, and of its trailers */
    uint32_t max_header_count;
    enum kb_h2_underscores { /* headers_with_underscores_action */
                             KB_H2_UNDERSCORES_ALLOW,
                             KB_H2_UNDERSCORES_REJECT,
                             KB_H2_UNDERSCORES_DROP,
    } underscores;
};

/* What waits to be sent: high watermark of one stream once the output took what it can, before
 * that, and of all streams. */
#define KB_H2_STREAM_OUT_BYTES   (32u * 1024)
#define KB_H2_STREAM_ROUND_BYTES (128u * 1024)
#define KB_H2_SESSION_OUT_BYTES  (1024u * 1024)

/* A new stream's other half. */
struct kb_h2_server_request {
    void *owner;
    struct kb_header_map *headers; /* empty; request headers are put there, strings in its arena */
    struct kb_stream_info *info;   /* its wire and header bytes are counted */
};

/* What the streams' owners hear, all from within kb_h2_server_session_receive or _send. A stream
 * may be given up (kb_h2_server_stream_close) from within any; the session may not be destroyed
 * from within. */
struct kb_h2_server_callbacks {
    /* The first frame of a request came; `request` is filled. */
    void (*on_stream)(void *session_owner, struct kb_h2_server_stream *stream,
                      struct kb_h2_server_request *request);
    void (*on_headers)(void *owner, bool end_stream);
    /* Takes all of data. */
    void (*on_data)(void *owner, struct kb_buf *data, bool end_stream);
    /* The end of a request with trailers, which live in the arena of its headers. */
    void (*on_trailers)(void *owner, struct kb_header_map *trailers);
    /* A block of METADATA, as h2_metadata.h has it; with allow_metadata only. */
    void (*on_metadata)(void *owner, struct kb_buf *block);
    /* Response data left for the output. */
    void (*on_progress)(void *owner);
    /* The whole response did; the owner is let go of. */
    void (*on_sent)(void *owner);
    /* What waits to be sent passed its high watermark / fell to half of it. */
    void (*on_above_high)(void *owner);
    void (*on_below_low)(void *owner);
    /* The stream was reset, by the peer or for its peer's fault; the owner is let go of. */
    void (*on_reset)(void *owner, enum kb_reset_reason reason, struct kb_str details);
    void (*on_ping_ack)(void *session_owner);
};

/* Why a session failed. */
struct kb_h2_server_fault {
    int error;          /* KB_EPROTOCOL; KB_ELIMIT: the client floods us */
    struct kb_str text; /* Envoy's, with '_' for ' ': "codec_error:..." of streams */
    bool silent;        /* nothing more is sent, not even a GOAWAY */
};

/* A session whose SETTINGS are ready to be sent. `stats` is a block of kb_stat_schema_http2. */
struct kb_h2_server_session *
kb_h2_server_session_create(const struct kb_h2_server_settings *settings,
                            const struct kb_h2_server_callbacks *callbacks, void *owner,
                            struct kb_slice_source *slices, struct kb_h2_mem *mem,
                            struct kb_stat_block *stats);
/* Streams that are left are let go without a word. Not from within a callback. */
void kb_h2_server_session_destroy(struct kb_h2_server_session *session);

/* Takes all of `in`. The first fault, if any, stays: see kb_h2_server_session_fault. `now_ms` is a
 * monotonic clock. False after a fault. */
bool kb_h2_server_session_receive(struct kb_h2_server_session *session, struct kb_buf *in,
                                  uint64_t now_ms) KB_MUST_USE;
/* From within callbacks: whether they come of bytes of the client's. */
bool kb_h2_server_session_receiving(const struct kb_h2_server_session *session);
/* Moves bytes for the client to `out` until there are none or out->len reaches `limit`. False after
 * a fault. */
bool kb_h2_server_session_send(struct kb_h2_server_session *session, struct kb_buf *out,
                               size_t limit) KB_MUST_USE;
/* `n` bytes of what kb_h2_server_session_send gave left for the client. */
void kb_h2_server_session_written(struct kb_h2_server_session *session, size_t n);
/* The output does not leave: streams with body of their own hear on_above_high, not only from
 * within receive or send. */
void kb_h2_server_session_blocked(struct kb_h2_server_session *session);
/* Takes nothing in and calls nobody from now on; from within a callback too. */
void kb_h2_server_session_stop(struct kb_h2_server_session *session);
const struct kb_h2_server_fault *
kb_h2_server_session_fault(const struct kb_h2_server_session *session);

/* Queues the GOAWAY that announces another one: streams are still taken (RFC 9113 section 6.8). */
void kb_h2_server_session_notice(struct kb_h2_server_session *session);
/* Queues the GOAWAY with the last stream that was taken; later ones are not. */
void kb_h2_server_session_goaway(struct kb_h2_server_session *session);
void kb_h2_server_session_ping(struct kb_h2_server_session *session);

/* NULL after it was let go. */
void *kb_h2_server_stream_owner(const struct kb_h2_server_stream *stream);
/* Of a fault in it; p NULL: none. */
struct kb_str kb_h2_server_stream_details(const struct kb_h2_server_stream *stream);
/* Bytes of the response's body that wait to be sent. */
size_t kb_h2_server_stream_held(const struct kb_h2_server_stream *stream);
/* Response, each in its turn; `headers` are copied. */
void kb_h2_server_stream_1xx(struct kb_h2_server_stream *stream,
                             const struct kb_header_map *headers);
void kb_h2_server_stream_headers(struct kb_h2_server_stream *stream,
                                 const struct kb_header_map *headers, bool end_stream);
/* Takes all of data, beyond the high watermark too. */
void kb_h2_server_stream_data(struct kb_h2_server_stream *stream, struct kb_buf *data,
                              bool end_stream);
/* A block of METADATA, in its turn; takes all of it. Nothing without allow_metadata. */
void kb_h2_server_stream_metadata(struct kb_h2_server_stream *stream, struct kb_buf *block);
/* `trailers` have to stay until the owner is let go of. */
void kb_h2_server_stream_trailers(struct kb_h2_server_stream *stream,
                                  const struct kb_header_map *trailers);
/* Counted: while disabled, the client's window does not open again for what it sent. */
void kb_h2_server_stream_read_disable(struct kb_h2_server_stream *stream, bool disable);
/* The owner lets go; the stream is reset with `error_code` (RFC 9113 section 7). */
void kb_h2_server_stream_close(struct kb_h2_server_stream *stream, uint32_t error_code);
