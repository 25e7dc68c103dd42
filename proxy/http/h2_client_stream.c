/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of an HTTP/2 client session: opening, what they send, and their end. */
#include <string.h>

#include "proxy/http/h2_client_internal.h"
#include "proxy/http/h2_fields.h"

/* ---- end ---- */

void kb_h2_stream_out_drop(struct kb_h2_stream *stream, size_t n)
{
    kb_stat_gauge_add(stream->session->stats, KB_STAT_HTTP2_PENDING_SEND_BYTES, -(int64_t)n);
}

/* Nobody uses it any more. */
static void stream_free(struct kb_h2_stream *stream)
{
    struct kb_h2_mem *mem = stream->mem;

    if (stream->arena == &stream->own_arena) {
        kb_arena_dispose(&stream->own_arena);
    }
    kb_h2_mem_free(stream->trailers, mem);
    KB_OBJ_CLEAR(stream);
    kb_h2_mem_free(stream, mem);
}

void kb_h2_stream_gone(struct kb_h2_stream *stream, enum kb_reset_reason reason)
{
    struct kb_h2_session *session = stream->session;

    if (session->recent == stream) {
        session->recent = kb_h2_stream_next(session, stream);
    }
    kb_list_unlink(&stream->link);
    kb_list_unlink(&stream->writable_link);
    kb_h2_stream_out_drop(stream, stream->out.len);
    kb_buf_dispose(&stream->out);
    kb_h2_metadata_destroy(&session->metadata, stream->metadata);
    stream->metadata = NULL;
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

/* ---- opening ---- */

static int32_t request_submit(struct kb_h2_session *session, struct kb_h2_stream *stream,
                              const struct kb_header_map *headers, bool end_stream)
{
    struct kb_h2_fields fields;
    nghttp2_data_provider provider = {.source = {.ptr = stream},
                                      .read_callback = kb_h2_client_data_wanted};

    kb_h2_fields_request(&fields, headers, session->settings.requests);
    return nghttp2_submit_request(session->nghttp2, NULL, fields.items, fields.count,
                                  end_stream ? NULL : &provider, stream);
}

static struct kb_h2_stream *stream_create(struct kb_h2_session *session, struct kb_arena *arena)
{
    struct kb_h2_stream *stream = kb_h2_mem_calloc(1, sizeof(*stream), session->mem);

    KB_OBJ_SET(stream, kb_h2_stream);
    stream->mem = session->mem;
    stream->arena = arena;
    if (arena == NULL) {
        stream->arena = &stream->own_arena;
        kb_arena_init(&stream->own_arena, NULL);
    }
    kb_buf_init(&stream->out, session->slices, session->settings.stream_out_bytes);
    return stream;
}

struct kb_h2_stream *kb_h2_stream_open(struct kb_h2_session *session,
                                       const struct kb_header_map *headers, bool end_stream,
                                       const struct kb_h2_stream_callbacks *callbacks, void *owner,
                                       struct kb_arena *arena)
{
    struct kb_h2_stream *stream;

    if (!kb_h2_session_can_open(session)) {
        return NULL;
    }
    stream = stream_create(session, arena);
    stream->callbacks = callbacks;
    stream->owner = owner;
    stream->id = request_submit(session, stream, headers, end_stream);
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

/* ---- sending ---- */

static void resume(struct kb_h2_stream *stream)
{
    if (stream->deferred) {
        stream->deferred = false;
        /* Fails only for a stream that is being closed. */
        (void)nghttp2_session_resume_data(stream->session->nghttp2, stream->id);
    }
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
    resume(stream);
}

void kb_h2_stream_send_metadata(struct kb_h2_stream *stream, struct kb_buf *block)
{
    struct kb_h2_session *session = stream->session;

    if (session == NULL || !session->settings.allow_metadata || stream->out_end) {
        kb_buf_consume(block, block->len);
        return;
    }
    if (stream->metadata == NULL) {
        stream->metadata = kb_h2_metadata_create(&session->metadata);
    }
    if (!kb_h2_metadata_queue(&session->metadata, stream->metadata, block, stream->out.len)) {
        kb_stat_inc(session->stats, KB_STAT_HTTP2_OUTBOUND_FLOOD);
        session->error = KB_ELIMIT;
    } else if (stream->meter.headers_sent > 0) { /* nghttp2 sends new streams last */
        kb_h2_metadata_due(&session->metadata, stream->metadata, session->nghttp2, stream->id, 0);
    }
}

/* One piece of memory: the fields, and behind them the bytes to which they point. */
void kb_h2_stream_send_trailers(struct kb_h2_stream *stream, const struct kb_header_map *trailers)
{
    size_t bytes = 0, count = 0;
    uint8_t *to;

    if (stream->session == NULL || stream->out_end) {
        return;
    }
    stream->out_end = true;
    KB_HEADER_FOREACH(header, trailers)
    {
        bytes += header->name.len + header->value.len;
    }
    if (trailers->live > 0) {
        stream->trailers =
            kb_h2_mem_malloc(trailers->live * sizeof(nghttp2_nv) + bytes, stream->mem);
        to = (uint8_t *)(stream->trailers + trailers->live);
        KB_HEADER_FOREACH(header, trailers)
        {
            memcpy(to, header->name.p, header->name.len);
            memcpy(to + header->name.len, header->value.p, header->value.len);
            stream->trailers[count++] = (nghttp2_nv){.name = to,
                                                     .value = to + header->name.len,
                                                     .namelen = header->name.len,
                                                     .valuelen = header->value.len};
            to += header->name.len + header->value.len;
        }
    }
    stream->trailer_count = count;
    resume(stream);
}

bool kb_h2_stream_above_high(const struct kb_h2_stream *stream)
{
    return stream->above_high;
}

size_t kb_h2_stream_queued(const struct kb_h2_stream *stream)
{
    return stream->out.len;
}

const struct kb_h2_meter *kb_h2_stream_meter(const struct kb_h2_stream *stream)
{
    return &stream->meter;
}

/* ---- the owner's word ---- */

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

void kb_h2_stream_set_window(struct kb_h2_stream *stream, uint32_t bytes)
{
    if (stream->session != NULL) {
        (void)nghttp2_session_set_local_window_size(stream->session->nghttp2, NGHTTP2_FLAG_NONE,
                                                    stream->id, (int32_t)bytes);
    }
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
    /* What is whole in both directions ends by itself. */
    if (!stream->reset_sent && !(stream->end_received && stream->out_end)) {
        stream->reset_sent = true;
        (void)nghttp2_submit_rst_stream(session->nghttp2, NGHTTP2_FLAG_NONE, stream->id,
                                        error_code);
    }
}
