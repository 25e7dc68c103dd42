/* SPDX-License-Identifier: Apache-2.0 */
/* Downstream connections: each with its filter chain, whose network filters get what comes (Envoy
 * ActiveTcpConnection). */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/listener/listener_internal.h"

/* One accepted connection. */
struct active_connection {
    KB_OBJ;
    struct kb_list link;
    struct kb_listener_worker *lw;
    struct kb_conn *conn;
    struct kb_filter_chain *chain; /* held */
    struct kb_deferred destroy;
    size_t filter_count;
    size_t ready_count; /* filters that let the connection begin */
    bool closed;
    void *filters[]; /* of chain->filter_count */
};
KB_OBJ_MAGIC(active_connection, 0x41435443);

static void connection_destroy(struct kb_deferred *deferred);

/* ---- the filter chain ---- */

static void filters_new_connection(struct active_connection *active)
{
    for (; active->ready_count < active->filter_count && !active->closed; active->ready_count++) {
        const struct kb_network_filter_ops *ops = active->chain->filters[active->ready_count].ops;

        if (ops->on_new_connection != NULL &&
            ops->on_new_connection(active->filters[active->ready_count]) ==
                KB_NETWORK_FILTER_STOP) {
            active->ready_count++;
            return;
        }
    }
}

static void active_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    struct active_connection *active = KB_CAST(owner, active_connection);

    for (size_t i = 0; i < active->filter_count && !active->closed; i++) {
        if (active->ready_count <= i) {
            filters_new_connection(active);
        }
        if (active->ready_count <= i ||
            active->chain->filters[i].ops->on_data(active->filters[i], in, end_stream) ==
                KB_NETWORK_FILTER_STOP) {
            return;
        }
    }
}

static void closed_count(struct active_connection *active)
{
    struct kb_listener_worker *lw = active->lw;

    kb_stat_gauge_add(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_CX_ACTIVE, -1);
    kb_stat_inc(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_CX_DESTROY);
    kb_stat_gauge_add(lw->worker_stats, KB_STAT_LISTENER_WORKER_DOWNSTREAM_CX_ACTIVE, -1);
    kb_stat_record(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_CX_LENGTH_MS,
                   (kb_loop_now_ns(&lw->worker->loop) - active->conn->info.start_ns) / 1000000);
}

static void active_on_event(void *owner, enum kb_conn_event event)
{
    struct active_connection *active = KB_CAST(owner, active_connection);

    if (active->closed) {
        return;
    }
    for (size_t i = 0; i < active->filter_count; i++) {
        active->chain->filters[i].ops->on_event(active->filters[i], event);
    }
    if (event == KB_CONN_CONNECTED) {
        return;
    }
    if (KB_UNLIKELY(active->conn->connect_timed_out)) {
        kb_stat_inc(active->lw->stats,
                    KB_STAT_LISTENER_DOWNSTREAM_CX_TRANSPORT_SOCKET_CONNECT_TIMEOUT);
    }
    active->closed = true;
    closed_count(active);
    kb_listener_log(active->lw, active->conn, 0, KB_STR_NULL);
    /* Behind what the filters have deferred in this event. */
    kb_loop_defer(&active->lw->worker->loop, &active->destroy);
}

static void active_on_above_high(void *owner)
{
    struct active_connection *active = KB_CAST(owner, active_connection);

    for (size_t i = 0; i < active->filter_count; i++) {
        if (active->chain->filters[i].ops->on_above_high != NULL) {
            active->chain->filters[i].ops->on_above_high(active->filters[i]);
        }
    }
}

static void active_on_below_low(void *owner)
{
    struct active_connection *active = KB_CAST(owner, active_connection);

    for (size_t i = 0; i < active->filter_count; i++) {
        if (active->chain->filters[i].ops->on_below_low != NULL) {
            active->chain->filters[i].ops->on_below_low(active->filters[i]);
        }
    }
}

static void active_on_sent(void *owner, size_t n)
{
    struct active_connection *active = KB_CAST(owner, active_connection);

    for (size_t i = 0; i < active->filter_count; i++) {
        if (active->chain->filters[i].ops->on_sent != NULL) {
            active->chain->filters[i].ops->on_sent(active->filters[i], n);
        }
    }
}

static const struct kb_conn_callbacks active_callbacks = {
    .on_data = active_on_data,
    .on_event = active_on_event,
    .on_above_high = active_on_above_high,
    .on_below_low = active_on_below_low,
    .on_sent = active_on_sent,
};

static void connection_destroy(struct kb_deferred *deferred)
{
    struct active_connection *active = KB_CONTAINER_OF(deferred, struct active_connection, destroy);
    struct kb_listener_worker *lw = active->lw;

    for (size_t i = 0; i < active->filter_count; i++) {
        active->chain->filters[i].ops->destroy(active->filters[i]);
    }
    kb_list_unlink(&active->link);
    kb_shared_unref(&active->chain->shared, lw->worker);
    KB_OBJ_CLEAR(active);
    free(active);
    kb_listener_worker_uncount(lw);
    kb_listener_worker_forget(lw);
}

/* ---- lifecycle ---- */

static void chain_missing(struct kb_listener_worker *lw, struct kb_conn *conn);

/* False: nobody would ever answer. */
static bool filters_create(struct active_connection *active)
{
    struct kb_filter_chain *chain = active->chain;

    for (size_t i = 0; i < chain->filter_count; i++) {
        active->filters[i] = chain->filters[i].ops->create(chain->filters[i].config, active->conn);
        if (KB_UNLIKELY(active->filters[i] == NULL)) {
            kb_stat_inc(active->lw->stats, KB_STAT_LISTENER_NETWORK_EXTENSION_CONFIG_MISSING);
            return false;
        }
        active->filter_count = i + 1;
    }
    active->conn->early_uncounted = active->conn->early_input && active->conn->in.len > 0;
    filters_new_connection(active);
    if (KB_UNLIKELY(active->conn->early_uncounted) && !active->closed) {
        kb_conn_early_input_count(active->conn);
    }
    return chain->filter_count > 0;
}

void kb_active_connection_begin(struct kb_listener_worker *lw, struct kb_conn *conn)
{
    struct kb_filter_chain *chain = kb_filter_chain_find(lw->listener, &conn->info, conn->sniffed);
    struct active_connection *active;
    bool complete;

    conn->info.listener_name = lw->active->name;
    conn->info.listener_metadata = lw->active->metadata;
    if (chain == NULL) {
        chain_missing(lw, conn);
        return;
    }
    active = kb_calloc(1, sizeof(*active) + chain->filter_count * sizeof(active->filters[0]));
    KB_OBJ_SET(active, active_connection);
    active->lw = lw;
    active->conn = conn;
    active->chain = chain;
    kb_shared_ref(&chain->shared, lw->worker);
    kb_deferred_init(&active->destroy, connection_destroy);
    kb_list_push_back(&lw->connections, &active->link);
    conn->info.filter_chain_name = chain->name;
    kb_conn_set_owner(conn, &active_callbacks, active);
    kb_transport_socket_factory_create(&chain->transport_socket, conn, NULL);
    if (conn->handshaking && chain->transport_socket_connect_timeout_ms > 0) {
        kb_conn_set_handshake_timeout(
            conn, lw->listener->bypass_overload
                      ? chain->transport_socket_connect_timeout_ms
                      : kb_overload_timeout(&lw->listener->server->overload,
                                            KB_OVERLOAD_TIMER_TRANSPORT_SOCKET_CONNECT,
                                            chain->transport_socket_connect_timeout_ms));
    }
    kb_stat_inc(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_CX_TOTAL);
    kb_stat_inc(lw->worker_stats, KB_STAT_LISTENER_WORKER_DOWNSTREAM_CX_TOTAL);
    kb_stat_gauge_add(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_CX_ACTIVE, 1);
    kb_stat_gauge_add(lw->worker_stats, KB_STAT_LISTENER_WORKER_DOWNSTREAM_CX_ACTIVE, 1);
    complete = filters_create(active);
    kb_conn_start(conn);
    if (KB_UNLIKELY(!complete)) {
        kb_conn_close(conn, KB_CONN_NO_FLUSH);
    }
}

static void ignore_data(void *owner, struct kb_buf *in, bool end_stream)
{
    (void)owner;
    (void)in;
    (void)end_stream;
}

static void ignore_event(void *owner, enum kb_conn_event event)
{
    (void)owner;
    (void)event;
}

static const struct kb_conn_callbacks unowned_callbacks = {.on_data = ignore_data,
                                                           .on_event = ignore_event};

/* No chain is for this connection. */
static void chain_missing(struct kb_listener_worker *lw, struct kb_conn *conn)
{
    kb_stat_inc(lw->stats, KB_STAT_LISTENER_NO_FILTER_CHAIN_MATCH);
    kb_listener_log(lw, conn, 1U << KB_RF_NO_ROUTE_FOUND, KB_STR("filter_chain_not_found"));
    kb_conn_set_owner(conn, &unowned_callbacks, NULL);
    kb_conn_close(conn, kb_listener_close_kind(conn));
    kb_listener_worker_uncount(lw);
    kb_listener_worker_forget(lw);
}

void kb_active_connections_close(struct kb_listener_worker *lw, bool purged_only)
{
    KB_LIST_FOREACH (link, &lw->connections) {
        struct active_connection *active = KB_LIST_ENTRY(link, struct active_connection, link);

        if (!purged_only || __atomic_load_n(&active->chain->purge, __ATOMIC_ACQUIRE)) {
            kb_conn_close(active->conn, KB_CONN_NO_FLUSH);
        }
    }
}
