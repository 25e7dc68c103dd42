/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the local_ratelimit filter: buckets of tokens, and descriptors that requests make. */
#pragma once

#include "proxy/api/http_filter.h"
#include "proxy/matcher/header_match.h"

#define KB_RATE_DESCRIPTORS_MAX 16 /* that a request makes; of more it makes none */
#define KB_RATE_ENTRIES_MAX     16

/* Tokens that come back evenly; of all workers. */
struct kb_token_bucket {
    uint64_t max;
    double per_ns; /* tokens */
    /* Atomic: since when the present tokens would have come from nothing, by the loop's clock;
     * before its zero for a bucket that fills more slowly than the machine is up. */
    int64_t empty_ns;
};

struct Envoy__Type__V3__TokenBucket;
/* Full at `now_ns`. Errors are in diag. */
void kb_token_bucket_init(struct kb_token_bucket *bucket,
                          const struct Envoy__Type__V3__TokenBucket *message, uint64_t now_ns,
                          struct kb_diag *diag);
/* Takes one token; false when there is none. */
bool kb_token_bucket_take(struct kb_token_bucket *bucket, uint64_t now_ns);
/* Whole tokens that are there. */
uint64_t kb_token_bucket_left(const struct kb_token_bucket *bucket, uint64_t now_ns);
/* Seconds until there is one, rounded up; 0: there is. */
uint64_t kb_token_bucket_wait_s(const struct kb_token_bucket *bucket, uint64_t now_ns);

struct kb_rate_entry {
    struct kb_str key, value;
};

struct kb_rate_descriptor {
    struct kb_rate_entry entries[KB_RATE_ENTRIES_MAX];
    size_t count;
};

struct kb_rate_limits; /* rules by which requests make descriptors */

struct Envoy__Config__Route__V3__RateLimit;
/* In build->arena; *failed is set after an error. */
const struct kb_rate_limits *
kb_rate_limits_create(struct Envoy__Config__Route__V3__RateLimit *const *messages, size_t count,
                      struct kb_str node_cluster, const struct kb_match_build *build, bool *failed);
/* Fills out[]; returns how many. */
size_t kb_rate_limits_describe(const struct kb_rate_limits *limits, struct kb_stream *stream,
                               const struct kb_header_map *headers,
                               struct kb_rate_descriptor out[KB_RATE_DESCRIPTORS_MAX]);
