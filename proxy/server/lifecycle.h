/* SPDX-License-Identifier: Apache-2.0 */
/* The life of the process: its state as /ready and /server_info tell it, the signals, draining, and
 * the end. Envoy: server.cc, drain_manager_impl.cc. Main thread only. */
#pragma once

#include "base/loop.h"
#include "proxy/api/factory_context.h"

/* The numbers are those of server.state. */
enum kb_server_state {
    KB_SERVER_LIVE,
    KB_SERVER_DRAINING,
    KB_SERVER_PRE_INITIALIZING,
    KB_SERVER_INITIALIZING,
};

enum kb_init_stage { KB_INIT_NOT_STARTED, KB_INIT_STARTED, KB_INIT_DONE };

/* What the lifecycle asks of the rest of the server. */
struct kb_lifecycle_ops {
    /* Closes listening sockets; those of inbound listeners only, or all. */
    void (*stop_listeners)(void *arg, bool inbound_only);
    /* SIGUSR1: log files are opened again. */
    void (*reopen_logs)(void *arg);
};

struct kb_lifecycle;

struct kb_drain {
    struct kb_timer timer;
    struct kb_lifecycle *lifecycle;
    bool started;
    bool stop_listeners; /* when the drain time is over */
    bool inbound_only;
};

#define KB_LIFECYCLE_SIGNALS 4

struct kb_lifecycle {
    KB_OBJ;
    struct kb_server_context *server;
    const struct kb_lifecycle_ops *ops;
    void *ops_arg;
    enum kb_init_stage stage;
    bool shutting_down;
    struct kb_drain drain_all;
    struct kb_drain drain_inbound;
    struct kb_signal signals[KB_LIFECYCLE_SIGNALS];
};
KB_OBJ_MAGIC(kb_lifecycle, 0x4c494645);

/* On caller's storage. `server` has its main worker already. */
void kb_lifecycle_init(struct kb_lifecycle *lifecycle, struct kb_server_context *server,
                       const struct kb_lifecycle_ops *ops, void *ops_arg);
/* Cancels what waits. Before the main worker is disposed. */
void kb_lifecycle_dispose(struct kb_lifecycle *lifecycle);

/* SIGTERM and SIGINT end the process at once, SIGUSR1 reopens logs, SIGHUP is ignored with a
 * warning, SIGPIPE silently; SIGUSR2 keeps killing, as in Envoy. */
int kb_lifecycle_open_signals(struct kb_lifecycle *lifecycle) KB_MUST_USE;

/* Moves on by one stage; asserts the order. */
void kb_lifecycle_set_stage(struct kb_lifecycle *lifecycle, enum kb_init_stage stage);

enum kb_server_state kb_lifecycle_state(const struct kb_lifecycle *lifecycle);
/* "LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING". */
const char *kb_server_state_name(enum kb_server_state state);

/* /healthcheck/fail and /ok: HTTP connections close after their response, /ready answers 503. */
void kb_lifecycle_fail_health_check(struct kb_lifecycle *lifecycle, bool fail);

/* /drain_listeners. Alone: the listening sockets close now. `graceful`: connections are asked to
 * close over --drain-time-s, then the sockets close. `skip_exit`: connections are asked to close,
 * and the sockets stay open. Does nothing when such a drain runs already. */
void kb_lifecycle_drain(struct kb_lifecycle *lifecycle, bool inbound_only, bool graceful,
                        bool skip_exit);

/* Leaves the main loop after the present event. Again: nothing. */
void kb_lifecycle_shut_down(struct kb_lifecycle *lifecycle);
