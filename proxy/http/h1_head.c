/* SPDX-License-Identifier: Apache-2.0 */
/* The usual HTTP/1 head in one pass; see h1_head.h. Every test here may only be stricter than
 * RFC 9112: what fails one is read again by llhttp. */
#include "proxy/http/h1_head.h"

#include <endian.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define ONES       UINT64_C(0x0101010101010101)
#define HIGHS      (ONES * 0x80)
#define ALL(c)     (ONES * (unsigned char)(c))
#define DIGITS_MAX 18 /* of a content-length; any such number fits 64 bits */

/* Characters of a token (RFC 9110 section 5.6.2) that are left once letters are in lower case. */
static const bool token[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1,
    ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1,  ['~'] = 1, ['0'] = 1,
    ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1, ['6'] = 1,  ['7'] = 1, ['8'] = 1,
    ['9'] = 1, ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1,  ['f'] = 1, ['g'] = 1,
    ['h'] = 1, ['i'] = 1, ['j'] = 1, ['k'] = 1, ['l'] = 1, ['m'] = 1,  ['n'] = 1, ['o'] = 1,
    ['p'] = 1, ['q'] = 1, ['r'] = 1, ['s'] = 1, ['t'] = 1, ['u'] = 1,  ['v'] = 1, ['w'] = 1,
    ['x'] = 1, ['y'] = 1, ['z'] = 1,
};

/* The high bit of the first byte below n (n <= 0x80) is set; bits above it may be wrong. */
KB_INLINE uint64_t bytes_below(uint64_t word, unsigned char n)
{
    return (word - ALL(n)) & ~word & HIGHS;
}

KB_INLINE uint64_t word_load(const char *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof(word));
    return le64toh(word); /* so that the first byte is the lowest on every machine */
}

/* Which byte the lowest bit of a mask of bytes_below stands for. */
KB_INLINE size_t first_byte(uint64_t mask)
{
    return (size_t)__builtin_ctzll(mask) / 8;
}

/* 0x20 in every byte from 'A' to 'Z'. */
KB_INLINE uint64_t upper_case_bits(uint64_t word)
{
    uint64_t low = word & ~HIGHS;
    uint64_t from_a = low + ALL(0x80 - 'A');
    uint64_t behind_z = low + ALL(0x80 - 'Z' - 1);

    return ((from_a ^ behind_z) & ~word & HIGHS) >> 2;
}

/* End of the run of visible ASCII characters other than '#'. */
static const char *target_end(const char *p, const char *end)
{
    for (; end - p >= 8; p += 8) {
        uint64_t word = word_load(p);
        uint64_t stop = bytes_below(word, 0x21) | (word & HIGHS) |
                        bytes_below(word ^ ALL(0x7f), 1) | bytes_below(word ^ ALL('#'), 1);

        if (stop != 0) {
            return p + first_byte(stop);
        }
    }
    while (p < end && *p > 0x20 && *p < 0x7f && *p != '#') {
        p++;
    }
    return p;
}

/* End of the run of characters that a field value may have, TAB apart. */
static const char *value_end(const char *p, const char *end)
{
#ifdef __SSE2__
    for (; end - p >= 16; p += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
        int stop =
            _mm_movemask_epi8(_mm_or_si128(control, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f))));

        if (stop != 0) {
            return p + __builtin_ctz((unsigned)stop);
        }
    }
#endif
    for (; end - p >= 8; p += 8) {
        uint64_t word = word_load(p);
        uint64_t stop = bytes_below(word, 0x20) | bytes_below(word ^ ALL(0x7f), 1);

        if (stop != 0) {
            return p + first_byte(stop);
        }
    }
    while (p < end && (unsigned char)*p >= 0x20 && *p != 0x7f) {
        p++;
    }
    return p;
}

static struct kb_str usual_method(const char *p, size_t room)
{
    static const struct kb_str methods[] = {
        {"GET", 3},  {"POST", 4},    {"PUT", 3},   {"DELETE", 6},
        {"HEAD", 4}, {"OPTIONS", 7}, {"PATCH", 5},
    };

    for (size_t i = 0; i < KB_ARRAY_LEN(methods); i++) {
        if (p[0] == methods[i].p[0] && room > methods[i].len && p[methods[i].len] == ' ' &&
            memcmp(p, methods[i].p, methods[i].len) == 0) {
            return methods[i];
        }
    }
    return KB_STR_NULL;
}

/* Both return the start of the next line, or NULL. */
static const char *request_line(struct kb_h1_parser *parser, const char *p, const char *end)
{
    struct kb_str method = usual_method(p, (size_t)(end - p));
    const char *target;

    if (method.len == 0) {
        return NULL;
    }
    target = p + method.len + 1;
    p = target_end(target, end);
    if (p == target || *target != '/' || end - p < 11 || memcmp(p, " HTTP/1.1\r\n", 11) != 0) {
        return NULL;
    }
    parser->map->method = method;
    parser->url = kb_str_make(target, (size_t)(p - target));
    return p + 11;
}

static const char *status_line(struct kb_h1_parser *parser, const char *p, const char *end)
{
    unsigned status;

    if (end - p < 15 || memcmp(p, "HTTP/1.1 ", 9) != 0 || p[9] < '2' || p[9] > '5' ||
        !kb_ascii_is_digit(p[10]) || !kb_ascii_is_digit(p[11]) || p[12] != ' ') {
        return NULL;
    }
    status = (unsigned)(p[9] - '0') * 100 + (unsigned)(p[10] - '0') * 10 + (unsigned)(p[11] - '0');
    for (p += 13; p < end && *p >= 0x20 && *p < 0x7f; p++) {
    }
    if (status == 204 || status == 304 || end - p < 2 || p[0] != '\r' || p[1] != '\n') {
        return NULL;
    }
    parser->map->status = (uint16_t)status;
    return p + 2;
}

static bool content_length(struct kb_h1_parser *parser, struct kb_str value)
{
    uint64_t length = 0;

    if (value.len == 0 || value.len > DIGITS_MAX || parser->has_content_length) {
        return false;
    }
    for (size_t i = 0; i < value.len; i++) {
        if (!kb_ascii_is_digit(value.p[i])) {
            return false;
        }
        length = length * 10 + (uint64_t)(value.p[i] - '0');
    }
    parser->has_content_length = true;
    parser->content_length = length;
    return true;
}

static bool connection_option(struct kb_h1_parser *parser, struct kb_str value)
{
    if (kb_header_map_get_id(parser->map, KB_HDR_CONNECTION) != NULL) {
        return false;
    }
    if (kb_str_ieq(value, KB_STR("close"))) {
        parser->keep_alive = false;
        return true;
    }
    return kb_str_ieq(value, KB_STR("keep-alive"));
}

/* Headers that say how the message is read, and Host; true when `header` was taken, or may be added
 * like any other by leaving *add true. */
static bool special_header(struct kb_h1_parser *parser, enum kb_header_id id, struct kb_str value,
                           bool *add)
{
    switch ((unsigned)id) {
    case KB_HDR_CONTENT_LENGTH:
        return content_length(parser, value);
    case KB_HDR_CONNECTION:
        return connection_option(parser, value);
    case KB_HDR_HOST:
        if (parser->response) {
            return true;
        }
        *add = false;
        if (parser->map->authority.p != NULL) {
            return false;
        }
        parser->map->authority = value;
        return true;
    case KB_HDR_TRANSFER_ENCODING:
    case KB_HDR_UPGRADE:
    case KB_HDR_PROXY_CONNECTION:
        return false;
    default:
        return true;
    }
}

/* A field name, made lower case where it stands; empty unless a colon follows. Looks no further
 * than the first colon, space or control, so that nothing else is changed. */
static struct kb_str field_name(char *p, const char *end)
{
    struct kb_str name = {p, 0};

#ifdef __SSE2__
    for (; end - p >= 16; p += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x20)), bytes);
        unsigned stop = (unsigned)_mm_movemask_epi8(
            _mm_or_si128(low, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(':'))));
        unsigned upper = (unsigned)_mm_movemask_epi8(
            _mm_and_si128(_mm_cmpgt_epi8(bytes, _mm_set1_epi8('A' - 1)),
                          _mm_cmplt_epi8(bytes, _mm_set1_epi8('Z' + 1))));

        for (upper &= (stop & -stop) - 1; upper != 0; upper &= upper - 1) {
            p[__builtin_ctz(upper)] |= 0x20;
        }
        if (stop != 0) {
            p += __builtin_ctz(stop);
            name.len = *p == ':' ? (size_t)(p - name.p) : 0;
            return name;
        }
    }
#endif
    for (; end - p >= 8; p += 8) {
        uint64_t word = word_load(p);
        uint64_t stop = bytes_below(word ^ ALL(':'), 1) | bytes_below(word, 0x21);
        uint64_t bits = upper_case_bits(word);

        if (stop != 0) {
            bits &= (stop & -stop) - 1;
        }
        word = htole64(word | bits);
        memcpy(p, &word, sizeof(word));
        if (stop != 0) {
            p += first_byte(stop);
            name.len = *p == ':' ? (size_t)(p - name.p) : 0;
            return name;
        }
    }
    for (; p < end && *p != ':' && (unsigned char)*p > 0x20; p++) {
        *p = kb_ascii_lower(*p);
    }
    name.len = p < end && *p == ':' ? (size_t)(p - name.p) : 0;
    return name;
}

static bool is_token(struct kb_str name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (!token[(unsigned char)name.p[i]]) {
            return false;
        }
    }
    return true;
}

/* One header line; the start of the next, or NULL. */
static const char *header_line(struct kb_h1_parser *parser, char *p, const char *end)
{
    struct kb_str name = field_name(p, end);
    struct kb_str value = {p + name.len + 1, 0};
    enum kb_header_id id;
    bool add = true;
    const char *at;

    if (name.len == 0 || (parser->settings->underscores != KB_H1_UNDERSCORES_ALLOW &&
                          kb_str_find_char(name, '_') >= 0)) {
        return NULL;
    }
    while (value.p < end && *value.p == ' ') {
        value.p++;
    }
    at = value_end(value.p, end);
    if (end - at < 2 || at[0] != '\r' || at[1] != '\n') {
        return NULL;
    }
    value.len = (size_t)(at - value.p);
    while (value.len > 0 && value.p[value.len - 1] == ' ') {
        value.len--;
    }
    id = kb_header_id_find(name);
    if (id == KB_HDR_NONE ? !is_token(name) : !special_header(parser, id, value, &add)) {
        return NULL;
    }
    if (add) {
        kb_header_map_append_id(parser->map, id, name, value);
    }
    return at + 2;
}

size_t kb_h1_head_usual(struct kb_h1_parser *parser, struct kb_str bytes)
{
    char *start = (char *)(uintptr_t)bytes.p; /* our own read slice */
    const char *end = bytes.p + bytes.len;
    const char *first, *p;
    uint32_t count = 0;

    parser->keep_alive = true;
    parser->content_length = 0;
    first = parser->response ? status_line(parser, start, end) : request_line(parser, start, end);
    if (first == NULL) {
        return 0;
    }
    p = first;
    do { /* a head without headers is not usual */
        p = header_line(parser, start + (p - bytes.p), end);
        if (p == NULL) {
            return 0;
        }
        count++;
    } while (end - p >= 2 && *p != '\r');
    if (end - p < 2 || p[0] != '\r' || p[1] != '\n' ||
        (parser->response && !parser->has_content_length) ||
        kb_h1_head_headers(parser) > parser->settings->max_headers_count) {
        return 0;
    }
    p += 2;
    parser->head_header_count = count;
    parser->header_bytes = (uint32_t)(p - first - 2) - count;
    return (size_t)(p - bytes.p);
}
