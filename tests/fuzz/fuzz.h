/* SPDX-License-Identifier: Apache-2.0 */
/* What every fuzz target defines. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Runs one input; returns 0. Aborts when a promise is broken. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
