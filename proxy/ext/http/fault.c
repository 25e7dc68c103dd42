/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.fault: delays and aborts requests and paces answers, for tests of what depends
 * on them. A route's settings take the place of the filter's. */
#include "proxy/ext/http/fault.h"

#include "google/protobuf/struct.pb-c.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/route.h"
#include "proxy/api/stats.h"

#define HEADER(name) KB_STR("x-envoy-fault-" name)

struct fault_filter {
    const struct kb_fault_settings *config;   /* of the chain */
    const struct kb_fault_settings *settings; /* in force */
    struct kb_stream *stream;
    struct kb_stat_block *stats;
    struct kb_timer delay_timer;
    struct kb_str downstream_cluster;
    struct kb_fault_limiter *limiter; /* NULL: none */
    bool active;                      /* counted among the active faults */
};

static void delay_timer_fired(struct kb_timer *timer);

static void *fault_create(void *arg, struct kb_stream *stream)
{
    struct fault_filter *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct fault_filter);

    filter->config = KB_CAST(arg, kb_fault_settings);
    filter->stream = stream;
    kb_timer_init(&filter->delay_timer, delay_timer_fired);
    return filter;
}

/* ---- how much of what ---- */

static bool number_read(const struct kb_header_map *headers, struct kb_str name, uint64_t *number)
{
    struct kb_str value = kb_header_map_value(headers, name);

    return value.p != NULL && kb_str_to_u64(kb_str_trim(value), number) == 0;
}

/* Of a fault that headers control: they may ask for less. */
static struct kb_fault_percent percent_by_header(struct kb_fault_percent percent,
                                                 enum kb_fault_source source,
                                                 const struct kb_header_map *headers,
                                                 struct kb_str name)
{
    uint64_t asked;

    if (source == KB_FAULT_HEADER && number_read(headers, name, &asked) && asked <= UINT32_MAX) {
        percent.numerator = KB_MIN(percent.numerator, (uint32_t)asked);
    }
    return percent;
}

/* "fault.http.<downstream cluster>.<rest>", or empty. */
static struct kb_str cluster_key(const struct fault_filter *filter, const char *rest)
{
    if (filter->downstream_cluster.p == NULL ||
        !kb_runtime_may_have(filter->settings->runtime, KB_STR("fault.http"))) {
        return KB_STR("");
    }
    return kb_str_printf(kb_stream_arena(filter->stream), "fault.http.%.*s.%s",
                         KB_STR_ARG(filter->downstream_cluster), rest);
}

static bool feature(const struct fault_filter *filter, struct kb_str key,
                    struct kb_fault_percent percent)
{
    return kb_runtime_feature_enabled(filter->settings->runtime, key, percent.numerator,
                                      percent.denominator,
                                      kb_rand_u64(&kb_stream_worker(filter->stream)->rand));
}

/* By the filter's key, or by that of the client's cluster. */
static bool enabled(const struct fault_filter *filter, struct kb_str key, const char *rest,
                    struct kb_fault_percent percent)
{
    struct kb_str by_cluster = cluster_key(filter, rest);
    bool holds = feature(filter, key, percent);

    return by_cluster.len > 0 ? feature(filter, by_cluster, percent) || holds : holds;
}

static uint64_t number_by_runtime(const struct fault_filter *filter, struct kb_str key,
                                  const char *rest, uint64_t number)
{
    struct kb_str by_cluster = cluster_key(filter, rest);

    number = kb_runtime_get_u64(filter->settings->runtime, key, number);
    return by_cluster.len > 0 ? kb_runtime_get_u64(filter->settings->runtime, by_cluster, number)
                              : number;
}

/* Counts one fault for all of this request; false when there are too many. */
static bool active_take(struct fault_filter *filter)
{
    const struct kb_fault_settings *settings = filter->settings;
    uint64_t max = kb_runtime_get_u64(settings->runtime, settings->max_active_key,
                                      settings->max_active_faults);

    if (filter->active) {
        return true;
    }
    if (max != UINT64_MAX && filter->stats->cells[KB_STAT_FAULT_ACTIVE_FAULTS] >= max) {
        kb_stat_inc(filter->stats, KB_STAT_FAULT_FAULTS_OVERFLOW);
        return false;
    }
    kb_stat_gauge_add(filter->stats, KB_STAT_FAULT_ACTIVE_FAULTS, 1);
    filter->active = true;
    return true;
}

/* ---- which requests ---- */

static bool cluster_matches(const struct fault_filter *filter, const struct kb_header_map *headers)
{
    const struct kb_route *route = kb_stream_route(filter->stream);
    const void *choice;
    struct kb_str name = KB_STR_NULL;
    uint32_t slot;

    if (filter->settings->upstream_cluster.len == 0) {
        return true;
    }
    return route != NULL &&
           kb_route_choose_cluster(route, headers,
                                   kb_route_cluster_random(route, headers,
                                                           kb_stream_stream_info(filter->stream),
                                                           kb_stream_route_random(filter->stream)),
                                   &slot, &name, &choice) == 0 &&
           kb_str_eq(name, filter->settings->upstream_cluster);
}

static bool node_matches(const struct kb_fault_settings *settings,
                         const struct kb_header_map *headers)
{
    struct kb_str node;

    if (settings->downstream_node_count == 0) {
        return true;
    }
    node = kb_header_map_value(headers, KB_STR("x-envoy-downstream-service-node"));
    for (size_t i = 0; node.p != NULL && i < settings->downstream_node_count; i++) {
        if (kb_str_eq(node, settings->downstream_nodes[i])) {
            return true;
        }
    }
    return false;
}

/* ---- faults ---- */

/* Empty when the settings have none, as in Envoy. */
static void metadata_set(struct fault_filter *filter)
{
    static const Google__Protobuf__Struct nothing = GOOGLE__PROTOBUF__STRUCT__INIT;
    const Google__Protobuf__Struct *metadata = filter->settings->filter_metadata;

    kb_dynamic_metadata_merge(&kb_stream_stream_info(filter->stream)->dynamic_metadata,
                              kb_stream_arena(filter->stream), KB_STR("envoy.filters.http.fault"),
                              metadata != NULL ? metadata : &nothing);
}

static void limit_begin(struct fault_filter *filter, const struct kb_header_map *headers)
{
    const struct kb_fault_settings *settings = filter->settings;
    uint64_t kbps = settings->limit_kbps;

    if (settings->limit == KB_FAULT_NONE ||
        !feature(filter, settings->limit_percent_key,
                 percent_by_header(settings->limit_percent, settings->limit, headers,
                                   HEADER("throughput-response-percentage"))) ||
        (settings->limit == KB_FAULT_HEADER &&
         (!number_read(headers, HEADER("throughput-response"), &kbps) || kbps == 0)) ||
        !active_take(filter)) {
        return;
    }
    kb_stat_inc(filter->stats, KB_STAT_FAULT_RESPONSE_RL_INJECTED);
    filter->limiter = KB_ARENA_NEW(kb_stream_arena(filter->stream), struct kb_fault_limiter);
    kb_fault_limiter_init(filter->limiter, filter->stream, filter, KB_MIN(kbps, UINT32_MAX));
}

/* 0: none. */
static uint64_t delay_ms(struct fault_filter *filter, const struct kb_header_map *headers)
{
    const struct kb_fault_settings *settings = filter->settings;
    uint64_t ms = settings->delay_ms;

    if (settings->delay == KB_FAULT_NONE ||
        !enabled(filter, settings->delay_percent_key, "delay.fixed_delay_percent",
                 percent_by_header(settings->delay_percent, settings->delay, headers,
                                   HEADER("delay-request-percentage")))) {
        return 0;
    }
    if (settings->delay == KB_FAULT_HEADER && !number_read(headers, HEADER("delay-request"), &ms)) {
        return 0;
    }
    return number_by_runtime(filter, settings->delay_ms_key, "delay.fixed_duration_ms", ms);
}

static bool delay_begin(struct fault_filter *filter, const struct kb_header_map *headers)
{
    uint64_t ms = delay_ms(filter, headers);

    if (ms == 0 || !active_take(filter)) {
        return false;
    }
    kb_stat_inc(filter->stats, KB_STAT_FAULT_DELAYS_INJECTED);
    kb_stream_info_set_flag(kb_stream_stream_info(filter->stream), KB_RF_DELAY_INJECTED);
    metadata_set(filter);
    kb_loop_timer_arm(&kb_stream_worker(filter->stream)->loop, &filter->delay_timer, ms);
    return true;
}

/* The HTTP status, and that of gRPC (-1: none); 0: no abort. */
static unsigned abort_status(struct fault_filter *filter, const struct kb_header_map *headers,
                             int *grpc)
{
    const struct kb_fault_settings *settings = filter->settings;
    uint64_t status = settings->abort_status;
    enum kb_fault_source source = settings->abort;

    *grpc = -1;
    if (source == KB_FAULT_NONE ||
        !enabled(filter, settings->abort_percent_key, "abort.abort_percent",
                 percent_by_header(settings->abort_percent, source, headers,
                                   HEADER("abort-request-percentage")))) {
        return 0;
    }
    if (source == KB_FAULT_HEADER) {
        if (number_read(headers, HEADER("abort-request"), &status) && status >= 200 &&
            status < 600) {
            source = KB_FAULT_FIXED;
        } else if (number_read(headers, HEADER("abort-grpc-request"), &status)) {
            source = KB_FAULT_GRPC;
        } else {
            return 0;
        }
    }
    if (source == KB_FAULT_FIXED) {
        status = number_by_runtime(filter, settings->abort_http_key, "abort.http_status", status);
        return status >= 200 && status < 600 ? (unsigned)status : 0;
    }
    status = number_by_runtime(filter, settings->abort_grpc_key, "abort.grpc_status", status);
    *grpc = (int)KB_MIN(status, (uint64_t)UINT16_MAX);
    return 200;
}

/* True when the stream was answered; it may be gone. */
static bool abort_now(struct fault_filter *filter)
{
    struct kb_stream *stream = filter->stream;
    int grpc;
    unsigned status = abort_status(filter, kb_stream_request_headers(stream), &grpc);

    if (status == 0 || !active_take(filter)) {
        return false;
    }
    kb_stat_inc(filter->stats, KB_STAT_FAULT_ABORTS_INJECTED);
    kb_stream_info_set_flag(kb_stream_stream_info(stream), KB_RF_FAULT_INJECTED);
    metadata_set(filter);
    if (grpc >= 0) {
        kb_stream_set_reply_grpc_status(stream, (unsigned)grpc);
    }
    kb_stream_send_filter_reply(stream, status, filter->settings->abort_body,
                                KB_STR("fault_filter_abort"), NULL, NULL);
    return true;
}

static void delay_timer_fired(struct kb_timer *timer)
{
    struct fault_filter *filter = KB_CONTAINER_OF(timer, struct fault_filter, delay_timer);

    if (!abort_now(filter)) {
        kb_stream_continue_decoding(filter->stream, filter);
    }
}

/* ---- the stream ---- */

static enum kb_filter_headers_status fault_decode_headers(void *self, struct kb_header_map *headers,
                                                          bool end_stream)
{
    struct fault_filter *filter = self;
    const struct kb_fault_settings *route = kb_stream_route_config(filter->stream, filter);
    const struct kb_fault_settings *settings = route != NULL ? route : filter->config;

    (void)end_stream;
    if (KB_LIKELY(settings->delay == KB_FAULT_NONE && settings->abort == KB_FAULT_NONE &&
                  settings->limit == KB_FAULT_NONE)) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    filter->settings = settings;
    if (!cluster_matches(filter, headers) || !node_matches(settings, headers) ||
        !kb_header_matchers_all(settings->headers, settings->header_count, headers)) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    filter->stats =
        kb_stat_group_block(filter->config->stats, kb_stream_worker(filter->stream)->index);
    filter->downstream_cluster =
        kb_header_map_value(headers, KB_STR("x-envoy-downstream-service-cluster"));
    limit_begin(filter, headers);
    if (delay_begin(filter, headers) || abort_now(filter)) {
        return KB_FILTER_HEADERS_STOP_ITERATION;
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_data_status fault_decode_data(void *self, struct kb_buf *data,
                                                    bool end_stream)
{
    struct fault_filter *filter = self;

    (void)data;
    (void)end_stream;
    return kb_timer_armed(&filter->delay_timer) ? KB_FILTER_DATA_STOP_AND_WATERMARK
                                                : KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_trailers_status fault_decode_trailers(void *self,
                                                            struct kb_header_map *trailers)
{
    struct fault_filter *filter = self;

    (void)trailers;
    return kb_timer_armed(&filter->delay_timer) ? KB_FILTER_TRAILERS_STOP
                                                : KB_FILTER_TRAILERS_CONTINUE;
}

static enum kb_filter_data_status fault_encode_data(void *self, struct kb_buf *data,
                                                    bool end_stream)
{
    struct fault_filter *filter = self;

    if (filter->limiter == NULL) {
        return KB_FILTER_DATA_CONTINUE;
    }
    kb_fault_limiter_write(filter->limiter, data, end_stream);
    return KB_FILTER_DATA_STOP_NO_BUFFER;
}

static enum kb_filter_trailers_status fault_encode_trailers(void *self,
                                                            struct kb_header_map *trailers)
{
    struct fault_filter *filter = self;

    (void)trailers;
    return filter->limiter != NULL && kb_fault_limiter_trailers(filter->limiter)
               ? KB_FILTER_TRAILERS_STOP
               : KB_FILTER_TRAILERS_CONTINUE;
}

static void fault_on_destroy(void *self)
{
    struct fault_filter *filter = self;

    kb_loop_timer_cancel(&kb_stream_worker(filter->stream)->loop, &filter->delay_timer);
    if (filter->limiter != NULL) {
        kb_fault_limiter_dispose(filter->limiter);
    }
    if (filter->active) {
        kb_stat_gauge_add(filter->stats, KB_STAT_FAULT_ACTIVE_FAULTS, -1);
    }
}

const struct kb_http_filter_ops kb_ext_http_fault = {
    .name = "envoy.filters.http.fault",
    .type_url = "envoy.extensions.filters.http.fault.v3.HTTPFault",
    .config_create = kb_fault_settings_create,
    .config_destroy = kb_fault_settings_destroy,
    .route_config_create = kb_fault_route_settings_create,
    .route_config_destroy = kb_fault_settings_destroy,
    .create = fault_create,
    .decode_headers = fault_decode_headers,
    .decode_data = fault_decode_data,
    .decode_trailers = fault_decode_trailers,
    .encode_data = fault_encode_data,
    .encode_trailers = fault_encode_trailers,
    .on_destroy = fault_on_destroy,
};
