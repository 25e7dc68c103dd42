/* SPDX-License-Identifier: Apache-2.0 */
/* Outlier detection of a cluster with two workers: their results count together, every balancer
 * leaves an ejected host out, and changes of the hosts keep the state of those that stay. */
#include "tests/unit/upstream/upstream_fixture.h"

#include "proxy/upstream/cluster_type.h"
#include "proxy/upstream/outlier_detector.h"

#define EP(port) \
    "{'endpoint':{'address':{'socket_address':{'address':'127.0.0.1','port_value':" port "}}}}"
#define CLUSTER(attributes)                                                                     \
    "{'name':'c'," attributes "'outlier_detection':{'consecutive_5xx':4,'max_ejection_percent'" \
    ":50},'load_assignment':{'cluster_name':'c','endpoints':[{'lb_endpoints':[" EP("1") "," EP( \
        "2") "," EP("3") "," EP("4") "]}]}}"

static void cluster_start(struct upstream *up, const char *json)
{
    if (cluster_add(up, json) != 0) {
        fail_msg("%s", reported(up));
    }
    upstream_start(up);
}

static struct kb_cluster_entry *entry_of(struct upstream *up)
{
    return (struct kb_cluster_entry *)(uintptr_t)kb_cluster_manager_find(up->manager, KB_STR("c"));
}

static struct kb_host *host_at(struct upstream *up, unsigned at)
{
    return entry_of(up)->set->sets[0].all.hosts[at];
}

static void code(struct upstream *up, unsigned worker, unsigned status, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        kb_host_put_code(kb_host_local_get(host_at(up, 0), worker), status);
    }
    workers_turn(up);
    workers_turn(up);
}

static unsigned picks_of_first(struct upstream *up, unsigned worker)
{
    struct kb_cluster_local *local = local_find(up, worker, "c");
    unsigned taken = 0;

    for (unsigned i = 0; i < 400; i++) {
        taken += kb_cluster_local_choose_host(local, NULL) == host_at(up, 0) ? 1 : 0;
    }
    return taken;
}

#define ACTIVE(up) stat_value(up, "cluster.c.outlier_detection.ejections_active")

static void left_out(struct upstream *up, const char *json)
{
    cluster_start(up, json);
    assert_in_range(picks_of_first(up, 0), 20, 250);
    assert_in_range(picks_of_first(up, 1), 20, 250);
    code(up, 0, 503, 2);
    code(up, 1, 503, 1);
    assert_int_equal(ACTIVE(up), 0);
    code(up, 1, 503, 1);
    assert_int_equal(ACTIVE(up), 1);
    assert_int_equal(stat_value(up, "cluster.c.membership_healthy"), 3);
    assert_int_equal(stat_value(up, "cluster.c.membership_total"), 4);
    assert_int_equal(picks_of_first(up, 0), 0);
    assert_int_equal(picks_of_first(up, 1), 0);
    kb_outlier_uneject(host_at(up, 0)->outlier->detector, host_at(up, 0)->outlier, 1000);
    workers_turn(up);
    assert_int_equal(stat_value(up, "cluster.c.membership_healthy"), 4);
    assert_in_range(picks_of_first(up, 1), 20, 250);
}

static void round_robin_leaves_it_out(void **state)
{
    left_out(*state, CLUSTER(""));
}

static void least_request_leaves_it_out(void **state)
{
    left_out(*state, CLUSTER("'lb_policy':'LEAST_REQUEST',"));
}

static void random_leaves_it_out(void **state)
{
    left_out(*state, CLUSTER("'lb_policy':'RANDOM',"));
}

static void ring_hash_leaves_it_out(void **state)
{
    left_out(*state, CLUSTER("'lb_policy':'RING_HASH',"));
}

static void maglev_leaves_it_out(void **state)
{
    left_out(*state, CLUSTER("'lb_policy':'MAGLEV','maglev_lb_config':{'table_size':101},"));
}

static void localities_leave_it_out(void **state)
{
    left_out(*state, CLUSTER("'common_lb_config':{'locality_weighted_lb_config':{}},"));
}

static void a_success_elsewhere_ends_the_row(void **state)
{
    struct upstream *up = *state;

    cluster_start(up, CLUSTER(""));
    code(up, 0, 500, 3);
    code(up, 1, 200, 1);
    code(up, 0, 500, 3);
    assert_int_equal(ACTIVE(up), 0);
    code(up, 1, 500, 1);
    assert_int_equal(ACTIVE(up), 1);
}

static void hosts_that_stay_keep_their_state(void **state)
{
    struct upstream *up = *state;
    struct kb_host *hosts[4];

    cluster_start(up, CLUSTER(""));
    for (unsigned i = 0; i < 4; i++) {
        hosts[i] = kb_host_ref(host_at(up, i));
    }
    code(up, 0, 500, 4);
    kb_cluster_entry_set_hosts(entry_of(up), &(struct kb_host_group){.hosts = hosts, .count = 3},
                               1);
    workers_turn(up);
    assert_int_equal(ACTIVE(up), 1);
    assert_int_equal(stat_value(up, "cluster.c.membership_healthy"), 2);
    assert_int_equal(picks_of_first(up, 0), 0);
    assert_null(hosts[3]->outlier->detector);
    kb_cluster_entry_set_hosts(entry_of(up),
                               &(struct kb_host_group){.hosts = hosts + 1, .count = 3}, 1);
    workers_turn(up);
    assert_int_equal(ACTIVE(up), 0); /* one that is out left */
    assert_int_equal(stat_value(up, "cluster.c.membership_healthy"), 3);
    kb_host_put_code(kb_host_local_get(hosts[0], 0), 500); /* late answers change nothing */
    workers_turn(up);
    for (unsigned i = 0; i < 4; i++) {
        kb_host_unref(hosts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UPSTREAM_TEST(round_robin_leaves_it_out),
        UPSTREAM_TEST(least_request_leaves_it_out),
        UPSTREAM_TEST(random_leaves_it_out),
        UPSTREAM_TEST(ring_hash_leaves_it_out),
        UPSTREAM_TEST(maglev_leaves_it_out),
        UPSTREAM_TEST(localities_leave_it_out),
        UPSTREAM_TEST(a_success_elsewhere_ends_the_row),
        UPSTREAM_TEST(hosts_that_stay_keep_their_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
