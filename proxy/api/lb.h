/* SPDX-License-Identifier: Apache-2.0 */
/* Load balancers: one vtable per policy. Configuration is made on the main thread and shared; a
 * struct kb_lb is one worker's, made when that worker first uses the cluster. Implemented in
 * proxy/ext/lb/ over proxy/upstream/lb_base.h. */
#pragma once

#include "proxy/api/cluster.h"
#include "proxy/api/factory_context.h"

struct kb_cluster_impl;
struct kb_priority_set;

/* The head of every configuration: what the hosts must be prepared for. */
struct kb_lb_config {
    bool locality_weighted;
    bool fail_traffic_on_panic;
    struct { /* hosts in the zone of this process come first */
        bool aware;
        bool by_weight; /* shares of zones by weight, not by number of hosts */
        bool force;     /* always, when there are min_forced healthy ones */
        uint32_t min_forced;
        uint32_t routing_enabled; /* percent */
        uint64_t min_cluster_size;
    } zone;
    struct {                /* new hosts get less at first */
        uint64_t window_ms; /* 0: no slow start */
        double aggression;
        struct kb_str aggression_key; /* of runtime, on the heap; empty: none */
        double min_weight;            /* share of the weight, 0 to 1 */
    } slow_start;
};

struct kb_lb_ops {
    const char *name;     /* "envoy.load_balancing_policies.round_robin" */
    const char *type_url; /* "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" */
    /* From a message of type_url; *config is on the heap. KB_ECONFIG after a report to diag. Main
     * thread. */
    int (*config_create)(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, struct kb_lb_config **config);
    void (*config_destroy)(struct kb_lb_config *config);
    /* Before workers know `set`, the hosts of the cluster from now on: makes what they share of it.
     * `before`: the set that it replaces; NULL: the first. `set` NULL: the cluster goes. Main
     * thread. NULL: nothing to make. */
    void (*hosts_prepare)(struct kb_cluster_impl *cluster, struct kb_priority_set *set,
                          const struct kb_priority_set *before);
    /* One worker's balancer over these hosts; `config` and `local` outlive it. `set` is borrowed
     * until hosts_changed or destroy. */
    struct kb_lb *(*create)(struct kb_cluster_local *local, const struct kb_lb_config *config,
                            const struct kb_priority_set *set);
    /* Other hosts from now on; the old set may be gone when this returns. */
    void (*hosts_changed)(struct kb_lb *lb, const struct kb_priority_set *set);
    /* The next host, or NULL. No memory is taken in steady state. */
    struct kb_host *(*choose_host)(struct kb_lb *lb, const struct kb_lb_request *request);
    void (*destroy)(struct kb_lb *lb);
};

/* The head of every balancer. */
struct kb_lb {
    KB_OBJ;
    const struct kb_lb_ops *ops;
    struct kb_cluster_local *local;
    const struct kb_priority_set *set;
};
KB_OBJ_MAGIC(kb_lb, 0x4c424c42);
