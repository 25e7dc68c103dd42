/* SPDX-License-Identifier: Apache-2.0 */
/* Where the hosts of a cluster come from: one vtable per cluster type (STATIC, STRICT_DNS,
 * LOGICAL_DNS, EDS, ORIGINAL_DST). Everything here runs on the main thread. Implemented in
 * proxy/ext/cluster/. */
#pragma once

#include "proxy/api/extension.h"
#include "proxy/upstream/cluster_manager.h"

struct kb_cluster_type_ops {
    const char *name;      /* "envoy.cluster.static" */
    const char *type_url;  /* of cluster_type.typed_config, or "" when it takes none */
    bool hosts_have_names; /* auto_host_rewrite works */
    bool drops_failed; /* hosts that discovery names no more go when their check fails; otherwise
                          with the next answer */
    const struct kb_lb_ops *lb; /* CLUSTER_PROVIDED, and the only one possible; NULL: none. Its
                                   configuration is made of the Cluster message */
    /* Reads what the message says of hosts. `typed` is cluster_type's own message, or NULL. May set
     * hosts already. KB_ECONFIG after a report to diag. *state is for the calls below. */
    int (*create)(struct kb_cluster_entry *entry,
                  const Envoy__Config__Cluster__V3__Cluster *message, const void *typed,
                  struct kb_factory_context *factory, struct kb_diag *diag, void **state);
    /* Begins to look for hosts; ends, now or later, in kb_cluster_entry_initialized. */
    void (*start)(void *state);
    void (*destroy)(void *state);
    /* Under which name its hosts are asked for, for /clusters; empty, or no function: the
     * cluster's. */
    struct kb_str (*service_name)(const void *state);
};

/* The type of this cluster, whose ops are a struct kb_cluster_type_ops; NULL after a report. */
const struct kb_extension *kb_cluster_type_find(const Envoy__Config__Cluster__V3__Cluster *message,
                                                struct kb_arena *arena, struct kb_diag *diag);

/* These are the hosts from now on, in all priorities. The groups and their hosts are borrowed;
 * hosts are kept by reference. Counts what changed, and publishes. Does nothing when the
 * configuration was wrong (entry->cluster NULL). */
void kb_cluster_entry_set_hosts(struct kb_cluster_entry *entry, const struct kb_host_group *groups,
                                size_t group_count);
/* The first attempt to find hosts has ended, one way or the other. Harmless when repeated. */
void kb_cluster_entry_initialized(struct kb_cluster_entry *entry);
/* A transport socket was chosen for a host of the cluster: counted in *.total_match_count. */
void kb_cluster_entry_count_match(struct kb_cluster_entry *entry, const struct kb_host *host);
/* Likewise for one connection that is made with this socket; as kb_host.socket. */
void kb_cluster_entry_count_socket(struct kb_cluster_entry *entry, uint16_t socket);
/* `text` was replaced in a host that workers may know; takes over its reference. */
void kb_cluster_entry_retire(struct kb_cluster_entry *entry, struct kb_shared_text *text);
