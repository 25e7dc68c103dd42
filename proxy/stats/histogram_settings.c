/* SPDX-License-Identifier: Apache-2.0 */
/* Which buckets a histogram is shown with (Envoy config.metrics.v3.HistogramBucketSettings): the
 * first setting whose pattern matches the name and that has buckets. */
#include "proxy/stats/histogram_settings.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/histogram.h"
#include "proxy/stats/name_match.h"

struct setting {
    struct kb_name_match match;
    size_t count;
    double *bounds;
};

struct kb_histogram_settings {
    struct kb_arena arena;
    size_t count;
    struct setting *settings;
};

static int bound_cmp(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return x < y ? -1 : x > y;
}

struct kb_histogram_settings *
kb_histogram_settings_create(const Envoy__Config__Metrics__V3__StatsConfig *config,
                             struct kb_diag *diag)
{
    struct kb_histogram_settings *settings;

    if (config == NULL || config->n_histogram_bucket_settings == 0) {
        return NULL;
    }
    settings = kb_calloc(1, sizeof(*settings));
    kb_arena_init(&settings->arena, NULL);
    settings->settings = kb_calloc(config->n_histogram_bucket_settings, sizeof(struct setting));
    for (size_t i = 0; i < config->n_histogram_bucket_settings; i++) {
        const Envoy__Config__Metrics__V3__HistogramBucketSettings *from =
            config->histogram_bucket_settings[i];
        struct setting *setting = &settings->settings[settings->count];

        if (from->n_buckets == 0) {
            continue;
        }
        kb_diag_push_index(diag, "histogram_bucket_settings", i);
        kb_diag_push(diag, "match");
        kb_name_match_init(&setting->match, from->match, &settings->arena, diag);
        kb_diag_pop(diag);
        kb_diag_pop(diag);
        setting->count = from->n_buckets;
        setting->bounds =
            kb_arena_alloc(&settings->arena, from->n_buckets * sizeof(double), sizeof(double));
        memcpy(setting->bounds, from->buckets, from->n_buckets * sizeof(double));
        qsort(setting->bounds, setting->count, sizeof(double), bound_cmp);
        settings->count++;
    }
    return settings;
}

void kb_histogram_settings_destroy(struct kb_histogram_settings *settings)
{
    if (settings == NULL) {
        return;
    }
    for (size_t i = 0; i < settings->count; i++) {
        kb_name_match_dispose(&settings->settings[i].match);
    }
    free(settings->settings);
    kb_arena_dispose(&settings->arena);
    free(settings);
}

void kb_histogram_settings_find(const struct kb_histogram_settings *settings, struct kb_str name,
                                const double **bounds, size_t *count)
{
    *bounds = kb_histogram_buckets;
    *count = KB_HISTOGRAM_BUCKETS;
    for (size_t i = 0; settings != NULL && i < settings->count; i++) {
        if (kb_name_match_test(&settings->settings[i].match, name)) {
            *bounds = settings->settings[i].bounds;
            *count = settings->settings[i].count;
            return;
        }
    }
}
