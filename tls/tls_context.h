/* SPDX-License-Identifier: Apache-2.0 */
/* A TLS context: settings with the secrets of the moment, published to the workers, each of which
 * makes its own SSL_CTX at the first connection that needs it. For this room. */
#pragma once

#include "base/slot.h"
#include "tls/tls_settings.h"
#include "tls/tls_validation.h"

#define KB_TLS_CERTIFICATES_MAX 32

/* A session to be resumed, and the server's name that it was made with. */
struct kb_tls_session {
    SSL_SESSION *session;
    char *server_name;
};

/* One worker's part. */
struct kb_tls_context_local {
    struct kb_tls_lib *lib;
    SSL_CTX *ctx;
    struct kb_stat_block *stats;
    struct kb_tls_session *sessions; /* upstream: [max_session_keys], the latest last */
    uint32_t session_count;
    bool failed; /* OpenSSL could not make it; said once */
};

struct kb_tls_context {
    struct kb_shared shared;
    struct kb_tls_settings *settings;
    struct kb_tls_validation *validation; /* NULL: the peer is not looked at */
    struct kb_tls_certificate *certificates[KB_TLS_CERTIFICATES_MAX];
    size_t certificate_count;
    struct kb_stat_named **expiries; /* gauges; NULL: none is shown */
    size_t expiry_count;
    unsigned char session_id_context[32]; /* sessions of other contexts are not taken up */
    struct kb_tls_context_local locals[]; /* by worker index */
};

/* Takes references of its own. Held once by the main thread. `roots_name`: of the secret that the
 * validation context is from, for statistics; empty: it stands inline. */
struct kb_tls_context *kb_tls_context_create(struct kb_tls_settings *settings,
                                             struct kb_tls_validation *validation,
                                             struct kb_str roots_name,
                                             struct kb_tls_certificate *const *certificates,
                                             size_t certificate_count);
/* This worker's SSL_CTX, or NULL when it cannot be made. On the worker. */
struct kb_tls_context_local *kb_tls_context_local_get(struct kb_tls_context *context,
                                                      struct kb_worker *worker);

/* ---- tls_session.c ---- */

/* Prepares resumption on a new SSL_CTX. */
void kb_tls_session_ctx_init(struct kb_tls_context *context, SSL_CTX *ctx);
/* Offers a session that fits, if there is one. */
void kb_tls_session_offer(struct kb_tls_context_local *local, SSL *ssl, struct kb_str server_name);
void kb_tls_sessions_dispose(struct kb_tls_context_local *local);

/* ---- tls_ticket.c ---- */

/* Tickets of a new downstream SSL_CTX. */
void kb_tls_ticket_ctx_init(struct kb_tls_context *context, SSL_CTX *ctx);

/* ---- tls_verify.c ---- */

/* For SSL_CTX_set_cert_verify_callback; `arg` is the context. */
int kb_tls_verify(X509_STORE_CTX *store_ctx, void *arg);
