/* SPDX-License-Identifier: Apache-2.0 */
/* Buckets of tokens that come back evenly (Envoy AtomicTokenBucketImpl). A bucket belongs to all
 * workers: taking is one compare and swap, and nobody waits. Times are a loop's nanoseconds; a
 * worker whose clock is behind another's takes none too many. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct kb_diag;
struct Envoy__Type__V3__TokenBucket;

/* How a bucket fills. */
struct kb_token_rate {
    uint64_t max;
    double per_ns;
};

struct kb_token_bucket {
    struct kb_token_rate rate;
    /* Atomic: since when the present tokens would have come from nothing; before the clock's zero
     * for a bucket that fills more slowly than the machine is up, by thousands of years maybe. */
    double empty_ns;
};

#define KB_TOKEN_FILL_INTERVAL_MIN_MS 50

/* `what` begins the error about a fill_interval that is too short ("local rate limit token
 * bucket"); errors are in diag. */
void kb_token_rate_read(struct kb_token_rate *rate,
                        const struct Envoy__Type__V3__TokenBucket *message, const char *what,
                        struct kb_diag *diag);

/* Full at `now_ns`. */
void kb_token_bucket_init(struct kb_token_bucket *bucket, const struct kb_token_rate *rate,
                          uint64_t now_ns);
/* Takes so many tokens, which need not be whole; false when there are fewer, or none was asked for:
 * nothing is taken then. */
bool kb_token_bucket_take(struct kb_token_bucket *bucket, uint64_t now_ns, double tokens);
/* Puts tokens in, up to the most that it holds. */
void kb_token_bucket_give(struct kb_token_bucket *bucket, uint64_t now_ns, double tokens);
/* Whole tokens that are there. */
uint64_t kb_token_bucket_left(const struct kb_token_bucket *bucket, uint64_t now_ns);
/* Seconds until there is one, rounded up; 0: there is. */
uint64_t kb_token_bucket_wait_s(const struct kb_token_bucket *bucket, uint64_t now_ns);
