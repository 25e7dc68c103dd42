/* SPDX-License-Identifier: Apache-2.0 */
/* The client side of one HTTP/2 connection, without any I/O of its own: bytes of the server go in,
 * bytes for it come out, streams carry headers, data and trailers (RFC 9113). Flow control windows
 * open as data is consumed, what waits to be sent is bounded per stream, and a server that wastes
 * our work (RFC 9113 section 10.5) is an error. Over nghttp2, which only this file's .c sees. */
#pragma once

#include "base/buf.h"
#include "base/list.h"
#include "proxy/api/header_map.h"
#include "proxy/api/reset_reason.h"
#include "proxy/api/stats.h"
#include "proxy/http/h2_mem.h"
#include "proxy/http/h2_options.h"

struct kb_h2_session;
struct kb_h2_stream;

/* Zeros mean Envoy's defaults, those of Http2ProtocolOptions. */
struct kb_h2_settings {
    uint32_t hpack_table_bytes;       /* 4096; for decoding */
    uint32_t max_concurrent_streams;  /* 1024; of ours, fewer when the server says so */
    uint32_t stream_window_bytes;     /* 16 MiB */
    uint32_t connection_window_bytes; /* 24 MiB */
    uint32_t max_header_bytes;        /* of a response's headers, and of its trailers: 60 KiB */
    uint32_t max_header_count;        /* 100 */
    uint32_t stream_out_bytes;        /* high watermark of what a stream keeps to send: 256 KiB */
    bool override_stream_error; /* a faulty message costs its stream alone, not the connection */
    bool requests; /* of clients: pseudo headers stand as Envoy has them of HTTP/1, :authority
                      first, and goaway_sent does not count errors */
    uint32_t max_outbound_acks;         /* acknowledgements that may wait to be sent: 1000 */
    bool allow_connect;                 /* our SETTINGS say so, as Envoy's */
    bool allow_metadata;                /* METADATA frames pass; else they are skipped */
    uint64_t max_metadata_bytes;        /* of one stream's */
    const struct kb_h2_setting *custom; /* said before ours; outlive the session */
    size_t custom_count;
    bool guard_filled; /* zeros in `guard` mean zero */
    struct kb_h2_guard_limits guard;
};

/* What a stream tells; none may be NULL but where it is said. A stream may be closed
 * (kb_h2_stream_close) from within any; the session may not be destroyed from within. */
struct kb_h2_stream_callbacks {
    /* An informational head; NULL: they are skipped. Borrowed for the call. */
    void (*on_1xx)(void *owner, struct kb_header_map *headers);
    /* Final response headers. Borrowed for the call, unless the stream was opened with an arena:
     * then they live in it. */
    void (*on_headers)(void *owner, struct kb_header_map *headers, bool end_stream);
    /* Some data (never empty); the window opens again with kb_h2_stream_consume. */
    void (*on_data)(void *owner, const char *bytes, size_t len);
    /* A frame of data is complete and not the last; NULL: nobody asks. */
    void (*on_data_done)(void *owner);
    /* Trailers, or NULL when the stream ended without. The last event unless on_reset follows. */
    void (*on_end)(void *owner, struct kb_header_map *trailers);
    /* A block of METADATA, as h2_metadata.h has it; what is left of it is dropped. NULL: nobody
     * asks. */
    void (*on_metadata)(void *owner, struct kb_buf *block);
    /* The stream ended before its time; the last event. */
    void (*on_reset)(void *owner, enum kb_reset_reason reason);
    /* What is kept to send fell to half of its high watermark. */
    void (*on_below_low)(void *owner);
};

/* Bytes of one stream's frames, heads of frames included. */
struct kb_h2_meter {
    uint64_t wire_sent, wire_received;
    uint64_t headers_sent, headers_received; /* of these, HEADERS and CONTINUATION */
};

/* What the connection's owner hears; from within kb_h2_session_receive. NULL members are allowed.
 */
struct kb_h2_session_callbacks {
    void (*on_goaway)(void *owner, uint32_t error_code); /* the first only */
    void (*on_ping_ack)(void *owner);
    /* The server's SETTINGS came: how many streams it takes at a time. */
    void (*on_settings)(void *owner, uint32_t max_concurrent_streams);
    /* A stream of ours is over, its slot free; its owner was told before. */
    void (*on_stream_gone)(void *owner);
};

/* A session whose SETTINGS are ready to be sent; its memory comes from `mem`, which is its
 * worker's. `stats` is a block of kb_stat_schema_http2. */
struct kb_h2_session *kb_h2_session_create(const struct kb_h2_settings *settings,
                                           const struct kb_h2_session_callbacks *callbacks,
                                           void *owner, struct kb_slice_source *slices,
                                           struct kb_h2_mem *mem, struct kb_stat_block *stats);
/* The connection is lost: its streams hear on_reset(reason), and nothing is taken or sent any more.
 * From within callbacks too. */
void kb_h2_session_fail(struct kb_h2_session *session, enum kb_reset_reason reason);
/* Streams that are left hear on_reset(reason) first. Not from within a callback. */
void kb_h2_session_destroy(struct kb_h2_session *session, enum kb_reset_reason reason);

/* Bytes of the server. KB_EPROTOCOL: it broke the protocol; KB_ELIMIT: it floods us. Then send
 * what kb_h2_session_send still gives (a GOAWAY) and close. `now_ms` is a monotonic clock. */
int kb_h2_session_receive(struct kb_h2_session *session, const char *bytes, size_t len,
                          uint64_t now_ms) KB_MUST_USE;
/* Moves bytes for the server to `out` until there are none or out->len reaches `limit`. Same
 * errors. */
int kb_h2_session_send(struct kb_h2_session *session, struct kb_buf *out, size_t limit) KB_MUST_USE;
/* There is something to send. */
bool kb_h2_session_want_send(struct kb_h2_session *session);

/* Queues a PING; on_ping_ack answers. */
void kb_h2_session_ping(struct kb_h2_session *session);
/* Queues a GOAWAY without an error: the connection is about to be closed by us. */
void kb_h2_session_goaway(struct kb_h2_session *session);
/* One more stream may be opened: no GOAWAY came, and neither side's limit is reached. */
bool kb_h2_session_can_open(const struct kb_h2_session *session);
uint32_t kb_h2_session_streams(const struct kb_h2_session *session);

/* Opens a stream with the pseudo headers and headers of `headers` (copied), in that order; NULL
 * when kb_h2_session_can_open says no or stream ids are used up. The response's headers and
 * trailers are made in `arena`, which has to live until the stream is closed; NULL: they live for
 * the callback. */
struct kb_h2_stream *kb_h2_stream_open(struct kb_h2_session *session,
                                       const struct kb_header_map *headers, bool end_stream,
                                       const struct kb_h2_stream_callbacks *callbacks, void *owner,
                                       struct kb_arena *arena);
/* Moves `data` to what is to be sent. Beyond the high watermark too: ask kb_h2_stream_above_high
 * before. */
void kb_h2_stream_send(struct kb_h2_stream *stream, struct kb_buf *data, bool end_stream);
/* The end of the request, with trailers (copied). */
void kb_h2_stream_send_trailers(struct kb_h2_stream *stream, const struct kb_header_map *trailers);
/* A block of METADATA, in its turn; takes all of it. Nothing without allow_metadata. */
void kb_h2_stream_send_metadata(struct kb_h2_stream *stream, struct kb_buf *block);
bool kb_h2_stream_above_high(const struct kb_h2_stream *stream);
/* Bytes that wait to be sent. */
size_t kb_h2_stream_queued(const struct kb_h2_stream *stream);
/* What was sent and received so far; valid until the stream is closed. */
const struct kb_h2_meter *kb_h2_stream_meter(const struct kb_h2_stream *stream);
/* `len` bytes that on_data gave are done with. */
void kb_h2_stream_consume(struct kb_h2_stream *stream, size_t len);
/* The stream's window becomes `bytes` large: what is more is given at once, what is less is kept
 * back of what is consumed. */
void kb_h2_stream_set_window(struct kb_h2_stream *stream, uint32_t bytes);
/* The owner lets go: no callback comes any more. A stream that is not whole in both directions is
 * reset with `error_code` (RFC 9113 section 7: 8 CANCEL, 2 INTERNAL_ERROR...). */
void kb_h2_stream_close(struct kb_h2_stream *stream, uint32_t error_code);
