/* SPDX-License-Identifier: Apache-2.0 */
/* Compiler attributes used everywhere, and the functions that nobody may call. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define KB_MUST_USE                     __attribute__((warn_unused_result))
#define KB_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))
#define KB_NORETURN                     __attribute__((noreturn))
#define KB_UNUSED                       __attribute__((unused))
#define KB_INLINE                       static inline __attribute__((always_inline))
#define KB_NOINLINE                     __attribute__((noinline))
#define KB_COLD                         __attribute__((cold, noinline))

#define KB_LIKELY(x)   __builtin_expect(!!(x), 1)
#define KB_UNLIKELY(x) __builtin_expect(!!(x), 0)

#define KB_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* The struct of type `type` whose member `member` is at `ptr`. */
#define KB_CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#define KB_MIN(a, b) ((a) < (b) ? (a) : (b))
#define KB_MAX(a, b) ((a) > (b) ? (a) : (b))
