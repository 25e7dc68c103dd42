/* SPDX-License-Identifier: Apache-2.0 */
/* Subsets over real views: what criteria lead to, what is remembered of it, and what stays when
 * the hosts change. */
#include "tests/unit/upstream/upstream_fixture.h"

#include "proxy/api/dynamic_metadata.h"
#include "proxy/api/metadata_criteria.h"
#include "proxy/upstream/cluster_type.h"
#include "proxy/upstream/host.h"
#include "proxy/upstream/metadata_criteria.h"
#include "proxy/upstream/subset_table.h"

#define HOST(port, labels)                                                                   \
    "{'endpoint':{'address':{'socket_address':{'address':'127.0.0.1','port_value':" port "}" \
    "}},'metadata':{'filter_metadata':{'envoy.lb':{" labels "}}}}"
#define CLUSTER(subsets, hosts)                                                           \
    "{'name':'c','lb_subset_config':{" subsets "},'load_assignment':{'cluster_name':'c'," \
    "'endpoints':[{'lb_endpoints':[" hosts "]}]}}"
#define FOUR                     \
    HOST("0", "'v':'1','s':'p'") \
    "," HOST("1", "'v':'1','s':'p'") "," HOST("2", "'v':'2','s':'p'") "," HOST("3", "'s':'d'")
#define BY_V "'subset_selectors':[{'keys':['v']},{'keys':['v','s']}]"

static struct kb_cluster_local *cluster_start(struct upstream *up, const char *json)
{
    if (cluster_add(up, json) != 0) {
        fail_msg("%s", reported(up));
    }
    upstream_start(up);
    return local_find(up, 0, "c");
}

static const Google__Protobuf__Struct *struct_parse(struct upstream *up, const char *json)
{
    struct kb_str text = kb_str_dup(&up->arena, kb_str_from_cstr(json));
    ProtobufCMessage *message;

    for (size_t i = 0; i < text.len; i++) {
        char *c = (char *)(uintptr_t)&text.p[i];

        *c = *c == '\'' ? '"' : *c;
    }
    message = kb_pb_json_parse(&google__protobuf__struct__descriptor, KB_STR(""), text,
                               KB_PB_UNKNOWN_ERROR, &up->arena, &up->diag);
    assert_non_null(message);
    return (const void *)message;
}

static const struct kb_metadata_criteria *criteria(struct upstream *up, const char *json)
{
    return kb_metadata_criteria_create(NULL, struct_parse(up, json), false, &up->arena);
}

/* The port, which is the number of the host; -1: none. */
static int pick(struct kb_cluster_local *local, const struct kb_metadata_criteria *wanted)
{
    struct kb_lb_request request = {.metadata = wanted};
    struct kb_host *host = kb_cluster_local_choose_host(local, &request);

    return host == NULL ? -1 : kb_host_port(host);
}

static struct kb_cluster_entry *entry_of(struct upstream *up)
{
    return (struct kb_cluster_entry *)(uintptr_t)kb_cluster_manager_find(up->manager, KB_STR("c"));
}

static void picks_are_of_the_subset(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(up, CLUSTER(BY_V, FOUR));
    const struct kb_metadata_criteria *one = criteria(up, "{'v':'1'}");
    int first = pick(local, one);

    for (int i = 1; i < 9; i++) {
        assert_int_equal(pick(local, one), (first + i) % 2); /* its own turn */
        assert_int_equal(pick(local, criteria(up, "{'s':'p','v':'2'}")), 2);
    }
    assert_int_equal(pick(local, criteria(up, "{'s':'d'}")), -1);
    assert_int_equal(pick(local, NULL), -1);
    assert_int_equal(stat_value(up, "cluster.c.lb_subsets_created"), 4 * (WORKERS + 1));
    assert_int_equal(stat_value(up, "cluster.c.lb_subsets_active"), 4 * (WORKERS + 1));
    assert_int_equal(stat_value(up, "cluster.c.lb_subsets_selected"), 17);
}

static void health_makes_new_tables_of_the_same_subsets(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(up, CLUSTER(BY_V, FOUR));
    const struct kb_metadata_criteria *one = criteria(up, "{'v':'1'}");
    const struct kb_subset_table *before = entry_of(up)->set->subsets;
    uint64_t id = before->subsets[0].id;
    int first = pick(local, one);
    struct kb_host *host = entry_of(up)->set->sets[0].all.hosts[0];

    __atomic_fetch_or(&host->health_flags, KB_HOST_FAILED_OUTLIER, __ATOMIC_RELAXED);
    kb_cluster_entry_refresh_hosts(entry_of(up));
    workers_turn(up);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pick(local, one), 1);
    }
    __atomic_fetch_and(&host->health_flags, ~(uint32_t)KB_HOST_FAILED_OUTLIER, __ATOMIC_RELAXED);
    kb_cluster_entry_refresh_hosts(entry_of(up));
    workers_turn(up);
    assert_int_equal(entry_of(up)->set->subsets->subsets[0].id, id);
    assert_int_equal(pick(local, one), (first + 5) % 2); /* the turn went on */
    assert_int_equal(stat_value(up, "cluster.c.lb_subsets_created"), 4 * (WORKERS + 1));
    assert_int_equal(stat_value(up, "cluster.c.lb_subsets_removed"), 0);
}

static void host_add(struct kb_host_group *group, struct kb_host **hosts, struct upstream *up,
                     uint16_t port, const char *labels)
{
    Envoy__Config__Core__V3__Metadata metadata = ENVOY__CONFIG__CORE__V3__METADATA__INIT;
    Envoy__Config__Core__V3__Metadata__FilterMetadataEntry item =
        ENVOY__CONFIG__CORE__V3__METADATA__FILTER_METADATA_ENTRY__INIT;
    Envoy__Config__Core__V3__Metadata__FilterMetadataEntry *items[1] = {&item};
    struct kb_host_params params = {.weight = 1};

    item.key = (char *)(uintptr_t)KB_METADATA_LB;
    item.value = (Google__Protobuf__Struct *)(uintptr_t)struct_parse(up, labels);
    metadata.n_filter_metadata = 1;
    metadata.filter_metadata = items;
    params.metadata = kb_pb_pack(&metadata.base, &up->arena);
    assert_int_equal(kb_addr_from_ip(&params.addr, KB_STR("127.0.0.1"), port), 0);
    hosts[group->count++] = kb_host_create(entry_of(up)->cluster, &params, WORKERS);
}

/* What was remembered of criteria does not outlive the hosts of which it was true. */
static void other_hosts_are_looked_up_again(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(up, CLUSTER(BY_V, FOUR));
    const struct kb_metadata_criteria *two = criteria(up, "{'v':'2'}");
    const struct kb_metadata_criteria *nine = criteria(up, "{'v':'9'}");
    struct kb_host *hosts[2];
    struct kb_host_group group = {.hosts = hosts};

    assert_int_equal(pick(local, two), 2);
    assert_int_equal(pick(local, nine), -1);
    host_add(&group, hosts, up, 7, "{'v':'9'}");
    host_add(&group, hosts, up, 8, "{'v':'8'}");
    kb_cluster_entry_set_hosts(entry_of(up), &group, 1);
    workers_turn(up);
    kb_host_unref(hosts[0]);
    kb_host_unref(hosts[1]);
    assert_int_equal(pick(local, two), -1);
    assert_int_equal(pick(local, nine), 7);
    assert_int_equal(stat_value(up, "cluster.c.lb_subsets_removed"), 4 * (WORKERS + 1));
    assert_int_equal(stat_value(up, "cluster.c.lb_subsets_created"), 6 * (WORKERS + 1));
    assert_int_equal(stat_value(up, "cluster.c.lb_subsets_active"), 2 * (WORKERS + 1));
}

static void many_criteria_are_not_mixed_up(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(up, CLUSTER(BY_V, FOUR));
    const struct kb_metadata_criteria *two = criteria(up, "{'v':'2'}");

    for (unsigned i = 0; i < 200; i++) { /* more than are remembered */
        char text[32];

        snprintf(text, sizeof(text), "{'v':'x%u'}", i);
        assert_int_equal(pick(local, criteria(up, text)), -1);
        assert_int_equal(pick(local, two), 2);
    }
}

/* Metadata that a filter left on the stream is laid over the route's. */
static void dynamic_metadata_counts(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local = cluster_start(up, CLUSTER(BY_V, FOUR));
    struct kb_stream_info info = {.protocol = KB_PROTOCOL_HTTP11};
    struct kb_lb_request request = {.metadata = criteria(up, "{'v':'1'}"), .info = &info};

    kb_dynamic_metadata_set_text(&info.dynamic_metadata, &up->arena, KB_STR(KB_METADATA_LB),
                                 KB_STR("v"), KB_STR("2"));
    assert_int_equal(kb_host_port(kb_cluster_local_choose_host(local, &request)), 2);
    kb_dynamic_metadata_set_text(&info.dynamic_metadata, &up->arena, KB_STR(KB_METADATA_LB),
                                 KB_STR("s"), KB_STR("d"));
    assert_null(kb_cluster_local_choose_host(local, &request));
}

static void equal_values_have_equal_bytes(void **state)
{
    struct upstream *up = *state;
    const struct kb_metadata_criteria *a = criteria(up, "{'x':{'a':1,'b':[true,null,'t']},'n':0}");
    const struct kb_metadata_criteria *b =
        criteria(up, "{'n':-0.0,'x':{'b':[true,null,'t'],'a':1.0}}");

    assert_true(kb_str_eq(a->key, b->key));
    assert_true(a->hash == b->hash);
    assert_true(a->serial != b->serial);
    assert_false(kb_str_eq(criteria(up, "{'a':'1'}")->key, criteria(up, "{'a':1}")->key));
    assert_false(
        kb_str_eq(criteria(up, "{'a':'b','c':''}")->key, criteria(up, "{'a':'','bc':''}")->key));
}

/* The product of lists has an end. */
static void lists_are_bounded(void **state)
{
    struct upstream *up = *state;
    char list[1024] = "['0'", labels[8192], json[16384];
    struct kb_cluster_local *local;

    for (unsigned i = 1; i < 100; i++) {
        size_t len = strlen(list);

        snprintf(list + len, sizeof(list) - len, ",'%u'", i);
    }
    snprintf(list + strlen(list), sizeof(list) - strlen(list), "]");
    snprintf(labels, sizeof(labels), "'a':%s,'b':%s,'c':%s,'d':%s,'e':%s", list, list, list, list,
             list);
    snprintf(json, sizeof(json),
             CLUSTER("'list_as_any':true,'subset_selectors':[{'keys':['a','b','c','d','e']}]",
                     HOST("5", "%s")),
             labels);
    local = cluster_start(up, json);
    assert_int_equal(entry_of(up)->set->subsets->count, KB_SUBSETS_PER_HOST_MAX);
    assert_int_equal(pick(local, criteria(up, "{'a':'0','b':'0','c':'0','d':'0','e':'0'}")), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UPSTREAM_TEST(picks_are_of_the_subset),
        UPSTREAM_TEST(health_makes_new_tables_of_the_same_subsets),
        UPSTREAM_TEST(other_hosts_are_looked_up_again),
        UPSTREAM_TEST(many_criteria_are_not_mixed_up),
        UPSTREAM_TEST(dynamic_metadata_counts),
        UPSTREAM_TEST(equal_values_have_equal_bytes),
        UPSTREAM_TEST(lists_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
