/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.network.rbac: lets connections in by the policies of its rules, when their first
 * bytes come (or with each of them, CONTINUOUS); shadow rules only say what they would do. */
#include <stdlib.h>

#include "base/mem.h"
#include "envoy/config/rbac/v3/rbac.pb-c.h"
#include "envoy/extensions/filters/network/rbac/v3/rbac.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/stats.h"
#include "proxy/ext/common/rbac_engine.h"

#define NAMESPACE "envoy.filters.network.rbac"

typedef Envoy__Extensions__Filters__Network__Rbac__V3__RBAC rbac_message;

struct rbac_config {
    KB_OBJ;
    struct kb_arena arena;
    struct kb_rbac_engines engines;
    struct kb_str policy_key; /* shadow_rules_stat_prefix + "shadow_effective_policy_id" */
    struct kb_str result_key;
    uint64_t delay_deny_ms; /* 0: denied connections close at once */
    bool continuous;
};
KB_OBJ_MAGIC(rbac_config, 0x4e524243);

enum rbac_state { RBAC_UNCHECKED, RBAC_ALLOWED, RBAC_DENIED };

struct rbac_filter {
    KB_OBJ;
    const struct rbac_config *config;
    struct kb_conn *conn;
    struct kb_timer deny_timer;
    enum rbac_state state;
    bool shadow_checked;
    bool closed; /* the connection's last event came */
};
KB_OBJ_MAGIC(rbac_filter, 0x4e524246);

/* ---- configuration ---- */

static void rbac_config_destroy(void *arg)
{
    struct rbac_config *config;

    if (arg == NULL) {
        return;
    }
    config = KB_CAST(arg, rbac_config);
    kb_rbac_engines_dispose(&config->engines);
    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}

static int rbac_config_create(const void *message, struct kb_factory_context *factory,
                              struct kb_diag *diag, void **out)
{
    const rbac_message *m = message;
    struct kb_rbac_engines_spec spec = {.network = true};
    struct rbac_config *config;
    struct kb_str base;
    uint32_t errors = diag->error_count;

    if (m == NULL) {
        kb_diag_error(diag, "typed_config is required");
        return KB_ECONFIG;
    }
    spec.rules = m->rules;
    spec.shadow_rules = m->shadow_rules;
    spec.has_matcher = m->matcher != NULL || m->shadow_matcher != NULL;
    config = kb_calloc(1, sizeof(*config));
    KB_OBJ_SET(config, rbac_config);
    kb_arena_init(&config->arena, NULL);
    config->delay_deny_ms = kb_wkt_duration_ms(m->delay_deny, 0);
    config->continuous =
        (int)m->enforcement_type ==
        ENVOY__EXTENSIONS__FILTERS__NETWORK__RBAC__V3__RBAC__ENFORCEMENT_TYPE__CONTINUOUS;
    config->policy_key =
        kb_str_printf(&config->arena, "%sshadow_effective_policy_id", m->shadow_rules_stat_prefix);
    config->result_key =
        kb_str_printf(&config->arena, "%sshadow_engine_result", m->shadow_rules_stat_prefix);
    kb_rbac_engines_create(&config->engines, &spec, factory, &config->arena, diag);
    if (diag->error_count != errors) {
        rbac_config_destroy(config);
        return KB_ECONFIG;
    }
    base =
        kb_str_printf(&config->arena, "%.*srbac.",
                      KB_STR_ARG(kb_rbac_stat_prefix(KB_STR(""), m->stat_prefix, &config->arena)));
    config->engines.stats =
        kb_stat_group_create(factory->server->stats, base, &kb_stat_schema_rbac);
    config->engines.shadow_stats =
        kb_stat_group_create(factory->server->stats,
                             kb_rbac_stat_prefix(base, m->shadow_rules_stat_prefix, &config->arena),
                             &kb_stat_schema_rbac_shadow);
    *out = config;
    return 0;
}

/* ---- connections ---- */

static void deny_timer_fired(struct kb_timer *timer);

static void *rbac_create(void *arg, struct kb_conn *conn)
{
    struct rbac_filter *filter = kb_calloc(1, sizeof(*filter));

    KB_OBJ_SET(filter, rbac_filter);
    filter->config = KB_CAST(arg, rbac_config);
    filter->conn = conn;
    kb_timer_init(&filter->deny_timer, deny_timer_fired);
    return filter;
}

static void rbac_destroy(void *self)
{
    struct rbac_filter *filter = KB_CAST(self, rbac_filter);

    kb_loop_timer_cancel(&filter->conn->worker->loop, &filter->deny_timer);
    KB_OBJ_CLEAR(filter);
    free(filter);
}

static struct kb_rbac_result engine_check(struct rbac_filter *filter,
                                          const struct kb_rbac_engine *engine)
{
    struct kb_connection_info *connection = &filter->conn->info;
    struct kb_stream_info info = {.connection = connection, .remote = connection->remote};
    struct kb_header_map headers = {.items = NULL};
    struct kb_arena arena;
    struct kb_rbac_input input = {&headers, &info, &arena};
    struct kb_rbac_result result;

    kb_arena_init(&arena, &filter->conn->worker->arena_blocks);
    headers.arena = &arena;
    result = kb_rbac_engine_check(engine, &input);
    kb_arena_dispose(&arena);
    if (result.logs) {
        kb_dynamic_metadata_set_bool(&connection->dynamic_metadata, NULL, KB_STR("envoy.common"),
                                     KB_STR("access_log_hint"), result.policy != NULL);
    }
    return result;
}

static void shadow_check(struct rbac_filter *filter)
{
    struct kb_dynamic_metadata **metadata = &filter->conn->info.dynamic_metadata;
    const struct rbac_config *config = filter->config;
    struct kb_rbac_result result = engine_check(filter, config->engines.shadow_rules);

    kb_stat_inc(kb_stat_group_block(config->engines.shadow_stats, filter->conn->worker->index),
                result.allowed ? KB_STAT_RBAC_SHADOW_SHADOW_ALLOWED
                               : KB_STAT_RBAC_SHADOW_SHADOW_DENIED);
    if (result.policy != NULL) {
        kb_dynamic_metadata_set_text(metadata, NULL, KB_STR(NAMESPACE), config->policy_key,
                                     result.policy->name);
    }
    kb_dynamic_metadata_set_text(metadata, NULL, KB_STR(NAMESPACE), config->result_key,
                                 result.allowed ? KB_STR("allowed") : KB_STR("denied"));
}

static void deny_close(struct rbac_filter *filter)
{
    filter->conn->info.local_close_reason = KB_STR("rbac_deny_close");
    kb_conn_close(filter->conn, KB_CONN_NO_FLUSH);
}

static void deny_timer_fired(struct kb_timer *timer)
{
    struct rbac_filter *filter = KB_CONTAINER_OF(timer, struct rbac_filter, deny_timer);

    KB_ASSERT(filter->kb_magic == (uint32_t)KB_MAGIC_rbac_filter);
    if (!filter->closed) {
        deny_close(filter);
    }
}

static void rules_check(struct rbac_filter *filter)
{
    const struct rbac_config *config = filter->config;
    struct kb_rbac_result result = engine_check(filter, config->engines.rules);

    kb_stat_inc(kb_stat_group_block(config->engines.stats, filter->conn->worker->index),
                result.allowed ? KB_STAT_RBAC_ALLOWED : KB_STAT_RBAC_DENIED);
    filter->state = result.allowed ? RBAC_ALLOWED : RBAC_DENIED;
    if (result.allowed) {
        return;
    }
    filter->conn->info.termination_details = kb_rbac_details(&result);
    if (config->delay_deny_ms > 0) {
        kb_loop_timer_arm(&filter->conn->worker->loop, &filter->deny_timer, config->delay_deny_ms);
    } else {
        deny_close(filter);
    }
}

static enum kb_network_filter_status rbac_on_data(void *self, struct kb_buf *in, bool end_stream)
{
    struct rbac_filter *filter = KB_CAST(self, rbac_filter);

    (void)in;
    (void)end_stream;
    if (filter->state == RBAC_DENIED) {
        return KB_NETWORK_FILTER_STOP;
    }
    if (filter->config->engines.shadow_rules != NULL &&
        (!filter->shadow_checked || filter->config->continuous)) {
        filter->shadow_checked = true;
        shadow_check(filter);
    }
    if (filter->config->engines.rules != NULL &&
        (filter->state == RBAC_UNCHECKED || filter->config->continuous)) {
        rules_check(filter);
    }
    return filter->state == RBAC_DENIED ? KB_NETWORK_FILTER_STOP : KB_NETWORK_FILTER_CONTINUE;
}

static void rbac_on_event(void *self, enum kb_conn_event event)
{
    struct rbac_filter *filter = KB_CAST(self, rbac_filter);

    if (event != KB_CONN_CONNECTED) {
        filter->closed = true;
        kb_loop_timer_cancel(&filter->conn->worker->loop, &filter->deny_timer);
    }
}

const struct kb_network_filter_ops kb_ext_network_rbac = {
    .name = "envoy.filters.network.rbac",
    .type_url = "envoy.extensions.filters.network.rbac.v3.RBAC",
    .config_create = rbac_config_create,
    .config_destroy = rbac_config_destroy,
    .create = rbac_create,
    .on_data = rbac_on_data,
    .on_event = rbac_on_event,
    .destroy = rbac_destroy,
};
