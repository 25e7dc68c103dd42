/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.buffer: keeps a request until it has wholly come, up to a size, so that its
 * upstream does not wait for a slow client; and gives it a length. */
#include "envoy/extensions/filters/http/buffer/v3/buffer.pb-c.h"

#include "proto/wkt.h"
#include "proxy/api/http_filter.h"

struct buffer_config {
    KB_OBJ;
    uint32_t max_request_bytes;
    bool disabled; /* of a route */
};
KB_OBJ_MAGIC(buffer_config, 0x42554646);

struct buffer_filter {
    const struct buffer_config *config;
    struct kb_stream *stream;
    struct kb_header_map *headers; /* NULL: this request is not kept */
    uint64_t length;
    uint32_t max_bytes;
};

static int buffer_read(const Envoy__Extensions__Filters__Http__Buffer__V3__Buffer *m,
                       struct kb_factory_context *factory, void **out)
{
    struct buffer_config *config = KB_ARENA_NEW(factory->arena, struct buffer_config);

    KB_OBJ_SET(config, buffer_config);
    config->max_request_bytes = m != NULL ? kb_wkt_u32(m->max_request_bytes, 0) : 0;
    *out = config;
    return 0;
}

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    (void)diag;
    return buffer_read(message, factory, out);
}

static int route_config_create(const void *message, struct kb_factory_context *factory,
                               struct kb_diag *diag, void **out)
{
    const Envoy__Extensions__Filters__Http__Buffer__V3__BufferPerRoute *m = message;
    bool disabled =
        m->override_case ==
        ENVOY__EXTENSIONS__FILTERS__HTTP__BUFFER__V3__BUFFER_PER_ROUTE__OVERRIDE_DISABLED;

    (void)diag;
    KB_TRY(buffer_read(disabled ? NULL : m->buffer, factory, out));
    KB_CAST(*out, buffer_config)->disabled = disabled;
    return 0;
}

static void *create(void *config, struct kb_stream *stream)
{
    struct buffer_filter *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct buffer_filter);

    filter->config = KB_CAST(config, buffer_config);
    filter->stream = stream;
    return filter;
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct buffer_filter *filter = arg;
    const struct buffer_config *config = kb_stream_route_config(filter->stream, filter);

    if (config == NULL) {
        config = filter->config;
    }
    if (end_stream || config->disabled) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    kb_stream_set_decoder_limit(filter->stream, config->max_request_bytes);
    filter->headers = headers;
    filter->max_bytes = config->max_request_bytes;
    return KB_FILTER_HEADERS_STOP_ITERATION;
}

static void length_add(struct buffer_filter *filter)
{
    if (kb_header_map_get_id(filter->headers, KB_HDR_CONTENT_LENGTH) == NULL) {
        kb_header_map_set_id(filter->headers, KB_HDR_CONTENT_LENGTH,
                             kb_str_printf(kb_stream_arena(filter->stream), "%llu",
                                           (unsigned long long)filter->length));
    }
}

static enum kb_filter_data_status decode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct buffer_filter *filter = arg;

    if (filter->headers == NULL) {
        return KB_FILTER_DATA_CONTINUE;
    }
    filter->length += data->len;
    if (!end_stream || filter->length > filter->max_bytes) { /* too much: it is refused there */
        return KB_FILTER_DATA_STOP_AND_BUFFER;
    }
    length_add(filter);
    return KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_trailers_status decode_trailers(void *arg, struct kb_header_map *trailers)
{
    struct buffer_filter *filter = arg;

    (void)trailers;
    if (filter->headers != NULL) {
        length_add(filter);
    }
    return KB_FILTER_TRAILERS_CONTINUE;
}

const struct kb_http_filter_ops kb_ext_http_buffer = {
    .name = "envoy.filters.http.buffer",
    .type_url = "envoy.extensions.filters.http.buffer.v3.Buffer",
    .route_type_url = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
    .config_create = config_create,
    .route_config_create = route_config_create,
    .create = create,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .decode_trailers = decode_trailers,
};
