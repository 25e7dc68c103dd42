/* SPDX-License-Identifier: Apache-2.0 */
/* The heap. Out of memory aborts with a message: limits are checked before memory is asked for. Not
 * for the request path, which lives on freelists and arenas. */
#pragma once

#include "base/compiler.h"

/* Never NULL. Uninitialised. free() releases it. */
void *kb_malloc(size_t size);
/* Never NULL. Zeroed. */
void *kb_calloc(size_t count, size_t size);
/* Never NULL. */
void *kb_realloc(void *ptr, size_t size);
/* Heap copy of a C string; NULL stays NULL. */
char *kb_strdup(const char *s);

/* Gives memory that nobody uses back to the system; takes milliseconds. After work that needed much
 * for a short time. */
void kb_mem_trim(void);
