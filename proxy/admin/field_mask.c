/* SPDX-License-Identifier: Apache-2.0 */
/* Field masks by reflection over protobuf-c's descriptors. */
#include "proxy/admin/field_mask.h"

#include "proto/reflect.h"

#include <string.h>

/* Deeper paths are not valid; no message of the configuration dump is nested further. */
#define DEPTH_MAX 64

void kb_field_mask_parse(struct kb_str text, struct kb_arena *arena, struct kb_str **paths,
                         size_t *count)
{
    size_t room = 1;
    struct kb_str path;

    for (size_t i = 0; i < text.len; i++) {
        room += text.p[i] == ',' ? 1 : 0;
    }
    *paths = kb_arena_alloc(arena, room * sizeof(**paths), sizeof(void *));
    *count = 0;
    while (text.len > 0 && kb_str_next_token(&text, ',', &path)) {
        if (path.len > 0) {
            (*paths)[(*count)++] = path;
        }
    }
}

/* Takes the first name off the path. */
static struct kb_str name_take(struct kb_str *path)
{
    ptrdiff_t dot = kb_str_find_char(*path, '.');
    struct kb_str name = dot < 0 ? *path : kb_str_first(*path, (size_t)dot);

    *path = dot < 0 ? KB_STR_NULL : kb_str_from(*path, (size_t)dot + 1);
    return name;
}

bool kb_field_mask_valid(const ProtobufCMessageDescriptor *type, struct kb_str path)
{
    for (unsigned depth = 0; depth < DEPTH_MAX; depth++) {
        struct kb_str name = name_take(&path);
        const ProtobufCFieldDescriptor *field = type == NULL ? NULL : kb_pb_field_find(type, name);

        if (field == NULL) {
            return false;
        }
        if (path.p == NULL) {
            return true;
        }
        type = field->label != PROTOBUF_C_LABEL_REPEATED && field->type == PROTOBUF_C_TYPE_MESSAGE
                   ? field->descriptor
                   : NULL;
    }
    return false;
}

/* Copies a field's value, as the struct holds it. */
static void field_copy(ProtobufCMessage *to, const ProtobufCMessage *from,
                       const ProtobufCFieldDescriptor *field)
{
    const char *source = (const char *)from;
    char *target = (char *)to;

    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        memcpy(target + field->quantifier_offset, source + field->quantifier_offset,
               sizeof(size_t));
        memcpy(target + field->offset, source + field->offset, sizeof(void *));
        return;
    }
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        int which;

        memcpy(&which, source + field->quantifier_offset, sizeof(which));
        if ((uint32_t)which != field->id) {
            return; /* another member is set */
        }
        memcpy(target + field->quantifier_offset, &which, sizeof(which));
    }
    memcpy(target + field->offset, source + field->offset, kb_reflect_size(field->type));
}

/* The message in a field that is not repeated, or NULL. */
static ProtobufCMessage *field_message(const ProtobufCMessage *message,
                                       const ProtobufCFieldDescriptor *field)
{
    const char *base = (const char *)message;
    ProtobufCMessage *inner;
    int which;

    if (field->label == PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE) {
        return NULL;
    }
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        memcpy(&which, base + field->quantifier_offset, sizeof(which));
        if ((uint32_t)which != field->id) {
            return NULL;
        }
    }
    memcpy(&inner, base + field->offset, sizeof(inner));
    return inner;
}

/* Keeps what the paths that begin with the field ask for; false when none does. */
static bool field_keep(ProtobufCMessage *to, const ProtobufCMessage *from,
                       const ProtobufCFieldDescriptor *field, const struct kb_str *paths,
                       size_t count, struct kb_arena *arena)
{
    struct kb_str *inner = kb_arena_alloc(arena, count * sizeof(*inner), sizeof(void *));
    ProtobufCMessage *message = field_message(from, field);
    size_t inner_count = 0;
    bool whole = false;

    for (size_t i = 0; i < count; i++) {
        struct kb_str rest = paths[i];

        if (!kb_str_eq(name_take(&rest), kb_str_from_cstr(field->name))) {
            continue;
        }
        if (rest.p == NULL) {
            whole = true;
        } else {
            inner[inner_count++] = rest;
        }
    }
    if (!whole && inner_count == 0) {
        return false;
    }
    field_copy(to, from, field);
    if (!whole && message != NULL) {
        kb_field_mask_trim(message, inner, inner_count, arena);
    }
    return true;
}

void kb_field_mask_trim(ProtobufCMessage *message, const struct kb_str *paths, size_t count,
                        struct kb_arena *arena)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    ProtobufCMessage *kept = kb_pb_new(type, arena);

    for (unsigned i = 0; count > 0 && i < type->n_fields; i++) {
        field_keep(kept, message, &type->fields[i], paths, count, arena);
    }
    memcpy(message, kept, type->sizeof_message);
}
