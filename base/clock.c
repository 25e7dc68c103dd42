/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks: the kernel's, or frozen ones in tests. */
#include "base/clock.h"

#include <stdbool.h>
#include <time.h>

static _Thread_local bool simulated;
static _Thread_local uint64_t simulated_mono_ns;
static _Thread_local uint64_t simulated_wall_ns;

static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

uint64_t kb_clock_mono_ns(void)
{
    return KB_UNLIKELY(simulated) ? simulated_mono_ns : clock_ns(CLOCK_MONOTONIC);
}

uint64_t kb_clock_wall_ns(void)
{
    return KB_UNLIKELY(simulated) ? simulated_wall_ns : clock_ns(CLOCK_REALTIME);
}

void kb_clock_simulate(uint64_t mono_ns, uint64_t wall_ns)
{
    simulated = true;
    simulated_mono_ns = mono_ns;
    simulated_wall_ns = wall_ns;
}

void kb_clock_advance(uint64_t ns)
{
    simulated_mono_ns += ns;
    simulated_wall_ns += ns;
}
