/* SPDX-License-Identifier: Apache-2.0 */
/* What an assignment changes of a cluster's hosts (Envoy BaseDynamicClusterImpl); apart from where
 * assignments come from. Main thread. */
#pragma once

#include "proxy/upstream/cluster_type.h"
#include "proxy/upstream/load_assignment.h"

/* What is remembered of the last assignment beside the hosts; zeroed at first. */
struct kb_eds_state {
    uint64_t locality_weights; /* a sum of hashes */
};

/* What an assignment says of a host's health. */
#define KB_EDS_HEALTH_FLAGS (KB_HOST_FAILED_EDS | KB_HOST_DEGRADED_EDS | KB_HOST_DRAINING_EDS)

/* Reads every endpoint, in order, into the arena. What is wrong is reported. */
void kb_eds_read(const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *assignment,
                 struct kb_arena *arena, struct kb_host_params **params, size_t *count,
                 struct kb_diag *diag);

/* Makes the hosts those of the assignment; `params` are what kb_eds_read made of it. Counts, and
 * publishes when anything is different. */
void kb_eds_apply(struct kb_eds_state *state, struct kb_cluster_entry *entry,
                  const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *assignment,
                  const struct kb_host_params *params, size_t count);

/* Whether a host that discovery names no more stays as long as its health checks succeed. */
bool kb_host_outlives_discovery(const struct kb_cluster_entry *entry, const struct kb_host *host);

/* Drops the hosts that stayed so and have failed since; true: there were some, and the others'
 * present health is published too. Does nothing where hosts do not come from EDS. */
bool kb_eds_removed_drop(struct kb_cluster_entry *entry);

/* Gives the cluster hosts like those of `before`, which it will replace and which has had an
 * assignment. */
void kb_eds_reuse(struct kb_eds_state *state, struct kb_cluster_entry *entry,
                  const struct kb_eds_state *before_state, const struct kb_cluster_entry *before);
