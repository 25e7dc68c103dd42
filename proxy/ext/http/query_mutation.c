/* SPDX-License-Identifier: Apache-2.0 */
/* Query parameters as a list that mutations change; then it is sorted and written. What a value
 * would do to the request line (spaces, control characters) stays encoded. */
#include "proxy/ext/http/query_mutation.h"

#include <stdlib.h>
#include <string.h>

#include "envoy/config/core/v3/base.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "proxy/matcher/query_match.h"

#define ACTION(name) ENVOY__CONFIG__CORE__V3__KEY_VALUE_APPEND__KEY_VALUE_APPEND_ACTION__##name

struct mutation {
    int action;
    struct kb_str name;
    const struct kb_formatter *value; /* NULL: it is removed */
};

struct kb_query_mutations {
    size_t count;
    struct mutation items[];
};

struct param {
    struct kb_str name, value;
    size_t order;
    bool encode; /* the value came from a format */
};

struct params {
    struct param *items;
    size_t count;
};

/* ---- configuration ---- */

static int mutation_read(struct mutation *mutation,
                         const Envoy__Config__Core__V3__KeyValueMutation *m,
                         const struct kb_match_build *build)
{
    const Envoy__Config__Core__V3__KeyValuePair *record;

    if (m->append == NULL) {
        if (m->remove[0] == '\0') {
            kb_diag_error(build->diag, "No mutation specified.");
            return KB_ECONFIG;
        }
        mutation->name = kb_str_dup(build->arena, kb_str_from_cstr(m->remove));
        return 0;
    }
    record = m->append->record;
    if (record == NULL) {
        kb_diag_error(build->diag, "No record specified for parameter mutation.");
        return KB_ECONFIG;
    }
    if (record->value == NULL ||
        record->value->kind_case != GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE) {
        kb_diag_error(build->diag, "Only string value is allowed for parameter.");
        return KB_ECONFIG;
    }
    mutation->action = (int)m->append->action;
    mutation->name = kb_str_dup(build->arena, kb_str_from_cstr(record->key));
    mutation->value = kb_formatter_create(
        build->arena, kb_str_from_cstr(record->value->string_value), true, build->diag);
    return mutation->value != NULL ? 0 : KB_ECONFIG;
}

const struct kb_query_mutations *
kb_query_mutations_create(Envoy__Config__Core__V3__KeyValueMutation *const *messages, size_t count,
                          const char *field, const struct kb_match_build *build, bool *failed)
{
    struct kb_query_mutations *mutations;

    if (count == 0) {
        return NULL;
    }
    mutations = kb_arena_calloc(build->arena, sizeof(*mutations) + count * sizeof(struct mutation));
    mutations->count = count;
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(build->diag, field, i);
        *failed |= mutation_read(&mutations->items[i], messages[i], build) != 0;
        kb_diag_pop(build->diag);
    }
    return mutations;
}

/* ---- of a request ---- */

static void param_add(struct params *params, struct kb_str name, struct kb_str value, bool encode)
{
    params->items[params->count] = (struct param){name, value, params->count, encode};
    params->count++;
}

static bool param_has(const struct params *params, struct kb_str name)
{
    for (size_t i = 0; i < params->count; i++) {
        if (kb_str_eq(params->items[i].name, name)) {
            return true;
        }
    }
    return false;
}

static void param_remove(struct params *params, struct kb_str name)
{
    size_t kept = 0;

    for (size_t i = 0; i < params->count; i++) {
        if (!kb_str_eq(params->items[i].name, name)) {
            params->items[kept++] = params->items[i];
        }
    }
    params->count = kept;
}

static void mutation_apply(const struct mutation *mutation, struct params *params,
                           struct kb_str value)
{
    bool there = param_has(params, mutation->name);

    switch (mutation->action) {
    case ACTION(ADD_IF_ABSENT):
        if (there) {
            return;
        }
        break;
    case ACTION(OVERWRITE_IF_EXISTS):
        if (!there) {
            return;
        }
        param_remove(params, mutation->name);
        break;
    case ACTION(OVERWRITE_IF_EXISTS_OR_ADD):
        param_remove(params, mutation->name);
        break;
    default:
        break;
    }
    param_add(params, mutation->name, value, true);
}

static int by_name(const void *a, const void *b)
{
    const struct param *left = a, *right = b;
    int order = kb_str_cmp(left->name, right->name);

    return order != 0 ? order : (left->order > right->order) - (left->order < right->order);
}

static bool char_unreserved(char c)
{
    return kb_ascii_is_digit(c) || (kb_ascii_lower(c) >= 'a' && kb_ascii_lower(c) <= 'z') ||
           c == '-' || c == '_' || c == '.' || c == '~';
}

/* `all`: everything that is not unreserved (RFC 3986 section 2.3); else what cannot stand in a
 * path. */
static char *text_write(char *out, struct kb_str text, bool all)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.p[i];

        if (all ? !char_unreserved(text.p[i]) : c <= ' ' || c == 0x7f) {
            *out++ = '%';
            *out++ = digits[c >> 4];
            *out++ = digits[c & 15];
        } else {
            *out++ = text.p[i];
        }
    }
    return out;
}

static struct kb_str path_write(struct kb_str path, struct params *params, struct kb_arena *arena)
{
    size_t room = path.len;
    char *text, *out;

    qsort(params->items, params->count, sizeof(*params->items), by_name);
    for (size_t i = 0; i < params->count; i++) {
        room += 3 * (params->items[i].name.len + params->items[i].value.len) + 2;
    }
    text = kb_arena_alloc(arena, room + 1, 1);
    memcpy(text, path.p, path.len);
    out = text + path.len;
    for (size_t i = 0; i < params->count; i++) {
        *out++ = i == 0 ? '?' : '&';
        out = text_write(out, params->items[i].name, false);
        *out++ = '=';
        out = text_write(out, params->items[i].value, params->items[i].encode);
    }
    return kb_str_make(text, (size_t)(out - text));
}

void kb_query_mutations_apply(const struct kb_query_mutations *mutations,
                              struct kb_header_map *headers, const struct kb_formatter_input *input,
                              const struct kb_stream_info *info)
{
    struct kb_arena *arena = headers->arena;
    struct kb_str path = headers->path;
    struct params params = {NULL, 0};
    struct kb_query_cursor cursor;
    struct kb_str name, value;
    size_t room;

    if (mutations == NULL || path.p == NULL) {
        return;
    }
    cursor = kb_query_begin(path);
    room = mutations->count + 1;
    for (size_t i = 0; i < cursor.rest.len; i++) {
        room += cursor.rest.p[i] == '&';
    }
    params.items =
        kb_arena_alloc(arena, (room + 1) * sizeof(*params.items), _Alignof(struct param));
    while (kb_query_next_decoded(&cursor, &name, &value, arena)) {
        param_add(&params, name, value, false);
    }
    for (size_t i = 0; i < mutations->count; i++) {
        const struct mutation *mutation = &mutations->items[i];

        if (mutation->value == NULL) {
            param_remove(&params, mutation->name);
        } else {
            mutation_apply(mutation, &params,
                           kb_formatter_text(mutation->value, input, info, arena));
        }
    }
    headers->path = path_write(kb_str_first(path, cursor.path_len), &params, arena);
}
