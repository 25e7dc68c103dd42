/* SPDX-License-Identifier: Apache-2.0 */
/* Facts of a TLS connection, made when somebody asks and kept as long as the object. */
#include "tls/tls_info.h"

#include <stdlib.h>

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/obj.h"
#include "tls/tls_san.h"

struct san_list {
    struct kb_str *names;
    size_t count;
    bool known;
};

struct kb_ssl_connection_info {
    KB_OBJ;
    uint32_t refs;
    uint32_t texts_known; /* 1 << enum kb_ssl_text */
    bool validated;
    bool done;
    SSL *ssl; /* NULL: closed */
    struct kb_tls_lib *lib;
    X509 *peer;
    X509 *local;
    STACK_OF(X509) * chain; /* the peer's, with its leaf; NULL while `ssl` has it */
    SSL_SESSION *session;   /* likewise */
    struct kb_arena arena;
    struct kb_str texts[KB_SSL_TEXT_COUNT];
    struct san_list lists[KB_SSL_LIST_COUNT];
};
KB_OBJ_MAGIC(kb_ssl_connection_info, 0x544c5349);

/* ---- lifecycle ---- */

struct kb_ssl_connection_info *kb_ssl_connection_info_create(SSL *ssl, struct kb_tls_lib *lib)
{
    struct kb_ssl_connection_info *info = kb_calloc(1, sizeof(*info));

    KB_OBJ_SET(info, kb_ssl_connection_info);
    info->refs = 1;
    info->ssl = ssl;
    info->lib = kb_tls_lib_ref(lib);
    kb_arena_init(&info->arena, NULL);
    return info;
}

void kb_ssl_info_handshake_done(struct kb_ssl_connection_info *info, SSL *ssl, bool validated)
{
    info->done = true;
    info->validated = validated;
    info->peer = SSL_get1_peer_certificate(ssl);
    info->local = SSL_get_certificate(ssl);
    if (info->local != NULL) {
        X509_up_ref(info->local);
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
    X509_free(info->peer);
    X509_free(info->local);
    sk_X509_pop_free(info->chain, X509_free);
    SSL_SESSION_free(info->session);
    kb_arena_dispose(&info->arena);
    kb_tls_lib_unref(info->lib);
    KB_OBJ_CLEAR(info);
    free(info);
}

/* ---- texts ---- */

static struct kb_str hex(struct kb_ssl_connection_info *info, const unsigned char *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    char *out = kb_arena_alloc(&info->arena, 2 * n + 1, 1);

    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    return kb_str_make(out, 2 * n);
}

static struct kb_str digest_text(struct kb_ssl_connection_info *info, const char *algorithm)
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    EVP_MD *md;
    unsigned int len = 0;
    struct kb_str text = KB_STR("");

    if (info->peer == NULL) {
        return text;
    }
    md = EVP_MD_fetch(info->lib->ctx, algorithm, NULL);
    if (md != NULL && X509_digest(info->peer, md, bytes, &len) == 1) {
        text = hex(info, bytes, len);
    }
    EVP_MD_free(md);
    return text;
}

static struct kb_str serial_text(struct kb_ssl_connection_info *info)
{
    BIGNUM *number =
        info->peer == NULL ? NULL : ASN1_INTEGER_to_BN(X509_get0_serialNumber(info->peer), NULL);
    char *text = number == NULL ? NULL : BN_bn2hex(number);
    struct kb_str out = KB_STR("");

    if (text != NULL) {
        char *copy;

        out = kb_str_dup(&info->arena, kb_str_from_cstr(text));
        copy = (char *)(uintptr_t)out.p;
        for (size_t i = 0; i < out.len; i++) {
            copy[i] = kb_ascii_lower(copy[i]);
        }
    }
    OPENSSL_free(text);
    BN_free(number);
    return out;
}

/* RFC 2253, as Envoy shows names. */
static struct kb_str name_text(struct kb_ssl_connection_info *info, const X509_NAME *name)
{
    BIO *bio = name == NULL ? NULL : BIO_new(BIO_s_mem());
    struct kb_str out = KB_STR("");
    char *bytes = NULL;

    if (bio != NULL && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0) {
        long len = BIO_get_mem_data(bio, &bytes);

        out = kb_str_dup(&info->arena, kb_str_make(bytes, len > 0 ? (size_t)len : 0));
    }
    BIO_free(bio);
    return out;
}

static STACK_OF(X509) * chain_of(const struct kb_ssl_connection_info *info)
{
    return info->ssl != NULL ? SSL_get_peer_cert_chain(info->ssl) : info->chain;
}

/* PEM with the characters that a header value may not have in URL encoding. */
static struct kb_str pem_encoded(struct kb_ssl_connection_info *info, BIO *bio)
{
    char *bytes = NULL;
    long len = BIO_get_mem_data(bio, &bytes);
    size_t n = 0;
    char *out = kb_arena_alloc(&info->arena, 3 * (size_t)KB_MAX(len, 0) + 1, 1);

    for (long i = 0; i < len; i++) {
        const char *code = bytes[i] == '\n'  ? "%0A"
                           : bytes[i] == ' ' ? "%20"
                           : bytes[i] == '+' ? "%2B"
                           : bytes[i] == '/' ? "%2F"
                           : bytes[i] == '=' ? "%3D"
                                             : NULL;

        if (code != NULL) {
            memcpy(out + n, code, 3);
            n += 3;
        } else {
            out[n++] = bytes[i];
        }
    }
    return kb_str_make(out, n);
}

static struct kb_str pem_text(struct kb_ssl_connection_info *info, bool chain)
{
    BIO *bio = info->peer == NULL ? NULL : BIO_new(BIO_s_mem());
    STACK_OF(X509) *rest = chain ? chain_of(info) : NULL;
    bool good = bio != NULL && PEM_write_bio_X509(bio, info->peer) == 1;
    struct kb_str out = KB_STR("");

    for (int i = 0; good && i < sk_X509_num(rest); i++) {
        /* A client's view of the chain begins with the leaf, a server's does not. */
        if (X509_cmp(sk_X509_value(rest, i), info->peer) != 0 || i > 0) {
            good = PEM_write_bio_X509(bio, sk_X509_value(rest, i)) == 1;
        }
    }
    if (good) {
        out = pem_encoded(info, bio);
    }
    BIO_free(bio);
    return out;
}

static struct kb_str session_id_text(struct kb_ssl_connection_info *info)
{
    SSL_SESSION *session = info->ssl != NULL ? SSL_get0_session(info->ssl) : info->session;
    const unsigned char *bytes;
    unsigned int len = 0;

    if (session == NULL) {
        return KB_STR("");
    }
    bytes = SSL_SESSION_get_id(session, &len);
    return hex(info, bytes, len);
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
        const char *name = SSL_get_cipher_name(info->ssl);

        return name != NULL && strcmp(name, "(NONE)") != 0 ? kb_str_from_cstr(name) : KB_STR("");
    }
    if (what == KB_SSL_SERVER_NAME) {
        return kb_str_dup(&info->arena, kb_str_from_cstr(SSL_get_servername(
                                            info->ssl, TLSEXT_NAMETYPE_host_name)));
    }
    SSL_get0_alpn_selected(info->ssl, &alpn, &len);
    return len == 0 ? KB_STR("") : kb_str_dup(&info->arena, kb_str_make((const char *)alpn, len));
}

static struct kb_str text_make(struct kb_ssl_connection_info *info, enum kb_ssl_text what)
{
    switch (what) {
    case KB_SSL_PEER_SHA256:
        return digest_text(info, "SHA256");
    case KB_SSL_PEER_SHA1:
        return digest_text(info, "SHA1");
    case KB_SSL_PEER_SERIAL:
        return serial_text(info);
    case KB_SSL_PEER_ISSUER:
        return name_text(info, info->peer != NULL ? X509_get_issuer_name(info->peer) : NULL);
    case KB_SSL_PEER_SUBJECT:
        return name_text(info, info->peer != NULL ? X509_get_subject_name(info->peer) : NULL);
    case KB_SSL_LOCAL_SUBJECT:
        return name_text(info, info->local != NULL ? X509_get_subject_name(info->local) : NULL);
    case KB_SSL_PEER_PEM_ENCODED:
        return pem_text(info, false);
    case KB_SSL_PEER_CHAIN_ENCODED:
        return pem_text(info, true);
    case KB_SSL_SESSION_ID:
        return session_id_text(info);
    case KB_SSL_VERSION:
    case KB_SSL_CIPHER:
    case KB_SSL_SERVER_NAME:
    case KB_SSL_ALPN:
        return live_text(info, what);
    case KB_SSL_TEXT_COUNT:
        break;
    }
    return KB_STR("");
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
    if ((info->texts_known & (UINT32_C(1) << what)) == 0) {
        ERR_clear_error();
        info->texts[what] = text_make(info, what);
        info->texts_known |= UINT32_C(1) << what;
        ERR_clear_error();
    }
    return info->texts[what];
}

void kb_ssl_info_closing(struct kb_ssl_connection_info *info)
{
    if (info == NULL || info->ssl == NULL) {
        return;
    }
    if (info->done) {
        STACK_OF(X509) *chain = SSL_get_peer_cert_chain(info->ssl);

        (void)kb_ssl_text(info, KB_SSL_VERSION);
        (void)kb_ssl_text(info, KB_SSL_CIPHER);
        (void)kb_ssl_text(info, KB_SSL_SERVER_NAME);
        (void)kb_ssl_text(info, KB_SSL_ALPN);
        info->session = SSL_get1_session(info->ssl);
        info->chain = chain != NULL ? X509_chain_up_ref(chain) : NULL;
    }
    info->ssl = NULL;
}

/* ---- names ---- */

static const struct {
    int type;
    bool local;
} list_kinds[KB_SSL_LIST_COUNT] = {
    [KB_SSL_PEER_URI_SANS] = {GEN_URI, false},     [KB_SSL_LOCAL_URI_SANS] = {GEN_URI, true},
    [KB_SSL_PEER_DNS_SANS] = {GEN_DNS, false},     [KB_SSL_LOCAL_DNS_SANS] = {GEN_DNS, true},
    [KB_SSL_PEER_IP_SANS] = {GEN_IPADD, false},    [KB_SSL_LOCAL_IP_SANS] = {GEN_IPADD, true},
    [KB_SSL_PEER_EMAIL_SANS] = {GEN_EMAIL, false}, [KB_SSL_LOCAL_EMAIL_SANS] = {GEN_EMAIL, true},
};

static void list_make(struct kb_ssl_connection_info *info, enum kb_ssl_list what)
{
    struct san_list *list = &info->lists[what];
    X509 *certificate = list_kinds[what].local ? info->local : info->peer;
    GENERAL_NAMES *names = certificate == NULL
                               ? NULL
                               : X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int count = KB_MIN(sk_GENERAL_NAME_num(names), KB_TLS_SANS_MAX);

    for (int i = 0; i < count; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        char address[KB_TLS_SAN_TEXT_MAX];
        struct kb_str text;

        if (name->type != list_kinds[what].type) {
            continue;
        }
        if (list->names == NULL) {
            list->names =
                kb_arena_calloc(&info->arena, (size_t)(count - i) * sizeof(struct kb_str));
        }
        text = kb_tls_san_text(name, address);
        list->names[list->count++] = kb_str_dup(&info->arena, text);
    }
    sk_GENERAL_NAME_pop_free(names, GENERAL_NAME_free);
}

const struct kb_str *kb_ssl_list(const struct kb_ssl_connection_info *ssl, enum kb_ssl_list what,
                                 size_t *count)
{
    struct kb_ssl_connection_info *info = ssl == NULL ? NULL : own(ssl);

    *count = 0;
    if (info == NULL || !info->done) {
        return NULL;
    }
    if (!info->lists[what].known) {
        list_make(info, what);
        info->lists[what].known = true;
        ERR_clear_error();
    }
    *count = info->lists[what].count;
    return info->lists[what].names;
}

/* ---- the rest ---- */

bool kb_ssl_peer_presented(const struct kb_ssl_connection_info *ssl)
{
    return ssl != NULL && ssl->peer != NULL;
}

bool kb_ssl_peer_validated(const struct kb_ssl_connection_info *ssl)
{
    return ssl != NULL && ssl->validated;
}

static int64_t seconds_of(const ASN1_TIME *time)
{
    struct tm parts;

    return ASN1_TIME_to_tm(time, &parts) == 1 ? (int64_t)timegm(&parts) : 0;
}

bool kb_ssl_peer_validity(const struct kb_ssl_connection_info *ssl, int64_t *not_before,
                          int64_t *not_after)
{
    if (ssl == NULL || ssl->peer == NULL) {
        return false;
    }
    *not_before = seconds_of(X509_get0_notBefore(ssl->peer));
    *not_after = seconds_of(X509_get0_notAfter(ssl->peer));
    return true;
}
