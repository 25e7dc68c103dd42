/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is given back all at once: one arena per stream, per decoded resource, per
 * diagnostic. Blocks come from a worker's block pool (streams) or from the heap (configuration). */
#pragma once

#include "base/obj.h"
#include "base/pool.h"

struct kb_arena_block {
    struct kb_arena_block *next;
    size_t cap; /* bytes after this header */
};

struct kb_arena {
    char *at;  /* next free byte */
    char *end; /* end of the current block */
    struct kb_arena_block *blocks;
    struct kb_pool *pool; /* NULL: heap blocks */
    size_t bytes;         /* bytes of all blocks, for accounting */
};

/* An empty arena on caller's storage; allocates nothing yet. `pool` gives blocks of its object size
 * and must outlive the arena; NULL takes blocks from the heap. Requests larger than a block go to
 * the heap. */
void kb_arena_init(struct kb_arena *arena, struct kb_pool *pool);

/* Gives every block back. The arena is empty and usable afterwards. */
void kb_arena_dispose(struct kb_arena *arena);

/* Slow path of kb_arena_alloc: takes a new block. */
void *kb_arena_alloc_slow(struct kb_arena *arena, size_t size, size_t align);

/* Never NULL. Uninitialised; aligned to `align` (a power of two). Lives until dispose. */
KB_INLINE void *kb_arena_alloc(struct kb_arena *arena, size_t size, size_t align)
{
    uintptr_t at = ((uintptr_t)arena->at + (align - 1)) & ~(uintptr_t)(align - 1);

    if (KB_LIKELY(arena->at != NULL && at <= (uintptr_t)arena->end &&
                  size <= (uintptr_t)arena->end - at)) {
        arena->at = (char *)(at + size);
        return (void *)at;
    }
    return kb_arena_alloc_slow(arena, size, align);
}

/* Zeroed memory, aligned for any type. */
void *kb_arena_calloc(struct kb_arena *arena, size_t size);

#define KB_ARENA_NEW(arena, type) ((type *)kb_arena_calloc((arena), sizeof(type)))
