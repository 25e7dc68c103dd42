/* SPDX-License-Identifier: Apache-2.0 */
/* Upper bounds of the buckets that a histogram is shown with: Envoy's defaults, or stats_config's
 * histogram_bucket_settings. */
#pragma once

#include "base/diag.h"
#include "envoy/config/metrics/v3/stats.pb-c.h"

struct kb_histogram_settings;

/* NULL when stats_config has no settings. Errors go to diag, whose present path is stats_config's.
 */
struct kb_histogram_settings *
kb_histogram_settings_create(const Envoy__Config__Metrics__V3__StatsConfig *config,
                             struct kb_diag *diag);
/* NULL is allowed. */
void kb_histogram_settings_destroy(struct kb_histogram_settings *settings);

/* The ascending bounds for the histogram of that name; at least one. `settings` may be NULL. */
void kb_histogram_settings_find(const struct kb_histogram_settings *settings, struct kb_str name,
                                const double **bounds, size_t *count);
