/* SPDX-License-Identifier: Apache-2.0 */
/* Length-prefixed gRPC messages: a byte of flags, four of length, the message. Pure: bytes in,
 * whole messages out. https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md */
#pragma once

#include "base/buf.h"

#define KB_GRPC_FRAME_HEADER_BYTES 5

/* Reads messages from a stream of bytes; on caller's storage. */
struct kb_grpc_frame_reader {
    size_t max_message_bytes;
    uint32_t have; /* of the header: 0..5; 5: in the message */
    unsigned char header[KB_GRPC_FRAME_HEADER_BYTES];
    char *message; /* when it came in more than one piece */
    size_t message_len;
    size_t message_cap;
    size_t expected; /* length of the present message */
};

/* One whole message; borrowed for the call. False: read no further, the reader may be gone. */
typedef bool (*kb_grpc_frame_cb)(void *arg, struct kb_str message);

/* On caller's storage; disposing drops a message that was begun. */
void kb_grpc_frame_reader_init(struct kb_grpc_frame_reader *reader, size_t max_message_bytes);
void kb_grpc_frame_reader_dispose(struct kb_grpc_frame_reader *reader);

/* Calls cb for each message that `bytes` completes. Memory for a message is taken as it comes,
 * never for what its length promises. KB_EUNSUPPORTED: a compressed one (or unknown flags),
 * KB_ELIMIT: one longer than allowed, KB_ECANCELLED: cb said so; nothing can be read after any of
 * these. */
int kb_grpc_frame_read(struct kb_grpc_frame_reader *reader, const char *bytes, size_t len,
                       kb_grpc_frame_cb cb, void *arg) KB_MUST_USE;
/* A message was begun and did not end. */
bool kb_grpc_frame_reader_partial(const struct kb_grpc_frame_reader *reader);

/* Appends an uncompressed message; its length fits 32 bits. */
void kb_grpc_frame_write(struct kb_buf *out, struct kb_str message);
