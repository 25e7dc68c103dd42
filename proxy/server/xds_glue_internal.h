/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the control plane's client; for the files of proxy/server/xds_glue*.c only. */
#pragma once

#include "proxy/server/config_cache.h"
#include "proxy/server/xds_glue.h"
#include "xds/xds_fs.h"

struct kb_xds_glue {
    KB_OBJ;
    struct kb_server_context *server;
    const Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap;
    Envoy__Config__Core__V3__Node *node;
    struct kb_xds_source *ads_source; /* NULL: no ads_config */
    struct kb_xds_mux *ads;
    struct kb_stat_group *control_plane;
    struct kb_stat_block *control_plane_stats;
    struct kb_stat_group *server_group;
    struct kb_list subscriptions;
    struct kb_unsupported *unsupported;
    struct kb_xds_push_log pushes;
    struct kb_config_cache *cache; /* NULL: none */
    uint32_t from_cache;           /* subscriptions that have only what was cached */
    bool unreachable;              /* the control plane, from the start on */
    bool stopped;                  /* the process ends */
    bool unknown_fields_refused;
    bool unknown_fields_ignored;
    bool deprecated_fields_quiet;
};
KB_OBJ_MAGIC(kb_xds_glue, 0x58474c55);

struct kb_subscription {
    KB_OBJ;
    struct kb_list link;
    struct kb_xds_glue *glue;
    const struct kb_subscription_callbacks *callbacks;
    void *arg;
    enum kb_xds_type type;
    struct kb_xds_mux *mux;       /* the ADS stream's, or own; NULL: a file */
    struct kb_xds_source *source; /* of the own one */
    struct kb_xds_watch *watch;   /* NULL: not started, or a file */
    struct kb_xds_fs *file;
    struct kb_subscription_counts *counts; /* NULL: none */
    struct kb_stat_group *group;           /* NULL: none */
    struct kb_stat_block *stats;
    struct kb_stat_text *version_text;
    struct kb_admin_resource *shown; /* for /config_dump, on the heap but for the name; NULL: its
                                        manager keeps it */
    struct kb_timer timeout;
    uint64_t timeout_ms; /* 0: waits without end */
    uint32_t busy;       /* callbacks of it under way */
    bool heard;          /* an answer came */
    bool from_cache;     /* none, so it has what was cached */
    bool destroyed;      /* meanwhile */
    char name[];
};
KB_OBJ_MAGIC(kb_subscription, 0x53554253);

/* ---- xds_glue.c ---- */

/* Hands an answer to the subscription's owner, and counts it when it was taken. */
void kb_xds_answer_take(struct kb_subscription *subscription, const struct kb_xds_update *update,
                        struct kb_diag *diag);

extern const enum kb_xds_type kb_xds_type_of[KB_RESOURCE_TYPE_COUNT];

/* ---- xds_glue_streams.c ---- */

/* Where an api_config_source points; NULL after a report. */
struct kb_xds_source *kb_xds_source_make(struct kb_xds_glue *glue,
                                         const Envoy__Config__Core__V3__ApiConfigSource *message,
                                         struct kb_diag *diag);
/* NULL is allowed. */
void kb_xds_source_free(struct kb_xds_source *source);
/* A stream to there, not started; `source` outlives it. `ads`: it counts in control_plane.*. */
struct kb_xds_mux *kb_xds_mux_make(struct kb_xds_glue *glue, struct kb_xds_source *source,
                                   const char *method, bool ads);
/* Ends the subscription's own stream, if it has one, when no callback of it is under way. */
void kb_xds_own_mux_destroy(struct kb_subscription *subscription);

/* ---- xds_glue_shown.c: for /config_dump ---- */

/* A new subscription, before anything came. */
void kb_xds_shown_init(struct kb_subscription *subscription);
/* Keeps what was taken, if it is of a type that no manager keeps. */
void kb_xds_shown_keep(struct kb_subscription *subscription, const struct kb_resource *resource);
/* The subscription ends. */
void kb_xds_shown_clear(struct kb_subscription *subscription);

/* ---- xds_glue_cache.c: --config-cache; all are harmless without it ---- */

/* Reads what the last process left. */
void kb_xds_cache_create(struct kb_xds_glue *glue, struct kb_str dir);
/* The control plane cannot be reached, and nothing ever came: gives the subscription what was
 * cached. False: nothing is known, or it has something. */
bool kb_xds_cache_serve(struct kb_subscription *subscription);
/* The first answer after what was cached came: an incremental one does not say what is gone
 * meanwhile, as the server was not told what we have, so that is added (in the arena). */
void kb_xds_cache_left(struct kb_subscription *subscription, struct kb_xds_update *update,
                       struct kb_arena *arena);
/* An answer was taken, whole. */
void kb_xds_cache_keep(struct kb_subscription *subscription, const struct kb_xds_update *update);
/* The subscription ends: what nobody asks for any more is not kept either. */
void kb_xds_cache_forget(struct kb_subscription *subscription);
