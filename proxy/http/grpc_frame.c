/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC's framing of messages. A message that came in one piece is handed on where it lies; others
 * are collected. */
#include "proxy/http/grpc_frame.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define FIRST_PIECE_BYTES 4096

void kb_grpc_frame_reader_init(struct kb_grpc_frame_reader *reader, size_t max_message_bytes)
{
    *reader = (struct kb_grpc_frame_reader){.max_message_bytes = max_message_bytes};
}

static void message_drop(struct kb_grpc_frame_reader *reader)
{
    free(reader->message);
    reader->message = NULL;
    reader->message_len = 0;
    reader->message_cap = 0;
}

void kb_grpc_frame_reader_dispose(struct kb_grpc_frame_reader *reader)
{
    message_drop(reader);
}

static int header_check(struct kb_grpc_frame_reader *reader)
{
    const unsigned char *h = reader->header;

    if (h[0] != 0) {
        return KB_EUNSUPPORTED;
    }
    reader->expected = (size_t)h[1] << 24 | (size_t)h[2] << 16 | (size_t)h[3] << 8 | h[4];
    return reader->expected > reader->max_message_bytes ? KB_ELIMIT : 0;
}

static void message_append(struct kb_grpc_frame_reader *reader, const char *bytes, size_t len)
{
    size_t need = reader->message_len + len;

    if (need > reader->message_cap) {
        size_t cap = KB_MAX(KB_MAX(reader->message_cap * 2, need), (size_t)FIRST_PIECE_BYTES);

        reader->message_cap = KB_MAX(KB_MIN(cap, reader->expected), need);
        reader->message = kb_realloc(reader->message, reader->message_cap);
    }
    memcpy(reader->message + reader->message_len, bytes, len);
    reader->message_len = need;
}

/* The message at hand is whole. */
static bool message_give(struct kb_grpc_frame_reader *reader, struct kb_str message,
                         kb_grpc_frame_cb cb, void *arg)
{
    char *kept = reader->message;
    bool more;

    /* The reader may be gone after the call. */
    reader->message = NULL;
    reader->message_len = 0;
    reader->message_cap = 0;
    reader->have = 0;
    more = cb(arg, message);
    free(kept);
    return more;
}

int kb_grpc_frame_read(struct kb_grpc_frame_reader *reader, const char *bytes, size_t len,
                       kb_grpc_frame_cb cb, void *arg)
{
    size_t at = 0;

    while (at < len || (reader->have == KB_GRPC_FRAME_HEADER_BYTES && reader->expected == 0)) {
        struct kb_str message;
        size_t n;

        if (reader->have < KB_GRPC_FRAME_HEADER_BYTES) {
            reader->header[reader->have++] = (unsigned char)bytes[at++];
            if (reader->have == KB_GRPC_FRAME_HEADER_BYTES) {
                KB_TRY(header_check(reader));
            }
            continue;
        }
        n = KB_MIN(len - at, reader->expected - reader->message_len);
        if (n == reader->expected) {
            message = kb_str_make(bytes + at, n);
        } else {
            message_append(reader, bytes + at, n);
            message = kb_str_make(reader->message, reader->message_len);
        }
        at += n;
        if (message.len == reader->expected && !message_give(reader, message, cb, arg)) {
            return KB_ECANCELLED;
        }
    }
    return 0;
}

bool kb_grpc_frame_reader_partial(const struct kb_grpc_frame_reader *reader)
{
    return reader->have > 0;
}

void kb_grpc_frame_write(struct kb_buf *out, struct kb_str message)
{
    const unsigned char header[KB_GRPC_FRAME_HEADER_BYTES] = {
        0,
        (unsigned char)(message.len >> 24),
        (unsigned char)(message.len >> 16),
        (unsigned char)(message.len >> 8),
        (unsigned char)message.len,
    };

    kb_buf_append(out, header, sizeof(header));
    kb_buf_append(out, message.p, message.len);
}
