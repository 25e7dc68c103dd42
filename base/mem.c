/* SPDX-License-Identifier: Apache-2.0 */
/* The heap, which never returns NULL. */
#include "base/mem.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *ptr, size_t size)
{
    if (KB_UNLIKELY(ptr == NULL)) {
        fprintf(stderr, "kobune: out of memory: %zu bytes could not be allocated\n", size);
        abort();
    }
    return ptr;
}

void *kb_malloc(size_t size)
{
    return checked(malloc(size > 0 ? size : 1), size);
}

void *kb_calloc(size_t count, size_t size)
{
    return checked(calloc(count > 0 ? count : 1, size > 0 ? size : 1), size);
}

void *kb_realloc(void *ptr, size_t size)
{
    return checked(realloc(ptr, size > 0 ? size : 1), size);
}

char *kb_strdup(const char *s)
{
    size_t len;
    char *copy;

    if (s == NULL) {
        return NULL;
    }
    len = strlen(s) + 1;
    copy = kb_malloc(len);
    memcpy(copy, s, len);
    return copy;
}

void kb_mem_trim(void)
{
    malloc_trim(0);
}
