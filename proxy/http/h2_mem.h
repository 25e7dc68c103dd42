/* SPDX-License-Identifier: Apache-2.0 */
/* Where nghttp2 takes its memory: freelists of a worker by size, so that streams and header fields
 * that come and go cost no call of the heap. */
#pragma once

#include "base/pool.h"
#include "base/worker.h"

#define KB_H2_MEM_CLASSES 8

/* One worker's; not thread-safe. */
struct kb_h2_mem {
    KB_OBJ;
    struct kb_pool classes[KB_H2_MEM_CLASSES];
    uint64_t
        windows_grown; /* bytes by which windows of this worker's streams grew beyond their first */
    uint64_t bytes_in_use; /* given out and not given back, with what rounding costs */
};
KB_OBJ_MAGIC(kb_h2_mem, 0x48324d45);

/* On caller's storage, which must outlive every session that uses it. */
void kb_h2_mem_init(struct kb_h2_mem *mem);
/* When everything was given back. */
void kb_h2_mem_dispose(struct kb_h2_mem *mem);

/* The worker's own. On it, until its slots are disposed. */
struct kb_h2_mem *kb_h2_mem_of(struct kb_worker *worker);

/* As malloc, calloc, realloc and free, with `mem` as the first or last argument: the functions that
 * nghttp2_mem asks for. Never NULL for lack of memory, which ends the process. */
void *kb_h2_mem_malloc(size_t size, void *mem);
void *kb_h2_mem_calloc(size_t count, size_t size, void *mem);
void *kb_h2_mem_realloc(void *memory, size_t size, void *mem);
void kb_h2_mem_free(void *memory, void *mem);
