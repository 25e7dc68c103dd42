/* SPDX-License-Identifier: Apache-2.0 */
/* Hierarchical timer wheel. Level n has 64 slots of 64^n ms; a timer stands at the level of the
 * highest bit group in which its deadline differs from now, and falls to lower levels as time comes
 * closer. */
#include "base/timer.h"

#include <string.h>

#include "base/obj.h"

#define BITS  6
#define SLOTS 64
#define MASK  (SLOTS - 1)

void kb_timer_wheel_init(struct kb_timer_wheel *wheel, uint64_t now_ms)
{
    memset(wheel, 0, sizeof(*wheel));
    wheel->now_ms = now_ms;
    for (unsigned level = 0; level < KB_TIMER_LEVELS; level++) {
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            kb_list_init(&wheel->slots[level][slot]);
        }
    }
}

void kb_timer_init(struct kb_timer *timer, kb_timer_cb cb)
{
    memset(timer, 0, sizeof(*timer));
    timer->cb = cb;
}

static void place(struct kb_timer_wheel *wheel, struct kb_timer *timer)
{
    uint64_t at = timer->deadline_ms;
    uint64_t limit = wheel->now_ms + ((UINT64_C(1) << (BITS * KB_TIMER_LEVELS)) - 1);
    unsigned level = 0;
    unsigned slot;

    if (at <= wheel->now_ms) {
        at = wheel->now_ms + 1;
    }
    if (at > limit) {
        at = limit;
    }
    level = (unsigned)(63 - __builtin_clzll((at ^ wheel->now_ms) | 1)) / BITS;
    if (level >= KB_TIMER_LEVELS) {
        level = KB_TIMER_LEVELS - 1;
    }
    slot = (unsigned)(at >> (BITS * level)) & MASK;
    timer->slot = (uint16_t)(level * SLOTS + slot);
    kb_list_push_back(&wheel->slots[level][slot], &timer->link);
    wheel->occupied[level] |= UINT64_C(1) << slot;
}

void kb_timer_wheel_cancel(struct kb_timer_wheel *wheel, struct kb_timer *timer)
{
    unsigned level = timer->slot / SLOTS;
    unsigned slot = timer->slot % SLOTS;

    if (!kb_timer_armed(timer)) {
        return;
    }
    kb_list_unlink(&timer->link);
    wheel->armed_count--;
    if (kb_list_empty(&wheel->slots[level][slot])) {
        wheel->occupied[level] &= ~(UINT64_C(1) << slot);
    }
}

void kb_timer_wheel_arm(struct kb_timer_wheel *wheel, struct kb_timer *timer, uint64_t deadline_ms)
{
    KB_DASSERT(timer->cb != NULL);
    if (kb_timer_armed(timer) && deadline_ms >= timer->deadline_ms) {
        /* It waits where it stands: advance() places it again when that slot comes. */
        timer->deadline_ms = deadline_ms;
        return;
    }
    kb_timer_wheel_cancel(wheel, timer);
    timer->deadline_ms = deadline_ms;
    place(wheel, timer);
    wheel->armed_count++;
}

/* Moves the list of one slot to `out`. */
static void slot_take(struct kb_timer_wheel *wheel, unsigned level, unsigned slot,
                      struct kb_list *out)
{
    struct kb_list *head = &wheel->slots[level][slot];

    while (!kb_list_empty(head)) {
        struct kb_list *link = kb_list_pop_front(head);

        kb_list_push_back(out, link);
    }
    wheel->occupied[level] &= ~(UINT64_C(1) << slot);
}

/* Slots of `level` that time passes on its way from `from` to `to`, the one at `to` included. */
static uint64_t passed_slots(unsigned level, uint64_t from, uint64_t to)
{
    uint64_t a = from >> (BITS * level);
    uint64_t b = to >> (BITS * level);
    uint64_t steps = b - a;
    uint64_t bits;
    unsigned first = (unsigned)(a + 1) & MASK;

    if (steps == 0) {
        return 0;
    }
    if (steps >= SLOTS) {
        return UINT64_MAX;
    }
    bits = (UINT64_C(1) << steps) - 1;
    return first == 0 ? bits : (bits << first) | (bits >> (SLOTS - first));
}

void kb_timer_wheel_advance(struct kb_timer_wheel *wheel, uint64_t now_ms)
{
    struct kb_list due;
    uint64_t from = wheel->now_ms;
    struct kb_list *link;

    if (now_ms <= from) {
        return;
    }
    kb_list_init(&due);
    for (unsigned level = 0; level < KB_TIMER_LEVELS; level++) {
        uint64_t hit = passed_slots(level, from, now_ms) & wheel->occupied[level];

        while (hit != 0) {
            unsigned slot = (unsigned)__builtin_ctzll(hit);

            hit &= hit - 1;
            slot_take(wheel, level, slot, &due);
        }
    }
    wheel->now_ms = now_ms;
    while ((link = kb_list_pop_front(&due)) != NULL) {
        struct kb_timer *timer = KB_LIST_ENTRY(link, struct kb_timer, link);

        if (timer->deadline_ms > now_ms) {
            place(wheel, timer);
            continue;
        }
        /* Not in a slot any more: cancel() on it by an earlier callback unlinks it from `due`. */
        wheel->armed_count--;
        timer->cb(timer);
    }
}

uint64_t kb_timer_wheel_next_ms(const struct kb_timer_wheel *wheel)
{
    uint64_t next = UINT64_MAX;

    for (unsigned level = 0; level < KB_TIMER_LEVELS; level++) {
        uint64_t occupied = wheel->occupied[level];
        uint64_t tick = wheel->now_ms >> (BITS * level);
        unsigned at = (unsigned)(tick + 1) & MASK;
        uint64_t rotated;
        uint64_t when;

        if (occupied == 0) {
            continue;
        }
        rotated = at == 0 ? occupied : (occupied >> at) | (occupied << (SLOTS - at));
        when = (tick + 1 + (unsigned)__builtin_ctzll(rotated)) << (BITS * level);
        next = KB_MIN(next, when);
    }
    return next;
}
