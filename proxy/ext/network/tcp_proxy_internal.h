/* SPDX-License-Identifier: Apache-2.0 */
/* One connection of the TCP proxy: between tcp_proxy.c (the client's side, timers and log) and
 * tcp_proxy_upstream.c (the way to a host). All of it belongs to the connection's worker. */
#pragma once

#include "proxy/ext/network/tcp_proxy.h"

/* One downstream connection. */
struct kb_tcp_proxy {
    KB_OBJ;
    const struct kb_tcp_proxy_config *config;
    struct kb_worker *worker;
    struct kb_conn *down;
    struct kb_request_encoder *up; /* NULL: none */
    struct kb_pool_waiter *waiter;
    struct kb_stat_block *stats;
    struct kb_cluster_local *cluster;                  /* holds a reference */
    struct kb_host_local *host_local;                  /* of `up`; holds a reference */
    struct kb_host_local *shown_host;                  /* which the info names; holds a reference */
    const struct kb_metadata_criteria *metadata_match; /* NULL: none */
    struct kb_stream_info info;
    struct kb_arena arena;
    struct kb_timer idle_timer;
    struct kb_timer duration_timer;
    struct kb_timer log_timer;
    struct kb_timer retry_timer;
    uint64_t backoff_ms; /* upper end of the next wait */
    uint64_t idle_deadline_ms;
    uint32_t attempts;
    bool connected;  /* bytes pass: TCP is up, or the tunnel was agreed to */
    bool up_heard;   /* bytes came from the host */
    bool up_ended;   /* the client's end was passed on */
    size_t flushing; /* bytes that are on their way to the client when it is closed */
    bool up_http2;   /* the tunnel is a stream of HTTP/2 */
    bool down_closed;
    bool down_stopped;  /* reading of the client is disabled until the upstream is there */
    bool ended;         /* logged and counted */
    char stream_id[36]; /* made for the first line of the log */
};
KB_OBJ_MAGIC(kb_tcp_proxy, 0x54435050);

KB_INLINE struct kb_loop *kb_tcp_proxy_loop(struct kb_tcp_proxy *proxy)
{
    return &proxy->worker->loop;
}

/* Something moved: puts off the idle timeout. */
KB_INLINE void kb_tcp_proxy_touch(struct kb_tcp_proxy *proxy)
{
    proxy->idle_deadline_ms =
        kb_loop_now_ms(kb_tcp_proxy_loop(proxy)) + proxy->config->idle_timeout_ms;
}

/* ---- tcp_proxy.c ---- */

/* Writes the connection's line to the access logs, of this %ACCESS_LOG_TYPE%. */
void kb_tcp_proxy_log(struct kb_tcp_proxy *proxy, const char *type);
/* Nothing can be done for the client: it is closed, logged with this flag. */
void kb_tcp_proxy_fail(struct kb_tcp_proxy *proxy, enum kb_response_flag flag);

/* ---- tcp_proxy_upstream.c ---- */

/* On zeroed storage: the back-off's timer. */
void kb_tcp_proxy_upstream_init(struct kb_tcp_proxy *proxy);
/* Asks for a way to a host of proxy->cluster, as often as the configuration allows and with its
 * waits; when there is none left the client is closed before this returns, or later. */
void kb_tcp_proxy_connect(struct kb_tcp_proxy *proxy);
/* Gives up what is under way: a wait, an attempt, or the connection, which is closed so. */
void kb_tcp_proxy_upstream_close(struct kb_tcp_proxy *proxy, enum kb_conn_close how);
/* The way to the host is over, by it (`reset`) or in order: what came of it is still given to the
 * client, which is then closed. proxy->up is not closed here. */
void kb_tcp_proxy_upstream_ended(struct kb_tcp_proxy *proxy, bool reset);
/* Brings proxy->info.upstream up to now. */
void kb_tcp_proxy_upstream_info(struct kb_tcp_proxy *proxy);
/* Gives back what it holds of hosts. */
void kb_tcp_proxy_upstream_dispose(struct kb_tcp_proxy *proxy);
