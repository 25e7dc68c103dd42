/* SPDX-License-Identifier: Apache-2.0 */
/* Between the workers, which see results, and the arithmetic of outlier.c, which runs on the main
 * thread: a worker counts in its own cells, and posts only when a row of failures is complete. */
#include "proxy/upstream/outlier_detector.h"

#include <math.h>
#include <stdlib.h>

#include "envoy/data/cluster/v3/outlier_detection_event.pb-c.h"

#include "base/mem.h"
#include "proto/pb.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/config_read.h"
#include "proxy/upstream/host.h"

typedef Envoy__Data__Cluster__V3__OutlierDetectionEvent OutlierDetectionEvent;

struct kb_outlier_detector {
    KB_OBJ;
    struct kb_outlier core;
    struct kb_cluster_entry *entry;
    struct kb_server_context *server;
    uint32_t generation;
    struct kb_timer timer;
    struct kb_deferred refresh;
};
KB_OBJ_MAGIC(kb_outlier_detector, 0x4f55544c);

/* ---- configuration ---- */

static void value_read(struct kb_outlier_config *config, enum kb_outlier_param param,
                       const Google__Protobuf__UInt32Value *value)
{
    if (value != NULL) {
        config->params[param] = value->value;
    }
}

static void durations_read(const Envoy__Config__Cluster__V3__OutlierDetection *m,
                           struct kb_outlier_config *config, struct kb_diag *diag)
{
    uint64_t *params = config->params;

    params[KB_OUTLIER_INTERVAL_MS] =
        kb_config_duration_ms(m->interval, "interval", params[KB_OUTLIER_INTERVAL_MS], diag);
    params[KB_OUTLIER_BASE_EJECTION_TIME_MS] =
        kb_config_duration_ms(m->base_ejection_time, "base_ejection_time",
                              params[KB_OUTLIER_BASE_EJECTION_TIME_MS], diag);
    params[KB_OUTLIER_MAX_EJECTION_TIME_MS] = kb_config_duration_ms(
        m->max_ejection_time, "max_ejection_time",
        KB_MAX(params[KB_OUTLIER_MAX_EJECTION_TIME_MS], params[KB_OUTLIER_BASE_EJECTION_TIME_MS]),
        diag);
    params[KB_OUTLIER_MAX_EJECTION_TIME_JITTER_MS] =
        kb_config_duration_ms(m->max_ejection_time_jitter, "max_ejection_time_jitter", 0, diag);
    if (params[KB_OUTLIER_MAX_EJECTION_TIME_MS] < params[KB_OUTLIER_BASE_EJECTION_TIME_MS]) {
        kb_diag_error(diag, "outlier detector's max_ejection_time cannot be smaller than "
                            "base_ejection_time");
    }
}

void kb_outlier_config_read(const Envoy__Config__Cluster__V3__OutlierDetection *m,
                            struct kb_cluster_impl *cluster, struct kb_diag *diag)
{
    struct kb_outlier_config *c;

    if (m == NULL) {
        return;
    }
    cluster->outlier = c = kb_malloc(sizeof(*c));
    kb_outlier_config_init(c);
    c->split_external_local_origin_errors = m->split_external_local_origin_errors != 0;
    c->unejected_by_health_check = m->successful_active_health_check_uneject_host == NULL ||
                                   m->successful_active_health_check_uneject_host->value != 0;
    c->always_eject_one_host =
        m->always_eject_one_host != NULL && m->always_eject_one_host->value != 0;
    value_read(c, KB_OUTLIER_CONSECUTIVE_5XX, m->consecutive_5xx);
    value_read(c, KB_OUTLIER_CONSECUTIVE_GATEWAY_FAILURE, m->consecutive_gateway_failure);
    value_read(c, KB_OUTLIER_CONSECUTIVE_LOCAL_ORIGIN_FAILURE, m->consecutive_local_origin_failure);
    value_read(c, KB_OUTLIER_MAX_EJECTION_PERCENT, m->max_ejection_percent);
    value_read(c, KB_OUTLIER_SUCCESS_RATE_MINIMUM_HOSTS, m->success_rate_minimum_hosts);
    value_read(c, KB_OUTLIER_SUCCESS_RATE_REQUEST_VOLUME, m->success_rate_request_volume);
    value_read(c, KB_OUTLIER_SUCCESS_RATE_STDEV_FACTOR, m->success_rate_stdev_factor);
    value_read(c, KB_OUTLIER_FAILURE_PERCENTAGE_THRESHOLD, m->failure_percentage_threshold);
    value_read(c, KB_OUTLIER_FAILURE_PERCENTAGE_MINIMUM_HOSTS, m->failure_percentage_minimum_hosts);
    value_read(c, KB_OUTLIER_FAILURE_PERCENTAGE_REQUEST_VOLUME,
               m->failure_percentage_request_volume);
    value_read(c, KB_OUTLIER_ENFORCING_CONSECUTIVE_5XX, m->enforcing_consecutive_5xx);
    value_read(c, KB_OUTLIER_ENFORCING_CONSECUTIVE_GATEWAY_FAILURE,
               m->enforcing_consecutive_gateway_failure);
    value_read(c, KB_OUTLIER_ENFORCING_CONSECUTIVE_LOCAL_ORIGIN_FAILURE,
               m->enforcing_consecutive_local_origin_failure);
    value_read(c, KB_OUTLIER_ENFORCING_SUCCESS_RATE, m->enforcing_success_rate);
    value_read(c, KB_OUTLIER_ENFORCING_LOCAL_ORIGIN_SUCCESS_RATE,
               m->enforcing_local_origin_success_rate);
    value_read(c, KB_OUTLIER_ENFORCING_FAILURE_PERCENTAGE, m->enforcing_failure_percentage);
    value_read(c, KB_OUTLIER_ENFORCING_FAILURE_PERCENTAGE_LOCAL_ORIGIN,
               m->enforcing_failure_percentage_local_origin);
    kb_diag_push(diag, "outlier_detection");
    durations_read(m, c, diag);
    kb_diag_pop(diag);
}

void kb_outlier_config_start(struct kb_cluster_impl *cluster, struct kb_stat_store *store,
                             struct kb_str stat_prefix, struct kb_arena *arena)
{
    if (cluster->outlier != NULL) {
        cluster->outlier_stats = kb_stat_group_create(
            store, kb_str_printf(arena, "%.*soutlier_detection.", KB_STR_ARG(stat_prefix)),
            &kb_stat_schema_outlier_detection);
    }
}

void kb_outlier_config_dispose(struct kb_cluster_impl *cluster)
{
    kb_stat_group_destroy(cluster->outlier_stats);
    free(cluster->outlier);
}

/* ---- results, on the workers ---- */

/* A row that a worker saw complete; holds the host. */
struct row_message {
    KB_OBJ;
    struct kb_host *host;
    enum kb_outlier_type type;
};
KB_OBJ_MAGIC(row_message, 0x4f524f57);

static void row_received(void *arg)
{
    struct row_message *message = KB_CAST(arg, row_message);
    struct kb_host *host = message->host;
    struct kb_outlier *core = host->outlier->detector;

    if (core != NULL) {
        struct kb_outlier_detector *detector =
            KB_CONTAINER_OF(core, struct kb_outlier_detector, core);

        kb_outlier_on_row(core, host->outlier, message->type,
                          kb_loop_now_ms(&detector->server->main->loop));
    }
    KB_OBJ_CLEAR(message);
    free(message);
    kb_host_unref(host);
}

static KB_NOINLINE void rows_send(struct kb_host *host, struct kb_loop *loop, unsigned reached)
{
    for (unsigned type = 0; type < KB_OUTLIER_TYPE_COUNT; type++) {
        if ((reached & 1u << type) != 0) {
            struct row_message *message = kb_calloc(1, sizeof(*message));

            KB_OBJ_SET(message, row_message);
            message->host = kb_host_ref(host);
            message->type = (enum kb_outlier_type)type;
            kb_loop_post(loop, row_received, message);
        }
    }
}

static void cell_inc(uint32_t *cell)
{
    __atomic_store_n(cell, *cell + 1, __ATOMIC_RELAXED);
}

static void result_count(struct kb_host_local *local, enum kb_outlier_origin origin, bool success)
{
    cell_inc(&local->outlier_total[origin]);
    if (success) {
        cell_inc(&local->outlier_success[origin]);
    }
}

/* Errors of this side stand apart. */
static unsigned result_split(struct kb_host_local *local, const struct kb_outlier_config *config,
                             const struct kb_runtime *runtime, enum kb_outlier_result result)
{
    struct kb_outlier_host *state = local->host->outlier;

    switch (result) {
    case KB_OUTLIER_REQUEST_FAILED:
        result_count(local, KB_OUTLIER_EXTERNAL, false);
        return kb_outlier_count_code(state, config, runtime, 503);
    case KB_OUTLIER_REQUEST_SUCCESS:
        result_count(local, KB_OUTLIER_EXTERNAL, true);
        (void)kb_outlier_count_code(state, config, runtime, 200);
        result_count(local, KB_OUTLIER_LOCAL, true);
        return kb_outlier_count_local(state, config, runtime, true);
    case KB_OUTLIER_CONNECT_SUCCESS:
    case KB_OUTLIER_CONNECT_SUCCESS_FINAL:
        result_count(local, KB_OUTLIER_LOCAL, true);
        return kb_outlier_count_local(state, config, runtime, true);
    case KB_OUTLIER_CONNECT_FAILED:
    case KB_OUTLIER_TIMEOUT:
        break;
    }
    result_count(local, KB_OUTLIER_LOCAL, false);
    return kb_outlier_count_local(state, config, runtime, false);
}

/* The HTTP status that a result stands for, 0: none. */
static unsigned result_code(enum kb_outlier_result result)
{
    switch (result) {
    case KB_OUTLIER_REQUEST_FAILED:
        return 500;
    case KB_OUTLIER_REQUEST_SUCCESS:
    case KB_OUTLIER_CONNECT_SUCCESS_FINAL:
        return 200;
    case KB_OUTLIER_CONNECT_FAILED:
        return 503;
    case KB_OUTLIER_TIMEOUT:
        return 504;
    case KB_OUTLIER_CONNECT_SUCCESS:
        break; /* what is spoken on the connection says how it went */
    }
    return 0;
}

void kb_outlier_put_result(struct kb_host_local *local, enum kb_outlier_result result,
                           unsigned code)
{
    const struct kb_cluster_impl *cluster = kb_cluster_impl_of(local->host->cluster);
    const struct kb_runtime *runtime = kb_cluster_manager_server(cluster->manager)->runtime;
    unsigned reached;

    if (cluster->outlier->split_external_local_origin_errors) {
        reached = result_split(local, cluster->outlier, runtime, result);
    } else {
        code = code != 0 ? code : result_code(result);
        if (code == 0) {
            return;
        }
        result_count(local, KB_OUTLIER_EXTERNAL, code < 500 || code > 599);
        reached = kb_outlier_count_code(local->host->outlier, cluster->outlier, runtime, code);
    }
    if (KB_UNLIKELY(reached != 0)) {
        rows_send(local->host, kb_cluster_manager_loop(cluster->manager), reached);
    }
}

/* ---- the owner of outlier.c, on the main thread ---- */

static void counts_sum(const struct kb_outlier_host *state, uint32_t *total, uint32_t *success)
{
    const struct kb_host *host = state->host;

    for (uint32_t i = 0; i < host->local_count; i++) {
        const struct kb_host_local *local = __atomic_load_n(&host->locals[i], __ATOMIC_ACQUIRE);

        for (unsigned k = 0; local != NULL && k < KB_OUTLIER_ORIGIN_COUNT; k++) {
            total[k] += __atomic_load_n(&local->outlier_total[k], __ATOMIC_RELAXED);
            success[k] += __atomic_load_n(&local->outlier_success[k], __ATOMIC_RELAXED);
        }
    }
}

static void host_changed(void *arg, struct kb_outlier_host *state)
{
    struct kb_outlier_detector *detector = KB_CAST(arg, kb_outlier_detector);
    struct kb_server_context *server = detector->server;

    if (state->ejected) {
        __atomic_fetch_or(&state->host->health_flags, KB_HOST_FAILED_OUTLIER, __ATOMIC_RELAXED);
        kb_host_failed(state->host, server);
    } else {
        __atomic_fetch_and(&state->host->health_flags, ~(uint32_t)KB_HOST_FAILED_OUTLIER,
                           __ATOMIC_RELAXED);
    }
    kb_loop_defer(&server->main->loop, &detector->refresh);
}

void kb_outlier_host_passed(struct kb_host *host, uint64_t now_ms)
{
    struct kb_outlier_host *state = host->outlier;

    if (state != NULL && state->detector != NULL &&
        state->detector->config->unejected_by_health_check) {
        kb_outlier_uneject(state->detector, state, now_ms);
    }
}

/* ---- the event log ---- */

#define NEW(arena, lower, type) ((type *)(void *)kb_pb_new(&lower##__descriptor, (arena)))

static void event_rates_set(const struct kb_outlier_detector *detector,
                            const struct kb_outlier_host *state, enum kb_outlier_type type,
                            struct kb_arena *arena, OutlierDetectionEvent *event)
{
    enum kb_outlier_origin origin =
        type == KB_OUTLIER_TYPE_SUCCESS_RATE || type == KB_OUTLIER_TYPE_FAILURE_PERCENTAGE
            ? KB_OUTLIER_EXTERNAL
            : KB_OUTLIER_LOCAL;
    uint32_t rate = (uint32_t)state->success_rate[origin];

    if (type == KB_OUTLIER_TYPE_SUCCESS_RATE || type == KB_OUTLIER_TYPE_SUCCESS_RATE_LOCAL_ORIGIN) {
        event->event_case =
            ENVOY__DATA__CLUSTER__V3__OUTLIER_DETECTION_EVENT__EVENT_EJECT_SUCCESS_RATE_EVENT;
        event->eject_success_rate_event =
            NEW(arena, envoy__data__cluster__v3__outlier_eject_success_rate,
                Envoy__Data__Cluster__V3__OutlierEjectSuccessRate);
        event->eject_success_rate_event->host_success_rate = rate;
        event->eject_success_rate_event->cluster_average_success_rate =
            (uint32_t)detector->core.success_rate_average[origin];
        event->eject_success_rate_event->cluster_success_rate_ejection_threshold =
            (uint32_t)fmax(0, detector->core.success_rate_threshold[origin]);
        return;
    }
    event->event_case =
        ENVOY__DATA__CLUSTER__V3__OUTLIER_DETECTION_EVENT__EVENT_EJECT_FAILURE_PERCENTAGE_EVENT;
    event->eject_failure_percentage_event =
        NEW(arena, envoy__data__cluster__v3__outlier_eject_failure_percentage,
            Envoy__Data__Cluster__V3__OutlierEjectFailurePercentage);
    event->eject_failure_percentage_event->host_success_rate = rate;
}

static void event_fill(const struct kb_outlier_detector *detector,
                       const struct kb_outlier_host *state, enum kb_outlier_type type,
                       struct kb_arena *arena, OutlierDetectionEvent *event)
{
    event->action = ENVOY__DATA__CLUSTER__V3__ACTION__EJECT;
    event->type = (Envoy__Data__Cluster__V3__OutlierEjectionType)type;
    switch (type) {
    case KB_OUTLIER_TYPE_5XX:
    case KB_OUTLIER_TYPE_GATEWAY_FAILURE:
    case KB_OUTLIER_TYPE_LOCAL_ORIGIN_FAILURE:
        event->event_case =
            ENVOY__DATA__CLUSTER__V3__OUTLIER_DETECTION_EVENT__EVENT_EJECT_CONSECUTIVE_EVENT;
        event->eject_consecutive_event =
            NEW(arena, envoy__data__cluster__v3__outlier_eject_consecutive,
                Envoy__Data__Cluster__V3__OutlierEjectConsecutive);
        return;
    case KB_OUTLIER_TYPE_SUCCESS_RATE:
    case KB_OUTLIER_TYPE_SUCCESS_RATE_LOCAL_ORIGIN:
    case KB_OUTLIER_TYPE_FAILURE_PERCENTAGE:
    case KB_OUTLIER_TYPE_FAILURE_PERCENTAGE_LOCAL_ORIGIN:
        event_rates_set(detector, state, type, arena, event);
        return;
    case KB_OUTLIER_TYPE_COUNT: /* it is back in */
        break;
    }
    event->action = ENVOY__DATA__CLUSTER__V3__ACTION__UNEJECT;
    event->type = ENVOY__DATA__CLUSTER__V3__OUTLIER_EJECTION_TYPE__CONSECUTIVE_5XX;
}

static void event_log(void *arg, const struct kb_outlier_host *state, enum kb_outlier_type type,
                      bool enforced, uint64_t since_ms)
{
    const struct kb_outlier_detector *detector = KB_CAST(arg, kb_outlier_detector);
    const struct kb_cluster_manager *manager = detector->entry->manager;
    uint64_t wall_ns = kb_loop_wall_ns(&detector->server->main->loop);
    OutlierDetectionEvent *event;
    struct kb_arena arena;

    if (!kb_cluster_manager_has_outlier_log(manager)) {
        return;
    }
    kb_arena_init(&arena, NULL);
    event = NEW(&arena, envoy__data__cluster__v3__outlier_detection_event, OutlierDetectionEvent);
    event_fill(detector, state, type, &arena, event);
    event->timestamp = NEW(&arena, google__protobuf__timestamp, Google__Protobuf__Timestamp);
    event->timestamp->seconds = (int64_t)(wall_ns / 1000000000);
    event->timestamp->nanos = (int32_t)(wall_ns / 1000000 % 1000 * 1000000);
    if (since_ms != UINT64_MAX) {
        event->secs_since_last_action =
            NEW(&arena, google__protobuf__uint64_value, Google__Protobuf__UInt64Value);
        event->secs_since_last_action->value = since_ms / 1000;
    }
    event->cluster_name = (char *)(uintptr_t)kb_str_printf(
                              &arena, "%.*s", KB_STR_ARG(detector->entry->cluster->api.name))
                              .p;
    event->upstream_url =
        (char *)(uintptr_t)kb_str_printf(&arena, "%.*s", KB_STR_ARG(kb_host_addr_text(state->host)))
            .p;
    event->num_ejections = state->ejections;
    event->enforced = enforced;
    kb_cluster_manager_log_outlier(manager, &event->base);
    kb_arena_dispose(&arena);
}

static void refresh(struct kb_deferred *deferred)
{
    struct kb_outlier_detector *detector =
        KB_CONTAINER_OF(deferred, struct kb_outlier_detector, refresh);

    KB_ASSERT(detector->kb_magic == (uint32_t)KB_MAGIC_kb_outlier_detector);
    kb_cluster_entry_refresh_hosts(detector->entry);
}

static void interval_arm(struct kb_outlier_detector *detector)
{
    kb_loop_timer_arm(
        &detector->server->main->loop, &detector->timer,
        kb_outlier_param(detector->core.config, detector->core.runtime, KB_OUTLIER_INTERVAL_MS));
}

static void interval_fired(struct kb_timer *timer)
{
    struct kb_outlier_detector *detector =
        KB_CONTAINER_OF(timer, struct kb_outlier_detector, timer);

    KB_ASSERT(detector->kb_magic == (uint32_t)KB_MAGIC_kb_outlier_detector);
    kb_outlier_on_interval(&detector->core, kb_loop_now_ms(&detector->server->main->loop));
    interval_arm(detector);
}

struct kb_outlier_detector *kb_outlier_detector_create(struct kb_cluster_entry *entry)
{
    struct kb_cluster_impl *cluster = entry->cluster;
    struct kb_outlier_detector *detector;
    struct kb_outlier_owner owner = {
        .counts = counts_sum, .changed = host_changed, .event = event_log};

    if (cluster->outlier == NULL) {
        return NULL;
    }
    detector = kb_calloc(1, sizeof(*detector));
    KB_OBJ_SET(detector, kb_outlier_detector);
    detector->entry = entry;
    detector->server = kb_cluster_manager_server(cluster->manager);
    owner.arg = detector;
    kb_outlier_init(&detector->core, cluster->outlier, detector->server->runtime,
                    kb_stat_group_block(cluster->outlier_stats, detector->server->main->index),
                    &detector->server->main->rand, &owner);
    kb_timer_init(&detector->timer, interval_fired);
    kb_deferred_init(&detector->refresh, refresh);
    interval_arm(detector);
    return detector;
}

void kb_outlier_detector_destroy(struct kb_outlier_detector *detector)
{
    if (detector == NULL) {
        return;
    }
    kb_loop_timer_cancel(&detector->server->main->loop, &detector->timer);
    kb_deferred_cancel(&detector->refresh);
    kb_outlier_dispose(&detector->core);
    KB_OBJ_CLEAR(detector);
    free(detector);
}

void kb_outlier_detector_hosts_changed(struct kb_outlier_detector *detector,
                                       const struct kb_priority_set *set)
{
    struct kb_list *link, *next;

    detector->generation++;
    for (uint32_t p = 0; p < set->count; p++) {
        for (uint32_t i = 0; i < set->sets[p].all.count; i++) {
            struct kb_host *host = set->sets[p].all.hosts[i];

            if (host->outlier->detector == NULL) {
                kb_outlier_add(&detector->core, host->outlier, host);
            }
            host->outlier->generation = detector->generation;
        }
    }
    for (link = detector->core.hosts.next; link != &detector->core.hosts; link = next) {
        struct kb_outlier_host *state = KB_LIST_ENTRY(link, struct kb_outlier_host, link);

        next = link->next;
        if (state->generation != detector->generation) {
            kb_outlier_remove(&detector->core, state);
        }
    }
}

const struct kb_outlier *kb_outlier_detector_core(const struct kb_outlier_detector *detector)
{
    return &detector->core;
}
