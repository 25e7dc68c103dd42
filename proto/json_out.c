/* SPDX-License-Identifier: Apache-2.0 */
/* Growing JSON text with a bound, and the escapes of Envoy's writer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "proto/pb_json.h"

#define OUT_CAP_MIN 1024
#define BROKEN      UINT32_MAX /* no character */

void kb_json_out_init(struct kb_json_out *out, size_t max)
{
    memset(out, 0, sizeof(*out));
    out->max = max;
}

void kb_json_out_dispose(struct kb_json_out *out)
{
    free(out->p);
    kb_json_out_init(out, out->max);
}

void kb_json_out_add(struct kb_json_out *out, struct kb_str text)
{
    size_t max = out->max != 0 ? out->max : KB_JSON_OUT_MAX;

    if (text.len > max - out->len) {
        text.len = max - out->len;
        out->overflow = true;
    }
    if (text.len == 0) {
        return;
    }
    if (text.len > out->cap - out->len) {
        size_t cap = KB_MAX(KB_MAX(out->cap * 2, (size_t)OUT_CAP_MIN), out->len + text.len);

        out->cap = KB_MIN(cap, max);
        out->p = kb_realloc(out->p, out->cap);
    }
    memcpy(out->p + out->len, text.p, text.len);
    out->len += text.len;
}

/* Characters that protobuf's writer escapes though JSON does not ask for it: control and format
 * characters, and what ends scripts or lines in browsers. */
static bool is_escaped(uint32_t c)
{
    static const struct {
        uint32_t first;
        uint32_t last;
    } ranges[] = {{0x00, 0x1f},     {'"', '"'},         {'<', '<'},         {'>', '>'},
                  {'\\', '\\'},     {0x7f, 0x9f},       {0xad, 0xad},       {0x600, 0x603},
                  {0x6dd, 0x6dd},   {0x70f, 0x70f},     {0x17b4, 0x17b5},   {0x200b, 0x200f},
                  {0x2028, 0x202e}, {0x2060, 0x2064},   {0x206a, 0x206f},   {0xfeff, 0xfeff},
                  {0xfff9, 0xfffb}, {0x1d173, 0x1d17a}, {0xe0001, 0xe0001}, {0xe0020, 0xe007f},
                  {BROKEN, BROKEN}};

    for (size_t i = 0; i < KB_ARRAY_LEN(ranges); i++) {
        if (c >= ranges[i].first && c <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

/* Reads one character. What is no UTF-8 is a space, and with it goes the byte that broke it off: so
 * no byte of a peer can swallow or be taken for a quote. Surrogates and overlong forms are let
 * through, as in Envoy. */
static uint32_t character_at(struct kb_str text, size_t i, size_t *len)
{
    const unsigned char *p = (const unsigned char *)text.p + i;
    size_t want = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    uint32_t c = want < 2 ? p[0] : p[0] & (0xffU >> (want + 1));

    *len = 1;
    if (want == 0 || p[0] >= 0xf8) {
        return BROKEN;
    }
    while (*len < want) {
        if (*len == text.len - i) {
            return BROKEN;
        }
        (*len)++;
        if (p[*len - 1] >> 6 != 2) {
            return BROKEN;
        }
        c = c << 6 | (p[*len - 1] & 0x3f);
    }
    return c > 0x10ffff ? BROKEN : c;
}

static void escape_add(struct kb_json_out *out, uint32_t c)
{
    static const char shorts[][2] = {{'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'}, {'\r', 'r'},
                                     {'\t', 't'}, {'"', '"'},  {'\\', '\\'}};
    char text[16] = " ";
    size_t len = c == BROKEN ? 1 : 0;

    for (size_t i = 0; i < KB_ARRAY_LEN(shorts) && len == 0; i++) {
        if (c == (unsigned char)shorts[i][0]) {
            len = (size_t)snprintf(text, sizeof(text), "\\%c", shorts[i][1]);
        }
    }
    if (len == 0 && c >= 0x10000) {
        len = (size_t)snprintf(text, sizeof(text), "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                               0xdc00 + ((c - 0x10000) & 0x3ff));
    } else if (len == 0) {
        len = (size_t)snprintf(text, sizeof(text), "\\u%04x", c);
    }
    kb_json_out_add(out, kb_str_make(text, len));
}

void kb_json_out_add_quoted(struct kb_json_out *out, struct kb_str text)
{
    size_t from = 0;
    size_t i = 0;

    kb_json_out_add(out, KB_STR("\""));
    while (i < text.len) {
        size_t len;
        uint32_t c = character_at(text, i, &len);

        if (is_escaped(c)) {
            kb_json_out_add(out, kb_str_make(text.p + from, i - from));
            escape_add(out, c);
            from = i + len;
        }
        i += len;
    }
    kb_json_out_add(out, kb_str_make(text.p + from, text.len - from));
    kb_json_out_add(out, KB_STR("\""));
}
