/* SPDX-License-Identifier: Apache-2.0 */
/* METADATA frames of HTTP/2 (type 0x4d), with which peers tell each other name-value pairs about a
 * stream beside its messages: for sessions of both sides. What came is passed on as a block of
 * literal fields (RFC 7541 section 6.2.2) without tables or Huffman codes, so that nobody has to
 * read it again. All that is held for a session counts against one bound. */
#pragma once

#include <nghttp2/nghttp2.h>

#include "base/buf.h"
#include "base/list.h"
#include "proxy/api/stats.h"
#include "proxy/http/h2_mem.h"

#define KB_H2_METADATA      0x4d
#define KB_H2_METADATA_ENDS 0x4 /* the only flag that a last frame may have, as Envoy reads it */

/* Of one session: blocks that came in part, and frames that wait to be sent. */
#define KB_H2_METADATA_HELD_MAX (4u * 1024 * 1024)

/* A session's; on caller's storage. */
struct kb_h2_metadata_session {
    struct kb_h2_mem *mem;
    nghttp2_mem inflater_mem;
    uint64_t max_bytes;    /* of one block: max_metadata_size */
    struct kb_list handed; /* frames that nghttp2 has, and has not asked for yet */
    size_t held;
};

/* A stream's, made when it is needed. */
struct kb_h2_metadata {
    nghttp2_hd_inflater *inflater; /* of the block that is coming; NULL: none is */
    char *pairs;                   /* what came out of it, as literals */
    size_t len, room;
    uint64_t received;      /* payload bytes of the stream so far */
    uint64_t fields;        /* and of the names and values that came out of them */
    struct kb_list waiting; /* frames behind body that was not sent yet */
    size_t behind;          /* how much body is before the last of them */
};

/* With the session of nghttp2; max_bytes: max_metadata_size. */
void kb_h2_metadata_session_init(struct kb_h2_metadata_session *session, struct kb_h2_mem *mem,
                                 uint64_t max_bytes);
/* Frees what nghttp2 did not ask for. */
void kb_h2_metadata_session_dispose(struct kb_h2_metadata_session *session);

/* The stream's own, to be destroyed with it. */
struct kb_h2_metadata *kb_h2_metadata_create(struct kb_h2_metadata_session *session);
/* NULL is nothing. */
void kb_h2_metadata_destroy(struct kb_h2_metadata_session *session,
                            struct kb_h2_metadata *metadata);

/* ---- receiving ---- */

/* For nghttp2's on_extension_chunk_recv_callback, what it returns: part of a frame's payload. */
int kb_h2_metadata_receive(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata,
                           const uint8_t *bytes, size_t len);
/* For nghttp2's unpack_extension_callback, what it returns: the frame is whole. Where a block is,
 * `tell` gets it; what is left in it is dropped. Of a name that came twice the first value counts,
 * as in Envoy. Blocks without a pair are counted in `stats`. */
int kb_h2_metadata_unpack(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata,
                          uint8_t flags, struct kb_slice_source *slices,
                          struct kb_stat_block *stats,
                          void (*tell)(void *owner, struct kb_buf *block), void *owner);

/* ---- sending ---- */

/* Queues a block behind the `body` bytes of the stream that wait to be sent; takes all of it.
 * False: too much is held already. */
bool kb_h2_metadata_queue(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata,
                          struct kb_buf *block, size_t body);
/* So much body may be sent before the next frame that waits; false: none waits. */
bool kb_h2_metadata_next(const struct kb_h2_metadata *metadata, size_t *body);
/* `body` bytes were sent, no more than kb_h2_metadata_next said: hands to nghttp2 what is due. */
void kb_h2_metadata_due(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata,
                        nghttp2_session *nghttp2, int32_t stream_id, size_t body);
/* For nghttp2's pack_extension_callback: the payload of a frame handed to it, or NGHTTP2_ERR_CANCEL
 * when the stream is not `open` any more. The frame is gone then. */
ssize_t kb_h2_metadata_pack(struct kb_h2_metadata_session *session, uint8_t *to, size_t room,
                            const nghttp2_frame *frame, bool open);
