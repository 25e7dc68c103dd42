/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens and key sets. Whatever a peer sends ends in a verdict: the JSON reader is bounded in
 * depth, memory is the arena's and grows with the text. */
#include "proxy/ext/common/jwt.h"

#include <stdlib.h>

#include "base/base64.h"
#include "base/mem.h"
#include "proto/pb_json.h"
#include "proxy/api/dynamic_metadata.h"

#define JWKS_KEYS_MAX         256
#define ED25519_SIGNATURE_LEN 64

static const char *const alg_names[KB_JWT_ALG_COUNT] = {
    [KB_JWT_ES256] = "ES256", [KB_JWT_ES384] = "ES384", [KB_JWT_ES512] = "ES512",
    [KB_JWT_HS256] = "HS256", [KB_JWT_HS384] = "HS384", [KB_JWT_HS512] = "HS512",
    [KB_JWT_RS256] = "RS256", [KB_JWT_RS384] = "RS384", [KB_JWT_RS512] = "RS512",
    [KB_JWT_PS256] = "PS256", [KB_JWT_PS384] = "PS384", [KB_JWT_PS512] = "PS512",
    [KB_JWT_EDDSA] = "EdDSA",
};

const char *kb_jwt_status_text(enum kb_jwt_status status)
{
    static const char *const texts[] = {
#define X(id, text) [KB_JWT_##id] = text,
#include "proxy/ext/common/jwt_status.def"
#undef X
    };

    return texts[status];
}

/* ---- parts of both ---- */

/* Base64url without padding (RFC 7515 section 2); p NULL: it is not. */
static struct kb_str base64url_decode(struct kb_str text, struct kb_arena *arena)
{
    char *usual = kb_arena_alloc(arena, text.len + 1, 1);
    char *out = kb_arena_alloc(arena, text.len + 1, 1);
    size_t len = text.len;

    for (size_t i = 0; i < text.len; i++) {
        char c = text.p[i];

        if (c == '+' || c == '/' || c == '=') {
            return KB_STR_NULL;
        }
        usual[i] = (char)(c == '-' ? '+' : c == '_' ? '/' : c);
    }
    return kb_base64_decode(kb_str_make(usual, text.len), out, &len) == 0 ? kb_str_make(out, len)
                                                                          : KB_STR_NULL;
}

/* NULL: not a JSON object. */
static const Google__Protobuf__Struct *json_read(struct kb_str json, struct kb_arena *arena)
{
    struct kb_diag diag;
    const ProtobufCMessage *message;

    kb_diag_init(&diag);
    message = kb_pb_json_parse(&google__protobuf__struct__descriptor, KB_STR("token"), json,
                               KB_PB_UNKNOWN_ERROR, arena, &diag);
    kb_diag_dispose(&diag);
    return (const void *)message;
}

/* True when it is absent (then *text is empty) or a string. */
static bool string_read(const Google__Protobuf__Struct *map, const char *key, struct kb_str *text)
{
    const Google__Protobuf__Value *value = kb_struct_get(map, kb_str_from_cstr(key));

    *text = KB_STR("");
    if (value == NULL) {
        return true;
    }
    if (value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
        return false;
    }
    *text = kb_str_from_cstr(value->string_value);
    return true;
}

/* ---- tokens ---- */

static enum kb_jwt_status header_read(struct kb_jwt *jwt, struct kb_arena *arena)
{
    struct kb_str json = base64url_decode(jwt->header_text, arena);
    struct kb_str alg;
    size_t i = 0;

    if (json.p == NULL) {
        return KB_JWT_HEADER_BAD_BASE64;
    }
    jwt->header = json_read(json, arena);
    if (jwt->header == NULL) {
        return KB_JWT_HEADER_BAD_JSON;
    }
    if (kb_struct_get(jwt->header, KB_STR("alg")) == NULL ||
        !string_read(jwt->header, "alg", &alg)) {
        return KB_JWT_HEADER_BAD_ALG;
    }
    while (i < KB_JWT_ALG_COUNT && !kb_str_eq(kb_str_from_cstr(alg_names[i]), alg)) {
        i++;
    }
    if (i == KB_JWT_ALG_COUNT) {
        return KB_JWT_HEADER_UNKNOWN_ALG;
    }
    jwt->alg = (enum kb_jwt_alg)i;
    return string_read(jwt->header, "kid", &jwt->kid) ? KB_JWT_OK : KB_JWT_HEADER_BAD_KID;
}

static enum kb_jwt_status time_read(const struct kb_jwt *jwt, const char *key,
                                    enum kb_jwt_status not_integer, enum kb_jwt_status range,
                                    uint64_t *seconds)
{
    const Google__Protobuf__Value *value = kb_struct_get(jwt->payload, kb_str_from_cstr(key));

    *seconds = 0;
    if (value == NULL) {
        return KB_JWT_OK;
    }
    if (value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE) {
        return not_integer;
    }
    if (!(value->number_value >= 0) || value->number_value >= 18446744073709551616.0) {
        return range;
    }
    *seconds = (uint64_t)value->number_value;
    return KB_JWT_OK;
}

static enum kb_jwt_status audiences_read(struct kb_jwt *jwt, struct kb_arena *arena)
{
    const Google__Protobuf__Value *value = kb_struct_get(jwt->payload, KB_STR("aud"));
    const Google__Protobuf__ListValue *list;

    jwt->audience_count = 0;
    if (value == NULL) {
        return KB_JWT_OK;
    }
    if (value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
        jwt->audiences = KB_ARENA_NEW(arena, struct kb_str);
        jwt->audiences[0] = kb_str_from_cstr(value->string_value);
        jwt->audience_count = 1;
        return KB_JWT_OK;
    }
    if (value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
        return KB_JWT_PAYLOAD_BAD_AUD;
    }
    list = value->list_value;
    jwt->audiences = kb_arena_calloc(arena, (list->n_values + 1) * sizeof(*jwt->audiences));
    for (size_t i = 0; i < list->n_values; i++) {
        if (list->values[i]->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
            return KB_JWT_PAYLOAD_BAD_AUD;
        }
        jwt->audiences[jwt->audience_count++] = kb_str_from_cstr(list->values[i]->string_value);
    }
    return KB_JWT_OK;
}

static enum kb_jwt_status payload_read(struct kb_jwt *jwt, struct kb_arena *arena)
{
    struct kb_str json = base64url_decode(jwt->payload_text, arena);
    struct kb_str ignored;
    uint64_t issued;
    enum kb_jwt_status status;

    if (json.p == NULL) {
        return KB_JWT_PAYLOAD_BAD_BASE64;
    }
    jwt->payload = json_read(json, arena);
    if (jwt->payload == NULL) {
        return KB_JWT_PAYLOAD_BAD_JSON;
    }
    if (!string_read(jwt->payload, "iss", &jwt->issuer)) {
        return KB_JWT_PAYLOAD_BAD_ISS;
    }
    if (!string_read(jwt->payload, "sub", &ignored)) {
        return KB_JWT_PAYLOAD_BAD_SUB;
    }
    status = time_read(jwt, "iat", KB_JWT_PAYLOAD_BAD_IAT, KB_JWT_PAYLOAD_IAT_RANGE, &issued);
    if (status == KB_JWT_OK) {
        status = time_read(jwt, "nbf", KB_JWT_PAYLOAD_BAD_NBF, KB_JWT_PAYLOAD_NBF_RANGE,
                           &jwt->not_before);
    }
    if (status == KB_JWT_OK) {
        status =
            time_read(jwt, "exp", KB_JWT_PAYLOAD_BAD_EXP, KB_JWT_PAYLOAD_EXP_RANGE, &jwt->expires);
    }
    if (status == KB_JWT_OK && !string_read(jwt->payload, "jti", &ignored)) {
        status = KB_JWT_PAYLOAD_BAD_JTI;
    }
    return status == KB_JWT_OK ? audiences_read(jwt, arena) : status;
}

enum kb_jwt_status kb_jwt_parse(struct kb_str text, struct kb_arena *arena, struct kb_jwt *jwt)
{
    ptrdiff_t first = kb_str_find_char(text, '.');
    ptrdiff_t last = kb_str_rfind_char(text, '.');
    enum kb_jwt_status status;

    memset(jwt, 0, sizeof(*jwt));
    if (first < 0 || first == last ||
        kb_str_find_char(kb_str_from(text, (size_t)first + 1), '.') != last - first - 1) {
        return KB_JWT_BAD_FORMAT;
    }
    jwt->header_text = kb_str_first(text, (size_t)first);
    jwt->signed_text = kb_str_first(text, (size_t)last);
    jwt->payload_text = kb_str_from(jwt->signed_text, (size_t)first + 1);
    jwt->signature = kb_str_from(text, (size_t)last + 1);
    if (jwt->header_text.len == 0 || jwt->payload_text.len == 0 || jwt->signature.len == 0) {
        return KB_JWT_BAD_FORMAT;
    }
    status = header_read(jwt, arena);
    if (status == KB_JWT_OK) {
        status = payload_read(jwt, arena);
    }
    if (status == KB_JWT_OK) {
        jwt->signature = base64url_decode(jwt->signature, arena);
        status = jwt->signature.p != NULL ? KB_JWT_OK : KB_JWT_SIGNATURE_BAD_BASE64;
    }
    return status;
}

enum kb_jwt_status kb_jwt_check_time(const struct kb_jwt *jwt, uint64_t now_s, uint64_t skew_s)
{
    if (jwt->not_before > 0 && now_s + skew_s < jwt->not_before) {
        return KB_JWT_NOT_YET_VALID;
    }
    if (jwt->expires > 0 && now_s > skew_s && now_s - skew_s > jwt->expires) {
        return KB_JWT_EXPIRED;
    }
    return KB_JWT_OK;
}

/* ---- key sets ---- */

struct jwk {
    struct kb_str kid; /* empty: any token */
    struct kb_str alg; /* empty: any of its kind */
    struct kb_jwt_key *key;
    bool ed25519;
};

struct kb_jwks {
    struct kb_arena arena;
    struct jwk *keys;
    size_t count;
};

/* The bytes of a member; p NULL: it is not there, or not base64url. */
static struct kb_str bytes_read(const Google__Protobuf__Struct *map, const char *key,
                                struct kb_arena *arena)
{
    struct kb_str text;

    if (!string_read(map, key, &text) || text.len == 0) {
        return KB_STR_NULL;
    }
    return base64url_decode(text, arena);
}

static struct kb_jwt_key *key_read(const Google__Protobuf__Struct *map, struct kb_arena *arena)
{
    struct kb_str type, curve;

    if (!string_read(map, "kty", &type) || !string_read(map, "crv", &curve)) {
        return NULL;
    }
    if (kb_str_eq(type, KB_STR("RSA"))) {
        return kb_jwt_key_create_rsa(bytes_read(map, "n", arena), bytes_read(map, "e", arena));
    }
    if (kb_str_eq(type, KB_STR("EC"))) {
        return kb_jwt_key_create_ec(curve, bytes_read(map, "x", arena),
                                    bytes_read(map, "y", arena));
    }
    if (kb_str_eq(type, KB_STR("OKP")) && kb_str_eq(curve, KB_STR("Ed25519"))) {
        return kb_jwt_key_create_ed25519(bytes_read(map, "x", arena));
    }
    return kb_str_eq(type, KB_STR("oct")) ? kb_jwt_key_create_oct(bytes_read(map, "k", arena))
                                          : NULL;
}

static struct kb_str type_of(const Google__Protobuf__Struct *map)
{
    struct kb_str type;

    return string_read(map, "kty", &type) ? type : KB_STR("");
}

static enum kb_jwt_status keys_read(struct kb_jwks *jwks, const Google__Protobuf__ListValue *list)
{
    jwks->keys = kb_arena_calloc(&jwks->arena, (list->n_values + 1) * sizeof(*jwks->keys));
    for (size_t i = 0; i < list->n_values && jwks->count < JWKS_KEYS_MAX; i++) {
        const Google__Protobuf__Value *value = list->values[i];
        struct jwk *jwk = &jwks->keys[jwks->count];

        if (value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE ||
            !string_read(value->struct_value, "kid", &jwk->kid) ||
            !string_read(value->struct_value, "alg", &jwk->alg)) {
            continue;
        }
        jwk->key = key_read(value->struct_value, &jwks->arena);
        jwk->ed25519 = kb_str_eq(type_of(value->struct_value), KB_STR("OKP"));
        jwks->count += jwk->key != NULL;
    }
    return jwks->count > 0 ? KB_JWT_OK : KB_JWT_JWKS_NO_VALID_KEYS;
}

struct kb_jwks *kb_jwks_create(struct kb_str json, enum kb_jwt_status *status)
{
    struct kb_jwks *jwks = kb_calloc(1, sizeof(*jwks));
    const Google__Protobuf__Struct *map;
    const Google__Protobuf__Value *keys;

    kb_arena_init(&jwks->arena, NULL);
    map = json_read(json, &jwks->arena);
    keys = map != NULL ? kb_struct_get(map, KB_STR("keys")) : NULL;
    if (map == NULL) {
        *status = KB_JWT_JWKS_PARSE_ERROR;
    } else if (keys == NULL) {
        *status = KB_JWT_JWKS_NO_KEYS;
    } else if (keys->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
        *status = KB_JWT_JWKS_BAD_KEYS;
    } else {
        *status = keys_read(jwks, keys->list_value);
    }
    if (*status != KB_JWT_OK) {
        kb_jwks_destroy(jwks);
        return NULL;
    }
    return jwks;
}

void kb_jwks_destroy(struct kb_jwks *jwks)
{
    if (jwks == NULL) {
        return;
    }
    for (size_t i = 0; i < jwks->count; i++) {
        kb_jwt_key_destroy(jwks->keys[i].key);
    }
    kb_arena_dispose(&jwks->arena);
    free(jwks);
}

enum kb_jwt_status kb_jwks_verify(const struct kb_jwks *jwks, const struct kb_jwt *jwt)
{
    struct kb_str alg = kb_str_from_cstr(alg_names[jwt->alg]);
    bool matched = false;

    for (size_t i = 0; i < jwks->count; i++) {
        const struct jwk *jwk = &jwks->keys[i];

        if ((jwt->kid.len > 0 && jwk->kid.len > 0 && !kb_str_eq(jwk->kid, jwt->kid)) ||
            (jwk->alg.len > 0 && !kb_str_eq(jwk->alg, alg))) {
            continue;
        }
        matched = true;
        if (jwk->ed25519 && jwt->signature.len != ED25519_SIGNATURE_LEN) {
            return KB_JWT_ED25519_LENGTH; /* further keys are not tried, as in Envoy */
        }
        if (kb_jwt_key_verify(jwk->key, jwt->alg, jwt->signed_text, jwt->signature)) {
            return KB_JWT_OK;
        }
    }
    return matched ? KB_JWT_VERIFICATION_FAIL : KB_JWT_JWKS_KID_ALG_MISMATCH;
}
