/* SPDX-License-Identifier: Apache-2.0 */
/* The resources that an overload manager looks at (envoy.resource_monitors.*). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "envoy/extensions/resource_monitors/cgroup_memory/v3/cgroup_memory.pb-c.h"
#include "envoy/extensions/resource_monitors/cpu_utilization/v3/cpu_utilization.pb-c.h"
#include "envoy/extensions/resource_monitors/downstream_connections/v3/downstream_connections.pb-c.h"
#include "envoy/extensions/resource_monitors/fixed_heap/v3/fixed_heap.pb-c.h"
#include "envoy/extensions/resource_monitors/injected_resource/v3/injected_resource.pb-c.h"
#include "proto/any.h"
#include "proto/wkt.h"
#include "proxy/listener/listener.h"
#include "proxy/server/cgroup.h"
#include "proxy/server/options.h"
#include "proxy/server/overload_internal.h"
#include "proxy/server/server_stats.h"

#define CPU_MEAN_SHARE 0.05 /* of a new value in the mean, as in Envoy */

static bool heap_read(struct kb_overload_monitor *monitor, double *pressure)
{
    struct kb_memory_usage usage;

    kb_memory_usage_read(&usage);
    *pressure = (double)usage.allocated / (double)monitor->limit;
    return true;
}

static bool cgroup_read(struct kb_overload_monitor *monitor, double *pressure)
{
    uint64_t used, limit = kb_memory_cgroup_limit("", &used);

    if (monitor->limit > 0 && (limit == 0 || monitor->limit < limit)) {
        limit = monitor->limit;
    }
    *pressure = limit > 0 ? (double)used / (double)limit : 0;
    return true;
}

/* The first line of /proc/stat: user nice system idle iowait irq softirq steal. */
static bool cpu_read(struct kb_overload_monitor *monitor, double *pressure)
{
    char bytes[4096];
    struct kb_str rest = kb_cgroup_file_read("", "/proc/stat", bytes, sizeof(bytes));
    struct kb_str line, word;
    uint64_t values[4], busy, total;
    size_t n = 0;

    if (!kb_str_next_token(&rest, '\n', &line) || !kb_str_starts_with(line, KB_STR("cpu "))) {
        return false;
    }
    line = kb_str_from(line, 4);
    while (n < KB_ARRAY_LEN(values) && kb_str_next_token(&line, ' ', &word)) {
        if (word.len > 0 && kb_str_to_u64(word, &values[n++]) != 0) {
            return false;
        }
    }
    if (n < KB_ARRAY_LEN(values)) {
        return false;
    }
    busy = values[0] + values[1] + values[2];
    total = busy + values[3];
    if (monitor->total > 0 && total > monitor->total) {
        double now = (double)(busy - monitor->busy) / (double)(total - monitor->total);

        monitor->pressure = now * CPU_MEAN_SHARE + monitor->pressure * (1 - CPU_MEAN_SHARE);
    }
    monitor->busy = busy;
    monitor->total = total;
    *pressure = monitor->pressure;
    return true;
}

static bool connections_read(struct kb_overload_monitor *monitor, double *pressure)
{
    *pressure =
        (double)kb_listener_connections_total(monitor->overload->server) / (double)monitor->limit;
    return true;
}

static bool injected_read(struct kb_overload_monitor *monitor, double *pressure)
{
    *pressure = monitor->pressure;
    return !monitor->failed;
}

static void injected_changed(void *arg)
{
    struct kb_overload_monitor *monitor = arg;
    char bytes[64];
    struct kb_str text = kb_cgroup_file_read("", monitor->path.p, bytes, sizeof(bytes) - 1);
    char *end = bytes;
    double value;

    bytes[text.len] = '\0';
    value = strtod(bytes, &end);
    while (*end == ' ' || *end == '\n' || *end == '\r') {
        end++;
    }
    monitor->failed = end == bytes || *end != '\0' || !isfinite(value) || value < 0 || value > 1;
    monitor->pressure = monitor->failed ? 0 : value;
}

/* ---- configuration ---- */

static void heap_init(struct kb_overload_monitor *monitor, const Google__Protobuf__Any *any,
                      struct kb_diag *diag)
{
    const Envoy__Extensions__ResourceMonitors__FixedHeap__V3__FixedHeapConfig *m =
        KB_ANY_UNPACK(any, envoy__extensions__resource_monitors__fixed_heap__v3__fixed_heap_config,
                      Envoy__Extensions__ResourceMonitors__FixedHeap__V3__FixedHeapConfig,
                      &monitor->overload->arena, diag);

    if (m != NULL && m->max_heap_size_bytes == 0) {
        kb_diag_error(diag, "fixed_heap: max heap size must be greater than 0");
    }
    monitor->limit = m != NULL ? KB_MAX(m->max_heap_size_bytes, (uint64_t)1) : 1;
    monitor->read = heap_read;
}

static void cgroup_init(struct kb_overload_monitor *monitor, const Google__Protobuf__Any *any,
                        struct kb_diag *diag)
{
    const Envoy__Extensions__ResourceMonitors__CgroupMemory__V3__CgroupMemoryConfig *m =
        KB_ANY_UNPACK(any,
                      envoy__extensions__resource_monitors__cgroup_memory__v3__cgroup_memory_config,
                      Envoy__Extensions__ResourceMonitors__CgroupMemory__V3__CgroupMemoryConfig,
                      &monitor->overload->arena, diag);

    monitor->limit = m != NULL ? m->max_memory_bytes : 0;
    monitor->read = cgroup_read;
}

static void cpu_init(struct kb_overload_monitor *monitor, const Google__Protobuf__Any *any,
                     struct kb_diag *diag)
{
    const Envoy__Extensions__ResourceMonitors__CpuUtilization__V3__CpuUtilizationConfig *m =
        KB_ANY_UNPACK(
            any, envoy__extensions__resource_monitors__cpu_utilization__v3__cpu_utilization_config,
            Envoy__Extensions__ResourceMonitors__CpuUtilization__V3__CpuUtilizationConfig,
            &monitor->overload->arena, diag);

    if (m != NULL && m->mode != 0) {
        kb_diag_error(diag, "cpu_utilization: mode CONTAINER is not implemented; leave it out to "
                            "look at the CPUs of the machine");
    }
    monitor->read = cpu_read;
}

static void connections_init(struct kb_overload_monitor *monitor, const Google__Protobuf__Any *any,
                             struct kb_diag *diag)
{
    typedef Envoy__Extensions__ResourceMonitors__DownstreamConnections__V3__DownstreamConnectionsConfig
        message;
    const message *m = KB_ANY_UNPACK(
        any,
        envoy__extensions__resource_monitors__downstream_connections__v3__downstream_connections_config,
        message, &monitor->overload->arena, diag);

    monitor->limit = m != NULL && m->max_active_downstream_connections > 0
                         ? (uint64_t)m->max_active_downstream_connections
                         : 1;
    monitor->overload->server->overload.max_connections = monitor->limit;
    monitor->read = connections_read;
}

static void injected_init(struct kb_overload_monitor *monitor, const Google__Protobuf__Any *any,
                          struct kb_diag *diag)
{
    struct kb_overload *overload = monitor->overload;
    const Envoy__Extensions__ResourceMonitors__InjectedResource__V3__InjectedResourceConfig *m =
        KB_ANY_UNPACK(
            any,
            envoy__extensions__resource_monitors__injected_resource__v3__injected_resource_config,
            Envoy__Extensions__ResourceMonitors__InjectedResource__V3__InjectedResourceConfig,
            &overload->arena, diag);

    monitor->read = injected_read;
    if (m == NULL) {
        return;
    }
    monitor->path = kb_str_dup(&overload->arena, kb_wkt_str(m->filename));
    injected_changed(monitor);
    if (kb_file_watch_open(overload->server->files, monitor->path, injected_changed, monitor,
                           &monitor->watch) != 0) {
        kb_diag_error(diag, "unable to add filesystem watch for file %s: %s", monitor->path.p,
                      "is there such a directory?");
    }
}

static const struct {
    const char *name;
    const char *type;
    void (*init)(struct kb_overload_monitor *monitor, const Google__Protobuf__Any *any,
                 struct kb_diag *diag);
    bool counts_skipped;
} kinds[] = {
    {"envoy.resource_monitors.fixed_heap",
     "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig", heap_init, true},
    {"envoy.resource_monitors.cgroup_memory",
     "envoy.extensions.resource_monitors.cgroup_memory.v3.CgroupMemoryConfig", cgroup_init, true},
    {"envoy.resource_monitors.cpu_utilization",
     "envoy.extensions.resource_monitors.cpu_utilization.v3.CpuUtilizationConfig", cpu_init, true},
    {"envoy.resource_monitors.global_downstream_max_connections",
     "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
     connections_init, false},
    {"envoy.resource_monitors.injected_resource",
     "envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig",
     injected_init, true},
};

static struct kb_stat_named *stat_make(const struct kb_overload_monitor *monitor, const char *what,
                                       enum kb_stat_kind kind)
{
    struct kb_overload *overload = monitor->overload;

    return kb_stat_named_create(
        overload->server->stats,
        kb_str_printf(&overload->arena, "overload.%.*s.%s", KB_STR_ARG(monitor->name), what), kind);
}

void kb_overload_monitor_init(struct kb_overload_monitor *monitor,
                              const Envoy__Config__Overload__V3__ResourceMonitor *message,
                              struct kb_diag *diag)
{
    const Google__Protobuf__Any *any =
        message->config_type_case ==
                ENVOY__CONFIG__OVERLOAD__V3__RESOURCE_MONITOR__CONFIG_TYPE_TYPED_CONFIG
            ? message->typed_config
            : NULL;
    struct kb_str type =
        any != NULL ? kb_any_inner_name(any, &monitor->overload->arena) : KB_STR_NULL;

    for (size_t i = 0; i < KB_ARRAY_LEN(kinds); i++) {
        if (kb_str_eq(type, kb_str_from_cstr(kinds[i].type))) {
            monitor->pressure_stat = stat_make(monitor, "pressure", KB_STAT_GAUGE);
            monitor->failed_stat = stat_make(monitor, "failed_updates", KB_STAT_COUNTER);
            if (kinds[i].counts_skipped) {
                monitor->skipped_stat = stat_make(monitor, "skipped_updates", KB_STAT_COUNTER);
            }
            kb_diag_push(diag, "typed_config");
            kinds[i].init(monitor, any, diag);
            kb_diag_pop(diag);
            return;
        }
    }
    kb_diag_error(diag, "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                  message->name, KB_STR_ARG(type));
}

void kb_overload_monitor_dispose(struct kb_overload_monitor *monitor)
{
    kb_file_watch_close(monitor->watch);
    kb_stat_named_destroy(monitor->pressure_stat);
    kb_stat_named_destroy(monitor->failed_stat);
    kb_stat_named_destroy(monitor->skipped_stat);
}
