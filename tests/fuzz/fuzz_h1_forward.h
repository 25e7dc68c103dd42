/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold for every request that the HTTP/1 parser accepted: written for an upstream, a
 * strict parser understands the same. Otherwise a client could smuggle a request past us. */
#pragma once

#include <llhttp.h>

#include "base/obj.h"
#include "proxy/http/h1_encode.h"
#include "proxy/http/url.h"

struct forward_view {
    llhttp_t llhttp;
    const struct kb_header_map *map;
    const struct kb_header *next; /* the header whose turn it is */
    struct kb_str url;
    struct kb_str name;
    uint32_t lines;
    uint32_t added; /* host, framing */
    bool head_complete;
    bool message_complete;
};

static inline struct forward_view *forward_of(llhttp_t *llhttp)
{
    return KB_CONTAINER_OF(llhttp, struct forward_view, llhttp);
}

static inline int forward_on_url(llhttp_t *llhttp, const char *at, size_t len)
{
    forward_of(llhttp)->url = kb_str_make(at, len);
    return 0;
}

static inline int forward_on_field(llhttp_t *llhttp, const char *at, size_t len)
{
    forward_of(llhttp)->name = kb_str_make(at, len);
    return 0;
}

/* The lines are Host, then the headers of the map in order, then what frames the body. */
static inline int forward_on_value(llhttp_t *llhttp, const char *at, size_t len)
{
    struct forward_view *view = forward_of(llhttp);
    struct kb_str value = kb_str_trim(kb_str_make(at, len));
    const struct kb_header *end = view->map->items + view->map->count;

    while (view->next < end && view->next->name.len == 0) {
        view->next++;
    }
    if (view->lines == 0 && view->map->authority.p != NULL) {
        KB_ASSERT(kb_str_eq(view->name, KB_STR("host")));
        KB_ASSERT(kb_str_eq(value, kb_str_trim(view->map->authority)));
    } else if (view->next < end) {
        KB_ASSERT(kb_str_eq(view->name, view->next->name));
        KB_ASSERT(kb_str_eq(value, kb_str_trim(view->next->value)));
        view->next++;
    } else {
        KB_ASSERT(kb_str_eq(view->name, KB_STR("content-length")) ||
                  kb_str_eq(view->name, KB_STR("transfer-encoding")));
        view->added++;
    }
    view->lines++;
    return 0;
}

static inline int forward_on_head(llhttp_t *llhttp)
{
    forward_of(llhttp)->head_complete = true;
    return 0;
}

static inline int forward_on_message(llhttp_t *llhttp)
{
    forward_of(llhttp)->message_complete = true;
    return HPE_PAUSED;
}

/* What the codec and the connection manager do with the target and with hop-by-hop headers; false
 * when they refuse the request. */
static inline bool forward_prepare(const struct kb_h1_parser *parser, struct kb_header_map *map)
{
    static const enum kb_header_id hop_by_hop[] = {KB_HDR_TRANSFER_ENCODING, KB_HDR_CONNECTION,
                                                   KB_HDR_UPGRADE, KB_HDR_KEEP_ALIVE,
                                                   KB_HDR_PROXY_CONNECTION};
    struct kb_url url;

    if (kb_str_eq(map->method, KB_STR("MSEARCH"))) {
        return false; /* Envoy knows it, llhttp does not */
    }
    map->path = parser->url;
    if (kb_str_eq(map->method, KB_STR("CONNECT"))) {
        map->authority = parser->url;
        if (parser->has_content_length || parser->chunked ||
            !kb_url_connect_target_valid(parser->url)) {
            return false;
        }
    } else if (parser->url.p[0] != '/' && !kb_str_eq(parser->url, KB_STR("*"))) {
        if (kb_url_parse(parser->url, &url) != KB_URL_OK || url.path.p[0] != '/') {
            return false; /* "http://a?b" has the path "?b", which only odd routes match */
        }
        map->authority = url.authority;
        map->path = url.path;
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(hop_by_hop); i++) {
        kb_header_map_remove_id(map, hop_by_hop[i]);
    }
    return true;
}

/* `map` is the head that `parser` just gave out; it is changed. */
static inline void fuzz_h1_forward(const struct kb_h1_parser *parser, struct kb_header_map *map,
                                   struct kb_slice_source *source)
{
    static const llhttp_settings_t callbacks = {.on_url = forward_on_url,
                                                .on_header_field = forward_on_field,
                                                .on_header_value = forward_on_value,
                                                .on_headers_complete = forward_on_head,
                                                .on_message_complete = forward_on_message};
    bool end_stream = parser->message_complete;
    struct forward_view view = {.map = map, .next = map->items};
    enum kb_h1_framing framing;
    struct kb_buf out;
    struct kb_str text;
    llhttp_errno_t rc;

    if (!forward_prepare(parser, map)) {
        return;
    }
    kb_buf_init(&out, source, 0);
    framing = kb_h1_encode_request(&out, map, end_stream, parser->settings);
    text = kb_buf_pullup(&out, out.len);
    llhttp_init(&view.llhttp, HTTP_REQUEST, &callbacks);
    rc = llhttp_execute(&view.llhttp, text.p, text.len);
    KB_ASSERT(rc == HPE_OK || rc == HPE_PAUSED || rc == HPE_PAUSED_UPGRADE);
    KB_ASSERT(rc == HPE_OK || llhttp_get_error_pos(&view.llhttp) == text.p + text.len);
    KB_ASSERT(view.head_complete);
    KB_ASSERT(kb_str_eq(kb_str_from_cstr(llhttp_method_name(view.llhttp.method)), map->method));
    KB_ASSERT(kb_str_eq(view.url, view.llhttp.method == HTTP_CONNECT ? map->authority : map->path));
    KB_ASSERT(view.lines == map->live + (map->authority.p != NULL) + view.added);
    KB_ASSERT(view.added <= 1);
    if (framing == KB_H1_FRAMING_CHUNKED) {
        KB_ASSERT(!end_stream && !view.message_complete && (view.llhttp.flags & F_CHUNKED) != 0);
    } else if (framing == KB_H1_FRAMING_LENGTH) {
        KB_ASSERT((view.llhttp.flags & F_CHUNKED) == 0);
        KB_ASSERT(view.llhttp.content_length == (end_stream ? 0 : parser->content_length));
        KB_ASSERT(view.message_complete == (view.llhttp.content_length == 0));
    }
    kb_buf_dispose(&out);
}
