/* SPDX-License-Identifier: Apache-2.0 */
/* Byte queues made of reference-counted slices. A slice is filled by one recv, parsed in place, and
 * handed on by reference; small pieces are copied to the end of the queue instead. Slices come from
 * the worker and go back to it when the last byte was sent, so that an idle connection owns none.
 * Each queue has a high watermark, given at init: appending never fails, the owner stops its source
 * when kb_buf_above_high() says so. One worker only. */
#pragma once

#include <stdbool.h>
#include <sys/uio.h>

#include "base/pool.h"
#include "base/str.h"

#define KB_SLICE_BYTES       16384 /* one recv; a head of ordinary size; 4 pages */
#define KB_SLICE_SMALL_BYTES 512   /* what stands between pieces that are passed by reference */
#define KB_SLICE_COPY_MAX    2048  /* up to here a copy is cheaper than a further iovec */
#define KB_BUF_IOV_MAX       16

/* Where a worker's slices come from. */
struct kb_slice_source {
    struct kb_pool slices;       /* of KB_SLICE_BYTES */
    struct kb_pool small_slices; /* of KB_SLICE_SMALL_BYTES */
    struct kb_pool segments;
    uint64_t bytes_in_use; /* payload room of all slices that are referenced somewhere */
};

struct kb_slice {
    struct kb_slice_source *source;
    uint32_t refs;
    uint32_t cap;  /* payload room */
    uint32_t used; /* bytes written so far */
    char bytes[];
};

struct kb_segment {
    struct kb_segment *next;
    struct kb_slice *slice;
    uint32_t from; /* offset of the first byte */
    uint32_t to;   /* offset after the last */
};

struct kb_buf {
    struct kb_segment *first;
    struct kb_segment *last;
    size_t len; /* bytes */
    size_t high;
    struct kb_slice_source *source;
};

/* On its worker's storage; keeps at most idle_max slices for reuse. */
void kb_slice_source_init(struct kb_slice_source *source, size_t idle_max);
/* When every slice was given back. */
void kb_slice_source_dispose(struct kb_slice_source *source);

/* A slice with one reference and no bytes. `room` up to KB_SLICE_BYTES gives the ordinary size;
 * more comes from the heap. Never NULL. */
struct kb_slice *kb_slice_acquire(struct kb_slice_source *source, size_t room);
/* Gives up the last reference: see kb_slice_unref. */
void kb_slice_release(struct kb_slice *slice);

KB_INLINE struct kb_slice *kb_slice_ref(struct kb_slice *slice)
{
    slice->refs++;
    return slice;
}

/* NULL is allowed. */
KB_INLINE void kb_slice_unref(struct kb_slice *slice)
{
    if (slice != NULL && --slice->refs == 0) {
        kb_slice_release(slice);
    }
}

/* An empty queue. `high` is the high watermark in bytes; 0: none. */
void kb_buf_init(struct kb_buf *buf, struct kb_slice_source *source, size_t high);
/* Drops all bytes. The queue is usable afterwards. */
void kb_buf_dispose(struct kb_buf *buf);

KB_INLINE bool kb_buf_above_high(const struct kb_buf *buf)
{
    return buf->high > 0 && buf->len > buf->high;
}

/* True when at or below half of the high watermark. */
KB_INLINE bool kb_buf_below_low(const struct kb_buf *buf)
{
    return buf->len <= buf->high / 2;
}

/* Copies bytes to the end. */
void kb_buf_append(struct kb_buf *buf, const void *bytes, size_t len);
/* Appends [from, from+len) of a slice, by reference or, when it is short and not the first, by
 * copy. */
void kb_buf_append_slice(struct kb_buf *buf, struct kb_slice *slice, size_t from, size_t len);
/* Moves all bytes of src to the end of dst; src is empty afterwards. */
void kb_buf_move(struct kb_buf *dst, struct kb_buf *src);
/* Copies the bytes into full slices when they hold more than a quarter more than their number, and
 * a slice: for a queue that has to wait for its peer. */
void kb_buf_pack(struct kb_buf *buf);
/* Moves the first `len` bytes. */
void kb_buf_move_first(struct kb_buf *dst, struct kb_buf *src, size_t len);

/* Contiguous room for at least `len` bytes at the end; write there, then commit what was written.
 * Nothing else may touch the queue in between. len <= 64 MiB. */
char *kb_buf_reserve(struct kb_buf *buf, size_t len);
void kb_buf_commit(struct kb_buf *buf, size_t len);

/* The first contiguous piece; p NULL when empty. */
struct kb_str kb_buf_first(const struct kb_buf *buf);
/* Makes the first min(len, buf->len) bytes contiguous and returns the first piece. */
struct kb_str kb_buf_pullup(struct kb_buf *buf, size_t len);
/* Drops the first `len` bytes; len <= buf->len. */
void kb_buf_consume(struct kb_buf *buf, size_t len);
/* Fills iov with the first pieces; returns how many. */
int kb_buf_iov(const struct kb_buf *buf, struct iovec *iov, int max);
/* Copies out up to `len` bytes from the front without dropping them. */
size_t kb_buf_peek(const struct kb_buf *buf, void *out, size_t len);

/* Room to receive into: behind the last byte when its slice has KB_SLICE_BYTES / 4 left and nobody
 * else refers to it, so that a head that comes in pieces stays contiguous; otherwise in a new
 * slice. Commit with kb_buf_commit; an uncommitted new slice stays for the next call and is dropped
 * by kb_buf_trim. */
char *kb_buf_read_room(struct kb_buf *buf, size_t *room);
/* Gives an empty trailing slice back to the worker. */
void kb_buf_trim(struct kb_buf *buf);
