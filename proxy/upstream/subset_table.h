/* SPDX-License-Identifier: Apache-2.0 */
/* The hosts of a cluster divided by their metadata (Envoy SubsetLoadBalancer's subsets). A table is
 * built on the main thread for every version of the hosts, hangs on that version, is shared by all
 * workers and never changes. */
#pragma once

#include "google/protobuf/struct.pb-c.h"
#include "proxy/upstream/priority_set.h"

#define KB_SUBSET_KEYS_MAX      32   /* of one selector */
#define KB_SUBSETS_PER_HOST_MAX 4096 /* that lists as values may give rise to */
#define KB_SUBSET_NONE          UINT32_MAX

struct kb_subset_selector {
    const struct kb_str *keys; /* rising, each once */
    uint32_t key_count;
    bool single_host;
};

/* How hosts are divided. */
struct kb_subset_rules {
    const struct kb_subset_selector *selectors;
    uint32_t selector_count;
    bool list_as_any;
    bool locality_weight_aware;
    bool scale_locality_weight;
    bool drop_localities;                           /* the balancers of subsets must not see them */
    bool wants_any;                                 /* a subset of all hosts */
    const Google__Protobuf__Struct *default_subset; /* NULL: not wanted */
    const struct kb_priority_policy *policy;
};

struct kb_subset {
    uint64_t id;                 /* the same in all tables, never that of another subset */
    struct kb_str key;           /* as kb_metadata_criteria.key; empty: any, or the default one */
    struct kb_priority_set *set; /* NULL: `single` is all */
    struct kb_host *single;
};

struct kb_subset_slot {
    uint32_t hash;  /* low bits of the key's */
    uint32_t index; /* KB_SUBSET_NONE: free */
};

struct kb_subset_table {
    struct kb_subset *subsets; /* ids rise */
    uint32_t count;
    uint32_t any;               /* KB_SUBSET_NONE: not wanted */
    uint32_t fallback;          /* the default subset, likewise; it may have no hosts */
    uint32_t selected_count;    /* those that selectors made */
    uint32_t created, removed;  /* of these, against the table before */
    uint32_t single_duplicates; /* hosts that a single host subset left out */
    uint32_t slot_mask;
    uint64_t next_id;
    struct kb_subset_slot *slots; /* open addressing */
    char *texts;                  /* keys */
};

/* The table of these hosts; `before` (NULL: none) is that of the version before. */
struct kb_subset_table *kb_subset_table_create(const struct kb_subset_rules *rules,
                                               const struct kb_priority_set *set,
                                               const struct kb_subset_table *before);
void kb_subset_table_destroy(struct kb_subset_table *table);
/* The index of the subset of that key, or KB_SUBSET_NONE; `hash` is kb_map_hash of the key. */
uint32_t kb_subset_table_find(const struct kb_subset_table *table, struct kb_str key,
                              uint64_t hash);
