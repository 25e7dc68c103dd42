/* SPDX-License-Identifier: Apache-2.0 */
/* transport_socket_matches: an endpoint's metadata chooses how it is spoken to (Envoy
 * TransportSocketMatcherImpl). Main thread, but where it says otherwise. */
#pragma once

#include "envoy/config/cluster/v3/cluster.pb-c.h"

#include "base/diag.h"
#include "proxy/upstream/cluster.h"

/* Reads the list; what is wrong is reported. `stat_prefix` is "cluster.x.". */
void kb_socket_matches_read(const Envoy__Config__Cluster__V3__Cluster *message,
                            struct kb_cluster *cluster, struct kb_str stat_prefix,
                            const struct kb_factory_context *factory, struct kb_diag *diag);
void kb_socket_matches_dispose(struct kb_cluster *cluster);

/* For kb_host.socket: the first whose labels are all in the packed metadata, plus 1; 0: none. Any
 * thread. */
uint16_t kb_socket_match_find(const struct kb_cluster *cluster, struct kb_str metadata);
/* The same for labels that are present; `arena` is for working. */
uint16_t kb_socket_match_find_for(const struct kb_cluster *cluster,
                                  const Google__Protobuf__Struct *present, struct kb_arena *arena);
