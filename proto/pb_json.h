/* SPDX-License-Identifier: Apache-2.0 */
/* JSON (and YAML, through the same tree) to message and back, by reflection over the descriptors.
 * The rules are proto3's JSON mapping with the leniencies that Envoy's parser has. */
#pragma once

#include "base/diag.h"
#include "proto/doc.h"
#include "proto/pb.h"

enum kb_pb_unknown {
    KB_PB_UNKNOWN_ERROR,  /* a field that the message does not have is an error */
    KB_PB_UNKNOWN_WARN,   /* ... is a warning, and left out */
    KB_PB_UNKNOWN_IGNORE, /* ... is left out */
};

/* Document to message in the arena. Goes on after errors, so that all are reported, each with file,
 * line, column, path of the field and a hint. Any values are checked against their types and
 * packed. NULL when there was an error. */
ProtobufCMessage *kb_pb_from_doc(const ProtobufCMessageDescriptor *type, const struct kb_doc *doc,
                                 enum kb_pb_unknown unknown, struct kb_arena *arena,
                                 struct kb_diag *diag);

/* JSON text to message: kb_doc_parse_json and kb_pb_from_doc in one. `file` is a name for messages,
 * or empty. */
ProtobufCMessage *kb_pb_json_parse(const ProtobufCMessageDescriptor *type, struct kb_str file,
                                   struct kb_str text, enum kb_pb_unknown unknown,
                                   struct kb_arena *arena, struct kb_diag *diag);

/* A google.protobuf.Struct in `value_struct` to a message of `type`: what TypedStruct holds. Errors
 * have no place in a file of their own; the path says where. NULL on error. */
ProtobufCMessage *kb_pb_from_struct(const ProtobufCMessageDescriptor *type,
                                    const ProtobufCMessage *value_struct, struct kb_arena *arena,
                                    struct kb_diag *diag);

/* Growing text with a bound. Zero-initialise, or kb_json_out_init. */
struct kb_json_out {
    char *p; /* heap; not NUL-terminated */
    size_t len;
    size_t cap;
    size_t max;    /* 0: KB_JSON_OUT_MAX */
    bool overflow; /* the bound was reached; the text is cut */
};

#define KB_JSON_OUT_MAX ((size_t)256 << 20)

/* Empty text of at most `max` bytes on caller's storage; disposing frees it. Adding beyond the
 * bound cuts and sets `overflow`. */
void kb_json_out_init(struct kb_json_out *out, size_t max);
void kb_json_out_dispose(struct kb_json_out *out);
void kb_json_out_add(struct kb_json_out *out, struct kb_str text);
/* Adds a JSON string with quotes, escaped as Envoy's writer does. */
void kb_json_out_add_quoted(struct kb_json_out *out, struct kb_str text);

enum kb_pb_json_flags {
    KB_PB_JSON_PRETTY =
        1, /* line breaks and 1 space a level, as Envoy's admin writes; else one line */
    KB_PB_JSON_DEFAULTS = 2, /* also fields that have their default value, as in /server_info */
    KB_PB_JSON_REDACT = 4,   /* sensitive fields as "[redacted]", as /config_dump */
};

/* Appends the message as JSON. `level` is the depth of indentation at which the opening brace
 * stands (0 at top). Any is expanded, "@type" first; an Any that cannot be is written as {"@type":
 * ..., "value": base64}. */
void kb_pb_json_write(struct kb_json_out *out, const ProtobufCMessage *message, unsigned flags,
                      unsigned level);
