/* SPDX-License-Identifier: Apache-2.0 */
/* Which route and cluster a stream has: found once, again when a filter cleared them. */
#include "base/clock.h"
#include "proxy/http/hcm_internal.h"
#include "proxy/http/scoped_routes.h"

/* A stream keeps the table with which it began, whatever comes over xDS meanwhile. */
const struct kb_route_config *kb_stream_route_table(struct kb_stream *stream)
{
    const struct kb_hcm_config *config = stream->hcm->config;

    if (KB_LIKELY(config->route_config != NULL)) {
        return config->route_config;
    }
    if (config->scoped_routes != NULL) {
        return kb_scoped_routes_find(config->scoped_routes, &stream->request, &stream->arena);
    }
    if (config->route_provider == NULL) {
        return NULL;
    }
    if (stream->route_config == NULL) {
        stream->route_config = kb_route_provider_acquire(config->route_provider,
                                                         stream->hcm->worker, &stream->route_hold);
    }
    return stream->route_config;
}

const struct kb_route *kb_stream_route(struct kb_stream *stream)
{
    const struct kb_route_config *config;

    if (!stream->route_chosen) {
        bool timed = KB_UNLIKELY(__atomic_load_n(&kb_route_resolution_timed, __ATOMIC_RELAXED));
        uint64_t start_ns = timed ? kb_clock_mono_ns() : 0;

        stream->route_chosen = true;
        stream->info.route_resolutions++;
        config = kb_stream_route_table(stream);
        if (config != NULL) {
            stream->route_random = kb_rand_u64(&stream->hcm->worker->rand);
            stream->route = kb_route_config_match(config, &stream->request, &stream->info,
                                                  stream->route_random);
        }
        if (timed) {
            stream->info.route_resolution_ns += kb_clock_mono_ns() - start_ns;
        }
        stream->info.route = stream->route;
        stream->info.route_name = stream->route != NULL ? stream->route->name : KB_STR_NULL;
        if (KB_UNLIKELY(stream->info.route_resolutions > 1) &&
            stream->hcm->config->tracing != NULL) {
            kb_hcm_trace_refresh(stream);
        }
    }
    return stream->route;
}

uint64_t kb_stream_route_random(const struct kb_stream *stream)
{
    return stream->route_random;
}

void kb_stream_clear_route_cache(struct kb_stream *stream)
{
    stream->route_chosen = false;
    stream->route = NULL;
}

static struct kb_cluster_local *route_cluster(struct kb_stream *stream)
{
    struct kb_str name = KB_STR_NULL;
    const void *choice;
    uint32_t slot = UINT32_MAX;

    if (stream->route == NULL || stream->route->kind != KB_ROUTE_CLUSTER ||
        kb_route_choose_cluster(stream->route, &stream->request, stream->route_random, &slot, &name,
                                &choice) != 0) {
        return NULL;
    }
    return slot != UINT32_MAX ? kb_cluster_local_get(stream->hcm->worker, slot)
                              : kb_cluster_local_find(stream->hcm->worker, name);
}

const struct kb_cluster *kb_stream_route_cluster(struct kb_stream *stream)
{
    const struct kb_cluster_local *cluster = route_cluster(stream);

    return cluster != NULL ? cluster->cluster : NULL;
}

void kb_stream_cluster_refresh(struct kb_stream *stream)
{
    struct kb_cluster_local *shown = route_cluster(stream);

    if (shown != NULL) {
        kb_cluster_local_ref(shown);
    }
    if (stream->shown_cluster != NULL) {
        kb_cluster_local_unref(stream->shown_cluster);
    }
    stream->shown_cluster = shown;
    stream->info.upstream_cluster_name =
        shown != NULL ? shown->cluster->observability_name : KB_STR_NULL;
    stream->info.upstream.cluster = shown != NULL ? shown->cluster : NULL;
}

void kb_stream_route_headers_add(void *arg, struct kb_header_map *headers)
{
    struct kb_stream *stream = KB_CAST(arg, kb_stream);

    if (stream->route != NULL) {
        kb_route_finalize_response(stream->route, NULL, &stream->request, headers, &stream->info);
    }
}
