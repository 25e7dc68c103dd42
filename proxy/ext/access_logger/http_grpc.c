/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.access_loggers.http_grpc: an entry per HTTP stream to an AccessLogService. Config:
 * envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig. */
#include "proxy/ext/access_logger/grpc_als.h"
#include "proxy/http/header_mutation.h"

/* Names of headers in lower case, in the arena. */
static const struct kb_str *names_read(char *const *names, size_t count, struct kb_arena *arena)
{
    struct kb_str *out = kb_arena_calloc(arena, (count + 1) * sizeof(*out));

    for (size_t i = 0; i < count; i++) {
        out[i] = kb_header_name_dup(arena, names[i]);
    }
    return out;
}

static int http_create(const void *config, struct kb_factory_context *factory, struct kb_diag *diag,
                       void **logger)
{
    const Envoy__Extensions__AccessLoggers__Grpc__V3__HttpGrpcAccessLogConfig *message = config;
    struct kb_grpc_als *als =
        kb_grpc_als_create(KB_GRPC_ALS_HTTP, message->common_config, factory, diag);

    if (als == NULL) {
        return KB_ECONFIG;
    }
    als->entry.request_header_count = message->n_additional_request_headers_to_log;
    als->entry.request_headers = names_read(message->additional_request_headers_to_log,
                                            als->entry.request_header_count, factory->arena);
    als->entry.response_header_count = message->n_additional_response_headers_to_log;
    als->entry.response_headers = names_read(message->additional_response_headers_to_log,
                                             als->entry.response_header_count, factory->arena);
    als->entry.response_trailer_count = message->n_additional_response_trailers_to_log;
    als->entry.response_trailers = names_read(message->additional_response_trailers_to_log,
                                              als->entry.response_trailer_count, factory->arena);
    *logger = als;
    return 0;
}

static void http_log(void *logger, const struct kb_formatter_input *input,
                     const struct kb_stream_info *info, struct kb_arena *arena)
{
    struct kb_grpc_als *als = KB_CAST(logger, kb_grpc_als);

    kb_grpc_log_write(als->log, info->worker,
                      &kb_log_entry_http(&als->entry, input, info, arena)->base, true);
}

extern const struct kb_access_logger_ops kb_ext_access_logger_http_grpc;
const struct kb_access_logger_ops kb_ext_access_logger_http_grpc = {
    .name = "envoy.access_loggers.http_grpc",
    .type_url = "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
    .create = http_create,
    .destroy = kb_grpc_als_destroy,
    .log = http_log,
};
