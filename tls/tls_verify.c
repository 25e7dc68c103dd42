/* SPDX-License-Identifier: Apache-2.0 */
/* The verdict on a peer's certificate, in the order and the words of Envoy's DefaultCertValidator:
 * the chain, then names asked for by the connection, then configured names, then pins. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/err.h>

#include "base/log.h"
#include "base/mem.h"
#include "tls/tls_socket.h"

#define DETAILS_MAX      700
/* OpenSSL makes alerts of these: of one that it has no alert for, certificate_unknown. */
#define ERROR_OF_NAMES   X509_V_ERR_SUBTREE_MINMAX
#define ERROR_OF_EXPIRED X509_V_ERR_CERT_HAS_EXPIRED

enum verdict { VERDICT_NOTHING_ASKED, VERDICT_GOOD, VERDICT_BAD };

static KB_PRINTF(2, 3) void details_set(struct kb_tls_socket *socket, const char *fmt, ...)
{
    char text[DETAILS_MAX];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    free(socket->verify_details);
    socket->verify_details = kb_strdup(text);
}

/* BoringSSL's words where OpenSSL 3 has others. */
static const char *error_text(int error)
{
    switch (error) {
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        return "self signed certificate";
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        return "self signed certificate in certificate chain";
    case X509_V_ERR_CERT_CHAIN_TOO_LONG:
        return "unable to get local issuer certificate";
    case X509_V_ERR_INVALID_PURPOSE:
        return "unsupported certificate purpose";
    default:
        return X509_verify_cert_error_string(error);
    }
}

static bool is_of_revocation(int error)
{
    switch (error) {
    case X509_V_ERR_CERT_REVOKED:
    case X509_V_ERR_UNABLE_TO_GET_CRL:
    case X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER:
    case X509_V_ERR_UNABLE_TO_DECRYPT_CRL_SIGNATURE:
    case X509_V_ERR_CRL_SIGNATURE_FAILURE:
    case X509_V_ERR_CRL_NOT_YET_VALID:
    case X509_V_ERR_CRL_HAS_EXPIRED:
    case X509_V_ERR_CRL_PATH_VALIDATION_ERROR:
        return true;
    default:
        return false;
    }
}

static bool chain_verify(struct kb_tls_socket *socket, X509_STORE_CTX *store_ctx)
{
    int error;

    if (X509_verify_cert(store_ctx) == 1) {
        return true;
    }
    error = X509_STORE_CTX_get_error(store_ctx);
    details_set(socket,
                "verify cert failed: X509_verify_cert: certificate verification error at depth %d: "
                "%s%s",
                X509_STORE_CTX_get_error_depth(store_ctx),
                is_of_revocation(error)
                    ? "certificate revocation check against provided CRLs failed: "
                    : "",
                error_text(error));
    if (error == X509_V_ERR_CERT_NOT_YET_VALID) {
        X509_STORE_CTX_set_error(store_ctx, ERROR_OF_EXPIRED); /* the same alert, as in Envoy */
    }
    kb_stat_inc(socket->local->stats, KB_STAT_SSL_FAIL_VERIFY_ERROR);
    return false;
}

/* ---- names ---- */

static bool asked_name_match(const struct kb_tls_socket *socket, int type, struct kb_str name)
{
    for (size_t i = 0; i < socket->verify_san_count; i++) {
        if (name.p != NULL && kb_str_find_char(name, '\0') < 0 &&
            (type == GEN_DNS ? kb_tls_dns_name_match(socket->verify_sans[i], name)
                             : kb_str_eq(socket->verify_sans[i], name))) {
            return true;
        }
    }
    return false;
}

static bool configured_name_match(const struct kb_tls_validation *validation, int type,
                                  struct kb_str name)
{
    for (size_t i = 0; i < validation->matcher_count; i++) {
        if (kb_tls_san_matcher_match(&validation->matchers[i], type, name)) {
            return true;
        }
    }
    return false;
}

/* Any name of the certificate that any of those asked for likes. */
static bool names_match(const struct kb_tls_socket *socket, const GENERAL_NAMES *names, bool asked)
{
    int count = KB_MIN(sk_GENERAL_NAME_num(names), KB_TLS_SANS_MAX);

    for (int i = 0; i < count; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        char address[KB_TLS_SAN_TEXT_MAX];
        struct kb_str text = kb_tls_san_text(name, address);

        if (asked ? asked_name_match(socket, name->type, text)
                  : configured_name_match(socket->context->validation, name->type, text)) {
            return true;
        }
    }
    return false;
}

static void list_add(char *list, size_t cap, struct kb_str text)
{
    size_t len = strlen(list);

    snprintf(list + len, cap - len, "%s%.*s", len > 0 ? ", " : "", KB_STR_ARG(text));
}

/* "a.test, spiffe://b" */
static void names_list(const GENERAL_NAMES *names, char *list, size_t cap)
{
    int count = KB_MIN(sk_GENERAL_NAME_num(names), KB_TLS_SANS_MAX);

    list[0] = '\0';
    for (int i = 0; i < count; i++) {
        char address[KB_TLS_SAN_TEXT_MAX];

        list_add(list, cap, kb_tls_san_text(sk_GENERAL_NAME_value(names, i), address));
    }
}

static void asked_names_told(struct kb_tls_socket *socket, const GENERAL_NAMES *names)
{
    char expected[DETAILS_MAX / 2 - 100] = "";
    char list[DETAILS_MAX / 2];

    for (size_t i = 0; i < socket->verify_san_count; i++) {
        list_add(expected, sizeof(expected), socket->verify_sans[i]);
    }
    names_list(names, list, sizeof(list));
    details_set(socket,
                "verify cert failed: verify SAN list, expected SANs: [%s], certificate SANs: [%s]",
                expected, list);
}

static void names_told(struct kb_tls_socket *socket, const GENERAL_NAMES *names)
{
    char list[DETAILS_MAX - 100];

    names_list(names, list, sizeof(list));
    details_set(socket, "verify cert failed: SAN matcher, certificate SANs are [%s]", list);
}

static enum verdict names_verify(struct kb_tls_socket *socket, X509 *leaf)
{
    const struct kb_tls_validation *validation = socket->context->validation;
    enum verdict verdict = VERDICT_GOOD;
    GENERAL_NAMES *names;

    if (socket->verify_san_count == 0 && validation->matcher_count == 0) {
        return VERDICT_NOTHING_ASKED;
    }
    names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    if (socket->verify_san_count > 0 && (names == NULL || !names_match(socket, names, true))) {
        asked_names_told(socket, names);
        verdict = VERDICT_BAD;
    } else if (validation->matcher_count > 0 &&
               (names == NULL || !names_match(socket, names, false))) {
        names_told(socket, names);
        verdict = VERDICT_BAD;
    }
    sk_GENERAL_NAME_pop_free(names, GENERAL_NAME_free);
    if (verdict == VERDICT_BAD) {
        kb_stat_inc(socket->local->stats, KB_STAT_SSL_FAIL_VERIFY_SAN);
    }
    return verdict;
}

/* ---- pins ---- */

static bool digest_in(const unsigned char (*pins)[32], size_t count, const unsigned char digest[32])
{
    for (size_t i = 0; i < count; i++) {
        if (memcmp(pins[i], digest, 32) == 0) {
            return true;
        }
    }
    return false;
}

static bool hash_pinned(struct kb_tls_socket *socket, X509 *leaf)
{
    const struct kb_tls_validation *validation = socket->context->validation;
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int len = 0;

    return validation->hash_count > 0 &&
           X509_digest(leaf, socket->local->lib->sha256, digest, &len) == 1 && len == 32 &&
           digest_in((const unsigned char (*)[32])validation->hashes, validation->hash_count,
                     digest);
}

static bool spki_pinned(struct kb_tls_socket *socket, X509 *leaf)
{
    const struct kb_tls_validation *validation = socket->context->validation;
    unsigned char *der = NULL;
    unsigned char digest[32];
    struct kb_str piece;
    bool found;
    int len;

    if (validation->spki_count == 0) {
        return false;
    }
    len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(leaf), &der);
    if (len <= 0) {
        return false;
    }
    piece = kb_str_make((const char *)der, (size_t)len);
    kb_tls_sha256(socket->local->lib, &piece, 1, digest);
    OPENSSL_free(der);
    found =
        digest_in((const unsigned char (*)[32])validation->spkis, validation->spki_count, digest);
    return found;
}

static enum verdict pins_verify(struct kb_tls_socket *socket, X509 *leaf)
{
    const struct kb_tls_validation *validation = socket->context->validation;

    if (validation->hash_count == 0 && validation->spki_count == 0) {
        return VERDICT_NOTHING_ASKED;
    }
    if (hash_pinned(socket, leaf) || spki_pinned(socket, leaf)) {
        return VERDICT_GOOD;
    }
    details_set(socket, "verify cert failed: cert hash and spki");
    kb_stat_inc(socket->local->stats, KB_STAT_SSL_FAIL_VERIFY_CERT_HASH);
    return VERDICT_BAD;
}

static bool peer_accepted(struct kb_tls_socket *socket, X509_STORE_CTX *store_ctx, X509 *leaf)
{
    enum verdict names, pins;
    bool trusted = socket->context->validation->trust != NULL;

    if (trusted && !chain_verify(socket, store_ctx)) {
        return false;
    }
    names = names_verify(socket, leaf);
    if (names == VERDICT_BAD) {
        X509_STORE_CTX_set_error(store_ctx, ERROR_OF_NAMES);
        return false;
    }
    pins = pins_verify(socket, leaf);
    if (pins == VERDICT_BAD) {
        return false;
    }
    /* Without roots something else has to speak for the peer. */
    return trusted || names == VERDICT_GOOD || pins == VERDICT_GOOD;
}

/* TLS 1.2: OpenSSL takes keys on the curves of key exchange only, BoringSSL on any that it knows.
 * The exchange is over when a server sees a client's certificate. */
static void curves_of_keys_allow(const struct kb_tls_socket *socket)
{
    if (socket->context->settings->downstream && SSL_version(socket->ssl) < TLS1_3_VERSION) {
        (void)SSL_set1_groups_list(socket->ssl, "X25519:P-256:P-384:P-521");
    }
}

int kb_tls_verify(X509_STORE_CTX *store_ctx, void *arg)
{
    const struct kb_tls_context *context = arg;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store_ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct kb_tls_socket *socket = KB_CAST(SSL_get_app_data(ssl), kb_tls_socket);
    X509 *leaf = X509_STORE_CTX_get0_cert(store_ctx);

    KB_ASSERT(socket->context == context);
    curves_of_keys_allow(socket);
    if (!kb_tls_validation_verifies(context->validation)) {
        X509_STORE_CTX_set_error(store_ctx, X509_V_OK);
        return 1;
    }
    socket->peer_validated = leaf != NULL && peer_accepted(socket, store_ctx, leaf);
    if (socket->peer_validated) {
        kb_ssl_info_issuer_set(socket->info, X509_STORE_CTX_get0_chain(store_ctx),
                               X509_STORE_CTX_get0_untrusted(store_ctx));
    }
    X509_STORE_CTX_set0_verified_chain(store_ctx, NULL); /* the connection would keep it */
    if (socket->peer_validated || context->validation->accept_untrusted) {
        X509_STORE_CTX_set_error(store_ctx, X509_V_OK);
        ERR_clear_error();
        return 1;
    }
    if (X509_STORE_CTX_get_error(store_ctx) == X509_V_OK) {
        X509_STORE_CTX_set_error(store_ctx, X509_V_ERR_CERT_REJECTED);
    }
    socket->verify_failed = true;
    return 0;
}
