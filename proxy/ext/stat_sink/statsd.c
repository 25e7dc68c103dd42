/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.stat_sinks.statsd: a datagram for each statistic, or lines over a connection to a cluster.
 * Config: envoy.config.metrics.v3.StatsdSink. */
#include "envoy/config/metrics/v3/stats.pb-c.h"
#include "proxy/ext/stat_sink/statsd_lines.h"

#define SPECIFIER(NAME) ENVOY__CONFIG__METRICS__V3__STATSD_SINK__STATSD_SPECIFIER_##NAME

static int statsd_create(const void *config, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **sink)
{
    const Envoy__Config__Metrics__V3__StatsdSink *message = config;
    struct kb_statsd *statsd = kb_statsd_new(message->prefix, factory);
    int rc = 0;

    if (message->statsd_specifier_case == SPECIFIER(ADDRESS)) {
        rc = kb_statsd_open(statsd, message->address, diag);
    } else if (message->statsd_specifier_case == SPECIFIER(TCP_CLUSTER_NAME)) {
        statsd->tcp = kb_statsd_tcp_create(
            factory->server->main,
            kb_str_dup(factory->arena, kb_str_from_cstr(message->tcp_cluster_name)));
    } else {
        kb_diag_error(diag, "field: \"statsd_specifier\", reason: is required");
        rc = KB_ECONFIG;
    }
    *sink = statsd;
    return rc;
}

extern const struct kb_stat_sink_ops kb_ext_stat_sink_statsd;
const struct kb_stat_sink_ops kb_ext_stat_sink_statsd = {
    .name = "envoy.stat_sinks.statsd",
    .type_url = "envoy.config.metrics.v3.StatsdSink",
    .create = statsd_create,
    .destroy = kb_statsd_destroy,
    .sample = kb_statsd_sample,
    .end = kb_statsd_end,
    .close = kb_statsd_close,
};
