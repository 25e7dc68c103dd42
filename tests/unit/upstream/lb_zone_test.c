/* SPDX-License-Identifier: Apache-2.0 */
/* Zone aware routing with a worker: shares of what stays and what goes where, and changes of the
 * own cluster. */
#include "tests/unit/upstream/upstream_fixture.h"

#include "proxy/upstream/cluster_type.h"

#define EP(port) \
    "{'endpoint':{'address':{'socket_address':{'address':'127.0.0.1','port_value':" port "}}}}"
#define ZONE(zone, endpoints) "{'locality':{'zone':'" zone "'},'lb_endpoints':[" endpoints "]}"
#define CLUSTER(name, zones)                                                                 \
    "{'name':'" name "','common_lb_config':{'zone_aware_lb_config':{'min_cluster_size':2}}," \
    "'load_assignment':{'cluster_name':'" name "','endpoints':[" zones "]}}"
/* Two of three callers are in our zone. */
#define ME CLUSTER("me", ZONE("z1", EP("1") "," EP("2")) "," ZONE("z2", EP("3")))

static void start(struct upstream *up, const char *upstream)
{
    Envoy__Config__Bootstrap__V3__Bootstrap message = ENVOY__CONFIG__BOOTSTRAP__V3__BOOTSTRAP__INIT;
    Envoy__Config__Bootstrap__V3__ClusterManager manager =
        ENVOY__CONFIG__BOOTSTRAP__V3__CLUSTER_MANAGER__INIT;
    Envoy__Config__Bootstrap__V3__Bootstrap__StaticResources resources =
        ENVOY__CONFIG__BOOTSTRAP__V3__BOOTSTRAP__STATIC_RESOURCES__INIT;
    Envoy__Config__Cluster__V3__Cluster *me = cluster_parse(up, ME);

    up->server.node_zone = KB_STR("z1");
    resources.n_clusters = 1;
    resources.clusters = &me;
    manager.local_cluster_name = (char *)(uintptr_t)"me";
    message.cluster_manager = &manager;
    message.static_resources = &resources;
    kb_cluster_manager_configure(up->manager, &message, &up->diag);
    assert_int_equal(up->diag.error_count, 0);
    if (cluster_add(up, upstream) != 0 || cluster_add(up, ME) != 0) {
        fail_msg("%s", reported(up));
    }
    upstream_start(up);
}

/* How many of 6,000 requests go to hosts of our zone, whose ports are below 100, and to those of
 * ports from 300 on. */
static void picks(struct upstream *up, unsigned *ours, unsigned *third)
{
    struct kb_cluster_local *local = local_find(up, 0, "c");

    *ours = *third = 0;
    for (unsigned i = 0; i < 6000; i++) {
        unsigned port = kb_host_port(kb_cluster_local_choose_host(local, NULL));

        *ours += port < 100 ? 1 : 0;
        *third += port >= 300 ? 1 : 0;
    }
}

static void a_small_zone_keeps_what_it_can(void **state)
{
    struct upstream *up = *state;
    unsigned ours, third;

    /* A third of the hosts for two thirds of the callers: half of ours stays. The other zones have
     * room for 1/6 and 1/6 of all: z2 has half of the hosts and a third of the callers. */
    start(up,
          CLUSTER("c", ZONE("z1", EP("10") "," EP("11")) "," ZONE(
                           "z2", EP("200") "," EP("201") "," EP("202")) "," ZONE("z3", EP("300"))));
    picks(up, &ours, &third);
    assert_in_range(ours, 2850, 3150);
    assert_in_range(third, 1350, 1650);
    assert_in_range(stat_value(up, "cluster.c.lb_zone_routing_sampled"), 2850, 3150);
    assert_int_equal(stat_value(up, "cluster.c.lb_zone_routing_cross_zone") +
                         stat_value(up, "cluster.c.lb_zone_routing_sampled"),
                     6000);
}

static void the_own_cluster_may_change(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_entry *entry;
    struct kb_host_group groups[2] = {{.count = 1}, {.count = 1}};
    struct kb_host *hosts[3];
    unsigned ours, third;

    start(up, CLUSTER("c", ZONE("z1", EP("10")) "," ZONE("z2", EP("200") "," EP("201"))));
    picks(up, &ours, &third);
    assert_in_range(ours, 2850, 3150); /* 1/3 for 2/3 */
    entry =
        (struct kb_cluster_entry *)(uintptr_t)kb_cluster_manager_find(up->manager, KB_STR("me"));
    for (unsigned i = 0; i < 3; i++) {
        hosts[i] = kb_host_ref(entry->set->sets[0].all.hosts[i]);
    }
    groups[0].hosts = hosts;
    groups[1].hosts = hosts + 2;
    kb_cluster_entry_set_hosts(entry, groups, 2);
    workers_turn(up);
    picks(up, &ours, &third);
    assert_in_range(ours, 3850, 4150); /* 1/3 for 1/2 */
    groups[1].count = 0;
    kb_cluster_entry_set_hosts(entry, groups, 2); /* one zone of callers alone */
    workers_turn(up);
    picks(up, &ours, &third);
    assert_int_equal(ours, 2000);
    for (unsigned i = 0; i < 3; i++) {
        kb_host_unref(hosts[i]);
    }
}

static void the_own_cluster_has_to_be_there(void **state)
{
    struct upstream *up = *state;
    Envoy__Config__Bootstrap__V3__Bootstrap message = ENVOY__CONFIG__BOOTSTRAP__V3__BOOTSTRAP__INIT;
    Envoy__Config__Bootstrap__V3__ClusterManager manager =
        ENVOY__CONFIG__BOOTSTRAP__V3__CLUSTER_MANAGER__INIT;

    manager.local_cluster_name = (char *)(uintptr_t)"me";
    message.cluster_manager = &manager;
    kb_cluster_manager_configure(up->manager, &message, &up->diag);
    assert_string_equal(reported(up), "cluster_manager.local_cluster_name: local cluster 'me' must "
                                      "be defined\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UPSTREAM_TEST(a_small_zone_keeps_what_it_can),
        UPSTREAM_TEST(the_own_cluster_may_change),
        UPSTREAM_TEST(the_own_cluster_has_to_be_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
