/* SPDX-License-Identifier: Apache-2.0 */
/* Where Envoy's parser and llhttp disagree on a head. */
#include "proxy/http/h1_quirks.h"

#include "proxy/http/url.h"

#define ENVOY_SLICE 16384 /* how much Envoy gives to its parser at once */

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

/* What Envoy's parser takes for white space; other control characters are refused anyway. */
static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next word of a line, separated by runs of white space. */
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

/* Visible ASCII, as much of it as there may be. */
static bool path_form(struct kb_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if ((unsigned char)text.p[i] <= ' ' || (unsigned char)text.p[i] >= 0x7f) {
            return false;
        }
    }
    return true;
}

static bool host_form(struct kb_str host)
{
    for (size_t i = 0; i < host.len; i++) {
        char c = host.p[i];

        if (!kb_ascii_is_digit(c) && !kb_ascii_is_alpha(c) &&
            (c == '\0' || strchr("!$%&'()*+,-.:;=@[]_~", c) == NULL)) {
            return false;
        }
    }
    return kb_str_find(host, KB_STR("@@")) < 0;
}

/* A path, "*", an absolute URL, or CONNECT's authority (Envoy's isUrlValid). */
static bool target_form(struct kb_str method, struct kb_str target)
{
    size_t n = 0;

    if (target.p[0] == '/' || target.p[0] == '*') {
        return path_form(target);
    }
    if (!kb_str_eq(method, KB_STR("CONNECT"))) {
        n = kb_url_scheme_len(target);
        if (n == 0 || !kb_str_starts_with(kb_str_from(target, n), KB_STR("://"))) {
            return false;
        }
        target = kb_str_from(target, n + 3);
    }
    n = 0;
    while (n < target.len && target.p[n] != '/' && target.p[n] != '?') {
        n++;
    }
    return host_form(kb_str_first(target, n)) && path_form(kb_str_from(target, n));
}

/* Parts of the first line: two words, and all that stands behind them. */
struct first_line {
    struct kb_str words[2];
    struct kb_str rest;
};

/* False when Envoy's parser gives up here, whatever follows. */
static bool first_line_split(struct kb_str line, bool response, struct first_line *out)
{
    while (line.len > 0 && is_space(line.p[line.len - 1])) {
        line.len--;
    }
    if (line.len == 0 || (unsigned char)line.p[0] <= ' ') {
        return false;
    }
    out->words[0] = word_next(&line);
    out->words[1] = word_next(&line);
    while (line.len > 0 && is_space(line.p[0])) {
        line = kb_str_from(line, 1);
    }
    out->rest = line;
    if (out->words[1].len == 0) {
        return false;
    }
    for (size_t i = 0; response && i < out->words[1].len; i++) {
        if (!kb_ascii_is_digit(out->words[1].p[i])) {
            return false;
        }
    }
    return true;
}

static enum kb_h1_error request_line(const struct first_line *line,
                                     const struct kb_h1_settings *settings)
{
    struct kb_str method = line->words[0];

    if ((!method_known(method) && !method_custom(method, settings)) ||
        !target_form(method, line->words[1])) {
        return KB_H1_CODEC_ERROR;
    }
    if (line->rest.len == 0) {
        return settings->accept_http_10 ? KB_H1_OK : KB_H1_LOW_VERSION;
    }
    /* Whatever is not 1.1 counts as 1.0; whether that is accepted is asked when the head is whole.
     */
    return version_form(line->rest) ? KB_H1_OK : KB_H1_CODEC_ERROR;
}

enum kb_h1_error kb_h1_quirks_first_line(struct kb_str line, bool response,
                                         const struct kb_h1_settings *settings)
{
    struct first_line parts;

    if (!first_line_split(line, response, &parts)) {
        return KB_H1_CODEC_ERROR;
    }
    if (response) {
        return kb_str_starts_with(parts.words[0], KB_STR("HTTP/")) ? KB_H1_OK : KB_H1_CODEC_ERROR;
    }
    return request_line(&parts, settings);
}

static size_t put(char *out, size_t at, struct kb_str text)
{
    if (text.len > 0) {
        memcpy(out + at, text.p, text.len);
    }
    return at + text.len;
}

/* Without the CRs and LFs that stand in it. */
static size_t text_put(char *out, size_t at, struct kb_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.p[i] != '\r' && text.p[i] != '\n') {
            out[at++] = text.p[i];
        }
    }
    return at;
}

static size_t first_line_put(char *out, const struct first_line *line, bool response,
                             const struct kb_h1_settings *settings)
{
    struct kb_str first = line->words[0];
    struct kb_str rest = line->rest;
    size_t at;

    if (!response) {
        first = method_custom(first, settings) ? KB_STR("POST") : first;
        /* HTTP/0.9 requests are answered as 1.0. */
        rest = kb_str_eq(rest, KB_STR("HTTP/1.1")) ? rest : KB_STR("HTTP/1.0");
    }
    at = put(out, 0, first);
    at = put(out, at, KB_STR(" "));
    at = put(out, at, line->words[1]);
    at = put(out, at, KB_STR(" "));
    at = text_put(out, at, rest);
    return put(out, at, KB_STR("\r\n"));
}

/* What the header lines of a head say. */
struct quirk_scan {
    unsigned lengths;
    unsigned encodings;
    bool bad_length;
    bool bad_encoding;
    bool bad_line;
};

/* The next header with its continuation lines; false at the end of the head. Envoy takes no other
 * white space for a continuation than space and TAB. */
static bool header_next(struct kb_str *rest, struct kb_str *header, bool *bad)
{
    struct kb_str line, after = *rest;

    if (!kb_str_next_token(&after, '\n', &line) || line.len == 0 ||
        (line.len == 1 && line.p[0] == '\r')) {
        return false;
    }
    *rest = after;
    while (rest->len > 0 && (unsigned char)rest->p[0] <= ' ' && rest->p[0] != '\n' &&
           !kb_str_starts_with(*rest, KB_STR("\r\n"))) {
        struct kb_str more;

        *bad = *bad || (rest->p[0] != ' ' && rest->p[0] != '\t');
        kb_str_next_token(rest, '\n', &more);
        line.len = (size_t)(more.p + more.len - line.p);
    }
    *header = line;
    return true;
}

static struct kb_str trimmed(struct kb_str text)
{
    while (text.len > 0 && (unsigned char)text.p[0] <= ' ') {
        text = kb_str_from(text, 1);
    }
    while (text.len > 0 && (unsigned char)text.p[text.len - 1] <= ' ') {
        text.len--;
    }
    return text;
}

/* False when there is no colon, or a character that Envoy's parser refuses before it looks at any
 * header. */
static bool header_split(struct kb_str header, struct kb_str *name, struct kb_str *value)
{
    ptrdiff_t colon = kb_str_find_char(header, ':');

    if (colon < 0) {
        return false;
    }
    *name = kb_str_first(header, (size_t)colon);
    *value = trimmed(kb_str_from(header, (size_t)colon + 1));
    for (size_t i = 0; i < name->len; i++) {
        unsigned char c = (unsigned char)name->p[i];

        if (c <= ' ' || c == 0x7f || strchr("(),/;<=>?@[\\]{}", c) != NULL) {
            return false;
        }
    }
    return true;
}

static bool length_valid(struct kb_str value)
{
    uint64_t length;

    for (size_t i = 0; i < value.len; i++) {
        if (!kb_ascii_is_digit(value.p[i])) {
            return false;
        }
    }
    return kb_str_to_u64(value, &length) == 0;
}

static void header_scan(struct quirk_scan *scan, struct kb_str header)
{
    struct kb_str name, value;

    if (!header_split(header, &name, &value)) {
        scan->bad_line = true;
    } else if (kb_str_ieq(name, KB_STR("content-length"))) {
        scan->lengths++;
        scan->bad_length = scan->bad_length || !length_valid(value);
    } else if (kb_str_ieq(name, KB_STR("transfer-encoding"))) {
        scan->encodings++;
        scan->bad_encoding =
            scan->bad_encoding || scan->encodings > 1 || !kb_str_ieq(value, KB_STR("chunked"));
    }
}

static bool characters_valid(struct kb_str head)
{
    for (size_t i = 0; i < head.len; i++) {
        unsigned char c = (unsigned char)head.p[i];

        if ((c < 0x20 && c != '\t' && c != '\r' && c != '\n') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

/* A header in one line, without bare CRs. A framing header that decides nothing any more, because
 * the head will be refused for it, gets another name: what else is wrong shows first. */
static size_t header_put(char *out, size_t at, struct kb_str header, bool refused)
{
    struct kb_str name, value;
    size_t start = at;

    header_split(header, &name, &value);
    at = put(out, at, name);
    if (refused && (kb_str_ieq(name, KB_STR("content-length")) ||
                    kb_str_ieq(name, KB_STR("transfer-encoding")))) {
        out[start] = 'x';
    }
    at = put(out, at, KB_STR(": "));
    at = text_put(out, at, value);
    return put(out, at, KB_STR("\r\n"));
}

/* The verdicts in the order in which Envoy's parser (Balsa) and its codec come to them: the first
 * line's form, characters, header lines, lengths, the first line's words; what is wrong with single
 * headers shows when the canonical head is parsed; then `*framing`. */
static enum kb_h1_error headers_verdict(const struct quirk_scan *scan,
                                        const struct kb_h1_settings *settings,
                                        enum kb_h1_error *framing)
{
    bool chunked = scan->encodings > 0 && !scan->bad_encoding;

    *framing = KB_H1_OK;
    if (scan->bad_line || scan->lengths > 1 || (scan->bad_length && !chunked)) {
        return KB_H1_CODEC_ERROR;
    }
    if (scan->lengths > 0 && scan->encodings > 0 && !(chunked && settings->allow_chunked_length)) {
        *framing = KB_H1_CONTENT_LENGTH_AND_CHUNKED;
    } else if (scan->bad_encoding) {
        *framing = KB_H1_INVALID_TRANSFER_ENCODING;
    }
    return KB_H1_OK;
}

enum kb_h1_error kb_h1_quirks_canonicalise(struct kb_str head, bool response,
                                           const struct kb_h1_settings *settings, char *out,
                                           size_t *out_len, enum kb_h1_error *framing)
{
    struct quirk_scan scan = {0};
    struct first_line first;
    struct kb_str rest = head;
    struct kb_str line, header, headers;
    enum kb_h1_error error, pending;
    size_t at;

    *framing = KB_H1_OK;
    kb_str_next_token(&rest, '\n', &line);
    pending = kb_h1_quirks_first_line(line, response, settings);
    if (!first_line_split(line, response, &first) ||
        (pending != KB_H1_OK && (head.len > ENVOY_SLICE || (!response && first.rest.len == 0)))) {
        return pending; /* Envoy has not seen more by then */
    }
    if (!characters_valid(head)) {
        return KB_H1_INVALID_CHARACTERS;
    }
    headers = rest;
    while (header_next(&rest, &header, &scan.bad_line)) {
        header_scan(&scan, header);
    }
    error = headers_verdict(&scan, settings, framing);
    if (error != KB_H1_OK || pending != KB_H1_OK) {
        return error != KB_H1_OK ? error : pending;
    }
    at = first_line_put(out, &first, response, settings);
    while (header_next(&headers, &header, &scan.bad_line)) {
        bool moot = scan.encodings > 0 && kb_str_istarts_with(header, KB_STR("content-length:"));

        if (*framing != KB_H1_OK || !moot) {
            at = header_put(out, at, header, *framing != KB_H1_OK);
        }
    }
    *out_len = put(out, at, KB_STR("\r\n"));
    return KB_H1_OK;
}

bool kb_h1_quirks_name_valid(struct kb_str head, uint32_t index)
{
    struct kb_str line;

    for (uint32_t i = 0; kb_str_next_token(&head, '\n', &line) && line.len > 1; i++) {
        if (i == index + 1) {
            return is_token(kb_str_first(line, (size_t)KB_MAX(kb_str_find_char(line, ':'), 0)));
        }
    }
    return true; /* there is no such header */
}
