/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of rate limits. For rate_limit.c and rate_limit_apply.c. */
#pragma once

#include "base/addr.h"
#include "proxy/router/rate_limit.h"

struct kb_header_matcher;
struct kb_query_matcher;
struct kb_formatter;

enum kb_rate_action_kind {
    KB_RATE_GENERIC,
    KB_RATE_HEADER,
    KB_RATE_QUERY,
    KB_RATE_REMOTE_ADDRESS,
    KB_RATE_MASKED_REMOTE_ADDRESS,
    KB_RATE_REMOTE_ADDRESS_MATCH,
    KB_RATE_HEADER_MATCH,
    KB_RATE_QUERY_MATCH,
    KB_RATE_SOURCE_CLUSTER,
    KB_RATE_TARGET_CLUSTER,
    KB_RATE_DYNAMIC_METADATA,
    KB_RATE_ROUTE_METADATA,
    KB_RATE_CLUSTER_METADATA,
    KB_RATE_NO_METADATA, /* of the locality: no host is chosen yet */
};

struct kb_rate_action {
    enum kb_rate_action_kind kind;
    struct kb_str key, value; /* of metadata: the value when there is none */
    struct kb_str name;       /* header (lower case), query parameter, namespace of metadata */
    const struct kb_str *path;
    size_t path_len;
    const struct kb_header_matcher *headers;
    const struct kb_query_matcher *queries;
    struct kb_cidr *ranges;
    size_t matcher_count; /* of headers, queries or ranges */
    uint8_t v4_bits, v6_bits;
    bool expected;
    bool skip_if_absent;
};

struct Envoy__Config__Route__V3__RateLimit__Action;
/* KB_ECONFIG after reporting at the present path. */
int kb_rate_action_init(struct kb_rate_action *action,
                        const struct Envoy__Config__Route__V3__RateLimit__Action *message,
                        struct kb_str node_cluster, const struct kb_match_build *build) KB_MUST_USE;

struct kb_rate_limit {
    struct kb_rate_action *actions;
    size_t count;
    const struct kb_formatter *hits_format; /* NULL: `hits` */
    uint64_t hits;
    uint32_t stage;
    bool of_filter;
    bool gives_back;
    bool off; /* never makes a descriptor */
    uint8_t x_rate_limit;
};

struct kb_rate_limits {
    size_t count;
    struct kb_rate_limit limits[];
};
