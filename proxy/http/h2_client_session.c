/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/2 client sessions over nghttp2. nghttp2 frames, compresses and keeps the states of RFC 9113;
 * what a peer may cost is decided here: header sizes, windows that open only as data is consumed,
 * and the frame budgets of h2_guard.c. Output is pulled, never pushed, so it cannot pile up. */
#include "proxy/http/h2_client_session.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "proxy/http/h2_fields.h"

#define STREAM_WINDOW_DEFAULT     (16u * 1024 * 1024)
#define CONNECTION_WINDOW_DEFAULT (24u * 1024 * 1024)
#define INFORMATIONAL_MAX         32 /* 1xx heads of one response */

struct kb_h2_session {
    KB_OBJ;
    nghttp2_session *nghttp2;
    struct kb_h2_settings settings;
    const struct kb_h2_session_callbacks *callbacks;
    void *owner;
    struct kb_slice_source *slices;
    struct kb_stat_block *stats;
    struct kb_h2_guard guard;
    struct kb_list streams;
    struct kb_list writable; /* streams that shall hear on_below_low */
    uint32_t stream_count;
    uint64_t now_ms; /* of the bytes being received */
    int error;
    bool goaway_received;
    bool busy; /* nghttp2 is at work: it may not be destroyed */
};
KB_OBJ_MAGIC(kb_h2_session, 0x48325345);

/* Lives until nghttp2 has closed it and its owner has let it go. */
struct kb_h2_stream {
    KB_OBJ;
    struct kb_list link;
    struct kb_list writable_link;
    struct kb_h2_session *session; /* NULL: gone */
    const struct kb_h2_stream_callbacks *callbacks;
    void *owner; /* of no meaning when released */
    int32_t id;
    struct kb_arena arena; /* of the head being read */
    struct kb_header_map headers;
    size_t header_bytes;
    uint32_t header_count;
    uint32_t informational;
    struct kb_buf out;
    size_t unconsumed;
    bool out_end;
    bool deferred;     /* nghttp2 waits for kb_h2_stream_send */
    bool headers_done; /* the final head came */
    bool ended;        /* on_end was called */
    bool reset_sent;
    bool reset_received;
    bool above_high;
    bool released;
};
KB_OBJ_MAGIC(kb_h2_stream, 0x48325354);

static struct kb_h2_session *session_of(void *user_data)
{
    return KB_CAST(user_data, kb_h2_session);
}

static struct kb_h2_stream *stream_of(nghttp2_session *nghttp2, int32_t id)
{
    void *stream = nghttp2_session_get_stream_user_data(nghttp2, id);

    return stream != NULL ? KB_CAST(stream, kb_h2_stream) : NULL;
}

static void stream_free(struct kb_h2_stream *stream)
{
    kb_arena_dispose(&stream->arena);
    kb_buf_dispose(&stream->out);
    KB_OBJ_CLEAR(stream);
    free(stream);
}

static void out_drop(struct kb_h2_stream *stream, size_t len)
{
    kb_stat_gauge_add(stream->session->stats, KB_STAT_HTTP2_PENDING_SEND_BYTES, -(int64_t)len);
}

/* The stream leaves its session; its owner is told unless it knows already. */
static void stream_gone(struct kb_h2_stream *stream, enum kb_reset_reason reason)
{
    struct kb_h2_session *session = stream->session;

    kb_list_unlink(&stream->link);
    kb_list_unlink(&stream->writable_link);
    out_drop(stream, stream->out.len);
    kb_buf_dispose(&stream->out);
    stream->session = NULL;
    session->stream_count--;
    kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_STREAMS_ACTIVE, -1);
    if (stream->released) {
        stream_free(stream);
    } else if (!stream->ended) {
        stream->ended = true;
        stream->callbacks->on_reset(stream->owner, reason);
    }
}

/* ---- what nghttp2 tells ---- */

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
    case KB_H2_GUARD_OK:
    default:
        break;
    }
}

static int on_begin_frame(nghttp2_session *nghttp2, const nghttp2_frame_hd *hd, void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    enum kb_h2_guard_fault fault = kb_h2_guard_frame(&session->guard, hd->type, hd->flags,
                                                     (uint32_t)hd->length, session->now_ms);

    (void)nghttp2;
    if (KB_LIKELY(fault == KB_H2_GUARD_OK)) {
        return 0;
    }
    guard_count(session, fault);
    session->error = KB_ELIMIT;
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_begin_headers(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user_data)
{
    struct kb_h2_stream *stream = stream_of(nghttp2, frame->hd.stream_id);

    (void)user_data;
    if (stream != NULL) {
        kb_arena_dispose(&stream->arena);
        kb_header_map_init(&stream->headers, &stream->arena);
        stream->header_bytes = 0;
        stream->header_count = 0;
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
    struct kb_h2_stream *stream = stream_of(nghttp2, frame->hd.stream_id);

    (void)flags;
    if (stream == NULL || stream->released) {
        return 0;
    }
    stream->header_bytes += name_len + value_len;
    stream->header_count++;
    if (stream->header_bytes > session->settings.max_header_bytes ||
        stream->header_count > session->settings.max_header_count) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_HEADER_OVERFLOW);
        stream->reset_sent = true;
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (name_len > 0 && name[0] == ':') {
        stream->headers.status = status_read(value, value_len);
        return 0;
    }
    kb_h2_field_append(&stream->headers, name, name_len, value, value_len);
    return 0;
}

static void stream_end(struct kb_h2_stream *stream, const struct kb_header_map *trailers)
{
    if (stream->released || stream->ended) {
        return;
    }
    stream->ended = true;
    stream->callbacks->on_end(stream->owner, trailers);
}

static int headers_received(struct kb_h2_session *session, struct kb_h2_stream *stream,
                            bool end_stream)
{
    if (stream->released) {
        return 0;
    }
    if (stream->headers_done) {
        stream_end(stream, &stream->headers);
        return 0;
    }
    if (stream->headers.status < 200) {
        if (++stream->informational > INFORMATIONAL_MAX) {
            session->error = KB_ELIMIT;
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
        return 0;
    }
    stream->headers_done = true;
    stream->callbacks->on_headers(stream->owner, &stream->headers, end_stream);
    if (end_stream) {
        stream_end(stream, NULL);
    }
    return 0;
}

static int on_frame_recv(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    struct kb_h2_stream *stream;
    bool end_stream = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        stream = stream_of(nghttp2, frame->hd.stream_id);
        return stream != NULL ? headers_received(session, stream, end_stream) : 0;
    case NGHTTP2_DATA:
        stream = end_stream ? stream_of(nghttp2, frame->hd.stream_id) : NULL;
        if (stream != NULL) {
            stream_end(stream, NULL);
        }
        return 0;
    case NGHTTP2_RST_STREAM:
        stream = stream_of(nghttp2, frame->hd.stream_id);
        kb_stat_inc(session->stats, KB_STAT_HTTP2_RX_RESET);
        if (stream != NULL) {
            stream->reset_received = true;
        }
        return 0;
    case NGHTTP2_GOAWAY:
        session->goaway_received = true;
        if (session->callbacks->on_goaway != NULL) {
            session->callbacks->on_goaway(session->owner, frame->goaway.error_code);
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
    struct kb_h2_stream *stream = stream_of(nghttp2, id);

    (void)flags;
    (void)user_data;
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

static enum kb_reset_reason reason_of(const struct kb_h2_stream *stream, uint32_t error_code)
{
    if (error_code == NGHTTP2_REFUSED_STREAM) {
        return KB_RESET_REMOTE_REFUSED_STREAM_RESET;
    }
    if (error_code == NGHTTP2_PROTOCOL_ERROR) {
        return KB_RESET_PROTOCOL_ERROR;
    }
    return stream->reset_sent && !stream->reset_received ? KB_RESET_LOCAL_RESET
                                                         : KB_RESET_REMOTE_RESET;
}

static int on_stream_close(nghttp2_session *nghttp2, int32_t id, uint32_t error_code,
                           void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    struct kb_h2_stream *stream = stream_of(nghttp2, id);

    if (stream == NULL) {
        return 0;
    }
    if (stream->unconsumed > 0 &&
        nghttp2_session_consume_connection(nghttp2, stream->unconsumed) == NGHTTP2_ERR_NOMEM) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    nghttp2_session_set_stream_user_data(nghttp2, id, NULL);
    stream_gone(stream, reason_of(stream, error_code));
    if (session->callbacks->on_stream_gone != NULL) {
        session->callbacks->on_stream_gone(session->owner);
    }
    return 0;
}

/* A faulty stream alone is reset by nghttp2; a faulty message closes the connection, as in Envoy.
 */
static int on_invalid_frame(nghttp2_session *nghttp2, const nghttp2_frame *frame, int code,
                            void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);

    if (code == NGHTTP2_ERR_HTTP_HEADER || code == NGHTTP2_ERR_HTTP_MESSAGING) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_RX_MESSAGING_ERROR);
    } else if ((code == NGHTTP2_ERR_FLOW_CONTROL || code == NGHTTP2_ERR_PROTO ||
                code == NGHTTP2_ERR_STREAM_CLOSED) &&
               stream_of(nghttp2, frame->hd.stream_id) != NULL) {
        return 0;
    }
    KB_LOG(HTTP2, DEBUG, "invalid frame: %s on stream %d", nghttp2_strerror(code),
           frame->hd.stream_id);
    session->error = KB_EPROTOCOL;
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_frame_send(nghttp2_session *nghttp2, const nghttp2_frame *frame, void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);

    (void)nghttp2;
    switch (frame->hd.type) {
    case NGHTTP2_GOAWAY:
        kb_stat_inc(session->stats, KB_STAT_HTTP2_GOAWAY_SENT);
        if (frame->goaway.error_code != NGHTTP2_NO_ERROR) {
            session->error = KB_EPROTOCOL;
        }
        break;
    case NGHTTP2_RST_STREAM:
        kb_stat_inc(session->stats, KB_STAT_HTTP2_TX_RESET);
        break;
    case NGHTTP2_DATA:
        session->guard.data_frames_sent++;
        break;
    default:
        break;
    }
    return 0;
}

static ssize_t on_data_wanted(nghttp2_session *nghttp2, int32_t id, uint8_t *to, size_t len,
                              uint32_t *flags, nghttp2_data_source *source, void *user_data)
{
    struct kb_h2_session *session = session_of(user_data);
    struct kb_h2_stream *stream = KB_CAST(source->ptr, kb_h2_stream);
    size_t n = kb_buf_peek(&stream->out, to, len);

    (void)nghttp2;
    (void)id;
    if (n == 0 && !stream->out_end) {
        stream->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    kb_buf_consume(&stream->out, n);
    out_drop(stream, n);
    if (stream->out.len == 0 && stream->out_end) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    if (stream->above_high && kb_buf_below_low(&stream->out)) {
        stream->above_high = false;
        if (!kb_list_linked(&stream->writable_link)) {
            kb_list_push_back(&session->writable, &stream->writable_link);
        }
    }
    return (ssize_t)n;
}

/* ---- lifecycle ---- */

static void settings_default(struct kb_h2_settings *settings)
{
#define DEFAULT(field, value)      \
    if (settings->field == 0) {    \
        settings->field = (value); \
    }
    DEFAULT(hpack_table_bytes, 4096)
    DEFAULT(max_concurrent_streams, 1024)
    DEFAULT(stream_window_bytes, STREAM_WINDOW_DEFAULT)
    DEFAULT(connection_window_bytes, CONNECTION_WINDOW_DEFAULT)
    DEFAULT(max_header_bytes, 60 * 1024)
    DEFAULT(max_header_count, 100)
    DEFAULT(stream_out_bytes, 256 * 1024)
    DEFAULT(max_outbound_acks, 1000)
#undef DEFAULT
}

static nghttp2_session *nghttp2_create(struct kb_h2_session *session)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    nghttp2_session *nghttp2 = NULL;

    KB_ASSERT(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    KB_ASSERT(nghttp2_option_new(&option) == 0);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, session->settings.max_outbound_acks);
    nghttp2_option_set_peer_max_concurrent_streams(option,
                                                   session->settings.max_concurrent_streams);
    KB_ASSERT(nghttp2_session_client_new2(&nghttp2, callbacks, session, option) == 0);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return nghttp2;
}

/* The settings of Envoy's client in its order. */
static void preface_submit(struct kb_h2_session *session)
{
    const nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, session->settings.hpack_table_bytes},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 0},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, session->settings.max_concurrent_streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, session->settings.stream_window_bytes},
    };

    KB_ASSERT(nghttp2_submit_settings(session->nghttp2, NGHTTP2_FLAG_NONE, entries,
                                      KB_ARRAY_LEN(entries)) == 0);
    KB_ASSERT(nghttp2_session_set_local_window_size(
                  session->nghttp2, NGHTTP2_FLAG_NONE, 0,
                  (int32_t)session->settings.connection_window_bytes) == 0);
}

struct kb_h2_session *kb_h2_session_create(const struct kb_h2_settings *settings,
                                           const struct kb_h2_session_callbacks *callbacks,
                                           void *owner, struct kb_slice_source *slices,
                                           struct kb_stat_block *stats)
{
    struct kb_h2_session *session = kb_calloc(1, sizeof(*session));

    KB_OBJ_SET(session, kb_h2_session);
    session->settings = *settings;
    settings_default(&session->settings);
    session->callbacks = callbacks;
    session->owner = owner;
    session->slices = slices;
    session->stats = stats;
    kb_list_init(&session->streams);
    kb_list_init(&session->writable);
    kb_h2_guard_init(&session->guard, &settings->guard);
    session->nghttp2 = nghttp2_create(session);
    preface_submit(session);
    kb_stat_inc(stats, KB_STAT_HTTP2_NGHTTP2_UPSTREAM_CONNECTIONS);
    return session;
}

void kb_h2_session_destroy(struct kb_h2_session *session, enum kb_reset_reason reason)
{
    KB_ASSERT(!session->busy);
    while (!kb_list_empty(&session->streams)) {
        struct kb_h2_stream *stream =
            KB_LIST_ENTRY(session->streams.next, struct kb_h2_stream, link);

        nghttp2_session_set_stream_user_data(session->nghttp2, stream->id, NULL);
        stream_gone(stream, reason);
    }
    nghttp2_session_del(session->nghttp2);
    KB_OBJ_CLEAR(session);
    free(session);
}

/* ---- bytes ---- */

static int error_of(struct kb_h2_session *session, ssize_t code)
{
    if (session->error != 0) {
        return session->error;
    }
    if (code == NGHTTP2_ERR_FLOODED) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_OUTBOUND_CONTROL_FLOOD);
        session->error = KB_ELIMIT;
    } else if (code < 0) {
        session->error = KB_EPROTOCOL;
    }
    return session->error;
}

int kb_h2_session_receive(struct kb_h2_session *session, const char *bytes, size_t len,
                          uint64_t now_ms)
{
    ssize_t n;

    if (session->error != 0) {
        return session->error;
    }
    session->now_ms = now_ms;
    session->busy = true;
    n = nghttp2_session_mem_recv(session->nghttp2, (const uint8_t *)bytes, len);
    session->busy = false;
    return error_of(session, n);
}

int kb_h2_session_send(struct kb_h2_session *session, struct kb_buf *out, size_t limit)
{
    const uint8_t *bytes;
    ssize_t n = 0;

    session->busy = true;
    while (out->len < limit) {
        n = nghttp2_session_mem_send(session->nghttp2, &bytes);
        if (n <= 0) {
            break;
        }
        kb_buf_append(out, bytes, (size_t)n);
    }
    session->busy = false;
    while (!kb_list_empty(&session->writable)) {
        struct kb_list *link = kb_list_pop_front(&session->writable);
        struct kb_h2_stream *stream = KB_LIST_ENTRY(link, struct kb_h2_stream, writable_link);

        if (!stream->released) {
            stream->callbacks->on_below_low(stream->owner);
        }
    }
    return error_of(session, n);
}

bool kb_h2_session_want_send(struct kb_h2_session *session)
{
    return nghttp2_session_want_write(session->nghttp2) != 0;
}

void kb_h2_session_ping(struct kb_h2_session *session)
{
    KB_ASSERT(nghttp2_submit_ping(session->nghttp2, NGHTTP2_FLAG_NONE, NULL) == 0);
}

void kb_h2_session_goaway(struct kb_h2_session *session)
{
    KB_ASSERT(nghttp2_submit_goaway(session->nghttp2, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL,
                                    0) == 0);
}

bool kb_h2_session_can_open(const struct kb_h2_session *session)
{
    return session->error == 0 && !session->goaway_received &&
           session->stream_count < session->settings.max_concurrent_streams &&
           session->stream_count < nghttp2_session_get_remote_settings(
                                       session->nghttp2, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS) &&
           nghttp2_session_check_request_allowed(session->nghttp2) != 0;
}

uint32_t kb_h2_session_streams(const struct kb_h2_session *session)
{
    return session->stream_count;
}

/* ---- streams ---- */

struct kb_h2_stream *kb_h2_stream_open(struct kb_h2_session *session,
                                       const struct kb_header_map *headers, bool end_stream,
                                       const struct kb_h2_stream_callbacks *callbacks, void *owner)
{
    struct kb_h2_fields fields;
    nghttp2_data_provider provider;
    struct kb_h2_stream *stream;

    if (!kb_h2_session_can_open(session)) {
        return NULL;
    }
    stream = kb_calloc(1, sizeof(*stream));
    KB_OBJ_SET(stream, kb_h2_stream);
    stream->callbacks = callbacks;
    stream->owner = owner;
    kb_arena_init(&stream->arena, NULL);
    kb_buf_init(&stream->out, session->slices, session->settings.stream_out_bytes);
    provider.source.ptr = stream;
    provider.read_callback = on_data_wanted;
    kb_h2_fields_request(&fields, headers);
    stream->id = nghttp2_submit_request(session->nghttp2, NULL, fields.items, fields.count,
                                        end_stream ? NULL : &provider, stream);
    if (stream->id < 0) {
        /* Out of ids: no new stream fits on this connection. */
        stream_free(stream);
        return NULL;
    }
    stream->session = session;
    stream->out_end = end_stream;
    kb_list_push_back(&session->streams, &stream->link);
    session->stream_count++;
    session->guard.streams_opened++;
    kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_STREAMS_ACTIVE, 1);
    return stream;
}

void kb_h2_stream_send(struct kb_h2_stream *stream, struct kb_buf *data, bool end_stream)
{
    struct kb_h2_session *session = stream->session;

    if (session == NULL || stream->out_end) {
        kb_buf_consume(data, data->len);
        return;
    }
    kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_PENDING_SEND_BYTES, (int64_t)data->len);
    kb_buf_move(&stream->out, data);
    stream->out_end = end_stream;
    stream->above_high = stream->above_high || kb_buf_above_high(&stream->out);
    if (stream->deferred) {
        stream->deferred = false;
        /* Fails only for a stream that is being closed. */
        (void)nghttp2_session_resume_data(session->nghttp2, stream->id);
    }
}

bool kb_h2_stream_above_high(const struct kb_h2_stream *stream)
{
    return stream->above_high;
}

size_t kb_h2_stream_queued(const struct kb_h2_stream *stream)
{
    return stream->out.len;
}

void kb_h2_stream_consume(struct kb_h2_stream *stream, size_t len)
{
    KB_ASSERT(len <= stream->unconsumed || stream->session == NULL);
    if (stream->session == NULL) {
        return;
    }
    stream->unconsumed -= len;
    /* Fails for want of memory only, which ends the process elsewhere. */
    (void)nghttp2_session_consume(stream->session->nghttp2, stream->id, len);
}

void kb_h2_stream_close(struct kb_h2_stream *stream, uint32_t error_code)
{
    struct kb_h2_session *session = stream->session;

    KB_ASSERT(!stream->released);
    stream->released = true;
    if (session == NULL) {
        stream_free(stream);
        return;
    }
    if (!stream->reset_sent) {
        stream->reset_sent = true;
        (void)nghttp2_submit_rst_stream(session->nghttp2, NGHTTP2_FLAG_NONE, stream->id,
                                        error_code);
    }
}
