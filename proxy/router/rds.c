/* SPDX-License-Identifier: Apache-2.0 */
/* Route tables that come over xDS (Envoy RdsRouteConfigSubscription). Connection managers that ask
 * for the same table of the same source share a subscription; each update is built into a new table
 * and published to the workers, whose streams keep the one that they began with. */
#include <stdlib.h>
#include <string.h>

#include "base/init_manager.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/slot.h"
#include "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.pb-c.h"
#include "proto/message_hash.h"
#include "proto/pb.h"
#include "proxy/api/route.h"
#include "proxy/api/stats.h"
#include "proxy/api/subscription.h"

typedef Envoy__Extensions__Filters__Network__HttpConnectionManager__V3__Rds rds_message;

/* All subscriptions of the process; goes with the last. */
struct kb_rds {
    KB_OBJ;
    struct kb_map by_key;
    struct kb_list tables; /* oldest first */
};
KB_OBJ_MAGIC(kb_rds, 0x52445320);

/* One published table. */
struct rds_config {
    struct kb_shared shared;
    struct kb_route_config *config;
};

/* One subscription. */
struct rds_table {
    KB_OBJ;
    struct kb_list link;
    struct kb_server_context *server;
    struct kb_arena arena;
    struct kb_str key; /* the packed Rds message */
    struct kb_str name;
    const char *target_name; /* of what waits for it, for /init_dump */
    struct kb_subscription *subscription;
    struct kb_stat_group *group;
    struct kb_stat_block *stats;
    struct kb_slot *slot;
    struct kb_list providers;
    uint64_t hash; /* of the message whose table serves */
    bool served;   /* there is one */
    bool started;
    bool ready; /* the first answer came, or will not in time */
};
KB_OBJ_MAGIC(rds_table, 0x52445354);

struct kb_route_provider {
    KB_OBJ;
    struct kb_list link; /* of its table */
    struct rds_table *table;
    struct kb_init_target target;
};
KB_OBJ_MAGIC(kb_route_provider, 0x52505256);

/* ---- waiting ---- */

static void target_start(struct kb_init_target *target)
{
    struct kb_route_provider *provider = KB_CONTAINER_OF(target, struct kb_route_provider, target);
    struct rds_table *table = KB_CAST(provider, kb_route_provider)->table;

    if (table->ready) {
        kb_init_target_ready(target);
    } else if (!table->started) {
        table->started = true;
        kb_subscription_start(table->subscription);
    }
}

static void table_ready(struct rds_table *table)
{
    table->ready = true;
    KB_LIST_FOREACH (link, &table->providers) {
        kb_init_target_ready(&KB_LIST_ENTRY(link, struct kb_route_provider, link)->target);
    }
}

/* ---- updates ---- */

static void config_destroy(struct kb_shared *shared)
{
    struct rds_config *config = KB_CONTAINER_OF(shared, struct rds_config, shared);

    kb_route_config_destroy(config->config);
    kb_shared_dispose(&config->shared);
    free(config);
}

static void config_publish(struct rds_table *table, struct kb_route_config *built)
{
    struct kb_server_context *server = table->server;
    struct rds_config *config = kb_calloc(1, sizeof(*config));

    config->config = built;
    kb_shared_init(&config->shared, server->main, server->worker_count, config_destroy);
    kb_slot_publish(table->slot, &config->shared);
}

static void config_kept(struct rds_table *table, uint64_t hash)
{
    table->hash = hash;
    table->served = true;
    kb_stat_inc(table->stats, KB_STAT_RDS_CONFIG_RELOAD);
    kb_stat_gauge_set(table->stats, KB_STAT_RDS_CONFIG_RELOAD_TIME_MS,
                      kb_loop_wall_ns(&table->server->main->loop) / 1000000);
}

/* Builds and publishes a table that differs from the one that serves. */
static void config_update(struct rds_table *table,
                          const Envoy__Config__Route__V3__RouteConfiguration *message,
                          struct kb_diag *diag)
{
    struct kb_factory_context factory = {.server = table->server};
    struct kb_route_config *built;
    uint64_t hash = kb_pb_hash(&message->base);
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    if (!table->served || hash != table->hash) {
        factory.arena = &arena;
        built = kb_route_config_create(message, &factory, false, diag);
        if (built != NULL) {
            KB_LOG(RDS, DEBUG, "rds: loading new configuration: config_name=%.*s",
                   KB_STR_ARG(table->name));
            config_kept(table, hash);
            config_publish(table, built);
        }
    }
    kb_arena_dispose(&arena);
}

static void on_update(void *arg, const struct kb_resource_update *update, struct kb_diag *diag)
{
    struct rds_table *table = KB_CAST(arg, rds_table);
    const struct kb_resource *resource = update->resources;

    for (size_t i = 0; i < update->removed_count && !update->state_of_the_world; i++) {
        KB_LOG(RDS, DEBUG,
               "Server sent a delta RDS update attempting to remove a resource (name: %.*s). "
               "Ignoring.",
               KB_STR_ARG(update->removed[i]));
    }
    if (update->resource_count == 0) {
        if (update->state_of_the_world) {
            KB_LOG(RDS, DEBUG, "Missing RDS RouteConfiguration for %.*s in onConfigUpdate()",
                   KB_STR_ARG(table->name));
            kb_stat_inc(table->stats, KB_STAT_RDS_UPDATE_EMPTY);
        }
        table_ready(table);
        return;
    }
    if (update->resource_count != 1) {
        kb_diag_error(diag, "Unexpected RDS resource length: %zu", update->resource_count);
    } else if (!kb_str_eq(resource->name, table->name)) {
        kb_diag_error(diag, "Unexpected RDS configuration (expecting %.*s): %.*s",
                      KB_STR_ARG(table->name), KB_STR_ARG(resource->name));
    } else {
        uint32_t errors = diag->error_count;

        config_update(table, resource->message, diag);
        if (diag->error_count == errors) {
            table_ready(table);
        }
    }
}

/* What serves goes on; who waits for the first answer waits no longer, unless it still may come. */
static void on_failure(void *arg, enum kb_subscription_failure failure)
{
    struct rds_table *table = KB_CAST(arg, rds_table);

    if (failure != KB_SUBSCRIPTION_CONNECTION) {
        table_ready(table);
    }
}

static const struct kb_subscription_callbacks subscription_callbacks = {
    .on_update = on_update,
    .on_failure = on_failure,
};

/* ---- lifecycle ---- */

static void table_destroy(struct rds_table *table)
{
    struct kb_rds *rds = table->server->rds;

    if (table->subscription != NULL) {
        kb_subscription_destroy(table->subscription);
    }
    kb_slot_destroy(table->slot);
    kb_stat_group_destroy(table->group);
    kb_list_unlink(&table->link);
    kb_map_remove(&rds->by_key, table->key);
    if (kb_list_empty(&rds->tables)) {
        table->server->rds = NULL;
        kb_map_dispose(&rds->by_key);
        KB_OBJ_CLEAR(rds);
        free(rds);
    }
    kb_arena_dispose(&table->arena);
    KB_OBJ_CLEAR(table);
    free(table);
}

static struct kb_rds *rds_of(struct kb_server_context *server)
{
    if (server->rds == NULL) {
        server->rds = kb_calloc(1, sizeof(*server->rds));
        KB_OBJ_SET(server->rds, kb_rds);
        kb_map_init(&server->rds->by_key);
        kb_list_init(&server->rds->tables);
    }
    return KB_CAST(server->rds, kb_rds);
}

static struct rds_table *table_create(const rds_message *message, struct kb_str key,
                                      struct kb_str stat_prefix, struct kb_server_context *server,
                                      struct kb_diag *diag)
{
    struct rds_table *table = kb_calloc(1, sizeof(*table));
    struct kb_rds *rds = rds_of(server);
    struct kb_subscription_options options = {.type = KB_RESOURCE_ROUTE_CONFIGURATION,
                                              .source = message->config_source,
                                              .callbacks = &subscription_callbacks,
                                              .arg = table};
    struct kb_str prefix;

    KB_OBJ_SET(table, rds_table);
    table->server = server;
    kb_arena_init(&table->arena, NULL);
    table->key = kb_str_dup(&table->arena, key);
    table->name = kb_str_dup(&table->arena, kb_str_from_cstr(message->route_config_name));
    table->target_name =
        kb_str_printf(&table->arena, "shared target RdsRouteConfigSubscription RDS init %s",
                      message->route_config_name)
            .p;
    kb_list_init(&table->providers);
    prefix = kb_str_printf(&table->arena, "http.%.*s.rds.%.*s.", KB_STR_ARG(stat_prefix),
                           KB_STR_ARG(table->name));
    table->group = kb_stat_group_create(server->stats, prefix, &kb_stat_schema_rds);
    table->stats = kb_stat_group_block(table->group, server->main->index);
    table->slot = kb_slot_create(server->main, server->workers, server->worker_count);
    kb_list_push_back(&rds->tables, &table->link);
    kb_map_put(&rds->by_key, table->key, table);
    options.name = table->name;
    options.stat_prefix = prefix.p;
    kb_diag_push(diag, "config_source");
    table->subscription = kb_subscription_create(server, &options, diag);
    kb_diag_pop(diag);
    if (table->subscription == NULL) {
        table_destroy(table);
        return NULL;
    }
    return table;
}

struct kb_route_provider *kb_route_provider_create(const rds_message *message,
                                                   struct kb_str stat_prefix,
                                                   struct kb_factory_context *factory,
                                                   struct kb_diag *diag)
{
    struct kb_server_context *server = factory->server;
    struct kb_route_provider *provider;
    struct rds_table *table;
    struct kb_arena arena;
    struct kb_str key;

    kb_arena_init(&arena, NULL);
    key = kb_pb_pack(&message->base, &arena);
    table = server->rds != NULL ? kb_map_get(&rds_of(server)->by_key, key) : NULL;
    if (table == NULL) {
        table = table_create(message, key, stat_prefix, server, diag);
    }
    kb_arena_dispose(&arena);
    if (table == NULL) {
        return NULL;
    }
    provider = kb_calloc(1, sizeof(*provider));
    KB_OBJ_SET(provider, kb_route_provider);
    provider->table = KB_CAST(table, rds_table);
    kb_list_push_back(&table->providers, &provider->link);
    kb_init_target_init(&provider->target, table->target_name, target_start);
    kb_init_manager_add(factory->init, &provider->target);
    return provider;
}

void kb_route_provider_destroy(struct kb_route_provider *provider)
{
    struct rds_table *table = KB_CAST(provider, kb_route_provider)->table;

    kb_list_unlink(&provider->link);
    kb_init_target_dispose(&provider->target);
    KB_OBJ_CLEAR(provider);
    free(provider);
    if (kb_list_empty(&table->providers)) {
        table_destroy(table);
    }
}

/* ---- reading ---- */

const struct kb_route_config *kb_route_provider_acquire(const struct kb_route_provider *provider,
                                                        const struct kb_worker *worker,
                                                        struct kb_shared **hold)
{
    struct kb_shared *shared = kb_slot_get(provider->table->slot, worker);

    *hold = shared;
    if (shared == NULL) {
        return NULL;
    }
    kb_shared_ref(shared, worker);
    return KB_CONTAINER_OF(shared, struct rds_config, shared)->config;
}
