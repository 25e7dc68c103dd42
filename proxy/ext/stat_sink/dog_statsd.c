/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.stat_sinks.dog_statsd: datagrams with tags. Config: envoy.config.metrics.v3.DogStatsdSink.
 */
#include "envoy/config/metrics/v3/stats.pb-c.h"
#include "proxy/ext/stat_sink/statsd_lines.h"

static int dog_create(const void *config, struct kb_factory_context *factory, struct kb_diag *diag,
                      void **sink)
{
    const Envoy__Config__Metrics__V3__DogStatsdSink *message = config;
    struct kb_statsd *statsd = kb_statsd_new(message->prefix, factory);

    statsd->tags = KB_STATSD_TAGS_DOG;
    if (message->max_bytes_per_datagram != NULL) {
        statsd->datagram_bytes = message->max_bytes_per_datagram->value;
    }
    *sink = statsd;
    return kb_statsd_open(statsd, message->address, diag);
}

extern const struct kb_stat_sink_ops kb_ext_stat_sink_dog_statsd;
const struct kb_stat_sink_ops kb_ext_stat_sink_dog_statsd = {
    .name = "envoy.stat_sinks.dog_statsd",
    .type_url = "envoy.config.metrics.v3.DogStatsdSink",
    .wants_tags = true,
    .create = dog_create,
    .destroy = kb_statsd_destroy,
    .sample = kb_statsd_sample,
    .end = kb_statsd_end,
    .close = kb_statsd_close,
};
