/* SPDX-License-Identifier: Apache-2.0 */
/* Filter state: interned keys, and the short lists of objects on streams and connections. */
#include "proxy/api/filter_state.h"

#include <stdlib.h>
#include <xxhash.h>

#include "base/map.h"
#include "base/mem.h"
#include "proto/pb_json.h"

struct kb_filter_state_key {
    size_t len;
    char name[];
};

/* ---- keys ---- */

static struct kb_map keys; /* main thread */

struct kb_str kb_filter_state_key_name(const struct kb_filter_state_key *key)
{
    return kb_str_make(key->name, key->len);
}

const struct kb_filter_state_key *kb_filter_state_key(struct kb_str name)
{
    struct kb_filter_state_key *key = kb_map_get(&keys, name);

    if (key == NULL) {
        key = kb_calloc(1, sizeof(*key) + name.len + 1);
        key->len = name.len;
        if (name.len > 0) {
            memcpy(key->name, name.p, name.len);
        }
        kb_map_put(&keys, kb_filter_state_key_name(key), key);
    }
    return key;
}

/* ---- objects ---- */

static void object_retain(const struct kb_filter_state_item *item)
{
    if (item->type->retain != NULL) {
        item->type->retain(item->object);
    }
}

static void object_release(const struct kb_filter_state_item *item)
{
    if (item->type->release != NULL) {
        item->type->release(item->object);
    }
}

int kb_filter_state_put(struct kb_filter_state_item **items, struct kb_arena *arena,
                        const struct kb_filter_state_item *item)
{
    struct kb_filter_state_item *at = *items;

    while (at != NULL && at->key != item->key) {
        at = at->next;
    }
    if (at != NULL && at->read_only) {
        return KB_EEXISTS;
    }
    object_retain(item);
    if (at != NULL) {
        struct kb_filter_state_item *next = at->next;

        object_release(at);
        *at = *item;
        at->next = next;
        return 0;
    }
    at =
        arena != NULL ? kb_arena_alloc(arena, sizeof(*at), sizeof(void *)) : kb_malloc(sizeof(*at));
    *at = *item;
    at->next = *items;
    *items = at;
    return 0;
}

void kb_filter_state_dispose(struct kb_filter_state_item **items, struct kb_arena *arena)
{
    while (*items != NULL) {
        struct kb_filter_state_item *item = *items;

        *items = item->next;
        object_release(item);
        if (arena == NULL) {
            free(item);
        }
    }
}

/* ---- strings ---- */

static bool string_text(const void *object, struct kb_arena *arena, struct kb_str *text)
{
    (void)arena;
    *text = *(const struct kb_str *)object;
    return true;
}

static bool string_json(const void *object, struct kb_arena *arena, struct kb_str *json)
{
    struct kb_json_out out = {0};

    kb_json_out_add_quoted(&out, *(const struct kb_str *)object);
    *json = kb_str_dup(arena, kb_str_make(out.p, out.len));
    kb_json_out_dispose(&out);
    return true;
}

static bool string_hash(const void *object, uint64_t *hash)
{
    const struct kb_str *text = object;

    *hash = XXH64(text->p, text->len, 0);
    return true;
}

const struct kb_filter_state_type kb_filter_state_string = {
    .name = "envoy.string",
    .text = string_text,
    .json = string_json,
};

const struct kb_filter_state_type kb_filter_state_hashable_string = {
    .name = "envoy.hashable_string",
    .text = string_text,
    .json = string_json,
    .hash = string_hash,
};
