/* SPDX-License-Identifier: Apache-2.0 */
/* Which load balancer a cluster has: load_balancing_policy, or lb_policy with its options, which
 * are turned into the message that the extension reads, as Envoy does. */
#include "envoy/extensions/load_balancing_policies/least_request/v3/least_request.pb-c.h"
#include "envoy/extensions/load_balancing_policies/maglev/v3/maglev.pb-c.h"
#include "envoy/extensions/load_balancing_policies/random/v3/random.pb-c.h"
#include "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.pb-c.h"
#include "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.pb-c.h"
#include "envoy/extensions/load_balancing_policies/subset/v3/subset.pb-c.h"

#include "proto/any.h"
#include "proxy/api/extension.h"
#include "proxy/upstream/cluster.h"

/* The generated names of the oneofs are too long for a line. */
#define LOCALITY(name) \
    ENVOY__EXTENSIONS__LOAD_BALANCING_POLICIES__COMMON__V3__LOCALITY_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_##name
#define COMMON_LOCALITY(name) \
    ENVOY__CONFIG__CLUSTER__V3__CLUSTER__COMMON_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_##name

#define POLICIES "envoy.extensions.load_balancing_policies."

typedef Envoy__Config__Cluster__V3__Cluster Cluster;
typedef Envoy__Config__Cluster__V3__Cluster__CommonLbConfig CommonLbConfig;
typedef Envoy__Extensions__LoadBalancingPolicies__Common__V3__LocalityLbConfig LocalityLbConfig;
typedef Envoy__Extensions__LoadBalancingPolicies__RoundRobin__V3__RoundRobin RoundRobin;
typedef Envoy__Extensions__LoadBalancingPolicies__LeastRequest__V3__LeastRequest LeastRequest;
typedef Envoy__Extensions__LoadBalancingPolicies__Random__V3__Random Random;
typedef Envoy__Extensions__LoadBalancingPolicies__RingHash__V3__RingHash RingHash;
typedef Envoy__Extensions__LoadBalancingPolicies__Maglev__V3__Maglev Maglev;
typedef Envoy__Extensions__LoadBalancingPolicies__Common__V3__ConsistentHashingLbConfig
    ConsistentHashingLbConfig;
typedef Envoy__Extensions__LoadBalancingPolicies__Common__V3__SlowStartConfig SlowStartConfig;
typedef Envoy__Config__Cluster__V3__Cluster__SlowStartConfig OldSlowStartConfig;
typedef Envoy__Extensions__LoadBalancingPolicies__Common__V3__LocalityLbConfig__LocalityWeightedLbConfig
    LocalityWeightedLbConfig;

typedef Envoy__Extensions__LoadBalancingPolicies__Subset__V3__Subset Subset;
typedef Envoy__Extensions__LoadBalancingPolicies__Subset__V3__Subset__LbSubsetSelector Selector;
typedef Envoy__Config__Cluster__V3__Cluster__LbSubsetConfig__LbSubsetSelector OldSelector;
typedef Envoy__Config__Cluster__V3__LoadBalancingPolicy LoadBalancingPolicy;
typedef Envoy__Config__Cluster__V3__LoadBalancingPolicy__Policy LoadBalancingPolicy__Policy;
typedef Envoy__Config__Core__V3__TypedExtensionConfig TypedExtensionConfig;

#define NEW(arena, lower, type) ((type *)(void *)kb_pb_new(&lower##__descriptor, (arena)))

static LocalityLbConfig *locality_convert(const CommonLbConfig *common, struct kb_arena *arena)
{
    LocalityLbConfig *out;

    if (common == NULL || common->locality_config_specifier_case == COMMON_LOCALITY(_NOT_SET)) {
        return NULL;
    }
    out = NEW(arena, envoy__extensions__load_balancing_policies__common__v3__locality_lb_config,
              LocalityLbConfig);
    if (common->locality_config_specifier_case == COMMON_LOCALITY(LOCALITY_WEIGHTED_LB_CONFIG)) {
        out->locality_config_specifier_case = LOCALITY(LOCALITY_WEIGHTED_LB_CONFIG);
        out->locality_weighted_lb_config = NEW(
            arena,
            envoy__extensions__load_balancing_policies__common__v3__locality_lb_config__locality_weighted_lb_config,
            Envoy__Extensions__LoadBalancingPolicies__Common__V3__LocalityLbConfig__LocalityWeightedLbConfig);
    } else {
        out->locality_config_specifier_case = LOCALITY(ZONE_AWARE_LB_CONFIG);
        out->zone_aware_lb_config = NEW(
            arena,
            envoy__extensions__load_balancing_policies__common__v3__locality_lb_config__zone_aware_lb_config,
            Envoy__Extensions__LoadBalancingPolicies__Common__V3__LocalityLbConfig__ZoneAwareLbConfig);
        out->zone_aware_lb_config->fail_traffic_on_panic =
            common->zone_aware_lb_config->fail_traffic_on_panic;
        out->zone_aware_lb_config->routing_enabled = common->zone_aware_lb_config->routing_enabled;
        out->zone_aware_lb_config->min_cluster_size =
            common->zone_aware_lb_config->min_cluster_size;
    }
    return out;
}

static SlowStartConfig *slow_start_convert(const OldSlowStartConfig *old, struct kb_arena *arena)
{
    SlowStartConfig *out;

    if (old == NULL) {
        return NULL;
    }
    out = NEW(arena, envoy__extensions__load_balancing_policies__common__v3__slow_start_config,
              SlowStartConfig);
    out->slow_start_window = old->slow_start_window;
    out->aggression = old->aggression;
    out->min_weight_percent = old->min_weight_percent;
    return out;
}

static ConsistentHashingLbConfig *hashing_convert(const CommonLbConfig *common,
                                                  struct kb_arena *arena)
{
    ConsistentHashingLbConfig *out;

    if (common == NULL || common->consistent_hashing_lb_config == NULL) {
        return NULL;
    }
    out = NEW(arena,
              envoy__extensions__load_balancing_policies__common__v3__consistent_hashing_lb_config,
              ConsistentHashingLbConfig);
    out->use_hostname_for_hashing = common->consistent_hashing_lb_config->use_hostname_for_hashing;
    out->hash_balance_factor = common->consistent_hashing_lb_config->hash_balance_factor;
    return out;
}

static LocalityWeightedLbConfig *weighted_only(const LocalityLbConfig *locality)
{
    return locality != NULL &&
                   locality->locality_config_specifier_case == LOCALITY(LOCALITY_WEIGHTED_LB_CONFIG)
               ? locality->locality_weighted_lb_config
               : NULL;
}

static void *ring_hash_message(const Cluster *cluster, const LocalityLbConfig *locality,
                               struct kb_arena *arena)
{
    RingHash *out =
        NEW(arena, envoy__extensions__load_balancing_policies__ring_hash__v3__ring_hash, RingHash);

    out->locality_weighted_lb_config = weighted_only(locality);
    out->consistent_hashing_lb_config = hashing_convert(cluster->common_lb_config, arena);
    if (cluster->lb_config_case ==
        ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_CONFIG_RING_HASH_LB_CONFIG) {
        out->minimum_ring_size = cluster->ring_hash_lb_config->minimum_ring_size;
        out->maximum_ring_size = cluster->ring_hash_lb_config->maximum_ring_size;
        out->hash_function =
            cluster->ring_hash_lb_config->hash_function ==
                    ENVOY__CONFIG__CLUSTER__V3__CLUSTER__RING_HASH_LB_CONFIG__HASH_FUNCTION__MURMUR_HASH_2
                ? ENVOY__EXTENSIONS__LOAD_BALANCING_POLICIES__RING_HASH__V3__RING_HASH__HASH_FUNCTION__MURMUR_HASH_2
                : ENVOY__EXTENSIONS__LOAD_BALANCING_POLICIES__RING_HASH__V3__RING_HASH__HASH_FUNCTION__XX_HASH;
    }
    return out;
}

static void *maglev_message(const Cluster *cluster, const LocalityLbConfig *locality,
                            struct kb_arena *arena)
{
    Maglev *out =
        NEW(arena, envoy__extensions__load_balancing_policies__maglev__v3__maglev, Maglev);

    out->locality_weighted_lb_config = weighted_only(locality);
    out->consistent_hashing_lb_config = hashing_convert(cluster->common_lb_config, arena);
    if (cluster->lb_config_case ==
        ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_CONFIG_MAGLEV_LB_CONFIG) {
        out->table_size = cluster->maglev_lb_config->table_size;
    }
    return out;
}

/* The extension's message for an old lb_policy, or NULL when it has none here. */
static void *legacy_message(const Cluster *cluster, struct kb_arena *arena, const char **type_url)
{
    LocalityLbConfig *locality = locality_convert(cluster->common_lb_config, arena);

    switch (cluster->lb_policy) {
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_POLICY__ROUND_ROBIN: {
        RoundRobin *out =
            NEW(arena, envoy__extensions__load_balancing_policies__round_robin__v3__round_robin,
                RoundRobin);

        out->locality_lb_config = locality;
        if (cluster->lb_config_case ==
            ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_CONFIG_ROUND_ROBIN_LB_CONFIG) {
            out->slow_start_config =
                slow_start_convert(cluster->round_robin_lb_config->slow_start_config, arena);
        }
        *type_url = POLICIES "round_robin.v3.RoundRobin";
        return out;
    }
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_POLICY__LEAST_REQUEST: {
        LeastRequest *out =
            NEW(arena, envoy__extensions__load_balancing_policies__least_request__v3__least_request,
                LeastRequest);

        out->locality_lb_config = locality;
        if (cluster->lb_config_case ==
            ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_CONFIG_LEAST_REQUEST_LB_CONFIG) {
            out->choice_count = cluster->least_request_lb_config->choice_count;
            out->active_request_bias = cluster->least_request_lb_config->active_request_bias;
            out->slow_start_config =
                slow_start_convert(cluster->least_request_lb_config->slow_start_config, arena);
        }
        *type_url = POLICIES "least_request.v3.LeastRequest";
        return out;
    }
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_POLICY__RANDOM: {
        Random *out =
            NEW(arena, envoy__extensions__load_balancing_policies__random__v3__random, Random);

        out->locality_lb_config = locality;
        *type_url = POLICIES "random.v3.Random";
        return out;
    }
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_POLICY__RING_HASH:
        *type_url = POLICIES "ring_hash.v3.RingHash";
        return ring_hash_message(cluster, locality, arena);
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_POLICY__MAGLEV:
        *type_url = POLICIES "maglev.v3.Maglev";
        return maglev_message(cluster, locality, arena);
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_POLICY__CLUSTER_PROVIDED:
    case ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_POLICY__LOAD_BALANCING_POLICY_CONFIG:
    default:
        return NULL;
    }
}

static bool has_subsets(const Cluster *message)
{
    return message->lb_subset_config != NULL && message->lb_subset_config->n_subset_selectors > 0;
}

/* False after a report. */
static bool subsets_check(const Cluster *message, struct kb_diag *diag)
{
    uint32_t errors = diag->error_count;

    kb_diag_push(diag, "lb_subset_config");
    if (message->lb_policy == ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_POLICY__CLUSTER_PROVIDED) {
        kb_diag_error(
            diag, "cluster: LB policy CLUSTER_PROVIDED cannot be combined with lb_subset_config");
    } else if (message->lb_subset_config->locality_weight_aware &&
               (message->common_lb_config == NULL ||
                message->common_lb_config->locality_config_specifier_case !=
                    COMMON_LOCALITY(LOCALITY_WEIGHTED_LB_CONFIG))) {
        kb_diag_error(diag,
                      "Locality weight aware subset LB requires that a locality_weighted_lb_config "
                      "be set in %s",
                      message->name);
    }
    kb_diag_pop(diag);
    return diag->error_count == errors;
}

/* lb_subset_config around the message of lb_policy. The enums have the same numbers. */
static void *subset_message(const Envoy__Config__Cluster__V3__Cluster__LbSubsetConfig *old,
                            const void *inner, struct kb_arena *arena)
{
    Subset *out =
        NEW(arena, envoy__extensions__load_balancing_policies__subset__v3__subset, Subset);
    LoadBalancingPolicy *policy =
        NEW(arena, envoy__config__cluster__v3__load_balancing_policy, LoadBalancingPolicy);
    LoadBalancingPolicy__Policy *one =
        NEW(arena, envoy__config__cluster__v3__load_balancing_policy__policy,
            LoadBalancingPolicy__Policy);
    TypedExtensionConfig *typed =
        NEW(arena, envoy__config__core__v3__typed_extension_config, TypedExtensionConfig);

    out->fallback_policy = (int)old->fallback_policy;
    out->default_subset = old->default_subset;
    out->n_subset_selectors = old->n_subset_selectors;
    out->subset_selectors = kb_arena_calloc(arena, old->n_subset_selectors * sizeof(Selector *));
    for (size_t i = 0; i < old->n_subset_selectors; i++) {
        const OldSelector *from = old->subset_selectors[i];
        Selector *to =
            NEW(arena,
                envoy__extensions__load_balancing_policies__subset__v3__subset__lb_subset_selector,
                Selector);

        to->n_keys = from->n_keys;
        to->keys = from->keys;
        to->single_host_per_subset = from->single_host_per_subset;
        to->fallback_policy = (int)from->fallback_policy;
        to->n_fallback_keys_subset = from->n_fallback_keys_subset;
        to->fallback_keys_subset = from->fallback_keys_subset;
        out->subset_selectors[i] = to;
    }
    out->locality_weight_aware = old->locality_weight_aware;
    out->scale_locality_weight = old->scale_locality_weight;
    out->panic_mode_any = old->panic_mode_any;
    out->list_as_any = old->list_as_any;
    out->metadata_fallback_policy = (int)old->metadata_fallback_policy;
    typed->typed_config = NEW(arena, google__protobuf__any, Google__Protobuf__Any);
    kb_any_pack(inner, arena, typed->typed_config);
    one->typed_extension_config = typed;
    policy->n_policies = 1;
    policy->policies = kb_arena_calloc(arena, sizeof(one));
    policy->policies[0] = one;
    out->subset_lb_policy = policy;
    return out;
}

static void legacy_refuse(const Cluster *message, struct kb_diag *diag)
{
    kb_diag_push(diag, "lb_policy");
    if (message->lb_policy ==
        ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_POLICY__LOAD_BALANCING_POLICY_CONFIG) {
        kb_diag_error(diag, "cluster: field load_balancing_policy need to be set");
    } else if (message->lb_policy ==
               ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_POLICY__CLUSTER_PROVIDED) {
        kb_diag_error(diag,
                      "cluster manager: cluster provided LB specified but cluster '%s' did not "
                      "provide one. Check "
                      "cluster documentation.",
                      message->name);
    } else {
        kb_diag_error(diag, "there is no load balancing policy of the number %u",
                      (unsigned)message->lb_policy);
    }
    kb_diag_pop(diag);
}

static void config_create(struct kb_cluster_impl *cluster, const struct kb_lb_ops *ops,
                          const void *message, struct kb_factory_context *factory,
                          struct kb_diag *diag)
{
    struct kb_lb_config *config = NULL;

    if (ops->config_create(message, factory, diag, &config) == 0) {
        cluster->lb = ops;
        cluster->lb_config = config;
    }
}

/* The names of all policies, as Envoy lists them when none is known. */
static struct kb_str names_join(const Envoy__Config__Cluster__V3__LoadBalancingPolicy *policy,
                                struct kb_arena *arena)
{
    struct kb_str names = KB_STR("");

    for (size_t i = 0; i < policy->n_policies; i++) {
        if (policy->policies[i]->typed_extension_config != NULL) {
            names = kb_str_printf(arena, "%.*s%s%s", KB_STR_ARG(names), names.len == 0 ? "" : ", ",
                                  policy->policies[i]->typed_extension_config->name);
        }
    }
    return names;
}

static void policy_read(const Cluster *message, struct kb_cluster_impl *cluster,
                        struct kb_factory_context *factory, struct kb_diag *diag)
{
    const Envoy__Config__Cluster__V3__LoadBalancingPolicy *policy = message->load_balancing_policy;
    struct kb_str names;

    for (size_t i = 0; i < policy->n_policies; i++) {
        const Envoy__Config__Core__V3__TypedExtensionConfig *typed =
            policy->policies[i]->typed_extension_config;
        const struct kb_extension *extension;
        const void *unpacked;

        if (typed == NULL || typed->typed_config == NULL) {
            continue;
        }
        extension = kb_extension_find(
            KB_EXT_LB, kb_any_inner_name(typed->typed_config, factory->arena), KB_STR(""));
        if (extension == NULL) {
            continue;
        }
        kb_diag_push_index(diag, "policies", i);
        kb_diag_push(diag, "typed_extension_config");
        kb_diag_push(diag, "typed_config");
        unpacked = kb_any_unpack(typed->typed_config, NULL, factory->arena, diag);
        if (unpacked != NULL) {
            config_create(cluster, extension->ops, unpacked, factory, diag);
        }
        kb_diag_pop(diag);
        kb_diag_pop(diag);
        kb_diag_pop(diag);
        return;
    }
    names = names_join(policy, factory->arena);
    kb_diag_error(diag,
                  "cluster: didn't find a registered load balancer factory implementation for "
                  "cluster: '%s' with names "
                  "from [%.*s]",
                  message->name, KB_STR_ARG(names));
}

/* Whether the message asks for what the cluster's type brings, by one field or the other. */
static bool is_cluster_provided(const Cluster *message, struct kb_arena *arena)
{
    const Envoy__Config__Cluster__V3__LoadBalancingPolicy *policy = message->load_balancing_policy;

    for (size_t i = 0; policy != NULL && i < policy->n_policies; i++) {
        const Envoy__Config__Core__V3__TypedExtensionConfig *typed =
            policy->policies[i]->typed_extension_config;

        if (typed != NULL && typed->typed_config != NULL &&
            kb_str_eq(kb_any_inner_name(typed->typed_config, arena),
                      KB_STR(POLICIES "cluster_provided.v3.ClusterProvided"))) {
            return true;
        }
    }
    return policy == NULL &&
           message->lb_policy == ENVOY__CONFIG__CLUSTER__V3__CLUSTER__LB_POLICY__CLUSTER_PROVIDED;
}

/* Only there every host has a name of its own. */
static void hostname_check(const Cluster *message, struct kb_diag *diag)
{
    static const char *const types[] = {"static", "strict_dns", "logical_dns", "eds",
                                        "original_dst"};
    const CommonLbConfig *common = message->common_lb_config;

    if (common != NULL && common->consistent_hashing_lb_config != NULL &&
        common->consistent_hashing_lb_config->use_hostname_for_hashing &&
        message->cluster_discovery_type_case !=
            ENVOY__CONFIG__CLUSTER__V3__CLUSTER__CLUSTER_DISCOVERY_TYPE_CLUSTER_TYPE &&
        message->type != ENVOY__CONFIG__CLUSTER__V3__CLUSTER__DISCOVERY_TYPE__STRICT_DNS) {
        kb_diag_error(diag,
                      "Cannot use hostname for consistent hashing loadbalancing for cluster of "
                      "type: 'envoy.cluster.%s'",
                      (size_t)message->type < KB_ARRAY_LEN(types) ? types[message->type] : "");
    }
}

static void provided_read(const Cluster *message, struct kb_cluster_impl *cluster,
                          const struct kb_lb_ops *provided, struct kb_factory_context *factory,
                          struct kb_diag *diag)
{
    static const char *const names[] = {
        "ROUND_ROBIN",     "LEAST_REQUEST", "RING_HASH",        "RANDOM",
        "ORIGINAL_DST_LB", "MAGLEV",        "CLUSTER_PROVIDED", "LOAD_BALANCING_POLICY_CONFIG"};

    if (!is_cluster_provided(message, factory->arena)) {
        kb_diag_push(diag, "lb_policy");
        kb_diag_error(diag,
                      "cluster: LB policy %s is not valid for Cluster type ORIGINAL_DST. Only "
                      "'CLUSTER_PROVIDED' is allowed with cluster type 'ORIGINAL_DST'",
                      (size_t)message->lb_policy < KB_ARRAY_LEN(names) ? names[message->lb_policy]
                                                                       : "of that number");
        kb_diag_pop(diag);
    }
    if (!has_subsets(message) || subsets_check(message, diag)) {
        config_create(cluster, provided, message, factory, diag);
    }
}

void kb_cluster_lb_read(const Envoy__Config__Cluster__V3__Cluster *message,
                        struct kb_cluster_impl *cluster, const struct kb_lb_ops *provided,
                        struct kb_factory_context *factory, struct kb_diag *diag)
{
    const char *type_url = "";
    const void *legacy;
    const struct kb_extension *extension;

    hostname_check(message, diag);
    if (provided != NULL) {
        provided_read(message, cluster, provided, factory, diag);
        return;
    }
    if (message->load_balancing_policy != NULL) {
        if (message->lb_subset_config != NULL) {
            kb_diag_error(diag, "cluster: load_balancing_policy cannot be combined with "
                                "lb_subset_config");
            return;
        }
        kb_diag_push(diag, "load_balancing_policy");
        policy_read(message, cluster, factory, diag);
        kb_diag_pop(diag);
        return;
    }
    if (has_subsets(message) && !subsets_check(message, diag)) {
        return;
    }
    legacy = legacy_message(message, factory->arena, &type_url);
    if (legacy == NULL) {
        legacy_refuse(message, diag);
        return;
    }
    if (has_subsets(message)) {
        legacy = subset_message(message->lb_subset_config, legacy, factory->arena);
        type_url = POLICIES "subset.v3.Subset";
        kb_diag_push(diag, "lb_subset_config");
    }
    extension = kb_extension_find(KB_EXT_LB, kb_str_from_cstr(type_url), KB_STR(""));
    KB_ASSERT(extension != NULL);
    config_create(cluster, extension->ops, legacy, factory, diag);
    if (has_subsets(message)) {
        kb_diag_pop(diag);
    }
}
