/* SPDX-License-Identifier: Apache-2.0 */
/* What proxy/api/ssl_connection_info.h shows of a connection; for this room. */
#pragma once

#include "proxy/api/ssl_connection_info.h"
#include "tls/tls_facts.h"

/* One reference, the socket's. `ssl` stays the socket's. */
struct kb_ssl_connection_info *kb_ssl_connection_info_create(SSL *ssl, struct kb_tls_worker *tls);
/* Takes over a reference; NULL: the peer showed no certificate. Only
 * before the handshake is done. */
void kb_ssl_info_peer_set(struct kb_ssl_connection_info *info, struct kb_tls_facts *peer);
struct kb_tls_facts *kb_ssl_info_peer(struct kb_ssl_connection_info *info);
/* The peer's certificate was checked: `checked` is its chain to a root, `sent` are those that it
 * sent (NULL: none). */
void kb_ssl_info_issuer_set(struct kb_ssl_connection_info *info, const STACK_OF(X509) * checked,
                            const STACK_OF(X509) * sent);
/* The peer is set and, with `validated`, was checked. */
void kb_ssl_info_handshake_done(struct kb_ssl_connection_info *info, SSL *ssl, bool validated);
/* The SSL object goes; what it alone knows is kept. NULL is allowed. */
void kb_ssl_info_closing(struct kb_ssl_connection_info *info);
