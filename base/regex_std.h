/* SPDX-License-Identifier: Apache-2.0 */
/* Regular expressions as C++'s standard library reads them (ECMAScript), for the one place where
 * Envoy does so too: tag rules of a bootstrap, which may look ahead. Not of linear time: for short
 * names that configuration makes, never for what a peer sent. */
#pragma once

#include <stdbool.h>

#include "base/str.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kb_regex_std;

#define KB_REGEX_STD_TEXT_MAX \
    2048 /* longer text never matches: the matcher's stack grows with it */

/* Compiles. NULL when the pattern is wrong. Heap; give it back with kb_regex_std_destroy. */
struct kb_regex_std *kb_regex_std_create(struct kb_str pattern);
/* NULL is allowed. */
void kb_regex_std_destroy(struct kb_regex_std *regex);
/* Number of capturing groups, the whole match not counted. */
int kb_regex_std_group_count(const struct kb_regex_std *regex);
/* The first part of the text that matches; fills groups[0..count-1], where 0 is all of it. Groups
 * that did not take part have p NULL. */
bool kb_regex_std_search(const struct kb_regex_std *regex, struct kb_str text,
                         struct kb_str *groups, int count);

#ifdef __cplusplus
}
#endif
