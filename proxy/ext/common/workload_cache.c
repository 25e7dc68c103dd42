/* SPDX-License-Identifier: Apache-2.0 */
/* Peers by node id, the oldest a quarter of the cache forgotten when it is full. What came first
 * under an id counts, as in Istio: an id stands for one process. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/ext/common/workload.h"

#define ID_MAX 1024

struct entry {
    struct kb_list link;
    const struct kb_workload *workload;
    size_t id_len;
    char id[];
};

static struct kb_str entry_id(const struct entry *entry)
{
    return kb_str_make(entry->id, entry->id_len);
}

void kb_workload_cache_init(struct kb_workload_cache *cache)
{
    kb_map_init(&cache->map);
    kb_list_init(&cache->entries);
    cache->unnamed = NULL;
    cache->last = NULL;
}

static void oldest_drop(struct kb_workload_cache *cache)
{
    struct entry *entry = KB_LIST_ENTRY(kb_list_pop_front(&cache->entries), struct entry, link);

    kb_map_remove(&cache->map, entry_id(entry));
    cache->last = NULL;
    kb_workload_unref(entry->workload);
    free(entry);
}

void kb_workload_cache_dispose(struct kb_workload_cache *cache)
{
    while (!kb_list_empty(&cache->entries)) {
        oldest_drop(cache);
    }
    kb_map_dispose(&cache->map);
    kb_workload_unref(cache->unnamed);
}

static void entry_add(struct kb_workload_cache *cache, struct kb_str id,
                      const struct kb_workload *workload)
{
    struct entry *entry;

    if (cache->map.len >= KB_WORKLOAD_CACHE_MAX) {
        for (unsigned i = 0; i < KB_WORKLOAD_CACHE_MAX / 4; i++) {
            oldest_drop(cache);
        }
    }
    entry = kb_malloc(sizeof(*entry) + id.len);
    entry->workload = workload;
    entry->id_len = id.len;
    memcpy(entry->id, id.p, id.len);
    kb_list_push_back(&cache->entries, &entry->link);
    kb_map_put(&cache->map, entry_id(entry), entry);
}

const struct kb_workload *kb_workload_cache_read(struct kb_workload_cache *cache, struct kb_str id,
                                                 struct kb_str text,
                                                 const struct kb_workload_labels *labels)
{
    bool named = id.len > 0 && id.len <= ID_MAX;
    const struct entry *known = cache->last;
    const struct kb_workload *workload;

    if (named && (known == NULL || !kb_str_eq(id, entry_id(known)))) {
        known = kb_map_get(&cache->map, id);
    }
    if (named && known != NULL) {
        cache->last = known;
        return known->workload;
    }
    workload = kb_workload_from_base64(text, labels);
    if (workload == NULL) {
        return NULL;
    }
    if (named) {
        entry_add(cache, id, workload);
    } else {
        kb_workload_unref(cache->unnamed);
        cache->unnamed = workload;
    }
    return workload;
}
