/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.decompressor: unpacks requests and answers whose last encoding is that of its
 * library, and tells upstreams that it can. */
#include <inttypes.h>

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

#define TURN_BYTES (64 * 1024)

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
    struct kb_stat_named *data_error;  /* gzip: of its library; else NULL */
    struct kb_str bytes_in, bytes_out; /* names of trailers */
    bool advertises;
};
KB_OBJ_MAGIC(decompressor_config, 0x4445434f);

struct decompressor;

/* One body on its way. What a few bytes stand for is unpacked bit by bit: no more in one turn of
 * the loop than TURN_BYTES, and none while those who take it have enough. */
struct unpacking {
    struct decompressor *filter;
    const struct direction *direction;
    const struct body_ops *ops;
    struct kb_compression_stream *library; /* NULL: this body is left as it is */
    struct kb_buf held;                    /* what came and is not unpacked */
    struct kb_timer timer;
    uint64_t in, out; /* bytes */
    bool ended;       /* its end came and has to go on */
    bool waits;       /* for its turn, or for those who take it; its source is stopped */
};

struct decompressor {
    struct decompressor_config *config;
    struct kb_stream *stream;
    struct unpacking request, response;
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

static struct kb_str trailer_name(const struct decompressor_config *config, struct kb_arena *arena,
                                  const char *un)
{
    struct kb_str name = kb_str_printf(arena, "x-envoy-decompressor-%.*s-%scompressed-bytes",
                                       KB_STR_ARG(config->library.name), un);
    char *lower = kb_arena_alloc(arena, name.len + 1, 1);

    for (size_t i = 0; i < name.len; i++) {
        lower[i] = kb_ascii_lower(name.p[i]);
    }
    return kb_str_make(lower, name.len);
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
    config->bytes_in = trailer_name(config, factory->arena, "");
    config->bytes_out = trailer_name(config, factory->arena, "un");
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

static void count(const struct decompressor *filter, const struct direction *direction, unsigned id,
                  uint64_t n)
{
    kb_stat_named_add(direction->counters[id], kb_stream_worker(filter->stream)->index, (int64_t)n);
}

static bool enabled(const struct decompressor *filter, const struct direction *direction)
{
    return kb_runtime_get_bool(filter->config->runtime, direction->runtime_key, direction->enabled);
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

/* ---- bodies ---- */

/* What differs by direction. */
struct body_ops {
    void (*inject)(struct kb_stream *stream, void *filter, struct kb_buf *data, bool end_stream);
    struct kb_header_map *(*trailers)(struct kb_stream *stream);
    void (*go_on)(struct kb_stream *stream, void *filter);
    void (*withhold)(struct kb_stream *stream, const void *filter, bool withholds);
    bool (*wanted)(const struct kb_stream *stream);
    bool (*taken)(const struct kb_stream *stream, const void *filter);
    void (*source_stop)(struct kb_stream *stream, const void *filter, bool stop);
};

static const struct body_ops request_ops = {
    .inject = kb_stream_inject_decoded_data,
    .trailers = kb_stream_add_decoded_trailers,
    .go_on = kb_stream_continue_decoding,
    .withhold = kb_stream_withhold_decoded,
    .wanted = kb_stream_decodes,
    .taken = kb_stream_takes_decoded,
    .source_stop = kb_stream_stop_decoded,
};

static const struct body_ops response_ops = {
    .inject = kb_stream_inject_encoded_data,
    .trailers = kb_stream_add_encoded_trailers,
    .go_on = kb_stream_continue_encoding,
    .withhold = kb_stream_withhold_encoded,
    .wanted = kb_stream_encodes,
    .taken = kb_stream_takes_encoded,
    .source_stop = kb_stream_stop_encoded,
};

/* What cannot be read ends where it could be read to, as in Envoy. True: there is more to come. */
static bool some_unpack(struct unpacking *body)
{
    struct decompressor *filter = body->filter;
    struct kb_buf out;
    int rc;

    kb_buf_init(&out, body->held.source, 0);
    rc = kb_compression_stream_unpack(body->library, &body->held, &out, TURN_BYTES);
    if (rc == KB_EINVALID && filter->config->data_error != NULL) {
        kb_stat_named_add(filter->config->data_error, kb_stream_worker(filter->stream)->index, 1);
    }
    body->out += out.len;
    count(filter, body->direction, TOTAL_UNCOMPRESSED, out.len);
    if (out.len > 0) {
        body->ops->inject(filter->stream, filter, &out, false);
    }
    kb_buf_dispose(&out);
    return rc == KB_EAGAIN;
}

static void sizes_tell(const struct unpacking *body)
{
    const struct decompressor_config *config = body->filter->config;
    struct kb_arena *arena = kb_stream_arena(body->filter->stream);
    struct kb_header_map *trailers = body->ops->trailers(body->filter->stream);

    kb_header_map_add(trailers, config->bytes_in, kb_str_printf(arena, "%" PRIu64, body->in));
    kb_header_map_add(trailers, config->bytes_out, kb_str_printf(arena, "%" PRIu64, body->out));
}

static void pump(struct unpacking *body)
{
    struct decompressor *filter = body->filter;
    struct kb_stream *stream = filter->stream;
    bool more = body->ops->wanted(stream) && some_unpack(body);

    if (!body->ops->wanted(stream)) {
        kb_buf_consume(&body->held, body->held.len);
        more = body->ended = false;
    }
    if (more) {
        body->waits = true;
        body->ops->source_stop(stream, filter, true);
        if (body->ops->taken(stream, filter)) {
            kb_loop_timer_arm(&kb_stream_worker(stream)->loop, &body->timer, 0);
        }
        return;
    }
    if (body->waits) {
        body->waits = false;
        body->ops->source_stop(stream, filter, false);
    }
    if (body->ended) {
        body->ended = false;
        sizes_tell(body);
        body->ops->withhold(stream, filter, false);
        body->ops->go_on(stream, filter);
    }
}

static void timer_fired(struct kb_timer *timer)
{
    struct unpacking *body = KB_CONTAINER_OF(timer, struct unpacking, timer);

    if (body->ops->taken(body->filter->stream, body->filter)) {
        pump(body);
    }
}

/* True: it is held back or went on by itself. */
static bool data_came(struct unpacking *body, struct kb_buf *data, bool end_stream)
{
    if (body->library == NULL) {
        return false;
    }
    body->in += data->len;
    count(body->filter, body->direction, TOTAL_COMPRESSED, data->len);
    kb_buf_move(&body->held, data);
    if (end_stream) {
        body->ended = true;
        body->ops->withhold(body->filter->stream, body->filter, true);
    }
    if (!body->waits) {
        pump(body);
    }
    return true;
}

static enum kb_filter_trailers_status trailers_came(struct unpacking *body)
{
    if (body->library == NULL) {
        return KB_FILTER_TRAILERS_CONTINUE;
    }
    if (body->waits) {
        body->ended = true;
        body->ops->withhold(body->filter->stream, body->filter, true);
        return KB_FILTER_TRAILERS_STOP;
    }
    sizes_tell(body);
    return KB_FILTER_TRAILERS_CONTINUE;
}

static void on_resumed(void *arg)
{
    struct decompressor *filter = arg;
    struct unpacking *const bodies[] = {&filter->request, &filter->response};

    for (size_t i = 0; i < KB_ARRAY_LEN(bodies); i++) {
        if (bodies[i]->waits && bodies[i]->ops->taken(filter->stream, filter) &&
            !kb_timer_armed(&bodies[i]->timer)) {
            kb_loop_timer_arm(&kb_stream_worker(filter->stream)->loop, &bodies[i]->timer, 0);
        }
    }
}

static void body_init(struct unpacking *body, struct decompressor *filter,
                      const struct direction *direction, const struct body_ops *ops)
{
    body->filter = filter;
    body->direction = direction;
    body->ops = ops;
    kb_buf_init(&body->held, &kb_stream_worker(filter->stream)->slices, 0);
    kb_timer_init(&body->timer, timer_fired);
}

static void body_dispose(struct unpacking *body)
{
    kb_loop_timer_cancel(&kb_stream_worker(body->filter->stream)->loop, &body->timer);
    kb_buf_dispose(&body->held);
    kb_compression_stream_destroy(body->library);
    body->library = NULL;
}

static void begin(struct unpacking *body, struct kb_header_map *headers)
{
    const struct decompressor *filter = body->filter;
    const struct direction *direction = body->direction;

    if (!enabled(filter, direction) || (!direction->ignore_no_transform && no_transform(headers)) ||
        !encoding_take(filter, headers)) {
        count(filter, direction, NOT_DECOMPRESSED, 1);
        return;
    }
    count(filter, direction, DECOMPRESSED, 1);
    kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH);
    body->library = kb_compression_stream_create(&filter->config->library, false,
                                                 kb_stream_worker(filter->stream));
}

/* ---- the filter ---- */

static void *create(void *config, struct kb_stream *stream)
{
    struct decompressor *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct decompressor);

    filter->config = KB_CAST(config, decompressor_config);
    filter->stream = stream;
    body_init(&filter->request, filter, &filter->config->request, &request_ops);
    body_init(&filter->response, filter, &filter->config->response, &response_ops);
    return filter;
}

/* Once, at the end, and without the weight that the client gave it. */
static void encoding_advertise(const struct decompressor *filter, struct kb_header_map *headers)
{
    struct kb_str list = kb_header_map_value_id(headers, KB_HDR_ACCEPT_ENCODING);
    struct kb_str encoding = filter->config->library.encoding;
    struct kb_str token;
    size_t len = 0;
    char *text = kb_arena_alloc(kb_stream_arena(filter->stream), list.len + 1 + encoding.len, 1);

    while (list.len > 0 && kb_str_next_token(&list, ',', &token)) {
        struct kb_str item = kb_str_trim(token);
        ptrdiff_t semicolon = kb_str_find_char(item, ';');
        struct kb_str name =
            semicolon >= 0 ? kb_str_trim(kb_str_first(item, (size_t)semicolon)) : item;

        if (item.len > 0 && !kb_str_eq(name, encoding)) {
            memcpy(text + len, item.p, item.len);
            len += item.len;
            text[len++] = ',';
        }
    }
    memcpy(text + len, encoding.p, encoding.len);
    kb_header_map_set_id(headers, KB_HDR_ACCEPT_ENCODING, kb_str_make(text, len + encoding.len));
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct decompressor *filter = arg;
    struct decompressor_config *config = filter->config;

    if (enabled(filter, &config->response) && config->advertises) {
        encoding_advertise(filter, headers);
    }
    if (!end_stream) {
        begin(&filter->request, headers);
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_data_status decode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct decompressor *filter = arg;

    return data_came(&filter->request, data, end_stream) ? KB_FILTER_DATA_STOP_NO_BUFFER
                                                         : KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_trailers_status decode_trailers(void *arg, struct kb_header_map *trailers)
{
    struct decompressor *filter = arg;

    (void)trailers;
    return trailers_came(&filter->request);
}

static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct decompressor *filter = arg;

    if (!end_stream) {
        begin(&filter->response, headers);
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_data_status encode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct decompressor *filter = arg;

    return data_came(&filter->response, data, end_stream) ? KB_FILTER_DATA_STOP_NO_BUFFER
                                                          : KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_trailers_status encode_trailers(void *arg, struct kb_header_map *trailers)
{
    struct decompressor *filter = arg;

    (void)trailers;
    return trailers_came(&filter->response);
}

static size_t body_bytes(const struct unpacking *body)
{
    return body->library != NULL ? kb_compression_stream_bytes(body->library) + body->held.len : 0;
}

static size_t bytes_held(const void *arg)
{
    const struct decompressor *filter = arg;

    return body_bytes(&filter->request) + body_bytes(&filter->response);
}

static void on_destroy(void *arg)
{
    struct decompressor *filter = arg;

    kb_stream_stop_decoded(filter->stream, filter, false);
    body_dispose(&filter->request);
    body_dispose(&filter->response);
}

const struct kb_http_filter_ops kb_ext_http_decompressor = {
    .name = "envoy.filters.http.decompressor",
    .type_url = "envoy.extensions.filters.http.decompressor.v3.Decompressor",
    .config_create = config_create,
    .config_destroy = config_destroy,
    .create = create,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .decode_trailers = decode_trailers,
    .encode_headers = encode_headers,
    .encode_data = encode_data,
    .encode_trailers = encode_trailers,
    .on_resumed = on_resumed,
    .on_destroy = on_destroy,
    .bytes_held = bytes_held,
};
