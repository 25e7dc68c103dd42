/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the families of the index one after the other, scope by scope. */
#include "proxy/stats/prometheus.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/number_text.h"
#include "proxy/stats/prometheus_internal.h"
#include "proxy/stats/stats_render.h"

/* Scopes that one call looks at: about a millisecond. */
#define STEP_SCOPES_INDEX 16
#define STEP_SCOPES_WRITE 1000

struct kb_prometheus *kb_prometheus_create(struct kb_stat_store *store,
                                           const struct kb_stats_params *params)
{
    struct kb_prometheus *prometheus = kb_calloc(1, sizeof(*prometheus));

    prometheus->store = store;
    prometheus->params = params;
    prometheus->epoch = kb_stat_store_pin(store);
    prometheus->scopes =
        kb_stat_scopes_sorted(store, kb_prometheus_name_cmp, &prometheus->scope_count);
    kb_arena_init(&prometheus->arena, NULL);
    return prometheus;
}

void kb_prometheus_destroy(struct kb_prometheus *prometheus)
{
    if (prometheus == NULL) {
        return;
    }
    KB_VEC_FOREACH (shape, &prometheus->shapes) {
        kb_vec_dispose(&shape->scopes);
    }
    KB_VEC_FOREACH (family, &prometheus->families) {
        kb_vec_dispose(&family->members);
        kb_vec_dispose(&family->dynamic);
    }
    for (size_t i = 0; i < KB_PROMETHEUS_SECTIONS; i++) {
        kb_map_dispose(&prometheus->family_map[i]);
    }
    kb_map_dispose(&prometheus->shape_map);
    kb_vec_dispose(&prometheus->shapes);
    kb_vec_dispose(&prometheus->families);
    kb_vec_dispose(&prometheus->family_scopes);
    kb_stat_leaves_dispose(&prometheus->leaves);
    kb_tag_result_dispose(&prometheus->tags);
    kb_arena_dispose(&prometheus->arena);
    free(prometheus->order);
    free(prometheus->name);
    free(prometheus->scopes);
    kb_stat_store_unpin(prometheus->store, prometheus->epoch);
    free(prometheus);
}

static bool is_name_char(char c)
{
    return (kb_ascii_lower(c) >= 'a' && kb_ascii_lower(c) <= 'z') || kb_ascii_is_digit(c) ||
           c == '_';
}

static void sanitized_add(struct kb_json_out *out, struct kb_str name)
{
    size_t from = 0;

    for (size_t i = 0; i < name.len; i++) {
        if (!is_name_char(name.p[i])) {
            kb_json_out_add(out, kb_str_make(name.p + from, i - from));
            kb_json_out_add(out, KB_STR("_"));
            from = i + 1;
        }
    }
    kb_json_out_add(out, kb_str_from(name, from));
}

static void label_value_add(struct kb_json_out *out, struct kb_str value)
{
    size_t from = 0;

    for (size_t i = 0; i < value.len; i++) {
        struct kb_str escape = value.p[i] == '\\'   ? KB_STR("\\\\")
                               : value.p[i] == '\n' ? KB_STR("\\n")
                               : value.p[i] == '"'  ? KB_STR("\\\"")
                                                    : KB_STR_NULL;

        if (escape.len > 0) {
            kb_json_out_add(out, kb_str_make(value.p + from, i - from));
            kb_json_out_add(out, escape);
            from = i + 1;
        }
    }
    kb_json_out_add(out, kb_str_from(value, from));
}

/* a="1",b="2" */
static void labels_add(struct kb_json_out *out, const struct kb_tag_result *tags)
{
    for (size_t i = 0; i < tags->tag_count; i++) {
        if (i > 0) {
            kb_json_out_add(out, KB_STR(","));
        }
        sanitized_add(out, tags->tags[i].name);
        kb_json_out_add(out, KB_STR("=\""));
        label_value_add(out, tags->tags[i].value);
        kb_json_out_add(out, KB_STR("\""));
    }
}

static void metric_name_add(struct kb_json_out *out, struct kb_str name)
{
    if (kb_str_starts_with(name, KB_STR(KB_STAT_CUSTOM_NAMESPACE))) {
        sanitized_add(out, kb_str_from(name, strlen(KB_STAT_CUSTOM_NAMESPACE)));
        return;
    }
    kb_json_out_add(out, KB_STR("envoy_"));
    sanitized_add(out, name);
}

static void sample_head_add(struct kb_json_out *out, const struct kb_tag_result *tags,
                            const char *suffix)
{
    metric_name_add(out, kb_str_make(tags->name, tags->name_len));
    kb_stats_out_printf(out, "%s{", suffix);
    labels_add(out, tags);
}

static void sum_and_count_add(struct kb_json_out *out, const struct kb_tag_result *tags,
                              const struct kb_histogram_total *total,
                              enum kb_histogram_period period)
{
    sample_head_add(out, tags, "_sum");
    kb_stats_out_printf(out, "} %.32g\n", kb_histogram_sum(total, period));
    sample_head_add(out, tags, "_count");
    kb_stats_out_printf(out, "} %llu\n", (unsigned long long)kb_histogram_count(total, period));
}

static void summary_add(struct kb_json_out *out, const struct kb_tag_result *tags,
                        const struct kb_histogram_total *total)
{
    double values[KB_HISTOGRAM_QUANTILES];
    char number[KB_NUMBER_TEXT_MAX];

    kb_histogram_quantile_values(total, KB_HISTOGRAM_INTERVAL, values);
    for (size_t i = 0; i < KB_HISTOGRAM_QUANTILES; i++) {
        sample_head_add(out, tags, "");
        kb_json_out_add(out, tags->tag_count > 0 ? KB_STR(",quantile=\"") : KB_STR("quantile=\""));
        kb_json_out_add(out, kb_number_text(kb_histogram_quantiles[i], number));
        kb_stats_out_printf(out, "\"} %.32g\n", values[i]);
    }
    sum_and_count_add(out, tags, total, KB_HISTOGRAM_INTERVAL);
}

static void buckets_add(struct kb_json_out *out, const struct kb_tag_result *tags,
                        const struct kb_stat_store *store, struct kb_str name,
                        const struct kb_histogram_total *total)
{
    const double *bounds;
    size_t count;
    struct kb_str separator = tags->tag_count > 0 ? KB_STR(",") : KB_STR("");

    kb_histogram_settings_find(store->histogram_settings, name, &bounds, &count);
    for (size_t i = 0; i <= count; i++) {
        uint64_t samples = i < count
                               ? kb_histogram_count_below(total, KB_HISTOGRAM_CUMULATIVE, bounds[i])
                               : kb_histogram_count(total, KB_HISTOGRAM_CUMULATIVE);

        sample_head_add(out, tags, "_bucket");
        kb_json_out_add(out, separator);
        if (i < count) {
            kb_stats_out_printf(out, "le=\"%.32g\"} %llu\n", bounds[i],
                                (unsigned long long)samples);
        } else {
            kb_stats_out_printf(out, "le=\"+Inf\"} %llu\n", (unsigned long long)samples);
        }
    }
    sum_and_count_add(out, tags, total, KB_HISTOGRAM_CUMULATIVE);
}

static void type_add(struct kb_prometheus *prometheus, struct kb_json_out *out,
                     const struct kb_prometheus_family *family)
{
    static const char *const types[KB_PROMETHEUS_SECTIONS] = {"counter", "gauge", "gauge",
                                                              "histogram"};
    bool summary = family->section == KB_PROMETHEUS_HISTOGRAMS && prometheus->params->buckets_set &&
                   prometheus->params->buckets == KB_STATS_BUCKETS_SUMMARY;

    if (prometheus->family_begun) {
        return;
    }
    prometheus->family_begun = true;
    kb_json_out_add(out, KB_STR("# TYPE "));
    metric_name_add(out, family->name);
    kb_stats_out_printf(out, " %s\n", summary ? "summary" : types[family->section]);
}

static void sample_add(struct kb_prometheus *prometheus, struct kb_json_out *out,
                       const struct kb_prometheus_family *family, struct kb_str name,
                       const struct kb_stat_view *view)
{
    const struct kb_tag_result *tags = &prometheus->tags;
    const struct kb_histogram_total *total =
        view->histogram != NULL ? view->histogram : &kb_stats_no_samples;

    type_add(prometheus, out, family);
    if (family->section == KB_PROMETHEUS_TEXTS) {
        sample_head_add(out, tags, "");
        kb_json_out_add(out,
                        tags->tag_count > 0 ? KB_STR(",text_value=\"") : KB_STR("text_value=\""));
        label_value_add(out, view->text);
        kb_json_out_add(out, KB_STR("\"} 0\n"));
    } else if (family->section != KB_PROMETHEUS_HISTOGRAMS) {
        sample_head_add(out, tags, "");
        kb_json_out_add(out, KB_STR("} "));
        kb_stats_out_u64(out, view->value);
        kb_json_out_add(out, KB_STR("\n"));
    } else if (prometheus->params->buckets_set &&
               prometheus->params->buckets == KB_STATS_BUCKETS_SUMMARY) {
        summary_add(out, tags, total);
    } else {
        buckets_add(out, tags, prometheus->store, name, total);
    }
}

/* Writes the statistic when it belongs to the family and is wanted. */
static void leaf_add(struct kb_prometheus *prometheus, struct kb_json_out *out,
                     const struct kb_prometheus_family *family, const struct kb_stat_scope *scope,
                     const struct kb_stat_leaf *leaf)
{
    struct kb_stat_view view;
    struct kb_str name;

    kb_stat_leaf_view(scope, leaf, &view);
    if (kb_prometheus_section_of(scope, view.kind) != family->section ||
        (prometheus->params->used_only && !view.used)) {
        return;
    }
    name = kb_prometheus_full_name(prometheus, scope, leaf->suffix);
    if (name.p == NULL) {
        return;
    }
    kb_prometheus_tags(prometheus, scope, name);
    if (kb_str_eq(kb_str_make(prometheus->tags.name, prometheus->tags.name_len), family->name)) {
        sample_add(prometheus, out, family, name, &view);
    }
}

/* Another shape of the schema may give the same statistic: it is written for the first. */
static bool member_is_first(const struct kb_prometheus *prometheus,
                            const struct kb_prometheus_family *family,
                            const struct kb_prometheus_member *member)
{
    const struct kb_stat_schema *schema = prometheus->shapes.items[member->shape].schema;

    for (const struct kb_prometheus_member *before = family->members.items; before < member;
         before++) {
        if (before->id == member->id && prometheus->shapes.items[before->shape].schema == schema) {
            return false;
        }
    }
    return true;
}

static void scope_schema_add(struct kb_prometheus *prometheus, struct kb_json_out *out,
                             const struct kb_prometheus_family *family,
                             const struct kb_stat_scope *scope)
{
    const struct kb_stat_group *group = KB_CONTAINER_OF(scope, struct kb_stat_group, scope);

    KB_VEC_FOREACH (member, &family->members) {
        const struct kb_stat_def *def;
        struct kb_stat_leaf leaf;

        if (prometheus->shapes.items[member->shape].schema != group->schema ||
            !member_is_first(prometheus, family, member) ||
            kb_stat_group_waits(group, member->id)) {
            continue;
        }
        def = &group->schema->defs[member->id];
        leaf = (struct kb_stat_leaf){
            .suffix = kb_str_from_cstr(def->name), .id = member->id, .kind = (uint8_t)def->kind};
        leaf_add(prometheus, out, family, scope, &leaf);
    }
}

static void scope_add(struct kb_prometheus *prometheus, struct kb_json_out *out,
                      const struct kb_prometheus_family *family, const struct kb_stat_scope *scope)
{
    enum kb_stat_phase phase = family->section == KB_PROMETHEUS_TEXTS ? KB_STAT_PHASE_TEXTS
                               : family->section == KB_PROMETHEUS_HISTOGRAMS
                                   ? KB_STAT_PHASE_HISTOGRAMS
                                   : KB_STAT_PHASE_NUMBERS;

    if (scope->gone) {
        return;
    }
    if (scope->type == KB_STAT_SCOPE_GROUP) {
        scope_schema_add(prometheus, out, family, scope);
    }
    if (family->dynamic.len == 0) {
        return;
    }
    kb_stat_leaves_fill(&prometheus->leaves, scope, phase, scope->type != KB_STAT_SCOPE_GROUP,
                        true);
    KB_VEC_FOREACH (leaf, &prometheus->leaves.list) {
        leaf_add(prometheus, out, family, scope, leaf);
    }
}

static int number_cmp(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Collects the scopes that may have a statistic of the family, each once, in order. */
static void family_begin(struct kb_prometheus *prometheus,
                         const struct kb_prometheus_family *family)
{
    uint32_t last_shape = KB_PROMETHEUS_NONE;
    size_t kept = 0;

    prometheus->family_scopes.len = 0;
    prometheus->at_scope = 0;
    prometheus->family_begun = false;
    KB_VEC_FOREACH (member, &family->members) {
        const struct kb_prometheus_shape *shape = &prometheus->shapes.items[member->shape];

        if (member->shape != last_shape) {
            KB_VEC_FOREACH (scope, &shape->scopes) {
                kb_vec_push(&prometheus->family_scopes, *scope);
            }
        }
        last_shape = member->shape;
    }
    KB_VEC_FOREACH (scope, &family->dynamic) {
        kb_vec_push(&prometheus->family_scopes, *scope);
    }
    if (prometheus->family_scopes.len > 0) {
        qsort(prometheus->family_scopes.items, prometheus->family_scopes.len, sizeof(uint32_t),
              number_cmp);
    }
    KB_VEC_FOREACH (scope, &prometheus->family_scopes) {
        if (kept == 0 || prometheus->family_scopes.items[kept - 1] != *scope) {
            prometheus->family_scopes.items[kept++] = *scope;
        }
    }
    prometheus->family_scopes.len = kept;
}

/* Writes the next scope of the present family; false at the end of all. */
static bool write_step(struct kb_prometheus *prometheus, struct kb_json_out *out)
{
    const struct kb_prometheus_family *family;

    if (prometheus->at_scope == prometheus->family_scopes.len) {
        if (prometheus->at_family == prometheus->families.len) {
            return false;
        }
        family_begin(prometheus,
                     &prometheus->families.items[prometheus->order[prometheus->at_family++]]);
        return true;
    }
    family = &prometheus->families.items[prometheus->order[prometheus->at_family - 1]];
    scope_add(prometheus, out, family,
              prometheus->scopes[prometheus->family_scopes.items[prometheus->at_scope++]]);
    return true;
}

bool kb_prometheus_next(struct kb_prometheus *prometheus, struct kb_json_out *out, size_t bytes)
{
    size_t start = out->len;

    if (prometheus->epoch != prometheus->store->pin_epoch) {
        return false;
    }
    for (size_t i = 0; i < STEP_SCOPES_INDEX; i++) {
        if (!kb_prometheus_index_step(prometheus)) {
            break;
        }
    }
    if (prometheus->order == NULL) {
        return true;
    }
    for (size_t i = 0; i < STEP_SCOPES_WRITE && out->len - start < bytes; i++) {
        if (!write_step(prometheus, out)) {
            return false;
        }
    }
    return true;
}
