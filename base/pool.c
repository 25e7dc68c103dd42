/* SPDX-License-Identifier: Apache-2.0 */
/* Freelists: the slow paths that touch the heap. */
#include "base/pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void kb_pool_init(struct kb_pool *pool, size_t object_size, size_t idle_max)
{
    memset(pool, 0, sizeof(*pool));
    pool->object_size = (uint32_t)KB_MAX(object_size, sizeof(struct kb_pool_item));
    pool->idle_max = (uint32_t)idle_max;
}

void kb_pool_trim(struct kb_pool *pool)
{
    while (pool->idle != NULL) {
        struct kb_pool_item *item = pool->idle;

        pool->idle = item->next;
        pool->idle_count--;
        free(item);
    }
}

void kb_pool_dispose(struct kb_pool *pool)
{
    KB_ASSERT(pool->used_count == 0);
    kb_pool_trim(pool);
}

void *kb_pool_acquire_slow(struct kb_pool *pool)
{
    pool->used_count++;
    return kb_malloc(pool->object_size);
}

void kb_pool_release_slow(struct kb_pool *pool, void *object)
{
    if (object == NULL) {
        return;
    }
    KB_ASSERT(pool->used_count > 0);
    pool->used_count--;
    free(object);
}
