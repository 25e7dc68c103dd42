/* SPDX-License-Identifier: Apache-2.0 */
/* What the loggers of AccessLogService have in common: its client, and what entries hold. */
#pragma once

#include "envoy/extensions/access_loggers/grpc/v3/als.pb-c.h"
#include "proxy/access_log/log_entry.h"
#include "proxy/ext/access_logger/grpc_log.h"

struct kb_grpc_als {
    KB_OBJ;
    struct kb_grpc_log *log;
    struct kb_log_entry_config entry;
};
KB_OBJ_MAGIC(kb_grpc_als, 0x47414c53);

enum kb_grpc_als_kind { KB_GRPC_ALS_HTTP, KB_GRPC_ALS_TCP };

/* The logger in factory->arena; NULL after errors were reported. Main thread. */
struct kb_grpc_als *kb_grpc_als_create(
    enum kb_grpc_als_kind kind,
    const Envoy__Extensions__AccessLoggers__Grpc__V3__CommonGrpcAccessLogConfig *config,
    struct kb_factory_context *factory, struct kb_diag *diag);
/* For the vtables. */
void kb_grpc_als_destroy(void *logger);
