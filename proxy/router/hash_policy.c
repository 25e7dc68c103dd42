/* SPDX-License-Identifier: Apache-2.0 */
/* Hash policies (Envoy Http::HashPolicyImpl): XXH64 of header, cookie, source address or query
 * parameter; the numbers of several policies are combined by rotation and exclusive or. */
#include "proxy/router/hash_policy.h"

#include <stdlib.h>
#include <xxhash.h>

#include "envoy/config/route/v3/route_components.pb-c.h"
#include "envoy/type/matcher/v3/regex.pb-c.h"
#include "google/protobuf/duration.pb-c.h"
#include "proxy/api/filter_state.h"
#include "proxy/http/header_mutation.h"
#include "proxy/matcher/cookie_match.h"
#include "proxy/matcher/query_match.h"

#define HEADER_VALUES_MAX 64 /* of one header; more are not looked at */
#define CASE(name) ENVOY__CONFIG__ROUTE__V3__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_##name

enum hash_kind {
    HASH_NOTHING,
    HASH_HEADER,
    HASH_COOKIE,
    HASH_SOURCE_IP,
    HASH_QUERY,
    HASH_FILTER_STATE
};

struct hash_policy {
    uint8_t kind;
    bool terminal;
    bool has_ttl;                 /* COOKIE */
    struct kb_str name;           /* HEADER (lower case), QUERY */
    const struct kb_regex *regex; /* HEADER */
    struct kb_str substitution;
    struct kb_hash_cookie cookie;
    const struct kb_filter_state_key *key; /* FILTER_STATE */
};

struct kb_hash_policies {
    size_t count;
    struct hash_policy items[];
};

/* ---- building ---- */

static int header_init(struct hash_policy *policy,
                       const Envoy__Config__Route__V3__RouteAction__HashPolicy__Header *message,
                       const struct kb_match_build *build)
{
    policy->kind = HASH_HEADER;
    policy->name = kb_header_name_dup(build->arena, message->header_name);
    if (message->regex_rewrite == NULL) {
        return 0;
    }
    policy->substitution =
        kb_str_dup(build->arena, kb_str_from_cstr(message->regex_rewrite->substitution));
    policy->regex = kb_match_build_regex(build, message->regex_rewrite->pattern);
    return policy->regex != NULL ? 0 : KB_ECONFIG;
}

static void cookie_init(struct hash_policy *policy,
                        const Envoy__Config__Route__V3__RouteAction__HashPolicy__Cookie *message,
                        struct kb_arena *arena)
{
    struct kb_str *attributes = NULL;

    policy->kind = HASH_COOKIE;
    policy->cookie.name = kb_str_dup(arena, kb_str_from_cstr(message->name));
    policy->cookie.path = kb_str_dup(arena, kb_str_from_cstr(message->path));
    policy->has_ttl = message->ttl != NULL;
    policy->cookie.ttl_s =
        message->ttl != NULL && message->ttl->seconds > 0 ? (uint64_t)message->ttl->seconds : 0;
    if (message->n_attributes > 0) {
        attributes = kb_arena_calloc(arena, 2 * message->n_attributes * sizeof(*attributes));
        for (size_t i = 0; i < message->n_attributes; i++) {
            attributes[2 * i] = kb_str_dup(arena, kb_str_from_cstr(message->attributes[i]->name));
            attributes[2 * i + 1] =
                kb_str_dup(arena, kb_str_from_cstr(message->attributes[i]->value));
        }
    }
    policy->cookie.attributes = attributes;
    policy->cookie.attribute_count = message->n_attributes;
}

static int policy_init(struct hash_policy *policy,
                       const Envoy__Config__Route__V3__RouteAction__HashPolicy *message,
                       const struct kb_match_build *build)
{
    policy->terminal = message->terminal;
    switch ((int)message->policy_specifier_case) {
    case CASE(HEADER):
        return header_init(policy, message->header, build);
    case CASE(COOKIE):
        cookie_init(policy, message->cookie, build->arena);
        return 0;
    case CASE(CONNECTION_PROPERTIES):
        policy->kind = message->connection_properties->source_ip ? HASH_SOURCE_IP : HASH_NOTHING;
        return 0;
    case CASE(QUERY_PARAMETER):
        policy->kind = HASH_QUERY;
        policy->name = kb_str_dup(build->arena, kb_str_from_cstr(message->query_parameter->name));
        return 0;
    case CASE(FILTER_STATE):
        policy->kind = HASH_FILTER_STATE;
        policy->key = kb_filter_state_key(kb_str_from_cstr(message->filter_state->key));
        return 0;
    default:
        kb_diag_error(build->diag, "policy_specifier: is required");
        return KB_ECONFIG;
    }
}

const struct kb_hash_policies *
kb_hash_policies_create(Envoy__Config__Route__V3__RouteAction__HashPolicy *const *messages,
                        size_t count, const struct kb_match_build *build, bool *failed)
{
    struct kb_hash_policies *policies;

    if (count == 0) {
        return NULL;
    }
    policies =
        kb_arena_calloc(build->arena, sizeof(*policies) + count * sizeof(policies->items[0]));
    policies->count = count;
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(build->diag, "hash_policy", i);
        if (policy_init(&policies->items[i], messages[i], build) != 0) {
            *failed = true;
        }
        kb_diag_pop(build->diag);
    }
    return policies;
}

/* ---- hashing ---- */

static bool text_hash(struct kb_str text, uint64_t *hash)
{
    *hash = XXH64(text.p, text.len, 0);
    return true;
}

static int value_order(const void *a, const void *b)
{
    return kb_str_cmp(*(const struct kb_str *)a, *(const struct kb_str *)b);
}

/* All values of the header in sorted order, each hashed with the hash before it as the seed. */
static bool header_hash(const struct hash_policy *policy, const struct kb_header_map *headers,
                        uint64_t *hash)
{
    struct kb_str values[HEADER_VALUES_MAX];
    size_t count = 0;

    if (policy->name.p[0] == ':' || kb_str_eq(policy->name, KB_STR("host"))) {
        values[0] = kb_header_map_value(headers, policy->name);
        count = values[0].p != NULL;
    } else {
        KB_HEADER_FOREACH(header, headers)
        {
            if (count < HEADER_VALUES_MAX && kb_str_eq(header->name, policy->name)) {
                values[count++] = header->value;
            }
        }
    }
    if (count == 0) {
        return false;
    }
    for (size_t i = 0; policy->regex != NULL && i < count; i++) {
        values[i] =
            kb_regex_replace_all(policy->regex, values[i], policy->substitution, headers->arena);
    }
    qsort(values, count, sizeof(values[0]), value_order);
    *hash = 0;
    for (size_t i = 0; i < count; i++) {
        *hash = XXH64(values[i].p, values[i].len, *hash);
    }
    return true;
}

static bool cookie_hash(const struct hash_policy *policy, const struct kb_header_map *headers,
                        kb_hash_cookie_fn add_cookie, void *arg, uint64_t *hash)
{
    struct kb_str value = kb_cookie_value(headers, policy->cookie.name);

    if (value.len == 0 && policy->has_ttl && add_cookie != NULL) {
        value = add_cookie(arg, &policy->cookie);
    }
    return value.len > 0 && text_hash(value, hash);
}

static bool source_ip_hash(const struct kb_stream_info *info, uint64_t *hash)
{
    char text[KB_ADDR_TEXT_MAX];

    return info != NULL && kb_addr_is_ip(&info->remote) &&
           text_hash(kb_addr_ip_text(&info->remote, text), hash);
}

static bool filter_state_hash(const struct hash_policy *policy, const struct kb_stream_info *info,
                              uint64_t *hash)
{
    const struct kb_filter_state_item *item =
        info != NULL ? kb_filter_state_find(info, policy->key) : NULL;

    return item != NULL && item->type->hash != NULL && item->type->hash(item->object, hash);
}

static bool policy_hash(const struct hash_policy *policy, const struct kb_header_map *headers,
                        const struct kb_stream_info *info, kb_hash_cookie_fn add_cookie, void *arg,
                        uint64_t *hash)
{
    struct kb_str value;

    switch ((enum hash_kind)policy->kind) {
    case HASH_NOTHING:
        return false;
    case HASH_HEADER:
        return header_hash(policy, headers, hash);
    case HASH_COOKIE:
        return cookie_hash(policy, headers, add_cookie, arg, hash);
    case HASH_SOURCE_IP:
        return source_ip_hash(info, hash);
    case HASH_QUERY:
        value = kb_query_first_value(headers->path, policy->name);
        return value.p != NULL && text_hash(value, hash);
    case HASH_FILTER_STATE:
        return filter_state_hash(policy, info, hash);
    }
    return false;
}

bool kb_hash_policies_hash(const struct kb_hash_policies *policies,
                           const struct kb_header_map *headers, const struct kb_stream_info *info,
                           kb_hash_cookie_fn add_cookie, void *arg, uint64_t *hash)
{
    bool found = false;
    uint64_t combined = 0;

    for (size_t i = 0; i < policies->count; i++) {
        uint64_t one;

        if (policy_hash(&policies->items[i], headers, info, add_cookie, arg, &one)) {
            combined = ((combined << 1) | (combined >> 63)) ^ one;
            found = true;
        }
        if (found && policies->items[i].terminal) {
            break;
        }
    }
    *hash = combined;
    return found;
}

bool kb_route_hash(const struct kb_route *route, const struct kb_header_map *headers,
                   const struct kb_stream_info *info, kb_hash_cookie_fn add_cookie, void *arg,
                   uint64_t *hash)
{
    return route->policies != NULL && route->policies->hash != NULL &&
           kb_hash_policies_hash(route->policies->hash, headers, info, add_cookie, arg, hash);
}

struct kb_str kb_hash_cookie_text(const struct kb_hash_cookie *cookie, struct kb_str value,
                                  struct kb_arena *arena)
{
    struct kb_str text =
        kb_str_printf(arena, "%.*s=\"%.*s\"", KB_STR_ARG(cookie->name), KB_STR_ARG(value));

    if (cookie->ttl_s > 0) {
        text = kb_str_printf(arena, "%.*s; Max-Age=%llu", KB_STR_ARG(text),
                             (unsigned long long)cookie->ttl_s);
    }
    if (cookie->path.len > 0) {
        text = kb_str_printf(arena, "%.*s; Path=%.*s", KB_STR_ARG(text), KB_STR_ARG(cookie->path));
    }
    for (size_t i = 0; i < cookie->attribute_count; i++) {
        struct kb_str attribute = cookie->attributes[2 * i];
        struct kb_str setting = cookie->attributes[2 * i + 1];

        text = kb_str_printf(arena, "%.*s; %.*s%s%.*s", KB_STR_ARG(text), KB_STR_ARG(attribute),
                             setting.len > 0 ? "=" : "", KB_STR_ARG(setting));
    }
    return kb_str_printf(arena, "%.*s; HttpOnly", KB_STR_ARG(text));
}
