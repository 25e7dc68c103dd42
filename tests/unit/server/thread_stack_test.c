/* SPDX-License-Identifier: Apache-2.0 */
/* The stack of a thread that spins: it tells where it is, and goes on afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>

#include "base/compiler.h"
#include "proxy/server/thread_stack.h"

static int ready, stop; /* atomic */

static void *spin(void *arg)
{
    kb_thread_stack_allow();
    __atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&stop, __ATOMIC_ACQUIRE) == 0) {
    }
    return arg;
}

static void test_stack_of_a_spinning_thread(void **state)
{
    void *frames[KB_THREAD_STACK_MAX];
    bool inside = false;
    pthread_t thread;
    int count = 0;

    (void)state;
    kb_thread_stack_install();
    assert_int_equal(pthread_create(&thread, NULL, spin, NULL), 0);
    while (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) == 0) {
        sched_yield();
    }
    for (int round = 0; round < 2; round++) {
        assert_true(kb_thread_stack_ask(thread));
        assert_false(kb_thread_stack_ask(thread)); /* one at a time */
        for (count = 0; count == 0; count = kb_thread_stack_take(frames)) {
            sched_yield();
        }
        assert_int_equal(kb_thread_stack_take(frames), 0);
    }
    for (int i = 0; i < count; i++) {
        inside |= (uintptr_t)frames[i] - (uintptr_t)spin < 512;
    }
    assert_true(inside);
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stack_of_a_spinning_thread)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
