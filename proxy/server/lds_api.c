/* SPDX-License-Identifier: Apache-2.0 */
/* LDS: removals first, so that a new listener can have the address of one that goes; then each
 * listener of the response by itself. */
#include "proxy/server/lds_api.h"

#include <stdlib.h>

#include "envoy/config/listener/v3/listener.pb-c.h"

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/vec.h"
#include "proto/pb.h"
#include "proxy/listener/listener_manager.h"
#include "proxy/server/resource_errors.h"

struct kb_lds_api {
    KB_OBJ;
    struct kb_server_context *server;
    struct kb_listener_manager *listeners;
    struct kb_subscription *subscription;
    struct kb_init_target target;
    char *version;
    struct kb_arena error_arena; /* of the last response */
    KB_VEC(struct kb_lds_error) errors;
};
KB_OBJ_MAGIC(kb_lds_api, 0x4c445341);

/* One response on its way in. */
struct application {
    struct kb_lds_api *api;
    const struct kb_resource_update *update;
    struct kb_resource_errors errors;
    struct kb_map names;
    struct kb_arena arena;
    KB_VEC(struct kb_str) absent;
    bool applied; /* anything was changed */
};

static void error_keep(struct application *app, const struct kb_resource *resource,
                       struct kb_str name, struct kb_str text)
{
    struct kb_arena *arena = &app->api->error_arena;
    struct kb_lds_error error = {kb_str_dup(arena, name), kb_str_dup(arena, text),
                                 kb_pb_pack(resource->message, arena),
                                 kb_str_dup(arena, resource->version), resource->received_wall_ns};

    kb_vec_push(&app->api->errors, error);
}

static void listener_add(struct application *app, const struct kb_resource *resource,
                         struct kb_diag *diag)
{
    const Envoy__Config__Listener__V3__Listener *message = resource->message;
    struct kb_str name = kb_str_from_cstr(message->name);
    struct kb_str text;
    struct kb_diag sub;
    int rc;

    if (kb_map_put(&app->names, name, app) != NULL) {
        text = kb_str_printf(&app->arena, "duplicate listener %.*s found", KB_STR_ARG(name));
        kb_resource_errors_add(&app->errors, name, text);
        error_keep(app, resource, name, text);
        return;
    }
    kb_diag_init(&sub);
    sub.unknown_fields_warn = diag->unknown_fields_warn;
    rc = kb_listener_manager_update(app->api->listeners, message, resource->version, &sub);
    text = kb_resource_errors_take(&app->errors, name, &sub, diag);
    kb_diag_dispose(&sub);
    if (text.len > 0) {
        error_keep(app, resource, name, text);
    } else if (rc == 0) {
        KB_LOG(UPSTREAM, INFO, "lds: add/update listener '%.*s'", KB_STR_ARG(name));
        app->applied = true;
    }
}

static void listener_remove(struct application *app, struct kb_str name)
{
    if (kb_listener_manager_remove(app->api->listeners, name) == 0) {
        KB_LOG(UPSTREAM, INFO, "lds: remove listener '%.*s'", KB_STR_ARG(name));
        app->applied = true;
    }
}

static void absent_visit(void *arg, const struct kb_listener_view *view)
{
    struct application *app = arg;

    if (view->dynamic && kb_map_get(&app->names, view->name) == NULL) {
        kb_vec_push(&app->absent, kb_str_dup(&app->arena, view->name));
    }
}

static void removals(struct application *app)
{
    const struct kb_resource_update *update = app->update;
    struct kb_map none;

    if (update->state_of_the_world) {
        for (size_t i = 0; i < update->resource_count; i++) {
            kb_map_put(&app->names, update->resources[i].name, app);
        }
        kb_listener_manager_visit(app->api->listeners, absent_visit, app);
        KB_VEC_FOREACH (name, &app->absent) {
            listener_remove(app, *name);
        }
        kb_map_init(&none);
        kb_map_dispose(&app->names);
        app->names = none;
    }
    for (size_t i = 0; i < update->removed_count; i++) {
        listener_remove(app, update->removed[i]);
    }
}

static void update_apply(struct application *app, struct kb_diag *diag)
{
    const struct kb_resource_update *update = app->update;

    kb_subscriptions_pause(app->api->server, KB_RESOURCE_ROUTE_CONFIGURATION);
    kb_subscriptions_pause(app->api->server, KB_RESOURCE_SECRET);
    removals(app);
    for (size_t i = 0; i < update->resource_count; i++) {
        if (update->resources[i].message != NULL) {
            listener_add(app, &update->resources[i], diag);
        }
    }
    kb_subscriptions_resume(app->api->server, KB_RESOURCE_ROUTE_CONFIGURATION);
    kb_subscriptions_resume(app->api->server, KB_RESOURCE_SECRET);
}

static void errors_clear(struct kb_lds_api *api)
{
    kb_vec_dispose(&api->errors);
    kb_arena_dispose(&api->error_arena);
}

static void lds_update(void *arg, const struct kb_resource_update *update, struct kb_diag *diag)
{
    struct kb_lds_api *api = KB_CAST(arg, kb_lds_api);
    struct application app;

    memset(&app, 0, sizeof(app));
    app.api = api;
    app.update = update;
    kb_arena_init(&app.arena, NULL);
    kb_map_init(&app.names);
    kb_resource_errors_init(&app.errors, &app.arena);
    errors_clear(api);
    update_apply(&app, diag);
    if (app.applied) {
        free(api->version);
        api->version = kb_str_to_cstr(update->version);
    }
    if (app.errors.count > 0) {
        struct kb_str text = kb_resource_errors_text(&app.errors, "\n");

        kb_diag_error(diag, "Error adding/updating listener(s) %.*s\n", KB_STR_ARG(text));
    }
    kb_vec_dispose(&app.absent);
    kb_map_dispose(&app.names);
    kb_arena_dispose(&app.arena);
    kb_init_target_ready(&api->target);
}

static void lds_failure(void *arg, enum kb_subscription_failure failure)
{
    if (failure != KB_SUBSCRIPTION_CONNECTION) {
        kb_init_target_ready(&KB_CAST(arg, kb_lds_api)->target);
    }
}

static const struct kb_subscription_callbacks lds_callbacks = {lds_update, lds_failure};

static void target_start(struct kb_init_target *target)
{
    kb_subscription_start(KB_CONTAINER_OF(target, struct kb_lds_api, target)->subscription);
}

struct kb_lds_api *kb_lds_api_create(struct kb_server_context *server,
                                     struct kb_listener_manager *listeners,
                                     const struct Envoy__Config__Core__V3__ConfigSource *source,
                                     struct kb_diag *diag)
{
    struct kb_lds_api *api = kb_calloc(1, sizeof(*api));
    const struct kb_subscription_options options = {
        .type = KB_RESOURCE_LISTENER,
        .source = source,
        .stat_prefix = "listener_manager.lds.",
        .callbacks = &lds_callbacks,
        .arg = api,
    };

    KB_OBJ_SET(api, kb_lds_api);
    api->server = server;
    api->listeners = listeners;
    kb_arena_init(&api->error_arena, NULL);
    kb_init_target_init(&api->target, "LDS", target_start);
    api->subscription = kb_subscription_create(server, &options, diag);
    if (api->subscription == NULL) {
        kb_lds_api_destroy(api);
        return NULL;
    }
    kb_init_manager_add(server->init, &api->target);
    return api;
}

void kb_lds_api_destroy(struct kb_lds_api *api)
{
    if (api == NULL) {
        return;
    }
    kb_init_target_dispose(&api->target);
    kb_subscription_destroy(api->subscription);
    errors_clear(api);
    free(api->version);
    KB_OBJ_CLEAR(api);
    free(api);
}

struct kb_str kb_lds_api_version(const struct kb_lds_api *api)
{
    return kb_str_from_cstr(api != NULL && api->version != NULL ? api->version : "");
}

const struct kb_lds_error *kb_lds_api_error(const struct kb_lds_api *api, size_t i)
{
    return api != NULL && i < api->errors.len ? &api->errors.items[i] : NULL;
}
