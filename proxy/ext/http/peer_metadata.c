/* SPDX-License-Identifier: Apache-2.0 */
/* io.istio.http.peer_metadata.Config (istio.metadata_exchange of a HTTP chain): learns from headers
 * who the peer is, and tells it who we are. For telemetry only: nothing here is proven. Workload
 * discovery knows nobody without its own resources, which no control plane sends here, so that
 * method is passed over as in a proxy that was started without it. */
#include <stdlib.h>

#include "base/mem.h"
#include "istio/peer_metadata.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/cluster.h"
#include "proxy/api/http_filter.h"
#include "proxy/ext/common/workload.h"

typedef Io__Istio__Http__PeerMetadata__Config config_message;

/* How the headers are sent in one direction. */
enum propagation {
    PROPAGATE_NEVER,
    PROPAGATE_INSIDE, /* not to clusters outside of the mesh */
    PROPAGATE_ALWAYS,
};

struct peer_metadata_config {
    KB_OBJ;
    struct kb_arena arena;
    struct kb_workload_labels labels;
    struct kb_workload_cache *caches; /* by worker index */
    uint32_t worker_count;
    bool discovers_downstream;
    bool discovers_upstream;
    enum propagation downstream;
    enum propagation upstream;
    uint8_t sharing;
    struct kb_str id;    /* what is told */
    struct kb_str value; /* base64 */
};
KB_OBJ_MAGIC(peer_metadata_config, 0x504d4447);

struct peer_metadata {
    KB_OBJ;
    struct peer_metadata_config *config;
    struct kb_stream *stream;
    bool id_received; /* of the request */
    bool value_received;
};
KB_OBJ_MAGIC(peer_metadata, 0x504d4454);

/* ---- configuration ---- */

static bool discovers(Io__Istio__Http__PeerMetadata__Config__DiscoveryMethod *const *methods,
                      size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (methods[i]->method_specifier_case ==
            IO__ISTIO__HTTP__PEER_METADATA__CONFIG__DISCOVERY_METHOD__METHOD_SPECIFIER_ISTIO_HEADERS) {
            return true;
        }
    }
    return false;
}

static enum propagation
propagates(Io__Istio__Http__PeerMetadata__Config__PropagationMethod *const *methods, size_t count)
{
    enum propagation result = PROPAGATE_NEVER;

    for (size_t i = 0; i < count; i++) {
        if (methods[i]->istio_headers == NULL) {
            continue;
        }
        if (!methods[i]->istio_headers->skip_external_clusters) {
            return PROPAGATE_ALWAYS;
        }
        result = PROPAGATE_INSIDE;
    }
    return result;
}

static void told_make(struct peer_metadata_config *config, const struct kb_server_context *server)
{
    struct kb_workload *self = kb_workload_from_struct(server->node_metadata, &config->labels);

    config->value = kb_workload_to_base64(self, &config->arena);
    config->id = kb_str_dup(&config->arena, server->node_id);
    kb_workload_unref(self);
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    const config_message *m = message;
    struct peer_metadata_config *config = kb_calloc(1, sizeof(*config));

    (void)diag;
    kb_workload_keys_init();
    KB_OBJ_SET(config, peer_metadata_config);
    kb_arena_init(&config->arena, NULL);
    kb_workload_labels_read(&config->labels, m->additional_labels, m->n_additional_labels,
                            &config->arena);
    config->worker_count = factory->server->worker_count;
    config->caches = kb_calloc(config->worker_count + 1, sizeof(*config->caches));
    for (uint32_t i = 0; i <= config->worker_count; i++) {
        kb_workload_cache_init(&config->caches[i]);
    }
    config->discovers_downstream = discovers(m->downstream_discovery, m->n_downstream_discovery);
    config->discovers_upstream = discovers(m->upstream_discovery, m->n_upstream_discovery);
    config->downstream = propagates(m->downstream_propagation, m->n_downstream_propagation);
    config->upstream = propagates(m->upstream_propagation, m->n_upstream_propagation);
    config->sharing =
        m->shared_with_upstream ? KB_FILTER_STATE_SHARED_ONCE : KB_FILTER_STATE_SHARED_NONE;
    told_make(config, factory->server);
    *out = config;
    return 0;
}

static void config_destroy(void *arg)
{
    struct peer_metadata_config *config = KB_CAST(arg, peer_metadata_config);

    for (uint32_t i = 0; i <= config->worker_count; i++) {
        kb_workload_cache_dispose(&config->caches[i]);
    }
    free(config->caches);
    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}

/* ---- streams ---- */

static void *create(void *config, struct kb_stream *stream)
{
    struct peer_metadata *filter =
        kb_arena_alloc(kb_stream_arena(stream), sizeof(*filter), sizeof(void *));

    KB_OBJ_SET(filter, peer_metadata);
    filter->config = KB_CAST(config, peer_metadata_config);
    filter->stream = stream;
    filter->id_received = false;
    filter->value_received = false;
    return filter;
}

static void peer_put(struct peer_metadata *filter, const struct kb_workload *peer,
                     const struct kb_filter_state_key *key)
{
    struct kb_stream_info *info = kb_stream_stream_info(filter->stream);
    struct kb_filter_state_item item = {.key = key,
                                        .type = &kb_workload_state_type,
                                        .object = peer,
                                        .sharing = filter->config->sharing};

    /* Whoever said so first is believed. */
    if (kb_filter_state_find(info, key) == NULL &&
        kb_filter_state_put_stream(info, kb_stream_arena(filter->stream), &item) != 0) {
        return;
    }
}

/* Takes the headers out of the message, and notes who the peer is. */
static void discover(struct peer_metadata *filter, struct kb_header_map *headers, bool downstream)
{
    struct kb_worker *worker = kb_stream_worker(filter->stream);
    struct kb_str id = kb_header_map_value_id(headers, KB_HDR_X_ENVOY_PEER_METADATA_ID);
    struct kb_str value = kb_header_map_value_id(headers, KB_HDR_X_ENVOY_PEER_METADATA);
    const struct kb_workload *peer;

    if (value.len > 0) {
        peer = kb_workload_cache_read(&filter->config->caches[worker->index], id, value,
                                      &filter->config->labels);
        if (peer != NULL) {
            peer_put(filter, peer,
                     downstream ? kb_workload_downstream_key : kb_workload_upstream_key);
        }
    }
    if (downstream) {
        filter->id_received = id.p != NULL;
        filter->value_received = value.p != NULL;
    }
    kb_header_map_remove_id(headers, KB_HDR_X_ENVOY_PEER_METADATA_ID);
    kb_header_map_remove_id(headers, KB_HDR_X_ENVOY_PEER_METADATA);
}

/* Whether the cluster's hosts are none of the mesh, or said not to care. */
static bool cluster_skipped(struct peer_metadata *filter, enum propagation propagation)
{
    const struct kb_cluster *cluster = kb_stream_route_cluster(filter->stream);

    if (cluster == NULL) {
        return false;
    }
    return cluster->istio.disable_mx ||
           (propagation == PROPAGATE_INSIDE &&
            (cluster->istio.external || kb_str_eq(cluster->name, KB_STR("PassthroughCluster"))));
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct peer_metadata *filter = KB_CAST(arg, peer_metadata);
    const struct peer_metadata_config *config = filter->config;

    (void)end_stream;
    if (config->discovers_downstream) {
        discover(filter, headers, true);
    }
    if (config->upstream != PROPAGATE_NEVER && !cluster_skipped(filter, config->upstream)) {
        kb_header_map_set_id(headers, KB_HDR_X_ENVOY_PEER_METADATA_ID, config->id);
        kb_header_map_set_id(headers, KB_HDR_X_ENVOY_PEER_METADATA, config->value);
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct peer_metadata *filter = KB_CAST(arg, peer_metadata);
    const struct peer_metadata_config *config = filter->config;

    (void)end_stream;
    if (config->discovers_upstream) {
        discover(filter, headers, false);
    }
    if (config->downstream != PROPAGATE_NEVER && (filter->id_received || filter->value_received) &&
        !cluster_skipped(filter, config->downstream)) {
        if (filter->id_received) {
            kb_header_map_set_id(headers, KB_HDR_X_ENVOY_PEER_METADATA_ID, config->id);
        }
        if (filter->value_received) {
            kb_header_map_set_id(headers, KB_HDR_X_ENVOY_PEER_METADATA, config->value);
        }
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

const struct kb_http_filter_ops kb_ext_http_peer_metadata = {
    .name = "envoy.filters.http.peer_metadata",
    .type_url = "io.istio.http.peer_metadata.Config",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .create = create,
    .decode_headers = decode_headers,
    .encode_headers = encode_headers,
};
