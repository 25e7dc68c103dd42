/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel has measured of a TCP connection. Alone in its file: the kernel's header, which
 * has the field, does not go together with the C library's. */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/sock.h"

uint32_t kb_sock_rtt_us(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        len < offsetof(struct tcp_info, tcpi_min_rtt) + sizeof(info.tcpi_min_rtt) ||
        info.tcpi_min_rtt == UINT32_MAX) {
        return 0;
    }
    return info.tcpi_min_rtt;
}
