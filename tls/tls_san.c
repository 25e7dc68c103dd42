/* SPDX-License-Identifier: Apache-2.0 */
/* Matching of subject alternative names. A name with a NUL in it matches nothing. */
#include "tls/tls_san.h"

#include <arpa/inet.h>

#include "base/regex.h"
#include "proto/wkt.h"

#define PATTERN(name)     ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_##name
#define REGEX_PROGRAM_MAX 100

/* ---- DNS names ---- */

static bool label_match(struct kb_str label, struct kb_str pattern)
{
    ptrdiff_t star = kb_str_find_char(pattern, '*');

    if (pattern.len == 1) {
        return star == 0;
    }
    if (star < 0 || kb_str_rfind_char(pattern, '*') != star) {
        return false;
    }
    return pattern.len <= label.len + 1 &&
           kb_str_istarts_with(label, kb_str_first(pattern, (size_t)star)) &&
           kb_str_iends_with(label, kb_str_from(pattern, (size_t)star + 1));
}

bool kb_tls_dns_name_match(struct kb_str name, struct kb_str pattern)
{
    ptrdiff_t name_dot = kb_str_find_char(name, '.');
    ptrdiff_t pattern_dot = kb_str_find_char(pattern, '.');
    struct kb_str label, rest;

    if (kb_str_ieq(name, pattern)) {
        return true;
    }
    if (name_dot < 0 || pattern_dot < 0) {
        return false;
    }
    label = kb_str_first(pattern, (size_t)pattern_dot);
    rest = kb_str_from(pattern, (size_t)pattern_dot + 1);
    return kb_str_find_char(label, '*') >= 0 && kb_str_find_char(rest, '*') < 0 &&
           !kb_str_istarts_with(label, KB_STR("xn--")) &&
           kb_str_ieq(kb_str_from(name, (size_t)name_dot + 1), rest) &&
           label_match(kb_str_first(name, (size_t)name_dot), label);
}

/* ---- names as text ---- */

struct kb_str kb_tls_san_text(const GENERAL_NAME *name, char text[KB_TLS_SAN_TEXT_MAX])
{
    const ASN1_STRING *value;
    int family;

    switch (name->type) {
    case GEN_DNS:
    case GEN_URI:
    case GEN_EMAIL:
        value = name->d.ia5;
        return kb_str_make((const char *)ASN1_STRING_get0_data(value),
                           (size_t)ASN1_STRING_length(value));
    case GEN_IPADD:
        value = name->d.iPAddress;
        family = ASN1_STRING_length(value) == 4    ? AF_INET
                 : ASN1_STRING_length(value) == 16 ? AF_INET6
                                                   : 0;
        if (family == 0 ||
            inet_ntop(family, ASN1_STRING_get0_data(value), text, KB_TLS_SAN_TEXT_MAX) == NULL) {
            return KB_STR_NULL;
        }
        return kb_str_from_cstr(text);
    default:
        return KB_STR_NULL;
    }
}

/* ---- matchers ---- */

static int regex_init(struct kb_tls_san_matcher *matcher,
                      const Envoy__Type__Matcher__V3__RegexMatcher *message, bool ignore_case,
                      struct kb_arena *arena, struct kb_diag *diag)
{
    struct kb_str error = KB_STR_NULL;

    if (ignore_case) {
        kb_diag_error(diag, "ignore_case has no effect for safe_regex.");
        return KB_ECONFIG;
    }
    matcher->pattern = KB_TLS_SAN_REGEX;
    matcher->regex = kb_regex_create(kb_wkt_str(message->regex), arena, &error);
    if (matcher->regex == NULL) {
        kb_diag_error(diag, "%.*s", KB_STR_ARG(error));
        return KB_ECONFIG;
    }
    if (kb_regex_program_size(matcher->regex) > REGEX_PROGRAM_MAX) {
        kb_diag_error(
            diag,
            "regex '%s' RE2 program size of %d > max program size of %d set for the error "
            "level threshold. Increase configured max program size if necessary.",
            message->regex, kb_regex_program_size(matcher->regex), REGEX_PROGRAM_MAX);
        return KB_ECONFIG;
    }
    return 0;
}

int kb_tls_san_matcher_init(struct kb_tls_san_matcher *matcher, int type,
                            const Envoy__Type__Matcher__V3__StringMatcher *message,
                            struct kb_arena *arena, struct kb_diag *diag)
{
    const char *text;

    *matcher = (struct kb_tls_san_matcher){.type = type, .ignore_case = message->ignore_case};
    switch ((int)message->match_pattern_case) {
    case PATTERN(EXACT):
        matcher->pattern = KB_TLS_SAN_EXACT;
        text = message->exact;
        break;
    case PATTERN(PREFIX):
        matcher->pattern = KB_TLS_SAN_PREFIX;
        text = message->prefix;
        break;
    case PATTERN(SUFFIX):
        matcher->pattern = KB_TLS_SAN_SUFFIX;
        text = message->suffix;
        break;
    case PATTERN(CONTAINS):
        matcher->pattern = KB_TLS_SAN_CONTAINS;
        text = message->contains;
        break;
    case PATTERN(SAFE_REGEX):
        return regex_init(matcher, message->safe_regex, message->ignore_case, arena, diag);
    default:
        kb_diag_error(diag, "a matcher of names needs exact, prefix, suffix, contains or "
                            "safe_regex");
        return KB_ECONFIG;
    }
    matcher->text = kb_str_dup(arena, kb_wkt_str(text));
    return 0;
}

void kb_tls_san_matcher_dispose(struct kb_tls_san_matcher *matcher)
{
    kb_regex_destroy(matcher->regex);
    matcher->regex = NULL;
}

static bool contains(struct kb_str name, struct kb_str text, bool ignore_case)
{
    for (size_t i = 0; i + text.len <= name.len; i++) {
        struct kb_str part = kb_str_from(name, i);

        if (ignore_case ? kb_str_istarts_with(part, text) : kb_str_starts_with(part, text)) {
            return true;
        }
    }
    return false;
}

bool kb_tls_san_matcher_match(const struct kb_tls_san_matcher *matcher, int type,
                              struct kb_str name)
{
    bool fold = matcher->ignore_case;

    if ((matcher->type != -1 && matcher->type != type) || name.p == NULL ||
        kb_str_find_char(name, '\0') >= 0) {
        return false;
    }
    switch (matcher->pattern) {
    case KB_TLS_SAN_EXACT:
        if (type == GEN_DNS) {
            return kb_tls_dns_name_match(matcher->text, name);
        }
        return fold ? kb_str_ieq(name, matcher->text) : kb_str_eq(name, matcher->text);
    case KB_TLS_SAN_PREFIX:
        return fold ? kb_str_istarts_with(name, matcher->text)
                    : kb_str_starts_with(name, matcher->text);
    case KB_TLS_SAN_SUFFIX:
        return fold ? kb_str_iends_with(name, matcher->text)
                    : kb_str_ends_with(name, matcher->text);
    case KB_TLS_SAN_CONTAINS:
        return contains(name, matcher->text, fold);
    case KB_TLS_SAN_REGEX:
        return kb_regex_full_match(matcher->regex, name);
    }
    return false;
}
