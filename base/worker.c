/* SPDX-License-Identifier: Apache-2.0 */
/* Workers: what a thread owns, and how it starts and ends. */
#include "base/worker.h"

#include <signal.h>
#include <stdio.h>

/* Idle objects kept for reuse: enough for bursts, little enough to forget. */
#define SLICES_IDLE_MAX       64
#define ARENA_BLOCKS_IDLE_MAX 128

int kb_worker_init(struct kb_worker *worker, uint32_t index)
{
    memset(worker, 0, sizeof(*worker));
    KB_OBJ_SET(worker, kb_worker);
    worker->index = index;
    KB_TRY(kb_loop_init(&worker->loop));
    kb_rand_init(&worker->rand, kb_rand_entropy());
    kb_slice_source_init(&worker->slices, SLICES_IDLE_MAX);
    kb_pool_init(&worker->arena_blocks, KB_ARENA_BLOCK_BYTES, ARENA_BLOCKS_IDLE_MAX);
    return 0;
}

void kb_worker_dispose(struct kb_worker *worker)
{
    KB_ASSERT(!worker->started);
    kb_loop_dispose(&worker->loop);
    /* After the close callbacks, which give objects back to these. */
    for (unsigned i = 0; i < KB_SLOT_COUNT; i++) {
        if (worker->slots[i] != NULL && worker->slot_dispose[i] != NULL) {
            worker->slot_dispose[i](worker);
        }
    }
    kb_slice_source_dispose(&worker->slices);
    kb_pool_dispose(&worker->arena_blocks);
    KB_OBJ_CLEAR(worker);
}

uint64_t kb_worker_bytes_in_use(const struct kb_worker *worker)
{
    uint64_t slices = __atomic_load_n(&worker->slices.bytes_in_use, __ATOMIC_RELAXED);
    uint64_t blocks = __atomic_load_n(&worker->arena_blocks.used_count, __ATOMIC_RELAXED);

    uint64_t bytes = slices + blocks * kb_pool_object_size(&worker->arena_blocks);

    for (size_t i = 0; i < KB_SLOT_COUNT; i++) {
        uint64_t (*slot_bytes)(const struct kb_worker *) =
            __atomic_load_n(&worker->slot_bytes[i], __ATOMIC_ACQUIRE);

        bytes += slot_bytes != NULL ? slot_bytes(worker) : 0;
    }
    return bytes;
}

static void *thread_main(void *arg)
{
    struct kb_worker *worker = KB_CAST(arg, kb_worker);

    kb_loop_run(&worker->loop);
    return NULL;
}

int kb_worker_start(struct kb_worker *worker)
{
    char name[16];
    sigset_t all, before;
    int rc;

    /* Signals are the main thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&worker->thread, NULL, thread_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        return KB_EIO;
    }
    worker->started = true;
    snprintf(name, sizeof(name), "wrk:worker_%u", worker->index % 1000);
    pthread_setname_np(worker->thread, name);
    return 0;
}

static void stop_posted(void *arg)
{
    kb_loop_stop(&KB_CAST(arg, kb_worker)->loop);
}

void kb_worker_join(struct kb_worker *worker)
{
    if (!worker->started) {
        return;
    }
    kb_loop_post(&worker->loop, stop_posted, worker);
    pthread_join(worker->thread, NULL);
    worker->started = false;
}
