/* SPDX-License-Identifier: Apache-2.0 */
/* Walking over all statistics in the order of their names, a piece at a time: names exist only one
 * by one, so that thousands of clusters cost neither memory nor a long pause. Main thread. */
#pragma once

#include "base/vec.h"
#include "proxy/stats/stat_store.h"

/* What is walked over together. */
enum kb_stat_phase {
    KB_STAT_PHASE_TEXTS,
    KB_STAT_PHASE_NUMBERS, /* counters and gauges */
    KB_STAT_PHASE_COUNTERS,
    KB_STAT_PHASE_GAUGES,
    KB_STAT_PHASE_HISTOGRAMS,
};

/* One statistic of a scope. */
struct kb_stat_leaf {
    struct kb_str suffix;                       /* behind the scope's name */
    uint16_t id;                                /* in the schema, or KB_STAT_LEAF_CODE */
    uint8_t kind;                               /* enum kb_stat_kind */
    uint64_t value;                             /* of a response code counter */
    const struct kb_histogram_total *histogram; /* of a response code variant */
};

#define KB_STAT_LEAF_CODE UINT16_MAX

/* The statistics of one scope, sorted. Zero-initialise; may be used again and again. */
struct kb_stat_leaves {
    KB_VEC(struct kb_stat_leaf) list;
    struct kb_arena names;
};

/* What a statistic shows. */
struct kb_stat_view {
    struct kb_str name; /* full */
    enum kb_stat_kind kind;
    bool is_text;
    bool used; /* was ever written */
    uint64_t value;
    const struct kb_histogram_total *histogram; /* NULL: no recorded values */
    struct kb_str text;
    const struct kb_stat_scope *scope;
};

/* Fills in what the scope has in that phase. `with_codes` false leaves out what exists only since a
 * response code was seen. */
void kb_stat_leaves_fill(struct kb_stat_leaves *leaves, const struct kb_stat_scope *scope,
                         enum kb_stat_phase phase, bool with_schema, bool with_codes);
void kb_stat_leaves_dispose(struct kb_stat_leaves *leaves);

/* Reads everything but the name. */
void kb_stat_leaf_view(const struct kb_stat_scope *scope, const struct kb_stat_leaf *leaf,
                       struct kb_stat_view *view);

/* All scopes by name: heap, *count of them. Valid as long as a pin is held. */
typedef int (*kb_stat_scope_cmp_fn)(struct kb_str a, struct kb_str b);
const struct kb_stat_scope **kb_stat_scopes_sorted(struct kb_stat_store *store,
                                                   kb_stat_scope_cmp_fn cmp, size_t *count);

struct kb_stat_iter {
    struct kb_stat_store *store;
    uint64_t epoch;
    enum kb_stat_phase phase;
    const struct kb_stat_scope **scopes;
    size_t scope_count;
    size_t next_scope;
    struct kb_stat_cursor
        *cursors; /* scopes that are open: one, or a few whose prefixes start alike */
    size_t cursor_count;
    size_t cursor_room;
    char *name; /* of the last statistic */
    size_t name_len;
    size_t name_room;
};

/* Starts at the first statistic of the phase; holds a pin until dispose. */
void kb_stat_iter_init(struct kb_stat_iter *iter, struct kb_stat_store *store,
                       enum kb_stat_phase phase);
void kb_stat_iter_dispose(struct kb_stat_iter *iter);

/* The next statistic that stats_matcher lets through, in byte order of full names; the view is
 * valid until the next call. False at the end. */
bool kb_stat_iter_next(struct kb_stat_iter *iter, struct kb_stat_view *view);

/* Looks a counter or gauge up by its full name, for tests and drain decisions; slow. KB_ENOTFOUND.
 */
int kb_stat_store_find(struct kb_stat_store *store, struct kb_str name,
                       uint64_t *value) KB_MUST_USE;
