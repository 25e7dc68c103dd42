/* SPDX-License-Identifier: Apache-2.0 */
/* The hosts of a cluster at one moment, by priority and health, and the share of the load that each
 * priority gets. Built on the main thread for every change, immutable afterwards, shared by all
 * workers. */
#pragma once

#include "proxy/api/cluster.h"

#define KB_PRIORITIES_MAX 129 /* config.endpoint.v3.LocalityLbEndpoints.priority is at most 128 */
#define KB_OVERPROVISIONING_DEFAULT 140
#define KB_PANIC_THRESHOLD_DEFAULT  50

struct kb_cluster_impl;
struct kb_hash_table;
struct kb_subset_table;

struct kb_host_list {
    struct kb_host **hosts;
    uint32_t count;
};

/* One locality of a priority; only kept when a balancer wants to know. */
struct kb_host_locality {
    struct kb_host_list all, healthy, degraded;
    uint32_t excluded_count;
    uint32_t weight;
};

struct kb_host_set {
    struct kb_host_list all, healthy, degraded;
    uint32_t excluded_count; /* draining: neither healthy nor counted */
    uint32_t locality_count;
    struct kb_host_locality *localities;
    uint8_t healthy_percent, degraded_percent; /* of its hosts, overprovisioned; at most 100 */
    uint8_t healthy_load; /* percent of requests that go to the healthy hosts here */
    uint8_t degraded_load;
    bool panic; /* too few healthy hosts: all are used */
};

struct kb_priority_set {
    KB_OBJ;
    uint32_t refs; /* atomic: main and each worker */
    struct kb_cluster_impl *cluster;
    struct kb_host *
        *removed; /* hosts of the set before that are not here; alive while that set is */
    uint32_t removed_count;
    uint32_t retired_count;
    struct kb_shared_text **retired; /* replaced in its hosts when the next set came */
    uint32_t host_count;
    uint32_t healthy_count;
    uint32_t degraded_count;
    uint32_t excluded_count;
    uint32_t overprovisioning_factor; /* 140: percent */
    uint32_t drop_overload_ppm;
    union {
        /* Of consistent load balancers, by priority; made by workers (atomic), freed with the set.
         */
        struct kb_hash_table **lb_tables;
        struct kb_subset_table *subsets; /* made before workers know the set, freed with it */
    };
    void (*lb_table_destroy)(struct kb_hash_table *table);
    uint32_t count;
    bool has_subsets;
    struct kb_host_set sets[]; /* by priority; [0] is always there */
};
KB_OBJ_MAGIC(kb_priority_set, 0x50525345);

/* One LocalityLbEndpoints: hosts of one locality and priority, in configuration order. */
struct kb_host_group {
    uint32_t priority;
    uint32_t locality_weight; /* 0: none */
    struct kb_host **hosts;
    uint32_t count;
};

/* How health becomes load (load_assignment.policy, common_lb_config). */
struct kb_priority_policy {
    uint32_t overprovisioning_factor;
    uint32_t panic_threshold; /* percent; 0: never */
    bool weighted_priority_health;
    bool keep_localities;       /* balancers want to know which hosts are where */
    uint32_t drop_overload_ppm; /* of requests are refused before a host is looked for */
};

/* Takes a reference of every host in the groups, and one of the cluster (NULL in tests). Never
 * NULL; free with unref. */
struct kb_priority_set *kb_priority_set_create(struct kb_cluster_impl *cluster,
                                               const struct kb_host_group *groups,
                                               size_t group_count,
                                               const struct kb_priority_policy *policy);
/* The same hosts with the health and weights that they have now. */
struct kb_priority_set *kb_priority_set_refresh(const struct kb_priority_set *before,
                                                const struct kb_priority_policy *policy);
/* Finds which hosts of `before`, the set that workers have now, are not in `set`; before `set` is
 * published. */
void kb_priority_set_find_removed(struct kb_priority_set *set,
                                  const struct kb_priority_set *before);
struct kb_priority_set *kb_priority_set_ref(struct kb_priority_set *set);
/* Any thread. */
void kb_priority_set_unref(struct kb_priority_set *set);

/* Sets healthy_load, degraded_load and panic of every priority from the host counts (Envoy: load
 * balancing, priority levels and panic threshold). The loads add up to 100. */
void kb_priority_set_compute_load(struct kb_priority_set *set,
                                  const struct kb_priority_policy *policy);

/* Whether so few of the hosts can be used that all are. */
bool kb_host_set_panics(const struct kb_host_set *hosts, uint32_t threshold);

/* The share of the load that healthy and degraded hosts of each priority get. */
struct kb_priority_loads {
    uint8_t healthy[KB_PRIORITIES_MAX];
    uint8_t degraded[KB_PRIORITIES_MAX];
};

/* The loads if these priorities had no host; false: none of the others has a usable one. */
bool kb_priority_set_load_without(const struct kb_priority_set *set, const bool *excluded,
                                  struct kb_priority_loads *loads);

/* Whether weighted picking is needed: two hosts of the list have different weights. */
bool kb_host_list_weights_differ(const struct kb_host_list *list);

/* Whether both have the same hosts, in any order. */
bool kb_host_list_same_hosts(const struct kb_host_list *a, const struct kb_host_list *b);
