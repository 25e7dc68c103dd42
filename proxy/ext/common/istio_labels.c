/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in the labels of Istio's metrics, for each side of a request. */
#include "proxy/api/cluster.h"
#include "proxy/ext/common/istio_stats_internal.h"

#define UNKNOWN KB_STR("unknown")

const struct kb_str kb_istio_label_names[KB_ISTIO_LABEL_COUNT] = {
#define X(id, name) {name, sizeof(name) - 1},
#include "proxy/ext/common/istio_labels.def"
#undef X
};

static struct kb_str or_else(struct kb_str text, struct kb_str otherwise)
{
    return text.len > 0 ? text : otherwise;
}

/* "ns" of "spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT"; empty: there is none. */
static struct kb_str principal_namespace(struct kb_str principal)
{
    ptrdiff_t at = kb_str_find(principal, KB_STR("/ns/"));
    struct kb_str rest;
    ptrdiff_t slash;

    if (at < 0) {
        return KB_STR("");
    }
    rest = kb_str_from(principal, (size_t)at + 4);
    slash = kb_str_find_char(rest, '/');
    return slash < 0 ? rest : kb_str_first(rest, (size_t)slash);
}

/* ---- the service that is called ---- */

struct service {
    struct kb_str host, name, namespace_name;
};

static bool is_catch_all(struct kb_str name)
{
    return kb_str_eq(name, KB_STR("BlackHoleCluster")) ||
           kb_str_eq(name, KB_STR("PassthroughCluster")) ||
           kb_str_eq(name, KB_STR("InboundPassthroughCluster")) ||
           kb_str_eq(name, KB_STR("InboundPassthroughClusterIpv4")) ||
           kb_str_eq(name, KB_STR("InboundPassthroughClusterIpv6"));
}

static struct service service_of(const struct kb_istio_stats_config *config,
                                 const struct kb_istio_subject *subject)
{
    const struct kb_cluster *cluster = subject->info->upstream.cluster;
    struct service service = {KB_STR_NULL, KB_STR_NULL, KB_STR_NULL};

    if (config->host_header_fallback && subject->authority.p != NULL) {
        service.host = subject->authority;
        service.name = subject->authority;
    }
    if (kb_str_eq(subject->info->route_name, KB_STR("block_all"))) {
        service.name = KB_STR("BlackHoleCluster");
    } else if (kb_str_eq(subject->info->route_name, KB_STR("allow_any"))) {
        service.name = KB_STR("PassthroughCluster");
    } else if (cluster != NULL && is_catch_all(cluster->name)) {
        service.name = cluster->name;
    } else if (cluster != NULL && cluster->istio.has_service) {
        const struct kb_cluster_istio *istio = &cluster->istio;

        service.host = istio->service_host.p != NULL ? istio->service_host : service.host;
        service.name = istio->service_name.p != NULL ? istio->service_name : service.name;
        service.namespace_name = istio->service_namespace;
    }
    return service;
}

/* ---- both sides ---- */

struct side {
    struct kb_str workload, service, revision, namespace_name, principal, app, version, cluster;
};

/* What the other end told, with what stands for what it did not. */
static struct side peer_side(const struct kb_workload *peer, struct kb_str principal)
{
    static const struct kb_workload nobody;
    const struct kb_workload *w = peer != NULL ? peer : &nobody;
    struct kb_str namespace_name = or_else(principal_namespace(principal), w->namespace_name);

    return (struct side){
        .workload = or_else(w->name, UNKNOWN),
        .service = or_else(w->canonical_name, UNKNOWN),
        .revision = or_else(w->canonical_revision, KB_STR("latest")),
        .namespace_name = or_else(namespace_name, UNKNOWN),
        .principal = or_else(principal, UNKNOWN),
        .app = or_else(w->app, UNKNOWN),
        .version = or_else(w->version, UNKNOWN),
        .cluster = or_else(w->cluster, UNKNOWN),
    };
}

/* What this proxy's node says, as it is. */
static struct side own_side(const struct kb_workload *self, struct kb_str principal)
{
    return (struct side){
        .workload = self->name,
        .service = self->canonical_name,
        .revision = self->canonical_revision,
        .namespace_name = self->namespace_name,
        .principal = or_else(principal, UNKNOWN),
        .app = self->app,
        .version = self->version,
        .cluster = self->cluster,
    };
}

/* A workload behind this gateway. */
static struct side endpoint_side(const struct kb_workload *endpoint, struct kb_str cluster)
{
    if (endpoint == NULL) {
        struct side unknown = {UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN,
                               UNKNOWN, UNKNOWN, UNKNOWN, cluster};

        return unknown;
    }
    return (struct side){
        .workload = endpoint->name,
        .service = endpoint->canonical_name,
        .revision = endpoint->canonical_revision,
        .namespace_name = or_else(endpoint->namespace_name, UNKNOWN),
        .principal = KB_STR(""),
        .app = or_else(endpoint->app, UNKNOWN),
        .version = endpoint->version,
        .cluster = cluster,
    };
}

static void sides_put(struct kb_str *labels, const struct side *source,
                      const struct side *destination)
{
    labels[KB_ISTIO_LABEL_SOURCE_WORKLOAD] = source->workload;
    labels[KB_ISTIO_LABEL_SOURCE_CANONICAL_SERVICE] = source->service;
    labels[KB_ISTIO_LABEL_SOURCE_CANONICAL_REVISION] = source->revision;
    labels[KB_ISTIO_LABEL_SOURCE_WORKLOAD_NAMESPACE] = source->namespace_name;
    labels[KB_ISTIO_LABEL_SOURCE_PRINCIPAL] = source->principal;
    labels[KB_ISTIO_LABEL_SOURCE_APP] = source->app;
    labels[KB_ISTIO_LABEL_SOURCE_VERSION] = source->version;
    labels[KB_ISTIO_LABEL_SOURCE_CLUSTER] = source->cluster;
    labels[KB_ISTIO_LABEL_DESTINATION_WORKLOAD] = destination->workload;
    labels[KB_ISTIO_LABEL_DESTINATION_WORKLOAD_NAMESPACE] = destination->namespace_name;
    labels[KB_ISTIO_LABEL_DESTINATION_PRINCIPAL] = destination->principal;
    labels[KB_ISTIO_LABEL_DESTINATION_APP] = destination->app;
    labels[KB_ISTIO_LABEL_DESTINATION_VERSION] = destination->version;
    labels[KB_ISTIO_LABEL_DESTINATION_CANONICAL_SERVICE] = destination->service;
    labels[KB_ISTIO_LABEL_DESTINATION_CANONICAL_REVISION] = destination->revision;
    labels[KB_ISTIO_LABEL_DESTINATION_CLUSTER] = destination->cluster;
}

static void workloads_fill(const struct kb_istio_stats_config *config,
                           const struct kb_istio_subject *subject, const struct istio_peers *peers,
                           struct kb_str peer_principal, struct kb_str local_principal,
                           struct kb_str *labels)
{
    struct side peer = peer_side(peers->peer, peer_principal);
    struct side own = own_side(config->self, local_principal);
    struct service service = service_of(config, subject);
    struct kb_str otherwise = UNKNOWN;

    if (config->reporter == KB_ISTIO_SOURCE) {
        sides_put(labels, &own, &peer);
        labels[KB_ISTIO_LABEL_DESTINATION_SERVICE_NAMESPACE] =
            or_else(service.namespace_name, peer.namespace_name);
    } else {
        if (config->reporter == KB_ISTIO_WAYPOINT) {
            own = endpoint_side(peers->endpoint, own.cluster);
        }
        sides_put(labels, &peer, &own);
        labels[KB_ISTIO_LABEL_DESTINATION_SERVICE_NAMESPACE] =
            or_else(service.namespace_name, config->self->namespace_name);
        otherwise = own.service;
    }
    labels[KB_ISTIO_LABEL_DESTINATION_SERVICE] = or_else(service.host, otherwise);
    labels[KB_ISTIO_LABEL_DESTINATION_SERVICE_NAME] = or_else(service.name, otherwise);
}

/* ---- the answer ---- */

static struct kb_str flags_text(const struct kb_stream_info *info, struct kb_arena *arena)
{
    struct kb_str text = KB_STR("-");

    for (size_t i = 0; i < info->flag_count; i++) {
        const char *flag = kb_response_flag_short((enum kb_response_flag)info->flag_order[i]);

        text = i == 0 ? kb_str_from_cstr(flag)
                      : kb_str_printf(arena, "%.*s,%s", KB_STR_ARG(text), flag);
    }
    return text;
}

static struct kb_str security_text(enum kb_istio_reporter reporter, struct kb_str peer_principal,
                                   struct kb_str local_principal)
{
    if (reporter == KB_ISTIO_SOURCE) {
        return UNKNOWN;
    }
    return peer_principal.len > 0 && local_principal.len > 0 ? KB_STR("mutual_tls")
                                                             : KB_STR("none");
}

void kb_istio_labels_fill(const struct kb_istio_stats_config *config,
                          const struct kb_istio_subject *subject, const struct istio_peers *peers,
                          struct kb_str peer_principal, struct kb_str local_principal,
                          struct kb_arena *arena, struct kb_str labels[KB_ISTIO_LABEL_COUNT])
{
    static const char *const reporters[] = {"source", "destination", "waypoint"};

    labels[KB_ISTIO_LABEL_REPORTER] = kb_str_from_cstr(reporters[config->reporter]);
    workloads_fill(config, subject, peers, peer_principal, local_principal, labels);
    labels[KB_ISTIO_LABEL_REQUEST_PROTOCOL] = subject->report == KB_ISTIO_TCP ? KB_STR("tcp")
                                              : subject->grpc                 ? KB_STR("grpc")
                                                                              : KB_STR("http");
    labels[KB_ISTIO_LABEL_RESPONSE_CODE] =
        kb_str_printf(arena, "%u", (unsigned)subject->info->response_code);
    labels[KB_ISTIO_LABEL_GRPC_RESPONSE_STATUS] =
        subject->has_grpc_status ? kb_str_printf(arena, "%lld", (long long)subject->grpc_status)
                                 : KB_STR("");
    labels[KB_ISTIO_LABEL_RESPONSE_FLAGS] = flags_text(subject->info, arena);
    labels[KB_ISTIO_LABEL_CONNECTION_SECURITY_POLICY] =
        security_text(config->reporter, peer_principal, local_principal);
}
