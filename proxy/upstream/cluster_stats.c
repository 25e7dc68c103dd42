/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics of clusters that are computed when somebody looks, so that an idle cluster needs no
 * cells. */
#include "proxy/upstream/circuit_breaker.h"
#include "proxy/upstream/cluster_type.h"

void kb_cluster_entry_count_match(struct kb_cluster_entry *entry, const struct kb_host *host)
{
    kb_cluster_entry_count_socket(entry, host->socket);
}

void kb_cluster_entry_count_socket(struct kb_cluster_entry *entry, uint16_t socket)
{
    if (socket == 0) {
        entry->counts.match++;
    } else {
        kb_stat_named_add(entry->cluster->api.socket_matches[socket - 1].count,
                          entry->cluster->worker_count, 1);
    }
}

bool kb_cluster_entry_provide(void *arg, unsigned id, uint64_t *value)
{
    const struct kb_cluster_entry *entry = KB_CAST(arg, kb_cluster_entry);
    const struct kb_cluster_counts *counts = &entry->counts;
    const struct kb_priority_set *set = entry->set;

    *value = 0;
    switch (id) {
    case KB_STAT_CLUSTER_WARMING_STATE:
        *value = entry->initialized ? 0 : 1;
        return true;
    case KB_STAT_CLUSTER_MEMBERSHIP_TOTAL:
        *value = set == NULL ? 0 : set->host_count;
        return true;
    case KB_STAT_CLUSTER_MEMBERSHIP_HEALTHY:
        *value = set == NULL ? 0 : set->healthy_count;
        return true;
    case KB_STAT_CLUSTER_MEMBERSHIP_DEGRADED:
        *value = set == NULL ? 0 : set->degraded_count;
        return true;
    case KB_STAT_CLUSTER_MEMBERSHIP_EXCLUDED:
        *value = set == NULL ? 0 : set->excluded_count;
        return true;
    case KB_STAT_CLUSTER_MEMBERSHIP_CHANGE:
        *value = counts->membership_change;
        break;
    case KB_STAT_CLUSTER_MAX_HOST_WEIGHT:
        *value = counts->max_host_weight;
        break;
    case KB_STAT_CLUSTER_DEFAULT_TOTAL_MATCH_COUNT:
        *value = counts->match;
        break;
    case KB_STAT_CLUSTER_UPDATE_ATTEMPT:
        *value = counts->update_attempt;
        break;
    case KB_STAT_CLUSTER_UPDATE_SUCCESS:
        *value = counts->update_success;
        break;
    case KB_STAT_CLUSTER_UPDATE_FAILURE:
        *value = counts->update_failure;
        break;
    case KB_STAT_CLUSTER_UPDATE_NO_REBUILD:
        *value = counts->update_no_rebuild;
        break;
    case KB_STAT_CLUSTER_UPDATE_EMPTY:
        *value = counts->update_empty;
        break;
    case KB_STAT_CLUSTER_ASSIGNMENT_USE_CACHED:
        *value = counts->assignment_use_cached;
        break;
    case KB_STAT_CLUSTER_ASSIGNMENT_STALE:
        *value = counts->assignment_stale;
        break;
    case KB_STAT_CLUSTER_ASSIGNMENT_TIMEOUT_RECEIVED:
        *value = counts->assignment_timeout_received;
        break;
    default:
        return kb_circuit_breakers_provide(entry->cluster, id, value);
    }
    return *value != 0;
}
