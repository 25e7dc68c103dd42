/* SPDX-License-Identifier: Apache-2.0 */
/* What a factory gets when it builds an object from configuration: the process-wide rooms, by
 * pointer. Main thread. */
#pragma once

#include "base/arena.h"
#include "base/diag.h"
#include "base/worker.h"
#include "proxy/api/overload.h"

struct kb_stat_store;
struct kb_cluster_manager;
struct kb_runtime;
struct kb_secret_manager;
struct kb_listener;
struct kb_init_manager;
struct Google__Protobuf__Struct;
struct Envoy__Config__Core__V3__Node;
struct kb_file_watcher;
struct kb_xds_glue;
struct kb_rds;
struct kb_drain_state;

/* The process as rooms see it; owned by proxy/server, lives until exit. */
struct kb_server_context {
    struct kb_worker *main; /* the main thread's worker */
    struct kb_worker *workers;
    uint32_t worker_count;
    struct kb_stat_store *stats;
    struct kb_cluster_manager *clusters;
    struct kb_runtime *runtime;
    struct kb_xds_glue *xds; /* behind proxy/api/subscription.h; NULL in tools and tests without */
    struct kb_file_watcher *files; /* base/file_watch.h; NULL likewise */
    struct kb_init_manager *init;  /* what has to be there before the workers start: listeners made
                                      before that add themselves */
    struct kb_rds *rds;            /* route tables that are subscribed to; NULL: there are none */
    struct kb_secret_manager *secrets;                /* secret.h */
    const struct Envoy__Config__Core__V3__Node *node; /* as services get it; NULL in tools, tests */
    struct kb_str node_id;
    struct kb_str node_cluster;
    const struct Google__Protobuf__Struct *node_metadata; /* NULL: none */
    struct kb_str node_zone;                              /* locality.zone, may be empty */
    struct kb_str node_region;
    struct kb_str node_sub_zone;
    uint64_t file_flush_interval_ms;
    uint64_t file_flush_min_bytes;
    uint64_t drain_time_s;
    bool drain_immediate;     /* --drain-strategy immediate */
    bool health_check_failed; /* /healthcheck/fail; written by main, read by workers (relaxed) */
    bool draining;            /* the whole server drains; likewise */
    bool draining_inbound;    /* listeners with traffic_direction INBOUND drain; likewise. See
                                 proxy/api/drain.h */
    uint64_t
        drain_deadline_ms; /* when the drain time is over, kb_loop_now_ms; valid while draining */
    uint64_t drain_inbound_deadline_ms; /* likewise for draining_inbound */
    uint32_t filter_chains_draining;    /* how many; likewise */
    struct kb_overload_state overload;
    bool validate_only;
};

struct kb_factory_context {
    struct kb_server_context *server;
    struct kb_arena *arena;       /* lives as long as the object being built */
    struct kb_init_manager *init; /* of the listener or cluster being built: what has to be fetched
                                     adds a target; NULL: nobody waits */
    const char *stat_prefix; /* of the enclosing listener: "listener.127.0.0.1_80."; for transport
                                sockets of clusters: "cluster.x."; else NULL */
    struct kb_str http_stat_prefix; /* of the connection manager being built: "http.ingress."; empty
                                       outside of one */
    struct kb_str listener_name;
    const struct kb_drain_state *drain; /* of the filter chain being built; NULL: never drains */
    bool inbound;                       /* the listener's traffic_direction is INBOUND */
    bool outbound;                      /* it is OUTBOUND */
    bool drain_modify_only;             /* its drain_type is MODIFY_ONLY */
    bool bypass_overload;               /* its bypass_overload_manager */
};
