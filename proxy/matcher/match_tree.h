/* SPDX-License-Identifier: Apache-2.0 */
/* The unified matcher (xds.type.matcher.v3.Matcher): lists of predicates and maps over an input,
 * which lead to an action. What an action is, and which inputs are allowed, its user says. */
#pragma once

#include "proxy/api/header_map.h"
#include "proxy/matcher/match_build.h"

struct Google__Protobuf__Any;
struct Xds__Type__Matcher__V3__Matcher;
struct kb_match_tree;

/* The user's side of building a tree. */
struct kb_match_tree_user {
    /* An action from its configuration; NULL after reporting. Lives in the arena. */
    const void *(*action_create)(void *arg, const char *name,
                                 const struct Google__Protobuf__Any *config);
    void *arg;
    /* Says that an input other than request headers is refused; the type URL follows. */
    const char *input_refused;
    /* The error for keep_matching. */
    const char *keep_matching_refused;
};

/* NULL after reporting. */
const struct kb_match_tree *
kb_match_tree_create(const struct Xds__Type__Matcher__V3__Matcher *message,
                     const struct kb_match_tree_user *user, const struct kb_match_build *build);

/* The action for these request headers, or NULL. Takes memory (headers->arena) only to join a
 * repeated header. */
const void *kb_match_tree_find(const struct kb_match_tree *tree,
                               const struct kb_header_map *headers);
