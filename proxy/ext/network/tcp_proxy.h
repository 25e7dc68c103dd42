/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration of the TCP proxy; between tcp_proxy.c and tcp_proxy_config.c. */
#pragma once

#include "proxy/api/access_logger.h"
#include "proxy/api/codec.h"
#include "proxy/api/metadata_criteria.h"
#include "proxy/api/network_filter.h"
#include "proxy/http/header_mutation.h"

struct kb_tcp_proxy_cluster {
    struct kb_str name;
    uint32_t slot;
    uint32_t weight;
    const struct kb_metadata_criteria *metadata_match; /* NULL: none */
};

/* tunneling_config: the head of the request that carries the bytes. Lives in the configuration's
 * arena. */
struct kb_tcp_tunnel {
    const struct kb_formatter *hostname;
    const struct kb_header_mutations *headers; /* NULL: none */
    struct kb_str path;                        /* of a POST */
    bool post;
    bool keep_headers;               /* propagate_response_headers */
    bool keep_trailers;              /* propagate_response_trailers */
    bool request_id;                 /* the request gets an id of its own */
    struct kb_str request_id_header; /* which says it, in lower case */
    struct kb_str request_id_key;    /* its name in the connection's metadata */
};

struct Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy__TunnelingConfig;
/* NULL after an error was reported. Main thread. */
struct kb_tcp_tunnel *kb_tcp_tunnel_create(
    const struct Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy__TunnelingConfig
        *message,
    struct kb_arena *arena, struct kb_diag *diag);
/* The request's head, in the arena. An id that it gets is in the connection's metadata, too. */
struct kb_header_map *kb_tcp_tunnel_head(const struct kb_tcp_tunnel *tunnel,
                                         const struct kb_stream_info *info, struct kb_conn *conn,
                                         struct kb_arena *arena);
/* What the answer says, where access logs find it, if it is to be kept. Copied into the arena,
 * which is that of info->filter_state. */
void kb_tcp_tunnel_headers_keep(const struct kb_tcp_tunnel *tunnel,
                                const struct kb_header_map *headers, struct kb_stream_info *info,
                                struct kb_arena *arena);
void kb_tcp_tunnel_trailers_keep(const struct kb_tcp_tunnel *tunnel,
                                 const struct kb_header_map *trailers, struct kb_stream_info *info,
                                 struct kb_arena *arena);

/* Immutable. */
struct kb_tcp_proxy_config {
    KB_OBJ;
    struct kb_arena arena;
    struct kb_server_context *server;
    struct kb_stat_group *stats;
    struct kb_access_log_list *access_log;
    struct kb_tcp_proxy_cluster *clusters;
    size_t cluster_count;
    uint64_t total_weight;
    struct kb_tcp_tunnel *tunnel;    /* NULL: plain TCP */
    uint64_t idle_timeout_ms;        /* 0: none */
    uint64_t max_duration_ms;        /* 0: none */
    uint64_t max_duration_jitter_ms; /* so much longer at most, and less than that */
    uint64_t backoff_ms;             /* between attempts, at first; 0: none is waited */
    uint64_t backoff_max_ms;
    bool hash_source_ip; /* what the load balancer hashes: the client's address, */
    const struct kb_filter_state_key *hash_key; /* or this object; NULL: neither */
    uint32_t max_connect_attempts;
    uint64_t log_interval_ms; /* access_log_flush_interval; 0: none */
    bool log_on_connected;
};
KB_OBJ_MAGIC(kb_tcp_proxy_config, 0x54435043);

/* From a TcpProxy message; KB_ECONFIG after errors were reported. Main thread. */
int kb_tcp_proxy_config_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **config);
/* When no connection uses it any more. */
void kb_tcp_proxy_config_destroy(void *config);

extern const struct kb_network_filter_ops kb_ext_network_tcp_proxy;
