/* SPDX-License-Identifier: Apache-2.0 */
/* When a host is asked, what its answers make of it, and when workers hear of that. */
#include "proxy/upstream/health_checker.h"

#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"
#include "proxy/api/runtime.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/health_checker_internal.h"
#include "proxy/upstream/host.h"

enum transition { UNCHANGED, CHANGE_PENDING, CHANGED };

static struct kb_loop *loop_of(const struct kb_health_checker *checker)
{
    return &checker->server->main->loop;
}

static void flag_set(struct kb_host *host, uint32_t flag, bool on)
{
    if (on) {
        __atomic_fetch_or(&host->health_flags, flag, __ATOMIC_RELAXED);
    } else {
        __atomic_fetch_and(&host->health_flags, ~flag, __ATOMIC_RELAXED);
    }
}

static bool flag_get(const struct kb_host *host, uint32_t flag)
{
    return (__atomic_load_n(&host->health_flags, __ATOMIC_RELAXED) & flag) != 0;
}

static void gauge_add(struct kb_health_checker *checker, unsigned id, int64_t n)
{
    kb_stat_gauge_add(checker->stats, id, n);
}

/* ---- when ---- */

static uint64_t jitter_add(struct kb_health_checker *checker, uint64_t base_ms, uint64_t jitter_ms)
{
    const struct kb_runtime *runtime = checker->server->runtime;
    struct kb_rand *rand = &checker->server->main->rand;
    uint64_t part_ms = checker->config.interval_jitter_percent * base_ms / 100;
    uint64_t min_ms, max_ms;

    if (part_ms > 0) {
        base_ms += kb_rand_u64(rand) % part_ms;
    }
    if (jitter_ms > 0) {
        base_ms += kb_rand_u64(rand) % jitter_ms;
    }
    min_ms = kb_runtime_get_u64(runtime, KB_STR("health_check.min_interval"), 1);
    max_ms = kb_runtime_get_u64(runtime, KB_STR("health_check.max_interval"), UINT64_MAX);
    return KB_MAX(KB_MIN(base_ms, max_ms), KB_MAX(min_ms, 1));
}

/* Until the next check. A cluster without traffic is asked seldom. */
static uint64_t interval_ms(struct kb_health_checker *checker, bool healthy,
                            enum transition transition)
{
    const struct kb_health_config *config = &checker->config;
    bool pending = transition == CHANGE_PENDING;
    uint64_t base_ms;

    if (kb_stat_group_value(checker->entry->cluster->api.stats,
                            KB_STAT_CLUSTER_UPSTREAM_CX_TOTAL) == 0) {
        base_ms = healthy && !pending ? config->no_traffic_healthy_interval_ms
                                      : config->no_traffic_interval_ms;
    } else if (healthy) {
        base_ms = pending ? config->healthy_edge_interval_ms : config->interval_ms;
    } else {
        base_ms = pending ? config->unhealthy_edge_interval_ms : config->unhealthy_interval_ms;
    }
    return jitter_add(checker, base_ms, config->interval_jitter_ms);
}

/* ---- answers ---- */

static enum transition session_fail(struct kb_health_session *session, enum kb_health_result result)
{
    struct kb_health_checker *checker = session->checker;
    bool at_once = result == KB_HEALTH_FAILED;
    bool network = result == KB_HEALTH_NETWORK || result == KB_HEALTH_TIMEOUT;
    enum transition transition = UNCHANGED;

    session->healthy_row = 0;
    if (!flag_get(session->host, KB_HOST_FAILED_ACTIVE_HC)) {
        transition = CHANGE_PENDING;
        if (at_once || ++session->unhealthy_row == checker->config.unhealthy_threshold) {
            flag_set(session->host, KB_HOST_FAILED_ACTIVE_HC, true);
            gauge_add(checker, KB_STAT_HEALTH_CHECK_HEALTHY, -1);
            transition = CHANGED;
            kb_health_event_log(session, KB_HEALTH_EVENT_EJECTED, result);
        }
    }
    flag_set(session->host, KB_HOST_ACTIVE_HC_TIMEOUT,
             result == KB_HEALTH_TIMEOUT && flag_get(session->host, KB_HOST_FAILED_ACTIVE_HC));
    if (session->first_check || checker->config.log_failures) {
        kb_health_event_log(session, KB_HEALTH_EVENT_FAILURE, result);
    }
    kb_stat_inc(checker->stats, KB_STAT_HEALTH_CHECK_FAILURE);
    if (network) {
        kb_stat_inc(checker->stats, KB_STAT_HEALTH_CHECK_NETWORK_FAILURE);
    }
    return transition;
}

static enum transition session_succeed(struct kb_health_session *session, bool degraded)
{
    struct kb_health_checker *checker = session->checker;
    enum transition transition = UNCHANGED;

    session->unhealthy_row = 0;
    if (flag_get(session->host, KB_HOST_FAILED_ACTIVE_HC)) {
        transition = CHANGE_PENDING;
        if (session->first_check || ++session->healthy_row == checker->config.healthy_threshold) {
            flag_set(session->host, KB_HOST_FAILED_ACTIVE_HC | KB_HOST_ACTIVE_HC_TIMEOUT, false);
            gauge_add(checker, KB_STAT_HEALTH_CHECK_HEALTHY, 1);
            transition = CHANGED;
            kb_health_event_log(session, KB_HEALTH_EVENT_ADDED, KB_HEALTH_OK);
        }
    }
    if (flag_get(session->host, KB_HOST_EXCLUDED_IMMEDIATE_HC)) {
        flag_set(session->host, KB_HOST_EXCLUDED_IMMEDIATE_HC, false);
        transition = transition == UNCHANGED ? CHANGED : transition;
    }
    if (flag_get(session->host, KB_HOST_DEGRADED_ACTIVE_HC) != degraded) {
        flag_set(session->host, KB_HOST_DEGRADED_ACTIVE_HC, degraded);
        gauge_add(checker, KB_STAT_HEALTH_CHECK_DEGRADED, degraded ? 1 : -1);
        kb_health_event_log(
            session, degraded ? KB_HEALTH_EVENT_DEGRADED : KB_HEALTH_EVENT_NO_LONGER_DEGRADED,
            KB_HEALTH_OK);
        transition = transition == UNCHANGED ? CHANGED : transition;
    }
    if (checker->config.log_successes) {
        kb_health_event_log(session, KB_HEALTH_EVENT_SUCCESS, KB_HEALTH_OK);
    }
    kb_stat_inc(checker->stats, KB_STAT_HEALTH_CHECK_SUCCESS);
    return transition;
}

void kb_health_session_answer(struct kb_health_session *session, enum kb_health_result result)
{
    struct kb_health_checker *checker = session->checker;
    bool healthy = result == KB_HEALTH_OK || result == KB_HEALTH_DEGRADED;
    enum transition transition = healthy ? session_succeed(session, result == KB_HEALTH_DEGRADED)
                                         : session_fail(session, result);

    session->first_check = false;
    if (transition == CHANGED || flag_get(session->host, KB_HOST_EXCLUDED_IMMEDIATE_HC)) {
        kb_loop_defer(loop_of(checker), &checker->refresh);
    }
    kb_loop_timer_cancel(loop_of(checker), &session->timeout_timer);
    kb_loop_timer_arm(loop_of(checker), &session->interval_timer,
                      interval_ms(checker, healthy, transition));
    if (checker->awaited > 0 && --checker->awaited == 0) {
        /* Workers shall know the health with the cluster. */
        kb_deferred_cancel(&checker->refresh);
        kb_cluster_entry_refresh_hosts(checker->entry);
        kb_init_target_ready(&checker->target);
    }
}

/* ---- sessions ---- */

static void session_check(struct kb_health_session *session)
{
    struct kb_health_checker *checker = session->checker;

    kb_loop_timer_arm(loop_of(checker), &session->timeout_timer, checker->config.timeout_ms);
    kb_stat_inc(checker->stats, KB_STAT_HEALTH_CHECK_ATTEMPT);
    kb_health_probe_start(session);
}

static void interval_fired(struct kb_timer *timer)
{
    session_check(KB_CONTAINER_OF(timer, struct kb_health_session, interval_timer));
}

static void timeout_fired(struct kb_timer *timer)
{
    struct kb_health_session *session =
        KB_CONTAINER_OF(timer, struct kb_health_session, timeout_timer);

    kb_health_probe_cancel(session);
    kb_health_session_answer(session, KB_HEALTH_TIMEOUT);
}

static void session_create(struct kb_health_checker *checker, struct kb_host *host)
{
    struct kb_health_session *session = kb_calloc(1, sizeof(*session));
    uint64_t jitter_ms = checker->config.initial_jitter_ms;

    KB_OBJ_SET(session, kb_health_session);
    session->checker = checker;
    session->host = kb_host_ref(host);
    session->first_check = true;
    session->generation = checker->generation;
    kb_timer_init(&session->interval_timer, interval_fired);
    kb_timer_init(&session->timeout_timer, timeout_fired);
    kb_arena_init(&session->probe.arena, NULL);
    kb_list_push_back(&checker->sessions, &session->link);
    if (!flag_get(host, KB_HOST_FAILED_ACTIVE_HC)) {
        gauge_add(checker, KB_STAT_HEALTH_CHECK_HEALTHY, 1);
    }
    if (jitter_ms > 0) {
        kb_loop_timer_arm(loop_of(checker), &session->interval_timer,
                          jitter_add(checker, 0, jitter_ms));
    } else {
        session_check(session);
    }
}

static void session_destroy(struct kb_health_session *session)
{
    struct kb_health_checker *checker = session->checker;

    kb_health_probe_close(session);
    kb_loop_timer_cancel(loop_of(checker), &session->interval_timer);
    kb_loop_timer_cancel(loop_of(checker), &session->timeout_timer);
    kb_list_unlink(&session->link);
    if (!flag_get(session->host, KB_HOST_FAILED_ACTIVE_HC)) {
        gauge_add(checker, KB_STAT_HEALTH_CHECK_HEALTHY, -1);
    }
    if (flag_get(session->host, KB_HOST_DEGRADED_ACTIVE_HC)) {
        gauge_add(checker, KB_STAT_HEALTH_CHECK_DEGRADED, -1);
    }
    kb_arena_dispose(&session->probe.arena);
    kb_host_unref(session->host);
    KB_OBJ_CLEAR(session);
    free(session);
}

/* ---- the checker ---- */

static void refresh(struct kb_deferred *deferred)
{
    kb_cluster_entry_refresh_hosts(
        KB_CONTAINER_OF(deferred, struct kb_health_checker, refresh)->entry);
}

static uint32_t sessions_count(const struct kb_health_checker *checker)
{
    uint32_t count = 0;

    KB_LIST_FOREACH (link, &checker->sessions) {
        (void)link;
        count++;
    }
    return count;
}

/* The cluster has its hosts: it waits for their answers. */
static void target_start(struct kb_init_target *target)
{
    struct kb_health_checker *checker = KB_CONTAINER_OF(target, struct kb_health_checker, target);

    checker->awaited = sessions_count(checker);
    if (checker->awaited == 0) {
        kb_init_target_ready(target);
    }
}

struct kb_health_checker *
kb_health_checker_create(struct kb_cluster_entry *entry,
                         const Envoy__Config__Cluster__V3__Cluster *message,
                         struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_health_checker *checker;
    uint32_t errors = diag->error_count;

    if (message->n_health_checks == 0 || !kb_health_config_known(message->health_checks[0])) {
        return NULL;
    }
    checker = kb_calloc(1, sizeof(*checker));
    KB_OBJ_SET(checker, kb_health_checker);
    checker->entry = entry;
    checker->server = factory->server;
    kb_list_init(&checker->sessions);
    kb_deferred_init(&checker->refresh, refresh);
    kb_init_target_init(&checker->target, "health check", target_start);
    if (message->n_health_checks > 1) {
        kb_diag_error(diag, "Multiple health checks not supported");
    }
    kb_diag_push_index(diag, "health_checks", 0);
    kb_health_config_read(message->health_checks[0], &entry->cluster->api, &checker->config, diag);
    kb_health_events_read(checker, message->health_checks[0], factory->arena, diag);
    kb_diag_pop(diag);
    if (diag->error_count != errors) {
        kb_health_checker_destroy(checker);
        return NULL;
    }
    checker->group =
        kb_stat_group_create(factory->server->stats,
                             kb_str_printf(factory->arena, "%shealth_check.", factory->stat_prefix),
                             &kb_stat_schema_health_check);
    checker->stats = kb_stat_group_block(checker->group, factory->server->main->index);
    gauge_add(checker, KB_STAT_HEALTH_CHECK_HEALTHY, 0);
    gauge_add(checker, KB_STAT_HEALTH_CHECK_DEGRADED, 0);
    kb_init_manager_add(&entry->init, &checker->target);
    entry->cluster->api.health_checked = true;
    return checker;
}

void kb_health_checker_destroy(struct kb_health_checker *checker)
{
    if (checker == NULL) {
        return;
    }
    while (!kb_list_empty(&checker->sessions)) {
        session_destroy(KB_LIST_ENTRY(checker->sessions.next, struct kb_health_session, link));
    }
    kb_deferred_cancel(&checker->refresh);
    kb_init_target_dispose(&checker->target);
    kb_stat_group_destroy(checker->group);
    kb_health_config_dispose(&checker->config);
    KB_OBJ_CLEAR(checker);
    free(checker);
}

static struct kb_str host_key(struct kb_host *const *host)
{
    return kb_str_make((const char *)host, sizeof(*host));
}

void kb_health_checker_hosts_changed(struct kb_health_checker *checker,
                                     const struct kb_priority_set *set)
{
    struct kb_list *link, *next;
    struct kb_map known;

    kb_map_init(&known);
    checker->generation++;
    KB_LIST_FOREACH (at, &checker->sessions) {
        struct kb_health_session *session = KB_LIST_ENTRY(at, struct kb_health_session, link);

        (void)kb_map_put(&known, host_key(&session->host), session);
    }
    for (uint32_t p = 0; p < set->count; p++) {
        for (uint32_t i = 0; i < set->sets[p].all.count; i++) {
            struct kb_host *const *host = &set->sets[p].all.hosts[i];
            struct kb_health_session *session = kb_map_get(&known, host_key(host));

            if ((*host)->check != NULL && (*host)->check->disabled) {
                continue;
            }
            if (session != NULL) {
                session->generation = checker->generation;
            } else {
                session_create(checker, *host);
            }
        }
    }
    kb_map_dispose(&known);
    for (link = checker->sessions.next; link != &checker->sessions; link = next) {
        struct kb_health_session *session = KB_LIST_ENTRY(link, struct kb_health_session, link);

        next = link->next;
        if (session->generation != checker->generation) {
            session_destroy(session);
        }
    }
    if (checker->awaited > 0 && kb_list_empty(&checker->sessions)) {
        checker->awaited = 0; /* nobody is left to answer */
        kb_init_target_ready(&checker->target);
    }
}
