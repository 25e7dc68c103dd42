/* SPDX-License-Identifier: Apache-2.0 */
/* type.matcher.v3.StringMatcher over the names of statistics. */
#pragma once

#include "base/diag.h"
#include "base/regex.h"
#include "envoy/type/matcher/v3/string.pb-c.h"

enum kb_name_match_kind {
    KB_NAME_MATCH_EXACT,
    KB_NAME_MATCH_PREFIX,
    KB_NAME_MATCH_SUFFIX,
    KB_NAME_MATCH_CONTAINS,
    KB_NAME_MATCH_REGEX,
    KB_NAME_MATCH_NEVER, /* nothing was set, or it was wrong */
};

struct kb_name_match {
    enum kb_name_match_kind kind;
    bool ignore_case;
    struct kb_str text;     /* in the arena given to init */
    struct kb_regex *regex; /* owned */
};

/* On caller's storage; reports what is wrong at the present path of diag and matches nothing then.
 */
void kb_name_match_init(struct kb_name_match *match,
                        const Envoy__Type__Matcher__V3__StringMatcher *config,
                        struct kb_arena *arena, struct kb_diag *diag);
void kb_name_match_dispose(struct kb_name_match *match);
bool kb_name_match_test(const struct kb_name_match *match, struct kb_str name);
