/* SPDX-License-Identifier: Apache-2.0 */
/* What we give OpenSSL, against its own: the key schedule, also against RFC 8448, and HMAC; what
 * they refuse. */
#include "tls/tls_provider.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/provider.h>

#include "base/compiler.h"
#include "base/str.h"

#define OUT_MAX 600
#define TRIES   3000

static OSSL_LIB_CTX *library;
static OSSL_PROVIDER *providers[2];

static int library_make(void **state)
{
    (void)state;
    library = OSSL_LIB_CTX_new();
    if (library == NULL ||
        OSSL_PROVIDER_add_builtin(library, "kobune", kb_tls_provider_init) != 1) {
        return -1;
    }
    providers[0] = OSSL_PROVIDER_load(library, "kobune");
    providers[1] = OSSL_PROVIDER_load(library, "default");
    return providers[0] == NULL || providers[1] == NULL ? -1 : 0;
}

static int library_free(void **state)
{
    (void)state;
    OSSL_PROVIDER_unload(providers[0]);
    OSSL_PROVIDER_unload(providers[1]);
    OSSL_LIB_CTX_free(library);
    return 0;
}

struct question {
    int mode;
    const char *digest;
    struct kb_str key, salt, prefix, label, data; /* p NULL: not given */
    size_t len;
};

static OSSL_PARAM octets(const char *key, struct kb_str bytes)
{
    return OSSL_PARAM_construct_octet_string(key, (void *)(uintptr_t)bytes.p, bytes.len);
}

/* What the provider with this property makes of it; false: it refuses. */
static bool ask(const char *property, const struct question *q, unsigned char *out)
{
    EVP_KDF *kdf = EVP_KDF_fetch(library, OSSL_KDF_NAME_TLS1_3_KDF, property);
    EVP_KDF_CTX *context = EVP_KDF_CTX_new(kdf);
    const struct kb_str *bytes = &q->key;
    static const char *const keys[] = {OSSL_KDF_PARAM_KEY, OSSL_KDF_PARAM_SALT,
                                       OSSL_KDF_PARAM_PREFIX, OSSL_KDF_PARAM_LABEL,
                                       OSSL_KDF_PARAM_DATA};
    OSSL_PARAM params[8], *p = params;
    int mode = q->mode;
    bool good;

    assert_non_null(context);
    *p++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
    if (q->digest != NULL) {
        *p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)(uintptr_t)q->digest,
                                                0);
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(keys); i++) {
        if (bytes[i].p != NULL) {
            *p++ = octets(keys[i], bytes[i]);
        }
    }
    *p = OSSL_PARAM_construct_end();
    good = EVP_KDF_derive(context, out, q->len, params) == 1;
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
    return good;
}

static void vectors_of_rfc8448(void **state)
{
    static const unsigned char early[32] = {
        0x33, 0xad, 0x0a, 0x1c, 0x60, 0x7e, 0xc0, 0x3b, 0x09, 0xe6, 0xcd,
        0x98, 0x93, 0x68, 0x0c, 0xe2, 0x10, 0xad, 0xf3, 0x00, 0xaa, 0x1f,
        0x26, 0x60, 0xe1, 0xb2, 0x2e, 0x10, 0xf1, 0x70, 0xf9, 0x2a,
    };
    static const unsigned char derived[32] = {
        0x6f, 0x26, 0x15, 0xa1, 0x08, 0xc7, 0x02, 0xc5, 0x67, 0x8f, 0x54,
        0xfc, 0x9d, 0xba, 0xb6, 0x97, 0x16, 0xc0, 0x76, 0x18, 0x9c, 0x48,
        0x25, 0x0c, 0xeb, 0xea, 0xc3, 0x57, 0x6c, 0x36, 0x11, 0xba,
    };
    struct question q = {.mode = EVP_KDF_HKDF_MODE_EXTRACT_ONLY,
                         .digest = "SHA2-256",
                         .prefix = KB_STR("tls13 "),
                         .label = KB_STR("derived"),
                         .len = 32};
    unsigned char out[32], nothing[32];

    (void)state;
    assert_true(ask("provider=kobune", &q, out));
    assert_memory_equal(out, early, 32);
    assert_int_equal(EVP_Q_digest(library, "SHA256", NULL, "", 0, nothing, NULL), 1);
    q.mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    q.key = kb_str_make((const char *)early, 32);
    q.data = kb_str_make((const char *)nothing, 32);
    assert_true(ask("provider=kobune", &q, out));
    assert_memory_equal(out, derived, 32);
}

/* A generator of its own, so that a failure comes again. */
static uint32_t random_next(uint32_t below)
{
    static uint64_t seed = 20240601;

    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(seed >> 33) % below;
}

static struct kb_str random_bytes(char *room, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        room[i] = (char)random_next(256);
    }
    return kb_str_make(room, len);
}

static void as_the_library_derives(void **state)
{
    static const char *const digests[] = {"SHA2-256", "SHA256", "sha2-256", "SHA2-384", "SHA384"};
    unsigned derived = 0;

    (void)state;
    for (unsigned i = 0; i < TRIES; i++) {
        char room[5][320];
        bool expand = random_next(3) > 0;
        struct question q = {.digest = digests[random_next(KB_ARRAY_LEN(digests))],
                             .mode = expand ? EVP_KDF_HKDF_MODE_EXPAND_ONLY
                                            : EVP_KDF_HKDF_MODE_EXTRACT_ONLY};
        size_t hash = strstr(q.digest, "384") != NULL ? 48 : 32;
        unsigned char ours[OUT_MAX] = {0}, theirs[OUT_MAX] = {0};

        q.prefix = random_bytes(room[0], random_next(12));
        q.label = random_bytes(room[1], 1 + random_next(40));
        q.len = expand ? 1 + random_next(OUT_MAX) : hash;
        if (expand || random_next(2) > 0) {
            q.key = random_bytes(room[2], 1 + random_next(200));
        }
        if (random_next(2) > 0) {
            q.salt = random_bytes(room[3], hash);
        }
        if (random_next(4) > 0) {
            q.data = random_bytes(room[4], 1 + random_next(64));
        }
        assert_true(ask("provider=default", &q, theirs));
        assert_true(ask("provider=kobune", &q, ours));
        assert_memory_equal(ours, theirs, OUT_MAX);
        derived++;
    }
    assert_int_equal(derived, TRIES);
}

static void what_is_refused(void **state)
{
    static char text[300];
    const struct question good = {.mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY,
                                  .digest = "SHA2-256",
                                  .key = KB_STR("secret"),
                                  .prefix = KB_STR("tls13 "),
                                  .label = KB_STR("key"),
                                  .len = 16};
    unsigned char out[8200];
    struct question q = good;

    (void)state;
    assert_true(ask("provider=kobune", &q, out));
    q.len = 255 * 32;
    assert_true(ask("provider=kobune", &q, out));
    q.len++;
    assert_false(ask("provider=kobune", &q, out)); /* longer than HKDF can */
    q = good, q.digest = "SHA2-512";
    assert_false(ask("provider=kobune", &q, out));
    q = good, q.digest = NULL;
    assert_false(ask("provider=kobune", &q, out));
    q = good, q.key = KB_STR_NULL;
    assert_false(ask("provider=kobune", &q, out));
    q = good, q.mode = EVP_KDF_HKDF_MODE_EXTRACT_AND_EXPAND;
    assert_false(ask("provider=kobune", &q, out));
    q = good, q.mode = EVP_KDF_HKDF_MODE_EXTRACT_ONLY;
    assert_false(ask("provider=kobune", &q, out)); /* 16 bytes are no secret of SHA-256 */
    q = good, q.label = kb_str_make(text, 255 - 6);
    assert_true(ask("provider=kobune", &q, out));
    q.label.len++;
    assert_false(ask("provider=kobune", &q, out));
    q = good, q.data = kb_str_make(text, 255);
    assert_true(ask("provider=kobune", &q, out));
    q.data.len++;
    assert_false(ask("provider=kobune", &q, out));
}

/* ---- HMAC ---- */

enum mac_how { MAC_INIT, MAC_PARAM, MAC_AGAIN, MAC_COPY, MAC_HOW_COUNT };

struct mac_question {
    const char *digest;
    enum mac_how how;
    struct kb_str key, first, second;
};

static EVP_MAC_CTX *mac_make(const char *property)
{
    EVP_MAC *mac = EVP_MAC_fetch(library, OSSL_MAC_NAME_HMAC, property);
    EVP_MAC_CTX *context = EVP_MAC_CTX_new(mac);

    EVP_MAC_free(mac);
    assert_non_null(context);
    return context;
}

static OSSL_PARAM digest_param(const char *name)
{
    return OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)name, 0);
}

static void mac_key(EVP_MAC_CTX *context, const struct mac_question *q)
{
    const unsigned char *key = (const unsigned char *)q->key.p;
    OSSL_PARAM params[3] = {digest_param(q->digest), OSSL_PARAM_construct_end(),
                            OSSL_PARAM_construct_end()};

    if (q->how == MAC_PARAM) { /* the key first, as tickets have it */
        params[1] = params[0];
        params[0] = octets(OSSL_MAC_PARAM_KEY, q->key);
        assert_int_equal(EVP_MAC_CTX_set_params(context, params), 1);
        return;
    }
    assert_int_equal(EVP_MAC_init(context, key, q->key.len, params), 1);
    if (q->how == MAC_AGAIN) {
        assert_int_equal(EVP_MAC_update(context, key, q->key.len), 1);
        assert_int_equal(EVP_MAC_init(context, NULL, 0, NULL), 1);
    }
}

static size_t mac_of(const char *property, const struct mac_question *q, unsigned char *out)
{
    EVP_MAC_CTX *context = mac_make(property);
    size_t len = 0;

    mac_key(context, q);
    assert_int_equal(EVP_MAC_update(context, (const unsigned char *)q->first.p, q->first.len), 1);
    if (q->how == MAC_COPY) {
        EVP_MAC_CTX *copy = EVP_MAC_CTX_dup(context);

        assert_non_null(copy);
        assert_int_equal(EVP_MAC_update(context, (const unsigned char *)"other", 5), 1);
        EVP_MAC_CTX_free(context);
        context = copy;
    }
    assert_int_equal(EVP_MAC_update(context, (const unsigned char *)q->second.p, q->second.len), 1);
    assert_int_equal(EVP_MAC_final(context, out, &len, EVP_MAX_MD_SIZE), 1);
    assert_int_equal(len, EVP_MAC_CTX_get_mac_size(context));
    EVP_MAC_CTX_free(context);
    return len;
}

static void as_the_library_authenticates(void **state)
{
    static const char *const digests[] = {"SHA2-256", "SHA256",   "SHA2-384",
                                          "SHA1",     "MD5-SHA1", "SHA512"};

    (void)state;
    for (unsigned i = 0; i < TRIES; i++) {
        char room[3][320];
        unsigned char ours[EVP_MAX_MD_SIZE] = {0}, theirs[EVP_MAX_MD_SIZE] = {0};
        struct mac_question q = {.digest = digests[random_next(KB_ARRAY_LEN(digests))],
                                 .how = random_next(MAC_HOW_COUNT),
                                 .key = random_bytes(room[0], random_next(300)),
                                 .first = random_bytes(room[1], random_next(300)),
                                 .second = random_bytes(room[2], random_next(300))};

        assert_int_equal(mac_of("provider=default", &q, theirs),
                         mac_of("provider=kobune", &q, ours));
        assert_memory_equal(ours, theirs, sizeof(ours));
    }
}

/* Records of TLS 1.2 in CBC, in constant time. */
static size_t mac_of_record(const char *property, size_t padding, unsigned char *out)
{
    static const unsigned char header[13] = {[9] = 3, 3}, body[200];
    static const unsigned char key[32] = {1, 2, 3};
    size_t whole = sizeof(body) + padding, len = 0;
    EVP_MAC_CTX *keyed = mac_make(property), *context;
    OSSL_PARAM params[2] = {digest_param("SHA2-256"), OSSL_PARAM_construct_end()};

    assert_int_equal(EVP_MAC_init(keyed, key, sizeof(key), params), 1);
    context = EVP_MAC_CTX_dup(keyed);
    assert_non_null(context);
    params[0] = OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_TLS_DATA_SIZE, &whole);
    assert_int_equal(EVP_MAC_CTX_set_params(context, params), 1);
    assert_int_equal(EVP_MAC_update(context, header, sizeof(header)), 1);
    assert_int_equal(EVP_MAC_update(context, body, sizeof(body)), 1);
    assert_int_equal(EVP_MAC_final(context, out, &len, EVP_MAX_MD_SIZE), 1);
    EVP_MAC_CTX_free(context);
    EVP_MAC_CTX_free(keyed);
    return len;
}

static void records_of_cbc(void **state)
{
    unsigned char ours[EVP_MAX_MD_SIZE], theirs[EVP_MAX_MD_SIZE];

    (void)state;
    assert_int_equal(mac_of_record("provider=kobune", 40, ours), 32);
    assert_int_equal(mac_of_record("provider=default", 40, theirs), 32);
    assert_memory_equal(ours, theirs, 32);
}

static void a_mac_wants_its_key(void **state)
{
    EVP_MAC_CTX *context = mac_make("provider=kobune");
    OSSL_PARAM params[2] = {digest_param("SHA2-256"), OSSL_PARAM_construct_end()};
    unsigned char out[EVP_MAX_MD_SIZE];
    size_t len;

    (void)state;
    assert_int_equal(EVP_MAC_update(context, (const unsigned char *)"x", 1), 0);
    assert_int_equal(EVP_MAC_init(context, (const unsigned char *)"k", 1, NULL), 0);
    assert_int_equal(EVP_MAC_init(context, NULL, 0, params), 0);
    assert_int_equal(EVP_MAC_final(context, out, &len, sizeof(out)), 0);
    assert_int_equal(EVP_MAC_init(context, (const unsigned char *)"k", 1, NULL), 1);
    assert_int_equal(EVP_MAC_final(context, out, &len, 31), 0); /* too little room */
    assert_int_equal(EVP_MAC_final(context, out, &len, 32), 1);
    EVP_MAC_CTX_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_of_rfc8448), cmocka_unit_test(as_the_library_derives),
        cmocka_unit_test(what_is_refused),    cmocka_unit_test(as_the_library_authenticates),
        cmocka_unit_test(records_of_cbc),     cmocka_unit_test(a_mac_wants_its_key),
    };

    return cmocka_run_group_tests(tests, library_make, library_free);
}
