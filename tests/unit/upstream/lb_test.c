/* SPDX-License-Identifier: Apache-2.0 */
/* The load balancers over real views: order, shares, priorities, panic, localities, asking again.
 */
#include "tests/unit/upstream/upstream_fixture.h"

#include "proxy/api/runtime.h"
#include "proxy/upstream/cluster_type.h"

#define LOCALITY(attributes, endpoints) "{" attributes "'lb_endpoints':[" endpoints "]}"
#define ENDPOINT(attributes, port) \
    "{" attributes                 \
    "'endpoint':{'address':{'socket_address':{'address':'127.0.0.1','port_value':" port "}}}}"
#define CLUSTER(attributes, localities)                                                            \
    "{'name':'c'," attributes "'load_assignment':{'cluster_name':'c','endpoints':[" localities "]" \
    "}"                                                                                            \
    "}"
#define FIVE          \
    ENDPOINT("", "0") \
    "," ENDPOINT("", "1") "," ENDPOINT("", "2") "," ENDPOINT("", "3") "," ENDPOINT("", "4")
#define WEIGHT(n) "'load_balancing_weight':" #n ","
#define FIVE_WEIGHTED                                                       \
    ENDPOINT(WEIGHT(1), "0")                                                \
    "," ENDPOINT(WEIGHT(2), "1") "," ENDPOINT(WEIGHT(3), "2") "," ENDPOINT( \
        WEIGHT(4), "3") "," ENDPOINT(WEIGHT(5), "4")

static struct kb_cluster_local *cluster_start(struct upstream *up, const char *json)
{
    if (cluster_add(up, json) != 0) {
        fail_msg("%s", reported(up));
    }
    upstream_start(up);
    return local_find(up, 0, "c");
}

/* The port, which is the number of the host; -1: none. */
static int pick(struct kb_cluster_local *local)
{
    struct kb_host *host = kb_cluster_local_choose_host(local, NULL);

    return host == NULL ? -1 : kb_host_port(host);
}

static struct kb_host *host_at(struct upstream *up, unsigned priority, unsigned at)
{
    return kb_cluster_manager_find(up->manager, KB_STR("c"))->set->sets[priority].all.hosts[at];
}

static void active_set(struct kb_host *host, unsigned worker, uint64_t active)
{
    struct kb_host_local *local = kb_host_local_get(host, worker);

    kb_host_stat_add(local, KB_HOST_RQ_ACTIVE, (int64_t)(active - local->stats[KB_HOST_RQ_ACTIVE]));
}

static void round_robin_goes_in_turn(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(up, CLUSTER("", LOCALITY("", FIVE)));
    int first = pick(local), other = pick(local_find(up, 1, "c"));

    for (int i = 1; i < 23; i++) {
        assert_int_equal(pick(local), (first + i) % 5);
    }
    assert_int_equal(pick(local_find(up, 1, "c")),
                     (other + 1) % 5); /* each worker has its own turn */
}

static void round_robin_takes_turns_by_weight(void **state)
{
    /* Envoy 1.40 over hosts of weight 1 to 5: one period as seen on the wire. */
    static const int period[15] = {4, 4, 3, 2, 4, 1, 3, 4, 2, 3, 4, 0, 1, 2, 3};
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(up, CLUSTER("", LOCALITY("", FIVE_WEIGHTED)));
    int seen[30];
    bool found = false;

    for (unsigned i = 0; i < 30; i++) {
        seen[i] = pick(local);
    }
    for (unsigned start = 0; start < 15; start++) {
        found = found || memcmp(seen + start, period, sizeof(period)) == 0;
    }
    assert_true(found);
}

static void round_robin_keeps_its_place_when_hosts_change(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(up, CLUSTER("", LOCALITY("", FIVE)));
    struct kb_cluster_entry *entry =
        (struct kb_cluster_entry *)(uintptr_t)kb_cluster_manager_find(up->manager, KB_STR("c"));
    int first = pick(local);
    struct kb_host *hosts[5];

    for (unsigned i = 0; i < 5; i++) {
        hosts[i] = kb_host_ref(host_at(up, 0, i));
    }
    kb_cluster_entry_set_hosts(entry, &(struct kb_host_group){.hosts = hosts, .count = 5}, 1);
    workers_turn(up);
    assert_int_equal(pick(local), (first + 1) % 5);
    for (unsigned i = 0; i < 5; i++) {
        kb_host_unref(hosts[i]);
    }
}

/* How often host 0 of five is taken in 4,500 picks when it has been healthy for `for_ms` of a
 * window of 10 s, and the others for long. */
static unsigned newcomer_share(struct upstream *up, const char *policy, unsigned for_ms)
{
    const char *json = kb_str_printf(&up->arena, CLUSTER("%s", LOCALITY("", FIVE)), policy).p;
    struct kb_cluster_local *local;
    uint32_t now_ms;
    unsigned taken = 0;

    if (cluster_add(up, json) != 0) {
        fail_msg("%s", reported(up));
    }
    upstream_start(up);
    now_ms = (uint32_t)kb_loop_now_ms(&up->workers[0].loop);
    for (unsigned i = 0; i < 5; i++) {
        struct kb_host *host = host_at(up, 0, i);

        assert_in_range(host->healthy_since_ms, 2, UINT32_MAX);
        host->healthy_since_ms = i == 0 ? now_ms - for_ms : 1;
    }
    local = local_find(up, 0, "c");
    for (unsigned i = 0; i < 4500; i++) {
        taken += pick(local) == 0 ? 1 : 0;
    }
    return taken;
}

#define SLOW_START(more) \
    "'round_robin_lb_config':{'slow_start_config':{'slow_start_window':'10s'" more "}},"

static void newcomers_get_their_share_of_the_window(void **state)
{
    assert_in_range(newcomer_share(*state, SLOW_START(""), 5000), 490, 510); /* 0.5 of 4.5 */
}

static void newcomers_get_a_tenth_at_least(void **state)
{
    assert_in_range(newcomer_share(*state, SLOW_START(""), 1), 105, 115); /* 0.1 of 4.1 */
}

static void newcomers_get_what_is_configured_at_least(void **state)
{
    assert_in_range(newcomer_share(*state, SLOW_START(",'min_weight_percent':{'value':25}"), 1),
                    260, 270); /* 0.25 of 4.25 */
}

static void aggression_bends_the_slow_start(void **state)
{
    /* (2 / 10) ^ (1 / 2) = 0.447 of 4.447 */
    assert_in_range(newcomer_share(*state,
                                   SLOW_START(",'aggression':{'default_value':2,"
                                              "'runtime_key':'none'}"),
                                   2000),
                    445, 460);
}

static double two_for_k(const struct kb_runtime *runtime, struct kb_str key, double absent)
{
    (void)runtime;
    return kb_str_eq(key, KB_STR("k")) ? 2 : absent;
}

static void runtime_may_bend_it(void **state)
{
    static const struct kb_runtime_ops ops = {.get_double = two_for_k};
    struct kb_runtime runtime = {.ops = &ops, .first_letters = UINT32_MAX};
    struct upstream *up = *state;

    up->server.runtime = &runtime;
    assert_in_range(
        newcomer_share(up, SLOW_START(",'aggression':{'default_value':1,'runtime_key':'k'}"), 2000),
        445, 460);
    up->server.runtime = NULL;
}

static void newcomers_of_least_request_start_slowly_too(void **state)
{
    assert_in_range(newcomer_share(*state,
                                   "'lb_policy':'LEAST_REQUEST','least_request_lb_config':{"
                                   "'slow_start_config':{'slow_start_window':'10s'}},",
                                   5000),
                    490, 510);
}

static void nobody_is_new_for_ever(void **state)
{
    assert_in_range(newcomer_share(*state, SLOW_START(""), 10000), 899, 901);
}

static void random_takes_all_alike_whatever_their_weight(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local =
        cluster_start(up, CLUSTER("'lb_policy':'RANDOM',", LOCALITY("", FIVE_WEIGHTED)));
    unsigned count[5] = {0};

    for (unsigned i = 0; i < 10000; i++) {
        count[pick(local)]++;
    }
    for (unsigned i = 0; i < 5; i++) {
        assert_in_range(count[i], 1800, 2200);
    }
}

static void least_request_prefers_the_idle(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local =
        cluster_start(up, CLUSTER("'lb_policy':'LEAST_REQUEST',", LOCALITY("", FIVE)));
    unsigned count[5] = {0};

    /* Host 2 is busy, with requests of another worker: taken only when both random picks are it, 1
     * in 25. */
    active_set(host_at(up, 0, 2), 1, 50);
    for (unsigned i = 0; i < 10000; i++) {
        count[pick(local)]++;
    }
    assert_in_range(count[2], 320, 480);
    assert_in_range(count[0], 2200, 2600);
}

static void least_request_full_scan_takes_the_best(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(
        up, CLUSTER("'load_balancing_policy':{'policies':[{'typed_extension_config':{'name':'"
                    "unknown','typed_config':{"
                    "'@type':'type.googleapis.com/"
                    "envoy.config.cluster.v3.Cluster'}}},{'typed_extension_config':{'name':'x',"
                    "'typed_config':{'@type':'type.googleapis.com/"
                    "envoy.extensions.load_balancing_policies.least_request.v3"
                    ".LeastRequest','selection_method':'FULL_SCAN'}}}]},",
                    LOCALITY("", FIVE)));
    unsigned count[5] = {0};

    for (unsigned i = 0; i < 3; i++) {
        active_set(host_at(up, 0, i), 0, i + 1);
    }
    for (unsigned i = 0; i < 1000; i++) {
        count[pick(local)]++;
    }
    assert_int_equal(count[0] + count[1] + count[2], 0);
    assert_in_range(count[3], 420, 580); /* the tied share */
}

static void least_request_weighs_weights_against_requests(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(
        up, CLUSTER("'lb_policy':'LEAST_REQUEST',",
                    LOCALITY("", ENDPOINT(WEIGHT(1), "0") "," ENDPOINT(WEIGHT(4), "1"))));
    unsigned count[2] = {0};

    for (unsigned i = 0; i < 1000; i++) {
        count[pick(local)]++;
    }
    assert_in_range(count[1], 798, 802);
    active_set(host_at(up, 0, 1), 0, 3); /* 4 / (3 + 1) = 1 */
    count[0] = count[1] = 0;
    for (unsigned i = 0; i < 1000; i++) {
        count[pick(local)]++;
    }
    assert_in_range(count[1], 498, 503);
}

static void load_spills_to_the_next_priority(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(
        up, CLUSTER("", LOCALITY("'priority':0,", ENDPOINT("", "0") "," ENDPOINT(
                                                      "'health_status':'UNHEALTHY',",
                                                      "1")) "," LOCALITY("'priority':1,",
                                                                         ENDPOINT("", "2"))));
    unsigned count[3] = {0};

    for (unsigned i = 0; i < 10000; i++) {
        count[pick(local)]++;
    }
    assert_int_equal(count[1], 0);
    assert_in_range(count[0], 6800, 7200);
    assert_int_equal(stat_value(up, "cluster.c.lb_healthy_panic"), 0);
}

static void panic_uses_all_hosts(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(
        up, CLUSTER("", LOCALITY("", ENDPOINT("", "0") "," ENDPOINT(
                                         "'health_status':'UNHEALTHY',",
                                         "1") "," ENDPOINT("'health_status':'UNHEALTHY',", "2"))));
    unsigned count[3] = {0};

    for (unsigned i = 0; i < 30; i++) {
        count[pick(local)]++;
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(count[i], 10);
    }
    assert_int_equal(stat_value(up, "cluster.c.lb_healthy_panic"), 30);
}

static void panic_can_be_off_or_fail(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(
        up, CLUSTER("'common_lb_config':{'healthy_panic_threshold':{'value':0}},",
                    LOCALITY("", ENDPOINT("", "0") "," ENDPOINT(
                                     "'health_status':'UNHEALTHY',",
                                     "1") "," ENDPOINT("'health_status':'UNHEALTHY',", "2"))));

    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(pick(local), 0);
    }
    assert_int_equal(
        kb_cluster_manager_add(
            up->manager,
            cluster_parse(
                up,
                "{'name':'f','common_lb_config':{'zone_aware_lb_config':{'fail_traffic_on_panic':"
                "true}},'load_assignment':{'cluster_name':'c','endpoints':[" LOCALITY(
                    "", ENDPOINT("'health_status':'UNHEALTHY',", "1")) "]}}"),
            true, &up->diag),
        0);
    workers_turn(up);
    assert_int_equal(pick(local_find(up, 0, "f")), -1);
    assert_int_equal(stat_value(up, "cluster.f.lb_healthy_panic"), 1);
}

static void no_hosts_gives_none(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(up, CLUSTER("", ""));

    assert_int_equal(pick(local), -1);
    assert_int_equal(stat_value(up, "cluster.c.lb_healthy_panic"), 1);
}

static void localities_share_by_weight_and_health(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(
        up,
        CLUSTER("'common_lb_config':{'locality_weighted_lb_config':{}},",
                LOCALITY(
                    "'locality':{'zone':'a'}," WEIGHT(1),
                    ENDPOINT("", "0") "," ENDPOINT(
                        "", "1")) "," LOCALITY("'locality':{'zone':'b'}," WEIGHT(3),
                                               ENDPOINT("", "2") "," ENDPOINT("", "3") "," ENDPOINT(
                                                   "'health_status':'UNHEALTHY',",
                                                   "4") "," ENDPOINT("", "5"))));
    unsigned count[6] = {0};

    for (unsigned i = 0; i < 4000; i++) {
        count[pick(local)]++;
    }
    /* 3 of 4 hosts times 1.4 is still all of it. */
    assert_in_range(count[0] + count[1], 998, 1002);
    assert_int_equal(count[4], 0);
    assert_in_range(count[2], 998, 1002);
}

struct rejecting {
    const struct kb_host *host;
    unsigned asked;
    bool all;
};

static bool reject(void *arg, const struct kb_host *host)
{
    struct rejecting *rejecting = arg;

    rejecting->asked++;
    return rejecting->all || host == rejecting->host;
}

static void retries_ask_for_another_host(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local =
        cluster_start(up, CLUSTER("", LOCALITY("", ENDPOINT("", "0") "," ENDPOINT("", "1"))));
    struct rejecting rejecting = {.host = host_at(up, 0, 0)};
    struct kb_lb_request request = {
        .reject_host = reject, .reject_arg = &rejecting, .max_attempts = 3};

    for (unsigned i = 0; i < 10; i++) {
        assert_ptr_equal(kb_cluster_local_choose_host(local, &request), host_at(up, 0, 1));
    }
    rejecting.all = true;
    rejecting.asked = 0;
    assert_non_null(
        kb_cluster_local_choose_host(local, &request)); /* the last one, rejected as it is */
    assert_int_equal(rejecting.asked, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UPSTREAM_TEST(round_robin_goes_in_turn),
        UPSTREAM_TEST(round_robin_takes_turns_by_weight),
        UPSTREAM_TEST(round_robin_keeps_its_place_when_hosts_change),
        UPSTREAM_TEST(newcomers_get_their_share_of_the_window),
        UPSTREAM_TEST(newcomers_get_a_tenth_at_least),
        UPSTREAM_TEST(newcomers_get_what_is_configured_at_least),
        UPSTREAM_TEST(aggression_bends_the_slow_start),
        UPSTREAM_TEST(runtime_may_bend_it),
        UPSTREAM_TEST(newcomers_of_least_request_start_slowly_too),
        UPSTREAM_TEST(nobody_is_new_for_ever),
        UPSTREAM_TEST(random_takes_all_alike_whatever_their_weight),
        UPSTREAM_TEST(least_request_prefers_the_idle),
        UPSTREAM_TEST(least_request_full_scan_takes_the_best),
        UPSTREAM_TEST(least_request_weighs_weights_against_requests),
        UPSTREAM_TEST(load_spills_to_the_next_priority),
        UPSTREAM_TEST(panic_uses_all_hosts),
        UPSTREAM_TEST(panic_can_be_off_or_fail),
        UPSTREAM_TEST(no_hosts_gives_none),
        UPSTREAM_TEST(localities_share_by_weight_and_health),
        UPSTREAM_TEST(retries_ask_for_another_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
