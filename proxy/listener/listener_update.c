/* SPDX-License-Identifier: Apache-2.0 */
/* Adding, updating and removing listeners while others run (Envoy ListenerManagerImpl::
 * addOrUpdateListener): what waits to be warm, and how it takes the place of what runs. */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "proto/message_hash.h"
#include "proto/pb.h"
#include "proto/wkt.h"
#include "proxy/listener/listener_manager_internal.h"

/* ---- taking the place of what runs ---- */

/* from_below: called by what it waits for, which may not go while it calls. */
static void next_drop(struct kb_listener_entry *entry, bool from_below)
{
    struct kb_listener *next = entry->next;

    if (next != NULL) {
        entry->next = NULL;
        kb_init_target_dispose(&next->startup);
        kb_init_manager_dispose(&next->init);
        if (from_below) {
            kb_listener_unref(next);
        } else {
            kb_listener_discard(next);
        }
    }
    kb_listen_sockets_unref(entry->next_sockets, true);
    entry->next_sockets = NULL;
}

static void created_count(struct kb_listener_manager *manager)
{
    kb_stat_add(kb_listener_manager_stats(manager),
                KB_STAT_LISTENER_MANAGER_LISTENER_CREATE_SUCCESS, manager->server->worker_count);
}

static void replace_in_place(struct kb_listener_entry *entry)
{
    struct kb_listener_manager *manager = entry->manager;
    struct kb_listener *old = entry->active->listener;

    kb_shared_ref(&old->shared, manager->server->main);
    kb_active_listener_replace(entry->active, entry->next);
    kb_listener_drain_chains(manager, entry->active, old);
    kb_listener_unref(old);
    kb_listen_sockets_unref(entry->next_sockets, true);
    kb_stat_inc(kb_listener_manager_stats(manager),
                KB_STAT_LISTENER_MANAGER_LISTENER_IN_PLACE_UPDATED);
}

static void replace_whole(struct kb_listener_entry *entry)
{
    struct kb_listener_manager *manager = entry->manager;
    struct kb_active_listener *old = entry->active;
    bool same_sockets = old != NULL && old->sockets != NULL && old->sockets == entry->next_sockets;

    entry->active = kb_active_listener_create(entry->next, entry->next_sockets);
    kb_active_listener_start(entry->active);
    if (old != NULL) {
        kb_active_listener_stop(old, same_sockets);
        kb_listener_drain_begin(manager, old);
    }
}

void kb_listener_entry_activate(struct kb_listener_entry *entry)
{
    struct kb_listener_manager *manager = entry->manager;
    const char *what = "listen";

    KB_ASSERT(manager->started && entry->next != NULL);
    if (entry->next_sockets != NULL &&
        kb_listen_sockets_listen(entry->next_sockets, entry->next, &what) != 0) {
        KB_LOG(CONFIG, ERROR, "listener '%.*s' is not used: cannot %s: %s", KB_STR_ARG(entry->name),
               what, strerror(errno));
        kb_stat_inc(kb_listener_manager_stats(manager),
                    KB_STAT_LISTENER_MANAGER_LISTENER_CREATE_FAILURE);
        next_drop(entry, true);
        return;
    }
    if (entry->in_place) {
        replace_in_place(entry);
    } else {
        replace_whole(entry);
    }
    created_count(manager);
    entry->next = NULL;
    entry->next_sockets = NULL;
}

static void warmed(void *arg)
{
    struct kb_listener_entry *entry = arg;

    kb_listener_entry_count(entry, false);
    kb_listener_entry_activate(entry);
    kb_listener_entry_count(entry, true);
}

/* Before the workers start: the server waits for what this listener waits for. */
static void startup_ready(void *arg)
{
    kb_init_target_ready(KB_CAST(arg, kb_init_target));
}

static void startup_begin(struct kb_init_target *target)
{
    struct kb_listener *listener = KB_CONTAINER_OF(target, struct kb_listener, startup);

    kb_init_manager_start(&listener->init, startup_ready, target);
}

static void warm(struct kb_listener_entry *entry)
{
    struct kb_listener *next = entry->next;

    if (entry->manager->started) {
        kb_init_manager_start(&next->init, warmed, entry);
        return;
    }
    kb_init_target_init(&next->startup, "listener", startup_begin);
    kb_init_manager_add(entry->manager->server->init, &next->startup);
}

/* ---- adding and updating ---- */

static bool address_in(const struct kb_listener *listener, const struct kb_addr *addr)
{
    for (size_t i = 0; listener != NULL && i < listener->addr_count; i++) {
        if (kb_addr_eq(&listener->addrs[i].addr, addr) &&
            (!kb_addr_is_ip(addr) || kb_addr_port(addr) != 0)) {
            return true;
        }
    }
    return false;
}

static struct kb_str addresses_text(const struct kb_listener *listener, struct kb_arena *arena)
{
    struct kb_str text = KB_STR_NULL;

    for (size_t i = 0; i < listener->addr_count; i++) {
        char one[KB_ADDR_TEXT_MAX];
        struct kb_str addr = kb_addr_text(&listener->addrs[i].addr, one);

        text = i == 0 ? kb_str_dup(arena, addr)
                      : kb_str_printf(arena, "%.*s,%.*s", KB_STR_ARG(text), KB_STR_ARG(addr));
    }
    return text;
}

static bool duplicate_check(struct kb_listener_manager *manager,
                            const struct kb_listener_entry *own, const struct kb_listener *listener,
                            struct kb_diag *diag)
{
    KB_LIST_FOREACH (link, &manager->entries) {
        const struct kb_listener_entry *entry = KB_LIST_ENTRY(link, struct kb_listener_entry, link);

        for (size_t i = 0; entry != own && i < listener->addr_count; i++) {
            const struct kb_addr *addr = &listener->addrs[i].addr;

            if (address_in(entry->next, addr) ||
                (entry->active != NULL && address_in(entry->active->listener, addr))) {
                struct kb_str text = addresses_text(listener, &diag->arena);

                kb_diag_error(diag,
                              "error adding listener: '%.*s' has duplicate address '%.*s' as "
                              "existing listener, to check if the listener has duplicated "
                              "addresses with other listeners or 'enable_reuse_port' is set to "
                              "'false' for the listener",
                              KB_STR_ARG(listener->name), KB_STR_ARG(text));
                return false;
            }
        }
    }
    return true;
}

/* The sockets for a new version: those that are there, when they fit; *sockets NULL: none needed
 * yet. */
static int sockets_get(struct kb_listener_manager *manager, struct kb_listener_entry *entry,
                       const struct kb_listener *listener, struct kb_listen_sockets **sockets,
                       struct kb_diag *diag)
{
    const struct kb_addr *addr = NULL;
    const char *what = "bind";

    *sockets = NULL;
    if (!listener->bind_to_port || !manager->bound) {
        return 0;
    }
    if (entry != NULL && entry->next_sockets != NULL &&
        kb_listen_sockets_fit(entry->next_sockets, listener)) {
        *sockets = kb_listen_sockets_ref(entry->next_sockets);
        return 0;
    }
    if (entry != NULL && entry->active != NULL && entry->active->sockets != NULL &&
        kb_listen_sockets_fit(entry->active->sockets, listener)) {
        *sockets = kb_listen_sockets_ref(entry->active->sockets);
        return 0;
    }
    *sockets = kb_listen_sockets_create(listener, &what, &addr);
    if (*sockets == NULL) {
        struct kb_str error = kb_listener_bind_error(&diag->arena, addr, what);

        kb_stat_inc(kb_listener_manager_stats(manager),
                    KB_STAT_LISTENER_MANAGER_LISTENER_CREATE_FAILURE);
        kb_diag_error(diag, "%.*s", KB_STR_ARG(error));
        return KB_ECONFIG;
    }
    return 0;
}

/* Only filter chains differ from what runs. */
static bool fits_in_place(const struct kb_listener_entry *entry,
                          const Envoy__Config__Listener__V3__Listener *m)
{
    return entry != NULL && entry->active != NULL && !entry->active->stopped &&
           m->n_filter_chains > 0 && entry->active->listener->chain_count > 0 &&
           entry->active->listener->hash_without_chains == kb_listener_hash_without_chains(m);
}

static bool is_there(const struct kb_listener *listener, uint64_t hash)
{
    return listener != NULL && (!listener->dynamic || listener->hash == hash);
}

/* Puts a version that is right in line. */
static void entry_put(struct kb_listener_manager *manager, struct kb_listener_entry *entry,
                      struct kb_listener *listener, struct kb_listen_sockets *sockets,
                      bool in_place)
{
    struct kb_stat_block *stats = kb_listener_manager_stats(manager);

    if (entry == NULL) {
        entry = kb_listener_entry_create(manager, listener->name);
        kb_stat_inc(stats, KB_STAT_LISTENER_MANAGER_LISTENER_ADDED);
    } else {
        kb_listener_entry_count(entry, false);
        next_drop(entry, false);
        kb_stat_inc(stats, KB_STAT_LISTENER_MANAGER_LISTENER_MODIFIED);
    }
    entry->next = listener;
    entry->next_sockets = sockets;
    entry->in_place = in_place;
    kb_listener_entry_count(entry, true);
    warm(entry);
}

static int update(struct kb_listener_manager *manager,
                  const Envoy__Config__Listener__V3__Listener *m, struct kb_str version,
                  bool dynamic, struct kb_diag *diag)
{
    struct kb_listener_entry *entry = kb_map_get(&manager->by_name, kb_wkt_str(m->name));
    uint64_t hash = kb_pb_hash(&m->base);
    struct kb_listen_sockets *sockets;
    struct kb_listener *listener;
    bool in_place;

    if (entry != NULL && (is_there(entry->next, hash) ||
                          (entry->active != NULL && is_there(entry->active->listener, hash)))) {
        return KB_LISTENER_UNCHANGED;
    }
    in_place = manager->started && fits_in_place(entry, m);
    listener =
        kb_listener_create(manager->server, m, in_place ? entry->active->listener : NULL, diag);
    if (listener == NULL) {
        return KB_ECONFIG;
    }
    listener->dynamic = dynamic;
    listener->version = kb_str_dup(&listener->arena, version);
    if (!duplicate_check(manager, entry, listener, diag) ||
        sockets_get(manager, entry, listener, &sockets, diag) != 0) {
        kb_listener_unref(listener);
        return KB_ECONFIG;
    }
    entry_put(manager, entry, listener, sockets, in_place);
    return 0;
}

int kb_listener_manager_add(struct kb_listener_manager *manager,
                            const struct Envoy__Config__Listener__V3__Listener *message,
                            struct kb_diag *diag)
{
    int rc = update(manager, message, KB_STR_NULL, false, diag);

    return rc == KB_LISTENER_UNCHANGED ? 0 : rc;
}

int kb_listener_manager_update(struct kb_listener_manager *manager,
                               const struct Envoy__Config__Listener__V3__Listener *message,
                               struct kb_str version, struct kb_diag *diag)
{
    return update(manager, message, version, true, diag);
}

int kb_listener_manager_remove(struct kb_listener_manager *manager, struct kb_str name)
{
    struct kb_listener_entry *entry = kb_map_get(&manager->by_name, name);
    const struct kb_listener *any;
    struct kb_active_listener *active;

    if (entry == NULL) {
        return KB_ENOTFOUND;
    }
    any = entry->next != NULL ? entry->next : entry->active->listener;
    if (!any->dynamic) {
        return KB_ENOTFOUND;
    }
    active = entry->active;
    kb_listener_entry_count(entry, false);
    kb_listener_entry_free(entry, true);
    if (active != NULL) {
        kb_active_listener_stop(active, false);
        kb_listener_drain_begin(manager, active);
    }
    kb_stat_inc(kb_listener_manager_stats(manager), KB_STAT_LISTENER_MANAGER_LISTENER_REMOVED);
    return 0;
}
