/* SPDX-License-Identifier: Apache-2.0 */
/* HMAC for OpenSSL: of tickets, of Finished and of binders. For other hashes, and for what only
 * records of TLS 1.2 ask for, the default provider's stands behind it. */
#include <stdbool.h>
#include <string.h>

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "tls/tls_hmac.h"
#include "tls/tls_provider.h"

struct mac {
    OSSL_LIB_CTX *library;
    EVP_MAC_CTX *other; /* the default provider's; NULL: this one works itself */
    const struct kb_tls_hash *hash;
    bool keyed, fed;
    struct kb_tls_hmac_key key;
    struct kb_tls_hash_state state;
    size_t raw_len;
    unsigned char raw[KB_TLS_HASH_BLOCK_MAX]; /* the key, for `other`; a longer one's hash */
};

/* ---- lifecycle ---- */

static void *mac_newctx(void *provctx)
{
    struct mac *mac = OPENSSL_zalloc(sizeof(*mac));

    if (mac != NULL) {
        mac->library = provctx;
    }
    return mac;
}

static void mac_freectx(void *context)
{
    struct mac *mac = context;

    if (mac != NULL) {
        EVP_MAC_CTX_free(mac->other);
        OPENSSL_clear_free(mac, sizeof(*mac));
    }
}

static void *mac_dupctx(void *context)
{
    struct mac *mac = context;
    struct mac *copy = OPENSSL_memdup(mac, sizeof(*mac));

    if (copy != NULL && mac->other != NULL) {
        copy->other = EVP_MAC_CTX_dup(mac->other);
        if (copy->other == NULL) {
            mac_freectx(copy);
            return NULL;
        }
    }
    return copy;
}

/* ---- the hash and the key ---- */

/* Goes on with the default provider's, with the hash and key that are known. */
static bool other_use(struct mac *mac)
{
    OSSL_PARAM params[2] = {OSSL_PARAM_construct_end(), OSSL_PARAM_construct_end()};
    EVP_MAC *algorithm;

    if (mac->fed) {
        return false; /* what it was fed is not known any more */
    }
    algorithm = EVP_MAC_fetch(mac->library, OSSL_MAC_NAME_HMAC, "provider=default");
    mac->other = EVP_MAC_CTX_new(algorithm);
    EVP_MAC_free(algorithm);
    if (mac->other == NULL) {
        return false;
    }
    if (mac->hash != NULL) {
        params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST,
                                                     (char *)(uintptr_t)mac->hash->name, 0);
        if (EVP_MAC_CTX_set_params(mac->other, params) != 1) {
            return false;
        }
    }
    return !mac->keyed || EVP_MAC_init(mac->other, mac->raw, mac->raw_len, NULL) == 1;
}

static bool key_set(struct mac *mac, const unsigned char *bytes, size_t len)
{
    const struct kb_tls_hash *hash = mac->hash;

    if (hash == NULL) {
        return false;
    }
    kb_tls_hmac_key_init(&mac->key, hash, kb_str_make((const char *)bytes, len));
    mac->state = mac->key.inner;
    mac->keyed = true;
    mac->fed = false;
    mac->raw_len = len;
    if (len > hash->block) {
        hash->begin(&mac->state);
        hash->add(&mac->state, bytes, len);
        hash->end(&mac->state, mac->raw);
        mac->state = mac->key.inner;
        mac->raw_len = hash->bytes;
    } else if (len > 0) {
        memcpy(mac->raw, bytes, len);
    }
    return true;
}

/* Whether these parameters are more than is done here. */
static bool needs_other(struct mac *mac, const OSSL_PARAM params[])
{
    for (const OSSL_PARAM *p = params; p->key != NULL; p++) {
        if (strcmp(p->key, OSSL_MAC_PARAM_DIGEST) == 0) {
            const char *name = p->data_type == OSSL_PARAM_UTF8_STRING ? p->data : NULL;
            const struct kb_tls_hash *hash =
                name == NULL ? NULL
                             : kb_tls_hash_by_name(kb_str_make(name, strnlen(name, p->data_size)));

            if (hash == NULL || (mac->keyed && hash != mac->hash)) {
                return true;
            }
            mac->hash = hash;
        } else if (strcmp(p->key, OSSL_MAC_PARAM_KEY) != 0 &&
                   strcmp(p->key, OSSL_MAC_PARAM_PROPERTIES) != 0) {
            return true;
        }
    }
    return false;
}

static int mac_set_params(void *context, const OSSL_PARAM params[])
{
    struct mac *mac = context;
    const OSSL_PARAM *key;

    if (params == NULL) {
        return 1;
    }
    if (mac->other == NULL && needs_other(mac, params) && !other_use(mac)) {
        return 0;
    }
    if (mac->other != NULL) {
        return EVP_MAC_CTX_set_params(mac->other, params);
    }
    key = OSSL_PARAM_locate_const(params, OSSL_MAC_PARAM_KEY);
    return key == NULL || (key->data_type == OSSL_PARAM_OCTET_STRING &&
                           key_set(mac, key->data, key->data == NULL ? 0 : key->data_size));
}

/* ---- the work ---- */

static int mac_init(void *context, const unsigned char *key, size_t len, const OSSL_PARAM params[])
{
    struct mac *mac = context;

    if (!mac_set_params(mac, params)) {
        return 0;
    }
    if (mac->other != NULL) {
        return EVP_MAC_init(mac->other, key, len, NULL);
    }
    if (key != NULL) {
        return key_set(mac, key, len);
    }
    if (!mac->keyed) {
        return 0;
    }
    mac->state = mac->key.inner;
    mac->fed = false;
    return 1;
}

static int mac_update(void *context, const unsigned char *bytes, size_t len)
{
    struct mac *mac = context;

    if (mac->other != NULL) {
        return EVP_MAC_update(mac->other, bytes, len);
    }
    if (!mac->keyed) {
        return 0;
    }
    mac->fed = true;
    mac->hash->add(&mac->state, bytes, len);
    return 1;
}

static int mac_final(void *context, unsigned char *out, size_t *len, size_t room)
{
    struct mac *mac = context;

    if (mac->other != NULL) {
        return EVP_MAC_final(mac->other, out, len, room);
    }
    if (!mac->keyed || room < mac->hash->bytes) {
        return 0;
    }
    kb_tls_hmac_end(&mac->key, &mac->state, out);
    *len = mac->hash->bytes;
    return 1;
}

/* ---- parameters ---- */

static int mac_get_params(void *context, OSSL_PARAM params[])
{
    struct mac *mac = context;
    OSSL_PARAM *p;

    if (mac->other != NULL) {
        return EVP_MAC_CTX_get_params(mac->other, params);
    }
    p = OSSL_PARAM_locate(params, OSSL_MAC_PARAM_SIZE);
    if (p != NULL && OSSL_PARAM_set_size_t(p, mac->hash == NULL ? 0 : mac->hash->bytes) != 1) {
        return 0;
    }
    p = OSSL_PARAM_locate(params, OSSL_MAC_PARAM_BLOCK_SIZE);
    return p == NULL || OSSL_PARAM_set_size_t(p, mac->hash == NULL ? 0 : mac->hash->block) == 1;
}

static const OSSL_PARAM *mac_gettable(void *context, void *provctx)
{
    static const OSSL_PARAM known[] = {
        OSSL_PARAM_size_t(OSSL_MAC_PARAM_SIZE, NULL),
        OSSL_PARAM_size_t(OSSL_MAC_PARAM_BLOCK_SIZE, NULL),
        OSSL_PARAM_END,
    };

    (void)context;
    (void)provctx;
    return known;
}

static const OSSL_PARAM *mac_settable(void *context, void *provctx)
{
    static const OSSL_PARAM known[] = {
        OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_DIGEST, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_PROPERTIES, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_MAC_PARAM_KEY, NULL, 0),
        OSSL_PARAM_int(OSSL_MAC_PARAM_DIGEST_NOINIT, NULL),
        OSSL_PARAM_int(OSSL_MAC_PARAM_DIGEST_ONESHOT, NULL),
        OSSL_PARAM_size_t(OSSL_MAC_PARAM_TLS_DATA_SIZE, NULL),
        OSSL_PARAM_END,
    };

    (void)context;
    (void)provctx;
    return known;
}

const OSSL_DISPATCH kb_tls_mac_functions[] = {
    {OSSL_FUNC_MAC_NEWCTX, (void (*)(void))mac_newctx},
    {OSSL_FUNC_MAC_DUPCTX, (void (*)(void))mac_dupctx},
    {OSSL_FUNC_MAC_FREECTX, (void (*)(void))mac_freectx},
    {OSSL_FUNC_MAC_INIT, (void (*)(void))mac_init},
    {OSSL_FUNC_MAC_UPDATE, (void (*)(void))mac_update},
    {OSSL_FUNC_MAC_FINAL, (void (*)(void))mac_final},
    {OSSL_FUNC_MAC_GET_CTX_PARAMS, (void (*)(void))mac_get_params},
    {OSSL_FUNC_MAC_GETTABLE_CTX_PARAMS, (void (*)(void))mac_gettable},
    {OSSL_FUNC_MAC_SET_CTX_PARAMS, (void (*)(void))mac_set_params},
    {OSSL_FUNC_MAC_SETTABLE_CTX_PARAMS, (void (*)(void))mac_settable},
    {0, NULL},
};
