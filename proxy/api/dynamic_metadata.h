/* SPDX-License-Identifier: Apache-2.0 */
/* Dynamic metadata: google.protobuf.Struct values by namespace that filters leave on a stream or a
 * connection, for other filters, matchers, access logs and header formats (Envoy
 * StreamInfo::dynamicMetadata). Nothing is allocated where nobody sets any. What is on a connection
 * is not seen by its HTTP streams. Implemented in proxy/network/dynamic_metadata.c; on the
 * connection's worker. */
#pragma once

#include "base/arena.h"
#include "google/protobuf/struct.pb-c.h"
#include "proxy/api/stream_info.h"

struct kb_dynamic_metadata_item {
    struct kb_dynamic_metadata_item *next;
    struct kb_str name;              /* "envoy.filters.http.rbac" */
    Google__Protobuf__Struct *value; /* never NULL */
};

struct kb_dynamic_metadata {
    struct kb_arena *arena; /* where everything of it is */
    struct kb_arena own;    /* of a connection's */
    struct kb_dynamic_metadata_item *first;
};

/* Merges `value` into the namespace: its keys replace those that stand there. Copies. `*metadata`
 * is info->dynamic_metadata of a stream, with the stream's arena; or that of a connection, with
 * arena NULL. */
void kb_dynamic_metadata_merge(struct kb_dynamic_metadata **metadata, struct kb_arena *arena,
                               struct kb_str name, const Google__Protobuf__Struct *value);
/* Likewise, but structs under the same key are merged and lists appended, as Envoy's
 * StructUtil::update. */
void kb_dynamic_metadata_update(struct kb_dynamic_metadata **metadata, struct kb_arena *arena,
                                struct kb_str name, const Google__Protobuf__Struct *value);
/* The same of one key; the texts are copied. */
void kb_dynamic_metadata_set_text(struct kb_dynamic_metadata **metadata, struct kb_arena *arena,
                                  struct kb_str name, struct kb_str key, struct kb_str text);
void kb_dynamic_metadata_set_bool(struct kb_dynamic_metadata **metadata, struct kb_arena *arena,
                                  struct kb_str name, struct kb_str key, bool value);
/* Lets a connection's go; NULL is allowed. */
void kb_dynamic_metadata_dispose(struct kb_dynamic_metadata **metadata);

/* The namespace's value, or NULL. */
const Google__Protobuf__Struct *kb_dynamic_metadata_get(const struct kb_dynamic_metadata *metadata,
                                                        struct kb_str name);
/* The same of configured metadata; NULL has none. */
struct Envoy__Config__Core__V3__Metadata;
const Google__Protobuf__Struct *
kb_metadata_get(const struct Envoy__Config__Core__V3__Metadata *metadata, struct kb_str name);
/* The same of a packed one (may be empty), unpacked in `arena`. */
const Google__Protobuf__Struct *kb_packed_metadata_get(struct kb_str packed, struct kb_str name,
                                                       struct kb_arena *arena);
/* What stands in a struct (or NULL) under this key, or NULL. */
const Google__Protobuf__Value *kb_struct_get(const Google__Protobuf__Struct *value,
                                             struct kb_str key);
/* The same where it is a text, which lives as long as the struct; otherwise KB_STR_NULL. */
struct kb_str kb_struct_get_text(const Google__Protobuf__Struct *value, struct kb_str key);
/* What is said of one stream or, for TCP, its connection: NULL when nothing is. */
KB_INLINE const struct kb_dynamic_metadata *
kb_stream_info_metadata(const struct kb_stream_info *info)
{
    if (info->dynamic_metadata == NULL && info->protocol == KB_PROTOCOL_NONE &&
        info->connection != NULL) {
        return info->connection->dynamic_metadata;
    }
    return info->dynamic_metadata;
}
