/* SPDX-License-Identifier: Apache-2.0 */
/* All statistics of the process, as the main thread owns, merges and configures them. What the data
 * path does with them is in proxy/api/stats.h; walking over them for output is in
 * proxy/stats/stat_iter.h. Main thread only, unless a function says otherwise. */
#pragma once

#include <pthread.h>

#include "base/list.h"
#include "base/map.h"
#include "base/obj.h"
#include "proxy/api/stats.h"
#include "proxy/stats/histogram.h"
#include "proxy/stats/histogram_settings.h"
#include "proxy/stats/stat_matcher.h"
#include "proxy/stats/tag_extract.h"

enum kb_stat_scope_type { KB_STAT_SCOPE_GROUP, KB_STAT_SCOPE_NAMED, KB_STAT_SCOPE_TEXT };

/* Scopes kept for dumps under way; at more, the dumps are cut. */
#define KB_STAT_GONE_MAX 20000

/* What groups, named statistics and text readouts have in common: a place in the order of names. */
struct kb_stat_scope {
    struct kb_list link; /* in the store's list */
    const char *name;    /* a group's prefix, with its final dot; else the full name */
    uint32_t name_len;
    uint8_t type; /* enum kb_stat_scope_type */
    bool gone;    /* destroyed, and kept only for a dump */
};

struct kb_stat_text;

struct kb_stat_store {
    KB_OBJ;
    uint32_t worker_count; /* traffic workers; block indexes go up to and with this, which is the
                              main thread */
    struct kb_list scopes;
    uint32_t scope_count;
    struct kb_map groups;        /* prefix -> the first kb_stat_group of it */
    struct kb_map named;         /* full name -> kb_stat_named */
    struct kb_map texts;         /* full name -> kb_stat_text */
    pthread_mutex_t tagged_lock; /* of the next two, which workers add to */
    struct kb_map tagged;        /* full name -> kb_stat_named */
    struct kb_list tagged_new;   /* not in `scopes` yet */
    bool tagged_refused;         /* and said so; atomic */
    char **zones;                /* "zone.a.b." by zone number, for the process's life */
    uint32_t zone_count;
    uint32_t pins;       /* dumps that are under way: scopes stay in memory meanwhile */
    struct kb_list gone; /* scopes that were destroyed meanwhile */
    uint32_t gone_count;
    uint64_t pin_epoch; /* a dump of an older epoch must end: too much was kept for it */
    /* From the bootstrap's stats_config; owned; NULL when it says nothing. */
    struct kb_stat_matcher *matcher;
    struct kb_tag_producer
        *tags; /* made at first use when nothing was configured: see kb_stat_store_tags */
    struct kb_histogram_settings *histogram_settings;
    uint64_t recent_lookups_capacity; /* /stats/recentlookups */
    void (*flushed)(void *arg);       /* kb_stat_store_when_flushed */
    void *flushed_arg;
};
KB_OBJ_MAGIC(kb_stat_store, 0x53544154);

/* An empty store for so many traffic workers and the main thread. */
struct kb_stat_store *kb_stat_store_create(uint32_t worker_count);
/* Every group must have been destroyed; named statistics and texts go with the store. */
void kb_stat_store_destroy(struct kb_stat_store *store);

/* Takes the bootstrap's stats_config (NULL: none) and the --stats-tag options into use; once,
 * before anything is shown. Errors go to diag, whose present path is stats_config's. */
int kb_stat_store_configure(struct kb_stat_store *store,
                            const Envoy__Config__Metrics__V3__StatsConfig *config,
                            const struct kb_tag *cli_tags, size_t cli_tag_count,
                            struct kb_diag *diag) KB_MUST_USE;

/* Merges what the workers' histograms recorded; called every stats_flush_interval. Until the first
 * call after a sample a histogram has no recorded values. */
void kb_stat_store_flush(struct kb_stat_store *store);
/* Whom to call at the end of every flush; NULL: nobody. */
void kb_stat_store_when_flushed(struct kb_stat_store *store, void (*flushed)(void *arg), void *arg);

/* Sets every counter to 0 as /reset_counters does: gauges, histograms and "was used" stay. */
void kb_stat_store_reset_counters(struct kb_stat_store *store);

/* Sets a text readout ("control_plane.identifier"); made at first use. Both are copied. */
void kb_stat_text_set(struct kb_stat_store *store, struct kb_str name, struct kb_str text);
/* The same for those that come and go: made empty at the first hold, gone with the last release. */
struct kb_stat_text *kb_stat_text_hold(struct kb_stat_store *store, struct kb_str name);
void kb_stat_text_put(struct kb_stat_text *readout, struct kb_str text);
void kb_stat_text_release(struct kb_stat_store *store, struct kb_stat_text *readout);

/* Gives values that are computed when somebody looks: fills *value and returns true, and the
 * statistic counts as used; false leaves `id` to the group's cells. Main thread. */
typedef bool (*kb_stat_provide_fn)(void *arg, unsigned id, uint64_t *value);
/* `provide` NULL ends it if `arg` is still the one that was set last: a group may have passed to a
 * newer owner of the same name. `arg` must live until then. */
void kb_stat_group_set_provider(struct kb_stat_group *group, kb_stat_provide_fn provide, void *arg);

/* Leaves statistics out of the group. `ids` is borrowed for the life of the group. */
void kb_stat_group_set_hidden(struct kb_stat_group *group, const uint16_t *ids, size_t count);

/* Leaves the whole group out until some worker has taken its block of it. */
void kb_stat_group_set_from_first_block(struct kb_stat_group *group);

/* The admin listener's groups have fewer members than others of their schema, as in Envoy. */
void kb_stat_group_hide_for_admin(struct kb_stat_group *group);

/* The present value of a counter (since the last reset) or gauge over all workers. */
uint64_t kb_stat_group_value(const struct kb_stat_group *group, unsigned id);
/* The samples of a histogram up to the last flush, or NULL when there are none. */
const struct kb_histogram_total *kb_stat_group_histogram(const struct kb_stat_group *group,
                                                         unsigned id);
struct kb_str kb_stat_group_prefix(const struct kb_stat_group *group);

/* The present value of a named counter or gauge. */
uint64_t kb_stat_named_value(const struct kb_stat_named *named);

/* The rules that make labels of names. */
struct kb_tag_producer *kb_stat_store_tags(struct kb_stat_store *store);

/* Bytes of heap that a group and its blocks hold. */
size_t kb_stat_group_bytes(const struct kb_stat_group *group);
