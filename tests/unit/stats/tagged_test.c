/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics made with their labels: one for each set of them, by whichever thread, shown with the
 * labels that were given. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/stats/prometheus.h"
#include "proxy/stats/stat_iter.h"

#define WORKERS 2
#define ROUNDS  500

static const struct kb_tag tags[] = {
    {{"reporter", 8}, {"source", 6}},
    {{"app", 3}, {"", 0}},
    {{"host", 4}, {"a.b\"c", 5}},
};

static struct kb_stat_named *requests(struct kb_stat_store *store)
{
    return kb_stat_tagged_get(store, KB_STR("istiocustom.istio_requests_total"), tags,
                              KB_ARRAY_LEN(tags), KB_STAT_COUNTER);
}

static char *prometheus_text(struct kb_stat_store *store)
{
    struct kb_stats_params params = {.format = KB_STATS_PROMETHEUS};
    struct kb_prometheus *prometheus = kb_prometheus_create(store, &params);
    struct kb_json_out out;
    char *text;

    kb_json_out_init(&out, 0);
    while (kb_prometheus_next(prometheus, &out, 4096)) {
    }
    text = kb_str_to_cstr(kb_str_make(out.p, out.len));
    kb_json_out_dispose(&out);
    kb_prometheus_destroy(prometheus);
    return text;
}

static void test_names_and_labels(void **state)
{
    struct kb_stat_store *store = kb_stat_store_create(WORKERS);
    struct kb_stat_named *histogram;
    uint64_t value = 0;
    char *text;

    (void)state;
    kb_stat_named_add(requests(store), 0, 2);
    kb_stat_named_add(requests(store), 1, 3);
    histogram = kb_stat_tagged_get(store, KB_STR("istiocustom.istio_request_bytes"), tags, 1,
                                   KB_STAT_HISTOGRAM);
    kb_stat_named_add(histogram, 1, 7);
    kb_stat_store_flush(store);
    assert_int_equal(kb_stat_store_find(
                         store,
                         KB_STR("istiocustom.istio_requests_total.reporter.source.app.host.a.b\"c"),
                         &value),
                     0);
    assert_int_equal(value, 5);
    text = prometheus_text(store);
    assert_non_null(strstr(text, "# TYPE istio_requests_total counter\n"
                                 "istio_requests_total{reporter=\"source\",app=\"\","
                                 "host=\"a.b\\\"c\"} 5\n"));
    assert_non_null(strstr(text, "# TYPE istio_request_bytes histogram\n"));
    assert_non_null(strstr(text, "istio_request_bytes_bucket{reporter=\"source\",le=\"10\"} 1\n"));
    assert_non_null(strstr(text, "istio_request_bytes_count{reporter=\"source\"} 1\n"));
    free(text);
    kb_stat_store_destroy(store);
}

struct maker {
    struct kb_stat_store *store;
    uint32_t worker;
};

static void *make_many(void *arg)
{
    struct maker *maker = arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        char text[16];
        struct kb_tag tag = {KB_STR("n"), {text, (size_t)snprintf(text, sizeof(text), "%u", i)}};

        kb_stat_named_add(
            kb_stat_tagged_get(maker->store, KB_STR("istiocustom.x"), &tag, 1, KB_STAT_COUNTER),
            maker->worker, 1);
    }
    return NULL;
}

static void test_threads_make_one(void **state)
{
    struct kb_stat_store *store = kb_stat_store_create(WORKERS);
    struct maker makers[WORKERS];
    pthread_t threads[WORKERS];

    (void)state;
    for (uint32_t i = 0; i < WORKERS; i++) {
        makers[i] = (struct maker){store, i};
        assert_int_equal(pthread_create(&threads[i], NULL, make_many, &makers[i]), 0);
    }
    kb_stat_store_flush(store);
    for (uint32_t i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (unsigned i = 0; i < ROUNDS; i += 99) {
        char name[32];
        uint64_t value = 0;

        snprintf(name, sizeof(name), "istiocustom.x.n.%u", i);
        assert_int_equal(kb_stat_store_find(store, kb_str_from_cstr(name), &value), 0);
        assert_int_equal(value, WORKERS);
    }
    kb_stat_store_destroy(store);
}

static void test_they_are_bounded(void **state)
{
    struct kb_stat_store *store = kb_stat_store_create(1);
    struct kb_tag tag = {KB_STR("n"), KB_STR("0")};
    char text[16];

    (void)state;
    for (unsigned i = 0; i < KB_STAT_TAGGED_MAX; i++) {
        tag.value = kb_str_make(text, (size_t)snprintf(text, sizeof(text), "%u", i));
        assert_non_null(
            kb_stat_tagged_get(store, KB_STR("istiocustom.x"), &tag, 1, KB_STAT_COUNTER));
    }
    assert_non_null(kb_stat_tagged_get(store, KB_STR("istiocustom.x"), &tag, 1, KB_STAT_COUNTER));
    tag.value = KB_STR("one more");
    assert_null(kb_stat_tagged_get(store, KB_STR("istiocustom.x"), &tag, 1, KB_STAT_COUNTER));
    kb_stat_store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_labels),
        cmocka_unit_test(test_threads_make_one),
        cmocka_unit_test(test_they_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
