/* SPDX-License-Identifier: Apache-2.0 */
/* What is noted of an attempt where somebody wants to know: upstream_log and upstream_log_options
 * of the router, track_cluster_stats of the cluster (Envoy UpstreamRequest's own stream info).
 * Other attempts have no record. For the router's files only. */
#pragma once

#include "proxy/api/cluster.h"
#include "proxy/router/router.h"

struct kb_attempt_record {
    struct kb_upstream_request *upstream;
    struct kb_header_map *response; /* as it came; NULL: none did */
    struct kb_header_map *trailers;
    uint64_t head_bytes; /* of the answer, those before the last one too; 0: none came */
    uint64_t head_count;
    uint64_t body_sent; /* given to the connection */
    uint64_t body_received;
    struct kb_stream_info flags; /* response code and flags of this attempt */
    bool no_budget;              /* it ended by the timeout of the whole request */
    bool ready;                  /* it had a connection */
    struct kb_timer log_timer;
};

/* Whether attempts of this filter have records. */
KB_INLINE bool kb_attempt_recorded(const struct kb_router *router)
{
    const struct kb_cluster *cluster = router->cluster->cluster;

    return router->config->upstream_log != NULL || cluster->size_stats != NULL ||
           cluster->budget_stats != NULL;
}

/* A new attempt, when kb_attempt_recorded. */
void kb_attempt_record_start(struct kb_upstream_request *upstream);
/* What happens to it; the attempt has a record. */
void kb_attempt_record_ready(struct kb_upstream_request *upstream);
void kb_attempt_record_1xx(struct kb_upstream_request *upstream,
                           const struct kb_header_map *headers);
void kb_attempt_record_headers(struct kb_upstream_request *upstream,
                               const struct kb_header_map *headers);
void kb_attempt_record_trailers(struct kb_upstream_request *upstream,
                                const struct kb_header_map *trailers);
void kb_attempt_record_flag(struct kb_upstream_request *upstream, enum kb_response_flag flag);
/* The whole request is over: how much of its timeout it took, where the cluster wants to know. */
void kb_attempt_budget_count(const struct kb_router *router);
/* It is over: the log is written, sizes are counted. The stream's info tells of this attempt. */
void kb_attempt_record_end(struct kb_upstream_request *upstream);
