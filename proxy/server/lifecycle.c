/* SPDX-License-Identifier: Apache-2.0 */
/* State, signals, draining and the end of the process. The words of the log lines are Envoy's. */
#include "proxy/server/lifecycle.h"

#include <signal.h>

#include "base/log.h"

static void drain_over(struct kb_timer *timer)
{
    struct kb_drain *drain = KB_CONTAINER_OF(timer, struct kb_drain, timer);
    struct kb_lifecycle *lifecycle = drain->lifecycle;

    if (drain->stop_listeners) {
        KB_LOG(MAIN, INFO, "drain time is over: closing %s listeners",
               drain->inbound_only ? "inbound" : "all");
        lifecycle->ops->stop_listeners(lifecycle->ops_arg, drain->inbound_only);
    }
}

static void drain_init(struct kb_drain *drain, struct kb_lifecycle *lifecycle, bool inbound_only)
{
    kb_timer_init(&drain->timer, drain_over);
    drain->lifecycle = lifecycle;
    drain->inbound_only = inbound_only;
}

void kb_lifecycle_init(struct kb_lifecycle *lifecycle, struct kb_server_context *server,
                       const struct kb_lifecycle_ops *ops, void *ops_arg)
{
    memset(lifecycle, 0, sizeof(*lifecycle));
    KB_OBJ_SET(lifecycle, kb_lifecycle);
    lifecycle->server = server;
    lifecycle->ops = ops;
    lifecycle->ops_arg = ops_arg;
    drain_init(&lifecycle->drain_all, lifecycle, false);
    drain_init(&lifecycle->drain_inbound, lifecycle, true);
}

void kb_lifecycle_dispose(struct kb_lifecycle *lifecycle)
{
    kb_loop_timer_cancel(&lifecycle->server->main->loop, &lifecycle->drain_all.timer);
    kb_loop_timer_cancel(&lifecycle->server->main->loop, &lifecycle->drain_inbound.timer);
    KB_OBJ_CLEAR(lifecycle);
}

static struct kb_lifecycle *lifecycle_of(struct kb_signal *signal, size_t index)
{
    struct kb_lifecycle *lifecycle =
        KB_CONTAINER_OF(signal - index, struct kb_lifecycle, signals[0]);

    KB_ASSERT(lifecycle->kb_magic == (uint32_t)KB_MAGIC_kb_lifecycle);
    return lifecycle;
}

/* The places in `signals`. */
enum { SIGNAL_TERM, SIGNAL_INT, SIGNAL_USR1, SIGNAL_HUP };

static void caught_term(struct kb_signal *signal, int number)
{
    struct kb_lifecycle *lifecycle = lifecycle_of(signal, SIGNAL_TERM);

    (void)number;
    if (!lifecycle->shutting_down) {
        KB_LOG(MAIN, WARNING, "caught ENVOY_SIGTERM");
    }
    kb_lifecycle_shut_down(lifecycle);
}

static void caught_int(struct kb_signal *signal, int number)
{
    struct kb_lifecycle *lifecycle = lifecycle_of(signal, SIGNAL_INT);

    (void)number;
    if (!lifecycle->shutting_down) {
        KB_LOG(MAIN, WARNING, "caught SIGINT");
    }
    kb_lifecycle_shut_down(lifecycle);
}

static void caught_usr1(struct kb_signal *signal, int number)
{
    struct kb_lifecycle *lifecycle = lifecycle_of(signal, SIGNAL_USR1);

    (void)number;
    KB_LOG(MAIN, INFO, "caught SIGUSR1. Reopening access logs.");
    lifecycle->ops->reopen_logs(lifecycle->ops_arg);
}

static void caught_hup(struct kb_signal *signal, int number)
{
    (void)signal;
    (void)number;
    KB_LOG(
        MAIN, WARNING,
        "caught and eating SIGHUP. There is no hot restart: stop the process and start another.");
}

int kb_lifecycle_open_signals(struct kb_lifecycle *lifecycle)
{
    static const struct {
        int number;
        void (*cb)(struct kb_signal *signal, int number);
    } handlers[KB_LIFECYCLE_SIGNALS] = {
        [SIGNAL_TERM] = {SIGTERM, caught_term},
        [SIGNAL_INT] = {SIGINT, caught_int},
        [SIGNAL_USR1] = {SIGUSR1, caught_usr1},
        [SIGNAL_HUP] = {SIGHUP, caught_hup},
    };

    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < KB_LIFECYCLE_SIGNALS; i++) {
        KB_TRY(kb_loop_signal_open(&lifecycle->server->main->loop, &lifecycle->signals[i],
                                   handlers[i].number, handlers[i].cb));
    }
    return 0;
}

void kb_lifecycle_set_stage(struct kb_lifecycle *lifecycle, enum kb_init_stage stage)
{
    KB_ASSERT((unsigned)stage == (unsigned)lifecycle->stage + 1);
    lifecycle->stage = stage;
}

enum kb_server_state kb_lifecycle_state(const struct kb_lifecycle *lifecycle)
{
    switch (lifecycle->stage) {
    case KB_INIT_NOT_STARTED:
        return KB_SERVER_PRE_INITIALIZING;
    case KB_INIT_STARTED:
        return KB_SERVER_INITIALIZING;
    case KB_INIT_DONE:
        break;
    }
    return lifecycle->server->health_check_failed ? KB_SERVER_DRAINING : KB_SERVER_LIVE;
}

const char *kb_server_state_name(enum kb_server_state state)
{
    switch (state) {
    case KB_SERVER_LIVE:
        return "LIVE";
    case KB_SERVER_DRAINING:
        return "DRAINING";
    case KB_SERVER_PRE_INITIALIZING:
        return "PRE_INITIALIZING";
    case KB_SERVER_INITIALIZING:
        return "INITIALIZING";
    }
    return "";
}

void kb_lifecycle_fail_health_check(struct kb_lifecycle *lifecycle, bool fail)
{
    __atomic_store_n(&lifecycle->server->health_check_failed, fail, __ATOMIC_RELAXED);
}

void kb_lifecycle_drain(struct kb_lifecycle *lifecycle, bool inbound_only, bool graceful,
                        bool skip_exit)
{
    struct kb_server_context *server = lifecycle->server;
    struct kb_drain *drain = inbound_only ? &lifecycle->drain_inbound : &lifecycle->drain_all;
    uint64_t drain_ms = server->drain_time_s * 1000;
    uint64_t deadline_ms = kb_loop_now_ms(&server->main->loop) + drain_ms;

    if (!graceful && !skip_exit) {
        lifecycle->ops->stop_listeners(lifecycle->ops_arg, inbound_only);
        return;
    }
    /* A drain of everything includes the inbound listeners. */
    if (drain->started || lifecycle->drain_all.started) {
        return;
    }
    drain->started = true;
    drain->stop_listeners = !skip_exit;
    if (inbound_only) {
        __atomic_store_n(&server->drain_inbound_deadline_ms, deadline_ms, __ATOMIC_RELAXED);
        __atomic_store_n(&server->draining_inbound, true, __ATOMIC_RELEASE);
    } else {
        __atomic_store_n(&server->drain_deadline_ms, deadline_ms, __ATOMIC_RELAXED);
        __atomic_store_n(&server->draining, true, __ATOMIC_RELEASE);
    }
    kb_loop_timer_arm(&server->main->loop, &drain->timer, drain_ms);
}

void kb_lifecycle_shut_down(struct kb_lifecycle *lifecycle)
{
    if (lifecycle->shutting_down) {
        return;
    }
    lifecycle->shutting_down = true;
    KB_LOG(MAIN, INFO, "shutting down server instance");
    kb_loop_stop(&lifecycle->server->main->loop);
}
