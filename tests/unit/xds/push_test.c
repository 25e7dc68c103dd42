/* SPDX-License-Identifier: Apache-2.0 */
/* The log of pushes: what each response changed, over both protocols, and its bounds. */
#include "tests/unit/xds/xds_fixture.h"

static struct listener clusters, endpoints;

static int setup_of(bool delta)
{
    plane_init(delta, 0);
    memset(&clusters, 0, sizeof(clusters));
    memset(&endpoints, 0, sizeof(endpoints));
    kb_xds_mux_start(plane.mux);
    listen_for(&clusters, KB_XDS_CLUSTER, "");
    return 0;
}

static int setup_sotw(void **state)
{
    (void)state;
    return setup_of(false);
}

static int setup_delta(void **state)
{
    (void)state;
    return setup_of(true);
}

static int teardown(void **state)
{
    (void)state;
    listener_end(&clusters);
    listener_end(&endpoints);
    plane_dispose();
    return 0;
}

/* The newest push as one line: type, counts of added, changed, removed and unchanged, names. */
static const char *newest(void)
{
    static const char marks[] = {'+', '~', '-'};
    const struct kb_xds_push *push;
    static char text[1024];
    int len;

    assert_false(kb_list_empty(&plane.pushes.pushes));
    push = KB_LIST_ENTRY(plane.pushes.pushes.next, struct kb_xds_push, link);
    len = snprintf(text, sizeof(text), "%s %s %s %d/%d/%d/%d", kb_xds_types[push->type].short_name,
                   push->way, push->version, (int)push->counts[KB_XDS_ADDED],
                   (int)push->counts[KB_XDS_CHANGED], (int)push->counts[KB_XDS_REMOVED],
                   (int)push->counts[KB_XDS_UNCHANGED]);
    for (uint32_t i = 0; i < push->name_count && i < 8; i++) {
        len += snprintf(text + len, sizeof(text) - (size_t)len, " %c%.20s",
                        marks[push->names[i].change], push->names[i].name);
    }
    if (push->error != NULL) {
        snprintf(text + len, sizeof(text) - (size_t)len, " ! %s", push->error);
    }
    assert_true(push->wall_ns > 0);
    return text;
}

static void sotw_names_come_change_and_go(void **state)
{
    (void)state;
    sotw_send(KB_XDS_CLUSTER, "1", "n1", "c1 c2");
    assert_string_equal(newest(), "CDS sotw 1 2/0/0/0 +c1 +c2");
    sotw_send(KB_XDS_CLUSTER, "2", "n2", "c2 c3");
    assert_string_equal(newest(), "CDS sotw 2 1/0/1/1 +c3 -c1");
    sotw_send(KB_XDS_CLUSTER, "3", "n3", "c2 c3");
    assert_string_equal(newest(), "CDS sotw 3 0/0/0/2");
    plane.variant = 1;
    sotw_send(KB_XDS_CLUSTER, "4", "n4", "c2");
    assert_string_equal(newest(), "CDS sotw 4 0/1/1/0 ~c2 -c3");
    listen_for(&endpoints, KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c2");
    sotw_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "1", "n5", "c2 other");
    assert_string_equal(newest(), "EDS sotw 1 1/0/0/0 +c2");
    assert_int_equal(plane.pushes.total, 5);
}

static void a_refused_push_says_why_and_changes_nothing(void **state)
{
    (void)state;
    clusters.refuse = "c2";
    sotw_send(KB_XDS_CLUSTER, "1", "n1", "c1 c2");
    assert_string_equal(newest(), "CDS sotw 1 2/0/0/0 +c1 +c2 ! c2 is bad");
    clusters.refuse = NULL;
    sotw_send(KB_XDS_CLUSTER, "2", "n2", "c1 c2");
    assert_string_equal(newest(), "CDS sotw 2 2/0/0/0 +c1 +c2");
}

static void delta_names_come_change_and_go(void **state)
{
    (void)state;
    delta_send(KB_XDS_CLUSTER, "n1", "c1:v1 c2:v1", "");
    assert_string_equal(newest(), "CDS delta s1 2/0/0/0 +c1 +c2");
    plane.variant = 1;
    delta_send(KB_XDS_CLUSTER, "n2", "c1:v2", "c2");
    assert_string_equal(newest(), "CDS delta s1 0/1/1/0 ~c1 -c2");
    plane_cut();
    pass_ms(KB_XDS_BACKOFF_BASE_MS);
    delta_send(KB_XDS_CLUSTER, "n1", "c1:v2 c2:v3", "");
    assert_string_equal(newest(), "CDS delta s1 1/0/0/1 +c2");
    clusters.refuse = "c3";
    delta_send(KB_XDS_CLUSTER, "n2", "c3:v1", "");
    assert_string_equal(newest(), "CDS delta s1 1/0/0/0 +c3 ! c3 is bad");
}

static void names_that_nobody_asks_for_any_more_are_new_again(void **state)
{
    (void)state;
    listen_for(&endpoints, KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c1");
    delta_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "n1", "c1:v1", "");
    listener_end(&endpoints);
    listen_for(&endpoints, KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "c1");
    delta_send(KB_XDS_CLUSTER_LOAD_ASSIGNMENT, "n2", "c1:v1", "");
    assert_string_equal(newest(), "EDS delta s1 1/0/0/0 +c1");
}

static void the_log_is_bounded(void **state)
{
    struct kb_xds_push *push;
    char name[KB_XDS_PUSH_NAME_BYTES_MAX + 100];
    char error[KB_XDS_PUSH_ERROR_BYTES_MAX + 100];
    uint32_t count = 0;

    (void)state;
    memset(name, 'n', sizeof(name));
    memset(error, 'e', sizeof(error));
    for (int i = 0; i < KB_XDS_PUSHES_MAX + 5; i++) {
        push = kb_xds_push_begin(&plane.pushes, KB_XDS_CLUSTER, "sotw");
        for (int j = 0; j < 1000; j++) {
            kb_xds_push_note(push, KB_XDS_ADDED, kb_str_make(name, sizeof(name)));
        }
        kb_xds_push_end(&plane.pushes, push, kb_str_make(name, sizeof(name)),
                        kb_str_make(error, sizeof(error)));
    }
    KB_LIST_FOREACH (link, &plane.pushes.pushes) {
        push = KB_LIST_ENTRY(link, struct kb_xds_push, link);
        assert_int_equal(push->counts[KB_XDS_ADDED], 1000);
        assert_int_equal(push->name_count, KB_XDS_PUSH_NAMES_MAX);
        assert_int_equal(strlen(push->names[0].name), KB_XDS_PUSH_NAME_BYTES_MAX);
        assert_int_equal(strlen(push->version), KB_XDS_PUSH_NAME_BYTES_MAX);
        assert_int_equal(strlen(push->error), KB_XDS_PUSH_ERROR_BYTES_MAX);
        count++;
    }
    assert_int_equal(count, KB_XDS_PUSHES_MAX);
    assert_int_equal(plane.pushes.total, KB_XDS_PUSHES_MAX + 5);
}

/* /kobune/pushes?format=json shows it, and JSON is UTF-8. */
static void no_character_is_cut_in_two(void **state)
{
    struct kb_xds_push *push = kb_xds_push_begin(&plane.pushes, KB_XDS_CLUSTER, "sotw");
    char name[KB_XDS_PUSH_NAME_BYTES_MAX + 2];

    (void)state;
    memset(name, 'n', sizeof(name));
    memcpy(name + KB_XDS_PUSH_NAME_BYTES_MAX - 2, "\xe2\x82\xac", 3); /* the euro sign */
    kb_xds_push_note(push, KB_XDS_ADDED, kb_str_make(name, sizeof(name)));
    kb_xds_push_note(push, KB_XDS_ADDED, kb_str_make(name, KB_XDS_PUSH_NAME_BYTES_MAX + 1));
    kb_xds_push_note(push, KB_XDS_ADDED, kb_str_make(name + 1, KB_XDS_PUSH_NAME_BYTES_MAX));
    kb_xds_push_end(&plane.pushes, push, KB_STR("1"), KB_STR_NULL);
    assert_int_equal(strlen(push->names[0].name), KB_XDS_PUSH_NAME_BYTES_MAX - 2);
    assert_int_equal(strlen(push->names[1].name), KB_XDS_PUSH_NAME_BYTES_MAX - 2);
    assert_int_equal(strlen(push->names[2].name), KB_XDS_PUSH_NAME_BYTES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sotw_names_come_change_and_go, setup_sotw, teardown),
        cmocka_unit_test_setup_teardown(a_refused_push_says_why_and_changes_nothing, setup_sotw,
                                        teardown),
        cmocka_unit_test_setup_teardown(delta_names_come_change_and_go, setup_delta, teardown),
        cmocka_unit_test_setup_teardown(names_that_nobody_asks_for_any_more_are_new_again,
                                        setup_delta, teardown),
        cmocka_unit_test_setup_teardown(the_log_is_bounded, setup_sotw, teardown),
        cmocka_unit_test_setup_teardown(no_character_is_cut_in_two, setup_sotw, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
