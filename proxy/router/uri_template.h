/* SPDX-License-Identifier: Apache-2.0 */
/* URI templates of path_match_policy and path_rewrite_policy (envoy.path.match.uri_template and
 * envoy.path.rewrite.uri_template): "/a/{name}/{rest=**}" and "/b/{rest}/{name}". */
#pragma once

#include "proxy/matcher/match_build.h"

struct kb_uri_template;
struct kb_uri_template_rewrite;

/* NULL after reporting why the pattern is not valid. */
const struct kb_uri_template *kb_uri_template_create(struct kb_str pattern,
                                                     const struct kb_match_build *build);
/* `path` without query. */
bool kb_uri_template_match(const struct kb_uri_template *uri_template, struct kb_str path);

/* NULL after reporting; also when it uses a variable that the match does not have. `match` NULL:
 * there is no template matcher, which is an error. */
const struct kb_uri_template_rewrite *
kb_uri_template_rewrite_create(struct kb_str pattern, const struct kb_uri_template *match,
                               const struct kb_match_build *build);
/* The new path in the arena, or p NULL when the path does not match. */
struct kb_str kb_uri_template_rewrite_path(const struct kb_uri_template_rewrite *rewrite,
                                           struct kb_str path, struct kb_arena *arena);
