/* SPDX-License-Identifier: Apache-2.0 */
/* What the proxy sends, OpenSSL judges: whatever it calls an error that is not the proxy's alert is
 * a fault. */
#include "tests/events/peer_tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/obj.h"
#include "tests/events/peer.h"

#define SESSIONS_MAX 8

struct peer_tls {
    SSL *ssl;
    BIO *in, *out; /* the session's */
    bool over;     /* nothing more can be said */
    bool broken;   /* it sent what no protocol allows */
};

/* Those of which the configuration speaks, and one that nobody trusts. */
static const char *const names[] = {"ca", "server1", "server2", "client1", "client2", "stranger"};
static EVP_PKEY *keys[KB_ARRAY_LEN(names)];
static X509 *certs[KB_ARRAY_LEN(names)];
static SSL_CTX *contexts[2];
static SSL_SESSION *sessions[SESSIONS_MAX];

/* ---- certificates ---- */

static void extension_add(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    KB_ASSERT(extension != NULL && X509_add_ext(cert, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

static void cert_make(size_t i)
{
    bool authority = i == 0, stranger = i == KB_ARRAY_LEN(names) - 1;
    size_t issuer = stranger ? i : 0;
    X509 *cert = X509_new();
    X509_NAME *name;

    /* RSA, as its signatures are of one length: the same seed gives the same lengths */
    keys[i] = EVP_RSA_gen(2048);
    KB_ASSERT(cert != NULL && keys[i] != NULL && X509_set_version(cert, 2) == 1);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), (long)i + 1);
    KB_ASSERT(ASN1_TIME_set_string_X509(X509_getm_notBefore(cert), "20000101000000Z") == 1);
    KB_ASSERT(ASN1_TIME_set_string_X509(X509_getm_notAfter(cert), "20990101000000Z") == 1);
    name = X509_get_subject_name(cert);
    KB_ASSERT(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)names[i],
                                         -1, -1, 0) == 1);
    certs[i] = cert;
    KB_ASSERT(X509_set_issuer_name(cert, X509_get_subject_name(certs[issuer])) == 1 &&
              X509_set_pubkey(cert, keys[i]) == 1);
    extension_add(cert, certs[issuer], NID_basic_constraints,
                  authority ? "critical,CA:TRUE" : "CA:FALSE");
    extension_add(cert, certs[issuer], NID_subject_alt_name,
                  authority ? "DNS:ca.test" : "DNS:a.test,URI:spiffe://a/b");
    KB_ASSERT(X509_sign(cert, keys[issuer], EVP_sha256()) > 0);
}

static FILE *file_open(const char *name, const char *ending)
{
    char path[64];
    FILE *file;

    KB_ASSERT(snprintf(path, sizeof(path), "%s.%s", name, ending) < (int)sizeof(path));
    file = fopen(path, "we");
    KB_ASSERT(file != NULL);
    return file;
}

void peer_tls_certs_write(void)
{
    for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
        FILE *file;

        cert_make(i);
        file = file_open(names[i], "pem");
        KB_ASSERT(PEM_write_X509(file, certs[i]) == 1 && fclose(file) == 0);
        file = file_open(names[i], "key");
        KB_ASSERT(PEM_write_PrivateKey(file, keys[i], NULL, NULL, 0, NULL, NULL) == 1 &&
                  fclose(file) == 0);
    }
}

void peer_tls_dispose(void)
{
    for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
        char path[64];

        for (unsigned key = 0; key < 2; key++) {
            KB_ASSERT(snprintf(path, sizeof(path), "%s.%s", names[i], key ? "key" : "pem") > 0);
            (void)remove(path);
        }
        X509_free(certs[i]);
        EVP_PKEY_free(keys[i]);
    }
    for (size_t i = 0; i < SESSIONS_MAX; i++) {
        SSL_SESSION_free(sessions[i]);
    }
    SSL_CTX_free(contexts[0]);
    SSL_CTX_free(contexts[1]);
}

/* ---- the beginning ---- */

static int alpn_choose(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *in, unsigned int in_len, void *arg)
{
    size_t count = 0;
    size_t chosen;

    (void)ssl;
    (void)arg;
    for (unsigned int at = 0; at < in_len; at += 1 + in[at]) {
        count++;
    }
    chosen = peer_roll(count + 1);
    for (unsigned int at = 0; at < in_len; at += 1 + in[at]) {
        if (chosen-- == 0) {
            *out = in + at + 1;
            *out_len = in[at];
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return peer_chance(20) ? SSL_TLSEXT_ERR_ALERT_FATAL : SSL_TLSEXT_ERR_NOACK;
}

static int session_keep(SSL *ssl, SSL_SESSION *session)
{
    SSL_SESSION **place = &sessions[peer_roll(SESSIONS_MAX)];

    (void)ssl;
    SSL_SESSION_free(*place);
    *place = session;
    return 1;
}

static SSL_CTX *context_get(bool server)
{
    if (contexts[server] == NULL) {
        SSL_CTX *context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

        KB_ASSERT(context != NULL);
        SSL_CTX_set_mode(context,
                         SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_alpn_select_cb(context, alpn_choose, NULL);
        if (!server) {
            SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT |
                                                        SSL_SESS_CACHE_NO_INTERNAL_STORE);
            SSL_CTX_sess_set_new_cb(context, session_keep);
        }
        contexts[server] = context;
    }
    return contexts[server];
}

static void cert_use(SSL *ssl, size_t i)
{
    KB_ASSERT(SSL_use_certificate(ssl, certs[i]) == 1 && SSL_use_PrivateKey(ssl, keys[i]) == 1);
}

static void client_begin(struct peer *peer, SSL *ssl)
{
    static const char protocols[] = "\002h2\010http/1.1";
    SSL_SESSION *session = sessions[peer_roll(SESSIONS_MAX)];
    bool h2 = peer->kind == PEER_H2;

    if (peer_chance(80)) {
        cert_use(ssl, peer_chance(80) ? 3 + peer_roll(2) : 5);
    }
    if (peer_chance(80)) {
        SSL_set_tlsext_host_name(ssl, peer_chance(80) ? "a.test" : "other.test");
    }
    if (peer_chance(90)) {
        (void)SSL_set_alpn_protos(ssl, (const unsigned char *)protocols + (h2 ? 0 : 3), h2 ? 3 : 9);
    }
    if (session != NULL && peer_chance(50)) {
        SSL_set_session(ssl, session);
    }
    SSL_set_connect_state(ssl);
}

void peer_tls_begin(struct peer *peer)
{
    struct peer_tls *tls = kb_calloc(1, sizeof(*tls));
    SSL *ssl = SSL_new(context_get(peer->server));

    tls->ssl = ssl;
    tls->in = BIO_new(BIO_s_mem());
    tls->out = BIO_new(BIO_s_mem());
    KB_ASSERT(ssl != NULL && tls->in != NULL && tls->out != NULL);
    BIO_set_mem_eof_return(tls->in, -1);
    SSL_set_bio(ssl, tls->in, tls->out);
    peer->tls = tls;
    if (peer_chance(25)) {
        SSL_set_max_proto_version(ssl, TLS1_2_VERSION);
    }
    if (peer_chance(20)) {
        SSL_set_max_send_fragment(ssl, 512);
    }
    if (peer->server) {
        cert_use(ssl, peer_chance(85) ? 1 + peer_roll(2) : 5);
        SSL_set_accept_state(ssl);
    } else {
        client_begin(peer, ssl);
    }
}

void peer_tls_destroy(struct peer_tls *tls)
{
    if (tls != NULL) {
        SSL_free(tls->ssl);
        free(tls);
    }
}

/* ---- bytes ---- */

static void wire_take(struct peer *peer)
{
    struct peer_tls *tls = peer->tls;
    char bytes[16384];
    int n;

    while ((n = BIO_read(tls->out, bytes, sizeof(bytes))) > 0) {
        sim_bytes_add(&peer->wire, bytes, (size_t)n);
    }
}

/* What a call that did not succeed means. */
static void result_judge(struct peer *peer, int rc)
{
    struct peer_tls *tls = peer->tls;
    int error = SSL_get_error(tls->ssl, rc);
    unsigned long what = ERR_peek_error();

    ERR_clear_error();
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        return;
    }
    tls->over = true;
    if (error == SSL_ERROR_ZERO_RETURN || tls->broken) {
        return;
    }
    if (peer_trace) {
        fprintf(stderr, "    TLS ends: %s\n", ERR_reason_error_string(what));
    }
    switch (ERR_GET_REASON(what)) {
    case SSL_R_CALLBACK_FAILED:
    case SSL_R_NO_APPLICATION_PROTOCOL: /* our own refusal */
    case SSL_R_WRONG_VERSION_NUMBER:    /* the plain chain's answer to a broken hello */
        break;
    default:
        if (ERR_GET_REASON(what) < SSL_AD_REASON_OFFSET) {
            fprintf(stderr, "%s\n", ERR_reason_error_string(what));
            peer_fault(peer, "what the proxy sent is no TLS");
        }
        break;
    }
}

void peer_tls_pump(struct peer *peer)
{
    struct peer_tls *tls = peer->tls;

    while (!tls->over && !peer->goodbye_said && peer->unsent.len > 0 &&
           peer->wire.len < PEER_UNSENT_MAX) {
        size_t most = peer_chance(10) ? 1 + peer_roll(50) : 16384;
        int rc = SSL_write(tls->ssl, peer->unsent.p, (int)KB_MIN(most, peer->unsent.len));

        if (rc <= 0) {
            result_judge(peer, rc);
            break;
        }
        sim_bytes_drop(&peer->unsent, (size_t)rc);
    }
    if (!tls->over && !peer->goodbye_said && !SSL_is_init_finished(tls->ssl)) {
        int rc = SSL_do_handshake(tls->ssl);

        if (rc <= 0) {
            result_judge(peer, rc);
        }
    }
    if (tls->over || peer->goodbye_said) {
        peer->unsent.len = 0;
    }
    wire_take(peer);
}

void peer_tls_read(struct peer *peer, const char *bytes, size_t len)
{
    struct peer_tls *tls = peer->tls;
    char plain[16384];
    bool unfinished;
    int n;

    if (tls->over) {
        return;
    }
    KB_ASSERT(BIO_write(tls->in, bytes, (int)len) == (int)len);
    unfinished = !SSL_is_init_finished(tls->ssl);
    while ((n = SSL_read(tls->ssl, plain, sizeof(plain))) > 0) {
        sim_bytes_add(&peer->plain, plain, (size_t)n);
    }
    result_judge(peer, n);
    peer_handshakes += unfinished && SSL_is_init_finished(tls->ssl);
    wire_take(peer);
}

void peer_tls_end(struct peer *peer)
{
    struct peer_tls *tls = peer->tls;

    if (!tls->over && peer_chance(70)) {
        peer_note(peer, "says goodbye");
        (void)SSL_shutdown(tls->ssl);
        ERR_clear_error();
        wire_take(peer);
    }
}

void peer_tls_act(struct peer *peer)
{
    struct peer_tls *tls = peer->tls;

    if (tls->over || peer->goodbye_said || peer->unsent.len > 0) {
        return;
    }
    switch (peer_roll(4)) {
    case 0:
        peer_note(peer, "has new keys");
        (void)SSL_key_update(tls->ssl, peer_chance(50) ? SSL_KEY_UPDATE_REQUESTED
                                                       : SSL_KEY_UPDATE_NOT_REQUESTED);
        break;
    case 1:
        if (SSL_version(tls->ssl) == TLS1_2_VERSION && SSL_is_init_finished(tls->ssl)) {
            peer_note(peer, "wants another handshake");
            peer->broken = tls->broken = true; /* which the proxy refuses */
            (void)SSL_renegotiate(tls->ssl);
            (void)SSL_do_handshake(tls->ssl);
        }
        break;
    default: {
        static const char *const garbage[] = {"\026\003\001\377\377",
                                              "\025\003\003\000\002\001\000",
                                              "\027\003\003\000\001x", "GET / HTTP/1.1\r\n\r\n"};

        peer_note(peer, "sends broken records");
        peer->broken = tls->broken = true;
        sim_bytes_add(&peer->wire, garbage[peer_roll(4)], 5 + peer_roll(2));
        break;
    }
    }
    ERR_clear_error();
    wire_take(peer);
}
