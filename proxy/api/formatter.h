/* SPDX-License-Identifier: Apache-2.0 */
/* %COMMAND% format strings (Envoy "substitution formatter"): parsed once at configuration,
 * evaluated per log line or header. Implemented in proxy/access_log/. */
#pragma once

#include "base/diag.h"
#include "proxy/api/stream_info.h"

/* What a format string may look at. NULL maps stand for absent headers. */
struct kb_formatter_input {
    const struct kb_header_map *request;
    const struct kb_header_map *response;
    const struct kb_header_map *response_trailers;
    struct kb_str local_reply_body;
    const char *access_log_type; /* "DownstreamEnd" */
};

/* Whether some format shows %ROUTE_RESOLUTION_TIME_US%: only then is the time taken. Set while a
 * configuration is read, never cleared; atomic. */
extern bool kb_route_resolution_timed;

struct kb_formatter; /* immutable after creation, shared by workers */

/* Parses; NULL after reporting to diag (Envoy's text). `omit_empty`: a missing value gives ""
 * instead of "-". The formatter lives in the arena. */
struct kb_formatter *kb_formatter_create(struct kb_arena *arena, struct kb_str format,
                                         bool omit_empty, struct kb_diag *diag);

/* The format is one command or one text, not several. */
bool kb_formatter_is_single(const struct kb_formatter *formatter);

/* The text, in `arena` (or the literal itself when the format has no command). */
struct kb_str kb_formatter_text(const struct kb_formatter *formatter,
                                const struct kb_formatter_input *input,
                                const struct kb_stream_info *info, struct kb_arena *arena);

/* The gRPC status of a response: of its trailers or headers, else what the HTTP status stands for.
 * False when there is no answer. -1: not a number. */
bool kb_format_grpc_status(const struct kb_formatter_input *input,
                           const struct kb_stream_info *info, int64_t *status);

/* JSON form from a google.protobuf.Struct (json_format); keys sorted, numbers kept, as Envoy. */
struct Google__Protobuf__Struct;
struct kb_json_formatter;
struct kb_json_formatter *kb_json_formatter_create(struct kb_arena *arena,
                                                   const struct Google__Protobuf__Struct *format,
                                                   bool omit_empty, struct kb_diag *diag);
/* One line with a final newline, in `arena`. */
struct kb_str kb_json_formatter_text(const struct kb_json_formatter *formatter,
                                     const struct kb_formatter_input *input,
                                     const struct kb_stream_info *info, struct kb_arena *arena);
