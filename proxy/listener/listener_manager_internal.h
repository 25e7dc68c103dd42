/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the listener manager share. Main thread. */
#pragma once

#include "base/map.h"
#include "proxy/listener/listener_internal.h"
#include "proxy/listener/listener_manager.h"

/* One name: what runs, and what is to run. */
struct kb_listener_entry {
    struct kb_list link;
    struct kb_listener_manager *manager;
    struct kb_active_listener *active; /* NULL: nothing yet */
    struct kb_listener *next;          /* waits to be warm, or for the workers; NULL: nothing */
    struct kb_listen_sockets *next_sockets;
    bool in_place; /* `next` differs from what runs in filter chains only */
    struct kb_str name;
    char name_bytes[];
};

struct kb_listener_manager {
    KB_OBJ;
    struct kb_server_context *server;
    struct kb_list entries;
    struct kb_map by_name;   /* struct kb_listener_entry */
    struct kb_list draining; /* struct kb_active_listener */
    struct kb_list groups;   /* of filter chains that drain */
    struct kb_active_listener *admin;
    struct kb_stat_group *stats;
    bool bound; /* the bootstrap's listeners are: whoever comes is bound at once */
    bool started;
};
KB_OBJ_MAGIC(kb_listener_manager, 0x4c4d4752);

/* The main thread's cells of listener_manager.*. */
struct kb_stat_block *kb_listener_manager_stats(struct kb_listener_manager *manager);
/* An entry of that name at the end of the list; `next` and what else there is sets the caller. */
struct kb_listener_entry *kb_listener_entry_create(struct kb_listener_manager *manager,
                                                   struct kb_str name);
/* Adds to total_listeners_active and _warming what this entry counts for, or takes it away. */
void kb_listener_entry_count(struct kb_listener_entry *entry, bool add);
/* "cannot bind 'A:P': Address already in use", of errno. */
struct kb_str kb_listener_bind_error(struct kb_arena *arena, const struct kb_addr *addr,
                                     const char *what);
/* `entry->next` is warm, and the workers run: puts it in place. */
void kb_listener_entry_activate(struct kb_listener_entry *entry);
/* Frees an entry, not what it runs. `running`: the workers are. */
void kb_listener_entry_free(struct kb_listener_entry *entry, bool running);

/* ---- listener_drain.c ---- */

/* It accepts no more, or another one goes on with its sockets: its connections drain, then it
 * goes. */
void kb_listener_drain_begin(struct kb_listener_manager *manager,
                             struct kb_active_listener *active);
/* Drains the chains of `old` that `active` has no more. */
void kb_listener_drain_chains(struct kb_listener_manager *manager,
                              struct kb_active_listener *active, const struct kb_listener *old);
/* Forgets what drains; the workers' threads have ended. */
void kb_listener_drain_dispose(struct kb_listener_manager *manager);
