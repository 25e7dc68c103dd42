/* SPDX-License-Identifier: Apache-2.0 */
/* STRICT_DNS and LOGICAL_DNS clusters against a small server. The counters are those of Envoy 1.40
 * for the same answers. */
#include "tests/unit/upstream/upstream_fixture.h"

#include "tests/unit/support/fake_dns.h"

static struct fake_dns server;

static int setup(void **state)
{
    fake_dns_start(&server);
    return upstream_setup(state);
}

static int teardown(void **state)
{
    int rc = upstream_teardown(state);

    fake_dns_stop(&server);
    return rc;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* A cluster "c" that refreshes every `refresh`; `name` is looked up at the small server. */
static void cluster_start(struct upstream *up, const char *type, const char *name,
                          const char *attributes)
{
    struct kb_str json = kb_str_printf(
        &up->arena,
        "{'name':'c','type':'%s',%s'typed_dns_resolver_config':{'name':'envoy.network.dns_resolver."
        "cares','typed_config':{"
        "'@type':'type.googleapis.com/"
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig','resolvers':[{"
        "'socket_address':{'address':'127.0.0.1','port_value':%u}}],'query_timeout_seconds':1,'"
        "query_tries':1}},"
        "'load_assignment':{'cluster_name':'c','endpoints':[{'locality':{'zone':'z'},'lb_endpoints'"
        ":[{"
        "'load_balancing_weight':4,'endpoint':{'address':{'socket_address':{'address':'%s','port_"
        "value':90}}}}]}]}}",
        type, attributes, kb_addr_port(&server.addr), name);

    if (cluster_add(up, json.p) != 0) {
        fail_msg("%s", reported(up));
    }
    kb_cluster_manager_start(up->manager, on_initialized, up);
}

static bool looking_up(struct upstream *up)
{
    return stat_value(up, "cluster.c.update_attempt") !=
           stat_value(up, "cluster.c.update_success") + stat_value(up, "cluster.c.update_failure");
}

/* Also until no further lookup is half done: what it counted already would not fit together. */
static void wait_for(struct upstream *up, const char *name, uint64_t value)
{
    while (stat_value(up, name) < value || looking_up(up)) {
        kb_loop_run_once(&up->main.loop, true);
    }
    workers_turn(up);
}

static const struct kb_host_list *hosts(struct upstream *up)
{
    return &kb_cluster_manager_find(up->manager, KB_STR("c"))->set->sets[0].all;
}

#define STAT(name) stat_value(up, "cluster.c." name)

static void strict_has_a_host_for_each_address(void **state)
{
    struct upstream *up = *state;
    const struct kb_host *host;

    cluster_start(up, "STRICT_DNS", "four.test", "'dns_refresh_rate':'0.01s',");
    assert_false(up->initialized);
    wait_for(up, "cluster.c.update_success", 3);
    assert_true(up->initialized);
    assert_int_equal(hosts(up)->count, 2);
    host = hosts(up)->hosts[1];
    assert_true(kb_str_eq(kb_host_addr_text(host), KB_STR("10.0.0.2:90")));
    assert_true(kb_str_eq(kb_host_hostname(host), KB_STR("four.test")));
    assert_true(kb_str_eq(host->locality->zone, KB_STR("z")));
    assert_int_equal(host->weight, 4);
    assert_true(host->cluster->auto_host_rewrite_capable);
    assert_int_equal(STAT("membership_change"), 1);
    assert_int_equal(STAT("membership_total"), 2);
    assert_int_equal(STAT("update_no_rebuild"), STAT("update_success") - 1);
    assert_int_equal(STAT("default.total_match_count"), 2 * STAT("update_success"));
    assert_int_equal(STAT("max_host_weight"), 4);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_updated"), 0);
    assert_int_equal(stat_value(up, "dns.cares.resolve_total"), 2 * STAT("update_attempt"));
    assert_non_null(kb_cluster_local_choose_host(local_find(up, 0, "c"), NULL));
}

static void strict_follows_changes(void **state)
{
    struct upstream *up = *state;

    cluster_start(up, "STRICT_DNS", "flip.test",
                  "'dns_refresh_rate':'0.01s','dns_lookup_family':'V4_ONLY',");
    wait_for(up, "cluster.c.update_success", 4);
    assert_int_equal(hosts(up)->count, 1);
    assert_int_equal(STAT("membership_change"), STAT("update_success"));
    assert_int_equal(stat_value(up, "cluster_manager.cluster_updated"), STAT("update_success") - 1);
    assert_int_equal(STAT("update_no_rebuild"), 0);
}

static void strict_loses_its_hosts_when_the_name_has_none(void **state)
{
    struct upstream *up = *state;

    cluster_start(up, "STRICT_DNS", "vanish.test",
                  "'dns_refresh_rate':'0.01s','dns_lookup_family':'V4_ONLY',");
    wait_for(up, "cluster.c.update_success", 3);
    assert_int_equal(STAT("membership_total"), 0);
    assert_int_equal(STAT("membership_change"), 2);
    assert_int_equal(STAT("update_failure"), 0);
    assert_int_equal(STAT("max_host_weight"), 1);
    assert_null(kb_cluster_local_choose_host(local_find(up, 0, "c"), NULL));
}

static void logical_has_the_first_address_only(void **state)
{
    struct upstream *up = *state;

    cluster_start(up, "LOGICAL_DNS", "six.test",
                  "'dns_refresh_rate':'0.01s','dns_lookup_family':'ALL',");
    wait_for(up, "cluster.c.update_success", 3);
    assert_int_equal(hosts(up)->count, 1);
    assert_true(kb_str_eq(kb_host_addr_text(hosts(up)->hosts[0]), KB_STR("10.0.0.9:90")));
    assert_int_equal(STAT("default.total_match_count"), STAT("update_success"));
    assert_int_equal(STAT("update_no_rebuild"), STAT("update_success") - 1);
    assert_int_equal(STAT("max_host_weight"), 0);
}

static void logical_keeps_its_host_when_the_name_has_none(void **state)
{
    struct upstream *up = *state;

    cluster_start(up, "LOGICAL_DNS", "vanish.test",
                  "'dns_refresh_rate':'0.01s','dns_lookup_family':'V4_ONLY',");
    wait_for(up, "cluster.c.update_failure", 2);
    assert_int_equal(STAT("membership_total"), 1);
    assert_int_equal(STAT("membership_change"), 1);
    assert_int_equal(STAT("update_success"), 1);
}

static void failures_initialise_too(void **state)
{
    struct upstream *up = *state;

    cluster_start(up, "STRICT_DNS", "servfail.test",
                  "'dns_failure_refresh_rate':{'base_interval':'0.01s','max_interval':'0.02s'},");
    wait_for(up, "cluster.c.update_failure", 3);
    assert_true(up->initialized);
    assert_int_equal(STAT("update_success"), 0);
    assert_int_equal(STAT("membership_change"), 0);
    assert_int_equal(stat_value(up, "dns.cares.get_addr_failure"), 2 * STAT("update_failure"));
    assert_non_null(local_find(up, 0, "c"));
    assert_null(kb_cluster_local_choose_host(local_find(up, 0, "c"), NULL));
}

/* When the next timer of the main thread is due. The wheel itself may want to be called before. */
static uint64_t first_deadline_ms(struct upstream *up)
{
    const struct kb_timer_wheel *wheel = &up->main.loop.wheel;
    uint64_t first = UINT64_MAX;

    for (unsigned level = 0; level < KB_TIMER_LEVELS; level++) {
        for (unsigned slot = 0; slot < 64; slot++) {
            KB_LIST_FOREACH (link, &wheel->slots[level][slot]) {
                first = KB_MIN(first, KB_LIST_ENTRY(link, struct kb_timer, link)->deadline_ms);
            }
        }
    }
    return first;
}

static void ttl_is_respected_when_asked(void **state)
{
    struct upstream *up = *state;

    cluster_start(up, "STRICT_DNS", "four.test",
                  "'dns_refresh_rate':'0.01s','respect_dns_ttl':true,");
    wait_for(up, "cluster.c.update_success", 1);
    /* 30 s from the answer on. The name's refresh is the only timer left. */
    assert_in_range(first_deadline_ms(up), kb_loop_now_ms(&up->main.loop) + 1000,
                    kb_loop_now_ms(&up->main.loop) + 30000);
}

static void new_cluster_type_does_both(void **state)
{
    struct upstream *up = *state;

    assert_int_equal(
        cluster_add(
            up,
            "{'name':'n','cluster_type':{'name':'x','typed_config':{'@type':'type.googleapis.com/"
            "envoy.extensions.clusters.dns.v3.DnsCluster','all_addresses_in_single_endpoint':true,"
            "'dns_lookup_family':'V4_ONLY'}},'load_assignment':{'cluster_name':'n','endpoints':[{"
            "'lb_endpoints':[{'endpoint':{'address':{'socket_address':{'address':'localhost','port_"
            "value':9}}"
            "}}]}]}}"),
        0);
    upstream_start(up);
    assert_true(up->initialized); /* /etc/hosts answers at once */
    assert_int_equal(stat_value(up, "cluster.n.membership_total"), 1);
    assert_int_equal(stat_value(up, "cluster.n.max_host_weight"), 0);
}

static void bootstrap_gives_resolver_and_source(void **state)
{
    struct upstream *up = *state;
    struct kb_str json = kb_str_printf(
        &up->arena,
        "{\"cluster_manager\":{\"upstream_bind_config\":{\"source_address\":{\"address\":\"127.0.0."
        "7\","
        "\"port_value\":0}}},\"typed_dns_resolver_config\":{\"name\":\"envoy.network.dns_resolver."
        "cares\","
        "\"typed_config\":{\"@type\":\"type.googleapis.com/"
        "envoy.extensions.network.dns_resolver.cares.v3."
        "CaresDnsResolverConfig\",\"resolvers\":[{\"socket_address\":{\"address\":\"127.0.0.1\","
        "\"port_value\":%u}}]}}}",
        kb_addr_port(&server.addr));
    ProtobufCMessage *message =
        kb_pb_json_parse(&envoy__config__bootstrap__v3__bootstrap__descriptor, KB_STR(""), json,
                         KB_PB_UNKNOWN_ERROR, &up->arena, &up->diag);

    assert_non_null(message);
    kb_cluster_manager_configure(up->manager, (void *)message, &up->diag);
    assert_string_equal(reported(up), "");
    assert_int_equal(
        cluster_add(up, "{'name':'c','type':'STRICT_DNS','load_assignment':{'cluster_name':'c',"
                        "'endpoints':[{'lb_endpoints':[{'endpoint':{'address':{'socket_address':{"
                        "'address':'four.test','port_value':90}}}}]}]}}"),
        0);
    kb_cluster_manager_start(up->manager, on_initialized, up);
    wait_for(up, "cluster.c.update_success", 1);
    assert_int_equal(hosts(up)->count, 2);
    assert_int_equal(hosts(up)->hosts[0]->cluster->bind_sources[0].sa.sa_family, AF_INET);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(strict_has_a_host_for_each_address),
        TEST(strict_follows_changes),
        TEST(strict_loses_its_hosts_when_the_name_has_none),
        TEST(logical_has_the_first_address_only),
        TEST(logical_keeps_its_host_when_the_name_has_none),
        TEST(failures_initialise_too),
        TEST(ttl_is_respected_when_asked),
        TEST(new_cluster_type_does_both),
        TEST(bootstrap_gives_resolver_and_source),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
