/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.listener.original_dst: where the client wanted to go before iptables sent it here.
 */
#include <netinet/in.h>

#include "proxy/api/listener_filter.h"

#define SO_ORIGINAL_DST_NUMBER 80 /* of linux/netfilter_ipv4.h, and of IP6T_SO_ORIGINAL_DST */

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **config)
{
    (void)message;
    (void)factory;
    (void)diag;
    *config = NULL;
    return 0;
}

/* Whether the socket was redirected by TPROXY: then its own address is the original one. */
static bool is_transparent(int fd)
{
    int value = 0;
    socklen_t len = sizeof(value);

    return getsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &value, &len) == 0 && value != 0;
}

static enum kb_listener_filter_status on_accept(void *config, void *state,
                                                struct kb_listener_socket *socket)
{
    struct kb_conn *conn = socket->conn;
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);
    bool v4 = conn->info.local.sa.sa_family == AF_INET;

    (void)config;
    (void)state;
    if (!kb_addr_is_ip(&conn->info.local)) {
        return KB_LISTENER_FILTER_CONTINUE;
    }
    memset(&sa, 0, sizeof(sa));
    if (getsockopt(conn->io.fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, SO_ORIGINAL_DST_NUMBER, &sa,
                   &len) == 0) {
        kb_addr_from_sockaddr(&conn->info.local, (const struct sockaddr *)&sa, len);
    } else if (is_transparent(conn->io.fd)) {
        kb_sock_local_addr(conn->io.fd, &conn->info.local);
    } else {
        return KB_LISTENER_FILTER_CONTINUE;
    }
    socket->local_address_restored = true;
    return KB_LISTENER_FILTER_CONTINUE;
}

const struct kb_listener_filter_ops kb_ext_listener_original_dst = {
    .name = "envoy.filters.listener.original_dst",
    .type_url = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    .config_create = config_create,
    .on_accept = on_accept,
};
