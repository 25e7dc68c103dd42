/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.grpc_stats: counts messages and outcomes of gRPC requests per cluster and, if
 * wanted, per method; leaves the counts of messages in filter state for others. */
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "envoy/extensions/filters/http/grpc_stats/v3/config.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/cluster.h"
#include "proxy/api/http_filter.h"
#include "proxy/ext/common/grpc_counts.h"

typedef Envoy__Extensions__Filters__Http__GrpcStats__V3__FilterConfig config_message;
#define METHODS(what) \
    ENVOY__EXTENSIONS__FILTERS__HTTP__GRPC_STATS__V3__FILTER_CONFIG__PER_METHOD_STAT_SPECIFIER_##what

#define FRAME_HEAD 5
#define SETS_MAX   1024 /* clusters and methods that a worker remembers */
#define METHOD_MAX 512  /* of a service and a method */

enum grpc_metric { REQUEST_MESSAGES, RESPONSE_MESSAGES, SUCCESS, FAILURE, TOTAL, METRIC_COUNT };

static const char *const metric_names[METRIC_COUNT] = {
    "request_message_count", "response_message_count", "success", "failure", "total"};

/* What is counted for one cluster and method. */
struct grpc_set {
    struct kb_str prefix; /* "cluster.NAME.grpc." and "service.method." */
    struct kb_stat_named *metrics[METRIC_COUNT];
    struct kb_stat_named *upstream_time; /* histogram, ms */
    char text[];
};

struct method {
    struct kb_str service, name;
};

struct grpc_stats_config {
    KB_OBJ;
    struct kb_arena arena;
    struct kb_stat_store *stats;
    bool emits;
    bool all_methods;
    bool replaces_dots;
    bool times_upstream;
    struct method *methods; /* those that are counted apart */
    size_t method_count;
    uint32_t worker_count;
    struct kb_map sets[]; /* by worker index: prefix -> grpc_set */
};
KB_OBJ_MAGIC(grpc_stats_config, 0x47525053);

/* Finds the beginnings of messages in a body, whatever its pieces. */
struct frames {
    uint32_t left;   /* bytes of the message */
    uint32_t length; /* as far as it was read */
    unsigned head;   /* bytes of the head that were read */
};

struct grpc_stats {
    KB_OBJ;
    struct grpc_stats_config *config;
    struct kb_stream *stream;
    struct grpc_set *set; /* NULL: nothing is counted for a cluster */
    struct frames request, response;
    struct kb_grpc_counts *counts; /* in filter state; NULL: not yet */
    struct kb_grpc_counts own;
    bool grpc;          /* the request */
    bool grpc_response; /* the answer */
};
KB_OBJ_MAGIC(grpc_stats, 0x47525046);

/* ---- configuration ---- */

static void methods_read(struct grpc_stats_config *config,
                         const Envoy__Config__Core__V3__GrpcMethodList *m)
{
    size_t count = 0;

    for (size_t i = 0; i < m->n_services; i++) {
        count += m->services[i]->n_method_names;
    }
    config->methods = kb_arena_calloc(&config->arena, (count + 1) * sizeof(*config->methods));
    for (size_t i = 0; i < m->n_services; i++) {
        for (size_t k = 0; k < m->services[i]->n_method_names; k++) {
            config->methods[config->method_count++] = (struct method){
                kb_str_dup(&config->arena, kb_str_from_cstr(m->services[i]->name)),
                kb_str_dup(&config->arena, kb_str_from_cstr(m->services[i]->method_names[k]))};
        }
    }
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    const config_message *m = message;
    uint32_t workers = factory->server->worker_count;
    struct grpc_stats_config *config =
        kb_calloc(1, sizeof(*config) + (workers + 1) * sizeof(struct kb_map));

    (void)diag;
    kb_grpc_counts_init();
    KB_OBJ_SET(config, grpc_stats_config);
    kb_arena_init(&config->arena, NULL);
    config->stats = factory->server->stats;
    config->emits = m->emit_filter_state;
    config->replaces_dots = m->replace_dots_in_grpc_service_name;
    config->times_upstream = m->enable_upstream_stats;
    config->worker_count = workers;
    switch ((int)m->per_method_stat_specifier_case) {
    case METHODS(STATS_FOR_ALL_METHODS):
        config->all_methods = kb_wkt_bool(m->stats_for_all_methods, false);
        break;
    case METHODS(INDIVIDUAL_METHOD_STATS_ALLOWLIST):
        methods_read(config, m->individual_method_stats_allowlist);
        break;
    default:
        break;
    }
    for (uint32_t i = 0; i <= workers; i++) {
        kb_map_init(&config->sets[i]);
    }
    *out = config;
    return 0;
}

static void sets_clear(struct kb_map *sets)
{
    KB_MAP_FOREACH (e, sets) {
        free(e->value);
    }
    kb_map_dispose(sets);
    kb_map_init(sets);
}

static void config_destroy(void *arg)
{
    struct grpc_stats_config *config = KB_CAST(arg, grpc_stats_config);

    for (uint32_t i = 0; i <= config->worker_count; i++) {
        sets_clear(&config->sets[i]);
    }
    kb_arena_dispose(&config->arena);
    KB_OBJ_CLEAR(config);
    free(config);
}

/* ---- statistics ---- */

/* "/service/method" without what is behind it; false: another form. */
static bool path_split(struct kb_str path, struct method *out)
{
    ptrdiff_t query = kb_str_find_char(path, '?');
    ptrdiff_t slash;

    path = query < 0 ? path : kb_str_first(path, (size_t)query);
    if (path.len < 2 || path.p[0] != '/') {
        return false;
    }
    path = kb_str_from(path, 1);
    slash = kb_str_find_char(path, '/');
    if (slash <= 0 || (size_t)slash + 1 >= path.len) {
        return false;
    }
    out->service = kb_str_first(path, (size_t)slash);
    out->name = kb_str_from(path, (size_t)slash + 1);
    return kb_str_find_char(out->name, '/') < 0 && path.len <= METHOD_MAX;
}

static bool method_listed(const struct grpc_stats_config *config, const struct method *method)
{
    for (size_t i = 0; i < config->method_count; i++) {
        if (kb_str_eq(config->methods[i].service, method->service) &&
            kb_str_eq(config->methods[i].name, method->name)) {
            return true;
        }
    }
    return false;
}

static struct kb_str prefix_make(const struct grpc_stats_config *config,
                                 const struct kb_cluster *cluster, const struct method *method,
                                 struct kb_arena *arena)
{
    struct kb_str text;
    size_t service_at;

    if (method == NULL) {
        return kb_str_printf(arena, "cluster.%.*s.grpc.", KB_STR_ARG(cluster->observability_name));
    }
    text = kb_str_printf(arena, "cluster.%.*s.grpc.%.*s.%.*s.",
                         KB_STR_ARG(cluster->observability_name), KB_STR_ARG(method->service),
                         KB_STR_ARG(method->name));
    service_at = text.len - method->name.len - method->service.len - 2;
    /* Of methods that are listed the names stay as they are. */
    for (size_t i = 0; config->replaces_dots && config->all_methods && i < method->service.len;
         i++) {
        char *c = (char *)(uintptr_t)&text.p[service_at + i];

        *c = *c == '.' ? '_' : *c;
    }
    return text;
}

static struct grpc_set *set_find(struct kb_map *sets, struct kb_str prefix)
{
    struct grpc_set *set = kb_map_get(sets, prefix);

    if (set != NULL) {
        return set;
    }
    if (sets->len >= SETS_MAX) {
        return NULL;
    }
    set = kb_calloc(1, sizeof(*set) + prefix.len);
    memcpy(set->text, prefix.p, prefix.len);
    set->prefix = kb_str_make(set->text, prefix.len);
    kb_map_put(sets, set->prefix, set);
    return set;
}

static struct kb_stat_named *stat_get(const struct grpc_stats *filter, struct kb_str name,
                                      enum kb_stat_kind kind)
{
    struct kb_str full = kb_str_printf(kb_stream_arena(filter->stream), "%.*s%.*s",
                                       KB_STR_ARG(filter->set->prefix), KB_STR_ARG(name));

    return kb_stat_tagged_get(filter->config->stats, full, NULL, 0, kind);
}

static void metric_add(const struct grpc_stats *filter, enum grpc_metric metric, uint64_t n)
{
    struct kb_stat_named **named = &filter->set->metrics[metric];

    if (*named == NULL) {
        *named = stat_get(filter, kb_str_from_cstr(metric_names[metric]), KB_STAT_COUNTER);
    }
    if (*named != NULL) {
        kb_stat_named_add(*named, kb_stream_worker(filter->stream)->index, (int64_t)n);
    }
}

/* Counts the outcome that this map tells, if it tells one. */
static void status_count(const struct grpc_stats *filter, const struct kb_header_map *map)
{
    struct kb_str status = kb_header_map_value_id(map, KB_HDR_GRPC_STATUS);
    struct kb_stat_named *named;

    if (filter->set == NULL || status.p == NULL || status.len > 16) {
        return;
    }
    named = stat_get(filter, status, KB_STAT_COUNTER);
    if (named != NULL) {
        kb_stat_named_add(named, kb_stream_worker(filter->stream)->index, 1);
    }
    metric_add(filter, kb_str_eq(status, KB_STR("0")) ? SUCCESS : FAILURE, 1);
    metric_add(filter, TOTAL, 1);
}

/* The time from the last byte of the request, as it went to the upstream, to the last of the
 * answer. */
static void upstream_time_record(const struct grpc_stats *filter)
{
    const struct kb_upstream_info *upstream = &kb_stream_stream_info(filter->stream)->upstream;
    struct kb_stat_named **named;

    if (!filter->config->times_upstream || filter->set == NULL || upstream->last_tx_ns == 0 ||
        upstream->last_rx_ns < upstream->last_tx_ns) {
        return;
    }
    named = &filter->set->upstream_time;
    if (*named == NULL) {
        *named = stat_get(filter, KB_STR("upstream_rq_time"), KB_STAT_HISTOGRAM);
    }
    if (*named != NULL) {
        kb_stat_named_add(*named, kb_stream_worker(filter->stream)->index,
                          (int64_t)((upstream->last_rx_ns - upstream->last_tx_ns) / 1000000));
    }
}

/* ---- messages ---- */

/* How many messages begin in these bytes. */
static uint64_t frames_count(struct frames *frames, const unsigned char *p, size_t len)
{
    uint64_t found = 0;

    while (len > 0) {
        if (frames->left > 0) {
            size_t n = KB_MIN(len, frames->left);

            p += n;
            len -= n;
            frames->left -= (uint32_t)n;
            continue;
        }
        found += frames->head == 0;
        frames->length = frames->head <= 1 ? 0 : frames->length;
        frames->length = frames->head == 0 ? 0 : frames->length << 8 | *p;
        p++;
        len--;
        if (++frames->head == FRAME_HEAD) {
            frames->head = 0;
            frames->left = frames->length;
        }
    }
    return found;
}

static uint64_t buffer_count(struct frames *frames, const struct kb_buf *data)
{
    uint64_t found = 0;

    for (const struct kb_segment *at = data->first; at != NULL; at = at->next) {
        found += frames_count(frames, (const unsigned char *)at->slice->bytes + at->from,
                              at->to - at->from);
    }
    return found;
}

static void counts_emit(struct grpc_stats *filter)
{
    struct kb_filter_state_item item = {
        .key = kb_grpc_counts_key, .type = &kb_grpc_counts_type, .object = &filter->own};

    if (filter->config->emits && filter->counts == NULL &&
        kb_filter_state_put_stream(kb_stream_stream_info(filter->stream),
                                   kb_stream_arena(filter->stream), &item) == 0) {
        filter->counts = &filter->own;
    }
}

/* ---- streams ---- */

static void *create(void *config, struct kb_stream *stream)
{
    struct grpc_stats *filter = kb_arena_calloc(kb_stream_arena(stream), sizeof(*filter));

    KB_OBJ_SET(filter, grpc_stats);
    filter->config = KB_CAST(config, grpc_stats_config);
    filter->stream = stream;
    return filter;
}

static void set_choose(struct grpc_stats *filter, const struct kb_header_map *headers)
{
    struct grpc_stats_config *config = filter->config;
    const struct kb_cluster *cluster = kb_stream_route_cluster(filter->stream);
    struct method method;
    bool has_method = path_split(headers->path, &method);

    if (cluster == NULL || !has_method) {
        return;
    }
    has_method = config->all_methods || method_listed(config, &method);
    filter->set = set_find(
        &config->sets[kb_stream_worker(filter->stream)->index],
        prefix_make(config, cluster, has_method ? &method : NULL, kb_stream_arena(filter->stream)));
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct grpc_stats *filter = KB_CAST(arg, grpc_stats);

    (void)end_stream;
    if (KB_UNLIKELY(kb_stream_is_grpc(filter->stream))) {
        filter->grpc = true;
        set_choose(filter, headers);
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_data_status decode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct grpc_stats *filter = KB_CAST(arg, grpc_stats);
    uint64_t n;

    (void)end_stream;
    if (filter->grpc && (n = buffer_count(&filter->request, data)) > 0) {
        filter->own.request_messages += n;
        counts_emit(filter);
        if (filter->set != NULL) {
            metric_add(filter, REQUEST_MESSAGES, n);
        }
    }
    return KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct grpc_stats *filter = KB_CAST(arg, grpc_stats);
    struct kb_str type = kb_header_map_value_id(headers, KB_HDR_CONTENT_TYPE);

    /* Its messages are told of in the filter state whatever was asked. */
    filter->grpc_response =
        end_stream ? kb_header_map_value_id(headers, KB_HDR_GRPC_STATUS).p != NULL
                   : headers->status == 200 && kb_str_starts_with(type, KB_STR("application/grpc"));
    if (filter->grpc) {
        status_count(filter, headers);
        if (end_stream) {
            upstream_time_record(filter);
        }
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_data_status encode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct grpc_stats *filter = KB_CAST(arg, grpc_stats);
    uint64_t n;

    (void)end_stream;
    if (filter->grpc_response && (n = buffer_count(&filter->response, data)) > 0) {
        filter->own.response_messages += n;
        counts_emit(filter);
        if (filter->set != NULL) {
            metric_add(filter, RESPONSE_MESSAGES, n);
        }
    }
    return KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_trailers_status encode_trailers(void *arg, struct kb_header_map *trailers)
{
    struct grpc_stats *filter = KB_CAST(arg, grpc_stats);

    if (filter->grpc) {
        status_count(filter, trailers);
        upstream_time_record(filter);
    }
    return KB_FILTER_TRAILERS_CONTINUE;
}

const struct kb_http_filter_ops kb_ext_http_grpc_stats = {
    .name = "envoy.filters.http.grpc_stats",
    .type_url = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .create = create,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .encode_headers = encode_headers,
    .encode_data = encode_data,
    .encode_trailers = encode_trailers,
};
