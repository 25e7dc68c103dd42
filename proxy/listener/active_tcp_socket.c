/* SPDX-License-Identifier: Apache-2.0 */
/* An accepted connection while listener filters look at it (Envoy ActiveTcpSocket). It owns the
 * connection object, which reads the descriptor as raw bytes: what a filter consumes is gone, what
 * is left is the first input of the transport socket. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/listener/listener_internal.h"

struct active_socket {
    KB_OBJ;
    struct kb_list link; /* in lw->sockets */
    struct kb_listener_worker *lw;
    struct kb_listener *listener; /* held: its filters run, whatever is published meanwhile */
    struct kb_listener_socket socket;
    struct kb_timer timer;
    size_t at;     /* the filter whose turn it is */
    bool asked;    /* it wants more bytes */
    bool waiting;  /* for bytes: reading has begun */
    bool hand_off; /* may go to the listener of its original destination */
    _Alignas(max_align_t) char state[];
};
KB_OBJ_MAGIC(active_socket, 0x41435453);

static void filters_run(struct active_socket *active);

/* ---- the end ---- */

/* Takes the filters' state down; the connection goes elsewhere. */
static void socket_free(struct active_socket *active)
{
    struct kb_listener_worker *lw = active->lw;
    struct kb_listener *listener = active->listener;

    for (size_t i = 0; i < listener->filter_count && i <= active->at; i++) {
        if (listener->filters[i].ops->dispose != NULL) {
            listener->filters[i].ops->dispose(active->state + listener->filters[i].state_at);
        }
    }
    kb_loop_timer_cancel(&lw->worker->loop, &active->timer);
    kb_list_unlink(&active->link);
    kb_stat_gauge_add(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_PRE_CX_ACTIVE, -1);
    kb_shared_unref(&listener->shared, lw->worker);
    KB_OBJ_CLEAR(active);
    free(active);
}

/* The connection is gone, or goes now, without ever having had a filter chain. */
static void socket_end(struct active_socket *active)
{
    struct kb_listener_worker *lw = active->lw;

    kb_listener_log(lw, active->socket.conn, 0, KB_STR_NULL);
    socket_free(active);
    kb_listener_worker_uncount(lw);
    kb_listener_worker_forget(lw);
}

static void ignore_event(void *owner, enum kb_conn_event event)
{
    (void)owner;
    (void)event;
}

static void ignore_data(void *owner, struct kb_buf *in, bool end_stream)
{
    (void)owner;
    (void)in;
    (void)end_stream;
}

static const struct kb_conn_callbacks unowned_callbacks = {.on_data = ignore_data,
                                                           .on_event = ignore_event};

static void socket_close(struct active_socket *active)
{
    struct kb_conn *conn = active->socket.conn;

    kb_conn_set_owner(conn, &unowned_callbacks, NULL);
    socket_end(active);
    kb_conn_close(conn, kb_listener_close_kind(conn));
}

/* ---- all filters are done ---- */

static void conn_limits_set(struct kb_conn *conn, const struct kb_listener *listener)
{
    conn->in.high = listener->buffer_limit;
    conn->buffer_limit = listener->buffer_limit;
    conn->out.high = kb_conn_out_high(conn->buffer_limit);
}

static void socket_finish(struct active_socket *active)
{
    struct kb_listener_worker *lw = active->lw;
    struct kb_conn *conn = active->socket.conn;
    struct kb_listener_worker *other = NULL;

    if (active->hand_off && lw->listener->use_original_dst &&
        active->socket.local_address_restored) {
        other = kb_listener_worker_find(lw->worker, &conn->info.local);
    }
    socket_free(active);
    conn->bytes_received = 0;
    conn->early_input = conn->in.len > 0;
    if (other != NULL && other != lw) {
        kb_listener_worker_count(other);
        kb_listener_worker_uncount(lw);
        conn_limits_set(conn, other->listener);
        if (other->listener->filter_count > 0) {
            kb_active_socket_begin(other, conn, false);
        } else {
            kb_active_connection_begin(other, conn);
        }
        kb_listener_worker_forget(lw);
        return;
    }
    conn_limits_set(conn, lw->listener);
    kb_active_connection_begin(lw, conn);
}

/* ---- events ---- */

static void socket_on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    (void)in;
    (void)end_stream;
    filters_run(KB_CAST(owner, active_socket));
}

static void socket_on_event(void *owner, enum kb_conn_event event)
{
    struct active_socket *active = KB_CAST(owner, active_socket);

    if (event != KB_CONN_REMOTE_CLOSE) {
        return;
    }
    kb_stat_inc(active->lw->stats, active->socket.conn->reset_detected
                                       ? KB_STAT_LISTENER_DOWNSTREAM_LISTENER_FILTER_ERROR
                                       : KB_STAT_LISTENER_DOWNSTREAM_LISTENER_FILTER_REMOTE_CLOSE);
    if (active->socket.conn->in.len > 0) {
        kb_sock_set_linger_reset(active->socket.conn->io.fd);
    }
    kb_conn_set_owner(active->socket.conn, &unowned_callbacks, NULL);
    socket_end(active);
}

static const struct kb_conn_callbacks socket_callbacks = {.on_data = socket_on_data,
                                                          .on_event = socket_on_event};

static void timed_out(struct kb_timer *timer)
{
    struct active_socket *active = KB_CONTAINER_OF(timer, struct active_socket, timer);

    KB_ASSERT(active->kb_magic == (uint32_t)KB_MAGIC_active_socket);
    kb_stat_inc(active->lw->stats, KB_STAT_LISTENER_DOWNSTREAM_PRE_CX_TIMEOUT);
    if (active->listener->continue_on_filters_timeout) {
        socket_finish(active);
    } else {
        socket_close(active);
    }
}

/* ---- the filters ---- */

/* What the filter at `at` says to what is there now. */
static enum kb_listener_filter_status filter_call(struct active_socket *active)
{
    const struct kb_listener_filter_entry *entry = &active->listener->filters[active->at];
    struct kb_buf *in = &active->socket.conn->in;
    void *state = active->state + entry->state_at;
    enum kb_listener_filter_status status = KB_LISTENER_FILTER_STOP;

    if (!active->asked) {
        if (kb_listener_filter_disabled(entry, &active->socket.conn->info)) {
            return KB_LISTENER_FILTER_CONTINUE;
        }
        status = entry->ops->on_accept(entry->config, state, &active->socket);
        active->asked = status == KB_LISTENER_FILTER_STOP;
    }
    if (status == KB_LISTENER_FILTER_STOP && in->len > 0) {
        status = entry->ops->on_data(entry->config, state, &active->socket, in);
        if (status == KB_LISTENER_FILTER_STOP && in->len >= entry->ops->max_bytes(entry->config)) {
            status = KB_LISTENER_FILTER_CLOSE;
        }
    }
    return status;
}

/* A filter needs more: reads until there is. */
static void wait_begin(struct active_socket *active)
{
    struct kb_conn *conn = active->socket.conn;
    uint64_t timeout_ms = active->listener->filters_timeout_ms;

    if (active->waiting) {
        return;
    }
    active->waiting = true;
    conn->in.high = active->listener->filter_max_bytes;
    conn->early_input = false;
    kb_conn_set_owner(conn, &socket_callbacks, active);
    if (timeout_ms > 0) {
        kb_loop_timer_arm(&active->lw->worker->loop, &active->timer, timeout_ms);
    }
    kb_conn_start(conn);
}

static void filters_run(struct active_socket *active)
{
    while (active->at < active->listener->filter_count) {
        enum kb_listener_filter_status status = filter_call(active);

        if (status == KB_LISTENER_FILTER_STOP) {
            wait_begin(active);
            return;
        }
        if (status == KB_LISTENER_FILTER_CLOSE) {
            socket_close(active);
            return;
        }
        active->at++;
        active->asked = false;
    }
    active->at--; /* the last whose state has to go */
    socket_finish(active);
}

void kb_active_socket_begin(struct kb_listener_worker *lw, struct kb_conn *conn, bool hand_off)
{
    struct active_socket *active = kb_calloc(1, sizeof(*active) + lw->listener->filter_state_size);

    KB_OBJ_SET(active, active_socket);
    active->lw = lw;
    active->listener = lw->listener;
    kb_shared_ref(&lw->listener->shared, lw->worker);
    active->socket.conn = conn;
    active->hand_off = hand_off;
    kb_timer_init(&active->timer, timed_out);
    kb_list_push_back(&lw->sockets, &active->link);
    kb_stat_gauge_add(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_PRE_CX_ACTIVE, 1);
    conn->info.listener_name = lw->active->name;
    conn->info.listener_metadata = lw->active->metadata;
    filters_run(active);
}

void kb_active_sockets_close(struct kb_listener_worker *lw)
{
    KB_LIST_FOREACH (link, &lw->sockets) {
        socket_close(KB_LIST_ENTRY(link, struct active_socket, link));
    }
}
