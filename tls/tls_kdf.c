/* SPDX-License-Identifier: Apache-2.0 */
/* The key schedule of TLS 1.3. A handshake asks for some twenty derivations of a few hundred
 * instructions of hashing each; OpenSSL's own wraps each of them in tens of thousands: it looks up
 * the digest by its name, copies every parameter to the heap and makes three digest contexts. Here
 * the parameters are read where they stand, and hashed on the stack. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "tls/tls_hmac.h"
#include "tls/tls_provider.h"

#define LABEL_TEXT_MAX 255 /* "tls13 " and the label, RFC 8446 section 7.1 */
#define LABEL_MAX      (2 + 1 + LABEL_TEXT_MAX + 1 + 255)
#define EXPAND_STEPS   255 /* RFC 5869 section 2.3 */

/* ---- HKDF ---- */

/* The HMAC of both, one after the other. */
static void hmac(const struct kb_tls_hmac_key *key, struct kb_str first, struct kb_str second,
                 unsigned char *out)
{
    struct kb_tls_hash_state state = key->inner;

    key->hash->add(&state, first.p, first.len);
    key->hash->add(&state, second.p, second.len);
    kb_tls_hmac_end(key, &state, out);
    OPENSSL_cleanse(&state, sizeof(state));
}

struct derivation {
    int64_t mode; /* EVP_KDF_HKDF_MODE_* */
    const struct kb_tls_hash *hash;
    struct kb_str key, salt, prefix, label, data;
};

/* HKDF-Expand, RFC 5869 section 2.3. */
static bool hkdf_expand(const struct kb_tls_hash *hash, struct kb_str key, struct kb_str info,
                        unsigned char *out, size_t len)
{
    unsigned char input[LABEL_MAX + 1], previous[KB_TLS_HASH_BYTES_MAX];
    struct kb_str last = KB_STR_NULL;
    struct kb_tls_hmac_key prepared;

    if (len == 0 || len > EXPAND_STEPS * hash->bytes || info.len > LABEL_MAX) {
        return false;
    }
    memcpy(input, info.p, info.len);
    kb_tls_hmac_key_init(&prepared, hash, key);
    for (unsigned step = 1; len > 0; step++) {
        size_t n = KB_MIN(len, hash->bytes);

        input[info.len] = (unsigned char)step;
        hmac(&prepared, last, kb_str_make((const char *)input, info.len + 1), previous);
        memcpy(out, previous, n);
        last = kb_str_make((const char *)previous, hash->bytes);
        out += n;
        len -= n;
    }
    kb_tls_hmac_key_clear(&prepared);
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
    static const unsigned char zeros[KB_TLS_HASH_BYTES_MAX];
    const struct kb_tls_hash *hash = d->hash;
    struct kb_str key = d->key, salt = d->salt;
    unsigned char derived[KB_TLS_HASH_BYTES_MAX];
    struct kb_tls_hmac_key prepared;

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
    kb_tls_hmac_key_init(&prepared, hash, salt);
    hmac(&prepared, key, KB_STR_NULL, out);
    kb_tls_hmac_key_clear(&prepared);
    OPENSSL_cleanse(derived, sizeof(derived));
    return true;
}

/* ---- OpenSSL's view ---- */

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
    d->hash =
        kb_tls_hash_by_name(kb_str_first(name, name.len == 0 ? 0 : strnlen(name.p, name.len)));
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

const OSSL_DISPATCH kb_tls_kdf_functions[] = {
    {OSSL_FUNC_KDF_NEWCTX, (void (*)(void))kdf_newctx},
    {OSSL_FUNC_KDF_FREECTX, (void (*)(void))kdf_freectx},
    {OSSL_FUNC_KDF_DERIVE, (void (*)(void))kdf_derive},
    {0, NULL},
};
