/* SPDX-License-Identifier: Apache-2.0 */
/* Format strings: what Envoy 1.40 says of malformed ones. */
#include "tests/unit/access_log/fixture.h"

struct malformed {
    const char *format, *text;
};

static const struct malformed malformed[] = {
    {"%NOPE%", "Not supported field in StreamInfo: NOPE"},
    {"%1%", "Not supported field in StreamInfo: 1"},
    {"%REQ_WITHOUT_QUERY(:path)%", "Not supported field in StreamInfo: REQ_WITHOUT_QUERY"},
    {"%", "Incorrect configuration: %. Couldn't find valid command at position 0"},
    {"%REQ", "Incorrect configuration: %REQ. Couldn't find valid command at position 0"},
    {"%REQ(a):x%",
     "Incorrect configuration: %REQ(a):x%. Couldn't find valid command at position 0"},
    {"%REQ(a):5", "Incorrect configuration: %REQ(a):5. Couldn't find valid command at position 0"},
    {"%REQ(a\nb)%",
     "Incorrect configuration: %REQ(a\nb)%. Couldn't find valid command at position 0"},
    {"%REQ(a)%%", "Incorrect configuration: %REQ(a)%%. Couldn't find valid command at position 8"},
    {"%req(a)%", "Incorrect configuration: %req(a)%. Couldn't find valid command at position 0"},
    {"%%%", "Incorrect configuration: %%%. Couldn't find valid command at position 2"},
    {"%REQ(a):99999999999999999999%", "Incorrect configuration: %REQ(a):99999999999999999999%. "
                                      "Couldn't find valid command at position 0"},
    {"a %REQ% b", "REQ requires parameters"},
    {"%REQ()%", "REQ requires parameters"},
    {"%REQ(a?b?c)%", "More than 1 alternative header specified in token: a?b?c"},
    {"%REQ(a b)%", "Invalid header configuration. Format string contains invalid characters."},
    {"%REQ(x(y)z)%", "Invalid header configuration. Format string contains invalid characters."},
    {"%PROTOCOL(x)%", "PROTOCOL does not take any parameters or length"},
    {"%PROTOCOL:3%", "PROTOCOL does not take any parameters or length"},
    {"%GRPC_STATUS(x)%",
     "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: x"},
    {"%GRPC_STATUS:3%", "GRPC_STATUS does not allow length to be specified."},
    {"%START_TIME:3%", "START_TIME does not allow length to be specified."},
    {"%START_TIME(%n)%", "Invalid header configuration. Format string contains newline."},
    {"%START_TIME(a%_5Enb)%", "Invalid header configuration. Format string contains newline."},
    {"%ENVIRONMENT()%", "ENVIRONMENT requires parameters"},
    {"%COMMON_DURATION(a)%", "Invalid common duration configuration: a."},
    {"%COMMON_DURATION(a:b:c:d)%", "Invalid common duration configuration: a:b:c:d."},
    {"%COMMON_DURATION(a:b:x)%", "Invalid common duration precision: x."},
    {"%PATH(X)%", "Invalid PATH option: 'X', only 'WQ'/'NQ' are allowed"},
    {"%PATH(WQ:X)%", "Invalid PATH option: 'X', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed"},
    {"%QUERY_PARAMS(X)%", "Invalid QUERY_PARAMS option: 'X', only 'ORIG'/'DECODED' are allowed"},
    {"%FILTER_STATE%", "Invalid filter state configuration, key cannot be empty."},
    {"%FILTER_STATE(a:X)%", "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD."},
    {"%FILTER_STATE(a:FIELD)%",
     "Invalid filter state serialize type, FIELD should be used with the field name."},
    {"%METADATA(X:y)%", "X is not supported type of metadata"},
    {"%METADATA%", " is not supported type of metadata"},
    {"%CLUSTER_METADATA(a):1%", "CLUSTER_METADATA does not allow length to be specified."},
    {"%DOWNSTREAM_REMOTE_ADDRESS(3)%",
     "DOWNSTREAM_REMOTE_ADDRESS does not take any parameters or length"},
    {"%COALESCE%", "COALESCE requires parameters"},
    {"%COALESCE({})%", "COALESCE: JSON configuration must contain 'operators' array"},
    {"%COALESCE({\"operators\":[]})%", "COALESCE: 'operators' array must not be empty"},
    {"%COALESCE({\"operators\":[3]})%",
     "COALESCE: failed to parse operator at index 0: operator entry must be "
     "either a string (command name) or an object with 'command' field"},
    {"%COALESCE({\"operators\":[\"PROTOCOL\",\"NOPE\"]})%",
     "COALESCE: failed to parse operator at index 1: unknown command: 'NOPE'"},
    {"%COALESCE({\"operators\":[\"REQ\"]})%",
     "COALESCE: failed to parse operator at index 0: REQ requires parameters"},
    {"%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"x\",\"max_length\":0}]})%",
     "COALESCE: failed to parse operator at index 0: 'max_length' must be a positive integer"},
};

static void test_malformed_formats_are_refused_as_envoy_does(void **state)
{
    struct fixture f;

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(malformed); i++) {
        fixture_init(&f);
        assert_null(
            kb_formatter_create(&f.arena, kb_str_from_cstr(malformed[i].format), false, &f.diag));
        assert_int_equal(f.diag.error_count, 1);
        if (!kb_str_eq(f.diag.first->text, kb_str_from_cstr(malformed[i].text))) {
            fail_msg("%s: \"%.*s\", not \"%s\"", malformed[i].format,
                     KB_STR_ARG(f.diag.first->text), malformed[i].text);
        }
        fixture_dispose(&f);
    }
}

static void test_odd_formats_are_taken_as_envoy_does(void **state)
{
    static const char *const list[] = {
        "%PROTOCOL()%",
        "%START_TIME(%5f)%",
        "%START_TIME(%0f%q)%",
        "%QUERY_PARAMS:3%",
        "%METADATA(DYNAMIC)%",
        "%METADATA(ROUTE:x):3%",
        "%DYNAMIC_METADATA(x:y):3%",
        "%UPSTREAM_METADATA([\"a\"])%",
        "%PATH(WQ:ORIG:z)%",
        "%RESPONSE_CODE_DETAILS(zz)%",
        "%FILTER_STATE(k:FIELD:f):3%",
        "%UPSTREAM_FILTER_STATE(k)%",
        "100%%",
    };
    struct fixture f;

    (void)state;
    fixture_init(&f);
    for (size_t i = 0; i < KB_ARRAY_LEN(list); i++) {
        fixture_text(&f, list[i]);
    }
    fixture_dispose(&f);
}

static void test_cel_is_refused(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    assert_null(kb_formatter_create(&f.arena, KB_STR("%CEL(request.path)%"), false, &f.diag));
    assert_null(kb_formatter_create(&f.arena, KB_STR("%TYPED_CEL(request.path)%"), false, &f.diag));
    assert_int_equal(f.diag.error_count, 2);
    fixture_dispose(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed_formats_are_refused_as_envoy_does),
        cmocka_unit_test(test_odd_formats_are_taken_as_envoy_does),
        cmocka_unit_test(test_cel_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
