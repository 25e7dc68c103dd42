/* SPDX-License-Identifier: Apache-2.0 */
/* Dynamic metadata, and matchers over it: every kind of value, paths, inversion. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "envoy/type/matcher/v3/metadata.pb-c.h"
#include "proto/pb_json.h"
#include "proxy/api/dynamic_metadata.h"
#include "proxy/matcher/metadata_match.h"

static struct kb_arena arena;

static int setup(void **state)
{
    (void)state;
    kb_arena_init(&arena, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kb_arena_dispose(&arena);
    return 0;
}

static const void *message_of(const ProtobufCMessageDescriptor *type, const char *yaml,
                              struct kb_diag *diag)
{
    ProtobufCMessage *message = NULL;
    struct kb_doc doc;

    kb_doc_init(&doc);
    if (kb_doc_parse_yaml(&doc, KB_STR("t.yaml"), kb_str_from_cstr(yaml), diag) == 0) {
        message = kb_pb_from_doc(type, &doc, KB_PB_UNKNOWN_ERROR, &arena, diag);
    }
    kb_doc_dispose(&doc);
    assert_non_null(message);
    return message;
}

/* Whether a matcher {filter: f, path: [{key: a}, {key: b}], `rest`} takes this struct of "f". */
static bool takes(const char *rest, const char *value)
{
    struct kb_dynamic_metadata *metadata = NULL;
    struct kb_regex_list regexes = {NULL};
    struct kb_metadata_matcher matcher = {.invert = false};
    struct kb_diag diag;
    const struct kb_match_build build = {&arena, &regexes, &diag};
    char yaml[512];
    bool taken;

    kb_diag_init(&diag);
    snprintf(yaml, sizeof(yaml), "{filter: f, path: [{key: a}, {key: b}], %s}", rest);
    assert_int_equal(
        kb_metadata_matcher_init(
            &matcher,
            message_of(&envoy__type__matcher__v3__metadata_matcher__descriptor, yaml, &diag),
            &build),
        0);
    kb_dynamic_metadata_merge(&metadata, &arena, KB_STR("f"),
                              message_of(&google__protobuf__struct__descriptor, value, &diag));
    taken = kb_metadata_matcher_match(&matcher, metadata);
    kb_regex_list_dispose(&regexes);
    kb_diag_dispose(&diag);
    return taken;
}

static void test_kinds(void **state)
{
    (void)state;
    assert_true(takes("value: {string_match: {prefix: x}}", "{a: {b: xy}}"));
    assert_false(takes("value: {string_match: {prefix: x}}", "{a: {b: yx}}"));
    assert_false(takes("value: {string_match: {prefix: '1'}}", "{a: {b: 1}}"));
    assert_true(takes("value: {double_match: {exact: 7}}", "{a: {b: 7}}"));
    assert_false(takes("value: {double_match: {exact: 7}}", "{a: {b: '7'}}"));
    assert_true(takes("value: {double_match: {range: {start: 1, end: 2}}}", "{a: {b: 1}}"));
    assert_false(takes("value: {double_match: {range: {start: 1, end: 2}}}", "{a: {b: 2}}"));
    assert_true(takes("value: {bool_match: false}", "{a: {b: false}}"));
    assert_false(takes("value: {bool_match: false}", "{a: {b: true}}"));
    assert_false(takes("value: {bool_match: false}", "{a: {}}"));
    assert_true(takes("value: {null_match: {}}", "{a: {b: null}}"));
    assert_false(takes("value: {null_match: {}}", "{a: {c: null}}"));
    assert_true(takes("value: {present_match: true}", "{a: {b: {c: 1}}}"));
    assert_false(takes("value: {present_match: true}", "{a: {c: 1}}"));
    /* As in Envoy: never true. */
    assert_false(takes("value: {present_match: false}", "{a: {c: 1}}"));
    assert_true(
        takes("value: {list_match: {one_of: {string_match: {exact: z}}}}", "{a: {b: [x, z]}}"));
    assert_false(takes("value: {list_match: {one_of: {string_match: {exact: z}}}}", "{a: {b: z}}"));
    assert_false(
        takes("value: {list_match: {one_of: {string_match: {exact: z}}}}", "{a: {b: []}}"));
    assert_true(takes("value: {or_match: {value_matchers: [{bool_match: true}, {string_match: "
                      "{exact: z}}]}}",
                      "{a: {b: z}}"));
    assert_true(takes("value: {string_match: {exact: x}}, invert: true", "{a: {b: z}}"));
    assert_true(takes("value: {string_match: {exact: x}}, invert: true", "{}"));
    assert_false(takes("value: {present_match: true}", "{a: notastruct}"));
}

static void test_merge(void **state)
{
    struct kb_dynamic_metadata *metadata = NULL;
    const Google__Protobuf__Struct *space;

    (void)state;
    assert_null(kb_dynamic_metadata_get(metadata, KB_STR("f")));
    kb_dynamic_metadata_set_text(&metadata, NULL, KB_STR("f"), KB_STR("a"), KB_STR("1"));
    kb_dynamic_metadata_set_text(&metadata, NULL, KB_STR("g"), KB_STR("a"), KB_STR("other"));
    kb_dynamic_metadata_set_text(&metadata, NULL, KB_STR("f"), KB_STR("a"), KB_STR("2"));
    kb_dynamic_metadata_set_bool(&metadata, NULL, KB_STR("f"), KB_STR("b"), true);
    space = kb_dynamic_metadata_get(metadata, KB_STR("f"));
    assert_int_equal(space->n_fields, 2);
    assert_string_equal(kb_struct_get(space, KB_STR("a"))->string_value, "2");
    assert_true(kb_struct_get(space, KB_STR("b"))->bool_value);
    assert_null(kb_struct_get(space, KB_STR("c")));
    kb_dynamic_metadata_dispose(&metadata);
    assert_null(metadata);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_merge, setup, teardown),
    };

    return cmocka_run_group_tests_name("metadata_match", tests, NULL, NULL);
}
