/* SPDX-License-Identifier: Apache-2.0 */
/* Headers between our maps and nghttp2, which copies what it is given when it is submitted. */
#include "proxy/http/h2_fields.h"

#include <string.h>

#define PSEUDO_MAX 5

static void fields_init(struct kb_h2_fields *fields, const struct kb_header_map *headers)
{
    size_t room = (size_t)headers->live + PSEUDO_MAX;

    fields->count = 0;
    fields->items =
        room <= KB_H2_FIELDS_STACK
            ? fields->stack
            : kb_arena_alloc(headers->arena, room * sizeof(*fields->items), sizeof(void *));
}

static void field_add(struct kb_h2_fields *fields, struct kb_str name, struct kb_str value,
                      uint8_t flags)
{
    fields->items[fields->count++] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.p,
                                                  .value = (uint8_t *)(uintptr_t)value.p,
                                                  .namelen = name.len,
                                                  .valuelen = value.len,
                                                  .flags = flags};
}

/* A name that stays for ever and is lower case, so that nghttp2 need neither copy nor lower it. */
static void named_add(struct kb_h2_fields *fields, struct kb_str name, struct kb_str value)
{
    field_add(fields, name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME);
}

static void pseudo_add(struct kb_h2_fields *fields, struct kb_str name, struct kb_str value)
{
    if (value.p != NULL) {
        named_add(fields, name, value);
    }
}

/* Values that never come again are kept out of the peer's table (RFC 7541 section 6.2.3): they
 * would push out what does, and nghttp2 compares with every value that it holds of a name. */
static void header_add(struct kb_h2_fields *fields, const struct kb_header *header)
{
    switch ((int)header->id) {
    case KB_HDR_CONNECTION:
    case KB_HDR_KEEP_ALIVE:
    case KB_HDR_PROXY_CONNECTION:
    case KB_HDR_TRANSFER_ENCODING:
    case KB_HDR_UPGRADE:
        return; /* speak of one HTTP/1 connection */
    case KB_HDR_NONE:
        field_add(fields, header->name, header->value, NGHTTP2_NV_FLAG_NONE);
        return;
    case KB_HDR_GRPC_TIMEOUT:
    case KB_HDR_X_CLIENT_TRACE_ID:
    case KB_HDR_X_REQUEST_ID:
        field_add(fields, kb_header_id_name((enum kb_header_id)header->id), header->value,
                  NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX);
        return;
    default:
        named_add(fields, kb_header_id_name((enum kb_header_id)header->id), header->value);
    }
}

static void headers_add(struct kb_h2_fields *fields, const struct kb_header_map *headers)
{
    KB_HEADER_FOREACH(header, headers)
    {
        header_add(fields, header);
    }
}

/* Of the second letter of its name (kb_header_map's pseudo_order). */
static size_t pseudo_index(char letter)
{
    switch (letter) {
    case 'm':
        return 0;
    case 'p':
        return 1;
    case 's':
        return 2;
    case 'a':
        return 3;
    default: /* a protocol: an upgrade's is put back behind the others, as in Envoy */
        return PSEUDO_MAX;
    }
}

static void pseudo_add_as_they_came(struct kb_h2_fields *fields,
                                    const struct kb_header_map *headers)
{
    const struct kb_str names[PSEUDO_MAX] = {KB_STR(":method"), KB_STR(":path"), KB_STR(":scheme"),
                                             KB_STR(":authority"), KB_STR(":protocol")};
    const struct kb_str *values[PSEUDO_MAX] = {&headers->method, &headers->path, &headers->scheme,
                                               &headers->authority, &headers->protocol};
    unsigned added = 0;

    for (size_t at = 0; at < PSEUDO_MAX && headers->pseudo_order[at] != 0; at++) {
        size_t i = pseudo_index(headers->pseudo_order[at]);

        if (i < PSEUDO_MAX && (added & 1u << i) == 0) {
            added |= 1u << i;
            pseudo_add(fields, names[i], *values[i]);
        }
    }
    /* What came in another way, as a host header; and the protocol. */
    for (size_t i = 0; i < PSEUDO_MAX; i++) {
        if ((added & 1u << i) == 0) {
            pseudo_add(fields, names[i], *values[i]);
        }
    }
}

void kb_h2_fields_request(struct kb_h2_fields *fields, const struct kb_header_map *headers,
                          bool authority_first)
{
    fields_init(fields, headers);
    if (headers->pseudo_order[0] != 0) {
        pseudo_add_as_they_came(fields, headers);
        headers_add(fields, headers);
        return;
    }
    if (authority_first) {
        pseudo_add(fields, KB_STR(":authority"), headers->authority);
        pseudo_add(fields, KB_STR(":path"), headers->path);
        pseudo_add(fields, KB_STR(":method"), headers->method);
    } else {
        pseudo_add(fields, KB_STR(":method"), headers->method);
        pseudo_add(fields, KB_STR(":path"), headers->path);
        pseudo_add(fields, KB_STR(":authority"), headers->authority);
    }
    pseudo_add(fields, KB_STR(":scheme"), headers->scheme);
    pseudo_add(fields, KB_STR(":protocol"), headers->protocol);
    headers_add(fields, headers);
}

void kb_h2_fields_response(struct kb_h2_fields *fields, const struct kb_header_map *headers)
{
    unsigned status = headers->status % 1000;

    fields_init(fields, headers);
    fields->status[0] = (char)('0' + status / 100);
    fields->status[1] = (char)('0' + status / 10 % 10);
    fields->status[2] = (char)('0' + status % 10);
    named_add(fields, KB_STR(":status"), kb_str_make(fields->status, 3));
    headers_add(fields, headers);
}

void kb_h2_fields_trailers(struct kb_h2_fields *fields, const struct kb_header_map *trailers)
{
    fields_init(fields, trailers);
    headers_add(fields, trailers);
}

size_t kb_h2_custom_settings_put(nghttp2_settings_entry *entries,
                                 const struct kb_h2_setting *settings, size_t count,
                                 bool without_push)
{
    size_t put = 0;

    for (size_t i = 0; i < count; i++) {
        if (!without_push || settings[i].identifier != NGHTTP2_SETTINGS_ENABLE_PUSH) {
            entries[put++] = (nghttp2_settings_entry){settings[i].identifier, settings[i].value};
        }
    }
    return put;
}

struct kb_str kb_h2_copy(struct kb_arena *arena, const uint8_t *bytes, size_t len)
{
    char *copy = kb_arena_alloc(arena, len + 1, 1);

    memcpy(copy, bytes, len);
    copy[len] = '\0';
    return kb_str_make(copy, len);
}

bool kb_h2_field_append(struct kb_header_map *map, const uint8_t *name, size_t name_len,
                        const uint8_t *value, size_t value_len)
{
    enum kb_header_id id = kb_header_id_find(kb_str_make((const char *)name, name_len));
    uint32_t count = map->count;

    if (id == KB_HDR_NONE || map->first[id] == 0 || map->items[map->first[id] - 1].value.len == 0) {
        kb_header_map_append_id(map, id,
                                id != KB_HDR_NONE ? kb_header_id_name(id)
                                                  : kb_h2_copy(map->arena, name, name_len),
                                kb_h2_copy(map->arena, value, value_len));
        return map->count == count;
    }
    /* A repetition: what is joined to the first is copied there, and nothing comes in between. */
    kb_header_map_append_id(map, id, kb_header_id_name(id),
                            kb_str_make((const char *)value, value_len));
    if (map->count != count) {
        map->items[map->count - 1].value = kb_h2_copy(map->arena, value, value_len);
    }
    return map->count == count;
}
