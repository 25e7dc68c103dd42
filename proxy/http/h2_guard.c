/* SPDX-License-Identifier: Apache-2.0 */
/* Counting of an HTTP/2 peer's frames against budgets: each kind that costs work and moves nothing
 * has one. */
#include "proxy/http/h2_guard.h"

enum { /* RFC 9113 section 6 */
       FRAME_DATA = 0,
       FRAME_HEADERS = 1,
       FRAME_PRIORITY = 2,
       FRAME_PUSH_PROMISE = 5,
       FRAME_WINDOW_UPDATE = 8,
       FRAME_CONTINUATION = 9,
       FRAME_METADATA = 0x4d,
};
#define FLAG_END_STREAM 1
#define FLAG_PADDED     8

void kb_h2_guard_limits_fill(struct kb_h2_guard_limits *limits)
{
    if (limits->empty_frames == 0) {
        limits->empty_frames = 1;
    }
    if (limits->priority_per_stream == 0) {
        limits->priority_per_stream = 100;
    }
    if (limits->window_updates_per_data == 0) {
        limits->window_updates_per_data = 10;
    }
    if (limits->control_frames_in_period == 0) {
        limits->control_frames_in_period = 1000;
    }
    if (limits->continuations == 0) {
        limits->continuations = 64;
    }
}

void kb_h2_guard_init(struct kb_h2_guard *guard, const struct kb_h2_guard_limits *limits)
{
    *guard = (struct kb_h2_guard){.limits = *limits};
}

static enum kb_h2_guard_fault count_empty(struct kb_h2_guard *guard, uint8_t flags, uint32_t len)
{
    if (len > 0 || (flags & FLAG_END_STREAM) != 0) {
        guard->empty_frames = 0;
        return KB_H2_GUARD_OK;
    }
    return ++guard->empty_frames > guard->limits.empty_frames ? KB_H2_GUARD_EMPTY_FRAMES
                                                              : KB_H2_GUARD_OK;
}

static enum kb_h2_guard_fault count_control(struct kb_h2_guard *guard, uint64_t now_ms)
{
    if (now_ms - guard->period_start_ms >= KB_H2_GUARD_PERIOD_MS) {
        guard->period_start_ms = now_ms;
        guard->control_frames = 0;
    }
    return ++guard->control_frames > guard->limits.control_frames_in_period ? KB_H2_GUARD_CONTROL
                                                                            : KB_H2_GUARD_OK;
}

enum kb_h2_guard_fault kb_h2_guard_frame(struct kb_h2_guard *guard, uint8_t type, uint8_t flags,
                                         uint32_t len, uint64_t now_ms)
{
    switch (type) {
    case FRAME_CONTINUATION:
        if (++guard->continuations > guard->limits.continuations) {
            return KB_H2_GUARD_CONTINUATIONS;
        }
        return count_empty(guard, 0, len);
    case FRAME_HEADERS:
    case FRAME_PUSH_PROMISE:
        guard->continuations = 0;
        return count_empty(guard, flags, len);
    case FRAME_DATA:
        return (flags & FLAG_PADDED) != 0 ? KB_H2_GUARD_OK : count_empty(guard, flags, len);
    case FRAME_PRIORITY:
        return ++guard->priorities >
                       (uint64_t)guard->limits.priority_per_stream * (1 + guard->streams_opened)
                   ? KB_H2_GUARD_PRIORITY
                   : KB_H2_GUARD_OK;
    case FRAME_WINDOW_UPDATE:
        return ++guard->window_updates > 5 + 2 * (guard->streams_opened +
                                                  (uint64_t)guard->limits.window_updates_per_data *
                                                      guard->data_frames_sent)
                   ? KB_H2_GUARD_WINDOW_UPDATES
                   : KB_H2_GUARD_OK;
    case FRAME_METADATA:
        return guard->limits.metadata && len > 0 ? KB_H2_GUARD_OK : count_control(guard, now_ms);
    default:
        return count_control(guard, now_ms);
    }
}

enum kb_h2_guard_fault kb_h2_guard_padded(struct kb_h2_guard *guard, uint8_t flags,
                                          uint32_t content)
{
    return count_empty(guard, flags, content);
}

enum kb_h2_guard_fault kb_h2_guard_ignored(struct kb_h2_guard *guard, uint64_t now_ms)
{
    return count_control(guard, now_ms);
}
