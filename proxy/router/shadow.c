/* SPDX-License-Identifier: Apache-2.0 */
/* One request to a mirror cluster: own arena, own timeout, no retries. It ends with its answer, its
 * timeout, its connection, its worker, or with a stream that did not finish its request. */
#include "proxy/router/shadow.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/api/runtime.h"
#include "proxy/http/header_mutation_list.h"

struct kb_shadow {
    KB_OBJ;
    struct kb_list link;      /* of all of the worker */
    struct kb_shadow *next;   /* of the same stream */
    struct kb_router *router; /* the rest of the request comes from there; NULL: all of it came */
    struct kb_worker *worker;
    struct kb_arena arena; /* holds this struct too */
    struct kb_header_map request;
    struct kb_header_map *trailers;
    struct kb_cluster_local *cluster; /* holds a reference */
    struct kb_host *host;
    struct kb_host_local *host_local;   /* holds a reference */
    struct kb_request_encoder *encoder; /* NULL: no connection yet, or any more */
    struct kb_pool_waiter *waiter;
    struct kb_buf pending; /* body that came before the connection */
    struct kb_timer timer;
    struct kb_deferred destroy;
    uint64_t timeout_ms;
    uint64_t complete_ns; /* the whole request came; 0: not yet */
    bool count_codes;
    bool done;
    bool answered; /* headers of the answer came */
    bool stopped;  /* reading of the request is stopped because of us */
    bool paused;   /* an upgrade: bytes wait in `pending` until the mirror agrees */
    bool refused;  /* it did not */
};
KB_OBJ_MAGIC(kb_shadow, 0x53484457);

static struct kb_loop *loop_of(struct kb_shadow *shadow)
{
    return &shadow->worker->loop;
}

/* ---- per worker ---- */

static void list_dispose(struct kb_worker *worker)
{
    free(worker->slots[KB_SLOT_SHADOWS]);
    worker->slots[KB_SLOT_SHADOWS] = NULL;
}

static struct kb_list *list_get(struct kb_worker *worker)
{
    struct kb_list *list = worker->slots[KB_SLOT_SHADOWS];

    if (list == NULL) {
        list = kb_calloc(1, sizeof(*list));
        kb_list_init(list);
        worker->slots[KB_SLOT_SHADOWS] = list;
        worker->slot_dispose[KB_SLOT_SHADOWS] = list_dispose;
    }
    return list;
}

/* ---- end ---- */

static void stop_source(struct kb_shadow *shadow, bool stop)
{
    if (shadow->router != NULL && shadow->stopped != stop) {
        shadow->stopped = stop;
        kb_stream_read_disable(shadow->router->stream, stop);
    }
}

static void destroy_deferred(struct kb_deferred *deferred)
{
    struct kb_shadow *shadow = KB_CONTAINER_OF(deferred, struct kb_shadow, destroy);
    struct kb_arena arena = shadow->arena;

    KB_ASSERT(shadow->kb_magic == (uint32_t)KB_MAGIC_kb_shadow);
    kb_list_unlink(&shadow->link);
    kb_buf_dispose(&shadow->pending);
    if (shadow->host_local != NULL) {
        kb_host_local_unref(shadow->host_local);
    }
    kb_cluster_local_unref(shadow->cluster);
    KB_OBJ_CLEAR(shadow);
    kb_arena_dispose(&arena);
}

static void destroy_check(struct kb_shadow *shadow)
{
    if (shadow->done && shadow->router == NULL) {
        kb_loop_defer(loop_of(shadow), &shadow->destroy);
    }
}

/* No event comes any more; what still comes of the request is dropped. */
static void finish(struct kb_shadow *shadow)
{
    shadow->done = true;
    shadow->encoder = NULL;
    kb_loop_timer_cancel(loop_of(shadow), &shadow->timer);
    kb_buf_dispose(&shadow->pending);
    stop_source(shadow, false);
    destroy_check(shadow);
}

static void cancel(struct kb_shadow *shadow)
{
    struct kb_request_encoder *encoder = shadow->encoder;

    if (shadow->done) {
        return;
    }
    if (shadow->waiter != NULL) {
        kb_pool_cancel(shadow->waiter);
        shadow->waiter = NULL;
    }
    shadow->encoder = NULL;
    if (encoder != NULL) {
        kb_request_encoder_reset(encoder);
    }
    finish(shadow);
}

static void detach(struct kb_shadow *shadow)
{
    stop_source(shadow, false);
    shadow->router = NULL;
    destroy_check(shadow);
}

/* ---- statistics ---- */

static void code_count(struct kb_shadow *shadow, unsigned status)
{
    struct kb_stat_block *stats = shadow->cluster->stats;

    if (shadow->count_codes) {
        kb_stat_code_inc(stats, KB_STAT_CODE_PLAIN, status);
        kb_stat_code_inc(stats, KB_STAT_CODE_INTERNAL, status);
        if (shadow->host != NULL && shadow->host->canary) {
            kb_stat_code_inc(stats, KB_STAT_CODE_CANARY, status);
        }
        if (shadow->host != NULL && shadow->host->zone_variant != 0) {
            kb_stat_code_inc(stats, shadow->host->zone_variant, status);
        }
    }
    if (shadow->host_local != NULL && status >= 500) {
        kb_host_stat_add(shadow->host_local, KB_HOST_RQ_ERROR, 1);
    }
}

static void time_count(struct kb_shadow *shadow)
{
    struct kb_stat_block *stats = shadow->cluster->stats;
    uint64_t ms;

    if (!shadow->count_codes || shadow->complete_ns == 0) {
        return;
    }
    ms = (kb_loop_now_ns(loop_of(shadow)) - shadow->complete_ns) / 1000000;
    kb_stat_record(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_TIME, ms);
    kb_stat_code_time(stats, KB_STAT_CODE_INTERNAL, ms);
    if (shadow->host->zone_variant != 0) {
        kb_stat_code_time(stats, shadow->host->zone_variant, ms);
    }
}

/* ---- answer ---- */

static void answer_ended(struct kb_shadow *shadow)
{
    time_count(shadow);
    finish(shadow);
}

static void on_1xx(void *owner, struct kb_header_map *headers)
{
    (void)owner;
    (void)headers;
}

/* As for the request itself (RFC 6455 section 4.1); in Envoy such an answer counts for nothing. */
static bool handshake_refused(struct kb_shadow *shadow, const struct kb_header_map *headers)
{
    unsigned status = headers->status;
    struct kb_upstream_info info = {0};

    if (KB_LIKELY(kb_header_map_get_id(&shadow->request, KB_HDR_UPGRADE) == NULL) ||
        status == 101 || status >= 400 ||
        !kb_str_ieq(kb_header_map_value_id(&shadow->request, KB_HDR_UPGRADE),
                    KB_STR("websocket"))) {
        return false;
    }
    kb_request_encoder_info(shadow->encoder, &info);
    return info.protocol != KB_PROTOCOL_HTTP2;
}

/* The answer to a request to upgrade came: what waited for it is sent, or is for nobody, as it
 * could be taken for a further request. */
static void pause_end(struct kb_shadow *shadow, bool agreed)
{
    bool ended = shadow->complete_ns > 0;

    shadow->paused = false;
    shadow->refused = !agreed;
    stop_source(shadow, false);
    if (!agreed) {
        kb_buf_dispose(&shadow->pending);
    } else if (shadow->pending.len > 0 || ended) {
        kb_request_encoder_data(shadow->encoder, &shadow->pending, ended);
    }
}

static void on_headers(void *owner, struct kb_header_map *headers, bool end_stream)
{
    struct kb_shadow *shadow = KB_CAST(owner, kb_shadow);

    if (handshake_refused(shadow, headers)) {
        cancel(shadow);
        return;
    }
    if (KB_UNLIKELY(shadow->paused)) {
        pause_end(shadow, headers->status == 101);
    }
    shadow->answered = true;
    kb_host_put_code(shadow->host_local, headers->status);
    if (headers->status < 500) {
        kb_host_stat_add(shadow->host_local, KB_HOST_RQ_SUCCESS, 1);
    }
    code_count(shadow, headers->status);
    if (end_stream) {
        answer_ended(shadow);
    }
}

static void on_data(void *owner, struct kb_buf *data, bool end_stream)
{
    kb_buf_consume(data, data->len);
    if (end_stream) {
        answer_ended(KB_CAST(owner, kb_shadow));
    }
}

static void on_trailers(void *owner, struct kb_header_map *trailers)
{
    (void)trailers;
    answer_ended(KB_CAST(owner, kb_shadow));
}

static void on_reset(void *owner, enum kb_reset_reason reason, struct kb_str transport_failure)
{
    struct kb_shadow *shadow = KB_CAST(owner, kb_shadow);

    (void)transport_failure;
    if (reason != KB_RESET_OVERFLOW && shadow->host_local != NULL) {
        kb_host_put_result(shadow->host_local, KB_OUTLIER_CONNECT_FAILED, 0);
    }
    code_count(shadow, reason == KB_RESET_PROTOCOL_ERROR ? 502 : 503);
    finish(shadow);
}

static void on_above_high(void *owner)
{
    stop_source(KB_CAST(owner, kb_shadow), true);
}

static void on_below_low(void *owner)
{
    stop_source(KB_CAST(owner, kb_shadow), false);
}

static const struct kb_response_decoder_ops decoder_ops = {
    .on_1xx = on_1xx,
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_reset = on_reset,
    .on_above_high = on_above_high,
    .on_below_low = on_below_low,
};

static void timer_fired(struct kb_timer *timer)
{
    struct kb_shadow *shadow = KB_CONTAINER_OF(timer, struct kb_shadow, timer);

    KB_ASSERT(shadow->kb_magic == (uint32_t)KB_MAGIC_kb_shadow);
    kb_stat_inc(shadow->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_RQ_TIMEOUT);
    kb_host_stat_add(shadow->host_local, KB_HOST_RQ_TIMEOUT, 1);
    if (!shadow->answered) {
        kb_host_put_result(shadow->host_local, KB_OUTLIER_TIMEOUT, 504);
    }
    code_count(shadow, 504);
    cancel(shadow);
}

/* ---- request ---- */

static void request_completed(struct kb_shadow *shadow)
{
    shadow->complete_ns = kb_loop_now_ns(loop_of(shadow));
    if (shadow->timeout_ms > 0 && !shadow->done) {
        kb_loop_timer_arm(loop_of(shadow), &shadow->timer, shadow->timeout_ms);
    }
}

static void on_ready(void *owner, struct kb_request_encoder *encoder, struct kb_host *host)
{
    struct kb_shadow *shadow = KB_CAST(owner, kb_shadow);
    bool ended = shadow->complete_ns > 0 && shadow->trailers == NULL;
    bool body = shadow->pending.len > 0;

    (void)host;
    kb_host_put_result(shadow->host_local, KB_OUTLIER_CONNECT_SUCCESS, 0);
    shadow->waiter = NULL;
    shadow->encoder = encoder;
    if (KB_UNLIKELY(kb_header_map_get_id(&shadow->request, KB_HDR_UPGRADE) != NULL)) {
        shadow->paused = true;
        kb_request_encoder_headers(encoder, &shadow->request, false);
        return;
    }
    /* Before anything is sent: the connection may stop the client again at once. */
    stop_source(shadow, false);
    kb_request_encoder_headers(encoder, &shadow->request, ended && !body);
    if (body) {
        kb_request_encoder_data(encoder, &shadow->pending, ended);
    }
    if (shadow->trailers != NULL) {
        kb_request_encoder_trailers(encoder, shadow->trailers);
    }
}

static void on_failure(void *owner, enum kb_reset_reason reason, struct kb_str text,
                       struct kb_host *host)
{
    struct kb_shadow *shadow = KB_CAST(owner, kb_shadow);

    (void)host;
    shadow->waiter = NULL;
    on_reset(shadow, reason, text);
}

static const struct kb_pool_callbacks pool_callbacks = {
    .on_ready = on_ready,
    .on_failure = on_failure,
};

/* "h.test:81" to "h.test-shadow:81". */
static struct kb_str host_with_suffix(struct kb_arena *arena, struct kb_str host)
{
    ptrdiff_t colon = kb_str_rfind_char(host, ':');
    ptrdiff_t bracket = kb_str_rfind_char(host, ']');
    size_t len = colon > bracket ? (size_t)colon : host.len;

    return kb_str_printf(arena, "%.*s-shadow%.*s", KB_STR_ARG(kb_str_first(host, len)),
                         KB_STR_ARG(kb_str_from(host, len)));
}

/* All strings are copied: the stream and its configuration may go first. */
static void headers_copy(struct kb_header_map *to, const struct kb_header_map *from,
                         struct kb_arena *arena)
{
    kb_header_map_init(to, arena);
    to->method = kb_str_dup(arena, from->method);
    to->path = from->path.p != NULL ? kb_str_dup(arena, from->path) : KB_STR_NULL;
    to->authority = from->authority.p != NULL ? kb_str_dup(arena, from->authority) : KB_STR_NULL;
    to->scheme = from->scheme.p != NULL ? kb_str_dup(arena, from->scheme) : KB_STR_NULL;
    memcpy(to->pseudo_order, from->pseudo_order, sizeof(to->pseudo_order));
    KB_HEADER_FOREACH(header, from)
    {
        struct kb_str value = kb_str_dup(arena, header->value);

        if (header->id != KB_HDR_NONE) {
            kb_header_map_add_id(to, (enum kb_header_id)header->id, value);
        } else {
            kb_header_map_add(to, kb_str_dup(arena, header->name), value);
        }
    }
}

/* Names and values that mutations took from the configuration, likewise. */
static void texts_own(struct kb_header_map *map, struct kb_arena *arena)
{
    KB_HEADER_FOREACH(header, map)
    {
        if (header->id == KB_HDR_NONE) {
            header->name = kb_str_dup(arena, header->name);
        }
        header->value = kb_str_dup(arena, header->value);
    }
}

static void headers_make(struct kb_shadow *shadow, const struct kb_mirror_policy *policy)
{
    struct kb_header_map *map = &shadow->request;
    struct kb_str local_ip = kb_stream_local_ip(shadow->router->stream);
    struct kb_str xff;
    char *number;

    headers_copy(map, shadow->router->request, &shadow->arena);
    if (policy->mutations != NULL) {
        const struct kb_formatter_input input = {.request = map};

        kb_header_mutation_list_apply(policy->mutations, map, &input, shadow->router->info);
        texts_own(map, &shadow->arena);
    }
    if (policy->host_rewrite.len > 0) {
        map->authority = kb_str_dup(&shadow->arena, policy->host_rewrite);
    } else if (!policy->disable_host_suffix) {
        map->authority = host_with_suffix(&shadow->arena, map->authority);
    }
    kb_header_map_set_id(map, KB_HDR_X_ENVOY_INTERNAL, KB_STR("true"));
    xff = kb_header_map_value_id(map, KB_HDR_X_FORWARDED_FOR);
    kb_header_map_set_id(map, KB_HDR_X_FORWARDED_FOR,
                         kb_str_printf(&shadow->arena, "%.*s%s%.*s", KB_STR_ARG(xff),
                                       xff.len > 0 ? "," : "", KB_STR_ARG(local_ip)));
    if (shadow->timeout_ms > 0 && !shadow->router->config->suppress_envoy_headers) {
        number = kb_arena_alloc(&shadow->arena, 20, 1);
        kb_header_map_set_id(map, KB_HDR_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
                             kb_str_make(number, kb_u64_to_str(shadow->timeout_ms, number)));
    }
}

static struct kb_shadow *shadow_create(struct kb_router *router,
                                       const struct kb_mirror_policy *policy,
                                       struct kb_cluster_local *cluster)
{
    struct kb_arena arena;
    struct kb_shadow *shadow;

    kb_arena_init(&arena, &router->worker->arena_blocks);
    shadow = KB_ARENA_NEW(&arena, struct kb_shadow);
    KB_OBJ_SET(shadow, kb_shadow);
    shadow->arena = arena;
    shadow->router = router;
    shadow->worker = router->worker;
    shadow->cluster = cluster;
    shadow->timeout_ms = router->timeout_ms;
    shadow->count_codes = router->config->dynamic_stats;
    kb_list_push_back(list_get(router->worker), &shadow->link);
    kb_cluster_local_ref(cluster);
    kb_buf_init(&shadow->pending, &router->worker->slices, kb_stream_buffer_limit(router->stream));
    kb_timer_init(&shadow->timer, timer_fired);
    kb_deferred_init(&shadow->destroy, destroy_deferred);
    headers_make(shadow, policy);
    return shadow;
}

static struct kb_cluster_local *cluster_of(struct kb_router *router,
                                           const struct kb_mirror_policy *policy)
{
    struct kb_str name;

    if (policy->slot != UINT32_MAX) {
        return kb_cluster_local_get(router->worker, policy->slot);
    }
    name = kb_header_map_value(router->request, policy->cluster_header);
    return name.len > 0 ? kb_cluster_local_find(router->worker, name) : NULL;
}

/* Looks for a host and asks its pool; without a host the copy ends at once. */
static void shadow_start(struct kb_shadow *shadow)
{
    struct kb_lb_request lb = {.headers = &shadow->request, .info = shadow->router->info};

    shadow->host = kb_cluster_local_choose_host(shadow->cluster, &lb);
    if (shadow->host == NULL) {
        kb_stat_inc(shadow->cluster->stats, KB_STAT_CLUSTER_UPSTREAM_CX_NONE_HEALTHY);
        code_count(shadow, 503);
        finish(shadow);
        return;
    }
    shadow->host_local = kb_host_local_get(shadow->host, shadow->worker->index);
    kb_host_local_ref(shadow->host_local);
    kb_pool_new_stream(shadow->cluster, shadow->host, KB_POOL_HTTP, KB_PRIORITY_DEFAULT, NULL,
                       &shadow->arena, &pool_callbacks, &decoder_ops, shadow, &shadow->waiter);
}

/* ---- for the router ---- */

void kb_shadows_start(struct kb_router *router, bool end_stream)
{
    const struct kb_route_policies *policies = router->route->policies;
    const struct kb_runtime *runtime = router->config->server->runtime;
    struct kb_shadow **last = &router->shadows;

    for (size_t i = 0; i < policies->mirror_count; i++) {
        const struct kb_mirror_policy *policy = &policies->mirrors[i];
        struct kb_cluster_local *cluster;
        struct kb_shadow *shadow;

        if (!kb_runtime_feature_enabled(runtime, policy->runtime_key, policy->numerator,
                                        policy->denominator, kb_rand_u64(&router->worker->rand))) {
            continue;
        }
        cluster = cluster_of(router, policy);
        if (cluster == NULL) {
            continue;
        }
        shadow = shadow_create(router, policy, cluster);
        if (end_stream) {
            request_completed(shadow);
        }
        shadow_start(shadow);
        if (end_stream) {
            detach(shadow);
        } else {
            *last = shadow;
            last = &shadow->next;
        }
    }
}

static void all_detach(struct kb_router *router)
{
    struct kb_shadow *next;

    for (struct kb_shadow *shadow = router->shadows; shadow != NULL; shadow = next) {
        next = shadow->next;
        detach(shadow);
    }
    router->shadows = NULL;
}

static void data_pass(struct kb_shadow *shadow, const struct kb_buf *data, bool end_stream)
{
    struct kb_buf copy;

    if (KB_UNLIKELY(shadow->refused)) {
        return;
    }
    kb_buf_init(&copy, &shadow->worker->slices, 0);
    for (struct kb_segment *s = data->first; s != NULL; s = s->next) {
        kb_buf_append_slice(&copy, s->slice, s->from, s->to - s->from);
    }
    if (end_stream) {
        request_completed(shadow);
    }
    if (shadow->encoder != NULL && !shadow->paused) {
        kb_request_encoder_data(shadow->encoder, &copy, end_stream);
        return;
    }
    kb_buf_move(&shadow->pending, &copy);
    if (kb_buf_above_high(&shadow->pending)) {
        stop_source(shadow, true);
    }
}

void kb_shadows_data(struct kb_router *router, const struct kb_buf *data, bool end_stream)
{
    for (struct kb_shadow *shadow = router->shadows; shadow != NULL; shadow = shadow->next) {
        if (!shadow->done) {
            data_pass(shadow, data, end_stream);
        }
    }
    if (end_stream) {
        all_detach(router);
    }
}

void kb_shadows_trailers(struct kb_router *router, const struct kb_header_map *trailers)
{
    for (struct kb_shadow *shadow = router->shadows; shadow != NULL; shadow = shadow->next) {
        if (shadow->done) {
            continue;
        }
        shadow->trailers = KB_ARENA_NEW(&shadow->arena, struct kb_header_map);
        headers_copy(shadow->trailers, trailers, &shadow->arena);
        request_completed(shadow);
        if (shadow->encoder != NULL) {
            kb_request_encoder_trailers(shadow->encoder, shadow->trailers);
        }
    }
    all_detach(router);
}

void kb_shadows_release(struct kb_router *router)
{
    for (struct kb_shadow *shadow = router->shadows; shadow != NULL; shadow = shadow->next) {
        cancel(shadow);
    }
    all_detach(router);
}

void kb_shadows_worker_close(struct kb_worker *worker)
{
    struct kb_list *list = worker->slots[KB_SLOT_SHADOWS];

    if (list == NULL) {
        return;
    }
    KB_LIST_FOREACH (link, list) {
        cancel(KB_LIST_ENTRY(link, struct kb_shadow, link));
    }
}
