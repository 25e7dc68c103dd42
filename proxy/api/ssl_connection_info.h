/* SPDX-License-Identifier: Apache-2.0 */
/* What TLS knows of a connection (Envoy Ssl::ConnectionInfo): for access logs, headers, filters.
 * Implemented in tls/; values are made at first use and live as long as the connection. On its
 * worker. */
#pragma once

#include "base/str.h"

struct kb_ssl_connection_info;

enum kb_ssl_text {
    KB_SSL_PEER_SHA256, /* lower-case hex of the peer certificate's digest */
    KB_SSL_PEER_SHA1,
    KB_SSL_PEER_SERIAL, /* lower-case hex */
    KB_SSL_PEER_ISSUER, /* RFC 2253 */
    KB_SSL_PEER_SUBJECT,
    KB_SSL_LOCAL_SUBJECT,
    KB_SSL_PEER_PEM_ENCODED,   /* URL-encoded PEM of the certificate */
    KB_SSL_PEER_CHAIN_ENCODED, /* of the whole chain */
    KB_SSL_PEER_CHAIN_SHA256,  /* of each certificate that the peer sent, with commas between */
    KB_SSL_PEER_CHAIN_SHA1,
    KB_SSL_PEER_CHAIN_SERIALS,
    KB_SSL_PEER_ISSUER_SHA256, /* of the certificate that vouched for the peer's, as it was checked
                                */
    KB_SSL_PEER_ISSUER_SERIAL,
    KB_SSL_SESSION_ID, /* hex */
    KB_SSL_VERSION,    /* "TLSv1.3" */
    KB_SSL_CIPHER,     /* "TLS_AES_256_GCM_SHA384" */
    KB_SSL_SERVER_NAME,
    KB_SSL_ALPN,  /* as negotiated; empty: none */
    KB_SSL_GROUP, /* of the key exchange: "X25519", "P-256" */
    KB_SSL_TEXT_COUNT
};

enum kb_ssl_list {
    KB_SSL_PEER_URI_SANS,
    KB_SSL_LOCAL_URI_SANS,
    KB_SSL_PEER_DNS_SANS,
    KB_SSL_LOCAL_DNS_SANS,
    KB_SSL_PEER_IP_SANS,
    KB_SSL_LOCAL_IP_SANS,
    KB_SSL_PEER_EMAIL_SANS,
    KB_SSL_LOCAL_EMAIL_SANS,
    KB_SSL_LIST_COUNT
};

/* Keeps it beyond the connection's life: for upstream connections, whose requests log later. On its
 * worker. NULL is allowed. */
const struct kb_ssl_connection_info *
kb_ssl_connection_info_ref(const struct kb_ssl_connection_info *ssl);
void kb_ssl_connection_info_unref(const struct kb_ssl_connection_info *ssl);

/* Empty when there is none, or when ssl is NULL. */
struct kb_str kb_ssl_text(const struct kb_ssl_connection_info *ssl, enum kb_ssl_text what);
/* The values in the certificate's order, *count of them. */
const struct kb_str *kb_ssl_list(const struct kb_ssl_connection_info *ssl, enum kb_ssl_list what,
                                 size_t *count);
/* The number of the cipher suite (RFC 8446 B.4); 0: none. */
uint16_t kb_ssl_cipher_id(const struct kb_ssl_connection_info *ssl);
bool kb_ssl_peer_presented(const struct kb_ssl_connection_info *ssl);
/* The peer's certificate was checked against a trusted root (or accepted by pin). */
bool kb_ssl_peer_validated(const struct kb_ssl_connection_info *ssl);
/* Seconds since 1970 of the peer certificate's validity; false: no certificate. */
bool kb_ssl_peer_validity(const struct kb_ssl_connection_info *ssl, int64_t *not_before,
                          int64_t *not_after);
