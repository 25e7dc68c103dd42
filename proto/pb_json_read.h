/* SPDX-License-Identifier: Apache-2.0 */
/* Tree to message: what the files pb_json_read*.c share. */
#pragma once

#include "proto/doc.h"
#include "proto/pb_json.h"

struct kb_pb_reader {
    struct kb_arena *arena; /* where messages go now: the caller's, or scratch inside an Any */
    struct kb_diag *diag;
    const struct kb_doc *doc;
    const struct kb_doc_node *here; /* what an error is about */
    enum kb_pb_unknown unknown;
    unsigned depth;
    bool in_any;      /* arena is scratch */
    bool any_top;     /* the next object is what an Any holds: its "@type" is no field */
    bool here_is_key; /* the error is about the name, not the value */
};

/* Reports at a value. */
#define KB_PB_FAIL(reader, node, ...)                        \
    ((reader)->here = (node), (reader)->here_is_key = false, \
     kb_diag_error((reader)->diag, __VA_ARGS__), KB_ECONFIG)

/* Fills a message from a value. KB_ECONFIG after errors. */
int kb_pb_read_message(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                       ProtobufCMessage *message);

/* Stores a value that is not a message, nor null, into a member or array slot of the field's type.
 */
int kb_pb_read_scalar(struct kb_pb_reader *reader, const ProtobufCFieldDescriptor *field,
                      const struct kb_doc_node *node, void *slot);

/* google.protobuf.Duration, Timestamp and FieldMask from text. */
int kb_pb_read_duration(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                        ProtobufCMessage *message);
int kb_pb_read_timestamp(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                         ProtobufCMessage *message);
int kb_pb_read_field_mask(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                          ProtobufCMessage *message);

/* google.protobuf.Struct, Value and ListValue. */
int kb_pb_read_struct(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                      ProtobufCMessage *message);
int kb_pb_read_value(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                     ProtobufCMessage *message);
int kb_pb_read_list(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                    ProtobufCMessage *message);

/* google.protobuf.Any from an object with "@type"; the value is packed into `message`. */
int kb_pb_read_any(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                   ProtobufCMessage *message);

/* Reports a name that the message does not have, as the reader was told to. */
int kb_pb_read_unknown(struct kb_pb_reader *reader, const ProtobufCMessageDescriptor *type,
                       const struct kb_doc_node *node);

/* "an object", "a list", "text" ... for messages. */
const char *kb_doc_kind_name(const struct kb_doc_node *node);

/* The messages that JSON writes in a way of their own. */
enum kb_pb_kind {
    KB_PB_PLAIN,
    KB_PB_ANY,
    KB_PB_DURATION,
    KB_PB_TIMESTAMP,
    KB_PB_FIELD_MASK,
    KB_PB_STRUCT,
    KB_PB_VALUE,
    KB_PB_LIST_VALUE,
    KB_PB_WRAPPER,
};

enum kb_pb_kind kb_pb_kind_of(const ProtobufCMessageDescriptor *type);
