/* SPDX-License-Identifier: Apache-2.0 */
/* Criteria are made when routes are built, and per request only where a filter left metadata
 * "envoy.lb" on the stream. */
#include "proxy/upstream/metadata_criteria.h"

#include <stdlib.h>
#include <string.h>

#include "envoy/config/core/v3/base.pb-c.h"

#include "base/map.h"
#include "proto/pb.h"
#include "proxy/api/dynamic_metadata.h"

#define FALLBACK_LIST "fallback_list"
#define DEPTH_MAX     100

/* Bytes that grow in an arena. */
struct bytes {
    struct kb_arena *arena;
    char *at;
    size_t len, cap;
};

static void bytes_put(struct bytes *out, const void *from, size_t len)
{
    if (out->len + len > out->cap) {
        size_t cap = KB_MAX(out->cap * 2, out->len + len + 32);
        char *grown = kb_arena_alloc(out->arena, cap, 1);

        if (out->len > 0) {
            memcpy(grown, out->at, out->len);
        }
        out->at = grown;
        out->cap = cap;
    }
    if (len > 0) {
        memcpy(out->at + out->len, from, len);
        out->len += len;
    }
}

static void number_put(struct bytes *out, uint32_t number)
{
    bytes_put(out, &number, sizeof(number));
}

static void text_put(struct bytes *out, struct kb_str text)
{
    number_put(out, (uint32_t)text.len);
    bytes_put(out, text.p, text.len);
}

static int field_cmp(const void *a, const void *b)
{
    return strcmp((*(Google__Protobuf__Struct__FieldsEntry *const *)a)->key,
                  (*(Google__Protobuf__Struct__FieldsEntry *const *)b)->key);
}

/* The fields by name. */
static Google__Protobuf__Struct__FieldsEntry **fields_sorted(const Google__Protobuf__Struct *value,
                                                             struct kb_arena *arena)
{
    size_t bytes = value->n_fields * sizeof(value->fields[0]);
    Google__Protobuf__Struct__FieldsEntry **sorted = kb_arena_calloc(arena, bytes + 1);

    if (value->n_fields > 0) {
        memcpy(sorted, value->fields, bytes);
        qsort(sorted, value->n_fields, sizeof(sorted[0]), field_cmp);
    }
    return sorted;
}

static void value_put(struct bytes *out, const Google__Protobuf__Value *value, unsigned depth);

static void struct_put(struct bytes *out, const Google__Protobuf__Struct *value, unsigned depth)
{
    Google__Protobuf__Struct__FieldsEntry **sorted = fields_sorted(value, out->arena);

    number_put(out, (uint32_t)value->n_fields);
    for (size_t i = 0; i < value->n_fields; i++) {
        text_put(out, kb_str_from_cstr(sorted[i]->key));
        value_put(out, sorted[i]->value, depth);
    }
}

static void value_put(struct bytes *out, const Google__Protobuf__Value *value, unsigned depth)
{
    uint8_t kind = value == NULL || depth == DEPTH_MAX ? 0 : (uint8_t)value->kind_case;
    double number;
    uint8_t on;

    bytes_put(out, &kind, 1);
    if (kind == 0) {
        return;
    }
    switch (value->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        number = value->number_value + 0.0; /* no minus zero */
        bytes_put(out, &number, sizeof(number));
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        text_put(out, kb_str_from_cstr(value->string_value));
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        on = value->bool_value != 0;
        bytes_put(out, &on, 1);
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        struct_put(out, value->struct_value, depth + 1);
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        number_put(out, (uint32_t)value->list_value->n_values);
        for (size_t i = 0; i < value->list_value->n_values; i++) {
            value_put(out, value->list_value->values[i], depth + 1);
        }
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE:
    case GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET:
    default:
        break;
    }
}

struct kb_str kb_metadata_value_bytes(const Google__Protobuf__Value *value, struct kb_arena *arena)
{
    struct bytes out = {.arena = arena};

    value_put(&out, value, 0);
    return kb_str_make(out.at, out.len);
}

struct kb_str kb_metadata_item_bytes(struct kb_str name, const Google__Protobuf__Value *value,
                                     struct kb_arena *arena)
{
    struct bytes out = {.arena = arena};

    text_put(&out, name);
    value_put(&out, value, 0);
    return kb_str_make(out.at, out.len);
}

/* ---- criteria ---- */

static bool field_is(const Google__Protobuf__Struct__FieldsEntry *field, const char *name)
{
    return name != NULL && strcmp(field->key, name) == 0;
}

/* The fields of `values` laid over those of `under` (NULL: none), without the one of that name
 * (NULL: with all). */
static const Google__Protobuf__Struct *struct_lay(const Google__Protobuf__Struct *under,
                                                  const Google__Protobuf__Struct *values,
                                                  const char *without, struct kb_arena *arena)
{
    size_t max = (under == NULL ? 0 : under->n_fields) + values->n_fields;
    Google__Protobuf__Struct *out =
        (Google__Protobuf__Struct *)(void *)kb_pb_new(&google__protobuf__struct__descriptor, arena);

    out->fields = kb_arena_calloc(arena, (max + 1) * sizeof(out->fields[0]));
    for (size_t i = 0; under != NULL && i < under->n_fields; i++) {
        if (!field_is(under->fields[i], without) &&
            kb_struct_get(values, kb_str_from_cstr(under->fields[i]->key)) == NULL) {
            out->fields[out->n_fields++] = under->fields[i];
        }
    }
    for (size_t i = 0; i < values->n_fields; i++) {
        if (!field_is(values->fields[i], without)) {
            out->fields[out->n_fields++] = values->fields[i];
        }
    }
    return out;
}

static uint64_t serial_next(void)
{
    static uint64_t last; /* main thread */

    return ++last;
}

static void criteria_fill(struct kb_metadata_criteria *criteria,
                          const Google__Protobuf__Struct *values, bool once, struct kb_arena *arena)
{
    Google__Protobuf__Struct__FieldsEntry **sorted = fields_sorted(values, arena);
    struct kb_metadata_criterion *items =
        kb_arena_calloc(arena, (values->n_fields + 1) * sizeof(*items));
    struct bytes key = {.arena = arena};

    for (size_t i = 0; i < values->n_fields; i++) {
        items[i].name = kb_str_dup(arena, kb_str_from_cstr(sorted[i]->key));
        items[i].bytes = kb_metadata_item_bytes(items[i].name, sorted[i]->value, arena);
        bytes_put(&key, items[i].bytes.p, items[i].bytes.len);
    }
    criteria->serial = once ? 0 : serial_next();
    criteria->key = kb_str_make(key.len == 0 ? "" : key.at, key.len);
    criteria->hash = kb_map_hash(criteria->key);
    criteria->items = items;
    criteria->count = (uint32_t)values->n_fields;
    criteria->values = values;
}

static void fallbacks_fill(struct kb_metadata_criteria *criteria,
                           const Google__Protobuf__Value *value, bool once, struct kb_arena *arena)
{
    static const Google__Protobuf__Struct nothing = GOOGLE__PROTOBUF__STRUCT__INIT;
    bool is_list = value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
    size_t count = is_list ? value->list_value->n_values : 0;
    struct kb_metadata_criteria *fallbacks =
        kb_arena_calloc(arena, KB_MAX(count, 1) * sizeof(*fallbacks));

    for (size_t i = 0; i < KB_MAX(count, 1); i++) {
        const Google__Protobuf__Value *over = count == 0 ? NULL : value->list_value->values[i];

        criteria_fill(
            &fallbacks[i],
            struct_lay(criteria->values,
                       over != NULL && over->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE
                           ? over->struct_value
                           : &nothing,
                       FALLBACK_LIST, arena),
            once, arena);
    }
    criteria->fallbacks = fallbacks;
    criteria->fallback_count = (uint32_t)KB_MAX(count, 1);
}

const struct kb_metadata_criteria *
kb_metadata_criteria_create(const struct kb_metadata_criteria *parent,
                            const Google__Protobuf__Struct *values, bool once,
                            struct kb_arena *arena)
{
    struct kb_metadata_criteria *criteria = KB_ARENA_NEW(arena, struct kb_metadata_criteria);
    const Google__Protobuf__Value *list;

    criteria_fill(criteria, struct_lay(parent == NULL ? NULL : parent->values, values, NULL, arena),
                  once, arena);
    list = kb_struct_get(criteria->values, KB_STR(FALLBACK_LIST));
    if (list != NULL) {
        fallbacks_fill(criteria, list, once, arena);
    }
    return criteria;
}

const struct kb_metadata_criteria *
kb_metadata_criteria_read(const struct kb_metadata_criteria *parent,
                          const struct Envoy__Config__Core__V3__Metadata *metadata,
                          struct kb_arena *arena)
{
    const Google__Protobuf__Struct *values = kb_metadata_get(metadata, KB_STR(KB_METADATA_LB));
    ProtobufCMessage *copy;

    /* The message may go before the criteria. */
    if (values != NULL && kb_pb_unpack(&google__protobuf__struct__descriptor,
                                       kb_pb_pack(&values->base, arena), arena, &copy) == 0) {
        return kb_metadata_criteria_create(
            parent, (const Google__Protobuf__Struct *)(const void *)copy, false, arena);
    }
    return parent;
}
