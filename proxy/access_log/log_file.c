/* SPDX-License-Identifier: Apache-2.0 */
/* The log files of the process and their workers' buffers. The list of files only grows, so workers
 * may walk over it. */
#include "proxy/access_log/log_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "proxy/access_log/log_file_writer.h"
#include "proxy/api/access_logger.h"

#define FLUSH_INTERVAL_MS 10000 /* Envoy's --file-flush-interval-msec */
#define CHUNK_MIN         16384
#define CHUNK_MAX         ((size_t)1 << 20)
#define LINE_ROOM         4096 /* behind the flush size, so that the line that reaches it fits */
#define DRAIN_MS          5000

/* One worker's lines of one file. Only that worker touches it, and the main thread when workers
 * have stopped. */
struct log_buffer {
    struct kb_log_chunk *chunk; /* NULL: no lines */
    struct kb_timer timer;      /* armed with the first line */
    struct kb_log_file *file;
    struct kb_worker *worker;
    struct kb_stat_block *stats;
} __attribute__((aligned(64)));

struct kb_log_file {
    KB_OBJ;
    struct kb_log_target target; /* `next` links all files */
    char *path;                  /* its name among the files */
    size_t flush_bytes;
    size_t chunk_bytes;
    uint64_t interval_ms;
    struct log_buffer *buffers; /* [worker_count + 1] */
};
KB_OBJ_MAGIC(kb_log_file, 0x4c4f4746);

static struct {
    struct kb_server_context *server;
    struct kb_log_target *first; /* workers read it with acquire */
    struct kb_stat_group *stats;
    struct kb_stat_block *main_stats;
    struct kb_timer timer; /* counts flushed_by_timer, as Envoy's timers per file */
    uint64_t interval_ms;
} files;

static struct kb_log_file *target_file(struct kb_log_target *target)
{
    return KB_CONTAINER_OF(target, struct kb_log_file, target);
}

/* ---- on the worker ---- */

static void count(struct log_buffer *buffer, unsigned id, int64_t n)
{
    struct kb_stat_block *stats = buffer->stats;

    if (stats == NULL) {
        return;
    }
    if (stats == files.main_stats) {
        kb_log_stat_add(stats, id, n); /* the writer counts in this block too */
    } else if (id == KB_STAT_FILESYSTEM_WRITE_TOTAL_BUFFERED) {
        kb_stat_gauge_add(stats, id, n);
    } else {
        kb_stat_add(stats, id, (uint64_t)n);
    }
}

static void buffer_flush(struct log_buffer *buffer)
{
    struct kb_log_chunk *chunk = buffer->chunk;

    kb_loop_timer_cancel(&buffer->worker->loop, &buffer->timer);
    if (chunk == NULL) {
        return;
    }
    buffer->chunk = NULL;
    if (chunk->len > 0 && kb_log_writer_push(chunk)) {
        return;
    }
    if (chunk->len > 0) { /* the disk does not keep up: these lines are lost, and counted */
        count(buffer, KB_STAT_FILESYSTEM_WRITE_FAILED, 1);
        count(buffer, KB_STAT_FILESYSTEM_WRITE_TOTAL_BUFFERED, -(int64_t)chunk->len);
    }
    kb_log_writer_recycle(chunk);
}

static void buffer_on_timer(struct kb_timer *timer)
{
    buffer_flush(KB_CONTAINER_OF(timer, struct log_buffer, timer));
}

static struct log_buffer *worker_buffer(struct kb_log_file *file, struct kb_worker *worker)
{
    struct log_buffer *buffer = &file->buffers[worker->index];

    if (KB_UNLIKELY(buffer->worker == NULL)) {
        buffer->worker = worker;
        buffer->stats =
            files.stats != NULL ? kb_stat_group_block(files.stats, worker->index) : NULL;
    }
    return buffer;
}

static void buffer_start(struct log_buffer *buffer, size_t bytes)
{
    buffer->chunk = kb_log_writer_chunk(bytes);
    buffer->chunk->target = &buffer->file->target;
    kb_loop_timer_arm(&buffer->worker->loop, &buffer->timer, buffer->file->interval_ms);
}

void kb_log_file_begin(struct kb_log_file *file, struct kb_worker *worker,
                       struct kb_format_out *out, struct kb_arena *arena)
{
    struct log_buffer *buffer = worker_buffer(file, worker);

    if (buffer->chunk == NULL) {
        buffer_start(buffer, file->chunk_bytes);
    }
    kb_format_out_init(out, arena, buffer->chunk->bytes + buffer->chunk->len,
                       buffer->chunk->cap - buffer->chunk->len);
}

void kb_log_file_end(struct kb_log_file *file, struct kb_worker *worker,
                     const struct kb_format_out *out)
{
    struct log_buffer *buffer = worker_buffer(file, worker);

    if (out->len == 0) {
        return;
    }
    if (KB_UNLIKELY(out->p != buffer->chunk->bytes + buffer->chunk->len)) {
        buffer_flush(buffer);
        buffer_start(buffer, KB_MAX(file->chunk_bytes, out->len));
        memcpy(buffer->chunk->bytes, out->p, out->len);
    }
    buffer->chunk->len += out->len;
    count(buffer, KB_STAT_FILESYSTEM_WRITE_BUFFERED, 1);
    count(buffer, KB_STAT_FILESYSTEM_WRITE_TOTAL_BUFFERED, (int64_t)out->len);
    if (buffer->chunk->len > file->flush_bytes) {
        buffer_flush(buffer);
    }
}

/* ---- on the main thread ---- */

static void files_on_timer(struct kb_timer *timer)
{
    for (struct kb_log_target *target = files.first; target != NULL; target = target->next) {
        kb_log_stat_add(files.main_stats, KB_STAT_FILESYSTEM_FLUSHED_BY_TIMER, 1);
    }
    kb_loop_timer_arm(&files.server->main->loop, timer, files.interval_ms);
}

void kb_log_file_init(struct kb_server_context *server)
{
    if (files.server != NULL) {
        return;
    }
    files.server = server;
    files.interval_ms =
        server->file_flush_interval_ms > 0 ? server->file_flush_interval_ms : FLUSH_INTERVAL_MS;
    if (server->stats != NULL) {
        files.stats =
            kb_stat_group_create(server->stats, KB_STR("filesystem."), &kb_stat_schema_filesystem);
        files.main_stats = kb_stat_group_block(files.stats, server->worker_count);
        files.main_stats->gauge_used[KB_STAT_FILESYSTEM_WRITE_TOTAL_BUFFERED] = 1;
    }
    kb_timer_init(&files.timer, files_on_timer);
}

static struct kb_log_file *file_find(struct kb_str path)
{
    for (struct kb_log_target *target = files.first; target != NULL; target = target->next) {
        if (kb_str_eq(kb_str_from_cstr(target_file(target)->path), path)) {
            return target_file(target);
        }
    }
    return NULL;
}

static int descriptor_copy(int standard)
{
    int fd = dup(standard);

    return fd >= 0 ? fd : -errno;
}

/* stdout and stderr may be sockets, which cannot be opened by their path. A negative errno when
 * there is no file. */
static int path_open(enum kb_log_file_kind kind, const char *path)
{
    int fd;

    if (kind != KB_LOG_FILE_PATH) {
        return descriptor_copy(kind == KB_LOG_FILE_STDOUT ? STDOUT_FILENO : STDERR_FILENO);
    }
    fd = kb_log_target_open(path);
    if (fd == -ENXIO && strcmp(path, "/dev/stdout") == 0) {
        return descriptor_copy(STDOUT_FILENO);
    }
    return fd == -ENXIO && strcmp(path, "/dev/stderr") == 0 ? descriptor_copy(STDERR_FILENO) : fd;
}

static struct kb_log_file *file_create(struct kb_server_context *server, int fd, bool can_reopen,
                                       struct kb_str path)
{
    struct kb_log_file *file = kb_calloc(1, sizeof(*file));
    size_t bytes;

    KB_OBJ_SET(file, kb_log_file);
    file->path = kb_str_to_cstr(path);
    file->target.fd = fd;
    file->target.path = can_reopen ? file->path : NULL;
    file->flush_bytes = (size_t)KB_MIN(server->file_flush_min_bytes, (uint64_t)CHUNK_MAX);
    file->chunk_bytes = KB_MAX(file->flush_bytes + LINE_ROOM, (size_t)CHUNK_MIN);
    file->interval_ms = files.interval_ms;
    bytes = (server->worker_count + 1) * sizeof(struct log_buffer);
    file->buffers = aligned_alloc(_Alignof(struct log_buffer), bytes);
    KB_ASSERT(file->buffers != NULL);
    memset(file->buffers, 0, bytes);
    for (uint32_t i = 0; i <= server->worker_count; i++) {
        file->buffers[i].file = file;
        kb_timer_init(&file->buffers[i].timer, buffer_on_timer);
    }
    return file;
}

struct kb_log_file *kb_log_file_open(struct kb_server_context *server, enum kb_log_file_kind kind,
                                     struct kb_str path, struct kb_diag *diag)
{
    struct kb_str name = kind == KB_LOG_FILE_STDOUT   ? KB_STR(":stdout")
                         : kind == KB_LOG_FILE_STDERR ? KB_STR(":stderr")
                                                      : path;
    struct kb_log_file *file;
    char *text;
    int fd;

    kb_log_file_init(server);
    file = file_find(name);
    if (file != NULL) {
        return file;
    }
    text = kb_str_to_cstr(path);
    fd = path_open(kind, text);
    free(text);
    if (fd < 0) {
        kb_diag_error_hint(
            diag, KB_STR("the directory must exist and this user must be allowed to write there"),
            "unable to open file '%.*s': %s", KB_STR_ARG(path), strerror(-fd));
        return NULL;
    }
    file = file_create(server, fd, kind == KB_LOG_FILE_PATH, name);
    if (files.first == NULL && server->main != NULL) {
        kb_loop_timer_arm(&server->main->loop, &files.timer, files.interval_ms);
    }
    kb_log_writer_start(files.main_stats);
    file->target.next = files.first;
    __atomic_store_n(&files.first, &file->target, __ATOMIC_RELEASE);
    return file;
}

/* Hands over what this worker has, of all files. */
static void worker_flush(void *arg)
{
    struct kb_worker *worker = KB_CAST(arg, kb_worker);
    struct kb_log_target *target = __atomic_load_n(&files.first, __ATOMIC_ACQUIRE);

    for (; target != NULL; target = target->next) {
        struct log_buffer *buffer = &target_file(target)->buffers[worker->index];

        if (buffer->worker != NULL) {
            buffer_flush(buffer);
        }
    }
}

void kb_access_log_reopen_all(void)
{
    struct kb_server_context *server = files.server;

    if (files.first == NULL) {
        return;
    }
    for (struct kb_log_target *target = files.first; target != NULL; target = target->next) {
        __atomic_store_n(&target->reopen, target->path != NULL, __ATOMIC_RELEASE);
    }
    kb_log_writer_reopen(files.first);
    for (uint32_t i = 0; i < server->worker_count; i++) {
        kb_loop_post(&server->workers[i].loop, worker_flush, &server->workers[i]);
    }
    if (server->main != NULL) {
        worker_flush(server->main);
    }
}

void kb_access_log_flush_all(void)
{
    struct kb_server_context *server = files.server;

    if (files.first == NULL) {
        return;
    }
    for (uint32_t i = 0; i < server->worker_count; i++) {
        worker_flush(&server->workers[i]);
    }
    if (server->main != NULL) {
        worker_flush(server->main);
    }
    kb_log_writer_drain(DRAIN_MS);
}

void kb_log_file_dispose_all(void)
{
    struct kb_log_target *target = files.first;

    kb_access_log_flush_all();
    kb_log_writer_stop();
    if (files.server != NULL && files.server->main != NULL) {
        kb_loop_timer_cancel(&files.server->main->loop, &files.timer);
    }
    while (target != NULL) {
        struct kb_log_file *file = target_file(target);

        target = target->next;
        close(file->target.fd);
        free(file->path);
        free(file->buffers);
        KB_OBJ_CLEAR(file);
        free(file);
    }
    if (files.stats != NULL) {
        kb_stat_group_destroy(files.stats);
    }
    memset(&files, 0, sizeof(files));
}
