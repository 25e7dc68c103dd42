/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.access_loggers.stdout: a line per stream to the process's stdout. Config:
 * envoy.extensions.access_loggers.stream.v3.StdoutAccessLog. */
#include "envoy/extensions/access_loggers/stream/v3/stream.pb-c.h"
#include "proxy/access_log/stream_logger.h"

#define HAS_FORMAT \
    ENVOY__EXTENSIONS__ACCESS_LOGGERS__STREAM__V3__STDOUT_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT

static int stdout_create(const void *config, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **logger)
{
    const Envoy__Extensions__AccessLoggers__Stream__V3__StdoutAccessLog *message = config;

    return kb_stream_logger_create(
        KB_LOG_FILE_STDOUT,
        message->access_log_format_case == HAS_FORMAT ? message->log_format : NULL, factory, diag,
        logger);
}

extern const struct kb_access_logger_ops kb_ext_access_logger_stdout;
const struct kb_access_logger_ops kb_ext_access_logger_stdout = {
    .name = "envoy.access_loggers.stdout",
    .type_url = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    .create = stdout_create,
    .destroy = kb_stream_logger_destroy,
    .log = kb_stream_logger_log,
};
