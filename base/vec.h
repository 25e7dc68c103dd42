/* SPDX-License-Identifier: Apache-2.0 */
/* Growable array of any type: `KB_VEC(int) v; kb_vec_init(&v); kb_vec_push(&v, 3);
 * kb_vec_dispose(&v);`. Heap memory; for configuration, not for the request path. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define KB_VEC(type) \
    struct {         \
        type *items; \
        size_t len;  \
        size_t cap;  \
    }

#define kb_vec_init(v) memset((v), 0, sizeof(*(v)))

#define kb_vec_dispose(v) \
    do {                  \
        free((v)->items); \
        kb_vec_init(v);   \
    } while (0)

#define kb_vec_reserve(v, want)                                                  \
    do {                                                                         \
        size_t kb_vec_want_ = (want);                                            \
        if (kb_vec_want_ > (v)->cap) {                                           \
            (v)->cap = KB_MAX(kb_vec_want_, (v)->cap * 2);                       \
            (v)->items = kb_realloc((v)->items, (v)->cap * sizeof(*(v)->items)); \
        }                                                                        \
    } while (0)

#define kb_vec_push(v, item)             \
    do {                                 \
        kb_vec_reserve(v, (v)->len + 1); \
        (v)->items[(v)->len++] = (item); \
    } while (0)

#define KB_VEC_FOREACH(var, v)                                                                  \
    for (__typeof__(&*(v)->items) var = (v)->items; var != NULL && var < (v)->items + (v)->len; \
         var++)
