/* SPDX-License-Identifier: Apache-2.0 */
/* The statistics page of the admin interface, made a piece at a time (Envoy "Administration
 * interface", /stats). */
#pragma once

#include "base/regex.h"
#include "proto/pb_json.h"
#include "proxy/stats/stat_store.h"

enum kb_stats_format { KB_STATS_TEXT, KB_STATS_JSON, KB_STATS_HTML, KB_STATS_PROMETHEUS };

enum kb_stats_type {
    KB_STATS_TYPE_ALL,
    KB_STATS_TYPE_COUNTERS,
    KB_STATS_TYPE_GAUGES,
    KB_STATS_TYPE_HISTOGRAMS,
    KB_STATS_TYPE_TEXT_READOUTS,
};

enum kb_stats_buckets {
    KB_STATS_BUCKETS_SUMMARY, /* quantiles; in Prometheus output a summary only when asked for */
    KB_STATS_BUCKETS_CUMULATIVE,
    KB_STATS_BUCKETS_DISJOINT,
    KB_STATS_BUCKETS_DETAILED,
    KB_STATS_BUCKETS_NATIVE, /* of Prometheus: in its protobuf output only */
};

struct kb_stats_params {
    enum kb_stats_format format;
    enum kb_stats_type type;
    enum kb_stats_buckets buckets;
    bool buckets_set;   /* the request said which */
    bool used_only;     /* only what was ever written */
    bool text_readouts; /* in Prometheus output */
    bool hidden_only;   /* only hidden statistics, of which there are none */
    const struct kb_regex
        *filter;        /* matches a part of the name; NULL: all. Borrowed until destroy */
    bool invert_filter; /* only what the filter does not match */
};

/* Whether the filter lets a full name through. */
KB_INLINE bool kb_stats_params_want(const struct kb_stats_params *params, struct kb_str name)
{
    return params->filter == NULL ||
           kb_regex_partial_match(params->filter, name) != params->invert_filter;
}

struct kb_stats_dump;

/* Starts an output; holds memory of destroyed statistics until kb_stats_dump_destroy. */
struct kb_stats_dump *kb_stats_dump_create(struct kb_stat_store *store,
                                           const struct kb_stats_params *params);
void kb_stats_dump_destroy(struct kb_stats_dump *dump);

/* Appends the next piece to `out`: about `bytes`, or less when it took long to find. True: there is
 * more. */
bool kb_stats_dump_next(struct kb_stats_dump *dump, struct kb_json_out *out, size_t bytes);
