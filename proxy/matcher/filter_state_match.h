/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.type.matcher.v3.FilterStateMatcher: the text of an object that filters left on the stream
 * or its connection. */
#pragma once

#include "proxy/api/filter_state.h"
#include "proxy/matcher/string_match.h"

struct kb_filter_state_matcher {
    const struct kb_filter_state_key *key;
    struct kb_string_matcher string;
};

struct Envoy__Type__Matcher__V3__FilterStateMatcher;
/* KB_ECONFIG after reporting: address_match is not supported. Main thread. */
int kb_filter_state_matcher_init(struct kb_filter_state_matcher *matcher,
                                 const struct Envoy__Type__Matcher__V3__FilterStateMatcher *message,
                                 const struct kb_match_build *build) KB_MUST_USE;
/* False when there is no such object, or it has no text (made in `arena`). */
bool kb_filter_state_matcher_match(const struct kb_filter_state_matcher *matcher,
                                   const struct kb_stream_info *info, struct kb_arena *arena);
