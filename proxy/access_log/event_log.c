/* SPDX-License-Identifier: Apache-2.0 */
/* Events as lines of JSON, with the fields that have their default. */
#include "proxy/api/event_log.h"

#include "proto/pb_json.h"
#include "proxy/access_log/format_value.h"
#include "proxy/access_log/log_file.h"

struct kb_log_file *kb_event_log_open(struct kb_server_context *server, struct kb_str path,
                                      struct kb_diag *diag)
{
    return kb_log_file_open(server, KB_LOG_FILE_PATH, path, diag);
}

void kb_event_log_write(struct kb_log_file *file, struct kb_server_context *server,
                        const ProtobufCMessage *event)
{
    struct kb_format_out out;
    struct kb_arena arena;
    struct kb_json_out json;

    kb_arena_init(&arena, NULL);
    kb_json_out_init(&json, 0);
    kb_pb_json_write(&json, event, KB_PB_JSON_DEFAULTS, 0);
    kb_log_file_begin(file, server->main, &out, &arena);
    kb_format_out_add(&out, kb_str_make(json.p, json.len));
    kb_format_out_add_char(&out, '\n');
    kb_log_file_end(file, server->main, &out);
    kb_json_out_dispose(&json);
    kb_arena_dispose(&arena);
}
