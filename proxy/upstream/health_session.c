/* SPDX-License-Identifier: Apache-2.0 */
/* One check of one host: when it is asked, and what its answers make of it. */
#include "proxy/api/runtime.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/health_checker_internal.h"
#include "proxy/upstream/host.h"

enum transition { UNCHANGED, CHANGE_PENDING, CHANGED };

static struct kb_loop *loop_of(const struct kb_health_checker *checker)
{
    return &checker->server->main->loop;
}

static void flag_set(struct kb_health_session *session, uint32_t flag, bool on)
{
    session->flags = on ? session->flags | flag : session->flags & ~flag;
}

static bool flag_get(const struct kb_health_session *session, uint32_t flag)
{
    return (session->flags & flag) != 0;
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

/* The first answer is there; true: the host was left out of the count until now. */
static bool pending_end(struct kb_health_session *session)
{
    bool pending = flag_get(session, KB_HOST_PENDING_ACTIVE_HC);

    flag_set(session, KB_HOST_PENDING_ACTIVE_HC, false);
    return pending;
}

static enum transition session_fail(struct kb_health_session *session, enum kb_health_result result)
{
    struct kb_health_checker *checker = session->checker;
    bool at_once = result == KB_HEALTH_FAILED || result == KB_HEALTH_PASSIVE;
    bool network = result == KB_HEALTH_NETWORK || result == KB_HEALTH_TIMEOUT;
    enum transition transition = UNCHANGED;

    session->healthy_row = 0;
    if (!flag_get(session, KB_HOST_FAILED_ACTIVE_HC)) {
        transition = CHANGE_PENDING;
        if (at_once || ++session->unhealthy_row == checker->config.unhealthy_threshold) {
            flag_set(session, KB_HOST_FAILED_ACTIVE_HC, true);
            gauge_add(checker, KB_STAT_HEALTH_CHECK_HEALTHY, -1);
            transition = CHANGED;
            kb_health_event_log(session, KB_HEALTH_EVENT_EJECTED, result);
        }
    }
    flag_set(session, KB_HOST_ACTIVE_HC_TIMEOUT,
             result == KB_HEALTH_TIMEOUT && flag_get(session, KB_HOST_FAILED_ACTIVE_HC));
    if (pending_end(session)) {
        transition = CHANGED;
    }
    if (session->first_check || checker->config.log_failures) {
        kb_health_event_log(session, KB_HEALTH_EVENT_FAILURE, result);
    }
    kb_stat_inc(checker->stats, KB_STAT_HEALTH_CHECK_FAILURE);
    if (network) {
        kb_stat_inc(checker->stats, KB_STAT_HEALTH_CHECK_NETWORK_FAILURE);
    } else if (result == KB_HEALTH_PASSIVE) {
        kb_stat_inc(checker->stats, KB_STAT_HEALTH_CHECK_PASSIVE_FAILURE);
    }
    return transition;
}

static enum transition session_succeed(struct kb_health_session *session, bool degraded)
{
    struct kb_health_checker *checker = session->checker;
    enum transition transition = UNCHANGED;

    session->unhealthy_row = 0;
    if (flag_get(session, KB_HOST_FAILED_ACTIVE_HC)) {
        transition = CHANGE_PENDING;
        if (session->first_check || ++session->healthy_row == checker->config.healthy_threshold) {
            flag_set(session, KB_HOST_FAILED_ACTIVE_HC | KB_HOST_ACTIVE_HC_TIMEOUT, false);
            gauge_add(checker, KB_STAT_HEALTH_CHECK_HEALTHY, 1);
            transition = CHANGED;
            kb_health_event_log(session, KB_HEALTH_EVENT_ADDED, KB_HEALTH_OK);
        }
    }
    if (flag_get(session, KB_HOST_EXCLUDED_IMMEDIATE_HC)) {
        flag_set(session, KB_HOST_EXCLUDED_IMMEDIATE_HC, false);
        transition = transition == UNCHANGED ? CHANGED : transition;
    }
    if (flag_get(session, KB_HOST_DEGRADED_ACTIVE_HC) != degraded) {
        flag_set(session, KB_HOST_DEGRADED_ACTIVE_HC, degraded);
        gauge_add(checker, KB_STAT_HEALTH_CHECK_DEGRADED, degraded ? 1 : -1);
        kb_health_event_log(
            session, degraded ? KB_HEALTH_EVENT_DEGRADED : KB_HEALTH_EVENT_NO_LONGER_DEGRADED,
            KB_HEALTH_OK);
        transition = transition == UNCHANGED ? CHANGED : transition;
    }
    if (pending_end(session)) {
        transition = CHANGED;
    }
    if (checker->config.log_successes) {
        kb_health_event_log(session, KB_HEALTH_EVENT_SUCCESS, KB_HEALTH_OK);
    }
    kb_stat_inc(checker->stats, KB_STAT_HEALTH_CHECK_SUCCESS);
    return transition;
}

static void session_answer(struct kb_health_session *session, enum kb_health_result result)
{
    struct kb_health_checker *checker = session->checker;
    bool healthy = result == KB_HEALTH_OK || result == KB_HEALTH_DEGRADED;
    enum transition transition = healthy ? session_succeed(session, result == KB_HEALTH_DEGRADED)
                                         : session_fail(session, result);

    session->first_check = false;
    if (result != KB_HEALTH_PASSIVE) {
        kb_loop_timer_cancel(loop_of(checker), &session->timeout_timer);
        kb_loop_timer_arm(loop_of(checker), &session->interval_timer,
                          interval_ms(checker, healthy, transition));
    }
    kb_health_host_combine(session, transition == CHANGED, healthy);
}

void kb_health_session_answer(struct kb_health_session *session, enum kb_health_result result)
{
    session_answer(session, result);
}

void kb_health_session_passive(struct kb_health_session *session)
{
    flag_set(session, KB_HOST_EXCLUDED_IMMEDIATE_HC, true);
    session_answer(session, KB_HEALTH_PASSIVE);
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
    session_answer(session, KB_HEALTH_TIMEOUT);
}

void kb_health_session_start(struct kb_health_session *session, struct kb_health_checker *checker,
                             struct kb_health_host *owner)
{
    uint64_t jitter_ms = checker->config.initial_jitter_ms;

    KB_OBJ_SET(session, kb_health_session);
    session->checker = checker;
    session->owner = owner;
    session->host = owner->host;
    session->flags = __atomic_load_n(&owner->host->health_flags, __ATOMIC_RELAXED) &
                     (uint32_t)KB_HOST_ACTIVE_HC_FLAGS;
    session->first_check = true;
    kb_timer_init(&session->interval_timer, interval_fired);
    kb_timer_init(&session->timeout_timer, timeout_fired);
    kb_arena_init(&session->probe.arena, NULL);
    if (!flag_get(session, KB_HOST_FAILED_ACTIVE_HC)) {
        gauge_add(checker, KB_STAT_HEALTH_CHECK_HEALTHY, 1);
    }
    if (jitter_ms > 0) {
        kb_loop_timer_arm(loop_of(checker), &session->interval_timer,
                          jitter_add(checker, 0, jitter_ms));
    } else {
        session_check(session);
    }
}

void kb_health_session_end(struct kb_health_session *session)
{
    struct kb_health_checker *checker = session->checker;

    kb_health_probe_close(session);
    kb_loop_timer_cancel(loop_of(checker), &session->interval_timer);
    kb_loop_timer_cancel(loop_of(checker), &session->timeout_timer);
    if (!flag_get(session, KB_HOST_FAILED_ACTIVE_HC)) {
        gauge_add(checker, KB_STAT_HEALTH_CHECK_HEALTHY, -1);
    }
    if (flag_get(session, KB_HOST_DEGRADED_ACTIVE_HC)) {
        gauge_add(checker, KB_STAT_HEALTH_CHECK_DEGRADED, -1);
    }
    kb_arena_dispose(&session->probe.arena);
    KB_OBJ_CLEAR(session);
}
