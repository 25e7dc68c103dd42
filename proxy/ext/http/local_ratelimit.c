/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.local_ratelimit: answers 429 when the tokens of this process, route or
 * descriptor are used up. */
#include "envoy/extensions/common/ratelimit/v3/ratelimit.pb-c.h"
#include "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.pb-c.h"
#include "envoy/type/v3/http_status.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/route.h"
#include "proxy/api/stats.h"
#include "proxy/ext/common/local_rate_limiter.h"
#include "proxy/http/header_mutation.h"
#include "proxy/matcher/runtime_fraction.h"
#include "proxy/upstream/cluster_local.h"
#include "proxy/upstream/cluster_manager.h"
#include "proxy/upstream/priority_set.h"

#define GRPC_UNAVAILABLE        14
#define GRPC_RESOURCE_EXHAUSTED 8
#define STATUS_LIMITED          429
#define VH_RATE_LIMITS(name) \
    ENVOY__EXTENSIONS__COMMON__RATELIMIT__V3__VH_RATE_LIMITS_OPTIONS__##name
#define X_RATE_LIMIT_03 ENVOY__CONFIG__ROUTE__V3__RATE_LIMIT__XRATE_LIMIT_OPTION__DRAFT_VERSION_03

typedef Envoy__Extensions__Filters__Http__LocalRatelimit__V3__LocalRateLimit limit_message;

enum { ENABLED, ENFORCED, OK, RATE_LIMITED, SHADOW_MODE, COUNTERS };

struct limit_config {
    KB_OBJ;
    struct kb_regex_list regexes;
    struct kb_stat_named *counters[COUNTERS];
    const struct kb_runtime *runtime;
    struct kb_rate_rules *rules;
    struct kb_rate_limiter *limiter; /* NULL: one for each connection */
    const struct kb_filter_state_key *connection_key;
    struct kb_runtime_fraction enabled, enforced;
    bool has_enabled, has_enforced;
    const struct kb_header_mutations *request_headers, *response_headers;
    const struct kb_rate_limits *limits; /* NULL: those of the route and its virtual host */
    bool has_descriptors;
    uint32_t share_slot; /* of the cluster whose members share the tokens */
    bool shares;
    uint32_t stage;
    int vh_rate_limits;
    unsigned status;
    uint8_t grpc_status;
    bool shows_limit; /* x-ratelimit-* */
    bool shows_retry_after;
};
KB_OBJ_MAGIC(limit_config, 0x4c524c43);

struct limit_filter {
    struct limit_config *own;
    struct limit_config *config; /* in force */
    struct kb_stream *stream;
    struct kb_rate_decision decision;
};

/* ---- configuration ---- */

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
    kb_rate_limiter_destroy(config->limiter);
    kb_rate_rules_unref(config->rules);
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

/* Whose tokens they are. */
static int limiter_create(struct limit_config *config, const limit_message *m,
                          struct kb_factory_context *factory, struct kb_diag *diag)
{
    const struct kb_rate_rules_config rules = {
        .token_bucket = m->token_bucket,
        .descriptors = m->descriptors,
        .descriptor_count = m->n_descriptors,
        .dynamic_max = kb_wkt_u32(m->max_dynamic_descriptors, KB_DYNAMIC_DESCRIPTORS),
        .always_consume_default = kb_wkt_bool(m->always_consume_default_token_bucket, true),
    };

    config->has_descriptors = m->n_descriptors > 0;
    config->rules = kb_rate_rules_create(&rules, diag);
    if (config->rules == NULL) {
        return KB_ECONFIG;
    }
    if (m->local_rate_limit_per_downstream_connection) {
        config->connection_key = kb_filter_state_key(KB_STR("per_connection_local_rate_limiter"));
    } else {
        config->limiter =
            kb_rate_limiter_create(config->rules, kb_loop_now_ns(&factory->server->main->loop));
    }
    return 0;
}

/* Tokens are those of all members of the cluster that this process is one of. */
static int share_read(struct limit_config *config, const limit_message *m,
                      struct kb_factory_context *factory, struct kb_diag *diag)
{
    if (m->local_rate_limit_per_downstream_connection) {
        kb_diag_error(diag, "local_cluster_rate_limit is set and "
                            "local_rate_limit_per_downstream_connection is set to true");
        return KB_ECONFIG;
    }
    config->shares = true;
    config->share_slot = kb_cluster_manager_local_slot(factory->server->clusters);
    if (config->share_slot == UINT32_MAX) {
        kb_diag_error(diag, "local_cluster_rate_limit is set but no local cluster name is present");
        return KB_ECONFIG;
    }
    return 0;
}

static int limit_create(const limit_message *m, bool of_route, struct kb_factory_context *factory,
                        struct kb_diag *diag, void **out)
{
    struct kb_arena *arena = factory->arena;
    struct limit_config *config = KB_ARENA_NEW(arena, struct limit_config);
    const struct kb_match_build build = {arena, &config->regexes, diag};
    bool failed = false;

    KB_OBJ_SET(config, limit_config);
    config->runtime = factory->server->runtime;
    if (m->token_bucket == NULL && of_route) {
        kb_diag_error(diag, "local rate limit token bucket must be set for per filter configs");
        failed = true;
    }
    failed |= m->local_cluster_rate_limit != NULL && share_read(config, m, factory, diag) != 0;
    fractions_read(config, m, arena);
    headers_read(config, m, &build, &failed);
    config->limits =
        kb_rate_limits_create(m->rate_limits, m->n_rate_limits, KB_RATE_LIMITS_OF_FILTER,
                              factory->server->node_cluster, &build, &failed);
    failed |= limiter_create(config, m, factory, diag) != 0;
    config->stage = m->stage;
    config->vh_rate_limits = (int)m->vh_rate_limits;
    config->status = m->status != NULL && (unsigned)m->status->code >= 400
                         ? (unsigned)m->status->code
                         : STATUS_LIMITED;
    config->grpc_status =
        m->rate_limited_as_resource_exhausted ? GRPC_RESOURCE_EXHAUSTED : GRPC_UNAVAILABLE;
    config->shows_limit = (int)m->enable_x_ratelimit_headers != 0;
    config->shows_retry_after = m->enable_retry_after_header;
    if (failed) {
        kb_rate_limiter_destroy(config->limiter);
        kb_rate_rules_unref(config->rules);
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

/* ---- which limiter ---- */

static void connection_limiter_release(const void *object)
{
    kb_rate_limiter_destroy((struct kb_rate_limiter *)(uintptr_t)object);
}

/* On a connection that keeps one; it has no text. */
static const struct kb_filter_state_type connection_limiter = {
    .name = "per_connection_local_rate_limiter",
    .release = connection_limiter_release,
};

/* The first configuration that a connection meets says what its buckets are, as in Envoy. */
static struct kb_rate_limiter *limiter_of(struct limit_filter *filter, uint64_t now_ns)
{
    struct limit_config *config = filter->config;
    struct kb_connection_info *connection;
    const struct kb_filter_state_item *found;
    struct kb_filter_state_item item = {.type = &connection_limiter, .read_only = true};

    if (config->limiter != NULL) {
        return config->limiter;
    }
    connection =
        (struct kb_connection_info *)(uintptr_t)kb_stream_stream_info(filter->stream)->connection;
    found = kb_filter_state_item_find(connection->filter_state, config->connection_key);
    if (found != NULL) {
        return found->type == &connection_limiter
                   ? (struct kb_rate_limiter *)(uintptr_t)found->object
                   : NULL;
    }
    item.key = config->connection_key;
    item.object = kb_rate_limiter_create(config->rules, now_ns);
    if (kb_filter_state_put_connection(connection, &item) != 0) {
        connection_limiter_release(item.object);
        return NULL;
    }
    return (struct kb_rate_limiter *)(uintptr_t)item.object;
}

/* ---- descriptors ---- */

struct sources {
    const struct kb_rate_limits *of_route;
    const struct kb_rate_limits *of_virtual_host;
};

/* Whose rules count for this request. */
static struct sources sources_of(const struct limit_config *config, const struct kb_route *route)
{
    struct sources sources = {NULL, NULL};
    bool include;

    if (config->limits != NULL) {
        sources.of_route = config->limits;
        return sources;
    }
    if (route == NULL || route->kind != KB_ROUTE_CLUSTER) {
        return sources;
    }
    sources.of_route = kb_route_rate_limits(route);
    include = kb_route_includes_virtual_host_rate_limits(route) ||
              config->vh_rate_limits == VH_RATE_LIMITS(INCLUDE) ||
              (config->vh_rate_limits == VH_RATE_LIMITS(OVERRIDE) && sources.of_route == NULL);
    sources.of_virtual_host = include ? kb_route_virtual_host_rate_limits(route) : NULL;
    return sources;
}

/* The request's descriptors, in its arena. */
static const struct kb_rate_descriptor *describe(const struct limit_filter *filter,
                                                 const struct kb_header_map *headers, size_t *count)
{
    const struct limit_config *config = filter->config;
    struct kb_stream *stream = filter->stream;
    struct sources sources;
    struct kb_rate_descriptor *made;
    size_t room;

    *count = 0;
    if (!config->has_descriptors) {
        return NULL;
    }
    sources = sources_of(config, kb_stream_route(stream));
    room = kb_rate_limits_count(sources.of_route) + kb_rate_limits_count(sources.of_virtual_host);
    if (room == 0) {
        return NULL;
    }
    made = kb_arena_alloc(kb_stream_arena(stream), room * sizeof(*made),
                          _Alignof(struct kb_rate_descriptor));
    *count = kb_rate_limits_describe(sources.of_route, config->stage, stream, headers, made);
    *count += kb_rate_limits_describe(sources.of_virtual_host, config->stage, stream, headers,
                                      made + *count);
    return made;
}

/* The part of the tokens that is this process's. */
static double share_of(const struct limit_filter *filter)
{
    const struct kb_priority_set *members;

    if (!filter->config->shares) {
        return 1;
    }
    members = kb_cluster_view_set(kb_stream_worker(filter->stream), filter->config->share_slot);
    return members != NULL && members->host_count > 0 ? 1.0 / members->host_count : 1;
}

static void tokens_take(struct limit_filter *filter, const struct kb_header_map *headers)
{
    uint64_t now_ns = kb_loop_now_ns(&kb_stream_worker(filter->stream)->loop);
    struct kb_rate_limiter *limiter = limiter_of(filter, now_ns);
    const struct kb_rate_descriptor *made;
    size_t count;

    if (limiter == NULL) {
        filter->decision = (struct kb_rate_decision){.allowed = true};
        return;
    }
    made = describe(filter, headers, &count);
    kb_rate_limiter_take(limiter, made, count, share_of(filter), now_ns,
                         kb_stream_arena(filter->stream), &filter->decision);
}

/* ---- answers ---- */

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

    /* What the route adds does not see it yet, as in Envoy. */
    kb_stream_info_set_flag(kb_stream_stream_info(filter->stream), KB_RF_RATE_LIMITED);
    kb_header_mutations_apply(filter->config->response_headers, headers, &input,
                              kb_stream_stream_info(filter->stream));
    if (filter->config->shows_retry_after && filter->decision.bucket != NULL &&
        filter->config->status == STATUS_LIMITED) {
        kb_header_map_add(headers, KB_STR("retry-after"),
                          number(filter, kb_token_bucket_wait_s(filter->decision.bucket, now_ns)));
    }
}

static enum kb_filter_headers_status refuse(struct limit_filter *filter,
                                            struct kb_header_map *headers)
{
    struct kb_stream *stream = filter->stream;

    count(filter, RATE_LIMITED);
    if (filter->decision.shadow) {
        count(filter, SHADOW_MODE);
        return KB_FILTER_HEADERS_CONTINUE;
    }
    if (!holds(filter, filter->config->has_enforced, &filter->config->enforced)) {
        const struct kb_formatter_input input = {.request = headers};

        kb_header_mutations_apply(filter->config->request_headers, headers, &input,
                                  kb_stream_stream_info(stream));
        return KB_FILTER_HEADERS_CONTINUE;
    }
    count(filter, ENFORCED);
    if (filter->config->grpc_status != 0) {
        kb_stream_set_reply_grpc_status(stream, filter->config->grpc_status);
    }
    kb_stream_send_filter_reply(stream, filter->config->status, KB_STR("local_rate_limited"),
                                KB_STR("local_rate_limited"), answer_modify, filter);
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct limit_filter *filter = arg;
    const void *of_route = kb_stream_route_config(filter->stream, filter);

    (void)end_stream;
    if (of_route != NULL) {
        filter->config = KB_CAST((void *)(uintptr_t)of_route, limit_config);
    }
    if (!holds(filter, filter->config->has_enabled, &filter->config->enabled)) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    count(filter, ENABLED);
    tokens_take(filter, headers);
    if (!filter->decision.allowed) {
        return refuse(filter, headers);
    }
    count(filter, OK);
    return KB_FILTER_HEADERS_CONTINUE;
}

/* The descriptor's own word, or else the filter's. */
static bool shows_limit(const struct limit_filter *filter)
{
    unsigned option = filter->decision.x_rate_limit;

    return option == 0 ? filter->config->shows_limit : option == (unsigned)X_RATE_LIMIT_03;
}

static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct limit_filter *filter = arg;
    const struct kb_token_bucket *bucket = filter->decision.bucket;
    uint64_t now_ns;

    (void)end_stream;
    if (bucket != NULL && shows_limit(filter)) {
        now_ns = kb_loop_now_ns(&kb_stream_worker(filter->stream)->loop);
        kb_header_map_add(headers, KB_STR("x-ratelimit-limit"), number(filter, bucket->rate.max));
        kb_header_map_add(headers, KB_STR("x-ratelimit-remaining"),
                          number(filter, kb_token_bucket_left(bucket, now_ns)));
        kb_header_map_add(headers, KB_STR("x-ratelimit-reset"),
                          number(filter, kb_token_bucket_wait_s(bucket, now_ns)));
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static void destroy(void *arg)
{
    struct limit_filter *filter = arg;

    kb_rate_decision_dispose(&filter->decision);
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
    .on_destroy = destroy,
};
