/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics as lines of text. */
#include <stdarg.h>
#include <stdio.h>

#include "proxy/stats/number_text.h"
#include "proxy/stats/stats_render.h"

const struct kb_histogram_total kb_stats_no_samples = {0};

void kb_stats_out_printf(struct kb_json_out *out, const char *fmt, ...)
{
    char text[256];
    va_list args;
    int len;

    va_start(args, fmt);
    len = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    kb_json_out_add(out, kb_str_make(text, KB_MIN((size_t)KB_MAX(len, 0), sizeof(text) - 1)));
}

void kb_stats_out_u64(struct kb_json_out *out, uint64_t value)
{
    char text[20];

    kb_json_out_add(out, kb_str_make(text, kb_u64_to_str(value, text)));
}

static void quantiles_add(struct kb_json_out *out, const struct kb_histogram_total *total)
{
    double interval[KB_HISTOGRAM_QUANTILES];
    double cumulative[KB_HISTOGRAM_QUANTILES];
    char number[KB_NUMBER_TEXT_MAX];

    kb_histogram_quantile_values(total, KB_HISTOGRAM_INTERVAL, interval);
    kb_histogram_quantile_values(total, KB_HISTOGRAM_CUMULATIVE, cumulative);
    for (size_t i = 0; i < KB_HISTOGRAM_QUANTILES; i++) {
        kb_stats_out_printf(out, "%sP%g(", i == 0 ? "" : " ", 100 * kb_histogram_quantiles[i]);
        kb_json_out_add(out, kb_number_text(interval[i], number));
        kb_json_out_add(out, KB_STR(","));
        kb_json_out_add(out, kb_number_text(cumulative[i], number));
        kb_json_out_add(out, KB_STR(")"));
    }
}

static void buckets_add(struct kb_json_out *out, const struct kb_stat_store *store,
                        const struct kb_stat_view *view, bool disjoint)
{
    const double *bounds;
    size_t count;
    uint64_t interval_before = 0;
    uint64_t cumulative_before = 0;

    kb_histogram_settings_find(store->histogram_settings, view->name, &bounds, &count);
    for (size_t i = 0; i < count; i++) {
        uint64_t interval =
            kb_histogram_count_below(view->histogram, KB_HISTOGRAM_INTERVAL, bounds[i]);
        uint64_t cumulative =
            kb_histogram_count_below(view->histogram, KB_HISTOGRAM_CUMULATIVE, bounds[i]);

        kb_stats_out_printf(out, "%sB%g(%llu,%llu)", i == 0 ? "" : " ", bounds[i],
                            (unsigned long long)(interval - interval_before),
                            (unsigned long long)(cumulative - cumulative_before));
        interval_before = disjoint ? interval : 0;
        cumulative_before = disjoint ? cumulative : 0;
    }
}

static void bins_add(struct kb_json_out *out, const struct kb_histogram_total *total,
                     enum kb_histogram_period period)
{
    const char *separator = "";

    for (size_t i = 0; i < total->bin_count; i++) {
        const struct kb_histogram_bin *bin = &total->bins[i];

        if (kb_histogram_bin_count(bin, period) == 0) {
            continue;
        }
        kb_stats_out_printf(out, "%s%.15g,%.15g:%llu", separator, kb_histogram_bin_bound(bin),
                            kb_histogram_bin_width(bin),
                            (unsigned long long)kb_histogram_bin_count(bin, period));
        separator = ", ";
    }
}

static void histogram_add(struct kb_json_out *out, const struct kb_stat_store *store,
                          enum kb_stats_buckets buckets, const struct kb_stat_view *view)
{
    if (view->histogram == NULL) {
        kb_json_out_add(out, KB_STR(": No recorded values\n"));
        return;
    }
    switch (buckets) {
    case KB_STATS_BUCKETS_NATIVE: /* does not come here */
    case KB_STATS_BUCKETS_SUMMARY:
        kb_json_out_add(out, KB_STR(": "));
        quantiles_add(out, view->histogram);
        break;
    case KB_STATS_BUCKETS_CUMULATIVE:
    case KB_STATS_BUCKETS_DISJOINT:
        kb_json_out_add(out, KB_STR(": "));
        buckets_add(out, store, view, buckets == KB_STATS_BUCKETS_DISJOINT);
        break;
    case KB_STATS_BUCKETS_DETAILED:
        kb_json_out_add(out, KB_STR(":\n  totals="));
        bins_add(out, view->histogram, KB_HISTOGRAM_CUMULATIVE);
        kb_json_out_add(out, KB_STR("\n  intervals="));
        bins_add(out, view->histogram, KB_HISTOGRAM_INTERVAL);
        kb_json_out_add(out, KB_STR("\n  summary="));
        quantiles_add(out, view->histogram);
        break;
    }
    kb_json_out_add(out, KB_STR("\n"));
}

void kb_stats_text_add(struct kb_json_out *out, const struct kb_stat_store *store,
                       enum kb_stats_buckets buckets, const struct kb_stat_view *view)
{
    kb_json_out_add(out, view->name);
    if (view->is_text) {
        kb_json_out_add(out, KB_STR(": \""));
        kb_json_out_add(out, view->text);
        kb_json_out_add(out, KB_STR("\"\n"));
    } else if (view->kind == KB_STAT_HISTOGRAM) {
        histogram_add(out, store, buckets, view);
    } else {
        kb_json_out_add(out, KB_STR(": "));
        kb_stats_out_u64(out, view->value);
        kb_json_out_add(out, KB_STR("\n"));
    }
}
