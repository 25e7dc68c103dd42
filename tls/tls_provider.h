/* SPDX-License-Identifier: Apache-2.0 */
/* Our provider of algorithms to OpenSSL: what it does itself in too roundabout a way for a
 * handshake. Their property is "provider=kobune". For this room. */
#pragma once

#include <openssl/core.h>

/* An OSSL_provider_init_fn. The library context has to have the default provider too. */
int kb_tls_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                         const OSSL_DISPATCH **out, void **provctx);

/* "TLS13-KDF" (RFC 8446 section 7.1) of SHA-256 and SHA-384. It takes all of its parameters in
 * EVP_KDF_derive, as libssl gives them, and none before. */
extern const OSSL_DISPATCH kb_tls_kdf_functions[];
/* "HMAC". Of other hashes than these two it is the default provider's. */
extern const OSSL_DISPATCH kb_tls_mac_functions[];
