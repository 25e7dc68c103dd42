/* SPDX-License-Identifier: Apache-2.0 */
/* The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt), as Envoy reads it. Bytes
 * in, addresses out; no state, no I/O. */
#pragma once

#include "base/addr.h"
#include "base/str.h"

#define KB_PROXY_PROTO_V1_MAX    108 /* bytes of a line, with its end */
#define KB_PROXY_PROTO_V2_HEADER 16
#define KB_PROXY_PROTO_TLVS_MAX  (65535 - 36) /* behind addresses of IPv6 */
#define KB_PROXY_PROTO_MAX       (KB_PROXY_PROTO_V2_HEADER + 65535)

/* Versions, as bits. */
#define KB_PROXY_PROTO_V1 1u
#define KB_PROXY_PROTO_V2 2u

enum kb_proxy_proto_result {
    KB_PROXY_PROTO_MORE,      /* so far a header, and more bytes are needed: header->needed */
    KB_PROXY_PROTO_DONE,      /* `header` is filled */
    KB_PROXY_PROTO_NOT_FOUND, /* the bytes do not begin with a header */
    KB_PROXY_PROTO_BAD,       /* they do, but it is malformed; header->version says of which */
};

struct kb_proxy_proto_header {
    unsigned version;   /* KB_PROXY_PROTO_V1 or _V2; 0: not known yet */
    size_t needed;      /* bytes that the next look needs at least */
    size_t len;         /* of the whole header */
    bool has_addresses; /* false: LOCAL or UNKNOWN, the socket's own addresses hold */
    struct kb_addr source;
    struct kb_addr destination;
    struct kb_str tlvs; /* of version 2; see kb_proxy_proto_next_tlv; points into the bytes */
};

/* Looks at the bytes received so far, from the first on. `versions` that are looked for. */
enum kb_proxy_proto_result kb_proxy_proto_parse(struct kb_str bytes, unsigned versions,
                                                struct kb_proxy_proto_header *header);
/* Writes a header of version 1 or 2 to `out`, which has KB_PROXY_PROTO_V1_MAX bytes or
 * kb_proxy_proto_v2_size: its length. `source` NULL: nobody's, version 1 says UNKNOWN, 2 LOCAL; the
 * same where the addresses are not both of IPv4 or of IPv6. `tlvs` are of version 2. */
size_t kb_proxy_proto_v1_write(char *out, const struct kb_addr *source,
                               const struct kb_addr *destination);
size_t kb_proxy_proto_v2_write(char *out, const struct kb_addr *source,
                               const struct kb_addr *destination, struct kb_str tlvs);
/* Bytes that the latter needs at most; `tlvs_len` is below KB_PROXY_PROTO_TLVS_MAX. */
size_t kb_proxy_proto_v2_size(size_t tlvs_len);
/* Appends one TLV to what `*len` bytes of `out` are; false, and nothing, beyond
 * KB_PROXY_PROTO_TLVS_MAX. */
bool kb_proxy_proto_tlv_append(char *out, size_t *len, uint8_t type, struct kb_str value);

/* Takes the next (type, length, value) off *tlvs; false at its end. The list was checked by the
 * parser. */
bool kb_proxy_proto_next_tlv(struct kb_str *tlvs, uint8_t *type, struct kb_str *value);
