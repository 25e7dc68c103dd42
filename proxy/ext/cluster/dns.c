/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters with cluster_type envoy.extensions.clusters.dns.v3.DnsCluster: strict DNS, or logical
 * DNS with all_addresses_in_single_endpoint. */
#include "envoy/extensions/clusters/dns/v3/dns_cluster.pb-c.h"

#include "proxy/upstream/dns_cluster.h"

extern const struct kb_cluster_type_ops kb_cluster_type_dns;

static enum kb_dns_family
family_read(Envoy__Extensions__Clusters__Common__Dns__V3__DnsLookupFamily family)
{
    switch (family) {
    case ENVOY__EXTENSIONS__CLUSTERS__COMMON__DNS__V3__DNS_LOOKUP_FAMILY__V4_ONLY:
        return KB_DNS_V4_ONLY;
    case ENVOY__EXTENSIONS__CLUSTERS__COMMON__DNS__V3__DNS_LOOKUP_FAMILY__V6_ONLY:
        return KB_DNS_V6_ONLY;
    case ENVOY__EXTENSIONS__CLUSTERS__COMMON__DNS__V3__DNS_LOOKUP_FAMILY__V4_PREFERRED:
        return KB_DNS_V4_PREFERRED;
    case ENVOY__EXTENSIONS__CLUSTERS__COMMON__DNS__V3__DNS_LOOKUP_FAMILY__ALL:
        return KB_DNS_ALL;
    case ENVOY__EXTENSIONS__CLUSTERS__COMMON__DNS__V3__DNS_LOOKUP_FAMILY__UNSPECIFIED:
    case ENVOY__EXTENSIONS__CLUSTERS__COMMON__DNS__V3__DNS_LOOKUP_FAMILY__AUTO:
    default:
        return KB_DNS_AUTO;
    }
}

static int dns_create(struct kb_cluster_entry *entry,
                      const Envoy__Config__Cluster__V3__Cluster *message, const void *typed,
                      struct kb_factory_context *factory, struct kb_diag *diag, void **state)
{
    const Envoy__Extensions__Clusters__Dns__V3__DnsCluster *dns = typed;
    struct kb_dns_cluster_config config = {0};
    struct kb_addr servers[KB_DNS_SERVERS_MAX];
    struct kb_dns_options options = {.servers = servers};

    if (dns == NULL) {
        kb_diag_push(diag, "cluster_type");
        kb_diag_error(diag, "typed_config must be an envoy.extensions.clusters.dns.v3.DnsCluster");
        kb_diag_pop(diag);
        return KB_ECONFIG;
    }
    kb_diag_push(diag, "cluster_type");
    kb_diag_push(diag, "typed_config");
    kb_dns_cluster_read_rates(
        dns->dns_refresh_rate, dns->dns_jitter, dns->dns_failure_refresh_rate != NULL,
        dns->dns_failure_refresh_rate == NULL ? NULL : dns->dns_failure_refresh_rate->base_interval,
        dns->dns_failure_refresh_rate == NULL ? NULL : dns->dns_failure_refresh_rate->max_interval,
        &config, diag);
    config.family = family_read(dns->dns_lookup_family);
    config.respect_ttl = dns->respect_dns_ttl != 0;
    config.logical = dns->all_addresses_in_single_endpoint != 0;
    if (kb_cluster_dns_read_typed(dns->typed_dns_resolver_config, factory->arena, servers, &options,
                                  diag) == 0 &&
        kb_cluster_manager_dns(entry->manager,
                               dns->typed_dns_resolver_config != NULL ? &options : NULL,
                               &config.dns) != 0) {
        kb_diag_error(diag, "the DNS resolver cannot start");
    }
    kb_diag_pop(diag);
    kb_diag_pop(diag);
    return kb_dns_cluster_create(entry, message, &config, factory, diag, state);
}

const struct kb_cluster_type_ops kb_cluster_type_dns = {
    .name = "envoy.cluster.dns",
    .type_url = "envoy.extensions.clusters.dns.v3.DnsCluster",
    .hosts_have_names = true,
    .create = dns_create,
    .start = kb_dns_cluster_start,
    .destroy = kb_dns_cluster_destroy,
};
