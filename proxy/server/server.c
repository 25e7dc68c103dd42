/* SPDX-License-Identifier: Apache-2.0 */
/* The order of things: read and check everything, build everything, and only when all of it is
 * right open the first socket. Log lines are those that users of Envoy wait for. */
#include "proxy/server/server.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"
#include "proto/pb_json.h"
#include "proxy/access_log/log_file.h"
#include "proxy/api/access_logger.h"
#include "proxy/api/connection.h"
#include "proxy/api/extension.h"
#include "proxy/api/header_map.h"
#include "proxy/api/secret.h"
#include "proxy/ext/access_logger/grpc_log.h"
#include "proxy/grpc/grpc_stream.h"
#include "proxy/router/shadow.h"
#include "proxy/server/admin_filter.h"
#include "proxy/server/admin_glue.h"
#include "proxy/server/outlier_log.h"
#include "proxy/server/server_internal.h"
#include "proxy/server/stat_sinks.h"
#include "proxy/stats/stat_store.h"
#include "proxy/stats/tag_extract.h"
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

static void context_fill(struct kb_server *server)
{
    const struct kb_options *options = server->options;
    const Envoy__Config__Core__V3__Node *node = server->bootstrap.node;
    struct kb_server_context *context = &server->context;

    context->node = node;
    context->node_id = kb_str_from_cstr(node->id);
    context->node_cluster = kb_str_from_cstr(node->cluster);
    context->node_metadata = node->metadata;
    if (node->locality != NULL) {
        context->node_region = kb_str_from_cstr(node->locality->region);
        context->node_zone = kb_str_from_cstr(node->locality->zone);
        context->node_sub_zone = kb_str_from_cstr(node->locality->sub_zone);
    }
    context->file_flush_interval_ms = options->file_flush_interval_ms;
    context->file_flush_min_bytes = (uint64_t)options->file_flush_min_size_kb * 1024;
    context->drain_time_s = options->drain_time_s;
    context->drain_immediate = options->drain_immediate;
    context->validate_only = options->mode == KB_MODE_VALIDATE;
}

static int workers_create(struct kb_server *server)
{
    struct kb_server_context *context = &server->context;

    context->worker_count = server->options->concurrency;
    context->workers = kb_calloc(context->worker_count, sizeof(*context->workers));
    context->main = &server->main;
    KB_TRY(kb_worker_init(&server->main, context->worker_count));
    server->main_ready = true;
    for (uint32_t i = 0; i < context->worker_count; i++) {
        KB_TRY(kb_worker_init(&context->workers[i], i));
    }
    return 0;
}

static void stop_listeners(void *arg, bool inbound_only)
{
    kb_listener_manager_stop_accepting(KB_CAST(arg, kb_server)->listeners, inbound_only);
}

static void reopen_logs(void *arg)
{
    (void)arg;
    kb_access_log_reopen_all();
    kb_log_reopen();
}

static const struct kb_lifecycle_ops lifecycle_ops = {stop_listeners, reopen_logs};

static void runtime_log(const struct kb_server *server)
{
    const Envoy__Config__Bootstrap__V3__LayeredRuntime *message =
        server->bootstrap.message->layered_runtime;
    struct kb_json_out json;

    if (kb_log_levels[KB_LOG_MAIN] > KB_LOG_INFO) {
        return;
    }
    kb_json_out_init(&json, 4096);
    if (message != NULL) {
        kb_pb_json_write(&json, &message->base, 0, 0);
    }
    KB_LOG(MAIN, INFO, "runtime: %.*s", json.len > 0 ? (int)json.len : 2,
           json.len > 0 ? json.p : "{}");
    kb_json_out_dispose(&json);
}

static void stats_configure(struct kb_server *server)
{
    const struct kb_options *options = server->options;
    struct kb_tag tags[KB_OPTIONS_STATS_TAGS_MAX];

    for (size_t i = 0; i < options->stats_tag_count; i++) {
        tags[i].name = options->stats_tags[i].name;
        tags[i].value = options->stats_tags[i].value;
    }
    kb_diag_push(&server->diag, "stats_config");
    /* What is wrong is in diag, with all the rest. */
    if (kb_stat_store_configure(server->context.stats, server->bootstrap.message->stats_config,
                                tags, options->stats_tag_count, &server->diag) != 0) {
        KB_LOG(CONFIG, DEBUG, "stats_config was refused");
    }
    kb_diag_pop(&server->diag);
}

/* Clusters whose hosts come over xDS are built after those that xDS may come over. */
static bool is_eds(const Envoy__Config__Cluster__V3__Cluster *cluster)
{
    return cluster->cluster_discovery_type_case ==
               ENVOY__CONFIG__CLUSTER__V3__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE &&
           cluster->type == ENVOY__CONFIG__CLUSTER__V3__CLUSTER__DISCOVERY_TYPE__EDS;
}

static void
clusters_build(struct kb_server *server,
               const Envoy__Config__Bootstrap__V3__Bootstrap__StaticResources *resources, bool eds)
{
    size_t count = resources != NULL ? resources->n_clusters : 0;

    for (size_t i = 0; i < count; i++) {
        if (is_eds(resources->clusters[i]) != eds) {
            continue;
        }
        kb_diag_push_index(&server->diag, "clusters", i);
        if (kb_cluster_manager_add(server->context.clusters, resources->clusters[i], false,
                                   &server->diag) != 0) {
            KB_LOG(CONFIG, DEBUG, "cluster '%s' was refused", resources->clusters[i]->name);
        }
        kb_diag_pop(&server->diag);
    }
}

static void
listeners_build(struct kb_server *server,
                const Envoy__Config__Bootstrap__V3__Bootstrap__StaticResources *resources)
{
    size_t count = resources != NULL ? resources->n_listeners : 0;

    KB_LOG(CONFIG, INFO, "loading %zu listener(s)", count);
    server->listeners = kb_listener_manager_create(&server->context);
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(&server->diag, "listeners", i);
        if (kb_listener_manager_add(server->listeners, resources->listeners[i], &server->diag) !=
            0) {
            KB_LOG(CONFIG, DEBUG, "listener '%s' was refused", resources->listeners[i]->name);
        }
        kb_diag_pop(&server->diag);
    }
}

static void secrets_build(struct kb_server *server,
                          const Envoy__Config__Bootstrap__V3__Bootstrap__StaticResources *resources)
{
    size_t count = resources != NULL ? resources->n_secrets : 0;

    KB_LOG(CONFIG, INFO, "loading %zu static secret(s)", count);
    server->context.secrets = kb_secret_manager_create(&server->context);
    kb_diag_push(&server->diag, "static_resources");
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(&server->diag, "secrets", i);
        if (kb_secret_manager_add_static(server->context.secrets, resources->secrets[i],
                                         &server->diag) != 0) {
            KB_LOG(CONFIG, DEBUG, "secret '%s' was refused", resources->secrets[i]->name);
        }
        kb_diag_pop(&server->diag);
    }
    kb_diag_pop(&server->diag);
}

/* The subscriptions of the bootstrap; they begin when the static clusters stand. */
static void dynamic_build(struct kb_server *server)
{
    const Envoy__Config__Bootstrap__V3__Bootstrap__DynamicResources *dynamic =
        server->bootstrap.message->dynamic_resources;

    if (dynamic == NULL) {
        return;
    }
    kb_diag_push(&server->diag, "dynamic_resources");
    if (dynamic->cds_config != NULL) {
        kb_diag_push(&server->diag, "cds_config");
        server->cds = kb_cds_api_create(&server->context, dynamic->cds_config, &server->diag);
        kb_diag_pop(&server->diag);
    }
    if (dynamic->lds_config != NULL) {
        kb_diag_push(&server->diag, "lds_config");
        server->lds = kb_lds_api_create(&server->context, server->listeners, dynamic->lds_config,
                                        &server->diag);
        kb_diag_pop(&server->diag);
    }
    kb_diag_pop(&server->diag);
}

static void admin_build(struct kb_server *server)
{
    const Envoy__Config__Bootstrap__V3__Admin *message = server->bootstrap.message->admin;
    struct kb_admin_sources sources;

    if (message == NULL || message->address == NULL) {
        KB_LOG(MAIN, WARNING, "No admin address given, so no admin HTTP server started.");
        return;
    }
    memset(&sources, 0, sizeof(sources));
    kb_admin_glue_fill(server, &sources);
    server->admin = kb_admin_create(&sources, server->context.stats);
    kb_diag_push(&server->diag, "admin");
    server->admin_listener =
        kb_admin_listener_create(&server->context, server->admin, message, &server->diag);
    kb_diag_pop(&server->diag);
}

/* Builds all rooms from the message. Errors are in diag; what is built is taken down by
 * server_dispose. */
static void server_build(struct kb_server *server)
{
    const Envoy__Config__Bootstrap__V3__Bootstrap *message = server->bootstrap.message;
    struct kb_diag *diag = &server->diag;

    kb_bootstrap_apply_log_config(&server->bootstrap, server->options, diag);
    kb_bootstrap_check(&server->bootstrap, server->options, diag);
    context_fill(server);
    if (workers_create(server) != 0) {
        kb_diag_error(diag, "the event loops could not be made: %s; too many open files?",
                      strerror(errno));
        return;
    }
    server->context.stats = kb_stat_store_create(server->context.worker_count);
    kb_log_file_init(&server->context);
    kb_lifecycle_init(&server->lifecycle, &server->context, &lifecycle_ops, server);
    server->stats = kb_server_stats_create(&server->context, &server->lifecycle, message);
    server->context.files = kb_file_watcher_create(&server->main.loop);
    runtime_log(server);
    kb_diag_push(diag, "overload_manager");
    server->overload = kb_overload_create(&server->context, message->overload_manager,
                                          kb_options_max_memory(server->options), diag);
    kb_diag_pop(diag);
    kb_diag_push(diag, "layered_runtime");
    server->context.runtime = kb_runtime_create(message->layered_runtime, &server->context, diag);
    kb_diag_pop(diag);
    admin_build(server);
    KB_LOG(CONFIG, INFO, "loading tracing configuration");
    kb_init_manager_init(&server->init);
    server->context.init = &server->init;
    server->context.xds = kb_xds_glue_create(&server->context, message, server->bootstrap.node,
                                             server->options, &server->unsupported, diag);
    secrets_build(server, message->static_resources);
    server->context.clusters = kb_cluster_manager_create(&server->context);
    kb_cluster_manager_configure(server->context.clusters, message, diag);
    kb_outlier_log_configure(&server->context, message, diag);
    kb_diag_push(diag, "static_resources");
    KB_LOG(CONFIG, INFO, "loading %zu cluster(s)",
           message->static_resources != NULL ? message->static_resources->n_clusters : 0);
    clusters_build(server, message->static_resources, false);
    clusters_build(server, message->static_resources, true);
    listeners_build(server, message->static_resources);
    kb_diag_pop(diag);
    dynamic_build(server);
    KB_LOG(CONFIG, INFO, "loading stats configuration");
    stats_configure(server);
    kb_stat_sinks_configure(&server->context, message, diag);
    kb_server_stats_unknown_fields(server->stats, kb_bootstrap_log_warnings(server->options, diag));
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

static void server_dispose(struct kb_server *server)
{
    struct kb_server_context *context = &server->context;

    kb_watchdog_destroy(server->watchdog);
    kb_overload_destroy(server->overload);
    if (server->admin_listener != NULL) {
        kb_listener_unref(server->admin_listener);
    }
    if (context->init != NULL) {
        kb_init_manager_dispose(context->init); /* whoever waited waits no more */
    }
    kb_lds_api_destroy(server->lds);
    kb_cds_api_destroy(server->cds);
    if (server->listeners != NULL) {
        kb_listener_manager_destroy(server->listeners);
    }
    kb_admin_destroy(server->admin);
    if (context->clusters != NULL) {
        kb_cluster_manager_destroy(context->clusters);
        context->clusters = NULL;
    }
    if (server->main_ready) {
        kb_loop_run_once(&server->main.loop, false); /* streams of subscriptions that are gone */
    }
    kb_secret_manager_destroy(context->secrets);
    if (context->xds != NULL) {
        kb_xds_glue_destroy(context->xds);
        kb_file_watcher_destroy(context->files);
    }
    kb_log_file_dispose_all();
    kb_runtime_destroy(context->runtime);
    kb_stat_sinks_dispose();
    kb_server_stats_destroy(server->stats);
    if (server->main_ready) {
        kb_lifecycle_dispose(&server->lifecycle);
        for (uint32_t i = 0; i < context->worker_count; i++) {
            if (context->workers[i].kb_magic != 0) {
                kb_worker_dispose(&context->workers[i]);
            }
        }
        kb_worker_dispose(&server->main);
    }
    free(context->workers);
    if (context->stats != NULL) {
        kb_stat_store_destroy(context->stats);
    }
    kb_unsupported_dispose(&server->unsupported);
    kb_diag_dispose(&server->diag);
    kb_bootstrap_dispose(&server->bootstrap);
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
        server_build(&server);
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
    server_dispose(&server);
    if (options->mode != KB_MODE_VALIDATE) {
        KB_LOG(MAIN, INFO, "exiting");
    }
    return server.exit_code;
}
