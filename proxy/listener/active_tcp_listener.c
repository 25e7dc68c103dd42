/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to a connection between accept and its listener filters: limits, the worker that
 * gets it, and the connection object (Envoy ActiveTcpListener). */
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "proxy/api/runtime.h"
#include "proxy/listener/listener_internal.h"

/* ---- limits ---- */

/* Downstream connections of a worker, whatever the listener; each written by its worker alone. */
static struct {
    uint32_t count;
    uint8_t pad[60]; /* a cache line */
} totals[KB_WORKERS_MAX + 1];

static void count_set(uint32_t *count, uint32_t value)
{
    __atomic_store_n(count, value, __ATOMIC_RELAXED);
}

void kb_listener_worker_count(struct kb_listener_worker *lw)
{
    count_set(&lw->connection_count, lw->connection_count + 1);
    count_set(&totals[lw->worker->index].count, totals[lw->worker->index].count + 1);
}

void kb_listener_worker_uncount(struct kb_listener_worker *lw)
{
    count_set(&lw->connection_count, lw->connection_count - 1);
    count_set(&totals[lw->worker->index].count, totals[lw->worker->index].count - 1);
}

/* The admin port's count for the limit of the runtime, as in Envoy, though they are never refused.
 */
static uint64_t connections_total(const struct kb_server_context *server, bool with_admin)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < server->worker_count + with_admin; i++) {
        count += __atomic_load_n(&totals[i].count, __ATOMIC_RELAXED);
    }
    return count;
}

uint64_t kb_listener_connections_total(const struct kb_server_context *server)
{
    return connections_total(server, false);
}

/* Of all workers; the others' counts may be an instant old. */
static uint64_t connections_of(const struct kb_active_listener *active)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < active->worker_count; i++) {
        count += __atomic_load_n(&active->workers[i].connection_count, __ATOMIC_RELAXED);
    }
    return count;
}

/* The overload manager wants none, or not this one. */
static bool overload_rejects(struct kb_listener_worker *lw)
{
    const struct kb_overload_state *overload = &lw->listener->server->overload;

    if (lw->listener->bypass_overload ||
        (!kb_overload_shed(overload, KB_OVERLOAD_SHED_TCP_LISTENER_ACCEPT, lw->worker) &&
         !kb_overload_draw(overload, KB_OVERLOAD_REJECT_INCOMING_CONNECTIONS, lw->worker))) {
        return false;
    }
    kb_stat_inc(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_CX_OVERLOAD_REJECT);
    return true;
}

static bool over_limit(struct kb_listener_worker *lw)
{
    const struct kb_listener *listener = lw->listener;
    const struct kb_runtime *runtime = listener->server->runtime;
    uint64_t max_connections = listener->server->overload.max_connections;

    if (KB_UNLIKELY(max_connections > 0) && !listener->ignore_global_limit && !listener->admin &&
        connections_total(listener->server, false) >= max_connections) {
        kb_stat_inc(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_GLOBAL_CX_OVERFLOW);
        return true;
    }
    if (kb_overload_any(&listener->server->overload) && overload_rejects(lw)) {
        return true;
    }
    if (KB_LIKELY(!kb_runtime_may_have(runtime, listener->connection_limit_key) &&
                  !kb_runtime_may_have(runtime, KB_STR("overload.")))) {
        return false;
    }
    if (connections_of(lw->active) >=
        kb_runtime_get_u64(runtime, listener->connection_limit_key, UINT64_MAX)) {
        kb_stat_inc(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_CX_OVERFLOW);
        return true;
    }
    if (!listener->ignore_global_limit && !listener->admin &&
        connections_total(listener->server, true) >=
            kb_runtime_get_u64(runtime, KB_STR("overload.global_downstream_max_connections"),
                               UINT64_MAX)) {
        kb_stat_inc(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_GLOBAL_CX_OVERFLOW);
        return true;
    }
    return false;
}

/* ---- on the worker that has it ---- */

/* One more, or one that came to nothing; where workers are picked, it counted since it was. */
static void arrived(struct kb_listener_worker *lw, bool made)
{
    bool picked = lw->listener->exact_balance;

    if (KB_UNLIKELY(picked)) {
        pthread_mutex_lock(&lw->active->balance);
        __atomic_sub_fetch(&lw->balanced_count, 1, __ATOMIC_RELAXED);
    }
    if (made) {
        kb_listener_worker_count(lw);
    }
    if (KB_UNLIKELY(picked)) {
        pthread_mutex_unlock(&lw->active->balance);
    }
}

static void take(struct kb_listener_worker *lw, int fd, const struct kb_addr *remote,
                 const struct kb_addr *bound)
{
    struct kb_addr local = *bound;
    struct kb_conn *conn;

    if (kb_addr_is_any(&local)) {
        kb_sock_local_addr(fd, &local);
    }
    if (!kb_addr_is_ip(&local)) {
        remote =
            &local; /* clients of a path have no name of their own; Envoy shows the listener's */
    }
    kb_stat_gauge_add(lw->stats, KB_STAT_LISTENER_DOWNSTREAM_PRE_CX_ACTIVE, 0);
    conn = kb_conn_create_accepted(lw->worker, fd, remote, &local, lw->listener->buffer_limit);
    arrived(lw, conn != NULL);
    if (conn == NULL) {
        return;
    }
    if (lw->listener->filter_count > 0) {
        kb_active_socket_begin(lw, conn, true);
    } else {
        kb_active_connection_begin(lw, conn);
    }
}

/* ---- exact balance ---- */

/* On its way to another worker. */
struct balanced {
    struct kb_listener_worker *lw;
    int fd;
    struct kb_addr remote;
    struct kb_addr bound;
};

static void balanced_arrive(void *arg)
{
    struct balanced *balanced = arg;
    struct kb_listener_worker *lw = KB_CAST(balanced->lw, kb_listener_worker);

    if (lw->accepting) {
        take(lw, balanced->fd, &balanced->remote, &balanced->bound);
    } else {
        __atomic_sub_fetch(&lw->balanced_count, 1, __ATOMIC_RELAXED);
        close(balanced->fd);
    }
    free(balanced);
    kb_active_listener_release(lw->active);
}

/* The worker with the fewest connections; one that is on its way counts. */
static struct kb_listener_worker *worker_pick(struct kb_listener_worker *lw)
{
    struct kb_active_listener *active = lw->active;
    struct kb_listener_worker *best = NULL;
    uint32_t best_count = 0;

    pthread_mutex_lock(&active->balance);
    for (uint32_t i = 0; i < active->worker_count; i++) {
        struct kb_listener_worker *other = &active->workers[i];
        uint32_t count = __atomic_load_n(&other->connection_count, __ATOMIC_RELAXED) +
                         __atomic_load_n(&other->balanced_count, __ATOMIC_RELAXED);

        if (best == NULL || count < best_count) {
            best = other;
            best_count = count;
        }
    }
    __atomic_add_fetch(&best->balanced_count, 1, __ATOMIC_RELAXED);
    if (best != lw) {
        __atomic_add_fetch(&active->workers_holding, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&active->balance);
    return best;
}

static void balanced_send(struct kb_listener_worker *lw, int fd, const struct kb_addr *remote,
                          const struct kb_addr *bound)
{
    struct balanced *balanced = kb_calloc(1, sizeof(*balanced));

    balanced->lw = lw;
    balanced->fd = fd;
    balanced->remote = *remote;
    balanced->bound = *bound;
    kb_loop_post(&lw->worker->loop, balanced_arrive, balanced);
}

/* ---- accepted ---- */

void kb_listener_accepted(struct kb_listener_worker *lw, int fd, const struct kb_addr *remote,
                          const struct kb_addr *bound)
{
    if (!lw->accepting || over_limit(lw)) {
        close(fd);
        return;
    }
    if (KB_UNLIKELY(lw->listener->exact_balance)) {
        struct kb_listener_worker *picked = worker_pick(lw);

        if (picked != lw) {
            balanced_send(picked, fd, remote, bound);
            return;
        }
    }
    take(lw, fd, remote, bound);
}

void kb_listener_log(struct kb_listener_worker *lw, const struct kb_conn *conn, uint32_t flags,
                     struct kb_str details)
{
    const struct kb_formatter_input input = {.access_log_type = NULL};
    const struct kb_loop *loop = &lw->worker->loop;
    struct kb_stream_info info;
    struct kb_arena arena;

    if (lw->listener == NULL || lw->listener->access_log == NULL) {
        return;
    }
    flags |= conn->info.flags;
    memset(&info, 0, sizeof(info));
    if (conn->info.transport_failure_reason.len == 0) {
        info.protocol = conn->info.protocol;
    }
    if (conn->stream_info != NULL) {
        flags |= conn->stream_info->flags;
        info.upstream = conn->stream_info->upstream;
        info.upstream_cluster_name = conn->stream_info->upstream_cluster_name;
    }
    info.connection = &conn->info;
    info.worker = lw->worker;
    info.start_ns = conn->info.start_ns;
    info.end_ns = kb_loop_now_ns(loop);
    info.wall_start_ns = kb_loop_wall_ns(loop) - (info.end_ns - info.start_ns);
    info.remote = conn->info.remote;
    info.response_code_details = details;
    info.bytes_received = conn->bytes_received;
    info.bytes_sent = conn->bytes_sent;
    for (unsigned i = 0; i < KB_RF_COUNT; i++) {
        if ((flags & (UINT32_C(1) << i)) != 0) {
            kb_stream_info_set_flag(&info, (enum kb_response_flag)i);
        }
    }
    kb_arena_init(&arena, &lw->worker->arena_blocks);
    kb_access_log_list_log(lw->listener->access_log, &input, &info, &arena);
    kb_arena_dispose(&arena);
}
