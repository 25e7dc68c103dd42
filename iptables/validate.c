/* SPDX-License-Identifier: Apache-2.0 */
/* The validation: a listener here, and a child that connects. */
#include "iptables/validate.h"

#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "iptables/text.h"

#define ORIGINAL_DESTINATION 80 /* SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST */
#define BETWEEN_TRIES_MS     200

static void loopback_address(struct sockaddr_storage *out, bool ipv6, unsigned char last,
                             unsigned port)
{
    memset(out, 0, sizeof(*out));
    if (ipv6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
        in6->sin6_family = AF_INET6;
        in6->sin6_addr.s6_addr[15] = last;
        in6->sin6_port = htons((unsigned short)port);
    } else {
        struct sockaddr_in *in4 = (struct sockaddr_in *)out;
        in4->sin_family = AF_INET;
        in4->sin_addr.s_addr = htonl(0x7f000000u | last);
        in4->sin_port = htons((unsigned short)port);
    }
}

static socklen_t address_len(bool ipv6)
{
    return ipv6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static int listen_on(bool ipv6, const char *port)
{
    struct sockaddr_storage address;
    int on = 1,
        fd = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    loopback_address(&address, ipv6, 1, (unsigned)strtoul(port, NULL, 10));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, address_len(ipv6)) != 0 ||
        listen(fd, 8) != 0) {
        kb_say(KB_SAY_WARN, "validation: listening on port %s of the loopback: %m", port);
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

/* The proxy's user and group where this process may take them: rules are told apart by them. */
static void become_proxy(const struct kb_settings *s)
{
    const char *uids = s->proxy_uid, *gids = s->proxy_gid;
    struct kb_piece uid, gid;
    uint64_t user, group;

    if (geteuid() != 0) {
        return;
    }
    if (!kb_list_next(&uids, &uid) || !kb_list_next(&gids, &gid) ||
        kb_piece_number(uid, UINT32_MAX, &user) != 0 ||
        kb_piece_number(gid, UINT32_MAX, &group) != 0) {
        return;
    }
    if (setgroups(0, NULL) != 0 || setgid((gid_t)group) != 0 || setuid((uid_t)user) != 0) {
        kb_say(KB_SAY_WARN, "validation: connecting as user %u, not as the proxy's: %m",
               (unsigned)geteuid());
    }
}

static _Noreturn void connect_again_and_again(const struct kb_settings *s, bool ipv6)
{
    struct sockaddr_storage from, to;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    become_proxy(s);
    loopback_address(&from, ipv6, 1, 0);
    loopback_address(&to, ipv6, 6, s->probe_port_number);
    for (;;) {
        int fd = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd >= 0) {
            struct pollfd ready = {.fd = fd, .events = POLLOUT};
            if (bind(fd, (struct sockaddr *)&from, address_len(ipv6)) == 0 &&
                connect(fd, (struct sockaddr *)&to, address_len(ipv6)) != 0 &&
                errno == EINPROGRESS) {
                poll(&ready, 1, BETWEEN_TRIES_MS);
            }
            close(fd);
        }
        poll(NULL, 0, BETWEEN_TRIES_MS);
    }
}

/* The port for which a connection was before it was redirected; 0 if that is not known. */
static unsigned original_port(int fd, bool ipv6)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);

    if (getsockopt(fd, ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, ORIGINAL_DESTINATION, &address, &len) !=
        0) {
        return 0;
    }
    return ntohs(ipv6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                      : ((struct sockaddr_in *)&address)->sin_port);
}

static long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool arrives(const struct kb_settings *s, struct pollfd listeners[2], bool ipv6)
{
    long end = now_ms() + s->probe_timeout_ms;

    for (long left = s->probe_timeout_ms; left > 0; left = end - now_ms()) {
        if (poll(listeners, 2, (int)left) <= 0) {
            continue;
        }
        for (int i = 0; i < 2; i++) {
            if (!(listeners[i].revents & POLLIN)) {
                continue;
            }
            int fd = accept4(listeners[i].fd, NULL, NULL, SOCK_CLOEXEC);
            unsigned port = fd >= 0 ? original_port(fd, ipv6) : 0;
            if (fd >= 0) {
                close(fd);
            }
            if (port == s->probe_port_number) {
                return true;
            }
        }
    }
    return false;
}

enum kb_exit kb_validate(const struct kb_settings *s)
{
    bool ipv6 = s->host_is_ipv6;
    struct pollfd listeners[2] = {{.fd = listen_on(ipv6, s->proxy_port), .events = POLLIN},
                                  {.fd = listen_on(ipv6, s->inbound_port), .events = POLLIN}};
    bool valid = false;

    if (listeners[0].fd >= 0 || listeners[1].fd >= 0) {
        pid_t child = fork();
        if (child == 0) {
            connect_again_and_again(s, ipv6);
        }
        if (child > 0) {
            valid = arrives(s, listeners, ipv6);
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
        }
    }
    for (int i = 0; i < 2; i++) {
        if (listeners[i].fd >= 0) {
            close(listeners[i].fd);
        }
    }
    if (valid) {
        kb_say(KB_SAY_INFO, "validation: connections are redirected");
        return KB_EXIT_OK;
    }
    kb_say(KB_SAY_ERROR,
           "validation: no connection to port %u of %s was redirected to the proxy's ports within "
           "%ld ms: the pod is not "
           "ready for a sidecar. Are the rules made, and does this run as the proxy's user (%s)? "
           "With a CNI plugin of "
           "Istio: the pod was started before the node was ready, and has to be made anew",
           s->probe_port_number, ipv6 ? "::6" : "127.0.0.6", s->probe_timeout_ms, s->proxy_uid);
    return KB_EXIT_NOT_VALID;
}
