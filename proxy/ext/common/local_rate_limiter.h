/* SPDX-License-Identifier: Apache-2.0 */
/* The buckets of a local rate limit (Envoy LocalRateLimiterImpl): one by default, one for each
 * descriptor that is configured, and for descriptors with values left open one for each value that
 * was seen lately. */
#pragma once

#include "base/arena.h"
#include "proxy/ext/common/token_bucket.h"
#include "proxy/router/rate_limit.h"

struct Envoy__Type__V3__TokenBucket;
struct Envoy__Extensions__Common__Ratelimit__V3__LocalRateLimitDescriptor;

#define KB_DYNAMIC_DESCRIPTORS 20 /* max_dynamic_descriptors */

/* What a limiter is made from. Immutable; counted, as limiters of connections may outlive the
 * configuration. */
struct kb_rate_rules;

struct kb_rate_rules_config {
    const struct Envoy__Type__V3__TokenBucket *token_bucket; /* NULL: there is no default one */
    struct Envoy__Extensions__Common__Ratelimit__V3__LocalRateLimitDescriptor *const *descriptors;
    size_t descriptor_count;
    uint32_t dynamic_max; /* buckets for values, by descriptor */
    bool always_consume_default;
};

/* Held once by the caller; NULL after errors, which are in diag under token_bucket and
 * descriptors[i]. Main thread. */
struct kb_rate_rules *kb_rate_rules_create(const struct kb_rate_rules_config *config,
                                           struct kb_diag *diag);
/* From any thread; NULL is allowed. */
void kb_rate_rules_unref(struct kb_rate_rules *rules);

struct kb_rate_limiter;

/* Full buckets; holds the rules. From any thread. */
struct kb_rate_limiter *kb_rate_limiter_create(struct kb_rate_rules *rules, uint64_t now_ns);
/* When nobody uses it any more; NULL is allowed. */
void kb_rate_limiter_destroy(struct kb_rate_limiter *limiter);

/* What became of a request. */
struct kb_rate_decision {
    bool allowed;
    bool shadow;          /* not allowed by a descriptor that only watches */
    uint8_t x_rate_limit; /* of the descriptor that decided; 0: the filter's */
    /* The bucket that tells of itself, or NULL; held until kb_rate_decision_dispose. */
    const struct kb_token_bucket *bucket;
    struct kb_dynamic_bucket *held;
};

/* Takes tokens of every bucket that concerns the request, the slowest first, until one has too few.
 * `share`: the part of all tokens that is this process's, in (0, 1]. From any
 * worker. */
void kb_rate_limiter_take(struct kb_rate_limiter *limiter, const struct kb_rate_descriptor *made,
                          size_t count, double share, uint64_t now_ns, struct kb_arena *arena,
                          struct kb_rate_decision *decision);
/* The decision's bucket is not looked at any more. */
void kb_rate_decision_dispose(struct kb_rate_decision *decision);
/* Buckets for values that there are at this moment, for tests. */
size_t kb_rate_limiter_dynamic_count(struct kb_rate_limiter *limiter);
