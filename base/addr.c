/* SPDX-License-Identifier: Apache-2.0 */
/* Network addresses and their text. */
#include "base/addr.h"

#include <arpa/inet.h>
#include <stdio.h>

int kb_addr_from_ip(struct kb_addr *addr, struct kb_str ip, uint16_t port)
{
    char text[INET6_ADDRSTRLEN + 1];

    memset(addr, 0, sizeof(*addr));
    if (ip.len == 0 || ip.len >= sizeof(text)) {
        return KB_EINVALID;
    }
    memcpy(text, ip.p, ip.len);
    text[ip.len] = '\0';
    if (inet_pton(AF_INET, text, &addr->in4.sin_addr) == 1) {
        addr->in4.sin_family = AF_INET;
        addr->in4.sin_port = htons(port);
        addr->len = sizeof(addr->in4);
        return 0;
    }
    if (inet_pton(AF_INET6, text, &addr->in6.sin6_addr) == 1) {
        addr->in6.sin6_family = AF_INET6;
        addr->in6.sin6_port = htons(port);
        addr->len = sizeof(addr->in6);
        return 0;
    }
    return KB_EINVALID;
}

int kb_addr_from_path(struct kb_addr *addr, struct kb_str path)
{
    memset(addr, 0, sizeof(*addr));
    if (path.len == 0 || path.len >= sizeof(addr->un.sun_path)) {
        return KB_EINVALID;
    }
    addr->un.sun_family = AF_UNIX;
    memcpy(addr->un.sun_path, path.p, path.len);
    addr->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len);
    if (path.p[0] == '@') {
        addr->un.sun_path[0] = '\0';
    } else {
        addr->len++;
    }
    return 0;
}

void kb_addr_from_sockaddr(struct kb_addr *addr, const struct sockaddr *sa, socklen_t len)
{
    memset(addr, 0, sizeof(*addr));
    addr->len = (socklen_t)KB_MIN((size_t)len, sizeof(addr->un));
    memcpy(&addr->sa, sa, addr->len);
    if (addr->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&addr->in6.sin6_addr)) {
        struct sockaddr_in6 v6 = addr->in6;

        memset(addr, 0, sizeof(*addr));
        addr->in4.sin_family = AF_INET;
        addr->in4.sin_port = v6.sin6_port;
        memcpy(&addr->in4.sin_addr, &v6.sin6_addr.s6_addr[12], 4);
        addr->len = sizeof(addr->in4);
    }
}

bool kb_addr_is_ip(const struct kb_addr *addr)
{
    return addr->len > 0 && (addr->sa.sa_family == AF_INET || addr->sa.sa_family == AF_INET6);
}

bool kb_addr_is_loopback(const struct kb_addr *addr)
{
    if (!kb_addr_is_ip(addr)) {
        return false;
    }
    if (addr->sa.sa_family == AF_INET) {
        return addr->in4.sin_addr.s_addr == htonl(INADDR_LOOPBACK);
    }
    return IN6_IS_ADDR_LOOPBACK(&addr->in6.sin6_addr);
}

bool kb_addr_is_any(const struct kb_addr *addr)
{
    if (!kb_addr_is_ip(addr)) {
        return false;
    }
    if (addr->sa.sa_family == AF_INET) {
        return addr->in4.sin_addr.s_addr == htonl(INADDR_ANY);
    }
    return IN6_IS_ADDR_UNSPECIFIED(&addr->in6.sin6_addr);
}

uint16_t kb_addr_port(const struct kb_addr *addr)
{
    if (!kb_addr_is_ip(addr)) {
        return 0;
    }
    return ntohs(addr->sa.sa_family == AF_INET ? addr->in4.sin_port : addr->in6.sin6_port);
}

void kb_addr_set_port(struct kb_addr *addr, uint16_t port)
{
    if (!kb_addr_is_ip(addr)) {
        return;
    }
    if (addr->sa.sa_family == AF_INET) {
        addr->in4.sin_port = htons(port);
    } else {
        addr->in6.sin6_port = htons(port);
    }
}

bool kb_addr_eq(const struct kb_addr *a, const struct kb_addr *b)
{
    if (a->len != b->len || a->len == 0 || a->sa.sa_family != b->sa.sa_family) {
        return a->len == b->len && a->len == 0;
    }
    if (a->sa.sa_family == AF_INET) {
        return a->in4.sin_port == b->in4.sin_port &&
               a->in4.sin_addr.s_addr == b->in4.sin_addr.s_addr;
    }
    if (a->sa.sa_family == AF_INET6) {
        return a->in6.sin6_port == b->in6.sin6_port &&
               a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
               memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16) == 0;
    }
    return memcmp(&a->sa, &b->sa, a->len) == 0;
}

static struct kb_str unix_text(const struct kb_addr *addr, char *out)
{
    size_t len = addr->len > offsetof(struct sockaddr_un, sun_path)
                     ? addr->len - offsetof(struct sockaddr_un, sun_path)
                     : 0;

    if (len > 0 && addr->un.sun_path[0] != '\0') {
        len = strnlen(addr->un.sun_path, len);
    }
    len = KB_MIN(len, KB_ADDR_TEXT_MAX - 1);
    memcpy(out, addr->un.sun_path, len);
    if (len > 0 && out[0] == '\0') {
        out[0] = '@';
    }
    out[len] = '\0';
    return kb_str_make(out, len);
}

struct kb_str kb_addr_ip_text(const struct kb_addr *addr, char *out)
{
    out[0] = '\0';
    if (addr->len == 0) {
        return kb_str_make(out, 0);
    }
    if (addr->sa.sa_family == AF_INET) {
        const unsigned char *b = (const unsigned char *)&addr->in4.sin_addr;
        size_t n = 0;

        for (size_t i = 0; i < 4; i++) {
            n += kb_u64_to_str(b[i], out + n);
            out[n++] = '.';
        }
        out[n - 1] = '\0';
        return kb_str_make(out, n - 1);
    }
    if (addr->sa.sa_family == AF_INET6) {
        size_t n;

        inet_ntop(AF_INET6, &addr->in6.sin6_addr, out, KB_ADDR_TEXT_MAX);
        n = strlen(out);
        if (addr->in6.sin6_scope_id != 0) {
            out[n++] = '%';
            n += kb_u64_to_str(addr->in6.sin6_scope_id, out + n);
            out[n] = '\0';
        }
        return kb_str_make(out, n);
    }
    return unix_text(addr, out);
}

struct kb_str kb_addr_text(const struct kb_addr *addr, char *out)
{
    bool bracketed = addr->len > 0 && addr->sa.sa_family == AF_INET6;
    size_t n;

    if (!kb_addr_is_ip(addr)) {
        return kb_addr_ip_text(addr, out);
    }
    if (bracketed) {
        *out = '[';
    }
    n = kb_addr_ip_text(addr, out + bracketed).len + bracketed;
    if (bracketed) {
        out[n++] = ']';
    }
    out[n++] = ':';
    n += kb_u64_to_str(kb_addr_port(addr), out + n);
    out[n] = '\0';
    return kb_str_make(out, n);
}

int kb_cidr_init(struct kb_cidr *cidr, struct kb_str ip, uint32_t prefix_len)
{
    KB_TRY(kb_addr_from_ip(&cidr->addr, ip, 0));
    cidr->prefix_len = (uint8_t)KB_MIN(prefix_len, cidr->addr.sa.sa_family == AF_INET ? 32u : 128u);
    return 0;
}

bool kb_cidr_contains(const struct kb_cidr *cidr, const struct kb_addr *addr)
{
    const unsigned char *a, *b;
    unsigned bytes = cidr->prefix_len / 8;
    unsigned bits = cidr->prefix_len % 8;

    if (!kb_addr_is_ip(addr) || addr->sa.sa_family != cidr->addr.sa.sa_family) {
        return false;
    }
    if (addr->sa.sa_family == AF_INET) {
        a = (const unsigned char *)&cidr->addr.in4.sin_addr;
        b = (const unsigned char *)&addr->in4.sin_addr;
    } else {
        a = cidr->addr.in6.sin6_addr.s6_addr;
        b = addr->in6.sin6_addr.s6_addr;
    }
    if (memcmp(a, b, bytes) != 0) {
        return false;
    }
    return bits == 0 || ((a[bytes] ^ b[bytes]) >> (8 - bits)) == 0;
}
