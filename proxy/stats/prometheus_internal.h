/* SPDX-License-Identifier: Apache-2.0 */
/* What Prometheus output knows of the names, between its index and its writer. */
#pragma once

#include "proxy/stats/prometheus.h"
#include "proxy/stats/stat_internal.h"

/* The order in which kinds are written. */
enum kb_prometheus_section {
    KB_PROMETHEUS_COUNTERS,
    KB_PROMETHEUS_GAUGES,
    KB_PROMETHEUS_TEXTS,
    KB_PROMETHEUS_HISTOGRAMS,
    KB_PROMETHEUS_SECTIONS
};

/* Scopes whose statistics have the same extracted names: normally all clusters. */
struct kb_prometheus_shape {
    const struct kb_stat_schema *schema;
    uint32_t *families; /* by id of the schema; KB_PROMETHEUS_NONE: not shown */
    KB_VEC(uint32_t) scopes;
};

struct kb_prometheus_member {
    uint32_t shape;
    uint16_t id;
};

/* One extracted name in one section. */
struct kb_prometheus_family {
    struct kb_str name; /* with dots */
    enum kb_prometheus_section section;
    KB_VEC(struct kb_prometheus_member) members;
    KB_VEC(uint32_t)
    dynamic; /* scopes that have it beyond their schema: codes, named statistics, texts */
};

#define KB_PROMETHEUS_NONE UINT32_MAX

struct kb_prometheus {
    struct kb_stat_store *store;
    const struct kb_stats_params *params;
    uint64_t epoch;
    const struct kb_stat_scope **scopes;
    size_t scope_count;
    size_t indexed; /* scopes that the index has */
    struct kb_arena arena;
    KB_VEC(struct kb_prometheus_shape) shapes;
    KB_VEC(struct kb_prometheus_family) families;
    struct kb_map family_map[KB_PROMETHEUS_SECTIONS]; /* name -> number + 1 */
    struct kb_map shape_map;
    uint32_t *order; /* families as they are written; made when the index is complete */
    size_t at_family;
    KB_VEC(uint32_t) family_scopes; /* of the family being written, ascending */
    size_t at_scope;
    bool family_begun; /* its TYPE line is written */
    struct kb_stat_leaves leaves;
    struct kb_tag_result tags;
    char *name; /* full name of the statistic at hand */
    size_t name_room;
};

/* Takes the next scope into the index; false when all are in and `order` stands. */
bool kb_prometheus_index_step(struct kb_prometheus *prometheus);

/* The full name of a statistic, in prometheus->name; p NULL when filter or stats_matcher leave it
 * out. */
struct kb_str kb_prometheus_full_name(struct kb_prometheus *prometheus,
                                      const struct kb_stat_scope *scope, struct kb_str suffix);
/* The labels of the statistic and its name without them, in prometheus->tags. */
void kb_prometheus_tags(struct kb_prometheus *prometheus, const struct kb_stat_scope *scope,
                        struct kb_str name);
enum kb_prometheus_section kb_prometheus_section_of(const struct kb_stat_scope *scope,
                                                    enum kb_stat_kind kind);
