/* SPDX-License-Identifier: Apache-2.0 */
/* Upstream HTTP/1 codec: one pooled connection and the request on it. The pool decides which
 * request it gets; this encodes it and decodes the answer. For h1_client.c and its test only. */
#pragma once

#include "proxy/http/h1_encode.h"
#include "proxy/upstream/pool_client.h"

struct kb_h1_client {
    struct kb_pool_client base;
    struct kb_h1_parser parser;
    struct kb_header_map *response;
    enum kb_h1_framing framing;
    uint64_t header_bytes_sent;
    uint64_t header_bytes_received;
    uint64_t informational_bytes; /* heads of 1xx answers to this request */
    bool head_request;
    bool upgrade_asked; /* the request asks for an upgrade */
    bool connect_asked; /* the request is CONNECT */
    bool tunnel;        /* the answer agreed to one of these: what comes is not HTTP/1 any more */
    bool request_complete;
    bool alone_in_queue; /* nothing of a request before was waiting to leave */
    bool response_started;
};
