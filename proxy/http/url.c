/* SPDX-License-Identifier: Apache-2.0 */
/* Absolute URLs. */
#include "proxy/http/url.h"

static bool is_alnum(char c)
{
    return kb_ascii_is_digit(c) || (unsigned char)((c | 0x20) - 'a') < 26;
}

/* Every character is `other` or a letter or digit. */
static bool only(struct kb_str text, const char *others)
{
    for (size_t i = 0; i < text.len; i++) {
        if (!is_alnum(text.p[i]) && (text.p[i] == '\0' || strchr(others, text.p[i]) == NULL)) {
            return false;
        }
    }
    return true;
}

static bool is_hex(char c)
{
    return kb_ascii_is_digit(c) || (unsigned char)((c | 0x20) - 'a') < 6;
}

static bool ipv6_valid(struct kb_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (!is_hex(text.p[i]) && text.p[i] != ':' && text.p[i] != '.') {
            return false;
        }
    }
    return text.len > 0;
}

static bool port_valid(struct kb_str text)
{
    uint64_t port;

    return only(text, "") && kb_str_to_u64(text, &port) == 0 && port <= 65535;
}

/* "host", "host:1", "[::1]", "[::1]:1" */
static bool host_and_port_valid(struct kb_str text)
{
    ptrdiff_t end;

    if (text.len > 0 && text.p[0] == '[') {
        end = kb_str_find_char(text, ']');
        if (end < 0 || !ipv6_valid(kb_str_make(text.p + 1, (size_t)end - 1))) {
            return false;
        }
        text = kb_str_from(text, (size_t)end + 1);
        return text.len == 0 || (text.p[0] == ':' && port_valid(kb_str_from(text, 1)));
    }
    end = kb_str_find_char(text, ':');
    if (end >= 0) {
        return end > 0 && only(kb_str_first(text, (size_t)end), ".-") &&
               port_valid(kb_str_from(text, (size_t)end + 1));
    }
    return text.len > 0 && only(text, ".-");
}

bool kb_url_connect_target_valid(struct kb_str text)
{
    return host_and_port_valid(text) && kb_str_find_char(text, ':') >= 0 &&
           text.p[text.len - 1] != ']';
}

/* Path, query and fragment: anything that is visible ASCII. */
static bool visible(struct kb_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.p[i] <= ' ' || text.p[i] >= 0x7f) {
            return false;
        }
    }
    return true;
}

size_t kb_url_scheme_len(struct kb_str text)
{
    size_t n = 0;

    while (n < text.len && (n == 0 ? kb_ascii_is_alpha(text.p[n])
                                   : kb_ascii_is_alpha(text.p[n]) || kb_ascii_is_digit(text.p[n]) ||
                                         memchr("+-.", text.p[n], 3) != NULL)) {
        n++;
    }
    return n;
}

enum kb_url_error kb_url_parse(struct kb_str text, struct kb_url *out)
{
    ptrdiff_t scheme_end = kb_str_find(text, KB_STR("://"));
    struct kb_str rest;
    ptrdiff_t at;
    size_t n = 0;

    if (scheme_end <= 0) {
        return KB_URL_INVALID;
    }
    out->scheme = kb_str_first(text, (size_t)scheme_end);
    rest = kb_str_from(text, (size_t)scheme_end + 3);
    while (n < rest.len && rest.p[n] != '/' && rest.p[n] != '?' && rest.p[n] != '#') {
        n++;
    }
    out->authority = kb_str_first(rest, n);
    at = kb_str_find_char(out->authority, '@');
    if (at >= 0) {
        if (!only(kb_str_first(out->authority, (size_t)at), "-_.!~*'()%;:&=+$,")) {
            return KB_URL_INVALID;
        }
        out->authority = kb_str_from(out->authority, (size_t)at + 1);
    }
    out->path = n == rest.len ? KB_STR("/") : kb_str_from(rest, n);
    if (!host_and_port_valid(out->authority) || !visible(out->path)) {
        return KB_URL_INVALID;
    }
    return kb_str_ieq(out->scheme, KB_STR("http")) || kb_str_ieq(out->scheme, KB_STR("https"))
               ? KB_URL_OK
               : KB_URL_SCHEME;
}
