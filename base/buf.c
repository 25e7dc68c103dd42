/* SPDX-License-Identifier: Apache-2.0 */
/* Byte queues of slices. Invariant: only the last segment may be empty (room being received into).
 */
#include "base/buf.h"

#include <stdlib.h>

#include "base/mem.h"

#define RESERVE_MAX   (64 * 1024 * 1024) /* far above the largest head that can be configured */
#define READ_ROOM_MIN (KB_SLICE_BYTES / 4)

void kb_slice_source_init(struct kb_slice_source *source, size_t idle_max)
{
    memset(source, 0, sizeof(*source));
    kb_pool_init(&source->slices, sizeof(struct kb_slice) + KB_SLICE_BYTES, idle_max);
    kb_pool_init(&source->small_slices, sizeof(struct kb_slice) + KB_SLICE_SMALL_BYTES, idle_max);
    kb_pool_init(&source->segments, sizeof(struct kb_segment), idle_max * 4);
}

void kb_slice_source_dispose(struct kb_slice_source *source)
{
    kb_pool_dispose(&source->slices);
    kb_pool_dispose(&source->small_slices);
    kb_pool_dispose(&source->segments);
}

static struct kb_slice *slice_begin(struct kb_slice_source *source, struct kb_slice *slice,
                                    size_t cap)
{
    slice->source = source;
    slice->refs = 1;
    slice->cap = (uint32_t)cap;
    slice->used = 0;
    source->bytes_in_use += cap;
    return slice;
}

struct kb_slice *kb_slice_acquire(struct kb_slice_source *source, size_t room)
{
    if (KB_LIKELY(room <= KB_SLICE_BYTES)) {
        return slice_begin(source, kb_pool_acquire(&source->slices), KB_SLICE_BYTES);
    }
    return slice_begin(source, kb_malloc(sizeof(struct kb_slice) + room), room);
}

void kb_slice_release(struct kb_slice *slice)
{
    struct kb_slice_source *source = slice->source;

    source->bytes_in_use -= slice->cap;
    if (KB_LIKELY(slice->cap == KB_SLICE_BYTES)) {
        kb_pool_release(&source->slices, slice);
    } else if (slice->cap == KB_SLICE_SMALL_BYTES) {
        kb_pool_release(&source->small_slices, slice);
    } else {
        free(slice);
    }
}

void kb_buf_init(struct kb_buf *buf, struct kb_slice_source *source, size_t high)
{
    memset(buf, 0, sizeof(*buf));
    buf->source = source;
    buf->high = high;
}

static void first_drop(struct kb_buf *buf)
{
    struct kb_segment *segment = buf->first;

    buf->first = segment->next;
    if (buf->first == NULL) {
        buf->last = NULL;
    }
    kb_slice_unref(segment->slice);
    kb_pool_release(&buf->source->segments, segment);
}

void kb_buf_dispose(struct kb_buf *buf)
{
    while (buf->first != NULL) {
        first_drop(buf);
    }
    buf->len = 0;
}

/* Appends a segment; takes over one reference of the slice. */
static void segment_push(struct kb_buf *buf, struct kb_slice *slice, size_t from, size_t to)
{
    struct kb_segment *segment = kb_pool_acquire(&buf->source->segments);

    segment->next = NULL;
    segment->slice = slice;
    segment->from = (uint32_t)from;
    segment->to = (uint32_t)to;
    if (buf->last != NULL) {
        buf->last->next = segment;
    } else {
        buf->first = segment;
    }
    buf->last = segment;
    buf->len += to - from;
}

/* Bytes that can be written behind the last byte without disturbing anybody. */
static size_t tail_room(const struct kb_buf *buf)
{
    const struct kb_segment *last = buf->last;

    if (last == NULL || last->slice->used != last->to) {
        return 0;
    }
    return last->slice->cap - last->to;
}

/* A slice behind the last one, with room for `len` bytes. Between pieces that wait by reference,
 * the framing of a body perhaps, a small one will do; where more of the kind comes it is no use. */
static void tail_push(struct kb_buf *buf, size_t len)
{
    struct kb_slice_source *source = buf->source;
    struct kb_slice *slice;

    kb_buf_trim(buf);
    if (buf->last != NULL && len <= KB_SLICE_SMALL_BYTES &&
        buf->last->slice->cap != KB_SLICE_SMALL_BYTES) {
        slice = slice_begin(source, kb_pool_acquire(&source->small_slices), KB_SLICE_SMALL_BYTES);
    } else {
        slice = kb_slice_acquire(source, len);
    }
    segment_push(buf, slice, 0, 0);
}

char *kb_buf_reserve(struct kb_buf *buf, size_t len)
{
    KB_ASSERT(len <= RESERVE_MAX);
    if (tail_room(buf) < len) {
        tail_push(buf, len);
    }
    return buf->last->slice->bytes + buf->last->to;
}

void kb_buf_commit(struct kb_buf *buf, size_t len)
{
    KB_DASSERT(buf->last != NULL && len <= tail_room(buf));
    buf->last->to += (uint32_t)len;
    buf->last->slice->used = buf->last->to;
    buf->len += len;
}

void kb_buf_append(struct kb_buf *buf, const void *bytes, size_t len)
{
    const char *at = bytes;
    size_t room = KB_MIN(len, (size_t)KB_SLICE_BYTES);

    while (len > 0) {
        size_t n = tail_room(buf);

        if (n == 0) {
            tail_push(buf, room);
            n = tail_room(buf);
        }
        n = KB_MIN(n, len);
        memcpy(buf->last->slice->bytes + buf->last->to, at, n);
        kb_buf_commit(buf, n);
        at += n;
        len -= n;
    }
}

void kb_buf_append_slice(struct kb_buf *buf, struct kb_slice *slice, size_t from, size_t len)
{
    if (len == 0) {
        return;
    }
    /* In an empty queue a copy would take a slice for itself: that saves neither memory nor work.
     */
    if (len <= KB_SLICE_COPY_MAX && (buf->last != NULL || slice->cap > KB_SLICE_BYTES)) {
        kb_buf_append(buf, slice->bytes + from, len);
        return;
    }
    kb_buf_trim(buf);
    segment_push(buf, kb_slice_ref(slice), from, from + len);
}

void kb_buf_move(struct kb_buf *dst, struct kb_buf *src)
{
    if (dst->last != NULL || dst->source != src->source) {
        kb_buf_move_first(dst, src, src->len);
        return;
    }
    dst->first = src->first;
    dst->last = src->last;
    dst->len = src->len;
    src->first = NULL;
    src->last = NULL;
    src->len = 0;
}

void kb_buf_move_first(struct kb_buf *dst, struct kb_buf *src, size_t len)
{
    KB_DASSERT(len <= src->len);
    while (len > 0) {
        struct kb_segment *segment = src->first;
        size_t n = KB_MIN(len, (size_t)(segment->to - segment->from));

        kb_buf_append_slice(dst, segment->slice, segment->from, n);
        kb_buf_consume(src, n);
        len -= n;
    }
}

/* Room of the slices that hold the queue's bytes; of one that is there in pieces, once. */
static size_t room_held(const struct kb_buf *buf)
{
    const struct kb_slice *counted = NULL;
    size_t held = 0;

    for (struct kb_segment *segment = buf->first; segment != NULL; segment = segment->next) {
        if (segment->slice->cap == KB_SLICE_SMALL_BYTES) {
            held += KB_SLICE_SMALL_BYTES;
        } else if (segment->slice != counted) {
            counted = segment->slice;
            held += counted->cap;
        }
    }
    return held;
}

void kb_buf_pack(struct kb_buf *buf)
{
    struct kb_buf packed;

    if (buf->first == buf->last || room_held(buf) <= buf->len + buf->len / 4 + KB_SLICE_BYTES) {
        return;
    }
    kb_buf_init(&packed, buf->source, buf->high);
    for (struct kb_segment *segment = buf->first; segment != NULL; segment = segment->next) {
        kb_buf_append(&packed, segment->slice->bytes + segment->from, segment->to - segment->from);
    }
    kb_buf_dispose(buf);
    *buf = packed;
}

struct kb_str kb_buf_first(const struct kb_buf *buf)
{
    const struct kb_segment *segment = buf->first;

    if (segment == NULL || segment->from == segment->to) {
        return KB_STR_NULL;
    }
    return kb_str_make(segment->slice->bytes + segment->from, segment->to - segment->from);
}

struct kb_str kb_buf_pullup(struct kb_buf *buf, size_t len)
{
    struct kb_str first = kb_buf_first(buf);
    struct kb_slice *slice;
    struct kb_segment *rest;
    struct kb_segment *last;

    len = KB_MIN(len, buf->len);
    if (KB_LIKELY(first.len >= len)) {
        return first;
    }
    /* Twice the size, so that a head that grows by small reads is not copied at every read. */
    slice = kb_slice_acquire(buf->source, KB_MAX(len * 2, KB_SLICE_BYTES));
    slice->used = (uint32_t)kb_buf_peek(buf, slice->bytes, len);
    kb_buf_consume(buf, len);
    rest = buf->first;
    last = buf->last;
    buf->first = NULL;
    buf->last = NULL;
    segment_push(buf, slice, 0, len);
    if (rest != NULL) {
        buf->last->next = rest;
        buf->last = last;
    }
    return kb_buf_first(buf);
}

void kb_buf_consume(struct kb_buf *buf, size_t len)
{
    KB_DASSERT(len <= buf->len);
    buf->len -= len;
    while (len > 0) {
        struct kb_segment *segment = buf->first;
        size_t n = segment->to - segment->from;

        if (len < n) {
            segment->from += (uint32_t)len;
            return;
        }
        len -= n;
        first_drop(buf);
    }
}

int kb_buf_iov(const struct kb_buf *buf, struct iovec *iov, int max)
{
    int n = 0;

    for (struct kb_segment *segment = buf->first; segment != NULL && n < max;
         segment = segment->next) {
        if (segment->to > segment->from) {
            iov[n].iov_base = segment->slice->bytes + segment->from;
            iov[n].iov_len = segment->to - segment->from;
            n++;
        }
    }
    return n;
}

size_t kb_buf_peek(const struct kb_buf *buf, void *out, size_t len)
{
    char *at = out;
    size_t done = 0;

    for (struct kb_segment *segment = buf->first; segment != NULL && done < len;
         segment = segment->next) {
        size_t n = KB_MIN(len - done, (size_t)(segment->to - segment->from));

        memcpy(at + done, segment->slice->bytes + segment->from, n);
        done += n;
    }
    return done;
}

char *kb_buf_read_room(struct kb_buf *buf, size_t *room)
{
    size_t tail = tail_room(buf);

    /* A sole reference: others may hold strings in front of us, never behind. */
    if (tail < READ_ROOM_MIN) {
        kb_buf_trim(buf);
        segment_push(buf, kb_slice_acquire(buf->source, KB_SLICE_BYTES), 0, 0);
        tail = KB_SLICE_BYTES;
    }
    *room = tail;
    return buf->last->slice->bytes + buf->last->to;
}

void kb_buf_trim(struct kb_buf *buf)
{
    struct kb_segment *last = buf->last;

    if (last == NULL || last->from != last->to) {
        return;
    }
    if (buf->first == last) {
        first_drop(buf);
        return;
    }
    for (struct kb_segment *segment = buf->first; segment != NULL; segment = segment->next) {
        if (segment->next == last) {
            segment->next = NULL;
            buf->last = segment;
            break;
        }
    }
    kb_slice_unref(last->slice);
    kb_pool_release(&buf->source->segments, last);
}
