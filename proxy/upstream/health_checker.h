/* SPDX-License-Identifier: Apache-2.0 */
/* Active health checks of a cluster's hosts (Envoy HealthCheckerImplBase, MultiHealthChecker), on
 * the main thread: for each host and check a session, which asks it from time to time over a
 * connection of its own. */
#pragma once

#include "envoy/config/core/v3/health_check.pb-c.h"

#include "proxy/upstream/cluster_manager.h"

/* cluster.v3.Cluster.health_checks has at most so many. */
#define KB_HEALTH_CHECKS_MAX 8

struct kb_health_checks;

/* The cluster's health checks; NULL: it has none, or an error was reported. `stat_prefix` is
 * "cluster.a.". Hosts that are made from now on have failed until they pass all of them, and
 * factory->init waits for the first answers of the first hosts. They check no host yet. */
struct kb_health_checks *kb_health_checks_create(struct kb_cluster_entry *entry,
                                                 const Envoy__Config__Cluster__V3__Cluster *message,
                                                 struct kb_factory_context *factory,
                                                 struct kb_diag *diag);
/* NULL is allowed. */
void kb_health_checks_destroy(struct kb_health_checks *checks);
/* The hosts of `set` are checked from now on, and no others; those that stay keep their state. */
void kb_health_checks_hosts_changed(struct kb_health_checks *checks,
                                    const struct kb_priority_set *set);
