/* SPDX-License-Identifier: Apache-2.0 */
/* Tree to message: names, scalars in all their spellings, lists, maps, oneofs, Any, and the errors
 * with their places. */
#include "tests/unit/proto/proto_test.h"

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/config/core/v3/base.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"

#define BOOTSTRAP (&envoy__config__bootstrap__v3__bootstrap__descriptor)
#define CLUSTER   (&envoy__config__cluster__v3__cluster__descriptor)

static void assert_reads(struct fixture *f, const ProtobufCMessageDescriptor *type,
                         const char *json, const char *expected)
{
    const void *message = from_json(f, type, json);

    if (message == NULL) {
        fail_msg("%s: %s", json, reported(f));
    }
    assert_string_equal(to_json(f, message, 0), expected);
}

static void assert_fails(struct fixture *f, const ProtobufCMessageDescriptor *type,
                         const char *json, const char *expected)
{
    assert_null(from_json(f, type, json));
    assert_string_equal(reported(f), expected);
}

static void test_names(void **state)
{
    struct fixture *f = *state;

    assert_reads(f, CLUSTER, "{\"connectTimeout\":\"1s\",\"dns_refresh_rate\":\"2s\"}",
                 "{\"connect_timeout\":\"1s\",\"dns_refresh_rate\":\"2s\"}");
    assert_fails(
        f, CLUSTER, "{\"connect_timeut\":\"1s\",\n \"hosts\": [],\"Name\":1}",
        "t.json:1:2: error: connect_timeut: no such field: 'connect_timeut' in "
        "envoy.config.cluster.v3.Cluster (did you mean 'connect_timeout'?)\n"
        "t.json:2:2: error: hosts: no such field: 'hosts' in envoy.config.cluster.v3.Cluster\n"
        "t.json:2:14: error: Name: no such field: 'Name' in envoy.config.cluster.v3.Cluster "
        "(did you mean 'name'?)\n");
    assert_fails(f, BOOTSTRAP, "{\"node\":{\"locality\":{\"planet\":\"x\"}}}",
                 "t.json:1:22: error: node.locality.planet: no such field: 'planet' in "
                 "envoy.config.core.v3.Locality "
                 "(its fields are: region, zone, sub_zone)\n");
}

static void test_unknown_can_be_a_warning(void **state)
{
    struct fixture *f = *state;
    const void *message = kb_pb_json_parse(CLUSTER, KB_STR("t.json"),
                                           KB_STR("{\"a\":1,\"type\":\"NOPE\",\"name\":\"x\"}"),
                                           KB_PB_UNKNOWN_WARN, &f->arena, &f->diag);

    assert_non_null(message);
    assert_int_equal(f->diag.error_count, 0);
    assert_int_equal(f->diag.warning_count, 2);
    assert_string_equal(((const Envoy__Config__Cluster__V3__Cluster *)message)->name, "x");
}

static void test_integers(void **state)
{
    struct fixture *f = *state;
    static const char *const ten[] = {"10",      "\"10\"",         "10.0",
                                      "1e1",     "\"1e1\"",        "\"10.0\"",
                                      "\"0xa\"", "{\"value\":10}", "{\"value\":\"10\"}"};
    static const char *const bad[] = {"10.5", "-1",      "4294967296", "\"\"", "\" 10\"",
                                      "true", "\"ten\"", "[10]",       "1e99", "\"NaN\""};

    for (size_t i = 0; i < KB_ARRAY_LEN(ten); i++) {
        struct kb_str json =
            kb_str_printf(&f->arena, "{\"per_connection_buffer_limit_bytes\":%s}", ten[i]);

        assert_reads(f, CLUSTER, json.p, "{\"per_connection_buffer_limit_bytes\":10}");
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++) {
        struct kb_str json =
            kb_str_printf(&f->arena, "{\"per_connection_buffer_limit_bytes\":%s}", bad[i]);

        assert_null(from_json(f, CLUSTER, json.p));
        assert_non_null(
            strstr(reported(f), "t.json:1:38: error: per_connection_buffer_limit_bytes: "));
    }
    assert_reads(f, kb_pb_type_find(KB_STR("google.protobuf.UInt64Value")),
                 "\"18446744073709551615\"", "\"18446744073709551615\"");
    assert_reads(f, kb_pb_type_find(KB_STR("google.protobuf.Int64Value")), "-9223372036854775808",
                 "\"-9223372036854775808\"");
    assert_null(
        from_json(f, kb_pb_type_find(KB_STR("google.protobuf.Int64Value")), "9223372036854775808"));
    assert_null(from_json(f, kb_pb_type_find(KB_STR("google.protobuf.UInt64Value")),
                          "18446744073709551616"));
    assert_null(from_json(f, kb_pb_type_find(KB_STR("google.protobuf.Int32Value")), "-2147483649"));
}

static void test_other_scalars(void **state)
{
    struct fixture *f = *state;

    assert_reads(f, CLUSTER, "{\"respect_dns_ttl\":\"true\"}", "{\"respect_dns_ttl\":true}");
    assert_fails(f, CLUSTER, "{\"respect_dns_ttl\":1}",
                 "t.json:1:20: error: respect_dns_ttl: expected 'true' or 'false', not a number\n");
    assert_fails(f, BOOTSTRAP, "{\"node\":{\"id\":123}}",
                 "t.json:1:15: error: node.id: expected text, not a number (put it in quotes)\n");
    assert_fails(f, BOOTSTRAP, "{\"node\":{\"id\":\"a\\u0000b\"}}",
                 "t.json:1:15: error: node.id: text with a NUL character in it is not supported\n");
    assert_reads(f, kb_pb_type_find(KB_STR("google.protobuf.DoubleValue")), "\"-Infinity\"",
                 "\"-Infinity\"");
    assert_reads(f, kb_pb_type_find(KB_STR("google.protobuf.DoubleValue")), "\"50\"", "50");
    assert_null(from_json(f, kb_pb_type_find(KB_STR("google.protobuf.DoubleValue")), "1e400"));
    assert_reads(f, kb_pb_type_find(KB_STR("google.protobuf.BytesValue")), "\"AA-_\"", "\"AA+/\"");
    assert_reads(f, kb_pb_type_find(KB_STR("google.protobuf.BytesValue")), "\"AAE\"", "\"AAE=\"");
    assert_reads(f, kb_pb_type_find(KB_STR("google.protobuf.BytesValue")), "\"AA==\"", "\"AA==\"");
    assert_null(from_json(f, kb_pb_type_find(KB_STR("google.protobuf.BytesValue")), "\"AA=\""));
    assert_null(from_json(f, kb_pb_type_find(KB_STR("google.protobuf.BytesValue")), "\"A!==\""));
    assert_null(from_json(f, kb_pb_type_find(KB_STR("google.protobuf.BytesValue")), "\"A\""));
}

static void test_enums(void **state)
{
    struct fixture *f = *state;

    assert_reads(f, CLUSTER, "{\"type\":\"strict_dns\"}", "{\"type\":\"STRICT_DNS\"}");
    assert_reads(f, CLUSTER, "{\"type\":\"1\"}", "{\"type\":\"STRICT_DNS\"}");
    assert_reads(f, CLUSTER, "{\"type\":1.0}", "{\"type\":\"STRICT_DNS\"}");
    assert_reads(f, CLUSTER, "{\"type\":99}", "{\"type\":99}");
    assert_fails(f, CLUSTER, "{\"type\":\"strict-dnss\"}",
                 "t.json:1:9: error: type: unknown enum value: 'strict-dnss' of "
                 "envoy.config.cluster.v3.Cluster.DiscoveryType (did you mean 'STRICT_DNS'?)\n");
}

static void test_lists_maps_and_null(void **state)
{
    struct fixture *f = *state;
    const char *node = "{\"id\":\"x\",\"client_features\":[\"\",\"a\"]}";

    assert_reads(f, &envoy__config__core__v3__node__descriptor,
                 "{\"id\":\"x\",\"client_features\":[null,\"a\"]}", node);
    assert_reads(f, &envoy__config__core__v3__node__descriptor, "{\"client_features\":\"a\"}",
                 "{\"client_features\":[\"a\"]}");
    assert_reads(f, &envoy__config__core__v3__node__descriptor,
                 "{\"client_features\":[[\"a\",\"b\"],\"c\",[[],[\"d\"]]]}",
                 "{\"client_features\":[\"a\",\"b\",\"c\",\"d\"]}");
    assert_reads(
        f, BOOTSTRAP,
        "{\"node\":null,\"static_resources\":{\"clusters\":{\"name\":\"c\"},\"listeners\":null}}",
        "{\"static_resources\":{\"clusters\":[{\"name\":\"c\"}]}}");
    assert_reads(f, &envoy__config__core__v3__node__descriptor,
                 "{\"dynamic_parameters\":{\"x\":null}}", "{\"dynamic_parameters\":{\"x\":{}}}");
    assert_fails(f, &envoy__config__core__v3__node__descriptor,
                 "{\"dynamic_parameters\":{\"x\":{\"params\":{\"a\":\"b\",\"a\":\"c\"}}}}",
                 "t.json:1:51: error: dynamic_parameters[\"x\"].params[\"a\"]: the name stands "
                 "twice in the map\n");
    assert_fails(f, &envoy__config__core__v3__node__descriptor, "{\"dynamic_parameters\":[{}]}",
                 "t.json:1:23: error: dynamic_parameters: expected an object of names and values, "
                 "not a list\n");
    assert_fails(
        f, BOOTSTRAP, "{\"node\":[]}",
        "t.json:1:9: error: node: expected an object for envoy.config.core.v3.Node, not a list\n");
}

static void test_names_twice(void **state)
{
    struct fixture *f = *state;

    assert_reads(f, BOOTSTRAP,
                 "{\"node\":{\"id\":\"a\",\"cluster\":\"b\"},\"node\":{\"id\":\"c\"}}",
                 "{\"node\":{\"id\":\"c\",\"cluster\":\"b\"}}");
    assert_reads(f, BOOTSTRAP, "{\"stats_flush_interval\":\"5s\",\"stats_flush_interval\":\"6s\"}",
                 "{\"stats_flush_interval\":\"6s\"}");
    assert_fails(f, CLUSTER, "{\"type\":\"STATIC\",\"type\":\"STATIC\"}",
                 "t.json:1:25: error: type: 'type' stands here twice\n");
    assert_fails(f, CLUSTER, "{\"type\":\"STATIC\",\"cluster_type\":{\"name\":\"x\"}}",
                 "t.json:1:33: error: cluster_type: 'cluster_type' cannot stand beside 'type': "
                 "only one of them can be "
                 "set\n");
    assert_reads(f, CLUSTER, "{\"type\":\"STRICT_DNS\",\"clusterType\":null}",
                 "{\"type\":\"STRICT_DNS\"}");
}

static void test_durations_and_times(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *text;
        const char *error;
    } bad[] = {
        {"\"5x\"", "duration must end with a single 's'"},
        {"\"250ms\"", "duration must end with a single 's'"},
        {"\"1e1s\"", "duration must end with a single 's'"},
        {"\"+1s\"", "duration must start with an integer"},
        {"\".5s\"", "duration must start with an integer"},
        {"\" 1s\"", "duration must start with an integer"},
        {"\"1.s\"", "duration had bad nanoseconds"},
        {"\"1.0000000001s\"", "duration had bad nanoseconds"},
        {"\"315576000001s\"", "duration out of range"},
        {"5", "expected a duration such as \"1.5s\", not a number"},
    };
    const ProtobufCMessageDescriptor *time = &google__protobuf__timestamp__descriptor;

    assert_reads(f, CLUSTER, "{\"connect_timeout\":\"1.5s\"}", "{\"connect_timeout\":\"1.500s\"}");
    assert_reads(f, CLUSTER, "{\"connect_timeout\":\"-0.000001s\"}",
                 "{\"connect_timeout\":\"-0.000001s\"}");
    assert_reads(f, CLUSTER, "{\"connect_timeout\":{\"seconds\":\"1\",\"nanos\":5}}",
                 "{\"connect_timeout\":\"1.000000005s\"}");
    for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++) {
        struct kb_str json = kb_str_printf(&f->arena, "{\"connect_timeout\":%s}", bad[i].text);

        assert_fails(
            f, CLUSTER, json.p,
            kb_str_printf(&f->arena, "t.json:1:20: error: connect_timeout: %s\n", bad[i].error).p);
    }
    assert_reads(f, time, "\"2026-11-22T01:02:03.5Z\"", "\"2026-11-22T01:02:03.500Z\"");
    assert_reads(f, time, "\"2024-02-29T23:30:00-01:00\"", "\"2024-03-01T00:30:00Z\"");
    assert_reads(f, time, "\"0001-01-01T00:00:00Z\"", "\"0001-01-01T00:00:00Z\"");
    assert_reads(f, time, "\"1969-12-31T23:59:59Z\"", "\"1969-12-31T23:59:59Z\"");
    assert_null(from_json(f, time, "\"2026-13-22T01:02:03Z\""));
    assert_null(from_json(f, time, "\"2026-11-22 01:02:03Z\""));
    assert_reads(f, &google__protobuf__field_mask__descriptor, "\"a.fooBar,b\"", "\"a.fooBar,b\"");
}

#define RAW  "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
#define HOST "type.googleapis.com/"

static void test_any(void **state)
{
    struct fixture *f = *state;
    const ProtobufCMessageDescriptor *type =
        kb_pb_type_find(KB_STR("envoy.config.core.v3.TypedExtensionConfig"));
    static const struct {
        const char *text;
        const char *error;
    } bad[] = {
        {"{\"a\":1}",
         "17: error: typed_config: \"@type\" is missing: it says which message this is\n"},
        {"{\"@type\":\"" RAW "\"}",
         "26: error: typed_config: @type must contain at least one / and a nonempty host; "
         "got: " RAW "\n"},
        {"{\"@type\":\"" HOST "foo.Bar\"}",
         "26: error: typed_config: could not find @type '" HOST "foo.Bar'\n"},
        {"{\"@type\":\"" HOST "envoy.foo.v3.RawBuffer\"}",
         "26: error: typed_config: could not find @type '" HOST
         "envoy.foo.v3.RawBuffer' (did you mean '" HOST RAW "'?)\n"},
        {"{\"@type\":5}",
         "26: error: typed_config: expected the type URL of a message, not a number\n"},
        {"{\"@type\":\"" HOST "envoy.config.core.v3.Pipe\",\"path\":5}",
         "81: error: typed_config.path: expected text, not a number (put it in quotes)\n"},
        {"{\"@type\":\"" HOST "google.protobuf.Empty\",\"value\":{}}",
         "70: error: typed_config.value: no such field: 'value' in google.protobuf.Empty\n"},
    };

    assert_reads(f, type, "{\"typed_config\":{}}", "{\"typed_config\":{}}");
    assert_reads(f, type,
                 "{\"typed_config\":{\"path\":\"p\",\"@type\":\"h/envoy.config.core.v3.Pipe\"}}",
                 "{\"typed_config\":{\"@type\":\"h/envoy.config.core.v3.Pipe\",\"path\":\"p\"}}");
    assert_reads(
        f, type,
        "{\"typed_config\":{\"@type\":\"" HOST "google.protobuf.Duration\",\"value\":\"1s\"}}",
        "{\"typed_config\":{\"@type\":\"" HOST "google.protobuf.Duration\",\"value\":\"1s\"}}");
    assert_reads(
        f, type,
        "{\"typed_config\":{\"@type\":\"" HOST
        "envoy.config.core.v3.TypedExtensionConfig\",\"name\":\"n\","
        "\"typed_config\":{\"@type\":\"" HOST "google.protobuf.Struct\",\"value\":{\"a\":[1]}}}}",
        "{\"typed_config\":{\"@type\":\"" HOST
        "envoy.config.core.v3.TypedExtensionConfig\",\"name\":\"n\","
        "\"typed_config\":{\"@type\":\"" HOST "google.protobuf.Struct\",\"value\":{\"a\":[1]}}}}");
    for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++) {
        struct kb_str json = kb_str_printf(&f->arena, "{\"typed_config\":%s}", bad[i].text);

        assert_fails(f, type, json.p, kb_str_printf(&f->arena, "t.json:1:%s", bad[i].error).p);
    }
}

static void test_depth_of_messages_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct kb_str json = KB_STR("1");

    for (int i = 0; i < KB_PB_DEPTH_MAX; i++) {
        json = kb_str_printf(&f->arena, "[%.*s]", KB_STR_ARG(json));
    }
    assert_null(from_json(f, kb_pb_type_find(KB_STR("google.protobuf.Value")), json.p));
    assert_non_null(strstr(reported(f), "messages are nested more than 100 levels deep"));
}

static void test_all_errors_at_once(void **state)
{
    struct fixture *f = *state;

    assert_null(from_yaml(f, BOOTSTRAP,
                          "node: {id: 1, cluster: true}\n"
                          "static_resources:\n"
                          "  clusters:\n"
                          "  - name: [x]\n"
                          "    connect_timeout: 5\n"));
    assert_string_equal(
        reported(f),
        "t.yaml:1:12: error: node.id: expected text, not a number (put it in quotes)\n"
        "t.yaml:1:24: error: node.cluster: expected text, not the boolean true (put it in quotes)\n"
        "t.yaml:4:11: error: static_resources.clusters[0].name: expected text, not a list\n"
        "t.yaml:5:22: error: static_resources.clusters[0].connect_timeout: expected a duration "
        "such as "
        "\"1.5s\", not a number\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_names),
        TEST(test_unknown_can_be_a_warning),
        TEST(test_integers),
        TEST(test_other_scalars),
        TEST(test_enums),
        TEST(test_lists_maps_and_null),
        TEST(test_names_twice),
        TEST(test_durations_and_times),
        TEST(test_any),
        TEST(test_depth_of_messages_is_bounded),
        TEST(test_all_errors_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
