/* SPDX-License-Identifier: Apache-2.0 */
/* A scope's key is its fragments, each behind its length, as one text. */
#include "proxy/http/scoped_routes.h"

#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"
#include "envoy/config/route/v3/scoped_route.pb-c.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "proto/wkt.h"
#include "proxy/http/header_mutation.h"

#define HCM(name) Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__##name
#define HCM_ENUM(name) \
    ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__SCOPED_ROUTES__##name
#define SPECIFIER(name) HCM_ENUM(CONFIG_SPECIFIER_##name)
#define EXTRACT(name) \
    HCM_ENUM(SCOPE_KEY_BUILDER__FRAGMENT_BUILDER__HEADER_VALUE_EXTRACTOR__EXTRACT_TYPE_##name)

typedef HCM(ScopedRoutes__ScopeKeyBuilder__FragmentBuilder__HeaderValueExtractor) extractor_message;
typedef Envoy__Config__Route__V3__ScopedRouteConfiguration scope_message;

/* Where a fragment of a request's key comes from. */
struct extractor {
    struct kb_str header;            /* lower case */
    struct kb_str element_separator; /* empty: the whole value is one element */
    bool by_index;
    uint32_t index;
    struct kb_str key; /* of the element that is meant */
    struct kb_str key_separator;
};

struct scope {
    struct kb_str key;
    struct kb_route_config *config;
};

struct kb_scoped_routes {
    KB_OBJ;
    struct kb_arena arena;
    struct extractor *extractors;
    size_t extractor_count;
    struct scope *scopes;
    size_t scope_count;
    struct kb_map by_key;
};
KB_OBJ_MAGIC(kb_scoped_routes, 0x53435254);

/* ---- keys ---- */

struct key_out {
    char *text;
    size_t len;
};

static void fragment_add(struct key_out *out, struct kb_str fragment)
{
    uint32_t len = (uint32_t)fragment.len;

    memcpy(out->text + out->len, &len, sizeof(len));
    out->len += sizeof(len);
    if (fragment.len > 0) {
        memcpy(out->text + out->len, fragment.p, fragment.len);
        out->len += fragment.len;
    }
}

/* The next piece of `rest` before `separator`; false behind the last. */
static bool piece_next(struct kb_str *rest, struct kb_str separator, struct kb_str *piece)
{
    if (rest->p == NULL) {
        return false;
    }
    *piece = *rest;
    for (size_t i = 0; separator.len > 0 && i + separator.len <= rest->len; i++) {
        if (memcmp(rest->p + i, separator.p, separator.len) == 0) {
            *piece = kb_str_make(rest->p, i);
            *rest = kb_str_make(rest->p + i + separator.len, rest->len - i - separator.len);
            return true;
        }
    }
    *rest = KB_STR_NULL;
    return true;
}

/* False: the request has no such fragment. */
static bool fragment_find(const struct extractor *extractor, const struct kb_header_map *headers,
                          struct kb_str *fragment)
{
    const struct kb_header *header = kb_header_map_get(headers, extractor->header);
    struct kb_str rest, piece;
    uint32_t index = 0;

    if (header == NULL) {
        return false;
    }
    rest = header->value.p != NULL ? header->value : KB_STR("");
    for (; piece_next(&rest, extractor->element_separator, &piece); index++) {
        struct kb_str value = piece;
        struct kb_str name;

        if (extractor->by_index) {
            if (index == extractor->index) {
                *fragment = piece;
                return true;
            }
            continue;
        }
        (void)piece_next(&value, extractor->key_separator, &name);
        if (kb_str_eq(name, extractor->key)) {
            *fragment = value.p != NULL ? value : KB_STR("");
            return true;
        }
    }
    return false;
}

const struct kb_route_config *kb_scoped_routes_find(const struct kb_scoped_routes *scoped,
                                                    const struct kb_header_map *headers,
                                                    struct kb_arena *arena)
{
    struct kb_str *fragments = kb_arena_calloc(arena, scoped->extractor_count * sizeof(*fragments));
    struct key_out key = {NULL, 0};
    size_t bytes = 0;

    for (size_t i = 0; i < scoped->extractor_count; i++) {
        if (!fragment_find(&scoped->extractors[i], headers, &fragments[i])) {
            return NULL;
        }
        bytes += fragments[i].len + sizeof(uint32_t);
    }
    key.text = kb_arena_alloc(arena, bytes, 1);
    for (size_t i = 0; i < scoped->extractor_count; i++) {
        fragment_add(&key, fragments[i]);
    }
    return kb_map_get(&scoped->by_key, kb_str_make(key.text, key.len));
}

/* ---- building ---- */

static void extractor_read(struct kb_scoped_routes *scoped, struct extractor *extractor,
                           const extractor_message *m, struct kb_diag *diag)
{
    extractor->header = kb_header_name_dup(&scoped->arena, m->name);
    extractor->element_separator = kb_str_dup(&scoped->arena, kb_wkt_str(m->element_separator));
    switch ((int)m->extract_type_case) {
    case EXTRACT(INDEX):
        extractor->by_index = true;
        extractor->index = m->index;
        if (m->index != 0 && extractor->element_separator.len == 0) {
            kb_diag_error(diag, "Index > 0 for empty string element separator.");
        }
        break;
    case EXTRACT(ELEMENT):
        extractor->key = kb_str_dup(&scoped->arena, kb_wkt_str(m->element->key));
        extractor->key_separator = kb_str_dup(&scoped->arena, kb_wkt_str(m->element->separator));
        break;
    default:
        kb_diag_error(diag, "HeaderValueExtractor extract_type not set.");
    }
}

static void extractors_read(struct kb_scoped_routes *scoped,
                            const HCM(ScopedRoutes__ScopeKeyBuilder) * m, struct kb_diag *diag)
{
    scoped->extractors =
        kb_arena_calloc(&scoped->arena, (m->n_fragments + 1) * sizeof(*scoped->extractors));
    scoped->extractor_count = m->n_fragments;
    kb_diag_push(diag, "scope_key_builder");
    for (size_t i = 0; i < m->n_fragments; i++) {
        kb_diag_push_index(diag, "fragments", i);
        kb_diag_push(diag, "header_value_extractor");
        extractor_read(scoped, &scoped->extractors[i], m->fragments[i]->header_value_extractor,
                       diag);
        kb_diag_pop(diag);
        kb_diag_pop(diag);
    }
    kb_diag_pop(diag);
}

static struct kb_str scope_key(struct kb_scoped_routes *scoped, const scope_message *m)
{
    struct key_out key = {NULL, 0};
    size_t bytes = 0;

    for (size_t i = 0; i < m->key->n_fragments; i++) {
        bytes += strlen(m->key->fragments[i]->string_key) + sizeof(uint32_t);
    }
    key.text = kb_arena_alloc(&scoped->arena, bytes, 1);
    for (size_t i = 0; i < m->key->n_fragments; i++) {
        fragment_add(&key, kb_str_from_cstr(m->key->fragments[i]->string_key));
    }
    return kb_str_make(key.text, key.len);
}

static void scope_read(struct kb_scoped_routes *scoped, const scope_message *m,
                       struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct scope *scope = &scoped->scopes[scoped->scope_count++];

    if (m->route_configuration_name[0] != '\0') {
        kb_diag_error(diag, "Fetching routes via RDS (route_configuration_name) is not supported "
                            "with inline scoped routes.");
        return;
    }
    if (m->route_configuration == NULL) {
        kb_diag_error(diag, "You must specify a route_configuration with inline scoped routes.");
        return;
    }
    scope->key = scope_key(scoped, m);
    kb_diag_push(diag, "route_configuration");
    scope->config =
        kb_route_config_create(m->route_configuration, factory,
                               kb_wkt_bool(m->route_configuration->validate_clusters, true), diag);
    kb_diag_pop(diag);
}

/* A later scope takes the place of one of its name or its key. */
static void scopes_read(struct kb_scoped_routes *scoped, scope_message *const *messages, size_t n,
                        struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_map by_name;

    scoped->scopes = kb_arena_calloc(&scoped->arena, (n + 1) * sizeof(*scoped->scopes));
    kb_map_init(&by_name);
    kb_diag_push(diag, "scoped_route_configurations_list");
    for (size_t i = 0; i < n; i++) {
        const struct scope *before = kb_map_get(&by_name, kb_wkt_str(messages[i]->name));
        struct scope *scope = &scoped->scopes[i];

        kb_diag_push_index(diag, "scoped_route_configurations", i);
        scope_read(scoped, messages[i], factory, diag);
        kb_diag_pop(diag);
        if (before != NULL) {
            kb_map_remove(&scoped->by_key, before->key);
        }
        kb_map_put(&by_name, kb_wkt_str(messages[i]->name), scope);
        if (scope->config != NULL) {
            kb_map_put(&scoped->by_key, scope->key, scope->config);
        }
    }
    kb_diag_pop(diag);
    kb_map_dispose(&by_name);
}

struct kb_scoped_routes *kb_scoped_routes_create(const HCM(ScopedRoutes) * message,
                                                 struct kb_factory_context *factory,
                                                 struct kb_diag *diag)
{
    struct kb_scoped_routes *scoped = kb_calloc(1, sizeof(*scoped));
    uint32_t errors = diag->error_count;

    KB_OBJ_SET(scoped, kb_scoped_routes);
    kb_arena_init(&scoped->arena, NULL);
    kb_map_init(&scoped->by_key);
    extractors_read(scoped, message->scope_key_builder, diag);
    if (message->config_specifier_case == SPECIFIER(SCOPED_ROUTE_CONFIGURATIONS_LIST)) {
        const HCM(ScopedRouteConfigurationsList) *list = message->scoped_route_configurations_list;

        scopes_read(scoped, list->scoped_route_configurations, list->n_scoped_route_configurations,
                    factory, diag);
    } else {
        kb_diag_push(diag, "scoped_rds");
        kb_diag_error(diag, "scopes over xDS (SRDS) are not implemented; use "
                            "scoped_route_configurations_list");
        kb_diag_pop(diag);
    }
    if (diag->error_count != errors) {
        kb_scoped_routes_destroy(scoped);
        return NULL;
    }
    return scoped;
}

void kb_scoped_routes_destroy(struct kb_scoped_routes *scoped)
{
    for (size_t i = 0; i < scoped->scope_count; i++) {
        if (scoped->scopes[i].config != NULL) {
            kb_route_config_destroy(scoped->scopes[i].config);
        }
    }
    kb_map_dispose(&scoped->by_key);
    kb_arena_dispose(&scoped->arena);
    KB_OBJ_CLEAR(scoped);
    free(scoped);
}
