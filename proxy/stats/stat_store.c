/* SPDX-License-Identifier: Apache-2.0 */
/* The store of all statistics: groups with a block of cells per worker that counts in them, merged
 * when somebody reads. Workers write only their own block; main never writes a worker's cell, so
 * that a reset keeps the counters' values as bases instead. */
#include "proxy/stats/stat_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "proxy/stats/stat_internal.h"

#define BLOCK_ALIGN 64 /* a cache line: blocks of two workers share none */

struct kb_stat_store *kb_stat_store_create(uint32_t worker_count)
{
    struct kb_stat_store *store = kb_calloc(1, sizeof(*store));

    KB_ASSERT(worker_count <= KB_WORKERS_MAX);
    KB_OBJ_SET(store, kb_stat_store);
    store->worker_count = worker_count;
    kb_list_init(&store->scopes);
    kb_map_init(&store->groups);
    kb_map_init(&store->named);
    kb_map_init(&store->texts);
    pthread_mutex_init(&store->tagged_lock, NULL);
    kb_map_init(&store->tagged);
    kb_list_init(&store->tagged_new);
    kb_list_init(&store->gone);
    return store;
}

static void scope_free(struct kb_stat_scope *scope)
{
    switch ((enum kb_stat_scope_type)scope->type) {
    case KB_STAT_SCOPE_GROUP:
        kb_stat_group_free(KB_CONTAINER_OF(scope, struct kb_stat_group, scope));
        return;
    case KB_STAT_SCOPE_NAMED:
        kb_stat_named_free(KB_CONTAINER_OF(scope, struct kb_stat_named, scope));
        return;
    case KB_STAT_SCOPE_TEXT:
        kb_stat_text_free(KB_CONTAINER_OF(scope, struct kb_stat_text, scope));
        return;
    }
}

void kb_stat_store_destroy(struct kb_stat_store *store)
{
    if (store == NULL) {
        return;
    }
    KB_ASSERT(store->pins == 0);
    kb_stat_store_take_tagged(store);
    KB_LIST_FOREACH (link, &store->scopes) {
        struct kb_stat_scope *scope = KB_LIST_ENTRY(link, struct kb_stat_scope, link);

        if (scope->type == KB_STAT_SCOPE_GROUP) {
            fprintf(stderr, "kobune: the statistics of '%s' were never given back\n",
                    KB_CONTAINER_OF(scope, struct kb_stat_group, scope)->prefix);
        }
        KB_ASSERT(scope->type != KB_STAT_SCOPE_GROUP);
        kb_list_unlink(link);
        scope_free(scope);
    }
    for (uint32_t i = 0; i < store->zone_count; i++) {
        free(store->zones[i]);
    }
    free(store->zones);
    kb_map_dispose(&store->groups);
    kb_map_dispose(&store->named);
    kb_map_dispose(&store->texts);
    kb_map_dispose(&store->tagged);
    pthread_mutex_destroy(&store->tagged_lock);
    kb_stat_matcher_destroy(store->matcher);
    kb_tag_producer_destroy(store->tags);
    kb_histogram_settings_destroy(store->histogram_settings);
    KB_OBJ_CLEAR(store);
    free(store);
}

int kb_stat_store_configure(struct kb_stat_store *store,
                            const Envoy__Config__Metrics__V3__StatsConfig *config,
                            const struct kb_tag *cli_tags, size_t cli_tag_count,
                            struct kb_diag *diag)
{
    uint32_t errors = diag->error_count;

    KB_ASSERT(store->matcher == NULL && store->tags == NULL && store->histogram_settings == NULL);
    if (config != NULL || cli_tag_count > 0) {
        store->tags = kb_tag_producer_create(config, cli_tags, cli_tag_count, diag);
    }
    store->matcher = kb_stat_matcher_create(config, diag);
    store->histogram_settings = kb_histogram_settings_create(config, diag);
    return diag->error_count == errors ? 0 : KB_ECONFIG;
}

struct kb_tag_producer *kb_stat_store_tags(struct kb_stat_store *store)
{
    if (store->tags == NULL) {
        store->tags = kb_tag_producer_create(NULL, NULL, 0, NULL);
    }
    return store->tags;
}

void kb_stat_scope_add(struct kb_stat_store *store, struct kb_stat_scope *scope)
{
    kb_list_push_back(&store->scopes, &scope->link);
    store->scope_count++;
}

static void gone_free(struct kb_stat_store *store)
{
    struct kb_list *link;

    while ((link = kb_list_pop_front(&store->gone)) != NULL) {
        scope_free(KB_LIST_ENTRY(link, struct kb_stat_scope, link));
    }
    store->gone_count = 0;
}

void kb_stat_scope_remove(struct kb_stat_store *store, struct kb_stat_scope *scope)
{
    kb_list_unlink(&scope->link);
    store->scope_count--;
    if (store->pins == 0) {
        scope_free(scope);
        return;
    }
    scope->gone = true;
    kb_list_push_back(&store->gone, &scope->link);
    if (++store->gone_count > KB_STAT_GONE_MAX) {
        /* A reader that does not read must not hold memory for ever. */
        store->pins = 0;
        store->pin_epoch++;
        gone_free(store);
    }
}

uint64_t kb_stat_store_pin(struct kb_stat_store *store)
{
    store->pins++;
    return store->pin_epoch;
}

void kb_stat_store_unpin(struct kb_stat_store *store, uint64_t epoch)
{
    if (epoch != store->pin_epoch) {
        return;
    }
    KB_ASSERT(store->pins > 0);
    if (--store->pins == 0) {
        gone_free(store);
    }
}

static struct kb_stat_group *group_new(struct kb_str prefix)
{
    struct kb_stat_group *group = kb_calloc(1, sizeof(*group) + prefix.len + 1);

    KB_ASSERT(prefix.len <= UINT32_MAX);
    for (size_t i = 0; i < prefix.len; i++) {
        /* As Envoy does for every scope: a colon would not survive in statsd. */
        group->prefix[i] = prefix.p[i] == ':' ? '_' : prefix.p[i];
    }
    group->scope = (struct kb_stat_scope){
        .name = group->prefix, .name_len = (uint32_t)prefix.len, .type = KB_STAT_SCOPE_GROUP};
    group->refs = 1;
    return group;
}

struct kb_stat_group *kb_stat_group_create(struct kb_stat_store *store, struct kb_str prefix,
                                           const struct kb_stat_schema *schema)
{
    struct kb_stat_group *group = group_new(prefix);
    struct kb_stat_group *first;

    KB_ASSERT(store != NULL && store->kb_magic == (uint32_t)KB_MAGIC_kb_stat_store &&
              schema != NULL);
    first = kb_map_get(&store->groups, kb_stat_group_prefix(group));
    for (struct kb_stat_group *other = first; other != NULL; other = other->same_prefix) {
        if (other->schema == schema) {
            free(group);
            other->refs++;
            return other;
        }
    }
    group->store = store;
    group->schema = schema;
    if (first == NULL) {
        kb_map_put(&store->groups, kb_stat_group_prefix(group), group);
    } else {
        group->same_prefix = first->same_prefix;
        first->same_prefix = group;
    }
    kb_stat_scope_add(store, &group->scope);
    return group;
}

/* Takes the group out of the store's names. */
static void group_forget(struct kb_stat_group *group)
{
    struct kb_map *groups = &group->store->groups;
    struct kb_stat_group *before = kb_map_get(groups, kb_stat_group_prefix(group));

    if (before == group) {
        kb_map_remove(groups, kb_stat_group_prefix(group));
        if (group->same_prefix != NULL) {
            kb_map_put(groups, kb_stat_group_prefix(group->same_prefix), group->same_prefix);
        }
        return;
    }
    while (before->same_prefix != group) {
        before = before->same_prefix;
    }
    before->same_prefix = group->same_prefix;
}

static void block_destroy(struct kb_stat_block *block)
{
    for (unsigned i = 0; block->histograms != NULL && i < block->group->schema->histogram_count;
         i++) {
        kb_histogram_destroy(block->histograms[i]);
    }
    free(block->histograms);
    kb_stat_codes_destroy(block->codes);
    free(block);
}

void kb_stat_group_destroy(struct kb_stat_group *group)
{
    if (group == NULL || --group->refs > 0) {
        return;
    }
    group_forget(group);
    kb_stat_scope_remove(group->store, &group->scope);
}

void kb_stat_group_free(struct kb_stat_group *group)
{
    for (uint32_t i = 0; i <= group->store->worker_count; i++) {
        struct kb_stat_block *block = kb_stat_group_peek(group, i);

        if (block != NULL) {
            block_destroy(block);
        }
    }
    free(group->blocks);
    if (group->totals != NULL) {
        for (unsigned i = 0;
             group->totals->histograms != NULL && i < group->schema->histogram_count; i++) {
            kb_histogram_total_dispose(&group->totals->histograms[i]);
        }
        free(group->totals->histograms);
        free(group->totals->bases);
        kb_stat_code_totals_destroy(group->totals->codes);
        free(group->totals);
    }
    free(group);
}

/* The group's table of blocks; several workers may be the first at once. */
static struct kb_stat_block **group_blocks(struct kb_stat_group *group)
{
    struct kb_stat_block **blocks = __atomic_load_n(&group->blocks, __ATOMIC_ACQUIRE);
    struct kb_stat_block **made;

    if (KB_LIKELY(blocks != NULL)) {
        return blocks;
    }
    made = kb_calloc((size_t)group->store->worker_count + 1, sizeof(struct kb_stat_block *));
    if (__atomic_compare_exchange_n(&group->blocks, &blocks, made, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
        return made;
    }
    free(made);
    return blocks;
}

/* Workers' blocks have cache lines of their own; the main thread counts rarely, in many groups. */
static size_t block_size(const struct kb_stat_group *group, uint32_t worker_index)
{
    unsigned cells = kb_stat_schema_cells(group->schema);
    size_t size = sizeof(struct kb_stat_block) + cells * sizeof(uint64_t) + cells;

    return worker_index == group->store->worker_count
               ? size
               : (size + BLOCK_ALIGN - 1) & ~(size_t)(BLOCK_ALIGN - 1);
}

struct kb_stat_block *kb_stat_group_block(struct kb_stat_group *group, uint32_t worker_index)
{
    struct kb_stat_block **blocks = group_blocks(group);
    struct kb_stat_block *block;
    size_t size;

    KB_ASSERT(worker_index <= group->store->worker_count);
    if (blocks[worker_index] != NULL) {
        return blocks[worker_index];
    }
    size = block_size(group, worker_index);
    if (worker_index == group->store->worker_count) {
        block = kb_calloc(1, size);
    } else {
        block = aligned_alloc(BLOCK_ALIGN, size);
        KB_ASSERT(block != NULL);
        memset(block, 0, size);
    }
    block->group = group;
    block->gauge_used = (uint8_t *)&block->cells[kb_stat_schema_cells(group->schema)];
    __atomic_store_n(&blocks[worker_index], block, __ATOMIC_RELEASE);
    return block;
}

void kb_stat_record(struct kb_stat_block *block, unsigned id, uint64_t value)
{
    const struct kb_stat_schema *schema = block->group->schema;
    unsigned at = id - kb_stat_schema_cells(schema);
    struct kb_histogram *histogram;

    KB_DASSERT(id >= kb_stat_schema_cells(schema) && id < schema->count);
    if (KB_UNLIKELY(block->histograms == NULL)) {
        struct kb_histogram **made =
            kb_calloc(schema->histogram_count, sizeof(struct kb_histogram *));

        __atomic_store_n(&block->histograms, made, __ATOMIC_RELEASE);
    }
    histogram = block->histograms[at];
    if (KB_UNLIKELY(histogram == NULL)) {
        histogram = kb_histogram_create();
        __atomic_store_n(&block->histograms[at], histogram, __ATOMIC_RELEASE);
    }
    kb_histogram_record(histogram, value);
}

void kb_stat_group_set_provider(struct kb_stat_group *group, kb_stat_provide_fn provide, void *arg)
{
    if (provide == NULL && arg != group->provide_arg) {
        return;
    }
    group->provide = provide;
    group->provide_arg = arg;
}

void kb_stat_group_set_hidden(struct kb_stat_group *group, const uint16_t *ids, size_t count)
{
    group->hidden = ids;
    group->hidden_count = (uint16_t)count;
}

void kb_stat_group_set_from_first_block(struct kb_stat_group *group)
{
    group->from_first_block = true;
}

bool kb_stat_group_hides(const struct kb_stat_group *group, unsigned id)
{
    if (group->from_first_block && !kb_stat_group_has_blocks(group)) {
        return true;
    }
    for (unsigned i = 0; i < group->hidden_count; i++) {
        if (group->hidden[i] == id) {
            return true;
        }
    }
    return false;
}

struct kb_str kb_stat_group_prefix(const struct kb_stat_group *group)
{
    return kb_str_make(group->scope.name, group->scope.name_len);
}

struct kb_stat_group_totals *kb_stat_group_totals(struct kb_stat_group *group)
{
    if (group->totals == NULL) {
        group->totals = kb_calloc(1, sizeof(*group->totals));
    }
    return group->totals;
}

/* The cells of all workers together, without base. */
static uint64_t group_sum(const struct kb_stat_group *group, unsigned id)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i <= group->store->worker_count; i++) {
        const struct kb_stat_block *block = kb_stat_group_peek(group, i);

        if (block != NULL) {
            sum += __atomic_load_n(&block->cells[id], __ATOMIC_RELAXED);
        }
    }
    return sum;
}

/* Without base. */
static uint64_t group_total(const struct kb_stat_group *group, unsigned id)
{
    uint64_t value;

    if (group->provide != NULL && group->provide(group->provide_arg, id, &value)) {
        return value;
    }
    return kb_stat_group_has_blocks(group) ? group_sum(group, id) : 0;
}

uint64_t kb_stat_group_value(const struct kb_stat_group *group, unsigned id)
{
    uint64_t value;
    uint64_t base = 0;

    KB_ASSERT(id < kb_stat_schema_cells(group->schema));
    value = group_total(group, id);
    if (group->totals != NULL && group->totals->bases != NULL) {
        base = group->totals->bases[id];
    }
    return value >= base ? value - base : value; /* a new provider counts from 0 */
}

bool kb_stat_group_used(const struct kb_stat_group *group, unsigned id)
{
    uint64_t ignored;

    if (group->provide != NULL && group->provide(group->provide_arg, id, &ignored)) {
        return true;
    }
    for (uint32_t i = 0; kb_stat_group_has_blocks(group) && i <= group->store->worker_count; i++) {
        const struct kb_stat_block *block = kb_stat_group_peek(group, i);

        if (block != NULL && (__atomic_load_n(&block->gauge_used[id], __ATOMIC_RELAXED) != 0 ||
                              __atomic_load_n(&block->cells[id], __ATOMIC_RELAXED) != 0)) {
            return true;
        }
    }
    return false;
}

const struct kb_histogram_total *kb_stat_group_histogram(const struct kb_stat_group *group,
                                                         unsigned id)
{
    unsigned cells = kb_stat_schema_cells(group->schema);
    const struct kb_histogram_total *total;

    KB_ASSERT(id >= cells && id < group->schema->count);
    if (group->totals == NULL || group->totals->histograms == NULL) {
        return NULL;
    }
    total = &group->totals->histograms[id - cells];
    return total->merged ? total : NULL;
}

bool kb_stat_group_waits(const struct kb_stat_group *group, unsigned id)
{
    const struct kb_stat_def *def = &group->schema->defs[id];
    unsigned cells = kb_stat_schema_cells(group->schema);

    if (!def->on_first_use) {
        return false;
    }
    if (def->kind != KB_STAT_HISTOGRAM) {
        return !kb_stat_group_used(group, id);
    }
    for (uint32_t i = 0; kb_stat_group_has_blocks(group) && i <= group->store->worker_count; i++) {
        const struct kb_stat_block *block = kb_stat_group_peek(group, i);
        struct kb_histogram **histograms =
            block == NULL ? NULL : __atomic_load_n(&block->histograms, __ATOMIC_ACQUIRE);

        if (histograms != NULL &&
            __atomic_load_n(&histograms[id - cells], __ATOMIC_ACQUIRE) != NULL) {
            return false;
        }
    }
    return true;
}

/* The recorders of histogram `at` of every worker; returns whether there is one. */
static bool group_recorders(const struct kb_stat_group *group, unsigned at,
                            struct kb_histogram **recorders)
{
    bool any = false;

    for (uint32_t i = 0; i <= group->store->worker_count; i++) {
        const struct kb_stat_block *block = kb_stat_group_peek(group, i);
        struct kb_histogram **histograms =
            block == NULL ? NULL : __atomic_load_n(&block->histograms, __ATOMIC_ACQUIRE);

        recorders[i] =
            histograms == NULL ? NULL : __atomic_load_n(&histograms[at], __ATOMIC_ACQUIRE);
        any = any || recorders[i] != NULL;
    }
    return any;
}

static void group_flush(struct kb_stat_group *group)
{
    struct kb_histogram *recorders[KB_WORKERS_MAX + 1];

    if (!kb_stat_group_has_blocks(group)) {
        return;
    }
    for (unsigned at = 0; at < group->schema->histogram_count; at++) {
        struct kb_stat_group_totals *totals;

        if (!group_recorders(group, at, recorders)) {
            continue;
        }
        totals = kb_stat_group_totals(group);
        if (totals->histograms == NULL) {
            totals->histograms =
                kb_calloc(group->schema->histogram_count, sizeof(struct kb_histogram_total));
        }
        kb_histogram_merge(&totals->histograms[at], recorders,
                           (size_t)group->store->worker_count + 1);
    }
    kb_stat_codes_flush(group);
}

void kb_stat_store_flush(struct kb_stat_store *store)
{
    kb_stat_store_take_tagged(store);
    KB_LIST_FOREACH (link, &store->scopes) {
        struct kb_stat_scope *scope = KB_LIST_ENTRY(link, struct kb_stat_scope, link);

        if (scope->type == KB_STAT_SCOPE_GROUP) {
            group_flush(KB_CONTAINER_OF(scope, struct kb_stat_group, scope));
        } else if (scope->type == KB_STAT_SCOPE_NAMED) {
            kb_stat_named_flush(KB_CONTAINER_OF(scope, struct kb_stat_named, scope));
        }
    }
    if (store->flushed != NULL) {
        store->flushed(store->flushed_arg);
    }
}

void kb_stat_store_when_flushed(struct kb_stat_store *store, void (*flushed)(void *arg), void *arg)
{
    store->flushed = flushed;
    store->flushed_arg = arg;
}

static void group_reset(struct kb_stat_group *group)
{
    unsigned cells = kb_stat_schema_cells(group->schema);

    if (!kb_stat_group_has_blocks(group) && group->provide == NULL) {
        return;
    }
    for (unsigned id = 0; id < cells; id++) {
        uint64_t sum;

        if (group->schema->defs[id].kind != KB_STAT_COUNTER ||
            (sum = group_total(group, id)) == 0) {
            continue;
        }
        if (kb_stat_group_totals(group)->bases == NULL) {
            group->totals->bases = kb_calloc(cells, sizeof(uint64_t));
        }
        group->totals->bases[id] = sum;
    }
    kb_stat_codes_reset(group);
}

void kb_stat_store_reset_counters(struct kb_stat_store *store)
{
    kb_stat_store_take_tagged(store);
    KB_LIST_FOREACH (link, &store->scopes) {
        struct kb_stat_scope *scope = KB_LIST_ENTRY(link, struct kb_stat_scope, link);

        if (scope->type == KB_STAT_SCOPE_GROUP) {
            group_reset(KB_CONTAINER_OF(scope, struct kb_stat_group, scope));
        } else if (scope->type == KB_STAT_SCOPE_NAMED) {
            kb_stat_named_reset(KB_CONTAINER_OF(scope, struct kb_stat_named, scope));
        }
    }
}

static size_t histogram_bytes(const struct kb_histogram *histogram)
{
    size_t bytes = sizeof(*histogram);

    if (histogram->decades != NULL) {
        bytes += KB_HISTOGRAM_DECADES * sizeof(histogram->decades[0]);
    }
    for (unsigned i = 0; i < KB_HISTOGRAM_DECADES; i++) {
        bytes += kb_histogram_decade(histogram, i) == NULL
                     ? 0
                     : KB_HISTOGRAM_DECADE_BINS * sizeof(uint32_t);
    }
    return bytes;
}

size_t kb_stat_group_bytes(const struct kb_stat_group *group)
{
    size_t bytes = sizeof(*group) + group->scope.name_len;

    if (!kb_stat_group_has_blocks(group)) {
        return bytes;
    }
    bytes += ((size_t)group->store->worker_count + 1) * sizeof(struct kb_stat_block *);
    for (uint32_t i = 0; i <= group->store->worker_count; i++) {
        const struct kb_stat_block *block = kb_stat_group_peek(group, i);

        if (block == NULL) {
            continue;
        }
        bytes += block_size(group, i);
        for (unsigned at = 0; block->histograms != NULL && at < group->schema->histogram_count;
             at++) {
            bytes += sizeof(struct kb_histogram *);
            bytes += block->histograms[at] == NULL ? 0 : histogram_bytes(block->histograms[at]);
        }
    }
    return bytes + kb_stat_codes_bytes(group);
}
