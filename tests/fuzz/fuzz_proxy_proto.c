/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes where a PROXY protocol header may be. Promise checked besides memory safety: a verdict
 * stays what it is when more bytes come, and a header is no longer than what came. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "proxy/network/proxy_proto.h"

#define BOTH (KB_PROXY_PROTO_V1 | KB_PROXY_PROTO_V2)

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
