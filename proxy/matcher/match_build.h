/* SPDX-License-Identifier: Apache-2.0 */
/* What every builder of matchers gets: where the matcher lives, who closes its regular expressions,
 * where errors go. Main thread. */
#pragma once

#include "base/arena.h"
#include "base/diag.h"
#include "base/regex.h"

struct kb_regex_list_node;

/* Regular expressions that end together with the arena of their owner. */
struct kb_regex_list {
    struct kb_regex_list_node *first; /* in the arena */
};

struct kb_match_build {
    struct kb_arena *arena;
    struct kb_regex_list *regexes;
    struct kb_diag *diag;
};

/* Closes every expression; before the arena is disposed of. */
void kb_regex_list_dispose(struct kb_regex_list *list);

struct Envoy__Type__Matcher__V3__RegexMatcher;
/* Compiles and remembers. NULL after reporting RE2's error, or a program that is larger than Envoy
 * allows, at the present path. */
const struct kb_regex *
kb_match_build_regex(const struct kb_match_build *build,
                     const struct Envoy__Type__Matcher__V3__RegexMatcher *message);
/* The same for a pattern that the proxy made itself: no limit. */
const struct kb_regex *kb_match_build_pattern(const struct kb_match_build *build,
                                              struct kb_str pattern);
