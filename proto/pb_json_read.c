/* SPDX-License-Identifier: Apache-2.0 */
/* Tree to message: objects, lists and maps by their descriptors. Follows the parser of Envoy 1.40
 * (protobuf C++ with its legacy leniencies): one value stands for a list of one, null is an unset
 * field or an empty element, a message named twice merges, a oneof named twice is an error. */
#include "proto/pb_json_read.h"

#include <string.h>

#include "base/map.h"
#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "google/protobuf/wrappers.pb-c.h"
#include "proto/reflect.h"
#include "proto/suggest.h"

#define FIELDS_LISTED_MAX 16

enum kb_pb_kind kb_pb_kind_of(const ProtobufCMessageDescriptor *type)
{
    static const struct {
        const ProtobufCMessageDescriptor *type;
        enum kb_pb_kind kind;
    } kinds[] = {
        {&google__protobuf__any__descriptor, KB_PB_ANY},
        {&google__protobuf__duration__descriptor, KB_PB_DURATION},
        {&google__protobuf__timestamp__descriptor, KB_PB_TIMESTAMP},
        {&google__protobuf__field_mask__descriptor, KB_PB_FIELD_MASK},
        {&google__protobuf__struct__descriptor, KB_PB_STRUCT},
        {&google__protobuf__value__descriptor, KB_PB_VALUE},
        {&google__protobuf__list_value__descriptor, KB_PB_LIST_VALUE},
        {&google__protobuf__double_value__descriptor, KB_PB_WRAPPER},
        {&google__protobuf__float_value__descriptor, KB_PB_WRAPPER},
        {&google__protobuf__int64_value__descriptor, KB_PB_WRAPPER},
        {&google__protobuf__uint64_value__descriptor, KB_PB_WRAPPER},
        {&google__protobuf__int32_value__descriptor, KB_PB_WRAPPER},
        {&google__protobuf__uint32_value__descriptor, KB_PB_WRAPPER},
        {&google__protobuf__bool_value__descriptor, KB_PB_WRAPPER},
        {&google__protobuf__string_value__descriptor, KB_PB_WRAPPER},
        {&google__protobuf__bytes_value__descriptor, KB_PB_WRAPPER},
    };

    if (type->name[0] != 'g') {
        return KB_PB_PLAIN;
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(kinds); i++) {
        if (kinds[i].type == type) {
            return kinds[i].kind;
        }
    }
    return KB_PB_PLAIN;
}

const char *kb_doc_kind_name(const struct kb_doc_node *node)
{
    switch ((enum kb_doc_kind)node->kind) {
    case KB_DOC_NULL:
        return "null";
    case KB_DOC_BOOL:
        return node->truth ? "the boolean true" : "the boolean false";
    case KB_DOC_NUMBER:
        return "a number";
    case KB_DOC_STRING:
        return "text";
    case KB_DOC_LIST:
        return "a list";
    case KB_DOC_MAP:
        return "an object";
    }
    return "?";
}

/* Whether `key` is the lowerCamelCase form of a field's name. */
static bool is_json_name(struct kb_str key, const char *name)
{
    size_t k = 0;
    bool upper = false;

    for (; *name != '\0'; name++) {
        char want = *name;

        if (want == '_') {
            upper = true;
            continue;
        }
        want = (char)(upper && want >= 'a' && want <= 'z' ? want - 'a' + 'A' : want);
        upper = false;
        if (k >= key.len || key.p[k++] != want) {
            return false;
        }
    }
    return k == key.len;
}

static const ProtobufCFieldDescriptor *field_of(const ProtobufCMessageDescriptor *type,
                                                struct kb_str key)
{
    const ProtobufCFieldDescriptor *field = kb_pb_field_find(type, key);

    for (unsigned i = 0; field == NULL && i < type->n_fields; i++) {
        if (is_json_name(key, type->fields[i].name)) {
            field = &type->fields[i];
        }
    }
    return field;
}

/* What the user may have meant instead of a field that is not there. */
static struct kb_str unknown_hint(struct kb_diag *diag, const ProtobufCMessageDescriptor *type,
                                  struct kb_str key)
{
    struct kb_str list = KB_STR_NULL;
    struct kb_suggest suggest;

    kb_suggest_init(&suggest, key);
    for (unsigned i = 0; i < type->n_fields; i++) {
        struct kb_str name = kb_str_from_cstr(type->fields[i].name);

        kb_suggest_offer(&suggest, name);
        list = type->n_fields > FIELDS_LISTED_MAX ? list
               : i == 0
                   ? name
                   : kb_str_printf(&diag->arena, "%.*s, %.*s", KB_STR_ARG(list), KB_STR_ARG(name));
    }
    if (suggest.best.len > 0) {
        return kb_str_printf(&diag->arena, "did you mean '%.*s'?", KB_STR_ARG(suggest.best));
    }
    return list.len > 0 ? kb_str_printf(&diag->arena, "its fields are: %.*s", KB_STR_ARG(list))
                        : list;
}

int kb_pb_read_unknown(struct kb_pb_reader *reader, const ProtobufCMessageDescriptor *type,
                       const struct kb_doc_node *node)
{
    struct kb_str key = kb_doc_key(node);
    bool error = reader->unknown == KB_PB_UNKNOWN_ERROR;

    if (reader->unknown == KB_PB_UNKNOWN_IGNORE) {
        return 0;
    }
    reader->here = node;
    reader->here_is_key = true;
    kb_diag_push(reader->diag, kb_str_dup(&reader->diag->arena, key).p);
    if (error) {
        kb_diag_error_hint(reader->diag, unknown_hint(reader->diag, type, key),
                           "no such field: '%.*s' in %s", KB_STR_ARG(key), type->name);
    } else {
        kb_diag_warning(reader->diag, "no such field: '%.*s' in %s; it is left out",
                        KB_STR_ARG(key), type->name);
    }
    kb_diag_pop(reader->diag);
    return error ? KB_ECONFIG : 0;
}

/* Whether null is a value of the field rather than its absence. */
static bool null_is_value(const ProtobufCFieldDescriptor *field)
{
    return (field->type == PROTOBUF_C_TYPE_MESSAGE &&
            field->descriptor == &google__protobuf__value__descriptor) ||
           (field->type == PROTOBUF_C_TYPE_ENUM &&
            field->descriptor == &google__protobuf__null_value__descriptor);
}

/* One value into a slot; null leaves what is empty for the type. */
static int slot_read(struct kb_pb_reader *reader, const ProtobufCFieldDescriptor *field,
                     const struct kb_doc_node *node, void *slot)
{
    bool null = node->kind == KB_DOC_NULL && !null_is_value(field);
    ProtobufCMessage **message = slot;

    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        if (*message == NULL) {
            *message = kb_pb_new(kb_reflect_type(field), reader->arena);
        }
        return null ? 0 : kb_pb_read_message(reader, node, *message);
    }
    if (field->type == PROTOBUF_C_TYPE_STRING && *(char **)slot == NULL) {
        *(char **)slot = (char *)(uintptr_t)protobuf_c_empty_string;
    }
    return null ? 0 : kb_pb_read_scalar(reader, field, node, slot);
}

/* Whether a list is one value of the field. */
static bool list_is_value(const ProtobufCFieldDescriptor *field)
{
    return field->type == PROTOBUF_C_TYPE_MESSAGE &&
           (field->descriptor == &google__protobuf__value__descriptor ||
            field->descriptor == &google__protobuf__list_value__descriptor);
}

/* A list into a repeated field. Lists in it are taken for their elements. */
static int list_read(struct kb_pb_reader *reader, const ProtobufCFieldDescriptor *field,
                     const struct kb_doc_node *node, ProtobufCMessage *message)
{
    bool single = node->kind != KB_DOC_LIST;
    const struct kb_doc_node *child = single ? node : node->first;
    int rc = 0;

    for (; child != NULL; child = single ? NULL : child->next) {
        int child_rc;

        if (child->kind == KB_DOC_LIST && !list_is_value(field)) {
            child_rc = list_read(reader, field, child, message);
        } else {
            kb_diag_push_index(reader->diag, field->name, *kb_reflect_count(message, field));
            child_rc =
                slot_read(reader, field, child, kb_reflect_append(message, field, reader->arena));
            kb_diag_pop(reader->diag);
        }
        rc = child_rc != 0 ? child_rc : rc;
    }
    return rc;
}

/* The key of a map entry from the name in the object. */
static int map_key_read(struct kb_pb_reader *reader, const ProtobufCFieldDescriptor *field,
                        const struct kb_doc_node *node, void *slot)
{
    struct kb_doc_node key = *node;

    key.kind = KB_DOC_STRING;
    key.text = node->key;
    key.len = node->key_len;
    key.line = node->key_line;
    key.column = node->key_column;
    return kb_pb_read_scalar(reader, field, &key, slot);
}

static int map_read(struct kb_pb_reader *reader, const ProtobufCFieldDescriptor *field,
                    const struct kb_doc_node *node, ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *key_field = kb_reflect_map_key(field);
    const ProtobufCFieldDescriptor *value_field = kb_reflect_map_value(field);
    struct kb_map names;
    int rc = 0;

    if (node->kind != KB_DOC_MAP) {
        return KB_PB_FAIL(reader, node, "expected an object of names and values, not %s",
                          kb_doc_kind_name(node));
    }
    kb_map_init(&names);
    for (const struct kb_doc_node *child = node->first; child != NULL; child = child->next) {
        ProtobufCMessage **entry = kb_reflect_append(message, field, reader->arena);
        int child_rc;

        *entry = kb_pb_new(kb_reflect_type(field), reader->arena);
        kb_diag_push_key(reader->diag, kb_doc_key(child));
        if (kb_map_put(&names, kb_doc_key(child), (void *)(uintptr_t)child) != NULL) {
            child_rc = KB_PB_FAIL(reader, child, "the name stands twice in the map");
        } else {
            child_rc = map_key_read(reader, key_field, child, kb_reflect_member(*entry, key_field));
        }
        if (child_rc == 0) {
            child_rc =
                slot_read(reader, value_field, child, kb_reflect_member(*entry, value_field));
        }
        rc = child_rc != 0 ? child_rc : rc;
        kb_diag_pop(reader->diag);
    }
    kb_map_dispose(&names);
    return rc;
}

static int field_read(struct kb_pb_reader *reader, const ProtobufCFieldDescriptor *field,
                      const struct kb_doc_node *node, ProtobufCMessage *message)
{
    void *slot = kb_reflect_member(message, field);
    int rc;

    if (node->kind == KB_DOC_NULL && (!null_is_value(field) || kb_reflect_repeated(field))) {
        return 0;
    }
    if (kb_reflect_repeated(field)) {
        if ((kb_pb_field_marks(field) & KB_PB_MAP) == 0) {
            return list_read(reader, field, node, message);
        }
        kb_diag_push(reader->diag, field->name);
        rc = map_read(reader, field, node, message);
        kb_diag_pop(reader->diag);
        return rc;
    }
    kb_diag_push(reader->diag, field->name);
    if (kb_reflect_in_oneof(field) && *kb_reflect_case(message, field) != 0) {
        const ProtobufCFieldDescriptor *other =
            kb_pb_field_by_number(message->descriptor, *kb_reflect_case(message, field));

        rc = other == field
                 ? KB_PB_FAIL(reader, node, "'%s' stands here twice", field->name)
                 : KB_PB_FAIL(reader, node,
                              "'%s' cannot stand beside '%s': only one of them can be set",
                              field->name, other != NULL ? other->name : "?");
    } else {
        if (kb_reflect_in_oneof(field)) {
            *kb_reflect_case(message, field) = field->id;
            memset(slot, 0, kb_reflect_size(field->type));
        }
        rc = slot_read(reader, field, node, slot);
    }
    kb_diag_pop(reader->diag);
    return rc;
}

static int fields_read(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                       ProtobufCMessage *message)
{
    bool skip_type = reader->any_top;
    int rc = 0;

    reader->any_top = false;
    if (node->kind != KB_DOC_MAP) {
        return KB_PB_FAIL(reader, node, "expected an object for %s, not %s",
                          message->descriptor->name, kb_doc_kind_name(node));
    }
    for (const struct kb_doc_node *child = node->first; child != NULL; child = child->next) {
        struct kb_str key = kb_doc_key(child);
        const ProtobufCFieldDescriptor *field;
        int child_rc;

        if (skip_type && kb_str_eq(key, KB_STR("@type"))) {
            continue;
        }
        field = field_of(message->descriptor, key);
        child_rc = field != NULL ? field_read(reader, field, child, message)
                                 : kb_pb_read_unknown(reader, message->descriptor, child);
        rc = child_rc != 0 ? child_rc : rc;
    }
    return rc;
}

/* The forms that some messages have beside an object of their fields. */
static int special_read(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                        ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    enum kb_pb_kind kind = kb_pb_kind_of(type);

    switch (kind) {
    case KB_PB_ANY:
        return kb_pb_read_any(reader, node, message);
    case KB_PB_STRUCT:
        return kb_pb_read_struct(reader, node, message);
    case KB_PB_VALUE:
        return kb_pb_read_value(reader, node, message);
    case KB_PB_LIST_VALUE:
        return kb_pb_read_list(reader, node, message);
    case KB_PB_DURATION:
        return node->kind == KB_DOC_MAP ? fields_read(reader, node, message)
                                        : kb_pb_read_duration(reader, node, message);
    case KB_PB_TIMESTAMP:
        return node->kind == KB_DOC_MAP ? fields_read(reader, node, message)
                                        : kb_pb_read_timestamp(reader, node, message);
    case KB_PB_FIELD_MASK:
        return node->kind == KB_DOC_MAP ? fields_read(reader, node, message)
                                        : kb_pb_read_field_mask(reader, node, message);
    case KB_PB_WRAPPER:
        return node->kind == KB_DOC_MAP ? fields_read(reader, node, message)
                                        : slot_read(reader, &type->fields[0], node,
                                                    kb_reflect_member(message, &type->fields[0]));
    case KB_PB_PLAIN:
        break;
    }
    return fields_read(reader, node, message);
}

int kb_pb_read_message(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                       ProtobufCMessage *message)
{
    int rc;

    if (reader->depth >= KB_PB_DEPTH_MAX) {
        return KB_PB_FAIL(reader, node, "messages are nested more than %d levels deep",
                          KB_PB_DEPTH_MAX);
    }
    reader->depth++;
    rc = special_read(reader, node, message);
    reader->depth--;
    return rc;
}

static bool reader_locate(void *arg, struct kb_str path, struct kb_str *file, uint32_t *line,
                          uint32_t *column)
{
    const struct kb_pb_reader *reader = arg;

    (void)path;
    if (reader->here == NULL || reader->here->line == 0) {
        return false;
    }
    *file = reader->doc != NULL ? reader->doc->file : KB_STR_NULL;
    *line = reader->here_is_key ? reader->here->key_line : reader->here->line;
    *column = reader->here_is_key ? reader->here->key_column : reader->here->column;
    return true;
}

ProtobufCMessage *kb_pb_from_doc(const ProtobufCMessageDescriptor *type, const struct kb_doc *doc,
                                 enum kb_pb_unknown unknown, struct kb_arena *arena,
                                 struct kb_diag *diag)
{
    struct kb_pb_reader reader = {.arena = arena, .diag = diag, .doc = doc, .unknown = unknown};
    kb_diag_locate_fn locate_before = diag->locate;
    void *arg_before = diag->locate_arg;
    ProtobufCMessage *message = kb_pb_new(type, arena);
    int rc;

    kb_diag_set_locate(diag, reader_locate, &reader);
    rc = kb_pb_read_message(&reader, doc->root, message);
    kb_diag_set_locate(diag, locate_before, arg_before);
    return rc == 0 ? message : NULL;
}

ProtobufCMessage *kb_pb_json_parse(const ProtobufCMessageDescriptor *type, struct kb_str file,
                                   struct kb_str text, enum kb_pb_unknown unknown,
                                   struct kb_arena *arena, struct kb_diag *diag)
{
    ProtobufCMessage *message = NULL;
    struct kb_doc doc;

    kb_doc_init(&doc);
    if (kb_doc_parse_json(&doc, file, text, diag) == 0) {
        message = kb_pb_from_doc(type, &doc, unknown, arena, diag);
    }
    kb_doc_dispose(&doc);
    return message;
}
