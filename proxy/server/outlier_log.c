/* SPDX-License-Identifier: Apache-2.0 */
/* One line of JSON for each ejection of a host and each end of one, as Envoy writes it. */
#include "proxy/server/outlier_log.h"

#include "proxy/api/event_log.h"
#include "proxy/upstream/cluster_manager.h"

static struct kb_log_file *log_file; /* owned by the access logs */

static void event_write(void *arg, const ProtobufCMessage *event)
{
    kb_event_log_write(log_file, arg, event);
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
    log_file = kb_event_log_open(
        server, kb_str_from_cstr(manager->outlier_detection->event_log_path), diag);
    if (log_file != NULL) {
        kb_cluster_manager_set_outlier_log(server->clusters, event_write, server);
    }
    kb_diag_pop(diag);
    kb_diag_pop(diag);
    kb_diag_pop(diag);
}
