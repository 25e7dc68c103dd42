/* SPDX-License-Identifier: Apache-2.0 */
/* The statistics of one scope as a sorted list: what its schema has, and the response codes that
 * were seen. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/stat_internal.h"
#include "proxy/stats/stat_iter.h"

static bool phase_has(enum kb_stat_phase phase, enum kb_stat_kind kind)
{
    switch (phase) {
    case KB_STAT_PHASE_TEXTS:
        return false;
    case KB_STAT_PHASE_NUMBERS:
        return kind != KB_STAT_HISTOGRAM;
    case KB_STAT_PHASE_COUNTERS:
        return kind == KB_STAT_COUNTER;
    case KB_STAT_PHASE_GAUGES:
        return kind == KB_STAT_GAUGE;
    case KB_STAT_PHASE_HISTOGRAMS:
        return kind == KB_STAT_HISTOGRAM;
    }
    return false;
}

static void schema_leaves(struct kb_stat_leaves *leaves, const struct kb_stat_group *group,
                          enum kb_stat_phase phase)
{
    const struct kb_stat_schema *schema = group->schema;

    for (unsigned id = 0; id < schema->count; id++) {
        const struct kb_stat_def *def = &schema->defs[id];
        struct kb_stat_leaf leaf = {
            .suffix = kb_str_from_cstr(def->name), .id = (uint16_t)id, .kind = (uint8_t)def->kind};

        if (!phase_has(phase, def->kind) || kb_stat_group_hides(group, id)) {
            continue;
        }
        if (kb_stat_group_waits(group, id)) {
            continue;
        }
        kb_vec_push(&leaves->list, leaf);
    }
}

struct code_fill {
    struct kb_stat_leaves *leaves;
    const struct kb_stat_store *store;
    enum kb_stat_phase phase;
};

static void code_leaf_add(struct code_fill *fill, uint32_t variant, const char *name,
                          uint64_t value)
{
    struct kb_str prefix = kb_stat_code_variant_name(fill->store, variant);
    struct kb_str suffix =
        kb_str_printf(&fill->leaves->names, "%.*supstream_rq_%s", KB_STR_ARG(prefix), name);

    /* Classes and totals are sums over codes. */
    KB_VEC_FOREACH (leaf, &fill->leaves->list) {
        if (leaf->id == KB_STAT_LEAF_CODE && kb_str_eq(leaf->suffix, suffix)) {
            leaf->value += value;
            return;
        }
    }
    kb_vec_push(
        &fill->leaves->list,
        ((struct kb_stat_leaf){
            .suffix = suffix, .id = KB_STAT_LEAF_CODE, .kind = KB_STAT_COUNTER, .value = value}));
}

static void code_visit(void *arg, uint32_t variant, uint16_t code, uint64_t count,
                       const struct kb_histogram_total *time)
{
    struct code_fill *fill = arg;
    char name[32];

    if (time != NULL) {
        struct kb_str prefix = kb_stat_code_variant_name(fill->store, variant);

        if (phase_has(fill->phase, KB_STAT_HISTOGRAM)) {
            struct kb_str suffix =
                kb_str_printf(&fill->leaves->names, "%.*supstream_rq_time", KB_STR_ARG(prefix));

            kb_vec_push(&fill->leaves->list,
                        ((struct kb_stat_leaf){.suffix = suffix,
                                               .id = KB_STAT_LEAF_CODE,
                                               .kind = KB_STAT_HISTOGRAM,
                                               .histogram = time->merged ? time : NULL}));
        }
        return;
    }
    if (!phase_has(fill->phase, KB_STAT_COUNTER)) {
        return;
    }
    code_leaf_add(fill, variant, "completed", count);
    if (code == 0) {
        return;
    }
    if (code < 100 || code >= 600) {
        code_leaf_add(fill, variant, "unknown", count);
        return;
    }
    snprintf(name, sizeof(name), "%u", code);
    code_leaf_add(fill, variant, name, count);
    snprintf(name, sizeof(name), "%uxx", code / 100);
    code_leaf_add(fill, variant, name, count);
}

static int leaf_cmp(const void *a, const void *b)
{
    return kb_str_cmp(((const struct kb_stat_leaf *)a)->suffix,
                      ((const struct kb_stat_leaf *)b)->suffix);
}

static void group_leaves(struct kb_stat_leaves *leaves, const struct kb_stat_group *group,
                         enum kb_stat_phase phase, bool with_schema, bool with_codes)
{
    struct code_fill fill = {.leaves = leaves, .store = group->store, .phase = phase};

    if (with_codes) {
        /* A cluster has this one from the start. */
        if (group->schema == &kb_stat_schema_cluster && phase_has(phase, KB_STAT_COUNTER)) {
            code_leaf_add(&fill, KB_STAT_CODE_PLAIN, "completed", 0);
        }
        kb_stat_codes_visit(group, code_visit, &fill);
    }
    if (with_schema) {
        schema_leaves(leaves, group, phase);
    }
    if (with_codes && leaves->list.len > 1) {
        qsort(leaves->list.items, leaves->list.len, sizeof(struct kb_stat_leaf), leaf_cmp);
    }
}

void kb_stat_leaves_fill(struct kb_stat_leaves *leaves, const struct kb_stat_scope *scope,
                         enum kb_stat_phase phase, bool with_schema, bool with_codes)
{
    leaves->list.len = 0;
    kb_arena_dispose(&leaves->names);
    switch ((enum kb_stat_scope_type)scope->type) {
    case KB_STAT_SCOPE_GROUP:
        group_leaves(leaves, KB_CONTAINER_OF(scope, struct kb_stat_group, scope), phase,
                     with_schema, with_codes);
        return;
    case KB_STAT_SCOPE_NAMED: {
        const struct kb_stat_named *named = KB_CONTAINER_OF(scope, struct kb_stat_named, scope);

        /* What a worker made ahead of need is not there before its first use. */
        if (with_schema && phase_has(phase, named->kind) &&
            (named->own_len == 0 || named->kind == KB_STAT_HISTOGRAM ||
             kb_stat_named_used(named))) {
            kb_vec_push(&leaves->list, ((struct kb_stat_leaf){.kind = (uint8_t)named->kind}));
        }
        return;
    }
    case KB_STAT_SCOPE_TEXT:
        if (with_schema && phase == KB_STAT_PHASE_TEXTS) {
            kb_vec_push(&leaves->list, ((struct kb_stat_leaf){.kind = KB_STAT_GAUGE}));
        }
        return;
    }
}

void kb_stat_leaves_dispose(struct kb_stat_leaves *leaves)
{
    kb_vec_dispose(&leaves->list);
    kb_arena_dispose(&leaves->names);
}

static void group_leaf_view(const struct kb_stat_group *group, const struct kb_stat_leaf *leaf,
                            struct kb_stat_view *view)
{
    if (leaf->id == KB_STAT_LEAF_CODE) {
        view->value = leaf->value;
        view->histogram = leaf->histogram;
        view->used = leaf->histogram != NULL || leaf->value > 0;
    } else if (leaf->kind == KB_STAT_HISTOGRAM) {
        view->histogram = kb_stat_group_histogram(group, leaf->id);
        view->used = view->histogram != NULL;
    } else {
        view->value = kb_stat_group_value(group, leaf->id);
        view->used = view->value != 0 || kb_stat_group_used(group, leaf->id);
    }
}

void kb_stat_leaf_view(const struct kb_stat_scope *scope, const struct kb_stat_leaf *leaf,
                       struct kb_stat_view *view)
{
    view->kind = (enum kb_stat_kind)leaf->kind;
    view->is_text = false;
    view->scope = scope;
    view->value = 0;
    view->histogram = NULL;
    view->text = KB_STR_NULL;
    switch ((enum kb_stat_scope_type)scope->type) {
    case KB_STAT_SCOPE_GROUP:
        group_leaf_view(KB_CONTAINER_OF(scope, struct kb_stat_group, scope), leaf, view);
        return;
    case KB_STAT_SCOPE_NAMED: {
        const struct kb_stat_named *named = KB_CONTAINER_OF(scope, struct kb_stat_named, scope);

        view->value = kb_stat_named_value(named);
        view->histogram = named->total.merged ? &named->total : NULL;
        view->used = view->histogram != NULL || kb_stat_named_used(named);
        return;
    }
    case KB_STAT_SCOPE_TEXT: {
        const struct kb_stat_text *text = KB_CONTAINER_OF(scope, struct kb_stat_text, scope);

        view->is_text = true;
        view->text = text->text == NULL ? KB_STR("") : kb_str_make(text->text, text->text_len);
        view->used = true;
        return;
    }
    }
}
