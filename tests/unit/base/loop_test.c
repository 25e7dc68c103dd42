/* SPDX-License-Identifier: Apache-2.0 */
/* Deferred work: all of it in its event, and no end to it does not stop the loop; late work at the
 * end of the round. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/loop.h"

#define MANY 50000

static struct kb_loop loop;
static struct kb_deferred items[MANY];
static unsigned ran;
static bool again;

static void item_run(struct kb_deferred *item)
{
    assert_ptr_equal(item, &items[ran % MANY]);
    ran++;
    if (again) {
        kb_loop_defer(&loop, item);
    }
}

static void items_queue(void *arg)
{
    unsigned count = *(unsigned *)arg;

    for (unsigned i = 0; i < count; i++) {
        kb_deferred_init(&items[i], item_run);
        kb_loop_defer(&loop, &items[i]);
    }
}

static void test_all_in_one_event(void **state)
{
    unsigned count = MANY;

    (void)state;
    ran = 0;
    again = false;
    assert_int_equal(kb_loop_init(&loop), 0);
    kb_loop_post(&loop, items_queue, &count);
    kb_loop_run_once(&loop, true);
    assert_int_equal(ran, MANY);
    kb_loop_dispose(&loop);
}

static void item_again(struct kb_deferred *item)
{
    ran++;
    if (again) {
        kb_loop_defer(&loop, item);
    }
}

static void again_queue(void *arg)
{
    (void)arg;
    kb_deferred_init(&items[0], item_again);
    kb_loop_defer(&loop, &items[0]);
}

static void test_endless_work_lets_events_in(void **state)
{
    unsigned before;

    (void)state;
    ran = 0;
    again = true;
    assert_int_equal(kb_loop_init(&loop), 0);
    kb_loop_post(&loop, again_queue, NULL);
    kb_loop_run_once(&loop, true);
    before = ran;
    assert_true(before > 1);
    kb_loop_run_once(&loop, true);
    assert_true(ran > before);
    again = false;
    kb_loop_dispose(&loop);
}

static unsigned late_ran;

static void late_run_once(struct kb_deferred *item)
{
    (void)item;
    late_ran++;
}

static void late_expect_none(void *arg)
{
    (void)arg;
    assert_int_equal(late_ran, 0);
}

static void late_queue(void *arg)
{
    struct kb_deferred *item = arg;

    kb_deferred_init(item, late_run_once);
    kb_loop_defer_late(&loop, item);
    kb_loop_defer_late(&loop, item);
}

/* The events of one round first, then what they left for its end. */
static void test_late_work_waits_for_the_end_of_the_round(void **state)
{
    (void)state;
    late_ran = 0;
    assert_int_equal(kb_loop_init(&loop), 0);
    kb_loop_post(&loop, late_queue, &items[0]);
    kb_loop_post(&loop, late_expect_none, NULL);
    kb_loop_post(&loop, late_queue, &items[1]);
    kb_loop_run_once(&loop, true);
    assert_int_equal(late_ran, 2);
    kb_loop_dispose(&loop);
}

static void test_cancelled_late_work_never_runs(void **state)
{
    (void)state;
    late_ran = 0;
    assert_int_equal(kb_loop_init(&loop), 0);
    late_queue(&items[0]);
    kb_deferred_cancel(&items[0]);
    kb_loop_run_once(&loop, false);
    kb_loop_dispose(&loop);
    assert_int_equal(late_ran, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_in_one_event),
        cmocka_unit_test(test_endless_work_lets_events_in),
        cmocka_unit_test(test_late_work_waits_for_the_end_of_the_round),
        cmocka_unit_test(test_cancelled_late_work_never_runs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
