/* SPDX-License-Identifier: Apache-2.0 */
/* Decides whether a redirect is followed, and rewrites the request for its target. */
#include "proxy/router/internal_redirect.h"

#include "proxy/http/url.h"

/* Takes the place where the upstream wants the client, in the arena. */
static enum kb_url_error target_parse(struct kb_str location, struct kb_arena *arena,
                                      struct kb_url *target)
{
    enum kb_url_error error = kb_url_parse(location, target);
    ptrdiff_t fragment;

    if (error != KB_URL_OK) {
        return error;
    }
    fragment = kb_str_find_char(target->path, '#');
    if (fragment >= 0) {
        target->path = kb_str_first(target->path, (size_t)fragment);
    }
    target->authority = kb_str_dup(arena, target->authority);
    target->path = kb_str_dup(arena, target->path);
    return KB_URL_OK;
}

/* The word of the client counts only on a secure connection. */
static bool request_is_http(const struct kb_router *router)
{
    return kb_str_ieq(router->request->scheme, KB_STR("http")) || !router->info->connection->tls;
}

/* What can be said without looking at the target's route. */
static bool target_acceptable(struct kb_router *router, struct kb_str location,
                              struct kb_url *target)
{
    const struct kb_internal_redirect_policy *policy = router->route->policies->internal_redirect;
    struct kb_stat_block *stats = kb_stream_http_stats(router->stream);
    enum kb_url_error error;

    if (router->request->path.len == 0) {
        return false;
    }
    error = target_parse(location, router->arena, target);
    if (error == KB_URL_INVALID) {
        kb_stat_inc(stats, KB_STAT_HTTP_PASSTHROUGH_INTERNAL_REDIRECT_BAD_LOCATION);
        return false;
    }
    if (error == KB_URL_SCHEME) {
        kb_stat_inc(stats, KB_STAT_HTTP_PASSTHROUGH_INTERNAL_REDIRECT_UNSAFE_SCHEME);
        return false;
    }
    if (!policy->allow_cross_scheme &&
        request_is_http(router) != kb_str_ieq(target->scheme, KB_STR("http"))) {
        kb_stat_inc(stats, KB_STAT_HTTP_PASSTHROUGH_INTERNAL_REDIRECT_UNSAFE_SCHEME);
        return false;
    }
    if (router->info->internal_redirects >= policy->max_redirects) {
        kb_stat_inc(stats, KB_STAT_HTTP_PASSTHROUGH_INTERNAL_REDIRECT_TOO_MANY_REDIRECTS);
        return false;
    }
    return true;
}

static void headers_copy(const struct kb_internal_redirect_policy *policy,
                         struct kb_header_map *request, const struct kb_header_map *response)
{
    for (size_t i = 0; i < policy->headers_to_copy_count; i++) {
        struct kb_str name = policy->headers_to_copy[i];

        kb_header_map_remove(request, name);
        KB_HEADER_FOREACH(header, response)
        {
            if (kb_str_eq(header->name, name)) {
                kb_header_map_add(request, name, kb_str_dup(request->arena, header->value));
            }
        }
    }
}

/* A copy that does not move when `map` grows. */
static struct kb_header_map map_save(const struct kb_header_map *map)
{
    struct kb_header_map saved = *map;

    saved.items = kb_arena_alloc(map->arena, (map->cap + 1) * sizeof(*saved.items), sizeof(void *));
    memcpy(saved.items, map->items, map->count * sizeof(*saved.items));
    return saved;
}

/* A redirect from one route to another that the predicate previous_routes has seen. */
struct kb_redirect_seen {
    struct kb_redirect_seen *next;
    struct kb_str from;
    struct kb_str to;
};

/* False when this redirect was seen before; remembers it. At most one a redirect, which
 * max_internal_redirects limits. */
static bool seen_add(struct kb_router *router, struct kb_str from, struct kb_str to)
{
    struct kb_redirect_seen *seen;

    for (seen = router->info->redirects_seen; seen != NULL; seen = seen->next) {
        if (kb_str_eq(seen->from, from) && kb_str_eq(seen->to, to)) {
            return false;
        }
    }
    seen = KB_ARENA_NEW(router->arena, struct kb_redirect_seen);
    *seen = (struct kb_redirect_seen){router->info->redirects_seen, from, to};
    router->info->redirects_seen = seen;
    return true;
}

static bool name_listed(const struct kb_redirect_predicate *predicate, struct kb_str name)
{
    for (size_t i = 0; i < predicate->allowed_count; i++) {
        if (kb_str_eq(predicate->allowed_route_names[i], name)) {
            return true;
        }
    }
    return false;
}

static bool predicates_accept(struct kb_router *router, const struct kb_route *target,
                              bool from_https, bool to_https)
{
    const struct kb_internal_redirect_policy *policy = router->route->policies->internal_redirect;
    bool accepted = true;

    for (size_t i = 0; i < policy->predicate_count && accepted; i++) {
        switch (policy->predicates[i].kind) {
        case KB_REDIRECT_PREVIOUS_ROUTES:
            accepted = seen_add(router, router->route->name, target->name);
            break;
        case KB_REDIRECT_ALLOW_LISTED:
            accepted = name_listed(&policy->predicates[i], target->name);
            break;
        case KB_REDIRECT_SAFE_CROSS_SCHEME:
            accepted = from_https || !to_https;
            break;
        }
    }
    return accepted;
}

/* The redirect's target needs a route that the predicates accept; false restores nothing. */
static bool route_acceptable(struct kb_router *router, bool from_https)
{
    const struct kb_route *target;
    struct kb_stat_block *stats = kb_stream_http_stats(router->stream);

    kb_stream_clear_route_cache(router->stream);
    target = kb_str_starts_with(router->request->path, KB_STR("/"))
                 ? kb_stream_route(router->stream)
                 : NULL;
    kb_stream_cluster_refresh(router->stream);
    if (target == NULL) {
        kb_stat_inc(stats, KB_STAT_HTTP_PASSTHROUGH_INTERNAL_REDIRECT_NO_ROUTE);
        return false;
    }
    if (!predicates_accept(router, target, from_https,
                           kb_str_eq(router->request->scheme, KB_STR("https")))) {
        kb_stat_inc(stats, KB_STAT_HTTP_PASSTHROUGH_INTERNAL_REDIRECT_PREDICATE);
        return false;
    }
    return true;
}

/* Changes the request for its second pass; false leaves it as it was. */
static bool request_convert(struct kb_router *router, const struct kb_header_map *response,
                            struct kb_str location)
{
    struct kb_header_map *request = router->request;
    struct kb_header_map saved;
    struct kb_url target;
    bool http = request_is_http(router);

    if (!target_acceptable(router, location, &target)) {
        return false;
    }
    saved = map_save(request);
    headers_copy(router->route->policies->internal_redirect, request, response);
    request->scheme = kb_str_ieq(target.scheme, KB_STR("https")) ? KB_STR("https") : KB_STR("http");
    request->authority = target.authority;
    request->path = target.path;
    if (!route_acceptable(router, !http)) {
        *request = saved;
        return false;
    }
    /* RFC 9110 section 15.4.4. */
    if (response->status == 303 && !kb_str_eq(request->method, KB_STR("GET")) &&
        !kb_str_eq(request->method, KB_STR("HEAD"))) {
        request->method = KB_STR("GET");
        kb_header_map_remove_id(request, KB_HDR_CONTENT_LENGTH);
        kb_buf_dispose(&router->retry_body);
    }
    router->info->internal_redirects++;
    kb_header_map_set_id(request, KB_HDR_X_ENVOY_ORIGINAL_URL,
                         kb_str_printf(router->arena, "%s://%.*s%.*s", http ? "http" : "https",
                                       KB_STR_ARG(saved.authority), KB_STR_ARG(saved.path)));
    return true;
}

bool kb_internal_redirect(struct kb_router *router, struct kb_header_map *response)
{
    const struct kb_internal_redirect_policy *policy = router->route->policies->internal_redirect;
    struct kb_cluster_local *cluster = router->cluster;
    struct kb_str location = kb_header_map_value_id(response, KB_HDR_LOCATION);
    struct kb_stream *stream = router->stream;
    struct kb_buf body;

    if (response->status < 301 || response->status > 308 ||
        (policy->codes & (1U << (response->status - 301))) == 0) {
        return false;
    }
    if (!router->request_complete || router->abandoned || location.p == NULL ||
        !request_convert(router, response, location)) {
        kb_stat_inc(cluster->stats, KB_STAT_CLUSTER_UPSTREAM_INTERNAL_REDIRECT_FAILED_TOTAL);
        return false;
    }
    kb_stat_inc(cluster->stats, KB_STAT_CLUSTER_UPSTREAM_INTERNAL_REDIRECT_SUCCEEDED_TOTAL);
    kb_buf_init(&body, &router->worker->slices, 0);
    kb_buf_move(&body, &router->retry_body);
    return kb_stream_recreate(stream, response, &body);
}
