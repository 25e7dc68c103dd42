/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes where a PROXY protocol header may be. Promises checked besides memory safety: a verdict
 * stays what it is when more bytes come, a header is no longer than what came, and what is written
 * of it is read again. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "proxy/network/proxy_proto.h"

#define BOTH (KB_PROXY_PROTO_V1 | KB_PROXY_PROTO_V2)

static void read_again(const char *bytes, size_t len, const struct kb_proxy_proto_header *header,
                       struct kb_str tlvs)
{
    struct kb_proxy_proto_header again;

    KB_ASSERT(kb_proxy_proto_parse(kb_str_make(bytes, len), BOTH, &again) == KB_PROXY_PROTO_DONE);
    KB_ASSERT(again.len == len && again.has_addresses == header->has_addresses);
    if (header->has_addresses) {
        KB_ASSERT(kb_addr_eq(&again.source, &header->source));
        KB_ASSERT(kb_addr_eq(&again.destination, &header->destination));
        KB_ASSERT(kb_str_eq(again.tlvs, tlvs));
    }
}

/* Addresses with a zone have no form in either version. */
static bool has_zone(const struct kb_addr *addr)
{
    return addr->sa.sa_family == AF_INET6 && addr->in6.sin6_scope_id != 0;
}

static void write_and_read(const struct kb_proxy_proto_header *header)
{
    const struct kb_addr *source = header->has_addresses ? &header->source : NULL;
    char line[KB_PROXY_PROTO_V1_MAX];
    size_t tlvs_len = 0;
    char *tlvs, *out;
    struct kb_str rest = header->tlvs, value;
    uint8_t type;

    if (source != NULL && (has_zone(source) || has_zone(&header->destination) ||
                           source->sa.sa_family != header->destination.sa.sa_family)) {
        return;
    }
    read_again(line, kb_proxy_proto_v1_write(line, source, &header->destination), header,
               KB_STR_NULL);
    tlvs = malloc(KB_PROXY_PROTO_TLVS_MAX);
    while (kb_proxy_proto_next_tlv(&rest, &type, &value)) {
        (void)kb_proxy_proto_tlv_append(tlvs, &tlvs_len, type, value);
    }
    out = malloc(kb_proxy_proto_v2_size(tlvs_len));
    value = kb_str_make(tlvs, tlvs_len);
    read_again(out, kb_proxy_proto_v2_write(out, source, &header->destination, value), header,
               value);
    free(out);
    free(tlvs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kb_proxy_proto_header header, part;
    enum kb_proxy_proto_result whole;
    char *bytes;

    if (size > 70000) {
        return 0;
    }
    bytes = malloc(size + 1);
    memcpy(bytes, data, size);
    whole = kb_proxy_proto_parse(kb_str_make(bytes, size), BOTH, &header);
    if (whole == KB_PROXY_PROTO_DONE) {
        struct kb_str tlvs = header.tlvs;
        struct kb_str value;
        uint8_t type;

        KB_ASSERT(header.len <= size);
        while (kb_proxy_proto_next_tlv(&tlvs, &type, &value)) {
            KB_ASSERT(value.p >= bytes && value.p + value.len <= bytes + header.len);
        }
        KB_ASSERT(tlvs.len == 0);
        write_and_read(&header);
    }
    for (size_t n = 0; n < size && n < 300; n++) {
        enum kb_proxy_proto_result result =
            kb_proxy_proto_parse(kb_str_make(bytes, n), BOTH, &part);

        KB_ASSERT(result == KB_PROXY_PROTO_MORE || result == whole);
        KB_ASSERT(result != KB_PROXY_PROTO_MORE || part.needed > n);
    }
    free(bytes);
    return 0;
}
