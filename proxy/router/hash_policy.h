/* SPDX-License-Identifier: Apache-2.0 */
/* hash_policy of a route: from a request to the number that consistent load balancers take. */
#pragma once

#include "proxy/api/route.h"
#include "proxy/matcher/match_build.h"

struct Envoy__Config__Route__V3__RouteAction__HashPolicy;
/* NULL: none asked for, or errors, which were reported; *failed is then set. */
const struct kb_hash_policies *
kb_hash_policies_create(struct Envoy__Config__Route__V3__RouteAction__HashPolicy *const *messages,
                        size_t count, const struct kb_match_build *build, bool *failed);

/* False when no policy gave a number. */
bool kb_hash_policies_hash(const struct kb_hash_policies *policies,
                           const struct kb_header_map *headers, const struct kb_stream_info *info,
                           kb_hash_cookie_fn add_cookie, void *arg, uint64_t *hash);
