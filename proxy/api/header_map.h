/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of one message in arrival order. Names are lower case. Names and values are slices that
 * live as long as the stream: in its read slice, its arena, its configuration, or literals.
 * Well-known names carry an id, found once when the header is added, so that looking them up is an
 * array access. */
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/str.h"

enum kb_header_id {
    KB_HDR_NONE, /* any other name */
#define X(id, name) KB_HDR_##id,
#include "proxy/api/header_names.def"
#undef X
    KB_HDR_COUNT
};

struct kb_header {
    struct kb_str name; /* len 0: removed, skip */
    struct kb_str value;
    uint16_t id;
    uint16_t joined_high; /* with joined_low the address of a value with room behind it, or 0 */
    uint32_t joined_low;
};

struct kb_header_map {
    struct kb_header *items; /* in `arena` */
    uint32_t count;          /* entries of items, removed ones included */
    uint32_t cap;
    uint32_t live; /* without removed ones */
    bool repeated; /* some well-known name stands more than once, or did */
    struct kb_arena *arena;
    struct kb_header_spellings *spellings; /* proxy/http/header_spelling.h; NULL: lower case */
    /* Pseudo headers; p NULL: absent. HTTP/1 keeps Host in `authority` only. */
    struct kb_str method;
    struct kb_str path; /* with query */
    struct kb_str authority;
    struct kb_str scheme;
    struct kb_str protocol; /* extended CONNECT */
    char pseudo_order[5];   /* second letters of their names as they came, "mpsa"; 0: HTTP/1's */
    uint8_t trailers;       /* which headers are joined, where that is not told by `status` */
    uint16_t status;        /* responses; 0: absent */
    uint16_t first[KB_HDR_COUNT]; /* index + 1 of the first entry of this id */
};

/* Call once at start, before any header map is used. */
void kb_header_names_init(void);
/* Id of a lower case name, or KB_HDR_NONE. */
enum kb_header_id kb_header_id_find(struct kb_str name);
/* The name of an id. */
struct kb_str kb_header_id_name(enum kb_header_id id);

/* Empty, with room for 16 headers in the arena, which must outlive it. */
void kb_header_map_init(struct kb_header_map *map, struct kb_arena *arena);
/* The same for the trailers of a request or a response: of headers that stand twice, only gRPC's
 * status and message in a response are joined. */
void kb_header_map_init_trailers(struct kb_header_map *map, struct kb_arena *arena, bool response);
/* Empties a map that is used again; the arena and the room stay. */
void kb_header_map_clear(struct kb_header_map *map);

/* Appends. `name` is lower case; both slices are borrowed for the map's life. */
void kb_header_map_add(struct kb_header_map *map, struct kb_str name, struct kb_str value);
/* Appends a well-known header. */
void kb_header_map_add_id(struct kb_header_map *map, enum kb_header_id id, struct kb_str value);
/* Adds as Envoy does from the wire and from configuration: a repetition of a header that Envoy
 * keeps once (proxy/http/header_inline.def; other ones in requests than in responses, told apart by
 * `status`, so set that first) is joined to the first with ",", in the arena; anything else is
 * appended. */
void kb_header_map_append(struct kb_header_map *map, struct kb_str name, struct kb_str value);
/* The same when the id of the name is known already (KB_HDR_NONE: it has none). */
void kb_header_map_append_id(struct kb_header_map *map, enum kb_header_id id, struct kb_str name,
                             struct kb_str value);
/* Replaces the first value and removes further ones, in place; or appends. */
void kb_header_map_set(struct kb_header_map *map, struct kb_str name, struct kb_str value);
void kb_header_map_set_id(struct kb_header_map *map, enum kb_header_id id, struct kb_str value);
/* Removes every header of that name; returns how many. */
unsigned kb_header_map_remove(struct kb_header_map *map, struct kb_str name);
unsigned kb_header_map_remove_id_slow(struct kb_header_map *map, enum kb_header_id id);

KB_INLINE unsigned kb_header_map_remove_id(struct kb_header_map *map, enum kb_header_id id)
{
    return map->first[id] == 0 ? 0 : kb_header_map_remove_id_slow(map, id);
}

/* First header of a well-known name, or NULL. */
KB_INLINE struct kb_header *kb_header_map_get_id(const struct kb_header_map *map,
                                                 enum kb_header_id id)
{
    return map->first[id] == 0 ? NULL : &map->items[map->first[id] - 1];
}

/* Its value, or p NULL. */
KB_INLINE struct kb_str kb_header_map_value_id(const struct kb_header_map *map,
                                               enum kb_header_id id)
{
    const struct kb_header *header = kb_header_map_get_id(map, id);

    return header != NULL ? header->value : KB_STR_NULL;
}

/* Whether a request asks for another protocol: it has an Upgrade header, and Connection names it.
 */
KB_INLINE bool kb_header_map_asks_upgrade(const struct kb_header_map *map)
{
    return KB_UNLIKELY(kb_header_map_get_id(map, KB_HDR_UPGRADE) != NULL) &&
           kb_str_list_has(kb_header_map_value_id(map, KB_HDR_CONNECTION), KB_STR("upgrade"));
}

/* First header of a lower case name that is not a pseudo header, or NULL. */
struct kb_header *kb_header_map_get(const struct kb_header_map *map, struct kb_str name);
/* Value of a header, of ":method", ":path", ":authority" ("host" too), ":scheme" or ":status"
 * (written to the arena); p NULL when absent. First value only. */
struct kb_str kb_header_map_value(const struct kb_header_map *map, struct kb_str name);
/* All values of that name joined with ",", in the arena; p NULL when absent. As Envoy's
 * getAllOfHeaderAsString. */
struct kb_str kb_header_map_joined(const struct kb_header_map *map, struct kb_str name);
/* Bytes of all names and values, pseudo headers included, as Envoy's HeaderMap::byteSize. */
uint64_t kb_header_map_bytes(const struct kb_header_map *map);

#define KB_HEADER_FOREACH(h, map)                                                               \
    for (struct kb_header *h = (map)->items; h != NULL && h < (map)->items + (map)->count; h++) \
        if (h->name.len > 0)
