/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a connection should be closed because the server drains (Envoy
 * DrainManagerImpl::drainClose). Asked on workers when a response starts; proxy/server/lifecycle.c
 * sets what it reads. */
#pragma once

#include "proxy/api/factory_context.h"

/* Whether a filter chain drains, because its listener was changed or removed; main writes, workers
 * read. Lives as long as the chain. */
struct kb_drain_state {
    bool draining;        /* relaxed */
    uint64_t deadline_ms; /* kb_loop_now_ms; valid while draining */
};

/* Whether anything drains at all: asked first, because it nearly always says no. */
KB_INLINE bool kb_drain_any(const struct kb_server_context *server)
{
    return __atomic_load_n(&server->health_check_failed, __ATOMIC_RELAXED) ||
           __atomic_load_n(&server->draining, __ATOMIC_RELAXED) ||
           __atomic_load_n(&server->draining_inbound, __ATOMIC_RELAXED) ||
           __atomic_load_n(&server->filter_chains_draining, __ATOMIC_RELAXED) > 0;
}

/* With --drain-strategy immediate always, otherwise with a likelihood that grows from 0 to 1 over
 * the drain time. */
KB_INLINE bool kb_drain_due(const struct kb_server_context *server, uint64_t deadline_ms,
                            uint64_t now_ms, uint64_t random)
{
    uint64_t elapsed_s;

    if (server->drain_immediate || now_ms >= deadline_ms || server->drain_time_s == 0) {
        return true;
    }
    elapsed_s = server->drain_time_s - KB_MIN((deadline_ms - now_ms) / 1000, server->drain_time_s);
    return elapsed_s > random % server->drain_time_s;
}

/* The part of one filter chain; `state` may be NULL. */
KB_INLINE bool kb_drain_chain_close(const struct kb_server_context *server,
                                    const struct kb_drain_state *state, uint64_t now_ms,
                                    uint64_t random)
{
    return state != NULL && __atomic_load_n(&state->draining, __ATOMIC_ACQUIRE) &&
           kb_drain_due(server, state->deadline_ms, now_ms, random);
}

/* Envoy's rule: always when the health check was failed; never when nothing drains; with
 * --drain-strategy immediate always while draining; otherwise with a likelihood that grows from 0
 * to 1 over the drain time. `inbound`: the listener has traffic_direction INBOUND. `modify_only`:
 * the listener has drain_type MODIFY_ONLY, which a failed health check does not concern. */
KB_INLINE bool kb_drain_close(const struct kb_server_context *server, bool inbound,
                              bool modify_only, uint64_t now_ms, uint64_t random)
{
    uint64_t deadline_ms;

    if (!modify_only && __atomic_load_n(&server->health_check_failed, __ATOMIC_RELAXED)) {
        return true;
    }
    if (__atomic_load_n(&server->draining, __ATOMIC_RELAXED)) {
        deadline_ms = __atomic_load_n(&server->drain_deadline_ms, __ATOMIC_RELAXED);
    } else if (inbound && __atomic_load_n(&server->draining_inbound, __ATOMIC_RELAXED)) {
        deadline_ms = __atomic_load_n(&server->drain_inbound_deadline_ms, __ATOMIC_RELAXED);
    } else {
        return false;
    }
    return kb_drain_due(server, deadline_ms, now_ms, random);
}
