/* SPDX-License-Identifier: Apache-2.0 */
/* One socket, downstream or upstream: reading with back-pressure, buffered writing with watermarks,
 * half-close, the ways to close, and the transport socket (raw, TLS) between the queue and the
 * descriptor. Implemented in proxy/network/connection.c and connection_close.c. Everything runs on
 * the connection's worker. */
#pragma once

#include "base/sock.h"
#include "base/worker.h"
#include "proxy/api/stream_info.h"

struct kb_conn;
struct kb_sniffed;
struct kb_sock_foreign_source;
struct kb_transport_socket_options;

enum kb_conn_event {
    KB_CONN_CONNECTED,    /* upstream: ready for data; transport handshake done */
    KB_CONN_REMOTE_CLOSE, /* the peer closed, reset, or the connection failed; the last event */
    KB_CONN_LOCAL_CLOSE,  /* kb_conn_close; the last event */
};

enum kb_conn_close {
    KB_CONN_FLUSH_WRITE,           /* send what is buffered, then close */
    KB_CONN_FLUSH_WRITE_AND_DELAY, /* then FIN, and wait for the peer's FIN for the delayed close
                                      timeout */
    KB_CONN_NO_FLUSH,              /* write what the socket takes at once, drop the rest, close */
    KB_CONN_ABORT_RESET,           /* RST */
};

/* All are called with the owner; none may be NULL except the watermark ones. The connection's
 * memory goes after the last event, when the present event of the loop is done. */
struct kb_conn_callbacks {
    /* Bytes came (or only end_stream, once). Consume from `in` what is understood; the rest is
     * kept, and the call is repeated when more comes. `in` is borrowed. With reading disabled it is
     * not called. */
    void (*on_data)(void *owner, struct kb_buf *in, bool end_stream);
    void (*on_event)(void *owner, enum kb_conn_event event);
    /* The write queue passed its high watermark / fell to half of it. */
    void (*on_above_high)(void *owner);
    void (*on_below_low)(void *owner);
    /* `n` bytes left through the descriptor; may be NULL. */
    void (*on_sent)(void *owner, size_t n);
};

/* Transport sockets: what stands between queues and the descriptor. The raw one is the default. */
struct kb_transport_socket_ops {
    const char *name;
    /* Reads into conn->in until KB_EAGAIN, the budget, or the end. Returns 0, or KB_ECLOSED at the
     * peer's end of stream, or another error when the connection is broken. */
    int (*do_read)(struct kb_conn *conn);
    /* Sends from conn->out. Returns 0 (conn->out.len says what is left) or an error. */
    int (*do_write)(struct kb_conn *conn, bool end_stream);
    void (*on_connected)(
        struct kb_conn *conn); /* TCP is up; raises KB_CONN_CONNECTED when the transport is too */
    /* The descriptor is closed next: a last word to the peer. conn->info stays as it is. */
    void (*close)(struct kb_conn *conn);
    /* The connection's memory goes; may be NULL. */
    void (*dispose)(struct kb_conn *conn);
};

/* What a transport socket says of its writing; see struct kb_conn. */
enum kb_transport_write {
    KB_TRANSPORT_WRITE_DATA,   /* as much as conn->out says; the raw one never leaves this */
    KB_TRANSPORT_WRITE_WANTED, /* it has bytes of its own for the descriptor */
    KB_TRANSPORT_WRITE_HELD,   /* conn->out has to wait for the peer: a handshake */
};
extern const struct kb_transport_socket_ops kb_transport_socket_raw;

/* So much waits to be written at most, unless the configured limit is larger than the default one:
 * more would only be memory. Until the socket was tried, at the end of the loop's round, it may be
 * KB_CONN_ROUND_BYTES_MAX, so that a source is not stopped for a peer that does read. */
#define KB_CONN_OUT_BYTES_MAX       (32 * 1024)
#define KB_CONN_ROUND_BYTES_MAX     (128 * 1024)
#define KB_CONN_LIMIT_BYTES_DEFAULT (1024 * 1024)

/* High watermark of what waits to be written, for a per_connection_buffer_limit_bytes. */
KB_INLINE size_t kb_conn_out_high(size_t limit)
{
    return limit <= KB_CONN_LIMIT_BYTES_DEFAULT ? KB_MIN(limit, (size_t)KB_CONN_OUT_BYTES_MAX)
                                                : limit;
}

struct kb_conn {
    KB_OBJ;
    struct kb_io io;
    struct kb_worker *worker;
    struct kb_buf in;
    struct kb_buf out;
    size_t buffer_limit; /* per_connection_buffer_limit_bytes; 0: none. out has a lower bound of its
                            own */
    const struct kb_conn_callbacks *callbacks;
    void *owner;
    const struct kb_transport_socket_ops *transport;
    void *transport_state;
    struct kb_sniffed *sniffed; /* see listener_filter.h; freed with the connection, mostly NULL */
    /* What a listener filter wants of upstream connections made for this one; freed with it, mostly
     * NULL. */
    struct kb_transport_socket_options *upstream_options;
    struct kb_connection_info info;
    struct kb_stream_info *stream_info; /* of the filter to which the whole connection is one
                                           stream (tcp_proxy); NULL: none */
    size_t transport_bytes; /* made of what was written by the transport socket, and not sent yet */
    struct kb_deferred flush;
    struct kb_list detached_link; /* in the worker's list while flushed without an owner */
    struct kb_timer timer;        /* connect timeout, later delayed close */
    uint64_t delayed_close_ms;
    uint64_t bytes_received; /* on the descriptor, for *_cx_rx_bytes_total */
    uint64_t bytes_sent;
    uint64_t filters_received; /* of these, what filters said and heard for themselves */
    uint64_t filters_sent;
    /* Statistics cells of the owner, updated as bytes come and go; NULL: not counted. */
    struct kb_stat_block *stat_block;
    uint16_t stat_rx_total, stat_rx_buffered, stat_tx_total, stat_tx_buffered;
    uint16_t stat_delayed_close;    /* 0: not counted */
    size_t counted_in, counted_out; /* what the *_buffered gauges show of this connection */
    unsigned read_disable_count;
    uint8_t state;   /* enum kb_conn_state of connection_internal.h */
    bool end_sent;   /* FIN sent or to be sent after `out` */
    bool end_wanted; /* half-close asked for */
    bool end_received;
    bool end_reported;
    bool half_close_enabled;   /* the peer's FIN is end_stream, not an event */
    bool early_close_detected; /* set by the owner: the peer's FIN ends it even while reading is
                                  disabled */
    bool close_told_late;      /* set by the owner: see kb_conn_close */
    bool close_due;            /* closed by the owner, who still has to hear of the end */
    bool closed_by_peer;       /* while it was due */
    bool above_high;
    bool early_input;     /* bytes were read before the transport socket was there */
    bool early_uncounted; /* they count as received when reading is enabled */
    bool reset_detected;  /* the peer sent RST */
    bool connect_timed_out;
    bool handshaking;        /* the transport is not ready; `timer` is for that */
    uint8_t transport_write; /* enum kb_transport_write; set by the transport socket */
    int connect_errno;       /* why connecting failed */
};
KB_OBJ_MAGIC(kb_conn, 0x434f4e4e);

/* Bytes of the application that came, and that left. */
KB_INLINE uint64_t kb_conn_app_received(const struct kb_conn *conn)
{
    return conn->bytes_received - KB_MIN(conn->filters_received, conn->bytes_received);
}

KB_INLINE uint64_t kb_conn_app_sent(const struct kb_conn *conn)
{
    return conn->bytes_sent - KB_MIN(conn->filters_sent, conn->bytes_sent);
}

/* A connection over an accepted descriptor, which it owns from now on; NULL when the system gives
 * no more. Reading starts when kb_conn_start is called. The write queue's high watermark is
 * `buffer_limit` bytes (0: none). */
struct kb_conn *kb_conn_create_accepted(struct kb_worker *worker, int fd,
                                        const struct kb_addr *remote, const struct kb_addr *local,
                                        size_t buffer_limit);

/* Starts to connect to `addr` (from `source` when not NULL). The outcome comes as an event, never
 * from within this call. After `timeout_ms` without success: REMOTE_CLOSE with connect_timed_out.
 */
struct kb_conn *kb_conn_create_connecting(struct kb_worker *worker, const struct kb_addr *addr,
                                          const struct kb_addr *source, uint64_t timeout_ms,
                                          size_t buffer_limit);
/* The same from an address of another machine. */
struct kb_conn *kb_conn_create_connecting_foreign(struct kb_worker *worker,
                                                  const struct kb_addr *addr,
                                                  const struct kb_sock_foreign_source *source,
                                                  uint64_t timeout_ms, size_t buffer_limit);

/* Sets who hears of it; before the first event. */
void kb_conn_set_owner(struct kb_conn *conn, const struct kb_conn_callbacks *callbacks,
                       void *owner);
/* Begins to read. What listener filters have left in `in` is delivered at the end of the round. */
void kb_conn_start(struct kb_conn *conn);

/* For a connection whose transport has a handshake ahead: it is over after `timeout_ms` without
 * success, with connect_timed_out. Before the first event. */
void kb_conn_set_handshake_timeout(struct kb_conn *conn, uint64_t timeout_ms);
/* For transport sockets: the handshake succeeded. Raises KB_CONN_CONNECTED, in which the owner may
 * close the connection: ask kb_conn_is_open afterwards. */
void kb_conn_handshake_done(struct kb_conn *conn);
/* For transport sockets: bytes of its own wait to be written when the present event is done. */
void kb_conn_transport_written(struct kb_conn *conn);

/* The queue to write to: append to conn->out with the kb_buf functions, then call this. What is
 * there leaves when the present event is done. */
void kb_conn_written(struct kb_conn *conn);
/* Half-close after what is in conn->out. */
void kb_conn_end_stream(struct kb_conn *conn);

/* Counted: reading goes on when each disable was taken back. Data already in conn->in is delivered
 * then. */
void kb_conn_read_disable(struct kb_conn *conn, bool disable);
/* What listener filters read counts as received, when the owner first lets it be read. */
void kb_conn_early_input_count(struct kb_conn *conn);

/* on_event(LOCAL_CLOSE) comes from within this call for every kind; afterwards the owner hears no
 * more, whatever is still being flushed. Harmless when closed already.
 * With close_told_late the event comes when the descriptor is closed: for the flushing kinds later,
 * and as REMOTE_CLOSE when the peer closed first; nothing else comes in between. A kind that does
 * not flush ends such a wait. */
void kb_conn_close(struct kb_conn *conn, enum kb_conn_close how);

/* Connected, and the last event has not come. */
bool kb_conn_is_open(const struct kb_conn *conn);

/* The worker ends: connections that are only being flushed, or wait for their peer, are closed now.
 * On the worker. */
void kb_conns_worker_close(struct kb_worker *worker);
