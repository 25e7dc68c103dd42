/* SPDX-License-Identifier: Apache-2.0 */
/* Walks the fields that are set and visits those that proto/supported.txt does not list. */
#include "proto/supported.h"

#include <string.h>

#include "base/diag.h"
#include "proto/any.h"
#include "proto/pb_json_read.h"
#include "proto/reflect.h"

#include "supported.inc"

struct walker {
    struct kb_diag path; /* only its stack and arena */
    struct kb_arena arena;
    struct kb_str prefix;
    kb_supported_visit_fn visit;
    void *arg;
    unsigned depth;
};

bool kb_supported_field(const ProtobufCFieldDescriptor *field)
{
    uintptr_t ordinal = (uintptr_t)field->reserved2;

    return ordinal != 0 && (supported_bits[(ordinal - 1) / 8] >> ((ordinal - 1) % 8) & 1) != 0;
}

static void message_walk(struct walker *walker, const ProtobufCMessage *message);

static void field_visit(struct walker *walker, const ProtobufCMessage *message,
                        const ProtobufCFieldDescriptor *field)
{
    struct kb_str path;

    kb_diag_push(&walker->path, field->name);
    path = kb_diag_path(&walker->path);
    if (walker->prefix.len > 0) {
        path = kb_str_printf(&walker->path.arena, "%.*s.%.*s", KB_STR_ARG(walker->prefix),
                             KB_STR_ARG(path));
    }
    walker->visit(walker->arg, path, message->descriptor, field);
    kb_diag_pop(&walker->path);
}

static void map_walk(struct walker *walker, const ProtobufCMessage *message,
                     const ProtobufCFieldDescriptor *field)
{
    const ProtobufCFieldDescriptor *key = kb_reflect_map_key(field);
    const ProtobufCFieldDescriptor *value = kb_reflect_map_value(field);
    ProtobufCMessage **entries = kb_reflect_messages(message, field);

    if (value->type != PROTOBUF_C_TYPE_MESSAGE) {
        return;
    }
    kb_diag_push(&walker->path, field->name);
    for (size_t i = 0; i < *kb_reflect_count(message, field); i++) {
        const ProtobufCMessage *inner = kb_reflect_message(entries[i], value);

        kb_diag_push_key(&walker->path,
                         key->type == PROTOBUF_C_TYPE_STRING
                             ? kb_str_from_cstr(*(char **)kb_reflect_member(entries[i], key))
                             : KB_STR(""));
        if (inner != NULL) {
            message_walk(walker, inner);
        }
        kb_diag_pop(&walker->path);
    }
    kb_diag_pop(&walker->path);
}

static void field_walk(struct walker *walker, const ProtobufCMessage *message,
                       const ProtobufCFieldDescriptor *field)
{
    if (field->type != PROTOBUF_C_TYPE_MESSAGE) {
        return;
    }
    if (kb_pb_field_marks(field) & KB_PB_MAP) {
        map_walk(walker, message, field);
        return;
    }
    if (!kb_reflect_repeated(field)) {
        if (kb_reflect_message(message, field) != NULL) {
            kb_diag_push(&walker->path, field->name);
            message_walk(walker, kb_reflect_message(message, field));
            kb_diag_pop(&walker->path);
        }
        return;
    }
    for (size_t i = 0; i < *kb_reflect_count(message, field); i++) {
        kb_diag_push_index(&walker->path, field->name, i);
        message_walk(walker, kb_reflect_messages(message, field)[i]);
        kb_diag_pop(&walker->path);
    }
}

/* What the Any holds, a TypedStruct as the message that it stands for; NULL when that is not known.
 */
static ProtobufCMessage *any_open(struct walker *walker, const Google__Protobuf__Any *any)
{
    const ProtobufCMessageDescriptor *type = kb_any_type(any);
    ProtobufCMessage *message = type != NULL ? kb_any_peek(any, &walker->arena) : NULL;

    if (message != NULL && message->descriptor != type) {
        struct kb_diag ignored;

        kb_diag_init(&ignored);
        message = kb_any_unpack(any, type, &walker->arena, &ignored);
        kb_diag_dispose(&ignored);
    }
    return message;
}

static void message_walk(struct walker *walker, const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    enum kb_pb_kind kind = kb_pb_kind_of(type);

    if (kind == KB_PB_ANY) {
        message = any_open(walker, (const Google__Protobuf__Any *)(const void *)message);
        if (message == NULL) {
            return;
        }
        type = message->descriptor;
        kind = kb_pb_kind_of(type);
    }
    if (kind != KB_PB_PLAIN || walker->depth >= KB_PB_DEPTH_MAX) {
        return;
    }
    walker->depth++;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];

        if (!kb_reflect_has(message, field)) {
            continue;
        }
        if (kb_supported_field(field)) {
            field_walk(walker, message, field);
        } else {
            field_visit(walker, message, field);
        }
    }
    walker->depth--;
}

void kb_supported_walk(const ProtobufCMessage *message, struct kb_str prefix,
                       kb_supported_visit_fn visit, void *arg)
{
    struct walker walker = {.prefix = prefix, .visit = visit, .arg = arg};

    kb_diag_init(&walker.path);
    kb_arena_init(&walker.arena, NULL);
    message_walk(&walker, message);
    kb_arena_dispose(&walker.arena);
    kb_diag_dispose(&walker.path);
}
