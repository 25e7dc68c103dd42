/* SPDX-License-Identifier: Apache-2.0 */
/* What sinks get at every flush: counters as what they grew by, gauges, and the samples of
 * histograms. Costs nothing where there is no sink. Main thread. */
#pragma once

#include "base/vec.h"
#include "proxy/api/stat_sink.h"

struct kb_stat_store;

struct kb_stat_flush_sink {
    const struct kb_stat_sink_ops *ops;
    void *sink;
};

/* What counters were at the last flush: a table by the hash of the name, made anew each time. */
struct kb_stat_last_table {
    struct kb_stat_last *slots;
    size_t cap; /* a power of two, or 0 */
    size_t len;
};

struct kb_stat_flusher {
    KB_VEC(struct kb_stat_flush_sink) sinks;
    struct kb_stat_last_table last;
    bool want_tags;
};

/* Zero-initialise. The flusher destroys its sinks. */
void kb_stat_flusher_add(struct kb_stat_flusher *flusher, const struct kb_stat_sink_ops *ops,
                         void *sink);
/* Gives every statistic that was ever used to every sink; after kb_stat_store_flush. */
void kb_stat_flusher_run(struct kb_stat_flusher *flusher, struct kb_stat_store *store);
/* Sinks close their connections. */
void kb_stat_flusher_close(struct kb_stat_flusher *flusher);
void kb_stat_flusher_dispose(struct kb_stat_flusher *flusher);
