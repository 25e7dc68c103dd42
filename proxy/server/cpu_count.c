/* SPDX-License-Identifier: Apache-2.0 */
/* How many CPUs this process may use: what decides the default number of workers in a container.
 * Linux: sched_getaffinity(2), and the CPU controller of cgroups,
 * https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu and
 * https://docs.kernel.org/scheduler/sched-bwc.html for version 1. */
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxy/server/cgroup.h"
#include "proxy/server/options.h"

static uint32_t whole_cpus(uint64_t quota, uint64_t period)
{
    uint64_t cpus = period > 0 ? quota / period : UINT32_MAX;

    return (uint32_t)KB_MIN(KB_MAX(cpus, (uint64_t)1), (uint64_t)UINT32_MAX);
}

/* The limit of one group. */
static uint32_t directory_limit(const char *root, const char *directory, bool v2)
{
    char path[PATH_MAX];
    char bytes[64];
    uint64_t quota, period;
    struct kb_str text, first;

    if (!v2) {
        if (!kb_cgroup_number_read(root, directory, "cpu.cfs_quota_us", &quota) ||
            !kb_cgroup_number_read(root, directory, "cpu.cfs_period_us", &period)) {
            return UINT32_MAX;
        }
        return whole_cpus(quota, period);
    }
    if ((size_t)snprintf(path, sizeof(path), "%s/cpu.max", directory) >= sizeof(path)) {
        return UINT32_MAX;
    }
    text = kb_cgroup_file_read(root, path, bytes, sizeof(bytes));
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

static void limit_visit(void *arg, const char *root, const char *directory, bool v2)
{
    uint32_t *limit = arg;

    *limit = KB_MIN(*limit, directory_limit(root, directory, v2));
}

uint32_t kb_cpu_cgroup_limit(const char *root)
{
    uint32_t limit = UINT32_MAX;

    kb_cgroup_walk(root, "cpu", limit_visit, &limit);
    return limit;
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
