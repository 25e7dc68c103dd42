/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a program to its end. Its input and output are files in memory, so nobody waits for a
 * reader. */
#include "iptables/command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "iptables/say.h"

#define OUTPUT_MAX (64u << 20)

static int file_in_memory(const char *name, const char *content)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    size_t len = content ? strlen(content) : 0;

    if (fd < 0 || (len && write(fd, content, len) != (ssize_t)len) || lseek(fd, 0, SEEK_SET) != 0) {
        kb_say(KB_SAY_ERROR, "a file in memory for %s: %m", name);
        exit(KB_EXIT_FAILED);
    }
    return fd;
}

static void read_all(int fd, struct kb_text *out)
{
    char bytes[4096];
    ssize_t got;

    lseek(fd, 0, SEEK_SET);
    while (out->len < OUTPUT_MAX && (got = read(fd, bytes, sizeof(bytes))) > 0) {
        kb_text_add_bytes(out, bytes, (size_t)got);
    }
    close(fd);
}

static int wait_for(pid_t child)
{
    int status;

    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return -1;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int kb_command_run(const char *const *argv, const char *input, struct kb_command_output *output)
{
    int in = file_in_memory("input", input), out = file_in_memory("output", NULL),
        err = file_in_memory("errors", NULL);
    int code = -1;

    *output = (struct kb_command_output){0};
    pid_t child = fork();
    if (child == 0) {
        if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) {
            _exit(127);
        }
        union {
            const char *const *given;
            char *const *taken; /* execvp() changes none of them */
        } args = {.given = argv};
        execvp(argv[0], args.taken);
        fprintf(stderr, "%s: %m\n", argv[0]);
        fflush(stderr);
        _exit(127);
    }
    if (child < 0) {
        kb_text_add(&output->err, "%s: %m", argv[0]);
    } else {
        code = wait_for(child);
    }
    close(in);
    read_all(out, &output->out);
    read_all(err, &output->err);
    while (output->err.len && output->err.at[output->err.len - 1] == '\n') {
        output->err.at[--output->err.len] = '\0';
    }
    return code;
}

void kb_command_output_dispose(struct kb_command_output *output)
{
    kb_text_dispose(&output->out);
    kb_text_dispose(&output->err);
}

bool kb_command_find(const char *name, char *path, size_t cap)
{
    const char *at = getenv("PATH");

    while (at) {
        size_t len = strcspn(at, ":");
        if (len && (size_t)snprintf(path, cap, "%.*s/%s", (int)len, at, name) < cap &&
            access(path, X_OK) == 0) {
            return true;
        }
        at = at[len] ? at + len + 1 : NULL;
    }
    return false;
}
