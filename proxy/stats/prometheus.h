/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics in Prometheus' text format: all statistics of one tag-extracted name stand together,
 * so names are extracted first, and what clusters have in common is kept once. */
#pragma once

#include "proxy/stats/stat_iter.h"
#include "proxy/stats/stats_dump.h"

struct kb_prometheus;

/* `params` are borrowed until destroy. Holds a pin on the store. */
struct kb_prometheus *kb_prometheus_create(struct kb_stat_store *store,
                                           const struct kb_stats_params *params);
void kb_prometheus_destroy(struct kb_prometheus *prometheus);
/* As kb_stats_dump_next. */
bool kb_prometheus_next(struct kb_prometheus *prometheus, struct kb_json_out *out, size_t bytes);

/* Order of names in Prometheus output: by dotted parts, so that '.' comes before every other
 * character. */
int kb_prometheus_name_cmp(struct kb_str a, struct kb_str b);
