/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters whose hosts are found by DNS (Envoy docs: service discovery, strict DNS and logical
 * DNS). The cluster types in proxy/ext/cluster read their configuration and share this. Main
 * thread. */
#pragma once

#include "proxy/upstream/cluster_dns.h"
#include "proxy/upstream/cluster_type.h"

struct kb_dns_cluster;

struct kb_dns_cluster_config {
    uint64_t refresh_ms;      /* 5000 */
    uint64_t jitter_ms;       /* 0: none */
    uint64_t failure_base_ms; /* 0: refresh_ms, always the same */
    uint64_t failure_max_ms;
    enum kb_dns_family family;
    bool respect_ttl;
    bool logical; /* one name, and only the first address of its answer */
    struct kb_dns *dns;
};

/* The types of dns_failure_refresh_rate and dns_lookup_family differ between messages, so their
 * parts come singly. Reads the durations with Envoy's checks. */
void kb_dns_cluster_read_rates(const Google__Protobuf__Duration *refresh,
                               const Google__Protobuf__Duration *jitter, bool has_failure,
                               const Google__Protobuf__Duration *failure_base,
                               const Google__Protobuf__Duration *failure_max,
                               struct kb_dns_cluster_config *config, struct kb_diag *diag);

/* For STRICT_DNS and LOGICAL_DNS clusters: everything is in the Cluster message itself. */
int kb_dns_cluster_create_from_cluster(struct kb_cluster_entry *entry,
                                       const Envoy__Config__Cluster__V3__Cluster *message,
                                       bool logical, struct kb_factory_context *factory,
                                       struct kb_diag *diag, void **state) KB_MUST_USE;

/* Reads the load assignment's names. KB_ECONFIG after a report. */
int kb_dns_cluster_create(struct kb_cluster_entry *entry,
                          const Envoy__Config__Cluster__V3__Cluster *message,
                          const struct kb_dns_cluster_config *config,
                          struct kb_factory_context *factory, struct kb_diag *diag,
                          void **state) KB_MUST_USE;

/* For struct kb_cluster_type_ops. */
void kb_dns_cluster_start(void *state);
void kb_dns_cluster_destroy(void *state);
