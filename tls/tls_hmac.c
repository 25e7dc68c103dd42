/* SPDX-License-Identifier: Apache-2.0 */
/* HMAC on the stack. OpenSSL's own takes thousands of instructions a time to look up the digest and
 * to make three contexts; the hashes below are its too, with all that it knows of the processor. */
#define OPENSSL_SUPPRESS_DEPRECATED /* SHA256_Init and its kin: the hash without the look-up */
#include "tls/tls_hmac.h"

#include <assert.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#define INNER_PAD 0x36
#define OUTER_PAD 0x5c

/* ---- hashes ---- */

static_assert(sizeof(SHA512_CTX) <= sizeof(struct kb_tls_hash_state), "room for either");
static_assert(sizeof(SHA256_CTX) <= sizeof(struct kb_tls_hash_state), "room for either");

static SHA256_CTX *sha256_of(struct kb_tls_hash_state *state)
{
    return (SHA256_CTX *)(void *)state->bytes;
}

static SHA512_CTX *sha512_of(struct kb_tls_hash_state *state)
{
    return (SHA512_CTX *)(void *)state->bytes;
}

static void sha256_begin(struct kb_tls_hash_state *state)
{
    (void)SHA256_Init(sha256_of(state));
}

static void sha256_add(struct kb_tls_hash_state *state, const void *bytes, size_t len)
{
    (void)SHA256_Update(sha256_of(state), bytes, len);
}

static void sha256_end(struct kb_tls_hash_state *state, unsigned char *out)
{
    (void)SHA256_Final(out, sha256_of(state));
}

static void sha384_begin(struct kb_tls_hash_state *state)
{
    (void)SHA384_Init(sha512_of(state));
}

static void sha384_add(struct kb_tls_hash_state *state, const void *bytes, size_t len)
{
    (void)SHA384_Update(sha512_of(state), bytes, len);
}

static void sha384_end(struct kb_tls_hash_state *state, unsigned char *out)
{
    (void)SHA384_Final(out, sha512_of(state));
}

static const struct kb_tls_hash sha256 = {
    .bytes = SHA256_DIGEST_LENGTH,
    .block = SHA256_CBLOCK,
    .begin = sha256_begin,
    .add = sha256_add,
    .end = sha256_end,
    .name = "SHA2-256",
    .of_nothing = {0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4,
                   0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b,
                   0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55},
};

static const struct kb_tls_hash sha384 = {
    .bytes = SHA384_DIGEST_LENGTH,
    .block = SHA512_CBLOCK,
    .begin = sha384_begin,
    .add = sha384_add,
    .end = sha384_end,
    .name = "SHA2-384",
    .of_nothing = {0x38, 0xb0, 0x60, 0xa7, 0x51, 0xac, 0x96, 0x38, 0x4c, 0xd9, 0x32, 0x7e,
                   0xb1, 0xb1, 0xe3, 0x6a, 0x21, 0xfd, 0xb7, 0x11, 0x14, 0xbe, 0x07, 0x43,
                   0x4c, 0x0c, 0xc7, 0xbf, 0x63, 0xf6, 0xe1, 0xda, 0x27, 0x4e, 0xde, 0xbf,
                   0xe7, 0x6f, 0x65, 0xfb, 0xd5, 0x1a, 0xd2, 0xf1, 0x48, 0x98, 0xb9, 0x5b},
};

const struct kb_tls_hash *kb_tls_hash_by_name(struct kb_str name)
{
    if (kb_str_ieq(name, KB_STR("SHA2-256")) || kb_str_ieq(name, KB_STR("SHA256")) ||
        kb_str_ieq(name, KB_STR("SHA-256"))) {
        return &sha256;
    }
    if (kb_str_ieq(name, KB_STR("SHA2-384")) || kb_str_ieq(name, KB_STR("SHA384")) ||
        kb_str_ieq(name, KB_STR("SHA-384"))) {
        return &sha384;
    }
    return NULL;
}

/* ---- HMAC ---- */

void kb_tls_hmac_key_init(struct kb_tls_hmac_key *key, const struct kb_tls_hash *hash,
                          struct kb_str bytes)
{
    unsigned char block[KB_TLS_HASH_BLOCK_MAX] = {0};

    key->hash = hash;
    if (bytes.len > hash->block) {
        hash->begin(&key->inner);
        hash->add(&key->inner, bytes.p, bytes.len);
        hash->end(&key->inner, block);
    } else if (bytes.len > 0) {
        memcpy(block, bytes.p, bytes.len);
    }
    for (size_t i = 0; i < sizeof(block); i++) {
        block[i] ^= INNER_PAD;
    }
    hash->begin(&key->inner);
    hash->add(&key->inner, block, hash->block);
    for (size_t i = 0; i < sizeof(block); i++) {
        block[i] ^= INNER_PAD ^ OUTER_PAD;
    }
    hash->begin(&key->outer);
    hash->add(&key->outer, block, hash->block);
    OPENSSL_cleanse(block, sizeof(block));
}

void kb_tls_hmac_key_clear(struct kb_tls_hmac_key *key)
{
    OPENSSL_cleanse(key, sizeof(*key));
}

void kb_tls_hmac_end(const struct kb_tls_hmac_key *key, struct kb_tls_hash_state *state,
                     unsigned char *out)
{
    const struct kb_tls_hash *hash = key->hash;

    hash->end(state, out);
    *state = key->outer;
    hash->add(state, out, hash->bytes);
    hash->end(state, out);
}
