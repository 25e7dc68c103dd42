/* SPDX-License-Identifier: Apache-2.0 */
/* A connection of gRPC streams, between grpc_conn.c (the connection) and grpc_pool.c (its users).
 */
#pragma once

#include "proxy/grpc/grpc_conn.h"

struct kb_grpc_conn {
    KB_OBJ;
    struct kb_list link; /* of the worker */
    struct kb_worker *worker;
    struct kb_cluster_local *local;   /* holds a reference */
    struct kb_host_local *host_local; /* holds a reference */
    struct kb_conn *conn;             /* NULL: closed */
    struct kb_h2_session *session;    /* NULL: closed */
    struct kb_list waiting;
    struct kb_timer idle_timer;
    struct kb_timer duration_timer;
    struct kb_timer ping_timer; /* the next PING, or the end of waiting for its answer */
    struct kb_deferred work;
    struct kb_deferred destroy;
    uint64_t start_ns;
    uint64_t requests;
    uint32_t active;
    size_t out_limit;
    enum kb_reset_reason close_reason; /* what streams hear when the connection goes */
    bool connected;
    bool draining; /* takes no more streams */
    bool ping_waits;
};
KB_OBJ_MAGIC(kb_grpc_conn, 0x4743304e);

KB_INLINE struct kb_loop *kb_grpc_conn_loop(struct kb_grpc_conn *conn)
{
    return &conn->worker->loop;
}

KB_INLINE struct kb_stat_block *kb_grpc_conn_stats(struct kb_grpc_conn *conn)
{
    return conn->local->stats;
}

KB_INLINE const struct kb_cluster *kb_grpc_conn_cluster(const struct kb_grpc_conn *conn)
{
    return conn->local->cluster;
}

/* ---- grpc_conn.c ---- */

/* Begins to connect; it is in kb_grpc_conns from now on. Frees itself when it has closed. */
struct kb_grpc_conn *kb_grpc_conn_create(struct kb_cluster_local *local, struct kb_host *host);
/* Ends the connection; its streams hear `reason`. */
void kb_grpc_conn_close(struct kb_grpc_conn *conn, enum kb_reset_reason reason,
                        enum kb_conn_close how);

/* ---- grpc_pool.c ---- */

/* Those of the worker that are not closed. */
struct kb_list *kb_grpc_conns(struct kb_worker *worker);
/* Gives waiting users their streams, as many as there is room for; those whose connection drains
 * fail. Not from within the session. */
void kb_grpc_waiting_start(struct kb_grpc_conn *conn);
/* Nobody who waits gets a stream here. */
void kb_grpc_waiting_fail(struct kb_grpc_conn *conn, enum kb_reset_reason reason,
                          struct kb_str detail);
