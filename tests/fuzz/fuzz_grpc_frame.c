/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC messages out of bytes: what comes in pieces (cut where the first byte says) reads as what
 * comes at once, errors included. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "proxy/http/grpc_frame.h"
#include "tests/fuzz/fuzz.h"

#define MESSAGE_MAX 4096

struct seen {
    uint64_t hash;
    size_t count;
};

static bool on_message(void *arg, struct kb_str message)
{
    struct seen *seen = arg;

    if (message.len > MESSAGE_MAX) {
        abort();
    }
    for (size_t i = 0; i < message.len; i++) {
        seen->hash = seen->hash * 31 + (unsigned char)message.p[i];
    }
    seen->hash = seen->hash * 31 + message.len;
    seen->count++;
    return true;
}

static int read_all(const uint8_t *data, size_t size, size_t piece, struct seen *seen)
{
    struct kb_grpc_frame_reader reader;
    int rc = 0;

    kb_grpc_frame_reader_init(&reader, MESSAGE_MAX);
    for (size_t at = 0; at < size && rc == 0; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        /* A copy of its own, so that reading past its end is seen. */
        char *copy = kb_malloc(n);

        memcpy(copy, data + at, n);
        rc = kb_grpc_frame_read(&reader, copy, n, on_message, seen);
        free(copy);
    }
    kb_grpc_frame_reader_dispose(&reader);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole = {0}, parts = {0};
    int a, b;

    if (size < 2) {
        return 0;
    }
    a = read_all(data + 1, size - 1, size, &whole);
    b = read_all(data + 1, size - 1, (size_t)data[0] % 32 + 1, &parts);
    if (a != b || whole.count != parts.count || whole.hash != parts.hash) {
        abort();
    }
    return 0;
}
