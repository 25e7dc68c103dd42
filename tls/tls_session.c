/* SPDX-License-Identifier: Apache-2.0 */
/* Resumption. Downstream: tickets, sealed with keys that all workers share, and OpenSSL's cache of
 * a worker for clients without tickets. Upstream: the latest sessions of this context and worker;
 * a context belongs to one cluster and one identity, and a session is offered only for the server
 * name that it was made with. */
#include <stdlib.h>

#include <openssl/ssl.h>

#include "base/mem.h"
#include "tls/tls_socket.h"

#define STATEFUL_SESSIONS_MAX 1024 /* a worker and context */
#define TICKETS_TLS13         1    /* one is as good as two for proxies, and costs less */

/* ---- downstream ---- */

static void server_init(struct kb_tls_context *context, SSL_CTX *ctx)
{
    const struct kb_tls_settings *settings = context->settings;

    /* The cache is for clients of TLS 1.2 without tickets; 1.3 knows only tickets. */
    SSL_CTX_set_session_cache_mode(ctx, settings->stateful_resumption ? SSL_SESS_CACHE_SERVER
                                                                      : SSL_SESS_CACHE_OFF);
    SSL_CTX_sess_set_cache_size(ctx, STATEFUL_SESSIONS_MAX);
    SSL_CTX_set_timeout(ctx, (long)settings->session_timeout_s);
    SSL_CTX_set_num_tickets(ctx, settings->stateless_resumption ? TICKETS_TLS13 : 0);
    kb_tls_ticket_ctx_init(context, ctx);
    KB_ASSERT(SSL_CTX_set_session_id_context(ctx, context->session_id_context,
                                             sizeof(context->session_id_context)) == 1);
}

/* ---- upstream ---- */

static void session_remove(struct kb_tls_context_local *local, uint32_t at)
{
    SSL_SESSION_free(local->sessions[at].session);
    free(local->sessions[at].server_name);
    local->session_count--;
    memmove(local->sessions + at, local->sessions + at + 1,
            (local->session_count - at) * sizeof(local->sessions[0]));
}

static int session_new_cb(SSL *ssl, SSL_SESSION *session)
{
    struct kb_tls_socket *socket = KB_CAST(SSL_get_app_data(ssl), kb_tls_socket);
    struct kb_tls_context_local *local = socket->local;
    uint32_t max = socket->context->settings->max_session_keys;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    /* Of a connection with demands of its own on the peer's name the next one knows nothing. */
    if (socket->verify_san_count > 0 || max == 0) {
        return 0;
    }
    if (local->sessions == NULL) {
        local->sessions = kb_calloc(max, sizeof(local->sessions[0]));
    }
    if (local->session_count == max) {
        session_remove(local, 0);
    }
    local->sessions[local->session_count++] =
        (struct kb_tls_session){.session = session, .server_name = kb_strdup(name)};
    return 1;
}

void kb_tls_session_offer(struct kb_tls_context_local *local, SSL *ssl, struct kb_str server_name)
{
    for (uint32_t i = local->session_count; i > 0; i--) {
        SSL_SESSION *session = local->sessions[i - 1].session;

        if (!kb_str_ieq(kb_str_from_cstr(local->sessions[i - 1].server_name), server_name)) {
            continue;
        }
        (void)SSL_set_session(ssl, session);
        if (SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION) {
            session_remove(local, i - 1); /* RFC 8446 appendix C.4: a ticket is used once */
        }
        return;
    }
}

void kb_tls_sessions_dispose(struct kb_tls_context_local *local)
{
    while (local->session_count > 0) {
        session_remove(local, local->session_count - 1);
    }
    free(local->sessions);
    local->sessions = NULL;
}

void kb_tls_session_ctx_init(struct kb_tls_context *context, SSL_CTX *ctx)
{
    if (context->settings->downstream) {
        server_init(context, ctx);
        return;
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, session_new_cb);
}
