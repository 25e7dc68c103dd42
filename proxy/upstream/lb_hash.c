/* SPDX-License-Identifier: Apache-2.0 */
/* The common part of the consistent load balancers. A table for each priority hangs on the set of
 * hosts, so that workers share it; of two that make the same one at once the second is dropped. */
#include "proxy/upstream/lb_hash.h"

#include <math.h>
#include <stdlib.h>

#include "envoy/extensions/load_balancing_policies/common/v3/common.pb-c.h"

#include "base/mem.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/metadata_criteria.h"
#include "proxy/upstream/circuit_breaker.h"
#include "proxy/upstream/host.h"
#include "proxy/upstream/lb_base.h"

typedef Envoy__Extensions__LoadBalancingPolicies__Common__V3__ConsistentHashingLbConfig
    ConsistentHashingLbConfig;

struct kb_lb_hash {
    struct kb_lb lb; /* first */
    const struct kb_lb_hash_config *config;
    const struct kb_hash_table_ops *tables;
    uint32_t *order; /* room for the order in which overloaded hosts are passed over */
    uint32_t order_cap;
};

void kb_lb_hash_config_read(const ConsistentHashingLbConfig *message,
                            struct kb_lb_hash_config *config)
{
    if (message != NULL) {
        config->use_hostname = message->use_hostname_for_hashing != 0;
        config->balance_factor =
            message->hash_balance_factor == NULL ? 0 : message->hash_balance_factor->value;
    }
}

/* ---- hosts and their weights ---- */

static void hosts_add(struct kb_hash_hosts *out, const struct kb_host_list *list, double share,
                      bool use_hostname, struct kb_arena *arena)
{
    double sum = 0;

    for (uint32_t i = 0; i < list->count; i++) {
        sum += kb_host_weight(list->hosts[i]);
    }
    for (uint32_t i = 0; i < list->count; i++) {
        struct kb_host *host = list->hosts[i];
        struct kb_hash_host *added = &out->hosts[out->count++];

        added->host = host;
        added->key = kb_struct_get_text(
            kb_packed_metadata_get(kb_host_metadata(host), KB_STR(KB_METADATA_LB), arena),
            KB_STR("hash_key"));
        if (added->key.len == 0) {
            added->key = use_hostname ? kb_host_hostname(host) : kb_host_addr_text(host);
        }
        added->weight = kb_host_weight(host) * share / sum;
        out->min_weight = fmin(out->min_weight, added->weight);
        out->max_weight = fmax(out->max_weight, added->weight);
    }
}

static void hosts_fill(struct kb_hash_hosts *out, const struct kb_host_set *hosts,
                       const struct kb_lb_hash_config *config, struct kb_arena *arena)
{
    bool use_hostname = config->use_hostname;
    double sum = 0;

    *out = (struct kb_hash_hosts){.min_weight = 1.0};
    out->hosts = kb_arena_calloc(arena, (hosts->all.count + 1) * sizeof(out->hosts[0]));
    for (uint32_t i = 0; i < hosts->locality_count; i++) {
        sum += hosts->localities[i].weight;
    }
    if (hosts->locality_count == 0 || !config->head.locality_weighted) {
        hosts_add(out, hosts->panic ? &hosts->all : &hosts->healthy, 1.0, use_hostname, arena);
        return;
    }
    for (uint32_t i = 0; i < hosts->locality_count; i++) {
        const struct kb_host_locality *locality = &hosts->localities[i];

        if (locality->weight > 0) {
            hosts_add(out, hosts->panic ? &locality->all : &locality->healthy,
                      locality->weight / sum, use_hostname, arena);
        }
    }
}

/* ---- tables ---- */

static int share_cmp(const void *a, const void *b)
{
    const struct kb_hash_share *x = a, *y = b;

    return (uintptr_t)x->host<(uintptr_t)y->host ? -1 : (uintptr_t)x->host>(uintptr_t) y->host;
}

static void shares_make(struct kb_hash_table *table, const struct kb_hash_hosts *hosts)
{
    size_t size = hosts->count * sizeof(table->shares[0]);

    table->share_count = hosts->count;
    table->shares = kb_malloc(2 * size);
    table->by_host = table->shares + hosts->count;
    for (uint32_t i = 0; i < hosts->count; i++) {
        table->shares[i].host = hosts->hosts[i].host;
        table->shares[i].weight = hosts->hosts[i].weight;
    }
    memcpy(table->by_host, table->shares, size);
    qsort(table->by_host, hosts->count, sizeof(table->by_host[0]), share_cmp);
}

void kb_lb_hash_table_destroy(struct kb_hash_table *table, void (*destroy)(struct kb_hash_table *))
{
    free(table->shares);
    destroy(table);
}

/* The tables of a set: one place for each priority. */
static struct kb_hash_table **tables_of(struct kb_lb_hash *lb)
{
    struct kb_priority_set *set = (struct kb_priority_set *)(uintptr_t)lb->lb.set;
    struct kb_hash_table **tables = __atomic_load_n(&set->lb_tables, __ATOMIC_ACQUIRE), **made;

    if (tables != NULL) {
        return tables;
    }
    made = kb_calloc(set->count, sizeof(made[0]));
    if (!__atomic_compare_exchange_n(&set->lb_tables, &tables, made, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        free(made);
        return tables;
    }
    __atomic_store_n(&set->lb_table_destroy, lb->tables->destroy, __ATOMIC_RELEASE);
    return made;
}

/* The table of a priority, or NULL when it has no host to take. */
static KB_NOINLINE struct kb_hash_table *table_make(struct kb_lb_hash *lb, uint32_t priority,
                                                    struct kb_hash_table **place)
{
    struct kb_hash_table *made, *before = NULL;
    struct kb_hash_hosts hosts;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    hosts_fill(&hosts, &lb->lb.set->sets[priority], lb->config, &arena);
    made = hosts.count == 0 ? NULL : lb->tables->build(&lb->config->head, &hosts);
    if (made != NULL && lb->config->balance_factor > 0) {
        shares_make(made, &hosts);
    }
    kb_arena_dispose(&arena);
    if (made != NULL && !__atomic_compare_exchange_n(place, &before, made, false, __ATOMIC_ACQ_REL,
                                                     __ATOMIC_ACQUIRE)) {
        kb_lb_hash_table_destroy(made, lb->tables->destroy);
        made = before;
    }
    return made;
}

static const struct kb_hash_table *table_of(struct kb_lb_hash *lb, uint32_t priority)
{
    struct kb_hash_table **place = &tables_of(lb)[priority];
    struct kb_hash_table *table = __atomic_load_n(place, __ATOMIC_ACQUIRE);

    return KB_LIKELY(table != NULL) ? table : table_make(lb, priority, place);
}

/* ---- bounded loads (Mirrokni et al., "Consistent Hashing with Bounded Loads") ---- */

/* What the host has of what it may have at once: more than 1 is too much. */
static double load_of(const struct kb_lb_hash *lb, const struct kb_hash_share *share,
                      uint64_t active)
{
    uint64_t own = kb_host_stat_sum(share->host, KB_HOST_RQ_ACTIVE);
    uint64_t places = ((active + 1) * lb->config->balance_factor + 99) / 100;

    return (double)own / fmax(ceil((double)places * share->weight), 1.0);
}

/* MT19937 (Matsumoto and Nishimura), which needs to yield the same numbers everywhere: proxies
 * choose alike. */
struct twister {
    uint32_t words[624];
    uint32_t at;
};

static void twister_seed(struct twister *twister, uint32_t seed)
{
    twister->words[0] = seed;
    for (uint32_t i = 1; i < KB_ARRAY_LEN(twister->words); i++) {
        uint32_t before = twister->words[i - 1];

        twister->words[i] = 1812433253U * (before ^ (before >> 30)) + i;
    }
    twister->at = KB_ARRAY_LEN(twister->words);
}

static void twister_refill(struct twister *twister)
{
    uint32_t n = KB_ARRAY_LEN(twister->words), *words = twister->words;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t y = (words[i] & 0x80000000U) | (words[(i + 1) % n] & 0x7fffffffU);

        words[i] = words[(i + 397) % n] ^ (y >> 1) ^ ((y & 1) != 0 ? 0x9908b0dfU : 0);
    }
    twister->at = 0;
}

static uint32_t twister_next(struct twister *twister)
{
    uint32_t y;

    if (twister->at == KB_ARRAY_LEN(twister->words)) {
        twister_refill(twister);
    }
    y = twister->words[twister->at++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680U;
    y ^= (y << 15) & 0xefc60000U;
    return y ^ (y >> 18);
}

/* A number below `bound`, each as likely. */
static uint32_t twister_below(struct twister *twister, uint32_t bound)
{
    uint64_t width = ((uint64_t)UINT32_MAX + 1) / bound, x;

    do {
        x = twister_next(twister) / width;
    } while (x >= bound);
    return (uint32_t)x;
}

/* The others in an order that the hash gives: the first with room, or the one with the least load.
 */
static KB_NOINLINE struct kb_host *host_with_room(struct kb_lb_hash *lb,
                                                  const struct kb_hash_table *table,
                                                  struct kb_host *host, double load, uint64_t hash,
                                                  uint64_t active)
{
    struct kb_host *least = host;
    struct twister twister;

    if (lb->order_cap < table->share_count) {
        lb->order_cap = table->share_count;
        lb->order = kb_realloc(lb->order, lb->order_cap * sizeof(lb->order[0]));
    }
    for (uint32_t i = 0; i < table->share_count; i++) {
        lb->order[i] = i;
    }
    twister_seed(&twister, (uint32_t)hash);
    for (uint32_t i = 0; i < table->share_count; i++) {
        uint32_t j = i + twister_below(&twister, table->share_count - i), at = lb->order[j];
        double other;

        lb->order[j] = lb->order[i];
        if (table->shares[at].host == host) {
            continue;
        }
        other = load_of(lb, &table->shares[at], active);
        if (other <= 1.0) {
            return table->shares[at].host;
        }
        if (other < load) {
            load = other;
            least = table->shares[at].host;
        }
    }
    return least;
}

/* `host`, or another one when it has more than its share already. */
static KB_NOINLINE struct kb_host *host_bound(struct kb_lb_hash *lb,
                                              const struct kb_hash_table *table,
                                              struct kb_host *host, uint64_t hash)
{
    const struct kb_cluster_impl *cluster = kb_cluster_impl_of(lb->lb.local->cluster);
    struct kb_hash_share key = {.host = host};
    const struct kb_hash_share *share =
        bsearch(&key, table->by_host, table->share_count, sizeof(key), share_cmp);
    uint64_t active = 0;
    double load;

    for (unsigned p = 0; p < KB_PRIORITY_COUNT; p++) {
        active += kb_resource_used(cluster, (enum kb_priority)p, KB_RESOURCE_REQUESTS);
    }
    load = share == NULL ? 0 : load_of(lb, share, active);
    return load <= 1.0 ? host : host_with_room(lb, table, host, load, hash, active);
}

/* ---- struct kb_lb_ops ---- */

struct kb_lb *kb_lb_hash_create(struct kb_cluster_local *local, const struct kb_lb_config *config,
                                const struct kb_priority_set *set, const struct kb_lb_ops *ops,
                                const struct kb_hash_table_ops *tables)
{
    struct kb_lb_hash *lb = kb_calloc(1, sizeof(*lb));

    KB_OBJ_SET(&lb->lb, kb_lb);
    lb->lb.ops = ops;
    lb->lb.local = local;
    lb->lb.set = set;
    lb->config = (const struct kb_lb_hash_config *)config;
    lb->tables = tables;
    return &lb->lb;
}

void kb_lb_hash_hosts_changed(struct kb_lb *lb, const struct kb_priority_set *set)
{
    lb->set = set;
}

struct kb_host *kb_lb_hash_choose_host(struct kb_lb *base, const struct kb_lb_request *request)
{
    struct kb_lb_hash *lb = (struct kb_lb_hash *)base;
    uint32_t attempts =
        request == NULL || request->reject_host == NULL ? 1 : KB_MAX(request->max_attempts, 1);
    const struct kb_hash_table *table;
    struct kb_host *host = NULL;
    uint64_t hash;
    uint32_t priority;
    bool degraded;

    KB_DASSERT(base->kb_magic == (uint32_t)KB_MAGIC_kb_lb);
    if (request == NULL || request->hash == NULL || !request->hash(request->hash_arg, &hash)) {
        hash = kb_rand_u64(&base->local->worker->rand);
    }
    priority = kb_lb_priority_pick(base->set, NULL, hash, &degraded);
    if (KB_UNLIKELY(base->set->sets[priority].panic)) {
        kb_stat_inc(base->local->stats, KB_STAT_CLUSTER_LB_HEALTHY_PANIC);
    }
    table = table_of(lb, priority);
    for (uint32_t i = 0; table != NULL && i < attempts; i++) {
        host = lb->tables->pick(table, hash, i);
        if (KB_UNLIKELY(table->shares != NULL)) {
            host = host_bound(lb, table, host, hash);
        }
        if (request == NULL || request->reject_host == NULL ||
            !request->reject_host(request->reject_arg, host)) {
            break;
        }
    }
    return host;
}

void kb_lb_hash_destroy(struct kb_lb *base)
{
    struct kb_lb_hash *lb = (struct kb_lb_hash *)KB_CAST(base, kb_lb);

    KB_OBJ_CLEAR(base);
    free(lb->order);
    free(lb);
}
