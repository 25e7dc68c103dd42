/* SPDX-License-Identifier: Apache-2.0 */
/* Active health checks of a cluster's hosts (Envoy HealthCheckerImplBase), on the main thread: a
 * session for each host, which asks it from time to time over a connection of its own. */
#pragma once

#include "envoy/config/core/v3/health_check.pb-c.h"

#include "proxy/upstream/cluster_manager.h"

struct kb_health_checker;

/* The cluster's health check; NULL: it has none, or an error was reported. `stat_prefix` is
 * "cluster.a.". Hosts that are made from now on have failed until they pass it, and factory->init
 * waits for the first answers of the first hosts. It checks no host yet. */
struct kb_health_checker *
kb_health_checker_create(struct kb_cluster_entry *entry,
                         const Envoy__Config__Cluster__V3__Cluster *message,
                         struct kb_factory_context *factory, struct kb_diag *diag);
/* NULL is allowed. */
void kb_health_checker_destroy(struct kb_health_checker *checker);
/* The hosts of `set` are checked from now on, and no others; those that stay keep their state. */
void kb_health_checker_hosts_changed(struct kb_health_checker *checker,
                                     const struct kb_priority_set *set);
