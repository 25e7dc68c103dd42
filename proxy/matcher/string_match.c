/* SPDX-License-Identifier: Apache-2.0 */
/* String matchers: exact, prefix, suffix, contains, full regular expression. */
#include "proxy/matcher/string_match.h"

#include "envoy/type/matcher/v3/string.pb-c.h"
#include "proto/any.h"
#include "xds/core/v3/extension.pb-c.h"

void kb_string_matcher_init_text(struct kb_string_matcher *matcher, enum kb_string_match_kind kind,
                                 struct kb_str text, bool ignore_case, struct kb_arena *arena)
{
    struct kb_str copy = kb_str_dup(arena, text);

    matcher->kind = (uint8_t)kind;
    matcher->ignore_case = ignore_case;
    matcher->text = copy.p;
    matcher->len = (uint32_t)copy.len;
    if (ignore_case && kind == KB_STRING_MATCH_CONTAINS) {
        char *lower = (char *)copy.p; /* ours */

        for (size_t i = 0; i < copy.len; i++) {
            lower[i] = kb_ascii_lower(lower[i]);
        }
    }
}

static int regex_init(struct kb_string_matcher *matcher,
                      const Envoy__Type__Matcher__V3__StringMatcher *message,
                      const struct kb_match_build *build)
{
    if (message->ignore_case) {
        kb_diag_error(build->diag, "ignore_case has no effect for safe_regex.");
        return KB_ECONFIG;
    }
    kb_diag_push(build->diag, "safe_regex");
    matcher->kind = KB_STRING_MATCH_REGEX;
    matcher->ignore_case = false;
    matcher->len = 0;
    matcher->regex = kb_match_build_regex(build, message->safe_regex);
    kb_diag_pop(build->diag);
    return matcher->regex != NULL ? 0 : KB_ECONFIG;
}

static int custom_reject(const Envoy__Type__Matcher__V3__StringMatcher *message,
                         const struct kb_match_build *build)
{
    struct kb_str type = KB_STR_NULL;

    if (message->custom->typed_config != NULL) {
        type = kb_any_inner_name(message->custom->typed_config, build->arena);
    }
    kb_diag_error(build->diag,
                  "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                  message->custom->name, KB_STR_ARG(type));
    return KB_ECONFIG;
}

int kb_string_matcher_init(struct kb_string_matcher *matcher,
                           const Envoy__Type__Matcher__V3__StringMatcher *message,
                           const struct kb_match_build *build)
{
    enum kb_string_match_kind kind = KB_STRING_MATCH_EXACT;
    const char *text = NULL;

    switch ((int)message->match_pattern_case) {
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_EXACT:
        text = message->exact;
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_PREFIX:
        kind = KB_STRING_MATCH_PREFIX;
        text = message->prefix;
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SUFFIX:
        kind = KB_STRING_MATCH_SUFFIX;
        text = message->suffix;
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_CONTAINS:
        kind = KB_STRING_MATCH_CONTAINS;
        text = message->contains;
        break;
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX:
        return regex_init(matcher, message, build);
    case ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_CUSTOM:
        return custom_reject(message, build);
    default:
        kb_diag_error(build->diag, "match_pattern: is required");
        return KB_ECONFIG;
    }
    kb_string_matcher_init_text(matcher, kind, kb_str_from_cstr(text), message->ignore_case,
                                build->arena);
    return 0;
}

static bool contains_ignore_case(struct kb_str value, struct kb_str lower)
{
    for (size_t from = 0; from + lower.len <= value.len; from++) {
        size_t i = 0;

        while (i < lower.len && kb_ascii_lower(value.p[from + i]) == lower.p[i]) {
            i++;
        }
        if (i == lower.len) {
            return true;
        }
    }
    return false;
}

bool kb_string_matcher_match(const struct kb_string_matcher *matcher, struct kb_str value)
{
    struct kb_str text = kb_str_make(matcher->text, matcher->len);

    switch ((enum kb_string_match_kind)matcher->kind) {
    case KB_STRING_MATCH_EXACT:
        return matcher->ignore_case ? kb_str_ieq(value, text) : kb_str_eq(value, text);
    case KB_STRING_MATCH_PREFIX:
        return matcher->ignore_case ? kb_str_istarts_with(value, text)
                                    : kb_str_starts_with(value, text);
    case KB_STRING_MATCH_SUFFIX:
        return matcher->ignore_case ? kb_str_iends_with(value, text)
                                    : kb_str_ends_with(value, text);
    case KB_STRING_MATCH_CONTAINS:
        return matcher->ignore_case ? contains_ignore_case(value, text)
                                    : kb_str_find(value, text) >= 0;
    case KB_STRING_MATCH_REGEX:
        return kb_regex_full_match(matcher->regex, value);
    }
    return false;
}
