/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics as JSON objects. */
#include "proxy/stats/number_text.h"
#include "proxy/stats/stats_render.h"

/* Only what JSON asks for is escaped, as in Envoy's streaming writer. */
static void quoted_add(struct kb_json_out *out, struct kb_str text)
{
    size_t from = 0;

    kb_json_out_add(out, KB_STR("\""));
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.p[i];

        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
            continue;
        }
        kb_json_out_add(out, kb_str_make(text.p + from, i - from));
        if (c == '"' || c == '\\') {
            kb_stats_out_printf(out, "\\%c", c);
        } else {
            kb_stats_out_printf(out, "\\u%04x", c);
        }
        from = i + 1;
    }
    kb_json_out_add(out, kb_str_from(text, from));
    kb_json_out_add(out, KB_STR("\""));
}

static void number_add(struct kb_json_out *out, double value)
{
    char text[KB_NUMBER_TEXT_MAX];

    kb_json_out_add(out, kb_number_json(value, text));
}

static void quantiles_add(struct kb_json_out *out, const struct kb_histogram_total *total)
{
    double interval[KB_HISTOGRAM_QUANTILES];
    double cumulative[KB_HISTOGRAM_QUANTILES];

    kb_histogram_quantile_values(total, KB_HISTOGRAM_INTERVAL, interval);
    kb_histogram_quantile_values(total, KB_HISTOGRAM_CUMULATIVE, cumulative);
    kb_json_out_add(out, KB_STR("["));
    for (size_t i = 0; i < KB_HISTOGRAM_QUANTILES; i++) {
        kb_json_out_add(out, i == 0 ? KB_STR("{\"cumulative\":") : KB_STR(",{\"cumulative\":"));
        number_add(out, cumulative[i]);
        kb_json_out_add(out, KB_STR(",\"interval\":"));
        number_add(out, interval[i]);
        kb_json_out_add(out, KB_STR("}"));
    }
    kb_json_out_add(out, KB_STR("]"));
}

static void buckets_add(struct kb_json_out *out, const struct kb_stat_store *store,
                        struct kb_str name, const struct kb_histogram_total *total, bool disjoint)
{
    const double *bounds;
    size_t count;
    uint64_t interval_before = 0;
    uint64_t cumulative_before = 0;

    kb_histogram_settings_find(store->histogram_settings, name, &bounds, &count);
    kb_json_out_add(out, KB_STR(",\"buckets\":["));
    for (size_t i = 0; i < count; i++) {
        uint64_t interval = kb_histogram_count_below(total, KB_HISTOGRAM_INTERVAL, bounds[i]);
        uint64_t cumulative = kb_histogram_count_below(total, KB_HISTOGRAM_CUMULATIVE, bounds[i]);

        kb_json_out_add(out, i == 0 ? KB_STR("{\"upper_bound\":") : KB_STR(",{\"upper_bound\":"));
        number_add(out, bounds[i]);
        kb_stats_out_printf(out, ",\"interval\":%llu,\"cumulative\":%llu}",
                            (unsigned long long)(interval - interval_before),
                            (unsigned long long)(cumulative - cumulative_before));
        interval_before = disjoint ? interval : 0;
        cumulative_before = disjoint ? cumulative : 0;
    }
    kb_json_out_add(out, KB_STR("]"));
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
        kb_stats_out_printf(out, "%s{\"lower_bound\":", separator);
        number_add(out, kb_histogram_bin_bound(bin));
        kb_json_out_add(out, KB_STR(",\"width\":"));
        number_add(out, kb_histogram_bin_width(bin));
        kb_stats_out_printf(out, ",\"count\":%llu}",
                            (unsigned long long)kb_histogram_bin_count(bin, period));
        separator = ",";
    }
}

static void histogram_add(struct kb_json_out *out, const struct kb_stat_store *store,
                          enum kb_stats_buckets buckets, const struct kb_stat_view *view)
{
    const struct kb_histogram_total *total =
        view->histogram != NULL ? view->histogram : &kb_stats_no_samples;

    switch (buckets) {
    case KB_STATS_BUCKETS_NATIVE: /* does not come here */
    case KB_STATS_BUCKETS_SUMMARY:
        kb_json_out_add(out, KB_STR(",\"values\":"));
        quantiles_add(out, total);
        break;
    case KB_STATS_BUCKETS_CUMULATIVE:
    case KB_STATS_BUCKETS_DISJOINT:
        buckets_add(out, store, view->name, total, buckets == KB_STATS_BUCKETS_DISJOINT);
        break;
    case KB_STATS_BUCKETS_DETAILED:
        kb_json_out_add(out, KB_STR(",\"totals\":["));
        bins_add(out, total, KB_HISTOGRAM_CUMULATIVE);
        kb_json_out_add(out, KB_STR("],\"intervals\":["));
        bins_add(out, total, KB_HISTOGRAM_INTERVAL);
        kb_json_out_add(out, KB_STR("],\"percentiles\":"));
        quantiles_add(out, total);
        break;
    }
}

void kb_stats_json_add(struct kb_json_out *out, const struct kb_stat_store *store,
                       enum kb_stats_buckets buckets, const struct kb_stat_view *view)
{
    kb_json_out_add(out, KB_STR("{\"name\":"));
    quoted_add(out, view->name);
    if (view->is_text) {
        kb_json_out_add(out, KB_STR(",\"value\":"));
        quoted_add(out, view->text);
    } else if (view->kind == KB_STAT_HISTOGRAM) {
        histogram_add(out, store, buckets, view);
    } else {
        kb_json_out_add(out, KB_STR(",\"value\":"));
        kb_stats_out_u64(out, view->value);
    }
    kb_json_out_add(out, KB_STR("}"));
}

void kb_stats_json_histograms_begin(struct kb_json_out *out, enum kb_stats_buckets buckets)
{
    bool detailed = buckets == KB_STATS_BUCKETS_DETAILED;

    kb_json_out_add(out, KB_STR("{\"histograms\":"));
    if (buckets == KB_STATS_BUCKETS_CUMULATIVE || buckets == KB_STATS_BUCKETS_DISJOINT) {
        kb_json_out_add(out, KB_STR("["));
        return;
    }
    kb_stats_out_printf(out, "{\"%s\":[",
                        detailed ? "supported_percentiles" : "supported_quantiles");
    for (size_t i = 0; i < KB_HISTOGRAM_QUANTILES; i++) {
        kb_json_out_add(out, i == 0 ? KB_STR("") : KB_STR(","));
        number_add(out, kb_histogram_quantiles[i] * 100);
    }
    kb_stats_out_printf(out, "],\"%s\":[", detailed ? "details" : "computed_quantiles");
}

void kb_stats_json_histograms_end(struct kb_json_out *out, enum kb_stats_buckets buckets)
{
    bool plain = buckets == KB_STATS_BUCKETS_CUMULATIVE || buckets == KB_STATS_BUCKETS_DISJOINT;

    kb_json_out_add(out, plain ? KB_STR("]}") : KB_STR("]}}"));
}
