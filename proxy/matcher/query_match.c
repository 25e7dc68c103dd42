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

/* The next parameter of `rest`; a value without '=' is empty. */
static bool param_next(struct kb_str *rest, struct kb_str *name, struct kb_str *value)
{
    struct kb_str param;
    ptrdiff_t equal;

    if (rest->len == 0 || !kb_str_next_token(rest, '&', &param)) {
        return false;
    }
    equal = kb_str_find_char(param, '=');
    *name = equal < 0 ? param : kb_str_first(param, (size_t)equal);
    *value = equal < 0 ? KB_STR("") : kb_str_from(param, (size_t)equal + 1);
    return true;
}

/* What follows the first '?'. */
static struct kb_str query_of(struct kb_str path)
{
    ptrdiff_t mark = kb_str_find_char(path, '?');

    return mark < 0 ? KB_STR("") : kb_str_from(path, (size_t)mark + 1);
}

struct kb_str kb_query_first_value(struct kb_str path, struct kb_str name)
{
    struct kb_str rest = query_of(path);
    struct kb_str key, value;

    while (param_next(&rest, &key, &value)) {
        if (kb_str_eq(key, name)) {
            return value;
        }
    }
    return KB_STR_NULL;
}

static int hex_value(char c)
{
    if (kb_ascii_is_digit(c)) {
        return c - '0';
    }
    c = kb_ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Without percent signs that two hexadecimal digits follow; the text itself when there are none. */
static struct kb_str decoded(struct kb_str text, struct kb_arena *arena)
{
    char *out;
    size_t len = 0;

    if (kb_str_find_char(text, '%') < 0) {
        return text;
    }
    out = kb_arena_alloc(arena, text.len, 1);
    for (size_t i = 0; i < text.len; i++) {
        int high = text.p[i] == '%' && i + 2 < text.len ? hex_value(text.p[i + 1]) : -1;
        int low = high >= 0 ? hex_value(text.p[i + 2]) : -1;

        if (low >= 0) {
            out[len++] = (char)(high * 16 + low);
            i += 2;
        } else {
            out[len++] = text.p[i];
        }
    }
    return kb_str_make(out, len);
}

struct kb_str kb_query_decoded_value(struct kb_str path, struct kb_str name, struct kb_arena *arena)
{
    struct kb_str rest = query_of(path);
    struct kb_str key, value;

    while (param_next(&rest, &key, &value)) {
        if (kb_str_eq(decoded(key, arena), name)) {
            return decoded(value, arena);
        }
    }
    return KB_STR_NULL;
}

struct kb_query_cursor kb_query_begin(struct kb_str path)
{
    ptrdiff_t mark = kb_str_find_char(path, '?');

    return (struct kb_query_cursor){query_of(path), mark < 0 ? path.len : (size_t)mark};
}

bool kb_query_next_decoded(struct kb_query_cursor *cursor, struct kb_str *name,
                           struct kb_str *value, struct kb_arena *arena)
{
    if (!param_next(&cursor->rest, name, value)) {
        return false;
    }
    *name = decoded(*name, arena);
    *value = decoded(*value, arena);
    return true;
}

/* `value`: that of the parameter, p NULL when there is none. */
static bool query_match(const struct kb_query_matcher *matcher, struct kb_str value)
{
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
        if (!query_match(&matchers[i], kb_query_first_value(path, matchers[i].name))) {
            return false;
        }
    }
    return true;
}

bool kb_query_matchers_all_decoded(const struct kb_query_matcher *matchers, size_t count,
                                   struct kb_str path, struct kb_arena *arena)
{
    for (size_t i = 0; i < count; i++) {
        if (!query_match(&matchers[i], kb_query_decoded_value(path, matchers[i].name, arena))) {
            return false;
        }
    }
    return true;
}
