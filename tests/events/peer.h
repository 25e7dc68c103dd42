/* SPDX-License-Identifier: Apache-2.0 */
/* The far sides of the simulated network: clients and upstreams of HTTP/1, HTTP/2 and plain bytes,
 * which do something at random when they are asked, and read what comes with a strict parser:
 * anything that it refuses, or an answer too many, is a fault of the proxy. */
#pragma once

#include <llhttp.h>
#include <nghttp2/nghttp2.h>

#include "base/rand.h"
#include "tests/events/peer_tls.h"
#include "tests/events/sim_net.h"

#define PEER_UNSENT_MAX  400000 /* a peer that has so much to send makes no more */
#define PEER_STREAMS_MAX 8

enum peer_kind { PEER_UNKNOWN, PEER_H1, PEER_H2, PEER_RAW };

/* What a request on its way to an answer was. */
struct peer_asked {
    bool head, connect, upgrade;
};

struct peer_stream {
    int32_t id; /* 0: free */
    size_t body_left;
    bool answered; /* server: the response was begun */
    bool body_done;
    bool trailers;
    bool tunnel; /* its body goes on until somebody says otherwise */
    bool deferred;
};

struct peer {
    struct sim_conn *net; /* NULL: closed */
    bool server;
    uint8_t kind; /* enum peer_kind */
    bool broken;  /* it sent what no protocol allows: whatever comes back is right */
    bool fin_sent;
    bool close_when_sent;
    struct sim_bytes unsent;
    struct peer_tls *tls;         /* NULL: none */
    struct sim_bytes wire, plain; /* TLS: records to send; what came in records */
    bool goodbye_said;
    /* HTTP/1 */
    llhttp_t parser;
    struct peer_asked asked[16]; /* client: requests without a whole answer */
    size_t asked_count;
    bool request_seen, request_done, answered; /* server */
    bool tunnel;
    /* HTTP/2 */
    nghttp2_session *session;
    struct peer_stream streams[PEER_STREAMS_MAX];
    bool manual_window;
};

/* Numbers for everybody; the trace of what is done, when asked for. */
extern struct kb_rand peer_rand;
extern bool peer_trace;
/* The number of things asked, and answered, and of TLS handshakes done, for the end of a run. */
extern uint64_t peer_requests, peer_answers, peer_handshakes;

uint64_t peer_roll(uint64_t below);
KB_INLINE bool peer_chance(unsigned percent)
{
    return peer_roll(100) < percent;
}
void peer_note(const struct peer *peer, const char *what) KB_COLD;
/* A promise was broken: says so, and ends the process. */
void peer_fault(const struct peer *peer, const char *what) KB_NORETURN;

struct peer *peer_create(struct sim_conn *net, bool server, enum peer_kind kind, bool tls);
/* Closes what is open and frees it. */
void peer_destroy(struct peer *peer);
/* Makes a request or an answer, resets, ends...: one thing, at random. */
void peer_act(struct peer *peer);
/* Sends some of what it has to send. */
void peer_send(struct peer *peer, size_t most);
/* Takes some of what the proxy sent, and notices its end. */
void peer_read(struct peer *peer, size_t most);
void peer_close(struct peer *peer, bool reset);
/* Nothing is owed to it: every request that it sent has its end. */
bool peer_settled(const struct peer *peer);

/* Paths and headers that lead to the routes of the configuration. */
const char *peer_path(void);
const char *peer_header(void);

void peer_h1_begin(struct peer *peer);
void peer_h1_act(struct peer *peer);
void peer_h1_read(struct peer *peer, const char *bytes, size_t len);
void peer_h1_end(struct peer *peer);
void peer_h2_begin(struct peer *peer);
void peer_h2_act(struct peer *peer);
void peer_h2_read(struct peer *peer, const char *bytes, size_t len);
/* What the session wants to send goes to `unsent`. */
void peer_h2_pump(struct peer *peer);
