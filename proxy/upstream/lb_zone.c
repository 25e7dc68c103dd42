/* SPDX-License-Identifier: Apache-2.0 */
/* The shares are computed when hosts of the upstream or of the own cluster change; a pick draws a
 * random number or two. */
#include "proxy/upstream/lb_zone.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/api/runtime.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/cluster_local.h"
#include "proxy/upstream/cluster_manager.h"

#define ALL 10000

static const struct kb_locality *locality_of(const struct kb_host_locality *hosts)
{
    return hosts->all.hosts[0]->locality;
}

static bool same(const struct kb_locality *a, const struct kb_locality *b)
{
    return a == b || (kb_str_eq(a->region, b->region) && kb_str_eq(a->zone, b->zone) &&
                      kb_str_eq(a->sub_zone, b->sub_zone));
}

/* The locality of this process among them; UINT32_MAX: it is not there. */
static uint32_t own_find(const struct kb_host_set *hosts, const struct kb_server_context *server)
{
    const struct kb_locality own = {.region = server->node_region,
                                    .zone = server->node_zone,
                                    .sub_zone = server->node_sub_zone};

    if (own.region.len + own.zone.len + own.sub_zone.len == 0) {
        return UINT32_MAX;
    }
    for (uint32_t i = 0; i < hosts->locality_count; i++) {
        if (same(locality_of(&hosts->localities[i]), &own)) {
            return i;
        }
    }
    return UINT32_MAX;
}

static uint64_t weight_of(const struct kb_host_locality *locality, bool by_weight)
{
    uint64_t sum = 0;

    if (!by_weight) {
        return locality->healthy.count;
    }
    for (uint32_t i = 0; i < locality->healthy.count; i++) {
        sum += kb_host_weight(locality->healthy.hosts[i]);
    }
    return sum;
}

/* How much of the healthy hosts is in the locality that `like` is of; of 10,000. */
static uint64_t share_of(const struct kb_host_set *hosts, const struct kb_locality *like,
                         bool by_weight)
{
    uint64_t total = 0, there = 0;

    for (uint32_t i = 0; i < hosts->locality_count; i++) {
        uint64_t weight = weight_of(&hosts->localities[i], by_weight);

        total += weight;
        there = same(locality_of(&hosts->localities[i]), like) ? weight : there;
    }
    return total == 0 ? 0 : ALL * there / total;
}

/* What cannot be helped, and is counted. */
static bool is_off(const struct kb_lb_zone *zone, const struct kb_lb *lb,
                   const struct kb_lb_config *config)
{
    const struct kb_host_set *hosts = &lb->set->sets[0];
    const struct kb_host_set *own = zone->local_set == NULL ? NULL : &zone->local_set->sets[0];
    const struct kb_server_context *server =
        kb_cluster_manager_server(kb_cluster_impl_of(lb->local->cluster)->manager);

    if (own == NULL || hosts->locality_count < 2 ||
        (!config->zone.force && own->locality_count < 2)) {
        return true;
    }
    if (own_find(own, server) == UINT32_MAX) {
        kb_stat_inc(lb->local->stats, KB_STAT_CLUSTER_LB_LOCAL_CLUSTER_NOT_OK);
        return true;
    }
    if (hosts->healthy.count < kb_runtime_get_u64(server->runtime,
                                                  KB_STR("upstream.zone_routing.min_cluster_size"),
                                                  config->zone.min_cluster_size)) {
        kb_stat_inc(lb->local->stats, KB_STAT_CLUSTER_LB_ZONE_CLUSTER_TOO_SMALL);
        return true;
    }
    return false;
}

static void residual_compute(struct kb_lb_zone *zone, const struct kb_host_set *hosts,
                             bool by_weight)
{
    const struct kb_host_set *own = &zone->local_set->sets[0];
    uint64_t sum = 0;

    zone->residual = kb_calloc(hosts->locality_count, sizeof(zone->residual[0]));
    for (uint32_t i = 0; i < hosts->locality_count; i++) {
        const struct kb_host_locality *locality = &hosts->localities[i];
        uint64_t there = 0, callers = 0;

        if (i != zone->local && locality->healthy.count > 0) {
            there = share_of(hosts, locality_of(locality), by_weight);
            callers = share_of(own, locality_of(locality), by_weight);
        }
        sum += there > callers ? there - callers : 0;
        zone->residual[i] = sum;
    }
}

static void compute(struct kb_lb_zone *zone, const struct kb_lb *lb,
                    const struct kb_lb_config *config)
{
    const struct kb_host_set *hosts = &lb->set->sets[0];
    bool by_weight = config->zone.by_weight;
    uint64_t callers = 0, there = 0;

    free(zone->residual);
    zone->residual = NULL;
    zone->state = KB_LB_ZONE_OFF;
    kb_stat_inc(lb->local->stats, KB_STAT_CLUSTER_LB_RECALCULATE_ZONE_STRUCTURES);
    if (is_off(zone, lb, config)) {
        return;
    }
    zone->local =
        own_find(hosts, kb_cluster_manager_server(kb_cluster_impl_of(lb->local->cluster)->manager));
    if (zone->local != UINT32_MAX) {
        const struct kb_host_locality *locality = &hosts->localities[zone->local];

        there = share_of(hosts, locality_of(locality), by_weight);
        callers = share_of(&zone->local_set->sets[0], locality_of(locality), by_weight);
        if ((there > 0 && there >= callers) ||
            (config->zone.force && locality->healthy.count >= config->zone.min_forced)) {
            zone->state = KB_LB_ZONE_DIRECT;
            return;
        }
    }
    zone->state = KB_LB_ZONE_RESIDUAL;
    zone->stays = callers == 0 ? 0 : there * ALL / callers;
    residual_compute(zone, hosts, by_weight);
}

/* Looks at the own cluster again. */
static void local_take(struct kb_lb_zone *zone, struct kb_priority_set *set)
{
    if (set != NULL) {
        kb_priority_set_ref(set);
    }
    if (zone->local_set != NULL) {
        kb_priority_set_unref(zone->local_set);
    }
    zone->local_set = set;
}

void kb_lb_zone_update(struct kb_lb_zone *zone, const struct kb_lb *lb,
                       const struct kb_lb_config *config)
{
    const struct kb_cluster_impl *cluster = kb_cluster_impl_of(lb->local->cluster);

    zone->slot = config->zone.aware ? kb_cluster_manager_local_slot(cluster->manager) : UINT32_MAX;
    if (zone->slot != UINT32_MAX) {
        local_take(zone, kb_cluster_view_set(lb->local->worker, zone->slot));
        compute(zone, lb, config);
    }
}

void kb_lb_zone_dispose(struct kb_lb_zone *zone)
{
    if (zone->local_set != NULL) {
        kb_priority_set_unref(zone->local_set);
    }
    free(zone->residual);
}

static int residual_pick(const struct kb_lb_zone *zone, const struct kb_lb *lb, uint32_t count)
{
    struct kb_rand *rand = &lb->local->worker->rand;
    uint64_t at;
    uint32_t i = 0;

    if (kb_rand_u64(rand) % ALL < zone->stays) {
        kb_stat_inc(lb->local->stats, KB_STAT_CLUSTER_LB_ZONE_ROUTING_SAMPLED);
        return (int)zone->local;
    }
    kb_stat_inc(lb->local->stats, KB_STAT_CLUSTER_LB_ZONE_ROUTING_CROSS_ZONE);
    if (zone->residual[count - 1] == 0) {
        kb_stat_inc(lb->local->stats, KB_STAT_CLUSTER_LB_ZONE_NO_CAPACITY_LEFT);
        return (int)(kb_rand_u64(rand) % count);
    }
    at = kb_rand_u64(rand) % zone->residual[count - 1];
    while (at >= zone->residual[i]) {
        i++;
    }
    return (int)i;
}

int kb_lb_zone_pick(struct kb_lb_zone *zone, const struct kb_lb *lb,
                    const struct kb_lb_config *config)
{
    const struct kb_cluster_impl *cluster = kb_cluster_impl_of(lb->local->cluster);
    struct kb_priority_set *set = kb_cluster_view_set(lb->local->worker, zone->slot);

    if (KB_UNLIKELY(set != zone->local_set)) {
        local_take(zone, set);
        compute(zone, lb, config);
    }
    if (zone->state == KB_LB_ZONE_OFF ||
        kb_rand_u64(&lb->local->worker->rand) % 100 >= config->zone.routing_enabled) {
        return KB_LB_ZONE_ANY;
    }
    if (kb_host_set_panics(&zone->local_set->sets[0],
                           KB_MIN(100, cluster->policy.panic_threshold))) {
        kb_stat_inc(lb->local->stats, KB_STAT_CLUSTER_LB_LOCAL_CLUSTER_NOT_OK);
        return config->fail_traffic_on_panic ? KB_LB_ZONE_FAIL : KB_LB_ZONE_ANY;
    }
    if (zone->state == KB_LB_ZONE_DIRECT) {
        kb_stat_inc(lb->local->stats, KB_STAT_CLUSTER_LB_ZONE_ROUTING_ALL_DIRECTLY);
        return (int)zone->local;
    }
    return residual_pick(zone, lb, lb->set->sets[0].locality_count);
}
