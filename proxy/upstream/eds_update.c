/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing an assignment with the hosts that are there. An address stands for a host: the first
 * endpoint with it counts, in all priorities. */
#include "proxy/upstream/eds_update.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"
#include "proxy/upstream/config_read.h"
#include "proxy/upstream/socket_match.h"

#define ADDRESS_HINT \
    ". Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'"
/* How far back an equal locality and metadata are looked for, to be shared. */
#define LIKE_DISTANCE 8

typedef Envoy__Config__Endpoint__V3__ClusterLoadAssignment ClusterLoadAssignment;
typedef Envoy__Config__Endpoint__V3__LocalityLbEndpoints LocalityLbEndpoints;

/* One assignment being applied. */
struct eds_apply {
    struct kb_cluster_entry *entry;
    uint32_t worker_count;
    struct kb_map known; /* address text -> present host */
    struct kb_map taken; /* address text -> host of the new assignment */
    struct kb_host **hosts;
    uint32_t count;
    uint32_t kept;
    uint32_t max_weight;
    bool changed;
};

/* ---- reading ---- */

static void endpoint_read(const LocalityLbEndpoints *locality, size_t at, struct kb_arena *arena,
                          struct kb_host_params *params, struct kb_diag *diag)
{
    const Envoy__Config__Endpoint__V3__LbEndpoint *endpoint = locality->lb_endpoints[at];

    kb_diag_push_index(diag, "lb_endpoints", at);
    kb_diag_push(diag, "endpoint");
    kb_lb_endpoint_read(locality, endpoint, arena, params, diag);
    kb_diag_push(diag, "address");
    if (kb_config_address(kb_lb_endpoint_address(endpoint), ADDRESS_HINT, &params->addr, diag) !=
        0) {
        params->addr.len = 0; /* reported */
    }
    kb_diag_pop(diag);
    kb_diag_pop(diag);
    kb_diag_pop(diag);
}

void kb_eds_read(const ClusterLoadAssignment *assignment, struct kb_arena *arena,
                 struct kb_host_params **params, size_t *count, struct kb_diag *diag)
{
    size_t n = 0, at = 0;

    for (size_t i = 0; i < assignment->n_endpoints; i++) {
        n += assignment->endpoints[i]->n_lb_endpoints;
    }
    *params = kb_arena_calloc(arena, (n + 1) * sizeof(**params));
    *count = n;
    (void)kb_drop_overload_read(assignment->policy, diag); /* for its errors */
    for (size_t i = 0; i < assignment->n_endpoints; i++) {
        const LocalityLbEndpoints *locality = assignment->endpoints[i];

        kb_diag_push_index(diag, "endpoints", i);
        if (locality->priority >= KB_PRIORITIES_MAX) {
            kb_diag_error(diag, "the priority %u is too large: at most %d", locality->priority,
                          KB_PRIORITIES_MAX - 1);
        }
        if (locality->lb_config_case ==
            ENVOY__CONFIG__ENDPOINT__V3__LOCALITY_LB_ENDPOINTS__LB_CONFIG_LEDS_CLUSTER_LOCALITY_CONFIG) {
            kb_diag_error(diag, "LEDS is not implemented yet");
        }
        for (size_t k = 0; k < locality->n_lb_endpoints; k++) {
            endpoint_read(locality, k, arena, &(*params)[at++], diag);
        }
        kb_diag_pop(diag);
    }
}

/* ---- comparing ---- */

static void known_fill(struct eds_apply *apply)
{
    const struct kb_priority_set *set = apply->entry->set;

    for (uint32_t p = 0; set != NULL && p < set->count; p++) {
        for (uint32_t i = 0; i < set->sets[p].all.count; i++) {
            struct kb_host *host = set->sets[p].all.hosts[i];

            (void)kb_map_put(&apply->known, kb_host_addr_text(host), host);
        }
    }
}

/* Sets what may change of a host that stays. */
static void host_update(struct eds_apply *apply, struct kb_host *host,
                        const struct kb_host_params *params)
{
    uint32_t flags = __atomic_load_n(&host->health_flags, __ATOMIC_RELAXED);
    uint32_t wanted =
        (flags & ~(uint32_t)KB_EDS_HEALTH_FLAGS) | (params->health_flags & KB_EDS_HEALTH_FLAGS);

    if (flags != wanted) {
        __atomic_fetch_and(&host->health_flags, wanted | ~(uint32_t)KB_EDS_HEALTH_FLAGS,
                           __ATOMIC_RELAXED);
        __atomic_fetch_or(&host->health_flags, wanted & KB_EDS_HEALTH_FLAGS, __ATOMIC_RELAXED);
        apply->changed = true;
    }
    if (host->weight != params->weight) {
        __atomic_store_n(&host->weight, params->weight, __ATOMIC_RELAXED);
        apply->changed = true;
    }
    __atomic_fetch_and(&host->health_flags, ~(uint32_t)KB_HOST_PENDING_REMOVAL, __ATOMIC_RELAXED);
    if (!kb_str_eq(kb_host_metadata(host), params->metadata)) {
        struct kb_shared_text *before = host->metadata;

        __atomic_store_n(&host->metadata, kb_shared_text_create(params->metadata),
                         __ATOMIC_RELEASE);
        kb_cluster_entry_retire(apply->entry, before);
        __atomic_store_n(&host->canary, params->canary, __ATOMIC_RELAXED);
        __atomic_store_n(&host->socket,
                         kb_socket_match_find(&apply->entry->cluster->api, params->metadata),
                         __ATOMIC_RELAXED);
        kb_cluster_entry_count_match(apply->entry, host); /* chosen again */
        apply->changed = true;
    }
    if (host->priority != params->priority) {
        __atomic_store_n(&host->priority, (uint8_t)params->priority, __ATOMIC_RELAXED);
        apply->changed = true;
    }
}

static const struct kb_host *like_find(const struct eds_apply *apply,
                                       const struct kb_host_params *params)
{
    uint32_t first = apply->count > LIKE_DISTANCE ? apply->count - LIKE_DISTANCE : 0;

    for (uint32_t i = apply->count; i > first; i--) {
        if (kb_str_eq(kb_host_metadata(apply->hosts[i - 1]), params->metadata) &&
            kb_host_same_locality(apply->hosts[i - 1], params)) {
            return apply->hosts[i - 1];
        }
    }
    return apply->count > 0 ? apply->hosts[apply->count - 1] : NULL;
}

/* A host in place of `before` (NULL: of none), whose health it has when it is checked likewise. */
static struct kb_host *host_make(struct eds_apply *apply, const struct kb_host *before,
                                 struct kb_host_params *params)
{
    struct kb_host *host;

    params->is_discovered = true;
    host = kb_host_create(apply->entry->cluster, params, apply->worker_count);
    if (before != NULL && apply->entry->health != NULL &&
        kb_host_same_check(before, &params->check)) {
        host->health_flags = (host->health_flags & ~(uint32_t)KB_HOST_ACTIVE_HC_FLAGS) |
                             (__atomic_load_n(&before->health_flags, __ATOMIC_RELAXED) &
                              (uint32_t)KB_HOST_ACTIVE_HC_FLAGS);
    }
    return host;
}

/* One endpoint; false when another one has its address already. */
static bool endpoint_apply(struct eds_apply *apply, const struct kb_host_params *params)
{
    char text[KB_ADDR_TEXT_MAX];
    struct kb_str address = kb_addr_text(&params->addr, text);
    struct kb_host *host;

    if (kb_map_get(&apply->taken, address) != NULL) {
        return false;
    }
    apply->max_weight = KB_MAX(apply->max_weight, params->weight);
    host = kb_map_get(&apply->known, address);
    if (host != NULL && kb_host_same_locality(host, params) &&
        kb_str_eq(kb_host_hostname(host), params->hostname) &&
        kb_host_same_check(host, &params->check)) {
        apply->kept++;
        host_update(apply, kb_host_ref(host), params);
    } else {
        struct kb_host_params wanted = *params;

        wanted.like = like_find(apply, params);
        host = host_make(apply, host, &wanted);
        apply->changed = true;
    }
    kb_cluster_entry_count_match(apply->entry, host);
    apply->hosts[apply->count++] = host;
    (void)kb_map_put(&apply->taken, kb_host_addr_text(host), host);
    return true;
}

static uint64_t locality_weights_hash(const ClusterLoadAssignment *assignment)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < assignment->n_endpoints; i++) {
        const LocalityLbEndpoints *locality = assignment->endpoints[i];
        char text[512];
        int len;

        if (locality->locality == NULL || locality->load_balancing_weight == NULL) {
            continue;
        }
        len = snprintf(text, sizeof(text), "%u|%u|%s|%s|%s", locality->priority,
                       locality->load_balancing_weight->value, locality->locality->region,
                       locality->locality->zone, locality->locality->sub_zone);
        sum += kb_map_hash(kb_str_make(text, KB_MIN((size_t)len, sizeof(text) - 1)));
    }
    return sum;
}

/* True when the policy of the assignment is another one. */
static bool policy_update(struct kb_priority_policy *policy,
                          const ClusterLoadAssignment *assignment)
{
    const Envoy__Config__Endpoint__V3__ClusterLoadAssignment__Policy *message = assignment->policy;
    struct kb_priority_policy before = *policy;

    policy->overprovisioning_factor = message == NULL || message->overprovisioning_factor == NULL
                                          ? KB_OVERPROVISIONING_DEFAULT
                                          : message->overprovisioning_factor->value;
    policy->weighted_priority_health = message != NULL && message->weighted_priority_health != 0;
    policy->drop_overload_ppm = kb_drop_overload_read(message, NULL);
    return before.drop_overload_ppm != policy->drop_overload_ppm ||
           before.overprovisioning_factor != policy->overprovisioning_factor ||
           before.weighted_priority_health != policy->weighted_priority_health;
}

static void groups_fill(struct eds_apply *apply, const ClusterLoadAssignment *assignment,
                        const struct kb_host_params *params, struct kb_host_group *groups)
{
    size_t at = 0;

    for (size_t i = 0; i < assignment->n_endpoints; i++) {
        const LocalityLbEndpoints *locality = assignment->endpoints[i];

        groups[i].priority = locality->priority;
        groups[i].locality_weight =
            locality->load_balancing_weight == NULL ? 0 : locality->load_balancing_weight->value;
        groups[i].hosts = apply->hosts + apply->count;
        for (size_t k = 0; k < locality->n_lb_endpoints; k++) {
            groups[i].count += endpoint_apply(apply, &params[at++]) ? 1 : 0;
        }
    }
}

/* Whether a host that is not named any more stays until its check fails. */
bool kb_host_outlives_discovery(const struct kb_cluster_entry *entry, const struct kb_host *host)
{
    uint32_t flags = __atomic_load_n(&host->health_flags, __ATOMIC_RELAXED);

    return entry->health != NULL && !entry->cluster->api.ignore_health_on_host_removal &&
           (flags & (KB_HOST_FAILED_ACTIVE_HC | KB_HOST_FAILED_EDS)) == 0;
}

static uint32_t locality_weight_of(const struct kb_host_group *groups, size_t count,
                                   const struct kb_host *host)
{
    for (size_t i = 0; i < count; i++) {
        if (groups[i].priority == host->priority && groups[i].count > 0 &&
            kb_host_same_locality_as(groups[i].hosts[0], host)) {
            return groups[i].locality_weight;
        }
    }
    return 0;
}

/* Adds those hosts that are not named any more and stay; returns the number of groups. */
static size_t hosts_keep(struct eds_apply *apply, struct kb_host_group *groups, size_t group_count)
{
    const struct kb_priority_set *set = apply->entry->set;
    size_t named = group_count;

    for (uint32_t p = 0; set != NULL && p < set->count; p++) {
        for (uint32_t i = 0; i < set->sets[p].all.count; i++) {
            struct kb_host *host = set->sets[p].all.hosts[i];

            if (kb_map_get(&apply->taken, kb_host_addr_text(host)) != NULL ||
                !kb_host_outlives_discovery(apply->entry, host)) {
                continue;
            }
            __atomic_fetch_or(&host->health_flags, KB_HOST_PENDING_REMOVAL, __ATOMIC_RELAXED);
            groups[group_count].priority = p;
            groups[group_count].locality_weight = locality_weight_of(groups, named, host);
            groups[group_count].hosts = apply->hosts + apply->count;
            groups[group_count++].count = 1;
            apply->hosts[apply->count++] = kb_host_ref(host);
            apply->max_weight = KB_MAX(apply->max_weight, kb_host_weight(host));
            apply->kept++;
        }
    }
    return group_count;
}

void kb_eds_apply(struct kb_eds_state *state, struct kb_cluster_entry *entry,
                  const ClusterLoadAssignment *assignment, const struct kb_host_params *params,
                  size_t count)
{
    size_t known = entry->set == NULL ? 0 : entry->set->host_count;
    size_t group_count = assignment->n_endpoints;
    struct eds_apply apply = {
        .entry = entry,
        .worker_count = entry->cluster->worker_count,
        .hosts = kb_calloc(count + known + 1, sizeof(struct kb_host *)),
        .max_weight = 1,
    };
    struct kb_host_group *groups = kb_calloc(group_count + known + 1, sizeof(groups[0]));
    uint64_t weights = locality_weights_hash(assignment);
    bool first = entry->set == NULL;

    kb_map_init(&apply.known);
    kb_map_init(&apply.taken);
    known_fill(&apply);
    apply.changed = policy_update(&entry->cluster->policy, assignment) ||
                    weights != state->locality_weights || first;
    groups_fill(&apply, assignment, params, groups);
    group_count = hosts_keep(&apply, groups, group_count);
    state->locality_weights = weights;
    entry->counts.max_host_weight = apply.max_weight;
    if (apply.changed || apply.kept != entry->set->host_count) {
        kb_cluster_entry_set_hosts(entry, groups, group_count);
    } else {
        entry->counts.update_no_rebuild++;
    }
    for (uint32_t i = 0; i < apply.count; i++) {
        kb_host_unref(apply.hosts[i]);
    }
    kb_map_dispose(&apply.known);
    kb_map_dispose(&apply.taken);
    free(apply.hosts);
    free(groups);
}
