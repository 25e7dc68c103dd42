/* SPDX-License-Identifier: Apache-2.0 */
/* Role based access control (envoy.config.rbac.v3.RBAC): policies of permissions and principals,
 * for the HTTP and the network filter. What is not understood refuses the configuration: nothing of
 * an access rule is ever left out. */
#pragma once

#include "proxy/api/factory_context.h"
#include "proxy/api/stream_info.h"
#include "proxy/matcher/match_build.h"

struct kb_rbac_engine; /* immutable, shared by workers */

/* What a decision looks at. */
struct kb_rbac_input {
    const struct kb_header_map *headers; /* of network filters: an empty map */
    const struct kb_stream_info *info;   /* with its connection */
    struct kb_arena *arena;              /* for what a matcher has to write */
};

struct kb_rbac_policy {
    struct kb_str name;
    struct kb_str details;         /* "rbac_access_denied_matched_policy[name]" */
    struct kb_stat_named *allowed; /* NULL: not counted one by one */
    struct kb_stat_named *denied;
};

struct kb_rbac_result {
    bool allowed;
    bool logs;                           /* action LOG: `policy` says whether */
    const struct kb_rbac_policy *policy; /* the first, by name, that matches; NULL: none */
};

/* `base` and one of the stat prefixes of a filter, which ends with a dot unless it is empty; in the
 * arena. */
struct kb_str kb_rbac_stat_prefix(struct kb_str base, const char *prefix, struct kb_arena *arena);

struct Envoy__Config__Rbac__V3__RBAC;
/* In build->arena; NULL after reporting. `network`: rules about headers are refused, in Envoy's
 * words. `policy_stats` "http.a.rbac.policy.": counters of each policy, "<name>.<prefix>allowed"
 * and denied; empty: none. */
const struct kb_rbac_engine *
kb_rbac_engine_create(const struct Envoy__Config__Rbac__V3__RBAC *message, bool network,
                      struct kb_str policy_stats, const char *stat_kind,
                      struct kb_factory_context *factory, const struct kb_match_build *build);
/* Gives the counters back; NULL is allowed. */
void kb_rbac_engine_dispose(const struct kb_rbac_engine *engine);

/* What the configuration of a filter holds of the two engines. */
struct kb_rbac_engines {
    struct kb_regex_list regexes;
    const struct kb_rbac_engine *rules; /* NULL: everybody is let in */
    const struct kb_rbac_engine *shadow_rules;
    struct kb_stat_group *stats; /* NULL: none */
    struct kb_stat_group *shadow_stats;
};

/* What a filter's message says of them, be it the HTTP or the network filter's. */
struct kb_rbac_engines_spec {
    const struct Envoy__Config__Rbac__V3__RBAC *rules; /* NULL: none */
    const struct Envoy__Config__Rbac__V3__RBAC *shadow_rules;
    bool has_matcher; /* matcher or shadow_matcher, which are refused */
    bool network;
    struct kb_str policy_stats; /* as in kb_rbac_engine_create */
    struct kb_str shadow_policy_stats;
};

/* Builds both on zeroed storage, in `arena`; what is wrong is in diag. Statistics are the filter's
 * to add. Dispose in every case. */
void kb_rbac_engines_create(struct kb_rbac_engines *engines,
                            const struct kb_rbac_engines_spec *spec,
                            struct kb_factory_context *factory, struct kb_arena *arena,
                            struct kb_diag *diag);
/* When no worker uses them. */
void kb_rbac_engines_dispose(struct kb_rbac_engines *engines);

/* Whether the engine lets it in, and by which policy. On a worker. */
struct kb_rbac_result kb_rbac_engine_check(const struct kb_rbac_engine *engine,
                                           const struct kb_rbac_input *input);
/* Details of a denial. */
struct kb_str kb_rbac_details(const struct kb_rbac_result *result);

/* ---- rbac_matchers.c ---- */

enum kb_rbac_kind {
    KB_RBAC_ANY,
    KB_RBAC_AND,
    KB_RBAC_OR,
    KB_RBAC_NOT,
    KB_RBAC_HEADER,
    KB_RBAC_PATH,
    KB_RBAC_URI_TEMPLATE,
    KB_RBAC_DESTINATION_IP,
    KB_RBAC_DESTINATION_PORT, /* a range */
    KB_RBAC_SERVER_NAME,
    KB_RBAC_METADATA,
    KB_RBAC_ROUTE_METADATA,
    KB_RBAC_AUTHENTICATED,
    KB_RBAC_SOURCE_IP,
    KB_RBAC_DIRECT_REMOTE_IP,
    KB_RBAC_REMOTE_IP,
    KB_RBAC_FILTER_STATE,
};

struct kb_rbac_matcher {
    enum kb_rbac_kind kind;
    union {
        struct {
            struct kb_rbac_matcher *items;
            size_t count;
        } inner; /* AND, OR, NOT */
        const struct kb_header_matcher *header;
        const struct kb_string_matcher *string; /* PATH, SERVER_NAME; AUTHENTICATED: NULL for any */
        const struct kb_uri_template *uri_template;
        const struct kb_cidr *range;
        struct {
            uint32_t start, end; /* [start, end) */
        } port;
        const struct kb_metadata_matcher *metadata;
        const struct kb_filter_state_matcher *state;
    };
};

struct Envoy__Config__Rbac__V3__Permission;
struct Envoy__Config__Rbac__V3__Principal;
/* KB_ECONFIG after reporting. */
int kb_rbac_permission_init(struct kb_rbac_matcher *matcher,
                            const struct Envoy__Config__Rbac__V3__Permission *message, bool network,
                            const struct kb_match_build *build) KB_MUST_USE;
int kb_rbac_principal_init(struct kb_rbac_matcher *matcher,
                           const struct Envoy__Config__Rbac__V3__Principal *message, bool network,
                           const struct kb_match_build *build) KB_MUST_USE;
bool kb_rbac_matcher_match(const struct kb_rbac_matcher *matcher,
                           const struct kb_rbac_input *input);
