/* SPDX-License-Identifier: Apache-2.0 */
/* Reading whole files. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* KB_EIO with errno. */
static int all_read(int fd, char *bytes, size_t *len)
{
    size_t have = 0;

    while (have < *len) {
        ssize_t n = read(fd, bytes + have, *len - have);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return KB_EIO;
        }
        if (n == 0) {
            break;
        }
        have += (size_t)n;
    }
    *len = have;
    return 0;
}

static int fd_read(int fd, size_t max, struct kb_arena *arena, struct kb_str *out)
{
    struct stat info;
    size_t len;
    char *bytes;

    if (fstat(fd, &info) != 0) {
        return KB_EIO;
    }
    if (!S_ISREG(info.st_mode)) {
        return KB_EINVALID;
    }
    len = (size_t)info.st_size;
    if (len > max) {
        out->len = len;
        return KB_ELIMIT;
    }
    bytes = kb_arena_alloc(arena, len + 1, 1);
    if (all_read(fd, bytes, &len) != 0) {
        return KB_EIO;
    }
    bytes[len] = '\0';
    *out = kb_str_make(bytes, len);
    return 0;
}

int kb_file_read(const char *path, size_t max, struct kb_arena *arena, struct kb_str *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int rc, kept;

    *out = KB_STR("");
    if (fd < 0) {
        return errno == ENOENT ? KB_ENOTFOUND : KB_EIO;
    }
    rc = fd_read(fd, max, arena, out);
    kept = errno;
    close(fd);
    errno = kept;
    return rc;
}

const char *kb_file_error_text(int rc)
{
    switch (rc) {
    case KB_EINVALID:
        return "it is not a regular file";
    case KB_ELIMIT:
        return "it is larger than any that is read";
    default:
        return strerror(errno);
    }
}
