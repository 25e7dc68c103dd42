/* SPDX-License-Identifier: Apache-2.0 */
/* What a %COMMAND% yields, where it reads it from, and the growing text that it is written to.
 * Commands are evaluated without allocation where they can: most values are slices of what exists
 * already, or numbers. */
#pragma once

#include "proxy/api/formatter.h"

#define KB_FORMAT_SCRATCH 192 /* an address with its mask, a UUID, a time */

enum kb_format_kind {
    KB_FORMAT_MISSING, /* "-" in text, null in JSON */
    KB_FORMAT_TEXT,
    KB_FORMAT_NUMBER, /* digits in text, a number in JSON */
    KB_FORMAT_MINUS,  /* as NUMBER, below zero */
    KB_FORMAT_JSON,   /* text is JSON already */
    KB_FORMAT_BLANK,  /* nothing in text, null in JSON: the port of a unix address */
};

struct kb_format_value {
    enum kb_format_kind kind;
    bool scratch;       /* text is in the source's scratch: copy it before the next command */
    struct kb_str text; /* borrowed for as long as the stream, or see scratch */
    uint64_t number;    /* without sign */
};

struct kb_format_source {
    const struct kb_formatter_input *input;
    const struct kb_stream_info *info;
    struct kb_arena *arena; /* for values that must be put together */
    bool typed;             /* the value stands alone in JSON */
    char scratch[KB_FORMAT_SCRATCH];
};

KB_INLINE void kb_format_value_text(struct kb_format_value *value, struct kb_str text)
{
    value->kind = KB_FORMAT_TEXT;
    value->text = text;
}

/* Missing when p is NULL or the text is empty. */
KB_INLINE void kb_format_value_filled(struct kb_format_value *value, struct kb_str text)
{
    if (text.len > 0) {
        kb_format_value_text(value, text);
    }
}

KB_INLINE void kb_format_value_scratch(struct kb_format_value *value, struct kb_str text)
{
    value->kind = KB_FORMAT_TEXT;
    value->scratch = true;
    value->text = text;
}

KB_INLINE void kb_format_value_number(struct kb_format_value *value, uint64_t number)
{
    value->kind = KB_FORMAT_NUMBER;
    value->number = number;
}

/* Text that grows in an arena; its first memory may be somebody else's. */
struct kb_format_out {
    char *p;
    size_t len;
    size_t cap;
    struct kb_arena *arena;
};

/* Starts in `room` bytes at p (0: none yet). When the text does not end up at p, it has outgrown
 * them. */
KB_INLINE void kb_format_out_init(struct kb_format_out *out, struct kb_arena *arena, char *p,
                                  size_t room)
{
    out->p = p;
    out->len = 0;
    out->cap = room;
    out->arena = arena;
}

/* Makes room for n more bytes. */
void kb_format_out_grow(struct kb_format_out *out, size_t n);

KB_INLINE char *kb_format_out_reserve(struct kb_format_out *out, size_t n)
{
    if (KB_UNLIKELY(out->cap - out->len < n)) {
        kb_format_out_grow(out, n);
    }
    return out->p + out->len;
}

KB_INLINE void kb_format_out_add(struct kb_format_out *out, struct kb_str text)
{
    if (text.len > 0) {
        memcpy(kb_format_out_reserve(out, text.len), text.p, text.len);
        out->len += text.len;
    }
}

KB_INLINE void kb_format_out_add_char(struct kb_format_out *out, char c)
{
    *kb_format_out_reserve(out, 1) = c;
    out->len++;
}

/* Digits. */
void kb_format_out_add_u64(struct kb_format_out *out, uint64_t number);
/* A JSON string's inside, escaped as Envoy does: named escapes in valid UTF-8; otherwise \u00xx for
 * every byte that is not plain ASCII. */
void kb_format_out_add_escaped(struct kb_format_out *out, struct kb_str text);
/* A whole number as Envoy writes it in JSON: the shorter of 100000 and 1e+05, the former when
 * equal. */
void kb_format_out_add_json_u64(struct kb_format_out *out, uint64_t number);
/* The shortest text that reads back as the same number, as kb_format_out_add_json_u64; null when it
 * is not finite. For configuration. */
void kb_format_out_add_json_double(struct kb_format_out *out, double number);
/* The value in a text format; `missing` stands for what is not there. */
void kb_format_out_add_value(struct kb_format_out *out, const struct kb_format_value *value,
                             struct kb_str missing);
/* The value as JSON: quoted text, number or null. */
void kb_format_out_add_json_value(struct kb_format_out *out, const struct kb_format_value *value);
