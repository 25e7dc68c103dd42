/* SPDX-License-Identifier: Apache-2.0 */
/* Event loop over libuv. uv_poll only tells readiness; all reading and writing is done by the
 * owners on their own descriptors, so that no request object is needed per operation. */
#include "base/loop.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

struct kb_post {
    struct kb_post *next;
    kb_post_cb cb;
    void *arg;
};

/* Deferred work may queue more of it; this many rounds later that waits for the next event. */
#define DEFERRED_ROUNDS 1000
/* So many late ones are run at once, whatever else is ready: the first shall not wait long. */
#define LATE_MAX        32
#define WALL_REFRESH_NS UINT64_C(1000000000)

static void time_update(struct kb_loop *loop)
{
    uint64_t before = loop->now_ns;

    loop->now_ns = kb_clock_mono_ns();
    if (KB_UNLIKELY(before / WALL_REFRESH_NS != loop->now_ns / WALL_REFRESH_NS)) {
        loop->wall_offset_ns = kb_clock_wall_ns() - loop->now_ns;
    }
}

/* Runs what is queued now; what that queues waits for the next call. */
static void queue_run(struct kb_list *queue)
{
    struct kb_list end;
    struct kb_list *link;

    kb_list_push_back(queue, &end);
    while ((link = kb_list_pop_front(queue)) != &end) {
        struct kb_deferred *deferred = KB_LIST_ENTRY(link, struct kb_deferred, link);

        deferred->cb(deferred);
    }
}

/* All that is queued runs within its event, however much it is (thousands of connections end in one
 * when a listener does): what it refers to may be gone with the next. */
static void deferred_run(struct kb_loop *loop)
{
    for (unsigned i = 0; i < DEFERRED_ROUNDS; i++) {
        if (kb_list_empty(&loop->deferred)) {
            return;
        }
        queue_run(&loop->deferred);
    }
    uv_async_send(&loop->uv_async);
}

static void late_run(struct kb_loop *loop)
{
    for (unsigned i = 0; i < DEFERRED_ROUNDS; i++) {
        if (kb_list_empty(&loop->late)) {
            return;
        }
        loop->late_count = 0;
        queue_run(&loop->late);
        deferred_run(loop);
    }
    uv_async_send(&loop->uv_async);
}

/* What every callback of libuv ends with. */
static void event_end(struct kb_loop *loop)
{
    deferred_run(loop);
    if (KB_UNLIKELY(loop->late_count >= LATE_MAX)) {
        late_run(loop);
    }
}

/* All that was ready is handled; the loop is about to wait. */
static void round_end(uv_prepare_t *handle)
{
    late_run(KB_CAST(handle->data, kb_loop));
}

static void uv_timer_fired(uv_timer_t *handle);

static void uv_timer_rearm(struct kb_loop *loop)
{
    uint64_t next = kb_timer_wheel_next_ms(&loop->wheel);
    uint64_t now_ms = kb_loop_now_ms(loop);

    if (next == UINT64_MAX || next >= loop->uv_timer_at_ms) {
        return;
    }
    loop->uv_timer_at_ms = next;
    uv_timer_start(&loop->uv_timer, uv_timer_fired, next > now_ms ? next - now_ms : 0, 0);
}

static void uv_timer_fired(uv_timer_t *handle)
{
    struct kb_loop *loop = KB_CAST(handle->data, kb_loop);

    time_update(loop);
    loop->uv_timer_at_ms = UINT64_MAX;
    kb_timer_wheel_advance(&loop->wheel, kb_loop_now_ms(loop));
    event_end(loop);
    uv_timer_rearm(loop);
}

static void posts_run(uv_async_t *handle)
{
    struct kb_loop *loop = KB_CAST(handle->data, kb_loop);
    struct kb_post *post;

    time_update(loop);
    pthread_mutex_lock(&loop->posts_lock);
    post = loop->posts_first;
    loop->posts_first = NULL;
    loop->posts_last = &loop->posts_first;
    pthread_mutex_unlock(&loop->posts_lock);
    while (post != NULL) {
        struct kb_post *next = post->next;

        post->cb(post->arg);
        free(post);
        post = next;
    }
    event_end(loop);
}

int kb_loop_init(struct kb_loop *loop)
{
    memset(loop, 0, sizeof(*loop));
    KB_OBJ_SET(loop, kb_loop);
    if (uv_loop_init(&loop->uv) != 0) {
        return KB_EIO;
    }
    loop->uv.data = loop;
    uv_timer_init(&loop->uv, &loop->uv_timer);
    loop->uv_timer.data = loop;
    uv_unref((uv_handle_t *)&loop->uv_timer);
    if (uv_async_init(&loop->uv, &loop->uv_async, posts_run) != 0) {
        return KB_EIO;
    }
    loop->uv_async.data = loop;
    uv_prepare_init(&loop->uv, &loop->uv_prepare);
    loop->uv_prepare.data = loop;
    uv_prepare_start(&loop->uv_prepare, round_end);
    uv_unref((uv_handle_t *)&loop->uv_prepare);
    kb_list_init(&loop->deferred);
    kb_list_init(&loop->late);
    pthread_mutex_init(&loop->posts_lock, NULL);
    loop->posts_last = &loop->posts_first;
    loop->uv_timer_at_ms = UINT64_MAX;
    time_update(loop);
    loop->wall_offset_ns = kb_clock_wall_ns() - loop->now_ns;
    kb_timer_wheel_init(&loop->wheel, kb_loop_now_ms(loop));
    return 0;
}

static void handle_close(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

void kb_loop_dispose(struct kb_loop *loop)
{
    KB_ASSERT(loop->kb_magic == (uint32_t)KB_MAGIC_kb_loop);
    posts_run(&loop->uv_async);
    uv_walk(&loop->uv, handle_close, NULL);
    /* A kb_loop_stop that nobody waited for ends the first round at once. */
    while (uv_run(&loop->uv, UV_RUN_DEFAULT) != 0) {
    }
    late_run(loop);
    deferred_run(loop);
    KB_BUG_IF(uv_loop_close(&loop->uv) != 0);
    pthread_mutex_destroy(&loop->posts_lock);
    KB_OBJ_CLEAR(loop);
}

void kb_loop_run(struct kb_loop *loop)
{
    while (!loop->stopping) {
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    }
    late_run(loop);
}

void kb_loop_run_once(struct kb_loop *loop, bool wait)
{
    uv_run(&loop->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    late_run(loop);
}

void kb_loop_stop(struct kb_loop *loop)
{
    loop->stopping = true;
    uv_stop(&loop->uv);
}

void kb_loop_post(struct kb_loop *loop, kb_post_cb cb, void *arg)
{
    struct kb_post *post = kb_calloc(1, sizeof(*post));

    post->cb = cb;
    post->arg = arg;
    pthread_mutex_lock(&loop->posts_lock);
    *loop->posts_last = post;
    loop->posts_last = &post->next;
    pthread_mutex_unlock(&loop->posts_lock);
    uv_async_send(&loop->uv_async);
}

void kb_loop_defer_late(struct kb_loop *loop, struct kb_deferred *deferred)
{
    if (!kb_list_linked(&deferred->link)) {
        kb_list_push_back(&loop->late, &deferred->link);
        loop->late_count++;
    }
}

void kb_loop_timer_arm(struct kb_loop *loop, struct kb_timer *timer, uint64_t delay_ms)
{
    uint64_t deadline_ms = kb_loop_now_ms(loop) + delay_ms;

    kb_timer_wheel_arm(&loop->wheel, timer, deadline_ms);
    if (KB_UNLIKELY(deadline_ms < loop->uv_timer_at_ms)) {
        uv_timer_rearm(loop);
    }
}

static void poll_ready(uv_poll_t *handle, int status, int events)
{
    struct kb_io *io = KB_CONTAINER_OF(handle, struct kb_io, poll);
    struct kb_loop *loop = io->loop;
    unsigned ready = 0;

    if (status < 0) {
        /* libuv stopped the watcher; the owner learns the cause from its own read or write. */
        ready = KB_IO_ERROR | io->watched;
        io->watched = 0;
    } else {
        ready |= events & UV_READABLE ? KB_IO_READ : 0;
        ready |= events & UV_WRITABLE ? KB_IO_WRITE : 0;
        ready |= events & UV_DISCONNECT ? KB_IO_HANGUP : 0;
    }
    time_update(loop);
    io->cb(io, ready);
    event_end(loop);
}

int kb_io_open(struct kb_loop *loop, struct kb_io *io, int fd, kb_io_cb cb)
{
    memset(io, 0, sizeof(*io));
    if (uv_poll_init(&loop->uv, &io->poll, fd) != 0) {
        return KB_EIO;
    }
    io->loop = loop;
    io->fd = fd;
    io->cb = cb;
    return 0;
}

void kb_io_watch(struct kb_io *io, unsigned events)
{
    int uv_events = (events & KB_IO_READ ? UV_READABLE : 0) |
                    (events & KB_IO_WRITE ? UV_WRITABLE : 0) |
                    (events & KB_IO_HANGUP ? UV_DISCONNECT : 0);

    if (io->fd < 0 || events == io->watched) {
        return;
    }
    io->watched = events;
    if (events == 0) {
        uv_poll_stop(&io->poll);
    } else {
        uv_poll_start(&io->poll, uv_events, poll_ready);
    }
}

static void poll_closed(uv_handle_t *handle)
{
    struct kb_io *io = KB_CONTAINER_OF((uv_poll_t *)handle, struct kb_io, poll);

    if (io->closed != NULL) {
        io->closed(io);
    }
}

void kb_io_close(struct kb_io *io, kb_io_closed_cb closed)
{
    KB_ASSERT(io->fd >= 0);
    io->closed = closed;
    uv_close((uv_handle_t *)&io->poll, poll_closed);
    close(io->fd);
    io->fd = -1;
    io->watched = 0;
}

static void signal_caught(uv_signal_t *handle, int number)
{
    struct kb_signal *signal = KB_CONTAINER_OF(handle, struct kb_signal, uv);

    time_update(KB_CAST(handle->loop->data, kb_loop));
    signal->cb(signal, number);
    event_end(KB_CAST(handle->loop->data, kb_loop));
}

int kb_loop_signal_open(struct kb_loop *loop, struct kb_signal *signal, int number,
                        void (*cb)(struct kb_signal *signal, int number))
{
    memset(signal, 0, sizeof(*signal));
    signal->cb = cb;
    if (uv_signal_init(&loop->uv, &signal->uv) != 0 ||
        uv_signal_start(&signal->uv, signal_caught, number) != 0) {
        return KB_EIO;
    }
    uv_unref((uv_handle_t *)&signal->uv);
    return 0;
}
