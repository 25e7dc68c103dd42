/* SPDX-License-Identifier: Apache-2.0 */
/* Base64: encoding, and decoding with or without padding. */
#include "base/base64.h"

#include "base/err.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

struct kb_str kb_base64_encode(struct kb_str bytes, struct kb_arena *arena)
{
    size_t len = (bytes.len + 2) / 3 * 4;
    char *out = kb_arena_alloc(arena, len + 1, 1);
    const unsigned char *in = (const unsigned char *)bytes.p;
    size_t at = 0;

    for (size_t i = 0; i < bytes.len; i += 3) {
        uint32_t group = (uint32_t)in[i] << 16;

        group |= i + 1 < bytes.len ? (uint32_t)in[i + 1] << 8 : 0;
        group |= i + 2 < bytes.len ? in[i + 2] : 0;
        out[at++] = digits[group >> 18];
        out[at++] = digits[group >> 12 & 63];
        out[at++] = i + 1 < bytes.len ? digits[group >> 6 & 63] : '=';
        out[at++] = i + 2 < bytes.len ? digits[group & 63] : '=';
    }
    out[at] = '\0';
    return kb_str_make(out, len);
}

static int digit_value(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int kb_base64_decode(struct kb_str text, char *out, size_t *len)
{
    uint32_t group = 0;
    unsigned bits = 0;
    size_t n = 0;

    for (unsigned i = 0; i < 2 && text.len > 0 && text.p[text.len - 1] == '='; i++) {
        text.len--;
    }
    if (text.len % 4 == 1) {
        return KB_EINVALID;
    }
    for (size_t i = 0; i < text.len; i++) {
        int value = digit_value(text.p[i]);

        if (value < 0) {
            return KB_EINVALID;
        }
        group = group << 6 | (uint32_t)value;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            if (n == *len) {
                return KB_ELIMIT;
            }
            out[n++] = (char)(group >> bits);
        }
    }
    *len = n;
    return (group & ((1U << bits) - 1)) == 0 ? 0 : KB_EINVALID;
}
