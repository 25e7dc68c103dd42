/* SPDX-License-Identifier: Apache-2.0 */
/* Connection pools: per worker, host, routing priority and what is spoken (Envoy ConnPoolImplBase).
 * A request takes the most recently used idle connection; without one it waits for a new one,
 * within the circuit breakers. */
#include "proxy/upstream/conn_pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/api/transport_socket.h"
#include "proxy/upstream/pool_client.h"
#include "proxy/upstream/pool_options.h"

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

static void ready_check(struct kb_deferred *deferred);
static void pool_destroy(struct kb_deferred *deferred);
static void idle_timer_fired(struct kb_timer *timer);
static void duration_timer_fired(struct kb_timer *timer);
static void client_destroy(struct kb_deferred *deferred);
static void client_busy(struct kb_pool_client *client);

static const struct kb_pool_client_ops *client_ops(const struct kb_cluster *cluster,
                                                   enum kb_pool_kind kind)
{
    if (kind == KB_POOL_TCP) {
        return &kb_tcp_client_ops;
    }
    return kind == KB_POOL_HTTP2 || cluster->http_protocol == KB_CLUSTER_HTTP2 ? &kb_h2_client_ops
                                                                               : &kb_h1_client_ops;
}

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

struct kb_worker *kb_conn_pool_worker(struct kb_pool_client *client)
{
    return client->pool->local->worker;
}

/* ---- lifecycle ---- */

static struct kb_conn_pool *pool_create(struct kb_cluster_local *local,
                                        struct kb_host_local *host_local, enum kb_pool_kind kind,
                                        enum kb_priority priority,
                                        const struct kb_transport_socket_options *options)
{
    struct kb_conn_pool *pool = kb_calloc(1, sizeof(*pool));
    const struct kb_cluster *cluster = local->cluster;

    KB_OBJ_SET(pool, kb_conn_pool);
    pool->local = local;
    pool->host_local = host_local;
    pool->host = host_local->host;
    pool->stats = local->stats;
    pool->kind = kind;
    pool->client_ops = client_ops(cluster, kind);
    pool->priority = priority;
    pool->settings = (struct kb_h1_settings){
        .max_head_bytes = cluster->max_response_headers_bytes,
        .max_headers_count = cluster->max_response_headers_count,
        .enable_trailers = cluster->http1.enable_trailers,
        .allow_chunked_length = cluster->http1.allow_chunked_length,
        .proper_case_words = cluster->http1.proper_case_words,
        .preserve_case = cluster->http1.preserve_case,
        .proper_case_otherwise = cluster->http1.proper_case_otherwise,
        .forward_reason_phrase = cluster->http1.forward_reason_phrase,
    };
    kb_list_init(&pool->ready);
    kb_list_init(&pool->busy);
    kb_list_init(&pool->connecting);
    kb_list_init(&pool->waiting);
    kb_deferred_init(&pool->ready_check, ready_check);
    kb_deferred_init(&pool->destroy, pool_destroy);
    kb_cluster_local_ref(local);
    kb_host_local_ref(host_local);
    if (options != NULL) {
        kb_arena_init(&pool->options_arena, NULL);
        pool->options = kb_pool_options_copy(options, &pool->options_arena);
    }
    pool->sibling = host_local->pools[kind][priority];
    host_local->pools[kind][priority] = pool;
    return pool;
}

/* Takes it out of its host's chain. */
static void pool_unlink(struct kb_conn_pool *pool)
{
    void **first = &pool->host_local->pools[pool->kind][pool->priority];
    struct kb_conn_pool *at = *first;

    if (at == pool) {
        *first = pool->sibling;
        return;
    }
    while (at->sibling != pool) {
        at = at->sibling;
    }
    at->sibling = pool->sibling;
}

static void pool_destroy(struct kb_deferred *deferred)
{
    struct kb_conn_pool *pool = KB_CONTAINER_OF(deferred, struct kb_conn_pool, destroy);
    struct kb_host_local *host_local = pool->host_local;
    struct kb_cluster_local *local = pool->local;

    if (pool->client_count > 0 || pool->waiting_count > 0) {
        return;
    }
    pool_unlink(pool);
    kb_deferred_cancel(&pool->ready_check);
    if (pool->options != NULL) {
        kb_arena_dispose(&pool->options_arena);
    }
    KB_OBJ_CLEAR(pool);
    free(pool);
    kb_host_local_unref(host_local);
    kb_cluster_local_unref(local);
}

static struct kb_loop *pool_loop(struct kb_conn_pool *pool)
{
    return &pool->local->worker->loop;
}

/* Envoy's pools for HTTP go when nothing is left in them, and those of all priorities of a host
 * together. */
static void pool_count(struct kb_conn_pool *pool, bool in_use)
{
    if (pool->counted == in_use || pool->kind == KB_POOL_TCP) {
        return;
    }
    pool->counted = in_use;
    kb_resource_count_pool(pool->local, pool->priority, in_use ? 1 : -1);
    for (unsigned p = 0; p < KB_PRIORITY_COUNT && !in_use; p++) {
        kb_resource_count_pool(pool->local, (enum kb_priority)p, 0);
    }
}

static void pool_destroy_check(struct kb_conn_pool *pool)
{
    if (pool->client_count == 0 && pool->waiting_count == 0) {
        pool_count(pool, false);
    }
    if (pool->draining && pool->waiting_count == 0) {
        /* Nobody waits for these any more. */
        KB_LIST_FOREACH (link, &pool->connecting) {
            kb_conn_close(KB_LIST_ENTRY(link, struct kb_pool_client, link)->conn, KB_CONN_NO_FLUSH);
        }
    }
    if (pool->draining && pool->client_count == 0 && pool->waiting_count == 0) {
        kb_loop_defer(pool_loop(pool), &pool->destroy);
    }
}

/* ---- connections ---- */

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
    client->connect_start_ns = kb_loop_now_ns(pool_loop(pool));
    kb_timer_init(&client->idle_timer, idle_timer_fired);
    kb_timer_init(&client->duration_timer, duration_timer_fired);
    kb_deferred_init(&client->destroy, client_destroy);
    client->stream_limit = 1;
    client->ops = pool->client_ops;
    client->ops->init(client, &pool->settings);
    client->conn =
        kb_conn_create_connecting(local->worker, &addr, source, cluster->connect_timeout_ms,
                                  cluster->per_connection_buffer_limit_bytes);
    kb_conn_set_owner(client->conn, client->ops->conn_callbacks, client);
    transport_create(client);
    if (pool->kind != KB_POOL_TCP && client->conn->in.high > 0) {
        /* A head has its own limit and must be able to reach it. */
        client->conn->in.high =
            KB_MAX(client->conn->in.high, (size_t)pool->settings.max_head_bytes + 1);
    }
    client->conn->stat_block = pool->stats;
    client->conn->stat_rx_total = KB_STAT_CLUSTER_UPSTREAM_CX_RX_BYTES_TOTAL;
    client->conn->stat_rx_buffered = KB_STAT_CLUSTER_UPSTREAM_CX_RX_BYTES_BUFFERED;
    client->conn->stat_tx_total = KB_STAT_CLUSTER_UPSTREAM_CX_TX_BYTES_TOTAL;
    client->conn->stat_tx_buffered = KB_STAT_CLUSTER_UPSTREAM_CX_TX_BYTES_BUFFERED;
    kb_list_push_back(&pool->connecting, &client->link);
    pool->connecting_capacity += capacity(client);
    pool->client_count++;
    kb_resource_force(local, pool->priority, KB_RESOURCE_CONNECTIONS);
    kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_TOTAL);
    if (client->ops->count != NULL) {
        client->ops->count(client);
    }
    kb_stat_gauge_add(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_ACTIVE, 1);
    kb_stat_gauge_add(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_RX_BYTES_BUFFERED, 0);
    kb_host_stat_add(pool->host_local, KB_HOST_CX_TOTAL, 1);
    kb_host_stat_add(pool->host_local, KB_HOST_CX_ACTIVE, 1);
}

static void client_destroy(struct kb_deferred *deferred)
{
    struct kb_pool_client *client = KB_CONTAINER_OF(deferred, struct kb_pool_client, destroy);
    struct kb_conn_pool *pool = client->pool;

    client->ops->dispose(client);
    KB_OBJ_CLEAR(client);
    free(client);
    pool->client_count--;
    pool_destroy_check(pool);
}

/* Another connection if the waiting requests need one; Envoy always allows a host its first. */
static void connect_more(struct kb_conn_pool *pool)
{
    bool first = kb_list_empty(&pool->ready) && kb_list_empty(&pool->busy) &&
                 kb_list_empty(&pool->connecting);

    if (pool->waiting_count <= pool->connecting_capacity) {
        return;
    }
    if (!kb_resource_can(pool->local, pool->priority, KB_RESOURCE_CONNECTIONS)) {
        kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_OVERFLOW);
        if (!first) {
            return;
        }
    }
    client_create(pool);
}

void kb_conn_pool_client_drain(struct kb_pool_client *client)
{
    client->close_after = true;
    if (client->state != KB_POOL_CLIENT_READY) {
        return;
    }
    if (client->streams == 0) {
        kb_conn_close(client->conn, KB_CONN_NO_FLUSH);
    } else {
        client_busy(client);
    }
}

/* ---- requests ---- */

static void request_count(struct kb_pool_client *client)
{
    struct kb_conn_pool *pool = client->pool;

    client->requests++;
    kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_TOTAL);
    kb_stat_gauge_add(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_ACTIVE, 1);
    kb_host_stat_add(pool->host_local, KB_HOST_RQ_TOTAL, 1);
    kb_host_stat_add(pool->host_local, KB_HOST_RQ_ACTIVE, 1);
    if (pool->local->cluster->max_requests_per_connection > 0 &&
        client->requests >= pool->local->cluster->max_requests_per_connection) {
        kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_MAX_REQUESTS);
        client->close_after = true;
    }
}

/* Takes no more requests for now. */
static void client_busy(struct kb_pool_client *client)
{
    kb_list_unlink(&client->link);
    kb_list_push_front(&client->pool->busy, &client->link);
    client->state = KB_POOL_CLIENT_BUSY;
}

/* Puts a request on a connection that carries many. */
static KB_NOINLINE void stream_attach(struct kb_pool_client *client, struct kb_arena *arena,
                                      const struct kb_pool_callbacks *callbacks,
                                      const struct kb_response_decoder_ops *decoder, void *owner)
{
    struct kb_conn_pool *pool = client->pool;

    client->streams++;
    request_count(client);
    if (client->close_after || client->streams >= client->stream_limit) {
        client_busy(client);
    }
    callbacks->on_ready(owner, client->ops->stream_create(client, arena, decoder, owner),
                        pool->host);
}

/* Puts a request on this connection. */
static void attach(struct kb_pool_client *client, struct kb_arena *arena,
                   const struct kb_pool_callbacks *callbacks,
                   const struct kb_response_decoder_ops *decoder, void *owner)
{
    struct kb_conn_pool *pool = client->pool;

    if (!kb_resource_take(pool->local, pool->priority, KB_RESOURCE_REQUESTS)) {
        kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_ACTIVE_OVERFLOW);
        callbacks->on_failure(owner, KB_RESET_OVERFLOW, KB_STR_NULL, pool->host);
        return;
    }
    if (KB_UNLIKELY(client->ops->stream_create != NULL)) {
        stream_attach(client, arena, callbacks, decoder, owner);
        return;
    }
    client_busy(client);
    request_count(client);
    client->decoder = decoder;
    client->owner = owner;
    client->arena = arena;
    client->answer_ended = false;
    client->sent_before = client->conn->bytes_sent;
    client->received_before = client->conn->bytes_received;
    client->ops->attach(client);
    callbacks->on_ready(owner, &client->encoder, pool->host);
}

void kb_conn_pool_request_uncount(struct kb_pool_client *client)
{
    struct kb_conn_pool *pool = client->pool;

    kb_resource_give(pool->local, pool->priority, KB_RESOURCE_REQUESTS);
    kb_stat_gauge_add(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_ACTIVE, -1);
    kb_host_stat_add(pool->host_local, KB_HOST_RQ_ACTIVE, -1);
}

/* ---- waiting requests ---- */

static void waiter_remove(struct kb_pool_waiter *waiter)
{
    struct kb_conn_pool *pool = waiter->pool;

    kb_list_unlink(&waiter->link);
    pool->waiting_count--;
    kb_resource_give(pool->local, pool->priority, KB_RESOURCE_PENDING);
    kb_stat_gauge_add(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_ACTIVE, -1);
    kb_host_stat_add(pool->host_local, KB_HOST_RQ_PENDING_ACTIVE, -1);
    *waiter->handle = NULL;
}

/* Gives ready connections to waiting requests, oldest first. */
static void ready_check(struct kb_deferred *deferred)
{
    struct kb_conn_pool *pool = KB_CONTAINER_OF(deferred, struct kb_conn_pool, ready_check);

    KB_ASSERT(pool->kb_magic == (uint32_t)KB_MAGIC_kb_conn_pool);
    while (pool->waiting_count > 0 && !kb_list_empty(&pool->ready)) {
        struct kb_pool_waiter *waiter =
            KB_LIST_ENTRY(pool->waiting.next, struct kb_pool_waiter, link);
        struct kb_pool_client *client =
            KB_LIST_ENTRY(pool->ready.next, struct kb_pool_client, link);
        struct kb_pool_waiter taken = *waiter;

        waiter_remove(waiter);
        attach(client, taken.arena, taken.callbacks, taken.decoder, taken.owner);
    }
    connect_more(pool);
}

static void waiting_fail(struct kb_conn_pool *pool, enum kb_reset_reason reason, struct kb_str text)
{
    struct kb_list failed;

    /* A failing request may ask this pool again: only those that wait now are meant. */
    kb_list_init(&failed);
    while (!kb_list_empty(&pool->waiting)) {
        struct kb_list *link = kb_list_pop_front(&pool->waiting);

        kb_list_push_back(&failed, link);
    }
    while (!kb_list_empty(&failed)) {
        struct kb_pool_waiter *waiter = KB_LIST_ENTRY(failed.next, struct kb_pool_waiter, link);
        struct kb_pool_waiter taken = *waiter;

        waiter_remove(waiter);
        kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_FAILURE_EJECT);
        taken.callbacks->on_failure(taken.owner, reason, text, pool->host);
    }
}

void kb_pool_new_stream(struct kb_cluster_local *local, struct kb_host *host,
                        enum kb_pool_kind kind, enum kb_priority priority,
                        const struct kb_transport_socket_options *options, struct kb_arena *arena,
                        const struct kb_pool_callbacks *callbacks,
                        const struct kb_response_decoder_ops *decoder, void *owner,
                        struct kb_pool_waiter **waiter)
{
    struct kb_host_local *host_local = kb_host_local_get(host, local->worker->index);
    struct kb_conn_pool *pool = host_local->pools[kind][priority];
    struct kb_pool_waiter *w;

    *waiter = NULL;
    while (pool != NULL && pool->options != options &&
           !kb_pool_options_equal(pool->options, options)) {
        pool = pool->sibling;
    }
    if (KB_UNLIKELY(pool == NULL)) {
        pool = pool_create(local, host_local, kind, priority, options);
    }
    KB_DASSERT(pool->kb_magic == (uint32_t)KB_MAGIC_kb_conn_pool);
    if (KB_LIKELY(!kb_list_empty(&pool->ready))) {
        attach(KB_LIST_ENTRY(pool->ready.next, struct kb_pool_client, link), arena, callbacks,
               decoder, owner);
        return;
    }
    pool_count(pool, true);
    if (!kb_resource_take(local, priority, KB_RESOURCE_PENDING)) {
        kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_OVERFLOW);
        callbacks->on_failure(owner, KB_RESET_OVERFLOW, KB_STR_NULL, NULL);
        return;
    }
    w = KB_ARENA_NEW(arena, struct kb_pool_waiter);
    *w = (struct kb_pool_waiter){.pool = pool,
                                 .arena = arena,
                                 .callbacks = callbacks,
                                 .decoder = decoder,
                                 .owner = owner,
                                 .handle = waiter};
    kb_list_push_back(&pool->waiting, &w->link);
    pool->waiting_count++;
    kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_TOTAL);
    kb_stat_gauge_add(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PENDING_ACTIVE, 1);
    kb_host_stat_add(pool->host_local, KB_HOST_RQ_PENDING_ACTIVE, 1);
    *waiter = w;
    connect_more(pool);
}

void kb_pool_cancel(struct kb_pool_waiter *waiter)
{
    struct kb_conn_pool *pool = waiter->pool;

    waiter_remove(waiter);
    kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_CANCELLED);
    if (pool->kind == KB_POOL_TCP && pool->connecting_capacity > pool->waiting_count) {
        /* A TCP connection is made for one user, and would hear bytes that are for nobody. */
        kb_conn_close(KB_LIST_ENTRY(pool->connecting.prev, struct kb_pool_client, link)->conn,
                      KB_CONN_NO_FLUSH);
    }
    pool_destroy_check(pool);
}

/* ---- events of connections ---- */

/* Idle now: to the next waiting request, or to the ready list. */
static void client_ready(struct kb_pool_client *client)
{
    struct kb_conn_pool *pool = client->pool;
    uint64_t idle_ms = pool->local->cluster->idle_timeout_ms;

    kb_list_unlink(&client->link);
    kb_list_push_front(&pool->ready, &client->link);
    client->state = KB_POOL_CLIENT_READY;
    if (pool->draining && pool->waiting_count == 0) {
        kb_conn_pool_client_drain(client);
        return;
    }
    if (idle_ms > 0) {
        kb_loop_timer_arm(pool_loop(pool), &client->idle_timer, idle_ms);
    }
    if (KB_UNLIKELY(pool->waiting_count > 0)) {
        kb_loop_defer(pool_loop(pool), &pool->ready_check);
    }
}

void kb_conn_pool_connected(struct kb_pool_client *client)
{
    struct kb_conn_pool *pool = client->pool;
    const struct kb_cluster *cluster = pool->local->cluster;

    client->connect_end_ns = kb_loop_now_ns(pool_loop(pool));
    kb_stat_record(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_MS,
                   (client->connect_end_ns - client->connect_start_ns) / 1000000);
    pool->connecting_capacity -= capacity(client);
    if (cluster->keepalive.set &&
        kb_sock_set_keepalive(client->conn->io.fd, cluster->keepalive.probes,
                              cluster->keepalive.time_s, cluster->keepalive.interval_s) != 0) {
        KB_LOG(POOL, DEBUG, "[C%llu] TCP keep-alive could not be set",
               (unsigned long long)client->conn->info.id);
    }
    if (cluster->max_connection_duration_ms > 0) {
        kb_loop_timer_arm(pool_loop(pool), &client->duration_timer,
                          cluster->max_connection_duration_ms);
    }
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
        client_busy(client);
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
    kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_FAIL);
    kb_host_stat_add(pool->host_local, KB_HOST_CX_CONNECT_FAIL, 1);
    if (client->conn->connect_timed_out) {
        kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_CX_CONNECT_TIMEOUT);
        reason = KB_RESET_CONNECTION_TIMEOUT;
    } else if (event == KB_CONN_LOCAL_CLOSE || client->conn->io.fd < 0) {
        reason = client->conn->connect_errno != 0 ? KB_RESET_REMOTE_CONNECTION_FAILURE
                                                  : KB_RESET_LOCAL_CONNECTION_FAILURE;
    }
    waiting_fail(pool, reason, failure_text(client, text, sizeof(text)));
}

static void close_count(struct kb_pool_client *client, enum kb_conn_event event)
{
    struct kb_conn_pool *pool = client->pool;
    struct kb_stat_block *stats = pool->stats;
    bool by_peer = event == KB_CONN_REMOTE_CLOSE && !client->conn->connect_timed_out;

    kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY);
    kb_stat_inc(stats, by_peer ? KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_REMOTE
                               : KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_LOCAL);
    if (client->ops->stream_create != NULL
            ? client->cut
            : client->state == KB_POOL_CLIENT_BUSY && !client->answer_ended) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
        kb_stat_inc(stats, by_peer ? KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_REMOTE_WITH_ACTIVE_RQ
                                   : KB_STAT_CLUSTER_UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ);
    }
    kb_stat_gauge_add(stats, KB_STAT_CLUSTER_UPSTREAM_CX_ACTIVE, -1);
    kb_stat_record(stats, KB_STAT_CLUSTER_UPSTREAM_CX_LENGTH_MS,
                   (kb_loop_now_ns(pool_loop(pool)) - client->connect_start_ns) / 1000000);
    kb_stat_record(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_PER_CX, client->requests);
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
    kb_loop_timer_cancel(pool_loop(pool), &client->idle_timer);
    kb_loop_timer_cancel(pool_loop(pool), &client->duration_timer);
    kb_loop_defer(pool_loop(pool), &client->destroy);
    if (before == KB_POOL_CLIENT_CONNECTING) {
        connect_failed(client, event);
    }
    if (pool->waiting_count > 0) {
        kb_loop_defer(pool_loop(pool), &pool->ready_check);
    }
}

static void idle_timer_fired(struct kb_timer *timer)
{
    struct kb_pool_client *client = KB_CONTAINER_OF(timer, struct kb_pool_client, idle_timer);

    KB_ASSERT(client->kb_magic == (uint32_t)KB_MAGIC_kb_pool_client);
    if (client->state == KB_POOL_CLIENT_READY && client->streams == 0) {
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
    pool_destroy_check(pool);
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

void kb_conn_pools_host_failed(struct kb_worker *worker, struct kb_host_local *local)
{
    (void)worker;
    for (unsigned i = 0; i < KB_POOL_KIND_COUNT * KB_PRIORITY_COUNT; i++) {
        struct kb_conn_pool *pool = local->pools[i / KB_PRIORITY_COUNT][i % KB_PRIORITY_COUNT];

        for (; pool != NULL; pool = pool->sibling) {
            clients_drain(&pool->busy);
            clients_drain(&pool->ready);
        }
    }
}
