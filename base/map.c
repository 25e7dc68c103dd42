/* SPDX-License-Identifier: Apache-2.0 */
/* Hash map: linear probing, deletion by shifting back, so no tombstones. */
#include "base/map.h"

#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"
#include "base/obj.h"
#include "base/rand.h"

#define CAP_MIN 16

static uint64_t seed_get(void)
{
    static uint64_t seed;
    uint64_t s = __atomic_load_n(&seed, __ATOMIC_RELAXED);

    if (KB_UNLIKELY(s == 0)) {
        s = kb_rand_entropy() | 1;
        __atomic_store_n(&seed, s, __ATOMIC_RELAXED);
    }
    return s;
}

uint64_t kb_map_hash(struct kb_str key)
{
    return XXH64(key.p != NULL ? key.p : "", key.len, seed_get());
}

void kb_map_init(struct kb_map *map)
{
    memset(map, 0, sizeof(*map));
}

void kb_map_dispose(struct kb_map *map)
{
    free(map->entries);
    kb_map_init(map);
}

/* The slot of the key, or the free slot where it belongs. */
static uint32_t slot_find(const struct kb_map *map, struct kb_str key, uint32_t hash)
{
    uint32_t at = hash & (map->cap - 1);

    while (map->entries[at].value != NULL &&
           (map->entries[at].hash != hash || !kb_str_eq(map->entries[at].key, key))) {
        at = (at + 1) & (map->cap - 1);
    }
    return at;
}

static void grow(struct kb_map *map)
{
    struct kb_map old = *map;

    map->cap = old.cap > 0 ? old.cap * 2 : CAP_MIN;
    map->entries = kb_calloc(map->cap, sizeof(*map->entries));
    for (uint32_t i = 0; i < old.cap; i++) {
        if (old.entries[i].value != NULL) {
            map->entries[slot_find(map, old.entries[i].key, old.entries[i].hash)] = old.entries[i];
        }
    }
    free(old.entries);
}

void *kb_map_get(const struct kb_map *map, struct kb_str key)
{
    if (map->len == 0) {
        return NULL;
    }
    return map->entries[slot_find(map, key, (uint32_t)kb_map_hash(key))].value;
}

void *kb_map_put(struct kb_map *map, struct kb_str key, void *value)
{
    uint32_t hash = (uint32_t)kb_map_hash(key);
    uint32_t at;
    void *before;

    KB_ASSERT(value != NULL);
    if ((map->len + 1) * 4 > map->cap * 3) {
        grow(map);
    }
    at = slot_find(map, key, hash);
    before = map->entries[at].value;
    if (before == NULL) {
        map->len++;
    }
    map->entries[at] = (struct kb_map_entry){key, value, hash};
    return before;
}

void *kb_map_remove(struct kb_map *map, struct kb_str key)
{
    uint32_t at, next;
    void *before;

    if (map->len == 0) {
        return NULL;
    }
    at = slot_find(map, key, (uint32_t)kb_map_hash(key));
    before = map->entries[at].value;
    if (before == NULL) {
        return NULL;
    }
    next = at;
    for (;;) {
        uint32_t home;

        next = (next + 1) & (map->cap - 1);
        if (map->entries[next].value == NULL) {
            break;
        }
        home = map->entries[next].hash & (map->cap - 1);
        /* An entry may fill the hole unless its home lies between the hole and itself. */
        if (((next - home) & (map->cap - 1)) >= ((next - at) & (map->cap - 1))) {
            map->entries[at] = map->entries[next];
            at = next;
        }
    }
    map->entries[at].value = NULL;
    map->len--;
    return before;
}
