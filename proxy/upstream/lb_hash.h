/* SPDX-License-Identifier: Apache-2.0 */
/* What ring hash and maglev have in common (Envoy ThreadAwareLoadBalancerBase): which priority, the
 * hosts' weights and keys, and tables that all workers share. A table is made by the worker that
 * first needs it, and goes with the hosts for which it was made. */
#pragma once

#include "base/arena.h"
#include "proxy/api/lb.h"
#include "proxy/upstream/priority_set.h"

/* One host as a table is made of it. */
struct kb_hash_host {
    struct kb_host *host;
    struct kb_str key; /* metadata envoy.lb.hash_key, or the hostname, or the address */
    double weight;     /* all of a table add up to 1 */
};

struct kb_hash_hosts {
    struct kb_hash_host *hosts;
    uint32_t count;
    double min_weight;
    double max_weight;
};

/* A host's part of all requests, for hash_balance_factor. */
struct kb_hash_share {
    struct kb_host *host;
    double weight;
};

/* The head of the tables of ring_hash.c and maglev.c. */
struct kb_hash_table {
    struct kb_hash_share *shares;  /* in the order of the configuration; NULL: no bounds */
    struct kb_hash_share *by_host; /* the same, in the order of the pointers */
    uint32_t share_count;
};

struct kb_hash_table_ops {
    /* A table of these hosts, at least one, in configuration order; on the heap. */
    struct kb_hash_table *(*build)(const struct kb_lb_config *config,
                                   const struct kb_hash_hosts *hosts);
    /* The host for a hash; attempt 1 and more: the next choices. */
    struct kb_host *(*pick)(const struct kb_hash_table *table, uint64_t hash, uint32_t attempt);
    void (*destroy)(struct kb_hash_table *table);
};

/* The head of both configurations. */
struct kb_lb_hash_config {
    struct kb_lb_config head; /* first */
    bool use_hostname;
    uint32_t balance_factor; /* percent of a host's share that it may have at once; 0: no bound */
};

struct Envoy__Extensions__LoadBalancingPolicies__Common__V3__ConsistentHashingLbConfig;
/* Reads consistent_hashing_lb_config (may be NULL). */
void kb_lb_hash_config_read(
    const struct Envoy__Extensions__LoadBalancingPolicies__Common__V3__ConsistentHashingLbConfig
        *message,
    struct kb_lb_hash_config *config);

/* With its shares, by the `destroy` of its kind. */
void kb_lb_hash_table_destroy(struct kb_hash_table *table, void (*destroy)(struct kb_hash_table *));

/* For struct kb_lb_ops. */
struct kb_lb *kb_lb_hash_create(struct kb_cluster_local *local, const struct kb_lb_config *config,
                                const struct kb_priority_set *set, const struct kb_lb_ops *ops,
                                const struct kb_hash_table_ops *tables);
void kb_lb_hash_hosts_changed(struct kb_lb *lb, const struct kb_priority_set *set);
struct kb_host *kb_lb_hash_choose_host(struct kb_lb *lb, const struct kb_lb_request *request);
void kb_lb_hash_destroy(struct kb_lb *lb);
