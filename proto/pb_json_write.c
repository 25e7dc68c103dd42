/* SPDX-License-Identifier: Apache-2.0 */
/* Message to JSON as Envoy's admin writes it: proto names, one space a level, defaults left out or
 * not, Any expanded. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "proto/any.h"
#include "proto/pb_json_read.h"
#include "proto/reflect.h"

#define NUMBER_TEXT_MAX 40

struct writer {
    struct kb_json_out *out;
    struct kb_arena *arena; /* what Any values unpack into */
    unsigned flags;
    unsigned level;
    unsigned depth;
    bool in_any;
    bool redact; /* below a sensitive field */
};

static void raw(struct writer *writer, const char *text)
{
    kb_json_out_add(writer->out, kb_str_from_cstr(text));
}

static void line_break(struct writer *writer)
{
    static const char spaces[] = "                                ";
    unsigned left = writer->level;

    if ((writer->flags & KB_PB_JSON_PRETTY) == 0) {
        return;
    }
    raw(writer, "\n");
    while (left > 0) {
        unsigned some = (unsigned)KB_MIN(left, sizeof(spaces) - 1);

        kb_json_out_add(writer->out, kb_str_make(spaces, some));
        left -= some;
    }
}

static void open_bracket(struct writer *writer, const char *bracket)
{
    raw(writer, bracket);
    writer->level++;
}

/* Ends an object or list; an empty one stays on its line. */
static void close_bracket(struct writer *writer, const char *bracket, bool empty)
{
    writer->level--;
    if (!empty) {
        line_break(writer);
    }
    raw(writer, bracket);
}

/* Starts a member or element: the comma after the one before, the line, the name. */
static void member_begin(struct writer *writer, bool *first, const char *name)
{
    if (!*first) {
        raw(writer, ",");
    }
    *first = false;
    line_break(writer);
    if (name != NULL) {
        kb_json_out_add_quoted(writer->out, kb_str_from_cstr(name));
        raw(writer, (writer->flags & KB_PB_JSON_PRETTY) ? ": " : ":");
    }
}

static void message_write(struct writer *writer, const ProtobufCMessage *message,
                          const char *type_url);

/* Shortest digits that read back as the same number, as protobuf prints them. */
static void real_write(struct writer *writer, double real, bool is_float)
{
    char text[NUMBER_TEXT_MAX];

    if (isnan(real)) {
        raw(writer, "\"NaN\"");
        return;
    }
    if (isinf(real)) {
        raw(writer, real > 0 ? "\"Infinity\"" : "\"-Infinity\"");
        return;
    }
    for (int digits = is_float ? 6 : 15; digits <= (is_float ? 9 : 17); digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, real);
        if (is_float ? strtof(text, NULL) == (float)real : strtod(text, NULL) == real) {
            break;
        }
    }
    raw(writer, text);
}

static void base64_write(struct writer *writer, const ProtobufCBinaryData *bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    raw(writer, "\"");
    for (size_t i = 0; i < bytes->len; i += 3) {
        size_t left = bytes->len - i;
        uint32_t held = (uint32_t)bytes->data[i] << 16 |
                        (left > 1 ? (uint32_t)bytes->data[i + 1] << 8 : 0) |
                        (left > 2 ? bytes->data[i + 2] : 0);
        char four[4] = {digits[held >> 18], digits[held >> 12 & 63],
                        left > 1 ? digits[held >> 6 & 63] : '=',
                        left > 2 ? digits[held & 63] : '='};

        kb_json_out_add(writer->out, kb_str_make(four, 4));
    }
    raw(writer, "\"");
}

static void enum_write(struct writer *writer, const ProtobufCEnumDescriptor *type, int32_t number)
{
    char text[NUMBER_TEXT_MAX];

    if (type == &google__protobuf__null_value__descriptor) {
        raw(writer, "null");
        return;
    }
    for (unsigned i = 0; i < type->n_values; i++) {
        if (type->values[i].value == number) {
            kb_json_out_add_quoted(writer->out, kb_str_from_cstr(type->values[i].name));
            return;
        }
    }
    snprintf(text, sizeof(text), "%d", number);
    raw(writer, text);
}

static void integer_write(struct writer *writer, ProtobufCType type, const void *slot)
{
    char text[NUMBER_TEXT_MAX];
    bool wide = kb_reflect_size(type) == 8;

    if (type == PROTOBUF_C_TYPE_UINT64 || type == PROTOBUF_C_TYPE_FIXED64) {
        snprintf(text, sizeof(text), "\"%llu\"", (unsigned long long)*(const uint64_t *)slot);
    } else if (wide) {
        snprintf(text, sizeof(text), "\"%lld\"", (long long)*(const int64_t *)slot);
    } else if (type == PROTOBUF_C_TYPE_UINT32 || type == PROTOBUF_C_TYPE_FIXED32) {
        snprintf(text, sizeof(text), "%u", *(const uint32_t *)slot);
    } else {
        snprintf(text, sizeof(text), "%d", *(const int32_t *)slot);
    }
    raw(writer, text);
}

static void scalar_write(struct writer *writer, const ProtobufCFieldDescriptor *field,
                         const void *slot)
{
    static const ProtobufCBinaryData redacted = {.len = 10,
                                                 .data = (uint8_t *)(uintptr_t)"[redacted]"};

    switch (field->type) {
    case PROTOBUF_C_TYPE_BOOL:
        raw(writer, *(const protobuf_c_boolean *)slot ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        enum_write(writer, field->descriptor, *(const int32_t *)slot);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        real_write(writer, (double)*(const float *)slot, true);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        real_write(writer, *(const double *)slot, false);
        break;
    case PROTOBUF_C_TYPE_STRING:
        kb_json_out_add_quoted(writer->out, writer->redact
                                                ? KB_STR("[redacted]")
                                                : kb_str_from_cstr(*(const char *const *)slot));
        break;
    case PROTOBUF_C_TYPE_BYTES:
        base64_write(writer, writer->redact ? &redacted : slot);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        if (*(const ProtobufCMessage *const *)slot != NULL) {
            message_write(writer, *(const ProtobufCMessage *const *)slot, NULL);
        } else {
            raw(writer, "{}");
        }
        break;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    default:
        integer_write(writer, field->type, slot);
        break;
    }
}

/* A value that redaction removes: neither text nor a message. */
static bool is_removed(const struct writer *writer, const ProtobufCFieldDescriptor *field)
{
    return writer->redact && field->type != PROTOBUF_C_TYPE_STRING &&
           field->type != PROTOBUF_C_TYPE_BYTES && field->type != PROTOBUF_C_TYPE_MESSAGE;
}

static void list_write(struct writer *writer, const ProtobufCMessage *message,
                       const ProtobufCFieldDescriptor *field)
{
    const char *items = *(const char *const *)kb_reflect_member(message, field);
    size_t count = *kb_reflect_count(message, field);
    bool first = true;

    open_bracket(writer, "[");
    for (size_t i = 0; i < count; i++) {
        member_begin(writer, &first, NULL);
        scalar_write(writer, field, items + i * kb_reflect_size(field->type));
    }
    close_bracket(writer, "]", first);
}

/* The name of a map entry as text. */
static const char *map_key_text(struct writer *writer, const ProtobufCFieldDescriptor *key,
                                const void *slot)
{
    if (key->type == PROTOBUF_C_TYPE_STRING) {
        return *(const char *const *)slot;
    }
    if (key->type == PROTOBUF_C_TYPE_BOOL) {
        return *(const protobuf_c_boolean *)slot ? "true" : "false";
    }
    if (kb_reflect_size(key->type) == 8) {
        return kb_str_printf(writer->arena, "%lld", (long long)*(const int64_t *)slot).p;
    }
    return kb_str_printf(writer->arena, "%d", *(const int32_t *)slot).p;
}

static void map_write(struct writer *writer, const ProtobufCMessage *message,
                      const ProtobufCFieldDescriptor *field)
{
    const ProtobufCFieldDescriptor *key = kb_reflect_map_key(field);
    const ProtobufCFieldDescriptor *value = kb_reflect_map_value(field);
    ProtobufCMessage **entries = kb_reflect_messages(message, field);
    size_t count = *kb_reflect_count(message, field);
    bool first = true;

    open_bracket(writer, "{");
    for (size_t i = 0; i < count; i++) {
        if (is_removed(writer, value)) {
            continue;
        }
        member_begin(writer, &first, map_key_text(writer, key, kb_reflect_member(entries[i], key)));
        scalar_write(writer, value, kb_reflect_member(entries[i], value));
    }
    close_bracket(writer, "}", first);
}

/* Whether a field that is not set is written when defaults are asked for: no member of a oneof, no
 * message. */
static bool default_shown(const struct writer *writer, const ProtobufCFieldDescriptor *field)
{
    return (writer->flags & KB_PB_JSON_DEFAULTS) != 0 && !kb_reflect_in_oneof(field) &&
           (kb_reflect_repeated(field) || field->type != PROTOBUF_C_TYPE_MESSAGE);
}

static void fields_write(struct writer *writer, const ProtobufCMessage *message, bool *first)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;

    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        bool redact_before = writer->redact;

        if (!kb_reflect_has(message, field) && !default_shown(writer, field)) {
            continue;
        }
        if ((writer->flags & KB_PB_JSON_REDACT) && (kb_pb_field_marks(field) & KB_PB_SENSITIVE)) {
            writer->redact = true;
        }
        if (is_removed(writer, field)) {
            writer->redact = redact_before;
            continue;
        }
        member_begin(writer, first, field->name);
        if (!kb_reflect_repeated(field)) {
            scalar_write(writer, field, kb_reflect_member(message, field));
        } else if (kb_pb_field_marks(field) & KB_PB_MAP) {
            map_write(writer, message, field);
        } else {
            list_write(writer, message, field);
        }
        writer->redact = redact_before;
    }
}

/* ".5" with as many digits as needed: 0, 3, 6 or 9. */
static void fraction_text(char *out, size_t cap, int32_t nanos)
{
    uint32_t n = (uint32_t)(nanos < 0 ? -(int64_t)nanos : nanos);

    if (n == 0) {
        out[0] = '\0';
    } else if (n % 1000000 == 0) {
        snprintf(out, cap, ".%03u", n / 1000000);
    } else if (n % 1000 == 0) {
        snprintf(out, cap, ".%06u", n / 1000);
    } else {
        snprintf(out, cap, ".%09u", n);
    }
}

static void duration_write(struct writer *writer, const ProtobufCMessage *message)
{
    const Google__Protobuf__Duration *duration =
        (const Google__Protobuf__Duration *)(const void *)message;
    bool negative = duration->seconds < 0 || duration->nanos < 0;
    uint64_t seconds =
        duration->seconds < 0 ? 0 - (uint64_t)duration->seconds : (uint64_t)duration->seconds;
    char fraction[16];
    char text[NUMBER_TEXT_MAX + sizeof(fraction)];

    fraction_text(fraction, sizeof(fraction), duration->nanos);
    snprintf(text, sizeof(text), "\"%s%llu%ss\"", negative ? "-" : "", (unsigned long long)seconds,
             fraction);
    raw(writer, text);
}

/* Year, month and day of a count of days since 1970-01-01. */
static void date_from_days(int64_t days, int64_t *year, int64_t *month, int64_t *day)
{
    int64_t shifted = days + 719468;
    int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    int64_t in_era = shifted - era * 146097;
    int64_t year_in_era = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * year_in_era + year_in_era / 4 - year_in_era / 100);
    int64_t part = (5 * in_year + 2) / 153;

    *day = in_year - (153 * part + 2) / 5 + 1;
    *month = part < 10 ? part + 3 : part - 9;
    *year = year_in_era + era * 400 + (*month <= 2);
}

static void timestamp_write(struct writer *writer, const ProtobufCMessage *message)
{
    const Google__Protobuf__Timestamp *timestamp =
        (const Google__Protobuf__Timestamp *)(const void *)message;
    int64_t seconds = KB_MIN(KB_MAX(timestamp->seconds, -62135596800LL), 253402300799LL);
    int64_t in_day = ((seconds % 86400) + 86400) % 86400;
    int64_t year;
    int64_t month;
    int64_t day;
    char fraction[16];
    char text[64 + sizeof(fraction)];

    date_from_days((seconds - in_day) / 86400, &year, &month, &day);
    fraction_text(fraction, sizeof(fraction), timestamp->nanos);
    snprintf(text, sizeof(text), "\"%04d-%02d-%02dT%02d:%02d:%02d%sZ\"", (int)year, (int)month,
             (int)day, (int)(in_day / 3600), (int)(in_day / 60 % 60), (int)(in_day % 60), fraction);
    raw(writer, text);
}

/* Paths in lowerCamelCase with commas between. */
static void field_mask_write(struct writer *writer, const ProtobufCMessage *message)
{
    const Google__Protobuf__FieldMask *mask =
        (const Google__Protobuf__FieldMask *)(const void *)message;

    raw(writer, "\"");
    for (size_t i = 0; i < mask->n_paths; i++) {
        bool upper = false;

        if (i > 0) {
            raw(writer, ",");
        }
        for (const char *p = mask->paths[i]; *p != '\0'; p++) {
            char c = upper && *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;

            upper = *p == '_';
            if (!upper && *p != '"' && *p != '\\') {
                kb_json_out_add(writer->out, kb_str_make(&c, 1));
            }
        }
    }
    raw(writer, "\"");
}

static void value_write(struct writer *writer, const ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];

        if (*kb_reflect_case(message, field) == field->id && !is_removed(writer, field)) {
            scalar_write(writer, field, kb_reflect_member(message, field));
            return;
        }
    }
    raw(writer, "null");
}

/* An Any with what is in it, unpacked into the writer's arena. */
static void any_expand(struct writer *writer, const Google__Protobuf__Any *any)
{
    const char *url = any->type_url != NULL ? any->type_url : "";
    ProtobufCMessage *inner = kb_any_peek(any, writer->arena);
    bool first = true;

    if (inner != NULL && kb_pb_kind_of(inner->descriptor) == KB_PB_PLAIN) {
        message_write(writer, inner, url);
        return;
    }
    open_bracket(writer, "{");
    if (url[0] != '\0') {
        member_begin(writer, &first, "@type");
        kb_json_out_add_quoted(writer->out, kb_str_from_cstr(url));
    }
    if (inner != NULL) {
        member_begin(writer, &first, "value");
        message_write(writer, inner, NULL);
    } else if (any->value.len > 0) {
        member_begin(writer, &first, "value");
        base64_write(writer, &any->value);
    }
    close_bracket(writer, "}", first);
}

/* Memory is given back after each outermost Any: a dump holds thousands. */
static void any_write(struct writer *writer, const ProtobufCMessage *message)
{
    const Google__Protobuf__Any *any = (const Google__Protobuf__Any *)(const void *)message;
    struct kb_arena *before = writer->arena;
    struct kb_arena scratch;

    if (writer->in_any) {
        any_expand(writer, any);
        return;
    }
    kb_arena_init(&scratch, NULL);
    writer->arena = &scratch;
    writer->in_any = true;
    any_expand(writer, any);
    writer->in_any = false;
    writer->arena = before;
    kb_arena_dispose(&scratch);
}

static void object_write(struct writer *writer, const ProtobufCMessage *message,
                         const char *type_url)
{
    bool first = true;

    open_bracket(writer, "{");
    if (type_url != NULL) {
        member_begin(writer, &first, "@type");
        kb_json_out_add_quoted(writer->out, kb_str_from_cstr(type_url));
    }
    fields_write(writer, message, &first);
    close_bracket(writer, "}", first);
}

static void message_write(struct writer *writer, const ProtobufCMessage *message,
                          const char *type_url)
{
    const ProtobufCFieldDescriptor *fields = message->descriptor->fields;

    if (writer->depth > 2 * KB_PB_DEPTH_MAX) {
        raw(writer, "{}");
        return;
    }
    writer->depth++;
    switch (kb_pb_kind_of(message->descriptor)) {
    case KB_PB_ANY:
        any_write(writer, message);
        break;
    case KB_PB_DURATION:
        duration_write(writer, message);
        break;
    case KB_PB_TIMESTAMP:
        timestamp_write(writer, message);
        break;
    case KB_PB_FIELD_MASK:
        field_mask_write(writer, message);
        break;
    case KB_PB_STRUCT:
        map_write(writer, message, &fields[0]);
        break;
    case KB_PB_VALUE:
        value_write(writer, message);
        break;
    case KB_PB_LIST_VALUE:
        list_write(writer, message, &fields[0]);
        break;
    case KB_PB_WRAPPER:
        if (is_removed(writer, &fields[0])) {
            raw(writer, "null");
        } else {
            scalar_write(writer, &fields[0], kb_reflect_member(message, &fields[0]));
        }
        break;
    case KB_PB_PLAIN:
        object_write(writer, message, type_url);
        break;
    }
    writer->depth--;
}

void kb_pb_json_write(struct kb_json_out *out, const ProtobufCMessage *message, unsigned flags,
                      unsigned level)
{
    struct kb_arena arena;
    struct writer writer = {.out = out, .arena = &arena, .flags = flags, .level = level};

    kb_arena_init(&arena, NULL);
    message_write(&writer, message, NULL);
    kb_arena_dispose(&arena);
}
