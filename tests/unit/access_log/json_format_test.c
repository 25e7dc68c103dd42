/* SPDX-License-Identifier: Apache-2.0 */
/* json_format: order, types, escapes, numbers and omitted values as Envoy 1.40 writes them. */
#include "tests/unit/access_log/fixture.h"

#include "envoy/config/core/v3/base.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/access_log/format_value.h"
#include "proxy/api/route.h"
#include "proxy/upstream/host.h"

static const Google__Protobuf__Struct *struct_of(struct fixture *f, const char *json)
{
    ProtobufCMessage *message =
        kb_pb_json_parse(&google__protobuf__struct__descriptor, KB_STR(""), kb_str_from_cstr(json),
                         KB_PB_UNKNOWN_ERROR, &f->arena, &f->diag);

    assert_non_null(message);
    return (const Google__Protobuf__Struct *)(const void *)message;
}

static void expect(struct fixture *f, bool omit, const char *json, const char *expected)
{
    struct kb_json_formatter *formatter =
        kb_json_formatter_create(&f->arena, struct_of(f, json), omit, &f->diag);
    struct kb_str line;

    assert_non_null(formatter);
    line = kb_json_formatter_text(formatter, &f->input, &f->info, &f->arena);
    assert_true(kb_str_ends_with(line, KB_STR("\n")));
    line.len--;
    if (!kb_str_eq(line, kb_str_from_cstr(expected))) {
        fail_msg("%s: got\n%.*s\nnot\n%s", json, KB_STR_ARG(line), expected);
    }
}

static void test_keys_are_sorted_and_types_kept(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    expect(&f, false,
           "{\"z\":\"%DURATION%\",\"a\":\"%TRACE_ID%\",\"Z\":\"%PROTOCOL%\",\"m\":{\"y\":[\"%BYTES_"
           "SENT%\",\"x\",[]],"
           "\"b\":{}},\"\":null,\"t\":true,\"f\":\"%RESPONSE_FLAGS%\"}",
           "{\"\":null,\"Z\":\"HTTP/"
           "1.1\",\"a\":null,\"f\":\"-\",\"m\":{\"b\":{},\"y\":[5,\"x\",[]]},\"t\":true,"
           "\"z\":12}");
    fixture_dispose(&f);
}

static void test_mixed_text_is_a_string(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    expect(&f, false,
           "{\"a\":\"pre %DURATION% "
           "post\",\"b\":\"%TRACE_ID%%SPAN_ID%\",\"c\":\"%PROTOCOL%%%\",\"d\":\"%%x\","
           "\"e\":\" %DURATION%\",\"%PROTOCOL%\":\"key\"}",
           "{\"%PROTOCOL%\":\"key\",\"a\":\"pre 12 "
           "post\",\"b\":\"--\",\"c\":\"HTTP/1.1%\",\"d\":\"%x\",\"e\":\" 12\"}");
    fixture_dispose(&f);
}

static void test_ports_masks_and_statuses_have_json_types(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    kb_header_map_add_id(&f.request, KB_HDR_CONTENT_TYPE, KB_STR("application/grpc"));
    kb_header_map_add_id(&f.response, KB_HDR_GRPC_STATUS, KB_STR("x"));
    expect(&f, false,
           "{\"a\":\"%DOWNSTREAM_REMOTE_PORT%\",\"b\":\"%DOWNSTREAM_DIRECT_LOCAL_PORT%\",\"c\":\"%"
           "GRPC_STATUS_NUMBER%\","
           "\"d\":\"%GRPC_STATUS%\",\"e\":\"%RESP(:STATUS)%\",\"f\":\"%ENVIRONMENT(KB_TEST_NONE)%"
           "\",\"g\":"
           "\"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)%\",\"h\":\"%START_TIME(%s)%\",\"i\":\"%"
           "CUSTOM_FLAGS%\","
           "\"j\":\"%COALESCE({\\\"operators\\\":[\\\"TRACE_ID\\\",\\\"DURATION\\\"]})%\"}",
           "{\"a\":222,\"b\":null,\"c\":-1,\"d\":\"-1\",\"e\":\"200\",\"f\":\"-\",\"g\":\"192.0.0."
           "0/8\",\"h\":"
           "\"1795310330\",\"i\":\"\",\"j\":12}");
    fixture_dispose(&f);
}

static void test_strings_are_escaped(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    expect(&f, false,
           "{\"s\":\"tab\\tnl\\ncr\\rbs\\bff\\f\\\"\\\\/ "
           "\\u0001\\u001f\\u007f\xc2\x80\xf0\x9f\x98\x80<>&'\",\"q\\\"k\":1}",
           "{\"q\\\"k\":1,\"s\":\"tab\\tnl\\ncr\\rbs\\bff\\f\\\"\\\\/ "
           "\\u0001\\u001f\x7f\xc2\x80\xf0\x9f\x98\x80<>&'\"}");
    /* valid UTF-8, and bytes that are not: all that is not plain is then written as a number */
    expect(&f, false,
           "{\"a\":\"%REQ(user-agent)%\",\"b\":\"%REQ(x-bad)%\",\"c\":\"\\\"%REQ(x-bad)%|%REQ(user-"
           "agent)%\"}",
           "{\"a\":\"ua/1 \\\"q\\\" \xc3\xa9\\\\\",\"b\":\"\\u00ff\\u00e9\\u0022\\u005c\\u0009\","
           "\"c\":\"\\\"\\u00ff\\u00e9\\u0022\\u005c\\u0009|ua/1 \\\"q\\\" \xc3\xa9\\\\\"}");
    fixture_dispose(&f);
}

static void test_utf8_is_judged_by_rfc_3629(void **state)
{
    static const struct {
        const char *bytes, *expected;
    } list[] = {
        {"\xe2\x82\xac", "\xe2\x82\xac"},
        {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
        {"\xf4\x90\x80\x80", "\\u00f4\\u0090\\u0080\\u0080"}, /* beyond U+10FFFF */
        {"\xed\xa0\x80", "\\u00ed\\u00a0\\u0080"},            /* a surrogate */
        {"\xc0\xaf", "\\u00c0\\u00af"},                       /* too long */
        {"\xe0\x9f\xbf", "\\u00e0\\u009f\\u00bf"},
        {"\xf0\x8f\xbf\xbf", "\\u00f0\\u008f\\u00bf\\u00bf"},
        {"a\xe2\x82", "a\\u00e2\\u0082"}, /* cut */
        {"\x80", "\\u0080"},
    };
    struct fixture f;

    (void)state;
    fixture_init(&f);
    for (size_t i = 0; i < KB_ARRAY_LEN(list); i++) {
        struct kb_format_out out;

        kb_format_out_init(&out, &f.arena, NULL, 0);
        kb_format_out_add_escaped(&out, kb_str_from_cstr(list[i].bytes));
        assert_true(kb_str_eq(kb_str_make(out.p, out.len), kb_str_from_cstr(list[i].expected)));
    }
    fixture_dispose(&f);
}

static void test_numbers_take_their_shortest_form(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    expect(&f, false,
           "{\"n\":[0,1,-1,0.1,1.5,1e15,1e16,123456789012345680,1e17,1e20,1e21,1e-4,1e-5,1e-7,-0.0,"
           "3.0,12345678.9,"
           "0.3333333333333333,1e100,9007199254740993,4.35,1e22,100000,200000,1200000,12000000,"
           "110000,1000000,999999,"
           "1000,10,99999000,0.00012,0.001,1e-300,123456789]}",
           "{\"n\":[0,1,-1,0.1,1.5,1e+15,1e+16,123456789012345680,1e+17,1e+20,1e+21,1e-04,1e-05,1e-"
           "07,-0,3,12345678.9,"
           "0.3333333333333333,1e+100,9007199254740992,4.35,1e+22,1e+05,2e+05,1200000,1.2e+07,"
           "110000,1e+06,999999,1000,"
           "10,99999000,0.00012,0.001,1e-300,123456789]}");
    fixture_dispose(&f);
}

/* Numbers of commands are whole: those of the configuration may be shorter with an exponent. */
static void test_numbers_of_commands_have_no_exponent(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    f.info.bytes_sent = 100000;
    f.info.bytes_received = 18014398509481987; /* beyond 2^53 */
    expect(&f, false, "{\"a\":\"%BYTES_SENT%\",\"b\":\"%BYTES_RECEIVED%\",\"c\":\"x%BYTES_SENT%\"}",
           "{\"a\":100000,\"b\":18014398509481988,\"c\":\"x100000\"}");
    fixture_dispose(&f);
}

static void test_omitted_values(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    expect(
        &f, true,
        "{\"a\":\"%TRACE_ID%\",\"b\":\"x%TRACE_ID%y\",\"c\":\"%DURATION%\",\"e\":[\"%TRACE_ID%\","
        "\"%PROTOCOL%\","
        "1,true,null,1.5],\"f\":{\"g\":\"%TRACE_ID%\",\"z\":\"k\"},\"\":\"k\"}",
        "{\"\":\"k\",\"b\":\"xy\",\"c\":12,\"e\":[\"HTTP/1.1\",1,true,1.5],\"f\":{\"z\":\"k\"}}");
    expect(&f, true,
           "{\"l\":[{},{\"a\":\"%TRACE_ID%\"},[],null,[\"%TRACE_ID%\"],{\"a\":{\"b\":{}}},\"x\"],"
           "\"n\":{\"l\":[]},\"t\":\"%TRACE_ID%%SPAN_ID%\",\"e\":\"\",\"o\":{\"p\":{\"q\":\"%TRACE_"
           "ID%\"}}}",
           "{\"e\":\"\",\"l\":[[],[],\"x\"],\"n\":{\"l\":[]},\"t\":\"\"}");
    expect(&f, true, "{\"t\":\"%TRACE_ID%\"}", "{}");
    expect(&f, true, "{}", "{}");
    expect(&f, true,
           "{\"m\":\"%REQ(x-none)%%%\",\"o\":{\"only\":null},\"p\":\"%DOWNSTREAM_DIRECT_LOCAL_PORT%"
           "\"}",
           "{\"m\":\"%\"}");
    expect(&f, false, "{}", "{}");
    fixture_dispose(&f);
}

static struct kb_str metadata_of(struct fixture *f, const char *json)
{
    ProtobufCMessage *message =
        kb_pb_json_parse(&envoy__config__core__v3__metadata__descriptor, KB_STR(""),
                         kb_str_from_cstr(json), KB_PB_UNKNOWN_ERROR, &f->arena, &f->diag);

    assert_non_null(message);
    return kb_pb_pack(message, &f->arena);
}

static void test_metadata(void **state)
{
    struct kb_route route;
    struct fixture f;

    (void)state;
    fixture_init(&f);
    memset(&route, 0, sizeof(route));
    route.metadata = metadata_of(
        &f, "{\"filter_metadata\":{\"ns\":{\"key\":\"r\\\"v\",\"n\":3,\"b\":true,\"nul\":null,"
            "\"f\":1.25,\"o\":{\"z\":1,\"a\":[1,\"x\",{}]}},\"other\":{}}}");
    route.virtual_host_metadata =
        metadata_of(&f, "{\"filter_metadata\":{\"ns\":{\"key\":\"vv\"}}}");
    f.cluster.metadata = metadata_of(&f, "{\"filter_metadata\":{\"ns\":{\"key\":\"cv\"}}}");
    f.host->metadata =
        kb_shared_text_create(metadata_of(&f, "{\"filter_metadata\":{\"ns\":{\"key\":\"uv\"}}}"));
    f.connection.listener_metadata =
        metadata_of(&f, "{\"filter_metadata\":{\"ns\":{\"key\":\"lv\"}}}");
    fixture_expect(&f, "%METADATA(ROUTE:ns:key)% %METADATA(LISTENER:ns:key)%", "- lv");
    f.info.route = &route;
    fixture_expect(&f, "%METADATA(ROUTE:ns:key)%", "r\"v");
    fixture_expect(&f, "%METADATA(ROUTE:ns:key):2%", "r\"");
    fixture_expect(
        &f, "%METADATA(VIRTUAL_HOST:ns:key)% %METADATA(CLUSTER:ns:key)% %CLUSTER_METADATA(ns:key)%",
        "vv cv cv");
    fixture_expect(&f, "%METADATA(UPSTREAM_HOST:ns:key)% %UPSTREAM_METADATA(ns:key)%", "uv uv");
    fixture_expect(&f, "%METADATA(ROUTE:ns:n)% %METADATA(ROUTE:ns:b)% %METADATA(ROUTE:ns:f)%",
                   "3 true 1.25");
    fixture_expect(&f, "%METADATA(ROUTE:ns:o)%|%METADATA(ROUTE:ns:o:a)%",
                   "{\"a\":[1,\"x\",{}],\"z\":1}|[1,\"x\",{}]");
    fixture_expect(&f,
                   "%METADATA(ROUTE:ns:nul)% %METADATA(ROUTE:ns:none)% %METADATA(ROUTE:ns:key:x)%",
                   "- - -");
    fixture_expect(&f, "%METADATA(ROUTE:none)% %METADATA(ROUTE)% %METADATA(DYNAMIC:ns:key)%",
                   "- - -");
    fixture_expect(&f, "%METADATA(ROUTE:other)% %DYNAMIC_METADATA(ns:key)%", "{} -");
    /* alone, the value keeps its type and is not cut */
    expect(&f, false,
           "{\"a\":\"%METADATA(ROUTE:ns)%\",\"b\":\"%METADATA(ROUTE:ns:key):2%\",\"c\":\"%METADATA("
           "ROUTE:ns:f)%\","
           "\"d\":\"x%METADATA(ROUTE:ns:o:a):6%\",\"e\":\"%METADATA(ROUTE:ns:nul)%\"}",
           "{\"a\":{\"b\":true,\"f\":1.25,\"key\":\"r\\\"v\",\"n\":3,\"nul\":null,\"o\":{\"a\":[1,"
           "\"x\",{}],\"z\":1}},"
           "\"b\":\"r\\\"v\",\"c\":1.25,\"d\":\"x[1,\\\"x\\\"\",\"e\":null}");
    expect(&f, true, "{\"a\":\"%METADATA(ROUTE:other)%\",\"e\":\"%METADATA(ROUTE:ns:nul)%\"}",
           "{\"a\":{}}");
    kb_shared_text_unref(f.host->metadata);
    fixture_dispose(&f);
}

static void test_errors_name_the_member(void **state)
{
    struct fixture f;
    bool found = false;

    (void)state;
    fixture_init(&f);
    assert_null(kb_json_formatter_create(
        &f.arena, struct_of(&f, "{\"a\":{\"b\":[\"x\",\"%NOPE%\"]},\"c\":\"%REQ%\"}"), false,
        &f.diag));
    assert_int_equal(f.diag.error_count, 2); /* both, at once */
    for (struct kb_diag_entry *entry = f.diag.first; entry != NULL; entry = entry->next) {
        found |= kb_str_eq(entry->text, KB_STR("Not supported field in StreamInfo: NOPE")) &&
                 kb_str_find(entry->path, KB_STR("values[1]")) >= 0;
    }
    assert_true(found);
    fixture_dispose(&f);
}

static void test_deep_nesting_is_refused(void **state)
{
    struct fixture f;
    char json[600] = "{\"a\":";
    size_t len = strlen(json);

    (void)state;
    fixture_init(&f);
    memset(json + len, '[', 41);
    memset(json + len + 41, ']', 41);
    json[len + 82] = '}';
    json[len + 83] = '\0';
    assert_null(kb_json_formatter_create(&f.arena, struct_of(&f, json), false, &f.diag));
    assert_int_equal(f.diag.error_count, 1);
    fixture_dispose(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_are_sorted_and_types_kept),
        cmocka_unit_test(test_mixed_text_is_a_string),
        cmocka_unit_test(test_ports_masks_and_statuses_have_json_types),
        cmocka_unit_test(test_strings_are_escaped),
        cmocka_unit_test(test_utf8_is_judged_by_rfc_3629),
        cmocka_unit_test(test_numbers_take_their_shortest_form),
        cmocka_unit_test(test_numbers_of_commands_have_no_exponent),
        cmocka_unit_test(test_omitted_values),
        cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_errors_name_the_member),
        cmocka_unit_test(test_deep_nesting_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
