/* SPDX-License-Identifier: Apache-2.0 */
/* States, signals, draining: what /ready says, when listeners close, and when connections are asked
 * to close. */
#include "proxy/server/lifecycle.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/log.h"
#include "proxy/api/drain.h"

struct fixture {
    struct kb_worker main;
    struct kb_server_context server;
    struct kb_lifecycle lifecycle;
    unsigned stopped_all, stopped_inbound, reopened;
};

static void stop_listeners(void *arg, bool inbound_only)
{
    struct fixture *f = arg;

    *(inbound_only ? &f->stopped_inbound : &f->stopped_all) += 1;
}

static void reopen_logs(void *arg)
{
    ((struct fixture *)arg)->reopened++;
}

static const struct kb_lifecycle_ops ops = {stop_listeners, reopen_logs};

static int setup(void **state)
{
    static struct fixture fixture;

    memset(&fixture, 0, sizeof(fixture));
    *state = &fixture;
    kb_log_set_level(KB_LOG_OFF);
    assert_int_equal(kb_worker_init(&fixture.main, 0), 0);
    fixture.server.main = &fixture.main;
    kb_lifecycle_init(&fixture.lifecycle, &fixture.server, &ops, &fixture);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    kb_lifecycle_dispose(&f->lifecycle);
    kb_worker_dispose(&f->main);
    return 0;
}

static void test_state_follows_stages_and_health(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(kb_lifecycle_state(&f->lifecycle), KB_SERVER_PRE_INITIALIZING);
    kb_lifecycle_set_stage(&f->lifecycle, KB_INIT_STARTED);
    assert_int_equal(kb_lifecycle_state(&f->lifecycle), KB_SERVER_INITIALIZING);
    kb_lifecycle_fail_health_check(&f->lifecycle, true);
    assert_int_equal(kb_lifecycle_state(&f->lifecycle), KB_SERVER_INITIALIZING);
    kb_lifecycle_set_stage(&f->lifecycle, KB_INIT_DONE);
    assert_int_equal(kb_lifecycle_state(&f->lifecycle), KB_SERVER_DRAINING);
    kb_lifecycle_fail_health_check(&f->lifecycle, false);
    assert_int_equal(kb_lifecycle_state(&f->lifecycle), KB_SERVER_LIVE);
    assert_string_equal(kb_server_state_name(KB_SERVER_PRE_INITIALIZING), "PRE_INITIALIZING");
    assert_int_equal(KB_SERVER_INITIALIZING, 3); /* the numbers are those of server.state */
}

static void test_drain_at_once_closes_listeners(void **state)
{
    struct fixture *f = *state;

    kb_lifecycle_drain(&f->lifecycle, false, false, false);
    kb_lifecycle_drain(&f->lifecycle, true, false, false);
    assert_int_equal(f->stopped_all, 1);
    assert_int_equal(f->stopped_inbound, 1);
    assert_false(f->server.draining);
    assert_false(kb_drain_close(&f->server, true, false, 0, 0));
}

static void test_drain_gracefully_closes_listeners_at_its_end(void **state)
{
    struct fixture *f = *state;

    kb_lifecycle_drain(&f->lifecycle, true, true, false);
    kb_lifecycle_drain(&f->lifecycle, true, true, false);
    assert_int_equal(f->stopped_inbound, 0);
    assert_true(f->server.draining_inbound);
    while (f->stopped_inbound == 0) {
        kb_loop_run_once(&f->main.loop, true);
    }
    assert_false(kb_timer_armed(&f->lifecycle.drain_inbound.timer));
    assert_int_equal(f->stopped_inbound, 1);
    assert_int_equal(f->stopped_all, 0);
}

static void test_drain_with_skip_exit_leaves_listeners_open(void **state)
{
    struct fixture *f = *state;

    kb_lifecycle_drain(&f->lifecycle, false, false, true);
    assert_true(f->server.draining);
    while (kb_timer_armed(&f->lifecycle.drain_all.timer)) {
        kb_loop_run_once(&f->main.loop, true);
    }
    assert_int_equal(f->stopped_all, 0);
}

static void test_drain_close_grows_over_the_drain_time(void **state)
{
    struct fixture *f = *state;
    uint64_t now_ms = kb_loop_now_ms(&f->main.loop);
    unsigned closed = 0;

    f->server.drain_time_s = 600;
    kb_lifecycle_drain(&f->lifecycle, false, true, true);
    assert_false(kb_drain_close(&f->server, false, false, now_ms, 0));
    assert_true(kb_drain_close(&f->server, false, false, now_ms + 600000, 599));
    for (uint64_t random = 0; random < 600; random++) {
        closed += kb_drain_close(&f->server, false, false, now_ms + 150000, random);
    }
    assert_int_equal(closed, 150);
    f->server.drain_immediate = true;
    assert_true(kb_drain_close(&f->server, false, false, now_ms, 599));
}

static void test_drain_inbound_leaves_outbound_alone(void **state)
{
    struct fixture *f = *state;

    f->server.drain_immediate = true;
    kb_lifecycle_drain(&f->lifecycle, true, true, true);
    assert_true(kb_drain_close(&f->server, true, false, 0, 0));
    assert_false(kb_drain_close(&f->server, false, false, 0, 0));
}

static void test_failed_health_check_closes_unless_modify_only(void **state)
{
    struct fixture *f = *state;

    kb_lifecycle_fail_health_check(&f->lifecycle, true);
    assert_true(kb_drain_close(&f->server, false, false, 0, 0));
    assert_false(kb_drain_close(&f->server, false, true, 0, 0));
}

static void test_signals_do_what_envoy_does(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(kb_lifecycle_open_signals(&f->lifecycle), 0);
    raise(SIGPIPE);
    raise(SIGHUP);
    raise(SIGUSR1);
    while (f->reopened == 0) {
        kb_loop_run_once(&f->main.loop, true);
    }
    assert_false(f->lifecycle.shutting_down);
    raise(SIGTERM);
    kb_loop_run(&f->main.loop); /* returns, or the test hangs */
    assert_true(f->lifecycle.shutting_down);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_state_follows_stages_and_health, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain_at_once_closes_listeners, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain_gracefully_closes_listeners_at_its_end, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_drain_with_skip_exit_leaves_listeners_open, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_drain_close_grows_over_the_drain_time, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_drain_inbound_leaves_outbound_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_health_check_closes_unless_modify_only, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_signals_do_what_envoy_does, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
