/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of the data path. */
#include "base/sock.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/obj.h"

static int last_error(void)
{
    return kb_err_from_errno(errno);
}

static int set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value));
}

/* Options that must stand before bind; names the one that failed. */
static const char *listen_options_set(int fd, const struct kb_addr *addr,
                                      const struct kb_sock_listen_options *options)
{
    if (!kb_addr_is_ip(addr)) {
        return NULL;
    }
    if (set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1) != 0) {
        return "SO_REUSEADDR";
    }
    if (options->reuse_port && set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1) != 0) {
        return "SO_REUSEPORT";
    }
    if (addr->sa.sa_family == AF_INET6 &&
        set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, !options->ipv4_compat) != 0) {
        return "IPV6_V6ONLY";
    }
    if (options->freebind && set_int(fd, IPPROTO_IP, IP_FREEBIND, 1) != 0) {
        return "IP_FREEBIND";
    }
    if (options->transparent && set_int(fd, IPPROTO_IP, IP_TRANSPARENT, 1) != 0) {
        return "IP_TRANSPARENT";
    }
    return NULL;
}

int kb_sock_start_listening(int fd, int backlog)
{
    return listen(fd, backlog > 0 ? backlog : SOMAXCONN) != 0 ? last_error() : 0;
}

static int listen_on(int fd, const struct kb_addr *addr,
                     const struct kb_sock_listen_options *options, const char **what)
{
    *what = listen_options_set(fd, addr, options);
    if (*what != NULL ||
        (options->before_bind != NULL && options->before_bind(fd, options->arg, what) != 0)) {
        return last_error();
    }
    if (addr->sa.sa_family == AF_UNIX && addr->un.sun_path[0] != '\0') {
        unlink(addr->un.sun_path);
    }
    if (kb_addr_is_ip(addr)) {
        set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1); /* what it accepts has it from here */
    }
    *what = "bind";
    if (bind(fd, &addr->sa, addr->len) != 0) {
        return last_error();
    }
    if (addr->sa.sa_family == AF_UNIX && addr->un.sun_path[0] != '\0' && options->unix_mode != 0) {
        *what = "chmod";
        if (chmod(addr->un.sun_path, options->unix_mode) != 0) {
            return last_error();
        }
    }
    *what = "listen";
    return options->bind_only ? 0 : kb_sock_start_listening(fd, options->backlog);
}

int kb_sock_listen(const struct kb_addr *addr, const struct kb_sock_listen_options *options,
                   int *fd, struct kb_addr *bound, const char **what)
{
    int rc;

    *what = "socket";
    *fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0) {
        return last_error();
    }
    rc = listen_on(*fd, addr, options, what);
    if (rc != 0) {
        close(*fd);
        *fd = -1;
        return rc;
    }
    kb_sock_local_addr(*fd, bound);
    return 0;
}

int kb_sock_accept(int listen_fd, int *fd, struct kb_addr *remote)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);

    *fd = accept4(listen_fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (*fd < 0) {
        /* A connection that was reset before we came is not an error of the listener. */
        return errno == ECONNABORTED ? KB_EAGAIN : last_error();
    }
    kb_addr_from_sockaddr(remote, (struct sockaddr *)&sa, len);
    return 0;
}

/* A socket that may be bound to an address of another machine. */
static int foreign_allow(int fd, const struct kb_sock_foreign_source *source)
{
    bool v4 = source->addr.sa.sa_family == AF_INET;
    int rc = v4 ? set_int(fd, IPPROTO_IP, IP_TRANSPARENT, 1)
                : set_int(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1);

    if (rc == 0 && source->mark != 0) {
        rc = set_int(fd, SOL_SOCKET, SO_MARK, (int)source->mark);
    }
    if (rc != 0) {
        return last_error();
    }
    /* the port is chosen when it is known to whom */
    set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    return 0;
}

static int connect_from(const struct kb_addr *addr, const struct kb_addr *source,
                        const struct kb_sock_foreign_source *foreign, int *fd)
{
    int rc = 0;

    *fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0) {
        return last_error();
    }
    if (kb_addr_is_ip(addr)) {
        set_int(*fd, IPPROTO_TCP, TCP_NODELAY, 1);
    }
    if (KB_UNLIKELY(foreign != NULL)) {
        rc = foreign_allow(*fd, foreign);
    }
    if (rc != 0) {
        /* not without its address */
    } else if (source != NULL && source->len > 0 && bind(*fd, &source->sa, source->len) != 0) {
        rc = last_error();
    } else if (connect(*fd, &addr->sa, addr->len) != 0) {
        rc = last_error();
    }
    if (rc != 0 && rc != KB_EAGAIN) {
        int keep = errno;

        close(*fd);
        *fd = -1;
        errno = keep;
    }
    return rc;
}

int kb_sock_connect(const struct kb_addr *addr, const struct kb_addr *source, int *fd)
{
    return connect_from(addr, source, NULL, fd);
}

int kb_sock_connect_foreign(const struct kb_addr *addr, const struct kb_sock_foreign_source *source,
                            int *fd)
{
    return connect_from(addr, &source->addr, source, fd);
}

int kb_sock_connect_result(int fd, int *errno_value)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
        error = errno;
    }
    *errno_value = error;
    return kb_err_from_errno(error);
}

ssize_t kb_sock_recv(int fd, void *bytes, size_t len)
{
    ssize_t n = recv(fd, bytes, len, 0);

    return KB_LIKELY(n >= 0) ? n : last_error();
}

static ssize_t send_with(int fd, const struct iovec *iov, int count, int flags)
{
    ssize_t n;

    if (KB_LIKELY(count == 1)) {
        n = send(fd, iov->iov_base, iov->iov_len, flags);
    } else {
        struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov,
                             .msg_iovlen = (size_t)count};

        n = sendmsg(fd, &msg, flags);
    }
    return KB_LIKELY(n >= 0) ? n : last_error();
}

ssize_t kb_sock_send(int fd, const struct iovec *iov, int count)
{
    return send_with(fd, iov, count, MSG_NOSIGNAL);
}

ssize_t kb_sock_send_last(int fd, const struct iovec *iov, int count)
{
    return send_with(fd, iov, count, MSG_NOSIGNAL | MSG_MORE);
}

void kb_sock_shutdown_write(int fd)
{
    shutdown(fd, SHUT_WR);
}

void kb_sock_set_linger_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

int kb_sock_set_keepalive(int fd, uint32_t probes, uint32_t time_s, uint32_t interval_s)
{
    if (set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1) != 0 ||
        (probes > 0 && set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, (int)probes) != 0) ||
        (time_s > 0 && set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)time_s) != 0) ||
        (interval_s > 0 && set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, (int)interval_s) != 0)) {
        return last_error();
    }
    return 0;
}

void kb_sock_local_addr(int fd, struct kb_addr *addr)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);

    if (getsockname(fd, (struct sockaddr *)&sa, &len) == 0) {
        kb_addr_from_sockaddr(addr, (struct sockaddr *)&sa, len);
    } else {
        memset(addr, 0, sizeof(*addr));
    }
}

void kb_sock_host_addr(struct kb_addr *addr)
{
    struct ifaddrs *interfaces = NULL;
    bool found = false;

    if (getifaddrs(&interfaces) == 0) {
        for (const struct ifaddrs *i = interfaces; i != NULL && !found; i = i->ifa_next) {
            if (i->ifa_addr == NULL || i->ifa_addr->sa_family != AF_INET) {
                continue;
            }
            kb_addr_from_sockaddr(addr, i->ifa_addr, sizeof(struct sockaddr_in));
            found = !kb_addr_is_loopback(addr);
        }
        freeifaddrs(interfaces);
    }
    if (!found) {
        KB_ASSERT(kb_addr_from_ip(addr, KB_STR("127.0.0.1"), 0) == 0);
    }
}
