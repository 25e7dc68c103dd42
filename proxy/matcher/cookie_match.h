/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.config.route.v3.CookieMatcher: the first cookie of a name. */
#pragma once

#include "proxy/api/header_map.h"
#include "proxy/matcher/string_match.h"

struct kb_cookie_matcher {
    struct kb_str name;
    struct kb_string_matcher string;
    bool invert; /* also matches when there is no such cookie */
};

struct Envoy__Config__Route__V3__CookieMatcher;
/* An array in build->arena; NULL: none asked for, or errors, which were reported under `field`[i].
 */
struct kb_cookie_matcher *
kb_cookie_matchers_create(struct Envoy__Config__Route__V3__CookieMatcher *const *messages,
                          size_t count, const char *field, const struct kb_match_build *build);

/* All of them match. */
bool kb_cookie_matchers_all(const struct kb_cookie_matcher *matchers, size_t count,
                            const struct kb_header_map *headers);

/* Value of the first cookie of that name, without quotes around it; p NULL when there is none. RFC
 * 6265 section 4.2. */
struct kb_str kb_cookie_value(const struct kb_header_map *headers, struct kb_str name);
