/* SPDX-License-Identifier: Apache-2.0 */
/* One thread writes for all log files of the process. Chunks wait in one queue, in the order in
 * which workers filled them; a worker's lines keep their order. */
#include "proxy/access_log/log_file_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/obj.h"

#define IDLE_CHUNKS_MAX 16
#define BLOCKED_MS 1000 /* how long a descriptor may refuse bytes before its chunk is given up */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;    /* there is something to do */
    pthread_cond_t settled; /* nothing is left to do */
    pthread_t thread;
    bool running;
    bool stopping;
    bool busy;
    struct kb_log_chunk *first;
    struct kb_log_chunk **last;
    size_t pending; /* bytes in the queue */
    struct kb_log_chunk *idle;
    unsigned idle_count;
    struct kb_log_target *reopen_first;
    struct kb_stat_block *stats;
} writer = {.lock = PTHREAD_MUTEX_INITIALIZER,
            .wake = PTHREAD_COND_INITIALIZER,
            .settled = PTHREAD_COND_INITIALIZER};

void kb_log_stat_add(struct kb_stat_block *stats, unsigned id, int64_t n)
{
    if (stats != NULL) {
        __atomic_store_n(&stats->gauge_used[id], 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&stats->cells[id], (uint64_t)n, __ATOMIC_RELAXED);
    }
}

int kb_log_target_open(const char *path)
{
    /* Reading too, as Envoy: a FIFO that nobody reads yet can be opened. */
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

    if (fd < 0 && (errno == EACCES || errno == EROFS)) {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }
    return fd >= 0 ? fd : -errno;
}

/* ---- on the thread ---- */

static bool write_all(int fd, const char *p, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n >= 0) {
            p += n;
            len -= (size_t)n;
            continue;
        }
        if (errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};

            if (poll(&wait, 1, BLOCKED_MS) <= 0) {
                return false;
            }
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

static void target_reopen(struct kb_log_target *target)
{
    int fd;

    if (target->path == NULL || !__atomic_load_n(&target->reopen, __ATOMIC_ACQUIRE)) {
        return;
    }
    fd = kb_log_target_open(target->path);
    if (fd < 0) {
        /* The old file stays, and it is tried again with the next lines. */
        kb_log_stat_add(writer.stats, KB_STAT_FILESYSTEM_REOPEN_FAILED, 1);
        return;
    }
    __atomic_store_n(&target->reopen, false, __ATOMIC_RELEASE);
    close(target->fd);
    target->fd = fd;
}

static void chunk_write(struct kb_log_chunk *chunk)
{
    bool ok;

    target_reopen(chunk->target);
    ok = write_all(chunk->target->fd, chunk->bytes, chunk->len);
    kb_log_stat_add(writer.stats,
                    ok ? KB_STAT_FILESYSTEM_WRITE_COMPLETED : KB_STAT_FILESYSTEM_WRITE_FAILED, 1);
    kb_log_stat_add(writer.stats, KB_STAT_FILESYSTEM_WRITE_TOTAL_BUFFERED, -(int64_t)chunk->len);
}

static void *writer_run(void *arg)
{
    (void)arg;
    pthread_setname_np(pthread_self(), "kb:log_writer");
    pthread_mutex_lock(&writer.lock);
    for (;;) {
        struct kb_log_chunk *chunk = writer.first;
        struct kb_log_target *reopen = writer.reopen_first;

        if (chunk == NULL && reopen == NULL) {
            writer.busy = false;
            pthread_cond_broadcast(&writer.settled);
            if (writer.stopping) {
                break;
            }
            pthread_cond_wait(&writer.wake, &writer.lock);
            continue;
        }
        writer.busy = true;
        writer.reopen_first = NULL;
        if (chunk != NULL) {
            writer.first = chunk->next;
            writer.last = writer.first != NULL ? writer.last : &writer.first;
        }
        pthread_mutex_unlock(&writer.lock);
        for (; reopen != NULL; reopen = reopen->next) {
            target_reopen(reopen);
        }
        if (chunk != NULL) {
            size_t len = chunk->len;

            chunk_write(chunk);
            kb_log_writer_recycle(chunk);
            pthread_mutex_lock(&writer.lock);
            writer.pending -= len;
        } else {
            pthread_mutex_lock(&writer.lock);
        }
    }
    pthread_mutex_unlock(&writer.lock);
    return NULL;
}

/* ---- from other threads ---- */

void kb_log_writer_start(struct kb_stat_block *stats)
{
    sigset_t all, before;
    int rc;

    if (writer.running) {
        return;
    }
    writer.stats = stats;
    writer.last = &writer.first;
    writer.stopping = false;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&writer.thread, NULL, writer_run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    KB_ASSERT(rc == 0);
    writer.running = true;
}

bool kb_log_writer_push(struct kb_log_chunk *chunk)
{
    bool taken;

    pthread_mutex_lock(&writer.lock);
    taken = writer.pending + chunk->len <= KB_LOG_PENDING_MAX || writer.first == NULL;
    if (taken) {
        chunk->next = NULL;
        *writer.last = chunk;
        writer.last = &chunk->next;
        writer.pending += chunk->len;
        pthread_cond_signal(&writer.wake);
    }
    pthread_mutex_unlock(&writer.lock);
    return taken;
}

struct kb_log_chunk *kb_log_writer_chunk(size_t cap)
{
    struct kb_log_chunk **at = &writer.idle;
    struct kb_log_chunk *chunk;

    pthread_mutex_lock(&writer.lock);
    while (*at != NULL && (*at)->cap < cap) {
        at = &(*at)->next;
    }
    chunk = *at;
    if (chunk != NULL) {
        *at = chunk->next;
        writer.idle_count--;
    }
    pthread_mutex_unlock(&writer.lock);
    if (chunk == NULL) {
        chunk = kb_malloc(sizeof(*chunk) + cap);
        chunk->cap = cap;
    }
    chunk->next = NULL;
    chunk->target = NULL;
    chunk->len = 0;
    return chunk;
}

void kb_log_writer_recycle(struct kb_log_chunk *chunk)
{
    pthread_mutex_lock(&writer.lock);
    if (writer.idle_count < IDLE_CHUNKS_MAX) {
        chunk->next = writer.idle;
        writer.idle = chunk;
        writer.idle_count++;
        chunk = NULL;
    }
    pthread_mutex_unlock(&writer.lock);
    free(chunk);
}

void kb_log_writer_reopen(struct kb_log_target *first)
{
    pthread_mutex_lock(&writer.lock);
    writer.reopen_first = first;
    pthread_cond_signal(&writer.wake);
    pthread_mutex_unlock(&writer.lock);
}

bool kb_log_writer_drain(uint64_t timeout_ms)
{
    struct timespec until;
    bool drained = true;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&writer.lock);
    while (drained && writer.running &&
           (writer.first != NULL || writer.reopen_first != NULL || writer.busy)) {
        drained = pthread_cond_timedwait(&writer.settled, &writer.lock, &until) == 0;
    }
    pthread_mutex_unlock(&writer.lock);
    return drained;
}

void kb_log_writer_stop(void)
{
    if (!writer.running) {
        return;
    }
    pthread_mutex_lock(&writer.lock);
    writer.stopping = true;
    pthread_cond_signal(&writer.wake);
    pthread_mutex_unlock(&writer.lock);
    pthread_join(writer.thread, NULL);
    writer.running = false;
    while (writer.idle != NULL) {
        struct kb_log_chunk *next = writer.idle->next;

        free(writer.idle);
        writer.idle = next;
    }
    writer.idle_count = 0;
}
