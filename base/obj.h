/* SPDX-License-Identifier: Apache-2.0 */
/* Assertions, and the magic number that every long-lived struct starts with. A struct that is
 * passed through a `void *` has KB_OBJ as its first member, a KB_OBJ_MAGIC line, and is taken back
 * with KB_CAST, which aborts with file and line when the memory is something else. */
#pragma once

#include "base/compiler.h"

/* Prints the failed assertion to stderr and aborts. */
void kb_assert_fail(const char *expr, const char *file, int line,
                    const char *func) KB_NORETURN KB_COLD;

/* Counts an event that a correct program never sees (server.envoy_bug_failures); aborts when
 * KB_BUG_ABORTS is set at build time, as in test builds. */
void kb_bug(const char *expr, const char *file, int line) KB_COLD;

/* Bugs counted so far in this process. */
uint64_t kb_bug_count(void);

/* Always on. For invariants of our own, never for what a peer sent. */
#define KB_ASSERT(expr) \
    (KB_LIKELY(expr) ? (void)0 : kb_assert_fail(#expr, __FILE__, __LINE__, __func__))

#ifdef KB_DEBUG
#define KB_DASSERT(expr) KB_ASSERT(expr)
#else
#define KB_DASSERT(expr) ((void)0)
#endif

/* Evaluates to the condition; counts it as a bug when true. */
#define KB_BUG_IF(expr) (KB_UNLIKELY(expr) ? (kb_bug(#expr, __FILE__, __LINE__), 1) : 0)

#define KB_OBJ                   uint32_t kb_magic
#define KB_OBJ_MAGIC(tag, value) enum { KB_MAGIC_##tag = (int)(value) }
#define KB_OBJ_SET(ptr, tag)     ((ptr)->kb_magic = (uint32_t)KB_MAGIC_##tag)
#define KB_OBJ_CLEAR(ptr)        ((ptr)->kb_magic = 0)

KB_INLINE void *kb_obj_check(void *ptr, uint32_t magic, const char *file, int line,
                             const char *func)
{
    if (KB_UNLIKELY(ptr == NULL || *(const uint32_t *)ptr != magic)) {
        kb_assert_fail("object has the expected magic", file, line, func);
    }
    return ptr;
}

#define KB_CAST(ptr, tag) \
    ((struct tag *)kb_obj_check((ptr), (uint32_t)KB_MAGIC_##tag, __FILE__, __LINE__, __func__))
