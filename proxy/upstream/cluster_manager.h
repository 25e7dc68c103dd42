/* SPDX-License-Identifier: Apache-2.0 */
/* All clusters of the process, on the main thread: adding, removing, what is known of their hosts,
 * publishing to the workers, and walking over them for the admin pages. */
#pragma once

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "envoy/config/cluster/v3/cluster.pb-c.h"

#include "base/dns.h"
#include "base/init_manager.h"
#include "base/list.h"
#include "base/map.h"
#include "base/vec.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/host.h"

struct kb_cluster_type_ops;
struct kb_outlier_detector;
struct kb_cluster_slot;

/* Counters and gauges that are kept here, not in statistics cells, so that an idle cluster needs
 * none. */
struct kb_cluster_counts {
    uint32_t match; /* default.total_match_count: hosts ever made */
    uint32_t membership_change;
    uint32_t max_host_weight; /* 0: never set */
    uint32_t update_attempt;
    uint32_t update_success;
    uint32_t update_failure;
    uint32_t update_no_rebuild;
    uint32_t update_empty;
    uint32_t assignment_stale;
    uint32_t assignment_use_cached;
    uint32_t assignment_timeout_received;
};

/* What the main thread keeps of a cluster. Admin pages read it. */
struct kb_cluster_entry {
    KB_OBJ;
    bool initialized;
    bool dirty; /* in the manager's list of what is to be published */
    bool removed;
    struct kb_list link; /* in the manager's list, oldest first */
    struct kb_list dirty_link;
    struct kb_cluster_manager *manager;
    struct kb_cluster_impl *cluster;
    struct kb_priority_set *set; /* the present hosts; NULL before there is any answer */
    struct kb_priority_set
        *published; /* what the workers have, or are about to get; NULL: nothing yet */
    const struct kb_cluster_type_ops *type;
    void *state;
    struct kb_outlier_detector *outlier;     /* NULL: none */
    struct kb_health_checks *health;         /* NULL: none */
    struct kb_init_manager init;             /* what its transport sockets wait for */
    KB_VEC(struct kb_shared_text *) retired; /* replaced in hosts since the last publication */
    struct kb_str message; /* the packed envoy.config.cluster.v3.Cluster, for /config_dump */
    struct kb_cluster_slot *slot;
    uint64_t updated_wall_ns; /* last_updated of /config_dump */
    struct kb_cluster_counts counts;
};
KB_OBJ_MAGIC(kb_cluster_entry, 0x434c454e);

typedef void (*kb_cluster_manager_initialized_cb)(void *arg);

/* For server->worker_count workers and the main thread, whose loops must be initialised; they need
 * not run yet. Sets no pointer in `server`. Never NULL. */
struct kb_cluster_manager *kb_cluster_manager_create(struct kb_server_context *server);
/* What the bootstrap says of all clusters: cluster_manager.upstream_bind_config, the DNS resolver.
 * Before the first cluster; errors go to diag, whose present path is the bootstrap's. */
void kb_cluster_manager_configure(struct kb_cluster_manager *manager,
                                  const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                                  struct kb_diag *diag);
/* When the workers' threads have ended and no connection of theirs is left. */
void kb_cluster_manager_destroy(struct kb_cluster_manager *manager);
/* Closes what the pools of this worker hold, by telling them that every host is gone; on the
 * worker, before its loop stops, or on the main thread after that. */
void kb_cluster_manager_worker_drain(struct kb_worker *worker);

/* kb_cluster_manager_add: xDS sent what is there already, or a cluster of the bootstrap's. */
#define KB_CLUSTER_UNCHANGED 1

/* Adds a cluster; a bad one is reported to diag and leaves everything as it was (KB_ECONFIG). The
 * message is copied. `added_via_api`: from xDS; a cluster of that name is replaced once the new one
 * has hosts and all else that it waits for, and nothing happens when it is the same
 * (KB_CLUSTER_UNCHANGED). Otherwise a second one of a name is an error. After
 * kb_cluster_manager_start it starts at once. */
int kb_cluster_manager_add(struct kb_cluster_manager *manager,
                           const Envoy__Config__Cluster__V3__Cluster *message, bool added_via_api,
                           struct kb_diag *diag) KB_MUST_USE;
/* Whoever logs ejections of hosts gets an envoy.data.cluster.v3.OutlierDetectionEvent for each,
 * which lives during the call. NULL: nobody. */
typedef void (*kb_outlier_event_cb)(void *arg, const ProtobufCMessage *event);
void kb_cluster_manager_set_outlier_log(struct kb_cluster_manager *manager, kb_outlier_event_cb log,
                                        void *arg);
/* For the detectors: whether there is one, and telling it. */
bool kb_cluster_manager_has_outlier_log(const struct kb_cluster_manager *manager);
void kb_cluster_manager_log_outlier(const struct kb_cluster_manager *manager,
                                    const ProtobufCMessage *event);
/* Removes one that came from xDS; KB_ENOTFOUND. Streams that use it go on. */
int kb_cluster_manager_remove(struct kb_cluster_manager *manager, struct kb_str name) KB_MUST_USE;

/* All static clusters are added: they begin to look for their hosts, and are published to the
 * workers. `initialized` is called once when each has its first answer, good or bad; maybe from
 * within. */
void kb_cluster_manager_start(struct kb_cluster_manager *manager,
                              kb_cluster_manager_initialized_cb initialized, void *arg);

/* Calls `warm` once when the bootstrap's clusters are initialised and none from xDS is warming;
 * maybe from within. NULL: forget it. For whoever waits for the first answer of CDS to be applied.
 */
void kb_cluster_manager_when_warm(struct kb_cluster_manager *manager,
                                  kb_cluster_manager_initialized_cb warm, void *arg);

/* The cluster of that name, or NULL. */
const struct kb_cluster_entry *kb_cluster_manager_find(const struct kb_cluster_manager *manager,
                                                       struct kb_str name);
/* Calls visit for each, oldest first; visit must not add or remove. Warming ones are left out
 * unless asked for. */
void kb_cluster_manager_visit(const struct kb_cluster_manager *manager, bool warming,
                              void (*visit)(void *arg, const struct kb_cluster_entry *entry),
                              void *arg);
/* It waits for its first answer, and is not what serves under its name. */
bool kb_cluster_entry_warming(const struct kb_cluster_entry *entry);
/* The most retries at this moment, as /clusters shows max_retries (it moves with a retry budget).
 */
uint64_t kb_cluster_entry_max_retries(const struct kb_cluster_entry *entry,
                                      enum kb_priority priority);

/* For the files of this room. */

/* A kb_stat_provide_fn over an entry. Zeros of things that never happened stay unused, as in Envoy.
 */
bool kb_cluster_entry_provide(void *arg, unsigned id, uint64_t *value);
/* The health of hosts is another one: the workers hear of it when the present event is done. */
void kb_cluster_entry_refresh_hosts(struct kb_cluster_entry *entry);
bool kb_cluster_manager_on_main(const struct kb_cluster_manager *manager);
struct kb_loop *kb_cluster_manager_loop(const struct kb_cluster_manager *manager);
/* Where connections come from when a cluster does not say (len 0: anywhere). */
const struct kb_addr *kb_cluster_manager_bind_source(const struct kb_cluster_manager *manager);
/* The slot of cluster_manager.local_cluster_name, the cluster that this process is one of;
 * UINT32_MAX: none. */
uint32_t kb_cluster_manager_local_slot(const struct kb_cluster_manager *manager);
struct kb_server_context *kb_cluster_manager_server(const struct kb_cluster_manager *manager);
/* A resolver with these options (NULL: the bootstrap's), shared by all that ask for the same; lives
 * as long as the manager. KB_EIO when c-ares cannot start. */
int kb_cluster_manager_dns(struct kb_cluster_manager *manager, const struct kb_dns_options *options,
                           struct kb_dns **out) KB_MUST_USE;
