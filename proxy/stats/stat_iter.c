/* SPDX-License-Identifier: Apache-2.0 */
/* Merges the sorted lists of scopes into one order. A scope is opened when its name comes before
 * every statistic that still waits, so that normally one is open at a time. */
#include "proxy/stats/stat_iter.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/stat_internal.h"

struct kb_stat_cursor {
    const struct kb_stat_scope *scope;
    struct kb_stat_leaves leaves;
    size_t at;
};

static struct kb_str scope_name(const struct kb_stat_scope *scope)
{
    return kb_str_make(scope->name, scope->name_len);
}

static int scope_cmp(const void *a, const void *b, void *cmp)
{
    kb_stat_scope_cmp_fn fn = *(kb_stat_scope_cmp_fn *)cmp;

    return fn(scope_name(*(const struct kb_stat_scope *const *)a),
              scope_name(*(const struct kb_stat_scope *const *)b));
}

const struct kb_stat_scope **kb_stat_scopes_sorted(struct kb_stat_store *store,
                                                   kb_stat_scope_cmp_fn cmp, size_t *count)
{
    const struct kb_stat_scope **scopes;

    kb_stat_store_take_tagged(store);
    scopes = kb_calloc((size_t)store->scope_count + 1, sizeof(*scopes));
    *count = 0;
    KB_LIST_FOREACH (link, &store->scopes) {
        scopes[(*count)++] = KB_LIST_ENTRY(link, struct kb_stat_scope, link);
    }
    KB_ASSERT(*count == store->scope_count);
    qsort_r(scopes, *count, sizeof(*scopes), scope_cmp, &cmp);
    return scopes;
}

void kb_stat_iter_init(struct kb_stat_iter *iter, struct kb_stat_store *store,
                       enum kb_stat_phase phase)
{
    *iter = (struct kb_stat_iter){.store = store, .phase = phase};
    iter->epoch = kb_stat_store_pin(store);
    iter->scopes = kb_stat_scopes_sorted(store, kb_str_cmp, &iter->scope_count);
}

void kb_stat_iter_dispose(struct kb_stat_iter *iter)
{
    if (iter->store == NULL) {
        return;
    }
    for (size_t i = 0; i < iter->cursor_room; i++) {
        kb_stat_leaves_dispose(&iter->cursors[i].leaves);
    }
    free(iter->cursors);
    free(iter->scopes);
    free(iter->name);
    kb_stat_store_unpin(iter->store, iter->epoch);
    *iter = (struct kb_stat_iter){.store = NULL};
}

static struct kb_str cursor_suffix(const struct kb_stat_cursor *cursor)
{
    return cursor->leaves.list.items[cursor->at].suffix;
}

/* Compares "prefix" + "suffix" of two, without putting them together. */
static int full_cmp(struct kb_str a, struct kb_str a_suffix, struct kb_str b,
                    struct kb_str b_suffix)
{
    size_t common = KB_MIN(a.len, b.len);
    int cmp = common == 0 ? 0 : memcmp(a.p, b.p, common);

    if (cmp != 0) {
        return cmp;
    }
    if (a.len == b.len) {
        return kb_str_cmp(a_suffix, b_suffix);
    }
    if (a.len > b.len) {
        return -full_cmp(b, b_suffix, a, a_suffix);
    }
    /* a's prefix ended: its suffix stands against the rest of b's prefix. */
    b = kb_str_from(b, common);
    common = KB_MIN(a_suffix.len, b.len);
    cmp = common == 0 ? 0 : memcmp(a_suffix.p, b.p, common);
    if (cmp != 0) {
        return cmp;
    }
    if (a_suffix.len < b.len) {
        return -1;
    }
    return kb_str_cmp(kb_str_from(a_suffix, common), b_suffix);
}

/* The open scope whose statistic comes first, or NULL. */
static struct kb_stat_cursor *cursor_first(struct kb_stat_iter *iter)
{
    struct kb_stat_cursor *first = NULL;

    for (size_t i = 0; i < iter->cursor_count; i++) {
        struct kb_stat_cursor *cursor = &iter->cursors[i];

        if (first == NULL || full_cmp(scope_name(cursor->scope), cursor_suffix(cursor),
                                      scope_name(first->scope), cursor_suffix(first)) < 0) {
            first = cursor;
        }
    }
    return first;
}

static void scope_open(struct kb_stat_iter *iter, const struct kb_stat_scope *scope)
{
    struct kb_stat_cursor *cursor;

    if (iter->cursor_count == iter->cursor_room) {
        iter->cursor_room = iter->cursor_room == 0 ? 4 : iter->cursor_room * 2;
        iter->cursors = kb_realloc(iter->cursors, iter->cursor_room * sizeof(*iter->cursors));
        memset(iter->cursors + iter->cursor_count, 0,
               (iter->cursor_room - iter->cursor_count) * sizeof(*iter->cursors));
    }
    cursor = &iter->cursors[iter->cursor_count];
    cursor->scope = scope;
    cursor->at = 0;
    kb_stat_leaves_fill(&cursor->leaves, scope, iter->phase, true, true);
    iter->cursor_count += cursor->leaves.list.len > 0 ? 1 : 0;
}

static struct kb_stat_cursor *scopes_open_due(struct kb_stat_iter *iter)
{
    struct kb_stat_cursor *first = cursor_first(iter);

    while (iter->next_scope < iter->scope_count) {
        const struct kb_stat_scope *scope = iter->scopes[iter->next_scope];

        if (first != NULL && full_cmp(scope_name(scope), KB_STR_NULL, scope_name(first->scope),
                                      cursor_suffix(first)) > 0) {
            break;
        }
        iter->next_scope++;
        if (!scope->gone) {
            scope_open(iter, scope);
            first = cursor_first(iter);
        }
    }
    return first;
}

/* Puts the full name together in the iterator; false when it is the same as the last. */
static bool name_take(struct kb_stat_iter *iter, const struct kb_stat_cursor *cursor)
{
    struct kb_str prefix = scope_name(cursor->scope);
    struct kb_str suffix = cursor_suffix(cursor);
    size_t len = prefix.len + suffix.len;
    bool fresh = len != iter->name_len || memcmp(iter->name, prefix.p, prefix.len) != 0 ||
                 (suffix.len > 0 && memcmp(iter->name + prefix.len, suffix.p, suffix.len) != 0);

    if (iter->name_room < len) {
        iter->name_room = len + 128;
        iter->name = kb_realloc(iter->name, iter->name_room);
    }
    memcpy(iter->name, prefix.p, prefix.len);
    if (suffix.len > 0) {
        memcpy(iter->name + prefix.len, suffix.p, suffix.len);
    }
    iter->name_len = len;
    return fresh;
}

static void cursor_step(struct kb_stat_iter *iter, struct kb_stat_cursor *cursor)
{
    struct kb_stat_cursor *last = &iter->cursors[iter->cursor_count - 1];

    if (++cursor->at < cursor->leaves.list.len) {
        return;
    }
    if (cursor != last) {
        struct kb_stat_cursor ended = *cursor;

        *cursor = *last;
        *last = ended; /* its lists serve the next scope */
    }
    iter->cursor_count--;
}

bool kb_stat_iter_next(struct kb_stat_iter *iter, struct kb_stat_view *view)
{
    for (;;) {
        struct kb_stat_cursor *cursor;
        bool fresh;

        if (iter->epoch != iter->store->pin_epoch || (cursor = scopes_open_due(iter)) == NULL) {
            return false;
        }
        fresh = name_take(iter, cursor);
        view->name = kb_str_make(iter->name, iter->name_len);
        kb_stat_leaf_view(cursor->scope, &cursor->leaves.list.items[cursor->at], view);
        cursor_step(iter, cursor);
        if (fresh && !kb_stat_matcher_rejects(iter->store->matcher, view->name)) {
            return true;
        }
    }
}

int kb_stat_store_find(struct kb_stat_store *store, struct kb_str name, uint64_t *value)
{
    struct kb_stat_iter iter;
    struct kb_stat_view view;
    int rc = KB_ENOTFOUND;

    kb_stat_iter_init(&iter, store, KB_STAT_PHASE_NUMBERS);
    while (rc != 0 && kb_stat_iter_next(&iter, &view)) {
        if (kb_str_eq(view.name, name)) {
            *value = view.value;
            rc = 0;
        }
    }
    kb_stat_iter_dispose(&iter);
    return rc;
}
