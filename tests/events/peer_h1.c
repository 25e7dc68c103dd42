/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1 on either side. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/obj.h"
#include "tests/events/peer.h"

static const size_t body_sizes[] = {0, 1, 5, 300, 3000, 20000, 70000, 200000};

static void text_add(struct peer *peer, const char *format, ...) KB_PRINTF(2, 3);
static void text_add(struct peer *peer, const char *format, ...)
{
    char text[512];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    KB_ASSERT(n >= 0 && n < (int)sizeof(text));
    sim_bytes_add(&peer->unsent, text, (size_t)n);
}

static void filler_add(struct peer *peer, size_t n)
{
    static const char filler[4096] = {'.'};

    while (n > 0) {
        size_t piece = KB_MIN(n, sizeof(filler));

        sim_bytes_add(&peer->unsent, filler, piece);
        n -= piece;
    }
}

static size_t body_size(void)
{
    return body_sizes[peer_roll(peer_chance(20) ? KB_ARRAY_LEN(body_sizes) : 5)];
}

/* Framing lines, the end of the head, and the body; perhaps less of it than was said. */
static void body_add(struct peer *peer, bool bodyless)
{
    size_t n = body_size();

    if (peer_chance(50)) {
        text_add(peer, "content-length: %zu\r\n\r\n", n);
        if (!bodyless) {
            filler_add(peer, n);
        }
        return;
    }
    text_add(peer, "transfer-encoding: chunked\r\n\r\n");
    while (!bodyless && n > 0) {
        size_t most = 1 + peer_roll(8000);
        size_t piece = KB_MIN(n, most);

        text_add(peer, "%zx\r\n", piece);
        filler_add(peer, piece);
        text_add(peer, "\r\n");
        n -= piece;
    }
    if (!bodyless) {
        text_add(peer, peer_chance(20) ? "0\r\nx-t: v\r\n\r\n" : "0\r\n\r\n");
    }
}

/* ---- client ---- */

static void request_make(struct peer *peer)
{
    static const char *const methods[] = {"GET", "GET", "GET", "POST", "POST", "HEAD", "PUT"};
    const char *method = methods[peer_roll(KB_ARRAY_LEN(methods))];
    struct peer_asked *asked;

    if (peer->asked_count == KB_ARRAY_LEN(peer->asked) || peer->tunnel) {
        return;
    }
    asked = &peer->asked[peer->asked_count++];
    memset(asked, 0, sizeof(*asked));
    peer_requests++;
    if (peer_chance(4)) {
        peer_note(peer, "asks for a tunnel");
        asked->connect = true;
        text_add(peer, "CONNECT tunnel.test:443 HTTP/1.1\r\nhost: tunnel.test:443\r\n\r\n");
        filler_add(peer, peer_roll(200));
        return;
    }
    asked->head = method[0] == 'H';
    text_add(peer, "%s %s HTTP/1.1\r\nhost: a.test\r\n", method, peer_path());
    if (peer_chance(5)) {
        peer_note(peer, "asks for an upgrade");
        asked->upgrade = true;
        text_add(peer, "connection: upgrade\r\nupgrade: websocket\r\n\r\n");
        return;
    }
    peer_note(peer, method);
    for (size_t n = peer_roll(3); n > 0; n--) {
        text_add(peer, "%s\r\n", peer_header());
    }
    if (peer_chance(5)) {
        text_add(peer, "connection: close\r\n");
    }
    if (method[0] == 'P') {
        body_add(peer, false);
    } else {
        text_add(peer, "\r\n");
    }
}

/* ---- server ---- */

static void response_make(struct peer *peer)
{
    static const char *const statuses[] = {"200 OK", "200 OK",      "200 OK",     "503 No",
                                           "500 E",  "201 Made",    "404 Not",    "429 Slow",
                                           "302 F",  "204 Nothing", "304 Not mod"};
    const char *status = statuses[peer_roll(KB_ARRAY_LEN(statuses))];
    bool bodyless = status[0] == '3' || status[1] == '0' ? status[2] == '4' : false;
    const struct peer_asked *asked = &peer->asked[0];

    peer->answered = true;
    peer_answers++;
    if (peer_chance(5)) {
        text_add(peer, "HTTP/1.1 103 Early\r\nlink: <a>\r\n\r\n");
    }
    if (peer_chance(5)) {
        text_add(peer, "HTTP/1.1 100 Continue\r\n\r\n");
    }
    if (asked->connect && peer_chance(70)) {
        peer_note(peer, "opens a tunnel");
        peer->tunnel = true;
        text_add(peer, "HTTP/1.1 200 OK\r\n\r\n");
        return;
    }
    if (asked->upgrade && peer_chance(70)) {
        peer_note(peer, "upgrades");
        peer->tunnel = true;
        text_add(peer, "HTTP/1.1 101 Up\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        return;
    }
    peer_note(peer, status);
    text_add(peer, "HTTP/1.1 %s\r\n", status);
    if (status[0] == '3') {
        text_add(peer, "location: http://a.test%s\r\n", peer_path());
    }
    if (peer_chance(20)) {
        text_add(peer, "x-a: b\r\ncontent-type: text/plain\r\n");
    }
    if (peer_chance(10)) {
        text_add(peer, "connection: close\r\n");
        peer->close_when_sent = true;
    }
    if (bodyless) {
        text_add(peer, "\r\n");
    } else if (peer_chance(10)) {
        text_add(peer, "\r\n"); /* until the end */
        filler_add(peer, asked->head ? 0 : body_size());
        peer->close_when_sent = true;
    } else {
        body_add(peer, asked->head);
    }
}

/* ---- both ---- */

static void tunnel_act(struct peer *peer)
{
    filler_add(peer, 1 + peer_roll(3000));
    if (peer_chance(15)) {
        peer->close_when_sent = true;
    }
}

void peer_h1_act(struct peer *peer)
{
    if (peer->close_when_sent) {
        return;
    }
    if (peer->tunnel) {
        tunnel_act(peer);
    } else if (peer_chance(1)) {
        static const char *const garbage[] = {"\r\n\r\n\r\n", "garbage\r\n\r\n",
                                              "HTTP/1.1 999 \r\n", "GET / HTTP/1.1\r\nhost\r\n\r\n",
                                              "5\r\n"};

        peer_note(peer, "sends garbage");
        peer->broken = true;
        text_add(peer, "%s", garbage[peer_roll(KB_ARRAY_LEN(garbage))]);
    } else if (!peer->server) {
        request_make(peer);
    } else if (peer->request_seen && !peer->answered && (peer->request_done || peer_chance(20))) {
        response_make(peer);
    }
}

static struct peer *peer_of(llhttp_t *parser)
{
    return KB_CONTAINER_OF(parser, struct peer, parser);
}

static int on_begin(llhttp_t *parser)
{
    struct peer *peer = peer_of(parser);

    if (peer->server && !peer->broken && peer->request_seen &&
        !(peer->answered && peer->request_done)) {
        peer_fault(peer, "a request came before the one before it had its answer");
    }
    peer->request_seen = false;
    peer->request_done = false;
    peer->answered = false;
    return 0;
}

static int on_head(llhttp_t *parser)
{
    struct peer *peer = peer_of(parser);
    struct peer_asked *asked = &peer->asked[0];

    if (peer->server) {
        peer->request_seen = true;
        asked->head = parser->method == HTTP_HEAD;
        asked->connect = parser->method == HTTP_CONNECT;
        asked->upgrade = parser->upgrade && !asked->connect;
        return 0;
    }
    if (peer->asked_count == 0) {
        if (!peer->broken && parser->status_code != 408 && parser->status_code != 400) {
            peer_fault(peer, "an answer to nothing");
        }
        return 0;
    }
    if (parser->status_code == 101 && !asked->upgrade) {
        peer_fault(peer, "an upgrade that nobody asked for");
    }
    if (parser->status_code == 101 || (asked->connect && parser->status_code / 100 == 2)) {
        return 2;
    }
    return asked->head ? 1 : 0;
}

static int on_complete(llhttp_t *parser)
{
    struct peer *peer = peer_of(parser);

    if (peer->server) {
        peer->request_done = true;
        return 0;
    }
    if (parser->status_code >= 200 || parser->status_code == 101) {
        peer_answers++;
        if (peer->asked_count > 0) {
            memmove(&peer->asked[0], &peer->asked[1], --peer->asked_count * sizeof(peer->asked[0]));
        }
    }
    return 0;
}

static const llhttp_settings_t settings = {.on_message_begin = on_begin,
                                           .on_headers_complete = on_head,
                                           .on_message_complete = on_complete};

void peer_h1_begin(struct peer *peer)
{
    llhttp_init(&peer->parser, peer->server ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    /* as Envoy, which says close while it drains and answers what still comes */
    llhttp_set_lenient_data_after_close(&peer->parser, 1);
}

void peer_h1_read(struct peer *peer, const char *bytes, size_t len)
{
    llhttp_errno_t rc;

    if (peer->tunnel || llhttp_get_errno(&peer->parser) != HPE_OK) {
        return;
    }
    rc = llhttp_execute(&peer->parser, bytes, len);
    if (rc == HPE_PAUSED_UPGRADE) {
        if (!peer->server) {
            peer_note(peer, "is in a tunnel");
            peer->tunnel = true;
        }
    } else if (rc != HPE_OK && (peer->server || !peer->broken)) {
        fprintf(stderr, "%.*s\n", (int)KB_MIN(len, 2000), bytes);
        peer_fault(peer, llhttp_get_error_reason(&peer->parser));
    }
}

void peer_h1_end(struct peer *peer)
{
    if (!peer->tunnel && llhttp_get_errno(&peer->parser) == HPE_OK) {
        (void)llhttp_finish(&peer->parser); /* a whole answer that lasts until the end */
    }
}
