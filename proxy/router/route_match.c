/* SPDX-License-Identifier: Apache-2.0 */
/* From request headers to a route, and from a route to a cluster. Nothing here takes memory. */
#include "proxy/api/ssl_connection_info.h"
#include "proxy/router/route_table.h"

/* Where ":port" starts, or the length. A ':' inside of "[...]" is part of an address. */
static size_t port_start(struct kb_str host)
{
    ptrdiff_t colon = kb_str_rfind_char(host, ':');

    if (colon < 0 || kb_str_rfind_char(host, ']') > colon) {
        return host.len;
    }
    return (size_t)colon;
}

static const struct kb_virtual_host *vhost_find(const struct kb_route_config *config,
                                                const struct kb_header_map *headers)
{
    const struct kb_vhost_map *domains = &config->domains;
    struct kb_str host = headers->authority;

    if (domains->exact.len == 0 && domains->suffixes.len == 0 && domains->prefixes.len == 0) {
        return domains->any;
    }
    if (config->vhost_header.len > 0) {
        host = kb_header_map_value(headers, config->vhost_header);
    }
    if (host.p == NULL) {
        return NULL;
    }
    if (config->ignore_port) {
        host = kb_str_first(host, port_start(host));
    }
    return kb_vhost_map_find(domains, host);
}

static bool tls_required(const struct kb_virtual_host *vhost, const struct kb_header_map *headers,
                         struct kb_str proto)
{
    if (vhost->require_tls == KB_REQUIRE_TLS_NONE || kb_str_eq(proto, KB_STR("https"))) {
        return false;
    }
    return vhost->require_tls == KB_REQUIRE_TLS_ALL ||
           !kb_str_eq(kb_header_map_value_id(headers, KB_HDR_X_ENVOY_INTERNAL), KB_STR("true"));
}

static bool separated_prefix_match(struct kb_str path, struct kb_str prefix, bool ignore_case)
{
    if (!(ignore_case ? kb_str_istarts_with(path, prefix) : kb_str_starts_with(path, prefix))) {
        return false;
    }
    return path.len == prefix.len || path.p[prefix.len] == '/';
}

static bool is_connect(const struct kb_header_map *headers)
{
    return kb_str_eq(headers->method, KB_STR("CONNECT")) ||
           kb_str_ieq(kb_header_map_value_id(headers, KB_HDR_UPGRADE), KB_STR("connect-udp"));
}

KB_INLINE bool key_match(const struct kb_path_key *key, struct kb_str path,
                         const struct kb_header_map *headers)
{
    struct kb_str text = kb_str_make(key->text, key->len);

    if (path.p == NULL && key->kind != KB_PATH_CONNECT) {
        return false;
    }
    switch ((enum kb_path_kind)key->kind) {
    case KB_PATH_PREFIX:
        return key->ignore_case ? kb_str_istarts_with(path, text) : kb_str_starts_with(path, text);
    case KB_PATH_EXACT:
        return key->ignore_case ? kb_str_ieq(path, text) : kb_str_eq(path, text);
    case KB_PATH_SEPARATED_PREFIX:
        return separated_prefix_match(path, text, key->ignore_case);
    case KB_PATH_REGEX:
        return kb_regex_full_match(key->regex, path);
    case KB_PATH_CONNECT:
        return is_connect(headers);
    case KB_PATH_TEMPLATE:
        return kb_uri_template_match(key->uri_template, path);
    }
    return false;
}

static bool is_grpc(const struct kb_header_map *headers)
{
    struct kb_str type = kb_header_map_value_id(headers, KB_HDR_CONTENT_TYPE);
    struct kb_str grpc = KB_STR("application/grpc");

    return headers->path.p != NULL && kb_str_starts_with(type, grpc) &&
           (type.len == grpc.len || type.p[grpc.len] == '+');
}

static bool tls_match(const struct kb_route_match *match, const struct kb_stream_info *info)
{
    const struct kb_ssl_connection_info *ssl =
        info->connection != NULL ? info->connection->ssl : NULL;

    return (match->tls_presented < 0 || match->tls_presented == kb_ssl_peer_presented(ssl)) &&
           (match->tls_validated < 0 || match->tls_validated == kb_ssl_peer_validated(ssl));
}

/* What filters left on the stream. */
static bool states_match(const struct kb_route_match *match, const struct kb_header_map *headers,
                         const struct kb_stream_info *info)
{
    for (uint32_t i = 0; i < match->metadata_count; i++) {
        if (!kb_metadata_matcher_match(&match->metadata[i], info->dynamic_metadata)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < match->filter_state_count; i++) {
        if (!kb_filter_state_matcher_match(&match->filter_states[i], info, headers->arena)) {
            return false;
        }
    }
    return true;
}

static bool conditions_match(const struct kb_route_match *match, const struct kb_runtime *runtime,
                             const struct kb_header_map *headers, const struct kb_stream_info *info,
                             uint64_t random)
{
    if (match->never ||
        (match->has_fraction && !kb_runtime_fraction_holds(&match->fraction, runtime, random))) {
        return false;
    }
    if ((match->grpc && !is_grpc(headers)) || !tls_match(match, info)) {
        return false;
    }
    return states_match(match, headers, info) &&
           kb_header_matchers_all(match->headers, match->header_count, headers) &&
           kb_cookie_matchers_all(match->cookies, match->cookie_count, headers) &&
           kb_query_matchers_all(match->queries, match->query_count, headers->path);
}

const struct kb_route *kb_route_config_match(const struct kb_route_config *config,
                                             const struct kb_header_map *headers,
                                             const struct kb_stream_info *info, uint64_t random)
{
    const struct kb_virtual_host *vhost = vhost_find(config, headers);
    struct kb_str proto = kb_header_map_value_id(headers, KB_HDR_X_FORWARDED_PROTO);
    struct kb_str path = kb_path_only(headers->path);
    struct kb_route_span span = {0, 0};

    if (vhost == NULL || proto.len == 0) {
        return NULL;
    }
    span.count = vhost->route_count;
    if (tls_required(vhost, headers, proto)) {
        return &vhost->tls_redirect->route;
    }
    if (config->ignore_path_parameters && kb_str_find_char(path, ';') >= 0) {
        path = kb_str_first(path, (size_t)kb_str_find_char(path, ';'));
    }
    if (vhost->matcher != NULL) {
        const struct kb_route_span *found = kb_match_tree_find(vhost->matcher, headers);

        span = found != NULL ? *found : (struct kb_route_span){0, 0};
    }
    for (uint32_t i = span.first; i < span.first + span.count; i++) {
        const struct kb_path_key *key = &vhost->keys[i];

        if (key_match(key, path, headers) &&
            (!key->more ||
             conditions_match(vhost->entries[i].match, config->runtime, headers, info, random))) {
            return &vhost->entries[i].route;
        }
    }
    return NULL;
}

bool kb_route_requires_tls(const struct kb_route *route, const struct kb_header_map *headers,
                           bool internal)
{
    const struct kb_virtual_host *vhost = route->virtual_host;
    struct kb_str proto = kb_header_map_value_id(headers, KB_HDR_X_FORWARDED_PROTO);

    if (vhost->require_tls == KB_REQUIRE_TLS_NONE || kb_str_eq(proto, KB_STR("https"))) {
        return false;
    }
    return vhost->require_tls == KB_REQUIRE_TLS_ALL || !internal;
}

static int cluster_by_header(struct kb_str header, const struct kb_header_map *headers,
                             uint32_t *slot, struct kb_str *name)
{
    *slot = UINT32_MAX;
    *name = kb_header_map_value(headers, header);
    return name->len > 0 ? 0 : KB_ENOTFOUND;
}

/* The number that picks: the header's, when it is there once and is a number. */
static uint64_t weighted_random(const struct kb_weighted_clusters *weighted,
                                const struct kb_header_map *headers, uint64_t random)
{
    unsigned seen = 0;
    uint64_t number = random;

    if (weighted->random_header.len == 0) {
        return random;
    }
    KB_HEADER_FOREACH(header, headers)
    {
        if (kb_str_eq(header->name, weighted->random_header)) {
            seen++;
            if (kb_str_to_u64(kb_str_trim(header->value), &number) != 0) {
                return random;
            }
        }
    }
    return seen == 1 ? number : random;
}

static uint64_t choice_weight(const struct kb_weighted_choice *choice,
                              const struct kb_runtime *runtime)
{
    return choice->runtime_key.len > 0
               ? kb_runtime_get_u64(runtime, choice->runtime_key, choice->weight)
               : choice->weight;
}

/* The choice whose part of the sum `random` falls into; NULL when runtime made all weights 0. */
static const struct kb_weighted_choice *weighted_pick(const struct kb_weighted_clusters *weighted,
                                                      const struct kb_runtime *runtime,
                                                      const struct kb_header_map *headers,
                                                      uint64_t random)
{
    uint64_t total = 0;
    uint64_t end = 0;
    uint64_t at;

    for (size_t i = 0; i < weighted->count; i++) {
        total += choice_weight(&weighted->choices[i], runtime);
    }
    if (total == 0) {
        return NULL;
    }
    at = weighted_random(weighted, headers, random) % total;
    for (size_t i = 0; i < weighted->count; i++) {
        end += choice_weight(&weighted->choices[i], runtime);
        if (at < end) {
            return &weighted->choices[i];
        }
    }
    return NULL; /* runtime changed between the two loops */
}

int kb_route_choose_cluster(const struct kb_route *route, const struct kb_header_map *headers,
                            uint64_t random, uint32_t *slot, struct kb_str *name,
                            const void **choice)
{
    const struct kb_route_entry *entry = kb_route_entry_of(route);
    const struct kb_route_cluster *cluster = entry->cluster;

    *choice = NULL;
    if (route->kind != KB_ROUTE_CLUSTER) {
        return KB_ENOTFOUND;
    }
    if (entry->cluster_kind == KB_CLUSTER_HEADER) {
        return cluster_by_header(*entry->cluster_header, headers, slot, name);
    }
    if (entry->cluster_kind == KB_CLUSTER_WEIGHTED) {
        const struct kb_weighted_choice *picked =
            weighted_pick(entry->weighted, route->virtual_host->config->runtime, headers, random);

        if (picked == NULL) {
            return KB_ENOTFOUND;
        }
        *choice = picked;
        if (picked->cluster == NULL) {
            return cluster_by_header(picked->cluster_header, headers, slot, name);
        }
        cluster = picked->cluster;
    }
    *slot = cluster->slot;
    *name = cluster->name;
    return 0;
}

const struct kb_metadata_criteria *kb_route_metadata_match(const struct kb_route *route,
                                                           const void *choice)
{
    const struct kb_weighted_choice *picked = choice;

    return picked != NULL && picked->metadata_match != NULL ? picked->metadata_match
                                                            : route->policies->metadata_match;
}

uint64_t kb_route_cluster_random(const struct kb_route *route, const struct kb_header_map *headers,
                                 const struct kb_stream_info *info, uint64_t random)
{
    const struct kb_route_entry *entry = kb_route_entry_of(route);
    uint64_t hash;

    if (route->kind == KB_ROUTE_CLUSTER && entry->cluster_kind == KB_CLUSTER_WEIGHTED &&
        entry->weighted->use_hash_policy &&
        kb_route_hash(route, headers, info, NULL, NULL, &hash)) {
        return hash;
    }
    return random;
}

const struct kb_str *kb_route_config_internal_only_headers(const struct kb_route_config *config,
                                                           size_t *count)
{
    *count = config->internal_only_header_count;
    return config->internal_only_headers;
}

struct kb_str kb_route_config_name(const struct kb_route_config *config)
{
    return config->name;
}

struct kb_str kb_route_virtual_host_name(const struct kb_route *route)
{
    return route->virtual_host->name;
}

const struct kb_virtual_cluster *kb_route_virtual_cluster(const struct kb_route *route,
                                                          const struct kb_header_map *headers)
{
    const struct kb_virtual_host *vhost = route->virtual_host;

    for (uint32_t i = 0; i < vhost->virtual_cluster_count; i++) {
        const struct kb_virtual_cluster *cluster = &vhost->virtual_clusters[i];

        if (kb_header_matchers_all(cluster->headers, cluster->header_count, headers)) {
            return cluster;
        }
    }
    return NULL;
}
