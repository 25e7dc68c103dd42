/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's view of the clusters. Between events the main thread's posts swap the hosts in; a
 * cluster that this worker never used costs it two pointers. */
#include "proxy/upstream/cluster_local.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/upstream/host.h"

static struct kb_cluster_view *view_of(struct kb_worker *worker)
{
    return KB_CAST(worker->slots[KB_SLOT_CLUSTERS], kb_cluster_view);
}

void kb_cluster_view_create(struct kb_worker *worker, struct kb_cluster_names *names,
                            const struct kb_overload_state *overload)
{
    struct kb_cluster_view *view = kb_calloc(1, sizeof(*view));

    KB_OBJ_SET(view, kb_cluster_view);
    view->worker = worker;
    view->names = names;
    view->overload = overload;
    kb_map_init(&view->slots);
    worker->slots[KB_SLOT_CLUSTERS] = view;
}

static KB_NOINLINE struct kb_cluster_local *local_create(struct kb_cluster_view *view,
                                                         struct kb_cluster_view_item *item)
{
    struct kb_cluster_impl *cluster = item->set->cluster;
    struct kb_cluster_local *local = kb_calloc(1, sizeof(*local));

    KB_OBJ_SET(local, kb_cluster_local);
    local->cluster = &cluster->api;
    local->worker = view->worker;
    local->overload = view->overload;
    local->stats = kb_stat_group_block(cluster->api.stats, view->worker->index);
    kb_cluster_impl_ref(cluster);
    __atomic_store_n(&cluster->locals[view->worker->index], local, __ATOMIC_RELEASE);
    local->drop_overload_ppm = item->set->drop_overload_ppm;
    local->lb = cluster->lb->create(local, cluster->lb_config, item->set);
    item->local = local;
    return local;
}

/* The cluster keeps the memory of `local` until it goes itself, because other workers may read its
 * counts. */
static void local_finish(struct kb_cluster_local *local)
{
    kb_cluster_impl_unref(kb_cluster_impl_of(local->cluster));
}

void kb_cluster_local_unref(struct kb_cluster_local *local)
{
    KB_ASSERT(local->streams > 0);
    if (--local->streams == 0 && local->removed) {
        local_finish(local);
    }
}

struct kb_cluster_local *kb_cluster_local_get(struct kb_worker *worker, uint32_t slot)
{
    struct kb_cluster_view *view = worker->slots[KB_SLOT_CLUSTERS];
    struct kb_cluster_view_item *item;

    KB_DASSERT(view->kb_magic == (uint32_t)KB_MAGIC_kb_cluster_view);
    if (KB_UNLIKELY(slot >= view->count)) {
        return NULL;
    }
    item = &view->items[slot];
    if (KB_LIKELY(item->local != NULL)) {
        return item->local;
    }
    return item->set == NULL ? NULL : local_create(view, item);
}

static uint32_t slot_lookup(struct kb_cluster_view *view, struct kb_str name)
{
    const struct kb_cluster_slot *slot;

    pthread_mutex_lock(&view->names->lock);
    slot = kb_map_get(&view->names->map, name);
    pthread_mutex_unlock(&view->names->lock);
    if (slot == NULL) {
        return UINT32_MAX;
    }
    kb_map_put(&view->slots, kb_str_make(slot->name, slot->name_len),
               (void *)((uintptr_t)slot->number + 1));
    return slot->number;
}

struct kb_cluster_local *kb_cluster_local_find(struct kb_worker *worker, struct kb_str name)
{
    struct kb_cluster_view *view = view_of(worker);
    uintptr_t known = (uintptr_t)kb_map_get(&view->slots, name);

    return kb_cluster_local_get(worker,
                                known != 0 ? (uint32_t)(known - 1) : slot_lookup(view, name));
}

struct kb_host *kb_cluster_local_choose_host(struct kb_cluster_local *local,
                                             const struct kb_lb_request *request)
{
    struct kb_lb *lb = local->lb;

    return KB_LIKELY(lb != NULL) ? lb->ops->choose_host(lb, request) : NULL;
}

static void hosts_notify_removed(const struct kb_priority_set *set, struct kb_worker *worker)
{
    for (uint32_t p = 0; p < set->count; p++) {
        for (uint32_t i = 0; i < set->sets[p].all.count; i++) {
            kb_host_notify_removed(set->sets[p].all.hosts[i], worker);
        }
    }
}

/* The cluster is gone from this view, or another one has its name now. */
static void local_remove(struct kb_cluster_local *local)
{
    local->lb->ops->destroy(local->lb);
    local->lb = NULL;
    local->removed = true;
    if (local->streams == 0) {
        local_finish(local);
    }
}

static void view_reserve(struct kb_cluster_view *view, uint32_t count)
{
    if (count > view->count) {
        count = KB_MAX(count, view->count * 2);
        view->items = kb_realloc(view->items, count * sizeof(view->items[0]));
        memset(view->items + view->count, 0, (count - view->count) * sizeof(view->items[0]));
        view->count = count;
    }
}

void kb_cluster_view_publish(struct kb_worker *worker, uint32_t number, struct kb_priority_set *set)
{
    struct kb_cluster_view *view = view_of(worker);
    struct kb_priority_set *old;
    struct kb_cluster_local *local;

    view_reserve(view, number + 1);
    old = view->items[number].set;
    local = view->items[number].local;
    view->items[number].set = set;
    if (old == NULL) {
        return;
    }
    if (local != NULL && set != NULL && set->cluster == old->cluster) {
        local->lb->ops->hosts_changed(local->lb, set);
        local->drop_overload_ppm = set->drop_overload_ppm;
        for (uint32_t i = 0; i < set->removed_count; i++) {
            kb_host_notify_removed(set->removed[i], worker);
        }
    } else if (local != NULL) {
        view->items[number].local = NULL;
        kb_cluster_local_ref(local); /* the pools may let go of it meanwhile */
        local_remove(local);
        hosts_notify_removed(old, worker);
        kb_cluster_local_unref(local);
    }
    kb_priority_set_unref(old);
}

void kb_cluster_view_forget(struct kb_worker *worker, const struct kb_cluster_slot *slot)
{
    struct kb_cluster_view *view = worker->slots[KB_SLOT_CLUSTERS];

    if (view != NULL) {
        (void)kb_map_remove(&view->slots, kb_str_make(slot->name, slot->name_len));
    }
}

void kb_cluster_view_clear(struct kb_worker *worker)
{
    struct kb_cluster_view *view = view_of(worker);

    for (uint32_t i = 0; i < view->count; i++) {
        kb_cluster_view_publish(worker, i, NULL);
    }
}

void kb_cluster_view_destroy(struct kb_worker *worker)
{
    struct kb_cluster_view *view = view_of(worker);

    kb_cluster_view_clear(worker);
    worker->slots[KB_SLOT_CLUSTERS] = NULL;
    kb_map_dispose(&view->slots);
    free(view->items);
    KB_OBJ_CLEAR(view);
    free(view);
}

struct kb_priority_set *kb_cluster_view_set(struct kb_worker *worker, uint32_t number)
{
    const struct kb_cluster_view *view = view_of(worker);

    return number < view->count ? view->items[number].set : NULL;
}

bool kb_cluster_membership(struct kb_worker *worker, uint32_t slot,
                           struct kb_cluster_membership *out)
{
    const struct kb_priority_set *set = kb_cluster_view_set(worker, slot);

    if (set == NULL) {
        return false;
    }
    out->total = set->host_count;
    out->healthy = set->healthy_count;
    out->degraded = set->degraded_count;
    return true;
}
