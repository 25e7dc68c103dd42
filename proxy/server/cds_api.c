/* SPDX-License-Identifier: Apache-2.0 */
/* CDS: partial application as Envoy does it. Good clusters of a response are taken, all removals
 * are done, and the answer names the bad ones. */
#include "proxy/server/cds_api.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/server/resource_errors.h"
#include "proxy/stats/stat_store.h"
#include "proxy/upstream/cluster_manager.h"

struct kb_cds_api {
    KB_OBJ;
    struct kb_server_context *server;
    struct kb_subscription *subscription;
    struct kb_stat_named *config_reload;
    struct kb_stat_named *config_reload_time_ms;
    void (*initialized)(void *arg);
    void *arg;
    char *version;
    struct kb_map versions; /* cluster name -> struct cluster_version */
    bool live;              /* the first answer and all that it needed is over */
    bool paused;            /* a cluster is warming */
};
KB_OBJ_MAGIC(kb_cds_api, 0x43445341);

struct cluster_version {
    struct kb_str name; /* behind the struct */
    char *version;
};

/* One response on its way in. */
struct application {
    struct kb_cds_api *api;
    struct kb_resource_errors errors;
    struct kb_map names; /* in the response */
    struct kb_arena arena;
    unsigned added, skipped, removed;
};

static void version_keep(struct kb_cds_api *api, struct kb_str name, struct kb_str text)
{
    struct cluster_version *version = kb_map_get(&api->versions, name);

    if (version == NULL) {
        version = kb_calloc(1, sizeof(*version) + name.len + 1);
        memcpy(version + 1, name.p, name.len);
        version->name = kb_str_make((char *)(version + 1), name.len);
        kb_map_put(&api->versions, version->name, version);
    }
    free(version->version);
    version->version = kb_str_to_cstr(text);
}

static void version_drop(struct kb_cds_api *api, struct kb_str name)
{
    struct cluster_version *version = kb_map_remove(&api->versions, name);

    if (version != NULL) {
        free(version->version);
        free(version);
    }
}

static void cluster_add(struct application *app, const struct kb_resource *resource,
                        struct kb_diag *diag)
{
    const Envoy__Config__Cluster__V3__Cluster *message = resource->message;
    struct kb_str name = kb_str_from_cstr(message->name);
    struct kb_diag sub;
    int rc;

    if (kb_map_put(&app->names, name, app) != NULL) {
        kb_resource_errors_add(
            &app->errors, name,
            kb_str_printf(&app->arena, "duplicate cluster %.*s found", KB_STR_ARG(name)));
        return;
    }
    kb_diag_init(&sub);
    sub.unknown_fields_warn = diag->unknown_fields_warn;
    rc = kb_cluster_manager_add(app->api->server->clusters, message, true, &sub);
    kb_resource_errors_take(&app->errors, name, &sub, diag);
    kb_diag_dispose(&sub);
    if (rc == 0) {
        KB_LOG(UPSTREAM, DEBUG, "cds: add/update cluster '%.*s'", KB_STR_ARG(name));
        version_keep(app->api, name, resource->version);
        app->added++;
    } else if (rc > 0) {
        app->skipped++;
    }
}

static void cluster_remove(struct application *app, struct kb_str name)
{
    if (kb_cluster_manager_remove(app->api->server->clusters, name) == 0) {
        KB_LOG(UPSTREAM, DEBUG, "cds: remove cluster '%.*s'", KB_STR_ARG(name));
        version_drop(app->api, name);
        app->removed++;
    }
}

struct absent {
    struct application *app;
    struct kb_str *names;
    size_t len;
    size_t cap;
};

static void absent_visit(void *arg, const struct kb_cluster_entry *entry)
{
    struct absent *absent = arg;
    struct kb_str name = entry->cluster->api.name;

    if (!entry->cluster->api.added_via_api || kb_map_get(&absent->app->names, name) != NULL) {
        return;
    }
    if (absent->len == absent->cap) {
        absent->cap = KB_MAX(absent->cap * 2, (size_t)64);
        absent->names = kb_realloc(absent->names, absent->cap * sizeof(*absent->names));
    }
    absent->names[absent->len++] = kb_str_dup(&absent->app->arena, name);
}

/* State of the world: what is not in the response is gone. By the names in the resources, as those
 * of heartbeats have no message. */
static void absent_remove(struct application *app, const struct kb_resource_update *update)
{
    struct absent absent = {app, NULL, 0, 0};

    for (size_t i = 0; i < update->resource_count; i++) {
        kb_map_put(&app->names, update->resources[i].name, app);
    }
    kb_cluster_manager_visit(app->api->server->clusters, true, absent_visit, &absent);
    for (size_t i = 0; i < absent.len; i++) {
        cluster_remove(app, absent.names[i]);
    }
    free(absent.names);
}

static void initialized_tell(struct kb_cds_api *api)
{
    void (*initialized)(void *arg) = api->initialized;

    api->initialized = NULL;
    if (initialized != NULL) {
        initialized(api->arg);
    }
}

static void warmed(void *arg)
{
    struct kb_cds_api *api = KB_CAST(arg, kb_cds_api);

    if (api->paused) {
        api->paused = false;
        kb_subscriptions_resume(api->server, KB_RESOURCE_CLUSTER);
    }
}

/* The next answer waits until all clusters of this response are warm. Not during start: then the
 * first answer is said at once. */
static void warming_wait(struct kb_cds_api *api)
{
    if (!api->live || api->paused) {
        return;
    }
    api->paused = true;
    kb_subscriptions_pause(api->server, KB_RESOURCE_CLUSTER);
    kb_cluster_manager_when_warm(api->server->clusters, warmed, api);
}

static void update_apply(struct application *app, const struct kb_resource_update *update,
                         struct kb_diag *diag)
{
    KB_LOG(UPSTREAM, INFO,
           "cds: response indicates %zu added/updated cluster(s), %zu removed cluster(s); applying "
           "changes",
           update->resource_count, update->removed_count);
    kb_subscriptions_pause(app->api->server, KB_RESOURCE_CLUSTER_LOAD_ASSIGNMENT);
    kb_subscriptions_pause(app->api->server, KB_RESOURCE_SECRET);
    for (size_t i = 0; i < update->resource_count; i++) {
        if (update->resources[i].message != NULL) {
            cluster_add(app, &update->resources[i], diag);
        }
    }
    if (update->state_of_the_world) {
        absent_remove(app, update);
    }
    for (size_t i = 0; i < update->removed_count; i++) {
        cluster_remove(app, update->removed[i]);
    }
    KB_LOG(UPSTREAM, INFO,
           "cds: added/updated %u cluster(s) (skipped %u unmodified cluster(s)); removed %u "
           "cluster(s)",
           app->added, app->skipped, app->removed);
    warming_wait(app->api);
    kb_subscriptions_resume(app->api->server, KB_RESOURCE_CLUSTER_LOAD_ASSIGNMENT);
    kb_subscriptions_resume(app->api->server, KB_RESOURCE_SECRET);
}

static void cds_update(void *arg, const struct kb_resource_update *update, struct kb_diag *diag)
{
    struct kb_cds_api *api = KB_CAST(arg, kb_cds_api);
    struct application app;

    memset(&app, 0, sizeof(app));
    app.api = api;
    kb_arena_init(&app.arena, NULL);
    kb_map_init(&app.names);
    kb_resource_errors_init(&app.errors, &app.arena);
    update_apply(&app, update, diag);
    if (app.added > 0 || app.removed > 0) {
        free(api->version);
        api->version = kb_str_to_cstr(update->version);
    }
    if (app.errors.count > 0) {
        struct kb_str text = kb_resource_errors_text(&app.errors, ", ");

        kb_diag_error(diag, "Error adding/updating cluster(s) %.*s", KB_STR_ARG(text));
    } else if (app.added > 0) {
        kb_stat_named_add(api->config_reload, api->server->main->index, 1);
        kb_stat_named_set(api->config_reload_time_ms, api->server->main->index,
                          kb_loop_wall_ns(&api->server->main->loop) / 1000000);
    }
    kb_map_dispose(&app.names);
    kb_arena_dispose(&app.arena);
    initialized_tell(api);
}

static void cds_failure(void *arg, enum kb_subscription_failure failure)
{
    if (failure != KB_SUBSCRIPTION_CONNECTION) {
        initialized_tell(KB_CAST(arg, kb_cds_api));
    }
}

static const struct kb_subscription_callbacks cds_callbacks = {cds_update, cds_failure};

struct kb_cds_api *kb_cds_api_create(struct kb_server_context *server,
                                     const struct Envoy__Config__Core__V3__ConfigSource *source,
                                     struct kb_diag *diag)
{
    struct kb_cds_api *api = kb_calloc(1, sizeof(*api));
    const struct kb_subscription_options options = {
        .type = KB_RESOURCE_CLUSTER,
        .source = source,
        .stat_prefix = "cluster_manager.cds.",
        .callbacks = &cds_callbacks,
        .arg = api,
    };

    KB_OBJ_SET(api, kb_cds_api);
    api->server = server;
    kb_map_init(&api->versions);
    api->subscription = kb_subscription_create(server, &options, diag);
    if (api->subscription == NULL) {
        kb_cds_api_destroy(api);
        return NULL;
    }
    api->config_reload = kb_stat_named_create(
        server->stats, KB_STR("cluster_manager.cds.config_reload"), KB_STAT_COUNTER);
    api->config_reload_time_ms = kb_stat_named_create(
        server->stats, KB_STR("cluster_manager.cds.config_reload_time_ms"), KB_STAT_GAUGE);
    kb_stat_named_set(api->config_reload_time_ms, server->main->index, 0);
    return api;
}

void kb_cds_api_start(struct kb_cds_api *api, void (*initialized)(void *arg), void *arg)
{
    api->initialized = initialized;
    api->arg = arg;
    kb_subscription_start(api->subscription);
}

void kb_cds_api_set_live(struct kb_cds_api *api)
{
    api->live = true;
}

void kb_cds_api_destroy(struct kb_cds_api *api)
{
    if (api == NULL) {
        return;
    }
    kb_cluster_manager_when_warm(api->server->clusters, NULL, NULL);
    kb_subscription_destroy(api->subscription);
    KB_MAP_FOREACH (entry, &api->versions) {
        struct cluster_version *version = entry->value;

        free(version->version);
        free(version);
    }
    kb_map_dispose(&api->versions);
    kb_stat_named_destroy(api->config_reload);
    kb_stat_named_destroy(api->config_reload_time_ms);
    free(api->version);
    KB_OBJ_CLEAR(api);
    free(api);
}

struct kb_str kb_cds_api_version(const struct kb_cds_api *api)
{
    return kb_str_from_cstr(api != NULL && api->version != NULL ? api->version : "");
}

struct kb_str kb_cds_api_cluster_version(const struct kb_cds_api *api, struct kb_str name)
{
    const struct cluster_version *version = api == NULL ? NULL : kb_map_get(&api->versions, name);

    return kb_str_from_cstr(version != NULL ? version->version : "");
}
