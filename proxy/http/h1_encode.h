/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1 messages to bytes: heads rebuilt from header maps with Envoy's framing rules, chunks,
 * trailers (RFC 9112). */
#pragma once

#include "base/buf.h"
#include "proxy/http/h1_parse.h"

/* How the body of the message being written is framed. */
enum kb_h1_framing {
    KB_H1_FRAMING_LENGTH, /* content-length in the headers, or no body */
    KB_H1_FRAMING_CHUNKED,
    KB_H1_FRAMING_CLOSE, /* until the connection ends */
    KB_H1_FRAMING_NONE,  /* bytes given are dropped: answers to HEAD, 204, 304 */
};

struct kb_h1_response_options {
    const struct kb_h1_settings *settings;
    bool http_10;      /* the client speaks HTTP/1.0 */
    bool head_request; /* the request was HEAD */
    bool upgraded;     /* the answer agrees to an upgrade or CONNECT: bytes follow */
};

/* Status line, headers, and the framing header that they lack; returns the framing. */
enum kb_h1_framing kb_h1_encode_response(struct kb_buf *out, const struct kb_header_map *headers,
                                         bool end_stream,
                                         const struct kb_h1_response_options *options);

/* Request line, host, headers, and the framing header that they lack. */
enum kb_h1_framing kb_h1_encode_request(struct kb_buf *out, const struct kb_header_map *headers,
                                        bool end_stream, const struct kb_h1_settings *settings);

/* Body bytes with the framing; takes all of data. */
void kb_h1_encode_data(struct kb_buf *out, enum kb_h1_framing framing, struct kb_buf *data);
/* What ends the message: the last chunk, with trailers when `trailers` is not NULL. As in Envoy,
 * proper_case_words is not for their names. */
void kb_h1_encode_end(struct kb_buf *out, enum kb_h1_framing framing,
                      const struct kb_header_map *trailers);

/* Of the `head_bytes` of an encoded response those of its header lines. */
size_t kb_h1_header_bytes(size_t head_bytes, const struct kb_header_map *headers);

/* "OK"; "Unknown" where there is no name. */
struct kb_str kb_h1_status_reason(unsigned status);
