/* SPDX-License-Identifier: Apache-2.0 */
/* The ceiling of the process's memory, and what is let go of on the way to it. */
#pragma once

#include "base/str.h"

/* What is done at 88, 92, 96 and 99 % of the ceiling, each beside those before it. */
enum kb_memory_stage {
    KB_MEMORY_PLENTY,
    KB_MEMORY_STOP_ACCEPTING, /* connections wait in the kernel's queue */
    KB_MEMORY_CLOSE_IDLE,     /* connections without a request are closed */
    KB_MEMORY_REFUSE_STREAMS, /* requests get 503 */
    KB_MEMORY_RESET_STREAMS,  /* those that hold most are reset */
};

/* The stage that so many bytes call for, when it is `now` so far; ceiling 0: none. */
enum kb_memory_stage kb_memory_stage_of(uint64_t used, uint64_t ceiling, enum kb_memory_stage now);

struct kb_memory_size {
    uint64_t number;
    bool share; /* of the cgroup's limit, in percent */
};

/* "1048576", "512Mi", "1G" or "80%"; KB_EINVALID for anything else. */
int kb_memory_size_parse(struct kb_str text, struct kb_memory_size *size) KB_MUST_USE;
