/* SPDX-License-Identifier: Apache-2.0 */
/* The bootstrap from files and the override, and places of later errors. */
#include "tests/unit/proto/proto_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/loader.h"

static char directory[64];

static struct kb_str file_with(struct fixture *f, const char *name, struct kb_str text)
{
    struct kb_str path = kb_str_printf(&f->arena, "%s/%s", directory, name);
    FILE *file = fopen(path.p, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(text.p, 1, text.len, file), text.len);
    fclose(file);
    return path;
}

/* Loads and gives the JSON of the bootstrap, or the errors with the directory taken off. */
static const char *load(struct fixture *f, const char *name, const char *text, const char *yaml)
{
    struct kb_config_source source = {.yaml = kb_str_from_cstr(yaml)};
    const Envoy__Config__Bootstrap__V3__Bootstrap *bootstrap;
    const char *result;

    if (name != NULL) {
        source.path = file_with(f, name, kb_str_from_cstr(text));
    }
    bootstrap = kb_config_load(&source, &f->arena, &f->diag);
    result = bootstrap != NULL ? to_json(f, bootstrap, 0) : reported(f);
    kb_config_source_dispose(&source);
    if (name != NULL) {
        unlink(source.path.p);
    }
    return strncmp(result, directory, strlen(directory)) == 0 ? result + strlen(directory) + 1
                                                              : result;
}

static void test_formats_by_extension(void **state)
{
    struct fixture *f = *state;
    const char *expected = "{\"node\":{\"id\":\"a\"}}";

    assert_string_equal(load(f, "a.json", "{\"node\": {\"id\": \"a\"}}", NULL), expected);
    assert_string_equal(load(f, "a.conf", "{\"node\": {\"id\": \"a\"}}", NULL), expected);
    assert_string_equal(load(f, "a.yaml", "node:\n  id: a\n", NULL), expected);
    assert_string_equal(load(f, "a.yml", "node: {id: a}\n", NULL), expected);
    assert_string_equal(load(f, "a.pb",
                             "\x0a\x03\x0a\x01"
                             "a",
                             NULL),
                        expected);
    assert_string_equal(
        load(f, "a.pb", "\x0a\x05", NULL),
        "a.pb: error: Unable to parse the file as binary envoy.config.bootstrap.v3.Bootstrap\n");
    assert_string_equal(load(f, "a.pb_text", "", NULL),
                        "a.pb_text: error: the text format of protobuf is not supported\n");
}

static void test_override(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(load(f, NULL, NULL, "node: {id: b}"), "{\"node\":{\"id\":\"b\"}}");
    assert_string_equal(load(f, "a.yaml", "node: {id: a, cluster: c}", "node: {id: b}"),
                        "{\"node\":{\"id\":\"b\",\"cluster\":\"c\"}}");
    assert_string_equal(load(f, "a.yaml", "node: {id: a}", "nod: {id: b}"),
                        "--config-yaml:1:1: error: nod: no such field: 'nod' in "
                        "envoy.config.bootstrap.v3.Bootstrap (did "
                        "you mean 'node'?)\n");
    assert_string_equal(load(f, NULL, NULL, ""),
                        "error: At least one of --config-path or --config-yaml or "
                        "Options::configProto() should be non-empty\n");
}

static void test_constraints_have_places(void **state)
{
    struct fixture *f = *state;

    assert_string_equal(
        load(f, "a.yaml",
             "static_resources:\n"
             "  clusters:\n"
             "  - name: x\n"
             "    connectTimeout: 0s\n"
             "  - {type: STATIC}\n",
             "stats_flush_interval: 0s"),
        kb_str_printf(
            &f->arena,
            "a.yaml:4:5: error: static_resources.clusters[0].connect_timeout: value must be "
            "greater than 0s\n"
            "%s/a.yaml:5:5: error: static_resources.clusters[1].name: value length must be at "
            "least 1 characters\n"
            "--config-yaml:1:1: error: stats_flush_interval: value must be inside range [1ms, "
            "5m0s)\n",
            directory)
            .p);
}

static void test_missing_file(void **state)
{
    struct fixture *f = *state;
    struct kb_config_source source = {.path = KB_STR("/nonexistent/x.yaml")};

    assert_null(kb_config_load(&source, &f->arena, &f->diag));
    assert_string_equal(
        reported(f),
        "/nonexistent/x.yaml: error: Invalid path: /nonexistent/x.yaml (No such file or "
        "directory)\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_formats_by_extension),
        TEST(test_override),
        TEST(test_constraints_have_places),
        TEST(test_missing_file),
    };
    int rc;

    snprintf(directory, sizeof(directory), "/tmp/kobune_loader_XXXXXX");
    if (mkdtemp(directory) == NULL) {
        return 1;
    }
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(directory);
    return rc;
}
