/* SPDX-License-Identifier: Apache-2.0 */
/* google.protobuf.FieldMask on messages: which paths exist, and leaving out everything else. */
#pragma once

#include "proto/pb.h"

/* "a.b,c" into paths, in the arena. */
void kb_field_mask_parse(struct kb_str text, struct kb_arena *arena, struct kb_str **paths,
                         size_t *count);

/* Whether the path leads to a field of the type; repeated fields end a path. */
bool kb_field_mask_valid(const ProtobufCMessageDescriptor *type, struct kb_str path);

/* Clears every field that no path covers. Paths must be valid. Memory is the arena's that the
 * message lives in. */
void kb_field_mask_trim(ProtobufCMessage *message, const struct kb_str *paths, size_t count,
                        struct kb_arena *arena);
