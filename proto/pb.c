/* SPDX-License-Identifier: Apache-2.0 */
/* Types by name, empty messages, packing, copying, and members by descriptor. */
#include "proto/pb.h"

#include <string.h>

#include "proto/reflect.h"
#include "proto/wire.h"

#include "registry_headers.inc"

static const ProtobufCMessageDescriptor *const registry[] = {
#define X(descriptor) &descriptor,
#include "registry.inc"
#undef X
};

const ProtobufCMessageDescriptor *kb_pb_type_at(size_t i)
{
    return i < KB_ARRAY_LEN(registry) ? registry[i] : NULL;
}

const ProtobufCMessageDescriptor *kb_pb_type_find(struct kb_str full_name)
{
    size_t low = 0;
    size_t high = KB_ARRAY_LEN(registry);

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = kb_str_cmp(full_name, kb_str_from_cstr(registry[mid]->name));

        if (order == 0) {
            return registry[mid];
        }
        if (order < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return NULL;
}

const ProtobufCFieldDescriptor *kb_pb_field_find(const ProtobufCMessageDescriptor *type,
                                                 struct kb_str name)
{
    size_t low = 0;
    size_t high = type->n_fields;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const ProtobufCFieldDescriptor *field = &type->fields[type->fields_sorted_by_name[mid]];
        int order = kb_str_cmp(name, kb_str_from_cstr(field->name));

        if (order == 0) {
            return field;
        }
        if (order < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return NULL;
}

const ProtobufCFieldDescriptor *kb_pb_field_by_number(const ProtobufCMessageDescriptor *type,
                                                      uint32_t number)
{
    size_t low = 0;
    size_t high = type->n_fields;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (type->fields[mid].id == number) {
            return &type->fields[mid];
        }
        if (type->fields[mid].id > number) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return NULL;
}

void kb_pb_init(const ProtobufCMessageDescriptor *type, ProtobufCMessage *message)
{
    memset(message, 0, type->sizeof_message);
    message->descriptor = type;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];

        if (field->type == PROTOBUF_C_TYPE_STRING && !kb_reflect_repeated(field) &&
            !kb_reflect_in_oneof(field)) {
            *(const char **)kb_reflect_member(message, field) = protobuf_c_empty_string;
        }
    }
}

ProtobufCMessage *kb_pb_new(const ProtobufCMessageDescriptor *type, struct kb_arena *arena)
{
    ProtobufCMessage *message = kb_arena_alloc(arena, type->sizeof_message, _Alignof(max_align_t));

    kb_pb_init(type, message);
    return message;
}

struct kb_str kb_pb_pack(const ProtobufCMessage *message, struct kb_arena *arena)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = kb_arena_alloc(arena, len + 1, 1);

    protobuf_c_message_pack(message, bytes);
    return kb_str_make((const char *)bytes, len);
}

int kb_pb_unpack(const ProtobufCMessageDescriptor *type, struct kb_str bytes,
                 struct kb_arena *arena, ProtobufCMessage **out)
{
    ProtobufCMessage *message = kb_pb_new(type, arena);
    int rc = kb_wire_unpack_into(message, bytes, arena);

    *out = rc == 0 ? message : NULL;
    return rc;
}

int kb_pb_merge(ProtobufCMessage *into, const ProtobufCMessage *from, struct kb_arena *arena)
{
    KB_ASSERT(into->descriptor == from->descriptor);
    return kb_wire_unpack_into(into, kb_pb_pack(from, arena), arena);
}

ProtobufCMessage *kb_pb_copy(const ProtobufCMessage *message, struct kb_arena *arena)
{
    ProtobufCMessage *copy = kb_pb_new(message->descriptor, arena);
    int rc = kb_pb_merge(copy, message, arena);

    KB_ASSERT(rc == 0);
    return copy;
}

static void *arena_allocate(void *arena, size_t size)
{
    return kb_arena_alloc(arena, size, _Alignof(max_align_t));
}

static void arena_free_nothing(void *arena, void *pointer)
{
    (void)arena;
    (void)pointer;
}

ProtobufCAllocator kb_pb_allocator(struct kb_arena *arena)
{
    return (ProtobufCAllocator){
        .alloc = arena_allocate, .free = arena_free_nothing, .allocator_data = arena};
}

size_t kb_reflect_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
    default:
        return 4;
    }
}

bool kb_reflect_has(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const void *member = kb_reflect_member(message, field);

    if (kb_reflect_repeated(field)) {
        return *kb_reflect_count(message, field) > 0;
    }
    if (kb_reflect_in_oneof(field)) {
        return *kb_reflect_case(message, field) == field->id;
    }
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        const char *text = *(const char *const *)member;

        return text != NULL && text[0] != '\0';
    }
    if (field->type == PROTOBUF_C_TYPE_BYTES) {
        return ((const ProtobufCBinaryData *)member)->len > 0;
    }
    if (kb_reflect_size(field->type) == 8) {
        return *(const uint64_t *)member != 0;
    }
    return *(const uint32_t *)member != 0;
}

void *kb_reflect_append(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                        struct kb_arena *arena)
{
    size_t *count = kb_reflect_count(message, field);
    char **items = kb_reflect_member(message, field);
    size_t size = kb_reflect_size(field->type);

    /* full at every power of two: the array then moves to one of twice the size */
    if ((*count & (*count - 1)) == 0) {
        size_t cap = *count == 0 ? 1 : *count * 2;
        char *grown = kb_arena_alloc(arena, cap * size, _Alignof(max_align_t));

        if (*count > 0) {
            memcpy(grown, *items, *count * size);
        }
        *items = grown;
    }
    (*count)++;
    memset(*items + (*count - 1) * size, 0, size);
    return *items + (*count - 1) * size;
}
