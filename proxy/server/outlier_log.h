/* SPDX-License-Identifier: Apache-2.0 */
/* The log of ejections: cluster_manager.outlier_detection.event_log_path. */
#pragma once

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"

#include "base/diag.h"
#include "proxy/api/factory_context.h"

/* Opens the file, if the bootstrap names one, and has the cluster manager write to it; errors go to
 * diag, whose present path is the bootstrap's. Once, at start. */
void kb_outlier_log_configure(struct kb_server_context *server,
                              const Envoy__Config__Bootstrap__V3__Bootstrap *message,
                              struct kb_diag *diag);
