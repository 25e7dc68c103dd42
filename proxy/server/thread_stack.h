/* SPDX-License-Identifier: Apache-2.0 */
/* Where another thread is: its stack, by a signal to it. For a worker that does not come back. One
 * at a time; main thread. */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#define KB_THREAD_STACK_MAX 48

/* Before the first ask; takes the signal. */
void kb_thread_stack_install(void);
/* On each thread that may be asked. */
void kb_thread_stack_allow(void);
/* Asks a thread that lives; false: another's answer has not come yet. */
bool kb_thread_stack_ask(pthread_t thread);
/* The answer's frames, the innermost first, or 0 as long as there is none; asked for once. */
int kb_thread_stack_take(void *frames[KB_THREAD_STACK_MAX]);
