/* SPDX-License-Identifier: Apache-2.0 */
/* Layers of runtime: which value is in force, how numbers, texts and fractions are read, and what
 * is refused. */
#include "proxy/server/runtime.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/log.h"
#include "proto/pb_json.h"
#include "proxy/stats/stat_iter.h"
#include "proxy/stats/stat_store.h"

struct fixture {
    struct kb_worker workers[2];
    struct kb_server_context server;
    struct kb_arena arena;
    struct kb_diag diag;
    struct kb_runtime *runtime;
};

static int setup(void **state)
{
    static struct fixture fixture;

    memset(&fixture, 0, sizeof(fixture));
    *state = &fixture;
    kb_log_set_level(KB_LOG_OFF);
    assert_int_equal(kb_worker_init(&fixture.workers[0], 0), 0);
    assert_int_equal(kb_worker_init(&fixture.workers[1], 1), 0);
    fixture.server.main = &fixture.workers[1];
    fixture.server.workers = fixture.workers;
    fixture.server.worker_count = 1;
    fixture.server.stats = kb_stat_store_create(1);
    kb_arena_init(&fixture.arena, NULL);
    kb_diag_init(&fixture.diag);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    kb_worker_join(&f->workers[0]);
    kb_worker_dispose(&f->workers[0]);
    kb_worker_dispose(&f->workers[1]);
    kb_runtime_destroy(f->runtime);
    kb_stat_store_destroy(f->server.stats);
    kb_diag_dispose(&f->diag);
    kb_arena_dispose(&f->arena);
    return 0;
}

static struct kb_runtime *create(struct fixture *f, const char *json)
{
    ProtobufCMessage *message =
        kb_pb_json_parse(&envoy__config__bootstrap__v3__layered_runtime__descriptor, KB_STR_NULL,
                         kb_str_from_cstr(json), KB_PB_UNKNOWN_ERROR, &f->arena, &f->diag);

    assert_non_null(message);
    f->runtime = kb_runtime_create((const void *)message, &f->server, &f->diag);
    return f->runtime;
}

static uint64_t stat_value(struct fixture *f, const char *name)
{
    uint64_t value = UINT64_MAX;

    assert_int_equal(kb_stat_store_find(f->server.stats, kb_str_from_cstr(name), &value), 0);
    return value;
}

static void test_last_layer_wins(void **state)
{
    struct fixture *f = *state;
    struct kb_runtime *runtime = create(
        f, "{\"layers\":[{\"name\":\"a\",\"static_layer\":{\"k\":1,\"x\":{\"y\":{\"z\":5}}}},"
           "{\"name\":\"b\",\"static_layer\":{\"k\":7}}]}");

    assert_int_equal(f->diag.error_count, 0);
    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("k"), 99), 7);
    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("x.y.z"), 99), 5);
    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("x.y"), 99), 99);
    assert_int_equal(stat_value(f, "runtime.num_keys"), 2);
    assert_int_equal(stat_value(f, "runtime.num_layers"), 2);
    assert_int_equal(stat_value(f, "runtime.load_success"), 1);
}

static void test_values_are_read_as_envoy_reads_them(void **state)
{
    struct fixture *f = *state;
    struct kb_runtime *runtime =
        create(f, "{\"layers\":[{\"name\":\"a\",\"static_layer\":{\"text\":\"12\",\"frac\":\"12."
                  "7\",\"neg\":-3,\"bool\":true,"
                  "\"big\":4294967296,\"word\":\"abc\"}}]}");

    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("text"), 99), 12);
    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("frac"), 99), 12);
    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("neg"), 99), 99);
    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("bool"), 99), 99);
    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("word"), 99), 99);
    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("big"), 99), 4294967296);
}

static void test_fraction_and_percent(void **state)
{
    struct fixture *f = *state;
    struct kb_runtime *runtime =
        create(f, "{\"layers\":[{\"name\":\"a\",\"static_layer\":{\"percent\":30,\"none\":0,"
                  "\"fine\":{\"numerator\":25,\"denominator\":\"TEN_THOUSAND\"},\"coarse\":{"
                  "\"numerator\":25}}}]}");
    unsigned fine = 0;

    /* A plain number is a percentage, whatever the caller counts in. */
    assert_true(kb_runtime_feature_enabled(runtime, KB_STR("percent"), 0, 1000000, 129));
    assert_false(kb_runtime_feature_enabled(runtime, KB_STR("percent"), 1000000, 1000000, 130));
    assert_false(kb_runtime_feature_enabled(runtime, KB_STR("none"), 100, 100, 0));
    assert_true(kb_runtime_feature_enabled(runtime, KB_STR("coarse"), 0, 100, 24));
    assert_false(kb_runtime_feature_enabled(runtime, KB_STR("coarse"), 0, 100, 25));
    for (uint64_t random = 0; random < 10000; random++) {
        fine += kb_runtime_feature_enabled(runtime, KB_STR("fine"), 0, 100, random);
    }
    assert_int_equal(fine, 25);
    /* The caller's default, in its own denominator. */
    assert_true(kb_runtime_feature_enabled(runtime, KB_STR("absent"), 5, 1000000, 1000004));
    assert_false(kb_runtime_feature_enabled(runtime, KB_STR("absent"), 5, 1000000, 5));
    assert_true(kb_runtime_feature_enabled(NULL, KB_STR("percent"), 50, 100, 49));
}

struct refusal {
    const char *json;
    const char *path;
    const char *text;
};

static const struct refusal refusals[] = {
    {"{\"layers\":[{\"name\":\"a\",\"static_layer\":{\"l\":[1]}}]}",
     "layers[0].static_layer[\"l\"]", "Invalid runtime entry value for l"},
    {"{\"layers\":[{\"name\":\"a\",\"static_layer\":{\"x\":{\"n\":null}}}]}",
     "layers[0].static_layer[\"x\"][\"n\"]", "Invalid runtime entry value for x.n"},
    {"{\"layers\":[{\"name\":\"a\",\"static_layer\":{\"x\":{\"numerator\":1,\"denominator\":"
     "\"TEN\"}}}]}",
     "layers[0].static_layer[\"x\"]", "Invalid runtime entry value for x"},
    {"{\"layers\":[{\"name\":\"a\",\"static_layer\":{}},{\"name\":\"a\",\"static_layer\":{}}]}",
     "layers[1]", "Duplicate layer name: a"},
    {"{\"layers\":[{\"name\":\"a\",\"admin_layer\":{}},{\"name\":\"b\",\"admin_layer\":{}}]}",
     "layers[1]",
     "Too many admin layers specified in LayeredRuntime, at most one may be specified"},
    {"{\"layers\":[{\"name\":\"a\",\"rtds_layer\":{\"name\":\"r\",\"rtds_config\":{\"ads\":{}}}}]}",
     "layers[0].rtds_layer",
     "runtime from a control plane is not implemented, and its values would be missing"},
};

static void test_bad_layers_are_refused(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < KB_ARRAY_LEN(refusals); i++) {
        create(f, refusals[i].json);
        assert_int_equal(f->diag.error_count, 1);
        assert_string_equal(f->diag.first->path.p, refusals[i].path);
        assert_string_equal(f->diag.first->text.p, refusals[i].text);
        kb_runtime_destroy(f->runtime);
        f->runtime = NULL;
        kb_diag_dispose(&f->diag);
    }
}

static void test_override_needs_an_admin_layer(void **state)
{
    struct fixture *f = *state;
    struct kb_runtime *runtime =
        create(f, "{\"layers\":[{\"name\":\"a\",\"static_layer\":{\"k\":1}}]}");

    assert_false(kb_runtime_has_admin_layer(runtime));
    assert_int_equal(kb_runtime_set_override(runtime, KB_STR("k"), KB_STR("2")), KB_ENOTFOUND);
}

struct seen {
    char text[256];
};

static void seen_add(void *arg, struct kb_str key, const struct kb_str *layer_values,
                     struct kb_str final_value)
{
    struct seen *seen = arg;
    size_t len = strlen(seen->text);

    snprintf(seen->text + len, sizeof(seen->text) - len, "%.*s=%.*s,%.*s:%.*s ", KB_STR_ARG(key),
             KB_STR_ARG(layer_values[0]), KB_STR_ARG(layer_values[1]), KB_STR_ARG(final_value));
}

static void test_override_replaces_and_goes(void **state)
{
    struct fixture *f = *state;
    struct kb_runtime *runtime = create(f, "{\"layers\":[{\"name\":\"a\",\"static_layer\":{\"k\":1,"
                                           "\"half\":2.5}},{\"name\":\"b\",\"admin_layer\":{}}]}");
    struct seen seen = {""};

    assert_int_equal(kb_runtime_set_override(runtime, KB_STR("k"), KB_STR("2")), 0);
    assert_int_equal(kb_runtime_set_override(runtime, KB_STR("z"), KB_STR("x")), 0);
    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("k"), 99), 1);
    kb_runtime_reload(runtime);
    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("k"), 99), 2);
    assert_int_equal(stat_value(f, "runtime.admin_overrides_active"), 1);
    assert_int_equal(stat_value(f, "runtime.load_success"), 2);
    kb_runtime_visit(runtime, seen_add, &seen);
    assert_string_equal(seen.text, "half=2.5,:2.5 k=1,2:2 z=,x:x ");
    assert_int_equal(kb_runtime_set_override(runtime, KB_STR("k"), KB_STR("")), 0);
    assert_int_equal(kb_runtime_set_override(runtime, KB_STR("z"), KB_STR("")), 0);
    kb_runtime_reload(runtime);
    assert_int_equal(kb_runtime_get_u64(runtime, KB_STR("k"), 99), 1);
    assert_int_equal(stat_value(f, "runtime.admin_overrides_active"), 0);
    assert_int_equal(stat_value(f, "runtime.num_keys"), 2);
}

static void read_on_worker(void *arg)
{
    struct fixture *f = arg;

    if (kb_runtime_get_u64(f->runtime, KB_STR("k"), 0) == 100) {
        kb_loop_stop(&f->workers[0].loop);
        kb_loop_post(&f->server.main->loop, (kb_post_cb)kb_loop_stop, &f->server.main->loop);
        return;
    }
    kb_loop_post(&f->workers[0].loop, read_on_worker, f);
}

/* A worker reads all the time while main changes values; under ASan an early free would show. */
static void test_reload_while_a_worker_reads(void **state)
{
    struct fixture *f = *state;
    char value[8];

    create(f, "{\"layers\":[{\"name\":\"b\",\"admin_layer\":{}}]}");
    assert_int_equal(kb_worker_start(&f->workers[0]), 0);
    kb_loop_post(&f->workers[0].loop, read_on_worker, f);
    for (unsigned i = 1; i <= 100; i++) {
        snprintf(value, sizeof(value), "%u", i);
        assert_int_equal(kb_runtime_set_override(f->runtime, KB_STR("k"), kb_str_from_cstr(value)),
                         0);
        kb_runtime_reload(f->runtime);
        kb_loop_run_once(&f->server.main->loop, false);
    }
    kb_loop_run(&f->server.main->loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_last_layer_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values_are_read_as_envoy_reads_them, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fraction_and_percent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_layers_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_override_needs_an_admin_layer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_override_replaces_and_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reload_while_a_worker_reads, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
