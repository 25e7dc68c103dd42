/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.config.core.v3.RuntimeFractionalPercent: a share of requests, which runtime may override.
 */
#pragma once

#include "base/arena.h"
#include "proxy/api/runtime.h"

struct kb_runtime_fraction {
    struct kb_str key; /* empty: fixed */
    uint32_t numerator;
    uint32_t denominator;
};

struct Envoy__Type__V3__FractionalPercent;
struct Envoy__Config__Core__V3__RuntimeFractionalPercent;

/* 100, 10000 or 1000000. */
uint32_t kb_fraction_denominator(const struct Envoy__Type__V3__FractionalPercent *percent);
/* The key is copied. A missing default counts as 0 %. */
void kb_runtime_fraction_init(
    struct kb_runtime_fraction *fraction,
    const struct Envoy__Config__Core__V3__RuntimeFractionalPercent *message,
    struct kb_arena *arena);

KB_INLINE bool kb_runtime_fraction_holds(const struct kb_runtime_fraction *fraction,
                                         const struct kb_runtime *runtime, uint64_t random)
{
    return kb_runtime_feature_enabled(runtime, fraction->key, fraction->numerator,
                                      fraction->denominator, random);
}
