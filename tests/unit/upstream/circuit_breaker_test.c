/* SPDX-License-Identifier: Apache-2.0 */
/* Circuit breakers: exact limits over two workers, gauges, forced use, retry budgets. */
#include "tests/unit/upstream/upstream_fixture.h"

#define CLUSTER(thresholds) "{'name':'c','circuit_breakers':{'thresholds':[" thresholds "]}}"

static void limit_holds_however_workers_share_it(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *a, *b;

    assert_int_equal(cluster_add(up, CLUSTER("{'max_connections':10}")), 0);
    upstream_start(up);
    a = local_find(up, 0, "c");
    b = local_find(up, 1, "c");
    for (unsigned from_a = 0; from_a <= 10; from_a++) {
        for (unsigned i = 0; i < from_a; i++) {
            assert_true(kb_resource_take(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS));
        }
        for (unsigned i = from_a; i < 10; i++) {
            assert_int_equal(stat_value(up, "cluster.c.circuit_breakers.default.cx_open"), 0);
            assert_true(kb_resource_can(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS));
            assert_true(kb_resource_take(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS));
        }
        assert_int_equal(stat_value(up, "cluster.c.circuit_breakers.default.cx_open"), 1);
        assert_int_equal(stat_value(up, "cluster.c.circuit_breakers.high.cx_open"), 0);
        assert_false(kb_resource_can(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS));
        assert_false(kb_resource_take(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS));
        assert_false(kb_resource_take(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS));
        /* Another resource and another priority have limits of their own. */
        assert_true(kb_resource_can(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS));
        assert_true(kb_resource_can(a, KB_PRIORITY_HIGH, KB_RESOURCE_CONNECTIONS));
        for (unsigned i = 0; i < from_a; i++) {
            kb_resource_give(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
        }
        for (unsigned i = from_a; i < 10; i++) {
            kb_resource_give(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
        }
        assert_int_equal(stat_value(up, "cluster.c.circuit_breakers.default.cx_open"), 0);
    }
}

static void small_limits_hold_too(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *a, *b;

    assert_int_equal(cluster_add(up, CLUSTER("{'max_requests':1,'max_pending_requests':0}")), 0);
    upstream_start(up);
    a = local_find(up, 0, "c");
    b = local_find(up, 1, "c");
    assert_false(kb_resource_take(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_PENDING));
    /* Nothing was ever pending, and Envoy sets the gauge only then. */
    assert_int_equal(stat_value(up, "cluster.c.circuit_breakers.default.rq_pending_open"), 0);
    assert_true(kb_resource_take(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS));
    assert_false(kb_resource_take(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS));
    assert_int_equal(stat_value(up, "cluster.c.circuit_breakers.default.rq_open"), 1);
    kb_resource_give(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS);
    assert_true(kb_resource_take(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS));
    kb_resource_give(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS);
}

static void below_its_share_a_worker_writes_nothing_shared(void **state)
{
    struct upstream *up = *state;
    const struct kb_cluster_impl *cluster;
    struct kb_cluster_local *a, *b;

    assert_int_equal(cluster_add(up, CLUSTER("{'max_requests':30}")), 0);
    upstream_start(up);
    cluster = kb_cluster_manager_find(up->manager, KB_STR("c"))->cluster;
    a = local_find(up, 0, "c");
    b = local_find(up, 1, "c");
    for (unsigned i = 0; i < 9; i++) {
        assert_true(kb_resource_take(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS));
    }
    assert_int_equal(cluster->shared[0][KB_RESOURCE_REQUESTS].over, 0);
    assert_true(kb_resource_take(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS));
    assert_int_equal(cluster->shared[0][KB_RESOURCE_REQUESTS].over, 1);
    for (unsigned i = 0; i < 20; i++) {
        assert_true(kb_resource_take(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS));
    }
    assert_int_equal(cluster->shared[0][KB_RESOURCE_REQUESTS].over, 2);
    assert_false(kb_resource_take(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS));
    for (unsigned i = 0; i < 10; i++) {
        kb_resource_give(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS);
    }
    for (unsigned i = 0; i < 20; i++) {
        kb_resource_give(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS);
    }
    assert_int_equal(cluster->shared[0][KB_RESOURCE_REQUESTS].over, 0);
}

static void remaining_is_tracked_when_asked(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *a, *b;
    const char *name = "cluster.c.circuit_breakers.default.remaining_cx";

    assert_int_equal(cluster_add(up, CLUSTER("{'max_connections':2,'track_remaining':true}")), 0);
    upstream_start(up);
    a = local_find(up, 0, "c");
    b = local_find(up, 1, "c");
    assert_int_equal(stat_value(up, name), 2);
    kb_resource_count_pool(a, KB_PRIORITY_DEFAULT, 1);
    kb_resource_count_pool(b, KB_PRIORITY_DEFAULT, 1);
    kb_resource_count_pool(a, KB_PRIORITY_DEFAULT, -1);
    assert_int_equal(stat_value(up, "cluster.c.circuit_breakers.default.remaining_cx_pools"),
                     UINT64_MAX - 1);
    kb_resource_force(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
    assert_int_equal(stat_value(up, name), 1);
    kb_resource_force(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
    kb_resource_force(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS); /* beyond the limit */
    assert_int_equal(stat_value(up, name), 0);
    kb_resource_give(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
    assert_int_equal(stat_value(up, name), 0);
    kb_resource_give(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
    assert_int_equal(stat_value(up, name), 1);
    kb_resource_give(b, KB_PRIORITY_DEFAULT, KB_RESOURCE_CONNECTIONS);
    assert_int_equal(stat_value(up, name), 2);
}

static void retry_budget_moves_with_requests(void **state)
{
    struct upstream *up = *state;
    const struct kb_cluster_entry *entry;
    struct kb_cluster_local *a, *b;
    unsigned taken = 0;

    assert_int_equal(cluster_add(up, CLUSTER("{'max_retries':1,'retry_budget':{'budget_percent':{'"
                                             "value':20},'min_retry_concurrency':3}}")),
                     0);
    upstream_start(up);
    entry = kb_cluster_manager_find(up->manager, KB_STR("c"));
    a = local_find(up, 0, "c");
    b = local_find(up, 1, "c");
    assert_int_equal(kb_cluster_entry_max_retries(entry, KB_PRIORITY_DEFAULT), 3);
    for (unsigned i = 0; i < 29; i++) {
        kb_resource_force(i % 2 ? a : b, KB_PRIORITY_DEFAULT, KB_RESOURCE_REQUESTS);
    }
    kb_resource_force(a, KB_PRIORITY_DEFAULT, KB_RESOURCE_PENDING);
    assert_int_equal(kb_cluster_entry_max_retries(entry, KB_PRIORITY_DEFAULT), 6);
    while (kb_resource_take(taken % 2 ? a : b, KB_PRIORITY_DEFAULT, KB_RESOURCE_RETRIES)) {
        taken++;
    }
    assert_int_equal(taken, 6);
    assert_int_equal(stat_value(up, "cluster.c.circuit_breakers.default.rq_retry_open"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UPSTREAM_TEST(limit_holds_however_workers_share_it),
        UPSTREAM_TEST(small_limits_hold_too),
        UPSTREAM_TEST(below_its_share_a_worker_writes_nothing_shared),
        UPSTREAM_TEST(remaining_is_tracked_when_asked),
        UPSTREAM_TEST(retry_budget_moves_with_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
