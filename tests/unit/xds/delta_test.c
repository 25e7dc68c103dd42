/* SPDX-License-Identifier: Apache-2.0 */
/* Incremental xDS over one stream: subscriptions, answers, versions of resources, and coming back.
 * The orders are those that Envoy 1.40 was seen to keep. */
#include "tests/unit/xds/clusters_fixture.h"

static int setup(void **state)
{
    (void)state;
    return clusters_setup(true);
}

static void drop_c1(struct listener *listener)
{
    (void)listener;
    listener_end(&endpoints[0]);
}

static void begin_with_c1(void)
{
    clusters_begin();
    clusters.then = want_c1;
    delta_send(KB_XDS_CLUSTER, "n1", "c1:v1 c2:v1", "");
    assert_heard(&clusters, "c1@v1 c2@v1 | ");
    assert_said("EDS +c1\nCDS n=n1\n");
    delta_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "n2", "c1:v1", "");
    assert_heard(&endpoints[0], "c1@v1 | ");
    assert_said("EDS n=n2\n");
}

static void subscriptions_go_before_the_answer_that_caused_them(void **state)
{
    (void)state;
    begin_with_c1();
    clusters.then = drop_c1;
    delta_send(KB_XDS_CLUSTER, "n3", "", "c1 nonexist");
    assert_heard(&clusters, "-c1 -nonexist | ");
    assert_said("EDS -c1\nCDS n=n3\n");
}

static void a_second_watch_of_a_name_is_silent(void **state)
{
    (void)state;
    begin_with_c1();
    listen_for(&endpoints[1], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c1");
    listener_end(&endpoints[0]);
    assert_said("");
    delta_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "n3", "c1:v2 zz:v1", "");
    assert_heard(&endpoints[1], "c1@v2 | ");
    assert_said("EDS n=n3\n");
    listener_end(&endpoints[1]);
    assert_said("EDS -c1\n");
}

static void an_answer_carries_what_changed_meanwhile(void **state)
{
    (void)state;
    begin_with_c1();
    kb_xds_mux_pause(plane.mux, KB_XDS_CLUSTER_LOAD_ASSIGNMENT);
    listen_for(&endpoints[1], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "b");
    listen_for(&endpoints[2], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "a");
    delta_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "n3", "c1:v2", "");
    assert_said("");
    assert_int_equal(plane.pending, 1);
    kb_xds_mux_resume(plane.mux, KB_XDS_CLUSTER_LOAD_ASSIGNMENT);
    assert_said("EDS n=n3 +a,b\n");
    assert_int_equal(plane.pending, 0);
}

static void refused_versions_are_not_held(void **state)
{
    (void)state;
    begin_with_c1();
    clusters.refuse = "bad";
    delta_send(KB_XDS_CLUSTER, "n3", "c3:v1 bad:v1", "");
    assert_said("CDS n=n3 err=13 bad is bad\n");
    assert_int_equal(clusters.rejected, 1);
    delta_send(KB_XDS_CLUSTER, "n4", "c4:v1 c4:v2", "");
    assert_said("CDS n=n4 err=13 duplicate name c4 found among added/updated resources "
                "(resources[1])\n");
    delta_send(KB_XDS_CLUSTER, "n5", "c4:v1", "c4");
    assert_said("CDS n=n5 err=13 duplicate name c4 found in the union of added+removed resources "
                "(removed_resources[0])\n");
    assert_heard(&clusters, "c3@v1 bad@v1 | ");
    plane_cut();
    pass_ms(KB_XDS_BACKOFF_BASE_MS);
    assert_said("CDS node init=c1:v1,c2:v1\nEDS +c1 init=c1:v1\n");
}

static void a_removed_name_is_still_wanted_and_has_no_version(void **state)
{
    (void)state;
    begin_with_c1();
    delta_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "n3", "", "c1");
    assert_heard(&endpoints[0], "-c1 | ");
    delta_send(KB_XDS_CLUSTER, "n4", "", "c2");
    assert_said("EDS n=n3\nCDS n=n4\n");
    plane_cut();
    pass_ms(KB_XDS_BACKOFF_BASE_MS);
    assert_said("CDS node init=c1:v1\nEDS +c1\n");
}

static void a_heartbeat_changes_nothing(void **state)
{
    (void)state;
    begin_with_c1();
    delta_send(KB_XDS_CLUSTER, "n3", "c2:v1!", "");
    assert_heard(&clusters, "| ");
    assert_said("CDS n=n3\n");
    delta_send(KB_XDS_CLUSTER, "n4", "c2:v9!", "");
    assert_heard(&clusters, "");
    assert_said("CDS n=n4 err=13 type URL  embedded in an individual Any does not match the "
                "message-wide type URL type.googleapis.com/envoy.config.cluster.v3.Cluster in "
                "DeltaDiscoveryResponse (resources[0])\n");
}

static void an_empty_response_is_news_to_those_who_want_all(void **state)
{
    (void)state;
    clusters_begin();
    delta_send(KB_XDS_CLUSTER, "n1", "", "");
    assert_heard(&clusters, "| ");
    assert_said("CDS n=n1\n");
}

static void names_of_nobody_are_not_said_on_a_new_stream(void **state)
{
    (void)state;
    begin_with_c1();
    listener_end(&endpoints[0]);
    assert_said("EDS -c1\n");
    plane_cut();
    pass_ms(KB_XDS_BACKOFF_BASE_MS);
    assert_said("CDS node init=c1:v1,c2:v1\n");
}

static void what_changes_without_a_stream_is_said_on_the_next(void **state)
{
    (void)state;
    begin_with_c1();
    plane_cut();
    listener_end(&endpoints[0]);
    listen_for(&endpoints[1], KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c9");
    kb_xds_mux_pause(plane.mux, KB_XDS_CLUSTER);
    pass_ms(KB_XDS_BACKOFF_BASE_MS);
    assert_said("EDS node +c9\n");
    kb_xds_mux_resume(plane.mux, KB_XDS_CLUSTER);
    assert_said("CDS init=c1:v1,c2:v1\n");
}

static void answers_that_pile_up_cost_the_stream(void **state)
{
    (void)state;
    clusters_begin();
    kb_xds_mux_pause(plane.mux, KB_XDS_CLUSTER);
    for (unsigned i = 0; i <= KB_XDS_ACKS_MAX && plane.events != NULL; i++) {
        delta_send(KB_XDS_CLUSTER, "n", "", "");
    }
    assert_null(plane.events);
    kb_xds_mux_resume(plane.mux, KB_XDS_CLUSTER);
    pass_ms(KB_XDS_BACKOFF_BASE_MS);
    assert_said("CDS node\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(subscriptions_go_before_the_answer_that_caused_them, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_second_watch_of_a_name_is_silent, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_carries_what_changed_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_versions_are_not_held, setup, teardown),
        cmocka_unit_test_setup_teardown(a_removed_name_is_still_wanted_and_has_no_version, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_heartbeat_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(an_empty_response_is_news_to_those_who_want_all, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(names_of_nobody_are_not_said_on_a_new_stream, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_changes_without_a_stream_is_said_on_the_next, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(answers_that_pile_up_cost_the_stream, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
