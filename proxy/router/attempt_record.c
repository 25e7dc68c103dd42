/* SPDX-License-Identifier: Apache-2.0 */
/* Records of attempts, and the router's upstream_log, which is written from them. */
#include "proxy/router/attempt_record.h"

#include "proxy/api/access_logger.h"
#include "proxy/api/cluster.h"

static struct kb_header_map *map_copy(const struct kb_header_map *from, struct kb_arena *arena)
{
    struct kb_header_map *map = KB_ARENA_NEW(arena, struct kb_header_map);

    kb_header_map_init(map, arena);
    map->status = from->status;
    KB_HEADER_FOREACH(h, from)
    {
        kb_header_map_append_id(map, h->id, kb_str_dup(arena, h->name),
                                kb_str_dup(arena, h->value));
    }
    return map;
}

/* The stream's info as it is of this attempt alone. */
static void info_fill(const struct kb_upstream_request *upstream, struct kb_stream_info *info)
{
    const struct kb_router *router = upstream->router;
    const struct kb_stream_info *stream = router->info;
    const struct kb_attempt_record *record = upstream->record;

    *info = record->flags;
    info->connection = stream->connection;
    info->worker = stream->worker;
    info->start_ns = upstream->start_ns;
    info->wall_start_ns = stream->wall_start_ns + (upstream->start_ns - stream->start_ns);
    info->end_ns = kb_loop_now_ns(&router->worker->loop);
    info->remote = stream->connection->remote;
    info->bytes_received = record->body_received;
    info->bytes_sent = record->body_sent;
    if (record->ready) {
        info->wire_bytes_received = stream->wire_bytes_received;
        info->wire_bytes_sent = stream->wire_bytes_sent;
        info->header_bytes_received = stream->header_bytes_received;
        info->header_bytes_sent = stream->header_bytes_sent;
    }
    info->route = router->route; /* the stream may have another one: it was redirected */
    info->route_name = router->route->name;
    info->upstream_cluster_name = stream->upstream_cluster_name;
    info->health_check = stream->health_check;
    info->internal = stream->internal;
    info->upstream = stream->upstream;
    info->protocol = stream->upstream.protocol;
    info->upstream.hosts_attempted =
        record->ready ? kb_host_addr_text(info->upstream.host) : KB_STR_NULL;
}

static void log_write(const struct kb_upstream_request *upstream, const char *type)
{
    const struct kb_router *router = upstream->router;
    const struct kb_attempt_record *record = upstream->record;
    struct kb_formatter_input input = {
        .request = router->request,
        .response = record->response,
        .response_trailers = record->trailers,
        .access_log_type = type,
    };
    struct kb_stream_info info;
    struct kb_arena arena; /* of this line: a stream may last for days */

    if (router->config->upstream_log == NULL) {
        return;
    }
    info_fill(upstream, &info);
    kb_arena_init(&arena, &router->worker->arena_blocks);
    kb_access_log_list_log(router->config->upstream_log, &input, &info, &arena);
    kb_arena_dispose(&arena);
}

static void log_timer_fired(struct kb_timer *timer)
{
    struct kb_attempt_record *record = KB_CONTAINER_OF(timer, struct kb_attempt_record, log_timer);
    struct kb_upstream_request *upstream = KB_CAST(record->upstream, kb_upstream_request);
    struct kb_router *router = upstream->router;

    if (router->upstream == upstream) { /* of others the stream's info tells nothing */
        kb_upstream_request_info(upstream);
    }
    log_write(upstream, "UpstreamPeriodic");
    kb_loop_timer_arm(&router->worker->loop, timer, router->config->upstream_log_interval_ms);
}

void kb_attempt_record_start(struct kb_upstream_request *upstream)
{
    struct kb_router *router = upstream->router;
    struct kb_attempt_record *record = KB_ARENA_NEW(router->arena, struct kb_attempt_record);

    upstream->record = record;
    record->upstream = upstream;
    kb_timer_init(&record->log_timer, log_timer_fired);
    if (router->config->upstream_log_interval_ms > 0) {
        kb_loop_timer_arm(&router->worker->loop, &record->log_timer,
                          router->config->upstream_log_interval_ms);
    }
}

void kb_attempt_record_ready(struct kb_upstream_request *upstream)
{
    upstream->record->ready = true;
    if (upstream->router->config->upstream_log_on_ready) {
        kb_upstream_request_info(upstream);
        log_write(upstream, "UpstreamPoolReady");
    }
}

static uint64_t header_count(const struct kb_header_map *map)
{
    return map->live + (map->method.p != NULL) + (map->path.p != NULL) +
           (map->authority.p != NULL) + (map->scheme.p != NULL) + (map->protocol.p != NULL) +
           (map->status != 0);
}

void kb_attempt_record_1xx(struct kb_upstream_request *upstream,
                           const struct kb_header_map *headers)
{
    upstream->record->head_bytes += kb_header_map_bytes(headers);
    upstream->record->head_count += header_count(headers);
}

void kb_attempt_record_headers(struct kb_upstream_request *upstream,
                               const struct kb_header_map *headers)
{
    kb_attempt_record_1xx(upstream, headers);
    upstream->record->flags.response_code = headers->status;
    if (upstream->router->config->upstream_log != NULL) {
        upstream->record->response = map_copy(headers, upstream->router->arena);
    }
}

void kb_attempt_record_trailers(struct kb_upstream_request *upstream,
                                const struct kb_header_map *trailers)
{
    if (upstream->router->config->upstream_log != NULL) {
        upstream->record->trailers = map_copy(trailers, upstream->router->arena);
    }
}

void kb_attempt_record_flag(struct kb_upstream_request *upstream, enum kb_response_flag flag)
{
    kb_stream_info_set_flag(&upstream->record->flags, flag);
}

static void sizes_count(const struct kb_upstream_request *upstream)
{
    const struct kb_router *router = upstream->router;
    const struct kb_attempt_record *record = upstream->record;
    struct kb_stat_block *stats =
        kb_stat_group_block(router->cluster->cluster->size_stats, router->worker->index);

    kb_stat_record(stats, KB_STAT_CLUSTER_SIZES_UPSTREAM_RQ_HEADERS_SIZE,
                   kb_header_map_bytes(router->request));
    kb_stat_record(stats, KB_STAT_CLUSTER_SIZES_UPSTREAM_RQ_HEADERS_COUNT,
                   header_count(router->request));
    kb_stat_record(stats, KB_STAT_CLUSTER_SIZES_UPSTREAM_RQ_BODY_SIZE, record->body_sent);
    if (record->head_count > 0) {
        kb_stat_record(stats, KB_STAT_CLUSTER_SIZES_UPSTREAM_RS_HEADERS_SIZE, record->head_bytes);
        kb_stat_record(stats, KB_STAT_CLUSTER_SIZES_UPSTREAM_RS_HEADERS_COUNT, record->head_count);
        kb_stat_record(stats, KB_STAT_CLUSTER_SIZES_UPSTREAM_RS_BODY_SIZE, record->body_received);
    }
}

/* Percent of a timeout; nothing of none. */
static void budget_count(const struct kb_router *router, unsigned id, uint64_t since_ns,
                         uint64_t timeout_ms)
{
    struct kb_stat_block *stats =
        kb_stat_group_block(router->cluster->cluster->budget_stats, router->worker->index);
    uint64_t ms = (kb_loop_now_ns(&router->worker->loop) - since_ns) / 1000000;

    /* An answer may be over before its request is: no timeout ran yet. */
    kb_stat_record(stats, id, timeout_ms == 0 || since_ns == 0 ? 0 : ms * 100 / timeout_ms);
}

void kb_attempt_budget_count(const struct kb_router *router)
{
    if (router->cluster->cluster->budget_stats != NULL) {
        budget_count(router, KB_STAT_CLUSTER_BUDGETS_REQUEST, router->request_complete_ns,
                     router->timeout_ms);
    }
}

void kb_attempt_record_end(struct kb_upstream_request *upstream)
{
    const struct kb_cluster *cluster = upstream->router->cluster->cluster;
    struct kb_attempt_record *record = upstream->record;

    kb_loop_timer_cancel(&upstream->router->worker->loop, &record->log_timer);
    log_write(upstream, "UpstreamEnd");
    if (cluster->budget_stats != NULL && !upstream->record->no_budget) {
        budget_count(upstream->router, KB_STAT_CLUSTER_BUDGETS_PER_TRY, upstream->start_ns,
                     upstream->router->per_try_timeout_ms);
    }
    if (cluster->size_stats != NULL) {
        sizes_count(upstream);
    }
    upstream->record = NULL;
}
