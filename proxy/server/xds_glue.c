/* SPDX-License-Identifier: Apache-2.0 */
/* Subscriptions: config source to stream or file, the wait for the first answer, and the counting
 * that is the same for all of them (Envoy GrpcSubscriptionImpl, FilesystemSubscriptionImpl). */
#include "proxy/server/xds_glue_internal.h"

#include <stdlib.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/wkt.h"
#include "proxy/stats/stat_store.h"
#include "xds/xds_fs.h"

#define SOURCE(name) ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_##name

#define INITIAL_FETCH_TIMEOUT_MS 15000

const enum kb_xds_type kb_xds_type_of[KB_RESOURCE_TYPE_COUNT] = {
    [KB_RESOURCE_LISTENER] = KB_XDS_LISTENER,
    [KB_RESOURCE_ROUTE_CONFIGURATION] = KB_XDS_ROUTE_CONFIGURATION,
    [KB_RESOURCE_CLUSTER] = KB_XDS_CLUSTER,
    [KB_RESOURCE_CLUSTER_LOAD_ASSIGNMENT] = KB_XDS_CLUSTER_LOAD_ASSIGNMENT,
    [KB_RESOURCE_SECRET] = KB_XDS_SECRET,
    [KB_RESOURCE_EXTENSION_CONFIG] = KB_XDS_EXTENSION_CONFIG,
};

static void wait_end(struct kb_subscription *subscription)
{
    kb_loop_timer_cancel(&subscription->glue->server->main->loop, &subscription->timeout);
}

/* ---- The process's part ---- */

static void ads_create(struct kb_xds_glue *glue,
                       const Envoy__Config__Core__V3__ApiConfigSource *message,
                       struct kb_diag *diag)
{
    kb_diag_push(diag, "dynamic_resources");
    kb_diag_push(diag, "ads_config");
    glue->ads_source = kb_xds_source_make(glue, message, diag);
    kb_diag_pop(diag);
    kb_diag_pop(diag);
    if (glue->ads_source == NULL) {
        return;
    }
    glue->control_plane = kb_stat_group_create(glue->server->stats, KB_STR("control_plane."),
                                               &kb_stat_schema_control_plane);
    glue->control_plane_stats = kb_stat_group_block(glue->control_plane, glue->server->main->index);
    kb_stat_gauge_set(glue->control_plane_stats, KB_STAT_CONTROL_PLANE_CONNECTED_STATE, 0);
    kb_stat_text_set(glue->server->stats, KB_STR("control_plane.identifier"), KB_STR(""));
    glue->ads = kb_xds_mux_make(
        glue, glue->ads_source,
        glue->ads_source->delta ? KB_XDS_ADS_DELTA_METHOD : KB_XDS_ADS_SOTW_METHOD, true);
}

struct kb_xds_glue *kb_xds_glue_create(struct kb_server_context *server,
                                       const Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap,
                                       Envoy__Config__Core__V3__Node *node,
                                       const struct kb_options *options,
                                       struct kb_unsupported *unsupported, struct kb_diag *diag)
{
    struct kb_xds_glue *glue = kb_calloc(1, sizeof(*glue));
    const Envoy__Config__Bootstrap__V3__Bootstrap__DynamicResources *dynamic =
        bootstrap->dynamic_resources;

    KB_OBJ_SET(glue, kb_xds_glue);
    glue->server = server;
    glue->unsupported = unsupported;
    glue->bootstrap = bootstrap;
    glue->node = node;
    kb_list_init(&glue->subscriptions);
    kb_xds_push_log_init(&glue->pushes);
    glue->unknown_fields_refused = options->reject_unknown_dynamic_fields;
    glue->unknown_fields_ignored = options->ignore_unknown_dynamic_fields;
    glue->deprecated_fields_quiet = options->skip_deprecated_logs;
    glue->server_group =
        kb_stat_group_create(server->stats, KB_STR("server."), &kb_stat_schema_server);
    if (options->config_cache.len > 0) {
        struct kb_arena arena;

        kb_arena_init(&arena, NULL);
        glue->cache = kb_config_cache_create(&server->main->loop, options->config_cache,
                                             kb_str_printf(&arena, "%.*s/%.*s",
                                                           KB_STR_ARG(server->node_cluster),
                                                           KB_STR_ARG(server->node_id)));
        kb_arena_dispose(&arena);
    }
    if (dynamic != NULL && dynamic->ads_config != NULL) {
        ads_create(glue, dynamic->ads_config, diag);
    }
    return glue;
}

void kb_xds_glue_start(struct kb_xds_glue *glue)
{
    if (glue->ads != NULL) {
        kb_xds_mux_start(glue->ads);
    }
}

void kb_xds_glue_stop(struct kb_xds_glue *glue)
{
    if (glue == NULL) {
        return;
    }
    glue->stopped = true;
    if (glue->ads != NULL) {
        kb_xds_mux_stop(glue->ads);
    }
    KB_LIST_FOREACH (link, &glue->subscriptions) {
        struct kb_subscription *subscription = KB_LIST_ENTRY(link, struct kb_subscription, link);

        wait_end(subscription);
        if (subscription->source != NULL) {
            kb_xds_mux_stop(subscription->mux);
        }
    }
}

void kb_xds_glue_destroy(struct kb_xds_glue *glue)
{
    if (glue == NULL) {
        return;
    }
    kb_config_cache_destroy(glue->cache);
    kb_xds_mux_destroy(glue->ads);
    kb_xds_source_free(glue->ads_source);
    kb_xds_push_log_dispose(&glue->pushes);
    kb_stat_group_destroy(glue->control_plane);
    kb_stat_group_destroy(glue->server_group);
    KB_OBJ_CLEAR(glue);
    free(glue);
}

/* ---- Subscriptions: counting ---- */

#define COUNT(subscription, ID, member)                                    \
    do {                                                                   \
        if ((subscription)->counts != NULL) {                              \
            (subscription)->counts->member++;                              \
        }                                                                  \
        if ((subscription)->stats != NULL) {                               \
            kb_stat_inc((subscription)->stats, KB_STAT_SUBSCRIPTION_##ID); \
        }                                                                  \
    } while (0)

static void success_count(struct kb_subscription *subscription, struct kb_str version,
                          uint64_t duration_ms)
{
    uint64_t hash = XXH64(version.p, version.len, 0);
    uint64_t now_ms = kb_clock_wall_ns() / 1000000;

    COUNT(subscription, UPDATE_SUCCESS, update_success);
    if (subscription->counts != NULL) {
        subscription->counts->update_time_ms = now_ms;
        subscription->counts->version = hash;
    }
    if (subscription->stats != NULL) {
        kb_stat_gauge_set(subscription->stats, KB_STAT_SUBSCRIPTION_UPDATE_TIME, now_ms);
        kb_stat_gauge_set(subscription->stats, KB_STAT_SUBSCRIPTION_VERSION, hash);
        kb_stat_record(subscription->stats, KB_STAT_SUBSCRIPTION_UPDATE_DURATION, duration_ms);
        kb_stat_text_put(subscription->version_text, version);
    }
}

static void stats_create(struct kb_subscription *subscription, const char *prefix)
{
    struct kb_stat_store *store = subscription->glue->server->stats;
    struct kb_arena arena;
    struct kb_str name;

    kb_arena_init(&arena, NULL);
    name = kb_str_printf(&arena, "%sversion_text", prefix);
    subscription->version_text = kb_stat_text_hold(store, name);
    kb_arena_dispose(&arena);
    subscription->group =
        kb_stat_group_create(store, kb_str_from_cstr(prefix), &kb_stat_schema_subscription);
    subscription->stats =
        kb_stat_group_block(subscription->group, subscription->glue->server->main->index);
    kb_stat_gauge_set(subscription->stats, KB_STAT_SUBSCRIPTION_UPDATE_TIME, 0);
    kb_stat_gauge_set(subscription->stats, KB_STAT_SUBSCRIPTION_VERSION, 0);
}

/* ---- Subscriptions: what the machines tell ---- */

static void subscription_free(struct kb_subscription *subscription)
{
    kb_xds_shown_clear(subscription);
    kb_xds_source_free(subscription->source);
    kb_stat_group_destroy(subscription->group);
    if (subscription->version_text != NULL) {
        kb_stat_text_release(subscription->glue->server->stats, subscription->version_text);
    }
    KB_OBJ_CLEAR(subscription);
    free(subscription);
}

static void busy_end(struct kb_subscription *subscription)
{
    if (--subscription->busy == 0 && subscription->destroyed) {
        subscription_free(subscription);
    }
}

/* What is set and not implemented in resources that were taken. */
static void unsupported_note(const struct kb_subscription *subscription,
                             const struct kb_xds_update *update)
{
    const char *type = strrchr(kb_xds_types[subscription->type].url, '.') + 1;

    for (size_t i = 0; i < update->resource_count; i++) {
        if (update->resources[i].message != NULL) {
            kb_unsupported_walk(subscription->glue->unsupported, update->resources[i].message,
                                kb_str_from_cstr(type));
        }
    }
}

static void watch_update(void *arg, const struct kb_xds_update *update, struct kb_diag *diag)
{
    struct kb_subscription *subscription = KB_CAST(arg, kb_subscription);
    struct kb_xds_update whole = *update;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    subscription->heard = true;
    subscription->glue->unreachable = false;
    if (subscription->from_cache) {
        kb_xds_cache_left(subscription, &whole, &arena);
    }
    kb_xds_answer_take(subscription, &whole, diag);
    kb_arena_dispose(&arena);
}

void kb_xds_answer_take(struct kb_subscription *subscription, const struct kb_xds_update *update,
                        struct kb_diag *diag)
{
    uint64_t wall_ns = kb_clock_wall_ns();
    uint64_t started_ns = kb_clock_mono_ns();
    uint32_t errors = diag->error_count;
    struct kb_resource_update said;
    struct kb_resource *resources;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    resources = kb_arena_alloc(&arena, update->resource_count * sizeof(*resources),
                               _Alignof(struct kb_resource));
    for (size_t i = 0; i < update->resource_count; i++) {
        resources[i].name = update->resources[i].name;
        resources[i].version = update->resources[i].version;
        resources[i].message = update->resources[i].message;
        resources[i].received_wall_ns = wall_ns;
    }
    said.resources = resources;
    said.resource_count = update->resource_count;
    said.removed = update->removed;
    said.removed_count = update->removed_count;
    said.version = update->version;
    said.state_of_the_world = update->state_of_the_world;
    subscription->busy++;
    wait_end(subscription);
    if (!update->state_of_the_world) { /* Envoy counts these whatever comes of them */
        COUNT(subscription, UPDATE_ATTEMPT, update_attempt);
    }
    subscription->callbacks->on_update(subscription->arg, &said, diag);
    if (!subscription->destroyed && diag->error_count == errors) {
        if (update->resource_count == 1) {
            kb_xds_shown_keep(subscription, &resources[0]);
        }
        unsupported_note(subscription, update);
        if (!subscription->from_cache) {
            kb_xds_cache_keep(subscription, update);
        }
        if (update->state_of_the_world) {
            COUNT(subscription, UPDATE_ATTEMPT, update_attempt);
        }
        success_count(subscription, update->version, (kb_clock_mono_ns() - started_ns) / 1000000);
    }
    kb_arena_dispose(&arena);
    busy_end(subscription);
}

static void failure_tell(struct kb_subscription *subscription, enum kb_subscription_failure failure)
{
    COUNT(subscription, UPDATE_ATTEMPT, update_attempt);
    subscription->busy++;
    if (subscription->callbacks->on_failure != NULL) {
        subscription->callbacks->on_failure(subscription->arg, failure);
    }
    busy_end(subscription);
}

static void watch_failure(void *arg, enum kb_xds_failure failure)
{
    struct kb_subscription *subscription = KB_CAST(arg, kb_subscription);

    if (failure == KB_XDS_FAILURE_CONNECTION) {
        COUNT(subscription, UPDATE_FAILURE, update_failure);
        subscription->glue->unreachable = subscription->glue->unreachable || !subscription->heard;
        if (kb_xds_cache_serve(subscription)) {
            return;
        }
        failure_tell(subscription, KB_SUBSCRIPTION_CONNECTION);
        return;
    }
    wait_end(subscription);
    if (failure == KB_XDS_FAILURE_UNREADABLE) {
        COUNT(subscription, UPDATE_FAILURE, update_failure);
    } else {
        COUNT(subscription, UPDATE_REJECTED, update_rejected);
    }
    failure_tell(subscription, KB_SUBSCRIPTION_REJECTED);
}

static const struct kb_xds_watch_callbacks watch_callbacks = {watch_update, watch_failure};

static void timed_out(struct kb_timer *timer)
{
    struct kb_subscription *subscription = KB_CONTAINER_OF(timer, struct kb_subscription, timeout);

    KB_LOG(CONFIG, WARNING, "gRPC config: initial fetch timed out for %s%s%s",
           kb_xds_types[subscription->type].url, subscription->name[0] != '\0' ? " " : "",
           subscription->name);
    COUNT(subscription, INIT_FETCH_TIMEOUT, init_fetch_timeout);
    failure_tell(subscription, KB_SUBSCRIPTION_FETCH_TIMEOUT);
}

/* ---- Subscriptions: lifecycle ---- */

static void file_source(struct kb_subscription *subscription, struct kb_str path,
                        struct kb_str watched_directory, struct kb_diag *diag)
{
    struct kb_xds_fs_options options;

    memset(&options, 0, sizeof(options));
    options.files = subscription->glue->server->files;
    options.type = subscription->type;
    options.name = kb_str_from_cstr(subscription->name);
    options.path = path;
    options.watched_directory = watched_directory;
    options.unknown_fields_refused = subscription->glue->unknown_fields_refused;
    options.pushes = &subscription->glue->pushes;
    options.callbacks = &watch_callbacks;
    options.arg = subscription;
    subscription->file = kb_xds_fs_create(&options, diag);
}

static void api_source(struct kb_subscription *subscription,
                       const Envoy__Config__Core__V3__ApiConfigSource *message,
                       struct kb_diag *diag)
{
    const struct kb_xds_type_info *type = &kb_xds_types[subscription->type];

    subscription->source = kb_xds_source_make(subscription->glue, message, diag);
    if (subscription->source != NULL) {
        subscription->mux = kb_xds_mux_make(
            subscription->glue, subscription->source,
            subscription->source->delta ? type->delta_method : type->sotw_method, false);
    }
}

/* Errors are in diag. */
static void source_choose(struct kb_subscription *subscription,
                          const Envoy__Config__Core__V3__ConfigSource *source, struct kb_diag *diag)
{
    const Envoy__Config__Core__V3__PathConfigSource *path = source->path_config_source;

    switch (source->config_source_specifier_case) {
    case SOURCE(ADS):
        subscription->mux = subscription->glue->ads;
        if (subscription->mux == NULL) {
            kb_diag_error_hint(diag, KB_STR("set dynamic_resources.ads_config in the bootstrap"),
                               "ADS must be configured to support an ADS config source");
        }
        break;
    case SOURCE(API_CONFIG_SOURCE):
        kb_diag_push(diag, "api_config_source");
        api_source(subscription, source->api_config_source, diag);
        kb_diag_pop(diag);
        break;
    case SOURCE(PATH):
        file_source(subscription, kb_str_from_cstr(source->path), KB_STR_NULL, diag);
        break;
    case SOURCE(PATH_CONFIG_SOURCE):
        kb_diag_push(diag, "path_config_source");
        file_source(subscription, kb_str_from_cstr(path->path),
                    path->watched_directory != NULL
                        ? kb_str_from_cstr(path->watched_directory->path)
                        : KB_STR_NULL,
                    diag);
        kb_diag_pop(diag);
        break;
    case SOURCE(SELF): /* the source from which the containing resource came */
        subscription->mux = subscription->glue->ads;
        if (subscription->mux == NULL) {
            kb_diag_error(diag, "self is implemented for resources that came over ADS");
        }
        break;
    case ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER__NOT_SET:
    default:
        kb_diag_error(diag, "Missing config source specifier in envoy.config.core.v3.ConfigSource");
        break;
    }
}

struct kb_subscription *kb_subscription_create(struct kb_server_context *server,
                                               const struct kb_subscription_options *options,
                                               struct kb_diag *diag)
{
    struct kb_subscription *subscription;
    uint32_t errors = diag->error_count;

    if (options->source == NULL) {
        kb_diag_error(diag, "value is required");
        return NULL;
    }
    subscription = kb_calloc(1, sizeof(*subscription) + options->name.len + 1);
    KB_OBJ_SET(subscription, kb_subscription);
    subscription->glue = KB_CAST(server->xds, kb_xds_glue);
    kb_list_push_back(&subscription->glue->subscriptions, &subscription->link);
    subscription->callbacks = options->callbacks;
    subscription->arg = options->arg;
    subscription->type = kb_xds_type_of[options->type];
    if (options->name.len > 0) {
        memcpy(subscription->name, options->name.p, options->name.len);
    }
    kb_xds_shown_init(subscription);
    subscription->counts = options->counts;
    subscription->timeout_ms =
        kb_wkt_duration_ms(options->source->initial_fetch_timeout, INITIAL_FETCH_TIMEOUT_MS);
    kb_timer_init(&subscription->timeout, timed_out);
    source_choose(subscription, options->source, diag);
    if (diag->error_count != errors) {
        kb_subscription_destroy(subscription);
        return NULL;
    }
    if (options->stat_prefix != NULL) {
        stats_create(subscription, options->stat_prefix);
    }
    return subscription;
}

struct kb_str kb_subscription_name(const struct kb_subscription *subscription)
{
    return kb_str_from_cstr(subscription->name);
}

void kb_subscription_start(struct kb_subscription *subscription)
{
    if (subscription->file != NULL) {
        kb_xds_fs_start(subscription->file);
        return;
    }
    if (subscription->timeout_ms > 0) {
        kb_loop_timer_arm(&subscription->glue->server->main->loop, &subscription->timeout,
                          subscription->timeout_ms);
    }
    COUNT(subscription, UPDATE_ATTEMPT, update_attempt);
    subscription->watch =
        kb_xds_mux_watch(subscription->mux, subscription->type,
                         kb_str_from_cstr(subscription->name), &watch_callbacks, subscription);
    if (subscription->source != NULL && !subscription->glue->stopped) {
        kb_xds_mux_start(subscription->mux);
    }
    if (subscription->glue->unreachable) {
        (void)kb_xds_cache_serve(subscription);
    }
}

void kb_subscription_destroy(struct kb_subscription *subscription)
{
    if (subscription == NULL) {
        return;
    }
    wait_end(subscription);
    kb_list_unlink(&subscription->link);
    kb_xds_cache_forget(subscription);
    if (subscription->watch != NULL) {
        kb_xds_mux_unwatch(subscription->mux, subscription->watch);
    }
    kb_xds_own_mux_destroy(subscription);
    kb_xds_fs_destroy(subscription->file);
    subscription->watch = NULL;
    subscription->mux = NULL;
    subscription->file = NULL;
    subscription->destroyed = true;
    subscription->counts = NULL;
    if (subscription->busy == 0) {
        subscription_free(subscription);
    }
}

void kb_subscriptions_pause(struct kb_server_context *server, enum kb_resource_type type)
{
    if (server->xds != NULL && server->xds->ads != NULL) {
        kb_xds_mux_pause(server->xds->ads, kb_xds_type_of[type]);
    }
}

void kb_subscriptions_resume(struct kb_server_context *server, enum kb_resource_type type)
{
    if (server->xds != NULL && server->xds->ads != NULL) {
        kb_xds_mux_resume(server->xds->ads, kb_xds_type_of[type]);
    }
}
