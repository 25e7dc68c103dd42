/* SPDX-License-Identifier: Apache-2.0 */
/* The control plane of the process: the ADS stream, subscriptions of rooms over it, over streams of
 * their own and from files (proxy/api/subscription.h is implemented here). Main thread. */
#pragma once

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"

#include "base/map.h"
#include "proxy/admin/core_sources.h"
#include "proxy/api/factory_context.h"
#include "proxy/api/subscription.h"
#include "proxy/server/options.h"
#include "proxy/server/unsupported.h"
#include "xds/xds_mux.h"

struct kb_xds_glue;

/* Reads dynamic_resources.ads_config; errors go to diag, whose present path is the bootstrap's.
 * `bootstrap`
 * and `node` are borrowed for ever. Before the first cluster is built. Fields of
 * resources that are not implemented go to `unsupported`. Never NULL. */
struct kb_xds_glue *kb_xds_glue_create(struct kb_server_context *server,
                                       const Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap,
                                       Envoy__Config__Core__V3__Node *node,
                                       const struct kb_options *options,
                                       struct kb_unsupported *unsupported, struct kb_diag *diag);
/* Opens the ADS stream, when there is one; clusters are published by then. */
void kb_xds_glue_start(struct kb_xds_glue *glue);
/* Closes every stream for good: the process ends. */
void kb_xds_glue_stop(struct kb_xds_glue *glue);
/* When every subscription was destroyed, and the loop has handled what that deferred. NULL is
 * allowed. */
void kb_xds_glue_destroy(struct kb_xds_glue *glue);
/* Route configurations, secrets (without their private parts) or extension configurations, by name.
 */
void kb_xds_glue_visit(struct kb_xds_glue *glue, enum kb_resource_type type,
                       kb_admin_resource_fn visit, void *visit_arg);

/* The last responses of control planes and files; lives as long as `glue`. */
const struct kb_xds_push_log *kb_xds_glue_pushes(const struct kb_xds_glue *glue);

/* Something is served from --config-cache, because the control plane was never reached. */
bool kb_xds_glue_from_cache(const struct kb_xds_glue *glue);

/* ---- for the files of this room ---- */

/* How to speak to one control plane: what an ApiConfigSource says. */
struct kb_xds_source {
    struct kb_xds_transport transport;
    struct kb_worker *main;
    char *cluster;
    char *authority; /* "": the cluster's name */
    struct Envoy__Config__Core__V3__HeaderValue *const *metadata;
    size_t metadata_count;
    struct kb_arena arena;
    uint64_t backoff_base_ms; /* 0: the default */
    uint64_t backoff_max_ms;
    uint64_t max_message_bytes; /* 0: the default */
    uint32_t rate_limit_tokens;
    double rate_limit_per_s;
    bool delta;
    bool node_on_first_message_only;
    bool skip_envoy_headers;
};

/* Checks and reads; false after an error in diag. Its cluster must stand in the bootstrap. The
 * transport speaks gRPC to the cluster. Must be
 * disposed either way. */
bool kb_xds_source_init(struct kb_xds_source *source, struct kb_server_context *server,
                        const Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap,
                        const Envoy__Config__Core__V3__ApiConfigSource *message,
                        struct kb_diag *diag);
void kb_xds_source_dispose(struct kb_xds_source *source);
/* Options of a stream to it, for kb_xds_mux_create; observer and method are left to the caller. */
void kb_xds_source_options(struct kb_xds_source *source, struct kb_xds_mux_options *options);
/* Fills in the functions of source->transport: a stream of proxy/grpc. */
void kb_xds_transport_grpc_init(struct kb_xds_source *source);
