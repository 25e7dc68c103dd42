/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets as two queues of bytes, and who has ended, closed or reset; descriptors are numbers that
 * are never used again, so that a use after the close is noticed. */
#include "tests/events/sim_net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#define FD_FIRST    (1 << 20) /* descriptors of the kernel are below; each number is used once */
#define SOCKETS_MAX 8192
#define BACKLOG_MAX 64

struct sim_listener {
    int fd;
    struct kb_io *io;
    struct kb_addr addr;
    bool reuse_port;
    bool listening;
    struct sim_conn *waiting[BACKLOG_MAX];
    size_t waiting_count;
};

/* One descriptor; a duplicate shares the listener. */
struct sim_slot {
    int fd;
    struct sim_conn *conn;
    struct sim_listener *listener;
};

void (*sim_connecting)(struct sim_conn *conn);

static struct sim_slot slots[SOCKETS_MAX];
static size_t slot_count;
static int next_fd = FD_FIRST;

/* ---- bytes ---- */

void sim_bytes_add(struct sim_bytes *bytes, const void *from, size_t len)
{
    if (bytes->len + len > bytes->cap) {
        bytes->cap = (bytes->len + len) * 2;
        bytes->p = kb_realloc(bytes->p, bytes->cap);
    }
    if (len > 0) {
        memcpy(bytes->p + bytes->len, from, len);
    }
    bytes->len += len;
}

void sim_bytes_drop(struct sim_bytes *bytes, size_t len)
{
    bytes->len -= len;
    if (bytes->len > 0) {
        memmove(bytes->p, bytes->p + len, bytes->len);
    }
}

void sim_bytes_dispose(struct sim_bytes *bytes)
{
    free(bytes->p);
    memset(bytes, 0, sizeof(*bytes));
}

/* ---- descriptors ---- */

static struct sim_slot *slot_find(int fd)
{
    for (size_t i = 0; i < slot_count; i++) {
        if (slots[i].fd == fd) {
            return &slots[i];
        }
    }
    return NULL;
}

static struct sim_slot *slot_of(int fd)
{
    struct sim_slot *slot = slot_find(fd);

    if (slot != NULL) {
        return slot;
    }
    fprintf(stderr, "descriptor %d is used after it was closed\n", fd);
    abort();
}

static struct sim_slot *slot_new(struct sim_conn *conn, struct sim_listener *listener)
{
    struct sim_slot *slot = &slots[slot_count++];

    KB_ASSERT(slot_count < SOCKETS_MAX);
    slot->fd = next_fd++;
    slot->conn = conn;
    slot->listener = listener;
    return slot;
}

static struct sim_conn *conn_of(int fd)
{
    struct sim_conn *conn = slot_of(fd)->conn;

    KB_ASSERT(conn != NULL);
    return conn;
}

static void conn_free(struct sim_conn *conn)
{
    sim_bytes_dispose(&conn->to_proxy);
    sim_bytes_dispose(&conn->from_proxy);
    free(conn);
}

static void conn_release(struct sim_conn *conn)
{
    if (conn->proxy_closed && conn->peer_gone) {
        conn_free(conn);
    }
}

static void conn_reset(struct sim_conn *conn, int error)
{
    conn->reset = true;
    conn->error = error;
    conn->to_proxy.len = 0;
    conn->peer_fin = true;
}

static void listener_free(struct sim_listener *listener)
{
    for (size_t i = 0; i < listener->waiting_count; i++) {
        struct sim_conn *conn = listener->waiting[i];

        conn->proxy_closed = true;
        conn->reset = true;
        conn_release(conn);
    }
    free(listener);
}

static void conn_closed_by_proxy(struct sim_conn *conn)
{
    conn->proxy_closed = true;
    conn->io = NULL;
    if (conn->linger_reset) {
        conn->from_proxy.len = 0;
        conn->reset = true;
    } else if (conn->to_proxy.len > 0) {
        conn->reset = true; /* what it has not read makes it a reset, behind what was sent */
    }
    conn_release(conn);
}

static void sim_close(int fd)
{
    struct sim_slot *slot = slot_of(fd);
    struct sim_conn *conn = slot->conn;
    struct sim_listener *listener = slot->listener;
    bool shared = false;

    *slot = slots[--slot_count];
    if (conn != NULL) {
        conn_closed_by_proxy(conn);
        return;
    }
    for (size_t i = 0; i < slot_count; i++) {
        shared = shared || slots[i].listener == listener;
    }
    if (listener->fd == fd) {
        listener->io = NULL;
    }
    if (!shared) {
        listener_free(listener);
    }
}

/* ---- what the linker puts in place of base/sock.h and close ---- */

int __real_close(int fd);
int __wrap_close(int fd);
int __real_dup(int fd);
int __wrap_dup(int fd);
int __wrap_kb_sock_listen(const struct kb_addr *addr, const struct kb_sock_listen_options *options,
                          int *fd, struct kb_addr *bound, const char **what);
int __wrap_kb_sock_start_listening(int fd, int backlog);
int __wrap_kb_sock_accept(int listen_fd, int *fd, struct kb_addr *remote);
int __wrap_kb_sock_connect(const struct kb_addr *addr, const struct kb_addr *source, int *fd);
int __wrap_kb_sock_connect_result(int fd, int *errno_value);
ssize_t __wrap_kb_sock_recv(int fd, void *bytes, size_t len);
ssize_t __wrap_kb_sock_send(int fd, const struct iovec *iov, int count);
ssize_t __wrap_kb_sock_send_last(int fd, const struct iovec *iov, int count);
void __wrap_kb_sock_shutdown_write(int fd);
void __wrap_kb_sock_set_linger_reset(int fd);
int __wrap_kb_sock_set_keepalive(int fd, uint32_t probes, uint32_t time_s, uint32_t interval_s);
void __wrap_kb_sock_local_addr(int fd, struct kb_addr *addr);
int __real_kb_io_open(struct kb_loop *loop, struct kb_io *io, int fd, kb_io_cb cb);
int __wrap_kb_io_open(struct kb_loop *loop, struct kb_io *io, int fd, kb_io_cb cb);
void __real_kb_io_watch(struct kb_io *io, unsigned events);
void __wrap_kb_io_watch(struct kb_io *io, unsigned events);
void __real_kb_io_close(struct kb_io *io, kb_io_closed_cb closed);
void __wrap_kb_io_close(struct kb_io *io, kb_io_closed_cb closed);

int __wrap_close(int fd)
{
    if (fd < FD_FIRST) {
        return __real_close(fd);
    }
    sim_close(fd);
    return 0;
}

int __wrap_dup(int fd)
{
    if (fd < FD_FIRST) {
        return __real_dup(fd);
    }
    return slot_new(NULL, slot_of(fd)->listener)->fd;
}

static int failed(int error)
{
    errno = error;
    return kb_err_from_errno(error);
}

int __wrap_kb_sock_listen(const struct kb_addr *addr, const struct kb_sock_listen_options *options,
                          int *fd, struct kb_addr *bound, const char **what)
{
    struct sim_listener *listener;

    *what = "bind";
    for (size_t i = 0; i < slot_count; i++) {
        if (slots[i].listener != NULL && kb_addr_eq(&slots[i].listener->addr, addr) &&
            !(options->reuse_port && slots[i].listener->reuse_port)) {
            return failed(EADDRINUSE);
        }
    }
    listener = kb_calloc(1, sizeof(*listener));
    listener->addr = *addr;
    listener->reuse_port = options->reuse_port;
    listener->listening = !options->bind_only;
    listener->fd = slot_new(NULL, listener)->fd;
    *fd = listener->fd;
    *bound = *addr;
    return 0;
}

int __wrap_kb_sock_start_listening(int fd, int backlog)
{
    (void)backlog;
    slot_of(fd)->listener->listening = true;
    return 0;
}

int __wrap_kb_sock_accept(int listen_fd, int *fd, struct kb_addr *remote)
{
    struct sim_listener *listener = slot_of(listen_fd)->listener;
    struct sim_conn *conn;

    if (listener->waiting_count == 0) {
        return failed(EAGAIN);
    }
    conn = listener->waiting[0];
    memmove(&listener->waiting[0], &listener->waiting[1],
            --listener->waiting_count * sizeof(listener->waiting[0]));
    conn->fd = slot_new(conn, NULL)->fd;
    *fd = conn->fd;
    *remote = conn->remote;
    return 0;
}

int __wrap_kb_sock_connect(const struct kb_addr *addr, const struct kb_addr *source, int *fd)
{
    struct sim_conn *conn = kb_calloc(1, sizeof(*conn));

    (void)source;
    conn->remote = *addr;
    KB_ASSERT(kb_addr_from_ip(&conn->local, KB_STR("127.0.0.1"), 30000) == 0);
    conn->connect = SIM_CONNECTING;
    sim_connecting(conn);
    if (conn->connect == SIM_REFUSED) {
        conn_free(conn); /* at once, as of a Unix path */
        *fd = -1;
        return failed(ECONNREFUSED);
    }
    conn->fd = slot_new(conn, NULL)->fd;
    *fd = conn->fd;
    return conn->connect == SIM_CONNECTED ? 0 : failed(EINPROGRESS);
}

static int error_take(struct sim_conn *conn)
{
    int error = conn->error;

    conn->error = 0;
    return error;
}

int __wrap_kb_sock_connect_result(int fd, int *errno_value)
{
    struct sim_conn *conn = conn_of(fd);

    if (conn->connect == SIM_CONNECTING) {
        *errno_value = EINPROGRESS;
    } else {
        *errno_value = error_take(conn);
    }
    return kb_err_from_errno(*errno_value);
}

ssize_t __wrap_kb_sock_recv(int fd, void *bytes, size_t len)
{
    struct sim_conn *conn = conn_of(fd);
    size_t n = KB_MIN(len, conn->to_proxy.len);

    if (conn->error != 0) {
        return failed(error_take(conn));
    }
    if (n > 0) {
        memcpy(bytes, conn->to_proxy.p, n);
        sim_bytes_drop(&conn->to_proxy, n);
        return (ssize_t)n;
    }
    return conn->peer_fin ? 0 : failed(EAGAIN);
}

static size_t room_of(const struct sim_conn *conn)
{
    return conn->from_proxy.len < SIM_WINDOW_BYTES ? SIM_WINDOW_BYTES - conn->from_proxy.len : 0;
}

ssize_t __wrap_kb_sock_send(int fd, const struct iovec *iov, int count)
{
    struct sim_conn *conn = conn_of(fd);
    size_t sent = 0;

    if (conn->error != 0) {
        return failed(error_take(conn));
    }
    if (conn->reset || conn->proxy_fin) {
        return failed(EPIPE);
    }
    for (int i = 0; i < count; i++) {
        size_t n = KB_MIN(iov[i].iov_len, room_of(conn));

        sim_bytes_add(&conn->from_proxy, iov[i].iov_base, n);
        sent += n;
        if (n < iov[i].iov_len) {
            break;
        }
    }
    if (conn->peer_gone) {
        conn->from_proxy.len = 0;
        conn_reset(conn, ECONNRESET); /* the far side's answer to bytes that nobody wants */
    }
    return sent > 0 ? (ssize_t)sent : failed(EAGAIN);
}

ssize_t __wrap_kb_sock_send_last(int fd, const struct iovec *iov, int count)
{
    return __wrap_kb_sock_send(fd, iov, count);
}

void __wrap_kb_sock_shutdown_write(int fd)
{
    conn_of(fd)->proxy_fin = true;
}

void __wrap_kb_sock_set_linger_reset(int fd)
{
    conn_of(fd)->linger_reset = true;
}

int __wrap_kb_sock_set_keepalive(int fd, uint32_t probes, uint32_t time_s, uint32_t interval_s)
{
    (void)conn_of(fd);
    (void)probes;
    (void)time_s;
    (void)interval_s;
    return 0;
}

void __wrap_kb_sock_local_addr(int fd, struct kb_addr *addr)
{
    const struct sim_slot *slot = slot_of(fd);

    *addr = slot->conn != NULL ? slot->conn->local : slot->listener->addr;
}

/* ---- in place of the readiness of base/loop.h ---- */

int __wrap_kb_io_open(struct kb_loop *loop, struct kb_io *io, int fd, kb_io_cb cb)
{
    struct sim_slot *slot;

    if (fd < FD_FIRST) {
        return __real_kb_io_open(loop, io, fd, cb);
    }
    slot = slot_of(fd);
    memset(io, 0, sizeof(*io));
    io->loop = loop;
    io->fd = fd;
    io->cb = cb;
    if (slot->conn != NULL) {
        slot->conn->io = io;
    } else {
        slot->listener->io = io;
        slot->listener->fd = fd;
    }
    return 0;
}

void __wrap_kb_io_watch(struct kb_io *io, unsigned events)
{
    if (io->fd >= 0 && io->fd < FD_FIRST) {
        __real_kb_io_watch(io, events);
    } else if (io->fd >= 0) {
        io->watched = events;
    }
}

static void io_closed(void *arg)
{
    struct kb_io *io = arg;

    if (io->closed != NULL) {
        io->closed(io);
    }
}

void __wrap_kb_io_close(struct kb_io *io, kb_io_closed_cb closed)
{
    int fd = io->fd;

    KB_ASSERT(fd >= 0);
    if (fd < FD_FIRST) {
        __real_kb_io_close(io, closed);
        return;
    }
    io->closed = closed;
    io->fd = -1;
    io->watched = 0;
    sim_close(fd);
    kb_loop_post(io->loop, io_closed, io);
}

/* ---- readiness ---- */

/* What the kernel would tell of it now. */
static unsigned conn_ready(const struct sim_conn *conn)
{
    unsigned ready = 0;

    if (conn->io == NULL || conn->io->watched == 0 || conn->connect == SIM_CONNECTING) {
        return 0;
    }
    if (conn->error != 0 || conn->reset) {
        return KB_IO_ERROR | conn->io->watched;
    }
    ready |= conn->to_proxy.len > 0 || conn->peer_fin ? KB_IO_READ : 0;
    ready |= room_of(conn) > 0 ? KB_IO_WRITE : 0;
    ready |= conn->peer_fin ? KB_IO_HANGUP : 0;
    return ready & conn->io->watched;
}

static unsigned slot_ready(const struct sim_slot *slot)
{
    if (slot->conn != NULL) {
        return conn_ready(slot->conn);
    }
    return slot->listener->io != NULL && slot->listener->fd == slot->fd &&
                   slot->listener->waiting_count > 0
               ? KB_IO_READ & slot->listener->io->watched
               : 0;
}

static void tell(void *arg)
{
    struct sim_slot *slot = slot_find((int)(intptr_t)arg);
    unsigned ready = slot != NULL ? slot_ready(slot) : 0;
    struct kb_io *io;

    if (ready == 0) {
        return; /* closed by what came before it */
    }
    io = slot->conn != NULL ? slot->conn->io : slot->listener->io;
    if (ready & KB_IO_ERROR) {
        io->watched = 0; /* as libuv, which stops a watcher with an error */
    }
    io->cb(io, ready);
}

bool sim_poll(uint64_t n)
{
    static struct sim_slot ready[SOCKETS_MAX];
    size_t count = 0;
    struct kb_io *io;

    for (size_t i = 0; i < slot_count; i++) {
        if (slot_ready(&slots[i]) != 0) {
            ready[count++] = slots[i];
        }
    }
    if (count == 0) {
        return false;
    }
    n %= count;
    io = ready[n].conn != NULL ? ready[n].conn->io : ready[n].listener->io;
    kb_loop_post(io->loop, tell, (void *)(intptr_t)ready[n].fd);
    kb_loop_run_once(io->loop, false);
    return true;
}

/* ---- the far side ---- */

struct sim_conn *sim_dial(uint16_t port, uint16_t from_port)
{
    for (size_t i = 0; i < slot_count; i++) {
        struct sim_listener *listener = slots[i].listener;
        struct sim_conn *conn;

        if (listener == NULL || !listener->listening || kb_addr_port(&listener->addr) != port ||
            listener->waiting_count == BACKLOG_MAX) {
            continue;
        }
        conn = kb_calloc(1, sizeof(*conn));
        conn->fd = -1;
        conn->local = listener->addr;
        KB_ASSERT(kb_addr_from_ip(&conn->remote, KB_STR("127.0.0.1"), from_port) == 0);
        listener->waiting[listener->waiting_count++] = conn;
        return conn;
    }
    return NULL;
}

void sim_peer_send(struct sim_conn *conn, const void *bytes, size_t len)
{
    if (conn->proxy_closed) {
        conn->reset = true;
    } else if (!conn->reset && !conn->peer_fin) {
        sim_bytes_add(&conn->to_proxy, bytes, len);
    }
}

void sim_peer_fin(struct sim_conn *conn)
{
    conn->peer_fin = true;
}

void sim_peer_close(struct sim_conn *conn)
{
    if (conn->from_proxy.len > 0 && !conn->reset) {
        sim_peer_reset(conn);
        return;
    }
    conn->peer_fin = true;
    conn->peer_gone = true;
    conn_release(conn);
}

void sim_peer_reset(struct sim_conn *conn)
{
    conn->from_proxy.len = 0;
    conn_reset(conn, ECONNRESET);
    conn->peer_gone = true;
    conn_release(conn);
}

size_t sim_conns_open(void)
{
    size_t count = 0;

    for (size_t i = 0; i < slot_count; i++) {
        count += slots[i].conn != NULL;
    }
    return count;
}

void sim_conns_show(void)
{
    for (size_t i = 0; i < slot_count; i++) {
        const struct sim_conn *conn = slots[i].conn;
        char text[KB_ADDR_TEXT_MAX];
        struct kb_str remote;

        if (conn == NULL) {
            continue;
        }
        remote = kb_addr_text(&conn->remote, text);
        fprintf(
            stderr,
            "  fd %d to %.*s: watched %u, ready %u, %zu bytes to the proxy, %zu from it%s%s%s%s\n",
            conn->fd, KB_STR_ARG(remote), conn->io != NULL ? conn->io->watched : 0,
            conn_ready(conn), conn->to_proxy.len, conn->from_proxy.len,
            conn->peer_fin ? ", peer ended" : "", conn->peer_gone ? ", peer gone" : "",
            conn->reset ? ", reset" : "", conn->proxy_fin ? ", proxy ended" : "");
    }
}
