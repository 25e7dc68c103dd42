/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics whose names are known only at run time, and text readouts. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/stat_internal.h"

static struct kb_str scope_name(const struct kb_stat_scope *scope)
{
    return kb_str_make(scope->name, scope->name_len);
}

struct kb_stat_named *kb_stat_named_new(struct kb_stat_store *store, size_t len,
                                        enum kb_stat_kind kind)
{
    size_t cells_size = ((size_t)store->worker_count + 1) * sizeof(struct kb_stat_named_cell);
    struct kb_stat_named *named = kb_calloc(1, sizeof(*named) + len);

    named->cells = aligned_alloc(sizeof(struct kb_stat_named_cell), cells_size);
    KB_ASSERT(named->cells != NULL);
    memset(named->cells, 0, cells_size);
    named->scope = (struct kb_stat_scope){
        .name = named->name, .name_len = (uint32_t)len, .type = KB_STAT_SCOPE_NAMED};
    named->store = store;
    named->kind = kind;
    named->refs = 1;
    return named;
}

struct kb_stat_named *kb_stat_named_create(struct kb_stat_store *store, struct kb_str full_name,
                                           enum kb_stat_kind kind)
{
    struct kb_stat_named *named = kb_map_get(&store->named, full_name);

    if (named != NULL && named->kind == kind) {
        named->refs++;
        return named;
    }
    named = kb_stat_named_new(store, full_name.len, kind);
    memcpy(named->name, full_name.p, full_name.len);
    if (kb_map_get(&store->named, full_name) == NULL) {
        kb_map_put(&store->named, scope_name(&named->scope), named);
    }
    kb_stat_scope_add(store, &named->scope);
    return named;
}

struct kb_stat_named *kb_stat_named_create_shown(struct kb_stat_store *store,
                                                 struct kb_str full_name, enum kb_stat_kind kind)
{
    return kb_stat_matcher_rejects(store->matcher, full_name)
               ? NULL
               : kb_stat_named_create(store, full_name, kind);
}

void kb_stat_named_free(struct kb_stat_named *named)
{
    for (uint32_t i = 0; i <= named->store->worker_count; i++) {
        kb_histogram_destroy(named->cells[i].histogram);
    }
    kb_histogram_total_dispose(&named->total);
    free(named->tags);
    free(named->cells);
    free(named);
}

void kb_stat_named_destroy(struct kb_stat_named *named)
{
    if (named == NULL || --named->refs > 0) {
        return;
    }
    if (kb_map_get(&named->store->named, scope_name(&named->scope)) == named) {
        kb_map_remove(&named->store->named, scope_name(&named->scope));
    }
    kb_stat_scope_remove(named->store, &named->scope);
}

void kb_stat_named_add(struct kb_stat_named *named, uint32_t worker_index, int64_t n)
{
    struct kb_stat_named_cell *cell = &named->cells[worker_index];

    KB_DASSERT(worker_index <= named->store->worker_count);
    if (named->kind != KB_STAT_HISTOGRAM) {
        kb_stat_named_set(named, worker_index, cell->value + (uint64_t)n);
        return;
    }
    if (KB_UNLIKELY(cell->histogram == NULL)) {
        __atomic_store_n(&cell->histogram, kb_histogram_create(), __ATOMIC_RELEASE);
    }
    kb_histogram_record(cell->histogram, n < 0 ? 0 : (uint64_t)n);
}

void kb_stat_named_set(struct kb_stat_named *named, uint32_t worker_index, uint64_t value)
{
    struct kb_stat_named_cell *cell = &named->cells[worker_index];

    __atomic_store_n(&cell->used, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&cell->value, value, __ATOMIC_RELAXED);
}

static uint64_t named_sum(const struct kb_stat_named *named)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i <= named->store->worker_count; i++) {
        sum += __atomic_load_n(&named->cells[i].value, __ATOMIC_RELAXED);
    }
    return sum;
}

uint64_t kb_stat_named_value(const struct kb_stat_named *named)
{
    return named_sum(named) - named->base;
}

bool kb_stat_named_used(const struct kb_stat_named *named)
{
    for (uint32_t i = 0; i <= named->store->worker_count; i++) {
        if (__atomic_load_n(&named->cells[i].used, __ATOMIC_RELAXED) != 0) {
            return true;
        }
    }
    return false;
}

void kb_stat_named_flush(struct kb_stat_named *named)
{
    struct kb_histogram *recorders[KB_WORKERS_MAX + 1];

    if (named->kind != KB_STAT_HISTOGRAM) {
        return;
    }
    for (uint32_t i = 0; i <= named->store->worker_count; i++) {
        recorders[i] = __atomic_load_n(&named->cells[i].histogram, __ATOMIC_ACQUIRE);
    }
    kb_histogram_merge(&named->total, recorders, (size_t)named->store->worker_count + 1);
}

void kb_stat_named_reset(struct kb_stat_named *named)
{
    if (named->kind == KB_STAT_COUNTER) {
        named->base = named_sum(named);
    }
}

static struct kb_stat_text *text_of(struct kb_stat_store *store, struct kb_str name)
{
    struct kb_stat_text *readout = kb_map_get(&store->texts, name);

    if (readout == NULL) {
        readout = kb_calloc(1, sizeof(*readout) + name.len);
        memcpy(readout->name, name.p, name.len);
        readout->scope = (struct kb_stat_scope){
            .name = readout->name, .name_len = (uint32_t)name.len, .type = KB_STAT_SCOPE_TEXT};
        kb_map_put(&store->texts, scope_name(&readout->scope), readout);
        kb_stat_scope_add(store, &readout->scope);
    }
    return readout;
}

void kb_stat_text_put(struct kb_stat_text *readout, struct kb_str text)
{
    if (readout->text_len == text.len &&
        (text.len == 0 || memcmp(readout->text, text.p, text.len) == 0)) {
        return;
    }
    free(readout->text);
    readout->text = text.len == 0 ? NULL : kb_str_to_cstr(text);
    readout->text_len = text.len;
}

void kb_stat_text_set(struct kb_stat_store *store, struct kb_str name, struct kb_str text)
{
    kb_stat_text_put(text_of(store, name), text);
}

struct kb_stat_text *kb_stat_text_hold(struct kb_stat_store *store, struct kb_str name)
{
    struct kb_stat_text *readout = text_of(store, name);

    readout->holds++;
    return readout;
}

void kb_stat_text_release(struct kb_stat_store *store, struct kb_stat_text *readout)
{
    if (--readout->holds == 0) {
        kb_map_remove(&store->texts, scope_name(&readout->scope));
        kb_stat_scope_remove(store, &readout->scope);
    }
}

void kb_stat_text_free(struct kb_stat_text *text)
{
    free(text->text);
    free(text);
}
