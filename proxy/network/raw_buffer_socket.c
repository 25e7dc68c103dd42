/* SPDX-License-Identifier: Apache-2.0 */
/* The raw transport socket: queue to descriptor and back without change
 * (envoy.transport_sockets.raw_buffer). */
#include "proxy/api/connection.h"

/* Reads of one event while each fills its room: a bulk sender is served in pieces of 64 KiB, others
 * get their turn. */
#define READS_PER_EVENT 4

static int raw_do_read(struct kb_conn *conn)
{
    for (unsigned i = 0; i < READS_PER_EVENT; i++) {
        size_t room;
        char *at = kb_buf_read_room(&conn->in, &room);
        ssize_t n = kb_sock_recv(conn->io.fd, at, room);

        if (n <= 0) {
            kb_buf_trim(&conn->in);
            return n == 0 ? KB_ECLOSED : n == KB_EAGAIN ? 0 : (int)n;
        }
        kb_buf_commit(&conn->in, (size_t)n);
        conn->bytes_received += (uint64_t)n;
        if ((size_t)n < room || kb_buf_above_high(&conn->in)) {
            return 0;
        }
    }
    return 0;
}

static int raw_do_write(struct kb_conn *conn, bool end_stream)
{
    while (conn->out.len > 0) {
        struct iovec iov[KB_BUF_IOV_MAX];
        int count = kb_buf_iov(&conn->out, iov, KB_BUF_IOV_MAX);
        size_t before = conn->out.len;
        ssize_t n = kb_sock_send(conn->io.fd, iov, count);

        if (n < 0) {
            return n == KB_EAGAIN ? 0 : (int)n;
        }
        conn->bytes_sent += (uint64_t)n;
        kb_buf_consume(&conn->out, (size_t)n);
        if ((size_t)n < before && count < KB_BUF_IOV_MAX) {
            return 0; /* the socket is full */
        }
    }
    if (end_stream && !conn->end_sent) {
        conn->end_sent = true;
        kb_sock_shutdown_write(conn->io.fd);
    }
    return 0;
}

static void raw_on_connected(struct kb_conn *conn)
{
    conn->callbacks->on_event(conn->owner, KB_CONN_CONNECTED);
}

static void raw_close(struct kb_conn *conn)
{
    (void)conn;
}

const struct kb_transport_socket_ops kb_transport_socket_raw = {
    .name = "envoy.transport_sockets.raw_buffer",
    .do_read = raw_do_read,
    .do_write = raw_do_write,
    .on_connected = raw_on_connected,
    .close = raw_close,
};
