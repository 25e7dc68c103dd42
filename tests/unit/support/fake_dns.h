/* SPDX-License-Identifier: Apache-2.0 */
/* A DNS server on a thread and a UDP port of its own. What it answers depends on the first label of
 * the name: four      A 10.0.0.1, 10.0.0.2, 10.0.0.1 (TTL 30)       six     AAAA fd00::1,
 * A 10.0.0.9 nx        NXDOMAIN                                      nodata  no records servfail
 * SERVFAIL                                      drop    nothing flip      A 10.1.0.N at the Nth A
 * question              vanish  A 10.2.0.1 once, then nothing Everything else is NXDOMAIN. */
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/addr.h"

struct fake_dns {
    int fd;
    int stop[2];
    pthread_t thread;
    struct kb_addr addr;
    unsigned a_questions; /* of the thread until it is joined */
    unsigned aaaa_questions;
};

enum { FAKE_DNS_A = 1, FAKE_DNS_AAAA = 28 };

static inline size_t fake_dns_record(unsigned char *at, int type, const char *ip)
{
    size_t len = type == FAKE_DNS_A ? 4 : 16;
    const unsigned char head[] = {0xc0, 0x0c, 0, (unsigned char)type, 0, 1, 0, 0,
                                  0,    30,   0, (unsigned char)len};

    memcpy(at, head, sizeof(head));
    inet_pton(type == FAKE_DNS_A ? AF_INET : AF_INET6, ip, at + sizeof(head));
    return sizeof(head) + len;
}

/* Appends the records for this question and returns their count; *rcode is 0. -1: no answer at all.
 */
static inline int fake_dns_records(struct fake_dns *server, const char *label, int type,
                                   unsigned char *at, size_t *len, int *rcode)
{
    char text[32];
    int n = 0;
#define RECORD(ip) (*len += fake_dns_record(at + *len, type, (ip)), n++)

    *rcode = 0;
    if (strcmp(label, "drop") == 0) {
        return -1;
    }
    if (strcmp(label, "servfail") == 0) {
        *rcode = 2;
    } else if (strcmp(label, "four") == 0) {
        if (type == FAKE_DNS_A) {
            RECORD("10.0.0.1");
            RECORD("10.0.0.2");
            RECORD("10.0.0.1");
        }
    } else if (strcmp(label, "six") == 0) {
        RECORD(type == FAKE_DNS_A ? "10.0.0.9" : "fd00::1");
    } else if (strcmp(label, "flip") == 0) {
        if (type == FAKE_DNS_A) {
            snprintf(text, sizeof(text), "10.1.0.%u", server->a_questions);
            RECORD(text);
        }
    } else if (strcmp(label, "vanish") == 0) {
        if (type == FAKE_DNS_A && server->a_questions == 1) {
            RECORD("10.2.0.1");
        }
    } else if (strcmp(label, "nodata") != 0) {
        *rcode = 3;
    }
#undef RECORD
    return n;
}

static inline void fake_dns_answer(struct fake_dns *server, unsigned char *packet, size_t len,
                                   const struct sockaddr *to, socklen_t to_len)
{
    unsigned char out[512];
    size_t at = 12, out_len;
    char label[64];
    int type, n, rcode;

    if (len < 17 || packet[12] == 0 || packet[12] > 63 || len < 13u + packet[12]) {
        return;
    }
    memcpy(label, packet + 13, packet[12]);
    label[packet[12]] = '\0';
    while (at < len && packet[at] != 0) {
        at += packet[at] + 1u;
    }
    if (at + 5 > len || at + 5 > 300) {
        return;
    }
    type = packet[at + 1] << 8 | packet[at + 2];
    server->a_questions += type == FAKE_DNS_A;
    server->aaaa_questions += type == FAKE_DNS_AAAA;
    out_len = at + 5;
    memcpy(out, packet, out_len);
    n = fake_dns_records(server, label, type, out, &out_len, &rcode);
    if (n < 0) {
        return;
    }
    memcpy(out + 2,
           (unsigned char[]){0x81, (unsigned char)(0x80 | rcode), 0, 1, 0, (unsigned char)n, 0, 0,
                             0, 0},
           10);
    (void)!sendto(server->fd, out, out_len, 0, to, to_len);
}

static inline void *fake_dns_main(void *arg)
{
    struct fake_dns *server = arg;

    for (;;) {
        struct pollfd fds[2] = {{.fd = server->fd, .events = POLLIN},
                                {.fd = server->stop[0], .events = POLLIN}};
        unsigned char packet[1500];
        struct sockaddr_storage from;
        socklen_t from_len = sizeof(from);
        ssize_t n;

        poll(fds, 2, -1);
        if (fds[1].revents != 0) {
            return NULL;
        }
        n = recvfrom(server->fd, packet, sizeof(packet), 0, (struct sockaddr *)&from, &from_len);
        if (n > 0) {
            fake_dns_answer(server, packet, (size_t)n, (struct sockaddr *)&from, from_len);
        }
    }
}

static inline void fake_dns_start(struct fake_dns *server)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    struct kb_addr any;

    memset(server, 0, sizeof(*server));
    if (kb_addr_from_ip(&any, KB_STR("127.0.0.1"), 0) != 0 || pipe(server->stop) != 0 ||
        (server->fd = socket(AF_INET, SOCK_DGRAM, 0)) < 0 ||
        bind(server->fd, &any.sa, any.len) != 0 ||
        getsockname(server->fd, (struct sockaddr *)&bound, &len) != 0) {
        perror("fake_dns");
        abort();
    }
    kb_addr_from_sockaddr(&server->addr, (struct sockaddr *)&bound, len);
    pthread_create(&server->thread, NULL, fake_dns_main, server);
}

static inline void fake_dns_stop(struct fake_dns *server)
{
    (void)!write(server->stop[1], "", 1);
    pthread_join(server->thread, NULL);
    close(server->fd);
    close(server->stop[0]);
    close(server->stop[1]);
}
