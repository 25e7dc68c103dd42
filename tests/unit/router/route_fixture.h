/* SPDX-License-Identifier: Apache-2.0 */
/* Route tables from YAML, requests from lines of text, and both written back as one line: what the
 * tests of routes share. Clusters are those whose name does not start with "no". */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/diag.h"
#include "envoy/config/route/v3/route.pb-c.h"
#include "envoy/extensions/filters/http/buffer/v3/buffer.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/api/extension.h"
#include "proxy/api/route.h"
#include "proxy/api/runtime.h"

struct route_fixture {
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_server_context server;
    struct kb_factory_context factory;
    struct kb_route_config *config;
    struct kb_stream_info info;
    struct kb_connection_info connection;
};

/* The cluster manager's part. */
uint32_t kb_cluster_slot(struct kb_cluster_manager *manager, struct kb_str name)
{
    (void)manager;
    return (uint32_t)name.len * 1000 + (unsigned char)name.p[name.len - 1];
}

void kb_cluster_slot_release(struct kb_cluster_manager *manager, uint32_t number)
{
    (void)manager;
    (void)number;
}

bool kb_cluster_manager_has(const struct kb_cluster_manager *manager, struct kb_str name)
{
    (void)manager;
    return !kb_str_starts_with(name, KB_STR("no"));
}

/* The stream's part, for rate limits of routes, which no test here asks. */
struct kb_arena *kb_stream_arena(struct kb_stream *stream)
{
    (void)stream;
    return NULL;
}

struct kb_stream_info *kb_stream_stream_info(struct kb_stream *stream)
{
    (void)stream;
    return NULL;
}

const struct kb_route *kb_stream_route(struct kb_stream *stream)
{
    (void)stream;
    return NULL;
}

uint64_t kb_stream_route_random(const struct kb_stream *stream)
{
    (void)stream;
    return 0;
}

const struct kb_cluster *kb_stream_route_cluster(struct kb_stream *stream)
{
    (void)stream;
    return NULL;
}

/* The registry: the router, and a filter whose route configuration is its message's number. */
static inline int max_bytes_create(const void *message, struct kb_factory_context *factory,
                                   struct kb_diag *diag, void **config);

static const struct kb_http_filter_ops router_ops = {
    .name = "envoy.filters.http.router",
    .type_url = "envoy.extensions.filters.http.router.v3.Router",
    .terminal = true};
static const struct kb_http_filter_ops buffer_ops = {
    .name = "envoy.filters.http.buffer",
    .type_url = "envoy.extensions.filters.http.buffer.v3.Buffer",
    .route_type_url = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
    .route_config_create = max_bytes_create};

const struct kb_extension kb_extensions[] = {
    {KB_EXT_HTTP_FILTER, "envoy.filters.http.router",
     "envoy.extensions.filters.http.router.v3.Router", &router_ops},
    {KB_EXT_HTTP_FILTER, "envoy.filters.http.buffer",
     "envoy.extensions.filters.http.buffer.v3.Buffer", &buffer_ops},
};
const size_t kb_extension_count = KB_ARRAY_LEN(kb_extensions);

static inline int max_bytes_create(const void *message, struct kb_factory_context *factory,
                                   struct kb_diag *diag, void **config)
{
    const Envoy__Extensions__Filters__Http__Buffer__V3__BufferPerRoute *m = message;
    uint32_t *bytes = kb_arena_alloc(factory->arena, sizeof(*bytes), sizeof(*bytes));

    if (m->buffer == NULL) {
        kb_diag_error(diag, "no buffer");
        return KB_ECONFIG;
    }
    *bytes = m->buffer->max_request_bytes->value;
    *config = bytes;
    return 0;
}

static inline int route_setup(void **state)
{
    static struct route_fixture fixture;

    memset(&fixture, 0, sizeof(fixture));
    kb_header_names_init();
    kb_arena_init(&fixture.arena, NULL);
    kb_diag_init(&fixture.diag);
    fixture.factory.server = &fixture.server;
    fixture.factory.arena = &fixture.arena;
    fixture.info.connection = &fixture.connection;
    fixture.info.protocol = KB_PROTOCOL_HTTP11;
    *state = &fixture;
    return 0;
}

static inline int route_teardown(void **state)
{
    struct route_fixture *fixture = *state;

    kb_route_config_destroy(fixture->config);
    kb_diag_dispose(&fixture->diag);
    kb_arena_dispose(&fixture->arena);
    return 0;
}

#define ROUTE_TEST(name) cmocka_unit_test_setup_teardown(name, route_setup, route_teardown)

/* Everything that was reported, one line each, and forgets it. */
static inline const char *route_reported(struct route_fixture *fixture)
{
    struct kb_str all = KB_STR("");

    for (struct kb_diag_entry *entry = fixture->diag.first; entry != NULL; entry = entry->next) {
        all = kb_str_printf(&fixture->arena, "%.*s%.*s: %.*s\n", KB_STR_ARG(all),
                            KB_STR_ARG(entry->path), KB_STR_ARG(entry->text));
    }
    kb_diag_dispose(&fixture->diag);
    kb_diag_init(&fixture->diag);
    return all.p;
}

/* A table from YAML text; NULL when its builder refuses it. YAML that does not even parse fails the
 * test. */
static inline struct kb_route_config *route_table(struct route_fixture *fixture, const char *yaml)
{
    ProtobufCMessage *message = NULL;
    struct kb_doc doc;

    kb_doc_init(&doc);
    if (kb_doc_parse_yaml(&doc, KB_STR("t.yaml"), kb_str_from_cstr(yaml), &fixture->diag) == 0) {
        message = kb_pb_from_doc(&envoy__config__route__v3__route_configuration__descriptor, &doc,
                                 KB_PB_UNKNOWN_ERROR, &fixture->arena, &fixture->diag);
    }
    kb_doc_dispose(&doc);
    if (message == NULL) {
        fail_msg("%s\n%s", yaml, route_reported(fixture));
    }
    kb_route_config_destroy(fixture->config);
    fixture->config =
        kb_route_config_create((const void *)message, &fixture->factory, true, &fixture->diag);
    return fixture->config;
}

/* Must build. */
static inline void route_table_ok(struct route_fixture *fixture, const char *yaml)
{
    if (route_table(fixture, yaml) == NULL) {
        fail_msg("%s\n%s", yaml, route_reported(fixture));
    }
}

/* What its builder says against a table, or NULL when it takes it. */
static inline const char *route_table_error(struct route_fixture *fixture, const char *yaml)
{
    return route_table(fixture, yaml) == NULL ? route_reported(fixture) : NULL;
}

/* "GET /path host" and further "name: value" parts, separated by '|'. x-forwarded-proto and :scheme
 * are http unless given. Values are trimmed. */
static inline struct kb_header_map *route_request(struct route_fixture *fixture, const char *text)
{
    struct kb_header_map *map = kb_arena_calloc(&fixture->arena, sizeof(*map));
    struct kb_str rest = kb_str_dup(&fixture->arena, kb_str_from_cstr(text));
    struct kb_str part;
    struct kb_str word;

    kb_header_map_init(map, &fixture->arena);
    map->scheme = KB_STR("http");
    assert_true(kb_str_next_token(&rest, '|', &part));
    part = kb_str_trim(part);
    assert_true(kb_str_next_token(&part, ' ', &map->method));
    assert_true(kb_str_next_token(&part, ' ', &map->path));
    assert_true(kb_str_next_token(&part, ' ', &map->authority));
    if (kb_str_eq(map->path, KB_STR("-"))) {
        map->path = KB_STR_NULL;
    }
    while (kb_str_next_token(&rest, '|', &word)) {
        ptrdiff_t colon = kb_str_find_char(word, ':');

        assert_true(colon > 0);
        kb_header_map_append(map, kb_str_trim(kb_str_first(word, (size_t)colon)),
                             kb_str_trim(kb_str_from(word, (size_t)colon + 1)));
    }
    if (kb_header_map_get_id(map, KB_HDR_X_FORWARDED_PROTO) == NULL) {
        kb_header_map_add_id(map, KB_HDR_X_FORWARDED_PROTO, KB_STR("http"));
    }
    return map;
}

/* The reverse of route_request, x-forwarded-proto left out. */
static inline const char *route_text(struct route_fixture *fixture, const struct kb_header_map *map)
{
    struct kb_str text = kb_str_printf(&fixture->arena, "%.*s %.*s %.*s", KB_STR_ARG(map->method),
                                       KB_STR_ARG(map->path), KB_STR_ARG(map->authority));

    if (map->status != 0) {
        text = kb_str_printf(&fixture->arena, "%u", map->status);
    }
    KB_HEADER_FOREACH(header, map)
    {
        if (header->id != KB_HDR_X_FORWARDED_PROTO) {
            text = kb_str_printf(&fixture->arena, "%.*s|%.*s: %.*s", KB_STR_ARG(text),
                                 KB_STR_ARG(header->name), KB_STR_ARG(header->value));
        }
    }
    return text.p;
}

static inline const struct kb_route *route_match(struct route_fixture *fixture,
                                                 const struct kb_header_map *map)
{
    return kb_route_config_match(fixture->config, map, &fixture->info, 7);
}

/* Name of the route for a request, or "" for none. */
static inline const char *route_name_for(struct route_fixture *fixture, const char *request)
{
    const struct kb_route *route = route_match(fixture, route_request(fixture, request));

    return route != NULL ? kb_str_dup(&fixture->arena, route->name).p : "";
}
