/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.stat_sinks.graphite_statsd: datagrams with tags behind the name. Config:
 * envoy.extensions.stat_sinks.graphite_statsd.v3.GraphiteStatsdSink. */
#include "envoy/extensions/stat_sinks/graphite_statsd/v3/graphite_statsd.pb-c.h"
#include "proxy/ext/stat_sink/statsd_lines.h"

#define SPECIFIER(NAME) \
    ENVOY__EXTENSIONS__STAT_SINKS__GRAPHITE_STATSD__V3__GRAPHITE_STATSD_SINK__STATSD_SPECIFIER_##NAME

static int graphite_create(const void *config, struct kb_factory_context *factory,
                           struct kb_diag *diag, void **sink)
{
    const Envoy__Extensions__StatSinks__GraphiteStatsd__V3__GraphiteStatsdSink *message = config;
    struct kb_statsd *statsd = kb_statsd_new(message->prefix, factory);
    int rc = KB_ECONFIG;

    statsd->tags = KB_STATSD_TAGS_GRAPHITE;
    if (message->max_bytes_per_datagram != NULL) {
        statsd->datagram_bytes = message->max_bytes_per_datagram->value;
    }
    if (message->statsd_specifier_case == SPECIFIER(ADDRESS)) {
        rc = kb_statsd_open(statsd, message->address, diag);
    } else {
        kb_diag_error(diag, "field: \"statsd_specifier\", reason: is required");
    }
    *sink = statsd;
    return rc;
}

extern const struct kb_stat_sink_ops kb_ext_stat_sink_graphite_statsd;
const struct kb_stat_sink_ops kb_ext_stat_sink_graphite_statsd = {
    .name = "envoy.stat_sinks.graphite_statsd",
    .type_url = "envoy.extensions.stat_sinks.graphite_statsd.v3.GraphiteStatsdSink",
    .wants_tags = true,
    .create = graphite_create,
    .destroy = kb_statsd_destroy,
    .sample = kb_statsd_sample,
    .end = kb_statsd_end,
    .close = kb_statsd_close,
};
