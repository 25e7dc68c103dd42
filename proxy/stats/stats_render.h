/* SPDX-License-Identifier: Apache-2.0 */
/* The formats that stats_dump.c writes statistics in. */
#pragma once

#include "proxy/stats/stat_iter.h"
#include "proxy/stats/stats_dump.h"

/* Text: "name: value". */
void kb_stats_text_add(struct kb_json_out *out, const struct kb_stat_store *store,
                       enum kb_stats_buckets buckets, const struct kb_stat_view *view);

/* JSON: one object; a histogram is an element of the list that histograms_begin opens. */
void kb_stats_json_add(struct kb_json_out *out, const struct kb_stat_store *store,
                       enum kb_stats_buckets buckets, const struct kb_stat_view *view);
void kb_stats_json_histograms_begin(struct kb_json_out *out, enum kb_stats_buckets buckets);
void kb_stats_json_histograms_end(struct kb_json_out *out, enum kb_stats_buckets buckets);

/* printf to the end of `out`, at most 256 bytes. */
void kb_stats_out_printf(struct kb_json_out *out, const char *fmt, ...) KB_PRINTF(2, 3);
void kb_stats_out_u64(struct kb_json_out *out, uint64_t value);

/* A histogram that has no samples yet. */
extern const struct kb_histogram_total kb_stats_no_samples;
