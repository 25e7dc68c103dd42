/* SPDX-License-Identifier: Apache-2.0 */
/* How much of the load each priority gets, and when a priority panics: whole percents, with Envoy's
 * rounding, so that shares agree to the request (Envoy docs: load balancing, priority levels;
 * degraded endpoints; panic threshold). */
#include <string.h>

#include "proxy/upstream/priority_set.h"

struct availability {
    uint8_t healthy[KB_PRIORITIES_MAX]; /* percent, at most 100 */
    uint8_t degraded[KB_PRIORITIES_MAX];
    uint32_t total; /* of all priorities, at most 100 */
};

static uint64_t list_weight(const struct kb_host_list *list)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < list->count; i++) {
        sum += list->hosts[i]->weight;
    }
    return sum;
}

static uint64_t excluded_weight(const struct kb_host_set *hosts)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < hosts->all.count; i++) {
        sum += (hosts->all.hosts[i]->health_flags & KB_HOST_DRAINING_EDS) != 0
                   ? hosts->all.hosts[i]->weight
                   : 0;
    }
    return sum;
}

static void availability_compute(const struct kb_priority_set *set,
                                 const struct kb_priority_policy *policy, struct availability *out)
{
    uint64_t sum = 0;

    memset(out, 0, sizeof(*out));
    for (uint32_t p = 0; p < set->count; p++) {
        const struct kb_host_set *hosts = &set->sets[p];
        uint64_t total = hosts->all.count - hosts->excluded_count;
        uint64_t healthy = hosts->healthy.count, degraded = hosts->degraded.count;

        if (total == 0) {
            continue;
        }
        if (policy->weighted_priority_health) {
            total = list_weight(&hosts->all) - excluded_weight(hosts);
            healthy = list_weight(&hosts->healthy);
            degraded = list_weight(&hosts->degraded);
        }
        out->healthy[p] = (uint8_t)KB_MIN(100, policy->overprovisioning_factor * healthy / total);
        out->degraded[p] = (uint8_t)KB_MIN(100, policy->overprovisioning_factor * degraded / total);
        sum += (uint64_t)out->healthy[p] + out->degraded[p];
    }
    out->total = (uint32_t)KB_MIN(100, sum);
}

/* Gives `load` to the priorities in order; returns what is left. *first is the first that can take
 * any, or -1. */
static uint32_t load_distribute(uint32_t load, const uint8_t *available, uint32_t total,
                                uint32_t count, uint8_t *out, int *first)
{
    *first = -1;
    for (uint32_t p = 0; p < count; p++) {
        if (*first < 0 && available[p] > 0) {
            *first = (int)p;
        }
        out[p] = (uint8_t)KB_MIN(load, available[p] * 100U / total);
        load -= out[p];
    }
    return load;
}

static void loads_by_health(const struct availability *available, uint32_t count,
                            struct kb_priority_loads *loads)
{
    int first_healthy, first_degraded;
    uint32_t left;

    left = load_distribute(100, available->healthy, available->total, count, loads->healthy,
                           &first_healthy);
    left = load_distribute(left, available->degraded, available->total, count, loads->degraded,
                           &first_degraded);
    if (left > 0 && first_healthy >= 0) {
        loads->healthy[first_healthy] = (uint8_t)(loads->healthy[first_healthy] + left);
    } else if (left > 0 && first_degraded >= 0) {
        loads->degraded[first_degraded] = (uint8_t)(loads->degraded[first_degraded] + left);
    }
}

static void load_by_health(struct kb_priority_set *set, const struct availability *available)
{
    struct kb_priority_loads loads;

    loads_by_health(available, set->count, &loads);
    for (uint32_t p = 0; p < set->count; p++) {
        set->sets[p].healthy_load = loads.healthy[p];
        set->sets[p].degraded_load = loads.degraded[p];
    }
}

bool kb_priority_set_load_without(const struct kb_priority_set *set, const bool *excluded,
                                  struct kb_priority_loads *loads)
{
    struct availability available = {.total = 0};
    uint32_t sum = 0;

    for (uint32_t p = 0; p < set->count; p++) {
        available.healthy[p] = excluded[p] ? 0 : set->sets[p].healthy_percent;
        available.degraded[p] = excluded[p] ? 0 : set->sets[p].degraded_percent;
        sum += (uint32_t)available.healthy[p] + available.degraded[p];
    }
    if (sum == 0) {
        return false;
    }
    available.total = KB_MIN(100, sum);
    loads_by_health(&available, set->count, loads);
    return true;
}

/* All priorities panic: by the number of hosts, whatever their health. */
static void load_by_size(struct kb_priority_set *set)
{
    uint32_t left = 100;
    int first = -1;

    for (uint32_t p = 0; p < set->count; p++) {
        struct kb_host_set *hosts = &set->sets[p];

        hosts->degraded_load = 0;
        hosts->healthy_load = set->host_count == 0
                                  ? 0
                                  : (uint8_t)(100 * (uint64_t)hosts->all.count / set->host_count);
        left -= hosts->healthy_load;
        if (first < 0 && hosts->all.count > 0) {
            first = (int)p;
        }
    }
    first = KB_MAX(first, 0);
    set->sets[first].healthy_load = (uint8_t)(set->sets[first].healthy_load + left);
}

bool kb_host_set_panics(const struct kb_host_set *hosts, uint32_t threshold)
{
    uint32_t counted = hosts->all.count - hosts->excluded_count;
    double usable = counted == 0 ? 0
                                 : 100.0 * hosts->healthy.count / counted +
                                       100.0 * hosts->degraded.count / counted;

    return usable < threshold;
}

void kb_priority_set_compute_load(struct kb_priority_set *set,
                                  const struct kb_priority_policy *policy)
{
    struct availability available;
    uint32_t threshold = KB_MIN(100, policy->panic_threshold);
    bool all_panic = true;

    availability_compute(set, policy, &available);
    for (uint32_t p = 0; p < set->count; p++) {
        set->sets[p].healthy_percent = available.healthy[p];
        set->sets[p].degraded_percent = available.degraded[p];
    }
    if (available.total > 0) {
        load_by_health(set, &available);
    } else if (threshold == 0) {
        set->sets[0].healthy_load = 100; /* nobody there to take it, but it must go somewhere */
        return;
    }
    for (uint32_t p = 0; p < set->count; p++) {
        set->sets[p].panic = available.total != 100 && kb_host_set_panics(&set->sets[p], threshold);
        all_panic = all_panic && set->sets[p].panic;
    }
    if (all_panic) {
        load_by_size(set);
    }
}
