/* SPDX-License-Identifier: Apache-2.0 */
/* The admin pages ask; this answers from the rooms that the server owns. */
#include "proxy/server/admin_glue.h"

#include "envoy/admin/v3/init_dump.pb-c.h"
#include "envoy/admin/v3/server_info.pb-c.h"

#include "proxy/admin/core_sources.h"
#include "proxy/api/secret.h"

static struct kb_server *server_of(void *arg)
{
    return KB_CAST(arg, kb_server);
}

static const char *state_name(void *arg)
{
    return kb_server_state_name(kb_lifecycle_state(&server_of(arg)->lifecycle));
}

static const char *hot_restart_version(void *arg)
{
    (void)arg;
    return "disabled";
}

static Google__Protobuf__Duration *seconds(struct kb_arena *arena, uint64_t s)
{
    Google__Protobuf__Duration *message = KB_ARENA_NEW(arena, Google__Protobuf__Duration);

    google__protobuf__duration__init(message);
    message->seconds = (int64_t)s;
    return message;
}

static Envoy__Admin__V3__ServerInfo__State state_of(enum kb_server_state state)
{
    switch (state) {
    case KB_SERVER_LIVE:
        return ENVOY__ADMIN__V3__SERVER_INFO__STATE__LIVE;
    case KB_SERVER_DRAINING:
        return ENVOY__ADMIN__V3__SERVER_INFO__STATE__DRAINING;
    case KB_SERVER_PRE_INITIALIZING:
        return ENVOY__ADMIN__V3__SERVER_INFO__STATE__PRE_INITIALIZING;
    case KB_SERVER_INITIALIZING:
        return ENVOY__ADMIN__V3__SERVER_INFO__STATE__INITIALIZING;
    }
    return ENVOY__ADMIN__V3__SERVER_INFO__STATE__LIVE;
}

static const ProtobufCMessage *server_info(void *arg, struct kb_arena *arena)
{
    struct kb_server *server = server_of(arg);
    Envoy__Admin__V3__ServerInfo *message = KB_ARENA_NEW(arena, Envoy__Admin__V3__ServerInfo);
    uint64_t uptime_s = kb_server_stats_uptime_s(server->stats);

    envoy__admin__v3__server_info__init(message);
    message->version = (char *)(uintptr_t)kb_version_text();
    message->state = state_of(kb_lifecycle_state(&server->lifecycle));
    message->uptime_current_epoch = seconds(arena, uptime_s);
    message->uptime_all_epochs = seconds(arena, uptime_s);
    message->hot_restart_version = (char *)(uintptr_t)hot_restart_version(arg);
    message->command_line_options =
        (Envoy__Admin__V3__CommandLineOptions *)(uintptr_t)kb_options_message(server->options,
                                                                              arena);
    message->node = server->bootstrap.node;
    return &message->base;
}

static bool from_config_cache(void *arg)
{
    return kb_xds_glue_from_cache(server_of(arg)->context.xds);
}

static void memory(void *arg, struct kb_admin_memory *out)
{
    struct kb_memory_usage usage;

    (void)arg;
    kb_memory_usage_read(&usage);
    memset(out, 0, sizeof(*out));
    out->allocated = usage.allocated;
    out->heap_size = usage.heap;
    out->pageheap_free = usage.heap_free;
    out->total_physical_bytes = usage.physical;
}

static struct kb_str section_version(void *arg, enum kb_admin_section section)
{
    const struct kb_server *server = server_of(arg);

    switch ((int)section) {
    case KB_ADMIN_CLUSTERS:
        return kb_cds_api_version(server->cds);
    case KB_ADMIN_LISTENERS:
        return kb_lds_api_version(server->lds);
    default:
        return KB_STR_NULL;
    }
}

static struct kb_str cluster_version(void *arg, struct kb_str name)
{
    return kb_cds_api_cluster_version(server_of(arg)->cds, name);
}

static void visit_dynamic(void *arg, enum kb_resource_type type, kb_admin_resource_fn visit,
                          void *visit_arg)
{
    const struct kb_server *server = server_of(arg);
    const struct kb_lds_error *error;

    if (type != KB_RESOURCE_LISTENER) {
        kb_xds_glue_visit(server->context.xds, type, visit, visit_arg);
        return;
    }
    for (size_t i = 0; (error = kb_lds_api_error(server->lds, i)) != NULL; i++) {
        const struct kb_admin_resource refused = {error->name, error->version, error->message,
                                                  error->wall_ns, error->text};

        visit(visit_arg, &refused);
    }
}

static struct kb_admin_core core_of(void *arg)
{
    struct kb_server *server = server_of(arg);

    return (struct kb_admin_core){
        .clusters = server->context.clusters,
        .listeners = server->listeners,
        .bootstrap = server->bootstrap.message,
        .node = server->bootstrap.node,
        .dynamic = &server->admin_dynamic,
        .started_wall_ns = kb_server_stats_started_wall_ns(server->stats),
    };
}

static void visit_clusters(void *arg, kb_admin_cluster_fn visit, void *visit_arg)
{
    const struct kb_admin_core core = core_of(arg);

    kb_admin_core_visit_clusters(&core, visit, visit_arg);
}

static void visit_listeners(void *arg, kb_admin_listener_fn visit, void *visit_arg)
{
    const struct kb_admin_core core = core_of(arg);

    kb_admin_core_visit_listeners(&core, visit, visit_arg);
}

static void visit_configs(void *arg, enum kb_admin_section section, kb_admin_config_fn visit,
                          void *visit_arg)
{
    const struct kb_admin_core core = core_of(arg);

    kb_admin_core_visit_configs(&core, section, visit, visit_arg);
}

static void visit_unsupported(void *arg, kb_admin_unsupported_fn visit, void *visit_arg)
{
    const struct kb_unsupported *unsupported = &server_of(arg)->unsupported;

    for (const struct kb_unsupported_entry *entry = unsupported->entries; entry != NULL;
         entry = entry->next) {
        const struct kb_admin_unsupported shown = {entry->path, entry->first, entry->type,
                                                   entry->count};

        visit(visit_arg, &shown);
    }
}

static void visit_pushes(void *arg, kb_admin_push_fn visit, void *visit_arg)
{
    const struct kb_xds_push_log *log = kb_xds_glue_pushes(server_of(arg)->context.xds);

    KB_LIST_FOREACH (link, &log->pushes) {
        const struct kb_xds_push *push = KB_LIST_ENTRY(link, struct kb_xds_push, link);
        struct kb_admin_push_name names[KB_XDS_PUSH_NAMES_MAX];
        struct kb_admin_push shown = {.wall_ns = push->wall_ns,
                                      .type = kb_xds_types[push->type].short_name,
                                      .way = push->way,
                                      .version = kb_str_from_cstr(push->version),
                                      .names = names,
                                      .name_count = push->name_count};

        _Static_assert(KB_ADMIN_CHANGE_COUNT == (int)KB_XDS_CHANGE_COUNT, "the same changes");
        memcpy(shown.counts, push->counts, sizeof(shown.counts));
        if (push->error != NULL) {
            shown.error = kb_str_from_cstr(push->error);
        }
        for (size_t i = 0; i < push->name_count; i++) {
            names[i].change = (enum kb_admin_change)push->names[i].change;
            names[i].name = kb_str_from_cstr(push->names[i].name);
        }
        visit(visit_arg, &shown);
    }
}

static size_t runtime_layer_count(void *arg)
{
    return kb_runtime_layer_count(server_of(arg)->context.runtime);
}

static struct kb_str runtime_layer_name(void *arg, size_t layer)
{
    return kb_runtime_layer_name(server_of(arg)->context.runtime, layer);
}

static void visit_runtime(void *arg, kb_admin_runtime_fn visit, void *visit_arg)
{
    kb_runtime_visit(server_of(arg)->context.runtime, visit, visit_arg);
}

static int runtime_set(void *arg, struct kb_str key, struct kb_str value)
{
    return kb_runtime_set_override(server_of(arg)->context.runtime, key, value);
}

static void runtime_reload(void *arg)
{
    kb_runtime_reload(server_of(arg)->context.runtime);
}

static void fail_health_check(void *arg, bool fail)
{
    kb_lifecycle_fail_health_check(&server_of(arg)->lifecycle, fail);
}

static void drain_listeners(void *arg, bool inbound_only, bool graceful, bool skip_exit)
{
    kb_lifecycle_drain(&server_of(arg)->lifecycle, inbound_only, graceful, skip_exit);
}

static void reopen_logs(void *arg)
{
    struct kb_lifecycle *lifecycle = &server_of(arg)->lifecycle;

    lifecycle->ops->reopen_logs(lifecycle->ops_arg);
}

static void quit(void *arg)
{
    kb_lifecycle_shut_down(&server_of(arg)->lifecycle);
}

#define UNREADY_MAX 1000 /* listeners that the page shows */

struct unready_visit {
    Envoy__Admin__V3__UnreadyTargetsDumps *dumps;
    struct kb_arena *arena;
};

static size_t line_count(const char *text)
{
    size_t count = 1;

    for (; *text != '\0'; text++) {
        count += *text == '\n';
    }
    return count;
}

static void lines_add(Envoy__Admin__V3__UnreadyTargetsDumps__UnreadyTargetsDump *dump,
                      const char *text, struct kb_arena *arena)
{
    for (;;) {
        size_t len = strcspn(text, "\n");

        dump->target_names[dump->n_target_names++] =
            (char *)(uintptr_t)kb_str_dup(arena, kb_str_make(text, len)).p;
        if (text[len] == '\0') {
            return;
        }
        text += len + 1;
    }
}

static void unready_visit(void *arg, const struct kb_listener_view *view)
{
    const struct unready_visit *v = arg;
    const struct kb_listener *listener = view->warming != NULL ? view->warming : view->active;
    Envoy__Admin__V3__UnreadyTargetsDumps__UnreadyTargetsDump *dump;
    size_t count = 0;

    if (listener == NULL || listener->init.finished ||
        v->dumps->n_unready_targets_dumps == UNREADY_MAX) {
        return;
    }
    KB_LIST_FOREACH (link, &listener->init.targets) {
        count += line_count(KB_LIST_ENTRY(link, struct kb_init_target, link)->name);
    }
    if (count == 0) {
        return;
    }
    dump = (void *)kb_pb_new(
        &envoy__admin__v3__unready_targets_dumps__unready_targets_dump__descriptor, v->arena);
    dump->name = (char *)(uintptr_t)kb_str_printf(
                     v->arena, "init manager Listener-local-init-manager %.*s %llu",
                     KB_STR_ARG(view->name), (unsigned long long)listener->hash)
                     .p;
    dump->target_names = kb_arena_alloc(v->arena, count * sizeof(char *), _Alignof(char *));
    KB_LIST_FOREACH (link, &listener->init.targets) {
        lines_add(dump, KB_LIST_ENTRY(link, struct kb_init_target, link)->name, v->arena);
    }
    v->dumps->unready_targets_dumps[v->dumps->n_unready_targets_dumps++] = dump;
}

static const ProtobufCMessage *certificates(void *arg, struct kb_arena *arena)
{
    return kb_secrets_certs_page(&server_of(arg)->context, arena);
}

static const ProtobufCMessage *unready_targets(void *arg, struct kb_arena *arena)
{
    struct unready_visit v = {
        (void *)kb_pb_new(&envoy__admin__v3__unready_targets_dumps__descriptor, arena), arena};

    v.dumps->unready_targets_dumps =
        kb_arena_alloc(arena, UNREADY_MAX * sizeof(void *), _Alignof(void *));
    kb_listener_manager_visit(server_of(arg)->listeners, unready_visit, &v);
    return &v.dumps->base;
}

void kb_admin_glue_fill(struct kb_server *server, struct kb_admin_sources *sources)
{
    const Envoy__Config__Bootstrap__V3__Bootstrap *message = server->bootstrap.message;

    server->admin_dynamic.arg = server;
    server->admin_dynamic.cluster_version = cluster_version;
    server->admin_dynamic.visit = visit_dynamic;
    sources->arg = server;
    sources->state_name = state_name;
    sources->hot_restart_version = hot_restart_version;
    sources->server_info = server_info;
    sources->from_config_cache = from_config_cache;
    sources->memory = memory;
    sources->certificates = certificates;
    sources->unready_targets = unready_targets;
    sources->visit_clusters = visit_clusters;
    sources->visit_listeners = visit_listeners;
    sources->visit_configs = visit_configs;
    sources->section_version = section_version;
    sources->visit_unsupported = visit_unsupported;
    sources->visit_pushes = visit_pushes;
    sources->runtime_layer_count = runtime_layer_count;
    sources->runtime_layer_name = runtime_layer_name;
    sources->visit_runtime = visit_runtime;
    sources->runtime_set = runtime_set;
    sources->runtime_reload = runtime_reload;
    sources->fail_health_check = fail_health_check;
    sources->drain_listeners = drain_listeners;
    sources->reopen_logs = reopen_logs;
    sources->quit = quit;
    sources->flush_on_admin =
        message->stats_flush_case ==
            ENVOY__CONFIG__BOOTSTRAP__V3__BOOTSTRAP__STATS_FLUSH_STATS_FLUSH_ON_ADMIN &&
        message->stats_flush_on_admin;
}
