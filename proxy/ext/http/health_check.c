/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.health_check: answers requests that ask whether this proxy is healthy, from
 * what it knows itself, from clusters, or from what the application said a moment ago; and tells
 * the other side in every answer when the proxy is to be left alone. */
#include "envoy/extensions/filters/http/health_check/v3/health_check.pb-c.h"

#include "proto/wkt.h"
#include "proxy/api/cluster.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/stats.h"
#include "proxy/matcher/header_match.h"

typedef Envoy__Extensions__Filters__Http__HealthCheck__V3__HealthCheck HealthCheck;

/* What a cluster has to have. */
struct cluster_need {
    uint32_t slot;
    uint64_t
        percent; /* of its hosts that are healthy or degraded, at least; whole ones, as Envoy */
};

struct health_config {
    KB_OBJ;
    struct kb_server_context *server;
    struct kb_stat_group *stats;
    struct kb_regex_list regexes;
    const struct kb_header_matcher *headers;
    size_t header_count;
    struct cluster_need *needs;
    size_t need_count;
    bool pass_through;
    uint64_t cache_ms; /* 0: nothing is kept */
    uint64_t start_ms; /* the cache is emptied whenever cache_ms have passed since */
    /* What the application answered last: the cache's period, status, degraded; see cache_pack.
     * Atomic, as workers share it. */
    uint64_t cached;
};
KB_OBJ_MAGIC(health_config, 0x48434649);

struct health_filter {
    struct health_config *config;
    struct kb_stream *stream;
    struct kb_stat_block *stats;
    bool asked;    /* the request is a health check */
    bool handling; /* which is answered here */
};

/* ---- configuration ---- */

static void needs_read(const HealthCheck *m, struct health_config *config,
                       struct kb_factory_context *factory)
{
    size_t count = m->n_cluster_min_healthy_percentages;

    config->needs = kb_arena_calloc(factory->arena, (count + 1) * sizeof(config->needs[0]));
    for (size_t i = 0; i < count; i++) {
        struct cluster_need *need = &config->needs[config->need_count++];
        const Envoy__Type__V3__Percent *percent = m->cluster_min_healthy_percentages[i]->value;

        need->slot = kb_cluster_slot(factory->server->clusters,
                                     kb_str_from_cstr(m->cluster_min_healthy_percentages[i]->key));
        need->percent = percent == NULL ? 0 : (uint64_t)percent->value;
    }
}

static void config_destroy(void *arg)
{
    struct health_config *config = KB_CAST(arg, health_config);

    for (size_t i = 0; i < config->need_count; i++) {
        kb_cluster_slot_release(config->server->clusters, config->needs[i].slot);
    }
    kb_stat_group_destroy(config->stats);
    kb_regex_list_dispose(&config->regexes);
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    const HealthCheck *m = message;
    struct health_config *config = KB_ARENA_NEW(factory->arena, struct health_config);
    const struct kb_match_build build = {factory->arena, &config->regexes, diag};
    uint32_t errors = diag->error_count;

    KB_OBJ_SET(config, health_config);
    config->server = factory->server;
    config->pass_through = m->pass_through_mode != NULL && m->pass_through_mode->value;
    config->cache_ms = kb_wkt_duration_ms(m->cache_time, 0);
    if (!config->pass_through && config->cache_ms > 0) {
        kb_diag_error(diag, "cache_time_ms must not be set when path_through_mode is disabled");
    }
    config->start_ms = kb_loop_now_ms(&factory->server->main->loop);
    config->headers = kb_header_matchers_create(m->headers, m->n_headers, "headers", &build);
    config->header_count = m->n_headers;
    if (diag->error_count != errors) {
        kb_regex_list_dispose(&config->regexes);
        return KB_ECONFIG;
    }
    config->stats = kb_stat_group_create(
        factory->server->stats,
        kb_str_printf(factory->arena, "%.*shealth_check.", KB_STR_ARG(factory->http_stat_prefix)),
        &kb_stat_schema_health_check_filter);
    needs_read(m, config, factory);
    *out = config;
    return 0;
}

/* ---- the cache ---- */

/* Which period of cache_ms it is, from 1. */
static uint64_t period_now(const struct health_filter *filter)
{
    uint64_t now_ms = kb_loop_now_ms(&kb_stream_worker(filter->stream)->loop);

    return (KB_MAX(now_ms, filter->config->start_ms) - filter->config->start_ms) /
               filter->config->cache_ms +
           1;
}

static bool cache_get(const struct health_filter *filter, unsigned *status, bool *degraded)
{
    uint64_t cached = __atomic_load_n(&filter->config->cached, __ATOMIC_RELAXED);

    if (filter->config->cache_ms == 0 || cached >> 16 != period_now(filter)) {
        return false;
    }
    *status = (unsigned)(cached >> 1 & 0x7fff);
    *degraded = (cached & 1) != 0;
    return true;
}

static void cache_put(const struct health_filter *filter, unsigned status, bool degraded)
{
    if (filter->config->cache_ms > 0) {
        __atomic_store_n(&filter->config->cached,
                         period_now(filter) << 16 | (uint64_t)(status & 0x7fff) << 1 |
                             (degraded ? 1 : 0),
                         __ATOMIC_RELAXED);
    }
}

/* ---- answers ---- */

static bool server_failed(const struct health_filter *filter)
{
    return __atomic_load_n(&filter->config->server->health_check_failed, __ATOMIC_RELAXED);
}

/* The response code details of an answer from the clusters; *fine: what it is. */
static struct kb_str clusters_judge(const struct health_filter *filter, bool *fine)
{
    *fine = false;
    for (size_t i = 0; i < filter->config->need_count; i++) {
        const struct cluster_need *need = &filter->config->needs[i];
        struct kb_cluster_membership members;

        if (!kb_cluster_membership(kb_stream_worker(filter->stream), need->slot, &members)) {
            kb_stat_inc(filter->stats, KB_STAT_HEALTH_CHECK_FILTER_FAILED_CLUSTER_NOT_FOUND);
            return KB_STR("health_check_failed_no_cluster_found");
        }
        if (members.total == 0 && need->percent > 0) {
            kb_stat_inc(filter->stats, KB_STAT_HEALTH_CHECK_FILTER_FAILED_CLUSTER_EMPTY);
            return KB_STR("health_check_failed_cluster_empty");
        }
        if (UINT64_C(100) * (members.healthy + members.degraded) < members.total * need->percent) {
            kb_stat_inc(filter->stats, KB_STAT_HEALTH_CHECK_FILTER_FAILED_CLUSTER_UNHEALTHY);
            return KB_STR("health_check_failed_cluster_unhealthy");
        }
    }
    *fine = true;
    return KB_STR("health_check_ok_cluster_healthy");
}

static void degraded_add(void *arg, struct kb_header_map *headers)
{
    (void)arg;
    kb_header_map_set_id(headers, KB_HDR_X_ENVOY_DEGRADED, KB_STR(""));
}

/* The whole request is there. */
static void complete(struct health_filter *filter)
{
    struct kb_str details = KB_STR("health_check_ok");
    unsigned status = 200;
    bool degraded = false, fine = true;

    kb_stat_inc(filter->stats, KB_STAT_HEALTH_CHECK_FILTER_REQUEST_TOTAL);
    if (server_failed(filter)) {
        details = KB_STR("health_check_failed");
        fine = false;
    } else if (cache_get(filter, &status, &degraded)) {
        details = KB_STR("health_check_cached");
        kb_stat_inc(filter->stats, KB_STAT_HEALTH_CHECK_FILTER_CACHED_RESPONSE);
        fine = status >= 200 && status < 300;
    } else if (filter->config->need_count > 0) {
        details = clusters_judge(filter, &fine);
    }
    kb_stat_inc(filter->stats,
                fine ? KB_STAT_HEALTH_CHECK_FILTER_OK : KB_STAT_HEALTH_CHECK_FILTER_FAILED);
    if (degraded) {
        kb_stat_inc(filter->stats, KB_STAT_HEALTH_CHECK_FILTER_DEGRADED);
    }
    if (!fine) {
        kb_stream_info_set_flag(kb_stream_stream_info(filter->stream),
                                KB_RF_FAILED_LOCAL_HEALTH_CHECK);
        status = status == 200 ? 503 : status;
    }
    kb_stream_send_filter_reply(filter->stream, status, KB_STR(""), details,
                                degraded ? degraded_add : NULL, NULL);
}

/* ---- the filter ---- */

static void *create(void *config, struct kb_stream *stream)
{
    struct health_filter *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct health_filter);

    filter->config = KB_CAST(config, health_config);
    filter->stream = stream;
    filter->stats = kb_stat_group_block(filter->config->stats, kb_stream_worker(stream)->index);
    return filter;
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct health_filter *filter = arg;
    const struct health_config *config = filter->config;
    unsigned status;
    bool degraded;

    if (!kb_header_matchers_all(config->headers, config->header_count, headers)) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    filter->asked = true;
    kb_stream_stream_info(filter->stream)->health_check = true;
    kb_stat_inc(kb_stream_http_stats(filter->stream), KB_STAT_HTTP_TRACING_HEALTH_CHECK);
    filter->handling =
        !config->pass_through || server_failed(filter) || cache_get(filter, &status, &degraded);
    if (!filter->handling) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    if (end_stream) {
        complete(filter);
    }
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

static enum kb_filter_data_status decode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct health_filter *filter = arg;

    if (!filter->handling) {
        return KB_FILTER_DATA_CONTINUE;
    }
    kb_buf_consume(data, data->len);
    if (end_stream) {
        complete(filter);
    }
    return KB_FILTER_DATA_STOP_NO_BUFFER;
}

static enum kb_filter_trailers_status decode_trailers(void *arg, struct kb_header_map *trailers)
{
    struct health_filter *filter = arg;

    (void)trailers;
    if (!filter->handling) {
        return KB_FILTER_TRAILERS_CONTINUE;
    }
    complete(filter);
    return KB_FILTER_TRAILERS_STOP;
}

static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct health_filter *filter = arg;

    (void)end_stream;
    if (filter->asked) {
        cache_put(filter, headers->status,
                  kb_header_map_get_id(headers, KB_HDR_X_ENVOY_DEGRADED) != NULL);
        kb_header_map_set_id(headers, KB_HDR_X_ENVOY_UPSTREAM_HEALTHCHECKED_CLUSTER,
                             filter->config->server->node_cluster);
    }
    if (server_failed(filter)) {
        kb_header_map_set_id(headers, KB_HDR_X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL, KB_STR("true"));
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

const struct kb_http_filter_ops kb_ext_http_health_check = {
    .name = "envoy.filters.http.health_check",
    .type_url = "envoy.extensions.filters.http.health_check.v3.HealthCheck",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .create = create,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .decode_trailers = decode_trailers,
    .encode_headers = encode_headers,
};
