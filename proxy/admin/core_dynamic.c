/* SPDX-License-Identifier: Apache-2.0 */
/* What came from the control plane, for /config_dump: route configurations, secrets, extension
 * configurations, and listeners that were refused. */
#include "envoy/admin/v3/config_dump.pb-c.h"
#include "envoy/admin/v3/config_dump_shared.pb-c.h"
#include "envoy/config/core/v3/extension.pb-c.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "envoy/config/route/v3/route.pb-c.h"
#include "envoy/extensions/transport_sockets/tls/v3/secret.pb-c.h"
#include "proxy/admin/admin_internal.h"
#include "proxy/admin/core_sources_internal.h"

struct resources_visit {
    kb_admin_config_fn visit;
    void *arg;
    bool warming; /* secrets: those that did not come yet */
};

#define NEW(type, lower, arena) ((type *)(void *)kb_pb_new(&lower##__descriptor, (arena)))

static void resources_visit(const struct kb_admin_dynamic *dynamic, enum kb_resource_type type,
                            kb_admin_resource_fn fn, struct resources_visit *v)
{
    if (dynamic != NULL) {
        dynamic->visit(dynamic->arg, type, fn, v);
    }
}

static void route_visit(void *arg, const struct kb_admin_resource *resource)
{
    const struct resources_visit *v = arg;
    Envoy__Admin__V3__RoutesConfigDump__DynamicRouteConfig *message;
    struct kb_arena arena;

    if (resource->packed.len == 0) {
        return;
    }
    kb_arena_init(&arena, NULL);
    message = NEW(Envoy__Admin__V3__RoutesConfigDump__DynamicRouteConfig,
                  envoy__admin__v3__routes_config_dump__dynamic_route_config, &arena);
    message->version_info = kb_admin_text(resource->version, &arena);
    message->route_config = kb_admin_any_of_bytes(
        &envoy__config__route__v3__route_configuration__descriptor, resource->packed, &arena);
    message->last_updated = kb_admin_timestamp(resource->updated_wall_ns, &arena);
    v->visit(v->arg, "dynamic_route_configs", resource->name, &message->base);
    kb_arena_dispose(&arena);
}

void kb_admin_dynamic_routes(const struct kb_admin_dynamic *dynamic, kb_admin_config_fn visit,
                             void *visit_arg)
{
    struct resources_visit v = {visit, visit_arg, false};

    resources_visit(dynamic, KB_RESOURCE_ROUTE_CONFIGURATION, route_visit, &v);
}

static void secret_visit(void *arg, const struct kb_admin_resource *resource)
{
    const struct resources_visit *v = arg;
    Envoy__Admin__V3__SecretsConfigDump__DynamicSecret *message;
    struct kb_arena arena;

    if ((resource->packed.len == 0) != v->warming) {
        return;
    }
    kb_arena_init(&arena, NULL);
    message = NEW(Envoy__Admin__V3__SecretsConfigDump__DynamicSecret,
                  envoy__admin__v3__secrets_config_dump__dynamic_secret, &arena);
    message->name = kb_admin_text(resource->name, &arena);
    message->version_info = kb_admin_text(resource->version, &arena);
    message->last_updated = kb_admin_timestamp(resource->updated_wall_ns, &arena);
    if (resource->packed.len > 0) {
        message->secret = kb_admin_any_of_bytes(
            &envoy__extensions__transport_sockets__tls__v3__secret__descriptor, resource->packed,
            &arena);
    }
    v->visit(v->arg, v->warming ? "dynamic_warming_secrets" : "dynamic_active_secrets",
             resource->name, &message->base);
    kb_arena_dispose(&arena);
}

void kb_admin_dynamic_secrets(const struct kb_admin_dynamic *dynamic, kb_admin_config_fn visit,
                              void *visit_arg)
{
    struct resources_visit v = {visit, visit_arg, false};

    resources_visit(dynamic, KB_RESOURCE_SECRET, secret_visit, &v);
    v.warming = true;
    resources_visit(dynamic, KB_RESOURCE_SECRET, secret_visit, &v);
}

static void extension_visit(void *arg, const struct kb_admin_resource *resource)
{
    const struct resources_visit *v = arg;
    Envoy__Admin__V3__EcdsConfigDump__EcdsFilterConfig *message;
    struct kb_arena arena;

    if (resource->packed.len == 0) {
        return;
    }
    kb_arena_init(&arena, NULL);
    message = NEW(Envoy__Admin__V3__EcdsConfigDump__EcdsFilterConfig,
                  envoy__admin__v3__ecds_config_dump__ecds_filter_config, &arena);
    message->version_info = kb_admin_text(resource->version, &arena);
    message->ecds_filter = kb_admin_any_of_bytes(
        &envoy__config__core__v3__typed_extension_config__descriptor, resource->packed, &arena);
    message->last_updated = kb_admin_timestamp(resource->updated_wall_ns, &arena);
    v->visit(v->arg, "ecds_filters", resource->name, &message->base);
    kb_arena_dispose(&arena);
}

void kb_admin_dynamic_extensions(const struct kb_admin_dynamic *dynamic, kb_admin_config_fn visit,
                                 void *visit_arg)
{
    struct resources_visit v = {visit, visit_arg, false};

    resources_visit(dynamic, KB_RESOURCE_EXTENSION_CONFIG, extension_visit, &v);
}

struct refused_visit {
    kb_admin_config_fn visit;
    void *arg;
    const struct kb_map *shown;
    struct kb_str name; /* the one looked for */
    struct kb_arena *arena;
    Envoy__Admin__V3__UpdateFailureState *found;
};

static Envoy__Admin__V3__UpdateFailureState *failure_state(const struct kb_admin_resource *resource,
                                                           struct kb_arena *arena)
{
    Envoy__Admin__V3__UpdateFailureState *state =
        NEW(Envoy__Admin__V3__UpdateFailureState, envoy__admin__v3__update_failure_state, arena);

    state->failed_configuration = kb_admin_any_of_bytes(
        &envoy__config__listener__v3__listener__descriptor, resource->packed, arena);
    state->last_update_attempt = kb_admin_timestamp(resource->updated_wall_ns, arena);
    state->details = kb_admin_text(resource->error, arena);
    return state;
}

static void refused_find(void *arg, const struct kb_admin_resource *resource)
{
    struct refused_visit *v = arg;

    if (kb_str_eq(resource->name, v->name)) {
        v->found = failure_state(resource, v->arena);
    }
}

Envoy__Admin__V3__UpdateFailureState *kb_admin_refused_state(const struct kb_admin_dynamic *dynamic,
                                                             struct kb_str name,
                                                             struct kb_arena *arena)
{
    struct refused_visit v = {.name = name, .arena = arena};

    if (dynamic != NULL) {
        dynamic->visit(dynamic->arg, KB_RESOURCE_LISTENER, refused_find, &v);
    }
    return v.found;
}

static void refused_show(void *arg, const struct kb_admin_resource *resource)
{
    const struct refused_visit *v = arg;
    Envoy__Admin__V3__ListenersConfigDump__DynamicListener *message;
    struct kb_arena arena;

    if (kb_map_get(v->shown, resource->name) != NULL) {
        return;
    }
    kb_arena_init(&arena, NULL);
    message = NEW(Envoy__Admin__V3__ListenersConfigDump__DynamicListener,
                  envoy__admin__v3__listeners_config_dump__dynamic_listener, &arena);
    message->name = kb_admin_text(resource->name, &arena);
    message->error_state = failure_state(resource, &arena);
    v->visit(v->arg, "dynamic_listeners", resource->name, &message->base);
    kb_arena_dispose(&arena);
}

void kb_admin_refused_listeners(const struct kb_admin_dynamic *dynamic, const struct kb_map *shown,
                                kb_admin_config_fn visit, void *visit_arg)
{
    struct refused_visit v = {.visit = visit, .arg = visit_arg, .shown = shown};

    if (dynamic != NULL) {
        dynamic->visit(dynamic->arg, KB_RESOURCE_LISTENER, refused_show, &v);
    }
}
