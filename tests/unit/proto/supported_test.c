/* SPDX-License-Identifier: Apache-2.0 */
/* What is set and not implemented is named, with its path, through Any. */
#include "tests/unit/proto/proto_test.h"

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "proto/supported.h"

struct seen {
    struct fixture *fixture;
    struct kb_str text;
};

static void visit(void *arg, struct kb_str path, const ProtobufCMessageDescriptor *type,
                  const ProtobufCFieldDescriptor *field)
{
    struct seen *seen = arg;

    seen->text = kb_str_printf(&seen->fixture->arena, "%.*s%.*s=%s.%s\n", KB_STR_ARG(seen->text),
                               KB_STR_ARG(path), strrchr(type->name, '.') + 1, field->name);
}

static const char *walk(struct fixture *f, const char *prefix, const char *yaml)
{
    struct seen seen = {.fixture = f, .text = KB_STR("")};
    const ProtobufCMessage *message =
        from_yaml(f, &envoy__config__bootstrap__v3__bootstrap__descriptor, yaml);

    if (message == NULL) {
        fail_msg("%s: %s", yaml, reported(f));
    }
    kb_supported_walk(message, kb_str_from_cstr(prefix), visit, &seen);
    return seen.text.p;
}

static void test_listed_fields(void **state)
{
    const ProtobufCMessageDescriptor *type = &envoy__config__cluster__v3__cluster__descriptor;

    (void)state;
    assert_true(kb_supported_field(kb_pb_field_find(type, KB_STR("name"))));
    assert_true(kb_supported_field(kb_pb_field_find(type, KB_STR("connect_timeout"))));
    assert_false(kb_supported_field(kb_pb_field_find(type, KB_STR("wait_for_warm_on_init"))));
}

static void test_walk_names_the_rest(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(
        walk(f, "",
             "{node: {id: a, metadata: {x: {y: 1}}}, static_resources: {clusters: [{name: c,"
             " connect_timeout: 1s}]}}"),
        "");
    assert_string_equal(
        walk(f, "",
             "{perf_tracing_file_path: p, static_resources: {clusters: [{name: c},"
             " {name: d, wait_for_warm_on_init: true}]}}"),
        "static_resources.clusters[1].wait_for_warm_on_init=Cluster.wait_for_warm_on_init\n"
        "perf_tracing_file_path=Bootstrap.perf_tracing_file_path\n");
    assert_string_equal(walk(f, "at", "perf_tracing_file_path: p"),
                        "at.perf_tracing_file_path=Bootstrap.perf_tracing_file_path\n");
}

#define OPTIONS "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

static void test_walk_goes_through_any(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(walk(f, "",
                             "{static_resources: {clusters: [{name: c, "
                             "typed_extension_protocol_options: {k: {\"@type\": t/" OPTIONS
                             ", header_validation_config: {}}}}]}}"),
                        "static_resources.clusters[0].typed_extension_protocol_options[\"k\"]."
                        "header_validation_config="
                        "HttpProtocolOptions.header_validation_config\n");
}

static void test_walk_goes_through_typed_struct(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(
        walk(f, "",
             "{static_resources: {clusters: [{name: c, typed_extension_protocol_options: {k: "
             "{\"@type\": "
             "t/xds.type.v3.TypedStruct, type_url: t/" OPTIONS
             ", value: {explicit_http_config: {http_protocol_options: {}}, "
             "request_mirror_policies: [{cluster: c}]}}}}]}}"),
        "static_resources.clusters[0].typed_extension_protocol_options[\"k\"].request_mirror_"
        "policies="
        "HttpProtocolOptions.request_mirror_policies\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_listed_fields),
        TEST(test_walk_names_the_rest),
        TEST(test_walk_goes_through_any),
        TEST(test_walk_goes_through_typed_struct),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
