/* SPDX-License-Identifier: Apache-2.0 */
/* What peers of every protocol share, and those that speak none. */
#include "tests/events/peer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct kb_rand peer_rand;
bool peer_trace;
uint64_t peer_requests, peer_answers, peer_handshakes;

uint64_t peer_roll(uint64_t below)
{
    return kb_rand_u64(&peer_rand) % below;
}

static const char *kind_name(const struct peer *peer)
{
    static const char *const names[] = {"new", "h1", "h2", "raw"};

    return names[peer->kind];
}

void peer_note(const struct peer *peer, const char *what)
{
    if (peer_trace) {
        fprintf(stderr, "  %s %s fd %d: %s\n", kind_name(peer), peer->server ? "server" : "client",
                peer->net != NULL ? peer->net->fd : -1, what);
    }
}

void peer_fault(const struct peer *peer, const char *what)
{
    fprintf(stderr, "BROKEN PROMISE: %s %s fd %d: %s\n", kind_name(peer),
            peer->server ? "upstream" : "client", peer->net != NULL ? peer->net->fd : -1, what);
    abort();
}

static void kind_set(struct peer *peer, enum peer_kind kind)
{
    peer->kind = (uint8_t)kind;
    if (kind == PEER_H1) {
        peer_h1_begin(peer);
    } else if (kind == PEER_H2) {
        peer_h2_begin(peer);
    }
}

struct peer *peer_create(struct sim_conn *net, bool server, enum peer_kind kind, bool tls)
{
    struct peer *peer = kb_calloc(1, sizeof(*peer));

    peer->net = net;
    peer->server = server;
    net->peer = peer;
    kind_set(peer, kind);
    if (tls) {
        peer_tls_begin(peer);
    }
    return peer;
}

void peer_destroy(struct peer *peer)
{
    peer_close(peer, false);
    nghttp2_session_del(peer->session);
    peer_tls_destroy(peer->tls);
    sim_bytes_dispose(&peer->unsent);
    sim_bytes_dispose(&peer->wire);
    sim_bytes_dispose(&peer->plain);
    free(peer);
}

void peer_close(struct peer *peer, bool reset)
{
    struct sim_conn *net = peer->net;

    if (net == NULL) {
        return;
    }
    peer_note(peer, reset ? "resets" : "closes");
    peer->net = NULL;
    if (reset) {
        sim_peer_reset(net);
    } else {
        sim_peer_close(net);
    }
}

void peer_send(struct peer *peer, size_t most)
{
    struct sim_bytes *bytes = peer->tls != NULL ? &peer->wire : &peer->unsent;
    size_t n;

    if (peer->net == NULL || peer->fin_sent || peer->net->connect != SIM_CONNECTED) {
        return;
    }
    if (peer->tls != NULL) {
        peer_tls_pump(peer);
        if (peer->unsent.len == 0 && peer->close_when_sent && !peer->goodbye_said) {
            peer->goodbye_said = true;
            peer_tls_end(peer);
        }
    }
    n = KB_MIN(most, bytes->len);
    if (n > 0) {
        sim_peer_send(peer->net, bytes->p, n);
        sim_bytes_drop(bytes, n);
    }
    if (peer->unsent.len == 0 && bytes->len == 0 && peer->close_when_sent) {
        peer->fin_sent = true;
        peer_note(peer, "ends its side");
        sim_peer_fin(peer->net);
    }
}

/* A server learns by the first bytes what is spoken. */
static bool kind_find(struct peer *peer, const char *bytes, size_t len)
{
    static const char preface[] = "PRI * HTTP/2.0";

    if (peer->kind == PEER_UNKNOWN && len < 4) {
        return false;
    }
    if (peer->kind == PEER_UNKNOWN) {
        bool filler = bytes[0] == '.' || bytes[0] == '\0'; /* CONNECT ended at the proxy */

        kind_set(peer, filler ? PEER_RAW : memcmp(bytes, preface, 4) == 0 ? PEER_H2 : PEER_H1);
    }
    return true;
}

static void ended_by_proxy(struct peer *peer)
{
    bool reset = peer->net->reset;

    peer_note(peer, reset ? "was reset" : "sees the end");
    if (!reset && peer->kind == PEER_H1) {
        peer_h1_end(peer);
    }
    if (reset || peer->kind != PEER_RAW || peer->fin_sent || peer_chance(50)) {
        peer_close(peer, false);
    }
}

static void bytes_read(struct peer *peer, struct sim_bytes *from, size_t n)
{
    char *copy;

    if (n == 0 || !kind_find(peer, from->p, from->len)) {
        return;
    }
    copy = kb_malloc(n);
    memcpy(copy, from->p, n);
    sim_bytes_drop(from, n);
    if (peer->kind == PEER_H1) {
        peer_h1_read(peer, copy, n);
    } else if (peer->kind == PEER_H2) {
        peer_h2_read(peer, copy, n);
    }
    free(copy);
}

void peer_read(struct peer *peer, size_t most)
{
    struct sim_conn *net = peer->net;
    size_t n;

    if (net == NULL || net->connect != SIM_CONNECTED) {
        return;
    }
    n = KB_MIN(most, net->from_proxy.len);
    if (peer->tls == NULL) {
        bytes_read(peer, &net->from_proxy, n);
    } else if (n > 0) {
        peer_tls_read(peer, net->from_proxy.p, n);
        sim_bytes_drop(&net->from_proxy, n);
        bytes_read(peer, &peer->plain, peer->plain.len);
    }
    if (peer->net != NULL && net->from_proxy.len == 0 && (net->proxy_fin || net->proxy_closed)) {
        ended_by_proxy(peer);
    }
}

static void raw_act(struct peer *peer)
{
    char bytes[4096];
    size_t n = 1 + peer_roll(sizeof(bytes));

    memset(bytes, 'r', n);
    sim_bytes_add(&peer->unsent, bytes, n);
    peer->close_when_sent = peer->close_when_sent || peer_chance(10);
}

void peer_act(struct peer *peer)
{
    if (peer->net == NULL || peer->unsent.len > PEER_UNSENT_MAX) {
        return;
    }
    if (peer->net->connect == SIM_CONNECTING) {
        if (peer_chance(80)) {
            peer->net->connect = SIM_CONNECTED;
        } else if (peer_chance(50)) {
            peer_note(peer, "refuses the connection");
            peer_close(peer, true);
        }
        return;
    }
    if (peer_chance(2)) {
        peer_close(peer, peer_chance(50));
    } else if (peer_chance(1)) {
        peer->close_when_sent = true;
    } else if (peer->tls != NULL && peer_chance(2)) {
        peer_tls_act(peer);
    } else if (peer->kind == PEER_H1) {
        peer_h1_act(peer);
    } else if (peer->kind == PEER_H2) {
        peer_h2_act(peer);
    } else if (peer->kind == PEER_RAW) {
        raw_act(peer);
    }
}

bool peer_settled(const struct peer *peer)
{
    if (peer->net == NULL || peer->broken) {
        return true;
    }
    if (peer->kind == PEER_H1) {
        return peer->asked_count == 0 && !peer->tunnel;
    }
    for (size_t i = 0; i < PEER_STREAMS_MAX; i++) {
        if (peer->streams[i].id != 0) {
            return false;
        }
    }
    return true;
}

const char *peer_path(void)
{
    static const char *const paths[] = {
        "/h1/a",      "/h1/b",    "/h2/a",    "/h2/b",     "/same/x",     "/retry/1",
        "/retry2/1",  "/hedge/1", "/mirror",  "/redirect", "/internal/1", "/timeout",
        "/small",     "/gzip",    "/nowhere", "/weighted", "/direct",     "/none",
        "/hedge2/1",  "/dying/1", "/budget/", "/perhost/", "/buffer",     "/h1/../h2/c",
        "/duration/", "/limited", "/grpc/a",  "/ws",       "/h2ws",       "/mirror2",
        "/checked/1", "/tls/a",   "/tls/b",   "/tls2/a",   "/tls2/b",     "/tlsauto/a",
        "/tls3/a",
    };

    return paths[peer_roll(KB_ARRAY_LEN(paths))];
}

const char *peer_header(void)
{
    static const char *const headers[] = {
        "x-envoy-fault-abort-request: 418",
        "x-envoy-fault-delay-request: 20",
        "x-deny: yes",
        "x-envoy-max-retries: 3",
        "x-envoy-retry-on: 5xx,reset,connect-failure",
        "x-envoy-upstream-rq-timeout-ms: 30",
        "x-envoy-upstream-rq-per-try-timeout-ms: 10",
        "x-envoy-hedge-on-per-try-timeout: true",
        "x-a: b",
        "accept-encoding: gzip",
        "grpc-timeout: 50m",
        "content-type: application/grpc",
        "x-long: 0123456789012345678901234567890123456789012345678901234567890123456789",
        "expect: 100-continue",
        "te: trailers",
        "cookie: a=b; c=d",
    };

    return headers[peer_roll(KB_ARRAY_LEN(headers))];
}
