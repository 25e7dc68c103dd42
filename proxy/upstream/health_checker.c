/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of a cluster: which hosts they ask, and what all of them say of one host together. A
 * host is healthy when all of its checks say so. */
#include "proxy/upstream/health_checker.h"

#include <stdlib.h>

#include "base/mem.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/eds_update.h"
#include "proxy/upstream/health_checker_internal.h"
#include "proxy/upstream/host.h"
#include "proxy/upstream/outlier_detector.h"

static struct kb_loop *loop_of(const struct kb_health_checks *checks)
{
    return &checks->server->main->loop;
}

static uint32_t flags_of(const struct kb_host *host)
{
    return __atomic_load_n(&host->health_flags, __ATOMIC_RELAXED) &
           (uint32_t)KB_HOST_ACTIVE_HC_FLAGS;
}

static void flags_set(struct kb_host *host, uint32_t flags)
{
    __atomic_fetch_or(&host->health_flags, flags, __ATOMIC_RELAXED);
    __atomic_fetch_and(&host->health_flags, flags | ~(uint32_t)KB_HOST_ACTIVE_HC_FLAGS,
                       __ATOMIC_RELAXED);
}

/* ---- what checks say together ---- */

static void gauges_add(struct kb_health_checks *checks, uint32_t flags, int64_t n)
{
    if (checks->group == NULL) {
        return; /* those of the only check */
    }
    if ((flags & KB_HOST_FAILED_ACTIVE_HC) == 0) {
        kb_stat_gauge_add(checks->stats, KB_STAT_HEALTH_CHECKS_HEALTHY, n);
    }
    if ((flags & KB_HOST_DEGRADED_ACTIVE_HC) != 0) {
        kb_stat_gauge_add(checks->stats, KB_STAT_HEALTH_CHECKS_DEGRADED, n);
    }
}

static void refresh(struct kb_deferred *deferred)
{
    struct kb_health_checks *checks = KB_CONTAINER_OF(deferred, struct kb_health_checks, refresh);

    if (!kb_eds_removed_drop(checks->entry)) {
        kb_cluster_entry_refresh_hosts(checks->entry);
    }
}

/* One more of the first answers is there. */
static void awaited_count(struct kb_health_checks *checks)
{
    if (checks->awaited > 0 && --checks->awaited == 0) {
        /* Workers shall know the health with the cluster. */
        kb_cluster_entry_refresh_hosts(checks->entry);
        kb_init_target_ready(&checks->target);
    }
}

void kb_health_host_combine(struct kb_health_session *session, bool changed, bool healthy)
{
    struct kb_health_host *owner = session->owner;
    struct kb_health_checks *checks = session->checker->checks;
    struct kb_host *host = owner->host;
    uint32_t before = flags_of(host), flags = 0;
    bool first = owner->awaited != 0;

    owner->awaited &= ~(1U << session->checker->index);
    if (owner->awaited != 0) {
        return;
    }
    for (uint32_t i = 0; i < checks->count; i++) {
        flags |= owner->sessions[i].flags;
    }
    flags_set(host, flags);
    if (!first) {
        gauges_add(checks, before, -1);
    }
    gauges_add(checks, flags, 1);
    if (checks->count > 1) {
        changed = ((before ^ flags) & (KB_HOST_FAILED_ACTIVE_HC | KB_HOST_DEGRADED_ACTIVE_HC |
                                       KB_HOST_PENDING_ACTIVE_HC)) != 0;
        healthy = (flags & KB_HOST_FAILED_ACTIVE_HC) == 0;
    }
    if (changed && (flags & KB_HOST_FAILED_ACTIVE_HC) != 0) {
        kb_host_failed(host, checks->server);
    }
    if (healthy && (flags & KB_HOST_FAILED_ACTIVE_HC) == 0) {
        kb_outlier_host_passed(host, kb_loop_now_ms(loop_of(checks)));
    }
    if (changed || (flags & KB_HOST_EXCLUDED_IMMEDIATE_HC) != 0) {
        kb_loop_defer(loop_of(checks), &checks->refresh);
    }
    awaited_count(checks);
}

/* ---- hosts ---- */

static void host_start(struct kb_health_checks *checks, struct kb_host *host)
{
    struct kb_health_host *owner =
        kb_calloc(1, sizeof(*owner) + checks->count * sizeof(owner->sessions[0]));

    KB_OBJ_SET(owner, kb_health_host);
    owner->host = kb_host_ref(host);
    owner->generation = checks->generation;
    owner->awaited = (1U << checks->count) - 1;
    host->health = owner;
    kb_list_push_back(&checks->hosts, &owner->link);
    for (uint32_t i = 0; i < checks->count; i++) {
        kb_health_session_start(&owner->sessions[i], &checks->items[i], owner);
    }
}

static void host_end(struct kb_health_checks *checks, struct kb_health_host *owner)
{
    for (uint32_t i = 0; i < checks->count; i++) {
        kb_health_session_end(&owner->sessions[i]);
    }
    if (owner->awaited == 0) {
        gauges_add(checks, flags_of(owner->host), -1);
    }
    kb_list_unlink(&owner->link);
    owner->host->health = NULL;
    kb_host_unref(owner->host);
    KB_OBJ_CLEAR(owner);
    free(owner);
}

void kb_health_checks_hosts_changed(struct kb_health_checks *checks,
                                    const struct kb_priority_set *set)
{
    struct kb_list *link, *next;

    checks->generation++;
    for (uint32_t p = 0; p < set->count; p++) {
        for (uint32_t i = 0; i < set->sets[p].all.count; i++) {
            struct kb_host *host = set->sets[p].all.hosts[i];

            if (host->check != NULL && host->check->disabled) {
                continue;
            }
            if (host->health != NULL) {
                host->health->generation = checks->generation;
            } else {
                host_start(checks, host);
            }
        }
    }
    for (link = checks->hosts.next; link != &checks->hosts; link = next) {
        struct kb_health_host *owner = KB_LIST_ENTRY(link, struct kb_health_host, link);

        next = link->next;
        if (owner->generation != checks->generation) {
            host_end(checks, owner);
        }
    }
    if (checks->awaited > 0 && kb_list_empty(&checks->hosts)) {
        checks->awaited = 0; /* nobody is left to answer */
        kb_init_target_ready(&checks->target);
    }
}

/* ---- what requests say ---- */

/* A host that said so, on its way to the main thread. */
struct told_message {
    KB_OBJ;
    struct kb_host *host;
};
KB_OBJ_MAGIC(told_message, 0x48435448);

static void told_received(void *arg)
{
    struct told_message *message = KB_CAST(arg, told_message);
    struct kb_health_host *owner = message->host->health;

    if (owner != NULL) {
        /* Envoy tells the check that was added last. */
        kb_health_session_passive(&owner->sessions[owner->sessions[0].checker->checks->count - 1]);
    }
    kb_host_unref(message->host);
    KB_OBJ_CLEAR(message);
    free(message);
}

void kb_host_told_unhealthy(struct kb_host *host)
{
    const struct kb_cluster_impl *cluster = kb_cluster_impl_of(host->cluster);
    struct told_message *message;

    if (!host->cluster->health_checked) {
        return;
    }
    message = kb_calloc(1, sizeof(*message));
    KB_OBJ_SET(message, told_message);
    message->host = kb_host_ref(host);
    kb_loop_post(kb_cluster_manager_loop(cluster->manager), told_received, message);
}

/* ---- warming ---- */

/* The cluster has its hosts: it waits for their answers. */
static void target_start(struct kb_init_target *target)
{
    struct kb_health_checks *checks = KB_CONTAINER_OF(target, struct kb_health_checks, target);

    KB_LIST_FOREACH (link, &checks->hosts) {
        (void)link;
        checks->awaited++;
    }
    if (checks->awaited == 0) {
        kb_init_target_ready(target);
    }
}

/* ---- the checks ---- */

/* Several need names, each its own. */
static void names_check(const Envoy__Config__Cluster__V3__Cluster *message, struct kb_diag *diag)
{
    for (size_t i = 0; i < message->n_health_checks && message->n_health_checks > 1; i++) {
        struct kb_str name = kb_str_from_cstr(message->health_checks[i]->name);

        if (name.len == 0) {
            kb_diag_error(diag,
                          "health check at index %zu is missing a name; all health checks must "
                          "have a name when multiple health checks are configured",
                          i);
        }
        for (size_t k = 0; k < i && name.len > 0; k++) {
            if (kb_str_eq(kb_str_from_cstr(message->health_checks[k]->name), name)) {
                kb_diag_error(diag,
                              "duplicate health check name '%.*s' at index %zu; all health check "
                              "names must be unique within a cluster",
                              KB_STR_ARG(name), i);
                break;
            }
        }
    }
}

static void checker_read(struct kb_health_checker *checker,
                         const Envoy__Config__Core__V3__HealthCheck *message,
                         struct kb_factory_context *factory, struct kb_diag *diag)
{
    checker->server = factory->server;
    kb_health_config_read(message, &checker->entry->cluster->api, &checker->config, diag);
    kb_health_events_read(checker, message, factory->arena, diag);
}

static void checker_start(struct kb_health_checker *checker,
                          const Envoy__Config__Core__V3__HealthCheck *message,
                          struct kb_factory_context *factory)
{
    struct kb_str name = kb_str_from_cstr(message->name);
    const char *dot = name.len > 0 ? "." : "";

    checker->group = kb_stat_group_create(
        factory->server->stats,
        kb_str_printf(factory->arena, "%shealth_check.%s%s%.*s", factory->stat_prefix,
                      name.len > 0 ? "name." : "", message->name, name.len > 0 ? 1 : 0, dot),
        &kb_stat_schema_health_check);
    checker->stats = kb_stat_group_block(checker->group, factory->server->main->index);
    kb_stat_gauge_add(checker->stats, KB_STAT_HEALTH_CHECK_HEALTHY, 0);
    kb_stat_gauge_add(checker->stats, KB_STAT_HEALTH_CHECK_DEGRADED, 0);
}

static void group_start(struct kb_health_checks *checks, struct kb_factory_context *factory)
{
    if (checks->count < 2) {
        return;
    }
    checks->group =
        kb_stat_group_create(factory->server->stats,
                             kb_str_printf(factory->arena, "%shealth_check.", factory->stat_prefix),
                             &kb_stat_schema_health_checks);
    checks->stats = kb_stat_group_block(checks->group, factory->server->main->index);
    kb_stat_gauge_add(checks->stats, KB_STAT_HEALTH_CHECKS_HEALTHY, 0);
    kb_stat_gauge_add(checks->stats, KB_STAT_HEALTH_CHECKS_DEGRADED, 0);
}

struct kb_health_checks *kb_health_checks_create(struct kb_cluster_entry *entry,
                                                 const Envoy__Config__Cluster__V3__Cluster *message,
                                                 struct kb_factory_context *factory,
                                                 struct kb_diag *diag)
{
    size_t count = KB_MIN(message->n_health_checks, (size_t)KB_HEALTH_CHECKS_MAX);
    struct kb_health_checks *checks;
    uint32_t errors = diag->error_count;

    if (count == 0) {
        return NULL;
    }
    checks = kb_calloc(1, sizeof(*checks) + count * sizeof(checks->items[0]));
    KB_OBJ_SET(checks, kb_health_checks);
    checks->entry = entry;
    checks->server = factory->server;
    checks->count = (uint32_t)count;
    kb_list_init(&checks->hosts);
    kb_deferred_init(&checks->refresh, refresh);
    kb_init_target_init(&checks->target, "health check", target_start);
    names_check(message, diag);
    for (uint32_t i = 0; i < checks->count; i++) {
        checks->items[i].checks = checks;
        checks->items[i].entry = entry;
        checks->items[i].index = i;
        kb_diag_push_index(diag, "health_checks", i);
        checker_read(&checks->items[i], message->health_checks[i], factory, diag);
        kb_diag_pop(diag);
    }
    if (diag->error_count != errors) {
        kb_health_checks_destroy(checks);
        return NULL;
    }
    for (uint32_t i = 0; i < checks->count; i++) {
        checker_start(&checks->items[i], message->health_checks[i], factory);
    }
    group_start(checks, factory);
    kb_init_manager_add(&entry->init, &checks->target);
    entry->cluster->api.health_checked = true;
    return checks;
}

void kb_health_checks_destroy(struct kb_health_checks *checks)
{
    if (checks == NULL) {
        return;
    }
    while (!kb_list_empty(&checks->hosts)) {
        host_end(checks, KB_LIST_ENTRY(checks->hosts.next, struct kb_health_host, link));
    }
    kb_deferred_cancel(&checks->refresh);
    kb_init_target_dispose(&checks->target);
    for (uint32_t i = 0; i < checks->count; i++) {
        kb_stat_group_destroy(checks->items[i].group);
        kb_health_config_dispose(&checks->items[i].config);
    }
    kb_stat_group_destroy(checks->group);
    KB_OBJ_CLEAR(checks);
    free(checks);
}
