/* SPDX-License-Identifier: Apache-2.0 */
/* The OverloadManager message: what is wrong has Envoy's words. */
#include "envoy/type/v3/percent.pb-c.h"
#include "proto/any.h"
#include "proto/wkt.h"
#include "proxy/server/overload_internal.h"

#define SHRINK_INTERVAL_MS 10000
#define TRACK_POWER        20

static const char *const action_names[] = {
    [KB_OVERLOAD_STOP_ACCEPTING_REQUESTS] = "envoy.overload_actions.stop_accepting_requests",
    [KB_OVERLOAD_DISABLE_HTTP_KEEPALIVE] = "envoy.overload_actions.disable_http_keepalive",
    [KB_OVERLOAD_STOP_ACCEPTING_CONNECTIONS] = "envoy.overload_actions.stop_accepting_connections",
    [KB_OVERLOAD_REJECT_INCOMING_CONNECTIONS] =
        "envoy.overload_actions.reject_incoming_connections",
    [KB_OVERLOAD_SHRINK_HEAP] = "envoy.overload_actions.shrink_heap",
    [KB_OVERLOAD_REDUCE_TIMEOUTS] = "envoy.overload_actions.reduce_timeouts",
    [KB_OVERLOAD_RESET_HIGH_MEMORY_STREAM] = "envoy.overload_actions.reset_high_memory_stream",
    [KB_OVERLOAD_SHED_TCP_LISTENER_ACCEPT] = "envoy.load_shed_points.tcp_listener_accept",
    [KB_OVERLOAD_SHED_HCM_DECODE_HEADERS] =
        "envoy.load_shed_points.http_connection_manager_decode_headers",
    [KB_OVERLOAD_SHED_HCM_CODEC] = "envoy.load_shed_points.hcm_ondata_creating_codec",
    [KB_OVERLOAD_SHED_HTTP1_ABORT] = "envoy.load_shed_points.http1_server_abort_dispatch",
    [KB_OVERLOAD_SHED_HTTP2_GO_AWAY] = "envoy.load_shed_points.http2_server_go_away_on_dispatch",
    [KB_OVERLOAD_SHED_HTTP2_GO_AWAY_AND_CLOSE] =
        "envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch",
    [KB_OVERLOAD_SHED_HTTP_FILTER_CHECK] = "envoy.load_shed_points.http_downstream_filter_check",
    [KB_OVERLOAD_SHED_POOL_CONNECTION] = "envoy.load_shed_points.connection_pool_new_connection",
    [KB_OVERLOAD_SHED_TCP_PROXY_DATA] = "envoy.load_shed_points.tcp_proxy_on_data",
    [KB_OVERLOAD_SHED_TCP_PROXY_CONNECT] = "envoy.load_shed_points.tcp_proxy_upstream_connect",
};

static int id_find(struct kb_str name, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        if (kb_str_eq(name, kb_str_from_cstr(action_names[i]))) {
            return (int)i;
        }
    }
    return -1;
}

/* ---- triggers ---- */

static struct kb_overload_monitor *monitor_find(struct kb_overload *overload, struct kb_str name)
{
    for (size_t i = 0; i < overload->monitor_count; i++) {
        if (kb_str_eq(overload->monitors[i].name, name)) {
            return &overload->monitors[i];
        }
    }
    return NULL;
}

static void trigger_read(struct kb_overload *overload, struct kb_overload_rule *rule, bool shed,
                         const Envoy__Config__Overload__V3__Trigger *m, struct kb_diag *diag)
{
    struct kb_overload_trigger *trigger = &rule->triggers[rule->trigger_count];

    trigger->monitor = monitor_find(overload, kb_str_from_cstr(m->name));
    if (trigger->monitor == NULL) {
        kb_diag_error(diag, "Unknown trigger resource %s for %s %.*s", m->name,
                      shed ? "loadshed point" : "overload action", KB_STR_ARG(rule->name));
        return;
    }
    for (size_t i = 0; i < rule->trigger_count; i++) {
        if (rule->triggers[i].monitor == trigger->monitor) {
            kb_diag_error(diag, "Duplicate trigger resource for %s %.*s",
                          shed ? "loadshed point" : "overload action", KB_STR_ARG(rule->name));
            return;
        }
    }
    if (m->trigger_oneof_case == ENVOY__CONFIG__OVERLOAD__V3__TRIGGER__TRIGGER_ONEOF_THRESHOLD) {
        trigger->low = trigger->high = m->threshold->value;
    } else if (m->trigger_oneof_case ==
               ENVOY__CONFIG__OVERLOAD__V3__TRIGGER__TRIGGER_ONEOF_SCALED) {
        trigger->scaled = true;
        trigger->low = m->scaled->scaling_threshold;
        trigger->high = m->scaled->saturation_threshold;
        if (trigger->low >= trigger->high) {
            kb_diag_error(diag, "scaling_threshold must be less than saturation_threshold");
        }
    }
    rule->trigger_count++;
}

static void triggers_read(struct kb_overload *overload, struct kb_overload_rule *rule, bool shed,
                          Envoy__Config__Overload__V3__Trigger *const *triggers, size_t count,
                          struct kb_diag *diag)
{
    rule->triggers = kb_arena_calloc(&overload->arena, (count + 1) * sizeof(*rule->triggers));
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(diag, "triggers", i);
        trigger_read(overload, rule, shed, triggers[i], diag);
        kb_diag_pop(diag);
    }
}

/* ---- what actions want to know beside ---- */

static int timer_of(int type)
{
    static const struct {
        int type;
        int timer;
    } timers[] = {
#define TYPE(name) \
    ENVOY__CONFIG__OVERLOAD__V3__SCALE_TIMERS_OVERLOAD_ACTION_CONFIG__TIMER_TYPE__##name
        {TYPE(HTTP_DOWNSTREAM_CONNECTION_IDLE), KB_OVERLOAD_TIMER_CONNECTION_IDLE},
        {TYPE(HTTP_DOWNSTREAM_STREAM_IDLE), KB_OVERLOAD_TIMER_STREAM_IDLE},
        {TYPE(TRANSPORT_SOCKET_CONNECT), KB_OVERLOAD_TIMER_TRANSPORT_SOCKET_CONNECT},
        {TYPE(HTTP_DOWNSTREAM_CONNECTION_MAX), KB_OVERLOAD_TIMER_CONNECTION_MAX},
        {TYPE(HTTP_DOWNSTREAM_STREAM_FLUSH), KB_OVERLOAD_TIMER_STREAM_FLUSH},
#undef TYPE
    };

    for (size_t i = 0; i < KB_ARRAY_LEN(timers); i++) {
        if (timers[i].type == type) {
            return timers[i].timer;
        }
    }
    return -1;
}

static void timers_read(struct kb_overload *overload, const Google__Protobuf__Any *any,
                        struct kb_diag *diag)
{
    typedef Envoy__Config__Overload__V3__ScaleTimersOverloadActionConfig config_message;
    typedef Envoy__Config__Overload__V3__ScaleTimersOverloadActionConfig__ScaleTimer timer_message;
    const config_message *m =
        KB_ANY_UNPACK(any, envoy__config__overload__v3__scale_timers_overload_action_config,
                      config_message, &overload->arena, diag);
    struct kb_overload_state *state = &overload->server->overload;

    for (size_t i = 0; m != NULL && i < m->n_timer_scale_factors; i++) {
        const timer_message *scale = m->timer_scale_factors[i];
        int timer = timer_of((int)scale->timer);
        bool by_share =
            scale->overload_adjust_case ==
            ENVOY__CONFIG__OVERLOAD__V3__SCALE_TIMERS_OVERLOAD_ACTION_CONFIG__SCALE_TIMER__OVERLOAD_ADJUST_MIN_SCALE;

        kb_diag_push_index(diag, "timer_scale_factors", i);
        if (timer < 0) {
            kb_diag_error(diag, "Unknown timer type %d", (int)scale->timer);
        } else if (state->timers[timer].scaled) {
            kb_diag_error(
                diag, "Found duplicate entry for timer type %s",
                protobuf_c_enum_descriptor_get_value(
                    &envoy__config__overload__v3__scale_timers_overload_action_config__timer_type__descriptor,
                    (int)scale->timer)
                    ->name);
        } else {
            state->timers[timer].scaled = true;
            state->timers[timer].by_share = by_share;
            state->timers[timer].min = by_share ? (uint64_t)(scale->min_scale->value * 10000)
                                                : kb_wkt_duration_ms(scale->min_timeout, 0);
        }
        kb_diag_pop(diag);
    }
}

static void shrink_read(struct kb_overload *overload, const Google__Protobuf__Any *any,
                        struct kb_diag *diag)
{
    const Envoy__Config__Overload__V3__ShrinkHeapConfig *m =
        KB_ANY_UNPACK(any, envoy__config__overload__v3__shrink_heap_config,
                      Envoy__Config__Overload__V3__ShrinkHeapConfig, &overload->arena, diag);

    if (m != NULL) {
        overload->shrink_interval_ms =
            KB_MAX(kb_wkt_duration_ms(m->timer_interval, SHRINK_INTERVAL_MS), (uint64_t)1);
    }
}

static void typed_config_read(struct kb_overload *overload, const struct kb_overload_rule *rule,
                              const Envoy__Config__Overload__V3__OverloadAction *m,
                              struct kb_diag *diag)
{
    kb_diag_push(diag, "typed_config");
    if (rule->id == KB_OVERLOAD_REDUCE_TIMEOUTS) {
        if (m->typed_config == NULL) {
            kb_diag_error(diag, "Overload action \"%s\" requires typed_config", m->name);
        } else {
            timers_read(overload, m->typed_config, diag);
        }
    } else if (rule->id == KB_OVERLOAD_SHRINK_HEAP && m->typed_config != NULL) {
        shrink_read(overload, m->typed_config, diag);
    } else if (m->typed_config != NULL) {
        kb_diag_error(diag, "Overload action name \"%s\" conflicts with its typed config", m->name);
    }
    kb_diag_pop(diag);
}

/* ---- actions and points ---- */

static struct kb_stat_named *stat_make(struct kb_overload *overload,
                                       const struct kb_overload_rule *rule, const char *what,
                                       enum kb_stat_kind kind)
{
    return kb_stat_named_create(
        overload->server->stats,
        kb_str_printf(&overload->arena, "overload.%.*s.%s", KB_STR_ARG(rule->name), what), kind);
}

/* The next rule, of that name, unless there is one already. */
static struct kb_overload_rule *rule_new(struct kb_overload *overload, const char *name,
                                         const char *what, struct kb_diag *diag)
{
    struct kb_overload_rule *rule = &overload->rules[overload->rule_count];
    struct kb_str text = kb_str_from_cstr(name);

    for (size_t i = 0; i < overload->rule_count; i++) {
        if (kb_str_eq(overload->rules[i].name, text)) {
            kb_diag_error(diag, "Duplicate %s %s", what, name);
            return NULL;
        }
    }
    overload->rule_count++;
    rule->name = kb_str_dup(&overload->arena, text);
    return rule;
}

static void action_read(struct kb_overload *overload,
                        const Envoy__Config__Overload__V3__OverloadManager *manager,
                        const Envoy__Config__Overload__V3__OverloadAction *m, struct kb_diag *diag)
{
    int id = id_find(kb_str_from_cstr(m->name), 0, KB_OVERLOAD_SHED_FIRST);
    struct kb_overload_rule *rule;

    if (id < 0) {
        kb_diag_error(diag, "Unknown Overload Manager Action %s", m->name);
        return;
    }
    rule = rule_new(overload, m->name, "overload action", diag);
    if (rule == NULL) {
        return;
    }
    rule->id = id;
    rule->active = stat_make(overload, rule, "active", KB_STAT_GAUGE);
    rule->scale_percent = stat_make(overload, rule, "scale_percent", KB_STAT_GAUGE);
    kb_stat_named_set(rule->active, overload->server->main->index, 0);
    kb_stat_named_set(rule->scale_percent, overload->server->main->index, 0);
    if (id == KB_OVERLOAD_SHRINK_HEAP) {
        rule->count = stat_make(overload, rule, "shrink_count", KB_STAT_COUNTER);
    }
    typed_config_read(overload, rule, m, diag);
    if (id == KB_OVERLOAD_RESET_HIGH_MEMORY_STREAM && manager->buffer_factory_config == NULL) {
        kb_diag_error(diag, "Overload action \"%s\" requires buffer_factory_config.", m->name);
    }
    triggers_read(overload, rule, false, m->triggers, m->n_triggers, diag);
}

static void point_read(struct kb_overload *overload,
                       const Envoy__Config__Overload__V3__LoadShedPoint *m, struct kb_diag *diag)
{
    struct kb_overload_rule *rule = rule_new(overload, m->name, "loadshed point", diag);

    if (rule == NULL) {
        return;
    }
    rule->id = id_find(rule->name, KB_OVERLOAD_SHED_FIRST, KB_OVERLOAD_COUNT);
    if (rule->id < 0) {
        kb_diag_warning(diag,
                        "no load is shed at %s: there is no such point; those of HTTP/3 and "
                        "of extensions that are not implemented are none",
                        m->name);
    }
    rule->scale_percent = stat_make(overload, rule, "scale_percent", KB_STAT_GAUGE);
    kb_stat_named_set(rule->scale_percent, overload->server->main->index, 0);
    rule->count = stat_make(overload, rule, "shed_load_count", KB_STAT_COUNTER);
    if (rule->id >= 0) {
        overload->server->overload.shed_counts[rule->id] = rule->count;
    }
    triggers_read(overload, rule, true, m->triggers, m->n_triggers, diag);
}

static void monitors_read(struct kb_overload *overload,
                          const Envoy__Config__Overload__V3__OverloadManager *message,
                          struct kb_diag *diag)
{
    overload->monitors = kb_arena_calloc(&overload->arena, (message->n_resource_monitors + 1) *
                                                               sizeof(*overload->monitors));
    for (size_t i = 0; i < message->n_resource_monitors; i++) {
        const Envoy__Config__Overload__V3__ResourceMonitor *m = message->resource_monitors[i];
        struct kb_overload_monitor *monitor = &overload->monitors[overload->monitor_count];

        kb_diag_push_index(diag, "resource_monitors", i);
        if (monitor_find(overload, kb_str_from_cstr(m->name)) != NULL) {
            kb_diag_error(diag, "Duplicate resource monitor %s", m->name);
        } else {
            monitor->overload = overload;
            monitor->name = kb_str_dup(&overload->arena, kb_str_from_cstr(m->name));
            kb_overload_monitor_init(monitor, m, diag);
            overload->monitor_count++;
        }
        kb_diag_pop(diag);
    }
}

void kb_overload_config_read(struct kb_overload *overload,
                             const Envoy__Config__Overload__V3__OverloadManager *message,
                             struct kb_diag *diag)
{
    size_t rules = message->n_actions + message->n_loadshed_points;

    overload->shrink_interval_ms = SHRINK_INTERVAL_MS;
    overload->track_power =
        message->buffer_factory_config != NULL
            ? message->buffer_factory_config->minimum_account_to_track_power_of_two
            : TRACK_POWER;
    monitors_read(overload, message, diag);
    overload->rules = kb_arena_calloc(&overload->arena, (rules + 1) * sizeof(*overload->rules));
    for (size_t i = 0; i < message->n_actions; i++) {
        kb_diag_push_index(diag, "actions", i);
        action_read(overload, message, message->actions[i], diag);
        kb_diag_pop(diag);
    }
    for (size_t i = 0; i < message->n_loadshed_points; i++) {
        kb_diag_push_index(diag, "loadshed_points", i);
        point_read(overload, message->loadshed_points[i], diag);
        kb_diag_pop(diag);
    }
}
