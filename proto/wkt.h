/* SPDX-License-Identifier: Apache-2.0 */
/* Values out of google.protobuf wrappers and durations, with the default for an absent one. */
#pragma once

#include "base/str.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/wrappers.pb-c.h"

/* Milliseconds; a part of a millisecond counts as one, so that a positive duration never becomes 0
 * (off). Negative: 0. */
KB_INLINE uint64_t kb_wkt_duration_ms(const Google__Protobuf__Duration *duration,
                                      uint64_t absent_ms)
{
    if (duration == NULL) {
        return absent_ms;
    }
    if (duration->seconds < 0 || duration->nanos < 0) {
        return 0;
    }
    return (uint64_t)duration->seconds * 1000 + ((uint64_t)duration->nanos + 999999) / 1000000;
}

KB_INLINE uint32_t kb_wkt_u32(const Google__Protobuf__UInt32Value *value, uint32_t absent)
{
    return value != NULL ? value->value : absent;
}

KB_INLINE bool kb_wkt_bool(const Google__Protobuf__BoolValue *value, bool absent)
{
    return value != NULL ? value->value != 0 : absent;
}

/* A string field as a slice; protobuf-c never leaves it NULL but for unset oneof members. */
KB_INLINE struct kb_str kb_wkt_str(const char *value)
{
    return kb_str_from_cstr(value != NULL ? value : "");
}
