/* SPDX-License-Identifier: Apache-2.0 */
/* Session tickets: how they are sealed, and what they say of the peer. */
#include <stdlib.h>
#include <time.h>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rand.h>

#include "base/mem.h"
#include "tls/tls_socket.h"

#define TICKET_NAME_BYTES 16
#define TICKET_HMAC_BYTES 32

/* ---- keys ---- */

static const unsigned char *ticket_key(const struct kb_tls_settings *settings,
                                       const unsigned char name[TICKET_NAME_BYTES], bool *latest)
{
    for (size_t i = 0; i < settings->ticket_key_count; i++) {
        if (memcmp(settings->ticket_keys[i], name, TICKET_NAME_BYTES) == 0) {
            *latest = i == 0;
            return settings->ticket_keys[i];
        }
    }
    return NULL;
}

static bool ticket_mac_init(EVP_MAC_CTX *mac, const unsigned char *key)
{
    OSSL_PARAM params[3];

    params[0] = OSSL_PARAM_construct_octet_string(
        OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)(key + TICKET_NAME_BYTES), TICKET_HMAC_BYTES);
    params[1] =
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)"SHA256", 0);
    params[2] = OSSL_PARAM_construct_end();
    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* RFC 5077 section 4: 1 good, 2 good and a new one is wanted, 0 unknown, -1 error. */
static int ticket_key_cb(SSL *ssl, unsigned char name[TICKET_NAME_BYTES], unsigned char *iv,
                         EVP_CIPHER_CTX *cipher_ctx, EVP_MAC_CTX *mac, int encrypt)
{
    struct kb_tls_socket *socket = KB_CAST(SSL_get_app_data(ssl), kb_tls_socket);
    const struct kb_tls_settings *settings = socket->context->settings;
    struct kb_tls_lib *lib = socket->local->lib;
    const unsigned char *key = settings->ticket_keys[0];
    bool latest = true;
    int result = -1;

    if (!encrypt) {
        key = ticket_key(settings, name, &latest);
    }
    if (key == NULL) {
        result = 0;
    } else if (ticket_mac_init(mac, key)) {
        const unsigned char *aes = key + TICKET_NAME_BYTES + TICKET_HMAC_BYTES;

        if (encrypt) {
            memcpy(name, key, TICKET_NAME_BYTES);
            if (RAND_bytes_ex(lib->ctx, iv, (size_t)EVP_CIPHER_get_iv_length(lib->ticket_cipher),
                              0) == 1 &&
                EVP_EncryptInit_ex2(cipher_ctx, lib->ticket_cipher, aes, iv, NULL) == 1) {
                result = 1;
            }
        } else if (EVP_DecryptInit_ex2(cipher_ctx, lib->ticket_cipher, aes, iv, NULL) == 1) {
            result = latest ? 1 : 2;
        }
    }
    return result;
}

/* ---- the peer ----
 * OpenSSL keeps the peer's X509 objects in the session: they are most of what an idle connection
 * takes. It puts the first into tickets, and decodes it with its key at each resumption, which
 * costs as much as all else. Here a session has application data instead: a version, with what the
 * peer signed, until when it may be renewed, and kb_tls_facts_bytes; connections share what is
 * known of the peer. */

#define PEER_VERSION  2
#define PEER_HEAD     11 /* the version, the signature's scheme, seconds since 1970 */
#define PEER_UNTIL    3  /* where those begin */
#define DER_TAG_PEER  0xa3
#define DER_HEAD_MAX  4
#define DER_BYTES_MAX 0xffffff

/* The length of the element at `p` with its head, whose own length goes to *head; 0: malformed. */
static size_t der_element(const unsigned char *p, size_t n, size_t *head)
{
    size_t len, bytes;

    if (n < 2) {
        return 0;
    }
    *head = 2;
    len = p[1];
    if (len >= 0x80) {
        bytes = len & 0x7f;
        if (bytes == 0 || bytes > 3 || bytes > n - 2) {
            return 0;
        }
        len = 0;
        for (size_t i = 0; i < bytes; i++) {
            len = len << 8 | p[2 + i];
        }
        *head += bytes;
    }
    return len > n - *head ? 0 : *head + len;
}

static size_t der_head_put(unsigned char *out, unsigned char tag, size_t len)
{
    size_t bytes = len < 0x80 ? 0 : len < 0x100 ? 1 : len < 0x10000 ? 2 : 3;

    out[0] = tag;
    out[1] = bytes == 0 ? (unsigned char)len : (unsigned char)(0x80 | bytes);
    for (size_t i = 0; i < bytes; i++) {
        out[2 + i] = (unsigned char)(len >> (8 * (bytes - 1 - i)));
    }
    return 2 + bytes;
}

/* Copies an encoded session without its [3], the certificate; `out` has room for len + DER_HEAD_MAX
 * bytes. 0: malformed, or there is none. */
static size_t der_slim(const unsigned char *der, size_t len, unsigned char *out)
{
    size_t head, at, size, cut, end = der_element(der, len, &head);

    if (end != len || len > DER_BYTES_MAX) {
        return 0;
    }
    for (at = head; at < end && der[at] != DER_TAG_PEER; at += size) {
        size = der_element(der + at, end - at, &cut);
        if (size == 0) {
            return 0;
        }
    }
    size = at < end ? der_element(der + at, end - at, &cut) : 0;
    if (size == 0) {
        return 0;
    }
    cut = der_head_put(out, der[0], end - head - size);
    memcpy(out + cut, der + head, at - head);
    memcpy(out + cut + at - head, der + at + size, end - at - size);
    return cut + end - head - size;
}

/* Of the chain that the peer sent only the facts are of use; they have it too. */
static void chain_drop(SSL *ssl)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);

    while (sk_X509_num(chain) > 0) {
        X509_free(sk_X509_pop(chain));
    }
}

/* Reading a session into one that exists replaces what that has: its certificate goes. */
static bool session_peer_drop(SSL_SESSION *session)
{
    unsigned char *der = NULL, *slim;
    const unsigned char *p;
    int len = i2d_SSL_SESSION(session, &der);
    size_t slim_len, room;
    bool dropped;

    if (len <= 0) {
        return false;
    }
    room = (size_t)len + DER_HEAD_MAX;
    p = slim = kb_malloc(room);
    slim_len = der_slim(der, (size_t)len, slim);
    dropped = slim_len > 0 && d2i_SSL_SESSION(&session, &p, (long)slim_len) != NULL;
    OPENSSL_cleanse(slim, room);
    free(slim);
    OPENSSL_clear_free(der, (size_t)len);
    return dropped;
}

/* Neither longer than without renewal, nor than the peer's certificate is good. */
static int64_t renewable_until(const struct kb_tls_settings *settings, struct kb_tls_facts *peer)
{
    int64_t now = (int64_t)time(NULL), not_before, not_after;
    int64_t until = now + (int64_t)settings->session_timeout_s;

    kb_tls_facts_validity(peer, &not_before, &not_after);
    return not_after > now ? KB_MIN(until, not_after) : until;
}

static bool session_peer_put(SSL_SESSION *session, struct kb_tls_facts *peer, uint16_t scheme,
                             int64_t until)
{
    struct kb_str bytes = kb_tls_facts_bytes(peer);
    unsigned char *data = kb_malloc(PEER_HEAD + bytes.len);
    bool done;

    data[0] = PEER_VERSION;
    data[1] = (unsigned char)(scheme >> 8);
    data[2] = (unsigned char)(scheme & 0xff);
    for (size_t i = 0; i < 8; i++) {
        data[PEER_UNTIL + i] = (unsigned char)((uint64_t)until >> (56 - 8 * i));
    }
    memcpy(data + PEER_HEAD, bytes.p, bytes.len);
    done = SSL_SESSION_set1_ticket_appdata(session, data, PEER_HEAD + bytes.len) == 1;
    free(data);
    return done;
}

/* What session_peer_put left; KB_STR_NULL: nothing, or of a version that is not ours. */
static struct kb_str session_peer_get(SSL_SESSION *session, int64_t *until)
{
    const unsigned char *p;
    void *data = NULL;
    size_t len = 0;

    if (SSL_SESSION_get0_ticket_appdata(session, &data, &len) != 1 || len <= PEER_HEAD) {
        return KB_STR_NULL;
    }
    p = data;
    if (p[0] != PEER_VERSION) {
        return KB_STR_NULL;
    }
    *until = 0;
    for (size_t i = 0; i < 8; i++) {
        *until = (int64_t)((uint64_t)*until << 8 | p[PEER_UNTIL + i]);
    }
    return kb_str_make((const char *)p + PEER_HEAD, len - PEER_HEAD);
}

/* With what the peer signed; 0: it did not, or that is not known. */
static uint16_t session_signature_get(SSL_SESSION *session)
{
    int64_t until;
    struct kb_str bytes = session_peer_get(session, &until);
    const unsigned char *p = (const unsigned char *)bytes.p;

    return bytes.len > 0 ? (uint16_t)(p[1 - PEER_HEAD] << 8 | p[2 - PEER_HEAD]) : 0;
}

static void timeout_bound(SSL_SESSION *session, int64_t until)
{
    int64_t left = until - (int64_t)time(NULL);

    if (left < (int64_t)SSL_SESSION_get_timeout(session)) {
        (void)SSL_SESSION_set_timeout(session, (long)KB_MAX(left, 1));
    }
}

/* Puts what is known of the peer in the place of its certificates. NULL: the session has none;
 * else a reference for the caller. */
static struct kb_tls_facts *session_slim(struct kb_tls_socket *socket, SSL_SESSION *session,
                                         bool *done)
{
    const struct kb_tls_settings *settings = socket->context->settings;
    struct kb_tls_facts *peer =
        kb_tls_facts_of(kb_tls_worker_get(socket->conn->worker), SSL_SESSION_get0_peer(session),
                        SSL_get_peer_cert_chain(socket->ssl));

    *done = true;
    if (peer != NULL && kb_tls_facts_bytes(peer).len > 0) {
        int64_t until = renewable_until(settings, peer);

        *done = session_peer_put(session, peer, kb_tls_signature_scheme(socket->ssl), until) &&
                session_peer_drop(session);
        chain_drop(socket->ssl);
        if (settings->downstream) {
            timeout_bound(session, until);
        }
    }
    return peer;
}

/* Before a session goes into a ticket (or TLS 1.3's stateful form of it). 0 ends the handshake. */
static int ticket_fill(SSL *ssl, void *arg)
{
    struct kb_tls_socket *socket = KB_CAST(SSL_get_app_data(ssl), kb_tls_socket);
    SSL_SESSION *session = SSL_get0_session(ssl);
    struct kb_tls_facts *peer;
    int64_t until;
    bool done;

    (void)arg;
    socket->of_ticket = true;
    peer = session_slim(socket, session, &done);
    if (peer != NULL) {
        kb_ssl_info_peer_set(socket->info, peer);
    } else if (session_peer_get(session, &until).len > 0) {
        timeout_bound(session, until); /* resumed: the new one is a copy of that before */
    }
    return done;
}

/* Whether this ticket of TLS 1.3 came a short while before. Its client was given the next one then,
 * and goes on with this; those that use each once (RFC 8446 appendix C.4) need the next. */
static bool ticket_seen(struct kb_tls_worker *tls, const SSL_SESSION *session)
{
    unsigned len = 0;
    const unsigned char *id = SSL_SESSION_get_id(session, &len);
    uint64_t key = 0, *slot;

    if (len < sizeof(key)) {
        return false;
    }
    memcpy(&key, id, sizeof(key));
    slot = &tls->tickets_seen[key % KB_TLS_TICKETS_SEEN];
    if (*slot == key) {
        return true;
    }
    *slot = key;
    return false;
}

/* Of a ticket that could be read. One that does not say who the peer is, where that has to be
 * known, makes a full handshake. */
static SSL_TICKET_RETURN ticket_accept(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                       size_t name_len, SSL_TICKET_STATUS status, void *arg)
{
    struct kb_tls_socket *socket = KB_CAST(SSL_get_app_data(ssl), kb_tls_socket);
    const struct kb_tls_context *context = arg;
    int64_t until;
    void *data;
    size_t len = 0;

    (void)name;
    (void)name_len;
    if (session == NULL || (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)) {
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    }
    if (SSL_SESSION_get0_ticket_appdata(session, &data, &len) == 1 && len > 0) {
        if (session_peer_get(session, &until).len == 0) {
            return SSL_TICKET_RETURN_IGNORE_RENEW;
        }
    } else if (context->settings->require_client_certificate &&
               kb_tls_validation_verifies(context->validation) &&
               SSL_SESSION_get0_peer(session) == NULL) {
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    }
    socket->of_ticket = true;
    if (SSL_version(ssl) == TLS1_3_VERSION) {
        return ticket_seen(kb_tls_worker_get(socket->conn->worker), session)
                   ? SSL_TICKET_RETURN_USE
                   : SSL_TICKET_RETURN_USE_RENEW;
    }
    return status == SSL_TICKET_SUCCESS_RENEW ? SSL_TICKET_RETURN_USE_RENEW : SSL_TICKET_RETURN_USE;
}

void kb_tls_session_peer_take(struct kb_tls_socket *socket)
{
    const struct kb_tls_settings *settings = socket->context->settings;
    SSL_SESSION *session = SSL_get0_session(socket->ssl);
    struct kb_tls_facts *peer;
    int64_t until;
    bool done;

    peer = session_slim(socket, session, &done);
    if (peer == NULL && SSL_session_reused(socket->ssl)) {
        socket->session_signature = session_signature_get(session);
        peer = kb_tls_facts_from_bytes(kb_tls_worker_get(socket->conn->worker),
                                       session_peer_get(session, &until));
    }
    if (peer != NULL) {
        kb_ssl_info_peer_set(socket->info, peer);
    }
    if (settings->downstream && socket->of_ticket) {
        /* The session is this connection's alone, its tickets are sent. */
        (void)SSL_SESSION_set1_ticket_appdata(session, NULL, 0);
    }
}

void kb_tls_ticket_ctx_init(struct kb_tls_context *context, SSL_CTX *ctx)
{
    if (context->settings->stateless_resumption) {
        SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, ticket_key_cb);
    } else {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    }
    (void)SSL_CTX_set_session_ticket_cb(ctx, ticket_fill, ticket_accept, context);
}
