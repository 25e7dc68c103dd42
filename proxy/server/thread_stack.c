/* SPDX-License-Identifier: Apache-2.0 */
/* The stack of another thread: a signal makes it write down its own frames. The handler allocates
 * nothing and takes no lock (backtrace(3) does neither once it was called). */
#include "proxy/server/thread_stack.h"

#include <execinfo.h>
#include <signal.h>
#include <string.h>

#include "base/compiler.h"

enum { FREE, ASKED, ANSWERED };

static struct {
    int state; /* atomic */
    int count;
    void *frames[KB_THREAD_STACK_MAX];
} answer;

static int signal_number(void)
{
    return SIGRTMIN + 4;
}

static void stack_write(int number)
{
    (void)number;
    if (__atomic_load_n(&answer.state, __ATOMIC_ACQUIRE) == ASKED) {
        answer.count = backtrace(answer.frames, KB_THREAD_STACK_MAX);
        __atomic_store_n(&answer.state, ANSWERED, __ATOMIC_RELEASE);
    }
}

void kb_thread_stack_install(void)
{
    struct sigaction action;
    void *first[1];

    memset(&action, 0, sizeof(action));
    action.sa_handler = stack_write;
    action.sa_flags = SA_RESTART;
    sigfillset(&action.sa_mask);
    backtrace(first, 1); /* loads what it needs, with memory */
    sigaction(signal_number(), &action, NULL);
}

void kb_thread_stack_allow(void)
{
    sigset_t own;

    sigemptyset(&own);
    sigaddset(&own, signal_number());
    pthread_sigmask(SIG_UNBLOCK, &own, NULL);
}

bool kb_thread_stack_ask(pthread_t thread)
{
    int expected = FREE;

    if (!__atomic_compare_exchange_n(&answer.state, &expected, ASKED, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED)) {
        return false;
    }
    if (pthread_kill(thread, signal_number()) != 0) {
        __atomic_store_n(&answer.state, FREE, __ATOMIC_RELEASE);
        return false;
    }
    return true;
}

int kb_thread_stack_take(void *frames[KB_THREAD_STACK_MAX])
{
    int count;

    if (__atomic_load_n(&answer.state, __ATOMIC_ACQUIRE) != ANSWERED) {
        return 0;
    }
    count = answer.count;
    memcpy(frames, answer.frames, (size_t)KB_MAX(count, 0) * sizeof(frames[0]));
    __atomic_store_n(&answer.state, FREE, __ATOMIC_RELEASE);
    return count;
}
