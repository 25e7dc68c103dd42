/* SPDX-License-Identifier: Apache-2.0 */
/* Endpoints of a ClusterLoadAssignment, read to what hosts are made of. */
#pragma once

#include "envoy/config/endpoint/v3/endpoint.pb-c.h"

#include "base/diag.h"
#include "proxy/upstream/host.h"

/* Everything but the address: hostname, locality, weight, priority, health, metadata, how it is
 * checked. Borrows from the messages and from the arena; errors go to diag. */
void kb_lb_endpoint_read(const Envoy__Config__Endpoint__V3__LocalityLbEndpoints *locality,
                         const Envoy__Config__Endpoint__V3__LbEndpoint *endpoint,
                         struct kb_arena *arena, struct kb_host_params *params,
                         struct kb_diag *diag);

/* The endpoint's address message, or NULL. */
const Envoy__Config__Core__V3__Address *
kb_lb_endpoint_address(const Envoy__Config__Endpoint__V3__LbEndpoint *endpoint);
/* policy.drop_overloads in parts per million; message NULL: none. */
uint32_t
kb_drop_overload_read(const Envoy__Config__Endpoint__V3__ClusterLoadAssignment__Policy *policy,
                      struct kb_diag *diag);
