/* SPDX-License-Identifier: Apache-2.0 */
/* Where resources come from after start: a room asks for resources of one type by name (or for all
 * of the type) and hears of each change (Envoy Config::Subscription). Whether they come over ADS,
 * over a stream of their own, or from a watched file, SotW or delta, is decided by the config
 * source. Implemented in proxy/server/xds_glue.c over xds/. Main thread. */
#pragma once

#include "base/arena.h"
#include "base/diag.h"

struct kb_subscription;
struct kb_server_context;
struct Envoy__Config__Core__V3__ConfigSource;

enum kb_resource_type {
    KB_RESOURCE_LISTENER,
    KB_RESOURCE_ROUTE_CONFIGURATION,
    KB_RESOURCE_CLUSTER,
    KB_RESOURCE_CLUSTER_LOAD_ASSIGNMENT,
    KB_RESOURCE_SECRET,
    KB_RESOURCE_EXTENSION_CONFIG, /* envoy.config.core.v3.TypedExtensionConfig */
    KB_RESOURCE_TYPE_COUNT
};

/* One decoded resource; borrowed for the call. */
struct kb_resource {
    struct kb_str name;
    struct kb_str version;
    const void *message; /* of the type's message, its constraints checked */
    uint64_t received_wall_ns;
};

/* One response, as one subscription sees it. */
struct kb_resource_update {
    const struct kb_resource *resources; /* added or changed; state of the world: all there are */
    size_t resource_count;
    const struct kb_str *removed; /* delta only: names; state of the world: what is not in
                                     `resources` is gone (LDS and CDS) */
    size_t removed_count;
    struct kb_str version; /* system_version_info / version_info */
    bool state_of_the_world;
};

enum kb_subscription_failure {
    KB_SUBSCRIPTION_FETCH_TIMEOUT, /* initial_fetch_timeout is over; a late answer still comes */
    KB_SUBSCRIPTION_CONNECTION,    /* the stream ended or could not be opened; it is tried again */
    KB_SUBSCRIPTION_REJECTED,      /* an answer could not be decoded, or on_update refused it */
};

struct kb_subscription_callbacks {
    /* Takes what is good of the update, and reports each resource that is not to diag: any error in
     * it makes a NACK with its text (partial application, as Envoy). */
    void (*on_update)(void *arg, const struct kb_resource_update *update, struct kb_diag *diag);
    /* May be NULL. What serves goes on. */
    void (*on_failure)(void *arg, enum kb_subscription_failure failure);
};

/* The same counts as the group under stat_prefix, for whoever has many subscriptions and shows them
 * by a provider of its own (the clusters). */
struct kb_subscription_counts {
    uint32_t update_attempt, update_success, update_failure, update_rejected, init_fetch_timeout;
    uint64_t update_time_ms; /* wall clock; 0: never */
    uint64_t version;        /* XXH64 of the version's text; 0: none */
};

struct kb_subscription_options {
    enum kb_resource_type type;
    const struct Envoy__Config__Core__V3__ConfigSource *source; /* copied as far as needed */
    struct kb_str name;      /* one resource; empty: all of the type (LDS, CDS) */
    const char *stat_prefix; /* "cluster_manager.cds.": update_attempt, update_success...; the
                                group is made by the subscription; NULL: none */
    struct kb_subscription_counts *counts; /* outlives the subscription; NULL: none */
    const struct kb_subscription_callbacks *callbacks;
    void *arg;
};

/* Makes a subscription; it begins with kb_subscription_start. NULL after the config source was
 * refused in diag (an unknown or non-static cluster, a missing path, ads without an ads_config). */
struct kb_subscription *kb_subscription_create(struct kb_server_context *server,
                                               const struct kb_subscription_options *options,
                                               struct kb_diag *diag);
/* The name that it was made with. Lives as long as the subscription. */
struct kb_str kb_subscription_name(const struct kb_subscription *subscription);
/* Asks; the first answer may come from within (another subscriber has the resource already, or a
 * file). */
void kb_subscription_start(struct kb_subscription *subscription);
/* No callback comes any more. */
void kb_subscription_destroy(struct kb_subscription *subscription);
/* After a room changed many subscriptions: between pause and resume no request of this type is
 * sent; counted. As Envoy pauses EDS while CDS is applied, and RDS while LDS is. */
void kb_subscriptions_pause(struct kb_server_context *server, enum kb_resource_type type);
void kb_subscriptions_resume(struct kb_server_context *server, enum kb_resource_type type);
