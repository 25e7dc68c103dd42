/* SPDX-License-Identifier: Apache-2.0 */
/* Rate limits at work: each action makes one entry of a descriptor out of a request. Apart from
 * their configuration, which route tables need without any request. */
#include <stdlib.h>
#include <string.h>

#include "proxy/api/cluster.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/formatter.h"
#include "proxy/api/route.h"
#include "proxy/matcher/header_match.h"
#include "proxy/matcher/query_match.h"
#include "proxy/router/rate_limit_actions.h"
#include "proxy/router/route_table.h"

#define HITS_MAX      1e9
#define HITS_TEXT_MAX 64

enum action_result {
    ACTION_ENTRY,
    ACTION_SKIPPED, /* the descriptor goes without this entry */
    ACTION_NONE,    /* there is no descriptor */
};

/* ---- actions ---- */

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
        space = kb_packed_metadata_get(route->metadata, action->name, kb_stream_arena(stream));
    } else if (action->kind == KB_RATE_CLUSTER_METADATA) {
        cluster = kb_stream_route_cluster(stream);
        space = cluster != NULL ? kb_packed_metadata_get(cluster->metadata, action->name,
                                                         kb_stream_arena(stream))
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

static enum action_result action_apply(const struct kb_rate_action *action,
                                       struct kb_stream *stream,
                                       const struct kb_header_map *headers,
                                       struct kb_rate_entry *entry)
{
    struct kb_str value = action_value(action, stream, headers);

    if (value.p == NULL) {
        return action->skip_if_absent ? ACTION_SKIPPED : ACTION_NONE;
    }
    *entry = (struct kb_rate_entry){action->key, value};
    return ACTION_ENTRY;
}

/* ---- descriptors ---- */

/* A number as a person writes it, of 0 to HITS_MAX; false for anything else. */
static bool hits_parse(struct kb_str text, uint64_t *hits)
{
    char copy[HITS_TEXT_MAX + 1];
    char *end;
    double value;

    text = kb_str_trim(text);
    if (text.len == 0 || text.len > HITS_TEXT_MAX) {
        return false;
    }
    memcpy(copy, text.p, text.len);
    copy[text.len] = '\0';
    if (strspn(copy, "+-.0123456789abcdefABCDEFxXpP") != text.len) {
        return false;
    }
    value = strtod(copy, &end);
    if (*end != '\0' || !(value >= 0 && value <= HITS_MAX)) {
        return false;
    }
    *hits = (uint64_t)value;
    return true;
}

static bool cost_of(const struct kb_rate_limit *limit, struct kb_stream *stream,
                    const struct kb_header_map *headers, struct kb_rate_descriptor *out)
{
    const struct kb_formatter_input input = {.request = headers};

    out->hits = limit->hits;
    out->gives_back = limit->gives_back;
    out->x_rate_limit = limit->x_rate_limit;
    return limit->hits_format == NULL ||
           hits_parse(kb_formatter_text(limit->hits_format, &input, kb_stream_stream_info(stream),
                                        kb_stream_arena(stream)),
                      &out->hits);
}

static bool descriptor_make(const struct kb_rate_limit *limit, struct kb_stream *stream,
                            const struct kb_header_map *headers, struct kb_rate_descriptor *out)
{
    struct kb_rate_entry *entries =
        kb_arena_alloc(kb_stream_arena(stream), (limit->count + 1) * sizeof(*entries),
                       _Alignof(struct kb_rate_entry));

    out->entries = entries;
    out->count = 0;
    for (size_t i = 0; i < limit->count; i++) {
        enum action_result result =
            action_apply(&limit->actions[i], stream, headers, &entries[out->count]);

        if (result == ACTION_NONE) {
            return false;
        }
        out->count += result == ACTION_ENTRY;
    }
    return cost_of(limit, stream, headers, out);
}

size_t kb_rate_limits_describe(const struct kb_rate_limits *limits, uint32_t stage,
                               struct kb_stream *stream, const struct kb_header_map *headers,
                               struct kb_rate_descriptor *out)
{
    size_t count = 0;

    for (size_t i = 0; limits != NULL && i < limits->count; i++) {
        const struct kb_rate_limit *limit = &limits->limits[i];

        if (!limit->off && (limit->of_filter || limit->stage == stage)) {
            count += descriptor_make(limit, stream, headers, &out[count]);
        }
    }
    return count;
}

/* ---- of a route ---- */

const struct kb_rate_limits *kb_route_rate_limits(const struct kb_route *route)
{
    return route->policies != NULL ? route->policies->rate_limits : NULL;
}

const struct kb_rate_limits *kb_route_virtual_host_rate_limits(const struct kb_route *route)
{
    return route->virtual_host != NULL ? route->virtual_host->rate_limits : NULL;
}

bool kb_route_includes_virtual_host_rate_limits(const struct kb_route *route)
{
    return route->policies != NULL && route->policies->include_virtual_host_rate_limits;
}
