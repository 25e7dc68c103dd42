/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.filters.http.grpc_web: gRPC for browsers, whose trailers are the last frame of the body and
 * whose bytes may be Base64 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md). */
#include "base/base64.h"
#include "proxy/api/cluster.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/stats.h"
#include "proxy/http/local_reply.h"

#define TRAILERS_FLAG 0x80
#define HEAD_BYTES    5
#define METHOD_MAX    2048
#define UNENCODED_MAX (64 * 1024)
#define MESSAGE_MAX   16384 /* of an answer that is no gRPC, in grpc-message */

struct grpc_web_config {
    KB_OBJ;
    struct kb_stat_store *stats;
};
KB_OBJ_MAGIC(grpc_web_config, 0x47574542);

struct grpc_web {
    const struct grpc_web_config *config;
    struct kb_stream *stream;
    struct kb_buf undecoded; /* less than 4 bytes of Base64 */
    struct kb_buf unencoded; /* part of a message that is to be Base64 */
    uint64_t message_left;   /* of the message that is there in part, with its head; 0: at a head */
    bool is_web;
    bool text_request;
    bool text_response;
    struct kb_header_map *foreign; /* head of an answer that is no gRPC; NULL: it is */
    struct kb_buf message;         /* the beginning of its body */
};

static int config_create(const void *message, struct kb_factory_context *factory,
                         struct kb_diag *diag, void **out)
{
    struct grpc_web_config *config = KB_ARENA_NEW(factory->arena, struct grpc_web_config);

    (void)message;
    (void)diag;
    KB_OBJ_SET(config, grpc_web_config);
    config->stats = factory->server->stats;
    *out = config;
    return 0;
}

static void *create(void *config, struct kb_stream *stream)
{
    struct grpc_web *filter = KB_ARENA_NEW(kb_stream_arena(stream), struct grpc_web);

    filter->config = KB_CAST(config, grpc_web_config);
    filter->stream = stream;
    kb_buf_init(&filter->undecoded, &kb_stream_worker(stream)->slices, 0);
    kb_buf_init(&filter->unencoded, &kb_stream_worker(stream)->slices, 0);
    kb_buf_init(&filter->message, &kb_stream_worker(stream)->slices, 0);
    return filter;
}

static void on_destroy(void *arg)
{
    struct grpc_web *filter = arg;

    kb_buf_dispose(&filter->undecoded);
    kb_buf_dispose(&filter->unencoded);
    kb_buf_dispose(&filter->message);
}

/* ---- requests ---- */

static bool is_text(struct kb_str type)
{
    return kb_str_eq(type, KB_STR("application/grpc-web-text")) ||
           kb_str_eq(type, KB_STR("application/grpc-web-text+proto"));
}

static bool is_web(struct kb_str type)
{
    return is_text(type) || kb_str_eq(type, KB_STR("application/grpc-web")) ||
           kb_str_eq(type, KB_STR("application/grpc-web+proto"));
}

static enum kb_filter_headers_status decode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct grpc_web *filter = arg;
    struct kb_str type = kb_header_map_value_id(headers, KB_HDR_CONTENT_TYPE);

    (void)end_stream;
    if (!is_web(type)) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    filter->is_web = true;
    filter->text_request = is_text(type);
    filter->text_response = is_text(kb_header_map_value_id(headers, KB_HDR_ACCEPT));
    kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH);
    kb_header_map_set_id(headers, KB_HDR_CONTENT_TYPE, KB_STR("application/grpc"));
    kb_header_map_set(headers, KB_STR("te"), KB_STR("trailers"));
    if (kb_header_map_get(headers, KB_STR("grpc-accept-encoding")) == NULL) {
        kb_header_map_set(headers, KB_STR("grpc-accept-encoding"), KB_STR("identity"));
    }
    return KB_FILTER_HEADERS_CONTINUE;
}

static enum kb_filter_data_status refuse(struct grpc_web *filter, struct kb_buf *data,
                                         struct kb_str details)
{
    kb_buf_consume(data, data->len);
    kb_stream_send_filter_reply(filter->stream, 400,
                                KB_STR("Bad gRPC-web request, invalid base64 data."), details, NULL,
                                NULL);
    return KB_FILTER_DATA_STOP_NO_BUFFER;
}

static enum kb_filter_data_status decode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct grpc_web *filter = arg;
    struct kb_buf whole;
    size_t take;

    if (!filter->text_request) {
        return KB_FILTER_DATA_CONTINUE;
    }
    kb_buf_init(&whole, data->source, 0);
    kb_buf_move(&whole, &filter->undecoded);
    kb_buf_move(&whole, data);
    take = whole.len / 4 * 4;
    if (end_stream && take != whole.len) {
        kb_buf_dispose(&whole);
        return refuse(filter, data, KB_STR("grpc_base_64_decode_failed_bad_size"));
    }
    while (take > 0) {
        char text[4096], bytes[4096];
        size_t n = KB_MIN(take, sizeof(text));
        size_t len = sizeof(bytes);

        kb_buf_peek(&whole, text, n);
        kb_buf_consume(&whole, n);
        take -= n;
        if (kb_base64_decode(kb_str_make(text, n), bytes, &len) != 0 || len == 0) {
            kb_buf_dispose(&whole);
            return refuse(filter, data, KB_STR("grpc_base_64_decode_failed"));
        }
        kb_buf_append(data, bytes, len);
    }
    kb_buf_move(&filter->undecoded, &whole);
    kb_buf_dispose(&whole);
    return data->len > 0 || end_stream ? KB_FILTER_DATA_CONTINUE : KB_FILTER_DATA_STOP_NO_BUFFER;
}

/* ---- answers ---- */

static void counter_inc(const struct grpc_web *filter, struct kb_str prefix, struct kb_str name)
{
    struct kb_stat_named *named =
        kb_stat_tagged_get(filter->config->stats,
                           kb_str_printf(kb_stream_arena(filter->stream), "%.*s%.*s",
                                         KB_STR_ARG(prefix), KB_STR_ARG(name)),
                           NULL, 0, KB_STAT_COUNTER);

    if (named != NULL) {
        kb_stat_named_add(named, kb_stream_worker(filter->stream)->index, 1);
    }
}

/* "/package.Service/Method" as "cluster.c.grpc-web.package.Service.Method.". */
static bool prefix_make(const struct grpc_web *filter, struct kb_str *prefix)
{
    const struct kb_cluster *cluster = kb_stream_route_cluster(filter->stream);
    struct kb_str path = kb_stream_request_headers(filter->stream)->path;
    ptrdiff_t query = kb_str_find_char(path, '?');
    struct kb_str rest;
    ptrdiff_t slash;

    path = query >= 0 ? kb_str_first(path, (size_t)query) : path;
    rest = path.len > 1 ? kb_str_from(path, 1) : KB_STR("");
    slash = kb_str_find_char(rest, '/');
    if (cluster == NULL || slash <= 0 || (size_t)slash + 1 >= rest.len || rest.len > METHOD_MAX ||
        kb_str_find_char(kb_str_from(rest, (size_t)slash + 1), '/') >= 0) {
        return false;
    }
    *prefix = kb_str_printf(kb_stream_arena(filter->stream), "cluster.%.*s.grpc-web.%.*s.%.*s.",
                            KB_STR_ARG(cluster->observability_name), (int)slash, rest.p,
                            KB_STR_ARG(kb_str_from(rest, (size_t)slash + 1)));
    return true;
}

static void status_count(const struct grpc_web *filter, const struct kb_header_map *map)
{
    struct kb_str status = kb_header_map_value_id(map, KB_HDR_GRPC_STATUS);
    struct kb_str prefix;

    if (status.p == NULL || status.len > 16 || !prefix_make(filter, &prefix)) {
        return;
    }
    counter_inc(filter, prefix, status);
    counter_inc(filter, prefix,
                kb_str_eq(status, KB_STR("0")) ? KB_STR("success") : KB_STR("failure"));
    counter_inc(filter, prefix, KB_STR("total"));
}

static bool is_grpc(const struct kb_header_map *headers)
{
    return headers->status == 200 &&
           kb_str_starts_with(kb_header_map_value_id(headers, KB_HDR_CONTENT_TYPE),
                              KB_STR("application/grpc"));
}

/* The body of an answer that is no gRPC becomes the message of a status that the client reads. */
static void foreign_end(struct grpc_web *filter)
{
    struct kb_arena *arena = kb_stream_arena(filter->stream);
    size_t len = filter->message.len;
    char *text = kb_arena_alloc(arena, len + 1, 1);

    kb_buf_peek(&filter->message, text, len);
    kb_buf_consume(&filter->message, len);
    if (len > 0) {
        kb_header_map_set_id(filter->foreign, KB_HDR_GRPC_MESSAGE,
                             kb_grpc_message(arena, kb_str_make(text, len)));
    }
    kb_header_map_set_id(
        filter->foreign, KB_HDR_GRPC_STATUS,
        kb_str_printf(arena, "%u", kb_grpc_status_from_http(filter->foreign->status)));
    kb_header_map_remove_id(filter->foreign, KB_HDR_CONTENT_LENGTH);
    kb_header_map_set_id(filter->foreign, KB_HDR_CONTENT_LENGTH, KB_STR("0"));
    filter->foreign = NULL;
}

static enum kb_filter_data_status foreign_data(struct grpc_web *filter, struct kb_buf *data,
                                               bool end_stream)
{
    while (data->len > 0 && filter->message.len < MESSAGE_MAX) {
        struct kb_str piece = kb_buf_first(data);
        size_t n = KB_MIN(piece.len, MESSAGE_MAX - filter->message.len);

        kb_buf_append(&filter->message, piece.p, n);
        kb_buf_consume(data, n);
    }
    kb_buf_consume(data, data->len);
    if (!end_stream) {
        return KB_FILTER_DATA_STOP_NO_BUFFER;
    }
    foreign_end(filter);
    return KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_headers_status encode_headers(void *arg, struct kb_header_map *headers,
                                                    bool end_stream)
{
    struct grpc_web *filter = arg;

    if (!filter->is_web) {
        return KB_FILTER_HEADERS_CONTINUE;
    }
    if (!end_stream && !is_grpc(headers)) {
        filter->foreign = headers;
    }
    status_count(filter, headers);
    kb_header_map_remove_id(headers, KB_HDR_CONTENT_LENGTH); /* the body will be another one */
    kb_header_map_set_id(headers, KB_HDR_CONTENT_TYPE,
                         filter->text_response ? KB_STR("application/grpc-web-text+proto")
                                               : KB_STR("application/grpc-web+proto"));
    return filter->foreign != NULL ? KB_FILTER_HEADERS_STOP_ITERATION : KB_FILTER_HEADERS_CONTINUE;
}

/* The first bytes of `from` as Base64 behind `to`. */
static void text_move(const struct grpc_web *filter, struct kb_buf *to, struct kb_buf *from,
                      size_t len)
{
    while (len > 0) {
        char bytes[3072];
        size_t n = KB_MIN(len, sizeof(bytes));
        struct kb_arena scratch;
        struct kb_str text;

        kb_buf_peek(from, bytes, n);
        kb_buf_consume(from, n);
        len -= n;
        kb_arena_init(&scratch, &kb_stream_worker(filter->stream)->arena_blocks);
        text = kb_base64_encode(kb_str_make(bytes, n), &scratch);
        kb_buf_append(to, text.p, text.len);
        kb_arena_dispose(&scratch);
    }
}

/* Replaces data by the Base64 of each whole message, with padding of its own; a part of one waits,
 * but not more than UNENCODED_MAX of it. */
static void text_encode(struct grpc_web *filter, struct kb_buf *data, bool end)
{
    struct kb_buf *waiting = &filter->unencoded;
    unsigned char head[HEAD_BYTES];

    kb_buf_move(waiting, data);
    for (;;) {
        if (filter->message_left == 0) {
            if (waiting->len < HEAD_BYTES) {
                break;
            }
            kb_buf_peek(waiting, head, sizeof(head));
            filter->message_left = HEAD_BYTES + ((uint64_t)head[1] << 24 | (uint64_t)head[2] << 16 |
                                                 (uint64_t)head[3] << 8 | head[4]);
        }
        if (waiting->len >= filter->message_left) {
            text_move(filter, data, waiting, (size_t)filter->message_left);
            filter->message_left = 0;
        } else if (waiting->len > UNENCODED_MAX) {
            size_t n = waiting->len / 3 * 3;

            filter->message_left -= n;
            text_move(filter, data, waiting, n);
        } else {
            break;
        }
    }
    if (end) {
        text_move(filter, data, waiting, waiting->len);
    }
}

static enum kb_filter_data_status encode_data(void *arg, struct kb_buf *data, bool end_stream)
{
    struct grpc_web *filter = arg;

    if (filter->foreign != NULL) {
        return foreign_data(filter, data, end_stream);
    }
    if (filter->is_web && filter->text_response) {
        text_encode(filter, data, end_stream);
    }
    return KB_FILTER_DATA_CONTINUE;
}

static enum kb_filter_trailers_status encode_trailers(void *arg, struct kb_header_map *trailers)
{
    struct grpc_web *filter = arg;
    struct kb_buf frame, lines;
    unsigned char head[HEAD_BYTES] = {TRAILERS_FLAG};

    if (!filter->is_web) {
        return KB_FILTER_TRAILERS_CONTINUE;
    }
    if (filter->foreign != NULL) {
        kb_header_map_clear(trailers);
        foreign_end(filter);
        return KB_FILTER_TRAILERS_CONTINUE;
    }
    status_count(filter, trailers);
    kb_buf_init(&frame, &kb_stream_worker(filter->stream)->slices, 0);
    kb_buf_init(&lines, &kb_stream_worker(filter->stream)->slices, 0);
    KB_HEADER_FOREACH(header, trailers)
    {
        kb_buf_append(&lines, header->name.p, header->name.len);
        kb_buf_append(&lines, ":", 1);
        kb_buf_append(&lines, header->value.p, header->value.len);
        kb_buf_append(&lines, "\r\n", 2);
    }
    kb_header_map_clear(trailers);
    for (unsigned i = 0; i < 4; i++) {
        head[1 + i] = (unsigned char)(lines.len >> (24 - 8 * i));
    }
    kb_buf_append(&frame, head, sizeof(head));
    kb_buf_move(&frame, &lines);
    if (filter->text_response) {
        kb_buf_move(&lines, &frame);
        kb_buf_consume(&filter->unencoded, filter->unencoded.len); /* no whole message */
        text_move(filter, &frame, &lines, lines.len);
    }
    kb_stream_inject_encoded_data(filter->stream, filter, &frame, false);
    kb_buf_dispose(&frame);
    kb_buf_dispose(&lines);
    return KB_FILTER_TRAILERS_CONTINUE;
}

const struct kb_http_filter_ops kb_ext_http_grpc_web = {
    .name = "envoy.filters.http.grpc_web",
    .type_url = "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    .config_create = config_create,
    .create = create,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .encode_headers = encode_headers,
    .encode_data = encode_data,
    .encode_trailers = encode_trailers,
    .on_destroy = on_destroy,
};
