/* SPDX-License-Identifier: Apache-2.0 */
/* Building the immutable host view: one allocation holds the priorities, the localities and all
 * host lists. */
#include "proxy/upstream/priority_set.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/host.h"
#include "proxy/upstream/lb_hash.h"
#include "proxy/upstream/subset_table.h"

/* Room for the lists of hosts; lists are cut off its front. */
struct list_space {
    struct kb_host **at;
};

static bool host_is_healthy(const struct kb_host *host)
{
    return (host->health_flags & (KB_HOST_UNHEALTHY | KB_HOST_DEGRADED)) == 0;
}

static bool host_is_degraded(const struct kb_host *host)
{
    return (host->health_flags & KB_HOST_UNHEALTHY) == 0 &&
           (host->health_flags & KB_HOST_DEGRADED) != 0;
}

static bool host_is_excluded(const struct kb_host *host)
{
    return (host->health_flags & (KB_HOST_DRAINING_EDS | KB_HOST_EXCLUDED_IMMEDIATE_HC |
                                  KB_HOST_PENDING_ACTIVE_HC)) != 0;
}

static struct kb_host_list list_filter(struct list_space *space, const struct kb_host_list *from,
                                       bool (*want)(const struct kb_host *host))
{
    struct kb_host_list list = {space->at, 0};

    for (uint32_t i = 0; i < from->count; i++) {
        if (want(from->hosts[i])) {
            list.hosts[list.count++] = from->hosts[i];
        }
    }
    if (list.count == from->count) {
        return *from; /* the ordinary case: everything is healthy and needs no list of its own */
    }
    space->at += list.count;
    return list;
}

static uint32_t list_count(const struct kb_host_list *list,
                           bool (*want)(const struct kb_host *host))
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < list->count; i++) {
        n += want(list->hosts[i]) ? 1 : 0;
    }
    return n;
}

static void list_append(struct kb_host_list *list, const struct kb_host_group *group)
{
    if (group->count > 0) {
        memcpy(list->hosts + list->count, group->hosts, group->count * sizeof(group->hosts[0]));
        list->count += group->count;
    }
}

bool kb_host_list_weights_differ(const struct kb_host_list *list)
{
    for (uint32_t i = 1; i < list->count; i++) {
        if (kb_host_weight(list->hosts[i]) != kb_host_weight(list->hosts[0])) {
            return true;
        }
    }
    return false;
}

static bool group_same_locality(const struct kb_host_group *a, const struct kb_host_group *b)
{
    const struct kb_host *x = a->count > 0 ? a->hosts[0] : NULL;
    const struct kb_host *y = b->count > 0 ? b->hosts[0] : NULL;

    return a->priority == b->priority && x != NULL && y != NULL && kb_host_same_locality_as(x, y);
}

/* The first group of the same locality stands for all of them. */
static bool group_is_first(const struct kb_host_group *groups, size_t at)
{
    for (size_t i = 0; i < at; i++) {
        if (group_same_locality(&groups[i], &groups[at])) {
            return false;
        }
    }
    return true;
}

/* Which of its hosts are healthy, and so on. */
static void locality_sort(struct kb_host_locality *locality, struct list_space *space)
{
    locality->healthy = list_filter(space, &locality->all, host_is_healthy);
    locality->degraded = list_filter(space, &locality->all, host_is_degraded);
    locality->excluded_count = list_count(&locality->all, host_is_excluded);
}

static void localities_fill(struct kb_host_set *set, uint32_t priority,
                            const struct kb_host_group *groups, size_t group_count,
                            struct list_space *space)
{
    for (size_t i = 0; i < group_count; i++) {
        struct kb_host_locality *locality = &set->localities[set->locality_count];

        if (groups[i].priority != priority || groups[i].count == 0 || !group_is_first(groups, i)) {
            continue;
        }
        locality->all.hosts = space->at;
        for (size_t k = i; k < group_count; k++) {
            if (k == i || group_same_locality(&groups[i], &groups[k])) {
                list_append(&locality->all, &groups[k]);
                locality->weight = groups[k].locality_weight;
            }
        }
        space->at += locality->all.count;
        locality_sort(locality, space);
        set->locality_count++;
    }
}

/* The same for a priority; `all` is there. */
static void set_sort(struct kb_priority_set *set, struct kb_host_set *hosts,
                     struct list_space *space)
{
    hosts->healthy = list_filter(space, &hosts->all, host_is_healthy);
    hosts->degraded = list_filter(space, &hosts->all, host_is_degraded);
    hosts->excluded_count = list_count(&hosts->all, host_is_excluded);
    set->host_count += hosts->all.count;
    set->healthy_count += hosts->healthy.count;
    set->degraded_count += hosts->degraded.count;
    set->excluded_count += hosts->excluded_count;
}

static void set_fill(struct kb_priority_set *set, uint32_t priority,
                     const struct kb_host_group *groups, size_t group_count,
                     struct list_space *space)
{
    struct kb_host_set *hosts = &set->sets[priority];

    hosts->all.hosts = space->at;
    for (size_t i = 0; i < group_count; i++) {
        if (groups[i].priority == priority) {
            list_append(&hosts->all, &groups[i]);
        }
    }
    space->at += hosts->all.count;
    set_sort(set, hosts, space);
}

static int host_pointer_cmp(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)*(struct kb_host *const *)a,
              y = (uintptr_t)*(struct kb_host *const *)b;

    return x < y ? -1 : x > y;
}

/* All hosts of the set in pointer order, on the heap. */
static struct kb_host **hosts_sorted(const struct kb_priority_set *set)
{
    struct kb_host **all = kb_malloc((set->host_count + 1) * sizeof(all[0]));
    uint32_t n = 0;

    for (uint32_t p = 0; p < set->count; p++) {
        for (uint32_t i = 0; i < set->sets[p].all.count; i++) {
            all[n++] = set->sets[p].all.hosts[i];
        }
    }
    qsort(all, n, sizeof(all[0]), host_pointer_cmp);
    return all;
}

void kb_priority_set_find_removed(struct kb_priority_set *set, const struct kb_priority_set *before)
{
    struct kb_host **old = hosts_sorted(before), **new = hosts_sorted(set);
    uint32_t removed = 0, at = 0;

    for (uint32_t i = 0; i < before->host_count; i++) {
        while (at < set->host_count && (uintptr_t)new[at] < (uintptr_t)old[i]) {
            at++;
        }
        if (at == set->host_count || new[at] != old[i]) {
            old[removed++] = old[i];
        }
    }
    free(new);
    if (removed == 0) {
        free(old);
        return;
    }
    set->removed = kb_realloc(old, removed * sizeof(old[0]));
    set->removed_count = removed;
}

static struct kb_host **list_sorted(const struct kb_host_list *list)
{
    struct kb_host **copy = kb_malloc(list->count * sizeof(copy[0]));

    memcpy(copy, list->hosts, list->count * sizeof(copy[0]));
    qsort(copy, list->count, sizeof(copy[0]), host_pointer_cmp);
    return copy;
}

bool kb_host_list_same_hosts(const struct kb_host_list *a, const struct kb_host_list *b)
{
    struct kb_host **x, **y;
    bool same;

    if (a->count != b->count || a->count == 0 ||
        memcmp(a->hosts, b->hosts, a->count * sizeof(a->hosts[0])) == 0) {
        return a->count == b->count;
    }
    x = list_sorted(a);
    y = list_sorted(b);
    same = memcmp(x, y, a->count * sizeof(x[0])) == 0;
    free(x);
    free(y);
    return same;
}

/* Host pointers that the lists of a set may need, at most: all of them, and the healthy and the
 * degraded, which are at most all of them again; and that much for the localities. */
static size_t space_needed(const struct kb_host_group *groups, size_t group_count, bool localities)
{
    size_t total = 0;

    for (size_t i = 0; i < group_count; i++) {
        total += groups[i].count;
    }
    return total * (localities ? 4 : 2);
}

/* A set of `count` empty priorities, and where its localities and lists go. */
static struct kb_priority_set *set_new(struct kb_cluster_impl *cluster,
                                       const struct kb_priority_policy *policy, uint32_t count,
                                       size_t locality_max, size_t list_max,
                                       struct kb_host_locality **localities,
                                       struct list_space *space)
{
    struct kb_priority_set *set =
        kb_calloc(1, sizeof(*set) + count * sizeof(set->sets[0]) +
                         locality_max * sizeof(**localities) + list_max * sizeof(struct kb_host *));

    KB_OBJ_SET(set, kb_priority_set);
    set->refs = 1;
    set->count = count;
    set->cluster = cluster;
    set->overprovisioning_factor = policy->overprovisioning_factor;
    set->drop_overload_ppm = policy->drop_overload_ppm;
    *localities = (struct kb_host_locality *)(void *)&set->sets[count];
    space->at = (struct kb_host **)(void *)(*localities + locality_max);
    if (cluster != NULL) {
        kb_cluster_impl_ref(cluster);
    }
    return set;
}

static void list_ref(const struct kb_host_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        kb_host_ref(list->hosts[i]);
    }
}

struct kb_priority_set *kb_priority_set_create(struct kb_cluster_impl *cluster,
                                               const struct kb_host_group *groups,
                                               size_t group_count,
                                               const struct kb_priority_policy *policy)
{
    struct kb_priority_set *set;
    struct kb_host_locality *localities;
    struct list_space space;
    uint32_t count = 1;
    size_t locality_max = policy->keep_localities ? group_count : 0;

    for (size_t i = 0; i < group_count; i++) {
        KB_ASSERT(groups[i].priority < KB_PRIORITIES_MAX);
        count = KB_MAX(count, groups[i].priority + 1);
    }
    set = set_new(cluster, policy, count, locality_max,
                  space_needed(groups, group_count, locality_max > 0), &localities, &space);
    for (uint32_t p = 0; p < count; p++) {
        set_fill(set, p, groups, group_count, &space);
        if (locality_max > 0) {
            set->sets[p].localities = localities;
            localities_fill(&set->sets[p], p, groups, group_count, &space);
            localities += set->sets[p].locality_count;
        }
        list_ref(&set->sets[p].all);
    }
    kb_priority_set_compute_load(set, policy);
    return set;
}

static struct kb_host_list list_copy(struct list_space *space, const struct kb_host_list *from)
{
    struct kb_host_list list = {space->at, from->count};

    if (from->count > 0) {
        memcpy(list.hosts, from->hosts, from->count * sizeof(list.hosts[0]));
        space->at += from->count;
    }
    return list;
}

struct kb_priority_set *kb_priority_set_refresh(const struct kb_priority_set *before,
                                                const struct kb_priority_policy *policy)
{
    struct kb_priority_set *set;
    struct kb_host_locality *localities;
    struct list_space space;
    size_t locality_max = 0;

    for (uint32_t p = 0; p < before->count; p++) {
        locality_max += before->sets[p].locality_count;
    }
    set = set_new(before->cluster, policy, before->count, locality_max,
                  (size_t)before->host_count * (locality_max > 0 ? 4 : 2), &localities, &space);
    for (uint32_t p = 0; p < before->count; p++) {
        const struct kb_host_set *from = &before->sets[p];
        struct kb_host_set *to = &set->sets[p];

        to->all = list_copy(&space, &from->all);
        set_sort(set, to, &space);
        to->localities = localities;
        to->locality_count = from->locality_count;
        for (uint32_t i = 0; i < from->locality_count; i++, localities++) {
            localities->all = list_copy(&space, &from->localities[i].all);
            localities->weight = from->localities[i].weight;
            locality_sort(localities, &space);
        }
        list_ref(&to->all);
    }
    kb_priority_set_compute_load(set, policy);
    return set;
}

struct kb_priority_set *kb_priority_set_ref(struct kb_priority_set *set)
{
    __atomic_fetch_add(&set->refs, 1, __ATOMIC_RELAXED);
    return set;
}

static void tables_free(struct kb_priority_set *set)
{
    struct kb_hash_table **tables = set->lb_tables;

    if (set->has_subsets) {
        kb_subset_table_destroy(set->subsets);
        return;
    }
    for (uint32_t p = 0; tables != NULL && p < set->count; p++) {
        if (tables[p] != NULL) {
            kb_lb_hash_table_destroy(tables[p], set->lb_table_destroy);
        }
    }
    free(tables);
}

void kb_priority_set_unref(struct kb_priority_set *set)
{
    struct kb_cluster_impl *cluster = set->cluster;

    if (__atomic_fetch_sub(&set->refs, 1, __ATOMIC_ACQ_REL) != 1) {
        return;
    }
    for (uint32_t p = 0; p < set->count; p++) {
        for (uint32_t i = 0; i < set->sets[p].all.count; i++) {
            kb_host_unref(set->sets[p].all.hosts[i]);
        }
    }
    for (uint32_t i = 0; i < set->retired_count; i++) {
        kb_shared_text_unref(set->retired[i]);
    }
    tables_free(set);
    free(set->retired);
    free(set->removed);
    KB_OBJ_CLEAR(set);
    free(set);
    if (cluster != NULL) {
        kb_cluster_impl_unref(cluster);
    }
}
