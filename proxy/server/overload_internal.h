/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the overload manager share. */
#pragma once

#include "base/file_watch.h"
#include "proxy/api/stats.h"
#include "proxy/server/memory_limit.h"
#include "proxy/server/overload.h"

struct kb_overload_monitor {
    struct kb_str name;
    /* The pressure, 0 to 1 and beyond; false: it cannot be told now. */
    bool (*read)(struct kb_overload_monitor *monitor, double *pressure);
    struct kb_overload *overload;
    uint64_t limit;     /* bytes, or connections */
    struct kb_str path; /* injected_resource */
    struct kb_file_watch *watch;
    double pressure; /* of the last look at the file, or the mean */
    bool failed;
    uint64_t busy, total; /* cpu_utilization: at the last look */
    struct kb_stat_named *pressure_stat;
    struct kb_stat_named *failed_stat;
    struct kb_stat_named *skipped_stat;
    double last; /* what the triggers see */
};

struct kb_overload_trigger {
    struct kb_overload_monitor *monitor;
    double low;  /* nothing up to here */
    double high; /* saturated from here; equal to low: a threshold */
    bool scaled;
};

struct kb_overload_rule { /* an action, or a load-shed point */
    struct kb_str name;
    int id; /* enum kb_overload_action; -1: a point that nobody asks */
    struct kb_overload_trigger *triggers;
    size_t trigger_count;
    double value;
    struct kb_stat_named *active; /* actions only */
    struct kb_stat_named *scale_percent;
    struct kb_stat_named *count; /* shed_load_count, shrink_count */
};

struct kb_overload {
    KB_OBJ;
    struct kb_server_context *server;
    struct kb_arena arena;
    struct kb_overload_monitor *monitors;
    size_t monitor_count;
    struct kb_overload_rule *rules;
    size_t rule_count;
    struct kb_stat_group *stats;
    struct kb_stat_named *reset_count;
    uint64_t refresh_ms;
    uint64_t refresh_due_ms;
    uint64_t shrink_interval_ms;
    uint64_t shrunk_ms;
    unsigned track_power;
    struct kb_timer refresh;
    uint64_t max_memory;
    enum kb_memory_stage stage;
    struct kb_timer memory;
    uint64_t trimmed_ms;
    unsigned reset_power; /* log2 of the bytes that make a stream worth resetting */
    uint64_t resets_seen; /* of `resets`, and when they were */
    uint64_t resets_seen_ms;
    uint32_t resets_pending; /* workers that have not done what they were told; atomic */
    uint64_t resets;         /* by all workers; atomic */
};
KB_OBJ_MAGIC(kb_overload, 0x4f564c44);

/* overload_config.c: monitors, actions and points of the message. */
void kb_overload_config_read(struct kb_overload *overload,
                             const Envoy__Config__Overload__V3__OverloadManager *message,
                             struct kb_diag *diag);
/* overload_monitors.c: finds the implementation by name or type. */
void kb_overload_monitor_init(struct kb_overload_monitor *monitor,
                              const Envoy__Config__Overload__V3__ResourceMonitor *message,
                              struct kb_diag *diag);
void kb_overload_monitor_dispose(struct kb_overload_monitor *monitor);
