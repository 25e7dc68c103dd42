/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.type.matcher.v3.StringMatcher. */
#pragma once

#include "proxy/matcher/match_build.h"

enum kb_string_match_kind {
    KB_STRING_MATCH_EXACT,
    KB_STRING_MATCH_PREFIX,
    KB_STRING_MATCH_SUFFIX,
    KB_STRING_MATCH_CONTAINS, /* the text is lower case when ignore_case */
    KB_STRING_MATCH_REGEX,
};

struct kb_string_matcher {
    union {
        const char *text;
        const struct kb_regex *regex;
    };
    uint32_t len;
    uint8_t kind;
    bool ignore_case;
};

struct Envoy__Type__Matcher__V3__StringMatcher;
/* KB_ECONFIG after reporting. The matcher copies what it keeps. */
int kb_string_matcher_init(struct kb_string_matcher *matcher,
                           const struct Envoy__Type__Matcher__V3__StringMatcher *message,
                           const struct kb_match_build *build) KB_MUST_USE;
/* One of the plain kinds, for fields that are not StringMatcher messages. */
void kb_string_matcher_init_text(struct kb_string_matcher *matcher, enum kb_string_match_kind kind,
                                 struct kb_str text, bool ignore_case, struct kb_arena *arena);

/* Whether the text is as the matcher asks. */
bool kb_string_matcher_match(const struct kb_string_matcher *matcher, struct kb_str value);
