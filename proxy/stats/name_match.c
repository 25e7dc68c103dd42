/* SPDX-License-Identifier: Apache-2.0 */
/* Matching a statistic's name against a pattern of the bootstrap. */
#include "proxy/stats/name_match.h"

#include "base/mem.h"

static void match_set(struct kb_name_match *match, enum kb_name_match_kind kind, const char *text,
                      struct kb_arena *arena)
{
    match->kind = kind;
    match->text = kb_str_dup(arena, kb_str_from_cstr(text));
}

static void match_set_regex(struct kb_name_match *match,
                            const Envoy__Type__Matcher__V3__RegexMatcher *config,
                            struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str error;

    kb_diag_push(diag, "safe_regex");
    kb_diag_push(diag, "regex");
    match->regex = kb_regex_create(kb_str_from_cstr(config->regex), arena, &error);
    if (match->regex == NULL) {
        kb_diag_error(diag, "%.*s", KB_STR_ARG(error));
    } else {
        match->kind = KB_NAME_MATCH_REGEX;
    }
    kb_diag_pop(diag);
    kb_diag_pop(diag);
}

void kb_name_match_init(struct kb_name_match *match,
                        const Envoy__Type__Matcher__V3__StringMatcher *config,
                        struct kb_arena *arena, struct kb_diag *diag)
{
    *match = (struct kb_name_match){.kind = KB_NAME_MATCH_NEVER};
    if (config == NULL) {
        return;
    }
    match->ignore_case = config->ignore_case;
    switch (config->match_pattern_case) {
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_EXACT:
        match_set(match, KB_NAME_MATCH_EXACT, config->exact, arena);
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_PREFIX:
        match_set(match, KB_NAME_MATCH_PREFIX, config->prefix, arena);
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SUFFIX:
        match_set(match, KB_NAME_MATCH_SUFFIX, config->suffix, arena);
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_CONTAINS:
        match_set(match, KB_NAME_MATCH_CONTAINS, config->contains, arena);
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX:
        match_set_regex(match, config->safe_regex, arena, diag);
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_CUSTOM:
        kb_diag_push(diag, "custom");
        kb_diag_error_hint(diag, KB_STR("use exact, prefix, suffix, contains or safe_regex"),
                           "custom string matchers are not implemented for names of statistics");
        kb_diag_pop(diag);
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN__NOT_SET:
    default:
        break;
    }
}

void kb_name_match_dispose(struct kb_name_match *match)
{
    kb_regex_destroy(match->regex);
    match->regex = NULL;
}

static bool contains_ignoring_case(struct kb_str name, struct kb_str text)
{
    for (size_t i = 0; i + text.len <= name.len; i++) {
        if (kb_str_istarts_with(kb_str_from(name, i), text)) {
            return true;
        }
    }
    return false;
}

bool kb_name_match_test(const struct kb_name_match *match, struct kb_str name)
{
    switch (match->kind) {
    case KB_NAME_MATCH_EXACT:
        return match->ignore_case ? kb_str_ieq(name, match->text) : kb_str_eq(name, match->text);
    case KB_NAME_MATCH_PREFIX:
        return match->ignore_case ? kb_str_istarts_with(name, match->text)
                                  : kb_str_starts_with(name, match->text);
    case KB_NAME_MATCH_SUFFIX:
        return match->ignore_case ? kb_str_iends_with(name, match->text)
                                  : kb_str_ends_with(name, match->text);
    case KB_NAME_MATCH_CONTAINS:
        return match->ignore_case ? contains_ignoring_case(name, match->text)
                                  : kb_str_find(name, match->text) >= 0;
    case KB_NAME_MATCH_REGEX:
        return kb_regex_full_match(match->regex, name);
    case KB_NAME_MATCH_NEVER:
        break;
    }
    return false;
}
