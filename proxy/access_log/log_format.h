/* SPDX-License-Identifier: Apache-2.0 */
/* What a logger writes for one stream: a text or a JSON line, from
 * envoy.config.core.v3.SubstitutionFormatString. */
#pragma once

#include "proxy/access_log/format_value.h"

struct kb_json_formatter;
struct Envoy__Config__Core__V3__SubstitutionFormatString;
struct Google__Protobuf__Struct;

/* One of the two is set. Lives in the arena it was made in. */
struct kb_log_format {
    const struct kb_formatter *text;
    const struct kb_json_formatter *json;
};

/* Each fills *format and returns true, or false after errors were reported at the present path.
 * Main thread. */
bool kb_log_format_init(struct kb_log_format *format,
                        const struct Envoy__Config__Core__V3__SubstitutionFormatString *message,
                        struct kb_arena *arena, struct kb_diag *diag);
bool kb_log_format_init_text(struct kb_log_format *format, struct kb_str text,
                             struct kb_arena *arena, struct kb_diag *diag);
bool kb_log_format_init_json(struct kb_log_format *format,
                             const struct Google__Protobuf__Struct *json, struct kb_arena *arena,
                             struct kb_diag *diag);
/* Envoy's default format, a text line. */
bool kb_log_format_init_default(struct kb_log_format *format, struct kb_arena *arena,
                                struct kb_diag *diag);

/* Appends the line. On the worker. */
void kb_log_format_append(const struct kb_log_format *format,
                          const struct kb_formatter_input *input, const struct kb_stream_info *info,
                          struct kb_arena *arena, struct kb_format_out *out);
