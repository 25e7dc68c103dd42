/* SPDX-License-Identifier: Apache-2.0 */
/* Base64 (RFC 4648 section 4). */
#pragma once

#include "base/arena.h"
#include "base/str.h"

/* With padding, in the arena. */
struct kb_str kb_base64_encode(struct kb_str bytes, struct kb_arena *arena);
/* Padding may be missing. *len says how much room is at `out`, and then how much was written.
 * KB_EINVALID: not base64; KB_ELIMIT: no room. */
int kb_base64_decode(struct kb_str text, char *out, size_t *len) KB_MUST_USE;
