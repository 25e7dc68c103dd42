/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of one HTTP stream or TCP connection: for access logs, header formatters and
 * filters. Times are the loop's monotonic nanoseconds, 0 when not reached; wall_start_ns is since
 * 1970. */
#pragma once

#include "base/addr.h"
#include "proxy/api/header_map.h"

struct kb_host;
struct kb_cluster;
struct kb_route;
struct kb_worker;
struct kb_ssl_connection_info;
struct kb_filter_state_item;
struct kb_dynamic_metadata;
struct kb_transport_socket_options;

enum kb_response_flag {
#define X(id, brief, text) KB_RF_##id,
#include "proxy/api/response_flags.def"
#undef X
    KB_RF_COUNT
};

enum kb_protocol { KB_PROTOCOL_NONE, KB_PROTOCOL_HTTP10, KB_PROTOCOL_HTTP11, KB_PROTOCOL_HTTP2 };

/* Facts of a connection, shared by its streams; lives as long as the connection. */
struct kb_connection_info {
    struct kb_addr direct_remote; /* the peer of the socket */
    struct kb_addr remote;        /* after proxy protocol */
    struct kb_addr local;         /* after original destination */
    struct kb_addr direct_local;
    struct kb_str requested_server_name;
    struct kb_str filter_chain_name;
    struct kb_str listener_name;
    struct kb_str listener_metadata;        /* packed envoy.config.core.v3.Metadata; may be empty */
    struct kb_str termination_details;      /* %CONNECTION_TERMINATION_DETAILS% */
    struct kb_str transport_failure_reason; /* %DOWNSTREAM_TRANSPORT_FAILURE_REASON% */
    struct kb_str local_close_reason;
    const struct kb_ssl_connection_info *ssl;     /* ssl_connection_info.h; NULL: plain text */
    struct kb_filter_state_item *filter_state;    /* filter_state.h; NULL: nothing */
    struct kb_dynamic_metadata *dynamic_metadata; /* dynamic_metadata.h; NULL: nothing */
    struct kb_str *proxy_tlvs; /* of that header, which are passed on; in one piece; NULL: none */
    uint64_t id;
    uint64_t start_ns;
    uint32_t flags;    /* 1 << KB_RF_..., for logs of the listener */
    uint32_t requests; /* streams so far */
    uint8_t protocol;  /* enum kb_protocol, for logs of the listener: what was understood on it */
    bool tls;
    bool peer_reset;            /* it ended by the peer's RST */
    bool scheme_match_upstream; /* scheme_header_transformation.match_upstream */
    bool proxy_header;          /* it began with a header of the PROXY protocol */
    bool unnamed_upstream;      /* add_proxy_protocol_connection_state is false */
};

/* Facts of the upstream side; of the last attempt when there were several. */
struct kb_upstream_info {
    const struct kb_host *host;
    const struct kb_cluster *cluster;
    struct kb_addr local;
    struct kb_addr remote;
    const struct kb_ssl_connection_info *ssl; /* a reference of its own; NULL: plain text */
    struct kb_str transport_failure_reason;
    struct kb_str local_close_reason; /* why this side closed the upstream connection */
    uint64_t connection_id;           /* 0: none */
    uint64_t connect_start_ns;        /* of the connection that served; 0: there was none */
    uint64_t connect_end_ns;
    uint64_t handshake_end_ns;         /* TLS */
    uint64_t connection_pool_asked_ns; /* this attempt asked its pool; 0: as the stream's start */
    uint64_t connection_pool_ready_ns;
    uint64_t first_tx_ns;
    uint64_t last_tx_ns;
    uint64_t first_rx_ns; /* response headers */
    uint64_t first_body_rx_ns;
    uint64_t last_rx_ns;
    uint64_t connection_requests; /* streams that connection served */
    uint64_t wire_bytes_sent;
    uint64_t wire_bytes_received;
    uint64_t header_bytes_sent;
    uint64_t header_bytes_received;
    enum kb_protocol protocol;
    struct kb_str hosts_attempted; /* comma separated address texts, in the stream's arena */
    struct kb_filter_state_item *filter_state; /* of the connection; held by the stream */
};

struct kb_stream_info {
    const struct kb_connection_info *connection;
    struct kb_worker *worker;
    uint64_t start_ns;
    uint64_t wall_start_ns;
    uint64_t last_rx_ns;  /* last byte of the request received */
    uint64_t first_tx_ns; /* first byte of the response sent */
    uint64_t last_tx_ns;
    uint64_t end_ns;
    struct kb_addr remote; /* the trusted client address (%DOWNSTREAM_REMOTE_ADDRESS%), after XFF */
    enum kb_protocol protocol;
    uint32_t flags;                  /* 1 << KB_RF_... */
    uint8_t flag_order[KB_RF_COUNT]; /* the flags in the order in which they were set */
    uint8_t flag_count;
    uint16_t response_code;              /* 0: none */
    struct kb_str response_code_details; /* "via_upstream"; p NULL: none */
    uint64_t bytes_received;             /* body */
    uint64_t bytes_sent;
    uint64_t header_bytes_received;
    uint64_t header_bytes_sent;
    uint64_t wire_bytes_received;
    uint64_t wire_bytes_sent;
    uint32_t attempt_count;
    const struct kb_route *route;                 /* NULL: none */
    struct kb_filter_state_item *filter_state;    /* filter_state.h; NULL: nothing */
    struct kb_dynamic_metadata *dynamic_metadata; /* dynamic_metadata.h; NULL: nothing */
    /* What filters want of the upstream connection; lives as long as their configuration, or the
     * stream, or the downstream connection. NULL: nothing. */
    const struct kb_transport_socket_options *transport_options;
    struct kb_str route_name;
    struct kb_str virtual_cluster_name;
    struct kb_str upstream_cluster_name; /* alt_stat_name or name; p NULL */
    struct kb_upstream_info upstream;
    struct kb_str request_id; /* %STREAM_ID% */
    bool abandoned; /* its client resets too many requests before they are answered */
    bool health_check;
    bool internal;                           /* x-envoy-internal: true */
    uint32_t internal_redirects;             /* followed so far */
    struct kb_redirect_seen *redirects_seen; /* of the predicate previous_routes; mostly NULL */
    uint64_t route_resolution_ns; /* time spent in finding the route, all times together */
    uint32_t route_resolutions;   /* how often it was looked for */
};

KB_INLINE void kb_stream_info_set_flag(struct kb_stream_info *info, enum kb_response_flag flag)
{
    if ((info->flags & (UINT32_C(1) << flag)) == 0) {
        info->flags |= UINT32_C(1) << flag;
        info->flag_order[info->flag_count++] = (uint8_t)flag;
    }
}

KB_INLINE bool kb_stream_info_has_flag(const struct kb_stream_info *info,
                                       enum kb_response_flag flag)
{
    return (info->flags & (UINT32_C(1) << flag)) != 0;
}

/* "NR" and "NoRouteFound". */
const char *kb_response_flag_short(enum kb_response_flag flag);
const char *kb_response_flag_long(enum kb_response_flag flag);
/* "HTTP/1.1"; "-"-worthy KB_PROTOCOL_NONE gives "". */
struct kb_str kb_protocol_name(enum kb_protocol protocol);
