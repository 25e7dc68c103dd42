/* SPDX-License-Identifier: Apache-2.0 */
/* A filter's configuration as a resource of its own: checked and built on the main thread,
 * published to the workers, whose streams and connections keep the one that they began with. A
 * refused one leaves what was there; one that is removed gives way to the default configuration, or
 * to none. */
#include "proxy/network/filter_discovery.h"

#include <stdlib.h>
#include <string.h>

#include "base/init_manager.h"
#include "base/mem.h"
#include "envoy/config/core/v3/config_source.pb-c.h"
#include "envoy/config/core/v3/extension.pb-c.h"
#include "proto/any.h"
#include "proto/pb.h"
#include "proxy/api/extension.h"
#include "proxy/api/stats.h"
#include "proxy/api/subscription.h"

typedef Envoy__Config__Core__V3__ExtensionConfigSource source_message;

struct kb_filter_provider {
    KB_OBJ;
    const struct kb_filter_discovery_kind *kind;
    struct kb_arena arena;
    struct kb_factory_context factory; /* of what has the filter; texts are ours */
    struct kb_str name;
    const struct kb_str *types; /* full names of messages that it may be */
    size_t type_count;
    bool last;
    Google__Protobuf__Any *default_config; /* NULL: none */
    struct kb_subscription *subscription;
    struct kb_stat_group *group;
    struct kb_stat_block *stats;
    struct kb_slot *slot;
    struct kb_init_target target;
    char *present; /* the packed Any that serves; NULL: none, or the default */
    size_t present_len;
    bool configured; /* something serves */
};
KB_OBJ_MAGIC(kb_filter_provider, 0x46505256);

/* ---- building ---- */

static void config_destroy(struct kb_shared *shared)
{
    struct kb_filter_config *built = KB_CONTAINER_OF(shared, struct kb_filter_config, shared);

    built->kind->config_destroy(built->ops, built->config);
    kb_arena_dispose(&built->arena);
    kb_shared_dispose(&built->shared);
    free(built);
}

static const void *ops_find(const struct kb_filter_provider *provider,
                            const Google__Protobuf__Any *any, struct kb_arena *arena,
                            struct kb_diag *diag)
{
    struct kb_str type = kb_any_inner_name(any, arena);
    const struct kb_extension *extension;
    struct kb_str wanted = KB_STR("");

    for (size_t i = 0; i < provider->type_count; i++) {
        if (kb_str_eq(provider->types[i], type)) {
            wanted = KB_STR_NULL;
            break;
        }
        wanted = kb_str_printf(arena, "%.*s%s%.*s", KB_STR_ARG(wanted), i > 0 ? ", " : "",
                               KB_STR_ARG(provider->types[i]));
    }
    if (wanted.p != NULL) {
        kb_diag_error(diag, "Error: filter config has type URL %.*s but expect %.*s.",
                      KB_STR_ARG(type), KB_STR_ARG(wanted));
        return NULL;
    }
    extension = kb_extension_find(provider->kind->category, type, KB_STR_NULL);
    if (extension == NULL) {
        kb_diag_error(diag,
                      "Didn't find a registered implementation for '%.*s' with type URL: '%.*s'",
                      KB_STR_ARG(provider->name), KB_STR_ARG(type));
        return NULL;
    }
    if (provider->kind->terminal(extension->ops) != provider->last) {
        kb_diag_error(diag,
                      provider->last
                          ? "Error: non-terminal filter named %.*s of type %s is the last filter "
                            "in a %s filter chain."
                          : "Error: terminal filter named %.*s of type %s must be the last "
                            "filter in a %s filter chain.",
                      KB_STR_ARG(provider->name), extension->name, provider->kind->chain);
        return NULL;
    }
    return extension->ops;
}

/* NULL after an error in diag. */
static struct kb_filter_config *config_build(struct kb_filter_provider *provider,
                                             const Google__Protobuf__Any *any, struct kb_diag *diag)
{
    struct kb_filter_config *built = kb_calloc(1, sizeof(*built));
    struct kb_factory_context factory = provider->factory;
    const ProtobufCMessage *message = NULL;
    int rc = KB_ECONFIG;

    kb_arena_init(&built->arena, NULL);
    built->kind = provider->kind;
    factory.arena = &built->arena;
    factory.init = NULL;
    built->ops = ops_find(provider, any, &built->arena, diag);
    if (built->ops != NULL) {
        message = kb_any_unpack(any, NULL, &built->arena, diag);
    }
    if (message != NULL) {
        rc = built->kind->config_create(built->ops, message, &factory, diag, &built->config);
    }
    if (rc != 0) {
        kb_arena_dispose(&built->arena);
        free(built);
        return NULL;
    }
    return built;
}

static void config_publish(struct kb_filter_provider *provider, struct kb_filter_config *built)
{
    struct kb_server_context *server = provider->factory.server;

    provider->configured = built != NULL;
    if (built == NULL) {
        kb_slot_publish(provider->slot, NULL);
        return;
    }
    kb_shared_init(&built->shared, server->main, server->worker_count, config_destroy);
    kb_slot_publish(provider->slot, &built->shared);
}

static void present_set(struct kb_filter_provider *provider, struct kb_str packed)
{
    free(provider->present);
    provider->present = NULL;
    provider->present_len = packed.len;
    if (packed.p != NULL) {
        provider->present = kb_malloc(packed.len + 1);
        memcpy(provider->present, packed.p, packed.len);
    }
}

/* The default configuration serves; it was checked when the provider was made. */
static void default_apply(struct kb_filter_provider *provider)
{
    struct kb_filter_config *built = NULL;
    struct kb_diag diag;

    kb_diag_init(&diag);
    if (provider->default_config != NULL) {
        built = config_build(provider, provider->default_config, &diag);
    }
    kb_diag_dispose(&diag);
    present_set(provider, KB_STR_NULL);
    config_publish(provider, built);
}

/* ---- updates ---- */

static void config_update(struct kb_filter_provider *provider,
                          const Envoy__Config__Core__V3__TypedExtensionConfig *message,
                          struct kb_diag *diag)
{
    struct kb_filter_config *built;
    struct kb_arena arena;
    struct kb_str packed;

    if (message->typed_config == NULL) {
        kb_diag_error(diag, "typed_config: value is required");
        return;
    }
    kb_arena_init(&arena, NULL);
    packed = kb_pb_pack(&message->typed_config->base, &arena);
    if (provider->present == NULL ||
        !kb_str_eq(packed, kb_str_make(provider->present, provider->present_len))) {
        built = config_build(provider, message->typed_config, diag);
        if (built != NULL) {
            present_set(provider, packed);
            config_publish(provider, built);
            kb_stat_inc(provider->stats, KB_STAT_ECDS_CONFIG_RELOAD);
        }
    }
    kb_arena_dispose(&arena);
}

static void on_update(void *arg, const struct kb_resource_update *update, struct kb_diag *diag)
{
    struct kb_filter_provider *provider = KB_CAST(arg, kb_filter_provider);
    uint32_t errors = diag->error_count;

    if (update->resource_count == 0 && update->removed_count > 0) {
        default_apply(provider);
        kb_stat_inc(provider->stats, KB_STAT_ECDS_CONFIG_RELOAD);
    } else if (update->resource_count != 1) {
        kb_diag_error(diag, "Unexpected number of resources in ExtensionConfigDS response: %zu",
                      update->resource_count);
    } else if (!kb_str_eq(update->resources[0].name, provider->name)) {
        kb_diag_error(diag, "Unexpected resource name in ExtensionConfigDS response: %.*s",
                      KB_STR_ARG(update->resources[0].name));
    } else {
        config_update(provider, update->resources[0].message, diag);
    }
    if (diag->error_count == errors) {
        kb_init_target_ready(&provider->target);
    }
}

static void on_failure(void *arg, enum kb_subscription_failure failure)
{
    struct kb_filter_provider *provider = KB_CAST(arg, kb_filter_provider);

    if (failure == KB_SUBSCRIPTION_CONNECTION) {
        return;
    }
    kb_stat_inc(provider->stats, KB_STAT_ECDS_CONFIG_FAIL);
    if (!provider->configured) {
        default_apply(provider);
    }
    kb_init_target_ready(&provider->target);
}

static const struct kb_subscription_callbacks subscription_callbacks = {
    .on_update = on_update,
    .on_failure = on_failure,
};

/* ---- lifecycle ---- */

static void target_start(struct kb_init_target *target)
{
    struct kb_filter_provider *provider =
        KB_CONTAINER_OF(target, struct kb_filter_provider, target);

    kb_subscription_start(KB_CAST(provider, kb_filter_provider)->subscription);
}

static void types_read(struct kb_filter_provider *provider, const source_message *source)
{
    struct kb_str *types = kb_arena_alloc(
        &provider->arena, (source->n_type_urls + 1) * sizeof(*types), _Alignof(struct kb_str));

    for (size_t i = 0; i < source->n_type_urls; i++) {
        struct kb_str url = kb_str_from_cstr(source->type_urls[i]);
        int64_t slash = -1;

        for (size_t k = 0; k < url.len; k++) {
            slash = url.p[k] == '/' ? (int64_t)k : slash;
        }
        types[i] = kb_str_dup(&provider->arena,
                              kb_str_make(url.p + slash + 1, url.len - (size_t)(slash + 1)));
    }
    provider->types = types;
    provider->type_count = source->n_type_urls;
}

/* Copies the default configuration, and sees whether it builds. */
static void default_read(struct kb_filter_provider *provider, const source_message *source,
                         struct kb_diag *diag)
{
    struct kb_filter_config *built;

    if (source->default_config == NULL) {
        if (source->apply_default_config_without_warming && provider->kind->needs_default) {
            kb_diag_error(diag,
                          "Error: filter config %.*s applied without warming but has no "
                          "default config.",
                          KB_STR_ARG(provider->name));
        }
        return;
    }
    kb_diag_push(diag, "default_config");
    provider->default_config = (void *)kb_pb_copy(&source->default_config->base, &provider->arena);
    built = config_build(provider, provider->default_config, diag);
    if (built != NULL && source->apply_default_config_without_warming) {
        config_publish(provider, built);
    } else if (built != NULL) {
        kb_shared_init(&built->shared, provider->factory.server->main,
                       provider->factory.server->worker_count, config_destroy);
        kb_shared_unref(&built->shared, provider->factory.server->main);
    }
    kb_diag_pop(diag);
}

static void subscribe(struct kb_filter_provider *provider, const source_message *source,
                      struct kb_diag *diag)
{
    struct kb_server_context *server = provider->factory.server;
    struct kb_str prefix = kb_str_printf(&provider->arena, "extension_config_discovery.%s.%.*s.",
                                         provider->kind->stats, KB_STR_ARG(provider->name));
    struct kb_subscription_options options = {.type = KB_RESOURCE_EXTENSION_CONFIG,
                                              .source = source->config_source,
                                              .name = provider->name,
                                              .stat_prefix = prefix.p,
                                              .callbacks = &subscription_callbacks,
                                              .arg = provider};

    provider->group = kb_stat_group_create(server->stats, prefix, &kb_stat_schema_ecds);
    provider->stats = kb_stat_group_block(provider->group, server->main->index);
    kb_diag_push(diag, "config_source");
    provider->subscription = kb_subscription_create(server, &options, diag);
    kb_diag_pop(diag);
}

struct kb_filter_provider *kb_filter_provider_create(const struct kb_filter_discovery_kind *kind,
                                                     const source_message *source,
                                                     struct kb_str name, bool last,
                                                     struct kb_factory_context *factory,
                                                     struct kb_diag *diag)
{
    struct kb_filter_provider *provider = kb_calloc(1, sizeof(*provider));
    struct kb_server_context *server = factory->server;
    uint32_t errors = diag->error_count;

    KB_OBJ_SET(provider, kb_filter_provider);
    kb_arena_init(&provider->arena, NULL);
    provider->kind = kind;
    provider->factory = *factory;
    if (factory->stat_prefix != NULL) {
        provider->factory.stat_prefix =
            kb_str_dup(&provider->arena, kb_str_from_cstr(factory->stat_prefix)).p;
    }
    provider->factory.listener_name = kb_str_dup(&provider->arena, factory->listener_name);
    provider->name = kb_str_dup(&provider->arena, name);
    provider->last = last;
    provider->slot = kb_slot_create(server->main, server->workers, server->worker_count);
    kb_init_target_init(&provider->target,
                        kb_str_printf(&provider->arena,
                                      "shared target FilterConfigSubscription init %.*s",
                                      KB_STR_ARG(provider->name))
                            .p,
                        target_start);
    types_read(provider, source);
    default_read(provider, source, diag);
    if (diag->error_count == errors) {
        subscribe(provider, source, diag);
    }
    if (diag->error_count != errors) {
        kb_filter_provider_destroy(provider);
        return NULL;
    }
    kb_init_manager_add(source->apply_default_config_without_warming ? NULL : factory->init,
                        &provider->target);
    return provider;
}

void kb_filter_provider_destroy(struct kb_filter_provider *provider)
{
    if (provider == NULL) {
        return;
    }
    kb_init_target_dispose(&provider->target);
    if (provider->subscription != NULL) {
        kb_subscription_destroy(provider->subscription);
    }
    kb_slot_destroy(provider->slot);
    kb_stat_group_destroy(provider->group);
    free(provider->present);
    kb_arena_dispose(&provider->arena);
    KB_OBJ_CLEAR(provider);
    free(provider);
}

struct kb_filter_config *kb_filter_provider_get(const struct kb_filter_provider *provider,
                                                const struct kb_worker *worker)
{
    struct kb_shared *shared = kb_slot_get(provider->slot, worker);

    return shared != NULL ? KB_CONTAINER_OF(shared, struct kb_filter_config, shared) : NULL;
}
