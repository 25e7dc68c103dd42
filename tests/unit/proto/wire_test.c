/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes to message: round trips, merging, unknown fields, and the bounds. */
#include "tests/unit/proto/proto_test.h"

#include "envoy/config/bootstrap/v3/bootstrap.pb-c.h"
#include "envoy/config/cluster/v3/cluster.pb-c.h"
#include "envoy/config/endpoint/v3/endpoint.pb-c.h"
#include "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.pb-c.h"
#include "google/protobuf/struct.pb-c.h"
#include "google/protobuf/wrappers.pb-c.h"
#include "proto/address.h"
#include "proto/wire.h"

static struct kb_str bytes_of(const char *p, size_t len)
{
    return kb_str_make(p, len);
}

static void test_round_trip_keeps_every_kind_of_field(void **state)
{
    struct fixture *f = *state;
    const char *text =
        "{name: c, type: STRICT_DNS, connect_timeout: 1.5s, per_connection_buffer_limit_bytes: 0,"
        " metadata: {filter_metadata: {a: {n: 1, l: [true, null, x]}}}, dns_refresh_rate: 5s,"
        " load_assignment: {cluster_name: c, endpoints: [{priority: 3}, {}, {priority: 4}]},"
        " lb_subset_config: {subset_selectors: [{keys: [a, b]}]}, dns_lookup_family: 2}";
    Envoy__Config__Cluster__V3__Cluster *cluster =
        from_yaml(f, &envoy__config__cluster__v3__cluster__descriptor, text);
    struct kb_str packed = kb_pb_pack(&cluster->base, &f->arena);
    ProtobufCMessage *again = NULL;

    assert_int_equal(kb_pb_unpack(cluster->base.descriptor, packed, &f->arena, &again), 0);
    assert_string_equal(to_json(f, again, 0), to_json(f, cluster, 0));
    assert_non_null(
        ((Envoy__Config__Cluster__V3__Cluster *)(void *)again)->per_connection_buffer_limit_bytes);
    assert_int_equal(
        ((Envoy__Config__Cluster__V3__Cluster *)(void *)again)->load_assignment->n_endpoints, 3);
}

static void test_libprotobuf_c_reads_the_same(void **state)
{
    struct fixture *f = *state;
    Envoy__Config__Cluster__V3__Cluster *cluster = from_yaml(
        f, &envoy__config__cluster__v3__cluster__descriptor, "{name: c, connect_timeout: 1.5s}");
    struct kb_str packed = kb_pb_pack(&cluster->base, &f->arena);
    ProtobufCAllocator allocator = kb_pb_allocator(&f->arena);
    Envoy__Config__Cluster__V3__Cluster *other = envoy__config__cluster__v3__cluster__unpack(
        &allocator, packed.len, (const uint8_t *)packed.p);

    assert_non_null(other);
    assert_string_equal(other->name, "c");
    assert_int_equal(other->connect_timeout->nanos, 500000000);
}

static void test_merge_appends_replaces_and_merges(void **state)
{
    struct fixture *f = *state;
    const ProtobufCMessageDescriptor *type = &envoy__config__bootstrap__v3__bootstrap__descriptor;
    void *into = from_yaml(
        f, type,
        "{node: {id: a, cluster: b}, stats_flush_interval: 5s,"
        " static_resources: {clusters: [{name: x}]}, admin: {address: {pipe: {path: p}}}}");
    void *from = from_yaml(f, type,
                           "{node: {id: c}, static_resources: {clusters: [{name: w}, {name: z}]},"
                           " admin: {address: {socket_address: {address: q}}}}");

    assert_int_equal(kb_pb_merge(into, from, &f->arena), 0);
    assert_string_equal(to_json(f, into, 0), "{\"node\":{\"id\":\"c\",\"cluster\":\"b\"},\"static_"
                                             "resources\":{\"clusters\":[{\"name\":\"x\"},"
                                             "{\"name\":\"w\"},{\"name\":\"z\"}]},\"stats_flush_"
                                             "interval\":\"5s\",\"admin\":{\"address\":"
                                             "{\"socket_address\":{\"address\":\"q\"}}}}");
}

static void test_unknown_fields_are_kept_by_number(void **state)
{
    struct fixture *f = *state;
    /* field 2000 varint 1, a string where name (1) is wanted, field 3000 of length 2 */
    static const char raw[] = "\x80\x7d\x01\x0a\x01k\xc2\xbb\x01\x02zz";
    ProtobufCMessage *message = NULL;

    assert_int_equal(kb_pb_unpack(&envoy__config__cluster__v3__cluster__descriptor,
                                  bytes_of(raw, sizeof(raw) - 1), &f->arena, &message),
                     0);
    assert_int_equal(message->n_unknown_fields, 2);
    assert_int_equal(message->unknown_fields[0].tag, 2000);
    assert_int_equal(message->unknown_fields[1].tag, 3000);
    assert_string_equal(((Envoy__Config__Cluster__V3__Cluster *)(void *)message)->name, "k");
    /* and packing such a message gives something that can be read */
    assert_int_equal(
        kb_pb_unpack(message->descriptor, kb_pb_pack(message, &f->arena), &f->arena, &message), 0);
}

static void test_malformed_bytes_are_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *p;
        size_t len;
    } bad[] = {
        {"\x0a\x05"
         "abc",
         5},                     /* shorter than it says */
        {"\x0a\x02\xff\xfe", 4}, /* not UTF-8 */
        {"\x0a\x03"
         "a\0b",
         5},                                                      /* NUL in text */
        {"\x0f", 1},                                              /* wire type 7 */
        {"\x00\x01", 2},                                          /* field number 0 */
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, /* varint of 11 bytes */
        {"\x0b\x0c\x14", 3}, /* group closed by another number */
        {"\x0b", 1},         /* group without end */
        {"\x21\x01\x02", 3}, /* fixed64 cut */
    };

    for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++) {
        ProtobufCMessage *message = NULL;

        assert_int_equal(kb_pb_unpack(&envoy__config__cluster__v3__cluster__descriptor,
                                      bytes_of(bad[i].p, bad[i].len), &f->arena, &message),
                         KB_EINVALID);
        assert_null(message);
    }
}

/* `tag`, a length in two bytes, and the content. */
static struct kb_str wrapped(struct fixture *f, char tag, struct kb_str content)
{
    char *p = kb_arena_alloc(&f->arena, content.len + 3, 1);

    p[0] = tag;
    p[1] = (char)(0x80 | (content.len & 0x7f));
    p[2] = (char)(content.len >> 7);
    memcpy(p + 3, content.p, content.len);
    return bytes_of(p, content.len + 3);
}

static void test_depth_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct kb_str bytes = KB_STR("");
    ProtobufCMessage *message = NULL;
    unsigned levels = 1;
    int rc = 0;

    while (rc == 0 && levels < 2 * KB_PB_DEPTH_MAX) {
        /* Value { list_value { values: Value ... } } */
        bytes = wrapped(f, 0x32, wrapped(f, 0x0a, bytes));
        levels += 2;
        rc = kb_pb_unpack(&google__protobuf__value__descriptor, bytes, &f->arena, &message);
    }
    assert_int_equal(rc, KB_EDEPTH);
    assert_int_equal(levels, KB_PB_DEPTH_MAX + 1);
}

static void test_memory_is_bounded(void **state)
{
    struct fixture *f = *state;
    size_t count = 1000000;
    char *raw = test_malloc(count * 2);
    ProtobufCMessage *message = NULL;

    for (size_t i = 0; i < count; i++) { /* static_resources.clusters: empty, two bytes each */
        raw[i * 2] = 0x12;
        raw[i * 2 + 1] = 0;
    }
    assert_int_equal(
        kb_pb_unpack(&envoy__config__bootstrap__v3__bootstrap__static_resources__descriptor,
                     bytes_of(raw, count * 2), &f->arena, &message),
        KB_ELIMIT);
    test_free(raw);
}

static void test_packed_and_unpacked_numbers(void **state)
{
    struct fixture *f = *state;
    /* tlv_type (2): packed, one by one, packed */
    static const char raw[] = "\x12\x03\x01\x02\x03\x10\x04\x12\x02\x05\x06";
    const ProtobufCMessageDescriptor *type =
        kb_pb_type_find(KB_STR("envoy.config.core.v3.ProxyProtocolPassThroughTLVs"));
    ProtobufCMessage *message = NULL;

    assert_non_null(type);
    assert_int_equal(kb_pb_unpack(type, bytes_of(raw, sizeof(raw) - 1), &f->arena, &message), 0);
    assert_string_equal(to_json(f, message, 0), "{\"tlv_type\":[1,2,3,4,5,6]}");
}

static void test_utf8(void **state)
{
    (void)state;
    assert_true(kb_utf8_valid("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 10));
    assert_int_equal(kb_utf8_prefix("ab\xc0\xaf", 4), 2);       /* overlong */
    assert_int_equal(kb_utf8_prefix("a\xed\xa0\x80", 4), 1);    /* surrogate */
    assert_int_equal(kb_utf8_prefix("\xf4\x90\x80\x80", 4), 0); /* above U+10FFFF */
    assert_int_equal(kb_utf8_prefix("abc\xe2\x82", 5), 3);      /* cut */
    assert_int_equal(kb_utf8_prefix("\x80", 1), 0);
}

static void test_text_for_a_field(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(kb_pb_text(KB_STR("a\xc3\xa9"), &f->arena), "a\xc3\xa9");
    assert_string_equal(kb_pb_text(kb_str_make("\xff"
                                               "a\xe2\x82"
                                               "b\0",
                                               6),
                                   &f->arena),
                        "!a!!b!");
    assert_string_equal(kb_pb_text(KB_STR_NULL, &f->arena), "");
}

static void test_address_as_a_message(void **state)
{
    struct fixture *f = *state;
    struct kb_addr addr = {0};

    assert_null(kb_address_message(NULL, &f->arena));
    assert_null(kb_address_message(&addr, &f->arena));
    assert_int_equal(kb_addr_from_ip(&addr, KB_STR("::1"), 80), 0);
    assert_string_equal(to_json(f, kb_address_message(&addr, &f->arena), 0),
                        "{\"socket_address\":{\"address\":\"::1\",\"port_value\":80}}");
    assert_int_equal(kb_addr_from_path(&addr, KB_STR("/a\xff")), 0);
    assert_string_equal(to_json(f, kb_address_message(&addr, &f->arena), 0),
                        "{\"pipe\":{\"path\":\"/a!\"}}");
}

static void test_types_and_fields_by_name(void **state)
{
    const ProtobufCMessageDescriptor *before = NULL;
    size_t count = 0;

    (void)state;
    for (const ProtobufCMessageDescriptor *type; (type = kb_pb_type_at(count)) != NULL; count++) {
        assert_ptr_equal(kb_pb_type_find(kb_str_from_cstr(type->name)), type);
        if (before != NULL) {
            assert_true(strcmp(before->name, type->name) < 0);
        }
        for (unsigned i = 0; i < type->n_fields; i++) {
            assert_ptr_equal(kb_pb_field_find(type, kb_str_from_cstr(type->fields[i].name)),
                             &type->fields[i]);
            assert_ptr_equal(kb_pb_field_by_number(type, type->fields[i].id), &type->fields[i]);
        }
        before = type;
    }
    assert_true(count > 900);
    assert_null(kb_pb_type_find(KB_STR("envoy.config.cluster.v3.Clusterx")));
    assert_null(kb_pb_type_find(KB_STR("")));
    assert_null(kb_pb_field_find(before, KB_STR("no_such")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip_keeps_every_kind_of_field),
        TEST(test_libprotobuf_c_reads_the_same),
        TEST(test_merge_appends_replaces_and_merges),
        TEST(test_unknown_fields_are_kept_by_number),
        TEST(test_malformed_bytes_are_refused),
        TEST(test_depth_is_bounded),
        TEST(test_memory_is_bounded),
        TEST(test_packed_and_unpacked_numbers),
        TEST(test_utf8),
        TEST(test_text_for_a_field),
        TEST(test_address_as_a_message),
        TEST(test_types_and_fields_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
