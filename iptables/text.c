/* SPDX-License-Identifier: Apache-2.0 */
/* Growing texts, lists with commas, and addresses with a prefix length. */
#include "iptables/text.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iptables/say.h"

static void text_reserve(struct kb_text *text, size_t more)
{
    size_t need = text->len + more + 1;

    if (need <= text->cap) {
        return;
    }
    size_t cap = text->cap ? text->cap : 256;
    while (cap < need) {
        cap *= 2;
    }
    char *at = realloc(text->at, cap);
    if (!at) {
        kb_say_no_memory();
    }
    text->at = at;
    text->cap = cap;
}

void kb_text_add_bytes(struct kb_text *text, const void *bytes, size_t len)
{
    text_reserve(text, len);
    memcpy(text->at + text->len, bytes, len);
    text->len += len;
    text->at[text->len] = '\0';
}

void kb_text_add(struct kb_text *text, const char *format, ...)
{
    va_list args, again;

    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len >= 0) {
        text_reserve(text, (size_t)len);
        vsnprintf(text->at + text->len, (size_t)len + 1, format, again);
        text->len += (size_t)len;
    }
    va_end(again);
}

void kb_text_dispose(struct kb_text *text)
{
    free(text->at);
    *text = (struct kb_text){0};
}

const char *kb_text_str(const struct kb_text *text)
{
    return text->at ? text->at : "";
}

bool kb_list_next(const char **cursor, struct kb_piece *piece)
{
    const char *at = *cursor;

    while (at && *at == ',') {
        at++;
    }
    if (!at || !*at) {
        *cursor = at;
        return false;
    }
    size_t len = strcspn(at, ",");
    *piece = (struct kb_piece){.at = at, .len = (int)len};
    *cursor = at + len;
    return true;
}

bool kb_piece_is(struct kb_piece piece, const char *text)
{
    return strlen(text) == (size_t)piece.len && memcmp(piece.at, text, (size_t)piece.len) == 0;
}

int kb_piece_number(struct kb_piece piece, uint64_t max, uint64_t *out)
{
    uint64_t value = 0;

    if (piece.len <= 0 || piece.len > 19 || (piece.at[0] == '0' && piece.len > 1)) {
        return -1;
    }
    for (int i = 0; i < piece.len; i++) {
        if (piece.at[i] < '0' || piece.at[i] > '9') {
            return -1;
        }
        value = value * 10 + (uint64_t)(piece.at[i] - '0');
    }
    if (value > max) {
        return -1;
    }
    *out = value;
    return 0;
}

int kb_range_parse(struct kb_piece piece, struct kb_range *out, const char **why)
{
    char address[INET6_ADDRSTRLEN];
    unsigned char raw[16];
    uint64_t bits;
    const char *slash = memchr(piece.at, '/', (size_t)piece.len);

    if (!slash) {
        *why = "has no prefix length, as \"/32\" for one IPv4 address";
        return -1;
    }
    size_t len = (size_t)(slash - piece.at);
    if (len >= sizeof(address)) {
        *why = "is no address";
        return -1;
    }
    memcpy(address, piece.at, len);
    address[len] = '\0';
    out->family = memchr(address, ':', len) ? AF_INET6 : AF_INET;
    if (inet_pton(out->family, address, raw) != 1) {
        *why = "has no IPv4 or IPv6 address before its \"/\"";
        return -1;
    }
    unsigned most = out->family == AF_INET ? 32 : 128;
    if (kb_piece_number((struct kb_piece){slash + 1, piece.len - (int)len - 1}, most, &bits) != 0) {
        *why = most == 32 ? "has a prefix length that is no number from 0 to 32"
                          : "has a prefix length that is no number from 0 to 128";
        return -1;
    }
    static const unsigned char one[16] = {[15] = 1};
    out->loopback = out->family == AF_INET ? raw[0] == 127 : memcmp(raw, one, 16) == 0;
    out->bits = (int)bits;
    inet_ntop(out->family, raw, address, sizeof(address));
    snprintf(out->text, sizeof(out->text), "%s/%d", address, out->bits);
    return 0;
}
