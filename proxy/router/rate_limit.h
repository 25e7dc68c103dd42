/* SPDX-License-Identifier: Apache-2.0 */
/* rate_limits (Envoy RateLimitPolicy): rules by which requests make descriptors, for filters that
 * limit by them. Routes, virtual hosts and filters have them. */
#pragma once

#include "proxy/api/http_filter.h"
#include "proxy/matcher/match_build.h"

struct kb_route;

struct kb_rate_entry {
    struct kb_str key, value;
};

/* What a request is, in the eyes of one rule. */
struct kb_rate_descriptor {
    const struct kb_rate_entry *entries;
    size_t count;
    uint64_t hits;        /* tokens that it costs */
    bool gives_back;      /* hits_addend.is_negative_hits: it brings them instead */
    uint8_t x_rate_limit; /* RateLimit.XRateLimitOption */
};

struct kb_rate_limits;

enum kb_rate_limits_place {
    KB_RATE_LIMITS_OF_ROUTE,  /* a route's or a virtual host's: those of one stage count */
    KB_RATE_LIMITS_OF_FILTER, /* the filter's own: neither stages nor keys that disable */
};

struct Envoy__Config__Route__V3__RateLimit;
/* Lives in build->arena; NULL: there are none. *failed is set after an error, which is reported
 * under rate_limits[i]. */
const struct kb_rate_limits *
kb_rate_limits_create(struct Envoy__Config__Route__V3__RateLimit *const *messages, size_t count,
                      enum kb_rate_limits_place place, struct kb_str node_cluster,
                      const struct kb_match_build *build, bool *failed);
/* How many descriptors a request makes at most. `limits` may be NULL. */
size_t kb_rate_limits_count(const struct kb_rate_limits *limits);
/* Fills out[], which has room for kb_rate_limits_count; the entries are in the stream's arena.
 * Returns how many. `stage` is of no account for a filter's own; `limits` may be NULL. */
size_t kb_rate_limits_describe(const struct kb_rate_limits *limits, uint32_t stage,
                               struct kb_stream *stream, const struct kb_header_map *headers,
                               struct kb_rate_descriptor *out);

/* Those of a route that forwards; NULL: none. */
const struct kb_rate_limits *kb_route_rate_limits(const struct kb_route *route);
/* Those of its virtual host. */
const struct kb_rate_limits *kb_route_virtual_host_rate_limits(const struct kb_route *route);
/* include_vh_rate_limits */
bool kb_route_includes_virtual_host_rate_limits(const struct kb_route *route);
