/* SPDX-License-Identifier: Apache-2.0 */
/* Event loop: readiness of descriptors, timers, work posted from other threads, and deferred work
 * that runs when the event that caused it is done. One per thread. libuv below; nothing above base/
 * sees libuv. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <uv.h>

#include "base/err.h"
#include "base/list.h"
#include "base/obj.h"
#include "base/timer.h"

#define KB_IO_READ   1u
#define KB_IO_WRITE  2u
#define KB_IO_ERROR  4u /* only reported: the descriptor has an error pending */
#define KB_IO_HANGUP 8u /* the peer has ended its side, whatever is still to be read */

struct kb_io;
struct kb_loop;
typedef void (*kb_io_cb)(struct kb_io *io, unsigned events);
typedef void (*kb_io_closed_cb)(struct kb_io *io);

/* Watches one descriptor. Embedded in its owner; its memory must stay until the closed callback. */
struct kb_io {
    uv_poll_t poll;
    struct kb_loop *loop;
    kb_io_cb cb;
    kb_io_closed_cb closed;
    int fd;           /* -1 when closed */
    unsigned watched; /* KB_IO_READ | KB_IO_WRITE | KB_IO_HANGUP */
};

/* Runs once, after the event being handled or at the end of the round, in the order queued. */
struct kb_deferred {
    struct kb_list link;
    void (*cb)(struct kb_deferred *deferred);
};

typedef void (*kb_post_cb)(void *arg);

struct kb_loop {
    KB_OBJ;
    uv_loop_t uv;
    uv_timer_t uv_timer;
    uv_async_t uv_async;
    uv_prepare_t uv_prepare;
    struct kb_timer_wheel wheel;
    uint64_t uv_timer_at_ms; /* when the uv timer fires; UINT64_MAX: not started */
    uint64_t now_ns;         /* monotonic, read once per event */
    uint64_t wall_offset_ns; /* wall clock = now_ns + this; refreshed every second */
    struct kb_list deferred;
    struct kb_list late;
    unsigned late_count; /* queued since they ran; some may be cancelled */
    pthread_mutex_t posts_lock;
    struct kb_post *posts_first; /* under posts_lock */
    struct kb_post **posts_last;
    bool stopping;
};
KB_OBJ_MAGIC(kb_loop, 0x4c4f4f50);

/* KB_EIO when the kernel gives no descriptors. */
int kb_loop_init(struct kb_loop *loop) KB_MUST_USE;
/* Every io must have been closed. Runs the loop until all close callbacks were called. */
void kb_loop_dispose(struct kb_loop *loop);
/* Handles events until kb_loop_stop. */
void kb_loop_run(struct kb_loop *loop);
/* Handles what is ready now, waiting at most for the first event when `wait`; for tests. */
void kb_loop_run_once(struct kb_loop *loop, bool wait);
/* Ends kb_loop_run after the present event. From the loop's own thread. */
void kb_loop_stop(struct kb_loop *loop);

/* Calls cb(arg) on the loop's thread. From any thread. */
void kb_loop_post(struct kb_loop *loop, kb_post_cb cb, void *arg);

/* Calls deferred->cb after the present event. Harmless when queued already. From the loop's thread.
 */
KB_INLINE void kb_loop_defer(struct kb_loop *loop, struct kb_deferred *deferred)
{
    if (!kb_list_linked(&deferred->link)) {
        kb_list_push_back(&loop->deferred, &deferred->link);
    }
}

/* Calls deferred->cb before the loop waits again, or after a bounded number of others was queued.
 * For writing to sockets: that of many events in one go keeps each kind of code in the caches. */
void kb_loop_defer_late(struct kb_loop *loop, struct kb_deferred *deferred);

KB_INLINE void kb_deferred_init(struct kb_deferred *deferred, void (*cb)(struct kb_deferred *))
{
    deferred->link.next = NULL;
    deferred->link.prev = NULL;
    deferred->cb = cb;
}

KB_INLINE bool kb_deferred_queued(const struct kb_deferred *deferred)
{
    return kb_list_linked(&deferred->link);
}

/* Forgets it when queued. */
KB_INLINE void kb_deferred_cancel(struct kb_deferred *deferred)
{
    kb_list_unlink(&deferred->link);
}

/* Cached monotonic time of the present event. */
KB_INLINE uint64_t kb_loop_now_ns(const struct kb_loop *loop)
{
    return loop->now_ns;
}

KB_INLINE uint64_t kb_loop_now_ms(const struct kb_loop *loop)
{
    return loop->now_ns / 1000000;
}

/* Cached wall clock of the present event, ns since 1970. */
KB_INLINE uint64_t kb_loop_wall_ns(const struct kb_loop *loop)
{
    return loop->now_ns + loop->wall_offset_ns;
}

/* Arms for `delay_ms` after the present event; 0 means the next round of the loop. */
void kb_loop_timer_arm(struct kb_loop *loop, struct kb_timer *timer, uint64_t delay_ms);
/* Harmless when not armed. */
KB_INLINE void kb_loop_timer_cancel(struct kb_loop *loop, struct kb_timer *timer)
{
    if (kb_timer_armed(timer)) {
        kb_timer_wheel_cancel(&loop->wheel, timer);
    }
}

/* Starts watching `fd` (non-blocking) for nothing yet; io owns fd from now on. On error the fd
 * still belongs to the caller. */
int kb_io_open(struct kb_loop *loop, struct kb_io *io, int fd, kb_io_cb cb) KB_MUST_USE;
/* Changes what is watched: KB_IO_READ, KB_IO_WRITE, both or 0. */
void kb_io_watch(struct kb_io *io, unsigned events);
/* Stops watching and closes the fd at once; `closed` is called later, when the memory may go. */
void kb_io_close(struct kb_io *io, kb_io_closed_cb closed);

/* A signal handler that runs on the loop. Memory is the caller's and lives as long as the loop. */
struct kb_signal {
    uv_signal_t uv;
    void (*cb)(struct kb_signal *signal, int number);
};
/* Calls cb on the loop whenever the process gets the signal. KB_EIO when it cannot be watched. */
int kb_loop_signal_open(struct kb_loop *loop, struct kb_signal *signal, int number,
                        void (*cb)(struct kb_signal *signal, int number)) KB_MUST_USE;
