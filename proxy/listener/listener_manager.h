/* SPDX-License-Identifier: Apache-2.0 */
/* All listeners of the process, on the main thread: adding, binding, warming, starting on the
 * workers, updating, draining, and walking over them for the admin pages. A listener that is
 * refused, or that never gets warm, leaves the one serving that it would have replaced. */
#pragma once

#include "proxy/listener/listener.h"

struct kb_listener_manager;

/* Never NULL. */
struct kb_listener_manager *kb_listener_manager_create(struct kb_server_context *server);
/* When the workers' threads have ended. */
void kb_listener_manager_destroy(struct kb_listener_manager *manager);

/* ---- the bootstrap's listeners ---- */

/* Builds a listener; a bad one is reported to diag (KB_ECONFIG). A second one of a name is ignored,
 * as in Envoy. */
int kb_listener_manager_add(struct kb_listener_manager *manager,
                            const struct Envoy__Config__Listener__V3__Listener *message,
                            struct kb_diag *diag) KB_MUST_USE;
/* kb_listener_manager_update: the control plane sent what is there already. */
#define KB_LISTENER_UNCHANGED 1

/* Adds or updates a listener of the control plane, with the version of its resource; what serves
 * goes on until the new one is ready. KB_ECONFIG after an error in diag: everything is as it was.
 */
int kb_listener_manager_update(struct kb_listener_manager *manager,
                               const struct Envoy__Config__Listener__V3__Listener *message,
                               struct kb_str version, struct kb_diag *diag) KB_MUST_USE;
/* Drains and removes one that came from the control plane; KB_ENOTFOUND. */
int kb_listener_manager_remove(struct kb_listener_manager *manager, struct kb_str name) KB_MUST_USE;
/* Takes over a listener made by kb_listener_create_admin; it starts at once. KB_ECONFIG with *error
 * set (in `arena`) when its address cannot be bound. */
int kb_listener_manager_add_admin(struct kb_listener_manager *manager, struct kb_listener *listener,
                                  struct kb_arena *arena, struct kb_str *error) KB_MUST_USE;
/* Where the admin listener is, with the port that the system chose. */
const struct kb_addr *kb_listener_manager_admin_address(const struct kb_listener_manager *manager);
/* Binds every listener's sockets; KB_ECONFIG after "cannot bind 'A:P': ..." was reported. Listeners
 * that come later are bound when they come. */
int kb_listener_manager_bind(struct kb_listener_manager *manager, struct kb_diag *diag) KB_MUST_USE;
/* The workers begin to accept; until then connections are refused. KB_EADDRINUSE with *error set
 * (in `arena`) when a socket cannot listen. */
int kb_listener_manager_start(struct kb_listener_manager *manager, struct kb_arena *arena,
                              struct kb_str *error) KB_MUST_USE;

/* ---- a control plane's listeners ---- */

/* kb_listener_manager_update: what is there already, or a name that is a static listener's. */
#define KB_LISTENER_UNCHANGED 1

/* Adds a listener, or updates the one of that name: warms it (factory->init), then puts it in place
 * of the old one, whose connections drain; when only filter chains differ, connections of unchanged
 * chains stay. KB_ECONFIG after an error in diag: everything is as it was. `version` is the
 * resource's. */
int kb_listener_manager_update(struct kb_listener_manager *manager,
                               const struct Envoy__Config__Listener__V3__Listener *message,
                               struct kb_str version, struct kb_diag *diag) KB_MUST_USE;
/* Accepts no more, drains connections over --drain-time-s, then closes them. KB_ENOTFOUND: no
 * listener of that name came from a control plane. */
int kb_listener_manager_remove(struct kb_listener_manager *manager, struct kb_str name) KB_MUST_USE;
/* ---- the end ---- */

/* Closes the listening sockets; connections go on. */
void kb_listener_manager_stop_accepting(struct kb_listener_manager *manager, bool inbound_only);
/* On the worker's own thread (for the main one: the admin listener): closes sockets and
 * connections, before its loop ends. */
void kb_listener_manager_worker_close(struct kb_listener_manager *manager,
                                      struct kb_worker *worker);

/* ---- looking ---- */

/* One name. Before the workers start, what waits for that counts as active, as in Envoy. */
struct kb_listener_view {
    struct kb_str name;
    bool dynamic;
    const struct kb_listener *active;   /* NULL: none */
    const struct kb_listener *warming;  /* NULL: none */
    const struct kb_listener *draining; /* NULL: none; the latest */
    const struct kb_addr *bound;        /* of the active one */
    size_t bound_count;
};

/* In the order of adding, the admin listener left out; then names that only drain. */
void kb_listener_manager_visit(const struct kb_listener_manager *manager,
                               void (*visit)(void *arg, const struct kb_listener_view *view),
                               void *arg);
