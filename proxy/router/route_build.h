/* SPDX-License-Identifier: Apache-2.0 */
/* Building of a route table: what its parts share while the messages are read. Main thread. */
#pragma once

#include "envoy/config/route/v3/route.pb-c.h"
#include "envoy/config/route/v3/route_components.pb-c.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/wrappers.pb-c.h"

#include "proxy/router/route_table.h"

struct kb_route_build {
    struct kb_match_build match; /* arena and regular expressions of the table, diag */
    struct kb_route_config *config;
    struct kb_factory_context *factory;
    bool validate_clusters;
    bool failed; /* an error was reported */
    uint64_t body_max;
    struct kb_str
        stat_prefix;        /* of the route that is being built: "vhost.v.route.r."; empty: none */
    struct kb_map clusters; /* name -> struct kb_route_cluster */
    struct kb_map names;    /* text -> itself: names that many routes share */
};

/* What routes take from their virtual host when they have none of their own. */
struct kb_vhost_defaults {
    const struct kb_retry_policy *retry;
    const struct kb_mirror_policy *mirrors;
    size_t mirror_count;
    bool hedge_on_per_try_timeout;
    const Envoy__Config__Route__V3__VirtualHost *message;
};

/* Reports at the present path and marks the build as failed. */
void kb_route_build_error(struct kb_route_build *build, const char *fmt, ...) KB_PRINTF(2, 3);
/* The statistics under that prefix, given back with the table; NULL without a store. */
struct kb_stat_group *kb_route_build_stats(struct kb_route_build *build, struct kb_str prefix);
/* The same text once per table. */
struct kb_str kb_route_build_intern(struct kb_route_build *build, const char *text);
struct kb_str kb_route_build_dup(struct kb_route_build *build, const char *text);
/* The cluster of that name; `unknown` is the error's format when it is not there and clusters are
 * to be checked. */
const struct kb_route_cluster *kb_route_build_cluster(struct kb_route_build *build,
                                                      const char *name, const char *unknown);
/* Milliseconds, rounded down; `absent` when there is no message. Negative ones are reported. */
uint64_t kb_route_build_ms(struct kb_route_build *build, const char *field,
                           const Google__Protobuf__Duration *duration, uint64_t absent);
/* Reported under `field`. */
const struct kb_regex *kb_route_build_regex(struct kb_route_build *build, const char *field,
                                            const Envoy__Type__Matcher__V3__RegexMatcher *message);

/* route_build.c: fills the entry and its key. */
void kb_route_build_entry(struct kb_route_build *build,
                          const Envoy__Config__Route__V3__Route *message,
                          const struct kb_virtual_host *vhost,
                          const struct kb_vhost_defaults *defaults, struct kb_route_entry *entry,
                          struct kb_path_key *key);
/* route_match_build.c: path specifier and conditions. */
void kb_route_build_match(struct kb_route_build *build,
                          const Envoy__Config__Route__V3__RouteMatch *message,
                          struct kb_route_entry *entry, struct kb_path_key *key);
/* route_action_build.c: cluster, rewrites, timeouts. route_answer_build.c: redirects, direct
 * responses. */
void kb_route_build_action(struct kb_route_build *build,
                           const Envoy__Config__Route__V3__RouteAction *message,
                           const struct kb_vhost_defaults *defaults, struct kb_route_entry *entry,
                           struct kb_route_changes *changes);
void kb_route_build_redirect(struct kb_route_build *build,
                             const Envoy__Config__Route__V3__RedirectAction *message,
                             struct kb_route_entry *entry);
void kb_route_build_direct(struct kb_route_build *build,
                           const Envoy__Config__Route__V3__DirectResponseAction *message,
                           struct kb_route_entry *entry);
/* route_policy_build.c */
const struct kb_route_policies *
kb_route_build_policies(struct kb_route_build *build,
                        const Envoy__Config__Route__V3__RouteAction *message,
                        const struct kb_vhost_defaults *defaults, struct kb_route_entry *entry);
/* *count may become 0; NULL then. */
const struct kb_mirror_policy *
kb_route_build_mirrors(struct kb_route_build *build,
                       Envoy__Config__Route__V3__RouteAction__RequestMirrorPolicy *const *messages,
                       size_t n, size_t *count);
/* retry_policy.c */
const struct kb_retry_policy *
kb_route_build_retry(struct kb_route_build *build,
                     const Envoy__Config__Route__V3__RetryPolicy *message);
/* route_filter_config.c: typed_per_filter_config of one level, an array of pointers to its map
 * entries. */
const struct kb_filter_configs *kb_route_build_filters(struct kb_route_build *build,
                                                       void *const *entries, size_t count);
