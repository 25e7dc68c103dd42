/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster manager. A cluster is added (built, all errors at once), starts to look for its
 * hosts, is initialised by the first answer, and is published from then on. */
#include "proxy/upstream/cluster_manager_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "proto/pb.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/cluster_type.h"
#include "proxy/upstream/config_read.h"
#include "proxy/upstream/health_checker.h"
#include "proxy/upstream/outlier_detector.h"

/* Every thread knows every cluster that has had its first answer, whether or not it made a view of
 * its own. */
static bool thread_provide(void *arg, unsigned id, uint64_t *value)
{
    const struct kb_cluster_manager *manager = KB_CAST(arg, kb_cluster_manager);

    *value = 0;
    KB_LIST_FOREACH (link, &manager->entries) {
        const struct kb_cluster_entry *entry = KB_LIST_ENTRY(link, struct kb_cluster_entry, link);

        *value += entry->initialized && entry->slot->entry == entry ? 1 : 0;
    }
    return id == KB_STAT_THREAD_LOCAL_CLUSTER_MANAGER_CLUSTERS_INFLATED;
}

static void thread_groups_create(struct kb_cluster_manager *manager)
{
    uint32_t count = manager->server->worker_count;

    manager->thread_groups = kb_calloc(count + 1, sizeof(manager->thread_groups[0]));
    for (uint32_t i = 0; i <= count; i++) {
        char prefix[64];
        int len =
            i < count
                ? snprintf(prefix, sizeof(prefix), "thread_local_cluster_manager.worker_%u.", i)
                : snprintf(prefix, sizeof(prefix), "thread_local_cluster_manager.main_thread.");

        manager->thread_groups[i] =
            kb_stat_group_create(manager->server->stats, kb_str_make(prefix, (size_t)len),
                                 &kb_stat_schema_thread_local_cluster_manager);
        kb_stat_group_set_provider(manager->thread_groups[i], thread_provide, manager);
    }
}

struct kb_cluster_manager *kb_cluster_manager_create(struct kb_server_context *server)
{
    struct kb_cluster_manager *manager = kb_calloc(1, sizeof(*manager));

    KB_OBJ_SET(manager, kb_cluster_manager);
    manager->server = server;
    manager->main_thread = pthread_self();
    manager->local_slot = UINT32_MAX;
    pthread_mutex_init(&manager->names.lock, NULL);
    kb_map_init(&manager->names.map);
    kb_list_init(&manager->entries);
    kb_list_init(&manager->dirty);
    kb_deferred_init(&manager->flush, kb_clusters_publish_deferred);
    kb_list_init(&manager->unused_slots);
    kb_deferred_init(&manager->slots_flush, kb_cluster_slots_flush);
    manager->stats_group = kb_stat_group_create(server->stats, KB_STR("cluster_manager."),
                                                &kb_stat_schema_cluster_manager);
    manager->stats = kb_stat_group_block(manager->stats_group, server->main->index);
    kb_stat_gauge_set(manager->stats, KB_STAT_CLUSTER_MANAGER_ACTIVE_CLUSTERS, 0);
    kb_stat_gauge_set(manager->stats, KB_STAT_CLUSTER_MANAGER_WARMING_CLUSTERS, 0);
    thread_groups_create(manager);
    kb_cluster_dns_init(&manager->dns, server);
    for (uint32_t i = 0; i < server->worker_count; i++) {
        kb_cluster_view_create(&server->workers[i], &manager->names, &server->overload);
    }
    kb_cluster_view_create(server->main, &manager->names, &server->overload);
    return manager;
}

/* cluster_manager.local_cluster_name has to be one of the bootstrap's clusters. */
static void local_cluster_read(struct kb_cluster_manager *manager,
                               const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                               struct kb_diag *diag)
{
    const Envoy__Config__Bootstrap__V3__Bootstrap__StaticResources *resources =
        message->static_resources;
    const char *name =
        message->cluster_manager == NULL ? "" : message->cluster_manager->local_cluster_name;
    bool found = name[0] == '\0';

    for (size_t i = 0; !found && resources != NULL && i < resources->n_clusters; i++) {
        found = strcmp(resources->clusters[i]->name, name) == 0;
    }
    if (!found) {
        kb_diag_push(diag, "cluster_manager");
        kb_diag_push(diag, "local_cluster_name");
        kb_diag_error(diag, "local cluster '%s' must be defined", name);
        kb_diag_pop(diag);
        kb_diag_pop(diag);
    } else if (name[0] != '\0') {
        manager->local_slot = kb_cluster_slot(manager, kb_str_from_cstr(name));
    }
}

void kb_cluster_manager_configure(struct kb_cluster_manager *manager,
                                  const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                                  struct kb_diag *diag)
{
    const Envoy__Config__Bootstrap__V3__ClusterManager *config = message->cluster_manager;

    kb_cluster_dns_configure(&manager->dns, message, diag);
    local_cluster_read(manager, message, diag);
    if (config == NULL || config->upstream_bind_config == NULL ||
        config->upstream_bind_config->source_address == NULL) {
        return;
    }
    kb_diag_push(diag, "cluster_manager");
    kb_diag_push(diag, "upstream_bind_config");
    kb_diag_push(diag, "source_address");
    if (kb_config_socket_address(config->upstream_bind_config->source_address, "",
                                 &manager->bind_source, diag) != 0) {
        manager->bind_source.len = 0;
    }
    kb_diag_pop(diag);
    kb_diag_pop(diag);
    kb_diag_pop(diag);
}

const struct kb_addr *kb_cluster_manager_bind_source(const struct kb_cluster_manager *manager)
{
    return &manager->bind_source;
}

void kb_cluster_manager_worker_drain(struct kb_worker *worker)
{
    kb_cluster_view_clear(worker);
}

void kb_cluster_manager_destroy(struct kb_cluster_manager *manager)
{
    struct kb_server_context *server = manager->server;
    struct kb_list *link;

    kb_deferred_cancel(&manager->flush);
    kb_deferred_cancel(&manager->slots_flush);
    manager->ending = true;
    kb_clusters_publish(manager); /* what was removed goes */
    for (uint32_t i = 0; i < server->worker_count; i++) {
        kb_loop_run_once(&server->workers[i].loop, false); /* batches that came too late */
        kb_cluster_view_destroy(&server->workers[i]);
    }
    kb_cluster_view_destroy(server->main);
    while ((link = kb_list_pop_front(&manager->entries)) != NULL) {
        kb_cluster_entry_free(KB_LIST_ENTRY(link, struct kb_cluster_entry, link));
    }
    kb_cluster_dns_dispose(&manager->dns);
    /* Clusters whose last user was a worker wait in the loop's posts. */
    kb_loop_run_once(&server->main->loop, false);
    KB_VEC_FOREACH (slot, &manager->slots) {
        free(*slot);
    }
    kb_vec_dispose(&manager->slots);
    kb_vec_dispose(&manager->free_numbers);
    kb_map_dispose(&manager->names.map);
    pthread_mutex_destroy(&manager->names.lock);
    for (uint32_t i = 0; i <= server->worker_count; i++) {
        kb_stat_group_destroy(manager->thread_groups[i]);
    }
    free(manager->thread_groups);
    kb_stat_group_destroy(manager->stats_group);
    KB_OBJ_CLEAR(manager);
    free(manager);
}

const struct kb_cluster_entry *kb_cluster_manager_find(const struct kb_cluster_manager *manager,
                                                       struct kb_str name)
{
    const struct kb_cluster_slot *slot = kb_map_get(&manager->names.map, name);

    return slot == NULL ? NULL : slot->entry;
}

bool kb_cluster_manager_has(const struct kb_cluster_manager *manager, struct kb_str name)
{
    const struct kb_cluster_slot *slot = kb_map_get(&manager->names.map, name);

    return slot != NULL && (slot->entry != NULL || slot->warming != NULL);
}

static void gauges_set(struct kb_cluster_manager *manager)
{
    kb_stat_gauge_set(manager->stats, KB_STAT_CLUSTER_MANAGER_ACTIVE_CLUSTERS,
                      manager->active_count);
    kb_stat_gauge_set(manager->stats, KB_STAT_CLUSTER_MANAGER_WARMING_CLUSTERS,
                      manager->warming_count);
}

/* The newer cluster of a name that has no hosts yet, or none from now on. */
static void warming_set(struct kb_cluster_slot *slot, struct kb_cluster_manager *manager,
                        struct kb_cluster_entry *entry)
{
    manager->warming_count += (entry != NULL ? 1U : 0U) - (slot->warming != NULL ? 1U : 0U);
    slot->warming = entry;
}

static void warm_check(struct kb_cluster_manager *manager)
{
    kb_cluster_manager_initialized_cb warm = manager->warm;

    if (warm != NULL && manager->announced && manager->warming_count == 0) {
        manager->warm = NULL;
        kb_clusters_publish(manager); /* workers know the clusters before anything routes to them */
        warm(manager->warm_arg);
    }
}

void kb_cluster_manager_when_warm(struct kb_cluster_manager *manager,
                                  kb_cluster_manager_initialized_cb warm, void *arg)
{
    KB_ASSERT(manager->warm == NULL || warm == NULL);
    manager->warm = warm;
    manager->warm_arg = arg;
    warm_check(manager);
}

/* Puts a ready entry in the place of the present one of its name. */
static void entry_activate(struct kb_cluster_entry *entry)
{
    struct kb_cluster_slot *slot = entry->slot;
    struct kb_cluster_manager *manager = entry->manager;
    struct kb_cluster_entry *old = slot->entry;

    slot->entry = entry;
    warming_set(slot, manager, NULL);
    if (old != NULL && old != entry) {
        kb_cluster_counts_inherit(&entry->counts, &old->counts);
        kb_cluster_entry_free(old); /* workers hold what they still need */
    } else {
        manager->active_count++;
    }
    gauges_set(manager);
}

/* Whether the cluster that would be replaced was made of the very same message. */
static bool is_unchanged(const struct kb_cluster_slot *slot, struct kb_str bytes)
{
    const struct kb_cluster_entry *present = slot->warming != NULL ? slot->warming : slot->entry;

    return present != NULL && kb_str_eq(present->message, bytes);
}

/* Puts a new entry in its place, and lets it begin. */
static void entry_begin(struct kb_cluster_manager *manager, struct kb_cluster_slot *slot,
                        struct kb_cluster_entry *entry)
{
    entry->slot = kb_cluster_slot_hold(manager, kb_str_make(slot->name, slot->name_len));
    kb_list_push_back(&manager->entries, &entry->link);
    if (slot->warming != NULL) {
        kb_cluster_entry_free(slot->warming);
        warming_set(slot, manager, NULL);
    }
    kb_stat_inc(manager->stats, slot->entry == NULL ? KB_STAT_CLUSTER_MANAGER_CLUSTER_ADDED
                                                    : KB_STAT_CLUSTER_MANAGER_CLUSTER_MODIFIED);
    if (!manager->started) {
        manager->waiting_count++;
        entry_activate(entry); /* a second one of the name is an error from now on */
        return;
    }
    warming_set(slot, manager, entry);
    gauges_set(manager);
    entry->type->start(entry->state);
}

static int add_in_slot(struct kb_cluster_manager *manager, struct kb_cluster_slot *slot,
                       const Envoy__Config__Cluster__V3__Cluster *message, bool added_via_api,
                       struct kb_diag *diag)
{
    struct kb_cluster_entry *entry = NULL;
    struct kb_arena arena;
    struct kb_str bytes;
    int rc;

    if (slot->entry != NULL && !slot->entry->cluster->api.added_via_api && added_via_api) {
        return KB_CLUSTER_UNCHANGED; /* the bootstrap's clusters stay as they are, as in Envoy */
    }
    if (slot->entry != NULL && !added_via_api) {
        kb_diag_error(diag, "cluster manager: duplicate cluster '%s'", message->name);
        return KB_ECONFIG;
    }
    kb_arena_init(&arena, NULL);
    bytes = kb_pb_pack(&message->base, &arena);
    if (added_via_api && is_unchanged(slot, bytes)) {
        kb_arena_dispose(&arena);
        return KB_CLUSTER_UNCHANGED;
    }
    rc = kb_cluster_entry_create(manager, message, added_via_api, bytes, &arena, diag, &entry);
    if (rc == 0) {
        entry_begin(manager, slot, entry);
    } else if (added_via_api) { /* Envoy counts before it looks */
        kb_stat_inc(manager->stats, slot->entry == NULL ? KB_STAT_CLUSTER_MANAGER_CLUSTER_ADDED
                                                        : KB_STAT_CLUSTER_MANAGER_CLUSTER_MODIFIED);
    }
    kb_arena_dispose(&arena);
    return rc;
}

int kb_cluster_manager_add(struct kb_cluster_manager *manager,
                           const Envoy__Config__Cluster__V3__Cluster *message, bool added_via_api,
                           struct kb_diag *diag)
{
    struct kb_cluster_slot *slot = kb_cluster_slot_hold(manager, kb_str_from_cstr(message->name));
    int rc = add_in_slot(manager, slot, message, added_via_api, diag);

    kb_cluster_slot_let_go(manager, slot);
    return rc;
}

static void active_remove(struct kb_cluster_manager *manager, struct kb_cluster_slot *slot)
{
    struct kb_cluster_entry *entry = slot->entry;

    slot->entry = NULL;
    manager->active_count--;
    entry->removed = true;
    kb_list_unlink(&entry->link);
    kb_cluster_entry_mark_dirty(entry);
    kb_outlier_detector_destroy(entry->outlier);
    entry->outlier = NULL;
    kb_health_checks_destroy(entry->health);
    entry->health = NULL;
    if (entry->state != NULL) {
        entry->type->destroy(entry->state); /* nothing more is looked for */
        entry->state = NULL;
    }
}

int kb_cluster_manager_remove(struct kb_cluster_manager *manager, struct kb_str name)
{
    struct kb_cluster_slot *slot = kb_map_get(&manager->names.map, name);
    bool removed = false;

    if (slot != NULL && slot->warming != NULL) {
        kb_cluster_entry_free(slot->warming);
        warming_set(slot, manager, NULL);
        removed = true;
    }
    if (slot != NULL && slot->entry != NULL && slot->entry->cluster->api.added_via_api) {
        active_remove(manager, slot);
        removed = true;
    }
    if (!removed) {
        return KB_ENOTFOUND;
    }
    kb_stat_inc(manager->stats, KB_STAT_CLUSTER_MANAGER_CLUSTER_REMOVED);
    gauges_set(manager);
    warm_check(manager);
    return 0;
}

static void initialized_check(struct kb_cluster_manager *manager)
{
    if (manager->started && !manager->announced && manager->waiting_count == 0) {
        manager->announced = true;
        kb_clusters_publish(manager); /* workers know the clusters before anything routes to them */
        if (manager->initialized != NULL) {
            manager->initialized(manager->initialized_arg);
        }
        warm_check(manager);
    }
}

void kb_cluster_manager_start(struct kb_cluster_manager *manager,
                              kb_cluster_manager_initialized_cb initialized, void *arg)
{
    KB_ASSERT(!manager->started);
    manager->initialized = initialized;
    manager->initialized_arg = arg;
    KB_LIST_FOREACH (link, &manager->entries) {
        struct kb_cluster_entry *entry = KB_LIST_ENTRY(link, struct kb_cluster_entry, link);

        entry->type->start(entry->state);
    }
    manager->started = true;
    initialized_check(manager);
}

static void entry_complete(void *arg)
{
    struct kb_cluster_entry *entry = KB_CAST(arg, kb_cluster_entry);
    struct kb_cluster_manager *manager = entry->manager;

    entry->initialized = true;
    kb_cluster_entry_mark_dirty(entry);
    if (entry->slot->entry != entry) {
        entry_activate(entry);
        warm_check(manager);
    } else if (manager->waiting_count > 0) {
        manager->waiting_count--;
        initialized_check(manager);
    }
}

void kb_cluster_entry_initialized(struct kb_cluster_entry *entry)
{
    if (entry->initialized || entry->init.started) {
        return;
    }
    if (entry->set == NULL) {
        kb_cluster_entry_set_hosts(entry, NULL, 0); /* known from now on, without hosts */
    }
    /* What its transport sockets need has to be there too. */
    kb_init_manager_start(&entry->init, entry_complete, entry);
}

void kb_cluster_manager_visit(const struct kb_cluster_manager *manager, bool warming,
                              void (*visit)(void *arg, const struct kb_cluster_entry *entry),
                              void *arg)
{
    KB_LIST_FOREACH (link, &manager->entries) {
        const struct kb_cluster_entry *entry = KB_LIST_ENTRY(link, struct kb_cluster_entry, link);

        if (entry->slot->entry == entry || warming) {
            visit(arg, entry);
        }
    }
}

bool kb_cluster_entry_warming(const struct kb_cluster_entry *entry)
{
    return entry->slot->entry != entry;
}

bool kb_cluster_manager_on_main(const struct kb_cluster_manager *manager)
{
    return pthread_equal(pthread_self(), manager->main_thread) != 0;
}

struct kb_loop *kb_cluster_manager_loop(const struct kb_cluster_manager *manager)
{
    return &manager->server->main->loop;
}

struct kb_server_context *kb_cluster_manager_server(const struct kb_cluster_manager *manager)
{
    return manager->server;
}

int kb_cluster_manager_dns(struct kb_cluster_manager *manager, const struct kb_dns_options *options,
                           struct kb_dns **out)
{
    return kb_cluster_dns_get(&manager->dns, options, out);
}

void kb_cluster_manager_set_outlier_log(struct kb_cluster_manager *manager, kb_outlier_event_cb log,
                                        void *arg)
{
    manager->outlier_log = log;
    manager->outlier_log_arg = arg;
}

bool kb_cluster_manager_has_outlier_log(const struct kb_cluster_manager *manager)
{
    return manager->outlier_log != NULL;
}

void kb_cluster_manager_log_outlier(const struct kb_cluster_manager *manager,
                                    const ProtobufCMessage *event)
{
    manager->outlier_log(manager->outlier_log_arg, event);
}

uint32_t kb_cluster_manager_local_slot(const struct kb_cluster_manager *manager)
{
    return manager->local_slot;
}
