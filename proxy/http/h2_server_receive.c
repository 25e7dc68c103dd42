/* SPDX-License-Identifier: Apache-2.0 */
/* What a HTTP/2 server session hears of nghttp2 while it receives: requests for their owners, and
 * faults, which in a message close the connection as in Envoy. */
#include <string.h>

#include "base/log.h"
#include "proxy/http/h2_fields.h"
#include "proxy/http/h2_server_internal.h"

#define FRAME_HEADER_BYTES 9
#define HEADERS_HELD_MAX   (4u * 1024 * 1024) /* of the streams that are open */
#define HEADER_ARENA_SPARE (64u * 1024)       /* what a stream has in its arena besides */

static struct kb_h2_server_session *session_of(void *user_data)
{
    return KB_CAST(user_data, kb_h2_server_session);
}

/* ---- frames ---- */

static void flood_count(struct kb_h2_server_session *session, enum kb_h2_guard_fault fault,
                        int32_t id)
{
    struct kb_h2_server_stream *stream = kb_h2_server_stream_of(session, id);
    struct kb_str text = KB_STR("codec_error:The_user_callback_function_failed");
    struct kb_str details = KB_STR_NULL;

    switch (fault) {
    case KB_H2_GUARD_EMPTY_FRAMES:
        kb_stat_inc(session->stats, KB_STAT_HTTP2_INBOUND_EMPTY_FRAMES_FLOOD);
        text = KB_STR("codec_error:Too_many_consecutive_frames_with_an_empty_payload");
        details = KB_STR("http2.inbound_empty_frames_flood");
        break;
    case KB_H2_GUARD_PRIORITY:
        kb_stat_inc(session->stats, KB_STAT_HTTP2_INBOUND_PRIORITY_FRAMES_FLOOD);
        text = KB_STR("codec_error:Too_many_PRIORITY_frames");
        break;
    case KB_H2_GUARD_WINDOW_UPDATES:
        kb_stat_inc(session->stats, KB_STAT_HTTP2_INBOUND_WINDOW_UPDATE_FRAMES_FLOOD);
        text = KB_STR("codec_error:Too_many_WINDOW_UPDATE_frames");
        break;
    case KB_H2_GUARD_EXPANSION:
        kb_stat_inc(session->stats, KB_STAT_HTTP2_HEADER_OVERFLOW);
        text = KB_STR("codec_error:Headers_that_repeat_entries_of_the_compression_table");
        details = KB_STR("http2.header_block_expanded");
        break;
    case KB_H2_GUARD_CONTROL:
    case KB_H2_GUARD_CONTINUATIONS:
    case KB_H2_GUARD_OK:
        break;
    }
    if (stream != NULL && stream->details.p == NULL) {
        stream->details = details;
    }
    kb_h2_server_fault_set(session, KB_ELIMIT, text, true);
}

bool kb_h2_server_frame_on_closed(struct kb_h2_server_session *session, const nghttp2_frame_hd *hd)
{
    if ((hd->type != NGHTTP2_DATA && hd->type != NGHTTP2_HEADERS) ||
        hd->stream_id > nghttp2_session_get_last_proc_stream_id(session->nghttp2) ||
        kb_h2_server_stream_of(session, hd->stream_id) != NULL) {
        return false;
    }
    if (session->reset_count > KB_H2_RESETS_KEPT) {
        return false;
    }
    for (uint32_t i = 0; i < session->reset_count; i++) {
        if (session->resets[i] == hd->stream_id) {
            return false;
        }
    }
    return true;
}

static int on_begin_frame(nghttp2_session *nghttp2, const nghttp2_frame_hd *hd, void *user_data)
{
    struct kb_h2_server_session *session = session_of(user_data);
    enum kb_h2_guard_fault fault;

    (void)nghttp2;
    if (KB_UNLIKELY(session->stopped)) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    fault = kb_h2_guard_frame(&session->guard, hd->type, hd->flags, (uint32_t)hd->length,
                              session->now_ms);
    if (KB_UNLIKELY(fault != KB_H2_GUARD_OK)) {
        flood_count(session, fault, hd->stream_id);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (KB_UNLIKELY(kb_h2_server_frame_on_closed(session, hd))) {
        kb_h2_server_fault_set(session, KB_EPROTOCOL,
                               KB_STR("codec_error:The_user_callback_function_failed"), true);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return 0;
}

/* ---- headers ---- */

static void stream_begin(struct kb_h2_server_session *session, const nghttp2_frame *frame)
{
    struct kb_h2_server_stream *stream = kb_h2_server_stream_create(session, frame->hd.stream_id);
    struct kb_h2_server_request request = {NULL, NULL, NULL};

    (void)nghttp2_session_set_stream_user_data(session->nghttp2, frame->hd.stream_id, stream);
    session->recent = stream;
    session->callbacks->on_stream(session->owner, stream, &request);
    stream->owner = request.owner;
    stream->info = request.info;
    stream->headers = request.headers;
}

static int on_begin_headers(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user_data)
{
    struct kb_h2_server_session *session = session_of(user_data);
    struct kb_h2_server_stream *stream;

    (void)nghttp2;
    if (session->stopped) {
        return 0;
    }
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        stream_begin(session, frame);
        return 0;
    }
    stream = kb_h2_server_stream_of(session, frame->hd.stream_id);
    if (stream != NULL && stream->owner != NULL) {
        struct kb_arena *arena = stream->headers->arena;

        kb_stat_inc(session->stats, KB_STAT_HTTP2_TRAILERS);
        stream->headers = KB_ARENA_NEW(arena, struct kb_header_map);
        kb_header_map_init_trailers(stream->headers, arena, false);
        stream->header_bytes = 0;
        stream->header_count = 0;
        stream->block_fields = 0;
    }
    return 0;
}

/* The first fault of a stream is the one that is told. */
static void details_set(struct kb_h2_server_stream *stream, struct kb_str details)
{
    if (stream->details.p == NULL) {
        stream->details = details;
    }
}

/* Names of users have no place there (RFC 9113 section 8.3.1), and nghttp2 lets them through: the
 * request is refused with its last field, and no other fault counts any more. */
static void userinfo_note(struct kb_h2_server_stream *stream, struct kb_str authority)
{
    if (KB_UNLIKELY(memchr(authority.p, '@', authority.len) != NULL)) {
        stream->userinfo = true;
        details_set(stream, KB_STR("http2.invalid.header.field"));
    }
}

/* Upstreams that speak HTTP/2 get them in the same order. */
static void pseudo_set(struct kb_h2_server_stream *stream, struct kb_str name, struct kb_str value)
{
    struct kb_header_map *map = stream->headers;

    for (size_t i = 0; i < sizeof(map->pseudo_order) && name.len > 2; i++) {
        if (map->pseudo_order[i] == 0) {
            /* "pa" and "pr" begin alike. */
            map->pseudo_order[i] = name.p[2] == 'r' ? 'r' : name.p[1];
            break;
        }
    }
    /* nghttp2 takes no others in requests, and none in trailers. */
    switch (name.len) {
    case sizeof(":path") - 1:
        map->path = value;
        break;
    case sizeof(":method") - 1: /* as long as ":scheme" */
        *(name.p[1] == 'm' ? &map->method : &map->scheme) = value;
        break;
    case sizeof(":protocol") - 1:
        map->protocol = value;
        break;
    case sizeof(":authority") - 1:
        map->authority = value;
        userinfo_note(stream, value);
        break;
    default:
        break;
    }
}

/* One growing line of all crumbs (RFC 9113 section 8.2.3), so that many cost no more than few. */
static void cookie_add(struct kb_h2_server_stream *stream, const uint8_t *value, size_t len)
{
    size_t used = stream->cookie_len == 0 ? 0 : stream->cookie_len + 2;

    if (used + len > stream->cookie_room || stream->cookie == NULL) {
        size_t room = (used + len) * 2;
        char *larger = kb_arena_alloc(stream->headers->arena, room, 1);

        if (used > 0) {
            memcpy(larger, stream->cookie, stream->cookie_len);
        }
        stream->cookie = larger;
        stream->cookie_room = (uint32_t)room;
    }
    if (used > 0) {
        memcpy(stream->cookie + used - 2, "; ", 2);
    }
    memcpy(stream->cookie + used, value, len);
    stream->cookie_len = (uint32_t)(used + len);
}

/* What headers_with_underscores_action says of the name; true: the field is dealt with, as *rc
 * says. A field that is dropped leaves its detail too, for the stream's end by a reset. */
static bool underscore_refused(struct kb_h2_server_stream *stream, const uint8_t *name, size_t len,
                               int *rc)
{
    struct kb_h2_server_session *session = stream->session;

    if (KB_LIKELY(session->settings->underscores == KB_H2_UNDERSCORES_ALLOW) ||
        memchr(name, '_', len) == NULL) {
        return false;
    }
    if (stream->userinfo) {
        *rc = 0;
        return true;
    }
    details_set(stream, KB_STR("http2.unexpected_underscore"));
    if (session->settings->underscores == KB_H2_UNDERSCORES_DROP) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_DROPPED_HEADERS_WITH_UNDERSCORES);
        *rc = 0;
        return true;
    }
    kb_stat_inc(session->stats, KB_STAT_HTTP2_REQUESTS_REJECTED_WITH_UNDERSCORES_IN_HEADERS);
    *rc = NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    return true;
}

static void field_add(struct kb_h2_server_stream *stream, const uint8_t *name, size_t name_len,
                      const uint8_t *value, size_t value_len)
{
    struct kb_header_map *map = stream->headers;
    struct kb_str key = kb_str_make((const char *)name, name_len);

    if (name_len > 0 && name[0] == ':') {
        pseudo_set(stream, key, kb_h2_copy(map->arena, value, value_len));
    } else if (!stream->headers_done && kb_str_eq(key, KB_STR("cookie"))) {
        cookie_add(stream, value, value_len);
    } else if (!stream->headers_done && kb_str_eq(key, KB_STR("host"))) {
        userinfo_note(stream, kb_str_make((const char *)value, value_len));
        if (map->authority.p == NULL) {
            map->authority = kb_h2_copy(map->arena, value, value_len);
        }
    } else if (kb_h2_field_append(map, name, name_len, value, value_len)) {
        stream->header_count--; /* the limit is one of headers, not of lines */
    }
}

/* Repeated short references to long fields of the table make much of little: what the headers of
 * one stream, and of all that are open, hold is limited too. */
static bool header_memory_exceeded(const struct kb_h2_server_stream *stream)
{
    const struct kb_h2_server_session *session = stream->session;

    return stream->headers->arena->bytes >
               (size_t)session->settings->max_header_bytes * 3 + HEADER_ARENA_SPARE ||
           session->header_bytes > HEADERS_HELD_MAX;
}

static int on_header(nghttp2_session *nghttp2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user_data)
{
    struct kb_h2_server_session *session = session_of(user_data);
    struct kb_h2_server_stream *stream = kb_h2_server_stream_of(session, frame->hd.stream_id);
    int rc;

    (void)nghttp2;
    (void)flags;
    if (stream == NULL || stream->owner == NULL || session->stopped) {
        return 0;
    }
    stream->block_fields += (uint32_t)(name_len + value_len);
    if (KB_UNLIKELY(kb_h2_guard_expanded(stream->block_fields, frame->hd.length,
                                         session->settings->options.hpack_table_bytes))) {
        flood_count(session, KB_H2_GUARD_EXPANSION, frame->hd.stream_id);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (underscore_refused(stream, name, name_len, &rc)) {
        return rc;
    }
    stream->header_bytes += (uint32_t)(name_len + value_len);
    stream->header_count++;
    session->header_bytes += name_len + value_len;
    stream->header_bytes_held += (uint32_t)(name_len + value_len);
    if (KB_UNLIKELY(stream->header_bytes > session->settings->max_header_bytes ||
                    header_memory_exceeded(stream))) {
        details_set(stream, KB_STR("http2.header_list_size_too_large"));
        kb_stat_inc(session->stats, KB_STAT_HTTP2_HEADER_LIST_SIZE_TOO_LARGE);
    } else {
        field_add(stream, name, name_len, value, value_len);
        if (KB_LIKELY(stream->header_count <= session->settings->max_header_count)) {
            return 0;
        }
        details_set(stream, KB_STR("http2.too_many_headers"));
        kb_stat_inc(session->stats, KB_STAT_HTTP2_HEADER_OVERFLOW);
    }
    return stream->userinfo ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_invalid_header(nghttp2_session *nghttp2, const nghttp2_frame *frame,
                             const uint8_t *name, size_t name_len, const uint8_t *value,
                             size_t value_len, uint8_t flags, void *user_data)
{
    (void)nghttp2;
    (void)frame;
    (void)name;
    (void)name_len;
    (void)value;
    (void)value_len;
    (void)flags;
    (void)user_data;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* not skipped: a fault of the message */
}

static void headers_received(struct kb_h2_server_stream *stream, bool end_stream)
{
    const struct kb_h2_server_callbacks *callbacks = stream->session->callbacks;

    stream->remote_ended |= end_stream;
    if (stream->owner == NULL) {
        return;
    }
    if (stream->headers_done) {
        callbacks->on_trailers(stream->owner, stream->headers);
        return;
    }
    stream->headers_done = true;
    if (KB_UNLIKELY(stream->cookie_len > 0)) { /* alone, an empty one is none, as in Envoy */
        kb_header_map_add_id(stream->headers, KB_HDR_COOKIE,
                             kb_str_make(stream->cookie, stream->cookie_len));
    }
    callbacks->on_headers(stream->owner, end_stream);
}

/* ---- body ---- */

static int on_data_chunk(nghttp2_session *nghttp2, uint8_t flags, int32_t id, const uint8_t *bytes,
                         size_t len, void *user_data)
{
    struct kb_h2_server_session *session = session_of(user_data);
    struct kb_h2_server_stream *stream = kb_h2_server_stream_of(session, id);

    (void)flags;
    if (stream == NULL || stream->owner == NULL || session->stopped) {
        /* Nobody reads it, but others need the connection's window. */
        (void)nghttp2_session_consume(nghttp2, id, len);
        return 0;
    }
    kb_buf_append_slice(&stream->in, session->input,
                        (size_t)((const char *)bytes - session->input->bytes), len);
    return 0;
}

static void data_received(struct kb_h2_server_stream *stream, bool end_stream)
{
    struct kb_h2_server_session *session = stream->session;
    size_t len = stream->in.len;
    int32_t id = stream->id;

    stream->remote_ended |= end_stream;
    if (stream->owner == NULL) {
        kb_buf_dispose(&stream->in);
        (void)nghttp2_session_consume(session->nghttp2, id, len);
        return;
    }
    stream->unconsumed += len;
    if (len > 0 || end_stream) {
        session->callbacks->on_data(stream->owner, &stream->in, end_stream);
    }
    kb_buf_dispose(&stream->in);
    if (stream->read_disables == 0) {
        (void)nghttp2_session_consume(session->nghttp2, id, stream->unconsumed);
        stream->unconsumed = 0;
    }
}

/* ---- METADATA ---- */

/* The stream whose owner wants it; NULL: nobody does, as of frames that come before HEADERS or
 * behind the end. */
static struct kb_h2_server_stream *metadata_stream(struct kb_h2_server_session *session, int32_t id)
{
    struct kb_h2_server_stream *stream = kb_h2_server_stream_of(session, id);

    if (stream == NULL || stream->owner == NULL || stream->remote_ended || session->stopped) {
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
    struct kb_h2_server_session *session = session_of(user_data);
    struct kb_h2_server_stream *stream = metadata_stream(session, hd->stream_id);

    (void)nghttp2;
    if (stream == NULL) {
        if (kb_h2_guard_ignored(&session->guard, session->now_ms) != KB_H2_GUARD_OK) {
            flood_count(session, KB_H2_GUARD_CONTROL, hd->stream_id);
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
        return NGHTTP2_ERR_CANCEL;
    }
    return kb_h2_metadata_receive(&session->metadata, stream->metadata, bytes, len);
}

static int unpack_extension(nghttp2_session *nghttp2, void **payload, const nghttp2_frame_hd *hd,
                            void *user_data)
{
    struct kb_h2_server_session *session = session_of(user_data);
    struct kb_h2_server_stream *stream = metadata_stream(session, hd->stream_id);

    (void)nghttp2;
    *payload = NULL;
    if (stream == NULL) {
        return NGHTTP2_ERR_CANCEL;
    }
    return kb_h2_metadata_unpack(&session->metadata, stream->metadata, hd->flags, session->slices,
                                 session->stats, session->callbacks->on_metadata, stream->owner);
}

/* nghttp2 counts CONTINUATIONs into the length of their HEADERS, without their frame headers. */
static void bytes_count(struct kb_stream_info *info, const nghttp2_frame_hd *hd)
{
    info->wire_bytes_received += hd->length + FRAME_HEADER_BYTES;
    if (hd->type == NGHTTP2_HEADERS) {
        info->header_bytes_received += hd->length + FRAME_HEADER_BYTES;
    }
}

/* Answered by us: nghttp2 answers none behind a GOAWAY of the client (see kb_h2_late_pings). */
static int ping_received(struct kb_h2_server_session *session, const nghttp2_frame *frame)
{
    if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
        session->callbacks->on_ping_ack(session->owner);
        return 0;
    }
    if (session->goaway_heard) {
        return 0;
    }
    return nghttp2_submit_ping(session->nghttp2, NGHTTP2_FLAG_ACK, frame->ping.opaque_data);
}

static int on_invalid_frame(nghttp2_session *nghttp2, const nghttp2_frame *frame, int code,
                            void *user_data);

static int userinfo_refuse(struct kb_h2_server_session *session, const nghttp2_frame *frame)
{
    int rc = on_invalid_frame(session->nghttp2, frame, NGHTTP2_ERR_HTTP_HEADER, session);

    return rc != 0 ? rc
                   : nghttp2_submit_rst_stream(session->nghttp2, NGHTTP2_FLAG_NONE,
                                               frame->hd.stream_id, NGHTTP2_PROTOCOL_ERROR);
}

/* A frame of nothing but padding is an empty one. */
static bool padding_fine(struct kb_h2_server_session *session, const nghttp2_frame *frame)
{
    enum kb_h2_guard_fault fault = kb_h2_guard_padded(
        &session->guard, frame->hd.flags, (uint32_t)(frame->hd.length - frame->data.padlen));

    if (fault == KB_H2_GUARD_OK) {
        return true;
    }
    flood_count(session, fault, frame->hd.stream_id);
    return false;
}

static int on_frame_recv(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user_data)
{
    struct kb_h2_server_session *session = session_of(user_data);
    struct kb_h2_server_stream *stream = kb_h2_server_stream_of(session, frame->hd.stream_id);
    bool end_stream = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

    (void)nghttp2;
    if (session->stopped) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (stream != NULL && stream->owner != NULL) {
        bytes_count(stream->info, &frame->hd);
    }
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        if (stream != NULL && KB_UNLIKELY(stream->userinfo)) {
            return userinfo_refuse(session, frame);
        }
        if (stream != NULL) {
            headers_received(stream, end_stream);
        }
        break;
    case NGHTTP2_DATA:
        if (KB_UNLIKELY((frame->hd.flags & NGHTTP2_FLAG_PADDED) != 0) &&
            !padding_fine(session, frame)) {
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
        if (stream != NULL) {
            data_received(stream, end_stream);
        }
        break;
    case NGHTTP2_RST_STREAM:
        if (stream != NULL) {
            kb_stat_inc(session->stats, KB_STAT_HTTP2_RX_RESET);
        }
        break;
    case NGHTTP2_PING:
        return ping_received(session, frame);
    case NGHTTP2_GOAWAY:
        session->goaway_heard = true;
        break;
    default:
        break;
    }
    return 0;
}

/* ---- ends ---- */

static enum kb_reset_reason reset_reason(struct kb_h2_server_stream *stream, uint32_t error_code)
{
    if (stream->faulty) {
        return KB_RESET_LOCAL_RESET;
    }
    switch (error_code) {
    case NGHTTP2_REFUSED_STREAM:
        return KB_RESET_REMOTE_REFUSED_STREAM_RESET;
    case NGHTTP2_CONNECT_ERROR:
        return KB_RESET_CONNECT_ERROR;
    case NGHTTP2_PROTOCOL_ERROR:
        return KB_RESET_PROTOCOL_ERROR;
    default:
        return KB_RESET_REMOTE_RESET;
    }
}

/* The owner's last word of a stream that was reset, or will be. */
static void owner_tell(struct kb_h2_server_session *session, void *owner,
                       enum kb_reset_reason reason, struct kb_str details)
{
    if (owner != NULL && !session->stopped) {
        session->callbacks->on_reset(owner, reason, details);
    }
}

/* nghttp2 will reset the stream: its owner hears now what it would hear when that is sent. Whoever
 * has streams reset thus would else have all of a read at work at the same time. */
static void stream_refused(struct kb_h2_server_session *session, struct kb_h2_server_stream *stream,
                           uint32_t error_code)
{
    void *owner = stream->owner;

    kb_h2_server_stream_unfinished_clear(stream);
    stream->owner = NULL;
    stream->headers = NULL;
    stream->trailers = NULL;
    owner_tell(session, owner, reset_reason(stream, error_code), stream->details);
}

static int on_stream_close(nghttp2_session *nghttp2, int32_t id, uint32_t error_code,
                           void *user_data)
{
    struct kb_h2_server_session *session = session_of(user_data);
    struct kb_h2_server_stream *stream = kb_h2_server_stream_of(session, id);
    enum kb_reset_reason reason;
    struct kb_str details;
    void *owner;

    if (stream == NULL) {
        return 0;
    }
    if (stream->unconsumed + stream->in.len > 0) {
        (void)nghttp2_session_consume_connection(nghttp2, stream->unconsumed + stream->in.len);
    }
    owner = stream->owner;
    reason = reset_reason(stream, error_code);
    details = stream->details;
    if (details.p == NULL && (error_code != NGHTTP2_NO_ERROR || !stream->remote_ended)) {
        details = error_code == NGHTTP2_REFUSED_STREAM ? KB_STR("http2.remote_refuse")
                                                       : KB_STR("http2.remote_reset");
    }
    kb_h2_server_stream_unfinished_clear(stream);
    kb_h2_server_stream_destroy(stream);
    owner_tell(session, owner, reason, details);
    return 0;
}

static int on_invalid_frame(nghttp2_session *nghttp2, const nghttp2_frame *frame, int code,
                            void *user_data)
{
    struct kb_h2_server_session *session = session_of(user_data);
    struct kb_h2_server_stream *stream = kb_h2_server_stream_of(session, frame->hd.stream_id);
    bool message = code == NGHTTP2_ERR_HTTP_HEADER || code == NGHTTP2_ERR_HTTP_MESSAGING;

    (void)nghttp2;
    if (code == NGHTTP2_ERR_REFUSED_STREAM) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_STREAM_REFUSED_ERRORS);
        kb_h2_server_reset_note(session, frame->hd.stream_id);
        return 0;
    }
    if (stream != NULL && stream->details.p == NULL) {
        stream->details =
            code == NGHTTP2_ERR_HTTP_HEADER
                ? KB_STR("http2.invalid.header.field")
                : (code == NGHTTP2_ERR_HTTP_MESSAGING ? KB_STR("http2.violation.of.messaging.rule")
                                                      : KB_STR("http2.unknown.nghttp2.error"));
    }
    if (message) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_RX_MESSAGING_ERROR);
        if (session->settings->options.stream_error_on_invalid_message) {
            if (stream != NULL) {
                stream->faulty = true;
            }
            return 0;
        }
    }
    if (code == NGHTTP2_ERR_FLOW_CONTROL) {
        if (stream != NULL && stream->owner != NULL) {
            stream_refused(session, stream, NGHTTP2_FLOW_CONTROL_ERROR);
        }
        return 0; /* nghttp2 says so, by GOAWAY or RST_STREAM (RFC 9113 section 6.9.1) */
    }
    KB_LOG(HTTP2, DEBUG, "invalid frame: %s on stream %d", nghttp2_strerror(code),
           frame->hd.stream_id);
    kb_h2_server_fault_set(session, KB_EPROTOCOL,
                           KB_STR("codec_error:The_user_callback_function_failed"), true);
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

void kb_h2_server_receive_callbacks_set(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_extension_chunk_recv_callback(callbacks, on_extension_chunk);
    nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, unpack_extension);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
}
