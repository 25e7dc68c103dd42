/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: how they begin, what is watched, reading with its early input, writing with its
 * watermarks. Knows nothing of HTTP. How they end is in connection_close.c. */
#include "proxy/network/connection_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/stats.h"

/* Connection objects kept for reuse per worker. */
#define CONNS_IDLE_MAX 256

static void io_ready(struct kb_io *io, unsigned events);
static void flush_deferred(struct kb_deferred *deferred);
static void timer_fired(struct kb_timer *timer);

static void network_worker_dispose(struct kb_worker *worker)
{
    struct kb_network_worker *network = worker->slots[KB_SLOT_NETWORK];

    kb_pool_dispose(&network->conns);
    free(network);
    worker->slots[KB_SLOT_NETWORK] = NULL;
}

struct kb_network_worker *kb_network_worker_get(struct kb_worker *worker)
{
    struct kb_network_worker *network = worker->slots[KB_SLOT_NETWORK];

    if (KB_UNLIKELY(network == NULL)) {
        network = kb_malloc(sizeof(*network));
        kb_pool_init(&network->conns, sizeof(struct kb_conn), CONNS_IDLE_MAX);
        kb_list_init(&network->detached);
        worker->slots[KB_SLOT_NETWORK] = network;
        worker->slot_dispose[KB_SLOT_NETWORK] = network_worker_dispose;
    }
    return network;
}

static uint64_t next_connection_id(void)
{
    static uint64_t last;

    return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED) - 1;
}

/* ---- lifecycle ---- */

static struct kb_conn *conn_new(struct kb_worker *worker, size_t buffer_limit)
{
    struct kb_conn *conn = kb_pool_acquire(&kb_network_worker_get(worker)->conns);

    memset(conn, 0, sizeof(*conn));
    KB_OBJ_SET(conn, kb_conn);
    conn->worker = worker;
    kb_buf_init(&conn->in, &worker->slices, buffer_limit);
    conn->buffer_limit = buffer_limit;
    kb_buf_init(&conn->out, &worker->slices, kb_conn_out_high(buffer_limit));
    conn->transport = &kb_transport_socket_raw;
    conn->info.id = next_connection_id();
    conn->info.start_ns = kb_loop_now_ns(&worker->loop);
    kb_deferred_init(&conn->flush, flush_deferred);
    kb_timer_init(&conn->timer, timer_fired);
    worker->connections_open++;
    return conn;
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
    conn->state = KB_CONN_STATE_OPEN;
    if (kb_io_open(&worker->loop, &conn->io, fd, io_ready) != 0) {
        KB_LOG(CONNECTION, ERROR,
               "connection %llu cannot be watched: the system is out of descriptors or memory",
               (unsigned long long)conn->info.id);
        close(fd);
        worker->connections_open--;
        kb_pool_release(&kb_network_worker_get(worker)->conns, conn);
        return NULL;
    }
    return conn;
}

/* `rc` and `fd` are what the start of connecting gave. */
static struct kb_conn *connecting_create(struct kb_worker *worker, const struct kb_addr *addr,
                                         uint64_t timeout_ms, size_t buffer_limit, int rc, int fd)
{
    int cause = errno;
    struct kb_conn *conn = conn_new(worker, buffer_limit);

    conn->info.direct_remote = *addr;
    conn->info.remote = *addr;
    conn->state = KB_CONN_STATE_CONNECTING;
    conn->io.fd = -1;
    if (rc == KB_EAGAIN || rc == 0) {
        rc = kb_io_open(&worker->loop, &conn->io, fd, io_ready);
        if (rc != 0) {
            close(fd);
        }
    } else {
        conn->connect_errno = cause;
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

struct kb_conn *kb_conn_create_connecting(struct kb_worker *worker, const struct kb_addr *addr,
                                          const struct kb_addr *source, uint64_t timeout_ms,
                                          size_t buffer_limit)
{
    int fd = -1;
    int rc = kb_sock_connect(addr, source, &fd);

    return connecting_create(worker, addr, timeout_ms, buffer_limit, rc, fd);
}

struct kb_conn *kb_conn_create_connecting_foreign(struct kb_worker *worker,
                                                  const struct kb_addr *addr,
                                                  const struct kb_sock_foreign_source *source,
                                                  uint64_t timeout_ms, size_t buffer_limit)
{
    int fd = -1;
    int rc = kb_sock_connect_foreign(addr, source, &fd);

    return connecting_create(worker, addr, timeout_ms, buffer_limit, rc, fd);
}

void kb_conn_set_owner(struct kb_conn *conn, const struct kb_conn_callbacks *callbacks, void *owner)
{
    conn->callbacks = callbacks;
    conn->owner = owner;
}

bool kb_conn_is_open(const struct kb_conn *conn)
{
    return conn->state == KB_CONN_STATE_OPEN;
}

/* ---- what is watched ---- */

/* Something could leave if the descriptor took it. */
static bool write_due(const struct kb_conn *conn)
{
    return KB_LIKELY(conn->transport_write == KB_TRANSPORT_WRITE_DATA)
               ? conn->out.len > 0
               : conn->transport_write == KB_TRANSPORT_WRITE_WANTED;
}

static void watch_update(struct kb_conn *conn)
{
    unsigned events = 0;

    switch ((enum kb_conn_state)conn->state) {
    case KB_CONN_STATE_CONNECTING:
        events = KB_IO_WRITE;
        break;
    case KB_CONN_STATE_OPEN:
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
    case KB_CONN_STATE_FLUSHING:
        events = KB_IO_WRITE;
        break;
    case KB_CONN_STATE_DELAYED:
        events = conn->reset_detected ? 0 : KB_IO_HANGUP;
        break;
    case KB_CONN_STATE_CLOSED:
        return;
    }
    kb_io_watch(&conn->io, events);
}

/* ---- reading ---- */

static void deliver(struct kb_conn *conn)
{
    bool end = conn->end_received && conn->half_close_enabled && !conn->end_reported;

    if (conn->state != KB_CONN_STATE_OPEN || conn->read_disable_count > 0 ||
        (conn->in.len == 0 && !end)) {
        return;
    }
    conn->end_reported = conn->end_reported || end;
    conn->callbacks->on_data(conn->owner, &conn->in, end || conn->end_reported);
}

/* The peer's FIN counts once all that came before it was delivered: an owner that pauses gets the
 * rest when it goes on. */
static void end_check(struct kb_conn *conn)
{
    if (conn->state != KB_CONN_STATE_OPEN || !conn->end_received || conn->early_input) {
        return;
    }
    if (conn->half_close_enabled) {
        if (conn->end_reported && conn->end_sent && kb_conn_flushed(conn)) {
            kb_conn_remote_closed(conn);
        }
    } else if (conn->read_disable_count == 0 || conn->early_close_detected) {
        kb_conn_remote_closed(conn);
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
    if (conn->state != KB_CONN_STATE_OPEN) {
        return;
    }
    if (rc != 0 && rc != KB_ECLOSED) {
        kb_conn_remote_closed(conn);
        return;
    }
    end_check(conn);
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
    if (conn->state == KB_CONN_STATE_OPEN) {
        kb_loop_timer_cancel(&conn->worker->loop, &conn->timer);
        if (conn->out.len > 0 || conn->end_wanted) {
            kb_loop_defer_late(&conn->worker->loop, &conn->flush);
        }
        conn->callbacks->on_event(conn->owner, KB_CONN_CONNECTED);
    }
}

void kb_conn_transport_written(struct kb_conn *conn)
{
    if (conn->state == KB_CONN_STATE_OPEN || conn->state == KB_CONN_STATE_FLUSHING) {
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
        kb_conn_remote_closed(conn);
        return;
    }
    conn->state = KB_CONN_STATE_OPEN;
    kb_sock_local_addr(conn->io.fd, &conn->info.local);
    conn->info.direct_local = conn->info.local;
    watch_update(conn);
    conn->transport->on_connected(conn);
}

void kb_conn_early_input_count(struct kb_conn *conn)
{
    conn->early_uncounted = conn->read_disable_count > 0;
    if (!conn->early_uncounted) {
        conn->bytes_received += conn->in.len;
        if (conn->stat_block != NULL) {
            kb_stat_add(conn->stat_block, conn->stat_rx_total, conn->in.len);
        }
    }
}

void kb_conn_read_disable(struct kb_conn *conn, bool disable)
{
    if (disable) {
        conn->read_disable_count++;
    } else {
        KB_ASSERT(conn->read_disable_count > 0);
        conn->read_disable_count--;
        if (conn->read_disable_count == 0 && conn->state == KB_CONN_STATE_OPEN &&
            (conn->in.len > 0 || (conn->end_received && !conn->end_reported))) {
            kb_loop_defer_late(&conn->worker->loop, &conn->flush);
            if (KB_UNLIKELY(conn->early_uncounted)) {
                kb_conn_early_input_count(conn);
            }
        }
    }
    if (conn->state == KB_CONN_STATE_OPEN) {
        watch_update(conn);
    }
}

/* ---- writing ---- */

static void watermarks_check(struct kb_conn *conn)
{
    size_t high = conn->out.high;
    size_t bytes = conn->out.len + conn->transport_bytes;

    if (!conn->above_high && high > 0 && bytes > high) {
        conn->above_high = true;
        if (conn->callbacks->on_above_high != NULL) {
            conn->callbacks->on_above_high(conn->owner);
        }
    } else if (conn->above_high && bytes <= high / 2) {
        conn->above_high = false;
        if (conn->callbacks->on_below_low != NULL) {
            conn->callbacks->on_below_low(conn->owner);
        }
    }
}

/* The peer takes no more. What it said before, an early answer perhaps, still counts. */
static void write_failed(struct kb_conn *conn, int rc)
{
    if (conn->state == KB_CONN_STATE_OPEN && conn->read_disable_count == 0 && !conn->end_received) {
        read_ready(conn);
    }
    if (conn->state == KB_CONN_STATE_OPEN || conn->state == KB_CONN_STATE_FLUSHING) {
        conn->reset_detected = rc == KB_ERESET || rc == KB_ECLOSED;
        kb_conn_remote_closed(conn);
    }
}

static void write_ready(struct kb_conn *conn)
{
    bool end = conn->end_wanted && conn->state == KB_CONN_STATE_OPEN;
    size_t sent;
    int rc = kb_conn_out_write(conn, end, &sent);

    if (rc != 0) {
        write_failed(conn, rc);
        return;
    }
    if (conn->state == KB_CONN_STATE_FLUSHING) {
        if (kb_conn_flushed(conn)) {
            kb_conn_flushed_detached(conn);
        } else if (sent > 0 && kb_timer_armed(&conn->timer)) {
            kb_loop_timer_arm(&conn->worker->loop, &conn->timer, conn->delayed_close_ms);
        }
        return;
    }
    if (sent > 0 && conn->callbacks->on_sent != NULL) {
        conn->callbacks->on_sent(conn->owner, sent);
    }
    if (conn->state == KB_CONN_STATE_OPEN && (conn->above_high || !kb_conn_flushed(conn))) {
        kb_buf_pack(&conn->out);
        watermarks_check(conn);
    }
    if (conn->state == KB_CONN_STATE_OPEN && conn->end_sent && conn->end_reported &&
        kb_conn_flushed(conn)) {
        kb_conn_remote_closed(conn);
    }
}

/* Runs at the end of a round in which something was written or reading was enabled again. */
static void flush_deferred(struct kb_deferred *deferred)
{
    struct kb_conn *conn = KB_CONTAINER_OF(deferred, struct kb_conn, flush);

    bool input = conn->state == KB_CONN_STATE_OPEN &&
                 (conn->in.len > 0 || (conn->end_received && !conn->end_reported));

    KB_ASSERT(conn->kb_magic == (uint32_t)KB_MAGIC_kb_conn);
    if (KB_UNLIKELY(conn->early_input) && conn->state == KB_CONN_STATE_OPEN) {
        early_input_read(conn);
    }
    if (input) {
        deliver(conn); /* before what is written leaves, in Envoy's order */
    }
    if (conn->state == KB_CONN_STATE_OPEN || conn->state == KB_CONN_STATE_FLUSHING) {
        if (!kb_conn_flushed(conn) || (conn->end_wanted && !conn->end_sent)) {
            write_ready(conn);
        } else if (conn->state == KB_CONN_STATE_FLUSHING) {
            kb_conn_flushed_detached(conn);
        }
    }
    if (input) {
        end_check(conn);
    }
    if (conn->state != KB_CONN_STATE_CLOSED) {
        kb_conn_buffered_count(conn);
        watch_update(conn);
    }
}

void kb_conn_written(struct kb_conn *conn)
{
    if (conn->state == KB_CONN_STATE_OPEN) {
        kb_loop_defer_late(&conn->worker->loop, &conn->flush);
        if (KB_UNLIKELY(kb_buf_above_high(&conn->out)) &&
            conn->out.len > KB_MIN(conn->buffer_limit, (size_t)KB_CONN_ROUND_BYTES_MAX)) {
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
    switch ((enum kb_conn_state)conn->state) {
    case KB_CONN_STATE_CONNECTING:
        connect_ready(conn);
        break;
    case KB_CONN_STATE_OPEN:
        if (events & (KB_IO_READ | KB_IO_ERROR)) {
            read_ready(conn);
        }
        if ((events & KB_IO_WRITE) && conn->state == KB_CONN_STATE_OPEN && write_due(conn)) {
            write_ready(conn);
        }
        if ((events & KB_IO_HANGUP) && conn->state == KB_CONN_STATE_OPEN) {
            kb_conn_remote_closed(conn);
        }
        break;
    case KB_CONN_STATE_FLUSHING:
        write_ready(conn);
        break;
    case KB_CONN_STATE_DELAYED:
        kb_conn_delayed_hangup(conn);
        break;
    case KB_CONN_STATE_CLOSED:
        return;
    }
    if (conn->state != KB_CONN_STATE_CLOSED) {
        kb_conn_buffered_count(conn);
        watch_update(conn);
    }
}

static void timer_fired(struct kb_timer *timer)
{
    struct kb_conn *conn = KB_CONTAINER_OF(timer, struct kb_conn, timer);

    KB_ASSERT(conn->kb_magic == (uint32_t)KB_MAGIC_kb_conn);
    if (conn->state == KB_CONN_STATE_CONNECTING) {
        conn->connect_timed_out = conn->io.fd >= 0;
        kb_conn_remote_closed(conn);
        return;
    }
    if (conn->state == KB_CONN_STATE_OPEN) {
        conn->connect_timed_out = true; /* the transport's handshake took too long */
        kb_conn_remote_closed(conn);
        return;
    }
    if (conn->stat_block != NULL && conn->stat_delayed_close != 0) {
        kb_stat_inc(conn->stat_block, conn->stat_delayed_close);
    }
    kb_conn_destroy(conn);
}
