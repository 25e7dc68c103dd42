/* SPDX-License-Identifier: Apache-2.0 */
/* Any: type by URL, unpacking with checks, TypedStruct. */
#include "proto/any.h"

#include <string.h>

#include "proto/pb_json.h"
#include "proto/pb_validate.h"
#include "udpa/type/v1/typed_struct.pb-c.h"
#include "xds/type/v3/typed_struct.pb-c.h"

#define URL_PREFIX "type.googleapis.com/"

/* What both TypedStruct messages hold. */
struct typed_struct {
    const char *type_url;
    const Google__Protobuf__Struct *value;
};

struct kb_str kb_any_type_name(const char *type_url)
{
    struct kb_str url = kb_str_from_cstr(type_url);
    ptrdiff_t slash = kb_str_rfind_char(url, '/');

    return slash < 0 ? KB_STR_NULL : kb_str_from(url, (size_t)slash + 1);
}

static struct kb_str any_bytes(const Google__Protobuf__Any *any)
{
    return kb_str_make((const char *)any->value.data, any->value.len);
}

/* Takes a TypedStruct apart. KB_ENOTFOUND when the Any holds something else. */
static int typed_struct_read(const Google__Protobuf__Any *any, struct kb_arena *arena,
                             struct typed_struct *out)
{
    struct kb_str name = kb_any_type_name(any->type_url);
    ProtobufCMessage *message;

    if (kb_str_eq(name, kb_str_from_cstr(udpa__type__v1__typed_struct__descriptor.name))) {
        const Udpa__Type__V1__TypedStruct *typed;

        KB_TRY(kb_pb_unpack(&udpa__type__v1__typed_struct__descriptor, any_bytes(any), arena,
                            &message));
        typed = (const Udpa__Type__V1__TypedStruct *)(void *)message;
        *out = (struct typed_struct){.type_url = typed->type_url, .value = typed->value};
        return 0;
    }
    if (kb_str_eq(name, kb_str_from_cstr(xds__type__v3__typed_struct__descriptor.name))) {
        const Xds__Type__V3__TypedStruct *typed;

        KB_TRY(kb_pb_unpack(&xds__type__v3__typed_struct__descriptor, any_bytes(any), arena,
                            &message));
        typed = (const Xds__Type__V3__TypedStruct *)(void *)message;
        *out = (struct typed_struct){.type_url = typed->type_url, .value = typed->value};
        return 0;
    }
    return KB_ENOTFOUND;
}

/* A TypedStruct may name its type with or without a host. */
static struct kb_str inner_name(const char *type_url)
{
    return strchr(type_url, '/') != NULL ? kb_any_type_name(type_url) : kb_str_from_cstr(type_url);
}

struct kb_str kb_any_inner_name(const Google__Protobuf__Any *any, struct kb_arena *arena)
{
    struct typed_struct typed;

    if (any == NULL || any->type_url == NULL) {
        return KB_STR_NULL;
    }
    if (typed_struct_read(any, arena, &typed) == 0) {
        return inner_name(typed.type_url);
    }
    return kb_any_type_name(any->type_url);
}

const ProtobufCMessageDescriptor *kb_any_type(const Google__Protobuf__Any *any)
{
    const ProtobufCMessageDescriptor *type;
    struct kb_arena arena;

    kb_arena_init(&arena, NULL);
    type = kb_pb_type_find(kb_any_inner_name(any, &arena));
    kb_arena_dispose(&arena);
    return type;
}

static void unpack_error(struct kb_diag *diag, const ProtobufCMessageDescriptor *type, int rc)
{
    if (rc == KB_EDEPTH) {
        kb_diag_error(diag, "messages are nested more than %d levels deep", KB_PB_DEPTH_MAX);
    } else if (rc == KB_ELIMIT) {
        kb_diag_error(diag, "the message needs too much memory for its size");
    } else {
        kb_diag_error(diag, "Unable to unpack as %s: the bytes are malformed", type->name);
    }
}

static bool type_expected(const ProtobufCMessageDescriptor *found, struct kb_str name,
                          const ProtobufCMessageDescriptor *expected, struct kb_diag *diag)
{
    if (found == NULL) {
        if (name.len == 0) {
            kb_diag_error(diag, "a typed config is required%s%s", expected ? ": " : "",
                          expected ? expected->name : "");
        } else {
            kb_diag_error(diag, "unknown type '%.*s'", KB_STR_ARG(name));
        }
        return false;
    }
    if (expected != NULL && found != expected) {
        kb_diag_error(diag, "Unable to unpack as %s: the type is %s", expected->name, found->name);
        return false;
    }
    return true;
}

ProtobufCMessage *kb_any_unpack(const Google__Protobuf__Any *any,
                                const ProtobufCMessageDescriptor *type, struct kb_arena *arena,
                                struct kb_diag *diag)
{
    const ProtobufCMessageDescriptor *found;
    ProtobufCMessage *message = NULL;
    struct typed_struct typed = {0};
    struct kb_str name = KB_STR_NULL;
    bool is_struct = false;

    if (any != NULL && any->type_url != NULL) {
        int rc = typed_struct_read(any, arena, &typed);

        is_struct = rc == 0;
        name = is_struct ? inner_name(typed.type_url) : kb_any_type_name(any->type_url);
        if (rc != 0 && rc != KB_ENOTFOUND) {
            kb_diag_error(diag, "Unable to unpack as %.*s: the bytes are malformed",
                          KB_STR_ARG(name));
            return NULL;
        }
    }
    found = kb_pb_type_find(name);
    if (!type_expected(found, name, type, diag)) {
        return NULL;
    }
    if (is_struct) {
        message = kb_pb_from_struct(found, typed.value ? &typed.value->base : NULL, arena, diag);
    } else {
        int rc = kb_pb_unpack(found, any_bytes(any), arena, &message);

        if (rc != 0) {
            unpack_error(diag, found, rc);
        }
    }
    if (message == NULL || kb_pb_validate(message, diag) != 0) {
        return NULL;
    }
    return message;
}

ProtobufCMessage *kb_any_peek(const Google__Protobuf__Any *any, struct kb_arena *arena)
{
    const ProtobufCMessageDescriptor *type =
        any->type_url != NULL ? kb_pb_type_find(kb_any_type_name(any->type_url)) : NULL;
    ProtobufCMessage *message = NULL;

    if (type == NULL || kb_pb_unpack(type, any_bytes(any), arena, &message) != 0) {
        return NULL;
    }
    return message;
}

void kb_any_pack(const ProtobufCMessage *message, struct kb_arena *arena,
                 Google__Protobuf__Any *any)
{
    struct kb_str bytes = kb_pb_pack(message, arena);

    google__protobuf__any__init(any);
    any->type_url =
        (char *)(uintptr_t)kb_str_printf(arena, URL_PREFIX "%s", message->descriptor->name).p;
    any->value = (ProtobufCBinaryData){.len = bytes.len, .data = (uint8_t *)(uintptr_t)bytes.p};
}
