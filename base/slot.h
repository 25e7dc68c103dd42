/* SPDX-License-Identifier: Apache-2.0 */
/* Immutable objects that the main thread builds and every worker uses (Envoy ThreadLocal::Slot). A
 * slot has one present object; publishing another swaps it on each worker between two events. A
 * connection or stream keeps the object with which it started by a count of its worker's own; when
 * no worker and no slot holds an object any more, it is destroyed on the main thread. */
#pragma once

#include "base/worker.h"

/* First member of what is published. */
struct kb_shared {
    KB_OBJ;
    struct kb_worker *main;
    /* Frees the object; on the main thread, from its loop. */
    void (*destroy)(struct kb_shared *shared);
    struct kb_shared_count *counts; /* by worker index; each on a cache line of its own */
    uint32_t holders;               /* atomic: workers and publications that hold it */
};
KB_OBJ_MAGIC(kb_shared, 0x53485244);

/* Prepares an object for `worker_count` workers and the main thread, which holds it once. Main
 * thread. */
void kb_shared_init(struct kb_shared *shared, struct kb_worker *main, uint32_t worker_count,
                    void (*destroy)(struct kb_shared *shared));
/* Keeps it; on a worker where a slot or a count holds it at this moment. */
void kb_shared_ref(struct kb_shared *shared, const struct kb_worker *worker);
/* Lets it go; on the same worker. */
void kb_shared_unref(struct kb_shared *shared, const struct kb_worker *worker);
/* Lets the main thread's hold go; when nobody else has one, the object is destroyed at once and not
 * from the loop: only where no caller up the stack belongs to it. Main thread. */
void kb_shared_discard(struct kb_shared *shared);
/* Frees what kb_shared_init took; from `destroy`. */
void kb_shared_dispose(struct kb_shared *shared);

struct kb_slot;

/* An empty slot for these workers and the main thread. Never NULL. Main thread. */
struct kb_slot *kb_slot_create(struct kb_worker *main, struct kb_worker *workers,
                               uint32_t worker_count);
/* Empties it on every worker; its memory goes when the last has done so. Main thread, when no
 * worker reads it any more except in posts that are under way. */
void kb_slot_destroy(struct kb_slot *slot);
/* From now on the main thread sees `shared` (NULL: none), and each worker from its next event on.
 * Takes over the main thread's hold of it. Main thread. */
void kb_slot_publish(struct kb_slot *slot, struct kb_shared *shared);
/* What `worker` sees, or NULL; valid until the present event ends, longer with kb_shared_ref. On
 * the worker. */
struct kb_shared *kb_slot_get(const struct kb_slot *slot, const struct kb_worker *worker);
