/* SPDX-License-Identifier: Apache-2.0 */
/* Name resolution with c-ares. Its sockets are made here, each under a kb_io, and its timeouts are
 * one kb_timer. A lookup by preference (AUTO, V4_PREFERRED) is one or two c-ares lookups. */
#include "base/dns.h"

#include <ares.h>
#include <ares_nameser.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#define QUERY_TIMEOUT_DEFAULT_S 5
#define QUERY_TRIES_DEFAULT     4
#define NAME_MAX_BYTES          255 /* RFC 1035 section 2.3.4 */
#define LABEL_MAX_BYTES         63

struct kb_dns {
    KB_OBJ;
    struct kb_loop *loop;
    ares_channel channel;
    struct kb_timer timer;
    struct kb_list sockets;
    struct kb_list queries;
    struct kb_dns_stats stats;
    struct kb_dns_options options;
    struct kb_addr servers[KB_DNS_SERVERS_MAX];
    bool dirty;     /* start afresh before the next lookup */
    unsigned depth; /* calls of c-ares that are under way */
};
KB_OBJ_MAGIC(kb_dns, 0x444e5320);

struct dns_socket {
    struct kb_io io;
    struct kb_list link;
    struct kb_dns *dns; /* NULL when closed */
};

struct kb_dns_query {
    KB_OBJ;
    struct kb_list link;
    struct kb_dns *dns;
    kb_dns_cb cb; /* NULL: cancelled */
    void *arg;
    bool *ended;       /* set when it ends while kb_dns_resolve runs */
    int second_family; /* asked when the first gives nothing; -1: none */
    char name[];
};
KB_OBJ_MAGIC(kb_dns_query, 0x444e5351);

static void timer_update(struct kb_dns *dns)
{
    struct timeval buffer, *wait = ares_timeout(dns->channel, NULL, &buffer);

    if (wait == NULL) {
        kb_loop_timer_cancel(dns->loop, &dns->timer);
    } else {
        kb_loop_timer_arm(dns->loop, &dns->timer,
                          (uint64_t)wait->tv_sec * 1000 + (uint64_t)wait->tv_usec / 1000 + 1);
    }
}

static void channel_process(struct kb_dns *dns, int read_fd, int write_fd)
{
    dns->depth++;
    ares_process_fd(dns->channel, read_fd, write_fd);
    dns->depth--;
    timer_update(dns);
}

static void timer_fired(struct kb_timer *timer)
{
    channel_process(KB_CONTAINER_OF(timer, struct kb_dns, timer), ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void socket_ready(struct kb_io *io, unsigned events)
{
    struct dns_socket *socket = KB_CONTAINER_OF(io, struct dns_socket, io);

    if (socket->dns == NULL) {
        return;
    }
    channel_process(socket->dns,
                    (events & (KB_IO_READ | KB_IO_ERROR)) != 0 ? io->fd : ARES_SOCKET_BAD,
                    (events & KB_IO_WRITE) != 0 ? io->fd : ARES_SOCKET_BAD);
}

static void socket_closed(struct kb_io *io)
{
    free(KB_CONTAINER_OF(io, struct dns_socket, io));
}

/* What c-ares calls for its sockets. `user_data` is the resolver. */

static ares_socket_t ares_socket_open(int family, int type, int protocol, void *user_data)
{
    struct kb_dns *dns = KB_CAST(user_data, kb_dns);
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    struct dns_socket *opened;

    if (fd < 0) {
        return ARES_SOCKET_BAD;
    }
    opened = kb_calloc(1, sizeof(*opened));
    if (kb_io_open(dns->loop, &opened->io, fd, socket_ready) != 0) {
        close(fd);
        free(opened);
        return ARES_SOCKET_BAD;
    }
    opened->dns = dns;
    kb_list_push_back(&dns->sockets, &opened->link);
    return fd;
}

static struct dns_socket *socket_find(struct kb_dns *dns, ares_socket_t fd)
{
    KB_LIST_FOREACH (link, &dns->sockets) {
        struct dns_socket *socket = KB_LIST_ENTRY(link, struct dns_socket, link);

        if (socket->io.fd == fd) {
            return socket;
        }
    }
    return NULL;
}

static int ares_socket_close(ares_socket_t fd, void *user_data)
{
    struct dns_socket *socket = socket_find(KB_CAST(user_data, kb_dns), fd);

    if (socket == NULL) {
        errno = EBADF;
        return -1;
    }
    kb_list_unlink(&socket->link);
    socket->dns = NULL;
    kb_io_close(&socket->io, socket_closed);
    return 0;
}

static int ares_socket_connect(ares_socket_t fd, const struct sockaddr *addr, ares_socklen_t len,
                               void *user_data)
{
    (void)user_data;
    return connect(fd, addr, len);
}

static ares_ssize_t ares_socket_recvfrom(ares_socket_t fd, void *bytes, size_t len, int flags,
                                         struct sockaddr *from, ares_socklen_t *from_len,
                                         void *user_data)
{
    (void)user_data;
    return recvfrom(fd, bytes, len, flags, from, from_len);
}

static ares_ssize_t ares_socket_sendv(ares_socket_t fd, const struct iovec *iov, int count,
                                      void *user_data)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov,
                             .msg_iovlen = (size_t)count};

    (void)user_data;
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

static const struct ares_socket_functions socket_functions = {
    .asocket = ares_socket_open,
    .aclose = ares_socket_close,
    .aconnect = ares_socket_connect,
    .arecvfrom = ares_socket_recvfrom,
    .asendv = ares_socket_sendv,
};

static void ares_socket_state(void *user_data, ares_socket_t fd, int readable, int writable)
{
    struct dns_socket *socket = socket_find(KB_CAST(user_data, kb_dns), fd);

    if (socket != NULL) {
        kb_io_watch(&socket->io, (readable ? KB_IO_READ : 0) | (writable ? KB_IO_WRITE : 0));
    }
}

static void servers_set(struct kb_dns *dns)
{
    struct ares_addr_port_node nodes[KB_DNS_SERVERS_MAX];

    memset(nodes, 0, sizeof(nodes));
    for (size_t i = 0; i < dns->options.server_count; i++) {
        const struct kb_addr *addr = &dns->servers[i];

        nodes[i].next = i + 1 < dns->options.server_count ? &nodes[i + 1] : NULL;
        nodes[i].family = addr->sa.sa_family;
        nodes[i].udp_port = nodes[i].tcp_port = kb_addr_port(addr) == 0 ? 53 : kb_addr_port(addr);
        if (addr->sa.sa_family == AF_INET6) {
            memcpy(&nodes[i].addr.addr6, &addr->in6.sin6_addr, sizeof(addr->in6.sin6_addr));
        } else {
            nodes[i].addr.addr4 = addr->in4.sin_addr;
        }
    }
    ares_set_servers_ports(dns->channel, nodes);
}

/* Whether the system names a server of its own; c-ares takes 127.0.0.1 when there is none. */
static bool system_has_servers(ares_channel channel)
{
    struct ares_addr_port_node *nodes = NULL;
    bool has;

    if (ares_get_servers_ports(channel, &nodes) != ARES_SUCCESS || nodes == NULL) {
        return false;
    }
    has = nodes->next != NULL || nodes->family != AF_INET ||
          ntohl(nodes->addr.addr4.s_addr) != INADDR_LOOPBACK;
    ares_free_data(nodes);
    return has;
}

static int channel_open(struct kb_dns *dns)
{
    struct ares_options options;
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB | ARES_OPT_FLAGS;

    memset(&options, 0, sizeof(options));
    options.sock_state_cb = ares_socket_state;
    options.sock_state_cb_data = dns;
    options.timeout = (int)dns->options.query_timeout_s * 1000;
    options.tries = (int)dns->options.query_tries;
    options.flags = (dns->options.use_tcp ? ARES_FLAG_USEVC : 0) |
                    (dns->options.no_search ? ARES_FLAG_NOSEARCH : 0);
    if (dns->options.rotate) {
        mask |= ARES_OPT_ROTATE;
    }
#ifdef ARES_OPT_UDP_MAX_QUERIES
    if (dns->options.udp_max_queries > 0) {
        options.udp_max_queries = (int)dns->options.udp_max_queries;
        mask |= ARES_OPT_UDP_MAX_QUERIES;
    }
#endif
    if (ares_init_options(&dns->channel, &options, mask) != ARES_SUCCESS) {
        return KB_EIO;
    }
    ares_set_socket_functions(dns->channel, &socket_functions, dns);
    if (dns->options.server_count > 0 &&
        (!dns->options.servers_as_fallback || !system_has_servers(dns->channel))) {
        servers_set(dns);
    }
    return 0;
}

int kb_dns_create(struct kb_loop *loop, const struct kb_dns_options *options, struct kb_dns **out)
{
    struct kb_dns *dns;

    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
        return KB_EIO;
    }
    dns = kb_calloc(1, sizeof(*dns));
    KB_OBJ_SET(dns, kb_dns);
    dns->loop = loop;
    kb_list_init(&dns->sockets);
    kb_list_init(&dns->queries);
    kb_timer_init(&dns->timer, timer_fired);
    if (options != NULL) {
        dns->options = *options;
        dns->options.server_count = KB_MIN(options->server_count, KB_DNS_SERVERS_MAX);
        if (dns->options.server_count > 0) {
            memcpy(dns->servers, options->servers,
                   dns->options.server_count * sizeof(dns->servers[0]));
        }
    }
    dns->options.servers = dns->servers;
    dns->options.query_timeout_s = dns->options.query_timeout_s == 0
                                       ? QUERY_TIMEOUT_DEFAULT_S
                                       : KB_MIN(dns->options.query_timeout_s, 3600);
    dns->options.query_tries =
        dns->options.query_tries == 0 ? QUERY_TRIES_DEFAULT : KB_MIN(dns->options.query_tries, 100);
    if (channel_open(dns) != 0) {
        free(dns);
        ares_library_cleanup();
        return KB_EIO;
    }
    *out = dns;
    return 0;
}

void kb_dns_destroy(struct kb_dns *dns)
{
    KB_ASSERT(dns->depth == 0);
    kb_loop_timer_cancel(dns->loop, &dns->timer);
    ares_destroy(dns->channel); /* ends the cancelled queries that still wait for an answer */
    KB_BUG_IF(!kb_list_empty(&dns->queries));
    KB_OBJ_CLEAR(dns);
    free(dns);
    ares_library_cleanup();
}

const struct kb_dns_stats *kb_dns_stats(const struct kb_dns *dns)
{
    return &dns->stats;
}

static void query_free(struct kb_dns_query *query)
{
    kb_list_unlink(&query->link);
    if (query->ended != NULL) {
        *query->ended = true;
    }
    KB_OBJ_CLEAR(query);
    free(query);
}

static void query_end(struct kb_dns_query *query, int status, const struct kb_dns_answer *answers,
                      size_t n, const char *text)
{
    kb_dns_cb cb = query->cb;
    void *arg = query->arg;

    query_free(query);
    if (cb != NULL) {
        cb(arg, status, answers, n, text);
    }
}

/* Those of one family, from the n-th place on. */
static size_t answers_read(const struct ares_addrinfo *info, int family,
                           struct kb_dns_answer *answers, size_t n)
{
    for (const struct ares_addrinfo_node *node = info == NULL ? NULL : info->nodes;
         node != NULL && n < KB_DNS_ADDRS_MAX; node = node->ai_next) {
        if (node->ai_family == family) {
            kb_addr_from_sockaddr(&answers[n].addr, node->ai_addr, node->ai_addrlen);
            answers[n++].ttl_s = (uint32_t)KB_MAX(node->ai_ttl, 0);
        }
    }
    return n;
}

static void lookup_start(struct kb_dns_query *query, int family);

/* One lookup of the query has ended: with addresses, without, or failed. */
static void lookup_end(struct kb_dns_query *query, int status, const struct kb_dns_answer *answers,
                       size_t n)
{
    struct kb_dns *dns = query->dns;
    bool no_records = status == ARES_ENODATA || status == ARES_ENOTFOUND;
    int second_family = query->second_family;

    dns->stats.resolve_total++;
    dns->stats.not_found += no_records ? 1 : 0;
    dns->stats.get_addr_failure +=
        status != ARES_SUCCESS && !no_records && status != ARES_ETIMEOUT ? 1 : 0;
    if (n == 0 && second_family >= 0) {
        query->second_family = -1;
        lookup_start(query, second_family);
        return;
    }
    dns->dirty = dns->dirty || status == ARES_ECONNREFUSED || status == ARES_EREFUSED ||
                 status == ARES_ESERVFAIL || status == ARES_ENOTIMP ||
                 (status == ARES_ETIMEOUT && dns->options.reinit_on_timeout);
    query_end(query,
              status == ARES_SUCCESS || no_records ? 0
              : status == ARES_ETIMEOUT            ? KB_ETIMEOUT
                                                   : KB_EIO,
              answers, n, ares_strerror(status));
}

static void lookup_done(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct kb_dns_query *query = KB_CAST(arg, kb_dns_query);
    struct kb_dns_answer *answers = NULL;
    size_t n = 0;

    query->dns->stats.pending_resolutions--;
    if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED || query->cb == NULL) {
        ares_freeaddrinfo(info);
        query_free(query);
        return;
    }
    query->dns->stats.timeouts += (uint64_t)KB_MAX(timeouts, 0);
    if (status == ARES_SUCCESS) {
        answers = kb_malloc(KB_DNS_ADDRS_MAX * sizeof(answers[0]));
        /* IPv4 first, whichever answer came first. */
        n = answers_read(info, AF_INET, answers, 0);
        n = answers_read(info, AF_INET6, answers, n);
    }
    ares_freeaddrinfo(info);
    lookup_end(query, status, answers, n);
    free(answers);
}

static bool is_hostname(struct kb_str name)
{
    size_t label = 0;

    for (size_t i = 0; i < name.len; i++) {
        char c = kb_ascii_lower(name.p[i]);

        if (!(c >= 'a' && c <= 'z') && !kb_ascii_is_digit(c) && memchr("-_./*", c, 5) == NULL) {
            return false;
        }
        label = c == '.' ? 0 : label + 1;
        if (label > LABEL_MAX_BYTES) {
            return false;
        }
    }
    return true;
}

static void answer_set(struct kb_dns_answer *answer, struct kb_str ip)
{
    answer->ttl_s = 0;
    KB_BUG_IF(kb_addr_from_ip(&answer->addr, ip, 0) != 0);
}

/* Answers what needs no server, as newer versions of c-ares do: literals (an IPv4 one whatever the
 * family), names under localhost (RFC 6761 section 6.3), and names that cannot be. True when it
 * did. */
static bool lookup_local(struct kb_dns_query *query, int family)
{
    struct kb_str name = kb_str_from_cstr(query->name);
    struct kb_dns_answer answers[2];
    size_t n = 0;

    if (kb_addr_from_ip(&answers[0].addr, name, 0) == 0) {
        if (family == AF_INET && answers[0].addr.sa.sa_family == AF_INET6) {
            lookup_end(query, ARES_EBADFAMILY, NULL, 0);
            return true;
        }
        answers[n++].ttl_s = 0;
    } else if (kb_str_ieq(name, KB_STR("localhost")) ||
               kb_str_iends_with(name, KB_STR(".localhost"))) {
        if (family != AF_INET6) {
            answer_set(&answers[n++], KB_STR("127.0.0.1"));
        }
        if (family != AF_INET) {
            answer_set(&answers[n++], KB_STR("::1"));
        }
    } else if (!is_hostname(name)) {
        lookup_end(query, ARES_EBADNAME, NULL, 0);
        return true;
    }
    if (n > 0) {
        lookup_end(query, ARES_SUCCESS, answers, n);
    }
    return n > 0;
}

static void lookup_start(struct kb_dns_query *query, int family)
{
    struct ares_addrinfo_hints hints = {.ai_flags = ARES_AI_NOSORT, .ai_family = family};
    struct kb_dns *dns = query->dns;

    if (lookup_local(query, family)) {
        return;
    }
    dns->stats.pending_resolutions++;
    dns->depth++;
    ares_getaddrinfo(dns->channel, query->name, NULL, &hints, lookup_done, query);
    dns->depth--;
}

/* A channel that got only refusals may have sockets that a changed network made useless. */
static void channel_reopen(struct kb_dns *dns)
{
    ares_channel old = dns->channel;

    if (channel_open(dns) != 0) {
        dns->channel = old;
        return;
    }
    dns->dirty = false;
    dns->stats.reinits++;
    ares_destroy(old);
}

void kb_dns_resolve(struct kb_dns *dns, struct kb_str name, enum kb_dns_family family, kb_dns_cb cb,
                    void *arg, struct kb_dns_query **query)
{
    static const struct {
        int first, second;
    } families[] = {
        [KB_DNS_AUTO] = {AF_INET6, AF_INET}, [KB_DNS_V4_ONLY] = {AF_INET, -1},
        [KB_DNS_V6_ONLY] = {AF_INET6, -1},   [KB_DNS_V4_PREFERRED] = {AF_INET, AF_INET6},
        [KB_DNS_ALL] = {AF_UNSPEC, -1},
    };
    struct kb_dns_query *made;
    bool ended = false;

    *query = NULL;
    if (name.len == 0 || name.len > NAME_MAX_BYTES || memchr(name.p, '\0', name.len) != NULL) {
        cb(arg, 0, NULL, 0, "the name is empty or too long");
        return;
    }
    if (dns->dirty && dns->stats.pending_resolutions == 0 && dns->depth == 0) {
        channel_reopen(dns);
    }
    made = kb_calloc(1, sizeof(*made) + name.len + 1);
    KB_OBJ_SET(made, kb_dns_query);
    memcpy(made->name, name.p, name.len);
    made->dns = dns;
    made->cb = cb;
    made->arg = arg;
    made->second_family = families[family].second;
    made->ended = &ended;
    kb_list_push_back(&dns->queries, &made->link);
    lookup_start(made, families[family].first);
    if (!ended) { /* else the callback was called, and the caller's memory may be gone */
        made->ended = NULL;
        *query = made;
    }
    timer_update(dns);
}

void kb_dns_cancel(struct kb_dns_query *query)
{
    KB_CAST(query, kb_dns_query)->cb = NULL; /* c-ares ends it in its own time */
}
