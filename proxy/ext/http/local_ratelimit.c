/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.local_ratelimit: answers 429 when the tokens of this process, route or
 * descriptor are used up. */
#include "proxy/ext/http/local_ratelimit.h"

#include <stdlib.h>

#include "envoy/extensions/common/ratelimit/v3/ratelimit.pb-c.h"
#include "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.pb-c.h"
#include "envoy/type/v3/http_status.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/stats.h"
#include "proxy/http/header_mutation.h"
#include "proxy/matcher/runtime_fraction.h"

#define GRPC_UNAVAILABLE        14
#define GRPC_RESOURCE_EXHAUSTED 8
#define STATUS_LIMITED          429

typedef Envoy__Extensions__Filters__Http__LocalRatelimit__V3__LocalRateLimit limit_message;
typedef Envoy__Extensions__Common__Ratelimit__V3__LocalRateLimitDescriptor descriptor_message;

enum { ENABLED, ENFORCED, OK, RATE_LIMITED, SHADOW_MODE, COUNTERS };

struct described {
    struct kb_rate_descriptor descriptor;
    struct kb_token_bucket bucket;
    bool shadow;
};

struct limit_config {
    KB_OBJ;
    struct kb_regex_list regexes;
    struct kb_stat_named *counters[COUNTERS];
    const struct kb_runtime *runtime;
    struct kb_token_bucket bucket;
    bool has_bucket;
    struct kb_runtime_fraction enabled, enforced;
    bool has_enabled, has_enforced;
    const struct kb_header_mutations *request_headers, *response_headers;
    const struct kb_rate_limits *limits;
    struct described *descriptors; /* the slowest first */
    size_t descriptor_count;
    unsigned status;
    uint8_t grpc_status;
    bool always_consume;
    bool shows_limit; /* x-ratelimit-* */
    bool shows_retry_after;
};
KB_OBJ_MAGIC(limit_config, 0x4c524c43);

struct limit_filter {
    struct limit_config *own;
    struct limit_config *config; /* in force */
    struct kb_stream *stream;
    const struct kb_token_bucket *seen; /* what x-ratelimit-* tell; NULL: nothing */
    bool shadowed;                      /* a descriptor that only watches would have refused it */
};

/* ---- configuration ---- */

static void descriptor_read(struct described *out, const descriptor_message *m, uint64_t now_ns,
                            struct kb_arena *arena, struct kb_diag *diag)
{
    if (m->n_entries > KB_RATE_ENTRIES_MAX) {
        kb_diag_error(diag, "more than %d entries", KB_RATE_ENTRIES_MAX);
        return;
    }
    for (size_t i = 0; i < m->n_entries; i++) {
        if (m->entries[i]->value[0] == '\0') {
            kb_diag_error(diag,
                          "entries[%zu].value: a bucket for each value is not implemented; "
                          "give the value",
                          i);
        }
        out->descriptor.entries[i].key = kb_str_dup(arena, kb_str_from_cstr(m->entries[i]->key));
        out->descriptor.entries[i].value =
            kb_str_dup(arena, kb_str_from_cstr(m->entries[i]->value));
    }
    out->descriptor.count = m->n_entries;
    out->shadow = m->shadow_mode;
    kb_diag_push(diag, "token_bucket");
    if (m->token_bucket == NULL) {
        kb_diag_error(diag, "value is required");
    } else {
        kb_token_bucket_init(&out->bucket, m->token_bucket, now_ns, diag);
    }
    kb_diag_pop(diag);
}

static int slower(const void *a, const void *b)
{
    const struct described *left = a, *right = b;

    return (left->bucket.per_ns > right->bucket.per_ns) -
           (left->bucket.per_ns < right->bucket.per_ns);
}

static void descriptors_read(struct limit_config *config, const limit_message *m, uint64_t now_ns,
                             struct kb_arena *arena, struct kb_diag *diag)
{
    config->descriptors =
        kb_arena_calloc(arena, (m->n_descriptors + 1) * sizeof(*config->descriptors));
    config->descriptor_count = m->n_descriptors;
    for (size_t i = 0; i < m->n_descriptors; i++) {
        kb_diag_push_index(diag, "descriptors", i);
        descriptor_read(&config->descriptors[i], m->descriptors[i], now_ns, arena, diag);
        kb_diag_pop(diag);
    }
    qsort(config->descriptors, config->descriptor_count, sizeof(*config->descriptors), slower);
}

static void counters_create(struct limit_config *config, const char *prefix,
                            struct kb_factory_context *factory)
{
    static const char *const names[COUNTERS] = {"enabled", "enforced", "ok", "rate_limited",
                                                "shadow_mode"};

    for (size_t i = 0; i < COUNTERS; i++) {
        config->counters[i] = kb_stat_named_create(
            factory->server->stats,
            kb_str_printf(factory->arena, "%s.http_local_rate_limit.%s", prefix, names[i]),
            KB_STAT_COUNTER);
    }
}

static void config_destroy(void *arg)
{
    struct limit_config *config;

    if (arg == NULL) {
        return;
    }
    config = KB_CAST(arg, limit_config);
    for (size_t i = 0; i < COUNTERS; i++) {
        kb_stat_named_destroy(config->counters[i]);
    }
    kb_regex_list_dispose(&config->regexes);
}

static void headers_read(struct limit_config *config, const limit_message *m,
                         const struct kb_match_build *build, bool *failed)
{
    config->request_headers = kb_header_mutations_create(
        m->request_headers_to_add_when_not_enforced, m->n_request_headers_to_add_when_not_enforced,
        NULL, 0, "request", build, failed);
    config->response_headers =
        kb_header_mutations_create(m->response_headers_to_add, m->n_response_headers_to_add, NULL,
                                   0, "response", build, failed);
}

static void fractions_read(struct limit_config *config, const limit_message *m,
                           struct kb_arena *arena)
{
    config->has_enabled = m->filter_enabled != NULL;
    config->has_enforced = m->filter_enforced != NULL;
    if (config->has_enabled) {
        kb_runtime_fraction_init(&config->enabled, m->filter_enabled, arena);
    }
    if (config->has_enforced) {
        kb_runtime_fraction_init(&config->enforced, m->filter_enforced, arena);
    }
}

static int limit_create(const limit_message *m, bool of_route, struct kb_factory_context *factory,
                        struct kb_diag *diag, void **out)
{
    struct kb_arena *arena = factory->arena;
    struct limit_config *config = KB_ARENA_NEW(arena, struct limit_config);
    const struct kb_match_build build = {arena, &config->regexes, diag};
    uint64_t now_ns = kb_loop_now_ns(&factory->server->main->loop);
    bool failed = false;

    KB_OBJ_SET(config, limit_config);
    config->runtime = factory->server->runtime;
    config->has_bucket = m->token_bucket != NULL;
    kb_diag_push(diag, "token_bucket");
    if (config->has_bucket) {
        kb_token_bucket_init(&config->bucket, m->token_bucket, now_ns, diag);
    } else if (of_route) {
        kb_diag_error(diag, "local rate limit token bucket must be set for per filter configs");
    }
    kb_diag_pop(diag);
    if (m->local_cluster_rate_limit != NULL) {
        kb_diag_error(diag, "local_cluster_rate_limit: sharing with other proxies is not "
                            "implemented");
    }
    if (m->local_rate_limit_per_downstream_connection) {
        kb_diag_error(diag, "local_rate_limit_per_downstream_connection is not implemented");
    }
    fractions_read(config, m, arena);
    headers_read(config, m, &build, &failed);
    config->limits = kb_rate_limits_create(m->rate_limits, m->n_rate_limits,
                                           factory->server->node_cluster, &build, &failed);
    descriptors_read(config, m, now_ns, arena, diag);
    config->status = m->status != NULL && (unsigned)m->status->code >= 400
                         ? (unsigned)m->status->code
                         : STATUS_LIMITED;
    config->grpc_status =
        m->rate_limited_as_resource_exhausted ? GRPC_RESOURCE_EXHAUSTED : GRPC_UNAVAILABLE;
    config->always_consume = kb_wkt_bool(m->always_consume_default_token_bucket, true);
    config->shows_limit = (int)m->enable_x_ratelimit_headers != 0;
    config->shows_retry_after = m->enable_retry_after_header;
    if (failed) {
        kb_regex_list_dispose(&config->regexes);
        return KB_ECONFIG;
    }
    counters_create(config, m->stat_prefix, factory);
    *out = config;
    return 0;
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    return limit_create(message, false, factory, diag, out);
}

static int route_config_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **out)
{
    return limit_create(message, true, factory, diag, out);
}

/* ---- requests ---- */

static void *create(void *config, struct kb_stream *stream)
{
    struct limit_filter *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct limit_filter);

    filter->own = KB_CAST(config, limit_config);
    filter->config = filter->own;
    filter->stream = stream;
    return filter;
}

static void count(const struct limit_filter *filter, unsigned counter)
{
    kb_stat_named_add(filter->config->counters[counter], kb_stream_worker(filter->stream)->index,
                      1);
}

static bool holds(const struct limit_filter *filter, bool has,
                  const struct kb_runtime_fraction *fraction)
{
    return has && kb_runtime_fraction_holds(fraction, filter->config->runtime,
                                            kb_rand_u64(&kb_stream_worker(filter->stream)->rand));
}

static bool descriptor_eq(const struct kb_rate_descriptor *a, const struct kb_rate_descriptor *b)
{
    bool same = a->count == b->count;

    for (size_t i = 0; same && i < a->count; i++) {
        same = kb_str_eq(a->entries[i].key, b->entries[i].key) &&
               kb_str_eq(a->entries[i].value, b->entries[i].value);
    }
    return same;
}

/* Takes a token of each bucket that concerns the request, the slowest first; false when one has
 * none. */
static bool tokens_take(struct limit_filter *filter, const struct kb_rate_descriptor *made,
                        size_t made_count)
{
    struct limit_config *config = filter->config;
    uint64_t now_ns = kb_loop_now_ns(&kb_stream_worker(filter->stream)->loop);
    bool matched = false;

    for (size_t i = 0; i < config->descriptor_count; i++) {
        struct described *described = &config->descriptors[i];
        bool concerns = false;

        for (size_t j = 0; j < made_count && !concerns; j++) {
            concerns = descriptor_eq(&described->descriptor, &made[j]);
        }
        if (!concerns) {
            continue;
        }
        if (!matched) {
            filter->seen = &described->bucket;
        }
        matched = true;
        if (!kb_token_bucket_take(&described->bucket, now_ns)) {
            if (described->shadow) {
                count(filter, SHADOW_MODE);
                filter->shadowed = true;
                continue;
            }
            filter->seen = &described->bucket;
            return false;
        }
    }
    if (!config->has_bucket || (matched && !config->always_consume)) {
        return true;
    }
    if (!matched) {
        filter->seen = &config->bucket;
    }
    if (!kb_token_bucket_take(&config->bucket, now_ns)) {
        filter->seen = &config->bucket;
        return false;
    }
    return true;
}

static struct kb_str number(const struct limit_filter *filter, uint64_t value)
{
    return kb_str_printf(kb_stream_arena(filter->stream), "%llu", (unsigned long long)value);
}

static void answer_modify(void *arg, struct kb_header_map *headers)
{
    const struct limit_filter *filter = arg;
    const struct kb_formatter_input input = {.request = kb_stream_request_headers(filter->stream),
                                             .response = headers};
    uint64_t now_ns = kb_loop_now_ns(&kb_stream_worker(filter->stream)->loop);

    kb_header_mutations_apply(filter->config->response_headers, headers, &input,
                              kb_stream_stream_info(filter->stream));
    if (filter->config->shows_retry_after && filter->seen != NULL &&
        filter->config->status == STATUS_LIMITED) {
        kb_header_map_add(headers, KB_STR("retry-after"),
                          number(filter, kb_token_bucket_wait_s(filter->seen, now_ns)));
    }
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct limit_filter *filter = arg;
    struct kb_stream *stream = filter->stream;
    const void *of_route = kb_stream_route_config(stream, filter);
    struct kb_rate_descriptor made[KB_RATE_DESCRIPTORS_MAX];
    size_t made_count = 0;

    (void)end_stream;
    if (of_route != NULL) {
        filter->config = KB_CAST((void *)(uintptr_t)of_route, limit_config);
    }
    if (!holds(filter, filter->config->has_enabled, &filter->config->enabled)) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    count(filter, ENABLED);
    if (filter->config->descriptor_count > 0) {
        made_count = kb_rate_limits_describe(filter->config->limits, stream, headers, made);
    }
    if (tokens_take(filter, made, made_count)) {
        count(filter, filter->shadowed ? RATE_LIMITED : OK);
        return KB_FILTER_HEADERS_CONTINUE;
    }
    count(filter, RATE_LIMITED);
    if (!holds(filter, filter->config->has_enforced, &filter->config->enforced)) {
        const struct kb_formatter_input input = {.request = headers};

        kb_header_mutations_apply(filter->config->request_headers, headers, &input,
                                  kb_stream_stream_info(stream));
        return KB_FILTER_HEADERS_CONTINUE;
    }
    count(filter, ENFORCED);
    kb_stream_info_set_flag(kb_stream_stream_info(stream), KB_RF_RATE_LIMITED);
    kb_stream_set_reply_grpc_status(stream, filter->config->grpc_status);
    kb_stream_send_local_reply(stream, filter->config->status, KB_STR("local_rate_limited"),
                               KB_STR("local_rate_limited"), answer_modify, filter);
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct limit_filter *filter = arg;
    uint64_t now_ns;

    (void)end_stream;
    if (filter->config->shows_limit && filter->seen != NULL) {
        now_ns = kb_loop_now_ns(&kb_stream_worker(filter->stream)->loop);
        kb_header_map_add(headers, KB_STR("x-ratelimit-limit"), number(filter, filter->seen->max));
        kb_header_map_add(headers, KB_STR("x-ratelimit-remaining"),
                          number(filter, kb_token_bucket_left(filter->seen, now_ns)));
        kb_header_map_add(headers, KB_STR("x-ratelimit-reset"),
                          number(filter, kb_token_bucket_wait_s(filter->seen, now_ns)));
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

const struct kb_http_filter_ops kb_ext_http_local_ratelimit = {
    .name = "envoy.filters.http.local_ratelimit",
    .type_url = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .route_config_create = route_config_create,
    .route_config_destroy = config_destroy,
    .create = create,
    .decode_headers = decode_headers,
    .encode_headers = encode_headers,
};
