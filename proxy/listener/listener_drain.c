/* SPDX-License-Identifier: Apache-2.0 */
/* Draining: of a listener that was removed or replaced, and of filter chains that an update has
 * taken away. While they drain, connections are asked to close when they answer
 * (proxy/api/drain.h); when the drain time is over, those that are left are closed. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/listener/listener_manager_internal.h"

/* Chains of one listener that drain together. */
struct drain_group {
    KB_OBJ;
    struct kb_list link;
    struct kb_listener_manager *manager;
    struct kb_active_listener *active; /* NULL: it is gone, and their connections with it */
    struct kb_timer timer;
    uint32_t orders; /* workers that have not closed the connections yet */
    size_t count;
    struct kb_filter_chain *chains[]; /* held */
};
KB_OBJ_MAGIC(drain_group, 0x4452474e);

static uint64_t drain_time_ms(const struct kb_listener_manager *manager)
{
    return manager->server->drain_time_s * UINT64_C(1000);
}

/* ---- filter chains ---- */

static void group_free(struct drain_group *group)
{
    struct kb_listener_manager *manager = group->manager;

    for (size_t i = 0; i < group->count; i++) {
        kb_shared_unref(&group->chains[i]->shared, manager->server->main);
    }
    kb_stat_gauge_add(kb_listener_manager_stats(manager),
                      KB_STAT_LISTENER_MANAGER_TOTAL_FILTER_CHAINS_DRAINING,
                      -(int64_t)group->count);
    kb_loop_timer_cancel(&manager->server->main->loop, &group->timer);
    kb_list_unlink(&group->link);
    KB_OBJ_CLEAR(group);
    free(group);
}

static void group_purged(void *arg)
{
    struct drain_group *group = KB_CAST(arg, drain_group);

    if (--group->orders == 0) {
        group_free(group);
    }
}

static void group_timer_fired(struct kb_timer *timer)
{
    struct drain_group *group = KB_CONTAINER_OF(timer, struct drain_group, timer);

    KB_ASSERT(group->kb_magic == (uint32_t)KB_MAGIC_drain_group);
    for (size_t i = 0; i < group->count; i++) {
        __atomic_store_n(&group->chains[i]->purge, true, __ATOMIC_RELEASE);
    }
    group->orders = group->active->worker_count;
    kb_active_listener_purge(group->active, group_purged, group);
}

static bool chain_of(const struct kb_listener *listener, const struct kb_filter_chain *chain)
{
    bool found = listener->default_chain == chain;

    for (size_t i = 0; i < listener->chain_count && !found; i++) {
        found = listener->chains[i] == chain;
    }
    return found;
}

static void group_add(struct drain_group *group, const struct kb_listener *now,
                      struct kb_filter_chain *chain)
{
    if (chain != NULL && !chain_of(now, chain) && !chain->drain.draining) {
        kb_shared_ref(&chain->shared, group->manager->server->main);
        kb_filter_chain_drain(chain);
        group->chains[group->count++] = chain;
    }
}

void kb_listener_drain_chains(struct kb_listener_manager *manager,
                              struct kb_active_listener *active, const struct kb_listener *old)
{
    struct drain_group *group =
        kb_calloc(1, sizeof(*group) + (old->chain_count + 1) * sizeof(struct kb_filter_chain *));

    KB_OBJ_SET(group, drain_group);
    group->manager = manager;
    group->active = active;
    kb_timer_init(&group->timer, group_timer_fired);
    kb_list_push_back(&manager->groups, &group->link);
    for (size_t i = 0; i < old->chain_count; i++) {
        group_add(group, active->listener, old->chains[i]);
    }
    group_add(group, active->listener, old->default_chain);
    kb_stat_gauge_add(kb_listener_manager_stats(manager),
                      KB_STAT_LISTENER_MANAGER_TOTAL_FILTER_CHAINS_DRAINING, (int64_t)group->count);
    if (group->count == 0) {
        group_free(group);
        return;
    }
    kb_loop_timer_arm(&manager->server->main->loop, &group->timer, drain_time_ms(manager));
}

/* The listener ends, and closes the connections of all its chains: no more to do for its groups
 * whose time has not come. */
static void groups_forget(struct kb_listener_manager *manager,
                          const struct kb_active_listener *active)
{
    KB_LIST_FOREACH (link, &manager->groups) {
        struct drain_group *group = KB_LIST_ENTRY(link, struct drain_group, link);

        if (group->active == active && group->orders == 0) {
            group_free(group);
        }
    }
}

/* ---- listeners ---- */

static void released(void *arg, struct kb_active_listener *active)
{
    struct kb_listener_manager *manager = KB_CAST(arg, kb_listener_manager);

    kb_stat_gauge_add(kb_listener_manager_stats(manager),
                      KB_STAT_LISTENER_MANAGER_TOTAL_LISTENERS_DRAINING, -1);
    kb_active_listener_destroy(active);
}

static void drain_timer_fired(struct kb_timer *timer)
{
    struct kb_active_listener *active =
        KB_CONTAINER_OF(timer, struct kb_active_listener, drain_timer);

    KB_ASSERT(active->kb_magic == (uint32_t)KB_MAGIC_kb_active_listener);
    groups_forget(active->arg, active);
    kb_active_listener_end(active, released, active->arg);
}

void kb_listener_drain_begin(struct kb_listener_manager *manager, struct kb_active_listener *active)
{
    struct kb_listener *listener = active->listener;

    for (size_t i = 0; i < listener->chain_count; i++) {
        kb_filter_chain_drain(listener->chains[i]);
    }
    if (listener->default_chain != NULL) {
        kb_filter_chain_drain(listener->default_chain);
    }
    active->draining = true;
    active->arg = manager;
    kb_list_push_back(&manager->draining, &active->link);
    kb_stat_gauge_add(kb_listener_manager_stats(manager),
                      KB_STAT_LISTENER_MANAGER_TOTAL_LISTENERS_DRAINING, 1);
    kb_timer_init(&active->drain_timer, drain_timer_fired);
    kb_loop_timer_arm(&manager->server->main->loop, &active->drain_timer, drain_time_ms(manager));
}

void kb_listener_drain_dispose(struct kb_listener_manager *manager)
{
    KB_LIST_FOREACH (group, &manager->groups) {
        group_free(KB_LIST_ENTRY(group, struct drain_group, link));
    }
    KB_LIST_FOREACH (active, &manager->draining) {
        kb_active_listener_destroy(KB_LIST_ENTRY(active, struct kb_active_listener, link));
    }
}
