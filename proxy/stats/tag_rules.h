/* SPDX-License-Identifier: Apache-2.0 */
/* The default rules of tag extraction, in Envoy's order (its well_known_names). */
#pragma once

#include "base/str.h"

/* What a rule found in a name: the characters to take out, and the value of the tag. */
struct kb_tag_match {
    size_t from; /* of what is taken out */
    size_t to;
    struct kb_str value;
};

typedef bool (*kb_tag_match_fn)(struct kb_str name, struct kb_tag_match *match);

struct kb_tag_rule {
    const char *tag;
    const char *first;    /* first part of the names that it is for; NULL: any name */
    const char *contains; /* names without this are not looked at; NULL: all are */
    const char *except;   /* a value that is no tag, or NULL */
    /* One of: */
    kb_tag_match_fn match; /* our own code for what every name passes through */
    const char *tokens;    /* parts: "$" the value, "*" any one, "**" any number */
    const char *regex;     /* group 1 is taken out, group 2 is the value */
};

extern const struct kb_tag_rule kb_tag_rules[];
extern const size_t kb_tag_rule_count;

/* Matches a token pattern ("cluster.$.**"). */
bool kb_tag_match_tokens(const char *pattern, struct kb_str name, struct kb_tag_match *match);
