/* SPDX-License-Identifier: Apache-2.0 */
/* Hash map from text to pointer, open addressing, XXH64 with a per-process random seed. Keys are
 * borrowed: they must live as long as their entry. For configuration and names. */
#pragma once

#include "base/str.h"

struct kb_map_entry {
    struct kb_str key;
    void *value; /* NULL: free slot */
    uint32_t hash;
};

struct kb_map {
    struct kb_map_entry *entries;
    uint32_t cap; /* power of two, or 0 */
    uint32_t len;
};

/* Empty, on caller's storage; allocates nothing yet. */
void kb_map_init(struct kb_map *map);
/* Frees the table, not the values. */
void kb_map_dispose(struct kb_map *map);

/* The value, or NULL. */
void *kb_map_get(const struct kb_map *map, struct kb_str key);

/* Adds or replaces; returns the value that stood there before, or NULL. `value` is not NULL. */
void *kb_map_put(struct kb_map *map, struct kb_str key, void *value);

/* Removes; returns the value that stood there, or NULL. */
void *kb_map_remove(struct kb_map *map, struct kb_str key);

/* The seeded hash that the map uses. */
uint64_t kb_map_hash(struct kb_str key);

/* Order is arbitrary; the map must not change meanwhile. */
#define KB_MAP_FOREACH(e, map)                                                                  \
    for (struct kb_map_entry *e = (map)->entries; e != NULL && e < (map)->entries + (map)->cap; \
         e++)                                                                                   \
        if (e->value != NULL)
