/* SPDX-License-Identifier: Apache-2.0 */
/* typed_per_filter_config: what tables, virtual hosts, routes and weighted clusters say of HTTP
 * filters (Envoy Router::PerFilterConfigs). Filters are told apart by the number of their name, so
 * that no request compares text. */
#include "base/map.h"
#include "base/mem.h"
#include "proto/any.h"
#include "proxy/api/extension.h"
#include "proxy/router/route_build.h"

/* ---- names ---- */

uint32_t kb_filter_name_id(struct kb_str name)
{
    static struct kb_map ids; /* name -> its number; of the process, main thread only */
    uintptr_t id = (uintptr_t)kb_map_get(&ids, name);

    if (id == 0 && ids.len < KB_FILTER_NAMES_MAX) {
        char *copy = kb_malloc(KB_MAX(name.len, 1));

        if (name.len > 0) {
            memcpy(copy, name.p, name.len);
        }
        id = (uintptr_t)ids.len + 1;
        kb_map_put(&ids, kb_str_make(copy, name.len), (void *)id);
    }
    return (uint32_t)id;
}

/* ---- building ---- */

/* The filter whose own or whose route message has that type. */
static const struct kb_http_filter_ops *ops_find(struct kb_str type)
{
    const struct kb_extension *found = kb_extension_find(KB_EXT_HTTP_FILTER, type, KB_STR(""));

    for (size_t i = 0; found == NULL && i < kb_extension_count; i++) {
        const struct kb_http_filter_ops *ops = kb_extensions[i].ops;

        if (kb_extensions[i].category == KB_EXT_HTTP_FILTER && ops->route_type_url != NULL &&
            kb_str_eq(kb_str_from_cstr(ops->route_type_url), type)) {
            found = kb_extension_find(KB_EXT_HTTP_FILTER, KB_STR(""),
                                      kb_str_from_cstr(kb_extensions[i].name));
        }
    }
    return found != NULL ? found->ops : NULL;
}

static void config_create(struct kb_route_build *build, const char *name,
                          const Google__Protobuf__Any *any, bool optional,
                          struct kb_filter_config *config)
{
    struct kb_arena *arena = build->match.arena;
    struct kb_str type = kb_any_inner_name(any, arena);
    const struct kb_http_filter_ops *ops = ops_find(type);
    struct kb_factory_context factory = *build->factory;
    const char *wanted;
    const ProtobufCMessage *message;

    if (ops == NULL || ops->route_config_create == NULL) {
        if (!optional) {
            kb_route_build_error(
                build,
                ops == NULL
                    ? "Didn't find a registered implementation for '%s' with type URL: '%.*s'"
                    : "The filter %s doesn't support virtual host or route specific configurations",
                name, KB_STR_ARG(type));
        }
        return;
    }
    wanted = ops->route_type_url != NULL ? ops->route_type_url : ops->type_url;
    message =
        kb_any_unpack(any, kb_pb_type_find(kb_str_from_cstr(wanted)), arena, build->match.diag);
    factory.arena = arena;
    if (message == NULL ||
        ops->route_config_create(message, &factory, build->match.diag, &config->config) != 0) {
        config->config = NULL;
        build->failed = true;
        return;
    }
    config->ops = ops;
}

static void entry_build(struct kb_route_build *build, const char *name,
                        const Google__Protobuf__Any *any, struct kb_filter_config *config)
{
    const Envoy__Config__Route__V3__FilterConfig *wrapper;
    struct kb_str type = kb_any_inner_name(any, build->match.arena);

    config->name_id = kb_filter_name_id(kb_str_from_cstr(name));
    if (config->name_id == 0) {
        kb_route_build_error(build, "more than %d names of filters were used", KB_FILTER_NAMES_MAX);
        return;
    }
    if (!kb_str_eq(type, KB_STR("envoy.config.route.v3.FilterConfig"))) {
        config_create(build, name, any, false, config);
        return;
    }
    wrapper = KB_ANY_UNPACK(any, envoy__config__route__v3__filter_config,
                            Envoy__Config__Route__V3__FilterConfig, build->match.arena,
                            build->match.diag);
    if (wrapper == NULL) {
        build->failed = true;
    } else if (wrapper->disabled) {
        config->disabled = true;
    } else if (wrapper->config == NULL) {
        kb_route_build_error(
            build, "Empty route/virtual host per filter configuration for %s filter", name);
    } else if (wrapper->config->type_url[0] != '\0') {
        config_create(build, name, wrapper->config, wrapper->is_optional, config);
    }
}

const struct kb_filter_configs *kb_route_build_filters(struct kb_route_build *build,
                                                       void *const *entries, size_t count)
{
    struct kb_filter_configs *filters;

    if (count == 0) {
        return NULL;
    }
    filters =
        kb_arena_calloc(build->match.arena, sizeof(*filters) + count * sizeof(filters->items[0]));
    filters->count = count;
    filters->next = build->config->filter_configs;
    build->config->filter_configs = filters;
    kb_diag_push(build->match.diag, "typed_per_filter_config");
    for (size_t i = 0; i < count; i++) {
        /* Map entries of all levels have the same members. */
        const Envoy__Config__Route__V3__Route__TypedPerFilterConfigEntry *entry = entries[i];

        kb_diag_push_key(build->match.diag, kb_str_from_cstr(entry->key));
        entry_build(build, entry->key, entry->value, &filters->items[i]);
        kb_diag_pop(build->match.diag);
    }
    kb_diag_pop(build->match.diag);
    return filters;
}

void kb_route_filter_configs_dispose(struct kb_route_config *table)
{
    for (struct kb_filter_configs *at = table->filter_configs; at != NULL; at = at->next) {
        for (size_t i = 0; i < at->count; i++) {
            const struct kb_filter_config *config = &at->items[i];

            if (config->config != NULL && config->ops->route_config_destroy != NULL) {
                config->ops->route_config_destroy(config->config);
            }
        }
    }
}

/* ---- on a request's way ---- */

static const struct kb_filter_config *level_find(const struct kb_filter_configs *level,
                                                 uint32_t name_id)
{
    for (size_t i = 0; level != NULL && i < level->count; i++) {
        if (level->items[i].name_id == name_id) {
            return &level->items[i];
        }
    }
    return NULL;
}

/* The levels of a route, the most specific first. */
static void levels_of(const struct kb_route *route, const void *choice,
                      const struct kb_filter_configs *levels[KB_ROUTE_CONFIG_LEVELS])
{
    const struct kb_weighted_choice *picked = choice;

    levels[0] = picked != NULL ? picked->filters : NULL;
    levels[1] = kb_route_entry_of(route)->changes->filters;
    levels[2] = route->virtual_host->filters;
    levels[3] = route->virtual_host->config->filters;
}

int kb_route_filter_disabled(const struct kb_route *route, const void *choice, uint32_t name_id)
{
    const struct kb_filter_configs *levels[KB_ROUTE_CONFIG_LEVELS];

    levels_of(route, choice, levels);
    for (size_t i = 0; i < KB_ROUTE_CONFIG_LEVELS; i++) {
        const struct kb_filter_config *found = level_find(levels[i], name_id);

        if (found != NULL) {
            return found->disabled ? 1 : 0;
        }
    }
    return -1;
}

size_t kb_route_filter_configs(const struct kb_route *route, const void *choice, uint32_t name_id,
                               const void *configs[KB_ROUTE_CONFIG_LEVELS])
{
    const struct kb_filter_configs *levels[KB_ROUTE_CONFIG_LEVELS];
    size_t count = 0;

    levels_of(route, choice, levels);
    for (size_t i = 0; i < KB_ROUTE_CONFIG_LEVELS; i++) {
        const struct kb_filter_config *found = level_find(levels[i], name_id);

        if (found != NULL && found->config != NULL) {
            configs[count++] = found->config;
        }
    }
    return count;
}

const void *kb_route_filter_config(const struct kb_route *route, const void *choice,
                                   uint32_t name_id)
{
    const void *configs[KB_ROUTE_CONFIG_LEVELS];

    return kb_route_filter_configs(route, choice, name_id, configs) > 0 ? configs[0] : NULL;
}
