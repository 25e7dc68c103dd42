/* SPDX-License-Identifier: Apache-2.0 */
/* What few routes have: hashing, mirroring, internal redirects, hedging, old gRPC timeouts. */
#include "proxy/router/hash_policy.h"
#include "proxy/router/rate_limit.h"
#include "proxy/router/route_build.h"

#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/config/core/v3/extension.pb-c.h"
#include "envoy/extensions/internal_redirect/allow_listed_routes/v3/allow_listed_routes_config.pb-c.h"
#include "proto/any.h"
#include "proto/wkt.h"
#include "proxy/api/metadata_criteria.h"
#include "proxy/http/header_mutation_list.h"

#define PREDICATES "envoy.extensions.internal_redirect."

typedef Envoy__Extensions__InternalRedirect__AllowListedRoutes__V3__AllowListedRoutesConfig
    AllowListed;

static void
mirror_cluster(struct kb_route_build *build,
               const Envoy__Config__Route__V3__RouteAction__RequestMirrorPolicy *message,
               struct kb_mirror_policy *mirror)
{
    bool name = message->cluster[0] != '\0';
    bool header = message->cluster_header[0] != '\0';
    const struct kb_route_cluster *cluster;

    mirror->slot = UINT32_MAX;
    if (name && header) {
        kb_route_build_error(build,
                             "Only one of cluster '%s' or cluster_header '%s' in request mirror "
                             "policy can be specified",
                             message->cluster, message->cluster_header);
    } else if (header) {
        mirror->cluster_header = kb_header_name_dup(build->match.arena, message->cluster_header);
    } else if (name) {
        cluster = kb_route_build_cluster(build, message->cluster, "shadow cluster");
        mirror->cluster = cluster != NULL ? cluster->name : KB_STR("");
        mirror->slot = cluster != NULL ? cluster->slot : UINT32_MAX;
    } else {
        kb_route_build_error(build, "Exactly one of cluster or cluster_header in request mirror "
                                    "policy need to be specified");
    }
}

const struct kb_mirror_policy *
kb_route_build_mirrors(struct kb_route_build *build,
                       Envoy__Config__Route__V3__RouteAction__RequestMirrorPolicy *const *messages,
                       size_t n, size_t *count)
{
    struct kb_mirror_policy *mirrors;

    *count = n;
    if (n == 0) {
        return NULL;
    }
    mirrors = kb_arena_calloc(build->match.arena, n * sizeof(*mirrors));
    for (size_t i = 0; i < n; i++) {
        struct kb_runtime_fraction fraction = {
            .key = KB_STR(""), .numerator = 100, .denominator = 100};

        kb_diag_push_index(build->match.diag, "request_mirror_policies", i);
        mirror_cluster(build, messages[i], &mirrors[i]);
        if (messages[i]->runtime_fraction != NULL) {
            kb_runtime_fraction_init(&fraction, messages[i]->runtime_fraction, build->match.arena);
        }
        mirrors[i].runtime_key = fraction.key;
        mirrors[i].numerator = fraction.numerator;
        mirrors[i].denominator = fraction.denominator;
        mirrors[i].host_rewrite = kb_route_build_dup(build, messages[i]->host_rewrite_literal);
        mirrors[i].disable_host_suffix = messages[i]->disable_shadow_host_suffix_append;
        mirrors[i].mutations = kb_header_mutation_list_create(
            messages[i]->request_headers_mutations, messages[i]->n_request_headers_mutations,
            "request_headers_mutations", &build->match, &build->failed);
        mirrors[i].trace_sampled = messages[i]->trace_sampled == NULL
                                       ? -1
                                       : (int8_t)(messages[i]->trace_sampled->value ? 1 : 0);
        kb_diag_pop(build->match.diag);
    }
    return mirrors;
}

/* 1 << (status - 301); statuses that are no redirects are left out, as in Envoy. */
static uint8_t redirect_codes(const Envoy__Config__Route__V3__InternalRedirectPolicy *message)
{
    uint8_t codes = 0;

    if (message->n_redirect_response_codes == 0) {
        return 1 << (302 - 301);
    }
    for (size_t i = 0; i < message->n_redirect_response_codes; i++) {
        uint32_t code = message->redirect_response_codes[i];

        if (code == 301 || code == 302 || code == 303 || code == 307 || code == 308) {
            codes |= (uint8_t)(1U << (code - 301));
        }
    }
    return codes;
}

/* The message of a predicate; NULL after an error. */
static const AllowListed *allow_listed_read(struct kb_route_build *build,
                                            const Google__Protobuf__Any *any)
{
    const AllowListed *message = KB_ANY_UNPACK(
        any,
        envoy__extensions__internal_redirect__allow_listed_routes__v3__allow_listed_routes_config,
        AllowListed, build->match.arena, build->match.diag);

    build->failed |= message == NULL;
    return message;
}

static void predicate_build(struct kb_route_build *build,
                            const Envoy__Config__Core__V3__TypedExtensionConfig *message,
                            struct kb_redirect_predicate *predicate)
{
    struct kb_str type = kb_any_inner_name(message->typed_config, build->match.arena);
    const AllowListed *listed;
    struct kb_str *names;

    if (kb_str_eq(type, KB_STR(PREDICATES "previous_routes.v3.PreviousRoutesConfig"))) {
        predicate->kind = KB_REDIRECT_PREVIOUS_ROUTES;
    } else if (kb_str_eq(type, KB_STR(PREDICATES "safe_cross_scheme.v3.SafeCrossSchemeConfig"))) {
        predicate->kind = KB_REDIRECT_SAFE_CROSS_SCHEME;
    } else if (kb_str_eq(type,
                         KB_STR(PREDICATES "allow_listed_routes.v3.AllowListedRoutesConfig"))) {
        predicate->kind = KB_REDIRECT_ALLOW_LISTED;
        listed = allow_listed_read(build, message->typed_config);
        if (listed == NULL) {
            return;
        }
        names = kb_arena_calloc(build->match.arena,
                                (listed->n_allowed_route_names + 1) * sizeof(*names));
        for (size_t i = 0; i < listed->n_allowed_route_names; i++) {
            names[i] = kb_route_build_dup(build, listed->allowed_route_names[i]);
        }
        predicate->allowed_route_names = names;
        predicate->allowed_count = listed->n_allowed_route_names;
    } else {
        kb_route_build_error(
            build, "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
            message->name, KB_STR_ARG(type));
    }
}

static const struct kb_redirect_predicate *
predicates_build(struct kb_route_build *build,
                 const Envoy__Config__Route__V3__InternalRedirectPolicy *message, size_t *count)
{
    struct kb_redirect_predicate *predicates =
        kb_arena_calloc(build->match.arena, (message->n_predicates + 1) * sizeof(*predicates));

    *count = message->n_predicates;
    for (size_t i = 0; i < message->n_predicates; i++) {
        kb_diag_push_index(build->match.diag, "predicates", i);
        predicate_build(build, message->predicates[i], &predicates[i]);
        kb_diag_pop(build->match.diag);
    }
    return predicates;
}

static const struct kb_internal_redirect_policy *
internal_redirect_build(struct kb_route_build *build,
                        const Envoy__Config__Route__V3__InternalRedirectPolicy *message)
{
    struct kb_internal_redirect_policy *policy =
        KB_ARENA_NEW(build->match.arena, struct kb_internal_redirect_policy);
    struct kb_str *copy;

    policy->max_redirects =
        message->max_internal_redirects != NULL ? message->max_internal_redirects->value : 1;
    policy->codes = redirect_codes(message);
    policy->allow_cross_scheme = message->allow_cross_scheme_redirect;
    policy->predicates = predicates_build(build, message, &policy->predicate_count);
    copy = kb_arena_calloc(build->match.arena,
                           (message->n_response_headers_to_copy + 1) * sizeof(*copy));
    for (size_t i = 0; i < message->n_response_headers_to_copy; i++) {
        kb_diag_push_index(build->match.diag, "response_headers_to_copy", i);
        if (!kb_header_modifiable(kb_str_from_cstr(message->response_headers_to_copy[i]))) {
            kb_route_build_error(build, ":-prefixed headers or Hosts may not be specified here.");
        }
        kb_diag_pop(build->match.diag);
        copy[i] = kb_header_name_dup(build->match.arena, message->response_headers_to_copy[i]);
    }
    policy->headers_to_copy = copy;
    policy->headers_to_copy_count = message->n_response_headers_to_copy;
    return policy;
}

static const struct kb_internal_redirect_policy *
internal_redirect_of(struct kb_route_build *build,
                     const Envoy__Config__Route__V3__RouteAction *message)
{
    struct kb_internal_redirect_policy *policy;
    const struct kb_internal_redirect_policy *built;

    if (message->internal_redirect_policy != NULL) {
        kb_diag_push(build->match.diag, "internal_redirect_policy");
        built = internal_redirect_build(build, message->internal_redirect_policy);
        kb_diag_pop(build->match.diag);
        return built;
    }
    if ((int)message->internal_redirect_action !=
        ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__INTERNAL_REDIRECT_ACTION__HANDLE_INTERNAL_REDIRECT) {
        return NULL;
    }
    policy = KB_ARENA_NEW(build->match.arena, struct kb_internal_redirect_policy);
    policy->max_redirects =
        message->max_internal_redirects != NULL ? message->max_internal_redirects->value : 1;
    policy->codes = 1 << (302 - 301);
    return policy;
}

static bool metadata_wanted(const Envoy__Config__Route__V3__RouteAction *message)
{
    const Envoy__Config__Route__V3__WeightedCluster *weighted =
        (int)message->cluster_specifier_case ==
                ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS
            ? message->weighted_clusters
            : NULL;

    for (size_t i = 0; weighted != NULL && i < weighted->n_clusters; i++) {
        if (weighted->clusters[i]->metadata_match != NULL) {
            return true;
        }
    }
    return message->metadata_match != NULL;
}

/* What the hosts' metadata shall be, by the route and by its weighted clusters. */
static void metadata_build(struct kb_route_build *build,
                           const Envoy__Config__Route__V3__RouteAction *message,
                           struct kb_route_entry *entry, struct kb_route_policies *policies)
{
    policies->metadata_match =
        kb_metadata_criteria_read(NULL, message->metadata_match, build->match.arena);
    if (entry->cluster_kind != KB_CLUSTER_WEIGHTED || entry->weighted == NULL) {
        return;
    }
    for (size_t i = 0; i < entry->weighted->count; i++) {
        struct kb_weighted_choice *choice = &entry->weighted->choices[i];
        const struct kb_metadata_criteria *own = kb_metadata_criteria_read(
            policies->metadata_match, message->weighted_clusters->clusters[i]->metadata_match,
            build->match.arena);

        if (own != policies->metadata_match) {
            choice->metadata_match = own;
        }
    }
}

static bool policies_wanted(const struct kb_route_build *build,
                            const Envoy__Config__Route__V3__RouteAction *message,
                            const struct kb_vhost_defaults *defaults)
{
    return build->stat_prefix.len > 0 || message->n_hash_policy > 0 ||
           message->n_request_mirror_policies > 0 || defaults->mirror_count > 0 ||
           message->internal_redirect_policy != NULL ||
           (int)message->internal_redirect_action != 0 || message->hedge_policy != NULL ||
           defaults->hedge_on_per_try_timeout || message->max_grpc_timeout != NULL ||
           (message->max_stream_duration != NULL &&
            message->max_stream_duration->grpc_timeout_header_offset != NULL) ||
           message->n_rate_limits > 0 || message->include_vh_rate_limits != NULL ||
           metadata_wanted(message);
}

const struct kb_route_policies *
kb_route_build_policies(struct kb_route_build *build,
                        const Envoy__Config__Route__V3__RouteAction *message,
                        const struct kb_vhost_defaults *defaults, struct kb_route_entry *entry)
{
    struct kb_route_policies *policies;

    if (!policies_wanted(build, message, defaults)) {
        return NULL;
    }
    policies = KB_ARENA_NEW(build->match.arena, struct kb_route_policies);
    if (build->stat_prefix.len > 0) {
        policies->stats = kb_route_build_stats(build, build->stat_prefix);
    }
    policies->hash = kb_hash_policies_create(message->hash_policy, message->n_hash_policy,
                                             &build->match, &build->failed);
    policies->mirrors =
        kb_route_build_mirrors(build, message->request_mirror_policies,
                               message->n_request_mirror_policies, &policies->mirror_count);
    if (policies->mirrors == NULL) {
        policies->mirrors = defaults->mirrors;
        policies->mirror_count = defaults->mirror_count;
    }
    policies->internal_redirect = internal_redirect_of(build, message);
    policies->rate_limits =
        kb_rate_limits_create(message->rate_limits, message->n_rate_limits, KB_RATE_LIMITS_OF_ROUTE,
                              build->factory->server->node_cluster, &build->match, &build->failed);
    policies->include_virtual_host_rate_limits =
        kb_wkt_bool(message->include_vh_rate_limits, false);
    metadata_build(build, message, entry, policies);
    policies->hedge_on_per_try_timeout = message->hedge_policy != NULL
                                             ? message->hedge_policy->hedge_on_per_try_timeout
                                             : defaults->hedge_on_per_try_timeout;
    policies->max_grpc_timeout_set = message->max_grpc_timeout != NULL;
    policies->max_grpc_timeout_ms =
        kb_route_build_ms(build, "max_grpc_timeout", message->max_grpc_timeout, 0);
    policies->grpc_timeout_offset_ms =
        kb_route_build_ms(build, "grpc_timeout_offset", message->grpc_timeout_offset, 0);
    if (message->max_stream_duration != NULL) {
        policies->grpc_timeout_header_offset_ms =
            kb_route_build_ms(build, "max_stream_duration",
                              message->max_stream_duration->grpc_timeout_header_offset, 0);
    }
    return policies;
}
