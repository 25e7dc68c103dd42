/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.rbac: lets requests in by the policies of its rules, or of its route's; shadow
 * rules only say what they would do, in dynamic metadata and statistics. */
#include "envoy/config/rbac/v3/rbac.pb-c.h"
#include "envoy/extensions/filters/http/rbac/v3/rbac.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/stats.h"
#include "proxy/ext/common/rbac_engine.h"

#define NAMESPACE "envoy.filters.http.rbac"

typedef Envoy__Extensions__Filters__Http__Rbac__V3__RBAC rbac_message;

/* Of a chain or a route. */
struct rbac_config {
    KB_OBJ;
    struct kb_rbac_engines engines; /* statistics: of a chain only */
    struct kb_str policy_key;       /* shadow_rules_stat_prefix + "shadow_effective_policy_id" */
    struct kb_str result_key;
    struct kb_str enforced_policy_key; /* the same of the rules */
    struct kb_str enforced_result_key;
};
KB_OBJ_MAGIC(rbac_config, 0x52424143);

struct rbac_filter {
    const struct rbac_config *config;
    struct kb_stream *stream;
};

/* ---- configuration ---- */

static void keys_create(struct rbac_config *config, const rbac_message *m, struct kb_arena *arena)
{
    config->policy_key =
        kb_str_printf(arena, "%sshadow_effective_policy_id", m->shadow_rules_stat_prefix);
    config->result_key =
        kb_str_printf(arena, "%sshadow_engine_result", m->shadow_rules_stat_prefix);
    config->enforced_policy_key =
        kb_str_printf(arena, "%senforced_effective_policy_id", m->rules_stat_prefix);
    config->enforced_result_key =
        kb_str_printf(arena, "%senforced_engine_result", m->rules_stat_prefix);
}

/* "http.a.rbac.<prefix>". */
static struct kb_str stat_prefix(const char *prefix, const struct kb_factory_context *factory)
{
    struct kb_str base =
        kb_str_printf(factory->arena, "%.*srbac.", KB_STR_ARG(factory->http_stat_prefix));

    return kb_rbac_stat_prefix(base, prefix, factory->arena);
}

/* "http.a.rbac.<prefix>policy.", or empty when policies are not counted. */
static struct kb_str policy_stats(const rbac_message *m, const char *prefix,
                                  const struct kb_factory_context *factory)
{
    return m->track_per_rule_stats
               ? kb_rbac_stat_prefix(stat_prefix(prefix, factory), "policy.", factory->arena)
               : KB_STR("");
}

/* Of RBAC messages of both kinds of levels; NULL after reporting. */
static struct rbac_config *config_build(const rbac_message *m, struct kb_factory_context *factory,
                                        struct kb_diag *diag)
{
    struct rbac_config *config = KB_ARENA_NEW(factory->arena, struct rbac_config);
    struct kb_rbac_engines_spec spec = {.network = false};
    uint32_t errors = diag->error_count;

    KB_OBJ_SET(config, rbac_config);
    if (m == NULL) {
        return config;
    }
    keys_create(config, m, factory->arena);
    spec.rules = m->rules;
    spec.shadow_rules = m->shadow_rules;
    spec.has_matcher = m->matcher != NULL || m->shadow_matcher != NULL;
    spec.policy_stats = policy_stats(m, m->rules_stat_prefix, factory);
    spec.shadow_policy_stats = policy_stats(m, m->shadow_rules_stat_prefix, factory);
    kb_rbac_engines_create(&config->engines, &spec, factory, factory->arena, diag);
    if (diag->error_count != errors) {
        kb_rbac_engines_dispose(&config->engines);
        return NULL;
    }
    return config;
}

static int rbac_config_create(const void *message, struct kb_factory_context *factory,
                              struct kb_diag *diag, void **out)
{
    const rbac_message *m = message;
    struct rbac_config *config;

    if (m == NULL) {
        kb_diag_error(diag, "typed_config is required");
        return KB_ECONFIG;
    }
    config = config_build(m, factory, diag);
    if (config == NULL) {
        return KB_ECONFIG;
    }
    config->engines.stats = kb_stat_group_create(
        factory->server->stats, stat_prefix(m->rules_stat_prefix, factory), &kb_stat_schema_rbac);
    config->engines.shadow_stats = kb_stat_group_create(
        factory->server->stats, stat_prefix(m->shadow_rules_stat_prefix, factory),
        &kb_stat_schema_rbac_shadow);
    *out = config;
    return 0;
}

static int rbac_route_config_create(const void *message, struct kb_factory_context *factory,
                                    struct kb_diag *diag, void **out)
{
    const Envoy__Extensions__Filters__Http__Rbac__V3__RBACPerRoute *m = message;

    kb_diag_push(diag, "rbac");
    *out = config_build(m->rbac, factory, diag);
    kb_diag_pop(diag);
    return *out != NULL ? 0 : KB_ECONFIG;
}

static void rbac_config_destroy(void *arg)
{
    struct rbac_config *config;

    if (arg == NULL) {
        return;
    }
    config = KB_CAST(arg, rbac_config);
    kb_rbac_engines_dispose(&config->engines);
    KB_OBJ_CLEAR(config);
}

/* ---- requests ---- */

static void *rbac_create(void *arg, struct kb_stream *stream)
{
    struct rbac_filter *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct rbac_filter);

    filter->config = KB_CAST(arg, rbac_config);
    filter->stream = stream;
    return filter;
}

static void metadata_set(struct rbac_filter *filter, struct kb_str key, struct kb_str text)
{
    kb_dynamic_metadata_set_text(&kb_stream_stream_info(filter->stream)->dynamic_metadata,
                                 kb_stream_arena(filter->stream), KB_STR(NAMESPACE), key, text);
}

static void policy_count(const struct kb_rbac_result *result, uint32_t worker)
{
    if (result->policy != NULL && result->policy->allowed != NULL) {
        kb_stat_named_add(result->allowed ? result->policy->allowed : result->policy->denied,
                          worker, 1);
    }
}

/* The hint for access logs, from the action LOG. */
static void log_hint_set(struct rbac_filter *filter, const struct kb_rbac_result *result)
{
    if (result->logs) {
        kb_dynamic_metadata_set_bool(&kb_stream_stream_info(filter->stream)->dynamic_metadata,
                                     kb_stream_arena(filter->stream), KB_STR("envoy.common"),
                                     KB_STR("access_log_hint"), result->policy != NULL);
    }
}

static void metadata_set_result(struct rbac_filter *filter, struct kb_str policy_key,
                                struct kb_str result_key, const struct kb_rbac_result *result)
{
    if (result->policy != NULL) {
        metadata_set(filter, policy_key, result->policy->name);
    }
    metadata_set(filter, result_key, result->allowed ? KB_STR("allowed") : KB_STR("denied"));
}

static struct kb_rbac_result shadow_check(struct rbac_filter *filter,
                                          const struct rbac_config *config,
                                          const struct kb_rbac_input *input)
{
    uint32_t worker = kb_stream_worker(filter->stream)->index;
    struct kb_rbac_result result = kb_rbac_engine_check(config->engines.shadow_rules, input);

    log_hint_set(filter, &result);
    kb_stat_inc(kb_stat_group_block(filter->config->engines.shadow_stats, worker),
                result.allowed ? KB_STAT_RBAC_SHADOW_SHADOW_ALLOWED
                               : KB_STAT_RBAC_SHADOW_SHADOW_DENIED);
    policy_count(&result, worker);
    return result;
}

static struct kb_rbac_result rules_check(struct rbac_filter *filter,
                                         const struct rbac_config *config,
                                         const struct kb_rbac_input *input)
{
    uint32_t worker = kb_stream_worker(filter->stream)->index;
    struct kb_rbac_result result = kb_rbac_engine_check(config->engines.rules, input);

    log_hint_set(filter, &result);
    kb_stat_inc(kb_stat_group_block(filter->config->engines.stats, worker),
                result.allowed ? KB_STAT_RBAC_ALLOWED : KB_STAT_RBAC_DENIED);
    policy_count(&result, worker);
    return result;
}

static enum kb_filter_headers_status rbac_decode_headers(void *self, struct kb_header_map *headers,
                                                         bool end_stream)
{
    struct rbac_filter *filter = self;
    const struct rbac_config *route = kb_stream_route_config(filter->stream, filter);
    const struct rbac_config *config = route != NULL ? route : filter->config;
    const struct kb_rbac_input input = {headers, kb_stream_stream_info(filter->stream),
                                        kb_stream_arena(filter->stream)};
    struct kb_rbac_result shadow = {.allowed = true};
    struct kb_rbac_result result = {.allowed = true};

    (void)end_stream;
    if (config->engines.shadow_rules != NULL) {
        shadow = shadow_check(filter, config, &input);
    }
    if (config->engines.rules != NULL) {
        result = rules_check(filter, config, &input);
        metadata_set_result(filter, config->enforced_policy_key, config->enforced_result_key,
                            &result);
    }
    /* Only now: as in Envoy the rules do not see what the shadow rules said. */
    if (config->engines.shadow_rules != NULL) {
        metadata_set_result(filter, config->policy_key, config->result_key, &shadow);
    }
    if (result.allowed) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    kb_stream_send_filter_reply(filter->stream, 403, KB_STR("RBAC: access denied"),
                                kb_rbac_details(&result), NULL, NULL);
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

const struct kb_http_filter_ops kb_ext_http_rbac = {
    .name = "envoy.filters.http.rbac",
    .type_url = "envoy.extensions.filters.http.rbac.v3.RBAC",
    .route_type_url = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
    .config_create = rbac_config_create,
    .config_destroy = rbac_config_destroy,
    .route_config_create = rbac_route_config_create,
    .route_config_destroy = rbac_config_destroy,
    .create = rbac_create,
    .decode_headers = rbac_decode_headers,
};
