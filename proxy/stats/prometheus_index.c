/* SPDX-License-Identifier: Apache-2.0 */
/* The index behind Prometheus output: which statistics have which extracted name. Thousands of
 * clusters whose names come out alike share one shape, so that the index costs a few bytes for
 * each. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/prometheus_internal.h"

int kb_prometheus_name_cmp(struct kb_str a, struct kb_str b)
{
    size_t common = KB_MIN(a.len, b.len);

    for (size_t i = 0; i < common; i++) {
        if (a.p[i] != b.p[i]) {
            if (a.p[i] == '.' || b.p[i] == '.') {
                return a.p[i] == '.' ? -1 : 1;
            }
            return (unsigned char)a.p[i] < (unsigned char)b.p[i] ? -1 : 1;
        }
    }
    return a.len < b.len ? -1 : a.len > b.len;
}

enum kb_prometheus_section kb_prometheus_section_of(const struct kb_stat_scope *scope,
                                                    enum kb_stat_kind kind)
{
    if (scope->type == KB_STAT_SCOPE_TEXT) {
        return KB_PROMETHEUS_TEXTS;
    }
    switch (kind) {
    case KB_STAT_COUNTER:
        return KB_PROMETHEUS_COUNTERS;
    case KB_STAT_GAUGE:
        return KB_PROMETHEUS_GAUGES;
    case KB_STAT_HISTOGRAM:
        break;
    }
    return KB_PROMETHEUS_HISTOGRAMS;
}

struct kb_str kb_prometheus_full_name(struct kb_prometheus *prometheus,
                                      const struct kb_stat_scope *scope, struct kb_str suffix)
{
    size_t len = scope->name_len + suffix.len;
    struct kb_str name;

    if (prometheus->name_room < len) {
        prometheus->name_room = len + 128;
        prometheus->name = kb_realloc(prometheus->name, prometheus->name_room);
    }
    memcpy(prometheus->name, scope->name, scope->name_len);
    if (suffix.len > 0) {
        memcpy(prometheus->name + scope->name_len, suffix.p, suffix.len);
    }
    name = kb_str_make(prometheus->name, len);
    if (kb_stat_matcher_rejects(prometheus->store->matcher, name) ||
        !kb_stats_params_want(prometheus->params, name)) {
        return KB_STR_NULL;
    }
    return name;
}

void kb_prometheus_tags(struct kb_prometheus *prometheus, const struct kb_stat_scope *scope,
                        struct kb_str name)
{
    if (!kb_stat_scope_tags(scope, &prometheus->tags)) {
        kb_tag_extract(kb_stat_store_tags(prometheus->store), name, &prometheus->tags);
    }
}

/* The family of a statistic, made when it is new; KB_PROMETHEUS_NONE when the statistic is not
 * shown. */
static uint32_t family_of(struct kb_prometheus *prometheus, const struct kb_stat_scope *scope,
                          struct kb_str suffix, enum kb_stat_kind kind)
{
    enum kb_prometheus_section section = kb_prometheus_section_of(scope, kind);
    struct kb_str name = kb_prometheus_full_name(prometheus, scope, suffix);
    struct kb_prometheus_family family = {.section = section};
    void *known;

    if (name.p == NULL) {
        return KB_PROMETHEUS_NONE;
    }
    kb_prometheus_tags(prometheus, scope, name);
    name = kb_str_make(prometheus->tags.name, prometheus->tags.name_len);
    known = kb_map_get(&prometheus->family_map[section], name);
    if (known != NULL) {
        return (uint32_t)((uintptr_t)known - 1);
    }
    family.name = kb_str_dup(&prometheus->arena, name);
    kb_vec_push(&prometheus->families, family);
    kb_map_put(&prometheus->family_map[section], family.name,
               (void *)(uintptr_t)prometheus->families.len);
    return (uint32_t)prometheus->families.len - 1;
}

/* Adds the scope to the shape with these families, made when it is new. */
static void shape_take(struct kb_prometheus *prometheus, uint32_t scope,
                       const struct kb_stat_schema *schema, const uint32_t *families)
{
    struct kb_prometheus_shape shape = {.schema = schema};
    struct kb_str key =
        kb_str_make((const char *)families, (schema->count + 2u) * sizeof(uint32_t));
    void *known = kb_map_get(&prometheus->shape_map, key);

    if (known != NULL) {
        kb_vec_push(&prometheus->shapes.items[(uintptr_t)known - 1].scopes, scope);
        return;
    }
    shape.families = kb_arena_alloc(&prometheus->arena, key.len, sizeof(uint64_t));
    memcpy(shape.families, families, key.len);
    kb_vec_push(&shape.scopes, scope);
    kb_vec_push(&prometheus->shapes, shape);
    kb_map_put(&prometheus->shape_map, kb_str_make((const char *)shape.families, key.len),
               (void *)(uintptr_t)prometheus->shapes.len);
    for (unsigned id = 0; id < schema->count; id++) {
        struct kb_prometheus_member member = {(uint32_t)prometheus->shapes.len - 1, (uint16_t)id};

        if (families[id] != KB_PROMETHEUS_NONE) {
            kb_vec_push(&prometheus->families.items[families[id]].members, member);
        }
    }
}

static void schema_index(struct kb_prometheus *prometheus, uint32_t scope_number,
                         const struct kb_stat_group *group)
{
    const struct kb_stat_schema *schema = group->schema;
    /* The schema's address ends the key, so that two schemas never share a shape. */
    uint32_t *families = kb_malloc((schema->count + 2u) * sizeof(uint32_t));
    uintptr_t address = (uintptr_t)schema;
    bool any = false;

    memset(&families[schema->count], 0, 2 * sizeof(uint32_t));
    memcpy(&families[schema->count], &address, sizeof(address));
    for (unsigned id = 0; id < schema->count; id++) {
        const struct kb_stat_def *def = &schema->defs[id];

        families[id] =
            kb_stat_group_hides(group, id)
                ? KB_PROMETHEUS_NONE
                : family_of(prometheus, &group->scope, kb_str_from_cstr(def->name), def->kind);
        any = any || families[id] != KB_PROMETHEUS_NONE;
    }
    if (any) {
        shape_take(prometheus, scope_number, schema, families);
    }
    free(families);
}

static void dynamic_index(struct kb_prometheus *prometheus, uint32_t scope_number,
                          const struct kb_stat_scope *scope)
{
    static const enum kb_stat_phase phases[] = {KB_STAT_PHASE_TEXTS, KB_STAT_PHASE_NUMBERS,
                                                KB_STAT_PHASE_HISTOGRAMS};

    for (size_t i = 0; i < KB_ARRAY_LEN(phases); i++) {
        kb_stat_leaves_fill(&prometheus->leaves, scope, phases[i],
                            scope->type != KB_STAT_SCOPE_GROUP, true);
        KB_VEC_FOREACH (leaf, &prometheus->leaves.list) {
            uint32_t number =
                family_of(prometheus, scope, leaf->suffix, (enum kb_stat_kind)leaf->kind);
            struct kb_prometheus_family *family;

            if (number == KB_PROMETHEUS_NONE) {
                continue;
            }
            family = &prometheus->families.items[number];
            if (family->dynamic.len == 0 ||
                family->dynamic.items[family->dynamic.len - 1] != scope_number) {
                kb_vec_push(&family->dynamic, scope_number);
            }
        }
    }
}

/* Whether anything of the scope was ever written. */
static bool scope_used(const struct kb_stat_scope *scope)
{
    const struct kb_stat_group *group;

    if (scope->type != KB_STAT_SCOPE_GROUP) {
        return true;
    }
    group = KB_CONTAINER_OF(scope, struct kb_stat_group, scope);
    return kb_stat_group_has_blocks(group) || group->provide != NULL;
}

static int order_cmp(const void *a, const void *b, void *arg)
{
    const struct kb_prometheus *prometheus = arg;
    const struct kb_prometheus_family *x = &prometheus->families.items[*(const uint32_t *)a];
    const struct kb_prometheus_family *y = &prometheus->families.items[*(const uint32_t *)b];

    if (x->section != y->section) {
        return x->section < y->section ? -1 : 1;
    }
    return kb_prometheus_name_cmp(x->name, y->name);
}

static void index_finish(struct kb_prometheus *prometheus)
{
    size_t count = prometheus->families.len;

    prometheus->order = kb_calloc(count + 1, sizeof(*prometheus->order));
    for (size_t i = 0; i < count; i++) {
        prometheus->order[i] = (uint32_t)i;
    }
    qsort_r(prometheus->order, count, sizeof(*prometheus->order), order_cmp, prometheus);
}

bool kb_prometheus_index_step(struct kb_prometheus *prometheus)
{
    const struct kb_stat_scope *scope;
    uint32_t number = (uint32_t)prometheus->indexed;

    if (prometheus->indexed == prometheus->scope_count) {
        if (prometheus->order == NULL) {
            index_finish(prometheus);
        }
        return false;
    }
    scope = prometheus->scopes[prometheus->indexed++];
    if ((prometheus->params->used_only && !scope_used(scope)) ||
        (scope->type == KB_STAT_SCOPE_TEXT && !prometheus->params->text_readouts)) {
        return true;
    }
    if (scope->type == KB_STAT_SCOPE_GROUP) {
        schema_index(prometheus, number, KB_CONTAINER_OF(scope, struct kb_stat_group, scope));
    }
    dynamic_index(prometheus, number, scope);
    return true;
}
