/* SPDX-License-Identifier: Apache-2.0 */
/* What proxy/api/ssl_connection_info.h shows of a connection; for this room. */
#pragma once

#include "proxy/api/ssl_connection_info.h"
#include "tls/tls_lib.h"

/* One reference, the socket's. `ssl` stays the socket's. */
struct kb_ssl_connection_info *kb_ssl_connection_info_create(SSL *ssl, struct kb_tls_lib *lib);
/* The certificates are known. */
void kb_ssl_info_handshake_done(struct kb_ssl_connection_info *info, SSL *ssl, bool validated);
/* The SSL object goes; what it alone knows is kept. NULL is allowed. */
void kb_ssl_info_closing(struct kb_ssl_connection_info *info);
