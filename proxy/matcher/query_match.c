/* SPDX-License-Identifier: Apache-2.0 */
/* Query parameter matchers, on the raw text of the query. */
#include "proxy/matcher/query_match.h"

#include "envoy/config/route/v3/route_components.pb-c.h"

#define CASE(name) \
    ENVOY__CONFIG__ROUTE__V3__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_##name

struct kb_query_matcher *
kb_query_matchers_create(Envoy__Config__Route__V3__QueryParameterMatcher *const *messages,
                         size_t count, const char *field, const struct kb_match_build *build)
{
    struct kb_query_matcher *matchers;
    int rc = 0;

    if (count == 0) {
        return NULL;
    }
    matchers = kb_arena_calloc(build->arena, count * sizeof(*matchers));
    for (size_t i = 0; i < count; i++) {
        struct kb_query_matcher *matcher = &matchers[i];

        kb_diag_push_index(build->diag, field, i);
        matcher->name = kb_str_dup(build->arena, kb_str_from_cstr(messages[i]->name));
        if ((int)messages[i]->query_parameter_match_specifier_case == CASE(STRING_MATCH)) {
            kb_diag_push(build->diag, "string_match");
            matcher->has_string = true;
            if (kb_string_matcher_init(&matcher->string, messages[i]->string_match, build) != 0) {
                rc = KB_ECONFIG;
            }
            kb_diag_pop(build->diag);
        } else if ((int)messages[i]->query_parameter_match_specifier_case == CASE(PRESENT_MATCH)) {
            matcher->has_present = true;
            matcher->present = messages[i]->present_match;
        }
        kb_diag_pop(build->diag);
    }
    return rc == 0 ? matchers : NULL;
}

struct kb_str kb_query_first_value(struct kb_str path, struct kb_str name)
{
    ptrdiff_t mark = kb_str_find_char(path, '?');
    struct kb_str rest;
    struct kb_str param;

    if (mark < 0) {
        return KB_STR_NULL;
    }
    rest = kb_str_from(path, (size_t)mark + 1);
    while (rest.len > 0 && kb_str_next_token(&rest, '&', &param)) {
        ptrdiff_t equal = kb_str_find_char(param, '=');
        struct kb_str key = equal < 0 ? param : kb_str_first(param, (size_t)equal);

        if (kb_str_eq(key, name)) {
            return equal < 0 ? KB_STR("") : kb_str_from(param, (size_t)equal + 1);
        }
    }
    return KB_STR_NULL;
}

static bool query_match(const struct kb_query_matcher *matcher, struct kb_str path)
{
    struct kb_str value = kb_query_first_value(path, matcher->name);

    if (matcher->has_present) {
        return (value.p != NULL) == matcher->present;
    }
    if (value.p == NULL) {
        return false;
    }
    return !matcher->has_string || kb_string_matcher_match(&matcher->string, value);
}

bool kb_query_matchers_all(const struct kb_query_matcher *matchers, size_t count,
                           struct kb_str path)
{
    for (size_t i = 0; i < count; i++) {
        if (!query_match(&matchers[i], path)) {
            return false;
        }
    }
    return true;
}
