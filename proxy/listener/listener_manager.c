/* SPDX-License-Identifier: Apache-2.0 */
/* The listeners of the process and what the main thread does with them. */
#include "proxy/listener/listener_manager.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "envoy/config/listener/v3/listener.pb-c.h"

struct kb_listener_manager {
    KB_OBJ;
    struct kb_server_context *server;
    KB_VEC(struct kb_listener *) listeners;
    struct kb_listener *admin;
    struct kb_stat_group *stats;
    bool started;
};
KB_OBJ_MAGIC(kb_listener_manager, 0x4c4d4752);

static struct kb_stat_block *stats_of(struct kb_listener_manager *manager)
{
    return kb_stat_group_block(manager->stats, manager->server->main->index);
}

struct kb_listener_manager *kb_listener_manager_create(struct kb_server_context *server)
{
    struct kb_listener_manager *manager = kb_calloc(1, sizeof(*manager));

    KB_OBJ_SET(manager, kb_listener_manager);
    manager->server = server;
    manager->stats = kb_stat_group_create(server->stats, KB_STR("listener_manager."),
                                          &kb_stat_schema_listener_manager);
    return manager;
}

void kb_listener_manager_destroy(struct kb_listener_manager *manager)
{
    KB_VEC_FOREACH (listener, &manager->listeners) {
        kb_listener_destroy(*listener);
    }
    if (manager->admin != NULL) {
        kb_listener_destroy(manager->admin);
    }
    kb_vec_dispose(&manager->listeners);
    kb_stat_group_destroy(manager->stats);
    KB_OBJ_CLEAR(manager);
    free(manager);
}

int kb_listener_manager_add(struct kb_listener_manager *manager,
                            const struct Envoy__Config__Listener__V3__Listener *message,
                            struct kb_diag *diag)
{
    struct kb_listener *listener = kb_listener_create(manager->server, message, diag);

    if (listener == NULL) {
        return KB_ECONFIG;
    }
    kb_vec_push(&manager->listeners, listener);
    kb_stat_inc(stats_of(manager), KB_STAT_LISTENER_MANAGER_LISTENER_ADDED);
    return 0;
}

static struct kb_str bind_error(struct kb_arena *arena, const struct kb_listener *listener,
                                int errno_value, const char *what)
{
    char text[KB_ADDR_TEXT_MAX];
    struct kb_str addr = kb_addr_text(&listener->addr, text);

    return kb_str_printf(arena, "cannot %s '%.*s': %s", what, KB_STR_ARG(addr),
                         strerror(errno_value));
}

int kb_listener_manager_update(struct kb_listener_manager *manager,
                               const struct Envoy__Config__Listener__V3__Listener *message,
                               struct kb_str version, struct kb_diag *diag)
{
    const char *what = "bind";
    struct kb_listener *listener;

    (void)version;
    if (manager->started) {
        kb_diag_error(diag, "listeners cannot be changed once the workers have started");
        return KB_ECONFIG;
    }
    KB_TRY(kb_listener_manager_add(manager, message, diag));
    listener = manager->listeners.items[manager->listeners.len - 1];
    if (kb_listener_bind(listener, &what) != 0) {
        struct kb_str error = bind_error(&diag->arena, listener, errno, what);

        kb_stat_inc(stats_of(manager), KB_STAT_LISTENER_MANAGER_LISTENER_CREATE_FAILURE);
        kb_diag_error(diag, "%.*s", KB_STR_ARG(error));
        manager->listeners.len--;
        kb_listener_destroy(listener);
        return KB_ECONFIG;
    }
    return 0;
}

int kb_listener_manager_remove(struct kb_listener_manager *manager, struct kb_str name)
{
    (void)manager;
    (void)name;
    return KB_ENOTFOUND;
}

int kb_listener_manager_bind(struct kb_listener_manager *manager, struct kb_diag *diag)
{
    KB_VEC_FOREACH (at, &manager->listeners) {
        struct kb_listener *listener = *at;
        const char *what = "bind";

        if (kb_listener_bind(listener, &what) != 0) {
            struct kb_str error = bind_error(&diag->arena, listener, errno, what);

            kb_stat_inc(stats_of(manager), KB_STAT_LISTENER_MANAGER_LISTENER_CREATE_FAILURE);
            kb_diag_error(diag, "%.*s", KB_STR_ARG(error));
        }
    }
    kb_stat_gauge_set(stats_of(manager), KB_STAT_LISTENER_MANAGER_TOTAL_LISTENERS_ACTIVE,
                      manager->listeners.len);
    return kb_diag_result(diag);
}

int kb_listener_manager_add_admin(struct kb_listener_manager *manager, struct kb_listener *listener,
                                  struct kb_arena *arena, struct kb_str *error)
{
    const char *what = "bind";

    KB_ASSERT(manager->admin == NULL);
    manager->admin = listener;
    if (kb_listener_bind(listener, &what) != 0 || kb_listener_listen(listener) != 0) {
        *error = bind_error(arena, listener, errno, what);
        return KB_ECONFIG;
    }
    kb_listener_worker_start(&listener->workers[0]);
    return 0;
}

static void worker_start_posted(void *arg)
{
    kb_listener_worker_start(KB_CAST(arg, kb_listener_worker));
}

static void worker_stop_posted(void *arg)
{
    kb_listener_worker_stop(KB_CAST(arg, kb_listener_worker));
}

int kb_listener_manager_start(struct kb_listener_manager *manager, struct kb_arena *arena,
                              struct kb_str *error)
{
    struct kb_stat_block *stats = stats_of(manager);

    KB_VEC_FOREACH (at, &manager->listeners) {
        if (kb_listener_listen(*at) != 0) {
            *error = bind_error(arena, *at, errno, "listen");
            return KB_EADDRINUSE;
        }
    }
    manager->started = true;
    KB_VEC_FOREACH (at, &manager->listeners) {
        for (uint32_t i = 0; i < (*at)->worker_count; i++) {
            kb_loop_post(&(*at)->workers[i].worker->loop, worker_start_posted, &(*at)->workers[i]);
            kb_stat_inc(stats, KB_STAT_LISTENER_MANAGER_LISTENER_CREATE_SUCCESS);
        }
    }
    kb_stat_gauge_set(stats, KB_STAT_LISTENER_MANAGER_WORKERS_STARTED, 1);
    return 0;
}

void kb_listener_manager_stop_accepting(struct kb_listener_manager *manager, bool inbound_only)
{
    KB_VEC_FOREACH (at, &manager->listeners) {
        struct kb_listener *listener = *at;

        if (listener->stopped || (inbound_only && !listener->inbound)) {
            continue;
        }
        listener->stopped = true;
        kb_stat_inc(stats_of(manager), KB_STAT_LISTENER_MANAGER_LISTENER_STOPPED);
        for (uint32_t i = 0; i < listener->worker_count; i++) {
            kb_loop_post(&listener->workers[i].worker->loop, worker_stop_posted,
                         &listener->workers[i]);
        }
    }
}

static void worker_close(struct kb_listener *listener, struct kb_worker *worker)
{
    for (uint32_t i = 0; i < listener->worker_count; i++) {
        if (listener->workers[i].worker == worker) {
            kb_listener_worker_stop(&listener->workers[i]);
            kb_listener_worker_close_all(&listener->workers[i]);
        }
    }
}

void kb_listener_manager_worker_close(struct kb_listener_manager *manager, struct kb_worker *worker)
{
    KB_VEC_FOREACH (at, &manager->listeners) {
        worker_close(*at, worker);
    }
    if (manager->admin != NULL) {
        worker_close(manager->admin, worker);
    }
}

void kb_listener_manager_visit(const struct kb_listener_manager *manager,
                               void (*visit)(void *arg, const struct kb_listener *listener),
                               void *arg)
{
    KB_VEC_FOREACH (at, &manager->listeners) {
        visit(arg, *at);
    }
}
