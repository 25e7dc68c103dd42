/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata values as bytes to be compared, for criteria and for tables of subsets. */
#pragma once

#include "proxy/api/metadata_criteria.h"

/* Bytes that are the same for equal values, whatever the order of a struct's fields; in the arena.
 * What lies deeper than a message may be nested counts as nothing. */
struct kb_str kb_metadata_value_bytes(const Google__Protobuf__Value *value, struct kb_arena *arena);
/* The bytes of a name and its value, in the arena: no item's bytes begin with those of another. */
struct kb_str kb_metadata_item_bytes(struct kb_str name, const Google__Protobuf__Value *value,
                                     struct kb_arena *arena);
