/* SPDX-License-Identifier: Apache-2.0 */
/* One upstream HTTP/1 connection of a pool and the request on it. The pool decides which request it
 * gets; this encodes it and decodes the answer. For proxy/upstream/pool_h1.c and h1_client.c only.
 */
#pragma once

#include "base/list.h"
#include "proxy/api/codec.h"
#include "proxy/api/connection.h"
#include "proxy/http/h1_encode.h"

struct kb_h1_pool;

enum kb_h1_client_state {
    KB_H1_CLIENT_CONNECTING,
    KB_H1_CLIENT_READY, /* idle, in the pool's ready list */
    KB_H1_CLIENT_BUSY,  /* carries a request */
    KB_H1_CLIENT_CLOSED,
};

/* Also the struct kb_request_encoder of its request. */
struct kb_h1_client {
    KB_OBJ;
    struct kb_list link; /* in one of the pool's lists */
    struct kb_h1_pool *pool;
    struct kb_conn *conn;
    enum kb_h1_client_state state;
    struct kb_h1_parser parser;
    uint64_t requests;
    uint64_t connect_start_ns;
    struct kb_timer idle_timer;
    struct kb_timer duration_timer;
    /* The request. */
    const struct kb_response_decoder_ops *decoder; /* NULL: nobody listens any more */
    void *owner;
    struct kb_arena *arena;
    struct kb_header_map *response;
    enum kb_h1_framing framing;
    uint64_t sent_before; /* conn->bytes_sent when the request began */
    uint64_t received_before;
    uint64_t header_bytes_sent;
    uint64_t header_bytes_received;
    uint64_t informational_bytes; /* heads of 1xx answers to this request */
    bool head_request;
    bool upgrade_asked; /* the request asks for an upgrade */
    bool tunnel;        /* the answer was 101: what comes is not HTTP/1 any more */
    bool request_complete;
    bool response_started;
    bool answer_ended; /* end_stream was given to the decoder, after the whole request was sent */
    bool close_after;  /* not to be used again */
    bool parsing;
    unsigned read_disables;
};
KB_OBJ_MAGIC(kb_h1_client, 0x4831434c);

/* ---- h1_client.c ---- */

extern const struct kb_conn_callbacks kb_h1_client_conn_callbacks;

/* Puts a request on a ready connection. */
void kb_h1_client_attach(struct kb_h1_client *client, struct kb_arena *arena,
                         const struct kb_response_decoder_ops *decoder, void *owner);

/* ---- pool_h1.c ---- */

/* TCP is up. */
void kb_h1_pool_connected(struct kb_h1_client *client);
/* The request on it is over and the connection may be used again. */
void kb_h1_pool_request_done(struct kb_h1_client *client);
/* The connection's last event came. */
void kb_h1_pool_closed(struct kb_h1_client *client, enum kb_conn_event event);
/* Releases what one request counts: rq_active and the like. */
void kb_h1_pool_request_uncount(struct kb_h1_client *client);
struct kb_stat_block *kb_h1_pool_stats(struct kb_h1_client *client);
