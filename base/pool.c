/* SPDX-License-Identifier: Apache-2.0 */
/* Freelists: the slow paths that touch the heap. */
#include "base/pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KB_ADDRESS_SANITIZER 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define KB_ADDRESS_SANITIZER 1
#endif
#ifndef KB_ADDRESS_SANITIZER
#define KB_ADDRESS_SANITIZER 0
#endif

void kb_pool_init(struct kb_pool *pool, size_t object_size, size_t idle_max)
{
    memset(pool, 0, sizeof(*pool));
    pool->object_size = (uint32_t)KB_MAX(object_size, sizeof(struct kb_pool_item));
    /* What is reused hides from AddressSanitizer that it was released. */
    pool->idle_max = KB_ADDRESS_SANITIZER ? 0 : (uint32_t)idle_max;
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
