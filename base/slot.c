/* SPDX-License-Identifier: Apache-2.0 */
/* Two counts: one a worker, without atomics, for those on it that use the object; and one for the
 * process, of the workers and publications that hold it. */
#include "base/slot.h"

#include <stdlib.h>

#include "base/mem.h"

#define CACHE_LINE 64

struct kb_shared_count {
    uint32_t count;
    uint8_t pad[CACHE_LINE - sizeof(uint32_t)];
};

/* ---- shared objects ---- */

void kb_shared_init(struct kb_shared *shared, struct kb_worker *main, uint32_t worker_count,
                    void (*destroy)(struct kb_shared *shared))
{
    KB_OBJ_SET(shared, kb_shared);
    shared->main = main;
    shared->destroy = destroy;
    shared->counts = kb_calloc(worker_count + 1, sizeof(*shared->counts));
    shared->counts[main->index].count = 1;
    shared->holders = 1;
}

void kb_shared_dispose(struct kb_shared *shared)
{
    KB_ASSERT(shared->holders == 0);
    free(shared->counts);
    KB_OBJ_CLEAR(shared);
}

static void destroy_posted(void *arg)
{
    struct kb_shared *shared = KB_CAST(arg, kb_shared);

    shared->destroy(shared);
}

static void holder_add(struct kb_shared *shared)
{
    __atomic_add_fetch(&shared->holders, 1, __ATOMIC_RELAXED);
}

static void holder_remove(struct kb_shared *shared)
{
    if (__atomic_sub_fetch(&shared->holders, 1, __ATOMIC_ACQ_REL) == 0) {
        kb_loop_post(&shared->main->loop, destroy_posted, shared);
    }
}

void kb_shared_ref(struct kb_shared *shared, const struct kb_worker *worker)
{
    if (shared->counts[worker->index].count++ == 0) {
        holder_add(shared);
    }
}

void kb_shared_unref(struct kb_shared *shared, const struct kb_worker *worker)
{
    KB_DASSERT(shared->counts[worker->index].count > 0);
    if (--shared->counts[worker->index].count == 0) {
        holder_remove(shared);
    }
}

void kb_shared_discard(struct kb_shared *shared)
{
    uint32_t *count = &shared->counts[shared->main->index].count;

    if (*count != 1 || __atomic_load_n(&shared->holders, __ATOMIC_ACQUIRE) != 1) {
        kb_shared_unref(shared, shared->main);
        return;
    }
    *count = 0;
    shared->holders = 0;
    shared->destroy(shared);
}

/* ---- slots ---- */

struct kb_slot {
    KB_OBJ;
    uint32_t worker_count;
    uint32_t holders; /* atomic: the main thread, and posts under way */
    struct kb_worker *main;
    struct kb_worker *workers;
    struct kb_shared *present[]; /* by worker index; each read and written on its worker only */
};
KB_OBJ_MAGIC(kb_slot, 0x534c4f54);

struct publication {
    struct kb_slot *slot;
    struct kb_worker *worker;
    struct kb_shared *shared; /* held for the worker */
};

struct kb_slot *kb_slot_create(struct kb_worker *main, struct kb_worker *workers,
                               uint32_t worker_count)
{
    struct kb_slot *slot =
        kb_calloc(1, sizeof(*slot) + (worker_count + 1) * sizeof(slot->present[0]));

    KB_OBJ_SET(slot, kb_slot);
    slot->worker_count = worker_count;
    slot->holders = 1;
    slot->main = main;
    slot->workers = workers;
    return slot;
}

static void slot_release(struct kb_slot *slot)
{
    if (__atomic_sub_fetch(&slot->holders, 1, __ATOMIC_ACQ_REL) == 0) {
        KB_OBJ_CLEAR(slot);
        free(slot);
    }
}

/* `shared` comes with a hold of the process-wide count, which becomes the worker's. */
static void slot_swap(struct kb_slot *slot, const struct kb_worker *worker,
                      struct kb_shared *shared)
{
    struct kb_shared *old = slot->present[worker->index];

    if (shared != NULL && shared->counts[worker->index].count++ > 0) {
        holder_remove(shared);
    }
    slot->present[worker->index] = shared;
    if (old != NULL) {
        kb_shared_unref(old, worker);
    }
}

static void publication_arrive(void *arg)
{
    struct publication *publication = arg;
    struct kb_slot *slot = publication->slot;

    KB_ASSERT(slot->kb_magic == (uint32_t)KB_MAGIC_kb_slot);
    slot_swap(slot, publication->worker, publication->shared);
    free(publication);
    slot_release(slot);
}

static void publish_to_worker(struct kb_slot *slot, struct kb_worker *worker,
                              struct kb_shared *shared)
{
    struct publication *publication = kb_calloc(1, sizeof(*publication));

    publication->slot = slot;
    publication->worker = worker;
    publication->shared = shared;
    if (shared != NULL) {
        holder_add(shared);
    }
    __atomic_add_fetch(&slot->holders, 1, __ATOMIC_RELAXED);
    kb_loop_post(&worker->loop, publication_arrive, publication);
}

void kb_slot_publish(struct kb_slot *slot, struct kb_shared *shared)
{
    KB_ASSERT(slot->kb_magic == (uint32_t)KB_MAGIC_kb_slot);
    for (uint32_t i = 0; i < slot->worker_count; i++) {
        publish_to_worker(slot, &slot->workers[i], shared);
    }
    if (shared != NULL) {
        holder_add(shared);
    }
    slot_swap(slot, slot->main, shared);
    if (shared != NULL) {
        kb_shared_unref(shared, slot->main);
    }
}

struct kb_shared *kb_slot_get(const struct kb_slot *slot, const struct kb_worker *worker)
{
    KB_DASSERT(slot->kb_magic == (uint32_t)KB_MAGIC_kb_slot);
    return slot->present[worker->index];
}

void kb_slot_destroy(struct kb_slot *slot)
{
    if (slot != NULL) {
        kb_slot_publish(slot, NULL);
        slot_release(slot);
    }
}
