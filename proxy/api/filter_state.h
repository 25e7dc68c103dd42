/* SPDX-License-Identifier: Apache-2.0 */
/* Objects that filters leave on a stream or a connection for others to read: other filters, access
 * logs, header formats (Envoy FilterState). Nothing is allocated where nobody puts one. What is put
 * on the connection is seen by all its streams. Implemented in proxy/network/filter_state.c; on the
 * connection's worker unless a function says otherwise. */
#pragma once

#include "base/arena.h"
#include "proxy/api/stream_info.h"

/* A name, known by its address: two of the same text are one. */
struct kb_filter_state_key;

/* The key of that name, for the process's life. Main thread, when configuration is built. */
const struct kb_filter_state_key *kb_filter_state_key(struct kb_str name);
struct kb_str kb_filter_state_key_name(const struct kb_filter_state_key *key);

/* One part of an object. */
struct kb_filter_state_field {
    bool number;
    struct kb_str text;
    int64_t value; /* of a number */
};

/* What kind of object stands there. A member that is NULL: objects of this kind have no such form.
 */
struct kb_filter_state_type {
    const char *name;
    /* %FILTER_STATE(key:PLAIN)%, in the arena or the object's own memory; false: there is none. */
    bool (*text)(const void *object, struct kb_arena *arena, struct kb_str *text);
    /* %FILTER_STATE(key:TYPED)%: JSON of the message that stands for it. */
    bool (*json)(const void *object, struct kb_arena *arena, struct kb_str *json);
    /* %FILTER_STATE(key:FIELD:name)%; false: no such field. */
    bool (*field)(const void *object, struct kb_str name, struct kb_filter_state_field *field);
    /* The number by which a hash policy chooses a host; false: there is none. */
    bool (*hash)(const void *object, uint64_t *hash);
    /* One holder more or less; NULL: the object lives at least as long as where it was put. */
    void (*retain)(const void *object);
    void (*release)(const void *object);
};

/* A `const struct kb_str *`, as Envoy's Router::StringAccessor. */
extern const struct kb_filter_state_type kb_filter_state_string;
/* Likewise, and hash policies take it (envoy.hashable_string). */
extern const struct kb_filter_state_type kb_filter_state_hashable_string;

/* Whether upstream connections made for the stream get the object too. */
enum kb_filter_state_sharing {
    KB_FILTER_STATE_SHARED_NONE,
    KB_FILTER_STATE_SHARED_ONCE,
    KB_FILTER_STATE_SHARED_TRANSITIVE, /* and those that are made for these */
};

struct kb_filter_state_item {
    struct kb_filter_state_item *next;
    const struct kb_filter_state_key *key;
    const struct kb_filter_state_type *type;
    const void *object;
    bool read_only; /* never replaced */
    uint8_t sharing;
};

/* Puts the object in the list `*items`, where it takes the place of an older one of this key; holds
 * it by type->retain. The item's memory is the arena's, or the heap's when `arena` is NULL, for all
 * items of a list alike. KB_EEXISTS: a read-only object stands there. */
int kb_filter_state_put(struct kb_filter_state_item **items, struct kb_arena *arena,
                        const struct kb_filter_state_item *item) KB_MUST_USE;
/* Lets all objects go and empties the list; `arena` as they were put. */
void kb_filter_state_dispose(struct kb_filter_state_item **items, struct kb_arena *arena);

/* The object of this key in one list, or NULL. */
KB_INLINE const struct kb_filter_state_item *
kb_filter_state_item_find(const struct kb_filter_state_item *items,
                          const struct kb_filter_state_key *key)
{
    while (items != NULL && items->key != key) {
        items = items->next;
    }
    return items;
}

/* Puts an object on the stream, for as long as it lasts; `arena` is the stream's. */
KB_INLINE int kb_filter_state_put_stream(struct kb_stream_info *info, struct kb_arena *arena,
                                         const struct kb_filter_state_item *item)
{
    return kb_filter_state_put(&info->filter_state, arena, item);
}

/* Puts an object on the connection, for as long as that lasts. */
KB_INLINE int kb_filter_state_put_connection(struct kb_connection_info *info,
                                             const struct kb_filter_state_item *item)
{
    return kb_filter_state_put(&info->filter_state, NULL, item);
}

/* What stands on the stream under this key, or else on its connection; NULL: nothing. */
KB_INLINE const struct kb_filter_state_item *
kb_filter_state_find(const struct kb_stream_info *info, const struct kb_filter_state_key *key)
{
    const struct kb_filter_state_item *item = kb_filter_state_item_find(info->filter_state, key);

    return item != NULL || info->connection == NULL
               ? item
               : kb_filter_state_item_find(info->connection->filter_state, key);
}
