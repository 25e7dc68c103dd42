/* SPDX-License-Identifier: Apache-2.0 */
/* Runtime: numbers and fractions that an operator may override by key (Envoy layered_runtime).
 * Reached through a table of functions, so that rooms left of the server need nothing of it;
 * proxy/server implements it. Any thread. */
#pragma once

#include <stdbool.h>

#include "base/str.h"

struct kb_runtime;

struct kb_runtime_ops {
    /* Whether the key's fraction (an integer stands for percent), or numerator/denominator when the
     * key is not set, holds for this random number. */
    bool (*feature_enabled)(const struct kb_runtime *runtime, struct kb_str key, uint32_t numerator,
                            uint32_t denominator, uint64_t random);
    /* The key's integer, or `absent`. */
    uint64_t (*get_u64)(const struct kb_runtime *runtime, struct kb_str key, uint64_t absent);
    /* The key's number, or `absent`. */
    double (*get_double)(const struct kb_runtime *runtime, struct kb_str key, double absent);
    /* What the key says of true or false, or `absent`. */
    bool (*get_bool)(const struct kb_runtime *runtime, struct kb_str key, bool absent);
};

/* First member of the implementation's struct. */
struct kb_runtime {
    const struct kb_runtime_ops *ops;
    /* Of the keys that are set: bit n stands for those that begin with letter n of the alphabet,
     * bit 0 for the rest. Nothing set: every question gets its default. Relaxed. */
    uint32_t first_letters;
};

/* The bit of first_letters for this key. */
KB_INLINE uint32_t kb_runtime_letter(struct kb_str key)
{
    return key.len > 0 && key.p[0] >= 'a' && key.p[0] <= 'z' ? 1u << (key.p[0] - 'a' + 1) : 1u;
}

/* Whether `key`, or one that begins with it, may be set: false for most keys that are asked for in
 * each request, without a look at the snapshot. Callers that would have to compose a key ask with
 * its beginning first. */
KB_INLINE bool kb_runtime_may_have(const struct kb_runtime *runtime, struct kb_str key)
{
    return runtime != NULL && (__atomic_load_n(&runtime->first_letters, __ATOMIC_RELAXED) &
                               kb_runtime_letter(key)) != 0;
}

/* Envoy Runtime::Snapshot::featureEnabled with a FractionalPercent. `runtime` may be NULL and `key`
 * empty: the default. */
KB_INLINE bool kb_runtime_feature_enabled(const struct kb_runtime *runtime, struct kb_str key,
                                          uint32_t numerator, uint32_t denominator, uint64_t random)
{
    if (!kb_runtime_may_have(runtime, key) || key.len == 0) {
        return random % denominator < numerator;
    }
    return runtime->ops->feature_enabled(runtime, key, numerator, denominator, random);
}

/* Envoy Runtime::Snapshot::getInteger. `runtime` may be NULL: the default. */
KB_INLINE uint64_t kb_runtime_get_u64(const struct kb_runtime *runtime, struct kb_str key,
                                      uint64_t absent)
{
    return kb_runtime_may_have(runtime, key) ? runtime->ops->get_u64(runtime, key, absent) : absent;
}

/* Envoy Runtime::Snapshot::getDouble. `runtime` may be NULL and `key` empty: the default. */
KB_INLINE double kb_runtime_get_double(const struct kb_runtime *runtime, struct kb_str key,
                                       double absent)
{
    return kb_runtime_may_have(runtime, key) && key.len > 0
               ? runtime->ops->get_double(runtime, key, absent)
               : absent;
}

/* Envoy Runtime::Snapshot::getBoolean. `runtime` may be NULL and `key` empty: the default. */
KB_INLINE bool kb_runtime_get_bool(const struct kb_runtime *runtime, struct kb_str key, bool absent)
{
    return kb_runtime_may_have(runtime, key) && key.len > 0
               ? runtime->ops->get_bool(runtime, key, absent)
               : absent;
}
