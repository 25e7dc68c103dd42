/* SPDX-License-Identifier: Apache-2.0 */
/* Actions of a route from their messages: where to forward and how to rewrite, where to redirect.
 */
#include "proxy/router/route_build.h"

#include "envoy/config/core/v3/extension.pb-c.h"
#include "envoy/extensions/path/rewrite/uri_template/v3/uri_template_rewrite.pb-c.h"
#include "envoy/type/matcher/v3/regex.pb-c.h"
#include "proto/any.h"

#define CLUSTER(name) ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__CLUSTER_SPECIFIER_##name
#define HOST(name)    ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_##name

/* ---- where to ---- */

static int choice_check(struct kb_route_build *build,
                        const Envoy__Config__Route__V3__WeightedCluster__ClusterWeight *message)
{
    bool name = message->name[0] != '\0';
    bool header = message->cluster_header[0] != '\0';

    if (name && header) {
        kb_route_build_error(build, "Only one of name or cluster_header can be specified");
    } else if (!name && !header) {
        kb_route_build_error(build, "At least one of name or cluster_header need to be specified");
    } else if (message->weight == NULL) {
        kb_route_build_error(build, "Field 'weight' is missing");
    } else {
        return 0;
    }
    return KB_ECONFIG;
}

static void choice_build(struct kb_route_build *build,
                         const Envoy__Config__Route__V3__WeightedCluster__ClusterWeight *message,
                         struct kb_weighted_choice *choice)
{
    if (choice_check(build, message) != 0) {
        return;
    }
    choice->weight = message->weight->value;
    if (message->name[0] != '\0') {
        choice->cluster = kb_route_build_cluster(build, message->name, "weighted cluster");
    } else {
        choice->cluster_header = kb_header_name_dup(build->match.arena, message->cluster_header);
    }
    if ((int)message->host_rewrite_specifier_case ==
        ENVOY__CONFIG__ROUTE__V3__WEIGHTED_CLUSTER__CLUSTER_WEIGHT__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL) {
        choice->host_rewrite = kb_route_build_dup(build, message->host_rewrite_literal);
    }
    choice->request = kb_header_mutations_create(
        message->request_headers_to_add, message->n_request_headers_to_add,
        message->request_headers_to_remove, message->n_request_headers_to_remove, "request",
        &build->match, &build->failed);
    choice->response = kb_header_mutations_create(
        message->response_headers_to_add, message->n_response_headers_to_add,
        message->response_headers_to_remove, message->n_response_headers_to_remove, "response",
        &build->match, &build->failed);
    choice->filters = kb_route_build_filters(build, (void *const *)message->typed_per_filter_config,
                                             message->n_typed_per_filter_config);
}

static const struct kb_weighted_clusters *
weighted_build(struct kb_route_build *build,
               const Envoy__Config__Route__V3__WeightedCluster *message, struct kb_str route_name)
{
    struct kb_weighted_clusters *weighted =
        KB_ARENA_NEW(build->match.arena, struct kb_weighted_clusters);
    uint64_t total = 0;

    weighted->count = message->n_clusters;
    weighted->choices = kb_arena_calloc(build->match.arena, KB_MAX(message->n_clusters, 1) *
                                                                sizeof(*weighted->choices));
    kb_diag_push(build->match.diag, "weighted_clusters");
    for (size_t i = 0; i < message->n_clusters; i++) {
        kb_diag_push_index(build->match.diag, "clusters", i);
        choice_build(build, message->clusters[i], &weighted->choices[i]);
        if (message->runtime_key_prefix[0] != '\0') {
            weighted->choices[i].runtime_key =
                kb_str_printf(build->match.arena, "%s.%s", message->runtime_key_prefix,
                              message->clusters[i]->name);
        }
        kb_diag_pop(build->match.diag);
        total += weighted->choices[i].weight;
    }
    if (total > UINT32_MAX) {
        kb_route_build_error(
            build, "The sum of weights of all weighted clusters of route %.*s exceeds 4294967295",
            KB_STR_ARG(route_name));
    } else if (total == 0 && !build->failed) {
        kb_route_build_error(build,
                             "Sum of weights in the weighted_cluster must be greater than 0.");
    }
    kb_diag_pop(build->match.diag);
    if ((int)message->random_value_specifier_case ==
        ENVOY__CONFIG__ROUTE__V3__WEIGHTED_CLUSTER__RANDOM_VALUE_SPECIFIER_HEADER_NAME) {
        weighted->random_header = kb_header_name_dup(build->match.arena, message->header_name);
    } else if ((int)message->random_value_specifier_case ==
               ENVOY__CONFIG__ROUTE__V3__WEIGHTED_CLUSTER__RANDOM_VALUE_SPECIFIER_USE_HASH_POLICY) {
        weighted->use_hash_policy = message->use_hash_policy->value;
    }
    return weighted;
}

/* No plugin exists here: a named or required one is an error, an optional one makes a route that is
 * never chosen. */
static void plugin_build(struct kb_route_build *build,
                         const Envoy__Config__Route__V3__RouteAction *message,
                         struct kb_route_entry *entry)
{
    const Envoy__Config__Route__V3__ClusterSpecifierPlugin *plugin =
        message->inline_cluster_specifier_plugin;
    struct kb_route_match *never;

    if ((int)message->cluster_specifier_case == CLUSTER(CLUSTER_SPECIFIER_PLUGIN)) {
        kb_route_build_error(build,
                             "Unknown cluster specifier plugin name: %s is used in the route",
                             message->cluster_specifier_plugin);
        return;
    }
    if (!plugin->is_optional) {
        struct kb_str type =
            plugin->extension != NULL && plugin->extension->typed_config != NULL
                ? kb_any_inner_name(plugin->extension->typed_config, build->match.arena)
                : KB_STR("");

        kb_route_build_error(
            build, "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
            plugin->extension != NULL ? plugin->extension->name : "", KB_STR_ARG(type));
        return;
    }
    never = KB_ARENA_NEW(build->match.arena, struct kb_route_match);
    never->never = true;
    entry->match = never;
    ((struct kb_path_key *)kb_route_entry_key(entry))->more = true; /* still ours */
}

static void cluster_build(struct kb_route_build *build,
                          const Envoy__Config__Route__V3__RouteAction *message,
                          struct kb_route_entry *entry)
{
    struct kb_str *header;

    switch ((int)message->cluster_specifier_case) {
    case CLUSTER(CLUSTER):
        entry->cluster_kind = KB_CLUSTER_FIXED;
        entry->cluster = kb_route_build_cluster(build, message->cluster, "cluster");
        break;
    case CLUSTER(CLUSTER_HEADER):
        header = KB_ARENA_NEW(build->match.arena, struct kb_str);
        *header = kb_header_name_dup(build->match.arena, message->cluster_header);
        entry->cluster_kind = KB_CLUSTER_HEADER;
        entry->cluster_header = header;
        break;
    case CLUSTER(WEIGHTED_CLUSTERS):
        entry->cluster_kind = KB_CLUSTER_WEIGHTED;
        entry->weighted = weighted_build(build, message->weighted_clusters, entry->route.name);
        for (size_t i = 0; i < entry->weighted->count; i++) {
            entry->route.choice_filter_configs |= entry->weighted->choices[i].filters != NULL;
        }
        break;
    case CLUSTER(CLUSTER_SPECIFIER_PLUGIN):
    case CLUSTER(INLINE_CLUSTER_SPECIFIER_PLUGIN):
        plugin_build(build, message, entry);
        break;
    default:
        kb_route_build_error(build, "cluster_specifier: is required");
    }
}

/* ---- rewrites ---- */

static const struct kb_formatter *rewrite_formatter(struct kb_route_build *build, const char *field,
                                                    const char *format, bool omit_empty)
{
    const struct kb_formatter *formatter;

    kb_diag_push(build->match.diag, field);
    formatter = kb_formatter_create(build->match.arena, kb_str_from_cstr(format), omit_empty,
                                    build->match.diag);
    kb_diag_pop(build->match.diag);
    build->failed |= formatter == NULL;
    return formatter;
}

static void host_rewrite_build(struct kb_route_build *build,
                               const Envoy__Config__Route__V3__RouteAction *message,
                               struct kb_route_rewrite *rewrite)
{
    switch ((int)message->host_rewrite_specifier_case) {
    case HOST(HOST_REWRITE_LITERAL):
        rewrite->host_literal = kb_route_build_intern(build, message->host_rewrite_literal);
        break;
    case HOST(HOST_REWRITE_HEADER):
        rewrite->host_header = kb_header_name_dup(build->match.arena, message->host_rewrite_header);
        break;
    case HOST(HOST_REWRITE_PATH_REGEX):
        kb_diag_push(build->match.diag, "host_rewrite_path_regex");
        rewrite->host_substitution =
            kb_route_build_dup(build, message->host_rewrite_path_regex->substitution);
        rewrite->host_regex =
            kb_route_build_regex(build, "pattern", message->host_rewrite_path_regex->pattern);
        kb_diag_pop(build->match.diag);
        break;
    case HOST(HOST_REWRITE):
        rewrite->host_formatter =
            rewrite_formatter(build, "host_rewrite", message->host_rewrite, false);
        break;
    default: /* none, or auto_host_rewrite */
        break;
    }
}

static void uri_template_build(struct kb_route_build *build,
                               const Envoy__Config__Core__V3__TypedExtensionConfig *message,
                               const struct kb_path_key *key, struct kb_route_rewrite *rewrite)
{
    const Envoy__Extensions__Path__Rewrite__UriTemplate__V3__UriTemplateRewriteConfig *config;
    struct kb_str type = kb_any_inner_name(message->typed_config, build->match.arena);

    if (!kb_str_eq(
            type,
            KB_STR("envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig"))) {
        kb_route_build_error(
            build, "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
            message->name, KB_STR_ARG(type));
        return;
    }
    config = KB_ANY_UNPACK(
        message->typed_config,
        envoy__extensions__path__rewrite__uri_template__v3__uri_template_rewrite_config,
        Envoy__Extensions__Path__Rewrite__UriTemplate__V3__UriTemplateRewriteConfig,
        build->match.arena, build->match.diag);
    if (config != NULL) {
        rewrite->uri_template = kb_uri_template_rewrite_create(
            kb_str_from_cstr(config->path_template_rewrite),
            key->kind == KB_PATH_TEMPLATE ? key->uri_template : NULL, &build->match);
    }
    build->failed |= config == NULL || rewrite->uri_template == NULL;
}

static void path_rewrite_build(struct kb_route_build *build,
                               const Envoy__Config__Route__V3__RouteAction *message,
                               const struct kb_path_key *key, struct kb_route_rewrite *rewrite)
{
    unsigned asked = (message->prefix_rewrite[0] != '\0') + (message->regex_rewrite != NULL) +
                     (message->path_rewrite_policy != NULL) + (message->path_rewrite[0] != '\0');

    if (asked > 1) {
        kb_route_build_error(
            build, "Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy");
        return;
    }
    if (message->prefix_rewrite[0] != '\0') {
        if (key->kind == KB_PATH_TEMPLATE) {
            kb_route_build_error(build, "Cannot use prefix_rewrite with matcher extension");
        }
        rewrite->prefix = kb_route_build_intern(build, message->prefix_rewrite);
    } else if (message->regex_rewrite != NULL) {
        kb_diag_push(build->match.diag, "regex_rewrite");
        rewrite->substitution = kb_route_build_dup(build, message->regex_rewrite->substitution);
        rewrite->regex = kb_route_build_regex(build, "pattern", message->regex_rewrite->pattern);
        kb_diag_pop(build->match.diag);
    } else if (message->path_rewrite[0] != '\0') {
        rewrite->path_formatter =
            rewrite_formatter(build, "path_rewrite", message->path_rewrite, true);
    } else if (message->path_rewrite_policy != NULL) {
        kb_diag_push(build->match.diag, "path_rewrite_policy");
        uri_template_build(build, message->path_rewrite_policy, key, rewrite);
        kb_diag_pop(build->match.diag);
    }
}

/* NULL: none. */
static const struct kb_route_rewrite *
rewrite_build(struct kb_route_build *build, const Envoy__Config__Route__V3__RouteAction *message,
              struct kb_route_entry *entry)
{
    int host = (int)message->host_rewrite_specifier_case;
    struct kb_route_rewrite *rewrite;

    entry->route.append_x_forwarded_host = message->append_x_forwarded_host;
    if (host == HOST(AUTO_HOST_REWRITE)) {
        entry->route.auto_host_rewrite = message->auto_host_rewrite->value;
    }
    if (message->prefix_rewrite[0] == '\0' && message->regex_rewrite == NULL &&
        message->path_rewrite_policy == NULL && message->path_rewrite[0] == '\0' &&
        (host == HOST(_NOT_SET) || host == HOST(AUTO_HOST_REWRITE))) {
        return NULL;
    }
    rewrite = KB_ARENA_NEW(build->match.arena, struct kb_route_rewrite);
    host_rewrite_build(build, message, rewrite);
    path_rewrite_build(build, message, kb_route_entry_key(entry), rewrite);
    return rewrite;
}

/* ---- the rest of RouteAction ---- */

static void timeouts_build(struct kb_route_build *build,
                           const Envoy__Config__Route__V3__RouteAction *message,
                           struct kb_route *route)
{
    const Envoy__Config__Route__V3__RouteAction__MaxStreamDuration *duration =
        message->max_stream_duration;

    route->timeout_set = message->timeout != NULL;
    route->timeout_ms = kb_route_build_ms(build, "timeout", message->timeout, KB_ROUTE_TIMEOUT_MS);
    route->idle_timeout_set = message->idle_timeout != NULL;
    route->flush_timeout_ms =
        kb_route_build_ms(build, "flush_timeout", message->flush_timeout, UINT64_MAX);
    route->idle_timeout_ms = kb_route_build_ms(build, "idle_timeout", message->idle_timeout, 0);
    route->flush_timeout_ms =
        kb_route_build_ms(build, "flush_timeout", message->flush_timeout, UINT64_MAX);
    if (duration == NULL) {
        return;
    }
    route->new_timeouts = true;
    kb_diag_push(build->match.diag, "max_stream_duration");
    route->max_stream_duration_set = duration->max_stream_duration != NULL;
    route->max_stream_duration_ms =
        kb_route_build_ms(build, "max_stream_duration", duration->max_stream_duration, 0);
    route->grpc_timeout_header_max_set = duration->grpc_timeout_header_max != NULL;
    route->grpc_timeout_header_max_ms =
        kb_route_build_ms(build, "grpc_timeout_header_max", duration->grpc_timeout_header_max, 0);
    kb_diag_pop(build->match.diag);
}

static void upgrade_check(struct kb_route_build *build,
                          const Envoy__Config__Route__V3__RouteAction__UpgradeConfig *message,
                          struct kb_route_upgrade *upgrades, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (kb_str_eq(upgrades[i].name, upgrades[index].name)) {
            kb_route_build_error(build, "Duplicate upgrade %s", message->upgrade_type);
        }
    }
    if (message->connect_config == NULL || kb_str_eq(upgrades[index].name, KB_STR("connect"))) {
        return;
    }
    if (kb_str_eq(upgrades[index].name, KB_STR("connect-udp"))) {
        kb_route_build_error(build, "connect_config of CONNECT-UDP is not supported; remove it to "
                                    "pass CONNECT-UDP on");
    } else {
        kb_route_build_error(build, "Non-CONNECT upgrade type %s has ConnectConfig",
                             message->upgrade_type);
    }
}

static void upgrades_build(struct kb_route_build *build,
                           const Envoy__Config__Route__V3__RouteAction *message,
                           struct kb_route *route)
{
    struct kb_route_upgrade *upgrades;

    if (message->n_upgrade_configs == 0) {
        return;
    }
    upgrades =
        kb_arena_calloc(build->match.arena, (message->n_upgrade_configs + 1) * sizeof(*upgrades));
    for (size_t i = 0; i < message->n_upgrade_configs; i++) {
        const Envoy__Config__Route__V3__RouteAction__UpgradeConfig *upgrade =
            message->upgrade_configs[i];

        kb_diag_push_index(build->match.diag, "upgrade_configs", i);
        upgrades[i].name = kb_header_name_dup(build->match.arena, upgrade->upgrade_type);
        upgrades[i].enabled = upgrade->enabled == NULL || upgrade->enabled->value;
        upgrades[i].connect = upgrade->connect_config != NULL;
        upgrades[i].allow_post =
            upgrade->connect_config != NULL && upgrade->connect_config->allow_post;
        upgrade_check(build, upgrade, upgrades, i);
        kb_diag_pop(build->match.diag);
    }
    route->upgrades = upgrades;
}

static uint16_t cluster_not_found_status(int code)
{
    switch (code) {
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__CLUSTER_NOT_FOUND_RESPONSE_CODE__NOT_FOUND:
        return 404;
    case ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__CLUSTER_NOT_FOUND_RESPONSE_CODE__INTERNAL_SERVER_ERROR:
        return 500;
    default:
        return 503;
    }
}

/* Which requests may be early data of TLS or QUIC: none are sent as such. */
static void early_data_check(struct kb_route_build *build,
                             const Envoy__Config__Core__V3__TypedExtensionConfig *message)
{
    struct kb_str type = message->typed_config != NULL
                             ? kb_any_inner_name(message->typed_config, build->match.arena)
                             : KB_STR("");

    if (!kb_str_eq(type, KB_STR("envoy.extensions.early_data.v3.DefaultEarlyDataPolicy"))) {
        kb_diag_push(build->match.diag, "early_data_policy");
        kb_route_build_error(
            build, "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
            message->name, KB_STR_ARG(type));
        kb_diag_pop(build->match.diag);
    }
}

void kb_route_build_action(struct kb_route_build *build,
                           const Envoy__Config__Route__V3__RouteAction *message,
                           const struct kb_vhost_defaults *defaults, struct kb_route_entry *entry,
                           struct kb_route_changes *changes)
{
    struct kb_route *route = &entry->route;

    route->kind = KB_ROUTE_CLUSTER;
    cluster_build(build, message, entry);
    changes->rewrite = rewrite_build(build, message, entry);
    timeouts_build(build, message, route);
    upgrades_build(build, message, route);
    route->priority = (int)message->priority == ENVOY__CONFIG__CORE__V3__ROUTING_PRIORITY__HIGH
                          ? KB_PRIORITY_HIGH
                          : KB_PRIORITY_DEFAULT;
    route->cluster_not_found_status =
        cluster_not_found_status((int)message->cluster_not_found_response_code);
    route->retry = defaults->retry;
    if (message->early_data_policy != NULL) {
        early_data_check(build, message->early_data_policy);
    }
    if (message->retry_policy != NULL) {
        kb_diag_push(build->match.diag, "retry_policy");
        route->retry = kb_route_build_retry(build, message->retry_policy);
        kb_diag_pop(build->match.diag);
    }
    route->policies = kb_route_build_policies(build, message, defaults, entry);
}
