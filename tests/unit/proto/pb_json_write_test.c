/* SPDX-License-Identifier: Apache-2.0 */
/* Message to JSON: layout, defaults, escapes, numbers, redaction, bounds. */
#include "tests/unit/proto/proto_test.h"

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "envoy/config/core/v3/address.pb-c.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "google/protobuf/wrappers.pb-c.h"

static void test_pretty_layout(void **state)
{
    struct fixture *f = *state;
    const void *message =
        from_yaml(f, &envoy__config__bootstrap__v3__bootstrap__descriptor,
                  "{node: {id: a, metadata: {l: [], m: {}}}, admin: {address: {pipe: {}}},"
                  " static_resources: {clusters: [{name: x}, {}]}}");

    assert_string_equal(to_json(f, message, KB_PB_JSON_PRETTY), "{\n"
                                                                " \"node\": {\n"
                                                                "  \"id\": \"a\",\n"
                                                                "  \"metadata\": {\n"
                                                                "   \"l\": [],\n"
                                                                "   \"m\": {}\n"
                                                                "  }\n"
                                                                " },\n"
                                                                " \"static_resources\": {\n"
                                                                "  \"clusters\": [\n"
                                                                "   {\n"
                                                                "    \"name\": \"x\"\n"
                                                                "   },\n"
                                                                "   {}\n"
                                                                "  ]\n"
                                                                " },\n"
                                                                " \"admin\": {\n"
                                                                "  \"address\": {\n"
                                                                "   \"pipe\": {}\n"
                                                                "  }\n"
                                                                " }\n"
                                                                "}");
}

static void test_defaults(void **state)
{
    struct fixture *f = *state;
    const void *message = from_yaml(f, &envoy__config__core__v3__socket_address__descriptor,
                                    "{address: a, port_value: 0}");

    assert_string_equal(to_json(f, message, 0), "{\"address\":\"a\",\"port_value\":0}");
    assert_string_equal(
        to_json(f, message, KB_PB_JSON_DEFAULTS),
        "{\"protocol\":\"TCP\",\"address\":\"a\",\"port_value\":0,\"resolver_name\":\"\","
        "\"ipv4_compat\":false,\"network_namespace_filepath\":\"\"}");
}

static void test_text_is_escaped(void **state)
{
    struct fixture *f = *state;
    struct kb_json_out out;

    (void)f;
    kb_json_out_init(&out, 0);
    kb_json_out_add_quoted(
        &out, KB_STR("<a & 'b'>\"\\/\b\f\n\r\t\x01\x7f\xc2\xad\xe2\x80\xa8\xc3\xa9\xf0\x9f\x98\x80"
                     "\xf3\xa0\x80\x81"));
    assert_true(kb_str_eq(
        kb_str_make(out.p, out.len),
        KB_STR("\"\\u003ca & 'b'\\u003e\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u007f\\u00ad\\u2028\xc3\xa9"
               "\xf0\x9f\x98\x80\\udb40\\udc01\"")));
    kb_json_out_dispose(&out);
}

/* Bytes of a peer cannot end the string, whatever they begin with. */
static void test_broken_text_cannot_break_out(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"a\xe2\",\"b", "\"a ,\\\"b\""}, {"\xe2\x82\"x", "\" x\""},
        {"\x80\xbf\xff", "\"   \""},     {"a\xf0\x9f\x98", "\"a \""},
        {"\xf4\x90\x80\x80z", "\" z\""}, {"\xed\xa0\x80", "\"\xed\xa0\x80\""},
    };

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
        struct kb_json_out out;

        kb_json_out_init(&out, 0);
        kb_json_out_add_quoted(&out, kb_str_from_cstr(cases[i].text));
        assert_true(kb_str_eq(kb_str_make(out.p, out.len), kb_str_from_cstr(cases[i].expected)));
        kb_json_out_dispose(&out);
    }
}

static void assert_number(struct fixture *f, double number, const char *expected)
{
    Google__Protobuf__DoubleValue value = GOOGLE__PROTOBUF__DOUBLE_VALUE__INIT;

    value.value = number;
    assert_string_equal(to_json(f, &value, 0), expected);
}

static void test_numbers(void **state)
{
    struct fixture *f = *state;
    Google__Protobuf__FloatValue real = GOOGLE__PROTOBUF__FLOAT_VALUE__INIT;

    assert_number(f, 0, "0");
    assert_number(f, 0.1, "0.1");
    assert_number(f, 100, "100");
    assert_number(f, 1e20, "1e+20");
    assert_number(f, 1.0 / 3, "0.3333333333333333");
    assert_number(f, 123456789012345680.0, "1.2345678901234568e+17");
    real.value = 0.1F;
    assert_string_equal(to_json(f, &real, 0), "0.1");
}

static void test_sensitive_fields_are_redacted(void **state)
{
    struct fixture *f = *state;
    const ProtobufCMessageDescriptor *type =
        kb_pb_type_find(KB_STR("envoy.extensions.transport_sockets.tls.v3.TlsCertificate"));
    const void *message =
        from_yaml(f, type,
                  "{certificate_chain: {inline_string: c}, private_key: {inline_string: k},"
                  " password: {inline_bytes: aGVsbG8=}}");

    assert_string_equal(
        to_json(f, message, KB_PB_JSON_REDACT),
        "{\"certificate_chain\":{\"inline_string\":\"c\"},\"private_key\":{\"inline_string\":"
        "\"[redacted]\"},\"password\":{\"inline_bytes\":\"W3JlZGFjdGVkXQ==\"}}");
    assert_non_null(strstr(to_json(f, message, 0), "\"inline_string\":\"k\""));
}

static void test_any_that_cannot_be_expanded(void **state)
{
    struct fixture *f = *state;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    static uint8_t bytes[] = {1, 2, 3};

    assert_string_equal(to_json(f, &any, 0), "{}");
    any.type_url = (char *)(uintptr_t)"h/foo.Bar";
    any.value.data = bytes;
    any.value.len = 3;
    assert_string_equal(to_json(f, &any, 0), "{\"@type\":\"h/foo.Bar\",\"value\":\"AQID\"}");
    any.type_url = (char *)(uintptr_t)"h/envoy.config.core.v3.Pipe";
    assert_string_equal(to_json(f, &any, 0),
                        "{\"@type\":\"h/envoy.config.core.v3.Pipe\",\"value\":\"AQID\"}");
}

static void test_output_is_bounded(void **state)
{
    struct fixture *f = *state;
    const void *message =
        from_yaml(f, &google__protobuf__struct__descriptor, "{a: bbbbbbbbbbbbbbbbbbbb}");
    struct kb_json_out out;

    kb_json_out_init(&out, 10);
    kb_pb_json_write(&out, message, 0, 0);
    assert_true(out.overflow);
    assert_int_equal(out.len, 10);
    kb_json_out_dispose(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pretty_layout),
        TEST(test_defaults),
        TEST(test_text_is_escaped),
        TEST(test_broken_text_cannot_break_out),
        TEST(test_numbers),
        TEST(test_sensitive_fields_are_redacted),
        TEST(test_any_that_cannot_be_expanded),
        TEST(test_output_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
