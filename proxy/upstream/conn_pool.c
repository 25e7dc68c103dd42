/* SPDX-License-Identifier: Apache-2.0 */
/* Connection pools: per worker, host, routing priority and what is spoken (Envoy ConnPoolImplBase).
 * A request takes the most recently used idle connection; without one it waits for a new one,
 * within the circuit breakers. */
#include "proxy/upstream/conn_pool_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "proxy/api/transport_socket.h"
#include "proxy/upstream/pool_options.h"

static void ready_check(struct kb_deferred *deferred);
static void pool_destroy(struct kb_deferred *deferred);

static const struct kb_pool_client_ops *client_ops(const struct kb_cluster *cluster,
                                                   enum kb_pool_kind kind)
{
    if (kind == KB_POOL_TCP) {
        return &kb_tcp_client_ops;
    }
    if (kind == KB_POOL_HTTP && cluster->http_protocol == KB_CLUSTER_HTTP_ALPN) {
        return &kb_alpn_client_ops;
    }
    return kind == KB_POOL_HTTP2 || cluster->http_protocol == KB_CLUSTER_HTTP2 ? &kb_h2_client_ops
                                                                               : &kb_h1_client_ops;
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
        .send_fully_qualified_url = cluster->http1.send_fully_qualified_url,
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

void kb_conn_pool_destroy_check(struct kb_conn_pool *pool)
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
    if ((pool->draining || kb_conn_pool_is_of_client(pool)) && pool->client_count == 0 &&
        pool->waiting_count == 0) {
        kb_loop_defer(kb_conn_pool_loop(pool), &pool->destroy);
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

/* Puts a request on a connection that carries many. */
static KB_NOINLINE void stream_attach(struct kb_pool_client *client, struct kb_arena *arena,
                                      const struct kb_pool_callbacks *callbacks,
                                      const struct kb_response_decoder_ops *decoder, void *owner)
{
    struct kb_conn_pool *pool = client->pool;

    client->streams++;
    request_count(client);
    if (client->close_after || client->streams >= client->stream_limit) {
        kb_conn_pool_client_busy(client);
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
    kb_conn_pool_client_busy(client);
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
    kb_conn_pool_connect_more(pool);
}

void kb_conn_pool_waiting_fail(struct kb_conn_pool *pool, enum kb_reset_reason reason,
                               struct kb_str text)
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
        if (kb_conn_pool_is_of_client(pool)) {
            kb_conn_pool_destroy_check(pool);
        }
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
    if (KB_UNLIKELY(kb_conn_pool_connect_some(pool))) {
        waiter_remove(w);
        kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_CANCELLED);
        if (kb_conn_pool_is_of_client(pool)) {
            kb_conn_pool_destroy_check(pool);
        }
        callbacks->on_failure(owner, KB_RESET_OVERFLOW, KB_STR_NULL, NULL);
    }
}

void kb_pool_cancel(struct kb_pool_waiter *waiter)
{
    struct kb_conn_pool *pool = waiter->pool;

    waiter_remove(waiter);
    kb_stat_inc(pool->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_CANCELLED);
    if (pool->kind == KB_POOL_TCP && pool->connecting_capacity > pool->waiting_count) {
        /* A TCP connection is made for one user, and would hear bytes that are for nobody. */
        struct kb_pool_client *client =
            KB_LIST_ENTRY(pool->connecting.prev, struct kb_pool_client, link);

        client->unwanted = true;
        kb_conn_close(client->conn, KB_CONN_NO_FLUSH);
    }
    kb_conn_pool_destroy_check(pool);
}
