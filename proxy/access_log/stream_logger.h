/* SPDX-License-Identifier: Apache-2.0 */
/* What the file, stdout and stderr access loggers share: a format and a log file. */
#pragma once

#include "base/obj.h"
#include "proxy/access_log/log_file.h"
#include "proxy/access_log/log_format.h"
#include "proxy/api/access_logger.h"

struct kb_stream_logger {
    KB_OBJ;
    struct kb_log_format format;
    struct kb_log_file *file;
};
KB_OBJ_MAGIC(kb_stream_logger, 0x534c4f47);

struct Envoy__Config__Core__V3__SubstitutionFormatString;

/* A logger in factory->arena, its format still empty. */
struct kb_stream_logger *kb_stream_logger_new(struct kb_factory_context *factory);
/* The logger of stdout and stderr: the format (NULL: Envoy's default) and the file. 0, or
 * KB_ECONFIG after errors. */
int kb_stream_logger_create(enum kb_log_file_kind kind,
                            const struct Envoy__Config__Core__V3__SubstitutionFormatString *format,
                            struct kb_factory_context *factory, struct kb_diag *diag,
                            void **logger) KB_MUST_USE;
/* For the vtables. */
void kb_stream_logger_destroy(void *logger);
void kb_stream_logger_log(void *logger, const struct kb_formatter_input *input,
                          const struct kb_stream_info *info, struct kb_arena *arena);
