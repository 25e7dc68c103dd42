/* SPDX-License-Identifier: Apache-2.0 */
/* All listeners of the process, on the main thread: adding, binding, starting on the workers,
 * draining, and walking over them for the admin pages. */
#pragma once

#include "proxy/listener/listener.h"

struct kb_listener_manager;

/* Never NULL. */
struct kb_listener_manager *kb_listener_manager_create(struct kb_server_context *server);
/* When the workers' threads have ended. */
void kb_listener_manager_destroy(struct kb_listener_manager *manager);

/* Builds a listener; a bad one is reported to diag (KB_ECONFIG). */
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

/* Binds every listener's sockets; KB_ECONFIG after "cannot bind 'A:P': ..." was reported. */
int kb_listener_manager_bind(struct kb_listener_manager *manager, struct kb_diag *diag) KB_MUST_USE;
/* The workers begin to accept; until then connections are refused. KB_EADDRINUSE with *error set
 * (in `arena`) when a socket cannot listen. */
int kb_listener_manager_start(struct kb_listener_manager *manager, struct kb_arena *arena,
                              struct kb_str *error) KB_MUST_USE;
/* Closes the listening sockets; connections go on. */
void kb_listener_manager_stop_accepting(struct kb_listener_manager *manager, bool inbound_only);
/* On the worker's own thread (for the main one: the admin listener): closes sockets and
 * connections, before its loop ends. */
void kb_listener_manager_worker_close(struct kb_listener_manager *manager,
                                      struct kb_worker *worker);

/* In the order of adding, the admin listener left out. */
void kb_listener_manager_visit(const struct kb_listener_manager *manager,
                               void (*visit)(void *arg, const struct kb_listener *listener),
                               void *arg);
