/* SPDX-License-Identifier: Apache-2.0 */
/* LOGICAL_DNS clusters: one host for one name, with the first address of its answer; new
 * connections go to the newest one. */
#include "proxy/upstream/dns_cluster.h"

extern const struct kb_cluster_type_ops kb_cluster_type_logical_dns;

static int logical_dns_create(struct kb_cluster_entry *entry,
                              const Envoy__Config__Cluster__V3__Cluster *message, const void *typed,
                              struct kb_factory_context *factory, struct kb_diag *diag,
                              void **state)
{
    (void)typed;
    return kb_dns_cluster_create_from_cluster(entry, message, true, factory, diag, state);
}

const struct kb_cluster_type_ops kb_cluster_type_logical_dns = {
    .name = "envoy.cluster.logical_dns",
    .type_url = "",
    .hosts_have_names = true,
    .create = logical_dns_create,
    .start = kb_dns_cluster_start,
    .destroy = kb_dns_cluster_destroy,
};
