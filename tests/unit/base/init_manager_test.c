/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for targets: order, late ones, those that go away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/init_manager.h"

struct waiting {
    struct kb_init_manager manager;
    struct kb_init_target first, second;
    unsigned done, started;
};

static struct waiting w;

static void count_done(void *arg)
{
    ((struct waiting *)arg)->done++;
}

static void count_start(struct kb_init_target *target)
{
    (void)target;
    w.started++;
}

static void start_and_be_ready(struct kb_init_target *target)
{
    w.started++;
    kb_init_target_ready(target);
}

static void start_and_add_second(struct kb_init_target *target)
{
    (void)target;
    w.started++;
    kb_init_manager_add(&w.manager, &w.second);
}

static int set_up(void **state)
{
    w = (struct waiting){0};
    kb_init_manager_init(&w.manager);
    kb_init_target_init(&w.first, "first", count_start);
    kb_init_target_init(&w.second, "second", count_start);
    *state = &w;
    return 0;
}

static void nothing_to_wait_for(void **state)
{
    (void)state;
    kb_init_manager_start(&w.manager, count_done, &w);
    assert_int_equal(w.done, 1);
    kb_init_manager_add(&w.manager, &w.first);
    assert_int_equal(w.started, 1);
    kb_init_target_ready(&w.first);
    assert_int_equal(w.done, 1);
}

static void all_must_be_ready(void **state)
{
    (void)state;
    kb_init_manager_add(&w.manager, &w.first);
    kb_init_manager_add(&w.manager, &w.second);
    assert_int_equal(w.started, 0);
    kb_init_manager_start(&w.manager, count_done, &w);
    assert_int_equal(w.started, 2);
    kb_init_target_ready(&w.second);
    kb_init_target_ready(&w.second);
    assert_int_equal(w.done, 0);
    kb_init_target_dispose(&w.first);
    assert_int_equal(w.done, 1);
}

static void ready_from_within_the_start(void **state)
{
    (void)state;
    w.first.start = start_and_be_ready;
    kb_init_manager_add(&w.manager, &w.first);
    kb_init_manager_start(&w.manager, count_done, &w);
    assert_int_equal(w.done, 1);
}

static void a_start_adds_another(void **state)
{
    (void)state;
    w.first.start = start_and_add_second;
    kb_init_manager_add(&w.manager, &w.first);
    kb_init_manager_start(&w.manager, count_done, &w);
    assert_int_equal(w.started, 2);
    kb_init_target_ready(&w.first);
    assert_int_equal(w.done, 0);
    kb_init_target_ready(&w.second);
    assert_int_equal(w.done, 1);
}

static void dispose_lets_go(void **state)
{
    (void)state;
    kb_init_manager_add(&w.manager, &w.first);
    kb_init_manager_start(&w.manager, count_done, &w);
    kb_init_manager_dispose(&w.manager);
    kb_init_target_ready(&w.first);
    assert_int_equal(w.done, 0);
    kb_init_target_dispose(&w.first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_to_wait_for, set_up),
        cmocka_unit_test_setup(all_must_be_ready, set_up),
        cmocka_unit_test_setup(ready_from_within_the_start, set_up),
        cmocka_unit_test_setup(a_start_adds_another, set_up),
        cmocka_unit_test_setup(dispose_lets_go, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
