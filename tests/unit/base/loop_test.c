/* SPDX-License-Identifier: Apache-2.0 */
/* Deferred work: all of it in its event, and no end to it does not stop the loop. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_in_one_event),
        cmocka_unit_test(test_endless_work_lets_events_in),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
