/* SPDX-License-Identifier: Apache-2.0 */
/* The statistics under "server.", and the timer that merges histograms every stats_flush_interval.
 * Main thread. */
#pragma once

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"

#include "proxy/server/lifecycle.h"

struct kb_server_stats;

/* `bootstrap` is borrowed during the call. Does not count anything as initialised yet. */
struct kb_server_stats *
kb_server_stats_create(struct kb_server_context *server, const struct kb_lifecycle *lifecycle,
                       const Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap);
/* NULL is allowed. */
void kb_server_stats_destroy(struct kb_server_stats *stats);

/* Starts the flush timer. */
void kb_server_stats_start(struct kb_server_stats *stats);
/* The process ends: sinks get what has not been flushed. */
void kb_server_stats_flush_last(struct kb_server_stats *stats);
/* Records server.initialization_time_ms. */
void kb_server_stats_initialized(struct kb_server_stats *stats);
/* Counts server.static_unknown_fields. */
void kb_server_stats_unknown_fields(struct kb_server_stats *stats, uint64_t count);

/* Seconds since the process started. */
uint64_t kb_server_stats_uptime_s(const struct kb_server_stats *stats);

/* When it started, ns since 1970. */
uint64_t kb_server_stats_started_wall_ns(const struct kb_server_stats *stats);

/* Memory of the process in bytes, as /memory and server.memory_* show it. */
struct kb_memory_usage {
    uint64_t allocated; /* asked for and not freed */
    uint64_t heap;      /* taken from the system for the heap */
    uint64_t physical;  /* resident, all of the process */
    uint64_t heap_free; /* of the heap, not in use */
};
/* Asks the allocator and the kernel: some 10 us. */
void kb_memory_usage_read(struct kb_memory_usage *usage);
