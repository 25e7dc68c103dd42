/* SPDX-License-Identifier: Apache-2.0 */
/* What proxies tell of themselves: read, written, remembered, and shown. */
#include "proxy/ext/common/workload.h"

#include <stdint.h>

#include "base/base64.h"
#include "google/protobuf/struct.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/ext/common/peer_preface.h"
#include "tests/unit/access_log/fixture.h"

static struct kb_str more[] = {{"color", 5}, {"absent", 6}};
static const struct kb_workload_labels labels = {more, 2};

static const char node[] =
    "{\"NAME\": \"blue-1\", \"NAMESPACE\": \"ns\", \"WORKLOAD_NAME\": \"blue\", "
    "\"OWNER\": \"kubernetes://apis/apps/v1/namespaces/ns/deployments/blue\", "
    "\"CLUSTER_ID\": \"K\", \"LABELS\": {\"app\": \"a\", \"version\": \"v1\", \"color\": \"red\", "
    "\"other\": \"x\", \"service.istio.io/canonical-name\": \"svc\", "
    "\"service.istio.io/canonical-revision\": \"rev\"}, \"PROXY_CONFIG\": {\"concurrency\": 2}}";

static const struct Google__Protobuf__Struct *parsed(struct fixture *f, const char *json)
{
    return (const void *)kb_pb_json_parse(&google__protobuf__struct__descriptor, KB_STR(""),
                                          kb_str_from_cstr(json), KB_PB_UNKNOWN_ERROR, &f->arena,
                                          &f->diag);
}

static void assert_text(struct kb_str text, const char *want)
{
    if (!kb_str_eq(text, kb_str_from_cstr(want))) {
        fail_msg("\"%.*s\", not \"%s\"", KB_STR_ARG(text), want);
    }
}

static void test_is_read_from_a_node(void **state)
{
    struct fixture f;
    struct kb_workload *workload;

    (void)state;
    fixture_init(&f);
    workload = kb_workload_from_struct(parsed(&f, node), &labels);
    assert_int_equal(workload->type, KB_WORKLOAD_DEPLOYMENT);
    assert_text(workload->instance, "blue-1");
    assert_text(workload->namespace_name, "ns");
    assert_text(workload->name, "blue");
    assert_text(workload->cluster, "K");
    assert_text(workload->app, "a");
    assert_text(workload->version, "v1");
    assert_text(workload->canonical_name, "svc");
    assert_text(workload->canonical_revision, "rev");
    assert_int_equal(workload->label_count, 1);
    assert_text(workload->labels[0].name, "color");
    assert_text(workload->labels[0].value, "red");
    kb_workload_unref(workload);
    workload = kb_workload_from_struct(NULL, &labels);
    assert_int_equal(workload->name.len, 0);
    kb_workload_unref(workload);
    fixture_dispose(&f);
}

static void test_what_is_written_is_read(void **state)
{
    struct fixture f;
    struct kb_workload *workload, *again;
    struct kb_str text, shown;
    struct kb_json_out out = {0};

    (void)state;
    fixture_init(&f);
    workload = kb_workload_from_struct(parsed(&f, node), &labels);
    kb_pb_json_write(&out, &kb_workload_to_struct(workload, &f.arena)->base, 0, 0);
    assert_text(kb_str_make(out.p, out.len),
                "{\"CLUSTER_ID\":\"K\",\"LABELS\":{\"app\":\"a\",\"color\":\"red\","
                "\"service.istio.io/canonical-name\":\"svc\","
                "\"service.istio.io/canonical-revision\":\"rev\",\"version\":\"v1\"},"
                "\"NAME\":\"blue-1\",\"NAMESPACE\":\"ns\","
                "\"OWNER\":\"kubernetes://apis/apps/v1/namespaces/ns/deployments/blue\","
                "\"WORKLOAD_NAME\":\"blue\"}");
    kb_json_out_dispose(&out);
    text = kb_workload_to_base64(workload, &f.arena);
    while (text.p[text.len - 1] == '=') {
        text.len--; /* padding may be missing */
    }
    again = kb_workload_from_base64(text, &labels);
    assert_non_null(again);
    assert_int_not_equal(again->serial, workload->serial);
    assert_true(kb_workload_state_type.text(workload, &f.arena, &text));
    assert_true(kb_workload_state_type.text(again, &f.arena, &shown));
    assert_true(kb_str_eq(text, shown));
    assert_text(text, "type=deployment,workload=blue,name=blue-1,cluster=K,namespace=ns,"
                      "service=svc,revision=rev,app=a,version=v1,labels[]color=red");
    kb_workload_unref(workload);
    kb_workload_unref(again);
    fixture_dispose(&f);
}

static void test_malformed_is_refused(void **state)
{
    static char large[KB_WORKLOAD_BYTES_MAX * 2];

    (void)state;
    memset(large, 'A', sizeof(large));
    assert_null(kb_workload_from_base64(KB_STR("!"), NULL));
    assert_null(kb_workload_from_base64(KB_STR("AAAAA"), NULL));
    assert_null(kb_workload_from_base64(KB_STR("/////w=="), NULL));
    assert_null(kb_workload_from_base64(kb_str_make(large, sizeof(large)), NULL));
    assert_null(kb_workload_from_endpoint(KB_STR("a;b;c;d")));
    assert_null(kb_workload_from_endpoint(KB_STR("")));
}

static void test_is_read_from_an_endpoint(void **state)
{
    struct kb_workload *workload = kb_workload_from_endpoint(KB_STR("w;n;svc;;K"));

    (void)state;
    assert_text(workload->name, "w");
    assert_text(workload->namespace_name, "n");
    assert_text(workload->canonical_name, "svc");
    assert_text(workload->canonical_revision, "");
    assert_text(workload->cluster, "K");
    kb_workload_unref(workload);
}

static void test_ids_are_remembered(void **state)
{
    struct fixture f;
    struct kb_workload_cache cache;
    struct kb_workload *workload;
    const struct kb_workload *first, *unnamed;
    struct kb_str text;

    (void)state;
    fixture_init(&f);
    kb_workload_cache_init(&cache);
    workload = kb_workload_from_struct(parsed(&f, node), NULL);
    text = kb_workload_to_base64(workload, &f.arena);
    first = kb_workload_cache_read(&cache, KB_STR("id"), text, NULL);
    assert_non_null(first);
    assert_ptr_equal(kb_workload_cache_read(&cache, KB_STR("id"), KB_STR("!"), NULL), first);
    assert_null(kb_workload_cache_read(&cache, KB_STR("id2"), KB_STR("!"), NULL));
    unnamed = kb_workload_cache_read(&cache, KB_STR(""), text, NULL);
    assert_non_null(unnamed);
    assert_null(kb_workload_cache_read(&cache, KB_STR(""), KB_STR("!"), NULL));
    for (unsigned i = 0; i < 2 * KB_WORKLOAD_CACHE_MAX; i++) {
        assert_non_null(
            kb_workload_cache_read(&cache, kb_str_printf(&f.arena, "%u", i), text, NULL));
        assert_true(cache.map.len <= KB_WORKLOAD_CACHE_MAX);
    }
    kb_workload_cache_dispose(&cache);
    kb_workload_unref(workload);
    fixture_dispose(&f);
}

static void test_forms_in_logs(void **state)
{
    struct fixture f;
    struct kb_workload *workload;
    struct kb_filter_state_item item;

    (void)state;
    fixture_init(&f);
    kb_workload_keys_init();
    workload = kb_workload_from_struct(parsed(&f, node), &labels);
    item = (struct kb_filter_state_item){
        .key = kb_workload_downstream_key, .type = &kb_workload_state_type, .object = workload};
    assert_int_equal(kb_filter_state_put_stream(&f.info, &f.arena, &item), 0);
    kb_workload_unref(workload);
    fixture_expect(&f, "%FILTER_STATE(downstream_peer:FIELD:workload)%", "blue");
    fixture_expect(&f, "%FILTER_STATE(downstream_peer:FIELD:type)%", "deployment");
    fixture_expect(&f, "%FILTER_STATE(downstream_peer:FIELD:none)%", "-");
    fixture_expect(&f, "%FILTER_STATE(upstream_peer)%", "-");
    fixture_expect(&f, "%FILTER_STATE(downstream_peer)%",
                   "{\"@type\":\"type.googleapis.com/google.protobuf.Struct\",\"value\":{"
                   "\"app\":\"a\",\"cluster\":\"K\",\"labels\":{\"color\":\"red\"},"
                   "\"name\":\"blue-1\",\"namespace\":\"ns\",\"revision\":\"rev\","
                   "\"service\":\"svc\",\"type\":\"deployment\",\"version\":\"v1\","
                   "\"workload\":\"blue\"}}");
    kb_filter_state_dispose(&f.info.filter_state, &f.arena);
    fixture_dispose(&f);
}

static void test_preface_is_read_as_written(void **state)
{
    struct fixture f;
    struct kb_server_context server = {.node_id = KB_STR("sidecar~1.2.3.4~blue-1.ns~ns")};
    struct kb_workload *peer = NULL;
    struct kb_str preface;
    uint32_t len = 0;

    (void)state;
    fixture_init(&f);
    server.node_metadata = parsed(&f, node);
    preface = kb_peer_preface_write(&server, &labels, &f.arena);
    assert_true(kb_peer_preface_head((const unsigned char *)preface.p, &len));
    assert_int_equal(len, preface.len - KB_PEER_PREFACE_HEAD);
    preface = kb_str_from(preface, KB_PEER_PREFACE_HEAD);
    assert_int_equal(kb_peer_preface_read(preface, &labels, &peer), 0);
    assert_non_null(peer);
    assert_text(peer->name, "blue");
    assert_text(peer->canonical_name, "svc");
    assert_text(peer->labels[0].value, "red");
    kb_workload_unref(peer);
    assert_int_equal(kb_peer_preface_read(kb_str_first(preface, 9), &labels, &peer), KB_EINVALID);
    assert_null(peer);
    assert_int_equal(kb_peer_preface_read(KB_STR(""), &labels, &peer), 0);
    assert_null(peer);
    assert_false(kb_peer_preface_head((const unsigned char *)"\x3D\x23\x04\x68\0\0\0\1", &len));
    fixture_dispose(&f);
}

static void test_base64(void **state)
{
    static const char *const pairs[][2] = {
        {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
        {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xff\xfe", "//4="}};
    struct kb_arena arena;
    char out[8];

    (void)state;
    kb_arena_init(&arena, NULL);
    for (size_t i = 0; i < KB_ARRAY_LEN(pairs); i++) {
        size_t len = sizeof(out);

        assert_text(kb_base64_encode(kb_str_from_cstr(pairs[i][0]), &arena), pairs[i][1]);
        assert_int_equal(kb_base64_decode(kb_str_from_cstr(pairs[i][1]), out, &len), 0);
        assert_true(kb_str_eq(kb_str_make(out, len), kb_str_from_cstr(pairs[i][0])));
    }
    assert_int_equal(kb_base64_decode(KB_STR("Zh=="), out, &(size_t){sizeof(out)}), KB_EINVALID);
    assert_int_equal(kb_base64_decode(KB_STR("Zm9v"), out, &(size_t){2}), KB_ELIMIT);
    kb_arena_dispose(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_read_from_a_node),
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_malformed_is_refused),
        cmocka_unit_test(test_is_read_from_an_endpoint),
        cmocka_unit_test(test_ids_are_remembered),
        cmocka_unit_test(test_forms_in_logs),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_preface_is_read_as_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
