/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/2 client sessions over nghttp2: life, settings and bytes. nghttp2 frames, compresses and
 * keeps the states of RFC 9113; what a peer may cost is decided here and in h2_client_events.c:
 * header sizes, windows that open only as data is consumed, and the frame budgets of h2_guard.c.
 * Output is pulled, never pushed, so it cannot pile up. */
#include "proxy/http/h2_client_session.h"

#include <string.h>

#include "proxy/http/h2_client_internal.h"
#include "proxy/http/h2_fields.h"

#define STREAM_WINDOW_DEFAULT     (16u * 1024 * 1024)
#define CONNECTION_WINDOW_DEFAULT (24u * 1024 * 1024)

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
    if (!settings->guard_filled) {
        kb_h2_guard_limits_fill(&settings->guard);
    }
}

static nghttp2_session *nghttp2_create(struct kb_h2_session *session)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    nghttp2_session *nghttp2 = NULL;
    nghttp2_mem mem = {.mem_user_data = session->mem,
                       .malloc = kb_h2_mem_malloc,
                       .free = kb_h2_mem_free,
                       .calloc = kb_h2_mem_calloc,
                       .realloc = kb_h2_mem_realloc};

    KB_ASSERT(nghttp2_session_callbacks_new(&callbacks) == 0);
    kb_h2_client_callbacks_set(callbacks);
    KB_ASSERT(nghttp2_option_new(&option) == 0);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, session->settings.max_outbound_acks);
    nghttp2_option_set_peer_max_concurrent_streams(option,
                                                   session->settings.max_concurrent_streams);
    /* Those that nobody knows are counted, too. */
    for (unsigned type = NGHTTP2_CONTINUATION + 1; type <= UINT8_MAX; type++) {
        nghttp2_option_set_user_recv_extension_type(option, (uint8_t)type);
    }
    KB_ASSERT(nghttp2_session_client_new3(&nghttp2, callbacks, session, option, &mem) == 0);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return nghttp2;
}

/* The settings of Envoy's client in its order. */
static void preface_submit(struct kb_h2_session *session)
{
    const struct kb_h2_settings *settings = &session->settings;
    const nghttp2_settings_entry named[] = {
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, settings->hpack_table_bytes},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, settings->allow_connect},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, settings->max_concurrent_streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, settings->stream_window_bytes},
    };
    nghttp2_settings_entry entries[1 + KB_H2_CUSTOM_SETTINGS_MAX + KB_ARRAY_LEN(named)] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    size_t count =
        1 + kb_h2_custom_settings_put(entries + 1, settings->custom, settings->custom_count, true);

    memcpy(entries + count, named, sizeof(named));
    KB_ASSERT(nghttp2_submit_settings(session->nghttp2, NGHTTP2_FLAG_NONE, entries,
                                      count + KB_ARRAY_LEN(named)) == 0);
    KB_ASSERT(nghttp2_session_set_local_window_size(
                  session->nghttp2, NGHTTP2_FLAG_NONE, 0,
                  (int32_t)session->settings.connection_window_bytes) == 0);
}

struct kb_h2_session *kb_h2_session_create(const struct kb_h2_settings *settings,
                                           const struct kb_h2_session_callbacks *callbacks,
                                           void *owner, struct kb_slice_source *slices,
                                           struct kb_h2_mem *mem, struct kb_stat_block *stats)
{
    struct kb_h2_session *session = kb_h2_mem_calloc(1, sizeof(*session), mem);

    KB_OBJ_SET(session, kb_h2_session);
    session->settings = *settings;
    settings_default(&session->settings);
    session->callbacks = callbacks;
    session->owner = owner;
    session->slices = slices;
    session->mem = mem;
    session->stats = stats;
    kb_list_init(&session->streams);
    kb_list_init(&session->writable);
    kb_h2_metadata_session_init(&session->metadata, mem, session->settings.max_metadata_bytes);
    kb_h2_guard_init(&session->guard, &session->settings.guard);
    session->nghttp2 = nghttp2_create(session);
    preface_submit(session);
    kb_stat_inc(stats, KB_STAT_HTTP2_NGHTTP2_UPSTREAM_CONNECTIONS);
    return session;
}

void kb_h2_session_fail(struct kb_h2_session *session, enum kb_reset_reason reason)
{
    if (session->error == 0) {
        session->error = KB_ECLOSED;
    }
    while (!kb_list_empty(&session->streams)) {
        struct kb_h2_stream *stream =
            KB_LIST_ENTRY(session->streams.prev, struct kb_h2_stream, link);

        nghttp2_session_set_stream_user_data(session->nghttp2, stream->id, NULL);
        kb_h2_stream_gone(stream, reason);
    }
}

void kb_h2_session_destroy(struct kb_h2_session *session, enum kb_reset_reason reason)
{
    KB_ASSERT(!session->busy);
    kb_h2_session_fail(session, reason);
    kb_h2_metadata_session_dispose(&session->metadata);
    nghttp2_session_del(session->nghttp2);
    KB_OBJ_CLEAR(session);
    kb_h2_mem_free(session, session->mem);
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

    if (session->error == KB_ECLOSED) {
        return session->error;
    }
    session->busy = true;
    session->sending = out;
    session->send_limit = limit;
    while (out->len < limit) {
        n = nghttp2_session_mem_send(session->nghttp2, &bytes);
        if (n <= 0) {
            break;
        }
        kb_buf_append(out, bytes, (size_t)n);
    }
    session->busy = false;
    session->sending = NULL;
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
