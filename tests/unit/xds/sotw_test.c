/* SPDX-License-Identifier: Apache-2.0 */
/* State of the world over one stream: the order of requests, versions and nonces, refusals, pauses,
 * and coming back. The orders are those that Envoy 1.40 was seen to keep. */
#include "tests/unit/xds/clusters_fixture.h"

static int setup(void **state)
{
    (void)state;
    return clusters_setup(false);
}

static void what_a_response_needs_is_asked_before_it_is_answered(void **state)
{
    (void)state;
    clusters_begin();
    clusters.then = want_c1;
    sotw_send(KB_XDS_CLUSTER, "1", "n1", "c1 c2");
    assert_heard(&clusters, "c1@1 c2@1 | ");
    assert_said("EDS c1\nCDS v=1 n=n1\n");
    sotw_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "1", "n2", "c1");
    assert_heard(&endpoints[0], "c1@1 | ");
    assert_said("EDS v=1 n=n2 c1\n");
    listen_for(&endpoints[1], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c3");
    assert_said("EDS v=1 n=n2 c3,c1\n");
    listen_for(&endpoints[2], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c1");
    assert_said("EDS v=1 n=n2 c1,c3\n");
    sotw_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "2", "n3", "c1 zz");
    assert_heard(&endpoints[0], "c1@2 | ");
    assert_heard(&endpoints[1], "");
    assert_heard(&endpoints[2], "c1@2 | ");
    assert_said("EDS v=2 n=n3 c1,c3\n");
}

static void a_refusal_keeps_the_version_and_says_why_once(void **state)
{
    (void)state;
    clusters_begin();
    sotw_send(KB_XDS_CLUSTER, "1", "n1", "c1");
    assert_said("CDS v=1 n=n1\n");
    clusters.refuse = "c2";
    sotw_send(KB_XDS_CLUSTER, "2", "n2", "c1 c2");
    assert_said("CDS v=1 n=n2 err=13 c2 is bad\n");
    assert_int_equal(clusters.rejected, 1);
    sotw_send(KB_XDS_CLUSTER, "3", "n3", "");
    assert_heard(&clusters, "c1@1 | c1@2 c2@2 | | ");
    assert_said("CDS v=3 n=n3\n");
    assert_int_equal(clusters.rejected, 1);
}

static void another_type_inside_refuses_all_of_it(void **state)
{
    Envoy__Service__Discovery__V3__DiscoveryResponse response;
    Google__Protobuf__Any *resources[2] = {any_cluster("c1"), any_endpoints("c2")};

    (void)state;
    clusters_begin();
    envoy__service__discovery__v3__discovery_response__init(&response);
    response.version_info = (char *)(uintptr_t)"1";
    response.nonce = (char *)(uintptr_t)"n1";
    response.type_url = (char *)(uintptr_t)kb_xds_types[KB_XDS_CLUSTER].url;
    response.resources = resources;
    response.n_resources = 2;
    plane_message(kb_pb_pack(&response.base, &plane.arena));
    assert_heard(&clusters, "");
    assert_said("CDS n=n1 err=13 "
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment does not match "
                "the message-wide type URL type.googleapis.com/envoy.config.cluster.v3.Cluster in "
                "DiscoveryResponse (resources[1])\n");
}

static void constraints_of_every_resource_are_named(void **state)
{
    (void)state;
    clusters_begin();
    listen_for(&endpoints[0], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c1");
    plane.said[0] = '\0';
    /* cluster_name must not be empty */
    {
        Envoy__Service__Discovery__V3__DiscoveryResponse response;
        Google__Protobuf__Any *resources[3] = {any_endpoints(""), any_endpoints("c1"),
                                               any_endpoints("")};

        envoy__service__discovery__v3__discovery_response__init(&response);
        response.nonce = (char *)(uintptr_t)"n1";
        response.type_url = (char *)(uintptr_t)kb_xds_types[KB_XDS_CLUSTER_LOAD_ASSIGNMENT].url;
        response.resources = resources;
        response.n_resources = 3;
        plane_message(kb_pb_pack(&response.base, &plane.arena));
    }
    assert_heard(&endpoints[0], "");
    assert_non_null(strstr(plane.said, "(resources[0].cluster_name)"));
    assert_non_null(strstr(plane.said, "(resources[2].cluster_name)"));
    assert_null(strstr(plane.said, "(resources[1]"));
    assert_int_equal(endpoints[0].rejected, 1);
}

static void a_pause_holds_the_answer_back(void **state)
{
    (void)state;
    clusters_begin();
    kb_xds_mux_pause(plane.mux, KB_XDS_CLUSTER);
    sotw_send(KB_XDS_CLUSTER, "1", "n1", "c1");
    sotw_send(KB_XDS_CLUSTER, "2", "n2", "c1");
    assert_said("");
    listen_for(&endpoints[0], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c1");
    assert_said("EDS c1\n");
    kb_xds_mux_resume(plane.mux, KB_XDS_CLUSTER);
    assert_said("CDS v=2 n=n2\n");
}

static void a_new_stream_says_all_with_versions_and_no_nonces(void **state)
{
    (void)state;
    clusters_begin();
    sotw_send(KB_XDS_CLUSTER, "1", "n1", "c1");
    listen_for(&endpoints[0], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c1");
    sotw_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "7", "n2", "c1");
    plane.said[0] = '\0';
    assert_true(plane.connected);
    plane_cut();
    assert_false(plane.connected);
    assert_int_equal(clusters.failed, 1);
    assert_int_equal(plane.opened, 1);
    pass_ms(KB_XDS_BACKOFF_BASE_MS);
    assert_int_equal(plane.opened, 2);
    assert_said("CDS node v=1\nEDS v=7 c1\n");
}

static void tries_come_later_and_later_until_a_response(void **state)
{
    uint64_t most_ms = KB_XDS_BACKOFF_BASE_MS;

    (void)state;
    plane.refuse = true;
    listen_for(&clusters, KB_XDS_CLUSTER, "");
    kb_xds_mux_start(plane.mux);
    for (unsigned i = 1; i < 12; i++) {
        assert_int_equal(plane.opened, i);
        assert_int_equal(clusters.failed, i);
        pass_ms(most_ms);
        most_ms = KB_MIN(most_ms * 2, (uint64_t)KB_XDS_BACKOFF_MAX_MS);
    }
    plane.refuse = false;
    pass_ms(KB_XDS_BACKOFF_MAX_MS);
    assert_said("CDS node\n");
    sotw_send(KB_XDS_CLUSTER, "1", "n1", "");
    assert_said("CDS v=1 n=n1\n");
    plane_cut();
    pass_ms(KB_XDS_BACKOFF_BASE_MS);
    assert_said("CDS node v=1\n");
}

static void what_nobody_wants_is_not_answered(void **state)
{
    (void)state;
    clusters_begin();
    sotw_send(KB_XDS_LISTENER, "1", "n1", "");
    assert_said("");
    listen_for(&endpoints[0], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c1");
    listener_end(&endpoints[0]);
    assert_said("EDS c1\nEDS\n");
    sotw_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "5", "n2", "");
    assert_said("");
    sotw_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "6", "n3", "c1");
    assert_said("EDS v=5 n=n3\n");
}

static void end_all(struct listener *listener)
{
    listener_end(listener);
    listener_end(&endpoints[0]);
    listener_end(&endpoints[1]);
}

static void whoever_hears_may_go(void **state)
{
    (void)state;
    kb_xds_mux_start(plane.mux);
    for (size_t i = 0; i < KB_ARRAY_LEN(endpoints); i++) {
        listen_for(&endpoints[i], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c1");
        endpoints[i].then = end_all;
    }
    plane.said[0] = '\0';
    sotw_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "1", "n1", "c1");
    assert_heard(&endpoints[2], "c1@1 | "); /* the newest is the first, and ended the others */
    assert_heard(&endpoints[0], "");
    assert_heard(&endpoints[1], "");
    assert_said("EDS v=1 n=n1\n");
}

static void a_full_transport_delays_and_loses_nothing(void **state)
{
    (void)state;
    clusters_begin();
    plane.full = true;
    sotw_send(KB_XDS_CLUSTER, "1", "n1", "c1");
    listen_for(&endpoints[0], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c1");
    assert_said("");
    plane.full = false;
    plane.events->writable(plane.events_arg);
    assert_said("CDS v=1 n=n1\nEDS c1\n");
}

static void tokens_limit_requests(void **state)
{
    (void)state;
    plane_dispose();
    plane_init(false, 1);
    clusters_begin();
    sotw_send(KB_XDS_CLUSTER, "1", "n1", "");
    assert_said("");
    assert_int_equal(plane.pending, 1);
    assert_true(plane.rate_limited > 0);
    pass_ms(110);
    assert_said("CDS v=1 n=n1\n");
    assert_int_equal(plane.pending, 0);
}

static void bytes_that_are_no_message_cost_the_stream(void **state)
{
    (void)state;
    clusters_begin();
    plane_message(KB_STR("\xff\xff\xff\xff"));
    assert_null(plane.events);
    pass_ms(KB_XDS_BACKOFF_BASE_MS);
    assert_said("CDS node\n");
}

static void a_resource_goes_when_its_time_is_over(void **state)
{
    Envoy__Service__Discovery__V3__DiscoveryResponse response;
    Envoy__Service__Discovery__V3__Resource wrapper;
    Google__Protobuf__Duration ttl;
    Google__Protobuf__Any any, *resources[1] = {&any};

    (void)state;
    clusters_begin();
    google__protobuf__duration__init(&ttl);
    ttl.seconds = 1;
    envoy__service__discovery__v3__resource__init(&wrapper);
    wrapper.name = (char *)(uintptr_t)"c1";
    wrapper.resource = any_cluster("c1");
    wrapper.ttl = &ttl;
    envoy__service__discovery__v3__discovery_response__init(&response);
    response.version_info = (char *)(uintptr_t)"1";
    response.nonce = (char *)(uintptr_t)"n1";
    response.type_url = (char *)(uintptr_t)kb_xds_types[KB_XDS_CLUSTER].url;
    response.resources = resources;
    response.n_resources = 1;
    kb_any_pack(&wrapper.base, &plane.arena, &any);
    plane_message(kb_pb_pack(&response.base, &plane.arena));
    assert_heard(&clusters, "c1@1 | ");
    pass_ms(600);
    wrapper.resource = NULL; /* a heartbeat: the time begins again, and nobody is told */
    kb_any_pack(&wrapper.base, &plane.arena, &any);
    plane_message(kb_pb_pack(&response.base, &plane.arena));
    assert_heard(&clusters, "");
    pass_ms(600);
    assert_heard(&clusters, "");
    assert_said("CDS v=1 n=n1\nCDS v=1 n=n1\n");
    pass_ms(500);
    assert_heard(&clusters, "-c1 | ");
    assert_said("");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_a_response_needs_is_asked_before_it_is_answered, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_refusal_keeps_the_version_and_says_why_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(another_type_inside_refuses_all_of_it, setup, teardown),
        cmocka_unit_test_setup_teardown(constraints_of_every_resource_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pause_holds_the_answer_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_stream_says_all_with_versions_and_no_nonces, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(tries_come_later_and_later_until_a_response, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_nobody_wants_is_not_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(whoever_hears_may_go, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_transport_delays_and_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(tokens_limit_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_that_are_no_message_cost_the_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(a_resource_goes_when_its_time_is_over, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
