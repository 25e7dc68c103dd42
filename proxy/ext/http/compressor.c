/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.compressor: compresses answers that the client takes compressed, and requests
 * where that is configured. All compressors of a chain decide together who does it. */
#include "proxy/ext/http/compressor_choice.h"
#include "proxy/ext/http/compressor_config.h"

/* What the compressors of one stream share, as an object of its filter state. */
struct offers {
    const struct kb_compressor_config *configs[KB_COMPRESSORS_MAX];
    size_t count;
    bool decided;
    struct kb_encoding_choice choice;
};

struct compressor {
    struct kb_compressor_config *config;
    const struct kb_compression_library *library; /* the filter's, or the route's */
    struct kb_stream *stream;
    struct kb_str accepted; /* p NULL: no header */
    struct kb_compression_stream *request;
    struct kb_compression_stream *response;
};

static const struct kb_filter_state_type offers_type = {.name = "compressors"};

/* ---- what both directions ask ---- */

static void count(const struct compressor *filter, const struct kb_compressor_direction *direction,
                  unsigned id, uint64_t n)
{
    kb_stat_named_add(direction->counters[id], kb_stream_worker(filter->stream)->index, (int64_t)n);
}

static bool enabled(const struct compressor *filter,
                    const struct kb_compressor_direction *direction)
{
    return kb_runtime_get_bool(filter->config->runtime, direction->runtime_key, direction->enabled);
}

static bool long_enough(const struct compressor *filter,
                        const struct kb_compressor_direction *direction,
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
    count(filter, direction, KB_COMPRESSOR_TOO_SMALL, 1);
    return false;
}

static bool type_fits(const struct kb_compressor_direction *direction,
                      const struct kb_header_map *headers)
{
    struct kb_str type = kb_header_map_value_id(headers, KB_HDR_CONTENT_TYPE);
    ptrdiff_t semicolon = kb_str_find_char(type, ';');

    if (type.p == NULL || (direction->type_count == 0 && direction->matcher_count == 0)) {
        return true;
    }
    type = kb_str_trim(semicolon >= 0 ? kb_str_first(type, (size_t)semicolon) : type);
    for (size_t i = 0; i < direction->type_count; i++) {
        if (kb_str_ieq(direction->types[i], type)) {
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
           (!kb_str_list_has(coding, KB_STR("gzip")) &&
            !kb_str_list_has(coding, KB_STR("deflate")) && !kb_str_list_has(coding, KB_STR("br")) &&
            !kb_str_list_has(coding, KB_STR("zstd")));
}

static void body_run(struct compressor *filter, const struct kb_compressor_direction *direction,
                     struct kb_compression_stream *stream, struct kb_buf *data, bool end)
{
    count(filter, direction, KB_COMPRESSOR_TOTAL_UNCOMPRESSED, data->len);
    if (kb_compression_stream_pack(stream, data, end) != 0) {
        kb_buf_consume(data, data->len); /* a compressor takes everything */
    }
    count(filter, direction, KB_COMPRESSOR_TOTAL_COMPRESSED, data->len);
}

/* ---- requests ---- */

static void *create(void *config, struct kb_stream *stream)
{
    struct compressor *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct compressor);

    filter->config = KB_CAST(config, kb_compressor_config);
    filter->library = &filter->config->library;
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

static const struct kb_compressor_route *route_of(const struct compressor *filter)
{
    const void *route = kb_stream_route_config(filter->stream, filter);

    return route != NULL ? KB_CAST((void *)(uintptr_t)route, kb_compressor_route) : NULL;
}

static bool response_enabled(const struct compressor *filter,
                             const struct kb_compressor_route *route)
{
    if (route != NULL && (route->disabled || route->enabled)) {
        return route->enabled;
    }
    return enabled(filter, &filter->config->response);
}

static void request_begin(struct compressor *filter, struct kb_header_map *headers, bool end_stream)
{
    struct kb_compressor_config *config = filter->config;
    struct kb_compressor_direction *direction = &config->request;

    if (end_stream || !config->compresses_requests || !enabled(filter, direction) ||
        !long_enough(filter, direction, headers) || !type_fits(direction, headers) ||
        kb_header_map_get_id(headers, KB_HDR_CONTENT_ENCODING) != NULL ||
        kb_header_map_get_id(headers, KB_HDR_UPGRADE) != NULL || !transfer_fits(headers)) {
        count(filter, direction, KB_COMPRESSOR_NOT_COMPRESSED, 1);
        return;
    }
    kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH);
    kb_header_map_set_id(headers, KB_HDR_CONTENT_ENCODING, filter->library->encoding);
    count(filter, direction, KB_COMPRESSOR_COMPRESSED, 1);
    filter->request =
        kb_compression_stream_create(filter->library, true, kb_stream_worker(filter->stream));
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct compressor *filter = arg;
    const struct kb_compressor_route *route = route_of(filter);

    if (route != NULL && route->library != NULL) {
        filter->library = route->library;
    }
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

/* A route's library counts for the filter that decides, the last of the chain, as in Envoy. */
static void choose(const struct compressor *filter, struct offers *offers,
                   const struct kb_header_map *headers)
{
    struct kb_encoding_offer offered[KB_COMPRESSORS_MAX];
    size_t n = 0;

    for (size_t i = 0; i < offers->count; i++) {
        struct kb_str encoding = offers->configs[i] == filter->config
                                     ? filter->library->encoding
                                     : offers->configs[i]->library.encoding;
        bool known = false;

        for (size_t j = 0; j < n; j++) {
            known |= kb_str_eq(offered[j].encoding, encoding);
        }
        if (!known && type_fits(&offers->configs[i]->response, headers)) {
            offered[n++] = (struct kb_encoding_offer){encoding, offers->configs[i]->choose_first};
        }
    }
    offers->choice = kb_encoding_choose(offered, n, filter->accepted);
    offers->decided = true;
}

/* Counts why, too. */
static bool accepted(const struct compressor *filter, const struct kb_header_map *headers)
{
    const struct kb_compressor_direction *direction = &filter->config->response;
    struct offers *offers;
    bool mine;

    if (filter->accepted.p == NULL) {
        count(filter, direction, KB_COMPRESSOR_NO_ACCEPT_HEADER, 1);
        return false;
    }
    offers = offers_get(filter);
    if (offers == NULL) {
        return false;
    }
    if (!offers->decided) {
        choose(filter, offers, headers);
    }
    mine = kb_str_ieq(offers->choice.encoding, filter->library->encoding);
    switch (offers->choice.reason) {
    case KB_ENCODING_COMPRESSOR:
        count(filter, direction,
              mine ? KB_COMPRESSOR_HEADER_COMPRESSOR_USED
                   : KB_COMPRESSOR_HEADER_COMPRESSOR_OVERSHADOWED,
              1);
        break;
    case KB_ENCODING_IDENTITY:
        count(filter, direction, KB_COMPRESSOR_HEADER_IDENTITY, 1);
        break;
    case KB_ENCODING_WILDCARD:
        count(filter, direction, KB_COMPRESSOR_HEADER_WILDCARD, 1);
        break;
    case KB_ENCODING_NOT_VALID:
        count(filter, direction, KB_COMPRESSOR_HEADER_NOT_VALID, 1);
        break;
    }
    return mine;
}

static bool etag_fits(const struct compressor *filter, const struct kb_header_map *headers)
{
    if (filter->config->disable_on_etag && kb_header_map_get_id(headers, KB_HDR_ETAG) != NULL) {
        count(filter, &filter->config->response, KB_COMPRESSOR_NOT_COMPRESSED_ETAG, 1);
        return false;
    }
    return true;
}

static bool status_fits(const struct kb_compressor_config *config, unsigned status)
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

static bool untouchable(const struct kb_header_map *headers)
{
    return headers->status == 101 ||
           kb_str_list_has(kb_header_map_value_id(headers, KB_HDR_CACHE_CONTROL),
                           KB_STR("no-transform")) ||
           kb_header_map_get_id(headers, KB_HDR_CONTENT_ENCODING) != NULL;
}

static void status_add(const struct compressor *filter, struct kb_header_map *headers,
                       const char *status, struct kb_str more)
{
    kb_header_map_add(headers, KB_STR("x-envoy-compression-status"),
                      kb_str_printf(kb_stream_arena(filter->stream), "%.*s;%s%.*s",
                                    KB_STR_ARG(filter->library->encoding), status,
                                    KB_STR_ARG(more)));
}

/* Whether the answer could be compressed, for the client that tells why not; NULL: it could.
 * `open`: it is long enough to be looked at. */
static const char *why_not(const struct compressor *filter, const struct kb_header_map *headers,
                           bool *open)
{
    const struct kb_compressor_direction *direction = &filter->config->response;

    *open = long_enough(filter, direction, headers);
    if (!*open) {
        return "ContentLengthTooSmall";
    }
    if (!type_fits(direction, headers)) {
        return "ContentTypeNotAllowed";
    }
    if (!etag_fits(filter, headers)) {
        return "EtagNotAllowed";
    }
    return status_fits(filter->config, headers->status) ? NULL : "StatusCodeNotAllowed";
}

static void response_begin(struct compressor *filter, struct kb_header_map *headers)
{
    struct kb_str length = kb_header_map_value_id(headers, KB_HDR_CONTENT_LENGTH);

    etag_change(filter, headers);
    kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH);
    kb_header_map_set_id(headers, KB_HDR_CONTENT_ENCODING, filter->library->encoding);
    if (filter->config->tells_status) {
        status_add(filter, headers, "Compressed",
                   kb_str_printf(kb_stream_arena(filter->stream), ";OriginalLength=%.*s",
                                 KB_STR_ARG(length)));
    }
    count(filter, &filter->config->response, KB_COMPRESSOR_COMPRESSED, 1);
    filter->response =
        kb_compression_stream_create(filter->library, true, kb_stream_worker(filter->stream));
}

/* With status_header_enabled: other checks first, so that the reason is the answer's own. True: it
 * is compressed. */
static bool tell_and_begin(struct compressor *filter, struct kb_header_map *headers,
                           bool end_stream)
{
    bool open = true;
    const char *reason;

    if (!response_enabled(filter, route_of(filter)) || untouchable(headers)) {
        return false;
    }
    reason = why_not(filter, headers, &open);
    if (reason != NULL && !end_stream) {
        if (!open) { /* once more, as in Envoy */
            count(filter, &filter->config->response, KB_COMPRESSOR_TOO_SMALL, 1);
        }
        status_add(filter, headers, reason, KB_STR(""));
    }
    if (reason != NULL) {
        return false;
    }
    vary_add(filter, headers);
    if (end_stream || !accepted(filter, headers) || !transfer_fits(headers)) {
        return false;
    }
    response_begin(filter, headers);
    return true;
}

static bool response_try(struct compressor *filter, struct kb_header_map *headers, bool end_stream)
{
    const struct kb_compressor_config *config = filter->config;
    const struct kb_compressor_direction *direction = &config->response;
    bool open =
        response_enabled(filter, route_of(filter)) && long_enough(filter, direction, headers);
    bool fits = open && type_fits(direction, headers) && !untouchable(headers) &&
                etag_fits(filter, headers) && status_fits(config, headers->status);
    bool begins =
        !end_stream && open && accepted(filter, headers) && fits && transfer_fits(headers);

    if (begins) {
        response_begin(filter, headers);
    }
    if (fits) {
        vary_add(filter, headers);
    }
    return begins;
}

static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct compressor *filter = arg;

    if (!(filter->config->tells_status ? tell_and_begin : response_try)(filter, headers,
                                                                        end_stream)) {
        count(filter, &filter->config->response, KB_COMPRESSOR_NOT_COMPRESSED, 1);
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

static size_t bytes_held(const void *arg)
{
    const struct compressor *filter = arg;

    return (filter->request != NULL ? kb_compression_stream_bytes(filter->request) : 0) +
           (filter->response != NULL ? kb_compression_stream_bytes(filter->response) : 0);
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
    .config_create = kb_compressor_config_create,
    .config_destroy = kb_compressor_config_destroy,
    .route_config_create = kb_compressor_route_create,
    .create = create,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .decode_trailers = decode_trailers,
    .encode_headers = encode_headers,
    .encode_data = encode_data,
    .encode_trailers = encode_trailers,
    .on_destroy = on_destroy,
    .bytes_held = bytes_held,
};
