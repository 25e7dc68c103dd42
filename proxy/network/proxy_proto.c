/* SPDX-License-Identifier: Apache-2.0 */
/* Reading PROXY protocol headers. Version 1 is a line of text, version 2 a binary header with
 * addresses and TLVs. */
#include "proxy/network/proxy_proto.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "base/obj.h"

#define V1_WORDS_MAX     7
#define V2_COMMAND_LOCAL 0
#define V2_COMMAND_PROXY 1
#define V2_FAMILY_INET   1
#define V2_FAMILY_INET6  2
#define V2_PROTO_STREAM  1
#define V2_PROTO_DGRAM   2
#define V2_INET_BYTES    12
#define V2_INET6_BYTES   36
#define TLV_HEADER       3

static const char v1_signature[] = {'P', 'R', 'O', 'X', 'Y', ' '};
static const char v2_signature[] = {'\r', '\n', '\r', '\n', '\0', '\r',
                                    '\n', 'Q',  'U',  'I',  'T',  '\n'};

/* Neither all hosts, nor several of them. */
static bool is_unicast(const struct kb_addr *addr)
{
    if (addr->sa.sa_family == AF_INET) {
        uint32_t ip = ntohl(addr->in4.sin_addr.s_addr);

        return ip != INADDR_ANY && ip != INADDR_BROADCAST && !IN_MULTICAST(ip);
    }
    return !IN6_IS_ADDR_UNSPECIFIED(&addr->in6.sin6_addr) &&
           !IN6_IS_ADDR_MULTICAST(&addr->in6.sin6_addr);
}

static enum kb_proxy_proto_result addresses_check(const struct kb_proxy_proto_header *header)
{
    return is_unicast(&header->source) && is_unicast(&header->destination) ? KB_PROXY_PROTO_DONE
                                                                           : KB_PROXY_PROTO_BAD;
}

/* ---- version 1 ---- */

static bool port_read(struct kb_str text, uint16_t *port)
{
    uint32_t value = 0;
    size_t i = text.len > 0 && text.p[0] == '+' ? 1 : 0;

    if (i == text.len) {
        return false;
    }
    for (; i < text.len; i++) {
        if (!kb_ascii_is_digit(text.p[i])) {
            return false;
        }
        value = value * 10 + (uint32_t)(text.p[i] - '0');
        if (value > UINT16_MAX) {
            return false;
        }
    }
    *port = (uint16_t)value;
    return true;
}

/* The zone of "fe80::1%eth0" (RFC 4007 section 11): a number, or of a link-local address the name
 * of an interface of this host. */
static bool zone_read(struct kb_addr *addr, struct kb_str zone)
{
    char name[IF_NAMESIZE];
    uint64_t number = 0;

    if (addr->sa.sa_family != AF_INET6 || zone.len == 0) {
        return false;
    }
    if (IN6_IS_ADDR_LINKLOCAL(&addr->in6.sin6_addr) && zone.len < sizeof(name)) {
        memcpy(name, zone.p, zone.len);
        name[zone.len] = '\0';
        number = if_nametoindex(name);
    }
    if (number == 0 && (kb_str_to_u64(zone, &number) != 0 || number > UINT32_MAX)) {
        return false;
    }
    addr->in6.sin6_scope_id = (uint32_t)number;
    return true;
}

static bool v1_address_read(struct kb_addr *addr, struct kb_str ip, struct kb_str port_text,
                            int family)
{
    ptrdiff_t percent = kb_str_find_char(ip, '%');
    struct kb_str zone = KB_STR_NULL;
    uint16_t port;

    if (percent >= 0) {
        zone = kb_str_from(ip, (size_t)percent + 1);
        ip = kb_str_first(ip, (size_t)percent);
    }
    return port_read(port_text, &port) && kb_addr_from_ip(addr, ip, port) == 0 &&
           addr->sa.sa_family == family && (percent < 0 || zone_read(addr, zone));
}

/* Words are parted by one blank each; one at the end is allowed. */
static size_t words_split(struct kb_str line, struct kb_str words[V1_WORDS_MAX])
{
    size_t count = 0;

    while (line.len > 0 && count < V1_WORDS_MAX) {
        ptrdiff_t blank = kb_str_find_char(line, ' ');
        size_t len = blank < 0 ? line.len : (size_t)blank;

        words[count++] = kb_str_first(line, len);
        line = kb_str_from(line, KB_MIN(len + 1, line.len));
    }
    return count;
}

static enum kb_proxy_proto_result v1_line_read(struct kb_str line,
                                               struct kb_proxy_proto_header *header)
{
    struct kb_str words[V1_WORDS_MAX];
    size_t count = words_split(line, words);
    int family;

    if (count >= 2 && kb_str_eq(words[1], KB_STR("UNKNOWN"))) {
        return KB_PROXY_PROTO_DONE;
    }
    if (count != 6) {
        return KB_PROXY_PROTO_BAD;
    }
    if (kb_str_eq(words[1], KB_STR("TCP4"))) {
        family = AF_INET;
    } else if (kb_str_eq(words[1], KB_STR("TCP6"))) {
        family = AF_INET6;
    } else {
        return KB_PROXY_PROTO_BAD;
    }
    if (!v1_address_read(&header->source, words[2], words[4], family) ||
        !v1_address_read(&header->destination, words[3], words[5], family)) {
        return KB_PROXY_PROTO_BAD;
    }
    header->has_addresses = true;
    return addresses_check(header);
}

static enum kb_proxy_proto_result v1_parse(struct kb_str bytes,
                                           struct kb_proxy_proto_header *header)
{
    struct kb_str seen = kb_str_first(bytes, KB_MIN(bytes.len, (size_t)KB_PROXY_PROTO_V1_MAX));
    ptrdiff_t end = kb_str_find_char(seen, '\r');

    header->version = KB_PROXY_PROTO_V1;
    if (end < 0 || (size_t)end + 1 == seen.len) {
        header->needed = bytes.len + 1;
        return seen.len < KB_PROXY_PROTO_V1_MAX ? KB_PROXY_PROTO_MORE : KB_PROXY_PROTO_BAD;
    }
    if (seen.p[end + 1] != '\n') {
        return KB_PROXY_PROTO_BAD;
    }
    header->len = (size_t)end + 2;
    return v1_line_read(kb_str_first(bytes, (size_t)end), header);
}

/* ---- version 2 ---- */

bool kb_proxy_proto_next_tlv(struct kb_str *tlvs, uint8_t *type, struct kb_str *value)
{
    const uint8_t *p = (const uint8_t *)tlvs->p;
    size_t len;

    if (tlvs->len < TLV_HEADER) {
        return false;
    }
    len = (size_t)(p[1] << 8 | p[2]);
    if (len > tlvs->len - TLV_HEADER) {
        return false;
    }
    *type = p[0];
    *value = kb_str_make(tlvs->p + TLV_HEADER, len);
    *tlvs = kb_str_from(*tlvs, TLV_HEADER + len);
    return true;
}

static bool tlvs_valid(struct kb_str tlvs)
{
    struct kb_str value;
    uint8_t type;

    while (kb_proxy_proto_next_tlv(&tlvs, &type, &value)) {
    }
    return tlvs.len == 0;
}

static void v2_address_read(struct kb_addr *addr, const char *ip, const char *port, int family)
{
    memset(addr, 0, sizeof(*addr));
    if (family == V2_FAMILY_INET) {
        addr->in4.sin_family = AF_INET;
        memcpy(&addr->in4.sin_addr, ip, 4);
        memcpy(&addr->in4.sin_port, port, 2);
        addr->len = sizeof(addr->in4);
    } else {
        addr->in6.sin6_family = AF_INET6;
        memcpy(&addr->in6.sin6_addr, ip, 16);
        memcpy(&addr->in6.sin6_port, port, 2);
        addr->len = sizeof(addr->in6);
    }
}

static enum kb_proxy_proto_result v2_parse(struct kb_str bytes,
                                           struct kb_proxy_proto_header *header)
{
    const uint8_t *p = (const uint8_t *)bytes.p;
    const char *addresses = bytes.p + KB_PROXY_PROTO_V2_HEADER;
    unsigned command, family, proto;
    size_t len, ip_len, needed;

    header->version = KB_PROXY_PROTO_V2;
    header->needed = KB_PROXY_PROTO_V2_HEADER;
    if (bytes.len < KB_PROXY_PROTO_V2_HEADER) {
        return KB_PROXY_PROTO_MORE;
    }
    command = p[12] & 0xf;
    family = p[13] >> 4;
    proto = p[13] & 0xf;
    len = (size_t)(p[14] << 8 | p[15]);
    ip_len = family == V2_FAMILY_INET ? 4 : 16;
    needed = family == V2_FAMILY_INET ? V2_INET_BYTES : V2_INET6_BYTES;
    if (p[12] >> 4 != 2 || command > V2_COMMAND_PROXY ||
        (command == V2_COMMAND_PROXY &&
         ((family != V2_FAMILY_INET && family != V2_FAMILY_INET6) ||
          (proto != V2_PROTO_STREAM && proto != V2_PROTO_DGRAM) || len < needed))) {
        return KB_PROXY_PROTO_BAD;
    }
    header->len = KB_PROXY_PROTO_V2_HEADER + len;
    header->needed = header->len;
    if (bytes.len < header->len) {
        return KB_PROXY_PROTO_MORE;
    }
    if (command == V2_COMMAND_LOCAL) {
        return KB_PROXY_PROTO_DONE;
    }
    header->has_addresses = true;
    v2_address_read(&header->source, addresses, addresses + 2 * ip_len, (int)family);
    v2_address_read(&header->destination, addresses + ip_len, addresses + 2 * ip_len + 2,
                    (int)family);
    header->tlvs = kb_str_make(addresses + needed, len - needed);
    return tlvs_valid(header->tlvs) ? addresses_check(header) : KB_PROXY_PROTO_BAD;
}

/* ---- both ---- */

/* 1: it begins so; 0: it may; -1: it does not. */
static int signature_match(struct kb_str bytes, const char *signature, size_t len)
{
    if (memcmp(bytes.p, signature, KB_MIN(bytes.len, len)) != 0) {
        return -1;
    }
    return bytes.len >= len ? 1 : 0;
}

enum kb_proxy_proto_result kb_proxy_proto_parse(struct kb_str bytes, unsigned versions,
                                                struct kb_proxy_proto_header *header)
{
    int v1 = -1, v2 = -1;

    memset(header, 0, sizeof(*header));
    header->needed = bytes.len + 1;
    if (bytes.len == 0) {
        return KB_PROXY_PROTO_MORE;
    }
    if ((versions & KB_PROXY_PROTO_V1) != 0) {
        v1 = signature_match(bytes, v1_signature, sizeof(v1_signature));
    }
    if ((versions & KB_PROXY_PROTO_V2) != 0) {
        v2 = signature_match(bytes, v2_signature, sizeof(v2_signature));
    }
    if (v1 == 1) {
        return v1_parse(bytes, header);
    }
    if (v2 == 1) {
        return v2_parse(bytes, header);
    }
    return v1 == 0 || v2 == 0 ? KB_PROXY_PROTO_MORE : KB_PROXY_PROTO_NOT_FOUND;
}

/* ---- writing ---- */

/* AF_INET or AF_INET6 when both addresses are of it, else 0. */
static int common_family(const struct kb_addr *source, const struct kb_addr *destination)
{
    if (source == NULL || !kb_addr_is_ip(source) ||
        destination->sa.sa_family != source->sa.sa_family) {
        return 0;
    }
    return source->sa.sa_family;
}

size_t kb_proxy_proto_v1_write(char *out, const struct kb_addr *source,
                               const struct kb_addr *destination)
{
    int family = common_family(source, destination);
    char from[KB_ADDR_TEXT_MAX], to[KB_ADDR_TEXT_MAX];
    int n;

    if (family == 0) {
        n = snprintf(out, KB_PROXY_PROTO_V1_MAX, "PROXY UNKNOWN\r\n");
    } else {
        n = snprintf(out, KB_PROXY_PROTO_V1_MAX, "PROXY %s %.*s %.*s %u %u\r\n",
                     family == AF_INET ? "TCP4" : "TCP6", KB_STR_ARG(kb_addr_ip_text(source, from)),
                     KB_STR_ARG(kb_addr_ip_text(destination, to)), kb_addr_port(source),
                     kb_addr_port(destination));
    }
    KB_ASSERT(n > 0 && n < KB_PROXY_PROTO_V1_MAX);
    return (size_t)n;
}

size_t kb_proxy_proto_v2_size(size_t tlvs_len)
{
    return KB_PROXY_PROTO_V2_HEADER + V2_INET6_BYTES + tlvs_len;
}

static char *v2_addresses_write(char *at, const struct kb_addr *source,
                                const struct kb_addr *destination)
{
    const struct kb_addr *const addrs[] = {source, destination};
    bool v4 = source->sa.sa_family == AF_INET;

    for (unsigned i = 0; i < 2; i++) {
        const void *ip =
            v4 ? (const void *)&addrs[i]->in4.sin_addr : (const void *)&addrs[i]->in6.sin6_addr;

        memcpy(at, ip, v4 ? 4 : 16);
        at += v4 ? 4 : 16;
    }
    for (unsigned i = 0; i < 2; i++) {
        uint16_t port = htons(kb_addr_port(addrs[i]));

        memcpy(at, &port, sizeof(port));
        at += sizeof(port);
    }
    return at;
}

size_t kb_proxy_proto_v2_write(char *out, const struct kb_addr *source,
                               const struct kb_addr *destination, struct kb_str tlvs)
{
    int family = common_family(source, destination);
    char *at = out + KB_PROXY_PROTO_V2_HEADER;
    size_t len;

    memcpy(out, v2_signature, sizeof(v2_signature));
    out[sizeof(v2_signature)] = 2 << 4 | (family == 0 ? V2_COMMAND_LOCAL : V2_COMMAND_PROXY);
    out[sizeof(v2_signature) + 1] = 0;
    if (family != 0) {
        out[sizeof(v2_signature) + 1] =
            (char)((family == AF_INET ? V2_FAMILY_INET : V2_FAMILY_INET6) << 4 | V2_PROTO_STREAM);
        at = v2_addresses_write(at, source, destination);
        memcpy(at, tlvs.p, tlvs.len);
        at += tlvs.len;
    }
    len = (size_t)(at - out) - KB_PROXY_PROTO_V2_HEADER;
    KB_ASSERT(len <= UINT16_MAX);
    out[sizeof(v2_signature) + 2] = (char)(len >> 8);
    out[sizeof(v2_signature) + 3] = (char)len;
    return (size_t)(at - out);
}

bool kb_proxy_proto_tlv_append(char *out, size_t *len, uint8_t type, struct kb_str value)
{
    if (value.len > UINT16_MAX || *len + TLV_HEADER + value.len > KB_PROXY_PROTO_TLVS_MAX) {
        return false;
    }
    out[*len] = (char)type;
    out[*len + 1] = (char)(value.len >> 8);
    out[*len + 2] = (char)value.len;
    if (value.len > 0) {
        memcpy(out + *len + TLV_HEADER, value.p, value.len);
    }
    *len += TLV_HEADER + value.len;
    return true;
}
