/* SPDX-License-Identifier: Apache-2.0 */
/* The hosts of a cluster for the one that takes its place, when no assignment came for that one
 * (Envoy EdsResourcesCache, kept as hosts instead of messages). What is lost are weights of
 * localities that the cluster before did not use. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/upstream/eds_update.h"

static uint32_t locality_weight(const struct kb_host_set *set, const struct kb_host *host)
{
    for (uint32_t i = 0; i < set->locality_count; i++) {
        for (uint32_t k = 0; k < set->localities[i].all.count; k++) {
            if (set->localities[i].all.hosts[k] == host) {
                return set->localities[i].weight;
            }
        }
    }
    return 0;
}

static struct kb_host *host_again(struct kb_cluster_entry *entry, const struct kb_host *host,
                                  const struct kb_host *like)
{
    struct kb_host_params params = {
        .addr = kb_host_addr(host),
        .hostname = kb_host_hostname(host),
        .region = host->locality->region,
        .zone = host->locality->zone,
        .sub_zone = host->locality->sub_zone,
        .metadata = kb_host_metadata(host),
        .weight = kb_host_weight(host),
        .priority = host->priority,
        .health_flags =
            __atomic_load_n(&host->health_flags, __ATOMIC_RELAXED) & (uint32_t)KB_EDS_HEALTH_FLAGS,
        .canary = host->canary,
    };
    struct kb_host *made;

    if (host->check != NULL) {
        params.check = *host->check;
    }
    params.like = like != NULL && kb_host_same_locality(like, &params) ? like : NULL;
    made = kb_host_create(entry->cluster, &params, entry->cluster->worker_count);
    kb_cluster_entry_count_match(entry, made);
    return made;
}

/* The hosts of one priority, a group for each run of one locality; returns how many groups. */
static size_t groups_fill(struct kb_cluster_entry *entry, const struct kb_host_set *set,
                          uint32_t priority, struct kb_host_group *groups, struct kb_host **hosts)
{
    const struct kb_locality *locality = NULL;
    size_t count = 0;

    for (uint32_t i = 0; i < set->all.count; i++) {
        const struct kb_host *host = set->all.hosts[i];

        if (host->locality != locality) {
            locality = host->locality;
            groups[count].priority = priority;
            groups[count].locality_weight = locality_weight(set, host);
            groups[count++].hosts = hosts + i;
        }
        hosts[i] = host_again(entry, host, i > 0 ? hosts[i - 1] : NULL);
        groups[count - 1].count++;
    }
    return count;
}

static bool is_dropped(const struct kb_host *host)
{
    const uint32_t both = KB_HOST_FAILED_ACTIVE_HC | KB_HOST_PENDING_REMOVAL;

    return (__atomic_load_n(&host->health_flags, __ATOMIC_RELAXED) & both) == both;
}

/* The hosts of a priority that stay, each a group; returns how many. */
static size_t groups_keep(const struct kb_host_set *set, uint32_t priority,
                          struct kb_host_group *groups)
{
    size_t count = 0;

    for (uint32_t i = 0; i < set->all.count; i++) {
        if (!is_dropped(set->all.hosts[i])) {
            groups[count].priority = priority;
            groups[count].locality_weight = locality_weight(set, set->all.hosts[i]);
            groups[count].hosts = &set->all.hosts[i];
            groups[count++].count = 1;
        }
    }
    return count;
}

bool kb_eds_removed_drop(struct kb_cluster_entry *entry)
{
    const struct kb_priority_set *set = entry->set;
    struct kb_host_group *groups;
    size_t count = 0;

    if (set == NULL || !entry->type->drops_failed) {
        return false;
    }
    groups = kb_calloc((size_t)set->host_count + 1, sizeof(groups[0]));
    for (uint32_t p = 0; p < set->count; p++) {
        count += groups_keep(&set->sets[p], p, groups + count);
    }
    if (count < set->host_count) {
        kb_cluster_entry_set_hosts(entry, groups, count);
    }
    free(groups);
    return count < set->host_count;
}

void kb_eds_reuse(struct kb_eds_state *state, struct kb_cluster_entry *entry,
                  const struct kb_eds_state *before_state, const struct kb_cluster_entry *before)
{
    const struct kb_priority_set *set = before->set;
    struct kb_host **hosts = kb_calloc((size_t)set->host_count + 1, sizeof(struct kb_host *));
    struct kb_host_group *groups = kb_calloc((size_t)set->host_count + 1, sizeof(groups[0]));
    size_t group_count = 0;
    uint32_t at = 0;

    entry->cluster->policy.overprovisioning_factor =
        before->cluster->policy.overprovisioning_factor;
    entry->cluster->policy.weighted_priority_health =
        before->cluster->policy.weighted_priority_health;
    for (uint32_t p = 0; p < set->count; p++) {
        group_count += groups_fill(entry, &set->sets[p], p, groups + group_count, hosts + at);
        at += set->sets[p].all.count;
    }
    state->locality_weights = before_state->locality_weights;
    entry->counts.max_host_weight = before->counts.max_host_weight;
    kb_cluster_entry_set_hosts(entry, groups, group_count);
    for (uint32_t i = 0; i < at; i++) {
        kb_host_unref(hosts[i]);
    }
    free(hosts);
    free(groups);
}
