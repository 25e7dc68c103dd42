/* SPDX-License-Identifier: Apache-2.0 */
/* Reading METADATA with an inflater for each block, whose table nobody else sees, and queues of
 * frames that keep their place among a stream's body. */
#include "proxy/http/h2_metadata.h"

#include <string.h>

#include "base/map.h"
#include "proxy/http/h2_guard.h"

#define FRAME_BYTES_MAX 16384u /* what every peer takes (RFC 9113 section 4.2) */
#define ROOM_MIN        256
#define INFLATER_BYTES  8192u /* what one may hold, its table full */

/* One that waits to be sent; its payload follows. */
struct metadata_frame {
    struct kb_list link;
    size_t behind; /* so much body is between it and the one before it, or what was sent */
    uint32_t len;
    uint8_t flags;
    uint8_t payload[];
};

void kb_h2_metadata_session_init(struct kb_h2_metadata_session *session, struct kb_h2_mem *mem,
                                 uint64_t max_bytes)
{
    session->mem = mem;
    session->inflater_mem = (nghttp2_mem){.mem_user_data = mem,
                                          .malloc = kb_h2_mem_malloc,
                                          .free = kb_h2_mem_free,
                                          .calloc = kb_h2_mem_calloc,
                                          .realloc = kb_h2_mem_realloc};
    session->max_bytes = max_bytes;
    session->held = 0;
    kb_list_init(&session->handed);
}

static void frame_free(struct kb_h2_metadata_session *session, struct metadata_frame *frame)
{
    kb_list_unlink(&frame->link);
    session->held -= frame->len;
    kb_h2_mem_free(frame, session->mem);
}

static void frames_free(struct kb_h2_metadata_session *session, struct kb_list *frames)
{
    while (!kb_list_empty(frames)) {
        frame_free(session, KB_LIST_ENTRY(frames->next, struct metadata_frame, link));
    }
}

void kb_h2_metadata_session_dispose(struct kb_h2_metadata_session *session)
{
    frames_free(session, &session->handed);
}

struct kb_h2_metadata *kb_h2_metadata_create(struct kb_h2_metadata_session *session)
{
    struct kb_h2_metadata *metadata = kb_h2_mem_calloc(1, sizeof(*metadata), session->mem);

    kb_list_init(&metadata->waiting);
    return metadata;
}

/* ---- receiving ---- */

static void block_end(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata)
{
    if (metadata->inflater != NULL) {
        nghttp2_hd_inflate_del(metadata->inflater);
        metadata->inflater = NULL;
        session->held -= INFLATER_BYTES;
    }
    session->held -= metadata->len;
    kb_h2_mem_free(metadata->pairs, session->mem);
    metadata->pairs = NULL;
    metadata->len = 0;
    metadata->room = 0;
}

void kb_h2_metadata_destroy(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata)
{
    if (metadata == NULL) {
        return;
    }
    block_end(session, metadata);
    frames_free(session, &metadata->waiting);
    kb_h2_mem_free(metadata, session->mem);
}

/* RFC 7541 section 5.1, with a prefix of 7 bits; the length of a string without Huffman codes. */
static char *length_put(char *at, size_t len)
{
    if (len < 127) {
        *at++ = (char)len;
        return at;
    }
    *at++ = 127;
    for (len -= 127; len >= 128; len /= 128) {
        *at++ = (char)(len % 128 + 128);
    }
    *at++ = (char)len;
    return at;
}

static char *string_put(char *at, const uint8_t *bytes, size_t len)
{
    at = length_put(at, len);
    memcpy(at, bytes, len);
    return at + len;
}

#define HPACK_TABLE_BYTES 4096 /* nobody says another size for these blocks */
#define PAIR_SPARE        24   /* what a pair needs beside its name and value */

static bool pair_add(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata,
                     const nghttp2_nv *pair)
{
    size_t needed = metadata->len + pair->namelen + pair->valuelen + PAIR_SPARE;
    char *at;

    metadata->fields += pair->namelen + pair->valuelen;
    if (kb_h2_guard_expanded(metadata->fields, metadata->received, HPACK_TABLE_BYTES) ||
        session->held + pair->namelen + pair->valuelen > KB_H2_METADATA_HELD_MAX) {
        return false;
    }
    if (needed > metadata->room) {
        metadata->room = KB_MAX(needed * 2, (size_t)ROOM_MIN);
        metadata->pairs = kb_h2_mem_realloc(metadata->pairs, metadata->room, session->mem);
    }
    at = metadata->pairs + metadata->len;
    *at++ = 0; /* literal, never in a table, with a new name */
    at = string_put(at, pair->name, pair->namelen);
    at = string_put(at, pair->value, pair->valuelen);
    session->held += (size_t)(at - metadata->pairs) - metadata->len;
    metadata->len = (size_t)(at - metadata->pairs);
    return true;
}

static bool inflate(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata,
                    const uint8_t *bytes, size_t len, bool final)
{
    int flags;

    if (metadata->inflater == NULL) {
        if (session->held + INFLATER_BYTES > KB_H2_METADATA_HELD_MAX ||
            nghttp2_hd_inflate_new2(&metadata->inflater, &session->inflater_mem) != 0) {
            return false;
        }
        session->held += INFLATER_BYTES;
    }
    do {
        nghttp2_nv pair;
        ssize_t n;

        flags = 0;
        n = nghttp2_hd_inflate_hd2(metadata->inflater, &pair, &flags, bytes, len, final);
        if (n < 0) {
            return false;
        }
        bytes += n;
        len -= (size_t)n;
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0 && !pair_add(session, metadata, &pair)) {
            return false;
        }
        if (n == 0 && (flags & NGHTTP2_HD_INFLATE_EMIT) == 0) {
            break;
        }
    } while ((flags & NGHTTP2_HD_INFLATE_FINAL) == 0 && (len > 0 || final));
    return len == 0;
}

int kb_h2_metadata_receive(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata,
                           const uint8_t *bytes, size_t len)
{
    metadata->received += len;
    return metadata->received <= session->max_bytes && inflate(session, metadata, bytes, len, false)
               ? 0
               : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static const uint8_t *length_get(const uint8_t *at, size_t *len)
{
    size_t value = *at++;

    if (value == 127) {
        unsigned shift = 0;

        do {
            value += (size_t)(*at & 127) << shift;
            shift += 7;
        } while ((*at++ & 128) != 0);
    }
    *len = value;
    return at;
}

/* What is left when of each name the first value counts. */
static void names_once(struct kb_h2_metadata *metadata, struct kb_buf *block)
{
    const uint8_t *at = (const uint8_t *)metadata->pairs;
    const uint8_t *end = at + metadata->len;
    struct kb_map seen;

    kb_map_init(&seen);
    while (at < end) {
        const uint8_t *pair = at;
        size_t name_len, value_len;
        struct kb_str name;

        at = length_get(at + 1, &name_len);
        name = kb_str_make((const char *)at, name_len);
        at = length_get(at + name_len, &value_len) + value_len;
        if (kb_map_get(&seen, name) == NULL) {
            (void)kb_map_put(&seen, name, metadata);
            kb_buf_append(block, pair, (size_t)(at - pair));
        }
    }
    kb_map_dispose(&seen);
}

int kb_h2_metadata_unpack(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata,
                          uint8_t flags, struct kb_slice_source *slices,
                          struct kb_stat_block *stats,
                          void (*tell)(void *owner, struct kb_buf *block), void *owner)
{
    struct kb_buf block;
    bool empty;

    if (flags != KB_H2_METADATA_ENDS) {
        return NGHTTP2_ERR_CANCEL; /* the block goes on in another frame */
    }
    if (metadata->inflater != NULL && !inflate(session, metadata, NULL, 0, true)) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    empty = metadata->len == 0;
    kb_buf_init(&block, slices, 0);
    if (!empty) {
        names_once(metadata, &block);
    }
    block_end(session, metadata);
    if (empty) {
        kb_stat_inc(stats, KB_STAT_HTTP2_METADATA_EMPTY_FRAMES);
    } else {
        tell(owner, &block);
    }
    kb_buf_dispose(&block);
    return NGHTTP2_ERR_CANCEL; /* no more is to be done with it */
}

/* ---- sending ---- */

static void frame_queue(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata,
                        struct kb_buf *block, size_t body)
{
    size_t len = KB_MIN(block->len, (size_t)FRAME_BYTES_MAX);
    struct metadata_frame *frame = kb_h2_mem_malloc(sizeof(*frame) + len, session->mem);

    frame->link = (struct kb_list){NULL, NULL};
    frame->behind = body - metadata->behind;
    frame->len = (uint32_t)len;
    frame->flags = len == block->len ? KB_H2_METADATA_ENDS : 0;
    (void)kb_buf_peek(block, frame->payload, len);
    kb_buf_consume(block, len);
    metadata->behind = body;
    session->held += len;
    kb_list_push_back(&metadata->waiting, &frame->link);
}

bool kb_h2_metadata_queue(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata,
                          struct kb_buf *block, size_t body)
{
    if (session->held + block->len > KB_H2_METADATA_HELD_MAX) {
        kb_buf_consume(block, block->len);
        return false;
    }
    while (block->len > 0) {
        frame_queue(session, metadata, block, body);
    }
    return true;
}

bool kb_h2_metadata_next(const struct kb_h2_metadata *metadata, size_t *body)
{
    if (kb_list_empty(&metadata->waiting)) {
        return false;
    }
    *body = KB_LIST_ENTRY(metadata->waiting.next, struct metadata_frame, link)->behind;
    return true;
}

void kb_h2_metadata_due(struct kb_h2_metadata_session *session, struct kb_h2_metadata *metadata,
                        nghttp2_session *nghttp2, int32_t stream_id, size_t body)
{
    while (!kb_list_empty(&metadata->waiting)) {
        struct metadata_frame *frame =
            KB_LIST_ENTRY(metadata->waiting.next, struct metadata_frame, link);

        KB_ASSERT(body <= frame->behind);
        frame->behind -= body;
        metadata->behind -= body;
        body = 0;
        if (frame->behind > 0) {
            return;
        }
        kb_list_unlink(&frame->link);
        kb_list_push_back(&session->handed, &frame->link);
        if (nghttp2_submit_extension(nghttp2, KB_H2_METADATA, frame->flags, stream_id, frame) !=
            0) {
            frame_free(session, frame);
        }
    }
}

ssize_t kb_h2_metadata_pack(struct kb_h2_metadata_session *session, uint8_t *to, size_t room,
                            const nghttp2_frame *frame, bool open)
{
    struct metadata_frame *metadata = frame->ext.payload;
    ssize_t len = NGHTTP2_ERR_CANCEL;

    if (open && metadata->len <= room) {
        memcpy(to, metadata->payload, metadata->len);
        len = (ssize_t)metadata->len;
    }
    frame_free(session, metadata);
    return len;
}
