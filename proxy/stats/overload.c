/* SPDX-License-Identifier: Apache-2.0 */
/* What workers ask of the state of overload, beside the plain numbers. */
#include "proxy/api/overload.h"

#include "proxy/api/stats.h"

const struct kb_overload_state kb_overload_never;

bool kb_overload_shed(const struct kb_overload_state *state, enum kb_overload_action point,
                      struct kb_worker *worker)
{
    if (!kb_overload_draw(state, point, worker)) {
        return false;
    }
    if (state->shed_counts[point] != NULL) {
        kb_stat_named_add(state->shed_counts[point], worker->index, 1);
    }
    return true;
}

uint64_t kb_overload_timeout_slow(const struct kb_overload_state *state,
                                  enum kb_overload_timer timer, uint64_t whole_ms)
{
    uint64_t value = kb_overload_value(state, KB_OVERLOAD_REDUCE_TIMEOUTS);
    uint64_t min_ms = state->timers[timer].min;
    uint64_t scaled_ms;

    if (!state->timers[timer].scaled || value == 0) {
        return whole_ms;
    }
    if (state->timers[timer].by_share) {
        min_ms = (uint64_t)((double)whole_ms * (double)min_ms / 1e6);
    }
    if (min_ms >= whole_ms) {
        return whole_ms;
    }
    scaled_ms = (uint64_t)((double)(whole_ms - min_ms) * (double)(KB_OVERLOAD_SATURATED - value) /
                           KB_OVERLOAD_SATURATED);
    return KB_MAX(min_ms + scaled_ms, (uint64_t)1);
}
