/* SPDX-License-Identifier: Apache-2.0 */
/* One HTTP/2 connection to a host of a cluster: connecting, keepalive, draining after a GOAWAY, and
 * the statistics of Envoy's pool. nghttp2 is never asked to do something about a connection from
 * within its own callbacks: such work is deferred. */
#include "proxy/grpc/grpc_conn.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/api/connection.h"

#define OUT_BYTES_DEFAULT (1024u * 1024)

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

static const struct kb_conn_callbacks conn_callbacks;
static const struct kb_h2_session_callbacks session_callbacks;

/* ---- per worker ---- */

static void list_dispose(struct kb_worker *worker)
{
    free(worker->slots[KB_SLOT_GRPC]);
    worker->slots[KB_SLOT_GRPC] = NULL;
}

static struct kb_list *conns_of(struct kb_worker *worker)
{
    struct kb_list *list = worker->slots[KB_SLOT_GRPC];

    if (list == NULL) {
        list = kb_calloc(1, sizeof(*list));
        kb_list_init(list);
        worker->slots[KB_SLOT_GRPC] = list;
        worker->slot_dispose[KB_SLOT_GRPC] = list_dispose;
    }
    return list;
}

static struct kb_loop *loop_of(struct kb_grpc_conn *conn)
{
    return &conn->worker->loop;
}

static struct kb_stat_block *stats_of(struct kb_grpc_conn *conn)
{
    return conn->local->stats;
}

static const struct kb_cluster *cluster_of(const struct kb_grpc_conn *conn)
{
    return conn->local->cluster;
}

/* ---- sending ---- */

/* Ends the connection; its streams hear `reason`. */
static void close_for(struct kb_grpc_conn *conn, enum kb_reset_reason reason,
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
           (unsigned long long)conn->conn->info.id, KB_STR_ARG(cluster_of(conn)->name),
           kb_err_text(error));
    kb_stat_inc(stats_of(conn), KB_STAT_CLUSTER_UPSTREAM_CX_PROTOCOL_ERROR);
    kb_conn_written(conn->conn);
    /* Streams end by the reset, not by the connection. */
    kb_h2_session_destroy(conn->session, KB_RESET_PROTOCOL_ERROR);
    conn->session = NULL;
    close_for(conn, KB_RESET_PROTOCOL_ERROR, KB_CONN_FLUSH_WRITE);
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
    kb_loop_defer(loop_of(conn), &conn->work);
}

/* ---- those who wait ---- */

static void waiter_remove(struct kb_grpc_conn *conn, struct kb_grpc_conn_user *user)
{
    kb_list_unlink(&user->link);
    kb_resource_give(conn->local, KB_PRIORITY_DEFAULT, KB_RESOURCE_PENDING);
    kb_stat_gauge_add(stats_of(conn), KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_ACTIVE, -1);
    kb_host_stat_add(conn->host_local, KB_HOST_RQ_PENDING_ACTIVE, -1);
}

static void waiting_fail(struct kb_grpc_conn *conn, enum kb_reset_reason reason,
                         struct kb_str detail)
{
    struct kb_list failed;

    kb_list_init(&failed);
    while (!kb_list_empty(&conn->waiting)) {
        kb_list_push_back(&failed, kb_list_pop_front(&conn->waiting));
    }
    while (!kb_list_empty(&failed)) {
        struct kb_grpc_conn_user *user = KB_LIST_ENTRY(failed.next, struct kb_grpc_conn_user, link);

        waiter_remove(conn, user);
        user->conn = NULL;
        kb_stat_inc(stats_of(conn), KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_FAILURE_EJECT);
        user->on_failed(user, reason, detail);
    }
}

static bool has_room(const struct kb_grpc_conn *conn)
{
    return !conn->draining && conn->session != NULL && kb_h2_session_can_open(conn->session);
}

static void drain_check(struct kb_grpc_conn *conn)
{
    if (conn->draining && conn->active == 0 && kb_list_empty(&conn->waiting) &&
        conn->conn != NULL) {
        close_for(conn, KB_RESET_CONNECTION_TERMINATION, KB_CONN_FLUSH_WRITE);
    }
}

static void waiting_start(struct kb_grpc_conn *conn)
{
    while (conn->connected && !kb_list_empty(&conn->waiting) && has_room(conn)) {
        struct kb_grpc_conn_user *user =
            KB_LIST_ENTRY(conn->waiting.next, struct kb_grpc_conn_user, link);

        waiter_remove(conn, user);
        user->on_ready(user);
    }
    if (conn->draining && !kb_list_empty(&conn->waiting)) {
        waiting_fail(conn, KB_RESET_CONNECTION_TERMINATION, KB_STR_NULL);
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
    waiting_start(conn);
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
        kb_stat_inc(stats_of(conn), KB_STAT_CLUSTER_UPSTREAM_CX_IDLE_TIMEOUT);
        close_for(conn, KB_RESET_CONNECTION_TERMINATION, KB_CONN_NO_FLUSH);
    }
}

static void duration_fired(struct kb_timer *timer)
{
    struct kb_grpc_conn *conn = KB_CONTAINER_OF(timer, struct kb_grpc_conn, duration_timer);

    kb_stat_inc(stats_of(conn), KB_STAT_CLUSTER_UPSTREAM_CX_MAX_DURATION_REACHED);
    conn->draining = true;
    kb_grpc_conn_wake(conn);
}

/* Envoy's connection_keepalive: a PING each interval, and the connection goes when its answer stays
 * out for the timeout. */
static void ping_arm(struct kb_grpc_conn *conn)
{
    const struct kb_cluster *cluster = cluster_of(conn);
    uint64_t interval = cluster->http2.keepalive_interval_ms;
    uint64_t jitter = interval * cluster->http2.keepalive_jitter_percent / 100;

    if (interval == 0) {
        return;
    }
    if (jitter > 0) {
        interval += kb_rand_u64(&conn->worker->rand) % jitter;
    }
    conn->ping_waits = false;
    kb_loop_timer_arm(loop_of(conn), &conn->ping_timer, interval);
}

static void ping_fired(struct kb_timer *timer)
{
    struct kb_grpc_conn *conn = KB_CONTAINER_OF(timer, struct kb_grpc_conn, ping_timer);
    const struct kb_cluster *cluster = cluster_of(conn);

    if (conn->session == NULL) {
        return;
    }
    if (conn->ping_waits) {
        kb_stat_inc(kb_stat_group_block(cluster->http2_stats, conn->worker->index),
                    KB_STAT_HTTP2_KEEPALIVE_TIMEOUT);
        close_for(conn, KB_RESET_CONNECTION_TERMINATION, KB_CONN_NO_FLUSH);
        return;
    }
    conn->ping_waits = true;
    kb_h2_session_ping(conn->session);
    kb_loop_timer_arm(loop_of(conn), &conn->ping_timer, cluster->http2.keepalive_timeout_ms);
    kb_grpc_conn_wake(conn);
}

static void session_start(struct kb_grpc_conn *conn)
{
    const struct kb_cluster *cluster = cluster_of(conn);
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
    const struct kb_cluster *cluster = cluster_of(conn);
    struct kb_addr addr = kb_host_addr(conn->host_local->host);
    const struct kb_addr *source = kb_cluster_bind_source(cluster, &addr);
    struct kb_conn *io;

    io = kb_conn_create_connecting(conn->worker, &addr, source, cluster->connect_timeout_ms,
                                   conn->out_limit);
    conn->conn = io;
    kb_conn_set_owner(io, &conn_callbacks, conn);
    transport_start(conn);
    kb_cluster_connecting(conn->local, KB_PRIORITY_DEFAULT, conn->host_local, io, stats_of(conn));
    kb_stat_inc(io->stat_block, KB_STAT_CLUSTER_UPSTREAM_CX_HTTP2_TOTAL);
}

static struct kb_grpc_conn *conn_create(struct kb_cluster_local *local, struct kb_host *host)
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
    kb_list_push_back(conns_of(worker), &conn->link);
    session_start(conn);
    connect_start(conn);
    return conn;
}

/* ---- requests ---- */

/* Connections whose host has gone end when they are not used. */
static void removed_drain(struct kb_list *conns)
{
    KB_LIST_FOREACH (link, conns) {
        struct kb_grpc_conn *conn = KB_LIST_ENTRY(link, struct kb_grpc_conn, link);

        if ((conn->host_local->removed || conn->local->removed) && !conn->draining) {
            conn->draining = true;
            kb_grpc_conn_wake(conn);
        }
    }
}

static struct kb_grpc_conn *conn_find(struct kb_cluster_local *local, struct kb_host *host)
{
    struct kb_list *conns = conns_of(local->worker);

    removed_drain(conns);
    KB_LIST_FOREACH (link, conns) {
        struct kb_grpc_conn *conn = KB_LIST_ENTRY(link, struct kb_grpc_conn, link);

        if (conn->local == local && conn->host_local->host == host && has_room(conn)) {
            return conn;
        }
    }
    return NULL;
}

void kb_grpc_conn_request(struct kb_cluster_local *local, struct kb_host *host,
                          struct kb_grpc_conn_user *user)
{
    struct kb_grpc_conn *conn = conn_find(local, host);
    struct kb_stat_block *stats = local->stats;

    if (conn == NULL) {
        conn = conn_create(local, host);
    }
    user->conn = conn;
    kb_list_push_back(&conn->waiting, &user->link);
    /* A bound of the control plane's own streams makes no sense: it is counted, not refused. */
    kb_resource_force(local, KB_PRIORITY_DEFAULT, KB_RESOURCE_PENDING);
    if (!conn->connected) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_TOTAL);
    }
    kb_stat_gauge_add(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_ACTIVE, 1);
    kb_host_stat_add(conn->host_local, KB_HOST_RQ_PENDING_ACTIVE, 1);
    kb_loop_timer_cancel(loop_of(conn), &conn->idle_timer);
    kb_grpc_conn_wake(conn);
}

void kb_grpc_conn_cancel(struct kb_grpc_conn_user *user)
{
    if (kb_list_linked(&user->link)) {
        waiter_remove(user->conn, user);
        kb_stat_inc(stats_of(user->conn), KB_STAT_CLUSTER_UPSTREAM_RQ_CANCELLED);
        user->conn = NULL;
    }
}

struct kb_h2_stream *kb_grpc_conn_open_stream(struct kb_grpc_conn *conn,
                                              const struct kb_header_map *headers,
                                              const struct kb_h2_stream_callbacks *callbacks,
                                              void *owner)
{
    struct kb_stat_block *stats = stats_of(conn);
    struct kb_h2_stream *stream =
        kb_h2_stream_open(conn->session, headers, false, callbacks, owner, NULL);
    uint32_t max = cluster_of(conn)->max_requests_per_connection;

    if (stream == NULL) {
        return NULL;
    }
    conn->active++;
    conn->requests++;
    kb_resource_force(conn->local, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS);
    kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_TOTAL);
    kb_stat_gauge_add(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_ACTIVE, 1);
    kb_host_stat_add(conn->host_local, KB_HOST_RQ_TOTAL, 1);
    kb_host_stat_add(conn->host_local, KB_HOST_RQ_ACTIVE, 1);
    if (max > 0 && conn->requests >= max) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_CX_MAX_REQUESTS);
        conn->draining = true;
    }
    kb_grpc_conn_wake(conn);
    return stream;
}

void kb_grpc_conn_stream_done(struct kb_grpc_conn *conn)
{
    uint64_t idle_ms = cluster_of(conn)->idle_timeout_ms;

    KB_ASSERT(conn->active > 0);
    conn->active--;
    kb_resource_give(conn->local, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS);
    kb_stat_gauge_add(stats_of(conn), KB_STAT_CLUSTER_UPSTREAM_RQ_ACTIVE, -1);
    kb_host_stat_add(conn->host_local, KB_HOST_RQ_ACTIVE, -1);
    if (conn->conn != NULL && conn->active == 0 && idle_ms > 0) {
        kb_loop_timer_arm(loop_of(conn), &conn->idle_timer, idle_ms);
    }
    kb_grpc_conn_wake(conn);
}

void kb_grpc_conn_count_reset(struct kb_grpc_conn *conn, enum kb_reset_reason reason)
{
    unsigned stat;

    switch (reason) {
    case KB_RESET_REMOTE_RESET:
        stat = KB_STAT_CLUSTER_UPSTREAM_RQ_RX_RESET;
        break;
    case KB_RESET_LOCAL_RESET:
    case KB_RESET_PROTOCOL_ERROR:
        stat = KB_STAT_CLUSTER_UPSTREAM_RQ_TX_RESET;
        break;
    case KB_RESET_CONNECTION_TERMINATION:
        stat = KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_FAILURE_EJECT;
        break;
    case KB_RESET_LOCAL_REFUSED_STREAM_RESET:
    case KB_RESET_REMOTE_REFUSED_STREAM_RESET:
    case KB_RESET_LOCAL_CONNECTION_FAILURE:
    case KB_RESET_REMOTE_CONNECTION_FAILURE:
    case KB_RESET_CONNECTION_TIMEOUT:
    case KB_RESET_OVERFLOW:
    case KB_RESET_CONNECT_ERROR:
    case KB_RESET_OVERLOAD_MANAGER:
    case KB_RESET_HTTP1_PREMATURE_UPSTREAM_HALF_CLOSE:
    case KB_RESET_COUNT:
    default:
        return;
    }
    kb_stat_inc(stats_of(conn), stat);
}

struct kb_host_local *kb_grpc_conn_host_local(struct kb_grpc_conn *conn)
{
    return conn->host_local;
}

/* ---- events of the session, from within nghttp2 ---- */

static void session_on_goaway(void *owner, uint32_t error_code)
{
    struct kb_grpc_conn *conn = KB_CAST(owner, kb_grpc_conn);

    (void)error_code;
    kb_stat_inc(stats_of(conn), KB_STAT_CLUSTER_UPSTREAM_CX_CLOSE_NOTIFY);
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
    uint64_t now_ms = kb_loop_now_ms(loop_of(conn));

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
    kb_cluster_connected(cluster_of(conn), conn->host_local->host, conn->conn, stats_of(conn),
                         kb_loop_now_ns(loop_of(conn)) - conn->start_ns, &conn->duration_timer);
    ping_arm(conn);
    kb_grpc_conn_wake(conn);
}

static void close_count(struct kb_grpc_conn *conn, bool by_peer)
{
    kb_cluster_disconnected(stats_of(conn), by_peer, conn->active > 0,
                            kb_loop_now_ns(loop_of(conn)) - conn->start_ns, conn->requests);
    kb_host_stat_add(conn->host_local, KB_HOST_CX_ACTIVE, -1);
    kb_resource_give(conn->local, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
}

static void connect_failed(struct kb_grpc_conn *conn, struct kb_conn *io, bool by_peer)
{
    enum kb_reset_reason reason =
        by_peer ? KB_RESET_REMOTE_CONNECTION_FAILURE : KB_RESET_LOCAL_CONNECTION_FAILURE;
    char text[160] = "";

    kb_stat_inc(stats_of(conn), KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_FAIL);
    kb_host_stat_add(conn->host_local, KB_HOST_CX_CONNECT_FAIL, 1);
    kb_host_put_result(conn->host_local, KB_OUTLIER_CONNECT_FAILED, 0);
    if (io->connect_timed_out) {
        kb_stat_inc(stats_of(conn), KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_TIMEOUT);
        reason = KB_RESET_CONNECTION_TIMEOUT;
    } else if (io->connect_errno != 0) {
        (void)snprintf(text, sizeof(text), "delayed connect error: %s",
                       strerror(io->connect_errno));
        reason = KB_RESET_REMOTE_CONNECTION_FAILURE;
    } else if (io->info.transport_failure_reason.len > 0) {
        (void)snprintf(text, sizeof(text), "%.*s", KB_STR_ARG(io->info.transport_failure_reason));
    }
    waiting_fail(conn, reason, kb_str_from_cstr(text));
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
    kb_loop_timer_cancel(loop_of(conn), &conn->idle_timer);
    kb_loop_timer_cancel(loop_of(conn), &conn->duration_timer);
    kb_loop_timer_cancel(loop_of(conn), &conn->ping_timer);
    if (conn->session != NULL) {
        kb_h2_session_destroy(conn->session, conn->close_reason);
        conn->session = NULL;
    }
    if (!conn->connected) {
        connect_failed(conn, io, by_peer);
    } else {
        waiting_fail(conn, conn->close_reason, KB_STR_NULL);
    }
    kb_loop_defer(loop_of(conn), &conn->destroy);
}

static void on_above_high(void *owner)
{
    struct kb_grpc_conn *conn = KB_CAST(owner, kb_grpc_conn);

    kb_stat_inc(stats_of(conn), KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_BACKED_UP_TOTAL);
}

static void on_below_low(void *owner)
{
    struct kb_grpc_conn *conn = KB_CAST(owner, kb_grpc_conn);

    kb_stat_inc(stats_of(conn), KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_DRAINED_TOTAL);
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

void kb_grpc_conns_close(struct kb_worker *worker)
{
    struct kb_list *conns = worker->slots[KB_SLOT_GRPC];

    while (conns != NULL && !kb_list_empty(conns)) {
        close_for(KB_LIST_ENTRY(conns->next, struct kb_grpc_conn, link),
                  KB_RESET_CONNECTION_TERMINATION, KB_CONN_NO_FLUSH);
    }
}

static const struct kb_conn_callbacks conn_callbacks = {
    .on_data = on_data,
    .on_event = on_event,
    .on_above_high = on_above_high,
    .on_below_low = on_below_low,
    .on_sent = on_sent,
};
