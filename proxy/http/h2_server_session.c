/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/2 server sessions over nghttp2, which frames, compresses and keeps the states of RFC 9113:
 * their life, and bytes in and out. */
#include "proxy/http/h2_server_session.h"

#include <string.h>

#include "base/log.h"
#include "proxy/http/h2_fields.h"
#include "proxy/http/h2_server_internal.h"

#define SEND_HEADER_BLOCK_MAX (32u * 1024 * 1024) /* Envoy's */

/* ---- lifecycle ---- */

static nghttp2_session *nghttp2_create(struct kb_h2_server_session *session)
{
    nghttp2_mem mem = {.mem_user_data = session->mem,
                       .malloc = kb_h2_mem_malloc,
                       .free = kb_h2_mem_free,
                       .calloc = kb_h2_mem_calloc,
                       .realloc = kb_h2_mem_realloc};
    const struct kb_h2_options *options = &session->settings->options;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    nghttp2_session *nghttp2 = NULL;

    KB_ASSERT(nghttp2_session_callbacks_new(&callbacks) == 0);
    kb_h2_server_receive_callbacks_set(callbacks);
    kb_h2_server_send_callbacks_set(callbacks);
    KB_ASSERT(nghttp2_option_new(&option) == 0);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_auto_ping_ack(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(option, 1);
    nghttp2_option_set_max_send_header_block_length(option, SEND_HEADER_BLOCK_MAX);
    nghttp2_option_set_max_outbound_ack(option, (size_t)options->max_outbound_control_frames + 1);
    nghttp2_option_set_max_deflate_dynamic_table_size(option, options->hpack_table_bytes);
    if (options->allow_metadata) {
        nghttp2_option_set_user_recv_extension_type(option, KB_H2_METADATA);
    }
    KB_ASSERT(nghttp2_session_server_new3(&nghttp2, callbacks, session, option, &mem) == 0);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return nghttp2;
}

/* The settings of Envoy's server in its order. */
static void preface_submit(struct kb_h2_server_session *session)
{
    const struct kb_h2_options *options = &session->settings->options;
    const nghttp2_settings_entry named[] = {
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, options->hpack_table_bytes},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, options->allow_connect},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options->max_concurrent_streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options->stream_window_bytes},
    };
    nghttp2_settings_entry entries[KB_H2_CUSTOM_SETTINGS_MAX + KB_ARRAY_LEN(named)];
    size_t count =
        kb_h2_custom_settings_put(entries, options->custom, options->custom_count, false);

    memcpy(entries + count, named, sizeof(named));
    KB_ASSERT(nghttp2_submit_settings(session->nghttp2, NGHTTP2_FLAG_NONE, entries,
                                      count + KB_ARRAY_LEN(named)) == 0);
    KB_ASSERT(nghttp2_session_set_local_window_size(session->nghttp2, NGHTTP2_FLAG_NONE, 0,
                                                    (int32_t)options->connection_window_bytes) ==
              0);
}

struct kb_h2_server_session *kb_h2_server_session_create(
    const struct kb_h2_server_settings *settings, const struct kb_h2_server_callbacks *callbacks,
    void *owner, struct kb_slice_source *slices, struct kb_h2_mem *mem, struct kb_stat_block *stats)
{
    struct kb_h2_server_session *session = kb_h2_mem_calloc(1, sizeof(*session), mem);

    KB_OBJ_SET(session, kb_h2_server_session);
    session->settings = settings;
    session->callbacks = callbacks;
    session->owner = owner;
    session->slices = slices;
    session->mem = mem;
    session->stats = stats;
    kb_list_init(&session->streams);
    kb_list_init(&session->closing);
    kb_list_init(&session->lowered);
    kb_list_init(&session->grown);
    kb_h2_metadata_session_init(&session->metadata, mem, settings->options.max_metadata_bytes);
    kb_h2_guard_init(&session->guard, &settings->options.guard);
    session->nghttp2 = nghttp2_create(session);
    preface_submit(session);
    session->scan.payload = NGHTTP2_CLIENT_MAGIC_LEN;
    kb_stat_inc(stats, KB_STAT_HTTP2_NGHTTP2_DOWNSTREAM_CONNECTIONS);
    return session;
}

void kb_h2_server_session_destroy(struct kb_h2_server_session *session)
{
    struct kb_h2_outbound *outbound = &session->outbound;

    KB_ASSERT(!session->busy);
    session->stopped = true;
    while (!kb_list_empty(&session->streams)) {
        kb_h2_server_stream_destroy(
            KB_LIST_ENTRY(session->streams.next, struct kb_h2_server_stream, link));
    }
    kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_OUTBOUND_FRAMES_ACTIVE,
                      -(int64_t)(outbound->frames[0] + outbound->frames[1]));
    kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_OUTBOUND_CONTROL_FRAMES_ACTIVE,
                      -(int64_t)(outbound->control[0] + outbound->control[1]));
    kb_h2_metadata_session_dispose(&session->metadata);
    nghttp2_session_del(session->nghttp2);
    KB_OBJ_CLEAR(session);
    kb_h2_mem_free(session, session->mem);
}

void kb_h2_server_session_stop(struct kb_h2_server_session *session)
{
    session->stopped = true;
}

void kb_h2_server_fault_set(struct kb_h2_server_session *session, int error, struct kb_str text,
                            bool silent)
{
    if (session->fault.error == 0) {
        session->fault = (struct kb_h2_server_fault){error, text, silent};
        KB_LOG(HTTP2, DEBUG, "client's HTTP/2: %.*s", KB_STR_ARG(text));
    }
}

const struct kb_h2_server_fault *
kb_h2_server_session_fault(const struct kb_h2_server_session *session)
{
    return &session->fault;
}

/* ---- streams ---- */

void kb_h2_server_reset_note(struct kb_h2_server_session *session, int32_t id)
{
    session->resets[session->reset_count++ % KB_H2_RESETS_KEPT] = id;
}

struct kb_h2_server_stream *kb_h2_server_stream_create(struct kb_h2_server_session *session,
                                                       int32_t id)
{
    struct kb_h2_server_stream *stream = kb_h2_mem_calloc(1, sizeof(*stream), session->mem);

    KB_OBJ_SET(stream, kb_h2_server_stream);
    stream->id = id;
    stream->session = session;
    kb_buf_init(&stream->in, session->slices, 0);
    kb_buf_init(&stream->out, session->slices, KB_H2_STREAM_OUT_BYTES);
    kb_list_push_back(&session->streams, &stream->link);
    session->guard.streams_opened++;
    kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_STREAMS_ACTIVE, 1);
    return stream;
}

void kb_h2_server_stream_destroy(struct kb_h2_server_stream *stream)
{
    struct kb_h2_server_session *session = stream->session;

    if (session->recent == stream) {
        session->recent = kb_h2_server_stream_next(session, stream);
    }
    kb_h2_server_queue_shrunk(stream, stream->out.len);
    kb_buf_dispose(&stream->out);
    kb_buf_dispose(&stream->in);
    kb_h2_metadata_destroy(&session->metadata, stream->metadata);
    session->header_bytes -= stream->header_bytes_held;
    kb_list_unlink(&stream->link);
    kb_list_unlink(&stream->closing_link);
    kb_list_unlink(&stream->lowered_link);
    kb_list_unlink(&stream->grown_link);
    kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_STREAMS_ACTIVE, -1);
    KB_OBJ_CLEAR(stream);
    kb_h2_mem_free(stream, session->mem);
}

void kb_h2_server_stream_unfinished_clear(struct kb_h2_server_stream *stream)
{
    if (stream->headers != NULL && !stream->headers_done) {
        kb_header_map_init(stream->headers, stream->headers->arena);
    }
}

void *kb_h2_server_stream_owner(const struct kb_h2_server_stream *stream)
{
    return stream->owner;
}

struct kb_str kb_h2_server_stream_details(const struct kb_h2_server_stream *stream)
{
    return stream->details;
}

size_t kb_h2_server_stream_held(const struct kb_h2_server_stream *stream)
{
    return stream->out.len;
}

/* ---- bytes ---- */

/* What nghttp2 says of it, as Envoy shows it of streams. */
static struct kb_str error_text(int code)
{
    switch (code) {
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC:
        return KB_STR("codec_error:Received_bad_client_magic_byte_string");
    case NGHTTP2_ERR_FLOODED:
        return KB_STR("codec_error:Too_many_control_frames_in_the_outbound_queue.");
    default:
        return KB_STR("codec_error:The_user_callback_function_failed");
    }
}

static void code_set(struct kb_h2_server_session *session, ssize_t code)
{
    if (session->stopped) {
        return;
    }
    if (code == NGHTTP2_ERR_FLOODED && session->fault.error == 0) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_OUTBOUND_CONTROL_FLOOD);
    }
    if (code < 0) {
        kb_h2_server_fault_set(session, code == NGHTTP2_ERR_FLOODED ? KB_ELIMIT : KB_EPROTOCOL,
                               error_text((int)code), true);
        KB_LIST_FOREACH (link, &session->streams) {
            kb_h2_server_stream_unfinished_clear(
                KB_LIST_ENTRY(link, struct kb_h2_server_stream, link));
        }
    }
}

static void feed(struct kb_h2_server_session *session, const char *bytes, size_t len)
{
    if (len > 0 && session->fault.error == 0 && !session->stopped) {
        code_set(session, nghttp2_session_mem_recv(session->nghttp2, (const uint8_t *)bytes, len));
    }
}

static void ignored_count(struct kb_h2_server_session *session)
{
    if (kb_h2_guard_ignored(&session->guard, session->now_ms) != KB_H2_GUARD_OK) {
        kb_h2_server_fault_set(session, KB_ELIMIT,
                               KB_STR("codec_error:The_user_callback_function_failed"), true);
    }
}

/* The next 9 bytes are a frame's header; DATA of nobody's are of a closed stream, perhaps, and so
 * are all behind a reset that nghttp2 has not seen. */
static bool frame_needs_look(struct kb_h2_server_session *session, nghttp2_frame_hd *hd)
{
    const uint8_t *at = session->scan.header;

    hd->length = (size_t)at[0] << 16 | (size_t)at[1] << 8 | at[2];
    hd->type = at[3];
    hd->stream_id =
        (int32_t)(((uint32_t)at[5] << 24 | (uint32_t)at[6] << 16 | (uint32_t)at[7] << 8 | at[8]) &
                  INT32_MAX);
    session->scan.have = 0;
    session->scan.payload = hd->length;
    session->scan.reset_seen |= hd->type == NGHTTP2_RST_STREAM;
    session->scan.goaway_seen |= hd->type == NGHTTP2_GOAWAY;
    session->scan.in_late_ping = session->scan.goaway_seen && hd->type == NGHTTP2_PING &&
                                 hd->length == 8 && (at[4] & NGHTTP2_FLAG_ACK) == 0 &&
                                 session->late_pings.len < sizeof(session->late_pings.data);
    return hd->type == NGHTTP2_DATA &&
           (session->scan.reset_seen || kb_h2_server_stream_of(session, hd->stream_id) == NULL);
}

/* Frames of which nghttp2 does not tell us: those that it does not know, and what control frames
 * come behind a GOAWAY. */
static void silent_count(struct kb_h2_server_session *session, uint8_t type)
{
    bool control = type == NGHTTP2_PING || type == NGHTTP2_SETTINGS || type == NGHTTP2_GOAWAY ||
                   type == NGHTTP2_RST_STREAM;

    if (KB_LIKELY(type <= NGHTTP2_CONTINUATION && !(control && session->goaway_heard)) ||
        (type == KB_H2_METADATA && session->settings->options.allow_metadata)) {
        return;
    }
    ignored_count(session);
}

/* Gives bytes to nghttp2, which says nothing of DATA on closed streams: with a halt before such, so
 * that it has seen all that came before. */
static void scan_and_feed(struct kb_h2_server_session *session, const char *bytes, size_t len)
{
    struct kb_h2_scan *scan = &session->scan;
    size_t fed = 0;
    size_t at = 0;

    while (at < len && session->fault.error == 0) {
        size_t begin = at;
        size_t n;
        nghttp2_frame_hd hd;

        if (scan->payload > 0) {
            n = KB_MIN(scan->payload, len - at);
            scan->payload -= n;
            if (KB_UNLIKELY(scan->in_late_ping)) {
                memcpy(session->late_pings.data + session->late_pings.len, bytes + at, n);
                session->late_pings.len += n;
            }
            at += n;
            continue;
        }
        n = KB_MIN(sizeof(scan->header) - scan->have, len - at);
        memcpy(scan->header + scan->have, bytes + at, n);
        scan->have += n;
        at += n;
        if (scan->have < sizeof(scan->header)) {
            continue;
        }
        if (!frame_needs_look(session, &hd)) {
            silent_count(session, hd.type);
            continue;
        }
        feed(session, bytes + fed, begin - fed);
        fed = begin;
        scan->reset_seen = false;
        if (kb_h2_server_frame_on_closed(session, &hd)) {
            kb_h2_server_fault_set(session, KB_EPROTOCOL, error_text(NGHTTP2_ERR_STREAM_CLOSED),
                                   true);
        } else if (hd.length == 0) {
            ignored_count(session);
        }
    }
    feed(session, bytes + fed, len - fed);
}

bool kb_h2_server_session_receive(struct kb_h2_server_session *session, struct kb_buf *in,
                                  uint64_t now_ms)
{
    session->now_ms = now_ms;
    session->busy = true;
    while (in->len > 0 && session->fault.error == 0 && !session->stopped) {
        struct kb_segment *segment = in->first;
        struct kb_slice *slice = kb_slice_ref(segment->slice);
        size_t len = segment->to - segment->from;

        session->input = slice;
        scan_and_feed(session, slice->bytes + segment->from, len);
        session->input = NULL;
        kb_slice_unref(slice);
        kb_buf_consume(in, KB_MIN(len, in->len)); /* a closed connection dropped it */
    }
    session->busy = false;
    kb_buf_consume(in, in->len);
    return session->fault.error == 0;
}

bool kb_h2_server_session_receiving(const struct kb_h2_server_session *session)
{
    return session->input != NULL;
}

static void lowered_tell(struct kb_h2_server_session *session)
{
    while (!kb_list_empty(&session->lowered)) {
        struct kb_list *link = kb_list_pop_front(&session->lowered);
        struct kb_h2_server_stream *stream =
            KB_LIST_ENTRY(link, struct kb_h2_server_stream, lowered_link);

        if (stream->told_above && !stream->above_high && !session->above_high) {
            stream->told_above = false;
            if (stream->owner != NULL) {
                session->callbacks->on_below_low(stream->owner);
            }
        }
    }
}

/* Between two frames. */
static void late_pings_answer(struct kb_h2_server_session *session)
{
    static const uint8_t header[9] = {0, 0, 8, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, 0, 0, 0};
    struct kb_h2_late_pings *pings = &session->late_pings;
    size_t whole = 0;

    for (; whole + 8 <= pings->len; whole += 8) {
        kb_buf_append(session->output, header, sizeof(header));
        kb_buf_append(session->output, pings->data + whole, 8);
        session->outbound.produced += sizeof(header) + 8;
    }
    memmove(pings->data, pings->data + whole, pings->len - whole);
    pings->len -= whole;
}

static void pull(struct kb_h2_server_session *session)
{
    struct kb_buf *out = session->output;
    const uint8_t *bytes;
    ssize_t n;

    while (out->len < session->output_limit && !session->fault.silent) {
        n = nghttp2_session_mem_send(session->nghttp2, &bytes);
        if (n <= 0 || session->stopped) {
            code_set(session, n);
            if (n == 0 && !session->stopped) {
                late_pings_answer(session);
            }
            break;
        }
        kb_buf_append(out, bytes, (size_t)n);
        session->outbound.produced += (size_t)n;
    }
}

bool kb_h2_server_session_send(struct kb_h2_server_session *session, struct kb_buf *out,
                               size_t limit)
{
    session->busy = true;
    session->output = out;
    session->output_limit = limit;
    pull(session);
    if (KB_UNLIKELY(!kb_list_empty(&session->closing)) && !session->stopped) {
        kb_h2_server_closing_reset(session);
        pull(session);
    }
    session->output = NULL;
    session->busy = false;
    if (!session->stopped) {
        lowered_tell(session);
        kb_h2_server_grown_settle(session);
    }
    return session->fault.error == 0;
}

void kb_h2_server_session_written(struct kb_h2_server_session *session, size_t n)
{
    struct kb_h2_outbound *outbound = &session->outbound;

    outbound->written += n;
    if (outbound->written < outbound->mark) {
        return;
    }
    for (unsigned generations = outbound->written >= outbound->produced ? 2 : 1; generations > 0;
         generations--) {
        kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_OUTBOUND_FRAMES_ACTIVE,
                          -(int64_t)outbound->frames[0]);
        kb_stat_gauge_add(session->stats, KB_STAT_HTTP2_OUTBOUND_CONTROL_FRAMES_ACTIVE,
                          -(int64_t)outbound->control[0]);
        outbound->frames[0] = outbound->frames[1];
        outbound->control[0] = outbound->control[1];
        outbound->frames[1] = 0;
        outbound->control[1] = 0;
    }
    outbound->mark = outbound->produced;
}

/* ---- of the connection ---- */

void kb_h2_server_session_notice(struct kb_h2_server_session *session)
{
    (void)nghttp2_submit_shutdown_notice(session->nghttp2);
}

void kb_h2_server_session_goaway(struct kb_h2_server_session *session)
{
    kb_stat_inc(session->stats, KB_STAT_HTTP2_GOAWAY_SENT); /* the notice is none, as in Envoy */
    (void)nghttp2_submit_goaway(session->nghttp2, NGHTTP2_FLAG_NONE,
                                nghttp2_session_get_last_proc_stream_id(session->nghttp2),
                                NGHTTP2_NO_ERROR, NULL, 0);
}

void kb_h2_server_session_ping(struct kb_h2_server_session *session)
{
    (void)nghttp2_submit_ping(session->nghttp2, NGHTTP2_FLAG_NONE, NULL);
}
