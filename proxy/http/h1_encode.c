/* SPDX-License-Identifier: Apache-2.0 */
/* Writes HTTP/1 heads and bodies. A head is measured, then written once into contiguous room of the
 * connection's queue. */
#include "proxy/http/h1_encode.h"

#include "proxy/http/header_spelling.h"

struct status_name {
    uint16_t status;
    const char *reason;
};

static const struct status_name status_names[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {203, "Non-Authoritative Information"},
    {204, "No Content"},
    {205, "Reset Content"},
    {206, "Partial Content"},
    {207, "Multi-Status"},
    {208, "Already Reported"},
    {226, "IM Used"},
    {300, "Multiple Choices"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {305, "Use Proxy"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {407, "Proxy Authentication Required"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Payload Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Entity"},
    {423, "Locked"},
    {424, "Failed Dependency"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {506, "Variant Also Negotiates"},
    {507, "Insufficient Storage"},
    {508, "Loop Detected"},
    {510, "Not Extended"},
    {511, "Network Authentication Required"},
    {599, "Last Unassigned Server Error Code"},
};

struct kb_str kb_h1_status_reason(unsigned status)
{
    for (size_t i = 0; i < KB_ARRAY_LEN(status_names); i++) {
        if (status_names[i].status == status) {
            return kb_str_from_cstr(status_names[i].reason);
        }
    }
    return KB_STR("Unknown");
}

KB_INLINE char *put(char *at, const char *p, size_t len)
{
    memcpy(at, p, len);
    return at + len;
}

#define PUT(at, literal) put((at), "" literal, sizeof(literal) - 1)

/* How names are written; NULL: as they are, which is in lower case. */
struct name_style {
    const struct kb_header_spellings *spellings; /* of the message; NULL: proper case */
};

/* What the message remembers counts before what the connection is told. */
static const struct name_style *style_of(struct name_style *style,
                                         const struct kb_header_map *headers, bool proper)
{
    style->spellings = headers->spellings;
    return style->spellings != NULL || proper ? style : NULL;
}

static KB_COLD void name_style(const struct name_style *style, char *name, size_t len)
{
    if (style->spellings != NULL) {
        kb_header_spelling_apply(style->spellings, name, len);
    } else {
        kb_header_proper_case(name, len);
    }
}

KB_INLINE char *header_put(char *at, struct kb_str name, struct kb_str value,
                           const struct name_style *style)
{
    char *start = at;

    at = put(at, name.p, name.len);
    if (KB_UNLIKELY(style != NULL)) {
        name_style(style, start, name.len);
    }
    at = PUT(at, ": ");
    if (value.len > 0) {
        at = put(at, value.p, value.len);
    }
    return PUT(at, "\r\n");
}

/* Room that every header takes, with what the codec may add. */
static size_t headers_size(const struct kb_header_map *headers)
{
    size_t size = 96;

    for (const struct kb_header *h = headers->items; h < headers->items + headers->count; h++) {
        size += h->name.len + h->value.len + 4;
    }
    return size;
}

static char *headers_put(char *at, const struct kb_header_map *headers,
                         const struct name_style *style)
{
    for (const struct kb_header *h = headers->items; h < headers->items + headers->count; h++) {
        if (KB_LIKELY(h->name.len > 0)) {
            at = header_put(at, h->name, h->value, style);
        }
    }
    return at;
}

/* Of the message, where it shall be forwarded, or the usual one. */
static struct kb_str reason_of(const struct kb_header_map *headers)
{
    if (headers->spellings != NULL && headers->spellings->reason.len > 0) {
        return headers->spellings->reason;
    }
    return kb_h1_status_reason(headers->status);
}

static char *status_line_put(char *at, const struct kb_header_map *headers, bool http_10)
{
    unsigned status = headers->status;
    struct kb_str reason;

    if (KB_LIKELY(status == 200 && !http_10 && headers->spellings == NULL)) {
        return PUT(at, "HTTP/1.1 200 OK\r\n");
    }
    reason = reason_of(headers);
    at = http_10 ? PUT(at, "HTTP/1.0 ") : PUT(at, "HTTP/1.1 ");
    at += kb_u64_to_str(status, at);
    at = PUT(at, " ");
    at = put(at, reason.p, reason.len);
    return PUT(at, "\r\n");
}

size_t kb_h1_header_bytes(size_t head_bytes, const struct kb_header_map *headers)
{
    /* "HTTP/1.1 200 " reason CRLF, and the final CRLF */
    if (KB_LIKELY(headers->status == 200 && headers->spellings == NULL)) {
        return head_bytes - 19;
    }
    return head_bytes - (17 + reason_of(headers).len);
}

/* Adds the framing header that is missing; as Envoy's StreamEncoderImpl::encodeHeadersBase. */
static enum kb_h1_framing response_framing(char **at, const struct kb_header_map *headers,
                                           bool end_stream,
                                           const struct kb_h1_response_options *options,
                                           const struct name_style *style)
{
    unsigned status = headers->status;
    bool bodiless = options->head_request || status == 304 || status == 204 || status < 200;

    if (KB_UNLIKELY(options->upgraded && !end_stream)) {
        return KB_H1_FRAMING_CLOSE;
    }
    if (kb_header_map_get_id(headers, KB_HDR_CONTENT_LENGTH) != NULL) {
        return bodiless ? KB_H1_FRAMING_NONE : KB_H1_FRAMING_LENGTH;
    }
    if (end_stream && !options->head_request) {
        if (status >= 200 && status != 204 && status != 304) {
            *at = header_put(*at, KB_STR("content-length"), KB_STR("0"), style);
        }
        return KB_H1_FRAMING_NONE;
    }
    if (status == 304) {
        return KB_H1_FRAMING_NONE;
    }
    if (options->http_10) {
        return bodiless ? KB_H1_FRAMING_NONE : KB_H1_FRAMING_CLOSE;
    }
    if (status < 200 || status == 204) {
        return KB_H1_FRAMING_NONE;
    }
    *at = header_put(*at, KB_STR("transfer-encoding"), KB_STR("chunked"), style);
    return options->head_request ? KB_H1_FRAMING_NONE : KB_H1_FRAMING_CHUNKED;
}

enum kb_h1_framing kb_h1_encode_response(struct kb_buf *out, const struct kb_header_map *headers,
                                         bool end_stream,
                                         const struct kb_h1_response_options *options)
{
    size_t reason_len = headers->spellings != NULL ? headers->spellings->reason.len : 0;
    char *start = kb_buf_reserve(out, headers_size(headers) + reason_len);
    char *at = status_line_put(start, headers, options->http_10);
    struct name_style storage;
    const struct name_style *style =
        style_of(&storage, headers, options->settings->proper_case_words);
    enum kb_h1_framing framing;

    at = headers_put(at, headers, style);
    framing = response_framing(&at, headers, end_stream, options, style);
    at = PUT(at, "\r\n");
    kb_buf_commit(out, (size_t)(at - start));
    return framing;
}

/* Methods whose requests have no body unless they say so (RFC 9110 section 9.3); Envoy adds no
 * content-length: 0 to them. */
static bool method_bodiless(struct kb_str method)
{
    return kb_str_eq(method, KB_STR("GET")) || kb_str_eq(method, KB_STR("HEAD")) ||
           kb_str_eq(method, KB_STR("DELETE")) || kb_str_eq(method, KB_STR("TRACE")) ||
           kb_str_eq(method, KB_STR("CONNECT"));
}

static enum kb_h1_framing request_framing(char **at, const struct kb_header_map *headers,
                                          bool end_stream, const struct name_style *style)
{
    if (kb_header_map_get_id(headers, KB_HDR_CONTENT_LENGTH) != NULL) {
        return KB_H1_FRAMING_LENGTH;
    }
    if (end_stream) {
        if (!method_bodiless(headers->method)) {
            *at = header_put(*at, KB_STR("content-length"), KB_STR("0"), style);
        }
        return KB_H1_FRAMING_LENGTH;
    }
    if (kb_str_eq(headers->method, KB_STR("CONNECT")) || kb_header_map_asks_upgrade(headers)) {
        return KB_H1_FRAMING_CLOSE;
    }
    *at = header_put(*at, KB_STR("transfer-encoding"), KB_STR("chunked"), style);
    return KB_H1_FRAMING_CHUNKED;
}

enum kb_h1_framing kb_h1_encode_request(struct kb_buf *out, const struct kb_header_map *headers,
                                        bool end_stream, const struct kb_h1_settings *settings)
{
    struct kb_str target =
        kb_str_eq(headers->method, KB_STR("CONNECT")) ? headers->authority : headers->path;
    bool whole = KB_UNLIKELY(settings->send_fully_qualified_url) && target.p == headers->path.p;
    size_t size = headers_size(headers) + headers->method.len + target.len +
                  headers->authority.len + 32 +
                  (whole ? headers->scheme.len + 3 + headers->authority.len : 0);
    char *start = kb_buf_reserve(out, size);
    char *at = put(start, headers->method.p, headers->method.len);
    struct name_style storage;
    const struct name_style *style = style_of(&storage, headers, settings->proper_case_words);
    enum kb_h1_framing framing;

    at = PUT(at, " ");
    if (whole) {
        at = put(at, headers->scheme.p, headers->scheme.len);
        at = PUT(at, "://");
        at = put(at, headers->authority.p, headers->authority.len);
    }
    if (target.len > 0) {
        at = put(at, target.p, target.len);
    }
    at = PUT(at, " HTTP/1.1\r\n");
    if (headers->authority.p != NULL) {
        at = header_put(at, KB_STR("host"), headers->authority, style);
    }
    at = headers_put(at, headers, style);
    framing = request_framing(&at, headers, end_stream, style);
    at = PUT(at, "\r\n");
    kb_buf_commit(out, (size_t)(at - start));
    return framing;
}

static size_t hex_put(char *out, uint64_t v)
{
    static const char digits[] = "0123456789abcdef";
    char tmp[16];
    size_t n = 0;

    do {
        tmp[n++] = digits[v & 15];
        v >>= 4;
    } while (v != 0);
    for (size_t i = 0; i < n; i++) {
        out[i] = tmp[n - 1 - i];
    }
    return n;
}

void kb_h1_encode_data(struct kb_buf *out, enum kb_h1_framing framing, struct kb_buf *data)
{
    size_t len = data->len;
    char *start;
    size_t n;

    if (framing == KB_H1_FRAMING_NONE || len == 0) {
        kb_buf_consume(data, len);
        return;
    }
    if (framing != KB_H1_FRAMING_CHUNKED) {
        kb_buf_move(out, data);
        return;
    }
    start = kb_buf_reserve(out, 18);
    n = hex_put(start, len);
    memcpy(start + n, "\r\n", 2);
    kb_buf_commit(out, n + 2);
    kb_buf_move(out, data);
    kb_buf_append(out, "\r\n", 2);
}

void kb_h1_encode_end(struct kb_buf *out, enum kb_h1_framing framing,
                      const struct kb_header_map *trailers)
{
    if (framing != KB_H1_FRAMING_CHUNKED) {
        return;
    }
    if (trailers == NULL || trailers->live == 0) {
        kb_buf_append(out, "0\r\n\r\n", 5);
        return;
    }
    {
        char *start = kb_buf_reserve(out, headers_size(trailers) + 8);
        char *at = PUT(start, "0\r\n");
        struct name_style storage;

        at = headers_put(at, trailers, style_of(&storage, trailers, false));
        at = PUT(at, "\r\n");
        kb_buf_commit(out, (size_t)(at - start));
    }
}
