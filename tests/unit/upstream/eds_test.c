/* SPDX-License-Identifier: Apache-2.0 */
/* EDS clusters over a subscription that the test plays: what an assignment changes, what it leaves
 * alone, and when a cluster has warmed. */
#include "tests/unit/upstream/upstream_fixture.h"

#include "envoy/config/endpoint/v3/endpoint.pb-c.h"

#include "proxy/api/subscription.h"
#include "proxy/upstream/cluster_type.h"

#define EDS(name)    \
    "{'name':'" name \
    "','type':'EDS','eds_cluster_config':{'eds_config':{'ads':{},'resource_api_version':'V3'}}}"

/* ---- the subscription ---- */

struct kb_subscription {
    struct kb_subscription_options options;
    char asked_name[64];
    char name[64]; /* by which a test finds it */
    char stat_prefix[64];
    bool started;
};

static struct kb_subscription *subscriptions[8];

struct kb_subscription *kb_subscription_create(struct kb_server_context *server,
                                               const struct kb_subscription_options *options,
                                               struct kb_diag *diag)
{
    struct kb_subscription *subscription = calloc(1, sizeof(*subscription));

    (void)server;
    if (options->source->config_source_specifier_case ==
        ENVOY__CONFIG__CORE__V3__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER__NOT_SET) {
        kb_diag_error(diag, "no source");
        free(subscription);
        return NULL;
    }
    assert_int_equal(options->type, KB_RESOURCE_CLUSTER_LOAD_ASSIGNMENT);
    subscription->options = *options;
    memcpy(subscription->asked_name, options->name.p, options->name.len);
    memcpy(subscription->name, options->name.p, options->name.len);
    memcpy(subscription->stat_prefix, options->stat_prefix, strlen(options->stat_prefix));
    for (unsigned i = 0;; i++) {
        if (subscriptions[i] == NULL) {
            subscriptions[i] = subscription;
            return subscription;
        }
    }
}

struct kb_str kb_subscription_name(const struct kb_subscription *subscription)
{
    return kb_str_from_cstr(subscription->asked_name);
}

void kb_subscription_start(struct kb_subscription *subscription)
{
    subscription->started = true;
}

void kb_subscription_destroy(struct kb_subscription *subscription)
{
    for (unsigned i = 0; i < KB_ARRAY_LEN(subscriptions); i++) {
        if (subscriptions[i] == subscription) {
            subscriptions[i] = NULL;
        }
    }
    free(subscription);
}

static struct kb_subscription *subscription_of(const char *name)
{
    for (unsigned i = 0; i < KB_ARRAY_LEN(subscriptions); i++) {
        if (subscriptions[i] != NULL && strcmp(subscriptions[i]->name, name) == 0) {
            return subscriptions[i];
        }
    }
    return NULL;
}

/* ---- helpers ---- */

/* Sends endpoints ("[{'lb_endpoints':...}]") and perhaps a policy; true when they were taken. */
static bool answer_named(struct upstream *up, const char *name, const char *endpoints,
                         const char *policy)
{
    struct kb_subscription *subscription = subscription_of(name);
    struct kb_str text =
        kb_str_printf(&up->arena, "{\"cluster_name\":\"%s\",\"endpoints\":%s,\"policy\":%s}", name,
                      endpoints, policy);
    uint32_t errors = up->diag.error_count;
    struct kb_resource resource = {.name = kb_str_from_cstr(name), .version = KB_STR("1")};
    struct kb_resource_update update = {.resources = &resource, .resource_count = 1};

    assert_non_null(subscription);
    for (size_t i = 0; i < text.len; i++) {
        char *c = (char *)(uintptr_t)&text.p[i];

        *c = *c == '\'' ? '"' : *c;
    }
    resource.message =
        kb_pb_json_parse(&envoy__config__endpoint__v3__cluster_load_assignment__descriptor,
                         KB_STR(""), text, KB_PB_UNKNOWN_ERROR, &up->arena, &up->diag);
    assert_non_null(resource.message);
    subscription->options.callbacks->on_update(subscription->options.arg, &update, &up->diag);
    workers_turn(up);
    return up->diag.error_count == errors;
}

static bool answer(struct upstream *up, const char *endpoints)
{
    return answer_named(up, "a", endpoints, "null");
}

#define AT(port) \
    "'endpoint':{'address':{'socket_address':{'address':'10.0.0.1','port_value':" port "}}}"
#define EP(port)   "{" AT(port) "}"
#define IN_Z(port) "{'locality':{'zone':'z'},'lb_endpoints':[" EP(port) "]}"
#define ALL(list)  "[{'lb_endpoints':[" list "]}]"

static const struct kb_cluster_entry *entry_of(struct upstream *up, const char *name)
{
    return kb_cluster_manager_find(up->manager, kb_str_from_cstr(name));
}

/* The host of this port, in all priorities. */
static struct kb_host *host_at(struct upstream *up, uint16_t port)
{
    const struct kb_priority_set *set = entry_of(up, "a")->set;

    for (uint32_t p = 0; p < set->count; p++) {
        for (uint32_t i = 0; i < set->sets[p].all.count; i++) {
            if (kb_host_port(set->sets[p].all.hosts[i]) == port) {
                return set->sets[p].all.hosts[i];
            }
        }
    }
    return NULL;
}

static void eds_begin(struct upstream *up, const char *endpoints)
{
    assert_int_equal(cluster_add(up, EDS("a")), 0);
    upstream_start(up);
    assert_false(up->initialized);
    assert_true(answer(up, endpoints));
    assert_true(up->initialized);
}

/* ---- tests ---- */

static void waits_for_the_first_assignment(void **state)
{
    struct upstream *up = *state;

    assert_int_equal(cluster_add(up, EDS("a")), 0);
    assert_false(subscription_of("a")->started);
    upstream_start(up);
    assert_true(subscription_of("a")->started);
    assert_string_equal(subscription_of("a")->stat_prefix, "cluster.a.");
    assert_false(up->initialized);
    assert_int_equal(stat_value(up, "cluster.a.warming_state"), 1);
    assert_null(local_find(up, 0, "a"));
    assert_true(answer(up, ALL(EP("1") "," EP("2"))));
    assert_true(up->initialized);
    assert_non_null(local_find(up, 0, "a"));
    assert_int_equal(stat_value(up, "cluster.a.warming_state"), 0);
    assert_int_equal(stat_value(up, "cluster.a.membership_total"), 2);
    assert_int_equal(stat_value(up, "cluster.a.membership_change"), 1);
    assert_int_equal(stat_value(up, "cluster.a.default.total_match_count"), 2);
    assert_int_equal(stat_value(up, "cluster.a.max_host_weight"), 1);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_updated"), 0);
}

static void failures_end_the_wait(void **state)
{
    struct upstream *up = *state;
    struct kb_subscription *subscription;

    assert_int_equal(cluster_add(up, EDS("a")), 0);
    upstream_start(up);
    subscription = subscription_of("a");
    subscription->options.callbacks->on_failure(subscription->options.arg,
                                                KB_SUBSCRIPTION_CONNECTION);
    assert_false(up->initialized);
    subscription->options.callbacks->on_failure(subscription->options.arg,
                                                KB_SUBSCRIPTION_FETCH_TIMEOUT);
    assert_true(up->initialized);
    workers_turn(up);
    assert_null(kb_cluster_local_choose_host(local_find(up, 0, "a"), NULL));
    assert_true(answer(up, ALL(EP("1")))); /* late, but still */
    assert_non_null(kb_cluster_local_choose_host(local_find(up, 0, "a"), NULL));
    assert_int_equal(stat_value(up, "cluster_manager.cluster_updated"), 1);
}

static void unchanged_hosts_stay_the_same(void **state)
{
    struct upstream *up = *state;
    struct kb_host *one, *two;

    eds_begin(up, ALL(EP("1") "," EP("2")));
    one = host_at(up, 1);
    two = host_at(up, 2);
    assert_true(answer(up, ALL(EP("1") "," EP("2"))));
    assert_true(answer(up, ALL(EP("2") "," EP("1")))); /* the order alone */
    assert_int_equal(stat_value(up, "cluster.a.update_no_rebuild"), 2);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_updated"), 0);
    assert_true(answer(up, ALL("{" AT("2") ",'load_balancing_weight':5}," EP("1") "," EP("3"))));
    assert_ptr_equal(host_at(up, 1), one);
    assert_ptr_equal(host_at(up, 2), two);
    assert_int_equal(two->weight, 5);
    assert_int_equal(stat_value(up, "cluster.a.max_host_weight"), 5);
    assert_int_equal(stat_value(up, "cluster.a.membership_change"), 2);
    assert_int_equal(stat_value(up, "cluster.a.default.total_match_count"), 9);
    /* weight alone: no other members */
    assert_true(answer(up, ALL(EP("2") "," EP("1") "," EP("3"))));
    assert_int_equal(stat_value(up, "cluster.a.membership_change"), 2);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_updated"), 2);
}

static void health_changes_in_place(void **state)
{
    struct upstream *up = *state;
    struct kb_host *one;

    eds_begin(up, ALL(EP("1") "," EP("2")));
    one = host_at(up, 1);
    assert_true(answer(up, ALL("{" AT("1") ",'health_status':'UNHEALTHY'}," EP("2"))));
    assert_ptr_equal(host_at(up, 1), one);
    assert_int_equal(one->health_flags, KB_HOST_FAILED_EDS);
    assert_int_equal(stat_value(up, "cluster.a.membership_healthy"), 1);
    assert_int_equal(stat_value(up, "cluster.a.membership_change"), 1);
    one->health_flags |= KB_HOST_FAILED_OUTLIER; /* somebody else's */
    assert_true(answer(up, ALL("{" AT("1") ",'health_status':'DRAINING'},{" AT(
                               "2") ",'health_status':'DEGRADED'}")));
    assert_int_equal(one->health_flags, KB_HOST_FAILED_OUTLIER | KB_HOST_DRAINING_EDS);
    assert_int_equal(stat_value(up, "cluster.a.membership_excluded"), 1);
    assert_int_equal(stat_value(up, "cluster.a.membership_degraded"), 1);
    assert_true(answer(up, ALL("{" AT("1") ",'health_status':'TIMEOUT'}," EP("2"))));
    assert_int_equal(one->health_flags, KB_HOST_FAILED_OUTLIER | KB_HOST_FAILED_EDS);
}

static void metadata_changes_in_place(void **state)
{
    struct upstream *up = *state;
    struct kb_host *one, *two;
    struct kb_str before;

#define META(v) ",'metadata':{'filter_metadata':{'envoy.lb':{'canary':" v "}}}}"
    eds_begin(up, ALL("{" AT("1") META("true") ",{" AT("2") META("true")));
    one = host_at(up, 1);
    two = host_at(up, 2);
    assert_true(one->canary);
    assert_ptr_equal(one->metadata, two->metadata); /* shared */
    before = kb_host_metadata(one);
    assert_true(answer(up, ALL("{" AT("1") META("false") ",{" AT("2") META("true"))));
    assert_ptr_equal(host_at(up, 1), one);
    assert_false(one->canary);
    assert_false(kb_str_eq(kb_host_metadata(one), before)); /* that text is still there for two */
    assert_true(kb_str_eq(kb_host_metadata(two), before));
    assert_int_equal(stat_value(up, "cluster.a.default.total_match_count"), 5);
    assert_int_equal(stat_value(up, "cluster.a.membership_change"), 1);
}

static void priority_moves_a_host_locality_makes_a_new_one(void **state)
{
    struct upstream *up = *state;
    struct kb_host *one, *two;

    eds_begin(up, ALL(EP("1") "," EP("2")));
    one = host_at(up, 1);
    two = host_at(up, 2);
    kb_host_ref(two); /* so that its memory is not another host's */
    assert_true(
        answer(up, "[{'lb_endpoints':[" EP("2") "]},{'priority':1,'lb_endpoints':[" EP("1") "]}]"));
    assert_ptr_equal(host_at(up, 1), one);
    assert_int_equal(one->priority, 1);
    assert_int_equal(stat_value(up, "cluster.a.membership_change"), 3);
    assert_true(answer(up, "[" IN_Z("2") ",{'priority':1,'lb_endpoints':[" EP("1") "]}]"));
    assert_ptr_not_equal(host_at(up, 2), two);
    assert_int_equal(stat_value(up, "cluster.a.membership_change"), 4);
    kb_host_unref(two);
    assert_true(
        answer(up, "[{'locality':{'zone':'z'},'load_balancing_weight':3,'lb_endpoints':[" EP(
                       "2") "]},{'priority':1,'lb_endpoints':[" EP("1") "]}]"));
    assert_int_equal(stat_value(up, "cluster.a.membership_change"), 4);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_updated"), 3);
}

static void an_address_counts_once(void **state)
{
    struct upstream *up = *state;

    eds_begin(up, ALL(EP("1") "," EP("1") "," EP("2")));
    assert_int_equal(stat_value(up, "cluster.a.membership_total"), 2);
    assert_int_equal(stat_value(up, "cluster.a.default.total_match_count"), 2);
    assert_true(
        answer(up, "[{'lb_endpoints':[" EP("1") "]},{'priority':1,'lb_endpoints':[" EP("1") "]}]"));
    assert_int_equal(stat_value(up, "cluster.a.membership_total"), 1);
}

static void what_is_wrong_leaves_all_as_it_was(void **state)
{
    struct upstream *up = *state;
    struct kb_subscription *subscription;
    struct kb_resource_update update = {0};

    eds_begin(up, ALL(EP("1")));
    assert_false(
        answer(up, ALL(EP("2") ",{'endpoint':{'address':{'socket_address':{'address':'localhost',"
                               "'port_value':1}}}}")));
    assert_string_equal(
        reported(up),
        "endpoints[0].lb_endpoints[1].endpoint.address.socket_address: malformed IP address: "
        "localhost. Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or "
        "'LOGICAL_DNS'\n");
    assert_non_null(host_at(up, 1));
    subscription = subscription_of("a");
    memcpy(subscription->name, "zzz", 4);
    assert_false(answer_named(up, "zzz", "[]", "null"));
    memcpy(subscription->name, "a", 2);
    assert_string_equal(reported(up), ": Unexpected EDS cluster (expecting a): zzz\n");
    assert_int_equal(stat_value(up, "cluster.a.membership_total"), 1);
    subscription->options.callbacks->on_update(subscription->options.arg, &update, &up->diag);
    assert_int_equal(stat_value(up, "cluster.a.update_empty"), 1);
    assert_int_equal(stat_value(up, "cluster.a.membership_total"), 1);
    assert_true(answer(up, "[]"));
    assert_int_equal(stat_value(up, "cluster.a.membership_total"), 0);
}

static void policy_of_the_assignment_counts(void **state)
{
    struct upstream *up = *state;

    eds_begin(up, ALL(EP("1")));
    assert_true(answer_named(up, "a", ALL(EP("1")), "{'overprovisioning_factor':100}"));
    assert_int_equal(entry_of(up, "a")->set->overprovisioning_factor, 100);
    assert_int_equal(stat_value(up, "cluster_manager.cluster_updated"), 1);
    assert_true(answer(up, ALL(EP("1"))));
    assert_int_equal(entry_of(up, "a")->set->overprovisioning_factor, 140);
}

static void stale_endpoints_go(void **state)
{
    struct upstream *up = *state;

    eds_begin(up, ALL(EP("1")));
    assert_true(answer_named(up, "a", ALL(EP("1")), "{'endpoint_stale_after':'0.001s'}"));
    assert_int_equal(stat_value(up, "cluster.a.assignment_timeout_received"), 1);
    while (stat_value(up, "cluster.a.assignment_stale") == 0) {
        workers_turn(up);
    }
    assert_int_equal(stat_value(up, "cluster.a.membership_total"), 0);
    assert_true(answer(up, ALL(EP("1"))));
    assert_int_equal(stat_value(up, "cluster.a.membership_total"), 1);
}

static void a_newer_cluster_waits_beside_the_old_one(void **state)
{
    struct upstream *up = *state;
    struct kb_cluster_local *local;
    bool warm = false;

    upstream_start(up);
    assert_int_equal(
        kb_cluster_manager_add(
            up->manager,
            cluster_parse(up, "{'name':'a','type':'EDS','alt_stat_name':'x','eds_cluster_config':"
                              "{'eds_config':{'ads':{},'resource_api_version':'V3'},"
                              "'service_name':'old'}}"),
            true, &up->diag),
        0);
    up->initialized = false;
    kb_cluster_manager_when_warm(up->manager, on_initialized, up);
    assert_false(up->initialized);
    assert_int_equal(stat_value(up, "cluster_manager.warming_clusters"), 1);
    assert_int_equal(stat_value(up, "cluster_manager.active_clusters"), 0);
    assert_true(answer_named(up, "old", ALL(EP("1")), "null"));
    assert_true(up->initialized);
    local = local_find(up, 0, "a");
    assert_non_null(local);
    assert_int_equal(
        kb_cluster_manager_add(up->manager, cluster_parse(up, EDS("a")), true, &up->diag), 0);
    workers_turn(up);
    assert_ptr_equal(local_find(up, 0, "a"), local);
    assert_int_equal(stat_value(up, "cluster_manager.warming_clusters"), 1);
    assert_int_equal(stat_value(up, "cluster_manager.active_clusters"), 1);
    /* and may be taken back */
    assert_int_equal(kb_cluster_manager_remove(up->manager, KB_STR("a")), 0);
    assert_int_equal(stat_value(up, "cluster_manager.warming_clusters"), 0);
    assert_int_equal(stat_value(up, "cluster_manager.active_clusters"), 0);
    assert_null(subscription_of("a"));
    assert_null(subscription_of("old"));
    kb_cluster_manager_when_warm(up->manager, (kb_cluster_manager_initialized_cb)NULL, &warm);
}

static void metadata_chooses_the_transport_socket(void **state)
{
    struct upstream *up = *state;
    const struct kb_cluster *cluster;

#define RAW                                                                     \
    "'transport_socket':{'name':'raw','typed_config':{'@type':'type.googleapis" \
    ".com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer'}}"
#define MODE(v) \
    ",'metadata':{'filter_metadata':{'envoy.transport_socket_match':{'tlsMode':'" v "','x':1}}}}"
    assert_int_equal(
        cluster_add(up,
                    "{'name':'a','type':'EDS','eds_cluster_config':{'eds_config':{'ads':{},"
                    "'resource_api_version':'V3'}},'transport_socket_matches':[{'name':'m',"
                    "'match':{'tlsMode':'istio'}," RAW "},{'name':'n','match':{'tlsMode':'istio',"
                    "'y':2}," RAW "},{'name':'x','match':{'x':1,'tlsMode':'off'}," RAW "}]}"),
        0);
    upstream_start(up);
    assert_true(answer(up, ALL("{" AT("1") MODE("istio") ",{" AT("2") MODE("off") "," EP("3"))));
    cluster = &entry_of(up, "a")->cluster->api;
    assert_int_equal(host_at(up, 1)->socket, 1);
    assert_int_equal(host_at(up, 2)->socket, 3);
    assert_int_equal(host_at(up, 3)->socket, 0);
    assert_ptr_equal(kb_host_transport_socket(host_at(up, 2)), &cluster->socket_matches[2].socket);
    assert_ptr_equal(kb_host_transport_socket(host_at(up, 3)), &cluster->transport_socket);
    assert_int_equal(stat_value(up, "cluster.a.m.total_match_count"), 1);
    assert_int_equal(stat_value(up, "cluster.a.n.total_match_count"), 0);
    assert_int_equal(stat_value(up, "cluster.a.default.total_match_count"), 1);
    /* other metadata, another socket; the host stays */
    assert_true(answer(up, ALL("{" AT("1") MODE("off") ",{" AT("2") MODE("off") "," EP("3"))));
    assert_int_equal(host_at(up, 1)->socket, 3);
    assert_int_equal(stat_value(up, "cluster.a.membership_change"), 1);
}

static void a_source_is_needed(void **state)
{
    struct upstream *up = *state;

    assert_int_equal(cluster_add(up, "{'name':'a','type':'EDS'}"), KB_ECONFIG);
    assert_string_equal(reported(up),
                        "eds_cluster_config: cannot create an EDS cluster without an EDS config\n");
    assert_int_equal(cluster_add(up, "{'name':'a','type':'EDS','eds_cluster_config':{'eds_config':"
                                     "{}}}"),
                     KB_ECONFIG);
    assert_string_equal(reported(up), "eds_cluster_config.eds_config: no source\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UPSTREAM_TEST(waits_for_the_first_assignment),
        UPSTREAM_TEST(failures_end_the_wait),
        UPSTREAM_TEST(unchanged_hosts_stay_the_same),
        UPSTREAM_TEST(health_changes_in_place),
        UPSTREAM_TEST(metadata_changes_in_place),
        UPSTREAM_TEST(priority_moves_a_host_locality_makes_a_new_one),
        UPSTREAM_TEST(an_address_counts_once),
        UPSTREAM_TEST(what_is_wrong_leaves_all_as_it_was),
        UPSTREAM_TEST(policy_of_the_assignment_counts),
        UPSTREAM_TEST(stale_endpoints_go),
        UPSTREAM_TEST(a_newer_cluster_waits_beside_the_old_one),
        UPSTREAM_TEST(metadata_chooses_the_transport_socket),
        UPSTREAM_TEST(a_source_is_needed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
