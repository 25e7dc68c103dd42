/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.jwt_authn: lets requests in whose JSON web tokens are as the rule for them
 * asks, and leaves the tokens' payloads in dynamic metadata. */
#include "proxy/ext/http/jwt_authn.h"

#include "base/rand.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/route.h"
#include "proxy/api/stats.h"

#define URI_PATH_MAX 256

struct jwt_filter {
    const struct kb_jwt_authn_config *config;
    struct kb_stream *stream;
    struct kb_stat_block *stats;
};

static void *jwt_create(void *arg, struct kb_stream *stream)
{
    struct jwt_filter *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct jwt_filter);

    filter->config = KB_CAST(arg, kb_jwt_authn_config);
    filter->stream = stream;
    filter->stats = kb_stat_group_block(filter->config->stats, kb_stream_worker(stream)->index);
    return filter;
}

/* ---- denials ---- */

struct denial {
    struct jwt_filter *filter;
    struct kb_str uri;
    bool missing;
};

static void authenticate_add(void *arg, struct kb_header_map *headers)
{
    const struct denial *denial = arg;

    kb_header_map_set(headers, KB_STR("www-authenticate"),
                      kb_str_printf(kb_stream_arena(denial->filter->stream),
                                    "Bearer realm=\"%.*s\"%s", KB_STR_ARG(denial->uri),
                                    denial->missing ? "" : ", error=\"invalid_token\""));
}

/* The URL as the client asked for it, before a token was taken out of it. */
static struct kb_str original_uri(struct jwt_filter *filter, const struct kb_header_map *headers)
{
    struct kb_str path = kb_header_map_value(headers, KB_STR("x-envoy-original-path"));

    path = kb_str_first(path.p != NULL ? path : headers->path, URI_PATH_MAX);
    return kb_str_printf(kb_stream_arena(filter->stream), "%.*s://%.*s%.*s",
                         KB_STR_ARG(headers->scheme), KB_STR_ARG(headers->authority),
                         KB_STR_ARG(path));
}

static struct kb_str details_text(struct jwt_filter *filter, const char *why)
{
    struct kb_str text =
        kb_str_printf(kb_stream_arena(filter->stream), "jwt_authn_access_denied{%s}", why);

    for (size_t i = 0; i < text.len; i++) {
        if (text.p[i] == ' ') {
            ((char *)(uintptr_t)text.p)[i] = '_'; /* ours */
        }
    }
    return text;
}

static enum kb_filter_headers_status deny(struct jwt_filter *filter, enum kb_jwt_status status,
                                          struct kb_str uri)
{
    const char *why = kb_jwt_status_text(status);
    struct denial denial = {filter, uri, status == KB_JWT_MISSING};
    bool strip = filter->config->strip_failure_response;

    kb_stat_inc(filter->stats, KB_STAT_JWT_AUTHN_DENIED);
    kb_stream_send_filter_reply(filter->stream, status == KB_JWT_AUDIENCE_NOT_ALLOWED ? 403 : 401,
                                strip ? KB_STR_NULL : kb_str_from_cstr(why),
                                details_text(filter, why), strip ? NULL : authenticate_add,
                                &denial);
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

/* The route names a requirement that the filter does not have. */
static enum kb_filter_headers_status deny_unknown(struct jwt_filter *filter, struct kb_str name)
{
    struct kb_arena *arena = kb_stream_arena(filter->stream);
    struct kb_str why =
        kb_str_printf(arena, "Wrong requirement_name: %.*s. It should be one of [%.*s]",
                      KB_STR_ARG(name), KB_STR_ARG(filter->config->names_text));

    kb_stat_inc(filter->stats, KB_STAT_JWT_AUTHN_DENIED);
    kb_stream_send_filter_reply(
        filter->stream, 403,
        filter->config->strip_failure_response
            ? KB_STR_NULL
            : kb_str_printf(arena, "Failed JWT authentication: %.*s", KB_STR_ARG(why)),
        details_text(filter, why.p), NULL, NULL);
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

/* ---- which requirement ---- */

static const struct kb_jwt_requirement *by_rule(struct jwt_filter *filter,
                                                const struct kb_header_map *headers)
{
    const struct kb_jwt_authn_config *config = filter->config;
    const struct kb_route *rule = NULL;
    uint64_t number;

    if (config->rules != NULL) {
        rule = kb_route_config_match(config->rules, headers, kb_stream_stream_info(filter->stream),
                                     kb_rand_u64(&kb_stream_worker(filter->stream)->rand));
    }
    if (rule == NULL || kb_str_to_u64(rule->name, &number) != 0 || number >= config->rule_count) {
        return NULL;
    }
    return &config->requirements[number];
}

static const struct kb_jwt_requirement *by_name(const struct kb_jwt_authn_config *config,
                                                struct kb_str name)
{
    for (size_t i = 0; i < config->named_count; i++) {
        if (kb_str_eq(config->names[i], name)) {
            return &config->named[i];
        }
    }
    return NULL;
}

static bool is_preflight(const struct kb_header_map *headers)
{
    return kb_str_eq(headers->method, KB_STR("OPTIONS")) &&
           kb_header_map_value(headers, KB_STR("origin")).len > 0 &&
           kb_header_map_value(headers, KB_STR("access-control-request-method")).len > 0;
}

static enum kb_filter_headers_status allow(struct jwt_filter *filter)
{
    kb_stat_inc(filter->stats, KB_STAT_JWT_AUTHN_ALLOWED);
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_headers_status verify(struct jwt_filter *filter,
                                            const struct kb_jwt_requirement *requirement,
                                            struct kb_header_map *headers)
{
    struct kb_loop *loop = &kb_stream_worker(filter->stream)->loop;
    struct kb_jwt_verification verification = {
        .config = filter->config,
        .stats = filter->stats,
        .stream = filter->stream,
        .headers = headers,
        .now_s = kb_loop_wall_ns(loop) / 1000000000,
    };
    struct kb_str uri = original_uri(filter, headers);
    enum kb_jwt_status status = kb_jwt_requirement_verify(requirement, &verification);

    /* Of good tokens, whatever became of the others. */
    if (verification.extracted != NULL) {
        kb_dynamic_metadata_merge(&kb_stream_stream_info(filter->stream)->dynamic_metadata,
                                  kb_stream_arena(filter->stream),
                                  KB_STR("envoy.filters.http.jwt_authn"), verification.extracted);
    }
    if (status != KB_JWT_OK) {
        return deny(filter, status, uri);
    }
    if (verification.clear_route_cache) {
        kb_stream_clear_route_cache(filter->stream);
    }
    return allow(filter);
}

static enum kb_filter_headers_status jwt_decode_headers(void *self, struct kb_header_map *headers,
                                                        bool end_stream)
{
    struct jwt_filter *filter = self;
    const struct kb_jwt_authn_config *config = filter->config;
    const struct kb_jwt_authn_route *route = kb_stream_route_config(filter->stream, filter);
    const struct kb_jwt_requirement *requirement;

    (void)end_stream;
    if (config->bypass_cors_preflight && is_preflight(headers)) {
        kb_stat_inc(filter->stats, KB_STAT_JWT_AUTHN_CORS_PREFLIGHT_BYPASSED);
        return allow(filter);
    }
    if (route == NULL) {
        requirement = by_rule(filter, headers);
    } else {
        requirement = by_name(config, route->requirement);
        if (requirement == NULL && route->requirement.len > 0) {
            return deny_unknown(filter, route->requirement);
        }
    }
    return requirement != NULL ? verify(filter, requirement, headers) : allow(filter);
}

const struct kb_http_filter_ops kb_ext_http_jwt_authn = {
    .name = "envoy.filters.http.jwt_authn",
    .type_url = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    .route_type_url = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
    .config_create = kb_jwt_authn_config_create,
    .config_destroy = kb_jwt_authn_config_destroy,
    .route_config_create = kb_jwt_authn_route_create,
    .create = jwt_create,
    .decode_headers = jwt_decode_headers,
};
