/* SPDX-License-Identifier: Apache-2.0 */
/* Borrowed slices of text: pointer and length, not terminated. Whoever holds a kb_str must know
 * that the bytes live long enough; functions that keep one say so. */
#pragma once

#include <stdbool.h>
#include <string.h>

#include "base/compiler.h"
#include "base/err.h"

struct kb_arena;

struct kb_str {
    const char *p; /* may be NULL only when len is 0 */
    size_t len;
};

/* A slice of a string literal. */
#define KB_STR(literal) ((struct kb_str){"" literal, sizeof(literal) - 1})
#define KB_STR_NULL     ((struct kb_str){NULL, 0})
/* For printf("%.*s", KB_STR_ARG(s)). */
#define KB_STR_ARG(s)   (int)(s).len, (s).p != NULL ? (s).p : ""

KB_INLINE struct kb_str kb_str_make(const char *p, size_t len)
{
    return (struct kb_str){p, len};
}

KB_INLINE struct kb_str kb_str_from_cstr(const char *s)
{
    return (struct kb_str){s, s ? strlen(s) : 0};
}

KB_INLINE bool kb_str_eq(struct kb_str a, struct kb_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

KB_INLINE bool kb_str_starts_with(struct kb_str s, struct kb_str prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.p, prefix.p, prefix.len) == 0);
}

KB_INLINE bool kb_str_ends_with(struct kb_str s, struct kb_str suffix)
{
    return s.len >= suffix.len &&
           (suffix.len == 0 || memcmp(s.p + s.len - suffix.len, suffix.p, suffix.len) == 0);
}

/* The part of s from `from` on; from is cut to the length. */
KB_INLINE struct kb_str kb_str_from(struct kb_str s, size_t from)
{
    from = KB_MIN(from, s.len);
    return (struct kb_str){s.p + from, s.len - from};
}

/* The first n bytes of s, or all of it. */
KB_INLINE struct kb_str kb_str_first(struct kb_str s, size_t n)
{
    return (struct kb_str){s.p, KB_MIN(n, s.len)};
}

KB_INLINE char kb_ascii_lower(char c)
{
    return (char)((c >= 'A' && c <= 'Z') ? c | 0x20 : c);
}

KB_INLINE bool kb_ascii_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

KB_INLINE bool kb_ascii_is_alpha(char c)
{
    return kb_ascii_lower(c) >= 'a' && kb_ascii_lower(c) <= 'z';
}

/* Equal when ASCII case is ignored. */
bool kb_str_ieq(struct kb_str a, struct kb_str b);
bool kb_str_istarts_with(struct kb_str s, struct kb_str prefix);
bool kb_str_iends_with(struct kb_str s, struct kb_str suffix);

/* memcmp order, shorter first when one is the start of the other. */
int kb_str_cmp(struct kb_str a, struct kb_str b);

/* Offset of the first `c`, or -1. */
ptrdiff_t kb_str_find_char(struct kb_str s, char c);
/* Offset of the last `c`, or -1. */
ptrdiff_t kb_str_rfind_char(struct kb_str s, char c);
/* Offset of the first `needle`, or -1. An empty needle is found at 0. */
ptrdiff_t kb_str_find(struct kb_str s, struct kb_str needle);

/* Without spaces and tabs at both ends. */
struct kb_str kb_str_trim(struct kb_str s);

/* Takes the next token before `sep` off the front of *rest; false when *rest is used up (p NULL).
 * An empty string has one empty token. */
bool kb_str_next_token(struct kb_str *rest, char sep, struct kb_str *token);
/* Whether a comma-separated list, as headers have them (RFC 9110 section 5.6.1), has this token, in
 * any case. */
bool kb_str_list_has(struct kb_str list, struct kb_str token);

/* Whole slice as a decimal number without sign. KB_EINVALID when empty, too large or anything else
 * is in it. */
int kb_str_to_u64(struct kb_str s, uint64_t *out) KB_MUST_USE;
/* Whole slice as a decimal number with optional sign '-' or '+'. */
int kb_str_to_i64(struct kb_str s, int64_t *out) KB_MUST_USE;
/* Whole slice as a floating point number in C's decimal forms. */
int kb_str_to_double(struct kb_str s, double *out) KB_MUST_USE;

/* Decimal digits of v to `out` (room for 20 bytes); returns their count. */
size_t kb_u64_to_str(uint64_t v, char *out);

/* Copy in the arena, NUL-terminated after len bytes. */
struct kb_str kb_str_dup(struct kb_arena *arena, struct kb_str s);
/* printf into the arena. */
struct kb_str kb_str_printf(struct kb_arena *arena, const char *fmt, ...) KB_PRINTF(2, 3);
/* The bytes as lower-case hexadecimal digits, in the arena. */
struct kb_str kb_str_hex(struct kb_arena *arena, const void *bytes, size_t n);
/* Heap copy, NUL-terminated; the caller frees it. */
char *kb_str_to_cstr(struct kb_str s);
