/* SPDX-License-Identifier: Apache-2.0 */
/* envoy.type.matcher.v3.MetadataMatcher and ValueMatcher: what stands in a google.protobuf.Struct
 * at a path. */
#pragma once

#include "google/protobuf/struct.pb-c.h"
#include "proxy/matcher/string_match.h"

struct kb_arena;
struct kb_dynamic_metadata;

enum kb_value_match_kind {
    KB_VALUE_MATCH_NULL,
    KB_VALUE_MATCH_RANGE,
    KB_VALUE_MATCH_NUMBER,
    KB_VALUE_MATCH_STRING,
    KB_VALUE_MATCH_BOOL,
    KB_VALUE_MATCH_PRESENT,
    KB_VALUE_MATCH_LIST, /* one of its values is as `inner` asks */
    KB_VALUE_MATCH_OR,
};

struct kb_value_matcher {
    enum kb_value_match_kind kind;
    bool on; /* of BOOL and PRESENT */
    union {
        struct kb_string_matcher string;
        struct {
            double start, end; /* [start, end); NUMBER: start */
        } range;
        struct {
            const struct kb_value_matcher *items;
            size_t count;
        } inner;
    };
};

struct kb_metadata_matcher {
    struct kb_str filter; /* the namespace */
    const struct kb_str *path;
    size_t path_len;
    struct kb_value_matcher value;
    bool invert;
};

struct Envoy__Type__Matcher__V3__ValueMatcher;
struct Envoy__Type__Matcher__V3__MetadataMatcher;

/* KB_ECONFIG after reporting at the present path. What is kept lives in build->arena. */
int kb_value_matcher_init(struct kb_value_matcher *matcher,
                          const struct Envoy__Type__Matcher__V3__ValueMatcher *message,
                          const struct kb_match_build *build) KB_MUST_USE;
int kb_metadata_matcher_init(struct kb_metadata_matcher *matcher,
                             const struct Envoy__Type__Matcher__V3__MetadataMatcher *message,
                             const struct kb_match_build *build) KB_MUST_USE;

/* NULL: nothing stands there. */
bool kb_value_matcher_match(const struct kb_value_matcher *matcher,
                            const Google__Protobuf__Value *value);
/* What the namespace has at the matcher's path, or NULL. `space` may be NULL. */
const Google__Protobuf__Value *kb_metadata_matcher_find(const struct kb_metadata_matcher *matcher,
                                                        const Google__Protobuf__Struct *space);
/* Whether dynamic metadata (NULL: none) is as the matcher asks. */
bool kb_metadata_matcher_match(const struct kb_metadata_matcher *matcher,
                               const struct kb_dynamic_metadata *metadata);
/* The same of configured metadata, a packed envoy.config.core.v3.Metadata; unpacks it in `arena`.
 */
bool kb_metadata_matcher_match_packed(const struct kb_metadata_matcher *matcher,
                                      struct kb_str packed, struct kb_arena *arena);
