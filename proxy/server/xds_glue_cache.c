/* SPDX-License-Identifier: Apache-2.0 */
/* Between subscriptions and the configuration cache: when to serve from it, and what to keep. */
#include <string.h>

#include "base/log.h"
#include "proxy/server/xds_glue_internal.h"

void kb_xds_cache_create(struct kb_xds_glue *glue, struct kb_str dir)
{
    struct kb_server_context *server = glue->server;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    glue->cache =
        kb_config_cache_create(&server->main->loop, dir,
                               kb_str_printf(&arena, "%.*s/%.*s", KB_STR_ARG(server->node_cluster),
                                             KB_STR_ARG(server->node_id)));
    kb_arena_dispose(&arena);
}

static bool is_cached(const struct kb_subscription *subscription)
{
    return subscription->glue->cache != NULL && subscription->mux != NULL &&
           subscription->type != KB_XDS_SECRET;
}

void kb_xds_cache_left(struct kb_subscription *subscription, struct kb_xds_update *update,
                       struct kb_arena *arena)
{
    struct kb_xds_update cached;
    struct kb_str *removed;
    size_t count = 0;

    subscription->from_cache = false;
    subscription->glue->from_cache--;
    if (update->state_of_the_world || subscription->name[0] != '\0' ||
        !kb_config_cache_load(subscription->glue->cache, subscription->type, KB_STR(""), arena,
                              &cached)) {
        return;
    }
    removed = kb_arena_alloc(arena, (cached.resource_count + 1) * sizeof(*removed),
                             _Alignof(struct kb_str));
    for (size_t i = 0; i < cached.resource_count; i++) {
        bool stays = false;

        for (size_t k = 0; k < update->resource_count && !stays; k++) {
            stays = kb_str_eq(update->resources[k].name, cached.resources[i].name);
        }
        if (!stays) {
            removed[count++] = cached.resources[i].name;
        }
    }
    update->removed = removed;
    update->removed_count = count;
}

void kb_xds_cache_keep(struct kb_subscription *subscription, const struct kb_xds_update *update)
{
    if (is_cached(subscription)) {
        kb_config_cache_keep(subscription->glue->cache, subscription->type, update,
                             update->state_of_the_world && subscription->name[0] == '\0');
    }
}

bool kb_xds_cache_serve(struct kb_subscription *subscription)
{
    struct kb_xds_update update;
    struct kb_arena arena;
    struct kb_diag diag;
    bool known;

    if (!is_cached(subscription) || subscription->heard || subscription->from_cache) {
        return false;
    }
    kb_arena_init(&arena, NULL);
    known = kb_config_cache_load(subscription->glue->cache, subscription->type,
                                 kb_str_from_cstr(subscription->name), &arena, &update);
    if (known) {
        KB_LOG(CONFIG, WARNING,
               "the control plane cannot be reached: %s%s%s is served from '%s' (%zu resource(s))",
               kb_xds_types[subscription->type].short_name,
               subscription->name[0] != '\0' ? " " : "", subscription->name,
               kb_config_cache_path(subscription->glue->cache), update.resource_count);
        subscription->from_cache = true;
        subscription->glue->from_cache++;
        kb_diag_init(&diag);
        kb_xds_answer_take(subscription, &update, &diag);
        for (const struct kb_diag_entry *entry = diag.first; entry != NULL; entry = entry->next) {
            struct kb_str text = kb_diag_format(&diag, entry);

            KB_LOG(CONFIG, WARNING, "config cache: %.*s", KB_STR_ARG(text));
        }
        kb_diag_dispose(&diag);
    }
    kb_arena_dispose(&arena);
    return known;
}

void kb_xds_cache_forget(struct kb_subscription *subscription)
{
    struct kb_xds_glue *glue = subscription->glue;

    if (subscription->from_cache) {
        subscription->from_cache = false;
        glue->from_cache--;
    }
    if (!is_cached(subscription) || glue->stopped || subscription->name[0] == '\0') {
        return;
    }
    KB_LIST_FOREACH (link, &glue->subscriptions) {
        const struct kb_subscription *other = KB_LIST_ENTRY(link, struct kb_subscription, link);

        if (other->type == subscription->type && strcmp(other->name, subscription->name) == 0) {
            return;
        }
    }
    kb_config_cache_forget(glue->cache, subscription->type, kb_str_from_cstr(subscription->name));
}

bool kb_xds_glue_from_cache(const struct kb_xds_glue *glue)
{
    return glue != NULL && glue->from_cache > 0;
}
