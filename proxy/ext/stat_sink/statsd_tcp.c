/* SPDX-License-Identifier: Apache-2.0 */
/* The connection of a statsd sink to a host of its cluster, on the main thread. It reads nothing;
 * when it ends, the next flush makes another one. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/api/cluster.h"
#include "proxy/api/connection.h"
#include "proxy/api/transport_socket.h"
#include "proxy/ext/stat_sink/statsd_lines.h"

#define WAITING_MAX ((size_t)16 << 20) /* as Envoy's MAX_BUFFERED_STATS_BYTES */

struct kb_statsd_tcp {
    KB_OBJ;
    struct kb_worker *worker;
    struct kb_str cluster;
    struct kb_conn *conn; /* NULL: there is none */
    struct kb_cluster_local *local;
    struct kb_host_local *host;
    uint64_t start_ns;
    bool connected;
    struct kb_timer duration;
};
KB_OBJ_MAGIC(kb_statsd_tcp, 0x53445443);

static struct kb_stat_block *stats_of(const struct kb_statsd_tcp *tcp)
{
    return tcp->local->stats;
}

static void on_data(void *owner, struct kb_buf *in, bool end_stream)
{
    (void)KB_CAST(owner, kb_statsd_tcp);
    (void)end_stream;
    kb_buf_consume(in, in->len);
}

static void on_duration(struct kb_timer *timer)
{
    kb_statsd_tcp_close(KB_CONTAINER_OF(timer, struct kb_statsd_tcp, duration));
}

static void connection_gone(struct kb_statsd_tcp *tcp, bool by_peer)
{
    struct kb_conn *conn = tcp->conn;

    tcp->conn = NULL;
    kb_loop_timer_cancel(&tcp->worker->loop, &tcp->duration);
    if (!tcp->connected) {
        kb_stat_inc(stats_of(tcp), conn->connect_timed_out
                                       ? KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_TIMEOUT
                                       : KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_FAIL);
        kb_host_stat_add(tcp->host, KB_HOST_CX_CONNECT_FAIL, 1);
    }
    kb_cluster_disconnected(stats_of(tcp), by_peer, false,
                            kb_loop_now_ns(&tcp->worker->loop) - tcp->start_ns, 0);
    kb_host_stat_add(tcp->host, KB_HOST_CX_ACTIVE, -1);
    kb_resource_give(tcp->local, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
    kb_host_local_unref(tcp->host);
    kb_cluster_local_unref(tcp->local);
}

static void on_event(void *owner, enum kb_conn_event event)
{
    struct kb_statsd_tcp *tcp = KB_CAST(owner, kb_statsd_tcp);

    if (event == KB_CONN_CONNECTED) {
        tcp->connected = true;
        kb_cluster_connected(tcp->local->cluster, tcp->host->host, tcp->conn, stats_of(tcp),
                             kb_loop_now_ns(&tcp->worker->loop) - tcp->start_ns, &tcp->duration);
        kb_conn_written(tcp->conn);
        return;
    }
    connection_gone(tcp, event == KB_CONN_REMOTE_CLOSE);
}

static void on_watermark(void *owner)
{
    (void)KB_CAST(owner, kb_statsd_tcp);
}

static const struct kb_conn_callbacks callbacks = {
    .on_data = on_data,
    .on_event = on_event,
    .on_above_high = on_watermark,
    .on_below_low = on_watermark,
};

/* False: there is no host. */
static bool connect_start(struct kb_statsd_tcp *tcp)
{
    const struct kb_lb_request request = {.max_attempts = 1};
    struct kb_cluster_local *local = kb_cluster_local_find(tcp->worker, tcp->cluster);
    struct kb_host *host = local != NULL ? kb_cluster_local_choose_host(local, &request) : NULL;
    struct kb_addr addr;

    if (host == NULL) {
        return false;
    }
    addr = kb_host_addr(host);
    tcp->local = local;
    tcp->host = kb_host_local_get(host, tcp->worker->index);
    tcp->connected = false;
    tcp->start_ns = kb_loop_now_ns(&tcp->worker->loop);
    kb_cluster_local_ref(local);
    kb_host_local_ref(tcp->host);
    tcp->conn =
        kb_conn_create_connecting(tcp->worker, &addr, kb_cluster_bind_source(local->cluster, &addr),
                                  local->cluster->connect_timeout_ms, 0);
    kb_conn_set_owner(tcp->conn, &callbacks, tcp);
    kb_transport_socket_factory_create(kb_host_transport_socket(host), tcp->conn, NULL);
    kb_cluster_connecting(tcp->local, KB_PRIORITY_DEFAULT, tcp->host, tcp->conn, stats_of(tcp));
    return true;
}

void kb_statsd_tcp_write(struct kb_statsd_tcp *tcp, const char *bytes, size_t len)
{
    if (tcp->conn != NULL && (tcp->local->removed || tcp->host->removed)) {
        kb_statsd_tcp_close(tcp);
    }
    if (tcp->conn == NULL && !connect_start(tcp)) {
        return;
    }
    if (tcp->conn->out.len + len > WAITING_MAX) {
        kb_statsd_tcp_close(tcp);
        return;
    }
    kb_buf_append(&tcp->conn->out, bytes, len);
    if (tcp->connected) {
        kb_conn_written(tcp->conn);
    }
}

void kb_statsd_tcp_close(struct kb_statsd_tcp *tcp)
{
    if (tcp->conn != NULL) {
        kb_conn_close(tcp->conn, KB_CONN_NO_FLUSH);
    }
}

struct kb_statsd_tcp *kb_statsd_tcp_create(struct kb_worker *main, struct kb_str cluster)
{
    struct kb_statsd_tcp *tcp = kb_calloc(1, sizeof(*tcp));

    KB_OBJ_SET(tcp, kb_statsd_tcp);
    tcp->worker = main;
    tcp->cluster = cluster;
    kb_timer_init(&tcp->duration, on_duration);
    return tcp;
}

void kb_statsd_tcp_destroy(struct kb_statsd_tcp *tcp)
{
    KB_ASSERT(tcp->conn == NULL);
    KB_OBJ_CLEAR(tcp);
    free(tcp);
}
