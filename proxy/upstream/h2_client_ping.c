/* SPDX-License-Identifier: Apache-2.0 */
/* Keep-alive of pooled HTTP/2 connections (Envoy's connection_keepalive): a PING each interval, and
 * the connection goes when its answer stays out for the timeout. */
#include "proxy/upstream/h2_client.h"

void kb_h2_client_ping_arm(struct kb_h2_client *client)
{
    const struct kb_cluster *cluster = kb_conn_pool_cluster(&client->base);
    uint64_t interval = cluster->http2.keepalive_interval_ms;
    uint64_t jitter = interval * cluster->http2.keepalive_jitter_percent / 100;

    client->ping_waits = false;
    kb_loop_timer_cancel(kb_h2_client_loop(client), &client->ping_timer);
    if (interval == 0 || client->base.state == KB_POOL_CLIENT_CLOSED) {
        return; /* of a pool that drains it may be closed as soon as it is connected */
    }
    if (jitter > 0) {
        interval += kb_rand_u64(&kb_conn_pool_worker(&client->base)->rand) % jitter;
    }
    kb_loop_timer_arm(kb_h2_client_loop(client), &client->ping_timer, interval);
}

static void ping_send(struct kb_h2_client *client)
{
    client->ping_waits = true;
    kb_h2_session_ping(client->session);
    kb_loop_timer_arm(kb_h2_client_loop(client), &client->ping_timer,
                      kb_conn_pool_cluster(&client->base)->http2.keepalive_timeout_ms);
    kb_h2_client_wake(client);
}

void kb_h2_client_ping_fired(struct kb_timer *timer)
{
    struct kb_h2_client *client = KB_CONTAINER_OF(timer, struct kb_h2_client, ping_timer);

    KB_ASSERT(client->base.kb_magic == (uint32_t)KB_MAGIC_kb_pool_client);
    if (client->ping_waits) {
        kb_stat_inc(kb_h2_client_stats(client), KB_STAT_HTTP2_KEEPALIVE_TIMEOUT);
        kb_conn_close(client->base.conn, KB_CONN_NO_FLUSH);
        return;
    }
    ping_send(client);
}

void kb_h2_client_idle_ping(struct kb_h2_client *client)
{
    uint64_t idle_ms = kb_conn_pool_cluster(&client->base)->http2.keepalive_idle_ms;

    if (KB_UNLIKELY(idle_ms > 0) && !client->ping_waits &&
        kb_loop_now_ms(kb_h2_client_loop(client)) - client->received_ms > idle_ms) {
        ping_send(client);
    }
}
