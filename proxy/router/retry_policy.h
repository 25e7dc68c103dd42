/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of a retry policy that only the builder and the retry state know. */
#pragma once

#include "base/str.h"

/* A response header that tells how long to wait (rate_limited_retry_back_off.reset_headers). */
struct kb_reset_header {
    struct kb_str name; /* lower case */
    bool unix_time;     /* seconds since 1970; otherwise seconds from now */
};

struct kb_rate_limited_backoff {
    const struct kb_reset_header *headers; /* the first that gives a usable interval counts */
    size_t header_count;
    uint64_t max_interval_ms; /* longer ones are not used; 300000 */
};
