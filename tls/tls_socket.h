/* SPDX-License-Identifier: Apache-2.0 */
/* The TLS transport socket of one connection (Envoy SslSocket): between conn->in, conn->out and the
 * descriptor. For this room. */
#pragma once

#include "proxy/api/transport_socket.h"
#include "tls/tls_bio.h"
#include "tls/tls_context.h"
#include "tls/tls_info.h"

#define KB_TLS_FAILURE_MAX 1024 /* of a transport failure reason */

struct kb_tls_socket {
    KB_OBJ;
    struct kb_conn *conn;
    SSL *ssl; /* NULL: not ready, or closed */
    struct kb_tls_context *context;
    struct kb_tls_context_local *local;
    struct kb_tls_bio bio;
    struct kb_buf early; /* what listener filters have read; empty after the first event */
    struct kb_ssl_connection_info *info;
    char *failure;              /* the transport failure reason; NULL: none */
    char *verify_details;       /* why the peer's certificate was refused; NULL: it was not */
    struct kb_str *verify_sans; /* auto_san_validation */
    size_t verify_san_count;
    uint16_t session_signature; /* of a resumed session: SignatureScheme of its peer; 0: none */
    bool of_ticket;             /* the session came in a ticket, or left in one */
    bool begun;                 /* the peer's first byte was seen */
    bool verify_failed;
    bool peer_validated;
    bool shutdown_sent;
    bool failed;
};
KB_OBJ_MAGIC(kb_tls_socket, 0x544c534b);

/* Puts a socket on a connection; `context` NULL: its secrets are not there, and the connection is
 * going to be closed at its first event. On the connection's worker. */
void kb_tls_socket_create(struct kb_conn *conn, struct kb_tls_context *context,
                          const struct kb_transport_socket_options *options);

/* Callbacks of SSL_CTX; `arg` is the context. */
int kb_tls_alpn_select(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *in, unsigned in_len, void *arg);
int kb_tls_client_hello_check(SSL *ssl, int *alert, void *arg);
int kb_tls_certificate_select(SSL *ssl, void *arg);

/* Whom a handshake that is done was with, to socket->info: tls_ticket.c. */
void kb_tls_session_peer_take(struct kb_tls_socket *socket);
/* Statistics of a handshake that is done: tls_stats.c. */
void kb_tls_handshake_count(struct kb_tls_socket *socket);
/* SignatureScheme (RFC 8446 section 4.2.3) with which the peer signed in this handshake; 0: it did
 * not. */
uint16_t kb_tls_signature_scheme(SSL *ssl);
/* Takes what OpenSSL has to say of a failure, counts it, and sets conn->info's reason. Leaves
 * OpenSSL's queue empty: tls_failure.c. */
void kb_tls_failure_take(struct kb_tls_socket *socket);
