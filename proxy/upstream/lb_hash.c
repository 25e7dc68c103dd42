/* SPDX-License-Identifier: Apache-2.0 */
/* The common part of the consistent load balancers. A table for each priority hangs on the set of
 * hosts, so that workers share it; of two that make the same one at once the second is dropped. */
#include "proxy/upstream/lb_hash.h"

#include <math.h>
#include <stdlib.h>

#include "envoy/extensions/load_balancing_policies/common/v3/common.pb-c.h"

#include "base/mem.h"
#include "proto/pb.h"
#include "proxy/upstream/host.h"
#include "proxy/upstream/lb_base.h"

typedef Envoy__Extensions__LoadBalancingPolicies__Common__V3__ConsistentHashingLbConfig
    ConsistentHashingLbConfig;

struct kb_lb_hash {
    struct kb_lb lb; /* first */
    const struct kb_lb_hash_config *config;
    const struct kb_hash_table_ops *tables;
};

void kb_lb_hash_config_read(const ConsistentHashingLbConfig *message,
                            struct kb_lb_hash_config *config)
{
    if (message != NULL) {
        config->use_hostname = message->use_hostname_for_hashing != 0;
    }
}

/* ---- hosts and their weights ---- */

/* metadata.filter_metadata["envoy.lb"].hash_key, in the arena; empty when there is none. */
static struct kb_str metadata_key(const struct kb_host *host, struct kb_arena *arena)
{
    struct kb_str packed = kb_host_metadata(host);
    ProtobufCMessage *message;
    const Envoy__Config__Core__V3__Metadata *metadata;

    if (packed.len == 0 || kb_pb_unpack(&envoy__config__core__v3__metadata__descriptor, packed,
                                        arena, &message) != 0) {
        return KB_STR("");
    }
    metadata = (const Envoy__Config__Core__V3__Metadata *)(const void *)message;
    for (size_t i = 0; i < metadata->n_filter_metadata; i++) {
        const Google__Protobuf__Struct *value = metadata->filter_metadata[i]->value;

        for (size_t k = 0; value != NULL && k < value->n_fields &&
                           strcmp(metadata->filter_metadata[i]->key, "envoy.lb") == 0;
             k++) {
            const Google__Protobuf__Value *field = value->fields[k]->value;

            if (strcmp(value->fields[k]->key, "hash_key") == 0 && field != NULL &&
                field->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
                return kb_str_from_cstr(field->string_value);
            }
        }
    }
    return KB_STR("");
}

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
        added->key = metadata_key(host, arena);
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
    kb_arena_dispose(&arena);
    if (made != NULL && !__atomic_compare_exchange_n(place, &before, made, false, __ATOMIC_ACQ_REL,
                                                     __ATOMIC_ACQUIRE)) {
        lb->tables->destroy(made);
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
    free(lb);
}
