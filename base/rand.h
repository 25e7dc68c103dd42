/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers: a fast generator per worker for load balancing and request ids, and entropy from
 * the kernel to seed it. Not for keys. */
#pragma once

#include "base/compiler.h"

struct kb_rand {
    uint64_t s[4];
};

/* 64 bits from the kernel. */
uint64_t kb_rand_entropy(void);

/* Seeds the generator; the same seed gives the same numbers. */
void kb_rand_init(struct kb_rand *rand, uint64_t seed);

/* The next 64 bits (xoshiro256**). */
uint64_t kb_rand_u64(struct kb_rand *rand);

/* A random (version 4) UUID in its 36 byte text form, without NUL (RFC 9562 section 5.4). */
void kb_rand_uuid4(struct kb_rand *rand, char out[36]);
