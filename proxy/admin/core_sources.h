/* SPDX-License-Identifier: Apache-2.0 */
/* What the admin pages show of clusters, listeners and configuration, read from their managers: the
 * server's functions of struct kb_admin_sources only pass their arguments on. Main thread. */
#pragma once

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "proxy/admin/admin.h"
#include "proxy/api/subscription.h"

struct kb_cluster_manager;
struct kb_listener_manager;

/* A resource of the control plane, as it was accepted last; or one that was refused. */
struct kb_admin_resource {
    struct kb_str name;
    struct kb_str version;
    struct kb_str packed; /* empty: nothing came yet */
    uint64_t updated_wall_ns;
    struct kb_str error; /* why it was refused; empty: it was not */
};

typedef void (*kb_admin_resource_fn)(void *arg, const struct kb_admin_resource *resource);

/* What the control plane sent, as the server knows it. */
struct kb_admin_dynamic {
    void *arg;
    struct kb_str (*cluster_version)(void *arg, struct kb_str name);
    /* Route configurations, secrets, extension configurations: each name once. Listeners: those
     * that were refused. */
    void (*visit)(void *arg, enum kb_resource_type type, kb_admin_resource_fn visit,
                  void *visit_arg);
};

/* Borrowed; every member but `bootstrap` may be NULL. */
struct kb_admin_core {
    const struct kb_cluster_manager *clusters;
    const struct kb_listener_manager *listeners;
    const Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap;
    Envoy__Config__Core__V3__Node *node; /* shown in place of the bootstrap's own */
    const struct kb_admin_dynamic *dynamic;
    uint64_t started_wall_ns; /* last_updated of the bootstrap and its secrets */
};

/* kb_admin_sources.visit_clusters */
void kb_admin_core_visit_clusters(const struct kb_admin_core *core, kb_admin_cluster_fn visit,
                                  void *visit_arg);
/* kb_admin_sources.visit_listeners */
void kb_admin_core_visit_listeners(const struct kb_admin_core *core, kb_admin_listener_fn visit,
                                   void *visit_arg);
/* kb_admin_sources.visit_configs */
void kb_admin_core_visit_configs(const struct kb_admin_core *core, enum kb_admin_section section,
                                 kb_admin_config_fn visit, void *visit_arg);
