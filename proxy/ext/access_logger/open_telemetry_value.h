/* SPDX-License-Identifier: Apache-2.0 */
/* Values of OpenTelemetry (AnyValue) whose texts are format strings. */
#pragma once

#include "opentelemetry/proto/common/v1/common.pb-c.h"
#include "proxy/api/formatter.h"

struct kb_otel_value;

/* In the arena; NULL after an error was reported. Main thread. */
const struct kb_otel_value *
kb_otel_value_create(const Opentelemetry__Proto__Common__V1__AnyValue *message,
                     struct kb_arena *arena, struct kb_diag *diag);
struct kb_otel_attribute {
    char *key;
    const struct kb_otel_value *value;
};
/* The members of an object (NULL: it has none), *count of them, in the arena; NULL after an error
 * was reported. Main thread. */
const struct kb_otel_attribute *
kb_otel_attributes_create(const Opentelemetry__Proto__Common__V1__KeyValueList *message,
                          struct kb_arena *arena, struct kb_diag *diag, size_t *count);

/* What it is for a stream, as a message in the arena. On the stream's worker. */
Opentelemetry__Proto__Common__V1__AnyValue *
kb_otel_value_make(const struct kb_otel_value *value, const struct kb_formatter_input *input,
                   const struct kb_stream_info *info, struct kb_arena *arena);

/* An attribute with a text; borrows both. */
Opentelemetry__Proto__Common__V1__KeyValue *kb_otel_attribute_make(char *key, char *text,
                                                                   struct kb_arena *arena);
