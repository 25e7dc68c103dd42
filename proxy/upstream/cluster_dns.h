/* SPDX-License-Identifier: Apache-2.0 */
/* The resolvers of the clusters: one for each set of options that some cluster asks for, with their
 * statistics under "dns.cares.". Main thread. */
#pragma once

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "envoy/config/cluster/v3/cluster.pb-c.h"

#include "base/dns.h"
#include "base/vec.h"
#include "proxy/api/factory_context.h"

struct kb_cluster_resolver {
    struct kb_dns_options options; /* servers point to the array below */
    struct kb_addr servers[KB_DNS_SERVERS_MAX];
    struct kb_dns *dns;
};

struct kb_cluster_dns {
    struct kb_server_context *server;
    struct kb_stat_group *stats; /* NULL until there is a resolver */
    KB_VEC(struct kb_cluster_resolver *) resolvers;
    struct kb_cluster_resolver defaults; /* of the bootstrap; without a resolver of its own */
};

/* No resolver is made yet. `server` outlives it. */
void kb_cluster_dns_init(struct kb_cluster_dns *dns, struct kb_server_context *server);
/* Every lookup must have ended or been cancelled. */
void kb_cluster_dns_dispose(struct kb_cluster_dns *dns);

/* Takes over what the bootstrap says of the resolver. */
void kb_cluster_dns_configure(struct kb_cluster_dns *dns,
                              const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                              struct kb_diag *diag);

/* The resolver with these options; NULL: those of the bootstrap. KB_EIO when c-ares cannot start.
 */
int kb_cluster_dns_get(struct kb_cluster_dns *dns, const struct kb_dns_options *options,
                       struct kb_dns **out) KB_MUST_USE;

/* Reads typed_dns_resolver_config into options whose servers are the caller's array of
 * KB_DNS_SERVERS_MAX. NULL is allowed. KB_ECONFIG after a report. */
int kb_cluster_dns_read_typed(const Envoy__Config__Core__V3__TypedExtensionConfig *message,
                              struct kb_arena *arena, struct kb_addr *servers,
                              struct kb_dns_options *options, struct kb_diag *diag) KB_MUST_USE;
/* Whether the cluster says anything of its resolver. */
bool kb_cluster_dns_given(const Envoy__Config__Cluster__V3__Cluster *message);
/* Reads the older fields of a cluster too: dns_resolution_config, dns_resolvers,
 * use_tcp_for_dns_lookups. */
int kb_cluster_dns_read(const Envoy__Config__Cluster__V3__Cluster *message, struct kb_arena *arena,
                        struct kb_addr *servers, struct kb_dns_options *options,
                        struct kb_diag *diag) KB_MUST_USE;
