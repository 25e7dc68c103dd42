/* SPDX-License-Identifier: Apache-2.0 */
/* JSON and YAML to tree: places, Envoy's scalars, aliases, errors, limits, and finding a path. */
#include "tests/unit/proto/proto_test.h"

#include <stdlib.h>

#include "google/protobuf/struct.pb-c.h"

static void assert_struct(struct fixture *f, const char *yaml, const char *json)
{
    const void *message = from_yaml(f, &google__protobuf__struct__descriptor, yaml);

    if (message == NULL) {
        fail_msg("%s: %s", yaml, reported(f));
    }
    assert_string_equal(to_json(f, message, 0), json);
}

static void test_yaml_scalars_are_envoys(void **state)
{
    struct fixture *f = *state;

    /* recorded from Envoy 1.40: config_dump of node.metadata */
    assert_struct(
        f,
        "{a: 1.5, b: 0x10, c: 010, d: 99999999999, e: yes, f: 'yes', g: ~, h: 1e3, i: 2001-01-01}",
        "{\"a\":\"1.5\",\"b\":16,\"c\":8,\"d\":\"99999999999\",\"e\":true,\"f\":\"yes\",\"g\":null,"
        "\"h\":\"1e3\",\"i\":\"2001-01-01\"}");
    assert_struct(
        f,
        "{k: !!str 5, l: !foo 5, m: +5, n: 0o7, o: .5, p: -0x10, q: 08, r: Yes, s: yEs, t: \"\", "
        "u: }",
        "{\"k\":5,\"l\":5,\"m\":5,\"n\":\"0o7\",\"o\":\".5\",\"p\":-16,\"q\":\"08\",\"r\":true,"
        "\"s\":\"yEs\",\"t\":\"\",\"u\":null}");
    assert_struct(f,
                  "{v: -5, w: 1_000, x: .inf, z: ! 7, NULL: 1, 5: 6, true: 7, b: !!int \"5\", c: "
                  "!!bool \"true\"}",
                  "{\"v\":-5,\"w\":\"1_000\",\"x\":\".inf\",\"z\":\"7\",\"null\":1,\"5\":6,"
                  "\"true\":7,\"b\":5,"
                  "\"c\":true}");
    assert_struct(f,
                  "{z: 2147483647, y: 2147483648, x: -2147483649, w: 18446744073709551615, n: "
                  "!!null x, g: !!str }",
                  "{\"z\":2147483647,\"y\":\"2147483648\",\"x\":\"-2147483649\",\"w\":"
                  "\"18446744073709551615\","
                  "\"n\":\"x\",\"g\":\"\"}");
    assert_struct(f, "lit: |\n  5\nfold: >-\n  yes\npl: multi\n  line\n",
                  "{\"lit\":\"5\\n\",\"fold\":\"yes\",\"pl\":\"multi line\"}");
}

static void test_yaml_structure(void **state)
{
    struct fixture *f = *state;

    assert_struct(f, "{a: b, c: 1, a: d}", "{\"c\":1,\"a\":\"d\"}");
    assert_struct(f, "{a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1, i: 1, a: 2}",
                  "{\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"a\":2}");
    assert_struct(f, "{a: &x [1, {b: c}], d: *x}",
                  "{\"a\":[1,{\"b\":\"c\"}],\"d\":[1,{\"b\":\"c\"}]}");
    assert_struct(f, "!ignore x: &c c1\ny: *c\n", "{\"y\":\"c1\"}");
    assert_struct(f, "<<: {a: b}\n",
                  "{\"\\u003c\\u003c\":{\"a\":\"b\"}}"); /* Envoy has no merge keys */
    assert_struct(f, "a: b\n---\nrest: [\n", "{\"a\":\"b\"}");
    assert_struct(f, "%YAML 1.2\n---\na: b\n", "{\"a\":\"b\"}");
}

static void assert_yaml_error(struct fixture *f, const char *yaml, const char *expected)
{
    assert_null(from_yaml(f, &google__protobuf__struct__descriptor, yaml));
    assert_string_equal(reported(f), expected);
}

static void test_yaml_errors_have_their_place(void **state)
{
    struct fixture *f = *state;

    assert_yaml_error(f, "a: *b\n", "t.yaml:1:4: error: the referenced anchor is not defined: b\n");
    assert_yaml_error(f, "",
                      "t.yaml:1:1: error: Unable to convert YAML as JSON: the document is neither "
                      "a map nor a list\n");
    assert_yaml_error(f, "just text\n",
                      "t.yaml:1:1: error: Unable to convert YAML as JSON: the document is neither "
                      "a map nor a list\n");
    assert_yaml_error(f, "a: b\nc: {? [x] : y}\n",
                      "t.yaml:2:7: error: a name cannot be a list or a map\n");
    assert_yaml_error(f, "a: &a [*a]\n",
                      "t.yaml:1:8: error: the referenced anchor is not defined: a\n");
    assert_yaml_error(f, "a:\n  - b\n c: d\n",
                      "t.yaml:3:2: error: did not find expected key, while parsing a block mapping "
                      "that began in line 1\n");
}

static void test_billion_laughs_stop(void **state)
{
    struct fixture *f = *state;
    struct kb_str text = KB_STR("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");

    for (int i = 1; i < 12; i++) {
        text = kb_str_printf(
            &f->arena,
            "%.*sa%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n",
            KB_STR_ARG(text), i, i, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1,
            i - 1);
    }
    assert_null(from_yaml(f, &google__protobuf__struct__descriptor, text.p));
    assert_non_null(strstr(reported(f), "the aliases of the document expand to too many values"));
}

static void test_json_leniencies_are_envoys(void **state)
{
    struct fixture *f = *state;
    static const char *const good[] = {
        "{'a': 'b'}",    "{a: \"b\"}",        "{\"a\": \"b\",}",
        "{\"a\": [1,]}", "{\"a\": \"b\tc\"}", " \r\n\t{\"a\": -0.5e+3} ",
    };
    static const struct {
        const char *text;
        const char *error;
    } bad[] = {
        {"", "t.json:1:1: error: unexpected end of the file; expected a value\n"},
        {"{\"a\" 1}", "t.json:1:6: error: unexpected character: '1'; expected ':'\n"},
        {"{\"a\": 1 \"b\": 2}",
         "t.json:1:9: error: unexpected character: '\"'; expected ',' or '}'\n"},
        {"{}\n{}", "t.json:2:1: error: extraneous characters after the end of the JSON value\n"},
        {"{\"a\": 010}", "t.json:1:7: error: a number cannot begin with a superfluous 0\n"},
        {"{\"a\": 1.}", "t.json:1:9: error: unexpected character: '}'; expected a digit after the "
                        "decimal point\n"},
        {"{\"a\": 1e}",
         "t.json:1:9: error: unexpected character: '}'; expected a digit in the exponent\n"},
        {"{\"a\": nul}", "t.json:1:7: error: unexpected character: 'n'; expected a value\n"},
        {"{\"a\": NaN}", "t.json:1:7: error: unexpected character: 'N'; expected a value\n"},
        {"{\"a\": \"\\x41\"}",
         "t.json:1:9: error: unexpected character: 'x'; expected an escape that JSON knows\n"},
        {"{\"a\": \"\\ud800b\"}", "t.json:1:14: error: unexpected character: 'b'; expected a "
                                  "second \\u escape to complete the surrogate pair\n"},
        {"{\"a\": \"\\udc00\"}", "t.json:1:14: error: unpaired low surrogate in text\n"},
        {"{\"a\":\n  \"b", "t.json:2:4: error: text without its closing quote\n"},
        {"{\"a\": // c\n1}", "t.json:1:7: error: unexpected character: '/'; expected a value\n"},
        {"{\"a\":\n \"\xff\"}", "t.json:2:3: error: the text is not UTF-8\n"},
        {"{,}",
         "t.json:1:2: error: unexpected character: ','; expected a name in quotes, or '}'\n"},
        {"{\"a\":,}", "t.json:1:6: error: unexpected character: ','; expected a value\n"},
    };

    for (size_t i = 0; i < KB_ARRAY_LEN(good); i++) {
        assert_non_null(from_json(f, &google__protobuf__struct__descriptor, good[i]));
    }
    for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++) {
        assert_null(from_json(f, &google__protobuf__struct__descriptor, bad[i].text));
        assert_string_equal(reported(f), bad[i].error);
    }
}

static void test_json_text_is_decoded(void **state)
{
    struct fixture *f = *state;
    struct kb_doc doc;

    kb_doc_init(&doc);
    assert_int_equal(kb_doc_parse_json(&doc, KB_STR(""),
                                       KB_STR("[\"\\u00e9\\ud83d\\ude00\\n\\/\", \"plain\"]"),
                                       &f->diag),
                     0);
    assert_true(kb_str_eq(kb_doc_text(doc.root->first), KB_STR("\xc3\xa9\xf0\x9f\x98\x80\n/")));
    assert_true(kb_str_eq(kb_doc_text(doc.root->first->next), KB_STR("plain")));
    kb_doc_dispose(&doc);
}

static char *nested(char open, char close, size_t depth)
{
    char *text = test_malloc(depth * 2 + 1);

    memset(text, open, depth);
    memset(text + depth, close, depth);
    text[depth * 2] = '\0';
    return text;
}

static void test_nesting_is_bounded(void **state)
{
    struct fixture *f = *state;
    char *good = nested('[', ']', KB_DOC_DEPTH_MAX);
    char *bad = nested('[', ']', KB_DOC_DEPTH_MAX + 1);
    struct kb_doc doc;

    kb_doc_init(&doc);
    assert_int_equal(kb_doc_parse_json(&doc, KB_STR(""), kb_str_from_cstr(good), &f->diag), 0);
    assert_int_equal(kb_doc_parse_json(&doc, KB_STR(""), kb_str_from_cstr(bad), &f->diag),
                     KB_ECONFIG);
    assert_non_null(strstr(reported(f), "nested more than 1000 levels deep"));
    assert_int_equal(kb_doc_parse_yaml(&doc, KB_STR(""), kb_str_from_cstr(bad), &f->diag),
                     KB_ECONFIG);
    kb_doc_dispose(&doc);
    test_free(good);
    test_free(bad);
}

static void assert_found(const struct kb_doc *doc, const char *path, uint32_t line, uint16_t column)
{
    const struct kb_doc_node *node = kb_doc_find(doc, kb_str_from_cstr(path));

    assert_non_null(node);
    assert_int_equal(node->line, line);
    assert_int_equal(node->column, column);
}

static void test_paths_are_found(void **state)
{
    struct fixture *f = *state;
    struct kb_doc doc;

    kb_doc_init(&doc);
    assert_int_equal(kb_doc_parse_yaml(&doc, KB_STR(""),
                                       KB_STR("one:\n"
                                              "- {twoWords: 1}\n"
                                              "- m: {\"a.b\": x}\n"
                                              "  s: {\"@type\": t, value: {deep: 5}}\n"
                                              "single: {k: v}\n"),
                                       &f->diag),
                     0);
    assert_found(&doc, "one[0].two_words", 2, 14);
    assert_found(&doc, "one[1].m[\"a.b\"]", 3, 14);
    assert_found(&doc, "one[1].s.deep", 4, 33);
    assert_found(&doc, "single[0].k", 5, 13);
    assert_found(&doc, "one[1].no.such", 3, 3); /* the deepest that is there */
    assert_null(kb_doc_find(&doc, KB_STR("nothing.here")));
    assert_null(kb_doc_find(&doc, KB_STR("")));
    assert_null(kb_doc_find(&doc, KB_STR("[\"x")));
    kb_doc_dispose(&doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_yaml_scalars_are_envoys),      TEST(test_yaml_structure),
        TEST(test_yaml_errors_have_their_place), TEST(test_billion_laughs_stop),
        TEST(test_json_leniencies_are_envoys),   TEST(test_json_text_is_decoded),
        TEST(test_nesting_is_bounded),           TEST(test_paths_are_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
