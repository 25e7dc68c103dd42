/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that writes log files: it takes filled buffers from the workers, writes them, and
 * gives them back. The only lock of the access log is here, taken once per buffer, not per line. */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "base/str.h"
#include "proxy/api/stats.h"

#define KB_LOG_PENDING_MAX \
    ((size_t)16 << 20) /* bytes that wait for slow disks, of all files; more is dropped */

/* A descriptor that lines go to. */
struct kb_log_target {
    int fd;
    const char *path; /* NULL: not to be opened again */
    bool reopen;      /* asked for; cleared by the writer. Atomic */
    struct kb_log_target *next;
};

/* Whole lines of one worker for one target. */
struct kb_log_chunk {
    struct kb_log_chunk *next;
    struct kb_log_target *target;
    size_t len;
    size_t cap;
    char bytes[];
};

/* Starts the thread when it does not run; main thread. `stats` is the main thread's block of
 * "filesystem.", whose write_completed, write_failed, reopen_failed and write_total_buffered this
 * thread counts in; may be NULL. */
void kb_log_writer_start(struct kb_stat_block *stats);
/* Hands over a chunk to be written, from any thread; false when too much waits already: it was not
 * taken. */
bool kb_log_writer_push(struct kb_log_chunk *chunk) KB_MUST_USE;
/* An empty chunk of at least `cap` bytes; any thread. */
struct kb_log_chunk *kb_log_writer_chunk(size_t cap);
/* Keeps an emptied chunk for kb_log_writer_chunk, or frees it; any thread. */
void kb_log_writer_recycle(struct kb_log_chunk *chunk);
/* Opens all targets of the list that ask for it (and have a path) again; any thread. */
void kb_log_writer_reopen(struct kb_log_target *first);
/* Waits until everything handed over is written, at most so long. False when time was up. */
bool kb_log_writer_drain(uint64_t timeout_ms);
/* Ends the thread after what waits is written. */
void kb_log_writer_stop(void);
/* Opens a file as log files are: created, appended to. A negative errno when it cannot be. */
int kb_log_target_open(const char *path);
/* Adds to a cell that two threads write: the main thread's own. */
void kb_log_stat_add(struct kb_stat_block *stats, unsigned id, int64_t n);
