/* SPDX-License-Identifier: Apache-2.0 */
/* What round robin, least request and random have in common (Envoy's ZoneAwareLoadBalancerBase and
 * EdfLoadBalancerBase): which priority, which hosts of it, weighted picking, and asking again for
 * retries. */
#pragma once

#include "proxy/api/lb.h"
#include "proxy/upstream/edf.h"
#include "proxy/upstream/lb_zone.h"
#include "proxy/upstream/priority_set.h"

/* One list of hosts to pick from, and the state of picking from it. */
struct kb_lb_source {
    const struct kb_host_list *list;
    uint64_t next;      /* round robin position; survives changes of hosts */
    struct kb_edf *edf; /* made at the first pick when `weighted` */
    bool weighted;
};

struct kb_lb_base;
struct kb_runtime;

struct kb_lb_picks {
    /* A host of a list that is not empty, when weights play no part. */
    struct kb_host *(*pick)(struct kb_lb_base *base, struct kb_lb_source *source);
    /* The weight of a host at this moment, for lists whose weights differ; NULL: weights never
     * count. */
    double (*weight)(const struct kb_lb_base *base, const struct kb_host *host);
};

/* Picking a locality of one priority by weight. */
struct kb_lb_localities {
    struct kb_edf *edf; /* NULL: none, or not made yet */
    double *weights;    /* effective, in the order of the set's localities */
    bool made;
};

struct kb_lb_priority {
    uint32_t
        first; /* source: all, healthy, degraded, then the localities' healthy and degraded ones */
    struct kb_lb_localities healthy, degraded;
};

struct kb_lb_base {
    struct kb_lb lb; /* first */
    const struct kb_lb_config *config;
    const struct kb_lb_picks *picks;
    uint64_t seed;
    struct kb_lb_source *sources;
    uint32_t source_count;
    struct kb_lb_priority *priorities;
    uint32_t priority_count;
    struct kb_lb_zone zone;
    uint64_t slow_until_ms; /* hosts start slowly until then; 0: none does */
    bool direct;            /* all requests go to the healthy hosts of priority 0 */
};

/* Prepares caller's storage; `seed` is where picking starts. */
void kb_lb_base_init(struct kb_lb_base *base, const struct kb_lb_ops *ops,
                     const struct kb_lb_picks *picks, struct kb_cluster_local *local,
                     const struct kb_lb_config *config, const struct kb_priority_set *set,
                     uint64_t seed);
void kb_lb_base_dispose(struct kb_lb_base *base);
/* For struct kb_lb_ops. */
void kb_lb_base_hosts_changed(struct kb_lb *lb, const struct kb_priority_set *set);
struct kb_host *kb_lb_base_choose_host(struct kb_lb *lb, const struct kb_lb_request *request);

/* The process's runtime, NULL: none. */
const struct kb_runtime *kb_lb_base_runtime(const struct kb_lb_base *base);

/* The priority that `random` falls on, of those that are left for the request (NULL: all);
 * *degraded says which of its hosts. */
uint32_t kb_lb_priority_pick(const struct kb_priority_set *set, const struct kb_lb_request *request,
                             uint64_t random, bool *degraded);

struct Envoy__Extensions__LoadBalancingPolicies__Common__V3__LocalityLbConfig;
/* A runtime key as a configuration keeps it, on the heap. */
struct kb_str kb_lb_runtime_key(const char *key);
/* Frees a configuration whose head was read by the functions below. */
void kb_lb_config_destroy(struct kb_lb_config *config);
struct Envoy__Extensions__LoadBalancingPolicies__Common__V3__SlowStartConfig;
/* Reads slow_start_config (may be NULL) into the head of a configuration. */
void kb_lb_config_read_slow_start(
    const struct Envoy__Extensions__LoadBalancingPolicies__Common__V3__SlowStartConfig *message,
    struct kb_lb_config *config, struct kb_diag *diag);

/* Reads locality_lb_config (may be NULL) into the head of a configuration. */
void kb_lb_config_read_locality(
    const struct Envoy__Extensions__LoadBalancingPolicies__Common__V3__LocalityLbConfig *message,
    struct kb_lb_config *config);
