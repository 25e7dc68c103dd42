/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures of JSON web tokens: keys from the numbers of a JWK, and one verification. */
#include "proxy/api/jwt_verify.h"

#include <stdlib.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>

#include "base/mem.h"

#define EC_COORDINATE_MAX 66 /* P-521 */
#define RSA_MODULUS_MAX   2048
#define SIGNATURE_DER_MAX 160

enum key_kind { KEY_RSA, KEY_EC, KEY_ED25519, KEY_OCT };

struct kb_jwt_key {
    enum key_kind kind;
    EVP_PKEY *pkey;
    size_t coordinate_len; /* EC */
    struct kb_str secret;  /* OCT */
};

static const struct {
    const char *name;
    const char *group;
    size_t coordinate_len;
    enum kb_jwt_alg alg;
} curves[] = {
    {"P-256", "prime256v1", 32, KB_JWT_ES256},
    {"P-384", "secp384r1", 48, KB_JWT_ES384},
    {"P-521", "secp521r1", 66, KB_JWT_ES512},
};

/* ---- keys ---- */

static struct kb_jwt_key *key_create(enum key_kind kind, EVP_PKEY *pkey)
{
    struct kb_jwt_key *key;

    ERR_clear_error();
    if (pkey == NULL) {
        return NULL;
    }
    key = kb_calloc(1, sizeof(*key));
    key->kind = kind;
    key->pkey = pkey;
    return key;
}

static EVP_PKEY *pkey_from(const char *type, OSSL_PARAM_BLD *build)
{
    EVP_PKEY_CTX *maker = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY *pkey = NULL;

    if (maker == NULL || params == NULL || EVP_PKEY_fromdata_init(maker) != 1 ||
        EVP_PKEY_fromdata(maker, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        pkey = NULL;
    }
    OSSL_PARAM_free(params);
    EVP_PKEY_CTX_free(maker);
    return pkey;
}

struct kb_jwt_key *kb_jwt_key_create_rsa(struct kb_str modulus, struct kb_str exponent)
{
    OSSL_PARAM_BLD *build;
    BIGNUM *n, *e;
    EVP_PKEY *pkey = NULL;

    if (modulus.len == 0 || modulus.len > RSA_MODULUS_MAX || exponent.len == 0 ||
        exponent.len > RSA_MODULUS_MAX) {
        return NULL;
    }
    build = OSSL_PARAM_BLD_new();
    n = BN_bin2bn((const unsigned char *)modulus.p, (int)modulus.len, NULL);
    e = BN_bin2bn((const unsigned char *)exponent.p, (int)exponent.len, NULL);
    if (build != NULL && n != NULL && e != NULL &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e) == 1) {
        pkey = pkey_from("RSA", build);
    }
    BN_free(n);
    BN_free(e);
    OSSL_PARAM_BLD_free(build);
    return key_create(KEY_RSA, pkey);
}

struct kb_jwt_key *kb_jwt_key_create_ec(struct kb_str curve, struct kb_str x, struct kb_str y)
{
    unsigned char point[1 + 2 * EC_COORDINATE_MAX] = {4}; /* uncompressed */
    OSSL_PARAM_BLD *build;
    EVP_PKEY *pkey = NULL;
    struct kb_jwt_key *key;
    size_t i = 0;
    size_t len;

    while (i < KB_ARRAY_LEN(curves) && !kb_str_eq(kb_str_from_cstr(curves[i].name), curve)) {
        i++;
    }
    if (i == KB_ARRAY_LEN(curves)) {
        return NULL;
    }
    len = curves[i].coordinate_len;
    if (x.len == 0 || x.len > len || y.len == 0 || y.len > len) {
        return NULL;
    }
    memcpy(point + 1 + (len - x.len), x.p, x.len);
    memcpy(point + 1 + len + (len - y.len), y.p, y.len);
    build = OSSL_PARAM_BLD_new();
    if (build != NULL &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, curves[i].group, 0) ==
            1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * len) == 1) {
        pkey = pkey_from("EC", build);
    }
    OSSL_PARAM_BLD_free(build);
    key = key_create(KEY_EC, pkey);
    if (key != NULL) {
        key->coordinate_len = len;
    }
    return key;
}

struct kb_jwt_key *kb_jwt_key_create_ed25519(struct kb_str x)
{
    return key_create(KEY_ED25519,
                      x.len == 32 ? EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL,
                                                                (const unsigned char *)x.p, x.len)
                                  : NULL);
}

struct kb_jwt_key *kb_jwt_key_create_oct(struct kb_str secret)
{
    struct kb_jwt_key *key;
    char *copy;

    if (secret.len == 0) {
        return NULL;
    }
    key = kb_calloc(1, sizeof(*key));
    copy = kb_malloc(secret.len);
    memcpy(copy, secret.p, secret.len);
    key->kind = KEY_OCT;
    key->secret = kb_str_make(copy, secret.len);
    return key;
}

void kb_jwt_key_destroy(struct kb_jwt_key *key)
{
    if (key == NULL) {
        return;
    }
    EVP_PKEY_free(key->pkey);
    if (key->secret.p != NULL) {
        OPENSSL_cleanse((char *)(uintptr_t)key->secret.p, key->secret.len);
        free((char *)(uintptr_t)key->secret.p);
    }
    free(key);
}

/* ---- verification ---- */

static const EVP_MD *digest_of(enum kb_jwt_alg alg)
{
    switch (alg) {
    case KB_JWT_ES256:
    case KB_JWT_HS256:
    case KB_JWT_RS256:
    case KB_JWT_PS256:
        return EVP_sha256();
    case KB_JWT_ES384:
    case KB_JWT_HS384:
    case KB_JWT_RS384:
    case KB_JWT_PS384:
        return EVP_sha384();
    case KB_JWT_ES512:
    case KB_JWT_HS512:
    case KB_JWT_RS512:
    case KB_JWT_PS512:
        return EVP_sha512();
    case KB_JWT_EDDSA:
    case KB_JWT_ALG_COUNT:
        break;
    }
    return NULL;
}

/* Whether keys of this kind, and this curve, sign so. */
static bool alg_fits(const struct kb_jwt_key *key, enum kb_jwt_alg alg)
{
    switch (key->kind) {
    case KEY_RSA:
        return alg >= KB_JWT_RS256 && alg <= KB_JWT_PS512;
    case KEY_EC:
        for (size_t i = 0; i < KB_ARRAY_LEN(curves); i++) {
            if (curves[i].alg == alg) {
                return curves[i].coordinate_len == key->coordinate_len;
            }
        }
        return false;
    case KEY_ED25519:
        return alg == KB_JWT_EDDSA;
    case KEY_OCT:
        return alg >= KB_JWT_HS256 && alg <= KB_JWT_HS512;
    }
    return false;
}

static bool hmac_verify(const struct kb_jwt_key *key, enum kb_jwt_alg alg, struct kb_str text,
                        struct kb_str signature)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    return HMAC(digest_of(alg), key->secret.p, (int)key->secret.len, (const unsigned char *)text.p,
                text.len, mac, &len) != NULL &&
           signature.len == len && CRYPTO_memcmp(mac, signature.p, len) == 0;
}

/* R and S, one behind the other (RFC 7518 section 3.4), as the DER that OpenSSL takes; 0: not so.
 */
static int ecdsa_der(const struct kb_jwt_key *key, struct kb_str signature,
                     unsigned char der[SIGNATURE_DER_MAX])
{
    int half = (int)key->coordinate_len;
    ECDSA_SIG *sig;
    BIGNUM *r, *s;
    unsigned char *at = der;
    int len = 0;

    if (signature.len != 2 * key->coordinate_len) {
        return 0;
    }
    sig = ECDSA_SIG_new();
    r = BN_bin2bn((const unsigned char *)signature.p, half, NULL);
    s = BN_bin2bn((const unsigned char *)signature.p + half, half, NULL);
    if (sig == NULL || r == NULL || s == NULL || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
    } else if (i2d_ECDSA_SIG(sig, NULL) <= SIGNATURE_DER_MAX) {
        len = i2d_ECDSA_SIG(sig, &at);
    }
    ECDSA_SIG_free(sig);
    return len > 0 ? len : 0;
}

static bool pkey_verify(const struct kb_jwt_key *key, enum kb_jwt_alg alg, struct kb_str text,
                        struct kb_str signature)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    EVP_PKEY_CTX *options = NULL;
    bool good =
        md != NULL && EVP_DigestVerifyInit(md, &options, digest_of(alg), NULL, key->pkey) == 1;

    if (good && alg >= KB_JWT_PS256 && alg <= KB_JWT_PS512) {
        good = EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) == 1;
    }
    good = good && EVP_DigestVerify(md, (const unsigned char *)signature.p, signature.len,
                                    (const unsigned char *)text.p, text.len) == 1;
    EVP_MD_CTX_free(md);
    ERR_clear_error();
    return good;
}

bool kb_jwt_key_verify(const struct kb_jwt_key *key, enum kb_jwt_alg alg, struct kb_str text,
                       struct kb_str signature)
{
    unsigned char der[SIGNATURE_DER_MAX];

    if (!alg_fits(key, alg) || signature.len == 0) {
        return false;
    }
    if (key->kind == KEY_OCT) {
        return hmac_verify(key, alg, text, signature);
    }
    if (key->kind == KEY_EC) {
        signature = kb_str_make((const char *)der, (size_t)ecdsa_der(key, signature, der));
        if (signature.len == 0) {
            return false;
        }
    }
    return pkey_verify(key, alg, text, signature);
}
