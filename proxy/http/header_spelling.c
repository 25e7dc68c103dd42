/* SPDX-License-Identifier: Apache-2.0 */
/* The spelling of header names, by name without regard to case. */
#include "proxy/http/header_spelling.h"

static size_t bucket_of(const char *name, size_t len)
{
    unsigned first = len > 0 ? (unsigned char)kb_ascii_lower(name[0]) : 0;
    unsigned last = len > 0 ? (unsigned char)kb_ascii_lower(name[len - 1]) : 0;

    return (len * 31 + first + last * 7) % KB_HEADER_SPELLING_BUCKETS;
}

static const struct kb_header_spelling *find(const struct kb_header_spellings *spellings,
                                             struct kb_str name)
{
    const struct kb_header_spelling *at = spellings->buckets[bucket_of(name.p, name.len)];

    while (at != NULL && !kb_str_ieq(at->name, name)) {
        at = at->next;
    }
    return at;
}

static struct kb_header_spellings *spellings_of(struct kb_header_map *map, bool proper_otherwise)
{
    if (map->spellings == NULL) {
        map->spellings = KB_ARENA_NEW(map->arena, struct kb_header_spellings);
        map->spellings->proper_case_otherwise = proper_otherwise;
    }
    return map->spellings;
}

void kb_header_spelling_add(struct kb_header_map *map, struct kb_str name, bool proper_otherwise)
{
    struct kb_header_spellings *spellings = spellings_of(map, proper_otherwise);
    struct kb_header_spelling **bucket = &spellings->buckets[bucket_of(name.p, name.len)];
    struct kb_header_spelling *added;

    if (find(spellings, name) != NULL) {
        return;
    }
    added = KB_ARENA_NEW(map->arena, struct kb_header_spelling);
    added->name = kb_str_dup(map->arena, name);
    added->next = *bucket;
    *bucket = added;
}

void kb_header_spelling_reason(struct kb_header_map *map, struct kb_str reason,
                               bool proper_otherwise)
{
    spellings_of(map, proper_otherwise)->reason = kb_str_dup(map->arena, reason);
}

void kb_header_proper_case(char *name, size_t len)
{
    bool start = true;

    for (size_t i = 0; i < len; i++) {
        char c = name[i];

        if (start && c >= 'a' && c <= 'z') {
            name[i] = (char)(c - 32);
        }
        start = !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'));
    }
}

void kb_header_spelling_apply(const struct kb_header_spellings *spellings, char *name, size_t len)
{
    const struct kb_header_spelling *found = find(spellings, kb_str_make(name, len));

    if (found != NULL) {
        memcpy(name, found->name.p, len);
    } else if (spellings->proper_case_otherwise) {
        kb_header_proper_case(name, len);
    }
}
