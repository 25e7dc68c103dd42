/* SPDX-License-Identifier: Apache-2.0 */
/* Values to scalars: numbers (also as text), text, bytes, enums, and durations, timestamps and
 * field masks, which are text in JSON. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "proto/pb_json_read.h"
#include "proto/reflect.h"
#include "proto/suggest.h"

#define NUMBER_LEN_MAX       400
#define NANOS_PER_S          1000000000
#define DURATION_SECONDS_MAX 315576000000LL

/* The literal of a number, or of text that looks like one, as a C string. */
static bool number_text(const struct kb_doc_node *node, char out[NUMBER_LEN_MAX + 1])
{
    struct kb_str text = kb_doc_text(node);

    if ((node->kind != KB_DOC_NUMBER && node->kind != KB_DOC_STRING) || text.len == 0 ||
        text.len > NUMBER_LEN_MAX || memchr(text.p, '\0', text.len) != NULL || text.p[0] == ' ' ||
        text.p[0] == '\t' || text.p[0] == '\n') {
        return false;
    }
    memcpy(out, text.p, text.len);
    out[text.len] = '\0';
    return true;
}

static bool double_from_text(const char *text, double *out)
{
    char *end = NULL;

    *out = strtod(text, &end);
    return end != text && *end == '\0';
}

/* An integer from low to high (both within 64 bits); decimal, or a whole number in any form. */
static int integer_read(struct kb_pb_reader *reader, const struct kb_doc_node *node, bool is_signed,
                        unsigned bits, uint64_t *out)
{
    uint64_t max = bits == 64  ? (is_signed ? INT64_MAX : UINT64_MAX)
                   : is_signed ? INT32_MAX
                               : UINT32_MAX;
    char text[NUMBER_LEN_MAX + 1];
    double real;
    char *end = NULL;

    if (!number_text(node, text)) {
        return KB_PB_FAIL(reader, node, "expected a whole number, not %s",
                          node->kind == KB_DOC_STRING ? "this text" : kb_doc_kind_name(node));
    }
    errno = 0;
    if (text[0] == '-') {
        long long value = strtoll(text, &end, 10);

        if (errno == 0 && *end == '\0' && is_signed && (bits == 64 || value >= INT32_MIN)) {
            *out = (uint64_t)value;
            return 0;
        }
    } else {
        *out = strtoull(text, &end, 10);
        if (errno == 0 && *end == '\0' && *out <= max) {
            return 0;
        }
    }
    if (!double_from_text(text, &real) || real != floor(real)) {
        return KB_PB_FAIL(reader, node, "'%s' is not a whole number", text);
    }
    /* as in Envoy, what is written as a fraction ends at int64 for uint64, too */
    if (!(real >= (is_signed ? -(double)max - 1 : 0.0)) || !(real <= (double)max) ||
        real >= 9223372036854775808.0) {
        return KB_PB_FAIL(reader, node, "%s is out of the range of %s", text,
                          is_signed ? (bits == 64 ? "int64" : "int32")
                                    : (bits == 64 ? "uint64" : "uint32"));
    }
    *out = is_signed ? (uint64_t)(int64_t)real : (uint64_t)real;
    return 0;
}

/* Text may have spaces around its digits. */
static int real_read(struct kb_pb_reader *reader, const struct kb_doc_node *node, double *out)
{
    struct kb_doc_node trimmed = *node;
    char text[NUMBER_LEN_MAX + 1];
    bool spaces = false;

    if (node->kind == KB_DOC_STRING) {
        struct kb_str digits = kb_str_trim(kb_doc_text(node));

        spaces = digits.len != node->len;
        trimmed.text = digits.p;
        trimmed.len = (uint32_t)digits.len;
    }
    if (!number_text(&trimmed, text) || !double_from_text(text, out) ||
        (spaces && !isfinite(*out))) {
        return KB_PB_FAIL(reader, node, "expected a number, not %s",
                          node->kind == KB_DOC_STRING ? "this text" : kb_doc_kind_name(node));
    }
    if (node->kind == KB_DOC_NUMBER && isinf(*out)) {
        return KB_PB_FAIL(reader, node, "%s is too large", text);
    }
    return 0;
}

/* The words that Envoy's parser takes for truth, in any case. */
static int bool_from_word(struct kb_str text, protobuf_c_boolean *out)
{
    static const struct kb_str words[2][5] = {
        {KB_STR("false"), KB_STR("f"), KB_STR("no"), KB_STR("n"), KB_STR("0")},
        {KB_STR("true"), KB_STR("t"), KB_STR("yes"), KB_STR("y"), KB_STR("1")},
    };

    for (int truth = 0; truth < 2; truth++) {
        for (size_t i = 0; i < KB_ARRAY_LEN(words[0]); i++) {
            if (kb_str_ieq(text, words[truth][i])) {
                *out = truth;
                return 0;
            }
        }
    }
    return KB_EINVALID;
}

static int bool_read(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                     protobuf_c_boolean *out)
{
    if (node->kind == KB_DOC_BOOL) {
        *out = node->truth;
        return 0;
    }
    if (node->kind == KB_DOC_STRING && bool_from_word(kb_doc_text(node), out) == 0) {
        return 0;
    }
    return KB_PB_FAIL(reader, node, "expected 'true' or 'false', not %s",
                      node->kind == KB_DOC_STRING ? "this text" : kb_doc_kind_name(node));
}

static int text_read(struct kb_pb_reader *reader, const struct kb_doc_node *node, char **out)
{
    struct kb_str text = kb_doc_text(node);

    if (node->kind != KB_DOC_STRING) {
        struct kb_str hint = node->kind == KB_DOC_LIST || node->kind == KB_DOC_MAP
                                 ? KB_STR_NULL
                                 : KB_STR("put it in quotes");

        reader->here = node;
        reader->here_is_key = false;
        kb_diag_error_hint(reader->diag, hint, "expected text, not %s", kb_doc_kind_name(node));
        return KB_ECONFIG;
    }
    if (text.len > 0 && memchr(text.p, '\0', text.len) != NULL) {
        return KB_PB_FAIL(reader, node, "text with a NUL character in it is not supported");
    }
    *out = (char *)(uintptr_t)kb_str_dup(reader->arena, text).p;
    return 0;
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

/* Base64 in the standard or the URL alphabet; '=' at the end may be left out, not miscounted. */
static int bytes_read(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                      ProtobufCBinaryData *out)
{
    struct kb_str text = kb_doc_text(node);
    size_t padding = 0;
    uint32_t held = 0;

    if (node->kind != KB_DOC_STRING) {
        return KB_PB_FAIL(reader, node, "expected base64 text, not %s", kb_doc_kind_name(node));
    }
    while (text.len > 0 && padding < 2 && text.p[text.len - 1] == '=') {
        text.len--;
        padding++;
    }
    if (text.len % 4 == 1 || (padding > 0 && (text.len + padding) % 4 != 0)) {
        return KB_PB_FAIL(reader, node, "corrupt base64: wrong length");
    }
    out->data = kb_arena_alloc(reader->arena, text.len / 4 * 3 + 4, 1);
    out->len = 0;
    for (size_t i = 0; i < text.len; i++) {
        int digit = base64_digit(text.p[i]);

        if (digit < 0) {
            return KB_PB_FAIL(reader, node, "corrupt base64: unexpected character at %zu", i + 1);
        }
        held = held << 6 | (uint32_t)digit;
        if (i % 4 == 1) {
            out->data[out->len++] = (uint8_t)(held >> 4);
        } else if (i % 4 == 2) {
            out->data[out->len++] = (uint8_t)(held >> 2);
        } else if (i % 4 == 3) {
            out->data[out->len++] = (uint8_t)held;
        }
    }
    return 0;
}

static int enum_unknown(struct kb_pb_reader *reader, const ProtobufCEnumDescriptor *type,
                        const struct kb_doc_node *node)
{
    struct kb_str text = kb_doc_text(node);
    struct kb_suggest suggest;

    kb_suggest_init(&suggest, text);
    for (unsigned i = 0; i < type->n_values; i++) {
        kb_suggest_offer(&suggest, kb_str_from_cstr(type->values[i].name));
    }
    reader->here = node;
    reader->here_is_key = false;
    if (reader->unknown == KB_PB_UNKNOWN_ERROR) {
        struct kb_str hint = suggest.best.len == 0
                                 ? KB_STR_NULL
                                 : kb_str_printf(&reader->diag->arena, "did you mean '%.*s'?",
                                                 KB_STR_ARG(suggest.best));

        kb_diag_error_hint(reader->diag, hint, "unknown enum value: '%.*s' of %s", KB_STR_ARG(text),
                           type->name);
        return KB_ECONFIG;
    }
    if (reader->unknown == KB_PB_UNKNOWN_WARN) {
        kb_diag_warning(reader->diag, "unknown enum value: '%.*s' of %s; it is left out",
                        KB_STR_ARG(text), type->name);
    }
    return 0;
}

static int enum_read(struct kb_pb_reader *reader, const ProtobufCEnumDescriptor *type,
                     const struct kb_doc_node *node, uint32_t *out)
{
    struct kb_str text = kb_doc_text(node);
    uint64_t number;
    char digits[NUMBER_LEN_MAX + 1];
    double real;

    if (node->kind == KB_DOC_STRING) {
        for (unsigned i = 0; i < type->n_values; i++) {
            if (kb_str_ieq(text, kb_str_from_cstr(type->values[i].name))) {
                *out = (uint32_t)type->values[i].value;
                return 0;
            }
        }
        /* protobuf-c keeps one name for each number; the others are in the list by name */
        for (unsigned i = 0; i < type->n_value_names; i++) {
            if (kb_str_ieq(text, kb_str_from_cstr(type->values_by_name[i].name))) {
                *out = (uint32_t)type->values[type->values_by_name[i].index].value;
                return 0;
            }
        }
        if (!number_text(node, digits) || !double_from_text(digits, &real)) {
            return enum_unknown(reader, type, node);
        }
    } else if (node->kind != KB_DOC_NUMBER) {
        return KB_PB_FAIL(reader, node, "expected the name of a value of %s, not %s", type->name,
                          kb_doc_kind_name(node));
    }
    KB_TRY(integer_read(reader, node, true, 32, &number));
    *out = (uint32_t)number;
    return 0;
}

int kb_pb_read_scalar(struct kb_pb_reader *reader, const ProtobufCFieldDescriptor *field,
                      const struct kb_doc_node *node, void *slot)
{
    uint64_t number = 0;
    double real = 0;

    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        KB_TRY(integer_read(reader, node, true, 32, &number));
        *(uint32_t *)slot = (uint32_t)number;
        return 0;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        KB_TRY(integer_read(reader, node, false, 32, &number));
        *(uint32_t *)slot = (uint32_t)number;
        return 0;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return integer_read(reader, node, true, 64, slot);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return integer_read(reader, node, false, 64, slot);
    case PROTOBUF_C_TYPE_DOUBLE:
        return real_read(reader, node, slot);
    case PROTOBUF_C_TYPE_FLOAT:
        KB_TRY(real_read(reader, node, &real));
        *(float *)slot = (float)real;
        return 0;
    case PROTOBUF_C_TYPE_BOOL:
        return bool_read(reader, node, slot);
    case PROTOBUF_C_TYPE_ENUM:
        return enum_read(reader, field->descriptor, node, slot);
    case PROTOBUF_C_TYPE_STRING:
        return text_read(reader, node, slot);
    case PROTOBUF_C_TYPE_BYTES:
        return bytes_read(reader, node, slot);
    case PROTOBUF_C_TYPE_MESSAGE:
    default:
        break;
    }
    return KB_EINVALID;
}

/* Takes digits off the front; false when there are none or they do not fit. */
static bool digits_take(struct kb_str *rest, size_t max, int64_t *out)
{
    size_t i = 0;

    *out = 0;
    while (i < rest->len && kb_ascii_is_digit(rest->p[i])) {
        if (i >= max) {
            return false;
        }
        *out = *out * 10 + (rest->p[i++] - '0');
    }
    *rest = kb_str_from(*rest, i);
    return i > 0;
}

static bool char_take(struct kb_str *rest, char c)
{
    if (rest->len == 0 || rest->p[0] != c) {
        return false;
    }
    *rest = kb_str_from(*rest, 1);
    return true;
}

/* ".5" and the like as nanoseconds; nothing is 0. */
static bool nanos_take(struct kb_str *rest, int32_t *out)
{
    size_t before;
    int64_t digits;

    *out = 0;
    if (!char_take(rest, '.')) {
        return true;
    }
    before = rest->len;
    if (!digits_take(rest, 9, &digits)) {
        return false;
    }
    for (size_t i = before - rest->len; i < 9; i++) {
        digits *= 10;
    }
    *out = (int32_t)digits;
    return true;
}

int kb_pb_read_duration(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                        ProtobufCMessage *message)
{
    Google__Protobuf__Duration *duration = (Google__Protobuf__Duration *)(void *)message;
    struct kb_str text = kb_doc_text(node);
    bool negative;

    if (node->kind != KB_DOC_STRING) {
        return KB_PB_FAIL(reader, node, "expected a duration such as \"1.5s\", not %s",
                          kb_doc_kind_name(node));
    }
    negative = char_take(&text, '-');
    if (!digits_take(&text, 15, &duration->seconds)) {
        return KB_PB_FAIL(reader, node, "duration must start with an integer");
    }
    if (duration->seconds > DURATION_SECONDS_MAX) {
        return KB_PB_FAIL(reader, node, "duration out of range");
    }
    if (!nanos_take(&text, &duration->nanos)) {
        return KB_PB_FAIL(reader, node, "duration had bad nanoseconds");
    }
    if (!kb_str_eq(text, KB_STR("s"))) {
        return KB_PB_FAIL(reader, node, "duration must end with a single 's'");
    }
    if (negative) {
        duration->seconds = -duration->seconds;
        duration->nanos = -duration->nanos;
    }
    return 0;
}

/* Days from 1970-01-01 to a date of the proleptic Gregorian calendar. */
static int64_t days_from_date(int64_t year, int64_t month, int64_t day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = y / 400;
    int64_t in_era = y - era * 400;
    int64_t in_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719468;
}

/* "+01:00" or "Z" as seconds to take off. */
static bool offset_take(struct kb_str *rest, int64_t *out)
{
    int64_t hours;
    int64_t minutes;
    bool east;

    *out = 0;
    if (char_take(rest, 'Z')) {
        return true;
    }
    east = char_take(rest, '+');
    if ((!east && !char_take(rest, '-')) || !digits_take(rest, 2, &hours) ||
        !char_take(rest, ':') || !digits_take(rest, 2, &minutes) || hours > 23 || minutes > 59) {
        return false;
    }
    *out = (hours * 60 + minutes) * (east ? 60 : -60);
    return true;
}

/* RFC 3339 section 5.6. */
static bool timestamp_parse(struct kb_str text, Google__Protobuf__Timestamp *timestamp)
{
    int64_t year;
    int64_t month;
    int64_t day;
    int64_t hour;
    int64_t minute;
    int64_t second;
    int64_t offset;
    bool good;

    good = digits_take(&text, 4, &year) && char_take(&text, '-') && digits_take(&text, 2, &month) &&
           char_take(&text, '-') && digits_take(&text, 2, &day) && char_take(&text, 'T') &&
           digits_take(&text, 2, &hour) && char_take(&text, ':') &&
           digits_take(&text, 2, &minute) && char_take(&text, ':') &&
           digits_take(&text, 2, &second) && nanos_take(&text, &timestamp->nanos) &&
           offset_take(&text, &offset) && text.len == 0;
    if (!good || year < 1 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 ||
        minute > 59 || second > 59) {
        return false;
    }
    timestamp->seconds =
        days_from_date(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    return true;
}

int kb_pb_read_timestamp(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                         ProtobufCMessage *message)
{
    if (node->kind != KB_DOC_STRING ||
        !timestamp_parse(kb_doc_text(node), (Google__Protobuf__Timestamp *)(void *)message)) {
        return KB_PB_FAIL(reader, node,
                          "expected a time such as \"2026-01-31T12:00:00Z\" (RFC 3339)");
    }
    return 0;
}

int kb_pb_read_field_mask(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                          ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *paths = &message->descriptor->fields[0];
    struct kb_str rest = kb_doc_text(node);
    struct kb_str path;

    if (node->kind != KB_DOC_STRING) {
        return KB_PB_FAIL(reader, node, "expected field paths with commas between, not %s",
                          kb_doc_kind_name(node));
    }
    while (rest.len > 0 && kb_str_next_token(&rest, ',', &path)) {
        char *snake = kb_arena_alloc(reader->arena, path.len * 2 + 1, 1);
        size_t len = 0;

        for (size_t i = 0; i < path.len; i++) {
            if (path.p[i] >= 'A' && path.p[i] <= 'Z') {
                snake[len++] = '_';
            }
            snake[len++] = kb_ascii_lower(path.p[i]);
        }
        snake[len] = '\0';
        *(char **)kb_reflect_append(message, paths, reader->arena) = snake;
    }
    return 0;
}
