/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks. Request code reads the loop's cached time (kb_loop_now_ms); these ask the kernel. Tests
 * may freeze and move the clocks of the calling thread. */
#pragma once

#include "base/compiler.h"

/* Monotonic nanoseconds. */
uint64_t kb_clock_mono_ns(void);

/* Nanoseconds since 1970-01-01 UTC. */
uint64_t kb_clock_wall_ns(void);

/* Freezes both clocks of this thread at the given values; tests only. */
void kb_clock_simulate(uint64_t mono_ns, uint64_t wall_ns);

/* Moves both frozen clocks on. */
void kb_clock_advance(uint64_t ns);
