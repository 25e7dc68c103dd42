/* SPDX-License-Identifier: Apache-2.0 */
/* How a message spelled the names of its headers, and its reason phrase: kept when the codec that
 * read it is told to (header_key_format with preserve_case), used by the codec that writes it on
 * (Envoy PreserveCaseHeaderFormatter). */
#pragma once

#include "proxy/api/header_map.h"

#define KB_HEADER_SPELLING_BUCKETS 32

struct kb_header_spelling {
    struct kb_header_spelling *next;
    struct kb_str name;
};

struct kb_header_spellings {
    struct kb_header_spelling *buckets[KB_HEADER_SPELLING_BUCKETS];
    struct kb_str reason;       /* of a response; empty: the usual one */
    bool proper_case_otherwise; /* names that the message did not have: "X-Envoy-Foo" */
};

/* Remembers the first spelling of a name, copied to map->arena; the table is made when it is first
 * needed. */
void kb_header_spelling_add(struct kb_header_map *map, struct kb_str name, bool proper_otherwise);
/* Remembers the reason phrase of a response. */
void kb_header_spelling_reason(struct kb_header_map *map, struct kb_str reason,
                               bool proper_otherwise);

/* Changes the case of `name`, which is lower case, to how the message spelled it. */
void kb_header_spelling_apply(const struct kb_header_spellings *spellings, char *name, size_t len);
/* "x-envoy-foo" to "X-Envoy-Foo", in place. */
void kb_header_proper_case(char *name, size_t len);
