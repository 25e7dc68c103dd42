/* SPDX-License-Identifier: Apache-2.0 */
/* Path and host normalisation before routing. */
#include "proxy/http/path.h"

static int hex_value(char c)
{
    if (kb_ascii_is_digit(c)) {
        return c - '0';
    }
    c = kb_ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of "%XX" at `at`, or -1. */
static int escape_value(struct kb_str path, size_t at)
{
    int hi, lo;

    if (at + 2 >= path.len || path.p[at] != '%') {
        return -1;
    }
    hi = hex_value(path.p[at + 1]);
    lo = hex_value(path.p[at + 2]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

static bool is_unreserved(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

/* A character was decoded at most two places behind a '%' that began no escape, as in "%%32e":
 * where the two make an escape now, the '%' itself is written as one, lest the next hop decodes
 * what this one did not see. `next` is the input behind. Returns the new length of the output. */
static size_t nested_escape_break(char *out, size_t n, size_t percent, struct kb_str next)
{
    bool adjacent = percent == n - 2;
    char escape[3] = {'%', out[percent + 1], out[n - 1]};

    if (adjacent) {
        if (next.len == 0) {
            return n;
        }
        escape[2] = next.p[0];
    }
    if (escape_value(kb_str_make(escape, 3), 0) < 0) {
        return n;
    }
    out[percent + 1] = '2';
    out[percent + 2] = '5';
    out[percent + 3] = escape[1];
    if (adjacent) {
        return percent + 4;
    }
    out[percent + 4] = escape[2];
    return percent + 5;
}

/* Decodes escapes of unreserved characters and turns '\' to '/'. */
static int unescape_unreserved(struct kb_str path, char *out, size_t *out_len)
{
    size_t n = 0;
    size_t percent = SIZE_MAX; /* of the last '%' that began no escape */

    for (size_t i = 0; i < path.len; i++) {
        int c = escape_value(path, i);

        if (c == 0) {
            return KB_EINVALID;
        }
        if (c > 0 && is_unreserved(c)) {
            out[n++] = (char)c;
            i += 2;
            if (KB_UNLIKELY(percent != SIZE_MAX && percent + 3 >= n)) {
                n = nested_escape_break(out, n, percent, kb_str_from(path, i + 1));
            }
        } else if (memchr("|\"<>`{}^", path.p[i], 8) != NULL && path.p[i] != '\0') {
            /* Not allowed in a path: written as an escape. */
            static const char digits[] = "0123456789ABCDEF";

            out[n++] = '%';
            out[n++] = digits[(unsigned char)path.p[i] >> 4];
            out[n++] = digits[path.p[i] & 15];
        } else {
            percent = path.p[i] == '%' && c < 0 ? n : percent;
            out[n++] = path.p[i] == '\\' ? '/' : path.p[i];
        }
    }
    *out_len = n;
    return 0;
}

/* RFC 3986 section 5.2.4, in place; the path starts with '/'. */
static size_t remove_dot_segments(char *path, size_t len)
{
    size_t out = 0;
    size_t at = 0;

    while (at < len) {
        size_t end = at + 1;
        struct kb_str segment;
        bool last;

        while (end < len && path[end] != '/') {
            end++;
        }
        segment = kb_str_make(path + at + 1, end - at - 1);
        last = end == len;
        if (kb_str_eq(segment, KB_STR(".")) || kb_str_eq(segment, KB_STR(".."))) {
            if (segment.len == 2) {
                while (out > 0 && path[--out] != '/') {
                }
            }
            if (last) {
                path[out++] = '/';
            }
        } else {
            memmove(path + out, path + at, end - at);
            out += end - at;
        }
        at = end;
    }
    return out;
}

int kb_path_canonical(struct kb_str path, char *out, size_t *out_len)
{
    if (path.len == 0 || path.p[0] != '/') {
        return KB_EINVALID;
    }
    KB_TRY(unescape_unreserved(path, out, out_len));
    *out_len = remove_dot_segments(out, *out_len);
    return 0;
}

static size_t slashes_merge(char *path, size_t len)
{
    size_t out = 0;

    for (size_t i = 0; i < len; i++) {
        if (path[i] != '/' || out == 0 || path[out - 1] != '/') {
            path[out++] = path[i];
        }
    }
    if (out == 1 && len > 1) {
        out = 2; /* nothing but slashes: Envoy keeps the first and the last */
    }
    return out;
}

/* Replaces %2F and %5C; returns whether there were any. */
static bool slashes_unescape(char *path, size_t *len)
{
    size_t out = 0;
    bool found = false;

    for (size_t i = 0; i < *len; i++) {
        int c = escape_value(kb_str_make(path, *len), i);

        if (c == '/' || c == '\\') {
            path[out++] = (char)c;
            i += 2;
            found = true;
        } else {
            path[out++] = path[i];
        }
    }
    *len = out;
    return found;
}

/* The path part changed: back together with its query. */
static struct kb_str path_join(struct kb_header_map *headers, const char *path, size_t len,
                               struct kb_str query)
{
    char *joined = kb_arena_alloc(headers->arena, len + query.len + 1, 1);

    memcpy(joined, path, len);
    if (query.len > 0) {
        memcpy(joined + len, query.p, query.len);
    }
    return kb_str_make(joined, len + query.len);
}

enum kb_path_result kb_path_normalise(const struct kb_hcm_config *config,
                                      struct kb_header_map *headers, struct kb_str *location)
{
    struct kb_str path = headers->path;
    struct kb_str query = KB_STR_NULL;
    ptrdiff_t mark;
    bool redirect = false;
    size_t len;
    char *work;

    if (path.len == 0) {
        return KB_PATH_OK;
    }
    if (memchr(path.p, '#', path.len) != NULL) {
        return KB_PATH_REJECT;
    }
    if (KB_LIKELY(!config->normalize_path && !config->merge_slashes &&
                  config->escaped_slashes == KB_ESCAPED_SLASHES_KEEP)) {
        return KB_PATH_OK;
    }
    mark = kb_str_find_char(path, '?');
    if (mark >= 0) {
        query = kb_str_from(path, (size_t)mark);
        path = kb_str_first(path, (size_t)mark);
    }
    len = path.len;
    work = kb_arena_alloc(headers->arena, len + 1, 1);
    memcpy(work, path.p, len);
    if (config->escaped_slashes != KB_ESCAPED_SLASHES_KEEP && slashes_unescape(work, &len)) {
        redirect = config->escaped_slashes == KB_ESCAPED_SLASHES_UNESCAPE_AND_REDIRECT;
        headers->path = path_join(headers, work, len, query);
        if (config->escaped_slashes == KB_ESCAPED_SLASHES_REJECT) {
            return KB_PATH_REJECT;
        }
    }
    if (config->normalize_path) {
        char *canonical = kb_arena_alloc(headers->arena, len * 3 + 1, 1);

        if (kb_path_canonical(kb_str_make(work, len), canonical, &len) != 0) {
            return KB_PATH_REJECT;
        }
        work = canonical;
    }
    if (config->merge_slashes) {
        len = slashes_merge(work, len);
    }
    headers->path = path_join(headers, work, len, query);
    *location = headers->path;
    return redirect ? KB_PATH_REDIRECT : KB_PATH_OK;
}

void kb_host_normalise(const struct kb_hcm_config *config, struct kb_header_map *headers,
                       uint16_t listener_port)
{
    struct kb_str host = headers->authority;
    struct kb_str port_text = KB_STR_NULL;
    ptrdiff_t colon;
    uint64_t port;

    if (KB_LIKELY(!config->strip_any_host_port && !config->strip_matching_host_port &&
                  !config->strip_trailing_host_dot)) {
        return;
    }
    colon = kb_str_rfind_char(host, ':');
    if (colon >= 0 && kb_str_find_char(kb_str_from(host, (size_t)colon), ']') < 0) {
        port_text = kb_str_from(host, (size_t)colon);
        host = kb_str_first(host, (size_t)colon);
    }
    if (port_text.len > 1 && kb_str_to_u64(kb_str_from(port_text, 1), &port) == 0 &&
        (config->strip_any_host_port ||
         (config->strip_matching_host_port && !kb_str_eq(headers->method, KB_STR("CONNECT")) &&
          port == listener_port))) {
        port_text = KB_STR_NULL;
    }
    if (config->strip_trailing_host_dot && host.len > 0 && host.p[host.len - 1] == '.') {
        host.len--;
    }
    if (port_text.len > 0 && host.p + host.len != port_text.p) {
        headers->authority =
            kb_str_printf(headers->arena, "%.*s%.*s", KB_STR_ARG(host), KB_STR_ARG(port_text));
    } else {
        headers->authority = kb_str_make(host.p, host.len + port_text.len);
    }
}
