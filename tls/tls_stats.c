/* SPDX-License-Identifier: Apache-2.0 */
/* ssl.* of a handshake: how often, and with which version, cipher, curve and signature. */
#include <openssl/objects.h>

#include "tls/tls_socket.h"

struct name_stat {
    const char *name;
    uint16_t stat;
};

#define CIPHER(name, id) {name, KB_STAT_SSL_CIPHERS_##id}

static const struct name_stat ciphers[] = {
    CIPHER("ECDHE-ECDSA-AES128-GCM-SHA256", ECDHE_ECDSA_AES128_GCM_SHA256),
    CIPHER("ECDHE-RSA-AES128-GCM-SHA256", ECDHE_RSA_AES128_GCM_SHA256),
    CIPHER("TLS_AES_128_GCM_SHA256", TLS_AES_128_GCM_SHA256),
    CIPHER("TLS_AES_256_GCM_SHA384", TLS_AES_256_GCM_SHA384),
    CIPHER("TLS_CHACHA20_POLY1305_SHA256", TLS_CHACHA20_POLY1305_SHA256),
    CIPHER("ECDHE-ECDSA-AES256-GCM-SHA384", ECDHE_ECDSA_AES256_GCM_SHA384),
    CIPHER("ECDHE-RSA-AES256-GCM-SHA384", ECDHE_RSA_AES256_GCM_SHA384),
    CIPHER("ECDHE-ECDSA-CHACHA20-POLY1305", ECDHE_ECDSA_CHACHA20_POLY1305),
    CIPHER("ECDHE-RSA-CHACHA20-POLY1305", ECDHE_RSA_CHACHA20_POLY1305),
    CIPHER("AES128-GCM-SHA256", AES128_GCM_SHA256),
    CIPHER("AES256-GCM-SHA384", AES256_GCM_SHA384),
    CIPHER("AES128-SHA", AES128_SHA),
    CIPHER("AES256-SHA", AES256_SHA),
    CIPHER("ECDHE-ECDSA-AES128-SHA", ECDHE_ECDSA_AES128_SHA),
    CIPHER("ECDHE-ECDSA-AES256-SHA", ECDHE_ECDSA_AES256_SHA),
    CIPHER("ECDHE-RSA-AES128-SHA", ECDHE_RSA_AES128_SHA),
    CIPHER("ECDHE-RSA-AES256-SHA", ECDHE_RSA_AES256_SHA),
    CIPHER("ECDHE-RSA-AES128-SHA256", ECDHE_RSA_AES128_SHA256),
};

static uint16_t cipher_stat(SSL *ssl)
{
    const char *name = SSL_get_cipher_name(ssl);

    for (size_t i = 0; i < KB_ARRAY_LEN(ciphers); i++) {
        if (strcmp(name, ciphers[i].name) == 0) {
            return ciphers[i].stat;
        }
    }
    return KB_STAT_SSL_CIPHERS_OTHER;
}

static uint16_t version_stat(SSL *ssl)
{
    switch (SSL_version(ssl)) {
    case TLS1_3_VERSION:
        return KB_STAT_SSL_VERSIONS_TLSV1_3;
    case TLS1_2_VERSION:
        return KB_STAT_SSL_VERSIONS_TLSV1_2;
    case TLS1_1_VERSION:
        return KB_STAT_SSL_VERSIONS_TLSV1_1;
    default:
        return KB_STAT_SSL_VERSIONS_TLSV1;
    }
}

static uint16_t curve_stat(long nid)
{
    switch (nid) {
    case NID_X25519:
        return KB_STAT_SSL_CURVES_X25519;
    case NID_X9_62_prime256v1:
        return KB_STAT_SSL_CURVES_P_256;
    case NID_secp384r1:
        return KB_STAT_SSL_CURVES_P_384;
    case NID_secp521r1:
        return KB_STAT_SSL_CURVES_P_521;
    default:
        return KB_STAT_SSL_CURVES_OTHER;
    }
}

/* The peer's signature: its key's type and the digest. In TLS 1.3 both name the algorithm. */
static uint16_t signature_stat(int type, int digest)
{
    bool sha384 = digest == NID_sha384, sha512 = digest == NID_sha512, sha1 = digest == NID_sha1;

    switch (type) {
    case EVP_PKEY_EC:
        return sha1     ? KB_STAT_SSL_SIGALGS_ECDSA_SHA1
               : sha384 ? KB_STAT_SSL_SIGALGS_ECDSA_SECP384R1_SHA384
               : sha512 ? KB_STAT_SSL_SIGALGS_ECDSA_SECP521R1_SHA512
                        : KB_STAT_SSL_SIGALGS_ECDSA_SECP256R1_SHA256;
    case EVP_PKEY_RSA_PSS:
        return sha384   ? KB_STAT_SSL_SIGALGS_RSA_PSS_RSAE_SHA384
               : sha512 ? KB_STAT_SSL_SIGALGS_RSA_PSS_RSAE_SHA512
                        : KB_STAT_SSL_SIGALGS_RSA_PSS_RSAE_SHA256;
    case EVP_PKEY_RSA:
        return sha1     ? KB_STAT_SSL_SIGALGS_RSA_PKCS1_SHA1
               : sha384 ? KB_STAT_SSL_SIGALGS_RSA_PKCS1_SHA384
               : sha512 ? KB_STAT_SSL_SIGALGS_RSA_PKCS1_SHA512
                        : KB_STAT_SSL_SIGALGS_RSA_PKCS1_SHA256;
    case EVP_PKEY_ED25519:
        return KB_STAT_SSL_SIGALGS_ED25519;
    default:
        return KB_STAT_SSL_SIGALGS_OTHER;
    }
}

/* TLS SignatureScheme (RFC 8446 section 4.2.3), as sessions keep it. */
static const struct {
    uint16_t scheme;
    uint16_t stat;
} signature_schemes[] = {
    {0x0201, KB_STAT_SSL_SIGALGS_RSA_PKCS1_SHA1},
    {0x0203, KB_STAT_SSL_SIGALGS_ECDSA_SHA1},
    {0x0401, KB_STAT_SSL_SIGALGS_RSA_PKCS1_SHA256},
    {0x0403, KB_STAT_SSL_SIGALGS_ECDSA_SECP256R1_SHA256},
    {0x0501, KB_STAT_SSL_SIGALGS_RSA_PKCS1_SHA384},
    {0x0503, KB_STAT_SSL_SIGALGS_ECDSA_SECP384R1_SHA384},
    {0x0601, KB_STAT_SSL_SIGALGS_RSA_PKCS1_SHA512},
    {0x0603, KB_STAT_SSL_SIGALGS_ECDSA_SECP521R1_SHA512},
    {0x0804, KB_STAT_SSL_SIGALGS_RSA_PSS_RSAE_SHA256},
    {0x0805, KB_STAT_SSL_SIGALGS_RSA_PSS_RSAE_SHA384},
    {0x0806, KB_STAT_SSL_SIGALGS_RSA_PSS_RSAE_SHA512},
    {0x0807, KB_STAT_SSL_SIGALGS_ED25519},
};

/* The peer's signature in this handshake; false: it made none. */
static bool signature_made(SSL *ssl, uint16_t *stat)
{
    int type = NID_undef, digest = NID_undef;

    if (SSL_get_peer_signature_type_nid(ssl, &type) != 1 ||
        SSL_get_peer_signature_nid(ssl, &digest) != 1 || type == NID_undef) {
        return false;
    }
    *stat = signature_stat(type, digest);
    return true;
}

uint16_t kb_tls_signature_scheme(SSL *ssl)
{
    uint16_t stat;

    if (signature_made(ssl, &stat)) {
        for (size_t i = 0; i < KB_ARRAY_LEN(signature_schemes); i++) {
            if (signature_schemes[i].stat == stat) {
                return signature_schemes[i].scheme;
            }
        }
    }
    return 0;
}

/* OpenSSL says nothing of signatures at resumption; the session does. */
static bool signature_kept(const struct kb_tls_socket *socket, uint16_t *stat)
{
    for (size_t i = 0; i < KB_ARRAY_LEN(signature_schemes); i++) {
        if (signature_schemes[i].scheme == socket->session_signature) {
            *stat = signature_schemes[i].stat;
            return true;
        }
    }
    return false;
}

void kb_tls_handshake_count(struct kb_tls_socket *socket)
{
    struct kb_stat_block *stats = socket->local->stats;
    SSL *ssl = socket->ssl;
    long group = SSL_get_negotiated_group(ssl);
    uint16_t signature;

    kb_stat_inc(stats, KB_STAT_SSL_HANDSHAKE);
    kb_stat_inc(stats, version_stat(ssl));
    kb_stat_inc(stats, cipher_stat(ssl));
    if (SSL_session_reused(ssl)) {
        kb_stat_inc(stats, KB_STAT_SSL_SESSION_REUSED);
        if (signature_kept(socket, &signature)) {
            kb_stat_inc(stats, signature);
        }
    } else if (signature_made(ssl, &signature)) {
        kb_stat_inc(stats, signature);
    }
    if (group > 0) {
        kb_stat_inc(stats, curve_stat(group));
    }
    if (!kb_ssl_peer_presented(socket->info)) {
        kb_stat_inc(stats, KB_STAT_SSL_NO_CERTIFICATE);
    }
}
