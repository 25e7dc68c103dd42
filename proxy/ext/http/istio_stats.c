/* SPDX-License-Identifier: Apache-2.0 */
/* istio.stats of a HTTP chain: counts every request when it has ended, and the messages of gRPC
 * also while it lasts. */
#include "proxy/ext/common/istio_stats.h"
#include "proxy/api/formatter.h"
#include "proxy/api/http_filter.h"
#include "proxy/ext/common/grpc_counts.h"

struct istio_stats {
    KB_OBJ;
    struct kb_istio_stats_config *config;
    struct kb_stream *stream;
    struct kb_istio_principals upstream; /* of the connection that answered */
    struct kb_timer timer;               /* of gRPC requests */
    uint64_t request_messages;           /* reported so far */
    uint64_t response_messages;
    bool grpc;
};
KB_OBJ_MAGIC(istio_stats, 0x49535448);

static void timer_fired(struct kb_timer *timer);

static void *create(void *config, struct kb_stream *stream)
{
    struct istio_stats *filter =
        kb_arena_alloc(kb_stream_arena(stream), sizeof(*filter), sizeof(void *));

    KB_OBJ_SET(filter, istio_stats);
    filter->config = config;
    filter->stream = stream;
    filter->upstream = (struct kb_istio_principals){0};
    filter->grpc = false;
    return filter;
}

static struct kb_loop *loop_of(const struct istio_stats *filter)
{
    return &kb_stream_worker(filter->stream)->loop;
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct istio_stats *filter = KB_CAST(arg, istio_stats);

    (void)headers;
    (void)end_stream;
    if (KB_UNLIKELY(kb_stream_is_grpc(filter->stream))) {
        filter->grpc = true;
        filter->request_messages = 0;
        filter->response_messages = 0;
        kb_timer_init(&filter->timer, timer_fired);
        if (kb_istio_stats_interval_ms(filter->config) > 0) {
            kb_loop_timer_arm(loop_of(filter), &filter->timer,
                              kb_istio_stats_interval_ms(filter->config));
        }
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

/* The connection to the host is there while its answer comes; later it may be gone. */
static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct istio_stats *filter = KB_CAST(arg, istio_stats);
    const struct kb_stream_info *info = kb_stream_stream_info(filter->stream);

    (void)headers;
    (void)end_stream;
    if (info->upstream.ssl != NULL && kb_istio_stats_reporter(filter->config) == KB_ISTIO_SOURCE &&
        kb_str_eq(info->response_code_details, KB_STR("via_upstream"))) {
        filter->upstream =
            kb_istio_stats_principals(filter->config, kb_stream_worker(filter->stream)->index,
                                      info->upstream.ssl, info->upstream.connection_id);
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static struct kb_istio_subject subject_of(struct istio_stats *filter, enum kb_istio_report report)
{
    const struct kb_stream_info *info = kb_stream_stream_info(filter->stream);
    struct kb_istio_subject subject = {
        .report = report,
        .info = info,
        .upstream_state = info->filter_state,
        .principals = filter->upstream,
        .authority = kb_stream_request_headers(filter->stream)->authority,
        .grpc = filter->grpc,
    };

    if (kb_istio_stats_reporter(filter->config) != KB_ISTIO_SOURCE) {
        subject.principals =
            kb_istio_stats_principals(filter->config, kb_stream_worker(filter->stream)->index,
                                      info->connection->ssl, info->connection->id);
    }
    return subject;
}

static void counter_add(struct kb_stat_named *named, uint32_t worker_index, uint64_t n)
{
    if (KB_LIKELY(named != NULL)) {
        kb_stat_named_add(named, worker_index, (int64_t)n);
    }
}

/* What came and went since the last time, where grpc_stats counts it. */
static void messages_report(struct istio_stats *filter)
{
    uint32_t worker = kb_stream_worker(filter->stream)->index;
    const struct kb_grpc_counts *counts =
        kb_grpc_counts_find(kb_stream_stream_info(filter->stream));
    struct kb_istio_subject subject;
    struct kb_stat_named *const *metrics;

    if (counts == NULL) {
        return;
    }
    subject = subject_of(filter, KB_ISTIO_MESSAGES);
    metrics = kb_istio_stats_metrics(filter->config, worker, &subject);
    counter_add(metrics[KB_ISTIO_REQUEST_MESSAGES], worker,
                counts->request_messages - filter->request_messages);
    counter_add(metrics[KB_ISTIO_RESPONSE_MESSAGES], worker,
                counts->response_messages - filter->response_messages);
    filter->request_messages = counts->request_messages;
    filter->response_messages = counts->response_messages;
}

static void timer_fired(struct kb_timer *timer)
{
    struct istio_stats *filter = KB_CONTAINER_OF(timer, struct istio_stats, timer);
    const struct kb_stream_info *info = kb_stream_stream_info(filter->stream);

    KB_ASSERT(filter->kb_magic == (uint32_t)KB_MAGIC_istio_stats);
    if (kb_istio_peer_known(filter->config, info, info->filter_state)) {
        messages_report(filter);
    }
    kb_loop_timer_arm(loop_of(filter), timer, kb_istio_stats_interval_ms(filter->config));
}

static void grpc_status_read(struct istio_stats *filter, struct kb_istio_subject *subject)
{
    struct kb_formatter_input input = {
        .request = kb_stream_request_headers(filter->stream),
        .response = kb_stream_response_headers(filter->stream),
        .response_trailers = kb_stream_response_trailers(filter->stream),
    };

    subject->has_grpc_status = kb_format_grpc_status(&input, subject->info, &subject->grpc_status);
}

static void on_stream_complete(void *arg)
{
    struct istio_stats *filter = KB_CAST(arg, istio_stats);
    uint32_t worker = kb_stream_worker(filter->stream)->index;
    const struct kb_stream_info *info = kb_stream_stream_info(filter->stream);
    struct kb_istio_subject subject = subject_of(filter, KB_ISTIO_HTTP);
    struct kb_stat_named *const *metrics;

    if (KB_UNLIKELY(filter->grpc)) {
        kb_loop_timer_cancel(loop_of(filter), &filter->timer);
        messages_report(filter);
        grpc_status_read(filter, &subject);
    }
    metrics = kb_istio_stats_metrics(filter->config, worker, &subject);
    counter_add(metrics[KB_ISTIO_REQUESTS_TOTAL], worker, 1);
    counter_add(metrics[KB_ISTIO_REQUEST_DURATION], worker,
                (info->end_ns - info->start_ns) / 1000000);
    counter_add(metrics[KB_ISTIO_REQUEST_BYTES], worker, info->wire_bytes_received);
    counter_add(metrics[KB_ISTIO_RESPONSE_BYTES], worker, info->wire_bytes_sent);
}

static void on_destroy(void *arg)
{
    struct istio_stats *filter = KB_CAST(arg, istio_stats);

    if (filter->grpc) {
        kb_loop_timer_cancel(loop_of(filter), &filter->timer);
    }
}

const struct kb_http_filter_ops kb_ext_http_istio_stats = {
    .name = "envoy.filters.http.istio_stats",
    .type_url = "stats.PluginConfig",
    .config_create = kb_istio_stats_config_create,
    .config_destroy = kb_istio_stats_config_destroy,
    .create = create,
    .decode_headers = decode_headers,
    .encode_headers = encode_headers,
    .on_stream_complete = on_stream_complete,
    .on_destroy = on_destroy,
};
