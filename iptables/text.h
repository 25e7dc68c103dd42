/* SPDX-License-Identifier: Apache-2.0 */
/* Growing texts, lists with commas, and addresses with a prefix length. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-initialised it is empty; `at` is NULL then, otherwise it ends with a NUL. */
struct kb_text {
    char *at;
    size_t len;
    size_t cap;
};

/* At its end; without memory the process ends. */
void kb_text_add(struct kb_text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3), nonnull(2)));
/* The same with bytes as they are. */
void kb_text_add_bytes(struct kb_text *text, const void *bytes, size_t len);
/* It is empty then. */
void kb_text_dispose(struct kb_text *text);

/* The text, "" for an empty one. */
const char *kb_text_str(const struct kb_text *text);

/* A piece of a text that somebody else owns. */
struct kb_piece {
    const char *at;
    int len; /* for "%.*s" */
};

/* The next piece of `list` that is not empty: false at its end. `*cursor` starts as the list. */
bool kb_list_next(const char **cursor, struct kb_piece *piece);

/* Whether it is exactly that. */
bool kb_piece_is(struct kb_piece piece, const char *text);

/* A decimal number without sign, blanks or leading zeros of at most `max`: 0, or -1. */
int kb_piece_number(struct kb_piece piece, uint64_t max, uint64_t *out);

/* "10.0.0.0/8" or "2001:db8::/32". */
struct kb_range {
    int family;    /* AF_INET or AF_INET6 */
    char text[64]; /* in its usual form, as iptables takes it */
    bool loopback; /* its address is one of the loopback's */
    int bits;
};

/* 0, or -1 with `*why` set to words that say what is wrong. */
int kb_range_parse(struct kb_piece piece, struct kb_range *out, const char **why);
