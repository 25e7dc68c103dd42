/* SPDX-License-Identifier: Apache-2.0 */
/* The key schedule of TLS 1.3 for OpenSSL. For this room. */
#pragma once

#include <openssl/core.h>

/* An OSSL_provider_init_fn: a provider with nothing but the KDF "TLS13-KDF" (RFC 8446 section 7.1),
 * of SHA-256 and SHA-384, whose property is "provider=kobune". It takes all of its parameters in
 * EVP_KDF_derive, as libssl gives them, and none before. */
int kb_tls_kdf_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                             const OSSL_DISPATCH **out, void **provctx);
