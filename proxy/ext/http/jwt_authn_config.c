/* SPDX-License-Identifier: Apache-2.0 */
/* JwtAuthentication messages to providers, rules and requirements. What could let somebody in when
 * it was left out refuses the configuration. */
#include <stdlib.h>

#include "base/file.h"
#include "base/log.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/config/route/v3/route.pb-c.h"
#include "envoy/config/route/v3/route_components.pb-c.h"
#include "envoy/extensions/filters/http/jwt_authn/v3/config.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/route.h"
#include "proxy/api/stats.h"
#include "proxy/ext/http/jwt_authn.h"

#define JWT(name) Envoy__Extensions__Filters__Http__JwtAuthn__V3__##name
#define REQUIRES(name) \
    ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_REQUIREMENT__REQUIRES_TYPE_##name
#define RULE(name) \
    ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__REQUIREMENT_RULE__REQUIREMENT_TYPE_##name
#define CLOCK_SKEW_S  60
#define JWKS_FILE_MAX (1024 * 1024)

struct build {
    struct kb_jwt_authn_config *config;
    struct kb_arena *arena;
    struct kb_diag *diag;
};

/* ---- texts ---- */

static struct kb_str lower_dup(struct kb_arena *arena, const char *text)
{
    struct kb_str copy = kb_str_dup(arena, kb_wkt_str(text));

    for (size_t i = 0; i < copy.len; i++) {
        ((char *)(uintptr_t)copy.p)[i] = kb_ascii_lower(copy.p[i]); /* ours */
    }
    return copy;
}

struct kb_str kb_jwt_audience(struct kb_str audience)
{
    if (kb_str_starts_with(audience, KB_STR("https://"))) {
        audience = kb_str_from(audience, 8);
    } else if (kb_str_starts_with(audience, KB_STR("http://"))) {
        audience = kb_str_from(audience, 7);
    }
    if (kb_str_ends_with(audience, KB_STR("/"))) {
        audience.len--;
    }
    return audience;
}

static struct kb_str *texts_dup(struct kb_arena *arena, char *const *texts, size_t count)
{
    struct kb_str *copies = kb_arena_calloc(arena, (count + 1) * sizeof(*copies));

    for (size_t i = 0; i < count; i++) {
        copies[i] = kb_str_dup(arena, kb_wkt_str(texts[i]));
    }
    return copies;
}

static struct kb_str *audiences_dup(struct kb_arena *arena, char *const *texts, size_t count)
{
    struct kb_str *copies = texts_dup(arena, texts, count);

    for (size_t i = 0; i < count; i++) {
        copies[i] = kb_jwt_audience(copies[i]);
    }
    return copies;
}

/* ---- providers ---- */

static struct kb_str file_read(struct build *build, const char *path)
{
    struct kb_str text;
    int rc = kb_file_read(path, JWKS_FILE_MAX, build->arena, &text);

    if (rc == 0) {
        return text;
    }
    kb_diag_error(build->diag, "unable to read file: %s: %s", path,
                  rc == KB_ELIMIT ? "larger than 1 MiB" : kb_file_error_text(rc));
    return KB_STR("");
}

static void jwks_read(struct build *build, const JWT(JwtProvider) * m,
                      struct kb_jwt_provider *provider)
{
    const Envoy__Config__Core__V3__DataSource *source = m->local_jwks;
    struct kb_str json = KB_STR("");
    enum kb_jwt_status status = KB_JWT_OK;

    switch ((int)source->specifier_case) {
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_STRING:
        json = kb_wkt_str(source->inline_string);
        break;
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
        json = kb_str_make((const char *)source->inline_bytes.data, source->inline_bytes.len);
        break;
    case ENVOY__CONFIG__CORE__V3__DATA_SOURCE__SPECIFIER_FILENAME:
        json = file_read(build, source->filename);
        break;
    default:
        kb_diag_error(build->diag, "only inline_string, inline_bytes and filename are supported");
        return;
    }
    provider->jwks = kb_jwks_create(json, &status);
    if (provider->jwks == NULL) {
        kb_diag_error(build->diag, "Provider '%.*s' in jwt_authn config has invalid local jwks: %s",
                      KB_STR_ARG(provider->name), kb_jwt_status_text(status));
    }
}

static void locations_read(struct kb_arena *arena, const JWT(JwtProvider) * m,
                           struct kb_jwt_provider *provider)
{
    static struct kb_jwt_location bearer = {{"authorization", 13}, {"Bearer ", 7}};
    static struct kb_str access_token = {"access_token", 12};

    provider->headers =
        kb_arena_calloc(arena, (m->n_from_headers + 1) * sizeof(*provider->headers));
    for (size_t i = 0; i < m->n_from_headers; i++) {
        provider->headers[i].name = lower_dup(arena, m->from_headers[i]->name);
        provider->headers[i].prefix =
            kb_str_dup(arena, kb_wkt_str(m->from_headers[i]->value_prefix));
    }
    provider->header_count = m->n_from_headers;
    provider->params = texts_dup(arena, m->from_params, m->n_from_params);
    provider->param_count = m->n_from_params;
    provider->cookies = texts_dup(arena, m->from_cookies, m->n_from_cookies);
    provider->cookie_count = m->n_from_cookies;
    if (m->n_from_headers + m->n_from_params + m->n_from_cookies == 0) {
        provider->headers = &bearer;
        provider->header_count = 1;
        provider->params = &access_token;
        provider->param_count = 1;
    }
}

static void claims_read(struct kb_arena *arena, const JWT(JwtProvider) * m,
                        struct kb_jwt_provider *provider)
{
    provider->claims =
        kb_arena_calloc(arena, (m->n_claim_to_headers + 1) * sizeof(*provider->claims));
    provider->claim_count = m->n_claim_to_headers;
    for (size_t i = 0; i < m->n_claim_to_headers; i++) {
        const JWT(JwtClaimToHeader) *from = m->claim_to_headers[i];
        struct kb_jwt_claim_header *claim = &provider->claims[i];
        struct kb_str rest = kb_str_dup(arena, kb_wkt_str(from->claim_name));
        size_t room = rest.len + from->n_claim_path + 1;

        claim->header = lower_dup(arena, from->header_name);
        claim->path = kb_arena_calloc(arena, room * sizeof(*claim->path));
        for (size_t j = 0; j < from->n_claim_path; j++) {
            claim->path[claim->path_len++] =
                kb_str_dup(arena, kb_wkt_str(from->claim_path[j]->key));
        }
        while (from->n_claim_path == 0 && claim->path_len < room &&
               kb_str_next_token(&rest, '.', &claim->path[claim->path_len])) {
            claim->path_len++;
        }
    }
}

static void provider_read(struct build *build, const char *name, const JWT(JwtProvider) * m,
                          struct kb_jwt_provider *provider)
{
    struct kb_arena *arena = build->arena;

    provider->name = kb_str_dup(arena, kb_wkt_str(name));
    provider->issuer = kb_str_dup(arena, kb_wkt_str(m->issuer));
    provider->audiences = audiences_dup(arena, m->audiences, m->n_audiences);
    provider->audience_count = m->n_audiences;
    provider->clock_skew_s = m->clock_skew_seconds > 0 ? m->clock_skew_seconds : CLOCK_SKEW_S;
    provider->forward = m->forward;
    provider->forward_payload_header = lower_dup(arena, m->forward_payload_header);
    provider->pad_forward_payload_header = m->pad_forward_payload_header;
    provider->payload_in_metadata = kb_str_dup(arena, kb_wkt_str(m->payload_in_metadata));
    provider->header_in_metadata = kb_str_dup(arena, kb_wkt_str(m->header_in_metadata));
    provider->clear_route_cache = m->clear_route_cache;
    locations_read(arena, m, provider);
    claims_read(arena, m, provider);
    if (m->normalize_payload_in_metadata != NULL) {
        provider->space_delimited_count =
            m->normalize_payload_in_metadata->n_space_delimited_claims;
        provider->space_delimited =
            texts_dup(arena, m->normalize_payload_in_metadata->space_delimited_claims,
                      provider->space_delimited_count);
    }
    if (m->subjects != NULL || m->require_expiration || m->max_lifetime != NULL ||
        m->failed_status_in_metadata[0] != '\0') {
        kb_diag_error(build->diag, "subjects, require_expiration, max_lifetime and "
                                   "failed_status_in_metadata are not supported yet");
    }
    if ((int)m->jwks_source_specifier_case !=
        ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__JWT_PROVIDER__JWKS_SOURCE_SPECIFIER_LOCAL_JWKS) {
        kb_diag_error(build->diag, "remote_jwks is not supported yet; use local_jwks");
        return;
    }
    kb_diag_push(build->diag, "local_jwks");
    jwks_read(build, m, provider);
    kb_diag_pop(build->diag);
}

static int provider_order(const void *a, const void *b)
{
    const struct kb_jwt_provider *one = a, *two = b;

    return kb_str_cmp(one->name, two->name);
}

static const struct kb_jwt_provider *provider_find(struct build *build, struct kb_str name)
{
    for (size_t i = 0; i < build->config->provider_count; i++) {
        if (kb_str_eq(build->config->providers[i].name, name)) {
            return &build->config->providers[i];
        }
    }
    kb_diag_error(build->diag, "Required provider ['%.*s'] is not configured.", KB_STR_ARG(name));
    return NULL;
}

/* ---- requirements ---- */

static void requirement_read(struct build *build, const JWT(JwtRequirement) * m,
                             struct kb_jwt_requirement *requirement);

static void provider_require(struct build *build, const char *name,
                             struct kb_jwt_requirement *requirement)
{
    requirement->kind = KB_JWT_REQUIRE_PROVIDER;
    requirement->providers = kb_arena_calloc(build->arena, sizeof(*requirement->providers));
    requirement->providers[0] = provider_find(build, kb_wkt_str(name));
    requirement->provider_count = 1;
}

static bool bypasses(const struct kb_jwt_requirement *requirement)
{
    return requirement->kind == KB_JWT_ALLOW_MISSING ||
           requirement->kind == KB_JWT_ALLOW_MISSING_OR_FAILED;
}

/* What allows a missing token comes last, once, the more generous one, and looks where the others
 * look. */
static void any_arrange(struct build *build, struct kb_jwt_requirement *any)
{
    struct kb_jwt_requirement bypass = {.kind = KB_JWT_REQUIRE_NOTHING};
    size_t kept = 0;

    for (size_t i = 0; i < any->inner_count; i++) {
        if (!bypasses(&any->inner[i])) {
            any->inner[kept++] = any->inner[i];
        } else if (bypass.kind != KB_JWT_ALLOW_MISSING_OR_FAILED) {
            bypass = any->inner[i];
        }
    }
    any->inner_count = kept;
    if (bypass.kind == KB_JWT_REQUIRE_NOTHING) {
        return;
    }
    bypass.providers = kb_arena_calloc(build->arena, (kept + 1) * sizeof(*bypass.providers));
    bypass.provider_count = 0;
    for (size_t i = 0; i < kept; i++) {
        if (any->inner[i].kind == KB_JWT_REQUIRE_PROVIDER && any->inner[i].providers[0] != NULL) {
            bypass.providers[bypass.provider_count++] = any->inner[i].providers[0];
        }
    }
    any->inner[any->inner_count++] = bypass;
}

static void list_read(struct build *build, enum kb_jwt_requirement_kind kind,
                      JWT(JwtRequirement) *const *messages, size_t count,
                      struct kb_jwt_requirement *requirement)
{
    requirement->kind = kind;
    requirement->inner = kb_arena_calloc(build->arena, (count + 1) * sizeof(*requirement->inner));
    requirement->inner_count = count;
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(build->diag, "requirements", i);
        requirement_read(build, messages[i], &requirement->inner[i]);
        kb_diag_pop(build->diag);
    }
    if (kind == KB_JWT_REQUIRE_ANY) {
        any_arrange(build, requirement);
    }
}

static void requirement_read(struct build *build, const JWT(JwtRequirement) * m,
                             struct kb_jwt_requirement *requirement)
{
    requirement->kind = KB_JWT_REQUIRE_NOTHING;
    if (m == NULL) {
        return;
    }
    switch ((int)m->requires_type_case) {
    case REQUIRES(PROVIDER_NAME):
        provider_require(build, m->provider_name, requirement);
        break;
    case REQUIRES(PROVIDER_AND_AUDIENCES):
        provider_require(build, m->provider_and_audiences->provider_name, requirement);
        requirement->audience_count = m->provider_and_audiences->n_audiences;
        requirement->audiences = audiences_dup(build->arena, m->provider_and_audiences->audiences,
                                               requirement->audience_count);
        break;
    case REQUIRES(REQUIRES_ANY):
        list_read(build, KB_JWT_REQUIRE_ANY, m->requires_any->requirements,
                  m->requires_any->n_requirements, requirement);
        break;
    case REQUIRES(REQUIRES_ALL):
        list_read(build, KB_JWT_REQUIRE_ALL, m->requires_all->requirements,
                  m->requires_all->n_requirements, requirement);
        break;
    case REQUIRES(ALLOW_MISSING):
        requirement->kind = KB_JWT_ALLOW_MISSING;
        break;
    case REQUIRES(ALLOW_MISSING_OR_FAILED):
        requirement->kind = KB_JWT_ALLOW_MISSING_OR_FAILED;
        break;
    case REQUIRES(_NOT_SET):
        break;
    default:
        kb_diag_error(build->diag, "this requirement is not supported");
    }
}

/* ---- rules ---- */

static const struct kb_jwt_requirement *named_find(const struct kb_jwt_authn_config *config,
                                                   struct kb_str name)
{
    for (size_t i = 0; i < config->named_count; i++) {
        if (kb_str_eq(config->names[i], name)) {
            return &config->named[i];
        }
    }
    return NULL;
}

static void rule_requirement(struct build *build, const JWT(RequirementRule) * m,
                             struct kb_jwt_requirement *requirement)
{
    const struct kb_jwt_requirement *named;

    requirement->kind = KB_JWT_REQUIRE_NOTHING;
    if ((int)m->requirement_type_case == RULE(REQUIRES)) {
        kb_diag_push(build->diag, "requires");
        requirement_read(build, m->requires, requirement);
        kb_diag_pop(build->diag);
    } else if ((int)m->requirement_type_case == RULE(REQUIREMENT_NAME)) {
        named = named_find(build->config, kb_wkt_str(m->requirement_name));
        if (named == NULL) {
            kb_diag_error(build->diag, "Wrong requirement_name: %s. It should be one of [%.*s]",
                          m->requirement_name, KB_STR_ARG(build->config->names_text));
        } else {
            *requirement = *named;
        }
    }
}

/* Rules match as routes do: they are the routes of a table of their own, named by their number. */
static void rules_read(struct build *build, const JWT(JwtAuthentication) * m,
                       struct kb_factory_context *factory)
{
    Envoy__Config__Route__V3__RouteConfiguration table =
        ENVOY__CONFIG__ROUTE__V3__ROUTE_CONFIGURATION__INIT;
    Envoy__Config__Route__V3__VirtualHost host = ENVOY__CONFIG__ROUTE__V3__VIRTUAL_HOST__INIT;
    Envoy__Config__Route__V3__VirtualHost *hosts[] = {&host};
    Envoy__Config__Route__V3__NonForwardingAction action =
        ENVOY__CONFIG__ROUTE__V3__NON_FORWARDING_ACTION__INIT;
    Envoy__Config__Route__V3__Route *routes =
        kb_arena_calloc(build->arena, (m->n_rules + 1) * sizeof(*routes));
    char *domains[] = {(char *)(uintptr_t)"*"};

    table.n_virtual_hosts = 1;
    table.virtual_hosts = hosts;
    host.name = (char *)(uintptr_t)"rules";
    host.n_domains = 1;
    host.domains = domains;
    host.n_routes = m->n_rules;
    host.routes = kb_arena_calloc(build->arena, (m->n_rules + 1) * sizeof(*host.routes));
    build->config->requirements =
        kb_arena_calloc(build->arena, (m->n_rules + 1) * sizeof(*build->config->requirements));
    build->config->rule_count = m->n_rules;
    for (size_t i = 0; i < m->n_rules; i++) {
        envoy__config__route__v3__route__init(&routes[i]);
        routes[i].name = (char *)(uintptr_t)kb_str_printf(build->arena, "%zu", i).p;
        routes[i].match = m->rules[i]->match;
        routes[i].action_case = ENVOY__CONFIG__ROUTE__V3__ROUTE__ACTION_NON_FORWARDING_ACTION;
        routes[i].non_forwarding_action = &action;
        host.routes[i] = &routes[i];
        kb_diag_push_index(build->diag, "rules", i);
        rule_requirement(build, m->rules[i], &build->config->requirements[i]);
        kb_diag_pop(build->diag);
    }
    if (m->n_rules > 0) {
        build->config->rules = kb_route_config_create(&table, factory, false, build->diag);
    }
}

static int name_order(const void *a, const void *b)
{
    const JWT(JwtAuthentication__RequirementMapEntry) *const *one = a, *const *two = b;

    return strcmp((*one)->key, (*two)->key);
}

static void named_read(struct build *build, const JWT(JwtAuthentication) * m)
{
    struct kb_jwt_authn_config *config = build->config;
    size_t count = m->n_requirement_map;
    JWT(JwtAuthentication__RequirementMapEntry) **sorted =
        kb_arena_calloc(build->arena, (count + 1) * sizeof(*sorted));

    config->names_text = KB_STR("");
    config->named = kb_arena_calloc(build->arena, (count + 1) * sizeof(*config->named));
    config->names = kb_arena_calloc(build->arena, (count + 1) * sizeof(*config->names));
    config->named_count = count;
    for (size_t i = 0; i < count; i++) {
        sorted[i] = m->requirement_map[i];
    }
    qsort(sorted, count, sizeof(*sorted), name_order);
    for (size_t i = 0; i < count; i++) {
        config->names[i] = kb_str_dup(build->arena, kb_wkt_str(sorted[i]->key));
        config->names_text = kb_str_printf(build->arena, "%.*s%s%s", KB_STR_ARG(config->names_text),
                                           i > 0 ? "," : "", sorted[i]->key);
        kb_diag_push(build->diag, "requirement_map");
        requirement_read(build, sorted[i]->value, &config->named[i]);
        kb_diag_pop(build->diag);
    }
}

/* ---- the whole ---- */

int kb_jwt_authn_config_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **out)
{
    const JWT(JwtAuthentication) *m = message;
    struct kb_jwt_authn_config *config = KB_ARENA_NEW(factory->arena, struct kb_jwt_authn_config);
    struct build build = {config, factory->arena, diag};
    uint32_t errors = diag->error_count;

    KB_OBJ_SET(config, kb_jwt_authn_config);
    if (m == NULL) {
        kb_diag_error(diag, "typed_config is required");
        return KB_ECONFIG;
    }
    config->bypass_cors_preflight = m->bypass_cors_preflight;
    config->strip_failure_response = m->strip_failure_response;
    config->providers =
        kb_arena_calloc(factory->arena, (m->n_providers + 1) * sizeof(*config->providers));
    kb_diag_push(diag, "providers");
    for (size_t i = 0; i < m->n_providers; i++) {
        kb_diag_push_key(diag, kb_wkt_str(m->providers[i]->key));
        provider_read(&build, m->providers[i]->key, m->providers[i]->value, &config->providers[i]);
        config->provider_count = i + 1;
        kb_diag_pop(diag);
    }
    kb_diag_pop(diag);
    qsort(config->providers, config->provider_count, sizeof(*config->providers), provider_order);
    named_read(&build, m);
    rules_read(&build, m, factory);
    if (m->filter_state_rules != NULL) {
        kb_diag_error(diag, "filter_state_rules are not supported yet");
    }
    config->stats = kb_stat_group_create(
        factory->server->stats,
        kb_str_printf(factory->arena, "%.*sjwt_authn.%s%s", KB_STR_ARG(factory->http_stat_prefix),
                      m->stat_prefix,
                      m->stat_prefix[0] == '\0' ||
                              kb_str_ends_with(kb_wkt_str(m->stat_prefix), KB_STR("."))
                          ? ""
                          : "."),
        &kb_stat_schema_jwt_authn);
    if (diag->error_count != errors) {
        kb_jwt_authn_config_destroy(config);
        return KB_ECONFIG;
    }
    *out = config;
    return 0;
}

void kb_jwt_authn_config_destroy(void *arg)
{
    struct kb_jwt_authn_config *config;

    if (arg == NULL) {
        return;
    }
    config = KB_CAST(arg, kb_jwt_authn_config);
    for (size_t i = 0; i < config->provider_count; i++) {
        kb_jwks_destroy(config->providers[i].jwks);
    }
    kb_route_config_destroy(config->rules);
    kb_stat_group_destroy(config->stats);
    KB_OBJ_CLEAR(config);
}

int kb_jwt_authn_route_create(const void *message, struct kb_factory_context *factory,
                              struct kb_diag *diag, void **out)
{
    const JWT(PerRouteConfig) *m = message;
    struct kb_jwt_authn_route *route = KB_ARENA_NEW(factory->arena, struct kb_jwt_authn_route);

    (void)diag;
    route->requirement = KB_STR("");
    if ((int)m->requirement_specifier_case ==
        ENVOY__EXTENSIONS__FILTERS__HTTP__JWT_AUTHN__V3__PER_ROUTE_CONFIG__REQUIREMENT_SPECIFIER_REQUIREMENT_NAME) {
        route->requirement = kb_str_dup(factory->arena, kb_wkt_str(m->requirement_name));
    }
    *out = route;
    return 0;
}
