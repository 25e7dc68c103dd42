/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the rules over a name as Envoy does: first those for any name, then those for the name's
 * first part, each on the whole name; what they take out may overlap. Default patterns are compiled
 * when a name first needs them, because most processes never do. */
#include "proxy/stats/tag_extract.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/regex.h"
#include "base/regex_std.h"
#include "proxy/stats/tag_rules.h"

struct extractor {
    struct kb_str tag;
    const struct kb_tag_rule *rule; /* a default, or NULL */
    struct kb_str first;            /* first part of the names that it is for; empty: any */
    struct kb_regex *regex;
    struct kb_regex_std *regex_std; /* for what RE2 does not know, such as looking ahead */
    bool fixed;
    struct kb_str fixed_value;
    bool shared_tag; /* another extractor gives the same tag: the first that matches wins */
};

struct kb_tag_producer {
    struct kb_arena arena;
    struct extractor *extractors; /* those for any name first */
    size_t count;
    size_t room;
};

static struct extractor *extractor_add(struct kb_tag_producer *producer, struct kb_str tag)
{
    struct extractor *extractor;

    if (producer->count == producer->room) {
        producer->room = producer->room == 0 ? 64 : producer->room * 2;
        producer->extractors =
            kb_realloc(producer->extractors, producer->room * sizeof(struct extractor));
    }
    extractor = &producer->extractors[producer->count++];
    *extractor = (struct extractor){.tag = kb_str_dup(&producer->arena, tag)};
    for (size_t i = 0; i + 1 < producer->count; i++) {
        if (kb_str_eq(producer->extractors[i].tag, tag)) {
            producer->extractors[i].shared_tag = true;
            extractor->shared_tag = true;
        }
    }
    return extractor;
}

/* Adds the default rules of that tag, or all; returns how many. */
static size_t defaults_add(struct kb_tag_producer *producer, struct kb_str tag)
{
    size_t added = 0;

    for (size_t i = 0; i < kb_tag_rule_count; i++) {
        const struct kb_tag_rule *rule = &kb_tag_rules[i];
        struct extractor *extractor;

        if (tag.len > 0 && !kb_str_eq(kb_str_from_cstr(rule->tag), tag)) {
            continue;
        }
        extractor = extractor_add(producer, kb_str_from_cstr(rule->tag));
        extractor->rule = rule;
        extractor->first = kb_str_from_cstr(rule->first);
        added++;
    }
    return added;
}

static void fixed_add(struct kb_tag_producer *producer, struct kb_str tag, struct kb_str value)
{
    struct extractor *extractor = extractor_add(producer, tag);

    extractor->fixed = true;
    extractor->fixed_value = kb_str_dup(&producer->arena, value);
}

/* "cluster" of "^cluster\\.(...": names with another first part cannot match. */
static struct kb_str regex_first_part(struct kb_str regex)
{
    size_t at = 1;
    struct kb_str rest;

    if (regex.len == 0 || regex.p[0] != '^') {
        return KB_STR_NULL;
    }
    while (at < regex.len &&
           ((kb_ascii_lower(regex.p[at]) >= 'a' && kb_ascii_lower(regex.p[at]) <= 'z') ||
            kb_ascii_is_digit(regex.p[at]) || regex.p[at] == '_')) {
        at++;
    }
    rest = kb_str_from(regex, at);
    if (at == 1 || !(kb_str_starts_with(rest, KB_STR("\\.")) ||
                     kb_str_starts_with(rest, KB_STR("(?=\\.)")) || kb_str_eq(rest, KB_STR("$")))) {
        return KB_STR_NULL;
    }
    return kb_str_make(regex.p + 1, at - 1);
}

static void regex_add(struct kb_tag_producer *producer, struct kb_str tag, struct kb_str pattern,
                      struct kb_diag *diag)
{
    struct kb_str error;
    struct kb_regex *regex = kb_regex_create(pattern, &producer->arena, &error);
    struct kb_regex_std *regex_std = regex == NULL ? kb_regex_std_create(pattern) : NULL;
    struct extractor *extractor;

    if (regex == NULL && regex_std == NULL) {
        kb_diag_push(diag, "regex");
        kb_diag_error(diag, "Invalid regex '%.*s': %.*s", KB_STR_ARG(pattern), KB_STR_ARG(error));
        kb_diag_pop(diag);
        return;
    }
    extractor = extractor_add(producer, tag);
    extractor->regex = regex;
    extractor->regex_std = regex_std;
    extractor->first = kb_str_dup(&producer->arena, regex_first_part(pattern));
}

static void specifier_add(struct kb_tag_producer *producer,
                          const Envoy__Config__Metrics__V3__TagSpecifier *config,
                          struct kb_diag *diag)
{
    struct kb_str tag = kb_str_from_cstr(config->tag_name);

    if (config->tag_value_case ==
        ENVOY__CONFIG__METRICS__V3__TAG_SPECIFIER__TAG_VALUE_FIXED_VALUE) {
        fixed_add(producer, tag, kb_str_from_cstr(config->fixed_value));
        return;
    }
    if (config->tag_value_case == ENVOY__CONFIG__METRICS__V3__TAG_SPECIFIER__TAG_VALUE_REGEX &&
        config->regex[0] != '\0') {
        if (tag.len == 0) {
            kb_diag_error(diag, "tag_name cannot be empty");
            return;
        }
        regex_add(producer, tag, kb_str_from_cstr(config->regex), diag);
        return;
    }
    if (tag.len == 0 || defaults_add(producer, tag) == 0) {
        kb_diag_error(diag,
                      "No regex specified for tag specifier and no default regex for name: '%.*s'",
                      KB_STR_ARG(tag));
    }
}

/* Those for any name first; order is kept otherwise. */
static void extractors_order(struct kb_tag_producer *producer)
{
    struct extractor *ordered = kb_calloc(producer->room + 1, sizeof(*ordered));
    size_t n = 0;

    for (int with_first = 0; with_first < 2; with_first++) {
        for (size_t i = 0; i < producer->count; i++) {
            if ((producer->extractors[i].first.len > 0) == (with_first == 1)) {
                ordered[n++] = producer->extractors[i];
            }
        }
    }
    free(producer->extractors);
    producer->extractors = ordered;
}

struct kb_tag_producer *
kb_tag_producer_create(const Envoy__Config__Metrics__V3__StatsConfig *config,
                       const struct kb_tag *cli, size_t cli_count, struct kb_diag *diag)
{
    struct kb_tag_producer *producer = kb_calloc(1, sizeof(*producer));

    kb_arena_init(&producer->arena, NULL);
    if (config == NULL || config->use_all_default_tags == NULL ||
        config->use_all_default_tags->value) {
        defaults_add(producer, KB_STR_NULL);
    }
    for (size_t i = 0; i < cli_count; i++) {
        fixed_add(producer, cli[i].name, cli[i].value);
    }
    for (size_t i = 0; config != NULL && i < config->n_stats_tags; i++) {
        kb_diag_push_index(diag, "stats_tags", i);
        specifier_add(producer, config->stats_tags[i], diag);
        kb_diag_pop(diag);
    }
    extractors_order(producer);
    return producer;
}

void kb_tag_producer_destroy(struct kb_tag_producer *producer)
{
    if (producer == NULL) {
        return;
    }
    for (size_t i = 0; i < producer->count; i++) {
        kb_regex_destroy(producer->extractors[i].regex);
        kb_regex_std_destroy(producer->extractors[i].regex_std);
    }
    free(producer->extractors);
    kb_arena_dispose(&producer->arena);
    free(producer);
}

void kb_tag_result_dispose(struct kb_tag_result *result)
{
    free(result->name);
    *result = (struct kb_tag_result){0};
}

/* Group 1 is taken out, group 2 or else group 1 is the value. */
static bool regex_match(const struct extractor *extractor, struct kb_str name,
                        struct kb_tag_match *match)
{
    struct kb_str groups[3] = {KB_STR_NULL};
    bool is_std = extractor->regex_std != NULL;
    int count = KB_MIN(is_std ? kb_regex_std_group_count(extractor->regex_std)
                              : kb_regex_group_count(extractor->regex),
                       2) +
                1;

    if (count < 2 ||
        !(is_std ? kb_regex_std_search(extractor->regex_std, name, groups, count)
                 : kb_regex_partial_match_groups(extractor->regex, name, groups, count))) {
        return false;
    }
    match->from = groups[1].p == NULL ? name.len : (size_t)(groups[1].p - name.p);
    match->to = match->from + groups[1].len;
    match->value = count > 2 ? groups[2] : groups[1];
    return true;
}

static bool rule_match(struct extractor *extractor, struct kb_tag_producer *producer,
                       struct kb_str name, struct kb_tag_match *match)
{
    const struct kb_tag_rule *rule = extractor->rule;
    struct kb_str error;

    if (rule->contains != NULL && kb_str_find(name, kb_str_from_cstr(rule->contains)) < 0) {
        return false;
    }
    if (rule->tokens != NULL) {
        return kb_tag_match_tokens(rule->tokens, name, match);
    }
    if (rule->match != NULL) {
        return rule->match(name, match);
    }
    if (extractor->regex == NULL) {
        extractor->regex = kb_regex_create(kb_str_from_cstr(rule->regex), &producer->arena, &error);
        KB_ASSERT(extractor->regex != NULL);
    }
    return regex_match(extractor, name, match) && match->to > match->from;
}

static bool extractor_match(struct extractor *extractor, struct kb_tag_producer *producer,
                            struct kb_str name, struct kb_tag_match *match)
{
    if (extractor->fixed) {
        *match = (struct kb_tag_match){.value = extractor->fixed_value};
        return true;
    }
    if (extractor->rule == NULL) {
        return regex_match(extractor, name, match);
    }
    if (!rule_match(extractor, producer, name, match)) {
        return false;
    }
    return extractor->rule->except == NULL ||
           !kb_str_eq(match->value, kb_str_from_cstr(extractor->rule->except));
}

struct span {
    size_t from;
    size_t to;
};

/* Copies the name without the spans, which may overlap, to the result. */
static void name_without(struct kb_str name, struct span *spans, size_t count,
                         struct kb_tag_result *result)
{
    size_t at = 0;

    if (result->name_room < name.len) {
        result->name_room = name.len + 64;
        result->name = kb_realloc(result->name, result->name_room);
    }
    result->name_len = 0;
    while (at < name.len) {
        size_t next = name.len; /* start of the first span behind `at` */
        size_t skip = at;       /* end of the spans that cover `at` */

        for (size_t i = 0; i < count; i++) {
            if (spans[i].from <= at && spans[i].to > skip) {
                skip = spans[i].to;
            } else if (spans[i].from > at && spans[i].from < next) {
                next = spans[i].from;
            }
        }
        if (skip > at) {
            at = skip;
            continue;
        }
        memcpy(result->name + result->name_len, name.p + at, next - at);
        result->name_len += next - at;
        at = next;
    }
    while (result->name_len > 0 && result->name[result->name_len - 1] == '.') {
        result->name_len--; /* Envoy's names never end in a dot */
    }
}

static bool result_has(const struct kb_tag_result *result, struct kb_str tag)
{
    for (size_t i = 0; i < result->tag_count; i++) {
        if (kb_str_eq(result->tags[i].name, tag)) {
            return true;
        }
    }
    return false;
}

void kb_tag_extract(struct kb_tag_producer *producer, struct kb_str name,
                    struct kb_tag_result *result)
{
    struct span spans[KB_TAGS_MAX];
    size_t span_count = 0;
    ptrdiff_t dot = kb_str_find_char(name, '.');
    struct kb_str first = kb_str_first(name, dot < 0 ? 0 : (size_t)dot);

    result->tag_count = 0;
    for (size_t i = 0; i < producer->count && result->tag_count < KB_TAGS_MAX; i++) {
        struct extractor *extractor = &producer->extractors[i];
        struct kb_tag_match match;

        if ((extractor->first.len > 0 && !kb_str_eq(extractor->first, first)) ||
            (extractor->shared_tag && result_has(result, extractor->tag)) ||
            !extractor_match(extractor, producer, name, &match)) {
            continue;
        }
        result->tags[result->tag_count++] = (struct kb_tag){extractor->tag, match.value};
        if (match.to > match.from) {
            spans[span_count++] = (struct span){match.from, match.to};
        }
    }
    name_without(name, spans, span_count, result);
}
