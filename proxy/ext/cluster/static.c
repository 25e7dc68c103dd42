/* SPDX-License-Identifier: Apache-2.0 */
/* STATIC clusters: the hosts are in the configuration, by IP address or unix path. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/upstream/cluster_type.h"
#include "proxy/upstream/config_read.h"
#include "proxy/upstream/load_assignment.h"

#define ADDRESS_HINT \
    ". Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'"

extern const struct kb_cluster_type_ops kb_cluster_type_static;

typedef Envoy__Config__Endpoint__V3__LocalityLbEndpoints LocalityLbEndpoints;

/* A host of one endpoint, or NULL after a report. */
static struct kb_host *host_read(struct kb_cluster_entry *entry,
                                 const LocalityLbEndpoints *locality, size_t at,
                                 const struct kb_host *like, struct kb_factory_context *factory,
                                 struct kb_diag *diag)
{
    const Envoy__Config__Endpoint__V3__LbEndpoint *endpoint = locality->lb_endpoints[at];
    struct kb_host_params params;
    struct kb_host *host = NULL;

    kb_diag_push_index(diag, "lb_endpoints", at);
    kb_diag_push(diag, "endpoint");
    if (endpoint->host_identifier_case ==
            ENVOY__CONFIG__ENDPOINT__V3__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT &&
        endpoint->endpoint->n_additional_addresses > 0) {
        kb_diag_push(diag, "additional_addresses");
        kb_diag_error(diag, "additional addresses of an endpoint are not implemented yet");
        kb_diag_pop(diag);
    }
    kb_lb_endpoint_read(locality, endpoint, factory->arena, &params, diag);
    params.like = like;
    kb_diag_push(diag, "address");
    if (kb_config_address(kb_lb_endpoint_address(endpoint), ADDRESS_HINT, &params.addr, diag) ==
        0) {
        host = kb_host_create(entry->cluster, &params, factory->server->worker_count);
        kb_cluster_entry_count_match(entry, host);
    }
    kb_diag_pop(diag);
    kb_diag_pop(diag);
    kb_diag_pop(diag);
    return host;
}

static void group_read(struct kb_cluster_entry *entry, const LocalityLbEndpoints *locality,
                       struct kb_host_group *group, struct kb_factory_context *factory,
                       struct kb_diag *diag)
{
    group->priority = KB_MIN(locality->priority, KB_PRIORITIES_MAX - 1);
    group->locality_weight =
        locality->load_balancing_weight == NULL ? 0 : locality->load_balancing_weight->value;
    group->hosts = kb_calloc(locality->n_lb_endpoints + 1, sizeof(group->hosts[0]));
    for (size_t i = 0; i < locality->n_lb_endpoints; i++) {
        struct kb_host *host =
            host_read(entry, locality, i, group->count > 0 ? group->hosts[group->count - 1] : NULL,
                      factory, diag);

        if (host != NULL) {
            group->hosts[group->count++] = host;
        }
    }
    if (locality->lb_config_case ==
        ENVOY__CONFIG__ENDPOINT__V3__LOCALITY_LB_ENDPOINTS__LB_CONFIG_LEDS_CLUSTER_LOCALITY_CONFIG) {
        kb_diag_error(
            diag, "LEDS is only supported when EDS is used. Static cluster %.*s cannot use LEDS.",
            entry->cluster == NULL ? 0 : (int)entry->cluster->api.name.len,
            entry->cluster == NULL ? "" : entry->cluster->api.name.p);
    }
}

static int static_create(struct kb_cluster_entry *entry,
                         const Envoy__Config__Cluster__V3__Cluster *message, const void *typed,
                         struct kb_factory_context *factory, struct kb_diag *diag, void **state)
{
    const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *assignment = message->load_assignment;
    size_t n = assignment == NULL ? 0 : assignment->n_endpoints;
    struct kb_host_group *groups = kb_calloc(n + 1, sizeof(groups[0]));
    uint32_t errors = diag->error_count;

    (void)typed;
    kb_diag_push(diag, "load_assignment");
    for (size_t i = 0; i < n; i++) {
        kb_diag_push_index(diag, "endpoints", i);
        group_read(entry, assignment->endpoints[i], &groups[i], factory, diag);
        kb_diag_pop(diag);
    }
    kb_diag_pop(diag);
    if (diag->error_count == errors) {
        kb_cluster_entry_set_hosts(entry, groups, n);
    }
    for (size_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < groups[i].count; k++) {
            kb_host_unref(groups[i].hosts[k]);
        }
        free(groups[i].hosts);
    }
    free(groups);
    *state = entry;
    return diag->error_count == errors ? 0 : KB_ECONFIG;
}

static void static_start(void *state)
{
    kb_cluster_entry_initialized(KB_CAST(state, kb_cluster_entry));
}

static void static_destroy(void *state)
{
    (void)state; /* the entry itself */
}

const struct kb_cluster_type_ops kb_cluster_type_static = {
    .name = "envoy.cluster.static",
    .type_url = "",
    .create = static_create,
    .start = static_start,
    .destroy = static_destroy,
};
