/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/2 on either side, by nghttp2, whose judgement of what the proxy sends is the test's. */
#include <stdio.h>
#include <string.h>

#include "base/obj.h"
#include "tests/events/peer.h"

#define BODY_MAX 200000
/* An error in what the proxy sent that is no fault: of a stream that we have reset, for instance.
 */

static struct peer_stream *stream_find(struct peer *peer, int32_t id)
{
    for (size_t i = 0; i < PEER_STREAMS_MAX; i++) {
        if (peer->streams[i].id == id) {
            return &peer->streams[i];
        }
    }
    return NULL;
}

/* One that is open, at random. */
static struct peer_stream *stream_pick(struct peer *peer)
{
    size_t at = peer_roll(PEER_STREAMS_MAX);

    for (size_t i = 0; i < PEER_STREAMS_MAX; i++) {
        struct peer_stream *stream = &peer->streams[(at + i) % PEER_STREAMS_MAX];

        if (stream->id != 0) {
            return stream;
        }
    }
    return NULL;
}

static nghttp2_nv nv_make(const char *name, const char *value)
{
    nghttp2_nv nv = {.name = (uint8_t *)(uintptr_t)name,
                     .value = (uint8_t *)(uintptr_t)value,
                     .namelen = strlen(name),
                     .valuelen = strlen(value)};

    return nv;
}

/* "name: value" as in HTTP/1; the parts are the caller's. */
static nghttp2_nv nv_of_line(const char *line, char name[64])
{
    const char *colon = strchr(line, ':');
    size_t n = (size_t)(colon - line);

    KB_ASSERT(n < 64);
    memcpy(name, line, n);
    name[n] = '\0';
    return nv_make(name, colon + 2);
}

static ssize_t body_read(nghttp2_session *session, int32_t id, uint8_t *buf, size_t len,
                         uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct peer *peer = arg;
    struct peer_stream *stream = stream_find(peer, id);
    size_t most = 1 + peer_roll(16384);
    size_t n;

    (void)source;
    if (stream == NULL) {
        *flags = NGHTTP2_DATA_FLAG_EOF;
        return 0;
    }
    most = KB_MIN(most, stream->body_left);
    n = KB_MIN(len, most);
    memset(buf, '.', n);
    stream->body_left -= n;
    if (stream->body_left > 0) {
        return (ssize_t)n;
    }
    if (!stream->body_done) {
        stream->deferred = n == 0;
        return n == 0 ? NGHTTP2_ERR_DEFERRED : (ssize_t)n;
    }
    *flags = NGHTTP2_DATA_FLAG_EOF;
    if (stream->trailers) {
        nghttp2_nv nv = nv_make("x-t", "v");

        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        (void)!nghttp2_submit_trailer(session, id, &nv, 1);
    }
    return (ssize_t)n;
}

static void body_draw(struct peer_stream *stream)
{
    stream->body_left = peer_roll(peer_chance(10) ? BODY_MAX : 4000);
    stream->body_done = !stream->tunnel && peer_chance(70);
    stream->trailers = peer_chance(20);
}

/* ---- client ---- */

static void request_make(struct peer *peer)
{
    static const char *const methods[] = {"GET", "GET", "POST", "HEAD", "PUT"};
    struct peer_stream *stream = stream_find(peer, 0);
    nghttp2_data_provider body = {.read_callback = body_read};
    char names[4][64];
    nghttp2_nv nv[12];
    size_t n = 0;
    bool with_body, connect = peer_chance(5), websocket = !connect && peer_chance(5);
    const char *method = methods[peer_roll(KB_ARRAY_LEN(methods))];
    int32_t id;

    if (stream == NULL) {
        return;
    }
    memset(stream, 0, sizeof(*stream));
    stream->tunnel = connect || websocket;
    with_body = stream->tunnel || method[0] == 'P';
    nv[n++] = nv_make(":method", stream->tunnel ? "CONNECT" : method);
    nv[n++] = nv_make(":authority", connect ? "tunnel.test:443" : "a.test");
    if (!connect) {
        nv[n++] = nv_make(":scheme", "http");
        nv[n++] = nv_make(":path", peer_path());
    }
    if (websocket) {
        nv[n++] = nv_make(":protocol", "websocket");
    }
    for (size_t i = peer_roll(3); i > 0; i--, n++) {
        nv[n] = nv_of_line(peer_header(), names[i]);
    }
    if (with_body) {
        body_draw(stream);
    } else {
        stream->body_done = true;
    }
    id = nghttp2_submit_request(peer->session, NULL, nv, n, with_body ? &body : NULL, NULL);
    if (id < 0) {
        stream->id = 0;
        return;
    }
    peer_requests++;
    peer_note(peer, stream->tunnel ? "asks for a tunnel" : method);
    stream->id = id;
}

/* ---- server ---- */

static void response_make(struct peer *peer, struct peer_stream *stream)
{
    static const char *const statuses[] = {"200", "200", "200", "503", "500", "404", "302", "429"};
    const char *status = statuses[peer_roll(KB_ARRAY_LEN(statuses))];
    nghttp2_data_provider body = {.read_callback = body_read};
    nghttp2_nv nv[4];
    size_t n = 0;

    if (peer_chance(5)) {
        nv[0] = nv_make(":status", "103");
        (void)!nghttp2_submit_headers(peer->session, NGHTTP2_FLAG_NONE, stream->id, NULL, nv, 1,
                                      NULL);
    }
    peer_note(peer, status);
    peer_answers++;
    stream->answered = true;
    body_draw(stream);
    nv[n++] = nv_make(":status", status);
    if (status[0] == '3') {
        nv[n++] = nv_make("location", "http://a.test/h1/again");
    }
    if (peer_chance(20)) {
        nv[n++] = nv_make("content-type", peer_chance(50) ? "application/grpc" : "text/plain");
    }
    if (peer_chance(10)) {
        nv[n++] = nv_make("grpc-status", "14");
    }
    (void)!nghttp2_submit_response(peer->session, stream->id, nv, n,
                                   peer_chance(75) || stream->tunnel ? &body : NULL);
}

/* ---- both ---- */

static void stream_act(struct peer *peer, struct peer_stream *stream)
{
    static const uint32_t codes[] = {NGHTTP2_CANCEL, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM,
                                     NGHTTP2_INTERNAL_ERROR, NGHTTP2_PROTOCOL_ERROR};

    if (peer_chance(12)) {
        peer_note(peer, "resets a stream");
        (void)!nghttp2_submit_rst_stream(peer->session, NGHTTP2_FLAG_NONE, stream->id,
                                         codes[peer_roll(KB_ARRAY_LEN(codes))]);
    } else if (peer->server && !stream->answered) {
        response_make(peer, stream);
    } else if (!stream->body_done) {
        peer_note(peer, "goes on with a body");
        stream->body_left += peer_roll(3000);
        stream->body_done = peer_chance(40);
        if (stream->deferred || stream->body_done) {
            stream->deferred = false;
            (void)!nghttp2_session_resume_data(peer->session, stream->id);
        }
    }
}

static void connection_act(struct peer *peer)
{
    static const uint8_t garbage[] = {0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0}; /* no increment */
    nghttp2_settings_entry setting = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
                                      (uint32_t)peer_roll(100000)};

    switch (peer_roll(5)) {
    case 0:
        peer_note(peer, "says that it goes away");
        (void)!nghttp2_submit_goaway(peer->session, NGHTTP2_FLAG_NONE,
                                     nghttp2_session_get_last_proc_stream_id(peer->session),
                                     NGHTTP2_NO_ERROR, NULL, 0);
        break;
    case 1:
        (void)!nghttp2_submit_ping(peer->session, NGHTTP2_FLAG_NONE, NULL);
        break;
    case 2:
        (void)!nghttp2_submit_settings(peer->session, NGHTTP2_FLAG_NONE, &setting, 1);
        break;
    case 3:
        if (peer_chance(30)) {
            peer_note(peer, "sends garbage");
            peer->broken = true;
            sim_bytes_add(&peer->unsent, garbage, sizeof(garbage));
        }
        break;
    default:
        if (peer_chance(30)) {
            peer_note(peer, "ends the session");
            (void)!nghttp2_session_terminate_session(peer->session, NGHTTP2_NO_ERROR);
            peer->close_when_sent = true;
        }
        break;
    }
}

void peer_h2_act(struct peer *peer)
{
    struct peer_stream *stream = stream_pick(peer);

    if (peer_chance(3)) {
        connection_act(peer);
    } else if (!peer->server && (stream == NULL || peer_chance(40))) {
        request_make(peer);
    } else if (stream != NULL) {
        stream_act(peer, stream);
    }
    if (peer->manual_window) {
        for (size_t i = 0; i < PEER_STREAMS_MAX; i++) {
            if (peer->streams[i].id != 0 && peer_chance(30)) {
                (void)!nghttp2_session_consume(peer->session, peer->streams[i].id, 20000);
            }
        }
        (void)!nghttp2_session_consume_connection(peer->session, 20000);
    }
    peer_h2_pump(peer);
}

void peer_h2_pump(struct peer *peer)
{
    while (peer->unsent.len < PEER_UNSENT_MAX) {
        const uint8_t *bytes;
        ssize_t n = nghttp2_session_mem_send(peer->session, &bytes);

        if (n <= 0) {
            break;
        }
        sim_bytes_add(&peer->unsent, bytes, (size_t)n);
    }
}

void peer_h2_read(struct peer *peer, const char *bytes, size_t len)
{
    ssize_t n = nghttp2_session_mem_recv(peer->session, (const uint8_t *)bytes, len);

    if (n < 0 && !peer->broken) {
        peer_fault(peer, nghttp2_strerror((int)n));
    }
    peer_h2_pump(peer);
}

/* ---- callbacks ---- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct peer *peer = arg;
    struct peer_stream *stream;

    (void)session;
    if (!peer->server || frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        return 0;
    }
    stream = stream_find(peer, 0);
    if (stream == NULL) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* more at once than it likes: refused */
    }
    memset(stream, 0, sizeof(*stream));
    stream->id = frame->hd.stream_id;
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *arg)
{
    struct peer *peer = arg;
    struct peer_stream *stream = stream_find(peer, frame->hd.stream_id);

    (void)session;
    (void)flags;
    if (stream != NULL && peer->server && name_len == 7 && memcmp(name, ":method", 7) == 0) {
        stream->tunnel = value_len == 7 && memcmp(value, "CONNECT", 7) == 0;
    }
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    struct peer_stream *stream = stream_find(arg, id);

    (void)session;
    (void)code;
    if (stream != NULL) {
        memset(stream, 0, sizeof(*stream));
        peer_answers += !((struct peer *)arg)->server;
    }
    return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct peer *peer = arg;

    (void)session;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        peer_note(peer, "hears a GOAWAY");
        if (frame->goaway.error_code != NGHTTP2_NO_ERROR && !peer->broken && peer_trace) {
            fprintf(stderr, "    code %u\n", frame->goaway.error_code);
        }
    }
    return 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int code,
                            void *arg)
{
    struct peer *peer = arg;

    (void)session;
    if (!peer->broken && code != NGHTTP2_ERR_REFUSED_STREAM) { /* more at once than it likes */
        fprintf(stderr, "frame of type %u on stream %d\n", frame->hd.type, frame->hd.stream_id);
        peer_fault(peer, nghttp2_strerror(code));
    }
    return 0;
}

void peer_h2_begin(struct peer *peer)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, peer_chance(30) ? 1000 : 65535},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, (uint32_t)(1 + peer_roll(PEER_STREAMS_MAX))},
    };
    int rc;

    KB_ASSERT(nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    peer->manual_window = peer_chance(30);
    nghttp2_option_set_no_auto_window_update(option, peer->manual_window);
    rc = peer->server ? nghttp2_session_server_new2(&peer->session, callbacks, peer, option)
                      : nghttp2_session_client_new2(&peer->session, callbacks, peer, option);
    KB_ASSERT(rc == 0);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    rc = nghttp2_submit_settings(peer->session, NGHTTP2_FLAG_NONE, settings,
                                 peer->server ? KB_ARRAY_LEN(settings) : 1);
    KB_ASSERT(rc == 0);
    peer_h2_pump(peer);
}
