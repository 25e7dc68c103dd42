/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of envoy.filters.http.fault: its settings, and the pacing of answers. */
#pragma once

#include "base/rand.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/runtime.h"
#include "proxy/matcher/header_match.h"

struct kb_fault_percent {
    uint32_t numerator;
    uint32_t denominator;
};

enum kb_fault_source { KB_FAULT_NONE, KB_FAULT_FIXED, KB_FAULT_GRPC, KB_FAULT_HEADER };

/* Of a chain or a route. */
struct kb_fault_settings {
    KB_OBJ;
    struct kb_regex_list regexes;
    const struct kb_runtime *runtime;
    struct kb_stat_group *stats; /* of a chain only */
    enum kb_fault_source delay;
    enum kb_fault_source abort; /* FIXED: an HTTP status; GRPC: of gRPC */
    enum kb_fault_source limit;
    struct kb_fault_percent delay_percent, abort_percent, limit_percent;
    uint64_t delay_ms;
    uint32_t abort_status;
    struct kb_str abort_body;
    uint64_t limit_kbps;
    struct kb_str upstream_cluster; /* empty: any */
    const struct kb_header_matcher *headers;
    size_t header_count;
    struct kb_str *downstream_nodes;
    size_t downstream_node_count; /* 0: any */
    uint64_t max_active_faults;   /* UINT64_MAX: no limit */
    struct kb_str delay_percent_key, abort_percent_key, delay_ms_key, abort_http_key,
        abort_grpc_key, max_active_key, limit_percent_key;
    const void *filter_metadata; /* Google__Protobuf__Struct of the factory's arena; NULL: none */
};
KB_OBJ_MAGIC(kb_fault_settings, 0x46415554);

/* For the vtable: see kb_http_filter_ops. */
int kb_fault_settings_create(const void *message, struct kb_factory_context *factory,
                             struct kb_diag *diag, void **settings);
int kb_fault_route_settings_create(const void *message, struct kb_factory_context *factory,
                                   struct kb_diag *diag, void **settings);
void kb_fault_settings_destroy(void *settings);

/* ---- fault_limit.c: an answer's body at so many KiB a second ---- */

struct kb_fault_limiter {
    struct kb_stream *stream;
    void *filter;
    struct kb_buf held;
    struct kb_timer timer;
    uint64_t slice_bytes; /* what one token, a twentieth of a second, is worth */
    uint64_t tokens;
    uint64_t filled_ms; /* when tokens were counted last */
    bool started;
    bool ended;
    bool trailers;
    bool above_high;
};

/* On zeroed memory of the stream's arena; dispose of it when the filter goes. */
void kb_fault_limiter_init(struct kb_fault_limiter *limiter, struct kb_stream *stream, void *filter,
                           uint64_t kbps);
/* Cancels its timer; what it holds is dropped. */
void kb_fault_limiter_dispose(struct kb_fault_limiter *limiter);
/* Takes the data; it goes on later. */
void kb_fault_limiter_write(struct kb_fault_limiter *limiter, struct kb_buf *data, bool end_stream);
/* False when they may pass at once. */
bool kb_fault_limiter_trailers(struct kb_fault_limiter *limiter);
