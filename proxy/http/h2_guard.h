/* SPDX-License-Identifier: Apache-2.0 */
/* Budgets for what an HTTP/2 peer may make us do for nothing (RFC 9113 section 10.5; Envoy's
 * ProtocolConstraints). Pure: it is told of each frame and of the time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct kb_h2_guard_limits {
    uint32_t empty_frames; /* in a row, without END_STREAM */
    uint32_t priority_per_stream;
    uint32_t window_updates_per_data;
    uint32_t control_frames_in_period; /* SETTINGS, PING, RST_STREAM, GOAWAY, unknown: in 10 s */
    uint32_t continuations;            /* of one header block */
    bool metadata;                     /* METADATA with content is welcome */
};

enum kb_h2_guard_fault {
    KB_H2_GUARD_OK,
    KB_H2_GUARD_EMPTY_FRAMES,
    KB_H2_GUARD_PRIORITY,
    KB_H2_GUARD_WINDOW_UPDATES,
    KB_H2_GUARD_CONTROL,
    KB_H2_GUARD_CONTINUATIONS,
    KB_H2_GUARD_EXPANSION,
};

struct kb_h2_guard {
    struct kb_h2_guard_limits limits;
    uint64_t period_start_ms;
    uint64_t window_updates;
    uint64_t priorities;
    uint64_t data_frames_sent;
    uint64_t streams_opened;
    uint32_t control_frames; /* in this period */
    uint32_t empty_frames;   /* in a row */
    uint32_t continuations;  /* of this header block */
};

#define KB_H2_GUARD_PERIOD_MS 10000
#define KB_H2_GUARD_SPARE     4096 /* what the static table and the like may add */

/* Puts Envoy's defaults where a limit is 0: 1, 100, 10, and ours: 1000, 64. */
void kb_h2_guard_limits_fill(struct kb_h2_guard_limits *limits);
/* On caller's storage; a limit of 0 allows none. */
void kb_h2_guard_init(struct kb_h2_guard *guard, const struct kb_h2_guard_limits *limits);
/* The header of a frame came (RFC 9113 section 4.1). Anything but KB_H2_GUARD_OK: close. */
enum kb_h2_guard_fault kb_h2_guard_frame(struct kb_h2_guard *guard, uint8_t type, uint8_t flags,
                                         uint32_t len, uint64_t now_ms);
/* Padded DATA came whole; `content` bytes of it are no padding. */
enum kb_h2_guard_fault kb_h2_guard_padded(struct kb_h2_guard *guard, uint8_t flags,
                                          uint32_t content);
/* The same for a frame that has no effect: of a type that nobody knows, or on a stream that is
 * gone. */
enum kb_h2_guard_fault kb_h2_guard_ignored(struct kb_h2_guard *guard, uint64_t now_ms);
/* The `fields` bytes of names and values that came out of a header block so far, of which `block`
 * bytes were sent: more than its literals, and each entry of a table of `table` bytes once, can
 * make is a bomb (RFC 7541 section 7.3). Who encodes honestly has no reason to name an entry twice.
 */
KB_INLINE bool kb_h2_guard_expanded(uint64_t fields, uint64_t block, uint32_t table)
{
    return fields > 4 * block + table + KB_H2_GUARD_SPARE;
}
