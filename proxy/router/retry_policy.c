/* SPDX-License-Identifier: Apache-2.0 */
/* RetryPolicy messages of routes and virtual hosts. */
#include "proxy/router/retry_policy.h"

#include "envoy/config/core/v3/extension.pb-c.h"
#include "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.pb-c.h"
#include "proto/any.h"
#include "proxy/api/cluster_policies.h"
#include "proxy/matcher/match_build.h"
#include "proxy/router/retry_host_metadata.h"
#include "proxy/router/retry_state.h"
#include "proxy/router/route_build.h"

#define RATE_LIMITED_MAX_MS 300000

static void unregistered(struct kb_route_build *build, const char *name, struct kb_str type)
{
    kb_route_build_error(build,
                         "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                         name, KB_STR_ARG(type));
}

static struct kb_str type_of(struct kb_route_build *build, const Google__Protobuf__Any *any)
{
    return any != NULL ? kb_any_inner_name(any, build->match.arena) : KB_STR("");
}

static void host_predicates_build(struct kb_route_build *build,
                                  const Envoy__Config__Route__V3__RetryPolicy *message,
                                  struct kb_retry_policy *policy)
{
    for (size_t i = 0; i < message->n_retry_host_predicate; i++) {
        const Envoy__Config__Route__V3__RetryPolicy__RetryHostPredicate *predicate =
            message->retry_host_predicate[i];
        bool typed =
            (int)predicate->config_type_case ==
            ENVOY__CONFIG__ROUTE__V3__RETRY_POLICY__RETRY_HOST_PREDICATE__CONFIG_TYPE_TYPED_CONFIG;
        struct kb_str type = type_of(build, typed ? predicate->typed_config : NULL);

        kb_diag_push_index(build->match.diag, "retry_host_predicate", i);
        if (kb_str_eq(
                type,
                KB_STR("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"))) {
            policy->previous_hosts = true;
        } else if (kb_str_eq(type, KB_STR("envoy.extensions.retry.host.omit_canary_hosts.v3."
                                          "OmitCanaryHostsPredicate"))) {
            policy->omit_canary_hosts = true;
        } else if (kb_str_eq(type, KB_STR("envoy.extensions.retry.host.omit_host_metadata.v3."
                                          "OmitHostMetadataConfig"))) {
            policy->omit_labels = kb_host_labels_create(predicate->typed_config, build->match.arena,
                                                        build->match.diag);
        } else {
            unregistered(build, predicate->name, type);
        }
        kb_diag_pop(build->match.diag);
    }
}

typedef Envoy__Extensions__Retry__Priority__PreviousPriorities__V3__PreviousPrioritiesConfig
    previous_priorities;

static void extensions_read(struct kb_route_build *build,
                            const Envoy__Config__Route__V3__RetryPolicy *message,
                            struct kb_retry_policy *policy)
{
    const Envoy__Config__Route__V3__RetryPolicy__RetryPriority *priority = message->retry_priority;

    if (priority != NULL && priority->name[0] != '\0') {
        bool typed =
            (int)priority->config_type_case ==
            ENVOY__CONFIG__ROUTE__V3__RETRY_POLICY__RETRY_PRIORITY__CONFIG_TYPE_TYPED_CONFIG;
        struct kb_str type = type_of(build, typed ? priority->typed_config : NULL);
        const previous_priorities *config;

        kb_diag_push(build->match.diag, "retry_priority");
        if (kb_str_eq(type, KB_STR("envoy.extensions.retry.priority.previous_priorities.v3."
                                   "PreviousPrioritiesConfig"))) {
            config = KB_ANY_UNPACK(
                priority->typed_config,
                envoy__extensions__retry__priority__previous_priorities__v3__previous_priorities_config,
                previous_priorities, build->match.arena, build->match.diag);
            policy->priorities_update_frequency =
                config != NULL ? (uint32_t)config->update_frequency : 0;
        } else {
            unregistered(build, priority->name, type);
        }
        kb_diag_pop(build->match.diag);
    }
    for (size_t i = 0; i < message->n_retry_options_predicates; i++) {
        kb_diag_push_index(build->match.diag, "retry_options_predicates", i);
        unregistered(build, message->retry_options_predicates[i]->name,
                     type_of(build, message->retry_options_predicates[i]->typed_config));
        kb_diag_pop(build->match.diag);
    }
}

/* base_interval_ms 0: the runtime's; max_interval_ms 0: ten times the base. */
static void backoff_build(struct kb_route_build *build,
                          const Envoy__Config__Route__V3__RetryPolicy__RetryBackOff *message,
                          struct kb_retry_policy *policy)
{
    if (message == NULL) {
        return;
    }
    kb_diag_push(build->match.diag, "retry_back_off");
    if (message->base_interval == NULL) {
        kb_route_build_error(build, "base_interval: value is required");
    }
    policy->base_interval_ms =
        KB_MAX(kb_route_build_ms(build, "base_interval", message->base_interval, 1), 1);
    if (message->max_interval != NULL) {
        policy->max_interval_ms =
            KB_MAX(kb_route_build_ms(build, "max_interval", message->max_interval, 1), 1);
        if (policy->max_interval_ms < policy->base_interval_ms) {
            kb_route_build_error(
                build, "retry_policy.max_interval must greater than or equal to the base_interval");
        }
    }
    kb_diag_pop(build->match.diag);
}

static const struct kb_rate_limited_backoff *
rate_limited_build(struct kb_route_build *build,
                   const Envoy__Config__Route__V3__RetryPolicy__RateLimitedRetryBackOff *message)
{
    struct kb_rate_limited_backoff *backoff;
    struct kb_reset_header *headers;

    if (message == NULL) {
        return NULL;
    }
    kb_diag_push(build->match.diag, "rate_limited_retry_back_off");
    backoff = KB_ARENA_NEW(build->match.arena, struct kb_rate_limited_backoff);
    headers =
        kb_arena_calloc(build->match.arena, (message->n_reset_headers + 1) * sizeof(*headers));
    for (size_t i = 0; i < message->n_reset_headers; i++) {
        headers[i].name = kb_header_name_dup(build->match.arena, message->reset_headers[i]->name);
        headers[i].unix_time =
            (int)message->reset_headers[i]->format ==
            ENVOY__CONFIG__ROUTE__V3__RETRY_POLICY__RESET_HEADER_FORMAT__UNIX_TIMESTAMP;
    }
    backoff->headers = headers;
    backoff->header_count = message->n_reset_headers;
    backoff->max_interval_ms = KB_MAX(
        kb_route_build_ms(build, "max_interval", message->max_interval, RATE_LIMITED_MAX_MS), 1);
    kb_diag_pop(build->match.diag);
    return backoff;
}

static void matchers_build(struct kb_route_build *build,
                           const Envoy__Config__Route__V3__RetryPolicy *message,
                           struct kb_retry_policy *policy)
{
    policy->retriable_header_count = message->n_retriable_headers;
    policy->retriable_headers =
        kb_header_matchers_create(message->retriable_headers, message->n_retriable_headers,
                                  "retriable_headers", &build->match);
    build->failed |= (policy->retriable_headers == NULL) != (policy->retriable_header_count == 0);
    policy->retriable_request_header_count = message->n_retriable_request_headers;
    policy->retriable_request_headers = kb_header_matchers_create(
        message->retriable_request_headers, message->n_retriable_request_headers,
        "retriable_request_headers", &build->match);
    build->failed |= (policy->retriable_request_headers == NULL) !=
                     (policy->retriable_request_header_count == 0);
}

const struct kb_retry_policy *
kb_route_build_retry(struct kb_route_build *build,
                     const Envoy__Config__Route__V3__RetryPolicy *message)
{
    struct kb_retry_policy *policy = KB_ARENA_NEW(build->match.arena, struct kb_retry_policy);
    struct kb_str retry_on = kb_str_from_cstr(message->retry_on);
    uint32_t *codes;

    policy->retry_on =
        kb_retry_on_parse(retry_on, false, NULL) | kb_retry_on_parse(retry_on, true, NULL);
    policy->num_retries_set = message->num_retries != NULL;
    policy->num_retries = message->num_retries != NULL ? message->num_retries->value : 1;
    policy->per_try_timeout_ms =
        kb_route_build_ms(build, "per_try_timeout", message->per_try_timeout, 0);
    policy->per_try_idle_timeout_ms =
        kb_route_build_ms(build, "per_try_idle_timeout", message->per_try_idle_timeout, 0);
    policy->host_selection_attempts = 1;
    if (message->host_selection_retry_max_attempts > 0) {
        policy->host_selection_attempts =
            (uint32_t)KB_MIN(message->host_selection_retry_max_attempts, UINT32_MAX);
    }
    codes = kb_arena_calloc(build->match.arena,
                            (message->n_retriable_status_codes + 1) * sizeof(*codes));
    for (size_t i = 0; i < message->n_retriable_status_codes; i++) {
        codes[i] = message->retriable_status_codes[i];
    }
    policy->retriable_status_codes = codes;
    policy->retriable_status_code_count = message->n_retriable_status_codes;
    host_predicates_build(build, message, policy);
    extensions_read(build, message, policy);
    backoff_build(build, message->retry_back_off, policy);
    policy->rate_limited = rate_limited_build(build, message->rate_limited_retry_back_off);
    matchers_build(build, message, policy);
    return policy;
}

const struct kb_retry_policy *
kb_retry_policy_create(const Envoy__Config__Route__V3__RetryPolicy *message,
                       const struct kb_match_build *build, struct kb_factory_context *factory)
{
    struct kb_route_build alone = {.match = *build, .factory = factory};

    return kb_route_build_retry(&alone, message);
}
