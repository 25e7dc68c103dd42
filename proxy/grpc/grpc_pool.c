/* SPDX-License-Identifier: Apache-2.0 */
/* Who uses the HTTP/2 connections of a worker: streams that wait for one, those that are open, and
 * what Envoy's connection pool counts of them. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/grpc/grpc_conn_internal.h"

/* ---- per worker ---- */

static void list_dispose(struct kb_worker *worker)
{
    free(worker->slots[KB_SLOT_GRPC]);
    worker->slots[KB_SLOT_GRPC] = NULL;
}

struct kb_list *kb_grpc_conns(struct kb_worker *worker)
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

void kb_grpc_conns_close(struct kb_worker *worker)
{
    struct kb_list *conns = worker->slots[KB_SLOT_GRPC];

    while (conns != NULL && !kb_list_empty(conns)) {
        kb_grpc_conn_close(KB_LIST_ENTRY(conns->next, struct kb_grpc_conn, link),
                           KB_RESET_CONNECTION_TERMINATION, KB_CONN_NO_FLUSH);
    }
}

/* ---- those who wait ---- */

static void waiter_remove(struct kb_grpc_conn *conn, struct kb_grpc_conn_user *user)
{
    kb_list_unlink(&user->link);
    kb_resource_give(conn->local, KB_PRIORITY_DEFAULT, KB_RESOURCE_PENDING);
    kb_stat_gauge_add(kb_grpc_conn_stats(conn), KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_ACTIVE, -1);
    kb_host_stat_add(conn->host_local, KB_HOST_RQ_PENDING_ACTIVE, -1);
}

void kb_grpc_waiting_fail(struct kb_grpc_conn *conn, enum kb_reset_reason reason,
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
        kb_stat_inc(kb_grpc_conn_stats(conn), KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_FAILURE_EJECT);
        user->on_failed(user, reason, detail);
    }
}

static bool has_room(const struct kb_grpc_conn *conn)
{
    return !conn->draining && conn->session != NULL && kb_h2_session_can_open(conn->session);
}

void kb_grpc_waiting_start(struct kb_grpc_conn *conn)
{
    while (conn->connected && !kb_list_empty(&conn->waiting) && has_room(conn)) {
        struct kb_grpc_conn_user *user =
            KB_LIST_ENTRY(conn->waiting.next, struct kb_grpc_conn_user, link);

        waiter_remove(conn, user);
        user->on_ready(user);
    }
    if (conn->draining && !kb_list_empty(&conn->waiting)) {
        kb_grpc_waiting_fail(conn, KB_RESET_CONNECTION_TERMINATION, KB_STR_NULL);
    }
}

/* ---- streams ---- */

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
    struct kb_list *conns = kb_grpc_conns(local->worker);

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
        conn = kb_grpc_conn_create(local, host);
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
    kb_loop_timer_cancel(kb_grpc_conn_loop(conn), &conn->idle_timer);
    kb_grpc_conn_wake(conn);
}

void kb_grpc_conn_cancel(struct kb_grpc_conn_user *user)
{
    if (kb_list_linked(&user->link)) {
        waiter_remove(user->conn, user);
        kb_stat_inc(kb_grpc_conn_stats(user->conn), KB_STAT_CLUSTER_UPSTREAM_RQ_CANCELLED);
        user->conn = NULL;
    }
}

struct kb_h2_stream *kb_grpc_conn_open_stream(struct kb_grpc_conn *conn,
                                              const struct kb_header_map *headers,
                                              const struct kb_h2_stream_callbacks *callbacks,
                                              void *owner)
{
    struct kb_stat_block *stats = kb_grpc_conn_stats(conn);
    struct kb_h2_stream *stream =
        kb_h2_stream_open(conn->session, headers, false, callbacks, owner, NULL);
    uint32_t max = kb_grpc_conn_cluster(conn)->max_requests_per_connection;

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
    uint64_t idle_ms = kb_grpc_conn_cluster(conn)->idle_timeout_ms;

    KB_ASSERT(conn->active > 0);
    conn->active--;
    kb_resource_give(conn->local, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS);
    kb_stat_gauge_add(kb_grpc_conn_stats(conn), KB_STAT_CLUSTER_UPSTREAM_RQ_ACTIVE, -1);
    kb_host_stat_add(conn->host_local, KB_HOST_RQ_ACTIVE, -1);
    if (conn->conn != NULL && conn->active == 0 && idle_ms > 0) {
        kb_loop_timer_arm(kb_grpc_conn_loop(conn), &conn->idle_timer, idle_ms);
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
    kb_stat_inc(kb_grpc_conn_stats(conn), stat);
}

struct kb_host_local *kb_grpc_conn_host_local(struct kb_grpc_conn *conn)
{
    return conn->host_local;
}
