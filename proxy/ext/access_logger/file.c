/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.access_loggers.file: a line per stream to a file. Config:
 * envoy.extensions.access_loggers.file.v3.FileAccessLog. */
#include "envoy/extensions/access_loggers/file/v3/file.pb-c.h"
#include "proxy/access_log/stream_logger.h"

#define SPECIFIER(NAME) \
    ENVOY__EXTENSIONS__ACCESS_LOGGERS__FILE__V3__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_##NAME

static bool format_init(struct kb_log_format *format,
                        const Envoy__Extensions__AccessLoggers__File__V3__FileAccessLog *message,
                        struct kb_arena *arena, struct kb_diag *diag)
{
    switch (message->access_log_format_case) {
    case SPECIFIER(FORMAT):
        if (message->format[0] == '\0') {
            return kb_log_format_init_default(format, arena, diag);
        }
        return kb_log_format_init_text(format, kb_str_from_cstr(message->format), arena, diag);
    case SPECIFIER(JSON_FORMAT):
        return kb_log_format_init_json(format, message->json_format, arena, diag);
    case SPECIFIER(TYPED_JSON_FORMAT):
        return kb_log_format_init_json(format, message->typed_json_format, arena, diag);
    case SPECIFIER(LOG_FORMAT):
        return kb_log_format_init(format, message->log_format, arena, diag);
    case SPECIFIER(_NOT_SET):
    default:
        return kb_log_format_init_default(format, arena, diag);
    }
}

/* The field that the format stands in. */
static const char *
format_field(const Envoy__Extensions__AccessLoggers__File__V3__FileAccessLog *message)
{
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(
        message->base.descriptor, (unsigned)message->access_log_format_case);

    return field != NULL ? field->name : "format";
}

static int file_create(const void *config, struct kb_factory_context *factory, struct kb_diag *diag,
                       void **logger)
{
    const Envoy__Extensions__AccessLoggers__File__V3__FileAccessLog *message = config;
    struct kb_stream_logger *made = kb_stream_logger_new(factory);
    bool ok;

    kb_diag_push(diag, format_field(message));
    ok = format_init(&made->format, message, factory->arena, diag);
    kb_diag_pop(diag);
    if (!ok) {
        return KB_ECONFIG;
    }
    kb_diag_push(diag, "path");
    made->file =
        kb_log_file_open(factory->server, KB_LOG_FILE_PATH, kb_str_from_cstr(message->path), diag);
    kb_diag_pop(diag);
    *logger = made;
    return made->file != NULL ? 0 : KB_ECONFIG;
}

extern const struct kb_access_logger_ops kb_ext_access_logger_file;
const struct kb_access_logger_ops kb_ext_access_logger_file = {
    .name = "envoy.access_loggers.file",
    .type_url = "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    .create = file_create,
    .destroy = kb_stream_logger_destroy,
    .log = kb_stream_logger_log,
};
