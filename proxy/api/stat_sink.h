/* SPDX-License-Identifier: Apache-2.0 */
/* Stats sinks: where statistics are sent at every flush (Envoy Stats::Sink). One vtable per kind,
 * created from the bootstrap's stats_sinks. Main thread. */
#pragma once

#include "proxy/api/factory_context.h"
#include "proxy/api/stats.h"

/* One statistic of a flush. */
struct kb_stat_sample {
    enum kb_stat_kind kind;
    struct kb_str name;        /* full */
    struct kb_str tagged_name; /* without its tags */
    const struct kb_tag *tags;
    size_t tag_count;
    /* A counter's growth since the last flush; a gauge's value; a histogram's sample, with two
     * significant digits. */
    uint64_t value;
    uint64_t count; /* of a histogram: how many samples of that value came */
};

struct kb_stat_sink_ops {
    const char *name;     /* "envoy.stat_sinks.statsd" */
    const char *type_url; /* without "type.googleapis.com/" */
    bool wants_tags;      /* tagged_name and tags are filled in */
    /* factory->arena lives as long as the sink. KB_ECONFIG after errors. */
    int (*create)(const void *message, struct kb_factory_context *factory, struct kb_diag *diag,
                  void **sink);
    void (*destroy)(void *sink);
    void (*sample)(void *sink, const struct kb_stat_sample *sample);
    /* The flush is over: what is buffered leaves. */
    void (*end)(void *sink);
    /* The main thread ends: no connection may stay. NULL: there is none. */
    void (*close)(void *sink);
};
