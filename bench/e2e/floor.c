/* SPDX-License-Identifier: Apache-2.0 */
/* The floor of the benchmark: an epoll relay that copies bytes between a client and an upstream
 * connection of its own and parses nothing. A proxy cannot cost less than this in this shape, so
 * what it spends above it is the price of its work. One thread; upstream connections are not
 * shared. usage: floor LISTEN_PORT UPSTREAM_PORT (both on 127.0.0.1) */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 64, BYTES_MAX = 16384 };

/* One direction's end: a socket, its other end, and the bytes that it could not take yet. */
struct side {
    int fd;
    bool waiting; /* for writability: the other end is not read meanwhile */
    bool dead;
    struct side *peer;
    size_t held, sent;
    char bytes[BYTES_MAX];
};

static int epoll_fd;
static struct sockaddr_in upstream;

static void fatal(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_in loopback(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    address.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void watch(int op, struct side *side, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = side};

    if (epoll_ctl(epoll_fd, op, side->fd, &event) != 0) {
        fatal("epoll_ctl");
    }
}

static struct side *side_create(int fd)
{
    struct side *side = calloc(1, sizeof(*side));
    int on = 1;

    if (side == NULL) {
        fatal("calloc");
    }
    side->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return side;
}

static void pair_accept(int listener)
{
    int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int server;
    struct side *down, *up;

    if (client < 0) {
        return;
    }
    server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server < 0) {
        fatal("socket");
    }
    if (connect(server, (struct sockaddr *)&upstream, sizeof(upstream)) != 0 &&
        errno != EINPROGRESS) {
        close(client);
        close(server);
        return;
    }
    down = side_create(client);
    up = side_create(server);
    down->peer = up;
    up->peer = down;
    watch(EPOLL_CTL_ADD, down, EPOLLIN);
    watch(EPOLL_CTL_ADD, up, EPOLLIN);
}

/* Both ends are closed now and freed at the end of the round of events, which may name them. */
static void pair_close(struct side *side)
{
    if (side->dead) {
        return;
    }
    side->dead = side->peer->dead = true;
    close(side->fd);
    close(side->peer->fd);
}

/* Sends what is held for `side`; false when the connection broke. */
static bool side_flush(struct side *side)
{
    while (side->sent < side->held) {
        ssize_t n = send(side->fd, side->bytes + side->sent, side->held - side->sent, MSG_NOSIGNAL);

        if (n < 0) {
            if (errno != EAGAIN && errno != ENOTCONN) {
                return false;
            }
            if (!side->waiting) {
                side->waiting = true;
                watch(EPOLL_CTL_MOD, side, EPOLLIN | EPOLLOUT);
                watch(EPOLL_CTL_MOD, side->peer, 0);
            }
            return true;
        }
        side->sent += (size_t)n;
    }
    side->sent = side->held = 0;
    if (side->waiting) {
        side->waiting = false;
        watch(EPOLL_CTL_MOD, side, EPOLLIN);
        watch(EPOLL_CTL_MOD, side->peer, EPOLLIN);
    }
    return true;
}

static void side_event(struct side *side, uint32_t events)
{
    ssize_t n;

    if (side->dead) {
        return;
    }
    if ((events & EPOLLOUT) != 0 && side->waiting && !side_flush(side)) {
        pair_close(side);
        return;
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0 || side->peer->waiting) {
        return;
    }
    n = recv(side->fd, side->peer->bytes, BYTES_MAX, 0);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        pair_close(side);
        return;
    }
    side->peer->held = (size_t)n;
    if (!side_flush(side->peer)) {
        pair_close(side);
    }
}

static void free_dead(struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        struct side *side = events[i].data.ptr;

        if (side == NULL || !side->dead) {
            continue;
        }
        for (int j = i + 1; j < count; j++) {
            if (events[j].data.ptr == side || events[j].data.ptr == side->peer) {
                events[j].data.ptr = NULL;
            }
        }
        free(side->peer);
        free(side);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address;
    struct epoll_event events[EVENTS_MAX];
    struct epoll_event accepts = {.events = EPOLLIN, .data.ptr = NULL};
    int listener, on = 1;

    if (argc != 3) {
        fprintf(stderr, "usage: floor LISTEN_PORT UPSTREAM_PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    address = loopback(argv[1]);
    upstream = loopback(argv[2]);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (epoll_fd < 0 || listener < 0) {
        fatal("socket");
    }
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, 1024) != 0) {
        fatal("bind");
    }
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &accepts) != 0) {
        fatal("epoll_ctl");
    }
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);

        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL) {
                pair_accept(listener);
            } else {
                side_event(events[i].data.ptr, events[i].events);
            }
        }
        free_dead(events, count);
    }
}
