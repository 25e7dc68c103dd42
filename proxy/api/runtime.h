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
};

/* First member of the implementation's struct. */
struct kb_runtime {
    const struct kb_runtime_ops *ops;
    bool has_keys; /* false: every question gets its default; relaxed */
};

/* Whether any key is set at all: callers that would have to compose a key ask this first. */
KB_INLINE bool kb_runtime_has_keys(const struct kb_runtime *runtime)
{
    return runtime != NULL && __atomic_load_n(&runtime->has_keys, __ATOMIC_RELAXED);
}

/* Envoy Runtime::Snapshot::featureEnabled with a FractionalPercent. `runtime` may be NULL and `key`
 * empty: the default. */
KB_INLINE bool kb_runtime_feature_enabled(const struct kb_runtime *runtime, struct kb_str key,
                                          uint32_t numerator, uint32_t denominator, uint64_t random)
{
    if (!kb_runtime_has_keys(runtime) || key.len == 0) {
        return random % denominator < numerator;
    }
    return runtime->ops->feature_enabled(runtime, key, numerator, denominator, random);
}

/* Envoy Runtime::Snapshot::getInteger. `runtime` may be NULL: the default. */
KB_INLINE uint64_t kb_runtime_get_u64(const struct kb_runtime *runtime, struct kb_str key,
                                      uint64_t absent)
{
    return kb_runtime_has_keys(runtime) ? runtime->ops->get_u64(runtime, key, absent) : absent;
}

/* Envoy Runtime::Snapshot::getDouble. `runtime` may be NULL and `key` empty: the default. */
KB_INLINE double kb_runtime_get_double(const struct kb_runtime *runtime, struct kb_str key,
                                       double absent)
{
    return kb_runtime_has_keys(runtime) && key.len > 0
               ? runtime->ops->get_double(runtime, key, absent)
               : absent;
}
