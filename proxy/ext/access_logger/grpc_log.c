/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers and streams of entries for gRPC services. The list of logs is the main thread's; a log's
 * part of a worker is that worker's. The last holder's log ends in each worker that used it before
 * its memory goes. */
#include "proxy/ext/access_logger/grpc_log.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "envoy/config/core/v3/grpc_service.pb-c.h"
#include "proto/pb.h"
#include "proto/wkt.h"
#include "proxy/api/cluster.h"
#include "proxy/api/stats.h"
#include "proxy/grpc/grpc_stream.h"

#define METADATA_MAX     16
#define STREAM_QUEUE_MAX ((size_t)1 << 20) /* as Envoy's default buffer limit of connections */
#define BUFFER_MAX       ((size_t)4 << 20) /* where the configuration says no smaller one */
/* Calls of one worker that wait for their answers; one more gives up the oldest. */
#define CALLS_MAX        64
#define VARINT_MAX       10
#define ENVOY_GRPC       ENVOY__CONFIG__CORE__V3__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC
#define ANSWER_MAX       ((size_t)1 << 20)

/* A stream of messages, or one call. */
struct log_stream {
    KB_OBJ;
    struct kb_list link; /* of its worker's part */
    struct log_part *part;
    struct kb_grpc_stream *grpc;
};
KB_OBJ_MAGIC(log_stream, 0x474c5354);

struct log_part {
    struct kb_grpc_log *log;
    struct kb_worker *worker; /* NULL: this worker has not written yet, or has ended */
    struct kb_stat_block *stats;
    struct kb_list streams;
    uint32_t stream_count;
    struct kb_timer timer; /* armed with the first entry */
    char *bytes;           /* entries, each with its tag and length */
    size_t len;
    size_t cap;
    uint32_t entries;
} __attribute__((aligned(64)));

struct kb_grpc_log {
    KB_OBJ;
    struct kb_list link; /* of all logs */
    struct kb_server_context *server;
    struct kb_arena arena; /* options and what they point to */
    struct kb_grpc_log_options options;
    struct kb_grpc_stream_options stream;
    struct kb_stat_group *stats;
    uint32_t holders;
    uint32_t ending;        /* atomic: parts that are still to end */
    struct log_part *parts; /* [worker_count + 1] */
};
KB_OBJ_MAGIC(kb_grpc_log, 0x47524c47);

static struct kb_list logs; /* main thread; workers read it when they end, while that one waits */

static struct kb_list *all_logs(void)
{
    if (logs.next == NULL) {
        kb_list_init(&logs);
    }
    return &logs;
}

/* ---- streams ---- */

static void stream_destroy(struct log_stream *stream)
{
    kb_list_unlink(&stream->link);
    stream->part->stream_count--;
    kb_grpc_stream_destroy(stream->grpc);
    KB_OBJ_CLEAR(stream);
    free(stream);
}

static void stream_on_message(void *arg, struct kb_str message)
{
    (void)KB_CAST(arg, log_stream);
    (void)message; /* an answer says nothing */
}

static void stream_on_closed(void *arg, int status, struct kb_str text)
{
    struct log_stream *stream = KB_CAST(arg, log_stream);

    if (status != KB_GRPC_OK) {
        KB_LOG(GRPC, DEBUG, "the stream of logs to cluster '%.*s' ended: %d, %.*s",
               KB_STR_ARG(stream->part->log->stream.cluster), status, KB_STR_ARG(text));
    }
    stream_destroy(stream);
}

static const struct kb_grpc_stream_callbacks stream_callbacks = {
    .on_message = stream_on_message,
    .on_closed = stream_on_closed,
};

static struct log_stream *stream_open(struct log_part *part)
{
    struct log_stream *stream = kb_calloc(1, sizeof(*stream));

    KB_OBJ_SET(stream, log_stream);
    stream->part = part;
    stream->grpc = kb_grpc_stream_open(part->worker, &part->log->stream, &stream_callbacks, stream);
    kb_list_push_back(&part->streams, &stream->link);
    part->stream_count++;
    return stream;
}

/* ---- messages ---- */

static size_t varint_put(char *out, uint64_t value)
{
    size_t n = 0;

    while (value >= 0x80) {
        out[n++] = (char)(value | 0x80);
        value >>= 7;
    }
    out[n++] = (char)value;
    return n;
}

/* The fields around the entries, from the inside out, in front of them: one piece of memory. */
static struct kb_str message_make(const struct log_part *part, bool first, struct kb_arena *arena)
{
    const struct kb_grpc_log_options *options = &part->log->options;
    size_t room = part->len;
    size_t at;
    char *bytes;

    for (size_t i = 0; i < options->level_count; i++) {
        room += 1 + VARINT_MAX + options->levels[i].before.len;
    }
    bytes = kb_arena_alloc(arena, room, 1);
    at = room - part->len;
    memcpy(bytes + at, part->bytes, part->len);
    for (size_t i = options->level_count; i-- > 0;) {
        const struct kb_grpc_log_level *level = &options->levels[i];
        char length[VARINT_MAX];
        size_t n = varint_put(length, room - at);

        at -= n;
        memcpy(bytes + at, length, n);
        bytes[--at] = (char)level->tag;
        if (first && level->before.len > 0) {
            at -= level->before.len;
            memcpy(bytes + at, level->before.p, level->before.len);
        }
    }
    return kb_str_make(bytes + at, room - at);
}

static void part_empty(struct log_part *part)
{
    part->len = 0;
    part->entries = 0;
}

/* Room for one more call: a service that does not answer, or does not read, loses the oldest. */
static void calls_make_room(struct log_part *part)
{
    size_t queued = 0;

    KB_LIST_FOREACH (link, &part->streams) {
        queued += kb_grpc_stream_queued(KB_LIST_ENTRY(link, struct log_stream, link)->grpc);
    }
    while (part->stream_count > 0 &&
           (part->stream_count >= CALLS_MAX || queued >= STREAM_QUEUE_MAX)) {
        struct log_stream *oldest = KB_LIST_ENTRY(part->streams.next, struct log_stream, link);

        queued -= kb_grpc_stream_queued(oldest->grpc);
        kb_stat_inc(part->stats, KB_STAT_ACCESS_LOG_GRPC_ENTRIES_FLUSH_FAILED);
        stream_destroy(oldest);
    }
}

/* The stream that takes a message; NULL: not now. *first: nothing was sent on it yet. */
static struct log_stream *part_stream(struct log_part *part, bool *first)
{
    struct log_stream *stream;

    *first = true;
    if (part->log->options.unary) {
        calls_make_room(part);
        return stream_open(part);
    }
    if (kb_list_empty(&part->streams)) {
        return kb_cluster_local_find(part->worker, part->log->stream.cluster) != NULL
                   ? stream_open(part)
                   : NULL;
    }
    *first = false;
    stream = KB_LIST_ENTRY(part->streams.next, struct log_stream, link);
    return kb_grpc_stream_queued(stream->grpc) < STREAM_QUEUE_MAX ? stream : NULL;
}

/* Sends what is buffered; when the service does not take it, it stays. */
static void part_flush(struct log_part *part)
{
    const struct kb_grpc_log_options *options = &part->log->options;
    struct log_stream *stream;
    struct kb_arena arena;
    bool first;

    kb_loop_timer_cancel(&part->worker->loop, &part->timer);
    if (part->len == 0) {
        return;
    }
    stream = part_stream(part, &first);
    if (stream == NULL) {
        kb_stat_add(part->stats, KB_STAT_ACCESS_LOG_GRPC_ENTRIES_FLUSH_FAILED, part->entries);
        kb_loop_timer_arm(&part->worker->loop, &part->timer, options->flush_interval_ms);
        return;
    }
    kb_arena_init(&arena, NULL);
    if (kb_grpc_stream_send(stream->grpc, message_make(part, first, &arena)) != 0) {
        kb_stat_add(part->stats, KB_STAT_ACCESS_LOG_GRPC_ENTRIES_FLUSH_FAILED, part->entries);
    } else if (!options->unary) { /* calls are not among them, as in Envoy */
        kb_stat_add(part->stats, KB_STAT_ACCESS_LOG_GRPC_ENTRIES_FLUSHED, part->entries);
    }
    if (options->unary) {
        kb_grpc_stream_end(stream->grpc);
    }
    kb_arena_dispose(&arena);
    part_empty(part);
}

static void part_on_timer(struct kb_timer *timer)
{
    part_flush(KB_CONTAINER_OF(timer, struct log_part, timer));
}

/* ---- entries, on the worker ---- */

static struct log_part *part_of(struct kb_grpc_log *log, struct kb_worker *worker)
{
    struct log_part *part = &log->parts[worker->index];

    if (KB_UNLIKELY(part->worker == NULL)) {
        part->worker = worker;
        part->stats = kb_stat_group_block(log->stats, worker->index);
    }
    return part;
}

static size_t buffer_bytes(const struct kb_grpc_log *log)
{
    return log->options.buffer_bytes > 0 ? (size_t)log->options.buffer_bytes : BUFFER_MAX;
}

/* Whether there is room, after an attempt to make some. */
static bool part_has_room(struct log_part *part)
{
    if (part->len >= buffer_bytes(part->log)) {
        part_flush(part);
    }
    return part->len < buffer_bytes(part->log);
}

static void part_append(struct log_part *part, const ProtobufCMessage *entry)
{
    size_t size = protobuf_c_message_get_packed_size(entry);
    size_t need = part->len + 1 + VARINT_MAX + size;

    if (need > part->cap) {
        part->cap = KB_MAX(need, part->cap * 2);
        part->bytes = kb_realloc(part->bytes, part->cap);
    }
    part->bytes[part->len++] = (char)part->log->options.entry_tag;
    part->len += varint_put(part->bytes + part->len, size);
    part->len += protobuf_c_message_pack(entry, (uint8_t *)part->bytes + part->len);
    part->entries++;
}

void kb_grpc_log_write(struct kb_grpc_log *log, struct kb_worker *worker,
                       const struct ProtobufCMessage *entry, bool counted)
{
    struct log_part *part = part_of(log, worker);

    if (!part_has_room(part)) {
        kb_stat_inc(part->stats, KB_STAT_ACCESS_LOG_LOGS_DROPPED);
        return;
    }
    if (counted) {
        kb_stat_inc(part->stats, KB_STAT_ACCESS_LOG_LOGS_WRITTEN);
    }
    part_append(part, entry);
    if (part->len >= log->options.buffer_bytes) {
        part_flush(part);
    } else if (!kb_timer_armed(&part->timer)) {
        kb_loop_timer_arm(&worker->loop, &part->timer, log->options.flush_interval_ms);
    }
}

/* ---- the end ---- */

static void log_destroy(struct kb_grpc_log *log)
{
    kb_stat_group_destroy(log->stats);
    kb_arena_dispose(&log->arena);
    free(log->parts);
    KB_OBJ_CLEAR(log);
    free(log);
}

static void part_close(struct log_part *part)
{
    if (part->worker == NULL) {
        return;
    }
    kb_loop_timer_cancel(&part->worker->loop, &part->timer);
    while (!kb_list_empty(&part->streams)) {
        stream_destroy(KB_LIST_ENTRY(part->streams.next, struct log_stream, link));
    }
    free(part->bytes);
    part->bytes = NULL;
    part->cap = 0;
    part_empty(part);
    part->worker = NULL;
}

static void log_ended(void *arg)
{
    log_destroy(KB_CAST(arg, kb_grpc_log));
}

/* On the part's worker; the last one tells the main thread. */
static void part_end(void *arg)
{
    struct log_part *part = arg;
    struct kb_grpc_log *log = part->log;

    part_close(part);
    if (__atomic_sub_fetch(&log->ending, 1, __ATOMIC_ACQ_REL) == 0) {
        kb_loop_post(&log->server->main->loop, log_ended, log);
    }
}

void kb_grpc_log_release(struct kb_grpc_log *log)
{
    uint32_t used = 0;

    KB_ASSERT(log->holders > 0);
    if (--log->holders > 0) {
        return;
    }
    kb_list_unlink(&log->link);
    for (uint32_t i = 0; i <= log->server->worker_count; i++) {
        used += log->parts[i].worker != NULL;
    }
    if (used == 0) {
        log_destroy(log);
        return;
    }
    __atomic_store_n(&log->ending, used, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i <= log->server->worker_count; i++) {
        if (log->parts[i].worker != NULL) {
            kb_loop_post(&log->parts[i].worker->loop, part_end, &log->parts[i]);
        }
    }
}

void kb_grpc_logs_worker_close(struct kb_worker *worker)
{
    if (logs.next == NULL) {
        return;
    }
    KB_LIST_FOREACH (link, &logs) {
        part_close(&KB_LIST_ENTRY(link, struct kb_grpc_log, link)->parts[worker->index]);
    }
}

/* ---- making, on the main thread ---- */

static struct kb_grpc_log *log_find(const struct kb_grpc_log_options *options)
{
    KB_LIST_FOREACH (link, all_logs()) {
        struct kb_grpc_log *log = KB_LIST_ENTRY(link, struct kb_grpc_log, link);

        if (strcmp(log->options.kind, options->kind) == 0 &&
            kb_str_eq(log->options.key, options->key)) {
            return log;
        }
    }
    return NULL;
}

static bool service_read(struct kb_grpc_log *log,
                         const Envoy__Config__Core__V3__GrpcService *message, struct kb_diag *diag)
{
    struct kb_grpc_stream_options *stream = &log->stream;
    struct kb_grpc_metadata *metadata;

    if (message->target_specifier_case != ENVOY_GRPC) {
        kb_diag_error_hint(diag, KB_STR("use envoy_grpc, and a cluster with its address"),
                           "google_grpc is not implemented");
        return false;
    }
    stream->cluster = kb_str_dup(&log->arena, kb_wkt_str(message->envoy_grpc->cluster_name));
    stream->authority = kb_str_dup(&log->arena, kb_wkt_str(message->envoy_grpc->authority));
    stream->skip_envoy_headers = message->envoy_grpc->skip_envoy_headers;
    stream->path = log->options.path;
    stream->max_message_bytes = ANSWER_MAX;
    stream->metadata_count = KB_MIN(message->n_initial_metadata, (size_t)METADATA_MAX);
    metadata = kb_arena_calloc(&log->arena, (stream->metadata_count + 1) * sizeof(*metadata));
    for (size_t i = 0; i < stream->metadata_count; i++) {
        metadata[i].name = kb_str_dup(&log->arena, kb_wkt_str(message->initial_metadata[i]->key));
        metadata[i].value =
            kb_str_dup(&log->arena, kb_wkt_str(message->initial_metadata[i]->value));
    }
    stream->metadata = metadata;
    return true;
}

static void parts_create(struct kb_grpc_log *log)
{
    size_t bytes = (log->server->worker_count + 1) * sizeof(struct log_part);

    log->parts = aligned_alloc(_Alignof(struct log_part), bytes);
    KB_ASSERT(log->parts != NULL);
    memset(log->parts, 0, bytes);
    for (uint32_t i = 0; i <= log->server->worker_count; i++) {
        log->parts[i].log = log;
        kb_list_init(&log->parts[i].streams);
        kb_timer_init(&log->parts[i].timer, part_on_timer);
    }
}

static struct kb_grpc_log *log_create(struct kb_server_context *server,
                                      const struct kb_grpc_log_options *options,
                                      struct kb_diag *diag)
{
    struct kb_grpc_log *log = kb_calloc(1, sizeof(*log));

    KB_OBJ_SET(log, kb_grpc_log);
    kb_arena_init(&log->arena, NULL);
    log->server = server;
    log->options = *options;
    log->options.service = NULL;
    log->options.key = kb_str_dup(&log->arena, options->key);
    log->options.path = kb_str_dup(&log->arena, options->path);
    log->options.stat_prefix = KB_STR_NULL;
    for (size_t i = 0; i < options->level_count; i++) {
        log->options.levels[i].before = kb_str_dup(&log->arena, options->levels[i].before);
    }
    if (!service_read(log, options->service, diag)) {
        kb_arena_dispose(&log->arena);
        free(log);
        return NULL;
    }
    log->stats =
        kb_stat_group_create(server->stats, options->stat_prefix, &kb_stat_schema_access_log);
    parts_create(log);
    kb_list_push_back(all_logs(), &log->link);
    return log;
}

struct kb_grpc_log *kb_grpc_log_get(struct kb_server_context *server,
                                    const struct kb_grpc_log_options *options, struct kb_diag *diag)
{
    struct kb_grpc_log *log = log_find(options);

    if (log == NULL) {
        log = log_create(server, options, diag);
    }
    if (log != NULL) {
        log->holders++;
    }
    return log;
}
