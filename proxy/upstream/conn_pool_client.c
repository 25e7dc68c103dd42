/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of a pool: making them, what becomes of them, and their end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/api/overload.h"
#include "proxy/api/transport_socket.h"
#include "proxy/upstream/conn_pool_internal.h"
#include "proxy/upstream/host.h"

#define CONNECTIONS_AT_ONCE 3 /* as in Envoy */

static void idle_timer_fired(struct kb_timer *timer);
static void duration_timer_fired(struct kb_timer *timer);
static void client_destroy(struct kb_deferred *deferred);

const struct kb_cluster *kb_conn_pool_cluster(const struct kb_pool_client *client)
{
    return client->pool->local->cluster;
}

struct kb_stat_block *kb_conn_pool_stats(struct kb_pool_client *client)
{
    return client->pool->stats;
}

struct kb_slice_source *kb_conn_pool_slices(struct kb_pool_client *client)
{
    return &client->pool->local->worker->slices;
}

const struct kb_h1_settings *kb_conn_pool_h1_settings(const struct kb_pool_client *client)
{
    return &client->pool->settings;
}

struct kb_worker *kb_conn_pool_worker(struct kb_pool_client *client)
{
    return client->pool->local->worker;
}

/* ---- making ---- */

/* Envoy offers what the pool speaks where neither the configuration nor a filter says what to
 * offer.
 */
static void transport_create(struct kb_pool_client *client)
{
    const struct kb_transport_socket_factory *factory =
        kb_host_transport_socket(client->pool->host);
    struct kb_transport_socket_options options = {.server_name = {.p = NULL}};
    size_t count = 0;

    if (client->ops->alpn == NULL || factory->ops == NULL || factory->ops->alpn == NULL) {
        kb_transport_socket_factory_create(factory, client->conn, client->pool->options);
        return;
    }
    if (client->pool->options != NULL) {
        options = *client->pool->options;
    }
    (void)factory->ops->alpn(factory->config, &count);
    if (options.alpn == NULL && count == 0) {
        options.alpn = client->ops->alpn;
        options.alpn_count = client->ops->alpn_count;
    }
    kb_transport_socket_factory_create(factory, client->conn, &options);
}

/* How many requests it will take when it is connected. */
static uint32_t capacity(const struct kb_pool_client *client)
{
    uint32_t max = kb_conn_pool_cluster(client)->max_requests_per_connection;

    return max > 0 ? KB_MIN(client->stream_limit, max) : client->stream_limit;
}

static void client_create(struct kb_conn_pool *pool)
{
    struct kb_cluster_local *local = pool->local;
    const struct kb_cluster *cluster = local->cluster;
    struct kb_pool_client *client = kb_calloc(1, pool->client_ops->size);
    struct kb_addr addr = kb_host_addr(pool->host);
    const struct kb_addr *source = kb_cluster_bind_source(cluster, &addr);

    KB_OBJ_SET(client, kb_pool_client);
    client->pool = pool;
    client->state = KB_POOL_CLIENT_CONNECTING;
    client->connect_start_ns = kb_loop_now_ns(kb_conn_pool_loop(pool));
    kb_timer_init(&client->idle_timer, idle_timer_fired);
    kb_timer_init(&client->duration_timer, duration_timer_fired);
    kb_deferred_init(&client->destroy, client_destroy);
    client->stream_limit = 1;
    client->ops = pool->client_ops;
    client->ops->init(client, &pool->settings);
    client->conn =
        KB_UNLIKELY(pool->options != NULL && pool->options->source != NULL)
            ? kb_conn_create_connecting_foreign(local->worker, &addr, pool->options->source,
                                                cluster->connect_timeout_ms,
                                                cluster->per_connection_buffer_limit_bytes)
            : kb_conn_create_connecting(local->worker, &addr, source, cluster->connect_timeout_ms,
                                        cluster->per_connection_buffer_limit_bytes);
    kb_conn_set_owner(client->conn, client->ops->conn_callbacks, client);
    transport_create(client);
    if (pool->kind != KB_POOL_TCP && client->conn->in.high > 0) {
        /* A head has its own limit and must be able to reach it. */
        client->conn->in.high =
            KB_MAX(client->conn->in.high, (size_t)pool->settings.max_head_bytes + 1);
    }
    kb_cluster_connecting(local, pool->priority, pool->host_local, client->conn, pool->stats);
    kb_list_push_back(&pool->connecting, &client->link);
    pool->connecting_capacity += capacity(client);
    pool->client_count++;
    if (client->ops->count != NULL) {
        client->ops->count(client);
    }
    kb_stat_gauge_add(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_RX_BYTES_BUFFERED, 0);
}

static void client_destroy(struct kb_deferred *deferred)
{
    struct kb_pool_client *client = KB_CONTAINER_OF(deferred, struct kb_pool_client, destroy);
    struct kb_conn_pool *pool = client->pool;

    client->ops->dispose(client);
    KB_OBJ_CLEAR(client);
    free(client);
    pool->client_count--;
    kb_conn_pool_destroy_check(pool);
}

static bool has_clients(const struct kb_conn_pool *pool)
{
    return !kb_list_empty(&pool->ready) || !kb_list_empty(&pool->busy) ||
           !kb_list_empty(&pool->connecting);
}

/* Whether the host may have one more connection, and the cluster. */
static bool connection_allowed(const struct kb_conn_pool *pool)
{
    uint32_t max = pool->local->cluster->limits[pool->priority].host_connections;

    return (KB_LIKELY(max == UINT32_MAX) ||
            kb_host_stat_sum(pool->host, KB_HOST_CX_ACTIVE) < max) &&
           kb_resource_can(pool->local, pool->priority, KB_RESOURCE_CONNECTIONS);
}

/* True when one was made, and there may be need of more. */
static bool connect_one(struct kb_conn_pool *pool, bool *shed)
{
    bool first = !has_clients(pool);

    if (pool->waiting_count <= pool->connecting_capacity) {
        return false;
    }
    if (!connection_allowed(pool)) {
        kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_OVERFLOW);
        if (first) {
            client_create(pool);
        }
        return false;
    }
    if (KB_UNLIKELY(kb_overload_any(pool->local->overload)) &&
        kb_overload_shed(pool->local->overload, KB_OVERLOAD_SHED_POOL_CONNECTION,
                         pool->local->worker)) {
        *shed = true;
        return false;
    }
    client_create(pool);
    return true;
}

bool kb_conn_pool_connect_some(struct kb_conn_pool *pool)
{
    bool shed = false;

    for (unsigned i = 0; i < CONNECTIONS_AT_ONCE && connect_one(pool, &shed); i++) {
    }
    return shed;
}

void kb_conn_pool_connect_more(struct kb_conn_pool *pool)
{
    if (KB_UNLIKELY(kb_conn_pool_connect_some(pool)) && !has_clients(pool)) {
        /* Nobody would ever serve them. */
        kb_conn_pool_waiting_fail(pool, KB_RESET_OVERFLOW, KB_STR_NULL);
    }
}

/* It carries nothing: idle, or the peer allows no stream at all. */
static bool unused(const struct kb_pool_client *client)
{
    return client->streams == 0 &&
           (client->state == KB_POOL_CLIENT_READY ||
            (client->state == KB_POOL_CLIENT_BUSY && client->stream_limit == 0));
}

void kb_conn_pool_client_drain(struct kb_pool_client *client)
{
    client->close_after = true;
    if (client->state != KB_POOL_CLIENT_READY && !unused(client)) {
        return;
    }
    if (client->streams == 0) {
        kb_conn_close(client->conn, KB_CONN_NO_FLUSH);
    } else {
        kb_conn_pool_client_busy(client);
    }
}

/* ---- events of connections ---- */

static void idle_timer_arm(struct kb_pool_client *client)
{
    uint64_t idle_ms = client->pool->local->cluster->idle_timeout_ms;

    if (idle_ms > 0) {
        kb_loop_timer_arm(kb_conn_pool_loop(client->pool), &client->idle_timer, idle_ms);
    }
}

/* Idle now: to the next waiting request, or to the ready list. */
static void client_ready(struct kb_pool_client *client)
{
    struct kb_conn_pool *pool = client->pool;

    kb_list_unlink(&client->link);
    kb_list_push_front(&pool->ready, &client->link);
    client->state = KB_POOL_CLIENT_READY;
    if (pool->draining && pool->waiting_count == 0) {
        kb_conn_pool_client_drain(client);
        return;
    }
    idle_timer_arm(client);
    if (KB_UNLIKELY(pool->waiting_count > 0)) {
        kb_loop_defer(kb_conn_pool_loop(pool), &pool->ready_check);
    }
}

void kb_conn_pool_connected(struct kb_pool_client *client)
{
    struct kb_conn_pool *pool = client->pool;

    client->connect_end_ns = kb_loop_now_ns(kb_conn_pool_loop(pool));
    kb_cluster_connected(pool->local->cluster, pool->host, client->conn, pool->stats,
                         client->connect_end_ns - client->connect_start_ns,
                         &client->duration_timer);
    pool->connecting_capacity -= capacity(client);
    client_ready(client);
}

void kb_conn_pool_request_done(struct kb_pool_client *client)
{
    while (client->read_disables > 0) {
        client->read_disables--;
        kb_conn_read_disable(client->conn, false);
    }
    if (client->state != KB_POOL_CLIENT_BUSY) {
        return;
    }
    /* One that still has much of the last request to send would not tell the next one to stop. */
    if (KB_UNLIKELY(client->conn->in.len > 0)) {
        /* More than the answer that was asked for. */
        kb_stat_inc(client->pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_PROTOCOL_ERROR);
        client->close_after = true;
    }
    if (client->close_after || client->conn->above_high) {
        kb_conn_close(client->conn, KB_CONN_NO_FLUSH);
        return;
    }
    client_ready(client);
}

/* ---- connections that carry many requests ---- */

void kb_conn_pool_stream_gone(struct kb_pool_client *client)
{
    KB_ASSERT(client->streams > 0);
    client->streams--;
    if (client->state == KB_POOL_CLIENT_BUSY && client->close_after && client->streams == 0) {
        kb_conn_close(client->conn, KB_CONN_NO_FLUSH);
    } else if (client->state == KB_POOL_CLIENT_BUSY && !client->close_after &&
               client->streams < client->stream_limit) {
        client_ready(client);
    } else if (client->state == KB_POOL_CLIENT_READY && client->streams == 0) {
        client_ready(client);
    } else if (unused(client)) {
        idle_timer_arm(client);
    }
}

void kb_conn_pool_stream_limit(struct kb_pool_client *client, uint32_t limit)
{
    if (client->state == KB_POOL_CLIENT_CONNECTING) {
        client->pool->connecting_capacity -= capacity(client);
        client->stream_limit = limit;
        client->pool->connecting_capacity += capacity(client);
        return;
    }
    client->stream_limit = limit;
    if (client->state == KB_POOL_CLIENT_READY && client->streams >= limit) {
        kb_conn_pool_client_busy(client);
        if (KB_UNLIKELY(unused(client))) {
            idle_timer_arm(client);
        }
    } else if (client->state == KB_POOL_CLIENT_BUSY && !client->close_after &&
               client->streams < limit) {
        client_ready(client);
    }
}

/* ---- the end of connections ---- */

static struct kb_str failure_text(struct kb_pool_client *client, char *out, size_t cap)
{
    size_t n;

    if (client->conn->connect_errno == 0) {
        return client->conn->info.transport_failure_reason;
    }
    n = (size_t)snprintf(out, cap, "delayed connect error: %s",
                         strerror(client->conn->connect_errno));
    return kb_str_make(out, KB_MIN(n, cap - 1));
}

static void connect_failed(struct kb_pool_client *client, enum kb_conn_event event)
{
    struct kb_conn_pool *pool = client->pool;
    enum kb_reset_reason reason = KB_RESET_REMOTE_CONNECTION_FAILURE;
    char text[160];

    pool->connecting_capacity -= capacity(client);
    if (!client->unwanted) {
        kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_FAIL);
        kb_host_stat_add(pool->host_local, KB_HOST_CX_CONNECT_FAIL, 1);
    }
    if (client->conn->connect_timed_out) {
        kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_TIMEOUT);
        reason = KB_RESET_CONNECTION_TIMEOUT;
    } else if (event == KB_CONN_LOCAL_CLOSE || client->conn->io.fd < 0) {
        reason = client->conn->connect_errno != 0 ? KB_RESET_REMOTE_CONNECTION_FAILURE
                                                  : KB_RESET_LOCAL_CONNECTION_FAILURE;
    }
    kb_conn_pool_waiting_fail(pool, reason, failure_text(client, text, sizeof(text)));
}

static void close_count(struct kb_pool_client *client, enum kb_conn_event event)
{
    struct kb_conn_pool *pool = client->pool;
    bool by_peer = event == KB_CONN_REMOTE_CLOSE && !client->conn->connect_timed_out;
    bool active = client->ops->stream_create != NULL
                      ? client->cut
                      : client->state == KB_POOL_CLIENT_BUSY && !client->answer_ended;

    kb_cluster_disconnected(pool->stats, by_peer, active,
                            kb_loop_now_ns(kb_conn_pool_loop(pool)) - client->connect_start_ns,
                            client->requests);
    kb_host_stat_add(pool->host_local, KB_HOST_CX_ACTIVE, -1);
    kb_resource_give(pool->local, pool->priority, KB_RESOURCE_CONNECTIONS);
}

void kb_conn_pool_closed(struct kb_pool_client *client, enum kb_conn_event event)
{
    struct kb_conn_pool *pool = client->pool;
    enum kb_pool_client_state before = client->state;

    if (before == KB_POOL_CLIENT_CLOSED) {
        return;
    }
    close_count(client, event);
    client->state = KB_POOL_CLIENT_CLOSED;
    kb_list_unlink(&client->link);
    kb_loop_timer_cancel(kb_conn_pool_loop(pool), &client->idle_timer);
    kb_loop_timer_cancel(kb_conn_pool_loop(pool), &client->duration_timer);
    kb_loop_defer(kb_conn_pool_loop(pool), &client->destroy);
    if (before == KB_POOL_CLIENT_CONNECTING) {
        connect_failed(client, event);
    }
    if (pool->waiting_count > 0) {
        kb_loop_defer(kb_conn_pool_loop(pool), &pool->ready_check);
    }
}

static void idle_timer_fired(struct kb_timer *timer)
{
    struct kb_pool_client *client = KB_CONTAINER_OF(timer, struct kb_pool_client, idle_timer);

    KB_ASSERT(client->kb_magic == (uint32_t)KB_MAGIC_kb_pool_client);
    if (unused(client)) {
        kb_stat_inc(client->pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_IDLE_TIMEOUT);
        kb_conn_close(client->conn, KB_CONN_NO_FLUSH);
    }
}

static void duration_timer_fired(struct kb_timer *timer)
{
    struct kb_pool_client *client = KB_CONTAINER_OF(timer, struct kb_pool_client, duration_timer);

    KB_ASSERT(client->kb_magic == (uint32_t)KB_MAGIC_kb_pool_client);
    kb_stat_inc(client->pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_MAX_DURATION_REACHED);
    kb_conn_pool_client_drain(client);
}

static void pool_drain(struct kb_conn_pool *pool)
{
    pool->draining = true;
    KB_LIST_FOREACH (link, &pool->ready) {
        kb_conn_pool_client_drain(KB_LIST_ENTRY(link, struct kb_pool_client, link));
    }
    KB_LIST_FOREACH (link, &pool->busy) {
        struct kb_pool_client *client = KB_LIST_ENTRY(link, struct kb_pool_client, link);

        if (KB_UNLIKELY(unused(client))) {
            kb_conn_pool_client_drain(client);
        }
    }
    kb_conn_pool_destroy_check(pool);
}

void kb_conn_pools_host_removed(struct kb_worker *worker, struct kb_host_local *local)
{
    (void)worker;
    for (unsigned kind = 0; kind < KB_POOL_KIND_COUNT; kind++) {
        for (unsigned priority = 0; priority < KB_PRIORITY_COUNT; priority++) {
            struct kb_conn_pool *pool = local->pools[kind][priority], *next;

            for (; pool != NULL; pool = next) {
                next = pool->sibling; /* it goes later */
                pool_drain(KB_CAST(pool, kb_conn_pool));
            }
        }
    }
}

static void clients_drain(struct kb_list *clients)
{
    KB_LIST_FOREACH (link, clients) {
        kb_conn_pool_client_drain(KB_LIST_ENTRY(link, struct kb_pool_client, link));
    }
}

/* Who had one of them may ask for another at once: only those that are there now are meant. */
static void clients_close(const struct kb_conn_pool *pool, struct kb_list *clients)
{
    for (uint32_t i = pool->client_count; i > 0 && !kb_list_empty(clients); i--) {
        kb_conn_close(KB_LIST_ENTRY(clients->next, struct kb_pool_client, link)->conn,
                      KB_CONN_NO_FLUSH);
    }
}

static void pool_host_failed(struct kb_conn_pool *pool)
{
    if (pool->kind == KB_POOL_TCP &&
        pool->host->cluster->close_connections_on_host_health_failure) {
        clients_close(pool, &pool->connecting);
        clients_close(pool, &pool->busy);
        clients_close(pool, &pool->ready);
        return;
    }
    if (pool->waiting_count == 0) {
        clients_close(pool, &pool->connecting);
    }
    clients_drain(&pool->busy);
    clients_drain(&pool->ready);
}

void kb_conn_pools_host_failed(struct kb_worker *worker, struct kb_host_local *local)
{
    (void)worker;
    for (unsigned i = 0; i < KB_POOL_KIND_COUNT * KB_PRIORITY_COUNT; i++) {
        struct kb_conn_pool *pool = local->pools[i / KB_PRIORITY_COUNT][i % KB_PRIORITY_COUNT];

        for (; pool != NULL; pool = pool->sibling) {
            pool_host_failed(pool);
        }
    }
}
