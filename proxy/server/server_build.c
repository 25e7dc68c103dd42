/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that a process has, made from its bootstrap in the order in which one needs the other,
 * and taken down in the other. Nothing here opens a port or starts a thread. */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/pb_json.h"
#include "proxy/access_log/log_file.h"
#include "proxy/api/access_logger.h"
#include "proxy/api/secret.h"
#include "proxy/server/admin_filter.h"
#include "proxy/server/admin_glue.h"
#include "proxy/server/outlier_log.h"
#include "proxy/server/server_internal.h"
#include "proxy/server/stat_sinks.h"
#include "proxy/stats/stat_store.h"
#include "proxy/stats/tag_extract.h"
#include "proxy/upstream/cluster_manager.h"

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

void kb_server_build(struct kb_server *server)
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

void kb_server_dispose(struct kb_server *server)
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
