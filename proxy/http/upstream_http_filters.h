/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP filters of attempts (Envoy upstream HTTP filters): they see the request as each upstream
 * gets it, and its answer before the router does. Only filters that never stop are registered for
 * this place, and of their callbacks only decode_headers, decode_trailers, encode_headers,
 * encode_trailers and on_destroy are called. */
#pragma once

#include "proxy/api/http_filter.h"

/* Of one configuration, immutable. */
struct kb_upstream_http_chain;
/* Of one attempt, in the stream's arena. */
struct kb_upstream_http_filters;

struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpFilter;
/* NULL when there are no messages, or after an error was reported. `cluster`: of a cluster's
 * http_filters, otherwise of a router's upstream_http_filters. Main thread. */
struct kb_upstream_http_chain *kb_upstream_http_chain_create(
    struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpFilter *const
        *messages,
    size_t count, bool cluster, const struct kb_factory_context *factory, struct kb_diag *diag);
/* NULL is allowed. Main thread, when no stream uses it. */
void kb_upstream_http_chain_destroy(struct kb_upstream_http_chain *chain);

/* The filters of an attempt that begins. */
struct kb_upstream_http_filters *
kb_upstream_http_filters_create(const struct kb_upstream_http_chain *chain,
                                struct kb_stream *stream);
/* To the upstream, first to last. */
void kb_upstream_http_filters_decode_headers(struct kb_upstream_http_filters *filters,
                                             struct kb_header_map *headers, bool end_stream);
void kb_upstream_http_filters_decode_trailers(struct kb_upstream_http_filters *filters,
                                              struct kb_header_map *trailers);
/* From the upstream, last to first. */
void kb_upstream_http_filters_encode_headers(struct kb_upstream_http_filters *filters,
                                             struct kb_header_map *headers, bool end_stream);
void kb_upstream_http_filters_encode_trailers(struct kb_upstream_http_filters *filters,
                                              struct kb_header_map *trailers);
/* The attempt is over; the stream forgets them. */
void kb_upstream_http_filters_destroy(struct kb_upstream_http_filters *filters);
