/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory the process may take: --max-memory, or 90 % of its cgroup's limit. */
#include "proxy/server/memory_limit.h"

#include "proxy/server/cgroup.h"
#include "proxy/server/options.h"

#define SHARE_DEFAULT 90

struct found {
    uint64_t limit;
    uint64_t used;
};

static void limit_visit(void *arg, const char *root, const char *directory, bool v2)
{
    struct found *found = arg;
    uint64_t limit, used;

    if (!kb_cgroup_number_read(root, directory, v2 ? "memory.max" : "memory.limit_in_bytes",
                               &limit) ||
        limit >= found->limit) {
        return;
    }
    found->limit = limit;
    found->used = kb_cgroup_number_read(root, directory,
                                        v2 ? "memory.current" : "memory.usage_in_bytes", &used)
                      ? used
                      : 0;
}

uint64_t kb_memory_cgroup_limit(const char *root, uint64_t *used)
{
    /* Version 1 says something near 2^63 where there is no limit. */
    struct found found = {UINT64_C(1) << 60, 0};

    kb_cgroup_walk(root, "memory", limit_visit, &found);
    if (used != NULL) {
        *used = found.used;
    }
    return found.limit < UINT64_C(1) << 60 ? found.limit : 0;
}

int kb_memory_size_parse(struct kb_str text, struct kb_memory_size *size)
{
    static const struct {
        struct kb_str suffix;
        uint64_t unit;
    } units[] = {{{"Ki", 2}, 1024}, {{"Mi", 2}, 1048576}, {{"Gi", 2}, 1073741824},
                 {{"K", 1}, 1000},  {{"M", 1}, 1000000},  {{"G", 1}, 1000000000},
                 {{"%", 1}, 0}};
    uint64_t unit = 1;

    size->share = false;
    for (size_t i = 0; i < KB_ARRAY_LEN(units); i++) {
        if (kb_str_ends_with(text, units[i].suffix)) {
            text.len -= units[i].suffix.len;
            size->share = units[i].unit == 0;
            unit = KB_MAX(units[i].unit, (uint64_t)1);
            break;
        }
    }
    if (kb_str_to_u64(text, &size->number) != 0 || size->number > UINT64_MAX / unit ||
        (size->share && (size->number == 0 || size->number > 100))) {
        return KB_EINVALID;
    }
    size->number *= unit;
    return 0;
}

uint64_t kb_options_max_memory(const struct kb_options *options)
{
    struct kb_memory_size size = {SHARE_DEFAULT, true};

    if (options->max_memory.len > 0 && kb_memory_size_parse(options->max_memory, &size) != 0) {
        return 0; /* it was checked before */
    }
    return size.share ? kb_memory_cgroup_limit("", NULL) / 100 * size.number : size.number;
}

enum kb_memory_stage kb_memory_stage_of(uint64_t used, uint64_t ceiling, enum kb_memory_stage now)
{
    static const unsigned shares[] = {[KB_MEMORY_STOP_ACCEPTING] = 88,
                                      [KB_MEMORY_CLOSE_IDLE] = 92,
                                      [KB_MEMORY_REFUSE_STREAMS] = 96,
                                      [KB_MEMORY_RESET_STREAMS] = 99};
    enum kb_memory_stage stage = KB_MEMORY_RESET_STREAMS;

    if (ceiling == 0) {
        return KB_MEMORY_PLENTY;
    }
    /* What was begun goes on until there is some room again, so that it does not flutter. */
    while (stage > KB_MEMORY_PLENTY &&
           used / 100 * 100 < ceiling / 100 * (shares[stage] - (stage <= now ? 3 : 0))) {
        stage--;
    }
    return stage;
}
