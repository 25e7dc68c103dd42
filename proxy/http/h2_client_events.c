/* SPDX-License-Identifier: Apache-2.0 */
/* What nghttp2 tells of an HTTP/2 client session's connection, and what it asks for: frames counted
 * against their budgets, heads, data, ends; bodies that it may send. */
#include <string.h>

#include "base/log.h"
#include "proxy/http/h2_client_internal.h"
#include "proxy/http/h2_fields.h"

#define INFORMATIONAL_MAX 32 /* 1xx heads of one response */

static struct kb_h2_session *session_of(void *user_data)
{
    return KB_CAST(user_data, kb_h2_session);
}

/* NULL: none is open, or it is nobody's. What nghttp2 tells comes stream by stream and mostly in
 * their order, so that most are found without its table. */
static struct kb_h2_stream *stream_of(struct kb_h2_session *session, int32_t id)
{
    struct kb_h2_stream *recent = session->recent;
    void *stream;

    if (recent != NULL) {
        if (recent->id == id) {
            return recent;
        }
        recent = kb_h2_stream_next(session, recent);
        if (recent != NULL && recent->id == id) {
            session->recent = recent;
            return recent;
        }
    }
    stream = nghttp2_session_get_stream_user_data(session->nghttp2, id);
    if (stream == NULL) {
        return NULL;
    }
    session->recent = KB_CAST(stream, kb_h2_stream);
    return session->recent;
}

/* ---- frames ---- */

static void guard_count(struct kb_h2_session *session, enum kb_h2_guard_fault fault)
{
    switch (fault) {
    case KB_H2_GUARD_EMPTY_FRAMES:
        kb_stat_inc(session->stats, KB_STAT_HTTP2_INBOUND_EMPTY_FRAMES_FLOOD);
        break;
    case KB_H2_GUARD_PRIORITY:
        kb_stat_inc(session->stats, KB_STAT_HTTP2_INBOUND_PRIORITY_FRAMES_FLOOD);
        break;
    case KB_H2_GUARD_WINDOW_UPDATES:
        kb_stat_inc(session->stats, KB_STAT_HTTP2_INBOUND_WINDOW_UPDATE_FRAMES_FLOOD);
        break;
    case KB_H2_GUARD_CONTROL:
    case KB_H2_GUARD_CONTINUATIONS:
    case KB_H2_GUARD_EXPANSION:
    case KB_H2_GUARD_OK:
    default:
        break;
    }
}

static void meter_received(struct kb_h2_session *session, const nghttp2_frame_hd *hd)
{
    struct kb_h2_stream *stream = hd->stream_id > 0 ? stream_of(session, hd->stream_id) : NULL;

    if (stream == NULL || hd->type == NGHTTP2_WINDOW_UPDATE || hd->type == KB_H2_METADATA) {
        return;
    }
    stream->meter.wire_received += hd->length + KB_H2_FRAME_HEAD_BYTES;
    if (hd->type == NGHTTP2_HEADERS || hd->type == NGHTTP2_CONTINUATION) {
        stream->meter.headers_received += hd->length + KB_H2_FRAME_HEAD_BYTES;
    }
}

static int on_begin_frame(nghttp2_session *nghttp2, const nghttp2_frame_hd *hd, void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    enum kb_h2_guard_fault fault = kb_h2_guard_frame(&session->guard, hd->type, hd->flags,
                                                     (uint32_t)hd->length, session->now_ms);

    (void)nghttp2;
    if (KB_LIKELY(fault == KB_H2_GUARD_OK)) {
        meter_received(session, hd);
        return 0;
    }
    guard_count(session, fault);
    session->error = KB_ELIMIT;
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* ---- heads ---- */

static void map_init(struct kb_h2_stream *stream)
{
    if (stream->headers_done) {
        kb_header_map_init_trailers(stream->headers, stream->arena, true);
    } else {
        kb_header_map_init(stream->headers, stream->arena);
    }
}

/* Where the next head goes: informational heads share one map with the final one. */
static void head_begin(struct kb_h2_stream *stream)
{
    stream->header_bytes = 0;
    stream->header_count = 0;
    if (stream->arena == &stream->own_arena) {
        kb_arena_dispose(&stream->own_arena);
        stream->headers = &stream->own_headers;
        map_init(stream);
    } else if (stream->headers == NULL || stream->headers_done) {
        stream->headers = KB_ARENA_NEW(stream->arena, struct kb_header_map);
        map_init(stream);
    } else {
        kb_header_map_clear(stream->headers);
    }
}

static int on_begin_headers(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user_data)
{
    struct kb_h2_stream *stream = stream_of(session_of(user_data), frame->hd.stream_id);

    (void)nghttp2;
    if (stream != NULL && !stream->released) {
        head_begin(stream);
    }
    return 0;
}

/* nghttp2 has checked that :status is three digits. */
static uint16_t status_read(const uint8_t *value, size_t len)
{
    unsigned status = 0;

    for (size_t i = 0; i < len && i < 3; i++) {
        status = status * 10 + (value[i] - '0') % 10;
    }
    return (uint16_t)status;
}

static int on_header(nghttp2_session *nghttp2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    struct kb_h2_stream *stream = stream_of(session, frame->hd.stream_id);

    (void)nghttp2;
    (void)flags;
    if (stream == NULL || stream->released) {
        return 0;
    }
    stream->header_bytes += name_len + value_len;
    stream->header_count++;
    if (stream->header_bytes > session->settings.max_header_bytes ||
        kb_h2_guard_expanded(stream->header_bytes, frame->hd.length,
                             session->settings.hpack_table_bytes)) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_HEADER_LIST_SIZE_TOO_LARGE);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (name_len > 0 && name[0] == ':') {
        stream->headers->status = status_read(value, value_len);
    } else if (kb_h2_field_append(stream->headers, name, name_len, value, value_len)) {
        stream->header_count--; /* the limit is one of headers, not of lines */
    }
    if (stream->header_count > session->settings.max_header_count) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_HEADER_OVERFLOW);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    return 0;
}

/* ---- the end, and what comes before ---- */

static void stream_end(struct kb_h2_stream *stream, struct kb_header_map *trailers)
{
    if (stream->released || stream->ended) {
        return;
    }
    stream->ended = true;
    stream->end_received = true;
    stream->callbacks->on_end(stream->owner, trailers);
}

static int headers_received(struct kb_h2_session *session, struct kb_h2_stream *stream,
                            bool end_stream)
{
    if (stream->released) {
        return 0;
    }
    if (stream->headers_done) {
        stream_end(stream, stream->headers);
        return 0;
    }
    if (stream->headers->status < 100) {
        /* RFC 9110 section 15: no status. */
        session->error = KB_EPROTOCOL;
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (stream->headers->status < 200) {
        if (++stream->informational > INFORMATIONAL_MAX) {
            session->error = KB_ELIMIT;
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
        if (stream->callbacks->on_1xx != NULL) {
            stream->callbacks->on_1xx(stream->owner, stream->headers);
        }
        return 0;
    }
    stream->headers_done = true;
    stream->end_received = end_stream;
    stream->callbacks->on_headers(stream->owner, stream->headers, end_stream);
    if (end_stream) {
        stream_end(stream, NULL);
    }
    return 0;
}

static void data_received(struct kb_h2_stream *stream, bool end_stream)
{
    if (end_stream) {
        stream_end(stream, NULL);
    } else if (!stream->released && !stream->ended && stream->callbacks->on_data_done != NULL) {
        stream->callbacks->on_data_done(stream->owner);
    }
}

static void settings_received(struct kb_h2_session *session)
{
    if (session->callbacks->on_settings != NULL) {
        session->callbacks->on_settings(
            session->owner, nghttp2_session_get_remote_settings(
                                session->nghttp2, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS));
    }
}

/* ---- METADATA ---- */

/* The stream whose owner wants it; NULL: nobody does. */
static struct kb_h2_stream *metadata_stream(struct kb_h2_session *session,
                                            const nghttp2_frame_hd *hd)
{
    struct kb_h2_stream *stream;

    if (hd->type != KB_H2_METADATA || !session->settings.allow_metadata) {
        return NULL;
    }
    stream = stream_of(session, hd->stream_id);
    if (stream == NULL || stream->released || stream->ended || stream->end_received ||
        stream->callbacks->on_metadata == NULL) {
        return NULL;
    }
    if (stream->metadata == NULL) {
        stream->metadata = kb_h2_metadata_create(&session->metadata);
    }
    return stream;
}

static int on_extension_chunk(nghttp2_session *nghttp2, const nghttp2_frame_hd *hd,
                              const uint8_t *bytes, size_t len, void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    struct kb_h2_stream *stream = metadata_stream(session, hd);

    (void)nghttp2;
    return stream == NULL
               ? NGHTTP2_ERR_CANCEL
               : kb_h2_metadata_receive(&session->metadata, stream->metadata, bytes, len);
}

static int unpack_extension(nghttp2_session *nghttp2, void **payload, const nghttp2_frame_hd *hd,
                            void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    struct kb_h2_stream *stream = metadata_stream(session, hd);

    (void)nghttp2;
    *payload = NULL;
    if (stream == NULL) {
        return NGHTTP2_ERR_CANCEL;
    }
    return kb_h2_metadata_unpack(&session->metadata, stream->metadata, hd->flags, session->slices,
                                 session->stats, stream->callbacks->on_metadata, stream->owner);
}

static ssize_t pack_extension(nghttp2_session *nghttp2, uint8_t *to, size_t len,
                              const nghttp2_frame *frame, void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    bool open = stream_of(session, frame->hd.stream_id) != NULL;

    (void)nghttp2;
    return kb_h2_metadata_pack(&session->metadata, to, len, frame, open);
}

static int on_frame_recv(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    struct kb_h2_stream *stream;
    bool repeated;
    bool end_stream = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

    (void)nghttp2;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        stream = stream_of(session, frame->hd.stream_id);
        return stream != NULL ? headers_received(session, stream, end_stream) : 0;
    case NGHTTP2_DATA:
        if (KB_UNLIKELY((frame->hd.flags & NGHTTP2_FLAG_PADDED) != 0)) {
            enum kb_h2_guard_fault fault =
                kb_h2_guard_padded(&session->guard, frame->hd.flags,
                                   (uint32_t)(frame->hd.length - frame->data.padlen));

            if (fault != KB_H2_GUARD_OK) {
                guard_count(session, fault);
                session->error = KB_ELIMIT;
                return NGHTTP2_ERR_CALLBACK_FAILURE;
            }
        }
        stream = stream_of(session, frame->hd.stream_id);
        if (stream != NULL) {
            data_received(stream, end_stream);
        }
        return 0;
    case NGHTTP2_RST_STREAM:
        if (stream_of(session, frame->hd.stream_id) != NULL) {
            kb_stat_inc(session->stats, KB_STAT_HTTP2_RX_RESET);
        }
        return 0;
    case NGHTTP2_GOAWAY:
        repeated = session->goaway_received;
        session->goaway_received = true;
        if (session->callbacks->on_goaway != NULL && !repeated) {
            session->callbacks->on_goaway(session->owner, frame->goaway.error_code);
        }
        return 0;
    case NGHTTP2_SETTINGS:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
            settings_received(session);
        }
        return 0;
    case NGHTTP2_PING:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0 && session->callbacks->on_ping_ack != NULL) {
            session->callbacks->on_ping_ack(session->owner);
        }
        return 0;
    default:
        return 0;
    }
}

static int on_data_chunk(nghttp2_session *nghttp2, uint8_t flags, int32_t id, const uint8_t *bytes,
                         size_t len, void *user_data)
{
    struct kb_h2_stream *stream = stream_of(session_of(user_data), id);

    (void)flags;
    if (stream == NULL || stream->released || stream->ended) {
        /* Nobody reads it, but others need the connection's window. */
        return nghttp2_session_consume(nghttp2, id, len) == NGHTTP2_ERR_NOMEM
                   ? NGHTTP2_ERR_CALLBACK_FAILURE
                   : 0;
    }
    stream->unconsumed += len;
    if (len > 0) {
        stream->callbacks->on_data(stream->owner, (const char *)bytes, len);
    }
    return 0;
}

/* Envoy takes a reset for the peer's own, also where it was nghttp2 that found fault with the
 * stream.
 */
static enum kb_reset_reason reason_of(uint32_t error_code)
{
    switch (error_code) {
    case NGHTTP2_PROTOCOL_ERROR:
        return KB_RESET_PROTOCOL_ERROR;
    case NGHTTP2_REFUSED_STREAM:
        return KB_RESET_REMOTE_REFUSED_STREAM_RESET;
    case NGHTTP2_CONNECT_ERROR:
        return KB_RESET_CONNECT_ERROR;
    default:
        return KB_RESET_REMOTE_RESET;
    }
}

static int on_stream_close(nghttp2_session *nghttp2, int32_t id, uint32_t error_code,
                           void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    struct kb_h2_stream *stream = stream_of(session, id);

    if (stream == NULL) {
        return 0;
    }
    if (stream->unconsumed > 0 &&
        nghttp2_session_consume_connection(nghttp2, stream->unconsumed) == NGHTTP2_ERR_NOMEM) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    /* nghttp2 does not name it again. */
    kb_h2_stream_gone(stream, reason_of(error_code));
    if (session->callbacks->on_stream_gone != NULL) {
        session->callbacks->on_stream_gone(session->owner);
    }
    return 0;
}

/* What breaks the protocol closes the connection, as in Envoy; where the options say so, a faulty
 * message costs its stream alone. */
static int on_invalid_frame(nghttp2_session *nghttp2, const nghttp2_frame *frame, int code,
                            void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);

    (void)nghttp2;
    if (code == NGHTTP2_ERR_REFUSED_STREAM) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_STREAM_REFUSED_ERRORS);
        return 0;
    }
    if (code == NGHTTP2_ERR_HTTP_HEADER || code == NGHTTP2_ERR_HTTP_MESSAGING) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_RX_MESSAGING_ERROR);
        if (session->settings.override_stream_error) {
            return 0;
        }
    }
    KB_LOG(HTTP2, DEBUG, "invalid frame: %s on stream %d", nghttp2_strerror(code),
           frame->hd.stream_id);
    session->error = KB_EPROTOCOL;
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* ---- sending ---- */

static void meter_sent(struct kb_h2_session *session, const nghttp2_frame_hd *hd)
{
    struct kb_h2_stream *stream = hd->stream_id > 0 ? stream_of(session, hd->stream_id) : NULL;

    if (hd->type == NGHTTP2_DATA) {
        session->guard.data_frames_sent++;
    }
    if (stream == NULL) {
        return;
    }
    stream->meter.wire_sent += hd->length + KB_H2_FRAME_HEAD_BYTES;
    if (hd->type == NGHTTP2_HEADERS) {
        stream->meter.headers_sent += hd->length + KB_H2_FRAME_HEAD_BYTES;
        if (KB_UNLIKELY(stream->metadata != NULL)) { /* which waited for them */
            kb_h2_metadata_due(&session->metadata, stream->metadata, session->nghttp2, stream->id,
                               0);
        }
    }
}

static int on_frame_send(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);

    (void)nghttp2;
    switch (frame->hd.type) {
    case NGHTTP2_GOAWAY:
        if (frame->goaway.error_code != NGHTTP2_NO_ERROR) {
            session->error = KB_EPROTOCOL;
        }
        if (frame->goaway.error_code == NGHTTP2_NO_ERROR || !session->settings.requests) {
            kb_stat_inc(session->stats, KB_STAT_HTTP2_GOAWAY_SENT);
        }
        break;
    case NGHTTP2_RST_STREAM:
        kb_stat_inc(session->stats, KB_STAT_HTTP2_TX_RESET);
        break;
    case NGHTTP2_DATA:
    case NGHTTP2_HEADERS:
    case KB_H2_METADATA:
        meter_sent(session, &frame->hd);
        break;
    default:
        break;
    }
    return 0;
}

/* The last of the body goes now: END_STREAM stands on it, or on the trailers behind it. */
static int body_ends(nghttp2_session *nghttp2, struct kb_h2_stream *stream, uint32_t *flags)
{
    int rc = 0;

    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (stream->trailers != NULL) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        rc = nghttp2_submit_trailer(nghttp2, stream->id, stream->trailers, stream->trailer_count);
        kb_h2_mem_free(stream->trailers, stream->mem);
        stream->trailers = NULL;
    }
    return rc;
}

ssize_t kb_h2_client_data_wanted(nghttp2_session *nghttp2, int32_t id, uint8_t *to, size_t len,
                                 uint32_t *flags, nghttp2_data_source *source, void *user_data)
{
    struct kb_h2_stream *stream = KB_CAST(source->ptr, kb_h2_stream);
    size_t n = KB_MIN(stream->out.len, len);
    size_t before; /* METADATA */

    (void)id;
    (void)to;
    (void)user_data;
    if (n == 0 && !stream->out_end) {
        stream->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (KB_UNLIKELY(stream->metadata != NULL) && kb_h2_metadata_next(stream->metadata, &before)) {
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        return (ssize_t)KB_MIN(n, before);
    }
    if (n == stream->out.len && stream->out_end && body_ends(nghttp2, stream, flags) != 0) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (n > 0) {
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    }
    return (ssize_t)n;
}

/* Body bytes go from the stream to the connection by reference. */
static int on_send_data(nghttp2_session *nghttp2, nghttp2_frame *frame, const uint8_t *frame_head,
                        size_t len, nghttp2_data_source *source, void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    struct kb_h2_stream *stream = KB_CAST(source->ptr, kb_h2_stream);

    (void)frame;
    if (session->sending->len >= session->send_limit) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    kb_buf_append(session->sending, frame_head, KB_H2_FRAME_HEAD_BYTES);
    kb_buf_move_first(session->sending, &stream->out, len);
    session->recent = stream; /* nghttp2 tells next that the frame was sent */
    kb_h2_stream_out_drop(stream, len);
    if (KB_UNLIKELY(stream->metadata != NULL)) {
        kb_h2_metadata_due(&session->metadata, stream->metadata, nghttp2, stream->id, len);
    }
    if (stream->above_high && kb_buf_below_low(&stream->out)) {
        stream->above_high = false;
        if (!kb_list_linked(&stream->writable_link)) {
            kb_list_push_back(&session->writable, &stream->writable_link);
        }
    }
    return 0;
}

void kb_h2_client_callbacks_set(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_extension_chunk_recv_callback(callbacks, on_extension_chunk);
    nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, unpack_extension);
    nghttp2_session_callbacks_set_pack_extension_callback(callbacks, pack_extension);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
}
