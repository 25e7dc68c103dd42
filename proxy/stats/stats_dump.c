/* SPDX-License-Identifier: Apache-2.0 */
/* Walks the phases of the statistics page: text readouts, numbers, histograms. */
#include "proxy/stats/stats_dump.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/prometheus.h"
#include "proxy/stats/stat_iter.h"
#include "proxy/stats/stats_render.h"

/* Statistics that one call looks at: with a filter that never matches it would otherwise look at
 * all. */
#define STEP_STATISTICS 20000
#define PHASES_MAX      3

struct kb_stats_dump {
    struct kb_stat_store *store;
    struct kb_stats_params params;
    struct kb_prometheus *prometheus; /* that format; the rest is unused then */
    enum kb_stat_phase phases[PHASES_MAX];
    size_t phase_count;
    size_t at_phase;
    size_t phase_shown; /* statistics of the phase written so far */
    struct kb_stat_iter iter;
    bool begun;
    bool any;        /* something was written, so that a comma comes first */
    bool histograms; /* the JSON list of histograms is open */
};

static void phases_set(struct kb_stats_dump *dump)
{
    switch (dump->params.type) {
    case KB_STATS_TYPE_ALL:
        dump->phases[dump->phase_count++] = KB_STAT_PHASE_TEXTS;
        dump->phases[dump->phase_count++] = KB_STAT_PHASE_NUMBERS;
        dump->phases[dump->phase_count++] = KB_STAT_PHASE_HISTOGRAMS;
        break;
    case KB_STATS_TYPE_COUNTERS:
        dump->phases[dump->phase_count++] = KB_STAT_PHASE_COUNTERS;
        break;
    case KB_STATS_TYPE_GAUGES:
        dump->phases[dump->phase_count++] = KB_STAT_PHASE_GAUGES;
        break;
    case KB_STATS_TYPE_HISTOGRAMS:
        dump->phases[dump->phase_count++] = KB_STAT_PHASE_HISTOGRAMS;
        break;
    case KB_STATS_TYPE_TEXT_READOUTS:
        dump->phases[dump->phase_count++] = KB_STAT_PHASE_TEXTS;
        break;
    }
}

struct kb_stats_dump *kb_stats_dump_create(struct kb_stat_store *store,
                                           const struct kb_stats_params *params)
{
    struct kb_stats_dump *dump = kb_calloc(1, sizeof(*dump));

    dump->store = store;
    dump->params = *params;
    if (params->format == KB_STATS_PROMETHEUS) {
        dump->prometheus = kb_prometheus_create(store, &dump->params);
        return dump;
    }
    phases_set(dump);
    kb_stat_iter_init(&dump->iter, store, dump->phases[0]);
    return dump;
}

void kb_stats_dump_destroy(struct kb_stats_dump *dump)
{
    if (dump == NULL) {
        return;
    }
    kb_prometheus_destroy(dump->prometheus);
    kb_stat_iter_dispose(&dump->iter);
    free(dump);
}

static void begin(struct kb_stats_dump *dump, struct kb_json_out *out)
{
    if (dump->begun) {
        return;
    }
    dump->begun = true;
    if (dump->params.format == KB_STATS_JSON) {
        kb_json_out_add(out, KB_STR("{\"stats\":["));
    } else if (dump->params.format == KB_STATS_HTML) {
        kb_json_out_add(out, KB_STR("<pre>\n"));
    }
}

static void phase_end(struct kb_stats_dump *dump, struct kb_json_out *out)
{
    static const char *const titles[] = {[KB_STAT_PHASE_TEXTS] = "text readouts",
                                         [KB_STAT_PHASE_NUMBERS] = "Counters and Gauges",
                                         [KB_STAT_PHASE_COUNTERS] = "counters",
                                         [KB_STAT_PHASE_GAUGES] = "gauges",
                                         [KB_STAT_PHASE_HISTOGRAMS] = "Histograms"};

    if (dump->params.format == KB_STATS_HTML && dump->phase_shown == 0) {
        kb_stats_out_printf(out, "</pre>\n<br/><i>No %s found</i><br/>\n<pre>\n",
                            titles[dump->phases[dump->at_phase]]);
    }
    dump->phase_shown = 0;
}

static void finish(struct kb_stats_dump *dump, struct kb_json_out *out)
{
    if (dump->params.format == KB_STATS_JSON) {
        if (dump->histograms) {
            kb_stats_json_histograms_end(out, dump->params.buckets);
        }
        kb_json_out_add(out, KB_STR("]}"));
    } else if (dump->params.format == KB_STATS_HTML) {
        kb_json_out_add(out, KB_STR("</pre>\n</body>\n</html>\n"));
    }
}

static void html_add(struct kb_stats_dump *dump, struct kb_json_out *out,
                     const struct kb_stat_view *view)
{
    struct kb_json_out plain;
    size_t from = 0;

    kb_json_out_init(&plain, 0);
    kb_stats_text_add(&plain, dump->store, dump->params.buckets, view);
    for (size_t i = 0; i < plain.len; i++) {
        struct kb_str entity = plain.p[i] == '<'   ? KB_STR("&lt;")
                               : plain.p[i] == '>' ? KB_STR("&gt;")
                               : plain.p[i] == '&' ? KB_STR("&amp;")
                                                   : KB_STR_NULL;

        if (entity.len > 0) {
            kb_json_out_add(out, kb_str_make(plain.p + from, i - from));
            kb_json_out_add(out, entity);
            from = i + 1;
        }
    }
    kb_json_out_add(out, kb_str_make(plain.p + from, plain.len - from));
    kb_json_out_dispose(&plain);
}

static void json_add(struct kb_stats_dump *dump, struct kb_json_out *out,
                     const struct kb_stat_view *view)
{
    if (view->kind == KB_STAT_HISTOGRAM && !dump->histograms) {
        kb_json_out_add(out, dump->any ? KB_STR(",") : KB_STR(""));
        kb_stats_json_histograms_begin(out, dump->params.buckets);
        dump->histograms = true;
        dump->any = false;
    }
    kb_json_out_add(out, dump->any ? KB_STR(",") : KB_STR(""));
    kb_stats_json_add(out, dump->store, dump->params.buckets, view);
    dump->any = true;
}

static void statistic_add(struct kb_stats_dump *dump, struct kb_json_out *out,
                          const struct kb_stat_view *view)
{
    if (dump->params.hidden_only || (dump->params.used_only && !view->used) ||
        !kb_stats_params_want(&dump->params, view->name)) {
        return;
    }
    dump->phase_shown++;
    switch (dump->params.format) {
    case KB_STATS_JSON:
        json_add(dump, out, view);
        break;
    case KB_STATS_HTML:
        html_add(dump, out, view);
        break;
    case KB_STATS_TEXT:
    case KB_STATS_PROMETHEUS:
        kb_stats_text_add(out, dump->store, dump->params.buckets, view);
        break;
    }
}

bool kb_stats_dump_next(struct kb_stats_dump *dump, struct kb_json_out *out, size_t bytes)
{
    size_t start = out->len;

    if (dump->prometheus != NULL) {
        return kb_prometheus_next(dump->prometheus, out, bytes);
    }
    begin(dump, out);
    for (size_t i = 0; i < STEP_STATISTICS && out->len - start < bytes; i++) {
        struct kb_stat_view view;

        if (kb_stat_iter_next(&dump->iter, &view)) {
            statistic_add(dump, out, &view);
            continue;
        }
        phase_end(dump, out);
        kb_stat_iter_dispose(&dump->iter);
        if (++dump->at_phase == dump->phase_count) {
            finish(dump, out);
            return false;
        }
        kb_stat_iter_init(&dump->iter, dump->store, dump->phases[dump->at_phase]);
    }
    return true;
}
