/* SPDX-License-Identifier: Apache-2.0 */
/* Cookies of a request, read where they stand in its cookie headers. */
#include "proxy/matcher/cookie_match.h"

#include "envoy/config/route/v3/route_components.pb-c.h"

struct kb_cookie_matcher *
kb_cookie_matchers_create(Envoy__Config__Route__V3__CookieMatcher *const *messages, size_t count,
                          const char *field, const struct kb_match_build *build)
{
    struct kb_cookie_matcher *matchers;
    int rc = 0;

    if (count == 0) {
        return NULL;
    }
    matchers = kb_arena_calloc(build->arena, count * sizeof(*matchers));
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(build->diag, field, i);
        kb_diag_push(build->diag, "string_match");
        matchers[i].name = kb_str_dup(build->arena, kb_str_from_cstr(messages[i]->name));
        matchers[i].invert = messages[i]->invert_match;
        if (messages[i]->string_match == NULL) {
            kb_diag_error(build->diag, "value is required");
            rc = KB_ECONFIG;
        } else if (kb_string_matcher_init(&matchers[i].string, messages[i]->string_match, build) !=
                   0) {
            rc = KB_ECONFIG;
        }
        kb_diag_pop(build->diag);
        kb_diag_pop(build->diag);
    }
    return rc == 0 ? matchers : NULL;
}

/* In one cookie header. */
static struct kb_str cookie_in(struct kb_str header, struct kb_str name)
{
    struct kb_str pair;

    while (kb_str_next_token(&header, ';', &pair)) {
        ptrdiff_t equal;
        struct kb_str value;

        while (pair.len > 0 && pair.p[0] == ' ') {
            pair = kb_str_from(pair, 1);
        }
        equal = kb_str_find_char(pair, '=');
        if (equal < 0 || !kb_str_eq(kb_str_first(pair, (size_t)equal), name)) {
            continue;
        }
        value = kb_str_from(pair, (size_t)equal + 1);
        if (value.len >= 2 && value.p[0] == '"' && value.p[value.len - 1] == '"') {
            value = kb_str_make(value.p + 1, value.len - 2);
        }
        return value;
    }
    return KB_STR_NULL;
}

struct kb_str kb_cookie_value(const struct kb_header_map *headers, struct kb_str name)
{
    if (headers->first[KB_HDR_COOKIE] == 0) {
        return KB_STR_NULL;
    }
    KB_HEADER_FOREACH(header, headers)
    {
        if (header->id == KB_HDR_COOKIE) {
            struct kb_str value = cookie_in(header->value, name);

            if (value.p != NULL) {
                return value;
            }
        }
    }
    return KB_STR_NULL;
}

bool kb_cookie_matchers_all(const struct kb_cookie_matcher *matchers, size_t count,
                            const struct kb_header_map *headers)
{
    for (size_t i = 0; i < count; i++) {
        struct kb_str value = kb_cookie_value(headers, matchers[i].name);
        bool match = value.p != NULL && kb_string_matcher_match(&matchers[i].string, value);

        if (match == matchers[i].invert) {
            return false;
        }
    }
    return true;
}
