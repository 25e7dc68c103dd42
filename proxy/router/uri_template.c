/* SPDX-License-Identifier: Apache-2.0 */
/* URI templates: the pattern is read segment by segment into a regular expression with a named
 * group for each variable; a rewrite is a list of texts and groups. Grammar and messages as Envoy's
 * uri_template_lib. */
#include "proxy/router/uri_template.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/vec.h"

#define VARIABLES_MAX     5
#define VARIABLE_NAME_MAX 16
#define PATH_GLOB         "[a-zA-Z0-9-._~%!$&'()+,;:@=*]+"
#define TEXT_GLOB         "[a-zA-Z0-9-._~%!$&'()+,;:@=*/]*"

struct kb_uri_template {
    struct kb_str pattern;
    const struct kb_regex *regex;
    struct kb_str variables[VARIABLES_MAX];
    int variable_count;
};

struct rewrite_part {
    struct kb_str text; /* p NULL: a variable */
    int group;
};

struct kb_uri_template_rewrite {
    const struct kb_uri_template *match;
    struct rewrite_part *parts;
    size_t part_count;
};

/* ---- reading ---- */

struct template_reader {
    struct kb_str rest;
    KB_VEC(char) regex;
    struct kb_str variables[VARIABLES_MAX];
    int variable_count;
    bool text_glob_seen;
    char error[320]; /* empty: none */
};

static bool fail(struct template_reader *reader, const char *fmt, ...) KB_PRINTF(2, 3);

static bool fail(struct template_reader *reader, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(reader->error, sizeof(reader->error), fmt, args);
    va_end(args);
    return false;
}

static void regex_put(struct template_reader *reader, struct kb_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        kb_vec_push(&reader->regex, text.p[i]);
    }
}

/* '*' stays what it is in a regular expression: so does Envoy. */
static void regex_put_literal(struct template_reader *reader, struct kb_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (strchr("$()+.", text.p[i]) != NULL) {
            kb_vec_push(&reader->regex, '\\');
        }
        kb_vec_push(&reader->regex, text.p[i]);
    }
}

static bool literal_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || kb_ascii_is_digit(c) ||
           (c != '\0' && strchr("-._~%!$&'()+,;:@=*", c) != NULL);
}

static bool literal_valid(struct kb_str text, bool slash)
{
    for (size_t i = 0; i < text.len; i++) {
        if (!literal_char(text.p[i]) && !(slash && text.p[i] == '/')) {
            return false;
        }
    }
    return text.len > 0;
}

static bool read_literal(struct template_reader *reader, struct kb_str *rest)
{
    ptrdiff_t slash = kb_str_find_char(*rest, '/');
    struct kb_str literal = slash < 0 ? *rest : kb_str_first(*rest, (size_t)slash);

    if (!literal_valid(literal, false)) {
        return fail(reader, "Invalid literal: \"%.*s\"", KB_STR_ARG(literal));
    }
    regex_put_literal(reader, literal);
    *rest = kb_str_from(*rest, literal.len);
    return true;
}

static bool read_glob(struct template_reader *reader, struct kb_str *rest)
{
    bool text = rest->len > 1 && rest->p[1] == '*';

    if (reader->text_glob_seen) {
        return fail(reader, "Glob after text glob.");
    }
    reader->text_glob_seen = text;
    regex_put(reader, text ? KB_STR(TEXT_GLOB) : KB_STR(PATH_GLOB));
    *rest = kb_str_from(*rest, text ? 2 : 1);
    return true;
}

static bool variable_name_valid(struct kb_str name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = kb_ascii_lower(name.p[i]);

        if (!(c >= 'a' && c <= 'z') && (i == 0 || !(kb_ascii_is_digit(c) || c == '_'))) {
            return false;
        }
    }
    return name.len > 0;
}

static bool variable_add(struct template_reader *reader, struct kb_str name)
{
    if (!variable_name_valid(name)) {
        return fail(reader, "Invalid variable name: \"%.*s\"", KB_STR_ARG(name));
    }
    if (name.len > VARIABLE_NAME_MAX) {
        return fail(reader,
                    "Invalid variable name length (length of \"%.*s\" should be at least 1 and no "
                    "more than 16)",
                    KB_STR_ARG(name));
    }
    for (int i = 0; i < reader->variable_count; i++) {
        if (kb_str_eq(reader->variables[i], name)) {
            return fail(reader, "Repeated variable name: \"%.*s\"", KB_STR_ARG(name));
        }
    }
    if (reader->variable_count == VARIABLES_MAX) {
        return fail(reader, "Exceeded variable count limit (%d)", VARIABLES_MAX);
    }
    reader->variables[reader->variable_count++] = name;
    return true;
}

/* What follows '=' in a variable: literals and globs between slashes. */
static bool read_variable_match(struct template_reader *reader, struct kb_str match)
{
    if (match.len == 0) {
        return fail(reader, "Empty variable match");
    }
    for (;;) {
        if (!(match.p[0] == '*' ? read_glob(reader, &match) : read_literal(reader, &match))) {
            return false;
        }
        if (match.len == 0) {
            return true;
        }
        if (match.p[0] != '/' || match.len == 1) {
            return fail(reader, "Invalid variable match: \"%.*s\"", KB_STR_ARG(match));
        }
        regex_put(reader, KB_STR("/"));
        match = kb_str_from(match, 1);
    }
}

/* "{name}" or "{name=match}"; `inside` is what stands between the braces. */
static bool read_variable(struct template_reader *reader, struct kb_str inside)
{
    ptrdiff_t equal = kb_str_find_char(inside, '=');
    struct kb_str name = equal < 0 ? inside : kb_str_first(inside, (size_t)equal);

    if (!variable_add(reader, name)) {
        return false;
    }
    regex_put(reader, KB_STR("(?P<"));
    regex_put(reader, name);
    regex_put(reader, KB_STR(">"));
    if (equal >= 0) {
        if (!read_variable_match(reader, kb_str_from(inside, (size_t)equal + 1))) {
            return false;
        }
    } else {
        if (reader->text_glob_seen) {
            return fail(reader, "Implicit variable path glob after text glob.");
        }
        regex_put(reader, KB_STR(PATH_GLOB));
    }
    regex_put(reader, KB_STR(")"));
    return true;
}

/* A segment with a variable: text before and after it are allowed. */
static bool read_mixed(struct template_reader *reader, size_t open)
{
    struct kb_str prefix = kb_str_first(reader->rest, open);
    struct kb_str from_brace = kb_str_from(reader->rest, open);
    ptrdiff_t close = kb_str_find_char(from_brace, '}');
    struct kb_str suffix;
    ptrdiff_t slash;

    if (prefix.len > 0 && !literal_valid(prefix, false)) {
        return fail(reader, "Invalid literal: \"%.*s\"", KB_STR_ARG(prefix));
    }
    if (close < 0) {
        return fail(reader, "Unmatched variable bracket in mixed pattern: \"%.*s\"",
                    KB_STR_ARG(from_brace));
    }
    regex_put_literal(reader, prefix);
    if (!read_variable(reader, kb_str_make(from_brace.p + 1, (size_t)close - 1))) {
        return false;
    }
    reader->rest = kb_str_from(from_brace, (size_t)close + 1);
    slash = kb_str_find_char(reader->rest, '/');
    suffix = slash < 0 ? reader->rest : kb_str_first(reader->rest, (size_t)slash);
    if (suffix.len > 0 && !literal_valid(suffix, false)) {
        return fail(reader, "Invalid suffix literal: \"%.*s\"", KB_STR_ARG(suffix));
    }
    regex_put_literal(reader, suffix);
    reader->rest = kb_str_from(reader->rest, suffix.len);
    return true;
}

static bool read_segment(struct template_reader *reader)
{
    ptrdiff_t slash = kb_str_find_char(reader->rest, '/');
    ptrdiff_t open = kb_str_find_char(reader->rest, '{');

    if (reader->rest.p[0] == '*') {
        return read_glob(reader, &reader->rest);
    }
    if (open >= 0 && (slash < 0 || open < slash)) {
        return read_mixed(reader, (size_t)open);
    }
    return read_literal(reader, &reader->rest);
}

static bool read_pattern(struct template_reader *reader, struct kb_str pattern)
{
    if (pattern.len == 0 || pattern.p[0] != '/') {
        return fail(reader, "Invalid pattern: \"%.*s\"", KB_STR_ARG(pattern));
    }
    for (size_t i = 0; i < pattern.len; i++) {
        if (pattern.p[i] < '!' || pattern.p[i] > '~') {
            return fail(reader, "Invalid pattern: \"%.*s\"", KB_STR_ARG(pattern));
        }
    }
    reader->rest = kb_str_from(pattern, 1);
    regex_put(reader, KB_STR("/"));
    while (reader->rest.len > 0) {
        if (!read_segment(reader)) {
            return false;
        }
        if (reader->rest.len == 0) {
            break;
        }
        if (reader->rest.p[0] != '/') { /* a suffix after a glob, which must end the pattern */
            if (!read_literal(reader, &reader->rest)) {
                return false;
            }
            return reader->rest.len == 0 ? true : fail(reader, "Prefix match not supported.");
        }
        regex_put(reader, KB_STR("/"));
        reader->rest = kb_str_from(reader->rest, 1);
    }
    return true;
}

const struct kb_uri_template *kb_uri_template_create(struct kb_str pattern,
                                                     const struct kb_match_build *build)
{
    struct template_reader reader = {.error = ""};
    struct kb_uri_template *uri_template = NULL;

    pattern = kb_str_dup(build->arena, pattern);
    kb_vec_init(&reader.regex);
    if (read_pattern(&reader, pattern)) {
        uri_template = KB_ARENA_NEW(build->arena, struct kb_uri_template);
        uri_template->pattern = pattern;
        memcpy(uri_template->variables, reader.variables, sizeof(reader.variables));
        uri_template->variable_count = reader.variable_count;
        uri_template->regex =
            kb_match_build_pattern(build, kb_str_make(reader.regex.items, reader.regex.len));
        if (uri_template->regex == NULL) {
            uri_template = NULL;
        }
    } else {
        kb_diag_error(build->diag, "path_match_policy.path_template %.*s is invalid: %s",
                      KB_STR_ARG(pattern), reader.error);
    }
    kb_vec_dispose(&reader.regex);
    return uri_template;
}

bool kb_uri_template_match(const struct kb_uri_template *uri_template, struct kb_str path)
{
    return kb_regex_full_match(uri_template->regex, path);
}

/* ---- rewriting ---- */

static void rewrite_part_add(struct kb_uri_template_rewrite *rewrite, struct kb_str text, int group)
{
    struct rewrite_part *part = &rewrite->parts[rewrite->part_count++];

    part->text = text;
    part->group = group;
}

static int variable_group(const struct kb_uri_template *match, struct kb_str name)
{
    for (int i = 0; i < match->variable_count; i++) {
        if (kb_str_eq(match->variables[i], name)) {
            return kb_regex_group_index(match->regex, name);
        }
    }
    return -1;
}

/* 0, KB_EINVALID: not a valid pattern, KB_ENOTFOUND: a variable that the match does not have. */
static int rewrite_parse(struct kb_uri_template_rewrite *rewrite, struct kb_str rest)
{
    if (rest.len == 0 || rest.p[0] != '/' || kb_str_find(rest, KB_STR("//")) >= 0) {
        return KB_EINVALID;
    }
    while (rest.len > 0) {
        ptrdiff_t open = kb_str_find_char(rest, '{');
        struct kb_str literal = open < 0 ? rest : kb_str_first(rest, (size_t)open);
        struct kb_str name;
        ptrdiff_t close;
        int group;

        if (literal.len > 0 && !literal_valid(literal, true)) {
            return KB_EINVALID;
        }
        if (literal.len > 0) {
            rewrite_part_add(rewrite, literal, 0);
        }
        if (open < 0) {
            return 0;
        }
        rest = kb_str_from(rest, (size_t)open + 1);
        close = kb_str_find_char(rest, '}');
        name = close < 0 ? KB_STR_NULL : kb_str_first(rest, (size_t)close);
        if (close < 0 || !variable_name_valid(name)) {
            return KB_EINVALID;
        }
        group = variable_group(rewrite->match, name);
        if (group < 0) {
            return KB_ENOTFOUND;
        }
        rewrite_part_add(rewrite, KB_STR_NULL, group);
        rest = kb_str_from(rest, (size_t)close + 1);
    }
    return 0;
}

const struct kb_uri_template_rewrite *
kb_uri_template_rewrite_create(struct kb_str pattern, const struct kb_uri_template *match,
                               const struct kb_match_build *build)
{
    struct kb_uri_template_rewrite *rewrite =
        KB_ARENA_NEW(build->arena, struct kb_uri_template_rewrite);
    int rc;

    if (match == NULL) {
        kb_diag_error(
            build->diag,
            "unable to use envoy.path.rewrite.uri_template.uri_template_rewriter extension "
            "without envoy.path.match.uri_template.uri_template_matcher extension");
        return NULL;
    }
    pattern = kb_str_dup(build->arena, pattern);
    rewrite->match = match;
    rewrite->parts = kb_arena_calloc(build->arena, (pattern.len + 1) * sizeof(*rewrite->parts));
    rc = rewrite_parse(rewrite, pattern);
    if (rc == KB_EINVALID) {
        kb_diag_error(build->diag, "path_rewrite_policy.path_template_rewrite %.*s is invalid",
                      KB_STR_ARG(pattern));
    } else if (rc != 0) {
        kb_diag_error(
            build->diag,
            "mismatch between variables in path_match_policy %.*s and path_rewrite_policy %.*s",
            KB_STR_ARG(match->pattern), KB_STR_ARG(pattern));
    }
    return rc == 0 ? rewrite : NULL;
}

struct kb_str kb_uri_template_rewrite_path(const struct kb_uri_template_rewrite *rewrite,
                                           struct kb_str path, struct kb_arena *arena)
{
    struct kb_str groups[VARIABLES_MAX + 1];
    size_t len = 0;
    char *text;

    if (!kb_regex_full_match_groups(rewrite->match->regex, path, groups,
                                    rewrite->match->variable_count + 1)) {
        return KB_STR_NULL;
    }
    for (size_t i = 0; i < rewrite->part_count; i++) {
        const struct rewrite_part *part = &rewrite->parts[i];

        len += part->text.p != NULL ? part->text.len : groups[part->group].len;
    }
    text = kb_arena_alloc(arena, len + 1, 1);
    len = 0;
    for (size_t i = 0; i < rewrite->part_count; i++) {
        const struct rewrite_part *part = &rewrite->parts[i];
        struct kb_str piece = part->text.p != NULL ? part->text : groups[part->group];

        if (piece.len > 0) {
            memcpy(text + len, piece.p, piece.len);
            len += piece.len;
        }
    }
    return kb_str_make(text, len);
}
