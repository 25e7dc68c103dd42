/* SPDX-License-Identifier: Apache-2.0 */
/* Headers and trailers as the HTTP/1 parser finds them: limits, names with underscores, and what
 * becomes of Host, Transfer-Encoding and Content-Length. */
#include "proxy/http/h1_fields.h"

#include "proxy/http/h1_head.h"
#include "proxy/http/header_spelling.h"

/* Lower case in place: the bytes are our own read slice or arena. */
static bool name_lower(struct kb_str name)
{
    char *p = (char *)(uintptr_t)name.p;
    bool underscore = false;

    for (size_t i = 0; i < name.len; i++) {
        char c = p[i];

        underscore |= c == '_';
        p[i] = (char)(c + (((unsigned char)(c - 'A') < 26) << 5));
    }
    return underscore;
}

static void host_add(struct kb_h1_parser *parser, struct kb_str value)
{
    struct kb_str before = parser->map->authority;

    if (before.len == 0) {
        parser->map->authority = kb_str_make(value.p != NULL ? value.p : "", value.len);
    } else if (value.len > 0) {
        parser->map->authority =
            kb_str_printf(parser->arena, "%.*s,%.*s", KB_STR_ARG(before), KB_STR_ARG(value));
    }
}

static int underscore_found(struct kb_h1_parser *parser)
{
    if (parser->settings->underscores == KB_H1_UNDERSCORES_REJECT) {
        parser->error = KB_H1_UNEXPECTED_UNDERSCORE;
        return -1;
    }
    parser->dropped_underscores = true;
    return 0;
}

static int transfer_encoding_check(struct kb_h1_parser *parser, struct kb_str value)
{
    if (!kb_str_ieq(value, KB_STR("chunked")) || parser->chunked) {
        parser->error = KB_H1_INVALID_TRANSFER_ENCODING;
        return -1;
    }
    parser->chunked = true;
    return 0;
}

/* The limit is one of headers, not of lines: what is joined counts once. */
static bool headers_few(struct kb_h1_parser *parser)
{
    if (kb_h1_head_headers(parser) <= parser->settings->max_headers_count) {
        return true;
    }
    parser->error = KB_H1_TOO_MANY_HEADERS;
    return false;
}

int kb_h1_field_add(struct kb_h1_parser *parser, struct kb_str name, struct kb_str value)
{
    enum kb_header_id id;

    parser->header_count++;
    if (KB_UNLIKELY(parser->settings->preserve_case)) {
        kb_header_spelling_add(parser->map, name, parser->settings->proper_case_otherwise);
    }
    if (name_lower(name) && parser->settings->underscores != KB_H1_UNDERSCORES_ALLOW) {
        return underscore_found(parser);
    }
    id = kb_header_id_find(name);
    if (id == KB_HDR_HOST && !parser->response) {
        host_add(parser, value);
        return headers_few(parser) ? 0 : -1;
    }
    if (id == KB_HDR_TRANSFER_ENCODING && transfer_encoding_check(parser, value) != 0) {
        return -1;
    }
    if (id == KB_HDR_CONTENT_LENGTH) {
        parser->has_content_length = true;
    }
    kb_header_map_append_id(parser->map, id, name, value);
    return headers_few(parser) ? 0 : -1;
}

/* ---- trailers ---- */

int kb_h1_trailer_piece(struct kb_h1_parser *parser, struct kb_str *whole, size_t *cap,
                        struct kb_str piece)
{
    parser->trailer_bytes += piece.len;
    if (parser->trailer_bytes > parser->settings->max_head_bytes) {
        parser->error = KB_H1_TRAILERS_TOO_LARGE;
        return -1;
    }
    if (whole->len + piece.len > *cap) {
        char *grown;

        *cap = KB_MAX((whole->len + piece.len) * 2, (size_t)64);
        grown = kb_arena_alloc(parser->arena, *cap, 1);
        if (whole->len > 0) {
            memcpy(grown, whole->p, whole->len);
        }
        whole->p = grown;
    }
    if (piece.len > 0) {
        memcpy((char *)(uintptr_t)whole->p + whole->len, piece.p, piece.len);
    }
    whole->len += piece.len;
    return 0;
}

int kb_h1_trailer_add(struct kb_h1_parser *parser, struct kb_str name, struct kb_str value)
{
    parser->header_count++;
    if (parser->header_count > parser->settings->max_headers_count) {
        parser->error = KB_H1_TOO_MANY_TRAILERS;
        return -1;
    }
    if (!parser->settings->enable_trailers) {
        return 0;
    }
    if (name_lower(name) && parser->settings->underscores != KB_H1_UNDERSCORES_ALLOW) {
        return underscore_found(parser);
    }
    if (parser->trailers == NULL) {
        parser->trailers = KB_ARENA_NEW(parser->arena, struct kb_header_map);
        kb_header_map_init_trailers(parser->trailers, parser->arena, parser->response);
    }
    kb_header_map_append(parser->trailers, name, value);
    parser->header_bytes += (uint32_t)(name.len + value.len) + 3;
    return 0;
}
