/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker knows of the clusters: by slot number the published hosts, and the worker's own
 * view of the cluster once it was used. */
#pragma once

#include <pthread.h>

#include "base/list.h"
#include "base/map.h"
#include "proxy/upstream/cluster.h"

/* Names that somebody uses, by number. Written by the main thread, read by workers
 * under the lock. */
struct kb_cluster_names {
    pthread_mutex_t lock;
    struct kb_map map; /* name -> struct kb_cluster_slot */
};

struct kb_cluster_entry;

/* A name's number, as long as somebody uses it. */
struct kb_cluster_slot {
    struct kb_cluster_entry *entry;   /* the present cluster of that name, or NULL */
    struct kb_cluster_entry *warming; /* a newer one that has no hosts yet, or NULL */
    struct kb_list unused_link;       /* in manager->unused_slots */
    uint32_t refs;                    /* clusters of that name, and routes that name it */
    uint32_t number;
    uint32_t name_len;
    char name[];
};

struct kb_cluster_view_item {
    struct kb_priority_set *set; /* NULL: no such cluster */
    struct kb_cluster_local *local;
};

struct kb_cluster_view {
    KB_OBJ;
    struct kb_worker *worker;
    struct kb_cluster_names *names;
    const struct kb_overload_state *overload;
    struct kb_cluster_view_item *items; /* by slot number */
    uint32_t count;
    struct kb_map slots; /* name -> number + 1; what this worker looked up */
};
KB_OBJ_MAGIC(kb_cluster_view, 0x43564957);

/* Sets worker->slots[KB_SLOT_CLUSTERS]. Main thread, before the worker runs. */
void kb_cluster_view_create(struct kb_worker *worker, struct kb_cluster_names *names,
                            const struct kb_overload_state *overload);
/* Main thread, after the worker's thread ended. */
void kb_cluster_view_destroy(struct kb_worker *worker);

/* From now on slot `number` has these hosts (NULL: removed); takes over one reference of `set`. On
 * the worker. */
void kb_cluster_view_publish(struct kb_worker *worker, uint32_t number,
                             struct kb_priority_set *set);
/* The name has no number any more. On the worker; harmless after its view was destroyed. */
void kb_cluster_view_forget(struct kb_worker *worker, const struct kb_cluster_slot *slot);
/* Removes all. */
void kb_cluster_view_clear(struct kb_worker *worker);
/* The hosts that this worker has for a slot, borrowed until the next event; NULL: none, or no such
 * slot. */
struct kb_priority_set *kb_cluster_view_set(struct kb_worker *worker, uint32_t number);
