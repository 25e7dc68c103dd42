/* SPDX-License-Identifier: Apache-2.0 */
/* RBAC policies in the order of their names, and the decision by the first that matches (Envoy
 * RoleBasedAccessControlEngineImpl). */
#include "proxy/ext/common/rbac_engine.h"

#include <stdlib.h>

#include "envoy/config/rbac/v3/rbac.pb-c.h"
#include "proxy/api/stats.h"

#define ACTION(name) ENVOY__CONFIG__RBAC__V3__RBAC__ACTION__##name

struct policy {
    struct kb_rbac_policy shown; /* first */
    struct kb_rbac_matcher *permissions;
    size_t permission_count;
    struct kb_rbac_matcher *principals;
    size_t principal_count;
};

struct kb_rbac_engine {
    int action;
    struct policy *policies; /* by name */
    size_t policy_count;
};

struct kb_str kb_rbac_stat_prefix(struct kb_str base, const char *prefix, struct kb_arena *arena)
{
    struct kb_str text = kb_str_from_cstr(prefix);
    const char *dot = text.len == 0 || kb_str_ends_with(text, KB_STR(".")) ? "" : ".";

    return kb_str_printf(arena, "%.*s%.*s%s", KB_STR_ARG(base), KB_STR_ARG(text), dot);
}

/* ---- building ---- */

static struct kb_str details_text(struct kb_str name, struct kb_arena *arena)
{
    struct kb_str text =
        kb_str_printf(arena, "rbac_access_denied_matched_policy[%.*s]", KB_STR_ARG(name));

    for (size_t i = 0; i < text.len; i++) {
        if (text.p[i] == ' ' || (text.p[i] >= '\t' && text.p[i] <= '\r')) {
            ((char *)(uintptr_t)text.p)[i] = '_'; /* ours */
        }
    }
    return text;
}

static int policy_init(struct policy *policy, const Envoy__Config__Rbac__V3__Policy *message,
                       bool network, const struct kb_match_build *build)
{
    int rc = 0;

    policy->permission_count = message->n_permissions;
    policy->permissions =
        kb_arena_calloc(build->arena, (message->n_permissions + 1) * sizeof(*policy->permissions));
    policy->principal_count = message->n_principals;
    policy->principals =
        kb_arena_calloc(build->arena, (message->n_principals + 1) * sizeof(*policy->principals));
    for (size_t i = 0; i < message->n_permissions; i++) {
        kb_diag_push_index(build->diag, "permissions", i);
        rc |= kb_rbac_permission_init(&policy->permissions[i], message->permissions[i], network,
                                      build);
        kb_diag_pop(build->diag);
    }
    for (size_t i = 0; i < message->n_principals; i++) {
        kb_diag_push_index(build->diag, "principals", i);
        rc |=
            kb_rbac_principal_init(&policy->principals[i], message->principals[i], network, build);
        kb_diag_pop(build->diag);
    }
    if (message->condition != NULL || message->checked_condition != NULL) {
        kb_diag_error(build->diag, "condition and checked_condition are not supported: there is no "
                                   "CEL evaluator yet");
        rc = KB_ECONFIG;
    }
    return rc;
}

static void policy_stats_create(struct kb_rbac_policy *policy, struct kb_str prefix,
                                const char *kind, struct kb_factory_context *factory,
                                struct kb_arena *arena)
{
    struct kb_stat_store *store = factory->server->stats;

    if (prefix.len == 0 || store == NULL) {
        return;
    }
    policy->allowed =
        kb_stat_named_create(store,
                             kb_str_printf(arena, "%.*s%.*s.%sallowed", KB_STR_ARG(prefix),
                                           KB_STR_ARG(policy->name), kind),
                             KB_STAT_COUNTER);
    policy->denied =
        kb_stat_named_create(store,
                             kb_str_printf(arena, "%.*s%.*s.%sdenied", KB_STR_ARG(prefix),
                                           KB_STR_ARG(policy->name), kind),
                             KB_STAT_COUNTER);
}

static int policy_order(const void *a, const void *b)
{
    const struct policy *one = a, *two = b;

    return kb_str_cmp(one->shown.name, two->shown.name);
}

const struct kb_rbac_engine *kb_rbac_engine_create(const Envoy__Config__Rbac__V3__RBAC *message,
                                                   bool network, struct kb_str policy_stats,
                                                   const char *stat_kind,
                                                   struct kb_factory_context *factory,
                                                   const struct kb_match_build *build)
{
    struct kb_rbac_engine *engine = KB_ARENA_NEW(build->arena, struct kb_rbac_engine);
    int rc = 0;

    engine->action = (int)message->action;
    engine->policies =
        kb_arena_calloc(build->arena, (message->n_policies + 1) * sizeof(*engine->policies));
    engine->policy_count = message->n_policies;
    kb_diag_push(build->diag, "policies");
    for (size_t i = 0; i < message->n_policies; i++) {
        const Envoy__Config__Rbac__V3__RBAC__PoliciesEntry *entry = message->policies[i];
        struct policy *policy = &engine->policies[i];

        policy->shown.name = kb_str_dup(build->arena, kb_str_from_cstr(entry->key));
        policy->shown.details = details_text(policy->shown.name, build->arena);
        kb_diag_push_key(build->diag, policy->shown.name);
        rc |= policy_init(policy, entry->value, network, build);
        kb_diag_pop(build->diag);
    }
    kb_diag_pop(build->diag);
    if (engine->action != ACTION(ALLOW) && engine->action != ACTION(DENY) &&
        engine->action != ACTION(LOG)) {
        kb_diag_error(build->diag, "action %d is not known", engine->action);
        rc = KB_ECONFIG;
    }
    if (rc != 0) {
        return NULL;
    }
    for (size_t i = 0; i < message->n_policies; i++) {
        policy_stats_create(&engine->policies[i].shown, policy_stats, stat_kind, factory,
                            build->arena);
    }
    qsort(engine->policies, engine->policy_count, sizeof(*engine->policies), policy_order);
    return engine;
}

void kb_rbac_engine_dispose(const struct kb_rbac_engine *engine)
{
    for (size_t i = 0; engine != NULL && i < engine->policy_count; i++) {
        kb_stat_named_destroy(engine->policies[i].shown.allowed);
        kb_stat_named_destroy(engine->policies[i].shown.denied);
    }
}

/* ---- deciding ---- */

static bool any_match(const struct kb_rbac_matcher *matchers, size_t count,
                      const struct kb_rbac_input *input)
{
    for (size_t i = 0; i < count; i++) {
        if (kb_rbac_matcher_match(&matchers[i], input)) {
            return true;
        }
    }
    return false;
}

struct kb_rbac_result kb_rbac_engine_check(const struct kb_rbac_engine *engine,
                                           const struct kb_rbac_input *input)
{
    struct kb_rbac_result result = {.logs = engine->action == ACTION(LOG)};

    for (size_t i = 0; i < engine->policy_count && result.policy == NULL; i++) {
        const struct policy *policy = &engine->policies[i];

        if (any_match(policy->permissions, policy->permission_count, input) &&
            any_match(policy->principals, policy->principal_count, input)) {
            result.policy = &policy->shown;
        }
    }
    /* Allowed: by ALLOW what matches, by DENY what does not, by LOG everything. */
    result.allowed = result.logs || (result.policy != NULL) == (engine->action == ACTION(ALLOW));
    return result;
}

struct kb_str kb_rbac_details(const struct kb_rbac_result *result)
{
    return result->policy != NULL ? result->policy->details
                                  : KB_STR("rbac_access_denied_matched_policy[none]");
}

/* ---- both of a filter ---- */

void kb_rbac_engines_create(struct kb_rbac_engines *engines,
                            const struct kb_rbac_engines_spec *spec,
                            struct kb_factory_context *factory, struct kb_arena *arena,
                            struct kb_diag *diag)
{
    const struct kb_match_build build = {arena, &engines->regexes, diag};

    if (spec->rules != NULL) {
        kb_diag_push(diag, "rules");
        engines->rules = kb_rbac_engine_create(spec->rules, spec->network, spec->policy_stats, "",
                                               factory, &build);
        kb_diag_pop(diag);
    }
    if (spec->shadow_rules != NULL) {
        kb_diag_push(diag, "shadow_rules");
        engines->shadow_rules =
            kb_rbac_engine_create(spec->shadow_rules, spec->network, spec->shadow_policy_stats,
                                  "shadow_", factory, &build);
        kb_diag_pop(diag);
    }
    if (spec->has_matcher) {
        kb_diag_error(diag, "matcher and shadow_matcher are not supported yet; use rules and "
                            "shadow_rules");
    }
}

void kb_rbac_engines_dispose(struct kb_rbac_engines *engines)
{
    kb_stat_group_destroy(engines->stats);
    kb_stat_group_destroy(engines->shadow_stats);
    kb_rbac_engine_dispose(engines->rules);
    kb_rbac_engine_dispose(engines->shadow_rules);
    kb_regex_list_dispose(&engines->regexes);
}
