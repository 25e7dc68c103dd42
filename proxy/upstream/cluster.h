/* SPDX-License-Identifier: Apache-2.0 */
/* A cluster as this room sees it: what the data path reads (struct kb_cluster), and behind it the
 * load balancer's configuration, the shared part of the circuit breakers, and who holds it. */
#pragma once

#include "envoy/config/cluster/v3/cluster.pb-c.h"

#include "proxy/api/lb.h"
#include "proxy/upstream/priority_set.h"

struct kb_cluster_manager;
struct kb_cluster_impl;
struct kb_outlier_config;

/* The circuit breakers' part that workers share; written only when a worker uses its share of a
 * limit or more. */
struct kb_resource_shared {
    uint32_t over; /* workers that use their share of the limit or more */
};

struct kb_cluster_impl {
    struct kb_cluster api; /* first */
    uint32_t refs;         /* atomic: the manager, hosts, priority sets and workers' views */
    uint32_t worker_count;
    bool http1_seen; /* atomic: kb_cluster_http1_seen was here */
    struct kb_cluster_manager *manager;
    const struct kb_lb_ops *lb;
    struct kb_lb_config *lb_config; /* NULL until read */
    struct kb_priority_policy policy;
    struct kb_outlier_config *outlier;   /* NULL: hosts are not watched */
    struct kb_stat_group *outlier_stats; /* NULL likewise */
    uint32_t share[KB_PRIORITY_COUNT]
                  [KB_RESOURCE_COUNT]; /* a worker that uses less need not ask the others */
    struct kb_resource_shared shared[KB_PRIORITY_COUNT][KB_RESOURCE_COUNT];
    /* circuit_breakers.*.remaining_*, computed when somebody looks; NULL: not tracked. */
    struct kb_stat_group *remaining[KB_PRIORITY_COUNT];
    struct kb_cluster_local *
        *locals; /* [worker_count + 1], by worker; NULL until used. Freed with the cluster */
};

KB_INLINE struct kb_cluster_impl *kb_cluster_impl_of(const struct kb_cluster *cluster)
{
    return (struct kb_cluster_impl *)(uintptr_t)cluster;
}

/* Builds the immutable part of a cluster from its message: KB_ECONFIG when anything is wrong, all
 * of it in diag. `provided` is the load balancer that its type brings, or NULL. `factory->arena` is
 * for temporary memory. One reference. */
int kb_cluster_impl_create(const Envoy__Config__Cluster__V3__Cluster *message,
                           const struct kb_lb_ops *provided, struct kb_cluster_manager *manager,
                           struct kb_factory_context *factory, struct kb_diag *diag,
                           struct kb_cluster_impl **out) KB_MUST_USE;

/* There is a connection that speaks HTTP/1: has main show the cluster's "http1." from now on. Any
 * thread. */
void kb_cluster_http1_seen(const struct kb_cluster *cluster);

/* "cluster.a.", as Envoy spells the name; in the arena, with a NUL behind it. */
struct kb_str kb_cluster_stat_prefix(const struct kb_cluster_impl *cluster, struct kb_arena *arena);

/* Any thread. */
void kb_cluster_impl_ref(struct kb_cluster_impl *cluster);
/* Any thread; the memory goes on the main thread. */
void kb_cluster_impl_unref(struct kb_cluster_impl *cluster);
/* Frees it; for the manager, on the main thread, at 0 references. */
void kb_cluster_impl_free(struct kb_cluster_impl *cluster);

/* Reads the parts of the message that HTTP upstreams use: HttpProtocolOptions or the deprecated
 * fields. */
void kb_cluster_http_read(const Envoy__Config__Cluster__V3__Cluster *message,
                          struct kb_cluster *cluster, const struct kb_factory_context *factory,
                          struct kb_diag *diag);
/* Frees what is there beyond the cluster itself. */
void kb_cluster_http_dispose(struct kb_cluster *cluster);
/* What can be known only when the transport sockets are: auto_config needs ALPN. Main thread. */
void kb_cluster_http_check(const struct kb_cluster *cluster, struct kb_diag *diag);
/* Finds the load balancer and its configuration; `provided` as above. */
void kb_cluster_lb_read(const Envoy__Config__Cluster__V3__Cluster *message,
                        struct kb_cluster_impl *cluster, const struct kb_lb_ops *provided,
                        struct kb_factory_context *factory, struct kb_diag *diag);
