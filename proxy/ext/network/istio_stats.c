/* SPDX-License-Identifier: Apache-2.0 */
/* istio.stats of a TCP chain: counts connections and their bytes, at the end, and as they pass once
 * it is known who the peer is. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/api/network_filter.h"
#include "proxy/ext/common/istio_stats.h"

struct tcp_stats {
    KB_OBJ;
    struct kb_istio_stats_config *config;
    struct kb_conn *conn;
    struct kb_istio_principals upstream;
    struct kb_timer timer;
    uint64_t sent; /* reported so far */
    uint64_t received;
    bool upstream_seen;
    bool opened; /* reported, and the labels are fixed */
    struct kb_stat_named *metrics[KB_ISTIO_METRICS_MAX];
};
KB_OBJ_MAGIC(tcp_stats, 0x49535454);

static void timer_fired(struct kb_timer *timer);

static struct kb_loop *loop_of(const struct tcp_stats *filter)
{
    return &filter->conn->worker->loop;
}

static void *create(void *config, struct kb_conn *conn)
{
    struct tcp_stats *filter = kb_calloc(1, sizeof(*filter));

    KB_OBJ_SET(filter, tcp_stats);
    filter->config = config;
    filter->conn = conn;
    kb_timer_init(&filter->timer, timer_fired);
    return filter;
}

static void metric_add(const struct tcp_stats *filter, enum kb_istio_metric metric, uint64_t n)
{
    if (filter->metrics[metric] != NULL) {
        kb_stat_named_add(filter->metrics[metric], filter->conn->worker->index, (int64_t)n);
    }
}

/* The names of the host's certificate, while its connection is there. */
static void upstream_look(struct tcp_stats *filter)
{
    const struct kb_stream_info *info = filter->conn->stream_info;

    if (KB_LIKELY(filter->upstream_seen) || info == NULL || info->upstream.ssl == NULL) {
        return;
    }
    filter->upstream_seen = true;
    filter->upstream = kb_istio_stats_principals(filter->config, filter->conn->worker->index,
                                                 info->upstream.ssl, info->upstream.connection_id);
}

/* Labels are those of the moment when the peer was known. */
static void labels_take(struct tcp_stats *filter, const struct kb_stream_info *info)
{
    uint32_t worker = filter->conn->worker->index;
    struct kb_istio_subject subject = {
        .report = KB_ISTIO_TCP,
        .info = info,
        .upstream_state = info->upstream.filter_state,
        .principals = filter->upstream,
    };

    if (kb_istio_stats_reporter(filter->config) != KB_ISTIO_SOURCE) {
        subject.principals = kb_istio_stats_principals(
            filter->config, worker, filter->conn->info.ssl, filter->conn->info.id);
    }
    memcpy(filter->metrics, kb_istio_stats_metrics(filter->config, worker, &subject),
           sizeof(filter->metrics));
    filter->opened = true;
    metric_add(filter, KB_ISTIO_CONNECTIONS_OPENED, 1);
}

static void report(struct tcp_stats *filter, bool end)
{
    struct kb_stream_info none = {.connection = &filter->conn->info,
                                  .worker = filter->conn->worker};
    const struct kb_stream_info *info =
        filter->conn->stream_info != NULL ? filter->conn->stream_info : &none;
    uint64_t sent = kb_conn_app_sent(filter->conn);
    uint64_t received = kb_conn_app_received(filter->conn);

    if (!filter->opened && !end &&
        !kb_istio_peer_known(filter->config, info, info->upstream.filter_state)) {
        return;
    }
    if (!filter->opened) {
        labels_take(filter, info);
    }
    metric_add(filter, KB_ISTIO_SENT_BYTES, sent - filter->sent);
    metric_add(filter, KB_ISTIO_RECEIVED_BYTES, received - filter->received);
    filter->sent = sent;
    filter->received = received;
    if (end) {
        metric_add(filter, KB_ISTIO_CONNECTIONS_CLOSED, 1);
    }
}

static void timer_fired(struct kb_timer *timer)
{
    struct tcp_stats *filter = KB_CONTAINER_OF(timer, struct tcp_stats, timer);

    KB_ASSERT(filter->kb_magic == (uint32_t)KB_MAGIC_tcp_stats);
    report(filter, false);
    kb_loop_timer_arm(loop_of(filter), timer, kb_istio_stats_interval_ms(filter->config));
}

static enum kb_network_filter_status on_new_connection(void *arg)
{
    struct tcp_stats *filter = KB_CAST(arg, tcp_stats);

    if (kb_istio_stats_interval_ms(filter->config) > 0) {
        kb_loop_timer_arm(loop_of(filter), &filter->timer,
                          kb_istio_stats_interval_ms(filter->config));
    }
    return KB_NETWORK_FILTER_CONTINUE;
}

static enum kb_network_filter_status on_data(void *arg, struct kb_buf *in, bool end_stream)
{
    (void)in;
    (void)end_stream;
    upstream_look(KB_CAST(arg, tcp_stats));
    return KB_NETWORK_FILTER_CONTINUE;
}

static void on_sent(void *arg, size_t n)
{
    (void)n;
    upstream_look(KB_CAST(arg, tcp_stats));
}

static void on_event(void *arg, enum kb_conn_event event)
{
    struct tcp_stats *filter = KB_CAST(arg, tcp_stats);

    if (event != KB_CONN_CONNECTED) {
        kb_loop_timer_cancel(loop_of(filter), &filter->timer);
    }
}

/* After the proxying filter has heard of the end, and before it goes: everything is known. */
static void destroy(void *arg)
{
    struct tcp_stats *filter = KB_CAST(arg, tcp_stats);

    kb_loop_timer_cancel(loop_of(filter), &filter->timer);
    report(filter, true);
    KB_OBJ_CLEAR(filter);
    free(filter);
}

const struct kb_network_filter_ops kb_ext_network_istio_stats = {
    .name = "envoy.filters.network.istio_stats",
    .type_url = "stats.PluginConfig",
    .config_create = kb_istio_stats_config_create,
    .config_destroy = kb_istio_stats_config_destroy,
    .create = create,
    .on_new_connection = on_new_connection,
    .on_data = on_data,
    .on_event = on_event,
    .on_sent = on_sent,
    .destroy = destroy,
};
