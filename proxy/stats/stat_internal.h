/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of groups, named statistics and texts, for the files of this room. */
#pragma once

#include "proxy/stats/stat_store.h"

/* Histogram totals and counter bases of one group; made by the main thread when there is something
 * to keep. */
struct kb_stat_group_totals {
    struct kb_histogram_total *histograms; /* [histogram_count], or NULL */
    uint64_t *bases;                  /* [count - histogram_count] at the last reset, or NULL */
    struct kb_stat_code_total *codes; /* list */
};

struct kb_stat_group {
    struct kb_stat_scope scope;
    struct kb_stat_group *same_prefix; /* next group of that prefix, with another schema */
    struct kb_stat_store *store;
    const struct kb_stat_schema *schema;
    struct kb_stat_block *
        *blocks; /* [worker_count + 1]; made, and filled, by whoever comes first */
    struct kb_stat_group_totals *totals;
    kb_stat_provide_fn provide;
    void *provide_arg;
    const uint16_t *hidden; /* ids */
    uint16_t hidden_count;
    bool from_first_block; /* not shown before */
    uint32_t refs;
    char prefix[];
};

/* Where a label stands in the full name. */
struct kb_stat_tag_span {
    uint16_t name_at, name_len;
    uint16_t value_at, value_len;
};

struct kb_stat_named {
    struct kb_stat_scope scope;
    struct kb_stat_store *store;
    enum kb_stat_kind kind;
    uint32_t refs;
    struct kb_stat_tag_span *tags; /* of kb_stat_tagged_get; NULL: they are found in the name */
    uint16_t tag_count;
    uint16_t own_len; /* of the name up to the first tag; 0: of kb_stat_named_create */
    uint64_t base;
    struct kb_stat_named_cell *cells; /* [worker_count + 1] */
    struct kb_histogram_total total;
    char name[];
};

/* A cache line each: workers do not disturb one another. */
struct kb_stat_named_cell {
    uint64_t value;
    struct kb_histogram *histogram;
    uint8_t used;
} __attribute__((aligned(64)));

struct kb_stat_text {
    struct kb_stat_scope scope;
    char *text; /* NULL: empty */
    size_t text_len;
    uint32_t holds; /* kb_stat_text_hold */
    char name[];
};

#define KB_STAT_CODES_PER_NODE 6

struct kb_stat_code_cell {
    uint64_t count;
    uint16_t code; /* 0: only in "upstream_rq_completed" */
};

struct kb_stat_code_node {
    struct kb_stat_code_node *next;
    uint32_t used; /* cells in use; written after the cell */
    struct kb_stat_code_cell cells[KB_STAT_CODES_PER_NODE];
};

/* One variant's response codes of one worker. */
struct kb_stat_codes {
    struct kb_stat_codes *next;
    struct kb_stat_code_node *nodes;
    struct kb_histogram *time; /* upstream_rq_time of the variant, or NULL */
    uint32_t variant;          /* KB_STAT_CODE_ZONE + i: zone number i */
};

/* What main keeps of one variant of a group: its histogram, and counts at the last reset. */
struct kb_stat_code_total {
    struct kb_stat_code_total *next;
    uint32_t variant;
    uint32_t base_count;
    struct kb_stat_code_cell *bases;
    struct kb_histogram_total time;
};

KB_INLINE unsigned kb_stat_schema_cells(const struct kb_stat_schema *schema)
{
    return (unsigned)schema->count - schema->histogram_count;
}

/* Whether any worker has a block. */
KB_INLINE bool kb_stat_group_has_blocks(const struct kb_stat_group *group)
{
    return __atomic_load_n(&group->blocks, __ATOMIC_ACQUIRE) != NULL;
}

KB_INLINE struct kb_stat_block *kb_stat_group_peek(const struct kb_stat_group *group,
                                                   uint32_t worker_index)
{
    struct kb_stat_block **blocks = __atomic_load_n(&group->blocks, __ATOMIC_ACQUIRE);

    return blocks == NULL ? NULL : __atomic_load_n(&blocks[worker_index], __ATOMIC_ACQUIRE);
}

/* Whether the statistic is left out of the group. */
bool kb_stat_group_hides(const struct kb_stat_group *group, unsigned id);

/* Adds a scope to the store, or takes it out and frees it, at once or when no dump is under way. */
void kb_stat_scope_add(struct kb_stat_store *store, struct kb_stat_scope *scope);
void kb_stat_scope_remove(struct kb_stat_store *store, struct kb_stat_scope *scope);

/* Keeps every scope in memory until the matching unpin; returns the epoch. The pin is void when
 * store->pin_epoch is another: then nothing may be read any more, but unpin must still be called.
 */
uint64_t kb_stat_store_pin(struct kb_stat_store *store);
void kb_stat_store_unpin(struct kb_stat_store *store, uint64_t epoch);

/* The totals of the group, made when there are none yet. */
struct kb_stat_group_totals *kb_stat_group_totals(struct kb_stat_group *group);
/* Whether a counter was ever raised or a gauge ever set. */
bool kb_stat_group_used(const struct kb_stat_group *group, unsigned id);
/* A statistic that only shows after its first use, and was not used. */
bool kb_stat_group_waits(const struct kb_stat_group *group, unsigned id);

/* Codes (stat_codes.c). */
void kb_stat_codes_destroy(struct kb_stat_codes *codes);
void kb_stat_code_totals_destroy(struct kb_stat_code_total *totals);
void kb_stat_codes_flush(struct kb_stat_group *group);
void kb_stat_codes_reset(struct kb_stat_group *group);
size_t kb_stat_codes_bytes(const struct kb_stat_group *group);
/* "external.", "zone.a.b.", "" and so on. */
struct kb_str kb_stat_code_variant_name(const struct kb_stat_store *store, uint32_t variant);
/* Calls visit for every (variant, code) of the group with the count over all workers since the last
 * reset, and once with code UINT16_MAX and the total for every variant that has a histogram. Any
 * order. */
typedef void (*kb_stat_code_visit_fn)(void *arg, uint32_t variant, uint16_t code, uint64_t count,
                                      const struct kb_histogram_total *time);
void kb_stat_codes_visit(const struct kb_stat_group *group, kb_stat_code_visit_fn visit, void *arg);

/* Named statistics and texts (stat_named.c). */
/* In no list or map yet, with room for a name of `len` bytes. Any thread. */
struct kb_stat_named *kb_stat_named_new(struct kb_stat_store *store, size_t len,
                                        enum kb_stat_kind kind);
void kb_stat_named_flush(struct kb_stat_named *named);
void kb_stat_named_reset(struct kb_stat_named *named);
bool kb_stat_named_used(const struct kb_stat_named *named);
void kb_stat_group_free(struct kb_stat_group *group);
void kb_stat_named_free(struct kb_stat_named *named);
void kb_stat_text_free(struct kb_stat_text *text);

/* Statistics made with labels (stat_tagged.c). */
/* Takes those that workers have made into the order of names. Main thread. */
void kb_stat_store_take_tagged(struct kb_stat_store *store);
/* The labels that the scope was made with, and its name without them; false: it was not. */
bool kb_stat_scope_tags(const struct kb_stat_scope *scope, struct kb_tag_result *result);
