/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.csrf: requests that change something have to come from a page of the host that
 * they go to, or of one that the policy names. */
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/extensions/filters/http/csrf/v3/csrf.pb-c.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/stats.h"
#include "proxy/http/url.h"
#include "proxy/matcher/runtime_fraction.h"
#include "proxy/matcher/string_match.h"

struct csrf_policy {
    KB_OBJ;
    struct kb_stat_group *stats; /* NULL: a route's policy */
    const struct kb_runtime *runtime;
    struct kb_regex_list regexes;
    struct kb_string_matcher *origins;
    size_t origin_count;
    struct kb_runtime_fraction enabled;
    struct kb_runtime_fraction shadow;
    bool has_shadow;
};
KB_OBJ_MAGIC(csrf_policy, 0x43535246);

struct csrf_filter {
    const struct csrf_policy *config;
    struct kb_stream *stream;
};

/* ---- configuration ---- */

static int route_config_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **out)
{
    const Envoy__Extensions__Filters__Http__Csrf__V3__CsrfPolicy *m = message;
    struct kb_arena *arena = factory->arena;
    struct csrf_policy *policy = KB_ARENA_NEW(arena, struct csrf_policy);
    const struct kb_match_build build = {arena, &policy->regexes, diag};
    int rc = 0;

    KB_OBJ_SET(policy, csrf_policy);
    policy->runtime = factory->server->runtime;
    policy->origin_count = m->n_additional_origins;
    policy->origins = kb_arena_calloc(arena, (policy->origin_count + 1) * sizeof(*policy->origins));
    for (size_t i = 0; i < policy->origin_count; i++) {
        kb_diag_push_index(diag, "additional_origins", i);
        rc |= kb_string_matcher_init(&policy->origins[i], m->additional_origins[i], &build);
        kb_diag_pop(diag);
    }
    if (m->filter_enabled != NULL) {
        kb_runtime_fraction_init(&policy->enabled, m->filter_enabled, arena);
    } else {
        rc = -1; /* reported already: the field is required */
    }
    policy->has_shadow = m->shadow_enabled != NULL;
    if (policy->has_shadow) {
        kb_runtime_fraction_init(&policy->shadow, m->shadow_enabled, arena);
    }
    if (rc != 0) {
        kb_regex_list_dispose(&policy->regexes);
        return KB_ECONFIG;
    }
    *out = policy;
    return 0;
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    KB_TRY(route_config_create(message, factory, diag, out));
    KB_CAST(*out, csrf_policy)->stats = kb_stat_group_create(
        factory->server->stats,
        kb_str_printf(factory->arena, "%.*scsrf.", KB_STR_ARG(factory->http_stat_prefix)),
        &kb_stat_schema_csrf);
    return 0;
}

static void config_destroy(void *arg)
{
    struct csrf_policy *policy;

    if (arg == NULL) {
        return;
    }
    policy = KB_CAST(arg, csrf_policy);
    kb_regex_list_dispose(&policy->regexes);
    if (policy->stats != NULL) {
        kb_stat_group_destroy(policy->stats);
    }
}

/* ---- requests ---- */

static void *create(void *config, struct kb_stream *stream)
{
    struct csrf_filter *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct csrf_filter);

    filter->config = KB_CAST(config, csrf_policy);
    filter->stream = stream;
    return filter;
}

static bool changes_something(struct kb_str method)
{
    return kb_str_eq(method, KB_STR("POST")) || kb_str_eq(method, KB_STR("PUT")) ||
           kb_str_eq(method, KB_STR("DELETE")) || kb_str_eq(method, KB_STR("PATCH"));
}

/* Of a URL the host and port; of anything else all of it. */
static struct kb_str host_and_port(struct kb_str text)
{
    struct kb_url url;

    return kb_url_parse(text, &url) == KB_URL_INVALID ? text : url.authority;
}

static struct kb_str source_of(const struct kb_header_map *headers)
{
    struct kb_str origin = host_and_port(kb_header_map_joined(headers, KB_STR("origin")));

    if (kb_str_eq(origin, KB_STR("null"))) {
        return KB_STR(""); /* a page that hides where it is from */
    }
    if (origin.len > 0) {
        return origin;
    }
    return host_and_port(kb_header_map_joined(headers, KB_STR("referer")));
}

static bool origin_allowed(const struct csrf_policy *policy, struct kb_str source,
                           const struct kb_header_map *headers)
{
    if (kb_str_eq(source, host_and_port(headers->authority))) {
        return true;
    }
    for (size_t i = 0; i < policy->origin_count; i++) {
        if (kb_string_matcher_match(&policy->origins[i], source)) {
            return true;
        }
    }
    return false;
}

static bool fraction_holds(const struct csrf_filter *filter,
                           const struct kb_runtime_fraction *fraction)
{
    return kb_runtime_fraction_holds(fraction, filter->config->runtime,
                                     kb_rand_u64(&kb_stream_worker(filter->stream)->rand));
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct csrf_filter *filter = arg;
    const struct csrf_policy *policy = kb_stream_route_config(filter->stream, filter);
    struct kb_stat_block *stats =
        kb_stat_group_block(filter->config->stats, kb_stream_worker(filter->stream)->index);
    struct kb_str source;
    bool enabled;

    (void)end_stream;
    policy = policy != NULL ? policy : filter->config;
    enabled = fraction_holds(filter, &policy->enabled);
    if ((!enabled && !(policy->has_shadow && fraction_holds(filter, &policy->shadow))) ||
        !changes_something(headers->method)) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    source = source_of(headers);
    if (source.len == 0) {
        kb_stat_inc(stats, KB_STAT_CSRF_MISSING_SOURCE_ORIGIN);
    } else if (!origin_allowed(policy, source, headers)) {
        kb_stat_inc(stats, KB_STAT_CSRF_REQUEST_INVALID);
    } else {
        kb_stat_inc(stats, KB_STAT_CSRF_REQUEST_VALID);
        return KB_FILTER_HEADERS_CONTINUE;
    }
    if (!enabled) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    kb_stream_send_filter_reply(filter->stream, 403, KB_STR("Invalid origin"),
                                KB_STR("csrf_origin_mismatch"), NULL, NULL);
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

const struct kb_http_filter_ops kb_ext_http_csrf = {
    .name = "envoy.filters.http.csrf",
    .type_url = "envoy.extensions.filters.http.csrf.v3.CsrfPolicy",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .route_config_create = route_config_create,
    .route_config_destroy = config_destroy,
    .create = create,
    .decode_headers = decode_headers,
};
