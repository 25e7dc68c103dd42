/* SPDX-License-Identifier: Apache-2.0 */
/* How many CPUs this process may use: what decides the default number of workers in a container.
 * Linux: sched_getaffinity(2), and the CPU controller of cgroups,
 * https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu and
 * https://docs.kernel.org/scheduler/sched-bwc.html for version 1. */
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxy/server/options.h"

#define FILE_MAX_BYTES 65536

/* Where the CPU controller is: its mount point, the part of the hierarchy that is mounted there,
 * and this process's group in the hierarchy. */
struct controller {
    char mount[PATH_MAX];
    char mount_root[PATH_MAX];
    char group[PATH_MAX];
    bool v2;
};

/* Reads a small file; 0 bytes when there is none. Files of /proc say nothing of their size. */
static struct kb_str file_read(const char *root, const char *path, char *bytes, size_t cap)
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

/* /proc/self/cgroup: "4:cpu,cpuacct:/group" (v1) or "0::/group" (v2). The CPU controller of version
 * 1 goes first. */
static bool group_find(const char *root, struct controller *controller)
{
    char bytes[FILE_MAX_BYTES];
    struct kb_str rest = file_read(root, "/proc/self/cgroup", bytes, sizeof(bytes));
    struct kb_str line, number, names;
    bool found = false;

    while (rest.len > 0 && kb_str_next_token(&rest, '\n', &line)) {
        if (!kb_str_next_token(&line, ':', &number) || !kb_str_next_token(&line, ':', &names) ||
            line.p == NULL) {
            continue;
        }
        if (list_has(names, KB_STR("cpu"))) {
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
static bool mount_find(const char *root, struct controller *controller)
{
    char bytes[FILE_MAX_BYTES];
    struct kb_str rest = file_read(root, "/proc/self/mountinfo", bytes, sizeof(bytes));
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
        if (controller->v2
                ? kb_str_eq(type, KB_STR("cgroup2"))
                : kb_str_eq(type, KB_STR("cgroup")) && list_has(options, KB_STR("cpu"))) {
            return text_copy(controller->mount, sizeof(controller->mount), mount) &&
                   text_copy(controller->mount_root, sizeof(controller->mount_root), mount_root);
        }
    }
    return false;
}

static uint32_t whole_cpus(uint64_t quota, uint64_t period)
{
    uint64_t cpus = period > 0 ? quota / period : UINT32_MAX;

    return (uint32_t)KB_MIN(KB_MAX(cpus, (uint64_t)1), (uint64_t)UINT32_MAX);
}

/* A number in a file; false when there is none, or it is negative (no limit). */
static bool number_read(const char *root, const char *directory, const char *name, uint64_t *number)
{
    char path[PATH_MAX];
    char bytes[64];

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, name) >= sizeof(path)) {
        return false;
    }
    struct kb_str text = file_read(root, path, bytes, sizeof(bytes));

    while (text.len > 0 && text.p[text.len - 1] == '\n') {
        text.len--;
    }
    return kb_str_to_u64(text, number) == 0;
}

/* The limit of one group. */
static uint32_t directory_limit(const char *root, const char *directory, bool v2)
{
    char path[PATH_MAX];
    char bytes[64];
    uint64_t quota, period;
    struct kb_str text, first;

    if (!v2) {
        if (!number_read(root, directory, "cpu.cfs_quota_us", &quota) ||
            !number_read(root, directory, "cpu.cfs_period_us", &period)) {
            return UINT32_MAX;
        }
        return whole_cpus(quota, period);
    }
    if ((size_t)snprintf(path, sizeof(path), "%s/cpu.max", directory) >= sizeof(path)) {
        return UINT32_MAX;
    }
    text = file_read(root, path, bytes, sizeof(bytes));
    while (text.len > 0 && text.p[text.len - 1] == '\n') {
        text.len--;
    }
    /* "max 100000" or "250000 100000" */
    if (!kb_str_next_token(&text, ' ', &first) || kb_str_to_u64(first, &quota) != 0 ||
        kb_str_to_u64(text, &period) != 0) {
        return UINT32_MAX;
    }
    return whole_cpus(quota, period);
}

uint32_t kb_cpu_cgroup_limit(const char *root)
{
    struct controller controller;
    char directory[PATH_MAX];
    const char *below;
    size_t root_len, mount_len;
    uint32_t limit = UINT32_MAX;

    memset(&controller, 0, sizeof(controller));
    if (!group_find(root, &controller) || !mount_find(root, &controller)) {
        return UINT32_MAX;
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
        return UINT32_MAX;
    }
    /* A group is bound by the limits of those above it too. */
    for (;;) {
        char *slash;

        limit = KB_MIN(limit, directory_limit(root, directory, controller.v2));
        slash = strrchr(directory, '/');
        if (slash == NULL || (size_t)(slash - directory) < mount_len) {
            return limit;
        }
        *slash = '\0';
    }
}

uint32_t kb_cpu_count(void)
{
    const char *detect = getenv("ENVOY_CGROUP_CPU_DETECTION");
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t count = online > 0 ? (uint32_t)online : 1;
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) {
        count = KB_MIN(count, (uint32_t)CPU_COUNT(&set));
    }
    if (detect == NULL || strcmp(detect, "false") != 0) {
        count = KB_MIN(count, kb_cpu_cgroup_limit(""));
    }
    return KB_MAX(count, 1U);
}
