/* SPDX-License-Identifier: Apache-2.0 */
/* What only the files of this room call. */
#pragma once

#include "proxy/listener/listener.h"

/* Chains and listeners whose memory is not given back yet. Main thread. */
uint32_t kb_filter_chains_alive(void);

/* A connection or socket of this part is there, or gone. On its worker. */
void kb_listener_worker_count(struct kb_listener_worker *lw);
void kb_listener_worker_uncount(struct kb_listener_worker *lw);
/* Gives up one of workers_holding; any thread. */
void kb_active_listener_release(struct kb_active_listener *active);

/* How to close a connection that nobody serves. Envoy's listener filters only peek, so that its
 * close finds unread bytes in the socket, and the system makes a reset of it. */
KB_INLINE enum kb_conn_close kb_listener_close_kind(const struct kb_conn *conn)
{
    return conn->in.len > 0 ? KB_CONN_ABORT_RESET : KB_CONN_NO_FLUSH;
}
