/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.access_loggers.tcp_grpc: an entry per TCP connection to an AccessLogService. Config:
 * envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig. */
#include "proxy/ext/access_logger/grpc_als.h"

static int tcp_create(const void *config, struct kb_factory_context *factory, struct kb_diag *diag,
                      void **logger)
{
    const Envoy__Extensions__AccessLoggers__Grpc__V3__TcpGrpcAccessLogConfig *message = config;

    *logger = kb_grpc_als_create(KB_GRPC_ALS_TCP, message->common_config, factory, diag);
    return *logger != NULL ? 0 : KB_ECONFIG;
}

static void tcp_log(void *logger, const struct kb_formatter_input *input,
                    const struct kb_stream_info *info, struct kb_arena *arena)
{
    struct kb_grpc_als *als = KB_CAST(logger, kb_grpc_als);

    /* Not among those written, as in Envoy. */
    kb_grpc_log_write(als->log, info->worker,
                      &kb_log_entry_tcp(&als->entry, input, info, arena)->base, false);
}

extern const struct kb_access_logger_ops kb_ext_access_logger_tcp_grpc;
const struct kb_access_logger_ops kb_ext_access_logger_tcp_grpc = {
    .name = "envoy.access_loggers.tcp_grpc",
    .type_url = "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig",
    .create = tcp_create,
    .destroy = kb_grpc_als_destroy,
    .log = tcp_log,
};
