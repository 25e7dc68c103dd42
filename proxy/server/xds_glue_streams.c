/* SPDX-License-Identifier: Apache-2.0 */
/* The streams under subscriptions, ADS and those of one subscription alone: how they are made, what
 * they tell of themselves, and how they go. */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/server/xds_glue_internal.h"
#include "proxy/stats/stat_store.h"

/* ---- What a stream tells ---- */

static void ads_connected(void *arg, bool connected)
{
    struct kb_xds_glue *glue = KB_CAST(arg, kb_xds_glue);

    kb_stat_gauge_set(glue->control_plane_stats, KB_STAT_CONTROL_PLANE_CONNECTED_STATE, connected);
}

static void ads_identified(void *arg, struct kb_str identifier)
{
    struct kb_xds_glue *glue = KB_CAST(arg, kb_xds_glue);

    kb_stat_text_set(glue->server->stats, KB_STR("control_plane.identifier"), identifier);
}

static void ads_pending_requests(void *arg, size_t count)
{
    struct kb_xds_glue *glue = KB_CAST(arg, kb_xds_glue);

    if (count > 0 ||
        glue->control_plane_stats->cells[KB_STAT_CONTROL_PLANE_PENDING_REQUESTS] != 0) {
        kb_stat_gauge_set(glue->control_plane_stats, KB_STAT_CONTROL_PLANE_PENDING_REQUESTS, count);
    }
}

static void ads_rate_limited(void *arg)
{
    struct kb_xds_glue *glue = KB_CAST(arg, kb_xds_glue);

    kb_stat_inc(glue->control_plane_stats, KB_STAT_CONTROL_PLANE_RATE_LIMIT_ENFORCED);
}

static void stream_warned(void *arg, struct kb_diag *diag)
{
    struct kb_xds_glue *glue = KB_CAST(arg, kb_xds_glue);

    for (const struct kb_diag_entry *entry = diag->first; entry != NULL; entry = entry->next) {
        bool deprecated = kb_str_find(entry->text, KB_STR("deprecated")) >= 0;
        struct kb_str text;

        if (entry->level != KB_DIAG_WARNING ||
            (deprecated ? glue->deprecated_fields_quiet : glue->unknown_fields_ignored)) {
            continue;
        }
        text = kb_diag_format(diag, entry);
        if (deprecated) {
            KB_LOG(MISC, WARNING, "Deprecated field: %.*s", KB_STR_ARG(text));
            continue;
        }
        KB_LOG(CONFIG, WARNING, "Unknown field: %.*s", KB_STR_ARG(text));
        kb_stat_inc(kb_stat_group_block(glue->server_group, glue->server->main->index),
                    KB_STAT_SERVER_DYNAMIC_UNKNOWN_FIELDS);
    }
}

static const struct kb_xds_mux_observer ads_observer = {
    ads_connected, ads_identified, ads_pending_requests, ads_rate_limited, stream_warned};

/* Streams of one subscription count in nobody's statistics. */
static void own_connected(void *arg, bool connected)
{
    (void)arg;
    (void)connected;
}

static void own_identified(void *arg, struct kb_str identifier)
{
    (void)arg;
    (void)identifier;
}

static void own_pending_requests(void *arg, size_t count)
{
    (void)arg;
    (void)count;
}

static void own_rate_limited(void *arg)
{
    (void)arg;
}

static const struct kb_xds_mux_observer own_observer = {
    own_connected, own_identified, own_pending_requests, own_rate_limited, stream_warned};

/* ---- Streams and where they go ---- */

struct kb_xds_mux *kb_xds_mux_make(struct kb_xds_glue *glue, struct kb_xds_source *source,
                                   const char *method, bool ads)
{
    struct kb_xds_mux_options options;

    kb_xds_source_options(source, &options);
    options.method = kb_str_from_cstr(method);
    options.node = glue->node;
    options.unknown_fields_refused = glue->unknown_fields_refused;
    options.pushes = &glue->pushes;
    options.observer = ads ? &ads_observer : &own_observer;
    options.arg = glue;
    return kb_xds_mux_create(&options);
}

struct kb_xds_source *kb_xds_source_make(struct kb_xds_glue *glue,
                                         const Envoy__Config__Core__V3__ApiConfigSource *message,
                                         struct kb_diag *diag)
{
    struct kb_xds_source *source = kb_calloc(1, sizeof(*source));

    if (!kb_xds_source_init(source, glue->server, glue->bootstrap, message, diag)) {
        kb_xds_source_dispose(source);
        free(source);
        return NULL;
    }
    return source;
}

void kb_xds_source_free(struct kb_xds_source *source)
{
    if (source != NULL) {
        kb_xds_source_dispose(source);
        free(source);
    }
}

/* The own stream goes when no callback of it is under way. */
struct mux_grave {
    struct kb_deferred deferred;
    struct kb_xds_mux *mux;
    struct kb_xds_source *source;
};

static void mux_bury(struct kb_deferred *deferred)
{
    struct mux_grave *grave = KB_CONTAINER_OF(deferred, struct mux_grave, deferred);

    kb_xds_mux_destroy(grave->mux);
    kb_xds_source_free(grave->source);
    free(grave);
}

void kb_xds_own_mux_destroy(struct kb_subscription *subscription)
{
    struct mux_grave *grave;

    if (subscription->source == NULL || subscription->mux == NULL) {
        return;
    }
    grave = kb_calloc(1, sizeof(*grave));
    kb_deferred_init(&grave->deferred, mux_bury);
    grave->mux = subscription->mux;
    grave->source = subscription->source;
    subscription->source = NULL;
    kb_loop_defer(&subscription->glue->server->main->loop, &grave->deferred);
}
