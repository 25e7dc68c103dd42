/* SPDX-License-Identifier: Apache-2.0 */
/* The messages of Istio's own filters: the bytes and the TypedStruct forms in which they come. */
#include "tests/unit/proto/proto_test.h"

#include "istio/alpn.pb-c.h"
#include "istio/metadata_exchange.pb-c.h"
#include "istio/peer_metadata.pb-c.h"
#include "istio/stats.pb-c.h"

static Google__Protobuf__Any any_of_bytes(const char *url, const char *bytes, size_t len)
{
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;

    any.type_url = (char *)(uintptr_t)url;
    any.value = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)bytes, .len = len};
    return any;
}

static const Google__Protobuf__Any *typed_struct(struct fixture *f, const char *type,
                                                 const char *value)
{
    const char *yaml = kb_str_printf(&f->arena,
                                     "{\"@type\": type.googleapis.com/udpa.type.v1.TypedStruct, "
                                     "type_url: type.googleapis.com/%s, value: %s}",
                                     type, value)
                           .p;

    return from_yaml(f, &google__protobuf__any__descriptor, yaml);
}

static void test_alpn(void **state)
{
    static const char bytes[] = "\n\x0d\x12\x04"
                                "http\x12\x05istio"
                                "\n\x0b\x08\x02\x12\x02h2\x12\x03xyz";
    struct fixture *f = *state;
    Google__Protobuf__Any any = any_of_bytes(
        "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", bytes,
        sizeof(bytes) - 1);
    Istio__Envoy__Config__Filter__Http__Alpn__V2alpha1__FilterConfig *config =
        (void *)kb_any_unpack(&any, NULL, &f->arena, &f->diag);

    assert_non_null(config);
    assert_int_equal(config->n_alpn_override, 2);
    assert_int_equal(config->alpn_override[0]->upstream_protocol, 0);
    assert_string_equal(config->alpn_override[0]->alpn_override[1], "istio");
    assert_int_equal(config->alpn_override[1]->upstream_protocol, 2);
    assert_string_equal(config->alpn_override[1]->alpn_override[0], "h2");
}

static void test_stats(void **state)
{
    struct fixture *f = *state;
    Google__Protobuf__Any any = any_of_bytes("type.googleapis.com/stats.PluginConfig", "0\x01", 2);
    Stats__PluginConfig *config = (void *)kb_any_unpack(&any, NULL, &f->arena, &f->diag);

    assert_non_null(config);
    assert_true(config->disable_host_header_fallback);
    assert_int_equal(config->n_metrics, 0);
    assert_null(config->tcp_reporting_duration);
}

static void test_metadata_exchange(void **state)
{
    struct fixture *f = *state;
    const Google__Protobuf__Any *any =
        typed_struct(f, "envoy.tcp.metadataexchange.config.MetadataExchange",
                     "{protocol: istio-peer-exchange, enable_discovery: true}");
    Envoy__Tcp__Metadataexchange__Config__MetadataExchange *config =
        (void *)kb_any_unpack(any, NULL, &f->arena, &f->diag);

    assert_non_null(config);
    assert_string_equal(config->protocol, "istio-peer-exchange");
    assert_true(config->enable_discovery->value);
}

static void test_peer_metadata(void **state)
{
    struct fixture *f = *state;
    const Google__Protobuf__Any *any =
        typed_struct(f, "io.istio.http.peer_metadata.Config",
                     "{upstream_propagation: [{istio_headers: {skip_external_clusters: true}}], "
                     "upstream_discovery: [{istio_headers: {}}, {workload_discovery: {}}]}");
    Io__Istio__Http__PeerMetadata__Config *config =
        (void *)kb_any_unpack(any, NULL, &f->arena, &f->diag);

    assert_non_null(config);
    assert_int_equal(config->n_upstream_propagation, 1);
    assert_true(config->upstream_propagation[0]->istio_headers->skip_external_clusters);
    assert_int_equal(config->n_upstream_discovery, 2);
    assert_int_equal(
        config->upstream_discovery[1]->method_specifier_case,
        IO__ISTIO__HTTP__PEER_METADATA__CONFIG__DISCOVERY_METHOD__METHOD_SPECIFIER_WORKLOAD_DISCOVERY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_alpn),
        TEST(test_stats),
        TEST(test_metadata_exchange),
        TEST(test_peer_metadata),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
