/* SPDX-License-Identifier: Apache-2.0 */
/* Header mutations of one level of configuration. Values that hold no command are literals: they
 * cost nothing per request. */
#include "proxy/http/header_mutation.h"

#include <stdio.h>

#include "envoy/config/core/v3/base.pb-c.h"
#include "google/protobuf/wrappers.pb-c.h"

#define VALUES_ON_STACK 16

bool kb_header_modifiable(struct kb_str name)
{
    return name.len == 0 || (name.p[0] != ':' && !kb_str_ieq(name, KB_STR("host")));
}

struct kb_str kb_header_name_dup(struct kb_arena *arena, const char *name)
{
    struct kb_str copy = kb_str_dup(arena, kb_str_from_cstr(name));
    char *lower = (char *)copy.p; /* ours */

    for (size_t i = 0; i < copy.len; i++) {
        lower[i] = kb_ascii_lower(lower[i]);
    }
    return copy;
}

static int action_of(struct kb_header_addition *addition,
                     const Envoy__Config__Core__V3__HeaderValueOption *message,
                     struct kb_diag *diag)
{
    if (message->append == NULL) {
        addition->action = (uint8_t)message->append_action; /* the same numbers */
        return 0;
    }
    if ((int)message->append_action != KB_APPEND_IF_EXISTS_OR_ADD) {
        kb_diag_error(diag, "Both append and append_action are set and it's not allowed");
        return KB_ECONFIG;
    }
    addition->action =
        message->append->value ? KB_APPEND_IF_EXISTS_OR_ADD : KB_OVERWRITE_IF_EXISTS_OR_ADD;
    return 0;
}

static int addition_init(struct kb_header_addition *addition,
                         const Envoy__Config__Core__V3__HeaderValueOption *message,
                         const struct kb_match_build *build)
{
    struct kb_str value;

    if (message->header == NULL) {
        kb_diag_error(build->diag, "header: value is required");
        return KB_ECONFIG;
    }
    value = kb_str_from_cstr(message->header->value);
    if (!kb_header_modifiable(kb_str_from_cstr(message->header->key))) {
        kb_diag_error(build->diag, ":-prefixed or host headers may not be modified");
        return KB_ECONFIG;
    }
    KB_TRY(action_of(addition, message, build->diag));
    addition->name = kb_header_name_dup(build->arena, message->header->key);
    addition->keep_empty = message->keep_empty_value;
    if (kb_str_find_char(value, '%') < 0) {
        addition->literal = true;
        addition->text = kb_str_dup(build->arena, value);
        return 0;
    }
    kb_diag_push(build->diag, "header");
    kb_diag_push(build->diag, "value");
    addition->formatter = kb_formatter_create(build->arena, value, true, build->diag);
    kb_diag_pop(build->diag);
    kb_diag_pop(build->diag);
    return addition->formatter != NULL ? 0 : KB_ECONFIG;
}

static void additions_create(struct kb_header_mutations *mutations,
                             Envoy__Config__Core__V3__HeaderValueOption *const *add, size_t count,
                             const char *field, const struct kb_match_build *build, bool *failed)
{
    if (count == 0) {
        return;
    }
    mutations->add = kb_arena_calloc(build->arena, count * sizeof(*mutations->add));
    mutations->add_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(build->diag, field, i);
        if (addition_init(&mutations->add[i], add[i], build) != 0) {
            *failed = true;
        }
        kb_diag_pop(build->diag);
    }
}

static void removals_create(struct kb_header_mutations *mutations, char *const *remove,
                            size_t count, const char *field, const struct kb_match_build *build,
                            bool *failed)
{
    if (count == 0) {
        return;
    }
    mutations->remove = kb_arena_calloc(build->arena, count * sizeof(*mutations->remove));
    mutations->remove_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(build->diag, field, i);
        if (!kb_header_modifiable(kb_str_from_cstr(remove[i]))) {
            kb_diag_error(build->diag, ":-prefixed or host headers may not be removed");
            *failed = true;
        }
        kb_diag_pop(build->diag);
        mutations->remove[i] = kb_header_name_dup(build->arena, remove[i]);
    }
}

const struct kb_header_mutations *
kb_header_mutations_create(Envoy__Config__Core__V3__HeaderValueOption *const *add, size_t add_count,
                           char *const *remove, size_t remove_count, const char *kind,
                           const struct kb_match_build *build, bool *failed)
{
    struct kb_header_mutations *mutations;
    char add_field[32];
    char remove_field[32];

    if (add_count == 0 && remove_count == 0) {
        return NULL;
    }
    snprintf(add_field, sizeof(add_field), "%s%sheaders_to_add", kind, kind[0] != '\0' ? "_" : "");
    snprintf(remove_field, sizeof(remove_field), "%s_headers_to_remove", kind);
    mutations = KB_ARENA_NEW(build->arena, struct kb_header_mutations);
    additions_create(mutations, add, add_count, add_field, build, failed);
    removals_create(mutations, remove, remove_count, remove_field, build, failed);
    return mutations;
}

/* The value to set, or p NULL when this addition does nothing now. */
static struct kb_str addition_value(const struct kb_header_addition *addition,
                                    const struct kb_header_map *headers,
                                    const struct kb_formatter_input *input,
                                    const struct kb_stream_info *info)
{
    struct kb_str value = addition->literal
                              ? addition->text
                              : kb_formatter_text(addition->formatter, input, info, headers->arena);

    if (value.len == 0 && !addition->keep_empty) {
        return KB_STR_NULL;
    }
    if (addition->action == KB_ADD_IF_ABSENT &&
        kb_header_map_get(headers, addition->name) != NULL) {
        return KB_STR_NULL;
    }
    if (addition->action == KB_OVERWRITE_IF_EXISTS &&
        kb_header_map_get(headers, addition->name) == NULL) {
        return KB_STR_NULL;
    }
    return value.p != NULL ? value : KB_STR("");
}

static bool addition_overwrites(const struct kb_header_addition *addition)
{
    return addition->action == KB_OVERWRITE_IF_EXISTS ||
           addition->action == KB_OVERWRITE_IF_EXISTS_OR_ADD;
}

void kb_header_mutations_apply(const struct kb_header_mutations *mutations,
                               struct kb_header_map *headers,
                               const struct kb_formatter_input *input,
                               const struct kb_stream_info *info)
{
    struct kb_str on_stack[VALUES_ON_STACK];
    struct kb_str *values = on_stack;

    if (mutations == NULL) {
        return;
    }
    for (uint32_t i = 0; i < mutations->remove_count; i++) {
        kb_header_map_remove(headers, mutations->remove[i]);
    }
    if (mutations->add_count > VALUES_ON_STACK) {
        values = kb_arena_alloc(headers->arena, mutations->add_count * sizeof(*values),
                                _Alignof(struct kb_str));
    }
    for (uint32_t i = 0; i < mutations->add_count; i++) {
        values[i] = addition_value(&mutations->add[i], headers, input, info);
    }
    for (uint32_t i = 0; i < mutations->add_count; i++) {
        if (values[i].p != NULL && addition_overwrites(&mutations->add[i])) {
            kb_header_map_remove(headers, mutations->add[i].name);
            kb_header_map_add(headers, mutations->add[i].name, values[i]);
        }
    }
    for (uint32_t i = 0; i < mutations->add_count; i++) {
        if (values[i].p != NULL && !addition_overwrites(&mutations->add[i])) {
            kb_header_map_append(headers, mutations->add[i].name, values[i]);
        }
    }
}
