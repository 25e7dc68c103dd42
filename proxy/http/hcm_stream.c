/* SPDX-License-Identifier: Apache-2.0 */
/* One downstream stream: from its first byte to its access log line (Envoy
 * ConnectionManagerImpl::ActiveStream). */
#include "base/clock.h"
#include "base/log.h"
#include "base/slot.h"
#include "proxy/api/access_logger.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/runtime.h"
#include "proxy/api/ssl_connection_info.h"
#include "proxy/http/hcm_internal.h"
#include "proxy/http/local_reply.h"
#include "proxy/http/path.h"
#include "proxy/http/scoped_routes.h"

static void idle_timer_fired(struct kb_timer *timer);
static void request_timer_fired(struct kb_timer *timer);
static void duration_timer_fired(struct kb_timer *timer);
static void destroy_deferred(struct kb_deferred *deferred);

/* ---- lifecycle ---- */

/* On zeroed storage. */
static void info_init(struct kb_stream_info *info, struct kb_hcm *hcm)
{
    struct kb_loop *loop = &hcm->worker->loop;

    info->connection = &hcm->conn->info;
    info->worker = hcm->worker;
    info->start_ns = kb_loop_now_ns(loop);
    info->wall_start_ns = kb_loop_wall_ns(loop);
    info->remote = hcm->conn->info.remote;
    info->transport_options = hcm->conn->upstream_options;
    info->protocol = KB_PROTOCOL_HTTP11;
}

void kb_stream_init(struct kb_stream *stream, struct kb_hcm *hcm,
                    const struct kb_response_encoder_ops *ops, void *encoder)
{
    const struct kb_hcm_config *config = hcm->config;

    memset(stream, 0, sizeof(*stream));
    KB_OBJ_SET(stream, kb_stream);
    stream->hcm = hcm;
    stream->encoder_ops = ops;
    stream->encoder = encoder;
    kb_arena_init(&stream->arena, &hcm->worker->arena_blocks);
    kb_header_map_init(&stream->request, &stream->arena);
    info_init(&stream->info, hcm);
    kb_buf_init(&stream->decode_buffer, &hcm->worker->slices, hcm->conn->buffer_limit);
    kb_timer_init(&stream->headers_timer, idle_timer_fired);
    kb_timer_init(&stream->request_timer, request_timer_fired);
    kb_timer_init(&stream->duration_timer, duration_timer_fired);
    kb_deferred_init(&stream->destroy, destroy_deferred);
    stream->idle_timeout_ms = config->stream_idle_timeout_ms;
    if (config->request_timeout_ms > 0) {
        kb_loop_timer_arm(&hcm->worker->loop, &stream->request_timer, config->request_timeout_ms);
    }
    if (config->max_stream_duration_ms > 0) {
        kb_loop_timer_arm(&hcm->worker->loop, &stream->duration_timer,
                          config->max_stream_duration_ms);
    }
    if (config->request_headers_timeout_ms > 0) {
        kb_loop_timer_arm(&hcm->worker->loop, &stream->headers_timer,
                          config->request_headers_timeout_ms);
    } else if (stream->idle_timeout_ms > 0) {
        kb_stream_idle_arm(stream);
    }
    if (KB_UNLIKELY(config->access_log_flush_interval_ms > 0)) {
        kb_stream_log_timer_start(stream);
    }
}

void kb_stream_code_count(struct kb_stream *stream, unsigned status)
{
    static const uint16_t http_ids[] = {
        KB_STAT_HTTP_DOWNSTREAM_RQ_1XX, KB_STAT_HTTP_DOWNSTREAM_RQ_2XX,
        KB_STAT_HTTP_DOWNSTREAM_RQ_3XX, KB_STAT_HTTP_DOWNSTREAM_RQ_4XX,
        KB_STAT_HTTP_DOWNSTREAM_RQ_5XX,
    };
    static const uint16_t listener_ids[] = {
        KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_1XX, KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_2XX,
        KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_3XX, KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_4XX,
        KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_5XX,
    };
    unsigned group = status / 100;
    struct kb_hcm *hcm = stream->hcm;

    if (KB_UNLIKELY(stream->info.health_check)) {
        return;
    }
    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_COMPLETED);
    if (hcm->listener_stats != NULL) {
        kb_stat_inc(hcm->listener_stats, KB_STAT_LISTENER_HTTP_DOWNSTREAM_RQ_COMPLETED);
    }
    if (group < 1 || group > 5) {
        return;
    }
    kb_stat_inc(hcm->stats, http_ids[group - 1]);
    if (hcm->listener_stats != NULL) {
        kb_stat_inc(hcm->listener_stats, listener_ids[group - 1]);
    }
}

/* The filters end, and with them what was asked of upstreams. */
static void filters_end(struct kb_stream *stream)
{
    stream->filters_ended = true;
    stream->info.end_ns = kb_loop_now_ns(&stream->hcm->worker->loop);
    kb_stream_filters_complete(stream);
    kb_stream_log_write(stream, "DownstreamEnd");
    kb_stream_filters_destroy(stream);
}

static void destroy_deferred(struct kb_deferred *deferred)
{
    struct kb_stream *stream = KB_CONTAINER_OF(deferred, struct kb_stream, destroy);
    struct kb_hcm *hcm = stream->hcm;
    struct kb_worker *worker = hcm->worker;

    KB_ASSERT(stream->kb_magic == (uint32_t)KB_MAGIC_kb_stream);
    if (KB_LIKELY(!stream->filters_ended)) {
        filters_end(stream);
    }
    while (stream->read_disables > 0) {
        kb_stream_read_disable(stream, false);
    }
    kb_buf_dispose(&stream->decode_buffer);
    if (KB_UNLIKELY(stream->encoding != NULL)) {
        kb_stream_encoding_dispose(stream);
    }
    kb_slice_unref(stream->head_slice);
    if (KB_UNLIKELY(stream->shown_cluster != NULL)) {
        kb_cluster_local_unref(stream->shown_cluster);
    }
    if (KB_UNLIKELY(stream->info.upstream.ssl != NULL)) {
        kb_ssl_connection_info_unref(stream->info.upstream.ssl);
    }
    if (KB_UNLIKELY(stream->info.filter_state != NULL)) {
        kb_filter_state_dispose(&stream->info.filter_state, &stream->arena);
    }
    while (KB_UNLIKELY(stream->filter_holds != NULL)) {
        kb_shared_unref(stream->filter_holds->shared, worker);
        stream->filter_holds = stream->filter_holds->next;
    }
    kb_arena_dispose(&stream->arena);
    if (stream->route_hold != NULL) {
        kb_shared_unref(stream->route_hold, worker);
    }
    kb_list_unlink(&stream->link);
    hcm->stream_count--;
    KB_OBJ_CLEAR(stream);
    kb_pool_release(&kb_http_worker_get(worker)->streams, stream);
    kb_hcm_stream_ended(hcm);
}

void kb_hcm_streams_reap(struct kb_hcm *hcm)
{
    KB_LIST_FOREACH (link, &hcm->streams) {
        struct kb_stream *stream = KB_LIST_ENTRY(link, struct kb_stream, link);

        if (stream->ended) {
            kb_deferred_cancel(&stream->destroy);
            destroy_deferred(&stream->destroy);
        }
    }
}

void kb_stream_end(struct kb_stream *stream)
{
    struct kb_hcm *hcm = stream->hcm;
    struct kb_loop *loop = &hcm->worker->loop;

    if (stream->ended) {
        return;
    }
    stream->ended = true;
    kb_loop_timer_cancel(loop, &stream->headers_timer);
    kb_loop_timer_cancel(loop, &stream->request_timer);
    kb_loop_timer_cancel(loop, &stream->duration_timer);
    if (KB_UNLIKELY(stream->log_timer != NULL)) {
        kb_stream_log_timer_stop(stream);
    }
    if (stream->encoder != NULL) {
        stream->encoder_ops->reset(stream->encoder);
        stream->encoder = NULL;
    } else if (KB_UNLIKELY(stream->flushing != NULL)) {
        stream->encoder_ops->reset(stream->flushing);
        stream->flushing = NULL;
    }
    kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_ACTIVE, -1);
    if (KB_UNLIKELY(stream->upgrade_asked)) {
        kb_stat_gauge_add(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_UPGRADES_ACTIVE, -1);
    }
    kb_stat_record(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_TIME,
                   (kb_loop_now_ns(loop) - stream->info.start_ns) / 1000000);
    kb_loop_defer(loop, &stream->destroy);
}

/* Once: where the answer came first, the rest of the request was counted as reset by then. */
static void reset_count(const struct kb_stream *stream)
{
    if (!stream->local_complete || stream->remote_complete) {
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_RX_RESET);
    }
}

void kb_stream_on_disconnect(struct kb_stream *stream, bool by_peer)
{
    if (stream->ended) {
        return;
    }
    reset_count(stream);
    if (by_peer) {
        kb_stream_info_set_flag(&stream->info, KB_RF_DOWNSTREAM_CONNECTION_TERMINATION);
        stream->info.response_code_details = KB_STR("downstream_remote_disconnect");
    } else if (stream->info.response_code_details.p == NULL) {
        stream->info.response_code_details = KB_STR("downstream_local_disconnect");
    }
    kb_stream_end(stream);
}

/* Envoy's protection against clients that ask and reset: half of so many streams, or more. */
#define PREMATURE_RESET_STREAMS  500
#define PREMATURE_LIFETIME_NS    UINT64_C(2000000000) /* over one second, in whole ones */
/* Behind so many, what a request wants of upstreams is given up where its reset is read, not at the
 * end of the turn: else hundreds that were read together would each have a connection made. */
#define PREMATURE_RESETS_SUSPECT 16

static void premature_resets_check(struct kb_hcm *hcm)
{
    uint64_t bad = (uint64_t)hcm->premature_resets * 2;
    uint64_t limit = kb_runtime_get_u64(hcm->config->server->runtime,
                                        KB_STR("overload.premature_reset_total_stream_count"),
                                        PREMATURE_RESET_STREAMS);

    if (bad < KB_MAX(limit, hcm->ended_streams < limit ? 0 : hcm->ended_streams) ||
        hcm->drain != KB_HCM_NOT_DRAINING || hcm->closed) {
        return;
    }
    kb_stat_inc(hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_TOO_MANY_PREMATURE_RESETS);
    KB_LIST_FOREACH (link, &hcm->streams) {
        KB_LIST_ENTRY(link, struct kb_stream, link)->info.response_code_details =
            KB_STR("too_many_premature_resets");
    }
    kb_hcm_close(hcm, KB_CONN_NO_FLUSH);
}

void kb_stream_on_codec_reset(struct kb_stream *stream, enum kb_reset_reason reason,
                              struct kb_str details, bool by_peer)
{
    struct kb_hcm *hcm = stream->hcm;
    bool premature;

    stream->encoder = NULL;
    stream->flushing = NULL;
    if (stream->ended) {
        return;
    }
    reset_count(stream);
    if (details.p != NULL) {
        kb_stream_info_set_flag(&stream->info,
                                reason == KB_RESET_LOCAL_RESET || reason == KB_RESET_PROTOCOL_ERROR
                                    ? KB_RF_DOWNSTREAM_PROTOCOL_ERROR
                                    : KB_RF_DOWNSTREAM_REMOTE_RESET);
        stream->info.response_code_details = details;
    }
    hcm->ended_streams++;
    premature = stream->info.response_code == 0 &&
                kb_loop_now_ns(&hcm->worker->loop) - stream->info.start_ns < PREMATURE_LIFETIME_NS;
    hcm->premature_resets += premature;
    kb_stream_end(stream);
    premature_resets_check(hcm);
    if (KB_UNLIKELY(premature && hcm->premature_resets > PREMATURE_RESETS_SUSPECT) && by_peer &&
        !hcm->closed) {
        stream->info.abandoned = true;
        filters_end(stream);
    }
}

void kb_hcm_stream_codec_error(struct kb_stream *stream, unsigned status, struct kb_str details)
{
    struct kb_connection_info *info = &stream->hcm->conn->info;

    info->flags |= 1U << KB_RF_DOWNSTREAM_PROTOCOL_ERROR;
    if (info->requests <= 1) {
        info->protocol = KB_PROTOCOL_NONE; /* nothing was understood */
    }
    kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_CX_PROTOCOL_ERROR);
    kb_hcm_stream_abort(stream, status, details);
}

void kb_hcm_stream_abort(struct kb_stream *stream, unsigned status, struct kb_str details)
{
    struct kb_hcm *hcm = stream->hcm;

    if (stream->ended) {
        kb_hcm_close_when_idle(hcm);
        return;
    }
    if (stream->response_started) {
        kb_hcm_close_codec_error(stream, details);
        return;
    }
    stream->saw_connection_close = true;
    kb_stream_send_local_reply(stream, status, kb_h1_status_reason(status), details, NULL, NULL);
    /* After the reply, as Envoy: formats of local_reply_config do not see it, access logs do. */
    kb_stream_info_set_flag(&stream->info, KB_RF_DOWNSTREAM_PROTOCOL_ERROR);
    hcm->drain = KB_HCM_CLOSING;
}

/* ---- timeouts ---- */

void kb_stream_touch(struct kb_stream *stream)
{
    stream->idle_deadline_ms = kb_loop_now_ms(&stream->hcm->worker->loop) + stream->idle_timeout_ms;
}

/* Answers to requests that have a route carry its headers, whoever gives them. */
static void route_headers_add(void *arg, struct kb_header_map *headers)
{
    struct kb_stream *stream = KB_CAST(arg, kb_stream);

    if (stream->route != NULL) {
        kb_route_finalize_response(stream->route, NULL, &stream->request, headers, &stream->info);
    }
}

static void idle_timeout(struct kb_stream *stream)
{
    if (KB_UNLIKELY(stream->flushing != NULL)) {
        /* The whole answer waits for a client that does not open its window. */
        kb_stat_inc(stream->hcm->http2_stats, KB_STAT_HTTP2_TX_FLUSH_TIMEOUT);
        kb_stream_cut_off(stream);
        return;
    }
    kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_IDLE_TIMEOUT);
    kb_stream_info_set_flag(&stream->info, KB_RF_STREAM_IDLE_TIMEOUT);
    if (stream->response_started) {
        stream->info.response_code_details = KB_STR("stream_idle_timeout");
        kb_stream_cut_off(stream);
        return;
    }
    kb_stream_send_local_reply(stream, stream->remote_complete ? 504 : 408,
                               KB_STR("stream timeout"), KB_STR("stream_idle_timeout"),
                               route_headers_add, stream);
}

static void idle_timer_fired(struct kb_timer *timer)
{
    struct kb_stream *stream = KB_CONTAINER_OF(timer, struct kb_stream, headers_timer);
    struct kb_loop *loop = &stream->hcm->worker->loop;
    uint64_t now_ms = kb_loop_now_ms(loop);

    KB_ASSERT(stream->kb_magic == (uint32_t)KB_MAGIC_kb_stream);
    if (!stream->headers_decoded && stream->hcm->config->request_headers_timeout_ms > 0) {
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_HEADER_TIMEOUT);
        stream->saw_connection_close = true;
        if (stream->hcm->h2 != NULL) {
            /* What came of its head is not shown. */
            kb_header_map_init(&stream->request, &stream->arena);
        }
        kb_stream_send_local_reply(stream, 408, KB_STR("request header timeout"),
                                   KB_STR("request_header_timeout"), NULL, NULL);
        return;
    }
    if (stream->idle_timeout_ms == 0) {
        return;
    }
    if (kb_stream_idle_deadline(stream) > now_ms) {
        kb_loop_timer_arm(loop, timer, kb_stream_idle_deadline(stream) - now_ms);
        return;
    }
    idle_timeout(stream);
}

static void request_timer_fired(struct kb_timer *timer)
{
    struct kb_stream *stream = KB_CONTAINER_OF(timer, struct kb_stream, request_timer);

    KB_ASSERT(stream->kb_magic == (uint32_t)KB_MAGIC_kb_stream);
    kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_TIMEOUT);
    kb_stream_send_local_reply(stream, 408, KB_STR("request timeout"),
                               KB_STR("request_overall_timeout"), route_headers_add, stream);
}

static void duration_timer_fired(struct kb_timer *timer)
{
    struct kb_stream *stream = KB_CONTAINER_OF(timer, struct kb_stream, duration_timer);

    KB_ASSERT(stream->kb_magic == (uint32_t)KB_MAGIC_kb_stream);
    kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_MAX_DURATION_REACHED);
    if (stream->response_started) {
        stream->info.response_code_details = KB_STR("max_duration_timeout");
        kb_stream_cut_off(stream);
        return;
    }
    stream->grpc_status = 4; /* DEADLINE_EXCEEDED */
    kb_stream_send_local_reply(stream, stream->remote_complete ? 504 : 408,
                               KB_STR("downstream duration timeout"),
                               KB_STR("max_duration_timeout"), route_headers_add, stream);
}

/* After routing: the route's own timeouts. */
static void route_timeouts_apply(struct kb_stream *stream)
{
    const struct kb_route *route = stream->route;
    struct kb_loop *loop = &stream->hcm->worker->loop;

    if (stream->hcm->config->request_headers_timeout_ms > 0) {
        kb_loop_timer_cancel(loop, &stream->headers_timer);
    }
    if (route != NULL && route->idle_timeout_set) {
        stream->idle_timeout_ms = route->idle_timeout_ms;
        kb_loop_timer_cancel(loop, &stream->headers_timer);
    }
    kb_stream_idle_arm(stream);
    if (route == NULL) {
        return;
    }
    if (KB_UNLIKELY(route->new_timeouts ||
                    (stream->recreated && route->kind == KB_ROUTE_CLUSTER))) {
        kb_stream_duration_refresh(stream);
    }
}

/* ---- decoding ---- */

/* The request is refused before it is routed. Its log line names the cluster all the same when
 * x-forwarded-proto came with it: without, no route of Envoy's matches. */
static void early_reply_prepare(struct kb_stream *stream)
{
    if (kb_header_map_get_id(&stream->request, KB_HDR_X_FORWARDED_PROTO) != NULL) {
        kb_stream_route(stream);
        kb_stream_cluster_refresh(stream);
    }
}

static void reply_early(struct kb_stream *stream, unsigned status, struct kb_str details)
{
    early_reply_prepare(stream);
    kb_stream_send_local_reply(stream, status, KB_STR_NULL, details, route_headers_add, stream);
}

static void location_add(void *arg, struct kb_header_map *headers)
{
    const struct kb_str *location = arg;

    kb_header_map_add_id(headers, KB_HDR_LOCATION, *location);
}

/* The checks that come before anything else; false when the stream was answered. */
static bool head_acceptable(struct kb_stream *stream)
{
    struct kb_header_map *map = &stream->request;
    const struct kb_hcm_config *config = stream->hcm->config;

    if (map->authority.p == NULL) {
        if (stream->info.protocol == KB_PROTOCOL_HTTP10 &&
            config->default_host_for_http_10.len > 0) {
            map->authority = config->default_host_for_http_10;
        } else {
            reply_early(stream, 400, KB_STR("missing_host_header"));
            return false;
        }
    }
    if (KB_LIKELY(!stream->connect_request) && (map->path.len == 0 || map->path.p[0] != '/')) {
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_NON_RELATIVE_PATH);
        reply_early(stream, 404, KB_STR("absolute_path_rejected"));
        return false;
    }
    if (KB_UNLIKELY(kb_str_eq(map->method, KB_STR("QUERY"))) &&
        kb_header_map_value_id(map, KB_HDR_CONTENT_TYPE).len == 0) {
        reply_early(stream, 400, KB_STR("query_missing_content_type"));
        return false;
    }
    return true;
}

/* What asks for a tunnel gets its port back before it goes upstream. */
static void host_normalise(struct kb_stream *stream)
{
    struct kb_header_map *map = &stream->request;
    struct kb_str before = map->authority;
    ptrdiff_t colon;
    uint64_t port;

    kb_host_normalise(stream->hcm->config, map, kb_addr_port(&stream->hcm->conn->info.local));
    if (KB_LIKELY(!stream->connect_request && !stream->h2_upgrade) ||
        before.len == map->authority.len) {
        return;
    }
    colon = kb_str_rfind_char(before, ':');
    if (colon >= 0 && kb_str_to_u64(kb_str_from(before, (size_t)colon + 1), &port) == 0 &&
        port <= UINT16_MAX && kb_str_rfind_char(map->authority, ':') < 0) {
        stream->connect_port = (uint16_t)port;
    }
}

/* Path and host normalisation; false when the stream was answered. */
static bool target_normalise(struct kb_stream *stream)
{
    struct kb_str location;

    switch (kb_path_normalise(stream->hcm->config, &stream->request, &location)) {
    case KB_PATH_OK:
        break;
    case KB_PATH_REJECT:
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_FAILED_PATH_NORMALIZATION);
        reply_early(stream, 400, KB_STR("path_normalization_failed"));
        return false;
    case KB_PATH_REDIRECT:
        early_reply_prepare(stream);
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_REDIRECTED_WITH_NORMALIZED_PATH);
        kb_stream_send_local_reply(stream, 307, KB_STR_NULL, KB_STR("path_normalization_failed"),
                                   location_add, &location);
        return false;
    }
    host_normalise(stream);
    return true;
}

static void continue_expected(struct kb_stream *stream)
{
    struct kb_header_map *headers;
    struct kb_str expect = kb_header_map_value_id(&stream->request, KB_HDR_EXPECT);

    if (KB_LIKELY(expect.p == NULL) || stream->hcm->config->proxy_100_continue ||
        !kb_str_ieq(expect, KB_STR("100-continue"))) {
        return;
    }
    headers = KB_ARENA_NEW(&stream->arena, struct kb_header_map);
    kb_header_map_init(headers, &stream->arena);
    headers->status = 100;
    stream->info.response_code = 100;
    kb_stream_code_count(stream, 100);
    if (stream->hcm->config->tracing != NULL) {
        kb_hcm_trace_count(stream);
    }
    stream->encoder_ops->encode_1xx(stream->encoder, headers);
    kb_header_map_remove_id(&stream->request, KB_HDR_EXPECT);
}

static void method_set(struct kb_stream *stream)
{
    struct kb_str type = kb_header_map_value_id(&stream->request, KB_HDR_CONTENT_TYPE);

    stream->grpc_request = type.p != NULL && kb_str_starts_with(type, KB_STR("application/grpc")) &&
                           (type.len == 16 || type.p[16] == '+');
}

/* A stream keeps the table with which it began, whatever comes over xDS meanwhile. */
const struct kb_route_config *kb_stream_route_table(struct kb_stream *stream)
{
    const struct kb_hcm_config *config = stream->hcm->config;

    if (KB_LIKELY(config->route_config != NULL)) {
        return config->route_config;
    }
    if (config->scoped_routes != NULL) {
        return kb_scoped_routes_find(config->scoped_routes, &stream->request, &stream->arena);
    }
    if (config->route_provider == NULL) {
        return NULL;
    }
    if (stream->route_config == NULL) {
        stream->route_config = kb_route_provider_acquire(config->route_provider,
                                                         stream->hcm->worker, &stream->route_hold);
    }
    return stream->route_config;
}

const struct kb_route *kb_stream_route(struct kb_stream *stream)
{
    const struct kb_route_config *config;

    if (!stream->route_chosen) {
        bool timed = KB_UNLIKELY(__atomic_load_n(&kb_route_resolution_timed, __ATOMIC_RELAXED));
        uint64_t start_ns = timed ? kb_clock_mono_ns() : 0;

        stream->route_chosen = true;
        stream->info.route_resolutions++;
        config = kb_stream_route_table(stream);
        if (config != NULL) {
            stream->route_random = kb_rand_u64(&stream->hcm->worker->rand);
            stream->route = kb_route_config_match(config, &stream->request, &stream->info,
                                                  stream->route_random);
        }
        if (timed) {
            stream->info.route_resolution_ns += kb_clock_mono_ns() - start_ns;
        }
        stream->info.route = stream->route;
        stream->info.route_name = stream->route != NULL ? stream->route->name : KB_STR_NULL;
        if (KB_UNLIKELY(stream->info.route_resolutions > 1) &&
            stream->hcm->config->tracing != NULL) {
            kb_hcm_trace_refresh(stream);
        }
    }
    return stream->route;
}

uint64_t kb_stream_route_random(const struct kb_stream *stream)
{
    return stream->route_random;
}

void kb_stream_clear_route_cache(struct kb_stream *stream)
{
    stream->route_chosen = false;
    stream->route = NULL;
}

static void remote_completed(struct kb_stream *stream)
{
    stream->remote_complete = true;
    stream->info.last_rx_ns = kb_loop_now_ns(&stream->hcm->worker->loop);
    if (kb_timer_armed(&stream->request_timer)) {
        kb_loop_timer_cancel(&stream->hcm->worker->loop, &stream->request_timer);
    }
}

static struct kb_cluster_local *route_cluster(struct kb_stream *stream)
{
    struct kb_str name = KB_STR_NULL;
    const void *choice;
    uint32_t slot = UINT32_MAX;

    if (stream->route == NULL || stream->route->kind != KB_ROUTE_CLUSTER ||
        kb_route_choose_cluster(stream->route, &stream->request, stream->route_random, &slot, &name,
                                &choice) != 0) {
        return NULL;
    }
    return slot != UINT32_MAX ? kb_cluster_local_get(stream->hcm->worker, slot)
                              : kb_cluster_local_find(stream->hcm->worker, name);
}

const struct kb_cluster *kb_stream_route_cluster(struct kb_stream *stream)
{
    const struct kb_cluster_local *cluster = route_cluster(stream);

    return cluster != NULL ? cluster->cluster : NULL;
}

void kb_stream_cluster_refresh(struct kb_stream *stream)
{
    struct kb_cluster_local *shown = route_cluster(stream);

    if (shown != NULL) {
        kb_cluster_local_ref(shown);
    }
    if (stream->shown_cluster != NULL) {
        kb_cluster_local_unref(stream->shown_cluster);
    }
    stream->shown_cluster = shown;
    stream->info.upstream_cluster_name =
        shown != NULL ? shown->cluster->observability_name : KB_STR_NULL;
    stream->info.upstream.cluster = shown != NULL ? shown->cluster : NULL;
}

void kb_stream_decode_headers(struct kb_stream *stream, bool end_stream)
{
    bool upgradable;

    /* What follows CONNECT has no end. */
    if (KB_UNLIKELY(stream->connect_request)) {
        end_stream = false;
    } else if (end_stream) {
        remote_completed(stream);
    }
    method_set(stream);
    if (kb_overload_any(stream->hcm->config->overload) && kb_stream_overloaded(stream)) {
        return;
    }
    continue_expected(stream);
    if (!head_acceptable(stream) || !target_normalise(stream)) {
        return;
    }
    if (KB_LIKELY(!stream->recreated)) {
        unsigned reject_status = kb_hcm_mutate_request(stream);

        if (KB_UNLIKELY(reject_status != 0)) {
            kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_REJECTED_VIA_IP_DETECTION);
            kb_stream_send_local_reply(stream, reject_status, KB_STR_NULL,
                                       KB_STR("rejecting_because_detection_failed"), NULL, NULL);
            return;
        }
    }
    kb_stream_route(stream);
    stream->headers_decoded = true;
    route_timeouts_apply(stream);
    if (KB_UNLIKELY(stream->hcm->config->tracing != NULL)) {
        kb_hcm_trace_begin(stream);
    }
    upgradable = kb_stream_filters_create(stream);
    if (stream->hcm->config->flush_access_log_on_new_request) {
        kb_stream_cluster_refresh(stream);
        kb_stream_log_write(stream, "DownstreamStart");
    }
    if (!upgradable) {
        kb_stat_inc(stream->hcm->stats, KB_STAT_HTTP_DOWNSTREAM_RQ_WS_ON_NON_WS_ROUTE);
        if (stream->hcm->h2 != NULL) {
            kb_hcm_drain_start(stream->hcm);
        }
        kb_stream_cluster_refresh(stream);
        kb_stream_send_local_reply(stream, 403, KB_STR_NULL, KB_STR("upgrade_failed"),
                                   route_headers_add, stream);
        return;
    }
    if (KB_UNLIKELY(stream->upgrade_asked)) {
        stream->remote_complete = false;
        end_stream = false;
    }
    stream->decode_ended = end_stream;
    if (KB_UNLIKELY(stream->hcm->config->tracing != NULL)) {
        kb_hcm_trace_request(stream);
    }
    kb_stream_filters_decode_headers(stream, end_stream);
}

void kb_stream_decode_data(struct kb_stream *stream, struct kb_buf *data, bool end_stream)
{
    if (end_stream) {
        remote_completed(stream);
    }
    kb_stream_touch(stream);
    if (stream->ended || stream->local_complete) { /* it is over, but for what is still sent */
        kb_buf_consume(data, data->len);
        return;
    }
    stream->info.bytes_received += data->len;
    if (stream->filter_count == 0) {
        kb_buf_consume(data, data->len);
        return;
    }
    stream->decode_ended = end_stream;
    kb_stream_filters_decode_data(stream, data, end_stream);
}

void kb_stream_decode_trailers(struct kb_stream *stream, struct kb_header_map *trailers)
{
    remote_completed(stream);
    kb_stream_touch(stream);
    if (stream->ended || stream->local_complete || stream->filter_count == 0) {
        return;
    }
    stream->request_trailers = trailers;
    stream->decode_ended = true;
    kb_stream_filters_decode_trailers(stream);
}
