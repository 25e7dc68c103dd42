/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the HTTP/2 client session share: h2_client_session.c has its life and its
 * bytes, h2_client_stream.c what streams are told, h2_client_events.c what nghttp2 tells. */
#pragma once

#include <nghttp2/nghttp2.h>

#include "proxy/http/h2_client_session.h"
#include "proxy/http/h2_metadata.h"

#define KB_H2_FRAME_HEAD_BYTES 9

struct kb_h2_session {
    KB_OBJ;
    nghttp2_session *nghttp2;
    struct kb_h2_settings settings;
    const struct kb_h2_session_callbacks *callbacks;
    void *owner;
    struct kb_slice_source *slices;
    struct kb_stat_block *stats;
    struct kb_h2_guard guard;
    struct kb_h2_metadata_session metadata;
    struct kb_h2_stream *recent; /* the last that was looked up, or the one behind */
    struct kb_list streams;
    struct kb_list writable; /* streams that shall hear on_below_low */
    struct kb_h2_mem *mem;
    uint32_t stream_count;
    struct kb_buf *sending; /* where kb_h2_session_send puts bytes; NULL: not within */
    size_t send_limit;
    uint64_t now_ms; /* of the bytes being received */
    int error;
    bool goaway_received;
    bool busy; /* nghttp2 is at work: it may not be destroyed */
};
KB_OBJ_MAGIC(kb_h2_session, 0x48325345);

/* Lives until nghttp2 has closed it and its owner has let it go. */
struct kb_h2_stream {
    KB_OBJ;
    struct kb_list link; /* in `streams` */
    struct kb_h2_mem *mem;
    struct kb_list writable_link;
    struct kb_h2_session *session; /* NULL: gone */
    const struct kb_h2_stream_callbacks *callbacks;
    void *owner; /* of no meaning when released */
    int32_t id;
    struct kb_arena *arena;        /* of what is received; the owner's, or own_arena */
    struct kb_header_map *headers; /* being read; in `arena`, or own_headers */
    struct kb_arena own_arena;
    struct kb_header_map own_headers;
    size_t header_bytes;
    uint32_t header_count;
    uint32_t informational;
    struct kb_buf out;
    nghttp2_nv *trailers; /* of the request, to be sent behind `out`; of the session's memory */
    size_t trailer_count;
    size_t unconsumed;
    struct kb_h2_metadata *metadata; /* NULL: none came or was sent */
    struct kb_h2_meter meter;
    bool out_end;
    bool deferred;     /* nghttp2 waits for kb_h2_stream_send */
    bool headers_done; /* the final head came */
    bool ended;        /* on_end was called */
    bool end_received; /* the response is whole */
    bool reset_sent;
    bool above_high;
    bool released;
};
KB_OBJ_MAGIC(kb_h2_stream, 0x48325354);

/* The stream that was opened behind `stream`; NULL: none. */
KB_INLINE struct kb_h2_stream *kb_h2_stream_next(const struct kb_h2_session *session,
                                                 const struct kb_h2_stream *stream)
{
    struct kb_list *next = stream->link.next;

    return next != &session->streams ? KB_LIST_ENTRY(next, struct kb_h2_stream, link) : NULL;
}

/* ---- h2_client_stream.c ---- */

/* The stream leaves its session; its owner is told unless it knows already. */
void kb_h2_stream_gone(struct kb_h2_stream *stream, enum kb_reset_reason reason);
/* `n` bytes of what waits were sent or dropped. */
void kb_h2_stream_out_drop(struct kb_h2_stream *stream, size_t n);

/* ---- h2_client_events.c ---- */

/* Registers what nghttp2 shall call. */
void kb_h2_client_callbacks_set(nghttp2_session_callbacks *callbacks);
/* The body of a request; for a data provider whose source is the stream. */
ssize_t kb_h2_client_data_wanted(nghttp2_session *nghttp2, int32_t id, uint8_t *to, size_t len,
                                 uint32_t *flags, nghttp2_data_source *source, void *user_data);
