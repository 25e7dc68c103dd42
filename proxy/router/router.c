/* SPDX-License-Identifier: Apache-2.0 */
/* The router filter: chooses cluster and host, forwards the request, retries, and passes the answer
 * back (Envoy Router::Filter). */
#include "proxy/router/router.h"
#include "proxy/api/cluster_policies.h"

#include <stdio.h>

#include "proxy/api/overload.h"
#include "proxy/api/runtime.h"
#include "proxy/router/hedging.h"
#include "proxy/router/shadow.h"

static void request_completed(struct kb_router *router);

static void *router_create(void *config, struct kb_stream *stream)
{
    struct kb_router *router = KB_ARENA_NEW(kb_stream_arena(stream), struct kb_router);

    KB_OBJ_SET(router, kb_router);
    router->config = KB_CAST(config, kb_router_config);
    router->stream = stream;
    router->worker = kb_stream_worker(stream);
    router->arena = kb_stream_arena(stream);
    router->info = kb_stream_stream_info(stream);
    kb_buf_init(&router->retry_body, &router->worker->slices, 0);
    kb_timer_init(&router->retry_timer, kb_router_retry_timer_fired);
    kb_timer_init(&router->response_timer, kb_router_response_timer_fired);
    return router;
}

/* ---- answers of our own ---- */

void kb_router_attempt_count_header(struct kb_router *router, struct kb_header_map *headers)
{
    char *text;

    if (router->route == NULL || !router->route->include_attempt_count_response ||
        router->attempts == 0) {
        return;
    }
    text = kb_arena_alloc(router->arena, 20, 1);
    kb_header_map_set_id(headers, KB_HDR_X_ENVOY_ATTEMPT_COUNT,
                         kb_str_make(text, kb_u64_to_str(router->attempts, text)));
}

static void reply_modify(void *arg, struct kb_header_map *headers)
{
    struct kb_router *router = KB_CAST(arg, kb_router);

    kb_route_finalize_response(router->route, router->choice, router->request, headers,
                               router->info);
    kb_router_attempt_count_header(router, headers);
}

static void reply_modify_overloaded(void *arg, struct kb_header_map *headers)
{
    struct kb_router *router = KB_CAST(arg, kb_router);

    reply_modify(arg, headers);
    if (!router->config->suppress_envoy_headers) {
        kb_header_map_add_id(headers, KB_HDR_X_ENVOY_OVERLOADED, KB_STR("true"));
    }
}

void kb_router_reply(struct kb_router *router, unsigned status, struct kb_str body,
                     struct kb_str details, bool overloaded)
{
    router->done = true;
    kb_stream_send_local_reply(router->stream, status, body, details,
                               overloaded ? reply_modify_overloaded : reply_modify, router);
}

struct handshake_reply {
    struct kb_router *router;
    const struct kb_header_map *answer;
};

static void handshake_modify(void *arg, struct kb_header_map *headers)
{
    struct handshake_reply *reply = arg;
    struct kb_arena *arena = reply->router->arena;

    reply_modify(reply->router, headers);
    KB_HEADER_FOREACH(h, reply->answer)
    {
        kb_header_map_append_id(headers, h->id, kb_str_dup(arena, h->name),
                                kb_str_dup(arena, h->value));
    }
}

void kb_router_reply_handshake(struct kb_router *router, const struct kb_header_map *answer)
{
    struct handshake_reply reply = {router, answer};

    router->done = true;
    kb_stream_send_local_reply(router->stream, answer->status, KB_STR_NULL,
                               KB_STR("websocket_handshake_unsuccessful"), handshake_modify,
                               &reply);
}

struct direct_reply {
    struct kb_router *router;
    struct kb_str location;
    struct kb_str content_type; /* of body_format; empty: the usual one */
};

static void direct_modify(void *arg, struct kb_header_map *headers)
{
    struct direct_reply *direct = arg;

    if (direct->location.len > 0) {
        kb_header_map_add_id(headers, KB_HDR_LOCATION, direct->location);
    }
    kb_route_finalize_response(direct->router->route, NULL, direct->router->request, headers,
                               direct->router->info);
    if (direct->content_type.len > 0) {
        kb_header_map_set_id(headers, KB_HDR_CONTENT_TYPE, direct->content_type);
    }
}

static void reply_direct(struct kb_router *router)
{
    struct direct_reply direct = {router, KB_STR_NULL, KB_STR_NULL};
    struct kb_stat_block *stats = kb_stream_http_stats(router->stream);
    struct kb_str body = KB_STR_NULL;
    unsigned status;

    kb_stat_inc(stats, KB_STAT_HTTP_RQ_DIRECT_RESPONSE);
    kb_route_rewrite_path_for_redirect(router->route, router->request,
                                       router->config->suppress_envoy_headers);
    if (router->route->kind == KB_ROUTE_REDIRECT) {
        status = kb_route_redirect(router->route, router->request, router->info, &direct.location);
    } else {
        status = kb_route_direct_response(router->route, router->request, &body, &direct.location);
        body = kb_route_direct_body(router->route, router->request, router->info,
                                    &direct.content_type);
    }
    router->done = true;
    kb_stream_send_local_reply(router->stream, status, body, KB_STR("direct_response"),
                               direct_modify, &direct);
}

static void reply_no_route(struct kb_router *router)
{
    kb_stat_inc(kb_stream_http_stats(router->stream), KB_STAT_HTTP_NO_ROUTE);
    kb_stream_info_set_flag(router->info, KB_RF_NO_ROUTE_FOUND);
    router->done = true;
    kb_stream_send_local_reply(router->stream, 404, KB_STR_NULL, KB_STR("route_not_found"), NULL,
                               NULL);
}

static void reply_no_cluster(struct kb_router *router)
{
    kb_stat_inc(kb_stream_http_stats(router->stream), KB_STAT_HTTP_NO_CLUSTER);
    kb_stream_info_set_flag(router->info, KB_RF_NO_CLUSTER_FOUND);
    kb_router_reply(router, router->route->cluster_not_found_status, KB_STR_NULL,
                    KB_STR("cluster_not_found"), false);
}

void kb_router_reply_no_host(struct kb_router *router)
{
    kb_stream_info_set_flag(router->info, KB_RF_NO_HEALTHY_UPSTREAM);
    kb_stat_inc(router->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_CX_NONE_HEALTHY);
    kb_router_charge_code(router, 503, NULL, NULL, false);
    kb_router_reply(router, 503, KB_STR("no healthy upstream"), KB_STR("no_healthy_upstream"),
                    false);
}

/* ---- request ---- */

static uint64_t header_ms(const struct kb_header_map *map, enum kb_header_id id, uint64_t absent)
{
    struct kb_str value = kb_header_map_value_id(map, id);
    uint64_t ms;

    return value.p != NULL && kb_router_number(value, &ms) == 0 ? ms : absent;
}

void kb_router_number_header_set(struct kb_router *router, enum kb_header_id id, uint64_t v)
{
    char *text = kb_arena_alloc(router->arena, 20, 1);

    kb_header_map_set_id(router->request, id, kb_str_make(text, kb_u64_to_str(v, text)));
}

/* The route's own timeout: max_stream_duration replaces it, max_grpc_timeout lets the client
 * choose. */
static uint64_t route_timeout(const struct kb_router *router)
{
    const struct kb_route *route = router->route;
    struct kb_str asked = kb_header_map_value_id(router->request, KB_HDR_GRPC_TIMEOUT);
    uint64_t ms = 0;

    if (route->new_timeouts) {
        return 0;
    }
    if (route->policies == NULL || !route->policies->max_grpc_timeout_set ||
        !kb_stream_is_grpc(router->stream)) {
        return route->timeout_ms;
    }
    if (asked.p != NULL && kb_grpc_timeout_parse(asked) != UINT64_MAX) {
        ms = kb_grpc_timeout_parse(asked);
    }
    if (route->policies->grpc_timeout_offset_ms > 0 &&
        ms > route->policies->grpc_timeout_offset_ms) {
        ms -= route->policies->grpc_timeout_offset_ms;
    }
    if (route->policies->max_grpc_timeout_ms > 0 &&
        (ms == 0 || ms > route->policies->max_grpc_timeout_ms)) {
        ms = route->policies->max_grpc_timeout_ms;
    }
    return ms;
}

/* Timeouts from route and headers (Envoy FilterUtility::finalTimeout). */
static void timeouts_choose(struct kb_router *router)
{
    struct kb_header_map *map = router->request;
    const struct kb_retry_policy *retry = router->route->retry;

    router->timeout_ms = route_timeout(router);
    router->per_try_timeout_ms = retry != NULL ? retry->per_try_timeout_ms : 0;
    router->per_try_idle_timeout_ms = retry != NULL ? retry->per_try_idle_timeout_ms : 0;
    if (router->config->respect_expected_rq_timeout) {
        router->timeout_ms =
            header_ms(map, KB_HDR_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, router->timeout_ms);
    }
    router->timeout_ms = header_ms(map, KB_HDR_X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS, router->timeout_ms);
    kb_header_map_remove_id(map, KB_HDR_X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS);
    router->max_duration_ms = header_ms(map, KB_HDR_X_ENVOY_UPSTREAM_STREAM_DURATION_MS,
                                        router->cluster->cluster->max_stream_duration_ms);
    kb_header_map_remove_id(map, KB_HDR_X_ENVOY_UPSTREAM_STREAM_DURATION_MS);
    router->per_try_timeout_ms =
        header_ms(map, KB_HDR_X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS, router->per_try_timeout_ms);
    kb_header_map_remove_id(map, KB_HDR_X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS);
    if (router->timeout_ms != 0 && router->per_try_timeout_ms >= router->timeout_ms) {
        router->per_try_timeout_ms = 0;
    }
    router->timeout_status =
        kb_header_map_get_id(map, KB_HDR_X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE) != NULL ? 204
                                                                                           : 504;
    kb_header_map_remove_id(map, KB_HDR_X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE);
    kb_header_map_remove_id(map, KB_HDR_X_ENVOY_UPSTREAM_ALT_STAT_NAME);
}

static const struct kb_retry_policy *retry_policy_of(const struct kb_router *router)
{
    const struct kb_cluster_policies *policies = router->cluster->cluster->policies;

    return KB_UNLIKELY(policies != NULL && policies->retry != NULL) ? policies->retry
                                                                    : router->route->retry;
}

/* What is left for this attempt, told to the upstream. */
void kb_router_expected_timeout_set(struct kb_router *router)
{
    uint64_t elapsed_ms = 0;
    /* One that hedges may take as long as all of them. */
    uint64_t expected_ms = router->hedging ? 0 : router->per_try_timeout_ms;

    if (router->request_complete_ns > 0) {
        elapsed_ms =
            (kb_loop_now_ns(&router->worker->loop) - router->request_complete_ns) / 1000000;
    }
    if (router->timeout_ms > 0) {
        uint64_t left_ms = router->timeout_ms > elapsed_ms ? router->timeout_ms - elapsed_ms : 1;

        expected_ms = expected_ms == 0 ? left_ms : KB_MIN(expected_ms, left_ms);
    }
    if (expected_ms == 0) {
        return;
    }
    if (!router->config->suppress_envoy_headers) {
        kb_router_number_header_set(router, KB_HDR_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, expected_ms);
    }
    if (KB_UNLIKELY(router->route->policies != NULL) &&
        router->route->policies->max_grpc_timeout_set && !router->route->new_timeouts) {
        kb_stream_grpc_timeout_set(router->stream, expected_ms);
    }
}

/* Looks up the cluster that the route names; false when the stream was answered. */
static bool cluster_find(struct kb_router *router)
{
    struct kb_str name = KB_STR_NULL;
    uint32_t slot = UINT32_MAX;
    uint64_t random = kb_route_cluster_random(router->route, router->request, router->info,
                                              kb_stream_route_random(router->stream));
    struct kb_cluster_local *cluster = NULL;

    if (kb_route_choose_cluster(router->route, router->request, random, &slot, &name,
                                &router->choice) == 0) {
        cluster = slot != UINT32_MAX ? kb_cluster_local_get(router->worker, slot)
                                     : kb_cluster_local_find(router->worker, name);
    }
    if (cluster == NULL) {
        reply_no_cluster(router);
        return false;
    }
    kb_cluster_local_ref(cluster);
    router->cluster = cluster;
    router->info->upstream_cluster_name = cluster->cluster->observability_name;
    router->info->upstream.cluster = cluster->cluster;
    return true;
}

/* strict_check_headers; true when the stream was answered. */
static KB_COLD bool header_refused(struct kb_router *router)
{
    struct kb_str name, value;

    if (!kb_router_header_invalid(router, &name, &value)) {
        return false;
    }
    kb_stream_info_set_flag(router->info, KB_RF_INVALID_ENVOY_REQUEST_HEADERS);
    kb_router_reply(
        router, 400,
        kb_str_printf(router->arena, "invalid header '%.*s' with value '%.*s'", KB_STR_ARG(name),
                      KB_STR_ARG(value)),
        kb_str_printf(router->arena, "request_headers_failed_strict_check{%.*s}", KB_STR_ARG(name)),
        false);
    return true;
}

/* Runtime upstream.maintenance_mode.<cluster>; true when the stream was answered. */
static bool maintenance(struct kb_router *router)
{
    const struct kb_runtime *runtime = router->config->server->runtime;
    char key[256];
    int n;

    if (KB_LIKELY(!kb_runtime_may_have(runtime, KB_STR("upstream.maintenance_mode")))) {
        return false;
    }
    n = snprintf(key, sizeof(key), "upstream.maintenance_mode.%.*s",
                 KB_STR_ARG(router->cluster->cluster->name));
    if (n <= 0 || (size_t)n >= sizeof(key) ||
        !kb_runtime_feature_enabled(runtime, kb_str_make(key, (size_t)n), 0, 100,
                                    kb_rand_u64(&router->worker->rand))) {
        return false;
    }
    kb_stream_info_set_flag(router->info, KB_RF_UPSTREAM_OVERFLOW);
    kb_router_charge_code(router, 503, NULL, NULL, false);
    kb_stat_inc(router->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_MAINTENANCE_MODE);
    kb_router_reply(router, 503, KB_STR("maintenance mode"), KB_STR("maintenance_mode"), true);
    return true;
}

static void reply_modify_dropped(void *arg, struct kb_header_map *headers)
{
    const struct kb_router *router = KB_CAST(arg, kb_router);
    bool all = router->cluster->drop_overload_ppm == 1000000;

    reply_modify(arg, headers);
    if (!router->config->suppress_envoy_headers) {
        kb_header_map_add_id(headers,
                             all ? KB_HDR_X_ENVOY_UNCONDITIONAL_DROP_OVERLOAD
                                 : KB_HDR_X_ENVOY_DROP_OVERLOAD,
                             KB_STR("true"));
    }
}

/* policy.drop_overloads of the cluster's endpoints; true when the stream was answered. */
static bool overload_dropped(struct kb_router *router)
{
    uint32_t ppm = router->cluster->drop_overload_ppm;
    bool all = ppm == 1000000;

    if (KB_LIKELY(ppm == 0) || kb_rand_u64(&router->worker->rand) % 1000000 >= ppm) {
        return false;
    }
    kb_stream_info_set_flag(router->info,
                            all ? KB_RF_UNCONDITIONAL_DROP_OVERLOAD : KB_RF_DROP_OVERLOAD);
    kb_router_charge_code(router, 503, NULL, NULL, false);
    router->done = true;
    kb_stream_send_local_reply(
        router->stream, 503, all ? KB_STR("unconditional drop overload") : KB_STR("drop overload"),
        all ? KB_STR("unconditional_drop_overload") : KB_STR("drop_overload"), reply_modify_dropped,
        router);
    return true;
}

/* The overload manager does not want the request; true when the stream was answered. */
static bool shed(struct kb_router *router)
{
    if (!kb_overload_shed(&router->config->server->overload, KB_OVERLOAD_SHED_HTTP_FILTER_CHECK,
                          router->worker)) {
        return false;
    }
    kb_stat_inc(kb_stream_http_stats(router->stream), KB_STAT_HTTP_RQ_OVERLOAD_LOCAL_REPLY);
    router->done = true;
    kb_stream_send_local_reply(router->stream, 503, KB_STR("envoy overloaded"), KB_STR("overload"),
                               NULL, NULL);
    return true;
}

/* connect_config: CONNECT, and POST where allowed, ends here; its bytes go on as TCP. */
static bool connect_ends_here(const struct kb_router *router)
{
    const struct kb_route_upgrade *upgrade = router->route->upgrades;

    for (; upgrade->name.len > 0; upgrade++) {
        if (upgrade->connect) {
            return router->connect ||
                   (upgrade->allow_post && kb_str_eq(router->request->method, KB_STR("POST")));
        }
    }
    return false;
}

/* The route's timeout holds for the answer to a WebSocket handshake, whose request has no end. */
static void handshake_timeout_arm(struct kb_router *router)
{
    if (router->timeout_ms > 0 &&
        kb_str_ieq(kb_header_map_value_id(router->request, KB_HDR_UPGRADE), KB_STR("websocket"))) {
        kb_loop_timer_arm(&router->worker->loop, &router->response_timer, router->timeout_ms);
    }
}

static enum kb_filter_headers_status
router_decode_headers(void *filter, struct kb_header_map *headers, bool end_stream)
{
    struct kb_router *router = KB_CAST(filter, kb_router);

    router->request = headers;
    router->route = kb_stream_route(router->stream);
    kb_stat_inc(kb_stream_http_stats(router->stream), KB_STAT_HTTP_RQ_TOTAL);
    if (router->route == NULL) {
        reply_no_route(router);
        return KB_FILTER_HEADERS_STOP_ITERATION;
    }
    if (router->route->kind == KB_ROUTE_REDIRECT ||
        router->route->kind == KB_ROUTE_DIRECT_RESPONSE) {
        reply_direct(router);
        return KB_FILTER_HEADERS_STOP_ITERATION;
    }
    if (!cluster_find(router) ||
        (KB_UNLIKELY(router->config->strict_check_count > 0) && header_refused(router)) ||
        maintenance(router) || overload_dropped(router)) {
        return KB_FILTER_HEADERS_STOP_ITERATION;
    }
    router->internal = router->info->internal;
    kb_router_stats_choose(router);
    timeouts_choose(router);
    if (KB_UNLIKELY(router->per_try_timeout_ms > 0 || router->per_try_idle_timeout_ms > 0)) {
        kb_hedging_choose(router);
    }
    router->connect = kb_stream_is_connect(router->stream);
    router->upgrade = router->connect || kb_header_map_asks_upgrade(headers);
    if (KB_UNLIKELY(router->upgrade)) {
        kb_stream_connect_port_restore(router->stream);
    }
    if (KB_UNLIKELY(router->route->upgrades != NULL) && connect_ends_here(router)) {
        router->pool_kind = KB_POOL_TCP;
    }
    if (KB_UNLIKELY(router->info->protocol == KB_PROTOCOL_HTTP2) &&
        router->pool_kind == KB_POOL_HTTP &&
        router->cluster->cluster->http_protocol == KB_CLUSTER_HTTP_DOWNSTREAM) {
        router->pool_kind = KB_POOL_HTTP2;
    }
    router->redirect_enabled =
        router->route->policies != NULL && router->route->policies->internal_redirect != NULL;
    kb_router_expected_timeout_set(router);
    router->attempts = 1;
    router->info->attempt_count = 1;
    if (router->route->include_attempt_count_request) {
        kb_header_map_set_id(headers, KB_HDR_X_ENVOY_ATTEMPT_COUNT, KB_STR("1"));
    }
    kb_route_finalize_request(router->route, router->choice, headers, router->info,
                              router->config->suppress_envoy_headers);
    router->retry_enabled =
        kb_retry_state_init(&router->retry, retry_policy_of(router), headers,
                            kb_runtime_get_u64(router->config->server->runtime,
                                               KB_STR("upstream.base_retry_backoff_ms"), 25));
    if (KB_UNLIKELY(router->info->connection->scheme_match_upstream)) {
        headers->scheme =
            kb_transport_socket_factory_secure(&router->cluster->cluster->transport_socket)
                ? KB_STR("https")
                : KB_STR("http");
    }
    if (KB_UNLIKELY(kb_overload_any(&router->config->server->overload)) && shed(router)) {
        return KB_FILTER_HEADERS_STOP_ITERATION;
    }
    router->request_complete = end_stream;
    router->head_only = end_stream;
    kb_router_attempt_start(router);
    if (KB_UNLIKELY(router->route->policies != NULL) && !router->done &&
        !(router->upgrade && kb_str_eq(headers->method, KB_STR("CONNECT")))) {
        kb_shadows_start(router, end_stream);
    }
    if (end_stream && !router->done) {
        request_completed(router);
    } else if (KB_UNLIKELY(router->upgrade) && !router->done) {
        handshake_timeout_arm(router);
    }
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

/* The whole request came: the response timeout starts (Envoy Filter::onRequestComplete). */
static void request_completed(struct kb_router *router)
{
    router->request_complete = true;
    router->request_complete_ns = kb_loop_now_ns(&router->worker->loop);
    if (router->timeout_ms > 0 && !router->done) {
        kb_loop_timer_arm(&router->worker->loop, &router->response_timer, router->timeout_ms);
    }
}

/* Keeps the body for another attempt while it is small enough. */
static void retry_body_keep(struct kb_router *router, struct kb_buf *data)
{
    uint64_t limit = router->route->request_body_buffer_limit != UINT64_MAX
                         ? router->route->request_body_buffer_limit
                         : kb_stream_buffer_limit(router->stream);

    if ((!router->retry_enabled && !router->redirect_enabled) || router->abandoned) {
        return;
    }
    if (limit > 0 && router->retry_body.len + data->len > limit) {
        kb_stat_inc(router->cluster->stats, KB_STAT_CLUSTER_RETRY_OR_SHADOW_ABANDONED);
        router->retry_enabled = false;
        router->abandoned = true;
        kb_buf_dispose(&router->retry_body);
        return;
    }
    for (struct kb_segment *s = data->first; s != NULL; s = s->next) {
        kb_buf_append_slice(&router->retry_body, s->slice, s->from, s->to - s->from);
    }
}

static enum kb_filter_data_status router_decode_data(void *filter, struct kb_buf *data,
                                                     bool end_stream)
{
    struct kb_router *router = KB_CAST(filter, kb_router);

    if (router->done || router->cluster == NULL) {
        kb_buf_consume(data, data->len);
        return KB_FILTER_DATA_STOP_NO_BUFFER;
    }
    if (end_stream) {
        request_completed(router);
    }
    retry_body_keep(router, data);
    if (KB_UNLIKELY(router->shadows != NULL)) {
        kb_shadows_data(router, data, end_stream);
    }
    if (router->upstream != NULL) {
        kb_upstream_request_data(router->upstream, data, end_stream);
    } else if (router->abandoned) {
        kb_loop_timer_cancel(&router->worker->loop, &router->retry_timer);
        kb_router_reply(router, 507,
                        KB_STR("exceeded request buffer limit while retrying upstream"),
                        KB_STR("request_payload_exceeded_retry_buffer_limit"), false);
    }
    return KB_FILTER_DATA_STOP_NO_BUFFER;
}

static enum kb_filter_trailers_status router_decode_trailers(void *filter,
                                                             struct kb_header_map *trailers)
{
    struct kb_router *router = KB_CAST(filter, kb_router);

    router->request_trailers = trailers;
    if (!router->done && router->cluster != NULL) {
        request_completed(router);
        if (KB_UNLIKELY(router->shadows != NULL)) {
            kb_shadows_trailers(router, trailers);
        }
        if (router->upstream != NULL) {
            kb_upstream_request_trailers(router->upstream);
        }
    }
    return KB_FILTER_TRAILERS_STOP;
}

/* It is not kept for another attempt, as in Envoy. */
static void router_decode_metadata(void *filter, struct kb_buf *block)
{
    struct kb_router *router = KB_CAST(filter, kb_router);

    if (!router->done && router->cluster != NULL && router->upstream != NULL) {
        kb_upstream_request_metadata(router->upstream, block);
    }
}

/* The log of a stream that ends before its attempt does shows what was carried until then. */
static void router_on_stream_complete(void *filter)
{
    struct kb_router *router = KB_CAST(filter, kb_router);

    if (KB_UNLIKELY(router->upstream != NULL)) {
        kb_upstream_request_info(router->upstream);
    }
}

static size_t router_bytes_held(const void *filter)
{
    const struct kb_router *router = filter;

    return router->retry_body.len +
           (router->upstream != NULL ? kb_upstream_request_held(router->upstream) : 0) +
           kb_hedging_held(router);
}

const struct kb_http_filter_ops kb_ext_http_router = {
    .name = "envoy.filters.http.router",
    .type_url = "envoy.extensions.filters.http.router.v3.Router",
    .terminal = true,
    .config_create = kb_router_config_create,
    .config_destroy = kb_router_config_destroy,
    .create = router_create,
    .decode_headers = router_decode_headers,
    .decode_data = router_decode_data,
    .decode_trailers = router_decode_trailers,
    .decode_metadata = router_decode_metadata,
    .on_stream_complete = router_on_stream_complete,
    .on_destroy = kb_router_on_destroy,
    .on_above_high = kb_router_on_above_high,
    .on_below_low = kb_router_on_below_low,
    .bytes_held = router_bytes_held,
};
