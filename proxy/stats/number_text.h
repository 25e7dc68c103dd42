/* SPDX-License-Identifier: Apache-2.0 */
/* Floating point numbers as Envoy's outputs write them: the fewest digits that read back as the
 * same value. */
#pragma once

#include "base/str.h"

#define KB_NUMBER_TEXT_MAX 32

/* As fmt's "{}": 4.066666666666666, 300000, 1e+16, nan. The slice is of `out`. */
struct kb_str kb_number_text(double value, char out[KB_NUMBER_TEXT_MAX]);
/* As in Envoy's JSON: whichever of fixed and exponent form is shorter (3e+05), null for what is no
 * number. */
struct kb_str kb_number_json(double value, char out[KB_NUMBER_TEXT_MAX]);
