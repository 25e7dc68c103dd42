/* SPDX-License-Identifier: Apache-2.0 */
/* Regular expressions with RE2: linear time, Envoy's own syntax and semantics. A compiled
 * expression is immutable and may be used by all threads. */
#pragma once

#include <stdbool.h>

#include "base/str.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kb_regex;

/* Compiles. NULL when the pattern is wrong; *error then has RE2's words ("missing ): ("), in the
 * arena. Heap; give it back with kb_regex_destroy. */
struct kb_regex *kb_regex_create(struct kb_str pattern, struct kb_arena *arena,
                                 struct kb_str *error);
/* NULL is allowed. */
void kb_regex_destroy(struct kb_regex *regex);

/* RE2's measure of cost, which Envoy limits to 100 by default (re2.max_program_size.error_level).
 */
int kb_regex_program_size(const struct kb_regex *regex);
/* Number of capturing groups, the whole match not counted. */
int kb_regex_group_count(const struct kb_regex *regex);
/* The number of a named group, or -1. */
int kb_regex_group_index(const struct kb_regex *regex, struct kb_str name);

/* The whole text matches. */
bool kb_regex_full_match(const struct kb_regex *regex, struct kb_str text);
/* Some part of the text matches. */
bool kb_regex_partial_match(const struct kb_regex *regex, struct kb_str text);

#define KB_REGEX_GROUPS_MAX 16 /* groups that can be asked for, the whole match included */

/* The whole text matches; fills groups[0..count-1], where 0 is all of it. Groups that did not take
 * part have p NULL. */
bool kb_regex_full_match_groups(const struct kb_regex *regex, struct kb_str text,
                                struct kb_str *groups, int count);

/* As kb_regex_full_match_groups, for the first part of the text that matches. */
bool kb_regex_partial_match_groups(const struct kb_regex *regex, struct kb_str text,
                                   struct kb_str *groups, int count);

/* A copy of the text with every match replaced; "\N" in the substitution stands for group N. In the
 * arena. A substitution that names a group that is not there changes nothing, as in RE2. */
struct kb_str kb_regex_replace_all(const struct kb_regex *regex, struct kb_str text,
                                   struct kb_str substitution, struct kb_arena *arena);

#ifdef __cplusplus
}
#endif
