/* SPDX-License-Identifier: Apache-2.0 */
/* A listener as the workers run it: told by posts from the main thread to begin, to go on with
 * another version, to stop, and to end; and each worker's table of listeners by address, for
 * connections that want to go elsewhere. */
#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"
#include "proxy/listener/listener_internal.h"

#define KEY_BYTES (2 + 2 + 16) /* family, port, address */

/* ---- a worker's table of addresses ---- */

struct worker_listeners {
    struct kb_map by_addr; /* struct kb_listener_worker */
};

static void worker_listeners_dispose(struct kb_worker *worker)
{
    struct worker_listeners *listeners = worker->slots[KB_SLOT_LISTENERS];

    kb_map_dispose(&listeners->by_addr);
    free(listeners);
    worker->slots[KB_SLOT_LISTENERS] = NULL;
}

static struct worker_listeners *worker_listeners_get(struct kb_worker *worker)
{
    struct worker_listeners *listeners = worker->slots[KB_SLOT_LISTENERS];

    if (listeners == NULL) {
        listeners = kb_calloc(1, sizeof(*listeners));
        kb_map_init(&listeners->by_addr);
        worker->slots[KB_SLOT_LISTENERS] = listeners;
        worker->slot_dispose[KB_SLOT_LISTENERS] = worker_listeners_dispose;
    }
    return listeners;
}

/* An IP address as bytes; `any`: with its port alone. */
static struct kb_str addr_key(const struct kb_addr *addr, bool any, char out[KEY_BYTES])
{
    memset(out, 0, KEY_BYTES);
    memcpy(out, &addr->sa.sa_family, 2);
    if (addr->sa.sa_family == AF_INET) {
        memcpy(out + 2, &addr->in4.sin_port, 2);
        memcpy(out + 4, &addr->in4.sin_addr, any ? 0 : 4);
    } else {
        memcpy(out + 2, &addr->in6.sin6_port, 2);
        memcpy(out + 4, &addr->in6.sin6_addr, any ? 0 : 16);
    }
    return kb_str_make(out, KEY_BYTES);
}

static void table_add(struct kb_listener_worker *lw)
{
    struct worker_listeners *listeners = worker_listeners_get(lw->worker);

    for (size_t i = 0; i < lw->active->bound_count; i++) {
        if (lw->active->keys[i].len > 0) {
            struct kb_str key = lw->active->keys[i];

            kb_map_remove(&listeners->by_addr, key); /* its key's memory is another listener's */
            kb_map_put(&listeners->by_addr, key, lw);
        }
    }
}

static void table_remove(struct kb_listener_worker *lw)
{
    struct worker_listeners *listeners = worker_listeners_get(lw->worker);

    for (size_t i = 0; i < lw->active->bound_count; i++) {
        if (lw->active->keys[i].len > 0 &&
            kb_map_get(&listeners->by_addr, lw->active->keys[i]) == lw) {
            kb_map_remove(&listeners->by_addr, lw->active->keys[i]);
        }
    }
}

struct kb_listener_worker *kb_listener_worker_find(struct kb_worker *worker,
                                                   const struct kb_addr *addr)
{
    struct worker_listeners *listeners = worker->slots[KB_SLOT_LISTENERS];
    struct kb_listener_worker *lw = NULL;
    char key[KEY_BYTES];

    if (listeners != NULL && kb_addr_is_ip(addr)) {
        lw = kb_map_get(&listeners->by_addr, addr_key(addr, false, key));
        if (lw == NULL) {
            lw = kb_map_get(&listeners->by_addr, addr_key(addr, true, key));
        }
    }
    return lw;
}

/* ---- on the worker ---- */

static void version_set(struct kb_listener_worker *lw, struct kb_listener *listener)
{
    struct kb_listener *old = lw->listener;

    if (listener != NULL) {
        kb_shared_ref(&listener->shared, lw->worker);
        lw->stats = kb_stat_group_block(listener->stats, lw->worker->index);
        lw->worker_stats = kb_stat_group_block(listener->worker_stats[lw - lw->active->workers],
                                               lw->worker->index);
    }
    lw->listener = listener;
    if (old != NULL) {
        kb_shared_unref(&old->shared, lw->worker);
    }
}

static void accepting_stop(struct kb_listener_worker *lw)
{
    if (lw->accepting) {
        lw->accepting = false;
        table_remove(lw);
        kb_active_sockets_close(lw);
    }
}

static void released_posted(void *arg)
{
    struct kb_active_listener *active = KB_CAST(arg, kb_active_listener);

    if (active->released != NULL) {
        active->released(active->arg, active);
    }
}

void kb_active_listener_release(struct kb_active_listener *active)
{
    if (__atomic_sub_fetch(&active->workers_holding, 1, __ATOMIC_ACQ_REL) == 0) {
        kb_loop_post(&active->server->main->loop, released_posted, active);
    }
}

void kb_listener_worker_forget(struct kb_listener_worker *lw)
{
    struct kb_active_listener *active = lw->active;

    if (!lw->ending || lw->connection_count > 0 || lw->listener == NULL) {
        return;
    }
    version_set(lw, NULL);
    kb_active_listener_release(active);
}

void kb_listener_worker_close(struct kb_listener_worker *lw)
{
    if (lw->listener == NULL) {
        return;
    }
    accepting_stop(lw);
    if (lw->active->sockets != NULL) {
        kb_listen_sockets_close_worker(lw->active->sockets, (uint32_t)(lw - lw->active->workers));
    }
    kb_active_connections_close(lw, false);
    lw->ending = true;
    kb_listener_worker_forget(lw);
}

/* ---- posts ---- */

/* What the main thread tells one worker. */
struct order {
    struct kb_listener_worker *lw;
    struct kb_listener *listener;      /* held by the main thread until the order was carried out */
    struct kb_listen_sockets *sockets; /* likewise */
    void (*done)(void *arg);
    void *arg;
};

/* Back on the main thread: what was held for the worker is let go. */
static void order_done(void *arg)
{
    struct order *order = arg;

    kb_listener_unref(order->listener);
    if (order->done != NULL) {
        order->done(order->arg);
    }
    free(order);
}

static void order_end(struct order *order)
{
    kb_loop_post(&order->lw->active->server->main->loop, order_done, order);
}

static struct order *order_new(struct kb_listener_worker *lw, struct kb_listener *listener)
{
    struct order *order = kb_calloc(1, sizeof(*order));

    order->lw = lw;
    if (listener != NULL) {
        kb_shared_ref(&listener->shared, listener->server->main);
        order->listener = listener;
    }
    return order;
}

static void start_posted(void *arg)
{
    struct order *order = arg;
    struct kb_listener_worker *lw = KB_CAST(order->lw, kb_listener_worker);

    version_set(lw, order->listener);
    lw->accepting = true;
    table_add(lw);
    if (order->sockets != NULL) {
        kb_listen_sockets_serve(order->sockets, lw);
    }
    order_end(order);
}

static void replace_posted(void *arg)
{
    struct order *order = arg;
    struct kb_listener_worker *lw = KB_CAST(order->lw, kb_listener_worker);

    if (lw->listener != NULL) {
        version_set(lw, order->listener);
    }
    order_end(order);
}

static void stop_posted(void *arg)
{
    struct order *order = arg;

    accepting_stop(KB_CAST(order->lw, kb_listener_worker));
    order_end(order);
}

static void end_posted(void *arg)
{
    struct order *order = arg;
    struct kb_listener_worker *lw = KB_CAST(order->lw, kb_listener_worker);

    order_end(order); /* before `released` */
    accepting_stop(lw);
    kb_active_connections_close(lw, false);
    lw->ending = true;
    kb_listener_worker_forget(lw);
}

static void purge_posted(void *arg)
{
    struct order *order = arg;

    kb_active_connections_close(KB_CAST(order->lw, kb_listener_worker), true);
    order_end(order);
}

/* ---- on the main thread ---- */

static void addresses_copy(struct kb_active_listener *active)
{
    const struct kb_listener *listener = active->listener;

    active->bound_count = listener->addr_count;
    active->bound =
        kb_arena_calloc(&active->arena, (listener->addr_count + 1) * sizeof(struct kb_addr));
    active->keys =
        kb_arena_calloc(&active->arena, (listener->addr_count + 1) * sizeof(struct kb_str));
    for (size_t i = 0; i < listener->addr_count; i++) {
        active->bound[i] =
            active->sockets != NULL ? active->sockets->bound[i] : listener->addrs[i].addr;
        if (kb_addr_is_ip(&active->bound[i])) {
            char key[KEY_BYTES];

            active->keys[i] = kb_str_dup(&active->arena, addr_key(&active->bound[i], false, key));
        }
    }
}

struct kb_active_listener *kb_active_listener_create(struct kb_listener *listener,
                                                     struct kb_listen_sockets *sockets)
{
    struct kb_server_context *server = listener->server;
    uint32_t count = listener->admin ? 1 : server->worker_count;
    struct kb_active_listener *active =
        kb_calloc(1, sizeof(*active) + count * sizeof(active->workers[0]));

    KB_OBJ_SET(active, kb_active_listener);
    active->server = server;
    active->listener = listener;
    active->sockets = sockets;
    active->worker_count = count;
    kb_arena_init(&active->arena, NULL);
    active->name = kb_str_dup(&active->arena, listener->name);
    active->metadata = kb_str_dup(&active->arena, listener->metadata);
    addresses_copy(active);
    pthread_mutex_init(&active->balance, NULL);
    for (uint32_t i = 0; i < count; i++) {
        struct kb_listener_worker *lw = &active->workers[i];

        KB_OBJ_SET(lw, kb_listener_worker);
        lw->active = active;
        lw->worker = listener->admin ? server->main : &server->workers[i];
        kb_list_init(&lw->connections);
        kb_list_init(&lw->sockets);
    }
    return active;
}

void kb_active_listener_destroy(struct kb_active_listener *active)
{
    for (uint32_t i = 0; i < active->worker_count; i++) {
        KB_ASSERT(active->workers[i].connection_count == 0 && active->workers[i].listener == NULL);
    }
    kb_loop_timer_cancel(&active->server->main->loop, &active->drain_timer);
    kb_list_unlink(&active->link);
    kb_listener_unref(active->listener);
    kb_listen_sockets_unref(active->sockets, false);
    pthread_mutex_destroy(&active->balance);
    kb_arena_dispose(&active->arena);
    KB_OBJ_CLEAR(active);
    free(active);
}

static void order_all(struct kb_active_listener *active, struct kb_listener *listener,
                      void (*posted)(void *arg), void (*done)(void *arg), void *arg)
{
    for (uint32_t i = 0; i < active->worker_count; i++) {
        struct kb_listener_worker *lw = &active->workers[i];
        struct order *order = order_new(lw, listener);

        order->sockets = active->sockets;
        order->done = done;
        order->arg = arg;
        kb_loop_post(&lw->worker->loop, posted, order);
    }
}

void kb_active_listener_start(struct kb_active_listener *active)
{
    KB_ASSERT(!active->started);
    active->started = true;
    active->workers_holding = active->worker_count;
    if (active->sockets != NULL) {
        active->sockets->served = true;
    }
    order_all(active, active->listener, start_posted, NULL, NULL);
}

void kb_active_listener_replace(struct kb_active_listener *active, struct kb_listener *listener)
{
    struct kb_listener *old = active->listener;

    active->listener = listener;
    order_all(active, listener, replace_posted, NULL, NULL);
    kb_listener_unref(old);
}

void kb_active_listener_stop(struct kb_active_listener *active, bool keep_sockets)
{
    bool close = !active->stopped && !keep_sockets;

    if (!active->stopped) {
        active->stopped = true;
        order_all(active, NULL, stop_posted, NULL, NULL);
    }
    if (active->sockets != NULL && (close || keep_sockets)) {
        kb_listen_sockets_unref(active->sockets, true);
        active->sockets = NULL;
    }
}

void kb_active_listener_end(struct kb_active_listener *active,
                            void (*released)(void *arg, struct kb_active_listener *active),
                            void *arg)
{
    active->released = released;
    active->arg = arg;
    kb_active_listener_stop(active, false);
    order_all(active, NULL, end_posted, NULL, NULL);
}

void kb_active_listener_purge(struct kb_active_listener *active, void (*done)(void *arg), void *arg)
{
    order_all(active, NULL, purge_posted, done, arg);
}
