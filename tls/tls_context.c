/* SPDX-License-Identifier: Apache-2.0 */
/* SSL_CTX objects. Each worker has its own, of its own library context; they share nothing but
 * immutable text. */
#include "tls/tls_context.h"

#include <stdlib.h>

#include <openssl/err.h>

#include "base/log.h"
#include "base/mem.h"
#include "tls/tls_socket.h"

#define SECURITY_LEVEL 2 /* 112 bits */
/* TLS 1.3's, in BoringSSL's order where AES is done by the processor. */
#define CIPHERSUITES   "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define SECURITY_LEVEL_OLD 0 /* TLS 1.0 and 1.1 sign with SHA-1 */

static void context_destroy(struct kb_shared *shared)
{
    struct kb_tls_context *context = KB_CONTAINER_OF(shared, struct kb_tls_context, shared);
    uint32_t count = context->settings->server->worker_count + 1;

    for (uint32_t i = 0; i < count; i++) {
        kb_tls_sessions_dispose(&context->locals[i]);
        SSL_CTX_free(context->locals[i].ctx);
        kb_tls_lib_unref(context->locals[i].lib);
    }
    for (size_t i = 0; i < context->certificate_count; i++) {
        kb_tls_certificate_unref(context->certificates[i]);
    }
    for (size_t i = 0; i < context->expiry_count; i++) {
        kb_stat_named_destroy(context->expiries[i]);
    }
    free(context->expiries);
    kb_tls_validation_unref(context->validation);
    kb_tls_settings_unref(context->settings);
    kb_shared_dispose(shared);
    free(context);
}

/* Of who we are and who may come: a session of before a change of either is not resumed. */
static void session_id_context_make(struct kb_tls_context *context)
{
    struct kb_str pieces[KB_TLS_CERTIFICATES_MAX + 2];
    char flags[1] = {context->settings->require_client_certificate};
    size_t n = 0;

    pieces[n++] = kb_str_make(flags, sizeof(flags));
    if (context->validation != NULL) {
        pieces[n++] = kb_str_make((const char *)context->validation->digest,
                                  sizeof(context->validation->digest));
    }
    for (size_t i = 0; i < context->certificate_count; i++) {
        pieces[n++] = kb_str_make((const char *)context->certificates[i]->digest,
                                  sizeof(context->certificates[i]->digest));
    }
    kb_tls_sha256(kb_tls_worker_get(context->settings->server->main)->lib, pieces, n,
                  context->session_id_context);
}

/* "listener.x.ssl.certificate.NAME.expiration_unix_time_seconds"; of several with one name the last
 * counts, as in Envoy. */
static void expiry_add(struct kb_tls_context *context, struct kb_str name, int64_t not_after)
{
    const struct kb_tls_settings *settings = context->settings;
    struct kb_stat_named *gauge;
    struct kb_arena scratch;

    kb_arena_init(&scratch, NULL);
    gauge = kb_stat_named_create_shown(
        settings->server->stats,
        kb_str_printf(&scratch, "%.*scertificate.%.*s.expiration_unix_time_seconds",
                      KB_STR_ARG(settings->stats_prefix), KB_STR_ARG(name)),
        KB_STAT_GAUGE);
    kb_arena_dispose(&scratch);
    if (gauge == NULL) {
        return;
    }
    if (context->expiries == NULL) {
        context->expiries = kb_calloc(context->certificate_count + 1, sizeof(context->expiries[0]));
    }
    kb_stat_named_set(gauge, settings->server->main->index, (uint64_t)not_after);
    context->expiries[context->expiry_count++] = gauge;
}

static void expiries_show(struct kb_tls_context *context, struct kb_str roots_name)
{
    const struct kb_tls_trust *trust =
        context->validation != NULL ? context->validation->trust : NULL;

    for (size_t i = 0; i < context->certificate_count; i++) {
        expiry_add(context, context->certificates[i]->name, context->certificates[i]->not_after);
    }
    if (trust != NULL) {
        expiry_add(context, roots_name.len > 0 ? roots_name : KB_STR(KB_TLS_UNNAMED_ROOTS),
                   kb_tls_trust_not_after(trust));
    } else if (context->validation != NULL) {
        expiry_add(context, KB_STR(KB_TLS_NO_ROOTS), INT64_MAX);
    }
}

struct kb_tls_context *kb_tls_context_create(struct kb_tls_settings *settings,
                                             struct kb_tls_validation *validation,
                                             struct kb_str roots_name,
                                             struct kb_tls_certificate *const *certificates,
                                             size_t certificate_count)
{
    uint32_t workers = settings->server->worker_count;
    struct kb_tls_context *context =
        kb_calloc(1, sizeof(*context) + (workers + 1) * sizeof(context->locals[0]));

    kb_shared_init(&context->shared, settings->server->main, workers, context_destroy);
    context->settings = kb_tls_settings_ref(settings);
    context->validation = validation != NULL ? kb_tls_validation_ref(validation) : NULL;
    context->certificate_count = KB_MIN(certificate_count, (size_t)KB_TLS_CERTIFICATES_MAX);
    for (size_t i = 0; i < context->certificate_count; i++) {
        context->certificates[i] = kb_tls_certificate_ref(certificates[i]);
    }
    session_id_context_make(context);
    expiries_show(context, roots_name);
    return context;
}

/* ---- one worker's SSL_CTX ---- */

static bool certificates_set(struct kb_tls_context *context, struct kb_worker *worker, SSL_CTX *ctx)
{
    for (size_t i = 0; i < context->certificate_count; i++) {
        const struct kb_tls_certificate_local *local =
            kb_tls_certificate_local_get(context->certificates[i], worker);

        if (local == NULL) {
            return false;
        }
        if (i == 0 &&
            SSL_CTX_use_cert_and_key(ctx, local->leaf, local->key, local->chain, 1) != 1) {
            return false;
        }
    }
    if (context->certificate_count > 1) {
        SSL_CTX_set_cert_cb(ctx, kb_tls_certificate_select, context);
    }
    return true;
}

/* The names of the roots, sent to clients when a certificate is asked for. */
static bool client_ca_list_set(struct kb_tls_context *context, struct kb_worker *worker,
                               SSL_CTX *ctx)
{
    STACK_OF(X509) *roots = kb_tls_pem_certificates(kb_tls_trust_ca_pem(context->validation->trust),
                                                    kb_tls_worker_get(worker)->lib);
    bool good = roots != NULL;

    for (int i = 0; good && i < sk_X509_num(roots); i++) {
        good = SSL_CTX_add_client_CA(ctx, sk_X509_value(roots, i)) == 1;
    }
    sk_X509_pop_free(roots, X509_free);
    return good;
}

static bool validation_set(struct kb_tls_context *context, struct kb_worker *worker, SSL_CTX *ctx)
{
    const struct kb_tls_settings *settings = context->settings;
    const struct kb_tls_validation *validation = context->validation;
    int mode = SSL_VERIFY_NONE;

    if (kb_tls_validation_verifies(validation)) {
        X509_STORE *store = kb_tls_trust_store(validation->trust, worker);

        mode = SSL_VERIFY_PEER;
        if (validation->trust != NULL && store == NULL) {
            return false;
        }
        if (store != NULL) {
            SSL_CTX_set1_cert_store(ctx, store);
            if (settings->downstream && !validation->suppress_client_ca_list &&
                !client_ca_list_set(context, worker, ctx)) {
                return false;
            }
        }
        if (validation->max_verify_depth >= 0) {
            SSL_CTX_set_verify_depth(ctx, validation->max_verify_depth);
        }
        /* As Envoy: with nothing to check a certificate by, none is asked for. */
        if (settings->downstream && settings->require_client_certificate) {
            mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
        }
    }
    SSL_CTX_set_verify(ctx, mode, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, kb_tls_verify, context);
    return true;
}

static bool protocol_set(struct kb_tls_context *context, SSL_CTX *ctx)
{
    const struct kb_tls_settings *settings = context->settings;
    uint64_t options = SSL_OP_NO_COMPRESSION | SSL_OP_ALL;

    if (!settings->downstream || !settings->allow_renegotiation) {
        options |= SSL_OP_NO_RENEGOTIATION;
    }
    if (settings->downstream && !settings->prefer_client_ciphers) {
        options |= SSL_OP_CIPHER_SERVER_PREFERENCE;
    }
    SSL_CTX_set_options(ctx, options);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_security_level(ctx, settings->min_version < TLS1_2_VERSION ? SECURITY_LEVEL_OLD
                                                                           : SECURITY_LEVEL);
    if (settings->alpn_len > 0) {
        if (settings->downstream) {
            SSL_CTX_set_alpn_select_cb(ctx, kb_tls_alpn_select, context);
        } else if (SSL_CTX_set_alpn_protos(ctx, settings->alpn, (unsigned)settings->alpn_len) !=
                   0) {
            return false;
        }
    }
    if (settings->downstream) {
        SSL_CTX_set_client_hello_cb(ctx, kb_tls_client_hello_check, context);
    }
    return SSL_CTX_set_min_proto_version(ctx, settings->min_version) == 1 &&
           SSL_CTX_set_max_proto_version(ctx, settings->max_version) == 1 &&
           SSL_CTX_set_cipher_list(ctx, settings->ciphers) == 1 &&
           SSL_CTX_set_ciphersuites(ctx, CIPHERSUITES) == 1 &&
           SSL_CTX_set1_groups_list(ctx, settings->groups) == 1 &&
           (settings->signature_algorithms == NULL ||
            (SSL_CTX_set1_sigalgs_list(ctx, settings->signature_algorithms) == 1));
}

struct kb_tls_context_local *kb_tls_context_local_get(struct kb_tls_context *context,
                                                      struct kb_worker *worker)
{
    struct kb_tls_context_local *local = &context->locals[worker->index];
    struct kb_tls_worker *tls;

    if (KB_LIKELY(local->ctx != NULL)) {
        return local;
    }
    if (local->failed) {
        return NULL;
    }
    tls = kb_tls_worker_get(worker);
    ERR_clear_error();
    local->ctx =
        SSL_CTX_new_ex(tls->lib->ctx, NULL,
                       context->settings->downstream ? TLS_server_method() : TLS_client_method());
    if (local->ctx == NULL || !protocol_set(context, local->ctx) ||
        !certificates_set(context, worker, local->ctx) ||
        !validation_set(context, worker, local->ctx)) {
        char text[200];

        ERR_error_string_n(ERR_peek_error(), text, sizeof(text));
        KB_LOG(CONFIG, ERROR, "a TLS context cannot be made; its connections are closed: %s", text);
        ERR_clear_error();
        SSL_CTX_free(local->ctx);
        local->ctx = NULL;
        local->failed = true;
        return NULL;
    }
    kb_tls_session_ctx_init(context, local->ctx);
    local->lib = kb_tls_lib_ref(tls->lib);
    local->stats = kb_stat_group_block(context->settings->stats, worker->index);
    return local;
}
