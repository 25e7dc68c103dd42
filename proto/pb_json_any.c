/* SPDX-License-Identifier: Apache-2.0 */
/* Tree to the messages that hold anything: Any by "@type", Struct, Value and ListValue; and a
 * Struct back to a tree, which is how TypedStruct becomes the message that it stands for. */
#include <stdio.h>
#include <string.h>

#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/any.h"
#include "proto/pb_json_read.h"
#include "proto/reflect.h"
#include "proto/suggest.h"

/* The last part of a full name: users mistype the package. */
static struct kb_str last_part(struct kb_str name)
{
    ptrdiff_t dot = kb_str_rfind_char(name, '.');

    return kb_str_from(name, (size_t)(dot + 1));
}

static struct kb_str type_hint(struct kb_diag *diag, struct kb_str name)
{
    struct kb_suggest suggest;
    const ProtobufCMessageDescriptor *type;

    kb_suggest_init(&suggest, name);
    for (size_t i = 0; (type = kb_pb_type_at(i)) != NULL; i++) {
        kb_suggest_offer(&suggest, kb_str_from_cstr(type->name));
    }
    for (size_t i = 0; suggest.best.len == 0 && (type = kb_pb_type_at(i)) != NULL; i++) {
        struct kb_str full = kb_str_from_cstr(type->name);

        if (kb_str_eq(last_part(full), last_part(name))) {
            suggest.best = full;
        }
    }
    return suggest.best.len == 0
               ? KB_STR_NULL
               : kb_str_printf(&diag->arena, "did you mean 'type.googleapis.com/%.*s'?",
                               KB_STR_ARG(suggest.best));
}

/* The type that "@type" names; NULL after an error. */
static const ProtobufCMessageDescriptor *type_of(struct kb_pb_reader *reader,
                                                 const struct kb_doc_node *url)
{
    struct kb_str text = kb_doc_text(url);
    const ProtobufCMessageDescriptor *type;
    ptrdiff_t slash = url->kind == KB_DOC_STRING ? kb_str_rfind_char(text, '/') : -1;

    if (url->kind != KB_DOC_STRING) {
        (void)KB_PB_FAIL(reader, url, "expected the type URL of a message, not %s",
                         kb_doc_kind_name(url));
        return NULL;
    }
    if (slash <= 0) {
        (void)KB_PB_FAIL(reader, url,
                         "@type must contain at least one / and a nonempty host; got: %.*s",
                         KB_STR_ARG(text));
        return NULL;
    }
    type = kb_pb_type_find(kb_str_from(text, (size_t)slash + 1));
    if (type == NULL) {
        reader->here = url;
        reader->here_is_key = false;
        kb_diag_error_hint(reader->diag,
                           type_hint(reader->diag, kb_str_from(text, (size_t)slash + 1)),
                           "could not find @type '%.*s'", KB_STR_ARG(text));
    }
    return type;
}

/* A message whose JSON is no object of its fields stands under "value". */
static int wrapped_read(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                        ProtobufCMessage *inner)
{
    const struct kb_doc_node *value = NULL;
    int rc = 0;

    for (const struct kb_doc_node *child = node->first; child != NULL; child = child->next) {
        if (kb_str_eq(kb_doc_key(child), KB_STR("value"))) {
            value = child;
        } else if (!kb_str_eq(kb_doc_key(child), KB_STR("@type"))) {
            int child_rc = kb_pb_read_unknown(reader, inner->descriptor, child);

            rc = child_rc != 0 ? child_rc : rc;
        }
    }
    if (value != NULL &&
        (value->kind != KB_DOC_NULL || kb_pb_kind_of(inner->descriptor) == KB_PB_VALUE)) {
        int value_rc;

        kb_diag_push(reader->diag, "value");
        value_rc = kb_pb_read_message(reader, value, inner);
        kb_diag_pop(reader->diag);
        rc = value_rc != 0 ? value_rc : rc;
    }
    return rc;
}

/* Reads what the Any holds and packs it. Only the bytes go to the caller's arena. */
static int any_fill(struct kb_pb_reader *reader, const struct kb_doc_node *node, struct kb_str url,
                    const ProtobufCMessageDescriptor *type, Google__Protobuf__Any *any)
{
    struct kb_arena *outer = reader->arena;
    struct kb_arena scratch;
    ProtobufCMessage *inner;
    bool top = !reader->in_any;
    int rc;

    if (top) {
        kb_arena_init(&scratch, NULL);
        reader->arena = &scratch;
        reader->in_any = true;
    }
    inner = kb_pb_new(type, reader->arena);
    if (kb_pb_kind_of(type) != KB_PB_PLAIN) {
        rc = wrapped_read(reader, node, inner);
    } else {
        reader->any_top = true;
        rc = kb_pb_read_message(reader, node, inner);
    }
    if (rc == 0) {
        struct kb_str bytes = kb_pb_pack(inner, outer);

        any->type_url = (char *)(uintptr_t)kb_str_dup(outer, url).p;
        any->value = (ProtobufCBinaryData){.len = bytes.len, .data = (uint8_t *)(uintptr_t)bytes.p};
    }
    if (top) {
        reader->in_any = false;
        reader->arena = outer;
        kb_arena_dispose(&scratch);
    }
    return rc;
}

int kb_pb_read_any(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                   ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type;
    const struct kb_doc_node *url;

    if (node->kind != KB_DOC_MAP) {
        return KB_PB_FAIL(reader, node, "expected an object with \"@type\", not %s",
                          kb_doc_kind_name(node));
    }
    if (node->first == NULL) {
        return 0;
    }
    url = kb_doc_get(node, KB_STR("@type"));
    if (url == NULL) {
        return KB_PB_FAIL(reader, node, "\"@type\" is missing: it says which message this is");
    }
    for (const struct kb_doc_node *child = node->first; child != NULL; child = child->next) {
        if (child != url && kb_str_eq(kb_doc_key(child), KB_STR("@type"))) {
            return KB_PB_FAIL(reader, url, "repeated @type in Any");
        }
    }
    type = type_of(reader, url);
    if (type == NULL) {
        return KB_ECONFIG;
    }
    return any_fill(reader, node, kb_doc_text(url), type, (Google__Protobuf__Any *)(void *)message);
}

int kb_pb_read_struct(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                      ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *fields = &message->descriptor->fields[0];
    int rc = 0;

    if (node->kind != KB_DOC_MAP) {
        return KB_PB_FAIL(reader, node, "expected an object, not %s", kb_doc_kind_name(node));
    }
    for (const struct kb_doc_node *child = node->first; child != NULL; child = child->next) {
        ProtobufCMessage **entry = kb_reflect_append(message, fields, reader->arena);
        Google__Protobuf__Struct__FieldsEntry *pair;
        struct kb_doc_node key = *child;
        int child_rc;

        *entry = kb_pb_new(kb_reflect_type(fields), reader->arena);
        pair = (Google__Protobuf__Struct__FieldsEntry *)(void *)*entry;
        pair->value = (Google__Protobuf__Value *)(void *)kb_pb_new(
            &google__protobuf__value__descriptor, reader->arena);
        key.kind = KB_DOC_STRING;
        key.text = child->key;
        key.len = child->key_len;
        kb_diag_push_key(reader->diag, kb_doc_key(child));
        child_rc = kb_pb_read_scalar(reader, kb_reflect_map_key(fields), &key, &pair->key);
        if (child_rc == 0) {
            child_rc = kb_pb_read_message(reader, child, &pair->value->base);
        }
        kb_diag_pop(reader->diag);
        rc = child_rc != 0 ? child_rc : rc;
    }
    return rc;
}

int kb_pb_read_list(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                    ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *values = &message->descriptor->fields[0];
    int rc = 0;
    size_t i = 0;

    if (node->kind != KB_DOC_LIST) {
        return KB_PB_FAIL(reader, node, "expected a list, not %s", kb_doc_kind_name(node));
    }
    for (const struct kb_doc_node *child = node->first; child != NULL; child = child->next) {
        ProtobufCMessage **value = kb_reflect_append(message, values, reader->arena);
        int child_rc;

        *value = kb_pb_new(&google__protobuf__value__descriptor, reader->arena);
        kb_diag_push_index(reader->diag, "values", i++);
        child_rc = kb_pb_read_message(reader, child, *value);
        kb_diag_pop(reader->diag);
        rc = child_rc != 0 ? child_rc : rc;
    }
    return rc;
}

/* Field numbers of google.protobuf.Value, in the order of the kinds of a node. */
static const uint32_t value_field_of[] = {
    [KB_DOC_NULL] = 1, [KB_DOC_NUMBER] = 2, [KB_DOC_STRING] = 3,
    [KB_DOC_BOOL] = 4, [KB_DOC_MAP] = 5,    [KB_DOC_LIST] = 6,
};

int kb_pb_read_value(struct kb_pb_reader *reader, const struct kb_doc_node *node,
                     ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *field =
        kb_pb_field_by_number(message->descriptor, value_field_of[node->kind]);
    void *slot = kb_reflect_member(message, field);

    *kb_reflect_case(message, field) = field->id;
    if (node->kind == KB_DOC_NULL) {
        *(uint32_t *)slot = 0;
        return 0;
    }
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        *(ProtobufCMessage **)slot = kb_pb_new(kb_reflect_type(field), reader->arena);
        return kb_pb_read_message(reader, node, *(ProtobufCMessage **)slot);
    }
    return kb_pb_read_scalar(reader, field, node, slot);
}

static struct kb_doc_node *struct_to_node(struct kb_doc *doc,
                                          const Google__Protobuf__Struct *value);

static struct kb_doc_node *value_to_node(struct kb_doc *doc, const Google__Protobuf__Value *value)
{
    struct kb_doc_node *node = KB_ARENA_NEW(&doc->arena, struct kb_doc_node);
    struct kb_doc_open open;
    struct kb_str text;

    switch (value->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        node->kind = KB_DOC_NUMBER;
        text = kb_str_printf(&doc->arena, "%.17g", value->number_value);
        node->text = text.p;
        node->len = (uint32_t)text.len;
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        node->kind = KB_DOC_STRING;
        node->text = value->string_value;
        node->len = (uint32_t)strlen(value->string_value);
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        node->kind = KB_DOC_BOOL;
        node->truth = value->bool_value != 0;
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        return struct_to_node(doc, value->struct_value);
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        node->kind = KB_DOC_LIST;
        kb_doc_open_init(&open, node);
        for (size_t i = 0; i < value->list_value->n_values; i++) {
            kb_doc_open_add(&open, value_to_node(doc, value->list_value->values[i]));
        }
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE:
    case GOOGLE__PROTOBUF__VALUE__KIND__NOT_SET:
    case _GOOGLE__PROTOBUF__VALUE__KIND__CASE_IS_INT_SIZE:
    default:
        break;
    }
    return node;
}

static struct kb_doc_node *struct_to_node(struct kb_doc *doc, const Google__Protobuf__Struct *value)
{
    struct kb_doc_node *node = KB_ARENA_NEW(&doc->arena, struct kb_doc_node);
    struct kb_doc_open open;

    node->kind = KB_DOC_MAP;
    kb_doc_open_init(&open, node);
    for (size_t i = 0; value != NULL && i < value->n_fields; i++) {
        const Google__Protobuf__Struct__FieldsEntry *pair = value->fields[i];
        struct kb_doc_node *child = pair->value != NULL
                                        ? value_to_node(doc, pair->value)
                                        : KB_ARENA_NEW(&doc->arena, struct kb_doc_node);

        child->key = pair->key;
        child->key_len = (uint32_t)strlen(pair->key);
        kb_doc_open_add(&open, child);
    }
    return node;
}

ProtobufCMessage *kb_pb_from_struct(const ProtobufCMessageDescriptor *type,
                                    const ProtobufCMessage *value_struct, struct kb_arena *arena,
                                    struct kb_diag *diag)
{
    struct kb_pb_reader reader = {.arena = arena,
                                  .diag = diag,
                                  .unknown = diag->unknown_fields_warn ? KB_PB_UNKNOWN_WARN
                                                                       : KB_PB_UNKNOWN_ERROR};
    ProtobufCMessage *message = kb_pb_new(type, arena);
    struct kb_doc doc;
    int rc;

    KB_ASSERT(value_struct == NULL ||
              value_struct->descriptor == &google__protobuf__struct__descriptor);
    kb_doc_init(&doc);
    doc.root = struct_to_node(&doc, (const Google__Protobuf__Struct *)(const void *)value_struct);
    rc = kb_pb_read_message(&reader, doc.root, message);
    kb_doc_dispose(&doc);
    return rc == 0 ? message : NULL;
}
