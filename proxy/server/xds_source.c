/* SPDX-License-Identifier: Apache-2.0 */
/* api_config_source: which cluster, which protocol, how often to try again. */
#include <stdlib.h>

#include "base/mem.h"
#include "proto/wkt.h"
#include "proxy/server/xds_glue.h"

#define API_TYPE(name) ENVOY__CONFIG__CORE__V3__API_CONFIG_SOURCE__API_TYPE__##name
#define ENVOY_GRPC     ENVOY__CONFIG__CORE__V3__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC

#define RATE_LIMIT_TOKENS 100
#define RATE_LIMIT_PER_S  10
#define BACKOFF_FACTOR    10 /* max_interval when only base_interval is given */

static void backoff_read(struct kb_xds_source *source,
                         const Envoy__Config__Core__V3__RetryPolicy *policy, struct kb_diag *diag)
{
    const Envoy__Config__Core__V3__BackoffStrategy *backoff =
        policy != NULL ? policy->retry_back_off : NULL;

    if (backoff == NULL) {
        return;
    }
    source->backoff_base_ms = kb_wkt_duration_ms(backoff->base_interval, 0);
    source->backoff_max_ms =
        kb_wkt_duration_ms(backoff->max_interval, source->backoff_base_ms * BACKOFF_FACTOR);
    if (source->backoff_max_ms < source->backoff_base_ms) {
        kb_diag_error(diag, "max_interval must be greater than or equal to the base_interval");
    }
}

static void rate_limit_read(struct kb_xds_source *source,
                            const Envoy__Config__Core__V3__RateLimitSettings *settings)
{
    if (settings == NULL) {
        return;
    }
    source->rate_limit_tokens = kb_wkt_u32(settings->max_tokens, RATE_LIMIT_TOKENS);
    source->rate_limit_per_s =
        settings->fill_rate != NULL ? settings->fill_rate->value : RATE_LIMIT_PER_S;
}

/* The cluster must stand in the bootstrap, with hosts of its own: one that comes from a control
 * plane cannot be the way to it. */
static void cluster_check(const Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap,
                          const char *name, struct kb_diag *diag)
{
    const Envoy__Config__Bootstrap__V3__Bootstrap__StaticResources *resources =
        bootstrap->static_resources;

    for (size_t i = 0; resources != NULL && i < resources->n_clusters; i++) {
        const Envoy__Config__Cluster__V3__Cluster *cluster = resources->clusters[i];

        if (strcmp(cluster->name, name) == 0 &&
            (cluster->cluster_discovery_type_case !=
                 ENVOY__CONFIG__CLUSTER__V3__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE ||
             cluster->type != ENVOY__CONFIG__CLUSTER__V3__CLUSTER__DISCOVERY_TYPE__EDS)) {
            return;
        }
    }
    kb_diag_error_hint(diag, KB_STR("define it in static_resources.clusters"),
                       "envoy.config.core.v3.ApiConfigSource must have a statically defined "
                       "non-EDS cluster: '%s' does not exist, was added via api, or is an EDS "
                       "cluster",
                       name);
}

static void service_read(struct kb_xds_source *source,
                         const Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap,
                         const Envoy__Config__Core__V3__GrpcService *service, struct kb_diag *diag)
{
    const Envoy__Config__Core__V3__GrpcService__EnvoyGrpc *grpc;
    const Envoy__Config__Core__V3__GrpcService *copy;

    if (service->target_specifier_case != ENVOY_GRPC) {
        kb_diag_error_hint(diag, KB_STR("use envoy_grpc, and a cluster with its address"),
                           "google_grpc is not implemented");
        return;
    }
    copy = (const Envoy__Config__Core__V3__GrpcService *)(const void *)kb_pb_copy(&service->base,
                                                                                  &source->arena);
    grpc = copy->envoy_grpc;
    source->cluster = kb_strdup(grpc->cluster_name);
    source->authority = kb_strdup(grpc->authority);
    source->metadata = copy->initial_metadata;
    source->metadata_count = copy->n_initial_metadata;
    source->skip_envoy_headers = grpc->skip_envoy_headers;
    source->max_message_bytes = kb_wkt_u32(grpc->max_receive_message_length, 0);
    backoff_read(source, grpc->retry_policy, diag);
    kb_diag_push(diag, "envoy_grpc");
    kb_diag_push(diag, "cluster_name");
    cluster_check(bootstrap, grpc->cluster_name, diag);
    kb_diag_pop(diag);
    kb_diag_pop(diag);
}

static void api_type_read(struct kb_xds_source *source,
                          const Envoy__Config__Core__V3__ApiConfigSource *message,
                          struct kb_diag *diag)
{
    if (message->api_type == API_TYPE(GRPC)) {
        source->delta = false;
    } else if (message->api_type == API_TYPE(DELTA_GRPC)) {
        source->delta = true;
    } else {
        kb_diag_push(diag, "api_type");
        kb_diag_error_hint(diag, KB_STR("use GRPC or DELTA_GRPC"),
                           "this way to speak to a control plane is not implemented");
        kb_diag_pop(diag);
    }
}

bool kb_xds_source_init(struct kb_xds_source *source, struct kb_server_context *server,
                        const Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap,
                        const Envoy__Config__Core__V3__ApiConfigSource *message,
                        struct kb_diag *diag)
{
    uint32_t errors = diag->error_count;

    memset(source, 0, sizeof(*source));
    kb_arena_init(&source->arena, NULL);
    source->main = server->main;
    source->node_on_first_message_only = message->set_node_on_first_message_only;
    api_type_read(source, message, diag);
    rate_limit_read(source, message->rate_limit_settings);
    if (message->n_cluster_names > 0) {
        kb_diag_push(diag, "cluster_names");
        kb_diag_error(diag, "ApiConfigSource with GRPC must not have a cluster name specified; "
                            "grpc_services has it");
        kb_diag_pop(diag);
    }
    if (message->n_grpc_services != 1) {
        kb_diag_push(diag, "grpc_services");
        kb_diag_error(diag, message->n_grpc_services == 0
                                ? "API configs must have a gRPC service"
                                : "a second gRPC service to fail over to is not implemented");
        kb_diag_pop(diag);
    } else {
        kb_diag_push_index(diag, "grpc_services", 0);
        service_read(source, bootstrap, message->grpc_services[0], diag);
        kb_diag_pop(diag);
    }
    kb_xds_transport_grpc_init(source);
    return diag->error_count == errors;
}

void kb_xds_source_dispose(struct kb_xds_source *source)
{
    free(source->cluster);
    free(source->authority);
    kb_arena_dispose(&source->arena);
}

void kb_xds_source_options(struct kb_xds_source *source, struct kb_xds_mux_options *options)
{
    memset(options, 0, sizeof(*options));
    options->loop = &source->main->loop;
    options->rand = &source->main->rand;
    options->transport = &source->transport;
    options->delta = source->delta;
    options->node_on_first_message_only = source->node_on_first_message_only;
    options->backoff_base_ms = source->backoff_base_ms;
    options->backoff_max_ms = source->backoff_max_ms;
    options->rate_limit_tokens = source->rate_limit_tokens;
    options->rate_limit_per_s = source->rate_limit_per_s;
}
