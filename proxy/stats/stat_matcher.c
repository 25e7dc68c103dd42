/* SPDX-License-Identifier: Apache-2.0 */
/* Inclusion and exclusion lists for the names of statistics (Envoy config.metrics.v3.StatsMatcher).
 */
#include "proxy/stats/stat_matcher.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/name_match.h"

struct kb_stat_matcher {
    struct kb_arena arena;
    bool include;    /* a name that matches is wanted; else it is not */
    bool reject_all; /* whatever it is called */
    size_t count;
    struct kb_name_match *patterns;
};

struct kb_stat_matcher *
kb_stat_matcher_create(const Envoy__Config__Metrics__V3__StatsConfig *config, struct kb_diag *diag)
{
    const Envoy__Config__Metrics__V3__StatsMatcher *from =
        config == NULL ? NULL : config->stats_matcher;
    const Envoy__Type__Matcher__V3__ListStringMatcher *list = NULL;
    struct kb_stat_matcher *matcher;

    if (from == NULL || from->stats_matcher_case ==
                            ENVOY__CONFIG__METRICS__V3__STATS_MATCHER__STATS_MATCHER__NOT_SET) {
        return NULL;
    }
    matcher = kb_calloc(1, sizeof(*matcher));
    kb_arena_init(&matcher->arena, NULL);
    kb_diag_push(diag, "stats_matcher");
    if (from->stats_matcher_case ==
        ENVOY__CONFIG__METRICS__V3__STATS_MATCHER__STATS_MATCHER_REJECT_ALL) {
        matcher->reject_all = from->reject_all;
        kb_diag_pop(diag);
        return matcher;
    }
    matcher->include = from->stats_matcher_case ==
                       ENVOY__CONFIG__METRICS__V3__STATS_MATCHER__STATS_MATCHER_INCLUSION_LIST;
    list = matcher->include ? from->inclusion_list : from->exclusion_list;
    kb_diag_push(diag, matcher->include ? "inclusion_list" : "exclusion_list");
    matcher->patterns = kb_calloc(list->n_patterns + 1, sizeof(*matcher->patterns));
    for (size_t i = 0; i < list->n_patterns; i++) {
        kb_diag_push_index(diag, "patterns", i);
        kb_name_match_init(&matcher->patterns[matcher->count++], list->patterns[i], &matcher->arena,
                           diag);
        kb_diag_pop(diag);
    }
    kb_diag_pop(diag);
    kb_diag_pop(diag);
    return matcher;
}

void kb_stat_matcher_destroy(struct kb_stat_matcher *matcher)
{
    if (matcher == NULL) {
        return;
    }
    for (size_t i = 0; i < matcher->count; i++) {
        kb_name_match_dispose(&matcher->patterns[i]);
    }
    free(matcher->patterns);
    kb_arena_dispose(&matcher->arena);
    free(matcher);
}

bool kb_stat_matcher_rejects(const struct kb_stat_matcher *matcher, struct kb_str name)
{
    if (matcher == NULL) {
        return false;
    }
    if (matcher->reject_all) {
        return true;
    }
    for (size_t i = 0; i < matcher->count; i++) {
        if (kb_name_match_test(&matcher->patterns[i], name)) {
            return !matcher->include;
        }
    }
    return matcher->include;
}
