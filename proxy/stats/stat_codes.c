/* SPDX-License-Identifier: Apache-2.0 */
/* Response code counters: a worker counts each code once per variant, and "upstream_rq_2xx" and
 * "upstream_rq_completed" are sums made when somebody reads. Cells come in small nodes that never
 * move, so that the main thread can read them while the worker adds more. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/stat_internal.h"
#include "proxy/stats/stats_render.h"

static struct kb_stat_codes *block_variant(struct kb_stat_block *block, uint32_t variant)
{
    struct kb_stat_codes *codes = block->codes;

    while (codes != NULL && codes->variant != variant) {
        codes = codes->next;
    }
    if (KB_LIKELY(codes != NULL)) {
        return codes;
    }
    codes = kb_calloc(1, sizeof(*codes));
    codes->variant = variant;
    codes->next = block->codes;
    __atomic_store_n(&block->codes, codes, __ATOMIC_RELEASE);
    return codes;
}

static void cell_inc(struct kb_stat_code_cell *cell)
{
    __atomic_store_n(&cell->count, cell->count + 1, __ATOMIC_RELAXED);
}

void kb_stat_code_inc(struct kb_stat_block *block, enum kb_stat_code_variant variant, unsigned code)
{
    struct kb_stat_codes *codes = block_variant(block, (uint32_t)variant);
    struct kb_stat_code_node *node;

    for (node = codes->nodes; node != NULL; node = node->next) {
        for (uint32_t i = 0; i < node->used; i++) {
            if (node->cells[i].code == code) {
                cell_inc(&node->cells[i]);
                return;
            }
        }
    }
    node = codes->nodes;
    if (node == NULL || node->used == KB_STAT_CODES_PER_NODE) {
        node = kb_calloc(1, sizeof(*node));
        node->next = codes->nodes;
    }
    node->cells[node->used] = (struct kb_stat_code_cell){.count = 1, .code = (uint16_t)code};
    __atomic_store_n(&node->used, node->used + 1, __ATOMIC_RELEASE);
    __atomic_store_n(&codes->nodes, node, __ATOMIC_RELEASE);
}

void kb_stat_code_time(struct kb_stat_block *block, enum kb_stat_code_variant variant, uint64_t ms)
{
    struct kb_stat_codes *codes;

    if (variant == KB_STAT_CODE_PLAIN && block->group->schema == &kb_stat_schema_cluster) {
        kb_stat_record(block, KB_STAT_CLUSTER_UPSTREAM_RQ_TIME, ms);
        return;
    }
    codes = block_variant(block, (uint32_t)variant);
    if (KB_UNLIKELY(codes->time == NULL)) {
        __atomic_store_n(&codes->time, kb_histogram_create(), __ATOMIC_RELEASE);
    }
    kb_histogram_record(codes->time, ms);
}

enum kb_stat_code_variant kb_stat_zone_key(struct kb_stat_store *store, struct kb_str from,
                                           struct kb_str to)
{
    static const char format[] = "zone.";
    size_t len = sizeof(format) - 1 + from.len + 1 + to.len + 1;
    char *name = kb_malloc(len + 1);
    uint32_t at = 0;

    snprintf(name, len + 1, "%s%.*s.%.*s.", format, KB_STR_ARG(from), KB_STR_ARG(to));
    while (at < store->zone_count && strcmp(store->zones[at], name) != 0) {
        at++;
    }
    if (at < store->zone_count) {
        free(name);
    } else {
        store->zones = kb_realloc(store->zones, (store->zone_count + 1) * sizeof(*store->zones));
        store->zones[store->zone_count++] = name;
    }
    return (enum kb_stat_code_variant)(KB_STAT_CODE_ZONE + at);
}

struct kb_str kb_stat_code_variant_name(const struct kb_stat_store *store, uint32_t variant)
{
    static const char *const names[KB_STAT_CODE_ZONE] = {"", "external.", "internal.", "canary.",
                                                         "retry."};

    if (variant < KB_STAT_CODE_ZONE) {
        return kb_str_from_cstr(names[variant]);
    }
    KB_ASSERT(variant - KB_STAT_CODE_ZONE < store->zone_count);
    return kb_str_from_cstr(store->zones[variant - KB_STAT_CODE_ZONE]);
}

void kb_stat_codes_destroy(struct kb_stat_codes *codes)
{
    while (codes != NULL) {
        struct kb_stat_codes *next = codes->next;

        for (struct kb_stat_code_node *node = codes->nodes; node != NULL;) {
            struct kb_stat_code_node *next_node = node->next;

            free(node);
            node = next_node;
        }
        kb_histogram_destroy(codes->time);
        free(codes);
        codes = next;
    }
}

void kb_stat_code_totals_destroy(struct kb_stat_code_total *totals)
{
    while (totals != NULL) {
        struct kb_stat_code_total *next = totals->next;

        kb_histogram_total_dispose(&totals->time);
        free(totals->bases);
        free(totals);
        totals = next;
    }
}

static const struct kb_stat_codes *group_codes(const struct kb_stat_group *group,
                                               uint32_t worker_index)
{
    const struct kb_stat_block *block = kb_stat_group_peek(group, worker_index);

    return block == NULL ? NULL : __atomic_load_n(&block->codes, __ATOMIC_ACQUIRE);
}

static struct kb_stat_code_total *total_find(const struct kb_stat_group *group, uint32_t variant)
{
    struct kb_stat_code_total *total = group->totals == NULL ? NULL : group->totals->codes;

    while (total != NULL && total->variant != variant) {
        total = total->next;
    }
    return total;
}

static struct kb_stat_code_total *total_get(struct kb_stat_group *group, uint32_t variant)
{
    struct kb_stat_code_total *total = total_find(group, variant);

    if (total == NULL) {
        total = kb_calloc(1, sizeof(*total));
        total->variant = variant;
        total->next = kb_stat_group_totals(group)->codes;
        group->totals->codes = total;
    }
    return total;
}

static const struct kb_stat_codes *codes_find(const struct kb_stat_codes *codes, uint32_t variant)
{
    while (codes != NULL && codes->variant != variant) {
        codes = codes->next;
    }
    return codes;
}

/* Calls visit once for every variant that any worker has. */
static void each_variant(const struct kb_stat_group *group,
                         void (*visit)(void *arg, uint32_t variant), void *arg)
{
    for (uint32_t i = 0; kb_stat_group_has_blocks(group) && i <= group->store->worker_count; i++) {
        for (const struct kb_stat_codes *codes = group_codes(group, i); codes != NULL;
             codes = codes->next) {
            bool seen = false;

            for (uint32_t k = 0; k < i && !seen; k++) {
                seen = codes_find(group_codes(group, k), codes->variant) != NULL;
            }
            if (!seen) {
                visit(arg, codes->variant);
            }
        }
    }
}

/* Sums of one variant over all workers. */
struct code_sums {
    struct kb_stat_code_cell *cells;
    uint32_t count;
    uint32_t room;
};

static void sums_add(struct code_sums *sums, uint16_t code, uint64_t count)
{
    for (uint32_t i = 0; i < sums->count; i++) {
        if (sums->cells[i].code == code) {
            sums->cells[i].count += count;
            return;
        }
    }
    if (sums->count == sums->room) {
        sums->room = sums->room == 0 ? 8 : sums->room * 2;
        sums->cells = kb_realloc(sums->cells, sums->room * sizeof(*sums->cells));
    }
    sums->cells[sums->count++] = (struct kb_stat_code_cell){.count = count, .code = code};
}

static struct code_sums sums_of(const struct kb_stat_group *group, uint32_t variant)
{
    struct code_sums sums = {0};

    for (uint32_t i = 0; i <= group->store->worker_count; i++) {
        const struct kb_stat_codes *codes = codes_find(group_codes(group, i), variant);
        const struct kb_stat_code_node *node =
            codes == NULL ? NULL : __atomic_load_n(&codes->nodes, __ATOMIC_ACQUIRE);

        for (; node != NULL; node = node->next) {
            uint32_t used = __atomic_load_n(&node->used, __ATOMIC_ACQUIRE);

            for (uint32_t k = 0; k < used; k++) {
                sums_add(&sums, node->cells[k].code,
                         __atomic_load_n(&node->cells[k].count, __ATOMIC_RELAXED));
            }
        }
    }
    return sums;
}

static void flush_variant(void *arg, uint32_t variant)
{
    struct kb_stat_group *group = arg;
    struct kb_histogram *recorders[KB_WORKERS_MAX + 1];
    bool any = false;

    for (uint32_t i = 0; i <= group->store->worker_count; i++) {
        const struct kb_stat_codes *codes = codes_find(group_codes(group, i), variant);

        recorders[i] = codes == NULL ? NULL : __atomic_load_n(&codes->time, __ATOMIC_ACQUIRE);
        any = any || recorders[i] != NULL;
    }
    if (any) {
        kb_histogram_merge(&total_get(group, variant)->time, recorders,
                           (size_t)group->store->worker_count + 1);
    }
}

void kb_stat_codes_flush(struct kb_stat_group *group)
{
    each_variant(group, flush_variant, group);
}

static void reset_variant(void *arg, uint32_t variant)
{
    struct kb_stat_group *group = arg;
    struct kb_stat_code_total *total = total_get(group, variant);
    struct code_sums sums = sums_of(group, variant);

    free(total->bases);
    total->bases = sums.cells;
    total->base_count = sums.count;
}

void kb_stat_codes_reset(struct kb_stat_group *group)
{
    each_variant(group, reset_variant, group);
}

static bool has_times(const struct kb_stat_group *group, uint32_t variant)
{
    for (uint32_t i = 0; i <= group->store->worker_count; i++) {
        const struct kb_stat_codes *codes = codes_find(group_codes(group, i), variant);

        if (codes != NULL && __atomic_load_n(&codes->time, __ATOMIC_ACQUIRE) != NULL) {
            return true;
        }
    }
    return false;
}

struct code_visit {
    const struct kb_stat_group *group;
    kb_stat_code_visit_fn visit;
    void *arg;
};

static void visit_variant(void *arg, uint32_t variant)
{
    const struct code_visit *v = arg;
    struct code_sums sums = sums_of(v->group, variant);
    const struct kb_stat_code_total *total = total_find(v->group, variant);

    for (uint32_t i = 0; i < sums.count; i++) {
        uint64_t base = 0;

        for (uint32_t k = 0; total != NULL && k < total->base_count; k++) {
            if (total->bases[k].code == sums.cells[i].code) {
                base = total->bases[k].count;
            }
        }
        v->visit(v->arg, variant, sums.cells[i].code, sums.cells[i].count - base, NULL);
    }
    free(sums.cells);
    if (has_times(v->group, variant)) {
        v->visit(v->arg, variant, UINT16_MAX, 0,
                 total != NULL ? &total->time : &kb_stats_no_samples);
    }
}

void kb_stat_codes_visit(const struct kb_stat_group *group, kb_stat_code_visit_fn visit, void *arg)
{
    struct code_visit v = {.group = group, .visit = visit, .arg = arg};

    each_variant(group, visit_variant, &v);
}

size_t kb_stat_codes_bytes(const struct kb_stat_group *group)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i <= group->store->worker_count; i++) {
        for (const struct kb_stat_codes *codes = group_codes(group, i); codes != NULL;
             codes = codes->next) {
            bytes += sizeof(*codes);
            for (const struct kb_stat_code_node *node = codes->nodes; node != NULL;
                 node = node->next) {
                bytes += sizeof(*node);
            }
        }
    }
    return bytes;
}
