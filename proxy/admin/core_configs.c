/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration for /config_dump: packed resources of clusters and listeners, the route
 * configurations inside listeners, the bootstrap and its secrets, and the hosts as load
 * assignments. */
#include "envoy/admin/v3/config_dump.pb-c.h"
#include "envoy/admin/v3/config_dump_shared.pb-c.h"
#include "envoy/config/endpoint/v3/endpoint.pb-c.h"
#include "envoy/config/listener/v3/listener.pb-c.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "proto/address.h"
#include "proto/any.h"
#include "proxy/admin/admin_internal.h"
#include "proxy/admin/core_sources.h"
#include "proxy/admin/core_sources_internal.h"
#include "proxy/listener/listener_manager.h"

#define HCM_ENUM(name) \
    ENVOY__EXTENSIONS__FILTERS__NETWORK__HTTP_CONNECTION_MANAGER__V3__HTTP_CONNECTION_MANAGER__##name

#define NEW(type, lower, arena) ((type *)(void *)kb_pb_new(&lower##__descriptor, (arena)))

struct configs_visit {
    kb_admin_config_fn visit;
    void *arg;
    const struct kb_admin_dynamic *dynamic; /* may be NULL */
    struct kb_map listeners;                /* names shown */
    bool scoped;                            /* route tables: those of scopes */
};

Google__Protobuf__Timestamp *kb_admin_timestamp(uint64_t wall_ns, struct kb_arena *arena)
{
    Google__Protobuf__Timestamp *message =
        NEW(Google__Protobuf__Timestamp, google__protobuf__timestamp, arena);

    message->seconds = (int64_t)(wall_ns / 1000000000);
    message->nanos =
        (int32_t)(wall_ns % 1000000000 / 1000000 * 1000000); /* Envoy knows milliseconds */
    return message;
}

Google__Protobuf__Any *kb_admin_any_of_bytes(const ProtobufCMessageDescriptor *type,
                                             struct kb_str packed, struct kb_arena *arena)
{
    Google__Protobuf__Any *any = NEW(Google__Protobuf__Any, google__protobuf__any, arena);

    any->type_url =
        kb_admin_text(kb_str_printf(arena, "type.googleapis.com/%s", type->name), arena);
    any->value.data = (uint8_t *)(uintptr_t)packed.p;
    any->value.len = packed.len;
    return any;
}

static Google__Protobuf__Any *any_of(const ProtobufCMessage *message, struct kb_arena *arena)
{
    Google__Protobuf__Any *any = kb_arena_calloc(arena, sizeof(*any));

    kb_any_pack(message, arena, any);
    return any;
}

static void bootstrap_visit(const struct kb_admin_core *core, const struct configs_visit *v)
{
    Envoy__Admin__V3__BootstrapConfigDump *dump;
    Envoy__Config__Bootstrap__V3__Bootstrap shown = *core->bootstrap;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    dump =
        NEW(Envoy__Admin__V3__BootstrapConfigDump, envoy__admin__v3__bootstrap_config_dump, &arena);
    if (core->node != NULL) {
        shown.node = core->node;
    }
    dump->bootstrap = &shown;
    dump->last_updated = kb_admin_timestamp(core->started_wall_ns, &arena);
    v->visit(v->arg, NULL, KB_STR(""), &dump->base);
    kb_arena_dispose(&arena);
}

static void cluster_visit(const struct kb_cluster_entry *entry, bool dynamic,
                          const struct configs_visit *v)
{
    const struct kb_cluster *cluster = &entry->cluster->api;
    struct kb_arena arena;

    if (cluster->added_via_api != dynamic) {
        return;
    }
    kb_arena_init(&arena, NULL);
    if (dynamic) {
        Envoy__Admin__V3__ClustersConfigDump__DynamicCluster *message =
            NEW(Envoy__Admin__V3__ClustersConfigDump__DynamicCluster,
                envoy__admin__v3__clusters_config_dump__dynamic_cluster, &arena);

        message->cluster = kb_admin_any_of_bytes(&envoy__config__cluster__v3__cluster__descriptor,
                                                 entry->message, &arena);
        message->last_updated = kb_admin_timestamp(entry->updated_wall_ns, &arena);
        if (v->dynamic != NULL) {
            message->version_info =
                kb_admin_text(v->dynamic->cluster_version(v->dynamic->arg, cluster->name), &arena);
        }
        v->visit(v->arg,
                 kb_cluster_entry_warming(entry) ? "dynamic_warming_clusters"
                                                 : "dynamic_active_clusters",
                 cluster->name, &message->base);
    } else {
        Envoy__Admin__V3__ClustersConfigDump__StaticCluster *message =
            NEW(Envoy__Admin__V3__ClustersConfigDump__StaticCluster,
                envoy__admin__v3__clusters_config_dump__static_cluster, &arena);

        message->cluster = kb_admin_any_of_bytes(&envoy__config__cluster__v3__cluster__descriptor,
                                                 entry->message, &arena);
        message->last_updated = kb_admin_timestamp(entry->updated_wall_ns, &arena);
        v->visit(v->arg, "static_clusters", cluster->name, &message->base);
    }
    kb_arena_dispose(&arena);
}

static Envoy__Config__Endpoint__V3__LbEndpoint *endpoint_message(const struct kb_host *host,
                                                                 struct kb_arena *arena)
{
    Envoy__Config__Endpoint__V3__LbEndpoint *lb_endpoint = NEW(
        Envoy__Config__Endpoint__V3__LbEndpoint, envoy__config__endpoint__v3__lb_endpoint, arena);
    Envoy__Config__Endpoint__V3__Endpoint *endpoint =
        NEW(Envoy__Config__Endpoint__V3__Endpoint, envoy__config__endpoint__v3__endpoint, arena);
    uint32_t flags = __atomic_load_n(&host->health_flags, __ATOMIC_RELAXED);
    struct kb_addr addr = kb_host_addr(host);
    struct kb_str packed = kb_host_metadata(host);
    ProtobufCMessage *metadata;

    endpoint->address = kb_address_message(&addr, arena);
    endpoint->hostname = kb_admin_text(kb_host_hostname(host), arena);
    endpoint->health_check_config =
        NEW(Envoy__Config__Endpoint__V3__Endpoint__HealthCheckConfig,
            envoy__config__endpoint__v3__endpoint__health_check_config, arena);
    if (host->check != NULL) {
        struct kb_addr check = kb_host_check_addr(host);

        endpoint->health_check_config->hostname = kb_admin_text(host->check->hostname, arena);
        if (!kb_addr_eq(&addr, &check)) {
            endpoint->health_check_config->port_value = kb_addr_port(&check);
        }
    }
    lb_endpoint->host_identifier_case =
        ENVOY__CONFIG__ENDPOINT__V3__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT;
    lb_endpoint->endpoint = endpoint;
    lb_endpoint->health_status = (flags & ~(uint32_t)KB_HOST_DEGRADED_EDS) != 0
                                     ? ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__UNHEALTHY
                                 : flags != 0 ? ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__DEGRADED
                                              : ENVOY__CONFIG__CORE__V3__HEALTH_STATUS__HEALTHY;
    lb_endpoint->load_balancing_weight =
        NEW(Google__Protobuf__UInt32Value, google__protobuf__uint32_value, arena);
    lb_endpoint->load_balancing_weight->value = host->weight;
    if (packed.len > 0 && kb_pb_unpack(&envoy__config__core__v3__metadata__descriptor, packed,
                                       arena, &metadata) == 0) {
        lb_endpoint->metadata = (Envoy__Config__Core__V3__Metadata *)(void *)metadata;
    }
    return lb_endpoint;
}

static bool same_locality(const struct kb_host *a, const struct kb_host *b)
{
    return kb_str_eq(a->locality->region, b->locality->region) &&
           kb_str_eq(a->locality->zone, b->locality->zone) &&
           kb_str_eq(a->locality->sub_zone, b->locality->sub_zone);
}

/* Hosts that stand together with one locality: list->hosts[*from] and on; moves *from behind them.
 */
static Envoy__Config__Endpoint__V3__LocalityLbEndpoints *
locality_message(const struct kb_host_list *list, uint32_t *from, struct kb_arena *arena)
{
    Envoy__Config__Endpoint__V3__LocalityLbEndpoints *message =
        NEW(Envoy__Config__Endpoint__V3__LocalityLbEndpoints,
            envoy__config__endpoint__v3__locality_lb_endpoints, arena);
    const struct kb_host *first = list->hosts[*from];

    message->locality =
        NEW(Envoy__Config__Core__V3__Locality, envoy__config__core__v3__locality, arena);
    message->locality->region = kb_admin_text(first->locality->region, arena);
    message->locality->zone = kb_admin_text(first->locality->zone, arena);
    message->locality->sub_zone = kb_admin_text(first->locality->sub_zone, arena);
    message->priority = first->priority;
    message->load_balancing_weight =
        NEW(Google__Protobuf__UInt32Value, google__protobuf__uint32_value, arena);
    message->lb_endpoints = kb_arena_alloc(
        arena, (list->count - *from) * sizeof(*message->lb_endpoints), sizeof(void *));
    while (*from < list->count && same_locality(first, list->hosts[*from])) {
        message->lb_endpoints[message->n_lb_endpoints++] =
            endpoint_message(list->hosts[*from], arena);
        (*from)++;
    }
    return message;
}

static Envoy__Config__Endpoint__V3__ClusterLoadAssignment *
assignment_message(const struct kb_cluster_entry *entry, struct kb_arena *arena)
{
    const struct kb_priority_set *set = entry->set;
    Envoy__Config__Endpoint__V3__ClusterLoadAssignment *message =
        NEW(Envoy__Config__Endpoint__V3__ClusterLoadAssignment,
            envoy__config__endpoint__v3__cluster_load_assignment, arena);

    message->cluster_name = kb_admin_text(entry->cluster->api.name, arena);
    message->policy = NEW(Envoy__Config__Endpoint__V3__ClusterLoadAssignment__Policy,
                          envoy__config__endpoint__v3__cluster_load_assignment__policy, arena);
    if (set == NULL) {
        return message;
    }
    message->policy->overprovisioning_factor =
        NEW(Google__Protobuf__UInt32Value, google__protobuf__uint32_value, arena);
    message->policy->overprovisioning_factor->value = set->overprovisioning_factor;
    message->endpoints = kb_arena_alloc(
        arena, ((size_t)set->host_count + 1) * sizeof(*message->endpoints), sizeof(void *));
    for (uint32_t p = 0; p < set->count; p++) {
        for (uint32_t i = 0; i < set->sets[p].all.count;) {
            message->endpoints[message->n_endpoints++] =
                locality_message(&set->sets[p].all, &i, arena);
        }
    }
    return message;
}

static void endpoints_visit(const struct kb_cluster_entry *entry, bool dynamic,
                            const struct configs_visit *v)
{
    struct kb_str name = entry->cluster->api.name;
    struct kb_arena arena;

    if (entry->cluster->api.added_via_api != dynamic) {
        return;
    }
    kb_arena_init(&arena, NULL);
    if (dynamic) {
        Envoy__Admin__V3__EndpointsConfigDump__DynamicEndpointConfig *message =
            NEW(Envoy__Admin__V3__EndpointsConfigDump__DynamicEndpointConfig,
                envoy__admin__v3__endpoints_config_dump__dynamic_endpoint_config, &arena);

        message->endpoint_config = any_of(&assignment_message(entry, &arena)->base, &arena);
        v->visit(v->arg, "dynamic_endpoint_configs", name, &message->base);
    } else {
        Envoy__Admin__V3__EndpointsConfigDump__StaticEndpointConfig *message =
            NEW(Envoy__Admin__V3__EndpointsConfigDump__StaticEndpointConfig,
                envoy__admin__v3__endpoints_config_dump__static_endpoint_config, &arena);

        message->endpoint_config = any_of(&assignment_message(entry, &arena)->base, &arena);
        v->visit(v->arg, "static_endpoint_configs", name, &message->base);
    }
    kb_arena_dispose(&arena);
}

static void static_listener_visit(const struct configs_visit *v, const struct kb_listener *listener)
{
    Envoy__Admin__V3__ListenersConfigDump__StaticListener *message;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    message = NEW(Envoy__Admin__V3__ListenersConfigDump__StaticListener,
                  envoy__admin__v3__listeners_config_dump__static_listener, &arena);
    message->listener = kb_admin_any_of_bytes(&envoy__config__listener__v3__listener__descriptor,
                                              listener->message, &arena);
    message->last_updated = kb_admin_timestamp(listener->updated_wall_ns, &arena);
    v->visit(v->arg, "static_listeners", listener->name, &message->base);
    kb_arena_dispose(&arena);
}

/* One version of a listener of the control plane; NULL when there is none. */
static Envoy__Admin__V3__ListenersConfigDump__DynamicListenerState *
listener_state(const struct kb_listener *listener, struct kb_arena *arena)
{
    Envoy__Admin__V3__ListenersConfigDump__DynamicListenerState *state;

    if (listener == NULL) {
        return NULL;
    }
    state = NEW(Envoy__Admin__V3__ListenersConfigDump__DynamicListenerState,
                envoy__admin__v3__listeners_config_dump__dynamic_listener_state, arena);
    state->version_info = kb_admin_text(listener->version, arena);
    state->listener = kb_admin_any_of_bytes(&envoy__config__listener__v3__listener__descriptor,
                                            listener->message, arena);
    state->last_updated = kb_admin_timestamp(listener->updated_wall_ns, arena);
    return state;
}

static void listener_config_visit(void *arg, const struct kb_listener_view *view)
{
    struct configs_visit *v = arg;
    Envoy__Admin__V3__ListenersConfigDump__DynamicListener *message;
    struct kb_arena arena;

    if (!view->dynamic) {
        if (view->active != NULL) {
            static_listener_visit(v, view->active);
        }
        return;
    }
    kb_arena_init(&arena, NULL);
    message = NEW(Envoy__Admin__V3__ListenersConfigDump__DynamicListener,
                  envoy__admin__v3__listeners_config_dump__dynamic_listener, &arena);
    message->name = kb_admin_text(view->name, &arena);
    message->active_state = listener_state(view->active, &arena);
    message->warming_state = listener_state(view->warming, &arena);
    message->draining_state = listener_state(view->draining, &arena);
    if (kb_map_get(&v->listeners, view->name) == NULL) {
        message->error_state = kb_admin_refused_state(v->dynamic, view->name, &arena);
        kb_map_put(&v->listeners, view->name, v);
    }
    v->visit(v->arg, "dynamic_listeners", view->name, &message->base);
    kb_arena_dispose(&arena);
}

static void scopes_visit(
    const Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__ScopedRoutes *scoped,
    uint64_t updated_wall_ns, struct kb_arena *arena, const struct configs_visit *v)
{
    const Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__ScopedRouteConfigurationsList
        *list = scoped->scoped_route_configurations_list;
    Envoy__Admin__V3__ScopedRoutesConfigDump__InlineScopedRouteConfigs *message =
        NEW(Envoy__Admin__V3__ScopedRoutesConfigDump__InlineScopedRouteConfigs,
            envoy__admin__v3__scoped_routes_config_dump__inline_scoped_route_configs, arena);

    message->name = scoped->name;
    message->last_updated = kb_admin_timestamp(updated_wall_ns, arena);
    message->n_scoped_route_configs = list->n_scoped_route_configurations;
    message->scoped_route_configs = kb_arena_calloc(
        arena, (message->n_scoped_route_configs + 1) * sizeof(*message->scoped_route_configs));
    for (size_t i = 0; i < message->n_scoped_route_configs; i++) {
        message->scoped_route_configs[i] =
            any_of(&list->scoped_route_configurations[i]->base, arena);
    }
    v->visit(v->arg, "inline_scoped_route_configs", kb_str_from_cstr(message->name),
             &message->base);
}

static void route_config_visit(const Envoy__Config__Listener__V3__Filter *filter,
                               uint64_t updated_wall_ns, struct kb_arena *arena,
                               const struct configs_visit *v)
{
    const ProtobufCMessage *config;
    const Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__HttpConnectionManager
        *hcm;
    Envoy__Admin__V3__RoutesConfigDump__StaticRouteConfig *message;

    if (filter->config_type_case != ENVOY__CONFIG__LISTENER__V3__FILTER__CONFIG_TYPE_TYPED_CONFIG) {
        return;
    }
    config = kb_any_peek(filter->typed_config, arena);
    if (config == NULL ||
        config->descriptor !=
            &envoy__extensions__filters__network__http_connection_manager__v3__http_connection_manager__descriptor) {
        return;
    }
    hcm = (const void *)config;
    if (v->scoped) {
        if (hcm->route_specifier_case == HCM_ENUM(ROUTE_SPECIFIER_SCOPED_ROUTES)) {
            scopes_visit(hcm->scoped_routes, updated_wall_ns, arena, v);
        }
        return;
    }
    if (hcm->route_specifier_case != HCM_ENUM(ROUTE_SPECIFIER_ROUTE_CONFIG)) {
        return;
    }
    message = NEW(Envoy__Admin__V3__RoutesConfigDump__StaticRouteConfig,
                  envoy__admin__v3__routes_config_dump__static_route_config, arena);
    message->route_config = any_of(&hcm->route_config->base, arena);
    message->last_updated = kb_admin_timestamp(updated_wall_ns, arena);
    v->visit(v->arg, "static_route_configs", kb_str_from_cstr(hcm->route_config->name),
             &message->base);
}

static void chain_routes_visit(const Envoy__Config__Listener__V3__FilterChain *chain,
                               uint64_t updated_wall_ns, struct kb_arena *arena,
                               const struct configs_visit *v)
{
    for (size_t i = 0; chain != NULL && i < chain->n_filters; i++) {
        route_config_visit(chain->filters[i], updated_wall_ns, arena, v);
    }
}

static void listener_routes_visit(void *arg, const struct kb_listener_view *view)
{
    const struct configs_visit *v = arg;
    const struct kb_listener *listener = view->active;
    ProtobufCMessage *unpacked;
    struct kb_arena arena;

    if (listener == NULL) {
        return;
    }
    kb_arena_init(&arena, NULL);
    if (kb_pb_unpack(&envoy__config__listener__v3__listener__descriptor, listener->message, &arena,
                     &unpacked) == 0) {
        const Envoy__Config__Listener__V3__Listener *message = (const void *)unpacked;

        for (size_t i = 0; i < message->n_filter_chains; i++) {
            chain_routes_visit(message->filter_chains[i], listener->updated_wall_ns, &arena, v);
        }
        chain_routes_visit(message->default_filter_chain, listener->updated_wall_ns, &arena, v);
    }
    kb_arena_dispose(&arena);
}

static void secrets_visit(const struct kb_admin_core *core, const struct configs_visit *v)
{
    const Envoy__Config__Bootstrap__V3__Bootstrap__StaticResources *resources =
        core->bootstrap->static_resources;

    for (size_t i = 0; resources != NULL && i < resources->n_secrets; i++) {
        Envoy__Admin__V3__SecretsConfigDump__StaticSecret *message;
        struct kb_arena arena;

        kb_arena_init(&arena, NULL);
        message = NEW(Envoy__Admin__V3__SecretsConfigDump__StaticSecret,
                      envoy__admin__v3__secrets_config_dump__static_secret, &arena);
        message->name = resources->secrets[i]->name;
        message->last_updated = kb_admin_timestamp(core->started_wall_ns, &arena);
        message->secret = any_of(&resources->secrets[i]->base, &arena);
        v->visit(v->arg, "static_secrets", kb_str_from_cstr(message->name), &message->base);
        kb_arena_dispose(&arena);
    }
}

static void entries_visit(const struct kb_admin_core *core, const struct configs_visit *v,
                          void (*visit)(const struct kb_cluster_entry *entry, bool dynamic,
                                        const struct configs_visit *v))
{
    struct kb_admin_entries entries;

    kb_admin_entries_init(&entries, core->clusters, true);
    for (int dynamic = 0; dynamic < 2; dynamic++) {
        KB_VEC_FOREACH (entry, &entries) {
            if (!kb_cluster_entry_warming(*entry)) {
                visit(*entry, dynamic == 1, v);
            }
        }
    }
    KB_VEC_FOREACH (entry, &entries) {
        if (kb_cluster_entry_warming(*entry) && visit == cluster_visit) {
            visit(*entry, true, v);
        }
    }
    kb_vec_dispose(&entries);
}

void kb_admin_core_visit_configs(const struct kb_admin_core *core, enum kb_admin_section section,
                                 kb_admin_config_fn visit, void *visit_arg)
{
    struct configs_visit v = {visit, visit_arg, core->dynamic, {0}, false};

    switch (section) {
    case KB_ADMIN_BOOTSTRAP:
        bootstrap_visit(core, &v);
        break;
    case KB_ADMIN_CLUSTERS:
        entries_visit(core, &v, cluster_visit);
        break;
    case KB_ADMIN_ENDPOINTS:
        entries_visit(core, &v, endpoints_visit);
        break;
    case KB_ADMIN_LISTENERS:
        if (core->listeners != NULL) {
            kb_listener_manager_visit(core->listeners, listener_config_visit, &v);
        }
        kb_admin_refused_listeners(core->dynamic, &v.listeners, visit, visit_arg);
        kb_map_dispose(&v.listeners);
        break;
    case KB_ADMIN_ROUTES:
        if (core->listeners != NULL) {
            kb_listener_manager_visit(core->listeners, listener_routes_visit, &v);
        }
        kb_admin_dynamic_routes(core->dynamic, visit, visit_arg);
        break;
    case KB_ADMIN_SECRETS:
        secrets_visit(core, &v);
        kb_admin_dynamic_secrets(core->dynamic, visit, visit_arg);
        break;
    case KB_ADMIN_ECDS:
        kb_admin_dynamic_extensions(core->dynamic, visit, visit_arg);
        break;
    case KB_ADMIN_SCOPED_ROUTES:
        v.scoped = true;
        if (core->listeners != NULL) {
            kb_listener_manager_visit(core->listeners, listener_routes_visit, &v);
        }
        break;
    case KB_ADMIN_SECTIONS:
        break;
    }
}
