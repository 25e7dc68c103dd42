/* SPDX-License-Identifier: Apache-2.0 */
/* Header maps to fields of nghttp2 and back (RFC 9113 section 8.3), for sessions of both sides. */
#pragma once

#include <nghttp2/nghttp2.h>

#include "proxy/api/header_map.h"
#include "proxy/http/h2_options.h"

/* Fields of this many headers, pseudo headers included, have room on the stack. */
#define KB_H2_FIELDS_STACK 64

/* The fields of a message, borrowed from its header map; see kb_h2_fields_request. */
struct kb_h2_fields {
    nghttp2_nv *items;
    size_t count;
    char status[3];
    nghttp2_nv stack[KB_H2_FIELDS_STACK];
};

/* A request's fields: its pseudo headers (:method first, or :authority as Envoy has it of HTTP/1
 * clients), then its headers in their order. Headers that speak of
 * one HTTP/1 connection (RFC 9113 section 8.2.2) are left out. More than have room in `fields` are
 * put into the map's arena. Both must stay until the fields were used. */
void kb_h2_fields_request(struct kb_h2_fields *fields, const struct kb_header_map *headers,
                          bool authority_first);
/* A response's. */
void kb_h2_fields_response(struct kb_h2_fields *fields, const struct kb_header_map *headers);
/* Trailers: no pseudo headers. */
void kb_h2_fields_trailers(struct kb_h2_fields *fields, const struct kb_header_map *trailers);

/* Puts configured settings into `entries`, which has room for KB_H2_CUSTOM_SETTINGS_MAX; their
 * number. `without_push`: ENABLE_PUSH was said already. */
size_t kb_h2_custom_settings_put(nghttp2_settings_entry *entries,
                                 const struct kb_h2_setting *settings, size_t count,
                                 bool without_push);

/* Copies of bytes that nghttp2 shows, in the arena. */
struct kb_str kb_h2_copy(struct kb_arena *arena, const uint8_t *bytes, size_t len);
/* Adds a field that is not a pseudo header as kb_header_map_append does; copied to the map's arena.
 * True: it was joined to an earlier one, and the map has no more headers than before. */
bool kb_h2_field_append(struct kb_header_map *map, const uint8_t *name, size_t name_len,
                        const uint8_t *value, size_t value_len);
