/* SPDX-License-Identifier: Apache-2.0 */
/* TcpProxy message to configuration. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "envoy/config/core/v3/backoff.pb-c.h"
#include "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.pb-c.h"
#include "envoy/type/v3/hash_policy.pb-c.h"
#include "envoy/type/v3/percent.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/filter_state.h"
#include "proxy/ext/network/tcp_proxy.h"

#define IDLE_TIMEOUT_DEFAULT_MS 3600000

typedef Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy tcp_proxy_message;

static void unsupported(struct kb_diag *diag, const char *field, const char *why)
{
    kb_diag_push(diag, field);
    kb_diag_error(diag, "%s", why);
    kb_diag_pop(diag);
}

static void cluster_add(struct kb_tcp_proxy_config *config, const char *name, uint32_t weight,
                        const struct kb_metadata_criteria *metadata_match)
{
    struct kb_tcp_proxy_cluster *cluster = &config->clusters[config->cluster_count++];

    cluster->name = kb_str_dup(&config->arena, kb_wkt_str(name));
    cluster->slot = kb_cluster_slot(config->server->clusters, cluster->name);
    cluster->weight = weight;
    cluster->metadata_match = metadata_match;
    config->total_weight += weight;
}

static void clusters_create(struct kb_tcp_proxy_config *config, const tcp_proxy_message *m,
                            struct kb_diag *diag)
{
    const struct kb_metadata_criteria *metadata_match =
        kb_metadata_criteria_read(NULL, m->metadata_match, &config->arena);
    size_t count = 1;

    switch ((int)m->cluster_specifier_case) {
    case ENVOY__EXTENSIONS__FILTERS__NETWORK__TCP_PROXY__V3__TCP_PROXY__CLUSTER_SPECIFIER_CLUSTER:
        config->clusters = kb_arena_calloc(&config->arena, sizeof(*config->clusters));
        cluster_add(config, m->cluster, 1, metadata_match);
        break;
    case ENVOY__EXTENSIONS__FILTERS__NETWORK__TCP_PROXY__V3__TCP_PROXY__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS:
        count = m->weighted_clusters->n_clusters;
        config->clusters = kb_arena_calloc(&config->arena, (count + 1) * sizeof(*config->clusters));
        for (size_t i = 0; i < count; i++) {
            cluster_add(config, m->weighted_clusters->clusters[i]->name,
                        m->weighted_clusters->clusters[i]->weight,
                        kb_metadata_criteria_read(metadata_match,
                                                  m->weighted_clusters->clusters[i]->metadata_match,
                                                  &config->arena));
        }
        break;
    default:
        kb_diag_error(diag, "one of cluster and weighted_clusters is required");
    }
}

static void unsupported_check(const tcp_proxy_message *m, struct kb_diag *diag)
{
    if (m->on_demand != NULL) {
        unsupported(diag, "on_demand", "on-demand cluster discovery is not supported");
    }
}

static void backoff_apply(struct kb_tcp_proxy_config *config, const tcp_proxy_message *m,
                          struct kb_diag *diag)
{
    if (m->backoff_options == NULL) {
        return;
    }
    config->backoff_ms = KB_MAX(kb_wkt_duration_ms(m->backoff_options->base_interval, 0), 1);
    config->backoff_max_ms =
        kb_wkt_duration_ms(m->backoff_options->max_interval, config->backoff_ms * 10);
    if (config->backoff_max_ms < config->backoff_ms) {
        unsupported(diag, "backoff_options",
                    "max_backoff_interval must be greater or equal to base_backoff_interval");
    }
}

static void hash_policy_apply(struct kb_tcp_proxy_config *config, const tcp_proxy_message *m)
{
    if (m->n_hash_policy == 0) {
        return;
    }
    if (m->hash_policy[0]->policy_specifier_case ==
        ENVOY__TYPE__V3__HASH_POLICY__POLICY_SPECIFIER_SOURCE_IP) {
        config->hash_source_ip = true;
    } else if (m->hash_policy[0]->policy_specifier_case ==
               ENVOY__TYPE__V3__HASH_POLICY__POLICY_SPECIFIER_FILTER_STATE) {
        config->hash_key =
            kb_filter_state_key(kb_str_from_cstr(m->hash_policy[0]->filter_state->key));
    }
}

static void duration_apply(struct kb_tcp_proxy_config *config, const tcp_proxy_message *m)
{
    config->max_duration_ms = kb_wkt_duration_ms(m->max_downstream_connection_duration, 0);
    if (m->max_downstream_connection_duration_jitter_percentage != NULL) {
        config->max_duration_jitter_ms =
            (uint64_t)ceil((double)config->max_duration_ms *
                           m->max_downstream_connection_duration_jitter_percentage->value / 100);
    }
}

static void access_log_options_apply(struct kb_tcp_proxy_config *config, const tcp_proxy_message *m,
                                     struct kb_diag *diag)
{
    const Envoy__Extensions__Filters__Network__TcpProxy__V3__TcpProxy__TcpAccessLogOptions
        *options = m->access_log_options;

    config->log_on_connected = m->flush_access_log_on_connected;
    config->log_interval_ms = kb_wkt_duration_ms(m->access_log_flush_interval, 0);
    if (options == NULL) {
        return;
    }
    if (m->flush_access_log_on_connected) {
        kb_diag_error(
            diag,
            "Only one of flush_access_log_on_connected or access_log_options can be specified.");
    }
    if (m->access_log_flush_interval != NULL) {
        kb_diag_error(
            diag, "Only one of access_log_flush_interval or access_log_options can be specified.");
    }
    config->log_on_connected = options->flush_access_log_on_connected;
    config->log_interval_ms = kb_wkt_duration_ms(options->access_log_flush_interval, 0);
}

int kb_tcp_proxy_config_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **out)
{
    const tcp_proxy_message *m = message;
    struct kb_tcp_proxy_config *config;
    struct kb_factory_context inner = *factory;
    uint32_t errors = diag->error_count;

    if (m == NULL) {
        kb_diag_error(diag, "the TCP proxy needs a typed_config of type "
                            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy");
        return KB_ECONFIG;
    }
    config = kb_calloc(1, sizeof(*config));
    KB_OBJ_SET(config, kb_tcp_proxy_config);
    kb_arena_init(&config->arena, NULL);
    config->server = factory->server;
    inner.arena = &config->arena;
    config->stats = kb_stat_group_create(factory->server->stats,
                                         kb_str_printf(&config->arena, "tcp.%s.", m->stat_prefix),
                                         &kb_stat_schema_tcp);
    config->idle_timeout_ms = kb_wkt_duration_ms(m->idle_timeout, IDLE_TIMEOUT_DEFAULT_MS);
    duration_apply(config, m);
    backoff_apply(config, m, diag);
    hash_policy_apply(config, m);
    config->max_connect_attempts = kb_wkt_u32(m->max_connect_attempts, 1);
    access_log_options_apply(config, m, diag);
    clusters_create(config, m, diag);
    unsupported_check(m, diag);
    if (m->tunneling_config != NULL) {
        kb_diag_push(diag, "tunneling_config");
        config->tunnel = kb_tcp_tunnel_create(m->tunneling_config, &config->arena, diag);
        kb_diag_pop(diag);
    }
    config->access_log = kb_access_log_list_create(m->access_log, m->n_access_log, &inner, diag);
    if (diag->error_count != errors) {
        kb_tcp_proxy_config_destroy(config);
        return KB_ECONFIG;
    }
    *out = config;
    return 0;
}

void kb_tcp_proxy_config_destroy(void *arg)
{
    struct kb_tcp_proxy_config *config = KB_CAST(arg, kb_tcp_proxy_config);

    if (config->access_log != NULL) {
        kb_access_log_list_destroy(config->access_log);
    }
    for (size_t i = 0; i < config->cluster_count; i++) {
        kb_cluster_slot_release(config->server->clusters, config->clusters[i].slot);
    }
    kb_stat_group_destroy(config->stats);
    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}
