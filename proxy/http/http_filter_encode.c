/* SPDX-License-Identifier: Apache-2.0 */
/* The answer's way through the HTTP filters, last to first (Envoy FilterManager, encoder side).
 * Streams whose filters look at no answer never come here. */
#include "proxy/http/hcm_internal.h"

/* Lives in the stream's arena. */
struct kb_stream_encoding {
    struct kb_buf held;             /* body that a stopped filter keeps */
    size_t held_by;                 /* its index */
    struct kb_header_map *trailers; /* NULL: none yet */
    unsigned above;                 /* filters, and the connection, that hold too much */
    bool connection_above;
    bool headers_end; /* the headers were the whole answer */
    bool ended;       /* the source gave its end */
};

bool kb_http_filter_encodes(const struct kb_http_filter_ops *ops)
{
    return !ops->terminal && (ops->encode_headers != NULL || ops->encode_data != NULL ||
                              ops->encode_trailers != NULL);
}

void kb_stream_encoding_create(struct kb_stream *stream)
{
    stream->encoding = KB_ARENA_NEW(&stream->arena, struct kb_stream_encoding);
    kb_buf_init(&stream->encoding->held, &stream->hcm->worker->slices,
                stream->hcm->conn->buffer_limit);
}

void kb_stream_encoding_dispose(struct kb_stream *stream)
{
    kb_buf_dispose(&stream->encoding->held);
    stream->encoding = NULL;
}

static bool gone(const struct kb_stream *stream)
{
    return stream->ended || stream->encoder == NULL;
}

/* Index of a filter; the count when it is not there. */
static size_t index_of(const struct kb_stream *stream, const void *self)
{
    size_t at = 0;

    while (at < stream->filter_count && stream->filters[at].self != self) {
        at++;
    }
    return at;
}

/* ---- iteration; `from`: the filters before it are still to come ---- */

static void headers_from(struct kb_stream *stream, size_t from, bool end_stream)
{
    for (size_t i = from; i-- > 0 && !gone(stream);) {
        struct kb_stream_filter *filter = &stream->filters[i];
        enum kb_filter_headers_status status = KB_FILTER_HEADERS_CONTINUE;

        if (filter->ops->encode_headers != NULL) {
            status = filter->ops->encode_headers(filter->self, stream->response, end_stream);
        }
        if (status != KB_FILTER_HEADERS_CONTINUE) {
            filter->encode_stopped = true;
            filter->encode_stop_all = status != KB_FILTER_HEADERS_STOP_ITERATION;
            return;
        }
    }
    if (!gone(stream)) {
        kb_stream_headers_send(stream, stream->response, end_stream);
        if (KB_UNLIKELY(stream->metadata != NULL)) {
            kb_stream_metadata_answer_release(stream);
        }
    }
}

/* Keeps body for a stopped filter; at the limit the source has to wait. */
static void data_hold(struct kb_stream *stream, size_t by, struct kb_buf *data)
{
    struct kb_buf *held = &stream->encoding->held;
    bool above = kb_buf_above_high(held);

    stream->encoding->held_by = by;
    kb_buf_move(held, data);
    if (!above && kb_buf_above_high(held)) {
        kb_stream_encoder_above_high(stream, NULL);
    }
}

static void held_take(struct kb_stream *stream, struct kb_buf *body)
{
    struct kb_buf *held = &stream->encoding->held;
    bool above = kb_buf_above_high(held);

    kb_buf_init(body, held->source, 0);
    kb_buf_move(body, held);
    if (above) {
        kb_stream_encoder_below_low(stream, NULL);
    }
}

static void held_from(struct kb_stream *stream, size_t from, bool end_stream);

static void data_from(struct kb_stream *stream, size_t from, struct kb_buf *data, bool end_stream)
{
    for (size_t i = from; i-- > 0 && !gone(stream);) {
        struct kb_stream_filter *filter = &stream->filters[i];
        enum kb_filter_data_status status = KB_FILTER_DATA_CONTINUE;

        if (filter->encode_stopped && filter->encode_stop_all) {
            data_hold(stream, i, data);
            return;
        }
        if (filter->ops->encode_data != NULL) {
            status = filter->ops->encode_data(filter->self, data, end_stream);
        }
        switch (status) {
        case KB_FILTER_DATA_CONTINUE:
            if (filter->encode_stopped) {
                filter->encode_stopped = false;
                headers_from(stream, i, false);
            }
            if (stream->encoding->held.len > 0 && stream->encoding->held_by == i) {
                kb_buf_move(&stream->encoding->held, data);
                held_from(stream, i, end_stream);
                return;
            }
            break;
        case KB_FILTER_DATA_STOP_AND_BUFFER:
        case KB_FILTER_DATA_STOP_AND_WATERMARK:
            data_hold(stream, i, data);
            return;
        case KB_FILTER_DATA_STOP_NO_BUFFER:
            kb_buf_consume(data, data->len);
            return;
        }
    }
    if (!gone(stream)) {
        kb_stream_data_send(stream, data, end_stream);
    }
}

static void held_from(struct kb_stream *stream, size_t from, bool end_stream)
{
    struct kb_buf body;

    held_take(stream, &body);
    data_from(stream, from, &body, end_stream);
    kb_buf_dispose(&body);
}

static void trailers_from(struct kb_stream *stream, size_t from)
{
    struct kb_stream_encoding *encoding = stream->encoding;

    for (size_t i = from; i-- > 0 && !gone(stream);) {
        struct kb_stream_filter *filter = &stream->filters[i];
        enum kb_filter_trailers_status status = KB_FILTER_TRAILERS_CONTINUE;

        if (filter->encode_stopped && filter->encode_stop_all) {
            return;
        }
        if (filter->ops->encode_trailers != NULL) {
            status = filter->ops->encode_trailers(filter->self, encoding->trailers);
        }
        if (status == KB_FILTER_TRAILERS_STOP) {
            filter->encode_trailers_stopped = true;
            return;
        }
        if (filter->encode_stopped) {
            filter->encode_stopped = false;
            headers_from(stream, i, false);
        }
        if (encoding->held.len > 0 && encoding->held_by == i) {
            held_from(stream, i, false);
        }
    }
    if (!gone(stream)) {
        kb_stream_trailers_send(stream, encoding->trailers);
    }
}

/* ---- from the source ---- */

void kb_stream_filters_encode_headers(struct kb_stream *stream, bool end_stream)
{
    stream->encoding->headers_end = end_stream;
    stream->encoding->ended = end_stream;
    headers_from(stream, stream->filter_count, end_stream);
}

void kb_stream_filters_encode_data(struct kb_stream *stream, struct kb_buf *data, bool end_stream)
{
    stream->encoding->ended = end_stream;
    data_from(stream, stream->filter_count, data, end_stream);
    if (data->len > 0) {
        kb_buf_consume(data, data->len);
    }
}

void kb_stream_filters_encode_trailers(struct kb_stream *stream, struct kb_header_map *trailers)
{
    stream->encoding->ended = true;
    stream->encoding->trailers = trailers;
    trailers_from(stream, stream->filter_count);
}

/* ---- from filters ---- */

void kb_stream_withhold_encoded(struct kb_stream *stream, const void *self, bool withholds)
{
    size_t at = index_of(stream, self);

    if (at < stream->filter_count) {
        stream->filters[at].encode_withholds = withholds;
    }
}

struct kb_header_map *kb_stream_add_encoded_trailers(struct kb_stream *stream)
{
    struct kb_stream_encoding *encoding = stream->encoding;

    if (encoding->trailers == NULL) {
        encoding->trailers = KB_ARENA_NEW(&stream->arena, struct kb_header_map);
        kb_header_map_init_trailers(encoding->trailers, &stream->arena, true);
    }
    return encoding->trailers;
}

bool kb_stream_encodes(const struct kb_stream *stream)
{
    return !gone(stream);
}

void kb_stream_stop_encoded(struct kb_stream *stream, const void *self, bool stop)
{
    size_t at = index_of(stream, self);

    if (at == stream->filter_count || stream->filters[at].encode_stops == stop) {
        return;
    }
    stream->filters[at].encode_stops = stop;
    if (stop) {
        kb_stream_encoder_above_high(stream, NULL);
    } else {
        kb_stream_encoder_below_low(stream, NULL);
    }
}

bool kb_stream_takes_encoded(const struct kb_stream *stream, const void *self)
{
    unsigned before = 0;

    for (size_t i = index_of(stream, self); i < stream->filter_count; i++) {
        before += stream->filters[i].encode_stops;
    }
    return stream->encoding->above <= before;
}

/* The end of the answer was given to this filter and all before it on its way, and none keeps a
 * part back. */
static bool end_passed(const struct kb_stream *stream, size_t at)
{
    for (size_t i = at; i < stream->filter_count; i++) {
        if (stream->filters[i].encode_withholds) {
            return false;
        }
    }
    return stream->encoding->ended;
}

void kb_stream_continue_encoding(struct kb_stream *stream, void *self)
{
    struct kb_stream_encoding *encoding = stream->encoding;
    size_t at = index_of(stream, self);
    struct kb_stream_filter *filter;
    bool ended;

    if (at == stream->filter_count || encoding == NULL || gone(stream)) {
        return;
    }
    filter = &stream->filters[at];
    ended = end_passed(stream, at);
    filter->encode_stop_all = false;
    if (filter->encode_stopped) {
        filter->encode_stopped = false;
        headers_from(stream, at, encoding->headers_end);
    }
    if (encoding->held.len > 0 && encoding->held_by == at && !gone(stream)) {
        held_from(stream, at, ended && encoding->trailers == NULL);
    }
    if (encoding->trailers != NULL && ended && !gone(stream)) {
        filter->encode_trailers_stopped = false;
        trailers_from(stream, at);
    }
}

void kb_stream_inject_encoded_data(struct kb_stream *stream, void *self, struct kb_buf *data,
                                   bool end_stream)
{
    size_t at = index_of(stream, self);

    if (at < stream->filter_count && !gone(stream)) {
        data_from(stream, at, data, end_stream);
    }
    if (data->len > 0) {
        kb_buf_consume(data, data->len);
    }
}

static void terminal_tell(struct kb_stream *stream, bool above)
{
    const struct kb_stream_filter *filter;
    void (*told)(void *);

    if (stream->filter_count == 0) {
        return;
    }
    filter = &stream->filters[stream->filter_count - 1];
    told = above ? filter->ops->on_above_high : filter->ops->on_below_low;
    if (filter->ops->terminal && told != NULL) {
        told(filter->self);
    }
}

void kb_stream_encoder_above_high(struct kb_stream *stream, void *filter)
{
    (void)filter;
    if (stream->encoding->above++ == 0) {
        terminal_tell(stream, true);
    }
}

void kb_stream_encoder_below_low(struct kb_stream *stream, void *filter)
{
    (void)filter;
    KB_ASSERT(stream->encoding->above > 0);
    if (--stream->encoding->above == 0) {
        terminal_tell(stream, false);
    } else {
        kb_stream_filters_resumed(stream);
    }
}

void kb_stream_encoding_watermark(struct kb_stream *stream, bool above)
{
    if (stream->encoding->connection_above == above) {
        return;
    }
    stream->encoding->connection_above = above;
    if (above) {
        kb_stream_encoder_above_high(stream, NULL);
    } else {
        kb_stream_encoder_below_low(stream, NULL);
    }
}
