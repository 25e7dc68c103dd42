/* SPDX-License-Identifier: Apache-2.0 */
/* Log files: one per path in the process, for as long as it runs, as Envoy's AccessLogManager. Each
 * worker appends lines to its own buffer, without a lock; buffers go to the writer thread when they
 * are full or when the flush interval has passed. */
#pragma once

#include "proxy/access_log/format_value.h"
#include "proxy/api/factory_context.h"

struct kb_log_file;

enum kb_log_file_kind { KB_LOG_FILE_PATH, KB_LOG_FILE_STDOUT, KB_LOG_FILE_STDERR };

/* Makes the "filesystem." statistics; at start, or with the first file. Main thread. */
void kb_log_file_init(struct kb_server_context *server);
/* The file of that path (ignored for stdout and stderr), opened when it is not; shared, owned by
 * the process. NULL after an error was reported. Main thread. */
struct kb_log_file *kb_log_file_open(struct kb_server_context *server, enum kb_log_file_kind kind,
                                     struct kb_str path, struct kb_diag *diag);

/* A line for the file, on the worker: write it to `out` between these two calls. What does not fit
 * the buffer goes to the arena and is copied. Nothing else may log on this worker in between. */
void kb_log_file_begin(struct kb_log_file *file, struct kb_worker *worker,
                       struct kb_format_out *out, struct kb_arena *arena);
void kb_log_file_end(struct kb_log_file *file, struct kb_worker *worker,
                     const struct kb_format_out *out);

/* Closes and frees all files and ends the writer, at the end of the process. Main thread; nothing
 * logs any more. */
void kb_log_file_dispose_all(void);
