/* SPDX-License-Identifier: Apache-2.0 */
/* The wire format of messages, read with bounds: for the files of this room. And what its texts may
 * be. */
#pragma once

#include "proto/pb.h"

/* Reads bytes into a message that may have fields set already: what the bytes set replaces,
 * messages merge, repeated fields append. Errors as kb_pb_unpack; the message is then partly
 * filled. */
int kb_wire_unpack_into(ProtobufCMessage *message, struct kb_str bytes,
                        struct kb_arena *arena) KB_MUST_USE;

/* How many bytes from the start are UTF-8 (RFC 3629: no surrogates, nothing overlong). */
size_t kb_utf8_prefix(const char *p, size_t len);

KB_INLINE bool kb_utf8_valid(const char *p, size_t len)
{
    return kb_utf8_prefix(p, len) == len;
}

/* A copy with a NUL behind it, fit for a string field: what is not UTF-8 becomes '!', as Envoy's
 * sanitizeUtf8String does it, and a NUL too. */
char *kb_pb_text(struct kb_str text, struct kb_arena *arena);
