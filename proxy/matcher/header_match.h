/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.config.route.v3.HeaderMatcher: all specifiers, the deprecated ones too. Of a header that
 * stands several times one value has to match (Envoy since 1.38; it joined them with "," before);
 * inverted: none may. */
#pragma once

#include "proxy/api/header_map.h"
#include "proxy/matcher/string_match.h"

enum kb_header_match_kind {
    KB_HEADER_MATCH_PRESENT,
    KB_HEADER_MATCH_RANGE,
    KB_HEADER_MATCH_STRING,
    KB_HEADER_MATCH_ANY_VALUE, /* exact_match of "": any value that is there */
};

struct kb_header_matcher {
    struct kb_str name; /* lower case */
    union {
        struct kb_string_matcher string;
        struct {
            int64_t start, end; /* [start, end) */
        } range;
    };
    uint16_t id; /* KB_HDR_* */
    uint8_t kind;
    bool present; /* PRESENT: what is asked for */
    bool invert;
    bool missing_is_empty; /* treat_missing_header_as_empty */
};

struct Envoy__Config__Route__V3__HeaderMatcher;
/* An array of `count` matchers in build->arena, or NULL: nothing asked for, or errors, which were
 * reported under `field`[i]. */
struct kb_header_matcher *
kb_header_matchers_create(struct Envoy__Config__Route__V3__HeaderMatcher *const *messages,
                          size_t count, const char *field, const struct kb_match_build *build);

/* Whether the headers are as this one matcher asks. */
bool kb_header_matcher_match(const struct kb_header_matcher *matcher,
                             const struct kb_header_map *headers);

/* Present, whatever the value: for x-envoy-retriable-header-names. `name` in any case. */
bool kb_header_name_present(const struct kb_header_map *headers, struct kb_str name);

/* Every one of them matches; true when there is none. */
KB_INLINE bool kb_header_matchers_all(const struct kb_header_matcher *matchers, size_t count,
                                      const struct kb_header_map *headers)
{
    for (size_t i = 0; i < count; i++) {
        if (!kb_header_matcher_match(&matchers[i], headers)) {
            return false;
        }
    }
    return true;
}

/* At least one matches; false when there is none. */
KB_INLINE bool kb_header_matchers_any(const struct kb_header_matcher *matchers, size_t count,
                                      const struct kb_header_map *headers)
{
    for (size_t i = 0; i < count; i++) {
        if (kb_header_matcher_match(&matchers[i], headers)) {
            return true;
        }
    }
    return false;
}
