/* SPDX-License-Identifier: Apache-2.0 */
/* Network addresses: IPv4, IPv6, unix paths and abstract unix names, with their text as Envoy
 * writes it. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/str.h"

#define KB_ADDR_TEXT_MAX 128

struct kb_addr {
    socklen_t len; /* 0: no address */
    union {
        struct sockaddr sa;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
};

/* An IP literal (no name lookup) and a port. KB_EINVALID when `ip` is not an address. */
int kb_addr_from_ip(struct kb_addr *addr, struct kb_str ip, uint16_t port) KB_MUST_USE;
/* A unix path; '@' in front means an abstract name. KB_EINVALID when too long or empty. */
int kb_addr_from_path(struct kb_addr *addr, struct kb_str path) KB_MUST_USE;
/* From the kernel's form. */
void kb_addr_from_sockaddr(struct kb_addr *addr, const struct sockaddr *sa, socklen_t len);

/* IPv4 or IPv6. */
bool kb_addr_is_ip(const struct kb_addr *addr);
/* 127.0.0.1 or ::1: as in Envoy, the rest of 127.0.0.0/8 is like any other address. */
bool kb_addr_is_loopback(const struct kb_addr *addr);
/* 0.0.0.0 or :: */
bool kb_addr_is_any(const struct kb_addr *addr);
/* 0 for anything that has no port. */
uint16_t kb_addr_port(const struct kb_addr *addr);
void kb_addr_set_port(struct kb_addr *addr, uint16_t port);
bool kb_addr_eq(const struct kb_addr *a, const struct kb_addr *b);

/* "1.2.3.4:80", "[::1]:80", "/path" or "@name" to out (KB_ADDR_TEXT_MAX bytes); returns the slice
 * of it. */
struct kb_str kb_addr_text(const struct kb_addr *addr, char *out);
/* "1.2.3.4", "::1"; the whole text for unix addresses. */
struct kb_str kb_addr_ip_text(const struct kb_addr *addr, char *out);

/* An address range: "10.0.0.0"/8. */
struct kb_cidr {
    struct kb_addr addr;
    uint8_t prefix_len;
};
/* KB_EINVALID when ip is no address; a prefix longer than the address is cut. */
int kb_cidr_init(struct kb_cidr *cidr, struct kb_str ip, uint32_t prefix_len) KB_MUST_USE;
bool kb_cidr_contains(const struct kb_cidr *cidr, const struct kb_addr *addr);
