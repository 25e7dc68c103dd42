/* SPDX-License-Identifier: Apache-2.0 */
/* One walk over all statistics for all sinks. */
#include "proxy/stats/stats_flush.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/stat_internal.h"
#include "proxy/stats/stat_iter.h"

#define TABLE_MIN 256

struct kb_stat_last {
    uint64_t key; /* never 0 in a slot that is taken */
    uint64_t value;
};

/* ---- what counters were ---- */

static struct kb_stat_last *table_slot(const struct kb_stat_last_table *table, uint64_t key)
{
    size_t at = key & (table->cap - 1);

    while (table->slots[at].key != 0 && table->slots[at].key != key) {
        at = (at + 1) & (table->cap - 1);
    }
    return &table->slots[at];
}

static void table_grow(struct kb_stat_last_table *table)
{
    struct kb_stat_last_table wider = {.cap = KB_MAX(table->cap * 2, (size_t)TABLE_MIN),
                                       .len = table->len};

    wider.slots = kb_calloc(wider.cap, sizeof(*wider.slots));
    for (size_t i = 0; i < table->cap; i++) {
        if (table->slots[i].key != 0) {
            *table_slot(&wider, table->slots[i].key) = table->slots[i];
        }
    }
    free(table->slots);
    *table = wider;
}

static void table_put(struct kb_stat_last_table *table, uint64_t key, uint64_t value)
{
    struct kb_stat_last *slot;

    if (table->len * 2 >= table->cap) {
        table_grow(table);
    }
    slot = table_slot(table, key);
    table->len += slot->key == 0;
    *slot = (struct kb_stat_last){key, value};
}

/* A counter that was set back counts from 0 again. */
static uint64_t growth(const struct kb_stat_last_table *last, struct kb_stat_last_table *now,
                       const struct kb_stat_view *view)
{
    uint64_t key = kb_map_hash(view->name) | 1;
    uint64_t before = last->cap > 0 ? table_slot(last, key)->value : 0;

    table_put(now, key, view->value);
    return view->value >= before ? view->value - before : view->value;
}

/* ---- the walk ---- */

static void give(struct kb_stat_flusher *flusher, const struct kb_stat_sample *sample)
{
    for (size_t i = 0; i < flusher->sinks.len; i++) {
        flusher->sinks.items[i].ops->sample(flusher->sinks.items[i].sink, sample);
    }
}

static void histogram_give(struct kb_stat_flusher *flusher, struct kb_stat_sample *sample,
                           const struct kb_histogram_total *total)
{
    for (size_t i = 0; total != NULL && i < total->bin_count; i++) {
        const struct kb_histogram_bin *bin = &total->bins[i];
        double width = kb_histogram_bin_width(bin);

        sample->count = kb_histogram_bin_count(bin, KB_HISTOGRAM_INTERVAL);
        sample->value = (uint64_t)(kb_histogram_bin_bound(bin) + (width > 1 ? width / 2 : 0));
        if (sample->count > 0) {
            give(flusher, sample);
        }
    }
}

static void phase_give(struct kb_stat_flusher *flusher, struct kb_stat_store *store,
                       enum kb_stat_phase phase, struct kb_stat_last_table *now,
                       struct kb_tag_result *tags)
{
    struct kb_stat_iter iter;
    struct kb_stat_view view;

    kb_stat_iter_init(&iter, store, phase);
    while (kb_stat_iter_next(&iter, &view)) {
        struct kb_stat_sample sample = {.kind = view.kind, .name = view.name};

        if (!view.used) {
            continue;
        }
        if (flusher->want_tags) {
            if (!kb_stat_scope_tags(view.scope, tags)) {
                kb_tag_extract(kb_stat_store_tags(store), view.name, tags);
            }
            sample.tagged_name = kb_str_make(tags->name, tags->name_len);
            sample.tags = tags->tags;
            sample.tag_count = tags->tag_count;
        }
        if (view.kind == KB_STAT_HISTOGRAM) {
            histogram_give(flusher, &sample, view.histogram);
        } else {
            sample.value =
                view.kind == KB_STAT_COUNTER ? growth(&flusher->last, now, &view) : view.value;
            give(flusher, &sample);
        }
    }
    kb_stat_iter_dispose(&iter);
}

void kb_stat_flusher_run(struct kb_stat_flusher *flusher, struct kb_stat_store *store)
{
    struct kb_stat_last_table now = {0};
    struct kb_tag_result tags = {0};

    if (flusher->sinks.len == 0) {
        return;
    }
    phase_give(flusher, store, KB_STAT_PHASE_COUNTERS, &now, &tags);
    phase_give(flusher, store, KB_STAT_PHASE_GAUGES, &now, &tags);
    phase_give(flusher, store, KB_STAT_PHASE_HISTOGRAMS, &now, &tags);
    kb_tag_result_dispose(&tags);
    free(flusher->last.slots);
    flusher->last = now;
    for (size_t i = 0; i < flusher->sinks.len; i++) {
        flusher->sinks.items[i].ops->end(flusher->sinks.items[i].sink);
    }
}

/* ---- lifecycle ---- */

void kb_stat_flusher_add(struct kb_stat_flusher *flusher, const struct kb_stat_sink_ops *ops,
                         void *sink)
{
    struct kb_stat_flush_sink added = {ops, sink};

    kb_vec_push(&flusher->sinks, added);
    flusher->want_tags |= ops->wants_tags;
}

void kb_stat_flusher_close(struct kb_stat_flusher *flusher)
{
    for (size_t i = 0; i < flusher->sinks.len; i++) {
        if (flusher->sinks.items[i].ops->close != NULL) {
            flusher->sinks.items[i].ops->close(flusher->sinks.items[i].sink);
        }
    }
}

void kb_stat_flusher_dispose(struct kb_stat_flusher *flusher)
{
    for (size_t i = 0; i < flusher->sinks.len; i++) {
        flusher->sinks.items[i].ops->destroy(flusher->sinks.items[i].sink);
    }
    kb_vec_dispose(&flusher->sinks);
    free(flusher->last.slots);
    flusher->last = (struct kb_stat_last_table){0};
}
