/* SPDX-License-Identifier: Apache-2.0 */
/* One timer per thread. A timer that fires late by the miss time counts a miss, so that a busy or
 * blocked loop shows; the main thread counts and names workers that have not come at all for the
 * megamiss time. */
#include "proxy/server/watchdog.h"

#include <execinfo.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/api/stats.h"
#include "proxy/server/thread_stack.h"

#define NAME_MAX_BYTES 32

struct watched {
    struct kb_timer timer;
    struct kb_watchdog *watchdog;
    struct kb_worker *worker;
    struct kb_stat_group *group; /* "server.worker_0." */
    char name[NAME_MAX_BYTES];
    uint64_t miss_ms, megamiss_ms;
    uint64_t due_ms;
    uint64_t touched_ns;        /* atomic: written by the thread, read by main */
    bool allows_stack;          /* the thread's: it may be asked for its stack */
    bool stack_asked;           /* main's */
    bool stuck;                 /* main's: the megamiss was counted */
} __attribute__((aligned(64))); /* no line is shared by two threads that write */

struct kb_watchdog {
    struct kb_server_context *server;
    struct kb_stat_group *main_stats;    /* "main_thread." */
    struct kb_stat_group *workers_stats; /* "workers." */
    uint32_t count;
    struct watched watched[]; /* the workers, then main */
};

static struct kb_stat_group *shared_group(const struct watched *watched)
{
    bool is_main = watched->worker == watched->watchdog->server->main;

    return is_main ? watched->watchdog->main_stats : watched->watchdog->workers_stats;
}

/* Counts in the thread's own group and in the one of its kind, in the cells of the thread that
 * counts. */
static void count(const struct watched *watched, const struct kb_worker *counting, unsigned id)
{
    kb_stat_inc(kb_stat_group_block(watched->group, counting->index), id);
    kb_stat_inc(kb_stat_group_block(shared_group(watched), counting->index), id);
}

/* What the stuck thread answered, a line for each frame: for addr2line or a debugger. */
static void stack_log(struct watched *watched)
{
    void *frames[KB_THREAD_STACK_MAX];
    int count = watched->stack_asked ? kb_thread_stack_take(frames) : 0;
    char **texts = count > 0 ? backtrace_symbols(frames, count) : NULL;

    if (count > 0) {
        watched->stack_asked = false;
    }
    for (int i = 0; texts != NULL && i < count; i++) {
        KB_LOG(MAIN, WARNING, "%s is at #%d: %s", watched->name, i, texts[i]);
    }
    free(texts);
}

static void workers_check(struct kb_watchdog *watchdog)
{
    uint64_t now_ns = kb_clock_mono_ns();

    for (uint32_t i = 0; i + 1 < watchdog->count; i++) {
        struct watched *watched = &watchdog->watched[i];
        uint64_t touched_ns = __atomic_load_n(&watched->touched_ns, __ATOMIC_RELAXED);
        uint64_t age_ms = now_ns > touched_ns ? (now_ns - touched_ns) / 1000000 : 0;

        stack_log(watched);
        if (!watched->worker->started || touched_ns == 0 ||
            age_ms < watched->miss_ms + watched->megamiss_ms) {
            watched->stuck = false;
        } else if (!watched->stuck) {
            watched->stuck = true;
            count(watched, watchdog->server->main, KB_STAT_WATCHDOG_WATCHDOG_MEGA_MISS);
            KB_LOG(MAIN, WARNING, "%s has not handled an event for %llu ms", watched->name,
                   (unsigned long long)age_ms);
            watched->stack_asked = kb_thread_stack_ask(watched->worker->thread);
        }
    }
}

static void touch(struct kb_timer *timer)
{
    struct watched *watched = KB_CONTAINER_OF(timer, struct watched, timer);
    struct kb_loop *loop = &watched->worker->loop;
    bool is_main = watched->worker == watched->watchdog->server->main;
    uint64_t now_ms = kb_loop_now_ms(loop);
    uint64_t late_ms = now_ms > watched->due_ms ? now_ms - watched->due_ms : 0;

    if (!watched->allows_stack) {
        watched->allows_stack = true;
        kb_thread_stack_allow();
    }
    __atomic_store_n(&watched->touched_ns, kb_loop_now_ns(loop), __ATOMIC_RELAXED);
    if (late_ms >= watched->miss_ms) {
        count(watched, watched->worker, KB_STAT_WATCHDOG_WATCHDOG_MISS);
    }
    if (is_main) {
        if (late_ms >= watched->megamiss_ms) {
            count(watched, watched->worker, KB_STAT_WATCHDOG_WATCHDOG_MEGA_MISS);
        }
        workers_check(watched->watchdog);
    }
    watched->due_ms = now_ms + watched->miss_ms;
    kb_loop_timer_arm(loop, timer, watched->miss_ms);
}

static uint64_t duration_ms(const Google__Protobuf__Duration *duration, uint64_t otherwise)
{
    if (duration == NULL || duration->seconds < 0) {
        return otherwise;
    }
    /* A period of 0 would spin; a year is never reached. */
    return KB_MAX((uint64_t)KB_MIN(duration->seconds, 31536000) * 1000 +
                      (uint64_t)KB_MAX(duration->nanos, 0) / 1000000,
                  (uint64_t)1);
}

static void watched_init(struct watched *watched, struct kb_watchdog *watchdog,
                         struct kb_worker *worker,
                         const Envoy__Config__Bootstrap__V3__Watchdog *message)
{
    struct kb_server_context *server = watchdog->server;
    char prefix[NAME_MAX_BYTES + 16];

    watched->watchdog = watchdog;
    watched->worker = worker;
    watched->miss_ms =
        duration_ms(message != NULL ? message->miss_timeout : NULL, KB_WATCHDOG_MISS_MS);
    watched->megamiss_ms =
        duration_ms(message != NULL ? message->megamiss_timeout : NULL, KB_WATCHDOG_MEGAMISS_MS);
    if (worker == server->main) {
        snprintf(watched->name, sizeof(watched->name), "main_thread");
    } else {
        snprintf(watched->name, sizeof(watched->name), "worker_%u", worker->index);
    }
    snprintf(prefix, sizeof(prefix), "server.%s.", watched->name);
    watched->group =
        kb_stat_group_create(server->stats, kb_str_from_cstr(prefix), &kb_stat_schema_watchdog);
    kb_timer_init(&watched->timer, touch);
    watched->due_ms = kb_loop_now_ms(&worker->loop) + watched->miss_ms;
    kb_loop_timer_arm(&worker->loop, &watched->timer, watched->miss_ms);
}

struct kb_watchdog *kb_watchdog_create(struct kb_server_context *server,
                                       const Envoy__Config__Bootstrap__V3__Watchdogs *message)
{
    uint32_t total = server->worker_count + 1;
    size_t size = sizeof(struct kb_watchdog) + total * sizeof(struct watched);
    struct kb_watchdog *watchdog = aligned_alloc(64, (size + 63) / 64 * 64);

    KB_ASSERT(watchdog != NULL);
    memset(watchdog, 0, size);
    watchdog->server = server;
    watchdog->count = total;
    kb_thread_stack_install();
    watchdog->main_stats =
        kb_stat_group_create(server->stats, KB_STR("main_thread."), &kb_stat_schema_watchdog);
    watchdog->workers_stats =
        kb_stat_group_create(server->stats, KB_STR("workers."), &kb_stat_schema_watchdog);
    for (uint32_t i = 0; i < server->worker_count; i++) {
        watched_init(&watchdog->watched[i], watchdog, &server->workers[i],
                     message != NULL ? message->worker_watchdog : NULL);
    }
    watched_init(&watchdog->watched[total - 1], watchdog, server->main,
                 message != NULL ? message->main_thread_watchdog : NULL);
    return watchdog;
}

void kb_watchdog_destroy(struct kb_watchdog *watchdog)
{
    if (watchdog == NULL) {
        return;
    }
    for (uint32_t i = 0; i < watchdog->count; i++) {
        struct watched *watched = &watchdog->watched[i];

        kb_loop_timer_cancel(&watched->worker->loop, &watched->timer);
        kb_stat_group_destroy(watched->group);
    }
    kb_stat_group_destroy(watchdog->main_stats);
    kb_stat_group_destroy(watchdog->workers_stats);
    free(watchdog);
}
