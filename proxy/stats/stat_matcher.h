/* SPDX-License-Identifier: Apache-2.0 */
/* stats_config.stats_matcher: which statistics exist for the outside. */
#pragma once

#include "base/diag.h"
#include "envoy/config/metrics/v3/stats.pb-c.h"

struct kb_stat_matcher;

/* NULL when everything is wanted. Errors go to diag, whose present path is stats_config's. */
struct kb_stat_matcher *
kb_stat_matcher_create(const Envoy__Config__Metrics__V3__StatsConfig *config, struct kb_diag *diag);
/* NULL is allowed. */
void kb_stat_matcher_destroy(struct kb_stat_matcher *matcher);

/* Whether the statistic of that full name is left out. `matcher` may be NULL. */
bool kb_stat_matcher_rejects(const struct kb_stat_matcher *matcher, struct kb_str name);
