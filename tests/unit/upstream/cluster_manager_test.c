/* SPDX-License-Identifier: Apache-2.0 */
/* The manager and the workers' views: publishing, slots, replacing and removing, and that nothing
 * is left behind. */
#include "tests/unit/upstream/upstream_fixture.h"

#include "proxy/upstream/cluster_type.h"

#define CLUSTER(name, port)                                                                     \
    "{'name':'" name "','load_assignment':{'cluster_name':'c','endpoints':[{'lb_endpoints':[{'" \
    "endpoint':{'address':{"                                                                    \
    "'socket_address':{'address':'127.0.0.1','port_value':" port "}}}}]}]}}"

static struct kb_worker *removed_worker;
static unsigned removed_count;

static void on_removed(struct kb_worker *worker, struct kb_host_local *local)
{
    assert_true(local->removed);
    removed_worker = worker;
    removed_count++;
}

static int add_via_api(struct upstream *up, const char *json)
{
    return kb_cluster_manager_add(up->manager, cluster_parse(up, json), true, &up->diag);
}

static struct kb_host *choose(struct kb_cluster_local *local)
{
    struct kb_lb_request request = {0};

    return kb_cluster_local_choose_host(local, &request);
}

static void start_publishes_to_all_workers(void **state)
{
    struct upstream *up = *state;
    uint32_t slot = kb_cluster_slot(up->manager, KB_STR("a")),
             missing = kb_cluster_slot(up->manager, KB_STR("none"));

    assert_int_equal(cluster_add(up, CLUSTER("a", "1")), 0);
    assert_int_equal(kb_cluster_slot(up->manager, KB_STR("a")), slot);
    assert_null(local_find(up, 0, "a"));
    upstream_start(up);
    assert_true(up->initialized);
    for (unsigned i = 0; i < WORKERS; i++) {
        struct kb_cluster_local *local = kb_cluster_local_get(&up->workers[i], slot);

        assert_non_null(local);
        assert_ptr_equal(local, local_find(up, i, "a"));
        assert_ptr_equal(local->worker, &up->workers[i]);
        assert_int_equal(kb_host_port(choose(local)), 1);
        assert_null(kb_cluster_local_get(&up->workers[i], missing));
        assert_null(local_find(up, i, "none"));
        assert_null(local_find(up, i, "never heard of"));
        assert_null(kb_cluster_local_get(&up->workers[i], 12345));
    }
    assert_non_null(kb_cluster_local_find(&up->main, KB_STR("a")));
    assert_int_equal(stat_value(up, "cluster_manager.active_clusters"), 1);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_added"), 1);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_updated"), 0);
    assert_int_equal(stat_value(up, "thread_local_cluster_manager.worker_1.clusters_inflated"), 1);
    assert_int_equal(stat_value(up, "thread_local_cluster_manager.main_thread.clusters_inflated"),
                     1);
}

static void idle_clusters_cost_workers_nothing(void **state)
{
    struct upstream *up = *state;

    assert_int_equal(cluster_add(up, CLUSTER("a", "1")), 0);
    upstream_start(up);
    assert_null(kb_cluster_manager_find(up->manager, KB_STR("a"))->cluster->locals[0]);
    (void)local_find(up, 0, "a");
    assert_non_null(kb_cluster_manager_find(up->manager, KB_STR("a"))->cluster->locals[0]);
    assert_null(kb_cluster_manager_find(up->manager, KB_STR("a"))->cluster->locals[1]);
}

static void message_is_kept_as_it_was(void **state)
{
    struct upstream *up = *state;
    Envoy__Config__Cluster__V3__Cluster *message = cluster_parse(up, CLUSTER("a", "1"));
    struct kb_str bytes = kb_pb_pack(&message->base, &up->arena);

    assert_int_equal(kb_cluster_manager_add(up->manager, message, false, &up->diag), 0);
    assert_true(kb_str_eq(kb_cluster_manager_find(up->manager, KB_STR("a"))->message, bytes));
}

static void removed_cluster_lives_on_with_its_streams(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local;
    struct kb_host_local *host;

    kb_host_set_removed_cb(on_removed);
    removed_count = 0;
    upstream_start(up);
    assert_int_equal(add_via_api(up, CLUSTER("a", "1")), 0);
    workers_turn(up);
    local = local_find(up, 1, "a");
    assert_non_null(local);
    kb_cluster_local_ref(local);
    host = kb_host_local_get(choose(local), 1);
    kb_host_local_ref(host);
    assert_int_equal(kb_cluster_manager_remove(up->manager, KB_STR("a")), 0);
    assert_false(kb_cluster_manager_has(up->manager, KB_STR("a")));
    assert_int_equal(kb_cluster_manager_remove(up->manager, KB_STR("a")), KB_ENOTFOUND);
    workers_turn(up);
    assert_null(local_find(up, 1, "a"));
    assert_true(local->removed);
    assert_null(choose(local));
    assert_int_equal(removed_count, 1); /* worker 0 never used it */
    assert_ptr_equal(removed_worker, &up->workers[1]);
    assert_true(kb_str_eq(local->cluster->name, KB_STR("a")));
    assert_int_equal(kb_host_port(host->host), 1);
    kb_host_local_unref(host);
    kb_cluster_local_unref(local);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_removed"), 1);
    assert_int_equal(stat_value(up, "cluster_manager.active_clusters"), 0);
    kb_host_set_removed_cb(NULL);
}

static void newer_one_takes_the_name(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *old, *new;

    assert_int_equal(cluster_add(up, CLUSTER("s", "9")), 0);
    upstream_start(up);
    assert_int_equal(add_via_api(up, CLUSTER("a", "1")), 0);
    workers_turn(up);
    old = local_find(up, 0, "a");
    kb_cluster_local_ref(old);
    assert_int_equal(add_via_api(up, CLUSTER("a", "2")), 0);
    workers_turn(up);
    new = local_find(up, 0, "a");
    assert_ptr_not_equal(old, new);
    assert_int_equal(kb_host_port(choose(new)), 2);
    assert_true(old->removed);
    kb_cluster_local_unref(old);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_modified"), 1);
    assert_int_equal(stat_value(up, "cluster_manager.active_clusters"), 2);
    /* the bootstrap's clusters stay */
    assert_int_equal(add_via_api(up, CLUSTER("s", "1")), KB_CLUSTER_UNCHANGED);
    assert_int_equal(kb_host_port(choose(local_find(up, 0, "s"))), 9);
    assert_int_equal(cluster_add(up, CLUSTER("s", "1")), KB_ECONFIG);
    assert_string_equal(reported(up), ": cluster manager: duplicate cluster 's'\n");
}

static void the_same_again_changes_nothing(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local;

    upstream_start(up);
    assert_int_equal(add_via_api(up, CLUSTER("a", "1")), 0);
    workers_turn(up);
    local = local_find(up, 0, "a");
    assert_int_equal(add_via_api(up, CLUSTER("a", "1")), KB_CLUSTER_UNCHANGED);
    workers_turn(up);
    assert_ptr_equal(local_find(up, 0, "a"), local);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_added"), 1);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_modified"), 0);
}

static struct kb_host *host_make(struct kb_cluster_entry *entry, uint16_t port)
{
    struct kb_host_params params = {0};

    assert_int_equal(kb_addr_from_ip(&params.addr, KB_STR("10.0.0.1"), port), 0);
    return kb_host_create(entry->cluster, &params, WORKERS);
}

static void changes_of_hosts_reach_workers_once_each_event(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_entry *entry;
    struct kb_host *hosts[4];
    struct kb_cluster_local *local;

    kb_host_set_removed_cb(on_removed);
    removed_count = 0;
    assert_int_equal(cluster_add(up, CLUSTER("a", "1")), 0);
    upstream_start(up);
    entry = (struct kb_cluster_entry *)(uintptr_t)kb_cluster_manager_find(up->manager, KB_STR("a"));
    for (uint16_t i = 0; i < 4; i++) {
        hosts[i] = host_make(entry, (uint16_t)(i + 10));
    }
    local = local_find(up, 0, "a");
    (void)kb_host_local_get(choose(local), 0);
    /* Two changes before any worker looks: what was only there between them never reaches a worker.
     */
    kb_cluster_entry_set_hosts(entry, &(struct kb_host_group){.hosts = hosts, .count = 2}, 1);
    kb_cluster_entry_set_hosts(entry, &(struct kb_host_group){.hosts = hosts + 2, .count = 2}, 1);
    assert_int_equal(kb_host_port(choose(local)), 1);
    workers_turn(up);
    assert_ptr_equal(local_find(up, 0, "a"), local);
    assert_int_equal(removed_count, 1);
    for (unsigned i = 0; i < 4; i++) {
        assert_in_range(kb_host_port(choose(local)), 12, 13);
    }
    assert_int_equal(stat_value(up, "cluster_manager.cluster_updated"), 2);
    assert_int_equal(stat_value(up, "cluster.a.membership_change"), 3);
    assert_int_equal(stat_value(up, "cluster.a.membership_total"), 2);
    assert_int_equal(hosts[0]->refs, 1);
    for (unsigned i = 0; i < 4; i++) {
        kb_host_unref(hosts[i]);
    }
    kb_host_set_removed_cb(NULL);
}

static void names_are_remembered_for_clusters_to_come(void **state)
{
    struct upstream *up = *state;

    upstream_start(up);
    (void)kb_cluster_slot(up->manager, KB_STR("later"));
    assert_null(local_find(up, 0, "later")); /* the worker remembers the number now */
    for (unsigned i = 0; i < 100; i++) {
        char name[16];

        snprintf(name, sizeof(name), "n%u", i);
        (void)kb_cluster_slot(up->manager, kb_str_from_cstr(name));
    }
    assert_int_equal(add_via_api(up, CLUSTER("later", "5")), 0);
    assert_int_equal(add_via_api(up, CLUSTER("n99", "6")), 0);
    workers_turn(up);
    assert_int_equal(kb_host_port(choose(local_find(up, 0, "later"))), 5);
    assert_int_equal(kb_host_port(choose(local_find(up, 1, "n99"))), 6);
}

static void numbers_of_names_that_are_gone_are_used_again(void **state)
{
    struct upstream *up = *state;
    char before[16] = "none";
    uint32_t routed;

    upstream_start(up);
    routed = kb_cluster_slot(up->manager, KB_STR("n7"));
    for (unsigned i = 0; i < 50; i++) {
        char json[256], name[16];

        snprintf(name, sizeof(name), "n%u", i);
        snprintf(json, sizeof(json),
                 "{'name':'%s','load_assignment':{'cluster_name':'c','endpoints':[{'lb_endpoints':["
                 "{'endpoint':{'address':{'socket_address':{'address':'127.0.0.1','port_value':%u}}"
                 "}}]}]}}",
                 name, i + 1);
        assert_int_equal(add_via_api(up, json), 0);
        workers_turn(up);
        assert_int_equal(kb_host_port(choose(local_find(up, 0, name))), i + 1);
        assert_null(local_find(up, 0, before)); /* whose number it may have now */
        memcpy(before, name, sizeof(before));
        assert_int_equal(kb_cluster_manager_remove(up->manager, kb_str_from_cstr(name)), 0);
        workers_turn(up);
        workers_turn(up);
        assert_null(local_find(up, 0, name));
        assert_null(local_find(up, 1, name));
    }
    assert_true(kb_cluster_slot(up->manager, KB_STR("fresh")) < 5);
    assert_int_equal(kb_cluster_slot(up->manager, KB_STR("n7")), routed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UPSTREAM_TEST(start_publishes_to_all_workers),
        UPSTREAM_TEST(numbers_of_names_that_are_gone_are_used_again),
        UPSTREAM_TEST(idle_clusters_cost_workers_nothing),
        UPSTREAM_TEST(message_is_kept_as_it_was),
        UPSTREAM_TEST(removed_cluster_lives_on_with_its_streams),
        UPSTREAM_TEST(newer_one_takes_the_name),
        UPSTREAM_TEST(the_same_again_changes_nothing),
        UPSTREAM_TEST(changes_of_hosts_reach_workers_once_each_event),
        UPSTREAM_TEST(names_are_remembered_for_clusters_to_come),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
