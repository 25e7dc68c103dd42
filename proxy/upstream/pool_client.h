/* SPDX-License-Identifier: Apache-2.0 */
/* One connection of a pool, whatever is spoken on it (Envoy ConnectionPool::ActiveClient): the part
 * that the pool knows. For proxy/upstream/conn_pool.c and the *_client.c files only. */
#pragma once

#include "base/list.h"
#include "proxy/api/codec.h"
#include "proxy/api/connection.h"
#include "proxy/http/h1_parse.h"

struct kb_conn_pool;

enum kb_pool_client_state {
    KB_POOL_CLIENT_CONNECTING,
    KB_POOL_CLIENT_READY, /* takes a request; in the pool's ready list */
    KB_POOL_CLIENT_BUSY,  /* takes none for now, or any more; carries a request */
    KB_POOL_CLIENT_CLOSED,
};

/* The first member of what a kind of client keeps. `encoder` is what its request's owner holds. */
struct kb_pool_client {
    KB_OBJ;
    struct kb_request_encoder encoder;
    struct kb_list link; /* in one of the pool's lists */
    struct kb_conn_pool *pool;
    struct kb_conn *conn;
    const struct kb_pool_client_ops *ops;
    enum kb_pool_client_state state;
    uint32_t streams;      /* where many are carried: those now */
    uint32_t stream_limit; /* and how many there may be */
    uint64_t requests;
    uint64_t connect_start_ns;
    uint64_t connect_end_ns;
    struct kb_timer idle_timer;
    struct kb_timer duration_timer;
    struct kb_deferred destroy;
    bool cut; /* where many are carried: some were cut off by the connection's end */
    /* The request, where only one is carried. */
    const struct kb_response_decoder_ops *decoder; /* NULL: nobody listens any more */
    void *owner;
    struct kb_arena *arena;
    uint64_t sent_before; /* conn->bytes_sent when the request began */
    uint64_t received_before;
    unsigned read_disables;
    bool answer_ended; /* after the whole request was sent: nothing more is expected */
    bool close_after;  /* not to be used again */
    bool unwanted;     /* closed while it connects, as nobody waits any more: that is no failure */
};
KB_OBJ_MAGIC(kb_pool_client, 0x504c434c);

/* What the pool asks of a kind of client. */
struct kb_pool_client_ops {
    size_t size; /* of the whole object */
    const struct kb_conn_callbacks *conn_callbacks;
    /* The object is zeroed and its common part set, except `conn`. */
    void (*init)(struct kb_pool_client *client, const struct kb_h1_settings *settings);
    /* Counts the connection as one of its protocol; may be NULL. */
    void (*count)(struct kb_pool_client *client);
    /* A request was put on it. */
    void (*attach)(struct kb_pool_client *client);
    /* Instead, where many are carried: makes what the request's owner will encode on, in `arena`.
     * The client says later kb_conn_pool_request_uncount, when the request is over, and
     * kb_conn_pool_stream_gone, when there is room for another. */
    struct kb_request_encoder *(*stream_create)(struct kb_pool_client *client,
                                                struct kb_arena *arena,
                                                const struct kb_response_decoder_ops *decoder,
                                                void *owner);
    void (*dispose)(struct kb_pool_client *client);
    const struct kb_str *alpn; /* offered where nothing else is; NULL: nothing */
    size_t alpn_count;
};

extern const struct kb_pool_client_ops kb_alpn_client_ops; /* alpn_client.c */
extern const struct kb_pool_client_ops kb_h2_client_ops;   /* h2_client.c */
extern const struct kb_pool_client_ops kb_h1_client_ops;   /* h1_client.c */
extern const struct kb_pool_client_ops kb_tcp_client_ops;  /* tcp_client.c */

/* ---- conn_pool.c ---- */

/* TCP is up. */
void kb_conn_pool_connected(struct kb_pool_client *client);
/* The request on it is over and the connection may be used again. */
void kb_conn_pool_request_done(struct kb_pool_client *client);
/* One of many requests on it left room for another. May close the connection. */
void kb_conn_pool_stream_gone(struct kb_pool_client *client);
/* So many requests may be on it at a time from now on; those that are stay. */
void kb_conn_pool_stream_limit(struct kb_pool_client *client, uint32_t limit);
/* It takes no more requests, and closes when those on it are over: perhaps at once. */
void kb_conn_pool_client_drain(struct kb_pool_client *client);
/* The connection's last event came. */
void kb_conn_pool_closed(struct kb_pool_client *client, enum kb_conn_event event);
/* Releases what one request counts: rq_active and the like. */
void kb_conn_pool_request_uncount(struct kb_pool_client *client);
struct kb_stat_block *kb_conn_pool_stats(struct kb_pool_client *client);
const struct kb_cluster *kb_conn_pool_cluster(const struct kb_pool_client *client);
struct kb_slice_source *kb_conn_pool_slices(struct kb_pool_client *client);
struct kb_worker *kb_conn_pool_worker(struct kb_pool_client *client);
const struct kb_h1_settings *kb_conn_pool_h1_settings(const struct kb_pool_client *client);

/* ---- shared by the kinds of clients: pool_client.c ---- */

/* kb_request_encoder_close and so on. */
void kb_pool_client_close(struct kb_request_encoder *encoder, enum kb_conn_close how,
                          uint64_t flush_timeout_ms);
void kb_pool_client_read_disable(struct kb_request_encoder *encoder, bool disable);
size_t kb_pool_client_unsent(const struct kb_request_encoder *encoder);
void kb_pool_client_info(struct kb_request_encoder *encoder, struct kb_upstream_info *info);
/* The part of it that is the connection's. */
void kb_pool_client_conn_info(struct kb_pool_client *client, struct kb_upstream_info *info);
/* No answer, or no more of it: tells the owner, ends the connection. */
void kb_pool_client_fail(struct kb_pool_client *client, enum kb_reset_reason reason);
/* The request needs nothing more of this connection; the owner is told by the caller. */
void kb_pool_client_detach(struct kb_pool_client *client);
/* Watermarks of the connection's write queue; for struct kb_conn_callbacks. */
void kb_pool_client_above_high(void *owner);
void kb_pool_client_below_low(void *owner);
