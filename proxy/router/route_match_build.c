/* SPDX-License-Identifier: Apache-2.0 */
/* RouteMatch messages: the path specifier becomes a key, everything else a struct kb_route_match,
 * if there is any. */
#include "proxy/router/route_build.h"

#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/config/core/v3/extension.pb-c.h"
#include "envoy/extensions/path/match/uri_template/v3/uri_template_match.pb-c.h"
#include "envoy/type/matcher/v3/filter_state.pb-c.h"
#include "envoy/type/matcher/v3/metadata.pb-c.h"
#include "proto/any.h"

#define CASE(name) ENVOY__CONFIG__ROUTE__V3__ROUTE_MATCH__PATH_SPECIFIER_##name

static void key_text(struct kb_route_build *build, struct kb_path_key *key, enum kb_path_kind kind,
                     const char *text, bool ignore_case)
{
    struct kb_str copy = kb_route_build_intern(build, text);

    key->kind = (uint8_t)kind;
    key->text = copy.p;
    key->len = (uint32_t)copy.len;
    key->ignore_case = ignore_case;
}

static void key_template(struct kb_route_build *build, struct kb_path_key *key,
                         const Envoy__Config__Core__V3__TypedExtensionConfig *message)
{
    const Envoy__Extensions__Path__Match__UriTemplate__V3__UriTemplateMatchConfig *config;
    struct kb_str type = kb_any_inner_name(message->typed_config, build->match.arena);

    key->kind = KB_PATH_TEMPLATE;
    if (!kb_str_eq(type,
                   KB_STR("envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"))) {
        kb_route_build_error(
            build, "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
            message->name, KB_STR_ARG(type));
        return;
    }
    config =
        KB_ANY_UNPACK(message->typed_config,
                      envoy__extensions__path__match__uri_template__v3__uri_template_match_config,
                      Envoy__Extensions__Path__Match__UriTemplate__V3__UriTemplateMatchConfig,
                      build->match.arena, build->match.diag);
    if (config != NULL) {
        key->uri_template =
            kb_uri_template_create(kb_str_from_cstr(config->path_template), &build->match);
    }
    build->failed |= config == NULL || key->uri_template == NULL;
}

static void key_build(struct kb_route_build *build,
                      const Envoy__Config__Route__V3__RouteMatch *message, struct kb_path_key *key)
{
    bool ignore_case = message->case_sensitive != NULL && !message->case_sensitive->value;

    switch ((int)message->path_specifier_case) {
    case CASE(PREFIX):
        /* "" and "/" match the same in any case. */
        key_text(build, key, KB_PATH_PREFIX, message->prefix,
                 ignore_case && strlen(message->prefix) > 1);
        break;
    case CASE(PATH):
        key_text(build, key, KB_PATH_EXACT, message->path, ignore_case);
        break;
    case CASE(PATH_SEPARATED_PREFIX):
        key_text(build, key, KB_PATH_SEPARATED_PREFIX, message->path_separated_prefix, ignore_case);
        break;
    case CASE(SAFE_REGEX):
        key->kind = KB_PATH_REGEX;
        key->regex = kb_route_build_regex(build, "safe_regex", message->safe_regex);
        break;
    case CASE(CONNECT_MATCHER):
        key->kind = KB_PATH_CONNECT;
        break;
    case CASE(PATH_MATCH_POLICY):
        kb_diag_push(build->match.diag, "path_match_policy");
        key_template(build, key, message->path_match_policy);
        kb_diag_pop(build->match.diag);
        break;
    default:
        kb_route_build_error(build, "path_specifier: is required");
    }
}

static int8_t tri_state(const Google__Protobuf__BoolValue *value)
{
    return value == NULL ? -1 : (int8_t)(value->value ? 1 : 0);
}

static void states_build(struct kb_route_build *build,
                         const Envoy__Config__Route__V3__RouteMatch *message,
                         struct kb_route_match *match)
{
    struct kb_metadata_matcher *metadata =
        kb_arena_calloc(build->match.arena, (message->n_dynamic_metadata + 1) * sizeof(*metadata));
    struct kb_filter_state_matcher *states =
        kb_arena_calloc(build->match.arena, (message->n_filter_state + 1) * sizeof(*states));

    for (size_t i = 0; i < message->n_dynamic_metadata; i++) {
        kb_diag_push_index(build->match.diag, "dynamic_metadata", i);
        build->failed |= kb_metadata_matcher_init(&metadata[i], message->dynamic_metadata[i],
                                                  &build->match) != 0;
        kb_diag_pop(build->match.diag);
    }
    for (size_t i = 0; i < message->n_filter_state; i++) {
        kb_diag_push_index(build->match.diag, "filter_state", i);
        build->failed |=
            kb_filter_state_matcher_init(&states[i], message->filter_state[i], &build->match) != 0;
        kb_diag_pop(build->match.diag);
    }
    match->metadata = metadata;
    match->metadata_count = (uint32_t)message->n_dynamic_metadata;
    match->filter_states = states;
    match->filter_state_count = (uint32_t)message->n_filter_state;
}

static void conditions_build(struct kb_route_build *build,
                             const Envoy__Config__Route__V3__RouteMatch *message,
                             struct kb_route_match *match)
{
    match->headers =
        kb_header_matchers_create(message->headers, message->n_headers, "headers", &build->match);
    match->queries = kb_query_matchers_create(
        message->query_parameters, message->n_query_parameters, "query_parameters", &build->match);
    match->header_count = (uint32_t)message->n_headers;
    match->query_count = (uint32_t)message->n_query_parameters;
    build->failed |= (match->headers == NULL) != (match->header_count == 0);
    build->failed |= (match->queries == NULL) != (match->query_count == 0);
    match->cookies =
        kb_cookie_matchers_create(message->cookies, message->n_cookies, "cookies", &build->match);
    match->cookie_count = (uint32_t)message->n_cookies;
    build->failed |= (match->cookies == NULL) != (match->cookie_count == 0);
    if (message->runtime_fraction != NULL) {
        match->has_fraction = true;
        kb_runtime_fraction_init(&match->fraction, message->runtime_fraction, build->match.arena);
    }
    match->grpc = message->grpc != NULL;
    states_build(build, message, match);
    match->tls_presented = -1;
    match->tls_validated = -1;
    if (message->tls_context != NULL) {
        match->tls_presented = tri_state(message->tls_context->presented);
        match->tls_validated = tri_state(message->tls_context->validated);
    }
}

void kb_route_build_match(struct kb_route_build *build,
                          const Envoy__Config__Route__V3__RouteMatch *message,
                          struct kb_route_entry *entry, struct kb_path_key *key)
{
    struct kb_route_match *match;

    kb_diag_push(build->match.diag, "match");
    key_build(build, message, key);
    if (message->n_headers > 0 || message->n_query_parameters > 0 || message->n_cookies > 0 ||
        message->runtime_fraction != NULL || message->grpc != NULL ||
        message->tls_context != NULL || message->n_dynamic_metadata > 0 ||
        message->n_filter_state > 0) {
        match = KB_ARENA_NEW(build->match.arena, struct kb_route_match);
        conditions_build(build, message, match);
        entry->match = match;
        key->more = true;
    }
    kb_diag_pop(build->match.diag);
}
