/* SPDX-License-Identifier: Apache-2.0 */
/* The listeners of the process: the bootstrap's, their sockets, start and end (Envoy
 * ListenerManagerImpl). How one takes another's place is in listener_update.c. */
#include "proxy/listener/listener_manager.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "proxy/listener/listener_manager_internal.h"

#define SETTLE_ROUNDS 16 /* of the main loop, until all memory is back */

struct kb_stat_block *kb_listener_manager_stats(struct kb_listener_manager *manager)
{
    return kb_stat_group_block(manager->stats, manager->server->main->index);
}

/* ---- lifecycle ---- */

struct kb_listener_manager *kb_listener_manager_create(struct kb_server_context *server)
{
    struct kb_listener_manager *manager = kb_calloc(1, sizeof(*manager));

    KB_OBJ_SET(manager, kb_listener_manager);
    manager->server = server;
    kb_list_init(&manager->entries);
    kb_map_init(&manager->by_name);
    kb_list_init(&manager->draining);
    kb_list_init(&manager->groups);
    manager->stats = kb_stat_group_create(server->stats, KB_STR("listener_manager."),
                                          &kb_stat_schema_listener_manager);
    return manager;
}

struct kb_listener_entry *kb_listener_entry_create(struct kb_listener_manager *manager,
                                                   struct kb_str name)
{
    struct kb_listener_entry *entry = kb_calloc(1, sizeof(*entry) + name.len);

    entry->manager = manager;
    memcpy(entry->name_bytes, name.p, name.len);
    entry->name = kb_str_make(entry->name_bytes, name.len);
    kb_list_push_back(&manager->entries, &entry->link);
    kb_map_put(&manager->by_name, entry->name, entry);
    return entry;
}

void kb_listener_entry_free(struct kb_listener_entry *entry, bool running)
{
    kb_map_remove(&entry->manager->by_name, entry->name);
    if (entry->next != NULL) {
        kb_init_target_dispose(&entry->next->startup);
        kb_init_manager_dispose(&entry->next->init);
        kb_listener_discard(entry->next);
    }
    kb_listen_sockets_unref(entry->next_sockets, running);
    kb_list_unlink(&entry->link);
    free(entry);
}

void kb_listener_manager_destroy(struct kb_listener_manager *manager)
{
    struct kb_server_context *server = manager->server;

    kb_listener_drain_dispose(manager);
    KB_LIST_FOREACH (link, &manager->entries) {
        struct kb_listener_entry *entry = KB_LIST_ENTRY(link, struct kb_listener_entry, link);

        if (entry->active != NULL) {
            kb_active_listener_destroy(entry->active);
        }
        kb_listener_entry_free(entry, false);
    }
    if (manager->admin != NULL) {
        kb_active_listener_destroy(manager->admin);
    }
    kb_map_dispose(&manager->by_name);
    /* What was let go is freed by posts. */
    for (unsigned i = 0; i < SETTLE_ROUNDS && kb_listener_objects_alive() > 0; i++) {
        kb_loop_run_once(&server->main->loop, false);
    }
    kb_loop_run_once(&server->main->loop, false);
    kb_stat_group_destroy(manager->stats);
    KB_OBJ_CLEAR(manager);
    free(manager);
}

struct kb_str kb_listener_bind_error(struct kb_arena *arena, const struct kb_addr *addr,
                                     const char *what)
{
    char text[KB_ADDR_TEXT_MAX];
    int error = errno;

    return kb_str_printf(arena, "cannot %s '%.*s': %s", what, KB_STR_ARG(kb_addr_text(addr, text)),
                         strerror(error));
}

void kb_listener_entry_count(struct kb_listener_entry *entry, bool add)
{
    struct kb_listener_manager *manager = entry->manager;
    struct kb_stat_block *stats = kb_listener_manager_stats(manager);
    bool running = entry->active != NULL || !manager->started;

    kb_stat_gauge_add(stats, KB_STAT_LISTENER_MANAGER_TOTAL_LISTENERS_ACTIVE,
                      running ? (add ? 1 : -1) : 0);
    kb_stat_gauge_add(stats, KB_STAT_LISTENER_MANAGER_TOTAL_LISTENERS_WARMING,
                      entry->next != NULL && manager->started ? (add ? 1 : -1) : 0);
}

/* ---- start ---- */

int kb_listener_manager_bind(struct kb_listener_manager *manager, struct kb_diag *diag)
{
    KB_LIST_FOREACH (link, &manager->entries) {
        struct kb_listener_entry *entry = KB_LIST_ENTRY(link, struct kb_listener_entry, link);
        const struct kb_addr *addr = NULL;
        const char *what = "bind";

        if (entry->next->bind_to_port && entry->next_sockets == NULL) {
            entry->next_sockets = kb_listen_sockets_create(entry->next, &what, &addr);
        }
        if (addr != NULL) {
            struct kb_str error = kb_listener_bind_error(&diag->arena, addr, what);

            kb_stat_inc(kb_listener_manager_stats(manager),
                        KB_STAT_LISTENER_MANAGER_LISTENER_CREATE_FAILURE);
            kb_diag_error(diag, "%.*s", KB_STR_ARG(error));
        }
    }
    manager->bound = true;
    return kb_diag_result(diag);
}

int kb_listener_manager_add_admin(struct kb_listener_manager *manager, struct kb_listener *listener,
                                  struct kb_arena *arena, struct kb_str *error)
{
    const struct kb_addr *addr = &listener->addrs[0].addr;
    const char *what = "bind";
    struct kb_listen_sockets *sockets = kb_listen_sockets_create(listener, &what, &addr);

    KB_ASSERT(manager->admin == NULL);
    if (sockets == NULL || kb_listen_sockets_listen(sockets, listener, &what) != 0) {
        *error = kb_listener_bind_error(arena, addr, what);
        if (sockets != NULL) {
            kb_listen_sockets_unref(sockets, false);
        }
        kb_listener_unref(listener);
        return KB_ECONFIG;
    }
    manager->admin = kb_active_listener_create(listener, sockets);
    kb_active_listener_start(manager->admin);
    return 0;
}

const struct kb_addr *kb_listener_manager_admin_address(const struct kb_listener_manager *manager)
{
    return manager->admin->bound;
}

int kb_listener_manager_start(struct kb_listener_manager *manager, struct kb_arena *arena,
                              struct kb_str *error)
{
    KB_LIST_FOREACH (link, &manager->entries) {
        struct kb_listener_entry *entry = KB_LIST_ENTRY(link, struct kb_listener_entry, link);
        const char *what = "listen";

        if (entry->next_sockets != NULL &&
            kb_listen_sockets_listen(entry->next_sockets, entry->next, &what) != 0) {
            *error = kb_listener_bind_error(arena, &entry->next->addrs[0].addr, what);
            return KB_EADDRINUSE;
        }
    }
    manager->started = true;
    KB_LIST_FOREACH (link, &manager->entries) {
        kb_listener_entry_activate(KB_LIST_ENTRY(link, struct kb_listener_entry, link));
    }
    kb_stat_gauge_set(kb_listener_manager_stats(manager), KB_STAT_LISTENER_MANAGER_WORKERS_STARTED,
                      1);
    return 0;
}

/* ---- the end ---- */

void kb_listener_manager_stop_accepting(struct kb_listener_manager *manager, bool inbound_only)
{
    KB_LIST_FOREACH (link, &manager->entries) {
        struct kb_active_listener *active =
            KB_LIST_ENTRY(link, struct kb_listener_entry, link)->active;

        if (active == NULL || active->stopped || (inbound_only && !active->listener->inbound)) {
            continue;
        }
        kb_active_listener_stop(active, false);
        kb_stat_inc(kb_listener_manager_stats(manager), KB_STAT_LISTENER_MANAGER_LISTENER_STOPPED);
    }
}

static void worker_close(struct kb_active_listener *active, const struct kb_worker *worker)
{
    for (uint32_t i = 0; active != NULL && i < active->worker_count; i++) {
        if (active->workers[i].worker == worker) {
            kb_listener_worker_close(&active->workers[i]);
        }
    }
}

void kb_listener_manager_worker_close(struct kb_listener_manager *manager, struct kb_worker *worker)
{
    KB_LIST_FOREACH (link, &manager->entries) {
        worker_close(KB_LIST_ENTRY(link, struct kb_listener_entry, link)->active, worker);
    }
    KB_LIST_FOREACH (draining, &manager->draining) {
        worker_close(KB_LIST_ENTRY(draining, struct kb_active_listener, link), worker);
    }
    worker_close(manager->admin, worker);
}

/* ---- looking ---- */

static const struct kb_active_listener *draining_of(const struct kb_listener_manager *manager,
                                                    struct kb_str name)
{
    const struct kb_active_listener *found = NULL;

    KB_LIST_FOREACH (link, &manager->draining) {
        const struct kb_active_listener *active =
            KB_LIST_ENTRY(link, struct kb_active_listener, link);

        if (kb_str_eq(active->name, name)) {
            found = active;
        }
    }
    return found;
}

static void entry_view(const struct kb_listener_manager *manager,
                       const struct kb_listener_entry *entry, struct kb_listener_view *view)
{
    const struct kb_listener *any = entry->next != NULL ? entry->next : entry->active->listener;
    const struct kb_active_listener *draining = draining_of(manager, any->name);

    *view = (struct kb_listener_view){.name = entry->name, .dynamic = any->dynamic};
    if (entry->active != NULL) {
        view->active = entry->active->listener;
        view->bound = entry->active->bound;
        view->bound_count = entry->active->bound_count;
        view->warming = entry->next;
    } else if (manager->started) {
        view->warming = entry->next;
    } else {
        view->active = entry->next;
        view->bound = entry->next_sockets != NULL ? entry->next_sockets->bound : NULL;
        view->bound_count = entry->next_sockets != NULL ? entry->next_sockets->addr_count : 0;
    }
    view->draining = draining != NULL ? draining->listener : NULL;
}

void kb_listener_manager_visit(const struct kb_listener_manager *manager,
                               void (*visit)(void *arg, const struct kb_listener_view *view),
                               void *arg)
{
    struct kb_listener_view view;

    KB_LIST_FOREACH (link, &manager->entries) {
        entry_view(manager, KB_LIST_ENTRY(link, struct kb_listener_entry, link), &view);
        visit(arg, &view);
    }
    KB_LIST_FOREACH (draining, &manager->draining) {
        const struct kb_active_listener *active =
            KB_LIST_ENTRY(draining, struct kb_active_listener, link);

        if (kb_map_get(&manager->by_name, active->name) == NULL &&
            draining_of(manager, active->name) == active) {
            view = (struct kb_listener_view){.name = active->name,
                                             .dynamic = active->listener->dynamic,
                                             .draining = active->listener};
            visit(arg, &view);
        }
    }
}
