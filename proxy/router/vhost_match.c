/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual host for a Host value, in Envoy's order: exact domain, longest "*.suffix", longest
 * "prefix.*", "*". One hash lookup for the exact domain and one for each distinct length of
 * wildcards. */
#include <stdlib.h>

#include "proxy/router/route_table.h"

static struct kb_str lower_dup(struct kb_str text, struct kb_arena *arena)
{
    struct kb_str copy = kb_str_dup(arena, text);
    char *lower = (char *)copy.p; /* ours */

    for (size_t i = 0; i < copy.len; i++) {
        lower[i] = kb_ascii_lower(lower[i]);
    }
    return copy;
}

static int map_add(struct kb_map *map, struct kb_str key, const struct kb_virtual_host *vhost,
                   struct kb_arena *arena)
{
    struct kb_str lower = lower_dup(key, arena);

    if (kb_map_get(map, lower) != NULL) {
        return KB_EEXISTS;
    }
    kb_map_put(map, lower, (void *)vhost);
    return 0;
}

int kb_vhost_map_add(struct kb_vhost_map *map, struct kb_str domain,
                     const struct kb_virtual_host *vhost, struct kb_arena *arena)
{
    if (kb_str_eq(domain, KB_STR("*"))) {
        if (map->any != NULL) {
            return KB_EEXISTS;
        }
        map->any = vhost;
        return 0;
    }
    if (domain.len > 0 && domain.p[0] == '*') {
        return map_add(&map->suffixes, kb_str_from(domain, 1), vhost, arena);
    }
    if (domain.len > 0 && domain.p[domain.len - 1] == '*') {
        return map_add(&map->prefixes, kb_str_first(domain, domain.len - 1), vhost, arena);
    }
    map->exact_len_max = KB_MAX(map->exact_len_max, domain.len);
    return map_add(&map->exact, domain, vhost, arena);
}

static int len_descending(const void *a, const void *b)
{
    return (int)*(const uint16_t *)b - (int)*(const uint16_t *)a;
}

/* Distinct key lengths, longest first. */
static uint16_t *lens_collect(const struct kb_map *map, size_t *count, struct kb_arena *arena)
{
    uint16_t *lens;
    size_t n = 0;
    size_t distinct = 0;

    *count = 0;
    if (map->len == 0) {
        return NULL;
    }
    lens = kb_arena_alloc(arena, map->len * sizeof(*lens), _Alignof(uint16_t));
    KB_MAP_FOREACH (e, map) {
        lens[n++] = (uint16_t)e->key.len; /* at most KB_ROUTE_DOMAIN_MAX */
    }
    qsort(lens, n, sizeof(*lens), len_descending);
    for (size_t i = 0; i < n; i++) {
        if (distinct == 0 || lens[distinct - 1] != lens[i]) {
            lens[distinct++] = lens[i];
        }
    }
    *count = distinct;
    return lens;
}

void kb_vhost_map_finish(struct kb_vhost_map *map, struct kb_arena *arena)
{
    map->suffix_lens = lens_collect(&map->suffixes, &map->suffix_len_count, arena);
    map->prefix_lens = lens_collect(&map->prefixes, &map->prefix_len_count, arena);
}

void kb_vhost_map_dispose(struct kb_vhost_map *map)
{
    kb_map_dispose(&map->exact);
    kb_map_dispose(&map->suffixes);
    kb_map_dispose(&map->prefixes);
}

static const struct kb_virtual_host *wildcard_find(const struct kb_vhost_map *map,
                                                   struct kb_str host)
{
    const struct kb_virtual_host *found;

    /* The '*' stands for at least one character. */
    for (size_t i = 0; i < map->suffix_len_count; i++) {
        if (map->suffix_lens[i] < host.len) {
            found = kb_map_get(&map->suffixes, kb_str_from(host, host.len - map->suffix_lens[i]));
            if (found != NULL) {
                return found;
            }
        }
    }
    for (size_t i = 0; i < map->prefix_len_count; i++) {
        if (map->prefix_lens[i] < host.len) {
            found = kb_map_get(&map->prefixes, kb_str_first(host, map->prefix_lens[i]));
            if (found != NULL) {
                return found;
            }
        }
    }
    return map->any;
}

const struct kb_virtual_host *kb_vhost_map_find(const struct kb_vhost_map *map, struct kb_str host)
{
    char lower[KB_ROUTE_DOMAIN_MAX];
    const struct kb_virtual_host *found;

    if (host.len > sizeof(lower)) {
        return map->any;
    }
    for (size_t i = 0; i < host.len; i++) {
        lower[i] = kb_ascii_lower(host.p[i]);
    }
    host.p = lower;
    if (host.len <= map->exact_len_max && map->exact.len > 0) {
        found = kb_map_get(&map->exact, host);
        if (found != NULL) {
            return found;
        }
    }
    return wildcard_find(map, host);
}
