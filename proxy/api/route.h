/* SPDX-License-Identifier: Apache-2.0 */
/* Routes as the connection manager, the filters and the router see them. Built once from
 * RouteConfiguration, immutable, shared by workers. Implemented in proxy/router/. */
#pragma once

#include "proxy/api/cluster.h"
#include "proxy/api/factory_context.h"
#include "proxy/api/http_filter.h"

struct kb_route_config; /* a whole table */
struct kb_header_mutations;
struct kb_metadata_criteria;
struct kb_retry_policy;

enum kb_route_kind {
    KB_ROUTE_CLUSTER, /* forward */
    KB_ROUTE_REDIRECT,
    KB_ROUTE_DIRECT_RESPONSE,
    KB_ROUTE_NON_FORWARDING,
};

struct kb_retry_policy {
    uint32_t retry_on; /* KB_RETRY_ON_* of proxy/router/retry_state.h */
    uint32_t num_retries;
    bool num_retries_set;
    uint64_t per_try_timeout_ms;      /* 0: none */
    uint64_t per_try_idle_timeout_ms; /* 0: none */
    uint64_t base_interval_ms;        /* 0: runtime upstream.base_retry_backoff_ms, 25 */
    uint64_t max_interval_ms;         /* 0: ten times the base */
    const uint32_t *retriable_status_codes;
    size_t retriable_status_code_count;
    const struct kb_header_matcher *retriable_headers; /* response; any matches */
    size_t retriable_header_count;
    const struct kb_header_matcher *retriable_request_headers;
    size_t retriable_request_header_count;
    const struct kb_rate_limited_backoff *rate_limited; /* NULL: none */
    uint32_t host_selection_attempts;                   /* host_selection_retry_max_attempts; 1 */
    bool previous_hosts;                                /* retry_host_predicate */
    bool omit_canary_hosts;
    const struct kb_host_labels *omit_labels; /* of hosts that retries leave out; NULL: none */
    uint32_t priorities_update_frequency;     /* retry_priority previous_priorities; 0: none */
};

/* One entry of upgrade_configs, the name in lower case. */
struct kb_route_upgrade {
    struct kb_str name;
    bool enabled;
    bool connect; /* connect_config: CONNECT is ended here and its bytes go to the cluster as TCP */
    bool allow_post; /* connect_config.allow_post */
};

/* One entry of request_mirror_policies. */
struct kb_mirror_policy {
    struct kb_str cluster;                           /* empty: by header */
    struct kb_str cluster_header;                    /* lower case */
    struct kb_str host_rewrite;                      /* host_rewrite_literal; empty: none */
    const struct kb_header_mutation_list *mutations; /* NULL: none */
    struct kb_str runtime_key;
    uint32_t
        numerator; /* kb_runtime_feature_enabled(runtime, key, numerator, denominator, random) */
    uint32_t denominator;
    uint32_t slot;            /* of `cluster`; UINT32_MAX: by header */
    bool disable_host_suffix; /* no "-shadow" */
    int8_t trace_sampled;     /* -1: as the request */
};

/* One of internal_redirect_policy.predicates. */
enum kb_redirect_predicate_kind {
    KB_REDIRECT_PREVIOUS_ROUTES,   /* not to a route to which this one redirected before */
    KB_REDIRECT_ALLOW_LISTED,      /* only to these routes */
    KB_REDIRECT_SAFE_CROSS_SCHEME, /* not from http to https */
};

struct kb_redirect_predicate {
    enum kb_redirect_predicate_kind kind;
    const struct kb_str *allowed_route_names;
    size_t allowed_count;
};

struct kb_internal_redirect_policy {
    uint32_t max_redirects; /* 1 */
    uint8_t codes;          /* 1 << (status - 301): 301, 302, 303, 307, 308 */
    bool allow_cross_scheme;
    const struct kb_redirect_predicate *predicates; /* all must agree */
    size_t predicate_count;
    const struct kb_str *headers_to_copy; /* response_headers_to_copy, lower case */
    size_t headers_to_copy_count;
};

struct kb_stat_group;
struct kb_hash_policies; /* proxy/router/hash_policy.c */
struct kb_rate_limits;   /* proxy/router/rate_limit.h */

/* What few routes have. */
struct kb_route_policies {
    struct kb_stat_group *stats;         /* of stat_prefix, KB_STAT_VIRTUAL_CLUSTER_*; NULL: none */
    const struct kb_hash_policies *hash; /* NULL: none; see kb_route_hash */
    const struct kb_mirror_policy *mirrors;
    size_t mirror_count;
    const struct kb_internal_redirect_policy *internal_redirect; /* NULL: off */
    const struct kb_rate_limits *rate_limits;                    /* NULL: none */
    bool include_virtual_host_rate_limits;
    bool hedge_on_per_try_timeout;
    bool max_grpc_timeout_set; /* the deprecated fields */
    uint64_t max_grpc_timeout_ms;
    uint64_t grpc_timeout_offset_ms;                   /* of max_grpc_timeout; 0: none */
    uint64_t grpc_timeout_header_offset_ms;            /* of grpc_timeout_header_max; 0: none */
    const struct kb_metadata_criteria *metadata_match; /* NULL: none; see kb_route_metadata_match */
};

struct kb_tracing_share {
    uint32_t numerator;
    uint32_t denominator;
};

/* What a route says on tracing. */
struct kb_route_tracing {
    struct kb_str operation; /* of its decorator; empty: none */
    bool propagate;          /* told to the other side */
    bool samples;            /* with shares of its own */
    bool names_operation;    /* by a format: the decorator does not count */
    struct kb_tracing_share client;
    struct kb_tracing_share random;
    struct kb_tracing_share overall;
};

/* The chosen route. Everything is borrowed from the table. */
struct kb_route {
    struct kb_str name;
    const struct kb_virtual_host *virtual_host;
    struct kb_str metadata; /* packed envoy.config.core.v3.Metadata; empty when there is none */
    struct kb_str virtual_host_metadata; /* likewise */
    const void *impl;                    /* the entry, for the functions below */
    enum kb_route_kind kind;
    /* KB_ROUTE_CLUSTER; in this order to be small, because tables have many */
    enum kb_priority priority;
    uint64_t timeout_ms; /* 15000 by default; 0: none */
    uint64_t idle_timeout_ms;
    uint64_t max_stream_duration_ms;
    uint64_t grpc_timeout_header_max_ms;
    uint64_t flush_timeout_ms;                /* UINT64_MAX: not set */
    uint64_t request_body_buffer_limit;       /* UINT64_MAX: the connection's */
    const struct kb_retry_policy *retry;      /* NULL: none */
    const struct kb_route_upgrade *upgrades;  /* ends with an empty name; NULL: none */
    const struct kb_route_policies *policies; /* NULL: none */
    const struct kb_route_tracing *tracing;   /* NULL: nothing */
    uint16_t cluster_not_found_status;        /* 503 */
    bool timeout_set;
    bool idle_timeout_set;
    bool max_stream_duration_set;
    bool grpc_timeout_header_max_set;
    bool new_timeouts; /* has a max_stream_duration, so that `timeout` does not count */
    bool include_attempt_count_request;
    bool include_attempt_count_response;
    bool include_is_timeout_retry;
    bool auto_host_rewrite;
    bool append_x_forwarded_host;
    bool filter_configs;        /* kb_route_filter_* may say something */
    bool choice_filter_configs; /* so may its weighted clusters */
};

/* Builds a table; NULL only after an error was reported. `validate_clusters`: unknown clusters are
 * errors. Destroy when no worker holds it any more. */
struct Envoy__Config__Route__V3__RouteConfiguration;
struct kb_route_config *
kb_route_config_create(const struct Envoy__Config__Route__V3__RouteConfiguration *message,
                       struct kb_factory_context *factory, bool validate_clusters,
                       struct kb_diag *diag);
void kb_route_config_destroy(struct kb_route_config *config);
struct kb_str kb_route_config_name(const struct kb_route_config *config);

/* A table that comes over xDS (Envoy RdsRouteConfigProvider): one connection manager's hold of a
 * subscription, which it shares with others that ask for the same. Implemented in
 * proxy/router/rds.c. */
struct kb_route_provider;
struct kb_shared;
struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__Rds;
/* factory->init waits until the table is there, or known not to come in time. NULL only after an
 * error was reported. Main thread. */
struct kb_route_provider *kb_route_provider_create(
    const struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__Rds *message,
    struct kb_str stat_prefix, struct kb_factory_context *factory, struct kb_diag *diag);
/* When no stream asks it any more; tables that streams hold stay until these let go. Main thread.
 */
void kb_route_provider_destroy(struct kb_route_provider *provider);
/* The present table, or NULL before the first. `*hold` keeps it until kb_shared_unref. On the
 * worker. */
const struct kb_route_config *kb_route_provider_acquire(const struct kb_route_provider *provider,
                                                        const struct kb_worker *worker,
                                                        struct kb_shared **hold);

/* The route for these request headers, or NULL. `random` decides runtime fractions; no memory is
 * taken unless a matcher needs it (from headers->arena). */
const struct kb_route *kb_route_config_match(const struct kb_route_config *config,
                                             const struct kb_header_map *headers,
                                             const struct kb_stream_info *info, uint64_t random);

/* Which cluster: fixed, by header, or weighted (`random` picks). Sets *slot to its kb_cluster_slot
 * number, or returns KB_ENOTFOUND when a header names none. *choice is for kb_route_finalize_*: the
 * weighted cluster entry, or NULL. For cluster_header routes slot is UINT32_MAX and *name is the
 * cluster's name. */
int kb_route_choose_cluster(const struct kb_route *route, const struct kb_header_map *headers,
                            uint64_t random, uint32_t *slot, struct kb_str *name,
                            const void **choice) KB_MUST_USE;

/* The number to pass as `random` above: for weighted_clusters with use_hash_policy the request's
 * hash, otherwise `random`. */
uint64_t kb_route_cluster_random(const struct kb_route *route, const struct kb_header_map *headers,
                                 const struct kb_stream_info *info, uint64_t random);

/* metadata_match for hosts of the chosen cluster; NULL: none. For routes with policies. */
const struct kb_metadata_criteria *kb_route_metadata_match(const struct kb_route *route,
                                                           const void *choice);

/* Changes the request before it is forwarded: header mutations in Envoy's order, path and host
 * rewrites with x-envoy-original-path/-host and x-forwarded-host. `suppress`: no
 * x-envoy-original-*. */
void kb_route_finalize_request(const struct kb_route *route, const void *choice,
                               struct kb_header_map *headers, struct kb_stream_info *info,
                               bool suppress_envoy_headers);
/* Host rewrite of auto_host_rewrite, once the host is chosen. */
void kb_route_rewrite_host(const struct kb_route *route, struct kb_header_map *headers,
                           struct kb_str hostname, bool suppress_envoy_headers);
/* Response header mutations of choice, route, virtual host and table. Local replies of a stream
 * without a matching route get none unless `route` is the stream's. */
void kb_route_finalize_response(const struct kb_route *route, const void *choice,
                                struct kb_header_map *request, struct kb_header_map *headers,
                                struct kb_stream_info *info);

/* KB_ROUTE_REDIRECT: status and Location value (in headers->arena). `info` is for path_rewrite. */
unsigned kb_route_redirect(const struct kb_route *route, const struct kb_header_map *headers,
                           const struct kb_stream_info *info, struct kb_str *location);
/* KB_ROUTE_DIRECT_RESPONSE: status and body (borrowed). *location is set where Envoy adds one (201,
 * 3xx with body rules). */
unsigned kb_route_direct_response(const struct kb_route *route, const struct kb_header_map *headers,
                                  struct kb_str *body, struct kb_str *location);
/* Envoy virtual host require_tls: true when the request must be redirected to https. */
bool kb_route_requires_tls(const struct kb_route *route, const struct kb_header_map *headers,
                           bool internal);

/* Names in internal_only_headers, lower case: removed from external requests. */
const struct kb_str *kb_route_config_internal_only_headers(const struct kb_route_config *config,
                                                           size_t *count);

/* KB_ROUTE_REDIRECT and KB_ROUTE_DIRECT_RESPONSE: call before kb_route_redirect. Rewrites :path
 * where the redirect says so (access logs show it), keeping the old one in x-envoy-original-path
 * unless `suppress_envoy_headers`. */
void kb_route_rewrite_path_for_redirect(const struct kb_route *route, struct kb_header_map *headers,
                                        bool suppress_envoy_headers);
/* Body of a direct response with body_format evaluated (in headers->arena), and its content type,
 * empty when it is the usual one. */
struct kb_str kb_route_direct_body(const struct kb_route *route,
                                   const struct kb_header_map *headers,
                                   const struct kb_stream_info *info, struct kb_str *content_type);

/* Asked for a cookie of hash_policy that the request does not have: sets it in the response and
 * returns its value, or p NULL. */
struct kb_hash_cookie {
    struct kb_str name;
    struct kb_str path;
    uint64_t ttl_s;
    const struct kb_str *attributes; /* name, value, name, value ... */
    size_t attribute_count;          /* pairs */
};
typedef struct kb_str (*kb_hash_cookie_fn)(void *arg, const struct kb_hash_cookie *cookie);

/* The hash of hash_policy for consistent load balancing; false when no policy gave one.
 * `add_cookie` may be NULL. */
bool kb_route_hash(const struct kb_route *route, const struct kb_header_map *headers,
                   const struct kb_stream_info *info, kb_hash_cookie_fn add_cookie, void *arg,
                   uint64_t *hash);
/* The Set-Cookie value for a cookie of hash_policy, in the arena. */
struct kb_str kb_hash_cookie_text(const struct kb_hash_cookie *cookie, struct kb_str value,
                                  struct kb_arena *arena);

#define KB_FILTER_NAMES_MAX 16384

/* The number of a filter's name in a chain, by which routes find what they say of it: the same for
 * the same name, for the life of the process. Names are few; past KB_FILTER_NAMES_MAX of them: 0,
 * which no filter has. Main thread. */
uint32_t kb_filter_name_id(struct kb_str name);

/* typed_per_filter_config of this route for the filter of that name; `choice` as from
 * kb_route_choose_cluster, or NULL. */
/* Whether it switches the filter off (1) or on (0); -1: says nothing. */
int kb_route_filter_disabled(const struct kb_route *route, const void *choice, uint32_t name_id);
/* The configuration of the most specific level that has one, or NULL. */
const void *kb_route_filter_config(const struct kb_route *route, const void *choice,
                                   uint32_t name_id);
/* Those of all levels, the most specific first; returns how many. */
size_t kb_route_filter_configs(const struct kb_route *route, const void *choice, uint32_t name_id,
                               const void *configs[KB_ROUTE_CONFIG_LEVELS]);

/* A virtual cluster of the virtual host: statistics of requests that its headers match,
 * "vhost.v.vcluster.c.". */
struct kb_virtual_cluster {
    struct kb_str name;
    struct kb_stat_group *stats; /* KB_STAT_VIRTUAL_CLUSTER_*, and response codes */
    const struct kb_header_matcher *headers;
    size_t header_count;
};

/* The first virtual cluster that matches; the one named "other" when none of them does; NULL when
 * the virtual host has none. */
const struct kb_virtual_cluster *kb_route_virtual_cluster(const struct kb_route *route,
                                                          const struct kb_header_map *headers);
/* Name of the route's virtual host. */
struct kb_str kb_route_virtual_host_name(const struct kb_route *route);
