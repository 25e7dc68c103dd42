/* SPDX-License-Identifier: Apache-2.0 */
/* From envoy.extensions.load_balancing_policies.subset.v3.Subset to the configuration. The message
 * may go before it: everything is copied. */
#include "proxy/ext/lb/subset.h"

#include <stdlib.h>

#include "envoy/extensions/load_balancing_policies/subset/v3/subset.pb-c.h"

#include "base/mem.h"
#include "proto/any.h"
#include "proto/pb.h"
#include "proxy/api/extension.h"
#include "proxy/api/stats.h"

typedef Envoy__Extensions__LoadBalancingPolicies__Subset__V3__Subset Subset;
typedef Envoy__Extensions__LoadBalancingPolicies__Subset__V3__Subset__LbSubsetSelector Selector;

static int text_cmp(const void *a, const void *b)
{
    return kb_str_cmp(*(const struct kb_str *)a, *(const struct kb_str *)b);
}

/* The texts in order, each once. */
static const struct kb_str *texts_copy(char *const *texts, size_t n, struct kb_arena *arena,
                                       uint32_t *count)
{
    struct kb_str *copy = kb_arena_calloc(arena, (n + 1) * sizeof(*copy));
    uint32_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        copy[i] = kb_str_dup(arena, kb_str_from_cstr(texts[i]));
    }
    if (n > 1) {
        qsort(copy, n, sizeof(*copy), text_cmp);
    }
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || !kb_str_eq(copy[kept - 1], copy[i])) {
            copy[kept++] = copy[i];
        }
    }
    *count = kept;
    return copy;
}

static bool texts_include(const struct kb_str *texts, uint32_t count, struct kb_str text)
{
    for (uint32_t i = 0; i < count; i++) {
        if (kb_str_eq(texts[i], text)) {
            return true;
        }
    }
    return false;
}

static void fallback_keys_check(const struct kb_subset_selector *selector,
                                const struct kb_subset_selector_fallback *fallback,
                                struct kb_diag *diag)
{
    if (fallback->policy != KB_SUBSET_FALLBACK_KEYS) {
        if (fallback->key_count > 0) {
            kb_diag_error(diag,
                          "fallback_keys_subset can be set only for KEYS_SUBSET fallback_policy");
        }
        return;
    }
    if (fallback->key_count == 0) {
        kb_diag_error(diag, "fallback_keys_subset cannot be empty");
        return;
    }
    for (uint32_t i = 0; i < fallback->key_count; i++) {
        if (!texts_include(selector->keys, selector->key_count, fallback->keys[i])) {
            kb_diag_error(diag, "fallback_keys_subset must be a subset of selector keys");
            return;
        }
    }
    if (fallback->key_count == selector->key_count) {
        kb_diag_error(diag, "fallback_keys_subset cannot be equal to keys");
    }
}

/* Whether the first selector begins with all keys of the second. */
static bool begins_with(const struct kb_subset_selector *selector,
                        const struct kb_subset_selector *keys)
{
    for (uint32_t i = 0; i < keys->key_count; i++) {
        if (i == selector->key_count || !kb_str_eq(selector->keys[i], keys->keys[i])) {
            return false;
        }
    }
    return true;
}

static void selectors_read(struct kb_subset_config *config, const Subset *message,
                           struct kb_diag *diag)
{
    size_t n = message->n_subset_selectors;
    struct kb_subset_selector *selectors =
        kb_arena_calloc(&config->arena, (n + 1) * sizeof(*selectors));
    struct kb_subset_selector_fallback *fallbacks =
        kb_arena_calloc(&config->arena, (n + 1) * sizeof(*fallbacks));

    for (size_t i = 0; i < n; i++) {
        const Selector *from = message->subset_selectors[i];

        kb_diag_push_index(diag, "subset_selectors", i);
        selectors[i].keys =
            texts_copy(from->keys, from->n_keys, &config->arena, &selectors[i].key_count);
        selectors[i].single_host = from->single_host_per_subset != 0;
        fallbacks[i].policy = (enum kb_subset_fallback)from->fallback_policy;
        fallbacks[i].keys = texts_copy(from->fallback_keys_subset, from->n_fallback_keys_subset,
                                       &config->arena, &fallbacks[i].key_count);
        fallbacks[i].counts = true;
        for (size_t k = 0; k < i; k++) {
            fallbacks[i].counts &= !begins_with(&selectors[k], &selectors[i]);
        }
        fallback_keys_check(&selectors[i], &fallbacks[i], diag);
        if (selectors[i].key_count > KB_SUBSET_KEYS_MAX) {
            kb_diag_error(diag, "a selector of %u keys: more than %u are not supported",
                          selectors[i].key_count, KB_SUBSET_KEYS_MAX);
        }
        kb_diag_pop(diag);
    }
    config->rules.selectors = selectors;
    config->rules.selector_count = (uint32_t)n;
    config->fallbacks = fallbacks;
}

/* Which subsets there are besides those of the selectors. */
static void fallbacks_read(struct kb_subset_config *config, const Subset *message)
{
    static const Google__Protobuf__Struct nothing = GOOGLE__PROTOBUF__STRUCT__INIT;
    static const enum kb_subset_fallback of_cluster[] = {
        KB_SUBSET_FALLBACK_NONE, KB_SUBSET_FALLBACK_ANY, KB_SUBSET_FALLBACK_DEFAULT};
    const Google__Protobuf__Struct *from =
        message->default_subset == NULL ? &nothing : message->default_subset;
    ProtobufCMessage *copy;
    bool wants_default;

    config->fallback = of_cluster[(unsigned)message->fallback_policy % 3];
    config->panic_any = message->panic_mode_any != 0;
    config->rules.wants_any = config->panic_any || config->fallback == KB_SUBSET_FALLBACK_ANY;
    wants_default = config->fallback == KB_SUBSET_FALLBACK_DEFAULT;
    for (uint32_t i = 0; i < config->rules.selector_count; i++) {
        config->rules.wants_any |= config->fallbacks[i].policy == KB_SUBSET_FALLBACK_ANY;
        wants_default |= config->fallbacks[i].policy == KB_SUBSET_FALLBACK_DEFAULT;
    }
    if (wants_default &&
        kb_pb_unpack(&google__protobuf__struct__descriptor, kb_pb_pack(&from->base, &config->arena),
                     &config->arena, &copy) == 0) {
        config->rules.default_subset = (const Google__Protobuf__Struct *)(const void *)copy;
    }
}

/* The policy for the hosts of a subset: the first that is known. */
static void inner_read(struct kb_subset_config *config,
                       const Envoy__Config__Cluster__V3__LoadBalancingPolicy *policy,
                       struct kb_factory_context *factory, struct kb_diag *diag)
{
    struct kb_str names = KB_STR("");

    for (size_t i = 0; policy != NULL && i < policy->n_policies; i++) {
        const Envoy__Config__Core__V3__TypedExtensionConfig *typed =
            policy->policies[i]->typed_extension_config;
        const struct kb_extension *extension;
        const void *message;

        if (typed == NULL || typed->typed_config == NULL) {
            continue;
        }
        extension = kb_extension_find(
            KB_EXT_LB, kb_any_inner_name(typed->typed_config, factory->arena), KB_STR(""));
        if (extension == NULL) {
            names = kb_str_printf(factory->arena, "%.*s%s%s", KB_STR_ARG(names),
                                  names.len == 0 ? "" : ", ", typed->name);
            continue;
        }
        config->inner = extension->ops;
        if (config->inner->hosts_prepare != NULL) {
            kb_diag_error(diag, "subsets of subsets are not supported: give another policy");
            return;
        }
        message = kb_any_unpack(typed->typed_config, NULL, factory->arena, diag);
        if (message != NULL) {
            (void)config->inner->config_create(message, factory, diag, &config->inner_config);
        }
        return;
    }
    kb_diag_error(diag,
                  "cluster: didn't find a registered load balancer factory implementation for "
                  "subset lb with names from [%.*s]",
                  KB_STR_ARG(names));
}

int kb_subset_config_create(const void *arg, struct kb_factory_context *factory,
                            struct kb_diag *diag, struct kb_lb_config **out)
{
    const Subset *message = arg;
    struct kb_subset_config *config = kb_calloc(1, sizeof(*config));
    uint32_t errors = diag->error_count;

    kb_arena_init(&config->arena, NULL);
    selectors_read(config, message, diag);
    fallbacks_read(config, message);
    config->fallback_list = message->metadata_fallback_policy != 0;
    config->allow_redundant_keys = message->allow_redundant_keys != 0;
    kb_diag_push(diag, "subset_lb_policy");
    inner_read(config, message->subset_lb_policy, factory, diag);
    kb_diag_pop(diag);
    if (diag->error_count != errors) {
        kb_subset_config_destroy(&config->head);
        return KB_ECONFIG;
    }
    config->head = *config->inner_config;
    config->rules.list_as_any = message->list_as_any != 0;
    config->rules.locality_weight_aware = message->locality_weight_aware != 0;
    config->rules.scale_locality_weight = message->scale_locality_weight != 0;
    config->rules.drop_localities =
        config->head.locality_weighted && !config->rules.locality_weight_aware;
    config->duplicates = kb_stat_named_create(
        factory->server->stats,
        kb_str_printf(factory->arena, "%slb_subsets_single_host_per_subset_duplicate",
                      factory->stat_prefix),
        KB_STAT_GAUGE);
    *out = &config->head;
    return 0;
}

void kb_subset_config_destroy(struct kb_lb_config *head)
{
    struct kb_subset_config *config = (struct kb_subset_config *)head;

    if (config->inner_config != NULL) {
        config->inner->config_destroy(config->inner_config);
    }
    kb_stat_named_destroy(config->duplicates);
    kb_arena_dispose(&config->arena);
    free(config);
}
