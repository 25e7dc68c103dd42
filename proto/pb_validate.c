/* SPDX-License-Identifier: Apache-2.0 */
/* Walks a message and holds every field against its rows of checks, which tools/proto/rules.py made
 * from the validate.rules of the official descriptors. Also Envoy's own check of durations, and
 * deprecated fields. */
#include "proto/pb_validate.h"

#include <string.h>

#include "google/protobuf/duration.pb-c.h"
#include "proto/pb_json_read.h"
#include "proto/reflect.h"
#include "proto/validate_value.h"

#include "rules.inc"

struct walker {
    struct kb_diag *diag;
    uint32_t errors_before;
};

/* First row of the field's checks; the row 0 ends at once. */
static const struct kb_pb_check *checks_of(const ProtobufCFieldDescriptor *field)
{
    return &checks[(uintptr_t)field->reserved3];
}

static bool has_check(const struct kb_pb_check *row, enum kb_pb_check_op op, enum kb_pb_at at)
{
    for (; row->op != KB_PB_CHECK_END; row++) {
        if (row->op == op && row->at == at) {
            return true;
        }
    }
    return false;
}

static void message_walk(struct walker *walker, const ProtobufCMessage *message);

static void duration_check(struct walker *walker, const ProtobufCMessage *message)
{
    const Google__Protobuf__Duration *duration =
        (const Google__Protobuf__Duration *)(const void *)message;

    if (duration->seconds < 0 || duration->nanos < 0) {
        kb_diag_error(walker->diag, "Invalid duration: Expected positive duration");
    } else if (duration->nanos > 999999999) {
        kb_diag_error(walker->diag, "Invalid duration: Duration out-of-range");
    } else if (duration->seconds > INT64_MAX / 1000000000 - 1) {
        kb_diag_error(walker->diag, "Invalid duration: Duration out-of-range");
    }
}

/* A message in a field: present, or required. */
static void embedded_check(struct walker *walker, const ProtobufCFieldDescriptor *field,
                           const struct kb_pb_check *rows, enum kb_pb_at at,
                           const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = kb_reflect_type(field);
    enum kb_pb_kind kind = kb_pb_kind_of(type);

    if (message == NULL) {
        if (has_check(rows, KB_PB_CHECK_REQUIRED, at)) {
            kb_diag_error(walker->diag, "value is required");
        }
        return;
    }
    if (kind == KB_PB_WRAPPER) {
        const ProtobufCFieldDescriptor *value = &type->fields[0];

        kb_validate_value(walker->diag, value, rows, at, kb_reflect_member(message, value),
                          check_text);
    } else if (kind == KB_PB_DURATION) {
        duration_check(walker, message);
        kb_validate_value(walker->diag, field, rows, at, message, check_text);
    } else if (!has_check(rows, KB_PB_CHECK_SKIP, at)) {
        message_walk(walker, message);
    }
}

static void value_check(struct walker *walker, const ProtobufCFieldDescriptor *field,
                        const struct kb_pb_check *rows, enum kb_pb_at at, const void *slot)
{
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        embedded_check(walker, field, rows, at, *(const ProtobufCMessage *const *)slot);
    } else {
        kb_validate_value(walker->diag, field, rows, at, slot, check_text);
    }
}

static void map_check(struct walker *walker, const ProtobufCFieldDescriptor *field,
                      const struct kb_pb_check *rows, const ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *key = kb_reflect_map_key(field);
    const ProtobufCFieldDescriptor *value = kb_reflect_map_value(field);
    ProtobufCMessage **entries = kb_reflect_messages(message, field);
    size_t count = *kb_reflect_count(message, field);

    kb_diag_push(walker->diag, field->name);
    kb_validate_count(walker->diag, rows, count);
    for (size_t i = 0; i < count; i++) {
        const void *key_slot = kb_reflect_member(entries[i], key);
        bool named = key->type == PROTOBUF_C_TYPE_STRING;

        kb_diag_push_key(walker->diag,
                         named ? kb_str_from_cstr(*(const char *const *)key_slot) : KB_STR(""));
        value_check(walker, key, rows, KB_PB_AT_KEY, key_slot);
        value_check(walker, value, rows, KB_PB_AT_VALUE, kb_reflect_member(entries[i], value));
        kb_diag_pop(walker->diag);
    }
    kb_diag_pop(walker->diag);
}

static void list_check(struct walker *walker, const ProtobufCFieldDescriptor *field,
                       const struct kb_pb_check *rows, const ProtobufCMessage *message)
{
    const char *items = *(const char *const *)kb_reflect_member(message, field);
    size_t count = *kb_reflect_count(message, field);
    size_t size = kb_reflect_size(field->type);

    if (rows->op != KB_PB_CHECK_END) {
        kb_diag_push(walker->diag, field->name);
        kb_validate_count(walker->diag, rows, count);
        if (has_check(rows, KB_PB_CHECK_UNIQUE, KB_PB_AT_FIELD)) {
            kb_validate_unique(walker->diag, field, items, count);
        }
        kb_diag_pop(walker->diag);
    } else if (field->type != PROTOBUF_C_TYPE_MESSAGE) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        kb_diag_push_index(walker->diag, field->name, i);
        value_check(walker, field, rows, KB_PB_AT_ITEM, items + i * size);
        kb_diag_pop(walker->diag);
    }
}

static void marks_check(struct walker *walker, const ProtobufCMessage *message,
                        const ProtobufCFieldDescriptor *field)
{
    unsigned marks = kb_pb_field_marks(field);

    if ((marks & (KB_PB_DEPRECATED | KB_PB_DISALLOWED)) == 0 || !kb_reflect_has(message, field)) {
        return;
    }
    kb_diag_push(walker->diag, field->name);
    if (marks & KB_PB_DISALLOWED) {
        kb_diag_error(walker->diag, "Using the deprecated and by default disallowed option '%s.%s'",
                      message->descriptor->name, field->name);
    } else {
        kb_diag_warning(walker->diag, "Using deprecated option '%s.%s'", message->descriptor->name,
                        field->name);
    }
    kb_diag_pop(walker->diag);
}

static void field_check(struct walker *walker, const ProtobufCMessage *message,
                        const ProtobufCFieldDescriptor *field)
{
    const struct kb_pb_check *rows = checks_of(field);

    if (kb_reflect_repeated(field)) {
        if (kb_pb_field_marks(field) & KB_PB_MAP) {
            map_check(walker, field, rows, message);
        } else {
            list_check(walker, field, rows, message);
        }
    } else if (!kb_reflect_in_oneof(field) || *kb_reflect_case(message, field) == field->id) {
        if (rows->op == KB_PB_CHECK_END && field->type != PROTOBUF_C_TYPE_MESSAGE) {
            return;
        }
        kb_diag_push(walker->diag, field->name);
        value_check(walker, field, rows, KB_PB_AT_FIELD, kb_reflect_member(message, field));
        kb_diag_pop(walker->diag);
    }
}

/* A oneof that must be set: names it, and what it can be. */
static void oneof_check(struct walker *walker, const ProtobufCMessage *message,
                        const struct kb_pb_required *row)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    const ProtobufCFieldDescriptor *member = &type->fields[row->field - 1];
    struct kb_str names = KB_STR_NULL;

    if (*kb_reflect_case(message, member) != 0) {
        return;
    }
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];

        if (kb_reflect_in_oneof(field) && field->quantifier_offset == member->quantifier_offset &&
            (kb_pb_field_marks(field) & KB_PB_DEPRECATED) == 0) {
            names = names.len == 0 ? kb_str_from_cstr(field->name)
                                   : kb_str_printf(&walker->diag->arena, "%.*s, %s",
                                                   KB_STR_ARG(names), field->name);
        }
    }
    kb_diag_error_hint(walker->diag,
                       kb_str_printf(&walker->diag->arena, "set one of %.*s", KB_STR_ARG(names)),
                       "%s is required", check_text + row->text);
}

/* What came over the wire and the message does not have. */
static void unknown_check(struct walker *walker, const ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->n_unknown_fields; i++) {
        unsigned number = message->unknown_fields[i].tag;

        if (walker->diag->unknown_fields_warn) {
            kb_diag_warning(walker->diag, "no such field: number %u in %s; it is left out", number,
                            message->descriptor->name);
        } else {
            kb_diag_error(walker->diag, "no such field: number %u in %s", number,
                          message->descriptor->name);
        }
    }
}

static void message_walk(struct walker *walker, const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    const struct kb_pb_required *required = &required_oneofs[(uintptr_t)type->reserved2];

    unknown_check(walker, message);
    for (; required->field != 0; required++) {
        oneof_check(walker, message, required);
    }
    for (unsigned i = 0; i < type->n_fields; i++) {
        marks_check(walker, message, &type->fields[i]);
        field_check(walker, message, &type->fields[i]);
    }
}

int kb_pb_validate(const ProtobufCMessage *message, struct kb_diag *diag)
{
    struct walker walker = {.diag = diag, .errors_before = diag->error_count};

    message_walk(&walker, message);
    return diag->error_count == walker.errors_before ? 0 : KB_ECONFIG;
}
