/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters and hosts as the data path sees them. struct kb_cluster is immutable; struct
 * kb_cluster_local is one worker's view of it with that worker's hosts, load balancer and counters.
 * Implemented in proxy/upstream/. */
#pragma once

#include "base/addr.h"
#include "base/list.h"
#include "proxy/api/stats.h"
#include "proxy/api/stream_info.h"
#include "proxy/api/transport_socket.h"

enum kb_priority { KB_PRIORITY_DEFAULT, KB_PRIORITY_HIGH, KB_PRIORITY_COUNT };

/* What is spoken on a pool's connections. */
enum kb_pool_kind {
    KB_POOL_HTTP,  /* what the cluster's own options say */
    KB_POOL_HTTP2, /* because the client speaks it, where the cluster leaves that to the client */
    KB_POOL_TCP,   /* bytes as they come: one user a connection */
    KB_POOL_KIND_COUNT
};

/* Which HTTP a cluster's hosts are spoken to in (HttpProtocolOptions.upstream_protocol_options). */
enum kb_cluster_http {
    KB_CLUSTER_HTTP1,
    KB_CLUSTER_HTTP2,
    KB_CLUSTER_HTTP_ALPN,       /* what the host chooses when connecting */
    KB_CLUSTER_HTTP_DOWNSTREAM, /* the client's; HTTP/1 when it has not HTTP/2 */
};

/* Limits of one routing priority (circuit_breakers.thresholds). */
struct kb_circuit_limits {
    uint32_t connections, pending, requests, retries;
    uint32_t host_connections; /* of each host (per_host_thresholds); UINT32_MAX: no limit */
    bool track_remaining;
    bool has_retry_budget;
    double retry_budget_percent; /* 20.0 */
    uint32_t retry_budget_min;   /* 3 */
};

enum kb_circuit_resource {
    KB_RESOURCE_CONNECTIONS,
    KB_RESOURCE_PENDING,
    KB_RESOURCE_REQUESTS,
    KB_RESOURCE_RETRIES,
    KB_RESOURCE_COUNT
};

/* What a control plane of Istio says of the cluster in filter_metadata["istio"]. */
struct kb_cluster_istio {
    uint64_t serial;            /* of the cluster object: never that of another one */
    struct kb_str service_host; /* services[0]; p NULL: not said */
    struct kb_str service_name;
    struct kb_str service_namespace;
    bool has_service;
    bool external;   /* outside of the mesh */
    bool disable_mx; /* its hosts are not told who we are */
    bool keeps_alpn; /* istio.alpn leaves it alone */
};

/* One of transport_socket_matches. */
struct kb_socket_match {
    struct kb_transport_socket_factory socket;
    struct kb_str labels; /* packed google.protobuf.Struct */
    struct kb_stat_named *count;
};
struct kb_upstream_filter_chain;
struct kb_cluster_policies;

struct kb_cluster {
    KB_OBJ;
    struct kb_str name;
    struct kb_str observability_name; /* alt_stat_name or name */
    struct kb_str metadata; /* packed envoy.config.core.v3.Metadata; empty when there is none */
    struct kb_cluster_istio istio;
    struct kb_upstream_filter_chain *filters;   /* of TCP connections; NULL: none */
    const struct kb_cluster_policies *policies; /* cluster_policies.h; NULL: nothing */
    struct kb_stat_group *stats;
    struct kb_stat_group *http1_stats;  /* "cluster.x.http1."; main makes it, for all to see, at the
                                           first connection: no one counts in it */
    struct kb_stat_group *size_stats;   /* track_cluster_stats; NULL: not tracked */
    struct kb_stat_group *budget_stats; /* likewise */
    struct kb_stat_group *http2_stats;  /* "cluster.x.http2.", likewise; NULL: http2 is not enabled,
                                           and no check speaks it */
    uint64_t connect_timeout_ms;
    uint64_t idle_timeout_ms;            /* of pooled connections; 0: none */
    uint64_t max_connection_duration_ms; /* 0: none */
    uint32_t per_connection_buffer_limit_bytes;
    uint32_t max_requests_per_connection; /* 0: none */
    uint32_t max_response_headers_bytes;  /* 80 KiB */
    uint32_t max_response_headers_count;  /* 100 */
    uint64_t max_stream_duration_ms;      /* of one attempt; 0: none */
    const struct kb_addr *bind_sources;   /* upstream_bind_config; kb_cluster_bind_source */
    uint32_t bind_source_count;           /* 0: none */
    struct kb_transport_socket_factory transport_socket; /* see kb_host_transport_socket */
    struct kb_socket_match *socket_matches;
    uint32_t socket_match_count;
    struct {
        uint32_t probes, time_s, interval_s;
        bool set;
    } keepalive;
    struct kb_circuit_limits limits[KB_PRIORITY_COUNT];
    struct {
        bool enable_trailers;
        bool proper_case_words; /* header_key_format */
        bool preserve_case;     /* as in struct kb_h1_settings */
        bool proper_case_otherwise;
        bool forward_reason_phrase;
        bool override_stream_error;
        bool allow_chunked_length;
        bool send_fully_qualified_url;
    } http1;
    enum kb_cluster_http http_protocol;
    struct { /* Http2ProtocolOptions; zeros: Envoy's defaults */
        bool enabled;
        uint32_t hpack_table_bytes;
        uint32_t max_concurrent_streams;
        uint32_t stream_window_bytes;
        bool stream_window_grows; /* it was not configured, so that it may */
        uint32_t connection_window_bytes;
        uint32_t keepalive_jitter_percent;
        uint64_t keepalive_interval_ms; /* 0: no PINGs */
        uint64_t keepalive_timeout_ms;
        uint64_t keepalive_idle_ms; /* PING before a request when nothing came for so long; 0: no */
        uint32_t max_response_headers_bytes; /* 60 KiB */
        uint32_t max_outbound_control_frames;
        uint32_t max_empty_frames, max_priority_frames, max_window_updates;
        struct kb_h2_setting *custom_settings; /* its own; NULL: none */
        size_t custom_settings_count;
        uint64_t max_metadata_bytes;
        bool allow_metadata;
        bool allow_connect;
        bool override_stream_error;
    } http2;
    bool auto_host_rewrite_capable; /* strict or logical DNS: hosts have names */
    bool auto_sni;                  /* the request's host is the server name of TLS */
    bool auto_san_validation;       /* and has to stand in the peer's certificate */
    bool pool_per_downstream_connection;
    bool names_client; /* some of its hosts are told of the client: pools are of one each */
    struct kb_str auto_sni_header; /* which says the name in place of the host; empty: none */
    bool added_via_api;
    bool health_checked; /* actively: new hosts have failed until they pass */
    bool ignore_new_hosts_until_first_hc;
    bool ignore_health_on_host_removal;
    bool close_connections_on_host_health_failure; /* of tcp_proxy */
};
KB_OBJ_MAGIC(kb_cluster, 0x434c5553);

/* Whether requests of a client that speaks `downstream` go to the cluster's hosts over HTTP/2, or
 * may.
 */
KB_INLINE bool kb_cluster_speaks_http2(const struct kb_cluster *cluster,
                                       enum kb_protocol downstream)
{
    switch (cluster->http_protocol) {
    case KB_CLUSTER_HTTP2:
    case KB_CLUSTER_HTTP_ALPN:
        return true;
    case KB_CLUSTER_HTTP_DOWNSTREAM:
        return downstream == KB_PROTOCOL_HTTP2;
    case KB_CLUSTER_HTTP1:
    default:
        return false;
    }
}

/* Where connections to `to` come from: the first address of its family, or the first of all; NULL:
 * anywhere. */
KB_INLINE const struct kb_addr *kb_cluster_bind_source(const struct kb_cluster *cluster,
                                                       const struct kb_addr *to)
{
    for (uint32_t i = 0; i < cluster->bind_source_count; i++) {
        if (cluster->bind_sources[i].sa.sa_family == to->sa.sa_family) {
            return &cluster->bind_sources[i];
        }
    }
    return cluster->bind_source_count == 0 || !kb_addr_is_ip(to) ? NULL : cluster->bind_sources;
}

enum { /* health flags, as /clusters shows them */
       KB_HOST_FAILED_ACTIVE_HC = 1,
       KB_HOST_FAILED_OUTLIER = 2,
       KB_HOST_FAILED_EDS = 4,
       KB_HOST_DEGRADED_EDS = 8,
       KB_HOST_DRAINING_EDS = 16, /* also left out of the host count that health is a share of */
       KB_HOST_DEGRADED_ACTIVE_HC = 32,
       KB_HOST_EXCLUDED_IMMEDIATE_HC = 64, /* left out likewise */
       KB_HOST_ACTIVE_HC_TIMEOUT = 128,    /* why it failed */
       KB_HOST_PENDING_ACTIVE_HC = 256,    /* never checked yet, and left out likewise until then */
       KB_HOST_PENDING_REMOVAL = 512,      /* discovery names it no more: gone once it fails */
};
/* Those that active health checks set. */
#define KB_HOST_ACTIVE_HC_FLAGS                                                              \
    (KB_HOST_FAILED_ACTIVE_HC | KB_HOST_DEGRADED_ACTIVE_HC | KB_HOST_EXCLUDED_IMMEDIATE_HC | \
     KB_HOST_ACTIVE_HC_TIMEOUT | KB_HOST_PENDING_ACTIVE_HC)
#define KB_HOST_UNHEALTHY \
    (KB_HOST_FAILED_ACTIVE_HC | KB_HOST_FAILED_OUTLIER | KB_HOST_FAILED_EDS | KB_HOST_DRAINING_EDS)
#define KB_HOST_DEGRADED (KB_HOST_DEGRADED_EDS | KB_HOST_DEGRADED_ACTIVE_HC)

enum kb_host_stat { /* per host, /clusters order of the text page */
                    KB_HOST_CX_ACTIVE,
                    KB_HOST_CX_CONNECT_FAIL,
                    KB_HOST_CX_TOTAL,
                    KB_HOST_RQ_ACTIVE,
                    KB_HOST_RQ_ERROR,
                    KB_HOST_RQ_PENDING_ACTIVE,
                    KB_HOST_RQ_SUCCESS,
                    KB_HOST_RQ_TIMEOUT,
                    KB_HOST_RQ_TOTAL,
                    KB_HOST_STAT_COUNT
};

/* Whose errors: the host's own answers, or what happened on this side of the connection. */
enum kb_outlier_origin { KB_OUTLIER_EXTERNAL, KB_OUTLIER_LOCAL, KB_OUTLIER_ORIGIN_COUNT };

/* What outlier detection hears of (Envoy Outlier::Result). */
enum kb_outlier_result {
    KB_OUTLIER_REQUEST_FAILED, /* the host answered, with an error */
    KB_OUTLIER_REQUEST_SUCCESS,
    KB_OUTLIER_CONNECT_SUCCESS,       /* more is to come on the connection */
    KB_OUTLIER_CONNECT_SUCCESS_FINAL, /* that was all that was wanted */
    KB_OUTLIER_CONNECT_FAILED,
    KB_OUTLIER_TIMEOUT
};

/* What one worker keeps for one host; made at first use, on that worker, and freed with the host. A
 * pool in it holds a reference to the host and must be gone (NULL) when it lets go of that. */
struct kb_host_local {
    uint64_t stats[KB_HOST_STAT_COUNT];
    void *pools[KB_POOL_KIND_COUNT][KB_PRIORITY_COUNT]; /* proxy/upstream/conn_pool.c */
    struct kb_host *host;
    /* Results for outlier detection, wrapping around; read by main (relaxed). */
    uint32_t outlier_total[KB_OUTLIER_ORIGIN_COUNT];
    uint32_t outlier_success[KB_OUTLIER_ORIGIN_COUNT];
    uint32_t refs; /* kb_host_local_ref; while not 0 it holds one reference to the host */
    bool removed;  /* the host left this worker's view */
};

/* Text that several hosts share; proxy/upstream/host.c. */
struct kb_shared_text {
    uint32_t refs; /* atomic */
    uint32_t len;
    char text[];
};

/* Where hosts are, shared by those that are there. */
struct kb_locality {
    uint32_t refs; /* atomic */
    uint32_t zone_variant;
    struct kb_str region, zone, sub_zone;
};

/* How a host is checked when that differs from how it is used (Endpoint.HealthCheckConfig). */
struct kb_host_check {
    struct kb_addr addr;    /* len 0: the host's own */
    uint16_t port;          /* in place of that of the address; 0: its own */
    bool disabled;          /* it is not checked */
    struct kb_str hostname; /* of requests; empty: as the check says */
};

/* What the main thread may change while workers read is marked "changing": relaxed atomics. The
 * rest stays as it was made. */
struct kb_host {
    KB_OBJ;
    uint32_t refs; /* atomic: host sets of main, plus one per worker view that holds it */
    const struct kb_cluster *cluster;
    struct kb_locality *locality;    /* never NULL */
    struct kb_shared_text *metadata; /* changing; kb_host_metadata */
    struct kb_outlier_host *outlier; /* NULL: not watched for outliers */
    struct kb_host_check *check;     /* NULL: checked as it is used */
    struct kb_health_host *health;   /* of the main thread; NULL: not checked */
    uint32_t zone_variant;           /* kb_stat_zone_key of the node's zone and this one; 0: one
                                        of them is unknown */
    uint32_t weight;                 /* changing */
    uint32_t health_flags;           /* changing */
    uint16_t local_count;
    uint16_t socket;  /* changing: which transport socket of the cluster; 0: the cluster's own */
    uint8_t priority; /* changing */
    bool canary;      /* changing */
    bool watched;     /* for outliers, or by active checks: its answers are looked at */
    /* Behind the locals: the address, and its two texts. */
    uint8_t addr_len, addr_text_len;
    uint32_t hostname_len;
    /* changing; the low bits of when it was first seen healthy, where hosts start slowly; 0: not
     * yet, 1: long ago */
    uint32_t healthy_since_ms;
    struct kb_host_local *locals[]; /* by worker index, the last is the main thread's */
};
KB_OBJ_MAGIC(kb_host, 0x484f5354);

struct kb_cluster_local;
struct kb_conn;
struct kb_host_local;

/* What is the same for every connection to a host that is begun: its bytes count in `stats` from
 * now on, and it counts there, at the host and among those that the cluster may have. On the
 * connection's worker. */
void kb_cluster_connecting(struct kb_cluster_local *local, enum kb_priority priority,
                           struct kb_host_local *host, struct kb_conn *conn,
                           struct kb_stat_block *stats);
/* What is the same for every connection to a host that stands now: the time that connecting took is
 * recorded in `stats`, TCP keep-alive is set where the cluster wants it, and `duration_timer` is
 * armed when the cluster has a max_connection_duration. On the connection's worker. */
void kb_cluster_connected(const struct kb_cluster *cluster, const struct kb_host *host,
                          struct kb_conn *conn, struct kb_stat_block *stats, uint64_t connect_ns,
                          struct kb_timer *duration_timer);
/* What is counted in `stats` of every one that ends: by whom, with requests under way or without,
 * after how long, and how many requests it had. */
void kb_cluster_disconnected(struct kb_stat_block *stats, bool by_peer, bool active,
                             uint64_t length_ns, uint64_t requests);

/* Where it is reached. */
struct kb_addr kb_host_addr(const struct kb_host *host);

/* "127.0.0.1:80" */
KB_INLINE struct kb_str kb_host_addr_text(const struct kb_host *host)
{
    return kb_str_make((const char *)&host->locals[host->local_count] + host->addr_len,
                       host->addr_text_len);
}

/* The endpoint's hostname or its DNS name; may be empty. */
KB_INLINE struct kb_str kb_host_hostname(const struct kb_host *host)
{
    return kb_str_make((const char *)&host->locals[host->local_count] + host->addr_len +
                           host->addr_text_len,
                       host->hostname_len);
}

/* Packed envoy.config.core.v3.Metadata; empty when there is none. Borrowed until the present event
 * ends. */
KB_INLINE struct kb_str kb_host_metadata(const struct kb_host *host)
{
    const struct kb_shared_text *text = __atomic_load_n(&host->metadata, __ATOMIC_ACQUIRE);

    return text == NULL ? KB_STR("") : kb_str_make(text->text, text->len);
}

KB_INLINE uint32_t kb_host_weight(const struct kb_host *host)
{
    return __atomic_load_n(&host->weight, __ATOMIC_RELAXED);
}

/* How this host is spoken to. */
KB_INLINE const struct kb_transport_socket_factory *
kb_host_transport_socket(const struct kb_host *host)
{
    uint16_t socket = __atomic_load_n(&host->socket, __ATOMIC_RELAXED);

    return socket == 0 ? &host->cluster->transport_socket
                       : &host->cluster->socket_matches[socket - 1].socket;
}

struct kb_cluster_manager;
struct kb_lb; /* a worker's load balancer of one cluster */

struct kb_overload_state;

struct kb_cluster_local {
    KB_OBJ;
    const struct kb_cluster *cluster;
    struct kb_worker *worker;
    struct kb_stat_block *stats;
    const struct kb_overload_state *overload; /* of the server */
    struct kb_lb *lb;
    /* This worker's share of each resource; other workers read it (relaxed). */
    uint32_t used[KB_PRIORITY_COUNT][KB_RESOURCE_COUNT];
    uint32_t pools[KB_PRIORITY_COUNT]; /* likewise; for remaining_cx_pools */
    uint32_t streams;                  /* streams and connections that hold this view */
    uint32_t drop_overload_ppm; /* of requests the control plane wants refused (drop_overloads) */
    bool removed;
};
KB_OBJ_MAGIC(kb_cluster_local, 0x434c4f43);

/* What a load balancer may look at. */
struct kb_retry_priorities;
struct kb_metadata_criteria;

struct kb_lb_request {
    const struct kb_header_map *headers; /* NULL for TCP */
    struct kb_stream_info *info;
    /* For consistent load balancers: the request's hash, false when it has none. NULL: it has
     * none. */
    bool (*hash)(void *arg, uint64_t *hash);
    void *hash_arg;
    /* Retries: true when this host shall not be taken (previous_hosts...); asked up to max_attempts
     * times (Envoy's host_selection_retry_max_attempts + 1), then the last pick is taken all the
     * same. NULL: take any. */
    bool (*reject_host)(void *arg, const struct kb_host *host);
    void *reject_arg;
    uint32_t max_attempts;
    /* Retries: which priorities are left; see proxy/upstream/retry_priorities.h. NULL: all. */
    struct kb_retry_priorities *priorities;
    const struct kb_metadata_criteria *metadata; /* what hosts' metadata shall be; NULL: anything */
};

/* This worker's view of the cluster of that name, or NULL. On the worker. Hold it across events
 * only with kb_cluster_local_ref. */
struct kb_cluster_local *kb_cluster_local_find(struct kb_worker *worker, struct kb_str name);
/* The same through a place that remembers the answer: for routes, which look up the same name per
 * request. `slot` is a cluster slot number of kb_cluster_slot. */
struct kb_cluster_local *kb_cluster_local_get(struct kb_worker *worker, uint32_t slot);
/* How many hosts a cluster has, as this worker knows them. */
struct kb_cluster_membership {
    uint32_t total, healthy, degraded;
};
/* False: there is no cluster in this slot. On the worker. */
bool kb_cluster_membership(struct kb_worker *worker, uint32_t slot,
                           struct kb_cluster_membership *out);
/* The number that stands for this cluster name, whether or not the cluster exists; until
 * kb_cluster_slot_release was called as often. Main thread. */
uint32_t kb_cluster_slot(struct kb_cluster_manager *manager, struct kb_str name);
/* The number is used no more: no worker may look it up. NULL manager: nothing to do. Main thread.
 */
void kb_cluster_slot_release(struct kb_cluster_manager *manager, uint32_t number);
/* Whether a cluster of that name is configured, warm or not. Main thread. */
bool kb_cluster_manager_has(const struct kb_cluster_manager *manager, struct kb_str name);

KB_INLINE void kb_cluster_local_ref(struct kb_cluster_local *local)
{
    local->streams++;
}
/* On its worker. A removed view may be gone afterwards. */
void kb_cluster_local_unref(struct kb_cluster_local *local);

/* The next host, or NULL when there is none that may be used. Borrowed until the view changes
 * (between events); ref it to keep it. */
struct kb_host *kb_cluster_local_choose_host(struct kb_cluster_local *local,
                                             const struct kb_lb_request *request);

/* Atomic; any thread. What is done per request takes kb_host_local_ref. */
struct kb_host *kb_host_ref(struct kb_host *host);
void kb_host_unref(struct kb_host *host);
/* This worker's part of the host, made at first use. */
struct kb_host_local *kb_host_local_get(struct kb_host *host, uint32_t worker_index);

/* Keeps host and local without an atomic operation in most cases: counts on this worker. */
KB_INLINE void kb_host_local_ref(struct kb_host_local *local)
{
    if (local->refs++ == 0) {
        kb_host_ref(local->host);
    }
}
/* The host, and local with it, may be gone afterwards. */
KB_INLINE void kb_host_local_unref(struct kb_host_local *local)
{
    KB_DASSERT(local->refs > 0);
    if (--local->refs == 0) {
        kb_host_unref(local->host);
    }
}

/* Called on a worker when a host leaves its view and the worker has a local for it: close idle
 * connections, let busy ones finish. One function for the process, set by the pools before workers
 * start. */
typedef void (*kb_host_removed_cb)(struct kb_worker *worker, struct kb_host_local *local);
void kb_host_set_removed_cb(kb_host_removed_cb cb);
/* Likewise when a host was ejected or failed: idle connections are closed, busy ones finish and are
 * not used again. */
void kb_host_set_failed_cb(kb_host_removed_cb cb);

KB_INLINE void kb_host_stat_add(struct kb_host_local *local, enum kb_host_stat stat, int64_t n)
{
    __atomic_store_n(&local->stats[stat], local->stats[stat] + (uint64_t)n, __ATOMIC_RELAXED);
}

/* For a watched host; see below. */
void kb_outlier_put_result(struct kb_host_local *local, enum kb_outlier_result result,
                           unsigned code);

/* A request, or a connection, of this worker ended like this; `code` is the HTTP status that goes
 * with it, 0: none. */
KB_INLINE void kb_host_put_result(struct kb_host_local *local, enum kb_outlier_result result,
                                  unsigned code)
{
    if (KB_UNLIKELY(local->host->outlier != NULL)) {
        kb_outlier_put_result(local, result, code);
    }
}

/* An answer of the host says that it is unhealthy (x-envoy-immediate-health-check-fail): it is left
 * out at once, where it is checked actively, until a check succeeds. On any worker. */
void kb_host_told_unhealthy(struct kb_host *host);

/* The host answered with this HTTP status. */
KB_INLINE void kb_host_put_code(struct kb_host_local *local, unsigned code)
{
    kb_host_put_result(local, code >= 500 ? KB_OUTLIER_REQUEST_FAILED : KB_OUTLIER_REQUEST_SUCCESS,
                       code);
}

/* True, and counted, when one more of this resource may be used; false at the limit of all workers
 * together. */
bool kb_resource_take(struct kb_cluster_local *local, enum kb_priority priority,
                      enum kb_circuit_resource resource);
/* As take, but beyond the limit too (a host's first connection). */
void kb_resource_force(struct kb_cluster_local *local, enum kb_priority priority,
                       enum kb_circuit_resource resource);
void kb_resource_give(struct kb_cluster_local *local, enum kb_priority priority,
                      enum kb_circuit_resource resource);
/* A host's pool was made (1) or is gone (-1): for circuit_breakers.*.cx_pool_open and
 * remaining_cx_pools. */
void kb_resource_count_pool(struct kb_cluster_local *local, enum kb_priority priority, int n);
/* True when one more may be taken. */
bool kb_resource_can(struct kb_cluster_local *local, enum kb_priority priority,
                     enum kb_circuit_resource resource);
