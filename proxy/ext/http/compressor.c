/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.compressor: compresses answers that the client takes compressed, and requests
 * where that is configured. All compressors of a chain decide together who does it. */
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/extensions/filters/http/compressor/v3/compressor.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/filter_state.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/runtime.h"
#include "proxy/api/stats.h"
#include "proxy/ext/common/compression.h"
#include "proxy/ext/http/compressor_choice.h"
#include "proxy/matcher/string_match.h"

#define MIN_LENGTH_DEFAULT 30

typedef Envoy__Extensions__Filters__Http__Compressor__V3__Compressor compressor_message;
typedef Envoy__Extensions__Filters__Http__Compressor__V3__Compressor__CommonDirectionConfig
    common_message;
typedef Envoy__Extensions__Filters__Http__Compressor__V3__CompressorPerRoute route_message;

enum {
    COMPRESSED,
    NOT_COMPRESSED,
    TOTAL_UNCOMPRESSED,
    TOTAL_COMPRESSED,
    TOO_SMALL,
    REQUEST_COUNTERS,
    NO_ACCEPT_HEADER = REQUEST_COUNTERS,
    HEADER_IDENTITY,
    HEADER_COMPRESSOR_USED,
    HEADER_COMPRESSOR_OVERSHADOWED,
    HEADER_WILDCARD,
    HEADER_NOT_VALID,
    NOT_COMPRESSED_ETAG,
    COUNTERS
};

static const char *const counter_names[COUNTERS] = {
    "compressed",
    "not_compressed",
    "total_uncompressed_bytes",
    "total_compressed_bytes",
    "content_length_too_small",
    "no_accept_header",
    "header_identity",
    "header_compressor_used",
    "header_compressor_overshadowed",
    "header_wildcard",
    "header_not_valid",
    "not_compressed_etag",
};

struct direction {
    struct kb_str runtime_key;
    bool enabled; /* unless the runtime says otherwise */
    uint32_t min_length;
    struct kb_str *types; /* count 0: all */
    size_t type_count;
    struct kb_string_matcher *matchers;
    size_t matcher_count;
    struct kb_stat_named *counters[COUNTERS];
};

struct compressor_config {
    KB_OBJ;
    struct kb_regex_list regexes;
    struct kb_compression_library library;
    const struct kb_runtime *runtime;
    const struct kb_filter_state_key *key;
    struct direction request, response;
    bool compresses_requests;
    bool disable_on_etag;
    bool weaken_etag;
    bool remove_accept_encoding;
    const uint32_t *uncompressible;
    size_t uncompressible_count;
};
KB_OBJ_MAGIC(compressor_config, 0x434f4d50);

struct compressor_route {
    KB_OBJ;
    bool disabled;
    bool enabled;
    int8_t remove_accept_encoding; /* -1: not said */
};
KB_OBJ_MAGIC(compressor_route, 0x434f4d52);

/* What the compressors of one stream share, as an object of its filter state. */
struct offers {
    const struct compressor_config *configs[KB_COMPRESSORS_MAX];
    size_t count;
    bool decided;
    struct kb_encoding_choice choice;
};

struct compressor {
    struct compressor_config *config;
    struct kb_stream *stream;
    struct kb_str accepted; /* p NULL: no header */
    struct kb_compression_stream *request;
    struct kb_compression_stream *response;
};

static const struct kb_filter_state_type offers_type = {.name = "compressors"};

/* ---- configuration ---- */

static struct kb_str default_types[] = {
    {"text/html", 9},
    {"text/plain", 10},
    {"text/css", 8},
    {"application/javascript", 22},
    {"application/x-javascript", 24},
    {"text/javascript", 15},
    {"text/x-javascript", 17},
    {"text/ecmascript", 15},
    {"text/js", 7},
    {"text/jscript", 12},
    {"text/x-js", 9},
    {"application/ecmascript", 22},
    {"application/x-json", 18},
    {"application/xml", 15},
    {"application/json", 16},
    {"image/svg+xml", 13},
    {"text/xml", 8},
    {"application/xhtml+xml", 21},
};

static void types_read(struct direction *direction, char *const *types, size_t count,
                       struct kb_arena *arena)
{
    if (count == 0) {
        direction->types = default_types;
        direction->type_count = KB_ARRAY_LEN(default_types);
        return;
    }
    direction->types = kb_arena_calloc(arena, count * sizeof(*direction->types));
    direction->type_count = count;
    for (size_t i = 0; i < count; i++) {
        direction->types[i] = kb_str_dup(arena, kb_str_from_cstr(types[i]));
    }
}

static void flag_read(struct direction *direction,
                      const Envoy__Config__Core__V3__RuntimeFeatureFlag *flag,
                      struct kb_arena *arena)
{
    direction->enabled = flag == NULL || kb_wkt_bool(flag->default_value, true);
    direction->runtime_key =
        flag != NULL ? kb_str_dup(arena, kb_str_from_cstr(flag->runtime_key)) : KB_STR("");
}

/* `m` may be NULL: defaults. */
static int common_read(struct direction *direction, const common_message *m,
                       const struct kb_match_build *build)
{
    int rc = 0;

    flag_read(direction, m != NULL ? m->enabled : NULL, build->arena);
    direction->min_length =
        m != NULL ? kb_wkt_u32(m->min_content_length, MIN_LENGTH_DEFAULT) : MIN_LENGTH_DEFAULT;
    types_read(direction, m != NULL ? m->content_type : NULL, m != NULL ? m->n_content_type : 0,
               build->arena);
    if (m == NULL || m->n_content_type_matcher == 0) {
        return 0;
    }
    if (m->n_content_type == 0) {
        direction->type_count = 0;
    }
    direction->matcher_count = m->n_content_type_matcher;
    direction->matchers =
        kb_arena_calloc(build->arena, direction->matcher_count * sizeof(*direction->matchers));
    for (size_t i = 0; i < direction->matcher_count; i++) {
        kb_diag_push_index(build->diag, "content_type_matcher", i);
        rc |= kb_string_matcher_init(&direction->matchers[i], m->content_type_matcher[i], build);
        kb_diag_pop(build->diag);
    }
    return rc;
}

static int response_read(struct compressor_config *config, const compressor_message *m,
                         const struct kb_match_build *build)
{
    const Envoy__Extensions__Filters__Http__Compressor__V3__Compressor__ResponseDirectionConfig *r =
        m->response_direction_config;
    uint32_t *codes;
    int rc;

    if (r == NULL) { /* the older fields, of the filter itself */
        rc = common_read(&config->response, NULL, build);
        flag_read(&config->response, m->runtime_enabled, build->arena);
        config->response.min_length = kb_wkt_u32(m->content_length, MIN_LENGTH_DEFAULT);
        types_read(&config->response, m->content_type, m->n_content_type, build->arena);
        config->disable_on_etag = m->disable_on_etag_header;
        config->remove_accept_encoding = m->remove_accept_encoding_header;
        return rc;
    }
    config->disable_on_etag = r->disable_on_etag_header;
    config->weaken_etag = r->weaken_etag_on_compress;
    config->remove_accept_encoding = r->remove_accept_encoding_header;
    codes =
        kb_arena_calloc(build->arena, (r->n_uncompressible_response_codes + 1) * sizeof(*codes));
    for (size_t i = 0; i < r->n_uncompressible_response_codes; i++) {
        codes[i] = r->uncompressible_response_codes[i];
    }
    config->uncompressible = codes;
    config->uncompressible_count = r->n_uncompressible_response_codes;
    kb_diag_push(build->diag, "response_direction_config");
    rc = common_read(&config->response, r->common_config, build);
    kb_diag_pop(build->diag);
    return rc;
}

static void counters_create(struct direction *direction, const struct compressor_config *config,
                            const char *what, size_t count, struct kb_factory_context *factory)
{
    for (size_t i = 0; i < count; i++) {
        direction->counters[i] = kb_stat_named_create(
            factory->server->stats,
            kb_str_printf(factory->arena, "%.*scompressor.%.*s%s%.*s.%s%s",
                          KB_STR_ARG(factory->http_stat_prefix), KB_STR_ARG(config->library.name),
                          config->library.name.len > 0 ? "." : "", KB_STR_ARG(config->library.stat),
                          i < REQUEST_COUNTERS ? what : "", counter_names[i]),
            KB_STAT_COUNTER);
    }
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    const compressor_message *m = message;
    struct compressor_config *config = KB_ARENA_NEW(factory->arena, struct compressor_config);
    const struct kb_match_build build = {factory->arena, &config->regexes, diag};
    int rc;

    KB_OBJ_SET(config, compressor_config);
    config->runtime = factory->server->runtime;
    config->key = kb_filter_state_key(KB_STR("envoy.filters.http.compressor.offers"));
    kb_diag_push(diag, "compressor_library");
    if (m->compressor_library == NULL || m->compressor_library->typed_config == NULL) {
        kb_diag_error(diag, "value is required");
        rc = KB_ECONFIG;
    } else {
        rc = kb_compression_library_read(&config->library, m->compressor_library, true,
                                         factory->arena, diag);
    }
    kb_diag_pop(diag);
    config->compresses_requests = m->request_direction_config != NULL;
    rc |= common_read(
        &config->request,
        config->compresses_requests ? m->request_direction_config->common_config : NULL, &build);
    rc |= response_read(config, m, &build);
    if (rc != 0) {
        kb_regex_list_dispose(&config->regexes);
        return KB_ECONFIG;
    }
    counters_create(&config->request, config, "request.", REQUEST_COUNTERS, factory);
    counters_create(&config->response, config,
                    m->response_direction_config != NULL ? "response." : "", COUNTERS, factory);
    *out = config;
    return 0;
}

static void config_destroy(void *arg)
{
    struct compressor_config *config;

    if (arg == NULL) {
        return;
    }
    config = KB_CAST(arg, compressor_config);
    for (size_t i = 0; i < COUNTERS; i++) {
        kb_stat_named_destroy(config->request.counters[i]);
        kb_stat_named_destroy(config->response.counters[i]);
    }
    kb_regex_list_dispose(&config->regexes);
}

static int route_config_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **out)
{
    const route_message *m = message;
    struct compressor_route *route = KB_ARENA_NEW(factory->arena, struct compressor_route);
    const Envoy__Extensions__Filters__Http__Compressor__V3__ResponseDirectionOverrides *response;

    KB_OBJ_SET(route, compressor_route);
    route->remove_accept_encoding = -1;
    *out = route;
    if (m->override_case ==
        ENVOY__EXTENSIONS__FILTERS__HTTP__COMPRESSOR__V3__COMPRESSOR_PER_ROUTE__OVERRIDE_DISABLED) {
        route->disabled = true;
        return 0;
    }
    if (m->overrides == NULL) {
        return 0;
    }
    if (m->overrides->compressor_library != NULL) {
        kb_diag_error(diag, "overrides.compressor_library is not implemented");
    }
    response = m->overrides->response_direction_config;
    if (response != NULL) {
        route->enabled = true;
        if (response->remove_accept_encoding_header != NULL) {
            route->remove_accept_encoding = response->remove_accept_encoding_header->value != 0;
        }
    }
    return 0;
}

/* ---- what both directions ask ---- */

static void count(const struct compressor *filter, const struct direction *direction, unsigned id,
                  uint64_t n)
{
    kb_stat_named_add(direction->counters[id], kb_stream_worker(filter->stream)->index, (int64_t)n);
}

static bool enabled(const struct compressor *filter, const struct direction *direction)
{
    return kb_runtime_get_u64(filter->config->runtime, direction->runtime_key,
                              direction->enabled) != 0;
}

/* Whether a list of tokens has this one, in any case. */
static bool has_token(struct kb_str list, struct kb_str token)
{
    struct kb_str item;

    while (list.len > 0 && kb_str_next_token(&list, ',', &item)) {
        if (kb_str_ieq(kb_str_trim(item), token)) {
            return true;
        }
    }
    return false;
}

static bool long_enough(const struct compressor *filter, const struct direction *direction,
                        const struct kb_header_map *headers)
{
    struct kb_str length = kb_header_map_value_id(headers, KB_HDR_CONTENT_LENGTH);
    uint64_t bytes;

    if (length.p == NULL) {
        return true;
    }
    if (kb_str_to_u64(length, &bytes) == 0 && bytes >= direction->min_length) {
        return true;
    }
    count(filter, direction, TOO_SMALL, 1);
    return false;
}

static bool type_fits(const struct direction *direction, const struct kb_header_map *headers)
{
    struct kb_str type = kb_header_map_value_id(headers, KB_HDR_CONTENT_TYPE);
    ptrdiff_t semicolon = kb_str_find_char(type, ';');

    if (type.p == NULL || (direction->type_count == 0 && direction->matcher_count == 0)) {
        return true;
    }
    type = kb_str_trim(semicolon >= 0 ? kb_str_first(type, (size_t)semicolon) : type);
    for (size_t i = 0; i < direction->type_count; i++) {
        if (kb_str_eq(direction->types[i], type)) {
            return true;
        }
    }
    for (size_t i = 0; i < direction->matcher_count; i++) {
        if (kb_string_matcher_match(&direction->matchers[i], type)) {
            return true;
        }
    }
    return false;
}

static bool transfer_fits(const struct kb_header_map *headers)
{
    struct kb_str coding = kb_header_map_value_id(headers, KB_HDR_TRANSFER_ENCODING);

    return coding.p == NULL ||
           (!has_token(coding, KB_STR("gzip")) && !has_token(coding, KB_STR("deflate")) &&
            !has_token(coding, KB_STR("br")) && !has_token(coding, KB_STR("zstd")));
}

static void body_run(struct compressor *filter, const struct direction *direction,
                     struct kb_compression_stream *stream, struct kb_buf *data, bool end)
{
    count(filter, direction, TOTAL_UNCOMPRESSED, data->len);
    if (kb_compression_stream_run(stream, data, end) != 0) {
        kb_buf_consume(data, data->len); /* a compressor takes everything */
    }
    count(filter, direction, TOTAL_COMPRESSED, data->len);
}

/* ---- requests ---- */

static void *create(void *config, struct kb_stream *stream)
{
    struct compressor *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct compressor);

    filter->config = KB_CAST(config, compressor_config);
    filter->stream = stream;
    return filter;
}

static struct offers *offers_get(const struct compressor *filter)
{
    struct kb_stream_info *info = kb_stream_stream_info(filter->stream);
    const struct kb_filter_state_item *found =
        kb_filter_state_item_find(info->filter_state, filter->config->key);
    struct kb_filter_state_item item = {.key = filter->config->key, .type = &offers_type};
    struct offers *offers;

    if (found != NULL) {
        return (struct offers *)(uintptr_t)found->object;
    }
    offers = KB_ARENA_NEW(kb_stream_arena(filter->stream), struct offers);
    item.object = offers;
    return kb_filter_state_put_stream(info, kb_stream_arena(filter->stream), &item) == 0 ? offers
                                                                                         : NULL;
}

static const struct compressor_route *route_of(const struct compressor *filter)
{
    const void *route = kb_stream_route_config(filter->stream, filter);

    return route != NULL ? KB_CAST((void *)(uintptr_t)route, compressor_route) : NULL;
}

static bool response_enabled(const struct compressor *filter, const struct compressor_route *route)
{
    if (route != NULL && (route->disabled || route->enabled)) {
        return route->enabled;
    }
    return enabled(filter, &filter->config->response);
}

static void request_begin(struct compressor *filter, struct kb_header_map *headers, bool end_stream)
{
    struct compressor_config *config = filter->config;
    struct direction *direction = &config->request;

    if (end_stream || !config->compresses_requests || !enabled(filter, direction) ||
        !long_enough(filter, direction, headers) || !type_fits(direction, headers) ||
        kb_header_map_get_id(headers, KB_HDR_CONTENT_ENCODING) != NULL || !transfer_fits(headers)) {
        count(filter, direction, NOT_COMPRESSED, 1);
        return;
    }
    kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH);
    kb_header_map_set_id(headers, KB_HDR_CONTENT_ENCODING, config->library.encoding);
    count(filter, direction, COMPRESSED, 1);
    filter->request = kb_compression_stream_create(&config->library, true);
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct compressor *filter = arg;
    const struct compressor_route *route = route_of(filter);

    filter->accepted = kb_header_map_value_id(headers, KB_HDR_ACCEPT_ENCODING);
    if (response_enabled(filter, route)) {
        struct offers *offers = offers_get(filter);

        if (offers != NULL && offers->count < KB_COMPRESSORS_MAX) {
            offers->configs[offers->count++] = filter->config;
        }
        if (route != NULL && route->remove_accept_encoding >= 0
                ? route->remove_accept_encoding != 0
                : filter->config->remove_accept_encoding) {
            kb_header_map_remove_id(headers, KB_HDR_ACCEPT_ENCODING);
        }
    }
    request_begin(filter, headers, end_stream);
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_data_status decode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct compressor *filter = arg;

    if (filter->request != NULL) {
        body_run(filter, &filter->config->request, filter->request, data, end_stream);
    }
    return KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_trailers_status decode_trailers(void *arg, struct kb_header_map *trailers)
{
    struct compressor *filter = arg;
    struct kb_buf rest;

    (void)trailers;
    if (filter->request != NULL) {
        kb_buf_init(&rest, &kb_stream_worker(filter->stream)->slices, 0);
        body_run(filter, &filter->config->request, filter->request, &rest, true);
        kb_stream_inject_decoded_data(filter->stream, filter, &rest, false);
        kb_buf_dispose(&rest);
    }
    return KB_FILTER_TRAILERS_CONTINUE;
}

/* ---- answers ---- */

static void choose(const struct compressor *filter, struct offers *offers,
                   const struct kb_header_map *headers)
{
    struct kb_str offered[KB_COMPRESSORS_MAX];
    size_t n = 0;

    for (size_t i = 0; i < offers->count; i++) {
        struct kb_str encoding = offers->configs[i]->library.encoding;
        bool known = false;

        for (size_t j = 0; j < n; j++) {
            known |= kb_str_eq(offered[j], encoding);
        }
        if (!known && type_fits(&offers->configs[i]->response, headers)) {
            offered[n++] = encoding;
        }
    }
    offers->choice = kb_encoding_choose(offered, n, filter->accepted);
    offers->decided = true;
}

/* Counts why, too. */
static bool accepted(const struct compressor *filter, const struct kb_header_map *headers)
{
    const struct direction *direction = &filter->config->response;
    struct offers *offers;
    bool mine;

    if (filter->accepted.p == NULL) {
        count(filter, direction, NO_ACCEPT_HEADER, 1);
        return false;
    }
    offers = offers_get(filter);
    if (offers == NULL) {
        return false;
    }
    if (!offers->decided) {
        choose(filter, offers, headers);
    }
    mine = kb_str_ieq(offers->choice.encoding, filter->config->library.encoding);
    switch (offers->choice.reason) {
    case KB_ENCODING_COMPRESSOR:
        count(filter, direction, mine ? HEADER_COMPRESSOR_USED : HEADER_COMPRESSOR_OVERSHADOWED, 1);
        break;
    case KB_ENCODING_IDENTITY:
        count(filter, direction, HEADER_IDENTITY, 1);
        break;
    case KB_ENCODING_WILDCARD:
        count(filter, direction, HEADER_WILDCARD, 1);
        break;
    case KB_ENCODING_NOT_VALID:
        count(filter, direction, HEADER_NOT_VALID, 1);
        break;
    }
    return mine;
}

static bool etag_fits(const struct compressor *filter, const struct kb_header_map *headers)
{
    if (filter->config->disable_on_etag && kb_header_map_get_id(headers, KB_HDR_ETAG) != NULL) {
        count(filter, &filter->config->response, NOT_COMPRESSED_ETAG, 1);
        return false;
    }
    return true;
}

static bool status_fits(const struct compressor_config *config, unsigned status)
{
    for (size_t i = 0; i < config->uncompressible_count; i++) {
        if (config->uncompressible[i] == status) {
            return false;
        }
    }
    return true;
}

/* In this spelling only, as in Envoy. */
static bool names_exactly(struct kb_str list, struct kb_str token)
{
    struct kb_str item;

    while (list.len > 0 && kb_str_next_token(&list, ',', &item)) {
        if (kb_str_eq(kb_str_trim(item), token)) {
            return true;
        }
    }
    return false;
}

static void vary_add(const struct compressor *filter, struct kb_header_map *headers)
{
    struct kb_str vary = kb_header_map_value_id(headers, KB_HDR_VARY);

    if (vary.p == NULL || vary.len == 0) {
        kb_header_map_set_id(headers, KB_HDR_VARY, KB_STR("Accept-Encoding"));
    } else if (!names_exactly(vary, KB_STR("Accept-Encoding"))) {
        kb_header_map_set_id(headers, KB_HDR_VARY,
                             kb_str_printf(kb_stream_arena(filter->stream), "%.*s, Accept-Encoding",
                                           KB_STR_ARG(vary)));
    }
}

/* A strong validator does not hold for other bytes. */
static void etag_change(const struct compressor *filter, struct kb_header_map *headers)
{
    struct kb_str etag = kb_header_map_value_id(headers, KB_HDR_ETAG);

    if (etag.p == NULL || (etag.len > 2 && kb_str_istarts_with(etag, KB_STR("W/")))) {
        return;
    }
    if (filter->config->weaken_etag) {
        kb_header_map_set_id(
            headers, KB_HDR_ETAG,
            kb_str_printf(kb_stream_arena(filter->stream), "W/%.*s", KB_STR_ARG(etag)));
    } else {
        kb_header_map_remove_id(headers, KB_HDR_ETAG);
    }
}

static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct compressor *filter = arg;
    struct compressor_config *config = filter->config;
    struct direction *direction = &config->response;
    bool open =
        response_enabled(filter, route_of(filter)) && long_enough(filter, direction, headers);
    bool fits =
        open && headers->status != 101 && type_fits(direction, headers) &&
        !has_token(kb_header_map_value_id(headers, KB_HDR_CACHE_CONTROL), KB_STR("no-transform")) &&
        etag_fits(filter, headers) && status_fits(config, headers->status) &&
        kb_header_map_get_id(headers, KB_HDR_CONTENT_ENCODING) == NULL;

    if (!end_stream && open && accepted(filter, headers) && fits && transfer_fits(headers)) {
        etag_change(filter, headers);
        kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH);
        kb_header_map_set_id(headers, KB_HDR_CONTENT_ENCODING, config->library.encoding);
        count(filter, direction, COMPRESSED, 1);
        filter->response = kb_compression_stream_create(&config->library, true);
    } else {
        count(filter, direction, NOT_COMPRESSED, 1);
    }
    if (fits) {
        vary_add(filter, headers);
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_data_status encode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct compressor *filter = arg;

    if (filter->response != NULL) {
        body_run(filter, &filter->config->response, filter->response, data, end_stream);
    }
    return KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_trailers_status encode_trailers(void *arg, struct kb_header_map *trailers)
{
    struct compressor *filter = arg;
    struct kb_buf rest;

    (void)trailers;
    if (filter->response != NULL) {
        kb_buf_init(&rest, &kb_stream_worker(filter->stream)->slices, 0);
        body_run(filter, &filter->config->response, filter->response, &rest, true);
        kb_stream_inject_encoded_data(filter->stream, filter, &rest, false);
        kb_buf_dispose(&rest);
    }
    return KB_FILTER_TRAILERS_CONTINUE;
}

static void on_destroy(void *arg)
{
    struct compressor *filter = arg;

    kb_compression_stream_destroy(filter->request);
    kb_compression_stream_destroy(filter->response);
}

const struct kb_http_filter_ops kb_ext_http_compressor = {
    .name = "envoy.filters.http.compressor",
    .type_url = "envoy.extensions.filters.http.compressor.v3.Compressor",
    .route_type_url = "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .route_config_create = route_config_create,
    .create = create,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .decode_trailers = decode_trailers,
    .encode_headers = encode_headers,
    .encode_data = encode_data,
    .encode_trailers = encode_trailers,
    .on_destroy = on_destroy,
};
