/* SPDX-License-Identifier: Apache-2.0 */
/* Token buckets, and what actions of a rate limit make of a request. */
#include "envoy/config/route/v3/route_components.pb-c.h"
#include "envoy/type/v3/token_bucket.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/route.h"
#include "proxy/ext/http/local_ratelimit.h"

#define ACTION(name) ENVOY__CONFIG__ROUTE__V3__RATE_LIMIT__ACTION__ACTION_SPECIFIER_##name

typedef Envoy__Config__Route__V3__RateLimit__Action action_message;

/* ---- tokens ---- */

#define FILL_INTERVAL_MIN_MS 50
#define FILL_TIME_MAX_NS     4e18 /* of a whole bucket: 126 years */

void kb_token_bucket_init(struct kb_token_bucket *bucket,
                          const struct Envoy__Type__V3__TokenBucket *message, uint64_t now_ns,
                          struct kb_diag *diag)
{
    uint64_t interval_ms = kb_wkt_duration_ms(message->fill_interval, 0);

    if (interval_ms < FILL_INTERVAL_MIN_MS) {
        kb_diag_error(diag, "local rate limit token bucket fill timer must be >= 50ms");
        interval_ms = FILL_INTERVAL_MIN_MS;
    }
    bucket->max = message->max_tokens;
    bucket->per_ns = (double)kb_wkt_u32(message->tokens_per_fill, 1) / ((double)interval_ms * 1e6);
    bucket->empty_ns =
        (int64_t)now_ns - (int64_t)KB_MIN((double)bucket->max / bucket->per_ns, FILL_TIME_MAX_NS);
}

static double tokens_at(const struct kb_token_bucket *bucket, int64_t empty_ns, uint64_t now_ns)
{
    double tokens = (double)KB_MAX((int64_t)now_ns - empty_ns, INT64_C(0)) * bucket->per_ns;

    return KB_MIN(tokens, (double)bucket->max);
}

/* A token that a rounded division left short by a billionth is one. */
#define NEARLY 1e-6

bool kb_token_bucket_take(struct kb_token_bucket *bucket, uint64_t now_ns)
{
    int64_t before = __atomic_load_n(&bucket->empty_ns, __ATOMIC_RELAXED);
    int64_t after;

    do {
        double tokens = tokens_at(bucket, before, now_ns);

        if (tokens + NEARLY < 1) {
            return false;
        }
        after = (int64_t)now_ns - (int64_t)(KB_MAX(tokens - 1, 0.0) / bucket->per_ns);
    } while (!__atomic_compare_exchange_n(&bucket->empty_ns, &before, after, true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    return true;
}

uint64_t kb_token_bucket_left(const struct kb_token_bucket *bucket, uint64_t now_ns)
{
    return (
        uint64_t)(tokens_at(bucket, __atomic_load_n(&bucket->empty_ns, __ATOMIC_RELAXED), now_ns) +
                  NEARLY);
}

uint64_t kb_token_bucket_wait_s(const struct kb_token_bucket *bucket, uint64_t now_ns)
{
    double tokens = tokens_at(bucket, __atomic_load_n(&bucket->empty_ns, __ATOMIC_RELAXED), now_ns);
    uint64_t wait_ms;

    if (tokens + NEARLY >= 1) {
        return 0;
    }
    wait_ms = (uint64_t)((1 - tokens) / bucket->per_ns / 1e6);
    return (wait_ms + 999) / 1000;
}

/* ---- actions ---- */

enum action_kind { GENERIC, HEADER, REMOTE_ADDRESS, HEADER_MATCH, SOURCE_CLUSTER, TARGET_CLUSTER };

struct action {
    enum action_kind kind;
    struct kb_str key, value;
    struct kb_str header; /* lower case */
    struct kb_header_matcher *matchers;
    size_t matcher_count;
    bool expect_match;
    bool skip_if_absent;
};

struct limit {
    struct action *actions;
    size_t count;
};

struct kb_rate_limits {
    size_t count;
    struct limit limits[];
};

static struct kb_str text_or(struct kb_arena *arena, const char *text, const char *otherwise)
{
    return kb_str_dup(arena, kb_str_from_cstr(text[0] != '\0' ? text : otherwise));
}

static int header_match_read(struct action *action, const action_message *m,
                             const struct kb_match_build *build)
{
    const Envoy__Config__Route__V3__RateLimit__Action__HeaderValueMatch *match =
        m->header_value_match;

    action->kind = HEADER_MATCH;
    action->key = text_or(build->arena, match->descriptor_key, "header_match");
    action->value = text_or(build->arena, match->descriptor_value, "");
    action->expect_match = kb_wkt_bool(match->expect_match, true);
    action->matcher_count = match->n_headers;
    kb_diag_push(build->diag, "header_value_match");
    action->matchers =
        kb_header_matchers_create(match->headers, match->n_headers, "headers", build);
    kb_diag_pop(build->diag);
    return action->matchers != NULL || match->n_headers == 0 ? 0 : KB_ECONFIG;
}

static int action_read(struct action *action, const action_message *m, struct kb_str node_cluster,
                       const struct kb_match_build *build)
{
    struct kb_arena *arena = build->arena;

    switch ((int)m->action_specifier_case) {
    case ACTION(GENERIC_KEY):
        action->kind = GENERIC;
        action->key = text_or(arena, m->generic_key->descriptor_key, "generic_key");
        action->value = text_or(arena, m->generic_key->descriptor_value, "");
        return 0;
    case ACTION(REQUEST_HEADERS): {
        char *name;

        action->kind = HEADER;
        action->key = text_or(arena, m->request_headers->descriptor_key, "");
        action->header = text_or(arena, m->request_headers->header_name, "");
        action->skip_if_absent = m->request_headers->skip_if_absent;
        name = (char *)(uintptr_t)action->header.p;
        for (size_t i = 0; i < action->header.len; i++) {
            name[i] = kb_ascii_lower(name[i]);
        }
        return 0;
    }
    case ACTION(REMOTE_ADDRESS):
        action->kind = REMOTE_ADDRESS;
        action->key = KB_STR("remote_address");
        return 0;
    case ACTION(SOURCE_CLUSTER):
        action->kind = SOURCE_CLUSTER;
        action->key = KB_STR("source_cluster");
        action->value = kb_str_dup(arena, node_cluster);
        return 0;
    case ACTION(DESTINATION_CLUSTER):
        action->kind = TARGET_CLUSTER;
        action->key = KB_STR("destination_cluster");
        return 0;
    case ACTION(HEADER_VALUE_MATCH):
        return header_match_read(action, m, build);
    default:
        kb_diag_error(build->diag,
                      "this action is not implemented; there are generic_key, request_headers, "
                      "remote_address, source_cluster, destination_cluster, header_value_match");
        return KB_ECONFIG;
    }
}

static void limit_read(struct limit *limit, const Envoy__Config__Route__V3__RateLimit *m,
                       struct kb_str node_cluster, const struct kb_match_build *build, bool *failed)
{
    if (m->n_actions > KB_RATE_ENTRIES_MAX) {
        kb_diag_error(build->diag, "more than %d actions", KB_RATE_ENTRIES_MAX);
        *failed = true;
        return;
    }
    limit->actions = kb_arena_calloc(build->arena, (m->n_actions + 1) * sizeof(*limit->actions));
    for (size_t i = 0; i < m->n_actions; i++) {
        kb_diag_push_index(build->diag, "actions", i);
        *failed |=
            action_read(&limit->actions[limit->count++], m->actions[i], node_cluster, build) != 0;
        kb_diag_pop(build->diag);
    }
}

const struct kb_rate_limits *
kb_rate_limits_create(struct Envoy__Config__Route__V3__RateLimit *const *messages, size_t count,
                      struct kb_str node_cluster, const struct kb_match_build *build, bool *failed)
{
    struct kb_rate_limits *limits =
        kb_arena_calloc(build->arena, sizeof(*limits) + count * sizeof(limits->limits[0]));

    if (count > KB_RATE_DESCRIPTORS_MAX) {
        kb_diag_error(build->diag, "more than %d rate_limits", KB_RATE_DESCRIPTORS_MAX);
        *failed = true;
        return limits;
    }
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(build->diag, "rate_limits", i);
        limit_read(&limits->limits[limits->count++], messages[i], node_cluster, build, failed);
        kb_diag_pop(build->diag);
    }
    return limits;
}

/* ---- of a request ---- */

static struct kb_str address_text(struct kb_stream *stream)
{
    const struct kb_addr *remote = &kb_stream_stream_info(stream)->remote;
    char *text = kb_arena_alloc(kb_stream_arena(stream), KB_ADDR_TEXT_MAX + 1, 1);

    return kb_addr_ip_text(remote, text);
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

/* Adds an entry; false: there is no descriptor then. */
static bool entry_make(const struct action *action, struct kb_stream *stream,
                       const struct kb_header_map *headers, struct kb_rate_descriptor *descriptor)
{
    struct kb_str value = action->value;

    switch (action->kind) {
    case GENERIC:
    case SOURCE_CLUSTER:
        break;
    case HEADER:
        value = kb_header_map_value(headers, action->header);
        if (value.p == NULL) {
            return action->skip_if_absent;
        }
        break;
    case REMOTE_ADDRESS:
        value = address_text(stream);
        break;
    case HEADER_MATCH:
        if (kb_header_matchers_all(action->matchers, action->matcher_count, headers) !=
            action->expect_match) {
            return false;
        }
        break;
    case TARGET_CLUSTER:
        value = target_cluster(stream, headers);
        break;
    }
    if (value.p == NULL) {
        return false;
    }
    descriptor->entries[descriptor->count++] = (struct kb_rate_entry){action->key, value};
    return true;
}

size_t kb_rate_limits_describe(const struct kb_rate_limits *limits, struct kb_stream *stream,
                               const struct kb_header_map *headers,
                               struct kb_rate_descriptor out[KB_RATE_DESCRIPTORS_MAX])
{
    size_t count = 0;

    for (size_t i = 0; i < limits->count; i++) {
        const struct limit *limit = &limits->limits[i];
        struct kb_rate_descriptor *descriptor = &out[count];
        bool made = true;

        descriptor->count = 0;
        for (size_t j = 0; j < limit->count && made; j++) {
            made = entry_make(&limit->actions[j], stream, headers, descriptor);
        }
        count += made && descriptor->count > 0;
    }
    return count;
}
