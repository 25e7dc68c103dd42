/* SPDX-License-Identifier: Apache-2.0 */
/* google.protobuf.Any: which type is in it, and taking it out. */
#pragma once

#include "base/diag.h"
#include "google/protobuf/any.pb-c.h"
#include "proto/pb.h"

/* The full name after the last '/' of a type URL; empty when there is no '/' or nothing behind it.
 */
struct kb_str kb_any_type_name(const char *type_url);

/* The type that is in the Any, or NULL when the type URL is unknown or `any` is NULL. Looks into
 * udpa.type.v1.TypedStruct and xds.type.v3.TypedStruct and answers the type that they stand for. */
const ProtobufCMessageDescriptor *kb_any_type(const Google__Protobuf__Any *any);

/* The same as text for extension lookup, whether the type is known or not: the full name in the
 * type URL, or the one inside a TypedStruct. Borrowed from `any`, or from the arena. Empty when
 * there is none. */
struct kb_str kb_any_inner_name(const Google__Protobuf__Any *any, struct kb_arena *arena);

/* Unpacks, checks against the type's validate rules, and returns the message in the arena, or NULL
 * after at least one error was reported at the present path of diag. `type` is what the caller
 * expects: another type in the Any is an error. NULL takes whatever known type is there. A
 * TypedStruct is converted by its field names. Unknown fields are errors, or warnings when
 * diag->unknown_fields_warn is set, as it should be for what a control plane sends. */
ProtobufCMessage *kb_any_unpack(const Google__Protobuf__Any *any,
                                const ProtobufCMessageDescriptor *type, struct kb_arena *arena,
                                struct kb_diag *diag);

/* For builders: the typed message or NULL.
 *   Envoy__...__Router *router = KB_ANY_UNPACK(any, envoy__...__router, Envoy__...__Router, arena,
 * diag); */
#define KB_ANY_UNPACK(any, lower, type, arena, diag) \
    ((type *)(void *)kb_any_unpack((any), &lower##__descriptor, (arena), (diag)))

/* Unpacks without checking the rules and without diag: for output. NULL when unknown or malformed.
 * A TypedStruct stays what it is. */
ProtobufCMessage *kb_any_peek(const Google__Protobuf__Any *any, struct kb_arena *arena);

/* Packs a message as "type.googleapis.com/NAME" into *any, which is initialised here. */
void kb_any_pack(const ProtobufCMessage *message, struct kb_arena *arena,
                 Google__Protobuf__Any *any);
