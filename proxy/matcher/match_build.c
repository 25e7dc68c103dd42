/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the builders of matchers: regular expressions with Envoy's limits. */
#include "proxy/matcher/match_build.h"

#include "envoy/type/matcher/v3/regex.pb-c.h"

#define PROGRAM_SIZE_MAX 100 /* re2.max_program_size.error_level */

struct kb_regex_list_node {
    struct kb_regex_list_node *next;
    struct kb_regex *regex;
};

void kb_regex_list_dispose(struct kb_regex_list *list)
{
    for (struct kb_regex_list_node *node = list->first; node != NULL; node = node->next) {
        kb_regex_destroy(node->regex);
    }
    list->first = NULL;
}

static void program_too_large(const struct kb_match_build *build, const char *pattern,
                              unsigned size, unsigned max, const char *why)
{
    kb_diag_error(build->diag,
                  "regex '%s' RE2 program size of %u > max program size of %u%s. Increase "
                  "configured max program size "
                  "if necessary.",
                  pattern, size, max, why);
}

static const struct kb_regex *remember(const struct kb_match_build *build, struct kb_regex *regex)
{
    struct kb_regex_list_node *node = KB_ARENA_NEW(build->arena, struct kb_regex_list_node);

    node->regex = regex;
    node->next = build->regexes->first;
    build->regexes->first = node;
    return regex;
}

const struct kb_regex *kb_match_build_pattern(const struct kb_match_build *build,
                                              struct kb_str pattern)
{
    struct kb_str error = KB_STR_NULL;
    struct kb_regex *regex = kb_regex_create(pattern, build->arena, &error);

    if (regex == NULL) {
        kb_diag_error(build->diag, "%.*s", KB_STR_ARG(error));
        return NULL;
    }
    return remember(build, regex);
}

const struct kb_regex *kb_match_build_regex(const struct kb_match_build *build,
                                            const Envoy__Type__Matcher__V3__RegexMatcher *message)
{
    const Envoy__Type__Matcher__V3__RegexMatcher__GoogleRE2 *re2 =
        message->engine_type_case == ENVOY__TYPE__MATCHER__V3__REGEX_MATCHER__ENGINE_TYPE_GOOGLE_RE2
            ? message->google_re2
            : NULL;
    bool own_limit = re2 != NULL && re2->max_program_size != NULL;
    unsigned max = own_limit ? re2->max_program_size->value : PROGRAM_SIZE_MAX;
    struct kb_str error = KB_STR_NULL;
    struct kb_regex *regex =
        kb_regex_create(kb_str_from_cstr(message->regex), build->arena, &error);
    unsigned size;

    if (regex == NULL) {
        kb_diag_error(build->diag, "%.*s", KB_STR_ARG(error));
        return NULL;
    }
    size = (unsigned)kb_regex_program_size(regex);
    if (size > max) {
        program_too_large(build, message->regex, size, max,
                          own_limit ? "" : " set for the error level threshold");
        kb_regex_destroy(regex);
        return NULL;
    }
    return remember(build, regex);
}
