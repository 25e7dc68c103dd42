/* SPDX-License-Identifier: Apache-2.0 */
/* Header matchers, as Envoy's HeaderUtility::HeaderData*: a header that stands several times
 * matches when one of its values does; a missing header fails every specifier but presence,
 * inverted or not. */
#include "proxy/matcher/header_match.h"

#include "envoy/config/route/v3/route_components.pb-c.h"
#include "envoy/type/v3/range.pb-c.h"

#define CASE(name) ENVOY__CONFIG__ROUTE__V3__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_##name

static struct kb_str name_lower(const char *name, struct kb_arena *arena)
{
    struct kb_str copy = kb_str_dup(arena, kb_str_from_cstr(name));
    char *lower = (char *)copy.p; /* ours */

    for (size_t i = 0; i < copy.len; i++) {
        lower[i] = kb_ascii_lower(lower[i]);
    }
    return copy;
}

static void text_init(struct kb_header_matcher *matcher, enum kb_string_match_kind kind,
                      const char *text, const struct kb_match_build *build)
{
    kb_string_matcher_init_text(&matcher->string, kind, kb_str_from_cstr(text), false,
                                build->arena);
}

static int nested_init(struct kb_header_matcher *matcher,
                       const Envoy__Config__Route__V3__HeaderMatcher *message,
                       const struct kb_match_build *build)
{
    int rc = 0;

    if ((int)message->header_match_specifier_case == CASE(STRING_MATCH)) {
        kb_diag_push(build->diag, "string_match");
        rc = kb_string_matcher_init(&matcher->string, message->string_match, build);
    } else {
        kb_diag_push(build->diag, "safe_regex_match");
        matcher->string.kind = KB_STRING_MATCH_REGEX;
        matcher->string.regex = kb_match_build_regex(build, message->safe_regex_match);
        rc = matcher->string.regex != NULL ? 0 : KB_ECONFIG;
    }
    kb_diag_pop(build->diag);
    return rc;
}

static int specifier_init(struct kb_header_matcher *matcher,
                          const Envoy__Config__Route__V3__HeaderMatcher *message,
                          const struct kb_match_build *build)
{
    matcher->kind = KB_HEADER_MATCH_STRING;
    switch ((int)message->header_match_specifier_case) {
    case CASE(EXACT_MATCH):
        text_init(matcher, KB_STRING_MATCH_EXACT, message->exact_match, build);
        if (message->exact_match[0] == '\0') {
            matcher->kind = KB_HEADER_MATCH_ANY_VALUE;
        }
        return 0;
    case CASE(PREFIX_MATCH):
        text_init(matcher, KB_STRING_MATCH_PREFIX, message->prefix_match, build);
        return 0;
    case CASE(SUFFIX_MATCH):
        text_init(matcher, KB_STRING_MATCH_SUFFIX, message->suffix_match, build);
        return 0;
    case CASE(CONTAINS_MATCH):
        text_init(matcher, KB_STRING_MATCH_CONTAINS, message->contains_match, build);
        return 0;
    case CASE(SAFE_REGEX_MATCH):
    case CASE(STRING_MATCH):
        return nested_init(matcher, message, build);
    case CASE(RANGE_MATCH):
        matcher->kind = KB_HEADER_MATCH_RANGE;
        matcher->range.start = message->range_match->start;
        matcher->range.end = message->range_match->end;
        return 0;
    case CASE(PRESENT_MATCH):
        matcher->kind = KB_HEADER_MATCH_PRESENT;
        matcher->present = message->present_match;
        return 0;
    default: /* none: present */
        matcher->kind = KB_HEADER_MATCH_PRESENT;
        matcher->present = true;
        return 0;
    }
}

struct kb_header_matcher *
kb_header_matchers_create(Envoy__Config__Route__V3__HeaderMatcher *const *messages, size_t count,
                          const char *field, const struct kb_match_build *build)
{
    struct kb_header_matcher *matchers;
    int rc = 0;

    if (count == 0) {
        return NULL;
    }
    matchers = kb_arena_calloc(build->arena, count * sizeof(*matchers));
    for (size_t i = 0; i < count; i++) {
        struct kb_header_matcher *matcher = &matchers[i];

        kb_diag_push_index(build->diag, field, i);
        matcher->name = name_lower(messages[i]->name, build->arena);
        matcher->id = (uint16_t)kb_header_id_find(matcher->name);
        matcher->invert = messages[i]->invert_match;
        matcher->missing_is_empty = messages[i]->treat_missing_header_as_empty;
        if (specifier_init(matcher, messages[i], build) != 0) {
            rc = KB_ECONFIG;
        }
        kb_diag_pop(build->diag);
    }
    return rc == 0 ? matchers : NULL;
}

static bool value_match(const struct kb_header_matcher *matcher, struct kb_str value)
{
    int64_t number;

    switch ((enum kb_header_match_kind)matcher->kind) {
    case KB_HEADER_MATCH_PRESENT:
    case KB_HEADER_MATCH_ANY_VALUE:
        return true;
    case KB_HEADER_MATCH_RANGE:
        return kb_str_to_i64(kb_str_trim(value), &number) == 0 && number >= matcher->range.start &&
               number < matcher->range.end;
    case KB_HEADER_MATCH_STRING:
        return kb_string_matcher_match(&matcher->string, value);
    }
    return false;
}

/* Whether one of the header's values matches. *missing: there is none. */
static bool some_value_match(const struct kb_header_matcher *matcher,
                             const struct kb_header_map *headers, bool *missing)
{
    uint32_t i = 0;

    *missing = false;
    if (matcher->id != KB_HDR_NONE && headers->first[matcher->id] != 0) {
        i = headers->first[matcher->id] - 1U;
    } else if (matcher->id != KB_HDR_NONE || matcher->name.p[0] == ':') {
        struct kb_str value = matcher->id == KB_HDR_NONE || matcher->id == KB_HDR_HOST
                                  ? kb_header_map_value(headers, matcher->name)
                                  : KB_STR_NULL;

        *missing = value.p == NULL;
        return !*missing && value_match(matcher, value);
    }
    *missing = true;
    for (; i < headers->count; i++) {
        const struct kb_header *header = &headers->items[i];

        if (header->id == matcher->id && header->name.len > 0 &&
            (matcher->id != KB_HDR_NONE || kb_str_eq(header->name, matcher->name))) {
            *missing = false;
            if (value_match(matcher, header->value)) {
                return true;
            }
        }
    }
    return false;
}

bool kb_header_matcher_match(const struct kb_header_matcher *matcher,
                             const struct kb_header_map *headers)
{
    bool missing;
    bool matches = some_value_match(matcher, headers, &missing);

    if (missing && matcher->missing_is_empty) {
        missing = false;
        matches = value_match(matcher, KB_STR(""));
    }
    if (matcher->kind == KB_HEADER_MATCH_PRESENT) {
        return missing ? matcher->invert == matcher->present : matcher->present != matcher->invert;
    }
    return !missing && matches != matcher->invert;
}

bool kb_header_name_present(const struct kb_header_map *headers, struct kb_str name)
{
    if (name.len > 0 && name.p[0] == ':') {
        return kb_header_map_value(headers, name).p != NULL;
    }
    for (uint32_t i = 0; i < headers->count; i++) {
        if (headers->items[i].name.len > 0 && kb_str_ieq(headers->items[i].name, name)) {
            return true;
        }
    }
    return kb_str_ieq(name, KB_STR("host")) && headers->authority.p != NULL;
}
