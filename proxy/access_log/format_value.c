/* SPDX-License-Identifier: Apache-2.0 */
/* Writing values: as plain text, and as JSON with Envoy's escapes and number forms. */
#include "proxy/access_log/format_value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define FIRST_BYTES 512 /* holds a line of the default format */

void kb_format_out_grow(struct kb_format_out *out, size_t n)
{
    size_t cap = KB_MAX(out->cap * 2, FIRST_BYTES);
    char *p;

    while (cap - out->len < n) {
        cap *= 2;
    }
    p = kb_arena_alloc(out->arena, cap, 1);
    if (out->len > 0) {
        memcpy(p, out->p, out->len);
    }
    out->p = p;
    out->cap = cap;
}

void kb_format_out_add_u64(struct kb_format_out *out, uint64_t number)
{
    out->len += kb_u64_to_str(number, kb_format_out_reserve(out, 20));
}

/* Bytes that a JSON string of plain ASCII needs no care for. */
static bool byte_is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* Length of the UTF-8 sequence at p (RFC 3629), 0 when it is not one. */
static size_t utf8_sequence(const unsigned char *p, size_t left)
{
    size_t len = p[0] < 0x80   ? 1
                 : p[0] < 0xc2 ? 0
                 : p[0] < 0xe0 ? 2
                 : p[0] < 0xf0 ? 3
                 : p[0] < 0xf5 ? 4
                               : 0;

    if (len == 0 || len > left) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) {
        return 0;
    }
    return len;
}

static bool text_is_utf8(struct kb_str text)
{
    for (size_t i = 0; i < text.len;) {
        size_t len = utf8_sequence((const unsigned char *)text.p + i, text.len - i);

        if (len == 0) {
            return false;
        }
        i += len;
    }
    return true;
}

static void add_hex_escape(struct kb_format_out *out, unsigned char c)
{
    static const char digits[] = "0123456789abcdef";
    char *p = kb_format_out_reserve(out, 6);

    memcpy(p, "\\u00", 4);
    p[4] = digits[c >> 4];
    p[5] = digits[c & 15];
    out->len += 6;
}

static void add_escaped_utf8(struct kb_format_out *out, struct kb_str text)
{
    static const char named[32] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};

    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.p[i];
        char name = c < 0x20 ? named[c] : (c == '"' || c == '\\') ? (char)c : 0;

        if (name != 0) {
            kb_format_out_add_char(out, '\\');
            kb_format_out_add_char(out, name);
        } else if (c < 0x20) {
            add_hex_escape(out, c);
        } else {
            kb_format_out_add_char(out, (char)c);
        }
    }
}

void kb_format_out_add_escaped(struct kb_format_out *out, struct kb_str text)
{
    bool plain = true;

    for (size_t i = 0; i < text.len; i++) {
        plain &= byte_is_plain((unsigned char)text.p[i]);
    }
    if (KB_LIKELY(plain)) {
        kb_format_out_add(out, text);
    } else if (text_is_utf8(text)) {
        add_escaped_utf8(out, text);
    } else {
        for (size_t i = 0; i < text.len; i++) {
            unsigned char c = (unsigned char)text.p[i];

            if (byte_is_plain(c)) {
                kb_format_out_add_char(out, (char)c);
            } else {
                add_hex_escape(out, c);
            }
        }
    }
}

/* d.ddde+xx of `count` significant digits. */
static void add_scientific(struct kb_format_out *out, const char *digits, size_t count,
                           int exponent)
{
    char *p = kb_format_out_reserve(out, count + 8);
    char *at = p;
    unsigned size = (unsigned)(exponent < 0 ? -exponent : exponent);

    *at++ = digits[0];
    if (count > 1) {
        *at++ = '.';
        memcpy(at, digits + 1, count - 1);
        at += count - 1;
    }
    *at++ = 'e';
    *at++ = exponent < 0 ? '-' : '+';
    if (size < 10) {
        *at++ = '0';
    }
    at += kb_u64_to_str(size, at);
    out->len += (size_t)(at - p);
}

void kb_format_out_add_json_u64(struct kb_format_out *out, uint64_t number)
{
    char digits[20];

    if (number > (UINT64_C(1) << 53)) {
        kb_format_out_add_json_double(out, (double)number); /* Envoy's numbers are doubles */
        return;
    }
    kb_format_out_add(out, kb_str_make(digits, kb_u64_to_str(number, digits)));
}

/* The shortest digits that read back as `number` > 0, which is 0.ddd * 10^(*point). */
static size_t shortest_digits(double number, char digits[24], int *point)
{
    char text[40];
    size_t count = 0;

    for (int precision = 0; precision <= 16; precision++) {
        snprintf(text, sizeof(text), "%.*e", precision, number);
        if (strtod(text, NULL) == number) {
            break;
        }
    }
    for (const char *p = text; *p != 'e'; p++) {
        if (*p != '.') {
            digits[count++] = *p;
        }
    }
    *point = (int)strtol(strchr(text, 'e') + 1, NULL, 10) + 1;
    while (count > 1 && digits[count - 1] == '0') {
        count--;
    }
    return count;
}

void kb_format_out_add_json_double(struct kb_format_out *out, double number)
{
    char digits[24];
    char fixed[360];
    size_t count, scientific_len;
    int point, fixed_len;

    if (!isfinite(number)) {
        kb_format_out_add(out, KB_STR("null"));
        return;
    }
    if (signbit(number)) {
        kb_format_out_add_char(out, '-');
        number = -number;
    }
    if (number == 0) {
        kb_format_out_add_char(out, '0');
        return;
    }
    count = shortest_digits(number, digits, &point);
    fixed_len = snprintf(fixed, sizeof(fixed), "%.*f", KB_MAX(0, (int)count - point), number);
    scientific_len = count + (count > 1) + (point - 1 > 99 || point - 1 < -99 ? 5 : 4);
    if (fixed_len < 0 || (size_t)fixed_len >= sizeof(fixed) || scientific_len < (size_t)fixed_len) {
        add_scientific(out, digits, count, point - 1);
    } else {
        kb_format_out_add(out, kb_str_make(fixed, (size_t)fixed_len));
    }
}

void kb_format_out_add_value(struct kb_format_out *out, const struct kb_format_value *value,
                             struct kb_str missing)
{
    switch (value->kind) {
    case KB_FORMAT_MISSING:
        kb_format_out_add(out, missing);
        return;
    case KB_FORMAT_TEXT:
    case KB_FORMAT_JSON:
        kb_format_out_add(out, value->text);
        return;
    case KB_FORMAT_MINUS:
        kb_format_out_add_char(out, '-');
        kb_format_out_add_u64(out, value->number);
        return;
    case KB_FORMAT_NUMBER:
        kb_format_out_add_u64(out, value->number);
        return;
    case KB_FORMAT_BLANK:
        return;
    }
}

void kb_format_out_add_json_value(struct kb_format_out *out, const struct kb_format_value *value)
{
    switch (value->kind) {
    case KB_FORMAT_MISSING:
    case KB_FORMAT_BLANK:
        kb_format_out_add(out, KB_STR("null"));
        return;
    case KB_FORMAT_JSON:
        kb_format_out_add(out, value->text);
        return;
    case KB_FORMAT_TEXT:
        kb_format_out_add_char(out, '"');
        kb_format_out_add_escaped(out, value->text);
        kb_format_out_add_char(out, '"');
        return;
    case KB_FORMAT_MINUS:
        kb_format_out_add_char(out, '-');
        kb_format_out_add_json_u64(out, value->number);
        return;
    case KB_FORMAT_NUMBER:
        kb_format_out_add_json_u64(out, value->number);
        return;
    }
}
