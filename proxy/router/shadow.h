/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of requests for request_mirror_policies (Envoy ShadowWriter). A copy gets the body while
 * it comes, its answer is dropped, and once the whole request came it lives on without the stream
 * that it was made for. For router.c and router_upstream.c only. */
#pragma once

#include "proxy/router/router.h"

/* After the first attempt was started: a copy for each of the route's mirror policies that applies.
 * `end_stream`: the request has neither body nor trailers. */
void kb_shadows_start(struct kb_router *router, bool end_stream);
/* A piece of the body, by reference; `data` stays as it is. */
void kb_shadows_data(struct kb_router *router, const struct kb_buf *data, bool end_stream);
void kb_shadows_trailers(struct kb_router *router, const struct kb_header_map *trailers);
/* The stream ends: copies that have not got the whole request are given up, the others go on by
 * themselves. */
void kb_shadows_release(struct kb_router *router);

/* The worker ends: every copy is given up. On the worker, after its downstream connections were
 * closed. */
void kb_shadows_worker_close(struct kb_worker *worker);
