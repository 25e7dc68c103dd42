/* SPDX-License-Identifier: Apache-2.0 */
/* Freelist of objects of one size, owned by one worker; not thread-safe. Objects come from the heap
 * and go back to the list; beyond `idle_max` idle objects they go back to the heap. */
#pragma once

#include "base/obj.h"

struct kb_pool_item {
    struct kb_pool_item *next;
};

struct kb_pool {
    struct kb_pool_item *idle;
    uint32_t object_size;
    uint32_t idle_count;
    uint32_t idle_max;
    uint32_t used_count; /* acquired and not released */
};

/* `object_size` bytes each (raised to a pointer's size); keeps at most idle_max for reuse. */
void kb_pool_init(struct kb_pool *pool, size_t object_size, size_t idle_max);

/* Frees the idle objects. Every object must have been released. */
void kb_pool_dispose(struct kb_pool *pool);

/* Gives all idle objects back to the heap. */
void kb_pool_trim(struct kb_pool *pool);

/* Slow paths of kb_pool_acquire and kb_pool_release: the heap. */
void *kb_pool_acquire_slow(struct kb_pool *pool);
/* NULL is allowed. */
void kb_pool_release_slow(struct kb_pool *pool, void *object);

KB_INLINE size_t kb_pool_object_size(const struct kb_pool *pool)
{
    return pool->object_size;
}

/* Never NULL. Uninitialised memory, most recently released first. */
KB_INLINE void *kb_pool_acquire(struct kb_pool *pool)
{
    struct kb_pool_item *item = pool->idle;

    if (KB_UNLIKELY(item == NULL)) {
        return kb_pool_acquire_slow(pool);
    }
    pool->idle = item->next;
    __builtin_prefetch(item->next); /* the next one's link is read when it is taken */
    pool->idle_count--;
    pool->used_count++;
    return item;
}

/* Gives an object back; NULL is allowed. */
KB_INLINE void kb_pool_release(struct kb_pool *pool, void *object)
{
    struct kb_pool_item *item = object;

    if (KB_UNLIKELY(item == NULL || pool->idle_count >= pool->idle_max)) {
        kb_pool_release_slow(pool, object);
        return;
    }
    KB_DASSERT(pool->used_count > 0);
    item->next = pool->idle;
    pool->idle = item;
    pool->idle_count++;
    pool->used_count--;
}
