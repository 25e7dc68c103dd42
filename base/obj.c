/* SPDX-License-Identifier: Apache-2.0 */
/* What happens when an assertion fails. */
#include "base/obj.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t bug_count;

void kb_assert_fail(const char *expr, const char *file, int line, const char *func)
{
    fprintf(stderr, "kobune: assertion failed: %s, at %s:%d in %s\n", expr, file, line, func);
    abort();
}

void kb_bug(const char *expr, const char *file, int line)
{
    __atomic_add_fetch(&bug_count, 1, __ATOMIC_RELAXED);
    fprintf(stderr, "kobune: bug: %s, at %s:%d\n", expr, file, line);
#ifdef KB_BUG_ABORTS
    abort();
#endif
}

uint64_t kb_bug_count(void)
{
    return __atomic_load_n(&bug_count, __ATOMIC_RELAXED);
}
