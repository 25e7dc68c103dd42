/* SPDX-License-Identifier: Apache-2.0 */
/* Dynamic metadata of streams and connections. */
#include "proxy/api/dynamic_metadata.h"

#include <stdlib.h>

#include "base/mem.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "proto/pb.h"
#include "proto/wkt.h"

typedef Google__Protobuf__Struct__FieldsEntry struct_entry;

static struct kb_dynamic_metadata *metadata_create(struct kb_arena *arena)
{
    struct kb_dynamic_metadata *metadata;

    if (arena != NULL) {
        metadata = KB_ARENA_NEW(arena, struct kb_dynamic_metadata);
        metadata->arena = arena;
        return metadata;
    }
    metadata = kb_calloc(1, sizeof(*metadata));
    kb_arena_init(&metadata->own, NULL);
    metadata->arena = &metadata->own;
    return metadata;
}

void kb_dynamic_metadata_dispose(struct kb_dynamic_metadata **metadata)
{
    if (*metadata != NULL) {
        kb_arena_dispose(&(*metadata)->own);
        free(*metadata);
        *metadata = NULL;
    }
}

static struct kb_dynamic_metadata_item *item_find(const struct kb_dynamic_metadata *metadata,
                                                  struct kb_str name)
{
    struct kb_dynamic_metadata_item *item = metadata != NULL ? metadata->first : NULL;

    while (item != NULL && !kb_str_eq(item->name, name)) {
        item = item->next;
    }
    return item;
}

/* The namespace, made when it is not there. */
static struct kb_dynamic_metadata_item *item_get(struct kb_dynamic_metadata **metadata,
                                                 struct kb_arena *arena, struct kb_str name)
{
    struct kb_dynamic_metadata_item *item;

    if (*metadata == NULL) {
        *metadata = metadata_create(arena);
    }
    item = item_find(*metadata, name);
    if (item == NULL) {
        item = KB_ARENA_NEW((*metadata)->arena, struct kb_dynamic_metadata_item);
        item->name = kb_str_dup((*metadata)->arena, name);
        item->value = (void *)kb_pb_new(&google__protobuf__struct__descriptor, (*metadata)->arena);
        item->next = (*metadata)->first;
        (*metadata)->first = item;
    }
    return item;
}

static struct_entry *entry_find(const Google__Protobuf__Struct *value, const char *key)
{
    for (size_t i = 0; i < value->n_fields; i++) {
        if (strcmp(value->fields[i]->key, key) == 0) {
            return value->fields[i];
        }
    }
    return NULL;
}

/* Room for `more` further entries. */
static void entries_grow(Google__Protobuf__Struct *value, size_t more, struct kb_arena *arena)
{
    struct_entry **grown =
        kb_arena_alloc(arena, (value->n_fields + more) * sizeof(*grown), sizeof(void *));

    if (value->n_fields > 0) {
        memcpy(grown, value->fields, value->n_fields * sizeof(*grown));
    }
    value->fields = grown;
}

void kb_dynamic_metadata_merge(struct kb_dynamic_metadata **metadata, struct kb_arena *arena,
                               struct kb_str name, const Google__Protobuf__Struct *value)
{
    struct kb_dynamic_metadata_item *item = item_get(metadata, arena, name);
    struct kb_arena *kept = (*metadata)->arena;
    const Google__Protobuf__Struct *copy = (const void *)kb_pb_copy(&value->base, kept);

    entries_grow(item->value, copy->n_fields, kept);
    for (size_t i = 0; i < copy->n_fields; i++) {
        struct_entry *old = entry_find(item->value, copy->fields[i]->key);

        if (old != NULL) {
            old->value = copy->fields[i]->value;
        } else {
            item->value->fields[item->value->n_fields++] = copy->fields[i];
        }
    }
}

static void struct_update(Google__Protobuf__Struct *into, const Google__Protobuf__Struct *from,
                          struct kb_arena *arena);

/* Both are the arena's; `from` is taken. */
static void list_append(Google__Protobuf__ListValue *into, Google__Protobuf__ListValue *from,
                        struct kb_arena *arena)
{
    Google__Protobuf__Value **grown =
        kb_arena_alloc(arena, (into->n_values + from->n_values) * sizeof(*grown), sizeof(void *));

    if (into->n_values > 0) {
        memcpy(grown, into->values, into->n_values * sizeof(*grown));
    }
    if (from->n_values > 0) {
        memcpy(grown + into->n_values, from->values, from->n_values * sizeof(*grown));
    }
    into->values = grown;
    into->n_values += from->n_values;
}

static void value_update(struct_entry *old, Google__Protobuf__Value *value, struct kb_arena *arena)
{
    if (old->value->kind_case != value->kind_case) {
        old->value = value;
    } else if (value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE) {
        struct_update(old->value->struct_value, value->struct_value, arena);
    } else if (value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
        list_append(old->value->list_value, value->list_value, arena);
    } else {
        old->value = value;
    }
}

/* The depth is that of a configuration, which the parser bounds. */
static void struct_update(Google__Protobuf__Struct *into, const Google__Protobuf__Struct *from,
                          struct kb_arena *arena)
{
    entries_grow(into, from->n_fields, arena);
    for (size_t i = 0; i < from->n_fields; i++) {
        struct_entry *old = entry_find(into, from->fields[i]->key);

        if (old != NULL) {
            value_update(old, from->fields[i]->value, arena);
        } else {
            into->fields[into->n_fields++] = from->fields[i];
        }
    }
}

void kb_dynamic_metadata_update(struct kb_dynamic_metadata **metadata, struct kb_arena *arena,
                                struct kb_str name, const Google__Protobuf__Struct *value)
{
    struct kb_dynamic_metadata_item *item = item_get(metadata, arena, name);
    struct kb_arena *kept = (*metadata)->arena;

    struct_update(item->value, (const void *)kb_pb_copy(&value->base, kept), kept);
}

static void one_set(struct kb_dynamic_metadata **metadata, struct kb_arena *arena,
                    struct kb_str name, struct kb_str key, Google__Protobuf__Value *value)
{
    Google__Protobuf__Struct of = GOOGLE__PROTOBUF__STRUCT__INIT;
    struct_entry entry = GOOGLE__PROTOBUF__STRUCT__FIELDS_ENTRY__INIT;
    struct_entry *entries[] = {&entry};
    struct kb_arena scratch;

    kb_arena_init(&scratch, NULL);
    entry.key = (char *)(uintptr_t)kb_str_dup(arena != NULL ? arena : &scratch, key).p;
    entry.value = value;
    of.n_fields = 1;
    of.fields = entries;
    kb_dynamic_metadata_merge(metadata, arena, name, &of);
    kb_arena_dispose(&scratch);
}

void kb_dynamic_metadata_set_text(struct kb_dynamic_metadata **metadata, struct kb_arena *arena,
                                  struct kb_str name, struct kb_str key, struct kb_str text)
{
    Google__Protobuf__Value value = GOOGLE__PROTOBUF__VALUE__INIT;
    struct kb_arena scratch;

    kb_arena_init(&scratch, NULL);
    value.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
    value.string_value = (char *)(uintptr_t)kb_str_dup(arena != NULL ? arena : &scratch, text).p;
    one_set(metadata, arena, name, key, &value);
    kb_arena_dispose(&scratch);
}

void kb_dynamic_metadata_set_bool(struct kb_dynamic_metadata **metadata, struct kb_arena *arena,
                                  struct kb_str name, struct kb_str key, bool on)
{
    Google__Protobuf__Value value = GOOGLE__PROTOBUF__VALUE__INIT;

    value.kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
    value.bool_value = on;
    one_set(metadata, arena, name, key, &value);
}

const Google__Protobuf__Struct *kb_dynamic_metadata_get(const struct kb_dynamic_metadata *metadata,
                                                        struct kb_str name)
{
    const struct kb_dynamic_metadata_item *item = item_find(metadata, name);

    return item != NULL ? item->value : NULL;
}

const Google__Protobuf__Value *kb_struct_get(const Google__Protobuf__Struct *value,
                                             struct kb_str key)
{
    for (size_t i = 0; value != NULL && i < value->n_fields; i++) {
        if (kb_str_eq(kb_str_from_cstr(value->fields[i]->key), key)) {
            return value->fields[i]->value;
        }
    }
    return NULL;
}

struct kb_str kb_struct_get_text(const Google__Protobuf__Struct *value, struct kb_str key)
{
    const Google__Protobuf__Value *found = kb_struct_get(value, key);

    return found != NULL && found->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE
               ? kb_wkt_str(found->string_value)
               : KB_STR_NULL;
}

const Google__Protobuf__Struct *kb_metadata_get(const Envoy__Config__Core__V3__Metadata *metadata,
                                                struct kb_str name)
{
    for (size_t i = 0; metadata != NULL && i < metadata->n_filter_metadata; i++) {
        if (kb_str_eq(kb_str_from_cstr(metadata->filter_metadata[i]->key), name)) {
            return metadata->filter_metadata[i]->value;
        }
    }
    return NULL;
}

const Google__Protobuf__Struct *kb_packed_metadata_get(struct kb_str packed, struct kb_str name,
                                                       struct kb_arena *arena)
{
    ProtobufCMessage *message;

    if (packed.len == 0 || kb_pb_unpack(&envoy__config__core__v3__metadata__descriptor, packed,
                                        arena, &message) != 0) {
        return NULL;
    }
    return kb_metadata_get((const void *)message, name);
}
