/* SPDX-License-Identifier: Apache-2.0 */
/* Upstream HTTP/2: one pooled connection, which carries many requests. For h2_client*.c and
 * alpn_client.c only. */
#pragma once

#include "proxy/http/h2_client_session.h"
#include "proxy/upstream/pool_client.h"

struct kb_h2_client {
    struct kb_pool_client base;
    struct kb_h2_session *session;
    struct kb_deferred work;    /* sends, and does what callbacks of the session left to do */
    struct kb_timer ping_timer; /* the next PING, or the end of waiting for its answer */
    struct kb_slice *receiving; /* holds the bytes that the session reads */
    struct kb_list refused;     /* requests that could not be sent */
    struct kb_list received;    /* requests whose windows open again at the end of the turn */
    size_t out_limit;
    uint64_t received_ms;  /* when something came last */
    uint32_t gone;         /* streams that left the session, and the pool does not know yet */
    uint32_t stream_limit; /* as the options say */
    uint32_t rtt_us;       /* of the way to the server; 0: not asked yet */
    bool ping_waits;
};

KB_INLINE struct kb_loop *kb_h2_client_loop(struct kb_h2_client *client)
{
    return &kb_conn_pool_worker(&client->base)->loop;
}

KB_INLINE struct kb_stat_block *kb_h2_client_stats(struct kb_h2_client *client)
{
    return kb_stat_group_block(kb_conn_pool_cluster(&client->base)->http2_stats,
                               kb_conn_pool_worker(&client->base)->index);
}

/* What the session has to send leaves when the present event is done. */
KB_INLINE void kb_h2_client_wake(struct kb_h2_client *client)
{
    kb_loop_defer(kb_h2_client_loop(client), &client->work);
}

/* ---- h2_client.c ---- */

/* What the cluster says of HTTP/2 to its hosts; a session of its own kind adds to it. */
void kb_h2_client_settings(const struct kb_cluster *cluster, struct kb_h2_settings *settings);

/* ---- h2_client_request.c ---- */

/* For kb_pool_client_ops. */
struct kb_request_encoder *
kb_h2_client_request_create(struct kb_pool_client *base, struct kb_arena *arena,
                            const struct kb_response_decoder_ops *decoder, void *owner);
/* The session had no stream for requests, as it is on its way out: the connection takes no more,
 * and they fail. Not from within the session. */
void kb_h2_client_refused_fail(struct kb_h2_client *client);
/* Windows open again for what came in this turn: whoever could not pass it on has said so by now,
 * and gets no more. */
void kb_h2_client_received_consume(struct kb_h2_client *client);

/* ---- h2_client_ping.c ---- */

/* Connected, or the answer to a PING came: the next one is due after the interval. */
void kb_h2_client_ping_arm(struct kb_h2_client *client);
/* A request is about to be sent: when nothing came for connection_idle_interval, whether the peer
 * is still there is asked ahead of it. */
void kb_h2_client_idle_ping(struct kb_h2_client *client);
/* For ping_timer. */
void kb_h2_client_ping_fired(struct kb_timer *timer);
