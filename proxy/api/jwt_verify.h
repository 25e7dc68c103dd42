/* SPDX-License-Identifier: Apache-2.0 */
/* Public keys and signatures of JSON web tokens (RFC 7518, RFC 8037). Implemented in
 * tls/tls_jwt_verify.c. Keys are immutable and shared by workers. */
#pragma once

#include <stdbool.h>

#include "base/str.h"

enum kb_jwt_alg {
    KB_JWT_ES256,
    KB_JWT_ES384,
    KB_JWT_ES512,
    KB_JWT_HS256,
    KB_JWT_HS384,
    KB_JWT_HS512,
    KB_JWT_RS256,
    KB_JWT_RS384,
    KB_JWT_RS512,
    KB_JWT_PS256,
    KB_JWT_PS384,
    KB_JWT_PS512,
    KB_JWT_EDDSA,
    KB_JWT_ALG_COUNT
};

struct kb_jwt_key;

/* Keys from the raw bytes of a JWK's members; NULL: they make no key. */
struct kb_jwt_key *kb_jwt_key_create_rsa(struct kb_str modulus, struct kb_str exponent);
/* `curve` "P-256", "P-384" or "P-521". */
struct kb_jwt_key *kb_jwt_key_create_ec(struct kb_str curve, struct kb_str x, struct kb_str y);
struct kb_jwt_key *kb_jwt_key_create_ed25519(struct kb_str x);
struct kb_jwt_key *kb_jwt_key_create_oct(struct kb_str secret);
/* NULL is allowed. */
void kb_jwt_key_destroy(struct kb_jwt_key *key);

/* Whether the key signed the text so. False too when the algorithm is not one of this key's kind or
 * curve. Any thread. */
bool kb_jwt_key_verify(const struct kb_jwt_key *key, enum kb_jwt_alg alg, struct kb_str text,
                       struct kb_str signature);
