/* SPDX-License-Identifier: Apache-2.0 */
/* Templates of values: a format string, a list of templates, or an object of them. */
#include "proxy/ext/access_logger/open_telemetry_value.h"

#include "proto/wire.h"
#include "proxy/access_log/log_entry.h"

typedef Opentelemetry__Proto__Common__V1__AnyValue AnyValue;
typedef Opentelemetry__Proto__Common__V1__KeyValue KeyValue;
typedef Opentelemetry__Proto__Common__V1__KeyValueList KeyValueList;
typedef Opentelemetry__Proto__Common__V1__ArrayValue ArrayValue;

#define VALUE(NAME) OPENTELEMETRY__PROTO__COMMON__V1__ANY_VALUE__VALUE_##NAME

struct kb_otel_value {
    const struct kb_formatter *text; /* one of these three */
    const struct kb_otel_value *const *items;
    const struct kb_otel_attribute *members;
    size_t count;
};

static const struct kb_otel_value *list_create(const ArrayValue *message, struct kb_arena *arena,
                                               struct kb_diag *diag)
{
    struct kb_otel_value *value = KB_ARENA_NEW(arena, struct kb_otel_value);
    const struct kb_otel_value **items =
        kb_arena_calloc(arena, (message->n_values + 1) * sizeof(*items));

    for (size_t i = 0; i < message->n_values; i++) {
        kb_diag_push_index(diag, "values", i);
        items[i] = kb_otel_value_create(message->values[i], arena, diag);
        kb_diag_pop(diag);
        if (items[i] == NULL) {
            return NULL;
        }
    }
    value->items = items;
    value->count = message->n_values;
    return value;
}

const struct kb_otel_attribute *kb_otel_attributes_create(const KeyValueList *message,
                                                          struct kb_arena *arena,
                                                          struct kb_diag *diag, size_t *count)
{
    size_t n = message != NULL ? message->n_values : 0;
    struct kb_otel_attribute *made = kb_arena_calloc(arena, (n + 1) * sizeof(*made));

    for (size_t i = 0; i < n; i++) {
        kb_diag_push_index(diag, "values", i);
        made[i].key = kb_pb_text(kb_str_from_cstr(message->values[i]->key), arena);
        made[i].value = kb_otel_value_create(message->values[i]->value, arena, diag);
        kb_diag_pop(diag);
        if (made[i].value == NULL) {
            return NULL;
        }
    }
    *count = n;
    return made;
}

/* As deep as a message can be, see KB_PB_DEPTH_MAX. */
const struct kb_otel_value *kb_otel_value_create(const AnyValue *message, struct kb_arena *arena,
                                                 struct kb_diag *diag)
{
    struct kb_otel_value *value = KB_ARENA_NEW(arena, struct kb_otel_value);

    switch (message != NULL ? message->value_case : VALUE(_NOT_SET)) {
    case VALUE(STRING_VALUE):
        value->text =
            kb_formatter_create(arena, kb_str_from_cstr(message->string_value), false, diag);
        return value->text != NULL ? value : NULL;
    case VALUE(ARRAY_VALUE):
        return list_create(message->array_value, arena, diag);
    case VALUE(KVLIST_VALUE):
        value->members =
            kb_otel_attributes_create(message->kvlist_value, arena, diag, &value->count);
        return value->members != NULL ? value : NULL;
    case VALUE(_NOT_SET):
    case VALUE(BOOL_VALUE):
    case VALUE(INT_VALUE):
    case VALUE(DOUBLE_VALUE):
    case VALUE(BYTES_VALUE):
    default:
        kb_diag_error(diag, "Only string values, nested key value lists and array values are "
                            "supported in OpenTelemetry access log format.");
        return NULL;
    }
}

/* ---- on the worker ---- */

KeyValue *kb_otel_attribute_make(char *key, char *text, struct kb_arena *arena)
{
    KeyValue *attribute = KB_ARENA_NEW(arena, KeyValue);
    AnyValue *value = KB_ARENA_NEW(arena, AnyValue);

    opentelemetry__proto__common__v1__key_value__init(attribute);
    opentelemetry__proto__common__v1__any_value__init(value);
    value->value_case = VALUE(STRING_VALUE);
    value->string_value = text;
    attribute->key = key;
    attribute->value = value;
    return attribute;
}

static ArrayValue *list_make(const struct kb_otel_value *value,
                             const struct kb_formatter_input *input,
                             const struct kb_stream_info *info, struct kb_arena *arena)
{
    ArrayValue *list = KB_ARENA_NEW(arena, ArrayValue);

    opentelemetry__proto__common__v1__array_value__init(list);
    list->values = kb_arena_calloc(arena, (value->count + 1) * sizeof(*list->values));
    for (size_t i = 0; i < value->count; i++) {
        list->values[list->n_values++] = kb_otel_value_make(value->items[i], input, info, arena);
    }
    return list;
}

static KeyValueList *object_make(const struct kb_otel_value *value,
                                 const struct kb_formatter_input *input,
                                 const struct kb_stream_info *info, struct kb_arena *arena)
{
    KeyValueList *object = KB_ARENA_NEW(arena, KeyValueList);

    opentelemetry__proto__common__v1__key_value_list__init(object);
    object->values = kb_arena_calloc(arena, (value->count + 1) * sizeof(*object->values));
    for (size_t i = 0; i < value->count; i++) {
        KeyValue *member = KB_ARENA_NEW(arena, KeyValue);

        opentelemetry__proto__common__v1__key_value__init(member);
        member->key = value->members[i].key;
        member->value = kb_otel_value_make(value->members[i].value, input, info, arena);
        object->values[object->n_values++] = member;
    }
    return object;
}

AnyValue *kb_otel_value_make(const struct kb_otel_value *value,
                             const struct kb_formatter_input *input,
                             const struct kb_stream_info *info, struct kb_arena *arena)
{
    AnyValue *made = KB_ARENA_NEW(arena, AnyValue);

    opentelemetry__proto__common__v1__any_value__init(made);
    if (value->text != NULL) {
        made->value_case = VALUE(STRING_VALUE);
        made->string_value = kb_pb_text(kb_formatter_text(value->text, input, info, arena), arena);
    } else if (value->items != NULL) {
        made->value_case = VALUE(ARRAY_VALUE);
        made->array_value = list_make(value, input, info, arena);
    } else {
        made->value_case = VALUE(KVLIST_VALUE);
        made->kvlist_value = object_make(value, input, info, arena);
    }
    return made;
}
