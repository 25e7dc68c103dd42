/* SPDX-License-Identifier: Apache-2.0 */
/* Messages: finding their types, making them, bytes to message and back. The structs are
 * protobuf-c's; the memory is an arena's, so nothing is ever freed one by one. Input is bounded in
 * depth and in memory. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/str.h"

/* Levels of messages in one another, as in Envoy's own parser. */
#define KB_PB_DEPTH_MAX   100
/* Memory of an unpacked message: at most this many bytes for each byte of input, and a constant. */
#define KB_PB_GROWTH_MAX  200
#define KB_PB_GROWTH_FREE ((size_t)1 << 20)
/* Unknown fields that one message keeps, to be named; more are dropped. */
#define KB_PB_UNKNOWN_MAX 16

/* What the official descriptors say of a field beyond protobuf-c's own descriptor; see
 * kb_pb_field_marks. */
enum kb_pb_mark {
    KB_PB_MAP = 1,        /* a map: repeated entries with `key` and `value` */
    KB_PB_SENSITIVE = 2,  /* never shown: udpa.annotations.sensitive */
    KB_PB_DEPRECATED = 4, /* works, with a warning */
    KB_PB_DISALLOWED = 8, /* deprecated and refused unless runtime allows it */
};

#define KB_PB_MARK_BITS 8

/* Bits of kb_pb_mark. */
KB_INLINE unsigned kb_pb_field_marks(const ProtobufCFieldDescriptor *field)
{
    return field->reserved_flags & ((1U << KB_PB_MARK_BITS) - 1);
}

/* The type of that full name ("envoy.config.cluster.v3.Cluster"), or NULL when it is not among the
 * roots. */
const ProtobufCMessageDescriptor *kb_pb_type_find(struct kb_str full_name);

/* The i-th type in name order, or NULL past the last; to list them. */
const ProtobufCMessageDescriptor *kb_pb_type_at(size_t i);

/* The field of that name as the .proto file writes it (snake_case), or NULL. */
const ProtobufCFieldDescriptor *kb_pb_field_find(const ProtobufCMessageDescriptor *type,
                                                 struct kb_str name);

/* The field of that number, or NULL. */
const ProtobufCFieldDescriptor *kb_pb_field_by_number(const ProtobufCMessageDescriptor *type,
                                                      uint32_t number);

/* An empty message in the arena. */
ProtobufCMessage *kb_pb_new(const ProtobufCMessageDescriptor *type, struct kb_arena *arena);

/* Sets every member of a message of `type` on caller's storage to its default. */
void kb_pb_init(const ProtobufCMessageDescriptor *type, ProtobufCMessage *message);

/* Bytes to message. Everything is copied to the arena. KB_EINVALID: not a message of this type, or
 * text that is not UTF-8 or has a NUL in it; KB_EDEPTH; KB_ELIMIT: would take too much memory. */
int kb_pb_unpack(const ProtobufCMessageDescriptor *type, struct kb_str bytes,
                 struct kb_arena *arena, ProtobufCMessage **out) KB_MUST_USE;

/* Message to bytes, in the arena. Fields in order of their numbers. */
struct kb_str kb_pb_pack(const ProtobufCMessage *message, struct kb_arena *arena);

/* protobuf's MergeFrom: singular fields of `from` replace, messages merge, repeated fields append.
 * Copies. */
int kb_pb_merge(ProtobufCMessage *into, const ProtobufCMessage *from,
                struct kb_arena *arena) KB_MUST_USE;

/* A deep copy in the arena. */
ProtobufCMessage *kb_pb_copy(const ProtobufCMessage *message, struct kb_arena *arena);

/* A protobuf-c allocator over an arena, for protobuf_c_* functions: frees nothing. */
ProtobufCAllocator kb_pb_allocator(struct kb_arena *arena);
