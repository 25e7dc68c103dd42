/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a route table. Built once, then read by all workers; everything lives in the arena of
 * the table. A simple route costs one struct kb_route_entry and one struct kb_path_key: what few
 * routes have is behind pointers. */
#pragma once

#include "base/map.h"
#include "proxy/api/formatter.h"
#include "proxy/api/route.h"
#include "proxy/http/header_mutation.h"
#include "proxy/matcher/cookie_match.h"
#include "proxy/matcher/filter_state_match.h"
#include "proxy/matcher/header_match.h"
#include "proxy/matcher/match_tree.h"
#include "proxy/matcher/metadata_match.h"
#include "proxy/matcher/query_match.h"
#include "proxy/matcher/runtime_fraction.h"
#include "proxy/router/uri_template.h"

#define KB_ROUTE_TIMEOUT_MS         15000
#define KB_DIRECT_RESPONSE_BODY_MAX 4096 /* max_direct_response_body_size_bytes */
/* Longer hosts of requests match "*" only; longer domains are refused. DNS names end at 253 bytes.
 */
#define KB_ROUTE_DOMAIN_MAX         1024

enum kb_path_kind {
    KB_PATH_PREFIX,
    KB_PATH_EXACT,
    KB_PATH_SEPARATED_PREFIX,
    KB_PATH_REGEX,
    KB_PATH_CONNECT,
    KB_PATH_TEMPLATE,
};

/* What the search for a route looks at first; an array of its own, so that a long table is read
 * from few cache lines. */
struct kb_path_key {
    union {
        const char *text;
        const struct kb_regex *regex;
        const struct kb_uri_template *uri_template;
    };
    uint32_t len;
    uint8_t kind;
    bool ignore_case;
    bool more; /* the entry has a struct kb_route_match */
};

/* Conditions beside the path. */
struct kb_route_match {
    const struct kb_header_matcher *headers;
    const struct kb_query_matcher *queries;
    uint32_t header_count;
    uint32_t query_count;
    const struct kb_cookie_matcher *cookies;
    uint32_t cookie_count;
    uint32_t metadata_count;
    const struct kb_metadata_matcher *metadata; /* of the stream's dynamic metadata */
    const struct kb_filter_state_matcher *filter_states;
    uint32_t filter_state_count;
    struct kb_runtime_fraction fraction;
    bool has_fraction;
    bool grpc;
    bool never;           /* of an optional plugin that does not exist */
    int8_t tls_presented; /* -1: not asked for */
    int8_t tls_validated;
};

/* A cluster name of the table, once for all routes that name it. */
struct kb_route_cluster {
    struct kb_str name;
    uint32_t slot;
};

/* What a level says of one filter (an entry of typed_per_filter_config). */
struct kb_filter_config {
    uint32_t name_id;
    bool disabled;
    const struct kb_http_filter_ops *ops; /* of `config` */
    void *config;                         /* NULL: none, but the filter is on */
};

struct kb_filter_configs {
    struct kb_filter_configs *next; /* of the table, for the end */
    size_t count;
    struct kb_filter_config items[];
};

enum kb_cluster_kind { KB_CLUSTER_FIXED, KB_CLUSTER_HEADER, KB_CLUSTER_WEIGHTED };

/* One entry of weighted_clusters; `choice` of the api. */
struct kb_weighted_choice {
    const struct kb_route_cluster *cluster; /* NULL: cluster_header */
    struct kb_str cluster_header;
    struct kb_str runtime_key; /* "<runtime_key_prefix>.<name>"; empty: the weight is fixed */
    uint32_t weight;
    struct kb_str host_rewrite;
    const struct kb_header_mutations *request;
    const struct kb_header_mutations *response;
    const struct kb_filter_configs *filters;
    const struct kb_metadata_criteria
        *metadata_match; /* laid over the route's; NULL: the route's */
};

struct kb_weighted_clusters {
    struct kb_weighted_choice *choices;
    size_t count;
    struct kb_str random_header;
    bool use_hash_policy;
};

struct kb_route_rewrite {
    struct kb_str prefix;
    const struct kb_regex *regex;
    struct kb_str substitution;
    const struct kb_uri_template_rewrite *uri_template;
    const struct kb_formatter *path_formatter;
    struct kb_str host_literal;
    struct kb_str host_header;
    const struct kb_regex *host_regex;
    struct kb_str host_substitution;
    const struct kb_formatter *host_formatter;
};

struct kb_route_redirect {
    unsigned status;
    struct kb_str scheme;
    struct kb_str host;
    struct kb_str port; /* ":8443" */
    struct kb_str path;
    struct kb_str prefix_rewrite;
    const struct kb_formatter *path_formatter; /* path_rewrite */
    const struct kb_regex *regex;
    struct kb_str substitution;
    bool strip_query;
};

struct kb_direct_response {
    unsigned status;
    struct kb_str body;
    const struct kb_formatter *formatter;
    const struct kb_json_formatter *json_formatter;
    struct kb_str content_type; /* body_format only; empty: as usual */
};

/* What a route changes in messages. */
struct kb_route_changes {
    const struct kb_header_mutations *request;
    const struct kb_header_mutations *response;
    const struct kb_route_rewrite *rewrite;
    const struct kb_filter_configs *filters;
};

struct kb_route_entry {
    struct kb_route route; /* first: the public face */
    const struct kb_route_match *match;
    const struct kb_route_changes *changes; /* kb_route_no_changes when there are none */
    union {
        const struct kb_route_cluster *cluster;
        const struct kb_weighted_clusters *weighted;
        const struct kb_str *cluster_header;
        const struct kb_route_redirect *redirect;
        const struct kb_direct_response *direct;
    };
    uint8_t cluster_kind;
    bool tls_redirect; /* the answer of require_tls; no mutations */
};

enum kb_require_tls { KB_REQUIRE_TLS_NONE, KB_REQUIRE_TLS_EXTERNAL_ONLY, KB_REQUIRE_TLS_ALL };

/* Routes that an action of a matcher tree stands for, among the entries of the virtual host. */
struct kb_route_span {
    uint32_t first;
    uint32_t count;
};

struct kb_virtual_host {
    struct kb_str name;
    const struct kb_route_config *config;
    const struct kb_path_key *keys;
    struct kb_route_entry *entries;
    const struct kb_match_tree
        *matcher; /* leads to struct kb_route_span; NULL: all entries in order */
    uint32_t route_count;
    uint32_t virtual_cluster_count;
    const struct kb_virtual_cluster *virtual_clusters; /* the last one is "other" */
    const struct kb_header_mutations *request;
    const struct kb_header_mutations *response;
    const struct kb_filter_configs *filters;
    const struct kb_rate_limits *rate_limits; /* NULL: none */
    const struct kb_route_entry *tls_redirect;
    uint8_t require_tls;
};

/* Domains of a table. */
struct kb_vhost_map {
    struct kb_map exact;
    struct kb_map suffixes; /* "*.foo" as ".foo" */
    struct kb_map prefixes; /* "foo.*" as "foo." */
    uint16_t *suffix_lens;  /* longest first */
    uint16_t *prefix_lens;
    size_t suffix_len_count;
    size_t prefix_len_count;
    size_t exact_len_max;
    const struct kb_virtual_host *any; /* "*" */
};

struct kb_stat_group_node {
    struct kb_stat_group_node *next;
    struct kb_stat_group *group;
};

/* A cluster name's number that the table holds. */
struct kb_cluster_slot_node {
    struct kb_cluster_slot_node *next;
    uint32_t slot;
};

struct kb_route_config {
    KB_OBJ;
    struct kb_arena arena;
    struct kb_regex_list regexes;
    struct kb_stat_group_node *stat_groups;
    struct kb_cluster_slot_node *cluster_slots;
    struct kb_server_context *server;
    struct kb_filter_configs *filter_configs; /* of all levels */
    struct kb_str name;
    const struct kb_runtime *runtime;
    struct kb_vhost_map domains;
    struct kb_virtual_host *vhosts;
    size_t vhost_count;
    const struct kb_header_mutations *request;
    const struct kb_header_mutations *response;
    const struct kb_filter_configs *filters;
    struct kb_str *internal_only_headers;
    size_t internal_only_header_count;
    struct kb_str vhost_header; /* lower case; empty: the host */
    bool ignore_port;
    bool ignore_path_parameters;
    bool most_specific_wins;
};
KB_OBJ_MAGIC(kb_route_config, 0x52544354);

/* ---- vhost_match.c ---- */

/* Adds a domain as it is configured. KB_EEXISTS for a second one. The text is copied. */
int kb_vhost_map_add(struct kb_vhost_map *map, struct kb_str domain,
                     const struct kb_virtual_host *vhost, struct kb_arena *arena) KB_MUST_USE;
/* After the last add. */
void kb_vhost_map_finish(struct kb_vhost_map *map, struct kb_arena *arena);
void kb_vhost_map_dispose(struct kb_vhost_map *map);
/* The virtual host for a Host value in any case, or NULL. Takes no memory. */
const struct kb_virtual_host *kb_vhost_map_find(const struct kb_vhost_map *map, struct kb_str host);

extern const struct kb_route_changes kb_route_no_changes;

/* ---- route_filter_config.c ---- */

/* Destroys what the filters made for the table. */
void kb_route_filter_configs_dispose(struct kb_route_config *config);

/* The key of an entry of a virtual host's array; not for the answer of require_tls. */
KB_INLINE const struct kb_path_key *kb_route_entry_key(const struct kb_route_entry *entry)
{
    const struct kb_virtual_host *vhost = entry->route.virtual_host;

    return &vhost->keys[entry - vhost->entries];
}

/* The entry behind a public route. */
KB_INLINE const struct kb_route_entry *kb_route_entry_of(const struct kb_route *route)
{
    return route->impl;
}

/* :path without query and fragment. */
KB_INLINE struct kb_str kb_path_only(struct kb_str path)
{
    for (size_t i = 0; i < path.len; i++) {
        if (path.p[i] == '?' || path.p[i] == '#') {
            return kb_str_first(path, i);
        }
    }
    return path;
}
