/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.access_loggers.stderr: a line per stream to the process's stderr. Config:
 * envoy.extensions.access_loggers.stream.v3.StderrAccessLog. */
#include "envoy/extensions/access_loggers/stream/v3/stream.pb-c.h"
#include "proxy/access_log/stream_logger.h"

#define HAS_FORMAT \
    ENVOY__EXTENSIONS__ACCESS_LOGGERS__STREAM__V3__STDERR_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT

static int stderr_create(const void *config, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **logger)
{
    const Envoy__Extensions__AccessLoggers__Stream__V3__StderrAccessLog *message = config;

    return kb_stream_logger_create(
        KB_LOG_FILE_STDERR,
        message->access_log_format_case == HAS_FORMAT ? message->log_format : NULL, factory, diag,
        logger);
}

extern const struct kb_access_logger_ops kb_ext_access_logger_stderr;
const struct kb_access_logger_ops kb_ext_access_logger_stderr = {
    .name = "envoy.access_loggers.stderr",
    .type_url = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    .create = stderr_create,
    .destroy = kb_stream_logger_destroy,
    .log = kb_stream_logger_log,
};
