/* SPDX-License-Identifier: Apache-2.0 */
/* Arenas: bump allocation in blocks of a worker's pool or of the heap. */
#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define HEAP_BLOCK_MIN 1024
#define HEAP_BLOCK_MAX 65536
/* A block larger than the pool's carries this flag in `cap`, so that dispose frees it to the heap.
 */
#define FROM_HEAP      ((size_t)1 << (sizeof(size_t) * 8 - 1))

void kb_arena_init(struct kb_arena *arena, struct kb_pool *pool)
{
    memset(arena, 0, sizeof(*arena));
    arena->pool = pool;
}

void kb_arena_dispose(struct kb_arena *arena)
{
    struct kb_arena_block *block = arena->blocks;

    while (block != NULL) {
        struct kb_arena_block *next = block->next;

        if (block->cap & FROM_HEAP) {
            free(block);
        } else {
            kb_pool_release(arena->pool, block);
        }
        block = next;
    }
    arena->at = NULL;
    arena->end = NULL;
    arena->blocks = NULL;
    arena->bytes = 0;
}

static struct kb_arena_block *block_new(struct kb_arena *arena, size_t payload)
{
    struct kb_arena_block *block;

    if (arena->pool != NULL && payload + sizeof(*block) <= kb_pool_object_size(arena->pool)) {
        block = kb_pool_acquire(arena->pool);
        block->cap = kb_pool_object_size(arena->pool) - sizeof(*block);
        return block;
    }
    if (arena->pool == NULL) {
        size_t grown = KB_MIN(KB_MAX(arena->bytes, HEAP_BLOCK_MIN), HEAP_BLOCK_MAX);

        payload = KB_MAX(payload, grown - sizeof(*block));
    }
    block = kb_malloc(payload + sizeof(*block));
    block->cap = payload | FROM_HEAP;
    return block;
}

void *kb_arena_alloc_slow(struct kb_arena *arena, size_t size, size_t align)
{
    struct kb_arena_block *block = block_new(arena, size + align);
    size_t cap = block->cap & ~FROM_HEAP;
    char *start = (char *)(block + 1);
    uintptr_t at = ((uintptr_t)start + (align - 1)) & ~(uintptr_t)(align - 1);
    size_t left = (size_t)((uintptr_t)start + cap - (at + size));

    block->next = arena->blocks;
    arena->blocks = block;
    arena->bytes += cap + sizeof(*block);
    /* Keep bumping in whichever block has more room left. */
    if (arena->at == NULL || left > (size_t)(arena->end - arena->at)) {
        arena->at = (char *)(at + size);
        arena->end = start + cap;
    }
    return (void *)at;
}

void *kb_arena_calloc(struct kb_arena *arena, size_t size)
{
    void *p = kb_arena_alloc(arena, size, sizeof(void *) * 2);

    memset(p, 0, size);
    return p;
}
