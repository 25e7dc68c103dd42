/* SPDX-License-Identifier: Apache-2.0 */
/* JSON web tokens (RFC 7519) and key sets (RFC 7517): parsed, bounded by their text, and verified
 * with Envoy's verdicts. */
#pragma once

#include "base/arena.h"
#include "google/protobuf/struct.pb-c.h"
#include "proxy/api/jwt_verify.h"

/* Verdicts; kb_jwt_status_text has Envoy's words. */
enum kb_jwt_status {
#define X(id, text) KB_JWT_##id,
#include "proxy/ext/common/jwt_status.def"
#undef X
};
/* Of any verdict; a literal. */
const char *kb_jwt_status_text(enum kb_jwt_status status);

struct kb_jwt {
    struct kb_str header_text;  /* as it came, base64url */
    struct kb_str payload_text; /* likewise */
    struct kb_str signed_text;  /* both, and the dot between them */
    struct kb_str signature;    /* bytes */
    const Google__Protobuf__Struct *header;
    const Google__Protobuf__Struct *payload;
    enum kb_jwt_alg alg;
    struct kb_str kid;
    struct kb_str issuer;
    struct kb_str *audiences;
    size_t audience_count;
    uint64_t not_before; /* 0: not said */
    uint64_t expires;
};

/* From a token's text, which has to live as long; the rest in the arena. Any thread. */
enum kb_jwt_status kb_jwt_parse(struct kb_str text, struct kb_arena *arena, struct kb_jwt *jwt);
/* By the clock, in seconds since 1970. */
enum kb_jwt_status kb_jwt_check_time(const struct kb_jwt *jwt, uint64_t now_s, uint64_t skew_s);

struct kb_jwks; /* immutable */

/* A set from its JSON text; NULL with why in *status. Destroy it after the last token. */
struct kb_jwks *kb_jwks_create(struct kb_str json, enum kb_jwt_status *status);
/* NULL is allowed. */
void kb_jwks_destroy(struct kb_jwks *jwks);
/* Whether a key of the set signed the token. */
enum kb_jwt_status kb_jwks_verify(const struct kb_jwks *jwks, const struct kb_jwt *jwt);
