/* SPDX-License-Identifier: Apache-2.0 */
/* Accepting on one worker, and the connections that come of it: each with its chain of network
 * filters (Envoy ActiveTcpListener, ActiveTcpConnection). */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/listener/listener.h"

#define ACCEPT_PAUSE_MS 100 /* out of descriptors: others need time to close some */
#define FILTERS_MAX     16

/* One accepted connection. */
struct active_connection {
    KB_OBJ;
    struct kb_list link;
    struct kb_listener_worker *lw;
    struct kb_conn *conn;
    const struct kb_filter_chain *chain;
    struct kb_deferred destroy;
    void *filters[FILTERS_MAX];
    size_t filter_count;
    size_t ready_count; /* filters that let the connection begin */
    bool closed;
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
    active->closed = true;
    closed_count(active);
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

    for (size_t i = 0; i < active->filter_count; i++) {
        active->chain->filters[i].ops->destroy(active->filters[i]);
    }
    kb_list_unlink(&active->link);
    active->lw->connection_count--;
    KB_OBJ_CLEAR(active);
    free(active);
}

/* ---- accepting ---- */

static void no_chain(struct kb_listener_worker *lw, struct kb_conn *conn);

static void connection_begin(struct kb_listener_worker *lw, struct kb_conn *conn)
{
    struct kb_listener *listener = lw->listener;
    const struct kb_filter_chain *chain = kb_filter_chain_find(listener, &conn->info);
    struct active_connection *active;

    if (chain == NULL) {
        no_chain(lw, conn);
        return;
    }
    active = kb_calloc(1, sizeof(*active));
    KB_OBJ_SET(active, active_connection);
    active->lw = lw;
    active->conn = conn;
    active->chain = chain;
    kb_deferred_init(&active->destroy, connection_destroy);
    kb_list_push_back(&lw->connections, &active->link);
    lw->connection_count++;
    conn->info.listener_name = listener->name;
    conn->info.listener_metadata = listener->metadata;
    conn->info.filter_chain_name = chain->name;
    kb_conn_set_owner(conn, &active_callbacks, active);
    kb_stat_inc(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_CX_TOTAL);
    kb_stat_inc(lw->worker_stats, KB_STAT_LISTENER_WORKER_DOWNSTREAM_CX_TOTAL);
    kb_stat_gauge_add(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_CX_ACTIVE, 1);
    kb_stat_gauge_add(lw->worker_stats, KB_STAT_LISTENER_WORKER_DOWNSTREAM_CX_ACTIVE, 1);
    for (size_t i = 0; i < chain->filter_count; i++) {
        active->filters[i] = chain->filters[i].ops->create(chain->filters[i].config, conn);
        active->filter_count = i + 1;
    }
    filters_new_connection(active);
    kb_conn_start(conn);
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

/* No chain is for this connection (Envoy closes it with details filter_chain_not_found). */
static void no_chain(struct kb_listener_worker *lw, struct kb_conn *conn)
{
    kb_stat_inc(lw->stats, KB_STAT_LISTENER_NO_FILTER_CHAIN_MATCH);
    kb_conn_set_owner(conn, &unowned_callbacks, NULL);
    kb_conn_close(conn, KB_CONN_NO_FLUSH);
}

static void accept_pause(struct kb_listener_worker *lw)
{
    KB_LOG(CONN_HANDLER, ERROR,
           "listener '%.*s': the process is out of file descriptors or memory, accepting pauses "
           "for %d ms; raise the "
           "limit of open files (ulimit -n)",
           KB_STR_ARG(lw->listener->name), ACCEPT_PAUSE_MS);
    kb_io_watch(&lw->io, 0);
    kb_loop_timer_arm(&lw->worker->loop, &lw->accept_timer, ACCEPT_PAUSE_MS);
}

static void accepted(struct kb_listener_worker *lw, int fd, const struct kb_addr *remote)
{
    struct kb_listener *listener = lw->listener;
    struct kb_addr local = listener->bound;
    struct kb_conn *conn;

    if (kb_addr_is_any(&local)) {
        kb_sock_local_addr(fd, &local);
    }
    if (!kb_addr_is_ip(&local)) {
        remote =
            &local; /* clients of a path have no name of their own; Envoy shows the listener's */
    }
    kb_stat_gauge_add(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_PRE_CX_ACTIVE, 0);
    conn = kb_conn_create_accepted(lw->worker, fd, remote, &local, listener->buffer_limit);
    if (conn != NULL) {
        connection_begin(lw, conn);
    }
}

static void listen_ready(struct kb_io *io, unsigned events)
{
    struct kb_listener_worker *lw = KB_CONTAINER_OF(io, struct kb_listener_worker, io);
    uint32_t count = 0;

    (void)events;
    KB_ASSERT(lw->kb_magic == (uint32_t)KB_MAGIC_kb_listener_worker);
    for (; count < lw->listener->accepts_per_event && lw->open; count++) {
        struct kb_addr remote;
        int fd;
        int rc = kb_sock_accept(io->fd, &fd, &remote);

        if (rc == KB_ENOMEM) {
            accept_pause(lw);
        }
        if (rc != 0) {
            break;
        }
        accepted(lw, fd, &remote);
    }
    if (count > 0) {
        kb_stat_record(lw->stats, KB_STAT_LISTENER_CONNECTIONS_ACCEPTED_PER_SOCKET_EVENT, count);
    }
}

static void accept_timer_fired(struct kb_timer *timer)
{
    struct kb_listener_worker *lw = KB_CONTAINER_OF(timer, struct kb_listener_worker, accept_timer);

    KB_ASSERT(lw->kb_magic == (uint32_t)KB_MAGIC_kb_listener_worker);
    if (lw->open) {
        kb_io_watch(&lw->io, KB_IO_READ);
    }
}

void kb_listener_worker_start(struct kb_listener_worker *lw)
{
    struct kb_listener *listener = lw->listener;

    lw->stats = kb_stat_group_block(listener->stats, lw->worker->index);
    lw->worker_stats =
        kb_stat_group_block(listener->worker_stats[lw - listener->workers], lw->worker->index);
    kb_timer_init(&lw->accept_timer, accept_timer_fired);
    if (lw->fd < 0) {
        return;
    }
    if (kb_io_open(&lw->worker->loop, &lw->io, lw->fd, listen_ready) != 0) {
        KB_LOG(CONN_HANDLER, ERROR,
               "listener '%.*s' cannot be watched: the system is out of descriptors",
               KB_STR_ARG(listener->name));
        return;
    }
    lw->open = true;
    lw->fd = -1;
    kb_io_watch(&lw->io, KB_IO_READ);
}

void kb_listener_worker_stop(struct kb_listener_worker *lw)
{
    if (!lw->open) {
        return;
    }
    lw->open = false;
    kb_loop_timer_cancel(&lw->worker->loop, &lw->accept_timer);
    kb_io_close(&lw->io, NULL);
}

void kb_listener_worker_close_all(struct kb_listener_worker *lw)
{
    KB_LIST_FOREACH (link, &lw->connections) {
        kb_conn_close(KB_LIST_ENTRY(link, struct active_connection, link)->conn, KB_CONN_NO_FLUSH);
    }
}

void kb_listener_worker_drain(struct kb_listener_worker *lw)
{
    KB_LIST_FOREACH (link, &lw->connections) {
        struct active_connection *active = KB_LIST_ENTRY(link, struct active_connection, link);

        for (size_t i = 0; i < active->filter_count; i++) {
            if (active->chain->filters[i].ops->on_drain != NULL) {
                active->chain->filters[i].ops->on_drain(active->filters[i]);
            }
        }
    }
}
