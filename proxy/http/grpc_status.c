/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC statuses that stand for HTTP ones, and messages beside them; alone in their file, so that
 * log formatters link without the connection manager. */
#include "proxy/http/local_reply.h"

unsigned kb_grpc_status_from_http(unsigned status)
{
    switch (status) {
    case 400:
        return 13;
    case 401:
        return 16;
    case 403:
        return 7;
    case 404:
        return 12;
    case 429:
    case 502:
    case 503:
    case 504:
        return 14;
    default:
        return 2;
    }
}

struct kb_str kb_grpc_message(struct kb_arena *arena, struct kb_str body)
{
    static const char digits[] = "0123456789ABCDEF";
    char *out = kb_arena_alloc(arena, body.len * 3 + 1, 1);
    size_t n = 0;

    for (size_t i = 0; i < body.len; i++) {
        unsigned char c = (unsigned char)body.p[i];

        if (c < 0x20 || c >= 0x7e || c == '%') {
            out[n++] = '%';
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        } else {
            out[n++] = (char)c;
        }
    }
    return kb_str_make(out, n);
}
