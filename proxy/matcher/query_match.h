/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.config.route.v3.QueryParameterMatcher. Only the first value of a name counts. Routes match
 * names and values as they stand; others percent-decode them. */
#pragma once

#include "proxy/matcher/string_match.h"

struct kb_query_matcher {
    struct kb_str name;
    struct kb_string_matcher string;
    bool has_string;
    bool has_present;
    bool present; /* present_match */
};

struct Envoy__Config__Route__V3__QueryParameterMatcher;
/* An array in build->arena; NULL: none asked for, or errors, which were reported under `field`[i].
 */
struct kb_query_matcher *
kb_query_matchers_create(struct Envoy__Config__Route__V3__QueryParameterMatcher *const *messages,
                         size_t count, const char *field, const struct kb_match_build *build);

/* All of them match the query of `path` (":path": what follows the first '?'). */
bool kb_query_matchers_all(const struct kb_query_matcher *matchers, size_t count,
                           struct kb_str path);

/* First value of a parameter: p NULL when it is not there, empty when it has no '='. */
struct kb_str kb_query_first_value(struct kb_str path, struct kb_str name);

/* The same of the decoded query, for which memory is taken from `arena`. */
bool kb_query_matchers_all_decoded(const struct kb_query_matcher *matchers, size_t count,
                                   struct kb_str path, struct kb_arena *arena);
/* First value of the parameter whose decoded name is `name`, decoded too; p NULL when it is not
 * there. */
struct kb_str kb_query_decoded_value(struct kb_str path, struct kb_str name,
                                     struct kb_arena *arena);

/* The parameters of a query, one after the other. */
struct kb_query_cursor {
    struct kb_str rest;
    size_t path_len; /* bytes in front of the '?' */
};
/* In front of the first parameter of `path`, which is borrowed. */
struct kb_query_cursor kb_query_begin(struct kb_str path);
/* The next one, decoded with memory of `arena` where it has to be. False at the end. A value
 * without '=' is empty. */
bool kb_query_next_decoded(struct kb_query_cursor *cursor, struct kb_str *name,
                           struct kb_str *value, struct kb_arena *arena);
