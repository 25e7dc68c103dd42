/* SPDX-License-Identifier: Apache-2.0 */
/* The common part of the load balancers. Everything that depends on the hosts is made when they
 * change, schedulers when they are first used; a pick takes no memory. */
#include "proxy/upstream/lb_base.h"

#include <math.h>
#include <stdlib.h>

#include "envoy/extensions/load_balancing_policies/common/v3/common.pb-c.h"

#include "base/mem.h"
#include "proxy/api/runtime.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/cluster_manager.h"
#include "proxy/upstream/config_read.h"
#include "proxy/upstream/retry_priorities.h"

/* The generated names of the oneofs are too long for a line. */
#define LOCALITY(name) \
    ENVOY__EXTENSIONS__LOAD_BALANCING_POLICIES__COMMON__V3__LOCALITY_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_##name

typedef Envoy__Extensions__LoadBalancingPolicies__Common__V3__LocalityLbConfig__ZoneAwareLbConfig
    ZoneAwareLbConfig;

/* LocalityLbConfig.ZoneAwareLbConfig.LocalityBasis, whose generated names are longer than a line.
 */
enum { LOCALITY_BASIS_HEALTHY_HOSTS_WEIGHT = 1 };

enum { SOURCE_ALL, SOURCE_HEALTHY, SOURCE_DEGRADED, SOURCE_LOCALITIES };

struct weight_arg {
    const struct kb_lb_base *base;
    const struct kb_host_list *list;
};

/* ---- slow start ---- */

static uint64_t now_ms_of(const struct kb_lb_base *base)
{
    return kb_loop_now_ms(&base->lb.local->worker->loop);
}

/* For how long the host has been healthy. */
static uint64_t healthy_for_ms(const struct kb_host *host, uint64_t now_ms)
{
    uint32_t since_ms = __atomic_load_n(&host->healthy_since_ms, __ATOMIC_RELAXED);

    return since_ms <= 1 ? UINT64_MAX : (uint32_t)now_ms - since_ms;
}

/* Until when the newest of the healthy hosts is new. */
static void slow_start_find(struct kb_lb_base *base)
{
    const struct kb_priority_set *set = base->lb.set;
    uint64_t window_ms = base->config->slow_start.window_ms, now_ms = now_ms_of(base);

    base->slow_until_ms = 0;
    for (uint32_t p = 0; window_ms > 0 && p < set->count; p++) {
        for (uint32_t i = 0; i < set->sets[p].healthy.count; i++) {
            uint64_t for_ms = healthy_for_ms(set->sets[p].healthy.hosts[i], now_ms);

            if (for_ms < window_ms) {
                base->slow_until_ms = KB_MAX(base->slow_until_ms, now_ms + window_ms - for_ms);
            }
        }
    }
}

const struct kb_runtime *kb_lb_base_runtime(const struct kb_lb_base *base)
{
    const struct kb_cluster_impl *cluster = kb_cluster_impl_of(base->lb.local->cluster);

    return kb_cluster_manager_server(cluster->manager)->runtime;
}

/* The share of its weight that a host gets at this age. */
static KB_NOINLINE double slow_start_share(const struct kb_lb_base *base,
                                           const struct kb_host *host)
{
    const struct kb_lb_config *config = base->config;
    uint64_t now_ms = now_ms_of(base), for_ms = healthy_for_ms(host, now_ms);
    double share, aggression;

    if (now_ms > base->slow_until_ms || for_ms >= config->slow_start.window_ms) {
        return 1.0;
    }
    share = (double)KB_MAX(for_ms, 1) / (double)config->slow_start.window_ms;
    aggression = kb_runtime_get_double(kb_lb_base_runtime(base), config->slow_start.aggression_key,
                                       config->slow_start.aggression);
    if (aggression > 0 && aggression != 1.0) {
        share = pow(share, 1.0 / aggression);
    }
    return fmax(share, config->slow_start.min_weight);
}

static double host_weight(void *arg, uint32_t index)
{
    const struct weight_arg *weight = arg;
    const struct kb_host *host = weight->list->hosts[index];
    double value = weight->base->picks->weight(weight->base, host);

    return KB_LIKELY(weight->base->slow_until_ms == 0)
               ? value
               : value * slow_start_share(weight->base, host);
}

/* ---- sources ---- */

static double locality_weight(void *arg, uint32_t index)
{
    return ((const double *)arg)[index];
}

static uint64_t random_next(struct kb_lb_base *base)
{
    return kb_rand_u64(&base->lb.local->worker->rand);
}

static void source_set(struct kb_lb_base *base, struct kb_lb_source *source,
                       const struct kb_host_list *list, uint64_t next)
{
    source->list = list;
    source->next = next;
    source->weighted = base->picks->weight != NULL && list->count > 1 &&
                       (base->slow_until_ms != 0 || kb_host_list_weights_differ(list));
}

/* Where picking stood in the same list before the hosts changed. */
static uint64_t next_before(const struct kb_lb_base *base, const struct kb_lb_base *before,
                            uint32_t priority, uint32_t offset)
{
    uint32_t end;

    if (before == NULL || priority >= before->priority_count) {
        return base->seed;
    }
    end = priority + 1 < before->priority_count ? before->priorities[priority + 1].first
                                                : before->source_count;
    return before->priorities[priority].first + offset < end
               ? before->sources[before->priorities[priority].first + offset].next
               : base->seed;
}

static void sources_make(struct kb_lb_base *base, const struct kb_lb_base *before)
{
    const struct kb_priority_set *set = base->lb.set;
    uint32_t at = 0;

    slow_start_find(base);
    base->priority_count = set->count;
    base->source_count = 0;
    for (uint32_t p = 0; p < set->count; p++) {
        base->source_count += SOURCE_LOCALITIES + 2 * set->sets[p].locality_count;
    }
    base->sources = kb_calloc(base->source_count, sizeof(base->sources[0]));
    base->priorities = kb_calloc(set->count, sizeof(base->priorities[0]));
    for (uint32_t p = 0; p < set->count; p++) {
        const struct kb_host_set *hosts = &set->sets[p];
        uint32_t first = at;

        base->priorities[p].first = first;
        source_set(base, &base->sources[at++], &hosts->all,
                   next_before(base, before, p, SOURCE_ALL));
        source_set(base, &base->sources[at++], &hosts->healthy,
                   next_before(base, before, p, SOURCE_HEALTHY));
        source_set(base, &base->sources[at++], &hosts->degraded,
                   next_before(base, before, p, SOURCE_DEGRADED));
        for (uint32_t i = 0; i < hosts->locality_count; i++, at++) {
            source_set(base, &base->sources[at], &hosts->localities[i].healthy,
                       next_before(base, before, p, at - first));
        }
        for (uint32_t i = 0; i < hosts->locality_count; i++, at++) {
            source_set(base, &base->sources[at], &hosts->localities[i].degraded,
                       next_before(base, before, p, at - first));
        }
    }
    kb_lb_zone_update(&base->zone, &base->lb, base->config);
    base->direct = set->sets[0].healthy_load == 100 && !set->sets[0].panic &&
                   !base->config->locality_weighted && base->zone.slot == UINT32_MAX;
}

static void localities_dispose(struct kb_lb_localities *localities)
{
    kb_edf_destroy(localities->edf);
    free(localities->weights);
}

static void sources_dispose(struct kb_lb_base *base)
{
    for (uint32_t i = 0; i < base->source_count; i++) {
        kb_edf_destroy(base->sources[i].edf);
    }
    for (uint32_t p = 0; p < base->priority_count; p++) {
        localities_dispose(&base->priorities[p].healthy);
        localities_dispose(&base->priorities[p].degraded);
    }
    free(base->sources);
    free(base->priorities);
}

void kb_lb_base_init(struct kb_lb_base *base, const struct kb_lb_ops *ops,
                     const struct kb_lb_picks *picks, struct kb_cluster_local *local,
                     const struct kb_lb_config *config, const struct kb_priority_set *set,
                     uint64_t seed)
{
    KB_OBJ_SET(&base->lb, kb_lb);
    base->lb.ops = ops;
    base->lb.local = local;
    base->lb.set = set;
    base->config = config;
    base->picks = picks;
    base->seed = seed;
    sources_make(base, NULL);
}

void kb_lb_base_dispose(struct kb_lb_base *base)
{
    kb_lb_zone_dispose(&base->zone);
    sources_dispose(base);
    KB_OBJ_CLEAR(&base->lb);
}

void kb_lb_base_hosts_changed(struct kb_lb *lb, const struct kb_priority_set *set)
{
    struct kb_lb_base *base = (struct kb_lb_base *)KB_CAST(lb, kb_lb);
    struct kb_lb_base before = *base;

    base->lb.set = set;
    sources_make(base, &before);
    sources_dispose(&before);
}

/* A locality counts by its weight, and less when hosts of it cannot be used (overprovisioned as
 * priorities are). */
static void localities_make(struct kb_lb_base *base, struct kb_lb_localities *localities,
                            const struct kb_host_set *hosts, bool degraded)
{
    double sum = 0;

    localities->made = true;
    localities->weights = kb_calloc(hosts->locality_count, sizeof(double));
    for (uint32_t i = 0; i < hosts->locality_count; i++) {
        const struct kb_host_locality *locality = &hosts->localities[i];
        uint32_t counted = locality->all.count - locality->excluded_count;
        uint32_t usable = degraded ? locality->degraded.count : locality->healthy.count;
        double share = counted == 0 ? 0 : (double)usable / counted;

        share = fmin(1.0, base->lb.set->overprovisioning_factor / 100.0 * share);
        localities->weights[i] = locality->weight * share;
        sum += localities->weights[i];
    }
    if (sum > 0) {
        localities->edf = kb_edf_create(hosts->locality_count, (uint32_t)base->seed,
                                        locality_weight, localities->weights);
    }
}

/* The locality to use, or -1 when localities have no weights. */
static int locality_pick(struct kb_lb_base *base, uint32_t priority, bool degraded)
{
    const struct kb_host_set *hosts = &base->lb.set->sets[priority];
    struct kb_lb_localities *localities =
        degraded ? &base->priorities[priority].degraded : &base->priorities[priority].healthy;

    if (KB_UNLIKELY(!localities->made)) {
        localities_make(base, localities, hosts, degraded);
    }
    return localities->edf == NULL
               ? -1
               : (int)kb_edf_pick(localities->edf, locality_weight, localities->weights);
}

/* The same with loads that are not those of the set. */
static KB_NOINLINE uint32_t priority_pick_by(const struct kb_priority_loads *loads, uint32_t count,
                                             uint32_t at, bool *degraded)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < 2 * count; i++) {
        *degraded = i >= count;
        sum += *degraded ? loads->degraded[i - count] : loads->healthy[i];
        if (at <= sum) {
            return *degraded ? i - count : i;
        }
    }
    *degraded = false;
    return 0;
}

uint32_t kb_lb_priority_pick(const struct kb_priority_set *set, const struct kb_lb_request *request,
                             uint64_t random, bool *degraded)
{
    uint32_t at = (uint32_t)(random % 100) + 1, sum = 0;

    if (request != NULL && KB_UNLIKELY(request->priorities != NULL)) {
        const struct kb_priority_loads *loads = kb_retry_priorities_loads(request->priorities, set);

        if (loads != NULL) {
            return priority_pick_by(loads, set->count, at, degraded);
        }
    }
    *degraded = false;
    for (uint32_t p = 0; p < set->count; p++) {
        sum += set->sets[p].healthy_load;
        if (at <= sum) {
            return p;
        }
    }
    *degraded = true;
    for (uint32_t p = 0; p < set->count; p++) {
        sum += set->sets[p].degraded_load;
        if (at <= sum) {
            return p;
        }
    }
    *degraded = false;
    return 0;
}

static struct kb_lb_source *source_pick(struct kb_lb_base *base,
                                        const struct kb_lb_request *request)
{
    const struct kb_priority_set *set = base->lb.set;
    const struct kb_host_set *hosts;
    struct kb_lb_source *sources;
    bool degraded;
    uint32_t p;
    int locality = -1;

    if (KB_LIKELY(base->direct) && (request == NULL || KB_LIKELY(request->priorities == NULL))) {
        return &base->sources[SOURCE_HEALTHY];
    }
    p = kb_lb_priority_pick(set, request, random_next(base), &degraded);
    hosts = &set->sets[p];
    sources = &base->sources[base->priorities[p].first];
    if (hosts->panic) {
        kb_stat_inc(base->lb.local->stats, KB_STAT_CLUSTER_LB_HEALTHY_PANIC);
        return base->config->fail_traffic_on_panic ? NULL : &sources[SOURCE_ALL];
    }
    if (base->config->locality_weighted && hosts->locality_count > 0) {
        locality = locality_pick(base, p, degraded);
    }
    if (locality < 0 && base->zone.slot != UINT32_MAX && p == 0) {
        locality = kb_lb_zone_pick(&base->zone, &base->lb, base->config);
        if (locality == KB_LB_ZONE_FAIL) {
            return NULL;
        }
    }
    if (locality >= 0) {
        return &sources[SOURCE_LOCALITIES + (degraded ? hosts->locality_count : 0) +
                        (uint32_t)locality];
    }
    return &sources[degraded ? SOURCE_DEGRADED : SOURCE_HEALTHY];
}

static struct kb_host *host_pick(struct kb_lb_base *base, const struct kb_lb_request *request)
{
    struct kb_lb_source *source = source_pick(base, request);
    struct weight_arg arg;

    if (KB_UNLIKELY(source == NULL || source->list->count == 0)) {
        return NULL;
    }
    if (KB_LIKELY(!source->weighted)) {
        return base->picks->pick(base, source);
    }
    arg.base = base;
    arg.list = source->list;
    if (KB_UNLIKELY(source->edf == NULL)) {
        source->edf = kb_edf_create(source->list->count, (uint32_t)source->next, host_weight, &arg);
    }
    return source->list->hosts[kb_edf_pick(source->edf, host_weight, &arg)];
}

struct kb_host *kb_lb_base_choose_host(struct kb_lb *lb, const struct kb_lb_request *request)
{
    struct kb_lb_base *base = (struct kb_lb_base *)lb;
    uint32_t attempts =
        request == NULL || request->reject_host == NULL ? 1 : KB_MAX(request->max_attempts, 1);
    struct kb_host *host;

    KB_DASSERT(lb->kb_magic == (uint32_t)KB_MAGIC_kb_lb);
    do {
        host = host_pick(base, request);
        if (host == NULL || request == NULL || request->reject_host == NULL ||
            !request->reject_host(request->reject_arg, host)) {
            return host;
        }
    } while (--attempts > 0);
    return host;
}

static void zone_read(const ZoneAwareLbConfig *message, struct kb_lb_config *config)
{
    if (message->routing_enabled != NULL) {
        config->zone.routing_enabled = (uint32_t)(message->routing_enabled->value + 0.5);
    }
    if (message->min_cluster_size != NULL) {
        config->zone.min_cluster_size = message->min_cluster_size->value;
    }
    if (message->force_local_zone != NULL) {
        config->zone.force = true;
        config->zone.min_forced = message->force_local_zone->min_size == NULL
                                      ? 1
                                      : message->force_local_zone->min_size->value;
    }
    config->zone.by_weight = (int)message->locality_basis == LOCALITY_BASIS_HEALTHY_HOSTS_WEIGHT;
}

void kb_lb_config_read_locality(
    const struct Envoy__Extensions__LoadBalancingPolicies__Common__V3__LocalityLbConfig *message,
    struct kb_lb_config *config)
{
    config->zone.aware = true;
    config->zone.routing_enabled = 100;
    config->zone.min_cluster_size = 6;
    if (message == NULL) {
        return;
    }
    switch (message->locality_config_specifier_case) {
    case LOCALITY(ZONE_AWARE_LB_CONFIG):
        config->fail_traffic_on_panic = message->zone_aware_lb_config->fail_traffic_on_panic != 0;
        zone_read(message->zone_aware_lb_config, config);
        break;
    case LOCALITY(LOCALITY_WEIGHTED_LB_CONFIG):
        config->locality_weighted = true;
        break;
    case LOCALITY(_NOT_SET):
    default:
        break;
    }
}

struct kb_str kb_lb_runtime_key(const char *key)
{
    size_t len = strlen(key);
    char *copy;

    if (len == 0) {
        return KB_STR("");
    }
    copy = kb_malloc(len);
    memcpy(copy, key, len);
    return kb_str_make(copy, len);
}

void kb_lb_config_destroy(struct kb_lb_config *config)
{
    if (config->slow_start.aggression_key.len > 0) {
        free((void *)(uintptr_t)config->slow_start.aggression_key.p);
    }
    free(config);
}

void kb_lb_config_read_slow_start(
    const struct Envoy__Extensions__LoadBalancingPolicies__Common__V3__SlowStartConfig *message,
    struct kb_lb_config *config, struct kb_diag *diag)
{
    if (message == NULL) {
        return;
    }
    kb_diag_push(diag, "slow_start_config");
    config->slow_start.window_ms =
        kb_config_duration_ms(message->slow_start_window, "slow_start_window", 0, diag);
    kb_diag_pop(diag);
    config->slow_start.aggression = 1.0;
    if (message->aggression != NULL) {
        config->slow_start.aggression = message->aggression->default_value;
        config->slow_start.aggression_key = kb_lb_runtime_key(message->aggression->runtime_key);
    }
    config->slow_start.min_weight =
        message->min_weight_percent == NULL ? 0.1 : message->min_weight_percent->value / 100.0;
}
