/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters and listeners for /clusters and /listeners. */
#include "proxy/admin/core_sources.h"

#include <stdlib.h>

#include "proxy/admin/core_sources_internal.h"
#include "proxy/listener/listener_manager.h"
#include "proxy/upstream/cluster_type.h"
#include "proxy/upstream/outlier_detector.h"

static void entry_take(void *arg, const struct kb_cluster_entry *entry)
{
    struct kb_admin_entries *entries = arg;

    kb_vec_push(entries, entry);
}

static int entry_cmp(const void *a, const void *b)
{
    const struct kb_cluster_entry *x = *(const struct kb_cluster_entry *const *)a;
    const struct kb_cluster_entry *y = *(const struct kb_cluster_entry *const *)b;

    return kb_str_cmp(x->cluster->api.name, y->cluster->api.name);
}

void kb_admin_entries_init(struct kb_admin_entries *entries,
                           const struct kb_cluster_manager *manager, bool warming)
{
    kb_vec_init(entries);
    if (manager != NULL) {
        kb_cluster_manager_visit(manager, warming, entry_take, entries);
    }
    if (entries->len > 1) {
        qsort(entries->items, entries->len, sizeof(*entries->items), entry_cmp);
    }
}

static void host_read(struct kb_admin_host *out, const struct kb_host *host)
{
    *out = (struct kb_admin_host){
        .addr = kb_host_addr(host),
        .addr_text = kb_host_addr_text(host),
        .hostname = kb_host_hostname(host),
        .region = host->locality->region,
        .zone = host->locality->zone,
        .sub_zone = host->locality->sub_zone,
        .weight = kb_host_weight(host),
        .priority = host->priority,
        .health_flags = __atomic_load_n(&host->health_flags, __ATOMIC_RELAXED),
        .canary = host->canary,
    };
    for (int i = 0; i < KB_OUTLIER_ORIGIN_COUNT; i++) {
        out->success_rate[i] = host->outlier == NULL ? -1 : host->outlier->success_rate[i];
    }
    for (uint32_t i = 0; i < host->local_count; i++) {
        const struct kb_host_local *local = __atomic_load_n(&host->locals[i], __ATOMIC_ACQUIRE);

        for (int k = 0; local != NULL && k < KB_HOST_STAT_COUNT; k++) {
            out->stats[k] += __atomic_load_n(&local->stats[k], __ATOMIC_RELAXED);
        }
    }
}

static void outliers_read(struct kb_admin_cluster *out, const struct kb_cluster_entry *entry)
{
    const struct kb_outlier *core;

    out->outliers = entry->outlier != NULL;
    if (!out->outliers) {
        return;
    }
    core = kb_outlier_detector_core(entry->outlier);
    for (int i = 0; i < KB_OUTLIER_ORIGIN_COUNT; i++) {
        out->success_rate_average[i] = core->success_rate_average[i];
        out->success_rate_threshold[i] = core->success_rate_threshold[i];
    }
}

static void entry_visit(const struct kb_cluster_entry *entry, kb_admin_cluster_fn visit,
                        void *visit_arg)
{
    const struct kb_cluster *cluster = &entry->cluster->api;
    struct kb_admin_cluster shown = {
        .name = cluster->name,
        .observability_name = cluster->observability_name,
        .added_via_api = cluster->added_via_api,
        .eds_service_name = entry->type->service_name != NULL && entry->state != NULL
                                ? entry->type->service_name(entry->state)
                                : KB_STR(""),
    };
    KB_VEC(struct kb_admin_host) hosts;

    kb_vec_init(&hosts);
    outliers_read(&shown, entry);
    for (int i = 0; i < KB_PRIORITY_COUNT; i++) {
        shown.limits[i].connections = cluster->limits[i].connections;
        shown.limits[i].pending = cluster->limits[i].pending;
        shown.limits[i].requests = cluster->limits[i].requests;
        shown.limits[i].retries = kb_cluster_entry_max_retries(entry, (enum kb_priority)i);
    }
    for (uint32_t p = 0; entry->set != NULL && p < entry->set->count; p++) {
        const struct kb_host_list *list = &entry->set->sets[p].all;

        for (uint32_t i = 0; i < list->count; i++) {
            struct kb_admin_host host;

            host_read(&host, list->hosts[i]);
            kb_vec_push(&hosts, host);
        }
    }
    shown.hosts = hosts.items;
    shown.host_count = hosts.len;
    visit(visit_arg, &shown);
    kb_vec_dispose(&hosts);
}

void kb_admin_core_visit_clusters(const struct kb_admin_core *core, kb_admin_cluster_fn visit,
                                  void *visit_arg)
{
    struct kb_admin_entries entries;

    kb_admin_entries_init(&entries, core->clusters, false);
    KB_VEC_FOREACH (entry, &entries) {
        entry_visit(*entry, visit, visit_arg);
    }
    kb_vec_dispose(&entries);
}

struct listener_visit {
    kb_admin_listener_fn visit;
    void *arg;
};

static void listener_visit(void *arg, const struct kb_listener_view *view)
{
    const struct listener_visit *v = arg;
    struct kb_admin_listener shown = {
        .name = view->name, .addrs = view->bound, .addr_count = view->bound_count};

    if (view->active != NULL) {
        v->visit(v->arg, &shown);
    }
}

void kb_admin_core_visit_listeners(const struct kb_admin_core *core, kb_admin_listener_fn visit,
                                   void *visit_arg)
{
    struct listener_visit v = {visit, visit_arg};

    if (core->listeners != NULL) {
        kb_listener_manager_visit(core->listeners, listener_visit, &v);
    }
}
