/* SPDX-License-Identifier: Apache-2.0 */
/* Actions of rate limits: each makes one entry of a descriptor out of a request. */
#include "proxy/router/rate_limit_actions.h"

#include "envoy/config/core/v3/address.pb-c.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/config/route/v3/route_components.pb-c.h"
#include "envoy/type/matcher/v3/address.pb-c.h"
#include "envoy/type/metadata/v3/metadata.pb-c.h"
#include "proto/pb.h"
#include "proto/wkt.h"
#include "proxy/api/cluster.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/route.h"
#include "proxy/http/header_mutation.h"
#include "proxy/matcher/header_match.h"
#include "proxy/matcher/query_match.h"

#define ACTION(name) ENVOY__CONFIG__ROUTE__V3__RATE_LIMIT__ACTION__ACTION_SPECIFIER_##name
#define SOURCE(name) ENVOY__CONFIG__ROUTE__V3__RATE_LIMIT__ACTION__META_DATA__SOURCE__##name

typedef Envoy__Config__Route__V3__RateLimit__Action action_message;

/* ---- configuration ---- */

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

/* ---- of a request ---- */

static struct kb_str address_text(struct kb_stream *stream)
{
    char *text = kb_arena_alloc(kb_stream_arena(stream), KB_ADDR_TEXT_MAX + 1, 1);

    return kb_addr_ip_text(&kb_stream_stream_info(stream)->remote, text);
}

static void bits_clear(uint8_t *bytes, size_t count, unsigned kept)
{
    for (size_t i = 0; i < count; i++) {
        unsigned here = kept > 8 * i ? KB_MIN(kept - 8 * (unsigned)i, 8U) : 0;

        bytes[i] &= (uint8_t)(0xff00U >> here);
    }
}

/* "10.1.0.0/16" */
static struct kb_str masked_text(const struct kb_rate_action *action, struct kb_stream *stream)
{
    struct kb_addr addr = kb_stream_stream_info(stream)->remote;
    char text[KB_ADDR_TEXT_MAX + 1];
    unsigned bits;

    if (!kb_addr_is_ip(&addr)) {
        return KB_STR_NULL;
    }
    if (addr.sa.sa_family == AF_INET6) {
        bits = action->v6_bits;
        bits_clear((uint8_t *)&addr.in6.sin6_addr, 16, bits);
    } else {
        bits = action->v4_bits;
        bits_clear((uint8_t *)&addr.in4.sin_addr, 4, bits);
    }
    return kb_str_printf(kb_stream_arena(stream), "%.*s/%u",
                         KB_STR_ARG(kb_addr_ip_text(&addr, text)), bits);
}

static bool address_in(const struct kb_rate_action *action, struct kb_stream *stream)
{
    const struct kb_addr *remote = &kb_stream_stream_info(stream)->remote;

    for (size_t i = 0; i < action->matcher_count; i++) {
        if (kb_cidr_contains(&action->ranges[i], remote)) {
            return true;
        }
    }
    return false;
}

static struct kb_str target_cluster(struct kb_stream *stream, const struct kb_header_map *headers)
{
    const struct kb_route *route = kb_stream_route(stream);
    struct kb_str name = KB_STR_NULL;
    const void *choice;
    uint32_t slot;

    if (route == NULL || route->kind != KB_ROUTE_CLUSTER ||
        kb_route_choose_cluster(route, headers, kb_stream_route_random(stream), &slot, &name,
                                &choice) != 0) {
        return KB_STR_NULL;
    }
    return name;
}

/* The first value of a parameter, percent-decoded; p NULL when there is none. */
static struct kb_str query_value(const struct kb_rate_action *action, struct kb_stream *stream,
                                 const struct kb_header_map *headers)
{
    return kb_query_decoded_value(kb_header_map_value(headers, KB_STR(":path")), action->name,
                                  kb_stream_arena(stream));
}

/* The namespace of packed metadata, unpacked in the stream's arena. */
static const Google__Protobuf__Struct *packed_space(struct kb_str packed, struct kb_str name,
                                                    struct kb_arena *arena)
{
    const Envoy__Config__Core__V3__Metadata *metadata;
    ProtobufCMessage *message;

    if (packed.len == 0 || kb_pb_unpack(&envoy__config__core__v3__metadata__descriptor, packed,
                                        arena, &message) != 0) {
        return NULL;
    }
    metadata = (const void *)message;
    for (size_t i = 0; i < metadata->n_filter_metadata; i++) {
        if (kb_str_eq(kb_str_from_cstr(metadata->filter_metadata[i]->key), name)) {
            return metadata->filter_metadata[i]->value;
        }
    }
    return NULL;
}

/* A text that is not empty, or p NULL. */
static struct kb_str metadata_text(const struct kb_rate_action *action, struct kb_stream *stream)
{
    const struct kb_stream_info *info = kb_stream_stream_info(stream);
    const struct kb_route *route = kb_stream_route(stream);
    const struct kb_cluster *cluster;
    const Google__Protobuf__Struct *space = NULL;
    const Google__Protobuf__Value *value = NULL;

    if (action->kind == KB_RATE_DYNAMIC_METADATA) {
        space = kb_dynamic_metadata_get(info->dynamic_metadata, action->name);
    } else if (action->kind == KB_RATE_ROUTE_METADATA && route != NULL) {
        space = packed_space(route->metadata, action->name, kb_stream_arena(stream));
    } else if (action->kind == KB_RATE_CLUSTER_METADATA) {
        cluster = kb_stream_route_cluster(stream);
        space = cluster != NULL
                    ? packed_space(cluster->metadata, action->name, kb_stream_arena(stream))
                    : NULL;
    }
    for (size_t i = 0; i < action->path_len; i++) {
        value = space != NULL ? kb_struct_get(space, action->path[i]) : NULL;
        space = value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE
                    ? value->struct_value
                    : NULL;
    }
    return value != NULL && value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE &&
                   value->string_value[0] != '\0'
               ? kb_str_from_cstr(value->string_value)
               : KB_STR_NULL;
}

/* The value; p NULL: the request has none. */
static struct kb_str action_value(const struct kb_rate_action *action, struct kb_stream *stream,
                                  const struct kb_header_map *headers)
{
    struct kb_str path;

    switch (action->kind) {
    case KB_RATE_GENERIC:
    case KB_RATE_SOURCE_CLUSTER:
        return action->value;
    case KB_RATE_HEADER:
        return kb_header_map_value(headers, action->name);
    case KB_RATE_QUERY:
        return query_value(action, stream, headers);
    case KB_RATE_REMOTE_ADDRESS:
        return kb_addr_is_ip(&kb_stream_stream_info(stream)->remote) ? address_text(stream)
                                                                     : KB_STR_NULL;
    case KB_RATE_MASKED_REMOTE_ADDRESS:
        return masked_text(action, stream);
    case KB_RATE_REMOTE_ADDRESS_MATCH:
        return address_in(action, stream) == action->expected ? action->value : KB_STR_NULL;
    case KB_RATE_HEADER_MATCH:
        return kb_header_matchers_all(action->headers, action->matcher_count, headers) ==
                       action->expected
                   ? action->value
                   : KB_STR_NULL;
    case KB_RATE_QUERY_MATCH:
        path = kb_header_map_value(headers, KB_STR(":path"));
        return kb_query_matchers_all_decoded(action->queries, action->matcher_count, path,
                                             kb_stream_arena(stream)) == action->expected
                   ? action->value
                   : KB_STR_NULL;
    case KB_RATE_TARGET_CLUSTER:
        return target_cluster(stream, headers);
    case KB_RATE_DYNAMIC_METADATA:
    case KB_RATE_ROUTE_METADATA:
    case KB_RATE_CLUSTER_METADATA:
    case KB_RATE_NO_METADATA:
        path = metadata_text(action, stream);
        return path.p != NULL || action->value.len == 0 ? path : action->value;
    }
    return KB_STR_NULL;
}

enum kb_rate_action_result kb_rate_action_apply(const struct kb_rate_action *action,
                                                struct kb_stream *stream,
                                                const struct kb_header_map *headers,
                                                struct kb_rate_entry *entry)
{
    struct kb_str value = action_value(action, stream, headers);

    if (value.p == NULL) {
        return action->skip_if_absent ? KB_RATE_ACTION_SKIPPED : KB_RATE_ACTION_NONE;
    }
    *entry = (struct kb_rate_entry){action->key, value};
    return KB_RATE_ACTION_ENTRY;
}
