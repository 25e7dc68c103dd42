/* SPDX-License-Identifier: Apache-2.0 */
/* HMAC (RFC 2104) of the hashes of TLS 1.3's suites, without a look-up and without the heap. For
 * this room. */
#pragma once

#include <stddef.h>

#include "base/str.h"

#define KB_TLS_HASH_BYTES_MAX 48  /* SHA-384 */
#define KB_TLS_HASH_BLOCK_MAX 128 /* the same */

/* The state of a hash that is being fed; secret where what it is fed is. */
struct kb_tls_hash_state {
    _Alignas(8) unsigned char bytes[216];
};

struct kb_tls_hash {
    size_t bytes, block; /* of what comes out; of a block */
    void (*begin)(struct kb_tls_hash_state *state);
    void (*add)(struct kb_tls_hash_state *state, const void *bytes, size_t len);
    void (*end)(struct kb_tls_hash_state *state, unsigned char *out);
    const char *name; /* OpenSSL's */
    unsigned char of_nothing[KB_TLS_HASH_BYTES_MAX];
};

/* SHA-256 or SHA-384, by any of OpenSSL's names; NULL: another one. */
const struct kb_tls_hash *kb_tls_hash_by_name(struct kb_str name);

/* A key, hashed in once for all that is made with it. */
struct kb_tls_hmac_key {
    const struct kb_tls_hash *hash;
    struct kb_tls_hash_state inner, outer;
};

/* The caller's storage, to be cleared when it is done with; the bytes are not kept. */
void kb_tls_hmac_key_init(struct kb_tls_hmac_key *key, const struct kb_tls_hash *hash,
                          struct kb_str bytes);
/* Leaves nothing of the key. */
void kb_tls_hmac_key_clear(struct kb_tls_hmac_key *key);
/* Begins with state = key->inner and key->hash->add; writes hash->bytes. */
void kb_tls_hmac_end(const struct kb_tls_hmac_key *key, struct kb_tls_hash_state *state,
                     unsigned char *out);
