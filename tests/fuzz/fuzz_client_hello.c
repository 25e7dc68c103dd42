/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the beginning of a TLS connection. Promise checked besides memory safety: what was
 * not decided after some bytes is decided the same way whatever was looked at before, and slices
 * stay inside the bytes or the scratch room. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "base/obj.h"
#include "proxy/api/tls_client_hello.h"

static char scratch[KB_CLIENT_HELLO_MAX];

static void inside(struct kb_str slice, const char *p, size_t size)
{
    KB_ASSERT(slice.len == 0 || (slice.p >= p && slice.p + slice.len <= p + size) ||
              (slice.p >= scratch && slice.p + slice.len <= scratch + sizeof(scratch)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kb_client_hello hello;
    enum kb_client_hello_result whole;
    char *bytes;

    if (size > 40000) {
        return 0;
    }
    bytes = malloc(size + 1);
    memcpy(bytes, data, size);
    whole = kb_client_hello_parse(kb_str_make(bytes, size), KB_CLIENT_HELLO_MAX, scratch, &hello);
    if (whole == KB_CLIENT_HELLO_DONE) {
        struct kb_str alpn = hello.alpn;
        struct kb_str name;

        inside(hello.server_name, bytes, size);
        inside(hello.alpn, bytes, size);
        inside(hello.extensions, bytes, size);
        inside(hello.cipher_suites, bytes, size);
        KB_ASSERT(hello.wire_bytes <= size);
        while (kb_client_hello_next_alpn(&alpn, &name)) {
            KB_ASSERT(name.len > 0);
        }
    }
    for (size_t n = 0; n < size && n < 200; n++) {
        enum kb_client_hello_result part =
            kb_client_hello_parse(kb_str_make(bytes, n), KB_CLIENT_HELLO_MAX, scratch, &hello);

        KB_ASSERT(part == KB_CLIENT_HELLO_MORE || part == whole);
    }
    free(bytes);
    return 0;
}
