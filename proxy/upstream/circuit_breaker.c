/* SPDX-License-Identifier: Apache-2.0 */
/* Circuit breakers: exact limits over per-worker counts. "Exact" as in Envoy: two workers that take
 * the last one in the same instant may both get it. */
#include "proxy/upstream/circuit_breaker.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/stat_store.h"

typedef Envoy__Config__Cluster__V3__CircuitBreakers__Thresholds Thresholds;

static const uint16_t open_ids[KB_PRIORITY_COUNT][KB_RESOURCE_COUNT] = {
    [KB_PRIORITY_DEFAULT] =
        {
            [KB_RESOURCE_CONNECTIONS] = KB_STAT_CLUSTER_CIRCUIT_BREAKERS_DEFAULT_CX_OPEN,
            [KB_RESOURCE_PENDING] = KB_STAT_CLUSTER_CIRCUIT_BREAKERS_DEFAULT_RQ_PENDING_OPEN,
            [KB_RESOURCE_REQUESTS] = KB_STAT_CLUSTER_CIRCUIT_BREAKERS_DEFAULT_RQ_OPEN,
            [KB_RESOURCE_RETRIES] = KB_STAT_CLUSTER_CIRCUIT_BREAKERS_DEFAULT_RQ_RETRY_OPEN,
        },
    [KB_PRIORITY_HIGH] =
        {
            [KB_RESOURCE_CONNECTIONS] = KB_STAT_CLUSTER_CIRCUIT_BREAKERS_HIGH_CX_OPEN,
            [KB_RESOURCE_PENDING] = KB_STAT_CLUSTER_CIRCUIT_BREAKERS_HIGH_RQ_PENDING_OPEN,
            [KB_RESOURCE_REQUESTS] = KB_STAT_CLUSTER_CIRCUIT_BREAKERS_HIGH_RQ_OPEN,
            [KB_RESOURCE_RETRIES] = KB_STAT_CLUSTER_CIRCUIT_BREAKERS_HIGH_RQ_RETRY_OPEN,
        },
};

static uint32_t limit_configured(const struct kb_circuit_limits *limits,
                                 enum kb_circuit_resource resource)
{
    switch (resource) {
    case KB_RESOURCE_CONNECTIONS:
        return limits->connections;
    case KB_RESOURCE_PENDING:
        return limits->pending;
    case KB_RESOURCE_REQUESTS:
        return limits->requests;
    case KB_RESOURCE_RETRIES:
        return limits->retries;
    case KB_RESOURCE_COUNT:
    default:
        return 0;
    }
}

uint64_t kb_resource_used(const struct kb_cluster_impl *cluster, enum kb_priority priority,
                          enum kb_circuit_resource resource)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i <= cluster->worker_count; i++) {
        const struct kb_cluster_local *local =
            __atomic_load_n(&cluster->locals[i], __ATOMIC_ACQUIRE);

        if (local != NULL) {
            sum += __atomic_load_n(&local->used[priority][resource], __ATOMIC_RELAXED);
        }
    }
    return sum;
}

uint64_t kb_resource_max(const struct kb_cluster_impl *cluster, enum kb_priority priority,
                         enum kb_circuit_resource resource)
{
    const struct kb_circuit_limits *limits = &cluster->api.limits[priority];
    uint64_t active;

    if (resource != KB_RESOURCE_RETRIES || !limits->has_retry_budget) {
        return limit_configured(limits, resource);
    }
    active = kb_resource_used(cluster, priority, KB_RESOURCE_REQUESTS) +
             kb_resource_used(cluster, priority, KB_RESOURCE_PENDING);
    return KB_MAX((uint64_t)(limits->retry_budget_percent / 100.0 * (double)active),
                  limits->retry_budget_min);
}

/* Whether no worker uses its share: then the sum is below the limit, whatever the others' counts
 * are. */
static bool all_below_share(const struct kb_cluster_impl *cluster,
                            const struct kb_cluster_local *local, enum kb_priority priority,
                            enum kb_circuit_resource resource)
{
    return local->used[priority][resource] < cluster->share[priority][resource] &&
           __atomic_load_n(&cluster->shared[priority][resource].over, __ATOMIC_RELAXED) == 0;
}

bool kb_resource_can(struct kb_cluster_local *local, enum kb_priority priority,
                     enum kb_circuit_resource resource)
{
    const struct kb_cluster_impl *cluster = kb_cluster_impl_of(local->cluster);

    return KB_LIKELY(all_below_share(cluster, local, priority, resource)) ||
           kb_resource_used(cluster, priority, resource) <
               kb_resource_max(cluster, priority, resource);
}

void kb_resource_force(struct kb_cluster_local *local, enum kb_priority priority,
                       enum kb_circuit_resource resource)
{
    struct kb_cluster_impl *cluster = kb_cluster_impl_of(local->cluster);
    uint32_t used = local->used[priority][resource] + 1;

    __atomic_store_n(&local->used[priority][resource], used, __ATOMIC_RELAXED);
    local->stats->gauge_used[open_ids[priority][resource]] = 1;
    if (KB_UNLIKELY(used == cluster->share[priority][resource])) {
        __atomic_fetch_add(&cluster->shared[priority][resource].over, 1, __ATOMIC_RELAXED);
    }
}

bool kb_resource_take(struct kb_cluster_local *local, enum kb_priority priority,
                      enum kb_circuit_resource resource)
{
    if (!kb_resource_can(local, priority, resource)) {
        return false;
    }
    kb_resource_force(local, priority, resource);
    return true;
}

void kb_resource_give(struct kb_cluster_local *local, enum kb_priority priority,
                      enum kb_circuit_resource resource)
{
    struct kb_cluster_impl *cluster = kb_cluster_impl_of(local->cluster);
    uint32_t used = local->used[priority][resource];

    if (KB_BUG_IF(used == 0)) {
        return;
    }
    __atomic_store_n(&local->used[priority][resource], used - 1, __ATOMIC_RELAXED);
    if (KB_UNLIKELY(used == cluster->share[priority][resource])) {
        __atomic_fetch_sub(&cluster->shared[priority][resource].over, 1, __ATOMIC_RELAXED);
    }
}

void kb_resource_count_pool(struct kb_cluster_local *local, enum kb_priority priority, int n)
{
    unsigned id = priority == KB_PRIORITY_HIGH
                      ? KB_STAT_CLUSTER_CIRCUIT_BREAKERS_HIGH_CX_POOL_OPEN
                      : KB_STAT_CLUSTER_CIRCUIT_BREAKERS_DEFAULT_CX_POOL_OPEN;

    local->stats->gauge_used[id] = 1;
    __atomic_store_n(&local->pools[priority], local->pools[priority] + (uint32_t)n,
                     __ATOMIC_RELAXED);
}

/* Whether the resource was ever taken: Envoy sets the gauges then, not before. */
static bool was_used(const struct kb_cluster_impl *cluster, unsigned id)
{
    for (uint32_t i = 0; i <= cluster->worker_count; i++) {
        const struct kb_cluster_local *local =
            __atomic_load_n(&cluster->locals[i], __ATOMIC_ACQUIRE);

        if (local != NULL &&
            __atomic_load_n(&local->stats->gauge_used[id], __ATOMIC_RELAXED) != 0) {
            return true;
        }
    }
    return false;
}

bool kb_circuit_breakers_provide(const struct kb_cluster_impl *cluster, unsigned id,
                                 uint64_t *value)
{
    for (unsigned p = 0; p < KB_PRIORITY_COUNT; p++) {
        for (unsigned r = 0; r < KB_RESOURCE_COUNT; r++) {
            if (open_ids[p][r] == id) {
                *value = 1;
                /* Of retries it is max_retries that counts here, beside a budget too, as in Envoy.
                 */
                return was_used(cluster, id) &&
                       kb_resource_used(cluster, (enum kb_priority)p,
                                        (enum kb_circuit_resource)r) >=
                           limit_configured(&cluster->api.limits[p], (enum kb_circuit_resource)r);
            }
        }
    }
    return false;
}

static void limits_read(const Thresholds *message, struct kb_circuit_limits *limits)
{
    limits->connections =
        message->max_connections != NULL ? message->max_connections->value : limits->connections;
    limits->pending = message->max_pending_requests != NULL ? message->max_pending_requests->value
                                                            : limits->pending;
    limits->requests =
        message->max_requests != NULL ? message->max_requests->value : limits->requests;
    limits->retries = message->max_retries != NULL ? message->max_retries->value : limits->retries;
    limits->track_remaining = message->track_remaining != 0;
    if (message->retry_budget != NULL) {
        limits->has_retry_budget = true;
        if (message->retry_budget->budget_percent != NULL) {
            limits->retry_budget_percent = message->retry_budget->budget_percent->value;
        }
        if (message->retry_budget->min_retry_concurrency != NULL) {
            limits->retry_budget_min = message->retry_budget->min_retry_concurrency->value;
        }
    }
}

/* Of a host's limits there is but one. */
static void host_limits_check(const Envoy__Config__Cluster__V3__CircuitBreakers *message,
                              struct kb_diag *diag)
{
    kb_diag_push(diag, "circuit_breakers");
    for (size_t i = 0; message != NULL && i < message->n_per_host_thresholds; i++) {
        const Thresholds *limits = message->per_host_thresholds[i];

        if (limits->max_pending_requests != NULL || limits->max_requests != NULL ||
            limits->max_retries != NULL || limits->max_connection_pools != NULL ||
            limits->retry_budget != NULL) {
            kb_diag_push_index(diag, "per_host_thresholds", i);
            kb_diag_error(diag, "Unsupported field in per_host_thresholds: of a host's limits "
                                "there is max_connections alone");
            kb_diag_pop(diag);
        }
    }
    kb_diag_pop(diag);
}

static void host_limits_read(const Envoy__Config__Cluster__V3__CircuitBreakers *message,
                             unsigned priority, struct kb_circuit_limits *limits)
{
    for (size_t i = 0; message != NULL && i < message->n_per_host_thresholds; i++) {
        const Thresholds *of_host = message->per_host_thresholds[i];

        if ((unsigned)of_host->priority == priority) {
            if (of_host->max_connections != NULL) {
                limits->host_connections = of_host->max_connections->value;
            }
            return;
        }
    }
}

void kb_circuit_breakers_read(const Envoy__Config__Cluster__V3__CircuitBreakers *message,
                              struct kb_cluster_impl *cluster, struct kb_diag *diag)
{
    host_limits_check(message, diag);
    for (unsigned p = 0; p < KB_PRIORITY_COUNT; p++) {
        cluster->api.limits[p] = (struct kb_circuit_limits){.connections = 1024,
                                                            .pending = 1024,
                                                            .requests = 1024,
                                                            .retries = 3,
                                                            .host_connections = UINT32_MAX,
                                                            .retry_budget_percent = 20.0,
                                                            .retry_budget_min = 3};
        for (size_t i = 0; message != NULL && i < message->n_thresholds; i++) {
            if ((unsigned)message->thresholds[i]->priority == p) {
                limits_read(message->thresholds[i], &cluster->api.limits[p]);
                break;
            }
        }
        host_limits_read(message, p, &cluster->api.limits[p]);
    }
}

static uint64_t pools_used(const struct kb_cluster_impl *cluster, enum kb_priority priority)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i <= cluster->worker_count; i++) {
        const struct kb_cluster_local *local =
            __atomic_load_n(&cluster->locals[i], __ATOMIC_ACQUIRE);

        sum += local == NULL ? 0 : __atomic_load_n(&local->pools[priority], __ATOMIC_RELAXED);
    }
    return sum;
}

static uint64_t remaining_of(const struct kb_cluster_impl *cluster, enum kb_priority priority,
                             enum kb_circuit_resource resource)
{
    uint64_t max = limit_configured(&cluster->api.limits[priority], resource);
    uint64_t used = kb_resource_used(cluster, priority, resource);

    if (resource == KB_RESOURCE_RETRIES && cluster->api.limits[priority].has_retry_budget) {
        return 0; /* a budget has no fixed number that could remain */
    }
    return max > used ? max - used : 0;
}

static bool remaining_provide(const struct kb_cluster_impl *cluster, enum kb_priority priority,
                              unsigned id, uint64_t *value)
{
    static const enum kb_circuit_resource resources[] = {
        [KB_STAT_REMAINING_CX] = KB_RESOURCE_CONNECTIONS,
        [KB_STAT_REMAINING_PENDING] = KB_RESOURCE_PENDING,
        [KB_STAT_REMAINING_RETRIES] = KB_RESOURCE_RETRIES,
        [KB_STAT_REMAINING_RQ] = KB_RESOURCE_REQUESTS,
    };

    /* Pools have no limit: the largest number. */
    *value = id == KB_STAT_REMAINING_CX_POOLS ? UINT64_MAX - pools_used(cluster, priority)
                                              : remaining_of(cluster, priority, resources[id]);
    return true;
}

static bool remaining_provide_default(void *arg, unsigned id, uint64_t *value)
{
    return remaining_provide(arg, KB_PRIORITY_DEFAULT, id, value);
}

static bool remaining_provide_high(void *arg, unsigned id, uint64_t *value)
{
    return remaining_provide(arg, KB_PRIORITY_HIGH, id, value);
}

static void remaining_start(struct kb_cluster_impl *cluster, enum kb_priority priority,
                            struct kb_stat_store *store, struct kb_str stat_prefix)
{
    bool high = priority == KB_PRIORITY_HIGH;
    char *name = kb_malloc(stat_prefix.len + 64);
    int len = snprintf(name, stat_prefix.len + 64, "%.*scircuit_breakers.%s.",
                       KB_STR_ARG(stat_prefix), high ? "high" : "default");

    cluster->remaining[priority] =
        kb_stat_group_create(store, kb_str_make(name, (size_t)len), &kb_stat_schema_remaining);
    kb_stat_group_set_provider(cluster->remaining[priority],
                               high ? remaining_provide_high : remaining_provide_default, cluster);
    free(name);
}

void kb_circuit_breakers_start(struct kb_cluster_impl *cluster, struct kb_stat_store *store,
                               struct kb_str stat_prefix)
{
    for (unsigned p = 0; p < KB_PRIORITY_COUNT; p++) {
        for (unsigned r = 0; r < KB_RESOURCE_COUNT; r++) {
            cluster->share[p][r] =
                limit_configured(&cluster->api.limits[p], (enum kb_circuit_resource)r) /
                (cluster->worker_count + 1);
        }
        if (cluster->api.limits[p].has_retry_budget) {
            cluster->share[p][KB_RESOURCE_RETRIES] = 0;
        }
        if (cluster->api.limits[p].track_remaining) {
            remaining_start(cluster, (enum kb_priority)p, store, stat_prefix);
        }
    }
}

void kb_circuit_breakers_dispose(struct kb_cluster_impl *cluster)
{
    for (unsigned p = 0; p < KB_PRIORITY_COUNT; p++) {
        if (cluster->remaining[p] != NULL) {
            kb_stat_group_set_provider(cluster->remaining[p], NULL, cluster);
            kb_stat_group_destroy(cluster->remaining[p]);
        }
    }
}
