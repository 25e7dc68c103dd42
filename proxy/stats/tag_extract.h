/* SPDX-License-Identifier: Apache-2.0 */
/* Tags: the parts of a statistic's name that vary ("cluster.NAME.upstream_rq_total") become labels,
 * and what is left is the name that monitoring groups by. Envoy's default rules in Envoy's order,
 * stats_config.stats_tags, and --stats-tag. Main thread. */
#pragma once

#include "base/diag.h"
#include "envoy/config/metrics/v3/stats.pb-c.h"
#include "proxy/api/stats.h"

#define KB_TAGS_MAX 32 /* of one name; more are dropped */

/* What extraction found. Zero-initialise; may be used again and again. */
struct kb_tag_result {
    struct kb_tag tags[KB_TAGS_MAX]; /* names are the producer's, values point into the statistic's
                                        name or the producer */
    size_t tag_count;
    char *name; /* without the tags' parts; heap */
    size_t name_len;
    size_t name_room;
};

struct kb_tag_producer;

/* `config` may be NULL: the default tags. `cli` are the --stats-tag options. Errors go to diag,
 * whose present path is stats_config's. Never NULL. */
struct kb_tag_producer *
kb_tag_producer_create(const Envoy__Config__Metrics__V3__StatsConfig *config,
                       const struct kb_tag *cli, size_t cli_count, struct kb_diag *diag);
/* NULL is allowed. */
void kb_tag_producer_destroy(struct kb_tag_producer *producer);

/* Finds the tags of a full name. `name` must live as long as the result is read. */
void kb_tag_extract(struct kb_tag_producer *producer, struct kb_str name,
                    struct kb_tag_result *result);
void kb_tag_result_dispose(struct kb_tag_result *result);
