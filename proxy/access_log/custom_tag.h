/* SPDX-License-Identifier: Apache-2.0 */
/* Custom tags (envoy.type.tracing.v3.CustomTag): a name, and a value from a literal, the
 * environment, a request header, metadata or a format. */
#pragma once

#include "proxy/api/formatter.h"

struct Envoy__Type__Tracing__V3__CustomTag;

struct kb_custom_tag {
    struct kb_str name;
    const struct kb_formatter *formatter; /* NULL: always the text */
    struct kb_str text;                   /* the value, or what stands for a missing one */
};

/* Reads `count` messages into an array in the arena; NULL after errors were reported. Main thread.
 */
const struct kb_custom_tag *
kb_custom_tags_create(struct Envoy__Type__Tracing__V3__CustomTag *const *messages, size_t count,
                      struct kb_arena *arena, struct kb_diag *diag);

/* The tag's value for a stream; empty: it has none, and is left out. On the stream's worker. */
struct kb_str kb_custom_tag_value(const struct kb_custom_tag *tag,
                                  const struct kb_formatter_input *input,
                                  const struct kb_stream_info *info, struct kb_arena *arena);
