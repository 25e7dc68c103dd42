/* SPDX-License-Identifier: Apache-2.0 */
/* What connection.c (beginning, reading, writing) and connection_close.c (the end) share: the
 * states of a connection and what a worker keeps for all of them. */
#pragma once

#include "proxy/api/connection.h"
#include "proxy/api/stats.h"

enum kb_conn_state {
    KB_CONN_STATE_CONNECTING,
    KB_CONN_STATE_OPEN,
    KB_CONN_STATE_FLUSHING, /* detached; closes when `out` is empty */
    KB_CONN_STATE_DELAYED,  /* detached; flushed; closes when the peer does or time is up */
    KB_CONN_STATE_CLOSED,
};

/* What a worker keeps for its connections. */
struct kb_network_worker {
    struct kb_pool conns;
    struct kb_list detached;
};

/* Made at first use. */
struct kb_network_worker *kb_network_worker_get(struct kb_worker *worker);

/* Nothing is left of what the owner wrote, nor of what the transport made of it. */
KB_INLINE bool kb_conn_flushed(const struct kb_conn *conn)
{
    return conn->out.len == 0 && conn->transport_write != KB_TRANSPORT_WRITE_WANTED;
}

/* Keeps the *_bytes_buffered gauges right; costs nothing while queues are empty between events. */
KB_INLINE void kb_conn_buffered_count(struct kb_conn *conn)
{
    if (conn->stat_block == NULL) {
        return;
    }
    if (KB_UNLIKELY(conn->in.len != conn->counted_in)) {
        kb_stat_gauge_add(conn->stat_block, conn->stat_rx_buffered,
                          (int64_t)conn->in.len - (int64_t)conn->counted_in);
        conn->counted_in = conn->in.len;
    }
    if (KB_UNLIKELY(conn->out.len != conn->counted_out)) {
        kb_stat_gauge_add(conn->stat_block, conn->stat_tx_buffered,
                          (int64_t)conn->out.len - (int64_t)conn->counted_out);
        conn->counted_out = conn->out.len;
    }
}

/* Writes what the socket takes, and counts it. */
KB_INLINE int kb_conn_out_write(struct kb_conn *conn, bool end, size_t *sent)
{
    uint64_t before = conn->bytes_sent;
    int rc = conn->transport->do_write(conn, end);

    *sent = (size_t)(conn->bytes_sent - before);
    if (conn->stat_block != NULL && *sent > 0) {
        kb_stat_add(conn->stat_block, conn->stat_tx_total, *sent);
    }
    return rc;
}

/* ---- connection_close.c ---- */

/* Closes the descriptor; the owner was told before. Harmless when it is closed. */
void kb_conn_destroy(struct kb_conn *conn);
/* The connection is over from the peer's side: tells the owner, then frees. */
void kb_conn_remote_closed(struct kb_conn *conn);
/* The peer of a connection that waits for it ended. What else it sent stays unread, as in Envoy. */
void kb_conn_delayed_hangup(struct kb_conn *conn);
/* Flushed while detached: close, or wait for the peer. What is watched changes. */
void kb_conn_flushed_detached(struct kb_conn *conn);
