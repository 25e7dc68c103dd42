/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.load_balancing_policies.subset: its configuration, for subset.c and subset_config.c. */
#pragma once

#include "base/arena.h"
#include "proxy/api/lb.h"
#include "proxy/api/metadata_criteria.h"
#include "proxy/upstream/subset_table.h"

enum kb_subset_fallback { /* as LbSubsetSelectorFallbackPolicy has them */
                          KB_SUBSET_FALLBACK_NOT_DEFINED,
                          KB_SUBSET_FALLBACK_NONE,
                          KB_SUBSET_FALLBACK_ANY,
                          KB_SUBSET_FALLBACK_DEFAULT,
                          KB_SUBSET_FALLBACK_KEYS
};

/* What is done when a route asks for exactly the keys of a selector and no host has their values.
 */
struct kb_subset_selector_fallback {
    enum kb_subset_fallback policy;
    const struct kb_str *keys; /* fallback_keys_subset, rising */
    uint32_t key_count;
    bool counts; /* Envoy: not when an earlier selector begins with the same keys */
};

struct kb_subset_config {
    struct kb_lb_config head; /* first; that of the inner policy */
    struct kb_arena arena;
    struct kb_stat_named *duplicates; /* lb_subsets_single_host_per_subset_duplicate */
    struct kb_stat_group *stats;      /* of the cluster; borrowed */
    const struct kb_lb_ops *inner;
    struct kb_lb_config *inner_config;
    struct kb_subset_rules rules;
    const struct kb_subset_selector_fallback *fallbacks; /* of the selectors */
    enum kb_subset_fallback fallback;                    /* of the cluster */
    bool panic_any;
    bool fallback_list;
    bool allow_redundant_keys;
};

/* For struct kb_lb_ops. */
int kb_subset_config_create(const void *message, struct kb_factory_context *factory,
                            struct kb_diag *diag, struct kb_lb_config **config);
void kb_subset_config_destroy(struct kb_lb_config *config);
