/* SPDX-License-Identifier: Apache-2.0 */
/* The sending half of HTTP/2 server sessions: responses wait in their streams until nghttp2 pulls
 * them, so that output never piles up; body passes to the output by reference. */
#include "proxy/http/h2_fields.h"
#include "proxy/http/h2_server_internal.h"

#define FRAME_HEADER_BYTES 9

static struct kb_h2_server_session *session_of(void *user_data)
{
    return KB_CAST(user_data, kb_h2_server_session);
}

/* ---- watermarks ---- */

static void above_tell(struct kb_h2_server_stream *stream)
{
    if (!stream->told_above) {
        stream->told_above = true;
        stream->session->callbacks->on_above_high(stream->owner);
    }
}

static void below_queue(struct kb_h2_server_stream *stream)
{
    if (stream->told_above && !kb_list_linked(&stream->lowered_link)) {
        kb_list_push_back(&stream->session->lowered, &stream->lowered_link);
    }
}

/* Its own queue is, until it is sent. */
static void above(struct kb_h2_server_stream *stream)
{
    if (stream->owner != NULL) {
        stream->above_high = true;
        above_tell(stream);
    }
}

static void queue_grown(struct kb_h2_server_stream *stream, size_t n)
{
    struct kb_h2_server_session *session = stream->session;

    session->queued += n;
    kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_PENDING_SEND_BYTES, (int64_t)n);
    if (KB_UNLIKELY(stream->out.len > KB_MIN(n, (size_t)KB_H2_STREAM_OUT_BYTES)) &&
        !kb_list_linked(&stream->grown_link)) {
        kb_list_push_back(&session->grown, &stream->grown_link);
    }
    if (KB_UNLIKELY(stream->out.len > KB_H2_STREAM_ROUND_BYTES)) {
        stream->above_high = true;
    }
    if (KB_UNLIKELY(session->queued > KB_H2_SESSION_OUT_BYTES)) {
        session->above_high = true;
    }
    /* Whoever gives nothing need not be told. */
    if (stream->above_high || session->above_high) {
        above_tell(stream);
    }
}

void kb_h2_server_grown_settle(struct kb_h2_server_session *session)
{
    while (!kb_list_empty(&session->grown)) {
        struct kb_list *link = kb_list_pop_front(&session->grown);
        struct kb_h2_server_stream *stream =
            KB_LIST_ENTRY(link, struct kb_h2_server_stream, grown_link);

        kb_buf_pack(&stream->out);
        if (kb_buf_above_high(&stream->out)) {
            above(stream);
        }
    }
}

void kb_h2_server_session_blocked(struct kb_h2_server_session *session)
{
    KB_LIST_FOREACH (link, &session->streams) {
        struct kb_h2_server_stream *stream = KB_LIST_ENTRY(link, struct kb_h2_server_stream, link);

        if (stream->out.len > 0) {
            above(stream);
        }
    }
}

void kb_h2_server_queue_shrunk(struct kb_h2_server_stream *stream, size_t n)
{
    struct kb_h2_server_session *session = stream->session;

    session->queued -= n;
    kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_PENDING_SEND_BYTES, -(int64_t)n);
    if (KB_UNLIKELY(stream->above_high) && kb_buf_below_low(&stream->out)) {
        stream->above_high = false;
        below_queue(stream);
    }
    if (KB_UNLIKELY(session->above_high) && session->queued <= KB_H2_SESSION_OUT_BYTES / 2) {
        session->above_high = false;
        KB_LIST_FOREACH (link, &session->streams) {
            below_queue(KB_LIST_ENTRY(link, struct kb_h2_server_stream, link));
        }
    }
}

/* ---- pulled by nghttp2 ---- */

static void trailers_submit(struct kb_h2_server_stream *stream)
{
    struct kb_h2_fields fields;

    kb_h2_fields_trailers(&fields, stream->trailers);
    (void)nghttp2_submit_trailer(stream->session->nghttp2, stream->id, fields.items, fields.count);
}

static ssize_t on_data_wanted(nghttp2_session *nghttp2, int32_t id, uint8_t *to, size_t len,
                              uint32_t *flags, nghttp2_data_source *source, void *user_data)
{
    struct kb_h2_server_stream *stream = KB_CAST(source->ptr, kb_h2_server_stream);
    size_t n = KB_MIN(len, stream->out.len);
    size_t before; /* METADATA */

    (void)nghttp2;
    (void)id;
    (void)to;
    (void)user_data;
    if (n == 0 && !stream->out_end) {
        stream->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (n > 0) {
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    }
    if (KB_UNLIKELY(stream->metadata != NULL) && kb_h2_metadata_next(stream->metadata, &before)) {
        return (ssize_t)KB_MIN(n, before);
    }
    if (n == stream->out.len && stream->out_end) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (stream->trailers != NULL) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            trailers_submit(stream);
        }
    }
    return (ssize_t)n;
}

/* The header of a DATA frame, and its payload from the stream's queue. */
static int on_send_data(nghttp2_session *nghttp2, nghttp2_frame *frame, const uint8_t *header,
                        size_t len, nghttp2_data_source *source, void *user_data)
{
    struct kb_h2_server_session *session = session_of(user_data);
    struct kb_h2_server_stream *stream = KB_CAST(source->ptr, kb_h2_server_stream);

    (void)frame;
    if (session->stopped) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (session->output->len >= session->output_limit) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    kb_buf_append(session->output, header, FRAME_HEADER_BYTES);
    kb_buf_move_first(session->output, &stream->out, len);
    session->outbound.produced += FRAME_HEADER_BYTES + len;
    kb_h2_server_queue_shrunk(stream, len);
    if (KB_UNLIKELY(stream->metadata != NULL)) {
        kb_h2_metadata_due(&session->metadata, stream->metadata, nghttp2, stream->id, len);
    }
    session->recent = stream; /* nghttp2 tells next that the frame was sent */
    return 0;
}

static ssize_t pack_extension(nghttp2_session *nghttp2, uint8_t *to, size_t len,
                              const nghttp2_frame *frame, void *user_data)
{
    struct kb_h2_server_session *session = session_of(user_data);
    bool open = kb_h2_server_stream_of(session, frame->hd.stream_id) != NULL;

    (void)nghttp2;
    return kb_h2_metadata_pack(&session->metadata, to, len, frame, open);
}

static bool is_control(const nghttp2_frame *frame)
{
    switch (frame->hd.type) {
    case NGHTTP2_PING:
    case NGHTTP2_SETTINGS:
        return (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
    case NGHTTP2_RST_STREAM:
        return true;
    default:
        return false;
    }
}

/* Envoy's limits of frames that wait for the peer to read; 0 when they are kept. */
static int outbound_count(struct kb_h2_server_session *session, const nghttp2_frame *frame)
{
    const struct kb_h2_options *options = &session->settings->options;
    struct kb_h2_outbound *outbound = &session->outbound;

    outbound->frames[1]++;
    kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_OUTBOUND_FRAMES_ACTIVE, 1);
    if (is_control(frame)) {
        outbound->control[1]++;
        kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_OUTBOUND_CONTROL_FRAMES_ACTIVE, 1);
    }
    if (KB_UNLIKELY(outbound->frames[0] + outbound->frames[1] > options->max_outbound_frames)) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_OUTBOUND_FLOOD);
        kb_h2_server_fault_set(session, KB_ELIMIT,
                               KB_STR("codec_error:Too_many_frames_in_the_outbound_queue."), true);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (KB_UNLIKELY(outbound->control[0] + outbound->control[1] + session->resets_queued >
                    options->max_outbound_control_frames)) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_OUTBOUND_CONTROL_FLOOD);
        kb_h2_server_fault_set(session, KB_ELIMIT,
                               KB_STR("codec_error:Too_many_control_frames_in_the_outbound_queue."),
                               true);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return 0;
}

static void local_end(struct kb_h2_server_stream *stream)
{
    struct kb_h2_server_session *session = stream->session;
    void *owner = stream->owner;

    stream->local_ended = true;
    if (!stream->remote_ended && !stream->reset_sent) {
        /* The rest of the request is not wanted (RFC 9113 section 8.1). */
        stream->reset_sent = true;
        (void)nghttp2_submit_rst_stream(session->nghttp2, NGHTTP2_FLAG_NONE, stream->id,
                                        NGHTTP2_NO_ERROR);
    }
    stream->owner = NULL;
    stream->headers = NULL;
    stream->trailers = NULL;
    if (owner != NULL && !session->stopped) {
        session->callbacks->on_sent(owner);
    }
}

static int on_frame_send(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user_data)
{
    struct kb_h2_server_session *session = session_of(user_data);
    struct kb_h2_server_stream *stream = kb_h2_server_stream_of(session, frame->hd.stream_id);
    bool body = frame->hd.type == NGHTTP2_DATA;

    (void)nghttp2;
    if (stream != NULL && stream->owner != NULL) {
        stream->info->wire_bytes_sent += frame->hd.length + FRAME_HEADER_BYTES;
        if (frame->hd.type == NGHTTP2_HEADERS) {
            stream->info->header_bytes_sent += frame->hd.length + FRAME_HEADER_BYTES;
        } else if (body && !session->stopped) {
            session->callbacks->on_progress(stream->owner);
        }
    }
    if (stream != NULL && (body || frame->hd.type == NGHTTP2_HEADERS)) {
        if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
            local_end(stream);
        }
    }
    if (body) {
        session->guard.data_frames_sent++;
    } else if (frame->hd.type == NGHTTP2_RST_STREAM) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_TX_RESET);
        session->resets_queued -= session->resets_queued > 0;
        kb_h2_server_reset_note(session, frame->hd.stream_id);
    } else if (frame->hd.type == NGHTTP2_GOAWAY) {
        if (frame->goaway.error_code != NGHTTP2_NO_ERROR) {
            kb_h2_server_fault_set(session, KB_EPROTOCOL,
                                   KB_STR("codec_error:The_user_callback_function_failed"), false);
        }
    }
    return outbound_count(session, frame);
}

/* A response that cannot be framed is none. */
static int on_frame_not_send(nghttp2_session *nghttp2, const nghttp2_frame *frame, int code,
                             void *user_data)
{
    (void)user_data;
    if (frame->hd.type == NGHTTP2_HEADERS && code != NGHTTP2_ERR_STREAM_CLOSED &&
        code != NGHTTP2_ERR_STREAM_CLOSING) {
        (void)nghttp2_submit_rst_stream(nghttp2, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                        NGHTTP2_INTERNAL_ERROR);
    }
    return 0;
}

void kb_h2_server_send_callbacks_set(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
    nghttp2_session_callbacks_set_pack_extension_callback(callbacks, pack_extension);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_send);
}

/* ---- responses ---- */

void kb_h2_server_stream_1xx(struct kb_h2_server_stream *stream,
                             const struct kb_header_map *headers)
{
    struct kb_h2_fields fields;

    kb_h2_fields_response(&fields, headers);
    (void)nghttp2_submit_headers(stream->session->nghttp2, NGHTTP2_FLAG_NONE, stream->id, NULL,
                                 fields.items, fields.count, NULL);
}

void kb_h2_server_stream_headers(struct kb_h2_server_stream *stream,
                                 const struct kb_header_map *headers, bool end_stream)
{
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = on_data_wanted};
    struct kb_h2_fields fields;

    kb_h2_fields_response(&fields, headers);
    stream->out_end = end_stream;
    (void)nghttp2_submit_response(stream->session->nghttp2, stream->id, fields.items, fields.count,
                                  end_stream ? NULL : &provider);
}

static void resume(struct kb_h2_server_stream *stream)
{
    if (stream->deferred) {
        stream->deferred = false;
        /* Fails only for a stream that is being closed. */
        (void)nghttp2_session_resume_data(stream->session->nghttp2, stream->id);
    }
}

void kb_h2_server_stream_data(struct kb_h2_server_stream *stream, struct kb_buf *data,
                              bool end_stream)
{
    size_t n = data->len;

    kb_buf_move(&stream->out, data);
    stream->out_end = end_stream;
    if (n > 0) {
        queue_grown(stream, n);
    }
    resume(stream);
}

void kb_h2_server_stream_metadata(struct kb_h2_server_stream *stream, struct kb_buf *block)
{
    struct kb_h2_server_session *session = stream->session;

    if (!session->settings->options.allow_metadata || stream->out_end) {
        kb_buf_consume(block, block->len);
        return;
    }
    if (stream->metadata == NULL) {
        stream->metadata = kb_h2_metadata_create(&session->metadata);
    }
    if (!kb_h2_metadata_queue(&session->metadata, stream->metadata, block, stream->out.len)) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_OUTBOUND_FLOOD);
        kb_h2_server_fault_set(session, KB_ELIMIT,
                               KB_STR("codec_error:Too_many_frames_in_the_outbound_queue."), true);
        return;
    }
    kb_h2_metadata_due(&session->metadata, stream->metadata, session->nghttp2, stream->id, 0);
}

void kb_h2_server_stream_trailers(struct kb_h2_server_stream *stream,
                                  const struct kb_header_map *trailers)
{
    stream->trailers = trailers;
    stream->out_end = true;
    resume(stream);
}

void kb_h2_server_stream_read_disable(struct kb_h2_server_stream *stream, bool disable)
{
    stream->read_disables += disable ? 1 : (uint32_t)-1;
    if (stream->read_disables == 0 && stream->unconsumed > 0) {
        (void)nghttp2_session_consume(stream->session->nghttp2, stream->id, stream->unconsumed);
        stream->unconsumed = 0;
    }
}

void kb_h2_server_stream_close(struct kb_h2_server_stream *stream, uint32_t error_code)
{
    struct kb_h2_server_session *session = stream->session;

    stream->owner = NULL;
    stream->headers = NULL;
    if (stream->trailers != NULL) {
        stream->trailers = NULL;
        stream->out_end = false; /* what is left of it is not the whole */
    }
    if (!stream->reset_sent) {
        stream->reset_sent = true;
        stream->reset_code = error_code;
        session->resets_queued++;
        kb_list_push_back(&session->closing, &stream->closing_link);
    }
}

void kb_h2_server_closing_reset(struct kb_h2_server_session *session)
{
    while (!kb_list_empty(&session->closing)) {
        struct kb_list *link = kb_list_pop_front(&session->closing);
        struct kb_h2_server_stream *stream =
            KB_LIST_ENTRY(link, struct kb_h2_server_stream, closing_link);

        (void)nghttp2_submit_rst_stream(session->nghttp2, NGHTTP2_FLAG_NONE, stream->id,
                                        stream->reset_code);
    }
}
