/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the control groups of this process: /proc/self/cgroup says which, /proc/self/mountinfo
 * where they are mounted (https://docs.kernel.org/admin-guide/cgroup-v2.html, and version 1). */
#include "proxy/server/cgroup.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX_BYTES 65536

/* Where the controller is: its mount point, the part of the hierarchy that is mounted there,
 * and this process's group in the hierarchy. */
struct controller {
    char mount[PATH_MAX];
    char mount_root[PATH_MAX];
    char group[PATH_MAX];
    bool v2;
};

/* Files of /proc say nothing of their size. */
struct kb_str kb_cgroup_file_read(const char *root, const char *path, char *bytes, size_t cap)
{
    char full[PATH_MAX];
    size_t len = 0;
    int fd;

    if ((size_t)snprintf(full, sizeof(full), "%s%s", root, path) >= sizeof(full)) {
        return KB_STR_NULL;
    }
    fd = open(full, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return KB_STR_NULL;
    }
    while (len < cap) {
        ssize_t n = read(fd, bytes + len, cap - len);

        if (n <= 0) {
            break;
        }
        len += (size_t)n;
    }
    close(fd);
    return kb_str_make(bytes, len);
}

static bool list_has(struct kb_str list, struct kb_str name)
{
    struct kb_str item;

    while (kb_str_next_token(&list, ',', &item)) {
        if (kb_str_eq(item, name)) {
            return true;
        }
    }
    return false;
}

static bool text_copy(char *out, size_t cap, struct kb_str text)
{
    if (text.len >= cap) {
        return false;
    }
    memcpy(out, text.p, text.len);
    out[text.len] = '\0';
    return true;
}

/* /proc/self/cgroup: "4:cpu,cpuacct:/group" (v1) or "0::/group" (v2). The controller of version 1
 * goes first. */
static bool group_find(const char *root, struct kb_str name, struct controller *controller)
{
    char bytes[FILE_MAX_BYTES];
    struct kb_str rest = kb_cgroup_file_read(root, "/proc/self/cgroup", bytes, sizeof(bytes));
    struct kb_str line, number, names;
    bool found = false;

    while (rest.len > 0 && kb_str_next_token(&rest, '\n', &line)) {
        if (!kb_str_next_token(&line, ':', &number) || !kb_str_next_token(&line, ':', &names) ||
            line.p == NULL) {
            continue;
        }
        if (list_has(names, name)) {
            controller->v2 = false;
            return text_copy(controller->group, sizeof(controller->group), line);
        }
        if (kb_str_eq(number, KB_STR("0")) && names.len == 0) {
            controller->v2 = true;
            found = text_copy(controller->group, sizeof(controller->group), line);
        }
    }
    return found;
}

/* /proc/self/mountinfo: "31 23 0:28 ROOT MOUNT options ... - TYPE source SUPEROPTIONS". */
static bool mount_find(const char *root, struct kb_str name, struct controller *controller)
{
    char bytes[FILE_MAX_BYTES];
    struct kb_str rest = kb_cgroup_file_read(root, "/proc/self/mountinfo", bytes, sizeof(bytes));
    struct kb_str line, field, mount_root = KB_STR_NULL, mount = KB_STR_NULL, type, source, options;

    while (rest.len > 0 && kb_str_next_token(&rest, '\n', &line)) {
        for (int i = 0; i < 5 && kb_str_next_token(&line, ' ', &field); i++) {
            mount_root = i == 3 ? field : mount_root;
            mount = i == 4 ? field : mount;
        }
        while (kb_str_next_token(&line, ' ', &field) && !kb_str_eq(field, KB_STR("-"))) {
        }
        if (!kb_str_next_token(&line, ' ', &type) || !kb_str_next_token(&line, ' ', &source) ||
            !kb_str_next_token(&line, ' ', &options)) {
            continue;
        }
        if (controller->v2 ? kb_str_eq(type, KB_STR("cgroup2"))
                           : kb_str_eq(type, KB_STR("cgroup")) && list_has(options, name)) {
            return text_copy(controller->mount, sizeof(controller->mount), mount) &&
                   text_copy(controller->mount_root, sizeof(controller->mount_root), mount_root);
        }
    }
    return false;
}

bool kb_cgroup_number_read(const char *root, const char *directory, const char *name,
                           uint64_t *number)
{
    char path[PATH_MAX];
    char bytes[64];

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, name) >= sizeof(path)) {
        return false;
    }
    struct kb_str text = kb_cgroup_file_read(root, path, bytes, sizeof(bytes));

    while (text.len > 0 && text.p[text.len - 1] == '\n') {
        text.len--;
    }
    return kb_str_to_u64(text, number) == 0;
}

void kb_cgroup_walk(const char *root, const char *controller_name,
                    void (*visit)(void *arg, const char *root, const char *directory, bool v2),
                    void *arg)
{
    struct controller controller;
    char directory[PATH_MAX];
    const char *below;
    size_t root_len, mount_len;
    struct kb_str name = kb_str_from_cstr(controller_name);

    memset(&controller, 0, sizeof(controller));
    if (!group_find(root, name, &controller) || !mount_find(root, name, &controller)) {
        return;
    }
    /* A container often sees its own group mounted as the top; the group's path then starts with
     * the mounted part. */
    root_len = strcmp(controller.mount_root, "/") == 0 ? 0 : strlen(controller.mount_root);
    below = strncmp(controller.group, controller.mount_root, root_len) == 0
                ? controller.group + root_len
                : "";
    mount_len = strlen(controller.mount);
    if ((size_t)snprintf(directory, sizeof(directory), "%s%s", controller.mount, below) >=
        sizeof(directory)) {
        return;
    }
    /* A group is bound by the limits of those above it too. */
    for (;;) {
        char *slash;

        visit(arg, root, directory, controller.v2);
        slash = strrchr(directory, '/');
        if (slash == NULL || (size_t)(slash - directory) < mount_len) {
            return;
        }
        *slash = '\0';
    }
}
