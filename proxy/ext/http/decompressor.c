/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.decompressor: unpacks requests and answers whose last encoding is that of its
 * library, and tells upstreams that it can. */
#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/extensions/filters/http/decompressor/v3/decompressor.pb-c.h"
#include "proto/wkt.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/runtime.h"
#include "proxy/api/stats.h"
#include "proxy/ext/common/compression.h"

typedef Envoy__Extensions__Filters__Http__Decompressor__V3__Decompressor decompressor_message;
typedef Envoy__Extensions__Filters__Http__Decompressor__V3__Decompressor__CommonDirectionConfig
    common_message;

enum { DECOMPRESSED, NOT_DECOMPRESSED, TOTAL_UNCOMPRESSED, TOTAL_COMPRESSED, COUNTERS };

struct direction {
    struct kb_str runtime_key;
    bool enabled;
    bool ignore_no_transform;
    struct kb_stat_named *counters[COUNTERS];
};

struct decompressor_config {
    KB_OBJ;
    struct kb_compression_library library;
    const struct kb_runtime *runtime;
    struct direction request, response;
    struct kb_stat_named *data_error; /* gzip: of its library; else NULL */
    bool advertises;
};
KB_OBJ_MAGIC(decompressor_config, 0x4445434f);

struct decompressor {
    struct decompressor_config *config;
    struct kb_stream *stream;
    struct kb_compression_stream *request, *response;
};

/* ---- configuration ---- */

static void direction_read(struct direction *direction, const common_message *m,
                           const struct decompressor_config *config, const char *what,
                           struct kb_factory_context *factory)
{
    static const char *const names[COUNTERS] = {
        "decompressed", "not_decompressed", "total_uncompressed_bytes", "total_compressed_bytes"};
    const Envoy__Config__Core__V3__RuntimeFeatureFlag *flag = m != NULL ? m->enabled : NULL;

    direction->enabled = flag == NULL || kb_wkt_bool(flag->default_value, true);
    direction->runtime_key =
        flag != NULL ? kb_str_dup(factory->arena, kb_str_from_cstr(flag->runtime_key)) : KB_STR("");
    direction->ignore_no_transform = m != NULL && m->ignore_no_transform_header;
    for (size_t i = 0; i < COUNTERS; i++) {
        direction->counters[i] = kb_stat_named_create(
            factory->server->stats,
            kb_str_printf(factory->arena, "%.*sdecompressor.%.*s.%.*s.%s.%s",
                          KB_STR_ARG(factory->http_stat_prefix), KB_STR_ARG(config->library.name),
                          KB_STR_ARG(config->library.stat), what, names[i]),
            KB_STAT_COUNTER);
    }
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    const decompressor_message *m = message;
    struct decompressor_config *config = KB_ARENA_NEW(factory->arena, struct decompressor_config);
    int rc;

    KB_OBJ_SET(config, decompressor_config);
    config->runtime = factory->server->runtime;
    kb_diag_push(diag, "decompressor_library");
    if (m->decompressor_library == NULL || m->decompressor_library->typed_config == NULL) {
        kb_diag_error(diag, "value is required");
        rc = KB_ECONFIG;
    } else {
        rc = kb_compression_library_read(&config->library, m->decompressor_library, false,
                                         factory->arena, diag);
    }
    kb_diag_pop(diag);
    KB_TRY(rc);
    direction_read(&config->request,
                   m->request_direction_config != NULL ? m->request_direction_config->common_config
                                                       : NULL,
                   config, "request", factory);
    direction_read(
        &config->response,
        m->response_direction_config != NULL ? m->response_direction_config->common_config : NULL,
        config, "response", factory);
    if (config->library.kind == KB_COMPRESSION_GZIP) {
        config->data_error = kb_stat_named_create(
            factory->server->stats,
            kb_str_printf(factory->arena,
                          "%.*sdecompressor.%.*s.gzip.decompressor_library.zlib_data_error",
                          KB_STR_ARG(factory->http_stat_prefix), KB_STR_ARG(config->library.name)),
            KB_STAT_COUNTER);
    }
    config->advertises = m->request_direction_config == NULL ||
                         kb_wkt_bool(m->request_direction_config->advertise_accept_encoding, true);
    *out = config;
    return 0;
}

static void config_destroy(void *arg)
{
    struct decompressor_config *config;

    if (arg == NULL) {
        return;
    }
    config = KB_CAST(arg, decompressor_config);
    kb_stat_named_destroy(config->data_error);
    for (size_t i = 0; i < COUNTERS; i++) {
        kb_stat_named_destroy(config->request.counters[i]);
        kb_stat_named_destroy(config->response.counters[i]);
    }
}

/* ---- streams ---- */

static void *create(void *config, struct kb_stream *stream)
{
    struct decompressor *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct decompressor);

    filter->config = KB_CAST(config, decompressor_config);
    filter->stream = stream;
    return filter;
}

static void count(const struct decompressor *filter, const struct direction *direction, unsigned id,
                  uint64_t n)
{
    kb_stat_named_add(direction->counters[id], kb_stream_worker(filter->stream)->index, (int64_t)n);
}

static bool enabled(const struct decompressor *filter, const struct direction *direction)
{
    return kb_runtime_get_u64(filter->config->runtime, direction->runtime_key,
                              direction->enabled) != 0;
}

static bool no_transform(const struct kb_header_map *headers)
{
    return kb_str_list_has(kb_header_map_value_id(headers, KB_HDR_CACHE_CONTROL),
                           KB_STR("no-transform"));
}

/* Takes the encoding that the header lists first out of it, as Envoy does. */
static bool encoding_take(const struct decompressor *filter, struct kb_header_map *headers)
{
    struct kb_str encodings = kb_header_map_value_id(headers, KB_HDR_CONTENT_ENCODING);
    ptrdiff_t comma = kb_str_find_char(encodings, ',');
    struct kb_str first = comma >= 0 ? kb_str_first(encodings, (size_t)comma) : encodings;

    if (encodings.p == NULL || !kb_str_ieq(kb_str_trim(first), filter->config->library.encoding)) {
        return false;
    }
    if (comma >= 0) {
        kb_header_map_set_id(headers, KB_HDR_CONTENT_ENCODING,
                             kb_str_trim(kb_str_from(encodings, (size_t)comma + 1)));
    } else {
        kb_header_map_remove_id(headers, KB_HDR_CONTENT_ENCODING);
    }
    return true;
}

static struct kb_compression_stream *begin(const struct decompressor *filter,
                                           const struct direction *direction,
                                           struct kb_header_map *headers)
{
    if (!enabled(filter, direction) || (!direction->ignore_no_transform && no_transform(headers)) ||
        !encoding_take(filter, headers)) {
        count(filter, direction, NOT_DECOMPRESSED, 1);
        return NULL;
    }
    count(filter, direction, DECOMPRESSED, 1);
    kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH);
    return kb_compression_stream_create(&filter->config->library, false);
}

/* What cannot be read ends where it could be read to, as in Envoy. */
static void body_run(const struct decompressor *filter, const struct direction *direction,
                     struct kb_compression_stream *stream, struct kb_buf *data, bool end)
{
    count(filter, direction, TOTAL_COMPRESSED, data->len);
    if (kb_compression_stream_run(stream, data, end) != 0 && filter->config->data_error != NULL) {
        kb_stat_named_add(filter->config->data_error, kb_stream_worker(filter->stream)->index, 1);
    }
    count(filter, direction, TOTAL_UNCOMPRESSED, data->len);
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct decompressor *filter = arg;
    struct decompressor_config *config = filter->config;

    if (enabled(filter, &config->response) && config->advertises) {
        struct kb_str accepted = kb_header_map_value_id(headers, KB_HDR_ACCEPT_ENCODING);

        kb_header_map_set_id(headers, KB_HDR_ACCEPT_ENCODING,
                             accepted.len == 0
                                 ? config->library.encoding
                                 : kb_str_printf(kb_stream_arena(filter->stream), "%.*s,%.*s",
                                                 KB_STR_ARG(accepted),
                                                 KB_STR_ARG(config->library.encoding)));
    }
    if (!end_stream) {
        filter->request = begin(filter, &config->request, headers);
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_data_status decode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct decompressor *filter = arg;

    if (filter->request != NULL) {
        body_run(filter, &filter->config->request, filter->request, data, end_stream);
    }
    return KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct decompressor *filter = arg;

    if (!end_stream) {
        filter->response = begin(filter, &filter->config->response, headers);
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_data_status encode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct decompressor *filter = arg;

    if (filter->response != NULL) {
        body_run(filter, &filter->config->response, filter->response, data, end_stream);
    }
    return KB_FILTER_DATA_CONTINUE;
}

static void on_destroy(void *arg)
{
    struct decompressor *filter = arg;

    kb_compression_stream_destroy(filter->request);
    kb_compression_stream_destroy(filter->response);
}

const struct kb_http_filter_ops kb_ext_http_decompressor = {
    .name = "envoy.filters.http.decompressor",
    .type_url = "envoy.extensions.filters.http.decompressor.v3.Decompressor",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .create = create,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .encode_headers = encode_headers,
    .encode_data = encode_data,
    .on_destroy = on_destroy,
};
