/* SPDX-License-Identifier: Apache-2.0 */
/* Timer wheel: millisecond ticks, arming and cancelling in constant time. Pure: it is told the time
 * and says when it wants to be called next; base/loop.c drives one per loop with a single uv_timer.
 */
#pragma once

#include <stdbool.h>

#include "base/list.h"

struct kb_timer;
typedef void (*kb_timer_cb)(struct kb_timer *timer);

/* Embedded in its owner; the callback finds the owner with KB_CONTAINER_OF. */
struct kb_timer {
    struct kb_list link;
    kb_timer_cb cb;
    uint64_t deadline_ms;
    uint16_t slot; /* level * 64 + slot while armed */
};

#define KB_TIMER_LEVELS 5 /* 64^5 ms: 12 days; later deadlines wait there and are placed again */

struct kb_timer_wheel {
    uint64_t now_ms;
    uint64_t occupied[KB_TIMER_LEVELS]; /* a bit per slot that is not empty */
    struct kb_list slots[KB_TIMER_LEVELS][64];
    uint32_t armed_count;
};

/* An empty wheel whose time is now_ms; on caller's storage. */
void kb_timer_wheel_init(struct kb_timer_wheel *wheel, uint64_t now_ms);

/* Prepares a timer; it is not armed. */
void kb_timer_init(struct kb_timer *timer, kb_timer_cb cb);

KB_INLINE bool kb_timer_armed(const struct kb_timer *timer)
{
    return kb_list_linked(&timer->link);
}

/* Arms, or moves an armed timer; moving it to a later time costs one store. Fires at the first
 * advance to `deadline_ms` or later. */
void kb_timer_wheel_arm(struct kb_timer_wheel *wheel, struct kb_timer *timer, uint64_t deadline_ms);

/* Harmless when not armed. */
void kb_timer_wheel_cancel(struct kb_timer_wheel *wheel, struct kb_timer *timer);

/* Moves time on and calls every timer that is due, earliest slot first. A callback may arm and
 * cancel any timer; one armed for now or the past fires at the next advance. */
void kb_timer_wheel_advance(struct kb_timer_wheel *wheel, uint64_t now_ms);

/* The time at which advance should be called next, or UINT64_MAX. May be earlier than the first
 * deadline. */
uint64_t kb_timer_wheel_next_ms(const struct kb_timer_wheel *wheel);
