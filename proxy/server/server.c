/* SPDX-License-Identifier: Apache-2.0 */
/* The order of things: read and check everything, build everything, and only when all of it is
 * right open the first socket. Log lines are those that users of Envoy wait for. */
#include "proxy/server/server.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"
#include "proxy/api/access_logger.h"
#include "proxy/api/connection.h"
#include "proxy/api/extension.h"
#include "proxy/api/header_map.h"
#include "proxy/ext/access_logger/grpc_log.h"
#include "proxy/grpc/grpc_stream.h"
#include "proxy/router/shadow.h"
#include "proxy/server/server_internal.h"
#include "proxy/server/stat_sinks.h"
#include "proxy/upstream/cluster_manager.h"
#include "proxy/upstream/conn_pool.h"

/* Threads share heaps: the request path takes no memory from them, and each heap keeps pages that
 * nobody uses. */
#define HEAPS_MAX     1
#define SETTLE_ROUNDS 8

static int exit_code_fail(const struct kb_options *options, const char *text)
{
    KB_LOG(MAIN, CRITICAL, "error `%s` initializing config '%.*s'", text,
           KB_STR_ARG(options->config_path));
    fprintf(stderr, "%s\n", text);
    return EXIT_FAILURE;
}

/* --log-path and --enable-core-dump, before anything is read. */
static int process_prepare(const struct kb_options *options)
{
    char text[512];

    mallopt(M_ARENA_MAX, HEAPS_MAX);
    kb_options_apply_log(options);
    if (options->log_path.len > 0 && options->mode != KB_MODE_VALIDATE &&
        kb_log_set_path(options->log_path.p) != 0) {
        snprintf(text, sizeof(text),
                 "Failed to open log-file '%s'. e.what(): unable to open file '%s': %s",
                 options->log_path.p, options->log_path.p, strerror(errno));
        return exit_code_fail(options, text);
    }
    if (options->enable_core_dump) {
        const struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};

        if (setrlimit(RLIMIT_CORE, &limit) != 0 || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) {
            KB_LOG(MAIN, WARNING, "core dumps could not be enabled: %s", strerror(errno));
        }
    }
    if (options->allow_unknown_fields) {
        KB_LOG(CONFIG, WARNING,
               "--allow-unknown-fields is deprecated, use --allow-unknown-static-fields instead.");
    }
    return EXIT_SUCCESS;
}

/* Replaces the file's text; false when it cannot be written. */
static bool file_write(struct kb_str path, const char *text)
{
    FILE *file = fopen(path.p, "we");

    if (file == NULL) {
        return false;
    }
    fputs(text, file);
    return fclose(file) == 0;
}

static void base_id_write(const struct kb_options *options)
{
    char text[16];
    uint32_t base_id = options->base_id;

    if (options->base_id_path.len == 0) {
        return;
    }
    if (options->use_dynamic_base_id) {
        base_id = (uint32_t)kb_rand_entropy() & INT32_MAX;
    }
    snprintf(text, sizeof(text), "%u", base_id);
    if (!file_write(options->base_id_path, text)) {
        KB_LOG(MISC, CRITICAL, "cannot open base id output file %s for writing.",
               options->base_id_path.p);
    }
}

static void extensions_disable(struct kb_str list)
{
    struct kb_str name;

    while (list.len > 0 && kb_str_next_token(&list, ',', &name)) {
        int rc = kb_extension_disable(name);

        if (rc == 0) {
            KB_LOG(MISC, INFO, "disabled extension '%.*s'", KB_STR_ARG(name));
        } else {
            KB_LOG(MISC, WARNING, "failed to disable %s '%.*s'",
                   rc == KB_EINVALID ? "invalid extension name" : "unknown extension",
                   KB_STR_ARG(name));
        }
    }
}

struct worker_stop {
    struct kb_server *server;
    struct kb_worker *worker;
};

/* On a worker, before its loop ends. */
static void worker_stop(void *arg)
{
    struct worker_stop *stop = arg;

    kb_listener_manager_worker_close(stop->server->listeners, stop->worker);
    kb_shadows_worker_close(stop->worker);
    kb_cluster_manager_worker_drain(stop->worker);
    kb_grpc_logs_worker_close(stop->worker);
    if (stop->worker == stop->server->context.main) {
        kb_stat_sinks_close();
    }
    kb_grpc_worker_close(stop->worker);
    kb_conns_worker_close(stop->worker);
    free(stop);
}

/* Lets what was closed end: close callbacks, deferred work, and what threads posted to each other.
 * Each may cause more, but not without end. */
static void loops_settle(struct kb_server_context *context)
{
    for (unsigned round = 0; round < SETTLE_ROUNDS; round++) {
        for (uint32_t i = 0; i < context->worker_count; i++) {
            kb_loop_run_once(&context->workers[i].loop, false);
        }
        kb_loop_run_once(&context->main->loop, false);
    }
}

static void workers_stop(struct kb_server *server)
{
    struct kb_server_context *context = &server->context;

    kb_xds_glue_stop(context->xds);
    for (uint32_t i = 0; i <= context->worker_count; i++) {
        struct worker_stop *stop = kb_calloc(1, sizeof(*stop));

        stop->server = server;
        stop->worker = i < context->worker_count ? &context->workers[i] : context->main;
        kb_loop_post(&stop->worker->loop, worker_stop, stop);
    }
    for (uint32_t i = 0; i < context->worker_count; i++) {
        kb_worker_join(&context->workers[i]);
    }
    loops_settle(context);
    kb_access_log_flush_all();
}

static int workers_start(struct kb_server *server)
{
    struct kb_server_context *context = &server->context;

    for (uint32_t i = 0; i < context->worker_count; i++) {
        KB_TRY(kb_worker_start(&context->workers[i]));
    }
    return 0;
}

/* Listeners have their routes and secrets: now traffic may come. */
static void dependencies_initialized(void *arg)
{
    struct kb_server *server = KB_CAST(arg, kb_server);
    struct kb_str error;

    if (server->lifecycle.shutting_down) {
        return;
    }
    KB_LOG(CONFIG, INFO, "all dependencies initialized. starting workers");
    if (kb_listener_manager_start(server->listeners, &server->diag.arena, &error) != 0) {
        server->exit_code = exit_code_fail(server->options, error.p);
        kb_lifecycle_shut_down(&server->lifecycle);
        return;
    }
    if (workers_start(server) != 0) {
        server->exit_code =
            exit_code_fail(server->options, "the worker threads could not be started");
        kb_lifecycle_shut_down(&server->lifecycle);
        return;
    }
    kb_lifecycle_set_stage(&server->lifecycle, KB_INIT_DONE);
    kb_server_stats_initialized(server->stats);
}

/* Every cluster has its first answer, those of the first answer of CDS too: listeners may be asked
 * for. */
static void clusters_initialized(void *arg)
{
    struct kb_server *server = KB_CAST(arg, kb_server);

    KB_LOG(UPSTREAM, INFO, "cm init: all clusters initialized");
    if (server->options->mode == KB_MODE_INIT_ONLY) {
        kb_loop_stop(&server->main.loop);
        return;
    }
    if (server->cds != NULL) {
        kb_cds_api_set_live(server->cds);
    }
    KB_LOG(MAIN, INFO, "all clusters initialized. initializing init manager");
    kb_lifecycle_set_stage(&server->lifecycle, KB_INIT_STARTED);
    kb_init_manager_start(&server->init, dependencies_initialized, server);
}

static void cds_initialized(void *arg)
{
    struct kb_server *server = KB_CAST(arg, kb_server);

    kb_cluster_manager_when_warm(server->context.clusters, clusters_initialized, server);
}

/* The bootstrap's own clusters stand. */
static void static_clusters_initialized(void *arg)
{
    struct kb_server *server = KB_CAST(arg, kb_server);

    if (server->cds == NULL) {
        clusters_initialized(server);
        return;
    }
    KB_LOG(UPSTREAM, INFO, "cm init: initializing cds");
    kb_cds_api_start(server->cds, cds_initialized, server);
}

/* When the workers' views have the static clusters. */
static void xds_start(struct kb_deferred *deferred)
{
    kb_xds_glue_start(KB_CONTAINER_OF(deferred, struct kb_server, xds_start)->context.xds);
}

/* The admin port is first, so that somebody can watch the rest. */
static int admin_start(struct kb_server *server)
{
    struct kb_listener *listener = server->admin_listener;
    const struct kb_options *options = server->options;
    char text[KB_ADDR_TEXT_MAX + 1];
    struct kb_str address, error;

    if (listener == NULL) {
        return 0;
    }
    address = kb_addr_text(&listener->addrs[0].addr, text);
    KB_LOG(MAIN, INFO, "Starting admin HTTP server at %.*s", KB_STR_ARG(address));
    server->admin_listener = NULL;
    if (kb_listener_manager_add_admin(server->listeners, listener, &server->diag.arena, &error) !=
        0) {
        server->exit_code = exit_code_fail(options, error.p);
        return KB_EADDRINUSE;
    }
    address = kb_addr_text(kb_listener_manager_admin_address(server->listeners), text);
    text[address.len] = '\0';
    KB_LOG(ADMIN, INFO, "admin address: %s", text);
    if (options->admin_address_path.len > 0 && !file_write(options->admin_address_path, text)) {
        KB_LOG(ADMIN, CRITICAL, "cannot open admin address output file %s for writing.",
               options->admin_address_path.p);
    }
    return 0;
}

/* Opens sockets and runs until somebody ends it. */
static void server_run(struct kb_server *server)
{
    base_id_write(server->options);
    if (kb_lifecycle_open_signals(&server->lifecycle) != 0) {
        server->exit_code =
            exit_code_fail(server->options, "the signal handlers could not be installed");
        return;
    }
    if (admin_start(server) != 0) {
        return;
    }
    if (kb_listener_manager_bind(server->listeners, &server->diag) != 0) {
        kb_bootstrap_report_errors(server->options, &server->diag, stderr);
        server->exit_code = EXIT_FAILURE;
        return;
    }
    server->watchdog = kb_watchdog_create(&server->context, server->bootstrap.message->watchdogs);
    kb_server_stats_start(server->stats);
    kb_overload_start(server->overload);
    /* Reading the configuration took much memory that is free now. */
    kb_mem_trim();
    KB_LOG(MAIN, INFO, "starting main dispatch loop");
    kb_runtime_reload(server->context.runtime);
    KB_LOG(RUNTIME, INFO, "RTDS has finished initialization");
    kb_cluster_manager_start(server->context.clusters, static_clusters_initialized, server);
    kb_deferred_init(&server->xds_start, xds_start);
    kb_loop_defer_late(&server->main.loop, &server->xds_start);
    kb_loop_run(&server->main.loop);
    KB_LOG(MAIN, INFO, "main dispatch loop exited");
}

int kb_server_main(const struct kb_options *options)
{
    static struct kb_server server;

    KB_OBJ_SET(&server, kb_server);
    server.options = options;
    server.exit_code = process_prepare(options);
    if (server.exit_code != EXIT_SUCCESS) {
        return server.exit_code;
    }
    extensions_disable(options->disable_extensions);
    kb_header_names_init();
    kb_host_set_removed_cb(kb_conn_pools_host_removed);
    kb_host_set_failed_cb(kb_conn_pools_host_failed);
    kb_diag_init(&server.diag);
    kb_unsupported_init(&server.unsupported);
    if (options->mode != KB_MODE_VALIDATE) {
        KB_LOG(MAIN, INFO, "initializing epoch %u (base id=%u, hot restart version=disabled)",
               options->restart_epoch, options->base_id);
    }
    if (kb_bootstrap_load(&server.bootstrap, options, &server.diag) == 0) {
        kb_server_build(&server);
    }
    if (kb_diag_result(&server.diag) != 0) {
        kb_bootstrap_report_errors(options, &server.diag, stderr);
        server.exit_code = EXIT_FAILURE;
    } else {
        kb_unsupported_walk(&server.unsupported, &server.bootstrap.message->base, KB_STR_NULL);
        if (options->mode == KB_MODE_VALIDATE) {
            printf("configuration '%.*s' OK\n", KB_STR_ARG(options->config_path));
        } else {
            server_run(&server);
            kb_server_stats_flush_last(server.stats);
            workers_stop(&server);
        }
    }
    kb_server_dispose(&server);
    if (options->mode != KB_MODE_VALIDATE) {
        KB_LOG(MAIN, INFO, "exiting");
    }
    return server.exit_code;
}
