/* SPDX-License-Identifier: Apache-2.0 */
/* What HTTP requests to few clusters have (HttpProtocolOptions). */
#pragma once

#include "base/arena.h"

struct kb_match_build;
struct kb_regex_list;
struct kb_retry_policy;
struct kb_upstream_http_chain;

/* Immutable; of its cluster. */
struct kb_cluster_policies {
    struct kb_arena arena;
    struct kb_regex_list *regexes;          /* in the arena */
    struct kb_upstream_http_chain *filters; /* of attempts, in place of the router's; NULL: none */
    const struct kb_retry_policy
        *retry; /* in place of the route's, but for its times; NULL: none */
};

struct Envoy__Config__Route__V3__RetryPolicy;
struct kb_factory_context;
/* Errors are reported at the present path. Main thread; implemented in proxy/router/. */
const struct kb_retry_policy *
kb_retry_policy_create(const struct Envoy__Config__Route__V3__RetryPolicy *message,
                       const struct kb_match_build *build, struct kb_factory_context *factory);
