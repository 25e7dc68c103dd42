/* SPDX-License-Identifier: Apache-2.0 */
/* One value against its checks, and the words for what is wrong with it (those of Envoy's
 * validators). */
#include "proto/validate_value.h"

#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/regex.h"
#include "google/protobuf/duration.pb-c.h"
#include "proto/reflect.h"

#define BOUND_TEXT_MAX 64

/* The value as the checks see it. */
struct value {
    enum { INTEGER, REAL, TEXT, NANOS } kind;
    int64_t number;
    double real;
    struct kb_str text;
    bool is_bytes;
};

struct bounds {
    const struct kb_pb_check *low;  /* GT or GTE */
    const struct kb_pb_check *high; /* LT or LTE */
};

static struct value value_of(const ProtobufCFieldDescriptor *field, const void *slot)
{
    struct value value = {.kind = INTEGER};

    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_BOOL:
        value.number = *(const int32_t *)slot;
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        value.number = *(const uint32_t *)slot;
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        value.number = *(const int64_t *)slot;
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        /* no bound in the descriptors is above INT64_MAX */
        value.number = (int64_t)KB_MIN(*(const uint64_t *)slot, (uint64_t)INT64_MAX);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        value.kind = REAL;
        value.real = (double)*(const float *)slot;
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        value.kind = REAL;
        value.real = *(const double *)slot;
        break;
    case PROTOBUF_C_TYPE_STRING:
        value.kind = TEXT;
        value.text = kb_str_from_cstr(*(const char *const *)slot);
        break;
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *bytes = slot;

        value.kind = TEXT;
        value.is_bytes = true;
        value.text = kb_str_make((const char *)bytes->data, bytes->len);
        break;
    }
    case PROTOBUF_C_TYPE_MESSAGE: {
        const Google__Protobuf__Duration *duration = slot;

        value.kind = NANOS;
        value.number = duration->seconds > INT64_MAX / 1000000000 - 1 ? INT64_MAX
                       : duration->seconds < INT64_MIN / 1000000000 + 1
                           ? INT64_MIN
                           : duration->seconds * 1000000000 + duration->nanos;
        break;
    }
    default:
        break;
    }
    return value;
}

/* A duration as Envoy writes it in these messages: 1ms, 1.5s, 5m0s, 1h0m0s. */
static void nanos_format(int64_t nanos, char *out, size_t cap)
{
    static const struct {
        int64_t nanos;
        const char *name;
    } units[] = {{1000000000, "s"}, {1000000, "ms"}, {1000, "us"}, {1, "ns"}};
    int64_t seconds = nanos / 1000000000;

    if (nanos == 0) {
        snprintf(out, cap, "0s");
    } else if (seconds >= 3600) {
        snprintf(out, cap, "%lldh%lldm%llds", (long long)(seconds / 3600),
                 (long long)(seconds / 60 % 60), (long long)(seconds % 60));
    } else if (seconds >= 60) {
        snprintf(out, cap, "%lldm%llds", (long long)(seconds / 60), (long long)(seconds % 60));
    } else {
        size_t i = 0;

        while (i + 1 < KB_ARRAY_LEN(units) && nanos < units[i].nanos) {
            i++;
        }
        snprintf(out, cap, "%g%s", (double)nanos / (double)units[i].nanos, units[i].name);
    }
}

static const char *bound_format(const struct value *value, const struct kb_pb_check *row, char *out)
{
    if (value->kind == REAL) {
        snprintf(out, BOUND_TEXT_MAX, "%g", row->real);
    } else if (value->kind == NANOS) {
        nanos_format(row->number, out, BOUND_TEXT_MAX);
    } else {
        snprintf(out, BOUND_TEXT_MAX, "%lld", (long long)row->number);
    }
    return out;
}

/* <0, 0, >0 as the value is below, at or above the bound. A NaN is above everything and below
 * nothing. */
static int bound_cmp(const struct value *value, const struct kb_pb_check *row)
{
    if (value->kind == REAL) {
        return value->real < row->real ? -1 : value->real == row->real ? 0 : 1;
    }
    return value->number < row->number ? -1 : value->number > row->number;
}

static void bounds_check(struct kb_diag *diag, const struct value *value, struct bounds bounds)
{
    bool low_bad = bounds.low != NULL &&
                   (bound_cmp(value, bounds.low) < 0 ||
                    (bounds.low->op == KB_PB_CHECK_GT && bound_cmp(value, bounds.low) == 0));
    bool high_bad = bounds.high != NULL &&
                    (bound_cmp(value, bounds.high) > 0 ||
                     (bounds.high->op == KB_PB_CHECK_LT && bound_cmp(value, bounds.high) == 0));
    char low[BOUND_TEXT_MAX];
    char high[BOUND_TEXT_MAX];

    if (!low_bad && !high_bad) {
        return;
    }
    if (bounds.low != NULL && bounds.high != NULL) {
        kb_diag_error(diag, "value must be inside range %c%s, %s%c",
                      bounds.low->op == KB_PB_CHECK_GT ? '(' : '[',
                      bound_format(value, bounds.low, low), bound_format(value, bounds.high, high),
                      bounds.high->op == KB_PB_CHECK_LT ? ')' : ']');
    } else if (low_bad) {
        kb_diag_error(diag, "value must be greater than %s%s",
                      bounds.low->op == KB_PB_CHECK_GTE ? "or equal to " : "",
                      bound_format(value, bounds.low, low));
    } else {
        kb_diag_error(diag, "value must be less than %s%s",
                      bounds.high->op == KB_PB_CHECK_LTE ? "or equal to " : "",
                      bound_format(value, bounds.high, high));
    }
}

static size_t characters(struct kb_str text)
{
    size_t count = 0;

    for (size_t i = 0; i < text.len; i++) {
        count += ((unsigned char)text.p[i] & 0xc0) != 0x80;
    }
    return count;
}

static bool is_header_name(struct kb_str text)
{
    struct kb_str rest = kb_str_from(text, text.len > 0 && text.p[0] == ':' ? 1 : 0);

    for (size_t i = 0; i < rest.len; i++) {
        char c = rest.p[i];
        bool letter = kb_ascii_lower(c) >= 'a' && kb_ascii_lower(c) <= 'z';

        /* "+-." in Envoy's pattern is a range, which has the comma in it */
        if (!letter && !kb_ascii_is_digit(c) &&
            (c == '\0' || strchr("!#$%&'*+,-.^_|~`", c) == NULL)) {
            return false;
        }
    }
    return rest.len > 0;
}

static bool is_header_value(struct kb_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.p[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool is_without_line_break(struct kb_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.p[i] == '\0' || text.p[i] == '\n' || text.p[i] == '\r') {
            return false;
        }
    }
    return true;
}

static void well_known_check(struct kb_diag *diag, const struct value *value, int64_t which,
                             bool lenient)
{
    bool name = which == 1;
    const char *pattern = lenient ? "^[^\\x00\\n\\r]*$"
                          : name  ? "^:?[0-9a-zA-Z!#$%&'*+-.^_|~`]+$"
                                  : "^[^\\x00-\\b\\n-\\x1f\\x7f]*$";
    bool good = lenient ? is_without_line_break(value->text)
                : name  ? is_header_name(value->text)
                        : is_header_value(value->text);

    if (!good) {
        kb_diag_error(diag, "value does not match regex pattern \"%s\"", pattern);
    }
}

static void pattern_check(struct kb_diag *diag, const struct value *value, const char *pattern)
{
    struct kb_str error = KB_STR_NULL;
    struct kb_regex *regex = kb_regex_create(kb_str_from_cstr(pattern), &diag->arena, &error);

    if (KB_BUG_IF(regex == NULL)) {
        return;
    }
    if (!kb_regex_partial_match(regex, value->text)) {
        kb_diag_error(diag, "value does not match regex pattern \"%s\"", pattern);
    }
    kb_regex_destroy(regex);
}

/* Whether the text is one of those that stand one after the other. */
static bool is_listed(struct kb_str text, const char *list, int64_t count)
{
    for (; count > 0; count--) {
        struct kb_str one = kb_str_from_cstr(list);

        if (kb_str_eq(text, one)) {
            return true;
        }
        list += one.len + 1;
    }
    return false;
}

static void list_error(struct kb_diag *diag, const char *list, int64_t count, bool in)
{
    struct kb_str names = KB_STR_NULL;

    for (; count > 0; count--) {
        names =
            kb_str_printf(&diag->arena, "%.*s%s%s", KB_STR_ARG(names), names.len ? " " : "", list);
        list += strlen(list) + 1;
    }
    kb_diag_error(diag, "value must%s be in list [%.*s]", in ? "" : " not", KB_STR_ARG(names));
}

static void text_check(struct kb_diag *diag, const struct value *value,
                       const struct kb_pb_check *row, const char *text)
{
    size_t length = value->is_bytes ? value->text.len : characters(value->text);
    size_t bound = (size_t)row->number;
    struct kb_str part = kb_str_from_cstr(text);

    if (row->op == KB_PB_CHECK_MIN_LEN && length < bound) {
        kb_diag_error(diag, "value length must be at least %zu characters", bound);
    } else if (row->op == KB_PB_CHECK_MAX_LEN && length > bound) {
        kb_diag_error(diag, "value length must be at most %zu characters", bound);
    } else if (row->op == KB_PB_CHECK_MIN_BYTES && value->text.len < bound) {
        kb_diag_error(diag, "value length must be at least %zu bytes", bound);
    } else if (row->op == KB_PB_CHECK_MAX_BYTES && value->text.len > bound) {
        kb_diag_error(diag, "value length must be at most %zu bytes", bound);
    } else if (row->op == KB_PB_CHECK_PREFIX && !kb_str_starts_with(value->text, part)) {
        kb_diag_error(diag, "value does not have prefix \"%s\"", text);
    } else if (row->op == KB_PB_CHECK_SUFFIX && !kb_str_ends_with(value->text, part)) {
        kb_diag_error(diag, "value does not have suffix \"%s\"", text);
    } else if (row->op == KB_PB_CHECK_CONTAINS && kb_str_find(value->text, part) < 0) {
        kb_diag_error(diag, "value does not contain substring \"%s\"", text);
    } else if (row->op == KB_PB_CHECK_PATTERN) {
        pattern_check(diag, value, text);
    } else if (row->op == KB_PB_CHECK_TEXT_IN && !is_listed(value->text, text, row->number)) {
        list_error(diag, text, row->number, true);
    } else if (row->op == KB_PB_CHECK_TEXT_NOT_IN && is_listed(value->text, text, row->number)) {
        list_error(diag, text, row->number, false);
    }
}

static bool enum_defined(const ProtobufCEnumDescriptor *type, int64_t number)
{
    for (unsigned i = 0; i < type->n_values; i++) {
        if (type->values[i].value == number) {
            return true;
        }
    }
    return false;
}

static bool is_empty(const struct value *value)
{
    return value->kind == TEXT   ? value->text.len == 0
           : value->kind == REAL ? value->real == 0
                                 : value->number == 0;
}

/* What several rows say together. */
struct summary {
    struct bounds bounds;
    const struct kb_pb_check *well_known;
    bool lenient;
    bool ignore_empty;
    bool has_in;
    bool is_in;
};

static struct summary rows_sum(const struct value *value, const struct kb_pb_check *rows,
                               enum kb_pb_at at)
{
    struct summary sum = {0};

    for (const struct kb_pb_check *row = rows; row->op != KB_PB_CHECK_END; row++) {
        if (row->at != at) {
            continue;
        }
        if (row->op == KB_PB_CHECK_GT || row->op == KB_PB_CHECK_GTE) {
            sum.bounds.low = row;
        } else if (row->op == KB_PB_CHECK_LT || row->op == KB_PB_CHECK_LTE) {
            sum.bounds.high = row;
        } else if (row->op == KB_PB_CHECK_WELL_KNOWN) {
            sum.well_known = row;
        } else if (row->op == KB_PB_CHECK_LENIENT) {
            sum.lenient = true;
        } else if (row->op == KB_PB_CHECK_IGNORE_EMPTY) {
            sum.ignore_empty = true;
        } else if (row->op == KB_PB_CHECK_IN) {
            sum.has_in = true;
            sum.is_in = sum.is_in || value->number == row->number;
        }
    }
    return sum;
}

static void equal_error(struct kb_diag *diag, const ProtobufCFieldDescriptor *field, int64_t number)
{
    if (field->type == PROTOBUF_C_TYPE_BOOL) {
        kb_diag_error(diag, "value must equal %s", number != 0 ? "true" : "false");
    } else {
        kb_diag_error(diag, "value must equal %lld", (long long)number);
    }
}

void kb_validate_value(struct kb_diag *diag, const ProtobufCFieldDescriptor *field,
                       const struct kb_pb_check *rows, enum kb_pb_at at, const void *slot,
                       const char *check_text)
{
    struct value value = value_of(field, slot);
    struct summary sum = rows_sum(&value, rows, at);

    if (rows->op == KB_PB_CHECK_END || (sum.ignore_empty && is_empty(&value))) {
        return;
    }
    bounds_check(diag, &value, sum.bounds);
    if (sum.well_known != NULL) {
        well_known_check(diag, &value, sum.well_known->number, sum.lenient);
    }
    if (sum.has_in && !sum.is_in) {
        kb_diag_error(diag, "value must be in list");
    }
    for (const struct kb_pb_check *row = rows; row->op != KB_PB_CHECK_END; row++) {
        if (row->at != at) {
            continue;
        }
        if (value.kind == TEXT) {
            text_check(diag, &value, row, check_text + row->text);
        } else if (row->op == KB_PB_CHECK_EQUAL && value.number != row->number) {
            equal_error(diag, field, row->number);
        } else if (row->op == KB_PB_CHECK_NOT_IN && value.number == row->number) {
            kb_diag_error(diag, "value must not be in list [%lld]", (long long)row->number);
        } else if (row->op == KB_PB_CHECK_DEFINED_ONLY &&
                   !enum_defined(field->descriptor, value.number)) {
            kb_diag_error(diag, "value must be one of the defined enum values");
        }
    }
}

void kb_validate_count(struct kb_diag *diag, const struct kb_pb_check *rows, size_t count)
{
    for (; rows->op != KB_PB_CHECK_END; rows++) {
        unsigned long long bound = (unsigned long long)rows->number;

        if (rows->at != KB_PB_AT_FIELD) {
            continue;
        }
        if (rows->op == KB_PB_CHECK_MIN_ITEMS && count < bound) {
            kb_diag_error(diag, "value must contain at least %llu item(s)", bound);
        } else if (rows->op == KB_PB_CHECK_MAX_ITEMS && count > bound) {
            kb_diag_error(diag, "value must contain no more than %llu item(s)", bound);
        } else if (rows->op == KB_PB_CHECK_MIN_PAIRS && count < bound) {
            kb_diag_error(diag, "value must contain at least %llu pair(s)", bound);
        } else if (rows->op == KB_PB_CHECK_MAX_PAIRS && count > bound) {
            kb_diag_error(diag, "value must contain no more than %llu pair(s)", bound);
        }
    }
}

void kb_validate_unique(struct kb_diag *diag, const ProtobufCFieldDescriptor *field,
                        const char *items, size_t count)
{
    size_t size = kb_reflect_size(field->type);
    struct kb_map seen;
    bool twice = false;

    kb_map_init(&seen);
    for (size_t i = 0; i < count && !twice; i++) {
        const char *item = items + i * size;
        struct kb_str key = field->type == PROTOBUF_C_TYPE_STRING
                                ? kb_str_from_cstr(*(const char *const *)item)
                                : kb_str_make(item, size);

        twice = kb_map_put(&seen, key, (void *)(uintptr_t)item) != NULL;
    }
    kb_map_dispose(&seen);
    if (twice) {
        kb_diag_error(diag, "repeated value must contain unique items");
    }
}
