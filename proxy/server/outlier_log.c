/* SPDX-License-Identifier: Apache-2.0 */
/* One line of JSON for each ejection of a host and each end of one, as Envoy writes it. */
#include "proxy/server/outlier_log.h"

#include "proto/pb_json.h"
#include "proxy/access_log/format_value.h"
#include "proxy/access_log/log_file.h"
#include "proxy/upstream/cluster_manager.h"

static struct kb_log_file *log_file; /* owned by the access logs */

static void event_write(void *arg, const ProtobufCMessage *event)
{
    struct kb_worker *main = ((struct kb_server_context *)arg)->main;
    struct kb_format_out out;
    struct kb_arena arena;
    struct kb_json_out json;

    kb_arena_init(&arena, NULL);
    kb_json_out_init(&json, 0);
    kb_pb_json_write(&json, event, KB_PB_JSON_DEFAULTS, 0);
    kb_log_file_begin(log_file, main, &out, &arena);
    kb_format_out_add(&out, kb_str_make(json.p, json.len));
    kb_format_out_add_char(&out, '\n');
    kb_log_file_end(log_file, main, &out);
    kb_json_out_dispose(&json);
    kb_arena_dispose(&arena);
}

void kb_outlier_log_configure(struct kb_server_context *server,
                              const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                              struct kb_diag *diag)
{
    const Envoy__Config__Bootstrap__V3__ClusterManager *manager = message->cluster_manager;

    if (manager == NULL || manager->outlier_detection == NULL ||
        manager->outlier_detection->event_log_path[0] == '\0') {
        return;
    }
    kb_diag_push(diag, "cluster_manager");
    kb_diag_push(diag, "outlier_detection");
    kb_diag_push(diag, "event_log_path");
    log_file = kb_log_file_open(server, KB_LOG_FILE_PATH,
                                kb_str_from_cstr(manager->outlier_detection->event_log_path), diag);
    if (log_file != NULL) {
        kb_cluster_manager_set_outlier_log(server->clusters, event_write, server);
    }
    kb_diag_pop(diag);
    kb_diag_pop(diag);
    kb_diag_pop(diag);
}
