/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP connection manager (envoy.filters.network.http_connection_manager): turns a connection's
 * bytes into streams, runs the HTTP filters over each, and writes the answers. This header is its
 * configuration; streams are in hcm_internal.h. */
#pragma once

#include "proxy/api/access_logger.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/route.h"
#include "proxy/http/h1_parse.h"
#include "proxy/http/h2_server_session.h"
#include "proxy/http/original_ip.h"
#include "proxy/matcher/match_build.h"

enum kb_server_header {
    KB_SERVER_HEADER_OVERWRITE,
    KB_SERVER_HEADER_APPEND_IF_ABSENT,
    KB_SERVER_HEADER_PASS_THROUGH
};

enum kb_escaped_slashes { /* path_with_escaped_slashes_action */
                          KB_ESCAPED_SLASHES_KEEP,
                          KB_ESCAPED_SLASHES_REJECT,
                          KB_ESCAPED_SLASHES_UNESCAPE_AND_REDIRECT,
                          KB_ESCAPED_SLASHES_UNESCAPE_AND_FORWARD,
};

enum kb_forward_client_cert { /* forward_client_cert_details */
                              KB_FORWARD_CLIENT_CERT_SANITIZE,
                              KB_FORWARD_CLIENT_CERT_FORWARD_ONLY,
                              KB_FORWARD_CLIENT_CERT_APPEND_FORWARD,
                              KB_FORWARD_CLIENT_CERT_SANITIZE_SET,
                              KB_FORWARD_CLIENT_CERT_ALWAYS_FORWARD_ONLY,
};

struct kb_hcm_filter {
    const struct kb_http_filter_ops *ops;
    void *config;
    struct kb_str name;
    uint32_t name_id; /* kb_filter_name_id */
    bool disabled;
    struct kb_filter_provider *provider; /* config_discovery: gives ops and config; or NULL */
};

/* The last is terminal. */
struct kb_hcm_filter_chain {
    struct kb_hcm_filter *filters;
    size_t count;
    bool encodes; /* some filter looks at answers */
};

/* One entry of upgrade_configs. */
struct kb_hcm_upgrade {
    struct kb_str name;
    struct kb_hcm_filter_chain chain; /* empty: that of other requests */
    bool enabled;
};

struct kb_early_mutations;    /* early_mutation.c */
struct kb_local_reply_config; /* proxy/api/local_reply.h */
struct kb_proxy_status;       /* proxy/http/proxy_status.h */
struct kb_scoped_routes;      /* proxy/http/scoped_routes.h */

/* `tracing`: who is traced. Nothing collects spans. */
struct kb_hcm_tracing {
    bool egress;          /* the listener's traffic_direction is OUTBOUND */
    bool names_operation; /* by a format: decorators do not count */
    struct kb_tracing_share client;
    struct kb_tracing_share random;
    struct kb_tracing_share overall;
};

/* Immutable; made on the main thread, shared by the connections of all workers. */
struct kb_hcm_config {
    KB_OBJ;
    struct kb_server_context *server;
    struct kb_arena arena;
    struct kb_stat_group *http_stats; /* "http.<stat_prefix>." */
    struct kb_stat_group
        *listener_stats; /* "listener.<address>.http.<stat_prefix>."; NULL outside of listeners */
    struct kb_stat_group *http1_stats; /* "http1." of the process */
    struct kb_stat_group *http2_stats; /* "http2." */
    struct kb_str stat_prefix;
    enum kb_hcm_codec { KB_HCM_CODEC_AUTO, KB_HCM_CODEC_HTTP1, KB_HCM_CODEC_HTTP2 } codec;
    struct kb_h1_settings h1;
    struct kb_h2_server_settings h2;
    struct kb_route_config *route_config;     /* NULL: none, or route_provider's */
    struct kb_route_provider *route_provider; /* rds; NULL: none, every request gets 404 */
    struct kb_scoped_routes *scoped_routes;   /* or by the request's headers; NULL: not */
    bool internal_only_headers;               /* the table may have some */
    struct kb_access_log_list *access_log;
    struct kb_hcm_filter_chain chain;
    struct kb_local_reply_config *local_reply; /* NULL: default */
    struct kb_hcm_upgrade *upgrades;
    size_t upgrade_count;
    struct kb_str server_name;
    struct kb_str via;
    struct kb_str user_agent; /* add_user_agent: the local cluster's name; empty: off */
    struct kb_str default_host_for_http_10;
    struct kb_str local_ip; /* a non-loopback address of this machine, for x-forwarded-for of
                               loopback peers */
    struct kb_str scheme_to_overwrite; /* scheme_header_transformation; empty: keep */
    bool scheme_match_upstream;
    bool unnamed_upstream;                  /* add_proxy_protocol_connection_state: false */
    struct kb_original_ip_list original_ip; /* count 0: the default way */
    struct kb_cidr *internal_cidrs;
    size_t internal_cidr_count;
    bool internal_unix_sockets;
    enum kb_server_header server_header;
    enum kb_escaped_slashes escaped_slashes;
    enum kb_forward_client_cert forward_client_cert;
    struct {
        bool cert, chain, subject, uri, dns; /* set_current_client_cert_details */
    } client_cert_details;
    const struct kb_hcm_tracing *tracing;             /* NULL: off */
    const struct kb_proxy_status *proxy_status;       /* NULL: off */
    const struct kb_early_mutations *early_mutations; /* NULL: none */
    struct kb_regex_list regexes;                     /* of what is configured here */
    uint32_t xff_num_trusted_hops;
    uint32_t max_requests_per_connection; /* 0: unlimited */
    bool use_remote_address;
    bool skip_xff_append;
    bool generate_request_id;
    bool preserve_external_request_id;
    bool always_set_request_id_in_response;
    bool request_id_packs_reason; /* the id says whether its request is traced */
    bool request_id_samples;      /* and decides it */
    bool normalize_path;
    bool merge_slashes;
    bool strip_matching_host_port;
    bool strip_any_host_port;
    bool strip_trailing_host_dot;
    bool append_x_forwarded_port;
    bool proxy_100_continue;
    bool append_local_overload;
    bool http1_safe_max_connection_duration;
    bool stream_error_on_invalid_http_message;
    uint64_t access_log_flush_interval_ms; /* 0: logs are written at the end */
    bool flush_access_log_on_new_request;
    bool flush_log_on_tunnel_established;
    const struct kb_overload_state *overload;
    bool never_drains; /* the admin port: a draining server leaves its connections open */
    bool inbound, drain_modify_only;          /* of the listener: see kb_drain_close */
    const struct kb_drain_state *drain_state; /* of the filter chain; may be NULL */
    uint64_t idle_timeout_ms;                 /* connection; 0: none */
    uint64_t stream_idle_timeout_ms;          /* 0: none */
    uint64_t stream_flush_timeout_ms;         /* UINT64_MAX: as the stream's idle timeout */
    uint64_t request_timeout_ms;              /* 0: none */
    uint64_t request_headers_timeout_ms;      /* 0: none */
    uint64_t max_connection_duration_ms;      /* 0: none */
    uint64_t max_stream_duration_ms;          /* 0: none */
    uint64_t drain_timeout_ms;
    uint64_t delayed_close_ms;
};
KB_OBJ_MAGIC(kb_hcm_config, 0x48434d43);

struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager;

/* Builds the configuration; NULL only after an error was reported to diag. */
struct kb_hcm_config *kb_hcm_config_create(
    const struct
    Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager *message,
    struct kb_factory_context *factory, struct kb_diag *diag);
/* When no connection uses it any more. */
void kb_hcm_config_destroy(struct kb_hcm_config *config);

/* The network filter's vtable. */
extern const struct kb_network_filter_ops kb_ext_network_http_connection_manager;

/* A configuration with Envoy's defaults, for connection managers that are not configured by a
 * message (the admin port). The caller sets filters and names. */
struct kb_hcm_config *kb_hcm_config_create_default(struct kb_server_context *server,
                                                   struct kb_str stat_prefix,
                                                   const char *listener_stat_prefix);
/* A filter of the network filter's kind for one connection of such a configuration. */
void *kb_hcm_create(void *config, struct kb_conn *conn);
