/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.cors: answers preflight requests and marks answers to cross-origin ones, as
 * the policies of route and virtual host say; a field that the more specific one leaves out is the
 * next one's. */
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/extensions/filters/http/cors/v3/cors.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/route.h"
#include "proxy/api/stats.h"
#include "proxy/matcher/runtime_fraction.h"
#include "proxy/matcher/string_match.h"

struct cors_config {
    KB_OBJ;
    struct kb_stat_group *stats;
    const struct kb_runtime *runtime;
};
KB_OBJ_MAGIC(cors_config, 0x434f5253);

struct cors_policy {
    KB_OBJ;
    struct kb_regex_list regexes;
    struct kb_string_matcher *origins;
    size_t origin_count;
    struct kb_str methods; /* empty: not said */
    struct kb_str headers;
    struct kb_str exposed;
    struct kb_str max_age;
    int8_t credentials; /* -1: not said */
    int8_t private_network;
    int8_t forward_preflights;
    bool has_enabled;
    bool has_shadow;
    struct kb_runtime_fraction enabled;
    struct kb_runtime_fraction shadow;
};
KB_OBJ_MAGIC(cors_policy, 0x434f5250);

struct cors_filter {
    const struct cors_config *config;
    struct kb_stream *stream;
    const struct cors_policy *policies[KB_ROUTE_CONFIG_LEVELS]; /* the most specific first */
    size_t policy_count;
    struct kb_str origin; /* when it is allowed */
    bool applies;
};

/* ---- configuration ---- */

static int cors_config_create(const void *message, struct kb_factory_context *factory,
                              struct kb_diag *diag, void **out)
{
    struct cors_config *config = KB_ARENA_NEW(factory->arena, struct cors_config);

    (void)message;
    (void)diag;
    KB_OBJ_SET(config, cors_config);
    config->runtime = factory->server->runtime;
    config->stats = kb_stat_group_create(
        factory->server->stats,
        kb_str_printf(factory->arena, "%.*scors.", KB_STR_ARG(factory->http_stat_prefix)),
        &kb_stat_schema_cors);
    *out = config;
    return 0;
}

static void cors_config_destroy(void *arg)
{
    if (arg != NULL) {
        kb_stat_group_destroy(KB_CAST(arg, cors_config)->stats);
    }
}

static int8_t tri_state(const Google__Protobuf__BoolValue *value)
{
    return value == NULL ? -1 : (int8_t)(value->value ? 1 : 0);
}

static int cors_policy_create(const void *message, struct kb_factory_context *factory,
                              struct kb_diag *diag, void **out)
{
    const Envoy__Extensions__Filters__Http__Cors__V3__CorsPolicy *m = message;
    struct kb_arena *arena = factory->arena;
    struct cors_policy *policy = KB_ARENA_NEW(arena, struct cors_policy);
    const struct kb_match_build build = {arena, &policy->regexes, diag};
    int rc = 0;

    KB_OBJ_SET(policy, cors_policy);
    policy->origin_count = m->n_allow_origin_string_match;
    policy->origins = kb_arena_calloc(arena, (policy->origin_count + 1) * sizeof(*policy->origins));
    for (size_t i = 0; i < policy->origin_count; i++) {
        kb_diag_push_index(diag, "allow_origin_string_match", i);
        rc |= kb_string_matcher_init(&policy->origins[i], m->allow_origin_string_match[i], &build);
        kb_diag_pop(diag);
    }
    policy->methods = kb_str_dup(arena, kb_wkt_str(m->allow_methods));
    policy->headers = kb_str_dup(arena, kb_wkt_str(m->allow_headers));
    policy->exposed = kb_str_dup(arena, kb_wkt_str(m->expose_headers));
    policy->max_age = kb_str_dup(arena, kb_wkt_str(m->max_age));
    policy->credentials = tri_state(m->allow_credentials);
    policy->private_network = tri_state(m->allow_private_network_access);
    policy->forward_preflights = tri_state(m->forward_not_matching_preflights);
    if (m->filter_enabled != NULL) {
        policy->has_enabled = true;
        kb_runtime_fraction_init(&policy->enabled, m->filter_enabled, arena);
    }
    if (m->shadow_enabled != NULL) {
        policy->has_shadow = true;
        kb_runtime_fraction_init(&policy->shadow, m->shadow_enabled, arena);
    }
    if (rc != 0) {
        kb_regex_list_dispose(&policy->regexes);
        return KB_ECONFIG;
    }
    *out = policy;
    return 0;
}

static void cors_policy_destroy(void *arg)
{
    kb_regex_list_dispose(&KB_CAST(arg, cors_policy)->regexes);
}

/* ---- what the policies say together ---- */

static struct kb_str said_text(const struct cors_filter *filter, size_t offset)
{
    for (size_t i = 0; i < filter->policy_count; i++) {
        const struct kb_str *text =
            (const void *)((const char *)(const void *)filter->policies[i] + offset);

        if (text->len > 0) {
            return *text;
        }
    }
    return KB_STR("");
}

static bool said_flag(const struct cors_filter *filter, size_t offset, bool absent)
{
    for (size_t i = 0; i < filter->policy_count; i++) {
        int8_t flag = *((const int8_t *)(const void *)filter->policies[i] + offset);

        if (flag >= 0) {
            return flag != 0;
        }
    }
    return absent;
}

#define TEXT(filter, member) said_text((filter), offsetof(struct cors_policy, member))
#define FLAG(filter, member, absent) \
    said_flag((filter), offsetof(struct cors_policy, member), absent)

static bool origin_allowed(const struct cors_filter *filter, struct kb_str origin)
{
    for (size_t i = 0; i < filter->policy_count; i++) {
        const struct cors_policy *policy = filter->policies[i];

        for (size_t j = 0; j < policy->origin_count; j++) {
            if (kb_string_matcher_match(&policy->origins[j], KB_STR("*")) ||
                kb_string_matcher_match(&policy->origins[j], origin)) {
                return true;
            }
        }
        if (policy->origin_count > 0) {
            return false;
        }
    }
    return false;
}

static bool fraction_holds(const struct cors_filter *filter,
                           const struct kb_runtime_fraction *fraction)
{
    return kb_runtime_fraction_holds(fraction, filter->config->runtime,
                                     kb_rand_u64(&kb_stream_worker(filter->stream)->rand));
}

/* ---- requests ---- */

static void *cors_create(void *arg, struct kb_stream *stream)
{
    struct cors_filter *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct cors_filter);

    filter->config = KB_CAST(arg, cors_config);
    filter->stream = stream;
    return filter;
}

/* "*" stands for what the request asks for. */
static void asked_set(struct kb_header_map *answer, struct kb_str name, struct kb_str allowed,
                      struct kb_str asked)
{
    if (allowed.len == 0) {
        return;
    }
    if (kb_str_eq(allowed, KB_STR("*"))) {
        allowed = asked.p != NULL ? asked : KB_STR("");
    }
    kb_header_map_set(answer, name, allowed);
}

static void preflight_answer(struct cors_filter *filter, const struct kb_header_map *request)
{
    struct kb_arena *arena = kb_stream_arena(filter->stream);
    struct kb_header_map *answer = KB_ARENA_NEW(arena, struct kb_header_map);
    struct kb_str max_age = TEXT(filter, max_age);

    kb_header_map_init(answer, arena);
    answer->status = 200;
    if (filter->origin.p != NULL) {
        kb_header_map_set(answer, KB_STR("access-control-allow-origin"), filter->origin);
    }
    if (FLAG(filter, credentials, false)) {
        kb_header_map_set(answer, KB_STR("access-control-allow-credentials"), KB_STR("true"));
    }
    asked_set(answer, KB_STR("access-control-allow-methods"), TEXT(filter, methods),
              kb_header_map_joined(request, KB_STR("access-control-request-method")));
    asked_set(answer, KB_STR("access-control-allow-headers"), TEXT(filter, headers),
              kb_header_map_joined(request, KB_STR("access-control-request-headers")));
    if (max_age.len > 0) {
        kb_header_map_set(answer, KB_STR("access-control-max-age"), max_age);
    }
    if (FLAG(filter, private_network, false) &&
        kb_str_eq(kb_header_map_joined(request, KB_STR("access-control-request-private-network")),
                  KB_STR("true"))) {
        kb_header_map_set(answer, KB_STR("access-control-allow-private-network"), KB_STR("true"));
    }
    kb_stream_stream_info(filter->stream)->response_code_details = KB_STR("cors_response");
    kb_stream_cluster_refresh(filter->stream);
    kb_stream_encode_headers(filter->stream, answer, true);
}

static bool is_preflight(const struct kb_header_map *headers)
{
    return kb_str_eq(headers->method, KB_STR("OPTIONS")) &&
           kb_header_map_value(headers, KB_STR("access-control-request-method")).len > 0;
}

static enum kb_filter_headers_status cors_decode_headers(void *self, struct kb_header_map *headers,
                                                         bool end_stream)
{
    struct cors_filter *filter = self;
    const struct kb_route *route = kb_stream_route(filter->stream);
    uint32_t worker = kb_stream_worker(filter->stream)->index;
    struct kb_str origin;
    bool enabled, shadow, allowed;

    (void)end_stream;
    if (route == NULL ||
        (route->kind != KB_ROUTE_CLUSTER && route->kind != KB_ROUTE_NON_FORWARDING)) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    filter->policy_count =
        kb_stream_route_configs(filter->stream, filter, (const void **)filter->policies);
    if (filter->policy_count == 0) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    enabled =
        !filter->policies[0]->has_enabled || fraction_holds(filter, &filter->policies[0]->enabled);
    shadow = !enabled && filter->policies[0]->has_shadow &&
             fraction_holds(filter, &filter->policies[0]->shadow);
    origin = enabled || shadow ? kb_header_map_joined(headers, KB_STR("origin")) : KB_STR("");
    if (origin.len == 0) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    allowed = origin_allowed(filter, origin);
    kb_stat_inc(kb_stat_group_block(filter->config->stats, worker),
                allowed ? KB_STAT_CORS_ORIGIN_VALID : KB_STAT_CORS_ORIGIN_INVALID);
    if (!enabled) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    filter->applies = true;
    filter->origin = allowed ? origin : KB_STR_NULL;
    if (!is_preflight(headers) || (!allowed && FLAG(filter, forward_preflights, true))) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    preflight_answer(filter, headers);
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

static enum kb_filter_headers_status cors_encode_headers(void *self, struct kb_header_map *headers,
                                                         bool end_stream)
{
    struct cors_filter *filter = self;
    struct kb_str exposed;

    (void)end_stream;
    if (!filter->applies || filter->origin.p == NULL) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    kb_header_map_set(headers, KB_STR("access-control-allow-origin"), filter->origin);
    if (FLAG(filter, credentials, false)) {
        kb_header_map_set(headers, KB_STR("access-control-allow-credentials"), KB_STR("true"));
    }
    exposed = TEXT(filter, exposed);
    if (exposed.len > 0) {
        kb_header_map_set(headers, KB_STR("access-control-expose-headers"), exposed);
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

const struct kb_http_filter_ops kb_ext_http_cors = {
    .name = "envoy.filters.http.cors",
    .type_url = "envoy.extensions.filters.http.cors.v3.Cors",
    .route_type_url = "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    .config_create = cors_config_create,
    .config_destroy = cors_config_destroy,
    .route_config_create = cors_policy_create,
    .route_config_destroy = cors_policy_destroy,
    .create = cors_create,
    .decode_headers = cors_decode_headers,
    .encode_headers = cors_encode_headers,
};
