/* SPDX-License-Identifier: Apache-2.0 */
/* Circuit breakers (Envoy docs: circuit breaking). Limits are of all workers together. A worker
 * counts for itself; it looks at the counts of the others only when some worker uses its equal
 * share of the limit or more, so that below that nothing shared is written. */
#pragma once

#include "envoy/config/cluster/v3/circuit_breaker.pb-c.h"

#include "proxy/upstream/cluster.h"

/* Reads the thresholds; the first entry of a priority holds, as in Envoy. `message` may be NULL:
 * defaults. Reports limits of hosts that there are not. */
void kb_circuit_breakers_read(const Envoy__Config__Cluster__V3__CircuitBreakers *message,
                              struct kb_cluster_impl *cluster, struct kb_diag *diag);
/* Sets the shares and makes the remaining_* gauges, once name, statistics and worker count are set.
 */
void kb_circuit_breakers_start(struct kb_cluster_impl *cluster, struct kb_stat_store *store,
                               struct kb_str stat_prefix);
void kb_circuit_breakers_dispose(struct kb_cluster_impl *cluster);

/* The most that may be used at this moment; differs from the configured number for retries with a
 * budget. */
uint64_t kb_resource_max(const struct kb_cluster_impl *cluster, enum kb_priority priority,
                         enum kb_circuit_resource resource);
/* What all workers use at this moment. */
uint64_t kb_resource_used(const struct kb_cluster_impl *cluster, enum kb_priority priority,
                          enum kb_circuit_resource resource);

/* The gauges circuit_breakers.*_open, computed when somebody looks: true and 1 when `id` is one of
 * them and its limit is reached. */
bool kb_circuit_breakers_provide(const struct kb_cluster_impl *cluster, unsigned id,
                                 uint64_t *value);
