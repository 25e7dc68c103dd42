/* SPDX-License-Identifier: Apache-2.0 */
/* Any: type by URL, unpacking with checks, TypedStruct. */
#include "tests/unit/proto/proto_test.h"

#include "envoy/config/core/v3/address.pb-c.h"
#include "envoy/config/core/v3/extension.pb-c.h"

static const Google__Protobuf__Any *any_of(struct fixture *f, const char *yaml)
{
    Envoy__Config__Core__V3__TypedExtensionConfig *config =
        from_yaml(f, &envoy__config__core__v3__typed_extension_config__descriptor,
                  kb_str_printf(&f->arena, "{typed_config: %s}", yaml).p);

    assert_non_null(config);
    return config->typed_config;
}

static void test_names(void **state)
{
    (void)state;
    assert_true(kb_str_eq(kb_any_type_name("type.googleapis.com/a.B"), KB_STR("a.B")));
    assert_true(kb_str_eq(kb_any_type_name("x/y/a.B"), KB_STR("a.B")));
    assert_int_equal(kb_any_type_name("a.B").len, 0);
    assert_int_equal(kb_any_type_name("a/").len, 0);
    assert_int_equal(kb_any_type_name("").len, 0);
}

static void test_unpacks_what_is_expected(void **state)
{
    struct fixture *f = *state;
    const Google__Protobuf__Any *any =
        any_of(f, "{\"@type\": h/envoy.config.core.v3.Pipe, path: p}");
    Envoy__Config__Core__V3__Pipe *pipe = KB_ANY_UNPACK(
        any, envoy__config__core__v3__pipe, Envoy__Config__Core__V3__Pipe, &f->arena, &f->diag);

    assert_non_null(pipe);
    assert_string_equal(pipe->path, "p");
    assert_ptr_equal(kb_any_type(any), &envoy__config__core__v3__pipe__descriptor);
    assert_non_null(kb_any_unpack(any, NULL, &f->arena, &f->diag));
    kb_diag_push(&f->diag, "here");
    assert_null(
        kb_any_unpack(any, &envoy__config__core__v3__address__descriptor, &f->arena, &f->diag));
    assert_null(
        kb_any_unpack(NULL, &envoy__config__core__v3__address__descriptor, &f->arena, &f->diag));
    assert_string_equal(
        reported(f), "error: here: Unable to unpack as envoy.config.core.v3.Address: the type is "
                     "envoy.config.core.v3.Pipe\n"
                     "error: here: a typed config is required: envoy.config.core.v3.Address\n");
}

static void test_rules_are_checked(void **state)
{
    struct fixture *f = *state;
    const Google__Protobuf__Any *any =
        any_of(f, "{\"@type\": h/envoy.config.core.v3.Pipe, path: \"\"}");

    kb_diag_push(&f->diag, "typed_config");
    assert_null(kb_any_unpack(any, NULL, &f->arena, &f->diag));
    assert_string_equal(reported(f),
                        "error: typed_config.path: value length must be at least 1 characters\n");
}

static void assert_typed_struct(struct fixture *f, const char *name)
{
    const Google__Protobuf__Any *any =
        any_of(f, kb_str_printf(&f->arena,
                                "{\"@type\": h/%s, type_url: h/envoy.config.core.v3.SocketAddress,"
                                " value: {address: a, portValue: 80, ipv4_compat: true}}",
                                name)
                      .p);
    Envoy__Config__Core__V3__SocketAddress *address = (void *)kb_any_unpack(
        any, &envoy__config__core__v3__socket_address__descriptor, &f->arena, &f->diag);

    assert_ptr_equal(kb_any_type(any), &envoy__config__core__v3__socket_address__descriptor);
    assert_non_null(address);
    assert_int_equal(address->port_value, 80);
    assert_int_equal(address->ipv4_compat, 1);
}

static void test_typed_struct(void **state)
{
    struct fixture *f = *state;
    const Google__Protobuf__Any *any;

    assert_typed_struct(f, "udpa.type.v1.TypedStruct");
    assert_typed_struct(f, "xds.type.v3.TypedStruct");
    any = any_of(f, "{\"@type\": h/xds.type.v3.TypedStruct, type_url: envoy.config.core.v3.Pipe, "
                    "value: {pat: x}}");
    assert_null(kb_any_unpack(any, NULL, &f->arena, &f->diag));
    assert_string_equal(reported(f),
                        "error: pat: no such field: 'pat' in envoy.config.core.v3.Pipe "
                        "(did you mean 'path'?)\n");
    any = any_of(f, "{\"@type\": h/xds.type.v3.TypedStruct, type_url: h/foo.Bar}");
    assert_null(kb_any_type(any));
    assert_true(kb_str_eq(kb_any_inner_name(any, &f->arena), KB_STR("foo.Bar")));
    assert_null(kb_any_unpack(any, NULL, &f->arena, &f->diag));
    assert_string_equal(reported(f), "error: unknown type 'foo.Bar'\n");
}

static void test_malformed_bytes(void **state)
{
    struct fixture *f = *state;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;

    any.type_url = (char *)(uintptr_t)"h/envoy.config.core.v3.Pipe";
    any.value = (ProtobufCBinaryData){.len = 2, .data = (uint8_t *)(uintptr_t)"\x0a\x05"};
    assert_null(kb_any_unpack(&any, NULL, &f->arena, &f->diag));
    assert_string_equal(
        reported(f),
        "error: Unable to unpack as envoy.config.core.v3.Pipe: the bytes are malformed\n");
    any.type_url = (char *)(uintptr_t)"h/xds.type.v3.TypedStruct";
    assert_null(kb_any_unpack(&any, NULL, &f->arena, &f->diag));
    assert_null(kb_any_peek(&any, &f->arena));
}

static void test_unknown_fields(void **state)
{
    struct fixture *f = *state;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;

    any.type_url = (char *)(uintptr_t)"h/envoy.config.core.v3.Pipe";
    any.value = (ProtobufCBinaryData){.len = 5, .data = (uint8_t *)(uintptr_t)"\x0a\x01p\x50\x01"};
    assert_null(kb_any_unpack(&any, NULL, &f->arena, &f->diag));
    assert_string_equal(reported(f),
                        "error: no such field: number 10 in envoy.config.core.v3.Pipe\n");
    f->diag.unknown_fields_warn = true;
    assert_non_null(kb_any_unpack(&any, NULL, &f->arena, &f->diag));
    assert_string_equal(
        reported(f),
        "warning: no such field: number 10 in envoy.config.core.v3.Pipe; it is left out\n");
}

static void test_packs(void **state)
{
    struct fixture *f = *state;
    Envoy__Config__Core__V3__Pipe pipe = ENVOY__CONFIG__CORE__V3__PIPE__INIT;
    Google__Protobuf__Any any;

    pipe.path = (char *)(uintptr_t)"p";
    kb_any_pack(&pipe.base, &f->arena, &any);
    assert_string_equal(any.type_url, "type.googleapis.com/envoy.config.core.v3.Pipe");
    assert_string_equal(
        to_json(f, &any, 0),
        "{\"@type\":\"type.googleapis.com/envoy.config.core.v3.Pipe\",\"path\":\"p\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_names),
        TEST(test_unpacks_what_is_expected),
        TEST(test_rules_are_checked),
        TEST(test_typed_struct),
        TEST(test_malformed_bytes),
        TEST(test_packs),
        TEST(test_unknown_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
