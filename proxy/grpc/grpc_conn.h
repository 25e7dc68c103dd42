/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/2 connections of a worker, shared by its gRPC streams to one host, with what Envoy's
 * connection pool counts. For proxy/grpc/grpc_stream.c only. */
#pragma once

#include "base/list.h"
#include "proxy/api/cluster.h"
#include "proxy/http/h2_client_session.h"

struct kb_grpc_conn;

/* Whoever wants a stream; part of it. */
struct kb_grpc_conn_user {
    struct kb_list link; /* while it waits */
    struct kb_grpc_conn *conn;
    /* A stream may be opened with kb_grpc_conn_open_stream, and shall be, now. */
    void (*on_ready)(struct kb_grpc_conn_user *user);
    /* No connection; `detail` is the transport's reason, or empty. */
    void (*on_failed)(struct kb_grpc_conn_user *user, enum kb_reset_reason reason,
                      struct kb_str detail);
};

/* Waits for a connection to `host` (one is made if there is none with room). Neither callback comes
 * from within. */
void kb_grpc_conn_request(struct kb_cluster_local *local, struct kb_host *host,
                          struct kb_grpc_conn_user *user);
/* Does not want it any more. Harmless when it does not wait. */
void kb_grpc_conn_cancel(struct kb_grpc_conn_user *user);

/* From on_ready. NULL: the request is too large. Counts rq_total, rq_active. */
struct kb_h2_stream *kb_grpc_conn_open_stream(struct kb_grpc_conn *conn,
                                              const struct kb_header_map *headers,
                                              const struct kb_h2_stream_callbacks *callbacks,
                                              void *owner);
/* The stream ended, and how; before kb_h2_stream_close or from its last event. */
void kb_grpc_conn_stream_done(struct kb_grpc_conn *conn);
void kb_grpc_conn_count_reset(struct kb_grpc_conn *conn, enum kb_reset_reason reason);
/* Something was queued to be sent. */
void kb_grpc_conn_wake(struct kb_grpc_conn *conn);

/* The host that the connection goes to; the connection holds it. */
struct kb_host_local *kb_grpc_conn_host_local(struct kb_grpc_conn *conn);

/* Closes every connection of the worker. */
void kb_grpc_conns_close(struct kb_worker *worker);
