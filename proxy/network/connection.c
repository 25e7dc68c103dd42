/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: the state of one socket, its queues and its watermarks. Knows nothing of HTTP.
 * A connection leaves its owner in two steps: the last event detaches it, then what is buffered may
 * still be flushed, then the descriptor is closed and the memory returns in the close callback of
 * the loop. */
#include "proxy/api/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/stats.h"

enum conn_state {
    CONN_CONNECTING,
    CONN_OPEN,
    CONN_FLUSHING, /* detached; closes when `out` is empty */
    CONN_DELAYED,  /* detached; flushed; closes when the peer does or time is up */
    CONN_CLOSED,
};

/* Reads, of 64 KiB each, of what a client has sent in vain. */
#define ARRIVED_READS_MAX 16

/* Connection objects kept for reuse per worker. */
#define CONNS_IDLE_MAX 256

static void io_ready(struct kb_io *io, unsigned events);
static void flush_deferred(struct kb_deferred *deferred);
static void timer_fired(struct kb_timer *timer);
static void buffered_count(struct kb_conn *conn);

/* What a worker keeps for its connections. */
struct network_worker {
    struct kb_pool conns;
    struct kb_list detached;
};

static void network_worker_dispose(struct kb_worker *worker)
{
    struct network_worker *network = worker->slots[KB_SLOT_NETWORK];

    kb_pool_dispose(&network->conns);
    free(network);
    worker->slots[KB_SLOT_NETWORK] = NULL;
}

static struct network_worker *network_worker_get(struct kb_worker *worker)
{
    struct network_worker *network = worker->slots[KB_SLOT_NETWORK];

    if (KB_UNLIKELY(network == NULL)) {
        network = kb_malloc(sizeof(*network));
        kb_pool_init(&network->conns, sizeof(struct kb_conn), CONNS_IDLE_MAX);
        kb_list_init(&network->detached);
        worker->slots[KB_SLOT_NETWORK] = network;
        worker->slot_dispose[KB_SLOT_NETWORK] = network_worker_dispose;
    }
    return network;
}

static struct kb_pool *conn_pool(struct kb_worker *worker)
{
    return &network_worker_get(worker)->conns;
}

static uint64_t next_connection_id(void)
{
    static uint64_t last;

    return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED) - 1;
}

/* ---- lifecycle ---- */

static struct kb_conn *conn_new(struct kb_worker *worker, size_t buffer_limit)
{
    struct kb_conn *conn = kb_pool_acquire(conn_pool(worker));

    memset(conn, 0, sizeof(*conn));
    KB_OBJ_SET(conn, kb_conn);
    conn->worker = worker;
    kb_buf_init(&conn->in, &worker->slices, buffer_limit);
    kb_buf_init(&conn->out, &worker->slices, buffer_limit);
    conn->transport = &kb_transport_socket_raw;
    conn->info.id = next_connection_id();
    conn->info.start_ns = kb_loop_now_ns(&worker->loop);
    kb_deferred_init(&conn->flush, flush_deferred);
    kb_timer_init(&conn->timer, timer_fired);
    worker->connections_open++;
    return conn;
}

static void conn_release(struct kb_conn *conn)
{
    struct kb_worker *worker = conn->worker;

    if (conn->transport->dispose != NULL) {
        conn->transport->dispose(conn);
    }
    worker->connections_open--;
    free(conn->sniffed);
    kb_filter_state_dispose(&conn->info.filter_state, NULL);
    kb_dynamic_metadata_dispose(&conn->info.dynamic_metadata);
    KB_OBJ_CLEAR(conn);
    kb_pool_release(conn_pool(worker), conn);
}

static void conn_freed(struct kb_io *io)
{
    conn_release(KB_CONTAINER_OF(io, struct kb_conn, io));
}

/* Closes the descriptor; the owner was told before. */
static void conn_destroy(struct kb_conn *conn)
{
    if (conn->state == CONN_CLOSED) {
        return;
    }
    conn->state = CONN_CLOSED;
    conn->transport->close(conn);
    kb_list_unlink(&conn->detached_link);
    kb_loop_timer_cancel(&conn->worker->loop, &conn->timer);
    kb_deferred_cancel(&conn->flush);
    kb_buf_dispose(&conn->in);
    kb_buf_dispose(&conn->out);
    buffered_count(conn);
    if (conn->close_due) {
        conn->close_due = false;
        conn->callbacks->on_event(conn->owner, conn->closed_by_peer ? KB_CONN_REMOTE_CLOSE
                                                                    : KB_CONN_LOCAL_CLOSE);
    }
    kb_io_close(&conn->io, conn_freed);
}

struct kb_conn *kb_conn_create_accepted(struct kb_worker *worker, int fd,
                                        const struct kb_addr *remote, const struct kb_addr *local,
                                        size_t buffer_limit)
{
    struct kb_conn *conn = conn_new(worker, buffer_limit);

    conn->info.direct_remote = *remote;
    conn->info.remote = *remote;
    conn->info.local = *local;
    conn->info.direct_local = *local;
    conn->state = CONN_OPEN;
    if (kb_io_open(&worker->loop, &conn->io, fd, io_ready) != 0) {
        KB_LOG(CONNECTION, ERROR,
               "connection %llu cannot be watched: the system is out of descriptors or memory",
               (unsigned long long)conn->info.id);
        close(fd);
        worker->connections_open--;
        kb_pool_release(conn_pool(worker), conn);
        return NULL;
    }
    return conn;
}

struct kb_conn *kb_conn_create_connecting(struct kb_worker *worker, const struct kb_addr *addr,
                                          const struct kb_addr *source, uint64_t timeout_ms,
                                          size_t buffer_limit)
{
    struct kb_conn *conn = conn_new(worker, buffer_limit);
    int fd = -1;
    int rc = kb_sock_connect(addr, source, &fd);

    conn->info.direct_remote = *addr;
    conn->info.remote = *addr;
    conn->state = CONN_CONNECTING;
    conn->io.fd = -1;
    if (rc == KB_EAGAIN || rc == 0) {
        rc = kb_io_open(&worker->loop, &conn->io, fd, io_ready);
        if (rc != 0) {
            close(fd);
        }
    } else {
        conn->connect_errno = errno;
    }
    if (rc != 0) {
        /* The failure is told by the timer, never from within this call. */
        conn->io.fd = -1;
        kb_loop_timer_arm(&worker->loop, &conn->timer, 0);
        return conn;
    }
    kb_sock_local_addr(fd, &conn->info.local);
    conn->info.direct_local = conn->info.local;
    kb_io_watch(&conn->io, KB_IO_WRITE);
    if (timeout_ms > 0) {
        kb_loop_timer_arm(&worker->loop, &conn->timer, timeout_ms);
    }
    return conn;
}

void kb_conn_set_owner(struct kb_conn *conn, const struct kb_conn_callbacks *callbacks, void *owner)
{
    conn->callbacks = callbacks;
    conn->owner = owner;
}

bool kb_conn_is_open(const struct kb_conn *conn)
{
    return conn->state == CONN_OPEN;
}

/* ---- what is watched ---- */

/* Something could leave if the descriptor took it. */
static bool write_due(const struct kb_conn *conn)
{
    return KB_LIKELY(conn->transport_write == KB_TRANSPORT_WRITE_DATA)
               ? conn->out.len > 0
               : conn->transport_write == KB_TRANSPORT_WRITE_WANTED;
}

/* Nothing is left of what the owner wrote, nor of what the transport made of it. */
static bool flushed(const struct kb_conn *conn)
{
    return conn->out.len == 0 && conn->transport_write != KB_TRANSPORT_WRITE_WANTED;
}

static void watch_update(struct kb_conn *conn)
{
    unsigned events = 0;

    switch ((enum conn_state)conn->state) {
    case CONN_CONNECTING:
        events = KB_IO_WRITE;
        break;
    case CONN_OPEN:
        if (conn->read_disable_count == 0 && !conn->end_received && !kb_buf_above_high(&conn->in)) {
            events |= KB_IO_READ;
        } else if (conn->early_close_detected) {
            events |= KB_IO_HANGUP;
        }
        /* What the flush is yet to try needs no watching. */
        if (write_due(conn) && !kb_deferred_queued(&conn->flush)) {
            events |= KB_IO_WRITE;
        }
        break;
    case CONN_FLUSHING:
        events = KB_IO_WRITE;
        break;
    case CONN_DELAYED:
        events = conn->reset_detected ? 0 : KB_IO_HANGUP;
        break;
    case CONN_CLOSED:
        return;
    }
    kb_io_watch(&conn->io, events);
}

/* Keeps the *_bytes_buffered gauges right; costs nothing while queues are empty between events. */
static void buffered_count(struct kb_conn *conn)
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

/* ---- reading ---- */

/* The connection is over from the peer's side: tells the owner, then frees. */
static void remote_closed(struct kb_conn *conn)
{
    bool attached = conn->state == CONN_OPEN || conn->state == CONN_CONNECTING;

    if (attached) {
        conn->state = CONN_FLUSHING;
        conn->callbacks->on_event(conn->owner, KB_CONN_REMOTE_CLOSE);
    }
    if (conn->io.fd < 0) {
        /* Never got as far as a descriptor. */
        conn->state = CONN_CLOSED;
        kb_loop_timer_cancel(&conn->worker->loop, &conn->timer);
        kb_deferred_cancel(&conn->flush);
        kb_buf_dispose(&conn->in);
        kb_buf_dispose(&conn->out);
        conn_release(conn);
        return;
    }
    conn->closed_by_peer = true;
    conn_destroy(conn);
}

static void deliver(struct kb_conn *conn)
{
    bool end = conn->end_received && conn->half_close_enabled && !conn->end_reported;

    if (conn->state != CONN_OPEN || conn->read_disable_count > 0 || (conn->in.len == 0 && !end)) {
        return;
    }
    conn->end_reported = conn->end_reported || end;
    conn->callbacks->on_data(conn->owner, &conn->in, end || conn->end_reported);
}

/* The peer's FIN counts once all that came before it was delivered: an owner that pauses gets the
 * rest when it goes on. */
static void end_check(struct kb_conn *conn)
{
    if (conn->state != CONN_OPEN || !conn->end_received || conn->early_input) {
        return;
    }
    if (conn->half_close_enabled) {
        if (conn->end_reported && conn->end_sent && flushed(conn)) {
            remote_closed(conn);
        }
    } else if (conn->read_disable_count == 0 || conn->early_close_detected) {
        remote_closed(conn);
    }
}

static void read_ready(struct kb_conn *conn)
{
    uint64_t before = conn->bytes_received;
    int rc = conn->transport->do_read(conn);

    if (conn->stat_block != NULL && conn->bytes_received != before) {
        kb_stat_add(conn->stat_block, conn->stat_rx_total, conn->bytes_received - before);
    }
    if (rc == KB_ECLOSED) {
        conn->end_received = true;
    } else if (rc != 0) {
        conn->reset_detected = rc == KB_ERESET;
    }
    deliver(conn);
    if (conn->state != CONN_OPEN) {
        return;
    }
    if (rc != 0 && rc != KB_ECLOSED) {
        remote_closed(conn);
        return;
    }
    end_check(conn);
}

/* The peer of a connection that waits for it ended. What else it sent stays unread, as in Envoy. */
static void delayed_hangup(struct kb_conn *conn)
{
    int cause;

    if (kb_sock_connect_result(conn->io.fd, &cause) != 0) {
        conn->reset_detected = true; /* no end either: the timer's comes */
        return;
    }
    conn->closed_by_peer = true;
    conn_destroy(conn);
}

void kb_conn_start(struct kb_conn *conn)
{
    if (KB_UNLIKELY(conn->early_input)) {
        kb_loop_defer_late(&conn->worker->loop, &conn->flush);
    }
    watch_update(conn);
}

void kb_conn_set_handshake_timeout(struct kb_conn *conn, uint64_t timeout_ms)
{
    kb_loop_timer_arm(&conn->worker->loop, &conn->timer, timeout_ms);
}

void kb_conn_handshake_done(struct kb_conn *conn)
{
    conn->handshaking = false;
    if (conn->state == CONN_OPEN) {
        kb_loop_timer_cancel(&conn->worker->loop, &conn->timer);
        if (conn->out.len > 0 || conn->end_wanted) {
            kb_loop_defer_late(&conn->worker->loop, &conn->flush);
        }
        conn->callbacks->on_event(conn->owner, KB_CONN_CONNECTED);
    }
}

void kb_conn_transport_written(struct kb_conn *conn)
{
    if (conn->state == CONN_OPEN || conn->state == CONN_FLUSHING) {
        kb_loop_defer_late(&conn->worker->loop, &conn->flush);
    }
}

/* What listener filters read is the transport socket's first input. */
static void early_input_read(struct kb_conn *conn)
{
    conn->early_input = false;
    if (conn->in.len == 0) {
        read_ready(conn); /* it has taken it */
    }
}

static void connect_ready(struct kb_conn *conn)
{
    int rc = kb_sock_connect_result(conn->io.fd, &conn->connect_errno);

    if (rc == KB_EAGAIN) {
        return;
    }
    if (rc != 0 || !conn->handshaking) {
        kb_loop_timer_cancel(&conn->worker->loop, &conn->timer);
    }
    if (rc != 0) {
        remote_closed(conn);
        return;
    }
    conn->state = CONN_OPEN;
    kb_sock_local_addr(conn->io.fd, &conn->info.local);
    conn->info.direct_local = conn->info.local;
    watch_update(conn);
    conn->transport->on_connected(conn);
}

void kb_conn_read_disable(struct kb_conn *conn, bool disable)
{
    if (disable) {
        conn->read_disable_count++;
    } else {
        KB_ASSERT(conn->read_disable_count > 0);
        conn->read_disable_count--;
        if (conn->read_disable_count == 0 && conn->state == CONN_OPEN &&
            (conn->in.len > 0 || (conn->end_received && !conn->end_reported))) {
            kb_loop_defer_late(&conn->worker->loop, &conn->flush);
        }
    }
    if (conn->state == CONN_OPEN) {
        watch_update(conn);
    }
}

/* ---- writing ---- */

static void watermarks_check(struct kb_conn *conn)
{
    if (!conn->above_high && kb_buf_above_high(&conn->out)) {
        conn->above_high = true;
        if (conn->callbacks->on_above_high != NULL) {
            conn->callbacks->on_above_high(conn->owner);
        }
    } else if (conn->above_high && kb_buf_below_low(&conn->out)) {
        conn->above_high = false;
        if (conn->callbacks->on_below_low != NULL) {
            conn->callbacks->on_below_low(conn->owner);
        }
    }
}

/* Flushed while detached: close, or wait for the peer. */
static void flushed_detached(struct kb_conn *conn)
{
    if (conn->delayed_close_ms > 0 && conn->end_wanted) {
        conn->state = CONN_DELAYED;
        kb_loop_timer_arm(&conn->worker->loop, &conn->timer, conn->delayed_close_ms);
        watch_update(conn);
        return;
    }
    conn_destroy(conn);
}

/* Writes what the socket takes, and counts it. */
static int out_write(struct kb_conn *conn, bool end, size_t *sent)
{
    uint64_t before = conn->bytes_sent;
    int rc = conn->transport->do_write(conn, end);

    *sent = (size_t)(conn->bytes_sent - before);
    if (conn->stat_block != NULL && *sent > 0) {
        kb_stat_add(conn->stat_block, conn->stat_tx_total, *sent);
    }
    return rc;
}

/* The peer takes no more. What it said before, an early answer perhaps, still counts. */
static void write_failed(struct kb_conn *conn, int rc)
{
    if (conn->state == CONN_OPEN && conn->read_disable_count == 0 && !conn->end_received) {
        read_ready(conn);
    }
    if (conn->state == CONN_OPEN || conn->state == CONN_FLUSHING) {
        conn->reset_detected = rc == KB_ERESET || rc == KB_ECLOSED;
        remote_closed(conn);
    }
}

static void write_ready(struct kb_conn *conn)
{
    bool end = conn->end_wanted && conn->state == CONN_OPEN;
    size_t sent;
    int rc = out_write(conn, end, &sent);

    if (rc != 0) {
        write_failed(conn, rc);
        return;
    }
    if (conn->state == CONN_FLUSHING) {
        if (flushed(conn)) {
            flushed_detached(conn);
        } else if (sent > 0 && kb_timer_armed(&conn->timer)) {
            kb_loop_timer_arm(&conn->worker->loop, &conn->timer, conn->delayed_close_ms);
        }
        return;
    }
    if (sent > 0 && conn->callbacks->on_sent != NULL) {
        conn->callbacks->on_sent(conn->owner, sent);
    }
    if (conn->state == CONN_OPEN && conn->above_high) {
        watermarks_check(conn);
    }
    if (conn->state == CONN_OPEN && conn->end_sent && conn->end_reported && flushed(conn)) {
        remote_closed(conn);
    }
}

/* Runs at the end of a round in which something was written or reading was enabled again. */
static void flush_deferred(struct kb_deferred *deferred)
{
    struct kb_conn *conn = KB_CONTAINER_OF(deferred, struct kb_conn, flush);

    bool input = conn->state == CONN_OPEN &&
                 (conn->in.len > 0 || (conn->end_received && !conn->end_reported));

    KB_ASSERT(conn->kb_magic == (uint32_t)KB_MAGIC_kb_conn);
    if (KB_UNLIKELY(conn->early_input) && conn->state == CONN_OPEN) {
        early_input_read(conn);
    }
    if (input) {
        deliver(conn); /* before what is written leaves, in Envoy's order */
    }
    if (conn->state == CONN_OPEN || conn->state == CONN_FLUSHING) {
        if (!flushed(conn) || (conn->end_wanted && !conn->end_sent)) {
            write_ready(conn);
        } else if (conn->state == CONN_FLUSHING) {
            flushed_detached(conn);
        }
    }
    if (input) {
        end_check(conn);
    }
    if (conn->state != CONN_CLOSED) {
        buffered_count(conn);
        watch_update(conn);
    }
}

void kb_conn_written(struct kb_conn *conn)
{
    if (conn->state == CONN_OPEN) {
        kb_loop_defer_late(&conn->worker->loop, &conn->flush);
        if (KB_UNLIKELY(kb_buf_above_high(&conn->out))) {
            watermarks_check(conn);
        }
    }
}

void kb_conn_end_stream(struct kb_conn *conn)
{
    conn->end_wanted = true;
    kb_conn_written(conn);
}

/* ---- events ---- */

static void io_ready(struct kb_io *io, unsigned events)
{
    struct kb_conn *conn = KB_CONTAINER_OF(io, struct kb_conn, io);

    KB_ASSERT(conn->kb_magic == (uint32_t)KB_MAGIC_kb_conn);
    switch ((enum conn_state)conn->state) {
    case CONN_CONNECTING:
        connect_ready(conn);
        break;
    case CONN_OPEN:
        if (events & (KB_IO_READ | KB_IO_ERROR)) {
            read_ready(conn);
        }
        if ((events & KB_IO_WRITE) && conn->state == CONN_OPEN && write_due(conn)) {
            write_ready(conn);
        }
        if ((events & KB_IO_HANGUP) && conn->state == CONN_OPEN) {
            remote_closed(conn);
        }
        break;
    case CONN_FLUSHING:
        write_ready(conn);
        break;
    case CONN_DELAYED:
        delayed_hangup(conn);
        break;
    case CONN_CLOSED:
        return;
    }
    if (conn->state != CONN_CLOSED) {
        buffered_count(conn);
        watch_update(conn);
    }
}

static void timer_fired(struct kb_timer *timer)
{
    struct kb_conn *conn = KB_CONTAINER_OF(timer, struct kb_conn, timer);

    KB_ASSERT(conn->kb_magic == (uint32_t)KB_MAGIC_kb_conn);
    if (conn->state == CONN_CONNECTING) {
        conn->connect_timed_out = conn->io.fd >= 0;
        remote_closed(conn);
        return;
    }
    if (conn->state == CONN_OPEN) {
        conn->connect_timed_out = true; /* the transport's handshake took too long */
        remote_closed(conn);
        return;
    }
    if (conn->stat_block != NULL && conn->stat_delayed_close != 0) {
        kb_stat_inc(conn->stat_block, conn->stat_delayed_close);
    }
    conn_destroy(conn);
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
    conn->state = CONN_FLUSHING;
    conn->end_wanted = delay;
    if ((!delay && flushed(conn)) || conn->handshaking) {
        conn_destroy(conn); /* before a handshake nothing can be flushed, as in Envoy */
        return;
    }
    kb_list_push_back(&network_worker_get(conn->worker)->detached, &conn->detached_link);
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
    bool was_open = conn->state == CONN_OPEN;

    if (conn->close_due && (how == KB_CONN_NO_FLUSH || how == KB_CONN_ABORT_RESET)) {
        conn_destroy(conn);
        return;
    }
    if (conn->state != CONN_OPEN && conn->state != CONN_CONNECTING) {
        return;
    }
    if (conn->state == CONN_CONNECTING) {
        how = KB_CONN_NO_FLUSH;
    }
    conn->state = CONN_FLUSHING;
    conn->close_due = conn->close_told_late;
    if (!conn->close_due) {
        conn->callbacks->on_event(conn->owner, KB_CONN_LOCAL_CLOSE);
    }
    if (conn->io.fd < 0) {
        remote_closed(conn);
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

            (void)out_write(conn, false, &sent);
        }
        conn_destroy(conn);
        break;
    case KB_CONN_ABORT_RESET:
        kb_sock_set_linger_reset(conn->io.fd);
        conn_destroy(conn);
        break;
    }
}

void kb_conns_worker_close(struct kb_worker *worker)
{
    KB_LIST_FOREACH (link, &network_worker_get(worker)->detached) {
        conn_destroy(KB_LIST_ENTRY(link, struct kb_conn, detached_link));
    }
}
