/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of cluster names. A number is held by the clusters of that name and by the routes that
 * name it; when nobody holds it any more, each worker forgets the name, and then the number may
 * stand for another one. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/upstream/cluster_manager_internal.h"

/* Names that workers are forgetting; one for all workers. */
struct slots_farewell {
    KB_OBJ;
    struct kb_cluster_manager *manager;
    uint32_t waiting; /* atomic: workers that have not forgotten them yet */
    uint32_t count;
    struct kb_cluster_slot *slots[];
};
KB_OBJ_MAGIC(slots_farewell, 0x464c544f);

struct farewell_order {
    struct slots_farewell *farewell;
    struct kb_worker *worker;
};

/* Nobody knows the names any more: back on the main thread. */
static void farewell_end(void *arg)
{
    struct slots_farewell *farewell = KB_CAST(arg, slots_farewell);

    for (uint32_t i = 0; i < farewell->count; i++) {
        kb_vec_push(&farewell->manager->free_numbers, farewell->slots[i]->number);
        free(farewell->slots[i]);
    }
    KB_OBJ_CLEAR(farewell);
    free(farewell);
}

static void names_forget(const struct slots_farewell *farewell, struct kb_worker *worker)
{
    for (uint32_t i = 0; i < farewell->count; i++) {
        kb_cluster_view_forget(worker, farewell->slots[i]);
    }
}

static void worker_forget(void *arg)
{
    struct farewell_order *order = arg;
    struct slots_farewell *farewell = order->farewell;

    names_forget(farewell, order->worker);
    free(order);
    if (__atomic_sub_fetch(&farewell->waiting, 1, __ATOMIC_ACQ_REL) == 0) {
        kb_loop_post(&farewell->manager->server->main->loop, farewell_end, farewell);
    }
}

static struct slots_farewell *farewell_create(struct kb_cluster_manager *manager)
{
    struct slots_farewell *farewell;
    uint32_t count = 0;

    KB_LIST_FOREACH (link, &manager->unused_slots) {
        (void)link;
        count++;
    }
    farewell = kb_calloc(1, sizeof(*farewell) + count * sizeof(farewell->slots[0]));
    KB_OBJ_SET(farewell, slots_farewell);
    farewell->manager = manager;
    farewell->waiting = manager->server->worker_count;
    return farewell;
}

void kb_cluster_slots_flush(struct kb_deferred *deferred)
{
    struct kb_cluster_manager *manager =
        KB_CONTAINER_OF(deferred, struct kb_cluster_manager, slots_flush);
    struct slots_farewell *farewell = farewell_create(manager);
    struct kb_list *link;

    kb_clusters_publish(manager); /* workers hear of what is removed first */
    pthread_mutex_lock(&manager->names.lock);
    while ((link = kb_list_pop_front(&manager->unused_slots)) != NULL) {
        struct kb_cluster_slot *slot = KB_LIST_ENTRY(link, struct kb_cluster_slot, unused_link);

        (void)kb_map_remove(&manager->names.map, kb_str_make(slot->name, slot->name_len));
        manager->slots.items[slot->number] = NULL;
        farewell->slots[farewell->count++] = slot;
    }
    pthread_mutex_unlock(&manager->names.lock);
    names_forget(farewell, manager->server->main);
    if (farewell->waiting == 0) {
        farewell_end(farewell);
        return;
    }
    for (uint32_t i = 0; i < manager->server->worker_count; i++) {
        struct farewell_order *order = kb_calloc(1, sizeof(*order));

        order->farewell = farewell;
        order->worker = &manager->server->workers[i];
        kb_loop_post(&order->worker->loop, worker_forget, order);
    }
}

static struct kb_cluster_slot *slot_create(struct kb_cluster_manager *manager, struct kb_str name)
{
    struct kb_cluster_slot *slot = kb_calloc(1, sizeof(*slot) + name.len + 1);

    memcpy(slot->name, name.p, name.len);
    slot->name_len = (uint32_t)name.len;
    if (manager->free_numbers.len > 0) {
        slot->number = manager->free_numbers.items[--manager->free_numbers.len];
        manager->slots.items[slot->number] = slot;
    } else {
        slot->number = (uint32_t)manager->slots.len;
        kb_vec_push(&manager->slots, slot);
    }
    pthread_mutex_lock(&manager->names.lock);
    kb_map_put(&manager->names.map, kb_str_make(slot->name, slot->name_len), slot);
    pthread_mutex_unlock(&manager->names.lock);
    return slot;
}

struct kb_cluster_slot *kb_cluster_slot_hold(struct kb_cluster_manager *manager, struct kb_str name)
{
    struct kb_cluster_slot *slot = kb_map_get(&manager->names.map, name);

    if (slot == NULL) {
        slot = slot_create(manager, name);
    }
    if (slot->refs++ == 0) {
        kb_list_unlink(&slot->unused_link);
    }
    return slot;
}

void kb_cluster_slot_let_go(struct kb_cluster_manager *manager, struct kb_cluster_slot *slot)
{
    KB_ASSERT(slot->refs > 0);
    if (--slot->refs == 0 && !manager->ending) {
        kb_list_push_back(&manager->unused_slots, &slot->unused_link);
        kb_loop_defer(&manager->server->main->loop, &manager->slots_flush);
    }
}

uint32_t kb_cluster_slot(struct kb_cluster_manager *manager, struct kb_str name)
{
    return kb_cluster_slot_hold(manager, name)->number;
}

void kb_cluster_slot_release(struct kb_cluster_manager *manager, uint32_t number)
{
    if (manager != NULL) { /* else the process ends */
        kb_cluster_slot_let_go(manager, manager->slots.items[number]);
    }
}
