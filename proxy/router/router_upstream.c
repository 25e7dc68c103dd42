/* SPDX-License-Identifier: Apache-2.0 */
/* The upstream half of the router filter: attempts, retries, the answer on its way back, failures
 * and timeouts. */
#include "proxy/api/runtime.h"
#include "proxy/router/attempt_record.h"
#include "proxy/router/hedging.h"
#include "proxy/router/internal_redirect.h"
#include "proxy/router/shadow.h"

/* ---- attempts ---- */

void kb_router_attempt_start(struct kb_router *router)
{
    struct kb_host *host;

    router->info->attempt_count = router->attempts;
    host = kb_router_host_choose(router);
    if (host == NULL) {
        kb_hedging_end(router);
        kb_router_reply_no_host(router);
        return;
    }
    kb_upstream_request_start(router, host);
}

static void attempt_dispose(struct kb_router *router)
{
    struct kb_upstream_request *upstream = router->upstream;

    if (upstream != NULL) {
        router->upstream = NULL;
        kb_upstream_request_cancel(upstream);
        kb_upstream_request_dispose(upstream);
    }
}

static void retry_resource_give(struct kb_router *router)
{
    if (router->retry.retrying) {
        router->retry.retrying = false;
        kb_resource_give(router->cluster, router->route->priority, KB_RESOURCE_RETRIES);
    }
}

/* Before the next decision: the room of the attempt that just ended is free again, yet the state
 * still knows that it was a retry. */
static void retry_resource_lend(struct kb_router *router)
{
    if (router->retry.retrying) {
        kb_resource_give(router->cluster, router->route->priority, KB_RESOURCE_RETRIES);
    }
}

static void retry_counts_add(struct kb_router *router, unsigned counts)
{
    struct kb_stat_block *stats = router->cluster->stats;

    if (KB_LIKELY(counts == 0)) {
        return;
    }
    kb_router_count_retries(router, counts);
    if (counts & KB_RETRY_COUNT_RETRY) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_RETRY);
    }
    if (counts & KB_RETRY_COUNT_SUCCESS) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_RETRY_SUCCESS);
    }
    if (counts & KB_RETRY_COUNT_LIMIT_EXCEEDED) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_RETRY_LIMIT_EXCEEDED);
    }
    if (counts & KB_RETRY_COUNT_OVERFLOW) {
        kb_stat_inc(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_RETRY_OVERFLOW);
    }
}

static struct kb_retry_gate retry_gate(struct kb_router *router)
{
    const struct kb_runtime *runtime = router->config->server->runtime;

    return (struct kb_retry_gate){
        .room = kb_resource_can(router->cluster, router->route->priority, KB_RESOURCE_RETRIES),
        .enabled = kb_runtime_feature_enabled(runtime, KB_STR("upstream.use_retry"), 100, 100,
                                              kb_rand_u64(&router->worker->rand)),
        .wall_s = kb_loop_wall_ns(&router->worker->loop) / 1000000000,
    };
}

/* Acts on a decision; true when another attempt will follow. */
static bool retry_apply(struct kb_router *router, enum kb_retry_status status, unsigned counts)
{
    bool rate_limited = false;
    uint64_t delay_ms;

    retry_counts_add(router, counts);
    switch (status) {
    case KB_RETRY_NO:
        return false;
    case KB_RETRY_LIMIT_EXCEEDED:
        kb_stream_info_set_flag(router->info, KB_RF_UPSTREAM_RETRY_LIMIT_EXCEEDED);
        return false;
    case KB_RETRY_OVERFLOW:
        kb_stream_info_set_flag(router->info, KB_RF_UPSTREAM_OVERFLOW);
        return false;
    case KB_RETRY_YES:
        break;
    }
    kb_resource_force(router->cluster, router->route->priority, KB_RESOURCE_RETRIES);
    delay_ms = kb_retry_delay_ms(&router->retry, kb_rand_u64(&router->worker->rand), &rate_limited);
    kb_stat_inc(router->cluster->stats,
                rate_limited ? KB_STAT_CLUSTER_UPSTREAM_RQ_RETRY_BACKOFF_RATELIMITED
                             : KB_STAT_CLUSTER_UPSTREAM_RQ_RETRY_BACKOFF_EXPONENTIAL);
    kb_loop_timer_arm(&router->worker->loop, &router->retry_timer, delay_ms);
    return true;
}

/* The byte counts of all attempts are added up; why one could not connect is forgotten. */
static void attempt_remember(struct kb_router *router)
{
    struct kb_upstream_info *earlier = KB_ARENA_NEW(router->arena, struct kb_upstream_info);

    *earlier = router->info->upstream;
    router->earlier = earlier;
    router->info->upstream.transport_failure_reason = KB_STR_NULL;
}

void kb_router_retry_timer_fired(struct kb_timer *timer)
{
    struct kb_router *router = KB_CONTAINER_OF(timer, struct kb_router, retry_timer);

    KB_ASSERT(router->kb_magic == (uint32_t)KB_MAGIC_kb_router);
    router->attempts++;
    attempt_remember(router);
    if (router->route->include_attempt_count_request) {
        kb_router_number_header_set(router, KB_HDR_X_ENVOY_ATTEMPT_COUNT, router->attempts);
    }
    if (router->route->include_is_timeout_retry) {
        kb_header_map_set_id(router->request, KB_HDR_X_ENVOY_IS_TIMEOUT_RETRY,
                             router->timeout_retry ? KB_STR("true") : KB_STR("false"));
    }
    router->timeout_retry = false;
    kb_router_expected_timeout_set(router);
    kb_router_attempt_start(router);
}

/* ---- answers of the upstream ---- */

void kb_router_on_1xx(struct kb_router *router, struct kb_header_map *headers)
{
    kb_router_charge_code(router, headers->status, headers, router->upstream, false);
    /* This attempt is the one: what a second one would say cannot follow on it. */
    router->informed = true;
    router->retry_enabled = false;
    retry_resource_give(router);
    if (KB_UNLIKELY(kb_hedging_others(router))) {
        kb_hedging_end(router);
    }
    kb_stream_encode_1xx(router->stream, headers);
}

/* An answer that would have been retried: of no interest while others may be better. */
static bool left_to_others(struct kb_router *router)
{
    if (KB_LIKELY(!kb_hedging_others(router))) {
        return false;
    }
    kb_host_stat_add(router->upstream->host_local, KB_HOST_RQ_ERROR, 1);
    attempt_dispose(router);
    return true;
}

/* True when the answer is not passed on because another attempt follows, or goes on. */
static bool headers_retried(struct kb_router *router, const struct kb_header_map *headers)
{
    struct kb_retry_gate gate;
    enum kb_retry_status status;
    unsigned counts = 0;

    if (KB_LIKELY(!router->retry_enabled)) {
        return false;
    }
    if (KB_UNLIKELY(router->upstream->retried)) {
        return kb_retry_would_retry_headers(&router->retry, headers) && left_to_others(router);
    }
    retry_resource_lend(router);
    gate = retry_gate(router);
    status = kb_retry_should_retry_headers(&router->retry, headers, &gate, &counts);
    if (!retry_apply(router, status, counts)) {
        return status != KB_RETRY_NO && left_to_others(router);
    }
    kb_router_charge_code(router, headers->status, headers, router->upstream, true);
    attempt_dispose(router);
    return true;
}

/* A WebSocket client was answered neither with an agreement nor with an error: it gets the head
 * alone. */
static bool handshake_refused(struct kb_router *router, const struct kb_header_map *headers)
{
    unsigned status = headers->status;
    struct kb_str name = kb_header_map_value_id(router->request, KB_HDR_UPGRADE);

    if (router->info->upstream.protocol == KB_PROTOCOL_HTTP2 || status == 101 || status >= 400 ||
        !kb_str_ieq(name, KB_STR("websocket"))) {
        return false;
    }
    kb_router_reply_handshake(router, headers);
    attempt_dispose(router);
    return true;
}

static void service_time_set(struct kb_router *router, struct kb_header_map *headers)
{
    uint64_t ms;
    char *text;

    if (router->config->suppress_envoy_headers || router->request_complete_ns == 0) {
        return;
    }
    ms = (kb_loop_now_ns(&router->worker->loop) - router->request_complete_ns) / 1000000;
    text = kb_arena_alloc(router->arena, 20, 1);
    kb_header_map_set_id(headers, KB_HDR_X_ENVOY_UPSTREAM_SERVICE_TIME,
                         kb_str_make(text, kb_u64_to_str(ms, text)));
}

/* The last byte of the answer came. */
static void response_completed(struct kb_router *router)
{
    router->response_complete = true;
    router->done = true;
    kb_loop_timer_cancel(&router->worker->loop, &router->response_timer);
    if (KB_UNLIKELY(router->upstream->record != NULL)) {
        kb_attempt_budget_count(router);
    }
    kb_router_charge_time(router);
}

/* Counts for the host what the head, or the trailers, of the answer say. */
static void success_count(struct kb_router *router, const struct kb_header_map *headers,
                          bool end_stream)
{
    struct kb_upstream_request *upstream = router->upstream;
    bool grpc = kb_stream_is_grpc(router->stream);
    unsigned code;

    if (KB_UNLIKELY(grpc && !end_stream)) {
        upstream->grpc_success_deferred = true;
        return;
    }
    code = KB_UNLIKELY(grpc) ? kb_router_grpc_code(headers) : 200;
    kb_host_stat_add(upstream->host_local,
                     code != 0 && code < 500 ? KB_HOST_RQ_SUCCESS : KB_HOST_RQ_ERROR, 1);
}

/* Outlier detection hears of an attempt without an answer. */
static void failure_report(const struct kb_router *router, enum kb_outlier_result result,
                           unsigned code)
{
    if (router->upstream != NULL) {
        kb_host_put_result(router->upstream->host_local, result, code);
    }
}

void kb_router_on_headers(struct kb_router *router, struct kb_header_map *headers, bool end_stream)
{
    struct kb_upstream_request *upstream = router->upstream;

    if (KB_UNLIKELY(upstream->host->watched)) {
        kb_router_report_answer(router, headers);
    }
    if (headers_retried(router, headers)) {
        return;
    }
    if (KB_UNLIKELY(router->upgrade)) {
        if (handshake_refused(router, headers)) {
            return;
        }
        if (!router->request_complete) {
            kb_loop_timer_cancel(&router->worker->loop, &router->response_timer);
        }
    }
    if (KB_UNLIKELY(router->redirect_enabled) && kb_internal_redirect(router, headers)) {
        return;
    }
    kb_loop_timer_cancel(&router->worker->loop, &router->retry_timer);
    if (KB_UNLIKELY(router->slow != NULL)) {
        kb_hedging_end(router);
    }
    if (headers->status < 500) {
        success_count(router, headers, end_stream);
    }
    kb_router_charge_code(router, headers->status, headers, upstream, false);
    kb_header_map_remove_id(headers, KB_HDR_KEEP_ALIVE); /* one that is added here stays */
    service_time_set(router, headers);
    if (KB_UNLIKELY(router->cookies != NULL)) {
        kb_router_cookies_set(router, headers);
    }
    router->info->response_code = headers->status;
    router->info->response_code_details = KB_STR("via_upstream");
    kb_route_finalize_response(router->route, router->choice, router->request, headers,
                               router->info);
    kb_router_attempt_count_header(router, headers);
    router->response_started = true;
    if (router->watermark_stopped && upstream->encoder != NULL) {
        kb_request_encoder_read_disable(upstream->encoder, true);
    }
    if (end_stream) {
        response_completed(router);
    }
    kb_stream_encode_headers(router->stream, headers, end_stream);
}

void kb_router_on_data(struct kb_router *router, struct kb_buf *data, bool end_stream)
{
    if (end_stream) {
        if (KB_UNLIKELY(router->upstream->grpc_success_deferred)) {
            kb_host_stat_add(router->upstream->host_local, KB_HOST_RQ_ERROR, 1);
        }
        response_completed(router);
    }
    kb_stream_encode_data(router->stream, data, end_stream);
}

void kb_router_on_trailers(struct kb_router *router, struct kb_header_map *trailers)
{
    if (KB_UNLIKELY(router->upstream->grpc_success_deferred)) {
        success_count(router, trailers, true);
    }
    response_completed(router);
    kb_stream_encode_trailers(router->stream, trailers);
}

/* ---- failures ---- */

enum kb_response_flag kb_router_reset_flag(enum kb_reset_reason reason)
{
    switch (reason) {
    case KB_RESET_LOCAL_CONNECTION_FAILURE:
    case KB_RESET_REMOTE_CONNECTION_FAILURE:
    case KB_RESET_CONNECTION_TIMEOUT:
        return KB_RF_UPSTREAM_CONNECTION_FAILURE;
    case KB_RESET_CONNECTION_TERMINATION:
        return KB_RF_UPSTREAM_CONNECTION_TERMINATION;
    case KB_RESET_LOCAL_RESET:
    case KB_RESET_LOCAL_REFUSED_STREAM_RESET:
        return KB_RF_LOCAL_RESET;
    case KB_RESET_OVERFLOW:
        return KB_RF_UPSTREAM_OVERFLOW;
    case KB_RESET_PROTOCOL_ERROR:
        return KB_RF_UPSTREAM_PROTOCOL_ERROR;
    case KB_RESET_OVERLOAD_MANAGER:
        return KB_RF_OVERLOAD_MANAGER_TERMINATED;
    case KB_RESET_REMOTE_RESET:
    case KB_RESET_REMOTE_REFUSED_STREAM_RESET:
    case KB_RESET_CONNECT_ERROR:
    case KB_RESET_HTTP1_PREMATURE_UPSTREAM_HALF_CLOSE:
    case KB_RESET_COUNT:
        break;
    }
    return KB_RF_UPSTREAM_REMOTE_RESET;
}

/* Details have no spaces: "connection_termination". */
static struct kb_str details_text(struct kb_router *router, const char *prefix,
                                  enum kb_reset_reason reason, struct kb_str transport_failure)
{
    struct kb_str text = kb_str_printf(
        router->arena, "%s{%.*s%s%.*s}", prefix, KB_STR_ARG(kb_reset_reason_text(reason)),
        transport_failure.len > 0 ? "|" : "", KB_STR_ARG(transport_failure));

    for (size_t i = 0; i < text.len; i++) {
        if (text.p[i] == ' ') {
            ((char *)(uintptr_t)text.p)[i] = '_';
        }
    }
    return text;
}

/* The attempt failed for good: an answer of our own, or the end of the one that was begun. */
static void abort_with(struct kb_router *router, unsigned status, struct kb_str body,
                       struct kb_str details, bool overloaded)
{
    router->done = true;
    kb_loop_timer_cancel(&router->worker->loop, &router->response_timer);
    kb_loop_timer_cancel(&router->worker->loop, &router->retry_timer);
    kb_hedging_end(router);
    if (router->response_started) {
        router->info->response_code_details = details;
        attempt_dispose(router);
        kb_stream_reset(router->stream);
        return;
    }
    attempt_dispose(router);
    kb_router_reply(router, status, body, details, overloaded);
}

/* For the statistics and the log: a 1xx head is a beginning, too. */
static bool answer_begun(const struct kb_router *router)
{
    return router->response_started || router->informed;
}

static void abort_charge(struct kb_router *router, unsigned status)
{
    struct kb_upstream_request *upstream = router->upstream;

    if (answer_begun(router)) {
        /* Whether a gRPC request succeeded is not known before its trailers. */
        if (upstream != NULL && upstream->grpc_success_deferred) {
            kb_host_stat_add(upstream->host_local, KB_HOST_RQ_ERROR, 1);
            kb_stat_inc(kb_stream_http_stats(router->stream),
                        KB_STAT_HTTP_RQ_RESET_AFTER_DOWNSTREAM_RESPONSE_STARTED);
        }
        return;
    }
    kb_router_charge_code(router, status, NULL, upstream, false);
    if (upstream != NULL && status < 500) {
        kb_host_stat_add(upstream->host_local, KB_HOST_RQ_ERROR, 1);
    }
}

static bool reset_retried(struct kb_router *router, enum kb_reset_reason reason)
{
    struct kb_upstream_request *upstream = router->upstream;
    struct kb_retry_gate gate;
    enum kb_retry_status status;
    unsigned counts = 0;

    if (router->response_started || !router->retry_enabled ||
        (upstream != NULL && upstream->retried)) {
        return false;
    }
    retry_resource_lend(router);
    gate = retry_gate(router);
    status = kb_retry_should_retry_reset(
        &router->retry, reason, upstream != NULL && upstream->headers_sent, &gate, &counts);
    if (!retry_apply(router, status, counts)) {
        return false;
    }
    if (upstream != NULL) {
        kb_host_stat_add(upstream->host_local, KB_HOST_RQ_ERROR, 1);
    }
    attempt_dispose(router);
    return true;
}

void kb_router_on_reset(struct kb_router *router, enum kb_reset_reason reason,
                        struct kb_str transport_failure)
{
    bool dropped = reason == KB_RESET_OVERFLOW;
    unsigned status = reason == KB_RESET_PROTOCOL_ERROR ? 502 : 503;
    struct kb_str body;

    if (router->done) {
        return;
    }
    if (transport_failure.len > 0) {
        router->info->upstream.transport_failure_reason =
            kb_str_dup(router->arena, transport_failure);
    }
    if (!dropped) {
        failure_report(router, KB_OUTLIER_CONNECT_FAILED, 0);
    }
    if (reset_retried(router, reason)) {
        return;
    }
    abort_charge(router, status);
    if (KB_UNLIKELY(kb_hedging_others(router))) {
        attempt_dispose(router);
        return;
    }
    kb_stream_info_set_flag(router->info, kb_router_reset_flag(reason));
    body = kb_str_printf(
        router->arena,
        "upstream connect error or disconnect/reset before headers. %sreset reason: %.*s",
        router->attempts > 1 ? "retried and the latest " : "",
        KB_STR_ARG(kb_reset_reason_text(reason)));
    abort_with(router, status, body,
               details_text(router,
                            answer_begun(router) ? "upstream_reset_after_response_started"
                                                 : "upstream_reset_before_response_started",
                            reason, transport_failure),
               dropped);
}

static void timeout_count(struct kb_router *router)
{
    kb_stat_inc(router->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_TIMEOUT);
    kb_router_count_vhost(router, KB_STAT_VIRTUAL_CLUSTER_UPSTREAM_RQ_TIMEOUT);
    if (router->upstream != NULL) {
        kb_host_stat_add(router->upstream->host_local, KB_HOST_RQ_TIMEOUT, 1);
        if (!answer_begun(router) && !router->upstream->timeout_reported) {
            failure_report(router, KB_OUTLIER_TIMEOUT, router->timeout_status);
        }
        if (KB_UNLIKELY(router->upstream->record != NULL)) {
            router->upstream->record->no_budget = !router->upstream->response_started;
        }
        abort_charge(router, router->timeout_status);
    } else if (!answer_begun(router)) {
        kb_router_charge_code(router, router->timeout_status, NULL, NULL, false);
    }
}

void kb_router_response_timer_fired(struct kb_timer *timer)
{
    struct kb_router *router = KB_CONTAINER_OF(timer, struct kb_router, response_timer);

    KB_ASSERT(router->kb_magic == (uint32_t)KB_MAGIC_kb_router);
    if (router->upstream == NULL) {
        (void)kb_hedging_next(router);
    }
    timeout_count(router);
    while (KB_UNLIKELY(router->slow != NULL)) {
        attempt_dispose(router);
        (void)kb_hedging_next(router);
        timeout_count(router);
    }
    kb_stream_info_set_flag(router->info, KB_RF_UPSTREAM_REQUEST_TIMEOUT);
    kb_attempt_budget_count(router);
    abort_with(router, router->timeout_status,
               router->timeout_status == 204 ? KB_STR_NULL : KB_STR("upstream request timeout"),
               KB_STR("response_timeout"), false);
}

/* With hedging: the attempt goes on, and if a retry is left, another one follows. */
static void soft_timeout(struct kb_router *router)
{
    enum kb_retry_status status;
    struct kb_retry_gate gate;
    unsigned counts = 0;

    failure_report(router, KB_OUTLIER_TIMEOUT, router->timeout_status);
    router->upstream->timeout_reported = true;
    if (router->response_started || !router->retry_enabled) {
        return;
    }
    retry_resource_lend(router);
    gate = retry_gate(router);
    status = kb_retry_should_hedge(&router->retry, &gate, &counts);
    if (retry_apply(router, status, counts)) {
        kb_hedging_follow(router);
    }
}

void kb_router_on_per_try_timeout(struct kb_router *router, bool idle)
{
    if (KB_UNLIKELY(router->hedging)) {
        soft_timeout(router);
        return;
    }
    kb_stat_inc(router->cluster->stats, idle ? KB_STAT_CLUSTER_UPSTREAM_RQ_PER_TRY_IDLE_TIMEOUT
                                             : KB_STAT_CLUSTER_UPSTREAM_RQ_PER_TRY_TIMEOUT);
    kb_host_stat_add(router->upstream->host_local, KB_HOST_RQ_TIMEOUT, 1);
    failure_report(router, KB_OUTLIER_TIMEOUT, router->timeout_status);
    router->timeout_retry = true;
    if (reset_retried(router, KB_RESET_LOCAL_RESET)) {
        return;
    }
    abort_charge(router, router->timeout_status);
    kb_stream_info_set_flag(router->info, KB_RF_UPSTREAM_REQUEST_TIMEOUT);
    kb_attempt_budget_count(router);
    abort_with(router, router->timeout_status,
               router->timeout_status == 204 ? KB_STR_NULL : KB_STR("upstream request timeout"),
               idle ? KB_STR("upstream_per_try_idle_timeout") : KB_STR("upstream_per_try_timeout"),
               false);
}

void kb_router_on_max_duration(struct kb_router *router)
{
    kb_stat_inc(router->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_MAX_DURATION_REACHED);
    if (reset_retried(router, KB_RESET_LOCAL_RESET)) {
        return;
    }
    kb_stream_info_set_flag(router->info, KB_RF_UPSTREAM_MAX_STREAM_DURATION_REACHED);
    abort_with(router, kb_stream_request_complete(router->stream) ? 504 : 408,
               KB_STR("upstream max stream duration reached"),
               KB_STR("upstream_max_stream_duration_reached"), false);
}

/* ---- back-pressure and end ---- */

void kb_router_on_above_high(void *filter)
{
    struct kb_router *router = KB_CAST(filter, kb_router);

    if (router->watermark_stopped) {
        return;
    }
    router->watermark_stopped = true;
    if (router->response_started && router->upstream != NULL && router->upstream->encoder != NULL) {
        kb_stat_inc(router->cluster->stats,
                    KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
        kb_request_encoder_read_disable(router->upstream->encoder, true);
    }
}

void kb_router_on_below_low(void *filter)
{
    struct kb_router *router = KB_CAST(filter, kb_router);

    if (!router->watermark_stopped) {
        return;
    }
    router->watermark_stopped = false;
    if (router->response_started && router->upstream != NULL && router->upstream->encoder != NULL) {
        kb_stat_inc(router->cluster->stats,
                    KB_STAT_CLUSTER_UPSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
        kb_request_encoder_read_disable(router->upstream->encoder, false);
    }
}

void kb_router_on_destroy(void *filter)
{
    struct kb_router *router = KB_CAST(filter, kb_router);
    struct kb_loop *loop = &router->worker->loop;

    router->done = true;
    kb_loop_timer_cancel(loop, &router->response_timer);
    kb_loop_timer_cancel(loop, &router->retry_timer);
    if (KB_UNLIKELY(router->slow != NULL)) {
        kb_hedging_end(router);
    }
    attempt_dispose(router);
    if (KB_UNLIKELY(router->shadows != NULL)) {
        kb_shadows_release(router);
    }
    kb_buf_dispose(&router->retry_body);
    kb_slice_unref(router->head_slice);
    if (router->last_host != NULL) {
        kb_host_local_unref(router->last_host);
    }
    if (router->cluster != NULL) {
        retry_resource_give(router);
        kb_cluster_local_unref(router->cluster);
    }
    KB_OBJ_CLEAR(router);
}
