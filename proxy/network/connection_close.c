/* SPDX-License-Identifier: Apache-2.0 */
/* How connections end. One leaves its owner in two steps: the last event detaches it, then what is
 * buffered may still be flushed, then the descriptor is closed and the memory returns in the close
 * callback of the loop. */
#include "proxy/network/connection_internal.h"

#include <stdlib.h>

#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/filter_state.h"

/* Reads, of 64 KiB each, of what a client has sent in vain. */
#define ARRIVED_READS_MAX 16

static void conn_release(struct kb_conn *conn)
{
    struct kb_worker *worker = conn->worker;

    if (conn->transport->dispose != NULL) {
        conn->transport->dispose(conn);
    }
    worker->connections_open--;
    free(conn->sniffed);
    free(conn->upstream_options);
    free(conn->info.proxy_tlvs);
    kb_filter_state_dispose(&conn->info.filter_state, NULL);
    kb_dynamic_metadata_dispose(&conn->info.dynamic_metadata);
    KB_OBJ_CLEAR(conn);
    kb_pool_release(&kb_network_worker_get(worker)->conns, conn);
}

static void conn_freed(struct kb_io *io)
{
    conn_release(KB_CONTAINER_OF(io, struct kb_conn, io));
}

void kb_conn_destroy(struct kb_conn *conn)
{
    if (conn->state == KB_CONN_STATE_CLOSED) {
        return;
    }
    conn->state = KB_CONN_STATE_CLOSED;
    conn->transport->close(conn);
    kb_list_unlink(&conn->detached_link);
    kb_loop_timer_cancel(&conn->worker->loop, &conn->timer);
    kb_deferred_cancel(&conn->flush);
    kb_buf_dispose(&conn->in);
    kb_buf_dispose(&conn->out);
    kb_conn_buffered_count(conn);
    if (KB_UNLIKELY(conn->early_uncounted) && !conn->closed_by_peer) {
        kb_sock_set_linger_reset(conn->io.fd); /* as if it were unread in the socket */
    }
    if (conn->close_due) {
        conn->close_due = false;
        conn->callbacks->on_event(conn->owner, conn->closed_by_peer ? KB_CONN_REMOTE_CLOSE
                                                                    : KB_CONN_LOCAL_CLOSE);
    }
    kb_io_close(&conn->io, conn_freed);
}

/* ---- by the peer ---- */

void kb_conn_remote_closed(struct kb_conn *conn)
{
    bool attached = conn->state == KB_CONN_STATE_OPEN || conn->state == KB_CONN_STATE_CONNECTING;

    if (attached) {
        conn->state = KB_CONN_STATE_FLUSHING;
        conn->callbacks->on_event(conn->owner, KB_CONN_REMOTE_CLOSE);
    }
    if (conn->io.fd < 0) {
        /* Never got as far as a descriptor. */
        conn->state = KB_CONN_STATE_CLOSED;
        kb_loop_timer_cancel(&conn->worker->loop, &conn->timer);
        kb_deferred_cancel(&conn->flush);
        kb_buf_dispose(&conn->in);
        kb_buf_dispose(&conn->out);
        conn_release(conn);
        return;
    }
    conn->closed_by_peer = true;
    kb_conn_destroy(conn);
}

void kb_conn_delayed_hangup(struct kb_conn *conn)
{
    int cause;

    if (kb_sock_connect_result(conn->io.fd, &cause) != 0) {
        conn->reset_detected = true; /* no end either: the timer's comes */
        return;
    }
    conn->closed_by_peer = true;
    kb_conn_destroy(conn);
}

/* ---- by the owner ---- */

void kb_conn_flushed_detached(struct kb_conn *conn)
{
    if (conn->delayed_close_ms > 0 && conn->end_wanted) {
        conn->state = KB_CONN_STATE_DELAYED;
        kb_loop_timer_arm(&conn->worker->loop, &conn->timer, conn->delayed_close_ms);
        return;
    }
    kb_conn_destroy(conn);
}

/* Takes what has come already: bytes left in the socket would make its close a reset, and that
 * could take the answer away from the client. */
static void arrived_drop(struct kb_conn *conn)
{
    uint64_t before = conn->bytes_received;

    for (unsigned i = 0; i < ARRIVED_READS_MAX; i++) {
        kb_buf_dispose(&conn->in);
        if (conn->transport->do_read(conn) != 0 || conn->in.len == 0) {
            break;
        }
    }
    if (conn->stat_block != NULL) {
        kb_stat_add(conn->stat_block, conn->stat_rx_total, conn->bytes_received - before);
    }
}

static void flush_then_close(struct kb_conn *conn, bool delay)
{
    conn->state = KB_CONN_STATE_FLUSHING;
    conn->end_wanted = delay;
    if ((!delay && kb_conn_flushed(conn)) || conn->handshaking) {
        kb_conn_destroy(conn); /* before a handshake nothing can be flushed, as in Envoy */
        return;
    }
    kb_list_push_back(&kb_network_worker_get(conn->worker)->detached, &conn->detached_link);
    if (conn->delayed_close_ms > 0) {
        kb_loop_timer_arm(&conn->worker->loop, &conn->timer, conn->delayed_close_ms);
    }
    if (delay) {
        arrived_drop(conn);
    }
    kb_buf_dispose(&conn->in);
    kb_loop_defer_late(&conn->worker->loop, &conn->flush);
}

void kb_conn_close(struct kb_conn *conn, enum kb_conn_close how)
{
    bool was_open = conn->state == KB_CONN_STATE_OPEN;

    if (conn->close_due && (how == KB_CONN_NO_FLUSH || how == KB_CONN_ABORT_RESET)) {
        kb_conn_destroy(conn);
        return;
    }
    if (conn->state != KB_CONN_STATE_OPEN && conn->state != KB_CONN_STATE_CONNECTING) {
        return;
    }
    if (conn->state == KB_CONN_STATE_CONNECTING) {
        how = KB_CONN_NO_FLUSH;
    }
    conn->state = KB_CONN_STATE_FLUSHING;
    conn->close_due = conn->close_told_late;
    if (!conn->close_due) {
        conn->callbacks->on_event(conn->owner, KB_CONN_LOCAL_CLOSE);
    }
    if (conn->io.fd < 0) {
        kb_conn_remote_closed(conn);
        return;
    }
    switch (how) {
    case KB_CONN_FLUSH_WRITE:
        flush_then_close(conn, false);
        break;
    case KB_CONN_FLUSH_WRITE_AND_DELAY:
        flush_then_close(conn, true);
        break;
    case KB_CONN_NO_FLUSH:
        if (was_open && conn->out.len > 0) {
            /* As Envoy: one try, and no waiting for the rest. */
            size_t sent;

            (void)kb_conn_out_write(conn, false, &sent);
        }
        kb_conn_destroy(conn);
        break;
    case KB_CONN_ABORT_RESET:
        kb_sock_set_linger_reset(conn->io.fd);
        kb_conn_destroy(conn);
        break;
    }
}

void kb_conns_worker_close(struct kb_worker *worker)
{
    KB_LIST_FOREACH (link, &kb_network_worker_get(worker)->detached) {
        kb_conn_destroy(KB_LIST_ENTRY(link, struct kb_conn, detached_link));
    }
}
