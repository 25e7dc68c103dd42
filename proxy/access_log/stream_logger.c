/* SPDX-License-Identifier: Apache-2.0 */
/* What the file, stdout and stderr access loggers share. */
#include "proxy/access_log/stream_logger.h"

struct kb_stream_logger *kb_stream_logger_new(struct kb_factory_context *factory)
{
    struct kb_stream_logger *logger = KB_ARENA_NEW(factory->arena, struct kb_stream_logger);

    KB_OBJ_SET(logger, kb_stream_logger);
    return logger;
}

int kb_stream_logger_create(enum kb_log_file_kind kind,
                            const struct Envoy__Config__Core__V3__SubstitutionFormatString *format,
                            struct kb_factory_context *factory, struct kb_diag *diag, void **logger)
{
    struct kb_stream_logger *made = kb_stream_logger_new(factory);
    bool ok;

    kb_diag_push(diag, "log_format");
    ok = format != NULL ? kb_log_format_init(&made->format, format, factory->arena, diag)
                        : kb_log_format_init_default(&made->format, factory->arena, diag);
    kb_diag_pop(diag);
    if (!ok) {
        return KB_ECONFIG;
    }
    made->file = kb_log_file_open(factory->server, kind, KB_STR(""), diag);
    *logger = made;
    return made->file != NULL ? 0 : KB_ECONFIG;
}

/* The memory is the arena's, the file the process's. */
void kb_stream_logger_destroy(void *logger)
{
    struct kb_stream_logger *stream = KB_CAST(logger, kb_stream_logger);

    KB_OBJ_CLEAR(stream);
}

void kb_stream_logger_log(void *logger, const struct kb_formatter_input *input,
                          const struct kb_stream_info *info, struct kb_arena *arena)
{
    struct kb_stream_logger *stream = KB_CAST(logger, kb_stream_logger);
    struct kb_format_out out;

    kb_log_file_begin(stream->file, info->worker, &out, arena);
    kb_log_format_append(&stream->format, input, info, arena, &out);
    kb_log_file_end(stream->file, info->worker, &out);
}
