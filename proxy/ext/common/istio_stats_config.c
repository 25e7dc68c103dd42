/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration of istio.stats: who reports, which metrics there are and with which labels. */
#include <stdlib.h>

#include "base/mem.h"
#include "istio/stats.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/ext/common/istio_stats_internal.h"

#define INTERVAL_DEFAULT_MS 5000

#define LABEL(id) (UINT32_C(1) << KB_ISTIO_LABEL_##id)

const struct kb_str kb_istio_metric_names[KB_ISTIO_REPORT_COUNT][KB_ISTIO_METRICS_MAX] = {
    [KB_ISTIO_HTTP] = {{"requests_total", 14},
                       {"request_duration_milliseconds", 29},
                       {"request_bytes", 13},
                       {"response_bytes", 14}},
    [KB_ISTIO_MESSAGES] = {{"request_messages_total", 22}, {"response_messages_total", 23}},
    [KB_ISTIO_TCP] = {{"tcp_connections_opened_total", 28},
                      {"tcp_connections_closed_total", 28},
                      {"tcp_sent_bytes_total", 20},
                      {"tcp_received_bytes_total", 24}},
};

static const uint32_t report_labels[KB_ISTIO_REPORT_COUNT] = {
    [KB_ISTIO_HTTP] = ISTIO_LABELS_ALL,
    [KB_ISTIO_MESSAGES] = ISTIO_LABELS_ALL & ~(LABEL(REQUEST_PROTOCOL) | LABEL(RESPONSE_CODE) |
                                               LABEL(GRPC_RESPONSE_STATUS) | LABEL(RESPONSE_FLAGS) |
                                               LABEL(CONNECTION_SECURITY_POLICY)),
    [KB_ISTIO_TCP] = ISTIO_LABELS_ALL & ~(LABEL(RESPONSE_CODE) | LABEL(GRPC_RESPONSE_STATUS)),
};

static uint32_t labels_named(char *const *names, size_t count)
{
    uint32_t labels = 0;

    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < KB_ISTIO_LABEL_COUNT; k++) {
            if (kb_str_eq(kb_str_from_cstr(names[i]), kb_istio_label_names[k])) {
                labels |= UINT32_C(1) << k;
            }
        }
    }
    return labels;
}

static void expressions_refuse(const Stats__MetricConfig *m, struct kb_diag *diag)
{
    static const char hint[] = "take it out of the Telemetry or PluginConfig that it comes from";

    if (m->n_dimensions > 0) {
        kb_diag_push(diag, "dimensions");
        kb_diag_error_hint(diag, kb_str_from_cstr(hint),
                           "label '%s' is given by the expression '%s': there is no CEL evaluator "
                           "in this build",
                           m->dimensions[0]->key, m->dimensions[0]->value);
        kb_diag_pop(diag);
    }
    if (m->match[0] != '\0') {
        kb_diag_push(diag, "match");
        kb_diag_error_hint(diag, kb_str_from_cstr(hint),
                           "'%s' is an expression: there is no CEL evaluator in this build",
                           m->match);
        kb_diag_pop(diag);
    }
}

static void metric_read(struct kb_istio_stats_config *config, const Stats__MetricConfig *m,
                        struct kb_diag *diag)
{
    uint32_t removed = labels_named(m->tags_to_remove, m->n_tags_to_remove);
    struct kb_str name = kb_str_from_cstr(m->name);
    bool found = name.len == 0;

    for (size_t i = 0; i < KB_ISTIO_REPORT_COUNT; i++) {
        for (size_t k = 0; k < KB_ISTIO_METRICS_MAX; k++) {
            if (name.len == 0 || kb_str_eq(name, kb_istio_metric_names[i][k])) {
                found = true;
                config->metrics[i][k].dropped |= m->drop != 0;
                config->metrics[i][k].labels &= ~removed;
            }
        }
    }
    if (!found) {
        kb_diag_error(diag, "there is no metric of the name '%s'", m->name);
    }
    expressions_refuse(m, diag);
}

static void metrics_read(struct kb_istio_stats_config *config, const Stats__PluginConfig *m,
                         struct kb_diag *diag)
{
    for (size_t i = 0; i < KB_ISTIO_REPORT_COUNT; i++) {
        for (size_t k = 0; k < KB_ISTIO_METRICS_MAX; k++) {
            config->metrics[i][k].labels = report_labels[i];
        }
    }
    for (size_t i = 0; i < m->n_metrics; i++) {
        kb_diag_push_index(diag, "metrics", i);
        metric_read(config, m->metrics[i], diag);
        kb_diag_pop(diag);
    }
    if (m->n_definitions > 0) {
        kb_diag_push_index(diag, "definitions", 0);
        kb_diag_error(diag,
                      "metric '%s' is defined by an expression: there is no CEL evaluator in this "
                      "build",
                      m->definitions[0]->name);
        kb_diag_pop(diag);
    }
}

/* istio_build{component="proxy",tag="1.28.0"} 1 */
static void build_show(struct kb_istio_stats_config *config)
{
    struct kb_str version =
        kb_struct_get_text(config->server->node_metadata, KB_STR("ISTIO_VERSION"));
    struct kb_tag tags[] = {{KB_STR("component"), KB_STR("proxy")},
                            {KB_STR("tag"), KB_STR("unknown")}};

    if (version.len > 0) {
        tags[1].value = version;
    }
    config->build =
        kb_stat_tagged_get(config->server->stats, KB_STR(KB_STAT_CUSTOM_NAMESPACE "istio_build"),
                           tags, KB_ARRAY_LEN(tags), KB_STAT_GAUGE);
    if (config->build != NULL) {
        kb_stat_named_set(config->build, config->server->worker_count, 1);
    }
}

void kb_istio_stats_config_destroy(void *arg)
{
    struct kb_istio_stats_config *config = KB_CAST(arg, kb_istio_stats_config);

    for (uint32_t i = 0; i <= config->server->worker_count; i++) {
        kb_istio_worker_dispose(&config->workers[i]);
    }
    kb_workload_unref(config->self);
    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}

int kb_istio_stats_config_create(const void *message, struct kb_factory_context *factory,
                                 struct kb_diag *diag, void **out)
{
    const Stats__PluginConfig *m = message;
    uint32_t workers = factory->server->worker_count;
    struct kb_istio_stats_config *config =
        kb_calloc(1, sizeof(*config) + (workers + 1) * sizeof(struct istio_worker));
    uint32_t errors = diag->error_count;

    kb_workload_keys_init();
    KB_OBJ_SET(config, kb_istio_stats_config);
    kb_arena_init(&config->arena, NULL);
    config->server = factory->server;
    config->reporter = m->reporter == STATS__REPORTER__SERVER_GATEWAY ? KB_ISTIO_WAYPOINT
                       : factory->inbound                             ? KB_ISTIO_DESTINATION
                                                                      : KB_ISTIO_SOURCE;
    config->host_header_fallback = !m->disable_host_header_fallback;
    config->interval_ms = kb_wkt_duration_ms(m->tcp_reporting_duration, INTERVAL_DEFAULT_MS);
    config->self = kb_workload_from_struct(factory->server->node_metadata, NULL);
    for (uint32_t i = 0; i <= workers; i++) {
        kb_map_init(&config->workers[i].texts);
    }
    metrics_read(config, m, diag);
    if (diag->error_count != errors) {
        kb_istio_stats_config_destroy(config);
        return KB_ECONFIG;
    }
    build_show(config);
    *out = config;
    return 0;
}
