/* SPDX-License-Identifier: Apache-2.0 */
/* The hash of a message by a walk over its fields: bytes would not do, because control planes write
 * the entries of maps in any order. */
#include "proto/message_hash.h"

#include <xxhash.h>

#include "proto/any.h"
#include "proto/reflect.h"

#define SEED UINT64_C(0x6b6f62756e65)

static uint64_t message_hash(const ProtobufCMessage *message, unsigned depth);

static uint64_t mix(uint64_t hash, uint64_t value)
{
    const uint64_t words[2] = {hash, value};

    return XXH64(words, sizeof(words), SEED);
}

static uint64_t any_hash(const ProtobufCMessage *message, unsigned depth)
{
    const Google__Protobuf__Any *any = (const void *)message;
    struct kb_arena arena;
    const ProtobufCMessage *inner;
    uint64_t hash = XXH64(any->type_url, strlen(any->type_url), SEED);

    kb_arena_init(&arena, NULL);
    inner = depth < KB_PB_DEPTH_MAX ? kb_any_peek(any, &arena) : NULL;
    hash = mix(hash, inner != NULL ? message_hash(inner, depth + 1)
                                   : XXH64(any->value.data, any->value.len, SEED));
    kb_arena_dispose(&arena);
    return hash;
}

static uint64_t value_hash(const ProtobufCFieldDescriptor *field, const void *at, unsigned depth)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return message_hash(*(ProtobufCMessage *const *)at, depth + 1);
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(char *const *)at;

        return text != NULL ? XXH64(text, strlen(text), SEED) : 0;
    }
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *bytes = at;

        return XXH64(bytes->data, bytes->len, SEED);
    }
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_BOOL:
    case PROTOBUF_C_TYPE_ENUM:
        break;
    }
    return XXH64(at, kb_reflect_size(field->type), SEED);
}

static uint64_t field_hash(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                           unsigned depth)
{
    const char *at = kb_reflect_member(message, field);
    bool map = (kb_pb_field_marks(field) & KB_PB_MAP) != 0;
    size_t size = kb_reflect_size(field->type);
    uint64_t hash = field->id;

    if (!kb_reflect_repeated(field)) {
        return mix(hash, value_hash(field, at, depth));
    }
    at = *(char *const *)(const void *)at;
    for (size_t i = 0; i < *kb_reflect_count(message, field); i++) {
        uint64_t value = value_hash(field, at + i * size, depth);

        hash = map ? hash + mix(SEED, value) : mix(hash, value);
    }
    return hash;
}

static uint64_t message_hash(const ProtobufCMessage *message, unsigned depth)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    uint64_t hash = SEED;

    if (type == &google__protobuf__any__descriptor) {
        return any_hash(message, depth);
    }
    for (unsigned i = 0; i < type->n_fields; i++) {
        if (kb_reflect_has(message, &type->fields[i])) {
            hash = mix(hash, field_hash(message, &type->fields[i], depth));
        }
    }
    for (unsigned i = 0; i < message->n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *unknown = &message->unknown_fields[i];

        hash = mix(hash, XXH64(unknown->data, unknown->len, unknown->tag));
    }
    return hash;
}

uint64_t kb_pb_hash(const ProtobufCMessage *message)
{
    return message_hash(message, 0);
}
