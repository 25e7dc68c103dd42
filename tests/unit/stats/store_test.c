/* SPDX-License-Identifier: Apache-2.0 */
/* Groups, blocks per worker, sharing by name, resets, response codes, providers, and destruction
 * during a dump. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/stats/stat_iter.h"
#include "proxy/stats/stats_dump.h"

#define WORKERS 3

static int setup(void **state)
{
    *state = kb_stat_store_create(WORKERS);
    return 0;
}

static int teardown(void **state)
{
    kb_stat_store_destroy(*state);
    return 0;
}

static struct kb_stat_group *cluster(struct kb_stat_store *store, const char *prefix)
{
    return kb_stat_group_create(store, kb_str_from_cstr(prefix), &kb_stat_schema_cluster);
}

static uint64_t value(struct kb_stat_store *store, const char *name)
{
    uint64_t found;

    if (kb_stat_store_find(store, kb_str_from_cstr(name), &found) != 0) {
        fail_msg("there is no %s", name);
    }
    return found;
}

static char *dump(struct kb_stat_store *store, const char *filter, bool used_only)
{
    struct kb_stats_params params = {.used_only = used_only};
    struct kb_arena arena;
    struct kb_str error;
    struct kb_json_out out;
    struct kb_regex *regex;
    struct kb_stats_dump *d;
    char *text;

    kb_arena_init(&arena, NULL);
    kb_json_out_init(&out, 0);
    regex = kb_regex_create(kb_str_from_cstr(filter), &arena, &error);
    params.filter = regex;
    d = kb_stats_dump_create(store, &params);
    while (kb_stats_dump_next(d, &out, 4096)) {
    }
    kb_stats_dump_destroy(d);
    kb_regex_destroy(regex);
    kb_arena_dispose(&arena);
    text = kb_str_to_cstr(kb_str_make(out.p, out.len));
    kb_json_out_dispose(&out);
    return text;
}

static void assert_dump(struct kb_stat_store *store, const char *filter, bool used_only,
                        const char *want)
{
    char *got = dump(store, filter, used_only);

    assert_string_equal(got, want);
    free(got);
}

static void test_unused_cluster_has_zeros_and_no_blocks(void **state)
{
    struct kb_stat_group *group = cluster(*state, "cluster.a.");

    assert_true(kb_stat_group_bytes(group) <= 200 + 10);
    assert_int_equal(value(*state, "cluster.a.upstream_rq_total"), 0);
    assert_int_equal(value(*state, "cluster.a.upstream_rq_completed"), 0);
    assert_dump(*state, "rq_per_cx|rq_time$", false,
                "cluster.a.upstream_rq_per_cx: No recorded values\n");
    assert_dump(*state, "", true, "");
    assert_true(kb_stat_group_bytes(group) <= 200 + 10);
    kb_stat_group_destroy(group);
}

static void test_workers_are_added_up(void **state)
{
    struct kb_stat_group *group = cluster(*state, "cluster.a.");

    for (uint32_t i = 0; i <= WORKERS; i++) {
        struct kb_stat_block *block = kb_stat_group_block(group, i);

        assert_ptr_equal(block, kb_stat_group_block(group, i));
        kb_stat_add(block, KB_STAT_CLUSTER_UPSTREAM_RQ_TOTAL, 10 + i);
        kb_stat_gauge_add(block, KB_STAT_CLUSTER_UPSTREAM_CX_ACTIVE, i == 0 ? 5 : -1);
    }
    assert_int_equal(value(*state, "cluster.a.upstream_rq_total"), 46);
    assert_int_equal(value(*state, "cluster.a.upstream_cx_active"), 2);
    kb_stat_group_destroy(group);
}

static void test_same_prefix_and_schema_is_one_group(void **state)
{
    struct kb_stat_group *a = cluster(*state, "cluster.a:b.");
    struct kb_stat_group *b = cluster(*state, "cluster.a_b.");
    struct kb_stat_group *other =
        kb_stat_group_create(*state, KB_STR("cluster.a_b."), &kb_stat_schema_http1);

    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, other);
    kb_stat_inc(kb_stat_group_block(a, 0), KB_STAT_CLUSTER_UPSTREAM_RQ_TOTAL);
    kb_stat_group_destroy(a);
    assert_int_equal(value(*state, "cluster.a_b.upstream_rq_total"), 1);
    kb_stat_group_destroy(b);
    assert_dump(*state, "", false,
                "cluster.a_b.dropped_headers_with_underscores: 0\n"
                "cluster.a_b.metadata_not_supported_error: 0\n"
                "cluster.a_b.requests_rejected_with_underscores_in_headers: 0\n"
                "cluster.a_b.response_flood: 0\n");
    assert_ptr_equal(other,
                     kb_stat_group_create(*state, KB_STR("cluster.a_b."), &kb_stat_schema_http1));
    kb_stat_group_destroy(other);
    kb_stat_group_destroy(other);
    assert_dump(*state, "", false, "");
}

static void test_response_codes_make_classes_and_totals(void **state)
{
    struct kb_stat_group *group = cluster(*state, "cluster.a.");
    enum kb_stat_code_variant zone = kb_stat_zone_key(*state, KB_STR("z1"), KB_STR("z2"));

    assert_int_equal(zone, kb_stat_zone_key(*state, KB_STR("z1"), KB_STR("z2")));
    assert_int_not_equal(zone, kb_stat_zone_key(*state, KB_STR("z1"), KB_STR("z3")));
    for (unsigned i = 0; i < 20; i++) {
        struct kb_stat_block *block = kb_stat_group_block(group, i % 2);

        kb_stat_code_inc(block, KB_STAT_CODE_PLAIN, 200 + i % 10);
        kb_stat_code_inc(block, KB_STAT_CODE_EXTERNAL, i == 0 ? 503 : 200);
    }
    kb_stat_code_inc(kb_stat_group_block(group, 2), zone, 404);
    kb_stat_code_inc(kb_stat_group_block(group, 2), KB_STAT_CODE_CANARY, 700);
    kb_stat_code_inc(kb_stat_group_block(group, 2), KB_STAT_CODE_INTERNAL, 0);
    kb_stat_code_inc(kb_stat_group_block(group, 2), KB_STAT_CODE_RETRY, 503);
    assert_dump(*state, "rq_", true,
                "cluster.a.canary.upstream_rq_completed: 1\n"
                "cluster.a.canary.upstream_rq_unknown: 1\n"
                "cluster.a.external.upstream_rq_200: 19\n"
                "cluster.a.external.upstream_rq_2xx: 19\n"
                "cluster.a.external.upstream_rq_503: 1\n"
                "cluster.a.external.upstream_rq_5xx: 1\n"
                "cluster.a.external.upstream_rq_completed: 20\n"
                "cluster.a.internal.upstream_rq_completed: 1\n"
                "cluster.a.retry.upstream_rq_503: 1\n"
                "cluster.a.retry.upstream_rq_5xx: 1\n"
                "cluster.a.retry.upstream_rq_completed: 1\n"
                "cluster.a.upstream_rq_200: 2\n"
                "cluster.a.upstream_rq_201: 2\n"
                "cluster.a.upstream_rq_202: 2\n"
                "cluster.a.upstream_rq_203: 2\n"
                "cluster.a.upstream_rq_204: 2\n"
                "cluster.a.upstream_rq_205: 2\n"
                "cluster.a.upstream_rq_206: 2\n"
                "cluster.a.upstream_rq_207: 2\n"
                "cluster.a.upstream_rq_208: 2\n"
                "cluster.a.upstream_rq_209: 2\n"
                "cluster.a.upstream_rq_2xx: 20\n"
                "cluster.a.upstream_rq_completed: 20\n"
                "cluster.a.zone.z1.z2.upstream_rq_404: 1\n"
                "cluster.a.zone.z1.z2.upstream_rq_4xx: 1\n"
                "cluster.a.zone.z1.z2.upstream_rq_completed: 1\n");
    kb_stat_group_destroy(group);
}

static void test_reset_zeroes_counters_only(void **state)
{
    struct kb_stat_group *group = cluster(*state, "cluster.a.");
    struct kb_stat_block *block = kb_stat_group_block(group, 1);
    struct kb_stat_named *named = kb_stat_named_create(*state, KB_STR("x.y"), KB_STAT_COUNTER);

    kb_stat_add(block, KB_STAT_CLUSTER_UPSTREAM_RQ_TOTAL, 7);
    kb_stat_gauge_set(block, KB_STAT_CLUSTER_MEMBERSHIP_TOTAL, 4);
    kb_stat_code_inc(block, KB_STAT_CODE_PLAIN, 200);
    kb_stat_named_add(named, 0, 3);
    kb_stat_record(block, KB_STAT_CLUSTER_UPSTREAM_RQ_TIME, 5);
    kb_stat_store_flush(*state);
    kb_stat_store_reset_counters(*state);
    kb_stat_inc(block, KB_STAT_CLUSTER_UPSTREAM_RQ_TOTAL);
    kb_stat_code_inc(block, KB_STAT_CODE_PLAIN, 200);
    kb_stat_code_inc(block, KB_STAT_CODE_PLAIN, 201);
    assert_int_equal(value(*state, "cluster.a.upstream_rq_total"), 1);
    assert_int_equal(value(*state, "cluster.a.membership_total"), 4);
    assert_int_equal(value(*state, "cluster.a.upstream_rq_200"), 1);
    assert_int_equal(value(*state, "cluster.a.upstream_rq_2xx"), 2);
    assert_int_equal(value(*state, "x.y"), 0);
    assert_dump(
        *state, "x\\.y|rq_time|member", true,
        "cluster.a.membership_total: 4\nx.y: 0\n"
        "cluster.a.upstream_rq_time: P0(5.05,5.05) P25(5.05,5.05) P50(5.05,5.05) P75(5.05,5.05)"
        " P90(5.05,5.05) P95(5.05,5.05) P99(5.05,5.05) P99.5(5.05,5.05) P99.9(5.05,5.05)"
        " P100(5.05,5.05)\n");
    kb_stat_group_destroy(group);
}

static void test_zero_gauge_that_was_set_is_used(void **state)
{
    struct kb_stat_group *group = cluster(*state, "cluster.a.");

    kb_stat_gauge_set(kb_stat_group_block(group, 0), KB_STAT_CLUSTER_UPSTREAM_CX_ACTIVE, 0);
    assert_dump(*state, "", true, "cluster.a.upstream_cx_active: 0\n");
    kb_stat_group_destroy(group);
}

static void test_histogram_shows_after_flush_and_interval_passes(void **state)
{
    struct kb_stat_group *group = cluster(*state, "cluster.a.");

    kb_stat_code_time(kb_stat_group_block(group, 0), KB_STAT_CODE_PLAIN, 0);
    kb_stat_code_time(kb_stat_group_block(group, 0), KB_STAT_CODE_EXTERNAL, 0);
    assert_dump(*state, "rq_time$", true, "");
    assert_dump(*state, "rq_time$", false,
                "cluster.a.external.upstream_rq_time: No recorded values\n"
                "cluster.a.upstream_rq_time: No recorded values\n");
    kb_stat_store_flush(*state);
    kb_stat_store_flush(*state);
    assert_dump(*state, "a.upstream_rq_time", true,
                "cluster.a.upstream_rq_time: P0(nan,0) P25(nan,0) P50(nan,0) P75(nan,0) P90(nan,0)"
                " P95(nan,0) P99(nan,0) P99.5(nan,0) P99.9(nan,0) P100(nan,0)\n");
    kb_stat_group_destroy(group);
}

static bool provide(void *arg, unsigned id, uint64_t *number)
{
    if (id != KB_STAT_SERVER_UPTIME) {
        return false;
    }
    *number = *(uint64_t *)arg;
    return true;
}

static bool provide_changes(void *arg, unsigned id, uint64_t *number)
{
    *number = *(uint64_t *)arg;
    return id == KB_STAT_CLUSTER_MEMBERSHIP_CHANGE || id == KB_STAT_CLUSTER_MEMBERSHIP_TOTAL;
}

static void test_reset_reaches_counters_of_providers(void **state)
{
    struct kb_stat_group *group = cluster(*state, "cluster.a.");
    uint64_t changes = 5;

    kb_stat_group_set_provider(group, provide_changes, &changes);
    kb_stat_store_reset_counters(*state);
    assert_int_equal(value(*state, "cluster.a.membership_change"), 0);
    assert_int_equal(value(*state, "cluster.a.membership_total"), 5);
    changes = 7;
    assert_int_equal(value(*state, "cluster.a.membership_change"), 2);
    changes = 1; /* a new owner of the name */
    assert_int_equal(value(*state, "cluster.a.membership_change"), 1);
    kb_stat_group_set_provider(group, NULL, &changes);
    kb_stat_group_destroy(group);
}

static void test_provider_is_asked_when_somebody_looks(void **state)
{
    struct kb_stat_group *group =
        kb_stat_group_create(*state, KB_STR("server."), &kb_stat_schema_server);
    uint64_t uptime = 11;
    uint64_t other = 12;

    kb_stat_group_set_provider(group, provide, &uptime);
    assert_dump(*state, "", true, "server.uptime: 11\n");
    kb_stat_group_set_provider(group, provide, &other);
    kb_stat_group_set_provider(group, NULL, &uptime);
    assert_int_equal(value(*state, "server.uptime"), 12);
    kb_stat_group_set_provider(group, NULL, &other);
    assert_int_equal(value(*state, "server.uptime"), 0);
    kb_stat_group_destroy(group);
}

static void test_admin_groups_have_fewer_members(void **state)
{
    struct kb_stat_group *group =
        kb_stat_group_create(*state, KB_STR("http.admin."), &kb_stat_schema_http);
    uint64_t ignored;

    kb_stat_group_hide_for_admin(group);
    assert_int_equal(kb_stat_store_find(*state, KB_STR("http.admin.no_route"), &ignored),
                     KB_ENOTFOUND);
    assert_int_equal(kb_stat_store_find(*state, KB_STR("http.admin.rs_too_large"), &ignored), 0);
    kb_stat_group_destroy(group);
}

/* Names are in byte order over groups whose prefixes begin alike. */
static void test_order_over_nested_prefixes(void **state)
{
    struct kb_stat_group *inner =
        kb_stat_group_create(*state, KB_STR("a.n."), &kb_stat_schema_watchdog);
    struct kb_stat_group *outer =
        kb_stat_group_create(*state, KB_STR("a."), &kb_stat_schema_overload);
    struct kb_stat_group *dash =
        kb_stat_group_create(*state, KB_STR("a-b."), &kb_stat_schema_watchdog);
    struct kb_stat_group *tail =
        kb_stat_group_create(*state, KB_STR("a."), &kb_stat_schema_watchdog);

    kb_stat_named_create(*state, KB_STR("a.o"), KB_STAT_COUNTER);
    kb_stat_named_create(*state, KB_STR("a.n.watchdog_n"), KB_STAT_COUNTER);
    kb_stat_text_set(*state, KB_STR("a.text"), KB_STR("one"));
    kb_stat_text_set(*state, KB_STR("a.text"), KB_STR("two"));
    assert_dump(*state, "", false,
                "a.text: \"two\"\n"
                "a-b.watchdog_mega_miss: 0\na-b.watchdog_miss: 0\n"
                "a.n.watchdog_mega_miss: 0\na.n.watchdog_miss: 0\na.n.watchdog_n: 0\na.o: 0\n"
                "a.watchdog_mega_miss: 0\na.watchdog_miss: 0\n"
                "a.refresh_interval_delay: No recorded values\n");
    kb_stat_group_destroy(inner);
    kb_stat_group_destroy(outer);
    kb_stat_group_destroy(dash);
    kb_stat_group_destroy(tail);
}

static size_t lines_count(const char *text, char comment)
{
    size_t count = 0;

    for (const char *p = text; *p != '\0'; p = strchr(p, '\n') + 1) {
        count += *p != comment ? 1 : 0;
    }
    return count;
}

/* Every statistic of text output is in Prometheus output once, also where groups of different
 * schemas have the same extracted name. */
static void test_prometheus_has_every_statistic_once(void **state)
{
    static const char *const prefixes[] = {"s", "cluster.a", "cluster.b", "server.worker_"};
    static const struct kb_stat_schema *const schemas[] = {
#define S(ID, file) &kb_stat_schema_##file,
        KB_STAT_SCHEMAS(S)
#undef S
    };
    struct kb_stat_group *groups[KB_ARRAY_LEN(prefixes) * KB_ARRAY_LEN(schemas)];
    struct kb_stats_params params = {.format = KB_STATS_PROMETHEUS};
    struct kb_stats_dump *d;
    struct kb_json_out out;
    size_t count = 0;
    char *text;

    for (size_t i = 0; i < KB_ARRAY_LEN(prefixes); i++) {
        for (size_t k = 0; k < KB_ARRAY_LEN(schemas); k++) {
            char prefix[64];

            snprintf(prefix, sizeof(prefix), "%s%zu.", prefixes[i], k);
            groups[count++] = kb_stat_group_create(*state, kb_str_from_cstr(prefix), schemas[k]);
        }
    }
    kb_json_out_init(&out, 0);
    d = kb_stats_dump_create(*state, &params);
    while (kb_stats_dump_next(d, &out, 4096)) {
    }
    kb_stats_dump_destroy(d);
    kb_json_out_add(&out, kb_str_make("", 1));
    text = dump(*state, "", false);
    /* A histogram without samples has one line of text and 22 samples. */
    assert_true(lines_count(out.p, '#') > lines_count(text, '#'));
    assert_int_equal((lines_count(out.p, '#') - lines_count(text, '#')) % 21, 0);
    free(text);
    kb_json_out_dispose(&out);
    for (size_t i = 0; i < count; i++) {
        kb_stat_group_destroy(groups[i]);
    }
}

static void test_group_destroyed_during_a_dump(void **state)
{
    for (int format = KB_STATS_TEXT; format <= KB_STATS_PROMETHEUS; format++) {
        struct kb_stats_params params = {.format = (enum kb_stats_format)format};
        struct kb_stat_group *a = cluster(*state, "cluster.a.");
        struct kb_stat_group *b = cluster(*state, "cluster.b.");
        struct kb_stats_dump *d = kb_stats_dump_create(*state, &params);
        struct kb_json_out out;

        kb_json_out_init(&out, 0);
        assert_true(kb_stats_dump_next(d, &out, 500));
        kb_stat_group_destroy(a);
        assert_true(kb_stats_dump_next(d, &out, 500));
        kb_stat_group_destroy(b);
        while (kb_stats_dump_next(d, &out, 500)) {
        }
        kb_stats_dump_destroy(d);
        kb_json_out_dispose(&out);
    }
}

static void test_dump_ends_when_too_much_would_be_kept_for_it(void **state)
{
    struct kb_stats_params params = {0};
    struct kb_stat_group *stays = cluster(*state, "cluster.z.");
    struct kb_stats_dump *d = kb_stats_dump_create(*state, &params);
    struct kb_json_out out;

    kb_json_out_init(&out, 0);
    assert_true(kb_stats_dump_next(d, &out, 1));
    for (int i = 0; i <= KB_STAT_GONE_MAX; i++) {
        kb_stat_group_destroy(
            kb_stat_group_create(*state, KB_STR("gone."), &kb_stat_schema_overload));
    }
    assert_int_equal(((struct kb_stat_store *)*state)->gone_count, 0);
    while (kb_stats_dump_next(d, &out, 500)) {
    }
    assert_true(out.len < 200);
    kb_stats_dump_destroy(d);
    kb_json_out_dispose(&out);
    kb_stat_group_destroy(stays);
}

struct counting {
    struct kb_stat_group *group;
    uint32_t index;
};

static void *count_on_thread(void *arg)
{
    struct counting *counting = arg;
    struct kb_stat_block *block = kb_stat_group_block(counting->group, counting->index);

    for (unsigned i = 0; i < 20000; i++) {
        kb_stat_inc(block, KB_STAT_CLUSTER_UPSTREAM_RQ_TOTAL);
        kb_stat_code_inc(block, KB_STAT_CODE_PLAIN, 100 + i % 50);
        kb_stat_code_time(block, KB_STAT_CODE_EXTERNAL, i * 7);
    }
    return NULL;
}

static void test_reading_while_workers_count(void **state)
{
    struct kb_stat_group *group = cluster(*state, "cluster.a.");
    struct counting counting[WORKERS];
    pthread_t threads[WORKERS];

    for (uint32_t i = 0; i < WORKERS; i++) {
        counting[i] = (struct counting){group, i};
        assert_int_equal(pthread_create(&threads[i], NULL, count_on_thread, &counting[i]), 0);
    }
    for (int i = 0; i < 20; i++) {
        kb_stat_store_flush(*state);
        free(dump(*state, "", true));
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    kb_stat_store_flush(*state);
    assert_int_equal(value(*state, "cluster.a.upstream_rq_total"), 20000 * WORKERS);
    assert_int_equal(value(*state, "cluster.a.upstream_rq_1xx"), 20000 * WORKERS);
    kb_stat_group_destroy(group);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_unused_cluster_has_zeros_and_no_blocks),
        TEST(test_workers_are_added_up),
        TEST(test_same_prefix_and_schema_is_one_group),
        TEST(test_response_codes_make_classes_and_totals),
        TEST(test_reset_zeroes_counters_only),
        TEST(test_zero_gauge_that_was_set_is_used),
        TEST(test_histogram_shows_after_flush_and_interval_passes),
        TEST(test_provider_is_asked_when_somebody_looks),
        TEST(test_reset_reaches_counters_of_providers),
        TEST(test_admin_groups_have_fewer_members),
        TEST(test_order_over_nested_prefixes),
        TEST(test_prometheus_has_every_statistic_once),
        TEST(test_group_destroyed_during_a_dump),
        TEST(test_dump_ends_when_too_much_would_be_kept_for_it),
        TEST(test_reading_while_workers_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
