/* SPDX-License-Identifier: Apache-2.0 */
/* What a route wants its hosts' metadata "envoy.lb" to be (metadata_match; Envoy
 * Router::MetadataMatchCriteria), prepared for looking up subsets of hosts: values are bytes that
 * are equal when the values are, and the whole has a hash. Implemented in
 * proxy/upstream/metadata_criteria.c. */
#pragma once

#include "base/arena.h"
#include "base/str.h"
#include "google/protobuf/struct.pb-c.h"

#define KB_METADATA_LB "envoy.lb"

struct kb_metadata_criterion {
    struct kb_str name;
    struct kb_str bytes; /* of name and value, as in `key` below */
};

/* Immutable. */
struct kb_metadata_criteria {
    uint64_t serial;   /* never that of another one; 0: of one request, not to be remembered */
    struct kb_str key; /* the bytes of all items, one behind the other */
    uint64_t hash;     /* kb_map_hash of the key */
    const struct kb_metadata_criterion *items; /* by name, rising */
    uint32_t count;
    const Google__Protobuf__Struct *values; /* what it was made of */
    /* For clusters that try several criteria one after the other: those of "fallback_list", each
     * laid over the other items. NULL: there is no such item. */
    const struct kb_metadata_criteria *fallbacks;
    uint32_t fallback_count;
};

/* The criteria of `values`, laid over those of `parent` (NULL: none), in the arena. `once`: for one
 * request, on any thread; otherwise on the main thread. */
const struct kb_metadata_criteria *
kb_metadata_criteria_create(const struct kb_metadata_criteria *parent,
                            const Google__Protobuf__Struct *values, bool once,
                            struct kb_arena *arena);

struct Envoy__Config__Core__V3__Metadata;
/* The same of the namespace "envoy.lb" of a metadata_match; `parent` when it (or the message, which
 * may be NULL) has none. Main thread. */
const struct kb_metadata_criteria *
kb_metadata_criteria_read(const struct kb_metadata_criteria *parent,
                          const struct Envoy__Config__Core__V3__Metadata *metadata,
                          struct kb_arena *arena);
