/* SPDX-License-Identifier: Apache-2.0 */
/* What a route does to messages: header mutations in Envoy's order, host and path rewrites,
 * redirects, direct responses. */
#include "proxy/router/route_table.h"

#include "base/obj.h"

const struct kb_route_changes kb_route_no_changes = {NULL, NULL, NULL, NULL};

/* ---- text ---- */

static struct kb_str concat(struct kb_arena *arena, struct kb_str a, struct kb_str b)
{
    char *text = kb_arena_alloc(arena, a.len + b.len + 1, 1);

    if (a.len > 0) {
        memcpy(text, a.p, a.len);
    }
    if (b.len > 0) {
        memcpy(text + a.len, b.p, b.len);
    }
    text[a.len + b.len] = '\0';
    return kb_str_make(text, a.len + b.len);
}

/* ---- header mutations ---- */

struct mutation_levels {
    const struct kb_header_mutations *route, *vhost, *table;
};

/* The most specific level last when it shall win, otherwise first. A weighted cluster's came before
 * them all. */
static void levels_apply(const struct mutation_levels *levels, bool most_specific_wins,
                         struct kb_header_map *headers, const struct kb_formatter_input *input,
                         const struct kb_stream_info *info)
{
    kb_header_mutations_apply(most_specific_wins ? levels->table : levels->route, headers, input,
                              info);
    kb_header_mutations_apply(levels->vhost, headers, input, info);
    kb_header_mutations_apply(most_specific_wins ? levels->route : levels->table, headers, input,
                              info);
}

/* ---- host ---- */

/* True when `host` is the last value of x-forwarded-host already. */
static bool forwarded_host_ends_with(struct kb_str list, struct kb_str host)
{
    struct kb_str piece;
    struct kb_str last = KB_STR_NULL;

    while (kb_str_next_token(&list, ',', &piece)) {
        if (kb_str_trim(piece).len > 0) {
            last = piece;
        }
    }
    return last.p != NULL && kb_str_eq(last, host);
}

static void forwarded_host_append(struct kb_header_map *headers, struct kb_str host)
{
    struct kb_str old = kb_header_map_value_id(headers, KB_HDR_X_FORWARDED_HOST);

    if (old.len == 0) {
        kb_header_map_set_id(headers, KB_HDR_X_FORWARDED_HOST, host);
    } else if (!forwarded_host_ends_with(old, host)) {
        struct kb_str joined =
            concat(headers->arena, concat(headers->arena, old, KB_STR(",")), host);

        kb_header_map_set_id(headers, KB_HDR_X_FORWARDED_HOST, joined);
    }
}

static void authority_set(struct kb_header_map *headers, struct kb_str host,
                          bool append_x_forwarded_host, bool keep_old)
{
    struct kb_str old = headers->authority;

    if (old.len > 0 && keep_old) {
        kb_header_map_set_id(headers, KB_HDR_X_ENVOY_ORIGINAL_HOST, old);
    }
    if (old.len > 0 && append_x_forwarded_host) {
        forwarded_host_append(headers, old);
    }
    headers->authority = host;
}

static struct kb_str host_rewritten(const struct kb_route_rewrite *rewrite,
                                    struct kb_header_map *headers,
                                    const struct kb_formatter_input *input,
                                    const struct kb_stream_info *info)
{
    if (rewrite->host_literal.len > 0) {
        return rewrite->host_literal;
    }
    if (rewrite->host_header.len > 0) {
        return kb_header_map_value(headers, rewrite->host_header);
    }
    if (rewrite->host_regex != NULL) {
        return kb_regex_replace_all(rewrite->host_regex, kb_path_only(headers->path),
                                    rewrite->host_substitution, headers->arena);
    }
    if (rewrite->host_formatter != NULL) {
        return kb_formatter_text(rewrite->host_formatter, input, info, headers->arena);
    }
    return KB_STR_NULL;
}

void kb_route_rewrite_host(const struct kb_route *route, struct kb_header_map *headers,
                           struct kb_str hostname, bool suppress_envoy_headers)
{
    if (hostname.len > 0) {
        authority_set(headers, kb_str_dup(headers->arena, hostname), route->append_x_forwarded_host,
                      !suppress_envoy_headers);
    }
}

/* ---- path ---- */

/* How much of :path the route's matcher stands for. */
static size_t matched_len(const struct kb_route_entry *entry, struct kb_str path)
{
    switch ((enum kb_path_kind)kb_route_entry_key(entry)->kind) {
    case KB_PATH_PREFIX:
    case KB_PATH_EXACT:
    case KB_PATH_SEPARATED_PREFIX:
        return KB_MIN(kb_route_entry_key(entry)->len,
                      path.len); /* a filter may have shortened it since */
    case KB_PATH_REGEX:
    case KB_PATH_CONNECT:
    case KB_PATH_TEMPLATE:
        break;
    }
    return kb_path_only(path).len;
}

/* p NULL: no change. */
static struct kb_str path_by_prefix_or_regex(const struct kb_route_entry *entry, struct kb_str path,
                                             struct kb_str prefix, const struct kb_regex *regex,
                                             struct kb_str substitution, struct kb_arena *arena)
{
    if (prefix.len > 0) {
        return concat(arena, prefix, kb_str_from(path, matched_len(entry, path)));
    }
    if (regex != NULL) {
        struct kb_str only = kb_path_only(path);
        struct kb_str changed = kb_regex_replace_all(regex, only, substitution, arena);

        return changed.len > 0 ? concat(arena, changed, kb_str_from(path, only.len)) : KB_STR_NULL;
    }
    return KB_STR_NULL;
}

static struct kb_str path_rewritten(const struct kb_route_entry *entry,
                                    struct kb_header_map *headers,
                                    const struct kb_formatter_input *input,
                                    const struct kb_stream_info *info)
{
    const struct kb_route_rewrite *rewrite = entry->changes->rewrite;
    struct kb_str path = headers->path;
    struct kb_str only = kb_path_only(path);
    struct kb_str changed = KB_STR_NULL;

    if (rewrite->path_formatter != NULL) {
        changed = kb_formatter_text(rewrite->path_formatter, input, info, headers->arena);
    } else if (rewrite->uri_template != NULL) {
        changed = kb_uri_template_rewrite_path(rewrite->uri_template, only, headers->arena);
    } else {
        return path_by_prefix_or_regex(entry, path, rewrite->prefix, rewrite->regex,
                                       rewrite->substitution, headers->arena);
    }
    return changed.len > 0 ? concat(headers->arena, changed, kb_str_from(path, only.len))
                           : KB_STR_NULL;
}

static void path_set(struct kb_header_map *headers, struct kb_str path, bool keep_old)
{
    if (path.len == 0) {
        return;
    }
    if (keep_old) {
        kb_header_map_set_id(headers, KB_HDR_X_ENVOY_ORIGINAL_PATH, headers->path);
    }
    headers->path = path;
}

/* ---- requests and responses ---- */

void kb_route_finalize_request(const struct kb_route *route, const void *choice,
                               struct kb_header_map *headers, struct kb_stream_info *info,
                               bool suppress_envoy_headers)
{
    const struct kb_route_entry *entry = kb_route_entry_of(route);
    const struct kb_virtual_host *vhost = route->virtual_host;
    const struct kb_weighted_choice *picked = choice;
    const struct kb_formatter_input input = {.request = headers};
    const struct mutation_levels levels = {
        .route = entry->changes->request, .vhost = vhost->request, .table = vhost->config->request};

    if (picked != NULL) {
        kb_header_mutations_apply(picked->request, headers, &input, info);
        if (picked->host_rewrite.len > 0) {
            headers->authority = picked->host_rewrite;
        }
    }
    levels_apply(&levels, vhost->config->most_specific_wins, headers, &input, info);
    if (entry->changes->rewrite != NULL) {
        struct kb_str host = host_rewritten(entry->changes->rewrite, headers, &input, info);

        if (host.len > 0) {
            authority_set(headers, host, route->append_x_forwarded_host, !suppress_envoy_headers);
        }
        path_set(headers, path_rewritten(entry, headers, &input, info), !suppress_envoy_headers);
    }
}

void kb_route_finalize_response(const struct kb_route *route, const void *choice,
                                struct kb_header_map *request, struct kb_header_map *headers,
                                struct kb_stream_info *info)
{
    const struct kb_route_entry *entry = kb_route_entry_of(route);
    const struct kb_virtual_host *vhost = route->virtual_host;
    const struct kb_weighted_choice *picked = choice;
    const struct kb_formatter_input input = {.request = request, .response = headers};
    const struct mutation_levels levels = {.route = entry->changes->response,
                                           .vhost = vhost->response,
                                           .table = vhost->config->response};

    if (entry->tls_redirect) {
        return;
    }
    if (picked != NULL) {
        kb_header_mutations_apply(picked->response, headers, &input, info);
    }
    levels_apply(&levels, vhost->config->most_specific_wins, headers, &input, info);
}

/* ---- redirects and direct responses ---- */

/* The request's host without the port that the redirect replaces, or that was the old scheme's
 * default. */
static struct kb_str redirect_host(const struct kb_header_map *headers, struct kb_str scheme,
                                   bool new_port)
{
    struct kb_str host = headers->authority;
    struct kb_str proto = kb_header_map_value_id(headers, KB_HDR_X_FORWARDED_PROTO);
    struct kb_str port;
    ptrdiff_t colon = kb_str_rfind_char(host, ':');
    bool drop = new_port;

    if (host.len == 0 || colon < 0 ||
        (host.p[0] == '[' && (colon == 0 || host.p[colon - 1] != ']'))) {
        return host;
    }
    port = kb_str_from(host, (size_t)colon);
    if (!kb_str_eq(scheme, proto)) {
        drop |= kb_str_ieq(proto, KB_STR("https")) && kb_str_eq(port, KB_STR(":443"));
        drop |= kb_str_ieq(proto, KB_STR("http")) && kb_str_eq(port, KB_STR(":80"));
    }
    return drop ? kb_str_first(host, (size_t)colon) : host;
}

static struct kb_str query_of(struct kb_str path)
{
    ptrdiff_t mark = kb_str_find_char(path, '?');

    return mark < 0 ? KB_STR_NULL : kb_str_from(path, (size_t)mark);
}

static struct kb_str without_query(struct kb_str path)
{
    ptrdiff_t mark = kb_str_find_char(path, '?');

    return mark < 0 ? path : kb_str_first(path, (size_t)mark);
}

/* The path of the new URL in two parts, the second being the query that goes with it. A path that
 * the configuration gives may have a query of its own, which replaces the request's and is never
 * stripped. */
static struct kb_str redirect_path(const struct kb_route_redirect *redirect,
                                   const struct kb_header_map *headers,
                                   const struct kb_stream_info *info, struct kb_str *query)
{
    const struct kb_formatter_input input = {.request = headers};
    struct kb_str path = redirect->path;

    *query = KB_STR_NULL;
    if (redirect->path_formatter != NULL && info != NULL) {
        path = kb_formatter_text(redirect->path_formatter, &input, info, headers->arena);
    }
    if (path.len == 0) {
        return redirect->strip_query ? without_query(headers->path) : headers->path;
    }
    if (kb_str_find_char(path, '?') < 0 && !redirect->strip_query) {
        *query = query_of(headers->path);
    }
    return path;
}

/* `redirect` NULL: the request's own URL. */
static struct kb_str new_uri(const struct kb_route_redirect *redirect,
                             const struct kb_header_map *headers, const struct kb_stream_info *info)
{
    struct kb_str scheme = headers->scheme;
    struct kb_str host;
    struct kb_str port = KB_STR("");
    struct kb_str path = headers->path;
    struct kb_str query = KB_STR("");

    if (redirect == NULL) {
        host = redirect_host(headers, scheme, false);
    } else {
        scheme = redirect->scheme.len > 0 ? redirect->scheme : scheme;
        port = redirect->port;
        host =
            redirect->host.len > 0 ? redirect->host : redirect_host(headers, scheme, port.len > 0);
        path = redirect_path(redirect, headers, info, &query);
    }
    return kb_str_printf(headers->arena, "%.*s://%.*s%.*s%s%.*s%.*s", KB_STR_ARG(scheme),
                         KB_STR_ARG(host), KB_STR_ARG(port),
                         path.len > 0 && path.p[0] == '/' ? "" : "/", KB_STR_ARG(path),
                         KB_STR_ARG(query));
}

void kb_route_rewrite_path_for_redirect(const struct kb_route *route, struct kb_header_map *headers,
                                        bool suppress_envoy_headers)
{
    const struct kb_route_entry *entry = kb_route_entry_of(route);

    if (route->kind == KB_ROUTE_REDIRECT && !entry->tls_redirect) {
        const struct kb_route_redirect *redirect = entry->redirect;

        path_set(headers,
                 path_by_prefix_or_regex(entry, headers->path, redirect->prefix_rewrite,
                                         redirect->regex, redirect->substitution, headers->arena),
                 !suppress_envoy_headers);
    }
}

unsigned kb_route_redirect(const struct kb_route *route, const struct kb_header_map *headers,
                           const struct kb_stream_info *info, struct kb_str *location)
{
    const struct kb_route_entry *entry = kb_route_entry_of(route);

    KB_ASSERT(route->kind == KB_ROUTE_REDIRECT);
    if (entry->tls_redirect) {
        *location = kb_str_printf(headers->arena, "https://%.*s%.*s",
                                  KB_STR_ARG(headers->authority), KB_STR_ARG(headers->path));
        return 301;
    }
    *location = new_uri(entry->redirect, headers, info);
    return entry->redirect->status;
}

unsigned kb_route_direct_response(const struct kb_route *route, const struct kb_header_map *headers,
                                  struct kb_str *body, struct kb_str *location)
{
    const struct kb_direct_response *direct = kb_route_entry_of(route)->direct;

    KB_ASSERT(route->kind == KB_ROUTE_DIRECT_RESPONSE);
    *body = direct->body;
    *location = KB_STR_NULL;
    if (headers->path.p != NULL &&
        (direct->status == 201 || (direct->status >= 300 && direct->status < 400))) {
        *location = new_uri(NULL, headers, NULL); /* RFC 9110 section 15.3.2 */
    }
    return direct->status;
}

struct kb_str kb_route_direct_body(const struct kb_route *route,
                                   const struct kb_header_map *headers,
                                   const struct kb_stream_info *info, struct kb_str *content_type)
{
    const struct kb_direct_response *direct = kb_route_entry_of(route)->direct;
    const struct kb_formatter_input input = {.request = headers, .local_reply_body = direct->body};

    KB_ASSERT(route->kind == KB_ROUTE_DIRECT_RESPONSE);
    *content_type = direct->content_type;
    if (direct->formatter != NULL) {
        return kb_formatter_text(direct->formatter, &input, info, headers->arena);
    }
    if (direct->json_formatter != NULL) {
        return kb_json_formatter_text(direct->json_formatter, &input, info, headers->arena);
    }
    return direct->body;
}
