/* SPDX-License-Identifier: Apache-2.0 */
/* What sinks get at a flush: growth of counters, gauges, new samples of histograms, labels; and
 * nothing that was never used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/stats/stat_store.h"
#include "proxy/stats/stats_flush.h"

static char heard[4096];
static size_t heard_len;
static unsigned ended;

static void sink_sample(void *sink, const struct kb_stat_sample *sample)
{
    (void)sink;
    if (heard_len + 128 > sizeof(heard)) {
        return;
    }
    heard_len +=
        (size_t)snprintf(heard + heard_len, sizeof(heard) - heard_len, "%.*s(%zu) %u=%llux%llu;",
                         KB_STR_ARG(sample->tagged_name), sample->tag_count, (unsigned)sample->kind,
                         (unsigned long long)sample->value, (unsigned long long)sample->count);
}

static void sink_end(void *sink)
{
    (void)sink;
    ended++;
}

static void sink_destroy(void *sink)
{
    (void)sink;
}

static const struct kb_stat_sink_ops ops = {
    .name = "test",
    .wants_tags = true,
    .destroy = sink_destroy,
    .sample = sink_sample,
    .end = sink_end,
};

static const char *flush(struct kb_stat_flusher *flusher, struct kb_stat_store *store)
{
    heard_len = 0;
    heard[0] = '\0';
    kb_stat_store_flush(store);
    kb_stat_flusher_run(flusher, store);
    return heard;
}

static void test_growth(void **state)
{
    struct kb_stat_store *store = kb_stat_store_create(1);
    struct kb_stat_flusher flusher = {0};
    struct kb_stat_named *counter =
        kb_stat_named_create(store, KB_STR("cluster.c.a"), KB_STAT_COUNTER);
    struct kb_stat_named *unused = kb_stat_named_create(store, KB_STR("b"), KB_STAT_COUNTER);
    struct kb_stat_named *gauge = kb_stat_named_create(store, KB_STR("g"), KB_STAT_GAUGE);
    struct kb_stat_named *timer = kb_stat_named_create(store, KB_STR("t"), KB_STAT_HISTOGRAM);

    (void)state;
    kb_stat_flusher_add(&flusher, &ops, NULL);
    kb_stat_named_add(counter, 0, 5);
    kb_stat_named_set(gauge, 0, 7);
    kb_stat_named_add(timer, 0, 3);
    kb_stat_named_add(timer, 1, 3);
    kb_stat_named_add(timer, 1, 1234);
    assert_string_equal(flush(&flusher, store),
                        "cluster.a(1) 0=5x0;g(0) 1=7x0;t(0) 2=3x2;t(0) 2=1250x1;");
    kb_stat_named_add(counter, 1, 2);
    assert_string_equal(flush(&flusher, store), "cluster.a(1) 0=2x0;g(0) 1=7x0;");
    kb_stat_store_reset_counters(store);
    kb_stat_named_add(counter, 1, 1);
    assert_string_equal(flush(&flusher, store), "cluster.a(1) 0=1x0;g(0) 1=7x0;");
    assert_string_equal(flush(&flusher, store), "cluster.a(1) 0=0x0;g(0) 1=7x0;");
    assert_int_equal(ended, 4);
    kb_stat_flusher_dispose(&flusher);
    kb_stat_named_destroy(counter);
    kb_stat_named_destroy(unused);
    kb_stat_named_destroy(gauge);
    kb_stat_named_destroy(timer);
    kb_stat_store_destroy(store);
}

/* More counters than the table begins with, some of which go. */
static void test_many(void **state)
{
    struct kb_stat_store *store = kb_stat_store_create(1);
    struct kb_stat_flusher flusher = {0};
    struct kb_stat_named *counters[1000];

    (void)state;
    for (unsigned i = 0; i < KB_ARRAY_LEN(counters); i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "n%u", i);
        counters[i] = kb_stat_named_create(store, kb_str_from_cstr(name), KB_STAT_COUNTER);
        kb_stat_named_add(counters[i], 0, (int64_t)i + 1);
    }
    kb_stat_flusher_run(&flusher, store); /* without a sink nothing is kept */
    assert_int_equal(flusher.last.len, 0);
    kb_stat_flusher_add(&flusher, &ops, NULL);
    heard_len = 0;
    kb_stat_flusher_run(&flusher, store);
    assert_int_equal(flusher.last.len, KB_ARRAY_LEN(counters));
    for (unsigned i = 1; i < KB_ARRAY_LEN(counters); i++) {
        kb_stat_named_destroy(counters[i]);
    }
    kb_stat_named_add(counters[0], 0, 9);
    assert_string_equal(flush(&flusher, store), "n0(0) 0=9x0;");
    assert_int_equal(flusher.last.len, 1);
    kb_stat_flusher_dispose(&flusher);
    kb_stat_named_destroy(counters[0]);
    kb_stat_store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
