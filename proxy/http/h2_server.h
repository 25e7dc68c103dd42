/* SPDX-License-Identifier: Apache-2.0 */
/* Downstream HTTP/2 codec of a connection manager: a server session on its connection. */
#pragma once

#include "proxy/http/h2_server_session.h"

struct kb_hcm;
struct kb_h2_server;

/* The client's preface begins so (RFC 9113 section 3.4); Envoy decides by this much of it. */
#define KB_H2_PREFACE_START "PRI * HTTP/2"

/* Made when the connection's first bytes are there; its SETTINGS wait to be sent. */
struct kb_h2_server *kb_h2_server_create(struct kb_hcm *hcm);
/* When no stream of it is left. */
void kb_h2_server_destroy(struct kb_h2_server *server);
/* Takes what is in `in` and gives it to the streams. */
void kb_h2_server_dispatch(struct kb_h2_server *server, struct kb_buf *in);
/* `n` bytes left through the descriptor. */
void kb_h2_server_sent(struct kb_h2_server *server, size_t n);
/* The connection's queue passed its high watermark: the client does not read. */
void kb_h2_server_blocked(struct kb_h2_server *server);
/* Moves what can be sent to the connection's queue: before it is closed with flushing. */
void kb_h2_server_flush(struct kb_h2_server *server);
/* The connection was closed: nothing more is done. */
void kb_h2_server_stop(struct kb_h2_server *server);

/* GOAWAY as announcement, and the last one. */
void kb_h2_server_drain_notice(struct kb_h2_server *server);
void kb_h2_server_goaway(struct kb_h2_server *server);
