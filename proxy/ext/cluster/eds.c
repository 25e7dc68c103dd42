/* SPDX-License-Identifier: Apache-2.0 */
/* EDS clusters: the hosts come as a ClusterLoadAssignment by subscription (Envoy docs: service
 * discovery, endpoint discovery service). Each update is compared with what is there: a host whose
 * address, locality and hostname stay is the same object, with its pools and statistics; weight,
 * health, metadata and priority change in place. Main thread. */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/api/subscription.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/cluster_type.h"
#include "proxy/upstream/config_read.h"
#include "proxy/upstream/eds_update.h"

extern const struct kb_cluster_type_ops kb_cluster_type_eds;

/* The subscription has a group of its own under the same prefix that counts these. */
static const uint16_t hidden_stats[] = {KB_STAT_CLUSTER_UPDATE_ATTEMPT,
                                        KB_STAT_CLUSTER_UPDATE_FAILURE,
                                        KB_STAT_CLUSTER_UPDATE_SUCCESS, KB_STAT_CLUSTER_VERSION};

struct eds_cluster {
    KB_OBJ;
    struct kb_cluster_entry *entry;
    struct kb_server_context *server;
    struct kb_subscription *subscription;
    struct kb_eds_state hosts;
    struct kb_timer stale_timer;
    bool named;    /* by the configuration; else the subscription has the cluster's name */
    bool assigned; /* it has had an assignment */
};
KB_OBJ_MAGIC(eds_cluster, 0x45445343);

static struct kb_str service_name(const struct eds_cluster *eds)
{
    return kb_subscription_name(eds->subscription);
}

/* The assignment was not renewed in the time that it said. */
static void stale_fired(struct kb_timer *timer)
{
    struct eds_cluster *eds = KB_CONTAINER_OF(timer, struct eds_cluster, stale_timer);
    static const Envoy__Config__Endpoint__V3__ClusterLoadAssignment none =
        ENVOY__CONFIG__ENDPOINT__V3__CLUSTER_LOAD_ASSIGNMENT__INIT;

    KB_ASSERT(eds->kb_magic == (uint32_t)KB_MAGIC_eds_cluster);
    eds->entry->counts.assignment_stale++;
    KB_LOG(UPSTREAM, WARNING, "the endpoints of cluster %.*s are stale and dropped",
           KB_STR_ARG(eds->entry->cluster->api.name));
    kb_eds_apply(&eds->hosts, eds->entry, &none, NULL, 0);
}

static void stale_arm(struct eds_cluster *eds,
                      const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *assignment,
                      struct kb_diag *diag)
{
    struct kb_loop *loop = &eds->server->main->loop;
    uint64_t stale_ms = assignment->policy == NULL
                            ? 0
                            : kb_config_duration_ms(assignment->policy->endpoint_stale_after,
                                                    "endpoint_stale_after", 0, diag);

    kb_loop_timer_cancel(loop, &eds->stale_timer);
    if (stale_ms > 0) {
        eds->entry->counts.assignment_timeout_received++;
        kb_loop_timer_arm(loop, &eds->stale_timer, stale_ms);
    }
}

/* The one assignment of the update when it is ours, or NULL after a report. */
static const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *
assignment_of(struct eds_cluster *eds, const struct kb_resource_update *update,
              struct kb_diag *diag)
{
    const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *assignment;

    if (update->resource_count != 1) {
        kb_diag_error(diag, "Unexpected EDS resource length: %zu", update->resource_count);
        return NULL;
    }
    assignment = update->resources[0].message;
    if (!kb_str_eq(kb_str_from_cstr(assignment->cluster_name), service_name(eds))) {
        kb_diag_error(diag, "Unexpected EDS cluster (expecting %.*s): %s",
                      KB_STR_ARG(service_name(eds)), assignment->cluster_name);
        return NULL;
    }
    return assignment;
}

static void eds_on_update(void *arg, const struct kb_resource_update *update, struct kb_diag *diag)
{
    struct eds_cluster *eds = KB_CAST(arg, eds_cluster);
    const Envoy__Config__Endpoint__V3__ClusterLoadAssignment *assignment;
    uint32_t errors = diag->error_count;
    struct kb_arena arena;
    struct kb_host_params *params = NULL;
    size_t count = 0;

    if (update->resource_count == 0) {
        KB_LOG(UPSTREAM, DEBUG, "Missing ClusterLoadAssignment for %.*s in onConfigUpdate()",
               KB_STR_ARG(service_name(eds)));
        eds->entry->counts.update_empty++;
        kb_cluster_entry_initialized(eds->entry);
        return;
    }
    assignment = assignment_of(eds, update, diag);
    if (assignment == NULL) {
        return;
    }
    kb_arena_init(&arena, NULL);
    kb_eds_read(assignment, &arena, &params, &count, diag);
    if (diag->error_count == errors) {
        stale_arm(eds, assignment, diag);
        kb_eds_apply(&eds->hosts, eds->entry, assignment, params, count);
        eds->assigned = true;
        kb_cluster_entry_initialized(eds->entry);
    }
    kb_arena_dispose(&arena);
}

/* A changed cluster for which no endpoints came has those of the one that it replaces. */
static void hosts_reuse(struct eds_cluster *eds)
{
    const struct kb_cluster_entry *before =
        kb_cluster_manager_find(eds->entry->manager, eds->entry->cluster->api.name);
    const struct eds_cluster *other;

    if (before == NULL || before == eds->entry || before->type != &kb_cluster_type_eds) {
        return;
    }
    other = KB_CAST(before->state, eds_cluster);
    if (!other->assigned || !kb_str_eq(service_name(other), service_name(eds))) {
        return;
    }
    kb_eds_reuse(&eds->hosts, eds->entry, &other->hosts, before);
    eds->assigned = true;
    eds->entry->counts.assignment_use_cached++;
}

/* A cluster without an answer serves nothing, but nobody waits for it any longer. A stream that
 * could not be opened is no answer. */
static void eds_on_failure(void *arg, enum kb_subscription_failure failure)
{
    struct eds_cluster *eds = KB_CAST(arg, eds_cluster);

    if (failure != KB_SUBSCRIPTION_CONNECTION) {
        if (!eds->assigned && !eds->entry->initialized) {
            hosts_reuse(eds);
        }
        kb_cluster_entry_initialized(eds->entry);
    }
}

static const struct kb_subscription_callbacks eds_callbacks = {.on_update = eds_on_update,
                                                               .on_failure = eds_on_failure};

static void eds_destroy(void *state)
{
    struct eds_cluster *eds = KB_CAST(state, eds_cluster);

    if (eds->subscription != NULL) {
        kb_subscription_destroy(eds->subscription);
    }
    kb_loop_timer_cancel(&eds->server->main->loop, &eds->stale_timer);
    KB_OBJ_CLEAR(eds);
    free(eds);
}

static void subscription_create(struct eds_cluster *eds,
                                const Envoy__Config__Cluster__V3__Cluster *message,
                                struct kb_str name, struct kb_factory_context *factory,
                                struct kb_diag *diag)
{
    struct kb_str prefix = kb_stat_group_prefix(eds->entry->cluster->api.stats);
    struct kb_subscription_options options = {
        .type = KB_RESOURCE_CLUSTER_LOAD_ASSIGNMENT,
        .source = message->eds_cluster_config->eds_config,
        .name = name,
        .stat_prefix = kb_str_printf(factory->arena, "%.*s", KB_STR_ARG(prefix)).p,
        .callbacks = &eds_callbacks,
        .arg = eds,
    };

    kb_diag_push(diag, "eds_cluster_config");
    kb_diag_push(diag, "eds_config");
    eds->subscription = kb_subscription_create(factory->server, &options, diag);
    kb_diag_pop(diag);
    kb_diag_pop(diag);
}

static int eds_create(struct kb_cluster_entry *entry,
                      const Envoy__Config__Cluster__V3__Cluster *message, const void *typed,
                      struct kb_factory_context *factory, struct kb_diag *diag, void **state)
{
    struct kb_str name;
    struct eds_cluster *eds;
    uint32_t errors = diag->error_count;

    (void)typed;
    if (message->eds_cluster_config == NULL || message->eds_cluster_config->eds_config == NULL) {
        kb_diag_push(diag, "eds_cluster_config");
        kb_diag_error(diag, "cannot create an EDS cluster without an EDS config");
        kb_diag_pop(diag);
        return KB_ECONFIG;
    }
    if (entry->cluster == NULL) {
        return KB_ECONFIG; /* reported before */
    }
    name = kb_str_from_cstr(message->eds_cluster_config->service_name[0] != '\0'
                                ? message->eds_cluster_config->service_name
                                : message->name);
    eds = kb_calloc(1, sizeof(*eds));
    KB_OBJ_SET(eds, eds_cluster);
    eds->entry = entry;
    eds->server = factory->server;
    eds->named = message->eds_cluster_config->service_name[0] != '\0';
    kb_timer_init(&eds->stale_timer, stale_fired);
    kb_stat_group_set_hidden(entry->cluster->api.stats, hidden_stats, KB_ARRAY_LEN(hidden_stats));
    subscription_create(eds, message, name, factory, diag);
    *state = eds;
    return diag->error_count == errors ? 0 : KB_ECONFIG;
}

static void eds_start(void *state)
{
    kb_subscription_start(KB_CAST(state, eds_cluster)->subscription);
}

static struct kb_str eds_service_name(const void *state)
{
    const struct eds_cluster *eds = state;

    KB_ASSERT(eds->kb_magic == (uint32_t)KB_MAGIC_eds_cluster);
    return eds->named && eds->subscription != NULL ? service_name(eds) : KB_STR("");
}

const struct kb_cluster_type_ops kb_cluster_type_eds = {
    .name = "envoy.cluster.eds",
    .type_url = "",
    .drops_failed = true,
    .create = eds_create,
    .start = eds_start,
    .destroy = eds_destroy,
    .service_name = eds_service_name,
};
