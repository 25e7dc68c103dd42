/* SPDX-License-Identifier: Apache-2.0 */
/* Actions of rate limits, from their configuration. */
#include "proxy/router/rate_limit_actions.h"

#include "envoy/config/core/v3/address.pb-c.h"
#include "envoy/config/route/v3/route_components.pb-c.h"
#include "envoy/type/matcher/v3/address.pb-c.h"
#include "envoy/type/metadata/v3/metadata.pb-c.h"
#include "proto/wkt.h"
#include "proxy/http/header_mutation.h"
#include "proxy/matcher/header_match.h"
#include "proxy/matcher/query_match.h"

#define ACTION(name) ENVOY__CONFIG__ROUTE__V3__RATE_LIMIT__ACTION__ACTION_SPECIFIER_##name
#define SOURCE(name) ENVOY__CONFIG__ROUTE__V3__RATE_LIMIT__ACTION__META_DATA__SOURCE__##name

typedef Envoy__Config__Route__V3__RateLimit__Action action_message;

static struct kb_str text_or(struct kb_arena *arena, const char *text, const char *otherwise)
{
    return kb_str_dup(arena, kb_str_from_cstr(text[0] != '\0' ? text : otherwise));
}

static int header_match_read(struct kb_rate_action *action, const action_message *m,
                             const struct kb_match_build *build)
{
    const Envoy__Config__Route__V3__RateLimit__Action__HeaderValueMatch *match =
        m->header_value_match;

    action->kind = KB_RATE_HEADER_MATCH;
    action->key = text_or(build->arena, match->descriptor_key, "header_match");
    action->value = text_or(build->arena, match->descriptor_value, "");
    action->expected = kb_wkt_bool(match->expect_match, true);
    action->matcher_count = match->n_headers;
    kb_diag_push(build->diag, "header_value_match");
    action->headers = kb_header_matchers_create(match->headers, match->n_headers, "headers", build);
    kb_diag_pop(build->diag);
    return action->headers != NULL || match->n_headers == 0 ? 0 : KB_ECONFIG;
}

static int query_match_read(struct kb_rate_action *action, const action_message *m,
                            const struct kb_match_build *build)
{
    const Envoy__Config__Route__V3__RateLimit__Action__QueryParameterValueMatch *match =
        m->query_parameter_value_match;

    action->kind = KB_RATE_QUERY_MATCH;
    action->key = text_or(build->arena, match->descriptor_key, "query_match");
    action->value = text_or(build->arena, match->descriptor_value, "");
    action->expected = kb_wkt_bool(match->expect_match, true);
    action->matcher_count = match->n_query_parameters;
    kb_diag_push(build->diag, "query_parameter_value_match");
    action->queries = kb_query_matchers_create(match->query_parameters, match->n_query_parameters,
                                               "query_parameters", build);
    kb_diag_pop(build->diag);
    return action->queries != NULL || match->n_query_parameters == 0 ? 0 : KB_ECONFIG;
}

static int address_match_read(struct kb_rate_action *action, const action_message *m,
                              const struct kb_match_build *build)
{
    const Envoy__Config__Route__V3__RateLimit__Action__RemoteAddressMatch *match =
        m->remote_address_match;
    const Envoy__Type__Matcher__V3__AddressMatcher *matcher = match->address_matcher;
    int rc = 0;

    action->kind = KB_RATE_REMOTE_ADDRESS_MATCH;
    action->key = text_or(build->arena, match->descriptor_key, "remote_address_match");
    action->value = text_or(build->arena, match->descriptor_value, "");
    if (matcher == NULL) {
        return 0; /* reported already: it is required */
    }
    action->expected = !matcher->invert_match;
    action->matcher_count = matcher->n_ranges;
    action->ranges =
        kb_arena_calloc(build->arena, (matcher->n_ranges + 1) * sizeof(*action->ranges));
    kb_diag_push(build->diag, "remote_address_match");
    kb_diag_push(build->diag, "address_matcher");
    for (size_t i = 0; i < matcher->n_ranges; i++) {
        struct kb_str prefix = kb_str_from_cstr(matcher->ranges[i]->address_prefix);

        kb_diag_push_index(build->diag, "ranges", i);
        if (kb_cidr_init(&action->ranges[i], prefix,
                         kb_wkt_u32(matcher->ranges[i]->prefix_len, 0)) != 0) {
            kb_diag_error(build->diag, "malformed IP address: %.*s", KB_STR_ARG(prefix));
            rc = KB_ECONFIG;
        }
        kb_diag_pop(build->diag);
    }
    kb_diag_pop(build->diag);
    kb_diag_pop(build->diag);
    return rc;
}

static int metadata_read(struct kb_rate_action *action, const action_message *m,
                         const struct kb_match_build *build)
{
    const Envoy__Config__Route__V3__RateLimit__Action__MetaData *meta = m->metadata;
    const Envoy__Type__Metadata__V3__MetadataKey *key = meta->metadata_key;
    struct kb_str *path;

    switch ((int)meta->source) {
    case SOURCE(ROUTE_ENTRY):
        action->kind = KB_RATE_ROUTE_METADATA;
        break;
    case SOURCE(CLUSTER_ENTRY):
        action->kind = KB_RATE_CLUSTER_METADATA;
        break;
    case SOURCE(CLUSTER_LOCALITY_ENTRY):
        action->kind = KB_RATE_NO_METADATA;
        break;
    default:
        action->kind = KB_RATE_DYNAMIC_METADATA;
        break;
    }
    action->key = text_or(build->arena, meta->descriptor_key, "");
    action->value = text_or(build->arena, meta->default_value, "");
    action->skip_if_absent = meta->skip_if_absent;
    if (key == NULL) {
        return 0; /* reported already: it is required */
    }
    action->name = text_or(build->arena, key->key, "");
    path = kb_arena_calloc(build->arena, (key->n_path + 1) * sizeof(*path));
    for (size_t i = 0; i < key->n_path; i++) {
        path[i] = text_or(build->arena, key->path[i]->key != NULL ? key->path[i]->key : "", "");
    }
    action->path = path;
    action->path_len = key->n_path;
    return 0;
}

int kb_rate_action_init(struct kb_rate_action *action, const action_message *m,
                        struct kb_str node_cluster, const struct kb_match_build *build)
{
    struct kb_arena *arena = build->arena;

    switch ((int)m->action_specifier_case) {
    case ACTION(GENERIC_KEY):
        action->kind = KB_RATE_GENERIC;
        action->key = text_or(arena, m->generic_key->descriptor_key, "generic_key");
        action->value = text_or(arena, m->generic_key->descriptor_value, "");
        return 0;
    case ACTION(REQUEST_HEADERS):
        action->kind = KB_RATE_HEADER;
        action->key = text_or(arena, m->request_headers->descriptor_key, "");
        action->name = kb_header_name_dup(arena, m->request_headers->header_name);
        action->skip_if_absent = m->request_headers->skip_if_absent;
        return 0;
    case ACTION(QUERY_PARAMETERS):
        action->kind = KB_RATE_QUERY;
        action->key = text_or(arena, m->query_parameters->descriptor_key, "");
        action->name = text_or(arena, m->query_parameters->query_parameter_name, "");
        action->skip_if_absent = m->query_parameters->skip_if_absent;
        return 0;
    case ACTION(REMOTE_ADDRESS):
        action->kind = KB_RATE_REMOTE_ADDRESS;
        action->key = KB_STR("remote_address");
        return 0;
    case ACTION(MASKED_REMOTE_ADDRESS):
        action->kind = KB_RATE_MASKED_REMOTE_ADDRESS;
        action->key = KB_STR("masked_remote_address");
        action->v4_bits =
            (uint8_t)KB_MIN(kb_wkt_u32(m->masked_remote_address->v4_prefix_mask_len, 32), 32U);
        action->v6_bits =
            (uint8_t)KB_MIN(kb_wkt_u32(m->masked_remote_address->v6_prefix_mask_len, 128), 128U);
        return 0;
    case ACTION(SOURCE_CLUSTER):
        action->kind = KB_RATE_SOURCE_CLUSTER;
        action->key = KB_STR("source_cluster");
        action->value = kb_str_dup(arena, node_cluster);
        return 0;
    case ACTION(DESTINATION_CLUSTER):
        action->kind = KB_RATE_TARGET_CLUSTER;
        action->key = KB_STR("destination_cluster");
        return 0;
    case ACTION(HEADER_VALUE_MATCH):
        return header_match_read(action, m, build);
    case ACTION(QUERY_PARAMETER_VALUE_MATCH):
        return query_match_read(action, m, build);
    case ACTION(REMOTE_ADDRESS_MATCH):
        return address_match_read(action, m, build);
    case ACTION(METADATA):
        return metadata_read(action, m, build);
    default:
        kb_diag_error(build->diag, "this action is not implemented");
        return KB_ECONFIG;
    }
}
