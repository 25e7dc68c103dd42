/* SPDX-License-Identifier: Apache-2.0 */
/* One cluster of the cluster manager: made of its message with all that watches its hosts, the
 * hosts that it has from its cluster type, and its end. When it begins to serve is the manager's
 * business. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "proto/any.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/circuit_breaker.h"
#include "proxy/upstream/cluster_manager_internal.h"
#include "proxy/upstream/cluster_type.h"
#include "proxy/upstream/health_checker.h"
#include "proxy/upstream/outlier_detector.h"

/* ---- making and freeing ---- */

static void message_keep(struct kb_cluster_entry *entry, struct kb_str bytes)
{
    char *copy = kb_malloc(KB_MAX(bytes.len, 1));

    memcpy(copy, bytes.p, bytes.len);
    entry->message = kb_str_make(copy, bytes.len);
}

static void health_create(struct kb_cluster_entry *entry,
                          const Envoy__Config__Cluster__V3__Cluster *message,
                          const struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_factory_context own = *factory;

    own.stat_prefix = kb_cluster_stat_prefix(entry->cluster, factory->arena).p;
    entry->health = kb_health_checks_create(entry, message, &own, diag);
}

int kb_cluster_entry_create(struct kb_cluster_manager *manager,
                            const Envoy__Config__Cluster__V3__Cluster *message, bool added_via_api,
                            struct kb_str bytes, struct kb_arena *arena, struct kb_diag *diag,
                            struct kb_cluster_entry **out)
{
    struct kb_factory_context factory = {.server = manager->server, .arena = arena};
    uint32_t errors = diag->error_count;
    const struct kb_extension *type = kb_cluster_type_find(message, arena, diag);
    struct kb_cluster_entry *entry = kb_calloc(1, sizeof(*entry));
    const void *typed = NULL;

    KB_OBJ_SET(entry, kb_cluster_entry);
    entry->manager = manager;
    kb_init_manager_init(&entry->init);
    factory.init = &entry->init;
    if (type != NULL && type->type_url[0] != '\0') {
        kb_diag_push(diag, "cluster_type");
        kb_diag_push(diag, "typed_config");
        typed = kb_any_unpack(message->cluster_type->typed_config, NULL, arena, diag);
        kb_diag_pop(diag);
        kb_diag_pop(diag);
    }
    if (kb_cluster_impl_create(
            message, type != NULL ? ((const struct kb_cluster_type_ops *)type->ops)->lb : NULL,
            manager, &factory, diag, &entry->cluster) == 0) {
        entry->cluster->api.added_via_api = added_via_api;
        kb_stat_group_set_provider(entry->cluster->api.stats, kb_cluster_entry_provide, entry);
        entry->outlier = kb_outlier_detector_create(entry);
        health_create(entry, message, &factory, diag);
    }
    if (type != NULL) { /* without a cluster it runs for its errors only */
        entry->type = type->ops;
        if (entry->cluster != NULL) {
            entry->cluster->api.auto_host_rewrite_capable = entry->type->hosts_have_names;
        }
        if (entry->type->create(entry, message, typed, &factory, diag, &entry->state) != 0) {
            KB_BUG_IF(diag->error_count == errors);
        }
    }
    if (diag->error_count != errors) {
        kb_cluster_entry_free(entry);
        return KB_ECONFIG;
    }
    message_keep(entry, bytes);
    entry->updated_wall_ns = kb_clock_wall_ns();
    *out = entry;
    return 0;
}

void kb_cluster_entry_free(struct kb_cluster_entry *entry)
{
    kb_list_unlink(&entry->dirty_link);
    kb_list_unlink(&entry->link);
    if (entry->type != NULL && entry->state != NULL) {
        entry->type->destroy(entry->state);
    }
    kb_init_manager_dispose(&entry->init);
    kb_outlier_detector_destroy(entry->outlier);
    kb_health_checks_destroy(entry->health);
    if (entry->set != NULL) {
        if (entry->cluster->lb->hosts_prepare != NULL) {
            entry->cluster->lb->hosts_prepare(entry->cluster, NULL, entry->set);
        }
        kb_priority_set_unref(entry->set);
    }
    if (entry->published != NULL) {
        kb_cluster_entry_retired_leave(entry, entry->published);
        kb_priority_set_unref(entry->published);
    }
    if (entry->cluster != NULL) {
        kb_stat_group_set_provider(entry->cluster->api.stats, NULL, entry);
        kb_cluster_impl_unref(entry->cluster);
    }
    free((void *)(uintptr_t)entry->message.p);
    if (entry->slot != NULL) {
        kb_cluster_slot_let_go(entry->manager, entry->slot);
    }
    KB_OBJ_CLEAR(entry);
    free(entry);
}

void kb_cluster_counts_inherit(struct kb_cluster_counts *counts,
                               const struct kb_cluster_counts *before)
{
    counts->match += before->match;
    counts->membership_change += before->membership_change;
    counts->update_attempt += before->update_attempt;
    counts->update_success += before->update_success;
    counts->update_failure += before->update_failure;
    counts->update_no_rebuild += before->update_no_rebuild;
    counts->update_empty += before->update_empty;
    counts->assignment_stale += before->assignment_stale;
    counts->assignment_use_cached += before->assignment_use_cached;
    counts->assignment_timeout_received += before->assignment_timeout_received;
}

/* ---- hosts ---- */

static uint32_t priorities_changed(const struct kb_priority_set *before,
                                   const struct kb_priority_set *after)
{
    static const struct kb_host_list none;
    uint32_t changed = 0,
             count = before == NULL ? after->count : KB_MAX(before->count, after->count);

    for (uint32_t p = 0; p < count; p++) {
        changed += !kb_host_list_same_hosts(
            before != NULL && p < before->count ? &before->sets[p].all : &none,
            p < after->count ? &after->sets[p].all : &none);
    }
    return changed;
}

/* The set replaces `before`, or is the first: what its load balancers share is made. */
static void lb_prepare(const struct kb_cluster_entry *entry, const struct kb_priority_set *before)
{
    const struct kb_lb_ops *lb = entry->cluster->lb;

    if (lb->hosts_prepare != NULL) {
        lb->hosts_prepare(entry->cluster, entry->set, before);
    }
}

/* Where hosts start slowly: when each was first seen healthy. */
static void slow_start_note(const struct kb_cluster_entry *entry)
{
    uint64_t window_ms = entry->cluster->lb_config->slow_start.window_ms;
    uint32_t now_ms = (uint32_t)kb_loop_now_ms(&entry->manager->server->main->loop);

    for (uint32_t p = 0; window_ms > 0 && p < entry->set->count; p++) {
        const struct kb_host_list *list = &entry->set->sets[p].healthy;

        for (uint32_t i = 0; i < list->count; i++) {
            uint32_t *since_ms = &list->hosts[i]->healthy_since_ms;

            if (*since_ms == 0) {
                __atomic_store_n(since_ms, KB_MAX(now_ms, 2), __ATOMIC_RELAXED);
            } else if (*since_ms > 1 && now_ms - *since_ms > window_ms) {
                __atomic_store_n(since_ms, 1, __ATOMIC_RELAXED);
            }
        }
    }
}

void kb_cluster_entry_set_hosts(struct kb_cluster_entry *entry, const struct kb_host_group *groups,
                                size_t group_count)
{
    struct kb_priority_set *before = entry->set;

    if (entry->cluster == NULL) {
        return; /* being checked only */
    }
    entry->set =
        kb_priority_set_create(entry->cluster, groups, group_count, &entry->cluster->policy);
    slow_start_note(entry);
    lb_prepare(entry, before);
    entry->counts.membership_change += priorities_changed(before, entry->set);
    if (entry->outlier != NULL) {
        kb_outlier_detector_hosts_changed(entry->outlier, entry->set);
    }
    if (entry->health != NULL) {
        kb_health_checks_hosts_changed(entry->health, entry->set);
    }
    if (before != NULL) {
        kb_priority_set_unref(before);
    }
    if (entry->initialized) {
        kb_stat_inc(entry->manager->stats, KB_STAT_CLUSTER_MANAGER_CLUSTER_UPDATED);
        kb_cluster_entry_mark_dirty(entry);
    }
}

void kb_cluster_entry_refresh_hosts(struct kb_cluster_entry *entry)
{
    struct kb_priority_set *before = entry->set;

    if (before == NULL) {
        return;
    }
    entry->set = kb_priority_set_refresh(before, &entry->cluster->policy);
    slow_start_note(entry);
    lb_prepare(entry, before);
    kb_priority_set_unref(before);
    if (entry->initialized && !entry->removed) {
        kb_stat_inc(entry->manager->stats, KB_STAT_CLUSTER_MANAGER_CLUSTER_UPDATED);
        kb_cluster_entry_mark_dirty(entry);
    }
}

/* ---- for the admin page ---- */

uint64_t kb_cluster_entry_max_retries(const struct kb_cluster_entry *entry,
                                      enum kb_priority priority)
{
    return kb_resource_max(entry->cluster, priority, KB_RESOURCE_RETRIES);
}
