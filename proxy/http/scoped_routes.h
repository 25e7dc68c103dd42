/* SPDX-License-Identifier: Apache-2.0 */
/* scoped_routes of the connection manager: which route table a request gets, by a key made of its
 * headers (Envoy Router::ScopedConfigImpl, ScopeKeyBuilderImpl). Immutable once built. */
#pragma once

#include "base/diag.h"
#include "proxy/api/factory_context.h"
#include "proxy/api/header_map.h"
#include "proxy/api/route.h"

struct kb_scoped_routes;
struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__ScopedRoutes;

/* Builds the tables; NULL only after errors were reported. Main thread. */
struct kb_scoped_routes *kb_scoped_routes_create(
    const struct Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__ScopedRoutes
        *message,
    struct kb_factory_context *factory, struct kb_diag *diag);
void kb_scoped_routes_destroy(struct kb_scoped_routes *scoped);

/* The table for a request with these headers; NULL: none. The key is made in the arena. */
const struct kb_route_config *kb_scoped_routes_find(const struct kb_scoped_routes *scoped,
                                                    const struct kb_header_map *headers,
                                                    struct kb_arena *arena);
