/* SPDX-License-Identifier: Apache-2.0 */
/* Published objects: who sees which when, and when they go. The loops run in one thread, one after
 * the other, so that the order is the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/slot.h"

#define WORKERS 2

struct thing {
    struct kb_shared shared; /* first */
    unsigned *destroyed;
};

static struct kb_worker workers[WORKERS + 1];
static struct kb_slot *slot;
static unsigned destroyed;

static void thing_destroy(struct kb_shared *shared)
{
    struct thing *thing = (struct thing *)shared;

    ++*thing->destroyed;
    kb_shared_dispose(shared);
    free(thing);
}

static struct kb_shared *thing_create(void)
{
    struct thing *thing = kb_calloc(1, sizeof(*thing));

    kb_shared_init(&thing->shared, &workers[WORKERS], WORKERS, thing_destroy);
    thing->destroyed = &destroyed;
    return &thing->shared;
}

static void run(unsigned worker)
{
    kb_loop_run_once(&workers[worker].loop, false);
}

static int set_up(void **state)
{
    for (uint32_t i = 0; i <= WORKERS; i++) {
        assert_int_equal(kb_worker_init(&workers[i], i), 0);
    }
    destroyed = 0;
    slot = kb_slot_create(&workers[WORKERS], workers, WORKERS);
    *state = slot;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kb_slot_destroy(slot);
    for (uint32_t i = 0; i <= WORKERS; i++) {
        run(i);
    }
    for (uint32_t i = 0; i <= WORKERS; i++) {
        kb_worker_dispose(&workers[i]);
    }
    return 0;
}

static void each_worker_sees_it_in_its_own_time(void **state)
{
    struct kb_shared *thing = thing_create();

    (void)state;
    kb_slot_publish(slot, thing);
    assert_ptr_equal(kb_slot_get(slot, &workers[WORKERS]), thing);
    assert_null(kb_slot_get(slot, &workers[0]));
    run(0);
    assert_ptr_equal(kb_slot_get(slot, &workers[0]), thing);
    assert_null(kb_slot_get(slot, &workers[1]));
    run(1);
    assert_ptr_equal(kb_slot_get(slot, &workers[1]), thing);
}

static void the_last_to_let_go_frees_it(void **state)
{
    struct kb_shared *first = thing_create(), *second = thing_create();

    (void)state;
    kb_slot_publish(slot, first);
    run(0);
    run(1);
    kb_shared_ref(first, &workers[1]); /* a stream */
    kb_slot_publish(slot, second);
    run(0);
    run(1);
    run(WORKERS);
    assert_int_equal(destroyed, 0);
    assert_ptr_equal(kb_slot_get(slot, &workers[1]), second);
    kb_shared_unref(first, &workers[1]);
    run(WORKERS);
    assert_int_equal(destroyed, 1);
}

static void replaced_before_a_worker_saw_it(void **state)
{
    (void)state;
    kb_slot_publish(slot, thing_create());
    kb_slot_publish(slot, thing_create());
    kb_slot_publish(slot, thing_create());
    run(0);
    run(WORKERS);
    assert_int_equal(destroyed, 0);
    run(1);
    run(WORKERS);
    assert_int_equal(destroyed, 2);
}

static void the_same_again_changes_nothing(void **state)
{
    struct kb_shared *thing = thing_create();

    (void)state;
    kb_slot_publish(slot, thing);
    run(0);
    run(1);
    kb_shared_ref(thing, &workers[WORKERS]); /* the hold that publishing takes over */
    kb_slot_publish(slot, thing);
    run(0);
    run(1);
    run(WORKERS);
    assert_int_equal(destroyed, 0);
    kb_slot_publish(slot, NULL);
    run(0);
    run(1);
    run(WORKERS);
    assert_int_equal(destroyed, 1);
}

static void a_slot_goes_while_posts_are_under_way(void **state)
{
    struct kb_slot *other = kb_slot_create(&workers[WORKERS], workers, WORKERS);

    (void)state;
    kb_slot_publish(other, thing_create());
    kb_slot_destroy(other);
    run(1);
    run(0);
    run(WORKERS);
    assert_int_equal(destroyed, 1);
}

static void what_nobody_else_holds_goes_at_once(void **state)
{
    struct kb_shared *thing = thing_create();

    (void)state;
    kb_shared_discard(thing);
    assert_int_equal(destroyed, 1);
    thing = thing_create();
    kb_slot_publish(slot, thing);
    for (unsigned i = 0; i < WORKERS; i++) {
        run(i);
    }
    kb_shared_ref(thing, &workers[WORKERS]);
    kb_slot_publish(slot, NULL);
    kb_shared_discard(thing); /* workers have it */
    assert_int_equal(destroyed, 1);
    for (unsigned i = 0; i <= WORKERS; i++) {
        run(i);
    }
    assert_int_equal(destroyed, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_worker_sees_it_in_its_own_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_last_to_let_go_frees_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_nobody_else_holds_goes_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(replaced_before_a_worker_saw_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_same_again_changes_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_slot_goes_while_posts_are_under_way, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
