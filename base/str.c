/* SPDX-License-Identifier: Apache-2.0 */
/* Text slices: comparing, searching, numbers. */
#include "base/str.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/mem.h"

static bool bytes_ieq(const char *a, const char *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (kb_ascii_lower(a[i]) != kb_ascii_lower(b[i])) {
            return false;
        }
    }
    return true;
}

bool kb_str_ieq(struct kb_str a, struct kb_str b)
{
    return a.len == b.len && bytes_ieq(a.p, b.p, a.len);
}

bool kb_str_istarts_with(struct kb_str s, struct kb_str prefix)
{
    return s.len >= prefix.len && bytes_ieq(s.p, prefix.p, prefix.len);
}

bool kb_str_iends_with(struct kb_str s, struct kb_str suffix)
{
    return s.len >= suffix.len && bytes_ieq(s.p + s.len - suffix.len, suffix.p, suffix.len);
}

int kb_str_cmp(struct kb_str a, struct kb_str b)
{
    size_t n = KB_MIN(a.len, b.len);
    int c = n > 0 ? memcmp(a.p, b.p, n) : 0;

    if (c != 0) {
        return c;
    }
    return a.len < b.len ? -1 : a.len > b.len;
}

ptrdiff_t kb_str_find_char(struct kb_str s, char c)
{
    const char *hit = s.len > 0 ? memchr(s.p, c, s.len) : NULL;

    return hit != NULL ? hit - s.p : -1;
}

ptrdiff_t kb_str_rfind_char(struct kb_str s, char c)
{
    for (size_t i = s.len; i > 0; i--) {
        if (s.p[i - 1] == c) {
            return (ptrdiff_t)(i - 1);
        }
    }
    return -1;
}

ptrdiff_t kb_str_find(struct kb_str s, struct kb_str needle)
{
    size_t at = 0;

    if (needle.len == 0) {
        return 0;
    }
    while (s.len - at >= needle.len && at < s.len) {
        const char *hit = memchr(s.p + at, needle.p[0], s.len - at - needle.len + 1);

        if (hit == NULL) {
            return -1;
        }
        if (memcmp(hit, needle.p, needle.len) == 0) {
            return hit - s.p;
        }
        at = (size_t)(hit - s.p) + 1;
    }
    return -1;
}

struct kb_str kb_str_trim(struct kb_str s)
{
    while (s.len > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.len--;
    }
    while (s.len > 0 && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == '\t')) {
        s.len--;
    }
    return s;
}

bool kb_str_next_token(struct kb_str *rest, char sep, struct kb_str *token)
{
    ptrdiff_t at;

    if (rest->p == NULL) {
        return false;
    }
    at = kb_str_find_char(*rest, sep);
    if (at < 0) {
        *token = *rest;
        *rest = KB_STR_NULL;
    } else {
        *token = kb_str_first(*rest, (size_t)at);
        *rest = kb_str_from(*rest, (size_t)at + 1);
    }
    return true;
}

bool kb_str_list_has(struct kb_str list, struct kb_str token)
{
    struct kb_str item;

    while (kb_str_next_token(&list, ',', &item)) {
        if (kb_str_ieq(kb_str_trim(item), token)) {
            return true;
        }
    }
    return false;
}

int kb_str_to_u64(struct kb_str s, uint64_t *out)
{
    uint64_t v = 0;

    if (s.len == 0) {
        return KB_EINVALID;
    }
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned)(unsigned char)s.p[i] - '0';

        if (digit > 9 || v > (UINT64_MAX - digit) / 10) {
            return KB_EINVALID;
        }
        v = v * 10 + digit;
    }
    *out = v;
    return 0;
}

int kb_str_to_i64(struct kb_str s, int64_t *out)
{
    bool negative = s.len > 0 && s.p[0] == '-';
    uint64_t v;

    if (s.len > 0 && (s.p[0] == '-' || s.p[0] == '+')) {
        s = kb_str_from(s, 1);
    }
    KB_TRY(kb_str_to_u64(s, &v));
    if (v > (uint64_t)INT64_MAX + (negative ? 1 : 0)) {
        return KB_EINVALID;
    }
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return 0;
}

int kb_str_to_double(struct kb_str s, double *out)
{
    char copy[64];
    char *end;

    if (s.len == 0 || s.len >= sizeof(copy)) {
        return KB_EINVALID;
    }
    memcpy(copy, s.p, s.len);
    copy[s.len] = '\0';
    errno = 0;
    *out = strtod(copy, &end);
    return end == copy + s.len && errno == 0 ? 0 : KB_EINVALID;
}

size_t kb_u64_to_str(uint64_t v, char *out)
{
    size_t n = 1;

    if (v < 100) {
        *out = (char)('0' + (v < 10 ? v : v / 10));
        out[v >= 10] = (char)('0' + v % 10);
        return v < 10 ? 1 : 2;
    }
    for (uint64_t rest = v; rest >= 10; rest /= 10) {
        n++;
    }
    for (size_t i = n; i > 0; i--) {
        out[i - 1] = (char)('0' + v % 10);
        v /= 10;
    }
    return n;
}

struct kb_str kb_str_dup(struct kb_arena *arena, struct kb_str s)
{
    char *copy = kb_arena_alloc(arena, s.len + 1, 1);

    if (s.len > 0) {
        memcpy(copy, s.p, s.len);
    }
    copy[s.len] = '\0';
    return kb_str_make(copy, s.len);
}

struct kb_str kb_str_printf(struct kb_arena *arena, const char *fmt, ...)
{
    va_list args;
    int n;
    char *out;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    KB_ASSERT(n >= 0);
    out = kb_arena_alloc(arena, (size_t)n + 1, 1);
    va_start(args, fmt);
    vsnprintf(out, (size_t)n + 1, fmt, args);
    va_end(args);
    return kb_str_make(out, (size_t)n);
}

struct kb_str kb_str_hex(struct kb_arena *arena, const void *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *from = bytes;
    char *out = kb_arena_alloc(arena, 2 * n + 1, 1);

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[from[i] >> 4];
        out[2 * i + 1] = digits[from[i] & 15];
    }
    return kb_str_make(out, 2 * n);
}

char *kb_str_to_cstr(struct kb_str s)
{
    char *copy = kb_malloc(s.len + 1);

    if (s.len > 0) {
        memcpy(copy, s.p, s.len);
    }
    copy[s.len] = '\0';
    return copy;
}
