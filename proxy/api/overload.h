/* SPDX-License-Identifier: Apache-2.0 */
/* How overloaded the process is, as every thread sees it: one number for each overload action and
 * load-shed point. The main thread writes them (proxy/server/overload.c), workers read them where
 * they would take on work. */
#pragma once

#include "base/rand.h"
#include "base/worker.h"

struct kb_stat_named;

enum kb_overload_action { /* envoy.overload_actions.* */
                          KB_OVERLOAD_STOP_ACCEPTING_REQUESTS,
                          KB_OVERLOAD_DISABLE_HTTP_KEEPALIVE,
                          KB_OVERLOAD_STOP_ACCEPTING_CONNECTIONS,
                          KB_OVERLOAD_REJECT_INCOMING_CONNECTIONS,
                          KB_OVERLOAD_SHRINK_HEAP,
                          KB_OVERLOAD_REDUCE_TIMEOUTS,
                          KB_OVERLOAD_RESET_HIGH_MEMORY_STREAM,
                          /* envoy.load_shed_points.* */
                          KB_OVERLOAD_SHED_TCP_LISTENER_ACCEPT,
                          KB_OVERLOAD_SHED_HCM_DECODE_HEADERS,
                          KB_OVERLOAD_SHED_HCM_CODEC,
                          KB_OVERLOAD_SHED_HTTP1_ABORT,
                          KB_OVERLOAD_SHED_HTTP2_GO_AWAY,
                          KB_OVERLOAD_SHED_HTTP2_GO_AWAY_AND_CLOSE,
                          KB_OVERLOAD_SHED_HTTP_FILTER_CHECK,
                          KB_OVERLOAD_SHED_POOL_CONNECTION,
                          KB_OVERLOAD_SHED_TCP_PROXY_DATA,
                          KB_OVERLOAD_SHED_TCP_PROXY_CONNECT,
                          KB_OVERLOAD_COUNT
};
#define KB_OVERLOAD_SHED_FIRST KB_OVERLOAD_SHED_TCP_LISTENER_ACCEPT

#define KB_OVERLOAD_SATURATED UINT32_MAX

enum kb_overload_timer {
    KB_OVERLOAD_TIMER_CONNECTION_IDLE, /* HTTP_DOWNSTREAM_CONNECTION_IDLE */
    KB_OVERLOAD_TIMER_STREAM_IDLE,
    KB_OVERLOAD_TIMER_TRANSPORT_SOCKET_CONNECT,
    KB_OVERLOAD_TIMER_CONNECTION_MAX,
    KB_OVERLOAD_TIMER_STREAM_FLUSH,
    KB_OVERLOAD_TIMER_COUNT
};

struct kb_overload_state {
    uint32_t any;                      /* some value is not 0 */
    uint32_t value[KB_OVERLOAD_COUNT]; /* 0: as ever, to KB_OVERLOAD_SATURATED */
    /* What follows does not change once the workers run. */
    uint64_t max_connections; /* downstream, of the process; 0: no limit */
    struct kb_stat_named *shed_counts[KB_OVERLOAD_COUNT]; /* NULL: not of a load-shed point */
    struct {
        bool scaled;
        bool by_share;
        uint64_t min; /* milliseconds, or parts of a million of the whole */
    } timers[KB_OVERLOAD_TIMER_COUNT];
};

/* For those that the overload manager does not concern. */
extern const struct kb_overload_state kb_overload_never;

KB_INLINE uint32_t kb_overload_value(const struct kb_overload_state *state,
                                     enum kb_overload_action action)
{
    return __atomic_load_n(&state->value[action], __ATOMIC_RELAXED);
}

/* Whether there is anything to ask below. */
KB_INLINE bool kb_overload_any(const struct kb_overload_state *state)
{
    return KB_UNLIKELY(__atomic_load_n(&state->any, __ATOMIC_RELAXED) != 0);
}

/* Whether this is one of the share of cases that the action takes. */
KB_INLINE bool kb_overload_draw(const struct kb_overload_state *state,
                                enum kb_overload_action action, struct kb_worker *worker)
{
    uint32_t value = kb_overload_value(state, action);

    return value != 0 &&
           (value == KB_OVERLOAD_SATURATED || (uint32_t)(kb_rand_u64(&worker->rand) >> 32) < value);
}

/* The same for a load-shed point, which counts what it takes. Implemented in proxy/stats. */
bool kb_overload_shed(const struct kb_overload_state *state, enum kb_overload_action point,
                      struct kb_worker *worker);

/* How long a timer of this kind runs now that is set to whole_ms. */
uint64_t kb_overload_timeout_slow(const struct kb_overload_state *state,
                                  enum kb_overload_timer timer, uint64_t whole_ms);

KB_INLINE uint64_t kb_overload_timeout(const struct kb_overload_state *state,
                                       enum kb_overload_timer timer, uint64_t whole_ms)
{
    return kb_overload_any(state) ? kb_overload_timeout_slow(state, timer, whole_ms) : whole_ms;
}
