/* SPDX-License-Identifier: Apache-2.0 */
/* Downstream HTTP/1 codec: one request at a time, further ones wait in the connection's queue (RFC
 * 9112 section 9.3.2). */
#pragma once

#include "proxy/api/codec.h"
#include "proxy/http/h1_encode.h"

struct kb_hcm;
struct kb_stream;

struct kb_h1_server {
    KB_OBJ;
    struct kb_hcm *hcm;
    struct kb_h1_parser parser;
    struct kb_stream *stream; /* NULL between requests */
    enum kb_h1_framing framing;
    unsigned read_disables;
    /* A read counts for the message it begins in, with all that comes behind it, and what is left
     * of it for the next message again (Envoy's byte meters). */
    uint64_t wire_bytes_before; /* of lines before the next message */
    size_t metered;             /* bytes left in the input that the present message has counted */
    /* Where in the connection's output the last two responses end, the older one first. */
    uint64_t response_ends[2];
    bool request_complete;
    bool response_complete;
    bool head_request;
    bool connect_request;
    bool http_10;
    bool tunnel; /* after a request to upgrade or CONNECT: what comes is not HTTP/1 any more */
    bool failed; /* nothing more is parsed */
};
KB_OBJ_MAGIC(kb_h1_server, 0x48315356);

/* On the storage of its connection manager, which owns it and outlives it. */
void kb_h1_server_init(struct kb_h1_server *server, struct kb_hcm *hcm);
/* When no stream of it is left. */
void kb_h1_server_dispose(struct kb_h1_server *server);
/* Parses what is in `in` and gives it to the streams. */
void kb_h1_server_dispatch(struct kb_h1_server *server, struct kb_buf *in);
/* Overload: the request that `in` begins or goes on with is answered by 500 and the connection
 * closed; what waits behind a whole request goes on waiting. */
void kb_h1_server_abort(struct kb_h1_server *server, struct kb_buf *in);
/* The stream of this codec ended without the codec's doing. */
void kb_h1_server_detach(struct kb_h1_server *server);
