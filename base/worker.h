/* SPDX-License-Identifier: Apache-2.0 */
/* A worker: one thread, one loop, and everything that thread owns: freelists, random numbers,
 * statistics cells, and per-room state in slots. Index 0..count-1 are the traffic threads; the main
 * thread is a worker too, with index `count`, so that the same code serves the admin port there.
 * Nothing of a worker is touched by another thread except through kb_loop_post. */
#pragma once

#include "base/buf.h"
#include "base/loop.h"
#include "base/pool.h"
#include "base/rand.h"

#define KB_WORKERS_MAX       256
#define KB_ARENA_BLOCK_BYTES 4096 /* holds the state of an ordinary request */

/* State that a room keeps per worker: struct kb_worker.slots[...]. */
enum kb_worker_slot {
    KB_SLOT_CLUSTERS,  /* upstream: this worker's view of the clusters */
    KB_SLOT_LISTENERS, /* listener: this worker's listening sockets and connections */
    KB_SLOT_HTTP,      /* http: freelists and date cache */
    KB_SLOT_NETWORK,   /* network: connection freelist */
    KB_SLOT_ACCESS_LOG,
    KB_SLOT_TLS,         /* tls: library context */
    KB_SLOT_SHADOWS,     /* router: mirrored requests under way */
    KB_SLOT_GRPC,        /* grpc: HTTP/2 connections of gRPC streams */
    KB_SLOT_COMPRESSION, /* ext: what compression libraries hold */
    KB_SLOT_COUNT
};

struct kb_worker {
    KB_OBJ;
    uint32_t index;
    struct kb_loop loop;
    struct kb_rand rand;
    struct kb_slice_source slices;
    struct kb_pool arena_blocks;
    void *slots[KB_SLOT_COUNT];
    /* Set by the owner of a slot: bytes that it holds besides slices and arenas. */
    uint64_t (*slot_bytes[KB_SLOT_COUNT])(const struct kb_worker *worker);
    /* Set together with a slot: frees it when the worker ends. */
    void (*slot_dispose[KB_SLOT_COUNT])(struct kb_worker *worker);
    uint64_t connections_open; /* downstream and upstream, for the end-of-process check */
    uint32_t next_connection_id;
    pthread_t thread;
    bool started;
};
KB_OBJ_MAGIC(kb_worker, 0x574f524b);

/* Prepares a worker on caller's storage; KB_EIO when the kernel gives no descriptors. */
int kb_worker_init(struct kb_worker *worker, uint32_t index) KB_MUST_USE;
/* After its thread ended and its connections are closed. */
void kb_worker_dispose(struct kb_worker *worker);
/* Runs the loop on a new thread named "wrk:worker_N" until kb_worker_stop. */
int kb_worker_start(struct kb_worker *worker) KB_MUST_USE;
/* Bytes that the worker holds for connections and streams: the room of all slices and arena blocks
 * in use, and what owners of slots say. From any thread; of another's worker it is what was true a
 * moment ago. */
uint64_t kb_worker_bytes_in_use(const struct kb_worker *worker);
/* Asks the loop to end and waits for the thread. From the main thread. */
void kb_worker_join(struct kb_worker *worker);
