/* SPDX-License-Identifier: Apache-2.0 */
/* Session and stream of a HTTP/2 server; for proxy/http/h2_server_session.c, h2_server_receive.c
 * and h2_server_send.c only. */
#pragma once

#include <nghttp2/nghttp2.h>

#include "base/list.h"
#include "proxy/http/h2_metadata.h"
#include "proxy/http/h2_server_session.h"

/* Frames in the output that the client has not read yet, counted in two generations: the older one
 * is gone when the byte was written that was the last when it ended. Never fewer than there are. */
struct kb_h2_outbound {
    uint64_t produced; /* bytes */
    uint64_t written;
    uint64_t mark; /* end of the older generation */
    uint32_t frames[2];
    uint32_t control[2];
};

#define KB_H2_RESETS_KEPT 64

/* Where in the client's frames its bytes stand. */
struct kb_h2_scan {
    uint8_t header[9];
    size_t have;      /* of the header */
    size_t payload;   /* bytes until the next header */
    bool reset_seen;  /* RST_STREAM among what nghttp2 was not given yet */
    bool goaway_seen; /* a GOAWAY, ever */
    bool in_late_ping;
};

/* PINGs behind a GOAWAY, whole ones and the begin of another: without streams nghttp2 neither tells
 * of them nor sends an answer. */
#define KB_H2_LATE_PINGS_MAX 8u
struct kb_h2_late_pings {
    uint8_t data[KB_H2_LATE_PINGS_MAX * 8];
    size_t len;
};

struct kb_h2_server_session {
    KB_OBJ;
    nghttp2_session *nghttp2;
    const struct kb_h2_server_settings *settings;
    const struct kb_h2_server_callbacks *callbacks;
    void *owner;
    struct kb_slice_source *slices;
    struct kb_h2_mem *mem;
    struct kb_stat_block *stats;
    struct kb_slice *input; /* being received */
    struct kb_buf *output;  /* being sent to */
    size_t output_limit;
    struct kb_h2_scan scan;
    bool goaway_heard;
    struct kb_h2_late_pings late_pings;
    struct kb_h2_guard guard;
    struct kb_h2_metadata_session metadata;
    struct kb_h2_outbound outbound;
    struct kb_h2_server_stream *recent; /* the last that was looked up, or the one behind */
    struct kb_list streams;
    struct kb_list closing; /* streams that are reset when what they have was sent */
    struct kb_list lowered; /* streams that shall hear on_below_low */
    struct kb_list grown;   /* streams that got body behind what they had */
    size_t queued;          /* bytes of all streams that wait to be sent */
    size_t header_bytes;    /* of the requests of all streams */
    uint64_t now_ms;        /* of the bytes being received */
    uint32_t resets_queued; /* RST_STREAM of ours that were not sent yet */
    struct kb_h2_server_fault fault;
    int32_t resets[KB_H2_RESETS_KEPT]; /* the last streams that we reset */
    uint32_t reset_count;
    bool above_high; /* all streams are, for `queued` */
    bool stopped;
    bool busy; /* nghttp2 is at work: it may not be destroyed */
};
KB_OBJ_MAGIC(kb_h2_server_session, 0x48325373);

/* Lives until nghttp2 has closed it; its owner lets go before, or then. */
struct kb_h2_server_stream {
    KB_OBJ;
    int32_t id;
    struct kb_list link;
    struct kb_list closing_link;
    struct kb_list lowered_link;
    struct kb_list grown_link;
    struct kb_h2_server_session *session;
    void *owner; /* NULL: let go */
    struct kb_stream_info *info;
    struct kb_header_map *headers;        /* that are being read; NULL: to nobody */
    const struct kb_header_map *trailers; /* of the response; NULL: none */
    struct kb_h2_metadata *metadata;      /* NULL: none came or was sent */
    struct kb_str details;                /* of a fault of the client's in this stream */
    char *cookie;                         /* of several fields so far; in the headers' arena */
    uint32_t cookie_len, cookie_room;
    struct kb_buf in; /* of the present DATA frame */
    struct kb_buf out;
    size_t unconsumed;     /* bytes taken for which the window did not open */
    uint32_t header_bytes; /* of this block of headers */
    uint32_t block_fields; /* the same, with those that were dropped */
    uint32_t header_bytes_held;
    uint32_t header_count;
    uint32_t read_disables;
    uint32_t reset_code; /* of its RST_STREAM, while it is closing */
    bool headers_done;   /* the request's headers came */
    bool remote_ended;   /* the whole request came */
    bool out_end;        /* the whole response was given to us */
    bool local_ended;    /* END_STREAM was sent */
    bool deferred;       /* nghttp2 waits for more response data */
    bool above_high;     /* its own queue is */
    bool told_above;     /* the owner believes that it is */
    bool reset_sent;     /* by us */
    bool faulty;         /* a message error that costs the stream only */
    bool userinfo;       /* its authority names a user */
};
KB_OBJ_MAGIC(kb_h2_server_stream, 0x48325374);

/* ---- h2_server_session.c ---- */

/* What the client sends on this stream may be on its way, and is nobody's fault. */
void kb_h2_server_reset_note(struct kb_h2_server_session *session, int32_t id);
/* The first fault of a session counts. */
void kb_h2_server_fault_set(struct kb_h2_server_session *session, int error, struct kb_str text,
                            bool silent);
struct kb_h2_server_stream *kb_h2_server_stream_create(struct kb_h2_server_session *session,
                                                       int32_t id);
/* nghttp2 has closed it, or tells no more, and so does not name it again. */
void kb_h2_server_stream_destroy(struct kb_h2_server_stream *stream);
/* Nothing of a head that did not come whole, or was refused, is shown. */
void kb_h2_server_stream_unfinished_clear(struct kb_h2_server_stream *stream);
/* The stream that was opened behind `stream`; NULL: none. */
KB_INLINE struct kb_h2_server_stream *
kb_h2_server_stream_next(const struct kb_h2_server_session *session,
                         const struct kb_h2_server_stream *stream)
{
    struct kb_list *next = stream->link.next;

    return next != &session->streams ? KB_LIST_ENTRY(next, struct kb_h2_server_stream, link) : NULL;
}

/* NULL: none is open, or it is nobody's. What nghttp2 tells comes stream by stream and mostly in
 * their order, so that most are found without its table. */
KB_INLINE struct kb_h2_server_stream *kb_h2_server_stream_of(struct kb_h2_server_session *session,
                                                             int32_t id)
{
    struct kb_h2_server_stream *recent = session->recent;
    void *stream;

    if (recent != NULL) {
        if (recent->id == id) {
            return recent;
        }
        recent = kb_h2_server_stream_next(session, recent);
        if (recent != NULL && recent->id == id) {
            session->recent = recent;
            return recent;
        }
    }
    stream = nghttp2_session_get_stream_user_data(session->nghttp2, id);
    if (stream == NULL) {
        return NULL;
    }
    session->recent = KB_CAST(stream, kb_h2_server_stream);
    return session->recent;
}

/* ---- h2_server_receive.c ---- */

/* DATA or HEADERS on a stream that was never open, or that both sides or the client closed (RFC
 * 9113 section 5.1). What we reset is left out; of many, the last ones are known. */
bool kb_h2_server_frame_on_closed(struct kb_h2_server_session *session, const nghttp2_frame_hd *hd);
void kb_h2_server_receive_callbacks_set(nghttp2_session_callbacks *callbacks);

/* ---- h2_server_send.c ---- */

void kb_h2_server_send_callbacks_set(nghttp2_session_callbacks *callbacks);
/* The output took what it can: streams whose body it left hear on_above_high. */
void kb_h2_server_grown_settle(struct kb_h2_server_session *session);
/* Resets the streams that are closing. */
void kb_h2_server_closing_reset(struct kb_h2_server_session *session);
/* Bytes of the stream's queue went, by being sent or dropped. */
void kb_h2_server_queue_shrunk(struct kb_h2_server_stream *stream, size_t n);
