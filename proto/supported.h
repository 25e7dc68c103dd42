/* SPDX-License-Identifier: Apache-2.0 */
/* Which fields are implemented. proto/supported.txt lists them, one message a line; what is set in
 * a configuration and not listed is reported, so that nothing is ignored silently. */
#pragma once

#include "proto/pb.h"

/* Whether the field is listed. A field of a message that has no line is not. */
bool kb_supported_field(const ProtobufCFieldDescriptor *field);

/* `path` ends in the field ("static_resources.listeners[0].tcp_fast_open_queue_length"), valid
 * during the call. */
typedef void (*kb_supported_visit_fn)(void *arg, struct kb_str path,
                                      const ProtobufCMessageDescriptor *type,
                                      const ProtobufCFieldDescriptor *field);

/* Calls `visit` for every field that is set and not listed, through Any too; what is below such a
 * field is not looked at. `prefix` starts the paths, or is empty. An Any whose type is unknown is
 * not looked into. */
void kb_supported_walk(const ProtobufCMessage *message, struct kb_str prefix,
                       kb_supported_visit_fn visit, void *arg);
