/* SPDX-License-Identifier: Apache-2.0 */
/* The overload manager: from pressures to what each action is worth, and to the workers; and the
 * ceiling of memory, which takes the same actions in a fixed order. */
#include "proxy/server/overload.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/wkt.h"
#include "proxy/http/hcm_overload.h"
#include "proxy/server/overload_internal.h"
#include "proxy/server/server_stats.h"

#define REFRESH_MS       1000
#define MEMORY_CALM_MS   500 /* between looks at the memory: far from its ceiling, nearer, near */
#define MEMORY_AWAKE_MS  100
#define MEMORY_CLOSE_MS  20
#define MEMORY_TRIM_MS   1000
#define RESET_TRIM_MS    200
#define RESETS_MAX       50 /* streams a worker resets at a time, as in Envoy */
#define RESET_BUCKETS    8
#define MEMORY_TRACK     17 /* log2 of the bytes that make a stream worth resetting, at first */
#define MEMORY_TRACK_MIN 12 /* less is not worth it */

/* ---- to the workers ---- */

struct order {
    struct kb_overload *overload;
    struct kb_worker *worker;
    size_t bytes;
};

static void order_send(struct kb_overload *overload, void (*posted)(void *arg), size_t bytes)
{
    struct kb_server_context *server = overload->server;

    for (uint32_t i = 0; i < server->worker_count; i++) {
        struct order *order = kb_calloc(1, sizeof(*order));

        order->overload = overload;
        order->worker = &server->workers[i];
        order->bytes = bytes;
        kb_loop_post(&order->worker->loop, posted, order);
    }
}

static void timers_posted(void *arg)
{
    struct order *order = arg;

    kb_http_worker_timers_scale(order->worker);
    free(order);
}

static void idle_posted(void *arg)
{
    struct order *order = arg;

    kb_http_worker_close_idle(order->worker);
    free(order);
}

static void reset_posted(void *arg)
{
    struct order *order = arg;
    unsigned count = kb_http_worker_reset_large(order->worker, order->bytes, RESETS_MAX);

    kb_stat_named_add(order->overload->reset_count, order->worker->index, count);
    free(order);
}

static void memory_reset_posted(void *arg)
{
    struct order *order = arg;
    struct kb_overload *overload = order->overload;
    unsigned count = kb_http_worker_reset_large(order->worker, order->bytes, RESETS_MAX);

    kb_stat_named_add(overload->reset_count, order->worker->index, count);
    __atomic_fetch_add(&overload->resets, count, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&overload->resets_pending, 1, __ATOMIC_RELEASE);
    free(order);
}

/* What the memory's stage makes of an action, whatever the configuration says. */
static bool stage_saturates(enum kb_memory_stage stage, int id)
{
    return (id == KB_OVERLOAD_STOP_ACCEPTING_CONNECTIONS && stage >= KB_MEMORY_STOP_ACCEPTING) ||
           (id == KB_OVERLOAD_DISABLE_HTTP_KEEPALIVE && stage >= KB_MEMORY_CLOSE_IDLE) ||
           (id == KB_OVERLOAD_STOP_ACCEPTING_REQUESTS && stage >= KB_MEMORY_REFUSE_STREAMS);
}

static void state_publish(struct kb_overload *overload)
{
    struct kb_overload_state *state = &overload->server->overload;
    uint32_t values[KB_OVERLOAD_COUNT] = {0};
    uint32_t timers_before = kb_overload_value(state, KB_OVERLOAD_REDUCE_TIMEOUTS);
    uint32_t any = 0;

    for (size_t i = 0; i < overload->rule_count; i++) {
        const struct kb_overload_rule *rule = &overload->rules[i];

        if (rule->id >= 0) {
            values[rule->id] = (uint32_t)(rule->value * KB_OVERLOAD_SATURATED);
        }
    }
    for (int i = 0; i < KB_OVERLOAD_COUNT; i++) {
        if (stage_saturates(overload->stage, i)) {
            values[i] = KB_OVERLOAD_SATURATED;
        }
        any |= values[i];
        __atomic_store_n(&state->value[i], values[i], __ATOMIC_RELAXED);
    }
    __atomic_store_n(&state->any, any, __ATOMIC_RELEASE);
    if (values[KB_OVERLOAD_REDUCE_TIMEOUTS] != timers_before) {
        order_send(overload, timers_posted, 0);
    }
}

/* ---- the configured actions ---- */

static double trigger_value(const struct kb_overload_trigger *trigger)
{
    double pressure = trigger->monitor->last;

    if (!trigger->scaled) {
        return pressure >= trigger->high ? 1 : 0;
    }
    if (pressure <= trigger->low) {
        return 0;
    }
    return pressure >= trigger->high ? 1
                                     : (pressure - trigger->low) / (trigger->high - trigger->low);
}

static void monitors_look(struct kb_overload *overload)
{
    uint32_t main = overload->server->main->index;

    for (size_t i = 0; i < overload->monitor_count; i++) {
        struct kb_overload_monitor *monitor = &overload->monitors[i];
        double pressure;

        if (!monitor->read(monitor, &pressure)) {
            kb_stat_named_add(monitor->failed_stat, main, 1);
            continue;
        }
        monitor->last = pressure;
        kb_stat_named_set(monitor->pressure_stat, main, (uint64_t)(pressure * 100));
    }
}

static bool rule_update(struct kb_overload *overload, struct kb_overload_rule *rule)
{
    uint32_t main = overload->server->main->index;
    double value = 0;

    for (size_t i = 0; i < rule->trigger_count; i++) {
        value = KB_MAX(value, trigger_value(&rule->triggers[i]));
    }
    if (value <= rule->value && value >= rule->value) {
        return false;
    }
    if ((value >= 1) != (rule->value >= 1)) {
        KB_LOG(MAIN, INFO, "overload: %.*s %s", KB_STR_ARG(rule->name),
               value >= 1 ? "begins" : "ends");
    }
    rule->value = value;
    if (rule->active != NULL) {
        kb_stat_named_set(rule->active, main, value >= 1 ? 1 : 0);
    }
    kb_stat_named_set(rule->scale_percent, main, (uint64_t)(value * 100));
    return true;
}

/* Actions that are done again at each look as long as they are active. */
static void rule_act(struct kb_overload *overload, const struct kb_overload_rule *rule)
{
    uint64_t now_ms = kb_loop_now_ms(&overload->server->main->loop);

    if (rule->id == KB_OVERLOAD_SHRINK_HEAP && rule->value >= 1 &&
        now_ms >= overload->shrunk_ms + overload->shrink_interval_ms) {
        overload->shrunk_ms = now_ms;
        kb_mem_trim();
        kb_stat_named_add(rule->count, overload->server->main->index, 1);
    } else if (rule->id == KB_OVERLOAD_RESET_HIGH_MEMORY_STREAM && rule->value > 0) {
        unsigned bucket = (unsigned)((1 - rule->value) * RESET_BUCKETS);

        order_send(overload, reset_posted,
                   (size_t)1 << KB_MIN(overload->track_power + bucket, 62U));
    }
}

static void refresh(struct kb_timer *timer)
{
    struct kb_overload *overload = KB_CONTAINER_OF(timer, struct kb_overload, refresh);
    struct kb_loop *loop = &overload->server->main->loop;
    uint64_t now_ms = kb_loop_now_ms(loop);
    bool changed = false;

    kb_stat_record(kb_stat_group_block(overload->stats, overload->server->main->index),
                   KB_STAT_OVERLOAD_REFRESH_INTERVAL_DELAY,
                   now_ms > overload->refresh_due_ms ? now_ms - overload->refresh_due_ms : 0);
    monitors_look(overload);
    for (size_t i = 0; i < overload->rule_count; i++) {
        changed |= rule_update(overload, &overload->rules[i]);
    }
    if (changed) {
        state_publish(overload);
    }
    for (size_t i = 0; i < overload->rule_count; i++) {
        rule_act(overload, &overload->rules[i]);
    }
    overload->refresh_due_ms = now_ms + overload->refresh_ms;
    kb_loop_timer_arm(loop, timer, overload->refresh_ms);
}

/* ---- the ceiling of memory ---- */

static const char *const stage_texts[] = {
    [KB_MEMORY_PLENTY] = "there is room again",
    [KB_MEMORY_STOP_ACCEPTING] = "no connections are accepted",
    [KB_MEMORY_CLOSE_IDLE] = "no connections are accepted, idle ones are closed",
    [KB_MEMORY_REFUSE_STREAMS] =
        "no connections are accepted, idle ones are closed, requests are refused with 503",
    [KB_MEMORY_RESET_STREAMS] =
        "no connections are accepted, idle ones are closed, requests are refused with 503, and the "
        "streams that hold most are reset",
};

static uint64_t memory_used(struct kb_overload *overload)
{
    struct kb_memory_usage usage;
    uint64_t now_ms = kb_loop_now_ms(&overload->server->main->loop);

    kb_memory_usage_read(&usage);
    if (usage.physical / 100 * 100 >= overload->max_memory / 100 * 85 &&
        now_ms >=
            overload->trimmed_ms +
                (overload->stage == KB_MEMORY_RESET_STREAMS ? RESET_TRIM_MS : MEMORY_TRIM_MS)) {
        overload->trimmed_ms = now_ms;
        kb_mem_trim(); /* what was freed may still be counted */
        kb_memory_usage_read(&usage);
    }
    return usage.physical;
}

/* Those that hold most first; when none holds as much any more and there still is no room, those
 * that hold half of it, and so on: many small ones fill the memory, too. */
static void streams_reset(struct kb_overload *overload)
{
    uint64_t now_ms = kb_loop_now_ms(&overload->server->main->loop);
    uint64_t resets;

    if (__atomic_load_n(&overload->resets_pending, __ATOMIC_ACQUIRE) > 0) {
        return;
    }
    resets = __atomic_load_n(&overload->resets, __ATOMIC_RELAXED);
    if (resets != overload->resets_seen || overload->reset_power > MEMORY_TRACK) {
        overload->resets_seen = resets;
        overload->resets_seen_ms = now_ms;
        overload->reset_power = KB_MIN(overload->reset_power, (unsigned)MEMORY_TRACK);
    } else if (overload->trimmed_ms > overload->resets_seen_ms) { /* what they held is gone */
        overload->reset_power -= overload->reset_power > MEMORY_TRACK_MIN;
    }
    __atomic_store_n(&overload->resets_pending, overload->server->worker_count, __ATOMIC_RELAXED);
    order_send(overload, memory_reset_posted, (size_t)1 << overload->reset_power);
}

static void memory_look(struct kb_timer *timer)
{
    struct kb_overload *overload = KB_CONTAINER_OF(timer, struct kb_overload, memory);
    uint64_t used = memory_used(overload);
    enum kb_memory_stage stage = kb_memory_stage_of(used, overload->max_memory, overload->stage);

    if (stage != overload->stage) {
        KB_LOG(MAIN, WARNING,
               "memory: %llu MiB of the %llu MiB that --max-memory gives are in use: %s",
               (unsigned long long)(used >> 20), (unsigned long long)(overload->max_memory >> 20),
               stage_texts[stage]);
        overload->stage = stage;
        state_publish(overload);
    }
    if (stage >= KB_MEMORY_CLOSE_IDLE) {
        order_send(overload, idle_posted, 0);
    }
    if (stage == KB_MEMORY_RESET_STREAMS) {
        streams_reset(overload);
    } else {
        overload->reset_power = MEMORY_TRACK + 1;
    }
    kb_loop_timer_arm(&overload->server->main->loop, timer,
                      used < overload->max_memory / 4   ? MEMORY_CALM_MS
                      : used < overload->max_memory / 2 ? MEMORY_AWAKE_MS
                                                        : MEMORY_CLOSE_MS);
}

/* ---- lifecycle ---- */

struct kb_overload *kb_overload_create(struct kb_server_context *server,
                                       const Envoy__Config__Overload__V3__OverloadManager *message,
                                       uint64_t max_memory, struct kb_diag *diag)
{
    struct kb_overload *overload = kb_calloc(1, sizeof(*overload));

    KB_OBJ_SET(overload, kb_overload);
    overload->server = server;
    overload->max_memory = max_memory;
    overload->reset_power = MEMORY_TRACK + 1;
    kb_arena_init(&overload->arena, NULL);
    kb_timer_init(&overload->refresh, refresh);
    kb_timer_init(&overload->memory, memory_look);
    overload->stats =
        kb_stat_group_create(server->stats, KB_STR("overload."), &kb_stat_schema_overload);
    overload->reset_count = kb_stat_named_create(
        server->stats, KB_STR("envoy.overload_actions.reset_high_memory_stream.count"),
        KB_STAT_COUNTER);
    if (message != NULL) {
        overload->refresh_ms =
            KB_MAX(kb_wkt_duration_ms(message->refresh_interval, REFRESH_MS), (uint64_t)1);
        kb_overload_config_read(overload, message, diag);
    }
    return overload;
}

void kb_overload_destroy(struct kb_overload *overload)
{
    if (overload == NULL) {
        return;
    }
    kb_loop_timer_cancel(&overload->server->main->loop, &overload->refresh);
    kb_loop_timer_cancel(&overload->server->main->loop, &overload->memory);
    for (size_t i = 0; i < overload->monitor_count; i++) {
        kb_overload_monitor_dispose(&overload->monitors[i]);
    }
    for (size_t i = 0; i < overload->rule_count; i++) {
        kb_stat_named_destroy(overload->rules[i].active);
        kb_stat_named_destroy(overload->rules[i].scale_percent);
        kb_stat_named_destroy(overload->rules[i].count);
    }
    kb_stat_named_destroy(overload->reset_count);
    kb_stat_group_destroy(overload->stats);
    kb_arena_dispose(&overload->arena);
    KB_OBJ_CLEAR(overload);
    free(overload);
}

void kb_overload_start(struct kb_overload *overload)
{
    struct kb_loop *loop = &overload->server->main->loop;

    if (overload->monitor_count > 0) {
        overload->refresh_due_ms = kb_loop_now_ms(loop) + overload->refresh_ms;
        kb_loop_timer_arm(loop, &overload->refresh, overload->refresh_ms);
    }
    if (overload->max_memory > 0) {
        KB_LOG(MAIN, INFO, "memory: at most %llu MiB",
               (unsigned long long)(overload->max_memory >> 20));
        kb_loop_timer_arm(loop, &overload->memory, 1);
    }
}
