/* SPDX-License-Identifier: Apache-2.0 */
/* Members of a message by their field descriptors. For the files of this room. */
#pragma once

#include <string.h>

#include "proto/pb.h"

KB_INLINE void *kb_reflect_member(const ProtobufCMessage *message,
                                  const ProtobufCFieldDescriptor *field)
{
    return (char *)(uintptr_t)message + field->offset;
}

/* n_X of a repeated field. */
KB_INLINE size_t *kb_reflect_count(const ProtobufCMessage *message,
                                   const ProtobufCFieldDescriptor *field)
{
    return (size_t *)(void *)((char *)(uintptr_t)message + field->quantifier_offset);
}

/* The case of the oneof that the field belongs to: 0 or the number of the field that is set. */
KB_INLINE uint32_t *kb_reflect_case(const ProtobufCMessage *message,
                                    const ProtobufCFieldDescriptor *field)
{
    return (uint32_t *)(void *)((char *)(uintptr_t)message + field->quantifier_offset);
}

KB_INLINE bool kb_reflect_repeated(const ProtobufCFieldDescriptor *field)
{
    return field->label == PROTOBUF_C_LABEL_REPEATED;
}

KB_INLINE bool kb_reflect_in_oneof(const ProtobufCFieldDescriptor *field)
{
    return (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
}

/* The one message descriptor of a message field. */
KB_INLINE const ProtobufCMessageDescriptor *kb_reflect_type(const ProtobufCFieldDescriptor *field)
{
    return (const ProtobufCMessageDescriptor *)field->descriptor;
}

/* The message in a singular message member, or NULL. */
KB_INLINE ProtobufCMessage *kb_reflect_message(const ProtobufCMessage *message,
                                               const ProtobufCFieldDescriptor *field)
{
    return *(ProtobufCMessage **)kb_reflect_member(message, field);
}

/* The array of a repeated field's messages. */
KB_INLINE ProtobufCMessage **kb_reflect_messages(const ProtobufCMessage *message,
                                                 const ProtobufCFieldDescriptor *field)
{
    return *(ProtobufCMessage ***)kb_reflect_member(message, field);
}

/* Bytes of one value in the struct or in an array. */
size_t kb_reflect_size(ProtobufCType type);

/* Whether the field counts as set: repeated, not empty; in a oneof, chosen; message, there; else
 * not the default. */
bool kb_reflect_has(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);

/* Grows the array of a repeated field by one zeroed value and returns it. Arrays that this function
 * grew double; for building a message piece by piece. */
void *kb_reflect_append(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                        struct kb_arena *arena);

/* The two fields of a map entry. */
KB_INLINE const ProtobufCFieldDescriptor *kb_reflect_map_key(const ProtobufCFieldDescriptor *map)
{
    return &kb_reflect_type(map)->fields[0];
}

KB_INLINE const ProtobufCFieldDescriptor *kb_reflect_map_value(const ProtobufCFieldDescriptor *map)
{
    return &kb_reflect_type(map)->fields[1];
}
