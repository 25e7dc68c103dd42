/* SPDX-License-Identifier: Apache-2.0 */
/* The key schedule of TLS 1.3. A handshake asks for some twenty derivations of a few hundred
 * instructions of hashing each; OpenSSL's own wraps each of them in tens of thousands: it looks up
 * the digest by its name, copies every parameter to the heap and makes three digest contexts. Here
 * the parameters are read where they stand, and hashed on the stack. */
#define OPENSSL_SUPPRESS_DEPRECATED /* SHA256_Init and its kin: the hash without the look-up */
#include "tls/tls_kdf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/sha.h>

#include "base/str.h"

#define HASH_MAX       SHA384_DIGEST_LENGTH
#define BLOCK_MAX      SHA512_CBLOCK
#define LABEL_TEXT_MAX 255 /* "tls13 " and the label, RFC 8446 section 7.1 */
#define LABEL_MAX      (2 + 1 + LABEL_TEXT_MAX + 1 + 255)
#define EXPAND_STEPS   255 /* RFC 5869 section 2.3 */
#define INNER_PAD      0x36
#define OUTER_PAD      0x5c

/* ---- hashes ---- */

union hash_state {
    SHA256_CTX sha256;
    SHA512_CTX sha384;
};

struct hash {
    size_t bytes, block;
    void (*begin)(union hash_state *state);
    void (*add)(union hash_state *state, const void *bytes, size_t len);
    void (*end)(union hash_state *state, unsigned char *out);
    unsigned char of_nothing[HASH_MAX]; /* the hash of no bytes */
};

static void sha256_begin(union hash_state *state)
{
    (void)SHA256_Init(&state->sha256);
}

static void sha256_add(union hash_state *state, const void *bytes, size_t len)
{
    (void)SHA256_Update(&state->sha256, bytes, len);
}

static void sha256_end(union hash_state *state, unsigned char *out)
{
    (void)SHA256_Final(out, &state->sha256);
}

static void sha384_begin(union hash_state *state)
{
    (void)SHA384_Init(&state->sha384);
}

static void sha384_add(union hash_state *state, const void *bytes, size_t len)
{
    (void)SHA384_Update(&state->sha384, bytes, len);
}

static void sha384_end(union hash_state *state, unsigned char *out)
{
    (void)SHA384_Final(out, &state->sha384);
}

static const struct hash sha256 = {
    .bytes = SHA256_DIGEST_LENGTH,
    .block = SHA256_CBLOCK,
    .begin = sha256_begin,
    .add = sha256_add,
    .end = sha256_end,
    .of_nothing = {0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4,
                   0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b,
                   0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55},
};

static const struct hash sha384 = {
    .bytes = SHA384_DIGEST_LENGTH,
    .block = SHA512_CBLOCK,
    .begin = sha384_begin,
    .add = sha384_add,
    .end = sha384_end,
    .of_nothing = {0x38, 0xb0, 0x60, 0xa7, 0x51, 0xac, 0x96, 0x38, 0x4c, 0xd9, 0x32, 0x7e,
                   0xb1, 0xb1, 0xe3, 0x6a, 0x21, 0xfd, 0xb7, 0x11, 0x14, 0xbe, 0x07, 0x43,
                   0x4c, 0x0c, 0xc7, 0xbf, 0x63, 0xf6, 0xe1, 0xda, 0x27, 0x4e, 0xde, 0xbf,
                   0xe7, 0x6f, 0x65, 0xfb, 0xd5, 0x1a, 0xd2, 0xf1, 0x48, 0x98, 0xb9, 0x5b},
};

/* The hashes of TLS 1.3's suites; NULL: another one. */
static const struct hash *hash_of(struct kb_str name)
{
    if (kb_str_ieq(name, KB_STR("SHA2-256")) || kb_str_ieq(name, KB_STR("SHA256"))) {
        return &sha256;
    }
    if (kb_str_ieq(name, KB_STR("SHA2-384")) || kb_str_ieq(name, KB_STR("SHA384"))) {
        return &sha384;
    }
    return NULL;
}

/* ---- HMAC, RFC 2104 ---- */

/* A key, hashed in once for all that is derived from it. */
struct hmac_key {
    const struct hash *hash;
    union hash_state inner, outer;
};

static void hmac_key_init(struct hmac_key *key, const struct hash *hash, struct kb_str bytes)
{
    unsigned char block[BLOCK_MAX] = {0};

    key->hash = hash;
    if (bytes.len > hash->block) {
        hash->begin(&key->inner);
        hash->add(&key->inner, bytes.p, bytes.len);
        hash->end(&key->inner, block);
    } else if (bytes.len > 0) {
        memcpy(block, bytes.p, bytes.len);
    }
    for (size_t i = 0; i < hash->block; i++) {
        block[i] ^= INNER_PAD;
    }
    hash->begin(&key->inner);
    hash->add(&key->inner, block, hash->block);
    for (size_t i = 0; i < hash->block; i++) {
        block[i] ^= INNER_PAD ^ OUTER_PAD;
    }
    hash->begin(&key->outer);
    hash->add(&key->outer, block, hash->block);
    OPENSSL_cleanse(block, hash->block);
}

static void hmac_key_clear(struct hmac_key *key)
{
    OPENSSL_cleanse(key, sizeof(*key));
}

/* The HMAC of both, one after the other. */
static void hmac(const struct hmac_key *key, struct kb_str first, struct kb_str second,
                 unsigned char *out)
{
    const struct hash *hash = key->hash;
    union hash_state state = key->inner;

    hash->add(&state, first.p, first.len);
    hash->add(&state, second.p, second.len);
    hash->end(&state, out);
    state = key->outer;
    hash->add(&state, out, hash->bytes);
    hash->end(&state, out);
    OPENSSL_cleanse(&state, sizeof(state));
}

/* ---- HKDF ---- */

struct derivation {
    int64_t mode; /* EVP_KDF_HKDF_MODE_* */
    const struct hash *hash;
    struct kb_str key, salt, prefix, label, data;
};

/* HKDF-Expand, RFC 5869 section 2.3. */
static bool hkdf_expand(const struct hash *hash, struct kb_str key, struct kb_str info,
                        unsigned char *out, size_t len)
{
    unsigned char input[LABEL_MAX + 1], previous[HASH_MAX];
    struct kb_str last = KB_STR_NULL;
    struct hmac_key prepared;

    if (len == 0 || len > EXPAND_STEPS * hash->bytes || info.len > LABEL_MAX) {
        return false;
    }
    memcpy(input, info.p, info.len);
    hmac_key_init(&prepared, hash, key);
    for (unsigned step = 1; len > 0; step++) {
        size_t n = KB_MIN(len, hash->bytes);

        input[info.len] = (unsigned char)step;
        hmac(&prepared, last, kb_str_make((const char *)input, info.len + 1), previous);
        memcpy(out, previous, n);
        last = kb_str_make((const char *)previous, hash->bytes);
        out += n;
        len -= n;
    }
    hmac_key_clear(&prepared);
    OPENSSL_cleanse(previous, sizeof(previous));
    return true;
}

/* HKDF-Expand-Label, RFC 8446 section 7.1. */
static bool expand_label(const struct derivation *d, struct kb_str secret, struct kb_str data,
                         unsigned char *out, size_t len)
{
    unsigned char info[LABEL_MAX];
    size_t text = d->prefix.len + d->label.len, at = 0;

    if (text > LABEL_TEXT_MAX || data.len > 255 || len > UINT16_MAX) {
        return false;
    }
    info[at++] = (unsigned char)(len >> 8);
    info[at++] = (unsigned char)len;
    info[at++] = (unsigned char)text;
    if (d->prefix.len > 0) {
        memcpy(info + at, d->prefix.p, d->prefix.len);
    }
    if (d->label.len > 0) {
        memcpy(info + at + d->prefix.len, d->label.p, d->label.len);
    }
    at += text;
    info[at++] = (unsigned char)data.len;
    if (data.len > 0) {
        memcpy(info + at, data.p, data.len);
    }
    at += data.len;
    return hkdf_expand(d->hash, secret, kb_str_make((const char *)info, at), out, len);
}

/* The next secret down the schedule: HKDF-Extract with what is derived from the secret before. */
static bool extract(const struct derivation *d, unsigned char *out, size_t len)
{
    static const unsigned char zeros[HASH_MAX];
    const struct hash *hash = d->hash;
    struct kb_str key = d->key, salt = d->salt;
    unsigned char derived[HASH_MAX];
    struct hmac_key prepared;

    if (len != hash->bytes) {
        return false;
    }
    if (key.p == NULL) {
        key = kb_str_make((const char *)zeros, hash->bytes);
    }
    if (salt.p != NULL) {
        if (!expand_label(d, salt, kb_str_make((const char *)hash->of_nothing, hash->bytes),
                          derived, hash->bytes)) {
            return false;
        }
        salt = kb_str_make((const char *)derived, hash->bytes);
    }
    hmac_key_init(&prepared, hash, salt);
    hmac(&prepared, key, KB_STR_NULL, out);
    hmac_key_clear(&prepared);
    OPENSSL_cleanse(derived, sizeof(derived));
    return true;
}

/* ---- the provider ---- */

/* What is in a parameter of bytes or of text; p is NULL where there is none. */
static struct kb_str bytes_of(const OSSL_PARAM *param)
{
    return kb_str_make(param->data, param->data == NULL ? 0 : param->data_size);
}

static bool mode_take(struct derivation *d, const OSSL_PARAM *param)
{
    int mode = 0;

    /* libssl gives the number; there is a text too. */
    if (param->data_type != OSSL_PARAM_INTEGER || OSSL_PARAM_get_int(param, &mode) != 1) {
        return false;
    }
    d->mode = mode;
    return true;
}

static bool digest_take(struct derivation *d, const OSSL_PARAM *param)
{
    struct kb_str name = bytes_of(param);

    if (param->data_type != OSSL_PARAM_UTF8_STRING) {
        return false;
    }
    d->hash = hash_of(kb_str_first(name, name.len == 0 ? 0 : strnlen(name.p, name.len)));
    return d->hash != NULL;
}

static bool param_take(struct derivation *d, const OSSL_PARAM *param)
{
    static const struct {
        const char *key;
        size_t at; /* in struct derivation */
    } places[] = {
        {OSSL_KDF_PARAM_KEY, offsetof(struct derivation, key)},
        {OSSL_KDF_PARAM_SALT, offsetof(struct derivation, salt)},
        {OSSL_KDF_PARAM_PREFIX, offsetof(struct derivation, prefix)},
        {OSSL_KDF_PARAM_LABEL, offsetof(struct derivation, label)},
        {OSSL_KDF_PARAM_DATA, offsetof(struct derivation, data)},
    };

    if (strcmp(param->key, OSSL_KDF_PARAM_MODE) == 0) {
        return mode_take(d, param);
    }
    if (strcmp(param->key, OSSL_KDF_PARAM_DIGEST) == 0) {
        return digest_take(d, param);
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(places); i++) {
        if (param->key[0] == places[i].key[0] && strcmp(param->key, places[i].key) == 0) {
            if (param->data_type != OSSL_PARAM_OCTET_STRING) {
                return false;
            }
            *(struct kb_str *)(void *)((char *)d + places[i].at) = bytes_of(param);
            return true;
        }
    }
    return true; /* properties of the digest to look up: none is */
}

static int kdf_derive(void *context, unsigned char *out, size_t len, const OSSL_PARAM params[])
{
    struct derivation d = {.mode = -1};

    (void)context;
    for (const OSSL_PARAM *p = params; p != NULL && p->key != NULL; p++) {
        if (!param_take(&d, p)) {
            return 0;
        }
    }
    if (d.hash == NULL) {
        return 0;
    }
    if (d.mode == EVP_KDF_HKDF_MODE_EXTRACT_ONLY) {
        return extract(&d, out, len);
    }
    return d.mode == EVP_KDF_HKDF_MODE_EXPAND_ONLY && d.key.p != NULL &&
           expand_label(&d, d.key, d.data, out, len);
}

/* Nothing is kept between calls, so that all contexts are one. */
static void *kdf_newctx(void *provctx)
{
    static char nothing;

    (void)provctx;
    return &nothing;
}

static void kdf_freectx(void *context)
{
    (void)context;
}

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_store)
{
    static const OSSL_DISPATCH functions[] = {
        {OSSL_FUNC_KDF_NEWCTX, (void (*)(void))kdf_newctx},
        {OSSL_FUNC_KDF_FREECTX, (void (*)(void))kdf_freectx},
        {OSSL_FUNC_KDF_DERIVE, (void (*)(void))kdf_derive},
        {0, NULL},
    };
    static const OSSL_ALGORITHM kdfs[] = {
        {OSSL_KDF_NAME_TLS1_3_KDF, "provider=kobune", functions, NULL},
        {NULL, NULL, NULL, NULL},
    };

    (void)provctx;
    *no_store = 0;
    return operation == OSSL_OP_KDF ? kdfs : NULL;
}

int kb_tls_kdf_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                             const OSSL_DISPATCH **out, void **provctx)
{
    static const OSSL_DISPATCH functions[] = {
        {OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query},
        {0, NULL},
    };

    (void)in;
    *out = functions;
    *provctx = (void *)(uintptr_t)handle;
    return 1;
}
