/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of the cluster manager, between the files named below. */
#pragma once

#include "proxy/upstream/cluster_dns.h"
#include "proxy/upstream/cluster_local.h"
#include "proxy/upstream/cluster_manager.h"

struct kb_cluster_manager {
    KB_OBJ;
    struct kb_server_context *server;
    pthread_t main_thread;
    struct kb_cluster_names names;
    KB_VEC(struct kb_cluster_slot *)
    slots; /* by number; NULL: the number is free, or about to be */
    KB_VEC(uint32_t) free_numbers;
    struct kb_list unused_slots; /* nobody holds them; they go when the event is done */
    struct kb_deferred slots_flush;
    struct kb_list entries;
    struct kb_list dirty;
    struct kb_deferred flush;
    struct kb_stat_group *stats_group;
    struct kb_stat_block *stats;
    struct kb_stat_group **thread_groups; /* [worker_count + 1]: thread_local_cluster_manager.* */
    struct kb_cluster_dns dns;
    struct kb_addr bind_source; /* of clusters that do not say; len 0: none */
    uint32_t active_count;
    uint32_t warming_count;
    uint32_t waiting_count; /* static clusters without their first answer */
    bool started;
    bool ending;    /* slots go with it */
    bool announced; /* initialized was called */
    kb_cluster_manager_initialized_cb initialized;
    void *initialized_arg;
    kb_cluster_manager_initialized_cb warm;
    void *warm_arg;
    uint32_t local_slot;             /* kb_cluster_manager_local_slot */
    kb_outlier_event_cb outlier_log; /* NULL: none */
    void *outlier_log_arg;
};
KB_OBJ_MAGIC(kb_cluster_manager, 0x434c4d47);

/* ---- cluster_entry.c, with kb_cluster_entry_set_hosts and _refresh_hosts ---- */

/* A cluster of this message, whose packed `bytes` it copies; in no list, and nothing of it started.
 * KB_ECONFIG after errors were reported, of everything in the message that is wrong. */
int kb_cluster_entry_create(struct kb_cluster_manager *manager,
                            const Envoy__Config__Cluster__V3__Cluster *message, bool added_via_api,
                            struct kb_str bytes, struct kb_arena *arena, struct kb_diag *diag,
                            struct kb_cluster_entry **out) KB_MUST_USE;
/* Lets go of an entry; what workers still use of its cluster stays. */
void kb_cluster_entry_free(struct kb_cluster_entry *entry);
/* Counters go on counting when a cluster changes. */
void kb_cluster_counts_inherit(struct kb_cluster_counts *counts,
                               const struct kb_cluster_counts *before);

/* ---- cluster_slots.c ---- */

/* The slot of a name, held until let go. */
struct kb_cluster_slot *kb_cluster_slot_hold(struct kb_cluster_manager *manager,
                                             struct kb_str name);
void kb_cluster_slot_let_go(struct kb_cluster_manager *manager, struct kb_cluster_slot *slot);
/* For manager->slots_flush. */
void kb_cluster_slots_flush(struct kb_deferred *deferred);

/* ---- cluster_publish.c ---- */

/* Workers may read the retired texts until they have let go of `set`, the one that they know now:
 * it keeps them. */
void kb_cluster_entry_retired_leave(struct kb_cluster_entry *entry, struct kb_priority_set *set);

/* The workers hear of it when the present event is done. */
void kb_cluster_entry_mark_dirty(struct kb_cluster_entry *entry);
/* The workers hear of all that is dirty. */
void kb_clusters_publish(struct kb_cluster_manager *manager);
/* For manager->flush. */
void kb_clusters_publish_deferred(struct kb_deferred *deferred);
