/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the connection pools share: conn_pool.c has pools and requests,
 * conn_pool_client.c the connections in them. */
#pragma once

#include "proxy/api/transport_socket.h"
#include "proxy/upstream/conn_pool.h"
#include "proxy/upstream/pool_client.h"

struct kb_pool_waiter {
    struct kb_list link;
    struct kb_conn_pool *pool;
    struct kb_arena *arena;
    const struct kb_pool_callbacks *callbacks;
    const struct kb_response_decoder_ops *decoder;
    void *owner;
    struct kb_pool_waiter **handle; /* the owner's pointer, cleared when answered */
};

struct kb_conn_pool {
    KB_OBJ;
    struct kb_conn_pool *sibling;                      /* of other options, and the same else */
    const struct kb_transport_socket_options *options; /* NULL: none */
    struct kb_arena options_arena;
    struct kb_cluster_local *local;
    struct kb_host_local *host_local;
    struct kb_host *host;
    struct kb_stat_block *stats;
    enum kb_pool_kind kind;
    enum kb_priority priority;
    const struct kb_pool_client_ops *client_ops;
    struct kb_h1_settings settings;
    struct kb_list ready; /* most recently used first */
    struct kb_list busy;
    struct kb_list connecting;
    struct kb_list waiting;
    uint32_t connecting_capacity; /* requests that connecting clients will take */
    uint32_t waiting_count;
    uint32_t client_count;
    bool counted;  /* as one of the cluster's pools */
    bool draining; /* the host is gone: no idle connections are kept */
    struct kb_deferred ready_check;
    struct kb_deferred destroy;
};
KB_OBJ_MAGIC(kb_conn_pool, 0x434e504c);

KB_INLINE struct kb_loop *kb_conn_pool_loop(struct kb_conn_pool *pool)
{
    return &pool->local->worker->loop;
}

/* Of one client's address, or of what a client said: it goes with its last connection, or clients
 * could make any number. */
KB_INLINE bool kb_conn_pool_is_of_client(const struct kb_conn_pool *pool)
{
    return pool->options != NULL && (pool->options->of_request || pool->options->source != NULL ||
                                     pool->options->client != NULL);
}

/* Takes no more requests for now. */
KB_INLINE void kb_conn_pool_client_busy(struct kb_pool_client *client)
{
    kb_list_unlink(&client->link);
    kb_list_push_front(&client->pool->busy, &client->link);
    client->state = KB_POOL_CLIENT_BUSY;
}

/* ---- conn_pool.c ---- */

/* A connection or a waiting request is gone: the pool goes when it was the last and is not wanted.
 */
void kb_conn_pool_destroy_check(struct kb_conn_pool *pool);
/* Those that wait now are told that there will be no connection. */
void kb_conn_pool_waiting_fail(struct kb_conn_pool *pool, enum kb_reset_reason reason,
                               struct kb_str text);

/* ---- conn_pool_client.c ---- */

/* More connections if the waiting requests need them; Envoy always allows a host its first. */
void kb_conn_pool_connect_more(struct kb_conn_pool *pool);
/* Likewise, but true when one was needed that the overload manager did not want. */
bool kb_conn_pool_connect_some(struct kb_conn_pool *pool);
