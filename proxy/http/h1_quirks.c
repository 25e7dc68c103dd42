/* SPDX-License-Identifier: Apache-2.0 */
/* Where Envoy's parser and llhttp disagree on a head. */
#include "proxy/http/h1_quirks.h"

size_t kb_h1_quirks_head_end(struct kb_str bytes)
{
    size_t at = 0;

    while (at < bytes.len) {
        ptrdiff_t lf = kb_str_find_char(kb_str_from(bytes, at), '\n');

        if (lf < 0) {
            return 0;
        }
        if (at > 0 && (lf == 0 || (lf == 1 && bytes.p[at] == '\r'))) {
            return at + (size_t)lf + 1;
        }
        at += (size_t)lf + 1;
    }
    return 0;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* The next word of a line, separated by runs of space and TAB. */
static struct kb_str word_next(struct kb_str *rest)
{
    size_t n = 0;
    struct kb_str word;

    while (rest->len > 0 && is_space(rest->p[0])) {
        *rest = kb_str_from(*rest, 1);
    }
    while (n < rest->len && !is_space(rest->p[n])) {
        n++;
    }
    word = kb_str_first(*rest, n);
    *rest = kb_str_from(*rest, n);
    return word;
}

static bool method_known(struct kb_str method)
{
    static const char *const methods[] = {
        "GET",     "POST",      "PUT",        "DELETE",     "HEAD",     "OPTIONS",     "PATCH",
        "CONNECT", "TRACE",     "ACL",        "BIND",       "CHECKOUT", "COPY",        "LINK",
        "LOCK",    "MERGE",     "MKACTIVITY", "MKCALENDAR", "MKCOL",    "MOVE",        "MSEARCH",
        "NOTIFY",  "PROPFIND",  "PROPPATCH",  "PURGE",      "REBIND",   "REPORT",      "SEARCH",
        "SOURCE",  "SUBSCRIBE", "UNBIND",     "UNLINK",     "UNLOCK",   "UNSUBSCRIBE", "QUERY",
    };

    for (size_t i = 0; i < KB_ARRAY_LEN(methods); i++) {
        if (kb_str_eq(method, kb_str_from_cstr(methods[i]))) {
            return true;
        }
    }
    return false;
}

/* RFC 9110 section 5.6.2 */
static bool is_token(struct kb_str word)
{
    for (size_t i = 0; i < word.len; i++) {
        char c = word.p[i];

        if (!kb_ascii_is_digit(c) && !(kb_ascii_lower(c) >= 'a' && kb_ascii_lower(c) <= 'z') &&
            (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL)) {
            return false;
        }
    }
    return word.len > 0;
}

bool kb_h1_quirks_method_begins(char c, const struct kb_h1_settings *settings)
{
    static const char first_bytes[] = "ABCDGHLMNOPQRSTU";

    return settings->allow_custom_methods ? is_token(kb_str_make(&c, 1))
                                          : memchr(first_bytes, c, sizeof(first_bytes) - 1) != NULL;
}

/* A method that Envoy takes and llhttp does not. */
static bool method_custom(struct kb_str method, const struct kb_h1_settings *settings)
{
    if (kb_str_eq(method, KB_STR("MSEARCH"))) {
        return true;
    }
    return settings->allow_custom_methods && !method_known(method) && is_token(method);
}

struct kb_str kb_h1_quirks_custom_method(struct kb_str head, bool response,
                                         const struct kb_h1_settings *settings)
{
    struct kb_str method;

    if (response) {
        return KB_STR_NULL;
    }
    method = word_next(&head);
    return method_custom(method, settings) ? method : KB_STR_NULL;
}

/* "HTTP/<digit>.<digit>" */
static bool version_form(struct kb_str version)
{
    return version.len == 8 && kb_str_starts_with(version, KB_STR("HTTP/")) &&
           kb_ascii_is_digit(version.p[5]) && version.p[6] == '.' &&
           kb_ascii_is_digit(version.p[7]);
}

/* A path, "*", or the scheme of an absolute URL; CONNECT's authority has no form of its own here.
 */
static bool target_form(struct kb_str method, struct kb_str target)
{
    size_t n = 0;

    if (target.p[0] == '/' || target.p[0] == '*' || kb_str_eq(method, KB_STR("CONNECT"))) {
        return true;
    }
    while (n < target.len && target.p[n] != ':') {
        if (!kb_ascii_is_alpha(target.p[n]) &&
            (n == 0 ||
             (!kb_ascii_is_digit(target.p[n]) && memchr("+-.", target.p[n], 3) == NULL))) {
            return false;
        }
        n++;
    }
    return n > 0 && kb_str_starts_with(kb_str_from(target, n), KB_STR("://"));
}

static enum kb_h1_error request_line(struct kb_str line, const struct kb_h1_settings *settings)
{
    struct kb_str rest = line;
    struct kb_str method = word_next(&rest);
    struct kb_str target = word_next(&rest);
    struct kb_str version = word_next(&rest);

    if (line.len > 0 && is_space(line.p[0])) {
        return KB_H1_CODEC_ERROR;
    }
    if (!method_known(method) && !method_custom(method, settings)) {
        return KB_H1_CODEC_ERROR;
    }
    if (target.len == 0 || word_next(&rest).len > 0 || !target_form(method, target)) {
        return KB_H1_CODEC_ERROR;
    }
    if (version.len == 0) {
        return settings->accept_http_10 ? KB_H1_OK : KB_H1_LOW_VERSION;
    }
    /* Whatever is not 1.1 counts as 1.0; whether that is accepted is asked when the head is whole.
     */
    return version_form(version) ? KB_H1_OK : KB_H1_CODEC_ERROR;
}

enum kb_h1_error kb_h1_quirks_first_line(struct kb_str line, bool response,
                                         const struct kb_h1_settings *settings)
{
    if (line.len > 0 && line.p[line.len - 1] == '\r') {
        line.len--;
    }
    if (response) {
        return kb_str_starts_with(line, KB_STR("HTTP/")) ? KB_H1_OK : KB_H1_CODEC_ERROR;
    }
    return request_line(line, settings);
}

static size_t put(char *out, size_t at, struct kb_str text)
{
    if (text.len > 0) {
        memcpy(out + at, text.p, text.len);
    }
    return at + text.len;
}

static size_t request_line_put(char *out, struct kb_str line, const struct kb_h1_settings *settings)
{
    struct kb_str method = word_next(&line);
    size_t at = put(out, 0, method_custom(method, settings) ? KB_STR("POST") : method);
    struct kb_str version;

    out[at++] = ' ';
    at = put(out, at, word_next(&line));
    version = word_next(&line);
    out[at++] = ' ';
    /* HTTP/0.9 requests are answered as 1.0. */
    return put(out, at, kb_str_eq(version, KB_STR("HTTP/1.1")) ? version : KB_STR("HTTP/1.0"));
}

struct quirk_scan {
    bool has_length;
    bool chunked;
    unsigned transfer_encodings;
    bool bad_encoding;
    bool bad_character;
    bool bad_line;
};

static void header_scan(struct quirk_scan *scan, struct kb_str line)
{
    ptrdiff_t colon = kb_str_find_char(line, ':');
    struct kb_str name, value;

    if (colon <= 0) {
        scan->bad_line = true;
        return;
    }
    name = kb_str_first(line, (size_t)colon);
    value = kb_str_trim(kb_str_from(line, (size_t)colon + 1));
    if (kb_str_ieq(name, KB_STR("content-length"))) {
        scan->has_length = true;
    }
    if (kb_str_ieq(name, KB_STR("transfer-encoding"))) {
        scan->transfer_encodings++;
        scan->chunked = kb_str_ieq(value, KB_STR("chunked"));
        scan->bad_encoding = scan->bad_encoding || !scan->chunked || scan->transfer_encodings > 1;
    }
    if (memchr(name.p, '\r', name.len) != NULL) {
        /* Joining the halves could make a framing header of two harmless words. */
        scan->bad_line = true;
    }
    if (memchr(name.p, '\0', name.len) != NULL) {
        scan->bad_character = true;
    }
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.p[i];

        if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f) {
            scan->bad_character = true;
        }
    }
}

/* A header line, or a continuation of the one before, without bare CRs. */
static size_t header_put(char *out, size_t at, struct kb_str line, bool continuation)
{
    if (continuation) {
        /* Envoy keeps the white space of the fold in place of the line end. */
        at -= 2;
    }
    for (size_t i = 0; i < line.len; i++) {
        if (line.p[i] != '\r') {
            out[at++] = line.p[i];
        }
    }
    return put(out, at, KB_STR("\r\n"));
}

static enum kb_h1_error scan_verdict(const struct quirk_scan *scan, bool response,
                                     const struct kb_h1_settings *settings)
{
    (void)response;
    if (scan->bad_line) {
        return KB_H1_CODEC_ERROR;
    }
    if (scan->bad_character) {
        return KB_H1_INVALID_CHARACTERS;
    }
    if (scan->has_length && scan->transfer_encodings > 0 &&
        !(scan->chunked && settings->allow_chunked_length)) {
        return KB_H1_CONTENT_LENGTH_AND_CHUNKED;
    }
    if (scan->bad_encoding) {
        return KB_H1_INVALID_TRANSFER_ENCODING;
    }
    return KB_H1_OK;
}

/* allow_chunked_length: whether the one length is to be forgotten. */
static bool length_is_moot(struct kb_str head)
{
    struct kb_str line;
    bool chunked = false;
    unsigned lengths = 0;

    while (kb_str_next_token(&head, '\n', &line)) {
        chunked = chunked || kb_str_istarts_with(line, KB_STR("transfer-encoding:"));
        lengths += kb_str_istarts_with(line, KB_STR("content-length:"));
    }
    return chunked && lengths == 1;
}

enum kb_h1_error kb_h1_quirks_canonicalise(struct kb_str head, bool response,
                                           const struct kb_h1_settings *settings, char *out,
                                           size_t *out_len)
{
    struct quirk_scan scan = {0};
    struct kb_str rest = head;
    struct kb_str line;
    size_t at = 0;
    bool first = true;
    bool drop_length = settings->allow_chunked_length && length_is_moot(head);
    enum kb_h1_error error;

    while (kb_str_next_token(&rest, '\n', &line)) {
        struct kb_str raw = line;

        if (line.len > 0 && line.p[line.len - 1] == '\r') {
            line.len--;
        }
        if (first) {
            error = kb_h1_quirks_first_line(raw, response, settings);
            if (error != KB_H1_OK) {
                return error;
            }
            at = response ? put(out, 0, line) : request_line_put(out, line, settings);
            at = put(out, at, KB_STR("\r\n"));
            first = false;
            continue;
        }
        if (line.len == 0) {
            break;
        }
        if (is_space(line.p[0])) {
            at = header_put(out, at, line, true);
            continue;
        }
        header_scan(&scan, line);
        if (drop_length && kb_str_istarts_with(line, KB_STR("content-length:"))) {
            continue;
        }
        at = header_put(out, at, line, false);
    }
    *out_len = put(out, at, KB_STR("\r\n"));
    return scan_verdict(&scan, response, settings);
}
