/* SPDX-License-Identifier: Apache-2.0 */
/* A scripted HTTP/2 server on a socket of 127.0.0.1, played by the test's own thread: it answers
 * each request with frames that a short text describes, and keeps what it was sent. */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define H2_SERVER_IN_MAX 1048576

struct h2_server {
    const char *script; /* what each request gets: see h2_script_play */
    int listen_fd;
    int fd; /* the present connection; -1: none */
    unsigned port;
    unsigned accepted;
    unsigned requests;
    unsigned char in[H2_SERVER_IN_MAX];
    size_t in_len;
    size_t parsed;
    bool preface_seen;
    uint64_t data_bytes;     /* payload of DATA frames */
    unsigned resets;         /* RST_STREAM frames */
    unsigned reset_code;     /* of the last */
    unsigned pings_answered; /* ACKs */
    unsigned settings_acks;
    unsigned goaways;
    unsigned char head[4096]; /* header block of the last request */
    size_t head_len;
};

static inline void h2_server_open(struct h2_server *server, const char *script)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(sa);

    memset(server, 0, sizeof(*server));
    server->script = script;
    server->fd = -1;
    server->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server->listen_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(server->listen_fd, 8), 0);
    assert_int_equal(getsockname(server->listen_fd, (struct sockaddr *)&sa, &len), 0);
    server->port = ntohs(sa.sin_port);
}

static inline void h2_server_hang_up(struct h2_server *server)
{
    if (server->fd >= 0) {
        close(server->fd);
        server->fd = -1;
    }
}

static inline void h2_server_close(struct h2_server *server)
{
    h2_server_hang_up(server);
    if (server->listen_fd >= 0) {
        close(server->listen_fd);
    }
    server->listen_fd = -1;
}

static inline void h2_bytes_send(struct h2_server *server, const void *bytes, size_t len)
{
    if (server->fd >= 0) {
        assert_int_equal(send(server->fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
    }
}

/* RFC 9113 section 4.1. */
static inline void h2_frame_send(struct h2_server *server, unsigned type, unsigned flags,
                                 unsigned stream, const void *payload, size_t len)
{
    unsigned char head[9] = {
        (unsigned char)(len >> 16),    (unsigned char)(len >> 8),    (unsigned char)len,
        (unsigned char)type,           (unsigned char)flags,         (unsigned char)(stream >> 24),
        (unsigned char)(stream >> 16), (unsigned char)(stream >> 8), (unsigned char)stream};

    h2_bytes_send(server, head, sizeof(head));
    if (len > 0) {
        h2_bytes_send(server, payload, len);
    }
}

/* "name=value name=value" as literals without indexing (RFC 7541 section 6.2.2); lengths < 127. */
static inline size_t h2_fields_encode(unsigned char *out, const char *fields)
{
    size_t at = 0;

    while (*fields != '\0') {
        size_t name = strcspn(fields, "=");
        size_t value = strcspn(fields + name + 1, " ;");

        assert_true(name < 127 && value < 127 && at + name + value + 3 < 4096);
        out[at++] = 0;
        out[at++] = (unsigned char)name;
        memcpy(out + at, fields, name);
        at += name;
        out[at++] = (unsigned char)value;
        memcpy(out + at, fields + name + 1, value);
        at += value;
        fields += name + 1 + value;
        if (*fields == ';' || *fields == '\0') {
            break;
        }
        fields++;
    }
    return at;
}

static inline size_t h2_hex(unsigned char *out, const char *hex)
{
    size_t n = 0;
    unsigned byte;

    while (sscanf(hex, "%2x", &byte) == 1) {
        out[n++] = (unsigned char)byte;
        hex += 2;
    }
    return n;
}

/* Steps parted by ";": H fields (HEADERS), HE (with END_STREAM), D hex (DATA), DE, R code
 * (RST_STREAM), G last code (GOAWAY), X hex (raw bytes), P (PING), C (close). */
static inline void h2_script_play(struct h2_server *server, unsigned stream)
{
    for (const char *step = server->script; step != NULL && *step != '\0';) {
        const char *argument = step + strcspn(step, " ;");
        unsigned char out[4096];
        unsigned a = 0, b = 0;
        size_t len;

        argument += *argument == ' ' ? 1 : 0;
        (void)sscanf(argument, "%u %u", &a, &b);
        switch (step[0]) {
        case 'H':
            len = h2_fields_encode(out, argument);
            h2_frame_send(server, 1, 4u | (step[1] == 'E' ? 1u : 0u), stream, out, len);
            break;
        case 'D':
            len = h2_hex(out, argument);
            h2_frame_send(server, 0, step[1] == 'E' ? 1 : 0, stream, out, len);
            break;
        case 'R':
            h2_frame_send(server, 3, 0, stream, (unsigned char[]){0, 0, 0, (unsigned char)a}, 4);
            break;
        case 'G':
            h2_frame_send(server, 7, 0, 0,
                          (unsigned char[]){0, 0, 0, (unsigned char)a, 0, 0, 0, (unsigned char)b},
                          8);
            break;
        case 'P':
            h2_frame_send(server, 6, 0, 0, "pingpong", 8);
            break;
        case 'X':
            len = h2_hex(out, argument);
            h2_bytes_send(server, out, len);
            break;
        case 'C':
            h2_server_hang_up(server);
            return;
        default:
            fail_msg("no such step: %s", step);
        }
        step = strchr(step, ';');
        step = step != NULL ? step + 1 : NULL;
    }
}

static inline void h2_frame_take(struct h2_server *server, const unsigned char *head,
                                 const unsigned char *payload, size_t len)
{
    unsigned stream =
        (unsigned)head[5] << 24 | (unsigned)head[6] << 16 | (unsigned)head[7] << 8 | head[8];

    switch (head[3]) {
    case 0:
        server->data_bytes += len;
        break;
    case 1:
        server->requests++;
        server->head_len = len < sizeof(server->head) ? len : sizeof(server->head);
        memcpy(server->head, payload, server->head_len);
        h2_script_play(server, stream);
        break;
    case 3:
        server->resets++;
        server->reset_code = payload[3];
        break;
    case 4:
        if ((head[4] & 1) != 0) {
            server->settings_acks++;
        } else {
            h2_frame_send(server, 4, 1, 0, NULL, 0);
        }
        break;
    case 6:
        server->pings_answered += head[4] & 1;
        if ((head[4] & 1) == 0) {
            h2_frame_send(server, 6, 1, 0, payload, 8);
        }
        break;
    case 7:
        server->goaways++;
        break;
    default:
        break;
    }
}

/* Takes what there is to accept and to read. */
static inline void h2_server_turn(struct h2_server *server)
{
    ssize_t n;

    if (server->fd < 0 && server->listen_fd >= 0) {
        server->fd = accept4(server->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (server->fd >= 0) {
            assert_int_equal(
                setsockopt(server->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
            server->accepted++;
            server->in_len = server->parsed = 0;
            server->preface_seen = false;
            h2_frame_send(server, 4, 0, 0, NULL, 0);
        }
    }
    if (server->fd < 0) {
        return;
    }
    memmove(server->in, server->in + server->parsed, server->in_len - server->parsed);
    server->in_len -= server->parsed;
    server->parsed = 0;
    n = recv(server->fd, server->in + server->in_len, sizeof(server->in) - server->in_len, 0);
    if (n == 0) {
        h2_server_hang_up(server);
        return;
    }
    server->in_len += n > 0 ? (size_t)n : 0;
    if (!server->preface_seen && server->in_len >= 24) {
        assert_memory_equal(server->in, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
        server->preface_seen = true;
        server->parsed = 24;
    }
    while (server->preface_seen && server->fd >= 0 && server->in_len - server->parsed >= 9) {
        const unsigned char *head = server->in + server->parsed;
        size_t len = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];

        if (server->in_len - server->parsed < 9 + len) {
            break;
        }
        server->parsed += 9 + len;
        h2_frame_take(server, head, head + 9, len);
    }
}
