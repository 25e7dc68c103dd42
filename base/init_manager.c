/* SPDX-License-Identifier: Apache-2.0 */
/* A list of what is not ready; empty after the start means done. */
#include "base/init_manager.h"

#include <stddef.h>

#include "base/compiler.h"

void kb_init_manager_init(struct kb_init_manager *manager)
{
    KB_OBJ_SET(manager, kb_init_manager);
    kb_list_init(&manager->targets);
    manager->done = NULL;
    manager->arg = NULL;
    manager->started = false;
    manager->finished = false;
}

static void target_leave(struct kb_init_target *target)
{
    kb_list_unlink(&target->link);
    target->manager = NULL;
}

void kb_init_manager_dispose(struct kb_init_manager *manager)
{
    while (!kb_list_empty(&manager->targets)) {
        target_leave(KB_LIST_ENTRY(manager->targets.next, struct kb_init_target, link));
    }
    manager->finished = true;
    KB_OBJ_CLEAR(manager);
}

static void manager_check(struct kb_init_manager *manager)
{
    if (manager->started && !manager->finished && kb_list_empty(&manager->targets)) {
        manager->finished = true;
        if (manager->done != NULL) {
            manager->done(manager->arg);
        }
    }
}

static void target_start(struct kb_init_target *target)
{
    target->started = true;
    if (target->start != NULL) {
        target->start(target);
    }
}

/* The first target that was not started, or NULL. A start may make others ready, or add some. */
static struct kb_init_target *next_to_start(struct kb_init_manager *manager)
{
    KB_LIST_FOREACH (link, &manager->targets) {
        struct kb_init_target *target = KB_LIST_ENTRY(link, struct kb_init_target, link);

        if (!target->started) {
            return target;
        }
    }
    return NULL;
}

void kb_init_manager_start(struct kb_init_manager *manager, kb_init_done_cb done, void *arg)
{
    struct kb_init_target *target;

    KB_ASSERT(!manager->started);
    manager->done = done;
    manager->arg = arg;
    while ((target = next_to_start(manager)) != NULL) {
        target_start(target);
    }
    manager->started = true;
    manager_check(manager);
}

void kb_init_target_init(struct kb_init_target *target, const char *name, kb_init_start_cb start)
{
    KB_OBJ_SET(target, kb_init_target);
    target->link.next = NULL;
    target->link.prev = NULL;
    target->manager = NULL;
    target->start = start;
    target->name = name;
    target->started = false;
}

void kb_init_manager_add(struct kb_init_manager *manager, struct kb_init_target *target)
{
    KB_ASSERT(target->manager == NULL && !target->started);
    if (manager == NULL || manager->finished) {
        target_start(target);
        return;
    }
    target->manager = manager;
    kb_list_push_back(&manager->targets, &target->link);
    if (manager->started) {
        target_start(target);
    }
}

void kb_init_target_ready(struct kb_init_target *target)
{
    struct kb_init_manager *manager = target->manager;

    if (manager != NULL) {
        target_leave(target);
        manager_check(manager);
    }
}

void kb_init_target_dispose(struct kb_init_target *target)
{
    kb_init_target_ready(target);
    KB_OBJ_CLEAR(target);
}
