/* SPDX-License-Identifier: Apache-2.0 */
/* One HTTP/2 connection to a host of a cluster: connecting, keepalive, draining after a GOAWAY, and
 * its end. nghttp2 is never asked to do something about a connection from within its own callbacks:
 * such work is deferred. */
#include "proxy/grpc/grpc_conn_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/api/connection.h"

#define OUT_BYTES_DEFAULT (1024u * 1024)

static const struct kb_conn_callbacks conn_callbacks;
static const struct kb_h2_session_callbacks session_callbacks;

/* ---- sending ---- */

void kb_grpc_conn_close(struct kb_grpc_conn *conn, enum kb_reset_reason reason,
                        enum kb_conn_close how)
{
    conn->close_reason = reason;
    if (conn->conn != NULL) {
        kb_conn_close(conn->conn, how);
    }
}

static void protocol_failed(struct kb_grpc_conn *conn, int error)
{
    KB_LOG(GRPC, DEBUG, "[C%llu] HTTP/2 with cluster '%.*s' failed: %s",
           (unsigned long long)conn->conn->info.id, KB_STR_ARG(kb_grpc_conn_cluster(conn)->name),
           kb_err_text(error));
    kb_stat_inc(kb_grpc_conn_stats(conn), KB_STAT_CLUSTER_UPSTREAM_CX_PROTOCOL_ERROR);
    kb_conn_written(conn->conn);
    /* Streams end by the reset, not by the connection. */
    kb_h2_session_destroy(conn->session, KB_RESET_PROTOCOL_ERROR);
    conn->session = NULL;
    kb_grpc_conn_close(conn, KB_RESET_PROTOCOL_ERROR, KB_CONN_FLUSH_WRITE);
}

static bool flush(struct kb_grpc_conn *conn)
{
    int rc;

    if (!conn->connected || conn->session == NULL) {
        return false;
    }
    rc = kb_h2_session_send(conn->session, &conn->conn->out, conn->out_limit);
    if (rc != 0) {
        protocol_failed(conn, rc);
        return false;
    }
    if (conn->conn->out.len > 0) {
        kb_conn_written(conn->conn);
    }
    return true;
}

void kb_grpc_conn_wake(struct kb_grpc_conn *conn)
{
    kb_loop_defer(kb_grpc_conn_loop(conn), &conn->work);
}

static void drain_check(struct kb_grpc_conn *conn)
{
    if (conn->draining && conn->active == 0 && kb_list_empty(&conn->waiting) &&
        conn->conn != NULL) {
        kb_grpc_conn_close(conn, KB_RESET_CONNECTION_TERMINATION, KB_CONN_FLUSH_WRITE);
    }
}

/* What callbacks of the session left to do. */
static void work_deferred(struct kb_deferred *deferred)
{
    struct kb_grpc_conn *conn = KB_CONTAINER_OF(deferred, struct kb_grpc_conn, work);

    KB_ASSERT(conn->kb_magic == (uint32_t)KB_MAGIC_kb_grpc_conn);
    if (conn->session == NULL) {
        return;
    }
    kb_grpc_waiting_start(conn);
    if (flush(conn)) {
        drain_check(conn);
    }
}

/* ---- lifecycle ---- */

static void conn_destroy(struct kb_deferred *deferred)
{
    struct kb_grpc_conn *conn = KB_CONTAINER_OF(deferred, struct kb_grpc_conn, destroy);
    struct kb_host_local *host_local = conn->host_local;
    struct kb_cluster_local *local = conn->local;

    KB_ASSERT(conn->kb_magic == (uint32_t)KB_MAGIC_kb_grpc_conn);
    kb_deferred_cancel(&conn->work);
    KB_OBJ_CLEAR(conn);
    free(conn);
    kb_host_local_unref(host_local);
    kb_cluster_local_unref(local);
}

static void idle_fired(struct kb_timer *timer)
{
    struct kb_grpc_conn *conn = KB_CONTAINER_OF(timer, struct kb_grpc_conn, idle_timer);

    if (conn->active == 0 && kb_list_empty(&conn->waiting)) {
        kb_stat_inc(kb_grpc_conn_stats(conn), KB_STAT_CLUSTER_UPSTREAM_CX_IDLE_TIMEOUT);
        kb_grpc_conn_close(conn, KB_RESET_CONNECTION_TERMINATION, KB_CONN_NO_FLUSH);
    }
}

static void duration_fired(struct kb_timer *timer)
{
    struct kb_grpc_conn *conn = KB_CONTAINER_OF(timer, struct kb_grpc_conn, duration_timer);

    kb_stat_inc(kb_grpc_conn_stats(conn), KB_STAT_CLUSTER_UPSTREAM_CX_MAX_DURATION_REACHED);
    conn->draining = true;
    kb_grpc_conn_wake(conn);
}

/* Envoy's connection_keepalive: a PING each interval, and the connection goes when its answer stays
 * out for the timeout. */
static void ping_arm(struct kb_grpc_conn *conn)
{
    const struct kb_cluster *cluster = kb_grpc_conn_cluster(conn);
    uint64_t interval = cluster->http2.keepalive_interval_ms;
    uint64_t jitter = interval * cluster->http2.keepalive_jitter_percent / 100;

    if (interval == 0) {
        return;
    }
    if (jitter > 0) {
        interval += kb_rand_u64(&conn->worker->rand) % jitter;
    }
    conn->ping_waits = false;
    kb_loop_timer_arm(kb_grpc_conn_loop(conn), &conn->ping_timer, interval);
}

static void ping_fired(struct kb_timer *timer)
{
    struct kb_grpc_conn *conn = KB_CONTAINER_OF(timer, struct kb_grpc_conn, ping_timer);
    const struct kb_cluster *cluster = kb_grpc_conn_cluster(conn);

    if (conn->session == NULL) {
        return;
    }
    if (conn->ping_waits) {
        kb_stat_inc(kb_stat_group_block(cluster->http2_stats, conn->worker->index),
                    KB_STAT_HTTP2_KEEPALIVE_TIMEOUT);
        kb_grpc_conn_close(conn, KB_RESET_CONNECTION_TERMINATION, KB_CONN_NO_FLUSH);
        return;
    }
    conn->ping_waits = true;
    kb_h2_session_ping(conn->session);
    kb_loop_timer_arm(kb_grpc_conn_loop(conn), &conn->ping_timer,
                      cluster->http2.keepalive_timeout_ms);
    kb_grpc_conn_wake(conn);
}

static void session_start(struct kb_grpc_conn *conn)
{
    const struct kb_cluster *cluster = kb_grpc_conn_cluster(conn);
    const struct kb_h2_settings settings = {
        .hpack_table_bytes = cluster->http2.hpack_table_bytes,
        .max_concurrent_streams = cluster->http2.max_concurrent_streams,
        .stream_window_bytes = cluster->http2.stream_window_bytes,
        .connection_window_bytes = cluster->http2.connection_window_bytes,
        .max_header_bytes = cluster->max_response_headers_bytes,
        .max_header_count = cluster->max_response_headers_count,
    };

    conn->session = kb_h2_session_create(
        &settings, &session_callbacks, conn, &conn->worker->slices, kb_h2_mem_of(conn->worker),
        kb_stat_group_block(cluster->http2_stats, conn->worker->index));
}

/* Envoy offers "h2" where the configuration offers nothing. */
static void transport_start(struct kb_grpc_conn *conn)
{
    const struct kb_transport_socket_factory *factory =
        kb_host_transport_socket(conn->host_local->host);
    const struct kb_str h2 = KB_STR("h2");
    const struct kb_transport_socket_options options = {.alpn = &h2, .alpn_count = 1};
    size_t count = 0;

    if (factory->ops != NULL && factory->ops->alpn != NULL) {
        (void)factory->ops->alpn(factory->config, &count);
    }
    kb_transport_socket_factory_create(factory, conn->conn, count > 0 ? NULL : &options);
}

static void connect_start(struct kb_grpc_conn *conn)
{
    const struct kb_cluster *cluster = kb_grpc_conn_cluster(conn);
    struct kb_addr addr = kb_host_addr(conn->host_local->host);
    const struct kb_addr *source = kb_cluster_bind_source(cluster, &addr);
    struct kb_conn *io;

    io = kb_conn_create_connecting(conn->worker, &addr, source, cluster->connect_timeout_ms,
                                   conn->out_limit);
    conn->conn = io;
    kb_conn_set_owner(io, &conn_callbacks, conn);
    transport_start(conn);
    kb_cluster_connecting(conn->local, KB_PRIORITY_DEFAULT, conn->host_local, io,
                          kb_grpc_conn_stats(conn));
    kb_stat_inc(io->stat_block, KB_STAT_CLUSTER_UPSTREAM_CX_HTTP2_TOTAL);
}

struct kb_grpc_conn *kb_grpc_conn_create(struct kb_cluster_local *local, struct kb_host *host)
{
    struct kb_grpc_conn *conn = kb_calloc(1, sizeof(*conn));
    struct kb_worker *worker = local->worker;
    uint32_t limit = local->cluster->per_connection_buffer_limit_bytes;

    KB_OBJ_SET(conn, kb_grpc_conn);
    conn->worker = worker;
    conn->local = local;
    conn->host_local = kb_host_local_get(host, worker->index);
    conn->start_ns = kb_loop_now_ns(&worker->loop);
    conn->out_limit = limit > 0 ? limit : OUT_BYTES_DEFAULT;
    conn->close_reason = KB_RESET_CONNECTION_TERMINATION;
    kb_cluster_local_ref(local);
    kb_host_local_ref(conn->host_local);
    kb_list_init(&conn->waiting);
    kb_timer_init(&conn->idle_timer, idle_fired);
    kb_timer_init(&conn->duration_timer, duration_fired);
    kb_timer_init(&conn->ping_timer, ping_fired);
    kb_deferred_init(&conn->work, work_deferred);
    kb_deferred_init(&conn->destroy, conn_destroy);
    kb_list_push_back(kb_grpc_conns(worker), &conn->link);
    session_start(conn);
    connect_start(conn);
    return conn;
}

/* ---- events of the session, from within nghttp2 ---- */

static void session_on_goaway(void *owner, uint32_t error_code)
{
    struct kb_grpc_conn *conn = KB_CAST(owner, kb_grpc_conn);

    (void)error_code;
    kb_stat_inc(kb_grpc_conn_stats(conn), KB_STAT_CLUSTER_UPSTREAM_CX_CLOSE_NOTIFY);
    conn->draining = true;
    kb_grpc_conn_wake(conn);
}

static void session_on_ping_ack(void *owner)
{
    struct kb_grpc_conn *conn = KB_CAST(owner, kb_grpc_conn);

    if (conn->ping_waits) {
        ping_arm(conn);
    }
}

static void session_on_stream_gone(void *owner)
{
    kb_grpc_conn_wake(KB_CAST(owner, kb_grpc_conn));
}

static const struct kb_h2_session_callbacks session_callbacks = {
    .on_goaway = session_on_goaway,
    .on_ping_ack = session_on_ping_ack,
    .on_stream_gone = session_on_stream_gone,
};

/* ---- events of the connection ---- */

static void on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct kb_grpc_conn *conn = KB_CAST(owner, kb_grpc_conn);
    uint64_t now_ms = kb_loop_now_ms(kb_grpc_conn_loop(conn));

    (void)end_stream;
    while (in->len > 0 && conn->session != NULL) {
        struct kb_str piece = kb_buf_first(in);
        int rc = kb_h2_session_receive(conn->session, piece.p, piece.len, now_ms);

        kb_buf_consume(in, piece.len);
        if (rc != 0) {
            /* A GOAWAY, if nghttp2 has one; the error stays. */
            KB_ASSERT(kb_h2_session_send(conn->session, &conn->conn->out, conn->out_limit) != 0);
            protocol_failed(conn, rc);
            return;
        }
    }
    (void)flush(conn);
}

static void connected(struct kb_grpc_conn *conn)
{
    conn->connected = true;
    kb_cluster_connected(
        kb_grpc_conn_cluster(conn), conn->host_local->host, conn->conn, kb_grpc_conn_stats(conn),
        kb_loop_now_ns(kb_grpc_conn_loop(conn)) - conn->start_ns, &conn->duration_timer);
    ping_arm(conn);
    kb_grpc_conn_wake(conn);
}

static void close_count(struct kb_grpc_conn *conn, bool by_peer)
{
    kb_cluster_disconnected(kb_grpc_conn_stats(conn), by_peer, conn->active > 0,
                            kb_loop_now_ns(kb_grpc_conn_loop(conn)) - conn->start_ns,
                            conn->requests);
    kb_host_stat_add(conn->host_local, KB_HOST_CX_ACTIVE, -1);
    kb_resource_give(conn->local, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
}

static void connect_failed(struct kb_grpc_conn *conn, struct kb_conn *io, bool by_peer)
{
    enum kb_reset_reason reason =
        by_peer ? KB_RESET_REMOTE_CONNECTION_FAILURE : KB_RESET_LOCAL_CONNECTION_FAILURE;
    char text[160] = "";

    kb_stat_inc(kb_grpc_conn_stats(conn), KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_FAIL);
    kb_host_stat_add(conn->host_local, KB_HOST_CX_CONNECT_FAIL, 1);
    kb_host_put_result(conn->host_local, KB_OUTLIER_CONNECT_FAILED, 0);
    if (io->connect_timed_out) {
        kb_stat_inc(kb_grpc_conn_stats(conn), KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_TIMEOUT);
        reason = KB_RESET_CONNECTION_TIMEOUT;
    } else if (io->connect_errno != 0) {
        (void)snprintf(text, sizeof(text), "delayed connect error: %s",
                       strerror(io->connect_errno));
        reason = KB_RESET_REMOTE_CONNECTION_FAILURE;
    } else if (io->info.transport_failure_reason.len > 0) {
        (void)snprintf(text, sizeof(text), "%.*s", KB_STR_ARG(io->info.transport_failure_reason));
    }
    kb_grpc_waiting_fail(conn, reason, kb_str_from_cstr(text));
}

static void on_event(void *owner, enum kb_conn_event event)
{
    struct kb_grpc_conn *conn = KB_CAST(owner, kb_grpc_conn);
    struct kb_conn *io = conn->conn;
    bool by_peer = event == KB_CONN_REMOTE_CLOSE && !io->connect_timed_out;

    if (event == KB_CONN_CONNECTED) {
        connected(conn);
        return;
    }
    close_count(conn, by_peer);
    conn->conn = NULL;
    conn->draining = true;
    kb_list_unlink(&conn->link);
    kb_loop_timer_cancel(kb_grpc_conn_loop(conn), &conn->idle_timer);
    kb_loop_timer_cancel(kb_grpc_conn_loop(conn), &conn->duration_timer);
    kb_loop_timer_cancel(kb_grpc_conn_loop(conn), &conn->ping_timer);
    if (conn->session != NULL) {
        kb_h2_session_destroy(conn->session, conn->close_reason);
        conn->session = NULL;
    }
    if (!conn->connected) {
        connect_failed(conn, io, by_peer);
    } else {
        kb_grpc_waiting_fail(conn, conn->close_reason, KB_STR_NULL);
    }
    kb_loop_defer(kb_grpc_conn_loop(conn), &conn->destroy);
}

static void on_above_high(void *owner)
{
    struct kb_grpc_conn *conn = KB_CAST(owner, kb_grpc_conn);

    kb_stat_inc(kb_grpc_conn_stats(conn), KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_BACKED_UP_TOTAL);
}

static void on_below_low(void *owner)
{
    struct kb_grpc_conn *conn = KB_CAST(owner, kb_grpc_conn);

    kb_stat_inc(kb_grpc_conn_stats(conn), KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_DRAINED_TOTAL);
    kb_grpc_conn_wake(conn);
}

static void on_sent(void *owner, size_t n)
{
    struct kb_grpc_conn *conn = KB_CAST(owner, kb_grpc_conn);

    (void)n;
    if (conn->session != NULL && conn->conn != NULL && conn->conn->out.len <= conn->out_limit / 2 &&
        kb_h2_session_want_send(conn->session)) {
        kb_grpc_conn_wake(conn);
    }
}

static const struct kb_conn_callbacks conn_callbacks = {
    .on_data = on_data,
    .on_event = on_event,
    .on_above_high = on_above_high,
    .on_below_low = on_below_low,
    .on_sent = on_sent,
};
