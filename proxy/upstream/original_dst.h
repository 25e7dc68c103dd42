/* SPDX-License-Identifier: Apache-2.0 */
/* Between an ORIGINAL_DST cluster, which keeps the hosts on the main thread, and its load balancers
 * on the workers, which make a host for an address that nobody has asked for before. */
#pragma once

#include "proxy/upstream/cluster.h"

/* The only load balancer that such a cluster may have; its configuration is made of the Cluster
 * message. */
extern const struct kb_lb_ops kb_lb_original_dst;

/* The cluster takes over one reference of a host that a worker made; main thread. Dropped when the
 * cluster is gone. */
void kb_original_dst_add_host(struct kb_host *host);
