/* SPDX-License-Identifier: Apache-2.0 */
/* server.*: most of it is read from the process when somebody looks. */
#include "proxy/server/server_stats.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "proxy/server/options.h"
#include "proxy/stats/stat_store.h"

#define FLUSH_INTERVAL_MS 5000
/* What Envoy shows when there is no certificate. */
#define NO_CERTIFICATE    UINT32_MAX

struct kb_server_stats {
    KB_OBJ;
    struct kb_server_context *server;
    const struct kb_lifecycle *lifecycle;
    struct kb_stat_group *group;
    struct kb_stat_group *async_client;  /* shown from the start, as in Envoy */
    struct kb_stat_group *held;          /* "kobune.": of the process */
    struct kb_stat_group **workers_held; /* "kobune.worker_0." and so on, then the main thread's */
    struct kb_timer flush;
    uint64_t flush_interval_ms;
    bool flush_on_admin; /* not by time */
    uint64_t started_ns;
    uint64_t started_wall_ns;
    uint64_t version;
};
KB_OBJ_MAGIC(kb_server_stats, 0x53525653);

void kb_memory_usage_read(struct kb_memory_usage *usage)
{
    struct mallinfo2 info = mallinfo2();
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text)) : -1;
    struct kb_str rest = kb_str_make(text, n > 0 ? (size_t)n : 0);
    struct kb_str size, resident;
    uint64_t pages = 0;

    if (fd >= 0) {
        close(fd);
    }
    if (!kb_str_next_token(&rest, ' ', &size) || !kb_str_next_token(&rest, ' ', &resident) ||
        kb_str_to_u64(resident, &pages) != 0) {
        pages = 0;
    }
    usage->allocated = info.uordblks + info.hblkhd;
    usage->heap = info.arena + info.hblkhd;
    usage->heap_free = info.fordblks;
    usage->physical = pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t kb_server_stats_uptime_s(const struct kb_server_stats *stats)
{
    return (kb_clock_mono_ns() - stats->started_ns) / 1000000000;
}

uint64_t kb_server_stats_started_wall_ns(const struct kb_server_stats *stats)
{
    return stats->started_wall_ns;
}

static uint64_t total_connections(const struct kb_server_context *server)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < server->worker_count; i++) {
        total += __atomic_load_n(&server->workers[i].connections_open, __ATOMIC_RELAXED);
    }
    return total;
}

static bool provide(void *arg, unsigned id, uint64_t *value)
{
    struct kb_server_stats *stats = KB_CAST(arg, kb_server_stats);
    struct kb_memory_usage memory;

    switch (id) {
    case KB_STAT_SERVER_MEMORY_ALLOCATED:
        kb_memory_usage_read(&memory);
        *value = memory.allocated;
        return true;
    case KB_STAT_SERVER_MEMORY_HEAP_SIZE:
        kb_memory_usage_read(&memory);
        *value = memory.heap;
        return true;
    case KB_STAT_SERVER_MEMORY_PHYSICAL_SIZE:
        kb_memory_usage_read(&memory);
        *value = memory.physical;
        return true;
    case KB_STAT_SERVER_CONCURRENCY:
        *value = stats->server->worker_count;
        return true;
    case KB_STAT_SERVER_DAYS_UNTIL_FIRST_CERT_EXPIRING:
        *value = NO_CERTIFICATE;
        return true;
    case KB_STAT_SERVER_ENVOY_BUG_FAILURES:
        *value = kb_bug_count();
        return true;
    case KB_STAT_SERVER_LIVE:
        *value = !stats->server->health_check_failed;
        return true;
    case KB_STAT_SERVER_STATE:
        *value = kb_lifecycle_state(stats->lifecycle);
        return true;
    case KB_STAT_SERVER_TOTAL_CONNECTIONS:
        *value = total_connections(stats->server);
        return true;
    case KB_STAT_SERVER_UPTIME:
        *value = kb_server_stats_uptime_s(stats);
        return true;
    case KB_STAT_SERVER_VERSION:
        *value = stats->version;
        return true;
    default:
        return false;
    }
}

/* ---- bytes held ---- */

static bool worker_held_provide(void *arg, unsigned id, uint64_t *value)
{
    KB_ASSERT(id == KB_STAT_KOBUNE_BYTES_IN_USE);
    *value = kb_worker_bytes_in_use(KB_CAST(arg, kb_worker));
    return true;
}

static bool held_provide(void *arg, unsigned id, uint64_t *value)
{
    const struct kb_server_context *server = KB_CAST(arg, kb_server_stats)->server;

    KB_ASSERT(id == KB_STAT_KOBUNE_BYTES_IN_USE);
    *value = kb_worker_bytes_in_use(server->main);
    for (uint32_t i = 0; i < server->worker_count; i++) {
        *value += kb_worker_bytes_in_use(&server->workers[i]);
    }
    return true;
}

static void held_create(struct kb_server_stats *stats)
{
    struct kb_server_context *server = stats->server;

    stats->held = kb_stat_group_create(server->stats, KB_STR("kobune."), &kb_stat_schema_kobune);
    kb_stat_group_set_provider(stats->held, held_provide, stats);
    stats->workers_held = kb_calloc(server->worker_count + 1, sizeof(struct kb_stat_group *));
    for (uint32_t i = 0; i <= server->worker_count; i++) {
        bool is_main = i == server->worker_count;
        char prefix[40] = "kobune.main_thread.";

        if (!is_main) {
            snprintf(prefix, sizeof(prefix), "kobune.worker_%u.", i);
        }
        stats->workers_held[i] =
            kb_stat_group_create(server->stats, kb_str_from_cstr(prefix), &kb_stat_schema_kobune);
        kb_stat_group_set_provider(stats->workers_held[i], worker_held_provide,
                                   is_main ? server->main : &server->workers[i]);
    }
}

static void held_destroy(struct kb_server_stats *stats)
{
    for (uint32_t i = 0; i <= stats->server->worker_count; i++) {
        kb_stat_group_set_provider(stats->workers_held[i], NULL, NULL);
        kb_stat_group_destroy(stats->workers_held[i]);
    }
    free(stats->workers_held);
    kb_stat_group_set_provider(stats->held, NULL, NULL);
    kb_stat_group_destroy(stats->held);
}

/* ---- lifecycle ---- */

static void flush(struct kb_timer *timer)
{
    struct kb_server_stats *stats = KB_CONTAINER_OF(timer, struct kb_server_stats, flush);

    kb_stat_store_flush(stats->server->stats);
    kb_loop_timer_arm(&stats->server->main->loop, timer, stats->flush_interval_ms);
}

/* Envoy's rule: the first 3 bytes of the commit as a number. */
static uint64_t version_number(const Google__Protobuf__UInt64Value *override)
{
    struct kb_str version = kb_str_first(kb_str_from_cstr(kb_version_text()), 6);
    uint64_t number = 0;

    if (override != NULL) {
        return override->value;
    }
    for (size_t i = 0; i < version.len; i++) {
        char c = kb_ascii_lower(version.p[i]);

        if (!kb_ascii_is_digit(c) && (c < 'a' || c > 'f')) {
            return 0;
        }
        number = number * 16 + (uint64_t)(kb_ascii_is_digit(c) ? c - '0' : c - 'a' + 10);
    }
    return number;
}

struct kb_server_stats *
kb_server_stats_create(struct kb_server_context *server, const struct kb_lifecycle *lifecycle,
                       const Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap)
{
    struct kb_server_stats *stats = kb_calloc(1, sizeof(*stats));
    const Google__Protobuf__Duration *interval = bootstrap->stats_flush_interval;

    KB_OBJ_SET(stats, kb_server_stats);
    stats->server = server;
    stats->lifecycle = lifecycle;
    stats->started_ns = kb_clock_mono_ns();
    stats->started_wall_ns = kb_clock_wall_ns();
    stats->version = version_number(bootstrap->stats_server_version_override);
    stats->flush_interval_ms = FLUSH_INTERVAL_MS;
    stats->flush_on_admin =
        bootstrap->stats_flush_case ==
            ENVOY__CONFIG__BOOTSTRAP__V3__BOOTSTRAP__STATS_FLUSH_STATS_FLUSH_ON_ADMIN &&
        bootstrap->stats_flush_on_admin;
    if (interval != NULL) {
        stats->flush_interval_ms =
            (uint64_t)interval->seconds * 1000 + (uint64_t)interval->nanos / 1000000;
    }
    stats->group = kb_stat_group_create(server->stats, KB_STR("server."), &kb_stat_schema_server);
    kb_stat_group_set_provider(stats->group, provide, stats);
    stats->async_client = kb_stat_group_create(server->stats, KB_STR("http.async-client."),
                                               &kb_stat_schema_async_client);
    held_create(stats);
    kb_timer_init(&stats->flush, flush);
    return stats;
}

void kb_server_stats_destroy(struct kb_server_stats *stats)
{
    if (stats == NULL) {
        return;
    }
    kb_loop_timer_cancel(&stats->server->main->loop, &stats->flush);
    kb_stat_group_set_provider(stats->group, NULL, NULL);
    kb_stat_group_destroy(stats->group);
    kb_stat_group_destroy(stats->async_client);
    held_destroy(stats);
    KB_OBJ_CLEAR(stats);
    free(stats);
}

void kb_server_stats_start(struct kb_server_stats *stats)
{
    if (!stats->flush_on_admin) {
        kb_loop_timer_arm(&stats->server->main->loop, &stats->flush, stats->flush_interval_ms);
    }
}

void kb_server_stats_flush_last(struct kb_server_stats *stats)
{
    if (!stats->flush_on_admin) {
        kb_stat_store_flush(stats->server->stats);
    }
}

static struct kb_stat_block *main_block(struct kb_server_stats *stats)
{
    return kb_stat_group_block(stats->group, stats->server->main->index);
}

void kb_server_stats_initialized(struct kb_server_stats *stats)
{
    kb_stat_record(main_block(stats), KB_STAT_SERVER_INITIALIZATION_TIME_MS,
                   (kb_clock_mono_ns() - stats->started_ns) / 1000000);
}

void kb_server_stats_unknown_fields(struct kb_server_stats *stats, uint64_t count)
{
    kb_stat_add(main_block(stats), KB_STAT_SERVER_STATIC_UNKNOWN_FIELDS, count);
}
