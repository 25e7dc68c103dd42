/* SPDX-License-Identifier: Apache-2.0 */
/* Route tables: from a RouteConfiguration to virtual hosts, their domains and routes. */
#include "proxy/router/route_build.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/vec.h"
#include "envoy/config/core/v3/extension.pb-c.h"
#include "proto/any.h"
#include "proxy/api/stats.h"
#include "proxy/router/rate_limit.h"

#define TLS(name) ENVOY__CONFIG__ROUTE__V3__VIRTUAL_HOST__TLS_REQUIREMENT_TYPE__##name

/* ---- virtual hosts ---- */

struct kb_stat_group *kb_route_build_stats(struct kb_route_build *build, struct kb_str prefix)
{
    struct kb_stat_store *store = build->factory->server->stats;
    struct kb_stat_group_node *node;

    if (store == NULL) {
        return NULL;
    }
    node = KB_ARENA_NEW(build->match.arena, struct kb_stat_group_node);
    node->group = kb_stat_group_create(store, prefix, &kb_stat_schema_virtual_cluster);
    node->next = build->config->stat_groups;
    build->config->stat_groups = node;
    return node->group;
}

static void vclusters_build(struct kb_route_build *build,
                            const Envoy__Config__Route__V3__VirtualHost *message,
                            struct kb_virtual_host *vhost)
{
    struct kb_virtual_cluster *clusters;
    size_t n = message->n_virtual_clusters;

    if (n == 0) {
        return;
    }
    clusters = kb_arena_calloc(build->match.arena, (n + 1) * sizeof(*clusters));
    for (size_t i = 0; i < n; i++) {
        const Envoy__Config__Route__V3__VirtualCluster *cluster = message->virtual_clusters[i];

        kb_diag_push_index(build->match.diag, "virtual_clusters", i);
        if (cluster->n_headers == 0) {
            kb_route_build_error(build, "virtual clusters must define 'headers'");
        }
        clusters[i].name = kb_route_build_dup(build, cluster->name);
        clusters[i].headers = kb_header_matchers_create(cluster->headers, cluster->n_headers,
                                                        "headers", &build->match);
        clusters[i].header_count = cluster->n_headers;
        build->failed |= clusters[i].headers == NULL;
        kb_diag_pop(build->match.diag);
    }
    clusters[n].name = KB_STR("other");
    for (size_t i = 0; i <= n && !build->failed; i++) {
        clusters[i].stats = kb_route_build_stats(
            build, kb_str_printf(build->match.arena, "vhost.%.*s.vcluster.%.*s.",
                                 KB_STR_ARG(vhost->name), KB_STR_ARG(clusters[i].name)));
    }
    vhost->virtual_clusters = clusters;
    vhost->virtual_cluster_count = (uint32_t)n + 1;
}

static void domains_build(struct kb_route_build *build,
                          const Envoy__Config__Route__V3__VirtualHost *message,
                          const struct kb_virtual_host *vhost)
{
    for (size_t i = 0; i < message->n_domains; i++) {
        struct kb_str domain = kb_str_from_cstr(message->domains[i]);

        kb_diag_push_index(build->match.diag, "domains", i);
        if (domain.len > KB_ROUTE_DOMAIN_MAX) {
            kb_route_build_error(build, "a domain may have %d bytes at most, this one has %zu",
                                 KB_ROUTE_DOMAIN_MAX, domain.len);
        } else if (kb_vhost_map_add(&build->config->domains, domain, vhost, build->match.arena) !=
                   0) {
            if (kb_str_eq(domain, KB_STR("*"))) {
                kb_route_build_error(build,
                                     "Only a single wildcard domain is permitted in route %.*s",
                                     KB_STR_ARG(build->config->name));
            } else {
                struct kb_str lower = kb_header_name_dup(build->match.arena, message->domains[i]);

                kb_route_build_error(build,
                                     "Only unique values for domains are permitted. Duplicate "
                                     "entry of domain %.*s in route %.*s",
                                     KB_STR_ARG(lower), KB_STR_ARG(build->config->name));
            }
        }
        kb_diag_pop(build->match.diag);
    }
}

static void require_tls_build(struct kb_route_build *build,
                              const Envoy__Config__Route__V3__VirtualHost *message,
                              struct kb_virtual_host *vhost)
{
    struct kb_route_entry *entry;

    if ((int)message->require_tls == TLS(NONE)) {
        return;
    }
    vhost->require_tls =
        (int)message->require_tls == TLS(ALL) ? KB_REQUIRE_TLS_ALL : KB_REQUIRE_TLS_EXTERNAL_ONLY;
    entry = KB_ARENA_NEW(build->match.arena, struct kb_route_entry);
    entry->tls_redirect = true;
    entry->changes = &kb_route_no_changes;
    entry->route.kind = KB_ROUTE_REDIRECT;
    entry->route.name = KB_STR("");
    entry->route.virtual_host = vhost;
    entry->route.request_body_buffer_limit = UINT64_MAX;
    entry->route.flush_timeout_ms = UINT64_MAX;
    entry->route.impl = entry;
    vhost->tls_redirect = entry;
}

static void entries_build(struct kb_route_build *build,
                          Envoy__Config__Route__V3__Route *const *messages, size_t n,
                          const char *field, const struct kb_vhost_defaults *defaults,
                          struct kb_virtual_host *vhost)
{
    struct kb_path_key *keys;

    if (n == 0) {
        return;
    }
    keys = kb_arena_calloc(build->match.arena, n * sizeof(*keys));
    vhost->entries = kb_arena_calloc(build->match.arena, n * sizeof(*vhost->entries));
    vhost->keys = keys;
    vhost->route_count = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        kb_diag_push_index(build->match.diag, field, i);
        kb_route_build_entry(build, messages[i], vhost, defaults, &vhost->entries[i], &keys[i]);
        kb_diag_pop(build->match.diag);
    }
}

/* The routes of all actions of a matcher tree, in the order in which they are met. */
struct action_routes {
    struct kb_route_build *build;
    KB_VEC(Envoy__Config__Route__V3__Route *) routes;
};

static const void *action_create(void *arg, const char *name, const Google__Protobuf__Any *config)
{
    struct action_routes *actions = arg;
    struct kb_route_build *build = actions->build;
    struct kb_arena *arena = build->match.arena;
    struct kb_str type = config != NULL ? kb_any_inner_name(config, arena) : KB_STR("");
    struct kb_route_span *span = KB_ARENA_NEW(arena, struct kb_route_span);

    span->first = (uint32_t)actions->routes.len;
    if (kb_str_eq(type, KB_STR("envoy.config.route.v3.Route"))) {
        Envoy__Config__Route__V3__Route *route =
            KB_ANY_UNPACK(config, envoy__config__route__v3__route, Envoy__Config__Route__V3__Route,
                          arena, build->match.diag);

        if (route == NULL) {
            return NULL;
        }
        kb_vec_push(&actions->routes, route);
    } else if (kb_str_eq(type, KB_STR("envoy.config.route.v3.RouteList"))) {
        const Envoy__Config__Route__V3__RouteList *list =
            KB_ANY_UNPACK(config, envoy__config__route__v3__route_list,
                          Envoy__Config__Route__V3__RouteList, arena, build->match.diag);

        for (size_t i = 0; list != NULL && i < list->n_routes; i++) {
            kb_vec_push(&actions->routes, list->routes[i]);
        }
        if (list == NULL) {
            return NULL;
        }
    } else {
        kb_diag_error(build->match.diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                      name, KB_STR_ARG(type));
        return NULL;
    }
    span->count = (uint32_t)(actions->routes.len - span->first);
    return span;
}

/* Clusters of routes in a tree are not checked, as in Envoy. */
static void matcher_build(struct kb_route_build *build,
                          const Envoy__Config__Route__V3__VirtualHost *message,
                          const struct kb_vhost_defaults *defaults, struct kb_virtual_host *vhost)
{
    struct action_routes actions = {.build = build};
    const struct kb_match_tree_user user = {
        .action_create = action_create,
        .arg = &actions,
        .input_refused = "requirement violation while creating route match tree: INVALID_ARGUMENT: "
                         "Route table can only match on request headers, saw ",
        .keep_matching_refused = "requirement violation while creating route match tree: "
                                 "INVALID_ARGUMENT: keep_matching is not supported in this context",
    };
    bool validate_clusters = build->validate_clusters;

    kb_vec_init(&actions.routes);
    kb_diag_push(build->match.diag, "matcher");
    if (message->n_routes > 0) {
        kb_route_build_error(build, "cannot set both matcher and routes on virtual host");
    }
    vhost->matcher = kb_match_tree_create(message->matcher, &user, &build->match);
    build->failed |= vhost->matcher == NULL;
    build->validate_clusters = false;
    entries_build(build, actions.routes.items, actions.routes.len, "routes", defaults, vhost);
    build->validate_clusters = validate_clusters;
    kb_diag_pop(build->match.diag);
    kb_vec_dispose(&actions.routes);
}

static void vhost_build(struct kb_route_build *build,
                        const Envoy__Config__Route__V3__VirtualHost *message,
                        const struct kb_vhost_defaults *table, struct kb_virtual_host *vhost)
{
    struct kb_vhost_defaults defaults = *table;
    size_t mirror_count;
    const struct kb_mirror_policy *mirrors;

    vhost->name = kb_route_build_dup(build, message->name);
    vhost->config = build->config;
    defaults.message = message;
    vhost->request = kb_header_mutations_create(
        message->request_headers_to_add, message->n_request_headers_to_add,
        message->request_headers_to_remove, message->n_request_headers_to_remove, "request",
        &build->match, &build->failed);
    vhost->response = kb_header_mutations_create(
        message->response_headers_to_add, message->n_response_headers_to_add,
        message->response_headers_to_remove, message->n_response_headers_to_remove, "response",
        &build->match, &build->failed);
    vhost->filters = kb_route_build_filters(build, (void *const *)message->typed_per_filter_config,
                                            message->n_typed_per_filter_config);
    if (message->retry_policy != NULL) {
        kb_diag_push(build->match.diag, "retry_policy");
        defaults.retry = kb_route_build_retry(build, message->retry_policy);
        kb_diag_pop(build->match.diag);
    }
    mirrors = kb_route_build_mirrors(build, message->request_mirror_policies,
                                     message->n_request_mirror_policies, &mirror_count);
    if (mirrors != NULL) {
        defaults.mirrors = mirrors;
        defaults.mirror_count = mirror_count;
    }
    defaults.hedge_on_per_try_timeout =
        message->hedge_policy != NULL && message->hedge_policy->hedge_on_per_try_timeout;
    vhost->rate_limits =
        kb_rate_limits_create(message->rate_limits, message->n_rate_limits, KB_RATE_LIMITS_OF_ROUTE,
                              build->factory->server->node_cluster, &build->match, &build->failed);
    domains_build(build, message, vhost);
    require_tls_build(build, message, vhost);
    vclusters_build(build, message, vhost);
    if (message->matcher != NULL) {
        matcher_build(build, message, &defaults, vhost);
    } else {
        entries_build(build, message->routes, message->n_routes, "routes", &defaults, vhost);
    }
}

/* ---- the table ---- */

static void plugin_missing(struct kb_route_build *build,
                           const Envoy__Config__Route__V3__ClusterSpecifierPlugin *plugin)
{
    const Envoy__Config__Core__V3__TypedExtensionConfig *extension = plugin->extension;
    struct kb_str type = KB_STR("");

    if (extension != NULL && extension->typed_config != NULL) {
        type = kb_any_inner_name(extension->typed_config, build->match.arena);
    }
    kb_route_build_error(build,
                         "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                         extension != NULL ? extension->name : "", KB_STR_ARG(type));
}

static void table_build(struct kb_route_build *build,
                        const Envoy__Config__Route__V3__RouteConfiguration *message)
{
    struct kb_route_config *config = build->config;
    struct kb_vhost_defaults defaults = {.retry = NULL};

    config->internal_only_header_count = message->n_internal_only_headers;
    config->internal_only_headers = kb_arena_calloc(
        &config->arena, (message->n_internal_only_headers + 1) * sizeof(struct kb_str));
    for (size_t i = 0; i < message->n_internal_only_headers; i++) {
        config->internal_only_headers[i] =
            kb_header_name_dup(&config->arena, message->internal_only_headers[i]);
    }
    for (size_t i = 0; i < message->n_cluster_specifier_plugins; i++) {
        const Envoy__Config__Route__V3__ClusterSpecifierPlugin *plugin =
            message->cluster_specifier_plugins[i];

        if (!plugin->is_optional) {
            kb_diag_push_index(build->match.diag, "cluster_specifier_plugins", i);
            plugin_missing(build, plugin);
            kb_diag_pop(build->match.diag);
        }
    }
    config->request = kb_header_mutations_create(
        message->request_headers_to_add, message->n_request_headers_to_add,
        message->request_headers_to_remove, message->n_request_headers_to_remove, "request",
        &build->match, &build->failed);
    config->response = kb_header_mutations_create(
        message->response_headers_to_add, message->n_response_headers_to_add,
        message->response_headers_to_remove, message->n_response_headers_to_remove, "response",
        &build->match, &build->failed);
    config->filters = kb_route_build_filters(build, (void *const *)message->typed_per_filter_config,
                                             message->n_typed_per_filter_config);
    defaults.mirrors =
        kb_route_build_mirrors(build, message->request_mirror_policies,
                               message->n_request_mirror_policies, &defaults.mirror_count);
    config->vhost_count = message->n_virtual_hosts;
    config->vhosts = kb_arena_calloc(&config->arena,
                                     KB_MAX(message->n_virtual_hosts, 1) * sizeof(*config->vhosts));
    for (size_t i = 0; i < message->n_virtual_hosts; i++) {
        kb_diag_push_index(build->match.diag, "virtual_hosts", i);
        vhost_build(build, message->virtual_hosts[i], &defaults, &config->vhosts[i]);
        kb_diag_pop(build->match.diag);
    }
    kb_vhost_map_finish(&config->domains, &config->arena);
}

struct kb_route_config *
kb_route_config_create(const Envoy__Config__Route__V3__RouteConfiguration *message,
                       struct kb_factory_context *factory, bool validate_clusters,
                       struct kb_diag *diag)
{
    struct kb_route_config *config = kb_calloc(1, sizeof(*config));
    struct kb_route_build build = {.factory = factory, .config = config};

    KB_OBJ_SET(config, kb_route_config);
    kb_arena_init(&config->arena, NULL);
    kb_map_init(&config->domains.exact);
    kb_map_init(&config->domains.suffixes);
    kb_map_init(&config->domains.prefixes);
    config->name = kb_str_dup(&config->arena, kb_str_from_cstr(message->name));
    config->runtime = factory->server->runtime;
    config->ignore_port = message->ignore_port_in_host_matching;
    config->ignore_path_parameters = message->ignore_path_parameters_in_path_matching;
    config->most_specific_wins = message->most_specific_header_mutations_wins;
    config->vhost_header = kb_header_name_dup(&config->arena, message->vhost_header);
    build.match.arena = &config->arena;
    build.match.regexes = &config->regexes;
    build.match.diag = diag;
    build.validate_clusters =
        message->validate_clusters != NULL ? message->validate_clusters->value : validate_clusters;
    build.body_max = message->max_direct_response_body_size_bytes != NULL
                         ? message->max_direct_response_body_size_bytes->value
                         : KB_DIRECT_RESPONSE_BODY_MAX;
    kb_map_init(&build.clusters);
    kb_map_init(&build.names);
    table_build(&build, message);
    kb_map_dispose(&build.clusters);
    kb_map_dispose(&build.names);
    if (build.failed) {
        kb_route_config_destroy(config);
        return NULL;
    }
    return config;
}

void kb_route_config_destroy(struct kb_route_config *config)
{
    if (config == NULL) {
        return;
    }
    (void)KB_CAST(config, kb_route_config);
    for (struct kb_stat_group_node *node = config->stat_groups; node != NULL; node = node->next) {
        kb_stat_group_destroy(node->group);
    }
    for (struct kb_cluster_slot_node *node = config->cluster_slots; node != NULL;
         node = node->next) {
        kb_cluster_slot_release(config->server->clusters, node->slot);
    }
    kb_route_filter_configs_dispose(config);
    kb_vhost_map_dispose(&config->domains);
    kb_regex_list_dispose(&config->regexes);
    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}
