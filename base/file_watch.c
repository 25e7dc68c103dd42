/* SPDX-License-Identifier: Apache-2.0 */
/* inotify on directories; names are compared here. */
#include "base/file_watch.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

#define EVENTS_BYTES 4096

struct kb_file_watcher {
    KB_OBJ;
    struct kb_loop *loop;
    struct kb_io io; /* fd -1: not open */
    struct kb_list watches;
    uint64_t round; /* of reading; a watch hears once in each */
};
KB_OBJ_MAGIC(kb_file_watcher, 0x46574348);

struct kb_file_watch {
    KB_OBJ;
    struct kb_list link;
    struct kb_file_watcher *watcher;
    kb_file_watch_cb cb;
    void *arg;
    uint64_t round;
    int descriptor; /* inotify's, of the directory; watches of one directory share it */
    bool due;
    char *directory;
    char *name; /* in the directory; NULL: any */
};
KB_OBJ_MAGIC(kb_file_watch, 0x4657544e);

struct kb_file_watcher *kb_file_watcher_create(struct kb_loop *loop)
{
    struct kb_file_watcher *watcher = kb_calloc(1, sizeof(*watcher));

    KB_OBJ_SET(watcher, kb_file_watcher);
    watcher->loop = loop;
    watcher->io.fd = -1;
    kb_list_init(&watcher->watches);
    return watcher;
}

static void watcher_free(struct kb_file_watcher *watcher)
{
    KB_OBJ_CLEAR(watcher);
    free(watcher);
}

static void io_closed(struct kb_io *io)
{
    watcher_free(KB_CONTAINER_OF(io, struct kb_file_watcher, io));
}

void kb_file_watcher_destroy(struct kb_file_watcher *watcher)
{
    if (watcher == NULL) {
        return;
    }
    KB_ASSERT(kb_list_empty(&watcher->watches));
    if (watcher->io.fd < 0) {
        watcher_free(watcher);
    } else {
        kb_io_close(&watcher->io, io_closed);
    }
}

static void event_note(struct kb_file_watcher *watcher, const struct inotify_event *event)
{
    KB_LIST_FOREACH (link, &watcher->watches) {
        struct kb_file_watch *watch = KB_LIST_ENTRY(link, struct kb_file_watch, link);

        if ((event->mask & IN_Q_OVERFLOW) != 0 ||
            (watch->descriptor == event->wd &&
             (watch->name == NULL || (event->len > 0 && strcmp(watch->name, event->name) == 0)))) {
            watch->due = true;
        }
    }
}

/* Calls each that is due; a callback may open and close watches. */
static void due_call(struct kb_file_watcher *watcher)
{
    bool called = true;

    watcher->round++;
    while (called) {
        called = false;
        KB_LIST_FOREACH (link, &watcher->watches) {
            struct kb_file_watch *watch = KB_LIST_ENTRY(link, struct kb_file_watch, link);

            if (watch->due && watch->round != watcher->round) {
                watch->due = false;
                watch->round = watcher->round;
                watch->cb(watch->arg);
                called = true;
                break;
            }
        }
    }
}

static void events_read(struct kb_io *io, unsigned events)
{
    struct kb_file_watcher *watcher = KB_CONTAINER_OF(io, struct kb_file_watcher, io);
    _Alignas(struct inotify_event) char bytes[EVENTS_BYTES];
    ssize_t n = read(io->fd, bytes, sizeof(bytes));

    (void)events;
    for (ssize_t at = 0; at < n;) {
        const struct inotify_event *event = (const void *)(bytes + at);

        event_note(watcher, event);
        at += (ssize_t)(sizeof(*event) + event->len);
    }
    due_call(watcher);
}

static int watcher_open(struct kb_file_watcher *watcher)
{
    int fd;

    if (watcher->io.fd >= 0) {
        return 0;
    }
    fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0) {
        return KB_EIO;
    }
    if (kb_io_open(watcher->loop, &watcher->io, fd, events_read) != 0) {
        close(fd);
        watcher->io.fd = -1;
        return KB_EIO;
    }
    kb_io_watch(&watcher->io, KB_IO_READ);
    return 0;
}

int kb_file_watch_open(struct kb_file_watcher *watcher, struct kb_str path, kb_file_watch_cb cb,
                       void *arg, struct kb_file_watch **out)
{
    ptrdiff_t slash = kb_str_rfind_char(path, '/');
    struct kb_file_watch *watch;
    int descriptor;
    char *directory;

    KB_TRY(watcher_open(watcher));
    directory = slash < 0 ? kb_strdup(".") : kb_str_to_cstr(kb_str_first(path, (size_t)slash + 1));
    descriptor = inotify_add_watch(watcher->io.fd, directory, IN_MOVED_TO);
    if (descriptor < 0) {
        free(directory);
        return errno == ENOENT || errno == ENOTDIR ? KB_ENOTFOUND : KB_EIO;
    }
    watch = kb_calloc(1, sizeof(*watch));
    KB_OBJ_SET(watch, kb_file_watch);
    watch->watcher = watcher;
    watch->cb = cb;
    watch->arg = arg;
    watch->descriptor = descriptor;
    watch->directory = directory;
    watch->name = (size_t)(slash + 1) < path.len
                      ? kb_str_to_cstr(kb_str_from(path, (size_t)(slash + 1)))
                      : NULL;
    kb_list_push_back(&watcher->watches, &watch->link);
    *out = watch;
    return 0;
}

void kb_file_watch_close(struct kb_file_watch *watch)
{
    struct kb_file_watcher *watcher;
    bool shared = false;

    if (watch == NULL) {
        return;
    }
    watcher = watch->watcher;
    kb_list_unlink(&watch->link);
    KB_LIST_FOREACH (link, &watcher->watches) {
        shared |= KB_LIST_ENTRY(link, struct kb_file_watch, link)->descriptor == watch->descriptor;
    }
    if (!shared && inotify_rm_watch(watcher->io.fd, watch->descriptor) != 0) {
        KB_LOG(FILE, DEBUG, "directory '%s' is gone", watch->directory);
    }
    free(watch->directory);
    free(watch->name);
    KB_OBJ_CLEAR(watch);
    free(watch);
}
