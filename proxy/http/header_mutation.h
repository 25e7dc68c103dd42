/* SPDX-License-Identifier: Apache-2.0 */
/* Headers that configuration adds, replaces and removes (Envoy Router::HeaderParser). */
#pragma once

#include "proxy/api/formatter.h"
#include "proxy/matcher/match_build.h"

enum kb_append_action {
    KB_APPEND_IF_EXISTS_OR_ADD,
    KB_ADD_IF_ABSENT,
    KB_OVERWRITE_IF_EXISTS_OR_ADD,
    KB_OVERWRITE_IF_EXISTS,
};

struct kb_header_addition {
    struct kb_str name; /* lower case */
    union {
        struct kb_str text;
        const struct kb_formatter *formatter;
    };
    uint8_t action;
    bool literal; /* text, nothing to evaluate */
    bool keep_empty;
};

struct kb_header_mutations {
    struct kb_header_addition *add;
    struct kb_str *remove; /* lower case */
    uint32_t add_count;
    uint32_t remove_count;
};

struct Envoy__Config__Core__V3__HeaderValueOption;

/* The lists of one level. `kind` is "request", "response" or "" and makes the field names of
 * errors. *failed is set after an error. NULL when there is nothing to do. */
const struct kb_header_mutations *
kb_header_mutations_create(struct Envoy__Config__Core__V3__HeaderValueOption *const *add,
                           size_t add_count, char *const *remove, size_t remove_count,
                           const char *kind, const struct kb_match_build *build, bool *failed);

/* Removes first; then computes every value from what the headers are then; then overwrites, then
 * adds. NULL mutations do nothing. New text lives in headers->arena. */
void kb_header_mutations_apply(const struct kb_header_mutations *mutations,
                               struct kb_header_map *headers,
                               const struct kb_formatter_input *input,
                               const struct kb_stream_info *info);

/* False for names that configuration may not touch: ":..." and host. */
bool kb_header_modifiable(struct kb_str name);

/* Lower-case copy. */
struct kb_str kb_header_name_dup(struct kb_arena *arena, const char *name);
