/* SPDX-License-Identifier: Apache-2.0 */
/* Non-blocking sockets: creation, options, and the calls of the data path with their errors mapped.
 */
#pragma once

#include <sys/uio.h>

#include "base/addr.h"

struct kb_sock_listen_options {
    bool reuse_port;
    bool transparent;
    bool freebind;
    bool ipv4_compat; /* an IPv6 socket accepts IPv4 too */
    bool bind_only;   /* kb_sock_start_listening comes later */
    int backlog;      /* 0: the system's maximum */
    uint32_t unix_mode;
    /* Sets further options before bind(); not 0: failed, with errno and *what. May be NULL. */
    int (*before_bind)(int fd, const void *arg, const char **what);
    const void *arg;
};

/* A listening socket; *bound gets the address with the real port. On error *what names the call
 * that failed. */
int kb_sock_listen(const struct kb_addr *addr, const struct kb_sock_listen_options *options,
                   int *fd, struct kb_addr *bound, const char **what) KB_MUST_USE;

/* For a socket made with bind_only. */
int kb_sock_start_listening(int fd, int backlog) KB_MUST_USE;

/* The next waiting connection, TCP_NODELAY set. KB_EAGAIN: none; KB_ENOMEM: out of descriptors or
 * memory. */
int kb_sock_accept(int listen_fd, int *fd, struct kb_addr *remote) KB_MUST_USE;

/* Starts to connect, from `source` when not NULL. 0: connected already; KB_EAGAIN: wait for
 * writability; else failed, no descriptor is left. */
int kb_sock_connect(const struct kb_addr *addr, const struct kb_addr *source, int *fd) KB_MUST_USE;
/* An address that need not be one of this machine's: what connects from there is told apart by its
 * mark (0: none), for the routing of the answers. Needs CAP_NET_ADMIN. */
struct kb_sock_foreign_source {
    struct kb_addr addr;
    uint32_t mark;
};
/* As kb_sock_connect, from there. */
int kb_sock_connect_foreign(const struct kb_addr *addr, const struct kb_sock_foreign_source *source,
                            int *fd) KB_MUST_USE;
/* After writability: 0 when connected, else why not; later the error that the socket has met.
 * *errno_value gets the system's code. */
int kb_sock_connect_result(int fd, int *errno_value) KB_MUST_USE;

/* Bytes received (> 0), 0 at the end of the stream, or negative: KB_EAGAIN, KB_ERESET... */
ssize_t kb_sock_recv(int fd, void *bytes, size_t len) KB_MUST_USE;
/* Bytes sent (>= 0) or negative. Never raises SIGPIPE. */
ssize_t kb_sock_send(int fd, const struct iovec *iov, int count) KB_MUST_USE;
/* The same where close() comes next: what fits in one segment leaves with the end of the stream. */
ssize_t kb_sock_send_last(int fd, const struct iovec *iov, int count) KB_MUST_USE;

/* Half-close: nothing more will be sent. */
void kb_sock_shutdown_write(int fd);
/* The next close sends RST instead of FIN. */
void kb_sock_set_linger_reset(int fd);
/* TCP keep-alive; 0 leaves the system's value. */
int kb_sock_set_keepalive(int fd, uint32_t probes, uint32_t time_s,
                          uint32_t interval_s) KB_MUST_USE;
/* The shortest round trip that the kernel has seen on a TCP connection lately, in microseconds; 0:
 * it does not know. Takes a system call. */
uint32_t kb_sock_rtt_us(int fd);
void kb_sock_local_addr(int fd, struct kb_addr *addr);
/* The first IPv4 address of this machine that is no loopback; 127.0.0.1 when there is none. Takes
 * system calls. */
void kb_sock_host_addr(struct kb_addr *addr);
