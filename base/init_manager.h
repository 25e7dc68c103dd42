/* SPDX-License-Identifier: Apache-2.0 */
/* What has to be there before something may begin (Envoy Init::Manager and Init::Target): a
 * listener waits for its routes and secrets, a cluster for its endpoints. Main thread. */
#pragma once

#include "base/list.h"
#include "base/obj.h"

struct kb_init_target;

typedef void (*kb_init_done_cb)(void *arg);
typedef void (*kb_init_start_cb)(struct kb_init_target *target);

/* On caller's storage. Ready once when it was started and every target of it is ready. */
struct kb_init_manager {
    KB_OBJ;
    struct kb_list targets; /* those that are not ready */
    kb_init_done_cb done;
    void *arg;
    bool started;
    bool finished;
};
KB_OBJ_MAGIC(kb_init_manager, 0x494e4954);

/* One thing waited for; part of whoever fetches it. */
struct kb_init_target {
    KB_OBJ;
    struct kb_list link;
    struct kb_init_manager *manager; /* NULL: in none, or ready */
    kb_init_start_cb start;
    const char *name; /* for /init_dump, as Envoy names it, a line for each thing; lives as
                         long as the target */
    bool started;
};
KB_OBJ_MAGIC(kb_init_target, 0x49544754);

/* Prepares an empty one on caller's storage. */
void kb_init_manager_init(struct kb_init_manager *manager);
/* Lets go of targets that are not ready; `done` is not called any more. */
void kb_init_manager_dispose(struct kb_init_manager *manager);
/* Starts every target, in the order of adding. `done` is called once, when the last is ready; maybe
 * from within. */
void kb_init_manager_start(struct kb_init_manager *manager, kb_init_done_cb done, void *arg);

/* `start` (may be NULL) begins to fetch; it is called when the manager starts, at once when it has
 * started already. */
void kb_init_target_init(struct kb_init_target *target, const char *name, kb_init_start_cb start);
/* Adds to a manager that is not finished; NULL or a finished one: the target is started and nobody
 * waits for it. */
void kb_init_manager_add(struct kb_init_manager *manager, struct kb_init_target *target);
/* It is there, or it is known that it will not come. Harmless when repeated. */
void kb_init_target_ready(struct kb_init_target *target);
/* Whoever fetches goes away; counts as ready. Harmless when repeated. */
void kb_init_target_dispose(struct kb_init_target *target);
