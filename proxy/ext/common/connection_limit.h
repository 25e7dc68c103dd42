/* SPDX-License-Identifier: Apache-2.0 */
/* New connections by tokens: what the network filter and the listener filter local_ratelimit are
 * made of. */
#pragma once

#include "proxy/api/factory_context.h"
#include "proxy/api/runtime.h"
#include "proxy/ext/common/token_bucket.h"

struct kb_stat_named;
struct kb_shared_bucket;
struct Envoy__Config__Core__V3__RuntimeFeatureFlag;
struct Envoy__Type__V3__TokenBucket;

struct kb_connection_limit {
    struct kb_shared_bucket *bucket;
    struct kb_stat_named *rate_limited;
    const struct kb_runtime *runtime;
    struct kb_str runtime_key; /* in the arena of factory */
    bool enabled;              /* when runtime says nothing */
};

struct kb_connection_limit_config {
    const char *stat_group; /* the counter is "<stat_group>.<stat_prefix>.rate_limited" */
    const char *stat_prefix;
    const char *share_key; /* limits of the same key and the same bucket are one; empty: not */
    const struct Envoy__Type__V3__TokenBucket *token_bucket;
    const struct Envoy__Config__Core__V3__RuntimeFeatureFlag *runtime_enabled;
};

/* KB_ECONFIG after reporting. Main thread. */
int kb_connection_limit_init(struct kb_connection_limit *limit,
                             const struct kb_connection_limit_config *config,
                             struct kb_factory_context *factory, struct kb_diag *diag) KB_MUST_USE;
/* Main thread. */
void kb_connection_limit_dispose(struct kb_connection_limit *limit);

/* Takes a token for a new connection; false, and counted, when there is none. From any worker. */
bool kb_connection_limit_allows(struct kb_connection_limit *limit, const struct kb_worker *worker);
