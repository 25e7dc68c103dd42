/* SPDX-License-Identifier: Apache-2.0 */
/* filter_metadata["istio"] of a cluster. */
#pragma once

#include "envoy/config/core/v3/base.pb-c.h"
#include "proxy/api/cluster.h"

/* Fills in a zeroed struct from the cluster's metadata (may be NULL), which `packed` has as bytes
 * that live as long as the struct. Main thread. */
void kb_cluster_istio_read(struct kb_cluster_istio *istio, struct kb_str packed,
                           const Envoy__Config__Core__V3__Metadata *metadata);
