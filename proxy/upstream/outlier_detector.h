/* SPDX-License-Identifier: Apache-2.0 */
/* Outlier detection of a cluster in the process: its configuration, its timer, and what an ejection
 * means for the hosts that workers see. */
#pragma once

#include "envoy/config/cluster/v3/outlier_detection.pb-c.h"

#include "proxy/upstream/cluster_manager.h"
#include "proxy/upstream/outlier.h"

/* Sets cluster->outlier; NULL message: none. */
void kb_outlier_config_read(const Envoy__Config__Cluster__V3__OutlierDetection *message,
                            struct kb_cluster_impl *cluster, struct kb_diag *diag);
/* Makes the statistics, when it has an outlier configuration. */
void kb_outlier_config_start(struct kb_cluster_impl *cluster, struct kb_stat_store *store,
                             struct kb_str stat_prefix, struct kb_arena *arena);
void kb_outlier_config_dispose(struct kb_cluster_impl *cluster);

/* NULL when the cluster has no outlier configuration. It watches no host yet. */
struct kb_outlier_detector *kb_outlier_detector_create(struct kb_cluster_entry *entry);
/* NULL is allowed. */
void kb_outlier_detector_destroy(struct kb_outlier_detector *detector);
/* The hosts of `set` are watched from now on, and no others; those that stay keep their state. */
void kb_outlier_detector_hosts_changed(struct kb_outlier_detector *detector,
                                       const struct kb_priority_set *set);
/* An active health check of the host succeeded: it is not left out any more, where that is wanted.
 */
void kb_outlier_host_passed(struct kb_host *host, uint64_t now_ms);
/* For /clusters. */
const struct kb_outlier *kb_outlier_detector_core(const struct kb_outlier_detector *detector);
