/* SPDX-License-Identifier: Apache-2.0 */
/* Subsets (envoy.load_balancing_policies.subset): a request goes to the hosts whose metadata is
 * what its route wants, or falls back; among them another policy picks. Which subset criteria lead
 * to is found once for each version of the hosts, by a hash that the criteria bring with them. */
#include "proxy/ext/lb/subset.h"

#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/header_map.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/cluster_manager.h"

#define REMEMBERED     64 /* criteria; a power of two */
#define KEY_BYTES      1024
#define KEYS_STEPS_MAX KB_SUBSET_KEYS_MAX /* each KEYS_SUBSET leaves fewer keys */

extern const struct kb_lb_ops kb_lb_subset;

enum decision_kind {
    DECISION_SELECTED, /* the subset that was asked for */
    DECISION_SUBSET,   /* the one that its selector's fallback names */
    DECISION_NONE,     /* its selector wants no other */
    DECISION_FALLBACK, /* what the cluster falls back to */
};

struct decision {
    enum decision_kind kind;
    uint32_t index;
};

struct remembered {
    uint64_t serial; /* 0: free */
    struct decision decision;
};

struct subset_lb {
    struct kb_lb lb; /* first */
    const struct kb_subset_config *config;
    const struct kb_subset_table *table;
    struct kb_lb **inner; /* by index of the table; NULL: not used yet */
    struct remembered remembered[REMEMBERED];
};

/* Some of the items of criteria. */
struct view {
    const struct kb_metadata_criteria *whole; /* NULL: `items` are not all */
    const struct kb_metadata_criterion *items[KB_SUBSET_KEYS_MAX];
    uint32_t count;
};

/* ---- main thread ---- */

static void subset_hosts_prepare(struct kb_cluster_impl *cluster, struct kb_priority_set *set,
                                 const struct kb_priority_set *before)
{
    const struct kb_subset_config *config = (const struct kb_subset_config *)cluster->lb_config;
    const struct kb_subset_table *old = before == NULL ? NULL : before->subsets;
    const struct kb_server_context *server = kb_cluster_manager_server(cluster->manager);
    struct kb_stat_block *stats = kb_stat_group_block(cluster->api.stats, server->main->index);
    uint64_t threads = (uint64_t)server->worker_count + 1; /* Envoy's balancers count, one each */
    uint64_t created = 0, removed = old == NULL ? 0 : old->selected_count;

    if (set != NULL) {
        struct kb_subset_rules rules = config->rules;

        rules.policy = &cluster->policy;
        set->subsets = kb_subset_table_create(&rules, set, old);
        set->has_subsets = true;
        created = set->subsets->created;
        removed = set->subsets->removed;
        kb_stat_named_set(config->duplicates, server->main->index, set->subsets->single_duplicates);
    }
    kb_stat_add(stats, KB_STAT_CLUSTER_LB_SUBSETS_CREATED, created * threads);
    kb_stat_add(stats, KB_STAT_CLUSTER_LB_SUBSETS_REMOVED, removed * threads);
    kb_stat_gauge_add(stats, KB_STAT_CLUSTER_LB_SUBSETS_ACTIVE,
                      (int64_t)(created * threads) - (int64_t)(removed * threads));
}

/* ---- from criteria to a subset ---- */

static void view_filter(const struct view *from, const struct kb_str *keys, uint32_t key_count,
                        struct view *out)
{
    uint32_t count = from->whole != NULL ? from->whole->count : from->count;

    out->whole = NULL;
    out->count = 0;
    for (uint32_t i = 0; i < count && out->count < KB_SUBSET_KEYS_MAX; i++) {
        const struct kb_metadata_criterion *item =
            from->whole != NULL ? &from->whole->items[i] : from->items[i];

        for (uint32_t k = 0; k < key_count; k++) {
            if (kb_str_eq(item->name, keys[k])) {
                out->items[out->count++] = item;
                break;
            }
        }
    }
}

/* The first selector of which all keys are there: only these count. */
static void redundant_remove(const struct kb_subset_config *config, struct view *view)
{
    for (uint32_t i = 0; i < config->rules.selector_count; i++) {
        const struct kb_subset_selector *selector = &config->rules.selectors[i];
        struct view filtered;

        view_filter(view, selector->keys, selector->key_count, &filtered);
        if (filtered.count == selector->key_count) {
            *view = filtered;
            return;
        }
    }
}

static uint32_t view_find(const struct kb_subset_table *table, const struct view *view)
{
    char small[KEY_BYTES], *bytes = small;
    size_t len = 0, at = 0;
    uint32_t index;

    if (view->whole != NULL) {
        return kb_subset_table_find(table, view->whole->key, view->whole->hash);
    }
    for (uint32_t i = 0; i < view->count; i++) {
        len += view->items[i]->bytes.len;
    }
    if (len > sizeof(small)) {
        bytes = kb_malloc(len);
    }
    for (uint32_t i = 0; i < view->count; i++) {
        memcpy(bytes + at, view->items[i]->bytes.p, view->items[i]->bytes.len);
        at += view->items[i]->bytes.len;
    }
    index =
        kb_subset_table_find(table, kb_str_make(bytes, len), kb_map_hash(kb_str_make(bytes, len)));
    if (bytes != small) {
        free(bytes);
    }
    return index;
}

static bool view_has_keys(const struct view *view, const struct kb_subset_selector *selector)
{
    uint32_t count = view->whole != NULL ? view->whole->count : view->count;

    if (count != selector->key_count || count == 0) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct kb_metadata_criterion *item =
            view->whole != NULL ? &view->whole->items[i] : view->items[i];

        if (!kb_str_eq(item->name, selector->keys[i])) {
            return false;
        }
    }
    return true;
}

/* What the selector of exactly these keys says, or NULL. */
static const struct kb_subset_selector_fallback *
selector_fallback(const struct kb_subset_config *config, const struct view *view)
{
    for (uint32_t i = 0; i < config->rules.selector_count; i++) {
        if (config->fallbacks[i].counts && view_has_keys(view, &config->rules.selectors[i])) {
            return &config->fallbacks[i];
        }
    }
    return NULL;
}

static struct decision decide(const struct subset_lb *lb,
                              const struct kb_metadata_criteria *criteria)
{
    const struct kb_subset_config *config = lb->config;
    struct view view = {.whole = criteria};

    for (uint32_t step = 0; step <= KEYS_STEPS_MAX; step++) {
        const struct kb_subset_selector_fallback *fallback;
        struct view filtered;
        uint32_t index;

        if (config->allow_redundant_keys) {
            redundant_remove(config, &view);
        }
        index = view_find(lb->table, &view);
        if (index != KB_SUBSET_NONE) {
            return (struct decision){DECISION_SELECTED, index};
        }
        fallback = selector_fallback(config, &view);
        if (fallback == NULL || fallback->policy == KB_SUBSET_FALLBACK_NOT_DEFINED) {
            break;
        }
        switch (fallback->policy) {
        case KB_SUBSET_FALLBACK_ANY:
            return (struct decision){DECISION_SUBSET, lb->table->any};
        case KB_SUBSET_FALLBACK_DEFAULT:
            return (struct decision){DECISION_SUBSET, lb->table->fallback};
        case KB_SUBSET_FALLBACK_KEYS:
            view_filter(&view, fallback->keys, fallback->key_count, &filtered);
            view = filtered;
            break;
        case KB_SUBSET_FALLBACK_NONE:
        case KB_SUBSET_FALLBACK_NOT_DEFINED:
        default:
            return (struct decision){DECISION_NONE, KB_SUBSET_NONE};
        }
    }
    return (struct decision){DECISION_FALLBACK, KB_SUBSET_NONE};
}

static struct decision decision_get(struct subset_lb *lb,
                                    const struct kb_metadata_criteria *criteria)
{
    struct remembered *place;

    if (criteria == NULL) {
        return (struct decision){DECISION_FALLBACK, KB_SUBSET_NONE};
    }
    if (criteria->serial == 0) {
        return decide(lb, criteria);
    }
    place = &lb->remembered[criteria->serial % REMEMBERED];
    if (KB_UNLIKELY(place->serial != criteria->serial)) {
        place->decision = decide(lb, criteria);
        place->serial = criteria->serial;
    }
    return place->decision;
}

/* ---- choosing ---- */

static struct kb_host *subset_choose(struct subset_lb *lb, uint32_t index,
                                     const struct kb_lb_request *request)
{
    const struct kb_subset *subset;
    struct kb_lb **inner;

    if (index == KB_SUBSET_NONE) {
        return NULL;
    }
    subset = &lb->table->subsets[index];
    if (subset->single != NULL) {
        return subset->single;
    }
    inner = &lb->inner[index];
    if (KB_UNLIKELY(*inner == NULL)) {
        *inner = lb->config->inner->create(lb->lb.local, lb->config->inner_config, subset->set);
    }
    return (*inner)->ops->choose_host(*inner, request);
}

/* What the cluster says for requests whose subset is not there. */
static struct kb_host *fallback_choose(struct subset_lb *lb, const struct kb_lb_request *request)
{
    struct kb_stat_block *stats = lb->lb.local->stats;
    struct kb_host *host;

    if (lb->config->fallback == KB_SUBSET_FALLBACK_NONE) {
        return NULL;
    }
    host = subset_choose(
        lb, lb->config->fallback == KB_SUBSET_FALLBACK_ANY ? lb->table->any : lb->table->fallback,
        request);
    if (host != NULL) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_LB_SUBSETS_FALLBACK);
    } else if (lb->config->panic_any) {
        host = subset_choose(lb, lb->table->any, request);
        if (host != NULL) {
            kb_stat_inc(stats, KB_STAT_CLUSTER_LB_SUBSETS_FALLBACK_PANIC);
        }
    }
    return host;
}

static struct kb_host *criteria_choose(struct subset_lb *lb,
                                       const struct kb_metadata_criteria *criteria,
                                       const struct kb_lb_request *request)
{
    struct decision decision = decision_get(lb, criteria);

    switch (decision.kind) {
    case DECISION_SELECTED:
        kb_stat_inc(lb->lb.local->stats, KB_STAT_CLUSTER_LB_SUBSETS_SELECTED);
        return subset_choose(lb, decision.index, request);
    case DECISION_SUBSET:
        return subset_choose(lb, decision.index, request);
    case DECISION_FALLBACK:
        return fallback_choose(lb, request);
    case DECISION_NONE:
    default:
        return NULL;
    }
}

/* What the route wants, and what filters say of this request over it. */
static const struct kb_metadata_criteria *criteria_of(const struct kb_lb_request *request,
                                                      struct kb_arena *arena)
{
    const struct kb_dynamic_metadata *metadata =
        request->info == NULL ? NULL : kb_stream_info_metadata(request->info);
    const Google__Protobuf__Struct *values;

    if (KB_LIKELY(metadata == NULL)) {
        return request->metadata;
    }
    values = kb_dynamic_metadata_get(metadata, KB_STR(KB_METADATA_LB));
    return values == NULL ? request->metadata
                          : kb_metadata_criteria_create(request->metadata, values, true, arena);
}

static struct kb_host *subset_choose_host(struct kb_lb *base, const struct kb_lb_request *request)
{
    struct subset_lb *lb = (struct subset_lb *)base;
    const struct kb_metadata_criteria *criteria;
    struct kb_host *host = NULL;
    struct kb_arena arena, *memory;

    KB_DASSERT(base->kb_magic == (uint32_t)KB_MAGIC_kb_lb);
    if (request == NULL) {
        return criteria_choose(lb, NULL, NULL);
    }
    kb_arena_init(&arena, NULL);
    memory = request->headers == NULL ? &arena : request->headers->arena;
    criteria = criteria_of(request, memory);
    if (KB_LIKELY(criteria == NULL || !lb->config->fallback_list || criteria->fallbacks == NULL)) {
        host = criteria_choose(lb, criteria, request);
    } else {
        for (uint32_t i = 0; host == NULL && i < criteria->fallback_count; i++) {
            host = criteria_choose(lb, &criteria->fallbacks[i], request);
        }
    }
    kb_arena_dispose(&arena);
    return host;
}

/* ---- struct kb_lb_ops ---- */

static struct kb_lb *subset_create(struct kb_cluster_local *local,
                                   const struct kb_lb_config *config,
                                   const struct kb_priority_set *set)
{
    struct subset_lb *lb = kb_calloc(1, sizeof(*lb));

    KB_OBJ_SET(&lb->lb, kb_lb);
    lb->lb.ops = &kb_lb_subset;
    lb->lb.local = local;
    lb->lb.set = set;
    lb->config = (const struct kb_subset_config *)config;
    lb->table = set->subsets;
    lb->inner = kb_calloc(lb->table->count + 1, sizeof(lb->inner[0]));
    return &lb->lb;
}

static void inner_destroy(struct kb_lb *inner)
{
    if (inner != NULL) {
        inner->ops->destroy(inner);
    }
}

/* The balancers of subsets that are still there go on. */
static void subset_hosts_changed(struct kb_lb *base, const struct kb_priority_set *set)
{
    struct subset_lb *lb = (struct subset_lb *)KB_CAST(base, kb_lb);
    const struct kb_subset_table *before = lb->table, *now = set->subsets;
    struct kb_lb **inner = kb_calloc(now->count + 1, sizeof(inner[0]));
    uint32_t at = 0;

    for (uint32_t i = 0; i < before->count; i++) {
        while (at < now->count && now->subsets[at].id < before->subsets[i].id) {
            at++;
        }
        if (lb->inner[i] != NULL && at < now->count &&
            now->subsets[at].id == before->subsets[i].id && now->subsets[at].set != NULL) {
            inner[at] = lb->inner[i];
            inner[at]->ops->hosts_changed(inner[at], now->subsets[at].set);
        } else {
            inner_destroy(lb->inner[i]);
        }
    }
    free(lb->inner);
    lb->inner = inner;
    lb->table = now;
    base->set = set;
    memset(lb->remembered, 0, sizeof(lb->remembered));
}

static void subset_destroy(struct kb_lb *base)
{
    struct subset_lb *lb = (struct subset_lb *)KB_CAST(base, kb_lb);

    for (uint32_t i = 0; i < lb->table->count; i++) {
        inner_destroy(lb->inner[i]);
    }
    free(lb->inner);
    KB_OBJ_CLEAR(base);
    free(lb);
}

const struct kb_lb_ops kb_lb_subset = {
    .name = "envoy.load_balancing_policies.subset",
    .type_url = "envoy.extensions.load_balancing_policies.subset.v3.Subset",
    .config_create = kb_subset_config_create,
    .config_destroy = kb_subset_config_destroy,
    .hosts_prepare = subset_hosts_prepare,
    .create = subset_create,
    .hosts_changed = subset_hosts_changed,
    .choose_host = subset_choose_host,
    .destroy = subset_destroy,
};
