/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters from the control plane (Envoy CdsApiImpl): what comes is added, what is gone is removed,
 * and while one of them warms the next answer is held back. Main thread. */
#pragma once

#include "proxy/api/subscription.h"

struct kb_cds_api;

/* Makes the subscription of cds_config; NULL after an error in diag. */
struct kb_cds_api *kb_cds_api_create(struct kb_server_context *server,
                                     const struct Envoy__Config__Core__V3__ConfigSource *source,
                                     struct kb_diag *diag);
/* Asks. `initialized` is called once, after the first answer was applied, or there was none in
 * time; maybe from within. */
void kb_cds_api_start(struct kb_cds_api *api, void (*initialized)(void *arg), void *arg);
/* Start is over: from now on answers wait for clusters that are warming. */
void kb_cds_api_set_live(struct kb_cds_api *api);
/* Before the cluster manager goes. NULL is allowed. */
void kb_cds_api_destroy(struct kb_cds_api *api);

/* Of the response that was applied last, as /config_dump shows it; empty: none. NULL is allowed. */
struct kb_str kb_cds_api_version(const struct kb_cds_api *api);
/* Of the resource that the cluster was made from; empty when it is not known. */
struct kb_str kb_cds_api_cluster_version(const struct kb_cds_api *api, struct kb_str name);
