/* SPDX-License-Identifier: Apache-2.0 */
/* From the main thread's clusters to the workers' views: once per event, each worker gets one
 * message with all that changed, and nothing of what did not. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/upstream/cluster_manager_internal.h"
#include "proxy/upstream/cluster_type.h"
#include "proxy/upstream/host.h"

/* What one worker is to take over; its references are the worker's. */
struct publish_batch {
    KB_OBJ;
    struct kb_worker *worker;
    uint32_t count;
    struct {
        uint32_t number;
        struct kb_priority_set *set;
    } items[];
};
KB_OBJ_MAGIC(publish_batch, 0x50424348);

static void batch_apply(void *arg)
{
    struct publish_batch *batch = KB_CAST(arg, publish_batch);

    for (uint32_t i = 0; i < batch->count; i++) {
        kb_cluster_view_publish(batch->worker, batch->items[i].number, batch->items[i].set);
    }
    free(batch);
}

static void batch_send(struct kb_cluster_manager *manager, struct kb_worker *worker, uint32_t count)
{
    struct publish_batch *batch = kb_calloc(1, sizeof(*batch) + count * sizeof(batch->items[0]));

    KB_OBJ_SET(batch, publish_batch);
    batch->worker = worker;
    KB_LIST_FOREACH (link, &manager->dirty) {
        const struct kb_cluster_entry *entry =
            KB_LIST_ENTRY(link, struct kb_cluster_entry, dirty_link);

        batch->items[batch->count].number = entry->slot->number;
        batch->items[batch->count].set = entry->removed ? NULL : kb_priority_set_ref(entry->set);
        batch->count++;
    }
    if (worker == manager->server->main) {
        batch_apply(batch);
    } else {
        kb_loop_post(&worker->loop, batch_apply, batch);
    }
}

void kb_cluster_entry_retired_leave(struct kb_cluster_entry *entry, struct kb_priority_set *set)
{
    if (entry->retired.len > 0) {
        KB_BUG_IF(set->retired != NULL);
        set->retired = entry->retired.items;
        set->retired_count = (uint32_t)entry->retired.len;
        kb_vec_init(&entry->retired);
    }
}

void kb_cluster_entry_retire(struct kb_cluster_entry *entry, struct kb_shared_text *text)
{
    if (entry->published == NULL) {
        kb_shared_text_unref(text); /* no worker has seen it */
    } else if (text != NULL) {
        kb_vec_push(&entry->retired, text);
    }
}

void kb_clusters_publish(struct kb_cluster_manager *manager)
{
    uint32_t count = 0;
    struct kb_list *link;

    KB_LIST_FOREACH (at, &manager->dirty) {
        struct kb_cluster_entry *entry = KB_LIST_ENTRY(at, struct kb_cluster_entry, dirty_link);

        if (!entry->removed && entry->published != NULL) {
            kb_priority_set_find_removed(entry->set, entry->published);
        }
        count++;
    }
    if (count == 0) {
        return;
    }
    for (uint32_t i = 0; i < manager->server->worker_count; i++) {
        batch_send(manager, &manager->server->workers[i], count);
    }
    batch_send(manager, manager->server->main, count);
    while ((link = kb_list_pop_front(&manager->dirty)) != NULL) {
        struct kb_cluster_entry *entry = KB_LIST_ENTRY(link, struct kb_cluster_entry, dirty_link);

        if (entry->removed) {
            kb_cluster_entry_free(entry);
            continue;
        }
        entry->dirty = false;
        if (entry->published != NULL) {
            kb_cluster_entry_retired_leave(entry, entry->published);
            kb_priority_set_unref(entry->published);
        }
        entry->published = kb_priority_set_ref(entry->set);
    }
}

void kb_clusters_publish_deferred(struct kb_deferred *deferred)
{
    kb_clusters_publish(KB_CONTAINER_OF(deferred, struct kb_cluster_manager, flush));
}

void kb_cluster_entry_mark_dirty(struct kb_cluster_entry *entry)
{
    if (!entry->dirty) {
        entry->dirty = true;
        kb_list_push_back(&entry->manager->dirty, &entry->dirty_link);
        kb_loop_defer(&entry->manager->server->main->loop, &entry->manager->flush);
    }
}

/* ---- hosts that failed ---- */

/* A host that failed, on its way to a worker, whose connections to it are not used any more. */
struct failed_message {
    KB_OBJ;
    struct kb_host *host;
    struct kb_worker *worker;
};
KB_OBJ_MAGIC(failed_message, 0x4f464149);

static void failed_received(void *arg)
{
    struct failed_message *message = KB_CAST(arg, failed_message);

    kb_host_notify_failed(message->host, message->worker);
    kb_host_unref(message->host);
    KB_OBJ_CLEAR(message);
    free(message);
}

static void failed_send(struct kb_host *host, struct kb_worker *worker)
{
    struct failed_message *message = kb_calloc(1, sizeof(*message));

    KB_OBJ_SET(message, failed_message);
    message->host = kb_host_ref(host);
    message->worker = worker;
    kb_loop_post(&worker->loop, failed_received, message);
}

void kb_host_failed(struct kb_host *host, struct kb_server_context *server)
{
    for (uint32_t i = 0; i < server->worker_count; i++) {
        failed_send(host, &server->workers[i]);
    }
    failed_send(host, server->main);
}
