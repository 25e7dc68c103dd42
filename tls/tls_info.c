/* SPDX-License-Identifier: Apache-2.0 */
/* Facts of a TLS connection, made when somebody asks and kept as long as the object. */
#include "tls/tls_info.h"

#include <stdlib.h>

#include <openssl/err.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/obj.h"
#include "tls/tls_facts.h"

struct kb_ssl_connection_info {
    KB_OBJ;
    uint32_t refs;
    uint32_t texts_known; /* 1 << enum kb_ssl_text */
    uint16_t cipher_id;   /* known with KB_SSL_CIPHER */
    bool validated;
    bool done;
    SSL *ssl; /* NULL: closed */
    struct kb_tls_worker *tls;
    struct kb_tls_lib *lib;
    struct kb_tls_facts *peer;  /* NULL: it showed no certificate */
    struct kb_tls_facts *local; /* NULL: nobody asked */
    X509 *local_certificate;
    struct kb_tls_facts *issuer; /* NULL: nobody asked */
    X509 *issuer_certificate; /* one of ours; NULL: the peer's was not checked in this handshake */
    bool issuer_sent;         /* it is among those that the peer sent */
    SSL_SESSION *session;     /* NULL while `ssl` has it */
    struct kb_arena arena;
    struct kb_str texts[KB_SSL_TEXT_COUNT - KB_SSL_SESSION_ID]; /* of the connection itself */
};
KB_OBJ_MAGIC(kb_ssl_connection_info, 0x544c5349);

/* ---- lifecycle ---- */

struct kb_ssl_connection_info *kb_ssl_connection_info_create(SSL *ssl, struct kb_tls_worker *tls)
{
    struct kb_ssl_connection_info *info = kb_calloc(1, sizeof(*info));

    KB_OBJ_SET(info, kb_ssl_connection_info);
    info->refs = 1;
    info->ssl = ssl;
    info->tls = tls;
    info->lib = kb_tls_lib_ref(tls->lib);
    kb_arena_init(&info->arena, NULL);
    return info;
}

void kb_ssl_info_peer_set(struct kb_ssl_connection_info *info, struct kb_tls_facts *peer)
{
    if (info->done) {
        kb_tls_facts_unref(peer); /* somebody may have texts of the first */
        return;
    }
    kb_tls_facts_unref(info->peer);
    info->peer = peer;
}

struct kb_tls_facts *kb_ssl_info_peer(struct kb_ssl_connection_info *info)
{
    return info->peer;
}

void kb_ssl_info_handshake_done(struct kb_ssl_connection_info *info, SSL *ssl, bool validated)
{
    info->done = true;
    info->validated = validated;
    info->local_certificate = SSL_get_certificate(ssl);
    if (info->local_certificate != NULL) {
        X509_up_ref(info->local_certificate);
    }
}

void kb_ssl_info_issuer_set(struct kb_ssl_connection_info *info, const STACK_OF(X509) * checked,
                            const STACK_OF(X509) * sent)
{
    X509 *issuer = sk_X509_value(checked, 1);

    info->issuer_sent = false;
    for (int i = 0; issuer != NULL && i < sk_X509_num(sent); i++) {
        info->issuer_sent = info->issuer_sent || sk_X509_value(sent, i) == issuer;
    }
    X509_free(info->issuer_certificate);
    info->issuer_certificate = NULL;
    if (issuer != NULL && !info->issuer_sent) {
        X509_up_ref(issuer);
        info->issuer_certificate = issuer;
    }
}

static struct kb_ssl_connection_info *own(const struct kb_ssl_connection_info *ssl)
{
    return KB_CAST((void *)(uintptr_t)ssl, kb_ssl_connection_info);
}

const struct kb_ssl_connection_info *
kb_ssl_connection_info_ref(const struct kb_ssl_connection_info *ssl)
{
    if (ssl != NULL) {
        own(ssl)->refs++;
    }
    return ssl;
}

void kb_ssl_connection_info_unref(const struct kb_ssl_connection_info *ssl)
{
    struct kb_ssl_connection_info *info;

    if (ssl == NULL) {
        return;
    }
    info = own(ssl);
    if (--info->refs > 0) {
        return;
    }
    kb_tls_facts_unref(info->peer);
    kb_tls_facts_unref(info->local);
    kb_tls_facts_unref(info->issuer);
    X509_free(info->local_certificate);
    X509_free(info->issuer_certificate);
    SSL_SESSION_free(info->session);
    kb_arena_dispose(&info->arena);
    kb_tls_lib_unref(info->lib);
    KB_OBJ_CLEAR(info);
    free(info);
}

/* ---- texts ---- */

static struct kb_str session_id_text(struct kb_ssl_connection_info *info)
{
    SSL_SESSION *session = info->ssl != NULL ? SSL_get0_session(info->ssl) : info->session;
    const unsigned char *bytes;
    unsigned int len = 0;

    if (session == NULL) {
        return KB_STR("");
    }
    bytes = SSL_SESSION_get_id(session, &len);
    return kb_str_hex(&info->arena, bytes, len);
}

/* As BoringSSL names it. */
static struct kb_str group_text(SSL *ssl)
{
    switch (SSL_get_negotiated_group(ssl)) {
    case NID_X25519:
        return KB_STR("X25519");
    case NID_X9_62_prime256v1:
        return KB_STR("P-256");
    case NID_secp384r1:
        return KB_STR("P-384");
    case NID_secp521r1:
        return KB_STR("P-521");
    default:
        return KB_STR("");
    }
}

/* Of the live connection; kept at its end. */
static struct kb_str live_text(struct kb_ssl_connection_info *info, enum kb_ssl_text what)
{
    const unsigned char *alpn;
    unsigned int len = 0;

    if (info->ssl == NULL) {
        return KB_STR("");
    }
    if (what == KB_SSL_VERSION) {
        return kb_str_from_cstr(SSL_get_version(info->ssl));
    }
    if (what == KB_SSL_CIPHER) {
        const SSL_CIPHER *cipher = SSL_get_current_cipher(info->ssl);
        const char *name = SSL_get_cipher_name(info->ssl);

        info->cipher_id = cipher != NULL ? SSL_CIPHER_get_protocol_id(cipher) : 0;
        return name != NULL && strcmp(name, "(NONE)") != 0 ? kb_str_from_cstr(name) : KB_STR("");
    }
    if (what == KB_SSL_GROUP) {
        return group_text(info->ssl);
    }
    if (what == KB_SSL_SERVER_NAME) {
        return kb_str_dup(&info->arena, kb_str_from_cstr(SSL_get_servername(
                                            info->ssl, TLSEXT_NAMETYPE_host_name)));
    }
    SSL_get0_alpn_selected(info->ssl, &alpn, &len);
    return len == 0 ? KB_STR("") : kb_str_dup(&info->arena, kb_str_make((const char *)alpn, len));
}

/* Of our own certificate; NULL: none. */
static struct kb_tls_facts *local_of(struct kb_ssl_connection_info *info)
{
    if (info->local == NULL) {
        info->local = kb_tls_facts_of(info->tls, info->local_certificate, NULL);
    }
    return info->local;
}

/* Of the certificate above the peer's; NULL: none. */
static struct kb_tls_facts *issuer_of(struct kb_ssl_connection_info *info)
{
    if (info->issuer == NULL) {
        info->issuer = kb_tls_facts_of(info->tls, info->issuer_certificate, NULL);
    }
    return info->issuer;
}

struct kb_str kb_ssl_text(const struct kb_ssl_connection_info *ssl, enum kb_ssl_text what)
{
    struct kb_ssl_connection_info *info;

    if (ssl == NULL || (unsigned)what >= KB_SSL_TEXT_COUNT) {
        return KB_STR("");
    }
    info = own(ssl);
    if (!info->done) {
        return KB_STR("");
    }
    if (what == KB_SSL_LOCAL_SUBJECT) {
        return kb_tls_facts_text(local_of(info), KB_SSL_PEER_SUBJECT);
    }
    if (what == KB_SSL_PEER_ISSUER_SHA256 || what == KB_SSL_PEER_ISSUER_SERIAL) {
        return info->issuer_sent
                   ? kb_tls_facts_text(info->peer, what)
                   : kb_tls_facts_text(issuer_of(info), what == KB_SSL_PEER_ISSUER_SHA256
                                                            ? KB_SSL_PEER_SHA256
                                                            : KB_SSL_PEER_SERIAL);
    }
    if (what < KB_SSL_SESSION_ID) {
        return kb_tls_facts_text(info->peer, what);
    }
    if ((info->texts_known & (UINT32_C(1) << what)) == 0) {
        ERR_clear_error();
        info->texts[what - KB_SSL_SESSION_ID] =
            what == KB_SSL_SESSION_ID ? session_id_text(info) : live_text(info, what);
        info->texts_known |= UINT32_C(1) << what;
        ERR_clear_error();
    }
    return info->texts[what - KB_SSL_SESSION_ID];
}

uint16_t kb_ssl_cipher_id(const struct kb_ssl_connection_info *ssl)
{
    return kb_ssl_text(ssl, KB_SSL_CIPHER).len > 0 ? own(ssl)->cipher_id : 0;
}

void kb_ssl_info_closing(struct kb_ssl_connection_info *info)
{
    if (info == NULL || info->ssl == NULL) {
        return;
    }
    if (info->done) {
        (void)kb_ssl_text(info, KB_SSL_VERSION);
        (void)kb_ssl_text(info, KB_SSL_CIPHER);
        (void)kb_ssl_text(info, KB_SSL_SERVER_NAME);
        (void)kb_ssl_text(info, KB_SSL_ALPN);
        (void)kb_ssl_text(info, KB_SSL_GROUP);
        info->session = SSL_get1_session(info->ssl);
    }
    info->ssl = NULL;
}

/* ---- the rest ---- */

const struct kb_str *kb_ssl_list(const struct kb_ssl_connection_info *ssl, enum kb_ssl_list what,
                                 size_t *count)
{
    static const enum kb_ssl_list of_peer[KB_SSL_LIST_COUNT] = {
        [KB_SSL_LOCAL_URI_SANS] = KB_SSL_PEER_URI_SANS,
        [KB_SSL_LOCAL_DNS_SANS] = KB_SSL_PEER_DNS_SANS,
        [KB_SSL_LOCAL_IP_SANS] = KB_SSL_PEER_IP_SANS,
        [KB_SSL_LOCAL_EMAIL_SANS] = KB_SSL_PEER_EMAIL_SANS,
    };
    struct kb_ssl_connection_info *info = ssl == NULL ? NULL : own(ssl);

    *count = 0;
    if (info == NULL || !info->done || (unsigned)what >= KB_SSL_LIST_COUNT) {
        return NULL;
    }
    switch (what) {
    case KB_SSL_LOCAL_URI_SANS:
    case KB_SSL_LOCAL_DNS_SANS:
    case KB_SSL_LOCAL_IP_SANS:
    case KB_SSL_LOCAL_EMAIL_SANS:
        return kb_tls_facts_list(local_of(info), of_peer[what], count);
    case KB_SSL_PEER_URI_SANS:
    case KB_SSL_PEER_DNS_SANS:
    case KB_SSL_PEER_IP_SANS:
    case KB_SSL_PEER_EMAIL_SANS:
    case KB_SSL_LIST_COUNT:
        break;
    }
    return kb_tls_facts_list(info->peer, what, count);
}

bool kb_ssl_peer_presented(const struct kb_ssl_connection_info *ssl)
{
    return ssl != NULL && ssl->done && ssl->peer != NULL;
}

bool kb_ssl_peer_validated(const struct kb_ssl_connection_info *ssl)
{
    return ssl != NULL && ssl->validated;
}

bool kb_ssl_peer_validity(const struct kb_ssl_connection_info *ssl, int64_t *not_before,
                          int64_t *not_after)
{
    if (!kb_ssl_peer_presented(ssl)) {
        return false;
    }
    kb_tls_facts_validity(ssl->peer, not_before, not_after);
    return true;
}
