/* SPDX-License-Identifier: Apache-2.0 */
/* Header maps: an array in arrival order, and per well-known name the index of its first entry.
 * Removed entries stay as empty names, so that indices hold. The id of a name is found with a
 * perfect hash whose seed is searched at start. */
#include "proxy/api/header_map.h"

#include "base/obj.h"

#define NAME_SLOTS     2048U /* a seed is found within some twenty tries; in 512 it took 10 ms */
#define NAME_SEEDS_MAX 100000U
#define ITEMS_START    16U
#define ITEMS_MAX      65534U /* first[] holds index + 1 in 16 bits */

static const struct kb_str names[KB_HDR_COUNT] = {
    [KB_HDR_NONE] = {"", 0},
#define X(id, name) [KB_HDR_##id] = {name, sizeof(name) - 1},
#include "proxy/api/header_names.def"
#undef X
};

enum {
    INLINE_REQUEST = 1,
    INLINE_RESPONSE = 2,
    INLINE_BOTH = 3,
    INLINE_REQUEST_TRAILERS = 4, /* none has it */
    INLINE_RESPONSE_TRAILERS = 8,
    INLINE_RESPONSE_ALL = INLINE_RESPONSE | INLINE_RESPONSE_TRAILERS,
};

static const uint8_t inline_in[KB_HDR_COUNT] = {
#define X(id, where) [KB_HDR_##id] = INLINE_##where,
#include "proxy/http/header_inline.def"
#undef X
};

static uint8_t name_slots[NAME_SLOTS];
static uint64_t name_seed;
static size_t name_len_max;

_Static_assert(KB_HDR_COUNT < 256, "name_slots holds ids in one byte");

/* The first eight bytes, the last eight and those in the middle (overlapping, or spread when there
 * are fewer) tell all names apart. */
KB_INLINE uint64_t name_key(struct kb_str name)
{
    uint64_t first = 0;
    uint64_t last = 0;

    if (name.len >= 8) {
        memcpy(&first, name.p, 8);
        memcpy(&last, name.p + name.len - 8, 8);
        if (name.len >= 16) {
            uint64_t middle;

            memcpy(&middle, name.p + name.len / 2 - 4, 8);
            last ^= middle << 1;
        }
    } else if (name.len >= 4) {
        uint32_t a;
        uint32_t b;

        memcpy(&a, name.p, 4);
        memcpy(&b, name.p + name.len - 4, 4);
        first = a;
        last = b;
    } else {
        first = (unsigned char)name.p[0];
        last = (unsigned char)name.p[name.len - 1];
    }
    return last + first * UINT64_C(0x9e3779b97f4a7c15) + name.len;
}

KB_INLINE unsigned name_slot(uint64_t key, uint64_t seed)
{
    key *= seed;
    return (unsigned)((key ^ (key >> 32)) >> 20) & (NAME_SLOTS - 1);
}

static bool names_fit(uint64_t seed)
{
    memset(name_slots, KB_HDR_NONE, sizeof(name_slots));
    for (unsigned id = KB_HDR_NONE + 1; id < KB_HDR_COUNT; id++) {
        unsigned slot = name_slot(name_key(names[id]), seed);

        if (name_slots[slot] != KB_HDR_NONE) {
            return false;
        }
        name_slots[slot] = (uint8_t)id;
    }
    return true;
}

void kb_header_names_init(void)
{
    uint64_t seed = UINT64_C(0x9e3779b97f4a7c15);

    if (name_seed != 0) {
        return;
    }
    for (unsigned id = KB_HDR_NONE + 1; id < KB_HDR_COUNT; id++) {
        name_len_max = KB_MAX(name_len_max, names[id].len);
    }
    for (unsigned i = 0; i < NAME_SEEDS_MAX; i++) {
        if (names_fit(seed)) {
            name_seed = seed;
            return;
        }
        seed = (seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407)) | 1;
    }
    KB_ASSERT(!"a seed without collisions exists: raise NAME_SLOTS");
}

enum kb_header_id kb_header_id_find(struct kb_str name)
{
    enum kb_header_id id;

    if (name.len - 2 > name_len_max - 2 || name.len < 2) {
        return KB_HDR_NONE;
    }
    id = name_slots[name_slot(name_key(name), name_seed)];
    if (names[id].len == name.len && memcmp(names[id].p, name.p, name.len) == 0) {
        return id;
    }
    return KB_HDR_NONE;
}

struct kb_str kb_header_id_name(enum kb_header_id id)
{
    return names[id];
}

void kb_header_map_init(struct kb_header_map *map, struct kb_arena *arena)
{
    memset(map, 0, sizeof(*map));
    map->arena = arena;
    map->cap = ITEMS_START;
    map->items =
        kb_arena_alloc(arena, ITEMS_START * sizeof(*map->items), _Alignof(struct kb_header));
}

void kb_header_map_init_trailers(struct kb_header_map *map, struct kb_arena *arena, bool response)
{
    kb_header_map_init(map, arena);
    map->trailers = response ? INLINE_RESPONSE_TRAILERS : INLINE_REQUEST_TRAILERS;
}

void kb_header_map_clear(struct kb_header_map *map)
{
    struct kb_header_map kept = *map;

    memset(map, 0, sizeof(*map));
    map->arena = kept.arena;
    map->cap = kept.cap;
    map->items = kept.items;
}

static KB_NOINLINE bool items_grow(struct kb_header_map *map)
{
    uint32_t cap = KB_MIN(map->cap * 2, ITEMS_MAX);
    struct kb_header *items;

    if (map->count >= ITEMS_MAX) {
        return false;
    }
    items = kb_arena_alloc(map->arena, cap * sizeof(*items), _Alignof(struct kb_header));
    memcpy(items, map->items, map->count * sizeof(*items));
    map->items = items;
    map->cap = cap;
    return true;
}

KB_INLINE void item_append(struct kb_header_map *map, struct kb_str name, enum kb_header_id id,
                           struct kb_str value)
{
    struct kb_header *item;

    /* The codecs stop far earlier; a filter that gets here loses its header, not the process. */
    if (KB_UNLIKELY(map->count == map->cap) && KB_BUG_IF(!items_grow(map))) {
        return;
    }
    item = &map->items[map->count++];
    item->name = name;
    item->value = value;
    item->id = (uint16_t)id;
    item->joined_high = 0;
    item->joined_low = 0;
    map->live++;
    if (id != KB_HDR_NONE) {
        if (map->first[id] == 0) {
            map->first[id] = (uint16_t)map->count;
        } else {
            map->repeated = true;
        }
    }
}

void kb_header_map_add(struct kb_header_map *map, struct kb_str name, struct kb_str value)
{
    if (name.len > 0) {
        item_append(map, name, kb_header_id_find(name), value);
    }
}

void kb_header_map_add_id(struct kb_header_map *map, enum kb_header_id id, struct kb_str value)
{
    item_append(map, names[id], id, value);
}

/* The room of a joined value of this length: a power of two, so that many repetitions of many
 * headers are copied a few times only, and take four times their bytes at most. */
static size_t joined_room(size_t len)
{
    size_t room = 64;

    while (room < len) {
        room *= 2;
    }
    return room;
}

/* Whether the value still is what item_join made: who sets another one does not say so. */
static bool item_joined(const struct kb_header *item)
{
    return (uintptr_t)item->value.p == ((uintptr_t)item->joined_high << 32 | item->joined_low);
}

static void item_join(struct kb_header_map *map, struct kb_header *item, struct kb_str value)
{
    size_t len = item->value.len + 1 + value.len;
    char *text;

    if (value.len == 0) {
        return;
    }
    if (item->value.len == 0) {
        item->value = value;
        return;
    }
    if (item_joined(item) && joined_room(item->value.len) >= len) {
        /* Joined before: goes on where it ends. */
        text = (char *)(uintptr_t)item->value.p;
    } else {
        text = kb_arena_alloc(map->arena, joined_room(len), 1);
        memcpy(text, item->value.p, item->value.len);
        item->joined_low = (uint32_t)(uintptr_t)text;
        item->joined_high = (uint16_t)((uintptr_t)text >> 32);
    }
    text[item->value.len] = ',';
    memcpy(text + item->value.len + 1, value.p, value.len);
    item->value = kb_str_make(text, len);
}

void kb_header_map_append_id(struct kb_header_map *map, enum kb_header_id id, struct kb_str name,
                             struct kb_str value)
{
    unsigned kind = map->trailers != 0 ? map->trailers
                    : map->status != 0 ? INLINE_RESPONSE
                                       : INLINE_REQUEST;

    if (id != KB_HDR_NONE && map->first[id] != 0 && (inline_in[id] & kind) != 0) {
        item_join(map, &map->items[map->first[id] - 1], value);
    } else if (name.len > 0) {
        item_append(map, name, id, value);
    }
}

void kb_header_map_append(struct kb_header_map *map, struct kb_str name, struct kb_str value)
{
    kb_header_map_append_id(map, kb_header_id_find(name), name, value);
}

static struct kb_header *item_find(const struct kb_header_map *map, uint32_t from,
                                   enum kb_header_id id, struct kb_str name)
{
    for (uint32_t i = from; i < map->count; i++) {
        struct kb_header *item = &map->items[i];

        if (item->name.len == 0 || item->id != id) {
            continue;
        }
        if (id != KB_HDR_NONE || kb_str_eq(item->name, name)) {
            return item;
        }
    }
    return NULL;
}

static void item_clear(struct kb_header *item)
{
    item->name = KB_STR_NULL;
    item->value = KB_STR_NULL;
}

/* Empties every match from `from` on. */
static unsigned items_remove(struct kb_header_map *map, uint32_t from, enum kb_header_id id,
                             struct kb_str name)
{
    unsigned removed = 0;

    for (struct kb_header *item = item_find(map, from, id, name); item != NULL;
         item = item_find(map, (uint32_t)(item - map->items) + 1, id, name)) {
        item_clear(item);
        removed++;
    }
    map->live -= removed;
    return removed;
}

static void item_set(struct kb_header_map *map, struct kb_header *item, struct kb_str name,
                     enum kb_header_id id, struct kb_str value)
{
    if (item == NULL) {
        item_append(map, name, id, value);
        return;
    }
    item->value = value;
    if (id == KB_HDR_NONE || map->repeated) {
        items_remove(map, (uint32_t)(item - map->items) + 1, id, name);
    }
}

void kb_header_map_set(struct kb_header_map *map, struct kb_str name, struct kb_str value)
{
    enum kb_header_id id = kb_header_id_find(name);

    if (id != KB_HDR_NONE) {
        kb_header_map_set_id(map, id, value);
    } else if (name.len > 0) {
        item_set(map, item_find(map, 0, id, name), name, id, value);
    }
}

void kb_header_map_set_id(struct kb_header_map *map, enum kb_header_id id, struct kb_str value)
{
    item_set(map, kb_header_map_get_id(map, id), names[id], id, value);
}

unsigned kb_header_map_remove(struct kb_header_map *map, struct kb_str name)
{
    enum kb_header_id id = kb_header_id_find(name);

    if (id != KB_HDR_NONE) {
        return kb_header_map_remove_id(map, id);
    }
    return name.len > 0 ? items_remove(map, 0, id, name) : 0;
}

unsigned kb_header_map_remove_id_slow(struct kb_header_map *map, enum kb_header_id id)
{
    uint32_t first = map->first[id];

    if (first == 0) {
        return 0;
    }
    map->first[id] = 0;
    if (KB_LIKELY(!map->repeated)) {
        item_clear(&map->items[first - 1]);
        map->live--;
        return 1;
    }
    return items_remove(map, first - 1, id, names[id]);
}

struct kb_header *kb_header_map_get(const struct kb_header_map *map, struct kb_str name)
{
    enum kb_header_id id = kb_header_id_find(name);

    if (id != KB_HDR_NONE) {
        return kb_header_map_get_id(map, id);
    }
    return name.len > 0 ? item_find(map, 0, id, name) : NULL;
}

static struct kb_str status_text(const struct kb_header_map *map)
{
    char *text;

    if (map->status == 0) {
        return KB_STR_NULL;
    }
    text = kb_arena_alloc(map->arena, 20, 1);
    return kb_str_make(text, kb_u64_to_str(map->status, text));
}

/* A pseudo header by its name, with ':'; p NULL when absent. */
static struct kb_str pseudo_value(const struct kb_header_map *map, struct kb_str name)
{
    if (kb_str_eq(name, KB_STR(":path"))) {
        return map->path;
    }
    if (kb_str_eq(name, KB_STR(":method"))) {
        return map->method;
    }
    if (kb_str_eq(name, KB_STR(":authority"))) {
        return map->authority;
    }
    if (kb_str_eq(name, KB_STR(":scheme"))) {
        return map->scheme;
    }
    if (kb_str_eq(name, KB_STR(":protocol"))) {
        return map->protocol;
    }
    return kb_str_eq(name, KB_STR(":status")) ? status_text(map) : KB_STR_NULL;
}

struct kb_str kb_header_map_value(const struct kb_header_map *map, struct kb_str name)
{
    const struct kb_header *header;

    if (name.len > 0 && name.p[0] == ':') {
        return pseudo_value(map, name);
    }
    header = kb_header_map_get(map, name);
    if (header != NULL) {
        return header->value;
    }
    return kb_str_eq(name, names[KB_HDR_HOST]) ? map->authority : KB_STR_NULL;
}

struct kb_str kb_header_map_joined(const struct kb_header_map *map, struct kb_str name)
{
    enum kb_header_id id;
    struct kb_header *first;
    struct kb_header *item;
    size_t len;
    char *text;
    char *at;

    if (name.len == 0 || name.p[0] == ':') {
        return kb_header_map_value(map, name);
    }
    first = kb_header_map_get(map, name);
    if (first == NULL) {
        return kb_header_map_value(map, name);
    }
    id = first->id;
    item = item_find(map, (uint32_t)(first - map->items) + 1, id, name);
    if (item == NULL) {
        return first->value;
    }
    len = first->value.len;
    for (; item != NULL; item = item_find(map, (uint32_t)(item - map->items) + 1, id, name)) {
        len += 1 + item->value.len;
    }
    text = kb_arena_alloc(map->arena, len, 1);
    at = text;
    for (item = first; item != NULL;
         item = item_find(map, (uint32_t)(item - map->items) + 1, id, name)) {
        if (item != first) {
            *at++ = ',';
        }
        if (item->value.len > 0) {
            memcpy(at, item->value.p, item->value.len);
            at += item->value.len;
        }
    }
    return kb_str_make(text, len);
}

KB_INLINE uint64_t pseudo_bytes(size_t name_len, struct kb_str value)
{
    return value.p != NULL ? name_len + value.len : 0;
}

uint64_t kb_header_map_bytes(const struct kb_header_map *map)
{
    uint64_t bytes = 0;

    bytes += pseudo_bytes(sizeof(":method") - 1, map->method);
    bytes += pseudo_bytes(sizeof(":path") - 1, map->path);
    bytes += pseudo_bytes(sizeof(":authority") - 1, map->authority);
    bytes += pseudo_bytes(sizeof(":scheme") - 1, map->scheme);
    bytes += pseudo_bytes(sizeof(":protocol") - 1, map->protocol);
    bytes += map->status != 0 ? sizeof(":status") - 1 + 3 : 0;
    for (uint32_t i = 0; i < map->count; i++) {
        bytes += map->items[i].name.len + map->items[i].value.len; /* removed: 0 */
    }
    return bytes;
}
