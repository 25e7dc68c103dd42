/* SPDX-License-Identifier: Apache-2.0 */
/* Runtime fractions from their message. */
#include "proxy/matcher/runtime_fraction.h"

#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/type/v3/percent.pb-c.h"

uint32_t kb_fraction_denominator(const Envoy__Type__V3__FractionalPercent *percent)
{
    switch ((int)percent->denominator) {
    case ENVOY__TYPE__V3__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__TEN_THOUSAND:
        return 10000;
    case ENVOY__TYPE__V3__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__MILLION:
        return 1000000;
    default:
        return 100;
    }
}

void kb_runtime_fraction_init(struct kb_runtime_fraction *fraction,
                              const Envoy__Config__Core__V3__RuntimeFractionalPercent *message,
                              struct kb_arena *arena)
{
    fraction->key = kb_str_dup(arena, kb_str_from_cstr(message->runtime_key));
    fraction->numerator = message->default_value != NULL ? message->default_value->numerator : 0;
    fraction->denominator =
        message->default_value != NULL ? kb_fraction_denominator(message->default_value) : 100;
}
