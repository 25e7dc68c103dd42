/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets. They are bound by the main thread and watched by the workers; a listener that
 * is replaced by another one on the same address leaves them open, and no connection is lost. */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/listener/listener_internal.h"

/* Sets that workers are closing. Main thread. */
static struct kb_list closing_sets = {&closing_sets, &closing_sets};

#define ACCEPT_PAUSE_MS 100 /* out of descriptors: others need time to close some */

/* ---- on the worker ---- */

static void accept_pause(struct kb_listen_socket *socket)
{
    if (!socket->paused) {
        KB_LOG(CONN_HANDLER, ERROR,
               "listener '%.*s': the process is out of file descriptors or memory, accepting "
               "pauses until there are some, tried again every %d ms; raise the limit of open "
               "files (ulimit -n)",
               KB_STR_ARG(socket->lw->listener->name), ACCEPT_PAUSE_MS);
    }
    KB_LOG(CONN_HANDLER, DEBUG, "listener '%.*s': one more pause",
           KB_STR_ARG(socket->lw->listener->name));
    socket->paused = true;
    kb_io_watch(&socket->io, 0);
    kb_loop_timer_arm(&socket->lw->worker->loop, &socket->pause, ACCEPT_PAUSE_MS);
}

/* stop_accepting_connections: what comes waits in the kernel's queue. */
static bool overload_stops(const struct kb_listener *listener)
{
    const struct kb_overload_state *overload = &listener->server->overload;

    return kb_overload_any(overload) && !listener->bypass_overload &&
           kb_overload_value(overload, KB_OVERLOAD_STOP_ACCEPTING_CONNECTIONS) ==
               KB_OVERLOAD_SATURATED;
}

static void listen_ready(struct kb_io *io, unsigned events)
{
    struct kb_listen_socket *socket = KB_CONTAINER_OF(io, struct kb_listen_socket, io);
    struct kb_listener_worker *lw = socket->lw;
    uint32_t count = 0;

    (void)events;
    KB_ASSERT(socket->kb_magic == (uint32_t)KB_MAGIC_kb_listen_socket);
    if (overload_stops(lw->listener)) {
        kb_io_watch(&socket->io, 0);
        kb_loop_timer_arm(&lw->worker->loop, &socket->pause, ACCEPT_PAUSE_MS);
        return;
    }
    for (; count < lw->listener->accepts_per_event && socket->lw != NULL; count++) {
        struct kb_addr remote;
        int fd;
        int rc = kb_sock_accept(io->fd, &fd, &remote);

        if (rc == KB_ENOMEM) {
            accept_pause(socket);
        }
        if (rc != 0) {
            break;
        }
        if (KB_UNLIKELY(socket->paused)) {
            socket->paused = false;
            KB_LOG(CONN_HANDLER, INFO, "listener '%.*s': accepting again",
                   KB_STR_ARG(lw->listener->name));
        }
        kb_listener_accepted(lw, fd, &remote, &socket->bound);
    }
    if (count > 0) {
        kb_stat_record(lw->stats, KB_STAT_LISTENER_CONNECTIONS_ACCEPTED_PER_SOCKET_EVENT, count);
    }
}

static void pause_over(struct kb_timer *timer)
{
    struct kb_listen_socket *socket = KB_CONTAINER_OF(timer, struct kb_listen_socket, pause);

    KB_ASSERT(socket->kb_magic == (uint32_t)KB_MAGIC_kb_listen_socket);
    if (socket->lw == NULL) {
        return;
    }
    if (overload_stops(socket->lw->listener)) {
        kb_loop_timer_arm(&socket->lw->worker->loop, timer, ACCEPT_PAUSE_MS);
        return;
    }
    kb_io_watch(&socket->io, KB_IO_READ);
}

void kb_listen_sockets_serve(struct kb_listen_sockets *sockets, struct kb_listener_worker *lw)
{
    uint32_t index = (uint32_t)(lw - lw->active->workers);

    for (size_t i = 0; i < sockets->addr_count; i++) {
        struct kb_listen_socket *socket = &sockets->sockets[i * sockets->worker_count + index];

        socket->lw = lw;
        if (socket->fd < 0) {
            continue; /* watched since an earlier version of the listener */
        }
        if (kb_io_open(&lw->worker->loop, &socket->io, socket->fd, listen_ready) != 0) {
            KB_LOG(CONN_HANDLER, ERROR,
                   "listener '%.*s' cannot be watched: the system is out of descriptors",
                   KB_STR_ARG(lw->listener->name));
            socket->lw = NULL;
            continue;
        }
        socket->fd = -1;
        kb_io_watch(&socket->io, KB_IO_READ);
    }
}

/* To unlink nobody else's path later. */
static uint64_t path_inode(const struct kb_addr *addr)
{
    struct stat st;

    return addr->sa.sa_family == AF_UNIX && addr->un.sun_path[0] != '\0' &&
                   stat(addr->un.sun_path, &st) == 0
               ? (uint64_t)st.st_ino
               : 0;
}

static void kept_close(struct kb_listen_sockets *sockets)
{
    for (size_t i = 0; i < sockets->addr_count; i++) {
        if (sockets->kept[i] >= 0) {
            close(sockets->kept[i]);
            sockets->kept[i] = -1;
        }
    }
}

static void sockets_free(void *arg)
{
    struct kb_listen_sockets *sockets = arg;

    for (size_t i = 0; i < sockets->addr_count; i++) {
        const struct kb_addr *addr = &sockets->addrs[i].addr;

        if (sockets->inodes[i] != 0 && path_inode(addr) == sockets->inodes[i]) {
            unlink(addr->un.sun_path);
        }
    }
    kept_close(sockets);
    kb_list_unlink(&sockets->closing);
    free(sockets->kept);
    free(sockets->inodes);
    free(sockets->bound);
    free(sockets->addrs);
    free(sockets);
}

static void holder_remove(struct kb_listen_sockets *sockets)
{
    if (__atomic_sub_fetch(&sockets->holders, 1, __ATOMIC_ACQ_REL) == 0) {
        kb_loop_post(&sockets->server->main->loop, sockets_free, sockets);
    }
}

static void socket_closed(struct kb_io *io)
{
    holder_remove(KB_CONTAINER_OF(io, struct kb_listen_socket, io)->set);
}

void kb_listen_sockets_close_worker(struct kb_listen_sockets *sockets, uint32_t index)
{
    for (size_t i = 0; i < sockets->addr_count; i++) {
        struct kb_listen_socket *socket = &sockets->sockets[i * sockets->worker_count + index];

        if (socket->lw == NULL) {
            if (socket->fd >= 0) {
                close(socket->fd);
                socket->fd = -1;
            }
            continue;
        }
        kb_loop_timer_cancel(&socket->lw->worker->loop, &socket->pause);
        socket->lw = NULL;
        __atomic_add_fetch(&sockets->holders, 1, __ATOMIC_RELAXED);
        kb_io_close(&socket->io, socket_closed);
    }
}

/* ---- on the main thread ---- */

static int option_set(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value));
}

static int options_set(int fd, const struct kb_listener *listener, enum kb_sock_state state,
                       const char **what)
{
    *what = "setsockopt";
    for (size_t i = 0; i < listener->socket_option_count; i++) {
        const struct kb_listener_sock_option *option = &listener->socket_options[i];

        if (option->state == state && setsockopt(fd, option->level, option->name, option->value.p,
                                                 (socklen_t)option->value.len) != 0) {
            return -1;
        }
    }
    return 0;
}

static int before_bind(int fd, const void *arg, const char **what)
{
    const struct kb_listener *listener = arg;

    *what = "SO_KEEPALIVE";
    if (listener->keepalive.set &&
        kb_sock_set_keepalive(fd, listener->keepalive.probes, listener->keepalive.time_s,
                              listener->keepalive.interval_s) != 0) {
        return -1;
    }
    *what = "TCP_FASTOPEN";
    if (listener->fast_open_queue_length > 0 &&
        option_set(fd, IPPROTO_TCP, TCP_FASTOPEN, (int)listener->fast_open_queue_length) != 0) {
        return -1;
    }
    return options_set(fd, listener, KB_SOCK_PREBIND, what);
}

/* The shared socket of a listener that was just removed, when it had this address and these
 * options: its workers have not closed it yet, so the address could not be bound. -1: none. */
static int closing_socket(const struct kb_listener *listener, const struct kb_addr *addr,
                          struct kb_addr *bound)
{
    KB_LIST_FOREACH (link, &closing_sets) {
        const struct kb_listen_sockets *sockets =
            KB_LIST_ENTRY(link, struct kb_listen_sockets, closing);

        for (size_t i = 0; i < sockets->addr_count; i++) {
            if (sockets->kept[i] >= 0 && sockets->hash_of_options == listener->hash_of_sockets &&
                kb_addr_eq(&sockets->bound[i], addr)) {
                *bound = sockets->bound[i];
                return dup(sockets->kept[i]);
            }
        }
    }
    return -1;
}

static int first_bind(struct kb_listen_sockets *sockets, const struct kb_listener *listener,
                      const struct kb_sock_listen_options *options, struct kb_addr *addr, size_t at,
                      struct kb_listen_socket *socket, const char **what)
{
    socket->fd = closing_socket(listener, addr, &sockets->bound[at]);
    if (socket->fd >= 0) {
        return 0;
    }
    return kb_sock_listen(addr, options, &socket->fd, &sockets->bound[at], what) != 0 ||
                   options_set(socket->fd, listener, KB_SOCK_BOUND, what) != 0
               ? -1
               : 0;
}

/* Binds the sockets of one address. */
static int address_bind(struct kb_listen_sockets *sockets, const struct kb_listener *listener,
                        size_t at, const char **what)
{
    struct kb_sock_listen_options options = {
        .reuse_port = listener->reuse_port,
        .transparent = listener->transparent,
        .freebind = listener->freebind,
        .ipv4_compat = listener->addrs[at].ipv4_compat,
        .bind_only = true,
        .unix_mode = listener->addrs[at].unix_mode,
        .before_bind = before_bind,
        .arg = listener,
    };
    struct kb_addr addr = listener->addrs[at].addr;
    struct kb_listen_socket *first = &sockets->sockets[at * sockets->worker_count];

    for (uint32_t i = 0; i < sockets->worker_count; i++) {
        struct kb_listen_socket *socket = first + i;

        if (i > 0 && !listener->reuse_port) {
            socket->fd = dup(first->fd);
            *what = "dup";
            if (socket->fd < 0) {
                return -1;
            }
        } else if (first_bind(sockets, listener, &options, &addr, at, socket, what) != 0) {
            return -1;
        }
        /* Port 0: the others take the port that the first one got. */
        addr = sockets->bound[at];
        socket->bound = addr;
    }
    if (!listener->reuse_port && kb_addr_is_ip(&listener->addrs[at].addr)) {
        sockets->kept[at] = dup(first->fd); /* without it, it is bound again */
    }
    sockets->inodes[at] = path_inode(&listener->addrs[at].addr);
    return 0;
}

static void fds_close(struct kb_listen_sockets *sockets)
{
    for (size_t i = 0; i < sockets->addr_count * sockets->worker_count; i++) {
        if (sockets->sockets[i].fd >= 0) {
            close(sockets->sockets[i].fd);
            sockets->sockets[i].fd = -1;
        }
    }
}

struct kb_listen_sockets *kb_listen_sockets_create(const struct kb_listener *listener,
                                                   const char **what, const struct kb_addr **addr)
{
    uint32_t worker_count = listener->admin ? 1 : listener->server->worker_count;
    size_t count = listener->addr_count * worker_count;
    struct kb_listen_sockets *sockets =
        kb_calloc(1, sizeof(*sockets) + count * sizeof(sockets->sockets[0]));

    sockets->server = listener->server;
    sockets->refs = 1;
    sockets->holders = 1;
    sockets->worker_count = worker_count;
    sockets->addr_count = listener->addr_count;
    sockets->bound = kb_calloc(listener->addr_count, sizeof(*sockets->bound));
    sockets->addrs = kb_calloc(listener->addr_count, sizeof(*sockets->addrs));
    sockets->inodes = kb_calloc(listener->addr_count, sizeof(*sockets->inodes));
    sockets->kept = kb_calloc(listener->addr_count, sizeof(*sockets->kept));
    for (size_t i = 0; i < listener->addr_count; i++) {
        sockets->kept[i] = -1;
    }
    memcpy(sockets->addrs, listener->addrs, listener->addr_count * sizeof(*sockets->addrs));
    sockets->hash_of_options = listener->hash_of_sockets;
    for (size_t i = 0; i < count; i++) {
        KB_OBJ_SET(&sockets->sockets[i], kb_listen_socket);
        sockets->sockets[i].set = sockets;
        sockets->sockets[i].fd = -1;
        sockets->sockets[i].io.fd = -1;
        kb_timer_init(&sockets->sockets[i].pause, pause_over);
    }
    for (size_t i = 0; i < listener->addr_count; i++) {
        if (address_bind(sockets, listener, i, what) != 0) {
            int keep = errno;

            *addr = &listener->addrs[i].addr;
            sockets->addr_count = i + 1;
            fds_close(sockets);
            sockets_free(sockets);
            errno = keep;
            return NULL;
        }
    }
    return sockets;
}

int kb_listen_sockets_listen(struct kb_listen_sockets *sockets, const struct kb_listener *listener,
                             const char **what)
{
    if (sockets->listening) {
        return 0;
    }
    for (size_t i = 0; i < sockets->addr_count * sockets->worker_count; i++) {
        *what = "listen";
        if (kb_sock_start_listening(sockets->sockets[i].fd, listener->backlog) != 0 ||
            options_set(sockets->sockets[i].fd, listener, KB_SOCK_LISTENING, what) != 0) {
            return KB_EADDRINUSE;
        }
    }
    sockets->listening = true;
    return 0;
}

bool kb_listen_sockets_fit(const struct kb_listen_sockets *sockets,
                           const struct kb_listener *listener)
{
    bool same = sockets->addr_count == listener->addr_count &&
                sockets->hash_of_options == listener->hash_of_sockets;

    for (size_t i = 0; same && i < sockets->addr_count; i++) {
        same = kb_addr_eq(&sockets->addrs[i].addr, &listener->addrs[i].addr);
    }
    return same;
}

struct kb_listen_sockets *kb_listen_sockets_ref(struct kb_listen_sockets *sockets)
{
    sockets->refs++;
    return sockets;
}

struct socket_close {
    struct kb_listen_sockets *sockets;
    uint32_t index;
};

static void close_posted(void *arg)
{
    struct socket_close *close = arg;

    kb_listen_sockets_close_worker(close->sockets, close->index);
    holder_remove(close->sockets);
    free(close);
}

void kb_listen_sockets_unref(struct kb_listen_sockets *sockets, bool running)
{
    if (sockets == NULL || --sockets->refs > 0) {
        return;
    }
    running = running && sockets->served;
    kb_list_push_back(&closing_sets, &sockets->closing);
    for (uint32_t i = 0; running && i < sockets->worker_count; i++) {
        struct socket_close *close = kb_calloc(1, sizeof(*close));

        close->sockets = sockets;
        close->index = i;
        __atomic_add_fetch(&sockets->holders, 1, __ATOMIC_RELAXED);
        kb_loop_post(&sockets->server->workers[i].loop, close_posted, close);
    }
    if (!running) {
        fds_close(sockets);
        kept_close(sockets);
    }
    holder_remove(sockets);
}
