/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of proxy/upstream share: a process with two workers whose loops the test turns by
 * hand, a cluster manager, and clusters from JSON. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/pb_json.h"
#include "proto/pb_validate.h"
#include "proxy/stats/stat_iter.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/circuit_breaker.h"
#include "proxy/upstream/cluster_manager.h"

#define WORKERS 2

struct upstream {
    struct kb_server_context server;
    struct kb_worker main;
    struct kb_worker workers[WORKERS];
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_cluster_manager *manager;
    bool initialized;
};

static inline int upstream_setup(void **state)
{
    struct upstream *up = calloc(1, sizeof(*up));

    kb_arena_init(&up->arena, NULL);
    kb_diag_init(&up->diag);
    assert_int_equal(kb_worker_init(&up->main, WORKERS), 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(kb_worker_init(&up->workers[i], i), 0);
        kb_rand_init(&up->workers[i].rand, 7 + i);
    }
    up->server.main = &up->main;
    up->server.workers = up->workers;
    up->server.worker_count = WORKERS;
    up->server.stats = kb_stat_store_create(WORKERS);
    up->manager = up->server.clusters = kb_cluster_manager_create(&up->server);
    *state = up;
    return 0;
}

static inline int upstream_teardown(void **state)
{
    struct upstream *up = *state;

    kb_cluster_manager_destroy(up->manager);
    for (unsigned i = 0; i < WORKERS; i++) {
        kb_worker_dispose(&up->workers[i]);
    }
    kb_worker_dispose(&up->main);
    kb_stat_store_destroy(up->server.stats);
    kb_diag_dispose(&up->diag);
    kb_arena_dispose(&up->arena);
    free(up);
    return 0;
}

#define UPSTREAM_TEST(name) cmocka_unit_test_setup_teardown(name, upstream_setup, upstream_teardown)

/* The message of a cluster in JSON with ' for ". */
static inline Envoy__Config__Cluster__V3__Cluster *cluster_parse(struct upstream *up,
                                                                 const char *json)
{
    struct kb_str text = kb_str_dup(&up->arena, kb_str_from_cstr(json));
    ProtobufCMessage *message;

    for (size_t i = 0; i < text.len; i++) {
        char *c = (char *)(uintptr_t)&text.p[i];

        *c = *c == '\'' ? '"' : *c;
    }
    message = kb_pb_json_parse(&envoy__config__cluster__v3__cluster__descriptor, KB_STR(""), text,
                               KB_PB_UNKNOWN_ERROR, &up->arena, &up->diag);
    if (message == NULL) {
        print_error("%.*s\n", KB_STR_ARG(kb_diag_format(&up->diag, up->diag.first)));
    }
    assert_non_null(message);
    return (void *)message;
}

static inline int cluster_add(struct upstream *up, const char *json)
{
    return kb_cluster_manager_add(up->manager, cluster_parse(up, json), false, &up->diag);
}

/* All errors so far, a line each, without files; forgets them. */
static inline const char *reported(struct upstream *up)
{
    struct kb_str all = KB_STR("");

    for (struct kb_diag_entry *entry = up->diag.first; entry != NULL; entry = entry->next) {
        if (entry->level == KB_DIAG_ERROR) {
            all = kb_str_printf(&up->arena, "%.*s%.*s: %.*s\n", KB_STR_ARG(all),
                                KB_STR_ARG(entry->path), KB_STR_ARG(entry->text));
        }
    }
    kb_diag_dispose(&up->diag);
    kb_diag_init(&up->diag);
    return all.len == 0 ? "" : all.p;
}

static inline void on_initialized(void *arg)
{
    ((struct upstream *)arg)->initialized = true;
}

static inline void nothing_posted(void *arg)
{
    (void)arg;
}

/* Ends the present event of the main thread, and lets the workers do what it posted to them. */
static inline void workers_turn(struct upstream *up)
{
    kb_loop_post(&up->main.loop, nothing_posted, NULL);
    kb_loop_run_once(&up->main.loop, false);
    for (unsigned i = 0; i < WORKERS; i++) {
        kb_loop_run_once(&up->workers[i].loop, false);
    }
}

static inline void upstream_start(struct upstream *up)
{
    kb_cluster_manager_start(up->manager, on_initialized, up);
    workers_turn(up);
}

static inline uint64_t stat_value(struct upstream *up, const char *name)
{
    uint64_t value = UINT64_MAX;

    if (kb_stat_store_find(up->server.stats, kb_str_from_cstr(name), &value) != 0) {
        fail_msg("no statistic %s", name);
    }
    return value;
}

static inline struct kb_cluster_local *local_find(struct upstream *up, unsigned worker,
                                                  const char *name)
{
    return kb_cluster_local_find(&up->workers[worker], kb_str_from_cstr(name));
}
