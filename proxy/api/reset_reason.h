/* SPDX-License-Identifier: Apache-2.0 */
/* Reasons of stream resets (Envoy Http::StreamResetReason): pools and codecs give them, the router
 * answers and retries by them. */
#pragma once

#include "base/str.h"

enum kb_reset_reason {
#define X(id, text) KB_RESET_##id,
#include "proxy/api/reset_reason.def"
#undef X
    KB_RESET_COUNT
};

/* "connection termination": as local reply bodies show it (response code details have '_' for ' ').
 */
struct kb_str kb_reset_reason_text(enum kb_reset_reason reason);
