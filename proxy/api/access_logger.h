/* SPDX-License-Identifier: Apache-2.0 */
/* Access loggers: one vtable per kind (file, stdout, stderr), created from an AccessLog message
 * with its filter. Implemented in proxy/access_log/ and proxy/ext/access_logger/. */
#pragma once

#include "proxy/api/factory_context.h"
#include "proxy/api/formatter.h"

struct kb_access_logger_ops {
    const char *name;     /* "envoy.access_loggers.file" */
    const char *type_url; /* without "type.googleapis.com/" */
    /* *logger is immutable configuration shared by workers; NULL plus diag on error. */
    int (*create)(const void *message, struct kb_factory_context *factory, struct kb_diag *diag,
                  void **logger);
    void (*destroy)(void *logger);
    /* On the worker of the stream, when the stream has ended. `arena` may be used for temporary
     * memory. */
    void (*log)(void *logger, const struct kb_formatter_input *input,
                const struct kb_stream_info *info, struct kb_arena *arena);
};

/* The access loggers of one connection manager or TCP proxy, with their filters. */
struct kb_access_log_list;

struct Envoy__Config__Accesslog__V3__AccessLog;

/* n messages -> list; NULL only after an error was reported. n == 0 gives an empty list. */
struct kb_access_log_list *
kb_access_log_list_create(struct Envoy__Config__Accesslog__V3__AccessLog *const *messages, size_t n,
                          struct kb_factory_context *factory, struct kb_diag *diag);
void kb_access_log_list_destroy(struct kb_access_log_list *list);
bool kb_access_log_list_empty(const struct kb_access_log_list *list);
/* Runs the filters and logs. */
void kb_access_log_list_log(const struct kb_access_log_list *list,
                            const struct kb_formatter_input *input,
                            const struct kb_stream_info *info, struct kb_arena *arena);

/* Opens all log files again (SIGUSR1, /reopen_logs); main thread. */
void kb_access_log_reopen_all(void);
/* Writes out what is buffered, before the process ends; main thread, workers stopped. */
void kb_access_log_flush_all(void);
