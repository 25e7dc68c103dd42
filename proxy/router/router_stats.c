/* SPDX-License-Identifier: Apache-2.0 */
/* What the router counts per response: codes and times of the cluster, plain and by variant. */
#include "proxy/router/router.h"

static bool is_canary(const struct kb_header_map *headers, const struct kb_host *host)
{
    return (headers != NULL &&
            kb_str_eq(kb_header_map_value_id(headers, KB_HDR_X_ENVOY_UPSTREAM_CANARY),
                      KB_STR("true"))) ||
           (host != NULL && host->canary);
}

/* `plain`: the status, or 0 when only its variants are to be counted by code. */
static void codes_count(struct kb_router *router, struct kb_stat_block *stats, unsigned status,
                        unsigned plain, const struct kb_header_map *headers,
                        const struct kb_host *host)
{
    kb_stat_code_inc(stats, KB_STAT_CODE_PLAIN, plain);
    if (is_canary(headers, host)) {
        kb_stat_code_inc(stats, KB_STAT_CODE_CANARY, status);
    }
    kb_stat_code_inc(stats, router->internal ? KB_STAT_CODE_INTERNAL : KB_STAT_CODE_EXTERNAL,
                     status);
    if (host != NULL && host->zone_variant != 0) {
        kb_stat_code_inc(stats, host->zone_variant, status);
    }
}

void kb_router_stats_choose(struct kb_router *router)
{
    const struct kb_virtual_cluster *vcluster =
        kb_route_virtual_cluster(router->route, router->request);
    uint32_t worker = router->worker->index;

    if (vcluster != NULL) {
        router->info->virtual_cluster_name = vcluster->name;
        router->vhost_stats[0] = kb_stat_group_block(vcluster->stats, worker);
    }
    if (router->route->policies != NULL && router->route->policies->stats != NULL) {
        router->vhost_stats[1] = kb_stat_group_block(router->route->policies->stats, worker);
    }
    kb_router_count_vhost(router, KB_STAT_VIRTUAL_CLUSTER_UPSTREAM_RQ_TOTAL);
}

void kb_router_count_vhost(struct kb_router *router, unsigned id)
{
    for (unsigned i = 0; i < KB_ARRAY_LEN(router->vhost_stats); i++) {
        if (KB_UNLIKELY(router->vhost_stats[i] != NULL)) {
            kb_stat_inc(router->vhost_stats[i], id);
        }
    }
}

void kb_router_count_retries(struct kb_router *router, unsigned counts)
{
    static const uint16_t ids[] = {
        KB_STAT_VIRTUAL_CLUSTER_UPSTREAM_RQ_RETRY,
        KB_STAT_VIRTUAL_CLUSTER_UPSTREAM_RQ_RETRY_SUCCESS,
        KB_STAT_VIRTUAL_CLUSTER_UPSTREAM_RQ_RETRY_LIMIT_EXCEEDED,
        KB_STAT_VIRTUAL_CLUSTER_UPSTREAM_RQ_RETRY_OVERFLOW,
    };

    for (unsigned i = 0; i < KB_ARRAY_LEN(ids); i++) {
        if (counts & 1u << i) {
            kb_router_count_vhost(router, ids[i]);
        }
    }
}

void kb_router_charge_code(struct kb_router *router, unsigned status,
                           const struct kb_header_map *headers,
                           struct kb_upstream_request *upstream, bool retried)
{
    struct kb_stat_block *stats = router->cluster->stats;
    struct kb_host *host = upstream != NULL ? upstream->host : NULL;
    unsigned plain = status;

    if (KB_UNLIKELY(router->config->suppress_grpc_codes) && kb_stream_is_grpc(router->stream)) {
        plain = 0; /* counted as completed only */
    }
    if (router->config->dynamic_stats && !router->info->health_check) {
        if (KB_UNLIKELY(retried)) {
            kb_stat_code_inc(stats, KB_STAT_CODE_RETRY, plain);
        } else {
            codes_count(router, stats, status, plain, headers, host);
            for (unsigned i = 0; i < KB_ARRAY_LEN(router->vhost_stats); i++) {
                if (KB_UNLIKELY(router->vhost_stats[i] != NULL)) {
                    kb_stat_code_inc(router->vhost_stats[i], KB_STAT_CODE_PLAIN, status);
                }
            }
        }
    }
    if (host != NULL && status >= 500) {
        kb_host_stat_add(upstream->host_local, KB_HOST_RQ_ERROR, 1);
    }
}

void kb_router_charge_time(struct kb_router *router)
{
    struct kb_stat_block *stats = router->cluster->stats;
    uint64_t ms;

    if (!router->config->dynamic_stats || router->info->health_check ||
        router->request_complete_ns == 0) {
        return;
    }
    ms = (kb_loop_now_ns(&router->worker->loop) - router->request_complete_ns) / 1000000;
    kb_stat_record(stats, KB_STAT_CLUSTER_UPSTREAM_RQ_TIME, ms);
    kb_stat_code_time(stats, router->internal ? KB_STAT_CODE_INTERNAL : KB_STAT_CODE_EXTERNAL, ms);
    if (router->upstream != NULL && router->upstream->host != NULL &&
        router->upstream->host->zone_variant != 0) {
        kb_stat_code_time(stats, router->upstream->host->zone_variant, ms);
    }
    for (unsigned i = 0; i < KB_ARRAY_LEN(router->vhost_stats); i++) {
        if (KB_UNLIKELY(router->vhost_stats[i] != NULL)) {
            kb_stat_code_time(router->vhost_stats[i], KB_STAT_CODE_PLAIN, ms);
        }
    }
}

unsigned kb_router_grpc_code(const struct kb_header_map *headers)
{
    static const uint16_t codes[] = {200, 499, 500, 400, 504, 404, 409, 403, 429,
                                     400, 409, 400, 501, 500, 503, 500, 401};
    struct kb_str text = kb_header_map_value_id(headers, KB_HDR_GRPC_STATUS);
    uint64_t status;

    if (text.p == NULL) {
        return 0;
    }
    return kb_str_to_u64(text, &status) == 0 && status < KB_ARRAY_LEN(codes) ? codes[status] : 500;
}

void kb_router_report_answer(const struct kb_router *router, const struct kb_header_map *headers)
{
    unsigned code = kb_stream_is_grpc(router->stream) ? kb_router_grpc_code(headers) : 0;

    kb_host_put_code(router->upstream->host_local, code != 0 ? code : headers->status);
    if (kb_header_map_get_id(headers, KB_HDR_X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL) != NULL) {
        kb_host_told_unhealthy(router->upstream->host);
    }
}
