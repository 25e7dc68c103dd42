/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata and value matchers (Envoy Matchers::MetadataMatcher, ValueMatcher). */
#include "proxy/matcher/metadata_match.h"

#include "envoy/type/matcher/v3/metadata.pb-c.h"
#include "envoy/type/matcher/v3/value.pb-c.h"
#include "proxy/api/dynamic_metadata.h"

#define VALUE(name)  ENVOY__TYPE__MATCHER__V3__VALUE_MATCHER__MATCH_PATTERN_##name
#define DOUBLE(name) ENVOY__TYPE__MATCHER__V3__DOUBLE_MATCHER__MATCH_PATTERN_##name

/* ---- building ---- */

static int double_init(struct kb_value_matcher *matcher,
                       const Envoy__Type__Matcher__V3__DoubleMatcher *message,
                       const struct kb_match_build *build)
{
    switch ((int)message->match_pattern_case) {
    case DOUBLE(RANGE):
        matcher->kind = KB_VALUE_MATCH_RANGE;
        matcher->range.start = message->range->start;
        matcher->range.end = message->range->end;
        return 0;
    case DOUBLE(EXACT):
        matcher->kind = KB_VALUE_MATCH_NUMBER;
        matcher->range.start = message->exact;
        return 0;
    default:
        kb_diag_error(build->diag, "match_pattern: is required");
        return KB_ECONFIG;
    }
}

static int list_init(struct kb_value_matcher *matcher,
                     const Envoy__Type__Matcher__V3__ListMatcher *message,
                     const struct kb_match_build *build)
{
    struct kb_value_matcher *inner = KB_ARENA_NEW(build->arena, struct kb_value_matcher);

    if ((int)message->match_pattern_case !=
        ENVOY__TYPE__MATCHER__V3__LIST_MATCHER__MATCH_PATTERN_ONE_OF) {
        kb_diag_error(build->diag, "match_pattern: is required");
        return KB_ECONFIG;
    }
    matcher->kind = KB_VALUE_MATCH_LIST;
    matcher->inner.items = inner;
    matcher->inner.count = 1;
    return kb_value_matcher_init(inner, message->one_of, build);
}

static int or_init(struct kb_value_matcher *matcher,
                   const Envoy__Type__Matcher__V3__OrMatcher *message,
                   const struct kb_match_build *build)
{
    struct kb_value_matcher *items =
        kb_arena_calloc(build->arena, (message->n_value_matchers + 1) * sizeof(*items));
    int rc = 0;

    matcher->kind = KB_VALUE_MATCH_OR;
    matcher->inner.items = items;
    matcher->inner.count = message->n_value_matchers;
    for (size_t i = 0; i < message->n_value_matchers; i++) {
        kb_diag_push_index(build->diag, "value_matchers", i);
        rc |= kb_value_matcher_init(&items[i], message->value_matchers[i], build);
        kb_diag_pop(build->diag);
    }
    return rc != 0 ? KB_ECONFIG : 0;
}

static int pattern_init(struct kb_value_matcher *matcher,
                        const Envoy__Type__Matcher__V3__ValueMatcher *message,
                        const struct kb_match_build *build)
{
    switch ((int)message->match_pattern_case) {
    case VALUE(NULL_MATCH):
        matcher->kind = KB_VALUE_MATCH_NULL;
        return 0;
    case VALUE(DOUBLE_MATCH):
        return double_init(matcher, message->double_match, build);
    case VALUE(STRING_MATCH):
        matcher->kind = KB_VALUE_MATCH_STRING;
        return kb_string_matcher_init(&matcher->string, message->string_match, build);
    case VALUE(BOOL_MATCH):
        matcher->kind = KB_VALUE_MATCH_BOOL;
        matcher->on = message->bool_match;
        return 0;
    case VALUE(PRESENT_MATCH):
        matcher->kind = KB_VALUE_MATCH_PRESENT;
        matcher->on = message->present_match;
        return 0;
    case VALUE(LIST_MATCH):
        return list_init(matcher, message->list_match, build);
    case VALUE(OR_MATCH):
        return or_init(matcher, message->or_match, build);
    default:
        kb_diag_error(build->diag, "match_pattern: is required");
        return KB_ECONFIG;
    }
}

int kb_value_matcher_init(struct kb_value_matcher *matcher,
                          const Envoy__Type__Matcher__V3__ValueMatcher *message,
                          const struct kb_match_build *build)
{
    const ProtobufCFieldDescriptor *field;
    int rc;

    if (message == NULL) {
        kb_diag_error(build->diag, "value is required");
        return KB_ECONFIG;
    }
    field = protobuf_c_message_descriptor_get_field(message->base.descriptor,
                                                    (unsigned)message->match_pattern_case);
    kb_diag_push(build->diag, field != NULL ? field->name : "match_pattern");
    rc = pattern_init(matcher, message, build);
    kb_diag_pop(build->diag);
    return rc;
}

int kb_metadata_matcher_init(struct kb_metadata_matcher *matcher,
                             const Envoy__Type__Matcher__V3__MetadataMatcher *message,
                             const struct kb_match_build *build)
{
    struct kb_str *path =
        kb_arena_calloc(build->arena, (message->n_path + 1) * sizeof(struct kb_str));
    int rc;

    matcher->filter = kb_str_dup(build->arena, kb_str_from_cstr(message->filter));
    for (size_t i = 0; i < message->n_path; i++) {
        path[i] = kb_str_dup(build->arena, kb_str_from_cstr(message->path[i]->key));
    }
    matcher->path = path;
    matcher->path_len = message->n_path;
    matcher->invert = message->invert;
    kb_diag_push(build->diag, "value");
    rc = kb_value_matcher_init(&matcher->value, message->value, build);
    kb_diag_pop(build->diag);
    return rc;
}

/* ---- matching ---- */

static bool any_inner(const struct kb_value_matcher *matcher, const Google__Protobuf__Value *value)
{
    for (size_t i = 0; i < matcher->inner.count; i++) {
        if (kb_value_matcher_match(&matcher->inner.items[i], value)) {
            return true;
        }
    }
    return false;
}

static bool list_match(const struct kb_value_matcher *matcher, const Google__Protobuf__Value *value)
{
    if (value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE) {
        return false;
    }
    for (size_t i = 0; i < value->list_value->n_values; i++) {
        if (any_inner(matcher, value->list_value->values[i])) {
            return true;
        }
    }
    return false;
}

bool kb_value_matcher_match(const struct kb_value_matcher *matcher,
                            const Google__Protobuf__Value *value)
{
    static const Google__Protobuf__Value nothing = GOOGLE__PROTOBUF__VALUE__INIT;
    int kind;

    value = value != NULL ? value : &nothing;
    kind = (int)value->kind_case;
    switch (matcher->kind) {
    case KB_VALUE_MATCH_NULL:
        return kind == GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE;
    case KB_VALUE_MATCH_RANGE:
        return kind == GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE &&
               matcher->range.start <= value->number_value &&
               value->number_value < matcher->range.end;
    case KB_VALUE_MATCH_NUMBER:
        return kind == GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE &&
               value->number_value >= matcher->range.start &&
               value->number_value <= matcher->range.start;
    case KB_VALUE_MATCH_STRING:
        return kind == GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE &&
               kb_string_matcher_match(&matcher->string, kb_str_from_cstr(value->string_value));
    case KB_VALUE_MATCH_BOOL:
        return kind == GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE &&
               (value->bool_value != 0) == matcher->on;
    case KB_VALUE_MATCH_PRESENT:
        return matcher->on && kind != GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET;
    case KB_VALUE_MATCH_LIST:
        return list_match(matcher, value);
    case KB_VALUE_MATCH_OR:
        return any_inner(matcher, value);
    }
    return false;
}

const Google__Protobuf__Value *kb_metadata_matcher_find(const struct kb_metadata_matcher *matcher,
                                                        const Google__Protobuf__Struct *space)
{
    const Google__Protobuf__Value *value = NULL;

    for (size_t i = 0; i < matcher->path_len; i++) {
        value = space != NULL ? kb_struct_get(space, matcher->path[i]) : NULL;
        if (value == NULL) {
            return NULL;
        }
        space = value->kind_case == GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE ? value->struct_value
                                                                               : NULL;
    }
    return value;
}

bool kb_metadata_matcher_match(const struct kb_metadata_matcher *matcher,
                               const struct kb_dynamic_metadata *metadata)
{
    const Google__Protobuf__Struct *space = kb_dynamic_metadata_get(metadata, matcher->filter);

    return kb_value_matcher_match(&matcher->value, kb_metadata_matcher_find(matcher, space)) !=
           matcher->invert;
}

bool kb_metadata_matcher_match_packed(const struct kb_metadata_matcher *matcher,
                                      struct kb_str packed, struct kb_arena *arena)
{
    const Google__Protobuf__Struct *space = kb_packed_metadata_get(packed, matcher->filter, arena);

    return kb_value_matcher_match(&matcher->value, kb_metadata_matcher_find(matcher, space)) !=
           matcher->invert;
}
