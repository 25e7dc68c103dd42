/* SPDX-License-Identifier: Apache-2.0 */
/* The timer wheel against a plain list: same timers, same order of milliseconds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rand.h"
#include "base/timer.h"

#define TIMERS 200

struct probe {
    struct kb_timer timer;
    uint64_t fired_ms; /* 0: not yet */
};

static struct kb_timer_wheel wheel;
static struct probe probes[TIMERS];

static void fired(struct kb_timer *timer)
{
    KB_CONTAINER_OF(timer, struct probe, timer)->fired_ms = wheel.now_ms;
}

static void reset(uint64_t now_ms)
{
    kb_timer_wheel_init(&wheel, now_ms);
    for (size_t i = 0; i < TIMERS; i++) {
        kb_timer_init(&probes[i].timer, fired);
        probes[i].fired_ms = 0;
    }
}

static void test_fires_at_its_millisecond_and_not_before(void **state)
{
    static const uint64_t delays[] = {1,    2,     63,     64,      65,      4095,
                                      4096, 15000, 300000, 3600000, 90000000};

    (void)state;
    for (size_t i = 0; i < KB_ARRAY_LEN(delays); i++) {
        reset(123456);
        kb_timer_wheel_arm(&wheel, &probes[0].timer, 123456 + delays[i]);
        kb_timer_wheel_advance(&wheel, 123456 + delays[i] - 1);
        assert_int_equal(probes[0].fired_ms, 0);
        kb_timer_wheel_advance(&wheel, 123456 + delays[i]);
        assert_int_equal(probes[0].fired_ms, 123456 + delays[i]);
    }
}

static void test_cancelled_timer_never_fires(void **state)
{
    (void)state;
    reset(1);
    kb_timer_wheel_arm(&wheel, &probes[0].timer, 100);
    kb_timer_wheel_cancel(&wheel, &probes[0].timer);
    kb_timer_wheel_cancel(&wheel, &probes[0].timer);
    kb_timer_wheel_advance(&wheel, 100000);
    assert_int_equal(probes[0].fired_ms, 0);
    assert_int_equal(wheel.armed_count, 0);
    assert_true(kb_timer_wheel_next_ms(&wheel) == UINT64_MAX);
}

static void test_a_moved_timer_fires_at_its_new_time(void **state)
{
    (void)state;
    reset(1000);
    kb_timer_wheel_arm(&wheel, &probes[0].timer, 1010);
    kb_timer_wheel_arm(&wheel, &probes[0].timer, 5000); /* later */
    kb_timer_wheel_advance(&wheel, 4999);
    assert_int_equal(probes[0].fired_ms, 0);
    kb_timer_wheel_arm(&wheel, &probes[0].timer, 9000);
    kb_timer_wheel_arm(&wheel, &probes[0].timer, 5001); /* earlier */
    kb_timer_wheel_advance(&wheel, 5000);
    assert_int_equal(probes[0].fired_ms, 0);
    kb_timer_wheel_advance(&wheel, 5001);
    assert_int_equal(probes[0].fired_ms, 5001);
    assert_int_equal(wheel.armed_count, 0);
}

static void cancel_the_other(struct kb_timer *timer)
{
    (void)timer;
    kb_timer_wheel_cancel(&wheel, &probes[1].timer);
}

static void test_callback_may_cancel_a_timer_that_is_due_too(void **state)
{
    (void)state;
    reset(1);
    probes[0].timer.cb = cancel_the_other;
    kb_timer_wheel_arm(&wheel, &probes[0].timer, 10);
    kb_timer_wheel_arm(&wheel, &probes[1].timer, 10);
    kb_timer_wheel_advance(&wheel, 10);
    assert_int_equal(probes[1].fired_ms, 0);
    assert_int_equal(wheel.armed_count, 0);
}

static void test_random_timers_fire_on_time_whatever_the_steps(void **state)
{
    struct kb_rand rand;
    uint64_t now_ms = 1000;

    (void)state;
    kb_rand_init(&rand, 42);
    reset(now_ms);
    for (unsigned round = 0; round < 20000; round++) {
        struct probe *probe = &probes[kb_rand_u64(&rand) % TIMERS];
        uint64_t reach = kb_rand_u64(&rand) % 3 == 0 ? 1000000 : 200;

        if (probe->fired_ms != 0) {
            assert_in_range(probe->fired_ms, probe->timer.deadline_ms, UINT64_MAX);
            probe->fired_ms = 0;
        }
        kb_timer_wheel_arm(&wheel, &probe->timer, now_ms + 1 + kb_rand_u64(&rand) % reach);
        assert_in_range(kb_timer_wheel_next_ms(&wheel), now_ms, probe->timer.deadline_ms);
        now_ms += kb_rand_u64(&rand) % 100;
        kb_timer_wheel_advance(&wheel, now_ms);
        for (size_t i = 0; i < TIMERS; i++) {
            assert_true(!kb_timer_armed(&probes[i].timer) || probes[i].timer.deadline_ms > now_ms);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fires_at_its_millisecond_and_not_before),
        cmocka_unit_test(test_cancelled_timer_never_fires),
        cmocka_unit_test(test_a_moved_timer_fires_at_its_new_time),
        cmocka_unit_test(test_callback_may_cancel_a_timer_that_is_due_too),
        cmocka_unit_test(test_random_timers_fire_on_time_whatever_the_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
