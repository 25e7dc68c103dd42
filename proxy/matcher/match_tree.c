/* SPDX-License-Identifier: Apache-2.0 */
/* The unified matcher over request headers. A match that leads nowhere goes on with the next
 * candidate, and at last with on_no_match, as in Envoy. Depth is that of the message, which its
 * reader limits. */
#include "proxy/matcher/match_tree.h"

#include <stdlib.h>

#include "envoy/type/matcher/v3/http_inputs.pb-c.h"
#include "envoy/type/matcher/v3/regex.pb-c.h"
#include "envoy/type/matcher/v3/string.pb-c.h"
#include "proto/any.h"
#include "proxy/matcher/string_match.h"
#include "xds/core/v3/extension.pb-c.h"
#include "xds/type/matcher/v3/matcher.pb-c.h"
#include "xds/type/matcher/v3/regex.pb-c.h"
#include "xds/type/matcher/v3/string.pb-c.h"

#define TREE(name)      XDS__TYPE__MATCHER__V3__MATCHER__MATCHER_TREE__TREE_TYPE_##name
#define TYPE(name)      XDS__TYPE__MATCHER__V3__MATCHER__MATCHER_TYPE_##name
#define PREDICATE(name) XDS__TYPE__MATCHER__V3__MATCHER__MATCHER_LIST__PREDICATE__MATCH_TYPE_##name
#define SINGLE(name) \
    XDS__TYPE__MATCHER__V3__MATCHER__MATCHER_LIST__PREDICATE__SINGLE_PREDICATE__MATCHER_##name
#define ON_MATCH(name) XDS__TYPE__MATCHER__V3__MATCHER__ON_MATCH__ON_MATCH_##name

struct on_match { /* neither: no match */
    const struct kb_match_tree *tree;
    const void *action;
};

enum predicate_kind { PREDICATE_SINGLE, PREDICATE_AND, PREDICATE_OR, PREDICATE_NOT };

struct predicate {
    enum predicate_kind kind;
    struct kb_str input; /* SINGLE: header name; empty: an input that is never there */
    struct kb_string_matcher string;
    struct predicate *parts; /* the others */
    size_t part_count;
};

struct tree_entry {
    struct predicate predicate; /* LIST */
    struct kb_str key;          /* EXACT, PREFIX */
    struct on_match on_match;
};

enum tree_kind { TREE_ANY, TREE_LIST, TREE_EXACT, TREE_PREFIX };

struct kb_match_tree {
    enum tree_kind kind;
    struct kb_str input;
    struct tree_entry *entries; /* EXACT: in order of keys; PREFIX: longest first */
    size_t entry_count;
    struct on_match on_no_match;
};

struct tree_build {
    const struct kb_match_tree_user *user;
    const struct kb_match_build *match;
    bool failed;
};

/* ---- building ---- */

static void report(struct tree_build *build, const char *text, const char *what)
{
    kb_diag_error(build->match->diag, "%s%s", text, what);
    build->failed = true;
}

static void unregistered(struct tree_build *build, const char *name, struct kb_str type)
{
    kb_diag_error(build->match->diag,
                  "Didn't find a registered implementation for '%s' with type URL: '%.*s'", name,
                  KB_STR_ARG(type));
    build->failed = true;
}

static struct kb_str type_of(struct tree_build *build,
                             const Xds__Core__V3__TypedExtensionConfig *config)
{
    return config->typed_config != NULL
               ? kb_any_inner_name(config->typed_config, build->match->arena)
               : KB_STR("");
}

static struct kb_str header_input(struct tree_build *build,
                                  const Xds__Core__V3__TypedExtensionConfig *config)
{
    const Envoy__Type__Matcher__V3__HttpRequestHeaderMatchInput *input = KB_ANY_UNPACK(
        config->typed_config, envoy__type__matcher__v3__http_request_header_match_input,
        Envoy__Type__Matcher__V3__HttpRequestHeaderMatchInput, build->match->arena,
        build->match->diag);
    struct kb_str name;

    if (input == NULL) {
        build->failed = true;
        return KB_STR("");
    }
    name = kb_str_dup(build->match->arena, kb_str_from_cstr(input->header_name));
    for (size_t i = 0; i < name.len; i++) {
        ((char *)name.p)[i] = kb_ascii_lower(name.p[i]); /* ours */
    }
    return name;
}

static struct kb_str input_build(struct tree_build *build,
                                 const Xds__Core__V3__TypedExtensionConfig *config)
{
    struct kb_str name = KB_STR("");
    struct kb_str type;

    kb_diag_push(build->match->diag, "input");
    if (config == NULL) {
        report(build, "value is required", "");
        kb_diag_pop(build->match->diag);
        return name;
    }
    type = type_of(build, config);
    if (kb_str_eq(type, KB_STR("envoy.type.matcher.v3.HttpRequestHeaderMatchInput"))) {
        name = header_input(build, config);
    } else if (kb_str_starts_with(type, KB_STR("envoy.type.matcher.v3.Http")) ||
               kb_str_starts_with(type, KB_STR("envoy.extensions.matching.common_inputs."))) {
        if (!kb_str_ends_with(type,
                              KB_STR(".FilterStateInput"))) { /* streams have none: never there */
            report(build, build->user->input_refused, config->typed_config->type_url);
        }
    } else {
        unregistered(build, config->name, type);
    }
    kb_diag_pop(build->match->diag);
    return name;
}

/* The xds message and Envoy's have the same fields. */
static void string_build(struct tree_build *build,
                         const Xds__Type__Matcher__V3__StringMatcher *message,
                         struct kb_string_matcher *matcher)
{
    Envoy__Type__Matcher__V3__StringMatcher copy = ENVOY__TYPE__MATCHER__V3__STRING_MATCHER__INIT;
    Envoy__Type__Matcher__V3__RegexMatcher regex = ENVOY__TYPE__MATCHER__V3__REGEX_MATCHER__INIT;

    copy.ignore_case = message->ignore_case;
    copy.match_pattern_case =
        (Envoy__Type__Matcher__V3__StringMatcher__MatchPatternCase)(int)message->match_pattern_case;
    if ((int)message->match_pattern_case ==
        (int)XDS__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX) {
        regex.regex = message->safe_regex->regex;
        copy.safe_regex = &regex;
    } else if ((int)message->match_pattern_case ==
               (int)XDS__TYPE__MATCHER__V3__STRING_MATCHER__MATCH_PATTERN_CUSTOM) {
        copy.custom = message->custom;
    } else {
        copy.exact = message->exact; /* the text of any other pattern stands in the same place */
    }
    kb_diag_push(build->match->diag, "value_match");
    build->failed |= kb_string_matcher_init(matcher, &copy, build->match) != 0;
    kb_diag_pop(build->match->diag);
}

static void single_build(
    struct tree_build *build,
    const Xds__Type__Matcher__V3__Matcher__MatcherList__Predicate__SinglePredicate *message,
    struct predicate *predicate)
{
    predicate->kind = PREDICATE_SINGLE;
    predicate->input = input_build(build, message->input);
    if ((int)message->matcher_case == SINGLE(VALUE_MATCH)) {
        string_build(build, message->value_match, &predicate->string);
    } else if ((int)message->matcher_case == SINGLE(CUSTOM_MATCH)) {
        kb_diag_push(build->match->diag, "custom_match");
        unregistered(build, message->custom_match->name, type_of(build, message->custom_match));
        kb_diag_pop(build->match->diag);
    } else {
        report(build, "matcher: is required", "");
    }
}

static void predicate_build(struct tree_build *build,
                            const Xds__Type__Matcher__V3__Matcher__MatcherList__Predicate *message,
                            struct predicate *predicate);

static void parts_build(struct tree_build *build,
                        Xds__Type__Matcher__V3__Matcher__MatcherList__Predicate *const *messages,
                        size_t count, const char *field, struct predicate *predicate)
{
    predicate->part_count = count;
    predicate->parts =
        kb_arena_calloc(build->match->arena, KB_MAX(count, 1) * sizeof(*predicate->parts));
    kb_diag_push(build->match->diag, field);
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(build->match->diag, "predicate", i);
        predicate_build(build, messages[i], &predicate->parts[i]);
        kb_diag_pop(build->match->diag);
    }
    kb_diag_pop(build->match->diag);
}

static void predicate_build(struct tree_build *build,
                            const Xds__Type__Matcher__V3__Matcher__MatcherList__Predicate *message,
                            struct predicate *predicate)
{
    switch (message != NULL ? (int)message->match_type_case : 0) {
    case PREDICATE(SINGLE_PREDICATE):
        kb_diag_push(build->match->diag, "single_predicate");
        single_build(build, message->single_predicate, predicate);
        kb_diag_pop(build->match->diag);
        break;
    case PREDICATE(OR_MATCHER):
        predicate->kind = PREDICATE_OR;
        parts_build(build, message->or_matcher->predicate, message->or_matcher->n_predicate,
                    "or_matcher", predicate);
        break;
    case PREDICATE(AND_MATCHER):
        predicate->kind = PREDICATE_AND;
        parts_build(build, message->and_matcher->predicate, message->and_matcher->n_predicate,
                    "and_matcher", predicate);
        break;
    case PREDICATE(NOT_MATCHER):
        predicate->kind = PREDICATE_NOT;
        parts_build(build, &message->not_matcher, 1, "not_matcher", predicate);
        break;
    default:
        report(build, "match_type: is required", "");
    }
}

static const struct kb_match_tree *tree_create(struct tree_build *build,
                                               const Xds__Type__Matcher__V3__Matcher *message);

static void on_match_build(struct tree_build *build, const char *field,
                           const Xds__Type__Matcher__V3__Matcher__OnMatch *message,
                           struct on_match *on_match)
{
    if (message == NULL) {
        return;
    }
    kb_diag_push(build->match->diag, field);
    if (message->keep_matching) {
        report(build, build->user->keep_matching_refused, "");
    }
    if ((int)message->on_match_case == ON_MATCH(MATCHER)) {
        kb_diag_push(build->match->diag, "matcher");
        on_match->tree = tree_create(build, message->matcher);
        kb_diag_pop(build->match->diag);
    } else if ((int)message->on_match_case == ON_MATCH(ACTION)) {
        kb_diag_push(build->match->diag, "action");
        on_match->action = build->user->action_create(build->user->arg, message->action->name,
                                                      message->action->typed_config);
        build->failed |= on_match->action == NULL;
        kb_diag_pop(build->match->diag);
    }
    kb_diag_pop(build->match->diag);
}

static void list_build(struct tree_build *build,
                       const Xds__Type__Matcher__V3__Matcher__MatcherList *message,
                       struct kb_match_tree *tree)
{
    tree->kind = TREE_LIST;
    tree->entry_count = message->n_matchers;
    tree->entries = kb_arena_calloc(build->match->arena,
                                    KB_MAX(message->n_matchers, 1) * sizeof(*tree->entries));
    kb_diag_push(build->match->diag, "matcher_list");
    for (size_t i = 0; i < message->n_matchers; i++) {
        kb_diag_push_index(build->match->diag, "matchers", i);
        kb_diag_push(build->match->diag, "predicate");
        predicate_build(build, message->matchers[i]->predicate, &tree->entries[i].predicate);
        kb_diag_pop(build->match->diag);
        on_match_build(build, "on_match", message->matchers[i]->on_match,
                       &tree->entries[i].on_match);
        kb_diag_pop(build->match->diag);
    }
    kb_diag_pop(build->match->diag);
}

static int key_order(const void *a, const void *b)
{
    return kb_str_cmp(((const struct tree_entry *)a)->key, ((const struct tree_entry *)b)->key);
}

static int key_longest_first(const void *a, const void *b)
{
    size_t len_a = ((const struct tree_entry *)a)->key.len;
    size_t len_b = ((const struct tree_entry *)b)->key.len;

    return len_a == len_b ? 0 : len_a < len_b ? 1 : -1;
}

static void map_build(struct tree_build *build, const char *field,
                      const Xds__Type__Matcher__V3__Matcher__MatcherTree__MatchMap *message,
                      struct kb_match_tree *tree)
{
    tree->entry_count = message->n_map;
    tree->entries =
        kb_arena_calloc(build->match->arena, KB_MAX(message->n_map, 1) * sizeof(*tree->entries));
    kb_diag_push(build->match->diag, field);
    for (size_t i = 0; i < message->n_map; i++) {
        kb_diag_push(build->match->diag, "map");
        kb_diag_push_key(build->match->diag, kb_str_from_cstr(message->map[i]->key));
        tree->entries[i].key =
            kb_str_dup(build->match->arena, kb_str_from_cstr(message->map[i]->key));
        on_match_build(build, "value", message->map[i]->value, &tree->entries[i].on_match);
        kb_diag_pop(build->match->diag);
        kb_diag_pop(build->match->diag);
    }
    kb_diag_pop(build->match->diag);
    qsort(tree->entries, tree->entry_count, sizeof(*tree->entries),
          tree->kind == TREE_EXACT ? key_order : key_longest_first);
}

static void map_tree_build(struct tree_build *build,
                           const Xds__Type__Matcher__V3__Matcher__MatcherTree *message,
                           struct kb_match_tree *tree)
{
    kb_diag_push(build->match->diag, "matcher_tree");
    tree->input = input_build(build, message->input);
    switch ((int)message->tree_type_case) {
    case TREE(EXACT_MATCH_MAP):
        tree->kind = TREE_EXACT;
        map_build(build, "exact_match_map", message->exact_match_map, tree);
        break;
    case TREE(PREFIX_MATCH_MAP):
        tree->kind = TREE_PREFIX;
        map_build(build, "prefix_match_map", message->prefix_match_map, tree);
        break;
    case TREE(CUSTOM_MATCH):
        kb_diag_push(build->match->diag, "custom_match");
        unregistered(build, message->custom_match->name, type_of(build, message->custom_match));
        kb_diag_pop(build->match->diag);
        break;
    default:
        report(build, "tree_type: is required", "");
    }
    kb_diag_pop(build->match->diag);
}

static const struct kb_match_tree *tree_create(struct tree_build *build,
                                               const Xds__Type__Matcher__V3__Matcher *message)
{
    struct kb_match_tree *tree = KB_ARENA_NEW(build->match->arena, struct kb_match_tree);

    if ((int)message->matcher_type_case == TYPE(MATCHER_LIST)) {
        list_build(build, message->matcher_list, tree);
    } else if ((int)message->matcher_type_case == TYPE(MATCHER_TREE)) {
        map_tree_build(build, message->matcher_tree, tree);
    }
    on_match_build(build, "on_no_match", message->on_no_match, &tree->on_no_match);
    return tree;
}

const struct kb_match_tree *kb_match_tree_create(const Xds__Type__Matcher__V3__Matcher *message,
                                                 const struct kb_match_tree_user *user,
                                                 const struct kb_match_build *match)
{
    struct tree_build build = {.user = user, .match = match};
    const struct kb_match_tree *tree = tree_create(&build, message);

    return build.failed ? NULL : tree;
}

/* ---- matching ---- */

/* p NULL: not there. */
static struct kb_str input_value(struct kb_str input, const struct kb_header_map *headers)
{
    return input.len > 0 ? kb_header_map_joined(headers, input) : KB_STR_NULL;
}

static bool predicate_holds(const struct predicate *predicate, const struct kb_header_map *headers)
{
    struct kb_str value;

    switch (predicate->kind) {
    case PREDICATE_SINGLE:
        value = input_value(predicate->input, headers);
        return value.p != NULL && kb_string_matcher_match(&predicate->string, value);
    case PREDICATE_NOT:
        return !predicate_holds(predicate->parts, headers);
    case PREDICATE_AND:
    case PREDICATE_OR:
        for (size_t i = 0; i < predicate->part_count; i++) {
            if (predicate_holds(&predicate->parts[i], headers) ==
                (predicate->kind == PREDICATE_OR)) {
                return predicate->kind == PREDICATE_OR;
            }
        }
        return predicate->kind == PREDICATE_AND;
    }
    return false;
}

static const void *resolve(const struct on_match *on_match, const struct kb_header_map *headers)
{
    return on_match->tree != NULL ? kb_match_tree_find(on_match->tree, headers) : on_match->action;
}

static const void *list_find(const struct kb_match_tree *tree, const struct kb_header_map *headers)
{
    for (size_t i = 0; i < tree->entry_count; i++) {
        if (predicate_holds(&tree->entries[i].predicate, headers)) {
            const void *action = resolve(&tree->entries[i].on_match, headers);

            if (action != NULL) {
                return action;
            }
        }
    }
    return NULL;
}

static const void *exact_find(const struct kb_match_tree *tree, struct kb_str value,
                              const struct kb_header_map *headers)
{
    const struct tree_entry wanted = {.key = value};
    const struct tree_entry *found =
        bsearch(&wanted, tree->entries, tree->entry_count, sizeof(*tree->entries), key_order);

    return found != NULL ? resolve(&found->on_match, headers) : NULL;
}

static const void *prefix_find(const struct kb_match_tree *tree, struct kb_str value,
                               const struct kb_header_map *headers)
{
    for (size_t i = 0; i < tree->entry_count; i++) {
        if (kb_str_starts_with(value, tree->entries[i].key)) {
            const void *action = resolve(&tree->entries[i].on_match, headers);

            if (action != NULL) {
                return action;
            }
        }
    }
    return NULL;
}

const void *kb_match_tree_find(const struct kb_match_tree *tree,
                               const struct kb_header_map *headers)
{
    const void *action = NULL;
    struct kb_str value;

    switch (tree->kind) {
    case TREE_ANY:
        break;
    case TREE_LIST:
        action = list_find(tree, headers);
        break;
    case TREE_EXACT:
        value = input_value(tree->input, headers);
        action = value.p != NULL ? exact_find(tree, value, headers) : NULL;
        break;
    case TREE_PREFIX:
        value = input_value(tree->input, headers);
        action = value.p != NULL ? prefix_find(tree, value, headers) : NULL;
        break;
    }
    return action != NULL ? action : resolve(&tree->on_no_match, headers);
}
