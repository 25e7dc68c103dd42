/* SPDX-License-Identifier: Apache-2.0 */
/* ORIGINAL_DST clusters: no hosts are configured; the workers' load balancers make one for each
 * address that connections were on their way to (proxy/ext/lb/original_dst.c), and tell the cluster
 * here. From time to time those go that nobody has used since. Main thread. */
#include <stdlib.h>

#include "base/mem.h"
#include "base/vec.h"
#include "proxy/upstream/cluster_type.h"
#include "proxy/upstream/config_read.h"
#include "proxy/upstream/original_dst.h"

#define CLEANUP_INTERVAL_DEFAULT_MS 5000

extern const struct kb_cluster_type_ops kb_cluster_type_original_dst;

struct original_dst_host {
    struct kb_host *host;
    uint64_t uses; /* at the last cleanup */
};

struct original_dst_cluster {
    KB_OBJ;
    struct kb_cluster_entry *entry;
    struct kb_loop *loop;
    struct kb_timer cleanup;
    uint64_t cleanup_interval_ms;
    KB_VEC(struct original_dst_host) hosts;
};
KB_OBJ_MAGIC(original_dst_cluster, 0x4f445354);

static void hosts_publish(struct original_dst_cluster *cluster)
{
    struct kb_host **hosts = kb_calloc(cluster->hosts.len + 1, sizeof(hosts[0]));
    struct kb_host_group group = {.hosts = hosts};

    KB_VEC_FOREACH (item, &cluster->hosts) {
        hosts[group.count++] = item->host;
    }
    kb_cluster_entry_set_hosts(cluster->entry, &group, 1);
    free(hosts);
}

static uint64_t uses_of(const struct kb_host *host)
{
    return kb_host_stat_sum(host, KB_HOST_RQ_TOTAL) + kb_host_stat_sum(host, KB_HOST_CX_TOTAL);
}

/* A host stays while it was used since the last time, or a connection to it is open. */
static bool host_stays(struct original_dst_host *item)
{
    uint64_t uses = uses_of(item->host);
    bool used = uses != item->uses || kb_host_stat_sum(item->host, KB_HOST_CX_ACTIVE) > 0 ||
                kb_host_stat_sum(item->host, KB_HOST_RQ_PENDING_ACTIVE) > 0;

    item->uses = uses;
    return used;
}

static void cleanup_fired(struct kb_timer *timer)
{
    struct original_dst_cluster *cluster =
        KB_CONTAINER_OF(timer, struct original_dst_cluster, cleanup);
    size_t kept = 0;

    KB_ASSERT(cluster->kb_magic == (uint32_t)KB_MAGIC_original_dst_cluster);
    for (size_t i = 0; i < cluster->hosts.len; i++) {
        if (host_stays(&cluster->hosts.items[i])) {
            cluster->hosts.items[kept++] = cluster->hosts.items[i];
        } else {
            kb_host_unref(cluster->hosts.items[i].host);
        }
    }
    if (kept != cluster->hosts.len) {
        cluster->hosts.len = kept;
        hosts_publish(cluster);
    }
    kb_loop_timer_arm(cluster->loop, &cluster->cleanup, cluster->cleanup_interval_ms);
}

void kb_original_dst_add_host(struct kb_host *host)
{
    struct kb_cluster_impl *impl = kb_cluster_impl_of(host->cluster);
    const struct kb_cluster_entry *entry = kb_cluster_manager_find(impl->manager, impl->api.name);
    struct original_dst_cluster *cluster;

    if (entry == NULL || entry->cluster != impl || entry->state == NULL) {
        kb_host_unref(host); /* there is another cluster of that name now, or none */
        return;
    }
    KB_ASSERT(entry->type == &kb_cluster_type_original_dst);
    cluster = KB_CAST(entry->state, original_dst_cluster);
    kb_vec_push(&cluster->hosts, ((struct original_dst_host){.host = host}));
    kb_cluster_entry_count_match(cluster->entry, host);
    hosts_publish(cluster);
}

static int original_dst_create(struct kb_cluster_entry *entry,
                               const Envoy__Config__Cluster__V3__Cluster *message,
                               const void *typed, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **state)
{
    struct original_dst_cluster *cluster;

    (void)typed;
    if (message->load_assignment != NULL) {
        kb_diag_error(diag, "ORIGINAL_DST clusters must have no load assignment configured");
        return KB_ECONFIG;
    }
    cluster = kb_calloc(1, sizeof(*cluster));
    KB_OBJ_SET(cluster, original_dst_cluster);
    cluster->entry = entry;
    cluster->loop = &factory->server->main->loop;
    cluster->cleanup_interval_ms = kb_config_duration_ms(
        message->cleanup_interval, "cleanup_interval", CLEANUP_INTERVAL_DEFAULT_MS, diag);
    kb_timer_init(&cluster->cleanup, cleanup_fired);
    kb_vec_init(&cluster->hosts);
    *state = cluster;
    return 0;
}

static void original_dst_start(void *state)
{
    struct original_dst_cluster *cluster = KB_CAST(state, original_dst_cluster);

    kb_loop_timer_arm(cluster->loop, &cluster->cleanup, cluster->cleanup_interval_ms);
    kb_cluster_entry_initialized(cluster->entry);
}

static void original_dst_destroy(void *state)
{
    struct original_dst_cluster *cluster = KB_CAST(state, original_dst_cluster);

    kb_loop_timer_cancel(cluster->loop, &cluster->cleanup);
    KB_VEC_FOREACH (item, &cluster->hosts) {
        kb_host_unref(item->host);
    }
    kb_vec_dispose(&cluster->hosts);
    KB_OBJ_CLEAR(cluster);
    free(cluster);
}

const struct kb_cluster_type_ops kb_cluster_type_original_dst = {
    .name = "envoy.cluster.original_dst",
    .type_url = "",
    .lb = &kb_lb_original_dst,
    .create = original_dst_create,
    .start = original_dst_start,
    .destroy = original_dst_destroy,
};
